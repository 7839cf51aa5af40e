//! TRADES: the objective on the rows as they are, and beta times how far an attack can move the answers.
//! Zhang et al., ICML 2019, arXiv:1901.08573, equation 3 and algorithm 1; presets are those of its MNIST and CIFAR-10
//! experiments. Checked against: a naive version with differences, the definition of the divergence.
//! Differs from the authors' program: answers to the rows as they are are computed once per batch, not in every inner
//! step; the start is within the bounds; running statistics are the mean of both passes.

use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;
use netproof_train::{Batch, Entry, Gradient, GradientRule, Options, Step, TrainError, evaluate};
use serde::Deserialize;

use super::divergence::{kl, log_softmax, logits, slope_of_p, slope_of_q};
use super::inner::Inner;
use super::options::options;
use super::threat::{Start, pixels};
use super::{Adversarial, Both, refuse};

pub(super) const ENTRY: Entry<dyn GradientRule> = Entry {
    id: "trades",
    summary: "the objective plus beta times how far an attack moves the answers (Zhang et al. 2019); presets zhang-mnist, \
              zhang-cifar10",
    build: |options, _| Ok(Box::new(Both(build(options)?))),
};

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Preset {
    #[default]
    ZhangMnist,
    ZhangCifar10,
}

impl Preset {
    fn values(self) -> (Inner, f64) {
        let (epsilon, steps, step_size, beta) = match self {
            Self::ZhangMnist => (0.3, 40, 0.01, 1.0),
            Self::ZhangCifar10 => (0.031, 10, 0.007, 6.0),
        };
        (Inner { threat: pixels(epsilon), steps, step_size, start: Start::Gaussian }, beta)
    }
}

options!(Raw, Preset { beta: f64 });

pub(super) fn build(options: Options<'_>) -> Result<Box<dyn Adversarial>, TrainError> {
    let own = Raw::read(options)?;
    let (preset, beta) = own.preset.unwrap_or_default().values();
    let [inner, validation] = own.attacks(preset)?;
    let beta = own.beta.unwrap_or(beta);
    if !(beta >= 0.0 && beta.is_finite()) {
        return Err(refuse("beta", beta, "0 or more"));
    }
    Ok(Box::new(Trades { inner, validation, beta }))
}

struct Trades {
    inner: Inner,
    validation: Inner,
    /// 1/λ of the paper.
    beta: f64,
}

impl Adversarial for Trades {
    fn attack(&self, step: &Step<'_>, batch: &Batch) -> Result<Tensor, TrainError> {
        let clean = step.net.answers(&step.net.weights, &batch.features)?;
        let (width, values) = logits("trades", &clean)?;
        let log_p: Vec<Vec<f64>> = values.chunks(width).map(log_softmax).collect();
        self.inner.maximise(step, batch, |answers| {
            let (width, values) = logits("trades", answers)?;
            let slope = values.chunks(width).zip(&log_p).flat_map(|(row, p)| {
                let q = log_softmax(row);
                slope_of_q(p, &q).map(|g| g as f32).collect::<Vec<_>>()
            });
            Ok(Tensor::f32(answers.shape().to_vec(), slope.collect())?)
        })
    }

    fn gradient_at(&self, step: &Step<'_>, batch: &Batch, attacked: &Tensor) -> Result<Gradient, TrainError> {
        let runs = Pair::new(step, batch, attacked)?;
        let (mut sums, mut of_clean) = evaluate(step.objective, &runs.answers[0], batch)?;
        // What the training sees as right is what is right under attack.
        let (judged, mut of_attacked) = evaluate(step.objective, &runs.answers[1], batch)?;
        (sums.judged, sums.correct) = (judged.judged, judged.correct);
        let (width, clean) = logits("trades", &runs.answers[0])?;
        let (_, moved) = logits("trades", &runs.answers[1])?;
        let slopes = of_clean.as_f32_mut().unwrap_or_default().chunks_mut(width);
        let slopes = slopes.zip(of_attacked.as_f32_mut().unwrap_or_default().chunks_mut(width));
        for (r, ((to_clean, to_attacked), (p, q))) in
            slopes.zip(clean.chunks(width).zip(moved.chunks(width))).enumerate()
        {
            let (p, q) = (log_softmax(p), log_softmax(q));
            let weight = self.beta * batch.weight(r);
            let value = kl(&p, &q);
            sums.loss += weight * value;
            to_clean.iter_mut().zip(slope_of_p(&p, &q, value)).for_each(|(g, s)| *g += (weight * s) as f32);
            to_attacked.iter_mut().zip(slope_of_q(&p, &q)).for_each(|(g, s)| *g = (weight * s) as f32);
        }
        let mut gradient = runs.backward(step, [&of_clean, &of_attacked])?;
        gradient.sums = sums;
        Ok(gradient)
    }

    fn validation(&self) -> &Inner {
        &self.validation
    }
}

/// The rows as they are and as an attack changed them, through the network in training mode.
pub(super) struct Pair<'a> {
    runs: [netproof_graph::Run<'a>; 2],
    pub(super) answers: [Tensor; 2],
}

impl<'a> Pair<'a> {
    pub(super) fn new(step: &'a Step<'_>, batch: &Batch, attacked: &Tensor) -> Result<Self, TrainError> {
        // Each pass drops other units, as two passes do.
        let second = Rng::named(step.seed, "attacked").next_u64();
        let runs = [step.forward(&batch.features, step.seed)?, step.forward(attacked, second)?];
        let answers = [runs[0].output(step.net.output())?, runs[1].output(step.net.output())?];
        Ok(Self { runs, answers })
    }

    /// The sum of both gradients. The new running statistics are the mean of both passes, as one update with the mean of
    /// the statistics of both batches gives them.
    pub(super) fn backward(&self, step: &Step<'_>, seeds: [&Tensor; 2]) -> Result<Gradient, TrainError> {
        let one = |i: usize| -> Result<Gradient, TrainError> {
            let tensors = step.backward(&self.runs[i], seeds[i])?;
            Ok(Gradient { tensors, statistics: self.runs[i].updates()?, ..Gradient::default() })
        };
        let (mut total, attacked) = (one(0)?, one(1)?);
        let mut statistics = std::mem::take(&mut total.statistics);
        for ((_, own), (_, other)) in statistics.iter_mut().zip(&attacked.statistics) {
            let other = other.as_f32().unwrap_or_default();
            let own = own.as_f32_mut().unwrap_or_default();
            own.iter_mut().zip(other).for_each(|(a, b)| *a = 0.5 * (*a + b));
        }
        total.add(attacked);
        total.statistics = statistics;
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{Linear, build_rule, differences, flat, rows, with_step, with_step_mut};
    use super::*;
    use netproof_train::Method;

    fn naive(linear: &Linear, clean: &[f64], moved: &[f64], labels: &[usize], beta: f64) -> f64 {
        let mut loss = 0.0;
        for ((x, a), &y) in clean.chunks(2).zip(moved.chunks(2)).zip(labels) {
            let (p, q) = (linear.probabilities(x), linear.probabilities(a));
            loss -= p[y].ln();
            loss += beta * p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
        }
        loss
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_definition() {
        let mut linear = Linear::new(3);
        let (batch, labels) = rows(5, 2, 3);
        let clean: Vec<f64> = batch.features.as_f32().unwrap().iter().map(|&v| f64::from(v)).collect();
        let moved: Vec<f64> = clean.iter().enumerate().map(|(i, v)| v + 0.3 * (i as f64).cos()).collect();
        let attacked = Tensor::f32(vec![5, 2], moved.iter().map(|&v| v as f32).collect()).unwrap();
        let inner = Preset::ZhangMnist.values().0;
        let own = Trades { inner, validation: inner, beta: 2.5 };
        let got = with_step(linear.net(), 1, |step| own.gradient_at(step, &batch, &attacked).unwrap());
        assert!((got.sums.loss - naive(&linear, &clean, &moved, &labels, 2.5)).abs() < 1e-4);
        let want = differences(&mut linear, |l| naive(l, &clean, &moved, &labels, 2.5));
        for (got, want) in flat(&got).iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-3, "{got} {want}");
        }
    }

    /// The attack climbs the divergence, not the objective: labels make no difference to it.
    #[test]
    fn labels_do_not_steer_the_attack() {
        let method = Method::new("trades").with("epsilon", 0.3).with("bounds", vec![-9.0, 9.0]).with("beta", 0.0);
        let linear = Linear::new(3);
        let (batch, labels) = rows(5, 2, 3);
        let mut other = batch.clone();
        other.targets = netproof_train::Targets::Classes(labels.iter().map(|y| (y + 1) % 3).collect());
        let (preset, beta) = Preset::ZhangMnist.values();
        let threat = super::super::threat::Threat { bounds: [-9.0, 9.0], ..preset.threat };
        let own = Trades { inner: Inner { threat, ..preset }, validation: preset, beta };
        let attack = |b: &Batch| with_step(linear.net(), 4, |step| own.attack(step, b).unwrap());
        let changed = attack(&batch);
        assert_eq!(changed, attack(&other));
        let far = changed.as_f32().unwrap().iter().zip(batch.features.as_f32().unwrap()).map(|(a, b)| (a - b).abs());
        assert!(far.fold(0.0, f32::max) > 0.29);
        // Without the second term it is the plain gradient.
        let mean = |m: &Method| with_step_mut(linear.net(), 4, |step| build_rule(m).gradient(step, &batch).unwrap());
        for (a, b) in flat(&mean(&method)).iter().zip(flat(&mean(&Method::new("mean")))) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}
