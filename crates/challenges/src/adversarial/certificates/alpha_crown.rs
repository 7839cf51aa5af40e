//! α-CROWN: CROWN with slopes chosen by gradient ascent for each row and margin.
//! Xu et al. 2021, arXiv:2011.13824, section 3.1. Checked against: CROWN (never looser), attacked points. Differs from the
//! paper: bounds of values between stay those of CROWN. Weak: twenty times the cost of the last step of CROWN.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_graph::{Ascent, BoundMethod};
use serde::{Deserialize, Serialize};

use super::deterministic::{HALVINGS, by_bounds};

pub(super) static CARD: Card = Card {
    id: "alpha-crown",
    version: 1,
    kind: CardKind::Certificate,
    title: "α-CROWN",
    challenge: Challenge::Adversarial,
    measures: "Bounds the margins as CROWN does, with relaxations chosen by gradient ascent for each row and margin.",
    reference: "Xu et al. 2021, arXiv:2011.13824, section 3.1",
    needs: &[Need::Labels, Need::Classifier],
    options: OPTIONS,
};

const OPTIONS: &[OptionDoc] = &[
    HALVINGS,
    OptionDoc { name: "steps", default: "20", doc: "Steps of gradient ascent, 0 to 1000." },
    OptionDoc { name: "rate", default: "0.5", doc: "First step of a slope, which lies between 0 and 1." },
];

/// Options.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AlphaCrown {
    pub(super) halvings: usize,
    pub(super) steps: usize,
    pub(super) rate: f64,
}

impl Default for AlphaCrown {
    fn default() -> Self {
        Self { halvings: 10, steps: 20, rate: 0.5 }
    }
}

by_bounds!(AlphaCrown, |m| BoundMethod::AlphaCrown(Ascent { steps: m.steps.min(1000), rate: m.rate }));
