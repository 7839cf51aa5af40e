//! Which changed rows are allowed: a ball around each row, and the bounds of the features.

use netproof_stats::rng::Rng;
use netproof_train::{Batch, TrainError};
use serde::Deserialize;

use super::refuse;

/// How large a change is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Norm {
    /// The largest change of a feature.
    #[default]
    Linf,
    /// The Euclidean length of the change.
    L2,
}

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

/// A ball around each row within the bounds of the features.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Threat {
    pub(super) norm: Norm,
    pub(super) epsilon: f64,
    /// Least and largest value of a feature.
    pub(super) bounds: [f64; 2],
}

impl Threat {
    /// l-infinity in pixels between 0 and 1.
    pub(super) const fn pixels(epsilon: f64) -> Self {
        Self { norm: Norm::Linf, epsilon, bounds: [0.0, 1.0] }
    }

    pub(super) fn check(&self) -> Result<(), TrainError> {
        if !(self.epsilon > 0.0 && self.epsilon.is_finite()) {
            return Err(refuse("epsilon", self.epsilon, "a number over 0"));
        }
        let [low, high] = self.bounds;
        if low.is_nan() || high.is_nan() || low >= high {
            return Err(refuse("bounds", format!("[{low}, {high}]"), "two ascending numbers"));
        }
        if self.norm == Norm::Linf && self.epsilon > high - low {
            return Err(refuse("epsilon", self.epsilon, "at most the width of `bounds`"));
        }
        Ok(())
    }

    /// Refuses rows that are outside the bounds, since no change within them is near.
    pub(super) fn check_rows(&self, batch: &Batch) -> Result<(), TrainError> {
        let [low, high] = self.bounds.map(|b| b as f32);
        let values = batch.features.as_f32().unwrap_or_default();
        let Some(at) = values.iter().position(|v| !(low..=high).contains(v)) else { return Ok(()) };
        let row = batch.row_ids.get(at / batch.features.row_len().max(1)).copied().unwrap_or_default();
        let message = format!(
            "row {row}: a feature is {}, outside the bounds [{low}, {high}] of the attack; give `bounds` in [gradient]",
            values[at]
        );
        Err(TrainError::Mismatch { message })
    }

    /// The nearest allowed row, where the row itself is allowed: first onto the ball, then into the bounds, which leads no
    /// further from the row.
    /// # Shapes   both `[features]`
    pub(super) fn project(&self, changed: &mut [f32], row: &[f32]) {
        let [low, high] = self.bounds.map(|b| b as f32);
        let epsilon = self.epsilon as f32;
        match self.norm {
            Norm::Linf => {
                for (c, &x) in changed.iter_mut().zip(row) {
                    *c = c.clamp(x - epsilon, x + epsilon).clamp(low, high);
                }
            }
            Norm::L2 => {
                let square: f64 = changed.iter().zip(row).map(|(c, x)| f64::from(c - x).powi(2)).sum();
                let factor = (self.epsilon / square.sqrt()).min(1.0) as f32;
                for (c, &x) in changed.iter_mut().zip(row) {
                    *c = (x + (*c - x) * factor).clamp(low, high);
                }
            }
        }
    }

    /// A step of the given length where the loss grows fastest: along the signs, or along the gradient. A gradient of 0
    /// moves nothing.
    pub(super) fn ascend(&self, changed: &mut [f32], gradient: &[f32], size: f64) {
        match self.norm {
            Norm::Linf => {
                let size = size as f32;
                for (c, &g) in changed.iter_mut().zip(gradient) {
                    *c += if g > 0.0 {
                        size
                    } else if g < 0.0 {
                        -size
                    } else {
                        0.0
                    };
                }
            }
            Norm::L2 => {
                let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
                if norm > 0.0 && norm.is_finite() {
                    let factor = (size / norm) as f32;
                    changed.iter_mut().zip(gradient).for_each(|(c, g)| *c += factor * g);
                }
            }
        }
    }

    /// Moves a row to where an attack begins, within the ball and, but for [`Start::Ball`], the bounds.
    pub(super) fn begin(&self, start: Start, changed: &mut [f32], row: &[f32], rng: &mut Rng) {
        match (start, self.norm) {
            (Start::Row, _) => return,
            (Start::Gaussian, _) => changed.iter_mut().for_each(|c| *c += (0.001 * rng.normal()) as f32),
            (Start::Uniform | Start::Ball, Norm::Linf) => {
                changed.iter_mut().for_each(|c| *c += (self.epsilon * (2.0 * rng.unit() - 1.0)) as f32);
            }
            (Start::Uniform | Start::Ball, Norm::L2) => {
                // A normal direction, and a length whose power of the dimension is uniform.
                let direction: Vec<f64> = row.iter().map(|_| rng.normal()).collect();
                let norm = direction.iter().map(|d| d * d).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
                let length = self.epsilon * rng.unit().powf(1.0 / row.len().max(1) as f64);
                changed.iter_mut().zip(direction).for_each(|(c, d)| *c += (d / norm * length) as f32);
            }
        }
        if start != Start::Ball {
            self.project(changed, row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn projections_have_their_closed_form() {
        let linf = Threat::pixels(0.25);
        let mut x = [0.9, 0.1, 0.5];
        linf.project(&mut x, &[0.5, 0.2, 0.5]);
        assert_eq!(x, [0.75, 0.1, 0.5]);
        let mut x = [1.4, -0.4];
        linf.project(&mut x, &[0.9, 0.1]);
        assert_eq!(x, [1.0, 0.0]);
        let l2 = Threat { norm: Norm::L2, epsilon: 0.5, bounds: [0.0, 1.0] };
        let mut x = [0.5 + 0.6, 0.5 + 0.8];
        l2.project(&mut x, &[0.5, 0.5]);
        assert!((x[0] - 0.8).abs() < 1e-6 && (x[1] - 0.9).abs() < 1e-6, "{x:?}");
        let mut x = [0.6, 0.5];
        l2.project(&mut x, &[0.5, 0.5]);
        assert_eq!(x, [0.6, 0.5]);
    }

    #[test]
    fn steps_have_the_length_that_is_asked_for() {
        let mut x = [0.5; 3];
        Threat::pixels(1.0).ascend(&mut x, &[2.0, -1e-30, 0.0], 0.125);
        assert_eq!(x, [0.625, 0.375, 0.5]);
        let mut x = [0.5; 3];
        let l2 = Threat { norm: Norm::L2, ..Threat::pixels(1.0) };
        l2.ascend(&mut x, &[0.0, 3.0, -4.0], 0.25);
        assert!((distance(&x, &[0.5; 3]) - 0.25).abs() < 1e-6 && x[0] == 0.5 && x[1] > 0.5 && x[2] < 0.5);
        l2.ascend(&mut x, &[0.0; 3], 0.25);
        assert!(x.iter().all(|v| v.is_finite()));
    }

    #[test]
    fn starts_fill_the_ball_and_stay_in_it() {
        let row = [0.5f32; 8];
        for norm in [Norm::Linf, Norm::L2] {
            let threat = Threat { norm, epsilon: 0.4, bounds: [0.0, 1.0] };
            let mut far: f64 = 0.0;
            for seed in 0..200 {
                let mut x = row;
                threat.begin(Start::Uniform, &mut x, &row, &mut Rng::new(seed));
                let d = match norm {
                    Norm::Linf => x.iter().zip(&row).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max),
                    Norm::L2 => distance(&x, &row),
                };
                assert!(d <= 0.4 + 1e-6, "{d}");
                far = far.max(d);
            }
            assert!(far > 0.35, "{far}");
            let mut x = row;
            threat.begin(Start::Gaussian, &mut x, &row, &mut Rng::new(1));
            assert!(x != row && distance(&x, &row) < 0.02);
            let edge = [0.0f32; 8];
            let mut x = edge;
            threat.begin(Start::Ball, &mut x, &edge, &mut Rng::new(1));
            assert!(x.iter().any(|v| *v < 0.0) && x.iter().any(|v| *v > 0.0), "{x:?}");
            let mut x = row;
            threat.begin(Start::Row, &mut x, &row, &mut Rng::new(1));
            assert_eq!(x, row);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(Threat::pixels(0.0).check().is_err());
        assert!(Threat::pixels(f64::NAN).check().is_err());
        assert!(Threat::pixels(1.5).check().is_err());
        assert!(Threat { bounds: [1.0, 0.0], ..Threat::pixels(0.1) }.check().is_err());
        assert!(Threat { bounds: [f64::NEG_INFINITY, f64::INFINITY], ..Threat::pixels(9.0) }.check().is_ok());
    }
}
