//! Explanations: what a network's answer depends on, row by row, and whether that can be relied on.

mod assess;
mod attention;
mod coalitions;
mod error;
pub mod evidence;
mod explained;
mod explainer;
pub(crate) mod explanation_fairness;
pub(crate) mod explanations;
pub(crate) mod faithfulness;
pub mod insights;
mod maps;
pub(crate) mod method_agreement;
mod methods;
mod one_hot;
pub mod pictures;
mod reliance;
pub(crate) mod sanity;
mod segments;
pub(crate) mod shortcut;
pub(crate) mod stability;
pub(crate) mod surrogate_fidelity;
#[cfg(test)]
pub(crate) mod test_support;

pub use error::ExplainError;
pub use explained::{Answer, Choice, Explained, MEMORY};
pub use explainer::{Explainer, Explanation, Features, Question, Target, explain, targets};
pub use methods::{EXPLANATIONS, Explanations, explanation};
pub use one_hot::one_hot;
pub use reliance::{DO_NOT_RELY, MOST_KEPT, Reliance, Sanity, badge, badge_of};

/// Ids of the methods that need no gradient.
pub(crate) fn gradient_free() -> Vec<&'static str> {
    use netproof_core::Need;
    EXPLANATIONS.iter().filter(|e| !e.card.needs.contains(&Need::InputGradient)).map(|e| e.card.id).collect()
}
