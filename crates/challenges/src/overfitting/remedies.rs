//! What the remedies of this challenge share.

use netproof_audit::AuditError;
use netproof_core::Card;

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
