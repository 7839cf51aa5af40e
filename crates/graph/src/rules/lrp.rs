//! Layer-wise relevance propagation: the score is handed back from layer to layer in proportion to what each element gave.
//!
//! Bach et al., PLoS ONE 10(7), 2015; rules 0, ε, γ, z⁺ and zᴮ as in Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10,
//! tables 10.1 and 10.2. Attention, softmax and normalisation as in AttnLRP: Achtibat et al., ICML 2024, arXiv:2402.05602,
//! propositions 3.1 to 3.4.
//!
//! Relevance is a tensor of a value's shape. A layer y = W x + b passes back x ⊙ Wᵀ(R / y); each rule changes W, b or the
//! quotient. Where two branches meet in a sum each gets its share of it, so that a residual connection doubles nothing. What a
//! bias has given is not passed on: relevance is conserved but for biases (and ε), and that is counted.
//! With inputs of both signs, γ and z⁺ take the products x·w of one sign, not the weights of one sign; γ favours the sign that
//! the output has, as Zennit's rule does, so that no quotient explodes.

use super::{Back, Site, is_choice, is_curve, is_layer, is_movement, is_sum, with};
use crate::error::{OpResult, invalid};
use crate::operator::Value;
use crate::real::Real;

/// How a layer with weights hands relevance back.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum LinearRule {
    /// In proportion to the contributions; nothing where they sum to 0.
    Zero,
    /// As zero, with this number added to the sum, away from 0.
    Epsilon(f32),
    /// Positive contributions count this much more.
    Gamma(f32),
    /// Positive contributions only (α = 1, β = 0).
    ZPlus,
    /// For inputs within bounds, such as pixels: contributions beyond those of the lowest or highest input.
    ZBox {
        /// Lowest value of an input.
        low: f32,
        /// Highest value of an input.
        high: f32,
    },
    /// Relevance as it is; for layers that keep the shape.
    Identity,
}

/// A rule for each layer of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct LrpRules {
    /// Layers that see the input itself.
    pub first: LinearRule,
    /// Convolutions.
    pub convolution: LinearRule,
    /// Matrix products.
    pub dense: LinearRule,
    /// Nodes by name, before all of these.
    pub nodes: Vec<(String, LinearRule)>,
    /// Added to sums and products of values before they are divided by, away from 0.
    pub epsilon: f32,
}

impl LrpRules {
    /// One rule for all layers.
    pub fn uniform(rule: LinearRule) -> Self {
        let epsilon = if let LinearRule::Epsilon(e) = rule { e } else { 0.0 };
        Self { first: rule, convolution: rule, dense: rule, nodes: Vec::new(), epsilon }
    }

    fn of(&self, site: &Site<'_>) -> LinearRule {
        match self.nodes.iter().find(|(name, _)| *name == site.node.name) {
            Some((_, rule)) => *rule,
            None if site.first => self.first,
            None if matches!(site.operator(), "Conv" | "ConvTranspose") => self.convolution,
            None => self.dense,
        }
    }
}

pub(super) fn back(rules: &LrpRules, site: &Site<'_>) -> Back {
    let operator = site.operator();
    let data = site.data();
    let flow = site.flow();
    if is_movement(operator) || is_choice(operator) {
        return Ok(None);
    }
    if is_curve(operator) && data[..] == [0] || operator == "Pow" && data[..] == [0] {
        return site.only(0, flow.clone());
    }
    if is_layer(operator) && data.len() == 1 {
        return layer(rules.of(site), site);
    }
    if is_sum(operator) || operator == "Einsum" && data.len() == 1 {
        return proportional(site, 1.0, rules.epsilon);
    }
    match operator {
        // A factor that no input moves scales, and so does a divisor, whatever it depends on; copies belong to what was copied.
        "Mul" | "Div" if data.len() == 1 || operator == "Div" => {
            let x = site.input(data[0])?;
            site.only(data[0], flow.sum_to(x.shape()))
        }
        "Mul" => product(site, &data),
        "MatMul" | "Gemm" | "Einsum" if data.len() == 2 => proportional(site, 2.0, rules.epsilon),
        "Softmax" => softmax(site),
        "LayerNormalization"
        | "RMSNormalization"
        | "InstanceNormalization"
        | "GroupNormalization"
        | "LpNormalization"
        | "MeanVarianceNormalization"
        | "LRN"
            if data[..] == [0] =>
        {
            site.only(0, flow.clone())
        }
        other => invalid!("relevance propagation has no rule for the operator {other} with {} such inputs", data.len()),
    }
}

/// R / (z + ε), with ε away from 0; nothing where that is 0.
fn share(site: &Site<'_>, flow: &Real, z: &Real, epsilon: f32) -> Real {
    site.zip(flow, z, |r, z| {
        let z = if z < 0.0 { z - epsilon } else { z + epsilon };
        if z == 0.0 { 0.0 } else { r / z }
    })
}

/// Each input gets its part of the output: x ⊙ ∂y/∂x (R / (n·y)), for an output that is homogeneous of degree n in the
/// inputs. Achtibat et al. 2024, proposition 3.3 for products.
fn proportional(site: &Site<'_>, degree: f32, epsilon: f32) -> Back {
    let z = site.output()?.mul_scalar(degree);
    let parts = site.gradient(site.inputs, site.outputs, &share(site, site.flow(), &z, epsilon))?;
    let mut back = vec![None; parts.len()];
    for (i, part) in parts.into_iter().enumerate() {
        if let Some(part) = part {
            back[i] = Some(part.mul(&site.input(i)?));
        }
    }
    Ok(Some(back))
}

/// A product of two values element by element: halves (Achtibat et al. 2024, proposition 3.2), but a gate, which a sigmoid
/// or softmax makes, gets nothing (Arras et al., WASSA 2017, arXiv:1706.07206, section 3.1).
fn product(site: &Site<'_>, data: &[usize]) -> Back {
    let [a, b] = *data else { invalid!("a product of {} values", data.len()) };
    let shares = match (site.gates[a], site.gates[b]) {
        (true, false) => [0.0, 1.0],
        (false, true) => [1.0, 0.0],
        _ => [0.5, 0.5],
    };
    let mut back = vec![None; site.inputs.len()];
    for (i, share) in [a, b].into_iter().zip(shares) {
        // A factor that was broadcast gets all that its copies get.
        back[i] = Some(site.flow().mul_scalar(share).sum_to(site.input(i)?.shape()));
    }
    Ok(Some(back))
}

/// x ⊙ (R − s Σ R). Achtibat et al. 2024, proposition 3.1.
fn softmax(site: &Site<'_>) -> Back {
    // The gradient of a softmax is s ⊙ (g − Σ s g); with g = R / s it is R − s Σ R.
    let s = site.output()?;
    let gradient = site.gradient(site.inputs, site.outputs, &share(site, site.flow(), &s, 0.0))?;
    match gradient.into_iter().next().flatten() {
        // What is masked is −∞ and gets nothing.
        Some(g) => site.only(0, site.zip(&g, &site.input(0)?, |g, x| if g == 0.0 { 0.0 } else { g * x })),
        None => Ok(None),
    }
}

/// A layer with weights. The value is one factor, the weight the other, the bias what is left.
fn layer(rule: LinearRule, site: &Site<'_>) -> Back {
    let i = site.data()[0];
    let weight = 1 - i.min(1);
    match rule {
        LinearRule::Zero => proportional(site, 1.0, 0.0),
        LinearRule::Epsilon(e) => proportional(site, 1.0, e),
        LinearRule::Identity => {
            if site.input(i)?.shape() != site.flow().shape() {
                invalid!("the identity rule needs a layer that keeps the shape");
            }
            site.only(i, site.flow().clone())
        }
        LinearRule::Gamma(gamma) => {
            // Where the output is negative its negative contributions count more: the quotient keeps its sign and size.
            let (more, less) = (|w: f32| w + gamma * w.max(0.0), |w: f32| w + gamma * w.min(0.0));
            let y = site.output()?;
            let up = site.zip(site.flow(), &y, |r, y| if y < 0.0 { 0.0 } else { r });
            let down = site.zip(site.flow(), &y, |r, y| if y < 0.0 { r } else { 0.0 });
            let mut back = by_sign(site, i, weight, &up, more, less)?;
            if down.to_vec().iter().any(|&r| r != 0.0) {
                back = back.add(&by_sign(site, i, weight, &down, less, more)?);
            }
            site.only(i, back)
        }
        LinearRule::ZPlus => {
            let back = by_sign(site, i, weight, site.flow(), |w: f32| w.max(0.0), |w: f32| w.min(0.0))?;
            site.only(i, back)
        }
        LinearRule::ZBox { low, high } => within(site, i, weight, low, high),
    }
}

/// Positive inputs meet weights changed by `for_positive`, negative ones by `for_negative`.
fn by_sign(
    site: &Site<'_>,
    i: usize,
    weight: usize,
    flow: &Real,
    for_positive: impl Fn(f32) -> f32,
    for_negative: impl Fn(f32) -> f32,
) -> OpResult<Real> {
    let (x, w) = (site.input(i)?, site.input(weight)?);
    let bias = site.inputs.get(2).and_then(Option::as_ref).map(|_| site.input(2)).transpose()?;
    let positive = site.map(&x, |v| v.max(0.0));
    let mut first = with(site.inputs, weight, Some(site.map(&w, &for_positive)));
    first = with(&first, i, Some(positive.clone()));
    if let Some(bias) = bias {
        first = with(&first, 2, Some(site.map(&bias, &for_positive)));
    }
    let mut z = output(site, &first)?;
    let negative = site.map(&x, |v| v.min(0.0));
    let second = negative.to_vec().iter().any(|&v| v < 0.0).then(|| {
        let inputs = with(site.inputs, weight, Some(site.map(&w, &for_negative)));
        with(&with(&inputs, i, Some(negative.clone())), 2, None)
    });
    if let Some(second) = &second {
        z = z.add(&output(site, second)?);
    }
    let s = share(site, flow, &z, 0.0);
    let mut back = part(site, &first, i, &s)?.mul(&positive);
    if let Some(second) = &second {
        back = back.add(&part(site, second, i, &s)?.mul(&negative));
    }
    Ok(back)
}

/// x ⊙ Wᵀs − l ⊙ W⁺ᵀs − h ⊙ W⁻ᵀs. Montavon et al. 2019, table 10.2; the biases of the three cancel.
fn within(site: &Site<'_>, i: usize, weight: usize, low: f32, high: f32) -> Back {
    let (x, w) = (site.input(i)?, site.input(weight)?);
    let plain = with(site.inputs, 2, None);
    let bound = |value: f32, sign: &dyn Fn(f32) -> f32| {
        with(&with(&plain, weight, Some(site.map(&w, sign))), i, Some(site.map(&x, |_| value)))
    };
    let lowest = bound(low, &|w| w.max(0.0));
    let highest = bound(high, &|w| w.min(0.0));
    let z = output(site, &plain)?.sub(&output(site, &lowest)?).sub(&output(site, &highest)?);
    let s = share(site, site.flow(), &z, 0.0);
    let own = part(site, &plain, i, &s)?.mul(&x);
    let below = part(site, &lowest, i, &s)?.mul_scalar(low);
    let above = part(site, &highest, i, &s)?.mul_scalar(high);
    site.only(i, own.sub(&below).sub(&above))
}

fn output(site: &Site<'_>, inputs: &[Option<Value>]) -> OpResult<Real> {
    super::real(&site.eval(inputs)?, 0, site.cx)
}

fn part(site: &Site<'_>, inputs: &[Option<Value>], i: usize, flow: &Real) -> OpResult<Real> {
    match site.gradient(inputs, site.outputs, flow)?.into_iter().nth(i).flatten() {
        Some(g) => Ok(g),
        None => invalid!("a layer without a gradient"),
    }
}
