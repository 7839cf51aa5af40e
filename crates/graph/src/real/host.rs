//! Operations in memory by our own kernels; `None` where a tensor is elsewhere, so that Burn computes it.

use std::borrow::Cow;

use super::{Real, Store, broadcast};
use crate::kernels::math::{Function, Function2};
use crate::kernels::{elementwise, layer_norm, layout, pool, reduce, softmax};

/// How a smaller operand repeats: its elements, in the middle of `inner` each, over and over.
struct Repeat {
    inner: usize,
}

impl Repeat {
    /// For an operand whose axes other than 1 are a run of the result's axes.
    fn new(small: &[usize], result: &[usize]) -> Option<Self> {
        let lead = result.len() - small.len();
        let own: Vec<usize> = (0..small.len()).filter(|&i| small[i] != 1).collect();
        let (Some(&first), Some(&last)) = (own.first(), own.last()) else {
            return Some(Self { inner: result.iter().product() });
        };
        let run = (first..=last).all(|i| small[i] == result[lead + i]);
        run.then(|| Self { inner: result[lead + last + 1..].iter().product() })
    }
}

impl Real {
    pub(super) fn map(&self, f: impl Fn(f32) -> f32 + Copy + Sync + Send) -> Option<Self> {
        let x = self.slice()?;
        Some(Self::build(&self.shape, |y| elementwise::map(&x, y, f)))
    }

    /// [`Real::map`] of a function that is more than a few operations.
    pub(super) fn compute(&self, f: impl Function) -> Option<Self> {
        let x = self.slice()?;
        Some(Self::build(&self.shape, |y| elementwise::compute(f, &x, y)))
    }

    /// Likewise of two tensors of one shape.
    pub(super) fn compute2(&self, other: &Self, f: impl Function2) -> Option<Self> {
        let (a, b) = (self.slice()?, other.slice()?);
        Some(Self::build(&self.shape, |y| elementwise::compute2(f, &a, &b, y)))
    }

    /// `f` on elements that numpy broadcasting brings together.
    pub(crate) fn zip(&self, other: &Self, f: impl Fn(f32, f32) -> f32 + Copy + Sync + Send) -> Option<Self> {
        let (a, b) = (self.slice()?, other.slice()?);
        if self.shape == other.shape {
            return Some(Self::build(&self.shape, |y| elementwise::zip(&a, &b, y, f)));
        }
        let shape = broadcast(&self.shape, &other.shape)?;
        if shape[..] == self.shape[..]
            && let Some(r) = Repeat::new(&other.shape, &shape)
        {
            return Some(Self::build(&shape, |y| elementwise::broadcast(&a, &b, r.inner, y, f)));
        }
        if shape[..] == other.shape[..]
            && let Some(r) = Repeat::new(&self.shape, &shape)
        {
            return Some(Self::build(&shape, |y| elementwise::broadcast(&b, &a, r.inner, y, move |b, a| f(a, b))));
        }
        self.expand(&shape).zip(&other.expand(&shape), f)
    }

    /// Adds another tensor of the same shape, in place where nobody else has this one.
    pub(crate) fn added(mut self, other: &Self) -> Self {
        if self.shape == other.shape
            && let Some(b) = other.slice()
            && let Some(a) = self.slice_mut()
        {
            elementwise::update(a, &b, |a, b| a + b);
            return self;
        }
        self.add(other)
    }

    /// A kernel over rows, where the axis is the last one, apart from axes of 1.
    pub(super) fn rows(&self, axis: usize, kernel: impl FnOnce(usize, &[f32], &mut [f32])) -> Option<Self> {
        if self.shape[axis + 1..].iter().any(|&d| d != 1) {
            return None;
        }
        let x = self.slice()?;
        Some(Self::build(&self.shape, |y| kernel(self.shape[axis], &x, y)))
    }

    /// Softmax of the tensor times a positive number.
    pub(crate) fn scaled_softmax(&self, axis: usize, factor: f32) -> Option<Self> {
        self.rows(axis, |n, x, y| softmax::softmax(n, factor, x, y))
    }

    /// Gradient of a softmax over the last axis; `self` is its output.
    pub(crate) fn softmax_backward(&self, gradient: &Self, axis: usize) -> Option<Self> {
        let g = gradient.slice()?;
        self.rows(axis, |n, y, dx| softmax::softmax_gradient(n, 1.0, y, &g, dx))
    }

    /// Gradient of a log-softmax over the last axis; `self` is its output.
    pub(crate) fn log_softmax_backward(&self, gradient: &Self, axis: usize) -> Option<Self> {
        let g = gradient.slice()?;
        self.rows(axis, |n, y, dx| softmax::log_softmax_gradient(n, y, &g, dx))
    }

    /// The elements `start + Σ index · step`: where they lie, if they are neighbours, else a copy.
    pub(super) fn strided(&self, start: usize, sizes: &[usize], steps: &[usize]) -> Option<Self> {
        let in_order = layout::steps(sizes);
        if let Store::Host(buffer) = &self.store
            && sizes.iter().zip(steps.iter().zip(in_order)).all(|(&size, (&step, own))| size == 1 || step == own)
        {
            return Some(Self::hosted(buffer.view(start, sizes.iter().product()), sizes));
        }
        let x = self.slice()?;
        Some(Self::build(sizes, |y| layout::strided(&x, start, sizes, steps, y)))
    }

    pub(super) fn joined(parts: &[Self], axis: usize, shape: &[usize]) -> Option<Self> {
        let slices: Vec<Cow<'_, [f32]>> = parts.iter().map(Self::slice).collect::<Option<_>>()?;
        let inner = shape[axis + 1..].iter().product();
        Some(Self::build(shape, |y| {
            let mut at = 0;
            for (part, x) in parts.iter().zip(slices) {
                layout::place(&x, part.shape[axis], inner, at, shape[axis], y);
                at += part.shape[axis];
            }
        }))
    }

    pub(super) fn summed(&self, axes: &[usize]) -> Option<Self> {
        let mut axes: Vec<usize> = axes.iter().copied().filter(|&a| self.shape[a] != 1).collect();
        axes.sort_unstable();
        let mut x = self.clone();
        // From the last axis on, neighbours at once.
        while let Some(last) = axes.pop() {
            let mut first = last;
            while axes.last().is_some_and(|&a| a + 1 == first) {
                first = axes.pop()?;
            }
            let mid = x.shape[first..=last].iter().product();
            let inner = x.shape[last + 1..].iter().product();
            let mut shape = x.shape.to_vec();
            shape[first..=last].fill(1);
            let values = x.slice()?;
            let y = Self::build(&shape, |y| reduce::sum_axis(&values, mid, inner, y));
            drop(values);
            x = y;
        }
        x.slice().is_some().then_some(x)
    }

    /// Layer normalisation over the last `n` elements, which the scale and the bias have one number each of.
    pub(crate) fn layer_norm(&self, n: usize, epsilon: f32, scale: &Self, bias: Option<&Self>) -> Option<Self> {
        if scale.count() != n || bias.is_some_and(|b| b.count() != n) {
            return None;
        }
        let (x, scale) = (self.slice()?, scale.slice()?);
        let bias = match bias {
            Some(b) => Some(b.slice()?),
            None => None,
        };
        Some(Self::build(&self.shape, |y| layer_norm::forward(n, epsilon, &x, &scale, bias.as_deref(), y)))
    }

    /// Gradients of [`Real::layer_norm`]: of x where it is wanted, and of the scale and the bias, `n` each, where they are.
    pub(crate) fn layer_norm_backward(
        &self,
        n: usize,
        epsilon: f32,
        scale: &Self,
        gradient: &Self,
        wanted: [bool; 2],
    ) -> Option<[Option<Self>; 3]> {
        if scale.count() != n {
            return None;
        }
        let (x, scale, g) = (self.slice()?, scale.slice()?, gradient.slice()?);
        let mut parts = [None, None, None];
        let mut make = |dx: Option<&mut [f32]>| {
            let (mut of_scale, mut of_bias) = (vec![0.0; n], vec![0.0; n]);
            let parameters = wanted[1].then_some((&mut of_scale[..], &mut of_bias[..]));
            layer_norm::backward(n, epsilon, &x, &scale, &g, layer_norm::Gradients { x: dx, parameters });
            if wanted[1] {
                parts[1] = Some(Self::hosted(of_scale.into(), &[n]));
                parts[2] = Some(Self::hosted(of_bias.into(), &[n]));
            }
        };
        if wanted[0] {
            let dx = Self::build(&self.shape, |dx| make(Some(dx)));
            parts[0] = Some(dx);
        } else {
            make(None);
        }
        Some(parts)
    }

    /// Maxima of windows of planes `[n, c, ...]`.
    pub(crate) fn max_pool(&self, p: pool::Pool, shape: &[usize]) -> Option<Self> {
        let x = self.slice()?;
        Some(Self::build(shape, |y| pool::forward(p, &x, y)))
    }

    /// Gradient of [`Real::max_pool`]; `self` is its input.
    pub(crate) fn max_pool_backward(&self, p: pool::Pool, gradient: &Self) -> Option<Self> {
        let (x, g) = (self.slice()?, gradient.slice()?);
        Some(Self::build(&self.shape, |dx| pool::backward(p, &x, &g, dx)))
    }
}
