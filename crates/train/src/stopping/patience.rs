//! Ends training when the monitored metric has not improved for some epochs.
//! Prechelt, Early Stopping – But When?, 1998, the `UP` criterion in the form of Keras' `EarlyStopping`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::StoppingRule;
use crate::error::{refuse, within};
use crate::method::Entry;
use crate::schedule::{Observation, read_state};

pub(super) const ENTRY: Entry<dyn StoppingRule> = Entry {
    id: "patience",
    summary: "ends training when the monitored metric has not improved for some epochs",
    build: |options, _| {
        let options: Options = options.read()?;
        if options.patience == 0 {
            return Err(refuse("patience", 0, "1 or more"));
        }
        within("min_change", options.min_change, [0.0, f64::MAX], "0 or more")?;
        Ok(Box::new(Patience { options, state: State { best: None, bad: 0 } }))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// Epochs without improvement after which training ends.
    patience: u64,
    /// What counts as an improvement, in units of the metric.
    min_change: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { patience: 5, min_change: 0.0 }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    best: Option<f64>,
    bad: u64,
}

struct Patience {
    options: Options,
    state: State,
}

impl StoppingRule for Patience {
    fn observe(&mut self, seen: &Observation) -> Option<String> {
        let (o, s) = (&self.options, &mut self.state);
        let better = s.best.is_none_or(|best| {
            if seen.higher_is_better { seen.score > best + o.min_change } else { seen.score < best - o.min_change }
        });
        if better && !seen.score.is_nan() {
            s.best = Some(seen.score);
            s.bad = 0;
            return None;
        }
        s.bad += 1;
        (s.bad >= o.patience).then(|| format!("no improvement for {} epochs", s.bad))
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
    use super::*;
    use crate::method::{Method, Registry};

    fn stops_after(method: &Method, higher_is_better: bool, scores: &[f64]) -> Option<usize> {
        let registry = Registry::default();
        let mut rule = registry.stopping.build(method, &registry).unwrap();
        for (i, &score) in scores.iter().enumerate() {
            let mut again = registry.stopping.build(method, &registry).unwrap();
            again.restore(&rule.state()).unwrap();
            rule = again;
            if rule.observe(&Observation { epoch: i as u64 + 1, score, higher_is_better }).is_some() {
                return Some(i + 1);
            }
        }
        None
    }

    #[test]
    fn small_changes_are_none() {
        let two = Method::new("patience").with("patience", 2);
        let scores = [1.0, 0.9, 0.85, 0.84, 0.83, 0.7, 0.71, 0.72, 0.73];
        assert_eq!(stops_after(&two, false, &scores), Some(8));
        assert_eq!(stops_after(&two.clone().with("min_change", 0.07), false, &scores), Some(4));
        assert_eq!(stops_after(&two, true, &scores), Some(3));
        let rises: Vec<f64> = scores.iter().map(|s| -s).collect();
        assert_eq!(stops_after(&two.clone().with("min_change", 0.07), true, &rises), Some(4));
        assert_eq!(stops_after(&two, false, &[1.0, f64::NAN, f64::NAN]), Some(3));
        assert_eq!(stops_after(&Method::new("never"), false, &[f64::NAN; 50]), None);
    }
}
