//! The part of a network between its input and a value, with what bounds need to know of each node.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::rule::Rule;
use crate::error::{GraphError, OpError};
use crate::model::{Model, Node, ValueId};
use crate::operator::{Args, Backward, Context, Fact, Value};
use crate::plan::{Plan, eval, gather, node_error};
use crate::real::Real;

/// Half the distance from 1 to the next float32.
const UNIT: f64 = 5.960_464_477_539_063e-8;

/// A node that depends on the input.
pub(super) struct Step {
    /// Its number in the model.
    pub(super) node: usize,
    pub(super) rule: Rule,
    /// Which of its inputs depend on the network's input.
    pub(super) varies: Vec<bool>,
    /// What a linear node answers to zeros, for one row, where that is not zero.
    pub(super) offset: Option<Vec<f32>>,
    /// Bound on the rounding errors of one output, relative to the sum of the sizes of its terms; 0 where nothing is added.
    pub(super) gamma: f64,
}

/// Facts and constants for a number of rows.
pub(super) struct Frame {
    pub(super) rows: usize,
    plan: Arc<Plan>,
    constants: HashMap<ValueId, Value>,
    zeros: RefCell<HashMap<Vec<usize>, Real>>,
}

/// What lies between the input and one value.
pub(super) struct Network<'m> {
    pub(super) model: &'m Model,
    pub(super) input: ValueId,
    pub(super) target: ValueId,
    pub(super) steps: Vec<Step>,
    pub(super) depends: Vec<bool>,
    /// Numbers per row of each value that depends on the input.
    pub(super) sizes: Vec<usize>,
    pub(super) outward: bool,
    /// Nodes without the input among their ancestors that are needed all the same, in order.
    fixed: Vec<usize>,
    fixed_batch: Option<usize>,
    cx: Context,
}

impl<'m> Network<'m> {
    /// # Errors
    /// The network has not one float input, a node between has no rule, or rows of the batch meet.
    pub(super) fn new(model: &'m Model, target: ValueId, outward: bool) -> Result<Self, GraphError> {
        let [port] = model.inputs() else {
            let message = format!("the network has {} inputs; bounds need exactly one", model.inputs().len());
            return Err(GraphError::Bounds { message });
        };
        let input = model.id(&port.name)?;
        let fixed_batch = model.fixed_batch();
        let cx = Context { device: model.device.clone(), training: false, seed: 0 };
        let (first, second) = fixed_batch.map_or((2, 3), |b| (b, b));
        let plans = [plan(model, input, first)?, plan(model, input, second)?];
        let mut needed = vec![false; model.names.len()];
        needed[target] = true;
        let mut taken = vec![false; model.nodes.len()];
        for (i, node) in model.nodes.iter().enumerate().rev() {
            if node.outputs.iter().flatten().any(|&o| needed[o]) {
                taken[i] = true;
                node.inputs.iter().flatten().for_each(|&v| needed[v] = true);
            }
        }
        let mut network = Self {
            model,
            input,
            target,
            steps: Vec::new(),
            depends: vec![false; model.names.len()],
            sizes: vec![0; model.names.len()],
            outward,
            fixed: Vec::new(),
            fixed_batch,
            cx,
        };
        network.depends[input] = true;
        network.measure(input, &plans)?;
        let mut found = Vec::new();
        for (i, node) in model.nodes.iter().enumerate().filter(|(i, _)| taken[*i]) {
            let known = |id: &ValueId| plans[0].facts[*id].as_ref().is_some_and(|f| f.value.is_some());
            let varies: Vec<bool> = node.inputs.iter().map(|v| v.is_some_and(|id| network.depends[id])).collect();
            if !varies.contains(&true) || node.outputs.iter().flatten().all(known) {
                network.fixed.push(i);
                continue;
            }
            for &id in node.outputs.iter().flatten() {
                network.depends[id] = true;
                network.measure(id, &plans)?;
            }
            found.push((i, varies));
        }
        if !network.depends[target] {
            let message = format!("`{}` does not depend on the input", model.names[target]);
            return Err(GraphError::Bounds { message });
        }
        let frame = network.frame(1)?;
        for (i, varies) in found {
            let node = &model.nodes[i];
            let rule = Rule::of(&network, &frame, node, &varies)?;
            let gamma = if outward { network.gamma(&frame, i, &rule) } else { 0.0 };
            let mut step = Step { node: i, rule, varies, offset: None, gamma };
            step.offset = network.offset(&frame, &step)?;
            network.steps.push(step);
        }
        Ok(network)
    }

    /// Notes the size of a value's rows, which must lie one after the other.
    fn measure(&mut self, id: ValueId, plans: &[Arc<Plan>; 2]) -> Result<(), GraphError> {
        let rows = self.fixed_batch.map_or([2, 3], |b| [b, b]);
        let shapes = [0, 1].map(|i| plans[i].facts[id].as_ref().map(|f| &f.shape));
        let [Some(a), Some(b)] = shapes else {
            let name = &self.model.names[id];
            let message = format!("the shape of `{name}` depends on values; bounds need shapes that are known");
            return Err(GraphError::Bounds { message });
        };
        if a.first() != Some(&rows[0]) || b.first() != Some(&rows[1]) || a[1..] != b[1..] {
            let name = &self.model.names[id];
            let message = format!("rows of the batch do not lie on the first axis of `{name}`, of shape {a:?}");
            return Err(GraphError::Bounds { message });
        }
        self.sizes[id] = a[1..].iter().product();
        Ok(())
    }

    pub(super) fn node(&self, step: &Step) -> &'m Node {
        &self.model.nodes[step.node]
    }

    /// The number of rows to compute at once where `wanted` would do.
    pub(super) fn batch(&self, wanted: usize) -> usize {
        self.fixed_batch.unwrap_or(wanted).max(1)
    }

    /// What is the same for all runs of this many rows.
    pub(super) fn frame(&self, rows: usize) -> Result<Frame, GraphError> {
        let rows = self.batch(rows);
        let plan = plan(self.model, self.input, rows)?;
        let mut frame = Frame { rows, plan, constants: HashMap::new(), zeros: RefCell::default() };
        for &i in &self.fixed {
            let node = &self.model.nodes[i];
            let known = node.outputs.iter().flatten().all(|&o| frame.fact(o).is_some_and(|f| f.value.is_some()));
            if known {
                continue;
            }
            let mut inputs = Vec::with_capacity(node.inputs.len());
            for id in &node.inputs {
                inputs.push(id.map(|id| self.constant(&frame, id)).transpose()?);
            }
            let facts = frame.plan.calls[i].clone().ok_or_else(|| node_error(node, OpError::Deferred))?;
            let outputs = eval(node, &inputs, &facts, &self.cx)?;
            for (id, value) in node.outputs.iter().zip(outputs) {
                if let Some(id) = id {
                    frame.constants.insert(*id, value);
                }
            }
        }
        Ok(frame)
    }

    /// A value that does not depend on the input.
    pub(super) fn constant(&self, frame: &Frame, id: ValueId) -> Result<Value, GraphError> {
        if let Some(v) = frame.constants.get(&id) {
            return Ok(v.clone());
        }
        if let Some(p) = self.model.parameters.get(&id) {
            return Ok(p.real(&self.cx.device).map_or_else(|| Value::Host(p.tensor.clone()), Value::Real));
        }
        match frame.fact(id).and_then(|f| f.value.clone()) {
            Some(v) => Ok(Value::Host(v)),
            None => Err(GraphError::UnknownValue { name: self.model.names[id].clone(), candidates: Vec::new() }),
        }
    }

    /// The inputs of a node: constants, and what is given for those that vary.
    pub(super) fn inputs(
        &self,
        frame: &Frame,
        step: &Step,
        mut given: impl FnMut(usize, ValueId) -> Option<Real>,
    ) -> Result<Vec<Option<Value>>, GraphError> {
        let node = self.node(step);
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for (i, id) in node.inputs.iter().enumerate() {
            inputs.push(match id {
                None => None,
                Some(id) if step.varies[i] => given(i, *id).map(Value::Real),
                Some(id) => Some(self.constant(frame, *id)?),
            });
        }
        Ok(inputs)
    }

    /// The float outputs of a node.
    pub(super) fn eval(
        &self,
        frame: &Frame,
        step: &Step,
        inputs: &[Option<Value>],
    ) -> Result<Vec<Option<Real>>, GraphError> {
        let node = self.node(step);
        let facts = frame.plan.calls[step.node].clone().ok_or_else(|| node_error(node, OpError::Deferred))?;
        let outputs = eval(node, inputs, &facts, &self.cx)?;
        let floats = outputs.into_iter().zip(facts.iter());
        let real = |(value, fact): (Value, &Fact)| {
            if fact.dtype.is_float() { value.real(&self.cx).map(Some) } else { Ok(None) }
        };
        floats.map(real).collect::<Result<_, _>>().map_err(|e| node_error(node, e))
    }

    /// The output of a node for one value of its first input.
    pub(super) fn alone(
        &self,
        frame: &Frame,
        node: &Node,
        shape: &[usize],
        x: Vec<f32>,
    ) -> Result<Vec<f32>, GraphError> {
        let x = Value::Real(Real::new(shape, x, &self.cx.device));
        let facts: Vec<Fact> = node.outputs.iter().flatten().filter_map(|&o| frame.fact(o).cloned()).collect();
        let y = eval(node, &[Some(x)], &facts, &self.cx)?;
        Ok(y.first().and_then(|y| y.to_host().as_f32().map(<[f32]>::to_vec)).unwrap_or_default())
    }

    /// The gradients of a linear node's inputs for those of its outputs: its transpose.
    pub(super) fn transposed(
        &self,
        frame: &Frame,
        step: &Step,
        gradients: &[Option<Real>],
    ) -> Result<Vec<Option<Real>>, GraphError> {
        let node = self.node(step);
        let fail = |e| node_error(node, e);
        let facts = frame.plan.calls[step.node].clone().ok_or_else(|| fail(OpError::Deferred))?;
        let inputs = self.inputs(frame, step, |_, id| Some(frame.zeros(self, id)))?;
        let outputs = vec![None; node.outputs.len()];
        let call = Backward {
            inputs: Args(&inputs),
            outputs: &outputs,
            gradients,
            wanted: &step.varies,
            facts: &facts,
            cx: &self.cx,
        };
        let work = std::panic::AssertUnwindSafe(|| match node.op.backward(&call)? {
            Some(by_hand) => Ok(by_hand),
            None => self.on_tape(step, &inputs, &facts, gradients),
        });
        let internal = || Err(OpError::Invalid("internal error: a gradient kernel refused".to_owned()));
        std::panic::catch_unwind(work).unwrap_or_else(|_| internal()).map_err(fail)
    }

    fn on_tape(
        &self,
        step: &Step,
        inputs: &[Option<Value>],
        facts: &[Fact],
        gradients: &[Option<Real>],
    ) -> Result<Vec<Option<Real>>, OpError> {
        let leaf = |(value, &varies): (&Option<Value>, &bool)| match value {
            Some(Value::Real(r)) => Some(Value::Real(r.to_tape(varies))),
            other => other.clone(),
        };
        let inputs: Vec<Option<Value>> = inputs.iter().zip(&step.varies).map(leaf).collect();
        let outputs = self.node(step).op.eval(Args(&inputs), facts, &self.cx)?;
        let pairs: Vec<(Real, Real)> = outputs
            .into_iter()
            .zip(gradients)
            .filter_map(|(o, g)| match (o, g) {
                (Value::Real(r), Some(g)) => Some((r, g.clone())),
                _ => None,
            })
            .collect();
        let leaves: Vec<(usize, &Real)> = inputs
            .iter()
            .enumerate()
            .filter_map(|(i, v)| match v {
                Some(Value::Real(r)) if step.varies[i] => Some((i, r)),
                _ => None,
            })
            .collect();
        let only: Vec<&Real> = leaves.iter().map(|(_, r)| *r).collect();
        let mut result = vec![None; inputs.len()];
        for ((i, _), g) in leaves.iter().zip(Real::tape_gradients(&pairs, &only)) {
            result[*i] = g;
        }
        Ok(result)
    }

    /// What a linear node adds, for one row.
    fn offset(&self, frame: &Frame, step: &Step) -> Result<Option<Vec<f32>>, GraphError> {
        if !step.rule.is_linear() {
            return Ok(None);
        }
        let inputs = self.inputs(frame, step, |_, id| Some(frame.zeros(self, id)))?;
        let outputs = self.eval(frame, step, &inputs)?;
        let (Some(Some(y)), Some(Some(id))) = (outputs.first(), self.node(step).outputs.first()) else {
            return Ok(None);
        };
        let mut row = y.to_vec();
        row.truncate(self.sizes[*id]);
        Ok(row.iter().any(|&v| v != 0.0).then_some(row))
    }

    /// Bound on the rounding of one output by any order of its sum, twice: once for the bound, once for the network.
    ///
    /// Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1: k operations are off by at most
    /// k u / (1 − k u) of the sum of the sizes of the terms.
    fn gamma(&self, frame: &Frame, node: usize, rule: &Rule) -> f64 {
        let (index, node) = (node, &self.model.nodes[node]);
        let terms = match rule {
            Rule::Weighted { .. } => {
                let inputs = gather(node, &frame.plan.facts).unwrap_or_default();
                let outputs = frame.plan.calls[index].clone();
                let outputs = outputs.as_deref().unwrap_or_default();
                let written: usize = outputs.iter().map(Fact::count).sum();
                node.op.macs(Args(&inputs), outputs) as f64 / written.max(1) as f64
            }
            Rule::Positive { adds: true } => {
                let count = |ids: &[Option<ValueId>]| ids.iter().flatten().map(|&id| self.sizes[id]).sum::<usize>();
                // Windows that overlap take an element several times; 256 is more than their usual size.
                count(&node.inputs) as f64 / count(&node.outputs).max(1) as f64 + 256.0
            }
            Rule::Positive { adds: false } => return 0.0,
            _ => 4.0,
        };
        let k = (terms + 6.0) * UNIT;
        3.0 * k / (1.0 - k).max(0.1)
    }
}

impl Frame {
    pub(super) fn fact(&self, id: ValueId) -> Option<&Fact> {
        self.plan.facts[id].as_ref()
    }

    /// Zeros in the shape of a value.
    fn zeros(&self, network: &Network<'_>, id: ValueId) -> Real {
        let shape = self.fact(id).map(|f| f.shape.clone()).unwrap_or_default();
        let fill = || Real::full(&shape, 0.0, &network.cx.device);
        self.zeros.borrow_mut().entry(shape.clone()).or_insert_with(fill).clone()
    }

    /// A value's shape.
    pub(super) fn shape(&self, id: ValueId) -> &[usize] {
        self.fact(id).map_or(&[], |f| &f.shape)
    }
}

fn plan(model: &Model, input: ValueId, rows: usize) -> Result<Arc<Plan>, GraphError> {
    let mut shape = Vec::new();
    for (i, d) in model.inputs().first().and_then(|p| p.shape.clone()).unwrap_or_default().iter().enumerate() {
        match d {
            crate::model::Dim::Fixed(n) if i > 0 => shape.push(*n),
            _ if i == 0 => shape.push(rows),
            other => {
                let message = format!("axis {i} of the input has the open size {other}; bounds need it fixed");
                return Err(GraphError::Bounds { message });
            }
        }
    }
    if shape.len() < 2 {
        let message = "the input must have a batch axis and at least one more, of known sizes".to_owned();
        return Err(GraphError::Bounds { message });
    }
    model.plan(&[(input, shape)])
}
