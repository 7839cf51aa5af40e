//! Convolutions over two spatial axes and their gradients.

use super::direct::{Direct, Target};
use super::epilogue::Epilogue;
use super::{Shared, parallel, with_scratch};

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
    /// Where each element of the kernel meets the input, relative to a place of the output times the stride.
    pub(crate) fn taps(&self) -> Vec<(isize, isize)> {
        let at = |axis: usize, k: usize| (k * self.dilation[axis]) as isize - self.padding[axis] as isize;
        let rows = (0..self.kernel[0]).map(|k| at(0, k));
        rows.flat_map(|y| (0..self.kernel[1]).map(move |k| (y, at(1, k)))).collect()
    }

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
    let taps = s.taps();
    let plane = s.output_plane();
    let starts: Vec<usize> = (0..s.outside).map(|o| o * plane).collect();
    let (image, group) = (s.groups * s.outside * plane, s.outside * plane);
    let target = Target { image, group, starts: &starts, down: s.output[1], right: 1 };
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
    let plane = s.input_plane();
    let mut left: Vec<Phase> = (0..s.stride[0] * s.stride[1]).filter_map(|p| Phase::new(&s, p)).collect();
    while let Some(first) = left.pop() {
        // Phases that meet the kernel at the same places of the gradient are channels of one sum.
        let (same, other): (Vec<Phase>, Vec<Phase>) = left.into_iter().partition(|p| p.meets_as(&first));
        left = other;
        let phases: Vec<Phase> = std::iter::once(first).chain(same).collect();
        let first = &phases[0];
        let outside = phases.len() * s.inside;
        let line = s.outside * first.taps.len();
        with_scratch(s.groups * outside * line, |turned| {
            turn(&s, &phases, weight, turned);
            let starts: Vec<usize> = phases
                .iter()
                .flat_map(|p| (0..s.inside).map(move |c| c * plane + p.at[0] * s.input[1] + p.at[1]))
                .collect();
            let target = Target {
                image: s.groups * s.inside * plane,
                group: s.inside * plane,
                starts: &starts,
                down: s.stride[0] * s.input[1],
                right: s.stride[1],
            };
            let direct = Direct {
                batch: s.batch,
                groups: s.groups,
                inside: s.outside,
                outside,
                size: s.output,
                grid: first.grid,
                step: [1, 1],
                taps: &first.taps,
                weight: turned,
                target,
                epilogue: Epilogue::default(),
            };
            direct.run(gradient, x);
        });
    }
}

/// The weights `[groups, phases · inside, outside, taps]` of the gradient of the input.
fn turn(s: &Shape, phases: &[Phase], weight: &[f32], turned: &mut [f32]) {
    let elements = s.kernel[0] * s.kernel[1];
    let outside = phases.len() * s.inside;
    let len = turned.len() / (s.groups * outside).max(1);
    let operations = turned.len() * 4;
    let to = Shared::new(turned);
    parallel(s.groups * outside, operations, |line| {
        let (group, phase, c) = (line / outside, line % outside / s.inside, line % s.inside);
        let elements_met = &phases[phase].elements;
        // SAFETY: each channel of each phase of each group has its own line.
        let to = unsafe { to.part(line * len, len) };
        for (o, to) in to.chunks_exact_mut(elements_met.len().max(1)).enumerate() {
            let from = &weight[((group * s.outside + o) * s.inside + c) * elements..][..elements];
            for (to, &element) in to.iter_mut().zip(elements_met) {
                *to = from[element];
            }
        }
    });
}

/// Places of the input that are a stride apart, and what they meet.
struct Phase {
    /// The first place.
    at: [usize; 2],
    /// How many there are.
    grid: [usize; 2],
    /// Where the gradient is met, relative to a place, and by which elements of the kernel.
    taps: Vec<(isize, isize)>,
    elements: Vec<usize>,
}

impl Phase {
    /// `None` where there are no places.
    fn new(s: &Shape, number: usize) -> Option<Self> {
        let at = [number / s.stride[1], number % s.stride[1]];
        let grid: [usize; 2] = std::array::from_fn(|i| s.input[i].saturating_sub(at[i]).div_ceil(s.stride[i]));
        if grid.contains(&0) {
            return None;
        }
        // Place `at + stride · i` of the input meets element `k` at place `i + (at + padding - dilation · k) / stride`.
        let meets = |axis: usize, k: usize| {
            let distance = (at[axis] + s.padding[axis]) as isize - (s.dilation[axis] * k) as isize;
            let stride = s.stride[axis] as isize;
            (distance.rem_euclid(stride) == 0).then(|| distance.div_euclid(stride))
        };
        let (mut taps, mut elements) = (Vec::new(), Vec::new());
        for ky in 0..s.kernel[0] {
            for kx in 0..s.kernel[1] {
                if let (Some(down), Some(right)) = (meets(0, ky), meets(1, kx)) {
                    taps.push((down, right));
                    elements.push(ky * s.kernel[1] + kx);
                }
            }
        }
        Some(Self { at, grid, taps, elements })
    }

    fn meets_as(&self, other: &Self) -> bool {
        self.grid == other.grid && self.taps == other.taps
    }
}
