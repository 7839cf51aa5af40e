//! Options of the rules: a preset, and numbers that replace single ones of it.

/// A struct of options that all rules share, with those of one rule: `epsilon` or `preset` must be given. Where `epsilon`
/// is given and `step_size` is not, the step keeps its ratio to epsilon.
macro_rules! options {
    ($name:ident, $preset:ty { $($field:ident: $kind:ty),* $(,)? }) => {
        #[derive(Debug, Clone, Default, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct $name {
            preset: Option<$preset>,
            norm: Option<super::threat::Norm>,
            epsilon: Option<f64>,
            bounds: Option<[f64; 2]>,
            steps: Option<usize>,
            step_size: Option<f64>,
            start: Option<super::threat::Start>,
            /// Steps of the attack that `monitor = "robust-accuracy"` measures under.
            validation_steps: Option<usize>,
            $($field: Option<$kind>,)*
        }

        impl $name {
            fn read(options: netproof_train::Options<'_>) -> Result<Self, netproof_train::TrainError> {
                let own: Self = options.read()?;
                if own.epsilon.is_none() && own.preset.is_none() {
                    return Err(super::refuse("epsilon", "not given", "a number over 0; or name a `preset`"));
                }
                Ok(own)
            }

            /// The attack, and the one for validation.
            fn attacks(
                &self,
                preset: super::inner::Inner,
            ) -> Result<[super::inner::Inner; 2], netproof_train::TrainError> {
                super::options::attacks(
                    preset,
                    (self.norm, self.epsilon, self.bounds),
                    (self.steps, self.step_size, self.start),
                    self.validation_steps,
                )
            }
        }
    };
}

pub(super) use options;

use netproof_train::TrainError;

use super::inner::Inner;
use super::refuse;
use super::threat::{Norm, Start, Threat, check};

/// Steps of the attack on validation rows.
const VALIDATION_STEPS: usize = 20;

pub(super) fn attacks(
    preset: Inner,
    (norm, epsilon, bounds): (Option<Norm>, Option<f64>, Option<[f64; 2]>),
    (steps, step_size, start): (Option<usize>, Option<f64>, Option<Start>),
    validation_steps: Option<usize>,
) -> Result<[Inner; 2], TrainError> {
    let threat = Threat {
        norm: norm.unwrap_or(preset.threat.norm),
        epsilon: epsilon.unwrap_or(preset.threat.epsilon),
        bounds: bounds.unwrap_or(preset.threat.bounds),
    };
    check(&threat)?;
    let ratio = preset.step_size / preset.threat.epsilon;
    let inner = Inner {
        threat,
        steps: steps.unwrap_or(preset.steps),
        step_size: step_size.unwrap_or(ratio * threat.epsilon),
        start: start.unwrap_or(preset.start),
    };
    if inner.steps == 0 {
        return Err(refuse("steps", 0, "1 or more"));
    }
    if !(inner.step_size > 0.0 && inner.step_size.is_finite()) {
        return Err(refuse("step_size", inner.step_size, "a number over 0"));
    }
    let validation = validation_steps.unwrap_or(VALIDATION_STEPS);
    if validation == 0 {
        return Err(refuse("validation_steps", 0, "1 or more"));
    }
    Ok([inner, Inner::thorough(threat, validation)])
}

#[cfg(test)]
mod tests {
    use super::super::threat::pixels;
    use super::*;

    #[test]
    fn single_numbers_replace_those_of_the_preset() {
        let preset = Inner { threat: pixels(0.3), steps: 40, step_size: 0.01, start: Start::Uniform };
        let none = (None, None, None);
        let [same, validation] = attacks(preset, none, (None, None, None), None).unwrap();
        assert_eq!(same, preset);
        assert_eq!((validation.steps, validation.step_size), (20, 2.5 * 0.3 / 20.0));
        let [smaller, _] = attacks(preset, (None, Some(0.15), None), (Some(7), None, None), None).unwrap();
        assert_eq!((smaller.steps, smaller.step_size, smaller.threat.epsilon), (7, 0.005, 0.15));
        assert!(attacks(preset, none, (Some(0), None, None), None).is_err());
        assert!(attacks(preset, none, (None, Some(-0.1), None), None).is_err());
        assert!(attacks(preset, (None, Some(0.0), None), (None, None, None), None).is_err());
    }
}
