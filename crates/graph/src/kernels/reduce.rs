//! Sums and maxima, in an order that depends on the shape alone.
//!
//! A line is added up in 16 partial sums, in blocks, so that the error grows with the number of blocks and not with the
//! number of elements (Higham, SIAM J. Sci. Comput. 14(4), 1993).

use super::elementwise::pieces;
use super::vectors::arch;
use super::{Shared, parallel};

/// Partial results of a line, so that they are vectors; the same on every machine.
const LANES: usize = 16;
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
    if inner == 1 {
        let each = ((1 << 14) / mid.max(1)).max(1);
        return pieces_of(out, each, mid, |at, out| {
            let x = &x[at * mid..(at + out.len()) * mid];
            arch().dispatch(
                #[inline(always)]
                || {
                    for (i, o) in out.iter_mut().enumerate() {
                        *o = sum(&x[i * mid..(i + 1) * mid]);
                    }
                },
            );
        });
    }
    if out.is_empty() {
        return;
    }
    let outer = out.len() / inner;
    if outer >= 8 || mid < 64 {
        let each = ((1 << 14) / (mid * inner).max(1)).max(1) * inner;
        return pieces_of(out, each, mid, |at, out| {
            arch().dispatch(
                #[inline(always)]
                || {
                    for (i, out) in out.chunks_exact_mut(inner).enumerate() {
                        lines(&x[(at / inner + i) * mid * inner..][..mid * inner], inner, out);
                    }
                },
            );
        });
    }
    // Few long columns: parts of each, then the sum of the parts.
    let parts = 16;
    let each = mid.div_ceil(parts);
    super::with_scratch(parts * inner, |partial| {
        for (o, out) in out.chunks_exact_mut(inner).enumerate() {
            let x = &x[o * mid * inner..(o + 1) * mid * inner];
            let shared = Shared::new(partial);
            parallel(parts, mid * inner, |part| {
                // SAFETY: each part has its own line.
                let to = unsafe { shared.part(part * inner, inner) };
                let rows = (part * each).min(mid)..((part + 1) * each).min(mid);
                let x = &x[rows.start * inner..rows.end * inner];
                arch().dispatch(
                    #[inline(always)]
                    || lines(x, inner, to),
                );
            });
            lines(partial, inner, out);
        }
    });
}

/// Sum of lines of `inner` elements, in blocks of lines.
#[inline(always)]
fn lines(x: &[f32], inner: usize, out: &mut [f32]) {
    out.fill(0.0);
    for line in x.chunks_exact(inner) {
        for (o, &x) in out.iter_mut().zip(line) {
            *o += x;
        }
    }
}

fn pieces_of(out: &mut [f32], size: usize, cost: usize, work: impl Fn(usize, &mut [f32]) + Sync + Send) {
    if out.len().saturating_mul(cost) < 1 << 15 {
        return work(0, out);
    }
    pieces(out, size, work);
}

#[cfg(test)]
mod tests {
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
