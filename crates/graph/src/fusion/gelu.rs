//! The error-function form of GELU as exporters write it: `x · (1 + erf(x / √2)) · ½`, in any order of the factors.
//!
//! # Source
//! Hendrycks and Gimpel, arXiv:1606.08415, section 2.

use std::sync::Arc;

use super::{Fusion, Uses};
use crate::error::{OpResult, invalid};
use crate::model::{Node, ValueId};
use crate::operator::{Args, Backward, Context, Fact, Operator, Value, one};
use crate::real::Real;

/// Inputs: x, and the three constants, which must be what the formula says.
struct Gelu {
    /// Whether x is divided by √2, or multiplied by its inverse.
    divides: bool,
}

/// Begins at the error function.
pub(super) fn find(uses: &Uses<'_>, index: usize) -> Option<Fusion> {
    if uses.nodes[index].operator != "Erf" {
        return None;
    }
    let scaled = uses.nodes[index].inputs.first().copied().flatten()?;
    let scale = uses.maker[scaled]?;
    let divides = match uses.nodes[scale].operator.as_str() {
        "Div" => true,
        "Mul" => false,
        _ => return None,
    };
    if uses.users[scaled].0 != 1 {
        return None;
    }
    let &[Some(x), Some(root)] = &uses.nodes[scale].inputs[..] else { return None };
    let mut parts = vec![scale, index];
    let mut interior = vec![scaled];
    let erf = uses.output(index)?;
    let add = uses.only_user(erf, &["Add"])?;
    let unit = uses.other(add, erf)?;
    let sum = uses.output(add)?;
    interior.extend([erf, sum]);
    parts.push(add);
    let first = uses.only_user(sum, &["Mul"])?;
    let factor = uses.other(first, sum)?;
    let product = uses.output(first)?;
    parts.push(first);
    let (half, output) = if factor == x {
        // (x · (1 + erf)) · ½
        let last = uses.only_user(product, &["Mul"])?;
        interior.push(product);
        parts.push(last);
        (uses.other(last, product)?, uses.output(last)?)
    } else if let Some(halved) = uses.maker[factor].filter(|&m| uses.nodes[m].operator == "Mul") {
        // (x · ½) · (1 + erf)
        if uses.users[factor].0 != 1 {
            return None;
        }
        interior.push(factor);
        parts.push(halved);
        (uses.other(halved, x)?, product)
    } else {
        // ((1 + erf) · ½) · x
        let last = uses.only_user(product, &["Mul"])?;
        if uses.other(last, product)? != x {
            return None;
        }
        interior.push(product);
        parts.push(last);
        (factor, uses.output(last)?)
    };
    parts.sort_unstable();
    let inputs: Vec<Option<ValueId>> = vec![Some(x), Some(root), Some(unit), Some(half)];
    let name = uses.nodes[*parts.last()?].name.clone();
    let node =
        Node { name, operator: "Gelu".to_owned(), op: Arc::new(Gelu { divides }), inputs, outputs: vec![Some(output)] };
    Some(Fusion { node, parts, interior, smooth: true })
}

impl Operator for Gelu {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let x = inputs.float(0)?;
        let root = if self.divides { std::f32::consts::SQRT_2 } else { std::f32::consts::FRAC_1_SQRT_2 };
        for (i, want) in [(1, root), (2, 1.0), (3, 0.5)] {
            let fits = matches!(inputs.floats(i)?[..], [v] if (v - want).abs() <= 4.0 * f32::EPSILON);
            if !fits || inputs.need(i)?.rank() > x.rank() {
                invalid!("constant {i} is not {want}");
            }
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        one(inputs.real(0, cx)?.gelu())
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let x = call.inputs.real(0, call.cx)?;
        Ok(Some(vec![call.when(0, || Ok(x.gelu_backward(call.gradient())))?, None, None, None]))
    }
}
