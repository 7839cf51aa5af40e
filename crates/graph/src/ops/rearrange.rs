//! Operators whose output elements are input elements in another place: one rule of movement, values of any type, and the
//! gradient that goes the same way back.

use std::sync::Arc;

use netproof_tensor::{DType, Elements, Tensor};

use crate::error::{OpError, OpResult};
use crate::operator::{Args, Backward, Context, Fact, Operator, Value};
use crate::real::Real;
use crate::rows::RowsOf;

/// In [`How::Index`], an output element that no input element becomes.
pub(super) const FILL: usize = usize::MAX;

/// How elements move.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum How {
    /// The row-major order stays.
    Reshape,
    /// Output axis `i` is input axis `axes[i]`.
    Permute(Vec<usize>),
    /// `start..end` of each axis.
    Cut(Vec<(usize, usize)>),
    /// Axes of size 1 are repeated.
    Expand,
    /// The input as the first shape, with axis `i` taken from axis `axes[i]`; the result is reshaped.
    Blocks(Vec<usize>, Vec<usize>),
    /// Entries of one axis by number; the result is reshaped.
    Select(usize, Vec<usize>),
    /// Runs of the first number of elements, by number; the result is reshaped.
    Runs(usize, Vec<usize>),
    /// Entries of every axis by number, or [`FILL`].
    Entries(Vec<Vec<usize>>),
    /// Input position of each output element, row-major, or [`FILL`].
    Index(Vec<usize>),
}

impl How {
    /// Whether some output element is no input element.
    fn fills(&self) -> bool {
        match self {
            Self::Index(index) => index.contains(&FILL),
            Self::Entries(lists) => lists.iter().any(|l| l.contains(&FILL)),
            _ => false,
        }
    }
}

/// An operator that only moves the elements of one input.
pub(super) trait Rearrange: Send + Sync {
    /// Number of the input whose elements move.
    fn source(&self) -> usize {
        0
    }

    /// Shape of the output.
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>>;

    /// The movement; `shape` is what [`Rearrange::shape`] answered.
    fn how(&self, inputs: Args<'_, Fact>, shape: &[usize]) -> OpResult<How>;

    /// What [`FILL`] becomes: a number, as each type has it.
    fn fill(&self, _inputs: Args<'_, Value>) -> OpResult<Fill> {
        Ok(Fill::default())
    }

    /// Number of the input that [`Rearrange::fill`] reads, where it is an input.
    fn filling(&self) -> Option<usize> {
        None
    }
}

/// One element of any type.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Fill {
    pub(super) float: f32,
    pub(super) int: i64,
    pub(super) bool: bool,
    pub(super) text: String,
}

impl Fill {
    /// The only element of a tensor.
    pub(super) fn of(tensor: &Tensor) -> Self {
        let mut fill = Self::default();
        match tensor.elements() {
            Elements::Float(v) => fill.float = v.first().copied().unwrap_or_default(),
            Elements::Int(v) => fill.int = v.first().copied().unwrap_or_default(),
            Elements::Bool(v) => fill.bool = v.first().copied().unwrap_or_default(),
            Elements::Text(v) => fill.text = v.first().cloned().unwrap_or_default(),
        }
        fill
    }
}

/// Facts of values at run time: all but what moves is known.
fn facts(inputs: Args<'_, Value>, source: usize) -> Vec<Option<Fact>> {
    let fact = |(i, v): (usize, &Value)| match v {
        Value::Real(r) if i == source => Fact::new(DType::F32, r.shape().to_vec()),
        v => {
            let t = v.to_host();
            Fact { dtype: t.dtype(), shape: t.shape().to_vec(), value: Some(t) }
        }
    };
    inputs.0.iter().enumerate().map(|(i, v)| v.as_ref().map(|v| fact((i, v)))).collect()
}

impl<R: Rearrange> Operator for R {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let dtype = inputs.need(self.source())?.dtype;
        let shape = self.shape(inputs)?;
        // Where the movement is known already, it is checked already.
        match self.how(inputs, &shape) {
            Ok(_) | Err(OpError::Deferred) => Ok(vec![Fact::new(dtype, shape)]),
            Err(e) => Err(e),
        }
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], _cx: &Context) -> OpResult<Vec<Value>> {
        let how = self.how(Args(&facts(inputs, self.source())), &outputs[0].shape)?;
        let fill = if how.fills() { self.fill(inputs)? } else { Fill::default() };
        Ok(vec![moved(inputs.need(self.source())?, &how, &outputs[0].shape, &fill)?])
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        let source = self.source();
        let from = &call.inputs.get(source)?.shape;
        let to = &call.output.shape;
        let how = self.how(call.inputs, to).ok()?;
        match how {
            // The other input is a shape, and shapes are compared afterwards.
            How::Reshape => call.reshaped(from, call.shaped(source)?, to),
            How::Expand => match call.shaped(source) {
                Some(rows) => Some(rows + to.len() - from.len()),
                None => call.repeated(source),
            },
            How::Permute(axes) => axes.iter().position(|&a| Some(a) == call.only(source)),
            How::Cut(ranges) => call.only(source).filter(|&rows| ranges[rows] == (0, from[rows])),
            How::Select(axis, entries) => {
                let rows = call.only(source).filter(|&rows| rows != axis)?;
                let mut picked = from.clone();
                picked[axis] = entries.len();
                call.reshaped(&picked, rows, to)
            }
            How::Blocks(..) | How::Runs(..) | How::Entries(_) | How::Index(_) => None,
        }
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let source = self.source();
        let how = self.how(Args(&facts(call.inputs, source)), &call.facts[0].shape)?;
        let shape = call.inputs.need(source)?.shape().to_vec();
        let mut gradients = vec![None; call.inputs.len()];
        gradients[source] = call.when(source, || Ok(moved_back(call.gradient(), &how, &shape, call.cx)))?;
        if let Some(i) = self.filling().filter(|&i| call.wants(i)) {
            let zeros = Real::full(&shape, 0.0, &call.cx.device);
            let filled = moved_real(&zeros, &how, &call.facts[0].shape, 1.0);
            let own = call.inputs.need(i)?.shape();
            gradients[i] = Some(call.gradient().mul(&filled).sum_all().reshape(own));
        }
        Ok(Some(gradients))
    }
}

/// Moves the elements of a value of any type.
pub(super) fn moved(value: &Value, how: &How, shape: &[usize], fill: &Fill) -> OpResult<Value> {
    match value {
        Value::Real(r) => Ok(Value::Real(moved_real(r, how, shape, fill.float))),
        Value::Host(t) => {
            if matches!(how, How::Reshape) {
                return Ok(Value::host(Arc::unwrap_or_clone(t.clone()).reshape(shape.to_vec())?));
            }
            let index = positions(how, t.shape(), shape);
            let elements = match t.elements() {
                Elements::Float(v) => Elements::Float(pick(v, &index, &fill.float)),
                Elements::Int(v) => Elements::Int(pick(v, &index, &fill.int)),
                Elements::Bool(v) => Elements::Bool(pick(v, &index, &fill.bool)),
                Elements::Text(v) => Elements::Text(pick(v, &index, &fill.text)),
            };
            Ok(Value::host(Tensor::new(t.dtype(), shape.to_vec(), elements)?))
        }
    }
}

fn pick<T: Clone>(values: &[T], index: &[usize], fill: &T) -> Vec<T> {
    index.iter().map(|&i| values.get(i).unwrap_or(fill).clone()).collect()
}

fn moved_real(r: &Real, how: &How, shape: &[usize], fill: f32) -> Real {
    if r.count() == 0 {
        // Whatever comes out has no input element.
        return r.same(fill).expand(shape);
    }
    match how {
        How::Reshape => r.reshape(shape),
        How::Permute(axes) => r.permute(axes),
        How::Cut(ranges) => {
            ranges.iter().enumerate().fold(r.clone(), |r, (axis, &(start, end))| r.narrow(axis, start, end))
        }
        How::Expand => r.expand(shape),
        How::Blocks(blocks, axes) => r.reshape(blocks).permute(axes).reshape(shape),
        How::Select(axis, entries) => r.select(*axis, entries).reshape(shape),
        How::Runs(run, entries) => r.reshape(&[r.count() / run, *run]).select(0, entries).reshape(shape),
        How::Entries(lists) => {
            if lists.iter().any(|l| l.iter().all(|&i| i == FILL)) {
                return r.same(fill).expand(shape);
            }
            lists.iter().enumerate().fold(r.clone(), |r, (axis, list)| entries_of(&r, axis, list, fill))
        }
        How::Index(index) => {
            let n = r.count();
            let flat = r.reshape(&[n]);
            if !index.contains(&FILL) {
                return flat.select(0, index).reshape(shape);
            }
            // One more element holds the filling.
            let padded = flat.pad(&[(0, 1)], fill);
            let index: Vec<usize> = index.iter().map(|&i| i.min(n)).collect();
            padded.select(0, &index).reshape(shape)
        }
    }
}

/// A list of entries that is one piece of the axis between fillings: fillings before, start, end, fillings behind.
fn piece(list: &[usize]) -> Option<(usize, usize, usize, usize)> {
    let before = list.iter().take_while(|&&i| i == FILL).count();
    let start = *list.get(before)?;
    let count = (start..).zip(&list[before..]).take_while(|&(want, &i)| i == want).count();
    let behind = list.len() - before - count;
    list[before + count..].iter().all(|&i| i == FILL).then_some((before, start, start + count, behind))
}

fn padding(rank: usize, axis: usize, before: usize, behind: usize) -> Vec<(usize, usize)> {
    (0..rank).map(|i| if i == axis { (before, behind) } else { (0, 0) }).collect()
}

fn entries_of(r: &Real, axis: usize, list: &[usize], fill: f32) -> Real {
    let pad = |r: &Real, before, behind| match (before, behind) {
        (0, 0) => r.clone(),
        _ => r.pad(&padding(r.rank(), axis, before, behind), fill),
    };
    if let Some((before, start, end, behind)) = piece(list) {
        return pad(&r.narrow(axis, start, end), before, behind);
    }
    let d = r.shape()[axis];
    if !list.contains(&FILL) {
        return r.select(axis, list);
    }
    // One more entry holds the filling.
    let list: Vec<usize> = list.iter().map(|&i| i.min(d)).collect();
    pad(r, 0, 1).select(axis, &list)
}

fn moved_back(gradient: &Real, how: &How, shape: &[usize], cx: &Context) -> Real {
    let zeros = |shape: &[usize]| Real::full(shape, 0.0, &cx.device);
    let n: usize = shape.iter().product();
    if n == 0 || gradient.count() == 0 {
        return zeros(shape);
    }
    match how {
        How::Reshape => gradient.reshape(shape),
        How::Permute(axes) => gradient.permute(&inverse(axes)),
        How::Cut(ranges) => {
            let padding: Vec<_> = ranges.iter().zip(shape).map(|(&(start, end), &d)| (start, d - end)).collect();
            gradient.pad(&padding, 0.0)
        }
        How::Expand => gradient.sum_to(shape),
        How::Blocks(blocks, axes) => {
            let permuted: Vec<usize> = axes.iter().map(|&a| blocks[a]).collect();
            gradient.reshape(&permuted).permute(&inverse(axes)).reshape(shape)
        }
        How::Select(axis, entries) => {
            let mut selected = shape.to_vec();
            selected[*axis] = entries.len();
            zeros(shape).add_at(*axis, entries, &gradient.reshape(&selected))
        }
        How::Runs(run, entries) => {
            zeros(&[n / run, *run]).add_at(0, entries, &gradient.reshape(&[entries.len(), *run])).reshape(shape)
        }
        How::Entries(lists) => {
            if lists.iter().any(|l| l.iter().all(|&i| i == FILL)) {
                return zeros(shape);
            }
            lists.iter().enumerate().rev().fold(gradient.clone(), |g, (axis, list)| {
                let d = shape[axis];
                if let Some((before, start, end, _)) = piece(list) {
                    let g = g.narrow(axis, before, before + end - start);
                    return match (start, d - end) {
                        (0, 0) => g,
                        (first, rest) => g.pad(&padding(g.rank(), axis, first, rest), 0.0),
                    };
                }
                let list: Vec<usize> = list.iter().map(|&i| i.min(d)).collect();
                let mut own = g.shape().to_vec();
                own[axis] = d + 1;
                zeros(&own).add_at(axis, &list, &g).narrow(axis, 0, d)
            })
        }
        How::Index(index) => {
            let index: Vec<usize> = index.iter().map(|&i| i.min(n)).collect();
            let flat = gradient.reshape(&[index.len()]);
            zeros(&[n + 1]).add_at(0, &index, &flat).narrow(0, 0, n).reshape(shape)
        }
    }
}

fn inverse(axes: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; axes.len()];
    axes.iter().enumerate().for_each(|(i, &a)| inverse[a] = i);
    inverse
}

/// Row-major steps of a shape.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

/// Calls `f` with every coordinate of a shape, row-major.
pub(super) fn for_each_coordinate(shape: &[usize], mut f: impl FnMut(&[usize])) {
    if shape.contains(&0) {
        return;
    }
    let mut at = vec![0; shape.len()];
    loop {
        f(&at);
        let Some(axis) = (0..shape.len()).rev().find(|&i| at[i] + 1 < shape[i]) else { return };
        at[axis] += 1;
        at[axis + 1..].fill(0);
    }
}

/// Positions per output element where each axis of the output takes entries of the same axis of the input;
/// [`FILL`] in a list of entries fills.
pub(super) fn per_axis(shape: &[usize], entries: &[Vec<usize>]) -> Vec<usize> {
    let steps = strides(shape);
    let mut out = vec![0];
    for (list, step) in entries.iter().zip(steps) {
        let mut next = Vec::with_capacity(out.len() * list.len());
        for &base in &out {
            next.extend(list.iter().map(|&i| if base == FILL || i == FILL { FILL } else { base + i * step }));
        }
        out = next;
    }
    out
}

fn positions(how: &How, from: &[usize], to: &[usize]) -> Vec<usize> {
    let count: usize = to.iter().product();
    match how {
        How::Reshape => (0..count).collect(),
        How::Index(index) => index.clone(),
        How::Runs(run, entries) => entries.iter().flat_map(|&e| e * run..(e + 1) * run).collect(),
        How::Cut(ranges) => per_axis(from, &ranges.iter().map(|&(s, e)| (s..e).collect()).collect::<Vec<_>>()),
        How::Expand => super::elementwise::positions(from, to),
        How::Entries(lists) => per_axis(from, lists),
        How::Select(axis, entries) => {
            let all = |(i, &d): (usize, &usize)| if i == *axis { entries.clone() } else { (0..d).collect() };
            per_axis(from, &from.iter().enumerate().map(all).collect::<Vec<Vec<usize>>>())
        }
        How::Permute(axes) => permuted(from, axes),
        How::Blocks(blocks, axes) => permuted(blocks, axes),
    }
}

fn permuted(from: &[usize], axes: &[usize]) -> Vec<usize> {
    let steps = strides(from);
    let to: Vec<usize> = axes.iter().map(|&a| from[a]).collect();
    let mut out = Vec::with_capacity(to.iter().product());
    for_each_coordinate(&to, |at| out.push(at.iter().zip(axes).map(|(&c, &a)| c * steps[a]).sum()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_and_host_move_alike_and_gradients_go_back() {
        let device = crate::real::RealDevice::cpu();
        let cx = Context { device: device.clone(), training: false, seed: 0 };
        let values: Vec<f32> = (0..6).map(|v| v as f32).collect();
        let host = Value::host(Tensor::f32(vec![2, 3], values.clone()).unwrap());
        let real = Value::Real(Real::new(&[2, 3], values, &device));
        let cases = [
            (How::Permute(vec![1, 0]), vec![3, 2], vec![0., 3., 1., 4., 2., 5.], vec![1.; 6]),
            (How::Cut(vec![(0, 1), (1, 3)]), vec![1, 2], vec![1., 2.], vec![0., 1., 1., 0., 0., 0.]),
            (How::Select(1, vec![2, 2]), vec![2, 2], vec![2., 2., 5., 5.], vec![0., 0., 2., 0., 0., 2.]),
            (How::Blocks(vec![3, 2], vec![1, 0]), vec![6], vec![0., 2., 4., 1., 3., 5.], vec![1.; 6]),
            (How::Runs(3, vec![1, 1]), vec![6], vec![3., 4., 5., 3., 4., 5.], vec![0., 0., 0., 2., 2., 2.]),
            (
                How::Entries(vec![vec![FILL, 1], vec![2, FILL, 2]]),
                vec![2, 3],
                vec![9., 9., 9., 5., 9., 5.],
                vec![0., 0., 0., 0., 0., 2.],
            ),
            (
                How::Entries(vec![vec![0, 1, FILL], vec![1, 2]]),
                vec![3, 2],
                vec![1., 2., 4., 5., 9., 9.],
                vec![0., 1., 1., 0., 1., 1.],
            ),
            (How::Index(vec![5, FILL, 0]), vec![3], vec![5., 9., 0.], vec![1., 0., 0., 0., 0., 1.]),
        ];
        let fill = Fill { float: 9.0, ..Fill::default() };
        for (how, shape, want, back) in cases {
            for value in [&host, &real] {
                let got = moved(value, &how, &shape, &fill).unwrap();
                assert_eq!(got.shape(), shape);
                assert_eq!(got.to_host().as_f32().unwrap(), want, "{how:?}");
            }
            let ones = Real::full(&shape, 1.0, &device);
            assert_eq!(moved_back(&ones, &how, &[2, 3], &cx).to_vec(), back, "{how:?}");
        }
    }
}
