//! What the remedies of this challenge share.

use netproof_audit::{AuditError, Candidate, Change, Making, Retraining};
use netproof_core::Card;
use netproof_train::Method;

/// Refuses a list of option values where one is out of range.
/// # Errors
/// The message names option, value and range.
pub(super) fn each_in(
    card: &Card,
    name: &str,
    values: &[f64],
    check: fn(f64) -> Result<(), &'static str>,
) -> Result<(), AuditError> {
    for &v in values {
        if let Err(allowed) = check(v) {
            let message = format!("`{name}` has {v}; allowed: {allowed}");
            return Err(AuditError::Option { id: card.id.to_owned(), message });
        }
    }
    Ok(())
}

/// Over 0 and below 1.
pub(super) fn fraction(v: f64) -> Result<(), &'static str> {
    if v > 0.0 && v < 1.0 { Ok(()) } else { Err("over 0 and below 1") }
}

/// Over 0.
pub(super) fn positive(v: f64) -> Result<(), &'static str> {
    if v > 0.0 && v.is_finite() { Ok(()) } else { Err("a number over 0") }
}

/// A candidate that is trained by a changed recipe.
pub(super) fn trained(name: String, what: &str, changes: impl IntoIterator<Item = Change>) -> Candidate {
    Candidate { name, what: what.to_owned(), making: Making::Train(Retraining::new(changes)) }
}

/// A method of a recipe with its default options.
pub(super) fn method(kind: &str) -> Method {
    Method::new(kind)
}

/// What every remedy of this challenge answers with, most promising first.
pub(super) const IDS: [&str; 8] = [
    super::early_stopping::CARD.id,
    super::augmentation::CARD.id,
    super::dropout::CARD.id,
    super::weight_decay::CARD.id,
    super::label_smoothing::CARD.id,
    super::smaller_model::CARD.id,
    super::l1::CARD.id,
    super::ensemble::CARD.id,
];
