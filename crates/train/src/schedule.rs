//! How the learning rate changes: one file per schedule and one line in [`SCHEDULES`].
//!
//! A schedule gives a factor of the base learning rate for every step, so that the same schedule serves any length.

mod constant;
mod cosine;
mod one_cycle;
mod plateau;
mod step;
mod triangular;
mod warm_up;

use serde_json::Value;

use crate::error::TrainError;
use crate::method::Entry;

/// Where training is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Steps of the optimiser that are done.
    pub step: u64,
    /// Steps of the whole training, if nothing ends it early.
    pub total: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
}

impl Position {
    /// Epochs that are done.
    pub fn epoch(&self) -> u64 {
        self.step / self.steps_per_epoch.max(1)
    }
}

/// What holds for one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// Factor of the base learning rate.
    pub factor: f64,
    /// Momentum instead of the optimiser's own.
    pub momentum: Option<f64>,
}

impl From<f64> for Setting {
    fn from(factor: f64) -> Self {
        Self { factor, momentum: None }
    }
}

/// What an epoch came to, for schedules and stopping rules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// Epochs that are done.
    pub epoch: u64,
    /// The monitored metric; of the validation rows where there are any.
    pub score: f64,
    /// Whether more is better.
    pub higher_is_better: bool,
}

/// A factor of the learning rate, step by step.
pub trait Schedule: Send {
    /// What holds for the step at a position.
    fn setting(&self, at: &Position) -> Setting;

    /// Sees what an epoch came to.
    fn observe(&mut self, _seen: &Observation) {}

    /// What [`Schedule::observe`] has changed, for a checkpoint.
    fn state(&self) -> Value {
        Value::Null
    }

    /// Takes up a state of [`Schedule::state`].
    /// # Errors
    /// It is none.
    fn restore(&mut self, _state: &Value) -> Result<(), String> {
        Ok(())
    }
}

/// Every schedule of this crate.
pub static SCHEDULES: &[Entry<dyn Schedule>] =
    &[constant::ENTRY, step::ENTRY, cosine::ENTRY, one_cycle::ENTRY, triangular::ENTRY, warm_up::ENTRY, plateau::ENTRY];

/// From one value to another along half a cosine.
fn cosine_between(from: f64, to: f64, part: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (std::f64::consts::PI * part).cos())
}

pub(crate) fn read_state<T: serde::de::DeserializeOwned>(state: &Value) -> Result<T, String> {
    T::deserialize(state).map_err(|e| e.to_string())
}

/// `Ok` where a factor makes sense.
fn check_factor(name: &'static str, value: f64) -> Result<(), TrainError> {
    crate::error::within(name, value, [0.0, 1.0], "0 to 1")
}

#[cfg(test)]
pub(crate) mod test_support {
    use super::*;
    use crate::method::{Method, Registry};

    pub(crate) fn build(method: &Method) -> Box<dyn Schedule> {
        let registry = Registry::default();
        registry.schedules.build(method, &registry).unwrap()
    }

    /// Compares the factors of the first steps with recorded ones.
    pub(crate) fn check(method: &Method, total: u64, steps_per_epoch: u64, want: &[f64]) {
        let schedule = build(method);
        for (step, want) in want.iter().enumerate() {
            let at = Position { step: step as u64, total, steps_per_epoch };
            let got = schedule.setting(&at).factor;
            assert!((got - want).abs() < 1e-8, "{method:?} step {step}: {got}, not {want}");
        }
    }
}
