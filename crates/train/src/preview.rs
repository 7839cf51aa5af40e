//! What the network sees: some images as they are, and as augmentation changes them.

use netproof_data::{Dataset, LabelKind};
use netproof_stats::rng::Rng;

use crate::error::TrainError;
use crate::job::Job;
use crate::method::Registry;
use crate::recipe::Recipe;
use crate::rows::Rows;

/// Pixels between two images, and beside the first column.
const GAP: usize = 2;
const WIDE: usize = 6;
/// Grey between images.
const BETWEEN: u8 = 128;
/// Shortest side of an image on the sheet; smaller ones are enlarged by whole numbers.
const SIDE: usize = 56;

/// A picture of 8 bits per channel, row by row, channels innermost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// `[height, width, channels]`
    pub pixels: Vec<u8>,
}

/// A grid of `rows` images from different classes where there are some: each as it is, then `variants` times as the
/// augmentations of the recipe change it.
/// # Errors
/// Rows are no images with 1 or 3 channels, or cannot be read.
pub fn preview(
    recipe: &Recipe,
    job: &Job,
    registry: &Registry,
    rows: usize,
    variants: usize,
) -> Result<Sheet, TrainError> {
    let shape = job.train.feature_shape().to_vec();
    let &[channels @ (1 | 3), height, width] = &shape[..] else {
        let message = format!("a preview shows images with 1 or 3 channels; rows have shape {shape:?}");
        return Err(TrainError::Mismatch { message });
    };
    let chosen = chosen(&job.train, rows)?;
    let count = chosen.len();
    let classes = match job.train.label_kind() {
        LabelKind::Classes { count, .. } => *count,
        _ => 0,
    };
    let own = Rows::new(job.train.select(&chosen)?, shape.clone(), classes, u64::MAX)?;
    let mut columns = Vec::with_capacity(variants + 1);
    let base = Rng::named(recipe.seed, "preview").next_u64();
    let augmentations: Vec<_> =
        recipe.augmentation.iter().map(|m| registry.augmentations.build(m, registry)).collect::<Result<_, _>>()?;
    for column in 0..=variants {
        let Some(batch) = own.batches(count.max(1), None, 0)?.next() else { break };
        let mut batch = batch?;
        if column > 0 {
            let mut rng = Rng::stream(base, column as u64);
            augmentations.iter().try_for_each(|a| a.apply(&mut batch, &mut rng))?;
        }
        columns.push(batch.features.into_f32().unwrap_or_default());
    }
    // Pixels are shown between the least and the largest value of the originals, or as they are where those are in [0, 1].
    let originals = columns.first().map(Vec::as_slice).unwrap_or_default();
    let (low, high) = originals.iter().fold((0.0f32, 1.0f32), |(l, h), &v| (l.min(v), h.max(v)));
    let scale = SIDE.div_ceil(height.min(width).max(1)).max(1);
    let (h, w) = (height * scale, width * scale);
    let mut sheet = Sheet {
        width: columns.len() * (w + GAP) + GAP + WIDE,
        height: count * (h + GAP) + GAP,
        channels,
        pixels: Vec::new(),
    };
    sheet.pixels = vec![BETWEEN; sheet.width * sheet.height * channels];
    for (c, images) in columns.iter().enumerate() {
        let left = GAP + c * (w + GAP) + if c > 0 { WIDE } else { 0 };
        for (r, image) in images.chunks_exact(channels * height * width).enumerate() {
            let top = GAP + r * (h + GAP);
            for y in 0..h {
                for x in 0..w {
                    for channel in 0..channels {
                        let v = image[(channel * height + y / scale) * width + x / scale];
                        let at = ((top + y) * sheet.width + left + x) * channels + channel;
                        sheet.pixels[at] = ((v - low) / (high - low) * 255.0).round().clamp(0.0, 255.0) as u8;
                    }
                }
            }
        }
    }
    Ok(sheet)
}

/// Rows to show: the first of each class in turn.
fn chosen(data: &Dataset, rows: usize) -> Result<Vec<usize>, TrainError> {
    let labels = data.annotations()?.labels;
    let Some(classes) = labels.classes() else { return Ok((0..data.len().min(rows)).collect()) };
    let count = classes.iter().max().map_or(0, |m| m + 1);
    let mut by_class = vec![Vec::new(); count];
    for (row, &class) in classes.iter().enumerate() {
        if by_class[class].len() < rows {
            by_class[class].push(row);
        }
    }
    let turns = (0..rows).flat_map(|turn| by_class.iter().filter_map(move |c| c.get(turn).copied()));
    Ok(turns.take(rows).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Method;
    use crate::recipe::DataSection;
    use netproof_data::write_npz;
    use netproof_tensor::Tensor;

    #[test]
    fn originals_stand_on_the_left_and_changes_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        // Four images whose left half is black and right half white.
        let half: Vec<f32> = (0..4 * 64).map(|i| if i % 8 < 4 { 0.0 } else { 1.0 }).collect();
        let x = Tensor::f32(vec![4, 1, 8, 8], half).unwrap();
        let y = Tensor::i64(vec![4], vec![0, 0, 1, 1]).unwrap();
        write_npz(&path, &[("x", &x), ("y", &y)]).unwrap();
        let mut recipe = Recipe::new(DataSection::new(path.display().to_string()), Method::new("mlp"));
        recipe.validation_fraction = 0.0;
        recipe.augmentation = vec![Method::new("horizontal-flip").with("probability", 1.0)];
        let registry = Registry::default();
        let job = Job::open(&recipe, &registry).unwrap();
        let sheet = preview(&recipe, &job, &registry, 2, 1).unwrap();
        let scale = SIDE / 8;
        assert_eq!(sheet.width, 2 * (8 * scale + GAP) + GAP + WIDE);
        assert_eq!(sheet.height, 2 * (8 * scale + GAP) + GAP);
        let at = |x: usize| sheet.pixels[(GAP + 3) * sheet.width + x];
        assert_eq!([at(0), at(GAP), at(GAP + 8 * scale - 1)], [BETWEEN, 0, 255]);
        let second = GAP + 8 * scale + GAP + WIDE;
        assert_eq!([at(second - 1), at(second), at(second + 8 * scale - 1)], [BETWEEN, 255, 0]);
    }

    #[test]
    fn tables_have_no_preview() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let x = Tensor::zeros(vec![4, 5]).unwrap();
        let y = Tensor::i64(vec![4], vec![0, 0, 1, 1]).unwrap();
        write_npz(&path, &[("x", &x), ("y", &y)]).unwrap();
        let recipe = Recipe::new(DataSection::new(path.display().to_string()), Method::new("mlp"));
        let registry = Registry::default();
        let job = Job::open(&recipe, &registry).unwrap();
        let error = preview(&recipe, &job, &registry, 2, 1).unwrap_err().to_string();
        assert!(error.contains("[5]"), "{error}");
    }
}
