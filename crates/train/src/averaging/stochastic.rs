//! Stochastic weight averaging: the mean of the weights after each epoch from some epoch on.
//! Izmailov et al., UAI 2018, arXiv:1803.05407, algorithm 1. Checked against: closed form. The schedule is the recipe's:
//! constant or cyclic from `start_epoch` on is what the paper uses.

use netproof_tensor::Tensor;
use serde::Deserialize;

use super::Averaging;
use crate::error::refuse;
use crate::method::Entry;
use crate::weights::{Weights, combine};

pub(super) const ENTRY: Entry<dyn Averaging> = Entry {
    id: "swa",
    summary: "stochastic weight averaging: the mean of the weights after each epoch from `start_epoch` on",
    build: |options, _| {
        let options: Options = options.read()?;
        if options.start_epoch == 0 {
            return Err(refuse("start_epoch", 0, "1 or more"));
        }
        Ok(Box::new(Stochastic { options, count: 0, average: None }))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// First epoch, from 1, whose weights count.
    start_epoch: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { start_epoch: 1 }
    }
}

struct Stochastic {
    options: Options,
    count: u64,
    average: Option<Vec<Tensor>>,
}

impl Averaging for Stochastic {
    fn after_epoch(&mut self, epoch: u64, weights: &Weights) {
        if epoch < self.options.start_epoch {
            return;
        }
        self.count += 1;
        let new = (1.0 / self.count as f64) as f32;
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

    fn needs_statistics(&self) -> bool {
        true
    }

    fn count(&self) -> u64 {
        self.count
    }

    fn restore(&mut self, count: u64, average: Option<Vec<Tensor>>) {
        (self.count, self.average) = (count, average);
    }
}
