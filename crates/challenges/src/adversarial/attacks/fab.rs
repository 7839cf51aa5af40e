//! Fast adaptive boundary attack: the smallest change, by projections onto the linearised decision boundary.
//! Croce and Hein, ICML 2020, arXiv:1907.02044, algorithm 1; parameters of AutoAttack. Checked against: the closed form of a
//! linear model, which it must meet; recorded masks of AutoAttack.
//!
//! Differs from the published implementation: a row leaves once its change is within epsilon, unless `minimal` asks for the
//! smallest one; targets run side by side as extra rows, the likeliest alone first; draws are per row. Weak where the
//! boundary is far from linear, and where gradients vanish.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::attack::{Attack, Batch, Goal};
use crate::adversarial::hyperplane::reach;
use crate::adversarial::loss::targets;
use crate::adversarial::oracle::Oracle;
use crate::adversarial::projection::{Ball, CONVEX, distance};
use crate::adversarial::smallest::{Smallest, joined, nearest_boundaries};

/// Most weight of the move from the clean row.
const ALPHA_MAX: f64 = 0.1;
/// How far beyond the boundary a step goes.
const ETA: f32 = 1.05;
/// How far back towards the clean row an adversarial point goes.
const BETA: f32 = 0.9;

const STEPS: OptionDoc = OptionDoc { name: "steps", default: "100", doc: "Steps of each start, 1 to 100000." };
const RESTARTS: OptionDoc =
    OptionDoc { name: "restarts", default: "1", doc: "Starts of each row, the first at the row itself, 1 to 1000." };
const MINIMAL: OptionDoc = OptionDoc {
    name: "minimal",
    default: "true",
    doc: "Whether a row goes on to the smallest change after one within epsilon is found.",
};

pub(super) static CARD: Card = Card {
    id: "fab",
    version: 1,
    kind: CardKind::Attack,
    title: "Fast adaptive boundary attack",
    challenge: Challenge::Adversarial,
    measures: "The smallest change with a wrong answer, found by projections onto the linearised boundary to the nearest \
               class.",
    reference: "Croce and Hein, ICML 2020, arXiv:1907.02044, algorithm 1",
    needs: &[Need::Labels, Need::Classifier, Need::InputGradient],
    options: &[STEPS, RESTARTS, MINIMAL],
};

pub(super) static TARGETED_CARD: Card = Card {
    id: "fab-t",
    title: "Targeted fast adaptive boundary attack",
    measures: "The fast adaptive boundary attack towards each of the likeliest wrong classes: two gradients a step however many \
               classes there are.",
    options: &[
        STEPS,
        RESTARTS,
        OptionDoc { name: "targets", default: "9", doc: "Wrong classes that are tried, likeliest first, 1 to 1000." },
        MINIMAL,
    ],
    ..CARD
};

/// Options of the untargeted form.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Fab {
    pub(crate) steps: usize,
    pub(crate) restarts: usize,
    pub(crate) minimal: bool,
}

impl Default for Fab {
    fn default() -> Self {
        Self { steps: 100, restarts: 1, minimal: true }
    }
}

/// Options of the targeted form.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FabT {
    pub(crate) steps: usize,
    pub(crate) restarts: usize,
    pub(crate) targets: usize,
    pub(crate) minimal: bool,
}

impl Default for FabT {
    fn default() -> Self {
        Self { steps: 100, restarts: 1, targets: 9, minimal: true }
    }
}

impl Attack for Fab {
    fn norms(&self) -> &'static [Norm] {
        CONVEX
    }

    fn goal(&self) -> Goal {
        Goal::SmallestNorm
    }

    fn batch_rows(&self, rows: usize) -> usize {
        rows / self.restarts.clamp(1, rows)
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        let starts: Vec<(usize, Option<usize>)> = batch.right().into_iter().map(|i| (i, None)).collect();
        let plan = Plan { steps: self.steps, restarts: self.restarts, minimal: self.minimal };
        let mut best = Smallest::new(batch, threat.norm);
        plan.run(&starts, oracle, batch, threat, &mut best)?;
        Ok(best.x)
    }
}

impl Attack for FabT {
    fn norms(&self) -> &'static [Norm] {
        CONVEX
    }

    fn goal(&self) -> Goal {
        Goal::SmallestNorm
    }

    fn batch_rows(&self, rows: usize) -> usize {
        (rows / (self.restarts * self.targets.saturating_sub(1)).clamp(1, rows)).max(8)
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        if !(1..=1000).contains(&self.targets) {
            let allowed = "1 to 1000; targets beyond the wrong classes are left out";
            return Err(AttackError::Value { name: "targets", value: self.targets as f64, allowed });
        }
        let plan = Plan { steps: self.steps, restarts: self.restarts, minimal: self.minimal };
        let mut best = Smallest::new(batch, threat.norm);
        for (from, to) in [(0, 1), (1, self.targets)] {
            let mut starts = Vec::new();
            for i in batch.right() {
                if !plan.minimal && best.size[i] <= threat.epsilon {
                    continue;
                }
                let all = targets(batch.row_logits(i), batch.labels[i]);
                starts.extend(all.into_iter().take(to).skip(from).map(|t| (i, Some(t))));
            }
            plan.run(&starts, oracle, batch, threat, &mut best)?;
        }
        Ok(best.x)
    }
}

struct Plan {
    steps: usize,
    restarts: usize,
    minimal: bool,
}

/// One start of one row, towards one class or the nearest.
struct Particle {
    owner: usize,
    target: Option<usize>,
    x: Vec<f32>,
    /// Weights of the boundary, and how far the point is in front of it.
    w: Vec<f32>,
    gap: f64,
}

impl Plan {
    fn run(
        &self,
        starts: &[(usize, Option<usize>)],
        oracle: &Oracle<'_, '_>,
        batch: &Batch<'_>,
        threat: &Threat,
        best: &mut Smallest<'_>,
    ) -> Result<(), AttackError> {
        let fail = |name, value: usize, allowed| Err(AttackError::Value { name, value: value as f64, allowed });
        if !(1..=100_000).contains(&self.steps) {
            return fail("steps", self.steps, "1 to 100000");
        }
        if !(1..=1000).contains(&self.restarts) {
            return fail("restarts", self.restarts, "1 to 1000");
        }
        oracle.victim().need_gradient()?;
        let (len, k, ball) = (batch.row_len(), batch.classes(), Ball::from(threat));
        let mut particles = Vec::with_capacity(starts.len() * self.restarts);
        for r in 0..self.restarts {
            for &(owner, target) in starts {
                let x = if r == 0 { batch.row(owner).to_vec() } else { random_start(&ball, batch, owner, target, r) };
                particles.push(Particle { owner, target, x, w: vec![0.0; len], gap: 0.0 });
            }
        }
        for _ in 0..self.steps {
            if particles.is_empty() {
                return Ok(());
            }
            linearise(&mut particles, &ball, oracle, batch)?;
            particles.par_iter_mut().for_each(|p| p.advance(&ball, batch.row(p.owner)));
            let owners: Vec<usize> = particles.iter().map(|p| p.owner).collect();
            let mut x = Vec::with_capacity(particles.len() * len);
            particles.iter().for_each(|p| x.extend_from_slice(&p.x));
            let logits = oracle.logits(&owners, &x)?;
            for (p, z) in particles.iter_mut().zip(logits.chunks_exact(k)) {
                if best.see(p.owner, &p.x, z) {
                    p.x.iter_mut().zip(batch.row(p.owner)).for_each(|(x, o)| *x = o + (*x - o) * BETA);
                }
            }
            if !self.minimal {
                particles.retain(|p| best.size[p.owner] > threat.epsilon);
            }
        }
        Ok(())
    }
}

impl Particle {
    fn advance(&mut self, ball: &Ball, origin: &[f32]) {
        let there = reach(ball.norm, &self.x, &self.w, self.gap, ball.low, ball.high);
        // The same plane, seen from the clean row.
        let along = |(o, x): (&f32, &f32)| f64::from(*o) - f64::from(*x);
        let moved: f64 = origin.iter().zip(&self.x).map(along).zip(&self.w).map(|(d, w)| d * f64::from(*w)).sum();
        let from_clean = reach(ball.norm, origin, &self.w, self.gap + moved, ball.low, ball.high);
        let zeros = vec![0.0; origin.len()];
        let size = |d: &[f32]| distance(ball.norm, d, &zeros).max(1e-8);
        let (a, b) = (size(&there), size(&from_clean));
        let alpha = (a / (a + b)).clamp(0.0, ALPHA_MAX) as f32;
        for (i, x) in self.x.iter_mut().enumerate() {
            let one = *x + ETA * there[i];
            let other = origin[i] + ETA * from_clean[i];
            *x = (one * (1.0 - alpha) + other * alpha).clamp(ball.low, ball.high);
        }
    }
}

/// The boundary of each particle: towards its target, or the nearest of all. Either all particles have a target or none.
fn linearise(
    particles: &mut [Particle],
    ball: &Ball,
    oracle: &Oracle<'_, '_>,
    batch: &Batch<'_>,
) -> Result<(), AttackError> {
    let wrong = batch.classes() - 1;
    let order = |p: &Particle| match p.target {
        Some(target) => vec![target],
        None => (0..=wrong).filter(|&c| c != batch.labels[p.owner]).collect(),
    };
    let candidates = if particles.iter().all(|p| p.target.is_some()) { 1 } else { wrong };
    let owners: Vec<usize> = particles.iter().map(|p| p.owner).collect();
    let orders: Vec<Vec<usize>> = particles.iter().map(order).collect();
    let x = joined(particles.iter().map(|p| p.x.as_slice()));
    let found = nearest_boundaries(oracle, batch, &owners, &x, ball.norm, &orders, candidates)?;
    for (p, b) in particles.iter_mut().zip(found) {
        (p.w, p.gap) = (b.w, b.gap);
    }
    Ok(())
}

/// A random point on the ball of half the radius.
fn random_start(ball: &Ball, batch: &Batch<'_>, owner: usize, target: Option<usize>, restart: usize) -> Vec<f32> {
    let mut rng = batch.rng(owner, &format!("fab {target:?} {restart}"));
    let origin = batch.row(owner);
    let uniform = ball.norm == Norm::Linf;
    let mut draw = || if uniform { 2.0 * rng.unit() - 1.0 } else { rng.normal() };
    let t: Vec<f32> = origin.iter().map(|_| draw() as f32).collect();
    let size = distance(ball.norm, &t, &vec![0.0; t.len()]).max(1e-12);
    let scale = (0.5 * f64::from(ball.epsilon) / size) as f32;
    origin.iter().zip(&t).map(|(o, t)| (o + t * scale).clamp(ball.low, ball.high)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adversarial::loss::is_right;
    use crate::adversarial::test_support::{linear, run};

    #[test]
    fn on_a_linear_model_it_finds_the_smallest_change() {
        // Margins to classes 0 and 2 are 0.45 and 0.85; the differences of weights (0.5, -2, 1) and (-0.5, -2, 1).
        let model = linear(&[[0.0; 3], [0.5, -2.0, 1.0], [1.0, 0.0, 0.0]], &[0.0, 0.5, -0.9]);
        let x = [0.5, 0.5, 0.7];
        for (norm, best) in [(Norm::Linf, 0.45 / 3.5), (Norm::L2, 0.45 / 5.25f64.sqrt()), (Norm::L1, 0.45 / 2.0)] {
            let threat = Threat::new(norm, 10.0, [0.0, 1.0]).unwrap();
            for attack in [&Fab::default() as &dyn Attack, &FabT::default()] {
                let (y, z) = run(attack, &model, &[3], &x, &[1], &threat, 0);
                let size = distance(norm, &x, &y);
                assert!(
                    !is_right(&z, 1) && size >= best - 1e-6 && size < best * 1.01,
                    "{norm}: {size}, closed form {best}"
                );
            }
        }
    }
}
