//! An ensemble against overfitting: networks from several seeds whose answers are averaged, in one ONNX file.
//! Lakshminarayanan, Pritzel and Blundell, NeurIPS 2017, arXiv:1612.01474; Hansen and Salamon, IEEE PAMI 12, 1990.
//! Costs: every member is trained, stored and run.

use netproof_audit::{AuditError, Candidate, Case, Context, Making, Remedy, Retraining};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use serde::{Deserialize, Serialize};

pub(crate) static CARD: Card = Card {
    id: "ensemble",
    version: 1,
    kind: CardKind::Remedy,
    title: "Ensemble",
    challenge: Challenge::Overfitting,
    measures: "Trains the network from several seeds and averages what they answer, within one file.",
    reference: "Lakshminarayanan, Pritzel and Blundell, NeurIPS 2017, arXiv:1612.01474, section 2.4",
    needs: &[Need::Training],
    options: &[OptionDoc { name: "members", default: "5", doc: "Networks that are averaged, 2 to 100." }],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ensemble {
    members: usize,
}

impl Default for Ensemble {
    /// The paper's choice.
    fn default() -> Self {
        Self { members: 5 }
    }
}

impl Remedy for Ensemble {
    fn goals(&self) -> &'static [&'static str] {
        &["overfitting", "calibrated"]
    }

    fn propose(&self, _: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        if !(2..=100).contains(&self.members) {
            let message = format!("`members` is {}; allowed: 2 to 100", self.members);
            return Err(AuditError::Option { id: CARD.id.to_owned(), message });
        }
        let members = self.members;
        Ok(vec![Candidate {
            name: format!("ensemble-{members}"),
            what: format!("{members} networks from seeds of their own, averaged into one."),
            making: Making::Train(Retraining { members, ..Retraining::default() }),
        }])
    }
}
