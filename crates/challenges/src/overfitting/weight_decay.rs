//! Weight decay against overfitting: weights shrink in every step, apart from the gradient.
//! Loshchilov and Hutter, ICLR 2019, arXiv:1711.05101, algorithm 2; Krogh and Hertz, NeurIPS 1991.
//! Weak when: normalisation follows every layer, so that the size of weights does not matter.

use netproof_audit::{AuditError, Candidate, Case, Change, Context, Remedy};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use serde::{Deserialize, Serialize};

use super::remedies::{each_in, positive, trained};

pub(crate) static CARD: Card = Card {
    id: "weight-decay",
    version: 1,
    kind: CardKind::Remedy,
    title: "Weight decay",
    challenge: Challenge::Overfitting,
    measures: "Trains the network anew while its weights shrink by a part in every step.",
    reference: "Loshchilov and Hutter, ICLR 2019, arXiv:1711.05101, algorithm 2",
    needs: &[Need::Training],
    options: &[OptionDoc {
        name: "decays",
        default: "[0.1, 1.0]",
        doc: "Decays, each a candidate, over 0; weights shrink by the learning rate times this in every step.",
    }],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WeightDecay {
    decays: Vec<f64>,
}

impl Default for WeightDecay {
    /// From the usual one of vision transformers (Touvron et al. 2021: 0.05) upwards.
    fn default() -> Self {
        Self { decays: vec![0.1, 1.0] }
    }
}

impl Remedy for WeightDecay {
    fn goals(&self) -> &'static [&'static str] {
        &["overfitting"]
    }

    fn propose(&self, _: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        each_in(&CARD, "decays", &self.decays, positive)?;
        let one = |decay: &f64| {
            let what = "Weights shrink by the learning rate times this decay in every step.";
            trained(format!("decay-{decay}"), what, [Change::set("regularisation.decoupled_weight_decay", *decay)])
        };
        Ok(self.decays.iter().map(one).collect())
    }
}
