//! Early stopping against overfitting: training ends where rows that are set aside get worse, and the best weights stay.
//! Prechelt, Early Stopping – But When?, in Neural Networks: Tricks of the Trade, 1998.
//! Costs: the rows that are set aside are not learnt from.

use netproof_audit::{AuditError, Candidate, Case, Change, Context, Remedy};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use serde::{Deserialize, Serialize};

use super::remedies::{each_in, fraction, method, trained};

pub(crate) static CARD: Card = Card {
    id: "early-stopping",
    version: 1,
    kind: CardKind::Remedy,
    title: "Early stopping",
    challenge: Challenge::Overfitting,
    measures: "Trains the network anew and ends where the loss of rows that are set aside has not fallen for some epochs; \
               the best weights are kept.",
    reference: "Prechelt, Early Stopping – But When?, in Neural Networks: Tricks of the Trade, 1998",
    needs: &[Need::Training],
    options: &[
        OptionDoc { name: "patience", default: "5", doc: "Epochs without improvement, 1 or more." },
        OptionDoc {
            name: "fraction",
            default: "0.2",
            doc: "Part of the training rows that is set aside, over 0 and below 1, where the recipe names no rows for it.",
        },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EarlyStopping {
    patience: i64,
    fraction: f64,
}

impl Default for EarlyStopping {
    fn default() -> Self {
        Self { patience: 5, fraction: 0.2 }
    }
}

impl Remedy for EarlyStopping {
    fn goals(&self) -> &'static [&'static str] {
        &["overfitting", "calibrated"]
    }

    fn propose(&self, _: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        each_in(&CARD, "fraction", &[self.fraction], fraction)?;
        let stopping = method("patience").with("patience", self.patience);
        let changes = [
            Change::set("validation_fraction", self.fraction),
            Change::set("stopping", stopping.into_value()),
            Change::set("monitor", "loss"),
        ];
        let what = "Ends where the loss of rows that are set aside no longer falls, and keeps the best weights.";
        Ok(vec![trained("early-stopping".to_owned(), what, changes)])
    }
}
