//! Fast minimum-norm: gradient steps projected onto a ball whose radius follows the boundary.
//! Pintor, Roli, Brendel and Biggio, NeurIPS 2021, arXiv:2102.12827, algorithm 1, for l0, l1, l2 and l-infinity. Checked
//! against: the closed form of a linear model in each norm, which it must come near.
//! Differs from the paper: the first radius goes a hundredth beyond the linearised boundary; the exact projection onto
//! ball ∩ box for l1; features at the edge of the box that would leave it are left out of the gradient: they would take a
//! part of each step that the box takes away again. Weak where gradients vanish.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::attack::{Attack, Batch, Goal};
use crate::adversarial::loss::{Loss, margin};
use crate::adversarial::oracle::Oracle;
use crate::adversarial::projection::{Ball, distance};
use crate::adversarial::rows::{row, row_mut};
use crate::adversarial::smallest::{Smallest, cosine, dual, length, origins};

pub(super) static CARD: Card = Card {
    id: "fmn",
    version: 2,
    kind: CardKind::Attack,
    title: "Fast minimum-norm attack",
    challenge: Challenge::Adversarial,
    measures: "The smallest change with a wrong answer in any norm: gradient steps on the margin, projected onto a ball that \
               shrinks after each success.",
    reference: "Pintor, Roli, Brendel and Biggio, NeurIPS 2021, arXiv:2102.12827, algorithm 1",
    needs: &[Need::Labels, Need::Classifier, Need::InputGradient],
    options: &[
        OptionDoc { name: "steps", default: "100", doc: "Steps, 1 to 100000." },
        OptionDoc {
            name: "step_size",
            default: "1.0",
            doc: "Length of the first step in l2, above 0; the last is a hundredth.",
        },
        OptionDoc {
            name: "gamma",
            default: "0.05",
            doc: "Fraction by which the radius changes at first, above 0 and below 1; 0.001 at the end.",
        },
    ],
};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Fmn {
    steps: usize,
    step_size: f64,
    gamma: f64,
}

impl Default for Fmn {
    fn default() -> Self {
        Self { steps: 100, step_size: 1.0, gamma: 0.05 }
    }
}

/// How far beyond the linearised boundary the first radius is: where the network is linear, a point on it is not yet wrong.
const BEYOND: f64 = 1.01;
/// Fraction by which the radius changes at the end.
const LAST_GAMMA: f64 = 0.001;

impl Attack for Fmn {
    fn norms(&self) -> &'static [Norm] {
        &Norm::OF_VECTORS
    }

    fn goal(&self) -> Goal {
        Goal::SmallestNorm
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        if !(1..=100_000).contains(&self.steps) {
            return Err(AttackError::Value { name: "steps", value: self.steps as f64, allowed: "1 to 100000" });
        }
        if !(self.step_size > 0.0 && self.step_size.is_finite()) {
            return Err(AttackError::Value { name: "step_size", value: self.step_size, allowed: "above 0" });
        }
        if !(self.gamma > 0.0 && self.gamma < 1.0) {
            return Err(AttackError::Value { name: "gamma", value: self.gamma, allowed: "above 0 and below 1" });
        }
        oracle.victim().need_gradient()?;
        let (norm, len, k) = (threat.norm, batch.row_len(), batch.classes());
        let ball = Ball::from(threat);
        let mut best = Smallest::new(batch, norm);
        let rows = batch.right();
        let mut x = origins(batch, &rows);
        let mut radius = vec![f64::INFINITY; rows.len()];
        for step in 0..self.steps {
            if rows.is_empty() {
                break;
            }
            let mut objective = |i: usize, z: &[f32], seed: &mut [f32]| {
                Loss::Margin.of(z, batch.labels[rows[i]], 0, seed);
            };
            let look = oracle.look(&rows, &x, &mut objective)?;
            let at = step as f64 / self.steps as f64;
            let (gamma, alpha) =
                (cosine(self.gamma, LAST_GAMMA, at), cosine(self.step_size, 0.01 * self.step_size, at));
            for (i, &owner) in rows.iter().enumerate() {
                let (origin, z) = (batch.row(owner), row(&look.logits, k, i));
                let g = &free(row(&look.gradient, len, i), row(&x, len, i), &ball);
                if best.see(owner, row(&x, len, i), z) {
                    let shrunk = if norm == Norm::L0 {
                        (radius[i] - 1.0).min((radius[i] * (1.0 - gamma)).floor())
                    } else {
                        radius[i] * (1.0 - gamma)
                    };
                    radius[i] = shrunk.min(best.size[owner]).max(0.0);
                } else if best.has(owner) {
                    radius[i] = if norm == Norm::L0 {
                        (radius[i] + 1.0).max((radius[i] * (1.0 + gamma)).floor())
                    } else {
                        radius[i] * (1.0 + gamma)
                    };
                } else {
                    // As far as the linearised boundary is from here.
                    let size = dual(norm, g);
                    let far = f64::from(margin(z, batch.labels[owner])) / size;
                    let there = distance(norm, origin, row(&x, len, i));
                    radius[i] = if size > 0.0 { there + BEYOND * far.max(0.0) } else { f64::INFINITY };
                    if norm == Norm::L0 {
                        radius[i] = radius[i].max(there + 1.0).ceil();
                    }
                }
                let size = length(g);
                let scale = if size > 0.0 { (alpha / size) as f32 } else { 0.0 };
                let point = row_mut(&mut x, len, i);
                point.iter_mut().zip(g).for_each(|(x, g)| *x += scale * g);
                let most = if norm == Norm::L0 { len as f64 } else { f64::from(f32::MAX) };
                Ball { epsilon: radius[i].min(most) as f32, ..ball }.project(origin, point);
                point.iter_mut().for_each(|x| *x = x.clamp(ball.low, ball.high));
            }
        }
        let logits = oracle.logits(&rows, &x)?;
        for (i, &owner) in rows.iter().enumerate() {
            best.see(owner, row(&x, len, i), row(&logits, k, i));
        }
        Ok(best.x)
    }
}

/// The gradient without the features that the box holds back.
fn free(gradient: &[f32], x: &[f32], ball: &Ball) -> Vec<f32> {
    let held = |g: f32, x: f32| if g > 0.0 { x >= ball.high } else { x <= ball.low };
    gradient.iter().zip(x).map(|(&g, &x)| if held(g, x) { 0.0 } else { g }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adversarial::loss::is_right;
    use crate::adversarial::test_support::{linear, run};

    #[test]
    fn on_a_linear_model_it_comes_near_the_smallest_change_in_every_norm() {
        let model = linear(&[[0.0; 3], [0.5, -2.0, 1.0]], &[0.0, 0.5]);
        let x = [0.5, 0.5, 0.7];
        assert_eq!(
            free(
                &[1.0, -2.0, 3.0, -4.0],
                &[1.0, 0.0, 0.5, 0.5],
                &Ball::from(&Threat::new(Norm::L2, 1.0, [0.0, 1.0]).unwrap())
            ),
            [0.0, 0.0, 3.0, -4.0]
        );
        let sizes = [
            (Norm::Linf, 0.45 / 3.5, 1.05),
            (Norm::L2, 0.45 / 5.25f64.sqrt(), 1.05),
            (Norm::L1, 0.45 / 2.0, 1.1),
            (Norm::L0, 1.0, 1.0),
        ];
        for (norm, best, slack) in sizes {
            let threat = Threat::new(norm, 3.0, [0.0, 1.0]).unwrap();
            let (y, z) = run(&Fmn::default(), &model, &[3], &x, &[1], &threat, 0);
            let size = distance(norm, &x, &y);
            assert!(!is_right(&z, 1) && size >= best - 1e-6 && size <= best * slack, "{norm}: {size}, {best}");
        }
    }
}
