//! Types and shapes of every value for given input shapes, worked out before anything runs.

use std::sync::{Arc, OnceLock};

use netproof_tensor::DType;

use crate::error::{GraphError, OpError, OpResult};
use crate::fusion::Fusion;
use crate::model::{Model, Node, ValueId};
use crate::operator::{Args, Context, Fact, Trained, Value};
use crate::run::{Division, Schedule};

/// Most plans that a model remembers; the oldest is dropped first.
const REMEMBERED: usize = 8;

/// Largest value that is computed while planning.
const FOLDED: usize = 1 << 16;

/// What is known before a run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// For each value its fact, or `None` where it depends on values that come later.
    pub(crate) facts: Vec<Option<Fact>>,
    /// For each node the facts of its outputs, where all are there and known.
    pub(crate) calls: Vec<Option<Arc<[Fact]>>>,
    /// About how many operations a run takes.
    pub(crate) work: u64,
    /// What runs where only the outputs are asked for, once that is known.
    pub(crate) usual: OnceLock<Arc<Schedule>>,
    /// How a batch of these shapes is divided, once that is known.
    pub(crate) parts: OnceLock<Option<Division>>,
    /// For each fusion of the model the facts of its outputs, where it fits.
    pub(crate) fused: Vec<Option<Arc<[Fact]>>>,
}

impl Model {
    /// The plan for these input shapes (values that are given, with their shapes).
    pub(crate) fn plan(&self, given: &[(ValueId, Vec<usize>)]) -> Result<Arc<Plan>, GraphError> {
        let mut plans = self.plans.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, plan)) = plans.iter().find(|(key, _)| key == given) {
            return Ok(plan.clone());
        }
        let plan = Arc::new(self.make_plan(given)?);
        if plans.len() >= REMEMBERED {
            plans.remove(0);
        }
        plans.push((given.to_vec(), plan.clone()));
        Ok(plan)
    }

    fn make_plan(&self, given: &[(ValueId, Vec<usize>)]) -> Result<Plan, GraphError> {
        let mut facts: Vec<Option<Fact>> = vec![None; self.names.len()];
        for (id, p) in &self.parameters {
            let mut fact = Fact::new(p.tensor.dtype(), p.tensor.shape().to_vec());
            if !p.trainable && p.tensor.len() <= FOLDED {
                fact.value = Some(p.tensor.clone());
            }
            facts[*id] = Some(fact);
        }
        for (id, shape) in given {
            let declared = self.inputs.iter().find(|p| p.name == self.names[*id]);
            let dtype = match (declared, &facts[*id]) {
                (Some(p), _) => p.dtype,
                (None, Some(fact)) => fact.dtype,
                (None, None) => DType::F32,
            };
            facts[*id] = Some(Fact::new(dtype, shape.clone()));
        }
        let cx = Context { device: self.device.clone(), training: false, seed: 0 };
        for node in &self.nodes {
            if node.outputs.iter().flatten().all(|o| facts[*o].is_some()) && !node.outputs.is_empty() {
                continue;
            }
            let Some(inputs) = gather(node, &facts) else { continue };
            match infer(node, &inputs) {
                Ok(mut outputs) => {
                    fold(node, &inputs, &mut outputs, &cx)?;
                    for (id, fact) in node.outputs.iter().zip(outputs) {
                        if let Some(id) = id
                            && facts[*id].is_none()
                        {
                            facts[*id] = Some(fact);
                        }
                    }
                }
                Err(OpError::Deferred) => {}
                Err(e) => return Err(node_error(node, e)),
            }
        }
        let known = |node: &Node| {
            let outputs: Option<Vec<Fact>> = node.outputs.iter().map(|o| facts[(*o)?].clone()).collect();
            outputs.map(Arc::from)
        };
        let calls = self.nodes.iter().map(known).collect();
        let fits = |fusion: &Fusion| {
            let outputs: Arc<[Fact]> = known(&fusion.node)?;
            let inferred = infer(&fusion.node, &gather(&fusion.node, &facts)?).ok()?;
            let same = |(a, b): (&Fact, &Fact)| a.shape == b.shape && a.dtype == b.dtype && a.dtype == DType::F32;
            (inferred.len() == outputs.len() && inferred.iter().zip(outputs.iter()).all(same)).then_some(outputs)
        };
        let fused = self.fusions.iter().map(fits).collect();
        let cost = |node: &Node| {
            let inputs = gather(node, &facts)?;
            let outputs = known(node)?;
            let written: usize = outputs.iter().map(Fact::count).sum();
            Some(node.op.macs(Args(&inputs), &outputs).saturating_add(written as u64 * 8))
        };
        let work = self.nodes.iter().filter_map(cost).fold(0, u64::saturating_add);
        Ok(Plan { facts, calls, work, usual: OnceLock::new(), parts: OnceLock::new(), fused })
    }
}

/// Facts of a node's inputs, or `None` where one of them is not known yet.
pub(crate) fn gather(node: &Node, facts: &[Option<Fact>]) -> Option<Vec<Option<Fact>>> {
    node.inputs
        .iter()
        .map(|i| match i {
            None => Some(None),
            Some(id) => facts[*id].clone().map(Some),
        })
        .collect()
}

/// [`crate::operator::Operator::infer`], with the number of outputs checked.
pub(crate) fn infer(node: &Node, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
    let outputs = node.op.infer(Args(inputs))?;
    if node.outputs.iter().skip(outputs.len()).any(Option::is_some) {
        return Err(OpError::Invalid(format!("names {} outputs, has {}", node.outputs.len(), outputs.len())));
    }
    Ok(outputs)
}

/// The facts of an operator's outputs from values.
pub(crate) fn infer_alone(op: &dyn crate::operator::Operator, inputs: Args<'_, Value>) -> Result<Vec<Fact>, OpError> {
    let fact = |v: &Value| match v {
        Value::Real(r) => Fact::new(DType::F32, r.shape().to_vec()),
        Value::Host(t) => Fact { dtype: t.dtype(), shape: t.shape().to_vec(), value: Some(t.clone()) },
    };
    let facts: Vec<Option<Fact>> = inputs.0.iter().map(|v| v.as_ref().map(fact)).collect();
    op.infer(Args(&facts))
}

/// Computes small outputs now, where all inputs are known.
fn fold(node: &Node, inputs: &[Option<Fact>], outputs: &mut [Fact], cx: &Context) -> Result<(), GraphError> {
    if outputs.iter().all(|o| o.value.is_some()) || outputs.iter().any(|o| o.count() > FOLDED) {
        return Ok(());
    }
    let known: Option<Vec<Option<Value>>> = inputs
        .iter()
        .map(|i| match i {
            None => Some(None),
            Some(f) => f.value.clone().map(|v| Some(Value::Host(v))),
        })
        .collect();
    // Dropout and batch normalisation answer differently in training mode.
    let Some(known) = known.filter(|_| !matches!(node.operator.as_str(), "Dropout" | "BatchNormalization")) else {
        return Ok(());
    };
    let values = eval(node, &known, outputs, cx)?;
    for (fact, value) in outputs.iter_mut().zip(values) {
        fact.value = Some(typed(&value, fact));
    }
    Ok(())
}

/// The value on the host with its declared type.
pub(crate) fn typed(value: &Value, fact: &Fact) -> Arc<netproof_tensor::Tensor> {
    let host = value.to_host();
    if host.dtype() == fact.dtype || host.dtype().is_float() != fact.dtype.is_float() {
        return host;
    }
    let (_, shape, elements) = Arc::unwrap_or_clone(host).into_parts();
    Arc::new(netproof_tensor::Tensor::new(fact.dtype, shape, elements).expect("float types share one representation"))
}

/// Runs one node. A panic in a kernel becomes an error with the node's name.
pub(crate) fn eval(
    node: &Node,
    inputs: &[Option<Value>],
    outputs: &[Fact],
    cx: &Context,
) -> Result<Vec<Value>, GraphError> {
    guarded(node, outputs, cx, || Ok((node.op.eval(Args(inputs), outputs, cx)?, Vec::new()))).map(|all| all.0)
}

/// [`eval`] in training mode.
pub(crate) fn eval_training(
    node: &Node,
    inputs: &[Option<Value>],
    outputs: &[Fact],
    cx: &Context,
) -> Result<Trained, GraphError> {
    guarded(node, outputs, cx, || node.op.eval_training(Args(inputs), outputs, cx))
}

fn guarded(
    node: &Node,
    outputs: &[Fact],
    cx: &Context,
    run: impl FnOnce() -> OpResult<Trained>,
) -> Result<Trained, GraphError> {
    if !outputs.is_empty() && outputs.iter().all(|f| f.count() == 0) {
        let values = outputs.iter().map(|f| empty(f, cx)).collect::<Result<Vec<_>, _>>()?;
        return Ok((values, Vec::new()));
    }
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
        Ok(Ok((values, updates))) => {
            for (i, (value, fact)) in values.iter().zip(outputs).enumerate() {
                if value.shape() != fact.shape {
                    let message =
                        format!("internal error: output {i} is {:?}, inferred as {:?}", value.shape(), fact.shape);
                    return Err(node_error(node, OpError::Invalid(message)));
                }
            }
            Ok((values, updates))
        }
        Ok(Err(e)) => Err(node_error(node, e)),
        Err(_) => Err(node_error(node, OpError::Invalid("internal error: a kernel refused these inputs".to_owned()))),
    }
}

fn empty(fact: &Fact, cx: &Context) -> Result<Value, GraphError> {
    use netproof_tensor::{Elements, Tensor};
    if fact.dtype.is_float() {
        return Ok(Value::Real(crate::real::Real::new(&fact.shape, Vec::new(), &cx.device)));
    }
    let elements = match fact.dtype {
        DType::Bool => Elements::Bool(Vec::new()),
        DType::Text => Elements::Text(Vec::new()),
        _ => Elements::Int(Vec::new()),
    };
    Ok(Value::host(Tensor::new(fact.dtype, fact.shape.clone(), elements)?))
}

pub(crate) fn node_error(node: &Node, e: OpError) -> GraphError {
    match e {
        OpError::Unsupported(reason) => GraphError::Unsupported(vec![crate::error::Unsupported {
            node: node.name.clone(),
            operator: node.operator.clone(),
            reason,
        }]),
        OpError::Invalid(message) => {
            GraphError::Node { node: node.name.clone(), operator: node.operator.clone(), message }
        }
        OpError::Deferred => GraphError::Node {
            node: node.name.clone(),
            operator: node.operator.clone(),
            message: "needs a value that the network does not produce".to_owned(),
        },
    }
}
