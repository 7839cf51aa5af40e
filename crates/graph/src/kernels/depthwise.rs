//! Convolutions whose groups have one channel: a vector of a row of outputs at a time, its inputs loaded where they lie.
//!
//! What a tap meets beside the plane is masked away, so nothing is copied or padded. Where each row of inputs is one below
//! the last, it is loaded once for all rows of outputs that it is part of. A step of two over columns computes every column
//! and keeps every second one.
//!
//! # Source
//! Zhang, Lo and Lu, "High Performance Depthwise and Pointwise Convolutions on Mobile Devices", AAAI 2020
//! (arXiv:2001.02504): rows of outputs in registers; the masks are ours.

#![allow(clippy::needless_range_loop, reason = "constant numbers keep vectors in registers")]

use std::ops::Range;

use pulp::{MemMask, Simd, WithSimd};

use super::direct::{Direct, TASK};
use super::math::Function;
use super::vectors::{arch, first, read, write};
use super::{PRODUCTS, Shared, parallel};

/// Most lanes of a vector of any machine.
const LANES: usize = 16;

/// Whether a sum has this form.
pub(super) fn fits(d: &Direct<'_>) -> bool {
    let grid = |k: usize| {
        let row = &d.taps[..k.min(d.taps.len())];
        d.taps.len() == k * k
            && d.taps.chunks_exact(k).all(|r| r.iter().zip(row).all(|(a, b)| a.0 == r[0].0 && a.1 == b.1))
    };
    let ones = d.inside == 1 && d.outside == 1 && d.target.right == 1;
    ones && d.step[1] <= 2 && (grid(3) || grid(5)) && d.size.iter().all(|&n| n > 0)
}

/// Computes all places.
pub(super) fn run(d: &Direct<'_>, x: &[f32], y: &mut [f32]) {
    let [height, width] = d.grid;
    let planes = d.batch * d.groups;
    let one = height * width.next_multiple_of(LANES) * d.taps.len();
    let each = (TASK / one.max(1)).clamp(1, 64);
    let to = Shared::new(y);
    parallel(planes.div_ceil(each), planes * one / PRODUCTS, |task| {
        let planes = task * each..((task + 1) * each).min(planes);
        arch().dispatch(Planes { direct: d, x, planes, to });
    });
}

/// Some planes, numbered through images and groups.
struct Planes<'a> {
    direct: &'a Direct<'a>,
    x: &'a [f32],
    planes: Range<usize>,
    to: Shared<'a>,
}

impl WithSimd for Planes<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (self.direct.taps.len(), self.direct.step[1]) {
            (9, 1) => self.all::<S, 3, 1>(simd),
            (9, _) => self.all::<S, 3, 2>(simd),
            (_, 1) => self.all::<S, 5, 1>(simd),
            (_, _) => self.all::<S, 5, 2>(simd),
        }
    }
}

impl Planes<'_> {
    /// `K` taps in each direction, `T` columns of the input from one output to the next.
    #[inline(always)]
    fn all<S: Simd, const K: usize, const T: usize>(&self, simd: S) {
        let d = self.direct;
        let width = d.size[1] as isize;
        let lanes = S::F32_LANES.min(d.grid[1]);
        // One plane after the other: it stays in the nearest cache while its columns go by.
        for plane in self.planes.clone() {
            for column in (0..d.grid[1]).step_by(S::F32_LANES) {
                // The last vector may do some columns again.
                let column = column.min(d.grid[1] - lanes);
                let start = (column * T) as isize;
                // The part of each of the `T` vectors of inputs that a tap meets inside the plane.
                let mut masks = [[first(simd, 0); K]; T];
                for t in 0..T {
                    for k in 0..K {
                        let at = start + (t * S::F32_LANES) as isize + d.taps[k].1;
                        let low = (-at).clamp(0, S::F32_LANES as isize);
                        let high = (width - at).clamp(low, S::F32_LANES as isize);
                        masks[t][k] = MemMask::new(simd.mask_between_m32s(low as u32, high as u32).mask());
                    }
                }
                self.plane::<S, K, T>(simd, plane, column, lanes, &masks);
            }
        }
    }

    /// Some columns of one plane.
    #[inline(always)]
    fn plane<S: Simd, const K: usize, const T: usize>(
        &self,
        simd: S,
        plane: usize,
        column: usize,
        lanes: usize,
        masks: &[[MemMask<S::m32s>; K]; T],
    ) {
        let d = self.direct;
        let (image, group) = (plane / d.groups, plane % d.groups);
        let [height, width] = d.size;
        let x = &self.x[plane * height * width..][..height * width];
        let mut weights = [[simd.splat_f32s(0.0); K]; K];
        let (mut down, mut right) = ([0; K], [0; K]);
        for i in 0..K {
            (down[i], right[i]) = (d.taps[i * K].0, d.taps[i].1);
            for j in 0..K {
                weights[i][j] = simd.splat_f32s(d.weight[(group * K + i) * K + j]);
            }
        }
        let columns = Columns::new(simd, d, [image, group], column, lanes);
        // Rows of taps one below the other, whichever way.
        let last = K - 1;
        let falls = down[last] < down[0];
        let top = if falls { down[last] } else { down[0] };
        let consecutive = (0..K).all(|i| down[if falls { last - i } else { i }] == top + i as isize);
        if T == 1 && d.step[0] == 1 && consecutive {
            if falls {
                weights.reverse();
            }
            let from = x.as_ptr().wrapping_add(column);
            // What the rows of outputs have so far that the next row of inputs is part of, from the newest to the oldest.
            let mut sums = [simd.splat_f32s(0.0); K];
            for i in 0..d.grid[0] + last {
                for k in (1..K).rev() {
                    sums[k] = sums[k - 1];
                }
                sums[0] = simd.splat_f32s(0.0);
                let y = i as isize + top;
                if (0..height as isize).contains(&y) {
                    let mut v = [simd.splat_f32s(0.0); K];
                    for j in 0..K {
                        let at = y * width as isize + right[j];
                        // SAFETY: the mask has only lanes inside of this row of the plane.
                        v[j] = unsafe { simd.mask_load_ptr_f32s(masks[0][j], from.wrapping_offset(at)) };
                    }
                    for k in 0..K {
                        for j in 0..K {
                            sums[k] = simd.mul_add_e_f32s(weights[k][j], v[j], sums[k]);
                        }
                    }
                }
                if i >= last {
                    columns.write(simd, self, i - last, sums[last]);
                }
            }
            return;
        }
        for row in 0..d.grid[0] {
            let mut sums = [simd.splat_f32s(0.0); T];
            let top = (row * d.step[0]) as isize;
            let from = x.as_ptr().wrapping_offset(top * width as isize + (column * T) as isize);
            for i in 0..K {
                let inside = top + down[i] >= 0 && top + down[i] < height as isize;
                if inside {
                    for t in 0..T {
                        for j in 0..K {
                            let at = down[i] * width as isize + right[j] + (t * S::F32_LANES) as isize;
                            // SAFETY: the mask has only lanes inside of this row of the plane.
                            let v = unsafe { simd.mask_load_ptr_f32s(masks[t][j], from.wrapping_offset(at)) };
                            sums[t] = simd.mul_add_e_f32s(weights[i][j], v, sums[t]);
                        }
                    }
                }
            }
            let sum = if T == 1 { sums[0] } else { second(simd, [sums[0], sums[T - 1]]) };
            columns.write(simd, self, row, sum);
        }
    }
}

/// Where the columns of a plane go, and what is done to them before.
struct Columns<S: Simd> {
    bias: S::f32s,
    /// Of the first row in y.
    start: usize,
    /// Behind the last column of the last row.
    end: usize,
    lanes: usize,
    all: MemMask<S::m32s>,
    /// Masked stores are slow. What a whole vector writes behind a narrow row is written again with the next one.
    spills: bool,
}

impl<S: Simd> Columns<S> {
    #[inline(always)]
    fn new(simd: S, d: &Direct<'_>, [image, group]: [usize; 2], column: usize, lanes: usize) -> Self {
        let start = image * d.target.image + group * d.target.group + d.target.starts[0] + column;
        Self {
            bias: simd.splat_f32s(d.epilogue.bias.map_or(0.0, |b| b[group])),
            start,
            end: start + d.grid[0] * d.grid[1] - column,
            lanes,
            all: first(simd, lanes),
            spills: d.target.down == d.grid[1],
        }
    }

    #[inline(always)]
    fn write(&self, simd: S, planes: &Planes<'_>, row: usize, sum: S::f32s) {
        let (d, lanes) = (planes.direct, self.lanes);
        let at = self.start + row * d.target.down;
        let mut y = simd.add_f32s(sum, self.bias);
        if let Some(residual) = d.epilogue.residual {
            y = simd.add_f32s(y, read(simd, &residual[at..at + lanes]));
        }
        let y = d.epilogue.activation.apply(simd, y);
        // SAFETY: planes are apart, and each belongs to one task; the mask has as many lanes as there is room.
        unsafe {
            if lanes == S::F32_LANES || (self.spills && at + S::F32_LANES <= self.end) {
                write(simd, planes.to.part(at, S::F32_LANES), y);
            } else {
                simd.mask_store_ptr_f32s(self.all, planes.to.part(at, lanes).as_mut_ptr(), y);
            }
        }
    }
}

/// Every second lane of two vectors.
#[inline(always)]
fn second<S: Simd>(simd: S, pair: [S::f32s; 2]) -> S::f32s {
    let mut all = [0.0; 2 * LANES];
    for (to, from) in all.chunks_exact_mut(S::F32_LANES).zip(pair) {
        write(simd, to, from);
    }
    let mut half = [0.0; LANES];
    for i in 0..S::F32_LANES {
        half[i] = all[2 * i];
    }
    read(simd, &half)
}
