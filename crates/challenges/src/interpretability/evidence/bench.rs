//! What metrics share: rows, units that are changed together, and the answers that do not depend on the method.

use std::cell::OnceCell;

use netproof_tensor::Tensor;

use super::curves::{Curves, Mode};
use super::ranks::largest;
use crate::interpretability::{Answer, ExplainError, Explained, Explainer, Explanation, Question, explain};

/// How much is measured. The defaults keep a small audit short; papers use more.
#[derive(Debug, Clone, PartialEq)]
pub struct Protocol {
    /// Steps of deletion and insertion, at least 1; a row with fewer units takes one step per unit.
    pub points: usize,
    /// Random orders per row that deletion and insertion are compared with.
    pub orders: usize,
    /// Random subsets per row, for faithfulness correlation and infidelity.
    pub subsets: usize,
    /// Fraction of the units in a subset, above 0 and below 1. Xplique's default for μ-fidelity.
    pub subset_fraction: f64,
    /// Noisy copies per row, for sensitivity. Captum draws 10.
    pub copies: usize,
    /// Largest noise as a fraction of each element's range. Captum: 0.02.
    pub radius: f64,
    /// Independent randomisations of the weights.
    pub draws: usize,
    /// Most stages of a cascade over layers; networks with more layers randomise several at a time.
    pub stages: usize,
}

impl Default for Protocol {
    fn default() -> Self {
        Self { points: 28, orders: 5, subsets: 50, subset_fraction: 0.2, copies: 5, radius: 0.02, draws: 4, stages: 6 }
    }
}

/// Elements of a row that are changed together: a pixel with all its channels, a column with its one-hot parts, or an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Units {
    of: Vec<usize>,
    members: Vec<Vec<usize>>,
}

impl Units {
    fn new(row: &[usize], q: &Question) -> Self {
        let len: usize = row.iter().product();
        let of: Vec<usize> = match (&q.features, row) {
            (Some(f), _) if f.of.len() == len => f.of.clone(),
            (None, [_, h, w]) => (0..len).map(|i| i % (h * w)).collect(),
            _ => (0..len).collect(),
        };
        let mut members = vec![Vec::new(); of.iter().max().map_or(0, |m| m + 1)];
        of.iter().enumerate().for_each(|(i, &u)| members[u].push(i));
        Self { of, members }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn members(&self, unit: usize) -> &[usize] {
        &self.members[unit]
    }

    /// What a row of attributions says of each unit: the sum over its elements.
    pub(super) fn sums(&self, row: &[f32]) -> Vec<f64> {
        let mut sums = vec![0.0; self.len()];
        self.of.iter().zip(row).for_each(|(&u, &v)| sums[u] += f64::from(v));
        sums
    }
}

/// Rows on which methods are measured, with what does not depend on the method.
///
/// # Guarantees
/// Memory beside a pass: a few numbers per row, point and random order.
#[derive(Debug)]
pub struct Bench<'b, 'm> {
    /// The network.
    pub net: &'b Explained<'m>,
    /// The rows.
    pub question: &'b Question,
    /// How much is measured.
    pub protocol: Protocol,
    /// For each row and element whether it belongs to the object, where that is known.
    pub masks: Option<&'b [bool]>,
    pub(super) units: Units,
    /// Range of each element, that noise is a fraction of.
    pub(super) range: Vec<f32>,
    /// Whether the answers are probabilities already.
    pub(super) probabilities: bool,
    random: OnceCell<[Curves; 2]>,
    edges: OnceCell<Option<[Curves; 2]>>,
    drops: OnceCell<Vec<f64>>,
    own: OnceCell<Vec<f64>>,
}

impl<'b, 'm> Bench<'b, 'm> {
    /// Rows to measure on.
    /// # Errors
    /// A number of the protocol makes no sense, or the network refuses the rows.
    pub fn new(net: &'b Explained<'m>, question: &'b Question, protocol: Protocol) -> Result<Self, ExplainError> {
        let p = &protocol;
        for (name, n) in
            [("points", p.points), ("orders", p.orders), ("copies", p.copies), ("draws", p.draws), ("stages", p.stages)]
        {
            if n == 0 || n > 1_000_000 {
                return Err(ExplainError::option(name, n, "1 to 1000000"));
            }
        }
        if p.subsets < 3 {
            return Err(ExplainError::option("subsets", p.subsets, "at least 3"));
        }
        if !(p.subset_fraction > 0.0 && p.subset_fraction < 1.0) {
            return Err(ExplainError::option("subset_fraction", p.subset_fraction, "above 0 and below 1"));
        }
        if !(p.radius > 0.0 && p.radius.is_finite()) {
            return Err(ExplainError::option("radius", p.radius, "above 0"));
        }
        let answers = net.answers(question, question.len().min(64), |i, row| {
            row.copy_from_slice(question.row(i));
            i
        })?;
        let k = net.targets();
        let unit =
            |row: &[f32]| row.iter().all(|v| (0.0..=1.0).contains(v)) && (row.iter().sum::<f32>() - 1.0).abs() < 1e-3;
        let probabilities = net.answer() == Answer::Classes && k > 1 && answers.chunks(k).all(unit);
        Ok(Self {
            net,
            question,
            units: Units::new(net.row_shape(), question),
            range: ranges(question, net.row_shape()),
            protocol,
            masks: None,
            probabilities,
            random: OnceCell::new(),
            edges: OnceCell::new(),
            drops: OnceCell::new(),
            own: OnceCell::new(),
        })
    }

    /// With masks of the object, `[n, elements]`.
    /// # Errors
    /// There is not one for each element.
    pub fn with_masks(self, masks: &'b [bool]) -> Result<Self, ExplainError> {
        let wanted = self.question.len() * self.net.row_len();
        if masks.len() != wanted {
            let what = format!("masks are given for {} elements, the rows have {wanted}", masks.len());
            return Err(ExplainError::not_applicable(what));
        }
        Ok(Self { masks: Some(masks), ..self })
    }

    /// Runs a method on the rows.
    /// # Errors
    /// The method does not apply.
    pub fn case<'c>(&'c self, method: &'c dyn Explainer) -> Result<Case<'c, 'm>, ExplainError>
    where
        'b: 'c,
    {
        let explanation = explain(method, self.net, self.question)?;
        let map = self.on_input(&explanation)?;
        Ok(Case { bench: self, method, explanation, map, own: OnceCell::new(), noisy: OnceCell::new() })
    }

    /// Attributions of the input's shape.
    pub(super) fn on_input(&self, e: &Explanation) -> Result<Vec<f32>, ExplainError> {
        match e.on_input(self.net.row_shape()).and_then(Tensor::into_f32) {
            Some(map) => Ok(map),
            None => Err(ExplainError::not_applicable(format!(
                "the attributions {:?} of `{}` are no map of the input {:?}",
                e.attributions.shape(),
                e.value,
                self.net.row_shape()
            ))),
        }
    }

    /// Scores of the rows' targets.
    pub(super) fn scores(&self) -> Result<&[f64], ExplainError> {
        once(&self.own, || self.net.own_scores(self.question)).map(Vec::as_slice)
    }

    /// Deletion and insertion in random orders; `protocol.orders` curves per row.
    pub(super) fn random_curves(&self) -> Result<&[Curves; 2], ExplainError> {
        once(&self.random, || {
            let (n, orders) = (self.question.len(), self.protocol.orders);
            let order = |i: usize| {
                let mut rng = self.question.rng(i / orders, &format!("random-order-{}", i % orders));
                rng.permutation(self.units.len())
            };
            let of = |mode| Curves::new(self, n * orders, |i| i / orders, order, mode);
            Ok([of(Mode::Deletion)?, of(Mode::Insertion)?])
        })
    }

    /// Deletion and insertion in the order of an edge detector; `None` where rows are no images.
    pub(super) fn edge_curves(&self) -> Result<Option<&[Curves; 2]>, ExplainError> {
        let Some(shape) = self.image().filter(|_| self.question.features.is_none()) else { return Ok(None) };
        let found = once(&self.edges, || {
            let order = |i: usize| largest(&sobel(self.question.row(i), shape));
            let of = |mode| Curves::new(self, self.question.len(), |i| i, order, mode);
            Ok(Some([of(Mode::Deletion)?, of(Mode::Insertion)?]))
        })?;
        Ok(found.as_ref())
    }

    /// Channels, height and width, where rows are images that a 3×3 filter fits into.
    pub(super) fn image(&self) -> Option<[usize; 3]> {
        match *self.net.row_shape() {
            [c, h, w] if h >= 3 && w >= 3 => Some([c, h, w]),
            _ => None,
        }
    }

    /// The units of a random subset of a row.
    pub(super) fn subset(&self, row: usize, number: usize) -> Vec<usize> {
        let size = ((self.units.len() as f64 * self.protocol.subset_fraction).round() as usize)
            .clamp(1, self.units.len().saturating_sub(1).max(1));
        let mut all = self.question.rng(row, &format!("subset-{number}")).permutation(self.units.len());
        all.truncate(size);
        all
    }

    /// By how much the score falls when a random subset of the units is set to the baseline: `[rows, subsets]`.
    pub(super) fn drops(&self) -> Result<&[f64], ExplainError> {
        let drops = once(&self.drops, || {
            let (q, count) = (self.question, self.protocol.subsets);
            let scores = self.net.scores(q, q.len() * count, |i, row| {
                let of = i / count;
                row.copy_from_slice(q.row(of));
                self.set(row, q.baseline_row(of), &self.subset(of, i % count));
                of
            })?;
            let own = self.scores()?;
            Ok(scores.iter().enumerate().map(|(i, s)| own[i / count] - s).collect())
        })?;
        Ok(drops)
    }

    /// Takes the elements of some units from another row.
    pub(super) fn set(&self, row: &mut [f32], from: &[f32], units: &[usize]) {
        for &u in units {
            for &i in self.units.members(u) {
                row[i] = from[i];
            }
        }
    }
}

/// One method on the rows of a bench.
pub struct Case<'c, 'm> {
    /// The rows.
    pub bench: &'c Bench<'c, 'm>,
    /// The method.
    pub method: &'c dyn Explainer,
    /// What it answered.
    pub explanation: Explanation,
    map: Vec<f32>,
    own: OnceCell<[Curves; 2]>,
    noisy: OnceCell<Vec<f32>>,
}

impl std::fmt::Debug for Case<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("explanation", &self.explanation).finish_non_exhaustive()
    }
}

impl Case<'_, '_> {
    /// Rows.
    pub fn len(&self) -> usize {
        self.bench.question.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Attributions of a row, of the input's shape.
    pub fn map(&self, i: usize) -> &[f32] {
        let width = self.bench.net.row_len();
        &self.map[i * width..(i + 1) * width]
    }

    /// Attributions of a row by unit: pixels, columns, or elements.
    pub fn units(&self, i: usize) -> Vec<f64> {
        self.bench.units.sums(self.map(i))
    }

    /// Deletion and insertion in the order of this method, the most positive first.
    pub(super) fn curves(&self) -> Result<&[Curves; 2], ExplainError> {
        once(&self.own, || {
            let of = |mode| Curves::new(self.bench, self.len(), |i| i, |i| largest(&self.units(i)), mode);
            Ok([of(Mode::Deletion)?, of(Mode::Insertion)?])
        })
    }

    /// Maps of noisy copies of the rows: `[rows, copies, elements]`.
    pub(super) fn noisy(&self) -> Result<&[f32], ExplainError> {
        let maps = once(&self.noisy, || {
            let question = noisy_question(self.bench)?;
            self.bench.on_input(&explain(self.method, self.bench.net, &question)?)
        })?;
        Ok(maps)
    }

    /// For each row the map of its noisy copies, by unit.
    pub fn noisy_units(&self, i: usize) -> Result<Vec<Vec<f64>>, ExplainError> {
        let (width, copies) = (self.bench.net.row_len(), self.bench.protocol.copies);
        let maps = self.noisy()?;
        Ok((0..copies).map(|k| self.bench.units.sums(&maps[(i * copies + k) * width..][..width])).collect())
    }

    /// For each row the relative change of the map on its noisy copies, in the l2 norm: `[rows][copies]`; NaN where the map
    /// is 0 everywhere.
    pub(super) fn changes(&self) -> Result<Vec<Vec<f64>>, ExplainError> {
        let (width, copies) = (self.bench.net.row_len(), self.bench.protocol.copies);
        let noisy = self.noisy()?;
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        Ok((0..self.len())
            .map(|i| {
                let own = self.map(i);
                let size = norm(&mut own.iter().map(|&v| f64::from(v)));
                let change = |k: usize| {
                    let other = &noisy[(i * copies + k) * width..][..width];
                    let change = norm(&mut own.iter().zip(other).map(|(a, b)| f64::from(b - a)));
                    if size > 0.0 { change / size } else { f64::NAN }
                };
                (0..copies).map(change).collect()
            })
            .collect())
    }
}

/// Every row of a bench `protocol.copies` times, each element moved uniformly by at most `protocol.radius` of its range.
/// Methods that sample draw the same numbers for a row and its copies.
pub(super) fn noisy_question(bench: &Bench<'_, '_>) -> Result<Question, ExplainError> {
    let (q, copies) = (bench.question, bench.protocol.copies);
    let of: Vec<usize> = (0..q.len() * copies).map(|i| i / copies).collect();
    let mut noisy = q.select(&of)?;
    let width = q.x.row_len().max(1);
    let values = noisy.x.as_f32_mut().unwrap_or_default();
    for (i, row) in values.chunks_mut(width).enumerate() {
        let mut rng = q.rng(i / copies, &format!("noise-{}", i % copies));
        for (v, r) in row.iter_mut().zip(&bench.range) {
            *v += (bench.protocol.radius * (2.0 * rng.unit() - 1.0)) as f32 * r;
        }
    }
    Ok(noisy)
}

/// Largest less smallest value: of all pixels where rows are images, else of each element, over rows and background.
fn ranges(q: &Question, row: &[usize]) -> Vec<f32> {
    let width: usize = row.iter().product();
    let mut limits = vec![(f32::INFINITY, f32::NEG_INFINITY); width];
    let tensors = std::iter::once(&q.x).chain(&q.background).chain([&q.baseline]);
    for values in tensors.filter_map(Tensor::as_f32) {
        for row in values.chunks_exact(width.max(1)) {
            for (l, &v) in limits.iter_mut().zip(row).filter(|(_, v)| v.is_finite()) {
                *l = (l.0.min(v), l.1.max(v));
            }
        }
    }
    if row.len() > 1 {
        let all = limits.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |a, l| (a.0.min(l.0), a.1.max(l.1)));
        limits.fill(all);
    }
    limits.iter().map(|(low, high)| if high > low { high - low } else { 0.0 }).collect()
}

/// Strength of edges of an image's mean over channels: a map that knows nothing of any network.
/// # Source
/// Sobel and Feldman 1968; edges repeated.
pub(super) fn sobel(row: &[f32], [channels, h, w]: [usize; 3]) -> Vec<f64> {
    let at = |y: isize, x: isize| {
        let (y, x) = (y.clamp(0, h as isize - 1) as usize, x.clamp(0, w as isize - 1) as usize);
        (0..channels).map(|c| f64::from(row[(c * h + y) * w + x])).sum::<f64>() / channels as f64
    };
    let mut out = Vec::with_capacity(h * w);
    for y in 0..h as isize {
        for x in 0..w as isize {
            let side = |dx: isize| at(y - 1, x + dx) + 2.0 * at(y, x + dx) + at(y + 1, x + dx);
            let line = |dy: isize| at(y + dy, x - 1) + 2.0 * at(y + dy, x) + at(y + dy, x + 1);
            out.push((side(1) - side(-1)).hypot(line(1) - line(-1)));
        }
    }
    out
}

/// A value that is computed once, by something that may fail.
pub(super) fn once<T>(
    cell: &OnceCell<T>,
    compute: impl FnOnce() -> Result<T, ExplainError>,
) -> Result<&T, ExplainError> {
    if let Some(value) = cell.get() {
        return Ok(value);
    }
    let value = compute()?;
    Ok(cell.get_or_init(|| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_where_the_brightness_changes() {
        // Two channels, a step between columns 1 and 2.
        let image: Vec<f32> = (0..2 * 4 * 4).map(|i| if i % 4 >= 2 { 1.0 } else { 0.0 }).collect();
        let edges = sobel(&image, [2, 4, 4]);
        for (i, e) in edges.iter().enumerate() {
            assert_eq!(*e, if (1..3).contains(&(i % 4)) { 4.0 } else { 0.0 }, "{i}");
        }
    }
}
