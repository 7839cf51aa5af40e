//! Penalties on weights, and limits of gradients and weights.

use serde::{Deserialize, Serialize};

use crate::error::{TrainError, refuse};
use crate::weights::{combine, scale, squared_norm};

/// Penalties and limits; none by default.
///
/// `l1` and `l2` together are the elastic net (Zou and Hastie 2005). Weight decay of the optimisers is apart from these.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Regularisation {
    /// `l1 · Σ|w|` is added to the loss.
    pub l1: f64,
    /// `l2 / 2 · Σw²` is added to the loss: with SGD the same as its weight decay.
    pub l2: f64,
    /// `w ← (1 − learning rate · decay) w` before each step, with any optimiser.
    pub decoupled_weight_decay: f64,
    /// Largest l2 norm of the weights of one unit (a row of a matrix, a filter); larger ones are scaled down after each
    /// step. Srivastava et al., JMLR 2014, section 5.1.
    pub max_norm_l2: Option<f64>,
    /// Largest l2 norm of the whole gradient; larger ones are scaled down. Pascanu et al., ICML 2013, algorithm 1.
    pub clip_norm_l2: Option<f64>,
    /// Which parameters penalties, decay and the norm of units are about.
    pub of: Penalised,
}

/// Which parameters are penalised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Penalised {
    /// Those of two or more dimensions: no biases, no scales of normalisation.
    #[default]
    Weights,
    /// All.
    All,
}

impl Regularisation {
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        for (name, value) in [("l1", self.l1), ("l2", self.l2), ("decoupled_weight_decay", self.decoupled_weight_decay)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(refuse(name, value, "0 or more"));
            }
        }
        for (name, value) in [("max_norm_l2", self.max_norm_l2), ("clip_norm_l2", self.clip_norm_l2)] {
            if let Some(v) = value.filter(|v| !(*v > 0.0 && v.is_finite())) {
                return Err(refuse(name, v, "a number over 0"));
            }
        }
        Ok(())
    }

    pub(crate) fn is_about(&self, shape: &[usize]) -> bool {
        self.of == Penalised::All || shape.len() >= 2
    }

    /// Adds the slopes of the penalties. The slope of `|w|` is 0 at 0.
    pub(crate) fn add_penalties(&self, gradient: &mut [f32], weights: &[f32]) {
        let [l1, l2] = [self.l1 as f32, self.l2 as f32];
        if l1 != 0.0 || l2 != 0.0 {
            let sign = |w: f32| if w == 0.0 { 0.0 } else { w.signum() };
            combine(gradient, weights, |g, w| g + l1 * sign(w) + l2 * w);
        }
    }

    /// What the penalties add to the loss.
    pub(crate) fn penalty(&self, weights: &[f32]) -> f64 {
        let mut sum = 0.0;
        if self.l1 != 0.0 {
            sum += self.l1 * weights.iter().map(|w| f64::from(w.abs())).sum::<f64>();
        }
        if self.l2 != 0.0 {
            sum += 0.5 * self.l2 * squared_norm(weights);
        }
        sum
    }

    pub(crate) fn decay(&self, weights: &mut [f32], learning_rate: f64) {
        if self.decoupled_weight_decay != 0.0 {
            scale(weights, (1.0 - learning_rate * self.decoupled_weight_decay) as f32);
        }
    }

    /// Scales down units that are too long.
    /// # Shapes   `weights` `[units, …]`
    pub(crate) fn limit_units(&self, weights: &mut [f32], shape: &[usize]) {
        let Some(limit) = self.max_norm_l2 else { return };
        let unit = shape.iter().skip(1).product::<usize>().max(1);
        for unit in weights.chunks_mut(unit) {
            let norm = squared_norm(unit).sqrt();
            if norm > limit {
                scale(unit, (limit / norm) as f32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_the_penalties() {
        let r = Regularisation { l1: 0.3, l2: 0.2, ..Regularisation::default() };
        let w = [0.5, -2.0, 0.0];
        let mut g = [1.0, 1.0, 1.0];
        r.add_penalties(&mut g, &w);
        for (got, want) in g.iter().zip([1.0 + 0.3 + 0.1, 1.0 - 0.3 - 0.4, 1.0]) {
            assert!((got - want).abs() < 1e-6, "{g:?}");
        }
        assert!((r.penalty(&w) - (0.3 * 2.5 + 0.1 * 4.25)).abs() < 1e-9);
    }

    #[test]
    fn decay_and_limits_have_their_closed_form() {
        let r = Regularisation { decoupled_weight_decay: 0.5, max_norm_l2: Some(5.0), ..Regularisation::default() };
        let mut w = [2.0, -4.0];
        r.decay(&mut w, 0.1);
        assert_eq!(w, [1.9, -3.8]);
        let mut w = [6.0, 8.0, 3.0, 4.0];
        r.limit_units(&mut w, &[2, 2]);
        assert_eq!(w, [3.0, 4.0, 3.0, 4.0]);
        assert!(r.is_about(&[3, 1]) && !r.is_about(&[3]));
    }

    #[test]
    fn senseless_numbers_are_refused() {
        assert!(Regularisation { l1: -1.0, ..Regularisation::default() }.check().is_err());
        assert!(Regularisation { l2: f64::NAN, ..Regularisation::default() }.check().is_err());
        assert!(Regularisation { clip_norm_l2: Some(0.0), ..Regularisation::default() }.check().is_err());
    }
}
