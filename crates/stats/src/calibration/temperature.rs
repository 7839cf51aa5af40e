use crate::interval::mean::wald;
use crate::probability::check_rows;
use crate::{Interval, Level, StatsError, Sum};

/// Smallest temperature that is tried.
const LOWEST: f64 = 1e-3;
/// Largest temperature that is tried.
const HIGHEST: f64 = 1e3;

/// How the search for a temperature ended. Only [`Status::Converged`] is a temperature to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The minimum was found.
    Converged,
    /// The loss still falls at the smallest temperature, 0.001: every row is right (perfectly separable), so no finite
    /// sharpening is best.
    AtLowest,
    /// The loss still falls at the largest temperature, 1000: the logits carry no information on the labels, or point
    /// away from them.
    AtHighest,
    /// Every row has equal logits, so that no temperature changes anything; it stays 1.
    Flat,
    /// The limit of iterations was reached.
    OutOfIterations,
}

/// The temperature that minimises the log loss of `softmax(logits / temperature)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// The temperature; above 1 for an overconfident network.
    pub temperature: f64,
    /// Mean log loss at temperature 1, in nats.
    pub log_loss_before: f64,
    /// Mean log loss at `temperature`, in nats.
    pub log_loss_after: f64,
    /// Standard error of the logarithm of the temperature, from the sandwich estimator, which does not assume that any
    /// temperature makes the network calibrated; `None` unless converged.
    pub log_standard_error: Option<f64>,
    /// Steps taken.
    pub iterations: usize,
    /// How the search ended.
    pub status: Status,
    /// Rows.
    pub n: u64,
}

impl Temperature {
    /// Interval of the temperature, symmetric in its logarithm; `None` unless converged.
    pub fn interval(&self, level: Level) -> Option<Interval> {
        let log = wald(self.temperature.ln(), self.log_standard_error?, level);
        let interval = Interval { low: log.low.exp(), high: log.high.exp(), method: "delta-method", ..log };
        interval.high.is_finite().then_some(interval)
    }
}

/// Fits one temperature to logits.
///
/// The loss is convex in the inverse temperature, so Newton's method within a bracket finds its minimum. A network with
/// one logit per row is given as two classes with logits 0 and that one.
///
/// # Shapes
/// logits: `[rows, classes]`; labels: `[rows]`
///
/// # Edge cases
/// No rows: `Ok(None)`. No minimum between 0.001 and 1000: that bound, and the [`Status`] says so.
///
/// # Errors
/// Lengths that do not fit, a label beyond the classes, or a logit that is not finite.
///
/// # Source
/// Guo, Pleiss, Sun and Weinberger, ICML 2017, arXiv:1706.04599, section 4.2. Standard error: White 1982, Econometrica
/// 50(1).
pub fn fit_temperature<T: Copy + Into<f64>>(
    logits: &[T],
    classes: usize,
    labels: &[usize],
) -> Result<Option<Temperature>, StatsError> {
    check_rows("logits", logits.len(), classes, labels)?;
    if let Some(at) = logits.iter().position(|&v| !v.into().is_finite()) {
        return Err(StatsError::NotFinite { what: "logit", row: at / classes, value: logits[at].into() });
    }
    if labels.is_empty() {
        return Ok(None);
    }
    let loss = Loss { logits, classes, labels };
    let start = loss.at(1.0);
    let n = labels.len() as u64;
    let ended = |inverse: f64, iterations, status| {
        let end = if inverse == 1.0 { start } else { loss.at(inverse) };
        // Standard error of the inverse temperature; relative to it, that of its logarithm.
        let error = (end.squared_slopes / n as f64).sqrt() / (end.curvature * inverse);
        Temperature {
            temperature: 1.0 / inverse,
            log_loss_before: start.value,
            log_loss_after: end.value,
            log_standard_error: (status == Status::Converged && error.is_finite()).then_some(error),
            iterations,
            status,
            n,
        }
    };
    if loss.is_flat() {
        return Ok(Some(ended(1.0, 0, Status::Flat)));
    }
    // The slope rises with the inverse temperature; its sign at both bounds says whether it crosses 0 between them.
    let (mut low, mut high) = (1.0 / HIGHEST, 1.0 / LOWEST);
    if loss.at(high).slope <= 0.0 {
        return Ok(Some(ended(high, 0, Status::AtLowest)));
    }
    if loss.at(low).slope >= 0.0 {
        return Ok(Some(ended(low, 0, Status::AtHighest)));
    }
    let (mut inverse, mut point) = (1.0, start);
    for iteration in 1..=200 {
        if point.slope > 0.0 {
            high = inverse
        } else {
            low = inverse
        }
        let newton = inverse - point.slope / point.curvature;
        // Before the bracket is asked: near the minimum the last bits of the slope decide on which side it lies.
        if (newton - inverse).abs() <= 1e-13 * inverse {
            return Ok(Some(ended(newton, iteration, Status::Converged)));
        }
        // Halving in the logarithm treats 0.01 and 100 alike.
        inverse = if newton > low && newton < high { newton } else { (low * high).sqrt() };
        point = loss.at(inverse);
        if point.slope == 0.0 {
            return Ok(Some(ended(inverse, iteration, Status::Converged)));
        }
    }
    Ok(Some(ended(inverse, 200, Status::OutOfIterations)))
}

struct Loss<'a, T> {
    logits: &'a [T],
    classes: usize,
    labels: &'a [usize],
}

/// Mean log loss at an inverse temperature, with its derivatives.
#[derive(Clone, Copy)]
struct Point {
    value: f64,
    slope: f64,
    curvature: f64,
    /// Mean of the squared slopes of single rows.
    squared_slopes: f64,
}

impl<T: Copy + Into<f64>> Loss<'_, T> {
    fn is_flat(&self) -> bool {
        self.logits.chunks_exact(self.classes).all(|row| row.windows(2).all(|w| w[0].into() == w[1].into()))
    }

    /// Per row: `ln Σ exp(βz) - βz_y`; slope `E[z] - z_y`, curvature `Var[z]` under the softmax of `βz`.
    fn at(&self, inverse: f64) -> Point {
        let [mut value, mut slope, mut curvature, mut squared] = [Sum::default(); 4];
        for (row, &label) in self.logits.chunks_exact(self.classes).zip(self.labels) {
            let max = row.iter().map(|&v| v.into()).fold(f64::NEG_INFINITY, f64::max);
            let [mut total, mut first, mut second] = [0.0; 3];
            for &v in row {
                let z = v.into() - max;
                let weight = (inverse * z).exp();
                // A weight of 0 with an overflowing square would be NaN.
                if weight > 0.0 {
                    total += weight;
                    first += weight * z;
                    second += weight * z * z;
                }
            }
            let own = row[label].into() - max;
            let mean = first / total;
            value.add(total.ln() - inverse * own);
            slope.add(mean - own);
            curvature.add((second / total - mean * mean).max(0.0));
            squared.add((mean - own) * (mean - own));
        }
        let n = self.labels.len() as f64;
        Point {
            value: value.total() / n,
            slope: slope.total() / n,
            curvature: curvature.total() / n,
            squared_slopes: squared.total() / n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probability::log_losses_of_logits;
    use crate::rng::Rng;

    /// Logits whose labels are drawn from their own softmax, then multiplied.
    fn calibrated(n: usize, scale: f64, seed: u64) -> (Vec<f64>, Vec<usize>) {
        let mut rng = Rng::new(seed);
        let mut logits: Vec<f64> = (0..4 * n).map(|_| 2.0 * rng.normal()).collect();
        let labels = logits
            .chunks_exact(4)
            .map(|row| {
                let p = crate::probability::softmax(row, 4).unwrap();
                let u = rng.unit();
                (0..3).find(|&c| u < p[..=c].iter().sum::<f64>()).unwrap_or(3)
            })
            .collect();
        logits.iter_mut().for_each(|z| *z *= scale);
        (logits, labels)
    }

    #[test]
    fn two_logits_have_a_closed_form() {
        // Margin 1, right in three of four rows: the best probability is 3/4, so 1/T = ln 3.
        let logits = [1.0f32, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0];
        let t = fit_temperature(&logits, 2, &[0, 0, 0, 1]).unwrap().unwrap();
        assert_eq!((t.status, t.n), (Status::Converged, 4));
        assert!((t.temperature - 1.0 / 3f64.ln()).abs() < 1e-14, "{t:?}");
        let best = -(0.75 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
        assert!((t.log_loss_after - best).abs() < 1e-15);
        let before = (1.0 + (-1f64).exp()).ln() + 0.25;
        assert!((t.log_loss_before - before).abs() < 1e-15);
        // Slope of a row is p - 1 or p, curvature p (1 - p): the error of 1/T is sqrt(1 / (p (1 - p) n)).
        let expected = (1.0f64 / (0.1875 * 4.0)).sqrt() / 3f64.ln();
        assert!((t.log_standard_error.unwrap() - expected).abs() < 1e-12);
    }

    #[test]
    fn calibrated_logits_times_2_5_give_2_5() {
        let mut covered = 0;
        for seed in 0..20 {
            let (logits, labels) = calibrated(4000, 2.5, seed);
            let t = fit_temperature(&logits, 4, &labels).unwrap().unwrap();
            assert!((t.temperature - 2.5).abs() < 0.25 && t.log_loss_after < t.log_loss_before, "{t:?}");
            covered += usize::from(t.interval(Level::P95).unwrap().contains(2.5));
        }
        assert!(covered >= 16, "{covered} of 20");
    }

    #[test]
    fn the_minimum_is_one_and_scaling_the_logits_scales_it() {
        let (logits, labels) = calibrated(500, 0.4, 3);
        let t = fit_temperature(&logits, 4, &labels).unwrap().unwrap();
        let loss = |temperature: f64| {
            let scaled: Vec<f64> = logits.iter().map(|z| z / temperature).collect();
            Sum::mean(&log_losses_of_logits(&scaled, 4, &labels).unwrap()).unwrap()
        };
        assert!((loss(t.temperature) - t.log_loss_after).abs() < 1e-13);
        assert!((loss(1.0) - t.log_loss_before).abs() < 1e-13);
        for factor in [0.5, 0.99, 0.999, 1.001, 1.01, 2.0] {
            assert!(loss(factor * t.temperature) > t.log_loss_after);
        }
        for factor in [0.01, 100.0] {
            let scaled: Vec<f64> = logits.iter().map(|z| z * factor).collect();
            let s = fit_temperature(&scaled, 4, &labels).unwrap().unwrap();
            assert!(s.status == Status::Converged && (s.temperature / t.temperature / factor - 1.0).abs() < 1e-10);
        }
    }

    #[test]
    fn separable_reversed_and_flat_logits_are_said_to_be_so() {
        let fit = |logits: &[f64], labels: &[usize]| fit_temperature(logits, 2, labels).unwrap().unwrap();
        let separable = fit(&[1.0, 0.0, 0.0, 2.0], &[0, 1]);
        assert_eq!((separable.status, separable.temperature), (Status::AtLowest, 1e-3));
        assert_eq!((separable.interval(Level::P95), separable.log_loss_after), (None, 0.0));
        let far_apart = fit(&[1e4, 0.0, 0.0, 1e4], &[0, 1]);
        assert_eq!(far_apart.status, Status::AtLowest);
        let reversed = fit(&[1.0, 0.0, 0.0, 2.0], &[1, 0]);
        assert_eq!((reversed.status, reversed.temperature), (Status::AtHighest, 1e3));
        let flat = fit(&[3.0, 3.0, 5.0, 5.0], &[0, 1]);
        assert_eq!((flat.status, flat.temperature), (Status::Flat, 1.0));
        assert!((flat.log_loss_after - 2f64.ln()).abs() < 1e-15);
    }

    #[test]
    fn extreme_logits_stay_finite() {
        let logits = [1e300, 0.0, -1e300, 0.0, 1e300, 5.0];
        let t = fit_temperature(&logits, 2, &[0, 0, 1]).unwrap().unwrap();
        assert!(t.temperature.is_finite() && t.log_loss_after.is_finite(), "{t:?}");
        // A margin that overflows, on the right side, changes nothing for the other rows.
        let logits = [1.7e308, -1.7e308, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0];
        let t = fit_temperature(&logits, 2, &[0, 0, 0, 0, 1]).unwrap().unwrap();
        assert!((t.temperature - 1.0 / 3f64.ln()).abs() < 1e-12, "{t:?}");
    }

    #[test]
    fn wrong_input_is_refused_and_no_rows_have_no_temperature() {
        assert_eq!(fit_temperature::<f32>(&[], 3, &[]).unwrap(), None);
        assert!(matches!(
            fit_temperature(&[0.0, 1.0, f32::INFINITY, 0.0], 2, &[0, 0]),
            Err(StatsError::NotFinite { row: 1, .. })
        ));
        assert!(fit_temperature(&[0.0, 1.0], 2, &[2]).is_err());
        assert!(fit_temperature(&[0.0, 1.0, 2.0], 2, &[0]).is_err());
    }
}
