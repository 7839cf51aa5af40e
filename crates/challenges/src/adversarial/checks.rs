//! The checks of this challenge that rest on attacks.

pub(crate) mod autoattack;
pub(crate) mod corruptions;
pub(crate) mod gradient_masking;
pub(crate) mod minimal_perturbation;
pub(crate) mod robust_accuracy;

use netproof_audit::{AuditError, Context, Subject};
use netproof_core::{Norm, Threat};
use netproof_tensor::Tensor;

use super::AttackError;
use super::harness::Harness;
use super::victim::Victim;

/// Rows of the data under audit, ready to be attacked.
struct Target<'s> {
    victim: Victim<'s>,
    x: Tensor,
    labels: Vec<usize>,
    row_ids: Vec<u64>,
}

impl<'s> Target<'s> {
    /// The first rows.
    fn load(subject: &'s Subject, rows: usize) -> Result<Self, AuditError> {
        let batch = subject.data().take(rows).load()?;
        let labels = batch.labels.classes().unwrap_or_default().to_vec();
        Ok(Self { victim: Victim::of(subject)?, x: batch.features, labels, row_ids: batch.row_ids })
    }

    fn harness<'t>(&'t self, threat: Threat, cx: &'t Context<'_>) -> Result<Harness<'t, 's>, AttackError> {
        let h = Harness::new(&self.victim, threat, &self.x, &self.labels, &self.row_ids, cx.seed, cx.progress)?;
        Ok(h.until(cx.deadline))
    }

    /// Whether every value is within the bounds.
    fn is_within(&self, bounds: [f64; 2]) -> bool {
        let [low, high] = bounds.map(|b| b as f32);
        self.x.as_f32().is_some_and(|v| v.iter().all(|v| (low..=high).contains(v) || v.is_nan()))
    }
}

/// Rows that `most` thousand million multiply-accumulates let an evaluation of `passes` forward passes per row look at.
fn affordable(subject: &Subject, rows: usize, passes: f64, most: f64) -> usize {
    let model = subject.model();
    let macs = model.cost(&model.batch_shapes(1)).ok().and_then(|c| c.macs).unwrap_or(0);
    let per_row = macs as f64 * 1e-9 * passes;
    let rows = rows.min(subject.data().len());
    if per_row <= 0.0 { rows } else { rows.min((most / per_row) as usize) }
}

/// # Errors
/// A number of the options makes no threat.
fn threat(norm: Norm, epsilon: f64, bounds: &[f64]) -> Result<Threat, AuditError> {
    let [low, high] = bounds else {
        let value = bounds.len() as f64;
        return Err(AttackError::Value {
            name: "bounds",
            value,
            allowed: "two numbers, the least and the largest feature",
        }
        .into());
    };
    Ok(Threat::new(norm, epsilon, [*low, *high]).map_err(AttackError::from)?)
}
