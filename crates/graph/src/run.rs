//! Running a network: taps, overrides, training mode, and gradients of any named value in one walk back.

mod backward;

use std::collections::HashMap;
use std::sync::Arc;

use netproof_stats::rng::Rng;
use netproof_tensor::{DType, Elements, Tensor};

use crate::error::{GraphError, OpError};
use crate::model::{Dim, Model, Node, Port, ValueId};
use crate::operator::{Args, Context, Fact, Keep, Value};
use crate::plan::{Plan, eval, infer, node_error, typed};
use crate::real::Real;

pub use backward::Gradients;

/// Which gradients a run must be able to give.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wrt {
    /// Named values: inputs, or any value on the way (a probe).
    pub values: Vec<String>,
    /// Which parameters.
    pub parameters: Parameters,
}

/// Which parameters get a gradient.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Parameters {
    /// None: parameter gradients are not computed.
    #[default]
    None,
    /// All trainable ones.
    Trainable,
    /// Those named.
    Named(Vec<String>),
}

impl Wrt {
    /// Gradients of the named values only.
    pub fn values<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self { values: names.into_iter().map(Into::into).collect(), parameters: Parameters::None }
    }

    /// Gradients of all trainable parameters only.
    pub fn trainable() -> Self {
        Self { values: Vec::new(), parameters: Parameters::Trainable }
    }
}

/// What to run: inputs by name, and what to look at on the way.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Inputs by name. The first dimension is the batch.
    pub inputs: Vec<(String, Tensor)>,
    /// Named values to read besides the outputs (taps).
    pub taps: Vec<String>,
    /// Named values to replace: whatever uses them sees these instead (overrides).
    pub overrides: Vec<(String, Tensor)>,
    /// Only these outputs; all where empty. Nodes that nothing asks for do not run.
    pub outputs: Vec<String>,
    /// Training mode with this seed: batch normalisation uses batch statistics, dropout drops.
    pub training: Option<u64>,
    /// Gradients that [`Run::backward`] will be asked for.
    pub wrt: Wrt,
}

impl Request {
    /// Evaluation of one named input.
    pub fn new(input: impl Into<String>, tensor: Tensor) -> Self {
        Self { inputs: vec![(input.into(), tensor)], ..Self::default() }
    }
}

/// A finished forward pass.
#[derive(Debug)]
pub struct Run<'m> {
    model: &'m Model,
    plan: Arc<Plan>,
    values: Vec<Option<Value>>,
    /// Facts that only this run knows.
    late: HashMap<ValueId, Fact>,
    calls: Vec<Call<'m>>,
    requires: Vec<bool>,
    wanted: Vec<ValueId>,
    /// Values that fused nodes did not make.
    skipped: Vec<ValueId>,
    updates: Vec<(ValueId, Real)>,
    cx: Context,
}

/// What the gradient of one node needs of the forward pass.
#[derive(Debug)]
struct Call<'m> {
    node: &'m Node,
    inputs: Vec<Option<Value>>,
    outputs: Vec<Option<Value>>,
    facts: Arc<[Fact]>,
    seed: u64,
}

/// One node to run: as in the file, or several at once.
struct Step<'m> {
    /// The place of the node, or of the last one that it stands for, in the graph.
    index: usize,
    node: &'m Node,
    facts: Option<Arc<[Fact]>>,
}

impl Model {
    /// First input to first output, evaluation mode. A fixed batch size in the file is met by splitting and padding.
    /// # Shapes
    /// `[n, ...]` → `[n, ...]`
    /// # Errors
    /// The input does not fit; the message says what would.
    pub fn predict(&self, x: &Tensor) -> Result<Tensor, GraphError> {
        let (Some(input), Some(output)) = (self.inputs.first(), self.outputs.first()) else {
            return Err(GraphError::UnknownValue { name: "first input".to_owned(), candidates: Vec::new() });
        };
        let n = x.rows();
        let Some(fixed) = self.fixed_batch().filter(|&b| b != n && b > 0 && x.rank() > 0) else {
            return self.forward(&Request::new(&input.name, x.clone()))?.output(&output.name);
        };
        let mut parts = Vec::new();
        for start in (0..n).step_by(fixed) {
            let end = (start + fixed).min(n);
            let rows: Vec<usize> = (start..start + fixed).map(|r| r.min(end - 1)).collect();
            let y = self.forward(&Request::new(&input.name, x.select_rows(&rows)?))?.output(&output.name)?;
            parts.push(y.slice_rows(0, end - start)?);
        }
        Ok(Tensor::concat_rows(&parts)?)
    }

    /// The batch size, where the file fixes it.
    pub fn fixed_batch(&self) -> Option<usize> {
        match self.inputs.first()?.shape.as_ref()?.first()? {
            Dim::Fixed(n) => Some(*n),
            _ => None,
        }
    }

    /// Runs the network.
    /// # Errors
    /// An input is missing, unknown or does not fit; a node refuses its inputs.
    pub fn forward(&self, request: &Request) -> Result<Run<'_>, GraphError> {
        let mut given: Vec<(ValueId, Arc<Tensor>)> = Vec::new();
        self.check_inputs(&request.inputs)?;
        for (name, tensor) in request.inputs.iter().chain(&request.overrides) {
            given.push((self.id(name)?, Arc::new(tensor.clone())));
        }
        let shapes: Vec<_> = given.iter().map(|(id, t)| (*id, t.shape().to_vec())).collect();
        let plan = self.plan(&shapes)?;
        let work = plan.work;
        together(work, || self.run(given, plan, request))
    }

    fn run(
        &self,
        given: Vec<(ValueId, Arc<Tensor>)>,
        plan: Arc<Plan>,
        request: &Request,
    ) -> Result<Run<'_>, GraphError> {
        let cx = Context {
            device: self.device.clone(),
            training: request.training.is_some(),
            seed: request.training.unwrap_or_default(),
        };
        let mut run = Run {
            model: self,
            plan,
            values: vec![None; self.names.len()],
            late: HashMap::new(),
            calls: Vec::new(),
            requires: vec![false; self.names.len()],
            wanted: Vec::new(),
            skipped: Vec::new(),
            updates: Vec::new(),
            cx,
        };
        run.start(&given, request)?;
        run.execute(request)?;
        Ok(run)
    }

    fn check_inputs(&self, given: &[(String, Tensor)]) -> Result<(), GraphError> {
        let names = || self.inputs.iter().map(|p| p.name.clone()).collect();
        for (name, _) in given {
            let known = self.inputs.iter().any(|p| &p.name == name)
                || self.ids.get(name).is_some_and(|id| self.parameters.contains_key(id));
            if !known {
                return Err(GraphError::UnknownValue { name: name.clone(), candidates: names() });
            }
        }
        let mut sizes: HashMap<&str, usize> = HashMap::new();
        for port in &self.inputs {
            let Some((_, tensor)) = given.iter().find(|(name, _)| *name == port.name) else {
                return Err(GraphError::Input {
                    name: port.name.clone(),
                    message: format!("missing; the network needs {}", names_of(&names())),
                });
            };
            check_port(port, tensor, &mut sizes)?;
        }
        Ok(())
    }
}

/// Operations from which a run moves to the threads that share its work: handing over each node from outside would cost
/// more than many nodes do.
const LARGE: u64 = 4 << 20;

/// `f()`, on a thread of the pool where there is much to do.
fn together<T: Send>(work: u64, f: impl FnOnce() -> T + Send) -> T {
    if work < LARGE || rayon::current_num_threads() == 1 { f() } else { rayon::scope(|_| f()) }
}

fn names_of(names: &[String]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

fn check_port<'p>(port: &'p Port, tensor: &Tensor, sizes: &mut HashMap<&'p str, usize>) -> Result<(), GraphError> {
    let fail = |message: String| Err(GraphError::Input { name: port.name.clone(), message });
    let same_type = tensor.dtype() == port.dtype || (tensor.dtype().is_float() && port.dtype.is_float());
    if !same_type {
        return fail(format!("holds {} values, the network needs {}", tensor.dtype(), port.dtype));
    }
    let Some(dims) = &port.shape else { return Ok(()) };
    let wanted = || format!("[{}]", dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(", "));
    if dims.len() != tensor.rank() {
        return fail(format!("has shape {:?}, the network needs {}", tensor.shape(), wanted()));
    }
    for (d, &n) in dims.iter().zip(tensor.shape()) {
        let fits = match d {
            Dim::Fixed(want) => *want == n,
            Dim::Named(name) => *sizes.entry(name).or_insert(n) == n,
            Dim::Any => true,
        };
        if !fits {
            return fail(format!("has shape {:?}, the network needs {}", tensor.shape(), wanted()));
        }
    }
    Ok(())
}

impl<'m> Run<'m> {
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

    fn fact(&self, id: ValueId) -> Option<&Fact> {
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

    /// What runs, in order: the needed nodes, those that can be computed together as one.
    fn steps(&mut self, targets: &[ValueId]) -> Vec<Step<'m>> {
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
        for (fusion, facts) in model.fusions.iter().zip(&self.plan.fused) {
            let Some(facts) = facts else { continue };
            let seen = |v: &ValueId| targets.contains(v) || self.values[*v].is_some() || self.requires[*v];
            let differentiates = fusion.node.inputs.iter().flatten().any(|&i| flows[i]);
            let whole = fusion.parts.iter().all(|&p| needed[p]);
            if !whole || fusion.interior.iter().any(seen) || (differentiates && !fusion.smooth) {
                continue;
            }
            let Some((&last, _)) = fusion.parts.split_last() else { continue };
            fusion.parts.iter().for_each(|&p| needed[p] = false);
            self.skipped.extend(&fusion.interior);
            fused[last] = Some((&fusion.node, facts.clone()));
        }
        let mut steps = Vec::with_capacity(model.nodes.len());
        for (index, (node, fused)) in model.nodes.iter().zip(fused).enumerate() {
            if let Some((node, facts)) = fused {
                steps.push(Step { index, node, facts: Some(facts) });
            } else if needed[index] {
                steps.push(Step { index, node, facts: self.plan.calls[index].clone() });
            }
        }
        steps
    }

    fn execute(&mut self, request: &Request) -> Result<(), GraphError> {
        let model = self.model;
        let mut targets = Vec::new();
        if request.outputs.is_empty() {
            for p in &model.outputs {
                targets.push(model.id(&p.name)?);
            }
        }
        for name in request.outputs.iter().chain(&request.taps) {
            targets.push(model.id(name)?);
        }
        let steps = self.steps(&targets);
        let mut last_use = vec![0; self.values.len()];
        for step in &steps {
            for &input in step.node.inputs.iter().flatten() {
                last_use[input] = step.index;
            }
        }
        let mut keep = vec![false; self.values.len()];
        targets.iter().for_each(|&t| keep[t] = true);
        for step in &steps {
            self.step(step)?;
            for &id in step.node.inputs.iter().chain(&step.node.outputs).flatten() {
                if last_use[id] <= step.index && !keep[id] && !model.parameters.contains_key(&id) {
                    self.values[id] = None;
                }
            }
        }
        for t in targets {
            if self.values[t].is_none() {
                self.values[t] = Some(self.value(t)?);
            }
        }
        Ok(())
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

    fn step(&mut self, step: &Step<'m>) -> Result<(), GraphError> {
        let node = step.node;
        let inputs = node
            .inputs
            .iter()
            .map(|i| i.map(|id| self.value(id)).transpose())
            .collect::<Result<Vec<Option<Value>>, _>>()?;
        let facts = match &step.facts {
            Some(facts) => facts.clone(),
            None => self.late_facts(node, &inputs)?,
        };
        let seed = node_seed(self.cx.seed, step.index);
        let cx = Context { seed, ..self.cx.clone() };
        let outputs = eval(node, &inputs, &facts, &cx)?;
        if cx.training {
            let updates = node.op.running_statistics(Args(&inputs), &cx).map_err(|e| node_error(node, e))?;
            for (input, real) in updates {
                if let Some(Some(id)) = node.inputs.get(input) {
                    self.updates.push((*id, real));
                }
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
                if step.facts.is_none() {
                    self.late.insert(*id, Fact { value: None, ..fact.clone() });
                }
            }
        }
        if differentiates {
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
        let (inputs, outputs) = match node.op.keep() {
            Keep::Inputs => (inputs, vec![None; outputs.len()]),
            Keep::Outputs => (vec![None; inputs.len()], outputs.into_iter().map(Some).collect()),
            Keep::Both => (inputs, outputs.into_iter().map(Some).collect()),
        };
        self.calls.push(Call { node, inputs, outputs, facts, seed });
    }

    /// A declared output or tap on the host, with its declared type.
    /// # Errors
    /// The value was neither an output nor a tap of this run.
    pub fn output(&self, name: &str) -> Result<Tensor, GraphError> {
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
    pub fn updates(&self) -> Result<Vec<(String, Tensor)>, GraphError> {
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
