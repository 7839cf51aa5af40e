//! One metric before and after, with the interval of its change.
//!
//! Accuracy, log loss and mean absolute error are compared row by row, which takes out what all networks find hard. All
//! other metrics are compared by their intervals, as if of independent samples: such an interval is too wide, never too
//! narrow, where the same rows were measured twice with answers that go along.

use std::fmt;

use netproof_core::{AuditDocument, Comparison, Finding};
use netproof_stats::Estimate;
use netproof_stats::interval::difference::{Paired, paired, recovered};
use netproof_stats::interval::mean::mean;
use netproof_stats::probability::log_losses_of_logits;

use super::good_side;
use crate::{AuditError, Context, Outputs, Part, Subject};

/// Metrics without a threshold of their own that are good on one side. Others are shown and not judged.
const SIDES: &[(&str, Comparison)] = &[
    ("accuracy", Comparison::AtLeast),
    ("balanced_accuracy", Comparison::AtLeast),
    ("macro_f1", Comparison::AtLeast),
    ("weighted_f1", Comparison::AtLeast),
    ("mcc", Comparison::AtLeast),
    ("kappa", Comparison::AtLeast),
    ("auroc", Comparison::AtLeast),
    ("worst_class_recall", Comparison::AtLeast),
    ("r_squared", Comparison::AtLeast),
    ("robust_accuracy", Comparison::AtLeast),
    ("certified_accuracy", Comparison::AtLeast),
    ("log_loss", Comparison::AtMost),
    ("brier", Comparison::AtMost),
    ("ece", Comparison::AtMost),
    ("mae", Comparison::AtMost),
    ("rmse", Comparison::AtMost),
    ("accuracy_gap", Comparison::AtMost),
    ("log_loss_gap", Comparison::AtMost),
    ("mae_gap", Comparison::AtMost),
    ("parameters", Comparison::AtMost),
    ("macs", Comparison::AtMost),
    ("peak_activation_bytes", Comparison::AtMost),
    ("parameter_bytes", Comparison::AtMost),
];

/// What a change means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Better, beyond noise.
    Better,
    /// Worse, beyond noise.
    Worse,
    /// The interval of the change reaches 0.
    Noise,
    /// No side is good, or there is no interval.
    Unjudged,
}

impl Judgement {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Noise => "within noise",
            Self::Unjudged => "not judged",
        }
    }
}

/// A metric before and after.
#[derive(Debug, Clone)]
pub struct Change {
    /// Id of the findings.
    pub id: String,
    /// The metric.
    pub metric: String,
    /// Its unit.
    pub unit: Option<String>,
    /// Value and interval before.
    pub before: (f64, Option<[f64; 2]>),
    /// Value and interval after.
    pub after: (f64, Option<[f64; 2]>),
    /// After minus before.
    pub change: Estimate,
    /// Side on which it is good.
    pub better: Option<Comparison>,
    /// What it means.
    pub judgement: Judgement,
    /// Half the width of the interval before.
    pub noise: Option<f64>,
}

impl Change {
    /// How much better it has become, in its unit; negative where it is worse.
    pub fn gain(&self) -> f64 {
        self.better.map_or(0.0, good_side) * self.change.value
    }

    /// What a tolerance is a part of: 1 for fractions, else the value before.
    pub fn scale(&self) -> f64 {
        if self.unit.as_deref() == Some("fraction") { 1.0 } else { self.before.0.abs() }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:.4} → {:.4} ({})", self.metric, self.before.0, self.after.0, self.judgement.name())
    }
}

/// Every metric that both audits measured, in the order of the first. `subjects` are what they measured.
/// # Errors
/// A network cannot answer.
pub fn compare(
    before: &AuditDocument,
    after: &AuditDocument,
    subjects: [&Subject; 2],
    cx: &Context<'_>,
) -> Result<Vec<Change>, AuditError> {
    let pair = |f: &Finding| {
        let other = after.findings.iter().find(|o| o.id == f.id && o.metric == f.metric)?;
        change(f, other, None, subjects, cx)
    };
    Ok(before.findings.iter().filter_map(pair).collect())
}

pub(super) fn change(
    before: &Finding,
    after: &Finding,
    better: Option<Comparison>,
    subjects: [&Subject; 2],
    cx: &Context<'_>,
) -> Option<Change> {
    let (metric, a, b) = (before.metric.as_deref()?, before.value?, after.value?);
    let listed = || SIDES.iter().find(|(name, _)| *name == metric).map(|(_, side)| *side);
    let better = better.or_else(listed).or_else(|| before.threshold.as_ref().map(|t| t.comparison));
    let ends = |f: &Finding| f.interval.as_ref().map(|i| [i.low, i.high]);
    let change = row_by_row(metric, subjects, cx).unwrap_or_else(|| by_intervals(before, after, a, b, cx));
    let judgement = match (better, change.interval) {
        (Some(side), Some(i)) => {
            let [low, high] = [i.low, i.high].map(|e| e * good_side(side));
            if low.min(high) > 0.0 {
                Judgement::Better
            } else if low.max(high) < 0.0 {
                Judgement::Worse
            } else {
                Judgement::Noise
            }
        }
        // What is counted, such as parameters, has no noise.
        (Some(side), None) if before.interval.is_none() && after.interval.is_none() => {
            match (b - a) * good_side(side) {
                d if d > 0.0 => Judgement::Better,
                d if d < 0.0 => Judgement::Worse,
                _ => Judgement::Noise,
            }
        }
        _ => Judgement::Unjudged,
    };
    Some(Change {
        id: before.id.clone(),
        metric: metric.to_owned(),
        unit: before.unit.clone(),
        before: (a, ends(before)),
        after: (b, ends(after)),
        change,
        better,
        judgement,
        noise: before.interval.as_ref().map(|i| 0.5 * (i.high - i.low)),
    })
}

fn by_intervals(before: &Finding, after: &Finding, a: f64, b: f64, cx: &Context<'_>) -> Estimate {
    let interval = |f: &Finding| {
        let i = f.interval.as_ref()?;
        Some(netproof_stats::Interval { low: i.low, high: i.high, level: i.level, method: "mover" })
    };
    let interval = interval(after).zip(interval(before)).map(|(y, x)| recovered((b, y), (a, x), cx.level));
    Estimate { value: b - a, n: after.n.unwrap_or(0), standard_error: None, interval }
}

/// The change of a mean over rows, from each row's own change.
fn row_by_row(metric: &str, subjects: [&Subject; 2], cx: &Context<'_>) -> Option<Estimate> {
    if !matches!(metric, "accuracy" | "log_loss" | "mae") {
        return None;
    }
    let [before, after] = subjects.map(|s| s.outputs(Part::Test, cx).ok().flatten());
    match (metric, &*before?, &*after?) {
        ("accuracy", Outputs::Classified(x), Outputs::Classified(y)) if x.labels == y.labels => {
            let right = |c: &crate::Classified, i: usize| c.labels[i] == c.predicted[i];
            paired(Paired::count((0..x.rows()).map(|i| (right(y, i), right(x, i)))), cx.level)
        }
        ("log_loss", Outputs::Classified(x), Outputs::Classified(y)) => {
            if x.sample.rows != y.sample.rows || x.undefined + y.undefined > 0 {
                return None;
            }
            let losses = |c: &crate::Classified| log_losses_of_logits(&c.sample.logits, c.classes, &c.sample.labels);
            let (x, y) = (losses(x).ok()?, losses(y).ok()?);
            mean(&y.iter().zip(&x).map(|(y, x)| y - x).collect::<Vec<_>>(), cx.level)
        }
        ("mae", Outputs::Regressed(x), Outputs::Regressed(y)) if x.actual == y.actual => {
            let error = |r: &crate::Regressed, i: usize| f64::from((r.predicted[i] - r.actual[i]).abs());
            mean(&(0..x.actual.len()).map(|i| error(y, i) - error(x, i)).collect::<Vec<_>>(), cx.level)
        }
        _ => None,
    }
}
