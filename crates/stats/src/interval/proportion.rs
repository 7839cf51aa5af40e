//! Intervals for one proportion: `successes` of `n`.

use super::{Estimate, Interval, Level};
use crate::special::beta_quantile;

/// Wilson's score interval: close to its level on average, for any `n`; the default for proportions.
///
/// # Edge cases
/// `n` = 0, or more successes than `n`: `None`. No successes: the lower end is exactly 0; no failures: the upper is 1.
///
/// # Source
/// Wilson 1927, JASA 22, 209–212; method 3 of Newcombe 1998, Statistics in Medicine 17, 857–872.
pub fn wilson(successes: u64, n: u64, level: Level) -> Option<Interval> {
    if n == 0 || successes > n {
        return None;
    }
    let (k, m, z) = (successes as f64, n as f64, level.z());
    let square = z * z;
    let middle = 2.0 * k + square;
    let reach = z * (square + 4.0 * k * (1.0 - k / m)).sqrt();
    // The lower end is (middle - reach) / 2(n + z²), extended by its conjugate so that nothing cancels for small k.
    let low = 2.0 * k * (k / m) / (middle + reach);
    let high = if successes == n { 1.0 } else { (middle + reach) / (2.0 * (m + square)) };
    Some(Interval::new(low, high, level, "wilson"))
}

/// The "exact" interval of Clopper and Pearson: never below its level, so wider than needed.
///
/// # Edge cases
/// As for [`wilson`].
///
/// # Source
/// Clopper and Pearson 1934, Biometrika 26, 404–413, by quantiles of the beta law.
pub fn clopper_pearson(successes: u64, n: u64, level: Level) -> Option<Interval> {
    if n == 0 || successes > n {
        return None;
    }
    let (k, n, tail) = (successes as f64, n as f64, level.tail());
    let low = if k == 0.0 { 0.0 } else { beta_quantile(tail, k, n - k + 1.0) };
    let high = if k == n { 1.0 } else { 1.0 - beta_quantile(tail, n - k, k + 1.0) };
    Some(Interval::new(low, high, level, "clopper-pearson"))
}

/// A proportion with its binomial standard error and Wilson interval; `None` where [`wilson`] is.
pub fn proportion(successes: u64, n: u64, level: Level) -> Option<Estimate> {
    let interval = wilson(successes, n, level)?;
    let value = successes as f64 / n as f64;
    let standard_error = (value * (1.0 - value) / n as f64).sqrt();
    Some(Estimate { value, n, standard_error: Some(standard_error), interval: Some(interval) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(got: Interval, low: f64, high: f64, tolerance: f64) {
        assert!((got.low - low).abs() <= tolerance && (got.high - high).abs() <= tolerance, "{got:?} {low} {high}");
    }

    #[test]
    fn wilson_gives_the_published_examples() {
        // Newcombe 1998, Statistics in Medicine 17, 857–872, table I, method 3.
        check(wilson(81, 263, Level::P95).unwrap(), 0.2553, 0.3662, 5e-5);
        check(wilson(15, 148, Level::P95).unwrap(), 0.0624, 0.1605, 5e-5);
        check(wilson(0, 20, Level::P95).unwrap(), 0.0, 0.1611, 5e-5);
        check(wilson(1, 29, Level::P95).unwrap(), 0.0061, 0.1718, 5e-5);
    }

    #[test]
    fn wilson_solves_the_score_equation() {
        for (k, n) in [(1u64, 3u64), (1765, 2000), (7, 100_000_000), (99, 100), (20, 20)] {
            for level in [Level::P90, Level::P99] {
                let i = wilson(k, n, level).unwrap();
                let (p, n) = (k as f64 / n as f64, n as f64);
                for end in [i.low, i.high] {
                    if end > 0.0 && end < 1.0 {
                        let z = (p - end).abs() / (end * (1.0 - end) / n).sqrt();
                        assert!((z / level.z() - 1.0).abs() < 1e-9, "{k}/{n}: {z}");
                    }
                }
            }
        }
    }

    #[test]
    fn clopper_pearson_gives_published_and_scipy_values() {
        // Newcombe 1998, table I, method 5.
        check(clopper_pearson(81, 263, Level::P95).unwrap(), 0.2527, 0.3676, 5e-5);
        check(clopper_pearson(1, 29, Level::P95).unwrap(), 0.0009, 0.1776, 5e-5);
        // SciPy 1.17.1, scipy.special.betaincinv.
        check(clopper_pearson(81, 263, Level::P95).unwrap(), 0.25273674558527126, 0.36762192260135135, 1e-12);
        // Closed form without successes: 1 - tail^(1/n).
        check(clopper_pearson(0, 20, Level::P95).unwrap(), 0.0, 1.0 - 0.025f64.powf(0.05), 1e-12);
        check(clopper_pearson(20, 20, Level::P95).unwrap(), 0.025f64.powf(0.05), 1.0, 1e-12);
    }

    #[test]
    fn clopper_pearson_covers_at_least_its_level_and_wilson_about() {
        use crate::special::binomial_pmf;
        let (n, mut wilson_sum, mut count) = (30u64, 0.0, 0.0);
        for p in (1..40).map(|i| f64::from(i) / 40.0) {
            let coverage = |f: fn(u64, u64, Level) -> Option<Interval>| -> f64 {
                (0..=n).filter(|&k| f(k, n, Level::P95).unwrap().contains(p)).map(|k| binomial_pmf(k, n, p)).sum()
            };
            assert!(coverage(clopper_pearson) >= 0.95, "p = {p}");
            wilson_sum += coverage(wilson);
            count += 1.0;
        }
        assert!((wilson_sum / count - 0.95f64).abs() < 0.01, "{}", wilson_sum / count);
    }

    #[test]
    fn ends_without_failures_or_successes_are_exact() {
        for n in 1..2000 {
            assert_eq!(wilson(n, n, Level::P90).unwrap().high, 1.0, "{n}");
            assert_eq!(wilson(0, n, Level::P90).unwrap().low, 0.0, "{n}");
        }
    }

    #[test]
    fn undefined_proportions_are_none() {
        assert_eq!(wilson(0, 0, Level::P95), None);
        assert_eq!(wilson(2, 1, Level::P95), None);
        assert_eq!(clopper_pearson(0, 0, Level::P95), None);
        assert_eq!(clopper_pearson(2, 1, Level::P95), None);
        assert_eq!(proportion(0, 0, Level::P95), None);
        let half = proportion(2, 4, Level::P95).unwrap();
        assert_eq!((half.value, half.n, half.standard_error), (0.5, 4, Some(0.25)));
    }
}
