//! Grad-CAM++: as Grad-CAM, with weights that count several instances of a feature. Chattopadhay et al., WACV 2018,
//! arXiv:1710.11063, equations 10 and 19. Checked against a naive version. As in the paper's implementation the score enters
//! through its exponential, so that higher derivatives are powers of the gradient.

use netproof_core::{Card, CardKind, Challenge, Need};
use serde::{Deserialize, Serialize};

use super::grad_cam::{LAYER, class_activation};
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "grad-cam-plus-plus",
    version: 1,
    kind: CardKind::Explanation,
    title: "Grad-CAM++",
    challenge: Challenge::Interpretability,
    measures: "As Grad-CAM, with pixel-wise weights of the gradients, so that each of several instances counts.",
    reference: "Chattopadhay, Sarkar, Howlader and Balasubramanian, WACV 2018, arXiv:1710.11063, equations 10 and 19",
    needs: &[Need::InputGradient],
    options: &[LAYER],
};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GradCamPlusPlus {
    layer: String,
}

impl Explainer for GradCamPlusPlus {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        class_activation(net, q, &self.layer, true, |a, g, places, cam| {
            for (a, g) in a.chunks(places).zip(g.chunks(places)) {
                let sum: f32 = a.iter().sum();
                let weight: f32 = g
                    .iter()
                    .filter(|&&g| g > 0.0)
                    .map(|&g| {
                        let below = 2.0 * g * g + sum * g * g * g;
                        if below == 0.0 { 0.0 } else { g * g / below * g }
                    })
                    .sum();
                cam.iter_mut().zip(a).for_each(|(c, &a)| *c += weight * a);
            }
        })
    }
}
