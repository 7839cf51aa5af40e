//! Adam, and AdamW, whose weight decay is apart from the gradient.
//! Kingma and Ba, ICLR 2015, arXiv:1412.6980, algorithm 1; Loshchilov and Hutter, ICLR 2019, arXiv:1711.05101, algorithm 2,
//! with the decay multiplied by the learning rate as `torch.optim.AdamW` does. Checked against: PyTorch 2.15.

use serde::Deserialize;

use super::{Optimiser, Update, check_decay, check_fraction, check_rate, each, single};
use crate::error::{TrainError, refuse};
use crate::method::{Entry, Options};

pub(super) const ADAM: Entry<dyn Optimiser> = Entry {
    id: "adam",
    summary: "Adam; weight decay is part of the gradient",
    build: |options, _| build(options, false),
};

pub(super) const ADAM_W: Entry<dyn Optimiser> =
    Entry { id: "adamw", summary: "Adam with decoupled weight decay", build: |options, _| build(options, true) };

fn build(options: Options<'_>, decoupled: bool) -> Result<Box<dyn Optimiser>, TrainError> {
    let raw: Raw = options.read()?;
    check_rate(raw.learning_rate)?;
    raw.betas.iter().try_for_each(|&b| check_fraction("betas", b))?;
    check_epsilon(raw.epsilon)?;
    let weight_decay = raw.weight_decay.unwrap_or(if decoupled { 0.01 } else { 0.0 });
    check_decay(weight_decay)?;
    let Raw { learning_rate, betas, epsilon, .. } = raw;
    Ok(Box::new(Adam { learning_rate, betas, epsilon, weight_decay, decoupled }))
}

pub(super) fn check_epsilon(epsilon: f64) -> Result<(), TrainError> {
    if epsilon > 0.0 && epsilon < 1.0 { Ok(()) } else { Err(refuse("epsilon", epsilon, "over 0 and below 1")) }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    learning_rate: f64,
    /// What remains of the mean and of the mean square in a step.
    betas: [f64; 2],
    epsilon: f64,
    /// PyTorch's where it is not given: 0 for Adam, 0.01 for AdamW.
    weight_decay: Option<f64>,
}

impl Default for Raw {
    /// The defaults of both papers and of PyTorch.
    fn default() -> Self {
        Self { learning_rate: 1e-3, betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: None }
    }
}

struct Adam {
    learning_rate: f64,
    betas: [f64; 2],
    epsilon: f64,
    weight_decay: f64,
    decoupled: bool,
}

impl Optimiser for Adam {
    fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    fn slots(&self) -> usize {
        2
    }

    fn update(&self, step: &Update, weights: &mut [f32], gradient: &[f32], state: &mut [Vec<f32>]) {
        let betas = [step.momentum.unwrap_or(self.betas[0]), self.betas[1]];
        let correction = betas.map(|beta| 1.0 - beta.powf(step.number as f64));
        let [m_new, v_old, v_new] = single([1.0 - betas[0], betas[1], 1.0 - betas[1]]);
        let [rate, root, epsilon] =
            single([step.learning_rate / correction[0], 1.0 / correction[1].sqrt(), self.epsilon]);
        let decay = self.weight_decay * step.weight_decay_scale;
        let (coupled, kept) = if self.decoupled { (0.0, 1.0 - step.learning_rate * decay) } else { (decay, 1.0) };
        let [coupled, kept] = single([coupled, kept]);
        each(weights, gradient, state, |w, g, [m, v]| {
            let g = g + coupled * w;
            let m = m + m_new * (g - m);
            let v = v_old * v + v_new * (g * g);
            (w * kept - rate * m / (v.sqrt() * root + epsilon), [m, v])
        });
    }
}
