//! What a remedy is. It proposes candidates; the loop makes them, chooses among them and proves the choice.

use std::fmt;
use std::sync::Arc;

use netproof_core::{Comparison, Finding};
use netproof_graph::Model;
use netproof_train::{Recipe, Registry, TrainError};
use serde::{Deserialize, Serialize};

use crate::{AuditError, Context, Subject, Training};

/// Answers findings with candidate networks. It trains nothing itself and judges nothing.
pub trait Remedy: Send + Sync {
    /// Ids of the goals that it serves.
    fn goals(&self) -> &'static [&'static str];

    /// What it would try, most promising first; nothing where it has nothing to offer for this network and these findings.
    /// # Errors
    /// Its options make no sense.
    fn propose(&self, case: &Case<'_>, cx: &Context<'_>) -> Result<Vec<Candidate>, AuditError>;
}

/// What a remedy is shown.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The network, and as its data the rows that candidates are chosen on. Its training rows, where there are any, are
    /// all of them.
    pub subject: &'a Subject,
    /// What the audit found.
    pub findings: &'a [Finding],
}

impl Case<'_> {
    /// How the network is trained, where that is known; without it only [`Making::Direct`] can be proposed.
    pub fn training(&self) -> Option<&Training> {
        self.subject.training()
    }
}

/// What a repair is for, and how its success is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// As `--goal` takes it.
    pub id: &'static str,
    /// For people: what will be better.
    pub title: &'static str,
    /// A concern of one of these checks asks for this goal.
    pub checks: &'static [&'static str],
    /// What is measured; the first that a network has counts.
    pub aims: &'static [Aim],
}

/// A metric of a check that a goal is measured by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Aim {
    /// Check that measures it.
    pub check: &'static str,
    /// Its name in findings.
    pub metric: &'static str,
    /// On which side it is good.
    pub better: Comparison,
}

/// A network that may be better.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Short and unique within the remedy, such as `dropout-0.5`.
    pub name: String,
    /// What is changed, for a person, in one sentence.
    pub what: String,
    /// How it comes about.
    pub making: Making,
}

/// How a candidate comes about.
#[derive(Debug, Clone)]
pub enum Making {
    /// By training.
    Train(Retraining),
    /// By changing the network itself.
    Direct(Direct),
}

/// A training: the recipe of [`Training`] with changes, on training rows that are left over.
#[derive(Debug, Clone, Default)]
pub struct Retraining {
    /// Changes of the recipe: regularisation, gradient rule, augmentation, stopping and all else.
    pub changes: Vec<Change>,
    /// A change of the network before it is trained.
    pub before: Option<Rewrite>,
    /// A change of the network after it was trained.
    pub after: Option<Rewrite>,
    /// Positions of training rows that are left out.
    pub without: Vec<usize>,
    /// Networks that are trained with seeds of their own and averaged into one; 0 and 1 mean one.
    pub members: usize,
}

impl Retraining {
    /// A training with these changes of the recipe.
    pub fn new(changes: impl IntoIterator<Item = Change>) -> Self {
        Self { changes: changes.into_iter().collect(), ..Self::default() }
    }
}

/// One change of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Path of the field, such as `dropout.rate`; with a `+` at the end the value is added to a list.
    pub field: String,
    /// Its value.
    pub value: toml::Value,
}

impl Change {
    /// Sets a field.
    pub fn set(field: &str, value: impl Into<toml::Value>) -> Self {
        Self { field: field.to_owned(), value: value.into() }
    }

    /// Adds to a list.
    pub fn push(list: &str, value: impl Into<toml::Value>) -> Self {
        Self { field: format!("{list}+"), value: value.into() }
    }

    fn apply(&self, recipe: &mut toml::Table) -> Result<(), String> {
        let (path, append) = match self.field.strip_suffix('+') {
            Some(path) => (path, true),
            None => (self.field.as_str(), false),
        };
        let (folder, name) = path.rsplit_once('.').unwrap_or(("", path));
        let mut table = recipe;
        for part in folder.split('.').filter(|p| !p.is_empty()) {
            let inner = table.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            table = inner.as_table_mut().ok_or_else(|| format!("`{part}` of `{path}` is no table"))?;
        }
        if !append {
            table.insert(name.to_owned(), self.value.clone());
            return Ok(());
        }
        let list = table.entry(name).or_insert_with(|| toml::Value::Array(Vec::new()));
        list.as_array_mut().ok_or_else(|| format!("`{path}` is no list"))?.push(self.value.clone());
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.strip_suffix('+') {
            Some(list) => write!(f, "{list} += {}", self.value),
            None => write!(f, "{} = {}", self.field, self.value),
        }
    }
}

/// A recipe with changes, checked as any recipe is.
/// # Errors
/// A field does not exist, or a value makes no sense.
pub fn changed(recipe: &Recipe, changes: &[Change], registry: &Registry) -> Result<Recipe, AuditError> {
    let wrong = |message: String| TrainError::Recipe { line: None, message };
    let mut table: toml::Table =
        recipe.to_toml().parse().map_err(|e: toml::de::Error| wrong(e.message().to_owned()))?;
    for change in changes {
        change.apply(&mut table).map_err(wrong)?;
    }
    let text = toml::to_string(&table).map_err(|e| wrong(e.to_string()))?;
    Ok(Recipe::parse(&text, registry)?)
}

/// A change of a network, with the words that identify it: equal words must mean the same change.
#[derive(Clone)]
pub struct Rewrite {
    /// Such as `keeps 0.5 of the units of every layer`.
    pub text: String,
    /// The change; the seed is that of the training.
    pub apply: Arc<dyn Fn(&Model, u64) -> Result<Model, AuditError> + Send + Sync>,
}

impl Rewrite {
    /// A change.
    pub fn new(
        text: impl Into<String>,
        apply: impl Fn(&Model, u64) -> Result<Model, AuditError> + Send + Sync + 'static,
    ) -> Self {
        Self { text: text.into(), apply: Arc::new(apply) }
    }
}

impl fmt::Debug for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rewrite").field(&self.text).finish()
    }
}

/// A treatment without training. It sees the network, and as data rows that the network has not learnt from and that the
/// proof does not use; `None` where it finds nothing to do.
#[derive(Clone)]
pub struct Direct(pub Arc<Treat>);

/// See [`Direct`].
pub type Treat = dyn Fn(&Subject, &Context<'_>) -> Result<Option<Model>, AuditError> + Send + Sync;

impl Direct {
    /// A treatment.
    pub fn new(
        treat: impl Fn(&Subject, &Context<'_>) -> Result<Option<Model>, AuditError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(treat))
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Direct")
    }
}

#[cfg(test)]
mod tests {
    use netproof_train::{DataSection, Method};

    use super::*;

    fn base() -> Recipe {
        Recipe::new(DataSection::new("a.npz"), Method::new("mlp"))
    }

    #[test]
    fn changes_reach_every_part_of_a_recipe() {
        let registry = Registry::default();
        let smoothing: toml::Table = "kind = 'cross-entropy'\nlabel_smoothing = 0.1".parse().unwrap();
        let flip: toml::Table = "kind = 'horizontal-flip'".parse().unwrap();
        let changes = [
            Change::set("dropout.rate", 0.5),
            Change::set("objective", smoothing),
            Change::set("validation_fraction", 0.2),
            Change::push("augmentation", flip.clone()),
            Change::push("augmentation", flip),
        ];
        let got = changed(&base(), &changes, &registry).unwrap();
        assert_eq!((got.dropout.rate, got.validation_fraction, got.augmentation.len()), (0.5, 0.2, 2));
        assert_eq!(got.objective, Method::new("cross-entropy").with("label_smoothing", 0.1));
        assert_eq!(changed(&base(), &[], &registry).unwrap(), base());
        assert_eq!(changes[0].to_string(), "dropout.rate = 0.5");
        assert_eq!(changes[3].to_string(), "augmentation += { kind = \"horizontal-flip\" }");
    }

    #[test]
    fn changes_that_make_no_recipe_are_refused() {
        let registry = Registry::default();
        for change in [
            Change::set("dropout.rate", 1.5),
            Change::set("dropout.rat", 0.5),
            Change::set("epochs.of", 1),
            Change::push("epochs", 1),
            Change::set("gradient.kind", "nothing"),
        ] {
            assert!(changed(&base(), std::slice::from_ref(&change), &registry).is_err(), "{change}");
        }
    }
}
