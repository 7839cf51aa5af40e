//! A few operations per image, chosen at random, all of one strength.
//! Cubuk et al., NeurIPS 2020, arXiv:1909.13719, section 3; ranges, 2 operations and strength 9 of 30 as in torchvision. Which
//! operations: see `operations.rs`.

use netproof_stats::rng::Rng;
use serde::Deserialize;

use super::operations::{self, BINS, Space};
use super::{Augmentation, each_image};
use crate::batch::Batch;
use crate::error::{TrainError, refuse, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Augmentation> = Entry {
    id: "rand-augment",
    summary: "a few operations per image, chosen at random, all of one strength",
    build: |options, _| {
        let own: RandAugment = options.read()?;
        within("operations", own.operations as f64, [0.0, 16.0], "0 to 16")?;
        within("magnitude", own.magnitude as f64, [0.0, (BINS - 1) as f64], "0 to 30")?;
        if !own.fill.is_finite() {
            return Err(refuse("fill", own.fill, "a finite number"));
        }
        Ok(Box::new(own))
    },
};

static SPACE: Space =
    Space { shear: 0.3, translate: |n| 150.0 / 331.0 * n as f64, degrees: 30.0, brightness: 0.9, bits: 4.0 };

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RandAugment {
    /// Operations per image.
    operations: usize,
    /// Strength, 0 to 30.
    magnitude: usize,
    /// Value of the pixels that come into sight.
    fill: f32,
}

impl Default for RandAugment {
    fn default() -> Self {
        Self { operations: 2, magnitude: 9, fill: 0.0 }
    }
}

impl Augmentation for RandAugment {
    fn apply(&self, batch: &mut Batch, rng: &mut Rng) -> Result<(), TrainError> {
        each_image("rand-augment", batch, rng, |image, size, rng| {
            for _ in 0..self.operations {
                let number = rng.below(operations::COUNT);
                operations::apply(&SPACE, number, self.magnitude, image, size, self.fill, rng);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{apply, images};
    use crate::method::Method;

    #[test]
    fn pixels_stay_in_range() {
        let mut batch = images([64, 3, 8, 8]);
        let n = batch.features.len() as f32;
        batch.features.as_f32_mut().unwrap().iter_mut().for_each(|v| *v /= n);
        apply(&Method::new("rand-augment"), &mut batch, 1).unwrap();
        assert!(batch.features.as_f32().unwrap().iter().all(|v| (0.0..=1.0).contains(v)));
    }

    #[test]
    fn no_operation_changes_nothing() {
        let mut batch = images([4, 1, 3, 3]);
        let before = batch.clone();
        apply(&Method::new("rand-augment").with("operations", 0), &mut batch, 1).unwrap();
        assert_eq!(batch, before);
    }
}
