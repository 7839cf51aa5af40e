//! DeepFool: steps onto the nearest boundary of the linearised network until the answer changes.
//! Moosavi-Dezfooli, Fawzi and Frossard, CVPR 2016, arXiv:1511.04599, algorithm 2 (l2) and section 3.3 (other norms). Checked
//! against: the closed form of a linear model; recorded medians of Foolbox 3.3.4 on `fashion-cnn`.
//! Differs from the paper: points stay within the bounds; the boundaries looked at are those to the likeliest classes of the
//! clean row. Weak: it stops at the first wrong answer, which is not the smallest change; `fab` and `fmn` go on.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::attack::{Attack, Batch, Goal};
use crate::adversarial::loss::targets;
use crate::adversarial::oracle::Oracle;
use crate::adversarial::projection::Ball;
use crate::adversarial::rows::row;
use crate::adversarial::smallest::{Smallest, dual, joined, nearest_boundaries};

pub(super) static CARD: Card = Card {
    id: "deepfool",
    version: 1,
    kind: CardKind::Attack,
    title: "DeepFool",
    challenge: Challenge::Adversarial,
    measures: "A small change with a wrong answer, found by steps onto the nearest boundary of the linearised network.",
    reference: "Moosavi-Dezfooli, Fawzi and Frossard, CVPR 2016, arXiv:1511.04599, algorithm 2",
    needs: &[Need::Labels, Need::Classifier, Need::InputGradient],
    options: &[
        OptionDoc { name: "steps", default: "50", doc: "Steps at most, 1 to 100000." },
        OptionDoc {
            name: "overshoot",
            default: "0.02",
            doc: "Fraction by which the change goes beyond the boundary, 0 to 10.",
        },
        OptionDoc {
            name: "candidates",
            default: "10",
            doc: "Wrong classes that are looked at, likeliest first, 1 or more.",
        },
    ],
};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DeepFool {
    steps: usize,
    overshoot: f64,
    candidates: usize,
}

impl Default for DeepFool {
    fn default() -> Self {
        Self { steps: 50, overshoot: 0.02, candidates: 10 }
    }
}

/// A step goes this much beyond the plane, so that it does not stop in front of it.
const BEYOND: f64 = 1e-4;

impl Attack for DeepFool {
    fn norms(&self) -> &'static [Norm] {
        &[Norm::Linf, Norm::L2]
    }

    fn goal(&self) -> Goal {
        Goal::SmallestNorm
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        if !(1..=100_000).contains(&self.steps) {
            return Err(AttackError::Value { name: "steps", value: self.steps as f64, allowed: "1 to 100000" });
        }
        if !(0.0..=10.0).contains(&self.overshoot) {
            return Err(AttackError::Value { name: "overshoot", value: self.overshoot, allowed: "0 to 10" });
        }
        if self.candidates == 0 {
            return Err(AttackError::Value { name: "candidates", value: 0.0, allowed: "1 or more" });
        }
        oracle.victim().need_gradient()?;
        let (k, ball) = (batch.classes(), Ball::from(threat));
        let mut best = Smallest::new(batch, threat.norm);
        let mut active = batch.right();
        let mut orders: Vec<Vec<usize>> =
            active.iter().map(|&o| targets(batch.row_logits(o), batch.labels[o])).collect();
        let mut changes: Vec<Vec<f32>> = vec![vec![0.0; batch.row_len()]; active.len()];
        let mut points: Vec<Vec<f32>> = active.iter().map(|&o| batch.row(o).to_vec()).collect();
        for _ in 0..self.steps {
            if active.is_empty() {
                break;
            }
            let x = joined(points.iter().map(Vec::as_slice));
            let boundaries = nearest_boundaries(oracle, batch, &active, &x, threat.norm, &orders, self.candidates)?;
            for (i, b) in boundaries.iter().enumerate() {
                advance(threat.norm, &b.w, b.gap, &mut changes[i]);
                let scale = (1.0 + self.overshoot) as f32;
                for ((p, o), d) in points[i].iter_mut().zip(batch.row(active[i])).zip(&changes[i]) {
                    *p = (o + scale * d).clamp(ball.low, ball.high);
                }
            }
            let x = joined(points.iter().map(Vec::as_slice));
            let logits = oracle.logits(&active, &x)?;
            let stand: Vec<bool> =
                (0..active.len()).map(|i| !best.see(active[i], &points[i], row(&logits, k, i))).collect();
            retain(&mut active, &stand);
            retain(&mut orders, &stand);
            retain(&mut changes, &stand);
            retain(&mut points, &stand);
        }
        Ok(best.x)
    }
}

/// Adds the shortest move onto the plane.
fn advance(norm: Norm, w: &[f32], gap: f64, change: &mut [f32]) {
    let size = dual(norm, w);
    if size == 0.0 || !size.is_finite() {
        return;
    }
    let far = gap.abs() / size + BEYOND;
    match norm {
        Norm::L2 => change.iter_mut().zip(w).for_each(|(d, w)| *d -= (far * f64::from(*w) / size) as f32),
        _ => change.iter_mut().zip(w).filter(|(_, w)| **w != 0.0).for_each(|(d, w)| *d -= (far as f32).copysign(*w)),
    }
}

/// Keeps what is marked.
fn retain<T>(all: &mut Vec<T>, keep: &[bool]) {
    let mut marks = keep.iter();
    all.retain(|_| marks.next().copied().unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adversarial::loss::is_right;
    use crate::adversarial::projection::distance;
    use crate::adversarial::test_support::{linear, run};

    #[test]
    fn on_a_linear_model_it_goes_straight_to_the_nearest_boundary() {
        // Margins to classes 0 and 2 are 0.45 and 0.85; the differences of weights (0.5, -2, 1) and (-0.5, -2, 1).
        let model = linear(&[[0.0; 3], [0.5, -2.0, 1.0], [1.0, 0.0, 0.0]], &[0.0, 0.5, -0.9]);
        for (norm, best) in [(Norm::Linf, 0.45 / 3.5), (Norm::L2, 0.45 / 5.25f64.sqrt())] {
            let threat = Threat::new(norm, 10.0, [0.0, 1.0]).unwrap();
            let (y, z) = run(&DeepFool::default(), &model, &[3], &[0.5, 0.5, 0.7], &[1], &threat, 0);
            let size = distance(norm, &[0.5, 0.5, 0.7], &y);
            let expected = (best + BEYOND) * 1.02;
            assert!(!is_right(&z, 1) && (size - expected).abs() < 1e-5, "{norm}: {size}, closed form {expected}");
        }
    }
}
