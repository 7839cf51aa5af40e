//! Loops over elements: one or two inputs, the second possibly broadcast.
//!
//! Plain `for` loops: a closure handed to `for_each` may become a function of its own, without the machine's vectors.

use pulp::{Simd, WithSimd};

use super::math::{Function, Function2};
use super::vectors::{arch, read, write};
use super::{Shared, parallel};

/// Elements of one task.
const BLOCK: usize = 1 << 15;
/// What one element costs, in operations of a product: these loops wait for memory.
const COST: usize = 8;

/// `out[i] = f(x[i])`.
pub(crate) fn map(x: &[f32], out: &mut [f32], f: impl Fn(f32) -> f32 + Copy + Sync + Send) {
    assert!(x.len() == out.len(), "shapes were checked by infer");
    blocks(out, |at, out| {
        let x = &x[at..at + out.len()];
        arch().dispatch(
            #[inline(always)]
            || {
                for (o, &x) in out.iter_mut().zip(x) {
                    *o = f(x);
                }
            },
        );
    });
}

/// `out[i] = f(x[i])` for functions that are more than a few operations, and would not become vectors by themselves.
pub(crate) fn compute(f: impl Function, x: &[f32], out: &mut [f32]) {
    assert!(x.len() == out.len(), "shapes were checked by infer");
    blocks(out, |at, out| arch().dispatch(Compute { f, x: &x[at..at + out.len()], out }));
}

/// `out[i] = f(a[i], b[i])`, likewise.
pub(crate) fn compute2(f: impl Function2, a: &[f32], b: &[f32], out: &mut [f32]) {
    assert!(a.len() == out.len() && b.len() == out.len(), "shapes were checked by infer");
    blocks(out, |at, out| {
        let (a, b) = (&a[at..at + out.len()], &b[at..at + out.len()]);
        arch().dispatch(Compute2 { f, a, b, out });
    });
}

struct Compute<'a, F> {
    f: F,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl<F: Function> WithSimd for Compute<'_, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        line(simd, self.f, self.x, self.out);
    }
}

/// `out[i] = f(x[i])` within dispatched code.
#[inline(always)]
pub(crate) fn line<S: Simd>(simd: S, f: impl Function, x: &[f32], out: &mut [f32]) {
    for (o, x) in out.chunks_mut(S::F32_LANES).zip(x.chunks(S::F32_LANES)) {
        write(simd, o, f.apply(simd, read(simd, x)));
    }
}

struct Compute2<'a, F> {
    f: F,
    a: &'a [f32],
    b: &'a [f32],
    out: &'a mut [f32],
}

impl<F: Function2> WithSimd for Compute2<'_, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lines = self.a.chunks(S::F32_LANES).zip(self.b.chunks(S::F32_LANES));
        for (o, (a, b)) in self.out.chunks_mut(S::F32_LANES).zip(lines) {
            let y = self.f.apply(simd, read(simd, a), read(simd, b));
            write(simd, o, y);
        }
    }
}

/// `out[i] = f(a[i], b[i])`.
pub(crate) fn zip(a: &[f32], b: &[f32], out: &mut [f32], f: impl Fn(f32, f32) -> f32 + Copy + Sync + Send) {
    assert!(a.len() == out.len() && b.len() == out.len(), "shapes were checked by infer");
    blocks(out, |at, out| {
        let (a, b) = (&a[at..at + out.len()], &b[at..at + out.len()]);
        arch().dispatch(
            #[inline(always)]
            || {
                for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
                    *o = f(a, b);
                }
            },
        );
    });
}

/// `to[i] = f(to[i], b[i])`.
pub(crate) fn update(to: &mut [f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Copy + Sync + Send) {
    assert!(to.len() == b.len(), "shapes were checked by infer");
    blocks(to, |at, to| {
        let b = &b[at..at + to.len()];
        arch().dispatch(
            #[inline(always)]
            || {
                for (o, &b) in to.iter_mut().zip(b) {
                    *o = f(*o, b);
                }
            },
        );
    });
}

/// `out[o, m, i] = f(a[o, m, i], b[m])` with `b` of `b.len()` and `inner` elements behind each.
pub(crate) fn broadcast(
    a: &[f32],
    b: &[f32],
    inner: usize,
    out: &mut [f32],
    f: impl Fn(f32, f32) -> f32 + Copy + Sync + Send,
) {
    assert!(a.len() == out.len(), "shapes were checked by infer");
    if out.is_empty() {
        return;
    }
    if let [b] = *b {
        return map(a, out, move |a| f(a, b));
    }
    if inner > 1 {
        // Whole runs of one number of b.
        let runs = (BLOCK / inner).max(1);
        pieces(out, runs * inner, |at, out| {
            let a = &a[at..at + out.len()];
            arch().dispatch(
                #[inline(always)]
                || {
                    let first = at / inner;
                    for (i, (out, a)) in out.chunks_exact_mut(inner).zip(a.chunks_exact(inner)).enumerate() {
                        let b = b[(first + i) % b.len()];
                        for (o, &a) in out.iter_mut().zip(a) {
                            *o = f(a, b);
                        }
                    }
                },
            );
        });
        return;
    }
    let rows = (BLOCK / b.len()).max(1);
    pieces(out, rows * b.len(), |at, out| {
        let a = &a[at..at + out.len()];
        arch().dispatch(
            #[inline(always)]
            || {
                for (out, a) in out.chunks_exact_mut(b.len()).zip(a.chunks_exact(b.len())) {
                    for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
                        *o = f(a, b);
                    }
                }
            },
        );
    });
}

fn blocks(out: &mut [f32], work: impl Fn(usize, &mut [f32]) + Sync + Send) {
    pieces(out, BLOCK, work);
}

/// `work(start, part)` for parts of `size` elements.
pub(crate) fn pieces(out: &mut [f32], size: usize, work: impl Fn(usize, &mut [f32]) + Sync + Send) {
    let len = out.len();
    if len <= size {
        return work(0, out);
    }
    let shared = Shared::new(out);
    parallel(len.div_ceil(size), len * COST, |task| {
        let at = task * size;
        // SAFETY: each task has its own part.
        work(at, unsafe { shared.part(at, size.min(len - at)) });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37).sin()).collect()
    }

    #[test]
    fn every_element_meets_its_partner() {
        for n in [0, 1, 15, 17, BLOCK - 1, BLOCK, 3 * BLOCK + 5] {
            let (a, b) = (values(n), values(n + 1));
            let mut out = vec![f32::NAN; n];
            map(&a, &mut out, |x| 2.0 * x);
            assert!(out.iter().zip(&a).all(|(o, a)| *o == 2.0 * a));
            zip(&a, &b[1..], &mut out, |x, y| x - y);
            assert!((0..n).all(|i| out[i] == a[i] - b[i + 1]));
            update(&mut out, &a, |x, y| x + y);
            assert!((0..n).all(|i| out[i] == a[i] - b[i + 1] + a[i]));
        }
    }

    #[test]
    fn the_second_operand_repeats() {
        for (outer, mid, inner) in
            [(1, 1, 1), (3, 5, 1), (2, 7, 3), (200, 64, 49), (70_000, 1, 1), (1, 3, BLOCK + 7), (0, 3, 2)]
        {
            let (a, b) = (values(outer * mid * inner), values(mid));
            let mut out = vec![f32::NAN; a.len()];
            broadcast(&a, &b, inner, &mut out, |x, y| x * y);
            assert!((0..a.len()).all(|i| out[i] == a[i] * b[i / inner % mid]), "{outer} {mid} {inner}");
        }
    }
}
