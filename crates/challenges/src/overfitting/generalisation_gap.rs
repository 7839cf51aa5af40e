//! Training data against unseen data: the difference is what the network has learnt by heart.

use netproof_audit::{AuditError, Check, Classified, Context, Findings, Outputs, Part, Subject};
use netproof_core::{
    Card, CardKind, Challenge, Comparison, Evidence, Finding, Need, OptionDoc, Table, Threshold, Verdict,
};
use netproof_stats::interval::difference::independent;
use netproof_stats::interval::mean::{estimate_difference, mean_difference, student};
use netproof_stats::{Estimate, Level};
use netproof_train::{Fold, Folds, Metrics};
use serde::{Deserialize, Serialize};

use super::remedies;
use crate::shared::{correct, mean, outputs, percent};

pub(crate) static CARD: Card = Card {
    id: "generalisation-gap",
    version: 1,
    kind: CardKind::Check,
    title: "Generalisation gap",
    challenge: Challenge::Overfitting,
    measures: "How much better the network is on its training data than on the data under audit, with an interval on the \
               difference; with --retrain also by cross-validation of its recipe.",
    reference: "Newcombe 1998, Statistics in Medicine 17, 873–890, method 10 (difference of proportions); Welch 1947 \
                (difference of means); Nadeau and Bengio, Machine Learning 52, 2003, equation 9 (folds)",
    needs: &[Need::Labels, Need::TrainData],
    options: &[
        OptionDoc {
            name: "tolerance",
            default: "0.05",
            doc: "Largest accuracy gap, as a fraction, that is no concern.",
        },
        OptionDoc { name: "folds", default: "5", doc: "Parts of the cross-validation, 2 or more." },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GeneralisationGap {
    tolerance: f64,
    folds: usize,
}

impl Default for GeneralisationGap {
    fn default() -> Self {
        Self { tolerance: 0.05, folds: 5 }
    }
}

impl Check for GeneralisationGap {
    fn retrains(&self) -> bool {
        true
    }

    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let test = outputs(subject, Part::Test, cx)?;
        let train = outputs(subject, Part::Train, cx)?;
        let mut findings = match (&*train, &*test) {
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
        if cx.may_train && subject.training().is_some() {
            let folds = Folds { count: self.folds, repeats: 1, grouped_by: None };
            let validated = cx.cross_validate(subject, &folds)?;
            let all: Vec<&Fold> = validated.folds.iter().flatten().collect();
            findings.push(self.of_folds(&all, cx.training(subject)?.describe(), cx));
        }
        Ok(findings.into())
    }
}

/// Mean of the differences of folds with the corrected interval.
///
/// Training parts overlap, so that folds are no independent samples: their variance is taken as `(1/k + test/train) s²`
/// (Nadeau and Bengio 2003, equation 9).
fn corrected(differences: &[f64], test: f64, train: f64, level: Level) -> Option<Estimate> {
    let k = differences.len() as f64;
    let value = differences.iter().sum::<f64>() / k;
    let square = differences.iter().map(|d| (d - value).powi(2)).sum::<f64>() / (k - 1.0);
    let error = ((1.0 / k + test / train) * square).sqrt();
    let interval = (k > 1.0 && error.is_finite()).then(|| student(value, error, k - 1.0, level));
    value.is_finite().then_some(Estimate { value, n: differences.len() as u64, standard_error: Some(error), interval })
}

impl GeneralisationGap {
    /// The gap that the recipe has, whichever rows it learns from.
    fn of_folds(&self, folds: &[&Fold], describe: &str, cx: &Context<'_>) -> Finding {
        let draft = cx.finding("k-fold", "Gap by cross-validation");
        let gap = |f: &&Fold| match (f.in_sample.accuracy, f.metrics.accuracy) {
            (Some(seen), Some(unseen)) => seen - unseen,
            _ => f.metrics.loss - f.in_sample.loss,
        };
        let differences: Vec<f64> = folds.iter().map(gap).collect();
        let of = |rows: fn(&Fold) -> u64| folds.iter().map(|f| rows(f) as f64).sum::<f64>() / folds.len().max(1) as f64;
        let (test, train) = (of(|f| f.metrics.rows), of(|f| f.in_sample.rows));
        let Some(estimate) = corrected(&differences, test, train, cx.level) else {
            return draft.verdict(Verdict::Inconclusive).explain("No fold could be measured.").done();
        };
        let accuracy = folds.iter().all(|f| f.metrics.accuracy.is_some());
        let (metric, unit) = if accuracy { ("accuracy_gap_k_fold", "fraction") } else { ("loss_gap_k_fold", "loss") };
        let rows = folds.iter().enumerate().map(|(i, f)| {
            let side = |m: &Metrics| m.accuracy.unwrap_or(m.loss);
            vec![(i + 1).into(), side(&f.in_sample).into(), side(&f.metrics).into(), gap(f).into()]
        });
        let table = Table {
            title: format!("{} of each fold", if accuracy { "Accuracy" } else { "Loss" }),
            columns: ["fold", "rows that it saw", "rows held out", "gap"].map(String::from).to_vec(),
            rows: rows.collect(),
        };
        let mut draft = draft.estimate(metric, unit, &estimate);
        if accuracy {
            draft = draft.threshold(Threshold {
                value: self.tolerance,
                comparison: Comparison::AtMost,
                source: "option `tolerance` of this check".to_owned(),
            });
            if estimate.value > self.tolerance && estimate.interval.is_none_or(|i| i.low <= 0.0) {
                draft = draft.verdict(Verdict::Inconclusive).caveat("the interval over the folds reaches 0");
            }
        }
        for remedy in remedies::IDS {
            draft = draft.remedy(remedy);
        }
        let text =
            format!("Mean over {} folds of what is right on rows seen minus on rows held out. {describe}", folds.len());
        draft.explain(text).evidence(Evidence::Table(table)).done()
    }

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
            for remedy in remedies::IDS {
                draft = draft.remedy(remedy);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_are_not_taken_for_independent_samples() {
        let differences = [0.10, 0.12, 0.08, 0.11, 0.09];
        let got = corrected(&differences, 200.0, 800.0, Level::P95).unwrap();
        // s² = 2.5e-4; corrected standard error √((1/5 + 1/4) · 2.5e-4) = 0.0106066; t(4) = 2.776445.
        let i = got.interval.unwrap();
        assert!((got.value - 0.10).abs() < 1e-12 && (got.standard_error.unwrap() - 0.010_606_601_7).abs() < 1e-9);
        assert!((i.high - 0.129_448_6).abs() < 1e-6 && (i.low - 0.070_551_4).abs() < 1e-6, "{i:?}");
        assert!(corrected(&[0.1], 1.0, 4.0, Level::P95).unwrap().interval.is_none());
        assert!(corrected(&[], 1.0, 4.0, Level::P95).is_none());
    }
}
