//! The attacks: one file and one registry line each.

mod fgsm;
pub mod pgd;

use netproof_audit::Entry;

use super::attack::{Attacks, attack};

/// All attacks, in the order of the table of methods.
pub static ATTACKS: Attacks =
    &[Entry { card: &fgsm::CARD, build: attack::<fgsm::Fgsm> }, Entry { card: &pgd::CARD, build: attack::<pgd::Pgd> }];
