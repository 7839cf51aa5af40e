//! Interval bound propagation, the cheapest certificate: two forward passes or so.
//! Gowal et al. 2019, arXiv:1810.12715, section 3; the last linear layer is joined with the margins (section 3, "elision").
//! Checked against: closed form on a linear model (exact there), a naive float64 version, attacked points.
//! Weak: on networks that were not trained for it it proves next to nothing beyond tiny epsilons.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_graph::BoundMethod;
use serde::{Deserialize, Serialize};

use super::deterministic::{HALVINGS, by_bounds};

pub(super) static CARD: Card = Card {
    id: "ibp",
    version: 1,
    kind: CardKind::Certificate,
    title: "Interval bound propagation",
    challenge: Challenge::Adversarial,
    measures: "Bounds every value of the network by an interval over all changes within the threat; proves a row if no other class can reach the right one.",
    reference: "Gowal et al. 2019, arXiv:1810.12715, section 3",
    needs: &[Need::Labels, Need::Classifier],
    options: OPTIONS,
};

const OPTIONS: &[OptionDoc] = &[HALVINGS];

/// Options.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ibp {
    pub(super) halvings: usize,
}

impl Default for Ibp {
    fn default() -> Self {
        Self { halvings: 10 }
    }
}

by_bounds!(Ibp, |_| BoundMethod::Ibp);
