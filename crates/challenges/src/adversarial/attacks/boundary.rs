//! Boundary attack: a random walk along the boundary that comes nearer to the clean row, from classes alone.
//! Brendel, Rauber and Bethge, ICLR 2018, arXiv:1712.04248, algorithm 1 and section 2.4 (adaptation of both step sizes). Checked
//! against: the closed form of a linear model, which it must come near.
//! Weak: many queries; `hop-skip-jump` needs fewer for the same change.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::attack::{Access, Attack, Batch, Goal};
use crate::adversarial::decision::{Walker, start, wrong};
use crate::adversarial::oracle::Oracle;
use crate::adversarial::projection::Ball;
use crate::adversarial::smallest::{Smallest, joined, length};

pub(super) static CARD: Card = Card {
    id: "boundary",
    version: 1,
    kind: CardKind::Attack,
    title: "Boundary attack",
    challenge: Challenge::Adversarial,
    measures: "A small l2 change with a wrong answer: a random walk along the boundary, seeing classes alone.",
    reference: "Brendel, Rauber and Bethge, ICLR 2018, arXiv:1712.04248, algorithm 1",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc {
            name: "steps",
            default: "5000",
            doc: "Steps, 1 to 10000000; the paper goes on until nothing moves.",
        },
        OptionDoc {
            name: "spherical_step",
            default: "0.01",
            doc: "First step along the sphere, relative to the distance, above 0 to 1.",
        },
        OptionDoc {
            name: "source_step",
            default: "0.01",
            doc: "First step towards the clean row, relative to the distance, above 0 to 1.",
        },
    ],
};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Boundary {
    steps: usize,
    spherical_step: f64,
    source_step: f64,
}

impl Default for Boundary {
    fn default() -> Self {
        Self { steps: 5000, spherical_step: 0.01, source_step: 0.01 }
    }
}

/// Step sizes change by this factor.
const ADAPTATION: f64 = 1.5;
/// Tries after which a step size is looked at.
const WINDOW: usize = 30;

/// The walk of one row.
struct Walk {
    at: Walker,
    spherical: f64,
    source: f64,
    /// Tries and successes of steps along the sphere, and of whole steps.
    sphere: [usize; 2],
    whole: [usize; 2],
}

impl Attack for Boundary {
    fn norms(&self) -> &'static [Norm] {
        &[Norm::L2]
    }

    fn access(&self) -> Access {
        Access::Decisions
    }

    fn goal(&self) -> Goal {
        Goal::SmallestNorm
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        if !(1..=10_000_000).contains(&self.steps) {
            return Err(AttackError::Value { name: "steps", value: self.steps as f64, allowed: "1 to 10000000" });
        }
        for (name, value) in [("spherical_step", self.spherical_step), ("source_step", self.source_step)] {
            if !(value > 0.0 && value <= 1.0) {
                return Err(AttackError::Value { name, value, allowed: "above 0 to 1" });
            }
        }
        let ball = Ball::from(threat);
        let mut best = Smallest::new(batch, Norm::L2);
        let mut walks: Vec<Walk> = start(oracle, batch, &ball, "boundary", &mut best)?
            .into_iter()
            .map(|at| Walk {
                at,
                spherical: self.spherical_step,
                source: self.source_step,
                sphere: [0; 2],
                whole: [0; 2],
            })
            .collect();
        for step in 0..self.steps {
            if walks.is_empty() {
                break;
            }
            let owners: Vec<usize> = walks.iter().map(|w| w.at.owner).collect();
            let steps: Vec<[Vec<f32>; 2]> = walks.iter_mut().map(|w| w.next(batch.row(w.at.owner), &ball)).collect();
            let whole = wrong(oracle, batch, &owners, &joined(steps.iter().map(|s| s[1].as_slice())), &mut best)?;
            for (w, found) in walks.iter_mut().zip(&whole) {
                w.whole[0] += 1;
                w.whole[1] += usize::from(*found);
            }
            // Now and then the step along the sphere alone tells how flat the boundary is.
            if step % 5 == 0 {
                let sphere = wrong(oracle, batch, &owners, &joined(steps.iter().map(|s| s[0].as_slice())), &mut best)?;
                for (w, found) in walks.iter_mut().zip(&sphere) {
                    w.sphere[0] += 1;
                    w.sphere[1] += usize::from(*found);
                }
            }
            for ((w, found), [_, x]) in walks.iter_mut().zip(whole).zip(steps) {
                if found {
                    w.at.x = x;
                }
                w.adapt();
            }
        }
        Ok(best.x)
    }
}

impl Walk {
    /// A point of the same distance, and the same nearer to the clean row.
    fn next(&mut self, origin: &[f32], ball: &Ball) -> [Vec<f32>; 2] {
        let away: Vec<f32> = self.at.x.iter().zip(origin).map(|(x, o)| x - o).collect();
        let far = length(&away).max(1e-12);
        let mut eta: Vec<f32> = away.iter().map(|_| self.at.rng.normal() as f32).collect();
        // Across the direction to the clean row.
        let along: f64 = eta.iter().zip(&away).map(|(e, a)| f64::from(*e) * f64::from(*a)).sum::<f64>() / (far * far);
        eta.iter_mut().zip(&away).for_each(|(e, a)| *e -= along as f32 * a);
        let size = length(&eta).max(1e-12);
        let scale = (self.spherical * far / size) as f32;
        let moved: Vec<f32> = away.iter().zip(&eta).map(|(a, e)| a + scale * e).collect();
        let onto = (far / length(&moved).max(1e-12)) as f32;
        let at = |factor: f32| -> Vec<f32> {
            let points = origin.iter().zip(&moved);
            points.map(|(o, m)| (o + onto * factor * m).clamp(ball.low, ball.high)).collect()
        };
        [at(1.0), at((1.0 - self.source) as f32)]
    }

    /// Half of the steps along the sphere should succeed, and a quarter of the whole steps.
    fn adapt(&mut self) {
        let rate = |[tries, found]: [usize; 2]| found as f64 / tries as f64;
        if self.sphere[0] >= WINDOW {
            let rate = rate(std::mem::take(&mut self.sphere));
            if rate > 0.5 {
                self.spherical = (self.spherical * ADAPTATION).min(1.0);
                self.source = (self.source * ADAPTATION).min(1.0);
            } else if rate < 0.2 {
                self.spherical /= ADAPTATION;
                self.source /= ADAPTATION;
            }
        }
        if self.whole[0] >= WINDOW {
            let rate = rate(std::mem::take(&mut self.whole));
            if rate > 0.25 {
                self.source = (self.source * ADAPTATION).min(1.0);
            } else if rate < 0.1 {
                self.source /= ADAPTATION;
            }
        }
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
        let x = [0.5, 0.5, 0.7];
        let threat = Threat::new(Norm::L2, 10.0, [0.0, 1.0]).unwrap();
        let (y, z) = run(&Boundary::default(), &model, &[3], &x, &[1], &threat, 0);
        let (size, best) = (distance(Norm::L2, &x, &y), 0.45 / 5.25f64.sqrt());
        assert!(!is_right(&z, 1) && size >= best - 1e-6 && size < best * 1.1, "{size}, closed form {best}");
    }
}
