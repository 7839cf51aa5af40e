//! One operation per image, chosen at random, of random strength.
//! Müller and Hutter, ICCV 2021, arXiv:2103.10158, section 3, with the paper's "wide" ranges. Which operations: see
//! `operations.rs`.

use netproof_stats::rng::Rng;
use serde::Deserialize;

use super::operations::{self, BINS, Space};
use super::{Augmentation, each_image};
use crate::batch::Batch;
use crate::error::{TrainError, refuse};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Augmentation> = Entry {
    id: "trivial-augment",
    summary: "one operation per image, chosen at random, of random strength",
    build: |options, _| {
        let own: TrivialAugment = options.read()?;
        if !own.fill.is_finite() {
            return Err(refuse("fill", own.fill, "a finite number"));
        }
        Ok(Box::new(own))
    },
};

static SPACE: Space = Space { shear: 0.99, translate: |_| 32.0, degrees: 135.0, brightness: 0.99, bits: 6.0 };

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TrivialAugment {
    /// Value of the pixels that come into sight.
    fill: f32,
}

impl Augmentation for TrivialAugment {
    fn apply(&self, batch: &mut Batch, rng: &mut Rng) -> Result<(), TrainError> {
        each_image("trivial-augment", batch, rng, |image, size, rng| {
            let (number, bin) = (rng.below(operations::COUNT), rng.below(BINS));
            operations::apply(&SPACE, number, bin, image, size, self.fill, rng);
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
        apply(&Method::new("trivial-augment"), &mut batch, 1).unwrap();
        assert!(batch.features.as_f32().unwrap().iter().all(|v| (0.0..=1.0).contains(v)));
    }
}
