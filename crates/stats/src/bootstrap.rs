//! Intervals by resampling rows, for any statistic.
//!
//! Efron and Tibshirani, An Introduction to the Bootstrap, 1993. Every resample has its own random stream, so a result
//! is a function of the seed only.

use crate::descriptive::{Moments, quantile_of_sorted};
use crate::rng::Rng;
use crate::special::{normal_cdf, normal_quantile};
use crate::{Estimate, Interval, Level, StatsError, Sum};

/// How replicates become an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Method {
    /// Quantiles of the replicates. Efron 1979.
    Percentile,
    /// Quantiles reflected at the estimate, which turns a bias of the replicates round. Davison and Hinkley 1997,
    /// equation 5.6.
    Basic,
    /// Bias-corrected and accelerated: second-order accurate. Efron 1987, JASA 82, 171–185.
    #[default]
    Bca,
}

impl Method {
    /// Name as in [`Interval::method`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Percentile => "bootstrap-percentile",
            Self::Basic => "bootstrap-basic",
            Self::Bca => "bootstrap-bca",
        }
    }
}

/// Options of the bootstrap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Number of resamples, at least 1; 2,000 give interval ends that move little between seeds.
    pub resamples: usize,
    /// Seed of every draw.
    pub seed: u64,
    /// Confidence level.
    pub level: Level,
    /// How replicates become an interval.
    pub method: Method,
}

impl Default for Options {
    fn default() -> Self {
        Self { resamples: 2000, seed: 0, level: Level::P95, method: Method::Bca }
    }
}

/// What the bootstrap found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// The statistic on all rows, its standard error over the replicates and its interval.
    pub estimate: Estimate,
    /// Mean of the replicates minus the statistic on all rows.
    pub bias: Option<f64>,
    /// Resamples on which the statistic was defined.
    pub defined: usize,
    /// Resamples on which it was not (such as recall without a row of the class); left out.
    pub undefined: usize,
}

/// Beyond this many rows the acceleration is taken from this many groups of rows instead of single rows.
const JACKKNIFE_GROUPS: usize = 1000;

/// Bootstraps a statistic of rows `0..rows`.
///
/// `statistic` gets row numbers, with repetitions in a resample, and answers `None` where it is undefined (a value that
/// is not finite counts as undefined too). It must not depend on their order.
///
/// # Edge cases
/// No rows, or undefined on all rows: `Ok(None)`. The interval is `None` where fewer than nine in ten resamples define
/// the statistic, and for [`Method::Bca`] where the estimate lies outside all replicates or the jackknife is undefined.
///
/// # Errors
/// No resamples.
///
/// # Source
/// BCa: Efron and Tibshirani 1993, equations 14.9, 14.10, 14.14 and 14.15. With more than 1,000 rows the acceleration is
/// from a jackknife that leaves out one of 1,000 groups (row i is in group i modulo 1,000) at a time.
pub fn bootstrap(
    rows: usize,
    options: &Options,
    mut statistic: impl FnMut(&[usize]) -> Option<f64>,
) -> Result<Option<Bootstrap>, StatsError> {
    StatsError::check_positive("resamples", options.resamples)?;
    let mut sample: Vec<usize> = (0..rows).collect();
    let mut defined = |rows: &[usize]| statistic(rows).filter(|v| v.is_finite());
    let Some(value) = defined(&sample).filter(|_| rows > 0) else { return Ok(None) };

    let mut replicates = Vec::with_capacity(options.resamples);
    for resample in 0..options.resamples {
        let mut rng = Rng::stream(options.seed, resample as u64 + 1);
        sample.iter_mut().for_each(|row| *row = rng.below(rows));
        replicates.extend(defined(&sample));
    }
    let undefined = options.resamples - replicates.len();
    let enough = undefined * 10 <= options.resamples;
    let acceleration = match options.method {
        Method::Bca if enough => jackknife_acceleration(rows, defined),
        _ => Some(0.0),
    };
    let moments = Moments::of(replicates.iter().copied());
    let interval = acceleration
        .filter(|_| enough)
        .and_then(|a| interval_of_replicates(value, &replicates, a, options.method, options.level));
    Ok(Some(Bootstrap {
        estimate: Estimate { value, n: rows as u64, standard_error: moments.standard_deviation(), interval },
        bias: moments.mean().map(|m| m - value),
        defined: replicates.len(),
        undefined,
    }))
}

/// The interval that replicates of a statistic give. `acceleration` is used by [`Method::Bca`] only.
///
/// # Edge cases
/// No replicates, one that is not a number, or (BCa) an estimate outside all of them: `None`.
pub fn interval_of_replicates(
    estimate: f64,
    replicates: &[f64],
    acceleration: f64,
    method: Method,
    level: Level,
) -> Option<Interval> {
    let mut sorted = replicates.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let tail = level.tail();
    let (low, high) = match method {
        Method::Percentile => (quantile_of_sorted(&sorted, tail)?, quantile_of_sorted(&sorted, 1.0 - tail)?),
        Method::Basic => {
            let (q, r) = (quantile_of_sorted(&sorted, tail)?, quantile_of_sorted(&sorted, 1.0 - tail)?);
            (2.0 * estimate - r, 2.0 * estimate - q)
        }
        Method::Bca => {
            // Replicates that equal the estimate count half, or a discrete statistic would look biased.
            let below = sorted.partition_point(|&v| v < estimate) as f64;
            let up_to = sorted.partition_point(|&v| v <= estimate) as f64;
            let bias = normal_quantile(0.5 * (below + up_to) / sorted.len().max(1) as f64);
            if !bias.is_finite() {
                return None;
            }
            let adjusted = |z: f64| {
                let shifted = bias + z;
                normal_cdf(bias + shifted / (1.0 - acceleration * shifted))
            };
            let z = level.z();
            (quantile_of_sorted(&sorted, adjusted(-z))?, quantile_of_sorted(&sorted, adjusted(z))?)
        }
    };
    Some(Interval::new(low, high, level, method.name()))
}

/// Acceleration from the skewness of leave-one-out (or leave-one-group-out) values; 0 where they are all equal.
fn jackknife_acceleration(rows: usize, mut statistic: impl FnMut(&[usize]) -> Option<f64>) -> Option<f64> {
    if rows < 2 {
        return None;
    }
    let groups = rows.min(JACKKNIFE_GROUPS);
    let mut kept = Vec::with_capacity(rows);
    let mut values = Vec::with_capacity(groups);
    for group in 0..groups {
        kept.clear();
        kept.extend((0..rows).filter(|row| row % groups != group));
        values.push(statistic(&kept)?);
    }
    let mean = Sum::mean(&values)?;
    let power = |k| Sum::of(values.iter().map(|v| (mean - v).powi(k)));
    let squares = power(2);
    Some(if squares > 0.0 { power(3) / (6.0 * squares.powf(1.5)) } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_of(x: &[f64]) -> impl Fn(&[usize]) -> Option<f64> {
        move |rows| (!rows.is_empty()).then(|| rows.iter().map(|&r| x[r]).sum::<f64>() / rows.len() as f64)
    }

    #[test]
    fn the_interval_of_a_mean_is_the_normal_one_in_large_samples() {
        let mut rng = Rng::new(21);
        let x: Vec<f64> = (0..2000).map(|_| rng.normal()).collect();
        let normal = crate::interval::mean::mean(&x, Level::P95).unwrap().interval.unwrap();
        let width = normal.high - normal.low;
        for method in [Method::Percentile, Method::Basic, Method::Bca] {
            let options = Options { resamples: 2000, method, ..Options::default() };
            let i = bootstrap(x.len(), &options, mean_of(&x)).unwrap().unwrap().estimate.interval.unwrap();
            assert!((i.low - normal.low).abs() < 0.06 * width && (i.high - normal.high).abs() < 0.06 * width, "{i:?}");
            assert_eq!(i.method, method.name());
        }
    }

    #[test]
    fn seeds_decide_and_nothing_else() {
        let x: Vec<f64> = (0..50).map(|i| f64::from(i * 7 % 31)).collect();
        let run = |seed| {
            bootstrap(50, &Options { resamples: 200, seed, ..Options::default() }, mean_of(&x)).unwrap().unwrap()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1).estimate.interval, run(2).estimate.interval);
    }

    #[test]
    fn percentile_and_basic_mirror_each_other() {
        let replicates: Vec<f64> = (0..=1000).map(|i| f64::from(i) / 100.0).collect();
        let p = interval_of_replicates(4.0, &replicates, 0.0, Method::Percentile, Level::P90).unwrap();
        let b = interval_of_replicates(4.0, &replicates, 0.0, Method::Basic, Level::P90).unwrap();
        assert!((p.low - 0.5).abs() < 1e-12 && (p.high - 9.5).abs() < 1e-12);
        assert!((b.low - -1.5).abs() < 1e-12 && (b.high - 7.5).abs() < 1e-12);
    }

    #[test]
    fn undefined_statistics() {
        let options = Options { resamples: 100, method: Method::Percentile, ..Options::default() };
        assert_eq!(bootstrap(0, &options, |_| Some(1.0)).unwrap(), None);
        assert_eq!(bootstrap(5, &options, |_| None).unwrap(), None);
        assert_eq!(bootstrap(5, &options, |_| Some(f64::NAN)).unwrap(), None);
        // Defined only with row 0, which a resample of two rows misses with probability 1/4.
        let rare = bootstrap(2, &options, |r| r.contains(&0).then_some(1.0)).unwrap().unwrap();
        assert!(rare.undefined > 10 && rare.defined + rare.undefined == 100 && rare.estimate.interval.is_none());
        assert!(bootstrap(5, &Options { resamples: 0, ..options }, |_| Some(1.0)).is_err());
    }

    #[test]
    fn one_row_has_no_bca_interval_and_the_statistic_never_sees_no_rows() {
        let options = Options { resamples: 10, ..Options::default() };
        let b = bootstrap(1, &options, |rows| Some(rows[0] as f64)).unwrap().unwrap();
        assert_eq!((b.estimate.value, b.estimate.interval), (0.0, None));
    }

    #[test]
    fn leaving_out_groups_gives_about_the_acceleration_of_leaving_out_rows() {
        let mut rng = Rng::new(8);
        let x: Vec<f64> = (0..3500).map(|_| rng.normal().exp()).collect();
        let grouped = jackknife_acceleration(x.len(), mean_of(&x)).unwrap();
        // For a mean: skewness / (6 sqrt(n)).
        let mean = x.iter().sum::<f64>() / 3500.0;
        let power = |k| x.iter().map(|v| (v - mean).powi(k)).sum::<f64>() / 3500.0;
        let exact = power(3) / power(2).powf(1.5) / (6.0 * 3500f64.sqrt());
        assert!((grouped / exact - 1.0).abs() < 0.15, "{grouped} {exact}");
    }

    #[test]
    fn a_constant_statistic_has_an_interval_of_width_0() {
        let b = bootstrap(5, &Options { resamples: 50, ..Options::default() }, |_| Some(2.0)).unwrap().unwrap();
        let i = b.estimate.interval.unwrap();
        assert_eq!((i.low, i.high, b.bias, b.estimate.standard_error), (2.0, 2.0, Some(0.0), Some(0.0)));
    }

    #[test]
    fn an_estimate_outside_its_replicates_has_no_bca_interval() {
        assert_eq!(interval_of_replicates(5.0, &[1.0, 2.0], 0.0, Method::Bca, Level::P95), None);
        assert_eq!(interval_of_replicates(5.0, &[], 0.0, Method::Bca, Level::P95), None);
    }
}
