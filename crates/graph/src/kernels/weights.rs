//! The gradient of a convolution's weight: each tap's places of the input against the gradient with its channels innermost.
//!
//! A task copies an image of one group into scratch memory, padded, and its gradient turned, so that the channels of a place
//! are vectors; a tile of taps × channels then stays in registers while all places go by.
//!
//! # Source
//! Georganas et al., "Anatomy of High-Performance Deep Learning Convolutions on SIMD Architectures", SC18, section II-J.
//! Scratch per thread: one padded image and its gradient; sums of at most 8 tasks, each as large as the weight.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::convolution::Shape;
use super::direct::{Direct, Images, Layout, Line, SLACK, TASK, Target, pad};
use super::epilogue::Epilogue;
use super::transpose::transpose;
use super::vectors::{arch, lanes, read, unrolled, write};
use super::{LINE, PRODUCTS, Shared, parallel, with_scratch};

/// Most elements of a weight that every task sums for itself; larger ones are divided among tasks.
const SMALL: usize = 1 << 20;

/// Places that a task takes at once, so that its sums are read and written seldom.
const PLACES: usize = 128;
/// Floats of padded images and gradients that a task should hold.
const INSIDE: usize = 1 << 18;
/// Output channels of a group for which vectors run over places instead of channels.
const FEW: usize = 4;
/// Places whose gradient stays in the nearest cache while all taps go by.
const NEAR: usize = if cfg!(test) { 12 } else { 256 };

/// Taps of a tile: whole rows of the kernel where they are usual ones, so that a place of memory serves a row.
fn tile_of(s: &Shape) -> usize {
    match s.kernel[1] {
        3 => 12,
        5 => 10,
        _ => 8,
    }
}

/// `weight [groups · outside, inside, kernel]` of `x [batch, groups · inside, input]` and the output's gradient.
pub(crate) fn weight_gradient(shape: Shape, x: &[f32], gradient: &[f32], weight: &mut [f32]) {
    let s = shape.flattened();
    let arch = arch();
    let lanes = lanes();
    if s.outside <= FEW && s.batch * s.output[0] * s.output[1] * weight.len() > 0 {
        return by_places(&s, x, gradient, weight);
    }
    let taps = s.inside * s.kernel[0] * s.kernel[1];
    let outputs = s.output[0] * s.output[1];
    if s.batch * outputs * weight.len() == 0 {
        return weight.fill(0.0);
    }
    let padded: [usize; 2] = std::array::from_fn(|i| {
        let reach = (s.output[i] - 1) * s.stride[i] + (s.kernel[i] - 1) * s.dilation[i] + 1;
        reach.max(s.padding[i] + s.input[i])
    });
    let plane = padded[0] * padded[1];
    let wide = s.outside.next_multiple_of(lanes);
    let tile = tile_of(&s);
    let tiles = taps.div_ceil(tile);
    let offset = |tap: usize| {
        let (channel, place) = (tap / (s.kernel[0] * s.kernel[1]), tap % (s.kernel[0] * s.kernel[1]));
        let (ky, kx) = (place / s.kernel[1], place % s.kernel[1]);
        channel * plane + ky * s.dilation[0] * padded[1] + kx * s.dilation[1]
    };
    // Rows behind the last one repeat it.
    let along = if tile == 8 { 1 } else { s.kernel[1] };
    let offsets: Vec<usize> = (0..tiles * tile).map(|t| offset(t.min(taps - along + t % along))).collect();
    // Tasks: some tiles of one group over some images. Their number depends on the shape alone.
    let splits = if taps * s.outside <= SMALL { 1 } else { 8 };
    let tiles_each = tiles.div_ceil(splits);
    let tile_tasks = tiles.div_ceil(tiles_each);
    let images_each = s.batch.div_ceil((8 / (s.groups * tile_tasks)).max(1));
    let image_tasks = s.batch.div_ceil(images_each);
    let part = tiles * tile * wide;
    let one = s.inside * plane + outputs * wide;
    let at_once = PLACES.div_ceil(outputs).min(INSIDE / one).clamp(1, images_each);
    let inside_len = (at_once * s.inside * plane).next_multiple_of(LINE);
    let operations = s.batch * outputs * taps * s.outside * s.groups / PRODUCTS;
    with_scratch(image_tasks * s.groups * part, |sums| {
        let shared = Shared::new(sums);
        parallel(image_tasks * s.groups * tile_tasks, operations, |task| {
            let (images, rest) = (task / (s.groups * tile_tasks), task % (s.groups * tile_tasks));
            let (group, tile_task) = (rest / tile_tasks, rest % tile_tasks);
            let tiles = tile_task * tiles_each..((tile_task + 1) * tiles_each).min(tiles);
            let at = (images * s.groups + group) * part + tiles.start * tile * wide;
            // SAFETY: tasks of different images, groups or tiles have different parts.
            let sums = unsafe { shared.part(at, tiles.len() * tile * wide) };
            sums.fill(0.0);
            with_scratch(inside_len + at_once * outputs * wide, |scratch| {
                let (inside, turned) = scratch.split_at_mut(inside_len);
                let end = ((images + 1) * images_each).min(s.batch);
                for first in (images * images_each..end).step_by(at_once) {
                    let at = Images { first, count: at_once.min(end - first), group };
                    let offsets = &offsets[tiles.start * tile..tiles.end * tile];
                    let sums = &mut *sums;
                    let (inside, turned) = (&mut *inside, &mut *turned);
                    arch.dispatch(Tiles { shape: &s, x, padded, gradient, at, wide, offsets, inside, turned, sums });
                }
            });
        });
        collect(&s, sums, [image_tasks, part, wide, taps], weight);
    });
}

/// From `[images][group][tap][channel]` to `[group, channel][tap]`.
fn collect(s: &Shape, sums: &[f32], [image_tasks, part, wide, taps]: [usize; 4], weight: &mut [f32]) {
    let shared = Shared::new(weight);
    let blocks = s.outside.div_ceil(16);
    parallel(s.groups * blocks, image_tasks * s.groups * part, |task| {
        let (group, block) = (task / blocks, task % blocks);
        let channels = block * 16..(block * 16 + 16).min(s.outside);
        // SAFETY: each block of channels of each group has its own rows.
        let to = unsafe { shared.part((group * s.outside + channels.start) * taps, channels.len() * taps) };
        with_scratch(taps * 16, |total| {
            total.fill(0.0);
            for images in 0..image_tasks {
                let from = &sums[(images * s.groups + group) * part..];
                for (total, from) in total.chunks_exact_mut(16).zip(from.chunks_exact(wide)) {
                    let from = &from[channels.clone()];
                    total.iter_mut().zip(from).for_each(|(a, b)| *a += b);
                }
            }
            transpose(taps, channels.len(), total, 16, to, taps);
        });
    });
}

/// The gradient where there are few output channels: each tap's places against a channel's gradient, vector by vector.
fn by_places(s: &Shape, x: &[f32], gradient: &[f32], weight: &mut [f32]) {
    let taps = s.taps();
    let starts = vec![0; s.outside];
    let direct = Direct {
        batch: s.batch,
        groups: s.groups,
        inside: s.inside,
        outside: s.outside,
        size: s.input,
        grid: s.output,
        step: s.stride,
        taps: &taps,
        weight: &[],
        target: Target { image: 0, group: 0, starts: &starts, down: 0, right: 0 },
        epilogue: Epilogue::default(),
    };
    let layout = Layout::new(&direct);
    let depth = s.inside * taps.len();
    let outputs = s.output[0] * s.output[1];
    let chunks = s.batch.div_ceil(layout.images);
    // Tasks: some groups over some chunks of images. Their number depends on the shape alone.
    let work = s.batch * outputs * s.outside * depth;
    let groups_each = (TASK / work.max(1)).clamp(1, s.groups);
    let group_tasks = s.groups.div_ceil(groups_each);
    let chunks_each = chunks.div_ceil((16 / group_tasks).max(1));
    let chunk_tasks = chunks.div_ceil(chunks_each);
    let whole = layout.offsets(&direct, layout.images);
    let rest = s.batch - (chunks - 1) * layout.images;
    let partial = layout.offsets(&direct, rest);
    let len = weight.len();
    with_scratch(chunk_tasks * len, |sums| {
        let shared = Shared::new(sums);
        parallel(chunk_tasks * group_tasks, work * s.groups, |task| {
            let (chunk_task, group_task) = (task / group_tasks, task % group_tasks);
            let groups = group_task * groups_each..((group_task + 1) * groups_each).min(s.groups);
            let one = s.outside * depth;
            // SAFETY: each task has its own groups of its own part.
            let sums = unsafe { shared.part(chunk_task * len + groups.start * one, groups.len() * one) };
            sums.fill(0.0);
            let inside = s.inside * layout.channel(layout.images) + SLACK;
            let line = s.output[0] * layout.images * layout.pitch + SLACK;
            with_scratch(inside + line, |scratch| {
                let (inside, line) = scratch.split_at_mut(inside);
                for chunk in chunk_task * chunks_each..((chunk_task + 1) * chunks_each).min(chunks) {
                    let last = chunk + 1 == chunks;
                    let images = if last { rest } else { layout.images };
                    let at = Images { first: chunk * layout.images, count: images, group: 0 };
                    let offsets = if last { &partial[..] } else { &whole };
                    arch().dispatch(Places {
                        direct: &direct,
                        layout: &layout,
                        x,
                        gradient,
                        at,
                        groups: groups.clone(),
                        offsets,
                        inside,
                        line,
                        sums,
                    });
                }
            });
        });
        weight.fill(0.0);
        for sums in sums.chunks_exact(len) {
            weight.iter_mut().zip(sums).for_each(|(w, s)| *w += s);
        }
    });
}

/// Adds the part of some images of some groups.
struct Places<'a> {
    direct: &'a Direct<'a>,
    layout: &'a Layout,
    x: &'a [f32],
    gradient: &'a [f32],
    at: Images,
    groups: Range<usize>,
    offsets: &'a [u32],
    inside: &'a mut [f32],
    /// The gradient of a channel, with zeros between its rows.
    line: &'a mut [f32],
    sums: &'a mut [f32],
}

impl WithSimd for Places<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (d, l) = (self.direct, self.layout);
        let [height, width] = d.grid;
        let row = Line::new(simd, width);
        let places = (height * self.at.count * l.pitch).next_multiple_of(S::F32_LANES);
        self.inside.fill(0.0);
        self.line.fill(0.0);
        let mut sums = self.sums.chunks_exact_mut(self.offsets.len());
        for group in self.groups.clone() {
            pad(simd, d, l, self.x, Images { group, ..self.at }, self.inside);
            for channel in 0..d.outside {
                let channel = group * d.outside + channel;
                for y in 0..height {
                    for n in 0..self.at.count {
                        let from = ((self.at.first + n) * d.groups * d.outside + channel) * height * width + y * width;
                        let to = (y * self.at.count + n) * l.pitch;
                        row.copy(simd, &self.gradient[from..from + width], &mut self.line[to..]);
                    }
                }
                // What the last row's vector wrote behind it is zero already.
                let Some(sums) = sums.next() else { return };
                if self.offsets.len().is_multiple_of(9) {
                    along::<S, 9>(simd, self.offsets, places, self.inside, self.line, sums);
                } else {
                    along::<S, 8>(simd, self.offsets, places, self.inside, self.line, sums);
                }
            }
        }
    }
}

/// Adds `Σ x[offset + place] · g[place]` for each offset, `T` of them at a time.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "constant numbers keep the sums in registers")]
fn along<S: Simd, const T: usize>(
    simd: S,
    offsets: &[u32],
    places: usize,
    x: &[f32],
    gradient: &[f32],
    sums: &mut [f32],
) {
    for (sums, offsets) in sums.chunks_mut(T).zip(offsets.chunks(T)) {
        let mut at = [0; T];
        at.iter_mut().zip(offsets).for_each(|(a, &o)| *a = o as usize);
        let farthest = at.into_iter().max().unwrap_or(0);
        assert!(farthest + places <= x.len() && places <= gradient.len());
        let mut parts = [simd.splat_f32s(0.0); T];
        for place in (0..places).step_by(S::F32_LANES) {
            // SAFETY: `places` is a number of whole vectors, within both slices even from the farthest offset on.
            unsafe {
                let g = gradient.as_ptr().add(place).cast::<S::f32s>().read_unaligned();
                for t in 0..T {
                    let x = x.as_ptr().add(at[t] + place).cast::<S::f32s>().read_unaligned();
                    parts[t] = simd.mul_add_e_f32s(x, g, parts[t]);
                }
            }
        }
        for t in 0..T {
            let sum = simd.reduce_sum_f32s(parts[t]);
            if let Some(s) = sums.get_mut(t) {
                *s += sum;
            }
        }
    }
}

/// Adds some images' part to some tiles.
struct Tiles<'a> {
    shape: &'a Shape,
    x: &'a [f32],
    padded: [usize; 2],
    gradient: &'a [f32],
    at: Images,
    wide: usize,
    offsets: &'a [usize],
    inside: &'a mut [f32],
    turned: &'a mut [f32],
    sums: &'a mut [f32],
}

impl WithSimd for Tiles<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let s = self.shape;
        let outputs = s.output[0] * s.output[1];
        // Blocks of one or two vectors of channels, each with all its places in a row.
        let most = if S::F32_LANES == 16 { 2 * S::F32_LANES } else { S::F32_LANES };
        for image in 0..self.at.count {
            self.pad(simd, image);
        }
        for channel in (0..self.wide).step_by(most) {
            let width = most.min(self.wide - channel);
            let turned = &mut self.turned[channel * self.at.count * outputs..][..self.at.count * outputs * width];
            let count = width.min(s.outside - channel);
            if count < width {
                turned.fill(0.0);
            }
            for (image, turned) in turned.chunks_exact_mut(outputs * width).enumerate() {
                let from = ((self.at.first + image) * s.groups + self.at.group) * s.outside + channel;
                transpose(count, outputs, &self.gradient[from * outputs..], outputs, turned, width);
            }
        }
        // The gradient of some places of a few channels stays near while all taps go by.
        let rows = self.at.count * s.output[0];
        let each = (NEAR / s.output[1]).max(1);
        for first in (0..rows).step_by(each) {
            let rows = first..(first + each).min(rows);
            for channel in (0..self.wide).step_by(most) {
                if self.wide - channel >= most && most > S::F32_LANES {
                    self.channels::<S, 2>(simd, rows.clone(), channel);
                } else {
                    self.channels::<S, 1>(simd, rows.clone(), channel);
                }
            }
        }
    }
}

impl Tiles<'_> {
    #[inline(always)]
    fn pad<S: Simd>(&mut self, simd: S, image: usize) {
        let (s, [height, width]) = (self.shape, self.padded);
        let [top, before] = s.padding;
        let (size, plane) = (s.input[0] * s.input[1], height * width);
        let channels = self.inside[image * s.inside * plane..][..s.inside * plane].chunks_exact_mut(plane);
        let from = ((self.at.first + image) * s.groups + self.at.group) * s.inside * size;
        for (to, from) in channels.zip(self.x[from..].chunks_exact(size)) {
            for (y, to) in to.chunks_exact_mut(width).enumerate() {
                if y < top || y >= top + s.input[0] {
                    to.fill(0.0);
                    continue;
                }
                let from = &from[(y - top) * s.input[1]..][..s.input[1]];
                let (zeros, line) = to.split_at_mut(before);
                zeros.fill(0.0);
                let (line, zeros) = line.split_at_mut(s.input[1]);
                zeros.fill(0.0);
                for (to, from) in line.chunks_mut(S::F32_LANES).zip(from.chunks(S::F32_LANES)) {
                    write(simd, to, read(simd, from));
                }
            }
        }
    }

    /// All taps of `V` vectors of channels.
    #[inline(always)]
    fn channels<S: Simd, const V: usize>(&mut self, simd: S, rows: Range<usize>, channel: usize) {
        for tile in 0..self.offsets.len() / tile_of(self.shape) {
            match self.shape.kernel[1] {
                3 => self.tile::<S, 4, 3, V>(simd, rows.clone(), tile, channel),
                5 => self.tile::<S, 2, 5, V>(simd, rows.clone(), tile, channel),
                _ => self.tile::<S, 8, 1, V>(simd, rows.clone(), tile, channel),
            }
        }
    }

    /// Adds some rows of places to `J` rows of `K` taps of `V` vectors of channels.
    #[inline(always)]
    fn tile<S: Simd, const J: usize, const K: usize, const V: usize>(
        &mut self,
        simd: S,
        rows: Range<usize>,
        tile: usize,
        channel: usize,
    ) {
        let s = self.shape;
        let row = self.padded[1];
        let offsets: [usize; J] = std::array::from_fn(|j| self.offsets[(tile * J + j) * K]);
        let farthest = offsets.iter().copied().max().unwrap_or(0);
        let (stride, dilation) = (s.stride[1], if K == 1 { 0 } else { s.dilation[1] });
        let last = (s.output[0] - 1) * s.stride[0] * row + (s.output[1] - 1) * stride + (K - 1) * dilation;
        let plane = s.inside * self.padded[0] * row;
        let (outputs, width) = (s.output[0] * s.output[1], V * S::F32_LANES);
        let turned = &self.turned[channel * self.at.count * outputs..][..self.at.count * outputs * width];
        assert!(
            farthest + last < plane
                && self.at.count * plane <= self.inside.len()
                && rows.end <= self.at.count * s.output[0]
        );
        let mut sums = [[[simd.splat_f32s(0.0); V]; K]; J];
        for y in rows {
            let (image, row_of) = (y / s.output[0], y % s.output[0]);
            // SAFETY: `farthest + last` is within a padded image, and no place that is read is farther.
            let x = unsafe { self.inside.as_ptr().add(image * plane + row_of * s.stride[0] * row) };
            // SAFETY: as above.
            let x: [*const f32; J] = std::array::from_fn(|j| unsafe { x.add(offsets[j]) });
            // SAFETY: the turned gradient has `width` channels for each place of all rows.
            let line = unsafe { turned.as_ptr().add(y * s.output[1] * width) };
            for i in 0..s.output[1] {
                let mut g = [simd.splat_f32s(0.0); V];
                for (v, g) in g.iter_mut().enumerate() {
                    // SAFETY: as above.
                    *g = unsafe { line.add(i * width + v * S::F32_LANES).cast::<S::f32s>().read_unaligned() };
                }
                unrolled!(j < J, {
                    for k in 0..K {
                        // SAFETY: as above.
                        let x = simd.splat_f32s(unsafe { *x[j].add(i * stride + k * dilation) });
                        for v in 0..V {
                            sums[j][k][v] = simd.mul_add_e_f32s(x, g[v], sums[j][k][v]);
                        }
                    }
                });
            }
        }
        unrolled!(j < J, {
            for k in 0..K {
                let at = ((tile * J + j) * K + k) * self.wide + channel;
                let (to, _) = S::as_mut_simd_f32s(&mut self.sums[at..at + width]);
                for v in 0..V {
                    to[v] = simd.add_f32s(to[v], sums[j][k][v]);
                }
            }
        });
    }
}
