//! The attacks: one file and one registry line each.

pub(crate) mod apgd;
mod bim;
mod boundary;
mod carlini_wagner;
mod ddn;
mod deep_fool;
mod ead;
pub(crate) mod fab;
mod fgsm;
mod fmn;
mod hop_skip_jump;
mod mi_fgsm;
mod patch;
pub mod pgd;
mod sigma_zero;
mod sim_ba;
mod spatial;
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
    Entry { card: &deep_fool::CARD, build: attack::<deep_fool::DeepFool> },
    Entry { card: &carlini_wagner::CARD, build: attack::<carlini_wagner::CarliniWagner> },
    Entry { card: &ddn::CARD, build: attack::<ddn::Ddn> },
    Entry { card: &fmn::CARD, build: attack::<fmn::Fmn> },
    Entry { card: &ead::CARD, build: attack::<ead::Ead> },
    Entry { card: &sigma_zero::CARD, build: attack::<sigma_zero::SigmaZero> },
    Entry { card: &patch::CARD, build: attack::<patch::Patch> },
    Entry { card: &spatial::CARD, build: attack::<spatial::Spatial> },
    Entry { card: &sim_ba::CARD, build: attack::<sim_ba::SimBa> },
    Entry { card: &boundary::CARD, build: attack::<boundary::Boundary> },
    Entry { card: &hop_skip_jump::CARD, build: attack::<hop_skip_jump::HopSkipJump> },
];
