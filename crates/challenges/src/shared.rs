//! What several checks need.

use std::sync::Arc;

use netproof_audit::{AuditError, Classified, Context, Outputs, Part, Subject, UNDEFINED};
use netproof_stats::descriptive::Moments;
use netproof_stats::interval::mean::student;
use netproof_stats::{Estimate, Level};

/// Rows that resampling works on at most; with more, intervals are scaled from evenly spaced rows.
pub(crate) const RESAMPLED_ROWS: usize = 100_000;

/// The network's answers on a part that is known to be there.
pub(crate) fn outputs(subject: &Subject, part: Part, cx: &Context<'_>) -> Result<Arc<Outputs>, AuditError> {
    subject.outputs(part, cx)?.ok_or_else(|| AuditError::Mismatch { message: "there is no training data".to_owned() })
}

/// Mean with Student's t interval from streamed moments.
pub(crate) fn mean(m: &Moments, level: Level) -> Option<Estimate> {
    let (value, n) = (m.mean()?, m.count());
    let standard_error = m.standard_deviation().filter(|_| n > 1).map(|s| s / (n as f64).sqrt());
    let interval = standard_error.map(|e| student(value, e, (n - 1) as f64, level));
    Some(Estimate { value, n, standard_error, interval })
}

/// Label and prediction of a row as class indices.
pub(crate) fn pair(c: &Classified, row: usize) -> (usize, Option<usize>) {
    let predicted = c.predicted[row];
    (c.labels[row] as usize, (predicted != UNDEFINED).then_some(predicted as usize))
}

/// Evenly spaced positions, at most [`RESAMPLED_ROWS`].
pub(crate) fn resampled_positions(rows: usize) -> Vec<usize> {
    (0..rows).step_by(rows.div_ceil(RESAMPLED_ROWS).max(1)).collect()
}

/// Rows right, and all rows.
pub(crate) fn correct(c: &Classified) -> (u64, u64) {
    let right = c.labels.iter().zip(&c.predicted).filter(|(l, p)| l == p).count();
    (right as u64, c.labels.len() as u64)
}

/// What to say where the network has no answer for some rows.
pub(crate) fn undefined_caveat(undefined: u64) -> Option<String> {
    (undefined > 0).then(|| {
        format!("{undefined} rows have no answer (not a number); they count as wrong and are left out of probabilities")
    })
}

/// A fraction as a percentage for sentences.
pub(crate) fn percent(v: f64) -> String {
    format!("{:.2} %", 100.0 * v)
}
