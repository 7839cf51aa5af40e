//! Small networks with known answers, and how a method is asked about them.

use netproof_graph::{Attribute, FileBuilder, GraphError, Model};
use netproof_tensor::Tensor;

use super::Failure;
use crate::interpretability::{Choice, EXPLANATIONS, Explained, Explanation, Features, Question, explain, explanation};

pub(super) fn tensor(shape: &[usize], values: &[f32]) -> Result<Tensor, Failure> {
    Ok(Tensor::f32(shape.to_vec(), values.to_vec())?)
}

/// A network of nodes between `x [n, row...]` and `y [n, outputs]`.
pub(super) fn network(
    row: &[usize],
    outputs: usize,
    nodes: impl FnOnce(&mut Nodes, &str) -> String,
) -> Result<Model, GraphError> {
    let mut file = FileBuilder::new("selftest");
    let x = file.add_batch_input("x", row);
    let mut nodes_of = Nodes { file, count: 0 };
    let y = nodes(&mut nodes_of, &x);
    nodes_of.file.batch_output(&y, &[outputs]);
    Model::from_file(nodes_of.file.build()?)
}

/// Adds nodes.
pub(super) struct Nodes {
    pub(super) file: FileBuilder,
    count: usize,
}

impl Nodes {
    pub(super) fn stored(&mut self, shape: &[usize], values: &[f32]) -> String {
        self.count += 1;
        // The shapes are written in this file beside the values.
        let t = Tensor::f32(shape.to_vec(), values.to_vec()).expect("a stored tensor of the self test fits its shape");
        self.file.add_initializer(&format!("w{}", self.count), t)
    }

    pub(super) fn op(&mut self, operator: &str, inputs: &[&str]) -> String {
        self.with(operator, inputs, &[])
    }

    pub(super) fn with(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        self.count += 1;
        self.file.node(operator, &format!("n{}", self.count), inputs, attributes)
    }

    /// `x · weights + bias`, weights `[from, to]`.
    pub(super) fn linear(&mut self, x: &str, [from, to]: [usize; 2], weights: &[f32], bias: &[f32]) -> String {
        let (w, b) = (self.stored(&[from, to], weights), self.stored(&[to], bias));
        self.op("Gemm", &[x, &w, &b])
    }
}

/// Captum's network with published values: `h = ones(4, 3) x + (-10, 1, 1, 1)`, `y = ones(2, 4) relu(h) + (-1, 1)`.
pub(super) fn kinked() -> Result<Model, GraphError> {
    network(&[3], 2, |n, x| {
        let h = n.linear(x, [3, 4], &[1.0; 12], &[-10.0, 1.0, 1.0, 1.0]);
        let r = n.op("Relu", &[&h]);
        n.linear(&r, [4, 2], &[1.0; 8], &[-1.0, 1.0])
    })
}

pub(super) fn linear(weights: &[f32], bias: f32) -> Result<Model, GraphError> {
    network(&[weights.len()], 1, |n, x| n.linear(x, [weights.len(), 1], weights, &[bias]))
}

/// A question about target 0.
pub(super) fn about(x: Tensor) -> Result<Question, Failure> {
    let n = x.rows();
    Ok(Question::new(x, vec![0; n])?)
}

pub(super) fn grouped(mut q: Question, of: &[usize]) -> Question {
    let names = (0..of.iter().max().map_or(0, |m| m + 1)).map(|i| i.to_string()).collect();
    q.features = Some(Features { of: of.to_vec(), names });
    q
}

/// Explains; a method that this version lacks makes the case absent.
pub(super) fn ask(id: &str, model: &Model, q: &Question, options: &str) -> Result<Explanation, Failure> {
    if !EXPLANATIONS.iter().any(|e| e.card.id == id) {
        return Err(Failure::Absent(format!("not in this version: {id}")));
    }
    let options: toml::Table = toml::from_str(options)?;
    let method = explanation(id, options)?;
    let input = model.inputs()[0].name.clone();
    let net = Explained::new(model, &Choice::default(), &[(input, q.x.clone())])?;
    Ok(explain(&*method.method, &net, q)?)
}

pub(super) fn attributions(id: &str, model: &Model, q: &Question, options: &str) -> Result<Vec<f32>, Failure> {
    let e = ask(id, model, q, options)?;
    Ok(e.attributions.into_f32().unwrap_or_default())
}

/// Collects the largest error of several comparisons.
#[derive(Default)]
pub(super) struct Compared {
    worst: f64,
    count: usize,
}

impl Compared {
    /// Numbers agree within `tolerance` of the largest that is wanted.
    pub(super) fn close(&mut self, what: &str, found: &[f32], wanted: &[f32], tolerance: f64) -> Result<(), Failure> {
        let largest = wanted.iter().fold(0f64, |m, v| m.max(f64::from(v.abs()))).max(1e-12);
        if found.len() != wanted.len() {
            return Err(Failure::Wrong(format!("{what}: {} values, wanted {}", found.len(), wanted.len())));
        }
        for (f, w) in found.iter().zip(wanted) {
            let error = f64::from((f - w).abs()) / largest;
            if error.is_nan() || error > tolerance {
                return Err(Failure::Wrong(format!("{what}: {found:?}, wanted {wanted:?}")));
            }
            self.worst = self.worst.max(error);
        }
        self.count += 1;
        Ok(())
    }

    pub(super) fn text(&self) -> String {
        format!("{} comparisons, largest error {:.1e}", self.count, self.worst)
    }
}

/// A case does not hold unless this does.
pub(super) fn must(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::Wrong(what())) }
}
