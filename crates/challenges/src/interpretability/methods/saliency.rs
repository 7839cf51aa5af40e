//! Saliency: the gradient of the score, absolute. Simonyan, Vedaldi and Zisserman, ICLR workshop 2014, arXiv:1312.6034,
//! section 3. Checked against: Captum 0.9.0 (golden/fashion-golden.npz), closed form on a linear model.
//! Weak where the score saturates: the gradient is then small although the element matters.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use serde::{Deserialize, Serialize};

use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "saliency",
    version: 1,
    kind: CardKind::Explanation,
    title: "Saliency",
    challenge: Challenge::Interpretability,
    measures: "How fast the score changes with each element of the input: the absolute gradient.",
    reference: "Simonyan, Vedaldi and Zisserman, ICLR workshop 2014, arXiv:1312.6034, section 3",
    needs: &[Need::InputGradient],
    options: &[OptionDoc { name: "absolute", default: "true", doc: "Whether signs are dropped." }],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Saliency {
    absolute: bool,
}

impl Default for Saliency {
    fn default() -> Self {
        Self { absolute: true }
    }
}

impl Explainer for Saliency {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let mut all = gradients(net, q)?;
        if self.absolute {
            all.iter_mut().for_each(|v| *v = v.abs());
        }
        Explanation::of_input(net, q.len(), all)
    }
}

/// The gradients of all rows, one after the other.
pub(super) fn gradients(net: &Explained<'_>, q: &Question) -> Result<Vec<f32>, ExplainError> {
    let mut all = Vec::with_capacity(q.x.len());
    let fill = |i: usize, row: &mut [f32]| {
        row.copy_from_slice(q.row(i));
        i
    };
    net.gradients(q, q.len(), fill, |_, _, g| all.extend_from_slice(g))?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use crate::interpretability::test_support::{attributions, golden, linear};

    #[test]
    fn of_a_linear_network_it_is_the_weights() {
        let weights = [2.0, -3.0, 0.5];
        let found = attributions("saliency", &linear(&weights, 1.0), &[[1.0, 2.0, 3.0], [-1.0, 0.0, 9.0]], "");
        assert_eq!(found, [2.0, 3.0, 0.5, 2.0, 3.0, 0.5]);
        let signed = attributions("saliency", &linear(&weights, 1.0), &[[1.0, 2.0, 3.0]], "absolute = false");
        assert_eq!(signed, weights);
    }

    #[test]
    fn it_is_captums() {
        golden("saliency", "", "saliency", &["cnn", "resnet", "vit", "mobilenet"]);
    }
}
