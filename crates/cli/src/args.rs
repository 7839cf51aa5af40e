//! Arguments that several commands share, and what they become.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use netproof_audit::{Subject, Training};
use netproof_challenges::training_registry;
use netproof_core::Constraints;
use netproof_data::{Dataset, OnBadRow, OpenOptions, Scale, Task};
use netproof_graph::{Dim, Model};
use netproof_train::{DataSection, Recipe, Record, ScaleName, TaskName};
use serde::{Deserialize, Serialize};

use crate::project::{DataSection as ProjectData, Project, absolute_spec};

/// How data are read. In a project file the same names stand under `[data]` and `[train_data]`.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DataArgs {
    /// Columns or arrays that form the features [default: `x`; all other columns of a table].
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub(crate) features: Option<Vec<String>>,
    /// Column or array with the label [default: `y`; the last column of a table].
    #[arg(long, value_name = "NAME")]
    pub(crate) label: Option<String>,
    /// Columns by which results are compared.
    #[arg(long = "group", value_delimiter = ',', value_name = "NAME,…")]
    pub(crate) groups: Vec<String>,
    /// How pixels become numbers.
    #[arg(long, value_enum)]
    pub(crate) scale: Option<ScaleArg>,
    /// What the labels are.
    #[arg(long, value_enum)]
    pub(crate) task: Option<TaskArg>,
    /// Names of the classes in the order of their numbers.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub(crate) class_names: Option<Vec<String>>,
    /// What to do with rows that cannot be read [default: fail].
    #[arg(long, value_enum)]
    pub(crate) on_bad_row: Option<BadRowArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ScaleArg {
    /// 8-bit images are divided by 255, all else is taken as it is.
    Auto,
    /// Numbers as they are.
    None,
    /// All 8-bit features are divided by 255.
    Unit,
}

#[derive(Clone, Copy, Debug, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TaskArg {
    /// Whole numbers and text are classes, floats are targets.
    Auto,
    /// Labels are classes.
    Classification,
    /// Labels are numbers to be predicted.
    Regression,
}

#[derive(Clone, Copy, Debug, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BadRowArg {
    /// Stop at the first one.
    Fail,
    /// Leave it out, count it and list it in the report.
    Skip,
}

impl DataArgs {
    /// What is said on the command line goes before what the project file says.
    pub(crate) fn over(self, file: Self) -> Self {
        Self {
            features: self.features.or(file.features),
            label: self.label.or(file.label),
            groups: if self.groups.is_empty() { file.groups } else { self.groups },
            scale: self.scale.or(file.scale),
            task: self.task.or(file.task),
            class_names: self.class_names.or(file.class_names),
            on_bad_row: self.on_bad_row.or(file.on_bad_row),
        }
    }

    pub(crate) fn open(&self, spec: &str, model: &Model) -> anyhow::Result<Dataset> {
        let options = OpenOptions {
            features: self.features.clone(),
            label: self.label.clone(),
            groups: self.groups.clone(),
            class_names: self.class_names.clone(),
            image_size: image_size(model),
            scale: match self.scale {
                None | Some(ScaleArg::Auto) => Scale::Auto,
                Some(ScaleArg::None) => Scale::None,
                Some(ScaleArg::Unit) => Scale::Unit,
            },
            task: match self.task {
                None | Some(TaskArg::Auto) => Task::Auto,
                Some(TaskArg::Classification) => Task::Classification,
                Some(TaskArg::Regression) => Task::Regression,
            },
            on_bad_row: match self.on_bad_row {
                None | Some(BadRowArg::Fail) => OnBadRow::Fail,
                Some(BadRowArg::Skip) => OnBadRow::Skip,
            },
            ..OpenOptions::default()
        };
        Dataset::open(spec, &options).with_context(|| format!("opening the data `{spec}`"))
    }

    /// The same as the data section of a recipe.
    fn section(&self, spec: &str, model: &Model) -> DataSection {
        DataSection {
            features: self.features.clone(),
            label: self.label.clone(),
            groups: self.groups.clone(),
            class_names: self.class_names.clone(),
            image_size: image_size(model),
            scale: match self.scale {
                None | Some(ScaleArg::Auto) => ScaleName::Auto,
                Some(ScaleArg::None) => ScaleName::None,
                Some(ScaleArg::Unit) => ScaleName::Unit,
            },
            task: match self.task {
                None | Some(TaskArg::Auto) => TaskName::Auto,
                Some(TaskArg::Classification) => TaskName::Classification,
                Some(TaskArg::Regression) => TaskName::Regression,
            },
            skip_bad_rows: matches!(self.on_bad_row, Some(BadRowArg::Skip)),
            ..DataSection::new(spec)
        }
    }
}

/// `[channels, height, width]`, where the network takes pictures of a fixed size.
fn image_size(model: &Model) -> Option<[usize; 3]> {
    match model.inputs().first()?.shape.as_deref()? {
        [_, Dim::Fixed(c), Dim::Fixed(h), Dim::Fixed(w)] => Some([*c, *h, *w]),
        _ => None,
    }
}

/// A network and data, from flags or from a project file.
#[derive(Args, Clone, Debug)]
pub(crate) struct SubjectArgs {
    /// The network (ONNX), a project file (TOML) that names everything, or the run folder of an audit.
    #[arg(value_name = "MODEL|PROJECT.toml|DIR")]
    pub(crate) model: PathBuf,
    /// Labelled data: .parquet, .csv[.gz], .npz, an IDX pair `images.gz:labels.gz`, or a folder of images.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: Option<String>,
    /// The data that the network was trained on.
    #[arg(long, value_name = "DATA")]
    pub(crate) train_data: Option<String>,
    #[command(flatten)]
    pub(crate) reading: DataArgs,
    /// Mean per channel that is subtracted before the network, so that it takes raw pixels or columns.
    #[arg(long, value_delimiter = ',', value_name = "X,…", requires = "std", allow_hyphen_values = true)]
    pub(crate) mean: Option<Vec<f32>>,
    /// Standard deviation per channel that is divided by before the network.
    #[arg(long, value_delimiter = ',', value_name = "X,…", requires = "mean")]
    pub(crate) std: Option<Vec<f32>>,
    /// How the network is trained (TOML, as for `netproof train`) [default: its graph from fresh weights].
    #[arg(long, value_name = "RECIPE.toml")]
    pub(crate) recipe: Option<PathBuf>,
    /// Another network for the same task that an attacker may hold (ONNX); may be given more than once.
    #[arg(long, value_name = "FILE")]
    pub(crate) surrogate: Vec<PathBuf>,
    /// What a changed row of a table must keep (TOML): immutable, increase, decrease, integer, steps, budgets, bounds, one_hot.
    #[arg(long, value_name = "FILE")]
    pub(crate) constraints: Option<PathBuf>,
    /// Use only the first N rows.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Seed of every random draw [default: 0].
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Option of a method, as ID.NAME=VALUE; may be given more than once.
    #[arg(long = "set", value_name = "ID.NAME=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) threads: Threads,
}

/// How many threads there are.
#[derive(Args, Clone, Debug)]
pub(crate) struct Threads {
    /// Threads [default: all cores].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl Threads {
    /// Starts them, before any work.
    pub(crate) fn start(&self) -> anyhow::Result<()> {
        ensure!(self.threads != Some(0), "--threads is 0, it must be at least 1");
        netproof_graph::start_threads(self.threads).context("starting threads")
    }
}

/// What the flags and the project file say together.
pub(crate) struct Loaded {
    pub(crate) subject: Subject,
    pub(crate) stem: String,
    pub(crate) project: Project,
    pub(crate) seed: u64,
    pub(crate) options: toml::Table,
    /// All of it as a project file, with whole paths.
    pub(crate) resolved: Project,
}

/// The project file that an audit leaves in its run folder.
pub(crate) const RUN_PROJECT: &str = "netproof.toml";

impl SubjectArgs {
    pub(crate) fn load(self) -> anyhow::Result<Loaded> {
        self.threads.start()?;
        let folder = self.model.is_dir().then(|| self.model.join(RUN_PROJECT));
        if let Some(file) = folder.as_ref().filter(|f| !f.is_file()) {
            bail!("{} is no run folder of an audit: it has no {}", self.model.display(), file.display());
        }
        let is_project = folder.is_some() || self.model.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml"));
        let project_path = folder.as_ref().unwrap_or(&self.model);
        let project = if is_project { Project::read(project_path)? } else { Project::default() };
        let model_path = match (&project.model, is_project) {
            (Some(path), _) => path.clone(),
            (None, true) => bail!("{} names no `model`", self.model.display()),
            (None, false) => self.model.clone(),
        };
        let Some(data) = self.data.or_else(|| project.data.path.clone()) else {
            bail!("no data: give --data, or `path` under [data] in the project file")
        };
        let reading = self.reading.clone().over(project.data.reading.clone());
        let mut model =
            Model::load(&model_path).with_context(|| format!("loading the network {}", model_path.display()))?;
        let record = record_beside(&model_path);
        let (mean, std) = (self.mean.or_else(|| project.mean.clone()), self.std.or_else(|| project.std.clone()));
        match (&mean, &std) {
            (Some(mean), Some(std)) => model = model.prepend_normalization(mean, std)?,
            (None, None) => {}
            _ => bail!("mean and std belong together: give both or neither"),
        }
        let limit = self.limit.or(project.audit.limit);
        let cut = |data: Dataset| limit.map_or_else(|| data.clone(), |n| data.take(n));
        let train_spec = self.train_data.or_else(|| project.train_data.path.clone());
        let train_reading = self.reading.over(project.train_data.reading.clone()).over(project.data.reading.clone());
        let test = cut(reading.open(&data, &model)?);
        let mut train = train_spec.as_ref().map(|spec| train_reading.open(spec, &model)).transpose()?;
        let registry = Arc::new(training_registry());
        let recipe_path = self.recipe.or_else(|| project.audit.recipe.clone());
        let training = match &recipe_path {
            Some(path) => {
                let mut recipe = read_recipe(path, &registry)?;
                match &train_spec {
                    Some(spec) => recipe.data = train_reading.section(&absolute_spec(spec)?, &model),
                    None => train = Some(recipe.data.open()?.0),
                }
                Some(Training::given(recipe, registry))
            }
            None => train
                .as_ref()
                .zip(train_spec.as_ref())
                .map(|(rows, spec)| -> anyhow::Result<_> {
                    let section = train_reading.section(&absolute_spec(spec)?, &model);
                    let path = std::path::absolute(&model_path)?.display().to_string();
                    Ok(Training::derived(&path, section, rows, registry))
                })
                .transpose()?,
        };
        let name = file_name(&model_path);
        let stem = model_path.file_stem().map_or_else(|| "model".to_owned(), |s| s.to_string_lossy().into_owned());
        let mut options = project.checks.clone();
        for setting in &self.set {
            set(&mut options, setting)?;
        }
        let seed = self.seed.or(project.audit.seed).unwrap_or(0);
        let surrogates = if self.surrogate.is_empty() { project.surrogates.clone() } else { self.surrogate };
        let constraints = match &self.constraints {
            Some(path) => read_constraints(path)?,
            None => project.constraints.clone(),
        };
        let mut resolved = Project {
            model: Some(model_path),
            mean,
            std,
            data: ProjectData { path: Some(data), reading },
            train_data: ProjectData { path: train_spec, reading: train_reading },
            checks: options.clone(),
            surrogates,
            constraints,
            ..Project::default()
        };
        resolved.audit.limit = limit;
        resolved.audit.seed = Some(seed);
        resolved.audit.recipe = recipe_path;
        resolved.make_absolute()?;
        let subject = Subject::new(model, name, test, train)?
            .with_training(training)
            .with_record(record)
            .with_others(load_others(&resolved.surrogates, &resolved.mean, &resolved.std)?)
            .with_constraints(Some(resolved.constraints.clone()));
        Ok(Loaded { subject, stem, project, seed, options, resolved })
    }
}

/// The record that `netproof train` leaves beside a network.
fn record_beside(model: &Path) -> Option<Record> {
    serde_json::from_slice(&std::fs::read(model.with_extension("train.json")).ok()?).ok()
}

/// Other networks, by the names of their files, behind the normalisation of the one under audit.
fn load_others(
    paths: &[PathBuf],
    mean: &Option<Vec<f32>>,
    std: &Option<Vec<f32>>,
) -> anyhow::Result<Vec<(String, Arc<Model>)>> {
    let load = |path: &PathBuf| -> anyhow::Result<(String, Arc<Model>)> {
        let mut model = Model::load(path).with_context(|| format!("loading the surrogate {}", path.display()))?;
        if let (Some(mean), Some(std)) = (mean, std) {
            model = model.prepend_normalization(mean, std)?;
        }
        let name = path.file_stem().map_or_else(|| path.display().to_string(), |s| s.to_string_lossy().into_owned());
        Ok((name, Arc::new(model)))
    };
    paths.iter().map(load).collect()
}

fn read_constraints(path: &Path) -> anyhow::Result<Constraints> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading the constraints {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("the constraints {} are not right", path.display()))
}

/// Reads a recipe; paths in it become relative to where we are.
pub(crate) fn read_recipe(path: &Path, registry: &netproof_train::Registry) -> anyhow::Result<Recipe> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading the recipe {}", path.display()))?;
    if text.trim().is_empty() {
        bail!("the recipe {} is empty; `netproof train --example` prints one", path.display());
    }
    let mut recipe = Recipe::parse(&text, registry).with_context(|| format!("{}", path.display()))?;
    recipe.relative_to(path.parent().unwrap_or(Path::new("")));
    Ok(recipe)
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}

/// Puts `ID.NAME=VALUE` into a table of tables. A value that is not TOML is text.
pub(crate) fn set(options: &mut toml::Table, setting: &str) -> anyhow::Result<()> {
    let parts = setting.split_once('=').and_then(|(key, value)| Some((key.split_once('.')?, value)));
    let Some(((id, name), value)) = parts else { bail!("--set {setting}: must be ID.NAME=VALUE") };
    let parsed = toml::from_str::<toml::Table>(&format!("v = {value}")).ok().and_then(|mut t| t.remove("v"));
    let value = parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let table = options.entry(id).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    let Some(table) = table.as_table_mut() else { bail!("options of `{id}` must be a table") };
    table.insert(name.to_owned(), value);
    Ok(())
}

/// `90s`, `10m`, `2h`, or a number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| c.is_ascii_alphabetic()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{text}` is no duration; use 90s, 10m or 2h")),
    };
    let seconds = number.trim().parse::<f64>().ok().map(|n| n * factor);
    match seconds.filter(|s| (0.0..=1e9).contains(s)) {
        Some(s) => Ok(Duration::from_secs_f64(s)),
        None => Err(format!("`{text}` is no duration; use 90s, 10m or 2h")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "m", "10 minutes", "-1s", "nan", "1e99s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_become_tables() {
        let mut options = toml::Table::new();
        for s in ["a.n=3", "a.list=[1, 2]", "b.word=hello"] {
            set(&mut options, s).unwrap();
        }
        assert_eq!(options["a"]["n"].as_integer(), Some(3));
        assert_eq!(options["a"]["list"].as_array().unwrap().len(), 2);
        assert_eq!(options["b"]["word"].as_str(), Some("hello"));
        assert!(set(&mut options, "a=3").is_err() && set(&mut options, "a.b").is_err());
    }
}
