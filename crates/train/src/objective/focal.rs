//! Focal loss: cross-entropy that counts rows less the better they are answered.
//! Lin et al., ICCV 2017, arXiv:1708.02002, equations 4 and 5, over softmax instead of a sigmoid. Checked against: closed
//! form (γ = 0 is cross-entropy), differences.

use netproof_data::LabelKind;
use serde::Deserialize;

use super::{Objective, RowLoss, check_class_weights, log_softmax, need_classes, read_class_weights, share};
use crate::batch::Target;
use crate::error::{TrainError, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Objective> = Entry {
    id: "focal",
    summary: "focal loss, for many easy rows and few hard ones (Lin et al. 2017)",
    build: |options, _| {
        let own: Focal = options.read()?;
        within("gamma", own.gamma, [0.0, 20.0], "0 to 20")?;
        read_class_weights(&own.class_weights)?;
        Ok(Box::new(own))
    },
};

/// `−Σ_c α_c t_c (1 − p_c)^γ log p_c`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Focal {
    /// How much less easy rows count.
    gamma: f64,
    /// `α`, one per class; all 1 where empty.
    class_weights: Vec<f64>,
}

impl Default for Focal {
    /// γ = 2, the paper's best (table 1b).
    fn default() -> Self {
        Self { gamma: 2.0, class_weights: Vec::new() }
    }
}

impl Objective for Focal {
    fn check(&self, width: usize, labels: &LabelKind) -> Result<(), TrainError> {
        need_classes("focal", width, labels)?;
        check_class_weights(&self.class_weights, width)
    }

    fn row(&self, outputs: &[f32], target: Target<'_>, gradient: &mut [f32]) -> RowLoss {
        let log_p = log_softmax(outputs);
        // g_c = p_c · d/dp_c of the c-th term; the chain rule of softmax makes p_j (…) of it.
        let (mut loss, mut total) = (0.0, 0.0);
        let mut own = vec![0.0; outputs.len()];
        for (c, (&l, g)) in log_p.iter().zip(&mut own).enumerate() {
            let t = share(target, c) * self.class_weights.get(c).copied().unwrap_or(1.0);
            if t == 0.0 {
                continue;
            }
            let p = l.exp();
            let miss = -l.exp_m1();
            let kept = miss.powf(self.gamma);
            loss -= t * kept * l;
            // A row that is certain has no slope; the power below would be 0 · ∞ for γ < 1.
            let bend = if miss > 0.0 { self.gamma * miss.powf(self.gamma - 1.0) * p * l } else { 0.0 };
            *g = t * (bend - kept);
            total += *g;
        }
        for ((out, g), l) in gradient.iter_mut().zip(&own).zip(&log_p) {
            *out = (g - l.exp() * total) as f32;
        }
        RowLoss { loss, weight: 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::check_gradient;
    use super::*;

    #[test]
    fn closed_form_of_even_odds() {
        let o = Focal { gamma: 2.0, class_weights: vec![0.25, 1.0] };
        let row = o.row(&[0.0, 0.0], Target::Class(0), &mut [0.0; 2]);
        assert!((row.loss - 0.25 * 0.25 * 2f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn without_gamma_it_is_cross_entropy() {
        let o = Focal { gamma: 0.0, class_weights: Vec::new() };
        let mut g = [0.0; 2];
        let row = o.row(&[1.0, 0.0], Target::Class(0), &mut g);
        let p = 1.0 / (1.0 + (-1f64).exp());
        assert!((row.loss + p.ln()).abs() < 1e-12 && (f64::from(g[0]) - (p - 1.0)).abs() < 1e-7);
    }

    #[test]
    fn gradient_is_the_slope() {
        for gamma in [0.0, 0.5, 1.0, 2.0] {
            let o = Focal { gamma, class_weights: vec![0.3, 1.0, 2.0] };
            for target in [Target::Class(1), Target::Soft(&[0.2, 0.5, 0.3])] {
                check_gradient(&o, &[0.3, -1.2, 1.0], target);
            }
        }
    }

    #[test]
    fn certain_rows_have_no_slope() {
        let mut g = [1.0; 2];
        let o = Focal { gamma: 0.5, class_weights: Vec::new() };
        assert_eq!(o.row(&[1000.0, 0.0], Target::Class(0), &mut g).loss, 0.0);
        assert_eq!(g, [0.0; 2]);
    }
}
