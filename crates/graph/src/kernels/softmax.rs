//! Softmax over rows: numerically stable, one pass over memory.

use pulp::{Simd, WithSimd};

use super::elementwise::{line, pieces};
use super::math::{Function, exp};
use super::reduce::{dot, maximum, sum};
use super::vectors::arch;

/// Elements of one task.
const BLOCK: usize = 1 << 14;

/// `y = softmax(scale · x)` over rows of `n`. A row without a finite maximum gives NaN, as the definition does.
pub(crate) fn softmax(n: usize, scale: f32, x: &[f32], y: &mut [f32]) {
    rows(n, x, x, y, Forward { scale });
}

/// `y = log softmax(x)` over rows of `n`.
pub(crate) fn log_softmax(n: usize, x: &[f32], y: &mut [f32]) {
    rows(n, x, x, y, Log);
}

/// Gradient of x from the output and its gradient: `scale · y · (g − Σ g y)`.
pub(crate) fn softmax_gradient(n: usize, scale: f32, y: &[f32], g: &[f32], dx: &mut [f32]) {
    rows(n, y, g, dx, Backward { scale });
}

/// Gradient of x from the output of [`log_softmax`] and its gradient: `g − eʸ Σ g`.
pub(crate) fn log_softmax_gradient(n: usize, y: &[f32], g: &[f32], dx: &mut [f32]) {
    rows(n, y, g, dx, LogBackward);
}

/// What happens to a row.
trait Row: Copy + Sync + Send {
    fn row<S: Simd>(self, simd: S, a: &[f32], b: &[f32], out: &mut [f32]);
}

/// `e^(scale · x − shift)`.
#[derive(Clone, Copy)]
struct Power {
    scale: f32,
    shift: f32,
}

impl Function for Power {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        exp(simd, simd.sub_f32s(simd.mul_f32s(x, simd.splat_f32s(self.scale)), simd.splat_f32s(self.shift)))
    }
}

#[derive(Clone, Copy)]
struct Forward {
    scale: f32,
}

impl Row for Forward {
    #[inline(always)]
    fn row<S: Simd>(self, simd: S, x: &[f32], _: &[f32], y: &mut [f32]) {
        line(simd, Power { scale: self.scale, shift: maximum(x) * self.scale }, x, y);
        let factor = 1.0 / sum(y);
        for y in y {
            *y *= factor;
        }
    }
}

#[derive(Clone, Copy)]
struct Log;

impl Row for Log {
    #[inline(always)]
    fn row<S: Simd>(self, simd: S, x: &[f32], _: &[f32], y: &mut [f32]) {
        let shift = maximum(x);
        line(simd, Power { scale: 1.0, shift }, x, y);
        let log = sum(y).ln();
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x - shift - log;
        }
    }
}

#[derive(Clone, Copy)]
struct Backward {
    scale: f32,
}

impl Row for Backward {
    #[inline(always)]
    fn row<S: Simd>(self, _: S, y: &[f32], g: &[f32], dx: &mut [f32]) {
        let along = dot(y, g);
        for ((d, &y), &g) in dx.iter_mut().zip(y).zip(g) {
            *d = self.scale * y * (g - along);
        }
    }
}

#[derive(Clone, Copy)]
struct LogBackward;

impl Row for LogBackward {
    #[inline(always)]
    fn row<S: Simd>(self, simd: S, y: &[f32], g: &[f32], dx: &mut [f32]) {
        let along = sum(g);
        line(simd, Power { scale: 1.0, shift: 0.0 }, y, dx);
        for (d, &g) in dx.iter_mut().zip(g) {
            *d = g - *d * along;
        }
    }
}

struct Rows<'a, R> {
    n: usize,
    a: &'a [f32],
    b: &'a [f32],
    out: &'a mut [f32],
    row: R,
}

impl<R: Row> WithSimd for Rows<'_, R> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let n = self.n;
        for ((a, b), out) in self.a.chunks_exact(n).zip(self.b.chunks_exact(n)).zip(self.out.chunks_exact_mut(n)) {
            self.row.row(simd, a, b, out);
        }
    }
}

fn rows(n: usize, a: &[f32], b: &[f32], out: &mut [f32], row: impl Row) {
    assert!(a.len() == out.len() && b.len() == out.len(), "shapes were checked by infer");
    if out.is_empty() {
        return;
    }
    pieces(out, (BLOCK / n).max(1) * n, |at, out| {
        let (a, b) = (&a[at..at + out.len()], &b[at..at + out.len()]);
        arch().dispatch(Rows { n, a, b, out, row });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i + seed) * 2_654_435_761 % 1000) as f32 / 50.0 - 10.0).collect()
    }

    fn close(got: &[f32], want: &[f64]) {
        let distance: f64 = got.iter().zip(want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
        let size: f64 = want.iter().map(|b| b * b).sum();
        assert!(distance.sqrt() <= 1e-6 * size.sqrt(), "{} of {}", distance.sqrt(), size.sqrt());
    }

    fn truth(n: usize, scale: f64, x: &[f32]) -> Vec<f64> {
        let row = |x: &[f32]| {
            let m = x.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(f64::from(x) * scale));
            let e: Vec<f64> = x.iter().map(|&x| (f64::from(x) * scale - m).exp()).collect();
            let s: f64 = e.iter().sum();
            e.into_iter().map(move |e| e / s).collect::<Vec<_>>()
        };
        x.chunks_exact(n).flat_map(row).collect()
    }

    #[test]
    fn rows_of_any_length_match_float64() {
        for (count, n) in [(1, 1), (3, 2), (5, 10), (7, 50), (1000, 50), (3, 1024), (2, 20_000)] {
            let (x, g) = (values(count * n, 1), values(count * n, 77));
            let mut y = vec![f32::NAN; x.len()];
            softmax(n, 0.25, &x, &mut y);
            let want = truth(n, 0.25, &x);
            close(&y, &want);
            let mut dx = vec![f32::NAN; x.len()];
            softmax_gradient(n, 0.25, &y, &g, &mut dx);
            let along = |row: usize| (0..n).map(|i| want[row * n + i] * f64::from(g[row * n + i])).sum::<f64>();
            let wanted: Vec<f64> = (0..x.len()).map(|i| 0.25 * want[i] * (f64::from(g[i]) - along(i / n))).collect();
            if n > 1 {
                close(&dx, &wanted);
            }
            let want = truth(n, 1.0, &x);
            log_softmax(n, &x, &mut y);
            let logs: Vec<f64> = want.iter().map(|p| p.ln()).collect();
            if n > 1 {
                close(&y, &logs);
            }
            log_softmax_gradient(n, &y, &g, &mut dx);
            let sums = |row: usize| g[row * n..(row + 1) * n].iter().map(|&g| f64::from(g)).sum::<f64>();
            let wanted: Vec<f64> = (0..x.len()).map(|i| f64::from(g[i]) - want[i] * sums(i / n)).collect();
            if n > 1 {
                close(&dx, &wanted);
            }
        }
    }

    #[test]
    fn rows_without_a_finite_maximum_are_nan() {
        let inf = f32::INFINITY;
        for row in [[-inf, -inf, -inf], [1.0, f32::NAN, 2.0], [inf, 0.0, 1.0]] {
            let mut y = [0.0; 3];
            softmax(3, 1.0, &row, &mut y);
            assert!(y.iter().any(|y| y.is_nan()), "{row:?} gives {y:?}");
        }
        let mut y = [0.0; 3];
        softmax(3, 1.0, &[-inf, 0.0, -inf], &mut y);
        assert_eq!(y, [0.0, 1.0, 0.0]);
    }
}
