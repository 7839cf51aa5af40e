use super::{Binning, Confidences, quantile_of};
use crate::bootstrap::{self, Bootstrap, bootstrap};
use crate::descriptive::Moments;
use crate::rng::Rng;
use crate::{Level, StatsError, Sum};

/// The expected calibration error that was measured, and what it would be for a calibrated network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Consistency {
    /// Measured expected calibration error.
    pub observed: f64,
    /// Mean error of a perfectly calibrated network with the same confidences: the bias of the measurement.
    pub expected: f64,
    /// Standard deviation of that error; `None` for a single resample.
    pub standard_deviation: Option<f64>,
    /// Quantile of that error at the given level; a measured error above it is more than noise.
    pub limit: f64,
    /// Chance that a calibrated network shows the measured error or a larger one.
    pub p_value: f64,
    /// Resamples drawn.
    pub resamples: usize,
}

/// How large the expected calibration error would be if every confidence were true: outcomes are drawn anew from the
/// confidences, `resamples` times, and binned as before. `Ok(None)` without rows.
///
/// # Errors
/// No resamples or no bins.
///
/// # Source
/// Bröcker and Smith 2007, Weather and Forecasting 22(3) (consistency resampling); Vaicenavicius et al., AISTATS 2019,
/// section 5. The p-value counts the measurement itself among the draws: Phipson and Smyth 2010.
pub fn consistency(
    rows: &Confidences,
    binning: Binning,
    resamples: usize,
    seed: u64,
    level: Level,
) -> Result<Option<Consistency>, StatsError> {
    StatsError::check_positive("resamples", resamples)?;
    let mut gaps = Gaps::new(rows, binning)?;
    if rows.is_empty() {
        return Ok(None);
    }
    let n = rows.len() as f64;
    let observed = gaps.error(rows.correct.iter().copied().enumerate(), n);
    let draws: Vec<f64> = (0..resamples)
        .map(|resample| {
            let mut rng = Rng::stream(seed, resample as u64 + 1);
            gaps.error(rows.confidence.iter().map(|&c| rng.unit() < c).enumerate(), n)
        })
        .collect();
    // Two sums of the same terms in another order differ in the last bits only.
    let reached = draws.iter().filter(|&&d| d >= observed - 1e-12).count();
    let moments = Moments::of(draws.iter().copied());
    let limit = quantile_of(draws, level.get());
    Ok(moments.mean().zip(limit).map(|(expected, limit)| Consistency {
        observed,
        expected,
        standard_deviation: moments.standard_deviation(),
        limit,
        p_value: (reached + 1) as f64 / (resamples + 1) as f64,
        resamples,
    }))
}

/// Bootstrap interval of the expected calibration error. Bins stay those of all rows. `Ok(None)` without rows.
///
/// Replicates carry the upward bias of the error twice; [`bootstrap::Method::Basic`] turns it round, and is the one to
/// use here. The interval is clipped at 0 and 1.
///
/// # Errors
/// No resamples or no bins.
pub fn bootstrap_error(
    rows: &Confidences,
    binning: Binning,
    options: &bootstrap::Options,
) -> Result<Option<Bootstrap>, StatsError> {
    let mut gaps = Gaps::new(rows, binning)?;
    let result = bootstrap(rows.len(), options, |sample| {
        Some(gaps.error(sample.iter().map(|&row| (row, rows.correct[row])), sample.len() as f64))
    })?;
    Ok(result.map(|mut b| {
        b.estimate.interval = b.estimate.interval.map(|i| i.clamp(0.0, 1.0));
        b
    }))
}

/// Bins fixed once, so that thousands of resamples need one pass each.
struct Gaps<'a> {
    confidence: &'a [f64],
    assigned: Vec<usize>,
    sums: Vec<f64>,
}

impl<'a> Gaps<'a> {
    fn new(rows: &'a Confidences, binning: Binning) -> Result<Self, StatsError> {
        Ok(Self {
            confidence: &rows.confidence,
            assigned: binning.assign(&rows.confidence)?,
            sums: vec![0.0; binning.bins()?],
        })
    }

    /// Expected calibration error of `n` rows with their outcomes.
    fn error(&mut self, rows: impl Iterator<Item = (usize, bool)>, n: f64) -> f64 {
        self.sums.fill(0.0);
        for (row, correct) in rows {
            self.sums[self.assigned[row]] += self.confidence[row] - f64::from(u8::from(correct));
        }
        Sum::of(self.sums.iter().map(|s| s.abs())) / n
    }
}

#[cfg(test)]
mod tests {
    use super::super::Reliability;
    use super::*;
    use crate::bootstrap::{Method, Options};

    fn drawn(n: usize, seed: u64, accuracy_at: impl Fn(f64) -> f64) -> Confidences {
        let mut rng = Rng::new(seed);
        let confidence: Vec<f64> = (0..n).map(|_| 0.3 + 0.7 * rng.unit()).collect();
        let correct = confidence.iter().map(|&c| rng.unit() < accuracy_at(c)).collect();
        Confidences::new(confidence, correct).unwrap()
    }

    #[test]
    fn one_bin_has_the_error_of_a_binomial_mean() {
        // Equal confidences c in one bin: the error is |X/n - c|, whose mean is about sqrt(2 c (1 - c) / (π n)).
        let rows = Confidences::new(vec![0.8; 500], vec![true; 500]).unwrap();
        let c = consistency(&rows, Binning::EqualWidth(1), 4000, 1, Level::P95).unwrap().unwrap();
        let (mean, limit) = ((2.0 * 0.16 / std::f64::consts::PI / 500.0).sqrt(), 1.96 * (0.16f64 / 500.0).sqrt());
        assert!((c.observed - 0.2).abs() < 1e-12);
        assert!((c.expected / mean - 1.0).abs() < 0.05, "{c:?} {mean}");
        assert!((c.limit / limit - 1.0).abs() < 0.06, "{c:?} {limit}");
        assert!((c.p_value - 1.0 / 4001.0).abs() < 1e-15);
    }

    #[test]
    fn calibrated_networks_are_rarely_flagged_and_overconfident_ones_are() {
        let flagged = (0..200)
            .filter(|&seed| {
                let c = consistency(&drawn(400, seed, |c| c), Binning::GUO, 99, seed, Level::P95);
                c.unwrap().unwrap().p_value <= 0.05
            })
            .count();
        assert!((2..=22).contains(&flagged), "{flagged} of 200");
        let over = consistency(&drawn(400, 1, |c| c - 0.15), Binning::GUO, 99, 1, Level::P95).unwrap().unwrap();
        assert!(over.p_value <= 0.01 && over.observed > over.limit, "{over:?}");
    }

    #[test]
    fn observed_is_the_error_of_the_diagram() {
        for binning in [Binning::GUO, Binning::EqualMass(10)] {
            let rows = drawn(300, 9, |c| c * c);
            let c = consistency(&rows, binning, 5, 0, Level::P95).unwrap().unwrap();
            let d = Reliability::new(&rows, binning, Level::P95).unwrap();
            assert!((c.observed - d.expected_error().unwrap()).abs() < 1e-14);
            assert_eq!(Some(c), consistency(&rows, binning, 5, 0, Level::P95).unwrap());
        }
    }

    #[test]
    fn bootstrap_intervals_cover_the_error_of_an_overconfident_network() {
        // The true error of accuracy = confidence - 0.1 is 0.1.
        let options = Options { resamples: 300, method: Method::Basic, ..Options::default() };
        let covered = (0..40)
            .filter(|&seed| {
                let rows = drawn(1000, 100 + seed, |c| c - 0.1);
                let b = bootstrap_error(&rows, Binning::GUO, &options).unwrap().unwrap();
                b.estimate.interval.unwrap().contains(0.1)
            })
            .count();
        assert!(covered >= 33, "{covered} of 40");
    }

    #[test]
    fn no_rows_and_no_resamples() {
        let none = Confidences::new(vec![], vec![]).unwrap();
        assert_eq!(consistency(&none, Binning::GUO, 10, 0, Level::P95).unwrap(), None);
        assert_eq!(bootstrap_error(&none, Binning::GUO, &Options::default()).unwrap(), None);
        assert!(consistency(&none, Binning::GUO, 0, 0, Level::P95).is_err());
        assert!(consistency(&none, Binning::EqualWidth(0), 1, 0, Level::P95).is_err());
    }
}
