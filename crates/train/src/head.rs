//! A new last layer for a network that was trained for other classes.

use netproof_graph::{Attribute, Dim, Model, NewNode};
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;

use crate::error::TrainError;

/// The network with another number of answers: its last linear layer is drawn anew, all others stay.
///
/// Weights and biases are uniform between ±1/√fan-in, as in new networks. A softmax or sigmoid at the end stays.
/// # Errors
/// The network does not end in a linear layer (Gemm) over stored weights.
pub(crate) fn replace_head(model: &Model, outputs: usize, seed: u64) -> Result<Model, TrainError> {
    let refuse = |what: String| TrainError::Mismatch {
        message: format!("replace_head: {what}; the last layer must be a Gemm with stored weights"),
    };
    let Some(port) = model.outputs().first() else { return Err(refuse("the network has no output".into())) };
    let made_by = |value: &str| model.nodes().find(|n| n.outputs.iter().any(|o| o == value));
    let mut value = port.name.clone();
    if let Some(last) = made_by(&value).filter(|n| matches!(n.operator.as_str(), "Softmax" | "Sigmoid")) {
        value = last.inputs.first().cloned().unwrap_or(value);
    }
    let node = made_by(&value).ok_or_else(|| refuse(format!("no node makes `{value}`")))?;
    let ("Gemm", [features, weight, rest @ ..]) = (node.operator.as_str(), node.inputs.as_slice()) else {
        return Err(refuse(format!("`{value}` is made by {}", node.operator)));
    };
    let shape = model.parameter(weight).map(Tensor::shape);
    let Some(&[a, b]) = shape else { return Err(refuse(format!("`{weight}` is no stored matrix"))) };
    // Which side of the matrix the answers are on: the bias or the declared output has as many.
    let declared = port.shape.as_ref().and_then(|s| match s.last() {
        Some(Dim::Fixed(n)) => Some(*n),
        _ => None,
    });
    let bias = rest.first().and_then(|b| model.parameter(b)).and_then(|b| b.shape().last().copied());
    let old = bias.or(declared).filter(|n| *n == a || *n == b);
    let old = old.ok_or_else(|| refuse(format!("the number of answers of `{weight}` {a}×{b} is not known")))?;
    let width = if old == a { b } else { a };
    let bound = 1.0 / (width as f64).sqrt();
    let mut rng = Rng::named(seed, "head");
    let mut draw = |n: usize| (0..n).map(|_| (bound * (2.0 * rng.unit() - 1.0)) as f32).collect::<Vec<f32>>();
    let free = |part: &str| {
        let names = (0..).map(|i| if i == 0 { format!("head.{part}") } else { format!("head{i}.{part}") });
        names.into_iter().find(|name| model.value_names().all(|v| v != name)).unwrap_or_default()
    };
    let (new_weight, new_bias) = (free("weight"), free("bias"));
    let gemm = NewNode::new("Gemm", &[features, &new_weight, &new_bias], &[&value])
        .named(&node.name)
        .with("transB", Attribute::Int(1))
        .with_tensor(&new_weight, Tensor::f32(vec![outputs, width], draw(outputs * width))?)
        .with_tensor(&new_bias, Tensor::f32(vec![outputs], draw(outputs))?);
    Ok(model.replace_node(&node.name, vec![gemm])?)
}

#[cfg(test)]
mod tests {
    use netproof_graph::builders::{Activation, mlp};

    use super::*;

    #[test]
    fn only_the_last_layer_is_new() {
        let model = mlp(&[3], &[5], 4, Activation::Relu, 1).unwrap();
        let new = replace_head(&model, 7, 2).unwrap();
        let x = Tensor::f32(vec![2, 3], vec![0.5, -1.0, 2.0, 1.0, 1.0, 1.0]).unwrap();
        assert_eq!(new.predict(&x).unwrap().shape(), [2, 7]);
        assert_eq!(new.outputs()[0].shape.as_ref().unwrap()[1], Dim::Fixed(7));
        assert_eq!(new.parameter("layers.0.weight"), model.parameter("layers.0.weight"));
        let trains: Vec<String> = new.parameters().filter(|p| p.trainable).map(|p| p.name).collect();
        assert_eq!(trains, ["layers.0.weight", "layers.0.bias", "head.weight", "head.bias"]);
        assert!(new.parameter("head.weight").unwrap().as_f32().unwrap().iter().all(|w| w.abs() <= 5f32.sqrt().recip()));
        let again = replace_head(&new, 2, 2).unwrap();
        assert_eq!(again.predict(&x).unwrap().shape(), [2, 2]);
        assert!(again.parameter("head1.weight").is_some() && again.parameter("head.weight").is_none());
    }
}
