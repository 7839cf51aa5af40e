//! Carlini and Wagner: the smallest change by gradient descent on its size plus a weighted margin, in a space without bounds.
//! Carlini and Wagner, IEEE S&P 2017, arXiv:1608.04644, sections V and VI.A (l2) and VI.C (l-infinity). Checked against: the
//! closed form of a linear model; the recorded median of Foolbox 3.3.4 on `fashion-cnn`.
//! Differs from the paper: rows search their weight each by itself, side by side in one batch, and leave when their descent
//! stands still; 1,000 steps by default instead of 10,000. Weak: slow; `fmn` finds nearly as small changes a hundred times faster.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::attack::{Attack, Batch, Goal};
use crate::adversarial::loss::{Loss, margin};
use crate::adversarial::oracle::Oracle;
use crate::adversarial::projection::Ball;
use crate::adversarial::rows::row;
use crate::adversarial::smallest::{Moments, Smallest, Weight, joined};

pub(super) static CARD: Card = Card {
    id: "carlini-wagner",
    version: 1,
    kind: CardKind::Attack,
    title: "Carlini and Wagner's attack",
    challenge: Challenge::Adversarial,
    measures: "The smallest change with a wrong answer, by gradient descent on its size plus a weighted margin; the weight is \
               searched for each row.",
    reference: "Carlini and Wagner, IEEE S&P 2017, arXiv:1608.04644, sections V and VI",
    needs: &[Need::Labels, Need::Classifier, Need::InputGradient],
    options: &[
        OptionDoc {
            name: "steps",
            default: "1000",
            doc: "Steps of each descent at most, 1 to 100000; the paper has 10000.",
        },
        OptionDoc { name: "searches", default: "9", doc: "Weights that are tried for l2, 1 to 100." },
        OptionDoc { name: "rate", default: "0.01", doc: "Step size of Adam, above 0." },
        OptionDoc {
            name: "confidence",
            default: "0.0",
            doc: "How far the wrong class must be ahead, in logits, 0 or more.",
        },
        OptionDoc { name: "first_weight", default: "0.001", doc: "Weight of the margin that is tried first, above 0." },
    ],
};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CarliniWagner {
    steps: usize,
    searches: usize,
    rate: f64,
    confidence: f64,
    first_weight: f64,
}

impl Default for CarliniWagner {
    fn default() -> Self {
        Self { steps: 1000, searches: 9, rate: 0.01, confidence: 0.0, first_weight: 0.001 }
    }
}

/// The hyperbolic tangent of the largest number is kept this far from its ends, where it has no inverse.
const INSIDE: f32 = 0.999_999;
/// A descent that gains less than this fraction in a tenth of the steps stands still.
const STANDS: f64 = 0.9999;
/// Largest weight for l-infinity.
const MOST_WEIGHT: f64 = 20.0;
/// By how much the allowed size shrinks after a success with l-infinity.
const SHRINK: f64 = 0.9;
/// Fraction of the bounds' width below which l-infinity stops: half a level of 8 bits.
const LEAST: f64 = 1.0 / 512.0;

impl Attack for CarliniWagner {
    fn norms(&self) -> &'static [Norm] {
        &[Norm::L2, Norm::Linf]
    }

    fn goal(&self) -> Goal {
        Goal::SmallestNorm
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        self.check()?;
        oracle.victim().need_gradient()?;
        let space = Space::new(&Ball::from(threat));
        let mut best = Smallest::new(batch, threat.norm);
        let mut searches: Vec<Search> =
            batch.right().into_iter().map(|o| Search::new(o, batch, &space, self.first_weight, threat)).collect();
        while !searches.is_empty() {
            let owners: Vec<usize> = searches.iter().map(|s| s.owner).collect();
            let x = joined(searches.iter().map(|s| s.point.as_slice()));
            let mut objective = |i: usize, z: &[f32], seed: &mut [f32]| {
                let label = batch.labels[owners[i]];
                if f64::from(margin(z, label)) + self.confidence > 0.0 {
                    Loss::Margin.of(z, label, 0, seed);
                }
            };
            let look = oracle.look(&owners, &x, &mut objective)?;
            let (len, k) = (batch.row_len(), batch.classes());
            for (i, s) in searches.iter_mut().enumerate() {
                let z = row(&look.logits, k, i);
                s.ahead = f64::from(margin(z, batch.labels[s.owner])) + self.confidence;
                if s.ahead <= 0.0 && best.see(s.owner, &s.point, z) {
                    s.found = true;
                }
            }
            searches.par_iter_mut().enumerate().for_each(|(i, s)| {
                s.advance(row(&look.gradient, len, i), &space, self, threat.norm);
            });
            searches.retain(|s| !s.over);
        }
        Ok(best.x)
    }
}

impl CarliniWagner {
    fn check(&self) -> Result<(), AttackError> {
        let fail = |name, value, allowed| Err(AttackError::Value { name, value, allowed });
        if !(1..=100_000).contains(&self.steps) {
            return fail("steps", self.steps as f64, "1 to 100000");
        }
        if !(1..=100).contains(&self.searches) {
            return fail("searches", self.searches as f64, "1 to 100");
        }
        if !(self.rate > 0.0 && self.rate.is_finite()) {
            return fail("rate", self.rate, "above 0");
        }
        if !(self.confidence >= 0.0 && self.confidence.is_finite()) {
            return fail("confidence", self.confidence, "0 or more");
        }
        if !(self.first_weight > 0.0 && self.first_weight.is_finite()) {
            return fail("first_weight", self.first_weight, "above 0");
        }
        Ok(())
    }
}

/// The change of variables `x = middle + half tanh(w)`, which keeps every point within the bounds (section V.B).
struct Space {
    middle: f32,
    half: f32,
}

impl Space {
    fn new(ball: &Ball) -> Self {
        Self { middle: 0.5 * (ball.high + ball.low), half: 0.5 * (ball.high - ball.low) }
    }

    fn inside(&self, x: f32) -> f32 {
        let t = if self.half > 0.0 { (x - self.middle) / self.half } else { 0.0 };
        (t.clamp(-1.0, 1.0) * INSIDE).atanh()
    }

    fn outside(&self, w: f32) -> f32 {
        self.middle + self.half * w.tanh()
    }
}

/// The search of one row.
struct Search {
    owner: usize,
    /// The clean row as the change of variables gives it back.
    origin: Vec<f32>,
    free: Vec<f32>,
    point: Vec<f32>,
    moments: Moments,
    weight: Weight,
    /// Allowed size of the change, for l-infinity.
    size: f64,
    least: f64,
    /// Margin plus confidence at the point.
    ahead: f64,
    step: usize,
    tried: usize,
    last: f64,
    found: bool,
    over: bool,
}

impl Search {
    fn new(owner: usize, batch: &Batch<'_>, space: &Space, first: f64, threat: &Threat) -> Self {
        let free: Vec<f32> = batch.row(owner).iter().map(|&x| space.inside(x)).collect();
        let origin: Vec<f32> = free.iter().map(|&w| space.outside(w)).collect();
        Self {
            owner,
            point: origin.clone(),
            origin,
            moments: Moments::new(free.len()),
            free,
            weight: Weight::new(first),
            size: threat.width(),
            least: LEAST * threat.width(),
            ahead: 0.0,
            step: 0,
            tried: 0,
            last: f64::INFINITY,
            found: false,
            over: false,
        }
    }

    /// One step of the descent; `gradient` is that of `max z_i - z_y`, zero where the wrong class is far enough ahead.
    fn advance(&mut self, gradient: &[f32], space: &Space, options: &CarliniWagner, norm: Norm) {
        let change = |i: usize| self.point[i] - self.origin[i];
        let n = self.point.len();
        let loss = self.ahead.max(0.0);
        let (size, slope): (f64, Box<dyn Fn(usize) -> f32>) = match norm {
            Norm::Linf => {
                let most = self.size as f32;
                let over = (0..n).map(|i| f64::from((change(i).abs() - most).max(0.0))).sum();
                let slope = move |d: f32| if d.abs() > most { d.signum() } else { 0.0 };
                let changes: Vec<f32> = (0..n).map(change).collect();
                (over, Box::new(move |i| slope(changes[i])))
            }
            _ => {
                let size = (0..n).map(|i| f64::from(change(i)).powi(2)).sum();
                let changes: Vec<f32> = (0..n).map(change).collect();
                (size, Box::new(move |i| 2.0 * changes[i]))
            }
        };
        if norm == Norm::Linf && loss == 0.0 && size == 0.0 {
            return self.shrink(options);
        }
        let c = self.weight.value as f32;
        let g: Vec<f32> = (0..n)
            .map(|i| {
                let t = if space.half > 0.0 { (self.point[i] - space.middle) / space.half } else { 0.0 };
                (slope(i) - c * gradient[i]) * space.half * (1.0 - t * t)
            })
            .collect();
        self.moments.descend(options.rate, &g, &mut self.free);
        self.point.iter_mut().zip(&self.free).for_each(|(x, w)| *x = space.outside(*w));
        self.step += 1;
        let total = size + self.weight.value * loss;
        let pause = (options.steps / 10).max(1);
        let mut stands = false;
        if self.step.is_multiple_of(pause) {
            stands = total > STANDS * self.last;
            self.last = total;
        }
        if stands || self.step >= options.steps {
            self.next(space, options, norm);
        }
    }

    /// The descent is over: another weight.
    fn next(&mut self, space: &Space, options: &CarliniWagner, norm: Norm) {
        self.tried += 1;
        if norm == Norm::Linf {
            // No success at this size: more weight, from where the descent is.
            self.weight.value *= 2.0;
            self.over = self.weight.value > MOST_WEIGHT;
        } else {
            self.weight.adjust(self.found);
            self.over = self.tried >= options.searches;
            self.free.iter_mut().zip(&self.origin).for_each(|(w, x)| *w = space.inside(*x));
            self.point.copy_from_slice(&self.origin);
        }
        self.found = false;
        self.restart();
    }

    /// A success with l-infinity: less is allowed.
    fn shrink(&mut self, options: &CarliniWagner) {
        let there = self.point.iter().zip(&self.origin).map(|(x, o)| f64::from((x - o).abs())).fold(0.0, f64::max);
        self.size = SHRINK * there.min(self.size);
        self.over = self.size < self.least;
        self.weight = Weight::new(self.weight.value.max(options.first_weight));
        self.restart();
    }

    fn restart(&mut self) {
        self.moments = Moments::new(self.free.len());
        self.step = 0;
        self.last = f64::INFINITY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adversarial::loss::is_right;
    use crate::adversarial::projection::distance;
    use crate::adversarial::test_support::{linear, run};

    #[test]
    fn on_a_linear_model_it_comes_near_the_smallest_change() {
        let model = linear(&[[0.0; 3], [0.5, -2.0, 1.0]], &[0.0, 0.5]);
        let x = [0.5, 0.5, 0.7];
        for (norm, best, slack) in [(Norm::L2, 0.45 / 5.25f64.sqrt(), 1.03), (Norm::Linf, 0.45 / 3.5, 1.15)] {
            let threat = Threat::new(norm, 10.0, [0.0, 1.0]).unwrap();
            let (y, z) = run(&CarliniWagner::default(), &model, &[3], &x, &[1], &threat, 0);
            let size = distance(norm, &x, &y);
            assert!(!is_right(&z, 1) && size >= best - 1e-5 && size < best * slack, "{norm}: {size}, {best}");
        }
    }

    #[test]
    fn with_confidence_the_wrong_class_is_that_far_ahead() {
        let model = linear(&[[0.0; 3], [0.5, -2.0, 1.0]], &[0.0, 0.5]);
        let threat = Threat::new(Norm::L2, 10.0, [0.0, 1.0]).unwrap();
        let attack = CarliniWagner { confidence: 0.3, ..CarliniWagner::default() };
        let (_, z) = run(&attack, &model, &[3], &[0.5, 0.5, 0.7], &[1], &threat, 0);
        assert!(z[0] - z[1] >= 0.3 - 1e-5, "{z:?}");
    }

    #[test]
    fn points_come_back_from_the_space_without_bounds() {
        let space = Space { middle: 0.5, half: 0.5 };
        for x in [0.0f32, 0.001, 0.37, 0.999, 1.0] {
            assert!((space.outside(space.inside(x)) - x).abs() < 1e-5, "{x}");
        }
    }
}
