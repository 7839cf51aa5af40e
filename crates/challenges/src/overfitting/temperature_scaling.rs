//! Temperature scaling: one number that divides the logits, fitted on rows that the network has not learnt from.
//! Guo, Pleiss, Sun and Weinberger, ICML 2017, arXiv:1706.04599, section 4.2.
//! Changes no answer, only how sure it is. Weak when: classes are miscalibrated in different directions.

use netproof_audit::{AuditError, Candidate, Case, Context, Direct, Making, Part, Remedy, Subject};
use netproof_core::{Card, CardKind, Challenge, Need};
use netproof_graph::Model;
use netproof_stats::calibration::{Status, fit_temperature};
use serde::{Deserialize, Serialize};

use crate::shared::outputs;

pub(crate) static CARD: Card = Card {
    id: "temperature-scaling",
    version: 2,
    kind: CardKind::Remedy,
    title: "Temperature scaling",
    challenge: Challenge::Overfitting,
    measures: "Divides the logits by one number, inside the network, so that confidences become true. It is fitted on rows \
               that take no part in the proof.",
    reference: "Guo, Pleiss, Sun and Weinberger, ICML 2017, arXiv:1706.04599, section 4.2",
    needs: &[Need::Labels, Need::Classifier],
    options: &[],
};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TemperatureScaling {}

impl Remedy for TemperatureScaling {
    fn goals(&self) -> &'static [&'static str] {
        &["calibrated"]
    }

    fn propose(&self, case: &Case<'_>, cx: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        if outputs(case.subject, Part::Test, cx)?.classified().is_none() {
            return Ok(Vec::new());
        }
        Ok(vec![Candidate {
            name: "temperature".to_owned(),
            what: "Divides the logits by one number that is fitted on the rows to choose on.".to_owned(),
            making: Making::Direct(Direct::new(scale)),
        }])
    }
}

/// `None` where no finite temperature is best.
fn scale(subject: &Subject, cx: &Context<'_>) -> Result<Option<Model>, AuditError> {
    let clean = outputs(subject, Part::Test, cx)?;
    let Some(c) = clean.classified() else { return Ok(None) };
    if c.sample.logits.iter().any(|v| !v.is_finite()) {
        return Ok(None);
    }
    let fitted = fit_temperature(&c.sample.logits, c.classes, &c.sample.labels)?;
    let Some(t) = fitted.filter(|t| t.status == Status::Converged) else { return Ok(None) };
    Ok(Some(subject.model().scale_logits(t.temperature as f32)?))
}
