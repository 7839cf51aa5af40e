//! Runs cases of the ONNX backend tests and compares the outputs as the suite's own runner does.

use netproof_onnx::{BackendCase, Limits, OnnxError, read_tensor_file};
use netproof_tensor::{DType, Elements, Tensor};

use crate::{GraphError, Model, Request};

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every recorded run gave the recorded outputs.
    Passed,
    /// The network or its values are not supported; which operator or type.
    Unsupported(String),
    /// Another answer than the recorded one, or an error.
    Failed(String),
}

/// Largest relative and absolute difference, as the suite's runner allows.
const RELATIVE: f64 = 1e-3;
const ABSOLUTE: f64 = 1e-7;
/// Sums in another order move a float32 result by a few units in the last place of its largest terms.
const ROUNDING: f64 = 1e-6;

/// Runs one case.
pub fn run_case(case: &BackendCase, limits: &Limits) -> Outcome {
    match attempt(case, limits) {
        Ok(()) => Outcome::Passed,
        Err(outcome) => outcome,
    }
}

fn attempt(case: &BackendCase, limits: &Limits) -> Result<(), Outcome> {
    let model = Model::load(&case.model).map_err(refusal)?;
    if case.data_sets.is_empty() {
        return Err(Outcome::Failed("no recorded data".to_owned()));
    }
    for data in &case.data_sets {
        let read = |paths: &[std::path::PathBuf]| -> Result<Vec<Tensor>, Outcome> {
            paths.iter().map(|p| read_tensor_file(p, limits).map(|(_, t)| t).map_err(file_refusal)).collect()
        };
        let (inputs, expected) = (read(&data.inputs)?, read(&data.outputs)?);
        if inputs.len() != model.inputs().len() || expected.len() != model.outputs().len() {
            return Err(Outcome::Failed(format!(
                "{} inputs and {} outputs are recorded, the network has {} and {}",
                inputs.len(),
                expected.len(),
                model.inputs().len(),
                model.outputs().len()
            )));
        }
        let named = model.inputs().iter().zip(inputs).map(|(p, t)| (p.name.clone(), as_declared(t, p.dtype)));
        let request = Request { inputs: named.collect(), ..Request::default() };
        let run = model.forward(&request).map_err(refusal)?;
        for (port, want) in model.outputs().iter().zip(&expected) {
            let got = as_declared(run.output(&port.name).map_err(refusal)?, port.dtype);
            compare(&got, &as_declared(want.clone(), port.dtype))
                .map_err(|e| Outcome::Failed(format!("output `{}`: {e}", port.name)))?;
        }
    }
    Ok(())
}

fn refusal(e: GraphError) -> Outcome {
    match e {
        GraphError::Unsupported(_) => Outcome::Unsupported(e.to_string()),
        GraphError::Onnx(e) => file_refusal(e),
        e => Outcome::Failed(e.to_string()),
    }
}

fn file_refusal(e: OnnxError) -> Outcome {
    if e.is_unsupported() { Outcome::Unsupported(format!("unsupported: {e}")) } else { Outcome::Failed(e.to_string()) }
}

/// The suite records bfloat16 values as the uint16 of their bits, since NumPy has no such type.
fn as_declared(recorded: Tensor, declared: DType) -> Tensor {
    if (recorded.dtype(), declared) != (DType::U16, DType::BF16) {
        return recorded;
    }
    let bits = recorded.as_i64().unwrap_or_default();
    let values = bits.iter().map(|&b| f32::from_bits((b as u32) << 16)).collect();
    Tensor::new(declared, recorded.shape().to_vec(), Elements::Float(values)).unwrap_or(recorded)
}

fn compare(got: &Tensor, want: &Tensor) -> Result<(), String> {
    if got.dtype() != want.dtype() {
        return Err(format!("is {}, must be {}", got.dtype(), want.dtype()));
    }
    if got.shape() != want.shape() {
        return Err(format!("has shape {:?}, must be {:?}", got.shape(), want.shape()));
    }
    match (got.elements(), want.elements()) {
        (Elements::Float(a), Elements::Float(b)) => {
            let scale = b.iter().filter(|v| v.is_finite()).fold(0.0f32, |m, v| m.max(v.abs()));
            let slack = ABSOLUTE + ROUNDING * f64::from(scale);
            for (i, (&a, &b)) in a.iter().zip(b).enumerate() {
                let same = a == b || (a.is_nan() && b.is_nan());
                let near = (f64::from(a) - f64::from(b)).abs() <= slack + RELATIVE * f64::from(b).abs();
                if !(same || near && b.is_finite()) {
                    return Err(format!("element {i} is {a}, must be {b}"));
                }
            }
            Ok(())
        }
        (a, b) if a == b => Ok(()),
        _ => Err("values differ".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(v: &[f32]) -> Tensor {
        Tensor::f32(vec![v.len()], v.to_vec()).unwrap()
    }

    #[test]
    fn comparison_accepts_rounding_and_nothing_more() {
        let want = floats(&[1.0, f32::NAN, f32::INFINITY]);
        assert!(compare(&floats(&[1.0009, f32::NAN, f32::INFINITY]), &want).is_ok());
        for wrong in [[1.002, f32::NAN, f32::INFINITY], [1.0, 0.0, f32::INFINITY], [1.0, f32::NAN, f32::MAX]] {
            assert!(compare(&floats(&wrong), &want).is_err(), "{wrong:?}");
        }
        assert!(compare(&floats(&[1.0]), &want).is_err());
        let ints = Tensor::i64(vec![1], vec![1]).unwrap();
        assert!(compare(&ints, &floats(&[1.0])).is_err());
        assert!(compare(&ints, &Tensor::i64(vec![1], vec![2]).unwrap()).is_err());
    }
}
