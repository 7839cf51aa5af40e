//! MART: a boosted cross-entropy under attack, and a divergence that counts most for rows that are wrong as they are.
//! Wang et al., ICLR 2020 ("Improving adversarial robustness requires revisiting misclassified examples"), equations 8 to
//! 11; the preset is that of the authors' program. Checked against: a naive version with differences.
//! Differs from the authors' program: logarithms of probabilities have no constant added but those inside the margin. The
//! objective of the recipe judges answers and steers the attack; the loss is MART's own.

use netproof_tensor::Tensor;
use netproof_train::{Batch, Entry, Gradient, GradientRule, Options, Step, Sums, Target, TrainError, evaluate};
use serde::Deserialize;

use super::divergence::{kl, log_softmax, logits, slope_of_p, slope_of_q};
use super::inner::Inner;
use super::options::options;
use super::threat::{Start, pixels};
use super::trades::Pair;
use super::{Adversarial, Both, refuse};

pub(super) const ENTRY: Entry<dyn GradientRule> = Entry {
    id: "mart",
    summary: "adversarial training that looks at misclassified rows most (Wang et al. 2020); preset wang-cifar10",
    build: |options, _| Ok(Box::new(Both(build(options)?))),
};

/// Keeps the logarithm of the margin finite, as in the authors' program.
const MARGIN: f64 = 1.0001;
/// The same for the weight of a row.
const DOUBT: f64 = 1.000_000_1;

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Preset {
    #[default]
    WangCifar10,
}

impl Preset {
    fn values(self) -> (Inner, f64) {
        match self {
            Self::WangCifar10 => {
                let threat = pixels(0.031);
                (Inner { threat, steps: 10, step_size: 0.007, start: Start::Gaussian }, 6.0)
            }
        }
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
    Ok(Box::new(Mart { inner, validation, beta }))
}

struct Mart {
    inner: Inner,
    validation: Inner,
    /// λ of the paper.
    beta: f64,
}

impl Adversarial for Mart {
    fn attack(&self, step: &Step<'_>, batch: &Batch) -> Result<Tensor, TrainError> {
        self.inner.on_objective(step, batch)
    }

    fn gradient_at(&self, step: &Step<'_>, batch: &Batch, attacked: &Tensor) -> Result<Gradient, TrainError> {
        let runs = Pair::new(step, batch, attacked)?;
        let (judged, _) = evaluate(step.objective, &runs.answers[1], batch)?;
        let (width, clean) = logits("mart", &runs.answers[0])?;
        let (_, moved) = logits("mart", &runs.answers[1])?;
        let mut sums = Sums { loss: 0.0, weight: 0.0, ..judged };
        let (mut to_clean, mut to_attacked) = (Vec::with_capacity(clean.len()), Vec::with_capacity(moved.len()));
        for (r, (p, q)) in clean.chunks(width).zip(moved.chunks(width)).enumerate() {
            let Target::Class(y) = batch.targets.row(r) else {
                let message = "`mart` needs a class per row; leave out augmentations that mix rows".to_owned();
                return Err(TrainError::Mismatch { message });
            };
            let own = self.row(&log_softmax(p), &log_softmax(q), y);
            let weight = batch.weight(r);
            sums.loss += weight * own.loss;
            sums.weight += weight;
            to_clean.extend(own.to_clean.iter().map(|g| (weight * g) as f32));
            to_attacked.extend(own.to_attacked.iter().map(|g| (weight * g) as f32));
        }
        let to_clean = Tensor::f32(runs.answers[0].shape().to_vec(), to_clean)?;
        let to_attacked = Tensor::f32(runs.answers[1].shape().to_vec(), to_attacked)?;
        let mut gradient = runs.backward(step, [&to_clean, &to_attacked])?;
        gradient.sums = sums;
        Ok(gradient)
    }

    fn validation(&self) -> &Inner {
        &self.validation
    }
}

struct Row {
    loss: f64,
    to_clean: Vec<f64>,
    to_attacked: Vec<f64>,
}

impl Mart {
    /// `−log q_y − log(1 − max_{k≠y} q_k) + λ KL(p ‖ q) (1 − p_y)`, with both gradients.
    fn row(&self, log_p: &[f64], log_q: &[f64], y: usize) -> Row {
        let is = |i: usize, k: usize| f64::from(u8::from(i == k));
        let wrong = (0..log_q.len()).filter(|&k| k != y).max_by(|&a, &b| log_q[a].total_cmp(&log_q[b])).unwrap_or(0);
        let (q_wrong, p_y) = (log_q[wrong].exp(), log_p[y].exp());
        let margin = MARGIN - q_wrong;
        let (value, doubt) = (kl(log_p, log_q), DOUBT - p_y);
        let loss = -log_q[y] - margin.ln() + self.beta * value * doubt;
        let to_attacked = slope_of_q(log_p, log_q)
            .zip(log_q)
            .enumerate()
            .map(|(i, (s, q))| {
                let q = q.exp();
                (q - is(i, y)) + q_wrong * (is(i, wrong) - q) / margin + self.beta * doubt * s
            })
            .collect();
        let to_clean = slope_of_p(log_p, log_q, value)
            .zip(log_p)
            .enumerate()
            .map(|(i, (s, p))| self.beta * (doubt * s - value * p_y * (is(i, y) - p.exp())))
            .collect();
        Row { loss, to_clean, to_attacked }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{Linear, differences, flat, rows, with_step};
    use super::*;

    #[test]
    fn the_gradient_is_the_slope_of_the_definition() {
        let mut linear = Linear::new(3);
        let (batch, labels) = rows(5, 2, 3);
        let clean: Vec<f64> = batch.features.as_f32().unwrap().iter().map(|&v| f64::from(v)).collect();
        let moved: Vec<f64> = clean.iter().enumerate().map(|(i, v)| v + 0.3 * (i as f64).cos()).collect();
        let attacked = Tensor::f32(vec![5, 2], moved.iter().map(|&v| v as f32).collect()).unwrap();
        let naive = |l: &Linear| -> f64 {
            let mut loss = 0.0;
            for ((x, a), &y) in clean.chunks(2).zip(moved.chunks(2)).zip(&labels) {
                let (p, q) = (l.probabilities(x), l.probabilities(a));
                let wrong = q.iter().enumerate().filter(|(k, _)| *k != y).map(|(_, v)| *v).fold(0.0, f64::max);
                let kl: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
                loss += -q[y].ln() - (1.0001 - wrong).ln() + 5.0 * kl * (1.000_000_1 - p[y]);
            }
            loss
        };
        let inner = Preset::WangCifar10.values().0;
        let own = Mart { inner, validation: inner, beta: 5.0 };
        let got = with_step(linear.net(), 1, |step| own.gradient_at(step, &batch, &attacked).unwrap());
        assert!((got.sums.loss - naive(&linear)).abs() < 1e-4);
        assert_eq!(got.sums.weight, 5.0);
        let want = differences(&mut linear, naive);
        for (got, want) in flat(&got).iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-3, "{got} {want}");
        }
    }

    #[test]
    fn certain_answers_stay_finite() {
        let inner = Preset::WangCifar10.values().0;
        let own = Mart { inner, validation: inner, beta: 5.0 };
        let row = own.row(&log_softmax(&[900.0, -900.0]), &log_softmax(&[-900.0, 900.0]), 0);
        assert!(row.loss.is_finite() && row.to_clean.iter().chain(&row.to_attacked).all(|g| g.is_finite()));
    }
}
