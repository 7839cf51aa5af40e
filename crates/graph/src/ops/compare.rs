//! Comparisons, logic, tests for NaN and infinity, and the choice between two tensors.

use netproof_tensor::{DType, Elements, Tensor};

use super::elementwise::{
    Broadcasting, arity, bool_value, bools, broadcast_shape, common_type, exact, one_float, positions, zip,
};
use crate::attributes::Attributes;
use crate::error::{OpResult, invalid};
use crate::operator::{Args, Backward, Context, Entry, Fact, Operator, Value, one};
use crate::real::{Mask, Real};
use crate::rows::RowsOf;

pub(super) const ENTRIES: &[Entry] = &[
    Entry { name: "And", build: |a| binary(a, Kind::And) },
    Entry { name: "Equal", build: |a| binary(a, Kind::Equal) },
    Entry { name: "Greater", build: |a| binary(a, Kind::Greater) },
    Entry { name: "GreaterOrEqual", build: |a| binary(a, Kind::GreaterOrEqual) },
    Entry {
        name: "IsInf",
        build: |a| {
            let (negative, positive) = (a.flag("detect_negative", true)?, a.flag("detect_positive", true)?);
            Ok(Box::new(IsInf { negative, positive }))
        },
    },
    Entry { name: "IsNaN", build: |_| Ok(Box::new(IsNan)) },
    Entry { name: "Less", build: |a| binary(a, Kind::Less) },
    Entry { name: "LessOrEqual", build: |a| binary(a, Kind::LessOrEqual) },
    Entry { name: "Not", build: |_| Ok(Box::new(Not)) },
    Entry { name: "Or", build: |a| binary(a, Kind::Or) },
    Entry { name: "Where", build: |_| Ok(Box::new(Where)) },
    Entry { name: "Xor", build: |a| binary(a, Kind::Xor) },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    And,
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Or,
    Xor,
}

impl Kind {
    fn is_logic(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Xor)
    }

    /// Any comparison with NaN is false.
    fn holds<T: PartialOrd + ?Sized>(self, a: &T, b: &T) -> bool {
        match self {
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
            Self::Less => a < b,
            Self::LessOrEqual => a <= b,
            _ => a == b,
        }
    }

    fn logic(self, a: bool, b: bool) -> bool {
        match self {
            Self::And => a && b,
            Self::Or => a || b,
            Self::Xor => a != b,
            _ => self.holds(&a, &b),
        }
    }
}

/// A truth value for each pair of elements.
struct Binary {
    kind: Kind,
    broadcasting: Broadcasting,
}

fn binary(a: &Attributes<'_>, kind: Kind) -> OpResult<Box<dyn Operator>> {
    Ok(Box::new(Binary { kind, broadcasting: Broadcasting::read(a)? }))
}

impl Operator for Binary {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        arity(inputs, 2, 2)?;
        let dtype = common_type(inputs)?;
        let fits = match dtype {
            DType::Bool => self.kind.is_logic() || self.kind == Kind::Equal,
            DType::Text => self.kind == Kind::Equal,
            _ => !self.kind.is_logic(),
        };
        if !fits {
            invalid!("does not take {dtype}");
        }
        let (a, b) = (inputs.need(0)?, inputs.need(1)?);
        let second = self.broadcasting.second_shape(&a.shape, &b.shape)?;
        Ok(vec![Fact::new(DType::Bool, broadcast_shape([a.shape.as_slice(), &second])?)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], _cx: &Context) -> OpResult<Vec<Value>> {
        let (a, b) = (inputs.need(0)?.to_host(), inputs.need(1)?.to_host());
        let second = self.broadcasting.second_shape(a.shape(), b.shape())?;
        let (first, second, shape) = (a.shape(), second.as_slice(), &outputs[0].shape);
        let kind = self.kind;
        let values = match (a.elements(), b.elements()) {
            (Elements::Float(x), Elements::Float(y)) => zip((x, first), (y, second), shape, |x, y| kind.holds(x, y)),
            (Elements::Int(x), Elements::Int(y)) => {
                zip((x, first), (y, second), shape, |&x, &y| kind.holds(&exact(a.dtype(), x), &exact(b.dtype(), y)))
            }
            (Elements::Bool(x), Elements::Bool(y)) => zip((x, first), (y, second), shape, |&x, &y| kind.logic(x, y)),
            (Elements::Text(x), Elements::Text(y)) => zip((x, first), (y, second), shape, |x, y| kind.holds(x, y)),
            _ => invalid!("cannot compare {} with {}", a.dtype(), b.dtype()),
        };
        Ok(vec![bool_value(&outputs[0], values)?])
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.elementwise()
    }
}

struct Not;

impl Operator for Not {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        arity(inputs, 1, 1)?;
        let x = inputs.need(0)?;
        if x.dtype != DType::Bool {
            invalid!("does not take {}", x.dtype);
        }
        Ok(vec![Fact::new(DType::Bool, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], _cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.need(0)?.to_host();
        Ok(vec![bool_value(&outputs[0], bools(&x)?.iter().map(|b| !b).collect())?])
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.elementwise()
    }
}

fn float_test(inputs: Args<'_, Value>, fact: &Fact, f: impl Fn(f32) -> bool) -> OpResult<Vec<Value>> {
    let x = inputs.need(0)?.to_host();
    let Some(v) = x.as_f32() else { invalid!("does not take {}", x.dtype()) };
    Ok(vec![bool_value(fact, v.iter().map(|&v| f(v)).collect())?])
}

struct IsNan;

impl Operator for IsNan {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        Ok(vec![Fact::new(DType::Bool, one_float(inputs)?.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], _cx: &Context) -> OpResult<Vec<Value>> {
        float_test(inputs, &outputs[0], f32::is_nan)
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.elementwise()
    }
}

struct IsInf {
    negative: bool,
    positive: bool,
}

impl Operator for IsInf {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        Ok(vec![Fact::new(DType::Bool, one_float(inputs)?.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], _cx: &Context) -> OpResult<Vec<Value>> {
        float_test(inputs, &outputs[0], |v| {
            (self.negative && v == f32::NEG_INFINITY) || (self.positive && v == f32::INFINITY)
        })
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.elementwise()
    }
}

/// The second input where the first is true, else the third.
struct Where;

impl Operator for Where {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        arity(inputs, 3, 3)?;
        let (condition, yes, no) = (inputs.need(0)?, inputs.need(1)?, inputs.need(2)?);
        if condition.dtype != DType::Bool {
            invalid!("input 0 must be bool, got {}", condition.dtype);
        }
        if yes.dtype != no.dtype {
            invalid!("input 1 is {} and input 2 is {}; they must have one type", yes.dtype, no.dtype);
        }
        let shape = broadcast_shape([&condition.shape, &yes.shape, &no.shape].map(Vec::as_slice))?;
        Ok(vec![Fact::new(yes.dtype, shape)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let fact = &outputs[0];
        if fact.dtype.is_float() {
            return one(mask(inputs, cx)?.pick(&inputs.real(1, cx)?, &inputs.real(2, cx)?));
        }
        let condition = inputs.need(0)?.to_host();
        let (yes, no) = (inputs.need(1)?.to_host(), inputs.need(2)?.to_host());
        let decide = positions(condition.shape(), &fact.shape);
        let (left, right) = (positions(yes.shape(), &fact.shape), positions(no.shape(), &fact.shape));
        let choice: Vec<bool> = bools(&condition).map(|c| decide.iter().map(|&i| c[i]).collect())?;
        fn choose<T: Clone>(choice: &[bool], yes: (&[T], &[usize]), no: (&[T], &[usize])) -> Vec<T> {
            let pick = |(i, &c): (usize, &bool)| if c { yes.0[yes.1[i]].clone() } else { no.0[no.1[i]].clone() };
            choice.iter().enumerate().map(pick).collect()
        }
        let elements = match (yes.elements(), no.elements()) {
            (Elements::Int(a), Elements::Int(b)) => Elements::Int(choose(&choice, (a, &left), (b, &right))),
            (Elements::Bool(a), Elements::Bool(b)) => Elements::Bool(choose(&choice, (a, &left), (b, &right))),
            (Elements::Text(a), Elements::Text(b)) => Elements::Text(choose(&choice, (a, &left), (b, &right))),
            _ => invalid!("cannot choose between {} and {}", yes.dtype(), no.dtype()),
        };
        Ok(vec![Value::host(Tensor::new(fact.dtype, fact.shape.clone(), elements)?)])
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let mask = mask(call.inputs, call.cx)?;
        let (g, yes, no) = (call.gradient(), call.inputs.need(1)?, call.inputs.need(2)?);
        let left = call.when(1, || Ok(mask.keep(g).sum_to(yes.shape())))?;
        let right = call.when(2, || Ok(mask.drop(g).sum_to(no.shape())))?;
        Ok(Some(vec![None, left, right]))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.elementwise()
    }
}

fn mask(inputs: Args<'_, Value>, cx: &Context) -> OpResult<Mask> {
    let condition = inputs.need(0)?.to_host();
    Ok(Mask::new(condition.shape(), bools(&condition)?.to_vec(), &cx.device))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::{Attr, run};

    fn floats(v: &[f32]) -> Option<Tensor> {
        Some(Tensor::f32(vec![v.len()], v.to_vec()).unwrap())
    }

    fn texts(v: &[&str]) -> Option<Tensor> {
        let v: Vec<String> = v.iter().map(|s| (*s).to_owned()).collect();
        Some(Tensor::new(DType::Text, vec![v.len()], Elements::Text(v)).unwrap())
    }

    #[test]
    fn nothing_compares_with_nan() {
        for kind in [Kind::Equal, Kind::Greater, Kind::GreaterOrEqual, Kind::Less, Kind::LessOrEqual] {
            assert!(!kind.holds(&f32::NAN, &1.0) && !kind.holds(&1.0, &f32::NAN) && !kind.holds(&f32::NAN, &f32::NAN));
        }
        assert!(Kind::GreaterOrEqual.holds(&1, &1) && !Kind::Greater.holds(&1, &1) && Kind::Less.holds(&0, &1));
    }

    #[test]
    fn every_type_is_chosen_from_and_a_nan_not_taken_stays_out() {
        let c = || Some(Tensor::bool(vec![2], vec![true, false]).unwrap());
        let y = run("Where", 16, &[], &[c(), texts(&["a"]), texts(&["b", "c"])]).unwrap();
        assert_eq!(y[0].as_text().unwrap(), ["a", "c"]);
        let y = run("Where", 16, &[], &[c(), floats(&[1.0, f32::NAN]), floats(&[f32::NAN, 2.0])]).unwrap();
        assert_eq!(y[0].as_f32().unwrap(), [1.0, 2.0]);
        assert!(run("Where", 16, &[], &[c(), texts(&["a"]), floats(&[1.0])]).is_err());
    }

    #[test]
    fn texts_are_equal_or_not_and_large_unsigned_numbers_are_large() {
        let y = run("Equal", 19, &[], &[texts(&["a", "b"]), texts(&["a"])]).unwrap();
        assert_eq!(y[0].as_bool().unwrap(), [true, false]);
        let wide = |v| Some(Tensor::new(DType::U64, vec![1], Elements::Int(vec![v])).unwrap());
        assert_eq!(run("Greater", 13, &[], &[wide(-1), wide(1)]).unwrap()[0].as_bool().unwrap(), [true]);
        assert!(run("Greater", 13, &[], &[texts(&["a"]), texts(&["a"])]).is_err());
        assert!(run("And", 7, &[], &[floats(&[1.0]), floats(&[1.0])]).is_err());
    }

    #[test]
    fn infinities_are_told_apart() {
        let x = || floats(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0]);
        let find = |attribute| run("IsInf", 20, &[(attribute, Attr::Int(0))], &[x()]).unwrap()[0].clone();
        assert_eq!(find("detect_negative").as_bool().unwrap(), [true, false, false, false]);
        assert_eq!(find("detect_positive").as_bool().unwrap(), [false, true, false, false]);
        assert_eq!(run("IsNaN", 20, &[], &[x()]).unwrap()[0].as_bool().unwrap(), [false, false, true, false]);
    }
}
