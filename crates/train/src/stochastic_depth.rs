//! Stochastic depth put into any residual network: in training, whole branches are left out for single rows.
//! Huang, Sun, Liu, Sedra and Weinberger, ECCV 2016, arXiv:1603.09382, equation 4 (the rate grows with depth); kept branches
//! are scaled up in training, as in later implementations, instead of down in use.
//!
//! A branch is the side of an addition with more layers on its way from where both sides part. The nodes stay in the file,
//! where they do nothing outside training: a row's branch is multiplied by what dropout makes of a one.

use std::collections::{HashMap, HashSet};

use netproof_graph::{Attribute, Model, NewNode, NodeInfo};
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{TrainError, refuse};

/// What counts as a layer.
const LAYERS: [&str; 4] = ["Conv", "Gemm", "MatMul", "ConvTranspose"];

/// Operator set since which a reduction takes its axes as an input.
const AXES_ARE_AN_INPUT: i64 = 18;

/// Stochastic depth; none by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StochasticDepth {
    /// Part of the rows for which the last branch is left out; earlier branches have less, in even steps from 0.
    pub rate: f64,
}

/// A residual addition.
#[derive(Debug, PartialEq)]
struct Residual {
    node: NodeInfo,
    /// Which of its inputs is the branch.
    branch: usize,
}

impl StochasticDepth {
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        if (0.0..1.0).contains(&self.rate) {
            Ok(())
        } else {
            Err(refuse("rate", self.rate, "0 up to, but not including, 1"))
        }
    }

    /// The network with branches that may be left out.
    /// # Errors
    /// It has no residual branches.
    pub fn insert(&self, model: Model) -> Result<Model, TrainError> {
        self.check()?;
        if self.rate == 0.0 {
            return Ok(model);
        }
        let found = residuals(&model);
        if found.is_empty() {
            let message = "stochastic_depth: the network has no residual branches that could be left out";
            return Err(TrainError::Mismatch { message: message.to_owned() });
        }
        let mut model = model;
        for (i, residual) in found.iter().enumerate() {
            let rate = self.rate * (i + 1) as f64 / found.len() as f64;
            model = leave_out(&model, residual, rate, i)?;
        }
        Ok(model)
    }
}

fn leave_out(model: &Model, residual: &Residual, rate: f64, number: usize) -> Result<Model, TrainError> {
    let taken: HashSet<&str> = model.value_names().collect();
    let fresh = |part: &str| {
        let mut name = format!("depth.{number}.{part}");
        while taken.contains(name.as_str()) {
            name.push('_');
        }
        name
    };
    let [mean, over, zero, nothing, one, ones, ratio, mask, kept] =
        ["mean", "over", "zero", "nothing", "one", "ones", "ratio", "mask", "kept"].map(fresh);
    let (node, branch) = (&residual.node, residual.node.inputs[residual.branch].as_str());
    let scalar = |v: f32| Tensor::f32(Vec::new(), vec![v]);
    // A one per row, in the shape of the row's axes: axes from 1 on are averaged away, and the mean counts nothing.
    let mut inputs: Vec<&str> = node.inputs.iter().map(String::as_str).collect();
    inputs[residual.branch] = &kept;
    let outputs: Vec<&str> = node.outputs.iter().map(String::as_str).collect();
    let rank = model.rank(branch).unwrap_or(2);
    let axes: Vec<i64> = (1..rank as i64).collect();
    let reduce = if model.opset() < AXES_ARE_AN_INPUT {
        NewNode::new("ReduceMean", &[branch], &[&mean]).with("axes", Attribute::Ints(axes))
    } else {
        let tensor = Tensor::i64(vec![axes.len()], axes)?;
        NewNode::new("ReduceMean", &[branch, &over], &[&mean]).with_tensor(&over, tensor)
    };
    let nodes = vec![
        reduce.with("keepdims", Attribute::Int(1)),
        NewNode::new("Mul", &[&mean, &zero], &[&nothing]).with_tensor(&zero, scalar(0.0)?),
        NewNode::new("Add", &[&nothing, &one], &[&ones]).with_tensor(&one, scalar(1.0)?),
        NewNode::new("Dropout", &[&ones, &ratio], &[&mask]).with_tensor(&ratio, scalar(rate as f32)?),
        NewNode::new("Mul", &[branch, &mask], &[&kept]),
        NewNode::new(&node.operator, &inputs, &outputs).named(&node.name),
    ];
    let mut model = model.replace_node(&node.name, nodes)?;
    for name in [zero, one, ratio] {
        model.set_trainable(&name, false)?;
    }
    Ok(model)
}

/// Additions of a branch to what it started from, in the order of execution.
fn residuals(model: &Model) -> Vec<Residual> {
    let nodes: Vec<NodeInfo> = model.nodes().collect();
    let made_by: HashMap<&str, usize> =
        nodes.iter().enumerate().flat_map(|(i, n)| n.outputs.iter().map(move |o| (o.as_str(), i))).collect();
    // For each value, the values on its way with the most layers between.
    let mut behind: HashMap<&str, HashMap<&str, usize>> = HashMap::new();
    for node in &nodes {
        let own = usize::from(LAYERS.contains(&node.operator.as_str()));
        let mut all: HashMap<&str, usize> = HashMap::new();
        for input in node.inputs.iter().filter(|i| model.parameter(i).is_none()) {
            let mut note = |value, layers| {
                let known = all.entry(value).or_insert(layers);
                *known = (*known).max(layers);
            };
            note(input.as_str(), own);
            for (value, layers) in behind.get(input.as_str()).into_iter().flatten() {
                note(value, layers + own);
            }
        }
        for output in &node.outputs {
            behind.insert(output, all.clone());
        }
    }
    let empty = HashMap::new();
    let mut found = Vec::new();
    for node in nodes.iter().filter(|n| n.operator == "Add") {
        let [a, b] = node.inputs.as_slice() else { continue };
        let both_made = [a, b].iter().all(|x| model.parameter(x).is_none() && made_by.contains_key(x.as_str()));
        if !both_made || a == b || model.rank(a) != model.rank(b) {
            continue;
        }
        let of = |x: &String, from: &String| behind.get(x.as_str()).unwrap_or(&empty).get(from.as_str()).copied();
        // Either one side is where the other began, or both began at a value further up.
        let layers = match (of(b, a), of(a, b)) {
            (Some(n), _) => [0, n],
            (_, Some(n)) => [n, 0],
            (None, None) => {
                let (up_a, up_b) = (behind.get(a.as_str()).unwrap_or(&empty), behind.get(b.as_str()).unwrap_or(&empty));
                let common = up_a.iter().filter_map(|(v, n)| Some((n + up_b.get(v)?, *n, *up_b.get(v)?)));
                match common.min() {
                    Some((_, n, m)) => [n, m],
                    None => continue,
                }
            }
        };
        if layers[0] != layers[1] {
            found.push(Residual { node: node.clone(), branch: usize::from(layers[1] > layers[0]) });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use netproof_graph::Request;
    use netproof_graph::builders::{Activation, Shortcut, VitOptions, mlp, resnet_cifar, vit};

    use super::*;

    fn images(n: usize) -> Tensor {
        let values = (0..n * 3 * 64).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
        Tensor::f32(vec![n, 3, 8, 8], values).unwrap()
    }

    fn with(model: Model, rate: f64) -> Model {
        StochasticDepth { rate }.insert(model).unwrap()
    }

    #[test]
    fn every_block_has_its_branch() {
        for (shortcut, blocks) in [(Shortcut::Projection, 3), (Shortcut::ZeroPadding, 3)] {
            let net = resnet_cifar(8, shortcut, [3, 8, 8], 4, 1).unwrap();
            assert_eq!(residuals(&net).len(), blocks);
        }
        let options =
            VitOptions { image: [3, 8, 8], patch: 4, classes: 3, width: 16, depth: 2, heads: 2, mlp: 32, seed: 1 };
        assert_eq!(residuals(&vit(&options).unwrap()).len(), 4);
        let plain = mlp(&[4], &[5], 3, Activation::Relu, 1).unwrap();
        assert!(StochasticDepth { rate: 0.5 }.insert(plain).unwrap_err().to_string().contains("no residual"));
        assert!(StochasticDepth { rate: 1.0 }.check().is_err());
    }

    /// Equation 4: the first block goes with a part of the rate, the last one with all of it.
    #[test]
    fn the_rate_grows_linearly_with_the_depth() {
        let net = with(resnet_cifar(8, Shortcut::Projection, [3, 8, 8], 4, 1).unwrap(), 0.6);
        for (block, want) in [0.2f32, 0.4, 0.6].into_iter().enumerate() {
            let rate = net.parameter(&format!("depth.{block}.ratio")).unwrap().as_f32().unwrap()[0];
            assert!((rate - want).abs() < 1e-6, "block {block}: {rate}");
        }
    }

    #[test]
    fn outside_training_nothing_changes_and_no_parameter_is_new() {
        let net = || resnet_cifar(8, Shortcut::Projection, [3, 8, 8], 4, 1).unwrap();
        let trainable = |m: &Model| m.parameters().filter(|p| p.trainable).count();
        let deep = with(net(), 0.5);
        assert_eq!(deep.predict(&images(4)).unwrap(), net().predict(&images(4)).unwrap());
        assert_eq!(trainable(&deep), trainable(&net()));
    }

    /// Rows keep their branch or lose it whole; kept ones are scaled so that the mean stays.
    #[test]
    fn in_training_whole_branches_go_for_single_rows() {
        let options =
            VitOptions { image: [3, 8, 8], patch: 4, classes: 3, width: 16, depth: 1, heads: 2, mlp: 32, seed: 1 };
        let net = with(vit(&options).unwrap(), 0.5);
        let last = residuals(&vit(&options).unwrap()).pop().unwrap();
        let branch = last.node.inputs[last.branch].clone();
        let taps = vec![branch.clone(), "depth.1.kept".to_owned()];
        let n = 400;
        let request = Request { training: Some(3), taps, ..Request::new("input", images(n)) };
        let run = net.forward(&request).unwrap();
        let [before, after] = [branch.as_str(), "depth.1.kept"].map(|v| run.output(v).unwrap());
        let width = before.row_len();
        let mut gone = 0;
        for row in 0..n {
            let part = |t: &Tensor| t.as_f32().unwrap()[row * width..(row + 1) * width].to_vec();
            let (b, a) = (part(&before), part(&after));
            let lost = a.iter().all(|v| *v == 0.0);
            gone += usize::from(lost);
            // The last of the branches has the full rate, so that what stays is doubled.
            assert!(lost || a.iter().zip(&b).all(|(a, b)| (a - 2.0 * b).abs() < 1e-5 * (1.0 + b.abs())), "row {row}");
        }
        // Four standard deviations of a binomial law.
        assert!((160..=240).contains(&gone), "{gone}");
    }
}
