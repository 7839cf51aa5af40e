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
    fn wald_reaches_1_96_standard_errors() {
        let i = wald(1.0, 2.0, Level::P95);
        assert!((i.high - 1.0 - 2.0 * 1.959963984540054).abs() < 1e-13 && i.low + i.high == 2.0);
    }
}
