//! Random changes of batches: one file per augmentation and one line in [`AUGMENTATIONS`].

mod affine;
mod beta;
mod blur;
mod colour_jitter;
mod crop;
mod cutmix;
mod cutout;
mod horizontal_flip;
mod interpolation;
mod mixup;
mod noise;
mod operations;
mod rand_augment;
mod rotation;
mod scaling;
mod shear;
mod translation;
mod trivial_augment;

use netproof_stats::rng::Rng;
use rayon::prelude::*;

use crate::batch::Batch;
use crate::error::TrainError;
use crate::method::Entry;

/// A random change of a batch, of its features, its targets or both.
pub trait Augmentation: Send + Sync {
    /// Changes the batch. The same generator gives the same change, at any number of threads.
    /// # Errors
    /// The batch is not of the kind that this augmentation is for.
    fn apply(&self, batch: &mut Batch, rng: &mut Rng) -> Result<(), TrainError>;
}

/// Every augmentation of this crate.
pub static AUGMENTATIONS: &[Entry<dyn Augmentation>] = &[
    horizontal_flip::ENTRY,
    crop::ENTRY,
    rotation::ENTRY,
    translation::ENTRY,
    scaling::ENTRY,
    shear::ENTRY,
    colour_jitter::ENTRY,
    noise::ENTRY,
    blur::ENTRY,
    cutout::ENTRY,
    mixup::ENTRY,
    cutmix::ENTRY,
    rand_augment::ENTRY,
    trivial_augment::ENTRY,
    interpolation::ENTRY,
];

/// Changes each image of a batch by itself, in parallel; each image has a generator of its own.
/// # Errors
/// Rows are no images `[channels, height, width]`.
pub fn each_image(
    what: &'static str,
    batch: &mut Batch,
    rng: &mut Rng,
    change: impl Fn(&mut [f32], [usize; 3], &mut Rng) + Sync,
) -> Result<(), TrainError> {
    let &[_, channels, height, width] = batch.features.shape() else {
        let row = batch.features.shape().get(1..).unwrap_or_default();
        let message = format!("augmentation `{what}` needs images [channels, height, width], rows have shape {row:?}");
        return Err(TrainError::Mismatch { message });
    };
    let base = rng.next_u64();
    let values = batch.features.as_f32_mut().unwrap_or_default();
    let one = |(i, image): (usize, &mut [f32])| {
        change(image, [channels, height, width], &mut Rng::stream(base, i as u64 + 1));
    };
    values.par_chunks_mut((channels * height * width).max(1)).with_min_len(16).enumerate().for_each(one);
    Ok(())
}

#[cfg(test)]
pub(crate) mod test_support {
    use netproof_tensor::Tensor;

    use super::*;
    use crate::batch::Targets;
    use crate::method::{Method, Registry};

    /// A batch of images whose pixels are 1, 2, 3, …
    pub(crate) fn images(shape: [usize; 4]) -> Batch {
        let n = shape.iter().product::<usize>();
        Batch {
            row_ids: (0..shape[0] as u64).collect(),
            features: Tensor::f32(shape.to_vec(), (0..n).map(|i| i as f32 + 1.0).collect()).unwrap(),
            targets: Targets::Classes(vec![0; shape[0]]),
            weights: None,
            groups: Vec::new(),
            classes: 2,
        }
    }

    pub(crate) fn apply(method: &Method, batch: &mut Batch, seed: u64) -> Result<(), TrainError> {
        let registry = Registry::default();
        registry.augmentations.build(method, &registry)?.apply(batch, &mut Rng::new(seed))
    }
}

#[cfg(test)]
mod tests {
    use netproof_tensor::Tensor;

    use super::test_support::{apply, images};
    use crate::method::{Method, Registry};

    #[test]
    fn seeds_and_nothing_else_decide() {
        for entry in Registry::default().augmentations.entries() {
            let run = |seed, threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let mut batch = images([64, 3, 8, 8]);
                let most = batch.features.len() as f32;
                batch.features.as_f32_mut().unwrap().iter_mut().for_each(|v| *v /= most);
                pool.install(|| apply(&Method::new(entry.id), &mut batch, seed)).unwrap();
                batch
            };
            assert!(run(1, 1) == run(1, 3) && run(1, 1) != run(2, 1), "{}", entry.id);
            assert_eq!(run(1, 1).features.shape(), [64, 3, 8, 8], "{}", entry.id);
        }
    }

    #[test]
    fn an_empty_batch_and_rows_that_are_no_images_are_no_panic() {
        for entry in Registry::default().augmentations.entries() {
            apply(&Method::new(entry.id), &mut images([0, 1, 4, 4]), 0).unwrap();
            let mut flat = images([2, 1, 1, 1]);
            flat.features = Tensor::zeros(vec![2, 5]).unwrap();
            if let Err(e) = apply(&Method::new(entry.id), &mut flat, 0) {
                assert!(e.to_string().contains("rows have shape [5]"), "{e}");
            }
        }
    }
}
