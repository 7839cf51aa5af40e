//! The gradient of the mean loss.

use serde::Deserialize;

use super::{Gradient, GradientRule, Step};
use crate::batch::Batch;
use crate::error::TrainError;
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn GradientRule> = Entry {
    id: "mean",
    summary: "the gradient of the mean loss",
    build: |options, _| Ok(Box::new(options.read::<Mean>()?)),
};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mean {}

impl GradientRule for Mean {
    fn gradient(&mut self, step: &mut Step<'_>, batch: &Batch) -> Result<Gradient, TrainError> {
        step.gradient(batch)
    }
}
