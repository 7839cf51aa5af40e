//! Fast gradient sign method: one step to where the linearised loss is largest.
//! Goodfellow, Shlens and Szegedy, ICLR 2015, arXiv:1412.6572, section 4; for other norms the maximum of the same linear function
//! over ball ∩ box. Checked against: closed form on a linear model (exact there), recorded counts on `fashion-cnn`.
//! Differs from the paper: l2 is cut to the box after the step, which is not the exact maximum. Weak: one step; a network
//! trained with it alone may resist it and nothing else.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, Threat};
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::ascent::linear_maximum;
use crate::adversarial::attack::{Attack, Batch};
use crate::adversarial::loss::Loss;
use crate::adversarial::oracle::Oracle;
use crate::adversarial::projection::Ball;
use crate::adversarial::rows::{gather, row, row_mut};

pub(super) static CARD: Card = Card {
    id: "fgsm",
    version: 1,
    kind: CardKind::Attack,
    title: "Fast gradient sign method",
    challenge: Challenge::Adversarial,
    measures: "One step to where the linearised cross-entropy is largest within the threat: the cheapest attack, and a \
               reference for what one step cannot find.",
    reference: "Goodfellow, Shlens and Szegedy, ICLR 2015, arXiv:1412.6572, section 4",
    needs: &[Need::Labels, Need::Classifier, Need::InputGradient],
    options: &[],
};

/// Options: none.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Fgsm {}

impl Attack for Fgsm {
    fn norms(&self) -> &'static [Norm] {
        &Norm::OF_VECTORS
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        let (len, rows, ball) = (batch.row_len(), batch.right(), Ball::from(threat));
        let mut out = batch.x.to_vec();
        let mut objective = |i: usize, z: &[f32], seed: &mut [f32]| {
            Loss::CrossEntropy.of(z, batch.labels[rows[i]], 0, seed);
        };
        let look = oracle.look(&rows, &gather(batch.x, len, &rows), &mut objective)?;
        for (i, &r) in rows.iter().enumerate() {
            let found = linear_maximum(&ball, batch.row(r), row(&look.gradient, len, i));
            row_mut(&mut out, len, r).copy_from_slice(&found);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adversarial::test_support::{linear, run};

    /// Two classes, logits 0 and w·x + b: the margin moves by exactly epsilon |w|_1.
    #[test]
    fn on_a_linear_model_the_step_is_exact() {
        let w = [0.5, -2.0, 1.0];
        let model = linear(&[[0.0; 3], w], &[0.0, -0.2]);
        // w·x + b = 0.5 (0.5) - 2 (0.2) + 0.6 - 0.2 = 0.25; |w|_1 = 3.5.
        let x = [0.5, 0.2, 0.6];
        for (norm, epsilon, reach) in [
            (Norm::Linf, 0.05, 0.05 * 3.5),
            (Norm::L1, 0.05, 0.05 * 2.0),
            (Norm::L2, 0.05, 0.05 * 5.25f32.sqrt()),
            (Norm::L0, 1.0, 1.6),
        ] {
            let threat = Threat::new(norm, epsilon, [0.0, 1.0]).unwrap();
            let (y, logits) = run(&Fgsm {}, &model, &[3], &x, &[1], &threat, 0);
            assert!((logits[1] - (0.25 - reach)).abs() < 1e-5, "{norm}: {y:?} {logits:?}");
        }
    }
}
