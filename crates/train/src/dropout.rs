//! Dropout put into any network.
//! Srivastava et al., JMLR 2014. The nodes stay in the file, where they do nothing outside training.

use netproof_graph::{Model, NewNode};
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{TrainError, refuse};

/// Dropout behind some values of a network; none by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dropout {
    /// Part of the numbers that are dropped in training.
    pub rate: f64,
    /// Names of values; where empty, what goes into the last layer and, in networks with other hidden linear layers, into
    /// each of those but the first layer.
    pub after: Vec<String>,
}

impl Dropout {
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        if (0.0..1.0).contains(&self.rate) {
            Ok(())
        } else {
            Err(refuse("rate", self.rate, "0 up to, but not including, 1"))
        }
    }

    /// The network with the dropout.
    /// # Errors
    /// There is no such value, or no place is found.
    pub fn insert(&self, model: Model) -> Result<Model, TrainError> {
        self.check()?;
        if self.rate == 0.0 {
            return Ok(model);
        }
        let places = if self.after.is_empty() { places(&model) } else { self.after.clone() };
        if places.is_empty() {
            let message = "dropout: no linear layer is found whose inputs could be dropped; name values in `after`";
            return Err(TrainError::Mismatch { message: message.to_owned() });
        }
        let mut model = model;
        for (i, value) in places.iter().enumerate() {
            let fresh = |part: &str| {
                let mut name = format!("dropout.{i}{part}");
                while model.value_names().any(|v| v == name) {
                    name.push('_');
                }
                name
            };
            let (name, ratio) = (fresh(""), fresh(".ratio"));
            let node = NewNode::new("Dropout", &[value, &ratio], &[&name])
                .named(&name)
                .with_tensor(&ratio, Tensor::f32(Vec::new(), vec![self.rate as f32])?);
            model = model.insert_after(value, node)?;
        }
        Ok(model)
    }
}

/// What goes into linear layers with stored matrices, except where that is the network's input or a view of it.
fn places(model: &Model) -> Vec<String> {
    let inputs: Vec<&str> = model.inputs().iter().map(|p| p.name.as_str()).collect();
    let nodes: Vec<_> = model.nodes().collect();
    let mut untouched: Vec<String> = inputs.iter().map(|&n| n.to_owned()).collect();
    let mut found: Vec<String> = Vec::new();
    for node in &nodes {
        let Some(first) = node.inputs.first() else { continue };
        if matches!(node.operator.as_str(), "Flatten" | "Reshape" | "Identity") && untouched.contains(first) {
            untouched.extend(node.outputs.iter().cloned());
        }
        let stored = node.inputs.get(1).and_then(|w| model.parameter(w)).is_some_and(|w| w.rank() == 2);
        if node.operator == "Gemm" && stored && !untouched.contains(first) && !found.contains(first) {
            found.push(first.clone());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use netproof_graph::Request;
    use netproof_graph::builders::{Activation, CnnOptions, cnn, mlp};

    use super::*;

    #[test]
    fn hidden_layers_drop_and_the_input_does_not() {
        let model = mlp(&[1, 2, 2], &[64, 64], 3, Activation::Relu, 1).unwrap();
        assert_eq!(places(&model), ["layers.0.activation", "layers.1.activation"]);
        let x = Tensor::f32(vec![1, 1, 2, 2], vec![0.5, -1.0, 2.0, 1.0]).unwrap();
        let plain = model.predict(&x).unwrap();
        let kept = model.parameter("layers.0.weight").cloned();
        let dropped = Dropout { rate: 0.5, after: Vec::new() }.insert(model).unwrap();
        assert_eq!(dropped.predict(&x).unwrap(), plain);
        assert_eq!(dropped.parameter("layers.0.weight").cloned(), kept);
        let trained: Vec<String> = dropped.parameters().filter(|p| p.trainable).map(|p| p.name).collect();
        assert!(trained.iter().all(|n| n.starts_with("layers.")), "{trained:?}");
        let taps = vec!["layers.0.activation".to_owned(), "dropout.0".to_owned()];
        let request = Request { training: Some(3), taps, ..Request::new("input", x) };
        let run = dropped.forward(&request).unwrap();
        let [before, after] = ["layers.0.activation", "dropout.0"].map(|n| run.output(n).unwrap());
        let pairs = before.as_f32().unwrap().iter().zip(after.as_f32().unwrap());
        let (mut gone, mut all) = (0, 0);
        for (b, a) in pairs.filter(|(b, _)| **b != 0.0) {
            assert!(*a == 0.0 || (a - 2.0 * b).abs() < 1e-6, "{b} {a}");
            gone += usize::from(*a == 0.0);
            all += 1;
        }
        assert!(gone > 0 && gone < all, "{gone} of {all}");
    }

    #[test]
    fn convolutional_networks_drop_before_their_linear_layers() {
        let model = cnn(&CnnOptions::new([1, 8, 8], 2)).unwrap();
        assert_eq!(places(&model), ["flatten", "features"]);
        assert!(Dropout { rate: 0.5, after: vec!["nothing".into()] }.insert(model).is_err());
        assert!(Dropout { rate: 1.0, after: Vec::new() }.check().is_err());
    }
}
