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
    /// Where the updates go: the data is seen as rows of some elements, and each row of the updates has its row.
    fn rows(&self, inputs: Args<'_, Value>) -> OpResult<(usize, Vec<usize>)> {
        let (data, indices) = (inputs.need(0)?.shape(), inputs.need(1)?.shape());
        let values = inputs.ints(1)?;
        match self.places {
            Places::Elements(a) => Ok((1, element_positions(data, indices, &values, axis(a, data.len())?)?)),
            Places::Nd => {
                let tuple = indices.last().copied().unwrap_or(0);
                let steps = strides(&data[..tuple]);
                let tuples: usize = indices[..indices.len() - 1].iter().product();
                let row = |t: usize| {
                    (0..tuple).map(|d| Ok(entry(values[t * tuple + d], data[d])? * steps[d])).sum::<OpResult<usize>>()
                };
                Ok((data[tuple..].iter().product(), (0..tuples).map(row).collect::<OpResult<_>>()?))
            }
        }
    }

    /// Position in the data of each element of the updates.
    fn positions(&self, inputs: Args<'_, Value>) -> OpResult<Vec<usize>> {
        let (run, rows) = self.rows(inputs)?;
        Ok(rows.into_iter().flat_map(|r| r * run..(r + 1) * run).collect())
    }

    /// The reduction of two floats. NaN wins.
    fn combine(&self, old: f32, update: f32) -> f32 {
        match self.reduction {
            Reduction::None => update,
            Reduction::Add => old + update,
            Reduction::Mul => old * update,
            _ if old.is_nan() || update.is_nan() => f32::NAN,
            Reduction::Max => old.max(update),
            Reduction::Min => old.min(update),
        }
    }

    /// Gradients of data and updates where the result is a product or an extreme of both.
    fn host_gradients(&self, call: &Backward<'_>) -> OpResult<(Vec<f32>, Vec<f32>)> {
        let positions = self.positions(call.inputs)?;
        let data = call.inputs.real(0, call.cx)?.to_vec();
        let updates = call.inputs.real(2, call.cx)?.to_vec();
        let mut data_gradient = call.gradient().to_vec();
        if self.reduction == Reduction::Mul {
            // All other factors: those before, times those behind. Dividing by the own factor would fail at zero.
            let mut before = data;
            let mut update_gradient = Vec::with_capacity(updates.len());
            for (&p, &u) in positions.iter().zip(&updates) {
                update_gradient.push(before[p]);
                before[p] *= u;
            }
            for (k, (&p, &u)) in positions.iter().zip(&updates).enumerate().rev() {
                update_gradient[k] *= data_gradient[p];
                data_gradient[p] *= u;
            }
            return Ok((data_gradient, update_gradient));
        }
        // At ties the first has it all: the data, then the updates in order.
        let mut best = data;
        let mut holder: Vec<Option<usize>> = vec![None; best.len()];
        for (k, (&p, &u)) in positions.iter().zip(&updates).enumerate() {
            let result = self.combine(best[p], u);
            if result != best[p] && !best[p].is_nan() {
                (best[p], holder[p]) = (result, Some(k));
            }
        }
        let mut update_gradient = vec![0.0; updates.len()];
        for (g, holder) in data_gradient.iter_mut().zip(holder) {
            if let Some(k) = holder {
                update_gradient[k] = std::mem::take(g);
            }
        }
        Ok((data_gradient, update_gradient))
    }
}

/// For each row of the result where it comes from: the data, or the last update put there.
fn sources(count: usize, rows: &[usize]) -> Vec<usize> {
    let mut sources: Vec<usize> = (0..count).collect();
    rows.iter().enumerate().for_each(|(u, &r)| sources[r] = count + u);
    sources
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
        if fact.dtype.is_float() {
            let (data, updates) = (inputs.real(0, cx)?, inputs.real(2, cx)?);
            let (run, rows) = self.rows(inputs)?;
            if updates.count() == 0 {
                return Ok(vec![Value::Real(data)]);
            }
            let n = data.count() / run;
            let (old, new) = (data.reshape(&[n, run]), updates.reshape(&[rows.len(), run]));
            let result = match self.reduction {
                Reduction::None => Real::concat(&[old, new], 0).select(0, &sources(n, &rows)),
                Reduction::Add => old.add_at(0, &rows, &new),
                _ => {
                    let mut values = data.to_vec();
                    for (p, u) in self.positions(inputs)?.into_iter().zip(updates.to_vec()) {
                        values[p] = self.combine(values[p], u);
                    }
                    Real::new(&fact.shape, values, &cx.device)
                }
            };
            return Ok(vec![Value::Real(result.reshape(&fact.shape))]);
        }
        let positions = self.positions(inputs)?;
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
        let updates = call.inputs.need(2)?.shape();
        let zeros = |shape: &[usize]| Real::full(shape, 0.0, &call.cx.device);
        let (run, rows) = self.rows(call.inputs)?;
        let (data_gradient, update_gradient) = if updates.contains(&0) || g.count() == 0 {
            (g.clone(), zeros(updates))
        } else {
            let n = g.count() / run;
            let by_row = g.reshape(&[n, run]);
            match self.reduction {
                Reduction::Add => (g.clone(), by_row.select(0, &rows).reshape(updates)),
                Reduction::None => {
                    let all = zeros(&[n + rows.len(), run]).add_at(0, &sources(n, &rows), &by_row);
                    let data = all.narrow(0, 0, n).reshape(g.shape());
                    (data, all.narrow(0, n, n + rows.len()).reshape(updates))
                }
                _ => {
                    let (data, update) = self.host_gradients(call)?;
                    (Real::new(g.shape(), data, &call.cx.device), Real::new(updates, update, &call.cx.device))
                }
            }
        };
        Ok(Some(vec![call.wants(0).then_some(data_gradient), None, call.wants(2).then_some(update_gradient)]))
    }
}

fn put<T: Clone>(old: &[T], new: &[T], positions: &[usize]) -> Vec<T> {
    let mut values = old.to_vec();
    positions.iter().zip(new).for_each(|(&p, v)| values[p] = v.clone());
    values
}
