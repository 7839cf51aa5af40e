//! Images turned left for right.

use netproof_stats::rng::Rng;
use serde::Deserialize;

use super::{Augmentation, each_image};
use crate::batch::Batch;
use crate::error::{TrainError, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Augmentation> = Entry {
    id: "horizontal-flip",
    summary: "images turned left for right",
    build: |options, _| {
        let own: HorizontalFlip = options.read()?;
        within("probability", own.probability, [0.0, 1.0], "0 to 1")?;
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HorizontalFlip {
    probability: f64,
}

impl Default for HorizontalFlip {
    fn default() -> Self {
        Self { probability: 0.5 }
    }
}

impl Augmentation for HorizontalFlip {
    fn apply(&self, batch: &mut Batch, rng: &mut Rng) -> Result<(), TrainError> {
        each_image("horizontal-flip", batch, rng, |image, [_, _, width], rng| {
            if rng.unit() < self.probability {
                image.chunks_exact_mut(width.max(1)).for_each(<[f32]>::reverse);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{apply, images};
    use crate::method::Method;

    #[test]
    fn rows_of_pixels_are_reversed() {
        let mut batch = images([1, 2, 1, 3]);
        apply(&Method::new("horizontal-flip").with("probability", 1.0), &mut batch, 0).unwrap();
        assert_eq!(batch.features.as_f32().unwrap(), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
        apply(&Method::new("horizontal-flip").with("probability", 0.0), &mut batch, 0).unwrap();
        assert_eq!(batch.features.as_f32().unwrap(), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
    }

    #[test]
    fn about_half_of_the_images_turn() {
        let mut batch = images([1000, 1, 1, 2]);
        apply(&Method::new("horizontal-flip"), &mut batch, 3).unwrap();
        let turned = batch.features.as_f32().unwrap().chunks(2).filter(|p| p[0] > p[1]).count();
        // Four standard deviations of 1,000 tosses are 63.
        assert!((437..=563).contains(&turned), "{turned}");
    }
}
