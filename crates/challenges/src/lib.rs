//! The nine challenges of deep learning: one folder each, one file per check or remedy, one registry line per file.

pub mod adversarial;
mod compute;
mod data_limits;
pub mod interpretability;
mod overfitting;
mod shared;

use netproof_audit::{Checks, Entry, Remedies, check, remedy};
use netproof_core::Card;
use netproof_train::{GradientRule, Registry};

/// All checks, in the order in which an audit runs them.
pub static CHECKS: Checks = &[
    Entry { card: &data_limits::data_summary::CARD, build: check::<data_limits::data_summary::DataSummary> },
    Entry { card: &overfitting::performance::CARD, build: check::<overfitting::performance::Performance> },
    Entry { card: &overfitting::calibration::CARD, build: check::<overfitting::calibration::Calibration> },
    Entry {
        card: &overfitting::generalisation_gap::CARD,
        build: check::<overfitting::generalisation_gap::GeneralisationGap>,
    },
    Entry { card: &compute::compute_cost::CARD, build: check::<compute::compute_cost::ComputeCost> },
    Entry {
        card: &adversarial::noise_stability::CARD,
        build: check::<adversarial::noise_stability::NoiseStability>,
    },
    Entry {
        card: &adversarial::certified_accuracy::CARD,
        build: check::<adversarial::certified_accuracy::CertifiedAccuracy>,
    },
];

/// All remedies.
pub static REMEDIES: Remedies = &[Entry {
    card: &overfitting::temperature_scaling::CARD,
    build: remedy::<overfitting::temperature_scaling::TemperatureScaling>,
}];

/// Cards of everything that is registered, checks first.
pub fn cards() -> Vec<Card> {
    let checks = CHECKS.iter().map(|e| *e.card);
    let remedies = REMEDIES.iter().map(|e| *e.card);
    let attacks = adversarial::attacks::ATTACKS.iter().map(|e| *e.card);
    let explanations = interpretability::EXPLANATIONS.iter().map(|e| *e.card);
    let certificates = adversarial::certificates::CERTIFICATES.iter().map(|e| *e.card);
    checks.chain(remedies).chain(attacks).chain(explanations).chain(certificates).collect()
}

/// Gradient rules of the challenges, for recipes.
pub static GRADIENT_RULES: &[netproof_train::Entry<dyn GradientRule>] = &[];

/// All methods that a recipe may name: those of the trainer and those of the challenges.
pub fn training_registry() -> Registry {
    let mut registry = Registry::default();
    registry.rules.add(GRADIENT_RULES);
    registry
}
