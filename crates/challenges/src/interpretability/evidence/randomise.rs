//! Copies of a network whose weights say nothing: the values of each tensor in random order.
//!
//! An ONNX file does not say how its weights were drawn. A random order keeps each tensor's scale and signs (and variances
//! positive), so that answers stay in range, and takes away what was learnt.

use netproof_graph::Model;
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;

use crate::interpretability::ExplainError;

/// Parameters that are randomised together: a weight with what is added or scaled after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The node that uses the first of them.
    pub name: String,
    /// Names of the parameters.
    pub parameters: Vec<String>,
}

/// In which order layers are randomised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// From the output down, each stage with all above it: "cascading".
    TopDown,
    /// From the input up, each stage with all below it.
    BottomUp,
    /// Each stage alone.
    Independent,
}

/// Layers of a network from the input to the output: a layer begins with each weight of two or more dimensions.
pub fn layers(model: &Model) -> Vec<Layer> {
    let mut taken: Vec<String> = Vec::new();
    let mut layers: Vec<Layer> = Vec::new();
    let infos: Vec<_> = model.parameters().collect();
    for node in model.nodes() {
        let own: Vec<_> = infos
            .iter()
            .filter(|p| p.trainable && p.shape.iter().product::<usize>() > 1)
            .filter(|p| node.inputs.contains(&p.name) && !taken.contains(&p.name))
            .collect();
        if own.is_empty() {
            continue;
        }
        let weight = own.iter().any(|p| p.shape.iter().filter(|&&d| d > 1).count() > 1);
        let names: Vec<String> = own.iter().map(|p| p.name.clone()).collect();
        taken.extend(names.iter().cloned());
        match layers.last_mut() {
            Some(last) if !weight => last.parameters.extend(names),
            _ => layers.push(Layer { name: node.name.clone(), parameters: names }),
        }
    }
    layers
}

/// Puts the values of some layers' parameters in an order that depends on seed, draw and name only.
/// # Errors
/// A layer is not this network's.
pub(super) fn shuffle(model: &mut Model, layers: &[Layer], seed: u64, draw: u64) -> Result<(), ExplainError> {
    for name in layers.iter().flat_map(|l| &l.parameters) {
        let Some(tensor) = model.parameter(name) else { continue };
        let (shape, mut values) = (tensor.shape().to_vec(), tensor.as_f32().unwrap_or_default().to_vec());
        Rng::stream(Rng::named(seed, name).next_u64(), draw + 1).shuffle(&mut values);
        model.set_parameter(name, Tensor::f32(shape, values)?)?;
    }
    Ok(())
}

/// A copy with every layer in random order.
/// # Errors
/// The network cannot be copied.
pub fn shuffled(model: &Model, seed: u64, draw: u64) -> Result<Model, ExplainError> {
    let mut copy = Model::from_file(model.to_file()?)?;
    shuffle(&mut copy, &layers(model), seed, draw)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use netproof_graph::builders::{CnnOptions, cnn};

    use super::*;

    #[test]
    fn layers_go_from_input_to_output_with_their_biases() {
        let model = cnn(&CnnOptions { channels: vec![3, 4], hidden: 5, ..CnnOptions::new([1, 8, 8], 3) }).unwrap();
        let layers = layers(&model);
        assert_eq!(layers.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["conv1", "conv2", "fc1", "fc2"]);
        assert_eq!(layers[2].parameters, ["fc1.weight", "fc1.bias"]);
    }

    #[test]
    fn values_are_kept_in_another_order() {
        let model = cnn(&CnnOptions { channels: vec![3], hidden: 5, ..CnnOptions::new([1, 8, 8], 3) }).unwrap();
        let sorted = |m: &Model| {
            let mut v = m.parameter("fc1.weight").unwrap().as_f32().unwrap().to_vec();
            v.sort_by(f32::total_cmp);
            v
        };
        let (a, b) = (shuffled(&model, 7, 0).unwrap(), shuffled(&model, 7, 1).unwrap());
        let raw = |m: &Model| m.parameter("fc1.weight").unwrap().as_f32().unwrap().to_vec();
        assert!(raw(&a) != raw(&model) && raw(&a) != raw(&b));
        assert_eq!(sorted(&a), sorted(&model));
        assert_eq!(raw(&a), raw(&shuffled(&model, 7, 0).unwrap()));
    }
}
