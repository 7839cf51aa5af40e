//! Free adversarial training: each batch is taken several times; the same walk back serves weights and perturbation, and
//! the perturbation goes on to the next batch.
//! Shafahi et al., NeurIPS 2019, arXiv:1904.12843, algorithm 1. Checked against: a naive version, resumption.
//! An epoch of the recipe takes `replays` times as many steps; divide the number of epochs accordingly. Since passes are
//! shared, the attack sees training mode. As in the authors' program, the slope is 0 for features that the bounds cut off.

use netproof_tensor::Tensor;
use netproof_train::{Batch, Entry, Gradient, GradientRule, Step, TrainError, evaluate};
use serde::Deserialize;
use serde_json::Value;

use super::inner::Inner;
use super::options::options;
use super::refuse;
use super::threat::{Start, check_rows, pixels};
use crate::adversarial::ascent::step as ascend;
use crate::adversarial::projection::Ball;

pub(super) const ENTRY: Entry<dyn GradientRule> = Entry {
    id: "free",
    summary: "adversarial training for the price of more epochs (Shafahi et al. 2019); preset shafahi-cifar10",
    build: |options, _| {
        let own = Raw::read(options)?;
        let (preset, replays) = own.preset.unwrap_or_default().values();
        if own.steps.is_some() || own.start.is_some() {
            return Err(refuse("steps", "given", "nothing: `free` takes one step per replay, from where it is"));
        }
        let [inner, validation] = own.attacks(preset)?;
        let replays = own.replays.unwrap_or(replays);
        if replays == 0 {
            return Err(refuse("replays", 0, "1 or more"));
        }
        Ok(Box::new(Free { inner, validation, replays, perturbation: Vec::new() }))
    },
};

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Preset {
    #[default]
    ShafahiCifar10,
}

impl Preset {
    fn values(self) -> (Inner, u64) {
        match self {
            Self::ShafahiCifar10 => {
                let epsilon = 8.0 / 255.0;
                (Inner { threat: pixels(epsilon), steps: 1, step_size: epsilon, start: Start::Row }, 8)
            }
        }
    }
}

options!(Raw, Preset { replays: u64 });

struct Free {
    inner: Inner,
    validation: Inner,
    /// How often each batch is taken.
    replays: u64,
    /// One per place in the batch, not per row of the data.
    perturbation: Vec<f32>,
}

impl GradientRule for Free {
    fn gradient(&mut self, step: &mut Step<'_>, batch: &Batch) -> Result<Gradient, TrainError> {
        let threat = self.inner.threat;
        check_rows(&threat, batch)?;
        let rows = batch.features.as_f32().unwrap_or_default();
        if self.perturbation.len() < rows.len() {
            self.perturbation.resize(rows.len(), 0.0);
        }
        let [low, high] = threat.bounds.map(|b| b as f32);
        let mut attacked = batch.clone();
        let own = attacked.features.as_f32_mut().unwrap_or_default();
        own.iter_mut().zip(&self.perturbation).for_each(|(x, p)| *x = (*x + p).clamp(low, high));
        let run = step.forward_with_input(&attacked.features, step.seed)?;
        let (sums, seed) = evaluate(step.objective, &run.output(step.net.output())?, &attacked)?;
        let (tensors, slope) = step.backward_with_input(&run, &seed)?;
        if let Some(slope) = &slope {
            let width = batch.features.row_len().max(1);
            let each = self.perturbation.chunks_mut(width).zip(rows.chunks(width));
            let zero = vec![0.0; width];
            let ball = Ball { low: f32::NEG_INFINITY, high: f32::INFINITY, ..Ball::from(&threat) };
            for ((p, x), g) in each.zip(slope.as_f32().unwrap_or_default().chunks(width)) {
                let free = |p: f32, x: f32| (low..=high).contains(&(x + p));
                let g: Vec<f32> = g.iter().enumerate().map(|(i, &g)| if free(p[i], x[i]) { g } else { 0.0 }).collect();
                ascend(&ball, &g, self.inner.step_size as f32, p);
                // The perturbation itself stays in the ball; bounds hold for the row that it belongs to next.
                ball.project(&zero, p);
            }
        }
        Ok(Gradient { tensors, sums, statistics: run.updates()? })
    }

    fn repeats(&self) -> u64 {
        self.replays
    }

    fn hardest(&self, step: &mut Step<'_>, batch: &Batch) -> Result<Option<Tensor>, TrainError> {
        self.validation.on_objective(step, batch).map(Some)
    }

    /// Bits in hexadecimal digits, so that a resumed training has the same.
    fn state(&self) -> Value {
        Value::String(self.perturbation.iter().map(|p| format!("{:08x}", p.to_bits())).collect())
    }

    fn restore(&mut self, state: &Value) -> Result<(), String> {
        let text = state.as_str().filter(|s| s.is_ascii() && s.len() % 8 == 0).ok_or("the perturbation is missing")?;
        let digits = (0..text.len()).step_by(8).map(|i| u32::from_str_radix(&text[i..i + 8], 16));
        self.perturbation =
            digits.map(|b| b.map(f32::from_bits)).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{Linear, build_rule, flat, naive_cross_entropy, rows, with_step_mut};
    use netproof_train::Method;

    #[test]
    fn the_perturbation_grows_with_each_replay_and_stays_in_the_ball() {
        let linear = Linear::new(2);
        let (batch, labels) = rows(6, 2, 2);
        let method = Method::new("free").with("epsilon", 0.2).with("bounds", vec![-9.0, 9.0]).with("step_size", 0.15);
        let mut rule = build_rule(&method);
        assert_eq!(rule.repeats(), 8);
        for reach in [0.0, 0.15, 0.2, 0.2] {
            let got = with_step_mut(linear.net(), 1, |step| rule.gradient(step, &batch).unwrap());
            let moved: Vec<f64> = batch
                .features
                .as_f32()
                .unwrap()
                .chunks(2)
                .zip(&labels)
                .flat_map(|(x, &y)| {
                    let slope = |i| f64::from(linear.weight(1 - y, i) - linear.weight(y, i)).signum();
                    [f64::from(x[0]) + reach * slope(0), f64::from(x[1]) + reach * slope(1)]
                })
                .collect();
            let (_, want) = naive_cross_entropy(&linear, &moved, &labels);
            for (got, want) in flat(&got).iter().zip(want) {
                assert!((f64::from(*got) - want).abs() < 1e-4, "{reach}: {got} {want}");
            }
            let mut again = build_rule(&method);
            again.restore(&rule.state()).unwrap();
            rule = again;
        }
    }
}
