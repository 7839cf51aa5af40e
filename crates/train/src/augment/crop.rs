//! Images padded on all sides and cut back to their size at a random place.
//! He et al., CVPR 2016, arXiv:1512.03385, section 4.2 (4 pixels of zeros for CIFAR-10).

use netproof_stats::rng::Rng;
use serde::Deserialize;

use super::{Augmentation, each_image};
use crate::batch::Batch;
use crate::error::{TrainError, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Augmentation> = Entry {
    id: "crop",
    summary: "images padded on all sides and cut back to their size at a random place",
    build: |options, _| {
        let own: Crop = options.read()?;
        within("padding", own.padding as f64, [0.0, 4096.0], "0 to 4096 pixels")?;
        if !own.fill.is_finite() {
            return Err(crate::error::refuse("fill", own.fill, "a finite number"));
        }
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Crop {
    /// Pixels on each side.
    padding: usize,
    /// Value of the pixels that are added.
    fill: f32,
}

impl Default for Crop {
    fn default() -> Self {
        Self { padding: 4, fill: 0.0 }
    }
}

impl Augmentation for Crop {
    fn apply(&self, batch: &mut Batch, rng: &mut Rng) -> Result<(), TrainError> {
        each_image("crop", batch, rng, |image, [channels, height, width], rng| {
            let [down, right] = [(); 2].map(|()| rng.below(2 * self.padding + 1));
            let old = image.to_vec();
            for c in 0..channels {
                for y in 0..height {
                    for x in 0..width {
                        let from = (y + down).checked_sub(self.padding).zip((x + right).checked_sub(self.padding));
                        image[(c * height + y) * width + x] = match from {
                            Some((y, x)) if y < height && x < width => old[(c * height + y) * width + x],
                            _ => self.fill,
                        };
                    }
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{apply, images};
    use crate::method::Method;

    #[test]
    fn every_shift_occurs_and_is_a_shift() {
        let mut batch = images([400, 1, 2, 2]);
        let before = batch.features.as_f32().unwrap().to_vec();
        apply(&Method::new("crop").with("padding", 1).with("fill", -1.0), &mut batch, 5).unwrap();
        let mut seen = std::collections::HashSet::new();
        for (old, new) in before.chunks(4).zip(batch.features.as_f32().unwrap().chunks(4)) {
            let at = |y: i32, x: i32| {
                if (0..2).contains(&y) && (0..2).contains(&x) { old[(y * 2 + x) as usize] } else { -1.0 }
            };
            let shift = (-1..=1)
                .flat_map(|dy| (-1..=1).map(move |dx| (dy, dx)))
                .find(|&(dy, dx)| new == [at(dy, dx), at(dy, dx + 1), at(dy + 1, dx), at(dy + 1, dx + 1)]);
            assert!(shift.is_some(), "{old:?} {new:?}");
            seen.insert(shift);
        }
        assert_eq!(seen.len(), 9);
    }
}
