//! An ensemble: several networks that are trained with seeds of their own answer with their mean.
//! Strauss, Hanselmann, Junginger and Ulmer 2017, arXiv:1709.03423; He et al., WOOT 2017, arXiv:1706.04701, on why weak
//! defences do not add up to a strong one. Weak always: an attack takes the gradient of the mean, and examples that fool one
//! network fool the others.

use netproof_audit::{AuditError, Candidate, Case, Context, Making, Remedy, Retraining};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use serde::{Deserialize, Serialize};

pub(crate) static CARD: Card = Card {
    id: "averaged-networks",
    version: 1,
    kind: CardKind::Remedy,
    title: "Ensemble against attacks",
    challenge: Challenge::Adversarial,
    measures: "Trains several networks with seeds of their own, which answer with their mean as one. Offered because it is \
               asked for; an attack on the mean finds nearly as much.",
    reference: "Strauss, Hanselmann, Junginger and Ulmer 2017, arXiv:1709.03423; He et al., WOOT 2017, arXiv:1706.04701",
    needs: &[Need::Training],
    options: &[OptionDoc { name: "members", default: "3", doc: "Networks, 2 to 20." }],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AveragedNetworks {
    members: usize,
}

impl Default for AveragedNetworks {
    fn default() -> Self {
        Self { members: 3 }
    }
}

impl Remedy for AveragedNetworks {
    fn goals(&self) -> &'static [&'static str] {
        &["robust"]
    }

    fn propose(&self, _: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        let members = self.members;
        if !(2..=20).contains(&members) {
            let message = format!("`members` is {members}; allowed: 2 to 20");
            return Err(AuditError::Option { id: CARD.id.to_owned(), message });
        }
        Ok(vec![Candidate {
            name: format!("mean-of-{members}"),
            what: format!("Trains {members} networks and answers with their mean."),
            making: Making::Train(Retraining { members, ..Retraining::default() }),
        }])
    }
}
