//! Matrix products `C = A · B`, where `B` may be made on the fly: the heart of convolutions and of fully connected layers.
//!
//! # Source
//! Goto and van de Geijn, ACM TOMS 34(3), 2008: columns of `B` are packed so that they stay in the second-level cache, and
//! a tile of `C` stays in registers. Scratch per thread: [`DEPTH`] × [`GROUP`] panels of `B`, at most 590 KiB.

use pulp::{Arch, Simd, WithSimd};

use super::{Shared, parallel, with_scratch};

/// Rows of `B` that are packed at once.
const DEPTH: usize = 768;
/// Panels of `B` that one task packs.
const GROUP: usize = 4;
/// Vectors in a panel of `B`.
const WIDE: usize = 3;
/// Most lanes of a vector of any machine.
const LANES: usize = 16;
/// Most rows of a tile.
const ROWS: usize = 8;

/// The right factor, by panels of columns.
pub(crate) trait Columns: Sync {
    /// Writes rows `depth` of the columns `first..first + count` to `out[(row - depth.start) * stride + column - first]`.
    /// Places from `count` to `stride` may hold anything; `out` has [`SLACK`] more elements than that.
    fn pack(&self, depth: std::ops::Range<usize>, first: usize, count: usize, stride: usize, out: &mut [f32]);
}

/// Elements behind a packed panel that [`Columns::pack`] may overwrite.
pub(crate) const SLACK: usize = 64;

/// Where a run of columns of `C` lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Number of columns.
    pub(crate) len: usize,
    /// Place of the first one in row 0.
    pub(crate) start: usize,
    /// From one column to the next.
    pub(crate) step: usize,
}

/// The places of `C`.
pub(crate) trait Places: Sync {
    /// Runs that make up the columns `first..first + count`, in order.
    fn runs(&self, first: usize, count: usize, to: &mut Vec<Run>);
}

/// A matrix in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_step: usize,
    pub(crate) column_step: usize,
}

impl<'a> Matrix<'a> {
    /// Row by row, without gaps.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self { data, rows, columns, row_step: columns, column_step: 1 }
    }

    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_step: self.column_step,
            column_step: self.row_step,
            ..self
        }
    }
}

impl Columns for Matrix<'_> {
    fn pack(&self, depth: std::ops::Range<usize>, first: usize, count: usize, stride: usize, out: &mut [f32]) {
        let start = depth.start * self.row_step + first * self.column_step;
        let rows = depth.len();
        if self.column_step == 1 {
            for (row, out) in out.chunks_exact_mut(stride).take(rows).enumerate() {
                out[..count].copy_from_slice(&self.data[start + row * self.row_step..][..count]);
            }
            return;
        }
        let source = &self.data[start..];
        // Blocks of rows, so that what one column brings into the cache is used before it leaves.
        for block in (0..rows).step_by(LANES) {
            let end = (block + LANES).min(rows);
            for column in 0..count {
                let source = &source[column * self.column_step..];
                for row in block..end {
                    out[row * stride + column] = source[row * self.row_step];
                }
            }
        }
    }
}

/// `C` in memory, row by row.
pub(crate) struct RowMajor;

impl Places for RowMajor {
    fn runs(&self, first: usize, count: usize, to: &mut Vec<Run>) {
        to.push(Run { len: count, start: first, step: 1 });
    }
}

/// What happens to each element of `C` before it is written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Finish<'a> {
    /// Added to all elements of a row.
    pub(crate) row_bias: Option<&'a [f32]>,
    /// Added to all elements of a column.
    pub(crate) column_bias: Option<&'a [f32]>,
    /// Lowest and highest value.
    pub(crate) clamp: Option<(f32, f32)>,
    /// Whether the product is added to what is there.
    pub(crate) add: bool,
}

/// A product to be computed.
pub(crate) struct Product<'a> {
    pub(crate) left: Matrix<'a>,
    pub(crate) right: &'a dyn Columns,
    /// Columns of the right factor.
    pub(crate) columns: usize,
    pub(crate) places: &'a dyn Places,
    /// From one row of `C` to the next.
    pub(crate) row_step: usize,
    pub(crate) finish: Finish<'a>,
}

impl Product<'_> {
    /// Computes the product. The tasks are panels of columns, or blocks of rows where there are more of those.
    pub(crate) fn run(&self, to: Shared<'_>) {
        let (rows, depth) = (self.left.rows, self.left.columns);
        if rows == 0 || self.columns == 0 {
            return;
        }
        let arch = Arch::new();
        let lanes = arch.dispatch(Lanes);
        // Panels of equal width, so that no vector is nearly empty.
        let vectors = self.columns.div_ceil(lanes);
        let panels = vectors.div_ceil(if lanes == LANES { 2 } else { WIDE });
        let wide = vectors.div_ceil(panels);
        let width = wide * lanes;
        let panels = self.columns.div_ceil(width);
        let operations = rows.saturating_mul(depth).saturating_mul(self.columns);
        let tile_rows = if lanes == LANES { ROWS } else { ROWS / 2 };
        // Enough tasks for any usual machine, in a number that depends on the shape alone.
        let group = if panels >= 64 * GROUP { GROUP } else { panels.div_ceil(64).max(1) };
        let column_tasks = panels.div_ceil(group);
        let row_tiles = rows.div_ceil(tile_rows);
        let row_tasks = if column_tasks >= 32 { 1 } else { (64 / column_tasks).clamp(1, row_tiles.div_ceil(4)) };
        let tiles_each = row_tiles.div_ceil(row_tasks);
        let row_tasks = row_tiles.div_ceil(tiles_each);
        let packed = (self.left.column_step != 1 || panels > 6).then(|| pack_left(self.left, tile_rows));
        parallel(column_tasks * row_tasks, operations, |task| {
            let (column_task, row_task) = (task / row_tasks, task % row_tasks);
            let tiles = row_task * tiles_each..((row_task + 1) * tiles_each).min(row_tiles);
            let panels = column_task * group..((column_task + 1) * group).min(panels);
            // The scratch is lent out here: inside the dispatched part a closure would be compiled without the vectors.
            let len = DEPTH.min(depth) * width * panels.len() + SLACK;
            with_scratch(len, |scratch| {
                arch.dispatch(Task { product: self, packed: packed.as_deref(), tiles, panels, wide, scratch, to });
            });
        });
    }
}

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// Tiles of `A`, one after the other, each by columns: `[tile][depth][rows]`, zeros behind the last row.
fn pack_left(left: Matrix<'_>, rows: usize) -> Vec<f32> {
    let tiles = left.rows.div_ceil(rows);
    let mut out = vec![0.0; tiles * left.columns * rows];
    let each = left.columns * rows;
    let shared = Shared::new(&mut out);
    parallel(tiles, left.rows * left.columns * 4, |tile| {
        // SAFETY: each task has its own tile.
        let out = unsafe { shared.part(tile * each, each) };
        for row in 0..rows.min(left.rows - tile * rows) {
            let source = &left.data[(tile * rows + row) * left.row_step..];
            for (column, out) in out.chunks_exact_mut(rows).enumerate() {
                out[row] = source[column * left.column_step];
            }
        }
    });
    out
}

/// Some tiles of rows against some panels of columns.
struct Task<'a> {
    product: &'a Product<'a>,
    packed: Option<&'a [f32]>,
    tiles: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
    wide: usize,
    scratch: &'a mut [f32],
    to: Shared<'a>,
}

impl WithSimd for Task<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (S::F32_LANES, self.wide) {
            (LANES, 1) => self.run::<S, 8, 1>(simd),
            (LANES, _) => self.run::<S, 8, 2>(simd),
            (_, 1) => self.run::<S, 4, 1>(simd),
            (_, 2) => self.run::<S, 4, 2>(simd),
            (_, _) => self.run::<S, 4, 3>(simd),
        }
    }
}

impl Task<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize, const V: usize>(self, simd: S) {
        let p = self.product;
        let width = V * S::F32_LANES;
        let depth = p.left.columns;
        let each = DEPTH.min(depth) * width;
        let mut runs: Vec<Vec<Run>> = vec![Vec::new(); self.panels.len()];
        let columns = |panel: usize| (panel * width, width.min(p.columns - panel * width));
        for (runs, panel) in runs.iter_mut().zip(self.panels.clone()) {
            let (first, count) = columns(panel);
            p.places.runs(first, count, runs);
        }
        // At least one round, so that a product over nothing still writes its zeros.
        for from in (0..depth.max(1)).step_by(DEPTH) {
            let range = from..(from + DEPTH).min(depth);
            for (i, panel) in self.panels.clone().enumerate() {
                let (first, count) = columns(panel);
                p.right.pack(range.clone(), first, count, width, &mut self.scratch[i * each..]);
            }
            let last = range.end == depth;
            for tile in self.tiles.clone() {
                let row = tile * R;
                let rows = R.min(p.left.rows - row);
                for (i, panel) in self.panels.clone().enumerate() {
                    let b = &self.scratch[i * each..][..range.len() * width];
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
                    let at = (row, rows, columns(panel).0);
                    self.store::<S, R, V>(simd, &sums, at, &runs[i], from > 0, last);
                }
            }
        }
    }

    #[inline(always)]
    fn store<S: Simd, const R: usize, const V: usize>(
        &self,
        simd: S,
        sums: &[[S::f32s; V]; R],
        (row, rows, column): (usize, usize, usize),
        runs: &[Run],
        add: bool,
        last: bool,
    ) {
        let p = self.product;
        let add = add || p.finish.add;
        let clamp = p.finish.clamp.filter(|_| last);
        let column_bias = p.finish.column_bias.filter(|_| last);
        if let [Run { len, start, step: 1 }] = *runs
            && len == V * S::F32_LANES
        {
            for (i, sums) in sums.iter().enumerate().take(rows) {
                let bias = simd.splat_f32s(p.finish.row_bias.filter(|_| last).map_or(0.0, |b| b[row + i]));
                // SAFETY: as below.
                let to = unsafe { self.to.part((row + i) * p.row_step + start, len) };
                let (to, _) = S::as_mut_simd_f32s(to);
                for v in 0..V {
                    let mut x = simd.add_f32s(sums[v], bias);
                    if let Some(bias) = column_bias {
                        x = simd.add_f32s(x, S::as_simd_f32s(&bias[column..]).0[v]);
                    }
                    if add {
                        x = simd.add_f32s(x, to[v]);
                    }
                    if let Some((low, high)) = clamp {
                        x = clamped(simd, x, low, high);
                    }
                    to[v] = x;
                }
            }
            return;
        }
        let mut line = [0.0; WIDE * LANES];
        for (i, sums) in sums.iter().enumerate().take(rows) {
            let bias = p.finish.row_bias.filter(|_| last).map_or(0.0, |b| b[row + i]);
            let bias = simd.splat_f32s(bias);
            let (line_vectors, _) = S::as_mut_simd_f32s(&mut line);
            for (to, &sum) in line_vectors.iter_mut().zip(sums) {
                *to = simd.add_f32s(sum, bias);
            }
            let (mut at, mut column) = (0, column);
            for run in runs {
                let line = &mut line[at..at + run.len];
                at += run.len;
                if let Some(bias) = column_bias {
                    line.iter_mut().zip(&bias[column..]).for_each(|(x, b)| *x += b);
                }
                column += run.len;
                let start = (row + i) * p.row_step + run.start;
                // SAFETY: runs of different columns do not meet, rows are apart, and each pair of tile and panel belongs to
                // one task.
                let to = unsafe { self.to.part(start, if run.len == 0 { 0 } else { (run.len - 1) * run.step + 1 }) };
                if add {
                    line.iter_mut().zip(to.iter().step_by(run.step)).for_each(|(x, y)| *x += y);
                }
                if let Some((low, high)) = clamp {
                    // NaN stays NaN: both comparisons are false.
                    line.iter_mut().for_each(|x| *x = if *x < low { low } else if *x > high { high } else { *x });
                }
                if run.step == 1 {
                    to.copy_from_slice(line);
                } else {
                    to.iter_mut().step_by(run.step).zip(line.iter()).for_each(|(y, x)| *y = *x);
                }
            }
        }
    }
}

/// NaN stays NaN: both comparisons are false.
#[inline(always)]
fn clamped<S: Simd>(simd: S, x: S::f32s, low: f32, high: f32) -> S::f32s {
    let (low, high) = (simd.splat_f32s(low), simd.splat_f32s(high));
    let x = simd.select_f32s(simd.less_than_f32s(x, low), low, x);
    simd.select_f32s(simd.greater_than_f32s(x, high), high, x)
}

/// Sums of a tile; `a` is packed by columns, `b` by rows.
#[inline(always)]
fn tile_packed<S: Simd, const R: usize, const V: usize>(simd: S, a: &[f32], b: &[f32]) -> [[S::f32s; V]; R] {
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    let (b, _) = S::as_simd_f32s(b);
    for (a, b) in a.chunks_exact(R).zip(b.chunks_exact(V)) {
        for r in 0..R {
            let x = simd.splat_f32s(a[r]);
            for v in 0..V {
                sums[r][v] = simd.mul_add_e_f32s(x, b[v], sums[r][v]);
            }
        }
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
    let lines: [&[f32]; R] = std::array::from_fn(|r| &a[r.min(rows - 1) * step..][..depth]);
    for (k, b) in b.chunks_exact(V).enumerate() {
        for r in 0..R {
            let x = simd.splat_f32s(lines[r][k]);
            for v in 0..V {
                sums[r][v] = simd.mul_add_e_f32s(x, b[v], sums[r][v]);
            }
        }
    }
    sums
}

/// `c = a · b`, row by row.
pub(crate) fn product(a: Matrix<'_>, b: Matrix<'_>, finish: Finish<'_>, c: &mut [f32]) {
    assert!(a.columns == b.rows && c.len() == a.rows * b.columns, "shapes were checked by infer");
    let work = Product { left: a, right: &b, columns: b.columns, places: &RowMajor, row_step: b.columns, finish };
    work.run(Shared::new(c));
}
