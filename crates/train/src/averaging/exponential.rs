//! Exponential moving average of the weights and running statistics, after each step.
//! Polyak and Juditsky 1992, in the form `a ← d a + (1 − d) w`; with warm-up the decay is at most (1 + t) / (10 + t) before
//! step t, as in TensorFlow's `ExponentialMovingAverage`. Checked against: closed form.

use netproof_tensor::Tensor;
use serde::Deserialize;

use super::Averaging;
use crate::error::refuse;
use crate::method::Entry;
use crate::weights::{Weights, combine};

pub(super) const ENTRY: Entry<dyn Averaging> = Entry {
    id: "ema",
    summary: "exponential moving average of the weights",
    build: |options, _| {
        let options: Options = options.read()?;
        if !(0.0..1.0).contains(&options.decay) {
            return Err(refuse("decay", options.decay, "0 up to, but not including, 1"));
        }
        Ok(Box::new(Exponential { options, count: 0, average: None }))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// What remains of the average in a step.
    decay: f64,
    /// Forget the first weights faster.
    warm_up: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { decay: 0.999, warm_up: true }
    }
}

struct Exponential {
    options: Options,
    count: u64,
    average: Option<Vec<Tensor>>,
}

impl Averaging for Exponential {
    fn after_step(&mut self, _: u64, weights: &Weights) {
        let t = self.count as f64;
        self.count += 1;
        let warm = if self.options.warm_up { (1.0 + t) / (10.0 + t) } else { 1.0 };
        let new = (1.0 - self.options.decay.min(warm)) as f32;
        match &mut self.average {
            None => self.average = Some(weights.tensors().to_vec()),
            Some(average) => {
                for (a, w) in average.iter_mut().zip(weights.tensors()) {
                    combine(a.as_f32_mut().unwrap_or_default(), w.as_f32().unwrap_or_default(), |a, w| {
                        a + new * (w - a)
                    });
                }
            }
        }
    }

    fn average(&self) -> Option<&[Tensor]> {
        self.average.as_deref()
    }

    fn count(&self) -> u64 {
        self.count
    }

    fn restore(&mut self, count: u64, average: Option<Vec<Tensor>>) {
        (self.count, self.average) = (count, average);
    }
}
