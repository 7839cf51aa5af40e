//! Interval bound propagation: the smallest and largest value of each element, from those of the elements before it.
//!
//! Gowal et al. 2019, arXiv:1810.12715, section 3, equations 6 to 8: a weight moves the centres, its absolute value the
//! radii. All intervals are rounded outward by a bound on the rounding errors of these sums and of the network's own.

use super::network::{Frame, Network, Step};
use super::rule::Rule;
use crate::error::GraphError;
use crate::operator::Value;
use crate::real::Real;

/// Bounds of a value for a number of rows.
#[derive(Debug, Clone)]
pub(super) struct Interval {
    pub(super) low: Real,
    pub(super) high: Real,
    /// Bound on the sum of the sizes of the terms that an element is the sum of, where a node adds.
    pub(super) terms: Option<Real>,
}

impl Interval {
    pub(super) fn new(low: Real, high: Real) -> Self {
        Self { low, high, terms: None }
    }

    /// Bound on the absolute values.
    pub(super) fn largest(&self) -> Real {
        self.low.zip_with(&self.high, |l, h| l.abs().max(h.abs()))
    }

    /// Widened by `gamma` times the terms.
    fn widened(self, gamma: f64, terms: Real) -> Self {
        if gamma == 0.0 {
            return self;
        }
        let g = gamma as f32;
        let low = self.low.zip_with(&terms, move |l, t| l - g * t);
        let high = self.high.zip_with(&terms, move |h, t| h + g * t);
        Self { low, high, terms: Some(terms) }
    }
}

/// The elements of a tensor in memory.
pub(super) fn elements(real: &Real) -> Vec<f32> {
    real.to_vec()
}

impl Network<'_> {
    /// Bounds of the outputs of a node from those of its inputs.
    pub(super) fn interval(
        &self,
        frame: &Frame,
        step: &Step,
        values: &[Option<Interval>],
    ) -> Result<Vec<Option<Interval>>, GraphError> {
        let node = self.node(step);
        let of = |id: usize| -> Result<&Interval, GraphError> {
            let missing = || GraphError::UnknownValue { name: self.model.names[id].clone(), candidates: Vec::new() };
            values[id].as_ref().ok_or_else(missing)
        };
        let at = |pick: &dyn Fn(usize, &Interval) -> Real| -> Result<Vec<Option<Real>>, GraphError> {
            let mut missing = None;
            let inputs = self.inputs(frame, step, |i, id| match of(id) {
                Ok(v) => Some(pick(i, v)),
                Err(e) => {
                    missing = Some(e);
                    None
                }
            })?;
            match missing {
                Some(e) => Err(e),
                None => self.eval(frame, step, &inputs),
            }
        };
        let pairs = |low: Vec<Option<Real>>, high: Vec<Option<Real>>| -> Vec<Option<Interval>> {
            let pair = |(l, h): (Option<Real>, Option<Real>)| Some(Interval::new(l?, h?));
            low.into_iter().zip(high).map(pair).collect()
        };
        let first = || -> Result<&Interval, GraphError> {
            let id = node.inputs.iter().zip(&step.varies).find(|(_, v)| **v).and_then(|(id, _)| *id);
            of(id.unwrap_or(self.input))
        };
        let offset = || step.offset.as_deref();
        Ok(match &step.rule {
            Rule::Positive { adds } => {
                let all = pairs(at(&|_, v| v.low.clone())?, at(&|_, v| v.high.clone())?);
                if !adds || step.gamma == 0.0 {
                    return Ok(all);
                }
                let terms = at(&|_, v| v.largest())?;
                let widen = |(v, t): (Option<Interval>, Option<Real>)| {
                    Some(v?.widened(step.gamma, plus_sizes(&t?, offset(), 2.0)))
                };
                all.into_iter().zip(terms).map(widen).collect()
            }
            Rule::Diagonal | Rule::Bent => {
                let all = pairs(at(&|_, v| v.low.clone())?, at(&|_, v| v.high.clone())?);
                let mut sorted: Vec<Option<Interval>> = Vec::with_capacity(all.len());
                for v in all {
                    sorted.push(
                        v.map(|v| Interval::new(v.low.zip_with(&v.high, f32::min), v.low.zip_with(&v.high, f32::max))),
                    );
                }
                if step.rule == Rule::Bent {
                    let kink = at(&|_, v| v.low.zip_with(&v.high, |l, h| l.max(h.min(0.0))))?;
                    for (v, k) in sorted.iter_mut().zip(kink) {
                        if let (Some(v), Some(k)) = (v, k) {
                            v.low = v.low.zip_with(&k, f32::min);
                            v.high = v.high.zip_with(&k, f32::max);
                        }
                    }
                }
                let widen = |v: Option<Interval>| {
                    let v = v?;
                    let terms = plus_sizes(&v.largest(), offset(), 2.0);
                    Some(v.widened(step.gamma, terms))
                };
                sorted.into_iter().map(widen).collect()
            }
            Rule::Difference => {
                let low = at(&|i, v| if i == 0 { v.low.clone() } else { v.high.clone() })?;
                let high = at(&|i, v| if i == 0 { v.high.clone() } else { v.low.clone() })?;
                let widen = |v: Option<Interval>| {
                    let v = v?;
                    let terms = v.largest();
                    Some(v.widened(step.gamma, terms))
                };
                pairs(low, high).into_iter().map(widen).collect()
            }
            Rule::Weighted { weight, added } => {
                let x = first()?;
                let centre = x.low.zip_with(&x.high, |l, h| 0.5 * l + 0.5 * h);
                let above = x.high.zip_with(&centre, |h, c| h - c);
                let radius = centre.zip_with(&x.low, |c, l| c - l).zip_with(&above, f32::max);
                let moved = self.eval(frame, step, &self.inputs(frame, step, |_, _| Some(centre.clone()))?)?;
                let absolute = |x: Real| -> Result<Option<Real>, GraphError> {
                    let mut inputs = self.inputs(frame, step, |_, _| Some(x.clone()))?;
                    if let Some(Some(Value::Real(w))) = inputs.get(*weight).cloned() {
                        inputs[*weight] = Some(Value::Real(w.abs()));
                    }
                    if let Some(added) = inputs.get_mut(*added) {
                        *added = None;
                    }
                    // A negative factor of the node turns all signs.
                    Ok(self.eval(frame, step, &inputs)?.into_iter().next().flatten().map(|r| r.abs()))
                };
                let (Some(Some(moved)), Some(spread)) = (moved.into_iter().next(), absolute(radius)?) else {
                    return Ok(vec![None]);
                };
                let v = Interval::new(moved.sub(&spread), moved.add(&spread));
                if step.gamma == 0.0 {
                    return Ok(vec![Some(v)]);
                }
                let Some(terms) = absolute(x.largest())? else { return Ok(vec![None]) };
                vec![Some(v.widened(step.gamma, plus_sizes(&terms, offset(), 1.0)))]
            }
            Rule::Curve(curve) => {
                let x = first()?;
                let (l, u) = (elements(&x.low), elements(&x.high));
                let mut ranges = vec![(0.0f32, 0.0f32); l.len()];
                super::each(&mut ranges, |i, range| *range = curve.range(l[i], u[i]));
                let (low, high): (Vec<f32>, Vec<f32>) = ranges.into_iter().unzip();
                if !l.iter().zip(&u).all(|(&l, &u)| curve.defined(f64::from(l), f64::from(u))) {
                    return Err(GraphError::Bounds {
                        message: format!(
                            "node `{}` ({}) is not defined all over its input's bounds; choose a smaller epsilon",
                            node.name, node.operator
                        ),
                    });
                }
                vec![Some(Interval::new(self.like(&x.low, low), self.like(&x.low, high)))]
            }
            Rule::Maximum(_) => pairs(at(&|_, v| v.low.clone())?, at(&|_, v| v.high.clone())?),
            Rule::Product => {
                let corners = [(0, 0), (0, 1), (1, 0), (1, 1)];
                let mut result: Option<Interval> = None;
                for (a, b) in corners {
                    let side = |high: usize, v: &Interval| if high == 1 { v.high.clone() } else { v.low.clone() };
                    let y = at(&|i, v| side(if i == 0 { a } else { b }, v))?;
                    let Some(Some(y)) = y.into_iter().next() else { return Ok(vec![None]) };
                    result = Some(match result {
                        None => Interval::new(y.clone(), y),
                        Some(r) => Interval::new(r.low.zip_with(&y, f32::min), r.high.zip_with(&y, f32::max)),
                    });
                }
                let widen = |v: Interval| {
                    let terms = v.largest();
                    v.widened(step.gamma, terms)
                };
                vec![result.map(widen)]
            }
            Rule::Softmax => {
                let x = first()?;
                let n = x.low.shape().last().copied().unwrap_or(1).max(1);
                let (l, u) = (elements(&x.low), elements(&x.high));
                let (mut low, mut high) = (Vec::with_capacity(l.len()), Vec::with_capacity(l.len()));
                for (l, u) in l.chunks_exact(n).zip(u.chunks_exact(n)) {
                    for i in 0..n {
                        // The share of i is least where it is lowest and all others are highest.
                        let others = |v: &[f32], own: f32| -> f64 {
                            let each = v.iter().enumerate().filter(|(j, _)| *j != i);
                            each.map(|(_, &v)| (f64::from(v) - f64::from(own)).exp()).sum()
                        };
                        low.push(super::curve::down((1.0 - 1e-5) / (1.0 + others(u, l[i]))));
                        high.push(super::curve::up((1.0 + 1e-5) / (1.0 + others(l, u[i]))));
                    }
                }
                vec![Some(Interval::new(self.like(&x.low, low), self.like(&x.low, high)))]
            }
        })
    }

    /// Numbers in the shape of another tensor.
    pub(super) fn like(&self, other: &Real, values: Vec<f32>) -> Real {
        Real::new(other.shape(), values, &self.model.device)
    }
}

/// `|terms| + factor · |offset|`, the offset for each row.
fn plus_sizes(terms: &Real, offset: Option<&[f32]>, factor: f32) -> Real {
    let mut values = elements(terms);
    match offset {
        Some(offset) if !offset.is_empty() => {
            for row in values.chunks_mut(offset.len()) {
                row.iter_mut().zip(offset).for_each(|(v, o)| *v = v.abs() + factor * o.abs());
            }
        }
        _ => values.iter_mut().for_each(|v| *v = v.abs()),
    }
    Real::build(terms.shape(), |y| y.copy_from_slice(&values))
}

/// Tensors of one shape in memory, element by element.
pub(super) trait Pairwise {
    fn zip_with(&self, other: &Self, f: impl Fn(f32, f32) -> f32 + Copy + Sync + Send) -> Self;
}

impl Pairwise for Real {
    fn zip_with(&self, other: &Self, f: impl Fn(f32, f32) -> f32 + Copy + Sync + Send) -> Self {
        self.zip(other, f).unwrap_or_else(|| {
            let (a, b) = (self.to_vec(), other.to_vec());
            Self::build(self.shape(), |y| y.iter_mut().zip(a.iter().zip(&b)).for_each(|(y, (a, b))| *y = f(*a, *b)))
        })
    }
}
