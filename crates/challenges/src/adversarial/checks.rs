//! The checks of this challenge that rest on attacks.

pub(crate) mod autoattack;
pub(crate) mod corruptions;
mod gallery;
pub(crate) mod gradient_masking;
pub(crate) mod minimal_perturbation;
pub(crate) mod robust_accuracy;
pub(crate) mod transferability;

use std::sync::Arc;

use netproof_audit::{AuditError, Context, Subject};
use netproof_core::{Norm, Threat};
use netproof_graph::Model;
use netproof_tensor::Tensor;

use super::AttackError;
use super::harness::Harness;
use super::possible::Possible;
use super::victim::Victim;

/// Rows of the data under audit, ready to be attacked.
struct Target<'s> {
    victim: Victim<'s>,
    x: Tensor,
    labels: Vec<usize>,
    row_ids: Vec<u64>,
    /// What a changed row must keep.
    possible: Option<Possible>,
}

impl<'s> Target<'s> {
    /// The first rows.
    fn load(subject: &'s Subject, rows: usize) -> Result<Self, AuditError> {
        let batch = subject.data().take(rows).load()?;
        let labels = batch.labels.classes().unwrap_or_default().to_vec();
        let victim = Victim::of(subject)?;
        let possible = Possible::of_subject(subject, victim.row_len())?;
        Ok(Self { victim, x: batch.features, labels, row_ids: batch.row_ids, possible })
    }

    fn harness<'t>(&'t self, threat: Threat, cx: &'t Context<'_>) -> Result<Harness<'t, 's>, AttackError> {
        Ok(self.free_harness(threat, cx)?.keeping(self.possible.clone()))
    }

    /// Where changed rows need keep nothing, for experiments on the network alone.
    fn free_harness<'t>(&'t self, threat: Threat, cx: &'t Context<'_>) -> Result<Harness<'t, 's>, AttackError> {
        let h = Harness::new(&self.victim, threat, &self.x, &self.labels, &self.row_ids, cx.seed, cx.progress)?;
        Ok(h.until(cx.deadline))
    }

    /// The other networks of the subject that take these rows and say these classes.
    fn surrogates(&self, subject: &'s Subject) -> Result<Vec<(String, Victim<'s>)>, AttackError> {
        surrogates(subject, &self.victim, &self.x)
    }

    /// Whether every value is within the bounds.
    fn is_within(&self, bounds: [f64; 2]) -> bool {
        let [low, high] = bounds.map(|b| b as f32);
        self.x.as_f32().is_some_and(|v| v.iter().all(|v| (low..=high).contains(v) || v.is_nan()))
    }
}

/// Other networks that an attacker holds, by name.
/// # Errors
/// One does not take the rows of this network, or has another number of classes.
pub fn surrogates<'s>(
    subject: &'s Subject,
    victim: &Victim<'_>,
    x: &Tensor,
) -> Result<Vec<(String, Victim<'s>)>, AttackError> {
    let one = |(name, model): &'s (String, Arc<Model>)| -> Result<(String, Victim<'s>), AttackError> {
        let own = super::verify::head(model, x)
            .and_then(|head| Victim::new(model, head, x.shape().get(1..).unwrap_or_default(), x))
            .map_err(|e| AttackError::Mismatch(format!("the surrogate `{name}` does not fit the data: {e}")))?;
        if own.classes() != victim.classes() || own.row_len() != victim.row_len() {
            let message = format!(
                "the surrogate `{name}` takes {} features and says {} classes, the network {} and {}",
                own.row_len(),
                own.classes(),
                victim.row_len(),
                victim.classes()
            );
            return Err(AttackError::Mismatch(message));
        }
        Ok((name.clone(), own))
    };
    subject.others().iter().map(one).collect()
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
