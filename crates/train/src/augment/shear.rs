//! Images whose rows are moved apart, or whose columns are, by a random slope.
//! As `shear` of torchvision's `RandomAffine`: the angle is uniform between ±`degrees`, for rows and for columns.

use netproof_stats::rng::Rng;
use serde::Deserialize;

use super::affine::warp;
use super::{Augmentation, each_image};
use crate::batch::Batch;
use crate::error::{TrainError, refuse, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Augmentation> = Entry {
    id: "shear",
    summary: "images slanted by a random angle, rows and columns",
    build: |options, _| {
        let own: Shear = options.read()?;
        within("degrees", own.degrees, [0.0, 80.0], "0 to 80")?;
        if !own.fill.is_finite() {
            return Err(refuse("fill", own.fill, "a finite number"));
        }
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Shear {
    /// Largest angle.
    degrees: f64,
    /// Value of the pixels that come into sight.
    fill: f32,
}

impl Default for Shear {
    fn default() -> Self {
        Self { degrees: 10.0, fill: 0.0 }
    }
}

impl Augmentation for Shear {
    fn apply(&self, batch: &mut Batch, rng: &mut Rng) -> Result<(), TrainError> {
        each_image("shear", batch, rng, |image, size, rng| {
            let [down, right] = [(); 2].map(|()| ((2.0 * rng.unit() - 1.0) * self.degrees).to_radians().tan());
            warp(image, size, [[1.0, down], [right, 1.0]], [0.0; 2], self.fill);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{apply, images};
    use crate::method::Method;

    #[test]
    fn the_middle_stays_and_no_angle_changes_nothing() {
        let mut batch = images([20, 1, 5, 5]);
        let before = batch.clone();
        apply(&Method::new("shear").with("degrees", 0.0), &mut batch, 1).unwrap();
        assert_eq!(batch, before);
        apply(&Method::new("shear").with("degrees", 40.0), &mut batch, 1).unwrap();
        let pairs = batch.features.as_f32().unwrap().chunks(25).zip(before.features.as_f32().unwrap().chunks(25));
        for (a, b) in pairs {
            assert!((a[12] - b[12]).abs() < 1e-4 && a != b);
        }
    }
}
