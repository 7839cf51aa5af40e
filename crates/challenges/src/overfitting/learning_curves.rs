//! Loss and accuracy by epoch: where unseen rows turned worse while training rows went on getting better, and what early
//! stopping would have given. Prechelt, Early Stopping – But When?, 1998.
//!
//! Where the network has a record of its training beside it (`netproof train` leaves one), that training is looked at and
//! nothing is trained. Weak when: few rows were set aside, so that the turn is noise.

use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Comparison, Evidence, Finding, Mark, Need, OptionDoc, Plot, PlotKind, Series,
    Threshold, Verdict,
};
use netproof_stats::interval::difference::independent;
use netproof_train::{EpochRecord, Method, Metrics, Recipe, Record};
use serde::{Deserialize, Serialize};

use super::remedies;
use super::retraining::{off, train_and_measure, training_rows};
use crate::shared::percent;

pub(crate) static CARD: Card = Card {
    id: "learning-curves",
    version: 1,
    kind: CardKind::Check,
    title: "Learning curves",
    challenge: Challenge::Overfitting,
    measures: "Loss and accuracy of training and validation rows by epoch: where validation turned, and how much better the \
               best epoch was than the last. From the record beside the network, or by training it once more.",
    reference: "Prechelt, Early Stopping – But When?, in Neural Networks: Tricks of the Trade, 1998",
    needs: &[Need::Labels],
    options: &[OptionDoc {
        name: "tolerance",
        default: "0.1",
        doc: "Largest rise of the validation loss above its lowest point, as a part of it, that is no concern.",
    }],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LearningCurves {
    tolerance: f64,
}

impl Default for LearningCurves {
    fn default() -> Self {
        Self { tolerance: 0.1 }
    }
}

impl Check for LearningCurves {
    fn retrains(&self) -> bool {
        true
    }

    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        if let Some(record) = subject.record() {
            return Ok(self.judge(record, "From the record of the training that gave this network.", cx).into());
        }
        let Some(training) = subject.training() else {
            let text = "There is no record beside the network, and no training data to train it on.";
            let draft = cx.finding("loss", CARD.title).verdict(Verdict::NotApplicable);
            return Ok(vec![draft.explain(text).done()].into());
        };
        if !cx.may_train {
            return Ok(vec![off("loss", CARD.title, cx)].into());
        }
        let recipe = training.recipe();
        // Nothing may cut the curves short.
        let recipe = Recipe {
            seed: cx.seed,
            stopping: Method::new("never"),
            validation_fraction: recipe.validation_fraction.max(0.1),
            ..recipe.clone()
        };
        let rows = training_rows(subject)?;
        let network = training.network(&recipe, subject, recipe.seed)?;
        let (_, trained) = train_and_measure("for learning curves", &recipe, network, [rows, rows], training, cx)?;
        Ok(self.judge(&trained.record, training.describe(), cx).into())
    }
}

impl LearningCurves {
    fn judge(&self, record: &Record, source: &str, cx: &Context<'_>) -> Vec<Finding> {
        let seen: Vec<(&EpochRecord, Metrics)> =
            record.epochs.iter().filter_map(|e| Some((e, e.validation.filter(|v| v.loss.is_finite())?))).collect();
        let best = seen.iter().min_by(|a, b| a.1.loss.total_cmp(&b.1.loss));
        let draft = cx.finding("loss", "Validation loss after its turn");
        let (Some((best, lowest)), Some((last, end))) = (best, seen.last()) else {
            let text = format!("The training had no validation rows, so that nothing can be seen to turn. {source}");
            return vec![draft.verdict(Verdict::Inconclusive).explain(text).done()];
        };
        let rise = if lowest.loss > 0.0 { end.loss / lowest.loss - 1.0 } else { 0.0 };
        let mut draft = draft
            .value("validation_loss_rise", "ratio", rise)
            .n(end.rows)
            .threshold(Threshold {
                value: self.tolerance,
                comparison: Comparison::AtMost,
                source: "option `tolerance` of this check".to_owned(),
            })
            .explain(format!(
                "The validation loss was lowest after epoch {} of {} ({:.4}) and {:.4} after the last; the training loss went \
                 from {:.4} to {:.4} in the meantime. {source}",
                best.epoch, last.epoch, lowest.loss, end.loss, best.train.loss, last.train.loss
            ))
            .caveat("no interval: a record holds means, not the loss of each row")
            .caveat("training rows are measured while weights move, and as augmentation and dropout change them");
        draft = draft.evidence(Evidence::Plot(curves(record, "loss", |m| Some(m.loss))));
        let has_accuracy = lowest.accuracy.is_some();
        if has_accuracy {
            draft = draft.evidence(Evidence::Plot(curves(record, "accuracy", |m| m.accuracy)));
        }
        for remedy in remedies::IDS {
            draft = draft.remedy(remedy);
        }
        let mut findings = vec![draft.done()];
        findings.extend(self.early(best, lowest, last, end, cx));
        findings
    }

    /// What ending at the lowest loss would have given.
    fn early(
        &self,
        best: &EpochRecord,
        lowest: &Metrics,
        last: &EpochRecord,
        end: &Metrics,
        cx: &Context<'_>,
    ) -> Option<Finding> {
        let right = |m: &Metrics| Some(((m.accuracy? * m.rows as f64).round() as u64, m.rows));
        let gain = independent(right(lowest)?, right(end)?, cx.level)?;
        let text = format!(
            "Weights of epoch {} would be right on {} of the validation rows, those of epoch {} are on {}.",
            best.epoch,
            percent(lowest.accuracy?),
            last.epoch,
            percent(end.accuracy?)
        );
        Some(
            cx.finding("early-stopping", "What early stopping would give")
                .estimate("early_stopping_gain", "fraction", &gain)
                .explain(text)
                .caveat("the interval is that of two independent samples; on the same rows it is wider than need be")
                .done(),
        )
    }
}

fn curves(record: &Record, name: &str, of: fn(&Metrics) -> Option<f64>) -> Plot {
    let line = |name: &str, metrics: &dyn Fn(&EpochRecord) -> Option<Metrics>| Series {
        name: name.to_owned(),
        marks: record
            .epochs
            .iter()
            .filter_map(|e| {
                let y = of(&metrics(e)?).filter(|v| v.is_finite())?;
                Some(Mark { x: Some(e.epoch as f64), y, ..Mark::default() })
            })
            .collect(),
    };
    Plot {
        title: format!("{}{} by epoch", name[..1].to_uppercase(), &name[1..]),
        x: Axis::new("epoch"),
        y: Axis::new(name),
        plot: PlotKind::Lines,
        series: vec![line("training", &|e| Some(e.train)), line("validation", &|e| e.validation)],
        reference: None,
    }
}
