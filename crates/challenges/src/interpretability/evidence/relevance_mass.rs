//! Relevance mass: the share of the positive attributions that lies on the object; beside the object's share of the row, which
//! random attributions reach. Arras, Osman and Samek 2022, Information Fusion 81, arXiv:2003.07258, equation 1.
//! Checked against: closed forms (tests of `pointing-game`). Needs masks. Undefined without a positive attribution.

use netproof_core::{Card, CardKind, Challenge};

use super::pointing_game::localised;
use super::{Case, Measured};
use crate::interpretability::ExplainError;

pub(super) static CARD: Card = Card {
    id: "relevance-mass",
    version: 1,
    kind: CardKind::Evidence,
    title: "Relevance mass",
    challenge: Challenge::Interpretability,
    measures: "Share of the positive attributions that lies on the object; beside the object's share of the row.",
    reference: "Arras, Osman and Samek 2022, Information Fusion 81, arXiv:2003.07258, equation 1",
    needs: &[],
    options: &[],
};

pub(super) fn measure(case: &Case<'_, '_>) -> Result<Measured, ExplainError> {
    localised(case, |units, on| {
        let total: f64 = units.iter().map(|v| v.max(0.0)).sum();
        let inside: f64 = units.iter().zip(on).filter(|(_, on)| **on).map(|(v, _)| v.max(0.0)).sum();
        // 0 of 0 is undefined.
        inside / total
    })
}
