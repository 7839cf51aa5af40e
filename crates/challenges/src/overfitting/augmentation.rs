//! Augmentation against overfitting: the network never sees a row twice in the same form.
//! Simard, Steinkraus and Platt, ICDAR 2003 (shifts and rotations); Zhang, Cisse, Dauphin and Lopez-Paz, ICLR 2018,
//! arXiv:1710.09412 (mixup); Müller and Hutter, ICCV 2021, arXiv:2103.10158 (TrivialAugment).
//! Weak when: a change alters the class, as a mirrored digit; the choice on other rows then says so.

use netproof_audit::{AuditError, Candidate, Case, Change, Context, Remedy};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use serde::{Deserialize, Serialize};

use super::remedies::{method, trained};

pub(crate) static CARD: Card = Card {
    id: "augmentation",
    version: 1,
    kind: CardKind::Remedy,
    title: "Augmentation",
    challenge: Challenge::Overfitting,
    measures: "Trains the network anew on rows that are changed at random in every epoch: images are shifted, turned, \
               mirrored and mixed, tables get noise and mixtures.",
    reference: "Simard, Steinkraus and Platt, ICDAR 2003; Zhang, Cisse, Dauphin and Lopez-Paz, ICLR 2018, \
                arXiv:1710.09412",
    needs: &[Need::Training],
    options: &[OptionDoc {
        name: "longer",
        default: "2",
        doc: "Factor of the number of epochs, 1 or more: what is always new takes longer to learn.",
    }],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Augmentation {
    longer: i64,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self { longer: 2 }
    }
}

impl Remedy for Augmentation {
    fn goals(&self) -> &'static [&'static str] {
        &["overfitting"]
    }

    fn propose(&self, case: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        if self.longer < 1 {
            let message = format!("`longer` is {}; allowed: 1 or more", self.longer);
            return Err(AuditError::Option { id: CARD.id.to_owned(), message });
        }
        let Some(training) = case.training() else { return Ok(Vec::new()) };
        let epochs = i64::try_from(training.recipe().epochs).unwrap_or(i64::MAX).saturating_mul(self.longer);
        let add = |methods: Vec<netproof_train::Method>| {
            let list = methods.into_iter().map(|m| Change::push("augmentation", m.into_value()));
            list.chain([Change::set("epochs", epochs)]).collect::<Vec<_>>()
        };
        let mixup = ("mixup", "Mixes pairs of rows and their labels.", vec![method("mixup")]);
        let kinds = match case.subject.data().feature_shape() {
            [_, height, width] => {
                // An eighth of the side to each side, as in the padding of 4 for 32 pixels (He et al. 2016, section 4.2).
                let padding = i64::try_from((*height).min(*width).div_ceil(8)).unwrap_or(1);
                let crop = || method("crop").with("padding", padding);
                vec![
                    (
                        "shift-turn",
                        "Shifts, turns and scales images.",
                        vec![crop(), method("rotation"), method("scaling")],
                    ),
                    ("shift-mirror", "Shifts and mirrors images.", vec![crop(), method("horizontal-flip")]),
                    mixup,
                ]
            }
            _ => vec![("noise", "Adds noise to the features.", vec![method("noise")]), mixup],
        };
        Ok(kinds.into_iter().map(|(name, what, methods)| trained(name.to_owned(), what, add(methods))).collect())
    }
}
