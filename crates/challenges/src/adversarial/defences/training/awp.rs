//! Adversarial weight perturbation: the gradient where the weights, too, are moved to where the loss is larger.
//! Wu, Xia and Wang, NeurIPS 2020, arXiv:2004.05884, equations 7 to 10, with one step for the weights. It wraps another
//! rule of adversarial training (`of`). Checked against: a naive version.
//! Differs from the authors' program: the step of the weights is along the gradient itself, of length gamma times the norm
//! of each tensor, and weight decay acts on the unmoved weights. Loss and running statistics are those of the unmoved ones.

use netproof_tensor::Tensor;
use netproof_train::{Batch, Entry, Gradient, GradientRule, Method, Step, TrainError, combine, squared_norm};
use serde::Deserialize;
use serde_json::Value;

use super::{Adversarial, HALVES, refuse};

pub(super) const ENTRY: Entry<dyn GradientRule> = Entry {
    id: "awp",
    summary: "adversarial weight perturbation around another rule, `of` (Wu et al. 2020); takes another pass per step",
    build: |options, _| {
        let raw: Raw = options.read()?;
        let (_, build) = HALVES.iter().find(|(id, _)| *id == raw.of.kind).ok_or_else(|| TrainError::UnknownId {
            family: "gradient rule inside `awp`",
            id: raw.of.kind.clone(),
            known: HALVES.iter().map(|(id, _)| (*id).to_owned()).collect(),
        })?;
        // The authors' settings, for adversarial training and for TRADES.
        let (gamma, warm_up) = if raw.of.kind == "trades" { (0.005, 10) } else { (0.01, 0) };
        let gamma = raw.gamma.unwrap_or(gamma);
        if !(gamma > 0.0 && gamma.is_finite()) {
            return Err(refuse("gamma", gamma, "a number over 0"));
        }
        let warm_up_epochs = raw.warm_up_epochs.unwrap_or(warm_up);
        Ok(Box::new(Awp { gamma, warm_up_epochs, of: build((&raw.of.options).into())?, epochs: 0 }))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    of: Method,
    gamma: Option<f64>,
    warm_up_epochs: Option<u64>,
}

struct Awp {
    /// How far weights move, as part of the norm of their tensor.
    gamma: f64,
    /// Epochs in which they do not move.
    warm_up_epochs: u64,
    of: Box<dyn Adversarial>,
    /// Epochs that are done.
    epochs: u64,
}

impl GradientRule for Awp {
    fn gradient(&mut self, step: &mut Step<'_>, batch: &Batch) -> Result<Gradient, TrainError> {
        let attacked = self.of.attack(step, batch)?;
        let first = self.of.gradient_at(step, batch, &attacked)?;
        if self.epochs < self.warm_up_epochs {
            return Ok(first);
        }
        let kept = step.net.weights.clone();
        for (i, g) in first.tensors.iter().enumerate() {
            let weights = kept.tensors().get(i);
            // Biases and scales of normalisation stay, as in the authors' program.
            let (Some(g), Some(w)) = (g, weights.filter(|w| w.rank() > 1)) else { continue };
            let (g, w) = (g.as_f32().unwrap_or_default(), w.as_f32().unwrap_or_default());
            let (length, norm) = (squared_norm(g).sqrt(), squared_norm(w).sqrt());
            if length > 0.0 && length.is_finite() {
                let factor = (self.gamma * norm / length) as f32;
                combine(step.net.weights.values_mut(i), g, |w, g| w + factor * g);
            }
        }
        let moved = self.of.gradient_at(step, batch, &attacked);
        step.net.weights = kept;
        Ok(Gradient { tensors: moved?.tensors, ..first })
    }

    fn hardest(&self, step: &mut Step<'_>, batch: &Batch) -> Result<Option<Tensor>, TrainError> {
        self.of.validation().on_objective(step, batch).map(Some)
    }

    fn end_epoch(
        &mut self,
        _: &mut Step<'_>,
        _: &dyn Fn() -> Result<Batch, TrainError>,
    ) -> Result<Option<String>, TrainError> {
        self.epochs += 1;
        Ok(None)
    }

    fn state(&self) -> Value {
        self.epochs.into()
    }

    fn restore(&mut self, state: &Value) -> Result<(), String> {
        self.epochs = state.as_u64().ok_or("the number of epochs is missing")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{Linear, build_rule, flat, naive_cross_entropy, rows, with_step_mut};
    use super::*;

    fn method(gamma: f64, warm_up: i64) -> Method {
        let mut of = toml::Table::new();
        of.insert("kind".into(), "pgd-at".into());
        of.insert("epsilon".into(), 0.2.into());
        of.insert("bounds".into(), vec![-9.0, 9.0].into());
        of.insert("steps".into(), 1.into());
        of.insert("step_size".into(), 0.2.into());
        of.insert("start".into(), "row".into());
        Method::new("awp").with("gamma", gamma).with("warm_up_epochs", warm_up).with("of", of)
    }

    #[test]
    fn weights_move_along_the_gradient_and_come_back() {
        let mut linear = Linear::new(2);
        let (batch, labels) = rows(6, 2, 2);
        let (got, after) = with_step_mut(linear.net(), 1, |step| {
            let before = step.net.weights.clone();
            let g = build_rule(&method(0.3, 0)).gradient(step, &batch).unwrap();
            let same = before.tensors() == step.net.weights.tensors();
            (g, same)
        });
        assert!(after);
        let moved: Vec<f64> = batch
            .features
            .as_f32()
            .unwrap()
            .chunks(2)
            .zip(&labels)
            .flat_map(|(x, &y)| {
                let slope = |i| f64::from(linear.weight(1 - y, i) - linear.weight(y, i)).signum();
                [f64::from(x[0]) + 0.2 * slope(0), f64::from(x[1]) + 0.2 * slope(1)]
            })
            .collect();
        let (_, g) = naive_cross_entropy(&linear, &moved, &labels);
        // The matrix moves by 0.3 of its norm, the bias does not.
        let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
        let weights: Vec<f64> = linear.values[..4].to_vec();
        for (w, g4) in linear.values[..4].iter_mut().zip(&g[..4]) {
            *w += 0.3 * norm(&weights) / norm(&g[..4]) * g4;
        }
        let (_, want) = naive_cross_entropy(&linear, &moved, &labels);
        for (got, want) in flat(&got).iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-4, "{got} {want}");
        }
    }

    #[test]
    fn nothing_moves_while_it_warms_up() {
        let (batch, _) = rows(6, 2, 2);
        let one = |m: &Method, state: Option<Value>| {
            with_step_mut(Linear::new(2).net(), 1, |step| {
                let mut rule = build_rule(m);
                state.iter().for_each(|s| rule.restore(s).unwrap());
                flat(&rule.gradient(step, &batch).unwrap())
            })
        };
        assert_eq!(one(&method(0.3, 2), None), one(&method(0.1, 2), Some(1.into())));
        assert_ne!(one(&method(0.3, 2), None), one(&method(0.3, 2), Some(2.into())));
    }

    #[test]
    fn it_wraps_rules_that_attack_only() {
        let mut of = toml::Table::new();
        of.insert("kind".into(), "mean".into());
        let registry = crate::training_registry();
        let error = registry.rules.build(&Method::new("awp").with("of", of), &registry).err().unwrap().to_string();
        assert!(error.contains("pgd-at, trades, mart, fast"), "{error}");
    }
}
