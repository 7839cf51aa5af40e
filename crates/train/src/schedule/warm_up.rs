//! A linear rise in front of another schedule.
//! Goyal et al. 2017, arXiv:1706.02677, section 2.2. Checked against: `LinearLR` of PyTorch 2.15.

use serde::Deserialize;
use serde_json::Value;

use super::{Observation, Position, Schedule, Setting, check_factor};
use crate::error::refuse;
use crate::method::{Entry, Method};

pub(super) const ENTRY: Entry<dyn Schedule> = Entry {
    id: "warm-up",
    summary: "a linear rise in front of another schedule (`then`)",
    build: |options, registry| {
        let raw: Raw = options.read()?;
        check_factor("start", raw.start)?;
        if !(raw.epochs >= 0.0 && raw.epochs.is_finite()) {
            return Err(refuse("epochs", raw.epochs, "0 or more"));
        }
        let then = registry.schedules.build(&raw.then, registry)?;
        Ok(Box::new(WarmUp { steps: raw.steps, epochs: raw.epochs, start: raw.start, then }))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    /// How long it takes in epochs, which may be less than one.
    epochs: f64,
    /// How long it takes in steps; replaces `epochs`.
    steps: Option<u64>,
    /// First factor.
    start: f64,
    /// What follows; it sees only its own steps.
    then: Method,
}

impl Default for Raw {
    fn default() -> Self {
        Self { epochs: 1.0, steps: None, start: 0.0, then: Method::new("constant") }
    }
}

struct WarmUp {
    steps: Option<u64>,
    epochs: f64,
    start: f64,
    then: Box<dyn Schedule>,
}

impl Schedule for WarmUp {
    fn setting(&self, at: &Position) -> Setting {
        let length = self.steps.unwrap_or((self.epochs * at.steps_per_epoch as f64).round() as u64);
        let after = |step| Position { step, total: at.total.saturating_sub(length), ..*at };
        if at.step >= length {
            return self.then.setting(&after(at.step - length));
        }
        let first = self.then.setting(&after(0));
        let part = at.step as f64 / length as f64;
        Setting { factor: first.factor * (self.start + (1.0 - self.start) * part), ..first }
    }

    fn observe(&mut self, seen: &Observation) {
        self.then.observe(seen);
    }

    fn state(&self) -> Value {
        self.then.state()
    }

    fn restore(&mut self, state: &Value) -> Result<(), String> {
        self.then.restore(state)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::check;
    use crate::method::Method;

    #[test]
    fn recorded_rates_of_pytorch() {
        let method = Method::new("warm-up").with("steps", 4).with("start", 0.25);
        check(&method, 8, 2, &[0.25, 0.4375, 0.625, 0.8125, 1.0, 1.0, 1.0, 1.0]);
        check(&Method::new("warm-up").with("epochs", 0.5), 8, 4, &[0.0, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn what_follows_begins_at_its_beginning() {
        let then = toml::Table::from_iter([("kind".to_owned(), "cosine".into())]);
        let method = Method::new("warm-up").with("steps", 2).with("then", then);
        check(&method, 6, 3, &[0.0, 0.5, 1.0, 0.853553391, 0.5, 0.146446609, 0.0]);
    }
}
