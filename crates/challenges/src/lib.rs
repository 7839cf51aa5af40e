//! The nine challenges of deep learning: one folder each, one file per check or remedy, one registry line per file.

pub mod adversarial;
mod compute;
mod data_limits;
pub mod interpretability;
mod overfitting;
pub mod selftest;
mod shared;

use netproof_audit::{Aim, Checks, Entry, Goal, Remedies, check, remedy};
use netproof_core::{Card, Comparison};
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
    Entry { card: &overfitting::learning_curves::CARD, build: check::<overfitting::learning_curves::LearningCurves> },
    Entry { card: &overfitting::memorisation::CARD, build: check::<overfitting::memorisation::Memorisation> },
    Entry { card: &overfitting::capacity::CARD, build: check::<overfitting::capacity::Capacity> },
    Entry { card: &overfitting::sample_size::CARD, build: check::<overfitting::sample_size::SampleSize> },
    Entry { card: &overfitting::seed_variance::CARD, build: check::<overfitting::seed_variance::SeedVariance> },
    Entry { card: &compute::compute_cost::CARD, build: check::<compute::compute_cost::ComputeCost> },
    Entry {
        card: &adversarial::checks::robust_accuracy::CARD,
        build: check::<adversarial::checks::robust_accuracy::RobustAccuracyCheck>,
    },
    Entry {
        card: &adversarial::checks::gradient_masking::CARD,
        build: check::<adversarial::checks::gradient_masking::GradientMasking>,
    },
    Entry {
        card: &adversarial::checks::autoattack::CARD,
        build: check::<adversarial::checks::autoattack::AutoAttackCheck>,
    },
    Entry { card: &interpretability::faithfulness::CARD, build: check::<interpretability::faithfulness::Faithfulness> },
    Entry { card: &interpretability::sanity::CARD, build: check::<interpretability::sanity::SanityCheck> },
    Entry { card: &interpretability::stability::CARD, build: check::<interpretability::stability::Stability> },
    Entry {
        card: &interpretability::method_agreement::CARD,
        build: check::<interpretability::method_agreement::MethodAgreement>,
    },
    Entry { card: &interpretability::shortcut::CARD, build: check::<interpretability::shortcut::Shortcut> },
    Entry {
        card: &interpretability::explanation_fairness::CARD,
        build: check::<interpretability::explanation_fairness::ExplanationFairness>,
    },
    Entry {
        card: &interpretability::surrogate_fidelity::CARD,
        build: check::<interpretability::surrogate_fidelity::SurrogateFidelity>,
    },
    Entry { card: &interpretability::explanations::CARD, build: check::<interpretability::explanations::Explanations> },
];

/// All remedies, in the order in which a repair tries them.
pub static REMEDIES: Remedies = &[
    Entry {
        card: &overfitting::temperature_scaling::CARD,
        build: remedy::<overfitting::temperature_scaling::TemperatureScaling>,
    },
    Entry { card: &overfitting::early_stopping::CARD, build: remedy::<overfitting::early_stopping::EarlyStopping> },
    Entry { card: &overfitting::augmentation::CARD, build: remedy::<overfitting::augmentation::Augmentation> },
    Entry { card: &overfitting::dropout::CARD, build: remedy::<overfitting::dropout::Dropout> },
    Entry { card: &overfitting::weight_decay::CARD, build: remedy::<overfitting::weight_decay::WeightDecay> },
    Entry { card: &overfitting::label_smoothing::CARD, build: remedy::<overfitting::label_smoothing::LabelSmoothing> },
    Entry { card: &overfitting::smaller_model::CARD, build: remedy::<overfitting::smaller_model::SmallerModel> },
    Entry { card: &overfitting::l1::CARD, build: remedy::<overfitting::l1::L1> },
    Entry { card: &overfitting::ensemble::CARD, build: remedy::<overfitting::ensemble::Ensemble> },
];

/// What a repair can be for. A metric that decides must be one that cannot be had by answering worse elsewhere.
pub static GOALS: &[Goal] = &[
    Goal {
        id: "overfitting",
        title: "Right on rows that it has not seen",
        checks: &["generalisation-gap", "memorisation", "learning-curves", "capacity"],
        aims: QUALITY,
    },
    Goal {
        id: "calibrated",
        title: "As sure as it is right",
        checks: &["calibration"],
        aims: &[Aim { check: "performance", metric: "log_loss", better: Comparison::AtMost }],
    },
];

/// What no repair may cost more of than is tolerated.
pub static QUALITY: &[Aim] = &[
    Aim { check: "performance", metric: "accuracy", better: Comparison::AtLeast },
    Aim { check: "performance", metric: "mae", better: Comparison::AtMost },
];

/// Cards of everything that is registered, checks first.
pub fn cards() -> Vec<Card> {
    let checks = CHECKS.iter().map(|e| *e.card);
    let remedies = REMEDIES.iter().map(|e| *e.card);
    let attacks = adversarial::protocol::cards().into_iter().copied();
    let explanations = interpretability::EXPLANATIONS.iter().map(|e| *e.card);
    let explanations = explanations.chain(interpretability::insights::INSIGHTS.iter().map(|e| *e.card));
    let evidence = interpretability::evidence::EVIDENCE.iter().map(|m| *m.card);
    checks.chain(remedies).chain(attacks).chain(explanations).chain(evidence).collect()
}

/// Certificates, cheapest first, for evaluations by attacks.
pub fn certifiers() -> Vec<&'static dyn adversarial::certifier::Certifier> {
    Vec::new()
}

/// Gradient rules of the challenges, for recipes.
pub static GRADIENT_RULES: &[netproof_train::Entry<dyn GradientRule>] = &[];

/// All methods that a recipe may name: those of the trainer and those of the challenges.
pub fn training_registry() -> Registry {
    let mut registry = Registry::default();
    registry.rules.add(GRADIENT_RULES);
    registry.rules.add(adversarial::defences::training::RULES);
    registry
}
