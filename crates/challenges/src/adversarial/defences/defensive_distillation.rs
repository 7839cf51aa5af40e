//! Defensive distillation: a network learns at a high temperature from another one's answers at that temperature, and
//! answers at temperature 1.
//! Papernot, McDaniel, Wu, Jha and Swami, IEEE S&P 2016, arXiv:1511.04508, section IV; temperature 20 is theirs for MNIST.
//! Checked against: a naive gradient, resumption. Both networks have the same shape and, here, the same first weights.
//! Weak always: logits become about as many times larger as the temperature says, so that softmax saturates and its gradient
//! vanishes; an attack on the logits is as good as before (Carlini and Wagner, IEEE S&P 2017, arXiv:1608.04644).

use netproof_audit::{AuditError, Candidate, Case, Change, Context, Making, Remedy, Retraining};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_tensor::Tensor;
use netproof_train::{Batch, Entry, Gradient, GradientRule, Method, Step, Sums, Target, TrainError, Weights};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::training::divergence::{log_softmax, logits};

pub(crate) static CARD: Card = Card {
    id: "defensive-distillation",
    version: 1,
    kind: CardKind::Remedy,
    title: "Defensive distillation",
    challenge: Challenge::Adversarial,
    measures: "Trains the network anew at a high temperature, and once more on what it then answers. Offered because it is \
               asked for; it hides gradients behind a saturated softmax and does little else.",
    reference: "Papernot, McDaniel, Wu, Jha and Swami, IEEE S&P 2016, arXiv:1511.04508",
    needs: &[Need::Training, Need::Classifier],
    options: &[OptionDoc {
        name: "temperatures",
        default: "[20.0]",
        doc: "Temperatures, each a candidate, at least 1.",
    }],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DefensiveDistillation {
    temperatures: Vec<f64>,
}

impl Default for DefensiveDistillation {
    fn default() -> Self {
        Self { temperatures: vec![20.0] }
    }
}

impl Remedy for DefensiveDistillation {
    fn goals(&self) -> &'static [&'static str] {
        &["robust"]
    }

    fn propose(&self, case: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        let Some(training) = case.training() else { return Ok(Vec::new()) };
        let registry = crate::training_registry();
        let epochs = i64::try_from(training.recipe().epochs).unwrap_or(i64::MAX / 2);
        let one = |&temperature: &f64| {
            let method = Method::new(RULE.id).with("temperature", temperature).with("teacher_epochs", epochs);
            registry.rules.build(&method, &registry)?;
            let mut gradient = method.options;
            gradient.insert("kind".to_owned(), RULE.id.into());
            // The second network shall not begin where the rate of the first one has ended.
            let mut constant = toml::Table::new();
            constant.insert("kind".to_owned(), "constant".into());
            Ok(Candidate {
                name: format!("distilled-{temperature}"),
                what: format!(
                    "Trains a teacher and then the network on its answers, both at temperature {temperature}."
                ),
                making: Making::Train(Retraining::new([
                    Change::set("gradient", gradient),
                    Change::set("epochs", 2 * epochs),
                    Change::set("schedule", constant),
                    Change::set("monitor", "accuracy"),
                ])),
            })
        };
        self.temperatures.iter().map(one).collect()
    }
}

pub(super) const RULE: Entry<dyn GradientRule> = Entry {
    id: "distillation",
    summary: "defensive distillation (Papernot et al. 2016): `teacher_epochs` at a high `temperature`, then anew on the \
              teacher's answers",
    build: |options, _| {
        let raw: Raw = options.read()?;
        let refuse = |name, value: String, allowed| Err(TrainError::Option { name, value, allowed });
        if !(raw.temperature >= 1.0 && raw.temperature.is_finite()) {
            return refuse("temperature", raw.temperature.to_string(), "1 or more");
        }
        if raw.teacher_epochs == 0 {
            return refuse("teacher_epochs", "0".to_owned(), "1 or more, and fewer than `epochs`");
        }
        Ok(Box::new(Distillation { raw, epochs: 0, initial: Kept::default(), teacher: Kept::default() }))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    temperature: f64,
    teacher_epochs: u64,
}

impl Default for Raw {
    fn default() -> Self {
        Self { temperature: 20.0, teacher_epochs: 5 }
    }
}

/// Weights, or the bits of weights that a checkpoint held.
#[derive(Default)]
struct Kept {
    weights: Option<Weights>,
    bits: Option<Vec<f32>>,
}

impl Kept {
    fn set(&mut self, weights: Weights) {
        (self.weights, self.bits) = (Some(weights), None);
    }

    /// The weights; `like` gives names and shapes to what a checkpoint held.
    fn get(&mut self, like: &Weights) -> Option<&Weights> {
        if let Some(bits) = self.bits.take() {
            let mut weights = like.clone();
            let mut rest = bits.as_slice();
            for i in 0..like.names().len() {
                let own = weights.values_mut(i);
                let (now, later) = rest.split_at(own.len().min(rest.len()));
                own[..now.len()].copy_from_slice(now);
                rest = later;
            }
            self.weights = Some(weights);
        }
        self.weights.as_ref()
    }

    fn state(&self) -> Value {
        let all: Option<Vec<f32>> = match (&self.weights, &self.bits) {
            (Some(w), _) => Some(w.tensors().iter().flat_map(|t| t.as_f32().unwrap_or_default().to_vec()).collect()),
            (None, bits) => bits.clone(),
        };
        all.map_or(Value::Null, |v| Value::String(v.iter().map(|x| format!("{:08x}", x.to_bits())).collect()))
    }

    fn restore(state: &Value) -> Result<Self, String> {
        let Some(text) = state.as_str() else { return Ok(Self::default()) };
        if !text.is_ascii() || text.len() % 8 != 0 {
            return Err("weights are cut off".to_owned());
        }
        let digits = (0..text.len()).step_by(8).map(|i| u32::from_str_radix(&text[i..i + 8], 16).map(f32::from_bits));
        Ok(Self { weights: None, bits: Some(digits.collect::<Result<_, _>>().map_err(|e| e.to_string())?) })
    }
}

struct Distillation {
    raw: Raw,
    /// Epochs that are done.
    epochs: u64,
    /// The weights that both networks begin with.
    initial: Kept,
    teacher: Kept,
}

impl Distillation {
    fn teaches(&self) -> bool {
        self.epochs < self.raw.teacher_epochs
    }
}

impl GradientRule for Distillation {
    fn gradient(&mut self, step: &mut Step<'_>, batch: &Batch) -> Result<Gradient, TrainError> {
        if self.teaches() && self.initial.get(&step.net.weights).is_none() {
            self.initial.set(step.net.weights.clone());
        }
        let t = self.raw.temperature;
        let at = |z: &[f32]| log_softmax(&z.iter().map(|&z| (f64::from(z) / t) as f32).collect::<Vec<_>>());
        let taught: Option<Tensor> = if self.teaches() {
            None
        } else {
            let like = step.net.weights.clone();
            self.teacher.get(&like).map(|w| step.net.answers(w, &batch.features)).transpose()?
        };
        let run = step.forward(&batch.features, step.seed)?;
        let answers = run.output(step.net.output())?;
        let (k, values) = logits(RULE.id, &answers)?;
        let mut sums = Sums { rows: batch.len() as u64, ..Sums::default() };
        let mut slopes = Vec::with_capacity(values.len());
        for (r, z) in values.chunks(k).enumerate() {
            let log_q = at(z);
            let target: Vec<f64> = match (&taught, batch.targets.row(r)) {
                (Some(answers), _) => {
                    let own = &answers.as_f32().unwrap_or_default()[r * k..(r + 1) * k];
                    at(own).iter().map(|l| l.exp()).collect()
                }
                (None, Target::Class(y)) => (0..k).map(|i| f64::from(u8::from(i == y))).collect(),
                (None, Target::Soft(p)) => p.iter().map(|&p| f64::from(p)).collect(),
                (None, Target::Number(_)) => {
                    let message = "`distillation` needs classes, the data have numbers".to_owned();
                    return Err(TrainError::Mismatch { message });
                }
            };
            let weight = batch.weight(r);
            sums.loss -=
                weight * target.iter().zip(&log_q).map(|(t, l)| if *t > 0.0 { t * l } else { 0.0 }).sum::<f64>();
            sums.weight += weight;
            let right = step.objective.is_correct(z, batch.targets.row(r));
            sums.judged += u64::from(right.is_some());
            sums.correct += u64::from(right == Some(true));
            slopes.extend(target.iter().zip(&log_q).map(|(p, l)| (weight * (l.exp() - p) / t) as f32));
        }
        let seed = Tensor::f32(answers.shape().to_vec(), slopes)?;
        Ok(Gradient { tensors: step.backward(&run, &seed)?, sums, statistics: run.updates()? })
    }

    fn end_epoch(
        &mut self,
        step: &mut Step<'_>,
        _: &dyn Fn() -> Result<Batch, TrainError>,
    ) -> Result<Option<String>, TrainError> {
        self.epochs += 1;
        if self.epochs == self.raw.teacher_epochs {
            let learnt = step.net.weights.clone();
            if let Some(initial) = self.initial.get(&learnt) {
                step.net.weights = initial.clone();
            }
            self.teacher.set(learnt);
            self.initial = Kept::default();
        }
        Ok(None)
    }

    /// Weights of the teacher are not what the training is for.
    fn counts(&self) -> bool {
        self.epochs > self.raw.teacher_epochs
    }

    fn state(&self) -> Value {
        json!({ "epochs": self.epochs, "initial": self.initial.state(), "teacher": self.teacher.state() })
    }

    fn restore(&mut self, state: &Value) -> Result<(), String> {
        self.epochs = state["epochs"].as_u64().ok_or("the number of epochs is missing")?;
        self.initial = Kept::restore(&state["initial"])?;
        self.teacher = Kept::restore(&state["teacher"])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::training::test_support::{Linear, build_rule, differences, flat, rows, with_step_mut};
    use super::*;

    fn naive(linear: &Linear, teacher: Option<&Linear>, x: &[f64], labels: &[usize], t: f64) -> f64 {
        let warm = |l: &Linear, x: &[f64]| {
            let p: Vec<f64> = l.probabilities(x).iter().map(|p| p.powf(1.0 / t)).collect();
            let sum: f64 = p.iter().sum();
            p.iter().map(|p| p / sum).collect::<Vec<f64>>()
        };
        let one = |(x, &y): (&[f64], &usize)| -> f64 {
            let q = warm(linear, x);
            match teacher {
                None => -q[y].ln(),
                Some(teacher) => -warm(teacher, x).iter().zip(q).map(|(p, q)| p * q.ln()).sum::<f64>(),
            }
        };
        x.chunks(2).zip(labels).map(one).sum()
    }

    #[test]
    fn both_gradients_are_slopes_of_the_definition() {
        let mut linear = Linear::new(3);
        let (batch, labels) = rows(5, 2, 3);
        let x: Vec<f64> = batch.features.as_f32().unwrap().iter().map(|&v| f64::from(v)).collect();
        let method = Method::new("distillation").with("temperature", 4.0).with("teacher_epochs", 1);
        let mut rule = build_rule(&method);
        let got = with_step_mut(linear.net(), 1, |step| rule.gradient(step, &batch).unwrap());
        assert!((got.sums.loss - naive(&linear, None, &x, &labels, 4.0)).abs() < 1e-4);
        let want = differences(&mut linear, |l| naive(l, None, &x, &labels, 4.0));
        for (got, want) in flat(&got).iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-3, "{got} {want}");
        }
        // The teacher is what was learnt; the student begins where the teacher began.
        let mut taught = Linear::new(3);
        taught.values.iter_mut().for_each(|v| *v *= -0.5);
        let begins = with_step_mut(taught.net(), 1, |step| {
            rule.end_epoch(step, &|| Ok(batch.clone())).unwrap();
            step.net.weights.clone()
        });
        assert_eq!(begins.tensors(), linear.net().weights.tensors());
        let mut again = build_rule(&method);
        again.restore(&rule.state()).unwrap();
        let got = with_step_mut(linear.net(), 1, |step| again.gradient(step, &batch).unwrap());
        let want = differences(&mut linear, |l| naive(l, Some(&taught), &x, &labels, 4.0));
        for (got, want) in flat(&got).iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-3, "{got} {want}");
        }
        assert!(!rule.counts());
    }
}
