//! The walk back by rules other than the gradient.

use std::sync::Mutex;

use netproof_tensor::Tensor;

use super::backward::{Gradients, differentiate};
use super::pass::{Call, Pass};
use super::{Run, together};
use crate::error::{GraphError, OpError};
use crate::operator::Context;
use crate::real::Real;
use crate::rules::{Rule, Site, is_movement};

/// What a rule carried back.
#[derive(Debug, Clone, Default)]
pub struct Propagated {
    /// What arrived at the named values.
    pub values: Gradients,
    /// What nodes took in and did not pass on, by name and in order, over all rows: the shares of biases and constants, and
    /// what a stabiliser cost. Sums of relevance for relevance propagation; of no meaning for other rules.
    pub absorbed: Vec<(String, f64)>,
}

/// A rule on its way through one pass.
pub(super) struct Way<'a> {
    rule: &'a Rule,
    pass: &'a Pass<'a>,
    reference: Option<&'a Pass<'a>>,
    /// Which values are what was asked for, or that moved around.
    near: Vec<bool>,
    absorbed: Vec<(String, f64)>,
}

impl Run<'_> {
    /// What a rule carries from the seeds to what [`super::Request::wrt`] names; the run must have been asked with
    /// [`super::Request::rules`]. `reference` is a run of the same shapes that the rule compares with, where it needs one.
    /// # Shapes
    /// as [`Run::backward`]
    /// # Errors
    /// A seed does not fit, a node has no such rule, or the reference is missing or of other shapes.
    pub fn propagate(
        &self,
        rule: &Rule,
        reference: Option<&Self>,
        seeds: &[(&str, &Tensor)],
    ) -> Result<Propagated, GraphError> {
        let fits = reference.is_none_or(|r| r.passes.len() == self.passes.len());
        if !fits || (rule.needs_reference() && reference.is_none()) {
            let reason = "the rule needs a reference run of the same shapes".to_owned();
            return Err(GraphError::NoGradient { name: seeds.first().map_or("", |s| s.0).to_owned(), reason });
        }
        let absorbed = Mutex::new(Vec::new());
        let one = |i: usize, seeds: &[(&str, &Tensor)]| {
            let pass = &self.passes[i];
            let mut way = Way::new(rule, pass, reference.map(|r| &r.passes[i]))?;
            let values = together(pass.plan.work, || pass.walk_back(seeds, Some(&mut way)))?;
            let mut all = absorbed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            all.push((i, way.absorbed));
            Ok(values)
        };
        let values = match &self.parts {
            None => one(0, seeds)?,
            Some(parts) => parts.backward(&self.passes, seeds, one)?,
        };
        let mut parts = absorbed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        parts.sort_by_key(|p: &(usize, Vec<(String, f64)>)| p.0);
        let mut absorbed: Vec<(String, f64)> = Vec::new();
        for (name, amount) in parts.into_iter().flat_map(|p| p.1) {
            match absorbed.iter_mut().find(|(n, _)| *n == name) {
                Some((_, sum)) => *sum += amount,
                None => absorbed.push((name, amount)),
            }
        }
        Ok(Propagated { values, absorbed })
    }
}

impl<'a> Way<'a> {
    fn new(rule: &'a Rule, pass: &'a Pass<'a>, reference: Option<&'a Pass<'a>>) -> Result<Self, GraphError> {
        let mut near = vec![false; pass.values.len()];
        pass.wanted.iter().for_each(|&id| near[id] = true);
        for call in &pass.calls {
            if is_movement(&call.node.operator) && call.node.inputs.iter().flatten().any(|&i| near[i]) {
                call.node.outputs.iter().flatten().for_each(|&o| near[o] = true);
            }
        }
        let same = |r: &Pass<'_>| {
            r.calls.len() == pass.calls.len()
                && r.calls.iter().zip(&pass.calls).all(|(a, b)| std::ptr::eq(a.node, b.node))
        };
        if !reference.is_none_or(same) {
            let reason = "the reference run took another way through the network".to_owned();
            return Err(GraphError::NoGradient { name: "reference".to_owned(), reason });
        }
        Ok(Self { rule, pass, reference, near, absorbed: Vec::new() })
    }

    pub(super) fn step(
        &mut self,
        index: usize,
        call: &Call<'_>,
        flowing: &[Option<Real>],
        wanted: &[bool],
        cx: &Context,
    ) -> Result<Vec<Option<Real>>, OpError> {
        let node = call.node;
        let gates: Vec<bool> = node.inputs.iter().map(|i| i.is_some_and(|id| self.is_gate(id))).collect();
        let reference = self.reference.map(|r| &r.calls[index]);
        let site = Site {
            node,
            inputs: &call.inputs,
            outputs: &call.outputs,
            reference: reference.map(|c| (&c.inputs[..], &c.outputs[..])),
            flowing,
            wanted,
            facts: &call.facts,
            cx,
            first: node.inputs.iter().flatten().any(|&i| self.near[i]),
            gates: &gates,
        };
        let back = match self.rule.back(&site)? {
            Some(back) => back,
            None => differentiate(node, &call.inputs, &call.outputs, &call.facts, flowing, wanted, cx)?,
        };
        if let Rule::Lrp(_) = self.rule {
            let total = |list: &[Option<Real>]| list.iter().flatten().map(sum).sum::<f64>();
            let taken: f64 = back.iter().zip(wanted).filter(|(_, w)| **w).flat_map(|(b, _)| b).map(sum).sum();
            let amount = total(flowing) - taken;
            if amount.abs() > 1e-9 * total(flowing).abs() {
                self.absorbed.push((node.name.clone(), amount));
            }
        }
        Ok(back)
    }

    fn is_gate(&self, id: usize) -> bool {
        let made = self.pass.calls.iter().find(|c| c.node.outputs.contains(&Some(id)));
        made.is_some_and(|c| matches!(c.node.operator.as_str(), "Sigmoid" | "HardSigmoid" | "Softmax"))
    }
}

fn sum(r: &Real) -> f64 {
    r.slice().map_or_else(|| r.to_vec().iter().map(|&v| f64::from(v)).sum(), |v| v.iter().map(|&v| f64::from(v)).sum())
}
