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
use netproof_train::Registry;

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
        card: &adversarial::checks::corruptions::CARD,
        build: check::<adversarial::checks::corruptions::CorruptionsCheck>,
    },
    Entry {
        card: &adversarial::checks::gradient_masking::CARD,
        build: check::<adversarial::checks::gradient_masking::GradientMasking>,
    },
    Entry {
        card: &adversarial::checks::autoattack::CARD,
        build: check::<adversarial::checks::autoattack::AutoAttackCheck>,
    },
    Entry {
        card: &adversarial::checks::minimal_perturbation::CARD,
        build: check::<adversarial::checks::minimal_perturbation::MinimalPerturbation>,
    },
    Entry {
        card: &adversarial::checks::transferability::CARD,
        build: check::<adversarial::checks::transferability::Transferability>,
    },
    Entry {
        card: &adversarial::defences::adaptive_attack::CARD,
        build: check::<adversarial::defences::adaptive_attack::AdaptiveAttack>,
    },
    Entry {
        card: &adversarial::defences::detection::CARD,
        build: check::<adversarial::defences::detection::Detection>,
    },
    Entry { card: &adversarial::noise_stability::CARD, build: check::<adversarial::noise_stability::NoiseStability> },
    Entry {
        card: &adversarial::certified_accuracy::CARD,
        build: check::<adversarial::certified_accuracy::CertifiedAccuracy>,
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
    Entry {
        card: &adversarial::defences::adversarial_training::CARD,
        build: remedy::<adversarial::defences::adversarial_training::AdversarialTraining>,
    },
    Entry {
        card: &adversarial::defences::preprocessing::bit_depth::CARD,
        build: remedy::<adversarial::defences::preprocessing::bit_depth::BitDepth>,
    },
    Entry {
        card: &adversarial::defences::preprocessing::jpeg::CARD,
        build: remedy::<adversarial::defences::preprocessing::jpeg::Jpeg>,
    },
    Entry {
        card: &adversarial::defences::preprocessing::total_variation::CARD,
        build: remedy::<adversarial::defences::preprocessing::total_variation::TotalVariation>,
    },
    Entry {
        card: &adversarial::defences::preprocessing::median_smoothing::CARD,
        build: remedy::<adversarial::defences::preprocessing::median_smoothing::MedianSmoothing>,
    },
    Entry {
        card: &adversarial::defences::preprocessing::gaussian_smoothing::CARD,
        build: remedy::<adversarial::defences::preprocessing::gaussian_smoothing::GaussianSmoothing>,
    },
    Entry {
        card: &adversarial::defences::preprocessing::thermometer::CARD,
        build: remedy::<adversarial::defences::preprocessing::thermometer::Thermometer>,
    },
    Entry {
        card: &adversarial::defences::noise_averaging::CARD,
        build: remedy::<adversarial::defences::noise_averaging::NoiseAveraging>,
    },
    Entry {
        card: &adversarial::defences::noise_injection::CARD,
        build: remedy::<adversarial::defences::noise_injection::NoiseInjection>,
    },
    Entry {
        card: &adversarial::defences::defensive_distillation::CARD,
        build: remedy::<adversarial::defences::defensive_distillation::DefensiveDistillation>,
    },
    Entry {
        card: &adversarial::defences::averaged_networks::CARD,
        build: remedy::<adversarial::defences::averaged_networks::AveragedNetworks>,
    },
    Entry {
        card: &adversarial::defences::diverse_ensemble::CARD,
        build: remedy::<adversarial::defences::diverse_ensemble::DiverseEnsemble>,
    },
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
    Goal {
        id: "robust",
        title: "Right under small deliberate changes, measured by attacks that know the defence",
        checks: &["robust-accuracy", "autoattack", "adaptive-attack", "gradient-masking", "minimal-perturbation"],
        aims: &[Aim { check: "adaptive-attack", metric: "adaptive_robust_accuracy", better: Comparison::AtLeast }],
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
    let insights = interpretability::insights::INSIGHTS.iter().map(|e| *e.card);
    let certificates = adversarial::certificates::CERTIFICATES.iter().map(|e| *e.card);
    let evidence = interpretability::evidence::EVIDENCE.iter().map(|m| *m.card);
    let explanations = explanations.chain(insights).chain(evidence);
    checks.chain(remedies).chain(attacks).chain(certificates).chain(explanations).collect()
}

/// Certificates, cheapest first, for evaluations by attacks.
pub fn certifiers() -> Vec<&'static dyn adversarial::certifier::Certifier> {
    adversarial::certifier::CHEAP.iter().map(|b| b as &dyn adversarial::certifier::Certifier).collect()
}

/// All methods that a recipe may name: those of the trainer and those of the challenges.
pub fn training_registry() -> Registry {
    let mut registry = Registry::default();
    registry.rules.add(adversarial::defences::training::RULES);
    registry
}
