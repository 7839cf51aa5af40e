//! The nine challenges of deep learning: one folder each, one file per check or remedy, one registry line per file.

use netproof_audit::{Checks, Remedies};
use netproof_core::Card;

/// All checks, in the order in which an audit runs them.
pub static CHECKS: Checks = &[];

/// All remedies.
pub static REMEDIES: Remedies = &[];

/// Cards of everything that is registered, checks first.
pub fn cards() -> Vec<Card> {
    CHECKS.iter().map(|e| *e.card).chain(REMEDIES.iter().map(|e| *e.card)).collect()
}
