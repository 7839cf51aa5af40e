//! A smaller network against overfitting: the inner layers keep only a part of their units, and all is trained anew.
//! Which layers: see `narrowed` in `netproof-graph`. Geman, Bienenstock and Doursat, Neural Computation 4, 1992 (capacity and
//! variance). Weak when: the network is far beyond the size at which it fits all rows, where more units can help again
//! (Belkin et al., PNAS 2019).

use netproof_audit::{AuditError, Candidate, Case, Change, Context, Making, Remedy, Retraining, Rewrite};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use serde::{Deserialize, Serialize};

use super::remedies::{each_in, fraction};

pub(crate) static CARD: Card = Card {
    id: "smaller-model",
    version: 1,
    kind: CardKind::Remedy,
    title: "Smaller network",
    challenge: Challenge::Overfitting,
    measures: "Takes units out of the inner layers and trains what is left.",
    reference: "Geman, Bienenstock and Doursat, Neural Computation 4, 1992; Li et al., ICLR 2017, arXiv:1608.08710 (which \
                units)",
    needs: &[Need::Training],
    options: &[OptionDoc {
        name: "keep",
        default: "[0.5, 0.25]",
        doc: "Parts of the units that stay, each a candidate, over 0 and below 1.",
    }],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SmallerModel {
    keep: Vec<f64>,
}

impl Default for SmallerModel {
    fn default() -> Self {
        Self { keep: vec![0.5, 0.25] }
    }
}

impl Remedy for SmallerModel {
    fn goals(&self) -> &'static [&'static str] {
        &["overfitting"]
    }

    fn propose(&self, case: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        each_in(&CARD, "keep", &self.keep, fraction)?;
        let Some(training) = case.training() else { return Ok(Vec::new()) };
        if case.subject.model().narrowed(0.5).is_err() {
            return Ok(Vec::new());
        }
        let by_recipe = !training.is_given();
        let one = |keep: &f64| {
            let keep = *keep;
            let mut how = Retraining::default();
            if by_recipe {
                how.changes.push(Change::set("network.keep", keep));
            } else {
                let text = format!("keeps {keep} of the units of its inner layers");
                how.before = Some(Rewrite::new(text, move |model, _| Ok(model.narrowed(keep)?)));
            }
            Candidate {
                name: format!("keep-{keep}"),
                what: format!("Keeps {keep} of the units of its inner layers."),
                making: Making::Train(how),
            }
        };
        Ok(self.keep.iter().map(one).collect())
    }
}
