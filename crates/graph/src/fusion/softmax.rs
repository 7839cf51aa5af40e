//! A softmax of scaled scores, as attention has it: `softmax(x / s)` or `softmax(x · s)` with one number `s`.

use std::sync::Arc;

use super::{Fusion, Uses};
use crate::error::{OpResult, invalid};
use crate::model::Node;
use crate::operator::{Args, Backward, Context, Fact, Keep, Operator, Value, one};
use crate::real::Real;

/// Inputs: x and the number.
struct Scaled {
    softmax: Arc<dyn Operator>,
    divides: bool,
}

/// Begins at the softmax.
pub(super) fn find(uses: &Uses<'_>, index: usize) -> Option<Fusion> {
    let softmax = &uses.nodes[index];
    if softmax.operator != "Softmax" {
        return None;
    }
    let scores = softmax.inputs.first().copied().flatten()?;
    let scale = uses.maker[scores]?;
    let divides = match uses.nodes[scale].operator.as_str() {
        "Div" => true,
        "Mul" => false,
        _ => return None,
    };
    if uses.users[scores].0 != 1 || uses.nodes[scale].inputs.len() != 2 {
        return None;
    }
    let node = Node {
        name: softmax.name.clone(),
        operator: "Scale + Softmax".to_owned(),
        op: Arc::new(Scaled { softmax: softmax.op.clone(), divides }),
        inputs: uses.nodes[scale].inputs.clone(),
        outputs: softmax.outputs.clone(),
    };
    Some(Fusion { node, parts: vec![scale, index], interior: vec![scores], smooth: true })
}

impl Scaled {
    /// What x is multiplied by.
    fn factor(&self, inputs: Args<'_, Value>) -> OpResult<f32> {
        let number = inputs.scalar(1, 1.0)?;
        Ok(if self.divides { 1.0 / number } else { number })
    }
}

impl Operator for Scaled {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let x = inputs.float(0)?;
        let known = matches!(inputs.floats(1)?[..], [v] if v.is_finite() && v > 0.0 && (1.0 / v).is_finite());
        let outputs = self.softmax.infer(Args(&inputs.0[..1]))?;
        if !known || inputs.need(1)?.rank() > x.rank() {
            invalid!("not a softmax of scores times one positive number");
        }
        Ok(outputs)
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let factor = self.factor(inputs)?;
        if let Some(y) = self.softmax.eval_scaled(Args(&inputs.0[..1]), factor, cx)? {
            return one(y);
        }
        let scaled = [Some(Value::Real(inputs.real(0, cx)?.mul_scalar(factor)))];
        self.softmax.eval(Args(&scaled), outputs, cx)
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let factor = self.factor(call.inputs)?;
        let softmax = Backward { inputs: Args(&call.inputs.0[..1]), wanted: &call.wanted[..1], ..*call };
        let Some(gradients) = self.softmax.backward(&softmax)? else { return Ok(None) };
        let of_x = gradients.into_iter().next().flatten();
        Ok(Some(vec![of_x.map(|g| g.mul_scalar(factor)), None]))
    }

    fn keep(&self) -> Keep {
        Keep::Both
    }
}
