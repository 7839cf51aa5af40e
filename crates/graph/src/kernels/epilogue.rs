//! What is applied to the result of a product or convolution before it is written.

use pulp::Simd;

/// `y = activation(sum + bias[channel] + residual)`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Epilogue<'a> {
    /// One number per channel.
    pub(crate) bias: Option<&'a [f32]>,
    /// Of the output's shape.
    pub(crate) residual: Option<&'a [f32]>,
    /// Applied last.
    pub(crate) activation: Activation,
}

/// An activation of one argument. NaN stays NaN.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) enum Activation {
    /// None.
    #[default]
    Identity,
    /// Between two numbers. ReLU is `Clamp(0, ∞)`.
    Clamp(f32, f32),
    /// `x · min(max(x / 6 + 1/2, 0), 1)`.
    HardSwish,
}

impl Activation {
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        match self {
            Self::Identity => x,
            Self::Clamp(low, high) => clamp(simd, x, low, high),
            Self::HardSwish => {
                let part = simd.mul_add_e_f32s(x, simd.splat_f32s(1.0 / 6.0), simd.splat_f32s(0.5));
                // The lower bound keeps -∞ · 0 away.
                simd.mul_f32s(clamp(simd, x, -3.0, f32::INFINITY), clamp(simd, part, 0.0, 1.0))
            }
        }
    }

    /// Writes `activation(from + bias + residual)`; all slices have one length.
    #[inline(always)]
    pub(crate) fn write<S: Simd>(self, simd: S, from: &[f32], bias: f32, residual: Option<&[f32]>, to: &mut [f32]) {
        let bias = simd.splat_f32s(bias);
        for (i, (to, from)) in to.chunks_mut(S::F32_LANES).zip(from.chunks(S::F32_LANES)).enumerate() {
            let mut x = simd.add_f32s(simd.partial_load_f32s(from), bias);
            if let Some(residual) = residual {
                let at = i * S::F32_LANES;
                x = simd.add_f32s(x, simd.partial_load_f32s(&residual[at..at + to.len()]));
            }
            simd.partial_store_f32s(to, self.apply(simd, x));
        }
    }
}

/// NaN stays NaN: both comparisons are false.
#[inline(always)]
pub(crate) fn clamp<S: Simd>(simd: S, x: S::f32s, low: f32, high: f32) -> S::f32s {
    let (low, high) = (simd.splat_f32s(low), simd.splat_f32s(high));
    let x = simd.select_f32s(simd.less_than_f32s(x, low), low, x);
    simd.select_f32s(simd.greater_than_f32s(x, high), high, x)
}
