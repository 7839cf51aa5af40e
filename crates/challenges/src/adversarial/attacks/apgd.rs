//! Auto-PGD: projected gradient ascent whose step halves where it stops paying, on three losses.
//! Croce and Hein, ICML 2020, arXiv:2003.01690, algorithm 1; l1: Croce and Hein, ICML 2021, arXiv:2103.01208, algorithm 1 with the
//! schedule of three radii of section 4. Parameters and order of operations are those of the published implementation. Checked
//! against: a naive version of the l-infinity form in the test, recorded masks of AutoAttack on `fashion-cnn` and
//! `mnist-trades`.
//!
//! Differs from the implementation, never in what counts as broken: a row leaves at its first wrong answer; targets and
//! restarts run side by side as extra rows, the likeliest target alone first; draws are per row. DLR needs three classes and
//! its targeted form four; below that the margin stands in (see `loss`). Weak: where gradients vanish; see Square.

mod climb;

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::attack::{Attack, Batch};
use crate::adversarial::loss::{Loss, targets};
use crate::adversarial::oracle::Oracle;
use crate::adversarial::projection::CONVEX;

pub(crate) use climb::{Plan, climb};

const REFERENCE: &str =
    "Croce and Hein, ICML 2020, arXiv:2003.01690, algorithm 1; Croce and Hein, ICML 2021, arXiv:2103.01208 (l1)";
const STEPS: OptionDoc = OptionDoc { name: "steps", default: "100", doc: "Steps of each start, 1 to 100000." };
const RESTARTS: OptionDoc = OptionDoc { name: "restarts", default: "1", doc: "Random starts of each row, 1 to 1000." };
const LARGE: OptionDoc = OptionDoc {
    name: "large_radii",
    default: "true",
    doc: "For l1, whether the first steps are taken at three and two times epsilon.",
};

pub(super) static CE_CARD: Card = Card {
    id: "apgd-ce",
    version: 1,
    kind: CardKind::Attack,
    title: "Auto-PGD on the cross-entropy",
    challenge: Challenge::Adversarial,
    measures: "Gradient ascent on the cross-entropy with momentum and a step that adapts itself, from a random point of the \
               ball's surface.",
    reference: REFERENCE,
    needs: &[Need::Labels, Need::Classifier, Need::InputGradient],
    options: &[STEPS, RESTARTS, LARGE],
};

pub(super) static DLR_CARD: Card = Card {
    id: "apgd-dlr",
    title: "Auto-PGD on the difference of logits ratio",
    measures: "Auto-PGD on a loss that does not change with the scale of the logits, so that a network that is too sure \
               hides no gradient.",
    ..CE_CARD
};

pub(super) static TARGETED_CARD: Card = Card {
    id: "apgd-t",
    title: "Targeted Auto-PGD",
    measures: "Auto-PGD towards each of the likeliest wrong classes in turn.",
    options: &[
        STEPS,
        RESTARTS,
        OptionDoc { name: "targets", default: "9", doc: "Wrong classes that are tried, likeliest first, 1 to 1000." },
        LARGE,
    ],
    ..CE_CARD
};

/// Options of the untargeted forms; the defaults are those of AutoAttack.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ApgdCe {
    pub(crate) steps: usize,
    pub(crate) restarts: usize,
    pub(crate) large_radii: bool,
}

impl Default for ApgdCe {
    fn default() -> Self {
        Self { steps: 100, restarts: 1, large_radii: true }
    }
}

/// See [`ApgdCe`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ApgdDlr {
    pub(crate) steps: usize,
    pub(crate) restarts: usize,
    pub(crate) large_radii: bool,
}

impl Default for ApgdDlr {
    fn default() -> Self {
        Self { steps: 100, restarts: 1, large_radii: true }
    }
}

/// Options of the targeted form; the defaults are those of AutoAttack.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ApgdT {
    pub(crate) steps: usize,
    pub(crate) restarts: usize,
    pub(crate) targets: usize,
    pub(crate) large_radii: bool,
    /// Likeliest targets that are left out, since an earlier stage has tried them.
    #[serde(skip)]
    pub(crate) tried: usize,
}

impl Default for ApgdT {
    fn default() -> Self {
        Self { steps: 100, restarts: 1, targets: 9, large_radii: true, tried: 0 }
    }
}

impl ApgdCe {
    fn plan(self, loss: Loss) -> Plan {
        Plan { loss, steps: self.steps, restarts: self.restarts, large_radii: self.large_radii }
    }
}

impl Attack for ApgdCe {
    fn norms(&self) -> &'static [Norm] {
        CONVEX
    }

    fn batch_rows(&self, rows: usize) -> usize {
        rows / self.restarts.clamp(1, rows)
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        let starts: Vec<(usize, usize)> = batch.right().into_iter().map(|i| (i, 0)).collect();
        climb(&self.plan(Loss::CrossEntropy), &starts, oracle, batch, threat)
    }
}

impl Attack for ApgdDlr {
    fn norms(&self) -> &'static [Norm] {
        CONVEX
    }

    fn batch_rows(&self, rows: usize) -> usize {
        rows / self.restarts.clamp(1, rows)
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        let Self { steps, restarts, large_radii } = *self;
        let starts: Vec<(usize, usize)> = batch.right().into_iter().map(|i| (i, 0)).collect();
        let plan = ApgdCe { steps, restarts, large_radii }.plan(Loss::dlr(batch.classes()));
        climb(&plan, &starts, oracle, batch, threat)
    }
}

impl Attack for ApgdT {
    fn norms(&self) -> &'static [Norm] {
        CONVEX
    }

    fn batch_rows(&self, rows: usize) -> usize {
        (rows / (self.restarts * self.targets.saturating_sub(1)).clamp(1, rows)).max(8)
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        if !(1..=1000).contains(&self.targets) {
            let allowed = "1 to 1000; targets beyond the wrong classes are left out";
            return Err(AttackError::Value { name: "targets", value: self.targets as f64, allowed });
        }
        let loss = Loss::targeted_dlr(batch.classes());
        let plan = Plan { loss, steps: self.steps, restarts: self.restarts, large_radii: self.large_radii };
        let mut out = batch.x.to_vec();
        let len = batch.row_len();
        // The likeliest target alone first: most rows that break at all leave with it.
        let mut rest = batch.right();
        for (from, to) in [(0, 1), (1, self.targets)] {
            let from = self.tried.max(from);
            let of_row = |&i: &usize| {
                let all = targets(batch.row_logits(i), batch.labels[i]);
                let some: Vec<usize> = all.into_iter().take(to).skip(from).collect();
                some.into_iter().map(move |t| (i, t))
            };
            let starts: Vec<(usize, usize)> = rest.iter().flat_map(of_row).collect();
            let (found, broken) = climb::climb_all(&plan, &starts, oracle, batch, threat)?;
            for &i in &rest {
                out[i * len..(i + 1) * len].copy_from_slice(&found[i * len..(i + 1) * len]);
            }
            rest.retain(|&i| !broken[i]);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use netproof_stats::rng::Rng;

    use super::*;
    use crate::adversarial::loss::{is_right, margin};
    use crate::adversarial::test_support::{linear, propose, rows, small, victim};

    /// The l-infinity form as the paper writes it, one row at a time, on cross-entropy; the whole history is kept.
    fn naive(
        v: &crate::adversarial::victim::Victim<'_>,
        x: &[f32],
        y: usize,
        start: &[f32],
        e: f32,
        n: usize,
    ) -> Option<Vec<f32>> {
        let look = |at: &[f32]| {
            let mut loss = 0.0;
            let l = v.look(at, &mut |_, z, s| loss = Loss::CrossEntropy.of(z, y, 0, s)).unwrap();
            (l.logits, loss, l.gradient)
        };
        let clip = |p: f32, i: usize| p.max(x[i] - e).min(x[i] + e).clamp(0.0, 1.0);
        let (mut at, mut old) = (start.to_vec(), start.to_vec());
        let (z, first, mut g) = look(&at);
        if !is_right(&z, y) {
            return Some(at);
        }
        let (mut best, mut best_g, mut best_loss) = (at.clone(), g.clone(), first);
        let mut history: Vec<f32> = Vec::new();
        let (mut step, mut w, mut next, mut reduced, mut checked) =
            (2.0 * e, (0.22 * n as f64) as usize, (0.22 * n as f64) as usize, true, first);
        for i in 0..n {
            let a = if i == 0 { 1.0 } else { 0.75 };
            let z: Vec<f32> =
                (0..at.len()).map(|j| clip(at[j] + step * if g[j] == 0.0 { 0.0 } else { g[j].signum() }, j)).collect();
            let new: Vec<f32> =
                (0..at.len()).map(|j| clip(at[j] + a * (z[j] - at[j]) + (1.0 - a) * (at[j] - old[j]), j)).collect();
            old = std::mem::replace(&mut at, new);
            let (z, loss, gradient) = look(&at);
            g = gradient;
            if !is_right(&z, y) {
                return Some(at);
            }
            history.push(loss);
            if loss > best_loss {
                (best, best_g, best_loss) = (at.clone(), g.clone(), loss);
            }
            if i + 1 == next {
                let from = i + 1 - w;
                let up = (from..=i).filter(|&j| history[j] > if j == 0 { 0.0 } else { history[j - 1] }).count();
                let halve = up as f64 <= 0.75 * w as f64 || (!reduced && checked >= best_loss);
                (reduced, checked) = (halve, best_loss);
                if halve {
                    step /= 2.0;
                    (at, g) = (best.clone(), best_g.clone());
                }
                w = (w - (0.03 * n as f64) as usize).max((0.06 * n as f64) as usize);
                next = i + 1 + w;
            }
        }
        None
    }

    #[test]
    fn what_breaks_and_with_what_is_what_the_naive_version_finds() {
        let model = small(12, 4, 5);
        let (x, labels) = rows(&model, 12, 30, 6);
        let v = victim(&model, &[12]);
        let (mut broken, mut whole) = (0, 0);
        for e in [0.05f32, 0.1, 0.2] {
            let threat = Threat::new(Norm::Linf, f64::from(e), [0.0, 1.0]).unwrap();
            let seeds: Vec<u64> = (0..30).collect();
            let (y, z) = propose(&ApgdCe::default(), &v, &x, &labels, &seeds, &threat);
            for i in 0..30 {
                let x = &x[i * 12..(i + 1) * 12];
                let mut rng = Rng::named(seeds[i], "apgd CrossEntropy 0 0");
                let t: Vec<f32> = x.iter().map(|_| (2.0 * rng.unit() - 1.0) as f32).collect();
                let size = t.iter().fold(0.0f32, |m, v| m.max(v.abs())) + 1e-12;
                let start: Vec<f32> =
                    x.iter().zip(&t).map(|(x, t)| (x + t * (e / size)).max(x - e).min(x + e).clamp(0.0, 1.0)).collect();
                let found = naive(&v, x, labels[i], &start, e, 100);
                assert_eq!(found.is_some(), !is_right(&z[i * 4..(i + 1) * 4], labels[i]), "{e} {i}");
                if let Some(found) = found {
                    broken += 1;
                    let near = y[i * 12..(i + 1) * 12].iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-5);
                    whole += usize::from(near);
                }
            }
        }
        // The same points, but where rounding in another batch tipped a sign.
        assert!(broken > 20 && whole * 10 >= broken * 9, "{whole} of {broken}");
    }

    #[test]
    fn on_a_linear_model_the_margin_falls_by_the_dual_norm() {
        let w = [0.5f32, -2.0, 1.0, 0.25];
        let model = linear(&[[0.0; 4], w, [0.1, 0.0, 0.0, 0.0], [0.0, 0.1, 0.0, 0.0]], &[0.0, 2.0, 0.0, 0.0]);
        let v = victim(&model, &[4]);
        let x = [0.5, 0.5, 0.5, 0.5];
        let clean = v.logits(&x).unwrap();
        for (norm, reach) in [(Norm::Linf, 0.05 * 3.75), (Norm::L2, 0.05 * 5.3125f32.sqrt()), (Norm::L1, 0.05 * 2.0)] {
            let threat = Threat::new(norm, 0.05, [0.0, 1.0]).unwrap();
            let (_, z) = propose(&ApgdCe::default(), &v, &x, &[1], &[3], &threat);
            // Towards class 0, whose logit is constant; the others add a little that the attack may use.
            let fell = margin(&clean, 1) - margin(&z, 1);
            assert!((fell - reach).abs() < 0.02 * reach + 0.006, "{norm}: {fell} of {reach}");
        }
    }
}
