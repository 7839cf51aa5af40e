//! Convolutions over one or two spatial axes in memory; `None` where a tensor is elsewhere, so that Burn computes it.

use super::{Real, Window};
use crate::kernels::convolution::{self, Shape};
use crate::kernels::epilogue::{Activation, Epilogue};

/// What is applied to a product before it is written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Finish<'a> {
    /// One number per output channel.
    pub(crate) bias: Option<&'a Real>,
    /// Added after the bias; of the output's shape.
    pub(crate) residual: Option<&'a Real>,
    /// Applied last.
    pub(crate) activation: Activation,
}

/// Sizes of the kernels' view of a convolution; a single spatial axis is a plane of one row.
fn shape(x: &[usize], w: &[usize], y: &[usize], o: &Window) -> Option<Shape> {
    let two = |v: &[usize], filler: usize| match *v {
        [a] => Some([filler, a]),
        [a, b] => Some([a, b]),
        _ => None,
    };
    let begin: Vec<usize> = o.padding.iter().map(|p| p.0).collect();
    Some(Shape {
        batch: x[0],
        inside: w[1],
        outside: w[0] / o.groups,
        groups: o.groups,
        input: two(&x[2..], 1)?,
        kernel: two(&w[2..], 1)?,
        output: two(&y[2..], 1)?,
        stride: two(&o.stride, 1)?,
        dilation: two(&o.dilation, 1)?,
        padding: two(&begin, 0)?,
    })
}

impl Real {
    /// Cross-correlation with a weight `[out, in / groups, ...]`.
    pub(crate) fn correlate(&self, weight: &Self, o: &Window, finish: Finish<'_>) -> Option<Self> {
        let (x, w) = (self.slice()?, weight.slice()?);
        let (bias, residual) = (finish.bias.map(Self::slice), finish.residual.map(Self::slice));
        if matches!(bias, Some(None)) || matches!(residual, Some(None)) {
            return None;
        }
        let (bias, residual) = (bias.flatten(), residual.flatten());
        let mut y = vec![self.shape[0], weight.shape[0]];
        for i in 0..o.stride.len() {
            let extent = o.dilation[i] * (weight.shape[i + 2] - 1) + 1;
            y.push((self.shape[i + 2] + o.padding[i].0 + o.padding[i].1 - extent) / o.stride[i] + 1);
        }
        let s = shape(&self.shape, &weight.shape, &y, o)?;
        let epilogue = Epilogue { bias: bias.as_deref(), residual: residual.as_deref(), activation: finish.activation };
        Some(Self::build(&y, |y| convolution::forward(s, &x, &w, epilogue, y)))
    }

    /// The gradient of an input of [`Real::correlate`] whose spatial axes have `sizes` elements; `self` is the gradient of
    /// the output.
    pub(crate) fn correlate_input(&self, weight: &Self, o: &Window, sizes: &[usize]) -> Option<Self> {
        let (g, w) = (self.slice()?, weight.slice()?);
        let x = [&[self.shape[0], weight.shape[1] * o.groups], sizes].concat();
        let s = shape(&x, &weight.shape, &self.shape, o)?;
        Some(Self::build(&x, |x| convolution::input_gradient(s, &g, &w, x)))
    }

    /// The gradient of a weight of the given shape; `self` is the input of [`Real::correlate`].
    pub(crate) fn correlate_weight(&self, weight: &[usize], gradient: &Self, o: &Window) -> Option<Self> {
        let (x, g) = (self.slice()?, gradient.slice()?);
        let s = shape(&self.shape, weight, &gradient.shape, o)?;
        Some(Self::build(weight, |w| convolution::weight_gradient(s, &x, &g, w)))
    }
}
