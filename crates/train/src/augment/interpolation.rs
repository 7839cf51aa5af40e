//! Rows moved towards another row of their own class, of tables and of images.
//! After SMOTE (Chawla et al., JAIR 16, 2002, section 4.2): `x + u · (other − x)` with u uniform in [0, 1]. Differs from it: the
//! other row is any of the same class in the batch, not one of the nearest, and rows are changed, not added.

use netproof_stats::rng::Rng;
use serde::Deserialize;

use super::Augmentation;
use crate::batch::{Batch, Targets};
use crate::error::{TrainError, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Augmentation> = Entry {
    id: "interpolation",
    summary: "rows moved towards another row of their own class",
    build: |options, _| {
        let own: Interpolation = options.read()?;
        within("probability", own.probability, [0.0, 1.0], "0 to 1")?;
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Interpolation {
    /// That a row is moved.
    probability: f64,
}

impl Default for Interpolation {
    fn default() -> Self {
        Self { probability: 0.5 }
    }
}

impl Augmentation for Interpolation {
    fn apply(&self, batch: &mut Batch, rng: &mut Rng) -> Result<(), TrainError> {
        let Targets::Classes(labels) = &batch.targets else {
            let message =
                "augmentation `interpolation` needs rows of one class each; put it before those that mix classes";
            return Err(TrainError::Mismatch { message: message.to_owned() });
        };
        let mut by_class = vec![Vec::new(); labels.iter().max().map_or(0, |m| m + 1)];
        labels.iter().enumerate().for_each(|(row, &class)| by_class[class].push(row));
        let width = batch.features.row_len().max(1);
        let old = batch.features.as_f32().unwrap_or_default().to_vec();
        let values = batch.features.as_f32_mut().unwrap_or_default();
        for (row, &class) in values.chunks_exact_mut(width).zip(labels) {
            let (moves, share) = (rng.unit() < self.probability, rng.unit() as f32);
            let other = by_class[class][rng.below(by_class[class].len())];
            if moves {
                row.iter_mut().zip(&old[other * width..][..width]).for_each(|(x, o)| *x += share * (o - *x));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use netproof_tensor::Tensor;

    use super::super::test_support::{apply, images};
    use super::*;
    use crate::method::Method;

    #[test]
    fn rows_stay_between_those_of_their_class() {
        let mut batch = images([40, 1, 1, 1]);
        // Class 0 lies on the line from (0, 0) to (1, 2), class 1 on that from (10, 10) to (12, 10).
        let row = |i: usize| {
            let t = (i / 2) as f32 / 19.0;
            if i.is_multiple_of(2) { [t, 2.0 * t] } else { [10.0 + 2.0 * t, 10.0] }
        };
        let before: Vec<f32> = (0..40).flat_map(row).collect();
        batch.features = Tensor::f32(vec![40, 2], before.clone()).unwrap();
        batch.targets = Targets::Classes((0..40).map(|i| i % 2).collect());
        apply(&Method::new("interpolation").with("probability", 1.0), &mut batch, 1).unwrap();
        let after = batch.features.as_f32().unwrap();
        for (i, v) in after.chunks_exact(2).enumerate() {
            let on_the_line = if i.is_multiple_of(2) {
                (v[1] - 2.0 * v[0]).abs() < 1e-5 && (0.0..=1.0).contains(&v[0])
            } else {
                (v[1] - 10.0).abs() < 1e-5 && (10.0..=12.0).contains(&v[0])
            };
            assert!(on_the_line, "{i}: {v:?}");
        }
        assert!(after.iter().zip(&before).filter(|(a, b)| a != b).count() > 40);
    }

    #[test]
    fn numbers_have_no_class() {
        let mut batch = images([2, 1, 1, 1]);
        batch.targets = Targets::Numbers(vec![0.0, 1.0]);
        assert!(apply(&Method::new("interpolation"), &mut batch, 0).is_err());
    }
}
