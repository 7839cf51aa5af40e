//! Huber loss: squared for small errors, linear for large ones, so that outliers pull less.
//! Huber, Annals of Mathematical Statistics 35(1), 1964, section 4, in the scale of `torch.nn.HuberLoss`. Checked against:
//! closed form, differences.

use netproof_data::LabelKind;
use serde::Deserialize;

use super::{Objective, RowLoss, need_numbers, wanted};
use crate::batch::Target;
use crate::error::{TrainError, refuse};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Objective> = Entry {
    id: "huber",
    summary: "Huber loss: squared for small errors, linear for large ones",
    build: |options, _| {
        let own: Huber = options.read()?;
        if !(own.delta > 0.0 && own.delta.is_finite()) {
            return Err(refuse("delta", own.delta, "a number over 0"));
        }
        Ok(Box::new(own))
    },
};

/// Mean over the outputs of `e²/2` where `|e| ≤ δ`, else `δ (|e| − δ/2)`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Huber {
    /// Where linear begins, in units of the target.
    delta: f64,
}

impl Default for Huber {
    /// PyTorch's.
    fn default() -> Self {
        Self { delta: 1.0 }
    }
}

impl Objective for Huber {
    fn check(&self, width: usize, labels: &LabelKind) -> Result<(), TrainError> {
        need_numbers("huber", width, labels)
    }

    fn row(&self, outputs: &[f32], target: Target<'_>, gradient: &mut [f32]) -> RowLoss {
        let width = outputs.len();
        let mut loss = 0.0;
        for (i, (&y, g)) in outputs.iter().zip(gradient).enumerate() {
            let error = f64::from(y) - wanted(target, i, width);
            loss += if error.abs() <= self.delta {
                0.5 * error * error
            } else {
                self.delta * (error.abs() - 0.5 * self.delta)
            };
            *g = (error.clamp(-self.delta, self.delta) / width as f64) as f32;
        }
        RowLoss { loss: loss / width as f64, weight: 1.0 }
    }

    fn takes_logits(&self) -> bool {
        false
    }

    fn is_correct(&self, outputs: &[f32], target: Target<'_>) -> Option<bool> {
        super::squared::is_correct(outputs, target)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::check_gradient;
    use super::*;

    #[test]
    fn closed_form_and_slope() {
        let o = Huber { delta: 2.0 };
        let mut g = [0.0];
        assert_eq!(o.row(&[1.5], Target::Number(0.0), &mut g).loss, 1.125);
        assert_eq!(g, [1.5]);
        assert_eq!(o.row(&[-5.0], Target::Number(0.0), &mut g).loss, 8.0);
        assert_eq!(g, [-2.0]);
        check_gradient(&o, &[0.5, -4.25, 3.0], Target::Class(1));
    }
}
