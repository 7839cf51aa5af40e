//! The nine challenges of deep learning: one folder each, one file per check or remedy, one registry line per file.

mod compute;
mod data_limits;
pub mod interpretability;
mod overfitting;
mod shared;

use netproof_audit::{Checks, Entry, Remedies, check, remedy};
use netproof_core::Card;

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
];

/// All remedies.
pub static REMEDIES: Remedies = &[Entry {
    card: &overfitting::temperature_scaling::CARD,
    build: remedy::<overfitting::temperature_scaling::TemperatureScaling>,
}];

/// Cards of everything that is registered, checks first.
pub fn cards() -> Vec<Card> {
    let explanations = interpretability::EXPLANATIONS.iter().map(|e| *e.card);
    let explanations = explanations.chain(interpretability::insights::INSIGHTS.iter().map(|e| *e.card));
    CHECKS.iter().map(|e| *e.card).chain(REMEDIES.iter().map(|e| *e.card)).chain(explanations).collect()
}
