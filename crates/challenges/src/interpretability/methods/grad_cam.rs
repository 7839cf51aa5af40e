//! Grad-CAM: a map of features, each weighted by the mean gradient of the score. Selvaraju et al., ICCV 2017,
//! arXiv:1610.02391, equations 1 and 2. Checked against: Captum 0.9.0 (golden/fashion-golden.npz, and the printed values of its
//! tests).
//!
//! The map has the size of the layer that it looks at; nothing is rescaled per image, so that magnitudes can be compared. The
//! layer is found automatically and said, or named: any value `[n, channels, height, width]`, or tokens on a square grid.
//! Weak: coarse, and blind to what the layer's mean gradient cancels.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::interpretability::maps::{Map, choose};
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "grad-cam",
    version: 1,
    kind: CardKind::Explanation,
    title: "Grad-CAM",
    challenge: Challenge::Interpretability,
    measures: "Where in the image the features lie that raise the score: maps of a layer, each weighted by its mean gradient.",
    reference: "Selvaraju, Cogswell, Das, Vedantam, Parikh and Batra, ICCV 2017, arXiv:1610.02391, equations 1 and 2",
    needs: &[Need::InputGradient],
    options: &[
        LAYER,
        OptionDoc {
            name: "relu",
            default: "true",
            doc: "Whether only what raises the score is kept, as in the paper.",
        },
    ],
};

pub(super) const LAYER: OptionDoc = OptionDoc {
    name: "layer",
    default: "\"\"",
    doc: "Name of the value to look at; empty: the last map that the score has a gradient for.",
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GradCam {
    layer: String,
    relu: bool,
}

impl Default for GradCam {
    fn default() -> Self {
        Self { layer: String::new(), relu: true }
    }
}

impl Explainer for GradCam {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        class_activation(net, q, &self.layer, self.relu, |a, g, places, cam| {
            for (a, g) in a.chunks(places).zip(g.chunks(places)) {
                let weight = g.iter().sum::<f32>() / places as f32;
                cam.iter_mut().zip(a).for_each(|(c, &a)| *c += weight * a);
            }
        })
    }
}

/// A map of one row: activations and gradients `[channels, places]` to `[places]`.
pub(super) fn class_activation(
    net: &Explained<'_>,
    q: &Question,
    layer: &str,
    relu: bool,
    combine: impl Fn(&[f32], &[f32], usize, &mut [f32]),
) -> Result<Explanation, ExplainError> {
    let (map, said) = choose(net, q, layer)?;
    let places = map.height * map.width;
    let mut all = Vec::with_capacity(q.len() * places);
    let names = [map.name.clone()];
    net.probe(q, &names, |_, found| {
        let [(values, gradient)] = found else { return Ok(()) };
        let Some(gradient) = gradient else { return Err(net.cut_off()) };
        let width = values.row_len().max(1);
        let rows = values.as_f32().unwrap_or_default().chunks(width);
        for (a, g) in rows.zip(gradient.as_f32().unwrap_or_default().chunks(width)) {
            let mut cam = vec![0.0; places];
            combine(&map.channels_of(a), &map.channels_of(g), places, &mut cam);
            all.extend(cam.into_iter().map(|v| if relu { v.max(0.0) } else { v }));
        }
        Ok(())
    })?;
    map_of(&map, q.len(), all).map(|e| e.note(said))
}

pub(super) fn map_of(map: &Map, rows: usize, values: Vec<f32>) -> Result<Explanation, ExplainError> {
    Ok(Explanation::of(&map.name, Tensor::f32(vec![rows, 1, map.height, map.width], values)?))
}

#[cfg(test)]
mod tests {
    use netproof_graph::Model;
    use netproof_tensor::Tensor;

    use crate::interpretability::test_support::{ask, close, golden, golden_network, net_of, network, stored};

    /// Captum's network: two convolutions of ones with biases −50 and −75, rectifier, pooling, product with weights 1 and −1.
    fn captums() -> Model {
        network(&[1, 4, 4], 1, |f, x| {
            let w = stored(f, "w", &[2, 1, 3, 3], &[1.0; 18]);
            let b = stored(f, "b", &[2], &[-50.0, -75.0]);
            let h = f.node("Conv", "conv1", &[x, &w, &b], &[]);
            let r = f.node("Relu", "relu1", &[&h], &[]);
            let flat = f.node("Flatten", "flat", &[&r], &[]);
            let v = stored(f, "v", &[8, 1], &[1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0]);
            f.node("MatMul", "fc", &[&flat, &v], &[])
        })
    }

    #[test]
    fn it_gives_the_printed_values_of_captums_tests() {
        let model = captums();
        let x = Tensor::f32(vec![1, 1, 4, 4], (0..16).map(|i| i as f32).collect()).unwrap();
        let net = net_of(&model, &x);
        let e = ask("grad-cam", &net, x.clone(), vec![0], "layer = \"conv1\"\nrelu = false");
        close(e.attributions.as_f32().unwrap(), &[11.25, 13.5, 20.25, 22.5], 1e-6);
        let e = ask("grad-cam", &net, x, vec![0], "layer = \"relu1\"\nrelu = false");
        close(e.attributions.as_f32().unwrap(), &[0.0, 4.0, 28.0, 32.5], 1e-6);
    }

    #[test]
    fn it_is_captums() {
        let conv = "layer = \"/features/features.3/Conv_output_0\"";
        golden("grad-cam", conv, "gradcam_second_conv_relu", &["cnn"]);
        golden("grad-cam", "layer = \"/l3/Relu_1_output_0\"", "gradcam_last_block_output_relu", &["resnet"]);
        golden("grad-cam", "layer = \"/d/d.6/Conv_output_0\"", "gradcam_last_block_branch_output_relu", &["mobilenet"]);
    }

    #[test]
    fn the_last_suitable_layer_is_found_and_said() {
        for (name, layer) in [
            ("cnn", "/features/features.4/Relu_output_0"),
            ("resnet", "/l3/Relu_1_output_0"),
            ("mobilenet", "/Add_1_output_0"),
        ] {
            let Some((model, x, labels)) = golden_network(name, 1) else { return };
            let e = ask("grad-cam", &net_of(&model, &x), x, labels, "");
            assert_eq!(e.value, layer);
            assert!(e.notes.iter().any(|n| n.contains(layer)), "{:?}", e.notes);
        }
        let Some((model, x, labels)) = golden_network("vit", 1) else { return };
        let e = ask("grad-cam", &net_of(&model, &x), x, labels, "");
        assert_eq!(e.attributions.shape(), [1, 1, 7, 7]);
        // The last norm1: what comes behind the last attention reaches the score through the class token only.
        assert_eq!(e.value, "/n1.1/LayerNormalization_output_0");
    }
}
