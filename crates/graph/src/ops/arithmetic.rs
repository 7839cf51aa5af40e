//! Arithmetic, element by element: floats on the device, integers exactly on the host.

use netproof_tensor::DType;

use super::elementwise::{
    Broadcasting, arity, broadcast_shape, common_type, exact, int_to_float, int_value, ints, positions, skip_consumed,
    zip,
};
use crate::bounds::Curve;
use crate::error::{OpError, OpResult, invalid};
use crate::operator::{Args, Backward, Context, Entry, Fact, Keep, Operator, Value, one};
use crate::real::Real;
use crate::rows::RowsOf;

pub(super) const ENTRIES: &[Entry] = &[
    Entry { name: "Abs", build: |a| unary(a, UnaryKind::Abs) },
    Entry { name: "Add", build: |a| binary(a, BinaryKind::Add) },
    Entry { name: "Ceil", build: |a| unary(a, UnaryKind::Ceil) },
    Entry { name: "Cos", build: |a| unary(a, UnaryKind::Cos) },
    Entry { name: "Div", build: |a| binary(a, BinaryKind::Div) },
    Entry { name: "Erf", build: |a| unary(a, UnaryKind::Erf) },
    Entry { name: "Exp", build: |a| unary(a, UnaryKind::Exp) },
    Entry { name: "Floor", build: |a| unary(a, UnaryKind::Floor) },
    Entry { name: "Log", build: |a| unary(a, UnaryKind::Log) },
    Entry { name: "Max", build: |a| variadic(a, VariadicKind::Max) },
    Entry { name: "Mean", build: |a| variadic(a, VariadicKind::Mean) },
    Entry { name: "Min", build: |a| variadic(a, VariadicKind::Min) },
    Entry { name: "Mod", build: |a| Ok(Box::new(Mod { c_style: a.flag("fmod", false)? })) },
    Entry { name: "Mul", build: |a| binary(a, BinaryKind::Mul) },
    Entry { name: "Neg", build: |a| unary(a, UnaryKind::Neg) },
    Entry { name: "Pow", build: |a| Ok(Box::new(Pow { broadcasting: Broadcasting::read(a)? })) },
    Entry { name: "Reciprocal", build: |a| unary(a, UnaryKind::Reciprocal) },
    Entry { name: "Round", build: |a| unary(a, UnaryKind::Round) },
    Entry { name: "Sign", build: |a| unary(a, UnaryKind::Sign) },
    Entry { name: "Sin", build: |a| unary(a, UnaryKind::Sin) },
    Entry { name: "Sqrt", build: |a| unary(a, UnaryKind::Sqrt) },
    Entry { name: "Sub", build: |a| binary(a, BinaryKind::Sub) },
    Entry { name: "Sum", build: |a| variadic(a, VariadicKind::Sum) },
];

type Attributes<'a> = crate::attributes::Attributes<'a>;

fn number(dtype: DType) -> OpResult<()> {
    if !dtype.is_float() && !dtype.is_int() {
        invalid!("needs numbers, got {dtype}");
    }
    Ok(())
}

// Two operands.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BinaryKind {
    Add,
    Sub,
    Mul,
    Div,
}

struct Binary {
    kind: BinaryKind,
    broadcasting: Broadcasting,
}

fn binary(a: &Attributes<'_>, kind: BinaryKind) -> OpResult<Box<dyn Operator>> {
    Ok(Box::new(Binary { kind, broadcasting: Broadcasting::read(a)? }))
}

impl Operator for Binary {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        arity(inputs, 2, 2)?;
        let dtype = common_type(inputs)?;
        number(dtype)?;
        let (a, b) = (inputs.need(0)?, inputs.need(1)?);
        let second = self.broadcasting.second_shape(&a.shape, &b.shape)?;
        Ok(vec![Fact::new(dtype, broadcast_shape([a.shape.as_slice(), &second])?)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let (a, b) = (inputs.need(0)?, inputs.need(1)?);
        let second = self.broadcasting.second_shape(a.shape(), b.shape())?;
        if outputs[0].dtype.is_float() {
            let (a, b) = (a.real(cx)?, b.real(cx)?.reshape(&second));
            return one(match self.kind {
                BinaryKind::Add => a.add(&b),
                BinaryKind::Sub => a.sub(&b),
                BinaryKind::Mul => a.mul(&b),
                BinaryKind::Div => a.div(&b),
            });
        }
        let (a, b) = (a.to_host(), b.to_host());
        let dtype = outputs[0].dtype;
        let (x, y) = (ints(&a)?, ints(&b)?);
        if self.kind == BinaryKind::Div && y.contains(&0) {
            invalid!("integer division by zero");
        }
        let values = zip((x, a.shape()), (y, &second), &outputs[0].shape, |&x, &y| match self.kind {
            BinaryKind::Add => x.wrapping_add(y),
            BinaryKind::Sub => x.wrapping_sub(y),
            BinaryKind::Mul => x.wrapping_mul(y),
            BinaryKind::Div => (exact(dtype, x) / exact(dtype, y)) as i64,
        });
        Ok(vec![int_value(&outputs[0], values)?])
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let g = call.gradient();
        let (a, b) = (call.inputs.need(0)?, call.inputs.need(1)?);
        let second = self.broadcasting.second_shape(a.shape(), b.shape())?;
        let first = |g: Real| Ok(g.sum_to(a.shape()));
        let other = |g: Real| Ok(g.sum_to(&second).reshape(b.shape()));
        let right = || Ok::<_, OpError>(b.real(call.cx)?.reshape(&second));
        let da = call.when(0, || match self.kind {
            BinaryKind::Add | BinaryKind::Sub => first(g.clone()),
            BinaryKind::Mul => first(g.mul(&right()?)),
            BinaryKind::Div => first(g.div(&right()?)),
        })?;
        let db = call.when(1, || match self.kind {
            BinaryKind::Add => other(g.clone()),
            BinaryKind::Sub => other(g.neg()),
            BinaryKind::Mul => other(g.mul(&a.real(call.cx)?)),
            BinaryKind::Div => {
                let b = right()?;
                other(g.mul(&a.real(call.cx)?).div(&b).div(&b).neg())
            }
        })?;
        Ok(Some(vec![da, db]))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.elementwise()
    }
}

/// The result has the type of the base; the exponent may have another.
struct Pow {
    broadcasting: Broadcasting,
}

impl Operator for Pow {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        arity(inputs, 2, 2)?;
        let (a, b) = (inputs.need(0)?, inputs.need(1)?);
        number(a.dtype)?;
        number(b.dtype)?;
        let second = self.broadcasting.second_shape(&a.shape, &b.shape)?;
        Ok(vec![Fact::new(a.dtype, broadcast_shape([a.shape.as_slice(), &second])?)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let (a, b) = (inputs.need(0)?, inputs.need(1)?);
        let second = self.broadcasting.second_shape(a.shape(), b.shape())?;
        if outputs[0].dtype.is_float() {
            let (x, p) = (a.real(cx)?, exponent(b, cx)?.reshape(&second));
            return one(power(&x.expand(&outputs[0].shape), &p));
        }
        let (a, b) = (a.to_host(), b.to_host());
        let x = (ints(&a)?, a.shape());
        let dtype = a.dtype();
        let values: Vec<OpResult<i64>> = match b.as_f32() {
            // The power of an integer to a float is cut to the integer's type.
            Some(p) => zip(x, (p, &second), &outputs[0].shape, |&x, &p| {
                Ok((exact(dtype, x) as f64).powf(f64::from(p)) as i128 as i64)
            }),
            None => zip(x, (ints(&b)?, &second), &outputs[0].shape, |&x, &p| {
                int_power(x, exact(dtype, x), exact(b.dtype(), p))
            }),
        };
        Ok(vec![int_value(&outputs[0], values.into_iter().collect::<OpResult<_>>()?)?])
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let g = call.gradient();
        let (a, b) = (call.inputs.need(0)?, call.inputs.need(1)?);
        let second = self.broadcasting.second_shape(a.shape(), b.shape())?;
        let x = a.real(call.cx)?.expand(&call.facts[0].shape);
        let p = exponent(b, call.cx)?.reshape(&second);
        let zero = x.same(0.0);
        let base = call.when(0, || {
            // x^0 is constant, also at x = 0, where the rule of powers would say 0 · inf.
            let slope = p.mul(&power(&x, &p.add_scalar(-1.0)));
            Ok(g.mul(&p.equal(&zero).drop(&slope)).sum_to(a.shape()))
        })?;
        let exponent = call.when(1, || {
            // At x = 0 the power stays 0 when a positive exponent moves.
            let slope = x.equal(&zero).drop(&x.log()).mul(&power(&x, &p));
            Ok(g.mul(&slope).sum_to(&second).reshape(b.shape()))
        })?;
        Ok(Some(vec![base, exponent]))
    }

    fn curve(&self, inputs: Args<'_, Value>) -> OpResult<Option<Curve>> {
        let exponent = inputs.need(1)?.to_host();
        let all = |p: f32| exponent.as_f32().is_some_and(|v| v.iter().all(|&e| e == p));
        Ok(if all(2.0) {
            Some(Curve::Square)
        } else if all(0.5) {
            Some(Curve::Sqrt)
        } else {
            None
        })
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.elementwise()
    }
}

fn exponent(value: &Value, cx: &Context) -> OpResult<Real> {
    match value {
        Value::Host(t) if t.dtype().is_int() => {
            let floats = ints(t)?.iter().map(|&v| int_to_float(t.dtype(), v)).collect();
            Ok(Real::new(t.shape(), floats, &cx.device))
        }
        other => other.real(cx),
    }
}

fn power(x: &Real, p: &Real) -> Real {
    if p.count() != 1 {
        return x.powf(p);
    }
    // Small powers are products, which are faster and exact.
    match p.to_vec()[0] {
        1.0 => x.clone(),
        2.0 => x.mul(x),
        3.0 => x.mul(x).mul(x),
        _ => x.powf(p),
    }
}

fn int_power(stored: i64, base: i128, exponent: i128) -> OpResult<i64> {
    if exponent >= 0 {
        // By squaring, wrapping at 64 bits.
        let (mut result, mut factor, mut e) = (1i64, stored, exponent as u64);
        while e > 0 {
            if e & 1 == 1 {
                result = result.wrapping_mul(factor);
            }
            factor = factor.wrapping_mul(factor);
            e >>= 1;
        }
        return Ok(result);
    }
    match base {
        0 => invalid!("0 to the power of {exponent} is not an integer"),
        1 => Ok(1),
        -1 => Ok(if exponent % 2 == 0 { 1 } else { -1 }),
        _ => Ok(0),
    }
}

/// Remainder: with the sign of the divisor (integers), or of the dividend (`fmod`).
struct Mod {
    c_style: bool,
}

impl Operator for Mod {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        arity(inputs, 2, 2)?;
        let dtype = common_type(inputs)?;
        number(dtype)?;
        if dtype.is_float() && !self.c_style {
            invalid!("attribute `fmod` must be 1 for {dtype}");
        }
        let shape = broadcast_shape([inputs.need(0)?.shape.as_slice(), &inputs.need(1)?.shape])?;
        Ok(vec![Fact::new(dtype, shape)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let (a, b) = (inputs.need(0)?.to_host(), inputs.need(1)?.to_host());
        let shape = &outputs[0].shape;
        if let (Some(x), Some(y)) = (a.as_f32(), b.as_f32()) {
            return one(Real::new(shape, zip((x, a.shape()), (y, b.shape()), shape, |x, y| x % y), &cx.device));
        }
        let (x, y, dtype) = (ints(&a)?, ints(&b)?, outputs[0].dtype);
        if y.contains(&0) {
            invalid!("remainder of an integer division by zero");
        }
        let values = zip((x, a.shape()), (y, b.shape()), shape, |&x, &y| {
            let (x, y) = (exact(dtype, x), exact(dtype, y));
            let r = x % y;
            // Python's remainder has the sign of the divisor.
            (if !self.c_style && r != 0 && (r < 0) != (y < 0) { r + y } else { r }) as i64
        });
        Ok(vec![int_value(&outputs[0], values)?])
    }

    /// x mod y = x − y · trunc(x / y), with a whole number that does not move.
    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let g = call.gradient();
        let (a, b) = (call.inputs.need(0)?, call.inputs.need(1)?);
        let da = call.when(0, || Ok(g.sum_to(a.shape())))?;
        let db = call.when(1, || {
            let q = a.real(call.cx)?.div(&b.real(call.cx)?);
            let whole = q.abs().floor().mul(&q.sign());
            Ok(g.mul(&whole).neg().sum_to(b.shape()))
        })?;
        Ok(Some(vec![da, db]))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.elementwise()
    }
}

// One operand.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnaryKind {
    Abs,
    Ceil,
    Cos,
    Erf,
    Exp,
    Floor,
    Log,
    Neg,
    Reciprocal,
    Round,
    Sign,
    Sin,
    Sqrt,
}

struct Unary(UnaryKind);

fn unary(a: &Attributes<'_>, kind: UnaryKind) -> OpResult<Box<dyn Operator>> {
    skip_consumed(a)?;
    Ok(Box::new(Unary(kind)))
}

impl Operator for Unary {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        arity(inputs, 1, 1)?;
        let x = inputs.need(0)?;
        let fits = match self.0 {
            UnaryKind::Abs | UnaryKind::Sign => x.dtype.is_float() || x.dtype.is_int(),
            UnaryKind::Neg => x.dtype.is_float() || x.dtype.int_range().is_some_and(|(low, _)| low < 0),
            _ => x.dtype.is_float(),
        };
        if !fits {
            invalid!("does not take {}", x.dtype);
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        if outputs[0].dtype.is_float() {
            let x = inputs.real(0, cx)?;
            return one(match self.0 {
                UnaryKind::Abs => x.abs(),
                UnaryKind::Ceil => x.ceil(),
                UnaryKind::Cos => x.cos(),
                UnaryKind::Erf => x.erf(),
                UnaryKind::Exp => x.exp(),
                UnaryKind::Floor => x.floor(),
                UnaryKind::Log => x.log(),
                UnaryKind::Neg => x.neg(),
                UnaryKind::Reciprocal => x.recip(),
                UnaryKind::Round => x.round(),
                UnaryKind::Sign => x.is_nan().pick(&x, &x.sign()),
                UnaryKind::Sin => x.sin(),
                UnaryKind::Sqrt => x.sqrt(),
            });
        }
        let x = inputs.need(0)?.to_host();
        let dtype = outputs[0].dtype;
        let values = ints(&x)?.iter().map(|&v| match self.0 {
            UnaryKind::Abs if dtype == DType::U64 => v,
            UnaryKind::Abs => v.wrapping_abs(),
            UnaryKind::Sign => exact(dtype, v).signum() as i64,
            _ => v.wrapping_neg(),
        });
        Ok(vec![int_value(&outputs[0], values.collect())?])
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let g = call.gradient();
        let x = call.inputs.real(0, call.cx)?;
        Ok(Some(vec![match self.0 {
            UnaryKind::Ceil | UnaryKind::Floor | UnaryKind::Round | UnaryKind::Sign => None,
            UnaryKind::Abs => Some(g.mul(&x.sign())),
            UnaryKind::Cos => Some(g.mul(&x.sin()).neg()),
            // 2 / sqrt(pi) · exp(-x²)
            UnaryKind::Erf => Some(g.mul(&x.mul(&x).neg().exp()).mul_scalar(std::f32::consts::FRAC_2_SQRT_PI)),
            UnaryKind::Exp => Some(g.mul(&x.exp())),
            UnaryKind::Log => Some(g.div(&x)),
            UnaryKind::Neg => Some(g.neg()),
            UnaryKind::Reciprocal => {
                let r = x.recip();
                Some(g.mul(&r).mul(&r).neg())
            }
            UnaryKind::Sin => Some(g.mul(&x.cos())),
            UnaryKind::Sqrt => Some(g.div(&x.sqrt()).mul_scalar(0.5)),
        }]))
    }

    fn curve(&self, _inputs: Args<'_, Value>) -> OpResult<Option<Curve>> {
        Ok(match self.0 {
            UnaryKind::Abs => Some(Curve::Hinge { left: -1.0, right: 1.0 }),
            UnaryKind::Erf => Some(Curve::Erf),
            UnaryKind::Exp => Some(Curve::Exp),
            UnaryKind::Log => Some(Curve::Log),
            UnaryKind::Reciprocal => Some(Curve::Reciprocal),
            UnaryKind::Sqrt => Some(Curve::Sqrt),
            _ => None,
        })
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.elementwise()
    }
}

// Any number of operands.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VariadicKind {
    Max,
    Mean,
    Min,
    Sum,
}

/// Sum, mean, largest or smallest of any number of tensors. NaN wins in Max and Min; at ties the gradient goes to the
/// first of the equal inputs.
struct Variadic(VariadicKind);

fn variadic(a: &Attributes<'_>, kind: VariadicKind) -> OpResult<Box<dyn Operator>> {
    skip_consumed(a)?;
    Ok(Box::new(Variadic(kind)))
}

impl Operator for Variadic {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let dtype = common_type(inputs)?;
        let order = matches!(self.0, VariadicKind::Max | VariadicKind::Min);
        if !(dtype.is_float() || order && dtype.is_int()) {
            invalid!("does not take {dtype}");
        }
        let shape = broadcast_shape(inputs.present().map(|f| f.shape.as_slice()))?;
        Ok(vec![Fact::new(dtype, shape)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let fact = &outputs[0];
        if !fact.dtype.is_float() {
            return Ok(vec![self.integers(inputs, fact)?]);
        }
        let mut result = inputs.real(0, cx)?;
        for value in inputs.present().skip(1) {
            let x = value.real(cx)?;
            result = match self.0 {
                VariadicKind::Sum | VariadicKind::Mean => result.add(&x),
                VariadicKind::Max => larger(&x, &result),
                VariadicKind::Min => larger(&x.neg(), &result.neg()).neg(),
            };
        }
        if self.0 == VariadicKind::Mean {
            result = result.mul_scalar(1.0 / inputs.len() as f32);
        }
        one(result)
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let scale = match self.0 {
            VariadicKind::Sum => 1.0,
            VariadicKind::Mean => 1.0 / call.inputs.len() as f32,
            VariadicKind::Max | VariadicKind::Min => return Ok(None),
        };
        let g = call.gradient().mul_scalar(scale);
        let each = |(i, x): (usize, &Value)| call.when(i, || Ok(g.sum_to(x.shape())));
        Ok(Some(call.inputs.present().enumerate().map(each).collect::<OpResult<_>>()?))
    }

    fn keep(&self) -> Keep {
        Keep::Inputs
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.elementwise()
    }
}

impl Variadic {
    fn integers(&self, inputs: Args<'_, Value>, fact: &Fact) -> OpResult<Value> {
        let mut result: Option<Vec<i64>> = None;
        for value in inputs.present() {
            let t = value.to_host();
            let v = ints(&t)?;
            let here = positions(t.shape(), &fact.shape).into_iter().map(|i| v[i]);
            result = Some(match result {
                None => here.collect(),
                Some(old) => old
                    .into_iter()
                    .zip(here)
                    .map(|(a, b)| {
                        let b_larger = exact(fact.dtype, b) > exact(fact.dtype, a);
                        if b_larger == (self.0 == VariadicKind::Max) { b } else { a }
                    })
                    .collect(),
            });
        }
        int_value(fact, result.unwrap_or_default())
    }
}

/// `old` unless `new` is strictly larger or NaN.
fn larger(new: &Real, old: &Real) -> Real {
    let kept = new.greater(old).pick(new, old);
    new.is_nan().pick(new, &kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::{Attr, run};
    use netproof_tensor::{Elements, Tensor};

    fn int(dtype: DType, values: &[i64]) -> Option<Tensor> {
        Some(Tensor::new(dtype, vec![values.len()], Elements::Int(values.to_vec())).unwrap())
    }

    fn result(operator: &str, attributes: &[(&str, Attr)], inputs: &[Option<Tensor>]) -> Result<Vec<i64>, String> {
        run(operator, 14, attributes, inputs).map(|y| y[0].as_i64().unwrap().to_vec())
    }

    #[test]
    fn integer_powers_wrap_and_cut() {
        assert_eq!(int_power(3, 3, 4), Ok(81));
        assert_eq!(int_power(2, 2, 64), Ok(0));
        assert_eq!(int_power(-1, -1, -3), Ok(-1));
        assert_eq!(int_power(7, 7, -1), Ok(0));
        assert!(int_power(0, 0, -1).is_err());
    }

    #[test]
    fn old_broadcasting_aligns_from_its_axis() {
        let old = |axis| Broadcasting::Legacy { enabled: true, axis };
        assert_eq!(old(Some(1)).second_shape(&[2, 3, 4, 5], &[3, 4]), Ok(vec![3, 4, 1]));
        assert_eq!(old(None).second_shape(&[2, 3, 4, 5], &[4, 5]), Ok(vec![4, 5]));
        assert!(old(Some(2)).second_shape(&[2, 3, 4], &[3, 4]).is_err());
        assert!(old(None).second_shape(&[3], &[2, 3]).is_err());
        assert!(Broadcasting::Legacy { enabled: false, axis: None }.second_shape(&[2, 3], &[3]).is_err());
    }

    #[test]
    fn integers_wrap_at_their_width_and_divide_toward_zero() {
        let pair = |dtype, a: &[i64], b: &[i64]| [int(dtype, a), int(dtype, b)];
        assert_eq!(result("Add", &[], &pair(DType::I8, &[127, -128], &[1, -1])), Ok(vec![-128, 127]));
        assert_eq!(result("Sub", &[], &pair(DType::U8, &[0], &[1])), Ok(vec![255]));
        assert_eq!(result("Mul", &[], &pair(DType::U16, &[65535], &[65535])), Ok(vec![1]));
        assert_eq!(result("Div", &[], &pair(DType::I32, &[-7, 7], &[2, -2])), Ok(vec![-3, -3]));
        assert_eq!(result("Div", &[], &pair(DType::I64, &[i64::MIN], &[-1])), Ok(vec![i64::MIN]));
        assert_eq!(result("Div", &[], &pair(DType::U64, &[-1], &[2])), Ok(vec![i64::MAX]));
        assert_eq!(result("Max", &[], &pair(DType::U64, &[-1], &[2])), Ok(vec![-1]));
        assert_eq!(result("Min", &[], &pair(DType::I64, &[-1], &[2])), Ok(vec![-1]));
        assert!(result("Div", &[], &pair(DType::I32, &[1], &[0])).unwrap_err().contains("division by zero"));
        assert!(result("Mod", &[], &pair(DType::I32, &[1], &[0])).unwrap_err().contains("division by zero"));
        assert_eq!(result("Abs", &[], &[int(DType::I8, &[-128, -3])]), Ok(vec![-128, 3]));
        assert!(result("Neg", &[], &[int(DType::U8, &[1])]).is_err());
    }

    #[test]
    fn the_remainder_has_the_sign_of_its_style() {
        let inputs = [int(DType::I64, &[-7, 7, -6, -7]), int(DType::I64, &[3, -3, 3, -3])];
        assert_eq!(result("Mod", &[], &inputs), Ok(vec![2, -2, 0, -1]));
        assert_eq!(result("Mod", &[("fmod", Attr::Int(1))], &inputs), Ok(vec![-1, 1, 0, -1]));
        let floats = [-5.5, 2.0].map(|v| Some(Tensor::f32(vec![], vec![v]).unwrap()));
        assert_eq!(run("Mod", 13, &[("fmod", Attr::Int(1))], &floats).unwrap()[0].as_f32().unwrap(), [-1.5]);
        assert!(run("Mod", 13, &[], &floats).unwrap_err().contains("fmod"));
    }

    #[test]
    fn a_power_has_the_type_of_its_base() {
        let half = Some(Tensor::f32(vec![], vec![0.5]).unwrap());
        assert_eq!(result("Pow", &[], &[int(DType::I32, &[10, 16]), half]), Ok(vec![3, 4]));
        let base = Some(Tensor::f32(vec![2], vec![-2.0, 3.0]).unwrap());
        assert_eq!(run("Pow", 15, &[], &[base, int(DType::I64, &[5])]).unwrap()[0].as_f32().unwrap(), [-32.0, 243.0]);
    }

    #[test]
    fn shapes_and_types_that_do_not_fit_are_refused() {
        let zeros = |shape: &[usize]| Some(Tensor::zeros(shape.to_vec()).unwrap());
        assert!(run("Add", 14, &[], &[zeros(&[2]), zeros(&[3])]).is_err());
        assert!(run("Add", 14, &[], &[zeros(&[2]), int(DType::I64, &[1, 2])]).is_err());
        assert!(run("Add", 14, &[], &[zeros(&[1 << 16, 1]), zeros(&[1 << 16])]).unwrap_err().contains("limit"));
        assert!(run("Add", 14, &[], &[zeros(&[2])]).is_err());
    }
}
