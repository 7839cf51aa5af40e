//! Brightness, contrast and saturation changed by random factors, in this order.
//! As torchvision's `ColorJitter` defines them for images in [0, 1]: each factor is uniform between 1 − x and 1 + x, results
//! are clipped to [0, 1]. Differs from it: no hue, and the order is fixed. Saturation needs three channels.

use netproof_stats::rng::Rng;
use serde::Deserialize;

use super::{Augmentation, each_image};
use crate::batch::Batch;
use crate::error::{TrainError, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Augmentation> = Entry {
    id: "colour-jitter",
    summary: "brightness, contrast and saturation changed by random factors",
    build: |options, _| {
        let own: ColourJitter = options.read()?;
        within("brightness", own.brightness, [0.0, 1.0], "0 to 1")?;
        within("contrast", own.contrast, [0.0, 1.0], "0 to 1")?;
        within("saturation", own.saturation, [0.0, 1.0], "0 to 1")?;
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ColourJitter {
    /// Largest change of brightness.
    brightness: f64,
    /// Largest change of contrast.
    contrast: f64,
    /// Largest change of saturation.
    saturation: f64,
}

impl Default for ColourJitter {
    fn default() -> Self {
        Self { brightness: 0.2, contrast: 0.2, saturation: 0.2 }
    }
}

impl Augmentation for ColourJitter {
    fn apply(&self, batch: &mut Batch, rng: &mut Rng) -> Result<(), TrainError> {
        each_image("colour-jitter", batch, rng, |image, size, rng| {
            let [brightness, contrast, saturation] =
                [self.brightness, self.contrast, self.saturation].map(|x| (1.0 + (2.0 * rng.unit() - 1.0) * x) as f32);
            brighten(image, brightness);
            stretch(image, size, contrast);
            saturate(image, size, saturation);
        })
    }
}

/// Grey of a pixel, ITU-R BT.601; the first channel of images that have no three.
fn grey(image: &[f32], [channels, height, width]: [usize; 3], pixel: usize) -> f32 {
    let plane = height * width;
    match channels {
        3 => 0.2989 * image[pixel] + 0.587 * image[plane + pixel] + 0.114 * image[2 * plane + pixel],
        _ => image[pixel],
    }
}

/// `image · factor`
pub(super) fn brighten(image: &mut [f32], factor: f32) {
    image.iter_mut().for_each(|v| *v = (*v * factor).clamp(0.0, 1.0));
}

/// `mean + (image − mean) · factor`, with the mean of the grey image.
pub(super) fn stretch(image: &mut [f32], size: [usize; 3], factor: f32) {
    let pixels = size[1] * size[2];
    let mean = (0..pixels).map(|p| f64::from(grey(image, size, p))).sum::<f64>() / pixels.max(1) as f64;
    image.iter_mut().for_each(|v| *v = (mean as f32 + (*v - mean as f32) * factor).clamp(0.0, 1.0));
}

/// `grey + (image − grey) · factor`
fn saturate(image: &mut [f32], size: [usize; 3], factor: f32) {
    let [channels, height, width] = size;
    if channels != 3 {
        return;
    }
    for p in 0..height * width {
        let g = grey(image, size, p);
        for c in 0..channels {
            let v = &mut image[c * height * width + p];
            *v = (g + (*v - g) * factor).clamp(0.0, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{apply, images};
    use crate::method::Method;

    use super::*;

    #[test]
    fn factors_do_what_torchvision_says() {
        let mut image = vec![0.2, 0.4];
        brighten(&mut image, 1.5);
        assert!((image[0] - 0.3).abs() < 1e-6 && (image[1] - 0.6).abs() < 1e-6);
        stretch(&mut image, [1, 1, 2], 0.5);
        // The mean is 0.45.
        assert!((image[0] - 0.375).abs() < 1e-6 && (image[1] - 0.525).abs() < 1e-6);
        let mut pixel = vec![1.0, 0.5, 0.0];
        saturate(&mut pixel, [3, 1, 1], 0.0);
        let grey = 0.2989 + 0.5 * 0.587;
        assert!(pixel.iter().all(|v| (v - grey).abs() < 1e-5), "{pixel:?}");
        brighten(&mut pixel, 10.0);
        assert_eq!(pixel, [1.0; 3]);
    }

    #[test]
    fn no_change_is_no_change() {
        let mut batch = images([2, 3, 2, 2]);
        batch.features.as_f32_mut().unwrap().iter_mut().for_each(|v| *v /= 24.0);
        let before = batch.clone();
        let none = Method::new("colour-jitter").with("brightness", 0.0).with("contrast", 0.0).with("saturation", 0.0);
        apply(&none, &mut batch, 1).unwrap();
        let pairs = batch.features.as_f32().unwrap().iter().zip(before.features.as_f32().unwrap());
        assert!(pairs.clone().count() == 24 && pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
