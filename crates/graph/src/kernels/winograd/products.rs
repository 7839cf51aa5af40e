//! The 16 products of matrices, one for each element of a tile.

#![allow(clippy::needless_range_loop, reason = "constant numbers keep vectors in registers")]

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::super::Shared;
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
            match (S::F32_LANES, two) {
                (BLOCK, true) => products::<S, 8, 2, 1>(simd, v, u, tiles, m),
                (BLOCK, false) => products::<S, 8, 1, 1>(simd, v, u, tiles, m),
                (_, _) => products::<S, 4, 1, 2>(simd, v, u, tiles, m),
            }
            block += count;
        }
    }
}

/// Adds products of `R` numbers with `B` blocks of `V` vectors.
#[inline(always)]
fn add<S: Simd, const R: usize, const B: usize, const V: usize>(
    simd: S,
    a: [f32; R],
    b: [&[f32]; B],
    sums: &mut [[[S::f32s; V]; B]; R],
) {
    let mut right = [[simd.splat_f32s(0.0); V]; B];
    for i in 0..B {
        for v in 0..V {
            right[i][v] = load(simd, b[i], v * S::F32_LANES);
        }
    }
    for r in 0..R {
        let x = simd.splat_f32s(a[r]);
        for i in 0..B {
            for v in 0..V {
                sums[r][i][v] = simd.mul_add_e_f32s(x, right[i][v], sums[r][i][v]);
            }
        }
    }
}

/// `m[block][tile] = Σ v[c][tile] · u[block][c]`, with 16 output channels of a block as vectors.
#[inline(always)]
fn products<S: Simd, const R: usize, const B: usize, const V: usize>(
    simd: S,
    v: &[f32],
    u: &[f32],
    tiles: usize,
    m: &mut [f32],
) {
    let each = u.len() / B;
    for tile in (0..tiles).step_by(R) {
        let mut sums = [[[simd.splat_f32s(0.0); V]; B]; R];
        for (c, v) in v.chunks_exact(tiles * BLOCK).take(each / BLOCK / BLOCK).enumerate() {
            let v = &v[tile * BLOCK..][..R * BLOCK];
            let mut right = [&u[..0]; B];
            for i in 0..B {
                right[i] = &u[i * each + c * BLOCK * BLOCK..][..BLOCK * BLOCK];
            }
            for lane in 0..BLOCK {
                let mut a = [0.0; R];
                for r in 0..R {
                    a[r] = v[r * BLOCK + lane];
                }
                let mut b = [&u[..0]; B];
                for i in 0..B {
                    b[i] = &right[i][lane * BLOCK..][..BLOCK];
                }
                add(simd, a, b, &mut sums);
            }
        }
        for r in 0..R {
            for i in 0..B {
                for v in 0..V {
                    store(simd, m, (i * tiles + tile + r) * BLOCK + v * S::F32_LANES, sums[r][i][v]);
                }
            }
        }
    }
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
            let mut sums = [[[simd.splat_f32s(0.0); V]; B]; R];
            for tile in (0..tiles).step_by(BLOCK) {
                let v = &v[tile..tile + BLOCK];
                let mut a = [0.0; R];
                a.copy_from_slice(&v[at..at + R]);
                let mut b = [&g[..0]; B];
                for i in 0..B {
                    b[i] = &right[i][tile..tile + BLOCK];
                }
                add(simd, a, b, &mut sums);
            }
            for r in 0..R {
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
            }
        }
    }
}
