use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use netproof_audit::{AuditError, Configured, Entry, Head, Progress as _, Subject};
use netproof_challenges::interpretability::insights::{Examiner, INSIGHTS, Inquiry, Insight};
use netproof_challenges::interpretability::{
    Choice, EXPLANATIONS, Explained, Explainer, Explanation, Question, Target, badge_of, explain, one_hot, targets,
};
use netproof_data::{Dataset, Labels, Limits, read_npz, write_npz};
use netproof_graph::Model;
use netproof_tensor::{DType, Tensor};
use serde_json::json;

use super::explain_pictures::Pictures;
use crate::args::{DataArgs, Threads, set};
use crate::output::write_json;
use crate::progress::Terminal;

/// Rows that are explained together, so that an interrupted run has bounded memory.
const GROUP: usize = 256;

/// Explain a network's answers, row by row: arrays and pictures.
#[derive(Args)]
#[command(after_help = "Examples:
  netproof explain model.onnx --data test.npz --method integrated-gradients --rows 0..8 --out attributions.npz
  netproof explain model.onnx --data test.npz --method grad-cam --target predicted --pictures pictures
  netproof explain model.onnx --data table.csv --method kernel-shap --background 50 --pictures pictures
  netproof explain model.onnx --data test.npz --method deep-lift --set rule=reveal-cancel --evidence

The archive holds `attributions`, `target`, `row` and `score`, and where the method defines them `delta` (the error of
completeness), `difference` (what attributions should sum to), `standard_error`, and arrays of the method's own.
`netproof methods` lists all methods, `netproof methods ID` the options of one.")]
pub(crate) struct Explain {
    /// The network (ONNX).
    model: PathBuf,
    /// Data, as for an audit; labels are needed for the target `label` only.
    #[arg(long, required_unless_present = "inputs")]
    data: Option<String>,
    /// NPZ with one array per input of the network, named like it: for networks with several inputs.
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    inputs: Option<PathBuf>,
    /// Id of the method.
    #[arg(long, value_name = "ID")]
    method: String,
    /// Rows of the data, from 0: `0..8`, `3`, `0..4,10`.
    #[arg(long, default_value = "0..8")]
    rows: Rows,
    /// Which answer is explained: `label`, `predicted`, or the number of a class.
    #[arg(long, default_value = "label", value_name = "label|predicted|K")]
    target: Target,
    /// The input whose elements get attributions, or any value on the way [default: the only input].
    #[arg(long, value_name = "NAME")]
    input: Option<String>,
    /// The output that is explained, or any value on the way [default: the first output, before its softmax].
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
    /// What stands for nothing: `zero`, `mean` (of the data's first 1,000 rows), a number, or an NPZ file with `baseline`.
    #[arg(long, default_value = "zero", allow_hyphen_values = true)]
    baseline: String,
    /// Typical rows that methods draw from: how many rows of the data, or an NPZ file with `background` [default: none].
    #[arg(long, value_name = "N|FILE")]
    background: Option<String>,
    /// Most rows of the data, evenly spaced, that methods know which look at the data as a whole.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    known: usize,
    /// NPZ with rows that show a concept, as `concept`.
    #[arg(long, value_name = "FILE")]
    concept: Option<PathBuf>,
    /// Measure whether these maps can be relied on, with every metric that applies: deletion and insertion beside random orders,
    /// sensitivity, randomised weights, and so on. Takes some seconds to minutes.
    #[arg(long)]
    evidence: bool,
    /// NPZ with the object in each explained row as `masks`: evidence then says whether maps find it.
    #[arg(long, value_name = "FILE")]
    masks: Option<PathBuf>,
    /// Treat every column alone, also those that are one-hot parts of one category.
    #[arg(long)]
    no_grouping: bool,
    /// Where the arrays go (NPZ).
    #[arg(long, value_name = "FILE", default_value = "attributions.npz")]
    out: PathBuf,
    /// Draw pictures into this folder.
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
    /// Rows per pass through the network [default: as many as 128 MiB of activations hold].
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Option of the method, as NAME=VALUE or ID.NAME=VALUE; may be given more than once.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Seed of every random draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    threads: Threads,
    /// Mean per channel that is subtracted before the network, so that it takes raw pixels or columns.
    #[arg(long, value_delimiter = ',', value_name = "X,…", requires = "std", allow_hyphen_values = true)]
    mean: Option<Vec<f32>>,
    /// Standard deviation per channel that is divided by before the network.
    #[arg(long, value_delimiter = ',', value_name = "X,…", requires = "mean")]
    std: Option<Vec<f32>>,
    #[command(flatten)]
    reading: DataArgs,
    /// Write a summary here; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Positions of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rows(Vec<std::ops::Range<usize>>);

impl std::str::FromStr for Rows {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("`{text}` is no list of rows; use 0..8, 3, or 0..4,10");
        let number = |t: &str| t.trim().parse::<usize>().map_err(|_| refuse());
        let part = |part: &str| match part.split_once("..") {
            Some((from, to)) => Ok(number(from)?..number(to)?),
            None => number(part).and_then(|n| Ok(n..n.checked_add(1).ok_or_else(refuse)?)),
        };
        text.split(',').map(part).collect::<Result<_, _>>().map(Self)
    }
}

impl Rows {
    /// The positions, where there are that many rows.
    fn within(&self, count: usize) -> anyhow::Result<Vec<usize>> {
        let mut all = Vec::new();
        for range in &self.0 {
            // The default goes as far as there are rows; what is named must be there.
            let end = if *range == (0..8) { range.end.min(count) } else { range.end };
            ensure!(
                end <= count,
                "--rows: row {} is asked for, the data have {count} rows, 0 to {}",
                end.max(1) - 1,
                count.max(1) - 1
            );
            all.extend(range.start..end);
        }
        Ok(all)
    }
}

/// What is explained, read into memory.
struct Material {
    inputs: Vec<(String, Tensor)>,
    labels: Option<Vec<usize>>,
    row_ids: Vec<u64>,
    names: Option<Vec<String>>,
    class_names: Vec<String>,
    binary: bool,
    /// The data that the rows come from.
    source: Option<Subject>,
}

impl Explain {
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        ensure!(self.batch != Some(0), "--batch is 0, it must be at least 1");
        ensure!(self.known > 0, "--known is 0, it must be at least 1");
        self.threads.start()?;
        let method = Method::find(&self.method, self.options()?)?;
        let load = || -> anyhow::Result<Model> {
            let model =
                Model::load(&self.model).with_context(|| format!("loading the network {}", self.model.display()))?;
            Ok(match (&self.mean, &self.std) {
                (Some(mean), Some(std)) => model.prepend_normalization(mean, std)?,
                _ => model,
            })
        };
        let model = load()?;
        let material = match (&self.inputs, &self.data) {
            (Some(file), _) => self.material_from_inputs(&model, file)?,
            (None, Some(data)) => self.material_from_data(&model, load()?, data)?,
            (None, None) => bail!("no data: give --data or --inputs"),
        };
        let choice = Choice {
            input: self.input.clone(),
            output: self.output.clone(),
            binary: material.binary,
            batch: self.batch,
        };
        let net = Explained::new(&model, &choice, &material.inputs)?;
        let q = self.question(&net, &material)?;
        let begun = Instant::now();
        let method = match method {
            Method::Attributes(method) => method,
            Method::Examines(method) => {
                let asked = self.inquiry(&net, &material, q)?;
                let found = method.method.examine(&net, &asked)?;
                return self.tell(&method, &found, begun.elapsed().as_secs_f64());
            }
        };
        // Before any work: a wrong file is said at once.
        let masks = self.masks.as_ref().map(|file| super::explain_evidence::masks(file, &net, q.len())).transpose()?;
        let e = in_groups(&*method.method, &net, &q)?;
        let seconds = begun.elapsed().as_secs_f64();
        let scores = scores(&net, &q)?;
        self.write(&e, &q, &scores)?;
        eprintln!(
            "{} rows explained by {} in {seconds:.1} s, written to {}",
            q.len(),
            method.card.title,
            self.out.display()
        );
        e.notes.iter().for_each(|n| eprintln!("note: {n}"));
        if let Some(folder) = &self.pictures {
            let badge = badge_of(&net, method.card.id, &q)?;
            if let Some(badge) = &badge {
                eprintln!("note: {badge}; see the check `sanity`");
            }
            let pictures = Pictures {
                method: method.card.title,
                net: &net,
                q: &q,
                e: &e,
                scores: &scores,
                names: material.names.as_deref(),
                class_names: &material.class_names,
                badge: badge.as_deref(),
            };
            let count = pictures.write(folder)?;
            eprintln!("{count} pictures drawn in {}", folder.display());
        }
        let mut summary = self.summary(&method, &net, &e, &q, seconds);
        if self.evidence || masks.is_some() {
            let found = super::explain_evidence::measure(&net, &*method.method, &q, masks.as_deref())?;
            if let Some(summary) = summary.as_object_mut() {
                summary.insert("evidence".to_owned(), found);
            }
        }
        if let Some(path) = &self.json {
            write_json(path, &summary)?;
        }
        Ok(true)
    }

    /// What a method that looks at the data as a whole is asked.
    fn inquiry(&self, net: &Explained<'_>, material: &Material, q: Question) -> anyhow::Result<Inquiry> {
        let Some(subject) = &material.source else { bail!("this method looks at rows of the data: give --data") };
        let data = subject.data();
        let rows: Vec<usize> = (0..data.len()).step_by(data.len().div_ceil(self.known).max(1)).collect();
        let batch = data.select(&rows)?.load()?;
        let x = subject.in_shape(&batch.features)?;
        let (name, _) = &material.inputs[0];
        let (x, _) = net.rows_of(&[(name.clone(), x)])?;
        let width = x.row_len();
        let whole = |i: usize| x.as_f32().is_some_and(|v| v[i * width..(i + 1) * width].iter().all(|v| v.is_finite()));
        let kept: Vec<usize> = (0..x.rows()).filter(|&i| whole(i)).collect();
        ensure!(!kept.is_empty(), "no row of the data is without missing values");
        let labels = match batch.labels {
            Labels::Classes(v) => Some(kept.iter().map(|&i| v[i]).collect()),
            _ => None,
        };
        let concept = match &self.concept {
            Some(file) => {
                let mut arrays = read_npz(file, &["concept"], Limits::default()).context("reading the concept")?;
                Some(as_float(arrays.remove(0))?)
            }
            None => None,
        };
        Ok(Inquiry {
            q,
            data: x.select_rows(&kept)?,
            labels,
            rows: kept.iter().map(|&i| batch.row_ids[i]).collect(),
            columns: material.names.clone().unwrap_or_default(),
            concept,
        })
    }

    fn tell(&self, method: &Configured<dyn Examiner>, found: &Insight, seconds: f64) -> anyhow::Result<bool> {
        let arrays: Vec<(&str, &Tensor)> = found.arrays.iter().map(|(name, t)| (name.as_str(), t)).collect();
        write_npz(&self.out, &arrays)?;
        eprintln!("{} in {seconds:.1} s, written to {}", method.card.title, self.out.display());
        for table in &found.tables {
            eprintln!("\n{}\n{}", table.title, table.columns.join(" | "));
            for row in table.rows.iter().take(SHOWN) {
                let cells: Vec<String> =
                    row.iter().map(|c| serde_json::to_value(c).map_or_else(|_| String::new(), |v| shown(&v))).collect();
                eprintln!("{}", cells.join(" | "));
            }
            if table.rows.len() > SHOWN {
                eprintln!("… {} more rows (--json)", table.rows.len() - SHOWN);
            }
        }
        found.notes.iter().for_each(|n| eprintln!("note: {n}"));
        if let Some(folder) = &self.pictures {
            let count = super::explain_pictures::insight(found, folder)?;
            eprintln!("{count} pictures drawn in {}", folder.display());
        }
        if let Some(path) = &self.json {
            let summary = json!({
                "method": method.card.id,
                "options": serde_json::from_str::<serde_json::Value>(&method.options).unwrap_or_default(),
                "tables": found.tables,
                "notes": found.notes,
                "seed": self.seed,
                "seconds": seconds,
                "out": self.out.display().to_string(),
            });
            write_json(path, &summary)?;
        }
        Ok(true)
    }

    fn options(&self) -> anyhow::Result<toml::Table> {
        let mut all = toml::Table::new();
        for setting in &self.set {
            // Only this method has options here, so that its id may be left out.
            let own = format!("{}.", self.method);
            let key = setting.split('=').next().unwrap_or_default();
            if key.starts_with(&own) || key.contains('.') {
                set(&mut all, setting)?;
            } else {
                set(&mut all, &format!("{own}{setting}"))?;
            }
        }
        let mine = all.remove(&self.method);
        if let Some(other) = all.keys().next() {
            bail!("--set {other}.…: the method is `{}`", self.method);
        }
        Ok(mine.and_then(|t| t.as_table().cloned()).unwrap_or_default())
    }

    fn material_from_data(&self, model: &Model, again: Model, spec: &str) -> anyhow::Result<Material> {
        let names: Vec<&str> = model.inputs().iter().map(|p| p.name.as_str()).collect();
        let [input] = names[..] else {
            bail!("the network has the inputs {}; give them all in one archive with --inputs", names.join(", "));
        };
        let data = self.reading.open(spec, model)?;
        let rows = self.rows.within(data.len())?;
        let subject = Subject::new(again, "model", data, None)?;
        let chosen = subject.data().select(&rows)?;
        let batch = if rows.is_empty() { subject.data().take(0).load()? } else { chosen.load()? };
        let labels = match batch.labels {
            Labels::Classes(v) => Some(v),
            _ => None,
        };
        let x = subject.in_shape(&batch.features)?;
        let classes = match subject.data().label_kind() {
            netproof_data::LabelKind::Classes { count, .. } => *count,
            _ => 0,
        };
        let table = subject.data().feature_shape().len() == 1;
        Ok(Material {
            inputs: vec![(input.to_owned(), x)],
            labels,
            row_ids: batch.row_ids,
            names: subject.data().feature_names().filter(|_| table).map(<[String]>::to_vec),
            class_names: (0..classes).map(|c| subject.class_name(c)).collect(),
            binary: matches!(subject.head(), Head::BinaryLogit | Head::BinaryProbability),
            source: Some(subject),
        })
    }

    fn material_from_inputs(&self, model: &Model, file: &Path) -> anyhow::Result<Material> {
        let names: Vec<&str> = model.inputs().iter().map(|p| p.name.as_str()).collect();
        let arrays = read_npz(file, &names, Limits::default()).context("reading the inputs")?;
        let count = arrays.first().map_or(0, Tensor::rows);
        let rows = self.rows.within(count)?;
        let mut inputs = Vec::new();
        for (name, array) in names.iter().zip(arrays) {
            ensure!(
                array.rank() > 0 && array.rows() == count,
                "input `{name}` has shape {:?}, the first one has {count} rows",
                array.shape()
            );
            inputs.push(((*name).to_owned(), array.select_rows(&rows)?));
        }
        Ok(Material {
            inputs,
            labels: None,
            row_ids: rows.iter().map(|&r| r as u64).collect(),
            names: None,
            class_names: Vec::new(),
            binary: false,
            source: None,
        })
    }

    fn question(&self, net: &Explained<'_>, material: &Material) -> anyhow::Result<Question> {
        let (x, context) = net.rows_of(&material.inputs)?;
        let n = x.rows();
        let mut q = Question::new(x, vec![0; n])?;
        q.context = context;
        q.rows = material.row_ids.clone();
        q.seed = self.seed;
        q.baseline = self.baseline_of(net, material)?;
        q.background = self.background_of(net, material)?;
        if let Some(names) = material.names.as_ref().filter(|names| !self.no_grouping && names.len() == net.row_len()) {
            // Some more rows than are explained say whether columns exclude one another.
            let sample = match &material.source {
                Some(s) => s.data().take(1000).load()?.features,
                None => q.x.clone(),
            };
            q.features = Some(one_hot(names, &sample));
        }
        q.targets = targets(net, self.target, &q, material.labels.as_deref())?;
        Ok(q)
    }

    fn baseline_of(&self, net: &Explained<'_>, material: &Material) -> anyhow::Result<Tensor> {
        let shape = [&[1], net.row_shape()].concat();
        let filled = |v: f32| Tensor::f32(shape.clone(), vec![v; net.row_len()]);
        Ok(match self.baseline.as_str() {
            "zero" => filled(0.0)?,
            "mean" => {
                let rows = self.typical(net, material, 1000)?;
                let (n, width) = (rows.rows().max(1), net.row_len());
                let mut mean = vec![0.0f64; width];
                for row in rows.as_f32().unwrap_or_default().chunks(width.max(1)) {
                    mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / n as f64);
                }
                Tensor::f32(shape, mean.into_iter().map(|v| v as f32).collect())?
            }
            text => match text.parse::<f32>() {
                Ok(v) => {
                    ensure!(v.is_finite(), "--baseline is {text}, it must be a finite number");
                    filled(v)?
                }
                Err(_) => {
                    let mut arrays =
                        read_npz(Path::new(text), &["baseline"], Limits::default()).with_context(|| {
                            format!("--baseline {text}: neither zero, mean or a number, nor an archive with `baseline`")
                        })?;
                    let t = as_float(arrays.remove(0))?;
                    // One row without its leading axis is meant as one row.
                    if t.shape() == net.row_shape() { t.reshape(shape)? } else { t }
                }
            },
        })
    }

    fn background_of(&self, net: &Explained<'_>, material: &Material) -> anyhow::Result<Option<Tensor>> {
        let Some(text) = &self.background else { return Ok(None) };
        if let Ok(n) = text.parse::<usize>() {
            ensure!(n > 0, "--background is 0, it must be at least 1");
            return Ok(Some(self.typical(net, material, n)?));
        }
        let mut arrays = read_npz(Path::new(text), &["background"], Limits::default()).with_context(|| {
            format!("--background {text}: neither a number of rows nor an archive with `background`")
        })?;
        Ok(Some(as_float(arrays.remove(0))?))
    }

    /// Evenly spaced rows of the data, as the explained value.
    fn typical(&self, net: &Explained<'_>, material: &Material, count: usize) -> anyhow::Result<Tensor> {
        let Some(subject) = &material.source else {
            bail!("rows of the data stand for typical ones only with --data; give an archive instead");
        };
        let data: &Dataset = subject.data();
        let rows: Vec<usize> = (0..data.len()).step_by((data.len() / count).max(1)).take(count).collect();
        let x = subject.in_shape(&data.select(&rows)?.load()?.features)?;
        let (name, _) = &material.inputs[0];
        let (rows, _) = net.rows_of(&[(name.clone(), x)])?;
        // Rows with missing values are typical of nothing.
        let width = rows.row_len();
        let whole =
            |i: usize| rows.as_f32().is_some_and(|v| v[i * width..(i + 1) * width].iter().all(|v| v.is_finite()));
        let kept: Vec<usize> = (0..rows.rows()).filter(|&i| whole(i)).collect();
        ensure!(!kept.is_empty(), "no row of the data is without missing values");
        Ok(rows.select_rows(&kept)?)
    }

    fn write(&self, e: &Explanation, q: &Question, scores: &[f64]) -> anyhow::Result<()> {
        let n = q.len();
        let floats = |v: &[f64]| Tensor::f32(vec![n], v.iter().map(|&v| v as f32).collect());
        let target = Tensor::i64(vec![n], q.targets.iter().map(|&t| t as i64).collect())?;
        let row = Tensor::i64(vec![n], q.rows.iter().map(|&r| r as i64).collect())?;
        let score = floats(scores)?;
        let delta = e.delta.as_deref().map(floats).transpose()?;
        let difference = e.difference.as_deref().map(floats).transpose()?;
        let mut arrays: Vec<(&str, &Tensor)> =
            vec![("attributions", &e.attributions), ("target", &target), ("row", &row), ("score", &score)];
        for (name, t) in [("delta", &delta), ("difference", &difference), ("standard_error", &e.standard_error)] {
            arrays.extend(t.as_ref().map(|t| (name, t)));
        }
        arrays.extend(e.arrays.iter().map(|(name, t)| (name.as_str(), t)));
        Ok(write_npz(&self.out, &arrays)?)
    }

    fn summary(
        &self,
        method: &Configured<dyn Explainer>,
        net: &Explained<'_>,
        e: &Explanation,
        q: &Question,
        seconds: f64,
    ) -> serde_json::Value {
        let largest = |v: &[f64]| v.iter().filter(|v| v.is_finite()).fold(0f64, |m, v| m.max(v.abs()));
        json!({
            "method": method.card.id,
            "options": serde_json::from_str::<serde_json::Value>(&method.options).unwrap_or_default(),
            "rows": q.len(),
            "input": net.input(),
            "output": net.output(),
            "value": e.value,
            "shape": e.attributions.shape(),
            "baseline": self.baseline,
            "largest_delta": e.delta.as_deref().map(largest),
            "notes": e.notes,
            "seed": self.seed,
            "seconds": seconds,
            "out": self.out.display().to_string(),
        })
    }
}

/// Rows of a table that are printed.
const SHOWN: usize = 20;

fn shown(v: &serde_json::Value) -> String {
    match v {
        serde_json::Value::String(s) => s.clone(),
        serde_json::Value::Number(n) if n.is_f64() => format!("{:.4}", n.as_f64().unwrap_or_default()),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A method of either registry.
enum Method {
    Attributes(Configured<dyn Explainer>),
    Examines(Configured<dyn Examiner>),
}

impl Method {
    fn find(id: &str, options: toml::Table) -> anyhow::Result<Self> {
        fn of<M: ?Sized>(entries: &'static [Entry<M>], id: &str) -> Option<&'static Entry<M>> {
            entries.iter().find(|e| e.card.id == id)
        }
        if let Some(e) = of(EXPLANATIONS, id) {
            return Ok(Self::Attributes((e.build)(e.card, options)?));
        }
        if let Some(e) = of(INSIGHTS, id) {
            return Ok(Self::Examines((e.build)(e.card, options)?));
        }
        let ids = EXPLANATIONS.iter().map(|e| e.card.id).chain(INSIGHTS.iter().map(|e| e.card.id));
        let known = ids.map(str::to_owned).collect();
        Err(AuditError::UnknownId { kind: "explanation", id: id.to_owned(), known }.into())
    }
}

/// Scores of the rows' targets; NaN where a row is not finite.
fn scores(net: &Explained<'_>, q: &Question) -> anyhow::Result<Vec<f64>> {
    Ok(net.own_scores(q)?)
}

fn as_float(t: Tensor) -> anyhow::Result<Tensor> {
    if t.dtype().is_float() {
        return Ok(t);
    }
    let Some(v) = t.as_i64() else { bail!("an array of numbers is needed, got {}", t.dtype()) };
    let values = v.iter().map(|&v| v as f32).collect();
    Ok(Tensor::new(DType::F32, t.shape().to_vec(), netproof_tensor::Elements::Float(values))?)
}

/// Explains rows in groups of bounded size, with progress.
fn in_groups(method: &dyn Explainer, net: &Explained<'_>, q: &Question) -> anyhow::Result<Explanation> {
    let n = q.len();
    if n <= GROUP {
        return Ok(explain(method, net, q)?);
    }
    let progress = Terminal::default();
    progress.start("explaining", n as u64);
    let mut parts = Vec::new();
    for start in (0..n).step_by(GROUP) {
        let rows: Vec<usize> = (start..(start + GROUP).min(n)).collect();
        parts.push(explain(method, net, &q.select(&rows)?)?);
        progress.advance(rows.len() as u64);
    }
    progress.finish();
    joined(parts, n)
}

fn joined(parts: Vec<Explanation>, n: usize) -> anyhow::Result<Explanation> {
    let mut parts = parts.into_iter();
    let Some(mut whole) = parts.next() else { bail!("there are no rows") };
    for part in parts {
        whole.attributions = Tensor::concat_rows(&[whole.attributions, part.attributions])?;
        whole.standard_error = match (whole.standard_error, part.standard_error) {
            (Some(a), Some(b)) => Some(Tensor::concat_rows(&[a, b])?),
            _ => None,
        };
        for (own, more) in [(&mut whole.delta, part.delta), (&mut whole.difference, part.difference)] {
            match (own.as_mut(), more) {
                (Some(own), Some(more)) => own.extend(more),
                _ => *own = None,
            }
        }
        for ((_, own), (_, more)) in whole.arrays.iter_mut().zip(part.arrays) {
            *own = Tensor::concat_rows(&[own.clone(), more])?;
        }
        for note in part.notes {
            if !whole.notes.contains(&note) {
                whole.notes.push(note);
            }
        }
    }
    ensure!(whole.attributions.rows() == n, "internal error: {} of {n} rows were explained", whole.attributions.rows());
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_checked() {
        let rows = |text: &str| text.parse::<Rows>().and_then(|r| r.within(20).map_err(|e| e.to_string()));
        assert_eq!(rows("0..2,5"), Ok(vec![0, 1, 5]));
        assert_eq!(rows("0..8").unwrap().len(), 8);
        assert_eq!("0..8".parse::<Rows>().unwrap().within(3).unwrap(), [0, 1, 2]);
        assert!(rows("18..21").unwrap_err().contains("20 rows, 0 to 19"));
        assert!(rows("a").is_err() && rows("1..b").is_err() && rows("").is_err());
    }
}
