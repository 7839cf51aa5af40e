//! Label smoothing against overfitting: no answer is worth being certain of.
//! Szegedy et al., CVPR 2016, arXiv:1512.00567, section 7; with wrong labels: Lukasik et al., ICML 2020, arXiv:2003.02819.

use netproof_audit::{AuditError, Candidate, Case, Change, Context, Remedy};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use serde::{Deserialize, Serialize};

use super::remedies::{each_in, fraction, trained};

pub(crate) static CARD: Card = Card {
    id: "label-smoothing",
    version: 1,
    kind: CardKind::Remedy,
    title: "Label smoothing",
    challenge: Challenge::Overfitting,
    measures: "Trains the network anew on labels that give a part of their weight to all classes.",
    reference: "Szegedy et al., CVPR 2016, arXiv:1512.00567, section 7; Lukasik et al., ICML 2020, arXiv:2003.02819",
    needs: &[Need::Training, Need::Classifier],
    options: &[OptionDoc {
        name: "amounts",
        default: "[0.1, 0.3]",
        doc: "Weights that are spread over all classes, each a candidate, over 0 and below 1.",
    }],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LabelSmoothing {
    amounts: Vec<f64>,
}

impl Default for LabelSmoothing {
    /// The value of Szegedy et al., and one for many wrong labels.
    fn default() -> Self {
        Self { amounts: vec![0.1, 0.3] }
    }
}

impl Remedy for LabelSmoothing {
    fn goals(&self) -> &'static [&'static str] {
        &["overfitting", "calibrated"]
    }

    fn propose(&self, case: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        each_in(&CARD, "amounts", &self.amounts, fraction)?;
        // Only cross-entropy has labels that can be smoothed.
        if case.training().is_none_or(|t| t.recipe().objective.kind != "cross-entropy") {
            return Ok(Vec::new());
        }
        let one = |amount: &f64| {
            let what = "Labels give this part of their weight to all classes.";
            trained(format!("smoothing-{amount}"), what, [Change::set("objective.label_smoothing", *amount)])
        };
        Ok(self.amounts.iter().map(one).collect())
    }
}
