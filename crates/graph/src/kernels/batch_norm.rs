//! Batch normalisation per channel with statistics of the batch (Ioffe and Szegedy, arXiv:1502.03167, algorithm 1).
//!
//! One pass over x finds mean and variance: each plane's own, joined in double precision as they go by (Chan, Golub and
//! LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979, equations 2.1). On the way
//! back the same pass also finds the sums of the gradient and of its products with x, so both are read twice in all.

#![allow(clippy::needless_range_loop, reason = "constant numbers keep vectors in registers")]

use std::ops::Range;

use super::collected;
use super::elementwise::pieces;
use super::reduce::{LANES, sum, total};
use super::vectors::arch;

/// Elements that are summed before they join the others; they stay in the first-level cache for a second look.
const BLOCK: usize = 4096;
/// Elements of one task that writes.
const TASK: usize = 1 << 15;
/// Tasks from which channels are not divided any more.
const TASKS: usize = 32;
/// Least places of a plane for which its own sums pay.
const LEAST: usize = 8;

/// Sizes of `[batch, channels, places]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    pub(crate) places: usize,
}

/// Mean and variance of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Line {
    pub(crate) mean: f32,
    pub(crate) variance: f32,
}

/// Gradients of scale and bias.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gradients {
    pub(crate) scale: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// Whether planes are large enough.
pub(crate) fn fits(s: Sizes) -> bool {
    s.places >= LEAST && s.batch > 0 && s.channels > 0
}

/// Mean and variance (over the population) of each channel.
pub(crate) fn statistics(s: Sizes, x: &[f32]) -> Vec<Line> {
    let all = moments(s, x, None);
    all.iter().map(|m| Line { mean: m.mean as f32, variance: m.variance() as f32 }).collect()
}

/// `y = (x − mean) / √(variance + ε) · scale + bias`.
pub(crate) fn forward(s: Sizes, x: &[f32], of: &[Line], epsilon: f32, scale: &[f32], bias: &[f32], y: &mut [f32]) {
    assert!(x.len() == y.len() && [of.len(), scale.len(), bias.len()].iter().all(|&n| n == s.channels));
    let each = (TASK / s.places).max(1) * s.places;
    pieces(y, each, |at, y| {
        let x = &x[at..at + y.len()];
        arch().dispatch(
            #[inline(always)]
            || {
                for (i, (x, y)) in x.chunks_exact(s.places).zip(y.chunks_exact_mut(s.places)).enumerate() {
                    let c = (at / s.places + i) % s.channels;
                    let (mean, bias) = (of[c].mean, bias[c]);
                    let factor = scale[c] / (of[c].variance + epsilon).sqrt();
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = (x - mean) * factor + bias;
                    }
                }
            },
        );
    });
}

/// Gradients of [`forward`] with the statistics of x itself, from the output's gradient `g`:
/// `dx = scale / √(variance + ε) · (g − mean(g) − x̂ · mean(g · x̂))`. Without `dx` only those of scale and bias.
pub(crate) fn backward(
    s: Sizes,
    x: &[f32],
    epsilon: f32,
    scale: &[f32],
    g: &[f32],
    dx: Option<&mut [f32]>,
) -> Gradients {
    assert!(x.len() == g.len() && scale.len() == s.channels);
    let all = moments(s, x, Some(g));
    let inverse = |m: &Moments| 1.0 / (m.variance() + f64::from(epsilon)).sqrt();
    if let Some(dx) = dx {
        // d = a (g − mean of g) + b (x − mean)
        let of = |(m, &scale): (&Moments, &f32)| {
            let factor = f64::from(scale) * inverse(m);
            let slope = -factor * inverse(m).powi(2) * m.along / m.count;
            [factor as f32, (m.total / m.count) as f32, slope as f32, m.mean as f32]
        };
        let lines: Vec<[f32; 4]> = all.iter().zip(scale).map(of).collect();
        write_back(s, x, g, &lines, dx);
    }
    Gradients {
        scale: all.iter().map(|m| (m.along * inverse(m)) as f32).collect(),
        bias: all.iter().map(|m| m.total as f32).collect(),
    }
}

fn write_back(s: Sizes, x: &[f32], g: &[f32], lines: &[[f32; 4]], dx: &mut [f32]) {
    let each = (TASK / s.places).max(1) * s.places;
    pieces(dx, each, |at, dx| {
        let (x, g) = (&x[at..at + dx.len()], &g[at..at + dx.len()]);
        arch().dispatch(
            #[inline(always)]
            || {
                let planes = x.chunks_exact(s.places).zip(g.chunks_exact(s.places));
                for (i, (dx, (x, g))) in dx.chunks_exact_mut(s.places).zip(planes).enumerate() {
                    let [factor, level, slope, mean] = lines[(at / s.places + i) % s.channels];
                    for ((d, &x), &g) in dx.iter_mut().zip(x).zip(g) {
                        *d = factor * (g - level) + slope * (x - mean);
                    }
                }
            },
        );
    });
}

/// What is known of some values x, and of as many gradients g.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    /// `Σ (x − mean)²`
    squares: f64,
    /// `Σ g`
    total: f64,
    /// `Σ g (x − mean)`
    along: f64,
}

impl Moments {
    fn variance(&self) -> f64 {
        self.squares / self.count
    }

    fn join(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0.0 {
            return self;
        }
        let apart = other.mean - self.mean;
        let share = other.count / count;
        let mean = self.mean + apart * share;
        Self {
            count,
            mean,
            squares: self.squares + other.squares + apart * apart * self.count * share,
            total: self.total + other.total,
            along: self.along + (self.mean - mean) * self.total + other.along + (other.mean - mean) * other.total,
        }
    }
}

/// Of each channel. Divided among tasks by channels, and by images where there are few of those.
fn moments(s: Sizes, x: &[f32], g: Option<&[f32]>) -> Vec<Moments> {
    assert!(x.len() == s.batch * s.channels * s.places, "shapes were checked by infer");
    let parts = (TASKS / s.channels).clamp(1, s.batch);
    let images_each = s.batch.div_ceil(parts);
    let parts = s.batch.div_ceil(images_each);
    let operations = x.len() * if g.is_some() { 16 } else { 8 };
    let found = collected(s.channels * parts, operations, |task| {
        let (channel, part) = (task / parts, task % parts);
        let images = part * images_each..((part + 1) * images_each).min(s.batch);
        arch().dispatch(
            #[inline(always)]
            || channel_moments(s, x, g, channel, images),
        )
    });
    found.chunks_exact(parts).map(|p| p.iter().fold(Moments::default(), |a, &b| a.join(b))).collect()
}

#[inline(always)]
fn channel_moments(s: Sizes, x: &[f32], g: Option<&[f32]>, channel: usize, images: Range<usize>) -> Moments {
    let mut all = Moments::default();
    for image in images {
        let at = (image * s.channels + channel) * s.places;
        for first in (at..at + s.places).step_by(BLOCK) {
            let range = first..(first + BLOCK).min(at + s.places);
            all = all.join(match g {
                None => block(&x[range]),
                Some(g) => block_with(&x[range.clone()], &g[range]),
            });
        }
    }
    all
}

/// Of a few values.
#[inline(always)]
fn block(x: &[f32]) -> Moments {
    let mean = sum(x) / x.len() as f32;
    let mut parts = [0.0f32; LANES];
    let lines = x.chunks_exact(LANES);
    let rest = lines.remainder();
    for x in lines {
        for (p, &x) in parts.iter_mut().zip(x) {
            *p += (x - mean) * (x - mean);
        }
    }
    parts.iter_mut().zip(rest).for_each(|(p, &x)| *p += (x - mean) * (x - mean));
    Moments { count: x.len() as f64, mean: mean.into(), squares: total(parts).into(), ..Moments::default() }
}

/// Of a few values and their gradients.
#[inline(always)]
fn block_with(x: &[f32], g: &[f32]) -> Moments {
    let mean = sum(x) / x.len() as f32;
    let (mut squares, mut totals, mut along) = ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
    let (lines, others) = (x.chunks_exact(LANES), g.chunks_exact(LANES));
    let (rest, other) = (lines.remainder(), others.remainder());
    for (x, g) in lines.zip(others) {
        for i in 0..LANES {
            squares[i] += (x[i] - mean) * (x[i] - mean);
            totals[i] += g[i];
            along[i] += g[i] * (x[i] - mean);
        }
    }
    for (i, (&x, &g)) in rest.iter().zip(other).enumerate() {
        squares[i] += (x - mean) * (x - mean);
        totals[i] += g;
        along[i] += g * (x - mean);
    }
    Moments {
        count: x.len() as f64,
        mean: mean.into(),
        squares: total(squares).into(),
        total: total(totals).into(),
        along: total(along).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, in_pools, values};
    use super::*;

    /// Odd sizes, one image, one channel, planes of more than a block, more channels than tasks.
    const SIZES: [[usize; 3]; 8] =
        [[1, 1, 8], [2, 3, 9], [5, 4, 49], [3, 1, 5000], [7, 40, 16], [64, 2, 35], [1, 33, 4097], [9, 5, 31]];

    /// Values around a level, as far from it as `values` are from 0.
    fn around(n: usize, seed: usize, level: f32) -> Vec<f32> {
        values(n, seed).into_iter().map(|v| v + level).collect()
    }

    #[test]
    fn values_and_gradients_match_float64() {
        for [batch, channels, places] in SIZES {
            let s = Sizes { batch, channels, places };
            let n = batch * channels * places;
            let (x, g) = (around(n, 3, 1.5), around(n, 8, 0.25));
            let (scale, bias) = (around(channels, 1, 0.3), values(channels, 2));
            let epsilon = 1e-3;
            let of = statistics(s, &x);
            let (mut y, mut dx) = (vec![f32::NAN; n], vec![f32::NAN; n]);
            forward(s, &x, &of, epsilon, &scale, &bias, &mut y);
            let got = backward(s, &x, epsilon, &scale, &g, Some(&mut dx));
            assert_eq!(got, backward(s, &x, epsilon, &scale, &g, None));
            let (mut wy, mut wx) = (vec![0.0; n], vec![0.0; n]);
            let (mut ws, mut wb, mut wm, mut wv) = (vec![], vec![], vec![], vec![]);
            for c in 0..channels {
                let at: Vec<usize> = (0..n).filter(|i| i / places % channels == c).collect();
                let mean_of = |f: &dyn Fn(usize) -> f64| at.iter().map(|&i| f(i)).sum::<f64>() / at.len() as f64;
                let mean = mean_of(&|i| f64::from(x[i]));
                let variance = mean_of(&|i| (f64::from(x[i]) - mean).powi(2));
                let inverse = 1.0 / (variance + f64::from(epsilon)).sqrt();
                let unit = |i: usize| (f64::from(x[i]) - mean) * inverse;
                let level = mean_of(&|i| f64::from(g[i]));
                let along = mean_of(&|i| f64::from(g[i]) * unit(i));
                for &i in &at {
                    wy[i] = unit(i) * f64::from(scale[c]) + f64::from(bias[c]);
                    wx[i] = f64::from(scale[c]) * inverse * (f64::from(g[i]) - level - unit(i) * along);
                }
                ws.push(along * at.len() as f64);
                wb.push(level * at.len() as f64);
                wm.push(mean);
                wv.push(variance);
            }
            let (means, variances): (Vec<f32>, Vec<f32>) = of.iter().map(|l| (l.mean, l.variance)).unzip();
            close(&means, &wm, 1e-6, &format!("{s:?}, mean"));
            close(&variances, &wv, 2e-6, &format!("{s:?}, variance"));
            close(&y, &wy, 2e-6, &format!("{s:?}, y"));
            close(&dx, &wx, 1e-5, &format!("{s:?}, x"));
            close(&got.scale, &ws, 1e-5, &format!("{s:?}, scale"));
            close(&got.bias, &wb, 2e-6, &format!("{s:?}, bias"));
        }
    }

    #[test]
    fn a_large_mean_does_not_hide_the_variance() {
        let s = Sizes { batch: 6, channels: 1, places: 64 };
        let x: Vec<f32> = (0..384).map(|i| 10_000.0 + (i % 2) as f32).collect();
        let of = statistics(s, &x);
        let mut y = vec![0.0; 384];
        forward(s, &x, &of, 0.0, &[1.0], &[0.0], &mut y);
        assert!((of[0].variance - 0.25).abs() < 1e-5, "{of:?}");
        assert!(y.iter().all(|y| (y.abs() - 1.0).abs() < 2e-3), "{y:?}");
    }

    #[test]
    fn what_is_not_finite_stays_in_its_channel() {
        let s = Sizes { batch: 2, channels: 2, places: 20 };
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = values(80, 1);
            x[25] = bad;
            let of = statistics(s, &x);
            assert!(of[1].variance.is_nan() && of[0].variance.is_finite());
            let (mut y, mut dx) = (vec![0.0; 80], vec![0.0; 80]);
            forward(s, &x, &of, 1e-5, &[1.0; 2], &[0.0; 2], &mut y);
            backward(s, &x, 1e-5, &[1.0; 2], &values(80, 2), Some(&mut dx));
            for i in 0..80 {
                let spoilt = i / 20 % 2 == 1;
                assert!(y[i].is_nan() == spoilt && dx[i].is_nan() == spoilt, "{bad} at {i}: {} {}", y[i], dx[i]);
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        for [batch, channels, places] in SIZES.into_iter().chain([[32, 3, 3000]]) {
            let s = Sizes { batch, channels, places };
            let n = batch * channels * places;
            let (x, g, scale) = (values(n, 3), values(n, 8), values(channels, 1));
            in_pools(&format!("{s:?}"), || {
                let (mut y, mut dx) = (vec![0.0; n], vec![0.0; n]);
                forward(s, &x, &statistics(s, &x), 1e-5, &scale, &scale, &mut y);
                let all = backward(s, &x, 1e-5, &scale, &g, Some(&mut dx));
                [y, dx, all.scale, all.bias].concat()
            });
        }
    }
}
