//! Activation functions. NaN stays NaN; slopes are closed forms that stay finite for large inputs.

use netproof_tensor::DType;

use super::elementwise::{Broadcasting, arity, broadcast_shape, exact, int_value, ints, skip_consumed, zip};
use crate::attributes::Attributes;
use crate::bounds;
use crate::error::{OpError, OpResult, invalid};
use crate::kernels::epilogue::Activation;
use crate::operator::{Args, Backward, Context, Entry, Fact, Keep, Operator, Value, one};
use crate::real::Real;
use crate::rows::RowsOf;

pub(super) const ENTRIES: &[Entry] = &[
    Entry { name: "Celu", build: |a| curve(a, Curve::Celu { alpha: a.float("alpha", 1.0)? }) },
    Entry { name: "Clip", build: clip },
    Entry { name: "Elu", build: |a| curve(a, Curve::Elu { alpha: a.float("alpha", 1.0)?, scale: 1.0 }) },
    Entry { name: "Gelu", build: gelu },
    Entry {
        name: "HardSigmoid",
        build: |a| curve(a, Curve::HardSigmoid { alpha: a.float("alpha", 0.2)?, beta: a.float("beta", 0.5)? }),
    },
    Entry { name: "HardSwish", build: |a| curve(a, Curve::HardSwish) },
    Entry { name: "LeakyRelu", build: |a| curve(a, Curve::LeakyRelu { alpha: a.float("alpha", 0.01)? }) },
    Entry { name: "Mish", build: |a| curve(a, Curve::Mish) },
    Entry { name: "PRelu", build: prelu },
    Entry { name: "Relu", build: |a| output_curve(a, OutputCurve::Relu) },
    Entry { name: "Selu", build: selu },
    Entry { name: "Sigmoid", build: |a| output_curve(a, OutputCurve::Sigmoid) },
    Entry { name: "Softplus", build: |a| curve(a, Curve::Softplus) },
    Entry { name: "Softsign", build: |a| curve(a, Curve::Softsign) },
    Entry { name: "Swish", build: |a| curve(a, Curve::Swish { alpha: a.float("alpha", 1.0)? }) },
    Entry { name: "Tanh", build: |a| output_curve(a, OutputCurve::Tanh) },
    Entry { name: "ThresholdedRelu", build: |a| curve(a, Curve::ThresholdedRelu { alpha: a.float("alpha", 1.0)? }) },
];

// Functions of one float tensor whose slope needs the input.

#[derive(Debug, Clone, Copy, PartialEq)]
enum Curve {
    Celu {
        alpha: f32,
    },
    /// Also Selu, with a scale.
    Elu {
        alpha: f32,
        scale: f32,
    },
    Gelu,
    GeluTanh,
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    HardSwish,
    LeakyRelu {
        alpha: f32,
    },
    Mish,
    Softplus,
    Softsign,
    Swish {
        alpha: f32,
    },
    ThresholdedRelu {
        alpha: f32,
    },
}

/// Beyond this, exponentials and hyperbolic tangents have reached their limits in f32.
const SATURATED: f32 = 100.0;
/// sqrt(2 / pi), of the tanh form of Gelu. Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2.
const GELU_SCALE: f32 = 0.797_884_6;
const GELU_CUBE: f32 = 0.044_715;

fn curve(a: &Attributes<'_>, curve: Curve) -> OpResult<Box<dyn Operator>> {
    skip_consumed(a)?;
    if curve == (Curve::Celu { alpha: 0.0 }) {
        invalid!("attribute `alpha` must not be 0");
    }
    Ok(Box::new(curve))
}

fn gelu(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
    match a.text("approximate", "none")?.as_str() {
        "none" => curve(a, Curve::Gelu),
        "tanh" => curve(a, Curve::GeluTanh),
        other => invalid!("attribute `approximate` must be `none` or `tanh`, got `{other}`"),
    }
}

fn selu(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
    // Opset 1 had the same constants with four decimals.
    let (alpha, gamma) = if a.opset >= 6 { (1.673_263_2, 1.050_701) } else { (1.6732, 1.0507) };
    curve(a, Curve::Elu { alpha: a.float("alpha", alpha)?, scale: a.float("gamma", gamma)? })
}

/// exp(x) - 1 without cancellation near and below 0: with t = tanh(x / 2) it is 2 t / (1 - t).
fn expm1(x: &Real) -> Real {
    let t = x.mul_scalar(0.5).tanh();
    t.mul_scalar(2.0).div(&t.neg().add_scalar(1.0))
}

/// max(x, 0) + log(1 + exp(-|x|)), which neither overflows nor cancels.
fn softplus(x: &Real) -> Real {
    x.relu().add(&x.abs().neg().exp().log1p())
}

/// Tangent's argument in the tanh form of Gelu.
fn gelu_tanh(x: &Real) -> Real {
    x.mul(&x.mul(x).mul_scalar(GELU_CUBE).add_scalar(1.0)).mul_scalar(GELU_SCALE).tanh()
}

impl Curve {
    fn value(self, x: &Real) -> Real {
        let zero = x.same(0.0);
        match self {
            // The exponential of what is positive may be infinite: it is not picked.
            Self::Celu { alpha } => {
                let curved = expm1(&x.mul_scalar(1.0 / alpha)).mul_scalar(alpha);
                x.greater(&zero).pick(x, &curved)
            }
            Self::Elu { alpha, scale } => x.greater(&zero).pick(x, &expm1(x).mul_scalar(alpha)).mul_scalar(scale),
            Self::Gelu => x.gelu(),
            Self::GeluTanh => x.mul(&gelu_tanh(x).add_scalar(1.0)).mul_scalar(0.5),
            Self::HardSigmoid { alpha, beta } => x.mul_scalar(alpha).add_scalar(beta).clamp(Some(0.0), Some(1.0)),
            Self::HardSwish => x.activated(Activation::HardSwish),
            Self::LeakyRelu { alpha } => x.less(&zero).pick(&x.mul_scalar(alpha), x),
            Self::Mish => x.clamp(Some(-SATURATED), None).mul(&softplus(x).tanh()),
            Self::Softplus => softplus(x),
            Self::Softsign => x.div(&x.abs().add_scalar(1.0)),
            Self::Swish { alpha } => x.mul(&x.mul_scalar(alpha).sigmoid()),
            Self::ThresholdedRelu { alpha } => {
                // NaN is neither above nor below.
                let above = x.greater(&x.same(alpha)).keep(x);
                x.is_nan().pick(x, &above)
            }
        }
    }

    /// Gradient of the input, given that of the output.
    fn gradient(self, x: &Real, g: &Real) -> Real {
        let zero = x.same(0.0);
        match self {
            Self::Celu { alpha } => {
                let slope = x.mul_scalar(1.0 / alpha).exp();
                x.greater(&zero).pick(g, &g.mul(&slope))
            }
            Self::Elu { alpha, scale } => {
                let slope = x.exp().mul_scalar(alpha);
                x.greater(&zero).pick(g, &g.mul(&slope)).mul_scalar(scale)
            }
            Self::Gelu => x.gelu_backward(g),
            Self::GeluTanh => {
                let x = x.clamp(Some(-SATURATED), Some(SATURATED));
                let t = gelu_tanh(&x);
                let inner = x.mul(&x).mul_scalar(3.0 * GELU_CUBE).add_scalar(1.0).mul_scalar(GELU_SCALE);
                let curved = x.mul(&t.mul(&t).neg().add_scalar(1.0)).mul(&inner);
                g.mul(&t.add_scalar(1.0).add(&curved)).mul_scalar(0.5)
            }
            Self::HardSigmoid { alpha, beta } => {
                let y = x.mul_scalar(alpha).add_scalar(beta);
                let inside = y.less(&x.same(1.0)).keep(g);
                y.greater(&zero).keep(&inside).mul_scalar(alpha)
            }
            Self::HardSwish => {
                if let Some(g) = x.hard_swish_backward(g) {
                    return g;
                }
                let curved = g.mul(&x.mul_scalar(1.0 / 3.0).add_scalar(0.5));
                let upper = x.less(&x.same(3.0)).pick(&curved, g);
                x.greater(&x.same(-3.0)).keep(&upper)
            }
            Self::LeakyRelu { alpha } => x.less(&zero).pick(&g.mul_scalar(alpha), g),
            Self::Mish => {
                let x = x.clamp(Some(-SATURATED), Some(SATURATED));
                let t = softplus(&x).tanh();
                let curved = x.mul(&t.mul(&t).neg().add_scalar(1.0)).mul(&x.sigmoid());
                g.mul(&t.add(&curved))
            }
            Self::Softplus => g.mul(&x.sigmoid()),
            Self::Softsign => {
                let r = x.abs().add_scalar(1.0).recip();
                g.mul(&r).mul(&r)
            }
            Self::Swish { alpha } => {
                let s = x.mul_scalar(alpha).sigmoid();
                let curved = x.mul(&s).mul(&s.neg().add_scalar(1.0)).mul_scalar(alpha);
                g.mul(&s.add(&curved))
            }
            Self::ThresholdedRelu { alpha } => x.greater(&x.same(alpha)).keep(g),
        }
    }
}

impl Operator for Curve {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        arity(inputs, 1, 1)?;
        let x = inputs.float(0)?;
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        one(self.value(&inputs.real(0, cx)?))
    }

    fn activation(&self, _inputs: Args<'_, Value>) -> OpResult<Option<Activation>> {
        Ok((*self == Self::HardSwish).then_some(Activation::HardSwish))
    }

    fn curve(&self, _inputs: Args<'_, Value>) -> OpResult<Option<bounds::Curve>> {
        Ok(match *self {
            Self::Celu { alpha } => {
                let alpha = f64::from(alpha);
                (alpha > 0.0).then_some(bounds::Curve::Elu { alpha, scale: 1.0, width: alpha })
            }
            Self::Elu { alpha, scale } => {
                Some(bounds::Curve::Elu { alpha: f64::from(alpha), scale: f64::from(scale), width: 1.0 })
            }
            Self::Gelu => Some(bounds::Curve::Gelu),
            Self::GeluTanh => Some(bounds::Curve::GeluTanh),
            Self::HardSigmoid { alpha, beta } => {
                Some(bounds::Curve::Clamp { slope: f64::from(alpha), shift: f64::from(beta), low: 0.0, high: 1.0 })
            }
            Self::HardSwish => Some(bounds::Curve::HardSwish),
            Self::LeakyRelu { alpha } => Some(bounds::Curve::Hinge { left: f64::from(alpha), right: 1.0 }),
            Self::Mish => Some(bounds::Curve::Mish),
            Self::Softplus => Some(bounds::Curve::Softplus),
            Self::Softsign => Some(bounds::Curve::Softsign),
            Self::Swish { alpha } => Some(bounds::Curve::Swish { alpha: f64::from(alpha) }),
            // It jumps.
            Self::ThresholdedRelu { .. } => None,
        })
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        Ok(Some(vec![Some(self.gradient(&call.inputs.real(0, call.cx)?, call.gradient()))]))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.elementwise()
    }
}

// Functions whose slope is a function of the output, so that the input need not be kept.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutputCurve {
    Relu,
    Sigmoid,
    Tanh,
}

fn output_curve(a: &Attributes<'_>, curve: OutputCurve) -> OpResult<Box<dyn Operator>> {
    skip_consumed(a)?;
    Ok(Box::new(curve))
}

impl Operator for OutputCurve {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        arity(inputs, 1, 1)?;
        let x = inputs.need(0)?;
        let fits = x.dtype.is_float() || (*self == Self::Relu && x.dtype.is_int());
        if !fits {
            invalid!("does not take {}", x.dtype);
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let dtype = outputs[0].dtype;
        if !dtype.is_float() {
            let x = inputs.need(0)?.to_host();
            let values = ints(&x)?.iter().map(|&v| if exact(dtype, v) > 0 { v } else { 0 }).collect();
            return Ok(vec![int_value(&outputs[0], values)?]);
        }
        let x = inputs.real(0, cx)?;
        one(match self {
            Self::Relu => x.relu(),
            Self::Sigmoid => x.sigmoid(),
            Self::Tanh => x.tanh(),
        })
    }

    fn activation(&self, _inputs: Args<'_, Value>) -> OpResult<Option<Activation>> {
        Ok((*self == Self::Relu).then_some(Activation::Clamp(0.0, f32::INFINITY)))
    }

    fn curve(&self, _inputs: Args<'_, Value>) -> OpResult<Option<bounds::Curve>> {
        Ok(Some(match self {
            Self::Relu => bounds::Curve::Hinge { left: 0.0, right: 1.0 },
            Self::Sigmoid => bounds::Curve::Sigmoid,
            Self::Tanh => bounds::Curve::Tanh,
        }))
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let g = call.gradient();
        let y = Args(call.outputs).real(0, call.cx)?;
        Ok(Some(vec![Some(match self {
            Self::Relu => y.relu_backward(g),
            Self::Sigmoid => y.sigmoid_backward(g),
            Self::Tanh => g.mul(&y.mul(&y).neg().add_scalar(1.0)),
        })]))
    }

    fn keep(&self) -> Keep {
        Keep::Outputs
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.elementwise()
    }
}

// PRelu.

/// x where x is at least 0, else slope · x. The slope broadcasts to x, not the other way.
struct PRelu {
    /// Before opset 7 a slope of one axis belongs to the channels.
    legacy: bool,
}

fn prelu(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
    skip_consumed(a)?;
    Ok(Box::new(PRelu { legacy: a.opset < 7 }))
}

impl PRelu {
    fn slope_shape(&self, x: &[usize], slope: &[usize]) -> OpResult<Vec<usize>> {
        if self.legacy && slope.len() == 1 && x.len() > 1 {
            return Broadcasting::Legacy { enabled: true, axis: Some(1) }.second_shape(x, slope);
        }
        Ok(slope.to_vec())
    }
}

impl Operator for PRelu {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        arity(inputs, 2, 2)?;
        let (x, slope) = (inputs.need(0)?, inputs.need(1)?);
        if x.dtype != slope.dtype || matches!(x.dtype, DType::Bool | DType::Text) {
            invalid!("does not take {} with a slope of {}", x.dtype, slope.dtype);
        }
        let shape = self.slope_shape(&x.shape, &slope.shape)?;
        if broadcast_shape([x.shape.as_slice(), &shape])? != x.shape {
            invalid!("slope {:?} does not broadcast to {:?}", slope.shape, x.shape);
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let (x, slope) = (inputs.need(0)?, inputs.need(1)?);
        let shape = self.slope_shape(x.shape(), slope.shape())?;
        let dtype = outputs[0].dtype;
        if dtype.is_float() {
            let (x, slope) = (x.real(cx)?, slope.real(cx)?.reshape(&shape));
            return one(x.less(&x.same(0.0)).pick(&x.mul(&slope), &x));
        }
        let (x, slope) = (x.to_host(), slope.to_host());
        let values = zip((ints(&x)?, x.shape()), (ints(&slope)?, &shape), &outputs[0].shape, |&x, &s| {
            if exact(dtype, x) < 0 { x.wrapping_mul(s) } else { x }
        });
        Ok(vec![int_value(&outputs[0], values)?])
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let g = call.gradient();
        let (x, slope) = (call.inputs.real(0, call.cx)?, call.inputs.real(1, call.cx)?);
        let shape = self.slope_shape(x.shape(), slope.shape())?;
        let negative = x.less(&x.same(0.0));
        let dx = call.when(0, || Ok(negative.pick(&g.mul(&slope.reshape(&shape)), g)))?;
        let ds = call.when(1, || Ok(negative.keep(&g.mul(&x)).sum_to(&shape).reshape(slope.shape())))?;
        Ok(Some(vec![dx, ds]))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.elementwise()
    }
}

// Clip.

/// min(max(x, low), high): where the bounds cross, the result is `high`.
struct Clip {
    /// Bounds from attributes, before opset 11; later they are inputs.
    attributes: Option<(f32, f32)>,
}

fn clip(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
    if a.opset >= 11 {
        return Ok(Box::new(Clip { attributes: None }));
    }
    skip_consumed(a)?;
    Ok(Box::new(Clip { attributes: Some((a.float("min", f32::MIN)?, a.float("max", f32::MAX)?)) }))
}

impl Clip {
    fn bounds(&self, inputs: Args<'_, Value>) -> OpResult<(Option<f32>, Option<f32>)> {
        if let Some((low, high)) = self.attributes {
            return Ok((Some(low), Some(high)));
        }
        let bound = |i: usize| inputs.get(i).map(|_| inputs.scalar(i, 0.0)).transpose();
        Ok((bound(1)?, bound(2)?))
    }
}

impl Operator for Clip {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        arity(inputs, 1, if self.attributes.is_some() { 1 } else { 3 })?;
        let x = inputs.need(0)?;
        if !x.dtype.is_float() && !x.dtype.is_int() {
            invalid!("does not take {}", x.dtype);
        }
        for i in 1..inputs.len() {
            let Some(bound) = inputs.get(i) else { continue };
            if bound.dtype != x.dtype || bound.count() != 1 {
                invalid!("input {i} must be one {}, got {} {:?}", x.dtype, bound.dtype, bound.shape);
            }
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let dtype = outputs[0].dtype;
        if dtype.is_float() {
            let (low, high) = self.bounds(inputs)?;
            return one(inputs.real(0, cx)?.clamp(low, high));
        }
        if self.attributes.is_some() {
            invalid!("does not take {dtype} before opset 11");
        }
        let bound = |i: usize| -> OpResult<Option<i64>> {
            if inputs.get(i).is_none() { Ok(None) } else { Ok(inputs.ints(i)?.first().copied()) }
        };
        let (low, high) = (bound(1)?, bound(2)?);
        let x = inputs.need(0)?.to_host();
        let values = ints(&x)?.iter().map(|&v| {
            let v = low.filter(|&low| exact(dtype, low) > exact(dtype, v)).unwrap_or(v);
            high.filter(|&high| exact(dtype, high) < exact(dtype, v)).unwrap_or(v)
        });
        Ok(vec![int_value(&outputs[0], values.collect())?])
    }

    fn activation(&self, inputs: Args<'_, Value>) -> OpResult<Option<Activation>> {
        let (low, high) = self.bounds(inputs)?;
        let (low, high) = (low.unwrap_or(f32::NEG_INFINITY), high.unwrap_or(f32::INFINITY));
        Ok((low <= high).then_some(Activation::Clamp(low, high)))
    }

    fn curve(&self, inputs: Args<'_, Value>) -> OpResult<Option<bounds::Curve>> {
        let (low, high) = self.bounds(inputs)?;
        let side = |bound: Option<f32>, open: f64| bound.map_or(open, f64::from);
        let (low, high) = (side(low, f64::NEG_INFINITY), side(high, f64::INFINITY));
        Ok((low <= high).then_some(bounds::Curve::Clamp { slope: 1.0, shift: 0.0, low, high }))
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let g = call.gradient();
        let x = call.inputs.real(0, call.cx)?;
        let (low, high) = self.bounds(call.inputs)?;
        let range = (low.unwrap_or(f32::NEG_INFINITY), high.unwrap_or(f32::INFINITY));
        if !call.wants(1)
            && !call.wants(2)
            && let Some(g) = x.clamp_backward(range.0, range.1, g)
        {
            let mut gradients = vec![None; call.inputs.len()];
            gradients[0] = Some(g);
            return Ok(Some(gradients));
        }
        let raised = low.map(|low| x.less(&x.same(low)));
        let lifted = x.clamp(low, None);
        let lowered = high.map(|high| lifted.greater(&x.same(high)));
        let open = lowered.as_ref().map_or_else(|| g.clone(), |m| m.drop(g));
        let bound = |r: Real, i: usize| Ok::<_, OpError>(r.sum_all().reshape(call.inputs.need(i)?.shape()));
        let dx = call.when(0, || Ok(raised.as_ref().map_or_else(|| open.clone(), |m| m.drop(&open))))?;
        let mut gradients = vec![dx];
        for (i, part) in [(1, raised.as_ref().map(|m| m.keep(&open))), (2, lowered.as_ref().map(|m| m.keep(g)))] {
            if i < call.inputs.len() {
                gradients.push(match part {
                    Some(part) => call.when(i, || bound(part, i))?,
                    None => None,
                });
            }
        }
        Ok(Some(gradients))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.elementwise()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::run;
    use crate::real::RealDevice;
    use netproof_tensor::{Elements, Tensor};

    const CURVES: [Curve; 12] = [
        Curve::Celu { alpha: 2.0 },
        Curve::Elu { alpha: 1.5, scale: 1.1 },
        Curve::Gelu,
        Curve::GeluTanh,
        Curve::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Curve::HardSwish,
        Curve::LeakyRelu { alpha: 0.1 },
        Curve::Mish,
        Curve::Softplus,
        Curve::Softsign,
        Curve::Swish { alpha: 1.0 },
        Curve::ThresholdedRelu { alpha: 1.0 },
    ];

    fn real(v: &[f32]) -> Real {
        Real::new(&[v.len()], v.to_vec(), &RealDevice::cpu())
    }

    #[test]
    fn large_inputs_stay_finite_and_nan_stays_nan() {
        let x = real(&[-1e4, -120.0, -0.0, 120.0, 1e4, f32::NAN]);
        for curve in CURVES {
            let (y, g) = (curve.value(&x).to_vec(), curve.gradient(&x, &real(&[1.0; 6])).to_vec());
            assert!(y[..5].iter().all(|v| v.is_finite()) && y[5].is_nan(), "{curve:?}: {y:?}");
            assert!(g[..5].iter().all(|v| v.is_finite() && v.abs() < 2.0), "{curve:?}: {g:?}");
        }
    }

    #[test]
    fn small_negative_inputs_keep_their_digits() {
        let y = Curve::Elu { alpha: 1.0, scale: 1.0 }.value(&real(&[-1e-6, -1.0])).to_vec();
        assert!((f64::from(y[0]) - (-1e-6f64).exp_m1()).abs() < 1e-12);
        assert!((f64::from(y[1]) - (-1f64).exp_m1()).abs() < 1e-6);
    }

    #[test]
    fn crossed_bounds_give_the_upper_one_and_integers_are_clipped_too() {
        let f = |v: &[f32]| Some(Tensor::f32(vec![v.len()], v.to_vec()).unwrap());
        let y = run("Clip", 13, &[], &[f(&[-1.0, 5.0, 9.0]), f(&[6.0]), f(&[4.0])]).unwrap();
        assert_eq!(y[0].as_f32().unwrap(), [4.0; 3]);
        let y = run("Clip", 13, &[], &[f(&[-1.0, 5.0]), None, f(&[4.0])]).unwrap();
        assert_eq!(y[0].as_f32().unwrap(), [-1.0, 4.0]);
        let wide = |v: &[i64]| Some(Tensor::new(DType::U64, vec![v.len()], Elements::Int(v.to_vec())).unwrap());
        let y = run("Clip", 13, &[], &[wide(&[0, -1]), wide(&[2]), wide(&[7])]).unwrap();
        assert_eq!(y[0].as_i64().unwrap(), [2, 7]);
        // Before opset 11 the default bounds are the extreme floats, so infinities do not pass.
        let y = run("Clip", 6, &[], &[f(&[f32::INFINITY, f32::NEG_INFINITY])]).unwrap();
        assert_eq!(y[0].as_f32().unwrap(), [f32::MAX, f32::MIN]);
        assert!(run("Clip", 13, &[], &[f(&[1.0]), f(&[0.0, 1.0])]).is_err());
    }
}
