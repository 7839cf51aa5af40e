//! The attacks: one file and one registry line each.

pub(crate) mod apgd;
mod bim;
pub(crate) mod fab;
mod fgsm;
mod mi_fgsm;
pub mod pgd;
pub(crate) mod square;

use netproof_audit::Entry;

use super::attack::{Attacks, attack};

/// All attacks, in the order of the table of methods.
pub static ATTACKS: Attacks = &[
    Entry { card: &fgsm::CARD, build: attack::<fgsm::Fgsm> },
    Entry { card: &bim::CARD, build: attack::<bim::Bim> },
    Entry { card: &pgd::CARD, build: attack::<pgd::Pgd> },
    Entry { card: &mi_fgsm::CARD, build: attack::<mi_fgsm::MiFgsm> },
    Entry { card: &apgd::CE_CARD, build: attack::<apgd::ApgdCe> },
    Entry { card: &apgd::DLR_CARD, build: attack::<apgd::ApgdDlr> },
    Entry { card: &apgd::TARGETED_CARD, build: attack::<apgd::ApgdT> },
    Entry { card: &fab::CARD, build: attack::<fab::Fab> },
    Entry { card: &fab::TARGETED_CARD, build: attack::<fab::FabT> },
    Entry { card: &square::CARD, build: attack::<square::Square> },
];
