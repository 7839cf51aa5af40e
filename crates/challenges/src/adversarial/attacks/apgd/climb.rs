//! The climb that all forms share: one particle per row, target and start.

use netproof_core::{Norm, Threat};
use netproof_stats::rng::Rng;
use rayon::prelude::*;

use crate::adversarial::AttackError;
use crate::adversarial::attack::Batch;
use crate::adversarial::loss::{Loss, is_right};
use crate::adversarial::oracle::Oracle;
use crate::adversarial::projection::{Ball, distance};
use crate::adversarial::rows::row_mut;

/// Fraction of steps that must raise the loss for the step to stay as it is.
const RHO: f32 = 0.75;
/// Weight of the new direction against the last move.
const MOMENTUM: f32 = 0.75;

/// What is climbed, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) loss: Loss,
    pub(crate) steps: usize,
    pub(crate) restarts: usize,
    /// For l1: three and two times epsilon first.
    pub(crate) large_radii: bool,
}

impl Plan {
    fn check(&self) -> Result<(), AttackError> {
        let fail = |name, value: usize, allowed| Err(AttackError::Value { name, value: value as f64, allowed });
        if !(1..=100_000).contains(&self.steps) {
            return fail("steps", self.steps, "1 to 100000");
        }
        if !(1..=1000).contains(&self.restarts) {
            return fail("restarts", self.restarts, "1 to 1000");
        }
        Ok(())
    }
}

/// One start of one row towards one target.
struct Particle {
    owner: usize,
    target: usize,
    x: Vec<f32>,
    before: Vec<f32>,
    gradient: Vec<f32>,
    best: Vec<f32>,
    best_gradient: Vec<f32>,
    wrong: bool,
    loss: f32,
    best_loss: f32,
    /// Best loss at the last checkpoint.
    checked_loss: f32,
    reduced: bool,
    rises: usize,
    step: f32,
    /// For l1: the fraction of features that a step changes, and how many the best point had changed.
    sparsity: f32,
    changed: f32,
}

/// Climbs from starts (row, target); see [`climb_all`].
pub(crate) fn climb(
    plan: &Plan,
    starts: &[(usize, usize)],
    oracle: &Oracle<'_, '_>,
    batch: &Batch<'_>,
    threat: &Threat,
) -> Result<Vec<f32>, AttackError> {
    Ok(climb_all(plan, starts, oracle, batch, threat)?.0)
}

/// Climbs from starts (row, target): the example that was found for each row, or its best point, and which rows are broken.
pub(crate) fn climb_all(
    plan: &Plan,
    starts: &[(usize, usize)],
    oracle: &Oracle<'_, '_>,
    batch: &Batch<'_>,
    threat: &Threat,
) -> Result<(Vec<f32>, Vec<bool>), AttackError> {
    plan.check()?;
    let mut best =
        Best { x: batch.x.to_vec(), loss: vec![f32::NEG_INFINITY; batch.len()], broken: vec![false; batch.len()] };
    let ball = Ball::from(threat);
    let stages = stages(plan, threat);
    let first = Ball { epsilon: stages[0].1 as f32, ..ball };
    let mut particles = Vec::with_capacity(starts.len() * plan.restarts);
    for r in 0..plan.restarts {
        for &(owner, target) in starts {
            let mut rng = batch.rng(owner, &format!("apgd {:?} {target} {r}", plan.loss));
            particles.push(Particle::new(owner, target, start(&first, batch.row(owner), &mut rng)));
        }
    }
    for (i, &(steps, epsilon)) in stages.iter().enumerate() {
        let ball = Ball { epsilon: epsilon as f32, ..ball };
        let last = i + 1 == stages.len();
        for p in &mut particles {
            p.begin(&ball, batch.row(p.owner), stages.len() > 1);
        }
        run(plan, steps, &ball, last, &mut particles, oracle, batch, &mut best)?;
    }
    Ok((best.x, best.broken))
}

/// Steps and radius of each part of the climb.
fn stages(plan: &Plan, threat: &Threat) -> Vec<(usize, f64)> {
    let (n, e) = (plan.steps, threat.epsilon);
    if threat.norm != Norm::L1 || !plan.large_radii || n < 10 {
        return vec![(n, e)];
    }
    let part = (0.3 * n as f64).ceil() as usize;
    vec![(part, 3.0 * e), (part, 2.0 * e), (n - 2 * part, e)]
}

/// What was found for each row.
struct Best {
    x: Vec<f32>,
    loss: Vec<f32>,
    broken: Vec<bool>,
}

#[allow(clippy::too_many_arguments, reason = "the state of one climb, which nothing else shares")]
fn run(
    plan: &Plan,
    steps: usize,
    ball: &Ball,
    counts: bool,
    particles: &mut Vec<Particle>,
    oracle: &Oracle<'_, '_>,
    batch: &Batch<'_>,
    best: &mut Best,
) -> Result<(), AttackError> {
    let sparse = ball.norm == Norm::L1;
    let fraction = |share: f64| ((share * steps as f64) as usize).max(1);
    let (mut gap, shrink, least) =
        if sparse { (fraction(0.04), 0, 1) } else { (fraction(0.22), fraction(0.03), fraction(0.06)) };
    let mut since = 0;
    look(plan.loss, true, particles, oracle, batch)?;
    settle(counts, particles, batch, best);
    for p in particles.iter_mut() {
        p.first();
    }
    for i in 0..steps {
        if particles.is_empty() {
            return Ok(());
        }
        particles.par_iter_mut().for_each(|p| p.advance(ball, batch.row(p.owner), i == 0));
        let before: Vec<f32> = particles.iter().map(|p| p.loss).collect();
        let more = i + 1 < steps || !counts;
        look(plan.loss, more, particles, oracle, batch)?;
        for (p, before) in particles.iter_mut().zip(before) {
            // The first step is compared with zero, as the published implementation does.
            p.rises += usize::from(p.loss > if i == 0 { 0.0 } else { before });
            p.remember(more);
        }
        settle(counts, particles, batch, best);
        since += 1;
        if since == gap {
            for p in particles.iter_mut() {
                if sparse { p.check_sparse(ball, batch.row(p.owner)) } else { p.check(gap) }
            }
            since = 0;
            gap = gap.saturating_sub(shrink).max(least);
        }
    }
    Ok(())
}

impl Particle {
    fn new(owner: usize, target: usize, x: Vec<f32>) -> Self {
        let zeros = vec![0.0; x.len()];
        Self {
            owner,
            target,
            before: x.clone(),
            gradient: zeros.clone(),
            best: x.clone(),
            best_gradient: zeros,
            wrong: false,
            x,
            loss: f32::NEG_INFINITY,
            best_loss: f32::NEG_INFINITY,
            checked_loss: f32::NEG_INFINITY,
            reduced: true,
            rises: 0,
            step: 0.0,
            sparsity: 0.0,
            changed: 0.0,
        }
    }

    /// Begins a climb within a ball: from the best point of the one before, where there was one.
    fn begin(&mut self, ball: &Ball, origin: &[f32], continued: bool) {
        if self.best_loss > f32::NEG_INFINITY {
            self.x.copy_from_slice(&self.best);
        }
        ball.project(origin, &mut self.x);
        self.before.copy_from_slice(&self.x);
        (self.reduced, self.rises) = (true, 0);
        self.step = if ball.norm == Norm::L1 { ball.epsilon } else { 2.0 * ball.epsilon };
        let (n, changed) = (origin.len() as f32, distance(Norm::L0, &self.x, origin) as f32);
        (self.sparsity, self.changed) = if continued { (changed / n / 1.5, changed) } else { (0.2, n) };
    }

    /// After the look at the starting point.
    fn first(&mut self) {
        self.best.copy_from_slice(&self.x);
        self.best_gradient.copy_from_slice(&self.gradient);
        self.best_loss = self.loss;
        self.checked_loss = self.loss;
    }

    /// After the look at a new point.
    fn remember(&mut self, gradient: bool) {
        if self.loss > self.best_loss {
            self.best_loss = self.loss;
            self.best.copy_from_slice(&self.x);
            if gradient {
                self.best_gradient.copy_from_slice(&self.gradient);
            }
        }
    }

    fn advance(&mut self, ball: &Ball, origin: &[f32], first: bool) {
        if ball.norm == Norm::L1 {
            return self.advance_sparse(ball, origin);
        }
        let a = if first { 1.0 } else { MOMENTUM };
        let mut z = self.x.clone();
        if ball.norm == Norm::Linf {
            let step = self.step;
            for (z, g) in z.iter_mut().zip(&self.gradient) {
                if *g != 0.0 {
                    *z += step.copysign(*g);
                }
            }
        } else {
            let size = self.gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt() as f32 + 1e-12;
            let scale = self.step / size;
            z.iter_mut().zip(&self.gradient).for_each(|(z, g)| *z += scale * g);
        }
        ball.project(origin, &mut z);
        for ((z, x), before) in z.iter_mut().zip(&self.x).zip(&self.before) {
            *z = x + (*z - x) * a + (x - before) * (1.0 - a);
        }
        ball.project(origin, &mut z);
        self.before = std::mem::replace(&mut self.x, z);
    }

    /// l1: the signs of the steepest features, in equal parts, without momentum.
    fn advance_sparse(&mut self, ball: &Ball, origin: &[f32]) {
        let n = self.x.len();
        let skipped = ((1.0 - self.sparsity) * n as f32).clamp(0.0, (n - 1) as f32) as usize;
        let mut sizes: Vec<f32> = self.gradient.iter().map(|g| g.abs()).collect();
        let (_, least, _) = sizes.select_nth_unstable_by(skipped, f32::total_cmp);
        let least = *least;
        let chosen = |g: f32| g.abs() >= least && g != 0.0;
        let count = self.gradient.iter().filter(|g| chosen(**g)).count();
        let each = self.step / (count as f32 + 1e-10);
        self.before.copy_from_slice(&self.x);
        for (x, g) in self.x.iter_mut().zip(&self.gradient) {
            if chosen(*g) {
                *x += each.copysign(*g);
            }
        }
        ball.project(origin, &mut self.x);
    }

    /// Halves the step where too few steps raised the loss, or where the best point is the same as at the last checkpoint
    /// and the step was not halved there; then goes on from the best point.
    fn check(&mut self, steps: usize) {
        let oscillates = self.rises as f32 <= steps as f32 * RHO;
        let stuck = !self.reduced && self.checked_loss >= self.best_loss;
        self.reduced = oscillates || stuck;
        self.checked_loss = self.best_loss;
        self.rises = 0;
        if self.reduced {
            self.step /= 2.0;
            self.restart();
        }
    }

    /// l1: as the best point gets sparser, so do the steps.
    fn check_sparse(&mut self, ball: &Ball, origin: &[f32]) {
        let changed = distance(Norm::L0, &self.best, origin) as f32;
        self.sparsity = changed / origin.len() as f32 / 1.5;
        if changed / self.changed < 0.95 {
            self.step = ball.epsilon;
            self.restart();
        } else {
            self.step /= 1.5;
        }
        self.step = self.step.clamp(ball.epsilon / 10.0, ball.epsilon);
        self.changed = changed;
    }

    fn restart(&mut self) {
        self.x.copy_from_slice(&self.best);
        self.gradient.copy_from_slice(&self.best_gradient);
    }
}

/// Logits, losses and, where steps follow, gradients.
fn look(
    loss: Loss,
    gradient: bool,
    particles: &mut [Particle],
    oracle: &Oracle<'_, '_>,
    batch: &Batch<'_>,
) -> Result<(), AttackError> {
    if particles.is_empty() {
        return Ok(());
    }
    let (len, k) = (batch.row_len(), batch.classes());
    let owners: Vec<usize> = particles.iter().map(|p| p.owner).collect();
    let mut x = Vec::with_capacity(particles.len() * len);
    particles.iter().for_each(|p| x.extend_from_slice(&p.x));
    let mut losses = vec![0.0; particles.len()];
    let of = |i: usize, z: &[f32], seed: &mut [f32]| loss.of(z, batch.labels[owners[i]], particles[i].target, seed);
    let (logits, gradients) = if gradient {
        let found = oracle.look(&owners, &x, &mut |i, z, seed| losses[i] = of(i, z, seed))?;
        (found.logits, found.gradient)
    } else {
        let logits = oracle.logits(&owners, &x)?;
        logits.chunks_exact(k).enumerate().for_each(|(i, z)| losses[i] = of(i, z, &mut vec![0.0; k]));
        (logits, Vec::new())
    };
    for (i, p) in particles.iter_mut().enumerate() {
        p.loss = losses[i];
        if gradient {
            p.gradient.copy_from_slice(&gradients[i * len..(i + 1) * len]);
        }
        p.wrong = !is_right(&logits[i * k..(i + 1) * k], batch.labels[p.owner]);
    }
    Ok(())
}

/// Keeps what was found and lets the particles of broken rows go.
fn settle(counts: bool, particles: &mut Vec<Particle>, batch: &Batch<'_>, best: &mut Best) {
    if !counts {
        return;
    }
    let len = batch.row_len();
    for p in particles.iter() {
        let o = p.owner;
        if best.broken[o] {
            continue;
        }
        best.broken[o] = p.wrong;
        if best.broken[o] || p.loss > best.loss[o] {
            best.loss[o] = p.loss;
            row_mut(&mut best.x, len, o).copy_from_slice(&p.x);
        }
    }
    particles.retain(|p| !best.broken[p.owner]);
}

/// A random point: on the surface for l-infinity and l2, the projection of a normal draw for l1.
fn start(ball: &Ball, origin: &[f32], rng: &mut Rng) -> Vec<f32> {
    let e = ball.epsilon;
    let mut t: Vec<f32> = match ball.norm {
        Norm::Linf => origin.iter().map(|_| (2.0 * rng.unit() - 1.0) as f32).collect(),
        _ => origin.iter().map(|_| rng.normal() as f32).collect(),
    };
    let size = distance(ball.norm, &t, &vec![0.0; t.len()]) as f32 + 1e-12;
    let scale = if ball.norm == Norm::L1 { 1.0 } else { e / size };
    t.iter_mut().zip(origin).for_each(|(t, o)| *t = o + *t * scale);
    ball.project(origin, &mut t);
    t
}
