//! Convolutions of images as products whose right factor is made on the fly (implicit "im2col"): patches of the input are
//! packed panel by panel and never stored as a whole.
//!
//! # Source
//! Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks for Document Processing", 2006, for the
//! product; Chetlur et al., arXiv:1410.0759, section 3, for packing patches as they are needed.

use super::product::{Columns, Finish, Matrix, Places, Product, Run};
use super::{Shared, parallel, with_scratch};
use pulp::{Arch, Simd, WithSimd};

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
    fn taps(&self) -> usize {
        self.inside * self.kernel[0] * self.kernel[1]
    }

    fn input_plane(&self) -> usize {
        self.input[0] * self.input[1]
    }

    fn output_plane(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// One row in place of an image where every element stands for itself alone.
    fn flattened(mut self) -> Self {
        let same = self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0];
        if same && self.input == self.output {
            self.input = [1, self.input_plane()];
            self.output = self.input;
        }
        self
    }
}

/// Where one row of the right factor reads, relative to the place of the column.
#[derive(Debug, Clone, Copy)]
struct Tap {
    /// First element of the channel in its image.
    plane: usize,
    down: isize,
    right: isize,
}

/// Patches of images: a column for each image and place of a grid, a row for each tap.
struct Patches<'a> {
    source: &'a [f32],
    /// Elements from one image to the next.
    image: usize,
    size: [usize; 2],
    taps: Vec<Tap>,
    stride: [usize; 2],
    grid: [usize; 2],
}

/// A run of columns within one row of the grid.
#[derive(Clone, Copy)]
struct Line {
    image: usize,
    y: usize,
    x: usize,
    len: usize,
}

/// The rows of a grid that the columns `first..first + count` go through.
fn lines(grid: [usize; 2], first: usize, count: usize) -> impl Iterator<Item = Line> {
    let (mut at, end) = (first, first + count);
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let x = at % grid[1];
        let len = (grid[1] - x).min(end - at);
        let line = Line { image: at / grid[1] / grid[0], y: at / grid[1] % grid[0], x, len };
        at += len;
        Some(line)
    })
}

impl Columns for Patches<'_> {
    fn pack(&self, depth: std::ops::Range<usize>, first: usize, count: usize, stride: usize, out: &mut [f32]) {
        Arch::new().dispatch(Pack { patches: self, depth, first, count, stride, out });
    }
}

struct Pack<'a> {
    patches: &'a Patches<'a>,
    depth: std::ops::Range<usize>,
    first: usize,
    count: usize,
    stride: usize,
    out: &'a mut [f32],
}

impl WithSimd for Pack<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        /// Most lines that a panel of 48 columns goes through.
        const MOST: usize = 48;
        let p = self.patches;
        let mut all = [Line { image: 0, y: 0, x: 0, len: 0 }; MOST];
        let mut n = 0;
        for line in lines(p.grid, self.first, self.count) {
            all[n] = line;
            n += 1;
        }
        let lines = &all[..n];
        let (height, width) = (p.size[0] as isize, p.size[1] as isize);
        for (tap, out) in p.taps[self.depth].iter().zip(self.out.chunks_mut(self.stride)) {
            // A chunk ends where the next one starts, but vectors may write on: later lines and rows come after them.
            let mut at = 0;
            let row = out.as_mut_ptr();
            for line in lines {
                let y = (line.y * p.stride[0]) as isize + tap.down;
                let x = (line.x * p.stride[1]) as isize + tap.right;
                // SAFETY: lines of a panel make up at most `stride` columns, and `out` has SLACK elements behind the last
                // row, which is more than a vector.
                let to = unsafe { row.add(at) };
                at += line.len;
                if y < 0 || y >= height {
                    // SAFETY: `line.len` elements of this row of the panel.
                    unsafe { std::slice::from_raw_parts_mut(to, line.len) }.fill(0.0);
                    continue;
                }
                let plane = line.image * p.image + tap.plane + (y * width) as usize;
                if p.stride[1] == 1 {
                    let start = plane as isize + x;
                    let lanes = S::F32_LANES;
                    let vectors = line.len.div_ceil(lanes);
                    if start >= 0 && start as usize + vectors * lanes <= p.source.len() {
                        // SAFETY: the range was checked; reading a little of the neighbouring rows is undone below.
                        let from = unsafe { p.source.as_ptr().add(start as usize) };
                        for v in 0..vectors {
                            // SAFETY: `vectors` whole vectors were checked to be in the source; at most one vector is written
                            // behind the line, where a later line, a later row or the slack lies.
                            unsafe {
                                let x = from.add(v * lanes).cast::<S::f32s>().read_unaligned();
                                to.add(v * lanes).cast::<S::f32s>().write_unaligned(x);
                            }
                        }
                    } else {
                        for i in 0..line.len {
                            let from = p.source.get((start + i as isize) as usize);
                            // SAFETY: `i` is within the line.
                            unsafe { *to.add(i) = from.copied().unwrap_or(0.0) };
                        }
                    }
                    // What lies outside the row is padding.
                    let before = (-x).clamp(0, line.len as isize) as usize;
                    let after = (x + line.len as isize - width).clamp(0, line.len as isize) as usize;
                    for i in (0..before).chain(line.len - after..line.len) {
                        // SAFETY: both ranges are within the line.
                        unsafe { *to.add(i) = 0.0 };
                    }
                } else {
                    let source = &p.source[plane..plane + width as usize];
                    for i in 0..line.len {
                        let from = source.get((x + (i * p.stride[1]) as isize) as usize);
                        // SAFETY: `i` is within the line.
                        unsafe { *to.add(i) = from.copied().unwrap_or(0.0) };
                    }
                }
            }
        }
        let _ = simd;
    }
}

/// Places of a grid in images that are written, one channel per row of the product.
struct Grid {
    grid: [usize; 2],
    /// Elements from one image to the next.
    image: usize,
    /// From one row of the grid to the next.
    down: usize,
    /// From one column of the grid to the next.
    right: usize,
    /// The first place.
    start: usize,
}

impl Places for Grid {
    fn runs(&self, first: usize, count: usize, to: &mut Vec<Run>) {
        for line in lines(self.grid, first, count) {
            let start = self.start + line.image * self.image + line.y * self.down + line.x * self.right;
            match to.last_mut() {
                // Rows without gaps between them are one run.
                Some(last) if self.right == 1 && last.step == 1 && last.start + last.len == start => {
                    last.len += line.len;
                }
                _ => to.push(Run { len: line.len, start, step: self.right }),
            }
        }
    }
}

/// Cross-correlation. `x [batch, groups · inside, …]`, `weight [groups · outside, inside, …]`, `y` of the output's shape.
pub(crate) fn forward(shape: Shape, x: &[f32], weight: &[f32], finish: Finish<'_>, y: &mut [f32]) {
    let s = shape.flattened();
    let (input, output) = (s.input_plane(), s.output_plane());
    let to = Shared::new(y);
    for group in 0..s.groups {
        let mut taps = Vec::with_capacity(s.taps());
        for channel in 0..s.inside {
            for ky in 0..s.kernel[0] {
                for kx in 0..s.kernel[1] {
                    taps.push(Tap {
                        plane: (group * s.inside + channel) * input,
                        down: (ky * s.dilation[0]) as isize - s.padding[0] as isize,
                        right: (kx * s.dilation[1]) as isize - s.padding[1] as isize,
                    });
                }
            }
        }
        let image = s.groups * s.inside * input;
        let patches = Patches { source: x, image, size: s.input, taps, stride: s.stride, grid: s.output };
        let places = Grid {
            grid: s.output,
            image: s.groups * s.outside * output,
            down: s.output[1],
            right: 1,
            start: group * s.outside * output,
        };
        let rows = group * s.outside..(group + 1) * s.outside;
        let left = Matrix::new(&weight[rows.start * s.taps()..rows.end * s.taps()], s.outside, s.taps());
        let finish = Finish { row_bias: finish.row_bias.map(|b| &b[rows]), ..finish };
        let columns = s.batch * output;
        Product { left, right: &patches, columns, places: &places, row_step: output, finish }.run(to);
    }
}

/// The gradient of the input: for each of the `stride[0] · stride[1]` ways in which places of the input meet the kernel,
/// a cross-correlation of the gradient with the taps that they meet.
pub(crate) fn input_gradient(shape: Shape, gradient: &[f32], weight: &[f32], x: &mut [f32]) {
    let s = shape.flattened();
    let (input, output) = (s.input_plane(), s.output_plane());
    let to = Shared::new(x);
    let [kh, kw] = s.kernel;
    for group in 0..s.groups {
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
            for channel in 0..s.outside {
                for ky in 0..kh {
                    for kx in 0..kw {
                        if let (Some(down), Some(right)) = (meets(0, ky), meets(1, kx)) {
                            taps.push(Tap { plane: (group * s.outside + channel) * output, down, right });
                            places.push((channel * s.inside * kh + ky) * kw + kx);
                        }
                    }
                }
            }
            // Row by row of the input's channels: the weights of the taps that are met.
            let weight = &weight[group * s.outside * s.taps()..];
            let turned: Vec<f32> = (0..s.inside)
                .flat_map(|c| places.iter().map(move |&at| weight[at + c * kh * kw]))
                .collect();
            let depth = taps.len();
            let image = s.groups * s.outside * output;
            let patches = Patches { source: gradient, image, size: s.output, taps, stride: [1, 1], grid };
            let places = Grid {
                grid,
                image: s.groups * s.inside * input,
                down: s.stride[0] * s.input[1],
                right: s.stride[1],
                start: group * s.inside * input + phase[0] * s.input[1] + phase[1],
            };
            let left = Matrix::new(&turned, s.inside, depth);
            let columns = s.batch * grid[0] * grid[1];
            let finish = Finish::default();
            Product { left, right: &patches, columns, places: &places, row_step: input, finish }.run(to);
        }
    }
}

/// Taps of one tile of the weight's gradient.
const TAPS: usize = 8;

/// The gradient of the weight: each tap's row of the input against the gradient with its channels innermost.
///
/// Scratch: the padded input and the turned gradient, once each.
pub(crate) fn weight_gradient(shape: Shape, x: &[f32], gradient: &[f32], weight: &mut [f32]) {
    let s = shape.flattened();
    let arch = Arch::new();
    let lanes = arch.dispatch(LanesOf);
    let (output, taps) = (s.output_plane(), s.taps());
    let padded: [usize; 2] = std::array::from_fn(|i| {
        let reach = (s.output[i] - 1) * s.stride[i] + (s.kernel[i] - 1) * s.dilation[i] + 1;
        reach.max(s.padding[i] + s.input[i])
    });
    let channels = s.groups * s.inside;
    let x = if padded == s.input { None } else { Some(pad(&s, x, padded, channels)) }.map_or(
        std::borrow::Cow::Borrowed(x),
        std::borrow::Cow::Owned,
    );
    let plane = padded[0] * padded[1];
    // Channels in whole vectors, for each group: [batch, groups, places, wide].
    let wide = s.outside.div_ceil(lanes) * lanes;
    let turned = turn(&s, gradient, wide);
    let tiles = taps.div_ceil(TAPS);
    let offset = |tap: usize| {
        let (channel, place) = (tap / (s.kernel[0] * s.kernel[1]), tap % (s.kernel[0] * s.kernel[1]));
        let (ky, kx) = (place / s.kernel[1], place % s.kernel[1]);
        channel * plane + ky * s.dilation[0] * padded[1] + kx * s.dilation[1]
    };
    let offsets: Vec<usize> = (0..tiles * TAPS).map(|t| offset(t.min(taps - 1))).collect();
    // Tasks: some tiles of one group over some images. Their number depends on the shape alone.
    let tiles_each = tiles.div_ceil(8);
    let tile_tasks = tiles.div_ceil(tiles_each);
    let image_tasks = if s.groups * tile_tasks >= 8 { 1 } else { (16 / (s.groups * tile_tasks)).min(s.batch) };
    let images_each = s.batch.div_ceil(image_tasks);
    let image_tasks = s.batch.div_ceil(images_each);
    let part = tiles * TAPS * wide;
    let mut sums = vec![0.0f32; image_tasks * s.groups * part];
    let shared = Shared::new(&mut sums);
    let operations = s.batch * output * taps * s.outside * s.groups;
    parallel(image_tasks * s.groups * tile_tasks, operations, |task| {
        let (images, rest) = (task / (s.groups * tile_tasks), task % (s.groups * tile_tasks));
        let (group, tile_task) = (rest / tile_tasks, rest % tile_tasks);
        let tiles = tile_task * tiles_each..((tile_task + 1) * tiles_each).min(tiles);
        let at = (images * s.groups + group) * part + tiles.start * TAPS * wide;
        // SAFETY: tasks of different images, groups or tiles have different parts.
        let sums = unsafe { shared.part(at, tiles.len() * TAPS * wide) };
        for image in images * images_each..((images + 1) * images_each).min(s.batch) {
            let x = &x[(image * channels + group * s.inside) * plane..][..s.inside * plane];
            let gradient = &turned[(image * s.groups + group) * output * wide..][..output * wide];
            let offsets = &offsets[tiles.start * TAPS..tiles.end * TAPS];
            arch.dispatch(WeightTiles { shape: &s, x, row: padded[1], gradient, wide, offsets, sums });
        }
    });
    // From [images][group][tap][channel] to [group, channel][tap].
    let shared = Shared::new(weight);
    parallel(s.groups, operations, |group| {
        // SAFETY: each group has its own rows.
        let weight = unsafe { shared.part(group * s.outside * taps, s.outside * taps) };
        for (channel, row) in weight.chunks_exact_mut(taps).enumerate() {
            for (tap, w) in row.iter_mut().enumerate() {
                let at = group * part + tap * wide + channel;
                *w = (0..image_tasks).map(|i| sums[i * s.groups * part + at]).sum();
            }
        }
    });
}

struct LanesOf;

impl WithSimd for LanesOf {
    type Output = usize;
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

fn pad(s: &Shape, x: &[f32], padded: [usize; 2], channels: usize) -> Vec<f32> {
    let plane = padded[0] * padded[1];
    let mut out = vec![0.0; s.batch * channels * plane];
    let shared = Shared::new(&mut out);
    parallel(s.batch, x.len() * 2, |image| {
        // SAFETY: each image has its own part.
        let out = unsafe { shared.part(image * channels * plane, channels * plane) };
        let x = &x[image * channels * s.input_plane()..];
        for (out, x) in out.chunks_exact_mut(plane).zip(x.chunks_exact(s.input_plane())) {
            for (y, x) in x.chunks_exact(s.input[1]).enumerate() {
                let at = (y + s.padding[0]) * padded[1] + s.padding[1];
                out[at..at + x.len()].copy_from_slice(x);
            }
        }
    });
    out
}

/// The gradient with its channels innermost, in whole vectors: `[batch, groups, places, wide]`.
fn turn(s: &Shape, gradient: &[f32], wide: usize) -> Vec<f32> {
    const BLOCK: usize = 16;
    let output = s.output_plane();
    let mut out = vec![0.0; s.batch * s.groups * output * wide];
    let shared = Shared::new(&mut out);
    parallel(s.batch * s.groups, gradient.len() * 4, |part| {
        // SAFETY: each group of each image has its own part.
        let out = unsafe { shared.part(part * output * wide, output * wide) };
        let gradient = &gradient[part * s.outside * output..][..s.outside * output];
        for place in (0..output).step_by(BLOCK) {
            let places = BLOCK.min(output - place);
            for channel in (0..s.outside).step_by(BLOCK) {
                let channels = BLOCK.min(s.outside - channel);
                if places == BLOCK && channels == BLOCK {
                    let from: [&[f32; BLOCK]; BLOCK] = std::array::from_fn(|c| {
                        let at = (channel + c) * output + place;
                        (&gradient[at..at + BLOCK]).try_into().expect("a block")
                    });
                    for p in 0..BLOCK {
                        let to = &mut out[(place + p) * wide + channel..][..BLOCK];
                        for c in 0..BLOCK {
                            to[c] = from[c][p];
                        }
                    }
                } else {
                    for p in place..place + places {
                        for c in channel..channel + channels {
                            out[p * wide + c] = gradient[c * output + p];
                        }
                    }
                }
            }
        }
    });
    out
}

/// Adds one image's part to some tiles of the weight's gradient.
struct WeightTiles<'a> {
    shape: &'a Shape,
    /// One group of one image, padded.
    x: &'a [f32],
    /// Elements from one row to the next.
    row: usize,
    gradient: &'a [f32],
    wide: usize,
    offsets: &'a [usize],
    sums: &'a mut [f32],
}

impl WithSimd for WeightTiles<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let vectors = self.wide / S::F32_LANES;
        let most = if S::F32_LANES == 16 { 2 } else { 1 };
        for tile in 0..self.offsets.len() / TAPS {
            let mut from = 0;
            while from < vectors {
                // Of four vectors, two and two.
                let left = vectors - from;
                let n = if left == most + 1 && most > 1 { 2 } else { left.min(most) };
                match n {
                    1 => self.tile::<S, 1>(simd, tile, from * S::F32_LANES),
                    2 => self.tile::<S, 2>(simd, tile, from * S::F32_LANES),
                    _ => self.tile::<S, 3>(simd, tile, from * S::F32_LANES),
                }
                from += n;
            }
        }
    }
}

impl WeightTiles<'_> {
    #[inline(always)]
    fn tile<S: Simd, const V: usize>(&mut self, simd: S, tile: usize, channel: usize) {
        let s = self.shape;
        let offsets: [usize; TAPS] = std::array::from_fn(|t| self.offsets[tile * TAPS + t]);
        let farthest = offsets.iter().copied().max().unwrap_or(0);
        let last = (s.output[0] - 1) * s.stride[0] * self.row + (s.output[1] - 1) * s.stride[1];
        assert!(farthest + last < self.x.len() && channel + V * S::F32_LANES <= self.wide);
        assert!(self.gradient.len() >= s.output[0] * s.output[1] * self.wide);
        let mut sums = [[simd.splat_f32s(0.0); V]; TAPS];
        for y in 0..s.output[0] {
            let start = y * s.stride[0] * self.row;
            // SAFETY: `farthest + last` is within `x`, and every place read below is no farther.
            let x: [*const f32; TAPS] =
                std::array::from_fn(|t| unsafe { self.x.as_ptr().add(offsets[t] + start) });
            // SAFETY: the gradient has `wide` channels for each place.
            let line = unsafe { self.gradient.as_ptr().add(y * s.output[1] * self.wide + channel) };
            for i in 0..s.output[1] {
                let mut g = [simd.splat_f32s(0.0); V];
                for (v, g) in g.iter_mut().enumerate() {
                    // SAFETY: as above; `channel` and the vectors behind it are within `wide`.
                    *g = unsafe { line.add(i * self.wide + v * S::F32_LANES).cast::<S::f32s>().read_unaligned() };
                }
                for t in 0..TAPS {
                    // SAFETY: as above.
                    let x = simd.splat_f32s(unsafe { *x[t].add(i * s.stride[1]) });
                    for v in 0..V {
                        sums[t][v] = simd.mul_add_e_f32s(x, g[v], sums[t][v]);
                    }
                }
            }
        }
        for (t, sums) in sums.iter().enumerate() {
            let at = (tile * TAPS + t) * self.wide + channel;
            let (to, _) = S::as_mut_simd_f32s(&mut self.sums[at..at + V * S::F32_LANES]);
            for (to, &sum) in to.iter_mut().zip(sums) {
                *to = simd.add_f32s(*to, sum);
            }
        }
    }
}
