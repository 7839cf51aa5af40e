//! Several networks as one: each answers, and the answers are averaged.
//! Lakshminarayanan, Pritzel and Blundell, NeurIPS 2017, arXiv:1612.01474, section 2.4 (the mean of the distributions).
//!
//! Cost: the sum of the members' costs. Distillation makes one network of them again.

use std::collections::HashSet;

use netproof_onnx::proto::{GraphProto, NodeProto};
use netproof_tensor::DType;

use super::{Edit, collect_names, rename_uses, replace_all};
use crate::error::GraphError;
use crate::file_builder::{Attribute, NewNode};
use crate::model::Model;

/// What is averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mean {
    /// The answers as they are: probabilities, or predicted numbers.
    Values,
    /// Answers are logits over classes (last axis): the mean of their softmax is taken, and its logarithm answered.
    Softmax,
    /// Answers are one logit each: the mean of their sigmoids is taken, and its logit answered.
    Sigmoid,
}

/// Probabilities are kept this far from 0 and 1, so that logarithms stay finite: the smallest normal float32.
const SMALLEST: f32 = f32::MIN_POSITIVE;

impl Model {
    /// One network that answers with the mean of these networks' first outputs; inputs and output keep the names of the
    /// first network.
    /// # Errors
    /// There are none; the inputs differ; the files have different operator sets; the first output holds no floats.
    pub fn ensemble(members: &[&Self], mean: Mean) -> Result<Self, GraphError> {
        let what = "ensemble";
        let refuse = |message: String| GraphError::Rewrite { what, message };
        let [first, others @ ..] = members else { return Err(refuse("there are no members".to_owned())) };
        let mut edit = Edit::new(first, what)?;
        edit.need_broadcasting()?;
        let Some(output) = first.outputs().first().map(|o| o.name.clone()) else {
            return Err(refuse("the network has no output".to_owned()));
        };
        let dtype = edit.float_dtype(&output)?;
        edit.need_producer(&output)?;
        let mut answers = Vec::new();
        for (i, member) in others.iter().enumerate() {
            let own = Edit::new(member, what)?;
            if own.opset() != edit.opset() {
                let message = format!("member {} has opset {}, the first has {}", i + 2, own.opset(), edit.opset());
                return Err(refuse(message));
            }
            let (ours, theirs) = (first.inputs(), member.inputs());
            let same = ours.len() == theirs.len()
                && ours.iter().zip(theirs).all(|(a, b)| a.dtype == b.dtype && a.shape == b.shape);
            let Some(answer) = member.outputs().first().filter(|_| same) else {
                return Err(refuse(format!("member {} takes other inputs than the first", i + 2)));
            };
            own.need_producer(&answer.name)?;
            answers.push(edit.add_member(own, member, first, &answer.name, i + 2));
        }
        // The first member's own answer moves aside, so that the mean can have the output's name.
        let mut inputs = vec![output.clone()];
        inputs.extend(answers);
        edit.average(&output, inputs, mean, dtype)?;
        edit.forget_behind(&[output]);
        edit.finish()
    }
}

impl Edit<'_> {
    /// Takes in the nodes and tensors of a member under names of its own; gives the name of its answer.
    fn add_member(&mut self, mut own: Edit<'_>, member: &Model, first: &Model, answer: &str, number: usize) -> String {
        let (mut values, mut nodes) = (HashSet::new(), HashSet::new());
        collect_names(&own.graph, &mut values, &mut nodes);
        let mut renamed: Vec<(String, String)> = Vec::new();
        for (theirs, ours) in member.inputs().iter().zip(first.inputs()) {
            values.remove(&theirs.name);
            renamed.push((theirs.name.clone(), ours.name.clone()));
        }
        let mut ordered: Vec<String> = values.into_iter().filter(|v| !v.is_empty()).collect();
        ordered.sort_unstable();
        for value in ordered {
            let new = self.fresh_value(&format!("member{number}/{value}"));
            renamed.push((value, new));
        }
        let stored = std::mem::take(&mut own.graph.initializer);
        let map: std::collections::HashMap<&str, &str> =
            renamed.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let new_name = |name: &str| map.get(name).map_or_else(|| name.to_owned(), |n| (*n).to_owned());
        for mut tensor in stored {
            tensor.name = Some(new_name(tensor.name()));
            self.graph.initializer.push(tensor);
        }
        // Files of old versions list tensors among the inputs too.
        for mut input in std::mem::take(&mut own.graph.input) {
            if member.parameter(input.name()).is_some() {
                input.name = Some(new_name(input.name()));
                self.graph.input.push(input);
            }
        }
        for mut node in std::mem::take(&mut own.graph.node) {
            rename_node(&mut node, &new_name);
            let wanted = format!("member{number}/{}", node.name());
            node.name = Some(crate::file_builder::fresh(&mut self.node_names, &wanted));
            self.graph.node.push(node);
        }
        new_name(answer)
    }

    fn average(&mut self, output: &str, inputs: Vec<String>, mean: Mean, dtype: DType) -> Result<(), GraphError> {
        let own = self.fresh_value(&format!("{output}/member1"));
        let Some(at) = self.producer(output) else { return Err(self.refuse(format!("no node makes `{output}`"))) };
        if let Some(node) = self.graph.node.get_mut(at) {
            replace_all(&mut node.output, output, &own);
        }
        for user in &mut self.graph.node {
            rename_uses(user, output, &own);
        }
        let inputs: Vec<String> = inputs.into_iter().map(|i| if i == output { own.clone() } else { i }).collect();
        let link = match mean {
            Mean::Values => None,
            Mean::Softmax => Some("Softmax"),
            Mean::Sigmoid => Some("Sigmoid"),
        };
        let mut terms = Vec::new();
        for value in inputs {
            let Some(link) = link else {
                terms.push(value);
                continue;
            };
            let made = self.fresh_value(&format!("{value}/probabilities"));
            let node = NewNode::new(link, &[&value], &[&made]);
            let node = if mean == Mean::Softmax { node.with("axis", Attribute::Int(-1)) } else { node };
            self.insert(usize::MAX, node);
            terms.push(made);
        }
        let average = if link.is_some() { self.fresh_value(&format!("{output}/mean")) } else { output.to_owned() };
        let names: Vec<&str> = terms.iter().map(String::as_str).collect();
        self.insert(usize::MAX, NewNode::new("Mean", &names, &[&average]));
        if mean == Mean::Values {
            return Ok(());
        }
        let smallest = self.constant(
            &format!("{output}/smallest"),
            dtype,
            Vec::new(),
            vec![dtype.round(SMALLEST).max(1e-7 * f32::from(u8::from(dtype != DType::F32)))],
        )?;
        let bounded = |edit: &mut Self, value: &str, name: &str| {
            let made = edit.fresh_value(name);
            edit.insert(usize::MAX, NewNode::new("Max", &[value, &smallest], &[&made]));
            made
        };
        let p = bounded(self, &average, &format!("{output}/bounded"));
        if mean == Mean::Softmax {
            self.insert(usize::MAX, NewNode::new("Log", &[&p], &[output]));
            return Ok(());
        }
        let one = self.constant(&format!("{output}/one"), dtype, Vec::new(), vec![1.0])?;
        let rest = self.fresh_value(&format!("{output}/rest"));
        self.insert(usize::MAX, NewNode::new("Sub", &[&one, &average], &[&rest]));
        let q = bounded(self, &rest, &format!("{output}/rest_bounded"));
        let odds = self.fresh_value(&format!("{output}/odds"));
        let (log_p, log_q) = (format!("{odds}/log_p"), format!("{odds}/log_q"));
        self.insert(usize::MAX, NewNode::new("Log", &[&p], &[&log_p]));
        self.insert(usize::MAX, NewNode::new("Log", &[&q], &[&log_q]));
        self.insert(usize::MAX, NewNode::new("Sub", &[&log_p, &log_q], &[output]));
        Ok(())
    }
}

/// Renames all values of a node, also in graphs inside it.
fn rename_node(node: &mut NodeProto, new_name: &impl Fn(&str) -> String) {
    let each = |names: &mut Vec<String>| {
        names.iter_mut().filter(|n| !n.is_empty()).for_each(|n| *n = new_name(n));
    };
    each(&mut node.input);
    each(&mut node.output);
    for a in &mut node.attribute {
        for graph in a.g.as_deref_mut().into_iter().chain(&mut a.graphs) {
            rename_graph(graph, new_name);
        }
    }
}

fn rename_graph(graph: &mut GraphProto, new_name: &impl Fn(&str) -> String) {
    graph.node.iter_mut().for_each(|n| rename_node(n, new_name));
    for info in graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info) {
        info.name = Some(new_name(info.name()));
    }
    for tensor in &mut graph.initializer {
        tensor.name = Some(new_name(tensor.name()));
    }
}

#[cfg(test)]
mod tests {
    use netproof_tensor::Tensor;

    use super::*;
    use crate::builders::{Activation, CnnOptions, cnn, mlp};

    fn softmax(z: &[f32]) -> Vec<f64> {
        let m = z.iter().copied().fold(f32::MIN, f32::max);
        let e: Vec<f64> = z.iter().map(|&v| f64::from(v - m).exp()).collect();
        let s: f64 = e.iter().sum();
        e.iter().map(|v| v / s).collect()
    }

    fn rows(shape: Vec<usize>) -> Tensor {
        let n = shape.iter().product::<usize>();
        Tensor::f32(shape, (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect()).unwrap()
    }

    #[test]
    fn the_distribution_is_the_mean_of_the_members() {
        let members: Vec<Model> =
            (1..4).map(|seed| cnn(&CnnOptions { seed, ..CnnOptions::new([1, 8, 8], 3) }).unwrap()).collect();
        let all: Vec<&Model> = members.iter().collect();
        let one = Model::ensemble(&all, Mean::Softmax).unwrap();
        let x = rows(vec![5, 1, 8, 8]);
        let y = one.predict(&x).unwrap();
        assert_eq!((y.shape(), one.outputs(), one.inputs()), (&[5, 3][..], members[0].outputs(), members[0].inputs()));
        for row in 0..5 {
            let each: Vec<Vec<f64>> =
                all.iter().map(|m| softmax(&m.predict(&x).unwrap().as_f32().unwrap()[row * 3..row * 3 + 3])).collect();
            for class in 0..3 {
                let want = each.iter().map(|p| p[class]).sum::<f64>() / 3.0;
                let got = f64::from(y.as_f32().unwrap()[row * 3 + class]);
                assert!((got - want.ln()).abs() < 1e-5, "{got} {}", want.ln());
            }
        }
        let trainable = |m: &Model| m.parameters().filter(|p| p.trainable).count();
        assert_eq!(trainable(&one), 3 * trainable(&members[0]));
    }

    #[test]
    fn numbers_and_single_logits_are_averaged_as_what_they_are() {
        let members: Vec<Model> = (1..3).map(|s| mlp(&[4], &[6], 1, Activation::Tanh, s).unwrap()).collect();
        let x = rows(vec![7, 4]);
        let each: Vec<Vec<f32>> = members.iter().map(|m| m.predict(&x).unwrap().as_f32().unwrap().to_vec()).collect();
        let got = |mean| {
            let one = Model::ensemble(&[&members[0], &members[1]], mean).unwrap();
            one.predict(&x).unwrap().as_f32().unwrap().to_vec()
        };
        let (values, logits) = (got(Mean::Values), got(Mean::Sigmoid));
        for i in 0..7 {
            let (a, b) = (f64::from(each[0][i]), f64::from(each[1][i]));
            assert!((f64::from(values[i]) - 0.5 * (a + b)).abs() < 1e-6);
            let p = 0.5 * (1.0 / (1.0 + (-a).exp()) + 1.0 / (1.0 + (-b).exp()));
            assert!((f64::from(logits[i]) - (p / (1.0 - p)).ln()).abs() < 1e-5);
        }
    }

    #[test]
    fn one_member_and_ensembles_of_ensembles_work_and_misfits_are_refused() {
        let a = mlp(&[4], &[6], 3, Activation::Tanh, 1).unwrap();
        let b = mlp(&[4], &[5], 3, Activation::Relu, 2).unwrap();
        let x = rows(vec![2, 4]);
        let both = Model::ensemble(&[&a, &b], Mean::Softmax).unwrap();
        let twice = Model::ensemble(&[&both, &both], Mean::Softmax).unwrap();
        let (p, q) = (both.predict(&x).unwrap(), twice.predict(&x).unwrap());
        for (p, q) in p.as_f32().unwrap().iter().zip(q.as_f32().unwrap()) {
            assert!((p - q).abs() < 1e-5);
        }
        let sure = |m: &Model, f: f32| {
            let mut m = Model::from_file(m.to_file().unwrap()).unwrap();
            let w = m.parameter("layers.1.bias").unwrap().clone();
            m.set_parameter("layers.1.bias", Tensor::f32(w.shape().to_vec(), vec![f, -f, 0.0]).unwrap()).unwrap();
            m
        };
        let far = Model::ensemble(&[&sure(&a, 1e5), &sure(&b, 1e5)], Mean::Softmax).unwrap();
        assert!(far.predict(&x).unwrap().as_f32().unwrap().iter().all(|v| v.is_finite()));
        assert!(Model::ensemble(&[], Mean::Values).is_err());
        let other = mlp(&[5], &[5], 3, Activation::Relu, 2).unwrap();
        let error = Model::ensemble(&[&a, &other], Mean::Values).unwrap_err().to_string();
        assert!(error.contains("member 2 takes other inputs"), "{error}");
    }
}
