//! Conversion between element types. Floats are cut toward zero and wrapped to become integers; NaN becomes 0.

use netproof_tensor::{DType, Elements, Tensor};

use super::elementwise::{arity, int_to_float};
use crate::attributes::Attributes;
use crate::error::{OpResult, invalid, unsupported};
use crate::operator::{Args, Backward, Context, Entry, Fact, Operator, Value, one};
use crate::real::Real;
use crate::rows::RowsOf;

pub(super) const ENTRIES: &[Entry] =
    &[Entry { name: "Cast", build: |a| build(a, true) }, Entry { name: "CastLike", build: |a| build(a, false) }];

struct Cast {
    /// The target; `None` takes the type of the second input.
    to: Option<DType>,
}

fn build(a: &Attributes<'_>, named: bool) -> OpResult<Box<dyn Operator>> {
    // What happens beyond the range of the 8-bit floats, which are refused.
    a.flag("saturate", true)?;
    a.text("round_mode", "up")?;
    if !named {
        return Ok(Box::new(Cast { to: None }));
    }
    let to = if a.opset < 6 {
        named_type(&a.text("to", "")?)?
    } else {
        match a.optional_int("to")? {
            Some(code) => coded_type(code)?,
            None => invalid!("attribute `to` is missing"),
        }
    };
    Ok(Box::new(Cast { to: Some(to) }))
}

/// Codes of `TensorProto.DataType`.
fn coded_type(code: i64) -> OpResult<DType> {
    Ok(match code {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        8 => DType::Text,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        12 => DType::U32,
        13 => DType::U64,
        14 => unsupported!("cast to complex64"),
        15 => unsupported!("cast to complex128"),
        16 => DType::BF16,
        17 => unsupported!("cast to float8e4m3fn"),
        18 => unsupported!("cast to float8e4m3fnuz"),
        19 => unsupported!("cast to float8e5m2"),
        20 => unsupported!("cast to float8e5m2fnuz"),
        21 => unsupported!("cast to uint4"),
        22 => unsupported!("cast to int4"),
        23 => unsupported!("cast to float4e2m1"),
        24 => unsupported!("cast to float8e8m0"),
        other => invalid!("attribute `to` is {other}, which is no element type"),
    })
}

/// Names of types, as written before opset 6.
fn named_type(name: &str) -> OpResult<DType> {
    for code in 1..=16 {
        if let Ok(dtype) = coded_type(code)
            && dtype.name().eq_ignore_ascii_case(name)
        {
            return Ok(dtype);
        }
    }
    unsupported!("cast to `{name}`")
}

impl Operator for Cast {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let x = inputs.need(0)?;
        let to = match self.to {
            Some(to) => {
                arity(inputs, 1, 1)?;
                to
            }
            None => {
                arity(inputs, 2, 2)?;
                inputs.need(1)?.dtype
            }
        };
        Ok(vec![Fact::new(to, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let (to, shape) = (outputs[0].dtype, &outputs[0].shape);
        let value = inputs.need(0)?;
        if let Value::Real(x) = value
            && matches!(to, DType::F32 | DType::F64)
        {
            return one(x.clone());
        }
        let x = value.to_host();
        if to.is_float() {
            return one(Real::new(shape, floats(&x, to)?, &cx.device));
        }
        let elements = match to {
            DType::Bool => Elements::Bool(truths(&x)?),
            DType::Text => Elements::Text(texts(&x)),
            _ => Elements::Int(integers(&x, to)?),
        };
        Ok(vec![Value::host(Tensor::new(to, shape.clone(), elements)?)])
    }

    /// Rounding to a narrower float counts as the identity.
    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let mut gradients = vec![None; call.inputs.len()];
        if let (Some(first), Some(Value::Real(_))) = (gradients.first_mut(), call.inputs.get(0)) {
            *first = Some(call.gradient().clone());
        }
        Ok(Some(gradients))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.elementwise()
    }
}

fn floats(x: &Tensor, to: DType) -> OpResult<Vec<f32>> {
    let from = x.dtype();
    Ok(match x.elements() {
        Elements::Float(v) => v.iter().map(|&v| to.round(v)).collect(),
        Elements::Int(v) => v.iter().map(|&v| to.round(int_to_float(from, v))).collect(),
        Elements::Bool(v) => v.iter().map(|&v| f32::from(v)).collect(),
        // Rust reads "NaN", "INF", "-inf" and "infinity" in any case.
        Elements::Text(v) => v
            .iter()
            .map(|s| match s.trim().parse::<f32>() {
                Ok(v) => Ok(to.round(v)),
                Err(_) => invalid!("`{s}` is not a number"),
            })
            .collect::<OpResult<_>>()?,
    })
}

/// Cut toward zero; NaN is 0, and what no 64-bit integer holds is the nearest one that does.
fn cut(v: f64, to: DType) -> i64 {
    if to == DType::U64 && v > 0.0 { v as u64 as i64 } else { to.wrap(v as i64) }
}

fn integers(x: &Tensor, to: DType) -> OpResult<Vec<i64>> {
    Ok(match x.elements() {
        Elements::Float(v) => v.iter().map(|&v| cut(f64::from(v), to)).collect(),
        Elements::Int(v) => v.iter().map(|&v| to.wrap(v)).collect(),
        Elements::Bool(v) => v.iter().map(|&v| i64::from(v)).collect(),
        Elements::Text(v) => v
            .iter()
            .map(|s| {
                let s = s.trim();
                match (s.parse::<i128>(), s.parse::<f64>()) {
                    (Ok(v), _) => Ok(to.wrap(v as i64)),
                    (_, Ok(v)) => Ok(cut(v, to)),
                    _ => invalid!("`{s}` is not a number"),
                }
            })
            .collect::<OpResult<_>>()?,
    })
}

fn truths(x: &Tensor) -> OpResult<Vec<bool>> {
    Ok(match x.elements() {
        Elements::Float(v) => v.iter().map(|&v| v != 0.0).collect(),
        Elements::Int(v) => v.iter().map(|&v| v != 0).collect(),
        Elements::Bool(v) => v.clone(),
        Elements::Text(_) => unsupported!("cast of string to bool"),
    })
}

fn texts(x: &Tensor) -> Vec<String> {
    match x.elements() {
        Elements::Float(v) => v.iter().map(|&v| float_text(v)).collect(),
        Elements::Int(v) if x.dtype() == DType::U64 => v.iter().map(|&v| (v as u64).to_string()).collect(),
        Elements::Int(v) => v.iter().map(i64::to_string).collect(),
        Elements::Bool(v) => v.iter().map(|&v| if v { "1" } else { "0" }.to_owned()).collect(),
        Elements::Text(v) => v.clone(),
    }
}

/// The shortest text that reads back as the same f32; the special values as the specification writes them.
fn float_text(v: f32) -> String {
    if v.is_nan() {
        "NaN".to_owned()
    } else if v.is_infinite() {
        if v > 0.0 { "INF" } else { "-INF" }.to_owned()
    } else if v != 0.0 && !(1e-4..1e16).contains(&v.abs()) {
        format!("{v:e}")
    } else {
        v.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_cut_and_wrapped() {
        let x = Tensor::f32(vec![5], vec![-1.9, 300.7, f32::NAN, 1e20, -0.5]).unwrap();
        assert_eq!(integers(&x, DType::U8).unwrap()[..3], [255, 44, 0]);
        assert_eq!(integers(&x, DType::I64).unwrap(), [-1, 300, 0, i64::MAX, 0]);
        assert_eq!(integers(&x, DType::U64).unwrap()[3], -1);
    }

    #[test]
    fn texts_and_numbers_convert_both_ways() {
        let x = Tensor::f32(vec![4], vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.47892547]).unwrap();
        let t = Tensor::new(DType::Text, vec![4], Elements::Text(texts(&x))).unwrap();
        assert_eq!(t.as_text().unwrap(), ["NaN", "INF", "-INF", "0.47892547"]);
        let back = floats(&t, DType::F32).unwrap();
        assert!(back[0].is_nan() && back[1..] == x.as_f32().unwrap()[1..]);
        let bad = Tensor::new(DType::Text, vec![1], Elements::Text(vec!["x".to_owned()])).unwrap();
        assert!(floats(&bad, DType::F32).is_err() && integers(&bad, DType::I8).is_err());
    }

    #[test]
    fn types_that_cannot_be_held_are_refused_by_name() {
        assert!(format!("{:?}", coded_type(22)).contains("int4"));
        assert_eq!(named_type("FLOAT"), Ok(DType::F32));
        assert!(coded_type(99).is_err());
    }
}
