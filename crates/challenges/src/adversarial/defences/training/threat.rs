//! What training asks of a threat: numbers that it can work with, rows within the bounds, and where attacks begin.

pub(super) use netproof_core::{Norm, Threat};
use netproof_stats::rng::Rng;
use netproof_train::{Batch, TrainError};
use serde::Deserialize;

use super::refuse;
use crate::adversarial::projection::Ball;

/// Where an attack begins.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Start {
    /// At the row.
    Row,
    /// Uniform in the ball, then within the bounds.
    Uniform,
    /// Uniform in the ball, whatever the bounds are; steps lead back into them. Fast adversarial training begins so: with
    /// features at their bounds, as in black and white pictures, starts within them would make every step end in a corner.
    Ball,
    /// Normal around the row with standard deviation 0.001, as TRADES and MART have it.
    Gaussian,
}

/// l-infinity in pixels between 0 and 1.
pub(super) const fn pixels(epsilon: f64) -> Threat {
    Threat { norm: Norm::Linf, epsilon, bounds: [0.0, 1.0] }
}

/// Refuses threats that training cannot work with. Bounds may be infinite here, where nothing is drawn from them.
pub(super) fn check(threat: &Threat) -> Result<(), TrainError> {
    if !matches!(threat.norm, Norm::Linf | Norm::L2) {
        return Err(refuse("norm", threat.norm, "linf or l2"));
    }
    if !(threat.epsilon > 0.0 && threat.epsilon.is_finite()) {
        return Err(refuse("epsilon", threat.epsilon, "a number over 0"));
    }
    let [low, high] = threat.bounds;
    if low.is_nan() || high.is_nan() || low >= high {
        return Err(refuse("bounds", format!("[{low}, {high}]"), "two ascending numbers"));
    }
    if threat.norm == Norm::Linf && threat.epsilon > high - low {
        return Err(refuse("epsilon", threat.epsilon, "at most the width of `bounds`"));
    }
    Ok(())
}

/// Refuses rows that are outside the bounds, since no change within them is near.
pub(super) fn check_rows(threat: &Threat, batch: &Batch) -> Result<(), TrainError> {
    let [low, high] = threat.bounds.map(|b| b as f32);
    let values = batch.features.as_f32().unwrap_or_default();
    let Some(at) = values.iter().position(|v| !(low..=high).contains(v)) else { return Ok(()) };
    let row = batch.row_ids.get(at / batch.features.row_len().max(1)).copied().unwrap_or_default();
    let message = format!(
        "row {row}: a feature is {}, outside the bounds [{low}, {high}] of the attack; give `bounds` in [gradient]",
        values[at]
    );
    Err(TrainError::Mismatch { message })
}

/// Moves a row to where an attack begins, within the ball and, but for [`Start::Ball`], the bounds.
pub(super) fn begin(threat: &Threat, start: Start, changed: &mut [f32], row: &[f32], rng: &mut Rng) {
    match (start, threat.norm) {
        (Start::Row, _) => return,
        (Start::Gaussian, _) => changed.iter_mut().for_each(|c| *c += (0.001 * rng.normal()) as f32),
        (Start::Uniform | Start::Ball, Norm::L2) => {
            // A normal direction, and a length whose power of the dimension is uniform.
            let direction: Vec<f64> = row.iter().map(|_| rng.normal()).collect();
            let norm = direction.iter().map(|d| d * d).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
            let length = threat.epsilon * rng.unit().powf(1.0 / row.len().max(1) as f64);
            changed.iter_mut().zip(direction).for_each(|(c, d)| *c += (d / norm * length) as f32);
        }
        (Start::Uniform | Start::Ball, _) => {
            changed.iter_mut().for_each(|c| *c += (threat.epsilon * (2.0 * rng.unit() - 1.0)) as f32);
        }
    }
    if start != Start::Ball {
        Ball::from(threat).project(row, changed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(a: &[f32], b: &[f32]) -> f64 {
        crate::adversarial::projection::distance(Norm::L2, a, b)
    }

    #[test]
    fn starts_fill_the_ball_and_stay_in_it() {
        let row = [0.5f32; 8];
        for norm in [Norm::Linf, Norm::L2] {
            let threat = Threat { norm, epsilon: 0.4, bounds: [0.0, 1.0] };
            let mut far: f64 = 0.0;
            for seed in 0..200 {
                let mut x = row;
                begin(&threat, Start::Uniform, &mut x, &row, &mut Rng::new(seed));
                let d = crate::adversarial::projection::distance(norm, &x, &row);
                assert!(d <= 0.4 + 1e-6, "{d}");
                far = far.max(d);
            }
            assert!(far > 0.35, "{far}");
            let mut x = row;
            begin(&threat, Start::Gaussian, &mut x, &row, &mut Rng::new(1));
            assert!(x != row && distance(&x, &row) < 0.02);
            let edge = [0.0f32; 8];
            let mut x = edge;
            begin(&threat, Start::Ball, &mut x, &edge, &mut Rng::new(1));
            assert!(x.iter().any(|v| *v < 0.0) && x.iter().any(|v| *v > 0.0), "{x:?}");
            let mut x = row;
            begin(&threat, Start::Row, &mut x, &row, &mut Rng::new(1));
            assert_eq!(x, row);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [0.0, f64::NAN, 1.5] {
            assert!(check(&pixels(bad)).is_err(), "{bad}");
        }
        assert!(check(&Threat { bounds: [1.0, 0.0], ..pixels(0.1) }).is_err());
        assert!(check(&Threat { norm: Norm::L1, ..pixels(0.1) }).is_err());
        assert!(check(&Threat { bounds: [f64::NEG_INFINITY, f64::INFINITY], ..pixels(9.0) }).is_ok());
    }
}
