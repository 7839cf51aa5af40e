//! Parts to a whole and back: Concat and Split.

use netproof_tensor::{Elements, Tensor};

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid};
use crate::operator::{Args, Backward, Context, Fact, Operator, Value, axis, checked_shape};
use crate::ops::rearrange::{Fill, How, moved};
use crate::real::Real;
use crate::rows::{Along, RowsOf};

struct Concat(i64);

pub(super) fn concat(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
    let axis = match a.optional_int("axis")? {
        Some(axis) => axis,
        None if a.opset < 4 => 1,
        None => invalid!("attribute `axis` is missing"),
    };
    Ok(Box::new(Concat(axis)))
}

impl Operator for Concat {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let first = inputs.need(0)?;
        let at = axis(self.0, first.rank())?;
        let mut dims: Vec<i64> = first.shape.iter().map(|&d| d as i64).collect();
        for i in 1..inputs.len() {
            let part = inputs.need(i)?;
            let fits = part.rank() == first.rank()
                && part.dtype == first.dtype
                && (0..first.rank()).all(|d| d == at || part.shape[d] == first.shape[d]);
            if !fits {
                invalid!(
                    "input {i} is {} {:?}, which does not join {} {:?} along axis {at}",
                    part.dtype,
                    part.shape,
                    first.dtype,
                    first.shape
                );
            }
            dims[at] = dims[at].saturating_add(part.shape[at] as i64);
        }
        Ok(vec![Fact::new(first.dtype, checked_shape(&dims)?)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let fact = &outputs[0];
        let at = axis(self.0, fact.rank())?;
        if fact.dtype.is_float() {
            let parts = (0..inputs.len()).map(|i| inputs.real(i, cx)).collect::<OpResult<Vec<_>>>()?;
            return Ok(vec![Value::Real(Real::concat(&parts, at))]);
        }
        let parts: Vec<_> = inputs.present().map(Value::to_host).collect();
        let inner: usize = fact.shape[at + 1..].iter().product();
        let outer: usize = fact.shape[..at].iter().product();
        let mut order = Vec::with_capacity(fact.count());
        let mut starts = Vec::new();
        let mut total = 0;
        for p in &parts {
            starts.push(total);
            total += p.len();
        }
        for o in 0..outer {
            for (p, start) in parts.iter().zip(&starts) {
                let run = p.shape()[at] * inner;
                order.extend(start + o * run..start + (o + 1) * run);
            }
        }
        let elements = joined(&parts.iter().map(|p| p.elements()).collect::<Vec<_>>());
        let whole = Value::host(Tensor::new(fact.dtype, vec![total], elements)?);
        Ok(vec![moved(&whole, &How::Index(order), &fact.shape, &Fill::default())?])
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let g = call.gradient();
        let at = axis(self.0, g.rank())?;
        let mut start = 0;
        let mut gradients = Vec::new();
        for i in 0..call.inputs.len() {
            let end = start + call.inputs.need(i)?.shape()[at];
            gradients.push(call.when(i, || {
                if start == end {
                    let shape = call.inputs.need(i)?.shape();
                    return Ok(Real::full(shape, 0.0, &call.cx.device));
                }
                Ok(g.narrow(at, start, end))
            })?);
            start = end;
        }
        Ok(Some(gradients))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        let at = axis(self.0, call.output.rank()).ok()?;
        let Some(&Along::Axis(rows)) = call.along.first() else { return None };
        (rows != at && call.along.iter().all(|&a| a == Along::Axis(rows))).then_some(rows)
    }
}

fn joined(parts: &[&Elements]) -> Elements {
    macro_rules! join {
        ($kind:ident) => {
            Elements::$kind(
                parts.iter().flat_map(|p| if let Elements::$kind(v) = p { v.clone() } else { Vec::new() }).collect(),
            )
        };
    }
    match parts.first() {
        Some(Elements::Bool(_)) => join!(Bool),
        Some(Elements::Text(_)) => join!(Text),
        Some(Elements::Float(_)) => join!(Float),
        _ => join!(Int),
    }
}

struct Split {
    axis: i64,
    outputs: usize,
    sizes: Option<Vec<i64>>,
    input: bool,
    /// From opset 18 on, the last part may be smaller than the others.
    uneven: bool,
}

pub(super) fn split(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
    let sizes = if a.opset < 13 { a.ints("split")? } else { None };
    let parts = if a.opset >= 18 { a.optional_int("num_outputs")? } else { None };
    if let Some(n) = parts
        && n != a.outputs() as i64
    {
        invalid!("attribute `num_outputs` is {n}, the node has {} outputs", a.outputs());
    }
    Ok(Box::new(Split {
        axis: a.int("axis", 0)?,
        outputs: a.outputs(),
        sizes,
        input: a.opset < 2 || a.opset >= 13,
        uneven: a.opset >= 18,
    }))
}

impl Split {
    fn sizes(&self, inputs: Args<'_, Fact>) -> OpResult<(usize, Vec<usize>)> {
        let input = inputs.need(0)?;
        let at = axis(self.axis, input.rank())?;
        let d = input.shape[at];
        let given = match (&self.sizes, self.input && inputs.get(1).is_some()) {
            (Some(s), _) => Some(s.clone()),
            (None, true) => Some(inputs.ints(1)?),
            (None, false) => None,
        };
        let Some(given) = given else {
            let n = self.outputs.max(1);
            if !self.uneven && !d.is_multiple_of(n) {
                invalid!("axis {at} of size {d} cannot be split into {n} equal parts");
            }
            let each = d.div_ceil(n);
            return Ok((at, (0..n).map(|i| each.min(d.saturating_sub(i * each))).collect()));
        };
        let sizes: Vec<usize> = given.iter().filter_map(|&s| usize::try_from(s).ok()).collect();
        if sizes.len() != given.len() {
            invalid!("parts {given:?} must not be negative");
        }
        if sizes.len() != self.outputs || sizes.iter().fold(0usize, |a, &b| a.saturating_add(b)) != d {
            invalid!("parts {given:?} for {} outputs do not add up to {d}", self.outputs);
        }
        Ok((at, sizes))
    }
}

impl Operator for Split {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let (at, sizes) = self.sizes(inputs)?;
        let input = inputs.need(0)?;
        let part = |n| {
            let mut shape = input.shape.clone();
            shape[at] = n;
            Fact::new(input.dtype, shape)
        };
        Ok(sizes.into_iter().map(part).collect())
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], _: &Context) -> OpResult<Vec<Value>> {
        let input = inputs.need(0)?;
        let at = axis(self.axis, input.shape().len())?;
        let mut start = 0;
        let mut parts = Vec::new();
        for fact in outputs {
            let end = start + fact.shape[at];
            let ranges = input.shape().iter().enumerate().map(|(i, &d)| if i == at { (start, end) } else { (0, d) });
            parts.push(moved(input, &How::Cut(ranges.collect()), &fact.shape, &Fill::default())?);
            start = end;
        }
        Ok(parts)
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let rank = call.inputs.need(0)?.shape().len();
        let at = axis(self.axis, rank)?;
        let parts: Vec<Real> = call
            .gradients
            .iter()
            .zip(call.facts)
            .map(|(g, f)| g.clone().unwrap_or_else(|| Real::full(&f.shape, 0.0, &call.cx.device)))
            .collect();
        let mut gradients = vec![None; call.inputs.len()];
        gradients[0] = call.when(0, || Ok(Real::concat(&parts, at)))?;
        Ok(Some(gradients))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        let (at, _) = self.sizes(call.inputs).ok()?;
        call.only(0).filter(|&rows| rows != at)
    }
}
