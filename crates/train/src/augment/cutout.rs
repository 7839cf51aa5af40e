//! A square of random place is covered.
//! DeVries and Taylor 2017, arXiv:1708.04552, section 3.1: the square's centre is uniform over the image, so that part of it
//! may lie outside; its side is half that of the image for CIFAR-10.

use netproof_stats::rng::Rng;
use serde::Deserialize;

use super::{Augmentation, each_image};
use crate::batch::Batch;
use crate::error::{TrainError, refuse, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Augmentation> = Entry {
    id: "cutout",
    summary: "a square of random place is covered",
    build: |options, _| {
        let own: Cutout = options.read()?;
        within("fraction", own.fraction, [0.0, 1.0], "0 to 1")?;
        if !own.fill.is_finite() {
            return Err(refuse("fill", own.fill, "a finite number"));
        }
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Cutout {
    /// Side of the square, as a part of the image's shorter side.
    fraction: f64,
    /// Value of the pixels that come into sight.
    fill: f32,
}

impl Default for Cutout {
    fn default() -> Self {
        Self { fraction: 0.5, fill: 0.0 }
    }
}

impl Augmentation for Cutout {
    fn apply(&self, batch: &mut Batch, rng: &mut Rng) -> Result<(), TrainError> {
        each_image("cutout", batch, rng, |image, size, rng| {
            let [channels, height, width] = size;
            let side = (self.fraction * height.min(width) as f64).round() as isize;
            let [top, left] = [height, width].map(|n| rng.below(n.max(1)) as isize - side / 2);
            let range = |from: isize, n: usize| from.max(0) as usize..(from + side).clamp(0, n as isize) as usize;
            for c in 0..channels {
                for y in range(top, height) {
                    image[(c * height + y) * width..][range(left, width)].fill(self.fill);
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
    fn a_square_is_covered_in_every_channel() {
        let mut batch = images([300, 2, 6, 6]);
        let before = batch.clone();
        apply(&Method::new("cutout").with("fraction", 0.34), &mut batch, 1).unwrap();
        let mut counts = [0; 5];
        let pairs = batch.features.as_f32().unwrap().chunks(72).zip(before.features.as_f32().unwrap().chunks(72));
        for (after, before) in pairs {
            let covered: Vec<usize> = (0..72).filter(|&i| after[i] == 0.0).collect();
            assert!((0..72).all(|i| after[i] == 0.0 || after[i] == before[i]));
            assert!(covered.iter().filter(|&&i| i < 36).all(|i| covered.contains(&(i + 36))));
            counts[covered.len() / 2] += 1;
        }
        // Whole squares, halves at an edge, quarters in a corner.
        assert!(counts[4] > counts[2] && counts[2] > counts[1] && counts[1] > 0 && counts[3] == 0, "{counts:?}");
    }
}
