//! DeepLIFT: multipliers that say how a change of the inputs from a reference becomes a change of the outputs.
//!
//! Shrikumar, Greenside and Kundaje, ICML 2017, arXiv:1704.02685, sections 3.2 to 3.5.2 (Rescale). For operators that the
//! paper does not treat (products of two values, softmax, normalisation) the multiplier is the gradient averaged between
//! reference and value of the node's own inputs (Aumann–Shapley values of one node), which has the same property: what flows
//! sums to the change. A maximum passes its change to the element that makes it, as SHAP does and Captum documents.

use super::{Back, Site, is_choice, is_curve, is_layer, is_movement, is_sum, real};
use crate::error::{OpResult, invalid};
use crate::operator::Value;
use crate::real::Real;

/// Changes below this are taken as none: the gradient replaces the quotient. As in Captum.
pub(super) const NONE: f32 = 1e-10;

/// Points between reference and value where one node is integrated.
const POINTS: usize = 10;

pub(super) fn back(site: &Site<'_>, gradient_of_maxima: bool) -> Back {
    let operator = site.operator();
    let data = site.data();
    let single = data.len() == 1;
    if bends(site) {
        return rescale(site);
    }
    if is_choice(operator) && operator != "TopK" && single {
        return if gradient_of_maxima { Ok(None) } else { chosen(site) };
    }
    let constant_divisor = operator == "Div" && data[..] == [0];
    if is_movement(operator)
        || is_sum(operator)
        || single && (is_layer(operator) || operator == "Mul" || constant_divisor)
    {
        return Ok(None);
    }
    match operator {
        // What is linear in each of two values: the gradient half way is the mean.
        "Mul" | "MatMul" | "Gemm" | "Conv" | "ConvTranspose" => averaged(site, 1),
        "Einsum" if single => Ok(None),
        "Einsum" if data.len() == 2 => averaged(site, 1),
        _ => averaged(site, POINTS),
    }
}

/// Whether the node is a curve, element by element.
pub(super) fn bends(site: &Site<'_>) -> bool {
    (is_curve(site.operator()) || site.operator() == "Pow") && site.data()[..] == [0]
}

/// The change of the output by the change of the input: section 3.5.2.
fn rescale(site: &Site<'_>) -> Back {
    let (ins, outs) = reference(site)?;
    let change = site.zip(&site.input(0)?, &real(ins, 0, site.cx)?, |a, b| a - b);
    let after = site.zip(&site.output()?, &real(outs, 0, site.cx)?, |a, b| a - b);
    let quotient = site.zip(&after, &change, |dy, dx| if dx.abs() < NONE { 0.0 } else { dy / dx });
    let ratio = quotient.mul(site.flow());
    let mut gradient = site.gradient(site.inputs, site.outputs, site.flow())?;
    let Some(slope) = gradient.first_mut().and_then(Option::take) else { return site.only(0, ratio) };
    let still = site.zip(&slope, &change, |g, dx| if dx.abs() < NONE { g } else { 0.0 });
    site.only(0, still.add(&ratio))
}

/// What rises to a maximum belongs to the largest element, what it fell from to the largest one of the reference.
fn chosen(site: &Site<'_>) -> Back {
    let (ins, outs) = reference(site)?;
    let i = site.data()[0];
    let smallest = matches!(site.operator(), "ReduceMin" | "Min");
    let (y, before) = (site.output()?, real(outs, 0, site.cx)?);
    let top = site.zip(&y, &before, |a, b| if smallest { a.min(b) } else { a.max(b) });
    let risen = top.sub(&before).mul(site.flow());
    let fallen = y.sub(&top).mul(site.flow());
    let up = site.gradient(site.inputs, site.outputs, &risen)?;
    let down = site.gradient(ins, outs, &fallen)?;
    let plain = site.gradient(site.inputs, site.outputs, site.flow())?;
    let (Some(Some(up)), Some(Some(down)), Some(Some(plain))) = (up.get(i), down.get(i), plain.get(i)) else {
        invalid!("no gradient of a maximum");
    };
    let change = site.zip(&site.input(i)?, &real(ins, i, site.cx)?, |a, b| a - b);
    let moved = site.zip(&up.add(down), &change, |c, dx| if dx.abs() < NONE { 0.0 } else { c / dx });
    let still = site.zip(plain, &change, |g, dx| if dx.abs() < NONE { g } else { 0.0 });
    site.only(i, moved.add(&still))
}

/// The gradient averaged on the straight way between the reference's inputs and the node's.
fn averaged(site: &Site<'_>, points: usize) -> Back {
    let (ins, _) = reference(site)?;
    let data = site.data();
    let (nodes, weights) = netproof_stats::quadrature::gauss_legendre(points);
    let mut total: Vec<Option<Real>> = vec![None; site.inputs.len()];
    for (alpha, weight) in nodes.iter().zip(&weights) {
        let mut between = site.inputs.to_vec();
        for &i in &data {
            let (x, b) = (site.input(i)?, real(ins, i, site.cx)?);
            between[i] = Some(Value::Real(site.zip(&x, &b, |x, b| b + *alpha as f32 * (x - b))));
        }
        let outputs = site.eval(&between)?;
        let gradient =
            crate::run::differentiate(site.node, &between, &outputs, site.facts, site.flowing, site.wanted, site.cx)?;
        for (sum, g) in total.iter_mut().zip(gradient) {
            let Some(g) = g.map(|g| g.mul_scalar(*weight as f32)) else { continue };
            *sum = Some(match sum.take() {
                Some(old) => old.add(&g),
                None => g,
            });
        }
    }
    Ok(Some(total))
}

type Values<'a> = &'a [Option<Value>];

pub(super) fn reference<'a>(site: &Site<'a>) -> OpResult<(Values<'a>, Values<'a>)> {
    match site.reference {
        Some(r) => Ok(r),
        None => invalid!("the rule compares with a reference run, and there is none"),
    }
}
