//! Sums and maxima, in an order that depends on the shape alone.
//!
//! A line is added up in 16 partial sums, in blocks, so that the error grows with the number of blocks and not with the
//! number of elements (Higham, SIAM J. Sci. Comput. 14(4), 1993). Lines that are added up carry on what rounding loses.

use super::vectors::arch;
use super::{Shared, parallel};

/// Partial results of a line, so that they are vectors; the same on every machine.
pub(super) const LANES: usize = 16;
/// Elements that are added up before their sum joins the others.
const BLOCK: usize = 4096;

/// Sum of a line.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    let mut all = 0.0;
    for x in x.chunks(BLOCK) {
        let mut parts = [0.0f32; LANES];
        let lines = x.chunks_exact(LANES);
        let rest = lines.remainder();
        for x in lines {
            for (p, &x) in parts.iter_mut().zip(x) {
                *p += x;
            }
        }
        parts.iter_mut().zip(rest).for_each(|(p, &x)| *p += x);
        all += total(parts);
    }
    all
}

/// Sum of products.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut all = 0.0;
    for (a, b) in a.chunks(BLOCK).zip(b.chunks(BLOCK)) {
        let mut parts = [0.0f32; LANES];
        let (lines, others) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let (rest, other) = (lines.remainder(), others.remainder());
        for (a, b) in lines.zip(others) {
            for ((p, &a), &b) in parts.iter_mut().zip(a).zip(b) {
                *p += a * b;
            }
        }
        parts.iter_mut().zip(rest).zip(other).for_each(|((p, &a), &b)| *p += a * b);
        all += total(parts);
    }
    all
}

/// Largest element, NaN aside; -∞ of nothing.
#[inline(always)]
pub(crate) fn maximum(x: &[f32]) -> f32 {
    let mut parts = [f32::NEG_INFINITY; LANES];
    let lines = x.chunks_exact(LANES);
    let rest = lines.remainder();
    for x in lines {
        for (p, &x) in parts.iter_mut().zip(x) {
            *p = if x > *p { x } else { *p };
        }
    }
    parts.iter_mut().zip(rest).for_each(|(p, &x)| *p = if x > *p { x } else { *p });
    parts.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
}

#[inline(always)]
pub(crate) fn total(parts: [f32; LANES]) -> f32 {
    let mut parts = parts;
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            parts[i] += parts[i + half];
        }
        half /= 2;
    }
    parts[0]
}

/// `out[o, i] = Σ x[o, m, i]` over `mid`, with `inner` elements behind each.
pub(crate) fn sum_axis(x: &[f32], mid: usize, inner: usize, out: &mut [f32]) {
    assert!(x.len() == out.len() * mid, "shapes were checked by infer");
    if out.is_empty() {
        return;
    }
    if mid == 0 {
        return out.fill(0.0);
    }
    if inner == 1 && out.len() >= 8 {
        let each = (TASK / mid).max(1);
        return tasks(out, each, x.len(), |at, out| {
            let x = &x[at * mid..(at + out.len()) * mid];
            arch().dispatch(
                #[inline(always)]
                || {
                    for (x, o) in x.chunks_exact(mid).zip(out) {
                        *o = sum(x);
                    }
                },
            );
        });
    }
    let outer = out.len() / inner;
    if outer >= 8 || mid * inner <= TASK {
        let each = (TASK / (mid * inner)).max(1);
        return tasks(out, each * inner, x.len(), |at, out| {
            arch().dispatch(
                #[inline(always)]
                || {
                    let x = &x[at * mid..(at + out.len()) * mid];
                    for (x, out) in x.chunks_exact(mid * inner).zip(out.chunks_exact_mut(inner)) {
                        lines(x, inner, out);
                    }
                },
            );
        });
    }
    // Few long columns: parts of each, then the sum of the parts. Their number depends on the shape alone.
    let each = mid.div_ceil(PARTS);
    let parts = mid.div_ceil(each);
    super::with_scratch(parts * inner, |partial| {
        for (x, out) in x.chunks_exact(mid * inner).zip(out.chunks_exact_mut(inner)) {
            let shared = Shared::new(partial);
            parallel(parts, x.len() * COST, |part| {
                // SAFETY: each part has its own line.
                let to = unsafe { shared.part(part * inner, inner) };
                let x = &x[part * each * inner..((part + 1) * each).min(mid) * inner];
                arch().dispatch(
                    #[inline(always)]
                    || lines(x, inner, to),
                );
            });
            arch().dispatch(
                #[inline(always)]
                || lines(partial, inner, out),
            );
        }
    });
}

/// Elements that one task reads.
const TASK: usize = 1 << 14;
/// Parts of a long column.
const PARTS: usize = 32;
/// What one element costs, in operations of a product: sums wait for memory.
const COST: usize = 4;
/// Lines shorter than this are added up several at a time.
const SHORT: usize = 64;
/// Floats of several short lines.
const SEVERAL: usize = 1024;
/// Lines whose rounding does not count.
const FEW: usize = 8;

/// Sum of lines of `inner` elements.
#[inline(always)]
fn lines(x: &[f32], inner: usize, out: &mut [f32]) {
    if inner == 1 {
        out[0] = sum(x);
        return;
    }
    if inner > SHORT || x.len() < 64 * SEVERAL {
        return add_lines(x, inner, out);
    }
    // Several lines as one, so that vectors are full; then the lines of their sum and what is left.
    let wide = SEVERAL / inner * inner;
    let mut several = [0.0; 2 * SEVERAL];
    let whole = x.len() / wide * wide;
    let rest = x.len() - whole;
    add_lines(&x[..whole], wide, &mut several[..wide]);
    several[wide..wide + rest].copy_from_slice(&x[whole..]);
    add_lines(&several[..wide + rest], inner, out);
}

/// Sum of lines, columns by columns. What rounding takes away is carried on, so that the error does not grow with the
/// number of lines (Kahan, Communications of the ACM 8(1), 1965).
#[inline(always)]
fn add_lines(x: &[f32], inner: usize, out: &mut [f32]) {
    if x.len() < FEW * inner {
        plain(x, inner, 0, out);
    } else if inner <= SHORT {
        add_columns::<SHORT>(x, inner, out);
    } else {
        add_columns::<SEVERAL>(x, inner, out);
    }
}

/// [`add_lines`], `W` columns at a time: their sums stay in the first-level cache.
#[inline(always)]
fn add_columns<const W: usize>(x: &[f32], inner: usize, out: &mut [f32]) {
    for first in (0..inner).step_by(W) {
        let width = W.min(inner - first);
        let mut sums = [0.0f32; W];
        let mut lost = [0.0f32; W];
        let (sums, lost) = (&mut sums[..width], &mut lost[..width]);
        for line in x.chunks_exact(inner) {
            for ((s, c), &x) in sums.iter_mut().zip(&mut *lost).zip(&line[first..first + width]) {
                let y = x - *c;
                let t = *s + y;
                *c = (t - *s) - y;
                *s = t;
            }
        }
        let out = &mut out[first..first + width];
        out.copy_from_slice(sums);
        if out.iter().all(|s| s.is_finite()) {
            continue;
        }
        // The difference of infinities is not what was lost.
        plain(x, inner, first, out);
    }
}

/// Sum of the columns from `first` on, as many as `out` has.
#[inline(always)]
fn plain(x: &[f32], inner: usize, first: usize, out: &mut [f32]) {
    out.fill(0.0);
    for line in x.chunks_exact(inner) {
        for (o, &x) in out.iter_mut().zip(&line[first..]) {
            *o += x;
        }
    }
}

/// `work(start, part)` for parts of `size` elements of `out`, which are made of `read` elements.
fn tasks(out: &mut [f32], size: usize, read: usize, work: impl Fn(usize, &mut [f32]) + Sync + Send) {
    let len = out.len();
    let shared = Shared::new(out);
    parallel(len.div_ceil(size), read * COST, |task| {
        let at = task * size;
        // SAFETY: each task has its own part.
        work(at, unsafe { shared.part(at, size.min(len - at)) });
    });
}

#[cfg(test)]
mod tests {
    use super::super::reference::in_pools;
    use super::*;

    fn values(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i * 2_654_435_761 % 1000) as f32 / 500.0 - 0.9).collect()
    }

    #[test]
    fn sums_over_any_axis_match_float64() {
        for (outer, mid, inner) in [
            (1, 1, 1),
            (3, 5, 1),
            (2, 7, 3),
            (200, 64, 49),
            (1, 70_000, 1),
            (1, 9000, 10),
            (16, 3, 5000),
            (1, 9001, 63),
            (3, 40_003, 7),
            (2, 100_000, 1),
            (8, 5000, 1),
            (1, 33, 20_000),
            (2, 0, 3),
            (0, 3, 2),
        ] {
            let x = values(outer * mid * inner);
            let mut out = vec![f32::NAN; outer * inner];
            sum_axis(&x, mid, inner, &mut out);
            for o in 0..outer {
                for i in 0..inner {
                    let terms = (0..mid).map(|m| f64::from(x[(o * mid + m) * inner + i]));
                    let want: f64 = terms.clone().sum();
                    let size: f64 = terms.map(f64::abs).sum();
                    assert!((f64::from(out[o * inner + i]) - want).abs() <= 1e-6 * size, "{outer} {mid} {inner}");
                }
            }
        }
    }

    #[test]
    fn many_lines_keep_their_digits_and_infinities_stay() {
        for (mid, inner) in [(1 << 16, 3), (1 << 12, 70), (999, 1500)] {
            let mut x = vec![0.1f32; mid * inner];
            let mut out = vec![f32::NAN; inner];
            sum_axis(&x, mid, inner, &mut out);
            let want = f64::from(0.1f32) * mid as f64;
            assert!(
                out.iter().all(|&s| (f64::from(s) - want).abs() <= 2e-7 * want),
                "{mid} {inner}: {} {want}",
                out[0]
            );
            x[7 * inner + 1] = f32::INFINITY;
            x[9 * inner + 2] = f32::NAN;
            sum_axis(&x, mid, inner, &mut out);
            assert!(out[0].is_finite() && out[1] == f32::INFINITY && out[2].is_nan(), "{mid} {inner}");
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        for (outer, mid, inner) in [(1, 9001, 63), (1, 500_000, 1), (300, 700, 1), (2, 300, 700), (20, 64, 49)] {
            let x = values(outer * mid * inner);
            in_pools(&format!("{outer} {mid} {inner}"), || {
                let mut out = vec![0.0; outer * inner];
                sum_axis(&x, mid, inner, &mut out);
                out
            });
        }
    }

    #[test]
    fn long_lines_keep_their_digits() {
        let x = vec![0.1f32; 1 << 22];
        let want = f64::from(0.1f32) * f64::from(1 << 22);
        assert!((f64::from(sum(&x)) - want).abs() <= 1e-5 * want);
        assert!((f64::from(dot(&x, &x)) - want * f64::from(0.1f32)).abs() <= 1e-5 * want);
    }

    #[test]
    fn the_maximum_is_found_anywhere() {
        for n in [1, 15, 16, 17, 100] {
            for at in 0..n {
                let mut x = vec![-3.0; n];
                x[at] = 5.0;
                assert_eq!(maximum(&x), 5.0);
            }
        }
    }
}
