//! What is audited: a network, its data, and what has been computed from them so far.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netproof_core::Constraints;
use netproof_data::{Dataset, LabelKind};
use netproof_graph::{Dim, Model};
use netproof_tensor::Tensor;
use netproof_train::Record;
use serde_json::json;

use crate::outputs::Collector;
use crate::{AuditError, Context, Head, Outputs, Scan, Training};

/// Rows per forward pass, unless the file fixes them.
const BATCH: usize = 128;

/// One data set with what has been computed from it: a scan, and the network's answers.
#[derive(Default)]
struct Cache {
    scan: Mutex<Option<Arc<Scan>>>,
    outputs: Mutex<Option<Arc<Outputs>>>,
}

/// A network and its data. What one check computes, all later ones share: one scan and one clean forward pass per data
/// set serve the whole audit.
///
/// # Guarantees
/// Memory beside the network and one batch: 24 bytes per row and 48 per feature for the scan, 12 bytes per row and 64 MiB
/// for the answers.
pub struct Subject {
    model: Model,
    model_name: String,
    model_digest: String,
    head: Head,
    data: Dataset,
    train: Option<Dataset>,
    training: Option<Training>,
    record: Option<Record>,
    others: Vec<(String, Arc<Model>)>,
    constraints: Option<Constraints>,
    caches: [Cache; 2],
    remembered: Mutex<BTreeMap<String, Arc<dyn Any + Send + Sync>>>,
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("model", &self.model_name).field("head", &self.head).finish_non_exhaustive()
    }
}

/// Which data set of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The data under audit.
    Test,
    /// What the network was trained on.
    Train,
}

impl Subject {
    /// Checks that network and data belong together.
    /// # Errors
    /// The network has several inputs, takes rows of another shape, or answers with another number of values than there
    /// are classes.
    pub fn new(
        model: Model,
        model_name: impl Into<String>,
        data: Dataset,
        train: Option<Dataset>,
    ) -> Result<Self, AuditError> {
        if model.inputs().len() != 1 || model.outputs().is_empty() {
            let names: Vec<_> = model.inputs().iter().map(|p| p.name.as_str()).collect();
            return Err(mismatch(format!(
                "the network has the inputs {} and {} outputs; an audit needs one input and an output",
                names.join(", "),
                model.outputs().len()
            )));
        }
        if data.is_empty() {
            return Err(mismatch("the data have no rows".to_owned()));
        }
        for part in train.iter().chain([&data]) {
            arrange(&model, &Tensor::zeros(batch_shape(0, part.feature_shape()))?)?;
        }
        let head = find_head(&model, &data)?;
        let model_digest = model.sha256()?;
        let model_name = model_name.into();
        Ok(Self {
            model,
            model_name,
            model_digest,
            head,
            data,
            train,
            training: None,
            record: None,
            others: Vec::new(),
            constraints: None,
            caches: Default::default(),
            remembered: Mutex::default(),
        })
    }

    /// The subject with what is known about how its network is trained.
    #[must_use]
    pub fn with_training(self, training: Option<Training>) -> Self {
        Self { training, ..self }
    }

    /// The subject with the record of the training that gave its network. A record of another network is dropped.
    #[must_use]
    pub fn with_record(self, record: Option<Record>) -> Self {
        let record = record.filter(|r| r.result_sha256 == self.model_digest);
        Self { record, ..self }
    }

    /// The subject with other networks for the same task, by name: an attacker may hold them.
    #[must_use]
    pub fn with_others(self, others: Vec<(String, Arc<Model>)>) -> Self {
        Self { others, ..self }
    }

    /// The subject with what a changed row must keep to be a row that can be.
    #[must_use]
    pub fn with_constraints(self, constraints: Option<Constraints>) -> Self {
        Self { constraints, ..self }
    }

    /// Other networks for the same task, by name.
    pub fn others(&self) -> &[(String, Arc<Model>)] {
        &self.others
    }

    /// What a changed row must keep.
    pub fn constraints(&self) -> Option<&Constraints> {
        self.constraints.as_ref()
    }

    /// What besides network, data and options decides what an attacker can do; empty where nothing does.
    /// # Errors
    /// One of the other networks cannot be written.
    pub(crate) fn attacker(&self) -> Result<String, AuditError> {
        let mut text = String::new();
        for (name, model) in &self.others {
            text += &format!(" {name} {}", model.sha256()?);
        }
        if let Some(c) = self.constraints.as_ref().filter(|c| !c.is_empty()) {
            text += &format!(" {}", json!(c));
        }
        Ok(text)
    }

    /// How the network is trained, where that is known.
    pub fn training(&self) -> Option<&Training> {
        self.training.as_ref()
    }

    /// The record of the training that gave this network.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Another network with the same rows.
    /// # Errors
    /// See [`Subject::new`].
    pub fn with_model(&self, model: Model) -> Result<Self, AuditError> {
        let own = Self::new(model, self.model_name.clone(), self.data.clone(), self.train.clone())?;
        Ok(own.with_training(self.training.clone()).seen_as(self))
    }

    /// The same network with other rows under audit.
    /// # Errors
    /// See [`Subject::new`].
    pub fn with_data(&self, data: Dataset) -> Result<Self, AuditError> {
        let model = Model::from_file(self.model.to_file()?)?;
        let own = Self::new(model, self.model_name.clone(), data, self.train.clone())?;
        Ok(Self { record: self.record.clone(), ..own.with_training(self.training.clone()).seen_as(self) })
    }

    /// With the attacker of another subject.
    fn seen_as(self, other: &Self) -> Self {
        Self { others: other.others.clone(), constraints: other.constraints.clone(), ..self }
    }

    /// Name of the network.
    pub fn model_name(&self) -> &str {
        &self.model_name
    }

    /// The network.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// SHA-256 of the network.
    pub fn model_digest(&self) -> &str {
        &self.model_digest
    }

    /// What the network's answers mean.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The data under audit.
    pub fn data(&self) -> &Dataset {
        &self.data
    }

    /// A data set, where it was given.
    pub fn part(&self, part: Part) -> Option<&Dataset> {
        match part {
            Part::Test => Some(&self.data),
            Part::Train => self.train.as_ref(),
        }
    }

    /// Name of a class: its name in the data, or its number.
    pub fn class_name(&self, class: usize) -> String {
        match self.data.label_kind() {
            LabelKind::Classes { names: Some(names), .. } if class < names.len() => names[class].clone(),
            _ => class.to_string(),
        }
    }

    /// Name, hash, size and inputs of the network, for reports.
    pub fn model_facts(&self) -> BTreeMap<String, serde_json::Value> {
        let ports = |ports: &[netproof_graph::Port]| -> Vec<_> { ports.iter().map(port_text).collect() };
        let parameters: u64 = self.model.parameters().map(|p| p.shape.iter().product::<usize>() as u64).sum();
        BTreeMap::from([
            ("name".to_owned(), json!(self.model_name)),
            ("sha256".to_owned(), json!(self.model_digest)),
            ("parameters".to_owned(), json!(parameters)),
            ("inputs".to_owned(), json!(ports(self.model.inputs()))),
            ("outputs".to_owned(), json!(ports(self.model.outputs()))),
            ("answers".to_owned(), json!(self.head.name())),
        ])
    }

    /// Name, hash and size of the data, for reports.
    /// # Errors
    /// The data cannot be read.
    pub fn data_facts(&self, cx: &Context<'_>) -> Result<BTreeMap<String, serde_json::Value>, AuditError> {
        let mut facts = BTreeMap::new();
        for (part, prefix) in [(Part::Test, ""), (Part::Train, "train_")] {
            let Some(data) = self.part(part) else { continue };
            let Some(scan) = self.scan(part, cx)? else { continue };
            let name = data.path().file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            facts.insert(format!("{prefix}name"), json!(name));
            facts.insert(format!("{prefix}sha256"), json!(scan.content));
            facts.insert(format!("{prefix}rows"), json!(scan.rows));
            facts.insert(format!("{prefix}bad_rows"), json!(data.bad_row_count()));
            facts.insert(format!("{prefix}feature_shape"), json!(data.feature_shape()));
        }
        Ok(facts)
    }

    /// What one pass over the data saw; `None` where there is no such part.
    /// # Errors
    /// The data cannot be read, or the time is over.
    pub fn scan(&self, part: Part, cx: &Context<'_>) -> Result<Option<Arc<Scan>>, AuditError> {
        let Some(data) = self.part(part) else { return Ok(None) };
        let mut slot = lock(&self.caches[part as usize].scan);
        if let Some(scan) = &*slot {
            return Ok(Some(scan.clone()));
        }
        let (mut scan, mut hasher) = Scan::new(data);
        let steps = Steps::new(cx, "reading the data", data.len());
        for batch in data.batches(self.batch_rows()) {
            cx.check_time()?;
            let batch = batch?;
            scan.add(&batch, &mut hasher);
            steps.advance(batch.len());
        }
        scan.content = hasher.finish();
        let scan = Arc::new(scan);
        *slot = Some(scan.clone());
        Ok(Some(scan))
    }

    /// The network's answers on the data; `None` where there is no such part.
    /// # Errors
    /// The network refuses a batch, the data cannot be read, or the time is over.
    pub fn outputs(&self, part: Part, cx: &Context<'_>) -> Result<Option<Arc<Outputs>>, AuditError> {
        let Some(data) = self.part(part) else { return Ok(None) };
        let mut slot = lock(&self.caches[part as usize].outputs);
        if let Some(outputs) = &*slot {
            return Ok(Some(outputs.clone()));
        }
        let mut collector = None;
        let steps = Steps::new(cx, "running the network", data.len());
        for batch in data.batches(self.batch_rows()) {
            cx.check_time()?;
            let batch = batch?;
            let answers = self.answers(&batch.features)?;
            let width = answers.row_len();
            if self.head == Head::Value && width != 1 {
                return Err(mismatch(format!(
                    "the network gives {width} numbers per row, the labels are one number each"
                )));
            }
            let collector = collector.get_or_insert_with(|| Collector::new(self.head, width, data.len()));
            collector.add(&batch, &answers)?;
            steps.advance(batch.len());
        }
        let outputs = Arc::new(collector.map(Collector::finish).unwrap_or(Outputs::Regressed(Default::default())));
        *slot = Some(outputs.clone());
        Ok(Some(outputs))
    }

    /// What an earlier check of this audit computed under this key, or what `compute` gives. The key must say everything
    /// that the value depends on besides the subject: options and seed.
    /// # Errors
    /// What `compute` answers; nothing is kept then.
    pub fn remember<T: Send + Sync + 'static>(
        &self,
        key: &str,
        compute: impl FnOnce() -> Result<T, AuditError>,
    ) -> Result<Arc<T>, AuditError> {
        let kept = lock(&self.remembered).get(key).cloned();
        if let Some(value) = kept.and_then(|v| v.downcast::<T>().ok()) {
            return Ok(value);
        }
        let value = Arc::new(compute()?);
        lock(&self.remembered).insert(key.to_owned(), value.clone());
        Ok(value)
    }

    /// The first output on these rows, in evaluation mode.
    /// # Shapes
    /// `[n, ...]` of the data or of the network → `[n, values]`
    /// # Errors
    /// The rows do not fit the network.
    pub fn answers(&self, features: &Tensor) -> Result<Tensor, AuditError> {
        let n = features.rows();
        let y = self.model.predict(&arrange(&self.model, features)?)?;
        if y.rank() == 0 || y.rows() != n || !y.dtype().is_float() {
            return Err(mismatch(format!(
                "the output is {} {:?} for {n} rows; it must be float [{n}, classes]",
                y.dtype(),
                y.shape()
            )));
        }
        let width = y.row_len();
        Ok(y.reshape(vec![n, width])?)
    }

    /// Rows of the data in the shape that the network takes.
    /// # Errors
    /// The rows do not fit the network.
    pub fn in_shape(&self, features: &Tensor) -> Result<Tensor, AuditError> {
        arrange(&self.model, features)
    }

    /// Rows per forward pass.
    pub fn batch_rows(&self) -> usize {
        self.model.fixed_batch().map_or(BATCH, |b| b.max(1) * BATCH.div_ceil(b.max(1)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn mismatch(message: String) -> AuditError {
    AuditError::Mismatch { message }
}

/// Progress that ends also where an error ends the work.
struct Steps<'a>(&'a dyn crate::Progress);

impl<'a> Steps<'a> {
    fn new(cx: &'a Context<'_>, what: &str, steps: usize) -> Self {
        cx.progress.start(what, steps as u64);
        Self(cx.progress)
    }

    fn advance(&self, steps: usize) {
        self.0.advance(steps as u64);
    }
}

impl Drop for Steps<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}

fn port_text(port: &netproof_graph::Port) -> String {
    let dim = |d: &Dim| match d {
        Dim::Fixed(n) => n.to_string(),
        Dim::Named(name) => name.clone(),
        Dim::Any => "?".to_owned(),
    };
    let shape =
        port.shape.as_ref().map_or_else(|| "?".to_owned(), |s| s.iter().map(dim).collect::<Vec<_>>().join(", "));
    format!("{}: {} [{shape}]", port.name, port.dtype)
}

fn batch_shape(n: usize, row: &[usize]) -> Vec<usize> {
    [&[n], row].concat()
}

/// Rows in the shape that the network takes; only the arrangement of their elements may differ.
fn arrange(model: &Model, features: &Tensor) -> Result<Tensor, AuditError> {
    let Some(port) = model.inputs().first() else { return Err(mismatch("the network has no input".to_owned())) };
    let Some(dims) = &port.shape else { return Ok(features.clone()) };
    let row = features.shape().get(1..).unwrap_or_default();
    let want = dims.get(1..).unwrap_or_default();
    let fits = row.len() == want.len() && row.iter().zip(want).all(|(&r, d)| !matches!(d, Dim::Fixed(n) if *n != r));
    if fits {
        return Ok(features.clone());
    }
    let fixed: Option<Vec<usize>> = want.iter().map(|d| if let Dim::Fixed(n) = d { Some(*n) } else { None }).collect();
    match fixed {
        Some(shape) if shape.iter().product::<usize>() == row.iter().product::<usize>() => {
            Ok(features.clone().reshape(batch_shape(features.rows(), &shape))?)
        }
        _ => Err(mismatch(format!(
            "rows of the data have shape {row:?}, the input is {}; choose the columns with --features",
            port_text(port)
        ))),
    }
}

/// What the answers mean: from the labels, the number of answers and the operator that makes them.
fn find_head(model: &Model, data: &Dataset) -> Result<Head, AuditError> {
    if matches!(data.label_kind(), LabelKind::Target) {
        return Ok(Head::Value);
    }
    let Some(output) = model.outputs().first() else { return Err(mismatch("the network has no output".to_owned())) };
    let first = data.take(8).load()?;
    let probe = arrange(model, &first.features)?;
    let y = model.predict(&probe)?;
    let width = if y.rank() == 0 { 0 } else { y.row_len() };
    let values = y.as_f32().unwrap_or_default();
    let probabilities = match model.producer(&output.name) {
        Some("Softmax" | "Sigmoid") => true,
        // Where something follows the softmax, the numbers tell.
        _ => {
            let unit = values.iter().all(|v| (0.0..=1.0).contains(v));
            let sums = values.chunks(width.max(1)).all(|r| (r.iter().sum::<f32>() - 1.0).abs() < 1e-3);
            width > 1 && unit && sums && !values.is_empty()
        }
    };
    match (width, probabilities) {
        (0, _) => Err(mismatch(format!("the output has shape {:?}; it must be [rows, classes]", y.shape()))),
        (1, true) => Ok(Head::BinaryProbability),
        (1, false) => Ok(Head::BinaryLogit),
        (_, true) => {
            let sums = values
                .chunks(width)
                .all(|r| (r.iter().sum::<f32>() - 1.0).abs() < 1e-3 || r.iter().any(|v| v.is_nan()));
            if sums {
                return Ok(Head::Probabilities);
            }
            Err(mismatch(
                "the network gives one probability per label, not one distribution over classes (multi-label); that is \
                 not supported"
                    .to_owned(),
            ))
        }
        (_, false) => Ok(Head::Logits),
    }
}
