//! CROWN: linear relaxations for the margins and for all values between.
//! Zhang et al. 2018, arXiv:1811.00866, theorem 3.2; on graphs Xu et al. 2020, arXiv:2002.12920. Checked against: closed form on
//! a linear model, a naive float64 version, attacked points. Weak: takes a walk back for every neuron that is not
//! stable, so that it is for small networks.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_graph::BoundMethod;
use serde::{Deserialize, Serialize};

use super::deterministic::{HALVINGS, by_bounds};

pub(super) static CARD: Card = Card {
    id: "crown",
    version: 1,
    kind: CardKind::Certificate,
    title: "CROWN",
    challenge: Challenge::Adversarial,
    measures: "Bounds the margins by linear functions of the input, and so all values between; the tightest of the certificates without a search.",
    reference: "Zhang et al. 2018, arXiv:1811.00866, theorem 3.2; Xu et al. 2020, arXiv:2002.12920",
    needs: &[Need::Labels, Need::Classifier],
    options: OPTIONS,
};

const OPTIONS: &[OptionDoc] = &[HALVINGS];

/// Options.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Crown {
    pub(super) halvings: usize,
}

impl Default for Crown {
    fn default() -> Self {
        Self { halvings: 10 }
    }
}

by_bounds!(Crown, |_| BoundMethod::Crown);
