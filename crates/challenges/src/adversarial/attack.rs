//! What an attack is, and what it is given.
//!
//! An attack answers with a proposal for every row and decides nothing: the [`Harness`](super::harness::Harness) clips,
//! runs the network again and counts.

use netproof_audit::{AuditError, Configured, Entry};
use netproof_core::{Card, Norm, Threat};
use netproof_stats::rng::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::AttackError;
use super::loss::is_right;
use super::oracle::Oracle;

/// Rows to attack, one after the other, and what is known of them.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// `[n, row]`, within the bounds of the threat.
    pub x: &'a [f32],
    /// Clean logits, `[n, classes]`.
    pub logits: &'a [f32],
    /// True class of each row.
    pub labels: &'a [usize],
    /// Seed of each row: the only source of random draws, so that a row's fate does not depend on its neighbours.
    pub seeds: &'a [u64],
}

impl<'a> Batch<'a> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Elements of a row.
    pub fn row_len(&self) -> usize {
        self.x.len() / self.len().max(1)
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.logits.len() / self.len().max(1)
    }

    /// A row.
    pub fn row(&self, i: usize) -> &'a [f32] {
        let n = self.row_len();
        &self.x[i * n..(i + 1) * n]
    }

    /// Clean logits of a row.
    pub fn row_logits(&self, i: usize) -> &'a [f32] {
        let k = self.classes();
        &self.logits[i * k..(i + 1) * k]
    }

    /// The random draws of a row for a named purpose.
    pub fn rng(&self, i: usize, purpose: &str) -> Rng {
        Rng::named(self.seeds[i], purpose)
    }

    /// Rows that the network gets right as they are; the others need no attack.
    pub fn right(&self) -> Vec<usize> {
        (0..self.len()).filter(|&i| is_right(self.row_logits(i), self.labels[i])).collect()
    }
}

/// What an attack needs of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Logits and input gradients.
    Gradients,
    /// Logits.
    Scores,
    /// The class alone.
    Decisions,
}

/// What an attack is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// A wrong answer within epsilon.
    WithinEpsilon,
    /// The smallest change with a wrong answer; it may be above epsilon.
    SmallestNorm,
}

/// Searches for inputs on which a network fails.
pub trait Attack: Send + Sync {
    /// Norms that it is made for.
    fn norms(&self) -> &'static [Norm];

    /// What it needs of the network.
    fn access(&self) -> Access {
        Access::Gradients
    }

    /// What it is after.
    fn goal(&self) -> Goal {
        Goal::WithinEpsilon
    }

    /// Rows that it works on at once, for a network of which `rows` fit one pass; attacks that make several rows of each
    /// take fewer.
    fn batch_rows(&self, rows: usize) -> usize {
        rows
    }

    /// A proposal for every row; the row itself where nothing was found.
    ///
    /// # Guarantees
    /// Depends on the row, its label and its seed, not on other rows. With [`Goal::WithinEpsilon`] it stays within epsilon and
    /// the bounds. A row that is wrong already, or holds a NaN, is answered with itself.
    /// # Shapes
    /// `[n, row]` → `[n, row]`
    /// # Errors
    /// The network refuses, or is not differentiable and the attack needs it.
    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError>;
}

/// A registry of attacks.
pub type Attacks = &'static [Entry<dyn Attack>];

/// Reads options into an attack.
/// # Errors
/// An option is unknown or has a wrong type.
pub fn attack<A: Attack + Serialize + DeserializeOwned + 'static>(
    card: &'static Card,
    options: toml::Table,
) -> Result<Configured<dyn Attack>, AuditError> {
    let (method, options) = netproof_audit::parse::<A>(card, options)?;
    Ok(Configured { card, method: Box::new(method), options })
}
