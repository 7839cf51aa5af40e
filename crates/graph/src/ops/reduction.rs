//! Reductions over axes, positions of extremes, the k largest entries, and running sums.

use std::cmp::Ordering;

use netproof_tensor::{DType, Elements, Tensor};

use super::elementwise::{arity, bool_value, exact, int_value, ints};
use crate::attributes::Attributes;
use crate::error::{OpError, OpResult, invalid};
use crate::operator::{Args, Backward, Context, Entry, Fact, Operator, Value, axes, axis, one};
use crate::real::Real;
use crate::rows::RowsOf;

pub(super) const ENTRIES: &[Entry] = &[
    Entry { name: "ArgMax", build: |a| arg(a, Ordering::Greater) },
    Entry { name: "ArgMin", build: |a| arg(a, Ordering::Less) },
    Entry {
        name: "CumSum",
        build: |a| {
            let (exclusive, reverse) = (a.flag("exclusive", false)?, a.flag("reverse", false)?);
            Ok(Box::new(CumSum { exclusive, reverse }))
        },
    },
    Entry { name: "ReduceL1", build: |a| reduce(a, Kind::L1) },
    Entry { name: "ReduceL2", build: |a| reduce(a, Kind::L2) },
    Entry { name: "ReduceLogSum", build: |a| reduce(a, Kind::LogSum) },
    Entry { name: "ReduceLogSumExp", build: |a| reduce(a, Kind::LogSumExp) },
    Entry { name: "ReduceMax", build: |a| reduce(a, Kind::Max) },
    Entry { name: "ReduceMean", build: |a| reduce(a, Kind::Mean) },
    Entry { name: "ReduceMin", build: |a| reduce(a, Kind::Min) },
    Entry { name: "ReduceProd", build: |a| reduce(a, Kind::Prod) },
    Entry { name: "ReduceSum", build: |a| reduce(a, Kind::Sum) },
    Entry { name: "ReduceSumSquare", build: |a| reduce(a, Kind::SumSquare) },
    Entry { name: "TopK", build: top_k },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    L1,
    L2,
    LogSum,
    LogSumExp,
    Max,
    Mean,
    Min,
    Prod,
    Sum,
    SumSquare,
}

impl Kind {
    /// The result over no elements at all.
    fn empty(self) -> f32 {
        match self {
            Self::L1 | Self::L2 | Self::Sum | Self::SumSquare => 0.0,
            Self::LogSum | Self::LogSumExp | Self::Max => f32::NEG_INFINITY,
            Self::Mean => f32::NAN,
            Self::Min => f32::INFINITY,
            Self::Prod => 1.0,
        }
    }
}

/// A reduction over some axes.
///
/// The gradient of the largest and smallest is shared equally among ties; that of the l2 norm at 0 is 0.
struct Reduce {
    kind: Kind,
    /// Axes from the attribute, or `None` where they are an input or absent.
    axes: Option<Vec<i64>>,
    input: bool,
    keep_dims: bool,
    /// No axes means no reduction, instead of all axes.
    noop: bool,
    bools: bool,
}

fn reduce(a: &Attributes<'_>, kind: Kind) -> OpResult<Box<dyn Operator>> {
    let input = a.opset >= if kind == Kind::Sum { 13 } else { 18 };
    Ok(Box::new(Reduce {
        kind,
        axes: if input { None } else { a.ints("axes")? },
        input,
        keep_dims: a.flag("keepdims", true)?,
        noop: input && a.flag("noop_with_empty_axes", false)?,
        bools: a.opset >= 20 && matches!(kind, Kind::Max | Kind::Min),
    }))
}

impl Reduce {
    /// The axes to reduce, or `None` where nothing is to be done at all.
    fn resolve(&self, given: Option<Vec<i64>>, rank: usize) -> OpResult<Option<Vec<usize>>> {
        match given.or_else(|| self.axes.clone()) {
            Some(list) if !list.is_empty() => axes(&list, rank).map(Some),
            _ if self.noop => Ok(None),
            _ => Ok(Some((0..rank).collect())),
        }
    }

    fn axes_of(&self, inputs: Args<'_, Value>) -> OpResult<Option<Vec<usize>>> {
        let given = inputs.get(1).map(|_| inputs.ints(1)).transpose()?;
        self.resolve(given, inputs.need(0)?.shape().len())
    }
}

fn kept(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    shape.iter().enumerate().map(|(i, &d)| if axes.contains(&i) { 1 } else { d }).collect()
}

impl Operator for Reduce {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        arity(inputs, 1, if self.input { 2 } else { 1 })?;
        let x = inputs.need(0)?;
        if !(x.dtype.is_float() || x.dtype.is_int() || (x.dtype == DType::Bool && self.bools)) {
            invalid!("does not take {}", x.dtype);
        }
        let given = inputs.get(1).map(|_| inputs.ints(1)).transpose()?;
        let Some(axes) = self.resolve(given, x.rank())? else {
            return Ok(vec![Fact::new(x.dtype, x.shape.clone())]);
        };
        if x.dtype.is_int() && self.kind == Kind::Mean && axes.iter().any(|&a| x.shape[a] == 0) {
            invalid!("the mean of no integers has no value; shape {:?}, axes {axes:?}", x.shape);
        }
        let shape = if self.keep_dims {
            kept(&x.shape, &axes)
        } else {
            (0..x.rank()).filter(|i| !axes.contains(i)).map(|i| x.shape[i]).collect()
        };
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let value = inputs.need(0)?;
        let fact = &outputs[0];
        let Some(axes) = self.axes_of(inputs)? else {
            return Ok(vec![if fact.dtype.is_float() { Value::Real(value.real(cx)?) } else { value.clone() }]);
        };
        if !fact.dtype.is_float() {
            return Ok(vec![on_host(self.kind, &value.to_host(), &axes, fact)?]);
        }
        let x = value.real(cx)?;
        if x.count() == 0 {
            return one(Real::full(&fact.shape, self.kind.empty(), &cx.device));
        }
        one(on_device(self.kind, &x, &axes).reshape(&fact.shape))
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let x = call.inputs.real(0, call.cx)?;
        let mut gradients = vec![None; call.inputs.len()];
        let dx = match self.axes_of(call.inputs)? {
            None => call.gradient().clone(),
            Some(_) if x.count() == 0 => return Ok(Some(gradients)),
            // Products with zeros in them are the tape's work.
            Some(_) if self.kind == Kind::Prod => return Ok(None),
            Some(axes) => gradient(self.kind, &x, &axes, &call.gradient().reshape(&kept(x.shape(), &axes))),
        };
        if let Some(first) = gradients.first_mut() {
            *first = Some(dx);
        }
        Ok(Some(gradients))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        let rows = call.only(0)?;
        let given = call.inputs.get(1).map(|_| call.inputs.ints(1)).transpose().ok()?;
        let Some(axes) = self.resolve(given, call.inputs.get(0)?.rank()).ok()? else { return Some(rows) };
        let before = if self.keep_dims { 0 } else { axes.iter().filter(|&&a| a < rows).count() };
        (!axes.contains(&rows)).then_some(rows - before)
    }
}

/// What is subtracted before exponentials: the largest entry, kept finite so that no inf − inf arises.
fn shift(x: &Real, axes: &[usize]) -> Real {
    x.max(axes).clamp(Some(f32::MIN), Some(f32::MAX))
}

fn on_device(kind: Kind, x: &Real, axes: &[usize]) -> Real {
    match kind {
        Kind::L1 => x.abs().sum(axes),
        Kind::L2 => x.mul(x).sum(axes).sqrt(),
        Kind::LogSum => x.sum(axes).log(),
        Kind::LogSumExp => {
            let m = shift(x, axes);
            x.sub(&m).exp().sum(axes).log().add(&m)
        }
        Kind::Max => largest(x, axes),
        Kind::Mean => x.mean(axes),
        Kind::Min => largest(&x.neg(), axes).neg(),
        Kind::Prod => axes.iter().fold(x.clone(), |x, &a| x.prod(a)),
        Kind::Sum => x.sum(axes),
        Kind::SumSquare => x.mul(x).sum(axes),
    }
}

/// The largest entry, NaN where there is one.
fn largest(x: &Real, axes: &[usize]) -> Real {
    let nan = x.is_nan().to_real().sum(axes);
    nan.greater(&nan.same(0.0)).pick(&x.same(f32::NAN), &x.max(axes))
}

/// Gradient of the input, given that of the output with the reduced axes kept.
fn gradient(kind: Kind, x: &Real, axes: &[usize], g: &Real) -> Real {
    let shape = x.shape();
    match kind {
        Kind::L1 => x.sign().mul(g),
        Kind::L2 => {
            let y = on_device(kind, x, axes);
            let ratio = x.mul(&g.div(&y));
            y.equal(&y.same(0.0)).drop(&ratio)
        }
        Kind::LogSum => g.div(&x.sum(axes)).expand(shape),
        Kind::LogSumExp => {
            let y = on_device(kind, x, axes).clamp(Some(f32::MIN), Some(f32::MAX));
            x.sub(&y).clamp(None, Some(0.0)).exp().mul(g)
        }
        Kind::Max | Kind::Min => {
            let y = on_device(kind, x, axes);
            let (equal, nan) = (x.equal(&y).to_real(), x.is_nan().to_real());
            let ties = equal.add(&nan);
            ties.div(&ties.sum(axes)).mul(g)
        }
        Kind::Mean => {
            let n: usize = axes.iter().map(|&a| shape[a]).product();
            g.mul_scalar(1.0 / n as f32).expand(shape)
        }
        Kind::Sum | Kind::Prod => g.expand(shape),
        Kind::SumSquare => x.mul(g).mul_scalar(2.0),
    }
}

/// For each element of `shape`, row-major, the number of the output that it goes to.
fn groups(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; shape.len()];
    let mut step = 1;
    for i in (0..shape.len()).rev().filter(|i| !axes.contains(i)) {
        strides[i] = step;
        step *= shape[i];
    }
    let mut out = vec![0];
    for (&d, &s) in shape.iter().zip(&strides) {
        out = out.iter().flat_map(|&o| (0..d).map(move |i| o + i * s)).collect();
    }
    out
}

/// Integers and truth values, exactly: sums and products wrap, means and roots are cut toward zero.
fn on_host(kind: Kind, x: &Tensor, axes: &[usize], fact: &Fact) -> OpResult<Value> {
    let (groups, dtype, count) = (groups(x.shape(), axes), fact.dtype, fact.count());
    if let Elements::Bool(v) = x.elements() {
        let max = kind == Kind::Max;
        let mut out = vec![!max; count];
        groups.iter().zip(v).for_each(|(&o, &v)| out[o] = if max { out[o] || v } else { out[o] && v });
        return bool_value(fact, out);
    }
    let v = ints(x)?;
    let Some((low, high)) = dtype.int_range() else { invalid!("does not take {dtype}") };
    let entries = || groups.iter().copied().zip(v.iter().map(|&v| exact(dtype, v)));
    let values = match kind {
        Kind::Max | Kind::Min => {
            let max = kind == Kind::Max;
            let mut out = vec![if max { low } else { high }; count];
            entries().for_each(|(o, v)| out[o] = if max { out[o].max(v) } else { out[o].min(v) });
            out.into_iter().map(|v| v as i64).collect()
        }
        Kind::Sum | Kind::Prod | Kind::L1 | Kind::SumSquare => {
            let mut out = vec![i64::from(kind == Kind::Prod); count];
            for (o, v) in entries() {
                out[o] = match kind {
                    Kind::Prod => out[o].wrapping_mul(v as i64),
                    Kind::L1 => out[o].wrapping_add(v.abs() as i64),
                    Kind::SumSquare => out[o].wrapping_add((v as i64).wrapping_mul(v as i64)),
                    _ => out[o].wrapping_add(v as i64),
                };
            }
            out
        }
        Kind::Mean => {
            let mut sums = vec![0i128; count];
            entries().for_each(|(o, v)| sums[o] += v);
            let n = (v.len() / count.max(1)).max(1) as i128;
            sums.into_iter().map(|s| (s / n) as i64).collect()
        }
        Kind::L2 | Kind::LogSum | Kind::LogSumExp => {
            let mut sums = vec![0f64; count];
            let mut largest = vec![f64::NEG_INFINITY; count];
            entries().for_each(|(o, v)| largest[o] = largest[o].max(v as f64));
            for (o, v) in entries() {
                let v = v as f64;
                sums[o] += match kind {
                    Kind::L2 => v * v,
                    Kind::LogSum => v,
                    _ => (v - largest[o]).exp(),
                };
            }
            let finish = |(sum, largest): (f64, f64)| match kind {
                Kind::L2 => sum.sqrt(),
                Kind::LogSum => sum.ln(),
                // Nothing at all: the logarithm of 0.
                _ if sum == 0.0 => f64::NEG_INFINITY,
                _ => sum.ln() + largest,
            };
            let held = |v: f64| (v as i128).clamp(low, high) as i64;
            sums.into_iter().zip(largest).map(finish).map(held).collect()
        }
    };
    int_value(fact, values)
}

// Positions of extremes.

struct Arg {
    wanted: Ordering,
    axis: i64,
    keep_dims: bool,
    last: bool,
}

fn arg(a: &Attributes<'_>, wanted: Ordering) -> OpResult<Box<dyn Operator>> {
    let (axis, keep_dims) = (a.int("axis", 0)?, a.flag("keepdims", true)?);
    let last = a.opset >= 12 && a.flag("select_last_index", false)?;
    Ok(Box::new(Arg { wanted, axis, keep_dims, last }))
}

/// Positions of the elements of each line along an axis: for line `l` and step `i`, `start(l) + i * inner`.
struct Lines {
    length: usize,
    inner: usize,
}

impl Lines {
    fn new(shape: &[usize], axis: usize) -> Self {
        Self { length: shape[axis], inner: shape[axis + 1..].iter().product() }
    }

    fn starts(&self, count: usize) -> impl Iterator<Item = usize> {
        let (block, inner) = (self.length * self.inner, self.inner);
        let blocks = count.checked_div(block).unwrap_or(0);
        (0..blocks).flat_map(move |b| (0..inner).map(move |i| b * block + i))
    }
}

/// Order of two elements; NaN counts as larger than every number, as in numpy.
fn order(x: &Tensor) -> OpResult<impl Fn(usize, usize) -> Ordering + '_> {
    let number = x.as_f32().is_some() || x.as_i64().is_some();
    if !number {
        invalid!("does not take {}", x.dtype());
    }
    Ok(move |a: usize, b: usize| match x.elements() {
        Elements::Float(v) => v[a].partial_cmp(&v[b]).unwrap_or_else(|| v[a].is_nan().cmp(&v[b].is_nan())),
        Elements::Int(v) => exact(x.dtype(), v[a]).cmp(&exact(x.dtype(), v[b])),
        _ => Ordering::Equal,
    })
}

impl Operator for Arg {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        arity(inputs, 1, 1)?;
        let x = inputs.need(0)?;
        if !x.dtype.is_float() && !x.dtype.is_int() {
            invalid!("does not take {}", x.dtype);
        }
        let axis = axis(self.axis, x.rank())?;
        if x.shape[axis] == 0 {
            invalid!("axis {axis} of {:?} has no elements", x.shape);
        }
        let mut shape = x.shape.clone();
        if self.keep_dims {
            shape[axis] = 1;
        } else {
            shape.remove(axis);
        }
        Ok(vec![Fact::new(DType::I64, shape)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], _cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.need(0)?.to_host();
        let lines = Lines::new(x.shape(), axis(self.axis, x.rank())?);
        let order = order(&x)?;
        // As in numpy, NaN wins both ways.
        let nan = |i: usize| x.as_f32().is_some_and(|v| v[i].is_nan());
        let find = |start: usize| {
            let mut best = 0;
            for i in 1..lines.length {
                let (new, old) = (start + i * lines.inner, start + best * lines.inner);
                let found = match (nan(new), nan(old)) {
                    (true, true) => Ordering::Equal,
                    (true, false) => self.wanted,
                    (false, true) => self.wanted.reverse(),
                    (false, false) => order(new, old),
                };
                if found == self.wanted || (self.last && found == Ordering::Equal) {
                    best = i;
                }
            }
            best as i64
        };
        Ok(vec![int_value(&outputs[0], lines.starts(x.len()).map(find).collect())?])
    }
}

// The k largest.

/// The k largest or smallest entries along an axis, sorted; ties: the lower position first. The gradient flows to the
/// entries that were chosen.
struct TopK {
    /// From the attribute, before opset 10.
    k: Option<i64>,
    axis: i64,
    largest: bool,
}

fn top_k(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
    let k = if a.opset >= 10 {
        None
    } else {
        match a.optional_int("k")? {
            Some(k) => Some(k),
            None => invalid!("attribute `k` is missing"),
        }
    };
    let largest = a.opset < 11 || a.flag("largest", true)?;
    if a.opset >= 11 {
        // Unsorted allows any order, so also the sorted one.
        a.flag("sorted", true)?;
    }
    Ok(Box::new(TopK { k, axis: a.int("axis", -1)?, largest }))
}

impl Operator for TopK {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let x = inputs.need(0)?;
        if !x.dtype.is_float() && !x.dtype.is_int() {
            invalid!("does not take {}", x.dtype);
        }
        let axis = axis(self.axis, x.rank())?;
        let k = match self.k {
            Some(k) => {
                arity(inputs, 1, 1)?;
                k
            }
            None => {
                arity(inputs, 2, 2)?;
                match inputs.ints(1)?.as_slice() {
                    &[k] => k,
                    other => invalid!("k must be one integer, got {} of them", other.len()),
                }
            }
        };
        if k < 0 || k as u64 > x.shape[axis] as u64 {
            invalid!("k = {k} is outside 0..={} (axis {axis} of {:?})", x.shape[axis], x.shape);
        }
        let mut shape = x.shape.clone();
        shape[axis] = k as usize;
        Ok(vec![Fact::new(x.dtype, shape.clone()), Fact::new(DType::I64, shape)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let value = inputs.need(0)?;
        let fact = &outputs[0];
        let x = value.to_host();
        let axis = axis(self.axis, x.rank())?;
        let (lines, k) = (Lines::new(x.shape(), axis), fact.shape[axis]);
        let order = order(&x)?;
        let mut flat = vec![0; fact.count()];
        let mut numbers = vec![0i64; fact.count()];
        for (line, start) in lines.starts(x.len()).enumerate() {
            let mut all: Vec<usize> = (0..lines.length).collect();
            // The sort is stable, so ties keep their order.
            all.sort_by(|&a, &b| {
                let found = order(start + a * lines.inner, start + b * lines.inner);
                if self.largest { found.reverse() } else { found }
            });
            let (block, inner) = (line / lines.inner, line % lines.inner);
            for (i, &chosen) in all.iter().take(k).enumerate() {
                let out = (block * k + i) * lines.inner + inner;
                flat[out] = start + chosen * lines.inner;
                numbers[out] = chosen as i64;
            }
        }
        let values = match x.as_i64() {
            Some(v) => int_value(fact, flat.iter().map(|&i| v[i]).collect())?,
            None => Value::Real(value.real(cx)?.reshape(&[x.len()]).select(0, &flat).reshape(&fact.shape)),
        };
        let index = Fact::new(DType::I64, fact.shape.clone());
        Ok(vec![values, int_value(&index, numbers)?])
    }
}

// Running sums.

struct CumSum {
    exclusive: bool,
    reverse: bool,
}

impl CumSum {
    fn axis(&self, list: &[i64], rank: usize) -> OpResult<usize> {
        match list {
            &[a] => axis(a, rank),
            _ => invalid!("the axis must be one integer, got {} of them", list.len()),
        }
    }
}

impl Operator for CumSum {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        arity(inputs, 2, 2)?;
        let (x, which) = (inputs.need(0)?, inputs.need(1)?);
        if (!x.dtype.is_float() && !x.dtype.is_int()) || !which.dtype.is_int() {
            invalid!("does not take {} with an axis of {}", x.dtype, which.dtype);
        }
        match inputs.ints(1) {
            // The shape does not depend on the axis, so it may come later.
            Err(OpError::Deferred) => {}
            list => drop(self.axis(&list?, x.rank())?),
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let fact = &outputs[0];
        let axis = self.axis(&inputs.ints(1)?, fact.rank())?;
        let n = fact.shape[axis];
        if fact.dtype.is_float() {
            let backwards: Vec<usize> = (0..n).rev().collect();
            let turn = |x: Real| if self.reverse { x.select(axis, &backwards) } else { x };
            let mut x = turn(inputs.real(0, cx)?);
            if self.exclusive {
                let mut first = fact.shape.clone();
                first[axis] = 1;
                let zeros = Real::full(&first, 0.0, &cx.device);
                x = if n == 1 { zeros } else { Real::concat(&[zeros, x.narrow(axis, 0, n - 1)], axis) };
            }
            return one(turn(x.cumsum(axis)));
        }
        let x = inputs.need(0)?.to_host();
        let v = ints(&x)?;
        let lines = Lines::new(x.shape(), axis);
        let mut out = vec![0i64; v.len()];
        for start in lines.starts(v.len()) {
            let mut sum = 0i64;
            for step in 0..n {
                let at = start + if self.reverse { n - 1 - step } else { step } * lines.inner;
                let next = sum.wrapping_add(v[at]);
                out[at] = if self.exclusive { sum } else { next };
                sum = next;
            }
        }
        Ok(vec![int_value(fact, out)?])
    }

    /// Each entry adds to all sums after it, so its gradient is the running sum of theirs the other way.
    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let other = Self { exclusive: self.exclusive, reverse: !self.reverse };
        let g = [Some(Value::Real(call.gradient().clone())), call.inputs.get(1).cloned()];
        let dx = other.eval(Args(&g), call.facts, call.cx)?;
        let dx = dx.first().map(|v| v.real(call.cx)).transpose()?;
        Ok(Some(vec![dx, None]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::{Attr, run, run_outputs};
    use crate::real::RealDevice;

    fn real(shape: &[usize], v: &[f32]) -> Real {
        Real::new(shape, v.to_vec(), &RealDevice::cpu())
    }

    #[test]
    fn the_logarithm_of_sums_neither_overflows_nor_turns_nan() {
        const INF: f32 = f32::INFINITY;
        let x = real(&[4, 2], &[1000.0, 1000.0, -INF, -INF, -INF, 2.0, INF, 1.0]);
        let y = on_device(Kind::LogSumExp, &x, &[1]).to_vec();
        assert!((y[0] - 1000.0 - 2f32.ln()).abs() < 1e-3);
        assert_eq!(y[1..], [-INF, 2.0, INF]);
        let g = gradient(Kind::LogSumExp, &x, &[1], &real(&[4, 1], &[1.0; 4])).to_vec();
        assert!((g[0] - 0.5).abs() < 1e-3 && (g[1] - 0.5).abs() < 1e-3);
        assert_eq!(g[2..], [0.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn nan_wins_and_ties_share_the_gradient() {
        let mut long = vec![1.0; 100];
        long[63] = f32::NAN;
        for kind in [Kind::Max, Kind::Min] {
            assert!(on_device(kind, &real(&[1, 100], &long), &[1]).to_vec()[0].is_nan());
            let x = real(&[1, 4], &[2.0, 2.0, 2.0, 2.0]);
            assert_eq!(gradient(kind, &x, &[1], &real(&[1, 1], &[1.0])).to_vec(), [0.25; 4]);
        }
    }

    #[test]
    fn host_reductions_match_a_naive_sum() {
        let x = Tensor::i64(vec![2, 3, 2], (0..12).collect()).unwrap();
        let sum = |axes: &[usize], shape: Vec<usize>| {
            on_host(Kind::Sum, &x, axes, &Fact::new(DType::I64, shape)).unwrap().to_host().as_i64().unwrap().to_vec()
        };
        assert_eq!(sum(&[1], vec![2, 2]), [6, 9, 24, 27]);
        assert_eq!(sum(&[0, 2], vec![3]), [14, 22, 30]);
        let bytes = Tensor::new(DType::U8, vec![2], Elements::Int(vec![200, 100])).unwrap();
        let wrapped = on_host(Kind::Sum, &bytes, &[0], &Fact::new(DType::U8, vec![])).unwrap().to_host();
        assert_eq!(wrapped.as_i64().unwrap(), [44]);
    }

    #[test]
    fn a_running_sum_turns_and_shifts() {
        let cx = Context { device: RealDevice::cpu(), training: false, seed: 0 };
        let x =
            [Some(Value::Real(real(&[3], &[1.0, 2.0, 4.0]))), Some(Value::host(Tensor::i64(vec![], vec![0]).unwrap()))];
        let facts = [Fact::new(DType::F32, vec![3])];
        for (exclusive, reverse, want) in [
            (false, false, [1.0, 3.0, 7.0]),
            (true, false, [0.0, 1.0, 3.0]),
            (false, true, [7.0, 6.0, 4.0]),
            (true, true, [6.0, 4.0, 0.0]),
        ] {
            let y = CumSum { exclusive, reverse }.eval(Args(&x), &facts, &cx).unwrap();
            assert_eq!(y[0].to_host().as_f32().unwrap(), want);
        }
    }

    #[test]
    fn nothing_reduces_to_the_neutral_element() {
        let x = || Some(Tensor::zeros(vec![2, 0, 3]).unwrap());
        for (operator, want) in [
            ("ReduceSum", 0.0),
            ("ReduceProd", 1.0),
            ("ReduceMax", f32::NEG_INFINITY),
            ("ReduceMin", f32::INFINITY),
            ("ReduceLogSum", f32::NEG_INFINITY),
            ("ReduceL2", 0.0),
        ] {
            let y = run(operator, 11, &[("axes", Attr::Ints(vec![1]))], &[x()]).unwrap();
            assert_eq!((y[0].shape(), y[0].as_f32().unwrap()), (&[2, 1, 3][..], &[want; 6][..]), "{operator}");
        }
        let bytes = Some(Tensor::new(DType::I8, vec![0], Elements::Int(vec![])).unwrap());
        assert_eq!(run("ReduceMax", 18, &[], std::slice::from_ref(&bytes)).unwrap()[0].as_i64().unwrap(), [-128]);
        assert!(run("ReduceMean", 18, &[], std::slice::from_ref(&bytes)).is_err());
        assert!(run("ArgMax", 13, &[], &[bytes]).is_err());
    }

    #[test]
    fn axes_come_from_where_the_opset_says() {
        let x = || Some(Tensor::f32(vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap());
        let axes = || Some(Tensor::i64(vec![1], vec![-1]).unwrap());
        let none = || Some(Tensor::i64(vec![0], vec![]).unwrap());
        let values = |y: Result<Vec<Tensor>, String>| y.map(|y| y[0].as_f32().unwrap().to_vec());
        assert_eq!(values(run("ReduceSum", 13, &[], &[x(), axes()])), Ok(vec![3.0, 7.0]));
        assert_eq!(values(run("ReduceMean", 18, &[], &[x(), axes()])), Ok(vec![1.5, 3.5]));
        assert!(run("ReduceMean", 13, &[], &[x(), axes()]).is_err());
        assert!(run("ReduceSum", 13, &[("axes", Attr::Ints(vec![0]))], &[x()]).is_err());
        assert_eq!(values(run("ReduceSum", 13, &[], &[x(), none()])), Ok(vec![10.0]));
        let noop = [("noop_with_empty_axes", Attr::Int(1))];
        assert_eq!(values(run("ReduceSum", 13, &noop, &[x(), none()])), Ok(vec![1.0, 2.0, 3.0, 4.0]));
        let twice = [("axes", Attr::Ints(vec![1, -1]))];
        assert!(run("ReduceMean", 13, &twice, &[x()]).unwrap_err().contains("twice"));
    }

    #[test]
    fn extremes_are_found_where_they_are_first_or_last() {
        let x = |v: &[f32]| Some(Tensor::f32(vec![v.len()], v.to_vec()).unwrap());
        let find = |operator, last, v: &[f32]| {
            let attributes = [("select_last_index", Attr::Int(last))];
            run(operator, 13, &attributes, &[x(v)]).unwrap()[0].as_i64().unwrap()[0]
        };
        assert_eq!(find("ArgMax", 0, &[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(find("ArgMax", 1, &[1.0, 3.0, 3.0, 2.0]), 2);
        assert_eq!(find("ArgMin", 1, &[1.0, 3.0, 1.0, 2.0]), 2);
        for operator in ["ArgMax", "ArgMin"] {
            assert_eq!(find(operator, 0, &[1.0, f32::NAN, f32::NAN, 9.0]), 1);
        }
    }

    #[test]
    fn the_k_largest_keep_the_order_of_ties_and_bear_nan() {
        let top = |largest, k, v: &[f32]| {
            let x = Some(Tensor::f32(vec![v.len()], v.to_vec()).unwrap());
            let k = Some(Tensor::i64(vec![1], vec![k]).unwrap());
            let y = run_outputs("TopK", 11, 2, &[("largest", Attr::Int(largest))], &[x, k])?;
            Ok::<_, String>(y[1].as_i64().unwrap().to_vec())
        };
        assert_eq!(top(1, 3, &[1.0, 2.0, 2.0, 0.0]), Ok(vec![1, 2, 0]));
        assert_eq!(top(0, 3, &[1.0, 0.0, 2.0, 0.0]), Ok(vec![1, 3, 0]));
        assert_eq!(top(1, 2, &[1.0, f32::NAN, 2.0]), Ok(vec![1, 2]));
        assert_eq!(top(0, 3, &[1.0, f32::NAN, 0.5]), Ok(vec![2, 0, 1]));
        assert!(top(1, 4, &[1.0]).unwrap_err().contains("k = 4") && top(1, -1, &[1.0]).is_err());
    }
}
