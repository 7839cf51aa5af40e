//! Energy of the logits: `−log Σ exp z`.
//! Liu, Wang, Owens and Li, NeurIPS 2020, arXiv:2010.03759, equation 4 with temperature 1. Checked against: differences.

use super::Local;

pub(super) struct Energy;

impl Local for Energy {
    fn of(&self, logits: &[f32], _: &[f32], to_logits: &mut [f32], _: &mut [f32]) -> f64 {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&z| f64::from(z - max).exp()).sum();
        to_logits.iter_mut().zip(logits).for_each(|(s, &z)| *s = (-f64::from(z - max).exp() / sum) as f32);
        -(sum.ln() + f64::from(max))
    }
}
