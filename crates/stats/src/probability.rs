//! Class probabilities: softmax, log loss, Brier score and its decomposition.

use std::borrow::Cow;

use crate::{StatsError, Sum};

/// How far the probabilities of a row may sum from 1: what rounding of `f32` over a hundred thousand classes can do.
pub const SUM_TOLERANCE: f64 = 1e-3;

/// Smallest probability that the log loss of probabilities is taken of: the `f64` epsilon, as scikit-learn does. A row
/// costs at most 36.04 nats.
pub const LOG_LOSS_FLOOR: f64 = f64::EPSILON;

/// Class probabilities with their true labels, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Probabilities<'a> {
    values: Cow<'a, [f64]>,
    classes: usize,
    labels: &'a [usize],
}

impl<'a> Probabilities<'a> {
    /// Probabilities row by row, as a network with a softmax gives them.
    ///
    /// # Shapes
    /// values: `[rows, classes]`; labels: `[rows]`
    ///
    /// # Errors
    /// Lengths that do not fit, a label beyond the classes, a value outside `[0, 1]` (with room for `f32` rounding; NaN
    /// included), or a row that does not sum to 1 within [`SUM_TOLERANCE`].
    pub fn new(values: &'a [f64], classes: usize, labels: &'a [usize]) -> Result<Self, StatsError> {
        check_rows("probabilities", values.len(), classes, labels)?;
        for (row, p) in values.chunks_exact(classes).enumerate() {
            if let Some(&value) = p.iter().find(|v| !(-1e-6..=1.0 + 1e-6).contains(*v)) {
                return Err(StatsError::Range { what: "probability", row, value, low: 0.0, high: 1.0 });
            }
            let sum = Sum::of(p.iter().copied());
            if (sum - 1.0).abs() > SUM_TOLERANCE {
                return Err(StatsError::NotNormalised { row, sum, tolerance: SUM_TOLERANCE });
            }
        }
        Ok(Self { values: Cow::Borrowed(values), classes, labels })
    }

    /// The softmax of logits.
    ///
    /// # Shapes
    /// logits: `[rows, classes]`; labels: `[rows]`
    ///
    /// # Errors
    /// Lengths that do not fit, a label beyond the classes, or a row without a softmax (see [`softmax`]). Leave such
    /// rows out ([`undefined_rows`] lists them) and report how many there were.
    pub fn from_logits<T: Copy + Into<f64>>(
        logits: &[T],
        classes: usize,
        labels: &'a [usize],
    ) -> Result<Self, StatsError> {
        check_rows("logits", logits.len(), classes, labels)?;
        let values = softmax(logits, classes)?;
        if let Some(at) = values.iter().position(|v| v.is_nan()) {
            let row = at / classes;
            let value = logits[row * classes..][..classes].iter().map(|&v| v.into()).find(|v| !v.is_finite());
            return Err(StatsError::NotFinite { what: "logit", row, value: value.unwrap_or(f64::NAN) });
        }
        Ok(Self { values: Cow::Owned(values), classes, labels })
    }

    /// Number of classes; 1 or more.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// True labels.
    pub fn labels(&self) -> &[usize] {
        self.labels
    }

    /// All probabilities, row by row.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Probabilities and true label of each row.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (&[f64], usize)> {
        self.values.chunks_exact(self.classes).zip(self.labels.iter().copied())
    }

    /// Probabilities of one class, a number per row; empty where there is no such class.
    pub fn column(&self, class: usize) -> Vec<f64> {
        self.rows().filter_map(|(p, _)| p.get(class).copied()).collect()
    }
}

/// Softmax of each row, with the largest logit subtracted first, so that no row overflows.
///
/// # Shapes
/// logits: `[rows, classes]` → same
///
/// # Edge cases
/// A row with a NaN, or of minus infinities only: NaN throughout. Plus infinities share the row equally, as in the limit
/// of equally large logits.
///
/// # Errors
/// The logits are not whole rows.
pub fn softmax<T: Copy + Into<f64>>(logits: &[T], classes: usize) -> Result<Vec<f64>, StatsError> {
    let mut values = log_softmax(logits, classes)?;
    values.iter_mut().for_each(|v| *v = v.exp());
    Ok(values)
}

/// Logarithm of [`softmax`], exact also where the probability underflows.
///
/// # Shapes
/// logits: `[rows, classes]` → same, in nats
///
/// # Errors
/// The logits are not whole rows.
pub fn log_softmax<T: Copy + Into<f64>>(logits: &[T], classes: usize) -> Result<Vec<f64>, StatsError> {
    StatsError::check_positive("classes", classes)?;
    StatsError::check_length("logits", logits.len() / classes * classes, logits.len())?;
    let mut values: Vec<f64> = logits.iter().map(|&v| v.into()).collect();
    for row in values.chunks_exact_mut(classes) {
        log_softmax_row(row);
    }
    Ok(values)
}

/// Logistic function `1 / (1 + exp(-x))`, without overflow on either side.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// Rows that hold a NaN, or that have no softmax: to be left out of probability metrics, and reported.
///
/// # Shapes
/// values: `[rows, classes]`; an incomplete last row is ignored
pub fn undefined_rows<T: Copy + Into<f64>>(values: &[T], classes: usize) -> Vec<usize> {
    let undefined =
        |row: &[T]| row.iter().any(|&v| v.into().is_nan()) || row.iter().all(|&v| v.into() == f64::NEG_INFINITY);
    values.chunks_exact(classes.max(1)).enumerate().filter(|(_, row)| undefined(row)).map(|(i, _)| i).collect()
}

/// Log loss of each row, in nats: `-ln p(true class)`, with the probability raised to [`LOG_LOSS_FLOOR`].
pub fn log_losses(probabilities: &Probabilities) -> Vec<f64> {
    probabilities.rows().map(|(p, label)| -p[label].clamp(LOG_LOSS_FLOOR, 1.0).ln()).collect()
}

/// Log loss of each row from logits, in nats, without clipping: exact also for a confident mistake.
///
/// # Shapes
/// logits: `[rows, classes]`; labels: `[rows]` → `[rows]`
///
/// # Edge cases
/// A row without a softmax (see [`softmax`]): NaN. True class at minus infinity: infinite.
///
/// # Errors
/// Lengths that do not fit, or a label beyond the classes.
pub fn log_losses_of_logits<T: Copy + Into<f64>>(
    logits: &[T],
    classes: usize,
    labels: &[usize],
) -> Result<Vec<f64>, StatsError> {
    check_rows("logits", logits.len(), classes, labels)?;
    let mut row = Vec::with_capacity(classes);
    let losses = logits.chunks_exact(classes).zip(labels).map(|(z, &label)| {
        row.clear();
        row.extend(z.iter().map(|&v| v.into()));
        log_softmax_row(&mut row);
        // Minus zero would be printed as such.
        (-row[label]).max(0.0) + if row[label].is_nan() { f64::NAN } else { 0.0 }
    });
    Ok(losses.collect())
}

/// Brier score of each row: squared distance to the true one-hot row, summed over classes; 0 to 2.
///
/// # Source
/// Brier 1950, Monthly Weather Review 78(1). For two classes this is twice [`binary_brier_scores`].
pub fn brier_scores(probabilities: &Probabilities) -> Vec<f64> {
    let score = |(p, label): (&[f64], usize)| {
        Sum::of(p.iter().enumerate().map(|(class, &v)| if class == label { (1.0 - v) * (1.0 - v) } else { v * v }))
    };
    probabilities.rows().map(score).collect()
}

/// Brier score of each row for the probability of an event: `(p - outcome)²`; 0 to 1.
///
/// # Errors
/// Lengths that differ, or a probability outside `[0, 1]`.
pub fn binary_brier_scores(probabilities: &[f64], outcomes: &[bool]) -> Result<Vec<f64>, StatsError> {
    check_events(probabilities, outcomes)?;
    Ok(probabilities.iter().zip(outcomes).map(|(p, &o)| (p - f64::from(u8::from(o))).powi(2)).collect())
}

/// The Brier score in parts: `brier = reliability - resolution + uncertainty + within_bins`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BrierDecomposition {
    /// Mean Brier score.
    pub brier: f64,
    /// How far forecasts lie from what happens at that forecast; 0 is best.
    pub reliability: f64,
    /// How far what happens at a forecast lies from what happens on the whole; large is best.
    pub resolution: f64,
    /// Variance of the outcome; a property of the data.
    pub uncertainty: f64,
    /// What the spread of forecasts within a bin adds: variance minus twice the covariance with the outcome. 0 where
    /// each bin holds one forecast value.
    pub within_bins: f64,
}

/// Decomposes the Brier score of an event's probability over bins of equal width (open below, closed above, the first
/// one closed on both sides).
///
/// # Edge cases
/// No rows: `Ok(None)`.
///
/// # Errors
/// No bins or more than a million, lengths that differ, or a probability outside `[0, 1]`.
///
/// # Source
/// Murphy 1973, Journal of Applied Meteorology 12(4); the terms within bins: Stephenson, Coelho and Jolliffe 2008,
/// Weather and Forecasting 23(4).
pub fn binary_brier_decomposition(
    probabilities: &[f64],
    outcomes: &[bool],
    bins: usize,
) -> Result<Option<BrierDecomposition>, StatsError> {
    StatsError::check_bins(bins)?;
    let scores = binary_brier_scores(probabilities, outcomes)?;
    let Some(brier) = Sum::mean(&scores) else { return Ok(None) };
    let n = scores.len() as f64;
    let mut cells = vec![(0u64, Sum::default(), 0u64); bins];
    for (&p, &outcome) in probabilities.iter().zip(outcomes) {
        let (count, sum, events) = &mut cells[equal_width_bin(p, bins)];
        *count += 1;
        sum.add(p);
        *events += u64::from(outcome);
    }
    let base = outcomes.iter().filter(|&&o| o).count() as f64 / n;
    let (mut reliability, mut resolution) = (Sum::default(), Sum::default());
    for (count, sum, events) in cells.iter().filter(|c| c.0 > 0) {
        let count = *count as f64;
        let rate = *events as f64 / count;
        reliability.add(count * (sum.total() / count - rate).powi(2) / n);
        resolution.add(count * (rate - base).powi(2) / n);
    }
    let (reliability, resolution, uncertainty) = (reliability.total(), resolution.total(), base * (1.0 - base));
    let within_bins = brier - (reliability - resolution + uncertainty);
    Ok(Some(BrierDecomposition { brier, reliability, resolution, uncertainty, within_bins }))
}

/// Decomposes the Brier score of class probabilities: the sum of [`binary_brier_decomposition`] over classes.
///
/// # Edge cases
/// No rows: `Ok(None)`.
///
/// # Errors
/// No bins.
pub fn brier_decomposition(
    probabilities: &Probabilities,
    bins: usize,
) -> Result<Option<BrierDecomposition>, StatsError> {
    let mut total = BrierDecomposition::default();
    for class in 0..probabilities.classes() {
        let outcomes: Vec<bool> = probabilities.labels().iter().map(|&l| l == class).collect();
        let column: Vec<f64> = probabilities.column(class).iter().map(|p| p.clamp(0.0, 1.0)).collect();
        let Some(part) = binary_brier_decomposition(&column, &outcomes, bins)? else { return Ok(None) };
        total.brier += part.brier;
        total.reliability += part.reliability;
        total.resolution += part.resolution;
        total.uncertainty += part.uncertainty;
        total.within_bins += part.within_bins;
    }
    Ok(Some(total))
}

/// Bin of a probability among `bins` of equal width over `[0, 1]`, each open below and closed above; 0 itself, which no
/// such bin holds, goes to the first.
pub(crate) fn equal_width_bin(probability: f64, bins: usize) -> usize {
    let count = bins as f64;
    let mut bin = ((probability * count).ceil() as usize).clamp(1, bins) - 1;
    // The product may round across an edge; the edges themselves are `bin / bins`.
    if bin > 0 && probability <= bin as f64 / count {
        bin -= 1;
    } else if bin + 1 < bins && probability > (bin + 1) as f64 / count {
        bin += 1;
    }
    bin
}

/// Checks probabilities of events and their outcomes.
pub(crate) fn check_events(probabilities: &[f64], outcomes: &[bool]) -> Result<(), StatsError> {
    StatsError::check_length("outcomes", probabilities.len(), outcomes.len())?;
    match probabilities.iter().position(|p| !(0.0..=1.0).contains(p)) {
        None => Ok(()),
        Some(row) => {
            Err(StatsError::Range { what: "probability", row, value: probabilities[row], low: 0.0, high: 1.0 })
        }
    }
}

/// Checks that `len` values are one row of `classes` per label, and the labels.
pub(crate) fn check_rows(what: &'static str, len: usize, classes: usize, labels: &[usize]) -> Result<(), StatsError> {
    StatsError::check_positive("classes", classes)?;
    StatsError::check_length(what, labels.len().saturating_mul(classes), len)?;
    StatsError::check_labels(labels, classes)
}

fn log_softmax_row(row: &mut [f64]) {
    // `f64::max` ignores NaN; the sum below brings it back.
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::INFINITY {
        // The difference of infinities is NaN; in the limit the infinite ones share the row.
        let nan = row.iter().any(|v| v.is_nan());
        let share = -(row.iter().filter(|&&v| v == max).count() as f64).ln();
        row.iter_mut().for_each(|v| {
            *v = if nan {
                f64::NAN
            } else if *v == max {
                share
            } else {
                f64::NEG_INFINITY
            }
        });
        return;
    }
    let log_sum = Sum::of(row.iter().map(|v| (v - max).exp())).ln();
    row.iter_mut().for_each(|v| *v = *v - max - log_sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_of_known_rows() {
        let p = softmax(&[0.0f32, 3f32.ln(), 1000.0, 1000.0], 2).unwrap();
        let expected = [0.25, 0.75, 0.5, 0.5];
        assert!(p.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-7), "{p:?}");
        assert_eq!(log_softmax(&[0.0, -2000.0], 2).unwrap(), [0.0, -2000.0]);
    }

    #[test]
    fn softmax_of_infinities_and_nan() {
        let inf = f64::INFINITY;
        assert_eq!(softmax(&[inf, 1.0, inf, -inf], 4).unwrap(), [0.5, 0.0, 0.5, 0.0]);
        assert_eq!(softmax(&[-inf, 1.0], 2).unwrap(), [0.0, 1.0]);
        for row in [[f64::NAN, 1.0], [-inf, -inf], [f64::NAN, inf]] {
            assert!(softmax(&row, 2).unwrap().iter().all(|v| v.is_nan()), "{row:?}");
        }
        assert_eq!(undefined_rows(&[f64::NAN, 1.0, 0.0, inf, -inf, -inf, 1.0, 2.0], 2), [0, 2]);
        assert!(softmax(&[1.0, 2.0, 3.0], 2).is_err() && softmax::<f64>(&[], 0).is_err());
    }

    #[test]
    fn sigmoid_is_stable_and_symmetric() {
        assert_eq!((sigmoid(0.0), sigmoid(1000.0), sigmoid(-1000.0)), (0.5, 1.0, 0.0));
        assert!(
            (sigmoid(2.0) - 0.8807970779778823).abs() < 1e-15 && (sigmoid(-2.0) + sigmoid(2.0) - 1.0).abs() < 1e-15
        );
        assert!(sigmoid(-700.0) > 0.0 && sigmoid(f64::NAN).is_nan());
    }

    #[test]
    fn probabilities_are_checked() {
        let ok = [0.25, 0.75, 1.0, 0.0];
        assert!(Probabilities::new(&ok, 2, &[0, 1]).is_ok());
        assert!(matches!(Probabilities::new(&ok, 2, &[0]), Err(StatsError::Length { .. })));
        assert!(matches!(Probabilities::new(&ok, 2, &[0, 2]), Err(StatsError::Label { row: 1, label: 2, classes: 2 })));
        assert!(matches!(Probabilities::new(&[0.5, 0.6], 2, &[0]), Err(StatsError::NotNormalised { row: 0, .. })));
        assert!(matches!(Probabilities::new(&[-0.5, 1.5], 2, &[0]), Err(StatsError::Range { .. })));
        assert!(matches!(Probabilities::new(&[f64::NAN, 1.0], 2, &[0]), Err(StatsError::Range { .. })));
        assert!(matches!(Probabilities::new(&[], 0, &[]), Err(StatsError::Parameter { .. })));
        let nan = Probabilities::from_logits(&[1.0, 2.0, f32::NAN, 0.0], 2, &[0, 0]);
        assert!(matches!(nan, Err(StatsError::NotFinite { row: 1, .. })));
        assert!(Probabilities::from_logits::<f32>(&[], 3, &[]).unwrap().is_empty());
    }

    #[test]
    fn log_losses_clip_probabilities_but_not_logits() {
        let p = Probabilities::new(&[0.25, 0.75, 1.0, 0.0], 2, &[0, 1]).unwrap();
        let losses = log_losses(&p);
        assert!((losses[0] - 4f64.ln()).abs() < 1e-15 && (losses[1] - 36.04365338911715).abs() < 1e-13);
        let exact =
            log_losses_of_logits(&[0.0f32, 0.0, 500.0, 0.0, f32::NAN, 0.0, 90.0, 0.0], 2, &[0, 1, 0, 0]).unwrap();
        assert!((exact[0] - 2f64.ln()).abs() < 1e-15 && exact[1] == 500.0 && exact[2].is_nan());
        assert!(exact[3] == 0.0 && exact[3].is_sign_positive());
    }

    #[test]
    fn brier_scores_of_known_rows() {
        let p = Probabilities::new(&[0.2, 0.3, 0.5, 0.0, 1.0, 0.0], 3, &[2, 0]).unwrap();
        let scores = brier_scores(&p);
        assert!((scores[0] - 0.38).abs() < 1e-15 && scores[1] == 2.0);
        assert_eq!(binary_brier_scores(&[0.5, 1.0], &[true, false]).unwrap(), [0.25, 1.0]);
        assert!(binary_brier_scores(&[1.1], &[true]).is_err() && binary_brier_scores(&[0.1], &[]).is_err());
    }

    #[test]
    fn the_decomposition_of_single_valued_bins_is_murphys() {
        // Ten forecasts of 0.8 with 7 events, ten of 0.3 with 4: by hand.
        let p = [[0.8; 10], [0.3; 10]].concat();
        let o: Vec<bool> = (0..20).map(|i| i < 7 || (10..14).contains(&i)).collect();
        let d = binary_brier_decomposition(&p, &o, 10).unwrap().unwrap();
        assert!((d.reliability - 0.01).abs() < 1e-15 && (d.resolution - 0.0225).abs() < 1e-15);
        assert!((d.uncertainty - 0.2475).abs() < 1e-15 && d.within_bins.abs() < 1e-15);
        assert!((d.brier - (0.01 - 0.0225 + 0.2475)).abs() < 1e-15);
    }

    #[test]
    fn within_bin_terms_are_variance_minus_twice_covariance() {
        let (p, o) = ([0.1, 0.2, 0.4, 0.9], [false, true, false, true]);
        let d = binary_brier_decomposition(&p, &o, 2).unwrap().unwrap();
        // One bin holds the first three, whose mean forecast is 7/30 and whose event rate is 1/3.
        let (mean, rate) = (7.0 / 30.0, 1.0 / 3.0);
        let y = [0.0, 1.0, 0.0];
        let naive: f64 = (0..3).map(|i| (p[i] - mean).powi(2) - 2.0 * (p[i] - mean) * (y[i] - rate)).sum::<f64>() / 4.0;
        assert!((d.within_bins - naive).abs() < 1e-15, "{d:?} {naive}");
        assert_eq!(binary_brier_decomposition(&[], &[], 5).unwrap(), None);
        assert!(binary_brier_decomposition(&p, &o, 0).is_err());
    }

    #[test]
    fn two_classes_decompose_into_twice_the_binary_parts() {
        let first = [0.1, 0.2, 0.45, 0.93];
        let both: Vec<f64> = first.iter().flat_map(|&p| [p, 1.0 - p]).collect();
        let labels = [1, 0, 1, 0];
        let d = brier_decomposition(&Probabilities::new(&both, 2, &labels).unwrap(), 10).unwrap().unwrap();
        let b = binary_brier_decomposition(&first, &labels.map(|l| l == 0), 10).unwrap().unwrap();
        let pairs = [(d.brier, b.brier), (d.reliability, b.reliability), (d.resolution, b.resolution)];
        assert!(pairs.iter().all(|(d, b)| (d - 2.0 * b).abs() < 1e-14), "{d:?} {b:?}");
    }

    #[test]
    fn bins_are_open_below_and_closed_above() {
        for bins in [1, 3, 7, 10, 15, 49, 100] {
            for edge in 1..=bins {
                let value = edge as f64 / bins as f64;
                assert_eq!(equal_width_bin(value, bins), edge - 1, "{value} of {bins}");
                assert_eq!(equal_width_bin(value.next_up(), bins), edge.min(bins - 1), "above {value} of {bins}");
            }
            assert_eq!(equal_width_bin(0.0, bins), 0);
        }
    }
}
