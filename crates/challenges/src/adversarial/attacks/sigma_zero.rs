//! σ-zero: few features, by gradient steps on a smooth count of them, with a threshold that follows success.
//! Cinà, Villani, Pintor, Schönherr, Biggio and Pelillo, ICLR 2025, arXiv:2402.01879, algorithm 1. Checked against: the closed
//! form of a linear model.
//! Weak where gradients vanish.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::attack::{Attack, Batch, Goal};
use crate::adversarial::loss::{Loss, margin};
use crate::adversarial::oracle::Oracle;
use crate::adversarial::projection::Ball;
use crate::adversarial::rows::{row, row_mut};
use crate::adversarial::smallest::{Smallest, cosine, origins};

pub(super) static CARD: Card = Card {
    id: "sigma-zero",
    version: 1,
    kind: CardKind::Attack,
    title: "σ-zero",
    challenge: Challenge::Adversarial,
    measures: "The fewest features whose change gives a wrong answer.",
    reference: "Cinà et al., ICLR 2025, arXiv:2402.01879, algorithm 1",
    needs: &[Need::Labels, Need::Classifier, Need::InputGradient],
    options: &[
        OptionDoc { name: "steps", default: "1000", doc: "Steps, 1 to 100000." },
        OptionDoc { name: "sigma", default: "0.001", doc: "Smoothness of the count of changed features, above 0." },
        OptionDoc {
            name: "threshold",
            default: "0.3",
            doc: "Change below which a feature is put back at first, 0 to 1 of the bounds' width.",
        },
        OptionDoc { name: "threshold_step", default: "0.01", doc: "Change of the threshold per step, 0 to 1." },
    ],
};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SigmaZero {
    steps: usize,
    sigma: f64,
    threshold: f64,
    threshold_step: f64,
}

impl Default for SigmaZero {
    fn default() -> Self {
        Self { steps: 1000, sigma: 1e-3, threshold: 0.3, threshold_step: 0.01 }
    }
}

impl Attack for SigmaZero {
    fn norms(&self) -> &'static [Norm] {
        &[Norm::L0]
    }

    fn goal(&self) -> Goal {
        Goal::SmallestNorm
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        let fail = |name, value, allowed| Err(AttackError::Value { name, value, allowed });
        if !(1..=100_000).contains(&self.steps) {
            return fail("steps", self.steps as f64, "1 to 100000");
        }
        if !(self.sigma > 0.0 && self.sigma.is_finite()) {
            return fail("sigma", self.sigma, "above 0");
        }
        for (name, value) in [("threshold", self.threshold), ("threshold_step", self.threshold_step)] {
            if !(0.0..=1.0).contains(&value) {
                return fail(name, value, "0 to 1");
            }
        }
        oracle.victim().need_gradient()?;
        let (len, k, ball) = (batch.row_len(), batch.classes(), Ball::from(threat));
        let width = threat.width();
        let mut best = Smallest::new(batch, Norm::L0);
        let rows = batch.right();
        let mut x = origins(batch, &rows);
        let mut thresholds = vec![self.threshold; rows.len()];
        for step in 0..self.steps {
            if rows.is_empty() {
                break;
            }
            let mut objective = |i: usize, z: &[f32], seed: &mut [f32]| {
                if margin(z, batch.labels[rows[i]]) > 0.0 {
                    Loss::Margin.of(z, batch.labels[rows[i]], 0, seed);
                }
            };
            let look = oracle.look(&rows, &x, &mut objective)?;
            let rate = cosine(1.0, 0.1, step as f64 / self.steps as f64);
            for (i, &owner) in rows.iter().enumerate() {
                let wrong = best.see(owner, row(&x, len, i), row(&look.logits, k, i));
                let (origin, g) = (batch.row(owner), row(&look.gradient, len, i));
                let t = &mut thresholds[i];
                if step > 0 {
                    *t = (*t + self.threshold_step * rate * if wrong { 1.0 } else { -1.0 }).clamp(0.0, 1.0);
                }
                let point = row_mut(&mut x, len, i);
                // In units of the bounds' width.
                let slopes: Vec<f64> = (0..len)
                    .map(|j| {
                        let d = f64::from(point[j] - origin[j]) / width;
                        let count = 2.0 * d * self.sigma / (d * d + self.sigma).powi(2) / len as f64;
                        count - f64::from(g[j]) * width
                    })
                    .collect();
                let most = slopes.iter().fold(0.0f64, |m, s| m.max(s.abs()));
                if most == 0.0 {
                    continue;
                }
                for j in 0..len {
                    let moved = f64::from(point[j] - origin[j]) - rate * width * slopes[j] / most;
                    let to = (f64::from(origin[j]) + moved).clamp(f64::from(ball.low), f64::from(ball.high)) as f32;
                    let kept = f64::from((to - origin[j]).abs()) >= *t * width;
                    point[j] = if kept { to } else { origin[j] };
                }
            }
        }
        let logits = oracle.logits(&rows, &x)?;
        for (i, &owner) in rows.iter().enumerate() {
            best.see(owner, row(&x, len, i), row(&logits, k, i));
        }
        Ok(best.x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adversarial::loss::is_right;
    use crate::adversarial::projection::distance;
    use crate::adversarial::test_support::{linear, run};

    #[test]
    fn on_a_linear_model_it_changes_the_fewest_features() {
        let threat = Threat::new(Norm::L0, 3.0, [0.0, 1.0]).unwrap();
        // The second feature alone can make up for the margin; then two are needed.
        for (bias, fewest) in [(0.5, 1.0), (1.7, 2.0)] {
            let model = linear(&[[0.0; 3], [0.5, -2.0, 1.0]], &[0.0, bias]);
            let x = [0.5, 0.5, 0.7];
            let (y, z) = run(&SigmaZero::default(), &model, &[3], &x, &[1], &threat, 0);
            assert!(!is_right(&z, 1) && distance(Norm::L0, &x, &y) == fewest, "{y:?}");
        }
    }
}
