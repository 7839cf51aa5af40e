//! What is applied to the result of a product or convolution before it is written.

use pulp::Simd;

use super::math::{Function, at_least, clamp};

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

impl Function for Activation {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        match self {
            Self::Identity => x,
            Self::Clamp(low, f32::INFINITY) => at_least(simd, x, low),
            Self::Clamp(low, high) => clamp(simd, x, low, high),
            Self::HardSwish => {
                let part = simd.mul_add_e_f32s(x, simd.splat_f32s(1.0 / 6.0), simd.splat_f32s(0.5));
                // What becomes of NaN here does not count: the other factor keeps it.
                let part = simd.min_f32s(simd.max_f32s(part, simd.splat_f32s(0.0)), simd.splat_f32s(1.0));
                // The lower bound keeps -∞ · 0 away.
                simd.mul_f32s(at_least(simd, x, -3.0), part)
            }
        }
    }
}
