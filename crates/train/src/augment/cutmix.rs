//! A box of each image replaced by that of another image, and its target by as much of the other's.
//! Yun et al., ICCV 2019, arXiv:1905.04899, equations 1 and 2: sides √(1 − λ) of the image's with λ from Beta(alpha, alpha),
//! the centre uniform, the box cut at the edges and λ corrected to what is left; alpha 1 is the paper's.

use netproof_stats::rng::Rng;
use serde::Deserialize;

use super::Augmentation;
use super::beta::beta;
use super::mixup::mix_targets;
use crate::batch::Batch;
use crate::error::{TrainError, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Augmentation> = Entry {
    id: "cutmix",
    summary: "a box of each image, and as much of its target, replaced by those of another image",
    build: |options, _| {
        let own: Cutmix = options.read()?;
        within("alpha", own.alpha, [1e-3, 1e3], "0.001 to 1000")?;
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Cutmix {
    /// Of the Beta distribution.
    alpha: f64,
}

impl Default for Cutmix {
    fn default() -> Self {
        Self { alpha: 1.0 }
    }
}

impl Augmentation for Cutmix {
    fn apply(&self, batch: &mut Batch, rng: &mut Rng) -> Result<(), TrainError> {
        let &[_, channels, height, width] = batch.features.shape() else {
            let row = batch.features.shape().get(1..).unwrap_or_default();
            let message =
                format!("augmentation `cutmix` needs images [channels, height, width], rows have shape {row:?}");
            return Err(TrainError::Mismatch { message });
        };
        let side = (1.0 - beta(self.alpha, rng)).sqrt();
        let mut range = |n: usize| {
            let (half, centre) = ((side * n as f64) as usize / 2, rng.below(n.max(1)));
            centre.saturating_sub(half)..(centre + half).min(n)
        };
        let (rows, columns) = (range(height), range(width));
        let partner = rng.permutation(batch.len());
        let size = channels * height * width;
        let old = batch.features.as_f32().unwrap_or_default().to_vec();
        let values = batch.features.as_f32_mut().unwrap_or_default();
        for (image, &other) in values.chunks_exact_mut(size.max(1)).zip(&partner) {
            for c in 0..channels {
                for y in rows.clone() {
                    let at = (c * height + y) * width;
                    image[at..][columns.clone()].copy_from_slice(&old[other * size + at..][columns.clone()]);
                }
            }
        }
        let replaced = (rows.len() * columns.len()) as f32 / ((height * width) as f32).max(1.0);
        mix_targets(batch, &partner, 1.0 - replaced);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{apply, images};
    use crate::batch::Targets;
    use crate::method::Method;

    #[test]
    fn targets_follow_the_area() {
        let n = 8;
        let mut cut = 0;
        for seed in 0..20 {
            let mut batch = images([n, 2, 10, 10]);
            batch.classes = n;
            batch.targets = Targets::Classes((0..n).collect());
            for (i, image) in batch.features.as_f32_mut().unwrap().chunks_exact_mut(200).enumerate() {
                image.fill(i as f32);
            }
            apply(&Method::new("cutmix"), &mut batch, seed).unwrap();
            let Targets::Soft { classes, values } = &batch.targets else { panic!("{:?}", batch.targets) };
            let images = batch.features.as_f32().unwrap().chunks_exact(200);
            for (own, (target, image)) in values.chunks_exact(*classes).zip(images).enumerate() {
                let area = image.iter().filter(|&&v| v == own as f32).count() as f32 / 200.0;
                assert!((target[own] - area).abs() < 1e-6 && (target.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                cut += usize::from(area < 1.0);
            }
        }
        assert!(cut > 40, "{cut}");
    }
}
