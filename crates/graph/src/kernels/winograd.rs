//! 3×3 convolutions with stride 1 by Winograd's minimal filtering: 16 products give 2×2 outputs, where the
//! definition takes 36.
//!
//! Tiles of 4×4 places, 16 channels as vectors, are transformed (`V`), multiplied with the transformed weight (`U`) as 16
//! products of matrices, and transformed back. The gradient of the input is the same with the weight turned; the gradient
//! of the weight takes the transformed gradient in the place of `U`.
//!
//! # Source
//! Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv:1509.09308, section 4.1:
//! `Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`.
//! # Guarantees
//! ‖out − ref‖ / ‖ref‖ ≤ 2e-6 over float64 (test); the direct sum has 1e-6. Infinities would cancel to NaN on the way: where
//! something is not finite, the functions answer `false`, and the direct sum must be taken.
//! Memory: `U`, 16/9 of the weight; and [`NEAR`] or [`WIDE`] floats of tiles.

mod products;
mod tiles;
mod weight;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use pulp::Simd;

use super::convolution::Shape;
use super::epilogue::Epilogue;
use super::transpose::transpose;
use super::vectors::{arch, lanes};
use super::{PRODUCTS, Shared, parallel, with_scratch};
use products::{Correlate, Multiply};
use tiles::{Collect, Spread};
use weight::{Taps, Weight};

/// Channels of a block.
const BLOCK: usize = 16;
/// Elements of a transformed tile.
const TILE: usize = 16;
/// Tiles that a step of the products takes at once, or several times as many.
const ROWS: usize = 4;
/// Floats of transformed tiles of one task, such that they stay in the second-level cache.
const NEAR: usize = if cfg!(test) { 1 << 14 } else { 1 << 18 };
/// Floats of transformed tiles that all tasks share.
const WIDE: usize = if cfg!(test) { 1 << 16 } else { 1 << 21 };
/// Elements of a transformed weight that tasks read one after the other; larger ones are divided among them.
const LIGHT: usize = 1 << 19;
/// Fewest channels on either side for which transforming pays.
const LEAST: usize = 32;
/// The same for the gradient of the weight, whose tasks share all tiles.
const LEAST_SHARED: usize = 64;
/// Fewest tiles for which transforming the weight pays.
const FEW: usize = 48;

/// Whether a convolution has this form, and is large enough.
pub(crate) fn fits(s: &Shape) -> bool {
    let form = s.groups == 1
        && s.kernel == [3, 3]
        && s.stride == [1, 1]
        && s.dilation == [1, 1]
        && s.padding[0] <= 2
        && s.padding[1] <= 2;
    let blocks = s.inside.is_multiple_of(BLOCK) && s.outside.is_multiple_of(BLOCK);
    let tiles = s.batch * Plane::of(s).down * Plane::of(s).right;
    let large = s.inside.min(s.outside) >= LEAST && tiles >= FEW;
    form && blocks && large && lanes() >= 8
}

/// The same for the gradient of the weight.
pub(crate) fn fits_weight(s: &Shape) -> bool {
    s.inside.min(s.outside) >= LEAST_SHARED && fits(s)
}

/// Cross-correlation with the epilogue; `false`, and nothing of use in `y`, where something is not finite.
pub(crate) fn forward(s: &Shape, x: &[f32], weight: &[f32], epilogue: Epilogue<'_>, y: &mut [f32]) -> bool {
    let weight = Weight { data: weight, inside: s.inside, outside: s.outside, turned: false };
    run(Plane::of(s), s.batch, x, &weight, epilogue, y)
}

/// The gradient of the input; `false` as in [`forward`].
pub(crate) fn input_gradient(s: &Shape, gradient: &[f32], weight: &[f32], x: &mut [f32]) -> bool {
    let weight = Weight { data: weight, inside: s.outside, outside: s.inside, turned: true };
    run(Plane::turned(s), s.batch, gradient, &weight, Epilogue::default(), x)
}

fn run(plane: Plane, batch: usize, x: &[f32], weight: &Weight<'_>, epilogue: Epilogue<'_>, y: &mut [f32]) -> bool {
    let Weight { inside, outside, .. } = *weight;
    let rows = batch * plane.down;
    let operations = rows * plane.right * TILE * inside * outside / PRODUCTS;
    let finite = AtomicBool::new(true);
    with_scratch(TILE * inside * outside, |u| {
        weight.transform(u, &finite);
        let u = &*u;
        let to = Shared::new(y);
        let each = |most: usize| (most / (TILE * (inside + outside) * plane.right)).max(1);
        if u.len() <= LIGHT {
            let each = each(NEAR);
            parallel(rows.div_ceil(each), operations, |task| {
                let part = Part::new(plane, task * each..((task + 1) * each).min(rows));
                with_scratch(part.len(inside) + part.len(outside), |scratch| {
                    let (v, m) = scratch.split_at_mut(part.len(inside));
                    let (v, m) = (Shared::new(v), Shared::new(m));
                    for block in 0..inside / BLOCK {
                        part.spread(x, inside, block, 0..part.rows.len(), Side::Input, v, &finite);
                    }
                    for element in 0..TILE {
                        part.multiply(u, [inside, outside], element, 0..outside / BLOCK, v, m);
                    }
                    for block in 0..outside / BLOCK {
                        part.collect(outside, block, 0..part.rows.len(), epilogue, m, to);
                    }
                });
            });
        } else {
            let each = each(WIDE);
            for first in (0..rows).step_by(each) {
                let part = Part::new(plane, first..(first + each).min(rows));
                with_scratch(part.len(inside) + part.len(outside), |scratch| {
                    let (v, m) = scratch.split_at_mut(part.len(inside));
                    let (v, m) = (Shared::new(v), Shared::new(m));
                    part.spread_all(x, inside, Side::Input, v, &finite);
                    let panels = outside.div_ceil(4 * BLOCK);
                    parallel(TILE * panels, operations, |task| {
                        let first = task % panels * 4;
                        let blocks = first..(first + 4).min(outside / BLOCK);
                        part.multiply(u, [inside, outside], task / panels, blocks, v, m);
                    });
                    part.each_band(outside / BLOCK, operations, |block, rows| {
                        part.collect(outside, block, rows, epilogue, m, to);
                    });
                });
            }
        }
    });
    finite.into_inner()
}

/// `weight [outside, inside, 3, 3]` of `x` and the output's gradient; `false` as in [`forward`].
pub(crate) fn weight_gradient(s: &Shape, x: &[f32], gradient: &[f32], weight: &mut [f32]) -> bool {
    let plane = Plane::of(s);
    let (inside, outside) = (s.inside, s.outside);
    let rows = s.batch * plane.down;
    let operations = rows * plane.right * TILE * inside * outside / PRODUCTS;
    let each = (WIDE / (TILE * (inside + outside) * plane.right)).max(1);
    let finite = AtomicBool::new(true);
    with_scratch(TILE * inside * outside, |sums| {
        let all = Shared::new(sums);
        for first in (0..rows).step_by(each) {
            let part = Part::new(plane, first..(first + each).min(rows));
            with_scratch(part.len(inside) + part.len(outside), |scratch| {
                let (v, g) = scratch.split_at_mut(part.len(inside));
                let (v, g) = (Shared::new(v), Shared::new(g));
                part.spread_all(x, inside, Side::Input, v, &finite);
                part.spread_all(gradient, outside, Side::Gradient, g, &finite);
                let panels = outside.div_ceil(2 * BLOCK);
                parallel(TILE * panels, operations, |task| {
                    let (element, at) = (task / panels, task % panels * 2);
                    let blocks = at..(at + 2).min(outside / BLOCK);
                    let from = (element * outside + at * BLOCK) * inside;
                    // SAFETY: each element of a tile has its own sums, and each block of channels its part of them.
                    let sums = unsafe { all.part(from, blocks.len() * BLOCK * inside) };
                    arch().dispatch(Correlate {
                        part: &part,
                        inside,
                        outside,
                        element,
                        blocks,
                        v,
                        g,
                        first: first == 0,
                        sums,
                    });
                });
            });
        }
        let to = Shared::new(weight);
        let sums = &*sums;
        parallel(outside / BLOCK, TILE * inside * outside * 2, |block| {
            // SAFETY: each block of output channels has its own part.
            let to = unsafe { to.part(block * BLOCK * inside * 9, BLOCK * inside * 9) };
            with_scratch(inside * 9 * BLOCK, |taps| {
                arch().dispatch(Taps { inside, outside, block, sums, taps });
                transpose(inside * 9, BLOCK, taps, BLOCK, to, inside * 9);
            });
        });
    });
    finite.into_inner()
}

/// Planes of places and their tiles of 2×2 outputs.
#[derive(Debug, Clone, Copy)]
struct Plane {
    input: [usize; 2],
    output: [usize; 2],
    padding: [usize; 2],
    /// Rows of tiles.
    down: usize,
    /// Tiles of a row.
    right: usize,
}

impl Plane {
    fn of(s: &Shape) -> Self {
        Self::new(s.input, s.output, s.padding)
    }

    /// Those of the gradient of the input: a convolution of the output's gradient.
    fn turned(s: &Shape) -> Self {
        Self::new(s.output, s.input, s.padding.map(|p| 2 - p))
    }

    fn new(input: [usize; 2], output: [usize; 2], padding: [usize; 2]) -> Self {
        Self { input, output, padding, down: output[0].div_ceil(2), right: output[1].div_ceil(2) }
    }

    /// Places of a row with what its last tile reaches.
    fn padded(&self) -> usize {
        2 * self.right + 2
    }

    /// Sizes and padding of what is transformed.
    fn side(&self, side: Side) -> ([usize; 2], [usize; 2]) {
        match side {
            Side::Input => (self.input, self.padding),
            Side::Gradient => (self.output, [0, 0]),
        }
    }
}

/// What is transformed to tiles.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    /// 4×4 places that overlap: `Bᵀ d B`.
    Input,
    /// 2×2 places: `A g Aᵀ`.
    Gradient,
}

/// Rows of tiles, through all images, that are transformed together: `[element][block][tile][channel of the block]`.
struct Part {
    plane: Plane,
    rows: Range<usize>,
    /// Tiles, rounded up to what a step of the products takes.
    tiles: usize,
}

/// Rows of tiles that are in scratch memory at once.
const BAND: usize = 8;

impl Part {
    fn new(plane: Plane, rows: Range<usize>) -> Self {
        let tiles = (rows.len() * plane.right).next_multiple_of(ROWS);
        Self { plane, rows, tiles }
    }

    /// Floats between two elements of a tile: one line of the cache apart from a power of two.
    fn element(&self, channels: usize) -> usize {
        channels * self.tiles + BLOCK
    }

    fn len(&self, channels: usize) -> usize {
        TILE * self.element(channels)
    }

    /// Rows of tiles of one image each, within `rows` of this part: their place in the part, image, first row, count.
    fn bands(&self, rows: Range<usize>) -> impl Iterator<Item = Band> + use<> {
        let (down, start, end) = (self.plane.down, self.rows.start, self.rows.start + rows.end);
        let mut next = start + rows.start;
        std::iter::from_fn(move || {
            let (image, row) = (next / down, next % down);
            let count = BAND.min(down - row).min(end - next);
            let band = Band { at: next - start, image, row, count };
            next += count;
            (count > 0).then_some(band)
        })
    }

    /// Calls `work` for every block of channels and some rows.
    fn each_band(&self, blocks: usize, operations: usize, work: impl Fn(usize, Range<usize>) + Sync + Send) {
        let each = (64 / self.plane.right).max(1);
        let parts = self.rows.len().div_ceil(each);
        parallel(blocks * parts, operations, |task| {
            let first = task % parts * each;
            work(task / parts, first..(first + each).min(self.rows.len()));
        });
    }

    fn spread_all(&self, x: &[f32], channels: usize, side: Side, to: Shared<'_>, finite: &AtomicBool) {
        let operations = self.len(channels) * 4;
        self.each_band(channels / BLOCK, operations, |block, rows| {
            self.spread(x, channels, block, rows, side, to, finite);
        });
    }

    /// Transforms the tiles of one block of channels of `rows`.
    #[allow(clippy::too_many_arguments, reason = "what is read, which part of it, and where it goes")]
    fn spread(
        &self,
        x: &[f32],
        channels: usize,
        block: usize,
        rows: Range<usize>,
        side: Side,
        to: Shared<'_>,
        finite: &AtomicBool,
    ) {
        with_scratch((2 * BAND + 2) * self.plane.padded() * BLOCK, |places| {
            let whole = arch().dispatch(Spread { part: self, x, channels, block, rows, side, places, to });
            if !whole {
                finite.store(false, Ordering::Relaxed);
            }
        });
    }

    /// One element of the tiles' sums over input channels, for some blocks of output channels.
    fn multiply(
        &self,
        u: &[f32],
        [inside, outside]: [usize; 2],
        element: usize,
        blocks: Range<usize>,
        v: Shared<'_>,
        m: Shared<'_>,
    ) {
        arch().dispatch(Multiply { part: self, u, inside, outside, element, blocks, v, m });
    }

    /// Transforms sums back to places of one block of output channels, and finishes them.
    fn collect(
        &self,
        channels: usize,
        block: usize,
        rows: Range<usize>,
        epilogue: Epilogue<'_>,
        m: Shared<'_>,
        to: Shared<'_>,
    ) {
        let places = 4 * BAND * self.plane.right * BLOCK;
        with_scratch(2 * places, |scratch| {
            let (places, turned) = scratch.split_at_mut(places);
            arch().dispatch(Collect { part: self, channels, block, rows, epilogue, m, places, turned, to });
        });
    }
}

/// Rows of tiles of one image.
struct Band {
    /// The first row's place in its part.
    at: usize,
    image: usize,
    row: usize,
    count: usize,
}

/// A vector of `from` at `at`.
#[inline(always)]
fn load<S: Simd>(_: S, from: &[f32], at: usize) -> S::f32s {
    let from = &from[at..at + S::F32_LANES];
    // SAFETY: there are as many floats as the vector has lanes.
    unsafe { from.as_ptr().cast::<S::f32s>().read_unaligned() }
}

#[inline(always)]
fn store<S: Simd>(_: S, to: &mut [f32], at: usize, value: S::f32s) {
    let to = &mut to[at..at + S::F32_LANES];
    // SAFETY: as in `load`.
    unsafe { to.as_mut_ptr().cast::<S::f32s>().write_unaligned(value) }
}
