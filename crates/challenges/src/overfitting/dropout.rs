//! Dropout against overfitting: the network is trained anew with numbers dropped at random in front of its linear layers.
//! Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, JMLR 15, 2014, sections 4 and 7.
//! Weak when: the network is small for its data, or has no linear layers but the last.

use netproof_audit::{AuditError, Candidate, Case, Change, Context, Remedy};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use serde::{Deserialize, Serialize};

use super::remedies::{each_in, fraction, trained};

pub(crate) static CARD: Card = Card {
    id: "dropout",
    version: 1,
    kind: CardKind::Remedy,
    title: "Dropout",
    challenge: Challenge::Overfitting,
    measures: "Trains the network anew with dropout in front of its hidden and last linear layers.",
    reference: "Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, JMLR 15, 2014, sections 4 and 7",
    needs: &[Need::Training],
    options: &[OptionDoc {
        name: "rates",
        default: "[0.5, 0.2]",
        doc: "Parts of the numbers that are dropped, each a candidate, over 0 and below 1.",
    }],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Dropout {
    rates: Vec<f64>,
}

impl Default for Dropout {
    /// The paper's rate of hidden layers, and that of inputs.
    fn default() -> Self {
        Self { rates: vec![0.5, 0.2] }
    }
}

impl Remedy for Dropout {
    fn goals(&self) -> &'static [&'static str] {
        &["overfitting"]
    }

    fn propose(&self, _: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        each_in(&CARD, "rates", &self.rates, fraction)?;
        let one = |rate: &f64| {
            let what = "Drops this part of what goes into linear layers, in training.";
            trained(format!("dropout-{rate}"), what, [Change::set("dropout.rate", *rate)])
        };
        Ok(self.rates.iter().map(one).collect())
    }
}
