//! Bounds on what a network answers, over all inputs of a region: interval bound propagation, CROWN, CROWN-IBP, α-CROWN.
//!
//! Intervals: Gowal et al. 2019, arXiv:1810.12715. CROWN: Zhang et al. 2018, arXiv:1811.00866; on general graphs Xu et al.
//! 2020, arXiv:2002.12920. CROWN-IBP: Zhang et al. 2020, arXiv:1906.06316. α-CROWN: Xu et al. 2021, arXiv:2011.13824.
//! Checked against: a dense float64 version (tests), closed forms of linear classifiers, and attacked points.
//!
//! Sound means: with [`Rounding::Outward`] the bounds hold for the network in exact arithmetic and for the float32 network
//! whose sums are taken in any order. Every sum of k terms is widened by 3 (k + 6) 2⁻²⁴ of the sum of the sizes of its terms
//! (Higham 2002, section 3.1). Winograd's convolutions, which this crate uses for many channels, are not sums of that kind:
//! there the widening exceeds what is measured (`kernels/winograd.rs`), but is no proof.
//!
//! Weak when: the network is deep and was not trained for certificates; then no method here proves much, and bounds grow
//! exponentially with depth for intervals.

mod alpha;
mod backward;
mod curve;
mod interval;
mod network;
mod region;
mod relaxation;
mod rule;
#[cfg(test)]
mod tests;

use netproof_tensor::Tensor;

use crate::error::GraphError;
use crate::model::{Model, ValueId};
use crate::real::Real;
use backward::{Known, Units};
use interval::Interval;
use network::{Frame, Network};
use relaxation::Relaxation;
use rule::Rule;

pub use alpha::Ascent;
pub(crate) use curve::Curve;
pub use region::{Norm, Region};
pub(crate) use rule::Windows;

/// How bounds are found. Each is at least as tight as intervals, since those are always worked out too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BoundMethod {
    /// Interval bound propagation; linear layers at the end are joined with the specification.
    Ibp,
    /// Linear relaxation over interval bounds of the values between.
    CrownIbp,
    /// Linear relaxation, also for the values between.
    Crown,
    /// As CROWN, with slopes chosen by gradient ascent for each row and specification.
    AlphaCrown(Ascent),
}

/// What rounding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounding {
    /// Bounds are widened by a bound on all rounding errors.
    #[default]
    Outward,
    /// Bounds are those of float32 sums as they come, for comparisons with other tools.
    Nearest,
}

/// What is bounded: linear functions of the output.
#[derive(Debug, Clone)]
pub enum Specification {
    /// Every element of the output, from both sides.
    Outputs,
    /// For row i of label y the margins `z_y − z_j` of every class j, from below; that of y itself is +∞, so that the
    /// least of a row decides. Of an output of one logit z: z for label 1, −z for label 0. A softmax, log-softmax or
    /// sigmoid at the end is left out: it keeps the order.
    Margins(Vec<usize>),
    /// Any linear functions `[n, functions, elements of the output]`, from both sides.
    Linear(Tensor),
}

/// What to bound, and how.
#[derive(Debug, Clone)]
pub struct BoundsRequest {
    /// The inputs.
    pub region: Region,
    /// What is bounded.
    pub specification: Specification,
    /// How.
    pub method: BoundMethod,
    /// The value that is the output; the first declared one where absent.
    pub output: Option<String>,
    /// What rounding means.
    pub rounding: Rounding,
    /// Bytes that coefficients and bounds may take, about; at least one row and one unit are worked on at once.
    pub memory: usize,
}

impl BoundsRequest {
    /// With outward rounding, the first output, and 256 MiB.
    pub fn new(region: Region, specification: Specification, method: BoundMethod) -> Self {
        let (output, rounding, memory) = (None, Rounding::Outward, 256 << 20);
        Self { region, specification, method, output, rounding, memory }
    }
}

/// Bounds that hold for all inputs of a region.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// Lower bounds `[n, functions]`; −∞ where the row is not defined.
    pub lower: Tensor,
    /// Upper bounds, unless the specification is one-sided.
    pub upper: Option<Tensor>,
}

impl Model {
    /// Bounds of linear functions of the output over a region of inputs.
    /// # Shapes
    /// region `[n, ...]` → bounds `[n, functions]`
    /// # Guarantees
    /// See [`Rounding`]. Rows do not influence each other beyond rounding. Memory: about [`BoundsRequest::memory`], beside
    /// what one row needs.
    /// # Errors
    /// A node has no rule (named), the region does not fit the input, or labels do not fit the output.
    /// # Source
    /// Zhang et al. 2018, arXiv:1811.00866; Gowal et al. 2019, arXiv:1810.12715
    pub fn bounds(&self, request: &BoundsRequest) -> Result<Bounds, GraphError> {
        let target = self.bounded_value(request)?;
        let network = Network::new(self, target, request.rounding == Rounding::Outward)?;
        let functions = Functions::new(&request.specification, request.region.rows(), network.sizes[target])?;
        let n = request.region.rows();
        let shape = [&[n], network.frame(1)?.shape(network.input).get(1..).unwrap_or_default()].concat();
        if request.region.low.shape() != shape {
            let message = format!("the region has shape {:?}, the input takes {shape:?}", request.region.low.shape());
            return Err(GraphError::Bounds { message });
        }
        let per_row = network.sizes.iter().sum::<usize>() * size_of::<f32>() * 8;
        let chunk = network.batch((request.memory / 2 / per_row.max(1)).clamp(1, n.max(1)));
        let (mut lower, mut upper) = (Vec::with_capacity(n * functions.count), Vec::new());
        for start in (0..n).step_by(chunk) {
            let rows: Vec<usize> = (start..(start + chunk).min(n)).collect();
            let (low, high) = Chunk::new(&network, request, &functions, &rows)?.bounds()?;
            lower.extend(low);
            upper.extend(high);
        }
        let tensor = |values: Vec<f32>| Tensor::f32(vec![n, functions.count], values);
        let upper = if functions.one_sided { None } else { Some(tensor(upper)?) };
        Ok(Bounds { lower: tensor(lower)?, upper })
    }

    /// The value that a request is about.
    fn bounded_value(&self, request: &BoundsRequest) -> Result<ValueId, GraphError> {
        let mut id = match (&request.output, self.outputs.first()) {
            (Some(name), _) => self.id(name)?,
            (None, Some(first)) => self.id(&first.name)?,
            (None, None) => return Err(GraphError::Bounds { message: "the network has no output".to_owned() }),
        };
        if let Specification::Margins(_) = request.specification {
            // These keep the order of the classes, so that margins of what is before them decide as well.
            while let Some(node) = self.nodes.iter().find(|n| n.outputs.contains(&Some(id))) {
                match (node.operator.as_str(), node.inputs.first()) {
                    ("Softmax" | "LogSoftmax" | "Sigmoid", Some(Some(before))) => id = *before,
                    _ => break,
                }
            }
        }
        Ok(id)
    }
}

/// Linear functions of the output.
struct Functions<'a> {
    specification: &'a Specification,
    count: usize,
    width: usize,
    one_sided: bool,
}

impl<'a> Functions<'a> {
    fn new(specification: &'a Specification, n: usize, width: usize) -> Result<Self, GraphError> {
        let fail = |message: String| Err(GraphError::Bounds { message });
        let count = match specification {
            Specification::Outputs => width,
            Specification::Margins(labels) => {
                if labels.len() != n {
                    return fail(format!("{n} rows, {} labels", labels.len()));
                }
                let classes = width.max(2);
                if let Some((row, label)) = labels.iter().enumerate().find(|(_, l)| **l >= classes) {
                    return fail(format!("row {row} has label {label}, the network has {classes} classes"));
                }
                width
            }
            Specification::Linear(t) => match (t.as_f32(), t.shape()) {
                (Some(_), &[rows, count, w]) if rows == n && w == width => count,
                _ => return fail(format!("functions are {:?}, must be floats [{n}, functions, {width}]", t.shape())),
            },
        };
        Ok(Self { specification, count, width, one_sided: matches!(specification, Specification::Margins(_)) })
    }

    /// Writes function `f` of row `row` times `sign`; says whether there is anything to bound.
    fn write(&self, row: usize, f: usize, sign: f32, to: &mut [f32]) {
        match self.specification {
            Specification::Outputs => to[f] = sign,
            Specification::Margins(labels) if self.width == 1 => to[0] = if labels[row] == 1 { sign } else { -sign },
            Specification::Margins(labels) => {
                to[labels[row]] = sign;
                to[f] = -sign;
            }
            Specification::Linear(t) => {
                let at = (row * self.count + f) * self.width;
                let values = t.as_f32().and_then(|v| v.get(at..at + self.width)).unwrap_or_default();
                to.iter_mut().zip(values).for_each(|(to, v)| *to = sign * v);
            }
        }
    }

    fn trivial(&self, row: usize, f: usize) -> bool {
        match self.specification {
            Specification::Margins(labels) => self.width > 1 && labels[row] == f,
            _ => false,
        }
    }
}

/// A function of a row to bound from below: the function, or its negative for the upper bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unit {
    /// Row of the chunk.
    row: u32,
    /// Function of the output, or element of a value between.
    function: u32,
    negative: bool,
}

/// Some rows at work.
struct Chunk<'a, 'm> {
    network: &'a Network<'m>,
    request: &'a BoundsRequest,
    functions: &'a Functions<'a>,
    /// Rows of the region.
    rows: &'a [usize],
    region: Region,
    frame: Frame,
    values: Vec<Option<Interval>>,
    relaxations: Vec<Option<Relaxation>>,
    /// Units at once.
    at_once: usize,
}

impl<'a, 'm> Chunk<'a, 'm> {
    fn new(
        network: &'a Network<'m>,
        request: &'a BoundsRequest,
        functions: &'a Functions<'a>,
        rows: &'a [usize],
    ) -> Result<Self, GraphError> {
        let frame = network.frame(rows.len())?;
        let mut padded = rows.to_vec();
        padded.resize(frame.rows, rows.last().copied().unwrap_or_default());
        let region = request.region.select(&padded)?;
        let widest = network.sizes.iter().copied().max().unwrap_or(1);
        let per_unit = 4 * widest * size_of::<f32>() + network.sizes[network.input] * size_of::<f32>();
        let at_once = network.batch((request.memory / 2 / per_unit.max(1)).max(1));
        let values = vec![None; network.model.names.len()];
        let relaxations = network.steps.iter().map(|_| None).collect();
        Ok(Self { network, request, functions, rows, region, frame, values, relaxations, at_once })
    }

    /// Lower and upper bounds of all functions of the rows.
    fn bounds(mut self) -> Result<(Vec<f32>, Vec<f32>), GraphError> {
        self.propagate()?;
        let mut units = Vec::new();
        for (row, &number) in self.rows.iter().enumerate() {
            for function in 0..self.functions.count {
                for negative in [false, true] {
                    let wanted = !self.functions.trivial(number, function) && !(negative && self.functions.one_sided);
                    if wanted && !self.region.undefined[row] {
                        units.push(Unit { row: row as u32, function: function as u32, negative });
                    }
                }
            }
        }
        let target = self.network.target;
        let width = self.functions.width;
        let seed = |unit: &Unit, to: &mut [f32]| {
            let sign = if unit.negative { -1.0 } else { 1.0 };
            self.functions.write(self.rows[unit.row as usize], unit.function as usize, sign, to);
        };
        let mut best = self.lowest(&units, target, width, &seed, true)?;
        if self.request.method != BoundMethod::Ibp {
            let relaxed = match self.request.method {
                BoundMethod::AlphaCrown(ascent) => self.ascend(&units, target, width, &seed, ascent)?,
                _ => self.lowest(&units, target, width, &seed, false)?,
            };
            best.iter_mut().zip(relaxed).for_each(|(b, r)| *b = if r > *b { r } else { *b });
        }
        let count = self.rows.len() * self.functions.count;
        let mut lower = vec![f32::NEG_INFINITY; count];
        let mut upper = if self.functions.one_sided { Vec::new() } else { vec![f32::INFINITY; count] };
        for (row, &number) in self.rows.iter().enumerate() {
            for f in 0..self.functions.count {
                if self.functions.trivial(number, f) && !self.region.undefined[row] {
                    lower[row * self.functions.count + f] = f32::INFINITY;
                }
            }
        }
        for (unit, value) in units.iter().zip(best) {
            let at = unit.row as usize * self.functions.count + unit.function as usize;
            // A NaN proves nothing.
            let value = if value.is_nan() { f64::NEG_INFINITY } else { value };
            if unit.negative {
                upper[at] = curve::up(-value);
            } else {
                lower[at] = curve::down(value);
            }
        }
        Ok((lower, upper))
    }

    /// Intervals and relaxations of everything between input and target.
    fn propagate(&mut self) -> Result<(), GraphError> {
        let network = self.network;
        let device = &network.model.device;
        let real = |t: &Tensor| Real::of(t, device).unwrap_or_else(|| Real::full(t.shape(), f32::NAN, device));
        self.values[network.input] = Some(Interval::new(real(&self.region.low), real(&self.region.high)));
        let tight = matches!(self.request.method, BoundMethod::Crown | BoundMethod::AlphaCrown(_));
        let relaxed = self.request.method != BoundMethod::Ibp;
        let mut refined = vec![false; network.model.names.len()];
        let mixed = self.mixed();
        for (number, step) in network.steps.iter().enumerate() {
            let node = network.node(step);
            if !step.rule.is_linear() {
                for (id, _) in node.inputs.iter().zip(&step.varies).filter(|(_, v)| **v) {
                    let Some(id) = id.filter(|&id| !std::mem::replace(&mut refined[id], true)) else { continue };
                    match mixed[id] {
                        // One linear node alone is as tight by intervals, over a box.
                        Some(nodes) if nodes > 1 || (nodes > 0 && self.region.ball.is_some()) => {
                            self.refine_affine(id)?
                        }
                        Some(_) => {}
                        None if tight => self.refine(id)?,
                        None => {}
                    }
                }
                if relaxed {
                    self.relaxations[number] = Some(network.relax(step, &self.values));
                }
            }
            let outputs = network.interval(&self.frame, step, &self.values)?;
            for (id, value) in node.outputs.iter().zip(outputs) {
                if let Some(id) = id {
                    self.values[*id] = value;
                }
            }
        }
        Ok(())
    }

    /// For each value that only linear nodes make of the input, how many of them mix elements on the way.
    fn mixed(&self) -> Vec<Option<usize>> {
        let network = self.network;
        let mut mixed = vec![None; network.model.names.len()];
        mixed[network.input] = Some(0);
        for step in network.steps.iter().filter(|s| s.rule.is_linear()) {
            let node = network.node(step);
            let before =
                node.inputs.iter().zip(&step.varies).filter(|(_, v)| **v).map(|(id, _)| id.and_then(|i| mixed[i]));
            let before: Option<Vec<usize>> = before.collect();
            let Some(before) = before else { continue };
            let joins = !matches!(node.operator.as_str(), "Concat") && before.len() > 1;
            let mixes = joins
                || matches!(step.rule, Rule::Weighted { .. } | Rule::Difference)
                || (step.rule == Rule::Positive { adds: true } && node.operator != "Add");
            let most = before.into_iter().max().unwrap_or_default() + usize::from(mixes);
            node.outputs.iter().flatten().for_each(|&id| mixed[id] = Some(most));
        }
        mixed
    }

    fn known(&self) -> Known<'_> {
        Known { values: &self.values, relaxations: &self.relaxations, ball: self.region.ball.as_ref() }
    }

    /// Lower bounds of units of a value of `width` elements per row, whose coefficients `seed` writes.
    fn lowest(
        &self,
        units: &[Unit],
        value: ValueId,
        width: usize,
        seed: &dyn Fn(&Unit, &mut [f32]),
        intervals_only: bool,
    ) -> Result<Vec<f64>, GraphError> {
        let mut all = Vec::with_capacity(units.len());
        let mut frame: Option<Frame> = None;
        for units in units.chunks(self.at_once) {
            if frame.as_ref().is_none_or(|f| f.rows != self.network.batch(units.len())) {
                frame = Some(self.network.frame(units.len())?);
            }
            let Some(frame) = &frame else { continue };
            let (rows, seeds) = seeds(units, frame, value, width, seed);
            let job = Units { rows: &rows, seed: seeds, value, intervals_only };
            let below = self.network.below(frame, &self.known(), job, None)?;
            all.extend_from_slice(&below[..units.len()]);
        }
        Ok(all)
    }

    /// Bounds of the elements of a value by CROWN, where they matter to what uses the value.
    fn refine(&mut self, id: ValueId) -> Result<(), GraphError> {
        let Some(interval) = self.values[id].clone() else { return Ok(()) };
        let (mut low, mut high) = (interval::elements(&interval.low), interval::elements(&interval.high));
        let n = self.network.sizes[id];
        let users: Vec<&Rule> = self
            .network
            .steps
            .iter()
            .filter(|s| !s.rule.is_linear() && self.network.node(s).inputs.contains(&Some(id)))
            .map(|s| &s.rule)
            .collect();
        let matters = |l: f32, u: f32| {
            l < u && users.iter().any(|r| if let Rule::Curve(c) = r { !c.is_straight(l, u) } else { true })
        };
        let mut units = Vec::new();
        for row in 0..self.rows.len() {
            for j in 0..n {
                if matters(low[row * n + j], high[row * n + j]) {
                    for negative in [false, true] {
                        units.push(Unit { row: row as u32, function: j as u32, negative });
                    }
                }
            }
        }
        let seed = |unit: &Unit, to: &mut [f32]| to[unit.function as usize] = if unit.negative { -1.0 } else { 1.0 };
        let below = self.lowest(&units, id, n, &seed, false)?;
        for (unit, value) in units.iter().zip(below) {
            let at = unit.row as usize * n + unit.function as usize;
            if unit.negative {
                high[at] = high[at].min(curve::up(-value));
            } else {
                low[at] = low[at].max(curve::down(value));
            }
        }
        self.replace(id, interval, low, high);
        Ok(())
    }

    fn replace(&mut self, id: ValueId, old: Interval, mut low: Vec<f32>, mut high: Vec<f32>) {
        // Rounding to nearest may turn an interval of one point around.
        low.iter_mut().zip(&mut high).filter(|(l, h)| l > h).for_each(|(l, h)| std::mem::swap(l, h));
        let (low, high) = (self.network.like(&old.low, low), self.network.like(&old.low, high));
        self.values[id] = Some(Interval { low, high, terms: old.terms });
    }

    /// Bounds of a value that is linear in the input: its coefficients are the same for all rows.
    fn refine_affine(&mut self, id: ValueId) -> Result<(), GraphError> {
        let Some(interval) = self.values[id].clone() else { return Ok(()) };
        let (mut low, mut high) = (interval::elements(&interval.low), interval::elements(&interval.high));
        let (n, d) = (self.network.sizes[id], self.network.sizes[self.network.input]);
        let largest: Vec<Option<Interval>> = self.values.iter().map(|v| v.as_ref().map(over_rows)).collect();
        let known = Known { values: &largest, relaxations: &[], ball: None };
        let box_of = |t: &Tensor| t.as_f32().map(<[f32]>::to_vec).unwrap_or_default();
        let (least, most) = (box_of(&self.region.low), box_of(&self.region.high));
        let rounding = self.network.rounding() * 1e-3;
        let all: Vec<Unit> = (0..n).map(|j| Unit { row: 0, function: j as u32, negative: false }).collect();
        for units in all.chunks(self.at_once) {
            let frame = self.network.frame(units.len())?;
            let seed = |unit: &Unit, to: &mut [f32]| to[unit.function as usize] = 1.0;
            let (rows, seeds) = seeds(units, &frame, id, n, &seed);
            let job = Units { rows: &rows, seed: seeds, value: id, intervals_only: false };
            let (sums, lambda) = self.network.walk(&frame, &known, job, None)?;
            let lambda = lambda.map(|l| l.to_vec()).unwrap_or_default();
            let mut found = vec![(0.0f64, 0.0f64); units.len() * self.rows.len()];
            each(&mut found, |i, found| {
                let (row, u) = (i / units.len(), i % units.len());
                let lambda = lambda.get(u * d..(u + 1) * d).unwrap_or_default();
                let negative: Vec<f32> = lambda.iter().map(|l| -l).collect();
                let (l, h) = (&least[row * d..(row + 1) * d], &most[row * d..(row + 1) * d]);
                let ball = self.region.ball.as_ref();
                let side = |lambda: &[f32]| {
                    let hull = backward::extreme(lambda, l, h);
                    ball.map_or(hull, |b| hull.max(b.least(lambda, row)))
                };
                let size: f64 = lambda
                    .iter()
                    .zip(l.iter().zip(h))
                    .map(|(c, (l, h))| f64::from(c.abs()) * f64::from(l.abs().max(h.abs())))
                    .sum();
                let off = sums[u].error + rounding * size;
                *found = (sums[u].bias + side(lambda) - off, sums[u].bias - side(&negative) + off);
            });
            for (i, (l, h)) in found.into_iter().enumerate() {
                let at = i / units.len() * n + units[i % units.len()].function as usize;
                low[at] = low[at].max(curve::down(l));
                high[at] = high[at].min(curve::up(h));
            }
        }
        self.replace(id, interval, low, high);
        Ok(())
    }
}

/// The largest terms of all rows, as one row.
fn over_rows(interval: &Interval) -> Interval {
    let shape: Vec<usize> = std::iter::once(1).chain(interval.low.shape().iter().skip(1).copied()).collect();
    let n: usize = shape.iter().product();
    let terms = interval.terms.as_ref().map(|terms| {
        let mut most = vec![0.0f32; n];
        for row in terms.to_vec().chunks(n.max(1)) {
            most.iter_mut().zip(row).for_each(|(m, v)| *m = m.max(*v));
        }
        Real::build(&shape, |y| y.copy_from_slice(&most))
    });
    Interval { low: interval.low.clone(), high: interval.high.clone(), terms }
}

/// The rows of units, and their coefficients; zeros where the frame has more rows.
fn seeds(
    units: &[Unit],
    frame: &Frame,
    value: ValueId,
    width: usize,
    seed: &dyn Fn(&Unit, &mut [f32]),
) -> (Vec<u32>, Real) {
    let mut rows: Vec<u32> = units.iter().map(|u| u.row).collect();
    rows.resize(frame.rows, 0);
    let shape = [&[frame.rows], frame.shape(value).get(1..).unwrap_or_default()].concat();
    let seeds = Real::build(&shape, |to| {
        to.fill(0.0);
        for (unit, to) in units.iter().zip(to.chunks_mut(width.max(1))) {
            seed(unit, to);
        }
    });
    (rows, seeds)
}

/// `work` on every element, on all cores where there are many.
fn each<T: Send>(items: &mut [T], work: impl Fn(usize, &mut T) + Sync + Send) {
    use rayon::prelude::*;
    const FEW: usize = 256;
    if items.len() <= FEW {
        items.iter_mut().enumerate().for_each(|(i, item)| work(i, item));
    } else {
        items.par_iter_mut().enumerate().with_min_len(FEW / 4).for_each(|(i, item)| work(i, item));
    }
}
