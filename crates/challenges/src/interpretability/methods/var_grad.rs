//! VarGrad: how much the gradient varies about the row. Adebayo et al., ICLR workshop 2018, arXiv:1810.03307, equation 3.
//! The variance is that of the population, as in Captum. Checked against a closed form on a quadratic network.
//! Weak: large where the network bends, whichever way; it has no sign and does not sum to anything.

use netproof_core::{Card, CardKind, Challenge, Need};
use serde::{Deserialize, Serialize};

use super::smooth_grad::{NOISE, SAMPLES, noisy_gradients};
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "var-grad",
    version: 1,
    kind: CardKind::Explanation,
    title: "VarGrad",
    challenge: Challenge::Interpretability,
    measures: "How much the gradient of each element varies over noisy copies of the row: large where the network bends.",
    reference: "Adebayo, Gilmer, Goodfellow and Kim, ICLR workshop 2018, arXiv:1810.03307, equation 3",
    needs: &[Need::InputGradient],
    options: &[SAMPLES, NOISE],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct VarGrad {
    samples: usize,
    noise: f64,
}

impl Default for VarGrad {
    fn default() -> Self {
        Self { samples: 50, noise: 0.15 }
    }
}

impl Explainer for VarGrad {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let moments = noisy_gradients(net, q, self.samples, self.noise, false)?;
        Explanation::of_input(net, q.len(), moments.variance.iter().map(|&v| v as f32).collect())
    }
}
