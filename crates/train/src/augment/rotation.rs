//! Images turned around their middle by a random angle.
//! Simard, Steinkraus and Platt, ICDAR 2003; angles as in torchvision's `RandomRotation`: uniform between ±`degrees`.

use netproof_stats::rng::Rng;
use serde::Deserialize;

use super::affine::{turn, warp};
use super::{Augmentation, each_image};
use crate::batch::Batch;
use crate::error::{TrainError, refuse, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Augmentation> = Entry {
    id: "rotation",
    summary: "images turned around their middle by a random angle",
    build: |options, _| {
        let own: Rotation = options.read()?;
        within("degrees", own.degrees, [0.0, 180.0], "0 to 180")?;
        if !own.fill.is_finite() {
            return Err(refuse("fill", own.fill, "a finite number"));
        }
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rotation {
    /// Largest angle.
    degrees: f64,
    /// Value of the pixels that come into sight.
    fill: f32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { degrees: 10.0, fill: 0.0 }
    }
}

impl Augmentation for Rotation {
    fn apply(&self, batch: &mut Batch, rng: &mut Rng) -> Result<(), TrainError> {
        each_image("rotation", batch, rng, |image, size, rng| {
            let degrees = (2.0 * rng.unit() - 1.0) * self.degrees;
            warp(image, size, turn(degrees), [0.0; 2], self.fill);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{apply, images};
    use crate::method::Method;

    #[test]
    fn no_angle_changes_nothing() {
        let mut batch = images([3, 2, 5, 4]);
        let before = batch.clone();
        apply(&Method::new("rotation").with("degrees", 0.0), &mut batch, 1).unwrap();
        assert_eq!(batch, before);
    }

    #[test]
    fn an_angle_over_half_a_turn_is_refused() {
        let e = apply(&Method::new("rotation").with("degrees", 181.0), &mut images([1, 1, 2, 2]), 0).unwrap_err();
        assert!(e.to_string().contains("degrees"), "{e}");
    }
}
