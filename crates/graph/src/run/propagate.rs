//! The walk back by rules other than the gradient.

use std::collections::HashMap;
use std::sync::Mutex;

use netproof_tensor::Tensor;

use super::backward::{Gradients, differentiate};
use super::pass::{Call, Pass};
use super::{Run, together};
use crate::error::{GraphError, OpError, OpResult};
use crate::model::ValueId;
use crate::operator::{Context, Value};
use crate::plan::node_error;
use crate::real::Real;
use crate::rules::{Rule, Site, is_movement, reveal_cancel};

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
    /// Gaps of values that await their node: of [`reveal_cancel`] only.
    gaps: HashMap<ValueId, Real>,
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
            let mut values = together(pass.plan.work, || pass.walk_back(seeds, Some(&mut way)))?;
            way.close_gaps(&mut values)?;
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
        Ok(Self { rule, pass, reference, near, absorbed: Vec::new(), gaps: HashMap::new() })
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
        let site = Site { flowing, wanted, gates: &gates, ..self.site(index, cx) };
        let rule = self.rule;
        let plain = |site: &Site<'_>| match rule.back(site)? {
            Some(back) => Ok(back),
            None => differentiate(node, site.inputs, site.outputs, site.facts, site.flowing, site.wanted, cx),
        };
        let back = if let Rule::DeepLift { reveal_cancel: true, .. } = rule {
            let gaps: Vec<Option<Real>> =
                node.outputs.iter().map(|o| o.and_then(|id| self.gaps.get(&id).cloned())).collect();
            let of = |i: usize| self.spread_into(index, i, cx);
            let [flows, own] = reveal_cancel::back(&site, &gaps, &of, &plain)?;
            for ((id, want), gap) in node.inputs.iter().zip(wanted).zip(own) {
                if let (Some(id), true, Some(gap)) = (id, want, gap) {
                    let sum = self.gaps.remove(id).map_or_else(|| gap.clone(), |old| old.add(&gap));
                    self.gaps.insert(*id, sum);
                }
            }
            node.outputs.iter().flatten().filter(|o| !self.pass.wanted.contains(o)).for_each(|o| {
                self.gaps.remove(o);
            });
            flows
        } else {
            plain(&site)?
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

    /// A call without what flows.
    fn site<'s>(&'s self, index: usize, cx: &'s Context) -> Site<'s> {
        let call = &self.pass.calls[index];
        let reference = self.reference.map(|r| &r.calls[index]);
        Site {
            node: call.node,
            inputs: &call.inputs,
            outputs: &call.outputs,
            reference: reference.map(|c| (&c.inputs[..], &c.outputs[..])),
            flowing: &[],
            wanted: &[],
            facts: &call.facts,
            cx,
            first: call.node.inputs.iter().flatten().any(|&i| self.near[i]),
            gates: &[],
        }
    }

    /// See [`reveal_cancel::spread`]: of input `i` of a call.
    fn spread_into(&self, index: usize, i: usize, cx: &Context) -> OpResult<Real> {
        let site = self.site(index, cx);
        match site.node.inputs[i].and_then(|id| self.spread_of(id, index, cx)) {
            Some(spread) => spread,
            None => Ok(site.input(i)?.sub(&crate::rules::real(site.reference.map_or(&[][..], |r| r.0), i, cx)?).abs()),
        }
    }

    /// The spread of a value that one of the calls before `end` makes.
    fn spread_of(&self, id: ValueId, end: usize, cx: &Context) -> Option<OpResult<Real>> {
        let made = self.pass.calls[..end].iter().rposition(|c| c.node.outputs.contains(&Some(id)))?;
        let node = self.pass.calls[made].node;
        let out = node.outputs.iter().position(|o| *o == Some(id))?;
        let wanted: Vec<bool> = node.inputs.iter().map(|i| i.is_some_and(|id| self.pass.requires[id])).collect();
        if !wanted.contains(&true) {
            return None;
        }
        let site = Site { wanted: &wanted, ..self.site(made, cx) };
        Some(reveal_cancel::spread(&site, out, &|i| self.spread_into(made, i, cx)))
    }

    /// Gives the gaps of what was asked for to its values: `m⁺Δ⁺ + m⁻Δ⁻ = mΔ`.
    fn close_gaps(&self, values: &mut Gradients) -> Result<(), GraphError> {
        let Some(reference) = self.reference else { return Ok(()) };
        for (&id, gap) in &self.gaps {
            let name = &self.pass.model.names[id];
            let (Some(Value::Real(x)), Some(Value::Real(b))) = (&self.pass.values[id], &reference.values[id]) else {
                let reason = "its values were not kept".to_owned();
                return Err(GraphError::NoGradient { name: name.clone(), reason });
            };
            let change = x.sub(b);
            let made = self.pass.calls.iter().find(|c| c.node.outputs.contains(&Some(id)));
            let spread = match (self.spread_of(id, self.pass.calls.len(), &self.pass.cx), made) {
                (Some(spread), Some(made)) => spread.map_err(|e| node_error(made.node, e))?,
                _ => change.abs(),
            };
            let (change, spread, gap) = (change.to_vec(), spread.to_vec(), gap.to_vec());
            if let Some(values) = values.0.get_mut(name).and_then(Tensor::as_f32_mut) {
                for (((m, g), s), d) in values.iter_mut().zip(gap).zip(spread).zip(change) {
                    *m += if d == 0.0 { 0.0 } else { g * s / d };
                }
            }
        }
        Ok(())
    }

    fn is_gate(&self, id: usize) -> bool {
        let made = self.pass.calls.iter().find(|c| c.node.outputs.contains(&Some(id)));
        made.is_some_and(|c| matches!(c.node.operator.as_str(), "Sigmoid" | "HardSigmoid" | "Softmax"))
    }
}

fn sum(r: &Real) -> f64 {
    r.slice().map_or_else(|| r.to_vec().iter().map(|&v| f64::from(v)).sum(), |v| v.iter().map(|&v| f64::from(v)).sum())
}
