//! Adversarial patch: any values within one square of pixels, at the worst of several places. Brown, Mané, Roy, Abadi
//! and Gilmer, 2017, arXiv:1712.09665, section 2 (values are free, a small area counts); Rao, Stutz and Schiele, ECCV
//! workshops 2020, arXiv:2005.02313, section 3 (a patch for each picture, at optimised places). Checked against: the
//! closed form of a linear model. Differs from Brown et al.: not one patch for all pictures, scales and angles, but the
//! worst patch of each picture, which is what a claim of robustness must withstand. Places are those where the gradient
//! of the clean picture is largest, apart from each other; each is searched from random values by signed steps on the
//! margin. Weak where gradients vanish.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::attack::{Attack, Batch};
use crate::adversarial::loss::{Loss, is_right};
use crate::adversarial::oracle::Oracle;
use crate::adversarial::rows::{gather, row, row_mut};
use crate::adversarial::smallest::cosine;
use crate::adversarial::square::{Window, sums};

pub(super) static CARD: Card = Card {
    id: "patch",
    version: 1,
    kind: CardKind::Attack,
    title: "Adversarial patch",
    challenge: Challenge::Adversarial,
    measures: "Any values within one square of pixels, whose side is epsilon, at the places where the network looks most.",
    reference: "Brown et al. 2017, arXiv:1712.09665, section 2; Rao, Stutz and Schiele 2020, arXiv:2005.02313, section 3",
    needs: &[Need::Labels, Need::Classifier, Need::InputGradient],
    options: &[
        OptionDoc { name: "places", default: "8", doc: "Places that are tried for each row, 1 to 1000." },
        OptionDoc { name: "steps", default: "60", doc: "Steps at each place, 1 to 100000." },
        OptionDoc {
            name: "relative_step",
            default: "0.1",
            doc: "Length of the first step as a fraction of the bounds' width, above 0; the last is a tenth of it.",
        },
    ],
};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Patch {
    places: usize,
    steps: usize,
    relative_step: f64,
}

impl Default for Patch {
    fn default() -> Self {
        Self { places: 8, steps: 60, relative_step: 0.1 }
    }
}

/// One place of one row.
struct Particle {
    owner: usize,
    window: Window,
}

impl Attack for Patch {
    fn norms(&self) -> &'static [Norm] {
        &[Norm::Patch]
    }

    fn batch_rows(&self, rows: usize) -> usize {
        (rows / self.places.max(1)).max(1)
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        self.check()?;
        oracle.victim().need_gradient()?;
        let (shape, len, k) = (oracle.victim().row(), batch.row_len(), batch.classes());
        let [low, high] = threat.bounds.map(|b| b as f32);
        let side = threat.epsilon as usize;
        let mut out = batch.x.to_vec();
        let right = batch.right();
        if side == 0 || right.is_empty() {
            return Ok(out);
        }
        let start = gather(batch.x, len, &right);
        let margin = |i: usize, z: &[f32], seed: &mut [f32]| Loss::Margin.of(z, batch.labels[i], 0, seed);
        let mut first = |i: usize, z: &[f32], seed: &mut [f32]| {
            margin(right[i], z, seed);
        };
        let look = oracle.look(&right, &start, &mut first)?;
        let mut particles = Vec::new();
        let mut x = Vec::new();
        for (j, &owner) in right.iter().enumerate() {
            let mut rng = batch.rng(owner, "patch");
            let slope: Vec<f32> = row(&look.gradient, len, j).iter().map(|g| g.abs()).collect();
            for window in places(sums(shape, &slope, side), self.places) {
                let fill = |(i, o): (usize, &f32)| {
                    if window.holds(shape, i) { low + (high - low) * rng.unit() as f32 } else { *o }
                };
                x.extend(batch.row(owner).iter().enumerate().map(fill));
                particles.push(Particle { owner, window });
            }
        }
        let mut best = vec![f32::NEG_INFINITY; batch.len()];
        let mut broken = vec![false; batch.len()];
        for step in 0..=self.steps {
            if particles.is_empty() {
                break;
            }
            let owners: Vec<usize> = particles.iter().map(|p| p.owner).collect();
            let mut losses = vec![0.0; owners.len()];
            let look = oracle.look(&owners, &x, &mut |i, z, seed| losses[i] = margin(owners[i], z, seed))?;
            for (i, z) in look.logits.chunks_exact(k).enumerate() {
                let o = owners[i];
                let wrong = !is_right(z, batch.labels[o]);
                if !broken[o] && (wrong || losses[i] > best[o]) {
                    (best[o], broken[o]) = (losses[i], wrong);
                    row_mut(&mut out, len, o).copy_from_slice(row(&x, len, i));
                }
            }
            let stay: Vec<usize> = (0..particles.len()).filter(|&i| !broken[particles[i].owner]).collect();
            let first = self.relative_step * threat.width();
            let length = cosine(first, 0.1 * first, step as f64 / self.steps as f64) as f32;
            for &i in &stay {
                let window = particles[i].window;
                for (j, (x, g)) in row_mut(&mut x, len, i).iter_mut().zip(row(&look.gradient, len, i)).enumerate() {
                    if *g != 0.0 && window.holds(shape, j) {
                        *x = (*x + length.copysign(*g)).clamp(low, high);
                    }
                }
            }
            if stay.len() < particles.len() {
                x = gather(&x, len, &stay);
                let mut keep = stay.iter().copied().peekable();
                let mut at = 0;
                particles.retain(|_| {
                    at += 1;
                    keep.next_if_eq(&(at - 1)).is_some()
                });
            }
        }
        Ok(out)
    }
}

impl Patch {
    fn check(&self) -> Result<(), AttackError> {
        if !(1..=1000).contains(&self.places) {
            return Err(AttackError::Value { name: "places", value: self.places as f64, allowed: "1 to 1000" });
        }
        if !(1..=100_000).contains(&self.steps) {
            return Err(AttackError::Value { name: "steps", value: self.steps as f64, allowed: "1 to 100000" });
        }
        if !(self.relative_step.is_finite() && self.relative_step > 0.0) {
            let allowed = "finite and above 0, such as 0.1";
            return Err(AttackError::Value { name: "relative_step", value: self.relative_step, allowed });
        }
        Ok(())
    }
}

/// The places with the largest sums, none within half a side of another as long as there are such.
fn places(mut all: Vec<(Window, f64)>, most: usize) -> Vec<Window> {
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut chosen: Vec<Window> = Vec::with_capacity(most);
    for (w, _) in &all {
        let near =
            |c: &Window| 2 * c.top.abs_diff(w.top) < w.height.max(2) && 2 * c.left.abs_diff(w.left) < w.width.max(2);
        if chosen.len() < most && !chosen.iter().any(near) {
            chosen.push(*w);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adversarial::square;
    use crate::adversarial::test_support::{linear_on, victim};

    /// On a linear model the best patch sits where the absolute weights are largest, every value at its edge.
    #[test]
    fn on_a_linear_model_the_patch_and_its_place_are_those_of_the_closed_form() {
        let mut w = [[0.0f32; 36]; 2];
        (0..36).for_each(|i| w[1][i] = ((i * 7 % 11) as f32 - 5.0) / 10.0);
        let model = linear_on(&[1, 6, 6], &w, &[0.0, 9.0]);
        let v = victim(&model, &[1, 6, 6]);
        let x = [0.5f32; 36];
        let logits = v.logits(&x).unwrap();
        let threat = Threat::new(Norm::Patch, 2.0, [0.0, 1.0]).unwrap();
        let oracle = Oracle::new(&v, 1, None);
        let batch = Batch { x: &x, logits: &logits, labels: &[1], seeds: &[5] };
        let y = Patch::default().propose(&oracle, &batch, &threat).unwrap();
        assert_eq!(square::side(&[1, 6, 6], &x, &y), 2.0);
        // With x at one half a patch is worth half the sum of the absolute weights under it.
        let gain = sums(&[1, 6, 6], &w[1].map(f32::abs), 2).iter().map(|p| 0.5 * p.1).fold(0.0, f64::max);
        let z = v.logits(&y).unwrap();
        assert!((f64::from(logits[1] - z[1]) - gain).abs() < 1e-4, "{} {gain}", logits[1] - z[1]);
    }

    #[test]
    fn places_are_apart() {
        let all = sums(&[1, 8, 8], &[1.0; 64], 4);
        let chosen = places(all, 9);
        assert_eq!(chosen.len(), 9);
        for (i, a) in chosen.iter().enumerate() {
            for b in &chosen[..i] {
                assert!(a.top.abs_diff(b.top) >= 2 || a.left.abs_diff(b.left) >= 2, "{chosen:?}");
            }
        }
    }
}
