//! Randomised smoothing: the class of the network under Gaussian noise, with the l2 radius within which it cannot change.
//! Cohen, Rosenfeld and Kolter 2019, arXiv:1902.02918, section 3.2, CERTIFY and PREDICT, with their sizes N0 = 100, N = 100000,
//! alpha = 0.001. Checked against: a naive version on the same draws, recorded quantiles of SciPy.
//!
//! The selection and the estimate use draws of their own: with the same draws the bound would be too high. The radii of the
//! published tables for sigma 0.25 and 0.5 were made with alpha = 0.01, as their largest values show. Weak: it certifies the
//! network under noise, which must be trained for it, and not the network itself; the radius is at most 3.8 sigma.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use serde::{Deserialize, Serialize};

use super::smoothing::{Answer, NORMS, Sampler, certify, check, covers};
use super::{Certificate, Guarantee, Rows};
use crate::adversarial::AttackError;
use crate::adversarial::error::need_norm;

pub(super) static CARD: Card = Card {
    id: "randomised-smoothing",
    version: 1,
    kind: CardKind::Certificate,
    title: "Randomised smoothing",
    challenge: Challenge::Adversarial,
    measures: "Votes of the network under Gaussian noise; with a stated confidence, the l2 radius within which the most \
               frequent class cannot change. Certifies the network under noise, not the network.",
    reference: "Cohen, Rosenfeld and Kolter, ICML 2019, arXiv:1902.02918, section 3.2",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc { name: "sigma", default: "0.25", doc: "Standard deviation of the noise, in units of the features." },
        OptionDoc { name: "selection", default: "100", doc: "Draws that choose the class, N0." },
        OptionDoc { name: "draws", default: "100000", doc: "Draws that estimate its probability, N." },
        OptionDoc {
            name: "alpha",
            default: "0.001",
            doc: "Probability that the answer for a row is wrong, below 0.5.",
        },
    ],
};

/// Options; the defaults are those of the paper's CIFAR-10 and ImageNet tables.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomisedSmoothing {
    /// Standard deviation of the noise.
    pub sigma: f64,
    /// Draws that choose the class.
    pub selection: u64,
    /// Draws that estimate its probability.
    pub draws: u64,
    /// Probability of a wrong answer.
    pub alpha: f64,
}

impl Default for RandomisedSmoothing {
    fn default() -> Self {
        Self { sigma: 0.25, selection: 100, draws: 100_000, alpha: 0.001 }
    }
}

impl RandomisedSmoothing {
    /// The class and its radius for each row; `None` where every answer was undefined.
    /// # Errors
    /// An option is out of range, seeds are missing, or the network refuses.
    pub fn answers(&self, rows: &Rows<'_>) -> Result<Vec<Option<Answer>>, AttackError> {
        check(self.sigma, self.alpha, self.draws)?;
        check(self.sigma, self.alpha, self.selection)?;
        need_seeds(rows)?;
        let mut all = Vec::with_capacity(rows.len());
        for (i, &seed) in rows.seeds.iter().enumerate() {
            rows.check_time()?;
            if !is_finite(rows, i) {
                all.push(None);
                continue;
            }
            let mut sampler = Sampler::new(rows.model, rows.x, i, self.sigma, seed)?;
            let selection = sampler.sample(self.selection)?;
            let estimate = sampler.sample(self.draws)?;
            all.push(certify(&selection, &estimate, self.draws, self.alpha, self.sigma));
        }
        Ok(all)
    }
}

pub(super) fn need_seeds(rows: &Rows<'_>) -> Result<(), AttackError> {
    if rows.seeds.len() != rows.len() || rows.x.rows() != rows.len() {
        let (n, labels, seeds) = (rows.x.rows(), rows.labels.len(), rows.seeds.len());
        return Err(AttackError::Mismatch(format!("{n} rows, {labels} labels and {seeds} seeds; all must be as many")));
    }
    Ok(())
}

pub(super) fn is_finite(rows: &Rows<'_>, i: usize) -> bool {
    let n = rows.x.row_len();
    rows.x.as_f32().and_then(|v| v.get(i * n..(i + 1) * n)).is_some_and(|r| r.iter().all(|v| v.is_finite()))
}

impl Certificate for RandomisedSmoothing {
    fn norms(&self) -> &'static [Norm] {
        NORMS
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::Smoothed { sigma: self.sigma, confidence: 1.0 - self.alpha }
    }

    fn certify(&self, rows: &Rows<'_>, threat: &Threat) -> Result<Vec<bool>, AttackError> {
        let radii = self.radii(rows, &threat.with_epsilon(f64::INFINITY))?;
        Ok(radii.into_iter().map(|r| r.is_some_and(|r| covers(r, threat))).collect())
    }

    fn radii(&self, rows: &Rows<'_>, threat: &Threat) -> Result<Vec<Option<f64>>, AttackError> {
        need_norm(&CARD, NORMS, threat.norm)?;
        let answers = self.answers(rows)?;
        let right = |(answer, &label): (Option<Answer>, &usize)| {
            let answer = answer.filter(|a| a.class == label)?;
            answer.radius.map(|r| r.min(threat.epsilon))
        };
        Ok(answers.into_iter().zip(rows.labels).map(right).collect())
    }
}
