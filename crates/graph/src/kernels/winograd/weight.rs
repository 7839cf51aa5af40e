//! A weight to transformed tiles, and sums over tiles to its gradient.

#![allow(clippy::needless_range_loop, reason = "constant numbers keep vectors in registers")]

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use pulp::{Simd, WithSimd};

use super::super::transpose::transpose;
use super::super::vectors::arch;
use super::super::{Shared, parallel, with_scratch};
use super::{BLOCK, load, store};

/// A weight in memory, and which way it is read.
pub(super) struct Weight<'a> {
    /// `[outside, inside, 3, 3]`, or `[inside, outside, 3, 3]` with the taps from the last to the first where `turned`.
    pub(super) data: &'a [f32],
    pub(super) inside: usize,
    pub(super) outside: usize,
    pub(super) turned: bool,
}

/// Input channels of a weight that are transformed together.
const CHANNELS: usize = 32;

impl Weight<'_> {
    /// Writes `[element][block of output channels][input channel][channel of the block]`.
    pub(super) fn transform(&self, u: &mut [f32], finite: &AtomicBool) {
        let operations = u.len() * 4;
        let to = Shared::new(u);
        let parts = self.inside.div_ceil(CHANNELS);
        parallel(self.outside / BLOCK * parts, operations, |task| {
            let (block, first) = (task / parts, task % parts * CHANNELS);
            let channels = first..(first + CHANNELS).min(self.inside);
            with_scratch(CHANNELS * 9 * BLOCK, |taps| {
                if !arch().dispatch(WeightTiles { weight: self, block, channels, taps, to }) {
                    finite.store(false, Ordering::Relaxed);
                }
            });
        });
    }
}

pub(super) struct WeightTiles<'a> {
    pub(super) weight: &'a Weight<'a>,
    pub(super) block: usize,
    pub(super) channels: Range<usize>,
    /// `[input channel][tap][channel of the block]`.
    pub(super) taps: &'a mut [f32],
    pub(super) to: Shared<'a>,
}

impl WithSimd for WeightTiles<'_> {
    /// Whether everything is finite.
    type Output = bool;
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> bool {
        let w = self.weight;
        let (first, count) = (self.channels.start, self.channels.len());
        if w.turned {
            for (i, taps) in self.taps.chunks_exact_mut(9 * BLOCK).take(count).enumerate() {
                let from = &w.data[((first + i) * w.outside + self.block * BLOCK) * 9..];
                transpose(BLOCK, 9, from, 9, taps, BLOCK);
            }
        } else {
            let from = &w.data[(self.block * BLOCK * w.inside + first) * 9..];
            transpose(BLOCK, count * 9, from, w.inside * 9, self.taps, BLOCK);
        }
        let step = w.inside * w.outside;
        let mut check = simd.splat_f32s(0.0);
        for (c, taps) in self.taps.chunks_exact(9 * BLOCK).take(count).enumerate() {
            for lane in (0..BLOCK).step_by(S::F32_LANES) {
                let mut rows = [[simd.splat_f32s(0.0); 4]; 3];
                for i in 0..3 {
                    let row = std::array::from_fn(
                        #[inline(always)]
                        |j| {
                            let tap = i * 3 + j;
                            load(simd, taps, if w.turned { 8 - tap } else { tap } * BLOCK + lane)
                        },
                    );
                    rows[i] = weight_to_tile(simd, row);
                }
                for j in 0..4 {
                    let column = weight_to_tile(simd, [rows[0][j], rows[1][j], rows[2][j]]);
                    for i in 0..4 {
                        check = simd.mul_add_e_f32s(column[i], simd.splat_f32s(0.0), check);
                        let at = (i * 4 + j) * step + (self.block * w.inside + first + c) * BLOCK;
                        // SAFETY: each block of output channels and each input channel belongs to one task.
                        let to = unsafe { self.to.part(at, BLOCK) };
                        store(simd, to, lane, column[i]);
                    }
                }
            }
        }
        !simd.reduce_sum_f32s(check).is_nan()
    }
}
/// The gradient of the weight's taps, of the sums over tiles: `[input channel][tap][channel of the block]`.
pub(super) struct Taps<'a> {
    pub(super) inside: usize,
    pub(super) outside: usize,
    pub(super) block: usize,
    pub(super) sums: &'a [f32],
    pub(super) taps: &'a mut [f32],
}

impl WithSimd for Taps<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let step = self.inside * self.outside;
        for c in 0..self.inside {
            for lane in (0..BLOCK).step_by(S::F32_LANES) {
                let from = (self.block * self.inside + c) * BLOCK + lane;
                let mut columns = [[simd.splat_f32s(0.0); 3]; 4];
                for j in 0..4 {
                    let column = std::array::from_fn(
                        #[inline(always)]
                        |i| load(simd, self.sums, (i * 4 + j) * step + from),
                    );
                    columns[j] = weight_from_tile(simd, column);
                }
                for i in 0..3 {
                    let row = weight_from_tile(simd, [columns[0][i], columns[1][i], columns[2][i], columns[3][i]]);
                    for j in 0..3 {
                        store(simd, self.taps, (c * 9 + i * 3 + j) * BLOCK + lane, row[j]);
                    }
                }
            }
        }
    }
}

/// `G` of three numbers.
#[inline(always)]
fn weight_to_tile<S: Simd>(simd: S, [a, b, c]: [S::f32s; 3]) -> [S::f32s; 4] {
    let half = simd.splat_f32s(0.5);
    let sum = simd.mul_f32s(half, simd.add_f32s(a, c));
    let b = simd.mul_f32s(half, b);
    [a, simd.add_f32s(sum, b), simd.sub_f32s(sum, b), c]
}

/// `Gᵀ` of four numbers.
#[inline(always)]
fn weight_from_tile<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 3] {
    let half = simd.splat_f32s(0.5);
    let (b, c) = (simd.mul_f32s(half, b), simd.mul_f32s(half, c));
    let sum = simd.add_f32s(b, c);
    [simd.add_f32s(a, sum), simd.sub_f32s(b, c), simd.add_f32s(d, sum)]
}
