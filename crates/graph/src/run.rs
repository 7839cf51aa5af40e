//! Running a network: taps, overrides, training mode, and gradients of any named value in one walk back.

mod backward;
mod checkpoints;
mod parts;
mod pass;
mod propagate;

use std::collections::HashMap;
use std::sync::Arc;

use netproof_tensor::Tensor;

use crate::error::GraphError;
use crate::model::{Dim, Model, Port, ValueId};

pub use backward::Gradients;
pub(crate) use backward::differentiate;
pub(crate) use parts::Division;
use parts::Parts;
use pass::Pass;
pub(crate) use pass::Schedule;
pub use propagate::Propagated;

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
    /// Gradient checkpointing: of n steps only about √n keep what the way back needs, the others run again on the way back.
    /// Memory for time, with the same bits (Chen, Xu, Zhang, Guestrin 2016, "Training Deep Nets with Sublinear Memory Cost").
    pub checkpoints: bool,
    /// Whether [`Run::propagate`] will be asked for: all values that lie on the way back are kept.
    pub rules: bool,
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
    /// One, or one for each part of a batch whose rows are computed apart.
    passes: Vec<Pass<'m>>,
    parts: Option<Parts>,
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
        if let Some(parts) = Parts::of(self, &given, &plan, request) {
            return parts.run(self, &given, request);
        }
        let work = plan.work;
        let pass = together(work, || Pass::new(self, &given, plan, request))?;
        Ok(Run { passes: vec![pass], parts: None })
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
const LARGE: u64 = 16 << 20;

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

impl Run<'_> {
    /// A declared output or tap on the host, with its declared type.
    /// # Errors
    /// The value was neither an output nor a tap of this run.
    pub fn output(&self, name: &str) -> Result<Tensor, GraphError> {
        match &self.parts {
            None => self.passes[0].output(name),
            Some(parts) => parts.output(&self.passes, name),
        }
    }

    /// New running statistics of batch normalisation, by parameter name; empty in evaluation mode.
    pub fn updates(&self) -> Result<Vec<(String, Tensor)>, GraphError> {
        self.passes[0].updates()
    }

    /// Gradients of `sum over seeds of (value · seed)` with respect to what [`Request::wrt`] names. May be called again
    /// with other seeds: the forward pass is reused.
    /// # Shapes
    /// each seed has the shape of its value; each gradient has the shape of its value
    /// # Errors
    /// A seed does not fit, or its value does not depend on anything that was asked for.
    pub fn backward(&self, seeds: &[(&str, &Tensor)]) -> Result<Gradients, GraphError> {
        match &self.parts {
            None => self.passes[0].backward(seeds),
            Some(parts) => parts.backward(&self.passes, seeds, |i, own| self.passes[i].backward(own)),
        }
    }
}
