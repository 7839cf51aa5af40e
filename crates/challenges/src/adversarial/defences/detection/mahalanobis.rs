//! Mahalanobis distance of the features to the nearest class, with one covariance for all classes.
//! Lee, Lee, Lee and Shin, NeurIPS 2018, arXiv:1807.03888, equations 1 and 2, on the last hidden layer. Checked against:
//! closed form, differences. Differs from the paper: no noise in front and no other layers; a small ridge keeps the
//! covariance invertible.

use super::{Clean, Local};

/// Part of the mean variance that is added to the diagonal.
const RIDGE: f64 = 1e-3;

pub(super) struct Mahalanobis {
    width: usize,
    means: Vec<Vec<f64>>,
    /// The inverse covariance, `[width, width]`.
    precision: Vec<f64>,
}

impl Mahalanobis {
    pub(super) fn fit(clean: &Clean<'_>) -> Self {
        let d = clean.width;
        let classes = clean.labels.iter().max().map_or(0, |m| m + 1);
        let mut sums = vec![vec![0.0; d]; classes];
        let mut counts = vec![0usize; classes];
        for (f, &y) in clean.features.chunks(d.max(1)).zip(clean.labels) {
            sums[y].iter_mut().zip(f).for_each(|(s, &v)| *s += f64::from(v));
            counts[y] += 1;
        }
        for (sum, &n) in sums.iter_mut().zip(&counts) {
            sum.iter_mut().for_each(|s| *s /= n.max(1) as f64);
        }
        let mut covariance = vec![0.0; d * d];
        for (f, &y) in clean.features.chunks(d.max(1)).zip(clean.labels) {
            let off: Vec<f64> = f.iter().zip(&sums[y]).map(|(&v, m)| f64::from(v) - m).collect();
            for (row, a) in covariance.chunks_mut(d.max(1)).zip(&off) {
                row.iter_mut().zip(&off).for_each(|(c, b)| *c += a * b);
            }
        }
        let n = clean.labels.len().max(1) as f64;
        covariance.iter_mut().for_each(|c| *c /= n);
        let trace: f64 = (0..d).map(|i| covariance[i * d + i]).sum();
        let ridge = (RIDGE * trace / d.max(1) as f64).max(1e-12);
        (0..d).for_each(|i| covariance[i * d + i] += ridge);
        let means = sums.into_iter().zip(counts).filter(|(_, n)| *n > 0).map(|(m, _)| m).collect();
        Self { width: d, means, precision: inverse(covariance, d) }
    }
}

impl Local for Mahalanobis {
    fn of(&self, _: &[f32], features: &[f32], _: &mut [f32], to_features: &mut [f32]) -> f64 {
        let mut best = (f64::INFINITY, Vec::new());
        for mean in &self.means {
            let off: Vec<f64> = features.iter().zip(mean).map(|(&f, m)| f64::from(f) - m).collect();
            let image: Vec<f64> = self
                .precision
                .chunks(self.width.max(1))
                .map(|row| row.iter().zip(&off).map(|(p, o)| p * o).sum())
                .collect();
            let distance: f64 = off.iter().zip(&image).map(|(a, b)| a * b).sum();
            if distance < best.0 {
                best = (distance, image);
            }
        }
        to_features.iter_mut().zip(&best.1).for_each(|(s, v)| *s = (2.0 * v) as f32);
        best.0
    }
}

/// Inverse of a symmetric positive matrix, by Gauss and Jordan with the largest pivot.
fn inverse(mut a: Vec<f64>, d: usize) -> Vec<f64> {
    let mut b: Vec<f64> = (0..d * d).map(|i| if i / d.max(1) == i % d.max(1) { 1.0 } else { 0.0 }).collect();
    for column in 0..d {
        let pivot = (column..d).max_by(|&i, &j| a[i * d + column].abs().total_cmp(&a[j * d + column].abs()));
        let pivot = pivot.unwrap_or(column);
        for k in 0..d {
            a.swap(column * d + k, pivot * d + k);
            b.swap(column * d + k, pivot * d + k);
        }
        let p = a[column * d + column];
        for k in 0..d {
            a[column * d + k] /= p;
            b[column * d + k] /= p;
        }
        for row in (0..d).filter(|&r| r != column) {
            let factor = a[row * d + column];
            if factor != 0.0 {
                for k in 0..d {
                    a[row * d + k] -= factor * a[column * d + k];
                    b[row * d + k] -= factor * b[column * d + k];
                }
            }
        }
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_is_one() {
        let a = vec![4.0, 1.0, 0.5, 1.0, 3.0, 0.2, 0.5, 0.2, 2.0];
        let b = inverse(a.clone(), 3);
        for i in 0..3 {
            for j in 0..3 {
                let sum: f64 = (0..3).map(|k| a[i * 3 + k] * b[k * 3 + j]).sum();
                assert!((sum - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
        }
    }

    /// Two classes of known means and the same diagonal covariance.
    #[test]
    fn distances_are_in_units_of_the_deviation() {
        let base = [[2.0f32, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]];
        let features: Vec<f32> =
            base.iter().map(|p| [p[0] + 10.0, p[1]]).chain(base.iter().map(|p| [p[0], p[1] + 5.0])).flatten().collect();
        let own = Mahalanobis::fit(&Clean { features: &features, width: 2, labels: &[0, 0, 0, 0, 1, 1, 1, 1] });
        // Variances 2 and 0.5 within each class.
        let mut slope = [0.0; 2];
        let d = own.of(&[], &[12.0, 1.0], &mut [], &mut slope);
        assert!((d - (4.0 / 2.0 + 1.0 / 0.5)).abs() < 0.02, "{d}");
        assert!((slope[0] - 2.0).abs() < 0.02 && (slope[1] - 4.0).abs() < 0.04, "{slope:?}");
    }
}
