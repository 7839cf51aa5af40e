//! Explanations: what a network's answer depends on, row by row, and whether that can be relied on.

mod attention;
mod coalitions;
mod error;
mod explained;
mod explainer;
pub mod insights;
mod maps;
mod methods;
mod one_hot;
pub mod pictures;
mod segments;
#[cfg(test)]
pub(crate) mod test_support;

pub use error::ExplainError;
pub use explained::{Answer, Choice, Explained, MEMORY};
pub use explainer::{Explainer, Explanation, Features, Question, Target, explain, targets};
pub use methods::{EXPLANATIONS, Explanations, explanation};
pub use one_hot::one_hot;

/// Ids of the methods that need no gradient.
pub(crate) fn gradient_free() -> Vec<&'static str> {
    use netproof_core::Need;
    EXPLANATIONS.iter().filter(|e| !e.card.needs.contains(&Need::InputGradient)).map(|e| e.card.id).collect()
}
