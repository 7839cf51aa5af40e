use netproof_audit::AuditError;
use netproof_core::{Card, Norm, ThreatError};
use netproof_graph::GraphError;
use netproof_stats::StatsError;
use netproof_tensor::TensorError;

/// Why an attack, or an evaluation by attacks, cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttackError {
    /// The network refuses.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A tensor that cannot exist.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The data, or something else of the audit.
    #[error(transparent)]
    Audit(AuditError),
    /// A number that cannot be computed.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// A threat that makes no sense.
    #[error(transparent)]
    Threat(#[from] ThreatError),
    /// A number that is out of range.
    #[error("`{name}` is {value}, it must be {allowed}")]
    Value {
        /// Which one.
        name: &'static str,
        /// What it is.
        value: f64,
        /// What it may be, and what to do.
        allowed: &'static str,
    },
    /// Network, data and labels do not belong together.
    #[error("{0}")]
    Mismatch(String),
    /// The network cannot be attacked at all.
    #[error("this network cannot be attacked: {0}")]
    Victim(String),
    /// The network has no input gradient; attacks that need none still run.
    #[error("the network is not differentiable with respect to its input: {0}; attacks that only query it still run")]
    NotDifferentiable(String),
    /// An attack that is not made for this norm.
    #[error("`{attack}` is not made for {norm}; it takes {supported}")]
    Norm {
        /// Which attack.
        attack: &'static str,
        /// The norm that was asked for.
        norm: &'static str,
        /// The norms that it takes.
        supported: String,
    },
    /// A loss or an attack that needs more classes.
    #[error("`{name}` needs at least {needed} classes, the network has {classes}; use {instead}")]
    Classes {
        /// Which loss or attack.
        name: &'static str,
        /// Classes that it needs.
        needed: usize,
        /// Classes that there are.
        classes: usize,
        /// What does the same for fewer classes.
        instead: &'static str,
    },
    /// An attack that broke its contract.
    #[error("internal error: `{attack}` answered with {message}; please report this")]
    Contract {
        /// Which attack.
        attack: &'static str,
        /// What was wrong.
        message: String,
    },
    /// A certified row that was broken: the certificate or the attack's check is wrong.
    #[error("internal error: row {row} is certified at {threat} and was broken by `{attack}`; please report this")]
    CertifiedBroken {
        /// Row number in the source.
        row: u64,
        /// The threat.
        threat: String,
        /// The attack.
        attack: String,
    },
    /// The time that was given is over.
    #[error("out of time")]
    OutOfTime,
}

impl From<AuditError> for AttackError {
    fn from(e: AuditError) -> Self {
        match e {
            AuditError::Graph(e) => Self::Graph(e),
            AuditError::OutOfTime => Self::OutOfTime,
            other => Self::Audit(other),
        }
    }
}

impl From<AttackError> for AuditError {
    fn from(e: AttackError) -> Self {
        match e {
            AttackError::Graph(e) => Self::Graph(e),
            AttackError::Audit(e) => e,
            AttackError::OutOfTime => Self::OutOfTime,
            AttackError::Mismatch(message) => Self::Mismatch { message },
            other => Self::Method(Box::new(other)),
        }
    }
}

/// # Errors
/// The method of a card is not made for the norm.
pub(crate) fn need_norm(card: &Card, supported: &[Norm], norm: Norm) -> Result<(), AttackError> {
    if supported.contains(&norm) {
        return Ok(());
    }
    let supported = supported.iter().map(|n| n.name()).collect::<Vec<_>>().join(", ");
    Err(AttackError::Norm { attack: card.id, norm: norm.name(), supported })
}
