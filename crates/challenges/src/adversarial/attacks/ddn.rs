//! Decoupled direction and norm: the direction follows the gradient, the length shrinks after each success.
//! Rony, Hafemann, Oliveira, Ben Ayed, Sabourin and Granger, CVPR 2019, arXiv:1811.09600, algorithm 1. Checked against: the
//! closed form of a linear model, which it must come near.
//! Differs from the paper: no quantisation to 8 bits. Weak where gradients vanish.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::attack::{Attack, Batch, Goal};
use crate::adversarial::loss::Loss;
use crate::adversarial::oracle::Oracle;
use crate::adversarial::projection::Ball;
use crate::adversarial::rows::{row, row_mut};
use crate::adversarial::smallest::{Smallest, cosine, length, origins};

pub(super) static CARD: Card = Card {
    id: "ddn",
    version: 1,
    kind: CardKind::Attack,
    title: "Decoupled direction and norm",
    challenge: Challenge::Adversarial,
    measures: "The smallest l2 change with a wrong answer: gradient steps on a sphere whose radius shrinks after each success \
               and grows after each failure.",
    reference: "Rony et al., CVPR 2019, arXiv:1811.09600, algorithm 1",
    needs: &[Need::Labels, Need::Classifier, Need::InputGradient],
    options: &[
        OptionDoc { name: "steps", default: "100", doc: "Steps, 1 to 100000." },
        OptionDoc { name: "gamma", default: "0.05", doc: "Fraction by which the radius changes, above 0 and below 1." },
        OptionDoc {
            name: "first_radius",
            default: "1.0",
            doc: "Radius to begin with, above 0, in the units of the input.",
        },
    ],
};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ddn {
    steps: usize,
    gamma: f64,
    first_radius: f64,
}

impl Default for Ddn {
    fn default() -> Self {
        Self { steps: 100, gamma: 0.05, first_radius: 1.0 }
    }
}

impl Attack for Ddn {
    fn norms(&self) -> &'static [Norm] {
        &[Norm::L2]
    }

    fn goal(&self) -> Goal {
        Goal::SmallestNorm
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        if !(1..=100_000).contains(&self.steps) {
            return Err(AttackError::Value { name: "steps", value: self.steps as f64, allowed: "1 to 100000" });
        }
        if !(self.gamma > 0.0 && self.gamma < 1.0) {
            return Err(AttackError::Value { name: "gamma", value: self.gamma, allowed: "above 0 and below 1" });
        }
        if !(self.first_radius > 0.0 && self.first_radius.is_finite()) {
            return Err(AttackError::Value { name: "first_radius", value: self.first_radius, allowed: "above 0" });
        }
        oracle.victim().need_gradient()?;
        let (len, k, ball) = (batch.row_len(), batch.classes(), Ball::from(threat));
        let mut best = Smallest::new(batch, Norm::L2);
        let rows = batch.right();
        let mut x = origins(batch, &rows);
        let mut radius = vec![self.first_radius; rows.len()];
        for step in 0..self.steps {
            if rows.is_empty() {
                break;
            }
            let mut objective = |i: usize, z: &[f32], seed: &mut [f32]| {
                Loss::CrossEntropy.of(z, batch.labels[rows[i]], 0, seed);
            };
            let look = oracle.look(&rows, &x, &mut objective)?;
            let alpha = cosine(1.0, 0.01, step as f64 / self.steps as f64);
            for (i, &owner) in rows.iter().enumerate() {
                let wrong = best.see(owner, row(&x, len, i), row(&look.logits, k, i));
                radius[i] *= if wrong { 1.0 - self.gamma } else { 1.0 + self.gamma };
                let g = row(&look.gradient, len, i);
                let size = length(g);
                let scale = if size > 0.0 { (alpha / size) as f32 } else { 0.0 };
                let origin = batch.row(owner);
                let mut d: Vec<f32> =
                    row(&x, len, i).iter().zip(origin).zip(g).map(|((x, o), g)| x - o + scale * g).collect();
                let far = length(&d);
                if far > 0.0 {
                    let onto = (radius[i] / far) as f32;
                    d.iter_mut().for_each(|d| *d *= onto);
                }
                let point = row_mut(&mut x, len, i).iter_mut();
                point.zip(origin).zip(&d).for_each(|((x, o), d)| *x = (o + d).clamp(ball.low, ball.high));
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
    fn on_a_linear_model_it_comes_near_the_smallest_change() {
        let model = linear(&[[0.0; 3], [0.5, -2.0, 1.0]], &[0.0, 0.5]);
        let threat = Threat::new(Norm::L2, 10.0, [0.0, 1.0]).unwrap();
        let x = [0.5, 0.5, 0.7];
        let (y, z) = run(&Ddn::default(), &model, &[3], &x, &[1], &threat, 0);
        let (size, best) = (distance(Norm::L2, &x, &y), 0.45 / 5.25f64.sqrt());
        assert!(!is_right(&z, 1) && size >= best - 1e-6 && size < best * 1.06, "{size}, closed form {best}");
    }
}
