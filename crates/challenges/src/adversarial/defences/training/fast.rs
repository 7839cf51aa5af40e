//! Fast adversarial training: one signed step from a random start, and a watch over catastrophic overfitting.
//! Wong, Rice and Kolter, ICLR 2020, arXiv:2001.03994, algorithm 3 and section 5.3 (the watch); presets are those of its
//! MNIST and CIFAR-10 experiments. Checked against: the closed form on a linear network, a naive version.
//! Differs from the paper: the attack runs in evaluation mode; the watch takes 20 steps, since 5 of a quarter of epsilon miss
//! the fall on MNIST, and a fall must last for two epochs, since at the top of the learning rate there are some that mend
//! by themselves. Weak when: the network learns to be flat where a single step looks; then accuracy under an attack of
//! several steps falls and stays low, the training ends, and the weights of that epoch are not taken.

use netproof_tensor::Tensor;
use netproof_train::{Batch, Entry, Gradient, GradientRule, Options, Step, TrainError, evaluate};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::inner::Inner;
use super::options::options;
use super::threat::{Start, pixels};
use super::{Adversarial, objective_at, refuse};

pub(super) const ENTRY: Entry<dyn GradientRule> = Entry {
    id: "fast",
    summary: "adversarial training with one signed step from a random start (Wong et al. 2020), ended at catastrophic \
              overfitting; presets wong-mnist, wong-cifar10",
    build: |options, _| Ok(Box::new(build(options)?)),
};

/// Steps of the watch.
const WATCH_STEPS: usize = 20;

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Preset {
    #[default]
    WongMnist,
    WongCifar10,
}

impl Preset {
    fn inner(self) -> Inner {
        // The step is 1.25 times epsilon in both.
        let (epsilon, step_size) = match self {
            Self::WongMnist => (0.3, 0.375),
            Self::WongCifar10 => (8.0 / 255.0, 10.0 / 255.0),
        };
        Inner { threat: pixels(epsilon), steps: 1, step_size, start: Start::Ball }
    }
}

/// Epochs that a fall must last.
const PATIENCE: usize = 2;

options!(Raw, Preset { watch_steps: usize, largest_fall: f64, patience: usize });

pub(super) fn build_halves(options: Options<'_>) -> Result<Box<dyn Adversarial>, TrainError> {
    Ok(Box::new(build(options)?))
}

fn build(options: Options<'_>) -> Result<Fast, TrainError> {
    let own = Raw::read(options)?;
    let [inner, validation] = own.attacks(own.preset.unwrap_or_default().inner())?;
    let watch_steps = own.watch_steps.unwrap_or(WATCH_STEPS);
    if watch_steps == 0 {
        return Err(refuse("watch_steps", 0, "1 or more"));
    }
    let largest_fall = own.largest_fall.unwrap_or(0.2);
    if !(0.0..=1.0).contains(&largest_fall) {
        return Err(refuse("largest_fall", largest_fall, "0 to 1; at 1 nothing is watched"));
    }
    let patience = own.patience.unwrap_or(PATIENCE);
    if patience == 0 {
        return Err(refuse("patience", 0, "1 or more"));
    }
    let watch = Inner::thorough(inner.threat, watch_steps);
    Ok(Fast { inner, validation, watch, largest_fall, patience, state: State::default() })
}

#[derive(Clone)]
struct Fast {
    inner: Inner,
    validation: Inner,
    /// The attack on the first batch of an epoch.
    watch: Inner,
    /// Of the accuracy under it, as a fraction, from the best epoch so far.
    largest_fall: f64,
    /// Epochs that a larger fall may last before the training ends.
    patience: usize,
    state: State,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct State {
    /// The best accuracy at the end of an epoch.
    best: Option<f64>,
    /// How many epochs in a row were too far below it.
    low: usize,
}

impl Adversarial for Fast {
    fn attack(&self, step: &Step<'_>, batch: &Batch) -> Result<Tensor, TrainError> {
        self.inner.on_objective(step, batch)
    }

    fn gradient_at(&self, step: &Step<'_>, batch: &Batch, attacked: &Tensor) -> Result<Gradient, TrainError> {
        objective_at(step, batch, attacked)
    }

    fn validation(&self) -> &Inner {
        &self.validation
    }
}

impl GradientRule for Fast {
    fn gradient(&mut self, step: &mut Step<'_>, batch: &Batch) -> Result<Gradient, TrainError> {
        let attacked = self.attack(step, batch)?;
        self.gradient_at(step, batch, &attacked)
    }

    fn hardest(&self, step: &mut Step<'_>, batch: &Batch) -> Result<Option<Tensor>, TrainError> {
        self.validation.on_objective(step, batch).map(Some)
    }

    fn end_epoch(
        &mut self,
        step: &mut Step<'_>,
        first: &dyn Fn() -> Result<Batch, TrainError>,
    ) -> Result<Option<String>, TrainError> {
        if self.largest_fall >= 1.0 {
            return Ok(None);
        }
        let mut batch = first()?;
        let rows = batch.len();
        batch.features = self.watch.on_objective(step, &batch)?;
        let answers = step.net.answers(&step.net.weights, &batch.features)?;
        let accuracy = evaluate(step.objective, &answers, &batch)?.0.accuracy();
        let Some(now) = accuracy else { return Ok(None) };
        let best = self.state.best.unwrap_or(now);
        self.state.low = if best - now > self.largest_fall { self.state.low + 1 } else { 0 };
        self.state.best = Some(best.max(now));
        let low = self.state.low;
        Ok((low >= self.patience).then(|| {
            format!(
                "catastrophic overfitting: under an attack of {} steps the accuracy of {rows} training rows fell from \
                 {:.0} % to {:.0} %, and was as low for {low} epoch{}; the weights of the last one are not taken; a \
                 smaller `step_size`, or `pgd-at`, may go further",
                self.watch.steps,
                100.0 * best,
                100.0 * now,
                if low == 1 { "" } else { "s" }
            )
        }))
    }

    fn state(&self) -> Value {
        serde_json::to_value(&self.state).unwrap_or_default()
    }

    fn restore(&mut self, state: &Value) -> Result<(), String> {
        self.state = State::deserialize(state).map_err(|e| e.to_string())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{Linear, flat, naive_cross_entropy, rows, with_step_mut};
    use super::*;
    use netproof_train::{Method, Targets};

    fn fast() -> Fast {
        let table = Method::new("fast").with("epsilon", 0.2).with("bounds", vec![-9.0, 9.0]).options;
        build((&table).into()).unwrap()
    }

    /// A step of 1.25 epsilon from anywhere in the ball ends at a corner or on a face of it, never beyond.
    #[test]
    fn the_gradient_is_that_of_rows_moved_to_the_boundary() {
        let linear = Linear::new(2);
        let (batch, labels) = rows(6, 2, 2);
        let (attacked, got) = with_step_mut(linear.net(), 1, |step| {
            (fast().attack(step, &batch).unwrap(), fast().gradient(step, &batch).unwrap())
        });
        let moved: Vec<f64> = attacked.as_f32().unwrap().iter().map(|&v| f64::from(v)).collect();
        for (i, (m, x)) in moved.iter().zip(batch.features.as_f32().unwrap()).enumerate() {
            let (y, d) = (labels[i / 2], m - f64::from(*x));
            let towards = f64::from(linear.weight(1 - y, i % 2) - linear.weight(y, i % 2)).signum();
            // From −0.2 the step of 0.25 reaches 0.05, from −0.05 on it reaches the boundary.
            assert!(d * towards > 0.05 - 1e-6 && d * towards < 0.2 + 1e-6, "{d}");
        }
        let (loss, want) = naive_cross_entropy(&linear, &moved, &labels);
        assert!((got.sums.loss - loss).abs() < 1e-4);
        for (got, want) in flat(&got).iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-4, "{got} {want}");
        }
    }

    #[test]
    fn a_fall_under_attack_ends_the_training() {
        let linear = Linear::new(2);
        let (batch, _) = rows(40, 2, 2);
        // Labels that the network gives to the rows, and their opposites: right, and wrong, whatever the attack does.
        let labels = |right: bool| {
            let best = |x: &[f32]| {
                let p = linear.probabilities(&[f64::from(x[0]), f64::from(x[1])]);
                usize::from(p[1] > p[0])
            };
            let own = batch.features.as_f32().unwrap().chunks(2).map(|x| if right { best(x) } else { 1 - best(x) });
            Batch { targets: Targets::Classes(own.collect()), ..batch.clone() }
        };
        let end = |rule: &mut Fast, right: bool| {
            with_step_mut(linear.net(), 5, |step| rule.end_epoch(step, &|| Ok(labels(right))).unwrap())
        };
        let mut rule = fast();
        assert_eq!(end(&mut rule, true), None);
        assert!(rule.state.best.unwrap() > 0.5);
        // One epoch alone may be low, and a good one forgives it.
        for right in [false, true, false] {
            assert_eq!(end(&mut rule, right), None);
        }
        let mut again = fast();
        again.restore(&rule.state()).unwrap();
        let reason = end(&mut again, false).unwrap();
        assert!(reason.contains("catastrophic overfitting") && reason.contains("to 0 %, and was"), "{reason}");
        assert_eq!(end(&mut Fast { largest_fall: 1.0, ..rule.clone() }, false), None);
        assert!(end(&mut Fast { patience: 1, state: State { low: 0, ..rule.state }, ..rule }, false).is_some());
        // What was never good cannot fall.
        let mut poor = Fast { state: State { best: Some(0.1), low: 0 }, ..fast() };
        assert_eq!([end(&mut poor, false), end(&mut poor, false)], [None, None]);
    }

    #[test]
    fn a_watch_without_patience_is_refused() {
        let table = Method::new("fast").with("preset", "wong-mnist").with("patience", 0).options;
        let error = build((&table).into()).err().unwrap().to_string();
        assert_eq!(error, "`patience` is 0; allowed: 1 or more");
    }
}
