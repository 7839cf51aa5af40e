//! What is applied to the result of a product or convolution before it is written.

use pulp::Simd;

use super::math::{Function, clamp};

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
            Self::Clamp(low, high) => clamp(simd, x, low, high),
            Self::HardSwish => {
                let part = simd.mul_add_e_f32s(x, simd.splat_f32s(1.0 / 6.0), simd.splat_f32s(0.5));
                // The lower bound keeps -∞ · 0 away.
                simd.mul_f32s(clamp(simd, x, -3.0, f32::INFINITY), clamp(simd, part, 0.0, 1.0))
            }
        }
    }
}
