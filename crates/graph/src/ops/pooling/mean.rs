//! Means of windows.

use crate::attributes::Attributes;
use crate::error::OpResult;
use crate::operator::{Args, Backward, Context, Fact, Operator, Value, one};
use crate::real::Real;
use crate::rows::RowsOf;

use super::super::window::{Geometry, Sliding};
use super::{Reach, Sums, only_float, pooled};

/// Means of windows.
pub(super) struct AveragePool {
    sliding: Sliding,
    count_padding: bool,
}

impl AveragePool {
    pub(super) fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self { sliding: Sliding::pooling(a)?, count_padding: a.flag("count_include_pad", false)? }))
    }

    /// One over the number of elements of each window, of shape `[1, 1, ...]`.
    fn weights(&self, geometry: &Geometry, cx: &Context) -> Real {
        let mut weights = vec![1.0f32];
        let dilated = geometry.dilation.iter().any(|&d| d > 1);
        for i in 0..geometry.rank() {
            let counts: Vec<usize> = if self.count_padding && dilated {
                // The recorded answers of the operator count all of a dilated window, and not all of another one.
                vec![geometry.kernel[i]; geometry.output[i]]
            } else if self.count_padding {
                let padded = geometry.input[i] + geometry.padding[i].0 + geometry.padding[i].1;
                // A window that is rounded up to reaches behind the padding; what lies there never counts.
                let inside = |o: usize| {
                    let first = o * geometry.stride[i];
                    geometry.kernel[i].min(padded - first)
                };
                (0..geometry.output[i]).map(inside).collect()
            } else {
                geometry.positions(i).iter().map(Vec::len).collect()
            };
            weights = weights.iter().flat_map(|w| counts.iter().map(move |&c| w / c.max(1) as f32)).collect();
        }
        Real::new(&[&[1, 1], &geometry.output[..]].concat(), weights, &cx.device)
    }
}

impl Operator for AveragePool {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let x = only_float(inputs)?;
        let geometry = self.sliding.pool(&x.shape)?;
        Ok(vec![Fact::new(x.dtype, pooled(&x.shape, &geometry.output)?)])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.real(0, cx)?;
        let geometry = self.sliding.pool(x.shape())?;
        one(Sums::new(&geometry, x.shape()[1], cx).of(&x).mul(&self.weights(&geometry, cx)))
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let of_x = call.when(0, || {
            let x = call.inputs.need(0)?.shape();
            if call.gradient().count() == 0 {
                return Ok(Real::full(x, 0.0, &call.cx.device));
            }
            let geometry = self.sliding.pool(x)?;
            let g = call.gradient().mul(&self.weights(&geometry, call.cx));
            Ok(Sums::new(&geometry, x[1], call.cx).back(&g))
        })?;
        Ok(Some(vec![of_x]))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.only(0).filter(|&axis| axis == 0)
    }
}

/// Mean over all spatial axes.
pub(super) struct GlobalAveragePool;

impl GlobalAveragePool {
    pub(super) fn build(_: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self))
    }
}

impl Operator for GlobalAveragePool {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let x = only_float(inputs)?;
        let geometry = Reach::Global.geometry(&x.shape)?;
        Ok(vec![Fact::new(x.dtype, pooled(&x.shape, &geometry.output)?)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.real(0, cx)?;
        // One axis to sum over is faster than several.
        let lead = x.shape()[..2].iter().product::<usize>();
        let size = x.count() / lead.max(1);
        one(x.reshape(&[lead, size]).mean(&[1]).reshape(&outputs[0].shape))
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let of_x = call.when(0, || {
            let x = call.inputs.need(0)?.shape();
            if call.gradient().count() == 0 {
                return Ok(Real::full(x, 0.0, &call.cx.device));
            }
            let size: usize = x[2..].iter().product();
            Ok(call.gradient().mul_scalar(1.0 / size as f32).expand(x))
        })?;
        Ok(Some(vec![of_x]))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.only(0).filter(|&axis| axis == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::checks::{RULES, gradient, sliding, tensor};
    use super::*;
    use crate::ops::test_support::{Attr, run};

    #[test]
    fn means_agree_with_the_written_out_sum_and_their_gradient_is_the_transpose() {
        for rule in RULES {
            for count_padding in [false, true] {
                let (k, s, d, b, e, ceil) = rule;
                let x = tensor(&[2, 3, 7], 3);
                let mut attributes = sliding(rule, 1);
                attributes.push(("count_include_pad", Attr::Int(count_padding.into())));
                let y = run("AveragePool", 19, &attributes, &[Some(x.clone())]).unwrap().remove(0);
                let n = y.shape()[2];
                let g = tensor(y.shape(), 4);
                let mut dx = vec![0.0f32; x.len()];
                for row in 0..6 {
                    for o in 0..n {
                        let seen: Vec<usize> = (0..k).map(|j| o * s + j * d).filter(|&p| p < 7 + b + e).collect();
                        let inside: Vec<usize> = seen.iter().copied().filter(|&p| p >= b && p < b + 7).collect();
                        let padded = if d > 1 { k } else { seen.len() };
                        let count = if count_padding { padded } else { inside.len() } as f32;
                        let at = |p: usize| row * 7 + p - b;
                        let want = inside.iter().map(|&p| x.as_f32().unwrap()[at(p)]).sum::<f32>() / count;
                        let got = y.as_f32().unwrap()[row * n + o];
                        assert!((got - want).abs() < 1e-5, "{rule:?} {count_padding}: {got} {want}");
                        for p in inside {
                            dx[at(p)] += g.as_f32().unwrap()[row * n + o] / count;
                        }
                    }
                }
                let lists = [vec![k], vec![s], vec![d]];
                let op = AveragePool { sliding: Sliding::of(lists, vec![b, e], ceil), count_padding };
                for (got, want) in gradient(&op, &x, &y, &g).iter().zip(&dx) {
                    assert!((got - want).abs() < 1e-5, "{rule:?} {count_padding}: {got} {want}");
                }
            }
        }
    }
}
