//! Input × gradient: the gradient of the score times what is there (minus the baseline). Shrikumar et al. 2016,
//! arXiv:1605.01713. Checked against: Captum 0.9.0 (golden/fashion-golden.npz), closed form on a linear model.
//! Differs from the paper: the baseline is subtracted, zeros by default, so that the method is the first term of the Taylor
//! expansion about the row. Complete for networks that are linear between row and baseline only.

use netproof_core::{Card, CardKind, Challenge, Need};
use serde::{Deserialize, Serialize};

use super::saliency::gradients;
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "input-x-gradient",
    version: 1,
    kind: CardKind::Explanation,
    title: "Input × gradient",
    challenge: Challenge::Interpretability,
    measures: "What each element adds to the score if the network were linear: gradient times input minus baseline.",
    reference: "Shrikumar, Greenside, Shcherbina and Kundaje 2016, arXiv:1605.01713, section 3",
    needs: &[Need::InputGradient],
    options: &[],
};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct InputXGradient {}

impl Explainer for InputXGradient {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let mut all = gradients(net, q)?;
        let width = net.row_len().max(1);
        for (i, row) in all.chunks_mut(width).enumerate() {
            for ((g, x), b) in row.iter_mut().zip(q.row(i)).zip(q.baseline_row(i)) {
                *g *= x - b;
            }
        }
        Explanation::of_input(net, q.len(), all)
    }
}

#[cfg(test)]
mod tests {
    use crate::interpretability::test_support::{attributions, golden, linear};

    #[test]
    fn of_a_linear_network_it_is_weight_times_input() {
        let found = attributions("input-x-gradient", &linear(&[2.0, -3.0, 0.5], 1.0), &[[1.0, 2.0, -4.0]], "");
        assert_eq!(found, [2.0, -6.0, -2.0]);
    }

    #[test]
    fn it_is_captums() {
        golden("input-x-gradient", "", "input_x_gradient", &["cnn", "resnet", "vit", "mobilenet"]);
    }
}
