//! How a network is trained: what checks that retrain it and remedies that train begin with.

use std::sync::Arc;

use netproof_data::{Dataset, LabelKind};
use netproof_graph::Model;
use netproof_train::{DataSection, Method, Purpose, Recipe, Registry, prepare};
use sha2::{Digest as _, Sha256};

use crate::{AuditError, Subject};

/// Steps that a recipe of our own takes about, where the number of rows allows it.
const STEPS: usize = 1500;
/// Fewest and most epochs of such a recipe.
const EPOCHS: [usize; 2] = [5, 30];

/// A recipe, and the methods that it may name.
#[derive(Clone)]
pub struct Training {
    recipe: Recipe,
    given: bool,
    registry: Arc<Registry>,
}

impl std::fmt::Debug for Training {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Training").field("recipe", &self.recipe).field("given", &self.given).finish_non_exhaustive()
    }
}

impl Training {
    /// The recipe by which the network was trained, or should have been.
    pub fn given(recipe: Recipe, registry: Arc<Registry>) -> Self {
        Self { recipe, given: true, registry }
    }

    /// A recipe for a network that came without one: the same graph with fresh weights, trained with AdamW, cosine and
    /// the best weights kept, for about 1,500 steps and 5 to 30 epochs.
    ///
    /// `data` says where the training rows are, `path` where the network is; both stand in the recipe so that
    /// `netproof train` can repeat it.
    pub fn derived(path: &str, data: DataSection, train: &Dataset, registry: Arc<Registry>) -> Self {
        let network = Method::new("file").with("path", path).with("fresh", true);
        let mut recipe = Recipe::new(data, network);
        if *train.label_kind() == LabelKind::Target {
            recipe.objective = Method::new("mean-squared");
        }
        let steps = train.len().div_ceil(recipe.batch_size).max(1);
        recipe.epochs = STEPS.div_ceil(steps).clamp(EPOCHS[0], EPOCHS[1]) as u64;
        Self { recipe, given: false, registry }
    }

    /// The recipe before any change.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Whether a person gave the recipe; otherwise it was made up.
    pub fn is_given(&self) -> bool {
        self.given
    }

    /// The methods that the recipe may name.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// One sentence on what is trained, for explanations.
    pub fn describe(&self) -> &'static str {
        if self.given {
            "Trained as the recipe says that came with this audit."
        } else {
            "The network came without a recipe: its graph is trained from fresh weights by a recipe of Netproof's own."
        }
    }

    /// SHA-256 of the recipe, part of the key of what was found with it.
    pub(crate) fn digest(&self) -> String {
        let digest = Sha256::digest(self.recipe.to_toml());
        digest.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The network that a recipe starts from, for a seed.
    /// # Errors
    /// It cannot be read or made.
    pub fn network(&self, recipe: &Recipe, subject: &Subject, seed: u64) -> Result<Model, AuditError> {
        let rows = subject.part(crate::Part::Train).unwrap_or(subject.data());
        let outputs = match rows.label_kind() {
            LabelKind::Classes { count, .. } => *count,
            _ => 1,
        };
        let purpose = Purpose { row: rows.feature_shape().to_vec(), outputs, seed };
        // A recipe of our own means the network under audit, whatever was put in front of it.
        if !self.given {
            return Ok(prepare(&recipe.network, subject.model(), &purpose)?);
        }
        Ok(self.registry.architectures.build(&recipe.network, &self.registry)?.network(&purpose)?)
    }
}
