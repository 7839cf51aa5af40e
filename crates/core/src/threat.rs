//! What an attacker may do to an input.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the size of a change is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// The largest change of a feature.
    Linf,
    /// The root of the sum of squares.
    L2,
    /// The sum of absolute changes.
    L1,
    /// The number of features that change.
    L0,
    /// The side of the smallest square that holds all changed pixels; within it every value may change. Of rows that are no
    /// pictures, the length of the stretch of features.
    Patch,
    /// How far a picture is turned and moved: the larger of the angle in units of 30 degrees and the shift in units of a
    /// tenth of its side.
    Spatial,
}

impl Norm {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Linf, Self::L2, Self::L1, Self::L0, Self::Patch, Self::Spatial];
    /// Those that two rows alone decide, whatever their shape is.
    pub const OF_VECTORS: [Self; 4] = [Self::Linf, Self::L2, Self::L1, Self::L0];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linf => "linf",
            Self::L2 => "l2",
            Self::L1 => "l1",
            Self::L0 => "l0",
            Self::Patch => "patch",
            Self::Spatial => "spatial",
        }
    }
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a threat makes no sense.
#[derive(Debug, Clone, PartialEq)]
pub struct ThreatError {
    /// Which number.
    pub name: &'static str,
    /// What it is.
    pub value: f64,
    /// What it may be, and what to do.
    pub allowed: String,
}

impl fmt::Display for ThreatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is {}, it must be {}", self.name, self.value, self.allowed)
    }
}

impl std::error::Error for ThreatError {}

/// What an attacker may do: change an input by at most `epsilon` in a norm, within the bounds of every feature.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Threat {
    /// How the change is measured.
    pub norm: Norm,
    /// How large it may be; for l0 a number of features, for patches a number of pixels.
    pub epsilon: f64,
    /// Least and largest value of a feature, such as 0 and 1 for pixels.
    pub bounds: [f64; 2],
}

impl Threat {
    /// A threat whose numbers make sense together.
    /// # Errors
    /// A number is not finite, epsilon is negative or, where it counts, between 0 and 1, or the bounds are empty.
    pub fn new(norm: Norm, epsilon: f64, bounds: [f64; 2]) -> Result<Self, ThreatError> {
        let fail = |name, value, allowed: String| Err(ThreatError { name, value, allowed });
        let [low, high] = bounds;
        if !low.is_finite() {
            return fail("bounds", low, "finite, such as 0,1 for pixels".to_owned());
        }
        if !high.is_finite() || high <= low {
            return fail("bounds", high, format!("finite and above the lower bound, {low}"));
        }
        if !(epsilon.is_finite() && epsilon >= 0.0) {
            return fail("epsilon", epsilon, "finite and at least 0, in units of the features".to_owned());
        }
        if matches!(norm, Norm::L0 | Norm::Patch) && epsilon > 0.0 && epsilon < 1.0 {
            let what = if norm == Norm::L0 { "features" } else { "pixels" };
            return fail("epsilon", epsilon, format!("a number of {what} for {norm}: 0, or 1 or more"));
        }
        Ok(Self { norm, epsilon, bounds })
    }

    /// The same with another epsilon.
    #[must_use]
    pub fn with_epsilon(self, epsilon: f64) -> Self {
        Self { epsilon, ..self }
    }

    /// Width of the bounds.
    pub fn width(&self) -> f64 {
        self.bounds[1] - self.bounds[0]
    }

    /// The epsilon from which every input within the bounds can be reached; never less than it is.
    pub fn reach(&self, features: usize) -> f64 {
        let n = features as f64;
        match self.norm {
            Norm::Linf => self.width(),
            Norm::L2 => self.width() * n.sqrt(),
            Norm::L1 => self.width() * n,
            // A square as wide as a picture holds all of it; how wide that is is not known here.
            Norm::L0 | Norm::Patch => n,
            Norm::Spatial => f64::INFINITY,
        }
    }

    /// Whether every input within the bounds can be reached: then robustness can only be that of a constant network.
    pub fn is_unbounded(&self, features: usize) -> bool {
        self.epsilon >= self.reach(features)
    }
}

impl fmt::Display for Threat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.norm, self.epsilon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threats_are_checked() {
        let t = Threat::new(Norm::Linf, 0.3, [0.0, 1.0]).unwrap();
        assert!(!t.is_unbounded(784) && t.with_epsilon(1.0).is_unbounded(784));
        assert!(Threat { norm: Norm::L2, ..t.with_epsilon(28.0) }.is_unbounded(784));
        for (epsilon, bounds) in [(-0.1, [0.0, 1.0]), (f64::NAN, [0.0, 1.0]), (0.1, [1.0, 1.0]), (0.1, [f64::NAN, 1.0])]
        {
            assert!(Threat::new(Norm::Linf, epsilon, bounds).is_err(), "{epsilon} {bounds:?}");
        }
        let e = Threat::new(Norm::L2, -1.0, [0.0, 1.0]).unwrap_err().to_string();
        assert_eq!(e, "`epsilon` is -1, it must be finite and at least 0, in units of the features");
        let e = Threat::new(Norm::L0, 0.3, [0.0, 1.0]).unwrap_err().to_string();
        assert_eq!(e, "`epsilon` is 0.3, it must be a number of features for l0: 0, or 1 or more");
        assert!(Threat::new(Norm::L0, 1.0, [0.0, 1.0]).is_ok() && Threat::new(Norm::Patch, 0.5, [0.0, 1.0]).is_err());
    }

    #[test]
    fn names_are_those_of_serde() {
        for n in Norm::ALL {
            assert_eq!(serde_json::to_value(n).unwrap(), n.name());
        }
    }
}
