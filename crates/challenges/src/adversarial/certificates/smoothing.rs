//! The network under Gaussian noise: votes, and what they prove.
//!
//! Cohen, Rosenfeld and Kolter 2019, arXiv:1902.02918. The smoothed classifier answers the class that the network answers
//! most often under noise; if that class has probability p > 1/2, no change of l2 norm below σ Φ⁻¹(p) turns it (theorem 1).

use netproof_core::{Norm, Threat};
use netproof_graph::Model;
use netproof_stats::rng::Rng;
use netproof_stats::special::{beta_quantile, binomial_cdf, normal_quantile};
use netproof_tensor::Tensor;

use crate::adversarial::AttackError;

/// Numbers of a batch of noisy rows: 16 MiB.
const AT_ONCE: usize = 4 << 20;
/// Rows of a batch of noise.
const MOST_ROWS: usize = 1024;

/// A class and what its votes prove.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// The class that was selected.
    pub class: usize,
    /// Votes for it in the estimate.
    pub votes: u64,
    /// Draws of the estimate.
    pub draws: u64,
    /// Lower confidence bound of its probability.
    pub lower: f64,
    /// Radius in l2 within which the answer does not change; `None` abstains.
    pub radius: Option<f64>,
}

/// Lower confidence bound of a probability of which `k` of `n` draws came true, one-sided.
/// # Source
/// Clopper and Pearson 1934; `LowerConfBound` of Cohen et al. 2019, section 3.2.2
pub fn lower_bound(k: u64, n: u64, alpha: f64) -> f64 {
    if k == 0 || n == 0 { 0.0 } else { beta_quantile(alpha, k as f64, (n - k.min(n)) as f64 + 1.0) }
}

/// The radius that a lower bound of the probability proves; `None` where that is below 1/2.
/// # Source
/// Cohen et al. 2019, equation 3 with the upper bound 1 − p of all other classes
pub fn radius(lower: f64, sigma: f64) -> Option<f64> {
    // The published procedure abstains at exactly 1/2 as well: its radius would be 0.
    (lower > 0.5).then(|| sigma * normal_quantile(lower))
}

/// The class of the selection with the radius that the estimate proves for it.
/// # Source
/// Cohen et al. 2019, CERTIFY, figure 2
pub fn certify(selection: &[u64], estimate: &[u64], draws: u64, alpha: f64, sigma: f64) -> Option<Answer> {
    let class = most(selection)?;
    let votes = estimate.get(class).copied().unwrap_or_default();
    let lower = lower_bound(votes, draws, alpha);
    Some(Answer { class, votes, draws, lower, radius: radius(lower, sigma) })
}

/// The class that the smoothed classifier answers, unless the two most frequent ones cannot be told apart at level `alpha`.
/// # Source
/// Cohen et al. 2019, PREDICT, figure 2: two-sided binomial test of the two largest counts
pub fn predict(votes: &[u64], alpha: f64) -> Option<usize> {
    let first = most(votes)?;
    let second = votes.iter().enumerate().filter(|(c, _)| *c != first).map(|(_, &v)| v).max().unwrap_or_default();
    let p = (2.0 * binomial_cdf(second, votes[first] + second, 0.5)).min(1.0);
    (p <= alpha && votes[first] > second).then_some(first)
}

/// The first of the most frequent classes; `None` where there are no votes at all.
fn most(votes: &[u64]) -> Option<usize> {
    let best = votes.iter().copied().max().filter(|&v| v > 0)?;
    votes.iter().position(|&v| v == best)
}

/// Votes of the network on one row under noise. Draw number i depends on the seed and i alone.
pub struct Sampler<'a> {
    model: &'a Model,
    row: &'a [f32],
    shape: Vec<usize>,
    sigma: f64,
    seed: u64,
    drawn: u64,
    classes: usize,
}

impl std::fmt::Debug for Sampler<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampler").field("sigma", &self.sigma).field("drawn", &self.drawn).finish_non_exhaustive()
    }
}

impl<'a> Sampler<'a> {
    /// For row `i` of `x [n, ...]`.
    /// # Errors
    /// The network refuses.
    pub fn new(model: &'a Model, x: &'a Tensor, i: usize, sigma: f64, seed: u64) -> Result<Self, AttackError> {
        let n = x.row_len();
        let row = x.as_f32().and_then(|v| v.get(i * n..(i + 1) * n)).unwrap_or_default();
        let shape = x.shape().get(1..).unwrap_or_default().to_vec();
        let answer = model.predict(&Tensor::f32([&[1], &shape[..]].concat(), row.to_vec())?)?;
        // One number is a logit or a probability of class 1.
        let classes = answer.row_len().max(2);
        Ok(Self { model, row, shape, sigma, seed, drawn: 0, classes })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Draws so far.
    pub fn drawn(&self) -> u64 {
        self.drawn
    }

    /// Votes per class of that many more draws. An answer with a NaN is a vote for none.
    /// # Errors
    /// The network refuses.
    pub fn sample(&mut self, draws: u64) -> Result<Vec<u64>, AttackError> {
        let len = self.row.len().max(1);
        let most = (AT_ONCE / len).clamp(1, MOST_ROWS) as u64;
        let mut votes = vec![0; self.classes];
        let mut left = draws;
        while left > 0 {
            let n = left.min(most);
            let mut x = vec![0.0f32; n as usize * len];
            let sigma = self.sigma as f32;
            for (i, noisy) in x.chunks_mut(len).enumerate() {
                Rng::stream(self.seed, self.drawn + i as u64 + 1).fill_normal(noisy);
                noisy.iter_mut().zip(self.row).for_each(|(n, x)| *n = x + sigma * *n);
            }
            let shape = [&[n as usize], &self.shape[..]].concat();
            let answers = self.model.predict(&Tensor::f32(shape, x)?)?;
            let width = answers.row_len().max(1);
            for row in answers.as_f32().unwrap_or_default().chunks_exact(width) {
                if let Some(class) = self.class(row) {
                    votes[class] += 1;
                }
            }
            self.drawn += n;
            left -= n;
        }
        Ok(votes)
    }

    fn class(&self, answer: &[f32]) -> Option<usize> {
        if answer.iter().any(|v| v.is_nan()) {
            return None;
        }
        if let [z] = answer {
            // A probability where the network ends so, else a logit.
            let half = if self.model.outputs().first().and_then(|o| self.model.producer(&o.name)) == Some("Sigmoid") {
                0.5
            } else {
                0.0
            };
            return Some(usize::from(*z > half));
        }
        Some(crate::adversarial::loss::argmax(answer))
    }
}

pub(super) const NORMS: &[Norm] = &[Norm::L2];

/// # Errors
/// An option is out of range.
pub(super) fn check(sigma: f64, alpha: f64, draws: u64) -> Result<(), AttackError> {
    let fail = |name, value, allowed| Err(AttackError::Value { name, value, allowed });
    if !(sigma.is_finite() && sigma > 0.0) {
        return fail("sigma", sigma, "above 0 and finite, in units of the features");
    }
    if !(alpha > 0.0 && alpha < 0.5) {
        return fail("alpha", alpha, "above 0 and below 0.5");
    }
    if draws == 0 || draws > 100_000_000 {
        return fail("draws", draws as f64, "1 to 100000000");
    }
    Ok(())
}

/// What a radius says about a threat: l2 within it, strictly.
pub(super) fn covers(radius: f64, threat: &Threat) -> bool {
    radius > threat.epsilon || (threat.epsilon == 0.0 && radius >= 0.0)
}
