//! Relevance rank: of as many largest attributions as the object has units, the fraction that lies on it; beside the object's
//! share of the row, which random attributions reach. Arras, Osman and Samek 2022, Information Fusion 81, arXiv:2003.07258,
//! equation 2. Checked against: closed forms (tests of `pointing-game`). Needs masks.

use netproof_core::{Card, CardKind, Challenge};

use super::pointing_game::localised;
use super::ranks::largest;
use super::{Case, Measured};
use crate::interpretability::ExplainError;

pub(super) static CARD: Card = Card {
    id: "relevance-rank",
    version: 1,
    kind: CardKind::Evidence,
    title: "Relevance rank",
    challenge: Challenge::Interpretability,
    measures: "Of as many largest attributions as the object has units, the fraction that lies on it; beside the object's share of the row.",
    reference: "Arras, Osman and Samek 2022, Information Fusion 81, arXiv:2003.07258, equation 2",
    needs: &[],
    options: &[],
};

pub(super) fn measure(case: &Case<'_, '_>) -> Result<Measured, ExplainError> {
    localised(case, |units, on| {
        let count = on.iter().filter(|&&o| o).count();
        largest(units)[..count].iter().filter(|&&u| on[u]).count() as f64 / count as f64
    })
}
