//! A convolution or product with what follows it: bias, residual, activation.

use std::sync::Arc;

use super::{Fusion, Uses};
use crate::error::{OpResult, invalid};
use crate::kernels::epilogue::Activation;
use crate::model::{Node, ValueId};
use crate::operator::{Args, Backward, Context, Fact, Keep, Operator, Value, one};
use crate::plan::infer_alone;
use crate::real::{Finish, Real};

/// Inputs of a [`Finished`]: those of the head, then these.
#[derive(Debug, Clone, Copy, Default)]
struct Layout {
    head: usize,
    bias: Option<usize>,
    residual: Option<usize>,
    /// First input of the activation behind its first one, and how many there are.
    bounds: (usize, usize),
}

/// `activation(head(...) + bias + residual)`.
struct Finished {
    head: Arc<dyn Operator>,
    activation: Option<Arc<dyn Operator>>,
    layout: Layout,
}

/// `Conv`, `Gemm` or `MatMul`, then `Add` of a vector, `Add` of a tensor, an activation; each may be missing.
pub(super) fn find(uses: &Uses<'_>, index: usize) -> Option<Fusion> {
    let head = &uses.nodes[index];
    let kind = head.operator.as_str();
    if !matches!(kind, "Conv" | "Gemm" | "MatMul") {
        return None;
    }
    let mut value = uses.output(index)?;
    let (mut parts, mut interior) = (vec![index], Vec::new());
    let mut inputs = head.inputs.clone();
    let mut layout = Layout { head: inputs.len(), ..Layout::default() };
    let mut take = |value: &mut ValueId, node: usize| -> Option<()> {
        interior.push(*value);
        parts.push(node);
        *value = uses.output(node)?;
        Some(())
    };
    if kind == "MatMul"
        && let Some(add) = uses.only_user(value, &["Add"])
        && let Some(other) = uses.other(add, value)
        // A vector is a stored one; which shape it has is seen when it is planned.
        && uses.maker[other].is_none()
    {
        layout.bias = Some(inputs.len());
        inputs.push(Some(other));
        take(&mut value, add)?;
    }
    if kind != "Gemm"
        && let Some(add) = uses.only_user(value, &["Add"])
        && let Some(other) = uses.other(add, value)
        && uses.maker[other].is_some()
    {
        layout.residual = Some(inputs.len());
        inputs.push(Some(other));
        take(&mut value, add)?;
    }
    let activation = uses.only_user(value, &["Relu", "Clip", "HardSwish"]);
    if let Some(node) = activation {
        let bounds = uses.nodes[node].inputs.get(1..).unwrap_or_default();
        layout.bounds = (inputs.len(), bounds.len());
        inputs.extend(bounds);
        take(&mut value, node)?;
    }
    if parts.len() == 1 {
        return None;
    }
    let last = &uses.nodes[*parts.last()?];
    let operator = parts.iter().map(|&p| uses.nodes[p].operator.as_str()).collect::<Vec<_>>().join(" + ");
    let smooth = activation.is_none_or(|a| uses.nodes[a].operator == "Relu");
    let activation = activation.map(|a| uses.nodes[a].op.clone());
    let op = Arc::new(Finished { head: head.op.clone(), activation, layout });
    let node = Node { name: last.name.clone(), operator, op, inputs, outputs: vec![Some(value)] };
    parts.sort_unstable();
    Some(Fusion { node, parts, interior, smooth })
}

impl Finished {
    fn activation(&self, bounds: &[Option<Value>]) -> OpResult<Option<Activation>> {
        let Some(op) = &self.activation else { return Ok(Some(Activation::Identity)) };
        let all: Vec<Option<Value>> = std::iter::once(None).chain(bounds.iter().cloned()).collect();
        op.activation(Args(&all))
    }

    fn bounds<'a, T>(&self, inputs: Args<'a, T>) -> &'a [Option<T>] {
        let (first, count) = self.layout.bounds;
        &inputs.0[first..first + count]
    }

    fn head<'a, T>(&self, inputs: Args<'a, T>) -> Args<'a, T> {
        Args(&inputs.0[..self.layout.head])
    }
}

impl Operator for Finished {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let outputs = self.head.infer(self.head(inputs))?;
        let [output] = &outputs[..] else { invalid!("more than one output") };
        if let Some(bias) = self.layout.bias {
            let bias = inputs.float(bias)?;
            if bias.shape.len() != 1 || bias.shape.last() != output.shape.last() {
                invalid!("the vector does not fit");
            }
        }
        if let Some(residual) = self.layout.residual
            && inputs.float(residual)?.shape != output.shape
        {
            invalid!("the residual is broadcast");
        }
        let known = |f: &Option<Fact>| match f {
            None => Ok(None),
            Some(f) => match &f.value {
                Some(v) => Ok(Some(Value::Host(v.clone()))),
                None => invalid!("a bound is not known"),
            },
        };
        let bounds = self.bounds(inputs).iter().map(known).collect::<OpResult<Vec<_>>>()?;
        match self.activation(&bounds)? {
            Some(_) => Ok(outputs),
            None => invalid!("not an activation of one argument"),
        }
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let real = |i: Option<usize>| i.map(|i| inputs.real(i, cx)).transpose();
        let (bias, residual) = (real(self.layout.bias)?, real(self.layout.residual)?);
        let activation = self.activation(self.bounds(inputs))?.unwrap_or_default();
        let finish = Finish { bias: bias.as_ref(), residual: residual.as_ref(), activation };
        let head = self.head(inputs);
        if let Some(y) = self.head.eval_finished(head, &outputs[0], finish, cx)? {
            return one(y);
        }
        // One after the other, as the nodes say.
        let plain = infer_alone(&*self.head, head)?;
        let mut y = Args(&[self.head.eval(head, &plain, cx)?.pop()]).real(0, cx)?;
        for term in [bias, residual].into_iter().flatten() {
            y = y.add(&term);
        }
        one(y.activated(activation))
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let mut gradient = call.gradient().clone();
        if self.activation.is_some() {
            // Only a ReLU is differentiated here, and its output tells where it passed.
            let Some(Some(y)) = call.outputs.first() else { return Ok(None) };
            gradient = y.real(call.cx)?.relu_backward(&gradient);
        }
        let flowing = [Some(gradient)];
        let head = Backward {
            inputs: self.head(call.inputs),
            outputs: &[],
            gradients: &flowing,
            wanted: &call.wanted[..self.layout.head],
            facts: call.facts,
            cx: call.cx,
        };
        let none = || vec![None; self.layout.head];
        let mut all = match head.wanted.contains(&true) {
            false => none(),
            true => self.head.backward(&head)?.unwrap_or_else(none),
        };
        all.resize(call.inputs.len(), None);
        let [Some(gradient)] = &flowing else { return Ok(None) };
        if let Some(i) = self.layout.bias {
            all[i] = call.when(i, || Ok(gradient.sum_to(call.inputs.need(i)?.shape())))?;
        }
        if let Some(i) = self.layout.residual {
            all[i] = call.when(i, || Ok(gradient.clone()))?;
        }
        Ok(Some(all))
    }

    fn keep(&self) -> Keep {
        if self.activation.is_some() { Keep::Both } else { Keep::Inputs }
    }
}
