//! Sets of inputs.

use netproof_tensor::Tensor;

use super::curve::{down, up};
use crate::error::GraphError;

/// How far two inputs are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Norm {
    /// Largest absolute difference.
    Linf,
    /// Root of the sum of squares.
    L2,
    /// Sum of absolute differences.
    L1,
}

impl Norm {
    /// As options and files name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linf => "linf",
            Self::L2 => "l2",
            Self::L1 => "l1",
        }
    }
}

/// For each row a set of inputs: a box, or a ball within a box.
#[derive(Debug, Clone)]
pub struct Region {
    pub(super) low: Tensor,
    pub(super) high: Tensor,
    pub(super) ball: Option<Ball>,
    /// Rows with a NaN or an infinity: nothing holds for them.
    pub(super) undefined: Vec<bool>,
}

/// A ball of another norm than that of the box.
#[derive(Debug, Clone)]
pub(super) struct Ball {
    centre: Tensor,
    norm: Norm,
    epsilon: Vec<f64>,
}

fn fail<T>(message: String) -> Result<T, GraphError> {
    Err(GraphError::Bounds { message })
}

impl Region {
    /// All inputs between two, element by element.
    /// # Shapes
    /// both `[n, ...]`
    /// # Errors
    /// The shapes differ, or a lower bound is above its upper one.
    pub fn between(low: Tensor, high: Tensor) -> Result<Self, GraphError> {
        let (Some(l), Some(h)) = (low.as_f32(), high.as_f32()) else {
            return fail(format!("bounds are {} and {}, must be floats", low.dtype(), high.dtype()));
        };
        if low.shape() != high.shape() || low.rank() == 0 {
            return fail(format!(
                "the bounds have shapes {:?} and {:?}; both must be [n, ...]",
                low.shape(),
                high.shape()
            ));
        }
        let n = low.row_len().max(1);
        if let Some(i) = l.iter().zip(h).position(|(l, h)| l > h) {
            let (row, at, l, h) = (i / n, i % n, l[i], h[i]);
            return fail(format!("row {row}: the lower bound {l} of element {at} is above the upper one, {h}"));
        }
        let finite = |(l, h): (&[f32], &[f32])| l.iter().chain(h).all(|v| v.is_finite());
        let undefined = l.chunks(n).zip(h.chunks(n)).map(|r| !finite(r)).collect();
        Self { low, high, ball: None, undefined }.cleaned()
    }

    /// All inputs within `epsilon` of a row, cut to `domain` where that is given. A row outside the domain keeps itself.
    /// # Shapes
    /// `centre [n, ...]`; `epsilon`: one for all rows, or one per row
    /// # Errors
    /// An epsilon is negative or not finite, or there are neither one nor n of them; the domain is empty.
    pub fn around(
        centre: &Tensor,
        norm: Norm,
        epsilon: &[f64],
        domain: Option<(f32, f32)>,
    ) -> Result<Self, GraphError> {
        let Some(x) = centre.as_f32().filter(|_| centre.rank() > 0) else {
            return fail(format!("rows are {} {:?}, must be floats [n, ...]", centre.dtype(), centre.shape()));
        };
        let rows = centre.rows();
        let epsilon: Vec<f64> = match epsilon {
            [all] => vec![*all; rows],
            each if each.len() == rows => each.to_vec(),
            other => return fail(format!("{rows} rows, {} values of epsilon; give one, or one per row", other.len())),
        };
        if let Some(e) = epsilon.iter().find(|e| !(e.is_finite() && **e >= 0.0)) {
            return fail(format!("epsilon is {e}, must be at least 0 and finite"));
        }
        let (least, most) = domain.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        if !(least < most) {
            return fail(format!("the domain [{least}, {most}] is empty; the first number must be the smaller one"));
        }
        let n = centre.row_len().max(1);
        let side = |f: &dyn Fn(f32, f64) -> f32| -> Result<Tensor, GraphError> {
            let values = x.iter().enumerate().map(|(i, &v)| f(v, epsilon[i / n])).collect();
            Ok(Tensor::f32(centre.shape().to_vec(), values)?)
        };
        let low = side(&|v, e| down(f64::from(v) - e).max(least).min(v))?;
        let high = side(&|v, e| up(f64::from(v) + e).min(most).max(v))?;
        let undefined = x.chunks(n).map(|r| r.iter().any(|v| !v.is_finite())).collect();
        let ball = match norm {
            Norm::Linf => None,
            _ => Some(Ball { centre: centre.clone(), norm, epsilon }),
        };
        Self { low, high, ball, undefined }.cleaned()
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.low.rows()
    }

    /// Zeros in rows that are not defined, so that they disturb no kernel.
    fn cleaned(mut self) -> Result<Self, GraphError> {
        if self.undefined.contains(&true) {
            let n = self.low.row_len().max(1);
            let tensors = [Some(&mut self.low), Some(&mut self.high), self.ball.as_mut().map(|b| &mut b.centre)];
            for tensor in tensors.into_iter().flatten() {
                let mut values = tensor.as_f32().unwrap_or_default().to_vec();
                for (row, &bad) in values.chunks_mut(n).zip(&self.undefined) {
                    if bad {
                        row.fill(0.0);
                    }
                }
                *tensor = Tensor::f32(tensor.shape().to_vec(), values)?;
            }
        }
        Ok(self)
    }

    /// Some of the rows, in this order.
    pub(super) fn select(&self, rows: &[usize]) -> Result<Self, GraphError> {
        let ball = match &self.ball {
            None => None,
            Some(b) => Some(Ball {
                centre: b.centre.select_rows(rows)?,
                norm: b.norm,
                epsilon: rows.iter().map(|&r| b.epsilon[r]).collect(),
            }),
        };
        Ok(Self {
            low: self.low.select_rows(rows)?,
            high: self.high.select_rows(rows)?,
            ball,
            undefined: rows.iter().map(|&r| self.undefined[r]).collect(),
        })
    }
}

impl Ball {
    /// The least value of a linear function over the ball of a row, by the dual norm.
    /// # Source
    /// Zhang et al. 2018, arXiv:1811.00866, corollary 3.3
    pub(super) fn least(&self, lambda: &[f32], row: usize) -> f64 {
        let n = lambda.len();
        let centre = self.centre.as_f32().and_then(|c| c.get(row * n..(row + 1) * n)).unwrap_or_default();
        let mut middle = [0.0f64; 8];
        for (j, (&l, &c)) in lambda.iter().zip(centre).enumerate() {
            middle[j % 8] += f64::from(l) * f64::from(c);
        }
        // Rounded up, so that the ball is not smaller than it is meant to be.
        middle.iter().sum::<f64>() - self.epsilon[row] * dual(lambda, self.norm) * (1.0 + 1e-12)
    }

    /// The point of the ball at which the function is least.
    pub(super) fn lowest(&self, lambda: &[f32], row: usize) -> Vec<f32> {
        let n = lambda.len();
        let centre = self.centre.as_f32().and_then(|c| c.get(row * n..(row + 1) * n)).unwrap_or_default();
        let mut x = centre.to_vec();
        let size = dual(lambda, self.norm);
        if size == 0.0 {
            return x;
        }
        let epsilon = self.epsilon[row];
        match self.norm {
            Norm::L2 => x.iter_mut().zip(lambda).for_each(|(x, &l)| *x -= (epsilon * f64::from(l) / size) as f32),
            Norm::L1 => {
                if let Some(k) = (0..n).max_by(|&a, &b| lambda[a].abs().total_cmp(&lambda[b].abs())) {
                    x[k] -= epsilon as f32 * lambda[k].signum();
                }
            }
            Norm::Linf => x.iter_mut().zip(lambda).for_each(|(x, &l)| *x -= epsilon as f32 * l.signum()),
        }
        x
    }
}

/// The dual norm: l2 of l2, l∞ of l1, l1 of l∞.
fn dual(lambda: &[f32], norm: Norm) -> f64 {
    let sizes = lambda.iter().map(|&l| f64::from(l).abs());
    match norm {
        Norm::Linf => sizes.sum(),
        Norm::L2 => sizes.map(|l| l * l).sum::<f64>().sqrt(),
        Norm::L1 => sizes.fold(0.0, f64::max),
    }
}
