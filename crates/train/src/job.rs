//! What a training works on: network and rows that fit each other.

use netproof_data::{Dataset, LabelKind, split};
use netproof_graph::Model;

use crate::error::TrainError;
use crate::method::Registry;
use crate::network::Purpose;
use crate::recipe::Recipe;

/// A network and rows. [`Job::open`] makes it from a recipe; who has them already puts them together.
pub struct Job {
    /// The network to start from.
    pub model: Model,
    /// Rows to learn from.
    pub train: Dataset,
    /// Rows that decide which weights are the best.
    pub validation: Option<Dataset>,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Job {
    /// Opens the data and the network of a recipe, and sets validation rows aside.
    /// # Errors
    /// Files cannot be read or do not fit.
    pub fn open(recipe: &Recipe, registry: &Registry) -> Result<Self, TrainError> {
        let (train, validation) = recipe.data.open()?;
        let outputs = match train.label_kind() {
            LabelKind::Classes { count, .. } => *count,
            _ => 1,
        };
        let purpose = Purpose { row: train.feature_shape().to_vec(), outputs, seed: recipe.seed };
        let model = registry.architectures.build(&recipe.network, registry)?.network(&purpose)?;
        Self::new(recipe, model, train, validation)
    }

    /// A network and rows; part of them is set aside for validation where there is none and the recipe says so, and dropout
    /// and stochastic depth are put into the network where the recipe says so.
    /// # Errors
    /// The rows cannot be read; there is no place for dropout or no branch for stochastic depth.
    pub fn new(recipe: &Recipe, model: Model, train: Dataset, validation: Option<Dataset>) -> Result<Self, TrainError> {
        let model = recipe.stochastic_depth.insert(recipe.dropout.insert(model)?)?;
        let mut job = Self { model, train, validation, notes: Vec::new() };
        job.note_small_classes()?;
        if job.validation.is_none() && recipe.validation_fraction > 0.0 {
            job.set_aside(recipe)?;
        }
        if let Some(validation) = &job.validation {
            let [own, other] = [&job.train, validation].map(Dataset::label_kind);
            let fits = match (own, other) {
                (LabelKind::Classes { count, .. }, LabelKind::Classes { count: other, .. }) => other <= count,
                (own, other) => own == other,
            };
            if !fits || validation.feature_shape() != job.train.feature_shape() {
                let message = format!(
                    "training rows are {:?} with {own:?}, validation rows {:?} with {other:?}; they must be alike",
                    job.train.feature_shape(),
                    validation.feature_shape()
                );
                return Err(TrainError::Mismatch { message });
            }
        }
        Ok(job)
    }

    fn set_aside(&mut self, recipe: &Recipe) -> Result<(), TrainError> {
        let labels = self.train.annotations()?.labels;
        let f = recipe.validation_fraction;
        let parts = split(self.train.len(), &[1.0 - f, f], recipe.seed, labels.classes())?;
        let [learn, check] = parts.as_slice() else { return Ok(()) };
        if check.is_empty() || learn.is_empty() {
            self.notes.push(format!("{} rows are too few to set {f} of them aside for validation", self.train.len()));
            return Ok(());
        }
        self.validation = Some(self.train.select(check)?);
        self.train = self.train.select(learn)?;
        Ok(())
    }

    fn note_small_classes(&mut self) -> Result<(), TrainError> {
        let LabelKind::Classes { count, names } = self.train.label_kind() else { return Ok(()) };
        let labels = self.train.annotations()?.labels;
        let mut rows = vec![0usize; *count];
        for &class in labels.classes().unwrap_or_default() {
            if let Some(n) = rows.get_mut(class) {
                *n += 1;
            }
        }
        for (class, n) in rows.iter().enumerate().filter(|(_, n)| **n < 2) {
            let name = names.as_ref().and_then(|names| names.get(class)).map(|n| format!(" ({n})"));
            let name = name.unwrap_or_default();
            self.notes.push(match n {
                0 => format!("class {class}{name} has no training rows: it cannot be learnt"),
                _ => {
                    format!("class {class}{name} has one training row: nothing can be said about how well it is learnt")
                }
            });
        }
        Ok(())
    }
}
