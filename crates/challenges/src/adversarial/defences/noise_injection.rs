//! Noise in the weights of every layer while the network learns.
//! He, Rakin and Fan, CVPR 2019, arXiv:1811.09310, equation 2 with a fixed amplitude; together with adversarial training in
//! the paper, here by itself or around another rule (`of`). Checked against: a naive version.
//! Differs from the paper: the amplitude is not learnt, and the finished network has no noise, since a network that answers
//! by chance cannot be audited twice. Weak always: what noise hides from one gradient, the mean over several shows (Athalye
//! et al. 2018); without noise at the end only the flatter minimum is left.

use netproof_audit::{AuditError, Candidate, Case, Change, Context, Making, Remedy, Retraining};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;
use netproof_train::{Batch, Entry, Gradient, GradientRule, Method, Step, TrainError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) static CARD: Card = Card {
    id: "noise-injection",
    version: 1,
    kind: CardKind::Remedy,
    title: "Noise in layers",
    challenge: Challenge::Adversarial,
    measures: "Trains the network anew with Gaussian noise in the weights of every layer. Offered because it is asked for; it \
               helps little by itself.",
    reference: "He, Rakin and Fan, CVPR 2019, arXiv:1811.09310",
    needs: &[Need::Training],
    options: &[OptionDoc {
        name: "amplitudes",
        default: "[0.25]",
        doc: "Standard deviations of the noise in units of those of the weights of a layer, each a candidate, over 0.",
    }],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NoiseInjection {
    amplitudes: Vec<f64>,
}

impl Default for NoiseInjection {
    /// Where the paper lets the amplitude begin.
    fn default() -> Self {
        Self { amplitudes: vec![0.25] }
    }
}

impl Remedy for NoiseInjection {
    fn goals(&self) -> &'static [&'static str] {
        &["robust"]
    }

    fn propose(&self, _: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        let registry = crate::training_registry();
        let one = |&amplitude: &f64| {
            let method = Method::new(RULE.id).with("amplitude", amplitude);
            registry.rules.build(&method, &registry)?;
            let mut gradient = method.options;
            gradient.insert("kind".to_owned(), RULE.id.into());
            Ok(Candidate {
                name: format!("weight-noise-{amplitude}"),
                what: format!("Trains with noise of {amplitude} times the deviation of the weights of each layer."),
                making: Making::Train(Retraining::new([Change::set("gradient", gradient)])),
            })
        };
        self.amplitudes.iter().map(one).collect()
    }
}

pub(super) const RULE: Entry<dyn GradientRule> = Entry {
    id: "weight-noise",
    summary: "Gaussian noise in the weights of every layer, around another rule, `of` (He et al. 2019)",
    build: |options, registry| {
        let raw: Raw = options.read()?;
        if !(raw.amplitude > 0.0 && raw.amplitude.is_finite()) {
            let value = raw.amplitude.to_string();
            return Err(TrainError::Option { name: "amplitude", value, allowed: "a number over 0" });
        }
        Ok(Box::new(WeightNoise { amplitude: raw.amplitude, of: registry.rules.build(&raw.of, registry)? }))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    amplitude: f64,
    of: Method,
}

impl Default for Raw {
    fn default() -> Self {
        Self { amplitude: 0.25, of: Method::new("mean") }
    }
}

struct WeightNoise {
    amplitude: f64,
    of: Box<dyn GradientRule>,
}

impl GradientRule for WeightNoise {
    fn gradient(&mut self, step: &mut Step<'_>, batch: &Batch) -> Result<Gradient, TrainError> {
        let kept = step.net.weights.clone();
        for i in 0..kept.trainable() {
            let tensor = &kept.tensors()[i];
            if tensor.rank() < 2 || !step.active.contains(&kept.names()[i]) {
                continue;
            }
            let size = (self.amplitude * deviation(tensor.as_f32().unwrap_or_default())) as f32;
            let mut rng = Rng::stream(Rng::named(step.seed, RULE.id).next_u64(), i as u64 + 1);
            step.net.weights.values_mut(i).iter_mut().for_each(|w| *w += size * rng.normal() as f32);
        }
        let gradient = self.of.gradient(step, batch);
        step.net.weights = kept;
        gradient
    }

    fn finish(&mut self, step: &mut Step<'_>, total: &mut Gradient) -> Result<(), TrainError> {
        self.of.finish(step, total)
    }

    fn repeats(&self) -> u64 {
        self.of.repeats()
    }

    fn hardest(&self, step: &mut Step<'_>, batch: &Batch) -> Result<Option<Tensor>, TrainError> {
        self.of.hardest(step, batch)
    }

    fn end_epoch(
        &mut self,
        step: &mut Step<'_>,
        first: &dyn Fn() -> Result<Batch, TrainError>,
    ) -> Result<Option<String>, TrainError> {
        self.of.end_epoch(step, first)
    }

    fn counts(&self) -> bool {
        self.of.counts()
    }

    fn state(&self) -> Value {
        self.of.state()
    }

    fn restore(&mut self, state: &Value) -> Result<(), String> {
        self.of.restore(state)
    }
}

fn deviation(values: &[f32]) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::training::test_support::{Linear, build_rule, flat, naive_cross_entropy, rows, with_step_mut};
    use super::*;

    #[test]
    fn the_gradient_is_that_at_noisy_weights_which_come_back() {
        let mut linear = Linear::new(2);
        let (batch, labels) = rows(6, 2, 2);
        let method = Method::new("weight-noise").with("amplitude", 0.5);
        let (got, same) = with_step_mut(linear.net(), 7, |step| {
            let before = step.net.weights.clone();
            let got = build_rule(&method).gradient(step, &batch).unwrap();
            (got, before.tensors() == step.net.weights.tensors())
        });
        assert!(same);
        let mut rng = Rng::stream(Rng::named(7, "weight-noise").next_u64(), 1);
        let matrix: Vec<f32> = linear.values[..4].iter().map(|&v| v as f32).collect();
        let size = 0.5 * deviation(&matrix);
        linear.values[..4].iter_mut().for_each(|w| *w += size * rng.normal());
        let x: Vec<f64> = batch.features.as_f32().unwrap().iter().map(|&v| f64::from(v)).collect();
        let (_, want) = naive_cross_entropy(&linear, &x, &labels);
        for (got, want) in flat(&got).iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-4, "{got} {want}");
        }
    }
}
