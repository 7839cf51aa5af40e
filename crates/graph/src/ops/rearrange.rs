//! Operators whose output elements are input elements in another place: one rule of movement, values of any type, and the
//! gradient that goes the same way back.

use std::sync::Arc;

use netproof_tensor::{DType, Elements, Tensor};

use crate::error::{OpError, OpResult};
use crate::operator::{Args, Backward, Context, Fact, Operator, Value};
use crate::real::Real;

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
    /// Entries of one axis by number; the result is reshaped.
    Select(usize, Vec<usize>),
    /// Input position of each output element, row-major, or [`FILL`].
    Index(Vec<usize>),
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
        let fill =
            if matches!(&how, How::Index(i) if i.contains(&FILL)) { self.fill(inputs)? } else { Fill::default() };
        Ok(vec![moved(inputs.need(self.source())?, &how, &outputs[0].shape, &fill)?])
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let source = self.source();
        let how = self.how(Args(&facts(call.inputs, source)), &call.facts[0].shape)?;
        let shape = call.inputs.need(source)?.shape().to_vec();
        let mut gradients = vec![None; call.inputs.len()];
        gradients[source] = call.when(source, || Ok(moved_back(call.gradient(), &how, &shape, call.cx)))?;
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
    match how {
        How::Reshape => r.reshape(shape),
        How::Permute(axes) => r.permute(axes),
        How::Cut(ranges) => {
            ranges.iter().enumerate().fold(r.clone(), |r, (axis, &(start, end))| r.narrow(axis, start, end))
        }
        How::Expand => r.expand(shape),
        How::Select(axis, entries) => r.select(*axis, entries).reshape(shape),
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

fn moved_back(gradient: &Real, how: &How, shape: &[usize], cx: &Context) -> Real {
    match how {
        How::Reshape => gradient.reshape(shape),
        How::Permute(axes) => {
            let mut inverse = vec![0; axes.len()];
            axes.iter().enumerate().for_each(|(i, &a)| inverse[a] = i);
            gradient.permute(&inverse)
        }
        How::Cut(ranges) => {
            let padding: Vec<_> = ranges.iter().zip(shape).map(|(&(start, end), &d)| (start, d - end)).collect();
            gradient.pad(&padding, 0.0)
        }
        How::Expand => gradient.sum_to(shape),
        How::Select(axis, entries) => {
            let mut selected = shape.to_vec();
            selected[*axis] = entries.len();
            Real::full(shape, 0.0, &cx.device).add_at(*axis, entries, &gradient.reshape(&selected))
        }
        How::Index(index) => {
            let n: usize = shape.iter().product();
            let index: Vec<usize> = index.iter().map(|&i| i.min(n)).collect();
            let flat = gradient.reshape(&[index.len()]);
            Real::full(&[n + 1], 0.0, &cx.device).add_at(0, &index, &flat).narrow(0, 0, n).reshape(shape)
        }
    }
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
        How::Cut(ranges) => per_axis(from, &ranges.iter().map(|&(s, e)| (s..e).collect()).collect::<Vec<_>>()),
        How::Expand => super::elementwise::positions(from, to),
        How::Select(axis, entries) => {
            let lists: Vec<Vec<usize>> = from
                .iter()
                .enumerate()
                .map(|(i, &d)| if i == *axis { entries.clone() } else { (0..d).collect() })
                .collect();
            per_axis(from, &lists)
        }
        How::Permute(axes) => {
            let steps = strides(from);
            let mut out = Vec::with_capacity(count);
            for_each_coordinate(to, |at| out.push(at.iter().zip(axes).map(|(&c, &a)| c * steps[a]).sum()));
            out
        }
    }
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
