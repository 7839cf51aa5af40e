//! Direct convolution of planes: vectors run over places, weights are broadcast, and nothing is turned around.
//!
//! A task copies some images of one group into scratch memory, padded with zeros, such that a tap of the kernel is a fixed
//! offset: row `y` of all images comes before row `y + 1`, rows share the zeros between them, and a step over several
//! elements splits rows and columns into phases. Then a tile of output channels × places is a sum over taps of
//! `weight · x[place + offset]`, all in registers. Places behind the end of a row come out as garbage and are dropped when
//! the result is written, which is also where bias, residual and activation are applied.
//!
//! # Source
//! Georganas et al., "Anatomy of High-Performance Deep Learning Convolutions on SIMD Architectures", SC18 (register
//! tiles of a direct convolution); the layout, with vectors over places, is ours.
//! Scratch per thread: the padded images of a task, usually at most [`INSIDE`] floats, and 8 channels of their output.

use pulp::{Arch, Simd, WithSimd};

use super::epilogue::Epilogue;
use super::{Shared, WORTH, parallel, with_scratch};

/// Floats of padded input that one task should hold.
const INSIDE: usize = 1 << 16;
/// Elements behind the last place that vectors may read.
const SLACK: usize = 160;
/// Places that a task should have at least, so that the end of the last vector does not count.
const PLACES: usize = 512;

/// A sum over taps: `y[n, g, o, i, j] = Σ weight[g, o, c, t] · x[n, g, c, i · step + down(t), j · step + right(t)]`, where x is 0
/// outside its plane.
pub(crate) struct Direct<'a> {
    pub(crate) batch: usize,
    pub(crate) groups: usize,
    /// Channels of one group of x and of y.
    pub(crate) inside: usize,
    pub(crate) outside: usize,
    /// Rows and columns of x.
    pub(crate) size: [usize; 2],
    /// Rows and columns of places.
    pub(crate) grid: [usize; 2],
    pub(crate) step: [usize; 2],
    /// `(down, right)` of each tap.
    pub(crate) taps: &'a [(isize, isize)],
    /// `[groups, outside, inside, taps]`.
    pub(crate) weight: &'a [f32],
    pub(crate) target: Target<'a>,
    pub(crate) epilogue: Epilogue<'a>,
}

/// Where places lie in y: `n · image + g · group + starts[channel] + i · down + j · right`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) image: usize,
    pub(crate) group: usize,
    pub(crate) starts: &'a [usize],
    pub(crate) down: usize,
    pub(crate) right: usize,
}

/// The padded copy of one axis of x: element `a + phase` of phase `phase` stands for `at + a · step`.
#[derive(Debug, Clone, Copy)]
struct Axis {
    /// The coordinate of x at the beginning.
    low: isize,
    step: usize,
    /// Elements of one phase.
    len: usize,
}

impl Axis {
    fn new(low: isize, high: isize, step: usize, grid: usize) -> Self {
        let extent = (grid - 1) * step + (high - low) as usize + 1;
        Self { low, step, len: extent.div_ceil(step) }
    }

    /// Phase and place of a tap.
    fn tap(&self, at: isize) -> (usize, usize) {
        let at = (at - self.low) as usize;
        (at % self.step, at / self.step)
    }

    /// Elements of a phase that are in x: the first one, how many, and the coordinate of the first.
    fn inner(&self, phase: usize, size: usize) -> (usize, usize, usize) {
        let start = self.low + phase as isize;
        let step = self.step as isize;
        let first = if start >= 0 { 0 } else { (-start + step - 1) / step };
        let last = (size as isize - 1 - start).div_euclid(step);
        let count = (last + 1).min(self.len as isize) - first;
        if count <= 0 { (0, 0, 0) } else { (first as usize, count as usize, (start + first * step) as usize) }
    }
}

/// How the padded copy of a task's images lies in scratch memory.
struct Layout {
    rows: Axis,
    columns: Axis,
    /// From one row to the next.
    pitch: usize,
    images: usize,
}

impl Layout {
    fn new(d: &Direct<'_>) -> Self {
        let bounds = |at: fn(&(isize, isize)) -> isize| {
            let all = d.taps.iter().map(at);
            (all.clone().min().unwrap_or(0), all.max().unwrap_or(0))
        };
        let (down, right) = (bounds(|t| t.0), bounds(|t| t.1));
        let rows = Axis::new(down.0, down.1, d.step[0], d.grid[0]);
        let columns = Axis::new(right.0, right.1, d.step[1], d.grid[1]);
        // The zeros behind a row are those before the next one.
        let pitch = if d.step[1] == 1 {
            let (before, content, _) = columns.inner(0, d.size[1]);
            (content + before.max(columns.len - before - content)).max(d.grid[1])
        } else {
            columns.len
        };
        let one = d.inside * rows.len * rows.step * pitch * columns.step;
        let places = d.grid[0] * pitch;
        // Enough tasks for any usual machine, in a number that depends on the shape alone.
        let most = d.batch.div_ceil(16).max(1);
        let images = (INSIDE / one.max(1)).clamp(1, PLACES.div_ceil(places)).min(most);
        Self { rows, columns, pitch, images }
    }

    /// Elements of one channel of `images` images.
    fn channel(&self, images: usize) -> usize {
        self.rows.step * self.columns.step * self.plane(images)
    }

    /// Elements of one phase.
    fn plane(&self, images: usize) -> usize {
        self.rows.len * images * self.pitch
    }

    fn offsets(&self, d: &Direct<'_>, images: usize) -> Vec<u32> {
        let (channel, plane) = (self.channel(images), self.plane(images));
        let tap = |&(down, right): &(isize, isize)| {
            let ((py, y), (px, x)) = (self.rows.tap(down), self.columns.tap(right));
            (py * self.columns.step + px) * plane + y * images * self.pitch + x
        };
        let taps: Vec<usize> = d.taps.iter().map(tap).collect();
        (0..d.inside).flat_map(|c| taps.iter().map(move |t| (c * channel + t) as u32)).collect()
    }
}

impl Direct<'_> {
    /// Computes all places. Each task has some images of one group, and some of its output channels where there are few
    /// images.
    pub(crate) fn run(&self, x: &[f32], y: &mut [f32]) {
        if self.batch * self.groups * self.outside * self.grid[0] * self.grid[1] == 0 {
            return;
        }
        let arch = Arch::new();
        let layout = Layout::new(self);
        let whole = layout.offsets(self, layout.images);
        let chunks = self.batch.div_ceil(layout.images);
        let rest = self.batch - (chunks - 1) * layout.images;
        let partial = if rest == layout.images { Vec::new() } else { layout.offsets(self, rest) };
        let places = self.grid[0] * self.grid[1];
        let operations = self.batch * self.groups * self.outside * places * (self.inside * self.taps.len() + 8);
        // Each part pads its images again, so parts are made only where there is too little else to share.
        let blocks = self.outside.div_ceil(8);
        let most = if operations < WORTH { 1 } else { 4 };
        let parts = (most / (chunks * self.groups)).clamp(1, blocks);
        let each = blocks.div_ceil(parts);
        let parts = blocks.div_ceil(each);
        let shared = Shared::new(y);
        parallel(chunks * self.groups * parts, operations, |task| {
            let (chunk, group, part) = (task / (self.groups * parts), task / parts % self.groups, task % parts);
            let last = chunk + 1 == chunks;
            let images = if last { rest } else { layout.images };
            let offsets = if last && !partial.is_empty() { &partial } else { &whole };
            let inside = self.inside * layout.channel(images) + SLACK;
            let outside = self.grid[0] * images * layout.pitch + SLACK;
            with_scratch(inside + 8 * outside, |scratch| {
                let (scratch, result) = scratch.split_at_mut(inside);
                arch.dispatch(Task {
                    direct: self,
                    layout: &layout,
                    x,
                    first: chunk * layout.images,
                    images,
                    group,
                    channels: part * each * 8..((part + 1) * each * 8).min(self.outside),
                    offsets,
                    scratch,
                    result,
                    y: shared,
                });
            });
        });
    }
}

/// Some output channels of one group of some images.
struct Task<'a> {
    direct: &'a Direct<'a>,
    layout: &'a Layout,
    x: &'a [f32],
    first: usize,
    images: usize,
    group: usize,
    channels: std::ops::Range<usize>,
    offsets: &'a [u32],
    /// The padded images.
    scratch: &'a mut [f32],
    /// A line of places for each of 8 channels.
    result: &'a mut [f32],
    y: Shared<'a>,
}

impl WithSimd for Task<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.pad(simd);
        let line = self.result.len() / 8;
        let mut channel = self.channels.start;
        while channel < self.channels.end {
            let left = self.channels.end - channel;
            let rows = match (S::F32_LANES, left) {
                (16, 8..) => self.block::<S, 8, 2>(simd, channel, line),
                (_, 4..) => self.block::<S, 4, 2>(simd, channel, line),
                (_, 2..) => self.block::<S, 2, 4>(simd, channel, line),
                _ => self.block::<S, 1, 6>(simd, channel, line),
            };
            for r in 0..rows {
                self.write(simd, channel + r, r * line);
            }
            channel += rows;
        }
    }
}

impl Task<'_> {
    /// Copies the images into scratch memory, with zeros around them.
    #[inline(always)]
    fn pad<S: Simd>(&mut self, simd: S) {
        let (d, l) = (self.direct, self.layout);
        let plane = d.size[0] * d.size[1];
        self.scratch.fill(0.0);
        for channel in 0..d.inside {
            for py in 0..l.rows.step {
                let (top, rows, y0) = l.rows.inner(py, d.size[0]);
                for px in 0..l.columns.step {
                    let (before, count, x0) = l.columns.inner(px, d.size[1]);
                    let phase = ((channel * l.rows.step + py) * l.columns.step + px) * l.plane(self.images);
                    for image in 0..self.images {
                        let source = ((self.first + image) * d.groups + self.group) * d.inside + channel;
                        for y in 0..rows {
                            let to = phase + ((top + y) * self.images + image) * l.pitch + before;
                            let at = source * plane + (y0 + y * l.rows.step) * d.size[1] + x0;
                            if l.columns.step == 1 {
                                copy(simd, &self.x[at..at + count], &mut self.scratch[to..to + count]);
                            } else {
                                let from = self.x[at..].iter().step_by(l.columns.step);
                                self.scratch[to..to + count].iter_mut().zip(from).for_each(|(a, b)| *a = *b);
                            }
                        }
                    }
                }
            }
        }
    }

    /// All places of `R` channels; returns `R`.
    #[inline(always)]
    fn block<S: Simd, const R: usize, const V: usize>(&mut self, simd: S, channel: usize, line: usize) -> usize {
        let d = self.direct;
        let depth = self.offsets.len();
        let weight = &d.weight[(self.group * d.outside + channel) * depth..][..R * depth];
        let weights: [&[f32]; R] = std::array::from_fn(|r| &weight[r * depth..][..depth]);
        let places = d.grid[0] * self.images * self.layout.pitch;
        let width = V * S::F32_LANES;
        let farthest = self.offsets.iter().copied().max().unwrap_or(0) as usize;
        let end = places.next_multiple_of(width);
        assert!(farthest + end <= self.scratch.len() && end <= line && R * line <= self.result.len());
        for place in (0..places).step_by(width) {
            let mut sums = [[simd.splat_f32s(0.0); V]; R];
            for (k, &offset) in self.offsets.iter().enumerate() {
                // SAFETY: `offset + place + width <= farthest + end`, which was checked against the scratch memory.
                let from = unsafe { self.scratch.as_ptr().add(offset as usize + place) };
                let mut x = [simd.splat_f32s(0.0); V];
                for (v, x) in x.iter_mut().enumerate() {
                    // SAFETY: as above.
                    *x = unsafe { from.add(v * S::F32_LANES).cast::<S::f32s>().read_unaligned() };
                }
                for r in 0..R {
                    let w = simd.splat_f32s(weights[r][k]);
                    for v in 0..V {
                        sums[r][v] = simd.mul_add_e_f32s(w, x[v], sums[r][v]);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                let to = &mut self.result[r * line + place..][..width];
                for (to, &sum) in to.chunks_exact_mut(S::F32_LANES).zip(sums) {
                    simd.partial_store_f32s(to, sum);
                }
            }
        }
        R
    }

    /// Writes the places of one channel to y.
    #[inline(always)]
    fn write<S: Simd>(&self, simd: S, channel: usize, line: usize) {
        let (d, t) = (self.direct, self.direct.target);
        let bias = d.epilogue.bias.map_or(0.0, |b| b[self.group * d.outside + channel]);
        let start = self.group * t.group + t.starts[channel];
        // Rows without garbage between them are one row.
        let merged = self.images == 1 && self.layout.pitch == d.grid[1] && t.down == d.grid[1] && t.right == 1;
        let (rows, len) = if merged { (1, d.grid[0] * d.grid[1]) } else { (d.grid[0], d.grid[1]) };
        for i in 0..rows {
            for image in 0..self.images {
                let from = &self.result[line + (i * self.images + image) * self.layout.pitch..][..len];
                let at = start + (self.first + image) * t.image + i * t.down;
                // SAFETY: places of different images, groups, channels and rows are apart, and each belongs to one task.
                let to = unsafe { self.y.part(at, (len - 1) * t.right + 1) };
                if t.right == 1 {
                    let residual = d.epilogue.residual.map(|r| &r[at..at + len]);
                    d.epilogue.activation.write(simd, from, bias, residual, to);
                } else {
                    to.iter_mut().step_by(t.right).zip(from).for_each(|(y, x)| *y = *x);
                }
            }
        }
    }
}

#[inline(always)]
fn copy<S: Simd>(simd: S, from: &[f32], to: &mut [f32]) {
    for (to, from) in to.chunks_mut(S::F32_LANES).zip(from.chunks(S::F32_LANES)) {
        simd.partial_store_f32s(to, simd.partial_load_f32s(from));
    }
}
