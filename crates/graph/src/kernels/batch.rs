//! Many products of equal size: the heads of attention, matrices with a batch axis.

use super::epilogue::Epilogue;
use super::product::{Matrix, product};
use super::{PRODUCTS, Shared, parallel};

/// Products `c[i] = scale · op(a[i]) · op(b[i])` of one size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) rows: usize,
    pub(crate) inner: usize,
    pub(crate) columns: usize,
    /// Whether `a` is stored `[inner, rows]`, and whether `b` is stored `[columns, inner]`.
    pub(crate) turned: [bool; 2],
}

/// `c [n, rows, columns]`; product `i` takes the matrices of numbers `at(i)` of `a` and `b`.
pub(crate) fn products(
    s: Sizes,
    n: usize,
    a: &[f32],
    b: &[f32],
    at: impl Fn(usize) -> (usize, usize) + Sync,
    c: &mut [f32],
) {
    let (one_a, one_b, one_c) = (s.rows * s.inner, s.inner * s.columns, s.rows * s.columns);
    assert!(c.len() == n * one_c, "shapes were checked by infer");
    let matrix = |data, rows, columns, turned| {
        if turned { Matrix::new(data, columns, rows).transposed() } else { Matrix::new(data, rows, columns) }
    };
    let one = |i: usize, c: &mut [f32]| {
        let (at_a, at_b) = at(i);
        let left = matrix(&a[at_a * one_a..][..one_a], s.rows, s.inner, s.turned[0]);
        let right = matrix(&b[at_b * one_b..][..one_b], s.inner, s.columns, s.turned[1]);
        product(left, right, Epilogue::default(), c);
    };
    if s.inner == 0 {
        return c.fill(0.0);
    }
    if n == 1 {
        return one(0, c);
    }
    let shared = Shared::new(c);
    // Some products each, in a number that depends on the sizes alone.
    let each = n.div_ceil(64);
    let operations = n.saturating_mul(one_a).saturating_mul(s.columns) / PRODUCTS;
    parallel(n.div_ceil(each), operations, |task| {
        for i in task * each..((task + 1) * each).min(n) {
            // SAFETY: each product has its own matrix.
            one(i, unsafe { shared.part(i * one_c, one_c) });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i + seed) * 2_654_435_761 % 1000) as f32 / 500.0 - 1.0).collect()
    }

    #[test]
    fn each_layout_and_broadcast_matches_float64() {
        for (rows, inner, columns) in [(1, 1, 1), (50, 16, 50), (7, 33, 5), (3, 0, 4), (64, 9, 100)] {
            for turned in [[false, false], [true, false], [false, true], [true, true]] {
                let s = Sizes { rows, inner, columns, turned };
                let (n, other) = (6, 2);
                let (a, b) = (values(n * rows * inner, 1), values(other * inner * columns, 5));
                let mut c = vec![f32::NAN; n * rows * columns];
                products(s, n, &a, &b, |i| (i, i % other), &mut c);
                for i in 0..n {
                    let (mut distance, mut size) = (0.0f64, 0.0f64);
                    for r in 0..rows {
                        for q in 0..columns {
                            let term = |k: usize| {
                                let x = if turned[0] { k * rows + r } else { r * inner + k };
                                let y = if turned[1] { q * inner + k } else { k * columns + q };
                                f64::from(a[i * rows * inner + x]) * f64::from(b[i % other * inner * columns + y])
                            };
                            let want: f64 = (0..inner).map(term).sum();
                            distance += (f64::from(c[(i * rows + r) * columns + q]) - want).powi(2);
                            size += want * want;
                        }
                    }
                    assert!(distance.sqrt() <= 1e-6 * size.sqrt(), "{s:?}: {distance} of {size}");
                }
            }
        }
    }
}
