//! One forward pass over all rows it is given.

use std::collections::HashMap;
use std::sync::Arc;

use netproof_stats::rng::Rng;
use netproof_tensor::{DType, Elements, Tensor};

use super::checkpoints::Segment;
use super::{Parameters, Request};
use crate::error::{GraphError, OpError};
use crate::model::{Model, Node, ValueId};
use crate::operator::{Context, Fact, Keep, Value};
use crate::plan::{Plan, eval, eval_training, infer, node_error, typed};
use crate::real::Real;

/// A finished forward pass.
#[derive(Debug)]
pub(super) struct Pass<'m> {
    pub(super) model: &'m Model,
    pub(super) plan: Arc<Plan>,
    pub(super) values: Vec<Option<Value>>,
    /// Facts that only this run knows.
    pub(super) late: HashMap<ValueId, Fact>,
    pub(super) calls: Vec<Call<'m>>,
    pub(super) requires: Vec<bool>,
    pub(super) wanted: Vec<ValueId>,
    pub(super) schedule: Option<Arc<Schedule>>,
    pub(super) updates: Vec<(ValueId, Real)>,
    /// Whether rules other than the gradient may walk back: nodes stay as they are in the file, and all values are kept.
    pub(super) rules: bool,
    /// What is computed again on the way back, in order.
    pub(super) segments: Vec<Segment>,
    /// Whether steps keep what the way back needs.
    pub(super) keeps: bool,
    pub(super) cx: Context,
}

/// What the gradient of one node needs of the forward pass.
#[derive(Debug)]
pub(super) struct Call<'m> {
    pub(super) node: &'m Node,
    pub(super) inputs: Vec<Option<Value>>,
    pub(super) outputs: Vec<Option<Value>>,
    pub(super) facts: Arc<[Fact]>,
    pub(super) seed: u64,
}

/// What runs, in order, and which values are done with after each step.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(super) steps: Vec<Step>,
    /// Values that fused nodes do not make.
    skipped: Vec<ValueId>,
}

/// One node to run: as in the file, or several at once.
#[derive(Debug)]
pub(super) struct Step {
    /// The place of the node, or of the last one that it stands for, in the graph.
    index: usize,
    /// The number of the fusion, where it is one.
    fusion: Option<usize>,
    drops: Vec<ValueId>,
}

impl Step {
    pub(super) fn node<'m>(&self, model: &'m Model) -> &'m Node {
        self.fusion.map_or(&model.nodes[self.index], |number| &model.fusions[number].node)
    }
}

impl<'m> Pass<'m> {
    pub(super) fn new(
        model: &'m Model,
        given: &[(ValueId, Arc<Tensor>)],
        plan: Arc<Plan>,
        request: &Request,
    ) -> Result<Self, GraphError> {
        let cx = Context {
            device: model.device.clone(),
            training: request.training.is_some(),
            seed: request.training.unwrap_or_default(),
        };
        let mut pass = Self {
            model,
            plan,
            values: vec![None; model.names.len()],
            late: HashMap::new(),
            calls: Vec::new(),
            requires: vec![false; model.names.len()],
            wanted: Vec::new(),
            schedule: None,
            updates: Vec::new(),
            rules: request.rules,
            segments: Vec::new(),
            keeps: true,
            cx,
        };
        pass.start(given, request)?;
        pass.execute(request)?;
        Ok(pass)
    }

    fn start(&mut self, given: &[(ValueId, Arc<Tensor>)], request: &Request) -> Result<(), GraphError> {
        for (id, tensor) in given {
            let value = Real::of(tensor, &self.cx.device).map_or_else(|| Value::Host(tensor.clone()), Value::Real);
            if self.fact(*id).is_none_or(|f| f.dtype.is_float() != tensor.dtype().is_float()) {
                self.late.insert(*id, Fact::new(tensor.dtype(), tensor.shape().to_vec()));
            }
            self.values[*id] = Some(value);
        }
        for name in &request.wrt.values {
            let id = self.model.id(name)?;
            self.wanted.push(id);
        }
        match &request.wrt.parameters {
            Parameters::None => {}
            Parameters::Trainable => self.wanted.extend(self.model.trainable_ids()),
            Parameters::Named(names) => {
                for name in names {
                    let id = self.model.id(name)?;
                    self.wanted.push(id);
                }
            }
        }
        for &id in &self.wanted {
            self.requires[id] = true;
        }
        Ok(())
    }

    pub(super) fn fact(&self, id: ValueId) -> Option<&Fact> {
        self.late.get(&id).or(self.plan.facts[id].as_ref())
    }

    /// Which nodes run: those that the outputs and taps need, and that are neither given nor known.
    fn needed(&self, targets: &[ValueId]) -> Vec<bool> {
        let mut value = vec![false; self.values.len()];
        for &t in targets {
            value[t] = true;
        }
        let mut node = vec![false; self.model.nodes.len()];
        for (i, n) in self.model.nodes.iter().enumerate().rev() {
            let run = n.outputs.iter().flatten().any(|&o| value[o] && self.values[o].is_none() && !self.known(o));
            if run {
                node[i] = true;
                for &input in n.inputs.iter().flatten() {
                    value[input] = true;
                }
            }
        }
        node
    }

    fn known(&self, id: ValueId) -> bool {
        !self.requires[id] && self.fact(id).is_some_and(|f| f.value.is_some())
    }

    /// What runs: the needed nodes, those that can be computed together as one.
    fn schedule(&self, targets: &[ValueId]) -> Schedule {
        let model = self.model;
        let mut needed = self.needed(targets);
        let mut flows = self.requires.clone();
        if !self.wanted.is_empty() {
            for node in &model.nodes {
                if node.inputs.iter().flatten().any(|&i| flows[i]) {
                    node.outputs.iter().flatten().for_each(|&o| flows[o] = true);
                }
            }
        }
        let mut fused = vec![None; model.nodes.len()];
        let mut skipped = Vec::new();
        for (number, (fusion, facts)) in model.fusions.iter().zip(&self.plan.fused).enumerate() {
            // One activation is what GELU is to a rule, too.
            if self.rules && fusion.node.operator != "Gelu" {
                continue;
            }
            let seen = |v: &ValueId| targets.contains(v) || self.values[*v].is_some() || self.requires[*v];
            let differentiates = fusion.node.inputs.iter().flatten().any(|&i| flows[i]);
            let whole = facts.is_some() && fusion.parts.iter().all(|&p| needed[p]);
            if !whole || fusion.interior.iter().any(seen) || (differentiates && !fusion.smooth) {
                continue;
            }
            let Some((&last, _)) = fusion.parts.split_last() else { continue };
            fusion.parts.iter().for_each(|&p| needed[p] = false);
            skipped.extend(&fusion.interior);
            fused[last] = Some(number);
        }
        let runs = |&index: &usize| needed[index] || fused[index].is_some();
        let step = |index: usize| Step { index, fusion: fused[index], drops: Vec::new() };
        let mut steps: Vec<Step> = (0..model.nodes.len()).filter(runs).map(step).collect();
        let mut done: Vec<bool> = vec![false; self.values.len()];
        targets.iter().for_each(|&t| done[t] = true);
        for step in steps.iter_mut().rev() {
            let node = step.node(model);
            for &id in node.inputs.iter().chain(&node.outputs).flatten() {
                if !std::mem::replace(&mut done[id], true) && !model.parameters.contains_key(&id) {
                    step.drops.push(id);
                }
            }
        }
        Schedule { steps, skipped }
    }

    fn execute(&mut self, request: &Request) -> Result<(), GraphError> {
        let mut targets = Vec::new();
        if request.outputs.is_empty() {
            for p in &self.model.outputs {
                targets.push(self.model.id(&p.name)?);
            }
        }
        for name in request.outputs.iter().chain(&request.taps) {
            targets.push(self.model.id(name)?);
        }
        // What is given is part of what the plan was made for.
        let usual = request.outputs.is_empty() && request.taps.is_empty() && self.wanted.is_empty() && !self.rules;
        let schedule = match usual {
            true => self.plan.usual.get_or_init(|| Arc::new(self.schedule(&targets))).clone(),
            false => Arc::new(self.schedule(&targets)),
        };
        let length = self.segment_length(schedule.steps.len(), request);
        for (number, steps) in schedule.steps.chunks(length).enumerate() {
            let begin = number * length;
            self.keeps = begin + steps.len() == schedule.steps.len();
            if !self.keeps {
                self.begin_segment(begin, steps);
            }
            self.steps(steps)?;
        }
        self.schedule = Some(schedule);
        for t in targets {
            if self.values[t].is_none() {
                self.values[t] = Some(self.value(t)?);
            }
        }
        Ok(())
    }

    /// Whether a value was left out, since several nodes were computed together.
    pub(super) fn was_skipped(&self, id: ValueId) -> bool {
        self.schedule.as_ref().is_some_and(|s| s.skipped.contains(&id))
    }

    /// The value for use: computed, known from the plan, or a parameter.
    fn value(&self, id: ValueId) -> Result<Value, GraphError> {
        if let Some(v) = &self.values[id] {
            return Ok(v.clone());
        }
        if let Some(p) = self.model.parameters.get(&id) {
            return Ok(p.real(&self.cx.device).map_or_else(|| Value::Host(p.tensor.clone()), Value::Real));
        }
        match self.fact(id).and_then(|f| f.value.clone()) {
            Some(v) => Ok(Value::Host(v)),
            None => Err(GraphError::UnknownValue { name: self.model.names[id].clone(), candidates: Vec::new() }),
        }
    }

    /// Runs steps in order, and lets go of what is done with.
    pub(super) fn steps(&mut self, steps: &[Step]) -> Result<(), GraphError> {
        for step in steps {
            self.step(step)?;
            step.drops.iter().for_each(|&id| self.values[id] = None);
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), GraphError> {
        let node = step.node(self.model);
        let known = match step.fusion {
            Some(number) => &self.plan.fused[number],
            None => &self.plan.calls[step.index],
        };
        let inputs = node
            .inputs
            .iter()
            .map(|i| i.map(|id| self.value(id)).transpose())
            .collect::<Result<Vec<Option<Value>>, _>>()?;
        let (facts, late) = match known {
            Some(facts) => (facts.clone(), false),
            None => (self.late_facts(node, &inputs)?, true),
        };
        let seed = node_seed(self.cx.seed, step.index);
        let cx = Context { seed, ..self.cx.clone() };
        let (outputs, updates) = match cx.training {
            true => eval_training(node, &inputs, &facts, &cx)?,
            false => (eval(node, &inputs, &facts, &cx)?, Vec::new()),
        };
        for (input, real) in updates {
            if let Some(Some(id)) = node.inputs.get(input) {
                self.updates.push((*id, real));
            }
        }
        let differentiates = node.inputs.iter().flatten().any(|&i| self.requires[i]);
        for ((id, value), fact) in node.outputs.iter().zip(&outputs).zip(facts.iter()) {
            let Some(id) = id else { continue };
            if differentiates && fact.dtype.is_float() {
                self.requires[*id] = true;
            }
            // An overridden value stays what the caller gave.
            if self.values[*id].is_none() {
                self.values[*id] = Some(value.clone());
                if late {
                    self.late.insert(*id, Fact { value: None, ..fact.clone() });
                }
            }
        }
        if differentiates && self.keeps {
            self.remember(node, inputs, outputs, facts, seed);
        }
        Ok(())
    }

    /// What is known of a node's outputs only now, since they depend on values.
    fn late_facts(&self, node: &Node, inputs: &[Option<Value>]) -> Result<Arc<[Fact]>, GraphError> {
        let mut seen = self.runtime_facts(node, inputs);
        let inferred = match infer(node, &seen) {
            // The output's shape depends on floats, so they are read back.
            Err(OpError::Deferred) => {
                for (fact, value) in seen.iter_mut().zip(inputs) {
                    if let (Some(fact), Some(value)) = (fact, value) {
                        fact.value = Some(value.to_host());
                    }
                }
                infer(node, &seen)
            }
            other => other,
        };
        inferred.map(Into::into).map_err(|e| node_error(node, e))
    }

    fn runtime_facts(&self, node: &Node, inputs: &[Option<Value>]) -> Vec<Option<Fact>> {
        node.inputs
            .iter()
            .zip(inputs)
            .map(|(id, value)| {
                let value = value.as_ref()?;
                let dtype = id.and_then(|id| self.fact(id)).map(|f| f.dtype);
                let mut fact = match value {
                    Value::Host(t) => Fact { dtype: t.dtype(), shape: t.shape().to_vec(), value: Some(t.clone()) },
                    Value::Real(r) => Fact::new(DType::F32, r.shape().to_vec()),
                };
                if fact.dtype.is_float() {
                    fact.dtype = dtype.filter(|d| d.is_float()).unwrap_or(DType::F32);
                }
                Some(fact)
            })
            .collect()
    }

    fn remember(
        &mut self,
        node: &'m Node,
        inputs: Vec<Option<Value>>,
        outputs: Vec<Value>,
        facts: Arc<[Fact]>,
        seed: u64,
    ) {
        let keep = if self.rules { Keep::Both } else { node.op.keep() };
        let (inputs, outputs) = match keep {
            Keep::Inputs => (inputs, vec![None; outputs.len()]),
            Keep::Outputs => (vec![None; inputs.len()], outputs.into_iter().map(Some).collect()),
            Keep::Both => (inputs, outputs.into_iter().map(Some).collect()),
        };
        self.calls.push(Call { node, inputs, outputs, facts, seed });
    }

    /// A declared output or tap on the host, with its declared type.
    /// # Errors
    /// The value was neither an output nor a tap of this run.
    pub(super) fn output(&self, name: &str) -> Result<Tensor, GraphError> {
        let id = self.model.id(name)?;
        let Some(value) = &self.values[id] else {
            return Err(GraphError::UnknownValue {
                name: format!("{name} (ask for it as a tap)"),
                candidates: Vec::new(),
            });
        };
        Ok(match self.fact(id) {
            Some(fact) => round(Arc::unwrap_or_clone(typed(value, fact))),
            None => Arc::unwrap_or_clone(value.to_host()),
        })
    }

    /// New running statistics of batch normalisation, by parameter name; empty in evaluation mode.
    pub(super) fn updates(&self) -> Result<Vec<(String, Tensor)>, GraphError> {
        self.updates.iter().map(|(id, r)| Ok((self.model.names[*id].clone(), r.to_tensor()))).collect()
    }
}

/// A seed of its own for each node.
fn node_seed(seed: u64, node: usize) -> u64 {
    Rng::stream(seed, node as u64 + 1).next_u64()
}

fn round(tensor: Tensor) -> Tensor {
    let dtype = tensor.dtype();
    if !matches!(dtype, DType::F16 | DType::BF16) {
        return tensor;
    }
    let (dtype, shape, elements) = tensor.into_parts();
    let elements = match elements {
        Elements::Float(v) => Elements::Float(v.into_iter().map(|x| dtype.round(x)).collect()),
        other => other,
    };
    Tensor::new(dtype, shape, elements).expect("only values were changed")
}
