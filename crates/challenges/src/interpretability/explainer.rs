//! What an explanation is: a question about some rows, an answer, and the harness that checks both.

use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;

use super::{ExplainError, Explained};

/// Explains rows. One file per method; the harness is [`explain`].
pub trait Explainer: Send + Sync {
    /// Attributions of the rows, which are finite, at least one, and have targets in range.
    /// # Errors
    /// The method does not apply to this network.
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError>;
}

/// Which answer of the network is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The row's own label.
    Label,
    /// What the network says.
    Predicted,
    /// One class, or one of several numbers, for all rows.
    Class(usize),
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "label" => Ok(Self::Label),
            "predicted" => Ok(Self::Predicted),
            number => number.parse().map(Self::Class).map_err(|_| {
                format!("`{number}` is no target; use `label`, `predicted`, or the number of a class from 0")
            }),
        }
    }
}

/// Elements of a row that belong together: columns of a table with their one-hot parts, or segments of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    /// For each element of a row the feature that it belongs to.
    pub of: Vec<usize>,
    /// One per feature.
    pub names: Vec<String>,
}

/// What is asked: rows, their targets, and what they are compared with.
#[derive(Debug, Clone)]
pub struct Question {
    /// Rows of [`Explained::input`], float `[n, ...]`.
    pub x: Tensor,
    /// All other inputs of the network, `[n, ...]` each.
    pub context: Vec<(String, Tensor)>,
    /// One per row.
    pub targets: Vec<usize>,
    /// What stands for "nothing there": `[1, ...]` for all rows, or `[n, ...]`.
    pub baseline: Tensor,
    /// Typical rows, `[m, ...]`: what expected gradients, Shapley values and LIME draw from; the baseline where `None`.
    pub background: Option<Tensor>,
    /// Which elements belong together; `None`: the method chooses.
    pub features: Option<Features>,
    /// Number of each row in its source: draws depend on it and the seed alone.
    pub rows: Vec<u64>,
    /// Seed of every random draw.
    pub seed: u64,
}

impl Question {
    /// A question about rows that are explained against zeros.
    /// # Errors
    /// The rows have more elements than this machine can address.
    pub fn new(x: Tensor, targets: Vec<usize>) -> Result<Self, ExplainError> {
        let baseline = Tensor::zeros([&[1], x.shape().get(1..).unwrap_or_default()].concat())?;
        let rows = (0..x.rows() as u64).collect();
        Ok(Self { x, context: Vec::new(), targets, baseline, background: None, features: None, rows, seed: 0 })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Elements of row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        let width = self.x.row_len();
        &self.x.as_f32().unwrap_or_default()[i * width..(i + 1) * width]
    }

    /// Elements of the baseline of row `i`.
    pub fn baseline_row(&self, i: usize) -> &[f32] {
        let (width, i) = (self.baseline.row_len(), if self.baseline.rows() == 1 { 0 } else { i });
        &self.baseline.as_f32().unwrap_or_default()[i * width..(i + 1) * width]
    }

    /// The generator of row `i` for a named purpose: the same in any batch.
    pub fn rng(&self, i: usize, purpose: &str) -> Rng {
        Rng::stream(Rng::named(self.seed, purpose).next_u64(), self.rows[i])
    }

    /// The generator for draws that all rows share.
    pub fn shared_rng(&self, purpose: &str) -> Rng {
        Rng::named(self.seed, purpose)
    }

    /// Some rows of the question, in the given order.
    /// # Errors
    /// A row is outside the question.
    pub fn select(&self, rows: &[usize]) -> Result<Self, ExplainError> {
        let context = self.context.iter().map(|(name, t)| Ok((name.clone(), t.select_rows(rows)?)));
        let baseline =
            if self.baseline.rows() == 1 { self.baseline.clone() } else { self.baseline.select_rows(rows)? };
        Ok(Self {
            x: self.x.select_rows(rows)?,
            context: context.collect::<Result<_, ExplainError>>()?,
            targets: rows.iter().map(|&r| self.targets[r]).collect(),
            baseline,
            background: self.background.clone(),
            features: self.features.clone(),
            rows: rows.iter().map(|&r| self.rows[r]).collect(),
            seed: self.seed,
        })
    }

    fn check(&self, net: &Explained<'_>) -> Result<(), ExplainError> {
        let (n, row) = (self.len(), net.row_shape());
        let wanted =
            |count: &str| format!("[{count}, {}]", row.iter().map(usize::to_string).collect::<Vec<_>>().join(", "));
        let fits = |t: &Tensor| t.rank() > 0 && &t.shape()[1..] == row && t.as_f32().is_some();
        let shape = |what: &str, t: &Tensor, count: &str| ExplainError::Shape {
            what: what.to_owned(),
            shape: t.shape().to_vec(),
            wanted: wanted(count),
        };
        if !fits(&self.x) || self.x.rows() != n || self.rows.len() != n {
            return Err(shape("input", &self.x, &n.to_string()));
        }
        let finite = |t: &Tensor| t.as_f32().unwrap_or_default().iter().all(|v| v.is_finite());
        if !fits(&self.baseline) || ![1, n].contains(&self.baseline.rows()) {
            let count = if n == 1 { "1".to_owned() } else { format!("1 or {n}") };
            return Err(shape("baseline", &self.baseline, &count));
        }
        if !finite(&self.baseline) {
            return Err(ExplainError::not_applicable("the baseline holds a number that is not finite"));
        }
        if let Some(b) = &self.background {
            if !fits(b) || b.rows() == 0 {
                return Err(shape("background", b, "at least 1"));
            }
            if !finite(b) {
                return Err(ExplainError::not_applicable("the background holds a number that is not finite"));
            }
        }
        if let Some(f) = &self.features
            && (f.of.len() != net.row_len() || f.of.iter().any(|&i| i >= f.names.len()))
        {
            let what = format!("features are given for {} elements, a row has {}", f.of.len(), net.row_len());
            return Err(ExplainError::not_applicable(what));
        }
        for (name, t) in &self.context {
            if t.rank() == 0 || t.rows() != n {
                return Err(ExplainError::Shape {
                    what: format!("input `{name}`"),
                    shape: t.shape().to_vec(),
                    wanted: format!("[{n}, ...], one row per row that is explained"),
                });
            }
        }
        for (&target, &row) in self.targets.iter().zip(&self.rows) {
            if target >= net.targets() {
                let (output, count) = (net.output().to_owned(), net.targets());
                return Err(ExplainError::Target { target, row, output, count });
            }
        }
        Ok(())
    }
}

/// Attributions of some rows.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// `[n, ...]`: of the input's shape, or of the shape of `value`; NaN for rows that cannot be explained.
    pub attributions: Tensor,
    /// Whose elements the attributions belong to: the input, or a value on the way, such as the map that Grad-CAM looks at.
    pub value: String,
    /// Completeness error per row, where the method promises completeness: sum of attributions − (score − baseline's score).
    pub delta: Option<Vec<f64>>,
    /// What the attributions should sum to, per row, where the method promises it.
    pub difference: Option<Vec<f64>>,
    /// Standard errors of attributions that were sampled.
    pub standard_error: Option<Tensor>,
    /// What a reader must know: choices made automatically, rows left out.
    pub notes: Vec<String>,
    /// Further results by name, such as maps per head.
    pub arrays: Vec<(String, Tensor)>,
}

impl Explanation {
    /// Attributions of the input's shape.
    pub fn of_input(net: &Explained<'_>, rows: usize, values: Vec<f32>) -> Result<Self, ExplainError> {
        let attributions = Tensor::f32([&[rows], net.row_shape()].concat(), values)?;
        Ok(Self::of(net.input(), attributions))
    }

    /// Attributions of the elements of a named value.
    pub fn of(value: &str, attributions: Tensor) -> Self {
        Self {
            attributions,
            value: value.to_owned(),
            delta: None,
            difference: None,
            standard_error: None,
            notes: Vec::new(),
            arrays: Vec::new(),
        }
    }

    /// Sets what the attributions should sum to, and by how much they miss it.
    #[must_use]
    pub fn complete(mut self, difference: Vec<f64>) -> Self {
        let width = self.attributions.row_len().max(1);
        let sums = self.attributions.as_f32().unwrap_or_default().chunks(width);
        let sums = sums.map(|row| row.iter().map(|&v| f64::from(v)).sum::<f64>());
        self.delta = Some(sums.zip(&difference).map(|(sum, d)| sum - d).collect());
        self.difference = Some(difference);
        self
    }

    /// Says something to the reader.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// The attributions spread over the input: what has the input's shape as it is; a map `[n, h, w]` or `[n, 1, h, w]`
    /// enlarged bilinearly (pixel centres) to the input's height and width, the same for all channels and not rescaled.
    /// # Shapes
    /// `row`: shape of one row of the input → `[n, row...]`; `None` where the attributions are no map of it
    pub fn on_input(&self, row: &[usize]) -> Option<Tensor> {
        let shape = self.attributions.shape();
        if shape.get(1..) == Some(row) {
            return Some(self.attributions.clone());
        }
        let [h, w] = match shape {
            [_, h, w] | [_, 1, h, w] => [*h, *w],
            _ => return None,
        };
        let [channels, height, width] = *row else { return None };
        let mut out = Vec::with_capacity(shape[0] * channels * height * width);
        for map in self.attributions.as_f32()?.chunks((h * w).max(1)) {
            let large = enlarge(map, [h, w], [height, width]);
            (0..channels).for_each(|_| out.extend_from_slice(&large));
        }
        Tensor::f32([&[shape[0]], row].concat(), out).ok()
    }
}

/// Bilinear resampling with pixel centres aligned (half-pixel), edges repeated.
pub(crate) fn enlarge(map: &[f32], [h, w]: [usize; 2], [height, width]: [usize; 2]) -> Vec<f32> {
    let place = |i: usize, from: usize, to: usize| {
        let at = ((i as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, from as f32 - 1.0);
        let low = at.floor() as usize;
        (low, (low + 1).min(from - 1), at - low as f32)
    };
    let mut out = Vec::with_capacity(height * width);
    for y in 0..height {
        let (y0, y1, fy) = place(y, h, height);
        for x in 0..width {
            let (x0, x1, fx) = place(x, w, width);
            let at = |y: usize, x: usize| map[y * w + x];
            let top = at(y0, x0) * (1.0 - fx) + at(y0, x1) * fx;
            let bottom = at(y1, x0) * (1.0 - fx) + at(y1, x1) * fx;
            out.push(top * (1.0 - fy) + bottom * fy);
        }
    }
    out
}

/// The targets of rows, checked.
/// # Errors
/// A label is asked for where there is none, the network's answer is not a number, or a class is out of range.
pub fn targets(
    net: &Explained<'_>,
    want: Target,
    q: &Question,
    labels: Option<&[usize]>,
) -> Result<Vec<usize>, ExplainError> {
    let n = q.x.rows();
    let found = match (want, labels) {
        (Target::Class(k), _) => vec![k; n],
        // A network of one number has one target, whatever the labels are.
        (Target::Label, _) if net.targets() == 1 => vec![0; n],
        (Target::Label, Some(labels)) if labels.len() == n => labels.to_vec(),
        (Target::Label, _) => {
            return Err(ExplainError::not_applicable(
                "the data have no class labels; choose --target predicted, or the number of a class",
            ));
        }
        (Target::Predicted, _) => {
            let own = Question { targets: vec![0; n], ..q.clone() };
            let answers = net.answers(&own, n, |i, row| {
                row.copy_from_slice(own.row(i));
                i
            })?;
            let width = answers.len().checked_div(n).unwrap_or(1).max(1);
            // A row without an answer keeps a target in range: its attributions are NaN anyway.
            answers.chunks(width).map(|row| net.predicted(row).unwrap_or(0)).collect()
        }
    };
    for (i, &target) in found.iter().enumerate() {
        if target >= net.targets() {
            let row = q.rows.get(i).copied().unwrap_or(i as u64);
            let (output, count) = (net.output().to_owned(), net.targets());
            return Err(ExplainError::Target { target, row, output, count });
        }
    }
    Ok(found)
}

/// Runs a method under checks: shapes, targets, rows that are not finite (their attributions are NaN and they are not
/// handed to the method), and whether the answer fits the question.
/// # Errors
/// The question does not fit the network, or the method does not apply.
pub fn explain(method: &dyn Explainer, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
    q.check(net)?;
    let n = q.len();
    if n == 0 {
        return Explanation::of_input(net, 0, Vec::new()).map(|e| e.note("there are no rows to explain"));
    }
    let finite = |t: &Tensor, i: usize| {
        let width = t.row_len();
        t.as_f32().is_none_or(|v| v[i * width..(i + 1) * width].iter().all(|v| v.is_finite()))
    };
    let good: Vec<usize> = (0..n).filter(|&i| finite(&q.x, i) && q.context.iter().all(|(_, t)| finite(t, i))).collect();
    if good.is_empty() {
        let nothing = Explanation::of_input(net, n, vec![f32::NAN; n * net.row_len()])?;
        return Ok(nothing.note(left_out(n, n)));
    }
    let mut e = if good.len() == n { method.explain(net, q)? } else { method.explain(net, &q.select(&good)?)? };
    if e.attributions.rank() == 0 || e.attributions.rows() != good.len() {
        return Err(ExplainError::Shape {
            what: "answer of the method".to_owned(),
            shape: e.attributions.shape().to_vec(),
            wanted: format!("[{}, ...]", good.len()),
        });
    }
    if let Some(undone) = net.undone() {
        let what = format!(
            "explained is `{}`, which goes into the probabilities `{undone}`, since these saturate",
            net.output()
        );
        e.notes.push(what);
    }
    let bad = e.attributions.as_f32().unwrap_or_default().iter().filter(|v| !v.is_finite()).count();
    if bad > 0 {
        e.notes.push(format!("{bad} attributions are not finite numbers"));
    }
    if good.len() < n {
        e = spread(e, &good, n)?;
        e.notes.push(left_out(n - good.len(), n));
    }
    Ok(e)
}

fn left_out(count: usize, n: usize) -> String {
    format!("{count} of {n} rows hold a number that is not finite; their attributions are not a number")
}

/// Puts the rows of an explanation where they belong among `n`.
fn spread(mut e: Explanation, good: &[usize], n: usize) -> Result<Explanation, ExplainError> {
    let tensor = |t: &Tensor| -> Result<Tensor, ExplainError> {
        if t.rank() == 0 || t.rows() != good.len() || t.as_f32().is_none() {
            return Ok(t.clone());
        }
        let width = t.row_len();
        let mut all = vec![f32::NAN; n * width];
        for (row, &at) in t.as_f32().unwrap_or_default().chunks(width.max(1)).zip(good) {
            all[at * width..(at + 1) * width].copy_from_slice(row);
        }
        Ok(Tensor::f32([&[n], &t.shape()[1..]].concat(), all)?)
    };
    let numbers = |v: &Vec<f64>| {
        let mut all = vec![f64::NAN; n];
        good.iter().zip(v).for_each(|(&at, &x)| all[at] = x);
        all
    };
    e.attributions = tensor(&e.attributions)?;
    e.standard_error = e.standard_error.as_ref().map(tensor).transpose()?;
    e.delta = e.delta.as_ref().map(numbers);
    e.difference = e.difference.as_ref().map(numbers);
    e.arrays = e.arrays.iter().map(|(name, t)| Ok((name.clone(), tensor(t)?))).collect::<Result<_, ExplainError>>()?;
    Ok(e)
}
