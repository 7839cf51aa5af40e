//! CROWN-IBP: linear relaxations for the margins over interval bounds of all values between; one walk back per margin.
//! Zhang et al. 2020, arXiv:1906.06316, section 3. Checked against: closed form on a linear model, a naive float64 version,
//! attacked points. Weak: the intervals between grow with depth; meant for networks trained with it.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_graph::BoundMethod;
use serde::{Deserialize, Serialize};

use super::deterministic::{HALVINGS, by_bounds};

pub(super) static CARD: Card = Card {
    id: "crown-ibp",
    version: 1,
    kind: CardKind::Certificate,
    title: "CROWN-IBP",
    challenge: Challenge::Adversarial,
    measures: "Bounds the margins by linear functions of the input, over interval bounds of all values between; proves a row if every margin stays positive.",
    reference: "Zhang et al. 2020, arXiv:1906.06316, section 3",
    needs: &[Need::Labels, Need::Classifier],
    options: OPTIONS,
};

const OPTIONS: &[OptionDoc] = &[HALVINGS];

/// Options.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CrownIbp {
    pub(super) halvings: usize,
}

impl Default for CrownIbp {
    fn default() -> Self {
        Self { halvings: 10 }
    }
}

by_bounds!(CrownIbp, |_| BoundMethod::CrownIbp);
