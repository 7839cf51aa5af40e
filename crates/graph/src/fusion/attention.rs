//! Scaled dot-product attention as exporters write it: `MatMul(Softmax(MatMul(q, kᵀ) · s + mask), v)`, where the factor, the
//! mask and the `Transpose` of k may be missing.
//!
//! # Source
//! Vaswani et al., arXiv:1706.03762, equation 1.

use std::sync::Arc;

use super::{Fusion, Uses};
use crate::error::{OpResult, invalid};
use crate::model::{Node, ValueId};
use crate::operator::{Args, Backward, Context, Fact, Operator, Value, one};
use crate::real::{Attend, Real};

const Q: usize = 0;
const K: usize = 1;
const V: usize = 2;

/// Inputs: q, k, v, then those that are named here.
struct Attention {
    softmax: Arc<dyn Operator>,
    /// What turns k, where that is part of it; otherwise k comes turned.
    turn: Option<Arc<dyn Operator>>,
    /// The number that scores are multiplied with, or divided by.
    factor: Option<(usize, bool)>,
    mask: Option<usize>,
}

/// Begins at the softmax.
pub(super) fn find(uses: &Uses<'_>, index: usize) -> Option<Fusion> {
    let softmax = &uses.nodes[index];
    if softmax.operator != "Softmax" {
        return None;
    }
    let probabilities = uses.output(index)?;
    let last = uses.only_user(probabilities, &["MatMul"])?;
    let v = match uses.nodes[last].inputs[..] {
        [Some(p), Some(v)] if p == probabilities => v,
        _ => return None,
    };
    let mut scores = softmax.inputs.first().copied().flatten()?;
    let (mut parts, mut interior) = (vec![index, last], vec![probabilities]);
    let (mut factor, mut mask) = (None, None);
    // From the softmax backwards: what makes the scores, used by nothing else.
    let product = loop {
        let maker = uses.maker[scores].filter(|_| uses.users[scores].0 == 1)?;
        interior.push(scores);
        parts.push(maker);
        let node = &uses.nodes[maker];
        let &[Some(a), Some(b)] = &node.inputs[..] else { return None };
        let makes = |value: ValueId| uses.maker[value].is_some_and(|m| from_product(uses, m));
        let (before, other) = match node.operator.as_str() {
            "MatMul" => break maker,
            "Add" | "Mul" if makes(a) => (a, b),
            "Add" | "Mul" if makes(b) => (b, a),
            "Div" => (a, b),
            _ => return None,
        };
        match node.operator.as_str() {
            "Add" if mask.is_none() && factor.is_none() => mask = Some(other),
            "Add" => return None,
            kind if factor.is_none() => factor = Some((other, kind == "Div")),
            _ => return None,
        }
        scores = before;
    };
    let &[Some(q), Some(mut k)] = &uses.nodes[product].inputs[..] else { return None };
    let mut turn = None;
    if let Some(maker) = uses.maker[k]
        && uses.nodes[maker].operator == "Transpose"
        && uses.users[k].0 == 1
    {
        interior.push(k);
        parts.push(maker);
        turn = Some(uses.nodes[maker].op.clone());
        k = uses.nodes[maker].inputs.first().copied().flatten()?;
    }
    let mut inputs = vec![Some(q), Some(k), Some(v)];
    let mut add = |value: ValueId| {
        inputs.push(Some(value));
        inputs.len() - 1
    };
    let factor = factor.map(|(value, divides)| (add(value), divides));
    let mask = mask.map(add);
    parts.sort_unstable();
    let node = Node {
        name: uses.nodes[last].name.clone(),
        operator: "Attention of MatMul + Softmax + MatMul".to_owned(),
        op: Arc::new(Attention { softmax: softmax.op.clone(), turn, factor, mask }),
        inputs,
        outputs: uses.nodes[last].outputs.clone(),
    };
    Some(Fusion { node, parts, interior, smooth: true })
}

/// Whether a node is the product of q and k, or that times a number.
fn from_product(uses: &Uses<'_>, node: usize) -> bool {
    let inputs = uses.nodes[node].inputs.iter().flatten();
    let mut makers = inputs.filter_map(|&i| uses.maker[i]).map(|m| uses.nodes[m].operator.as_str());
    match uses.nodes[node].operator.as_str() {
        "MatMul" => true,
        "Mul" | "Div" => makers.any(|kind| kind == "MatMul"),
        _ => false,
    }
}

impl Attention {
    fn scale(&self, inputs: Args<'_, Value>) -> OpResult<f32> {
        let Some((i, divides)) = self.factor else { return Ok(1.0) };
        let number = inputs.scalar(i, 1.0)?;
        Ok(if divides { 1.0 / number } else { number })
    }

    fn attend<'a>(&self, inputs: Args<'_, Value>, mask: Option<&'a Real>) -> OpResult<Attend<'a>> {
        Ok(Attend { turned: self.turn.is_none(), scale: self.scale(inputs)?, mask })
    }
}

/// Whether an operator exchanges the last two of `rank` axes and nothing else.
fn exchanges_last(op: &dyn Operator, rank: usize) -> bool {
    // Sizes that are all different say which axis went where.
    let mut shape: Vec<usize> = (2..rank + 2).collect();
    let from = Fact::new(netproof_tensor::DType::F32, shape.clone());
    shape.swap(rank - 1, rank - 2);
    op.infer(Args(&[Some(from)])).is_ok_and(|to| matches!(&to[..], [to] if to.shape == shape))
}

impl Operator for Attention {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let (q, k, v) = (inputs.float(Q)?, inputs.float(K)?, inputs.float(V)?);
        let rank = q.rank();
        if rank < 2 || k.rank() != rank || v.rank() != rank {
            invalid!("not matrices of one rank");
        }
        let last = self.softmax.softmax_axis(rank) == Some(rank - 1);
        if !last || self.turn.as_ref().is_some_and(|t| !exchanges_last(&**t, rank)) {
            invalid!("another softmax, or another transposition");
        }
        let lead = &q.shape[..rank - 2];
        let [queries, size] = [q.shape[rank - 2], q.shape[rank - 1]];
        let (a, b) = (k.shape[rank - 2], k.shape[rank - 1]);
        let (keys, of_k) = if self.turn.is_some() { (a, b) } else { (b, a) };
        let fits = &k.shape[..rank - 2] == lead && &v.shape[..rank - 2] == lead;
        if !fits || of_k != size || v.shape[rank - 2] != keys || [queries, size, keys].contains(&0) {
            invalid!("operands are broadcast");
        }
        if let Some((i, _)) = self.factor {
            let known = matches!(inputs.floats(i)?[..], [s] if s.is_finite() && s > 0.0 && (1.0 / s).is_finite());
            if !known || inputs.need(i)?.rank() > rank {
                invalid!("not one positive number");
            }
        }
        if let Some(i) = self.mask {
            let mask = &inputs.float(i)?.shape;
            let full = [lead, &[queries, keys]].concat();
            let row = mask.last() == Some(&keys) && mask.len() <= rank;
            if !row || crate::real::broadcast(mask, &full).as_ref() != Some(&full) {
                invalid!("the mask is not one of rows");
            }
        }
        let mut shape = v.shape.clone();
        shape[rank - 2] = queries;
        Ok(vec![Fact::new(q.dtype, shape)])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let (q, k, v) = (inputs.real(Q, cx)?, inputs.real(K, cx)?, inputs.real(V, cx)?);
        let mask = self.mask.map(|i| inputs.real(i, cx)).transpose()?;
        let attend = self.attend(inputs, mask.as_ref())?;
        if let Some(y) = q.attention(&k, &v, attend) {
            return one(y);
        }
        let scores = q.product(false, &k, !attend.turned).mul_scalar(attend.scale);
        let scores = mask.map_or_else(|| scores.clone(), |m| scores.add(&m));
        one(scores.softmax(q.rank() - 1).matmul(&v))
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let real = |i: usize| call.inputs.real(i, call.cx);
        let (q, k, v) = (real(Q)?, real(K)?, real(V)?);
        let mask = self.mask.map(real).transpose()?;
        if self.mask.is_some_and(|i| call.wants(i)) {
            return Ok(None);
        }
        let attend = self.attend(call.inputs, mask.as_ref())?;
        let wanted = [call.wants(Q), call.wants(K), call.wants(V)];
        let Some(gradients) = q.attention_backward(&k, &v, attend, call.gradient(), wanted) else { return Ok(None) };
        let mut all: Vec<Option<Real>> = gradients.into();
        all.resize(call.inputs.len(), None);
        Ok(Some(all))
    }
}
