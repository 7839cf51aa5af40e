//! Gaussian noise added to every feature, of images and of tables.
//! Bishop, "Training with Noise is Equivalent to Tikhonov Regularization", Neural Computation 7(1), 1995.

use netproof_stats::rng::Rng;
use rayon::prelude::*;
use serde::Deserialize;

use super::Augmentation;
use crate::batch::Batch;
use crate::error::{TrainError, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Augmentation> = Entry {
    id: "noise",
    summary: "Gaussian noise added to every feature, of images and of tables",
    build: |options, _| {
        let own: Noise = options.read()?;
        within("standard_deviation", own.standard_deviation, [0.0, 1e6], "0 to 1,000,000")?;
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Noise {
    /// Of the noise, in units of the features.
    standard_deviation: f64,
}

impl Default for Noise {
    fn default() -> Self {
        Self { standard_deviation: 0.05 }
    }
}

impl Augmentation for Noise {
    fn apply(&self, batch: &mut Batch, rng: &mut Rng) -> Result<(), TrainError> {
        let base = rng.next_u64();
        let width = batch.features.row_len().max(1);
        let values = batch.features.as_f32_mut().unwrap_or_default();
        values.par_chunks_mut(width).with_min_len(16).enumerate().for_each(|(i, row)| {
            let mut rng = Rng::stream(base, i as u64 + 1);
            row.iter_mut().for_each(|v| *v += (rng.normal() * self.standard_deviation) as f32);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{apply, images};
    use crate::method::Method;

    #[test]
    fn mean_and_deviation_are_as_asked() {
        let mut batch = images([100, 1, 10, 10]);
        batch.features.as_f32_mut().unwrap().fill(3.0);
        apply(&Method::new("noise").with("standard_deviation", 0.5), &mut batch, 1).unwrap();
        let v = batch.features.as_f32().unwrap();
        let mean = v.iter().map(|&v| f64::from(v)).sum::<f64>() / 1e4;
        let variance = v.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / 1e4;
        // Four standard errors.
        assert!((mean - 3.0).abs() < 0.02 && (variance.sqrt() - 0.5).abs() < 0.0142, "{mean} {variance}");
    }
}
