//! Elastic-net attack: the smallest l1 change, by proximal gradient steps on l1 and l2 size plus a weighted margin.
//! Chen, Sharma, Zhang, Yi and Hsieh, AAAI 2018, arXiv:1709.04114, algorithm 1 (FISTA, decision rule l1). Checked against: the
//! closed form of a linear model, which it must come near.
//! Differs from the paper: 1,000 steps as there, but rows search their weight each by itself in one batch. Weak: slow.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::attack::{Attack, Batch, Goal};
use crate::adversarial::loss::{Loss, margin};
use crate::adversarial::oracle::Oracle;
use crate::adversarial::projection::Ball;
use crate::adversarial::rows::{row, row_mut};
use crate::adversarial::smallest::{Smallest, Weight, origins};

pub(super) static CARD: Card = Card {
    id: "ead",
    version: 1,
    kind: CardKind::Attack,
    title: "Elastic-net attack",
    challenge: Challenge::Adversarial,
    measures: "The smallest l1 change with a wrong answer: few features, each as far as needed.",
    reference: "Chen, Sharma, Zhang, Yi and Hsieh, AAAI 2018, arXiv:1709.04114, algorithm 1",
    needs: &[Need::Labels, Need::Classifier, Need::InputGradient],
    options: &[
        OptionDoc { name: "steps", default: "1000", doc: "Steps for each weight, 1 to 100000." },
        OptionDoc { name: "searches", default: "9", doc: "Weights that are tried, 1 to 100." },
        OptionDoc { name: "rate", default: "0.01", doc: "Step size at first, above 0; it falls to 0." },
        OptionDoc { name: "beta", default: "0.01", doc: "Weight of the l1 size, above 0." },
        OptionDoc { name: "first_weight", default: "0.001", doc: "Weight of the margin that is tried first, above 0." },
    ],
};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ead {
    steps: usize,
    searches: usize,
    rate: f64,
    beta: f64,
    first_weight: f64,
}

impl Default for Ead {
    fn default() -> Self {
        Self { steps: 1000, searches: 9, rate: 0.01, beta: 0.01, first_weight: 0.001 }
    }
}

impl Attack for Ead {
    fn norms(&self) -> &'static [Norm] {
        &[Norm::L1]
    }

    fn goal(&self) -> Goal {
        Goal::SmallestNorm
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        self.check()?;
        oracle.victim().need_gradient()?;
        let (len, k, ball) = (batch.row_len(), batch.classes(), Ball::from(threat));
        let mut best = Smallest::new(batch, Norm::L1);
        let rows = batch.right();
        let mut weights = vec![Weight::new(self.first_weight); rows.len()];
        for _ in 0..self.searches {
            if rows.is_empty() {
                break;
            }
            let mut x = origins(batch, &rows);
            let mut ahead = x.clone();
            let mut found = vec![false; rows.len()];
            for step in 0..self.steps {
                let mut objective = |i: usize, z: &[f32], seed: &mut [f32]| {
                    if margin(z, batch.labels[rows[i]]) > 0.0 {
                        Loss::Margin.of(z, batch.labels[rows[i]], 0, seed);
                    }
                };
                let look = oracle.look(&rows, &ahead, &mut objective)?;
                let rate = self.rate * (1.0 - step as f64 / self.steps as f64).sqrt();
                let momentum = step as f32 / (step as f32 + 3.0);
                for (i, &owner) in rows.iter().enumerate() {
                    // The point ahead was looked at anyway.
                    found[i] |= best.see(owner, row(&ahead, len, i), row(&look.logits, k, i));
                    let (origin, g) = (batch.row(owner), row(&look.gradient, len, i));
                    let c = weights[i].value as f32;
                    for j in 0..len {
                        let y = ahead[i * len + j];
                        let z = y - rate as f32 * (2.0 * (y - origin[j]) - c * g[j]);
                        let next = shrink(z, origin[j], self.beta as f32, &ball);
                        let old = std::mem::replace(&mut x[i * len + j], next);
                        ahead[i * len + j] = (next + momentum * (next - old)).clamp(ball.low, ball.high);
                    }
                }
                // Without momentum the points are sparser.
                if step % 10 == 9 || step + 1 == self.steps {
                    let logits = oracle.logits(&rows, &x)?;
                    for (i, &owner) in rows.iter().enumerate() {
                        found[i] |= best.see(owner, row_mut(&mut x, len, i), row(&logits, k, i));
                    }
                }
            }
            weights.iter_mut().zip(&found).for_each(|(w, f)| w.adjust(*f));
        }
        Ok(best.x)
    }
}

impl Ead {
    fn check(&self) -> Result<(), AttackError> {
        let fail = |name, value, allowed| Err(AttackError::Value { name, value, allowed });
        if !(1..=100_000).contains(&self.steps) {
            return fail("steps", self.steps as f64, "1 to 100000");
        }
        if !(1..=100).contains(&self.searches) {
            return fail("searches", self.searches as f64, "1 to 100");
        }
        for (name, value) in [("rate", self.rate), ("beta", self.beta), ("first_weight", self.first_weight)] {
            if !(value > 0.0 && value.is_finite()) {
                return fail(name, value, "above 0");
            }
        }
        Ok(())
    }
}

/// The proximal step of the l1 size (equation 6 of the paper).
fn shrink(z: f32, origin: f32, beta: f32, ball: &Ball) -> f32 {
    let d = z - origin;
    if d > beta {
        (z - beta).min(ball.high)
    } else if d < -beta {
        (z + beta).max(ball.low)
    } else {
        origin
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adversarial::loss::is_right;
    use crate::adversarial::projection::distance;
    use crate::adversarial::test_support::{linear, run};

    #[test]
    fn on_a_linear_model_it_comes_near_the_smallest_change() {
        let model = linear(&[[0.0; 3], [0.5, -2.0, 1.0]], &[0.0, 0.5]);
        let threat = Threat::new(Norm::L1, 10.0, [0.0, 1.0]).unwrap();
        let x = [0.5, 0.5, 0.7];
        let (y, z) = run(&Ead::default(), &model, &[3], &x, &[1], &threat, 0);
        let (size, best) = (distance(Norm::L1, &x, &y), 0.45 / 2.0);
        assert!(!is_right(&z, 1) && size >= best - 1e-5 && size < best * 1.2, "{size}, closed form {best}");
    }

    #[test]
    fn small_moves_are_shrunk_to_nothing() {
        let b = Ball { norm: Norm::L1, epsilon: 1.0, low: 0.0, high: 1.0 };
        assert_eq!(shrink(0.505, 0.5, 0.01, &b), 0.5);
        assert!((shrink(0.55, 0.5, 0.01, &b) - 0.54).abs() < 1e-6 && (shrink(0.4, 0.5, 0.01, &b) - 0.41).abs() < 1e-6);
        assert_eq!((shrink(5.0, 0.5, 0.01, &b), shrink(-5.0, 0.5, 0.01, &b)), (1.0, 0.0));
    }
}
