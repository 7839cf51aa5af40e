//! Images blurred by a Gaussian of random width.
//! As torchvision's `GaussianBlur`: sigma uniform between `low` and `high`; the kernel reaches three sigmas, and edges are
//! mirrored without repeating the outermost pixel.

use netproof_stats::rng::Rng;
use serde::Deserialize;

use super::{Augmentation, each_image};
use crate::batch::Batch;
use crate::error::{TrainError, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Augmentation> = Entry {
    id: "blur",
    summary: "images blurred by a Gaussian of random width",
    build: |options, _| {
        let own: Blur = options.read()?;
        within("low", own.low, [1e-3, 100.0], "0.001 to 100")?;
        within("high", own.high, [own.low, 100.0], "`low` to 100")?;
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Blur {
    /// Smallest standard deviation, in pixels.
    low: f64,
    /// Largest standard deviation.
    high: f64,
}

impl Default for Blur {
    fn default() -> Self {
        Self { low: 0.1, high: 2.0 }
    }
}

impl Augmentation for Blur {
    fn apply(&self, batch: &mut Batch, rng: &mut Rng) -> Result<(), TrainError> {
        each_image("blur", batch, rng, |image, size, rng| {
            let sigma = self.low + rng.unit() * (self.high - self.low);
            blur(image, size, sigma);
        })
    }
}

/// Blurs rows, then columns.
fn blur(image: &mut [f32], [channels, height, width]: [usize; 3], sigma: f64) {
    let reach = (3.0 * sigma).ceil() as isize;
    let weights: Vec<f64> = (-reach..=reach).map(|d| (-((d * d) as f64) / (2.0 * sigma * sigma)).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mirrored = |at: isize, n: usize| {
        let last = n as isize - 1;
        if last == 0 {
            return 0;
        }
        let at = at.rem_euclid(2 * last);
        (if at > last { 2 * last - at } else { at }) as usize
    };
    for plane in image.chunks_exact_mut((height * width).max(1)).take(channels) {
        for (count, len, step, jump) in [(height, width, 1, width), (width, height, width, 1)] {
            for line in 0..count {
                let old: Vec<f32> = (0..len).map(|i| plane[line * jump + i * step]).collect();
                for i in 0..len {
                    let at = |d: isize| f64::from(old[mirrored(i as isize + d, len)]);
                    let sum: f64 = weights.iter().zip(-reach..=reach).map(|(w, d)| w * at(d)).sum();
                    plane[line * jump + i * step] = (sum / total) as f32;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{apply, images};
    use crate::method::Method;

    #[test]
    fn a_flat_image_stays_and_a_point_becomes_the_kernel() {
        let mut batch = images([1, 1, 9, 9]);
        batch.features.as_f32_mut().unwrap().fill(0.5);
        let blur = Method::new("blur").with("low", 0.8).with("high", 0.8);
        apply(&blur, &mut batch, 1).unwrap();
        assert!(batch.features.as_f32().unwrap().iter().all(|v| (v - 0.5).abs() < 1e-6));
        let pixels = batch.features.as_f32_mut().unwrap();
        pixels.fill(0.0);
        pixels[40] = 1.0;
        apply(&blur, &mut batch, 1).unwrap();
        let weight = |d: f64| (-d * d / (2.0 * 0.64)).exp();
        let total: f64 = (-3..=3).map(|d| weight(f64::from(d))).sum();
        let got = batch.features.as_f32().unwrap();
        assert!((f64::from(got[40]) - (1.0 / total).powi(2)).abs() < 1e-6);
        assert!((f64::from(got[31]) - weight(1.0) / total.powi(2)).abs() < 1e-6);
        assert!((f64::from(got[42]) - weight(2.0) / total.powi(2)).abs() < 1e-6);
    }
}
