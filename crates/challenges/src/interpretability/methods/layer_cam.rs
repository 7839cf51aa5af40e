//! Layer-CAM: each place of a map weighted by its own positive gradient. Jiang et al., IEEE Transactions on Image Processing
//! 30, 2021, doi:10.1109/TIP.2021.3089943, equations 4 to 6. Checked against a naive version. Finer than Grad-CAM in early layers.

use netproof_core::{Card, CardKind, Challenge, Need};
use serde::{Deserialize, Serialize};

use super::grad_cam::{LAYER, class_activation};
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "layer-cam",
    version: 1,
    kind: CardKind::Explanation,
    title: "Layer-CAM",
    challenge: Challenge::Interpretability,
    measures: "As Grad-CAM, with each place weighted by its own positive gradient.",
    reference: "Jiang, Zhang, Hou, Cheng and Wei, IEEE Transactions on Image Processing 30, 2021, equations 4 to 6",
    needs: &[Need::InputGradient],
    options: &[LAYER],
};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LayerCam {
    layer: String,
}

impl Explainer for LayerCam {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        class_activation(net, q, &self.layer, true, |a, g, places, cam| {
            for (a, g) in a.chunks(places).zip(g.chunks(places)) {
                cam.iter_mut().zip(a.iter().zip(g)).for_each(|(c, (&a, &g))| *c += g.max(0.0) * a);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use netproof_graph::Attribute;
    use netproof_tensor::Tensor;

    use crate::interpretability::test_support::{ask, close, net_of, network, stored};

    #[test]
    fn places_and_weights_by_hand() {
        // One channel a = x; score = 2 a0 − a1 + 3 a2 + 0 a3.
        let model = network(&[1, 2, 2], 1, |f, x| {
            let w = stored(f, "w", &[1, 1, 1, 1], &[1.0]);
            let a = f.node("Conv", "a", &[x, &w], &[("kernel_shape", Attribute::Ints(vec![1, 1]))]);
            let flat = f.node("Flatten", "flat", &[&a], &[]);
            let v = stored(f, "v", &[4, 1], &[2.0, -1.0, 3.0, 0.0]);
            f.node("MatMul", "y", &[&flat, &v], &[])
        });
        let x = Tensor::f32(vec![1, 1, 2, 2], vec![1.0, 5.0, 2.0, 4.0]).unwrap();
        let net = net_of(&model, &x);
        let found = |id: &str| ask(id, &net, x.clone(), vec![0], "layer = \"a\"").attributions.into_f32().unwrap();
        close(&found("layer-cam"), &[2.0, 0.0, 6.0, 0.0], 1e-6);
        // Mean gradient 1.
        close(&found("grad-cam"), &[1.0, 5.0, 2.0, 4.0], 1e-6);
        // Sum of the map 12: 4 / (8 + 96) · 2 + 9 / (18 + 324) · 3.
        let weight = 4.0 / (8.0 + 96.0) * 2.0 + 9.0 / (18.0 + 324.0) * 3.0;
        close(&found("grad-cam-plus-plus"), &[weight, 5.0 * weight, 2.0 * weight, 4.0 * weight], 1e-5);
    }
}
