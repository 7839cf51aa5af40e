//! Images enlarged or shrunk around their middle by a random factor.
//! As `scale` of torchvision's `RandomAffine`: the factor is uniform between `low` and `high`.

use netproof_stats::rng::Rng;
use serde::Deserialize;

use super::affine::warp;
use super::{Augmentation, each_image};
use crate::batch::Batch;
use crate::error::{TrainError, refuse, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Augmentation> = Entry {
    id: "scaling",
    summary: "images enlarged or shrunk around their middle by a random factor",
    build: |options, _| {
        let own: Scaling = options.read()?;
        within("low", own.low, [0.01, 100.0], "0.01 to 100")?;
        within("high", own.high, [own.low, 100.0], "`low` to 100")?;
        if !own.fill.is_finite() {
            return Err(refuse("fill", own.fill, "a finite number"));
        }
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Scaling {
    /// Smallest factor; below 1 the image shrinks.
    low: f64,
    /// Largest factor.
    high: f64,
    /// Value of the pixels that come into sight.
    fill: f32,
}

impl Default for Scaling {
    fn default() -> Self {
        Self { low: 0.9, high: 1.1, fill: 0.0 }
    }
}

impl Augmentation for Scaling {
    fn apply(&self, batch: &mut Batch, rng: &mut Rng) -> Result<(), TrainError> {
        each_image("scaling", batch, rng, |image, size, rng| {
            let factor = self.low + rng.unit() * (self.high - self.low);
            warp(image, size, [[1.0 / factor, 0.0], [0.0, 1.0 / factor]], [0.0; 2], self.fill);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{apply, images};
    use crate::method::Method;

    #[test]
    fn twice_the_size_shows_the_middle() {
        let mut batch = images([1, 1, 1, 5]);
        apply(&Method::new("scaling").with("low", 2.0).with("high", 2.0), &mut batch, 1).unwrap();
        assert_eq!(batch.features.as_f32().unwrap(), [2.0, 2.5, 3.0, 3.5, 4.0]);
    }

    #[test]
    fn a_range_upside_down_is_refused() {
        let method = Method::new("scaling").with("low", 1.2).with("high", 0.8);
        assert!(apply(&method, &mut images([1, 1, 2, 2]), 0).unwrap_err().to_string().contains("high"));
    }
}
