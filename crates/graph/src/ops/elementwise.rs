//! What operators that work element by element share: broadcasting, exact integers, old forms of broadcasting.

use netproof_tensor::{DType, Elements, Tensor};

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid};
use crate::operator::{Args, Fact, Value, axis, checked_shape};
use crate::real::broadcast;

/// Shape of numpy broadcasting of all the given shapes, within the size limit.
pub(super) fn broadcast_shape<'a>(shapes: impl IntoIterator<Item = &'a [usize]>) -> OpResult<Vec<usize>> {
    let mut result: Vec<usize> = Vec::new();
    for shape in shapes {
        result = match broadcast(&result, shape) {
            Some(s) => s,
            None => invalid!("shapes {result:?} and {shape:?} do not broadcast"),
        };
    }
    checked_shape(&result.iter().map(|&d| d as i64).collect::<Vec<_>>())
}

/// For each element of the shape `to`, row-major, the position in a tensor of shape `from` that broadcasts to it.
pub(super) fn positions(from: &[usize], to: &[usize]) -> Vec<usize> {
    let count: usize = to.iter().product();
    if from.iter().product::<usize>() == count {
        return (0..count).collect();
    }
    let lead = to.len() - from.len();
    let mut strides = vec![0; to.len()];
    let mut step = 1;
    for (i, &d) in from.iter().enumerate().rev() {
        strides[lead + i] = if d == 1 { 0 } else { step };
        step *= d;
    }
    let mut index = vec![0; to.len()];
    let mut position = 0;
    let mut out = Vec::with_capacity(count);
    for _ in 0..count {
        out.push(position);
        for i in (0..to.len()).rev() {
            index[i] += 1;
            position += strides[i];
            if index[i] < to[i] {
                break;
            }
            position -= strides[i] * to[i];
            index[i] = 0;
        }
    }
    out
}

/// `f` on every pair of elements after broadcasting to `shape`.
pub(super) fn zip<A, B, C>(
    (a, a_shape): (&[A], &[usize]),
    (b, b_shape): (&[B], &[usize]),
    shape: &[usize],
    mut f: impl FnMut(&A, &B) -> C,
) -> Vec<C> {
    if a_shape == b_shape {
        return a.iter().zip(b).map(|(x, y)| f(x, y)).collect();
    }
    positions(a_shape, shape).into_iter().zip(positions(b_shape, shape)).map(|(i, j)| f(&a[i], &b[j])).collect()
}

/// The number that the stored integer means: `U64` is stored by its bits.
pub(super) fn exact(dtype: DType, stored: i64) -> i128 {
    if dtype == DType::U64 { i128::from(stored as u64) } else { i128::from(stored) }
}

/// The nearest float of a stored integer.
pub(super) fn int_to_float(dtype: DType, stored: i64) -> f32 {
    if dtype == DType::U64 { stored as u64 as f32 } else { stored as f32 }
}

/// An integer tensor as an operator's output; `values` are wrapped to the type.
pub(super) fn int_value(fact: &Fact, values: Vec<i64>) -> OpResult<Value> {
    let wrapped = values.into_iter().map(|v| fact.dtype.wrap(v)).collect();
    Ok(Value::host(Tensor::new(fact.dtype, fact.shape.clone(), Elements::Int(wrapped))?))
}

/// A bool tensor as an operator's output.
pub(super) fn bool_value(fact: &Fact, values: Vec<bool>) -> OpResult<Value> {
    Ok(Value::host(Tensor::bool(fact.shape.clone(), values)?))
}

/// The elements of a host integer tensor.
pub(super) fn ints(tensor: &Tensor) -> OpResult<&[i64]> {
    match tensor.as_i64() {
        Some(v) => Ok(v),
        None => invalid!("needs integers, got {}", tensor.dtype()),
    }
}

/// The elements of a host bool tensor.
pub(super) fn bools(tensor: &Tensor) -> OpResult<&[bool]> {
    match tensor.as_bool() {
        Some(v) => Ok(v),
        None => invalid!("needs truth values, got {}", tensor.dtype()),
    }
}

/// Checks that there are between `least` and `most` inputs.
pub(super) fn arity(inputs: Args<'_, Fact>, least: usize, most: usize) -> OpResult<()> {
    if inputs.len() < least || inputs.len() > most {
        invalid!("has {} inputs, takes {least} to {most}", inputs.len());
    }
    Ok(())
}

/// The only input, which must be a float tensor.
pub(super) fn one_float<'a>(inputs: Args<'a, Fact>) -> OpResult<&'a Fact> {
    arity(inputs, 1, 1)?;
    inputs.float(0)
}

/// The common type of all inputs.
pub(super) fn common_type(inputs: Args<'_, Fact>) -> OpResult<DType> {
    let first = inputs.need(0)?.dtype;
    for i in 1..inputs.len() {
        let other = inputs.need(i)?.dtype;
        if other != first {
            invalid!("input 0 is {first} and input {i} is {other}; they must have one type");
        }
    }
    Ok(first)
}

/// Reads what opset 1 had for memory reuse; it never changed a result.
pub(super) fn skip_consumed(a: &Attributes<'_>) -> OpResult<()> {
    a.ints("consumed_inputs").map(drop)
}

/// How the second operand meets the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broadcasting {
    /// Both operands, as numpy does: from opset 7.
    Numpy,
    /// Before opset 7: the second operand has the shape of a run of the first's axes, if broadcasting at all.
    Legacy { enabled: bool, axis: Option<i64> },
}

impl Broadcasting {
    pub(super) fn read(a: &Attributes<'_>) -> OpResult<Self> {
        if a.opset >= 7 {
            return Ok(Self::Numpy);
        }
        skip_consumed(a)?;
        Ok(Self::Legacy { enabled: a.flag("broadcast", false)?, axis: a.optional_int("axis")? })
    }

    /// The shape that the second operand is read with, such that numpy broadcasting gives the right result.
    pub(super) fn second_shape(self, first: &[usize], second: &[usize]) -> OpResult<Vec<usize>> {
        let Self::Legacy { enabled, axis: start } = self else { return Ok(second.to_vec()) };
        if first == second || (enabled && second.iter().all(|&d| d == 1) && second.len() <= first.len()) {
            return Ok(second.to_vec());
        }
        if !enabled || second.len() > first.len() {
            invalid!("shapes {first:?} and {second:?} differ and attribute `broadcast` does not join them");
        }
        let start = match start {
            Some(a) => axis(a, first.len())?,
            None => first.len() - second.len(),
        };
        let fits = first
            .get(start..start + second.len())
            .is_some_and(|f| f.iter().zip(second).all(|(&x, &y)| y == x || y == 1));
        if !fits {
            invalid!("shape {second:?} does not fit {first:?} from axis {start}");
        }
        let mut shape = second.to_vec();
        shape.resize(first.len() - start, 1);
        Ok(shape)
    }
}
