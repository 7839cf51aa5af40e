//! Guided backpropagation: gradients that pass rectifiers only where both the value and the gradient are positive.
//! Springenberg et al., ICLR workshop 2015, arXiv:1412.6806, section 3.4. Checked against: Captum 0.9.0
//! (golden/fashion-golden.npz). Weak: it draws the input's edges whatever the network has learnt (Adebayo et al. 2018); the
//! sanity check says so for each network.

use netproof_core::{Card, CardKind, Challenge, Need};
use netproof_graph::Rule;
use serde::{Deserialize, Serialize};

use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "guided-backpropagation",
    version: 1,
    kind: CardKind::Explanation,
    title: "Guided backpropagation",
    challenge: Challenge::Interpretability,
    measures: "Gradients that pass a rectifier only where they are positive. Sharp pictures that often show the input more than \
               the network.",
    reference: "Springenberg, Dosovitskiy, Brox and Riedmiller, ICLR workshop 2015, arXiv:1412.6806, section 3.4",
    needs: &[Need::InputGradient],
    options: &[],
};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GuidedBackpropagation {}

impl Explainer for GuidedBackpropagation {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        through_rectifiers(net, q, &Rule::GuidedBackpropagation)
    }
}

pub(super) fn through_rectifiers(net: &Explained<'_>, q: &Question, rule: &Rule) -> Result<Explanation, ExplainError> {
    if !net.made().iter().any(|m| matches!(m.operator.as_str(), "Relu" | "Clip")) {
        return Err(ExplainError::not_applicable(
            "the network has no rectifier (Relu or Clip), so that this method is the plain gradient; choose saliency",
        ));
    }
    let mut all = Vec::with_capacity(q.x.len());
    net.carried(q, rule, false, |_, _, arrived| all.extend_from_slice(arrived))?;
    Explanation::of_input(net, q.len(), all)
}

#[cfg(test)]
mod tests {
    use crate::interpretability::test_support::{attributions, golden, network, stored};

    /// y = relu(x0 − x1) − relu(x1)
    fn two_rectifiers() -> netproof_graph::Model {
        network(&[2], 1, |f, x| {
            let w = stored(f, "w", &[2, 2], &[1.0, 0.0, -1.0, 1.0]);
            let h = f.node("MatMul", "h", &[x, &w], &[]);
            let r = f.node("Relu", "r", &[&h], &[]);
            let v = stored(f, "v", &[2, 1], &[1.0, -1.0]);
            f.node("MatMul", "y", &[&r, &v], &[])
        })
    }

    #[test]
    fn what_is_negative_does_not_pass() {
        let model = two_rectifiers();
        assert_eq!(attributions("saliency", &model, &[[3.0, 1.0]], "absolute = false"), [1.0, -2.0]);
        assert_eq!(attributions("guided-backpropagation", &model, &[[3.0, 1.0]], ""), [1.0, -1.0]);
        // The first rectifier is off: guided backpropagation sees it, deconvolution does not.
        assert_eq!(attributions("guided-backpropagation", &model, &[[1.0, 3.0]], ""), [0.0, 0.0]);
        assert_eq!(attributions("deconvolution", &model, &[[1.0, 3.0]], ""), [1.0, -1.0]);
    }

    #[test]
    fn it_is_captums() {
        golden("guided-backpropagation", "", "guided_backprop", &["cnn"]);
    }
}
