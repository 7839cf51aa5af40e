//! The recipe: everything that decides what a training gives, in one TOML file.

use std::path::Path;

use netproof_data::{Dataset, OnBadRow, OpenOptions, Scale, Task};
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::dropout::Dropout;
use crate::error::{TrainError, refuse, within};
use crate::layers::Layer;
use crate::method::{Family, Method, Options, Registry};
use crate::penalty::Regularisation;
use crate::stochastic_depth::StochasticDepth;

/// An annotated recipe with every field.
pub const EXAMPLE: &str = include_str!("example.toml");

/// What to train, on what, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Of everything that is drawn at random.
    #[serde(default)]
    pub seed: u64,
    /// Networks that are trained, each from a seed of its own, and averaged into one; see [`crate::average`].
    #[serde(default = "one")]
    pub members: u64,
    /// Passes over the training rows.
    #[serde(default = "epochs")]
    pub epochs: u64,
    /// Rows per batch.
    #[serde(default = "batch_size")]
    pub batch_size: usize,
    /// Batches per step of the optimiser.
    #[serde(default = "one")]
    pub accumulate: u64,
    /// A new order of the rows in every epoch.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// Type of the numbers that are computed with.
    #[serde(default)]
    pub precision: Precision,
    /// Gradient checkpointing: of n steps of the network only about √n keep what the way back needs, the others run again;
    /// a third more time for a fraction of the memory, with the same bits (Chen et al. 2016, arXiv 1604.06174).
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// Part of the training rows that is set aside for validation, by class, where the data names no validation rows.
    #[serde(default = "validation_fraction")]
    pub validation_fraction: f64,
    /// What decides which weights are the best, and what stopping rule and plateau schedule watch.
    #[serde(default)]
    pub monitor: Monitor,
    /// The rows.
    pub data: DataSection,
    /// The network: `kind` and options of an architecture.
    pub network: Method,
    /// What is minimised.
    #[serde(default = "objective")]
    pub objective: Method,
    /// How weights follow gradients.
    #[serde(default = "optimiser")]
    pub optimiser: Method,
    /// How the learning rate changes.
    #[serde(default = "schedule")]
    pub schedule: Method,
    /// How a batch becomes a gradient.
    #[serde(default = "gradient")]
    pub gradient: Method,
    /// Average of weights.
    #[serde(default = "averaging")]
    pub averaging: Method,
    /// When training ends early.
    #[serde(default = "stopping")]
    pub stopping: Method,
    /// Penalties and limits.
    #[serde(default)]
    pub regularisation: Regularisation,
    /// Dropout put into the network.
    #[serde(default)]
    pub dropout: Dropout,
    /// Residual branches that are left out at random.
    #[serde(default)]
    pub stochastic_depth: StochasticDepth,
    /// What holds for some layers only.
    #[serde(default)]
    pub layers: Vec<Layer>,
    /// Random changes of the training batches, in this order.
    #[serde(default)]
    pub augmentation: Vec<Method>,
}

fn epochs() -> u64 {
    10
}
fn batch_size() -> usize {
    64
}
fn one() -> u64 {
    1
}
fn yes() -> bool {
    true
}
fn validation_fraction() -> f64 {
    0.1
}
fn objective() -> Method {
    Method::new("cross-entropy")
}
fn optimiser() -> Method {
    Method::new("adamw")
}
fn schedule() -> Method {
    Method::new("cosine")
}
fn gradient() -> Method {
    Method::new("mean")
}
fn averaging() -> Method {
    Method::new("off")
}
fn stopping() -> Method {
    Method::new("never")
}
fn memory_mib() -> u64 {
    2048
}

/// Type of the numbers that are computed with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// IEEE single precision.
    #[default]
    F32,
    /// Brain floating point, where the device computes in it; the processor does not.
    Bf16,
}

/// A metric of the validation rows, or of the training rows where there are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Monitor {
    /// Mean of the objective; less is better.
    #[default]
    Loss,
    /// Fraction of right answers; more is better.
    Accuracy,
    /// Fraction of right answers where the gradient rule finds the validation rows hardest; more is better.
    RobustAccuracy,
}

/// Where the rows come from and how they are read; see [`OpenOptions`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of OpenOptions")]
pub struct DataSection {
    /// A file, a pair `images:labels` or a folder.
    pub train: String,
    /// Rows for validation, of the same kind.
    #[serde(default)]
    pub validation: Option<String>,
    /// Only the first rows.
    #[serde(default)]
    pub limit: Option<usize>,
    /// Features are held in memory up to this size, and read in every epoch beyond it.
    #[serde(default = "memory_mib")]
    pub memory_mib: u64,
    #[serde(default)]
    pub features: Option<Vec<String>>,
    #[serde(default)]
    pub label: Option<String>,
    #[serde(default)]
    pub groups: Vec<String>,
    #[serde(default)]
    pub groups_are_features: bool,
    #[serde(default)]
    pub image_size: Option<[usize; 3]>,
    #[serde(default)]
    pub class_names: Option<Vec<String>>,
    #[serde(default)]
    pub categorical: Vec<String>,
    #[serde(default)]
    pub one_hot: bool,
    #[serde(default)]
    pub header: Option<bool>,
    #[serde(default)]
    pub delimiter: Option<char>,
    #[serde(default)]
    pub task: TaskName,
    #[serde(default)]
    pub skip_bad_rows: bool,
    #[serde(default)]
    pub scale: ScaleName,
}

/// What the labels are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskName {
    /// Integers, truth values and text are classes; floats are numbers.
    #[default]
    Auto,
    /// Classes.
    Classification,
    /// Numbers.
    Regression,
}

/// How pixels become numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleName {
    /// 8-bit images are divided by 255.
    #[default]
    Auto,
    /// Numbers as they are.
    None,
    /// All 8-bit features are divided by 255.
    Unit,
}

impl DataSection {
    /// Rows of a file with the usual options.
    pub fn new(train: impl Into<String>) -> Self {
        Self {
            train: train.into(),
            validation: None,
            limit: None,
            memory_mib: memory_mib(),
            features: None,
            label: None,
            groups: Vec::new(),
            groups_are_features: false,
            image_size: None,
            class_names: None,
            categorical: Vec::new(),
            one_hot: false,
            header: None,
            delimiter: None,
            task: TaskName::Auto,
            skip_bad_rows: false,
            scale: ScaleName::Auto,
        }
    }

    fn options(&self) -> OpenOptions {
        OpenOptions {
            features: self.features.clone(),
            label: self.label.clone(),
            groups: self.groups.clone(),
            groups_are_features: self.groups_are_features,
            image_size: self.image_size,
            class_names: self.class_names.clone(),
            categorical: self.categorical.clone(),
            one_hot: self.one_hot,
            header: self.header,
            delimiter: self.delimiter,
            task: match self.task {
                TaskName::Auto => Task::Auto,
                TaskName::Classification => Task::Classification,
                TaskName::Regression => Task::Regression,
            },
            on_bad_row: if self.skip_bad_rows { OnBadRow::Skip } else { OnBadRow::Fail },
            scale: match self.scale {
                ScaleName::Auto => Scale::Auto,
                ScaleName::None => Scale::None,
                ScaleName::Unit => Scale::Unit,
            },
            ..OpenOptions::default()
        }
    }

    /// Opens the training rows and, where they are named, those for validation.
    /// # Errors
    /// A file cannot be read.
    pub fn open(&self) -> Result<(Dataset, Option<Dataset>), TrainError> {
        let options = self.options();
        let mut train = Dataset::open(&self.train, &options)?;
        if let Some(limit) = self.limit {
            train = train.take(limit);
        }
        let validation = self.validation.as_ref().map(|spec| Dataset::open(spec, &options)).transpose()?;
        Ok((train, validation))
    }
}

impl Recipe {
    /// A recipe with the defaults.
    pub fn new(data: DataSection, network: Method) -> Self {
        Self {
            seed: 0,
            members: 1,
            epochs: epochs(),
            batch_size: batch_size(),
            accumulate: 1,
            shuffle: true,
            precision: Precision::F32,
            gradient_checkpointing: false,
            validation_fraction: validation_fraction(),
            monitor: Monitor::Loss,
            data,
            network,
            objective: objective(),
            optimiser: optimiser(),
            schedule: schedule(),
            gradient: gradient(),
            averaging: averaging(),
            stopping: stopping(),
            regularisation: Regularisation::default(),
            dropout: Dropout::default(),
            stochastic_depth: StochasticDepth::default(),
            layers: Vec::new(),
            augmentation: Vec::new(),
        }
    }

    /// Makes paths of data and network, which are relative to `folder`, relative to where we are.
    pub fn relative_to(&mut self, folder: &Path) {
        let join = |part: &str| folder.join(part).display().to_string();
        for spec in std::iter::once(&mut self.data.train).chain(&mut self.data.validation) {
            let whole = folder.join(&*spec).exists();
            *spec = if whole { join(spec) } else { spec.split(':').map(join).collect::<Vec<_>>().join(":") };
        }
        if let Some(toml::Value::String(path)) = self.network.options.get_mut("path") {
            *path = join(path);
        }
    }

    /// Reads a recipe, down to the options of every method that it names.
    /// # Errors
    /// A field or option is unknown, missing, of another type or makes no sense; the message gives the line.
    pub fn parse(text: &str, registry: &Registry) -> Result<Self, TrainError> {
        let at = |e: toml::de::Error| TrainError::Recipe {
            line: e.span().map(|s| line(text, s.start)),
            message: e.message().to_owned(),
        };
        let recipe: Self = toml::from_str(text).map_err(at)?;
        let tree = DeTable::parse(text).map_err(at)?;
        let table = tree.get_ref();
        check_method(text, table.get("network"), &registry.architectures, registry)?;
        check_method(text, table.get("objective"), &registry.objectives, registry)?;
        check_method(text, table.get("optimiser"), &registry.optimisers, registry)?;
        check_method(text, table.get("schedule"), &registry.schedules, registry)?;
        check_method(text, table.get("gradient"), &registry.rules, registry)?;
        check_method(text, table.get("averaging"), &registry.averaging, registry)?;
        check_method(text, table.get("stopping"), &registry.stopping, registry)?;
        if let Some(DeValue::Array(list)) = table.get("augmentation").map(Spanned::get_ref) {
            for one in list.iter() {
                check_method(text, Some(one), &registry.augmentations, registry)?;
            }
        }
        let inner =
            ["regularisation", "dropout", "stochastic_depth"].into_iter().filter_map(|name| nested(table, name));
        let tables: Vec<&DeTable<'_>> = std::iter::once(table).chain(inner).collect();
        recipe.check().map_err(|e| placed(text, e, &tables))?;
        Ok(recipe)
    }

    /// Refuses numbers that make no sense.
    /// # Errors
    /// The message names the field.
    pub fn check(&self) -> Result<(), TrainError> {
        for (name, value) in [
            ("epochs", self.epochs),
            ("batch_size", self.batch_size as u64),
            ("accumulate", self.accumulate),
            ("members", self.members),
        ] {
            if value == 0 {
                return Err(refuse(name, 0, "1 or more"));
            }
        }
        if self.precision == Precision::Bf16 {
            return Err(refuse("precision", "bf16", "\"f32\": the processor does not compute in bf16"));
        }
        within("validation_fraction", self.validation_fraction, [0.0, 0.9], "0 to 0.9")?;
        self.regularisation.check()?;
        self.dropout.check()?;
        self.stochastic_depth.check()?;
        self.layers.iter().try_for_each(Layer::check)
    }

    /// The recipe as TOML, every field written out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }
}

/// Line of a place in a text, from 1.
fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&b| b == b'\n').count() + 1
}

fn nested<'t, 'i>(table: &'t DeTable<'i>, name: &str) -> Option<&'t DeTable<'i>> {
    match table.get(name).map(Spanned::get_ref) {
        Some(DeValue::Table(inner)) => Some(inner),
        _ => None,
    }
}

/// Gives the error of an option the line of that option, where it stands in one of the tables.
fn placed(text: &str, error: TrainError, tables: &[&DeTable<'_>]) -> TrainError {
    let TrainError::Option { name, .. } = &error else { return error };
    let found = tables.iter().find_map(|t| t.get(*name)).map(|v| line(text, v.span().start));
    TrainError::Recipe { line: found, message: error.to_string() }
}

/// Builds a method from its place in the text, so that errors know their line.
fn check_method<T: ?Sized>(
    text: &str,
    place: Option<&Spanned<DeValue<'_>>>,
    family: &Family<T>,
    registry: &Registry,
) -> Result<(), TrainError> {
    let Some(place) = place else { return Ok(()) };
    let (mut own, start) = (place.clone(), place.span().start);
    let DeValue::Table(table) = own.get_mut() else { return Ok(()) };
    let options = table.clone();
    let Some(kind) = table.remove("kind") else { return Ok(()) };
    let DeValue::String(id) = kind.get_ref() else { return Ok(()) };
    let entry = family
        .find(id)
        .map_err(|e| TrainError::Recipe { line: Some(line(text, kind.span().start)), message: e.to_string() })?;
    match (entry.build)(Options::in_text(ValueDeserializer::from(own)), registry) {
        Ok(_) => Ok(()),
        Err(TrainError::Recipe { line: offset, message }) => {
            Err(TrainError::Recipe { line: Some(line(text, offset.unwrap_or(start))), message })
        }
        Err(e) => Err(placed(text, e, &[&options])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Recipe, TrainError> {
        Recipe::parse(text, &Registry::default())
    }

    fn refused(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    const SHORT: &str = "[data]\ntrain = \"a.npz\"\n[network]\nkind = \"mlp\"\n";

    #[test]
    fn the_example_can_be_read_and_has_every_field() {
        let recipe = parse(EXAMPLE).unwrap();
        let written: toml::Table = recipe.to_toml().parse().unwrap();
        for name in written.keys() {
            assert!(EXAMPLE.contains(name.as_str()), "the example says nothing of `{name}`");
        }
        assert_eq!(parse(&recipe.to_toml()).unwrap(), recipe);
    }

    #[test]
    fn the_shortest_recipe_has_the_defaults() {
        let recipe = parse(SHORT).unwrap();
        assert_eq!(recipe, Recipe::new(DataSection::new("a.npz"), Method::new("mlp")));
    }

    #[test]
    fn errors_have_their_line() {
        assert_eq!(refused("epoch = 3\n").split('`').nth(1), Some("epoch"), "{}", refused("epoch = 3\n"));
        assert!(refused("epoch = 3\n").starts_with("recipe, line 1: unknown field `epoch`"));
        assert!(refused("epochs = \"x\"\n").starts_with("recipe, line 1: invalid type"));
        assert!(refused(&format!("{SHORT}[data2]\n")).starts_with("recipe, line 5: unknown field"));
        assert_eq!(refused(&format!("epochs = 0\n{SHORT}")), "recipe, line 1: `epochs` is 0; allowed: 1 or more");
        let e = refused(&format!("seed = 1\nprecision = \"bf16\"\n{SHORT}"));
        assert!(e.starts_with("recipe, line 2: `precision` is bf16; allowed: \"f32\""), "{e}");
        let e = refused(&format!("{SHORT}[optimiser]\nkind = \"adamw\"\n\nlearning_rat = 0.1\n"));
        assert!(e.starts_with("recipe, line 8: unknown field `learning_rat`"), "{e}");
        let e = refused(&format!("{SHORT}[optimiser]\nkind = \"adamw\"\nlearning_rate = \"x\"\n"));
        assert!(e.starts_with("recipe, line 7: invalid type"), "{e}");
        let e = refused(&format!("{SHORT}[optimiser]\nkind = \"adamw\"\nlearning_rate = -1\n"));
        assert_eq!(e, "recipe, line 7: `learning_rate` is -1; allowed: a number over 0");
        let e = refused(&format!("{SHORT}[optimiser]\nkind = \"adamx\"\n"));
        assert!(e.starts_with("recipe, line 6: there is no optimiser `adamx`; there are sgd"), "{e}");
        let e = refused(&format!("{SHORT}[regularisation]\nl2 = -1.0\n"));
        assert!(e.starts_with("recipe, line 6: `l2` is -1"), "{e}");
        let e = refused(&format!("{SHORT}[[augmentation]]\nkind = \"crop\"\n[[augmentation]]\nkind = \"crap\"\n"));
        assert!(e.starts_with("recipe, line 8: there is no augmentation `crap`"), "{e}");
        let e = refused(&format!("{SHORT}[schedule]\nkind = \"warm-up\"\nthen = {{ kind = \"cosine\", ends = 1 }}\n"));
        assert!(e.contains("ends"), "{e}");
        assert!(refused("[data\n").starts_with("recipe, line 1:"));
    }

    #[test]
    fn nothing_that_a_person_can_write_panics() {
        for text in ["", "data = 1", "[network]\nkind = 3\n[data]\ntrain=\"\"", "augmentation = [1]", "layers = 5"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&format!("augmentation = [1]\n{SHORT}")).is_err());
        assert!(parse(&format!("objective = \"focal\"\n{SHORT}")).is_err());
    }
}
