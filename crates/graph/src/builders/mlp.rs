//! Fully connected networks.

use super::{DEEPEST, Net, check_range, check_sizes};
use crate::draw::Init;
use crate::error::GraphError;
use crate::model::Model;

/// What follows each hidden layer of an MLP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activation {
    /// max(0, x).
    #[default]
    Relu,
    /// x · Φ(x).
    Gelu,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
}

/// A multilayer perceptron: one linear layer and activation per entry of `hidden`, then a linear layer to the classes.
///
/// Hidden layers start normal with variance 2 / fan-in before ReLU and GELU (He et al. 2015, equation 10), uniform with
/// bounds ±√(6 / (fan-in + fan-out)) before the others (Glorot and Bengio, AISTATS 2010, equation 16); biases at 0.
/// # Shapes
/// `[batch, input...]` → `[batch, classes]`; inputs of more than one dimension are flattened.
/// # Errors
/// A size is 0 or too large.
pub fn mlp(
    input: &[usize],
    hidden: &[usize],
    classes: usize,
    activation: Activation,
    seed: u64,
) -> Result<Model, GraphError> {
    network(input, hidden, classes, activation)?.build(seed)
}

fn network(input: &[usize], hidden: &[usize], classes: usize, activation: Activation) -> Result<Net, GraphError> {
    check_sizes("mlp", &[("classes", classes), ("number of input dimensions", input.len())])?;
    check_sizes("mlp", &input.iter().map(|&n| ("input", n)).collect::<Vec<_>>())?;
    check_sizes("mlp", &hidden.iter().map(|&n| ("hidden", n)).collect::<Vec<_>>())?;
    check_range("mlp", &[("number of layers", hidden.len() + 1)], DEEPEST)?;
    let (mut net, mut x) = Net::new("mlp", input);
    if input.len() > 1 {
        x = net.flatten("flatten", &x);
    }
    let mut width = input.iter().fold(1usize, |n, &d| n.saturating_mul(d));
    for (i, &next) in hidden.iter().enumerate() {
        let init = match activation {
            Activation::Relu | Activation::Gelu => Init::Normal((2.0 / width as f64).sqrt()),
            Activation::Tanh | Activation::Sigmoid => Init::Uniform((6.0 / (width as f64 + next as f64)).sqrt()),
        };
        x = net.linear(&format!("layers.{i}"), &x, [width, next], init, Init::Constant(0.0));
        let name = format!("layers.{i}.activation");
        x = match activation {
            Activation::Relu => net.op("Relu", &name, &[&x]),
            Activation::Gelu => net.gelu(&name, &x),
            Activation::Tanh => net.op("Tanh", &name, &[&x]),
            Activation::Sigmoid => net.op("Sigmoid", &name, &[&x]),
        };
        width = next;
    }
    net.classifier(&format!("layers.{}", hidden.len()), &x, [width, classes], None);
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_weights_and_biases_of_each_layer() {
        let net = network(&[1, 28, 28], &[100, 50], 10, Activation::Relu).unwrap();
        assert_eq!(net.file.trainable_count(), 784 * 100 + 100 + 100 * 50 + 50 + 50 * 10 + 10);
        assert_eq!(network(&[4], &[], 3, Activation::Tanh).unwrap().file.trainable_count(), 15);
    }

    #[test]
    fn impossible_sizes_are_named() {
        let refused = |input: &[usize], hidden: &[usize], classes| {
            network(input, hidden, classes, Activation::Relu).err().unwrap().to_string()
        };
        assert_eq!(refused(&[4], &[8, 0], 3), "mlp: `hidden` is 0, it must be between 1 and 16777216");
        assert!(refused(&[], &[8], 3).contains("input"));
        assert!(refused(&[4], &[8], 0).contains("`classes` is 0"));
        let vast = network(&[1 << 24, 1 << 24, 1 << 24], &[1 << 24], 2, Activation::Relu).unwrap();
        assert!(vast.build(0).unwrap_err().to_string().contains("choose smaller sizes"));
    }
}
