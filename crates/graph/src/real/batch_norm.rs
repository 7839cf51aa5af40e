//! Batch normalisation in memory; `None` where a tensor is elsewhere, or where planes are too small for the kernel.

use super::Real;
use crate::kernels::batch_norm::{self, Line, Sizes};

/// Mean and variance of each channel of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Statistics(Vec<Line>);

impl Statistics {
    /// Those that were kept, for evaluation.
    pub(crate) fn kept(mean: &Real, variance: &Real) -> Option<Self> {
        let (mean, variance) = (mean.slice()?, variance.slice()?);
        Some(Self(mean.iter().zip(variance.iter()).map(|(&mean, &variance)| Line { mean, variance }).collect()))
    }

    /// Mean and variance, each of the given shape.
    pub(crate) fn tensors(&self, shape: &[usize]) -> (Real, Real) {
        let of = |f: fn(&Line) -> f32| Real::hosted(self.0.iter().map(f).collect::<Vec<_>>().into(), shape);
        (of(|l| l.mean), of(|l| l.variance))
    }
}

impl Real {
    fn channels(&self) -> Option<Sizes> {
        let [batch, channels, places @ ..] = self.shape() else { return None };
        let s = Sizes { batch: *batch, channels: *channels, places: places.iter().product() };
        batch_norm::fits(s).then_some(s)
    }

    /// Mean and variance of each channel of `[n, c, ...]`.
    pub(crate) fn channel_statistics(&self) -> Option<Statistics> {
        let (s, x) = (self.channels()?, self.slice()?);
        Some(Statistics(batch_norm::statistics(s, &x)))
    }

    /// `(x − mean) / √(variance + ε) · scale + bias` with one number of each per channel.
    pub(crate) fn batch_norm(&self, of: &Statistics, epsilon: f32, scale: &Self, bias: &Self) -> Option<Self> {
        let (s, x, scale, bias) = (self.channels()?, self.slice()?, scale.slice()?, bias.slice()?);
        Some(Self::build(&self.shape, |y| batch_norm::forward(s, &x, &of.0, epsilon, &scale, &bias, y)))
    }

    /// Gradients of [`Real::batch_norm`] with the statistics of this batch, of x only where `wanted`, of scale and bias.
    pub(crate) fn batch_norm_backward(
        &self,
        epsilon: f32,
        scale: &Self,
        gradient: &Self,
        wanted: bool,
    ) -> Option<(Option<Self>, Self, Self)> {
        let (s, x, scale, g) = (self.channels()?, self.slice()?, scale.slice()?, gradient.slice()?);
        let mut found = None;
        let mut of_x = None;
        if wanted {
            of_x = Some(Self::build(&self.shape, |dx| {
                found = Some(batch_norm::backward(s, &x, epsilon, &scale, &g, Some(dx)));
            }));
        }
        let found = found.unwrap_or_else(|| batch_norm::backward(s, &x, epsilon, &scale, &g, None));
        let line = |v: Vec<f32>| Self::hosted(v.into(), &[s.channels]);
        Some((of_x, line(found.scale), line(found.bias)))
    }
}
