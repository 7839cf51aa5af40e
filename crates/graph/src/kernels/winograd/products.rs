//! The 16 products of matrices, one for each element of a tile.

#![allow(clippy::needless_range_loop, reason = "constant numbers keep vectors in registers")]

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::super::Shared;
use super::super::vectors::unrolled;
use super::{BLOCK, Part, load, store};

pub(super) struct Multiply<'a> {
    pub(super) part: &'a Part,
    pub(super) u: &'a [f32],
    pub(super) inside: usize,
    pub(super) outside: usize,
    pub(super) element: usize,
    pub(super) blocks: Range<usize>,
    pub(super) v: Shared<'a>,
    pub(super) m: Shared<'a>,
}

impl WithSimd for Multiply<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (tiles, wide) = (self.part.tiles, self.inside * BLOCK);
        let (from, to) = (self.part.element(self.inside), self.part.element(self.outside));
        // SAFETY: nobody writes the transformed input any more.
        let v = &*unsafe { self.v.part(self.element * from, from) };
        let mut block = self.blocks.start;
        while block < self.blocks.end {
            let two = S::F32_LANES == BLOCK && self.blocks.end - block >= 2;
            let count = if two { 2 } else { 1 };
            let u = &self.u[(self.element * self.outside + block * BLOCK) * self.inside..][..count * wide];
            // SAFETY: each element of a tile has its own sums, and each block of channels its part of them.
            let m = unsafe { self.m.part(self.element * to + block * tiles * BLOCK, count * tiles * BLOCK) };
            let mut tile = 0;
            while tile < tiles {
                let left = tiles - tile;
                tile += match (S::F32_LANES, two) {
                    (BLOCK, true) if left >= 12 => products::<S, 12, 2, 1>(simd, v, u, tiles, tile, m),
                    (BLOCK, true) if left >= 8 => products::<S, 8, 2, 1>(simd, v, u, tiles, tile, m),
                    (BLOCK, true) => products::<S, 4, 2, 1>(simd, v, u, tiles, tile, m),
                    (BLOCK, false) if left >= 8 => products::<S, 8, 1, 1>(simd, v, u, tiles, tile, m),
                    (BLOCK, false) => products::<S, 4, 1, 1>(simd, v, u, tiles, tile, m),
                    (_, _) => products::<S, 4, 1, 2>(simd, v, u, tiles, tile, m),
                };
            }
            block += count;
        }
    }
}

/// Adds products of `R` numbers, `step` apart, with `B` blocks of `V` vectors.
/// # Safety
/// The numbers are at `a`, and 16 floats at each of `b`.
#[inline(always)]
unsafe fn add<S: Simd, const R: usize, const B: usize, const V: usize>(
    simd: S,
    a: *const f32,
    step: usize,
    b: [*const f32; B],
    sums: &mut [[[S::f32s; V]; B]; R],
) {
    let mut right = [[simd.splat_f32s(0.0); V]; B];
    for i in 0..B {
        for v in 0..V {
            // SAFETY: the caller's promise; `V` vectors are 16 floats.
            right[i][v] = unsafe { b[i].add(v * S::F32_LANES).cast::<S::f32s>().read_unaligned() };
        }
    }
    unrolled!(r < R, {
        // SAFETY: the caller's promise.
        let x = simd.splat_f32s(unsafe { *a.add(r * step) });
        for i in 0..B {
            for v in 0..V {
                sums[r][i][v] = simd.mul_add_e_f32s(x, right[i][v], sums[r][i][v]);
            }
        }
    });
}

/// `m[block][tile] = Σ v[c][tile] · u[block][c]` of `R` tiles from `tile` on, with 16 output channels of a block as
/// vectors; returns `R`.
#[inline(always)]
fn products<S: Simd, const R: usize, const B: usize, const V: usize>(
    simd: S,
    v: &[f32],
    u: &[f32],
    tiles: usize,
    tile: usize,
    m: &mut [f32],
) -> usize {
    const { assert!(B > 0) };
    let each = u.len() / B;
    let blocks = each / BLOCK / BLOCK;
    assert!(tile + R <= tiles && blocks * tiles * BLOCK <= v.len() && V * S::F32_LANES == BLOCK);
    let mut sums = [[[simd.splat_f32s(0.0); V]; B]; R];
    for c in 0..blocks {
        for lane in 0..BLOCK {
            // SAFETY: block `c` of `v` has `tiles` times 16 numbers, and the `R` tiles are among them; block `c` of each
            // block of `u` has 16 times 16.
            unsafe {
                let a = v.as_ptr().add((c * tiles + tile) * BLOCK + lane);
                let b = std::array::from_fn(
                    #[inline(always)]
                    |i| u.as_ptr().add(i * each + (c * BLOCK + lane) * BLOCK),
                );
                add::<S, R, B, V>(simd, a, BLOCK, b, &mut sums);
            }
        }
    }
    unrolled!(r < R, {
        for i in 0..B {
            for v in 0..V {
                store(simd, m, (i * tiles + tile + r) * BLOCK + v * S::F32_LANES, sums[r][i][v]);
            }
        }
    });
    R
}

/// One element of the sums over tiles, for some blocks of output channels.
pub(super) struct Correlate<'a> {
    pub(super) part: &'a Part,
    pub(super) inside: usize,
    pub(super) outside: usize,
    pub(super) element: usize,
    pub(super) blocks: Range<usize>,
    pub(super) v: Shared<'a>,
    pub(super) g: Shared<'a>,
    /// Whether the sums begin here.
    pub(super) first: bool,
    /// `[block][input channel][channel of the block]`.
    pub(super) sums: &'a mut [f32],
}

impl WithSimd for Correlate<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (S::F32_LANES, self.blocks.len()) {
            (BLOCK, 2) => self.run::<S, 8, 2, 1>(simd),
            (BLOCK, _) => self.run::<S, 8, 1, 1>(simd),
            (_, 2) => self.run::<S, 2, 2, 2>(simd),
            (_, _) => self.run::<S, 4, 1, 2>(simd),
        }
    }
}

impl Correlate<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize, const B: usize, const V: usize>(self, simd: S) {
        let tiles = self.part.tiles * BLOCK;
        let (v_step, g_step) = (self.part.element(self.inside), self.part.element(self.outside));
        // SAFETY: nobody writes the transformed tiles any more.
        let (v, g) =
            unsafe { (&*self.v.part(self.element * v_step, v_step), &*self.g.part(self.element * g_step, g_step)) };
        let mut right = [&g[..0]; B];
        for i in 0..B {
            right[i] = &g[(self.blocks.start + i) * tiles..][..tiles];
        }
        for c in (0..self.inside).step_by(R) {
            let v = &v[c / BLOCK * tiles..][..tiles];
            let at = c % BLOCK;
            assert!(at + R <= BLOCK && V * S::F32_LANES == BLOCK);
            let mut sums = [[[simd.splat_f32s(0.0); V]; B]; R];
            for tile in (0..tiles).step_by(BLOCK) {
                // SAFETY: each tile has 16 numbers in `v`, of which `R` from `at` on are taken, and in each of `right`; all
                // have `tiles` numbers.
                unsafe {
                    let b = std::array::from_fn(
                        #[inline(always)]
                        |i| right[i].as_ptr().add(tile),
                    );
                    add::<S, R, B, V>(simd, v.as_ptr().add(tile + at), 1, b, &mut sums);
                }
            }
            unrolled!(r < R, {
                for i in 0..B {
                    for v in 0..V {
                        let to = (i * self.inside + c + r) * BLOCK + v * S::F32_LANES;
                        let mut sum = sums[r][i][v];
                        if !self.first {
                            sum = simd.add_f32s(sum, load(simd, self.sums, to));
                        }
                        store(simd, self.sums, to, sum);
                    }
                }
            });
        }
    }
}
