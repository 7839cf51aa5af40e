//! What a method sees of a network: batches of answers and of gradients, by the name of an input and of an output.

use netproof_audit::{Head, Subject};
use netproof_graph::{GraphError, Model, Request, Rule, Run, Wrt};
use netproof_tensor::Tensor;

use super::{ExplainError, Question};

/// Bytes of activations that one pass may hold, unless the caller says how many rows a pass has.
pub const MEMORY: u64 = 128 << 20;

/// Most rows of a pass that is chosen automatically.
const MOST_ROWS: u64 = 4096;

/// What is explained of a network, and in which portions it runs.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// The input whose elements get attributions, or any value on the way; the only input where it is `None`.
    pub input: Option<String>,
    /// The output that is explained, or any value on the way; `None`: the first output, and where that is a softmax or a
    /// sigmoid, what goes into it.
    pub output: Option<String>,
    /// Whether a single answer per row is a score of class 1 (with class 0 as its negative) or a number.
    pub binary: bool,
    /// Rows per pass; `None`: as many as [`MEMORY`] holds.
    pub batch: Option<usize>,
}

/// What a single number of the output means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// One score per class.
    Classes,
    /// One score of class 1; that of class 0 is its negative.
    Binary,
    /// A number.
    Value,
}

/// A network as explanations see it.
///
/// # Guarantees
/// A pass holds at most [`MEMORY`] bytes of activations, or as many rows as [`Choice::batch`] says; what a row gets does not
/// depend on the rows beside it.
#[derive(Debug)]
pub struct Explained<'m> {
    model: &'m Model,
    input: String,
    /// Whether `input` is an input of the network and not a value on the way.
    is_input: bool,
    output: String,
    undone: Option<String>,
    answer: Answer,
    row: Vec<usize>,
    /// Shape of the output for one row.
    output_row: Vec<usize>,
    batch: Option<usize>,
    fixed: Option<usize>,
    /// Bytes per row: of a forward pass, and of one that is walked back.
    bytes: [u64; 2],
    values: Vec<Made>,
}

/// A value that a node makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    /// Its name.
    pub(crate) name: String,
    /// The operator that makes it.
    pub(crate) operator: String,
    /// Shape of one row; `None` where it has no row per sample.
    pub(crate) row: Option<Vec<usize>>,
}

/// What a pass must be able to give.
#[derive(Debug, Clone, Default)]
pub(crate) struct Want<'a> {
    /// Values to read.
    pub(crate) taps: &'a [String],
    /// Values whose gradients are asked for.
    pub(crate) gradients: &'a [String],
    /// Everything that rules other than the gradient need.
    pub(crate) rules: bool,
}

impl<'m> Explained<'m> {
    /// Chooses what is explained, and runs one row to learn its shape.
    /// # Shapes
    /// `inputs`: every input of the network by name, `[n, ...]`; with n = 0 a row of zeros is run.
    /// # Errors
    /// A name is unknown; there are several inputs and none was chosen; a value has no row per sample or holds no floats.
    pub fn new(model: &'m Model, choice: &Choice, inputs: &[(String, Tensor)]) -> Result<Self, ExplainError> {
        let names: Vec<&str> = model.inputs().iter().map(|p| p.name.as_str()).collect();
        let input = match (&choice.input, &names[..]) {
            (Some(name), _) => name.clone(),
            (None, [one]) => (*one).to_owned(),
            (None, _) => {
                let what = format!(
                    "the network has the inputs {}; choose the one to explain (--input); all of them must be given (--inputs)",
                    names.join(", ")
                );
                return Err(ExplainError::not_applicable(what));
            }
        };
        let Some(first) = model.outputs().first() else {
            return Err(ExplainError::not_applicable("the network has no output"));
        };
        let declared = choice.output.clone().unwrap_or_else(|| first.name.clone());
        let (output, undone) = if choice.output.is_some() { (declared, None) } else { before_softmax(model, declared) };
        let is_input = names.contains(&input.as_str());

        let fixed = model.fixed_batch();
        let rows = fixed.unwrap_or(1).max(1);
        let example: Vec<(String, Tensor)> = inputs
            .iter()
            .map(|(name, t)| {
                let all: Vec<usize> = (0..rows).map(|r| r.min(t.rows().saturating_sub(1))).collect();
                let one = if t.rank() > 0 && t.rows() > 0 { t.select_rows(&all)? } else { zeros(rows, t)? };
                Ok((name.clone(), one))
            })
            .collect::<Result<_, ExplainError>>()?;
        let request = Request {
            inputs: example.clone(),
            taps: if is_input { Vec::new() } else { vec![input.clone()] },
            outputs: vec![output.clone()],
            ..Request::default()
        };
        let run = model.forward(&request)?;
        let x = match example.iter().find(|(name, _)| *name == input) {
            Some((_, t)) => t.clone(),
            None => run.output(&input)?,
        };
        let row = float_rows(&x, rows, &input)?;
        let output_row = float_rows(&run.output(&output)?, rows, &output)?;
        let answer = match (output_row.iter().product::<usize>(), choice.binary) {
            (1, true) => Answer::Binary,
            (1, false) => Answer::Value,
            _ => Answer::Classes,
        };
        let shapes: Vec<(String, Vec<usize>)> =
            example.iter().map(|(name, t)| (name.clone(), t.shape().to_vec())).collect();
        let cost = model.cost(&shapes)?;
        let all: u64 = cost.nodes.iter().map(|n| n.activation_bytes).sum();
        let bytes =
            [cost.peak_activation_bytes, all + cost.peak_activation_bytes].map(|b| b.div_ceil(rows as u64).max(1));
        let made = cost.nodes.iter().filter_map(|n| {
            let (name, shape) = (n.node.outputs.first()?.clone(), n.shapes.first()?);
            let row = (shape.first() == Some(&rows)).then(|| shape[1..].to_vec());
            Some(Made { name, operator: n.node.operator.clone(), row })
        });
        let (values, batch) = (made.collect(), choice.batch);
        Ok(Self { model, input, is_input, output, undone, answer, row, output_row, batch, fixed, bytes, values })
    }

    /// The same question to another network with the same names, such as a rewritten one.
    pub(crate) fn on<'a>(&self, model: &'a Model) -> Explained<'a> {
        Explained {
            model,
            input: self.input.clone(),
            is_input: self.is_input,
            output: self.output.clone(),
            undone: self.undone.clone(),
            answer: self.answer,
            row: self.row.clone(),
            output_row: self.output_row.clone(),
            batch: self.batch,
            fixed: self.fixed,
            bytes: self.bytes,
            values: self.values.clone(),
        }
    }

    /// What the nodes make, in order.
    pub(crate) fn made(&self) -> &[Made] {
        &self.values
    }

    /// The network of an audit, with its own input and output.
    /// # Errors
    /// See [`Explained::new`].
    pub fn of(subject: &'m Subject) -> Result<Self, ExplainError> {
        let model = subject.model();
        let Some(port) = model.inputs().first() else {
            return Err(ExplainError::not_applicable("the network has no input"));
        };
        let example = subject.in_shape(&Tensor::zeros([&[1], subject.data().feature_shape()].concat())?);
        let example = example.map_err(|e| ExplainError::not_applicable(e.to_string()))?;
        let binary = matches!(subject.head(), Head::BinaryLogit | Head::BinaryProbability);
        Self::new(model, &Choice { binary, ..Choice::default() }, &[(port.name.clone(), example)])
    }

    /// Rows of the explained value and all other inputs, from the inputs of the network: what a [`Question`] holds.
    /// # Errors
    /// An input is missing or does not fit.
    pub fn rows_of(&self, inputs: &[(String, Tensor)]) -> Result<(Tensor, Vec<(String, Tensor)>), ExplainError> {
        if self.is_input {
            let (own, others): (Vec<_>, Vec<_>) = inputs.iter().cloned().partition(|(name, _)| *name == self.input);
            return match own.into_iter().next() {
                Some((_, x)) => Ok((x, others)),
                None => {
                    Err(ExplainError::not_applicable(format!("input `{}` of the network was not given", self.input)))
                }
            };
        }
        let n = inputs.first().map_or(0, |(_, t)| t.rows());
        let step = self.rows_per_pass(false);
        let mut parts = Vec::new();
        for start in (0..n).step_by(step) {
            let rows: Vec<usize> =
                (start..start + self.fixed.unwrap_or(step.min(n - start))).map(|r| r.min(n - 1)).collect();
            let given = inputs.iter().map(|(name, t)| Ok((name.clone(), t.select_rows(&rows)?)));
            let request = Request {
                inputs: given.collect::<Result<_, ExplainError>>()?,
                outputs: vec![self.input.clone()],
                ..Request::default()
            };
            parts.push(cut(self.model.forward(&request)?.output(&self.input)?, step.min(n - start))?);
        }
        let x = if parts.is_empty() {
            Tensor::zeros([&[0], &self.row[..]].concat())?
        } else {
            Tensor::concat_rows(&parts)?
        };
        Ok((x, inputs.to_vec()))
    }

    /// The network.
    pub fn model(&self) -> &'m Model {
        self.model
    }

    /// Name of the value whose elements get attributions.
    pub fn input(&self) -> &str {
        &self.input
    }

    /// Name of the value that is explained.
    pub fn output(&self) -> &str {
        &self.output
    }

    /// The declared output that was a softmax or sigmoid of [`Explained::output`].
    pub fn undone(&self) -> Option<&str> {
        self.undone.as_deref()
    }

    /// What the output's numbers mean.
    pub fn answer(&self) -> Answer {
        self.answer
    }

    /// Shape of one row of the input.
    pub fn row_shape(&self) -> &[usize] {
        &self.row
    }

    /// Elements of one row of the input.
    pub fn row_len(&self) -> usize {
        self.row.iter().product()
    }

    /// How many targets there are.
    pub fn targets(&self) -> usize {
        match self.answer {
            Answer::Binary => 2,
            Answer::Classes | Answer::Value => self.output_row.iter().product(),
        }
    }

    /// Rows per pass, for a pass that is walked back or not.
    pub fn rows_per_pass(&self, backward: bool) -> usize {
        match (self.fixed, self.batch) {
            (Some(n), _) => n.max(1),
            (None, Some(n)) => n.max(1),
            (None, None) => (MEMORY / self.bytes[usize::from(backward)]).clamp(1, MOST_ROWS) as usize,
        }
    }

    /// The score of a target in one row of answers.
    pub fn score(&self, answers: &[f32], target: usize) -> f64 {
        match (self.answer, target) {
            (Answer::Binary, 0) => -f64::from(answers[0]),
            (Answer::Binary, _) => f64::from(answers[0]),
            _ => f64::from(answers[target]),
        }
    }

    /// The class with the largest score in one row of answers; `None` where one is not a number.
    pub fn predicted(&self, answers: &[f32]) -> Option<usize> {
        if answers.iter().any(|v| v.is_nan()) {
            return None;
        }
        match self.answer {
            Answer::Binary => Some(usize::from(answers[0] > 0.0)),
            _ => answers.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i),
        }
    }

    /// Answers for `count` rows that `fill` writes; it says which row of the question each belongs to (whose target and
    /// further inputs it has).
    /// # Shapes
    /// `[count, answers]`
    /// # Errors
    /// The network refuses the rows.
    pub fn answers(
        &self,
        q: &Question,
        count: usize,
        mut fill: impl FnMut(usize, &mut [f32]) -> usize,
    ) -> Result<Vec<f32>, ExplainError> {
        let mut all = Vec::new();
        self.portions(q, count, false, &Want::default(), &mut fill, |_, of, run| {
            let y = run.output(&self.output)?;
            let width = y.row_len();
            all.extend_from_slice(&y.as_f32().unwrap_or_default()[..of.len() * width]);
            Ok(())
        })?;
        Ok(all)
    }

    /// The score of each row's target, for `count` rows that `fill` writes; see [`Explained::answers`].
    /// # Errors
    /// The network refuses the rows.
    pub fn scores(
        &self,
        q: &Question,
        count: usize,
        mut fill: impl FnMut(usize, &mut [f32]) -> usize,
    ) -> Result<Vec<f64>, ExplainError> {
        let mut of = vec![0; count];
        let answers = self.answers(q, count, |i, row| {
            of[i] = fill(i, row);
            of[i]
        })?;
        let width = answers.len().checked_div(count).unwrap_or(1).max(1);
        Ok(answers.chunks(width).zip(&of).map(|(row, &of)| self.score(row, q.targets[of])).collect())
    }

    /// Scores of the question's own rows.
    /// # Errors
    /// The network refuses the rows.
    pub fn own_scores(&self, q: &Question) -> Result<Vec<f64>, ExplainError> {
        self.scores(q, q.len(), |i, row| {
            row.copy_from_slice(q.row(i));
            i
        })
    }

    /// Scores of each row's baseline.
    /// # Errors
    /// The network refuses the rows.
    pub fn baseline_scores(&self, q: &Question) -> Result<Vec<f64>, ExplainError> {
        self.scores(q, q.len(), |i, row| {
            row.copy_from_slice(q.baseline_row(i));
            i
        })
    }

    /// Score and gradient with respect to the input, for `count` rows that `fill` writes; `take` gets them in order.
    /// # Errors
    /// No gradient reaches the input, or the network refuses the rows.
    pub fn gradients(
        &self,
        q: &Question,
        count: usize,
        mut fill: impl FnMut(usize, &mut [f32]) -> usize,
        mut take: impl FnMut(usize, f64, &[f32]),
    ) -> Result<(), ExplainError> {
        let wanted = [self.input.clone()];
        let want = Want { gradients: &wanted, ..Want::default() };
        let width = self.row_len();
        self.portions(q, count, true, &want, &mut fill, |start, of, run| {
            let y = run.output(&self.output)?;
            let seed = self.seed(&y, of, q)?;
            let gradients = run.backward(&[(&self.output, &seed)]).map_err(|e| self.no_gradient(e))?;
            let Some(g) = gradients.get(&self.input).and_then(Tensor::as_f32) else { return Err(self.cut_off()) };
            let (scores, k) = (y.as_f32().unwrap_or_default(), y.row_len());
            for (i, &of) in of.iter().enumerate() {
                let score = self.score(&scores[i * k..(i + 1) * k], q.targets[of]);
                take(start + i, score, &g[i * width..(i + 1) * width]);
            }
            Ok(())
        })
    }

    /// What a rule other than the gradient carries from the score to the input, for the question's own rows, against the
    /// baselines where the rule compares: `take` gets number, score and what arrived. The walk starts with 1, or with the
    /// score where `relevance` is to be handed back. Answers what nodes kept for themselves.
    /// # Errors
    /// A node has no such rule, or nothing arrives.
    pub(crate) fn carried(
        &self,
        q: &Question,
        rule: &Rule,
        relevance: bool,
        mut take: impl FnMut(usize, f64, &[f32]),
    ) -> Result<Vec<(String, f64)>, ExplainError> {
        let wanted = [self.input.clone()];
        let want = Want { gradients: &wanted, rules: true, ..Want::default() };
        let width = self.row_len();
        let mut kept: Vec<(String, f64)> = Vec::new();
        let mut fill = |i: usize, row: &mut [f32]| {
            row.copy_from_slice(q.row(i));
            i
        };
        self.portions(q, q.len(), true, &want, &mut fill, |start, of, run| {
            let y = run.output(&self.output)?;
            let mut seed = self.seed(&y, of, q)?;
            let (scores, k) = (y.as_f32().unwrap_or_default(), y.row_len());
            if relevance {
                seed.as_f32_mut().unwrap_or_default().iter_mut().zip(scores).for_each(|(s, y)| *s *= y);
            }
            let reference = if rule.needs_reference() {
                let all: Vec<usize> = (0..y.rows()).map(|i| of[i.min(of.len() - 1)]).collect();
                let rows: Vec<f32> = all.iter().flat_map(|&i| q.baseline_row(i).iter().copied()).collect();
                let x = Tensor::f32([&[all.len()], &self.row[..]].concat(), rows)?;
                Some(self.model.forward(&self.request(q, x, &all, &want)?)?)
            } else {
                None
            };
            let seeds = [(self.output.as_str(), &seed)];
            let done = run.propagate(rule, reference.as_ref(), &seeds).map_err(|e| self.no_gradient(e))?;
            let Some(arrived) = done.values.get(&self.input).and_then(Tensor::as_f32) else {
                return Err(self.cut_off());
            };
            for (i, &of) in of.iter().enumerate() {
                let score = self.score(&scores[i * k..(i + 1) * k], q.targets[of]);
                take(start + i, score, &arrived[i * width..(i + 1) * width]);
            }
            for (name, amount) in done.absorbed {
                match kept.iter_mut().find(|(n, _)| *n == name) {
                    Some((_, sum)) => *sum += amount,
                    None => kept.push((name, amount)),
                }
            }
            Ok(())
        })?;
        Ok(kept)
    }

    /// Values and their gradients, for the question's own rows: `take` gets the first row of a portion, values and
    /// gradients in the order of `names`; a gradient is `None` where nothing flows.
    /// # Errors
    /// A name is unknown, or the network refuses the rows.
    pub fn probe(
        &self,
        q: &Question,
        names: &[String],
        mut take: impl FnMut(usize, &[(Tensor, Option<Tensor>)]) -> Result<(), ExplainError>,
    ) -> Result<(), ExplainError> {
        let want = Want { taps: names, gradients: names, ..Want::default() };
        let mut fill = |i: usize, row: &mut [f32]| {
            row.copy_from_slice(q.row(i));
            i
        };
        self.portions(q, q.len(), true, &want, &mut fill, |start, of, run| {
            let y = run.output(&self.output)?;
            let seed = self.seed(&y, of, q)?;
            let mut gradients = run.backward(&[(&self.output, &seed)]).map_err(|e| self.no_gradient(e))?;
            let mut found = Vec::new();
            for name in names {
                found.push((
                    cut(run.output(name)?, of.len())?,
                    gradients.take(name).map(|g| cut(g, of.len())).transpose()?,
                ));
            }
            take(start, &found)
        })
    }

    /// Named values for `count` rows that `fill` writes, each `[count, ...]`.
    /// # Errors
    /// A name is unknown, or the network refuses the rows.
    pub fn values(
        &self,
        q: &Question,
        names: &[String],
        count: usize,
        mut fill: impl FnMut(usize, &mut [f32]) -> usize,
    ) -> Result<Vec<Tensor>, ExplainError> {
        let want = Want { taps: names, ..Want::default() };
        let mut parts: Vec<Vec<Tensor>> = vec![Vec::new(); names.len()];
        self.portions(q, count, false, &want, &mut fill, |_, of, run| {
            for (name, parts) in names.iter().zip(&mut parts) {
                parts.push(cut(run.output(name)?, of.len())?);
            }
            Ok(())
        })?;
        parts.iter().map(|p| Ok(Tensor::concat_rows(p)?)).collect()
    }

    /// Runs `count` rows in portions; `see` gets the number of the first row, which row of the question each belongs to,
    /// and the finished pass. Where the file fixes the batch, the last portion is padded.
    pub(crate) fn portions(
        &self,
        q: &Question,
        count: usize,
        backward: bool,
        want: &Want<'_>,
        fill: &mut dyn FnMut(usize, &mut [f32]) -> usize,
        mut see: impl FnMut(usize, &[usize], &Run<'m>) -> Result<(), ExplainError>,
    ) -> Result<(), ExplainError> {
        let (size, width) = (self.rows_per_pass(backward), self.row_len());
        for start in (0..count).step_by(size.max(1)) {
            let rows = size.min(count - start);
            let padded = self.fixed.map_or(rows, |n| n.max(rows));
            let mut x = Tensor::zeros([&[padded], &self.row[..]].concat())?;
            let values = x.as_f32_mut().unwrap_or_default();
            let mut of = Vec::with_capacity(padded);
            for (i, row) in values.chunks_exact_mut(width.max(1)).take(rows).enumerate() {
                of.push(fill(start + i, row));
            }
            for i in rows..padded {
                values.copy_within((rows - 1) * width..rows * width, i * width);
            }
            let padding = vec![of.last().copied().unwrap_or(0); padded - rows];
            let all: Vec<usize> = of.iter().copied().chain(padding).collect();
            let run = self.model.forward(&self.request(q, x, &all, want)?)?;
            see(start, &of, &run)?;
        }
        Ok(())
    }

    fn request(&self, q: &Question, x: Tensor, of: &[usize], want: &Want<'_>) -> Result<Request, ExplainError> {
        let mut request = Request {
            taps: want.taps.to_vec(),
            outputs: vec![self.output.clone()],
            wrt: Wrt::values(want.gradients.iter().cloned()),
            rules: want.rules,
            ..Request::default()
        };
        for port in self.model.inputs() {
            if port.name == self.input {
                continue;
            }
            let Some((_, all)) = q.context.iter().find(|(name, _)| *name == port.name) else {
                let what = format!("input `{}` of the network was not given", port.name);
                return Err(ExplainError::not_applicable(what));
            };
            request.inputs.push((port.name.clone(), all.select_rows(of)?));
        }
        let whole = (self.input.clone(), x);
        if self.is_input {
            request.inputs.push(whole)
        } else {
            request.overrides.push(whole)
        }
        Ok(request)
    }

    /// What the walk back starts with: 1 at the target of each row, and 0 for rows that only pad.
    pub(crate) fn seed(&self, answers: &Tensor, of: &[usize], q: &Question) -> Result<Tensor, ExplainError> {
        let mut seed = Tensor::zeros(answers.shape().to_vec())?;
        let width = seed.row_len();
        let values = seed.as_f32_mut().unwrap_or_default();
        for (i, &of) in of.iter().enumerate() {
            match (self.answer, q.targets[of]) {
                (Answer::Binary, 0) => values[i * width] = -1.0,
                (Answer::Binary, _) => values[i * width] = 1.0,
                (_, target) => values[i * width + target] = 1.0,
            }
        }
        Ok(seed)
    }

    pub(crate) fn no_gradient(&self, e: GraphError) -> ExplainError {
        match e {
            GraphError::NoGradient { reason, .. } => self.not_differentiable(reason),
            other => other.into(),
        }
    }

    /// The error where the walk back does not arrive.
    pub(crate) fn cut_off(&self) -> ExplainError {
        self.not_differentiable("on every way between them a node is constant in steps or makes integers".to_owned())
    }

    fn not_differentiable(&self, reason: String) -> ExplainError {
        ExplainError::NotDifferentiable { output: self.output.clone(), input: self.input.clone(), reason }
    }
}

fn cut(t: Tensor, rows: usize) -> Result<Tensor, ExplainError> {
    Ok(if t.rank() > 0 && t.rows() > rows { t.slice_rows(0, rows)? } else { t })
}

/// A row of zeros of the same kind.
fn zeros(rows: usize, like: &Tensor) -> Result<Tensor, ExplainError> {
    let shape = [&[rows], like.shape().get(1..).unwrap_or_default()].concat();
    let n = shape.iter().product();
    Ok(if like.dtype().is_float() { Tensor::zeros(shape)? } else { Tensor::i64(shape, vec![0; n])? })
}

/// Shape of a row of a value that has one float row per sample.
fn float_rows(t: &Tensor, rows: usize, name: &str) -> Result<Vec<usize>, ExplainError> {
    if !t.dtype().is_float() {
        let what = format!(
            "`{name}` holds {} values; choose a value that holds floats, such as what an embedding makes",
            t.dtype()
        );
        return Err(ExplainError::not_applicable(what));
    }
    if t.rank() == 0 || t.rows() != rows {
        let what =
            format!("`{name}` has shape {:?} for {rows} rows; it must have one row per row of the input", t.shape());
        return Err(ExplainError::not_applicable(what));
    }
    Ok(t.shape()[1..].to_vec())
}

/// What goes into the softmax, log-softmax or sigmoid that makes an output, and the output's name where there is one.
///
/// Probabilities saturate: their gradients vanish where the network is sure.
fn before_softmax(model: &Model, output: String) -> (String, Option<String>) {
    let mut name = output.clone();
    loop {
        let Some(node) = model.nodes().find(|n| n.outputs.contains(&name)) else { return (output, None) };
        match (node.operator.as_str(), node.inputs.first()) {
            ("Softmax" | "LogSoftmax" | "Sigmoid", Some(input)) => return (input.clone(), Some(output)),
            ("Identity", Some(input)) => name.clone_from(input),
            _ => return (output, None),
        }
    }
}
