//! Training data against unseen data: the difference is what the network has learnt by heart.

use netproof_audit::{AuditError, Check, Classified, Context, Findings, Outputs, Part, Subject};
use netproof_core::{
    Card, CardKind, Challenge, Comparison, Evidence, Finding, Need, OptionDoc, Table, Threshold, Verdict,
};
use netproof_stats::interval::difference::independent;
use netproof_stats::interval::mean::{estimate_difference, mean_difference};
use serde::{Deserialize, Serialize};

use crate::shared::{correct, mean, outputs, percent};

pub(crate) static CARD: Card = Card {
    id: "generalisation-gap",
    version: 1,
    kind: CardKind::Check,
    title: "Generalisation gap",
    challenge: Challenge::Overfitting,
    measures: "How much better the network is on its training data than on the data under audit, with an interval on the \
               difference.",
    reference: "Newcombe 1998, Statistics in Medicine 17, 873–890, method 10 (difference of proportions); Welch 1947 \
                (difference of means)",
    needs: &[Need::Labels, Need::TrainData],
    options: &[OptionDoc {
        name: "tolerance",
        default: "0.05",
        doc: "Largest accuracy gap, as a fraction, that is no concern.",
    }],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GeneralisationGap {
    tolerance: f64,
}

impl Default for GeneralisationGap {
    fn default() -> Self {
        Self { tolerance: 0.05 }
    }
}

impl Check for GeneralisationGap {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let test = outputs(subject, Part::Test, cx)?;
        let train = outputs(subject, Part::Train, cx)?;
        let findings = match (&*train, &*test) {
            (Outputs::Classified(train), Outputs::Classified(test)) => self.classifier(train, test, cx),
            (Outputs::Regressed(train), Outputs::Regressed(test)) => {
                let errors = |r: &netproof_audit::Regressed| -> Vec<f64> {
                    r.predicted.iter().zip(&r.actual).map(|(p, a)| f64::from((p - a).abs())).collect()
                };
                let gap = mean_difference(&errors(test), &errors(train), cx.level);
                gap.map(|e| {
                    cx.finding("mae", "Gap of the mean absolute error")
                        .estimate("mae_gap", "unit of the target", &e)
                        .explain("Mean absolute error on these data minus that on the training data.")
                        .done()
                })
                .into_iter()
                .collect()
            }
            _ => {
                let message = "training data and data under audit have labels of different kinds".to_owned();
                return Err(AuditError::Mismatch { message });
            }
        };
        Ok(findings.into())
    }
}

impl GeneralisationGap {
    fn classifier(&self, train: &Classified, test: &Classified, cx: &Context<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let (seen, unseen) = (correct(train), correct(test));
        let rate = |(right, n): (u64, u64)| right as f64 / n as f64;
        if let Some(gap) = independent(seen, unseen, cx.level) {
            let wide = gap.interval.is_none_or(|i| i.low <= 0.0);
            let mut draft = cx
                .finding("accuracy", "Accuracy gap")
                .estimate("accuracy_gap", "fraction", &gap)
                .threshold(Threshold {
                    value: self.tolerance,
                    comparison: Comparison::AtMost,
                    source: "option `tolerance` of this check".to_owned(),
                })
                .explain(format!(
                    "{} right on {} training rows, {} on {} rows under audit.",
                    percent(rate(seen)),
                    seen.1,
                    percent(rate(unseen)),
                    unseen.1
                ))
                .evidence(Evidence::Table(Table {
                    title: "Training data and data under audit".to_owned(),
                    columns: ["", "training", "under audit"].map(String::from).to_vec(),
                    rows: vec![
                        vec!["rows".into(), seen.1.into(), unseen.1.into()],
                        vec!["accuracy".into(), rate(seen).into(), rate(unseen).into()],
                        vec!["log loss (nats)".into(), train.log_loss.mean().into(), test.log_loss.mean().into()],
                    ],
                }));
            if wide && gap.value > self.tolerance {
                draft = draft
                    .verdict(Verdict::Inconclusive)
                    .caveat("too few rows to tell the gap from chance: its interval reaches 0");
            }
            findings.push(draft.done());
        }
        if let (Some(a), Some(b)) = (mean(&test.log_loss, cx.level), mean(&train.log_loss, cx.level)) {
            findings.push(
                cx.finding("log-loss", "Log loss gap")
                    .estimate("log_loss_gap", "nats", &estimate_difference(&a, &b, cx.level))
                    .explain("Log loss on these data minus that on the training data.")
                    .done(),
            );
        }
        findings
    }
}
