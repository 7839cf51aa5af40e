//! What an attack sees while it runs: the victim, each call counted per row.
//!
//! The counts, and which gradients were zero or not finite, are taken here and not by the attacks, so that an attack reports
//! nothing of its own.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use super::AttackError;
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

/// A view onto a victim for one attack on one batch.
#[derive(Debug)]
pub struct Oracle<'v, 'm> {
    victim: &'v Victim<'m>,
    counts: Mutex<Vec<Count>>,
    deadline: Option<Instant>,
}

impl<'v, 'm> Oracle<'v, 'm> {
    /// A view for `rows` rows.
    pub fn new(victim: &'v Victim<'m>, rows: usize, deadline: Option<Instant>) -> Self {
        Self { victim, counts: Mutex::new(vec![Count::default(); rows]), deadline }
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
        self.victim.logits(x)
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
        let mut look = self.victim.look(x, objective)?;
        self.inspect(rows, &mut look.gradient);
        Ok(look)
    }

    /// One forward pass, then any number of gradients; at most [`Victim::batch_rows`] rows.
    /// # Errors
    /// The network refuses or has no gradient, or the time is over.
    pub fn evaluate<'o>(&'o self, rows: &'o [usize], x: &[f32]) -> Result<Counted<'o, 'v, 'm>, AttackError> {
        self.count(rows, |c| c.forward += 1)?;
        Ok(Counted { oracle: self, rows, evaluation: self.victim.evaluate(x)? })
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
