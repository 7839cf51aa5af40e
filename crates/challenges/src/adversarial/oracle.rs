//! What an attack sees while it runs: the victim, each call counted per row.
//!
//! The counts, and which gradients were zero or not finite, are taken here and not by the attacks, so that an attack reports
//! nothing of its own.

use std::borrow::Cow;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use super::AttackError;
use super::motion::Motion;
use super::possible::Possible;
use super::projection::Ball;
use super::rows::{row, row_mut};
use super::victim::{Evaluation, Look, Objective, Victim};

/// Calls for one row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Forward passes.
    pub forward: u64,
    /// Backward passes.
    pub backward: u64,
    /// Backward passes whose gradient was zero everywhere.
    pub zero: u64,
    /// Backward passes whose gradient held a NaN or an infinity.
    pub not_finite: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.forward += other.forward;
        self.backward += other.backward;
        self.zero += other.zero;
        self.not_finite += other.not_finite;
    }
}

/// Rows that can be, for one batch.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'v> {
    /// What they must keep.
    pub possible: &'v Possible,
    /// The clean rows of the batch, `[n, row]`.
    pub origins: &'v [f32],
    /// The ball and the box that they must stay in.
    pub ball: Ball,
}

/// A view onto a victim for one attack on one batch.
#[derive(Debug)]
pub struct Oracle<'v, 'm> {
    victim: &'v Victim<'m>,
    counts: Mutex<Vec<Count>>,
    deadline: Option<Instant>,
    limits: Option<Limits<'v>>,
    motions: Mutex<Vec<Option<Motion>>>,
}

impl<'v, 'm> Oracle<'v, 'm> {
    /// A view for `rows` rows.
    pub fn new(victim: &'v Victim<'m>, rows: usize, deadline: Option<Instant>) -> Self {
        let (counts, motions) = (Mutex::new(vec![Count::default(); rows]), Mutex::new(vec![None; rows]));
        Self { victim, counts, deadline, limits: None, motions }
    }

    /// The same where only some rows can be: every point is moved to the nearest of those before the network sees it, and
    /// features that cannot change have no gradient. So an attack that knows nothing of such limits searches within them.
    #[must_use]
    pub fn within(mut self, limits: Option<Limits<'v>>) -> Self {
        self.limits = limits;
        self
    }

    /// Says by which motion the proposal for a row of the batch is made; without, it is the row itself.
    pub fn declare(&self, row: usize, motion: Motion) {
        let mut motions = self.motions.lock().unwrap_or_else(PoisonError::into_inner);
        motions.get_mut(row).into_iter().for_each(|m| *m = Some(motion));
    }

    /// The motion that was declared for a row of the batch.
    pub fn motion(&self, row: usize) -> Option<Motion> {
        self.motions.lock().unwrap_or_else(PoisonError::into_inner).get(row).copied().flatten()
    }

    /// What the network is shown in place of `x`.
    fn shown<'x>(&self, rows: &[usize], x: &'x [f32]) -> Cow<'x, [f32]> {
        let Some(limits) = &self.limits else { return Cow::Borrowed(x) };
        let (mut shown, len) = (x.to_vec(), self.victim.row_len());
        for (i, &r) in rows.iter().enumerate() {
            let origin = row(limits.origins, len, r);
            limits.possible.project(origin, row_mut(&mut shown, len, i), Some(&limits.ball));
        }
        Cow::Owned(shown)
    }

    /// The network.
    pub fn victim(&self) -> &'v Victim<'m> {
        self.victim
    }

    /// Logits of `x`, whose rows belong to these rows of the batch (several may belong to one).
    /// # Shapes
    /// `[n]`, `[n, row]` → `[n, classes]`
    /// # Errors
    /// The network refuses, or the time is over.
    pub fn logits(&self, rows: &[usize], x: &[f32]) -> Result<Vec<f32>, AttackError> {
        self.count(rows, |c| c.forward += 1)?;
        self.victim.logits(&self.shown(rows, x))
    }

    /// Logits and the gradient of the rows' losses; the objective is given the position in `rows`, logits, and the seed to fill.
    ///
    /// A gradient that is not finite is answered as zero where it is not.
    /// # Shapes
    /// `[n]`, `[n, row]` → `[n, classes]`, `[n, row]`
    /// # Errors
    /// The network refuses or has no gradient, or the time is over.
    pub fn look(&self, rows: &[usize], x: &[f32], objective: &mut Objective<'_>) -> Result<Look, AttackError> {
        self.count(rows, |c| c.forward += 1)?;
        let mut look = self.victim.look(&self.shown(rows, x), objective)?;
        self.inspect(rows, &mut look.gradient);
        Ok(look)
    }

    /// One forward pass, then any number of gradients; at most [`Victim::batch_rows`] rows.
    /// # Errors
    /// The network refuses or has no gradient, or the time is over.
    pub fn evaluate<'o>(&'o self, rows: &'o [usize], x: &[f32]) -> Result<Counted<'o, 'v, 'm>, AttackError> {
        self.count(rows, |c| c.forward += 1)?;
        Ok(Counted { oracle: self, rows, evaluation: self.victim.evaluate(&self.shown(rows, x))? })
    }

    /// Calls so far, one entry per row of the batch.
    pub fn counts(&self) -> Vec<Count> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// # Errors
    /// The time is over.
    pub fn check_time(&self) -> Result<(), AttackError> {
        match self.deadline {
            Some(end) if Instant::now() >= end => Err(AttackError::OutOfTime),
            _ => Ok(()),
        }
    }

    fn count(&self, rows: &[usize], add: impl Fn(&mut Count)) -> Result<(), AttackError> {
        self.check_time()?;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter().filter_map(|&r| counts.get_mut(r).map(&add)).for_each(drop);
        Ok(())
    }

    fn inspect(&self, rows: &[usize], gradient: &mut [f32]) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let len = gradient.len() / rows.len().max(1);
        for (&row, g) in rows.iter().zip(gradient.chunks_exact_mut(len.max(1))) {
            let mut mark = Count { backward: 1, zero: u64::from(g.iter().all(|v| *v == 0.0)), ..Count::default() };
            if g.iter().any(|v| !v.is_finite()) {
                mark.not_finite = 1;
                g.iter_mut().filter(|v| !v.is_finite()).for_each(|v| *v = 0.0);
            }
            if let Some(c) = counts.get_mut(row) {
                *c += mark;
            }
            if let Some(limits) = &self.limits {
                g.iter_mut().enumerate().filter(|(i, _)| limits.possible.is_fixed(*i)).for_each(|(_, g)| *g = 0.0);
            }
        }
    }
}

/// A forward pass whose gradients are counted.
#[derive(Debug)]
pub struct Counted<'o, 'v, 'm> {
    oracle: &'o Oracle<'v, 'm>,
    rows: &'o [usize],
    evaluation: Evaluation<'v, 'm>,
}

impl Counted<'_, '_, '_> {
    /// `[n, classes]`
    pub fn logits(&self) -> &[f32] {
        self.evaluation.logits()
    }

    /// See [`Evaluation::gradient`]; what is not finite is answered as zero.
    /// # Errors
    /// The network refuses, or the time is over.
    pub fn gradient(&self, seeds: &[f32]) -> Result<Vec<f32>, AttackError> {
        self.oracle.check_time()?;
        let mut gradient = self.evaluation.gradient(seeds)?;
        self.oracle.inspect(self.rows, &mut gradient);
        Ok(gradient)
    }
}
