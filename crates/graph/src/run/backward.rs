//! The walk back: gradients of any named value.

use std::collections::HashMap;

use netproof_tensor::Tensor;

use super::pass::{Call, Pass};
use super::propagate::Way;
use super::together;
use crate::error::{GraphError, OpError};
use crate::model::Node;
use crate::operator::{Args, Backward, Context, Fact, Value};
use crate::plan::node_error;
use crate::real::Real;

/// Gradients by name.
#[derive(Debug, Clone, Default)]
pub struct Gradients(pub(super) HashMap<String, Tensor>);

impl Gradients {
    /// Gradient of a named value; `None` where nothing flows to it (then it is zero) or it was not asked for.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// Gradient of a named value, taken.
    pub fn take(&mut self, name: &str) -> Option<Tensor> {
        self.0.remove(name)
    }

    pub(super) fn put(&mut self, name: String, gradient: Tensor) {
        self.0.insert(name, gradient);
    }

    /// Names that have a gradient.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Pass<'_> {
    pub(super) fn backward(&self, seeds: &[(&str, &Tensor)]) -> Result<Gradients, GraphError> {
        together(self.plan.work, || self.walk_back(seeds, None))
    }

    pub(super) fn walk_back(
        &self,
        seeds: &[(&str, &Tensor)],
        mut way: Option<&mut Way<'_>>,
    ) -> Result<Gradients, GraphError> {
        let mut gradients: Vec<Option<Real>> = vec![None; self.values.len()];
        for (name, seed) in seeds {
            let id = self.model.id(name)?;
            if self.was_skipped(id) {
                let reason = "it was computed together with others; ask for it as a tap".to_owned();
                return Err(GraphError::NoGradient { name: (*name).to_owned(), reason });
            }
            let shape = self.fact(id).map(|f| f.shape.clone());
            let fits = shape.as_deref().is_none_or(|s| s == seed.shape());
            let seed = match Real::of(seed, &self.cx.device) {
                Some(seed) if fits => seed,
                _ => {
                    return Err(no_seed(name, seed, &shape.unwrap_or_default()));
                }
            };
            accumulate(&mut gradients[id], seed);
        }
        for (i, call) in self.calls.iter().enumerate().rev() {
            self.step_back(i, call, &mut gradients, way.as_deref_mut())?;
        }
        for segment in self.segments.iter().rev() {
            let again = self.again(segment)?;
            for (i, call) in again.calls.iter().enumerate().rev() {
                self.step_back(i, call, &mut gradients, None)?;
            }
        }
        let mut named = HashMap::new();
        for &id in &self.wanted {
            if let Some(g) = &gradients[id] {
                named.insert(self.model.names[id].clone(), g.to_tensor());
            }
        }
        Ok(Gradients(named))
    }

    fn step_back(
        &self,
        index: usize,
        call: &Call<'_>,
        gradients: &mut [Option<Real>],
        way: Option<&mut Way<'_>>,
    ) -> Result<(), GraphError> {
        let node = call.node;
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
        let work = std::panic::AssertUnwindSafe(|| match way {
            None => differentiate(node, &call.inputs, &call.outputs, &call.facts, &flowing, &wanted, &cx),
            Some(way) => way.step(index, call, &flowing, &wanted, &cx),
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

/// A seed that does not fit its value.
pub(super) fn no_seed(name: &str, seed: &Tensor, wanted: &[usize]) -> GraphError {
    let reason = format!("the seed is {} {:?}, must be float {wanted:?}", seed.dtype(), seed.shape());
    GraphError::NoGradient { name: name.to_owned(), reason }
}

/// The gradients of a node's inputs, by hand or by repeating it on a tape.
pub(crate) fn differentiate(
    node: &Node,
    inputs: &[Option<Value>],
    outputs: &[Option<Value>],
    facts: &[Fact],
    flowing: &[Option<Real>],
    wanted: &[bool],
    cx: &Context,
) -> Result<Vec<Option<Real>>, OpError> {
    let backward = Backward { inputs: Args(inputs), outputs, gradients: flowing, wanted, facts, cx };
    match node.op.backward(&backward)? {
        Some(by_hand) => Ok(by_hand),
        None => on_tape(node, inputs, facts, flowing, wanted, cx),
    }
}

/// Differentiates one node by repeating it on a tape.
fn on_tape(
    node: &Node,
    inputs: &[Option<Value>],
    facts: &[Fact],
    flowing: &[Option<Real>],
    wanted: &[bool],
    cx: &Context,
) -> Result<Vec<Option<Real>>, OpError> {
    let inputs: Vec<Option<Value>> = inputs
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
    let outputs = node.op.eval(Args(&inputs), facts, cx)?;
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
        Some(old) => old.added(&g),
        None => g,
    });
}
