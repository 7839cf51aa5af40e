//! Rows and their targets mixed with those of another row of the batch, of images and of tables.
//! Zhang et al., ICLR 2018, arXiv:1710.09412, equation 1; one share from Beta(alpha, alpha) for a batch, as the authors' code
//! has it; alpha 0.2 is theirs for ImageNet.

use netproof_stats::rng::Rng;
use serde::Deserialize;

use super::Augmentation;
use super::beta::beta;
use crate::batch::{Batch, Targets};
use crate::error::{TrainError, within};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Augmentation> = Entry {
    id: "mixup",
    summary: "rows and their targets mixed with those of another row",
    build: |options, _| {
        let own: Mixup = options.read()?;
        within("alpha", own.alpha, [1e-3, 1e3], "0.001 to 1000")?;
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mixup {
    /// Of the Beta distribution: small values keep most rows nearly as they are.
    alpha: f64,
}

impl Default for Mixup {
    fn default() -> Self {
        Self { alpha: 0.2 }
    }
}

impl Augmentation for Mixup {
    fn apply(&self, batch: &mut Batch, rng: &mut Rng) -> Result<(), TrainError> {
        let share = beta(self.alpha, rng) as f32;
        let partner = rng.permutation(batch.len());
        let width = batch.features.row_len().max(1);
        let old = batch.features.as_f32().unwrap_or_default().to_vec();
        let values = batch.features.as_f32_mut().unwrap_or_default();
        for (row, &other) in values.chunks_exact_mut(width).zip(&partner) {
            mix(row, &old[other * width..][..width], share);
        }
        mix_targets(batch, &partner, share);
        Ok(())
    }
}

/// `own · share + other · (1 − share)`
fn mix(own: &mut [f32], other: &[f32], share: f32) {
    own.iter_mut().zip(other).for_each(|(a, b)| *a = *a * share + b * (1.0 - share));
}

/// Targets of which `share` is a row's own and the rest its partner's.
pub(super) fn mix_targets(batch: &mut Batch, partner: &[usize], share: f32) {
    batch.targets.soften(batch.classes);
    match &mut batch.targets {
        Targets::Soft { classes, values } => {
            let (classes, old) = ((*classes).max(1), values.clone());
            for (row, &other) in values.chunks_exact_mut(classes).zip(partner) {
                mix(row, &old[other * classes..][..classes], share);
            }
        }
        Targets::Numbers(values) => {
            let old = values.clone();
            values.iter_mut().zip(partner).for_each(|(a, &other)| *a = *a * share + old[other] * (1.0 - share));
        }
        Targets::Classes(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{apply, images};
    use super::*;
    use crate::method::Method;

    #[test]
    fn targets_are_mixed_as_the_features_are() {
        // Row i is all i, and its class is i: features tell what the target must be.
        let n = 8;
        let mut batch = images([n, 1, 1, 3]);
        batch.classes = n;
        batch.targets = Targets::Classes((0..n).collect());
        for (i, row) in batch.features.as_f32_mut().unwrap().chunks_exact_mut(3).enumerate() {
            row.fill(i as f32);
        }
        apply(&Method::new("mixup").with("alpha", 5.0), &mut batch, 2).unwrap();
        let Targets::Soft { classes, values } = &batch.targets else { panic!("{:?}", batch.targets) };
        let mut mixed = 0;
        for (target, row) in values.chunks_exact(*classes).zip(batch.features.as_f32().unwrap().chunks_exact(3)) {
            assert!((target.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            let expected: f32 = target.iter().enumerate().map(|(c, p)| c as f32 * p).sum();
            assert!(row.iter().all(|v| (v - expected).abs() < 1e-5), "{row:?} {target:?}");
            mixed += usize::from(target.iter().filter(|&&p| p > 0.0).count() == 2);
        }
        assert!(mixed >= 4, "{mixed}");
    }

    #[test]
    fn numbers_are_mixed_too() {
        let mut batch = images([6, 1, 1, 1]);
        batch.targets = Targets::Numbers(batch.features.as_f32().unwrap().to_vec());
        apply(&Method::new("mixup").with("alpha", 5.0), &mut batch, 2).unwrap();
        assert_eq!(batch.targets, Targets::Numbers(batch.features.as_f32().unwrap().to_vec()));
    }
}
