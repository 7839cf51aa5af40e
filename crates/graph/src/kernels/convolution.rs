//! Convolutions over two spatial axes and their gradients.

use super::direct::{Direct, Target};
use super::epilogue::Epilogue;

pub(crate) use super::weights::weight_gradient;

/// Sizes of a convolution over two spatial axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) batch: usize,
    /// Channels of one group.
    pub(crate) inside: usize,
    /// Output channels of one group.
    pub(crate) outside: usize,
    pub(crate) groups: usize,
    pub(crate) input: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) output: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    /// Padding at the beginning of each axis.
    pub(crate) padding: [usize; 2],
}

impl Shape {
    fn input_plane(&self) -> usize {
        self.input[0] * self.input[1]
    }

    fn output_plane(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// One row in place of an image where every element stands for itself alone.
    pub(crate) fn flattened(mut self) -> Self {
        let same = self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0];
        if same && self.input == self.output {
            self.input = [1, self.input_plane()];
            self.output = self.input;
        }
        self
    }
}

/// Cross-correlation. `x [batch, groups · inside, input]`, `weight [groups · outside, inside, kernel]`,
/// `y [batch, groups · outside, output]`.
pub(crate) fn forward(shape: Shape, x: &[f32], weight: &[f32], epilogue: Epilogue<'_>, y: &mut [f32]) {
    let s = shape.flattened();
    let mut taps = Vec::with_capacity(s.kernel[0] * s.kernel[1]);
    for ky in 0..s.kernel[0] {
        for kx in 0..s.kernel[1] {
            let at = |axis: usize, k: usize| (k * s.dilation[axis]) as isize - s.padding[axis] as isize;
            taps.push((at(0, ky), at(1, kx)));
        }
    }
    let plane = s.output_plane();
    let target = Target {
        start: 0,
        image: s.groups * s.outside * plane,
        plane,
        down: s.output[1],
        right: 1,
    };
    let Shape { batch, groups, inside, outside, .. } = s;
    let direct = Direct {
        batch,
        groups,
        inside,
        outside,
        size: s.input,
        grid: s.output,
        step: s.stride,
        taps: &taps,
        weight,
        target,
        epilogue,
    };
    direct.run(x, y);
}

/// The gradient of the input: for each of the `stride[0] · stride[1]` ways in which places of the input meet the kernel,
/// a sum over the taps that they meet.
pub(crate) fn input_gradient(shape: Shape, gradient: &[f32], weight: &[f32], x: &mut [f32]) {
    let s = shape.flattened();
    let [kh, kw] = s.kernel;
    let plane = s.input_plane();
    for phase in 0..s.stride[0] * s.stride[1] {
        let phase = [phase / s.stride[1], phase % s.stride[1]];
        let grid: [usize; 2] = std::array::from_fn(|i| s.input[i].saturating_sub(phase[i]).div_ceil(s.stride[i]));
        if grid.contains(&0) {
            continue;
        }
        // Place `phase + stride · i` of the input meets tap `k` at place `i + (phase + padding - dilation · k) / stride`.
        let meets = |axis: usize, k: usize| {
            let at = (phase[axis] + s.padding[axis]) as isize - (s.dilation[axis] * k) as isize;
            (at.rem_euclid(s.stride[axis] as isize) == 0).then(|| at.div_euclid(s.stride[axis] as isize))
        };
        let (mut taps, mut places) = (Vec::new(), Vec::new());
        for ky in 0..kh {
            for kx in 0..kw {
                if let (Some(down), Some(right)) = (meets(0, ky), meets(1, kx)) {
                    taps.push((down, right));
                    places.push(ky * kw + kx);
                }
            }
        }
        // The weights of the taps that are met, row by row of the input's channels.
        let mut turned = Vec::with_capacity(s.groups * s.inside * s.outside * taps.len());
        for group in 0..s.groups {
            for c in 0..s.inside {
                for o in 0..s.outside {
                    let at = ((group * s.outside + o) * s.inside + c) * kh * kw;
                    turned.extend(places.iter().map(|&p| weight[at + p]));
                }
            }
        }
        let target = Target {
            start: phase[0] * s.input[1] + phase[1],
            image: s.groups * s.inside * plane,
            plane,
            down: s.stride[0] * s.input[1],
            right: s.stride[1],
        };
        let direct = Direct {
            batch: s.batch,
            groups: s.groups,
            inside: s.outside,
            outside: s.inside,
            size: s.output,
            grid,
            step: [1, 1],
            taps: &taps,
            weight: &turned,
            target,
            epilogue: Epilogue::default(),
        };
        direct.run(gradient, x);
    }
}
