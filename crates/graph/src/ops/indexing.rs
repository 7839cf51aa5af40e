//! Elements by number: picking, putting, one-hot codes, and where something is not zero.

mod scatter;

use netproof_tensor::{DType, Elements, Tensor};

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid, unsupported};
use crate::operator::{Args, Context, Entry, Fact, Operator, Value, axis, checked_shape};
use crate::real::Real;

use super::rearrange::{How, Rearrange, for_each_coordinate, strides};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { name: "Gather", build: |a| Ok(Box::new(Gather(a.int("axis", 0)?))) },
    Entry { name: "GatherElements", build: |a| Ok(Box::new(GatherElements(a.int("axis", 0)?))) },
    Entry { name: "GatherND", build: |a| Ok(Box::new(GatherNd(a.int("batch_dims", 0)?))) },
    Entry { name: "Scatter", build: scatter::elements },
    Entry { name: "ScatterElements", build: scatter::elements },
    Entry { name: "ScatterND", build: scatter::nd },
    Entry { name: "OneHot", build: |a| Ok(Box::new(OneHot(a.int("axis", -1)?))) },
    Entry { name: "EyeLike", build: eye_like },
    Entry { name: "NonZero", build: |_| Ok(Box::new(NonZero)) },
];

/// An index as written: negative counts from the end.
fn entry(index: i64, size: usize) -> OpResult<usize> {
    let n = size as i64;
    if index < -n || index >= n {
        invalid!("index {index} is outside -{size}..{size}");
    }
    Ok(if index < 0 { index + n } else { index } as usize)
}

fn index_fact<'a>(inputs: Args<'a, Fact>, i: usize) -> OpResult<&'a Fact> {
    let fact = inputs.need(i)?;
    if !fact.dtype.is_int() {
        invalid!("input {i} must be integers, got {}", fact.dtype);
    }
    Ok(fact)
}

struct Gather(i64);

impl Rearrange for Gather {
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        let (data, indices) = (inputs.need(0)?, index_fact(inputs, 1)?);
        let at = axis(self.0, data.rank())?;
        let dims = data.shape[..at].iter().chain(&indices.shape).chain(&data.shape[at + 1..]);
        checked_shape(&dims.map(|&d| d as i64).collect::<Vec<_>>())
    }

    fn how(&self, inputs: Args<'_, Fact>, _: &[usize]) -> OpResult<How> {
        let data = inputs.need(0)?;
        let at = axis(self.0, data.rank())?;
        let picked = inputs.ints(1)?.into_iter().map(|i| entry(i, data.shape[at])).collect::<OpResult<_>>()?;
        Ok(How::Select(at, picked))
    }
}

struct GatherElements(i64);

/// Position in `data` of each element of `indices`: its own place, with the index in place of `axis`.
fn element_positions(data: &[usize], indices: &[usize], values: &[i64], at: usize) -> OpResult<Vec<usize>> {
    let steps = strides(data);
    let mut out = Vec::with_capacity(values.len());
    let mut bad = None;
    let mut values = values.iter();
    for_each_coordinate(indices, |c| {
        let index = values.next().copied().unwrap_or_default();
        match entry(index, data[at]) {
            Ok(i) => out.push(c.iter().enumerate().map(|(d, &x)| if d == at { i } else { x } * steps[d]).sum()),
            Err(e) => bad = Some(e),
        }
    });
    bad.map_or(Ok(out), Err)
}

/// Shapes of data and indices of the element-wise operators.
fn element_shapes(data: &Fact, indices: &Fact, at: usize) -> OpResult<()> {
    let fits = indices.rank() == data.rank() && (0..data.rank()).all(|d| d == at || indices.shape[d] <= data.shape[d]);
    if !fits {
        invalid!("indices {:?} do not lie within data {:?} beside axis {at}", indices.shape, data.shape);
    }
    Ok(())
}

impl Rearrange for GatherElements {
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        let (data, indices) = (inputs.need(0)?, index_fact(inputs, 1)?);
        element_shapes(data, indices, axis(self.0, data.rank())?)?;
        Ok(indices.shape.clone())
    }

    fn how(&self, inputs: Args<'_, Fact>, shape: &[usize]) -> OpResult<How> {
        let data = inputs.need(0)?;
        let at = axis(self.0, data.rank())?;
        Ok(How::Index(element_positions(&data.shape, shape, &inputs.ints(1)?, at)?))
    }
}

struct GatherNd(i64);

impl GatherNd {
    /// Batch axes, and axes that one index tuple names.
    fn depth(&self, inputs: Args<'_, Fact>) -> OpResult<(usize, usize)> {
        let (data, indices) = (inputs.need(0)?, index_fact(inputs, 1)?);
        let batch = self.0.max(0) as usize;
        let Some(&tuple) = indices.shape.last() else { invalid!("input 1 must have at least one axis") };
        let fits = batch < data.rank().min(indices.rank())
            && batch + tuple <= data.rank()
            && data.shape[..batch] == indices.shape[..batch];
        if self.0 < 0 || !fits {
            invalid!("indices {:?} with batch_dims {} do not fit data {:?}", indices.shape, self.0, data.shape);
        }
        Ok((batch, tuple))
    }
}

impl Rearrange for GatherNd {
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        let (batch, tuple) = self.depth(inputs)?;
        let (data, indices) = (inputs.need(0)?, inputs.need(1)?);
        let dims = indices.shape[..indices.rank() - 1].iter().chain(&data.shape[batch + tuple..]);
        checked_shape(&dims.map(|&d| d as i64).collect::<Vec<_>>())
    }

    fn how(&self, inputs: Args<'_, Fact>, _: &[usize]) -> OpResult<How> {
        let (batch, tuple) = self.depth(inputs)?;
        let (data, indices) = (inputs.need(0)?, inputs.need(1)?);
        let steps = strides(&data.shape);
        let inner: usize = data.shape[batch + tuple..].iter().product();
        let batches: usize = data.shape[..batch].iter().product();
        let values = inputs.ints(1)?;
        let tuples: usize = indices.shape[..indices.rank() - 1].iter().product();
        let per_batch = tuples / batches.max(1);
        let batch_step: usize = data.shape[batch..].iter().product();
        let mut out = Vec::with_capacity(tuples);
        for t in 0..tuples {
            let mut base = (t / per_batch.max(1)) * batch_step;
            for d in 0..tuple {
                base += entry(values[t * tuple + d], data.shape[batch + d])? * steps[batch + d];
            }
            out.push(base / inner.max(1));
        }
        Ok(How::Runs(inner, out))
    }
}

struct OneHot(i64);

impl OneHot {
    fn depth(inputs: Args<'_, Fact>) -> OpResult<i64> {
        let fact = inputs.need(1)?;
        if fact.count() != 1 {
            invalid!("the depth must be one number, has shape {:?}", fact.shape);
        }
        if fact.dtype.is_float() { Ok(inputs.floats(1)?[0] as i64) } else { Ok(inputs.ints(1)?[0]) }
    }
}

impl Rearrange for OneHot {
    fn source(&self) -> usize {
        2
    }

    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        if inputs.need(2)?.shape != [2] {
            invalid!("input 2 must hold the two values off and on, has shape {:?}", inputs.need(2)?.shape);
        }
        let depth = Self::depth(inputs)?;
        if depth < 1 {
            invalid!("the depth is {depth}, must be at least 1");
        }
        let mut dims: Vec<i64> = inputs.need(0)?.shape.iter().map(|&d| d as i64).collect();
        dims.insert(axis(self.0, dims.len() + 1)?, depth);
        checked_shape(&dims)
    }

    fn how(&self, inputs: Args<'_, Fact>, shape: &[usize]) -> OpResult<How> {
        let indices = inputs.need(0)?;
        let values: Vec<i64> = if indices.dtype.is_float() {
            inputs.floats(0)?.into_iter().map(|v| v as i64).collect()
        } else {
            inputs.ints(0)?
        };
        let at = axis(self.0, shape.len())?;
        let depth = shape[at] as i64;
        let steps = strides(&indices.shape);
        let mut out = Vec::with_capacity(shape.iter().product());
        for_each_coordinate(shape, |c| {
            let outer = c.iter().enumerate().filter(|&(d, _)| d != at);
            let position: usize = outer.map(|(d, &x)| x * steps[if d > at { d - 1 } else { d }]).sum();
            let v = values[position];
            // An index that is out of range has no hot entry.
            let own = if v < 0 { v.saturating_add(depth) } else { v };
            out.push(usize::from(own == c[at] as i64));
        });
        Ok(How::Index(out))
    }
}

struct EyeLike {
    dtype: Option<DType>,
    k: i64,
}

fn eye_like(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
    let dtype = match a.optional_int("dtype")? {
        None => None,
        Some(code) => match i32::try_from(code).ok().and_then(netproof_onnx::dtype_of_code) {
            Some(dtype) if dtype != DType::Text => Some(dtype),
            _ => unsupported!("attribute `dtype` is {code}"),
        },
    };
    Ok(Box::new(EyeLike { dtype, k: a.int("k", 0)? }))
}

impl Operator for EyeLike {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let like = inputs.need(0)?;
        if like.rank() != 2 {
            invalid!("input 0 must be a matrix, has shape {:?}", like.shape);
        }
        Ok(vec![Fact::new(self.dtype.unwrap_or(like.dtype), like.shape.clone())])
    }

    fn eval(&self, _: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let fact = &outputs[0];
        let (rows, columns) = (fact.shape[0], fact.shape[1]);
        let one = |i: usize| (i % columns) as i64 - (i / columns) as i64 == self.k;
        let ones = (0..rows * columns).map(one);
        if fact.dtype.is_float() {
            let values = ones.map(|b| f32::from(u8::from(b))).collect();
            return Ok(vec![Value::Real(Real::new(&fact.shape, values, &cx.device))]);
        }
        let elements = match fact.dtype {
            DType::Bool => Elements::Bool(ones.collect()),
            _ => Elements::Int(ones.map(i64::from).collect()),
        };
        Ok(vec![Value::host(Tensor::new(fact.dtype, fact.shape.clone(), elements)?)])
    }
}

struct NonZero;

impl NonZero {
    fn positions(t: &Tensor) -> Vec<bool> {
        match t.elements() {
            Elements::Float(v) => v.iter().map(|&x| x != 0.0).collect(),
            Elements::Int(v) => v.iter().map(|&x| x != 0).collect(),
            Elements::Bool(v) => v.clone(),
            Elements::Text(v) => v.iter().map(|x| !x.is_empty()).collect(),
        }
    }
}

impl Operator for NonZero {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let fact = inputs.need(0)?;
        let Some(value) = &fact.value else { return Err(crate::error::OpError::Deferred) };
        let count = Self::positions(value).into_iter().filter(|&b| b).count();
        Ok(vec![Fact::new(DType::I64, vec![fact.rank(), count])])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], _: &Context) -> OpResult<Vec<Value>> {
        let t = inputs.need(0)?.to_host();
        let found = Self::positions(&t);
        let mut columns: Vec<Vec<i64>> = vec![Vec::new(); t.rank()];
        let mut at = 0;
        for_each_coordinate(t.shape(), |c| {
            if found[at] {
                columns.iter_mut().zip(c).for_each(|(column, &x)| column.push(x as i64));
            }
            at += 1;
        });
        Ok(vec![Value::host(Tensor::i64(outputs[0].shape.clone(), columns.concat())?)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::run;

    fn ints(v: &[i64]) -> Option<Tensor> {
        Some(Tensor::i64(vec![v.len()], v.to_vec()).unwrap())
    }

    #[test]
    fn indices_count_from_both_ends_and_not_beyond() {
        let go = |i: i64| run("Gather", 13, &[], &[ints(&[10, 11, 12]), ints(&[i])]);
        assert_eq!(go(-3).unwrap()[0].as_i64().unwrap(), [10]);
        assert_eq!(go(2).unwrap()[0].as_i64().unwrap(), [12]);
        for bad in [3, -4, i64::MIN, i64::MAX] {
            let e = go(bad).unwrap_err();
            assert!(e.contains(&format!("index {bad} is outside -3..3")), "{e}");
        }
    }

    #[test]
    fn a_one_hot_index_out_of_range_has_no_hot_entry() {
        let y = run("OneHot", 11, &[], &[ints(&[1, -1, 5]), ints(&[3]), ints(&[0, 9])]).unwrap();
        assert_eq!(y[0].as_i64().unwrap(), [0, 9, 0, 0, 0, 9, 0, 0, 0]);
    }
}
