//! The numbers that training changes, apart from the network's file: what a run is given instead of the file's own.

use netproof_graph::{GraphError, Model};
use netproof_tensor::Tensor;
use rayon::prelude::*;

use crate::error::TrainError;

/// Elements whose squares are added by one task; the order of the sums depends on it and on nothing else.
const BLOCK: usize = 1 << 14;

/// Named tensors: first the trainable ones, then running statistics of batch normalisation.
///
/// A clone shares its tensors until one side writes.
#[derive(Debug, Clone)]
pub struct Weights {
    pub(crate) names: Vec<String>,
    pub(crate) tensors: Vec<Tensor>,
    trainable: usize,
}

impl Weights {
    /// What training may change in a network.
    /// # Errors
    /// Nothing is trainable.
    pub(crate) fn of(model: &Model) -> Result<Self, TrainError> {
        let mut names: Vec<String> = model.parameters().filter(|p| p.trainable).map(|p| p.name).collect();
        let trainable = names.len();
        if trainable == 0 {
            let message = "the network has no trainable parameters".to_owned();
            return Err(TrainError::Mismatch { message });
        }
        for node in model.nodes().filter(|n| n.operator == "BatchNormalization") {
            for name in node.inputs.into_iter().skip(3) {
                if model.parameter(&name).is_some() && !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        let missing = |name: &String| GraphError::UnknownValue { name: name.clone(), candidates: Vec::new() };
        let tensors = names
            .iter()
            .map(|name| {
                let stored = model.parameter(name).ok_or_else(|| missing(name))?;
                let values = stored.as_f32().ok_or_else(|| missing(name))?.to_vec();
                Ok(Tensor::f32(stored.shape().to_vec(), values)?)
            })
            .collect::<Result<_, TrainError>>()?;
        Ok(Self { names, tensors, trainable })
    }

    /// How many of the tensors follow gradients; they come first.
    pub fn trainable(&self) -> usize {
        self.trainable
    }

    /// Names, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Tensors, in order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// A tensor for writing.
    pub fn values_mut(&mut self, index: usize) -> &mut [f32] {
        self.tensors[index].as_f32_mut().unwrap_or_default()
    }

    /// Takes up a running statistic.
    pub(crate) fn set_statistic(&mut self, name: &str, value: &Tensor) {
        let own = self.names[self.trainable..].iter().position(|n| n == name);
        if let Some(i) = own.map(|i| i + self.trainable)
            && self.tensors[i].len() == value.len()
        {
            self.values_mut(i).copy_from_slice(value.as_f32().unwrap_or_default());
        }
    }

    /// Puts the weights into a network.
    /// # Errors
    /// It is another network.
    pub fn write_to(&self, model: &mut Model) -> Result<(), TrainError> {
        for (name, tensor) in self.names.iter().zip(&self.tensors) {
            model.set_parameter(name, tensor.clone())?;
        }
        Ok(())
    }

    /// Whether all are finite.
    pub fn are_finite(&self) -> bool {
        self.tensors.iter().all(|t| squared_norm(t.as_f32().unwrap_or_default()).is_finite())
    }
}

/// Sum of squares in double precision: the same bits at any number of threads; NaN and infinity stay.
pub fn squared_norm(values: &[f32]) -> f64 {
    let one = |block: &[f32]| {
        // Eight sums at a time, so that additions need not wait for each other.
        let mut sums = [0.0f64; 8];
        let mut whole = block.chunks_exact(8);
        for part in &mut whole {
            for (s, &x) in sums.iter_mut().zip(part) {
                *s += f64::from(x) * f64::from(x);
            }
        }
        sums.iter().sum::<f64>() + whole.remainder().iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
    };
    if values.len() <= 4 * BLOCK {
        return values.chunks(BLOCK).map(one).sum();
    }
    let parts: Vec<f64> = values.par_chunks(BLOCK).map(one).collect();
    parts.iter().sum()
}

/// `values ← values · factor`.
pub fn scale(values: &mut [f32], factor: f32) {
    let one = |block: &mut [f32]| block.iter_mut().for_each(|v| *v *= factor);
    if values.len() <= 4 * BLOCK { one(values) } else { values.par_chunks_mut(BLOCK).for_each(one) }
}

/// `values ← f(values, others)`, element by element.
pub fn combine(values: &mut [f32], others: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    let one = |(a, b): (&mut [f32], &[f32])| a.iter_mut().zip(b).for_each(|(a, &b)| *a = f(*a, b));
    if values.len() <= 4 * BLOCK {
        one((values, others));
    } else {
        values.par_chunks_mut(BLOCK).zip(others.par_chunks(BLOCK)).for_each(one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_of_any_length_match_a_plain_sum() {
        for n in [0, 1, 7, 8, 9, BLOCK + 3, 9 * BLOCK + 1] {
            let values: Vec<f32> = (0..n).map(|i| (i % 13) as f32 - 6.0).collect();
            let plain: f64 = values.iter().map(|&v| f64::from(v * v)).sum();
            assert_eq!(squared_norm(&values), plain, "{n}");
        }
        assert!(squared_norm(&[1.0, f32::NAN]).is_nan() && squared_norm(&[f32::INFINITY]).is_infinite());
    }
}
