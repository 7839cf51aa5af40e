//! Shapes as values, and constants.

use netproof_tensor::{DType, Elements, Tensor};

use crate::attributes::Attributes;
use crate::error::{OpError, OpResult, invalid, unsupported};
use crate::operator::{Args, Backward, Context, Entry, Fact, Operator, Value, checked_shape};
use crate::real::Real;

pub(super) const ENTRIES: &[Entry] = &[
    Entry { name: "Shape", build: |a| Ok(Box::new(Shape { start: a.int("start", 0)?, end: a.optional_int("end")? })) },
    Entry { name: "Size", build: |_| Ok(Box::new(Size)) },
    Entry { name: "Constant", build: |a| Ok(Box::new(Constant(constant(a)?))) },
    Entry { name: "ConstantOfShape", build: |a| Ok(Box::new(ConstantOfShape(filling(a)?))) },
    Entry { name: "Range", build: |_| Ok(Box::new(Range)) },
];

struct Shape {
    start: i64,
    end: Option<i64>,
}

impl Operator for Shape {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let shape = &inputs.need(0)?.shape;
        let rank = shape.len() as i64;
        let clamp = |v: i64| if v < 0 { v.saturating_add(rank) } else { v }.clamp(0, rank) as usize;
        let (start, end) = (clamp(self.start), clamp(self.end.unwrap_or(rank)));
        let dims: Vec<i64> = shape.get(start..end).unwrap_or_default().iter().map(|&d| d as i64).collect();
        Ok(vec![Fact::known(Tensor::i64(vec![dims.len()], dims)?)])
    }

    fn eval(&self, _: Args<'_, Value>, outputs: &[Fact], _: &Context) -> OpResult<Vec<Value>> {
        known(outputs)
    }
}

/// The output is what `infer` said.
fn known(outputs: &[Fact]) -> OpResult<Vec<Value>> {
    outputs.iter().map(|f| f.value.clone().map(Value::Host).ok_or(OpError::Deferred)).collect()
}

struct Size;

impl Operator for Size {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let count = inputs.need(0)?.count() as i64;
        Ok(vec![Fact::known(Tensor::i64(Vec::new(), vec![count])?)])
    }

    fn eval(&self, _: Args<'_, Value>, outputs: &[Fact], _: &Context) -> OpResult<Vec<Value>> {
        known(outputs)
    }
}

struct Constant(Tensor);

fn constant(a: &Attributes<'_>) -> OpResult<Tensor> {
    if a.has("sparse_value") {
        unsupported!("attribute `sparse_value`: sparse tensors are not supported");
    }
    if let Some(t) = a.tensor("value")? {
        return Ok(t);
    }
    if let Some(v) = a.optional_float("value_float")? {
        return Ok(Tensor::f32(Vec::new(), vec![v])?);
    }
    if let Some(v) = a.optional_int("value_int")? {
        return Ok(Tensor::i64(Vec::new(), vec![v])?);
    }
    if let Some(v) = a.floats("value_floats")? {
        return Ok(Tensor::f32(vec![v.len()], v)?);
    }
    if let Some(v) = a.ints("value_ints")? {
        return Ok(Tensor::i64(vec![v.len()], v)?);
    }
    if a.has("value_string") {
        let text = a.text("value_string", "")?;
        return Ok(Tensor::new(DType::Text, Vec::new(), Elements::Text(vec![text]))?);
    }
    match a.texts("value_strings")? {
        Some(v) => Ok(Tensor::new(DType::Text, vec![v.len()], Elements::Text(v))?),
        None => invalid!("has no value"),
    }
}

impl Operator for Constant {
    fn infer(&self, _: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        Ok(vec![Fact::known(self.0.clone())])
    }

    fn eval(&self, _: Args<'_, Value>, _: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let value = Value::host(self.0.clone());
        Ok(vec![if self.0.dtype().is_float() { Value::Real(value.real(cx)?) } else { value }])
    }
}

struct ConstantOfShape(Tensor);

fn filling(a: &Attributes<'_>) -> OpResult<Tensor> {
    match a.tensor("value")? {
        None => Ok(Tensor::f32(vec![1], vec![0.0])?),
        Some(t) if t.len() == 1 => Ok(t),
        Some(t) => invalid!("attribute `value` must hold one element, has {}", t.len()),
    }
}

impl Operator for ConstantOfShape {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if inputs.need(0)?.rank() > 1 {
            invalid!("input 0 must be a list of dimensions, has shape {:?}", inputs.need(0)?.shape);
        }
        Ok(vec![Fact::new(self.0.dtype(), checked_shape(&inputs.ints(0)?)?)])
    }

    fn eval(&self, _: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        filled(&self.0, &outputs[0].shape, cx)
    }
}

/// A tensor in which every element is the one of `value`.
fn filled(value: &Tensor, shape: &[usize], cx: &Context) -> OpResult<Vec<Value>> {
    let n = shape.iter().product();
    let elements = match value.elements() {
        Elements::Float(v) => {
            return Ok(vec![Value::Real(Real::full(shape, v[0], &cx.device))]);
        }
        Elements::Int(v) => Elements::Int(vec![v[0]; n]),
        Elements::Bool(v) => Elements::Bool(vec![v[0]; n]),
        Elements::Text(v) => Elements::Text(vec![v[0].clone(); n]),
    };
    Ok(vec![Value::host(Tensor::new(value.dtype(), shape.to_vec(), elements)?)])
}

struct Range;

impl Range {
    fn count(inputs: Args<'_, Fact>) -> OpResult<usize> {
        for i in 0..3 {
            let fact = inputs.need(i)?;
            if fact.count() != 1 || fact.dtype != inputs.need(0)?.dtype {
                invalid!("input {i} must be one {}, got {} {:?}", inputs.need(0)?.dtype, fact.dtype, fact.shape);
            }
        }
        let count = if inputs.need(0)?.dtype.is_float() {
            let v = |i| inputs.floats(i).map(|v| f64::from(v[0]));
            let (start, limit, delta) = (v(0)?, v(1)?, v(2)?);
            let count = ((limit - start) / delta).ceil().max(0.0);
            if delta == 0.0 || !count.is_finite() {
                invalid!("from {start} to {limit} by {delta} never ends");
            }
            count as i64
        } else {
            let v = |i| inputs.ints(i).map(|v| i128::from(v[0]));
            let (start, limit, delta) = (v(0)?, v(1)?, v(2)?);
            if delta == 0 {
                invalid!("from {start} to {limit} by 0 never ends");
            }
            let (gap, step) = if delta > 0 { (limit - start, delta) } else { (start - limit, -delta) };
            i64::try_from((gap.max(0) + step - 1) / step).unwrap_or(i64::MAX)
        };
        Ok(checked_shape(&[count])?[0])
    }
}

impl Operator for Range {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let dtype = inputs.need(0)?.dtype;
        if !dtype.is_float() && !dtype.is_int() {
            invalid!("makes numbers, not {dtype}");
        }
        Ok(vec![Fact::new(dtype, vec![Self::count(inputs)?])])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let (n, dtype) = (outputs[0].count(), outputs[0].dtype);
        if dtype.is_float() {
            let (start, delta) = (f64::from(inputs.scalar(0, 0.0)?), f64::from(inputs.scalar(2, 1.0)?));
            let values = (0..n).map(|i| (start + i as f64 * delta) as f32).collect();
            return Ok(vec![Value::Real(Real::new(&[n], values, &cx.device))]);
        }
        let (start, delta) = (inputs.ints(0)?[0], inputs.ints(2)?[0]);
        let values = (0..n as i64).map(|i| dtype.wrap(start.wrapping_add(i.wrapping_mul(delta)))).collect();
        Ok(vec![Value::host(Tensor::new(dtype, vec![n], Elements::Int(values))?)])
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let g = call.gradient();
        let own = |i: usize| call.inputs.need(i).map(|v| v.shape());
        let start = call.when(0, || Ok(g.sum_all().reshape(own(0)?)))?;
        let delta = call.when(2, || {
            let number = (0..g.count()).map(|i| i as f32).collect();
            Ok(g.mul(&Real::new(g.shape(), number, &call.cx.device)).sum_all().reshape(own(2)?))
        })?;
        // The limit says only how many numbers there are.
        Ok(Some(vec![start, None, delta]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::run;

    #[test]
    fn ranges_end_before_their_limit_and_bombs_are_refused() {
        let ints = |v: i64| Some(Tensor::i64(vec![], vec![v]).unwrap());
        let go = |a, b, c| run("Range", 11, &[], &[ints(a), ints(b), ints(c)]).map(|t| t[0].as_i64().unwrap().to_vec());
        assert_eq!(go(3, 9, 3).unwrap(), [3, 6]);
        assert_eq!(go(10, 4, -2).unwrap(), [10, 8, 6]);
        assert_eq!(go(1, 0, 1).unwrap(), [0i64; 0]);
        assert!(go(0, 1, 0).is_err());
        assert!(go(0, i64::MAX, 1).is_err());
        assert!(go(i64::MIN, i64::MAX, 1).is_err());
    }
}
