//! The walk back: linear functions of a value, bounded by linear functions of the input.
//!
//! CROWN, Zhang et al. 2018, arXiv:1811.00866, theorem 3.2, on graphs as Xu et al. 2020, arXiv:2002.12920, section 3.2:
//! coefficients flow from a value to the input; a linear node passes them through its transpose, which is the gradient of
//! its input; elsewhere the sign of each coefficient picks the side of the relaxation.

use rayon::prelude::*;

use super::interval::Interval;
use super::network::{Frame, Network, Step};
use super::region::Ball;
use super::relaxation::Relaxation;
use crate::error::GraphError;
use crate::model::ValueId;
use crate::real::Real;

/// Bounds and relaxations of some rows, as far as they are worked out.
pub(super) struct Known<'a> {
    pub(super) values: &'a [Option<Interval>],
    /// For each step; `None` where the interval of the output is all there is.
    pub(super) relaxations: &'a [Option<Relaxation>],
    pub(super) ball: Option<&'a Ball>,
}

/// Linear functions to bound from below, one per unit.
pub(super) struct Units<'a> {
    /// The row that each unit is about; as many as the frame has rows.
    pub(super) rows: &'a [u32],
    /// `[units, elements of the value]`.
    pub(super) seed: Real,
    pub(super) value: ValueId,
    /// Nodes that are not linear count as their intervals.
    pub(super) intervals_only: bool,
}

/// What α-CROWN chooses and remembers.
pub(super) struct Trace<'a> {
    /// For each step, chosen slopes `[units, elements]` of the free side.
    pub(super) slopes: &'a [Option<Vec<f32>>],
    /// For each step that is not linear, the coefficients that came to its output.
    pub(super) coefficients: Vec<Option<Real>>,
    /// Coefficients of the input.
    pub(super) input: Option<Real>,
    /// Whether the hull, not the ball, gave the better bound of a unit.
    pub(super) by_hull: Vec<bool>,
}

/// Sums of one unit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    pub(super) bias: f64,
    pub(super) error: f64,
}

impl Network<'_> {
    /// Lower bounds of the units over all inputs of the region.
    pub(super) fn below(
        &self,
        frame: &Frame,
        known: &Known<'_>,
        units: Units<'_>,
        mut trace: Option<&mut Trace<'_>>,
    ) -> Result<Vec<f64>, GraphError> {
        let rows = units.rows;
        let (mut sums, input) = self.walk(frame, known, units, trace.as_deref_mut())?;
        let by_hull = self.concretise(input.as_ref(), known, rows, &mut sums);
        if let Some(trace) = trace {
            trace.input = input;
            trace.by_hull = by_hull;
        }
        Ok(sums.iter().map(|s| s.bias - s.error).collect())
    }

    /// Coefficients of the input, with what is added and how far all that may be off.
    pub(super) fn walk(
        &self,
        frame: &Frame,
        known: &Known<'_>,
        units: Units<'_>,
        mut trace: Option<&mut Trace<'_>>,
    ) -> Result<(Vec<Sums>, Option<Real>), GraphError> {
        let count = units.rows.len();
        let mut sums = vec![Sums::default(); count];
        let mut flowing: Vec<Option<Real>> = vec![None; self.model.names.len()];
        flowing[units.value] = Some(units.seed);
        let rounding = self.rounding();
        for (number, step) in self.steps.iter().enumerate().rev() {
            let node = self.node(step);
            let arrived: Vec<Option<Real>> = node.outputs.iter().map(|o| o.and_then(|id| flowing[id].take())).collect();
            if arrived.iter().all(Option::is_none) {
                continue;
            }
            if step.rule.is_linear() {
                self.through_linear(step, known, units.rows, &arrived, &mut sums);
                let onward = self.transposed(frame, step, &arrived)?;
                for ((id, &varies), g) in node.inputs.iter().zip(&step.varies).zip(onward) {
                    if let (Some(id), true, Some(g)) = (id, varies, g) {
                        add(&mut flowing[*id], g);
                    }
                }
                continue;
            }
            let (Some(Some(output)), Some(Some(lambda))) = (node.outputs.first(), arrived.into_iter().next()) else {
                continue;
            };
            let relaxation = known.relaxations.get(number).and_then(Option::as_ref).filter(|_| !units.intervals_only);
            let slopes = trace.as_ref().and_then(|t| t.slopes.get(number)).and_then(Option::as_ref);
            let passed = self.through_curved(
                Arrived { step, relaxation, slopes, lambda: &lambda, rows: units.rows, rounding },
                known.values[*output].as_ref(),
                known,
                frame,
                &mut sums,
            );
            if let Some(trace) = trace.as_deref_mut() {
                trace.coefficients[number] = Some(lambda);
            }
            for (id, g) in passed {
                add(&mut flowing[id], g);
            }
        }
        Ok((sums, flowing[self.input].take()))
    }

    /// Bound on the rounding of one coefficient, relative to what it meets.
    pub(super) fn rounding(&self) -> f64 {
        if self.outward { 4.0 * f64::from(f32::EPSILON) } else { 0.0 }
    }

    /// What a linear node adds, and bounds on the rounding of its sums.
    fn through_linear(
        &self,
        step: &Step,
        known: &Known<'_>,
        rows: &[u32],
        arrived: &[Option<Real>],
        sums: &mut [Sums],
    ) {
        for (lambda, id) in arrived.iter().zip(&self.node(step).outputs) {
            let (Some(lambda), Some(id)) = (lambda, id) else { continue };
            let lambda = slice(lambda);
            let n = self.sizes[*id];
            let terms = known.values[*id].as_ref().and_then(|v| v.terms.as_ref()).filter(|_| step.gamma > 0.0);
            let terms = terms.map(slice);
            let offset = step.offset.as_deref();
            if offset.is_none() && terms.is_none() {
                continue;
            }
            for_units(sums, n, |u, s| {
                let lambda = &lambda[u * n..(u + 1) * n];
                if let Some(offset) = offset {
                    s.bias += dot(lambda, offset, |l, o| l * o);
                }
                if let Some(terms) = &terms {
                    let r = rows[u] as usize;
                    s.error += step.gamma * dot(lambda, &terms[r * n..(r + 1) * n], |l, t| l.abs() * t);
                }
            });
        }
    }

    /// Coefficients of the inputs of a node that is not linear.
    fn through_curved(
        &self,
        arrived: Arrived<'_>,
        output: Option<&Interval>,
        known: &Known<'_>,
        frame: &Frame,
        sums: &mut [Sums],
    ) -> Vec<(ValueId, Real)> {
        let Arrived { step, relaxation, slopes, lambda, rows, rounding } = arrived;
        let node = self.node(step);
        let lambda = slice(lambda);
        let n = lambda.len() / rows.len().max(1);
        let input = |i: usize| node.inputs.get(i).copied().flatten();
        let shape = |id: ValueId| [&[rows.len()], &frame.shape(id)[1..]].concat();
        let sizes = |id: ValueId| known.values[id].as_ref().map(|v| (slice(&v.low), slice(&v.high)));
        match (relaxation, input(0), input(1)) {
            (Some(Relaxation::Lines(lines)), Some(x), _) => {
                let bounds = sizes(x);
                let mut passed = vec![0.0f32; rows.len() * n];
                for_units_into(sums, &mut passed, n, |u, s, to| {
                    let r = rows[u] as usize * n;
                    let lambda = &lambda[u * n..(u + 1) * n];
                    let (ls, lt) = (&lines.lower_slope[r..r + n], &lines.lower_shift[r..r + n]);
                    let (us, ut) = (&lines.upper_slope[r..r + n], &lines.upper_shift[r..r + n]);
                    for j in 0..n {
                        let l = lambda[j];
                        to[j] = l * if l >= 0.0 { ls[j] } else { us[j] };
                    }
                    s.bias += sum(n, |j| {
                        let l = lambda[j];
                        l * if l >= 0.0 { lt[j] } else { ut[j] }
                    });
                    if let (Some(free), Some(slopes)) = (&lines.free, slopes) {
                        // Both limits are lines through the kink, so that only the slope changes.
                        let own = &slopes[u * n..(u + 1) * n];
                        let crosses = &free.crosses[r..r + n];
                        for j in 0..n {
                            if crosses[j] && (lambda[j] < 0.0) == free.upper {
                                to[j] = lambda[j] * own[j];
                            }
                        }
                    }
                    if rounding > 0.0
                        && let Some((low, high)) = &bounds
                    {
                        let (low, high) = (&low[r..r + n], &high[r..r + n]);
                        s.error += rounding * sum(n, |j| to[j].abs() * low[j].abs().max(high[j].abs()));
                        s.error += rounding * sum(n, |j| lambda[j].abs() * lt[j].abs().max(ut[j].abs()));
                    }
                });
                vec![(x, Real::new(&shape(x), passed, &self.model.device))]
            }
            (Some(Relaxation::Picks(picks)), Some(x), _) => {
                let bounds = output.map(|v| (slice(&v.low), slice(&v.high)));
                let m = self.sizes[x];
                let mut passed = vec![0.0f32; rows.len() * m];
                for_units_into(sums, &mut passed, m, |u, s, to| {
                    let row = rows[u] as usize;
                    let r = row * n;
                    for (j, &l) in lambda[u * n..(u + 1) * n].iter().enumerate() {
                        if l >= 0.0 {
                            to[picks.lower[r + j] as usize] += l;
                        } else {
                            to[picks.upper[r + j] as usize] += l * picks.slope[r + j];
                            s.bias += f64::from(l) * f64::from(picks.shift[r + j]);
                        }
                    }
                    if rounding > 0.0
                        && let Some((low, high)) = &bounds
                    {
                        let (low, high) = (&low[r..r + n], &high[r..r + n]);
                        // All terms are at most four times as large as the output, and few windows share an element.
                        let lambda = &lambda[u * n..(u + 1) * n];
                        s.error += 4.0 * rounding * sum(n, |j| lambda[j].abs() * low[j].abs().max(high[j].abs()));
                    }
                });
                vec![(x, Real::new(&shape(x), passed, &self.model.device))]
            }
            (Some(Relaxation::Planes(planes)), Some(a), Some(b)) => {
                let bounds = [sizes(a), sizes(b)];
                let mut passed = [vec![0.0f32; rows.len() * n], vec![0.0f32; rows.len() * n]];
                for (u, s) in sums.iter_mut().enumerate() {
                    let r = rows[u] as usize * n;
                    for j in 0..n {
                        let l = lambda[u * n + j];
                        let plane = &planes[usize::from(l < 0.0)];
                        passed[0][u * n + j] = l * plane.a[r + j];
                        passed[1][u * n + j] = l * plane.b[r + j];
                        s.bias += f64::from(l) * f64::from(plane.shift[r + j]);
                        for (bounds, passed) in bounds.iter().zip(&passed) {
                            if let Some((low, high)) = bounds {
                                let size = f64::from(low[r + j].abs().max(high[r + j].abs()));
                                s.error += rounding * f64::from(passed[u * n + j].abs()) * size;
                            }
                        }
                    }
                }
                let [pa, pb] = passed;
                let device = &self.model.device;
                vec![(a, Real::new(&shape(a), pa, device)), (b, Real::new(&shape(b), pb, device))]
            }
            _ => {
                if let Some(output) = output {
                    let (low, high) = (slice(&output.low), slice(&output.high));
                    for_units(sums, n, |u, s| {
                        let r = rows[u] as usize * n;
                        let (low, high) = (&low[r..r + n], &high[r..r + n]);
                        s.bias += extreme(&lambda[u * n..(u + 1) * n], low, high);
                    });
                }
                Vec::new()
            }
        }
    }

    /// The least value of the units over the inputs: over the hull and, where there is one, over the ball; the better of
    /// both counts. Says for which units that was the hull.
    fn concretise(&self, lambda: Option<&Real>, known: &Known<'_>, rows: &[u32], sums: &mut [Sums]) -> Vec<bool> {
        let rounding = self.rounding();
        let mut by_hull = vec![true; rows.len()];
        let (Some(lambda), Some(x)) = (lambda, &known.values[self.input]) else { return by_hull };
        let (lambda, low, high) = (slice(lambda), slice(&x.low), slice(&x.high));
        let n = self.sizes[self.input];
        let mut found = vec![(0.0, 0.0, true); rows.len()];
        super::each(&mut found, |u, found| {
            let r = rows[u] as usize * n;
            let lambda = &lambda[u * n..(u + 1) * n];
            let (low, high) = (&low[r..r + n], &high[r..r + n]);
            let hull = extreme(lambda, low, high);
            let size = dot(lambda, low, |l, x| l.abs() * x.abs()) + dot(lambda, high, |l, x| l.abs() * x.abs());
            let ball = known.ball.map_or(f64::NEG_INFINITY, |b| b.least(lambda, rows[u] as usize));
            // f64 sums of exact products; their rounding is far below that of one float32.
            *found = (hull.max(ball), rounding * 1e-3 * size, hull >= ball);
        });
        for ((s, found), by) in sums.iter_mut().zip(found).zip(&mut by_hull) {
            s.bias += found.0;
            s.error += found.1;
            *by = found.2;
        }
        by_hull
    }
}

/// What comes to a node that is not linear.
struct Arrived<'a> {
    step: &'a Step,
    relaxation: Option<&'a Relaxation>,
    slopes: Option<&'a Vec<f32>>,
    lambda: &'a Real,
    rows: &'a [u32],
    rounding: f64,
}

fn add(slot: &mut Option<Real>, g: Real) {
    *slot = Some(match slot.take() {
        Some(old) => old.added(&g),
        None => g,
    });
}

pub(super) fn slice(real: &Real) -> std::borrow::Cow<'_, [f32]> {
    real.slice().unwrap_or_else(|| real.to_vec().into())
}

/// Lanes of a sum, such that the compiler makes vectors of it.
const LANES: usize = 16;

/// Σ f(j) in a fixed order: float32 in blocks, float64 over blocks.
fn sum(n: usize, f: impl Fn(usize) -> f32) -> f64 {
    const BLOCK: usize = 64;
    let mut total = 0.0;
    let mut start = 0;
    while start < n {
        let end = (start + BLOCK).min(n);
        let mut lanes = [0.0f32; LANES];
        let whole = start + (end - start) / LANES * LANES;
        let mut j = start;
        while j < whole {
            for (k, lane) in lanes.iter_mut().enumerate() {
                *lane += f(j + k);
            }
            j += LANES;
        }
        total += lanes.iter().map(|&l| f64::from(l)).sum::<f64>();
        total += (whole..end).map(|j| f64::from(f(j))).sum::<f64>();
        start = end;
    }
    total
}

fn dot(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f64 {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    sum(n, |j| f(a[j], b[j]))
}

/// Σ λ⁺ low + λ⁻ high, with exact products.
pub(super) fn extreme(lambda: &[f32], low: &[f32], high: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    for (j, &l) in lambda.iter().enumerate() {
        let x = if l >= 0.0 { low[j] } else { high[j] };
        lanes[j % 8] += f64::from(l) * f64::from(x);
    }
    lanes.iter().sum()
}

/// Work below which units are not shared among threads.
const SHARED: usize = 1 << 16;

fn for_units(sums: &mut [Sums], n: usize, work: impl Fn(usize, &mut Sums) + Sync + Send) {
    if sums.len() * n < SHARED {
        sums.iter_mut().enumerate().for_each(|(u, s)| work(u, s));
    } else {
        sums.par_iter_mut().enumerate().for_each(|(u, s)| work(u, s));
    }
}

fn for_units_into(
    sums: &mut [Sums],
    to: &mut [f32],
    n: usize,
    work: impl Fn(usize, &mut Sums, &mut [f32]) + Sync + Send,
) {
    if sums.len() * n < SHARED {
        sums.iter_mut().zip(to.chunks_mut(n.max(1))).enumerate().for_each(|(u, (s, to))| work(u, s, to));
    } else {
        sums.par_iter_mut().zip(to.par_chunks_mut(n.max(1))).enumerate().for_each(|(u, (s, to))| work(u, s, to));
    }
}
