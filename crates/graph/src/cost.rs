//! What a network costs: parameters, operations, memory, worked out from shapes without running it.

use std::collections::HashSet;

use netproof_tensor::Tensor;

use crate::error::GraphError;
use crate::model::{Dim, Model, ValueId};
use crate::operator::{Args, Fact};

/// One node as a person sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Name, or that of the first output where it has none.
    pub name: String,
    /// Operator.
    pub operator: String,
    /// Names of the inputs; absent optional ones are left out.
    pub inputs: Vec<String>,
    /// Names of the outputs that are used.
    pub outputs: Vec<String>,
}

/// Cost of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCost {
    /// Which node.
    pub node: NodeInfo,
    /// Shapes of the outputs; empty where they depend on values.
    pub shapes: Vec<Vec<usize>>,
    /// Multiply-accumulate operations; `None` where the shapes depend on values.
    pub macs: Option<u64>,
    /// Stored numbers that this node is the first to use.
    pub parameters: u64,
    /// Bytes of the outputs, floats as float32.
    pub activation_bytes: u64,
}

/// Cost of one forward pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// Rows of the batch that this is the cost of.
    pub batch: usize,
    /// Stored numbers, all of them.
    pub parameters: u64,
    /// Stored numbers that training changes.
    pub trainable: u64,
    /// Bytes of the stored tensors in their own types.
    pub parameter_bytes: u64,
    /// Multiply-accumulate operations of products, convolutions and recurrences; `None` where a shape depends on values.
    pub macs: Option<u64>,
    /// Most bytes of activations at one time, each freed after its last use.
    pub peak_activation_bytes: u64,
    /// Per node, in the order of execution.
    pub nodes: Vec<NodeCost>,
}

impl Model {
    /// The nodes in the order of execution.
    pub fn nodes(&self) -> impl Iterator<Item = NodeInfo> + '_ {
        self.nodes.iter().map(|n| {
            let names = |ids: &[Option<ValueId>]| ids.iter().flatten().map(|&id| self.names[id].clone()).collect();
            NodeInfo {
                name: n.name.clone(),
                operator: n.operator.clone(),
                inputs: names(&n.inputs),
                outputs: names(&n.outputs),
            }
        })
    }

    /// The operator that makes a named value; `None` for inputs, parameters and unknown names.
    pub fn producer(&self, value: &str) -> Option<&str> {
        let id = self.ids.get(value)?;
        self.nodes.iter().find(|n| n.outputs.contains(&Some(*id))).map(|n| n.operator.as_str())
    }

    /// Number of axes of a named value; `None` where it is unknown or depends on values.
    pub fn rank(&self, value: &str) -> Option<usize> {
        let id = self.ids.get(value)?;
        if let Some(p) = self.parameters.get(id) {
            return Some(p.tensor.rank());
        }
        let plan = self.plan(&self.example_shapes(2).ok()?).ok()?;
        plan.facts.get(*id)?.as_ref().map(Fact::rank)
    }

    /// Shapes of one batch: the declared ones, with the first open dimension of each input set to `batch` and further
    /// open ones to 1. A fixed batch size stays.
    pub fn batch_shapes(&self, batch: usize) -> Vec<(String, Vec<usize>)> {
        let shape = |dims: &[Dim]| {
            let size = |(i, d): (usize, &Dim)| match d {
                Dim::Fixed(n) => *n,
                _ if i == 0 => batch,
                _ => 1,
            };
            dims.iter().enumerate().map(size).collect()
        };
        self.inputs.iter().map(|p| (p.name.clone(), p.shape.as_deref().map(shape).unwrap_or_default())).collect()
    }

    /// Cost of one forward pass with inputs of these shapes.
    /// # Errors
    /// A name is unknown or a node refuses the shapes.
    pub fn cost(&self, shapes: &[(String, Vec<usize>)]) -> Result<Cost, GraphError> {
        let given = shapes.iter().map(|(n, s)| Ok((self.id(n)?, s.clone()))).collect::<Result<Vec<_>, GraphError>>()?;
        let batch = given.first().and_then(|(_, s)| s.first().copied()).unwrap_or(1);
        let plan = self.plan(&given)?;
        let mut counted = HashSet::new();
        let mut nodes = Vec::new();
        for (node, info) in self.nodes.iter().zip(self.nodes()) {
            let facts = |ids: &[Option<ValueId>]| -> Option<Vec<Option<Fact>>> {
                ids.iter().map(|i| i.map_or(Some(None), |id| plan.facts[id].clone().map(Some))).collect()
            };
            let (inputs, outputs) = (facts(&node.inputs), facts(&node.outputs));
            let known: Vec<Fact> = outputs.iter().flatten().flatten().cloned().collect();
            let macs = match (&inputs, &outputs) {
                (Some(inputs), Some(_)) => Some(node.op.macs(Args(inputs), &known)),
                _ => None,
            };
            let parameters = node
                .inputs
                .iter()
                .flatten()
                .filter(|id| counted.insert(**id))
                .filter_map(|id| self.parameters.get(id))
                .map(|p| p.tensor.len() as u64)
                .sum();
            nodes.push(NodeCost {
                node: info,
                macs,
                parameters,
                activation_bytes: known.iter().map(bytes).sum(),
                shapes: known.into_iter().map(|f| f.shape).collect(),
            });
        }
        let size = |t: &Tensor| t.len() as u64;
        let all = || self.parameters.values();
        Ok(Cost {
            batch,
            parameters: all().map(|p| size(&p.tensor)).sum(),
            trainable: all().filter(|p| p.trainable).map(|p| size(&p.tensor)).sum(),
            parameter_bytes: all().map(|p| size(&p.tensor) * p.tensor.dtype().bytes() as u64).sum(),
            macs: nodes.iter().map(|n| n.macs).sum(),
            peak_activation_bytes: self.peak(&plan.facts),
            nodes,
        })
    }

    /// Most bytes alive at one time when every value is freed after its last use.
    fn peak(&self, facts: &[Option<Fact>]) -> u64 {
        let mut last_use = vec![0; self.names.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().flatten().for_each(|&id| last_use[id] = i);
        }
        for port in &self.outputs {
            if let Some(&id) = self.ids.get(&port.name) {
                last_use[id] = self.nodes.len();
            }
        }
        let size = |id: ValueId| facts[id].as_ref().map_or(0, bytes);
        let mut alive: HashSet<ValueId> = self.inputs.iter().filter_map(|p| self.ids.get(&p.name)).copied().collect();
        let mut now: u64 = alive.iter().map(|&id| size(id)).sum();
        let mut peak = now;
        for (i, node) in self.nodes.iter().enumerate() {
            for &id in node.outputs.iter().flatten() {
                // What is known before the run takes no memory in it.
                if facts[id].as_ref().is_some_and(|f| f.value.is_none()) && alive.insert(id) {
                    now += size(id);
                }
            }
            peak = peak.max(now);
            for &id in node.inputs.iter().chain(&node.outputs).flatten() {
                if last_use[id] <= i && alive.remove(&id) {
                    now -= size(id);
                }
            }
        }
        peak
    }
}

fn bytes(fact: &Fact) -> u64 {
    fact.count() as u64 * if fact.dtype.is_float() { 4 } else { fact.dtype.bytes() as u64 }
}
