//! A drop every few epochs, or at given epochs. Checked against: `StepLR` and `MultiStepLR` of PyTorch 2.15.

use serde::Deserialize;

use super::{Position, Schedule, Setting, check_factor};
use crate::error::refuse;
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Schedule> = Entry {
    id: "step",
    summary: "a drop every few epochs, or at given epochs",
    build: |options, _| {
        let own: Step = options.read()?;
        check_factor("gamma", own.gamma)?;
        if own.every_epochs == 0 {
            return Err(refuse("every_epochs", 0, "1 or more"));
        }
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Step {
    every_epochs: u64,
    /// Epochs after which the rate drops; replaces `every_epochs` where there are any.
    at_epochs: Vec<u64>,
    /// Factor of each drop.
    gamma: f64,
}

impl Default for Step {
    /// A tenth every 30 epochs: Goyal et al. 2017, arXiv:1706.02677, section 5.1.
    fn default() -> Self {
        Self { every_epochs: 30, at_epochs: Vec::new(), gamma: 0.1 }
    }
}

impl Schedule for Step {
    fn setting(&self, at: &Position) -> Setting {
        let epoch = at.epoch();
        let drops = if self.at_epochs.is_empty() {
            epoch / self.every_epochs
        } else {
            self.at_epochs.iter().filter(|&&e| epoch >= e).count() as u64
        };
        self.gamma.powf(drops as f64).into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::check;
    use crate::method::Method;

    #[test]
    fn recorded_rates_of_pytorch() {
        let every = Method::new("step").with("every_epochs", 3).with("gamma", 0.5);
        check(&every, 12, 1, &[1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125, 0.125]);
        let at = Method::new("step").with("at_epochs", vec![1, 2]).with("gamma", 0.1);
        check(&at, 8, 2, &[1.0, 1.0, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01]);
    }
}
