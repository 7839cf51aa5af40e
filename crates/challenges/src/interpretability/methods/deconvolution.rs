//! Deconvolution: gradients that pass rectifiers where they are positive, whatever the rectifier let through forward.
//! Zeiler and Fergus, ECCV 2014, arXiv:1311.2901, section 2.1; in the form of Simonyan et al. 2014, section 4. Checked by hand
//! on two rectifiers. Weak: as guided backpropagation, it draws the input's edges.

use netproof_core::{Card, CardKind, Challenge, Need};
use netproof_graph::Rule;
use serde::{Deserialize, Serialize};

use super::guided_backpropagation::through_rectifiers;
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "deconvolution",
    version: 1,
    kind: CardKind::Explanation,
    title: "Deconvolution",
    challenge: Challenge::Interpretability,
    measures: "Gradients that pass a rectifier where they are positive, whether or not it was active.",
    reference: "Zeiler and Fergus, ECCV 2014, arXiv:1311.2901, section 2.1",
    needs: &[Need::InputGradient],
    options: &[],
};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Deconvolution {}

impl Explainer for Deconvolution {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        through_rectifiers(net, q, &Rule::Deconvolution)
    }
}
