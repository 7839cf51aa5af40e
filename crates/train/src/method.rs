//! Methods by name: what a recipe names, and the registries in which it is found.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::de::ValueDeserializer;

use crate::augment::Augmentation;
use crate::averaging::Averaging;
use crate::error::TrainError;
use crate::network::Architecture;
use crate::objective::Objective;
use crate::optimiser::Optimiser;
use crate::rule::GradientRule;
use crate::schedule::Schedule;
use crate::stopping::StoppingRule;
use crate::{augment, averaging, network, objective, optimiser, rule, schedule, stopping};

/// A method as a recipe names it: its id, and its options beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// Id in the registry.
    pub kind: String,
    /// What else stands in its table.
    #[serde(flatten)]
    pub options: toml::Table,
}

impl Method {
    /// A method with its default options.
    pub fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), options: toml::Table::new() }
    }

    /// The method with an option set.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<toml::Value>) -> Self {
        self.options.insert(name.to_owned(), value.into());
        self
    }

    /// As it stands in a recipe.
    pub fn into_value(self) -> toml::Value {
        let mut table = self.options;
        table.insert("kind".to_owned(), self.kind.into());
        table.into()
    }
}

/// Options of a method, not yet read.
pub struct Options<'a>(Source<'a>);

enum Source<'a> {
    Table(toml::Table),
    Text(ValueDeserializer<'a>),
}

impl<'a> Options<'a> {
    /// Reads the options.
    /// # Errors
    /// An option is unknown or of another type.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, TrainError> {
        let read = match self.0 {
            Source::Table(table) => table.try_into(),
            Source::Text(text) => T::deserialize(text),
        };
        // The place in the text is kept as an offset until the recipe, which has the text, makes a line of it.
        read.map_err(|e| TrainError::Recipe { line: e.span().map(|s| s.start), message: e.message().to_owned() })
    }

    pub(crate) fn in_text(text: ValueDeserializer<'a>) -> Self {
        Self(Source::Text(text))
    }
}

impl From<&toml::Table> for Options<'_> {
    fn from(table: &toml::Table) -> Self {
        Self(Source::Table(table.clone()))
    }
}

/// One method of a family.
pub struct Entry<T: ?Sized + 'static> {
    /// What recipes call it.
    pub id: &'static str,
    /// What it is, in one line, with its source.
    pub summary: &'static str,
    /// Makes it from its options; the registry is there for methods that hold others.
    pub build: fn(Options<'_>, &Registry) -> Result<Box<T>, TrainError>,
}

/// The methods of one family, from any number of lists.
pub struct Family<T: ?Sized + 'static> {
    name: &'static str,
    lists: Vec<&'static [Entry<T>]>,
}

impl<T: ?Sized + 'static> Family<T> {
    fn new(name: &'static str, list: &'static [Entry<T>]) -> Self {
        Self { name, lists: vec![list] }
    }

    /// Adds methods of another crate.
    pub fn add(&mut self, list: &'static [Entry<T>]) {
        self.lists.push(list);
    }

    /// All methods, in the order in which they were added.
    pub fn entries(&self) -> impl Iterator<Item = &'static Entry<T>> + '_ {
        self.lists.iter().flat_map(|list| list.iter())
    }

    pub(crate) fn find(&self, id: &str) -> Result<&'static Entry<T>, TrainError> {
        self.entries().find(|e| e.id == id).ok_or_else(|| TrainError::UnknownId {
            family: self.name,
            id: id.to_owned(),
            known: self.entries().map(|e| e.id.to_owned()).collect(),
        })
    }

    /// Makes a method.
    /// # Errors
    /// There is no such method, or its options make no sense.
    pub fn build(&self, method: &Method, registry: &Registry) -> Result<Box<T>, TrainError> {
        (self.find(&method.kind)?.build)((&method.options).into(), registry).map_err(|e| match e {
            TrainError::Recipe { message, .. } => TrainError::Recipe {
                line: None,
                message: format!("options of {} `{}`: {message}", self.name, method.kind),
            },
            other => other,
        })
    }
}

/// All methods that a recipe may name. [`Registry::default`] has those of this crate; others add theirs.
pub struct Registry {
    /// What is minimised.
    pub objectives: Family<dyn Objective>,
    /// How weights follow gradients.
    pub optimisers: Family<dyn Optimiser>,
    /// How the learning rate changes.
    pub schedules: Family<dyn Schedule>,
    /// How a batch becomes a gradient.
    pub rules: Family<dyn GradientRule>,
    /// When training ends early.
    pub stopping: Family<dyn StoppingRule>,
    /// Averages of weights.
    pub averaging: Family<dyn Averaging>,
    /// Random changes of batches.
    pub augmentations: Family<dyn Augmentation>,
    /// Networks to start from.
    pub architectures: Family<dyn Architecture>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            objectives: Family::new("objective", objective::OBJECTIVES),
            optimisers: Family::new("optimiser", optimiser::OPTIMISERS),
            schedules: Family::new("schedule", schedule::SCHEDULES),
            rules: Family::new("gradient rule", rule::RULES),
            stopping: Family::new("stopping rule", stopping::STOPPING_RULES),
            averaging: Family::new("averaging", averaging::AVERAGING),
            augmentations: Family::new("augmentation", augment::AUGMENTATIONS),
            architectures: Family::new("network", network::ARCHITECTURES),
        }
    }
}
