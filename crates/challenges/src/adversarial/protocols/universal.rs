//! One change for all rows: fitted on a part of them, judged on the others.
//!
//! Moosavi-Dezfooli, Fawzi, Fawzi and Frossard, CVPR 2017, arXiv:1610.08401, for the threat; the fit is the gradient
//! ascent on the mean clipped loss of Shafahi, Najibi, Xu, Dickerson, Davis and Goldstein, AAAI 2020, arXiv:1811.11304,
//! algorithm 2. Checked against: the closed form of a linear model. Differs from the papers: rows are divided in two by
//! their seeds, and a change is fitted on each half and judged on the other, so that every row is judged by a change
//! that never saw it. Weak where half of the rows is few: then what stands here says little.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use netproof_stats::rng::Rng;
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::ascent::step;
use crate::adversarial::attack::{Attack, Batch};
use crate::adversarial::certifier::Certifier;
use crate::adversarial::error::need_norm;
use crate::adversarial::harness::Harness;
use crate::adversarial::loss::Loss;
use crate::adversarial::oracle::Oracle;
use crate::adversarial::projection::{Ball, CONVEX};
use crate::adversarial::protocol::Protocol;

pub(crate) static CARD: Card = Card {
    id: "universal",
    version: 1,
    kind: CardKind::Attack,
    title: "Universal perturbation",
    challenge: Challenge::Adversarial,
    measures: "One change for all rows, fitted on half of them and judged on the other half, and the other way round.",
    reference: "Moosavi-Dezfooli et al., CVPR 2017, arXiv:1610.08401; Shafahi et al., AAAI 2020, arXiv:1811.11304, algorithm 2",
    needs: &[Need::Labels, Need::Classifier, Need::InputGradient],
    options: &[
        OptionDoc {
            name: "epochs",
            default: "10",
            doc: "Passes over the rows that the change is fitted on, 1 to 10000.",
        },
        OptionDoc { name: "batch", default: "64", doc: "Rows of one step, 1 to 100000." },
        OptionDoc { name: "relative_step", default: "0.1", doc: "Length of a step as a fraction of epsilon, above 0." },
        OptionDoc {
            name: "most_loss",
            default: "9.0",
            doc: "Cross-entropy from which a row counts as broken and pulls no more, above 0.",
        },
    ],
};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Universal {
    epochs: usize,
    batch: usize,
    relative_step: f64,
    most_loss: f64,
}

impl Default for Universal {
    fn default() -> Self {
        Self { epochs: 10, batch: 64, relative_step: 0.1, most_loss: 9.0 }
    }
}

/// Adds one change to every row.
struct Fixed {
    change: Vec<f32>,
}

impl Attack for Fixed {
    fn norms(&self) -> &'static [Norm] {
        CONVEX
    }

    fn propose(&self, _: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        let ball = Ball::from(threat);
        let mut x = batch.x.to_vec();
        for (i, x) in x.chunks_exact_mut(batch.row_len().max(1)).enumerate() {
            x.iter_mut().zip(&self.change).for_each(|(x, d)| *x += d);
            ball.project(batch.row(i), x);
        }
        Ok(x)
    }
}

impl Protocol for Universal {
    fn run(&self, harness: &mut Harness<'_, '_>, _: &[&dyn Certifier]) -> Result<(), AttackError> {
        self.check()?;
        let norm = harness.threat().norm;
        need_norm(&CARD, CONVEX, norm)?;
        let half = |h: &Harness<'_, '_>, i: usize| Rng::named(h.seed_of(i), "universal half").below(2);
        let all: Vec<usize> = harness.standing();
        let halves = [0, 1].map(|k| -> Vec<usize> { all.iter().copied().filter(|&i| half(harness, i) == k).collect() });
        for (k, fitted) in halves.iter().enumerate() {
            let judged = &halves[1 - k];
            if fitted.is_empty() || judged.is_empty() {
                harness.note("a universal change needs right rows to be fitted on and others to be judged on");
                continue;
            }
            let Some((change, looks)) = self.fit(harness, fitted)? else { break };
            let broken = harness.attack(&CARD, &format!("universal-{}", k + 1), &Fixed { change }, judged)?;
            harness.note(format!(
                "the universal change fitted on {} rows with {looks} gradients breaks {broken} of {} others, {:.1} %",
                fitted.len(),
                judged.len(),
                100.0 * broken as f64 / judged.len() as f64
            ));
        }
        Ok(())
    }
}

impl Universal {
    fn check(&self) -> Result<(), AttackError> {
        let fail = |name, value, allowed| Err(AttackError::Value { name, value, allowed });
        if !(1..=10_000).contains(&self.epochs) {
            return fail("epochs", self.epochs as f64, "1 to 10000");
        }
        if !(1..=100_000).contains(&self.batch) {
            return fail("batch", self.batch as f64, "1 to 100000");
        }
        if !(self.relative_step > 0.0 && self.relative_step.is_finite()) {
            return fail("relative_step", self.relative_step, "finite and above 0, such as 0.1");
        }
        if !(self.most_loss > 0.0 && self.most_loss.is_finite()) {
            return fail("most_loss", self.most_loss, "finite and above 0, such as 9");
        }
        Ok(())
    }

    /// The change, and how many gradients it took; nothing where the time is over.
    fn fit(&self, harness: &Harness<'_, '_>, rows: &[usize]) -> Result<Option<(Vec<f32>, u64)>, AttackError> {
        let (victim, threat) = (harness.victim(), harness.threat());
        victim.need_gradient()?;
        // The change by itself knows no bounds; each row's are kept when it is added.
        let free = Ball { low: f32::NEG_INFINITY, high: f32::INFINITY, ..Ball::from(threat) };
        let [low, high] = threat.bounds.map(|b| b as f32);
        let len = victim.row_len();
        let (zeros, mut change) = (vec![0.0; len], vec![0.0; len]);
        let length = (threat.epsilon * self.relative_step) as f32;
        let mut looks = 0;
        for epoch in 0..self.epochs {
            let mut order = rows.to_vec();
            let name = format!("universal order {epoch}");
            order.sort_by_cached_key(|&i| Rng::named(harness.seed_of(i), &name).next_u64());
            for part in order.chunks(self.batch) {
                if harness.is_out_of_time() {
                    return Ok(None);
                }
                let (mut x, labels) = harness.pick(part);
                for x in x.chunks_exact_mut(len.max(1)) {
                    x.iter_mut().zip(&change).for_each(|(x, d)| *x = (*x + d).clamp(low, high));
                }
                let mut objective = |i: usize, z: &[f32], seed: &mut [f32]| {
                    if f64::from(Loss::CrossEntropy.of(z, labels[i], 0, seed)) > self.most_loss {
                        seed.fill(0.0);
                    }
                };
                let look = victim.look(&x, &mut objective)?;
                looks += part.len() as u64;
                let mut sum = vec![0.0f32; len];
                for g in look.gradient.chunks_exact(len.max(1)) {
                    sum.iter_mut().zip(g).filter(|(_, g)| g.is_finite()).for_each(|(s, g)| *s += g);
                }
                step(&free, &sum, length, &mut change);
                free.project(&zeros, &mut change);
            }
        }
        Ok(Some((change, looks)))
    }
}

#[cfg(test)]
mod tests {
    use netproof_audit::Silent;
    use netproof_tensor::Tensor;

    use super::*;
    use crate::adversarial::test_support::{linear, rows, victim};

    /// All rows of one class of a linear model share their worst change: it breaks exactly those within its reach.
    #[test]
    fn on_a_linear_model_it_is_the_worst_change_of_every_row() {
        let w = [[0.0f32; 5], [0.5, -2.0, 1.0, 0.3, -0.4]];
        let model = linear(&w, &[0.0, 0.6]);
        let (x, labels) = rows(&model, 5, 160, 6);
        let own: Vec<usize> = (0..160).filter(|&i| labels[i] == 1).collect();
        let x = crate::adversarial::rows::gather(&x, 5, &own);
        let v = victim(&model, &[5]);
        let z = v.logits(&x).unwrap();
        let ids: Vec<u64> = (0..own.len() as u64).collect();
        let features = Tensor::f32(vec![own.len(), 5], x).unwrap();
        let labels = vec![1; own.len()];
        for (norm, dual) in [(Norm::Linf, 4.2), (Norm::L2, 5.5f64.sqrt())] {
            let threat = Threat::new(norm, 0.25, [-9.0, 9.0]).unwrap();
            let mut h = Harness::new(&v, threat, &features, &labels, &ids, 0, &Silent).unwrap();
            Universal::default().run(&mut h, &[]).unwrap();
            let (mut wrong, mut broken) = (0, 0);
            for (i, o) in h.outcomes().iter().enumerate() {
                let far = f64::from(z[2 * i + 1] - z[2 * i]) / dual;
                broken += usize::from(!o.fate.is_robust());
                if (far / 0.25 - 1.0).abs() > 0.02 && o.fate.is_robust() != (far > 0.25) {
                    wrong += 1;
                }
            }
            assert!(wrong == 0 && broken > 5, "{norm}: {wrong} wrong, {broken} broken of {}", own.len());
            assert_eq!(h.stages().iter().map(|s| s.rows).sum::<u64>(), own.len() as u64);
            let one = h.adversarial().chunks(5).zip(h.clean().chunks(5)).zip(h.outcomes());
            let changes: Vec<Vec<f32>> = one
                .filter(|(_, o)| o.norm > 0.0)
                .map(|((a, x), _)| a.iter().zip(x).map(|(a, x)| ((a - x) * 1e4).round()).collect())
                .collect();
            let kinds: std::collections::BTreeSet<String> = changes.iter().map(|c| format!("{c:?}")).collect();
            assert!(kinds.len() <= 4, "two changes, up to rounding: {kinds:?}");
        }
    }

    #[test]
    fn options_and_norms_are_checked() {
        let model = linear(&[[0.0f32; 2], [1.0, 1.0]], &[0.0, -1.0]);
        let (x, labels) = rows(&model, 2, 4, 1);
        let v = victim(&model, &[2]);
        let x = Tensor::f32(vec![4, 2], x).unwrap();
        let ids = [0, 1, 2, 3];
        let run = |u: &Universal, norm| {
            let threat = Threat::new(norm, 1.0, [0.0, 1.0]).unwrap();
            let mut h = Harness::new(&v, threat, &x, &labels, &ids, 0, &Silent).unwrap();
            u.run(&mut h, &[])
        };
        assert!(matches!(run(&Universal::default(), Norm::L0), Err(AttackError::Norm { .. })));
        for bad in [
            Universal { epochs: 0, ..Universal::default() },
            Universal { batch: 0, ..Universal::default() },
            Universal { relative_step: f64::NAN, ..Universal::default() },
            Universal { most_loss: 0.0, ..Universal::default() },
        ] {
            assert!(matches!(run(&bad, Norm::Linf), Err(AttackError::Value { .. })), "{bad:?}");
        }
    }
}
