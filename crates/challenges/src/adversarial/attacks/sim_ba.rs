//! SimBA: one feature at a time, up or down, whatever lowers the probability of the right class.
//! Guo, Gardner, You, Wilson and Weinberger, ICML 2019, arXiv:1905.07121, algorithm 1, pixel basis. Checked against: the closed
//! form of a linear model.
//! Differs from the paper: it stays within the threat, and goes through the features again where that still helps. Weak on large
//! inputs with few queries; `square` is stronger for the same number.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use netproof_stats::rng::Rng;
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::attack::{Access, Attack, Batch};
use crate::adversarial::loss::is_right;
use crate::adversarial::oracle::Oracle;
use crate::adversarial::projection::Ball;
use crate::adversarial::rows::{row, row_mut};
use crate::adversarial::smallest::joined;

pub(super) static CARD: Card = Card {
    id: "simba",
    version: 1,
    kind: CardKind::Attack,
    title: "Simple black-box attack",
    challenge: Challenge::Adversarial,
    measures: "Steps along single features, kept where they lower the probability of the right class; it queries scores and \
               needs no gradient.",
    reference: "Guo, Gardner, You, Wilson and Weinberger, ICML 2019, arXiv:1905.07121, algorithm 1",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc { name: "queries", default: "10000", doc: "Queries of each row, 1 to 10000000." },
        OptionDoc {
            name: "step",
            default: "0.2",
            doc: "Length of a step, above 0, in the units of the input; at most epsilon is taken.",
        },
    ],
};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SimBa {
    queries: usize,
    step: f64,
}

impl Default for SimBa {
    fn default() -> Self {
        Self { queries: 10_000, step: 0.2 }
    }
}

/// The search of one row.
struct Search {
    owner: usize,
    rng: Rng,
    x: Vec<f32>,
    tried: Vec<f32>,
    probability: f64,
    order: Vec<usize>,
    at: usize,
    down: bool,
    helped: bool,
    over: bool,
}

impl Attack for SimBa {
    fn norms(&self) -> &'static [Norm] {
        &[Norm::Linf, Norm::L2]
    }

    fn access(&self) -> Access {
        Access::Scores
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        if !(1..=10_000_000).contains(&self.queries) {
            return Err(AttackError::Value { name: "queries", value: self.queries as f64, allowed: "1 to 10000000" });
        }
        if !(self.step > 0.0 && self.step.is_finite()) {
            return Err(AttackError::Value { name: "step", value: self.step, allowed: "above 0" });
        }
        let (len, k, ball) = (batch.row_len(), batch.classes(), Ball::from(threat));
        let size = match threat.norm {
            Norm::Linf => ball.epsilon,
            _ => ball.epsilon.min(self.step as f32),
        };
        let mut out = batch.x.to_vec();
        let mut searches: Vec<Search> = batch
            .right()
            .into_iter()
            .map(|owner| Search {
                owner,
                rng: batch.rng(owner, "simba"),
                x: batch.row(owner).to_vec(),
                tried: Vec::new(),
                probability: probability(batch.row_logits(owner), batch.labels[owner]),
                order: (0..len).collect(),
                at: len,
                down: false,
                helped: true,
                over: false,
            })
            .collect();
        for _ in 0..self.queries {
            searches.iter_mut().for_each(|s| s.next(size, &ball, batch.row(s.owner)));
            searches.retain(|s| !s.over);
            if searches.is_empty() {
                break;
            }
            let owners: Vec<usize> = searches.iter().map(|s| s.owner).collect();
            let logits = oracle.logits(&owners, &joined(searches.iter().map(|s| s.tried.as_slice())))?;
            for (i, s) in searches.iter_mut().enumerate() {
                let z = row(&logits, k, i);
                let label = batch.labels[s.owner];
                let p = probability(z, label);
                let wrong = !is_right(z, label);
                if p < s.probability || wrong {
                    s.probability = p;
                    s.x.copy_from_slice(&s.tried);
                    row_mut(&mut out, len, s.owner).copy_from_slice(&s.tried);
                    s.helped = true;
                    // The other direction would undo it.
                    s.down = true;
                }
                s.over = wrong;
                s.turn();
            }
            searches.retain(|s| !s.over);
        }
        Ok(out)
    }
}

impl Search {
    /// The next point that differs from the present one.
    fn next(&mut self, size: f32, ball: &Ball, origin: &[f32]) {
        // Twice around at most: where nothing can move, the search is over.
        for _ in 0..=4 * self.order.len() {
            if self.at >= self.order.len() {
                if !std::mem::take(&mut self.helped) {
                    break;
                }
                self.rng.shuffle(&mut self.order);
                (self.at, self.down) = (0, false);
            }
            let j = self.order[self.at];
            let mut tried = self.x.clone();
            tried[j] += if self.down { -size } else { size };
            ball.project(origin, &mut tried);
            if tried[j] != self.x[j] {
                self.tried = tried;
                return;
            }
            self.turn();
        }
        self.over = true;
    }

    /// Down after up, then the next feature.
    fn turn(&mut self) {
        if self.down {
            self.at += 1;
        }
        self.down = !self.down;
    }
}

/// Softmax probability of a class.
fn probability(z: &[f32], class: usize) -> f64 {
    let of: f64 = z.iter().map(|v| f64::from(v - z[class]).exp()).sum();
    of.recip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adversarial::test_support::{linear, run};

    #[test]
    fn on_a_linear_model_it_ends_at_the_corner_that_is_worst() {
        let model = linear(&[[0.0; 3], [0.5, -2.0, 1.0]], &[0.0, 0.5]);
        let x = [0.5, 0.5, 0.7];
        // 0.12 * 3.5 is less than the margin of 0.45, 0.14 * 3.5 is more.
        let (y, z) = run(&SimBa::default(), &model, &[3], &x, &[1], &threat(0.12), 0);
        assert!(is_right(&z, 1));
        for (y, want) in y.iter().zip([0.38, 0.62, 0.58]) {
            assert!((y - want).abs() < 1e-6, "{y} {want}");
        }
        assert!(!is_right(&run(&SimBa::default(), &model, &[3], &x, &[1], &threat(0.14), 0).1, 1));
    }

    fn threat(epsilon: f64) -> Threat {
        Threat::new(Norm::Linf, epsilon, [0.0, 1.0]).unwrap()
    }
}
