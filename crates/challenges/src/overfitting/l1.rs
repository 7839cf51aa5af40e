//! An l1 penalty against overfitting: weights that do little become nothing.
//! Tibshirani, Journal of the Royal Statistical Society B 58, 1996 (the lasso).
//! Weak when: with adaptive optimisers, which scale the penalty's slope with the rest; weights come near 0, seldom to it.

use netproof_audit::{AuditError, Candidate, Case, Change, Context, Remedy};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use serde::{Deserialize, Serialize};

use super::remedies::{each_in, positive, trained};

pub(crate) static CARD: Card = Card {
    id: "l1",
    version: 1,
    kind: CardKind::Remedy,
    title: "l1 penalty",
    challenge: Challenge::Overfitting,
    measures: "Trains the network anew with the sum of the sizes of its weights as part of the loss.",
    reference: "Tibshirani, Journal of the Royal Statistical Society B 58, 1996, 267–288",
    needs: &[Need::Training],
    options: &[OptionDoc {
        name: "penalties",
        default: "[1e-5, 1e-4]",
        doc: "Factors of the sum of the sizes of weights, each a candidate, over 0.",
    }],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct L1 {
    penalties: Vec<f64>,
}

impl Default for L1 {
    fn default() -> Self {
        Self { penalties: vec![1e-5, 1e-4] }
    }
}

impl Remedy for L1 {
    fn goals(&self) -> &'static [&'static str] {
        &["overfitting"]
    }

    fn propose(&self, _: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        each_in(&CARD, "penalties", &self.penalties, positive)?;
        let one = |l1: &f64| {
            let what = "The sizes of all weights, times this, are part of the loss.";
            trained(format!("l1-{l1:e}"), what, [Change::set("regularisation.l1", *l1)])
        };
        Ok(self.penalties.iter().map(one).collect())
    }
}
