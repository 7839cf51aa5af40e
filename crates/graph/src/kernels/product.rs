//! Matrix products `C = A · B`.
//!
//! # Source
//! Goto and van de Geijn, ACM TOMS 34(3), 2008: columns of `B` are packed so that they stay in the second-level cache, and
//! a tile of `C` stays in registers. Scratch per thread: [`DEPTH`] × [`GROUP`] panels of `B`, at most 400 KiB; all of `A`
//! once, where it is turned or read often; all of `B` once, where several tasks read it; and [`PARTS`] times `C` where the
//! inner size is much larger than both others.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::epilogue::Epilogue;
use super::math::Function;
use super::transpose::transpose;
use super::vectors::{arch, lanes, read, unrolled, write};
use super::{LINE, PRODUCTS, Shared, alone, parallel, with_scratch, worth};

/// Rows of `B` that are packed at once.
const DEPTH: usize = 768;
/// Panels of `B` that one task packs.
const GROUP: usize = 4;
/// Most lanes of a vector of any machine.
const LANES: usize = 16;
/// Rows of a tile of such vectors where `A` is packed.
const PACKED: usize = 12;
/// Elements behind a packed panel.
const SLACK: usize = 64;

/// Most rows for which packing `B` does not pay.
const FEW: usize = 4;
/// Panels up to which a row of `A` that lies along the inner axis is read where it is.
const PANELS: usize = 6;
/// Floats that stay in the second-level cache.
const NEAR: usize = if cfg!(test) { 1 << 12 } else { 1 << 17 };
/// Most parts of the inner axis that are summed apart, and the least size of one.
const PARTS: usize = 8;
const PART: usize = if cfg!(test) { 200 } else { 512 };
/// Most elements of `C` for which that is done.
const SMALL: usize = 1 << 16;

/// A matrix in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    row_step: usize,
    column_step: usize,
}

impl<'a> Matrix<'a> {
    /// Row by row, without gaps.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert!(data.len() == rows * columns, "shapes were checked by infer");
        Self { data, rows, columns, row_step: columns, column_step: 1 }
    }

    pub(crate) fn transposed(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row_step: self.column_step, column_step: self.row_step, ..self }
    }

    /// Some of its columns.
    fn columns_of(self, range: Range<usize>) -> Self {
        self.transposed().rows_of(range).transposed()
    }

    /// Some of its rows.
    fn rows_of(self, range: Range<usize>) -> Self {
        Self { data: &self.data[range.start * self.row_step..], rows: range.len(), ..self }
    }

    /// Writes rows `depth` of the columns `first..first + count` to `out`, `width` apart.
    fn pack(&self, depth: Range<usize>, first: usize, count: usize, width: usize, out: &mut [f32]) {
        let start = depth.start * self.row_step + first * self.column_step;
        if self.column_step == 1 {
            for (row, out) in out.chunks_exact_mut(width).take(depth.len()).enumerate() {
                out[..count].copy_from_slice(&self.data[start + row * self.row_step..][..count]);
            }
        } else {
            transpose(count, depth.len(), &self.data[start..], self.column_step, out, width);
        }
    }
}

/// A product to be computed: `C = activation(A · B + bias + residual)`, the bias one number per column.
struct Product<'a> {
    left: Matrix<'a>,
    right: Matrix<'a>,
    epilogue: Epilogue<'a>,
}

/// `c = activation(a · b + bias + residual)`, row by row; the bias has one number per column, the residual c's shape. The
/// inner size is at least 1.
pub(crate) fn product(a: Matrix<'_>, b: Matrix<'_>, epilogue: Epilogue<'_>, c: &mut [f32]) {
    assert!(a.columns == b.rows && c.len() == a.rows * b.columns && a.columns > 0, "shapes were checked by infer");
    if a.rows <= FEW && b.row_step == 1 && a.column_step == 1 {
        dots(a, b, epilogue, c);
    } else if !c.is_empty() {
        let parts = (a.columns / PART).min(PARTS);
        if parts > 1 && c.len() <= SMALL && a.columns >= 8 * a.rows.max(b.columns) {
            deep(a, b, parts, epilogue, c);
        } else {
            Product { left: a, right: b, epilogue }.run(Shared::new(c));
        }
    }
}

/// A product of which the inner size is much larger than the others: sums over parts of it, each a task, are added up.
fn deep(a: Matrix<'_>, b: Matrix<'_>, parts: usize, epilogue: Epilogue<'_>, c: &mut [f32]) {
    let each = a.columns.div_ceil(parts);
    let parts = a.columns.div_ceil(each);
    with_scratch(parts * c.len(), |sums| {
        let all = Shared::new(sums);
        parallel(parts, a.columns * c.len() / PRODUCTS, |part| {
            let range = part * each..((part + 1) * each).min(a.columns);
            // SAFETY: each part has its own sums.
            let sums = unsafe { all.part(part * c.len(), c.len()) };
            let (left, right) = (a.columns_of(range.clone()), b.rows_of(range));
            alone(|| Product { left, right, epilogue: Epilogue::default() }.run(Shared::new(sums)));
        });
        let columns = b.columns;
        arch().dispatch(
            #[inline(always)]
            || {
                let (first, rest) = sums.split_at_mut(c.len());
                for part in rest.chunks_exact(c.len()) {
                    first.iter_mut().zip(part).for_each(|(a, b)| *a += b);
                }
            },
        );
        for (row, c) in c.chunks_exact_mut(columns).enumerate() {
            let at = row * columns;
            arch().dispatch(Finish { epilogue, from: &sums[at..at + columns], at, c });
        }
    });
}

/// A row of sums with what follows.
struct Finish<'a> {
    epilogue: Epilogue<'a>,
    from: &'a [f32],
    /// Where the row begins in C.
    at: usize,
    c: &'a mut [f32],
}

impl WithSimd for Finish<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let e = self.epilogue;
        for from in (0..self.c.len()).step_by(S::F32_LANES) {
            let to = from..(from + S::F32_LANES).min(self.c.len());
            let mut x = read(simd, &self.from[to.clone()]);
            if let Some(bias) = e.bias {
                x = simd.add_f32s(x, read(simd, &bias[to.clone()]));
            }
            if let Some(residual) = e.residual {
                x = simd.add_f32s(x, read(simd, &residual[self.at + to.start..self.at + to.end]));
            }
            write(simd, &mut self.c[to], e.activation.apply(simd, x));
        }
    }
}

/// A product of few rows, where both factors lie along the inner axis: one sum for each element.
fn dots(a: Matrix<'_>, b: Matrix<'_>, epilogue: Epilogue<'_>, c: &mut [f32]) {
    let columns = b.columns;
    let each = 16;
    let parts = columns.div_ceil(each);
    let shared = Shared::new(c);
    parallel(a.rows * parts, a.rows * a.columns * columns / PRODUCTS, |task| {
        let (row, first) = (task / parts, task % parts * each);
        let at = row * columns + first;
        // SAFETY: each task has its own part of a row.
        let c = unsafe { shared.part(at, each.min(columns - first)) };
        let a = &a.data[row * a.row_step..][..a.columns];
        arch().dispatch(Dots { a, b, epilogue, first, at, c });
    });
}

/// Sums of products of one line with four.
#[inline(always)]
fn dots4<S: Simd>(simd: S, a: &[f32], b: [&[f32]; 4]) -> [f32; 4] {
    let mut sums = [simd.splat_f32s(0.0); 4];
    let (whole, rest) = S::as_simd_f32s(a);
    let mut lines = [whole; 4];
    let mut rests = [rest; 4];
    for j in 0..4 {
        (lines[j], rests[j]) = S::as_simd_f32s(&b[j][..a.len()]);
    }
    let [b0, b1, b2, b3] = lines;
    for ((((x, b0), b1), b2), b3) in whole.iter().zip(b0).zip(b1).zip(b2).zip(b3) {
        sums[0] = simd.mul_add_e_f32s(*x, *b0, sums[0]);
        sums[1] = simd.mul_add_e_f32s(*x, *b1, sums[1]);
        sums[2] = simd.mul_add_e_f32s(*x, *b2, sums[2]);
        sums[3] = simd.mul_add_e_f32s(*x, *b3, sums[3]);
    }
    if !rest.is_empty() {
        let x = read(simd, rest);
        for j in 0..4 {
            sums[j] = simd.mul_add_e_f32s(x, read(simd, rests[j]), sums[j]);
        }
    }
    sums.map(
        #[inline(always)]
        |s| simd.reduce_sum_f32s(s),
    )
}

struct Dots<'a> {
    a: &'a [f32],
    b: Matrix<'a>,
    epilogue: Epilogue<'a>,
    first: usize,
    at: usize,
    c: &'a mut [f32],
}

impl WithSimd for Dots<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Four columns at a time, so that their sums do not wait for each other.
        for (i, c) in self.c.chunks_mut(4).enumerate() {
            let column = |j: usize| {
                let at = self.first + i * 4 + j.min(c.len() - 1);
                &self.b.data[at * self.b.column_step..][..self.a.len()]
            };
            let sums = dots4(simd, self.a, [column(0), column(1), column(2), column(3)]);
            c.copy_from_slice(&sums[..c.len()]);
        }
        let e = self.epilogue;
        for from in (0..self.c.len()).step_by(S::F32_LANES) {
            let to = from..(from + S::F32_LANES).min(self.c.len());
            let mut x = read(simd, &self.c[to.clone()]);
            if let Some(bias) = e.bias {
                x = simd.add_f32s(x, read(simd, &bias[self.first + to.start..self.first + to.end]));
            }
            if let Some(residual) = e.residual {
                x = simd.add_f32s(x, read(simd, &residual[self.at + to.start..self.at + to.end]));
            }
            write(simd, &mut self.c[to], e.activation.apply(simd, x));
        }
    }
}

impl Product<'_> {
    /// The tasks are groups of panels of columns, and blocks of rows where there are few of those.
    fn run(&self, to: Shared<'_>) {
        let (rows, depth, columns) = (self.left.rows, self.left.columns, self.right.columns);
        let arch = arch();
        let lanes = lanes();
        let most = if lanes == LANES { 2 } else { 3 };
        // Panels of equal width, so that no vector is nearly empty.
        let vectors = columns.div_ceil(lanes);
        let wide = vectors.div_ceil(vectors.div_ceil(most));
        let width = wide * lanes;
        let panels = columns.div_ceil(width);
        let packs = self.left.column_step != 1 || panels > PANELS;
        let tile_rows = match (lanes, packs) {
            (LANES, true) => PACKED,
            (LANES, false) => 8,
            _ => 4,
        };
        let operations = rows.saturating_mul(depth).saturating_mul(columns) / PRODUCTS;
        // Enough tasks for any usual machine, in a number that depends on the shape alone. Where B stays near, tasks are
        // blocks of rows; else groups of panels of columns, against as many rows as stay near.
        let small = !worth(operations);
        let row_tiles = rows.div_ceil(tile_rows);
        let together = panels * width * depth <= NEAR && row_tiles >= 16;
        let group = if panels >= 64 * GROUP { GROUP } else { panels.div_ceil(64).max(1) };
        let group = match (small, together) {
            (true, _) => GROUP.max(panels.min(2 * GROUP)),
            (_, true) => panels,
            (_, false) => group,
        };
        let column_tasks = panels.div_ceil(group);
        let near = (NEAR / (tile_rows * depth)).max(1);
        let row_tasks = match small {
            true => 1,
            false if column_tasks >= 32 => row_tiles.div_ceil(near),
            false => (64 / column_tasks).max(row_tiles.div_ceil(near)).clamp(1, row_tiles.div_ceil(4)),
        };
        let tiles_each = row_tiles.div_ceil(row_tasks);
        let row_tasks = row_tiles.div_ceil(tiles_each);
        let len = if packs { row_tiles * tile_rows * depth } else { 0 };
        // What several tasks read is packed once.
        let shares = row_tasks > 1;
        let whole = if shares { panels * width * depth + SLACK } else { 0 };
        with_scratch(len.next_multiple_of(LINE) + whole, |packed| {
            let (packed, right) = packed.split_at_mut(len.next_multiple_of(LINE));
            let packed = &mut packed[..len];
            if packs {
                pack_left(self.left, tile_rows, packed);
            }
            if shares {
                pack_right(self.right, width, right);
            }
            let (packed, right) = (&*packed, &*right);
            parallel(column_tasks * row_tasks, operations, |task| {
                // One after the other against the same rows.
                let (row_task, column_task) = (task / column_tasks, task % column_tasks);
                let tiles = row_task * tiles_each..((row_task + 1) * tiles_each).min(row_tiles);
                let panels = column_task * group..((column_task + 1) * group).min(panels);
                // The scratch is lent out here: inside the dispatched part a closure would be compiled without vectors.
                let len = if shares { 0 } else { DEPTH.min(depth) * width * panels.len() + SLACK };
                with_scratch(len, |scratch| {
                    let (packed, right) = (packs.then_some(packed), shares.then_some(right));
                    arch.dispatch(Task { product: self, packed, right, tiles, panels, wide, scratch, to });
                });
            });
        });
    }
}

/// Tiles of `A`, one after the other, each by columns: `[tile][depth][rows]`, zeros behind the last row.
fn pack_left(left: Matrix<'_>, rows: usize, out: &mut [f32]) {
    let each = left.columns * rows;
    let tiles = left.rows.div_ceil(rows);
    let shared = Shared::new(out);
    parallel(tiles, left.rows * left.columns * 2, |tile| {
        // SAFETY: each task has its own tile.
        let out = unsafe { shared.part(tile * each, each) };
        let count = rows.min(left.rows - tile * rows);
        if count < rows {
            out.fill(0.0);
        }
        let source = &left.data[tile * rows * left.row_step..];
        if left.row_step == 1 {
            for (column, out) in out.chunks_exact_mut(rows).enumerate() {
                out[..count].copy_from_slice(&source[column * left.column_step..][..count]);
            }
        } else {
            transpose(count, left.columns, source, left.row_step, out, rows);
        }
    });
}

/// Panels of `B`, one after the other, each by rows: `[panel][depth][width]`.
fn pack_right(right: Matrix<'_>, width: usize, out: &mut [f32]) {
    let panels = right.columns.div_ceil(width);
    // Parts of panels too, so that a single one is shared.
    let parts = right.rows.div_ceil(256);
    let shared = Shared::new(out);
    parallel(panels * parts, right.rows * right.columns * 2, |task| {
        let (panel, part) = (task / parts, task % parts);
        let depth = part * 256..((part + 1) * 256).min(right.rows);
        let count = width.min(right.columns - panel * width);
        // SAFETY: each task has its own rows of its panel.
        let out = unsafe { shared.part((panel * right.rows + depth.start) * width, depth.len() * width) };
        right.pack(depth, panel * width, count, width, out);
    });
}

/// Some tiles of rows against some panels of columns.
struct Task<'a> {
    product: &'a Product<'a>,
    packed: Option<&'a [f32]>,
    /// All panels, where they are shared.
    right: Option<&'a [f32]>,
    tiles: Range<usize>,
    panels: Range<usize>,
    wide: usize,
    scratch: &'a mut [f32],
    to: Shared<'a>,
}

impl WithSimd for Task<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (S::F32_LANES, self.wide, self.packed.is_some()) {
            (LANES, 1, true) => self.run::<S, PACKED, 1>(simd),
            (LANES, _, true) => self.run::<S, PACKED, 2>(simd),
            (LANES, 1, false) => self.run::<S, 8, 1>(simd),
            (LANES, _, false) => self.run::<S, 8, 2>(simd),
            (_, 1, _) => self.run::<S, 4, 1>(simd),
            (_, 2, _) => self.run::<S, 4, 2>(simd),
            (_, _, _) => self.run::<S, 4, 3>(simd),
        }
    }
}

impl Task<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize, const V: usize>(self, simd: S) {
        let p = self.product;
        let width = V * S::F32_LANES;
        let depth = p.left.columns;
        // Parts of equal size.
        let most = depth.div_ceil(depth.div_ceil(DEPTH));
        let each = most * width;
        let columns = |panel: usize| (panel * width, width.min(p.right.columns - panel * width));
        for from in (0..depth).step_by(most) {
            let range = from..(from + most).min(depth);
            for (i, panel) in self.panels.clone().enumerate().filter(|_| self.right.is_none()) {
                let (first, count) = columns(panel);
                p.right.pack(range.clone(), first, count, width, &mut self.scratch[i * each..]);
            }
            let (first, last) = (from == 0, range.end == depth);
            for tile in self.tiles.clone() {
                let row = tile * R;
                let rows = R.min(p.left.rows - row);
                for (i, panel) in self.panels.clone().enumerate() {
                    let b = match self.right {
                        Some(right) => &right[(panel * depth + range.start) * width..][..range.len() * width],
                        None => &self.scratch[i * each..][..range.len() * width],
                    };
                    let sums = match self.packed {
                        Some(packed) => {
                            let a = &packed[(tile * depth + range.start) * R..(tile * depth + range.end) * R];
                            tile_packed::<S, R, V>(simd, a, b)
                        }
                        None => {
                            let start = row * p.left.row_step + range.start;
                            tile_rows::<S, R, V>(simd, &p.left.data[start..], p.left.row_step, rows, b)
                        }
                    };
                    self.store::<S, R, V>(simd, &sums, row..row + rows, columns(panel), first, last);
                }
            }
        }
    }

    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "constant numbers keep the sums in registers")]
    fn store<S: Simd, const R: usize, const V: usize>(
        &self,
        simd: S,
        sums: &[[S::f32s; V]; R],
        rows: Range<usize>,
        (column, count): (usize, usize),
        first: bool,
        last: bool,
    ) {
        let p = self.product;
        // All numbers of sums are constants: otherwise the sums would live in memory from the beginning.
        unrolled!(r < R, {
            if r < rows.len() {
                let at = (rows.start + r) * p.right.columns + column;
                for v in 0..V {
                    let from = v * S::F32_LANES;
                    let len = S::F32_LANES.min(count.saturating_sub(from));
                    // SAFETY: rows are apart, and each pair of tile and panel belongs to one task.
                    let to = unsafe { self.to.part(at + from.min(count), len) };
                    let mut x = sums[r][v];
                    if !first {
                        x = simd.add_f32s(x, read(simd, to));
                    }
                    if last {
                        if let Some(bias) = p.epilogue.bias {
                            x = simd.add_f32s(x, read(simd, &bias[column + from.min(count)..][..len]));
                        }
                        if let Some(residual) = p.epilogue.residual {
                            x = simd.add_f32s(x, read(simd, &residual[at + from.min(count)..][..len]));
                        }
                        x = p.epilogue.activation.apply(simd, x);
                    }
                    write(simd, to, x);
                }
            }
        });
    }
}

/// Sums of a tile; `a` is packed by columns, `b` by rows.
#[inline(always)]
fn tile_packed<S: Simd, const R: usize, const V: usize>(simd: S, a: &[f32], b: &[f32]) -> [[S::f32s; V]; R] {
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    let (b, _) = S::as_simd_f32s(b);
    for (a, b) in a.chunks_exact(R).zip(b.chunks_exact(V)) {
        unrolled!(r < R, {
            let x = simd.splat_f32s(a[r]);
            for v in 0..V {
                sums[r][v] = simd.mul_add_e_f32s(x, b[v], sums[r][v]);
            }
        });
    }
    sums
}

/// Sums of a tile; `a` is in memory row by row. Of the rows behind the last one, the last is read again.
#[inline(always)]
fn tile_rows<S: Simd, const R: usize, const V: usize>(
    simd: S,
    a: &[f32],
    step: usize,
    rows: usize,
    b: &[f32],
) -> [[S::f32s; V]; R] {
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    let (b, _) = S::as_simd_f32s(b);
    let depth = b.len() / V;
    assert!(rows > 0 && (rows - 1) * step + depth <= a.len());
    // SAFETY: the last row was checked, and no other is behind it.
    let lines: [*const f32; R] = std::array::from_fn(|r| unsafe { a.as_ptr().add(r.min(rows - 1) * step) });
    for (k, b) in b.chunks_exact(V).enumerate() {
        unrolled!(r < R, {
            // SAFETY: each row has `depth` numbers, of which this is number `k`.
            let x = simd.splat_f32s(unsafe { *lines[r].add(k) });
            for v in 0..V {
                sums[r][v] = simd.mul_add_e_f32s(x, b[v], sums[r][v]);
            }
        });
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::super::epilogue::Activation;
    use super::super::reference::{close, in_pools, values};
    use super::*;

    /// Rows, inner size, columns: odd ones, one row, few rows, more than one block of the inner axis, many panels.
    const SIZES: [[usize; 3]; 15] = [
        [1, 1, 1],
        [1, 1568, 64],
        [3, 33, 17],
        [4, 100, 50],
        [5, 100, 50],
        [8, 16, 32],
        [50, 16, 50],
        [37, 800, 45],
        [9, 1700, 33],
        [200, 64, 192],
        [130, 130, 700],
        [2, 5, 2100],
        [20, 900, 33],
        [33, 1650, 20],
        [140, 330, 260],
    ];

    fn matrix(data: &[f32], rows: usize, columns: usize, turned: bool) -> Matrix<'_> {
        if turned { Matrix::new(data, columns, rows).transposed() } else { Matrix::new(data, rows, columns) }
    }

    #[test]
    fn every_layout_matches_float64() {
        for [m, k, n] in SIZES {
            let (a, b) = (values(m * k, 1), values(k * n, 5));
            let (bias, residual) = (values(n, 7), values(m * n, 8));
            for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
                let at = |r: usize, l: usize| f64::from(a[if ta { l * m + r } else { r * k + l }]);
                let bt = |l: usize, c: usize| f64::from(b[if tb { c * k + l } else { l * n + c }]);
                let sum = |i: usize| (0..k).map(|l| at(i / n, l) * bt(l, i % n)).sum::<f64>();
                let plain: Vec<f64> = (0..m * n).map(sum).collect();
                let mut c = vec![f32::NAN; m * n];
                product(matrix(&a, m, k, ta), matrix(&b, k, n, tb), Epilogue::default(), &mut c);
                close(&c, &plain, 1e-5, &format!("{m} {k} {n} {ta} {tb}"));
                let activation = Activation::Clamp(-0.5, 2.0);
                let epilogue = Epilogue { bias: Some(&bias), residual: Some(&residual), activation };
                product(matrix(&a, m, k, ta), matrix(&b, k, n, tb), epilogue, &mut c);
                let want = |i: usize| (plain[i] + f64::from(bias[i % n]) + f64::from(residual[i])).clamp(-0.5, 2.0);
                let want: Vec<f64> = (0..m * n).map(want).collect();
                close(&c, &want, 1e-5, &format!("{m} {k} {n} {ta} {tb}, finished"));
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        for [m, k, n] in SIZES.into_iter().chain([[300, 900, 70]]) {
            let (a, b) = (values(m * k, 1), values(k * n, 5));
            in_pools(&format!("{m} {k} {n}"), || {
                let mut c = vec![0.0; m * n];
                product(Matrix::new(&a, m, k), Matrix::new(&b, k, n), Epilogue::default(), &mut c);
                c
            });
        }
    }
}
