//! Several certificates one after the other, the cheapest first; each sees only the rows that are still open.

use std::time::Instant;

use netproof_audit::{Configured, select};
use netproof_core::{Norm, Threat};
use netproof_graph::{GraphError, Model};
use netproof_tensor::Tensor;

use super::{CERTIFICATES, Certificate, Guarantee, Rows};
use crate::adversarial::AttackError;

/// Certificates that hold for the network itself, in order.
pub struct Ladder {
    methods: Vec<Configured<dyn Certificate>>,
    /// When the work must be over; rows that are open then stay unproved.
    pub deadline: Option<Instant>,
    /// Most multiply-accumulate operations per row for the steps that bound every neuron by itself (CROWN, α-CROWN): a
    /// larger network goes without them.
    pub most_macs: u64,
}

impl std::fmt::Debug for Ladder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.methods.iter().map(|m| m.card.id)).finish()
    }
}

/// About a second of two cores.
const MOST_MACS: u64 = 50_000_000_000;

impl Ladder {
    /// Certificates by their ids.
    /// # Errors
    /// An id is unknown, or belongs to a certificate of another classifier than the network (smoothing).
    pub fn of(ids: &[&str]) -> Result<Self, AttackError> {
        let only: Vec<String> = ids.iter().map(|&id| id.to_owned()).collect();
        let methods = select("certificate", CERTIFICATES, &only, &[], &toml::Table::new())?;
        if let Some(m) = methods.iter().find(|m| m.method.guarantee() != Guarantee::Certain) {
            let message = format!("`{}` certifies the network under noise, not the network", m.card.id);
            return Err(AttackError::Mismatch(message));
        }
        Ok(Self { methods, deadline: None, most_macs: MOST_MACS })
    }

    /// IBP, CROWN-IBP, CROWN.
    /// # Errors
    /// None that can happen: the ids are those of the registry.
    pub fn standard() -> Result<Self, AttackError> {
        Self::of(&["ibp", "crown-ibp", "crown"])
    }

    /// The same with a time by which the work must be over.
    #[must_use]
    pub fn until(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// The certificates.
    pub fn methods(&self) -> impl Iterator<Item = &Configured<dyn Certificate>> {
        self.methods.iter()
    }
}

/// What was proved.
#[derive(Debug, Clone, PartialEq)]
pub struct Proved {
    /// For each row the certificate that proved it.
    pub by: Vec<Option<&'static str>>,
    /// Certificates that could not run, and why; for people.
    pub notes: Vec<String>,
}

impl Proved {
    /// Whether a row is proved right under every change within the threat.
    pub fn is_proved(&self, row: usize) -> bool {
        self.by.get(row).is_some_and(Option::is_some)
    }

    /// Number of proved rows.
    pub fn count(&self) -> usize {
        self.by.iter().flatten().count()
    }
}

/// The rows on which the network is right under every change within the threat, by the cheapest certificate that shows it.
///
/// What cannot be proved, for want of time, of bounds for an operator or of a norm that certificates know, is unproved and
/// noted; it is no error.
/// # Shapes
/// `x [n, ...]` as the network takes it, `labels [n]` → one entry per row
/// # Errors
/// Rows and labels do not fit the network.
pub fn proved(
    model: &Model,
    x: &Tensor,
    labels: &[usize],
    threat: &Threat,
    ladder: &Ladder,
) -> Result<Proved, AttackError> {
    let mut result = Proved { by: vec![None; labels.len()], notes: Vec::new() };
    if !matches!(threat.norm, Norm::Linf | Norm::L2 | Norm::L1) {
        result.notes.push(format!("no certificate knows {}", threat.norm));
        return Ok(result);
    }
    let work = neurons_work(model, x);
    let mut open: Vec<usize> = (0..labels.len()).collect();
    for step in ladder.methods.iter().filter(|_| !labels.is_empty()) {
        if open.is_empty() {
            break;
        }
        let thorough = matches!(step.card.id, "crown" | "alpha-crown");
        if thorough && work > ladder.most_macs {
            let message = format!("`{}` left out: about {work:.1e} operations per row", step.card.id);
            result.notes.push(message);
            continue;
        }
        // A few rows at a time, so that the time is looked at.
        let at_once = if thorough { 16 } else { 256 };
        let mut left = Vec::new();
        for part in open.chunks(at_once) {
            let own: Vec<usize> = part.iter().map(|&r| labels[r]).collect();
            let picked = x.select_rows(part)?;
            let rows = Rows { model, x: &picked, labels: &own, seeds: &[], deadline: ladder.deadline };
            match step.method.certify(&rows, threat) {
                Ok(yes) => {
                    for (&r, yes) in part.iter().zip(yes) {
                        if yes {
                            result.by[r] = Some(step.card.id);
                        } else {
                            left.push(r);
                        }
                    }
                }
                Err(AttackError::OutOfTime) => {
                    result.notes.push("out of time before all certificates had run".to_owned());
                    return Ok(result);
                }
                Err(AttackError::Graph(e @ GraphError::Unsupported(_))) => {
                    result.notes.push(format!("nothing can be proved: {e}"));
                    return Ok(result);
                }
                Err(e) => return Err(e),
            }
        }
        left.sort_unstable();
        open = left;
    }
    Ok(result)
}

/// Operations per row for a walk back from each value of the network.
pub(crate) fn neurons_work(model: &Model, x: &Tensor) -> u64 {
    let shapes: Vec<_> = model.inputs().iter().map(|p| (p.name.clone(), [&[1], &x.shape()[1..]].concat())).collect();
    let Ok(cost) = model.cost(&shapes) else { return 0 };
    let values: u64 = cost.nodes.iter().map(|n| n.activation_bytes / 4).sum();
    let macs: u64 = cost.nodes.iter().filter_map(|n| n.macs).sum();
    // On average a walk passes half of the network, twice for each value, and about a third of the values is not stable.
    values.saturating_mul(macs) / 3
}
