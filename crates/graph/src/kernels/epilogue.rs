//! What is applied to the result of a product or convolution before it is written.

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

/// An activation of one argument.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) enum Activation {
    /// None.
    #[default]
    Identity,
    /// Between two numbers; NaN stays NaN. ReLU is `Clamp(0, ∞)`.
    Clamp(f32, f32),
    /// `x · min(max(x / 6 + 1/2, 0), 1)`.
    HardSwish,
}
