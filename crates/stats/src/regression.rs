//! Predicted numbers against true ones.

use crate::interval::mean::{mean, wald};
use crate::special::binomial_cdf;
use crate::{Estimate, Interval, Level, StatsError, Sum};

/// Errors of a regression, `predicted - actual`, with intervals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Regression {
    /// Mean absolute error, with Student's t interval. In units of the target.
    pub mean_absolute_error: Estimate,
    /// Root mean squared error. The interval is the root of Student's t interval of the mean square, clipped at 0.
    pub root_mean_squared_error: Estimate,
    /// Median absolute error, with the interval between order statistics, which holds for any distribution.
    pub median_absolute_error: Estimate,
    /// Mean error: positive where predictions are too large. With Student's t interval.
    pub bias: Estimate,
    /// Coefficient of determination, 1 minus mean square over variance of the target; at most 1, negative where the mean
    /// of the target predicts better. With the large-sample interval of the delta method, clipped at 1. `None` for a
    /// constant target.
    pub r_squared: Option<Estimate>,
}

/// Measures predictions against true values.
///
/// # Edge cases
/// No rows: `Ok(None)`. One row: no standard errors, no intervals.
///
/// # Errors
/// Lengths that differ, or a number that is not finite: leave such rows out, and report them.
///
/// # Source
/// Intervals of the median: David and Nagaraja 2003, Order Statistics, section 7.1. R²: the usual definition with the
/// mean of these rows, and the influence of a row on the ratio of two means (van der Vaart 1998, chapter 20).
pub fn regression(predicted: &[f64], actual: &[f64], level: Level) -> Result<Option<Regression>, StatsError> {
    StatsError::check_length("predictions", actual.len(), predicted.len())?;
    StatsError::check_finite("prediction", predicted)?;
    StatsError::check_finite("target", actual)?;
    let errors: Vec<f64> = predicted.iter().zip(actual).map(|(p, a)| p - a).collect();
    let absolute: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
    let squared: Vec<f64> = errors.iter().map(|e| e * e).collect();
    // A mean is absent without rows; squares of huge numbers may also overflow.
    StatsError::check_finite("squared error", &squared)?;
    let (Some(mean_absolute_error), Some(mean_square), Some(bias), Some(median_absolute_error)) =
        (mean(&absolute, level), mean(&squared, level), mean(&errors, level), median(&absolute, level))
    else {
        return Ok(None);
    };
    let root = mean_square.value.sqrt();
    let root_mean_squared_error = Estimate {
        value: root,
        n: mean_square.n,
        // The derivative of the root; undefined where the error is exactly 0.
        standard_error: mean_square.standard_error.filter(|_| root > 0.0).map(|e| e / (2.0 * root)),
        interval: mean_square.interval.map(|i| Interval { low: i.low.max(0.0).sqrt(), high: i.high.sqrt(), ..i }),
    };
    Ok(Some(Regression {
        mean_absolute_error,
        root_mean_squared_error,
        median_absolute_error,
        bias,
        r_squared: r_squared(&squared, actual, mean_square.value, level),
    }))
}

fn r_squared(squared: &[f64], actual: &[f64], mean_square: f64, level: Level) -> Option<Estimate> {
    let n = actual.len();
    let center = Sum::mean(actual)?;
    let spreads: Vec<f64> = actual.iter().map(|a| (a - center) * (a - center)).collect();
    let variance = Sum::mean(&spreads)?;
    // The mean of equal numbers may differ from them in the last bit, so the variance alone does not tell.
    let constant = actual.windows(2).all(|w| w[0] == w[1]);
    let value = 1.0 - mean_square / variance;
    if constant || !value.is_finite() {
        return None;
    }
    let influence = squared.iter().zip(&spreads).map(|(e, s)| (mean_square * s / variance - e) / variance);
    let standard_error = (n > 1).then(|| (Sum::of(influence.map(|i| i * i)) / (n - 1) as f64 / n as f64).sqrt());
    let interval = standard_error.map(|e| {
        let i = wald(value, e, level);
        Interval { high: i.high.min(1.0), method: "delta-method", ..i }
    });
    Some(Estimate { value, n: n as u64, standard_error, interval })
}

/// Median with the narrowest symmetric pair of order statistics that holds the level; `None` without values. No interval
/// where even smallest and largest do not hold it.
pub fn median(values: &[f64], level: Level) -> Option<Estimate> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let value = crate::descriptive::quantile_of_sorted(&sorted, 0.5)?;
    let n = sorted.len();
    // Largest k with P(Binomial(n, 1/2) < k) within the tail, by halving; the interval is from the k-th smallest to the
    // k-th largest.
    let fits = |k: usize| k == 0 || binomial_cdf(k as u64 - 1, n as u64, 0.5) <= level.tail();
    let (mut k, mut beyond) = (0, n.div_ceil(2) + 1);
    while beyond - k > 1 {
        let middle = (k + beyond) / 2;
        if fits(middle) { k = middle } else { beyond = middle }
    }
    let interval = (k > 0).then(|| Interval::new(sorted[k - 1], sorted[n - k], level, "order-statistics"));
    Some(Estimate { value, n: n as u64, standard_error: None, interval })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn four_rows_by_hand() {
        let r = regression(&[2.5, 0.0, 2.0, 8.0], &[3.0, -0.5, 2.0, 7.0], Level::P95).unwrap().unwrap();
        // The example of scikit-learn's documentation: MAE 0.5, MSE 0.375, R² 0.948..., median absolute error 0.5.
        assert_eq!((r.mean_absolute_error.value, r.median_absolute_error.value, r.bias.value), (0.5, 0.5, 0.25));
        assert!((r.root_mean_squared_error.value - 0.375f64.sqrt()).abs() < 1e-15);
        assert!((r.r_squared.unwrap().value - 0.9486081370449679).abs() < 1e-15);
        assert_eq!(r.median_absolute_error.interval, None);
        assert!(r.root_mean_squared_error.interval.unwrap().contains(0.375f64.sqrt()));
    }

    #[test]
    fn a_constant_target_has_no_r_squared() {
        let r = regression(&[0.1, 0.2, 0.3], &[0.1; 3], Level::P95).unwrap().unwrap();
        assert_eq!(r.r_squared, None);
        let one = regression(&[1.0], &[2.0], Level::P95).unwrap().unwrap();
        assert_eq!((one.bias.value, one.bias.interval, one.r_squared), (-1.0, None, None));
        assert_eq!(one.root_mean_squared_error.interval, None);
    }

    #[test]
    fn perfect_predictions_have_r_squared_1() {
        let r = regression(&[1.0, 2.0], &[1.0, 2.0], Level::P95).unwrap().unwrap();
        assert_eq!((r.r_squared.unwrap().value, r.root_mean_squared_error.value), (1.0, 0.0));
        assert_eq!(r.root_mean_squared_error.standard_error, None);
    }

    #[test]
    fn the_order_statistics_are_the_tabled_ones() {
        // For n = 20 at 0.95 the tables give the 6th smallest and the 6th largest; below n = 6 there is none.
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        let i = median(&values, Level::P95).unwrap().interval.unwrap();
        assert_eq!((i.low, i.high), (6.0, 15.0));
        let i = median(&values[..6], Level::P95).unwrap().interval.unwrap();
        assert_eq!((i.low, i.high), (1.0, 6.0));
        assert_eq!(median(&values[..5], Level::P95).unwrap().interval, None);
    }

    #[test]
    fn intervals_cover_the_truth_about_as_often_as_they_say() {
        // Target standard normal plus noise of standard deviation 0.5 around a perfect prediction: R² 0.8, RMSE 0.5, MAE
        // 0.5 sqrt(2/π), median absolute error 0.5 times 0.6745.
        let mut covered = [0; 5];
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let predicted: Vec<f64> = (0..200).map(|_| rng.normal()).collect();
            let actual: Vec<f64> = predicted.iter().map(|p| p + 0.5 * rng.normal()).collect();
            let r = regression(&predicted, &actual, Level::P95).unwrap().unwrap();
            let truths = [
                (r.mean_absolute_error, 0.5 * (2.0 / std::f64::consts::PI).sqrt()),
                (r.root_mean_squared_error, 0.5),
                (r.median_absolute_error, 0.5 * 0.674_489_750_196_082),
                (r.bias, 0.0),
                (r.r_squared.unwrap(), 0.8),
            ];
            for (count, (estimate, truth)) in covered.iter_mut().zip(truths) {
                *count += usize::from(estimate.interval.unwrap().contains(truth));
            }
        }
        assert!(covered.iter().all(|c| (180..=200).contains(c)), "{covered:?} of 200");
        assert!(covered.iter().any(|&c| c < 200), "{covered:?}: intervals far too wide");
    }

    #[test]
    fn standard_errors_are_those_of_resampling_rows() {
        let mut rng = Rng::new(77);
        let predicted: Vec<f64> = (0..400).map(|_| rng.normal()).collect();
        let actual: Vec<f64> = predicted.iter().map(|p| 3.0 + p + 0.7 * rng.normal()).collect();
        let measured = |rows: &[usize]| {
            let pick = |x: &[f64]| rows.iter().map(|&r| x[r]).collect::<Vec<_>>();
            regression(&pick(&predicted), &pick(&actual), Level::P95).unwrap()
        };
        let all = regression(&predicted, &actual, Level::P95).unwrap().unwrap();
        let options = crate::bootstrap::Options {
            resamples: 500,
            method: crate::bootstrap::Method::Percentile,
            ..Default::default()
        };
        type Pick = fn(&Regression) -> Option<Estimate>;
        let picks: [Pick; 4] =
            [|r| Some(r.mean_absolute_error), |r| Some(r.root_mean_squared_error), |r| Some(r.bias), |r| r.r_squared];
        for (index, pick) in picks.into_iter().enumerate() {
            let b = crate::bootstrap::bootstrap(400, &options, |rows| Some(pick(&measured(rows)?)?.value));
            let resampled = b.unwrap().unwrap().estimate.standard_error.unwrap();
            let ratio = pick(&all).unwrap().standard_error.unwrap() / resampled;
            assert!((ratio - 1.0).abs() < 0.12, "{index}: {ratio}");
        }
    }

    #[test]
    fn the_interval_of_r_squared_ends_at_1() {
        let r = regression(&[1.0, 2.0, 3.5], &[1.0, 2.0, 3.0], Level::P99).unwrap().unwrap().r_squared.unwrap();
        assert!(r.interval.unwrap().high == 1.0 && r.interval.unwrap().low < r.value);
    }

    #[test]
    fn a_small_root_mean_square_has_an_interval_from_0() {
        let r = regression(&[1.0, 2.0, 4.0], &[1.0, 2.0, 3.0], Level::P95).unwrap().unwrap();
        assert_eq!(r.root_mean_squared_error.interval.unwrap().low, 0.0);
    }

    #[test]
    fn wrong_input() {
        assert_eq!(regression(&[], &[], Level::P95).unwrap(), None);
        assert!(regression(&[1.0], &[], Level::P95).is_err());
        assert!(matches!(
            regression(&[1.0, f64::NAN], &[1.0, 2.0], Level::P95),
            Err(StatsError::NotFinite { what: "prediction", row: 1, .. })
        ));
        assert!(regression(&[1.0], &[f64::INFINITY], Level::P95).is_err());
        assert!(regression(&[1e200], &[-1e200], Level::P95).is_err());
    }
}
