//! Places to transformed tiles, and sums of tiles back to places.

#![allow(clippy::needless_range_loop, reason = "constant numbers keep vectors in registers")]

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::super::Shared;
use super::super::epilogue::Epilogue;
use super::super::math::Function;
use super::super::transpose::transpose;
use super::super::vectors::{read, write};
use super::{BLOCK, Band, Part, Side, TILE, load, store};

pub(super) struct Spread<'a> {
    pub(super) part: &'a Part,
    pub(super) x: &'a [f32],
    pub(super) channels: usize,
    pub(super) block: usize,
    pub(super) rows: Range<usize>,
    pub(super) side: Side,
    pub(super) places: &'a mut [f32],
    pub(super) to: Shared<'a>,
}

impl WithSimd for Spread<'_> {
    /// Whether everything is finite.
    type Output = bool;
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) -> bool {
        let plane = self.part.plane;
        let mut check = simd.splat_f32s(0.0);
        for band in self.part.bands(self.rows.clone()) {
            self.turn(&band);
            for row in 0..band.count {
                for tile in 0..plane.right {
                    let at = (band.at + row) * plane.right + tile;
                    check = match self.side {
                        Side::Input => self.input(simd, row, tile, at, check),
                        Side::Gradient => self.gradient(simd, row, tile, at, check),
                    };
                }
            }
        }
        let used = self.part.rows.len() * plane.right;
        if self.rows.end == self.part.rows.len() {
            for at in used..self.part.tiles {
                for element in 0..TILE {
                    self.tile(element, at).fill(0.0);
                }
            }
        }
        !simd.reduce_sum_f32s(check).is_nan()
    }
}

impl Spread<'_> {
    /// The band's places with their channels innermost, and zeros around the plane.
    #[inline(always)]
    fn turn(&mut self, band: &Band) {
        let plane = self.part.plane;
        let pitch = plane.padded() * BLOCK;
        let ([height, width], [above, left]) = plane.side(self.side);
        let start = (band.image * self.channels + self.block * BLOCK) * height * width;
        // Places behind the last tile are not read.
        let count = width.min(plane.padded() - left);
        for (i, places) in self.places.chunks_exact_mut(pitch).take(2 * band.count + 2).enumerate() {
            let Some(row) = (2 * band.row + i).checked_sub(above).filter(|&r| r < height) else {
                places.fill(0.0);
                continue;
            };
            places[..left * BLOCK].fill(0.0);
            places[(left + count) * BLOCK..].fill(0.0);
            let from = &self.x[start + row * width..];
            transpose(BLOCK, count, from, height * width, &mut places[left * BLOCK..], BLOCK);
        }
    }

    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "tasks have different tiles")]
    fn tile(&self, element: usize, at: usize) -> &mut [f32] {
        let from = element * self.part.element(self.channels) + (self.block * self.part.tiles + at) * BLOCK;
        // SAFETY: each block of channels of each tile has its own part, and rows of tiles are divided among tasks.
        unsafe { self.to.part(from, BLOCK) }
    }

    #[inline(always)]
    fn input<S: Simd>(&self, simd: S, row: usize, tile: usize, at: usize, mut check: S::f32s) -> S::f32s {
        let pitch = self.part.plane.padded() * BLOCK;
        for lane in (0..BLOCK).step_by(S::F32_LANES) {
            let from = 2 * row * pitch + 2 * tile * BLOCK + lane;
            let mut d = [[simd.splat_f32s(0.0); 4]; 4];
            for i in 0..4 {
                let row = std::array::from_fn(
                    #[inline(always)]
                    |j| load(simd, self.places, from + i * pitch + j * BLOCK),
                );
                d[i] = to_tile(simd, row);
            }
            for j in 0..4 {
                let column = to_tile(simd, [d[0][j], d[1][j], d[2][j], d[3][j]]);
                for i in 0..4 {
                    check = simd.mul_add_e_f32s(column[i], simd.splat_f32s(0.0), check);
                    store(simd, self.tile(i * 4 + j, at), lane, column[i]);
                }
            }
        }
        check
    }

    #[inline(always)]
    fn gradient<S: Simd>(&self, simd: S, row: usize, tile: usize, at: usize, mut check: S::f32s) -> S::f32s {
        let pitch = self.part.plane.padded() * BLOCK;
        for lane in (0..BLOCK).step_by(S::F32_LANES) {
            let from = 2 * row * pitch + 2 * tile * BLOCK + lane;
            let mut g = [[simd.splat_f32s(0.0); 4]; 2];
            for i in 0..2 {
                let row =
                    [load(simd, self.places, from + i * pitch), load(simd, self.places, from + i * pitch + BLOCK)];
                g[i] = gradient_to_tile(simd, row);
            }
            for j in 0..4 {
                let column = gradient_to_tile(simd, [g[0][j], g[1][j]]);
                for i in 0..4 {
                    check = simd.mul_add_e_f32s(column[i], simd.splat_f32s(0.0), check);
                    store(simd, self.tile(i * 4 + j, at), lane, column[i]);
                }
            }
        }
        check
    }
}

pub(super) struct Collect<'a> {
    pub(super) part: &'a Part,
    pub(super) channels: usize,
    pub(super) block: usize,
    pub(super) rows: Range<usize>,
    pub(super) epilogue: Epilogue<'a>,
    pub(super) m: Shared<'a>,
    pub(super) places: &'a mut [f32],
    pub(super) turned: &'a mut [f32],
    pub(super) to: Shared<'a>,
}

impl WithSimd for Collect<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let plane = self.part.plane;
        let [height, width] = plane.output;
        for band in self.part.bands(self.rows.clone()) {
            for row in 0..band.count {
                for tile in 0..plane.right {
                    self.tile(simd, row, tile, (band.at + row) * plane.right + tile);
                }
            }
            let rows = (2 * band.count).min(height - 2 * band.row);
            let len = rows * width;
            let pitch = 2 * plane.right * BLOCK;
            for (row, places) in self.places.chunks_exact(pitch).take(rows).enumerate() {
                transpose(width, BLOCK, places, BLOCK, &mut self.turned[row * width..], len);
            }
            for lane in 0..BLOCK {
                let channel = self.block * BLOCK + lane;
                let at = (band.image * self.channels + channel) * height * width + 2 * band.row * width;
                // SAFETY: each row of tiles of each channel belongs to one task.
                let to = unsafe { self.to.part(at, len) };
                self.finish(simd, channel, at, &self.turned[lane * len..][..len], to);
            }
        }
    }
}

impl Collect<'_> {
    #[inline(always)]
    fn tile<S: Simd>(&mut self, simd: S, row: usize, tile: usize, at: usize) {
        let step = self.part.element(self.channels);
        for lane in (0..BLOCK).step_by(S::F32_LANES) {
            let from = (self.block * self.part.tiles + at) * BLOCK + lane;
            let mut columns = [[simd.splat_f32s(0.0); 2]; 4];
            for j in 0..4 {
                let column = std::array::from_fn(
                    #[inline(always)]
                    |i| {
                        // SAFETY: nobody writes the sums any more.
                        let m = &*unsafe { self.m.part((i * 4 + j) * step + from, S::F32_LANES) };
                        load(simd, m, 0)
                    },
                );
                columns[j] = from_tile(simd, column);
            }
            let pitch = 2 * self.part.plane.right * BLOCK;
            for i in 0..2 {
                let row_of = from_tile(simd, [columns[0][i], columns[1][i], columns[2][i], columns[3][i]]);
                let to = (2 * row + i) * pitch + 2 * tile * BLOCK + lane;
                store(simd, self.places, to, row_of[0]);
                store(simd, self.places, to + BLOCK, row_of[1]);
            }
        }
    }

    #[inline(always)]
    fn finish<S: Simd>(&self, simd: S, channel: usize, at: usize, from: &[f32], to: &mut [f32]) {
        let e = self.epilogue;
        let bias = simd.splat_f32s(e.bias.map_or(0.0, |b| b[channel]));
        for first in (0..to.len()).step_by(S::F32_LANES) {
            let range = first..(first + S::F32_LANES).min(to.len());
            let mut x = simd.add_f32s(read(simd, &from[range.clone()]), bias);
            if let Some(residual) = e.residual {
                x = simd.add_f32s(x, read(simd, &residual[at + first..at + range.end]));
            }
            write(simd, &mut to[range], e.activation.apply(simd, x));
        }
    }
}

/// `Bᵀ` of four numbers.
#[inline(always)]
fn to_tile<S: Simd>(simd: S, d: [S::f32s; 4]) -> [S::f32s; 4] {
    let [a, b, c, d] = d;
    [simd.sub_f32s(a, c), simd.add_f32s(b, c), simd.sub_f32s(c, b), simd.sub_f32s(b, d)]
}

/// `A` of two numbers.
#[inline(always)]
fn gradient_to_tile<S: Simd>(simd: S, [a, b]: [S::f32s; 2]) -> [S::f32s; 4] {
    [a, simd.add_f32s(a, b), simd.sub_f32s(a, b), simd.neg_f32s(b)]
}

/// `Aᵀ` of four numbers.
#[inline(always)]
fn from_tile<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 2] {
    [simd.add_f32s(simd.add_f32s(a, b), c), simd.sub_f32s(simd.sub_f32s(b, c), d)]
}
