//! Adversarial training: rules by which the trainer makes a gradient from rows that an attack has changed.
//!
//! A recipe names one in `[gradient]`. Each has presets with the numbers of its paper; `epsilon` or `preset` must be given,
//! and single options replace numbers of the preset. Attacks run in evaluation mode (running statistics of batch
//! normalisation, no dropout) with the weights of the moment; gradients of weights are not computed there.

mod awp;
#[cfg(test)]
mod conformance;
mod crown_ibp;
pub(super) mod divergence;
mod fast;
mod free;
mod ibp;
mod inner;
mod intervals;
mod mart;
mod options;
mod pgd_at;
mod relaxation;
#[cfg(test)]
pub(super) mod test_support;
mod threat;
mod trades;

use netproof_tensor::Tensor;
use netproof_train::{Batch, Entry, Gradient, GradientRule, Options, Step, TrainError};

use inner::Inner;

/// Every rule of the defences.
pub(crate) static RULES: &[Entry<dyn GradientRule>] = &[
    fast::ENTRY,
    pgd_at::ENTRY,
    trades::ENTRY,
    mart::ENTRY,
    awp::ENTRY,
    free::ENTRY,
    ibp::ENTRY,
    crown_ibp::ENTRY,
    super::noise_injection::RULE,
    super::defensive_distillation::RULE,
    super::diverse_ensemble::RULE,
];

/// A rule in two halves, so that others can put something between them.
trait Adversarial: Send {
    /// The rows as an attack changes them.
    fn attack(&self, step: &Step<'_>, batch: &Batch) -> Result<Tensor, TrainError>;

    /// The gradient of the sum of the losses, with the weights as they are.
    fn gradient_at(&self, step: &Step<'_>, batch: &Batch, attacked: &Tensor) -> Result<Gradient, TrainError>;

    /// The attack that validation rows are measured under.
    fn validation(&self) -> &Inner;
}

/// Makes a rule in two halves from its options.
type Build = fn(Options<'_>) -> Result<Box<dyn Adversarial>, TrainError>;

/// The rules in two halves, by id.
static HALVES: &[(&str, Build)] =
    &[("pgd-at", pgd_at::build), ("trades", trades::build), ("mart", mart::build), ("fast", fast::build_halves)];

/// Both halves, one after the other.
struct Both(Box<dyn Adversarial>);

impl GradientRule for Both {
    fn gradient(&mut self, step: &mut Step<'_>, batch: &Batch) -> Result<Gradient, TrainError> {
        let attacked = self.0.attack(step, batch)?;
        self.0.gradient_at(step, batch, &attacked)
    }

    fn hardest(&self, step: &mut Step<'_>, batch: &Batch) -> Result<Option<Tensor>, TrainError> {
        self.0.validation().on_objective(step, batch).map(Some)
    }
}

/// The gradient of the objective on changed rows.
fn objective_at(step: &Step<'_>, batch: &Batch, attacked: &Tensor) -> Result<Gradient, TrainError> {
    step.gradient(&Batch { features: attacked.clone(), ..batch.clone() })
}

fn refuse(name: &'static str, value: impl std::fmt::Display, allowed: &'static str) -> TrainError {
    TrainError::Option { name, value: value.to_string(), allowed }
}
