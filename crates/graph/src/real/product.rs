//! Matrix products.

use super::{Dispatch, Finish, FloatTensorOps, Real, broadcast};
use crate::kernels::batch::{Sizes, products};
use crate::kernels::epilogue::Epilogue;
use crate::kernels::product::{Matrix, product};

impl Real {
    /// Batched matrix product with broadcasting over leading axes; both ranks at least 2.
    pub(crate) fn matmul(&self, other: &Self) -> Self {
        self.product(false, other, false)
    }

    /// [`Real::matmul`] of operands whose last two axes may be stored in exchanged order.
    pub(crate) fn product(&self, turned: bool, other: &Self, turned_other: bool) -> Self {
        let (r, q) = (self.rank(), other.rank());
        let (m, k) = (self.shape[r - 2 + usize::from(turned)], self.shape[r - 1 - usize::from(turned)]);
        let n = other.shape[q - 1 - usize::from(turned_other)];
        if q == 2 && r > 2 && !turned {
            // One large product instead of a batch of small ones.
            let rows = self.count() / k.max(1);
            let mut shape = self.shape[..r - 1].to_vec();
            shape.push(n);
            return self.reshape(&[rows, k]).product(false, other, turned_other).reshape(&shape);
        }
        let batch = broadcast(&self.shape[..r - 2], &other.shape[..q - 2]).expect("shapes were checked by infer");
        let shape = [&batch[..], &[m, n]].concat();
        let (Some(a), Some(b)) = (self.slice(), other.slice()) else {
            return self.through_burn(turned, other, turned_other, &batch, shape);
        };
        let sizes = Sizes { rows: m, inner: k, columns: n, turned: [turned, turned_other] };
        let count = batch.iter().product();
        let (of_a, of_b) = (Numbers::new(&self.shape[..r - 2], &batch), Numbers::new(&other.shape[..q - 2], &batch));
        Self::build(&shape, |c| products(sizes, count, &a, &b, |i| (of_a.at(i), of_b.at(i)), c))
    }

    fn through_burn(&self, turned: bool, other: &Self, turned_other: bool, batch: &[usize], shape: Vec<usize>) -> Self {
        let pad = |t: &Self, turned: bool| {
            let mut s = vec![1; batch.len() + 2 - t.rank()];
            s.extend_from_slice(&t.shape);
            let t = t.reshape(&s);
            if turned { t.transpose_last() } else { t }.tensor()
        };
        Self::wrap(Dispatch::float_matmul(pad(self, turned), pad(other, turned_other)), shape)
    }

    /// `op(self) · op(other)` of matrices, finished: the bias is added to each row. `None` where the operands are not in
    /// memory.
    pub(crate) fn linear(&self, turned: bool, other: &Self, turned_other: bool, finish: Finish<'_>) -> Option<Self> {
        let (a, b) = (self.slice()?, other.slice()?);
        let (bias, residual) = (finish.bias.map(Self::slice), finish.residual.map(Self::slice));
        if matches!(bias, Some(None)) || matches!(residual, Some(None)) {
            return None;
        }
        let (bias, residual) = (bias.flatten(), residual.flatten());
        let matrix = |data, shape: &[usize], turned: bool| {
            let stored = Matrix::new(data, shape[0], shape[1]);
            if turned { stored.transposed() } else { stored }
        };
        let (left, right) = (matrix(&a, &self.shape, turned), matrix(&b, &other.shape, turned_other));
        let epilogue = Epilogue { bias: bias.as_deref(), residual: residual.as_deref(), activation: finish.activation };
        Some(Self::build(&[left.rows, right.columns], |c| product(left, right, epilogue, c)))
    }
}

/// For each number of a matrix in the broadcast batch, its number in an operand.
struct Numbers {
    /// Sizes of the batch and steps in the operand, last axis first; empty where both batches are the same.
    axes: Vec<(usize, usize)>,
}

impl Numbers {
    fn new(own: &[usize], batch: &[usize]) -> Self {
        if own == batch {
            return Self { axes: Vec::new() };
        }
        let mut axes = Vec::with_capacity(batch.len());
        let mut step = 1;
        for (i, &size) in batch.iter().rev().enumerate() {
            let own = if i < own.len() { own[own.len() - 1 - i] } else { 1 };
            axes.push((size, if own == 1 { 0 } else { step }));
            step *= own;
        }
        Self { axes }
    }

    fn at(&self, mut number: usize) -> usize {
        if self.axes.is_empty() {
            return number;
        }
        let mut at = 0;
        for &(size, step) in &self.axes {
            at += number % size * step;
            number /= size;
        }
        at
    }
}
