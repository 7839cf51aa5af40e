//! Layer normalisation over rows (Ba, Kiros and Hinton, arXiv:1607.06450, equations 3 and 4).

use super::elementwise::pieces;
use super::reduce::{dot, sum};
use super::vectors::arch;
use super::{Shared, parallel, with_scratch};

/// Elements of one task.
const BLOCK: usize = 1 << 14;

/// `y = (x − mean) / √(variance + ε) · scale + bias` over rows of `n`.
pub(crate) fn forward(n: usize, epsilon: f32, x: &[f32], scale: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    assert!(x.len() == y.len() && scale.len() == n && bias.is_none_or(|b| b.len() == n));
    if y.is_empty() {
        return;
    }
    pieces(y, (BLOCK / n).max(1) * n, |at, y| {
        let x = &x[at..at + y.len()];
        arch().dispatch(
            #[inline(always)]
            || {
                for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
                    let inverse = standardize(x, epsilon, y);
                    match bias {
                        Some(bias) => {
                            let all = y.iter_mut().zip(scale).zip(bias);
                            all.for_each(|((y, &s), &b)| *y = *y * inverse * s + b);
                        }
                        None => y.iter_mut().zip(scale).for_each(|(y, &s)| *y = *y * inverse * s),
                    }
                }
            },
        );
    });
}

/// Writes `x − mean`, returns the inverse deviation.
#[inline(always)]
fn standardize(x: &[f32], epsilon: f32, to: &mut [f32]) -> f32 {
    let n = x.len() as f32;
    let mean = sum(x) / n;
    to.iter_mut().zip(x).for_each(|(t, &x)| *t = x - mean);
    1.0 / (dot(to, to) / n + epsilon).sqrt()
}

/// What [`backward`] writes.
pub(crate) struct Gradients<'a> {
    pub(crate) x: Option<&'a mut [f32]>,
    /// Of the scale and of the bias, `n` each.
    pub(crate) parameters: Option<(&'a mut [f32], &'a mut [f32])>,
}

/// Gradients of [`forward`] from the output's gradient `g`.
pub(crate) fn backward(n: usize, epsilon: f32, x: &[f32], scale: &[f32], g: &[f32], to: Gradients<'_>) {
    assert!(x.len() == g.len() && scale.len() == n);
    let rows = x.len().checked_div(n).unwrap_or(0);
    let wants = to.parameters.is_some();
    // Enough tasks for any usual machine, in a number that depends on the shape alone.
    let each = rows.div_ceil(64).max(1);
    let tasks = rows.div_ceil(each);
    let mut none: [f32; 0] = [];
    let out = Shared::new(to.x.unwrap_or(&mut none));
    with_scratch(tasks * 2 * n, |sums| {
        let shared = Shared::new(sums);
        parallel(tasks, x.len() * 16, |task| {
            let part = task * each * n..((task + 1) * each * n).min(x.len());
            // SAFETY: each task has its own rows and its own sums.
            let dx = (!out.is_empty()).then(|| unsafe { out.part(part.start, part.len()) });
            // SAFETY: as above.
            let sums = unsafe { shared.part(task * 2 * n, 2 * n) };
            let (x, g) = (&x[part.clone()], &g[part]);
            with_scratch(2 * n, |scratch| {
                arch().dispatch(
                    #[inline(always)]
                    || rows_back(n, epsilon, (x, scale, g), dx, wants.then_some(sums), scratch),
                );
            });
        });
        if let Some((of_scale, of_bias)) = to.parameters {
            of_scale.fill(0.0);
            of_bias.fill(0.0);
            for sums in sums.chunks_exact(2 * n) {
                of_scale.iter_mut().zip(&sums[..n]).for_each(|(a, b)| *a += b);
                of_bias.iter_mut().zip(&sums[n..]).for_each(|(a, b)| *a += b);
            }
        }
    });
}

#[inline(always)]
fn rows_back(
    n: usize,
    epsilon: f32,
    (x, scale, g): (&[f32], &[f32], &[f32]),
    dx: Option<&mut [f32]>,
    mut sums: Option<&mut [f32]>,
    scratch: &mut [f32],
) {
    let (values, scaled) = scratch.split_at_mut(n);
    if let Some(sums) = &mut sums {
        sums.fill(0.0);
    }
    let mut dx = dx;
    for (row, (x, g)) in x.chunks_exact(n).zip(g.chunks_exact(n)).enumerate() {
        let inverse = standardize(x, epsilon, values);
        values.iter_mut().for_each(|v| *v *= inverse);
        if let Some(sums) = &mut sums {
            let (of_scale, of_bias) = sums.split_at_mut(n);
            of_scale.iter_mut().zip(&*values).zip(g).for_each(|((a, &v), &g)| *a += v * g);
            of_bias.iter_mut().zip(g).for_each(|(a, &g)| *a += g);
        }
        if let Some(dx) = &mut dx {
            scaled.iter_mut().zip(scale).zip(g).for_each(|((t, &s), &g)| *t = s * g);
            let mean = sum(scaled) / n as f32;
            let along = dot(scaled, values) / n as f32;
            let dx = &mut dx[row * n..(row + 1) * n];
            let all = dx.iter_mut().zip(&*scaled).zip(&*values);
            all.for_each(|((d, &t), &v)| *d = (t - mean - v * along) * inverse);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i + seed) * 2_654_435_761 % 1000) as f32 / 500.0 - 0.9).collect()
    }

    fn close(got: &[f32], want: &[f64], what: &str) {
        let distance: f64 = got.iter().zip(want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
        let size: f64 = want.iter().map(|b| b * b).sum();
        assert!(distance.sqrt() <= 2e-6 * size.sqrt(), "{what}: {} of {}", distance.sqrt(), size.sqrt());
    }

    #[test]
    fn values_and_gradients_match_float64() {
        for (rows, n) in [(1, 2), (3, 5), (200, 64), (7, 1023), (65, 17)] {
            let (x, g) = (values(rows * n, 3), values(rows * n, 8));
            let (scale, bias) = (values(n, 1), values(n, 2));
            let epsilon = 1e-5;
            let mut y = vec![f32::NAN; rows * n];
            forward(n, epsilon, &x, &scale, Some(&bias), &mut y);
            let (mut dx, mut ds, mut db) = (vec![f32::NAN; rows * n], vec![f32::NAN; n], vec![f32::NAN; n]);
            let to = Gradients { x: Some(&mut dx), parameters: Some((&mut ds, &mut db)) };
            backward(n, epsilon, &x, &scale, &g, to);
            let (mut wy, mut wx) = (vec![], vec![]);
            let (mut ws, mut wb) = (vec![0.0; n], vec![0.0; n]);
            for r in 0..rows {
                let line = |v: &[f32]| v[r * n..(r + 1) * n].iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
                let (x, g) = (line(&x), line(&g));
                let mean = x.iter().sum::<f64>() / n as f64;
                let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
                let inverse = 1.0 / (variance + f64::from(epsilon)).sqrt();
                let v: Vec<f64> = x.iter().map(|x| (x - mean) * inverse).collect();
                let t: Vec<f64> = g.iter().zip(&scale).map(|(g, &s)| g * f64::from(s)).collect();
                let (a, b) = (t.iter().sum::<f64>(), t.iter().zip(&v).map(|(t, v)| t * v).sum::<f64>());
                for i in 0..n {
                    wy.push(v[i] * f64::from(scale[i]) + f64::from(bias[i]));
                    wx.push((t[i] - a / n as f64 - v[i] * b / n as f64) * inverse);
                    ws[i] += v[i] * g[i];
                    wb[i] += g[i];
                }
            }
            close(&y, &wy, "y");
            close(&ds, &ws, "scale");
            close(&db, &wb, "bias");
            // With two elements the gradient of x is only rounding.
            if n > 2 {
                close(&dx, &wx, "x");
            }
        }
    }

    #[test]
    fn a_large_mean_does_not_hide_the_variance() {
        let x: Vec<f32> = (0..64).map(|i| 10_000.0 + (i % 2) as f32).collect();
        let mut y = vec![0.0; 64];
        forward(64, 0.0, &x, &[1.0; 64], None, &mut y);
        assert!(y.iter().all(|y| (y.abs() - 1.0).abs() < 1e-3), "{y:?}");
    }
}
