//! Tests of hypotheses.

use crate::rng::Rng;
use crate::special::{binomial_cdf, binomial_pmf, normal_cdf};
use crate::{StatsError, Sum};

/// p-values of McNemar's test: do two classifiers err equally often on the same rows? Two-sided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct McNemar {
    /// Exact conditional test: never above its level, and conservative.
    pub exact: f64,
    /// Mid-p version: close to its level; the one that the source recommends.
    pub mid_p: f64,
}

/// McNemar's test from the rows where exactly one of two classifiers is right.
///
/// # Edge cases
/// No such rows: both p-values are 1, since nothing speaks for a difference.
///
/// # Source
/// Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91.
pub fn mcnemar(only_first: u64, only_second: u64) -> McNemar {
    let (fewer, n) = (only_first.min(only_second), only_first.saturating_add(only_second));
    if n == 0 {
        return McNemar { exact: 1.0, mid_p: 1.0 };
    }
    let point = binomial_pmf(fewer, n, 0.5);
    if only_first == only_second {
        return McNemar { exact: 1.0, mid_p: 1.0 - 0.5 * point };
    }
    let exact = (2.0 * binomial_cdf(fewer, n, 0.5)).min(1.0);
    McNemar { exact, mid_p: (exact - point).max(0.0) }
}

/// A statistic and its two-sided p-value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Test {
    /// The statistic.
    pub statistic: f64,
    /// Chance of one at least as extreme without an effect.
    pub p_value: f64,
}

/// Two-sided z test of equal proportions in two independent samples, `(successes, n)` each, with pooled variance.
///
/// # Edge cases
/// An empty sample, more successes than rows, or all outcomes equal: `None`.
///
/// # Source
/// Fleiss, Levin and Paik 2003, Statistical Methods for Rates and Proportions, section 3.2, without continuity
/// correction. Rough for expected counts below 5.
pub fn two_proportion_z(first: (u64, u64), second: (u64, u64)) -> Option<Test> {
    let ((k1, n1), (k2, n2)) = (first, second);
    if n1 == 0 || n2 == 0 || k1 > n1 || k2 > n2 {
        return None;
    }
    let [k1, n1, k2, n2] = [k1, n1, k2, n2].map(|c| c as f64);
    let pooled = (k1 + k2) / (n1 + n2);
    let variance = pooled * (1.0 - pooled) * (1.0 / n1 + 1.0 / n2);
    (variance > 0.0).then(|| {
        let statistic = (k1 / n1 - k2 / n2) / variance.sqrt();
        Test { statistic, p_value: 2.0 * normal_cdf(-statistic.abs()) }
    })
}

/// Which statistics count as extreme.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Alternative {
    /// Large absolute values; for statistics that are 0 without an effect.
    #[default]
    TwoSided,
    /// Large values.
    Greater,
    /// Small values.
    Less,
}

impl Alternative {
    /// Whether a value is at least as extreme as the observed one, or lacks no more than `slack`: sums of the same terms
    /// in another order differ by rounding, which must not decide.
    fn reaches(self, value: f64, observed: f64, slack: f64) -> bool {
        match self {
            Self::TwoSided => value.abs() >= observed.abs() - slack,
            Self::Greater => value >= observed - slack,
            Self::Less => value <= observed + slack,
        }
    }
}

/// Permutation test of two samples: rows `0..first` against rows `first..rows`, exchanged at random `resamples` times.
///
/// `statistic` gets the row numbers of both samples and answers `None` where it is undefined.
///
/// # Edge cases
/// A sample is empty, or the statistic is undefined on the samples as given or on any exchange: `Ok(None)`.
///
/// # Errors
/// No resamples, or more rows in the first sample than there are.
///
/// # Source
/// Fisher 1935; the p-value `(reached + 1) / (resamples + 1)`, which is never 0: Phipson and Smyth 2010, Statistical
/// Applications in Genetics and Molecular Biology 9(1).
pub fn permutation_test(
    first: usize,
    rows: usize,
    resamples: usize,
    seed: u64,
    alternative: Alternative,
    mut statistic: impl FnMut(&[usize], &[usize]) -> Option<f64>,
) -> Result<Option<Test>, StatsError> {
    StatsError::check_positive("resamples", resamples)?;
    if first > rows {
        let allowed = "at most the number of all rows";
        return Err(StatsError::Parameter { name: "rows of the first sample", value: first as f64, allowed });
    }
    if first == 0 || first == rows {
        return Ok(None);
    }
    let mut order: Vec<usize> = (0..rows).collect();
    let mut of = |order: &[usize]| {
        let (one, two) = order.split_at(first);
        statistic(one, two).filter(|v| !v.is_nan())
    };
    let Some(observed) = of(&order) else { return Ok(None) };
    let mut reached = 0;
    for resample in 0..resamples {
        // Each exchange starts from the given order, so it depends on its own stream only.
        order.iter_mut().enumerate().for_each(|(i, row)| *row = i);
        Rng::stream(seed, resample as u64 + 1).shuffle(&mut order);
        let Some(value) = of(&order) else { return Ok(None) };
        reached += usize::from(alternative.reaches(value, observed, 1e-12 * observed.abs()));
    }
    Ok(Some(Test { statistic: observed, p_value: (reached + 1) as f64 / (resamples + 1) as f64 }))
}

/// Paired permutation test that the mean of differences is 0: signs are flipped at random `resamples` times.
///
/// # Edge cases
/// No differences: `Ok(None)`. All 0: p-value 1.
///
/// # Errors
/// No resamples, or a difference that is not finite.
///
/// # Source
/// Fisher 1935, The Design of Experiments, section 21; p-value as in [`permutation_test`].
pub fn sign_flip_test(
    differences: &[f64],
    resamples: usize,
    seed: u64,
    alternative: Alternative,
) -> Result<Option<Test>, StatsError> {
    StatsError::check_positive("resamples", resamples)?;
    StatsError::check_finite("difference", differences)?;
    let Some(observed) = Sum::mean(differences) else { return Ok(None) };
    let n = differences.len() as f64;
    let scale = Sum::of(differences.iter().map(|d| d.abs())) / n;
    let mut reached = 0;
    for resample in 0..resamples {
        let mut rng = Rng::stream(seed, resample as u64 + 1);
        let (mut bits, mut left) = (0u64, 0);
        let mean = Sum::of(differences.iter().map(|&d| {
            if left == 0 {
                (bits, left) = (rng.next_u64(), 64);
            }
            let flip = bits & 1 == 1;
            (bits, left) = (bits >> 1, left - 1);
            if flip { -d } else { d }
        })) / n;
        reached += usize::from(alternative.reaches(mean, observed, 1e-13 * scale));
    }
    Ok(Some(Test { statistic: observed, p_value: (reached + 1) as f64 / (resamples + 1) as f64 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mcnemar_gives_the_published_example() {
        // Fagerland et al. 2013, airway hyper-responsiveness: 1 and 7 discordant pairs.
        let m = mcnemar(1, 7);
        assert!((m.exact - 18.0 / 256.0).abs() < 1e-15 && (m.mid_p - 10.0 / 256.0).abs() < 1e-15);
        assert_eq!(mcnemar(7, 1), m);
        assert_eq!(mcnemar(0, 0), McNemar { exact: 1.0, mid_p: 1.0 });
        // Equal counts: 1 - C(4, 2) / 2^4 / 2.
        let equal = mcnemar(2, 2);
        assert!(equal.exact == 1.0 && (equal.mid_p - (1.0 - 0.1875)).abs() < 1e-15);
        let none = mcnemar(0, 3);
        assert!((none.exact - 0.25).abs() < 1e-15 && (none.mid_p - 0.125).abs() < 1e-15);
    }

    #[test]
    fn mcnemar_of_large_counts_is_the_normal_test() {
        let m = mcnemar(50_000, 50_700);
        let z = (700.0f64 / 100_700f64.sqrt()).abs();
        assert!((m.mid_p / (2.0 * normal_cdf(-z)) - 1.0).abs() < 1e-3, "{m:?}");
    }

    #[test]
    fn two_proportions() {
        // statsmodels 0.15.0, proportions_ztest([45, 30], [100, 100]).
        let t = two_proportion_z((45, 100), (30, 100)).unwrap();
        assert!((t.statistic - 2.1908902300206647).abs() < 1e-12, "{t:?}");
        assert!((t.p_value - 0.02845973691631055).abs() < 1e-12, "{t:?}");
        let swapped = two_proportion_z((30, 100), (45, 100)).unwrap();
        assert_eq!((swapped.statistic, swapped.p_value), (-t.statistic, t.p_value));
        for (a, b) in [((0, 0), (1, 2)), ((3, 2), (1, 2)), ((0, 5), (0, 7)), ((5, 5), (7, 7))] {
            assert_eq!(two_proportion_z(a, b), None);
        }
    }

    fn mean_difference(x: &[f64]) -> impl Fn(&[usize], &[usize]) -> Option<f64> {
        move |a, b| {
            let mean = |rows: &[usize]| rows.iter().map(|&r| x[r]).sum::<f64>() / rows.len() as f64;
            Some(mean(a) - mean(b))
        }
    }

    #[test]
    fn permutations_approach_the_exact_p_value() {
        // 3 against 3: the given split is the most extreme of 20, so one-sided 1/20 and two-sided 2/20.
        let x = [4.0, 5.0, 6.0, 1.0, 2.0, 3.0];
        let p =
            |alternative| permutation_test(3, 6, 20_000, 3, alternative, mean_difference(&x)).unwrap().unwrap().p_value;
        assert!((p(Alternative::Greater) - 0.05).abs() < 0.006);
        assert!((p(Alternative::TwoSided) - 0.10).abs() < 0.008);
        assert_eq!(p(Alternative::Less), 1.0);
        assert_eq!(p(Alternative::TwoSided), p(Alternative::TwoSided));
    }

    #[test]
    fn permutation_tests_keep_their_level() {
        let rejected = (0..300)
            .filter(|&seed| {
                let mut rng = Rng::new(1000 + seed);
                let x: Vec<f64> = (0..30).map(|_| rng.normal()).collect();
                let t = permutation_test(12, 30, 99, seed, Alternative::TwoSided, mean_difference(&x));
                t.unwrap().unwrap().p_value <= 0.05
            })
            .count();
        assert!((4..=30).contains(&rejected), "{rejected} of 300");
    }

    #[test]
    fn sign_flips_approach_the_exact_p_value() {
        // All positive: only the given signs and their mirror image reach it, 2 of 2^6.
        let t = sign_flip_test(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 50_000, 5, Alternative::TwoSided).unwrap().unwrap();
        assert!((t.p_value - 2.0 / 64.0).abs() < 0.003 && (t.statistic - 0.35).abs() < 1e-15, "{t:?}");
        let one = sign_flip_test(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 50_000, 5, Alternative::Greater).unwrap().unwrap();
        assert!((one.p_value - 1.0 / 64.0).abs() < 0.003, "{one:?}");
        // 0.1 + 0.2 - 0.3 is 0 but for rounding: five of the eight sums are 0 or more.
        let zero = sign_flip_test(&[0.1, 0.2, -0.3], 50_000, 5, Alternative::Greater).unwrap().unwrap();
        assert!((zero.p_value - 0.625).abs() < 0.01, "{zero:?}");
        assert_eq!(sign_flip_test(&[0.0; 3], 10, 0, Alternative::TwoSided).unwrap().unwrap().p_value, 1.0);
    }

    #[test]
    fn undefined_and_wrong_tests() {
        let never = |_: &[usize], _: &[usize]| None;
        assert_eq!(permutation_test(1, 2, 5, 0, Alternative::TwoSided, never).unwrap(), None);
        assert_eq!(permutation_test(0, 2, 5, 0, Alternative::TwoSided, |_, _| Some(1.0)).unwrap(), None);
        assert!(permutation_test(3, 2, 5, 0, Alternative::TwoSided, |_, _| Some(1.0)).is_err());
        assert!(permutation_test(1, 2, 0, 0, Alternative::TwoSided, |_, _| Some(1.0)).is_err());
        assert_eq!(sign_flip_test(&[], 5, 0, Alternative::Less).unwrap(), None);
        assert!(sign_flip_test(&[f64::NAN], 5, 0, Alternative::Less).is_err());
        assert!(sign_flip_test(&[1.0], 0, 0, Alternative::Less).is_err());
    }
}
