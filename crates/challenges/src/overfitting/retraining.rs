//! What the checks that train have in common.

use netproof_audit::{AuditError, Context, Part, Subject, Training};
use netproof_core::{Finding, Verdict};
use netproof_data::{Dataset, Labels};
use netproof_graph::Model;
use netproof_stats::interval::mean::mean;
use netproof_stats::interval::proportion::proportion;
use netproof_stats::{Estimate, Level};
use netproof_train::{Answers, Job, Recipe, measure};

/// The finding of a check that would have to train and may not.
pub(super) fn off(what: &str, title: &str, cx: &Context<'_>) -> Finding {
    cx.finding(what, title)
        .verdict(Verdict::NotApplicable)
        .explain(
            "This needs networks to be trained, which may take minutes: --retrain turns it on. What is trained is kept in \
             the run folder, and --budget limits the time.",
        )
        .done()
}

/// The training rows, which are known to be there.
pub(super) fn training_rows(subject: &Subject) -> Result<&Dataset, AuditError> {
    let message = || "there is no training data".to_owned();
    subject.part(Part::Train).ok_or_else(|| AuditError::Mismatch { message: message() })
}

/// Trains a network on some rows, and says what it answers on others, row by row.
pub(super) fn train_and_measure(
    what: &str,
    recipe: &Recipe,
    network: Model,
    rows: [&Dataset; 2],
    training: &Training,
    cx: &Context<'_>,
) -> Result<(Outcomes, netproof_train::Trained), AuditError> {
    let job = Job::new(recipe, network, rows[0].clone(), None)?;
    let trained = cx.train(what, recipe, job, training.registry())?;
    let model = Model::from_file(trained.model.to_file()?)?;
    let answers = measure(recipe, model, rows[1], training.registry())?;
    Ok((Outcomes::new(&answers, &rows[1].annotations()?.labels), trained))
}

/// How each row was answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcomes {
    /// Right or wrong.
    Right(Vec<bool>),
    /// Distance from the target.
    Errors(Vec<f64>),
}

impl Outcomes {
    pub(super) fn new(answers: &Answers, labels: &Labels) -> Self {
        let rows = answers.values.chunks(answers.width.max(1));
        match labels {
            Labels::Targets(t) => {
                Self::Errors(rows.zip(t).map(|(y, t)| f64::from((y.first().unwrap_or(&f32::NAN) - t).abs())).collect())
            }
            Labels::Classes(c) => Self::Right(rows.zip(c).map(|(y, c)| largest(y) == Some(*c)).collect()),
            Labels::None => Self::Right(Vec::new()),
        }
    }

    /// Accuracy, or mean absolute error.
    pub(super) fn estimate(&self, level: Level) -> Option<Estimate> {
        match self {
            Self::Right(v) => proportion(v.iter().filter(|r| **r).count() as u64, v.len() as u64, level),
            Self::Errors(v) => mean(v, level),
        }
    }

    /// How bad it is, where less is better: the rate of wrong answers, or the mean absolute error.
    pub(super) fn badness(&self) -> f64 {
        match self {
            Self::Right(v) => v.iter().filter(|r| !**r).count() as f64 / v.len().max(1) as f64,
            Self::Errors(v) => v.iter().sum::<f64>() / v.len().max(1) as f64,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Right(v) => v.len(),
            Self::Errors(v) => v.len(),
        }
    }

    pub(super) fn metric(&self) -> (&'static str, &'static str) {
        match self {
            Self::Right(_) => ("accuracy", "fraction"),
            Self::Errors(_) => ("mae", "unit of the target"),
        }
    }
}

/// The class of an answer: the largest logit, the first of equals; one logit is that of class 1. `None` for NaN.
pub(super) fn largest(answer: &[f32]) -> Option<usize> {
    if answer.iter().any(|v| v.is_nan()) {
        return None;
    }
    if let [one] = answer {
        return Some(usize::from(*one > 0.0));
    }
    let mut best = None;
    for (class, v) in answer.iter().enumerate() {
        if best.is_none_or(|b: usize| *v > answer[b]) {
            best = Some(class);
        }
    }
    best
}
