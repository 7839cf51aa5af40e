//! Distance of the normalised features to the k-th nearest clean row.
//! Sun, Ming, Zhu and Li, ICML 2022, arXiv:2204.06507, algorithm 1. Checked against: closed form, differences.

use super::{Clean, Local};

/// Which neighbour counts. The paper takes 50 of 50,000 rows for CIFAR-10; with as few rows as here a smaller one.
const NEIGHBOUR: usize = 10;

pub(super) struct NearestNeighbours {
    width: usize,
    /// Normalised features of clean rows.
    rows: Vec<f32>,
}

impl NearestNeighbours {
    pub(super) fn fit(clean: &Clean<'_>) -> Self {
        let mut rows = clean.features.to_vec();
        for row in rows.chunks_mut(clean.width.max(1)) {
            let length = norm(row);
            row.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
        }
        Self { width: clean.width, rows }
    }
}

fn norm(v: &[f32]) -> f64 {
    v.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt().max(1e-12)
}

impl Local for NearestNeighbours {
    fn of(&self, _: &[f32], features: &[f32], _: &mut [f32], to_features: &mut [f32]) -> f64 {
        let length = norm(features);
        let own: Vec<f32> = features.iter().map(|&f| (f64::from(f) / length) as f32).collect();
        let square = |row: &[f32]| row.iter().zip(&own).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        let mut near: Vec<(f32, usize)> =
            self.rows.chunks(self.width.max(1)).enumerate().map(|(i, row)| (square(row), i)).collect();
        let k = NEIGHBOUR.min(near.len()).saturating_sub(1);
        if near.is_empty() {
            return f64::NAN;
        }
        near.select_nth_unstable_by(k, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let (square, at) = near[k];
        let distance = f64::from(square).sqrt();
        let other = &self.rows[at * self.width..(at + 1) * self.width];
        if distance > 0.0 {
            // Through the normalisation only what is across the features counts.
            let slope: Vec<f64> = own.iter().zip(other).map(|(a, b)| f64::from(a - b) / distance).collect();
            let along: f64 = slope.iter().zip(&own).map(|(s, &a)| s * f64::from(a)).sum();
            for ((to, s), &a) in to_features.iter_mut().zip(slope).zip(&own) {
                *to = ((s - along * f64::from(a)) / length) as f32;
            }
        }
        distance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenth_neighbour_on_the_circle_counts() {
        // Rows on the circle, one degree apart, of different lengths.
        let angle = |i: usize| (i as f32).to_radians();
        let features: Vec<f32> =
            (0..40).flat_map(|i| [angle(i).cos(), angle(i).sin()].map(|v| v * (1.0 + i as f32))).collect();
        let own = NearestNeighbours::fit(&Clean { features: &features, width: 2, labels: &[0; 40] });
        let d = own.of(&[], &[3.0, 0.0], &mut [], &mut [0.0; 2]);
        assert!((d - 2.0 * (4.5f64.to_radians()).sin()).abs() < 1e-5, "{d}");
        assert_eq!(own.of(&[], &[3.0, 0.0], &mut [], &mut [0.0; 2]), own.of(&[], &[30.0, 0.0], &mut [], &mut [0.0; 2]));
    }
}
