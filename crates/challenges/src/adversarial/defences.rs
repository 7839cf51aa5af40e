//! What helps against adversarial examples, or is said to.
//!
//! A remedy here proposes candidates like any other; whether one helps is decided under attacks that know it: the check
//! `adaptive-attack` goes around gradients that a defence hides (BPDA) and says what the hiding was worth.

pub(crate) mod adaptive_attack;
pub(crate) mod adversarial_training;
pub(crate) mod averaged_networks;
mod backward_twin;
pub(crate) mod defensive_distillation;
pub(crate) mod detection;
pub(crate) mod diverse_ensemble;
pub(crate) mod noise_averaging;
pub(crate) mod noise_injection;
pub(crate) mod preprocessing;
pub(crate) mod training;
