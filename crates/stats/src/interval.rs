//! Confidence intervals in closed form.
//!
//! [`proportion`] for one proportion, [`difference`] for two, [`mean`] for means. Intervals by resampling are in
//! [`crate::bootstrap`], those of the area under the ROC curve in [`crate::roc`].

pub mod difference;
pub mod mean;
pub mod proportion;

use crate::StatsError;
use crate::special::{normal_quantile, student_t_quantile};

/// A confidence level strictly between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Level(f64);

impl Level {
    /// 0.90.
    pub const P90: Self = Self(0.90);
    /// 0.95, the convention of the field and the default.
    pub const P95: Self = Self(0.95);
    /// 0.99.
    pub const P99: Self = Self(0.99);

    /// A level.
    /// # Errors
    /// It is not strictly between 0 and 1.
    pub fn new(level: f64) -> Result<Self, StatsError> {
        if level > 0.0 && level < 1.0 {
            Ok(Self(level))
        } else {
            Err(StatsError::Parameter {
                name: "level",
                value: level,
                allowed: "strictly between 0 and 1, such as 0.95",
            })
        }
    }

    /// The level as a number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Probability beyond each end of a two-sided interval.
    pub fn tail(self) -> f64 {
        0.5 * (1.0 - self.0)
    }

    /// Standard normal quantile of a two-sided interval, such as 1.96 at 0.95.
    pub fn z(self) -> f64 {
        -normal_quantile(self.tail())
    }

    /// Quantile of Student's t for a two-sided interval.
    pub fn t(self, degrees_of_freedom: f64) -> f64 {
        -student_t_quantile(self.tail(), degrees_of_freedom)
    }
}

impl Default for Level {
    fn default() -> Self {
        Self::P95
    }
}

/// A confidence interval. Both ends are finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Confidence level.
    pub level: f64,
    /// How it was made: `wilson`, `clopper-pearson`, `newcombe`, `newcombe-paired`, `mover`, `student-t`, `welch-t`, `wald`, `delong`,
    /// `newcombe-auroc`, `order-statistics`, `delta-method`, `bootstrap-percentile`, `bootstrap-basic`,
    /// `bootstrap-bca`.
    pub method: &'static str,
}

impl Interval {
    pub(crate) fn new(low: f64, high: f64, level: Level, method: &'static str) -> Self {
        Self { low, high, level: level.get(), method }
    }

    /// Whether a value lies within, ends included.
    pub fn contains(&self, value: f64) -> bool {
        value >= self.low && value <= self.high
    }

    /// Both ends moved into `[low, high]`, for quantities that have such bounds.
    pub fn clamp(self, low: f64, high: f64) -> Self {
        Self { low: self.low.clamp(low, high), high: self.high.clamp(low, high), ..self }
    }
}

/// A measured value with what is known of its error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Number of rows behind it.
    pub n: u64,
    /// Standard error; `None` where it is undefined, as for a mean of one row.
    pub standard_error: Option<f64>,
    /// Confidence interval; `None` where it is undefined.
    pub interval: Option<Interval>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_checked() {
        for bad in [0.0, 1.0, -1.0, 95.0, f64::NAN] {
            assert!(Level::new(bad).is_err(), "{bad}");
        }
        let level = Level::new(0.95).unwrap();
        assert_eq!(level, Level::default());
        assert!((level.z() - 1.959963984540054).abs() < 1e-14);
        assert!((level.t(9.0) - 2.262157162798205).abs() < 1e-12);
        assert_eq!(
            Level::new(95.0).unwrap_err().to_string(),
            "level is 95, allowed is strictly between 0 and 1, such as 0.95"
        );
    }

    #[test]
    fn clamping_moves_both_ends() {
        let i = Interval::new(-0.1, 1.2, Level::P95, "wald").clamp(0.0, 1.0);
        assert_eq!((i.low, i.high), (0.0, 1.0));
        assert!(i.contains(0.0) && i.contains(1.0) && !i.contains(1.1));
    }
}
