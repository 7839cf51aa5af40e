//! Intervals for the difference of two proportions.

use super::proportion::wilson;
use super::{Estimate, Interval, Level};

/// `first - second` for two independent samples, such as accuracy on training and on test data, with Newcombe's hybrid
/// score interval.
///
/// # Edge cases
/// A sample of size 0, or more successes than its size: `None`.
///
/// # Source
/// Newcombe 1998, Statistics in Medicine 17, 873–890, method 10.
pub fn independent(first: (u64, u64), second: (u64, u64), level: Level) -> Option<Estimate> {
    let (one, two) = (wilson(first.0, first.1, level)?, wilson(second.0, second.1, level)?);
    let (p1, p2) = (first.0 as f64 / first.1 as f64, second.0 as f64 / second.1 as f64);
    let value = p1 - p2;
    let low = value - (p1 - one.low).hypot(two.high - p2);
    let high = value + (one.high - p1).hypot(p2 - two.low);
    let variance = p1 * (1.0 - p1) / first.1 as f64 + p2 * (1.0 - p2) / second.1 as f64;
    Some(Estimate {
        value,
        n: first.1.saturating_add(second.1),
        standard_error: Some(variance.sqrt()),
        interval: Some(Interval::new(low, high, level, "newcombe")),
    })
}

/// Outcomes of two classifiers (or of one before and after a change) on the same rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Paired {
    /// Rows where both are right.
    pub both: u64,
    /// Rows where only the first is right.
    pub only_first: u64,
    /// Rows where only the second is right.
    pub only_second: u64,
    /// Rows where neither is right.
    pub neither: u64,
}

impl Paired {
    /// Counts pairs of outcomes.
    pub fn count(pairs: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut counts = Self::default();
        for (first, second) in pairs {
            *match (first, second) {
                (true, true) => &mut counts.both,
                (true, false) => &mut counts.only_first,
                (false, true) => &mut counts.only_second,
                (false, false) => &mut counts.neither,
            } += 1;
        }
        counts
    }

    /// Number of rows.
    pub fn n(self) -> u64 {
        self.both + self.only_first + self.only_second + self.neither
    }
}

/// First proportion minus second on the same rows, with Newcombe's hybrid score interval for pairs.
///
/// # Edge cases
/// No rows: `None`. A proportion of exactly 0 or 1 leaves the correlation undefined; it is then taken as 0, as the
/// source does.
///
/// # Source
/// Newcombe 1998, Statistics in Medicine 17, 2635–2650, method 10 (correlation with continuity correction).
pub fn paired(counts: Paired, level: Level) -> Option<Estimate> {
    let n = counts.n();
    let (first, second) = (counts.both + counts.only_first, counts.both + counts.only_second);
    let (one, two) = (wilson(first, n, level)?, wilson(second, n, level)?);
    let size = n as f64;
    let [both, only_first, only_second, neither] =
        [counts.both, counts.only_first, counts.only_second, counts.neither].map(|c| c as f64);
    let (p1, p2, value) = (first as f64 / size, second as f64 / size, (only_first - only_second) / size);
    let phi = {
        let determinant = both * neither - only_first * only_second;
        let corrected = if determinant > 0.0 { (determinant - size / 2.0).max(0.0) } else { determinant };
        // Square roots one by one, since the product of four counts may pass the range of exact numbers.
        let norm = [both + only_first, only_second + neither, both + only_second, only_first + neither]
            .map(f64::sqrt)
            .iter()
            .product::<f64>();
        if norm > 0.0 { corrected / norm } else { 0.0 }
    };
    let combine = |a: f64, b: f64| (a * a - 2.0 * phi * a * b + b * b).max(0.0).sqrt();
    let low = value - combine(p1 - one.low, two.high - p2);
    let high = value + combine(one.high - p1, p2 - two.low);
    let variance = (only_first + only_second - (only_first - only_second).powi(2) / size) / (size * size);
    Some(Estimate {
        value,
        n,
        standard_error: Some(variance.max(0.0).sqrt()),
        interval: Some(Interval::new(low, high, level, "newcombe-paired")),
    })
}

/// First minus second for any two values that have intervals, from the distances of their ends (MOVER).
///
/// # Guarantees
/// For independent samples it has about the level of the two intervals; where both were measured on the same rows, it is
/// wider than it need be.
/// # Source
/// Zou and Donner 2008, Statistics in Medicine 27, 1693–1702, equation 2; Newcombe's hybrid score interval is the case of
/// two proportions.
pub fn recovered(first: (f64, Interval), second: (f64, Interval), level: Level) -> Interval {
    let ((a, one), (b, two)) = (first, second);
    let value = a - b;
    let low = value - (a - one.low).hypot(two.high - b);
    let high = value + (one.high - a).hypot(b - two.low);
    Interval::new(low, high, level, "mover")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(got: Option<Estimate>, value: f64, low: f64, high: f64, tolerance: f64) {
        let got = got.unwrap();
        let i = got.interval.unwrap();
        let errors = [got.value - value, i.low - low, i.high - high].map(f64::abs);
        assert!(errors.iter().all(|&e| e <= tolerance), "{got:?} for {value} {low} {high}");
    }

    #[test]
    fn independent_gives_the_published_examples() {
        // Newcombe 1998, Statistics in Medicine 17, 873–890, table II, method 10.
        check(independent((56, 70), (48, 80), Level::P95), 0.2, 0.0524, 0.3339, 5e-5);
        check(independent((9, 10), (3, 10), Level::P95), 0.6, 0.1705, 0.8090, 5e-5);
        check(independent((10, 10), (0, 20), Level::P95), 1.0, 0.6791, 1.0, 5e-5);
    }

    #[test]
    fn recovered_variances_give_the_hybrid_score_interval_for_proportions() {
        let (a, b) = ((56, 70), (48, 80));
        let want = independent(a, b, Level::P95).unwrap();
        let p = |(k, n): (u64, u64)| (k as f64 / n as f64, wilson(k, n, Level::P95).unwrap());
        let got = recovered(p(a), p(b), Level::P95);
        let i = want.interval.unwrap();
        assert!((got.low - i.low).abs() < 1e-15 && (got.high - i.high).abs() < 1e-15 && got.method == "mover");
    }

    #[test]
    fn swapping_the_samples_mirrors_the_interval() {
        let (a, b) = ((1765, 2000), (890, 1000));
        let (forth, back) = (independent(a, b, Level::P90).unwrap(), independent(b, a, Level::P90).unwrap());
        let (f, g) = (forth.interval.unwrap(), back.interval.unwrap());
        assert!((f.low + g.high).abs() < 1e-15 && (f.high + g.low).abs() < 1e-15);
        assert_eq!(independent((0, 0), b, Level::P90), None);
    }

    #[test]
    fn paired_without_correlation_is_the_hybrid_score_interval() {
        // 25 each: no correlation, so the ends are those of two independent samples of the same size.
        let counts = Paired { both: 25, only_first: 25, only_second: 25, neither: 25 };
        let (p, i) = (paired(counts, Level::P95).unwrap(), independent((50, 100), (50, 100), Level::P95).unwrap());
        let (p, i) = (p.interval.unwrap(), i.interval.unwrap());
        assert!((p.low - i.low).abs() < 1e-15 && (p.high - i.high).abs() < 1e-15);
    }

    #[test]
    fn paired_gives_the_published_example_and_an_independent_computation() {
        let counts = |both, only_first, only_second, neither| Paired { both, only_first, only_second, neither };
        // Newcombe 1998, Statistics in Medicine 17, 2635–2650, table II, method 10.
        check(paired(counts(36, 12, 2, 0), Level::P95), 0.2, 0.0569, 0.3404, 5e-5);
        // The formula written again in Python on the Wilson limits of statsmodels 0.15.0: phi negative, positive after
        // its continuity correction, and undefined.
        for (c, value, low, high) in [
            (counts(36, 12, 2, 0), 0.2, 0.0569295840032388, 0.3404276029749408),
            (counts(1, 1, 7, 12), -0.2857142857142857, -0.506920226686141, -0.025559124164859837),
            (counts(1700, 65, 80, 155), -0.0075, -0.01945201396831024, 0.0043830818146655594),
            (counts(53, 0, 1, 0), -0.018518518518518517, -0.09771437488781956, 0.04962166188940405),
        ] {
            check(paired(c, Level::P95), value, low, high, 1e-12);
        }
    }

    #[test]
    fn paired_counts_and_undefined_cases() {
        let counts = Paired::count([(true, true), (true, false), (false, true), (false, false), (true, false)]);
        assert_eq!(counts, Paired { both: 1, only_first: 2, only_second: 1, neither: 1 });
        assert_eq!(paired(Paired::default(), Level::P95), None);
        // All right twice: a difference of exactly 0 whose interval still has width.
        let same = paired(Paired { both: 54, ..Paired::default() }, Level::P95).unwrap();
        let i = same.interval.unwrap();
        assert!(same.value == 0.0 && i.low < -0.06 && i.high > 0.06, "{i:?}");
    }
}
