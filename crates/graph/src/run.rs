//! Running a network: taps, overrides, training mode, and gradients of any named value in one walk back.

use std::collections::HashMap;
use std::sync::Arc;

use netproof_stats::rng::Rng;
use netproof_tensor::{DType, Elements, Tensor};

use crate::error::{GraphError, OpError};
use crate::model::{Dim, Model, Node, Port, ValueId};
use crate::operator::{Args, Backward, Context, Fact, Keep, Value};
use crate::plan::{eval, infer, node_error, typed};
use crate::real::Real;

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
    values: Vec<Option<Value>>,
    facts: Vec<Option<Fact>>,
    calls: Vec<Call>,
    requires: Vec<bool>,
    wanted: Vec<ValueId>,
    updates: Vec<(ValueId, Real)>,
    cx: Context,
}

/// What the gradient of one node needs of the forward pass.
#[derive(Debug)]
struct Call {
    node: usize,
    inputs: Vec<Option<Value>>,
    outputs: Vec<Option<Value>>,
    facts: Vec<Fact>,
    seed: u64,
}

/// Gradients by name.
#[derive(Debug, Clone, Default)]
pub struct Gradients(HashMap<String, Tensor>);

impl Gradients {
    /// Gradient of a named value; `None` where nothing flows to it (then it is zero) or it was not asked for.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// Gradient of a named value, taken.
    pub fn take(&mut self, name: &str) -> Option<Tensor> {
        self.0.remove(name)
    }

    /// Names that have a gradient.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
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
        let cx = Context {
            device: self.device.clone(),
            training: request.training.is_some(),
            seed: request.training.unwrap_or_default(),
        };
        let mut run = Run {
            model: self,
            values: vec![None; self.names.len()],
            facts: plan.facts.clone(),
            calls: Vec::new(),
            requires: vec![false; self.names.len()],
            wanted: Vec::new(),
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
            let value = match tensor.as_f32() {
                Some(v) => Value::Real(Real::new(tensor.shape(), v.to_vec(), &self.cx.device)),
                None => Value::Host(tensor.clone()),
            };
            if self.facts[*id].as_ref().is_none_or(|f| f.dtype.is_float() != tensor.dtype().is_float()) {
                self.facts[*id] = Some(Fact::new(tensor.dtype(), tensor.shape().to_vec()));
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
        !self.requires[id] && self.facts[id].as_ref().is_some_and(|f| f.value.is_some())
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
        let run_node = self.needed(&targets);
        let mut last_use = vec![0; self.values.len()];
        for (i, node) in model.nodes.iter().enumerate().filter(|(i, _)| run_node[*i]) {
            for &input in node.inputs.iter().flatten() {
                last_use[input] = i;
            }
        }
        let mut keep = vec![false; self.values.len()];
        targets.iter().for_each(|&t| keep[t] = true);
        for (i, node) in model.nodes.iter().enumerate().filter(|(i, _)| run_node[*i]) {
            self.step(i, node)?;
            for &id in node.inputs.iter().flatten().chain(node.outputs.iter().flatten()) {
                if last_use[id] <= i && !keep[id] && !model.parameters.contains_key(&id) {
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
        match self.facts[id].as_ref().and_then(|f| f.value.clone()) {
            Some(v) => Ok(Value::Host(v)),
            None => Err(GraphError::UnknownValue { name: self.model.names[id].clone(), candidates: Vec::new() }),
        }
    }

    fn step(&mut self, index: usize, node: &Node) -> Result<(), GraphError> {
        let inputs = node
            .inputs
            .iter()
            .map(|i| i.map(|id| self.value(id)).transpose())
            .collect::<Result<Vec<Option<Value>>, _>>()?;
        let known: Option<Vec<Fact>> = node
            .outputs
            .iter()
            .map(|o| match o {
                Some(id) => self.facts[*id].clone(),
                None => Some(Fact::new(DType::F32, Vec::new())),
            })
            .collect();
        let facts = match known {
            // An absent output leaves a gap in the facts, so they are worked out again.
            Some(facts) if node.outputs.iter().all(Option::is_some) => facts,
            _ => {
                let mut seen = self.runtime_facts(node, &inputs);
                let inferred = match infer(node, &seen) {
                    // The output's shape depends on floats, so they are read back.
                    Err(OpError::Deferred) => {
                        for (fact, value) in seen.iter_mut().zip(&inputs) {
                            if let (Some(fact), Some(value)) = (fact, value) {
                                fact.value = Some(value.to_host());
                            }
                        }
                        infer(node, &seen)
                    }
                    other => other,
                };
                inferred.map_err(|e| node_error(node, e))?
            }
        };
        let cx = Context { seed: node_seed(self.cx.seed, index), ..self.cx.clone() };
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
        for ((id, value), fact) in node.outputs.iter().zip(&outputs).zip(&facts) {
            let Some(id) = id else { continue };
            if differentiates && fact.dtype.is_float() {
                self.requires[*id] = true;
            }
            // An overridden value stays what the caller gave.
            if self.values[*id].is_none() {
                self.values[*id] = Some(value.clone());
                let mut fact = fact.clone();
                fact.value = None;
                self.facts[*id] = Some(fact);
            }
        }
        if differentiates {
            self.remember(index, node, inputs, outputs, facts, cx.seed);
        }
        Ok(())
    }

    fn runtime_facts(&self, node: &Node, inputs: &[Option<Value>]) -> Vec<Option<Fact>> {
        node.inputs
            .iter()
            .zip(inputs)
            .map(|(id, value)| {
                let value = value.as_ref()?;
                let dtype = id.and_then(|id| self.facts[id].as_ref()).map(|f| f.dtype);
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
        index: usize,
        node: &Node,
        inputs: Vec<Option<Value>>,
        outputs: Vec<Value>,
        facts: Vec<Fact>,
        seed: u64,
    ) {
        let keep = node.op.keep();
        let (inputs, outputs) = match keep {
            Keep::Inputs => (inputs, vec![None; outputs.len()]),
            Keep::Outputs => (vec![None; inputs.len()], outputs.into_iter().map(Some).collect()),
            Keep::Both => (inputs, outputs.into_iter().map(Some).collect()),
        };
        self.calls.push(Call { node: index, inputs, outputs, facts, seed });
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
        Ok(match &self.facts[id] {
            Some(fact) => round(Arc::unwrap_or_clone(typed(value, fact))),
            None => Arc::unwrap_or_clone(value.to_host()),
        })
    }

    /// New running statistics of batch normalisation, by parameter name; empty in evaluation mode.
    pub fn updates(&self) -> Result<Vec<(String, Tensor)>, GraphError> {
        self.updates
            .iter()
            .map(|(id, r)| Ok((self.model.names[*id].clone(), Tensor::f32(r.shape().to_vec(), r.to_vec())?)))
            .collect()
    }

    /// Gradients of `sum over seeds of (value · seed)` with respect to what [`Request::wrt`] names. May be called again
    /// with other seeds: the forward pass is reused.
    /// # Shapes
    /// each seed has the shape of its value; each gradient has the shape of its value
    /// # Errors
    /// A seed does not fit, or its value does not depend on anything that was asked for.
    pub fn backward(&self, seeds: &[(&str, &Tensor)]) -> Result<Gradients, GraphError> {
        let mut gradients: Vec<Option<Real>> = vec![None; self.values.len()];
        for (name, seed) in seeds {
            let id = self.model.id(name)?;
            let shape = self.facts[id].as_ref().map(|f| f.shape.clone());
            let values = match seed.as_f32() {
                Some(v) if shape.as_deref().is_none_or(|s| s == seed.shape()) => v.to_vec(),
                _ => {
                    let wanted = shape.unwrap_or_default();
                    return Err(GraphError::NoGradient {
                        name: (*name).to_owned(),
                        reason: format!("the seed is {} {:?}, must be float {wanted:?}", seed.dtype(), seed.shape()),
                    });
                }
            };
            accumulate(&mut gradients[id], Real::new(seed.shape(), values, &self.cx.device));
        }
        for call in self.calls.iter().rev() {
            self.step_back(call, &mut gradients)?;
        }
        let mut named = HashMap::new();
        for &id in &self.wanted {
            if let Some(g) = &gradients[id] {
                named.insert(self.model.names[id].clone(), Tensor::f32(g.shape().to_vec(), g.to_vec())?);
            }
        }
        Ok(Gradients(named))
    }

    fn step_back(&self, call: &Call, gradients: &mut [Option<Real>]) -> Result<(), GraphError> {
        let node = &self.model.nodes[call.node];
        let flowing: Vec<Option<Real>> = node
            .outputs
            .iter()
            .map(|o| o.and_then(|id| if self.requires[id] { gradients[id].clone() } else { None }))
            .collect();
        // What a probe or an input keeps is its own; what has been passed on is done with.
        for &id in node.outputs.iter().flatten() {
            if !self.wanted.contains(&id) {
                gradients[id] = None;
            }
        }
        if flowing.iter().all(Option::is_none) {
            return Ok(());
        }
        let wanted: Vec<bool> = node.inputs.iter().map(|i| i.is_some_and(|id| self.requires[id])).collect();
        let cx = Context { seed: call.seed, ..self.cx.clone() };
        let backward = Backward {
            inputs: Args(&call.inputs),
            outputs: &call.outputs,
            gradients: &flowing,
            wanted: &wanted,
            facts: &call.facts,
            cx: &cx,
        };
        let work = std::panic::AssertUnwindSafe(|| match node.op.backward(&backward)? {
            Some(by_hand) => Ok(by_hand),
            None => on_tape(node, call, &flowing, &wanted, &cx),
        });
        let result = std::panic::catch_unwind(work)
            .unwrap_or_else(|_| Err(OpError::Invalid("internal error: a gradient kernel refused".to_owned())))
            .map_err(|e| node_error(node, e))?;
        for ((id, want), g) in node.inputs.iter().zip(&wanted).zip(result) {
            if let (Some(id), true, Some(g)) = (id, want, g) {
                accumulate(&mut gradients[*id], g);
            }
        }
        Ok(())
    }
}

/// Differentiates one node by repeating it on a tape.
fn on_tape(
    node: &Node,
    call: &Call,
    flowing: &[Option<Real>],
    wanted: &[bool],
    cx: &Context,
) -> Result<Vec<Option<Real>>, OpError> {
    let inputs: Vec<Option<Value>> = call
        .inputs
        .iter()
        .zip(wanted)
        .map(|(v, &leaf)| match v {
            Some(Value::Real(r)) => Some(Value::Real(r.to_tape(leaf))),
            Some(Value::Host(t)) if leaf => {
                t.as_f32().map(|x| Value::Real(Real::new(t.shape(), x.to_vec(), &cx.device).to_tape(true)))
            }
            other => other.clone(),
        })
        .collect();
    let outputs = node.op.eval(Args(&inputs), &call.facts, cx)?;
    let pairs: Vec<(Real, Real)> = outputs
        .into_iter()
        .zip(flowing)
        .filter_map(|(o, g)| match (o, g) {
            (Value::Real(r), Some(g)) => Some((r, g.clone())),
            _ => None,
        })
        .collect();
    let leaves: Vec<(usize, &Real)> = inputs
        .iter()
        .enumerate()
        .filter_map(|(i, v)| match v {
            Some(Value::Real(r)) if wanted[i] => Some((i, r)),
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

fn accumulate(slot: &mut Option<Real>, g: Real) {
    *slot = Some(match slot.take() {
        Some(old) => old.add(&g),
        None => g,
    });
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
