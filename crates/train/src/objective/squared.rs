//! Mean squared error of one number per row, or of one-hot classes (then the Brier score of the raw outputs).
//! Checked against: closed form, differences.

use netproof_data::LabelKind;
use serde::Deserialize;

use super::{Objective, RowLoss, need_numbers, wanted};
use crate::batch::Target;
use crate::error::TrainError;
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Objective> = Entry {
    id: "mean-squared",
    summary: "mean squared error",
    build: |options, _| Ok(Box::new(options.read::<MeanSquared>()?)),
};

/// Mean over the outputs of `(y − t)²`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct MeanSquared {}

impl Objective for MeanSquared {
    fn check(&self, width: usize, labels: &LabelKind) -> Result<(), TrainError> {
        need_numbers("mean-squared", width, labels)
    }

    fn row(&self, outputs: &[f32], target: Target<'_>, gradient: &mut [f32]) -> RowLoss {
        let width = outputs.len();
        let mut loss = 0.0;
        for (i, (&y, g)) in outputs.iter().zip(gradient).enumerate() {
            let error = f64::from(y) - wanted(target, i, width);
            loss += error * error;
            *g = (2.0 * error / width as f64) as f32;
        }
        RowLoss { loss: loss / width as f64, weight: 1.0 }
    }

    fn takes_logits(&self) -> bool {
        false
    }

    fn is_correct(&self, outputs: &[f32], target: Target<'_>) -> Option<bool> {
        is_correct(outputs, target)
    }
}

/// Outputs near 0 and 1 stand for two classes.
pub(super) fn is_correct(outputs: &[f32], target: Target<'_>) -> Option<bool> {
    match target {
        Target::Number(_) => None,
        Target::Class(c) if outputs.len() == 1 => Some(usize::from(outputs[0] > 0.5) == c),
        Target::Class(c) => Some(super::largest(outputs) == c),
        Target::Soft(p) if outputs.len() == 1 => Some(usize::from(outputs[0] > 0.5) == super::largest(p)),
        Target::Soft(p) => Some(super::largest(outputs) == super::largest(p)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::check_gradient;
    use super::*;

    #[test]
    fn closed_form_and_slope() {
        let mut g = [0.0];
        let row = MeanSquared {}.row(&[2.5], Target::Number(1.0), &mut g);
        assert_eq!((row.loss, row.weight, g), (2.25, 1.0, [3.0]));
        check_gradient(&MeanSquared {}, &[0.5, -0.25], Target::Class(1));
        assert_eq!(MeanSquared {}.is_correct(&[0.4], Target::Class(0)), Some(true));
    }
}
