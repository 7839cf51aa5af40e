//! Momentum iterative method: steps along a decaying sum of normalised gradients.
//! Dong et al., CVPR 2018, arXiv:1710.06081, algorithm 1. Checked against: closed form on a linear model (in `pgd`).
//! Made for transfer to other networks; against the network itself PGD is at least as strong.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use serde::{Deserialize, Serialize};

use super::pgd::{Pgd, ascend};
use crate::adversarial::AttackError;
use crate::adversarial::attack::{Attack, Batch};
use crate::adversarial::loss::Loss;
use crate::adversarial::oracle::Oracle;

pub(super) static CARD: Card = Card {
    id: "mi-fgsm",
    version: 1,
    kind: CardKind::Attack,
    title: "Momentum iterative method",
    challenge: Challenge::Adversarial,
    measures: "Steps along a decaying sum of normalised gradients, which carry over to other networks better than those of \
               plain ascent.",
    reference: "Dong et al., CVPR 2018, arXiv:1710.06081, algorithm 1",
    needs: &[Need::Labels, Need::Classifier, Need::InputGradient],
    options: &[
        OptionDoc { name: "steps", default: "10", doc: "Steps, 1 to 100000." },
        OptionDoc { name: "relative_step", default: "0.1", doc: "Length of a step as a fraction of epsilon, above 0." },
        OptionDoc { name: "decay", default: "1.0", doc: "What remains of the sum of gradients after a step, 0 to 1." },
    ],
};

/// Options; the defaults are those of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct MiFgsm {
    steps: usize,
    relative_step: f64,
    decay: f64,
}

impl Default for MiFgsm {
    fn default() -> Self {
        Self { steps: 10, relative_step: 0.1, decay: 1.0 }
    }
}

impl Attack for MiFgsm {
    fn norms(&self) -> &'static [Norm] {
        &[Norm::Linf, Norm::L2, Norm::L1]
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        let Self { steps, relative_step, decay } = *self;
        if !(0.0..=1.0).contains(&decay) {
            return Err(AttackError::Value { name: "decay", value: decay, allowed: "0 to 1" });
        }
        let pgd = Pgd { steps, relative_step, random_start: false, restarts: 1, ..Pgd::default() };
        ascend(&pgd, Loss::CrossEntropy, Some(decay as f32), oracle, batch, threat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adversarial::test_support::{linear, run};

    #[test]
    fn on_a_linear_model_ten_tenths_reach_the_corner() {
        let model = linear(&[[0.0; 3], [0.5, -2.0, 1.0]], &[0.0, 0.0]);
        let threat = Threat::new(Norm::Linf, 0.05, [0.0, 1.0]).unwrap();
        let (y, _) = run(&MiFgsm::default(), &model, &[3], &[0.5, 0.2, 0.6], &[1], &threat, 0);
        for (y, want) in y.iter().zip([0.45, 0.25, 0.55]) {
            assert!((y - want).abs() < 1e-6, "{y} {want}");
        }
    }
}
