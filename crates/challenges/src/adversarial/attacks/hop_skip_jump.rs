//! HopSkipJump: the direction of the boundary from answers alone, then a jump along it and back to the boundary.
//! Chen, Jordan and Wainwright, IEEE S&P 2020, arXiv:1904.02144, algorithms 1 and 2. Checked against: the closed form of a linear
//! model, which it must come near.
//! Differs from the published implementation: draws are per row. Weak with few queries.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use netproof_stats::rng::Rng;
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::attack::{Access, Attack, Batch, Goal};
use crate::adversarial::decision::{Walker, start, to_boundary, wrong};
use crate::adversarial::oracle::Oracle;
use crate::adversarial::projection::{Ball, distance};
use crate::adversarial::smallest::{Smallest, joined, length};

pub(super) static CARD: Card = Card {
    id: "hop-skip-jump",
    version: 1,
    kind: CardKind::Attack,
    title: "HopSkipJump",
    challenge: Challenge::Adversarial,
    measures: "The smallest change with a wrong answer, found from classes alone: no gradients, no scores.",
    reference: "Chen, Jordan and Wainwright, IEEE S&P 2020, arXiv:1904.02144, algorithms 1 and 2",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc { name: "steps", default: "40", doc: "Jumps, 1 to 10000." },
        OptionDoc {
            name: "first_draws",
            default: "100",
            doc: "Queries for the first direction, 2 to 1000000; they grow with the root of the step.",
        },
        OptionDoc { name: "most_draws", default: "1000", doc: "Most queries for a direction, 2 to 1000000." },
    ],
};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HopSkipJump {
    steps: usize,
    first_draws: usize,
    most_draws: usize,
}

impl Default for HopSkipJump {
    fn default() -> Self {
        Self { steps: 40, first_draws: 100, most_draws: 1000 }
    }
}

/// Halvings of a jump at most.
const HALVINGS: usize = 20;

impl Attack for HopSkipJump {
    fn norms(&self) -> &'static [Norm] {
        &[Norm::L2, Norm::Linf]
    }

    fn access(&self) -> Access {
        Access::Decisions
    }

    fn goal(&self) -> Goal {
        Goal::SmallestNorm
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        if !(1..=10_000).contains(&self.steps) {
            return Err(AttackError::Value { name: "steps", value: self.steps as f64, allowed: "1 to 10000" });
        }
        for (name, value) in [("first_draws", self.first_draws), ("most_draws", self.most_draws)] {
            if !(2..=1_000_000).contains(&value) {
                return Err(AttackError::Value { name, value: value as f64, allowed: "2 to 1000000" });
            }
        }
        let (ball, norm) = (Ball::from(threat), threat.norm);
        let mut best = Smallest::new(batch, norm);
        let mut walkers = start(oracle, batch, &ball, "hop-skip-jump", &mut best)?;
        for step in 1..=self.steps {
            if walkers.is_empty() {
                break;
            }
            let draws = ((self.first_draws as f64 * (step as f64).sqrt()) as usize).min(self.most_draws);
            let mut directions = Vec::with_capacity(walkers.len());
            for w in &mut walkers {
                directions.push(direction(oracle, batch, &ball, w, step, draws, &mut best)?);
            }
            jump(oracle, batch, &ball, &mut walkers, &directions, step, &mut best)?;
            to_boundary(oracle, batch, norm, &mut walkers, &mut best)?;
        }
        Ok(best.x)
    }
}

/// The direction in which answers stay wrong: the mean of random directions, weighted by what is answered there (equations 12
/// and 16 of the paper).
fn direction(
    oracle: &Oracle<'_, '_>,
    batch: &Batch<'_>,
    ball: &Ball,
    w: &mut Walker,
    step: usize,
    draws: usize,
    best: &mut Smallest<'_>,
) -> Result<Vec<f32>, AttackError> {
    let n = batch.row_len();
    let d = n as f64;
    let far = distance(ball.norm, batch.row(w.owner), &w.x);
    // The radius of the probes follows the distance: sqrt(d) θ ‖x - x*‖ with θ = d^(-3/2), d θ ‖x - x*‖ with θ = d^-2.
    let radius = if step == 1 { 0.1 * f64::from(ball.high - ball.low) } else { far / d };
    let (mut sum, mut mean) = (vec![0.0f64; n], vec![0.0f64; n]);
    let (mut right, mut done) = (0usize, 0usize);
    let most = oracle.victim().batch_rows().max(1);
    while done < draws {
        let part = most.min(draws - done);
        let mut x = Vec::with_capacity(part * n);
        for _ in 0..part {
            let u = unit(ball.norm, n, &mut w.rng);
            x.extend(w.x.iter().zip(&u).map(|(x, u)| (x + radius as f32 * u).clamp(ball.low, ball.high)));
        }
        let owners = vec![w.owner; part];
        let answers = wrong(oracle, batch, &owners, &x, best)?;
        for (point, answer) in x.chunks_exact(n).zip(answers) {
            right += usize::from(answer);
            let sign = if answer { 1.0 } else { -1.0 };
            for (j, v) in point.iter().enumerate() {
                // What the box left of the draw.
                let u = f64::from(v - w.x[j]) / radius.max(f64::MIN_POSITIVE);
                sum[j] += sign * u;
                mean[j] += u;
            }
        }
        done += part;
    }
    let answer = 2.0 * right as f64 / draws as f64 - 1.0;
    let mut g: Vec<f32> = (0..n)
        .map(|j| if answer.abs() >= 1.0 { (answer * mean[j]) as f32 } else { (sum[j] - answer * mean[j]) as f32 })
        .collect();
    if ball.norm == Norm::Linf {
        g.iter_mut().for_each(|v| *v = if *v == 0.0 { 0.0 } else { v.signum() });
    } else {
        let size = length(&g);
        if size > 0.0 {
            g.iter_mut().for_each(|v| *v = (f64::from(*v) / size) as f32);
        }
    }
    Ok(g)
}

/// A random direction of length 1 in l2.
fn unit(norm: Norm, n: usize, rng: &mut Rng) -> Vec<f32> {
    let mut u: Vec<f32> =
        (0..n).map(|_| if norm == Norm::Linf { 2.0 * rng.unit() - 1.0 } else { rng.normal() } as f32).collect();
    let size = length(&u).max(1e-12);
    u.iter_mut().for_each(|v| *v = (f64::from(*v) / size) as f32);
    u
}

/// Along the directions, halving until the answer is wrong there.
fn jump(
    oracle: &Oracle<'_, '_>,
    batch: &Batch<'_>,
    ball: &Ball,
    walkers: &mut [Walker],
    directions: &[Vec<f32>],
    step: usize,
    best: &mut Smallest<'_>,
) -> Result<(), AttackError> {
    let mut sizes: Vec<f64> =
        walkers.iter().map(|w| distance(ball.norm, batch.row(w.owner), &w.x) / (step as f64).sqrt()).collect();
    let mut open: Vec<usize> = (0..walkers.len()).collect();
    for _ in 0..HALVINGS {
        if open.is_empty() {
            break;
        }
        let owners: Vec<usize> = open.iter().map(|&i| walkers[i].owner).collect();
        let tried: Vec<Vec<f32>> = open
            .iter()
            .map(|&i| {
                let along = walkers[i].x.iter().zip(&directions[i]);
                along.map(|(x, g)| (x + sizes[i] as f32 * g).clamp(ball.low, ball.high)).collect()
            })
            .collect();
        let found = wrong(oracle, batch, &owners, &joined(tried.iter().map(Vec::as_slice)), best)?;
        let mut left = Vec::new();
        for ((i, x), found) in open.iter().zip(tried).zip(found) {
            if found {
                walkers[*i].x = x;
            } else {
                sizes[*i] *= 0.5;
                left.push(*i);
            }
        }
        open = left;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adversarial::loss::is_right;
    use crate::adversarial::test_support::{linear, run};

    #[test]
    fn on_a_linear_model_it_comes_near_the_smallest_change() {
        let model = linear(&[[0.0; 3], [0.5, -2.0, 1.0]], &[0.0, 0.5]);
        let x = [0.5, 0.5, 0.7];
        for (norm, best) in [(Norm::L2, 0.45 / 5.25f64.sqrt()), (Norm::Linf, 0.45 / 3.5)] {
            let threat = Threat::new(norm, 10.0, [0.0, 1.0]).unwrap();
            let (y, z) = run(&HopSkipJump::default(), &model, &[3], &x, &[1], &threat, 0);
            let size = distance(norm, &x, &y);
            assert!(!is_right(&z, 1) && size >= best - 1e-6 && size < best * 1.1, "{norm}: {size}, {best}");
        }
    }
}
