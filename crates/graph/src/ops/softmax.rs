//! Softmax and its relatives. Before opset 13 the input is a matrix: all axes from `axis` on are one.

use crate::attributes::Attributes;
use crate::error::OpResult;
use crate::operator::{Args, Backward, Context, Entry, Fact, Keep, Operator, Value, axis, one};
use crate::real::Real;
use crate::rows::RowsOf;

use super::elementwise::one_float;

pub(super) const ENTRIES: &[Entry] = &[
    Entry { name: "Hardmax", build: |a| build(a, Kind::Hardmax) },
    Entry { name: "LogSoftmax", build: |a| build(a, Kind::LogSoftmax) },
    Entry { name: "Softmax", build: |a| build(a, Kind::Softmax) },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hardmax,
    LogSoftmax,
    Softmax,
}

struct Softmax {
    kind: Kind,
    axis: i64,
    /// One axis only, from opset 13.
    single: bool,
}

fn build(a: &Attributes<'_>, kind: Kind) -> OpResult<Box<dyn Operator>> {
    let single = a.opset >= 13;
    Ok(Box::new(Softmax { kind, axis: a.int("axis", if single { -1 } else { 1 })?, single }))
}

impl Softmax {
    /// The shape to work in and the axis there.
    fn view(&self, shape: &[usize]) -> OpResult<(Vec<usize>, usize)> {
        if shape.is_empty() {
            return Ok((vec![1], 0));
        }
        if self.single {
            return Ok((shape.to_vec(), axis(self.axis, shape.len())?));
        }
        // As in Flatten, the axis may be one past the last.
        let at = if self.axis == shape.len() as i64 { shape.len() } else { axis(self.axis, shape.len())? };
        Ok((vec![shape[..at].iter().product(), shape[at..].iter().product()], 1))
    }
}

impl Operator for Softmax {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let x = one_float(inputs)?;
        self.view(&x.shape)?;
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let (shape, axis) = self.view(&outputs[0].shape)?;
        let x = inputs.real(0, cx)?.reshape(&shape);
        let y = match self.kind {
            Kind::Softmax => x.softmax(axis),
            Kind::LogSoftmax => x.log_softmax(axis),
            Kind::Hardmax => Real::new(&shape, hardmax(&x.to_vec(), &shape, axis), &cx.device),
        };
        one(y.reshape(&outputs[0].shape))
    }

    fn eval_scaled(&self, inputs: Args<'_, Value>, factor: f32, cx: &Context) -> OpResult<Option<Real>> {
        let x = inputs.real(0, cx)?;
        let (shape, axis) = self.view(x.shape())?;
        if self.kind != Kind::Softmax {
            return Ok(None);
        }
        Ok(x.reshape(&shape).scaled_softmax(axis, factor).map(|y| y.reshape(x.shape())))
    }

    fn softmax_axis(&self, rank: usize) -> Option<usize> {
        let at = axis(self.axis, rank).ok().filter(|_| self.kind == Kind::Softmax)?;
        (self.single || at + 1 == rank).then_some(at)
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let (shape, axis) = self.view(&call.facts[0].shape)?;
        let g = call.gradient().reshape(&shape);
        let y = || Ok::<_, crate::error::OpError>(Args(call.outputs).real(0, call.cx)?.reshape(&shape));
        let dx = match self.kind {
            Kind::Hardmax => return Ok(Some(vec![None])),
            Kind::Softmax => {
                let y = y()?;
                y.softmax_backward(&g, axis).unwrap_or_else(|| y.mul(&g.sub(&g.mul(&y).sum(&[axis]))))
            }
            Kind::LogSoftmax => {
                let y = y()?;
                y.log_softmax_backward(&g, axis).unwrap_or_else(|| g.sub(&y.exp().mul(&g.sum(&[axis]))))
            }
        };
        Ok(Some(vec![Some(dx.reshape(&call.facts[0].shape))]))
    }

    fn keep(&self) -> Keep {
        Keep::Outputs
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        let at = axis(self.axis, call.output.rank()).ok()?;
        call.only(0).filter(|&rows| if self.single { rows != at } else { rows < at })
    }
}

/// 1 at the first largest entry along the axis, where NaN counts as largest; else 0.
fn hardmax(x: &[f32], shape: &[usize], axis: usize) -> Vec<f32> {
    let (length, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let mut y = vec![0.0; x.len()];
    for start in (0..x.len()).filter(|i| i / inner % length == 0) {
        let mut best = start;
        for i in (0..length).map(|i| start + i * inner) {
            if !x[best].is_nan() && (x[i] > x[best] || x[i].is_nan()) {
                best = i;
            }
        }
        y[best] = 1.0;
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::{Attr, run};
    use netproof_tensor::Tensor;

    #[test]
    fn the_first_maximum_wins() {
        assert_eq!(hardmax(&[1.0, 3.0, 3.0, 2.0], &[1, 4], 1), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(hardmax(&[1.0, 3.0, 1.0, 2.0], &[2, 2], 0), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(hardmax(&[1.0, f32::NAN, f32::NAN], &[3], 0), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn before_opset_13_the_axes_from_axis_on_are_one() {
        let old = |axis| Softmax { kind: Kind::Softmax, axis, single: false };
        assert_eq!(old(1).view(&[2, 3, 4]), Ok((vec![2, 12], 1)));
        assert_eq!(old(0).view(&[2, 3, 4]), Ok((vec![1, 24], 1)));
        assert_eq!(old(-1).view(&[2, 3, 4]), Ok((vec![6, 4], 1)));
        assert!(old(4).view(&[2, 3, 4]).is_err());
    }

    #[test]
    fn the_opset_says_what_is_normalised() {
        let x = || Some(Tensor::zeros(vec![2, 2, 4]).unwrap());
        let first = |opset, axis: &[(&str, Attr)]| {
            ["Softmax", "LogSoftmax"].map(|o| run(o, opset, axis, &[x()]).unwrap()[0].as_f32().unwrap()[0])
        };
        let near = |got: [f32; 2], p: f32| (got[0] - p).abs() < 1e-6 && (got[1] - p.ln()).abs() < 1e-6;
        assert!(near(first(12, &[]), 0.125) && near(first(13, &[]), 0.25));
        let axis = [("axis", Attr::Int(0))];
        assert!(near(first(12, &axis), 1.0 / 16.0) && near(first(13, &axis), 0.5));
    }
}
