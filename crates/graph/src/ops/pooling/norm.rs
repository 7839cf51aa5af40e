//! Norms of windows.

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid};
use crate::operator::{Args, Backward, Context, Fact, Keep, Operator, Value, one};
use crate::real::Real;

use super::super::window::{Geometry, Sliding};
use super::{Reach, Sums, only_float, pooled};

/// p-norms of windows: y = (sum of |x|^p)^(1/p).
pub(super) struct LpPool {
    reach: Reach,
    p: f32,
}

impl LpPool {
    fn order(a: &Attributes<'_>) -> OpResult<f32> {
        let p = if a.opset < 2 { a.float("p", 2.0)? } else { a.int("p", 2)? as f32 };
        if !(p >= 1.0 && p.is_finite()) {
            invalid!("attribute `p` must be at least 1, got {p}");
        }
        Ok(p)
    }

    pub(super) fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self { p: Self::order(a)?, reach: Reach::Sliding(Sliding::pooling(a)?) }))
    }

    pub(super) fn build_global(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self { p: Self::order(a)?, reach: Reach::Global }))
    }

    /// Sums over windows.
    fn sums(&self, x: &Real, geometry: &Geometry, cx: &Context) -> Real {
        match self.reach {
            Reach::Global => x.sum(&(2..x.rank()).collect::<Vec<_>>()),
            Reach::Sliding(_) => Sums::new(geometry, x.shape()[1], cx).of(x),
        }
    }
}

impl Operator for LpPool {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let x = only_float(inputs)?;
        let geometry = self.reach.geometry(&x.shape)?;
        Ok(vec![Fact::new(x.dtype, pooled(&x.shape, &geometry.output)?)])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.real(0, cx)?;
        let geometry = self.reach.geometry(x.shape())?;
        one(if self.p == 1.0 {
            self.sums(&x.abs(), &geometry, cx)
        } else if self.p == 2.0 {
            self.sums(&x.mul(&x), &geometry, cx).sqrt()
        } else {
            self.sums(&x.abs().powf_scalar(self.p), &geometry, cx).powf_scalar(1.0 / self.p)
        })
    }

    /// dy/dx = sign(x) · (|x| / y)^(p - 1), and 0 where a window is all zeros.
    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let of_x = call.when(0, || {
            let x = call.inputs.real(0, call.cx)?;
            if call.gradient().count() == 0 {
                return Ok(Real::full(x.shape(), 0.0, &call.cx.device));
            }
            let geometry = self.reach.geometry(x.shape())?;
            let Some(Some(y)) = call.outputs.first() else { invalid!("the output was not kept") };
            let y = y.real(call.cx)?;
            // 1 where the norm is 0, so that 0 / 0 does not become NaN.
            let safe = y.add(&y.sign().neg().add_scalar(1.0));
            let (slope, scaled) = match self.p {
                1.0 => (x.sign(), call.gradient().clone()),
                2.0 => (x.clone(), call.gradient().div(&safe)),
                p => {
                    let power = |v: Real| v.powf_scalar(p - 1.0);
                    (x.sign().mul(&power(x.abs())), call.gradient().div(&power(safe)))
                }
            };
            let spread = match self.reach {
                Reach::Global => scaled.expand(x.shape()),
                Reach::Sliding(_) => Sums::new(&geometry, x.shape()[1], call.cx).back(&scaled),
            };
            Ok(slope.mul(&spread))
        })?;
        Ok(Some(vec![of_x]))
    }

    fn keep(&self) -> Keep {
        Keep::Both
    }
}

#[cfg(test)]
mod tests {
    use netproof_tensor::Tensor;

    use super::super::checks::{gradient, ints};
    use super::*;
    use crate::ops::test_support::{Attr, run};

    #[test]
    fn norms_of_windows() {
        let x = Tensor::f32(vec![1, 1, 4], vec![3.0, -4.0, 0.0, 0.0]).unwrap();
        let pool = |p: i64| {
            let attributes = [("kernel_shape", ints(&[2])), ("strides", ints(&[2])), ("p", Attr::Int(p))];
            run("LpPool", 18, &attributes, &[Some(x.clone())]).unwrap().remove(0)
        };
        assert_eq!(pool(1).as_f32().unwrap(), [7.0, 0.0]);
        assert_eq!(pool(2).as_f32().unwrap(), [5.0, 0.0]);
        assert!((pool(3).as_f32().unwrap()[0] - 91f32.cbrt()).abs() < 1e-4);
        // A window of zeros has no slope rather than NaN.
        for p in [1.0, 2.0, 3.0] {
            let op = LpPool { reach: Reach::Global, p };
            let (zeros, one) = (Tensor::zeros(vec![1, 1, 3]).unwrap(), Tensor::f32(vec![1, 1, 1], vec![1.0]).unwrap());
            assert_eq!(gradient(&op, &zeros, &Tensor::zeros(vec![1, 1, 1]).unwrap(), &one), [0.0; 3]);
        }
    }
}
