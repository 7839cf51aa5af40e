//! A drop whenever the monitored metric has not improved for some epochs.
//! Checked against: `ReduceLROnPlateau` of PyTorch 2.15.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Observation, Position, Schedule, Setting, check_factor, read_state};
use crate::error::within;
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Schedule> = Entry {
    id: "plateau",
    summary: "a drop whenever the monitored metric has not improved for some epochs",
    build: |options, _| {
        let options: Options = options.read()?;
        check_factor("gamma", options.gamma)?;
        check_factor("lowest", options.lowest)?;
        within("min_change", options.min_change, [0.0, f64::MAX], "0 or more")?;
        Ok(Box::new(Plateau { options, state: State { factor: 1.0, best: None, bad: 0, rest: 0 } }))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// Factor of each drop.
    gamma: f64,
    /// Epochs without improvement that are borne.
    patience: u64,
    /// What counts as an improvement, in units of the metric or, with `relative`, as a part of the best.
    min_change: f64,
    relative: bool,
    /// Epochs after a drop that do not count.
    cooldown: u64,
    /// Smallest factor.
    lowest: f64,
}

impl Default for Options {
    /// PyTorch's.
    fn default() -> Self {
        Self { gamma: 0.1, patience: 10, min_change: 1e-4, relative: true, cooldown: 0, lowest: 0.0 }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    factor: f64,
    best: Option<f64>,
    bad: u64,
    rest: u64,
}

struct Plateau {
    options: Options,
    state: State,
}

impl Schedule for Plateau {
    fn setting(&self, _: &Position) -> Setting {
        self.state.factor.into()
    }

    fn observe(&mut self, seen: &Observation) {
        let (o, s) = (&self.options, &mut self.state);
        let better = s.best.is_none_or(|best| {
            let needed = if o.relative { best.abs() * o.min_change } else { o.min_change };
            if seen.higher_is_better { seen.score > best + needed } else { seen.score < best - needed }
        });
        if better && !seen.score.is_nan() {
            s.best = Some(seen.score);
            s.bad = 0;
        } else {
            s.bad += 1;
        }
        if s.rest > 0 {
            s.rest -= 1;
            s.bad = 0;
        }
        if s.bad > o.patience {
            s.factor = (s.factor * o.gamma).max(o.lowest);
            s.rest = o.cooldown;
            s.bad = 0;
        }
    }

    fn state(&self) -> Value {
        serde_json::to_value(&self.state).unwrap_or_default()
    }

    fn restore(&mut self, state: &Value) -> Result<(), String> {
        self.state = read_state(state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::build;
    use super::*;
    use crate::method::Method;

    fn follow(method: &Method, higher_is_better: bool, scores: &[f64], want: &[f64]) {
        let at = Position { step: 0, total: 1, steps_per_epoch: 1 };
        let mut schedule = build(method);
        for (epoch, (&score, want)) in scores.iter().zip(want).enumerate() {
            // A schedule that was stored and taken up again is the same one.
            let mut again = build(method);
            again.restore(&schedule.state()).unwrap();
            schedule = again;
            schedule.observe(&Observation { epoch: epoch as u64 + 1, score, higher_is_better });
            assert_eq!(schedule.setting(&at).factor, *want, "epoch {epoch}");
        }
    }

    #[test]
    fn recorded_rates_of_pytorch() {
        let method = Method::new("plateau").with("gamma", 0.5).with("patience", 2).with("min_change", 0.01);
        let scores = [1.0, 0.9, 0.895, 0.894, 0.893, 0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.87];
        let want = [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125];
        follow(&method, false, &scores, &want);
        let method = method.with("patience", 1).with("cooldown", 1).with("relative", false);
        let scores = [0.5, 0.6, 0.605, 0.606, 0.607, 0.608, 0.609, 0.7, 0.7, 0.7, 0.7, 0.7];
        let want = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125, 0.125];
        follow(&method, true, &scores, &want);
    }

    #[test]
    fn a_state_that_is_none_is_refused() {
        assert!(build(&Method::new("plateau")).restore(&Value::Bool(true)).is_err());
    }
}
