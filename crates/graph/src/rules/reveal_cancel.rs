//! DeepLIFT's RevealCancel rule: what raises a unit and what lowers it are handed through a curve apart, so that what they cancel
//! is seen. Shrikumar, Greenside and Kundaje, ICML 2017, arXiv:1704.02685, sections 3.5.1 (Linear) and 3.5.3 (RevealCancel).
//!
//! A change `Δ` of a value is a part that rises and one that falls, `Δ⁺ + Δ⁻`, with a multiplier for each. Kept are the *spread*
//! `Δ⁺ − Δ⁻`, and of the multipliers half their sum (what flows) and half their difference (the *gap*). Behind a linear step both
//! parts of an input have one multiplier, so that a gap lives only between a linear step and the curve behind it.
//! Steps that only scale or shift each element (a bias added apart, batch normalisation) and steps that move elements pass both
//! on; the paper counts them to the linear step. For all other operators the part that rises is the change where it is positive,
//! and the rules of `deep_lift.rs` apply.

use super::deep_lift::{NONE, bends, reference};
use super::{Site, is_layer, is_movement, real, with};
use crate::error::OpResult;
use crate::operator::Value;
use crate::real::Real;

/// A part of a change below this fraction of the spread is rounding.
const ROUNDING: f32 = 1e-6;

/// What kind of step a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Curve,
    /// A product with constants; the number of the input that is none.
    Layer(usize),
    /// A sum with coefficients of 1 or −1, or that are positive.
    Sum,
    /// Each element times a constant, plus a constant.
    Scale(usize),
    Movement,
    Other,
}

fn kind(site: &Site<'_>) -> OpResult<Kind> {
    const SUMS: &[&str] = &["Add", "Sub", "Sum", "Mean", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"];
    let operator = site.operator();
    let data = site.data();
    if bends(site) {
        return Ok(Kind::Curve);
    }
    if is_movement(operator) {
        return Ok(Kind::Movement);
    }
    if let [one] = data[..] {
        if is_layer(operator) {
            return Ok(Kind::Layer(one));
        }
        let scales = matches!(operator, "Add" | "Sub" | "Mul" | "Neg" | "BatchNormalization" | "Sum" | "Mean")
            || operator == "Div" && one == 0;
        if scales && site.input(one)?.shape() == site.output()?.shape() {
            return Ok(Kind::Scale(one));
        }
    }
    Ok(if SUMS.contains(&operator) { Kind::Sum } else { Kind::Other })
}

/// `Δ⁺ − Δ⁻` of a node's output `out`; `of` answers that of an input.
pub(crate) fn spread(site: &Site<'_>, out: usize, of: &dyn Fn(usize) -> OpResult<Real>) -> OpResult<Real> {
    let evaluated = |inputs: &[Option<Value>]| real(&site.eval(inputs)?, out, site.cx);
    match kind(site)? {
        Kind::Curve => {
            let [rises, falls] = parts(site, &of(0)?)?.moved;
            Ok(rises.sub(&falls))
        }
        Kind::Layer(data) => {
            let change = change(site, data)?.abs();
            Ok(evaluated(&with(&absolute_weights(site, data)?, data, Some(change)))?.abs())
        }
        Kind::Sum => {
            let mut inputs = without_constants(site);
            for k in site.data() {
                let change = change(site, k)?.abs();
                let change = if site.operator() == "Sub" && k == 1 { change.neg() } else { change };
                inputs = with(&inputs, k, Some(change));
            }
            evaluated(&inputs)
        }
        Kind::Scale(data) => Ok(of(data)?.mul(&scale(site, data)?.abs())),
        Kind::Movement => {
            let mut inputs = without_constants(site);
            for k in site.data() {
                inputs = with(&inputs, k, Some(of(k)?));
            }
            evaluated(&inputs)
        }
        Kind::Other => {
            let before = reference(site)?.1;
            Ok(real(site.outputs, out, site.cx)?.sub(&real(before, out, site.cx)?).abs())
        }
    }
}

/// What flows out of each input, and its gap. `gaps` are those of the outputs; `of` answers the spread of an input.
pub(crate) fn back(
    site: &Site<'_>,
    gaps: &[Option<Real>],
    of: &dyn Fn(usize) -> OpResult<Real>,
    plain: &dyn Fn(&Site<'_>) -> OpResult<Vec<Option<Real>>>,
) -> OpResult<[Vec<Option<Real>>; 2]> {
    let none = vec![None; site.inputs.len()];
    let gap = gaps.first().cloned().flatten();
    match kind(site)? {
        Kind::Curve => {
            let p = parts(site, &of(0)?)?;
            let flow = site.flow();
            let own = |sign: f32| gap.as_ref().map_or_else(|| flow.clone(), |g| flow.add(&g.mul_scalar(sign)));
            let mut multipliers = Vec::with_capacity(2);
            for (k, sign) in [1.0, -1.0].into_iter().enumerate() {
                let own = own(sign);
                let slope = site.gradient(site.inputs, site.outputs, &own)?;
                let (part, moved) = (&p.part[k], &p.moved[k]);
                let tiny = p.spread.abs().mul_scalar(ROUNDING).add_scalar(NONE);
                let still = site.zip(part, &tiny, |d, t| if d.abs() < t { 1.0 } else { 0.0 });
                let ratio = site.zip(moved, part, |dy, dx| if dx == 0.0 { 0.0 } else { dy / dx });
                let quotient = site.zip(&ratio, &still, |r, s| if s == 0.0 { r } else { 0.0 }).mul(&own);
                multipliers.push(match slope.into_iter().next().flatten() {
                    Some(slope) => quotient.add(&slope.mul(&still)),
                    None => quotient,
                });
            }
            let half = |a: Real| Some(a.mul_scalar(0.5));
            let (mut flows, mut own_gaps) = (none.clone(), none);
            flows[0] = half(multipliers[0].add(&multipliers[1]));
            own_gaps[0] = half(multipliers[0].sub(&multipliers[1]));
            Ok([flows, own_gaps])
        }
        Kind::Layer(data) => {
            let mut flows = plain(site)?;
            if let Some(gap) = gap {
                let by_size = site.gradient(&absolute_weights(site, data)?, site.outputs, &gap)?;
                add_signed(site, &mut flows, &by_size, data, 1.0)?;
            }
            Ok([flows, none])
        }
        Kind::Sum => {
            let mut flows = plain(site)?;
            if let Some(gap) = gap {
                let by_size = site.gradient(site.inputs, site.outputs, &gap)?;
                for k in site.data() {
                    let sign = if site.operator() == "Sub" && k == 1 { -1.0 } else { 1.0 };
                    add_signed(site, &mut flows, &by_size, k, sign)?;
                }
            }
            Ok([flows, none])
        }
        Kind::Scale(data) => {
            let mut own_gaps = none;
            if let Some(gap) = gap {
                own_gaps[data] = Some(gap.mul(&scale(site, data)?.abs()));
            }
            Ok([plain(site)?, own_gaps])
        }
        Kind::Movement => {
            let own_gaps =
                if gaps.iter().any(Option::is_some) { plain(&Site { flowing: gaps, ..*site })? } else { none };
            Ok([plain(site)?, own_gaps])
        }
        Kind::Other => {
            let before = reference(site)?.1;
            let mut flowing = site.flowing.to_vec();
            for (out, (flow, gap)) in flowing.iter_mut().zip(gaps).enumerate() {
                if let (Some(f), Some(gap)) = (flow.as_mut(), gap) {
                    let change = real(site.outputs, out, site.cx)?.sub(&real(before, out, site.cx)?);
                    *f = f.add(&signed(site, gap, &change));
                }
            }
            Ok([plain(&Site { flowing: &flowing, ..*site })?, none])
        }
    }
}

/// The parts of a curve's input, and what each moves of the output.
struct Parts {
    spread: Real,
    part: [Real; 2],
    moved: [Real; 2],
}

/// Section 3.5.3: each part's move is the mean of its moves before and after the other part is there.
fn parts(site: &Site<'_>, spread: &Real) -> OpResult<Parts> {
    let (ins, outs) = reference(site)?;
    let change = change(site, 0)?;
    let part = [change.add(spread), change.sub(spread)].map(|p| p.mul_scalar(0.5));
    let (before, after) = (real(outs, 0, site.cx)?, site.output()?);
    let start = real(ins, 0, site.cx)?;
    let alone = |p: &Real| real(&site.eval(&with(site.inputs, 0, Some(start.add(p))))?, 0, site.cx);
    let [rise, fall] = [alone(&part[0])?, alone(&part[1])?];
    let moved = [(&rise, &fall), (&fall, &rise)].map(|(own, other)| {
        let (first, second) = (own.sub(&before), after.sub(other));
        first.add(&second).mul_scalar(0.5)
    });
    Ok(Parts { spread: spread.clone(), part, moved })
}

fn change(site: &Site<'_>, i: usize) -> OpResult<Real> {
    Ok(site.input(i)?.sub(&real(reference(site)?.0, i, site.cx)?))
}

/// The inputs with the size of each weight, and without a bias.
fn absolute_weights(site: &Site<'_>, data: usize) -> OpResult<Vec<Option<Value>>> {
    let mut inputs = site.inputs.to_vec();
    for (i, input) in site.inputs.iter().enumerate() {
        if i != data && input.is_some() {
            let w = site.input(i)?;
            inputs = with(&inputs, i, Some(if i == 2 { site.map(&w, |_| 0.0) } else { w.abs() }));
        }
    }
    Ok(inputs)
}

/// The inputs with zeros for numbers that do not depend on what was asked for.
fn without_constants(site: &Site<'_>) -> Vec<Option<Value>> {
    let zeros = |(value, wanted): (&Option<Value>, &bool)| match value {
        Some(Value::Real(r)) if !wanted => Some(Value::Real(site.map(r, |_| 0.0))),
        Some(Value::Host(t)) if !wanted && t.as_f32().is_some() => {
            let count = t.as_f32().map_or(0, <[f32]>::len);
            Some(Value::Real(Real::new(t.shape(), vec![0.0; count], &site.cx.device)))
        }
        other => other.clone(),
    };
    site.inputs.iter().zip(site.wanted).map(zeros).collect()
}

/// By what each element is multiplied.
fn scale(site: &Site<'_>, data: usize) -> OpResult<Real> {
    let y = site.output()?;
    let ones = site.map(&y, |_| 1.0);
    let found = site.gradient(site.inputs, site.outputs, &ones)?;
    Ok(found.into_iter().nth(data).flatten().unwrap_or_else(|| site.map(&y, |_| 0.0)))
}

/// A gap goes to the part that the change is of.
pub(crate) fn signed(site: &Site<'_>, gap: &Real, change: &Real) -> Real {
    site.zip(gap, change, |g, d| if d == 0.0 { 0.0 } else { g * d.signum() })
}

fn add_signed(
    site: &Site<'_>,
    flows: &mut [Option<Real>],
    by_size: &[Option<Real>],
    k: usize,
    sign: f32,
) -> OpResult<()> {
    if let Some(g) = by_size.get(k).and_then(Option::as_ref) {
        let more = signed(site, g, &change(site, k)?).mul_scalar(sign);
        flows[k] = Some(match flows[k].take() {
            Some(flow) => flow.add(&more),
            None => more,
        });
    }
    Ok(())
}
