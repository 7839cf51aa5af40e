//! Basic iterative method: signed-gradient steps from the row itself.
//! Kurakin, Goodfellow and Bengio, ICLR 2017 workshop, arXiv:1607.02533, section 2.2. PGD without a random start; checked with it.
//! Differs from the paper: the step is a fraction of epsilon, not one grey level. Weak: see PGD.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use serde::{Deserialize, Serialize};

use super::pgd::{Pgd, ascend};
use crate::adversarial::AttackError;
use crate::adversarial::attack::{Attack, Batch};
use crate::adversarial::loss::Loss;
use crate::adversarial::oracle::Oracle;

pub(super) static CARD: Card = Card {
    id: "bim",
    version: 1,
    kind: CardKind::Attack,
    title: "Basic iterative method",
    challenge: Challenge::Adversarial,
    measures: "Steps of steepest ascent on the cross-entropy from the row itself, each projected back into the threat; no \
               random draws.",
    reference: "Kurakin, Goodfellow and Bengio, ICLR 2017 workshop, arXiv:1607.02533, section 2.2",
    needs: &[Need::Labels, Need::Classifier, Need::InputGradient],
    options: &[
        OptionDoc { name: "steps", default: "10", doc: "Steps, 1 to 100000." },
        OptionDoc { name: "relative_step", default: "0.2", doc: "Length of a step as a fraction of epsilon, above 0." },
    ],
};

/// Options.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Bim {
    steps: usize,
    relative_step: f64,
}

impl Default for Bim {
    fn default() -> Self {
        Self { steps: 10, relative_step: 0.2 }
    }
}

impl Attack for Bim {
    fn norms(&self) -> &'static [Norm] {
        &[Norm::Linf, Norm::L2, Norm::L1]
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        let Self { steps, relative_step } = *self;
        let pgd = Pgd { steps, relative_step, random_start: false, restarts: 1, ..Pgd::default() };
        ascend(&pgd, Loss::CrossEntropy, None, oracle, batch, threat)
    }
}
