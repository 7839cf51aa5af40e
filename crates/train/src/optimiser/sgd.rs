//! Stochastic gradient descent with momentum, plain or Nesterov's.
//! Sutskever et al., ICML 2013, in the form of `torch.optim.SGD`: `v ← μ v + g`, `w ← w − lr · v`; Nesterov:
//! `w ← w − lr · (g + μ v)`. Weight decay is added to the gradient. Checked against: PyTorch 2.15.

use serde::Deserialize;

use super::{Optimiser, Update, check_decay, check_fraction, check_rate, each, single};
use crate::error::refuse;
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Optimiser> = Entry {
    id: "sgd",
    summary: "stochastic gradient descent with momentum, plain or Nesterov's",
    build: |options, _| {
        let own: Sgd = options.read()?;
        check_rate(own.learning_rate)?;
        check_fraction("momentum", own.momentum)?;
        check_decay(own.weight_decay)?;
        if own.nesterov && own.momentum == 0.0 {
            return Err(refuse("momentum", 0, "over 0 where `nesterov` is true"));
        }
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Sgd {
    learning_rate: f64,
    momentum: f64,
    nesterov: bool,
    /// Added to the gradient, times the weight.
    weight_decay: f64,
}

impl Default for Sgd {
    /// Momentum and rate of He et al. 2016 (arXiv:1512.03385, section 3.4), without decay.
    fn default() -> Self {
        Self { learning_rate: 0.1, momentum: 0.9, nesterov: false, weight_decay: 0.0 }
    }
}

impl Optimiser for Sgd {
    fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    fn slots(&self) -> usize {
        usize::from(self.momentum != 0.0)
    }

    fn update(&self, step: &Update, weights: &mut [f32], gradient: &[f32], state: &mut [Vec<f32>]) {
        let momentum = step.momentum.unwrap_or(self.momentum);
        let [rate, momentum, decay] =
            single([step.learning_rate, momentum, self.weight_decay * step.weight_decay_scale]);
        if self.momentum == 0.0 {
            return each(weights, gradient, state, |w, g, []| (w - rate * (g + decay * w), []));
        }
        if self.nesterov {
            return each(weights, gradient, state, |w, g, [v]| {
                let g = g + decay * w;
                let v = momentum * v + g;
                (w - rate * (g + momentum * v), [v])
            });
        }
        each(weights, gradient, state, |w, g, [v]| {
            let v = momentum * v + (g + decay * w);
            (w - rate * v, [v])
        });
    }
}
