//! RMSprop, plain or centred, with or without momentum.
//! Tieleman and Hinton 2012, lecture 6.5; centred: Graves, arXiv:1308.0850, equations 38–40. `ε` is outside the root, as in
//! `torch.optim.RMSprop`; weight decay is added to the gradient. Checked against: PyTorch 2.15.

use serde::Deserialize;

use super::adam::check_epsilon;
use super::{Optimiser, Update, check_decay, check_fraction, check_rate, each, single};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Optimiser> = Entry {
    id: "rmsprop",
    summary: "RMSprop, plain or centred, with or without momentum",
    build: |options, _| {
        let own: RmsProp = options.read()?;
        check_rate(own.learning_rate)?;
        check_fraction("alpha", own.alpha)?;
        check_fraction("momentum", own.momentum)?;
        check_epsilon(own.epsilon)?;
        check_decay(own.weight_decay)?;
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RmsProp {
    learning_rate: f64,
    /// What remains of the mean square in a step.
    alpha: f64,
    epsilon: f64,
    momentum: f64,
    weight_decay: f64,
    /// Divide by the deviation, not by the root of the mean square.
    centered: bool,
}

impl Default for RmsProp {
    /// PyTorch's, at a tenth of its learning rate, which is Hinton's.
    fn default() -> Self {
        Self { learning_rate: 1e-3, alpha: 0.99, epsilon: 1e-8, momentum: 0.0, weight_decay: 0.0, centered: false }
    }
}

impl Optimiser for RmsProp {
    fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    fn slots(&self) -> usize {
        1 + usize::from(self.centered) + usize::from(self.momentum != 0.0)
    }

    fn update(&self, step: &Update, weights: &mut [f32], gradient: &[f32], state: &mut [Vec<f32>]) {
        let [rate, old, new] = single([step.learning_rate, self.alpha, 1.0 - self.alpha]);
        let momentum = step.momentum.unwrap_or(self.momentum);
        let [epsilon, momentum, decay] = single([self.epsilon, momentum, self.weight_decay * step.weight_decay_scale]);
        // The gradient in units of its deviation, and the moments.
        let plain = move |w: f32, g: f32, s: f32| {
            let g = g + decay * w;
            let s = old * s + new * (g * g);
            (g / (s.sqrt() + epsilon), s)
        };
        let centered = move |w: f32, g: f32, s: f32, m: f32| {
            let g = g + decay * w;
            let s = old * s + new * (g * g);
            let m = m + new * (g - m);
            // Rounding takes the variance of a constant gradient below 0, where PyTorch gives NaN; `max` would hide NaN.
            let variance = s - m * m;
            let variance = if variance < 0.0 { 0.0 } else { variance };
            (g / (variance.sqrt() + epsilon), s, m)
        };
        match (self.centered, self.momentum != 0.0) {
            (false, false) => each(weights, gradient, state, |w, g, [s]| {
                let (d, s) = plain(w, g, s);
                (w - rate * d, [s])
            }),
            (false, true) => each(weights, gradient, state, |w, g, [s, v]| {
                let (d, s) = plain(w, g, s);
                let v = momentum * v + d;
                (w - rate * v, [s, v])
            }),
            (true, false) => each(weights, gradient, state, |w, g, [s, m]| {
                let (d, s, m) = centered(w, g, s, m);
                (w - rate * d, [s, m])
            }),
            (true, true) => each(weights, gradient, state, |w, g, [s, m, v]| {
                let (d, s, m) = centered(w, g, s, m);
                let v = momentum * v + d;
                (w - rate * v, [s, m, v])
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_gradient_has_no_variance() {
        let o = RmsProp { alpha: 0.9, centered: true, ..RmsProp::default() };
        let (mut w, mut state) = (vec![1.0; 64], vec![vec![0.0; 64]; 2]);
        for number in 1..400 {
            let step = Update { number, learning_rate: 1e-10, weight_decay_scale: 1.0, momentum: None };
            o.update(&step, &mut w, &[0.3; 64], &mut state);
        }
        assert!(w.iter().all(|w| w.is_finite()), "{w:?}");
    }
}
