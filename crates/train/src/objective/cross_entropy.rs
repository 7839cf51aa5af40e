//! Cross-entropy of softmax, with label smoothing and class weights.
//! Goodfellow, Bengio, Courville: Deep Learning, 2016, section 6.2.2.3; smoothing: Szegedy et al., CVPR 2016,
//! arXiv:1512.00567, section 7. Checked against: closed form, differences, `torch.nn.CrossEntropyLoss` of PyTorch 2.15.
//! Differs from PyTorch: the mean over distributions as targets is weighted by the classes too, as it is over classes.

use netproof_data::LabelKind;
use serde::Deserialize;

use super::{Objective, RowLoss, check_class_weights, log_softmax, need_classes, read_class_weights, share};
use crate::batch::Target;
use crate::error::{TrainError, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Objective> = Entry {
    id: "cross-entropy",
    summary: "cross-entropy of softmax, with label smoothing and class weights",
    build: |options, _| {
        let own: CrossEntropy = options.read()?;
        within("label_smoothing", own.label_smoothing, [0.0, 1.0], "0 to 1")?;
        read_class_weights(&own.class_weights)?;
        Ok(Box::new(own))
    },
};

/// `−Σ_c w_c q_c log p_c`, where `q` is the target mixed with the uniform distribution.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CrossEntropy {
    /// Part of the uniform distribution in the target.
    label_smoothing: f64,
    /// One per class; all 1 where empty.
    class_weights: Vec<f64>,
}

impl Objective for CrossEntropy {
    fn check(&self, width: usize, labels: &LabelKind) -> Result<(), TrainError> {
        need_classes("cross-entropy", width, labels)?;
        check_class_weights(&self.class_weights, width)
    }

    fn row(&self, outputs: &[f32], target: Target<'_>, gradient: &mut [f32]) -> RowLoss {
        let log_p = log_softmax(outputs);
        let uniform = self.label_smoothing / outputs.len() as f64;
        let class_weight = |c: usize| self.class_weights.get(c).copied().unwrap_or(1.0);
        let weighted = |c: usize| class_weight(c) * ((1.0 - self.label_smoothing) * share(target, c) + uniform);
        let (mut loss, mut mass, mut weight) = (0.0, 0.0, 0.0);
        for (c, l) in log_p.iter().enumerate() {
            let q = weighted(c);
            // 0 · −∞ is nothing here: a class that is not wanted may be impossible.
            if q != 0.0 {
                loss -= q * l;
            }
            mass += q;
            weight += class_weight(c) * share(target, c);
        }
        for (c, (g, l)) in gradient.iter_mut().zip(&log_p).enumerate() {
            *g = (l.exp() * mass - weighted(c)) as f32;
        }
        RowLoss { loss, weight }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::check_gradient;
    use super::*;

    fn objective(label_smoothing: f64, class_weights: &[f64]) -> CrossEntropy {
        CrossEntropy { label_smoothing, class_weights: class_weights.to_vec() }
    }

    #[test]
    fn plain_gradient_is_softmax_minus_one_hot() {
        let mut g = [0.0; 3];
        let row = objective(0.0, &[]).row(&[1.0, 2.0, 3.0], Target::Class(0), &mut g);
        let z = 1f64.exp() + 2f64.exp() + 3f64.exp();
        assert!((row.loss - (z.ln() - 1.0)).abs() < 1e-12);
        assert!((f64::from(g[0]) - (1f64.exp() / z - 1.0)).abs() < 1e-7);
        assert!((f64::from(g[2]) - 3f64.exp() / z).abs() < 1e-7);
    }

    #[test]
    fn recorded_losses_of_pytorch() {
        // torch.nn.CrossEntropyLoss(weight=[1, 2, 0.5], label_smoothing=0.1, reduction="none"), logits [0.3, −1.2, 2].
        let o = objective(0.1, &[1.0, 2.0, 0.5]);
        for (class, want) in [(0, RECORDED[0]), (1, RECORDED[1]), (2, RECORDED[2])] {
            let got = o.row(&[0.3, -1.2, 2.0], Target::Class(class), &mut [0.0; 3]).loss;
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
    }

    const RECORDED: [f64; 3] = [2.0050323, 6.4165363, 0.3842804];

    #[test]
    fn gradient_is_the_slope() {
        for o in [objective(0.0, &[]), objective(0.2, &[]), objective(0.1, &[1.0, 2.0, 0.5])] {
            for target in [Target::Class(1), Target::Soft(&[0.2, 0.5, 0.3])] {
                check_gradient(&o, &[0.3, -1.2, 2.0], target);
            }
        }
    }

    #[test]
    fn extreme_logits_stay_finite() {
        let mut g = [0.0; 2];
        let row = objective(0.0, &[]).row(&[1000.0, -1000.0], Target::Class(1), &mut g);
        assert_eq!((row.loss, g), (2000.0, [1.0, -1.0]));
    }
}
