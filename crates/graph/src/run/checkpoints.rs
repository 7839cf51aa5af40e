//! Gradient checkpointing: what the way back needs is computed again, a segment of the network at a time.
//!
//! Chen, Xu, Zhang, Guestrin 2016, "Training Deep Nets with Sublinear Memory Cost", section 4.1: n steps are cut into segments of
//! about √n. Of all but the last only the values that enter them are kept, so that memory is that of the entries and of one
//! segment, for one more forward pass. Seeds belong to nodes, so dropout drops the same again; statistics of batch normalisation
//! are taken from the first time. Checked against: the same run without, bit by bit.

use std::ops::Range;

use super::Request;
use super::pass::{Pass, Step};
use crate::error::GraphError;
use crate::model::ValueId;
use crate::operator::Value;

/// Steps that run again on the way back.
#[derive(Debug)]
pub(super) struct Segment {
    steps: Range<usize>,
    /// The values that they read and did not make.
    pub(super) entry: Vec<(ValueId, Value)>,
}

impl<'m> Pass<'m> {
    /// How many steps make a segment: all, where nothing is computed again.
    pub(super) fn segment_length(&self, steps: usize, request: &Request) -> usize {
        let checkpoints = request.checkpoints && !self.rules && !self.wanted.is_empty();
        let length = if checkpoints { (steps as f64).sqrt().ceil() as usize } else { steps };
        length.max(1)
    }

    /// Notes what steps read, before they run.
    pub(super) fn begin_segment(&mut self, begin: usize, steps: &[Step]) {
        let mut entry: Vec<(ValueId, Value)> = Vec::new();
        for step in steps {
            let node = step.node(self.model);
            // What is overridden stands among the outputs, and stays as it is.
            for &id in node.inputs.iter().chain(&node.outputs).flatten() {
                if let Some(value) = &self.values[id]
                    && entry.iter().all(|(known, _)| *known != id)
                {
                    entry.push((id, value.clone()));
                }
            }
        }
        self.segments.push(Segment { steps: begin..begin + steps.len(), entry });
    }

    /// Runs a segment again, this time with what the way back needs.
    pub(super) fn again(&self, segment: &Segment) -> Result<Self, GraphError> {
        let mut pass = Pass {
            model: self.model,
            plan: self.plan.clone(),
            values: vec![None; self.values.len()],
            late: self.late.clone(),
            calls: Vec::new(),
            requires: self.requires.clone(),
            wanted: Vec::new(),
            schedule: None,
            updates: Vec::new(),
            rules: false,
            segments: Vec::new(),
            keeps: true,
            cx: self.cx.clone(),
        };
        for (id, value) in &segment.entry {
            pass.values[*id] = Some(value.clone());
        }
        if let Some(schedule) = &self.schedule {
            pass.steps(&schedule.steps[segment.steps.clone()])?;
        }
        Ok(pass)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use netproof_tensor::{DType, Tensor};

    use super::*;
    use crate::builders::{Shortcut, VitOptions, resnet_cifar, vit};
    use crate::{Dim, FileBuilder, Model, Parameters, Run, Wrt};

    fn values(shape: &[usize], seed: usize) -> Tensor {
        let n = shape.iter().product::<usize>();
        Tensor::f32(shape.to_vec(), (0..n).map(|i| ((i * 7 + seed) as f32 * 0.37).sin()).collect()).unwrap()
    }

    /// Floats that a run holds for the way back, each buffer once.
    fn held(run: &Run<'_>) -> usize {
        let mut buffers = HashMap::new();
        let mut add = |value: &Value| {
            if let Value::Real(r) = value
                && let Some(s) = r.slice()
            {
                buffers.insert(s.as_ptr(), s.len());
            }
        };
        for pass in &run.passes {
            pass.calls.iter().flat_map(|c| c.inputs.iter().chain(&c.outputs)).flatten().for_each(&mut add);
            pass.segments.iter().flat_map(|s| &s.entry).for_each(|(_, v)| add(v));
        }
        buffers.values().sum()
    }

    /// Compares both ways; answers the floats held with and without.
    fn compare(model: &Model, x: &Tensor, training: Option<u64>) -> [usize; 2] {
        let (input, output) = (model.inputs()[0].name.clone(), model.outputs()[0].name.clone());
        let wrt = Wrt { values: vec![input.clone()], parameters: Parameters::Trainable };
        let plain = Request { training, wrt, ..Request::new(&input, x.clone()) };
        let runs = [true, false].map(|checkpoints| {
            let request = Request { checkpoints, ..plain.clone() };
            model.forward(&request).unwrap()
        });
        let seed = values(runs[0].output(&output).unwrap().shape(), 1);
        let [with, without] = runs.each_ref().map(|run| {
            let gradients = run.backward(&[(&output, &seed)]).unwrap();
            let mut all: Vec<(String, Tensor)> =
                gradients.names().map(|n| (n.to_owned(), gradients.get(n).unwrap().clone())).collect();
            all.extend(run.updates().unwrap().into_iter().map(|(n, t)| (format!("update of {n}"), t)));
            all.push(("output".to_owned(), run.output(&output).unwrap()));
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        });
        assert_eq!(with.len(), without.len());
        for ((name, a), (other, b)) in with.iter().zip(&without) {
            assert_eq!(name, other);
            let bits = |t: &Tensor| t.as_f32().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert!(bits(a) == bits(b), "{name}");
        }
        runs.each_ref().map(held)
    }

    #[test]
    fn the_same_bits_with_less_in_memory() {
        let deep = resnet_cifar(20, Shortcut::ZeroPadding, [3, 12, 12], 4, 1).unwrap();
        let options =
            VitOptions { image: [3, 12, 12], patch: 3, classes: 3, width: 16, depth: 6, heads: 2, mlp: 32, seed: 1 };
        let images = values(&[24, 3, 12, 12], 2);
        let networks = [(deep, images.clone()), (vit(&options).unwrap(), images), (dropping(40), values(&[300, 8], 5))];
        for (model, x) in networks {
            for training in [Some(3), None] {
                let [with, without] = compare(&model, &x, training);
                assert!(2 * with < without, "{with} floats instead of {without}");
            }
        }
    }

    /// Layers of weights, a rectifier and dropout, with a shortcut around all of them.
    fn dropping(layers: usize) -> Model {
        let mut file = FileBuilder::new("dropping");
        let x = file.add_batch_input("x", &[8]);
        let ratio = file.add_initializer("ratio", Tensor::f32(vec![], vec![0.3]).unwrap());
        let mut y = x.clone();
        for i in 0..layers {
            let w = file.add_initializer(&format!("w{i}"), values(&[8, 8], i));
            y = file.node("MatMul", &format!("product{i}"), &[&y, &w], &[]);
            y = file.node("Relu", &format!("rectified{i}"), &[&y], &[]);
            y = file.node("Dropout", &format!("dropped{i}"), &[&y, &ratio], &[]);
        }
        let y = file.node("Add", "y", &[&y, &x], &[]);
        file.output(&y, DType::F32, &[Dim::Any, Dim::Fixed(8)]);
        Model::from_file(file.build().unwrap()).unwrap()
    }
}
