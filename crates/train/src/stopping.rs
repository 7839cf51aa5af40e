//! When training ends early: one file per rule and one line in [`STOPPING_RULES`].

mod never;
mod patience;

use serde_json::Value;

use crate::method::Entry;
use crate::schedule::Observation;

/// Decides after each epoch whether training ends.
pub trait StoppingRule: Send {
    /// The reason to stop, if there is one.
    fn observe(&mut self, seen: &Observation) -> Option<String>;

    /// What it remembers, for a checkpoint.
    fn state(&self) -> Value {
        Value::Null
    }

    /// Takes up a state of [`StoppingRule::state`].
    /// # Errors
    /// It is none.
    fn restore(&mut self, _state: &Value) -> Result<(), String> {
        Ok(())
    }
}

/// Every stopping rule of this crate.
pub static STOPPING_RULES: &[Entry<dyn StoppingRule>] = &[never::ENTRY, patience::ENTRY];
