//! Certificates: proofs that no change within a threat turns the answer on a row. One file and one registry line each.
//!
//! The deterministic ones bound the margins `z_y − z_j` of the network itself over the whole threat; what they prove is true
//! of every input within it. Smoothing speaks of another classifier, the network under noise, and with a stated confidence:
//! its radii must not be mixed with the others.
//!
//! [`proved`] is what an evaluation by attacks calls first: the rows that need no attack.

mod alpha_crown;
mod crown;
mod crown_ibp;
mod deterministic;
mod ibp;
mod ladder;
pub mod randomised_smoothing;
pub mod sequential_smoothing;
pub mod smoothing;
#[cfg(test)]
mod tests;

use std::time::Instant;

use netproof_audit::{AuditError, Configured, Entry};
use netproof_core::{Card, Norm, Threat};
use netproof_graph::Model;
use netproof_tensor::Tensor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::AttackError;

pub use deterministic::Search;
pub(crate) use ladder::neurons_work;
pub use ladder::{Ladder, Proved, proved};

/// All certificates, the cheapest first.
pub static CERTIFICATES: Certificates = &[
    Entry { card: &ibp::CARD, build: certificate::<ibp::Ibp> },
    Entry { card: &crown_ibp::CARD, build: certificate::<crown_ibp::CrownIbp> },
    Entry { card: &crown::CARD, build: certificate::<crown::Crown> },
    Entry { card: &alpha_crown::CARD, build: certificate::<alpha_crown::AlphaCrown> },
    Entry { card: &sequential_smoothing::CARD, build: certificate::<sequential_smoothing::SequentialSmoothing> },
    Entry { card: &randomised_smoothing::CARD, build: certificate::<randomised_smoothing::RandomisedSmoothing> },
];

/// A registry of certificates.
pub type Certificates = &'static [Entry<dyn Certificate>];

/// What a certificate's answer is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Guarantee {
    /// It holds for the network, for every input within the threat.
    Certain,
    /// It holds for the network under noise of this standard deviation, for each row with at least this probability.
    Smoothed {
        /// Standard deviation of the noise, in units of the features.
        sigma: f64,
        /// Probability that the answer for one row is true.
        confidence: f64,
    },
}

/// Rows to certify.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The network.
    pub model: &'a Model,
    /// `[n, ...]`, as the network takes them.
    pub x: &'a Tensor,
    /// True class of each row.
    pub labels: &'a [usize],
    /// Seed of each row: the only source of random draws.
    pub seeds: &'a [u64],
    /// When the work must be over.
    pub deadline: Option<Instant>,
}

impl Rows<'_> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// # Errors
    /// The time is over.
    pub fn check_time(&self) -> Result<(), AttackError> {
        match self.deadline {
            Some(end) if Instant::now() >= end => Err(AttackError::OutOfTime),
            _ => Ok(()),
        }
    }
}

/// Proves answers.
pub trait Certificate: Send + Sync {
    /// Norms for which it proves anything.
    fn norms(&self) -> &'static [Norm];

    /// What its answer is worth.
    fn guarantee(&self) -> Guarantee {
        Guarantee::Certain
    }

    /// For each row whether the answer is right there and under every change within the threat, as far as this method can
    /// prove it. A row with a NaN, or that is wrong already, is never certified.
    /// # Errors
    /// The network has an operator without bounds, or the norm is not one of [`Certificate::norms`].
    fn certify(&self, rows: &Rows<'_>, threat: &Threat) -> Result<Vec<bool>, AttackError>;

    /// For each row the largest epsilon up to that of the threat at which [`Certificate::certify`] says yes, within the
    /// resolution of the search; `None` where it says no even without any change.
    /// # Errors
    /// See [`Certificate::certify`].
    fn radii(&self, rows: &Rows<'_>, threat: &Threat) -> Result<Vec<Option<f64>>, AttackError>;
}

/// Reads options into a certificate.
/// # Errors
/// An option is unknown or has a wrong type.
pub fn certificate<C: Certificate + Serialize + DeserializeOwned + 'static>(
    card: &'static Card,
    options: toml::Table,
) -> Result<Configured<dyn Certificate>, AuditError> {
    let (method, options) = netproof_audit::parse::<C>(card, options)?;
    Ok(Configured { card, method: Box::new(method), options })
}
