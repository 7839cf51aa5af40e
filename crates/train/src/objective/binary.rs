//! Binary cross-entropy of a sigmoid: one output for two classes, or one per class against all others.
//! Goodfellow, Bengio, Courville: Deep Learning, 2016, section 6.2.2.2. Checked against: closed form, differences.

use netproof_data::LabelKind;
use serde::Deserialize;

use super::{Objective, RowLoss, need_numbers, wanted};
use crate::batch::Target;
use crate::error::{TrainError, refuse};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Objective> = Entry {
    id: "binary",
    summary: "binary cross-entropy of a sigmoid: one output for two classes, or one per class",
    build: |options, _| {
        let own: Binary = options.read()?;
        if !(own.positive_weight > 0.0 && own.positive_weight.is_finite()) {
            return Err(refuse("positive_weight", own.positive_weight, "a number over 0"));
        }
        Ok(Box::new(own))
    },
};

/// Mean over the outputs of `−(w t log σ(z) + (1 − t) log(1 − σ(z)))`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Binary {
    /// What the positive class counts, as in `torch.nn.BCEWithLogitsLoss`.
    positive_weight: f64,
}

impl Default for Binary {
    fn default() -> Self {
        Self { positive_weight: 1.0 }
    }
}

impl Objective for Binary {
    fn check(&self, width: usize, labels: &LabelKind) -> Result<(), TrainError> {
        need_numbers("binary", width, labels)
    }

    fn row(&self, outputs: &[f32], target: Target<'_>, gradient: &mut [f32]) -> RowLoss {
        let width = outputs.len();
        let mut loss = 0.0;
        for (i, (&z, g)) in outputs.iter().zip(gradient).enumerate() {
            let (z, t) = (f64::from(z), wanted(target, i, width));
            let positive = self.positive_weight * t;
            // log(1 + e^−z) and log(1 + e^z), without overflow.
            let tail = (-z.abs()).exp().ln_1p();
            loss += positive * (tail + (-z).max(0.0)) + (1.0 - t) * (tail + z.max(0.0));
            let p = 1.0 / (1.0 + (-z).exp());
            *g = ((positive * (p - 1.0) + (1.0 - t) * p) / width as f64) as f32;
        }
        RowLoss { loss: loss / width as f64, weight: 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::check_gradient;
    use super::*;

    #[test]
    fn closed_form_of_one_output() {
        let mut g = [0.0];
        let row = Binary { positive_weight: 3.0 }.row(&[0.0], Target::Class(1), &mut g);
        assert!((row.loss - 3.0 * 2f64.ln()).abs() < 1e-12 && g == [-1.5]);
        let row = Binary::default().row(&[800.0], Target::Class(0), &mut g);
        assert_eq!((row.loss, g), (800.0, [1.0]));
        assert_eq!(Binary::default().row(&[-800.0], Target::Class(0), &mut g).loss, 0.0);
    }

    #[test]
    fn gradient_is_the_slope() {
        let o = Binary { positive_weight: 2.5 };
        check_gradient(&o, &[0.7], Target::Class(1));
        check_gradient(&o, &[0.7], Target::Soft(&[0.4, 0.6]));
        check_gradient(&o, &[0.7, -0.2, 1.5], Target::Class(1));
    }

    #[test]
    fn the_sign_of_one_output_is_the_answer() {
        let o = Binary::default();
        assert_eq!(o.is_correct(&[0.1], Target::Class(1)), Some(true));
        assert_eq!(o.is_correct(&[-0.1], Target::Class(1)), Some(false));
    }
}
