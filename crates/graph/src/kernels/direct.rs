//! Direct convolution of planes: vectors run over places, weights are broadcast, and nothing is turned around.
//!
//! A task copies some images of one group into scratch memory, padded with zeros, such that a tap of the kernel is a fixed
//! offset: row `y` of all images comes before row `y + 1`, rows share the zeros between them, and a step over several
//! elements splits rows and columns into phases. Then a tile of output channels × places is a sum over taps of
//! `weight · x[place + offset]`, all in registers. Where rows are no whole vectors, places behind the end of a row come out
//! as garbage and are dropped when the result is written, which is also where bias, residual and activation are applied.
//!
//! # Source
//! Georganas et al., "Anatomy of High-Performance Deep Learning Convolutions on SIMD Architectures", SC18 (register
//! tiles of a direct convolution); the layout, with vectors over places, is ours.
//! Scratch per thread: the padded images of a task, usually at most [`INSIDE`] floats, and their output: 8 channels of it, or,
//! where blocks of channels take turns, those of the task.

use std::ops::Range;

use pulp::{MemMask, Simd, WithSimd};

use super::depthwise;
use super::epilogue::{Activation, Epilogue};
use super::math::Function;
use super::vectors::{arch, first, prefetch, read, unrolled, write};
use super::{LINE, PRODUCTS, Shared, parallel, with_scratch, worth};

/// Floats of padded input that one task should hold.
const INSIDE: usize = 1 << 16;
/// Elements behind the last place that vectors may read.
pub(super) const SLACK: usize = 160;
/// Operations that a task should have at least.
pub(super) const TASK: usize = 1 << 17;
/// Places that a task should have at least, so that the end of the last vector does not count.
const PLACES: usize = 512;
/// Least places of an image that is read where it lies.
const PLAIN: usize = if cfg!(test) { 16 } else { 128 };
/// Places that make up vectors of any machine.
const WIDE: usize = 16;
/// Most taps of one part of a sum.
const DEPTH: usize = if cfg!(test) { 48 } else { 640 };

/// Vectors of a row that never ends.
const ONE_ROW: usize = usize::MAX;
/// Most images, or groups of them, that one task takes one after the other.
const TURNS: usize = 4;
/// [`DEPTH`] where blocks of channels take turns.
const TURN: usize = if cfg!(test) { 48 } else { 96 };

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
pub(super) struct Layout {
    /// Whether places can be read where they lie in x.
    plain: bool,
    rows: Axis,
    columns: Axis,
    /// From one row to the next.
    pub(super) pitch: usize,
    pub(super) images: usize,
    /// For each phase of rows and columns its number among those that taps meet.
    phases: Vec<Option<usize>>,
    used: usize,
    blocks: Vec<Block>,
}

/// What one phase has of a plane of x: `rows` rows from the row `y0` of x on, in rows from `top` on, and the same with columns.
struct Block {
    slot: usize,
    top: usize,
    rows: usize,
    y0: usize,
    before: usize,
    count: usize,
    x0: usize,
}

impl Layout {
    pub(super) fn new(d: &Direct<'_>) -> Self {
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
        let mut phases = vec![None; rows.step * columns.step];
        let mut used = 0;
        for &(down, right) in d.taps {
            let slot = &mut phases[rows.tap(down).0 * columns.step + columns.tap(right).0];
            if slot.is_none() {
                *slot = Some(used);
                used += 1;
            }
        }
        // Without any tap there is still a place to read zeros from.
        let used = used.max(1);
        let one = d.inside * rows.len * pitch * used;
        let places = d.grid[0] * pitch;
        // As many images as fit, but no more than make up enough places, and of those the number that wastes least of the
        // last vectors; twice as much memory where that still is a lot.
        let waste = |images: usize| (images * places).next_multiple_of(WIDE) as f64 / (images * places) as f64;
        let best = |room: usize| {
            let most = (room / one.max(1)).clamp(1, PLACES.div_ceil(places)).min(d.batch.div_ceil(4)).max(1);
            (1..=most).rev().min_by(|&a, &b| waste(a).total_cmp(&waste(b))).unwrap_or(1)
        };
        // Whole rows of single taps need no zeros between them, and with enough of them the end of the last vector counts little.
        let plain = d.taps == [(0, 0)] && d.step == [1, 1] && d.size == d.grid && pitch == d.grid[1] && places >= PLAIN;
        let images = Some(1)
            .filter(|_| plain)
            .or_else(|| Some(best(INSIDE)).filter(|&n| waste(n) < 1.08))
            .unwrap_or_else(|| best(2 * INSIDE));
        let mut blocks = Vec::with_capacity(used);
        for (phase, slot) in phases.iter().enumerate() {
            let Some(slot) = *slot else { continue };
            let (top, rows, y0) = rows.inner(phase / columns.step, d.size[0]);
            let (before, count, x0) = columns.inner(phase % columns.step, d.size[1]);
            if rows > 0 && count > 0 {
                blocks.push(Block { slot, top, rows, y0, before, count, x0 });
            }
        }
        Self { plain, rows, columns, pitch, images, phases, used, blocks }
    }

    /// Elements of one channel of `images` images.
    pub(super) fn channel(&self, images: usize) -> usize {
        self.used * self.plane(images)
    }

    /// Elements of one phase. Where there are several, each begins on a line of the cache: so do then the vectors of the taps
    /// that meet its beginning, which are many of them.
    fn plane(&self, images: usize) -> usize {
        let all = self.rows.len * images * self.pitch;
        if self.used > 1 { all.next_multiple_of(LINE) } else { all }
    }

    pub(super) fn offsets(&self, d: &Direct<'_>, images: usize) -> Vec<u32> {
        let (channel, plane) = (self.channel(images), self.plane(images));
        let tap = |&(down, right): &(isize, isize)| {
            let ((py, y), (px, x)) = (self.rows.tap(down), self.columns.tap(right));
            let slot = self.phases[py * self.columns.step + px].unwrap_or_default();
            slot * plane + y * images * self.pitch + x
        };
        let taps: Vec<usize> = d.taps.iter().map(tap).collect();
        (0..d.inside).flat_map(|c| taps.iter().map(move |t| (c * channel + t) as u32)).collect()
    }
}

impl Direct<'_> {
    /// Some images, if they are there and are one piece.
    fn images<'x>(&self, x: &'x [f32], first: usize, count: usize) -> &'x [f32] {
        let one = self.inside * self.size[0] * self.size[1];
        let end = if self.groups == 1 { (first + count).min(self.batch) } else { 0 };
        x.get(first * one..end * one).unwrap_or_default()
    }

    /// Whether blocks of output channels take turns at each tile of places.
    fn takes_turns(&self) -> bool {
        self.outside >= 16
    }

    /// Computes all places. Each task has some images of one group, and some of its output channels where there are few
    /// images.
    pub(crate) fn run(&self, x: &[f32], y: &mut [f32]) {
        if self.batch * self.groups * self.outside * self.grid[0] * self.grid[1] == 0 {
            return;
        }
        if depthwise::fits(self) {
            return depthwise::run(self, x, y);
        }
        let arch = arch();
        let layout = Layout::new(self);
        let whole = layout.offsets(self, layout.images);
        let chunks = self.batch.div_ceil(layout.images);
        let rest = self.batch - (chunks - 1) * layout.images;
        let partial = if rest == layout.images { Vec::new() } else { layout.offsets(self, rest) };
        let places = self.grid[0] * self.grid[1];
        let products = self.inside * self.taps.len() + 8 * PRODUCTS;
        let operations = self.batch * self.groups * self.outside * places * products / PRODUCTS;
        // Each part pads its images again, so parts are made only where there is too little else to share. They do not
        // change the order of any sum.
        let blocks = self.outside.div_ceil(8);
        let threads = if worth(operations) { rayon::current_num_threads() } else { 1 };
        let wanted = if threads == 1 || chunks * self.groups >= 4 * threads { 1 } else { 2 * threads };
        let parts = wanted.div_ceil(chunks * self.groups).clamp(1, blocks);
        let each = blocks.div_ceil(parts);
        let parts = blocks.div_ceil(each);
        // Several small groups are one task.
        let work = layout.images * places * self.outside * (self.inside * self.taps.len() + 8);
        let groups_each = (TASK / work.max(1)).clamp(1, self.groups);
        let group_tasks = self.groups.div_ceil(groups_each);
        let shared = Shared::new(y);
        // Several images one after the other lie between the same zeros.
        let turns = (chunks / (4 * threads)).clamp(1, TURNS);
        let image_tasks = chunks.div_ceil(turns);
        parallel(image_tasks * group_tasks * parts, operations, |task| {
            let (image_task, groups, part) = (task / (group_tasks * parts), task / parts % group_tasks, task % parts);
            let groups = groups * groups_each..((groups + 1) * groups_each).min(self.groups);
            let channels = part * each * 8..((part + 1) * each * 8).min(self.outside);
            let lines = if self.takes_turns() { channels.len().next_multiple_of(8) } else { 8 };
            let inside = |images: usize| (self.inside * layout.channel(images) + SLACK).next_multiple_of(LINE);
            let outside = |images: usize| (self.grid[0] * images * layout.pitch + SLACK).next_multiple_of(LINE);
            with_scratch(inside(layout.images) + lines * outside(layout.images), |scratch| {
                let mut zeroed = false;
                for chunk in image_task * turns..((image_task + 1) * turns).min(chunks) {
                    let partly = chunk + 1 == chunks && rest < layout.images;
                    let (images, offsets) = if partly { (rest, &partial) } else { (layout.images, &whole) };
                    let (line, (scratch, result)) = (outside(images), scratch.split_at_mut(inside(images)));
                    zeroed = arch.dispatch(Task {
                        direct: self,
                        layout: &layout,
                        x,
                        first: chunk * layout.images,
                        images,
                        groups: groups.clone(),
                        group: 0,
                        channels: channels.clone(),
                        offsets,
                        farthest: offsets.iter().copied().max().unwrap_or(0) as usize,
                        scratch,
                        zeroed: zeroed && !partly,
                        start: None,
                        per_row: ONE_ROW,
                        ahead: self.images(x, chunk * layout.images + images, layout.images),
                        result,
                        line,
                        y: shared,
                    });
                }
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
    groups: Range<usize>,
    /// The one at work.
    group: usize,
    channels: Range<usize>,
    offsets: &'a [u32],
    /// The largest of them.
    farthest: usize,
    /// The padded images.
    scratch: &'a mut [f32],
    /// Whether there are zeros around them already.
    zeroed: bool,
    /// Where the image begins in x, if it is read there.
    start: Option<usize>,
    /// The images that come next; where there are groups, none.
    ahead: &'a [f32],
    /// Vectors of a row, where rows are whole vectors and zeros between them can be passed over; else all is one row.
    per_row: usize,
    /// A line of places for each of 8 channels, or of all, if they take turns.
    result: &'a mut [f32],
    /// Elements of such a line.
    line: usize,
    y: Shared<'a>,
}

impl WithSimd for Task<'_> {
    /// Whether there are zeros around the images now.
    type Output = bool;
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) -> bool {
        let d = self.direct;
        let plane = d.grid[0] * d.grid[1];
        if d.grid[1].is_multiple_of(S::F32_LANES) && self.layout.pitch > d.grid[1] {
            self.per_row = d.grid[1] / S::F32_LANES;
        }
        for group in self.groups.clone() {
            self.group = group;
            let start = (self.first * d.groups + group) * d.inside * plane;
            // The last vectors read behind the image, which must be there.
            let end = start + d.inside * plane + SLACK;
            self.start = (self.layout.plain && end <= self.x.len()).then_some(start);
            if self.start.is_none() {
                // Where zeros stand is the same for all groups.
                if !std::mem::replace(&mut self.zeroed, true) {
                    self.scratch.fill(0.0);
                }
                let at = Images { first: self.first, count: self.images, group };
                pad(simd, self.direct, self.layout, self.x, at, self.scratch);
            }
            self.channels(simd);
        }
        self.zeroed
    }
}

impl Task<'_> {
    #[inline(always)]
    fn channels<S: Simd>(&mut self, simd: S) {
        let line = self.line;
        let mut channel = self.channels.start;
        if S::F32_LANES == 16 && self.direct.takes_turns() {
            channel = self.in_turn::<S>(simd);
        }
        while channel < self.channels.end {
            let left = self.channels.end - channel;
            let rows = match (S::F32_LANES, left) {
                (16, 8..) => self.block::<S, 8, 3>(simd, channel),
                (_, 4..) => self.block::<S, 4, 2>(simd, channel),
                (_, 2..) => self.block::<S, 2, 4>(simd, channel),
                _ => self.block::<S, 1, 6>(simd, channel),
            };
            for r in 0..rows {
                self.write(simd, channel + r, r * line);
            }
            channel += rows;
        }
    }

    /// Of the places of all images.
    fn vectors(&self, lanes: usize) -> usize {
        let rows = self.direct.grid[0] * self.images;
        if self.per_row == ONE_ROW { (rows * self.layout.pitch).div_ceil(lanes) } else { rows * self.per_row }
    }

    /// All places of the blocks of 8 channels, which take turns at each tile of places, so that what they read of the
    /// images stays in the nearest cache; returns the first channel that is left.
    #[inline(always)]
    fn in_turn<S: Simd>(&mut self, simd: S) -> usize {
        const R: usize = 8;
        const V: usize = 3;
        let vectors = self.vectors(S::F32_LANES);
        let depth = self.offsets.len();
        let each = depth.div_ceil(depth.div_ceil(TURN).max(1)).max(1);
        let (first, blocks) = (self.channels.start, self.channels.len() / R);
        // The next images come nearer meanwhile, some lines of the cache for each tile.
        let tiles = vectors.div_ceil(V) * depth.div_ceil(each) * blocks;
        let mut lines = self.ahead.chunks((self.ahead.len() / tiles.max(1) + 1).next_multiple_of(LINE));
        for place in (0..vectors).step_by(V) {
            let left = (vectors - place).min(V);
            let mut from = 0;
            loop {
                let range = from..(from + each).min(depth);
                for block in 0..blocks {
                    let (channel, at) = (first + block * R, block * R);
                    lines.next().unwrap_or_default().iter().step_by(LINE).for_each(prefetch);
                    match left {
                        1 => self.tile::<S, R, 1>(simd, [channel, at], place, range.clone()),
                        2 => self.tile::<S, R, 2>(simd, [channel, at], place, range.clone()),
                        _ => self.tile::<S, R, V>(simd, [channel, at], place, range.clone()),
                    }
                }
                from = range.end;
                if from == depth {
                    break;
                }
            }
        }
        for channel in 0..blocks * R {
            self.write(simd, first + channel, channel * self.line);
        }
        first + blocks * R
    }

    /// All places of `R` channels; returns `R`.
    #[inline(always)]
    fn block<S: Simd, const R: usize, const V: usize>(&mut self, simd: S, channel: usize) -> usize {
        let vectors = self.vectors(S::F32_LANES);
        let depth = self.offsets.len();
        // Parts of the sum whose weights stay in the nearest cache.
        let each = depth.div_ceil(depth.div_ceil(DEPTH).max(1)).max(1);
        let mut from = 0;
        loop {
            let range = from..(from + each).min(depth);
            let mut vector = 0;
            while vector + V <= vectors {
                self.tile::<S, R, V>(simd, [channel, 0], vector, range.clone());
                vector += V;
            }
            // The rest in narrow tiles, so that nothing is computed that is not asked for.
            while vector < vectors {
                if vectors - vector > 1 {
                    self.tile::<S, R, 2>(simd, [channel, 0], vector, range.clone());
                    vector += 2;
                } else {
                    self.tile::<S, R, 1>(simd, [channel, 0], vector, range.clone());
                    vector += 1;
                }
            }
            from = range.end;
            if from == depth {
                return R;
            }
        }
    }

    /// A part of the sum of `V` vectors of places of `R` channels, whose lines of results begin at `at`, from a vector on.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        [channel, at]: [usize; 2],
        vector: usize,
        range: Range<usize>,
    ) {
        let (d, line) = (self.direct, self.line);
        let depth = self.offsets.len();
        let weight = &d.weight[(self.group * d.outside + channel) * depth..][..R * depth];
        let width = V * S::F32_LANES;
        let places = self.start.map_or(&*self.scratch, |start| &self.x[start..]);
        let (per_row, pitch, place) = (self.per_row, self.layout.pitch, vector * S::F32_LANES);
        let starts: [usize; V] = std::array::from_fn(|v| {
            let v = vector + v;
            v / per_row * pitch + v % per_row * S::F32_LANES
        });
        let end = self.farthest + starts[V - 1] + S::F32_LANES;
        assert!(end <= places.len() && range.start <= range.end && range.end <= depth);
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        if range.start > 0 {
            for (r, sums) in sums.iter_mut().enumerate() {
                let from = &self.result[(at + r) * line + place..][..width];
                for (from, sum) in from.chunks_exact(S::F32_LANES).zip(sums) {
                    *sum = read(simd, from);
                }
            }
        }
        // SAFETY: `range` is within the `depth` numbers of each of the `R` lines of weights, and of the offsets.
        let (weights, offsets) = unsafe {
            let weights: [*const f32; R] = std::array::from_fn(|r| weight.as_ptr().add(r * depth + range.start));
            (weights, self.offsets.as_ptr().add(range.start))
        };
        for k in 0..range.len() {
            // SAFETY: as above for the offset; none is more than the farthest, and no vector begins behind the last one, whose
            // end there was checked.
            let from = unsafe { places.as_ptr().add(*offsets.add(k) as usize) };
            let mut x = [simd.splat_f32s(0.0); V];
            for (x, start) in x.iter_mut().zip(starts) {
                // SAFETY: as above.
                *x = unsafe { from.add(start).cast::<S::f32s>().read_unaligned() };
            }
            unrolled!(r < R, {
                // SAFETY: as above.
                let w = simd.splat_f32s(unsafe { *weights[r].add(k) });
                for v in 0..V {
                    sums[r][v] = simd.mul_add_e_f32s(w, x[v], sums[r][v]);
                }
            });
        }
        for (r, sums) in sums.iter().enumerate() {
            let to = &mut self.result[(at + r) * line + place..][..width];
            for (to, &sum) in to.chunks_exact_mut(S::F32_LANES).zip(sums) {
                write(simd, to, sum);
            }
        }
    }

    /// Writes the places of one channel to y.
    #[inline(always)]
    fn write<S: Simd>(&self, simd: S, channel: usize, line: usize) {
        let (d, t) = (self.direct, self.direct.target);
        let bias = d.epilogue.bias.map_or(0.0, |b| b[self.group * d.outside + channel]);
        let start = self.group * t.group + t.starts[channel];
        // Rows without garbage between them are one row.
        let pitch = if self.per_row == ONE_ROW { self.layout.pitch } else { d.grid[1] };
        let merged = self.images == 1 && pitch == d.grid[1] && t.down == d.grid[1] && t.right == 1;
        let (rows, len) = if merged { (1, d.grid[0] * d.grid[1]) } else { (d.grid[0], d.grid[1]) };
        let row = Line::new(simd, len);
        for i in 0..rows {
            for image in 0..self.images {
                let from = &self.result[line + (i * self.images + image) * pitch..];
                let at = start + (self.first + image) * t.image + i * t.down;
                // SAFETY: places of different images, groups, channels and rows are apart, and each belongs to one task.
                let to = unsafe { self.y.part(at, (len - 1) * t.right + 1) };
                if t.right == 1 {
                    let residual = d.epilogue.residual.map(|r| &r[at..at + len]);
                    row.finish(simd, from, bias, residual, d.epilogue.activation, to);
                } else {
                    for (y, x) in to.iter_mut().step_by(t.right).zip(from) {
                        *y = *x;
                    }
                }
            }
        }
    }
}

/// Some images of one group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Images {
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) group: usize,
}

/// Copies the images into scratch memory, between the zeros.
#[inline(always)]
pub(super) fn pad<S: Simd>(simd: S, d: &Direct<'_>, l: &Layout, x: &[f32], at: Images, scratch: &mut [f32]) {
    let [height, width] = d.size;
    let plane = height * width;
    let image = d.groups * d.inside * plane;
    let (across, size) = (at.count * l.pitch, l.plane(at.count));
    for channel in 0..d.inside {
        let first = ((at.first * d.groups + at.group) * d.inside + channel) * plane;
        for block in &l.blocks {
            let to = (channel * l.used + block.slot) * size + block.top * across + block.before;
            let from = first + block.y0 * width + block.x0;
            let rows = Rows {
                rows: block.rows,
                images: at.count,
                len: block.count,
                from: [l.rows.step * width, image],
                to: [across, l.pitch],
            };
            match l.columns.step {
                1 => rows.copy(simd, &x[from..], &mut scratch[to..]),
                2 => rows.halve(&x[from..], &mut scratch[to..]),
                step => rows.each(|from_at, to_at| {
                    let from = x[from + from_at..].iter().step_by(step).take(block.count);
                    scratch[to + to_at..].iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                }),
            }
        }
    }
}

/// Rows of images to be copied.
struct Rows {
    rows: usize,
    images: usize,
    /// Elements of a row.
    len: usize,
    /// From one row, and from one image, to the next: where they are, and where they go.
    from: [usize; 2],
    to: [usize; 2],
}

impl Rows {
    /// Calls `work` with the place of each row on both sides, in the order in which they go.
    #[inline(always)]
    fn each(&self, mut work: impl FnMut(usize, usize)) {
        for y in 0..self.rows {
            for n in 0..self.images {
                work(y * self.from[0] + n * self.from[1], y * self.to[0] + n * self.to[1]);
            }
        }
    }

    /// The place of the last row, of rows that are `steps` apart.
    fn last(&self, steps: [usize; 2]) -> usize {
        (self.rows - 1) * steps[0] + (self.images - 1) * steps[1]
    }

    /// Copies rows as they are. Behind the last element of each zeros are written, less than a vector of them: what is there
    /// is zero, or written later.
    #[inline(always)]
    fn copy<S: Simd>(&self, simd: S, from: &[f32], to: &mut [f32]) {
        let line = Line::new(simd, self.len);
        let (from_end, to_end) = (self.last(self.from) + self.len, self.last(self.to) + line.room());
        assert!(from_end <= from.len() && to_end <= to.len());
        let (from, to) = (from.as_ptr(), to.as_mut_ptr());
        self.each(
            #[inline(always)]
            // SAFETY: no row is behind the last one, for which there is room on both sides.
            |from_at, to_at| unsafe { line.copy_at(simd, from.add(from_at), to.add(to_at)) },
        );
    }

    /// Copies every second element, `len` of them.
    #[inline(always)]
    fn halve(&self, from: &[f32], to: &mut [f32]) {
        let (from_end, to_end) = (self.last(self.from) + 2 * self.len, self.last(self.to) + self.len);
        assert!(from_end <= from.len() + 1 && to_end <= to.len());
        // Vectors of four read the element behind the last one as well, if it is there.
        let fours = if from_end <= from.len() { self.len / 4 } else { (self.len - 1) / 4 };
        let (from, to) = (from.as_ptr(), to.as_mut_ptr());
        self.each(
            #[inline(always)]
            |from_at, to_at| {
                // SAFETY: no row is behind the last one, for which there is room on both sides.
                unsafe {
                    let (from, to) = (from.add(from_at), to.add(to_at));
                    for i in 0..fours {
                        halve4(from.add(8 * i), to.add(4 * i));
                    }
                    for i in 4 * fours..self.len {
                        *to.add(i) = *from.add(2 * i);
                    }
                }
            },
        );
    }
}

/// Copies every second of eight elements.
/// # Safety
/// There are eight at `from`, and room for four at `to`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn halve4(from: *const f32, to: *mut f32) {
    use std::arch::x86_64::{_mm_loadu_ps, _mm_shuffle_ps, _mm_storeu_ps};
    // SAFETY: the caller's promise; SSE is part of x86-64.
    unsafe {
        let pairs = (_mm_loadu_ps(from), _mm_loadu_ps(from.add(4)));
        _mm_storeu_ps(to, _mm_shuffle_ps::<0b10_00_10_00>(pairs.0, pairs.1));
    }
}

/// As above.
/// # Safety
/// As above.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
unsafe fn halve4(from: *const f32, to: *mut f32) {
    for i in 0..4 {
        // SAFETY: the caller's promise.
        unsafe { *to.add(i) = *from.add(2 * i) };
    }
}

/// Vectors of a row: whole ones, and a last one of which only a part counts.
pub(super) struct Line<S: Simd> {
    len: usize,
    whole: usize,
    tail: MemMask<S::m32s>,
}

impl<S: Simd> Line<S> {
    #[inline(always)]
    pub(super) fn new(simd: S, len: usize) -> Self {
        let rest = len % S::F32_LANES;
        Self { len, whole: len / S::F32_LANES, tail: first(simd, rest) }
    }

    /// Elements of all vectors.
    fn room(&self) -> usize {
        self.len.next_multiple_of(S::F32_LANES)
    }

    /// Copies the row at the beginning of `from`. Behind its last element zeros are written, less than a vector of them.
    #[inline(always)]
    pub(super) fn copy(&self, simd: S, from: &[f32], to: &mut [f32]) {
        assert!(from.len() >= self.len && to.len() >= self.room());
        // SAFETY: both slices are as long as they must be.
        unsafe { self.copy_at(simd, from.as_ptr(), to.as_mut_ptr()) }
    }

    /// [`Self::copy`] without a look at lengths.
    /// # Safety
    /// The row is at `from`, and there is room for all vectors at `to`.
    #[inline(always)]
    unsafe fn copy_at(&self, simd: S, from: *const f32, to: *mut f32) {
        let whole = self.whole * S::F32_LANES;
        for at in (0..whole).step_by(S::F32_LANES) {
            // SAFETY: both sides have the whole vectors.
            unsafe { to.add(at).cast::<S::f32s>().write_unaligned(from.add(at).cast::<S::f32s>().read_unaligned()) }
        }
        if self.len > whole {
            // SAFETY: the mask covers what is left of the row, and there is room for one more vector.
            unsafe {
                let x = simd.mask_load_ptr_f32s(self.tail, from.add(whole));
                to.add(whole).cast::<S::f32s>().write_unaligned(x);
            }
        }
    }

    /// Writes `activation(from + bias + residual)`.
    #[inline(always)]
    fn finish(
        &self,
        simd: S,
        from: &[f32],
        bias: f32,
        residual: Option<&[f32]>,
        activation: Activation,
        to: &mut [f32],
    ) {
        assert!(from.len() >= (self.whole + 1) * S::F32_LANES && to.len() >= self.len);
        assert!(residual.is_none_or(|r| r.len() >= self.len));
        let bias = simd.splat_f32s(bias);
        let vectors = self.whole + usize::from(!self.len.is_multiple_of(S::F32_LANES));
        for v in 0..vectors {
            let at = v * S::F32_LANES;
            // SAFETY: `from` has a vector more than the whole ones.
            let x = unsafe { from.as_ptr().add(at).cast::<S::f32s>().read_unaligned() };
            let mut x = simd.add_f32s(x, bias);
            if v < self.whole {
                // SAFETY: both slices have the whole vectors.
                unsafe {
                    if let Some(r) = residual {
                        x = simd.add_f32s(x, r.as_ptr().add(at).cast::<S::f32s>().read_unaligned());
                    }
                    let y = activation.apply(simd, x);
                    to.as_mut_ptr().add(at).cast::<S::f32s>().write_unaligned(y);
                }
            } else {
                // SAFETY: the mask covers what is left of both slices.
                unsafe {
                    if let Some(r) = residual {
                        x = simd.add_f32s(x, simd.mask_load_ptr_f32s(self.tail, r.as_ptr().add(at)));
                    }
                    simd.mask_store_ptr_f32s(self.tail, to.as_mut_ptr().add(at), activation.apply(simd, x));
                }
            }
        }
    }
}
