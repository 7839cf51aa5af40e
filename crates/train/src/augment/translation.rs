//! Images moved by a random part of their size, down and right.
//! As `translate` of torchvision's `RandomAffine`: each shift uniform between ±`fraction` of height or width.

use netproof_stats::rng::Rng;
use serde::Deserialize;

use super::affine::{STAY, warp};
use super::{Augmentation, each_image};
use crate::batch::Batch;
use crate::error::{TrainError, refuse, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Augmentation> = Entry {
    id: "translation",
    summary: "images moved by a random part of their size",
    build: |options, _| {
        let own: Translation = options.read()?;
        within("fraction", own.fraction, [0.0, 1.0], "0 to 1")?;
        if !own.fill.is_finite() {
            return Err(refuse("fill", own.fill, "a finite number"));
        }
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Translation {
    /// Largest shift, as a part of height and width.
    fraction: f64,
    /// Value of the pixels that come into sight.
    fill: f32,
}

impl Default for Translation {
    fn default() -> Self {
        Self { fraction: 0.1, fill: 0.0 }
    }
}

impl Augmentation for Translation {
    fn apply(&self, batch: &mut Batch, rng: &mut Rng) -> Result<(), TrainError> {
        each_image("translation", batch, rng, |image, size, rng| {
            let [down, right] = [size[1], size[2]].map(|n| (2.0 * rng.unit() - 1.0) * self.fraction * n as f64);
            warp(image, size, STAY, [down, right], self.fill);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{apply, images};
    use crate::method::Method;

    #[test]
    fn shifts_stay_within_the_fraction() {
        // A bright pixel in the middle of 21 moves at most two places, so what is three away stays dark.
        let mut batch = images([200, 1, 1, 21]);
        for image in batch.features.as_f32_mut().unwrap().chunks_exact_mut(21) {
            image.fill(0.0);
            image[10] = 1.0;
        }
        apply(&Method::new("translation").with("fraction", 0.09), &mut batch, 1).unwrap();
        let (mut moved, mut far) = (0, 0);
        for image in batch.features.as_f32().unwrap().chunks_exact(21) {
            moved += usize::from(image[10] < 0.5);
            far += image[..8].iter().chain(&image[13..]).filter(|&&v| v > 0.0).count();
        }
        assert!(moved > 100 && far == 0, "{moved} {far}");
    }
}
