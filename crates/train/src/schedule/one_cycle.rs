//! One cycle: up to the base learning rate and down to almost nothing, momentum the other way round.
//! Smith and Topin 2018, arXiv:1708.07120, in the form of `OneCycleLR` of PyTorch. Checked against: PyTorch 2.15.

use serde::Deserialize;

use super::{Position, Schedule, Setting, cosine_between};
use crate::error::{refuse, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Schedule> = Entry {
    id: "one-cycle",
    summary: "up to the base learning rate and down to almost nothing, momentum the other way round",
    build: |options, _| {
        let own: OneCycle = options.read()?;
        within("rise", own.rise, [0.0, 1.0], "0 to 1")?;
        for (name, value) in [("start_divisor", own.start_divisor), ("end_divisor", own.end_divisor)] {
            if !(value >= 1.0 && value.is_finite()) {
                return Err(refuse(name, value, "1 or more"));
            }
        }
        let [low, high] = own.momentum;
        if !(0.0 <= low && low <= high && high < 1.0) {
            return Err(refuse("momentum", format!("[{low}, {high}]"), "two ascending numbers below 1"));
        }
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OneCycle {
    /// Fraction of the steps in which the rate rises.
    rise: f64,
    /// The first factor is 1 over this.
    start_divisor: f64,
    /// The last factor is the first over this.
    end_divisor: f64,
    /// Whether momentum changes too; otherwise it is the optimiser's own.
    cycle_momentum: bool,
    /// Momentum at the highest rate, and at the lowest.
    momentum: [f64; 2],
}

impl Default for OneCycle {
    /// PyTorch's.
    fn default() -> Self {
        Self { rise: 0.3, start_divisor: 25.0, end_divisor: 1e4, cycle_momentum: true, momentum: [0.85, 0.95] }
    }
}

impl Schedule for OneCycle {
    fn setting(&self, at: &Position) -> Setting {
        let (step, total) = (at.step as f64, at.total as f64);
        let first = 1.0 / self.start_divisor;
        let top = self.rise * total - 1.0;
        // PyTorch counts a phase from the step before it.
        let (from, to, part, rises) = if step <= top && top > 0.0 {
            (first, 1.0, step / top, true)
        } else {
            let top = top.max(0.0);
            (1.0, first / self.end_divisor, ((step - top) / (total - 1.0 - top).max(1.0)).min(1.0), false)
        };
        let [low, high] = self.momentum;
        let momentum = if rises { cosine_between(high, low, part) } else { cosine_between(low, high, part) };
        let momentum = self.cycle_momentum.then_some(momentum);
        Setting { factor: cosine_between(from, to, part), momentum }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{build, check};
    use super::*;
    use crate::method::Method;

    #[test]
    fn recorded_rates_and_momenta_of_pytorch() {
        let method = Method::new("one-cycle");
        let want =
            [0.04, 0.52, 1.0, 0.950484632, 0.811745654, 0.611262022, 0.388741978, 0.188258346, 0.049519368, 4e-06];
        check(&method, 10, 5, &want);
        let want = [0.95, 0.9, 0.85, 0.854951557, 0.86882551, 0.888873953, 0.911126047, 0.93117449, 0.945048443, 0.95];
        let schedule = build(&method);
        for (step, want) in want.iter().enumerate() {
            let at = Position { step: step as u64, total: 10, steps_per_epoch: 5 };
            assert!((schedule.setting(&at).momentum.unwrap() - want).abs() < 1e-8, "step {step}");
        }
    }

    #[test]
    fn the_shortest_trainings_have_a_rate() {
        for total in 0..5 {
            for step in 0..=total {
                let at = Position { step, total, steps_per_epoch: 1 };
                let factor = build(&Method::new("one-cycle")).setting(&at).factor;
                assert!(factor > 0.0 && factor <= 1.0, "{step} of {total}: {factor}");
            }
        }
    }
}
