//! A classifier as an attacker meets it: logits, however the file ends, and their gradients with respect to the input.
//!
//! A softmax or sigmoid at the end is undone, best by looking in front of it: through a saturated softmax the gradient is
//! zero in float32, which would look like robustness (Carlini and Wagner, IEEE S&P 2017, section IV). One logit of class 1
//! becomes the two logits 0 and z, whose softmax is the sigmoid.
//!
//! Two things an adaptive attacker needs are here, not in the attacks: a second network for the backward pass (BPDA, Athalye
//! et al., ICML 2018, section 4.1) and averages over random transformations of the input (EOT, section 4.2 there).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use netproof_audit::{Head, Subject};
use netproof_graph::{Dim, Model, Request, Run, Wrt};
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;

use super::AttackError;

/// Bytes of activations that one forward pass with gradients may hold.
const MEMORY: u64 = 256 << 20;
/// Rows of one pass at most: more gain nothing.
const MOST_ROWS: usize = 512;
/// Least probability whose logarithm is taken; below it there is no gradient.
const LEAST: f32 = 1e-30;

/// A random change of the input in front of the network, as some defences make it.
pub trait Transformation: Send + Sync {
    /// One draw for one row.
    fn apply(&self, row: &[f32], rng: &mut Rng) -> Vec<f32>;

    /// The gradient with respect to the row, from that with respect to what [`Transformation::apply`] answered for the same
    /// draws. The default takes the transformation for the identity (BPDA).
    fn pull_back(&self, _row: &[f32], gradient: Vec<f32>, _rng: &mut Rng) -> Vec<f32> {
        gradient
    }
}

/// How raw outputs become logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// They are logits, or logarithms of probabilities.
    None,
    /// Probabilities.
    Logarithm,
    /// One logit of class 1.
    Binary,
    /// One probability of class 1.
    BinaryProbability,
}

/// A classifier as an attacker sees it.
#[derive(Clone)]
pub struct Victim<'m> {
    model: &'m Model,
    input: String,
    output: String,
    link: Link,
    classes: usize,
    row: Vec<usize>,
    batch: usize,
    differentiable: Result<(), String>,
    notes: Vec<String>,
    backward: Option<(&'m Model, String, String)>,
    transformation: Option<(Arc<dyn Transformation>, usize)>,
    dropout: bool,
    salt: u64,
    calls: Arc<AtomicU64>,
}

impl std::fmt::Debug for Victim<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Victim").field("output", &self.output).field("link", &self.link).finish_non_exhaustive()
    }
}

/// Logits of some rows, and their gradient with respect to the input.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Look {
    /// `[n, classes]`; the mean over draws where transformations are random.
    pub logits: Vec<f32>,
    /// `[n, row]`
    pub gradient: Vec<f32>,
}

/// Fills the gradient of a row's loss with respect to its logits: position of the row in the call, logits, seed to be filled
/// (zeros at first).
pub type Objective<'a> = dyn FnMut(usize, &[f32], &mut [f32]) + 'a;

impl<'m> Victim<'m> {
    /// The network of an audit.
    /// # Errors
    /// It predicts numbers instead of classes, or does not take floats.
    pub fn of(subject: &'m Subject) -> Result<Self, AttackError> {
        let data = subject.data().take(2).load().map_err(netproof_audit::AuditError::from)?;
        Self::new(subject.model(), subject.head(), data.features.shape().get(1..).unwrap_or_default(), &data.features)
    }

    /// A network whose answers mean `head`, on rows of this shape. A few rows tell whether undoing its end is right.
    /// # Errors
    /// It predicts numbers instead of classes, does not take floats, or does not take such rows.
    pub fn new(model: &'m Model, head: Head, row: &[usize], sample: &Tensor) -> Result<Self, AttackError> {
        let (Some(port), Some(output), 1) = (model.inputs().first(), model.outputs().first(), model.inputs().len())
        else {
            let n = model.inputs().len();
            return Err(AttackError::Victim(format!("it has {n} inputs, an attack needs one input and an output")));
        };
        if !port.dtype.is_float() {
            let message = format!("its input `{}` holds {} values, an attack changes floats", port.name, port.dtype);
            return Err(AttackError::Victim(message));
        }
        let row = own_shape(port.shape.as_deref(), row)?;
        let mut v = Self {
            model,
            input: port.name.clone(),
            output: output.name.clone(),
            link: Link::None,
            classes: 0,
            batch: rows_in_memory(model, &row),
            row,
            differentiable: Ok(()),
            notes: Vec::new(),
            backward: None,
            transformation: None,
            dropout: false,
            salt: 0,
            calls: Arc::default(),
        };
        let values = sample.as_f32().unwrap_or_default();
        let values = &values[..values.len().min(2 * v.row_len()) / v.row_len().max(1) * v.row_len()];
        let probe = if values.is_empty() { vec![0.0; v.row_len()] } else { values.to_vec() };
        v.find_logits(head, &probe)?;
        v.probe_gradient(&probe);
        Ok(v)
    }

    /// The same with the gradient taken through another network, whose logits mean the same (BPDA).
    /// # Errors
    /// The other network does not take the same rows.
    pub fn with_backward(mut self, other: &'m Model) -> Result<Self, AttackError> {
        let head = match self.link {
            Link::None => Head::Logits,
            Link::Logarithm => Head::Probabilities,
            Link::Binary => Head::BinaryLogit,
            Link::BinaryProbability => Head::BinaryProbability,
        };
        let zeros = Tensor::zeros(self.shape(1))?;
        // What the file says of its end decides; a network without logits here may have them there.
        let softmax =
            matches!(other.outputs().first().and_then(|o| other.producer(&o.name)), Some("Softmax" | "Sigmoid"));
        let head = match (head, softmax) {
            (Head::Logits, true) => Head::Probabilities,
            (Head::BinaryLogit, true) => Head::BinaryProbability,
            (other, _) => other,
        };
        let there = Victim::new(other, head, &self.row, &zeros)?;
        if there.classes != self.classes {
            let message = format!("the backward network has {} classes, the network {}", there.classes, self.classes);
            return Err(AttackError::Mismatch(message));
        }
        if !matches!(there.link, Link::None | Link::Binary) {
            return Err(AttackError::Victim("the backward network has no logits".to_owned()));
        }
        self.differentiable = there.differentiable;
        self.backward = Some((other, there.input, there.output));
        self.notes.push("gradients are taken through another network (BPDA)".to_owned());
        Ok(self)
    }

    /// The same behind a random transformation of the input; every look averages over `draws` of it (EOT).
    #[must_use]
    pub fn with_transformation(mut self, transformation: Arc<dyn Transformation>, draws: usize) -> Self {
        self.transformation = Some((transformation, draws.max(1)));
        self
    }

    /// The same with another number of draws per look; nothing changes without a transformation.
    #[must_use]
    pub fn with_draws(mut self, draws: usize) -> Self {
        if let Some((_, d)) = &mut self.transformation {
            *d = draws.max(1);
        } else if self.dropout {
            self.transformation = Some((Arc::new(Unchanged), draws.max(1)));
        }
        self
    }

    /// The same with its dropout left on, as randomised defences do; each call draws anew.
    #[must_use]
    pub fn with_dropout(mut self) -> Self {
        self.dropout = true;
        self
    }

    /// The same with other draws, for an independent look.
    #[must_use]
    pub fn salted(mut self, salt: u64) -> Self {
        self.salt = salt;
        self
    }

    /// Whether two looks at the same row may differ.
    pub fn is_random(&self) -> bool {
        self.transformation.is_some() || self.dropout
    }

    /// Number of classes, at least 2.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Shape of a row as the network takes it.
    pub fn row(&self) -> &[usize] {
        &self.row
    }

    /// Elements of a row.
    pub fn row_len(&self) -> usize {
        self.row.iter().product()
    }

    /// Rows of one pass with gradients that fit the memory.
    pub fn batch_rows(&self) -> usize {
        self.batch
    }

    /// The network, where attacks see it as it is: without random transformations, dropout or another backward pass.
    pub fn as_it_is(&self) -> Option<&'m Model> {
        let changed = self.transformation.is_some() || self.dropout || self.backward.is_some();
        (!changed).then_some(self.model)
    }

    /// Whether no logits could be found, so that what attacks see saturates.
    pub fn sees_probabilities(&self) -> bool {
        matches!(self.link, Link::Logarithm | Link::BinaryProbability)
    }

    /// What was undone or replaced, for people.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// # Errors
    /// No gradient flows to the input; the message says why.
    pub fn need_gradient(&self) -> Result<(), AttackError> {
        self.differentiable.clone().map_err(AttackError::NotDifferentiable)
    }

    /// Logits of rows, in passes that fit the memory.
    /// # Shapes
    /// `[n, row]` → `[n, classes]`
    /// # Errors
    /// The network refuses.
    pub fn logits(&self, x: &[f32]) -> Result<Vec<f32>, AttackError> {
        let mut all = Vec::with_capacity(x.len() / self.row_len().max(1) * self.classes);
        for part in x.chunks(self.batch * self.row_len().max(1)) {
            let mut mean = vec![0.0; part.len() / self.row_len().max(1) * self.classes];
            for draw in 0..self.draws() {
                let (logits, _) = self.forward(part, draw, false)?;
                add(&mut mean, &logits, self.draws());
            }
            all.append(&mut mean);
        }
        Ok(all)
    }

    /// Logits, and the gradient of the sum of the rows' losses, in passes that fit the memory.
    /// # Shapes
    /// `[n, row]` → `[n, classes]`, `[n, row]`
    /// # Errors
    /// The network refuses, or has no gradient.
    pub fn look(&self, x: &[f32], objective: &mut Objective<'_>) -> Result<Look, AttackError> {
        self.need_gradient()?;
        let (len, k) = (self.row_len().max(1), self.classes);
        let mut all = Look { logits: Vec::with_capacity(x.len() / len * k), gradient: Vec::with_capacity(x.len()) };
        for (i, part) in x.chunks(self.batch * len).enumerate() {
            let n = part.len() / len;
            let mut seed = |logits: &[f32]| {
                let mut seeds = vec![0.0; n * k];
                for (j, (row, seed)) in logits.chunks_exact(k).zip(seeds.chunks_exact_mut(k)).enumerate() {
                    objective(i * self.batch + j, row, seed);
                }
                seeds
            };
            if self.draws() == 1 {
                let (mut logits, run) = self.forward(part, 0, true)?;
                let seeds = seed(&logits);
                all.gradient.append(&mut self.backward(&run, part, 0, &seeds, &logits)?);
                all.logits.append(&mut logits);
                continue;
            }
            let (mut mean, mut gradient) = (vec![0.0; n * k], vec![0.0; part.len()]);
            for draw in 0..self.draws() {
                let (logits, run) = self.forward(part, draw, true)?;
                let seeds = seed(&logits);
                add(&mut gradient, &self.backward(&run, part, draw, &seeds, &logits)?, self.draws());
                add(&mut mean, &logits, self.draws());
            }
            all.gradient.append(&mut gradient);
            all.logits.append(&mut mean);
        }
        Ok(all)
    }

    /// One forward pass, then the gradient of any number of functions of the logits. Memory grows with the rows: give at
    /// most [`Victim::batch_rows`].
    /// # Errors
    /// The network refuses, or has no gradient.
    pub fn evaluate(&self, x: &[f32]) -> Result<Evaluation<'_, 'm>, AttackError> {
        self.need_gradient()?;
        let n = x.len() / self.row_len().max(1);
        let mut e = Evaluation { victim: self, x: x.to_vec(), logits: vec![0.0; n * self.classes], runs: Vec::new() };
        if n == 0 {
            return Ok(e);
        }
        for draw in 0..self.draws() {
            let (logits, run) = self.forward(x, draw, true)?;
            add(&mut e.logits, &logits, self.draws());
            e.runs.push((logits, run));
        }
        Ok(e)
    }

    fn draws(&self) -> usize {
        self.transformation.as_ref().map_or(1, |(_, draws)| *draws)
    }

    fn shape(&self, n: usize) -> Vec<usize> {
        [&[n], &self.row[..]].concat()
    }

    /// The draws of one row: from its bits, so that they depend neither on its place in the batch nor on other rows.
    fn rng(&self, row: &[f32], draw: usize) -> Rng {
        let bits = row
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, v| (h ^ u64::from(v.to_bits())).wrapping_mul(0x0000_0100_0000_01b3));
        Rng::stream(bits ^ self.salt.rotate_left(17), draw as u64 + 1)
    }

    /// Rows as the network takes them: transformed, and padded to a fixed batch.
    fn tensor(&self, x: &[f32], draw: usize, fixed: Option<usize>) -> Result<Tensor, AttackError> {
        let len = self.row_len().max(1);
        let n = x.len() / len;
        let mut values = match &self.transformation {
            None => {
                let mut v = netproof_tensor::pool::any_floats(x.len());
                v.copy_from_slice(x);
                v
            }
            Some((t, _)) => x.chunks_exact(len).flat_map(|row| t.apply(row, &mut self.rng(row, draw))).collect(),
        };
        let rows = fixed.map_or(n, |f| f.max(n));
        for _ in n..rows {
            values.extend_from_within((n - 1) * len..n * len);
        }
        Ok(Tensor::f32(self.shape(rows), values)?)
    }

    /// Logits of at most a batch of rows, and the pass behind them.
    fn forward(&self, x: &[f32], draw: usize, wrt: bool) -> Result<(Vec<f32>, Pass<'m>), AttackError> {
        let n = x.len() / self.row_len().max(1);
        let input = self.tensor(x, draw, self.model.fixed_batch())?;
        let training = self.dropout.then(|| {
            let call = self.calls.fetch_add(1, Ordering::Relaxed);
            Rng::stream(self.salt ^ 0x5eed, call + 1).next_u64()
        });
        let direct = wrt && self.backward.is_none();
        let request = |input_name: &str, output: &str, wrt: bool| Request {
            inputs: vec![(input_name.to_owned(), input.clone())],
            outputs: vec![output.to_owned()],
            training,
            wrt: if wrt { Wrt::values([input_name]) } else { Wrt::default() },
            ..Request::default()
        };
        let run = self.model.forward(&request(&self.input, &self.output, direct))?;
        let raw = run.output(&self.output)?;
        let logits = self.logits_of_raw(&raw, n)?;
        let second = match &self.backward {
            Some((model, name, output)) if wrt => {
                let run = model.forward(&request(name, output, true))?;
                let shape = run.output(output)?.shape().to_vec();
                Some((run, name.clone(), output.clone(), shape))
            }
            _ => None,
        };
        let pass = match second {
            Some(p) => p,
            None => (run, self.input.clone(), self.output.clone(), raw.shape().to_vec()),
        };
        Ok((logits, Pass { run: pass.0, input: pass.1, output: pass.2, shape: pass.3 }))
    }

    fn logits_of_raw(&self, raw: &Tensor, n: usize) -> Result<Vec<f32>, AttackError> {
        let width = if raw.rank() == 0 { 0 } else { raw.row_len() };
        let values = raw.as_f32().unwrap_or_default();
        if width == 0 || values.len() < n * width || raw.rows() < n {
            let message = format!("the output has shape {:?} for {n} rows; it must be [{n}, classes]", raw.shape());
            return Err(AttackError::Victim(message));
        }
        let values = &values[..n * width];
        Ok(match self.link {
            Link::None => values.to_vec(),
            Link::Logarithm => values.iter().map(|p| p.max(LEAST).ln()).collect(),
            Link::Binary => values.iter().flat_map(|&z| [0.0, z]).collect(),
            Link::BinaryProbability => {
                values.iter().flat_map(|&p| [(1.0 - p).max(LEAST).ln(), p.max(LEAST).ln()]).collect()
            }
        })
    }

    /// The gradient of seeds on logits with respect to the rows.
    fn backward(
        &self,
        pass: &Pass<'_>,
        x: &[f32],
        draw: usize,
        seeds: &[f32],
        logits: &[f32],
    ) -> Result<Vec<f32>, AttackError> {
        let len = self.row_len().max(1);
        let n = x.len() / len;
        let link = if self.backward.is_some() && self.link == Link::Logarithm { Link::None } else { self.link };
        let inverse = |z: f32| if z > LEAST.ln() { (-z).exp() } else { 0.0 };
        let mut raw: Vec<f32> = match link {
            Link::None => seeds.to_vec(),
            Link::Logarithm => seeds.iter().zip(logits).map(|(s, &z)| s * inverse(z)).collect(),
            Link::Binary => seeds.chunks_exact(2).map(|s| s[1]).collect(),
            Link::BinaryProbability if self.backward.is_some() => seeds.chunks_exact(2).map(|s| s[1]).collect(),
            Link::BinaryProbability => {
                let pairs = seeds.chunks_exact(2).zip(logits.chunks_exact(2));
                pairs.map(|(s, z)| s[1] * inverse(z[1]) - s[0] * inverse(z[0])).collect()
            }
        };
        raw.resize(pass.shape.iter().product(), 0.0);
        let seed = Tensor::f32(pass.shape.clone(), raw)?;
        let mut gradients = pass.run.backward(&[(pass.output.as_str(), &seed)])?;
        // Nothing flows: the gradient is zero.
        let gradient = gradients.take(&pass.input).and_then(Tensor::into_f32);
        let mut gradient = gradient.unwrap_or_else(|| vec![0.0; x.len()]);
        gradient.truncate(n * len);
        if let Some((t, _)) = &self.transformation {
            let rows = x.chunks_exact(len).zip(gradient.chunks_exact(len));
            let pulled = rows.flat_map(|(row, g)| t.pull_back(row, g.to_vec(), &mut self.rng(row, draw)));
            gradient = pulled.collect();
        }
        Ok(gradient)
    }

    /// Where the logits are: the output, or what its softmax or sigmoid takes, if a few rows confirm that.
    fn find_logits(&mut self, head: Head, probe: &[f32]) -> Result<(), AttackError> {
        let (plain, undone) = match head {
            Head::Value => {
                return Err(AttackError::Victim(
                    "it predicts numbers; robustness is measured for classifiers".to_owned(),
                ));
            }
            Head::Logits => (Link::None, None),
            Head::BinaryLogit => (Link::Binary, None),
            Head::Probabilities => (Link::Logarithm, Some(Link::None)),
            Head::BinaryProbability => (Link::BinaryProbability, Some(Link::Binary)),
        };
        self.link = plain;
        let before = |v: &Self| -> Result<Vec<f32>, AttackError> {
            let (logits, pass) = v.forward(probe, 0, false)?;
            drop(pass);
            Ok(logits)
        };
        let answers = before(self)?;
        let n = probe.len() / self.row_len().max(1);
        self.classes = answers.len() / n.max(1);
        if self.classes < 2 {
            return Err(AttackError::Victim("it gives one number per row and is no classifier".to_owned()));
        }
        let Some(undone) = undone else { return Ok(()) };
        if let Some(inside) = before_link(self.model, &self.output) {
            let outside = (self.link, std::mem::replace(&mut self.output, inside.1));
            self.link = undone;
            let same = before(self).is_ok_and(|logits| {
                logits.len() == answers.len()
                    && logits.chunks_exact(self.classes).zip(answers.chunks_exact(self.classes)).all(|(z, a)| {
                        let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                        let sum: f32 = z.iter().map(|v| (v - max).exp()).sum();
                        let p = z.iter().map(|v| (v - max).exp() / sum);
                        p.zip(a).all(|(p, a)| (p - a.exp()).abs() < 1e-4)
                    })
            });
            if same {
                self.notes.push(format!("the {} at the network's end is undone: attacks see the logits", inside.0));
                return Ok(());
            }
            (self.link, self.output) = outside;
        }
        self.notes.push(
            "the network gives probabilities and no logits could be found in front of them: attacks see their logarithms, \
             whose gradient vanishes where they are saturated"
                .to_owned(),
        );
        Ok(())
    }

    fn probe_gradient(&mut self, probe: &[f32]) {
        let k = self.classes;
        let tried = self.forward(probe, 0, true).and_then(|(logits, pass)| {
            let seeds: Vec<f32> = (0..logits.len()).map(|i| if i % k == 0 { 1.0 } else { 0.0 }).collect();
            self.backward(&pass, probe, 0, &seeds, &logits)
        });
        self.differentiable = tried.map(drop).map_err(|e| e.to_string());
    }
}

/// A forward pass, and where its gradient starts and ends.
#[derive(Debug)]
struct Pass<'m> {
    run: Run<'m>,
    input: String,
    output: String,
    shape: Vec<usize>,
}

/// A forward pass that any number of gradients can be taken of.
#[derive(Debug)]
pub struct Evaluation<'v, 'm> {
    victim: &'v Victim<'m>,
    x: Vec<f32>,
    logits: Vec<f32>,
    runs: Vec<(Vec<f32>, Pass<'m>)>,
}

impl Evaluation<'_, '_> {
    /// `[n, classes]`
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The gradient of `sum over rows of (logits · seed)` with respect to the rows.
    /// # Shapes
    /// `[n, classes]` → `[n, row]`
    /// # Errors
    /// The network refuses.
    pub fn gradient(&self, seeds: &[f32]) -> Result<Vec<f32>, AttackError> {
        if let [(logits, pass)] = &self.runs[..] {
            return self.victim.backward(pass, &self.x, 0, seeds, logits);
        }
        let mut mean = vec![0.0; self.x.len()];
        for (draw, (logits, pass)) in self.runs.iter().enumerate() {
            add(&mut mean, &self.victim.backward(pass, &self.x, draw, seeds, logits)?, self.runs.len());
        }
        Ok(mean)
    }
}

/// No change: the network itself is random.
struct Unchanged;

impl Transformation for Unchanged {
    fn apply(&self, row: &[f32], _: &mut Rng) -> Vec<f32> {
        row.to_vec()
    }
}

fn add(sum: &mut [f32], more: &[f32], of: usize) {
    let share = 1.0 / of as f32;
    sum.iter_mut().zip(more).for_each(|(s, m)| *s += m * share);
}

/// The row's shape as the network declares it; only the arrangement of the elements may differ.
fn own_shape(dims: Option<&[Dim]>, row: &[usize]) -> Result<Vec<usize>, AttackError> {
    let Some(want) = dims.and_then(|d| d.get(1..)) else { return Ok(row.to_vec()) };
    let fits = want.len() == row.len() && want.iter().zip(row).all(|(d, r)| !matches!(d, Dim::Fixed(n) if n != r));
    if fits {
        return Ok(row.to_vec());
    }
    let fixed: Option<Vec<usize>> = want.iter().map(|d| if let Dim::Fixed(n) = d { Some(*n) } else { None }).collect();
    match fixed {
        Some(shape) if shape.iter().product::<usize>() == row.iter().product::<usize>() => Ok(shape),
        _ => {
            let want: Vec<String> = want.iter().map(Dim::to_string).collect();
            Err(AttackError::Mismatch(format!("rows have shape {row:?}, the network takes [{}]", want.join(", "))))
        }
    }
}

/// Operator and input of the softmax or sigmoid that the output comes from.
fn before_link(model: &Model, output: &str) -> Option<(String, String)> {
    const TRANSPARENT: [&str; 7] = ["Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"];
    let nodes: Vec<_> = model.nodes().collect();
    let mut value = output.to_owned();
    loop {
        let node = nodes.iter().find(|n| n.outputs.contains(&value))?;
        let input = node.inputs.first()?.clone();
        match node.operator.as_str() {
            "Softmax" | "Sigmoid" => return Some((node.operator.clone(), input)),
            op if TRANSPARENT.contains(&op) => value = input,
            _ => return None,
        }
    }
}

/// Rows whose activations fit the memory, both for the forward pass and for what the backward pass keeps.
fn rows_in_memory(model: &Model, row: &[usize]) -> usize {
    if let Some(fixed) = model.fixed_batch() {
        return fixed.max(1);
    }
    let per_row = |cost: netproof_graph::Cost| {
        let activations: u64 = cost.nodes.iter().map(|n| n.activation_bytes).sum();
        activations / cost.batch.max(1) as u64
    };
    let shapes: Vec<_> = model.inputs().iter().map(|p| (p.name.clone(), [&[8], row].concat())).collect();
    let bytes = model.cost(&shapes).map_or(0, per_row).max(8 * row.iter().product::<usize>() as u64).max(1);
    usize::try_from(MEMORY / bytes).unwrap_or(MOST_ROWS).clamp(1, MOST_ROWS)
}
