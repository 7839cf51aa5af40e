//! Fresh weights for any network, as if it had never been trained.
//!
//! Weights of convolutions and of linear layers in front of ReLU and its kin start normal with variance 2 / fan-in (He et
//! al., ICCV 2015, arXiv:1502.01852, equation 10); other linear and recurrent layers uniform between ±1/√fan-in (LeCun et
//! al., Efficient BackProp, 1998). Biases start at 0, normalisation with scale 1, shift 0, mean 0 and variance 1; tables
//! and other parameters, such as class tokens and positions, normal with deviation 0.02, cut at two deviations
//! (Dosovitskiy et al. 2021, arXiv:2010.11929, in the published code).
//!
//! Weak where normalisation was folded into a deep network: it starts without it then.

use std::collections::HashMap;

use netproof_onnx::proto::NodeProto;
use netproof_tensor::Tensor;

use super::{Edit, int_attribute, is};
use crate::draw::{self, Init};
use crate::error::GraphError;
use crate::model::Model;

/// What hands a value on such that a rectifier behind it still cuts it.
const TRANSPARENT: [&str; 6] = ["Add", "BatchNormalization", "Dropout", "Identity", "Reshape", "MaxPool"];
/// What cuts about half of a symmetric value. GELU as exporters write it takes its input into a division and Erf.
const RECTIFIERS: [&str; 10] =
    ["Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Clip", "HardSwish", "Gelu", "ThresholdedRelu"];
const NORMALISATIONS: [&str; 4] =
    ["BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"];
/// Most nodes between a layer and its rectifier.
const REACH: usize = 3;

impl Model {
    /// Draws all trainable parameters, and running statistics of normalisation, anew.
    ///
    /// Each has draws of its own, by its place in the file.
    /// # Errors
    /// The file cannot be read again.
    pub fn reinitialise(&mut self, seed: u64) -> Result<(), GraphError> {
        let laws = self.laws()?;
        for (i, p) in self.parameters().collect::<Vec<_>>().into_iter().enumerate() {
            let law = match laws.get(&p.name) {
                Some(Some((law, statistic))) if p.trainable || *statistic => *law,
                None if p.trainable => Init::TruncatedNormal(0.02),
                _ => continue,
            };
            let values = draw::tensor(law, p.shape.iter().product(), seed, i as u64);
            self.set_parameter(&p.name, Tensor::f32(p.shape, values)?)?;
        }
        Ok(())
    }

    /// From which law each parameter of a known layer is drawn, and whether it is a running statistic; the first layer
    /// that uses a parameter decides. `None`: it stays, as what is subtracted and divided by in front of a network does.
    fn laws(&self) -> Result<HashMap<String, Option<(Init, bool)>>, GraphError> {
        let edit = Edit::new(self, "reinitialise")?;
        let nodes = &edit.graph.node;
        let mut laws: HashMap<String, Option<(Init, bool)>> = HashMap::new();
        let shape = |name: Option<&String>| self.parameter(name?).filter(|t| t.dtype().is_float()).map(Tensor::shape);
        let mut note = |name: Option<&String>, law, statistic| {
            if let Some(name) = name.filter(|n| shape(Some(n)).is_some()) {
                laws.entry(name.clone()).or_insert(Some((law, statistic)));
            }
        };
        for node in nodes {
            let input = |i: usize| node.input.get(i);
            match node.op_type() {
                "Conv" => {
                    if let Some([_, rest @ ..]) = shape(input(1)) {
                        note(input(1), he(rest.iter().product()), false);
                    }
                    note(input(2), Init::Constant(0.0), false);
                }
                "ConvTranspose" => {
                    if let Some([fan, ..]) = shape(input(1)) {
                        note(input(1), he(*fan), false);
                    }
                    note(input(2), Init::Constant(0.0), false);
                }
                "Gemm" | "MatMul" => {
                    let transposed = int_attribute(node, "transB", 0) == 1;
                    if let Some(&[a, b]) = shape(input(1)) {
                        let fan = if transposed { b } else { a };
                        note(input(1), if rectified(node, nodes, 0) { he(fan) } else { lecun(fan) }, false);
                    }
                    note(input(2), Init::Constant(0.0), false);
                }
                "LSTM" | "GRU" | "RNN" => {
                    if let Some(&[_, _, hidden]) = shape(input(2)) {
                        (1..4).for_each(|i| note(input(i), lecun(hidden), false));
                    }
                }
                norm if NORMALISATIONS.contains(&norm) => {
                    for (i, start) in [1.0, 0.0, 0.0, 1.0].into_iter().enumerate() {
                        note(input(i + 1), Init::Constant(start), i > 1);
                    }
                }
                // A bias beside a product, or scale and shift of a normalisation that is written out.
                "Add" | "Mul" => {
                    let start = if node.op_type() == "Mul" { 1.0 } else { 0.0 };
                    for side in [input(0), input(1)].into_iter().filter(|i| shape(*i).is_some_and(|s| s.len() <= 1)) {
                        note(side, Init::Constant(start), false);
                    }
                }
                _ => {}
            }
        }
        for node in nodes.iter().filter(|n| is(n, &["Sub", "Div"])) {
            for input in node.input.iter().filter(|i| self.parameter(i).is_some()) {
                laws.insert(input.clone(), None);
            }
        }
        Ok(laws)
    }
}

fn he(fan_in: usize) -> Init {
    Init::Normal((2.0 / fan_in.max(1) as f64).sqrt())
}

fn lecun(fan_in: usize) -> Init {
    Init::Uniform(1.0 / (fan_in.max(1) as f64).sqrt())
}

/// Whether what a node makes goes into a rectifier.
fn rectified(node: &NodeProto, nodes: &[NodeProto], depth: usize) -> bool {
    let behind = |node: &NodeProto| -> Vec<&NodeProto> {
        nodes.iter().filter(|n| n.input.iter().any(|i| !i.is_empty() && node.output.contains(i))).collect()
    };
    behind(node).into_iter().any(|user| {
        is(user, &RECTIFIERS)
            || is(user, &["Div"]) && behind(user).into_iter().any(|n| is(n, &["Erf"]))
            || depth < REACH && is(user, &TRANSPARENT) && rectified(user, nodes, depth + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builders::{Activation, Shortcut, VitOptions, mlp, resnet_cifar, vit};

    fn spread(model: &Model, name: &str) -> f64 {
        let v = model.parameter(name).unwrap().as_f32().unwrap();
        (v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / v.len() as f64).sqrt()
    }

    #[test]
    fn layers_start_as_their_law_says() {
        let mut model = mlp(&[400], &[300], 10, Activation::Relu, 1).unwrap();
        let before = model.parameter("layers.0.weight").cloned();
        model.reinitialise(2).unwrap();
        assert_ne!(model.parameter("layers.0.weight").cloned(), before);
        assert!((spread(&model, "layers.0.weight") / (2.0f64 / 400.0).sqrt() - 1.0).abs() < 0.02);
        assert!((spread(&model, "layers.1.weight") / (1.0f64 / 900.0).sqrt() - 1.0).abs() < 0.05);
        assert_eq!(spread(&model, "layers.0.bias"), 0.0);
        let mut again = mlp(&[400], &[300], 10, Activation::Relu, 9).unwrap();
        again.reinitialise(2).unwrap();
        assert_eq!(again.trainable_values(), model.trainable_values());
        again.reinitialise(3).unwrap();
        assert_ne!(again.trainable_values(), model.trainable_values());
    }

    #[test]
    fn statistics_and_scales_start_neutral() {
        let mut model = resnet_cifar(8, Shortcut::Projection, [3, 8, 8], 4, 1).unwrap();
        let norms: Vec<_> = model.nodes().filter(|n| n.operator == "BatchNormalization").collect();
        for n in &norms {
            for i in 1..5 {
                let t = model.parameter(&n.inputs[i]).unwrap();
                let other = Tensor::f32(t.shape().to_vec(), vec![7.0; t.len()]).unwrap();
                model.set_parameter(&n.inputs[i], other).unwrap();
            }
        }
        model.reinitialise(2).unwrap();
        for n in &norms {
            for (i, start) in [1.0, 0.0, 0.0, 1.0].into_iter().enumerate() {
                assert!(model.parameter(&n.inputs[i + 1]).unwrap().as_f32().unwrap().iter().all(|v| *v == start));
            }
        }
    }

    #[test]
    fn normalisation_in_front_of_a_network_stays() {
        let mut b = crate::FileBuilder::new("front");
        let x = b.add_batch_input("x", &[3]);
        let mean = b.add_initializer("mean", Tensor::f32(vec![3], vec![5.0, 6.0, 7.0]).unwrap());
        let std = b.add_initializer("std", Tensor::f32(vec![1, 3], vec![2.0, 3.0, 4.0]).unwrap());
        let weight = b.add_initializer("w", Tensor::f32(vec![3, 2], vec![9.0; 6]).unwrap());
        let centred = b.node("Sub", "centred", &[&x, &mean], &[]);
        let scaled = b.node("Div", "scaled", &[&centred, &std], &[]);
        let y = b.node("MatMul", "y", &[&scaled, &weight], &[]);
        b.batch_output(&y, &[2]);
        let mut model = Model::from_file(b.build().unwrap()).unwrap();
        model.reinitialise(1).unwrap();
        assert_eq!(model.parameter("mean").unwrap().as_f32().unwrap(), [5.0, 6.0, 7.0]);
        assert_eq!(model.parameter("std").unwrap().as_f32().unwrap(), [2.0, 3.0, 4.0]);
        assert!(model.parameter("w").unwrap().as_f32().unwrap().iter().all(|w| w.abs() < 3f32.sqrt().recip() + 1e-6));
    }

    #[test]
    fn tokens_and_positions_are_small_and_answers_stay_finite() {
        let options =
            VitOptions { image: [1, 8, 8], patch: 4, classes: 3, width: 16, depth: 2, heads: 2, mlp: 32, seed: 1 };
        let mut model = vit(&options).unwrap();
        model.reinitialise(5).unwrap();
        for p in model.parameters().filter(|p| p.trainable) {
            let s = spread(&model, &p.name);
            assert!(s.is_finite() && s < 1.01, "{} {s}", p.name);
        }
        let y = model.predict(&Tensor::f32(vec![2, 1, 8, 8], vec![0.5; 128]).unwrap()).unwrap();
        assert!(y.as_f32().unwrap().iter().all(|v| v.is_finite()));
    }
}
