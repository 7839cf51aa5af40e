//! Scatter: data with updates put at given places, replacing or combined with what is there.

use netproof_tensor::{Elements, Tensor};

use super::{element_positions, element_shapes, entry, index_fact};
use crate::attributes::Attributes;
use crate::error::{OpResult, invalid, unsupported};
use crate::operator::{Args, Backward, Context, Fact, Operator, Value, axis};
use crate::ops::rearrange::strides;
use crate::real::Real;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Reduction {
    None,
    Add,
    Mul,
    Max,
    Min,
}

enum Places {
    /// One index per update, along this axis.
    Elements(i64),
    /// One index tuple per slice of updates.
    Nd,
}

struct Scatter {
    places: Places,
    reduction: Reduction,
}

fn reduction(a: &Attributes<'_>) -> OpResult<Reduction> {
    Ok(match a.text("reduction", "none")?.as_str() {
        "none" => Reduction::None,
        "add" => Reduction::Add,
        "mul" => Reduction::Mul,
        "max" => Reduction::Max,
        "min" => Reduction::Min,
        other => unsupported!("attribute `reduction` is {other}"),
    })
}

pub(super) fn elements(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
    Ok(Box::new(Scatter { places: Places::Elements(a.int("axis", 0)?), reduction: reduction(a)? }))
}

pub(super) fn nd(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
    Ok(Box::new(Scatter { places: Places::Nd, reduction: reduction(a)? }))
}

impl Scatter {
    /// Position in the data of each element of the updates.
    fn positions(&self, inputs: Args<'_, Value>) -> OpResult<Vec<usize>> {
        let (data, indices) = (inputs.need(0)?.shape(), inputs.need(1)?.shape());
        let values = inputs.ints(1)?;
        match self.places {
            Places::Elements(a) => element_positions(data, indices, &values, axis(a, data.len())?),
            Places::Nd => {
                let tuple = indices.last().copied().unwrap_or(0);
                let steps = strides(data);
                let inner: usize = data[tuple..].iter().product();
                let tuples: usize = indices[..indices.len() - 1].iter().product();
                let mut out = Vec::with_capacity(tuples * inner);
                for t in 0..tuples {
                    let mut base = 0;
                    for d in 0..tuple {
                        base += entry(values[t * tuple + d], data[d])? * steps[d];
                    }
                    out.extend(base..base + inner);
                }
                Ok(out)
            }
        }
    }

    /// For each element of the result where it comes from: the data, or the last update put there.
    fn sources(&self, count: usize, positions: &[usize]) -> Vec<usize> {
        let mut sources: Vec<usize> = (0..count).collect();
        positions.iter().enumerate().for_each(|(u, &p)| sources[p] = count + u);
        sources
    }
}

impl Operator for Scatter {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let (data, indices, updates) = (inputs.need(0)?, index_fact(inputs, 1)?, inputs.need(2)?);
        if updates.dtype != data.dtype {
            invalid!("updates are {}, data {}", updates.dtype, data.dtype);
        }
        match self.places {
            Places::Elements(a) => {
                element_shapes(data, indices, axis(a, data.rank())?)?;
                if indices.shape != updates.shape {
                    invalid!("indices are {:?}, updates {:?}", indices.shape, updates.shape);
                }
            }
            Places::Nd => {
                let tuple = indices.shape.last().copied().unwrap_or(usize::MAX);
                let fits = tuple <= data.rank()
                    && updates.shape == [&indices.shape[..indices.rank() - 1], &data.shape[tuple..]].concat();
                if !fits {
                    let shapes = (&data.shape, &indices.shape, &updates.shape);
                    invalid!("data, indices and updates have shapes {shapes:?}, which do not fit");
                }
            }
        }
        if !data.dtype.is_float() && !data.dtype.is_int() && self.reduction != Reduction::None {
            unsupported!("attribute `reduction` is {:?} for {} values", self.reduction, data.dtype);
        }
        Ok(vec![Fact::new(data.dtype, data.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let fact = &outputs[0];
        let n = fact.count();
        let positions = self.positions(inputs)?;
        if fact.dtype.is_float() {
            let (data, updates) = (inputs.real(0, cx)?, inputs.real(2, cx)?);
            if updates.count() == 0 {
                return Ok(vec![Value::Real(data)]);
            }
            let (flat, new) = (data.reshape(&[n]), updates.reshape(&[updates.count()]));
            let result = match self.reduction {
                Reduction::None => Real::concat(&[flat, new], 0).select(0, &self.sources(n, &positions)),
                Reduction::Add => flat.add_at(0, &positions, &new),
                kind => {
                    let mut values = flat.to_vec();
                    for (&p, u) in positions.iter().zip(new.to_vec()) {
                        let old = values[p];
                        values[p] = match kind {
                            Reduction::Mul => old * u,
                            _ if old.is_nan() || u.is_nan() => f32::NAN,
                            Reduction::Max => old.max(u),
                            _ => old.min(u),
                        };
                    }
                    Real::new(&[n], values, &cx.device)
                }
            };
            return Ok(vec![Value::Real(result.reshape(&fact.shape))]);
        }
        let (data, updates) = (inputs.need(0)?.to_host(), inputs.need(2)?.to_host());
        let elements = match (data.elements(), updates.elements()) {
            (Elements::Int(old), Elements::Int(new)) => {
                let mut values = old.clone();
                let number = |v: i64| crate::ops::elementwise::exact(fact.dtype, v);
                for (&p, &u) in positions.iter().zip(new) {
                    let v = values[p];
                    values[p] = fact.dtype.wrap(match self.reduction {
                        Reduction::None => u,
                        Reduction::Add => v.wrapping_add(u),
                        Reduction::Mul => v.wrapping_mul(u),
                        Reduction::Max => {
                            if number(u) > number(v) {
                                u
                            } else {
                                v
                            }
                        }
                        Reduction::Min => {
                            if number(u) < number(v) {
                                u
                            } else {
                                v
                            }
                        }
                    });
                }
                Elements::Int(values)
            }
            (Elements::Bool(old), Elements::Bool(new)) => Elements::Bool(put(old, new, &positions)),
            (Elements::Text(old), Elements::Text(new)) => Elements::Text(put(old, new, &positions)),
            _ => invalid!("updates are {}, data {}", updates.dtype(), data.dtype()),
        };
        Ok(vec![Value::host(Tensor::new(fact.dtype, fact.shape.clone(), elements)?)])
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let g = call.gradient();
        let n = g.count();
        let positions = self.positions(call.inputs)?;
        let updates = call.inputs.need(2)?.shape().to_vec();
        let flat = g.reshape(&[n]);
        let zeros = |shape: &[usize]| Real::full(shape, 0.0, &call.cx.device);
        let (data_gradient, update_gradient) = match self.reduction {
            Reduction::Add => (
                g.clone(),
                if positions.is_empty() { zeros(&updates) } else { flat.select(0, &positions).reshape(&updates) },
            ),
            Reduction::None => {
                let sources = self.sources(n, &positions);
                let all = zeros(&[n + positions.len()]).add_at(0, &sources, &flat);
                let data = all.narrow(0, 0, n).reshape(g.shape());
                (data, all.narrow(0, n, n + positions.len()).reshape(&updates))
            }
            other => unsupported!("the gradient of attribute `reduction` {other:?}"),
        };
        Ok(Some(vec![call.wants(0).then_some(data_gradient), None, call.wants(2).then_some(update_gradient)]))
    }
}

fn put<T: Clone>(old: &[T], new: &[T], positions: &[usize]) -> Vec<T> {
    let mut values = old.to_vec();
    positions.iter().zip(new).for_each(|(&p, v)| values[p] = v.clone());
    values
}
