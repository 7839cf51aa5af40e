//! The registry of explanations: one file per method, one line each.

mod input_x_gradient;
mod integrated_gradients;
mod saliency;

#[cfg(test)]
mod conformance;

use netproof_audit::{AuditError, Configured, Entry, parse};
use netproof_core::Card;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Explainer;

/// A registry of explanations.
pub type Explanations = &'static [Entry<dyn Explainer>];

/// All explanations that attribute an answer to elements of a row.
pub static EXPLANATIONS: Explanations = &[
    Entry { card: &saliency::CARD, build: explainer::<saliency::Saliency> },
    Entry { card: &input_x_gradient::CARD, build: explainer::<input_x_gradient::InputXGradient> },
    Entry { card: &integrated_gradients::CARD, build: explainer::<integrated_gradients::IntegratedGradients> },
];

/// A method by its id, with options.
/// # Errors
/// There is no such method, or an option is wrong.
pub fn explanation(id: &str, options: toml::Table) -> Result<Configured<dyn Explainer>, AuditError> {
    match EXPLANATIONS.iter().find(|e| e.card.id == id) {
        Some(entry) => (entry.build)(entry.card, options),
        None => Err(AuditError::UnknownId {
            kind: "explanation",
            id: id.to_owned(),
            known: EXPLANATIONS.iter().map(|e| e.card.id.to_owned()).collect(),
        }),
    }
}

fn explainer<E: Explainer + Serialize + DeserializeOwned + 'static>(
    card: &'static Card,
    options: toml::Table,
) -> Result<Configured<dyn Explainer>, AuditError> {
    let (method, options) = parse::<E>(card, options)?;
    Ok(Configured { card, method: Box::new(method), options })
}
