//! Intervals for means and for values with a known standard error.

use super::{Estimate, Interval, Level};
use crate::Sum;

/// The mean with Student's t interval; for losses and Brier scores as well.
///
/// # Edge cases
/// Empty, or a value is not finite: `None`. One value: no standard error, no interval. All equal: an interval of width 0.
pub fn mean(values: &[f64], level: Level) -> Option<Estimate> {
    let value = Sum::mean(values).filter(|m| m.is_finite())?;
    let n = values.len();
    let standard_error =
        (n > 1).then(|| (Sum::of(values.iter().map(|v| (v - value) * (v - value))) / (n - 1) as f64 / n as f64).sqrt());
    let interval = standard_error.map(|e| student(value, e, (n - 1) as f64, level));
    Some(Estimate { value, n: n as u64, standard_error, interval })
}

/// Mean of the first sample minus mean of the second, for two independent samples (such as the losses on training and
/// on test data), with Welch's t interval. For two losses of the same rows take [`mean`] of their differences.
///
/// # Edge cases
/// A sample is empty, or a value is not finite: `None`. A sample of one: no standard error, no interval.
///
/// # Source
/// Welch 1947, Biometrika 34, 28–35, with Satterthwaite's degrees of freedom.
pub fn mean_difference(first: &[f64], second: &[f64], level: Level) -> Option<Estimate> {
    let (one, two) = (mean(first, level)?, mean(second, level)?);
    let value = one.value - two.value;
    let errors = one.standard_error.zip(two.standard_error).map(|(a, b)| (a * a, b * b));
    let interval = errors.map(|(a, b)| {
        let freedom = (a + b).powi(2) / (a * a / (one.n - 1) as f64 + b * b / (two.n - 1) as f64);
        // Two constant samples leave 0 over 0 degrees of freedom; the interval has width 0 then.
        let reach = if a + b > 0.0 { level.t(freedom) * (a + b).sqrt() } else { 0.0 };
        Interval::new(value - reach, value + reach, level, "welch-t")
    });
    let standard_error = errors.map(|(a, b)| (a + b).sqrt());
    Some(Estimate { value, n: one.n + two.n, standard_error, interval })
}

/// First minus second for any two estimates from independent samples, with the large-sample interval; no interval where
/// either has no standard error.
pub fn estimate_difference(first: &Estimate, second: &Estimate, level: Level) -> Estimate {
    let value = first.value - second.value;
    let standard_error = first.standard_error.zip(second.standard_error).map(|(a, b)| a.hypot(b));
    let interval = standard_error.map(|e| wald(value, e, level));
    Estimate { value, n: first.n.saturating_add(second.n), standard_error, interval }
}

/// `value` ± t · `standard_error`.
pub fn student(value: f64, standard_error: f64, degrees_of_freedom: f64, level: Level) -> Interval {
    let reach = level.t(degrees_of_freedom) * standard_error;
    Interval::new(value - reach, value + reach, level, "student-t")
}

/// `value` ± z · `standard_error`, the large-sample interval.
pub fn wald(value: f64, standard_error: f64, level: Level) -> Interval {
    let reach = level.z() * standard_error;
    Interval::new(value - reach, value + reach, level, "wald")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_of_a_published_sample() {
        // Darwin's Zea mays differences (Fisher 1935, The Design of Experiments, section 17): mean 20.93 eighths of an
        // inch, t = 2.148 with 14 degrees of freedom. The ends are from SciPy 1.17.1, scipy.stats.t.interval.
        let x = [49.0, -67.0, 8.0, 16.0, 6.0, 23.0, 28.0, 41.0, 14.0, 29.0, 56.0, 24.0, 75.0, 60.0, -48.0];
        let got = mean(&x, Level::P95).unwrap();
        let i = got.interval.unwrap();
        assert!((got.value - 20.933333333333334).abs() < 1e-13 && got.n == 15);
        assert!((got.value / got.standard_error.unwrap() - 2.148).abs() < 5e-4);
        assert!((i.low - 0.031193318392979563).abs() < 1e-9 && (i.high - 41.83547334827369).abs() < 1e-9, "{i:?}");
    }

    #[test]
    fn undefined_means() {
        assert_eq!(mean(&[], Level::P95), None);
        assert_eq!(mean(&[1.0, f64::NAN], Level::P95), None);
        let one = mean(&[2.0], Level::P95).unwrap();
        assert_eq!((one.value, one.standard_error, one.interval), (2.0, None, None));
        let same = mean(&[2.0; 5], Level::P95).unwrap().interval.unwrap();
        assert_eq!((same.low, same.high), (2.0, 2.0));
    }

    #[test]
    fn differences_of_means_are_welchs() {
        let (a, b) = ([1.0, 2.0, 4.0, 8.0, 16.0], [3.0, 3.5, 2.5]);
        let got = mean_difference(&a, &b, Level::P95).unwrap();
        let i = got.interval.unwrap();
        assert!((got.value - 3.2).abs() < 1e-14 && got.n == 8);
        // SciPy 1.17.1, ttest_ind(a, b, equal_var=False).confidence_interval().
        assert!((i.low + 4.3504416736778495).abs() < 1e-9 && (i.high - 10.75044167367785).abs() < 1e-9, "{i:?}");
        let (x, y) = (mean(&a, Level::P95).unwrap(), mean(&b, Level::P95).unwrap());
        let large = estimate_difference(&x, &y, Level::P95);
        assert!(
            (large.standard_error.unwrap() - got.standard_error.unwrap()).abs() < 1e-14 && large.value == got.value
        );
        assert_eq!(mean_difference(&a, &[], Level::P95), None);
        assert_eq!(mean_difference(&a, &[1.0], Level::P95).unwrap().interval, None);
        let constant = mean_difference(&[1.0, 1.0], &[3.0, 3.0], Level::P95).unwrap().interval.unwrap();
        assert_eq!((constant.low, constant.high), (-2.0, -2.0));
    }

    #[test]
    fn wald_reaches_1_96_standard_errors() {
        let i = wald(1.0, 2.0, Level::P95);
        assert!((i.high - 1.0 - 2.0 * 1.959963984540054).abs() < 1e-13 && i.low + i.high == 2.0);
    }
}
