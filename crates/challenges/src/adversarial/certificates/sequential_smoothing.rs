//! Randomised smoothing that stops as soon as it knows: the same guarantee with fewer draws.
//! Classifier and radius as Cohen, Rosenfeld and Kolter 2019, arXiv:1902.02918. The lower bound of the probability is one of a
//! confidence sequence, valid at every number of draws at once, so that any stopping rule keeps the guarantee: the
//! beta-binomial mixture of Robbins 1970 (Annals of Mathematical Statistics 41, 1397–1409), one-sided as in Howard, Ramdas,
//! McAuliffe and Sekhon 2021 (Annals of Statistics 49(2), arXiv:1810.08240, proposition 7 and appendix). Checked against:
//! simulated coverage, a naive integral, the fixed-size procedure.
//!
//! For each probability p0 the mixture ∫ q^k (1−q)^(n−k) / (p0^k (1−p0)^(n−k)) dπ(q) over q > p0 is a supermartingale under
//! every p ≤ p0, so that by Ville's inequality it exceeds 1/alpha with probability alpha at most, ever. With a radius to
//! decide on, sampling stops when p0 = Φ(epsilon / σ) is refuted, when it is out of reach, or after `draws`. Without one, it stops
//! when the radius is within `tolerance` of what as many draws as allowed could prove. Weak: where all draws are needed, the
//! radius is a little smaller than that of the fixed-size procedure.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use netproof_stats::special::{beta_cdf, ln_gamma, normal_cdf};
use serde::{Deserialize, Serialize};

use super::randomised_smoothing::{is_finite, need_seeds};
use super::smoothing::{Answer, NORMS, Sampler, check, covers, lower_bound, radius};
use super::{Certificate, Guarantee, Rows};
use crate::adversarial::AttackError;
use crate::adversarial::error::need_norm;

pub(super) static CARD: Card = Card {
    id: "sequential-smoothing",
    version: 1,
    kind: CardKind::Certificate,
    title: "Sequential randomised smoothing",
    challenge: Challenge::Adversarial,
    measures: "Randomised smoothing with a confidence sequence: draws stop as soon as the answer is known, with the same \
               guarantee. Certifies the network under noise, not the network.",
    reference: "Cohen, Rosenfeld and Kolter, ICML 2019, arXiv:1902.02918; Robbins 1970, Annals of Mathematical Statistics \
                41; Howard et al. 2021, Annals of Statistics 49(2), arXiv:1810.08240",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc { name: "sigma", default: "0.25", doc: "Standard deviation of the noise, in units of the features." },
        OptionDoc { name: "selection", default: "100", doc: "Draws that choose the class, N0." },
        OptionDoc { name: "draws", default: "100000", doc: "Most draws that estimate its probability." },
        OptionDoc {
            name: "alpha",
            default: "0.001",
            doc: "Probability that the answer for a row is wrong, below 0.5.",
        },
        OptionDoc {
            name: "tolerance",
            default: "0.05",
            doc: "Where a radius is asked for: how much of it may be given away for fewer draws, in units of sigma.",
        },
    ],
};

/// Options.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SequentialSmoothing {
    /// Standard deviation of the noise.
    pub sigma: f64,
    /// Draws that choose the class.
    pub selection: u64,
    /// Most draws that estimate its probability.
    pub draws: u64,
    /// Probability of a wrong answer.
    pub alpha: f64,
    /// How much of a radius may be given away, in units of sigma.
    pub tolerance: f64,
}

impl Default for SequentialSmoothing {
    fn default() -> Self {
        Self { sigma: 0.25, selection: 100, draws: 100_000, alpha: 0.001, tolerance: 0.05 }
    }
}

/// First look at the votes; later ones follow at 1.25 times as many draws.
const FIRST_LOOK: u64 = 50;
/// Both parameters of the prior: Jeffreys' law, as good near 1 as in the middle.
const PRIOR: f64 = 0.5;

/// Logarithm of the mixture at `p0`, after `k` of `n` draws.
pub fn log_mixture(k: u64, n: u64, p0: f64) -> f64 {
    let (k, m) = (k as f64, (n - k.min(n)) as f64);
    let above = |a: f64, b: f64| beta_cdf(1.0 - p0, b, a).ln();
    let ln_beta = |a: f64, b: f64| ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
    let mixed = ln_beta(k + PRIOR, m + PRIOR) + above(k + PRIOR, m + PRIOR);
    let prior = ln_beta(PRIOR, PRIOR) + above(PRIOR, PRIOR);
    mixed - prior - k * p0.ln() - m * (-p0).ln_1p()
}

/// Lower bound of the probability after `k` of `n` draws, valid at all `n` at once with probability `1 − alpha`.
pub fn sequential_bound(k: u64, n: u64, alpha: f64) -> f64 {
    if k == 0 || n == 0 {
        return 0.0;
    }
    let limit = -alpha.ln();
    let (mut low, mut high) = (0.0, k as f64 / n as f64);
    // The mixture falls as p0 rises towards the fraction of votes.
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if middle <= 0.0 || middle >= 1.0 {
            break;
        }
        if log_mixture(k, n, middle) >= limit { low = middle } else { high = middle }
    }
    low
}

impl SequentialSmoothing {
    /// The class and its radius for each row, with the draws that it took; `None` where every answer was undefined. With a
    /// radius `wanted`, draws stop as soon as it is proved or out of reach.
    /// # Errors
    /// An option is out of range, seeds are missing, or the network refuses.
    pub fn answers(&self, rows: &Rows<'_>, wanted: Option<f64>) -> Result<Vec<Option<Answer>>, AttackError> {
        check(self.sigma, self.alpha, self.draws)?;
        check(self.sigma, self.alpha, self.selection)?;
        if !(self.tolerance >= 0.0 && self.tolerance.is_finite()) {
            let (name, value, allowed) = ("tolerance", self.tolerance, "at least 0 and finite");
            return Err(AttackError::Value { name, value, allowed });
        }
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
            // Drawn and dropped where the label is not selected: nothing can be certified then.
            let votes = |draws: u64| sampler.sample(draws);
            all.push(self.decide(&selection, votes, wanted)?);
        }
        Ok(all)
    }

    /// Looks at more and more votes until the answer is known.
    fn decide(
        &self,
        selection: &[u64],
        mut more: impl FnMut(u64) -> Result<Vec<u64>, AttackError>,
        wanted: Option<f64>,
    ) -> Result<Option<Answer>, AttackError> {
        let Some(best) = selection.iter().copied().max().filter(|&v| v > 0) else { return Ok(None) };
        let class = selection.iter().position(|&v| v == best).unwrap_or_default();
        let (mut k, mut n, mut lower) = (0, 0, 0.0f64);
        while n < self.draws {
            let next = (n + n / 4).max(n + FIRST_LOOK).min(self.draws);
            k += more(next - n)?.get(class).copied().unwrap_or_default();
            n = next;
            // All bounds so far hold together, so that the highest may be kept.
            lower = lower.max(sequential_bound(k, n, self.alpha));
            if self.is_known(k, n, lower, wanted) {
                break;
            }
        }
        Ok(Some(Answer { class, votes: k, draws: n, lower, radius: radius(lower, self.sigma) }))
    }

    fn is_known(&self, k: u64, n: u64, lower: f64, wanted: Option<f64>) -> bool {
        // What all draws could prove if the rest voted as the draws so far.
        let expected = (k as f64 / n as f64 * self.draws as f64).round() as u64;
        match wanted {
            Some(radius) => {
                let needed = normal_cdf(radius / self.sigma);
                // Out of reach: this rests on a guess, and costs a certificate at worst.
                let hopeless = 1.0 - lower_bound(n - k, n, 1e-4) < needed;
                lower > needed || hopeless
            }
            None => {
                let hopeless = 1.0 - lower_bound(n - k, n, 1e-4) < 0.5;
                let reach = lower_bound(expected, self.draws, self.alpha);
                let (now, then) = (radius(lower, 1.0), radius(reach, 1.0));
                hopeless || matches!((now, then), (Some(now), Some(then)) if then - now <= self.tolerance)
            }
        }
    }
}

impl Certificate for SequentialSmoothing {
    fn norms(&self) -> &'static [Norm] {
        NORMS
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::Smoothed { sigma: self.sigma, confidence: 1.0 - self.alpha }
    }

    fn certify(&self, rows: &Rows<'_>, threat: &Threat) -> Result<Vec<bool>, AttackError> {
        need_norm(&CARD, NORMS, threat.norm)?;
        let answers = self.answers(rows, Some(threat.epsilon))?;
        let right = |(answer, &label): (Option<Answer>, &usize)| {
            answer.is_some_and(|a| a.class == label && a.radius.is_some_and(|r| covers(r, threat)))
        };
        Ok(answers.into_iter().zip(rows.labels).map(right).collect())
    }

    fn radii(&self, rows: &Rows<'_>, threat: &Threat) -> Result<Vec<Option<f64>>, AttackError> {
        need_norm(&CARD, NORMS, threat.norm)?;
        let answers = self.answers(rows, None)?;
        let right = |(answer, &label): (Option<Answer>, &usize)| {
            let answer = answer.filter(|a| a.class == label)?;
            answer.radius.map(|r| r.min(threat.epsilon))
        };
        Ok(answers.into_iter().zip(rows.labels).map(right).collect())
    }
}
