//! Layer normalisation over rows (Ba, Kiros and Hinton, arXiv:1607.06450, equations 3 and 4).

use pulp::{Simd, WithSimd};

use super::elementwise::pieces;
use super::reduce::{dot, sum};
use super::vectors::{arch, read, write};
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
            arch().dispatch(Rows { n, epsilon, x, scale, g, dx, sums: wants.then_some(sums) });
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

/// The way back through some rows.
struct Rows<'a> {
    n: usize,
    epsilon: f32,
    x: &'a [f32],
    scale: &'a [f32],
    g: &'a [f32],
    dx: Option<&'a mut [f32]>,
    /// Sums over the rows: `Σ g x̂`, then `Σ g`.
    sums: Option<&'a mut [f32]>,
}

impl WithSimd for Rows<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let n = self.n;
        if let Some(sums) = &mut self.sums {
            sums.fill(0.0);
        }
        let all = self.x.chunks_exact(n).zip(self.g.chunks_exact(n));
        for (row, (x, g)) in all.enumerate() {
            let (mean, inverse) = level(simd, x, self.epsilon);
            let [total, along] = match &mut self.sums {
                Some(sums) => add_row::<S, true>(simd, (x, self.scale, g), mean, inverse, sums),
                None => add_row::<S, false>(simd, (x, self.scale, g), mean, inverse, &mut []),
            };
            if let Some(dx) = &mut self.dx {
                let dx = &mut dx[row * n..(row + 1) * n];
                write_row(simd, (x, self.scale, g), mean, inverse, [total / n as f32, along / n as f32], dx);
            }
        }
    }
}

/// Mean and inverse deviation of a row.
#[inline(always)]
fn level<S: Simd>(simd: S, x: &[f32], epsilon: f32) -> (f32, f32) {
    let (mut even, mut odd) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
    for pair in x.chunks(2 * S::F32_LANES) {
        let (a, b) = pair.split_at(pair.len().min(S::F32_LANES));
        even = simd.add_f32s(even, read(simd, a));
        odd = simd.add_f32s(odd, read(simd, b));
    }
    let mean = simd.reduce_sum_f32s(simd.add_f32s(even, odd)) / x.len() as f32;
    let middle = simd.splat_f32s(mean);
    (even, odd) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
    let pairs = x.chunks_exact(2 * S::F32_LANES);
    let ones = pairs.remainder().chunks_exact(S::F32_LANES);
    // Lanes behind the last number would be 0, not the mean away from it.
    let rest: f32 = ones.remainder().iter().map(|x| (x - mean) * (x - mean)).sum();
    for pair in pairs {
        let (a, b) = pair.split_at(S::F32_LANES);
        even = add_square(simd, a, middle, even);
        odd = add_square(simd, b, middle, odd);
    }
    for one in ones {
        even = add_square(simd, one, middle, even);
    }
    let squares = simd.reduce_sum_f32s(simd.add_f32s(even, odd)) + rest;
    (mean, 1.0 / (squares / x.len() as f32 + epsilon).sqrt())
}

/// `sum + (x − middle)²`
#[inline(always)]
fn add_square<S: Simd>(simd: S, x: &[f32], middle: S::f32s, sum: S::f32s) -> S::f32s {
    let d = simd.sub_f32s(read(simd, x), middle);
    simd.mul_add_e_f32s(d, d, sum)
}

/// `Σ scale · g` and `Σ scale · g · x̂` of a row; `g · x̂` and `g` are added to the sums where they are wanted.
#[inline(always)]
fn add_row<S: Simd, const SUMS: bool>(
    simd: S,
    (x, scale, g): (&[f32], &[f32], &[f32]),
    mean: f32,
    inverse: f32,
    sums: &mut [f32],
) -> [f32; 2] {
    let (mean, inverse) = (simd.splat_f32s(mean), simd.splat_f32s(inverse));
    let (mut total, mut along) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
    let (of_scale, of_bias) = sums.split_at_mut(sums.len() / 2);
    for at in (0..x.len()).step_by(S::F32_LANES) {
        let range = at..(at + S::F32_LANES).min(x.len());
        // Behind the last number g is 0, and so is all that is added.
        let g = read(simd, &g[range.clone()]);
        let unit = simd.mul_f32s(simd.sub_f32s(read(simd, &x[range.clone()]), mean), inverse);
        let t = simd.mul_f32s(read(simd, &scale[range.clone()]), g);
        total = simd.add_f32s(total, t);
        along = simd.mul_add_e_f32s(t, unit, along);
        if SUMS {
            let (a, b) = (&mut of_scale[range.clone()], &mut of_bias[range]);
            let sum = simd.mul_add_e_f32s(g, unit, read(simd, a));
            write(simd, a, sum);
            let sum = simd.add_f32s(g, read(simd, b));
            write(simd, b, sum);
        }
    }
    [simd.reduce_sum_f32s(total), simd.reduce_sum_f32s(along)]
}

/// `dx = (scale · g − mean − x̂ · along) · inverse`.
#[inline(always)]
fn write_row<S: Simd>(
    simd: S,
    (x, scale, g): (&[f32], &[f32], &[f32]),
    mean: f32,
    inverse: f32,
    [level, along]: [f32; 2],
    dx: &mut [f32],
) {
    let [mean, inverse, level, along] = [mean, inverse, level, along].map(
        #[inline(always)]
        |v| simd.splat_f32s(v),
    );
    for at in (0..x.len()).step_by(S::F32_LANES) {
        let range = at..(at + S::F32_LANES).min(x.len());
        let unit = simd.mul_f32s(simd.sub_f32s(read(simd, &x[range.clone()]), mean), inverse);
        let t = simd.mul_f32s(read(simd, &scale[range.clone()]), read(simd, &g[range.clone()]));
        let d = simd.sub_f32s(simd.sub_f32s(t, level), simd.mul_f32s(unit, along));
        write(simd, &mut dx[range], simd.mul_f32s(d, inverse));
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
    fn only_what_is_wanted_is_written_and_is_the_same() {
        let (rows, n) = (40, 23);
        let (x, g, scale) = (values(rows * n, 3), values(rows * n, 8), values(n, 1));
        let (mut dx, mut ds, mut db) = (vec![0.0; rows * n], vec![0.0; n], vec![0.0; n]);
        backward(n, 1e-5, &x, &scale, &g, Gradients { x: Some(&mut dx), parameters: Some((&mut ds, &mut db)) });
        let (mut alone, mut ts, mut tb) = (vec![0.0; rows * n], vec![0.0; n], vec![0.0; n]);
        backward(n, 1e-5, &x, &scale, &g, Gradients { x: Some(&mut alone), parameters: None });
        backward(n, 1e-5, &x, &scale, &g, Gradients { x: None, parameters: Some((&mut ts, &mut tb)) });
        assert_eq!((alone, ts, tb), (dx, ds, db));
    }

    #[test]
    fn a_large_mean_does_not_hide_the_variance() {
        let x: Vec<f32> = (0..64).map(|i| 10_000.0 + (i % 2) as f32).collect();
        let mut y = vec![0.0; 64];
        forward(64, 0.0, &x, &[1.0; 64], None, &mut y);
        assert!(y.iter().all(|y| (y.abs() - 1.0).abs() < 1e-3), "{y:?}");
    }
}
