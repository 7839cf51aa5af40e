//! Certified training by intervals: the objective on the worst answer that interval bounds allow, in a ball that grows.
//! Gowal et al. 2019, arXiv:1810.12715, equations 6 to 12 and section 5 (schedules); the preset is that of its MNIST
//! experiment. Checked against: the closed form on a linear network, where the bound is exact, and differences.
//! The last linear layer is joined with the comparison of classes (equation 12), so that bounds of margins, not of single
//! answers, are trained. Weak when: the network is deep, or what it holds is neither linear nor monotone; then it is refused.
//! Runs in evaluation mode; batch normalisation is refused, since its statistics have no place in a bound.

use netproof_tensor::Tensor;
use netproof_train::{Batch, Entry, Gradient, GradientRule, Step, Sums, Target, TrainError, scale};
use serde::Deserialize;

use super::inner::Inner;
use super::intervals::Intervals;
use super::options::options;
use super::refuse;
use super::relaxation::Relaxed;
use super::threat::{Norm, Start, Threat, check_rows, pixels};

pub(super) const ENTRY: Entry<dyn GradientRule> = Entry {
    id: "ibp",
    summary: "certified training by interval bounds in a growing ball (Gowal et al. 2019); preset gowal-mnist",
    build: |options, _| {
        let own = Raw::read(options)?;
        let preset = own.preset.unwrap_or_default().values();
        if own.norm == Some(Norm::L2) {
            return Err(refuse("norm", "l2", "linf: intervals bound every feature by itself"));
        }
        if own.steps.is_some() || own.step_size.is_some() || own.start.is_some() {
            return Err(refuse("steps", "given", "nothing: `ibp` takes no steps"));
        }
        let [inner, validation] = own.attacks(preset.inner)?;
        let schedule = Schedule {
            natural_weight: own.natural_weight.unwrap_or(preset.natural_weight),
            warm_up_steps: own.warm_up_steps.unwrap_or(preset.warm_up_steps),
            ramp_steps: own.ramp_steps.unwrap_or(preset.ramp_steps),
            linear_weight: None,
        };
        Ok(Box::new(Ibp::new(inner.threat, validation, schedule)?))
    },
};

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Preset {
    #[default]
    GowalMnist,
}

struct Values {
    inner: Inner,
    natural_weight: f64,
    warm_up_steps: u64,
    ramp_steps: u64,
}

impl Preset {
    fn values(self) -> Values {
        match self {
            // Epsilon grows to 0.4 for networks that shall be certified at 0.3, batches have 100 rows, 100 epochs.
            Self::GowalMnist => Values {
                inner: Inner { threat: pixels(0.4), steps: 1, step_size: 0.4, start: Start::Row },
                natural_weight: 0.5,
                warm_up_steps: 2000,
                ramp_steps: 10_000,
            },
        }
    }
}

options!(Raw, Preset { natural_weight: f64, warm_up_steps: u64, ramp_steps: u64 });

/// What changes while the ball grows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    /// κ at the end, the weight of the clean rows; it begins at 1.
    pub(super) natural_weight: f64,
    /// Steps before the ball grows.
    pub(super) warm_up_steps: u64,
    /// Steps in which it grows.
    pub(super) ramp_steps: u64,
    /// β at the end, the weight of linear bounds beside intervals; it begins at 1. Nothing: intervals alone.
    pub(super) linear_weight: Option<f64>,
}

pub(super) struct Ibp {
    threat: Threat,
    validation: Inner,
    schedule: Schedule,
    /// How bounds go through the network; found at the first batch.
    intervals: Option<Intervals>,
}

impl Ibp {
    /// # Errors
    /// A weight is not 0 to 1.
    pub(super) fn new(threat: Threat, validation: Inner, schedule: Schedule) -> Result<Self, TrainError> {
        let linear = schedule.linear_weight.unwrap_or(0.0);
        for (name, weight) in [("natural_weight", schedule.natural_weight), ("linear_weight", linear)] {
            if !(0.0..=1.0).contains(&weight) {
                return Err(refuse(name, weight, "0 to 1"));
            }
        }
        Ok(Self { threat, validation, schedule, intervals: None })
    }

    /// Part of the way from the beginning to the end of the ramp.
    fn progress(&self, number: u64) -> f64 {
        let Schedule { warm_up_steps, ramp_steps, .. } = self.schedule;
        if ramp_steps == 0 && number >= warm_up_steps {
            return 1.0;
        }
        (number.saturating_sub(warm_up_steps) as f64 / ramp_steps.max(1) as f64).min(1.0)
    }
}

impl GradientRule for Ibp {
    fn gradient(&mut self, step: &mut Step<'_>, batch: &Batch) -> Result<Gradient, TrainError> {
        check_rows(&self.threat, batch)?;
        let part = self.progress(step.number);
        let kappa = 1.0 - part * (1.0 - self.schedule.natural_weight);
        let beta = self.schedule.linear_weight.map_or(0.0, |end| 1.0 - part * (1.0 - end));
        let mut natural = step.gradient(batch)?;
        if part == 0.0 {
            return Ok(natural);
        }
        if self.intervals.is_none() {
            self.intervals = Some(Intervals::of(step.net)?);
        }
        let Some(intervals) = &self.intervals else { return Ok(natural) };
        let epsilon = (part * self.threat.epsilon) as f32;
        let [low, high] = self.threat.bounds.map(|b| b as f32);
        let at = |offset: f32| -> Result<Tensor, TrainError> {
            let x = batch.features.as_f32().unwrap_or_default();
            let moved = x.iter().map(|v| (v + offset).clamp(low, high)).collect();
            Ok(Tensor::f32(batch.features.shape().to_vec(), moved)?)
        };
        let (low, high) = (at(-epsilon)?, at(epsilon)?);
        let bounds = intervals.forward(step, &low, &high)?;
        let labels = classes(batch)?;
        let mut margins: Vec<f64> = labels.iter().enumerate().flat_map(|(r, &y)| bounds.margins(r, y)).collect();
        let relaxed = match beta > 0.0 {
            true => Some(Relaxed::of(intervals, step, &bounds, [&low, &high], &labels)?),
            false => None,
        };
        if let Some(r) = &relaxed {
            margins.iter_mut().zip(&r.margins).for_each(|(m, linear)| *m = (1.0 - beta) * *m + beta * linear);
        }
        let (sums, slopes) = worst(&margins, &labels, batch);
        let part_of = |weight: f64| -> Vec<f64> { slopes.iter().map(|s| weight * s).collect() };
        let owed = match &relaxed {
            Some(r) => Some(r.backward(intervals, &bounds, &labels, &part_of(beta))?),
            None => None,
        };
        let mut certified = intervals.backward(step, &bounds, &labels, &part_of(1.0 - beta), owed)?;
        drop((relaxed, bounds));
        let weight = (1.0 - kappa) as f32;
        for tensor in natural.tensors.iter_mut().flatten() {
            scale(tensor.as_f32_mut().unwrap_or_default(), kappa as f32);
        }
        for tensor in certified.tensors.iter_mut().flatten() {
            scale(tensor.as_f32_mut().unwrap_or_default(), weight);
        }
        // Rows count as right where the bound proves it.
        let loss = kappa * natural.sums.loss + (1.0 - kappa) * sums.loss;
        let own = Sums { loss, correct: sums.correct, judged: sums.judged, ..natural.sums };
        natural.add(certified);
        natural.sums = own;
        Ok(natural)
    }

    fn hardest(&self, step: &mut Step<'_>, batch: &Batch) -> Result<Option<Tensor>, TrainError> {
        self.validation.on_objective(step, batch).map(Some)
    }
}

/// # Errors
/// Rows that were mixed have no class.
fn classes(batch: &Batch) -> Result<Vec<usize>, TrainError> {
    let class = |row: usize| match batch.targets.row(row) {
        Target::Class(y) => Ok(y),
        _ => {
            let message = "bounds need a class per row; leave out augmentations that mix rows".to_owned();
            Err(TrainError::Mismatch { message })
        }
    };
    (0..batch.len()).map(class).collect()
}

/// Cross-entropy of the worst margins, and the slope with respect to them.
/// # Shapes
/// `margins [rows, classes]`: the largest value of `z_j − z_y`, 0 for the class itself
fn worst(margins: &[f64], labels: &[usize], batch: &Batch) -> (Sums, Vec<f64>) {
    let mut sums = Sums { rows: batch.len() as u64, judged: batch.len() as u64, ..Sums::default() };
    let mut slopes = Vec::with_capacity(margins.len());
    for (row, (m, &y)) in margins.chunks((margins.len() / labels.len().max(1)).max(1)).zip(labels).enumerate() {
        let weight = batch.weight(row);
        let largest = m.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = m.iter().map(|m| (m - largest).exp()).sum();
        sums.loss += weight * (sum.ln() + largest);
        sums.weight += weight;
        sums.correct += u64::from(m.iter().enumerate().all(|(j, &m)| j == y || m < 0.0));
        slopes.extend(m.iter().map(|m| weight * (m - largest).exp() / sum));
    }
    (sums, slopes)
}

#[cfg(test)]
mod tests {
    use netproof_graph::builders::{Activation, mlp};
    use netproof_train::{Method, Net};

    use super::super::test_support::{Linear, build_rule, flat, rows, with_step_mut};
    use super::*;

    fn method(epsilon: f64) -> Method {
        Method::new("ibp")
            .with("epsilon", epsilon)
            .with("bounds", vec![-9.0, 9.0])
            .with("natural_weight", 0.25)
            .with("warm_up_steps", 0)
            .with("ramp_steps", 0)
    }

    /// On a linear network the bound is exact: the margin plus epsilon times the l1 norm of the difference of weights.
    #[test]
    fn a_linear_network_has_the_loss_of_the_worst_rows() {
        let linear = Linear::new(3);
        let (batch, labels) = rows(6, 2, 3);
        let got = with_step_mut(linear.net(), 1, |step| build_rule(&method(0.2)).gradient(step, &batch).unwrap());
        let mut want = 0.0;
        for (x, &y) in batch.features.as_f32().unwrap().chunks(2).zip(&labels) {
            let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
            let p = linear.probabilities(&x);
            want -= 0.25 * p[y].ln();
            let reach =
                |j: usize| (0..2).map(|i| f64::from((linear.weight(j, i) - linear.weight(y, i)).abs())).sum::<f64>();
            let sum: f64 = (0..3).map(|j| (p[j] / p[y]).ln() + 0.2 * reach(j)).map(f64::exp).sum();
            want += 0.75 * sum.ln();
        }
        assert!((got.sums.loss - want).abs() < 1e-4, "{} {want}", got.sums.loss);
    }

    #[test]
    fn slopes_are_those_of_the_loss_through_hidden_layers() {
        let net = || Net::new(mlp(&[2], &[5, 4], 3, Activation::Relu, 7).unwrap(), true).unwrap();
        let (batch, _) = rows(5, 2, 3);
        let at = |change: Option<(usize, usize, f32)>| {
            let mut net = net();
            if let Some((tensor, i, d)) = change {
                net.weights.values_mut(tensor)[i] += d;
            }
            with_step_mut(net, 1, |step| build_rule(&method(0.1)).gradient(step, &batch).unwrap())
        };
        let got = at(None);
        let mut seen = 0;
        for (t, tensor) in got.tensors.iter().enumerate() {
            let slope = tensor.as_ref().unwrap().as_f32().unwrap();
            for (i, s) in slope.iter().enumerate() {
                let h = 2e-3;
                let want = (at(Some((t, i, h))).sums.loss - at(Some((t, i, -h))).sums.loss) / (2.0 * f64::from(h));
                // Kinks of ReLU and of absolute values make single differences coarse.
                if (f64::from(*s) - want).abs() < 0.02 * (1.0 + want.abs()) {
                    seen += 1;
                }
            }
        }
        let all = flat(&got).len();
        assert!(seen * 100 >= all * 97, "{seen} of {all}");
    }

    #[test]
    fn bounds_hold_for_every_row_of_the_ball() {
        let net = Net::new(mlp(&[2], &[5, 4], 3, Activation::Tanh, 7).unwrap(), true).unwrap();
        let (batch, labels) = rows(5, 2, 3);
        with_step_mut(net, 1, |step| {
            let intervals = Intervals::of(step.net).unwrap();
            let x = batch.features.as_f32().unwrap();
            let at = |d: f32| Tensor::f32(vec![5, 2], x.iter().map(|v| v + d).collect()).unwrap();
            let bounds = intervals.forward(step, &at(-0.15), &at(0.15)).unwrap();
            for k in 0..40 {
                let moved = x.iter().enumerate().map(|(i, v)| v + 0.15 * ((i * 7 + k * 13) as f32).sin()).collect();
                let moved = Tensor::f32(vec![5, 2], moved).unwrap();
                let z = step.net.answers(&step.net.weights, &moved).unwrap();
                for (r, (z, &y)) in z.as_f32().unwrap().chunks(3).zip(&labels).enumerate() {
                    for (j, m) in bounds.margins(r, y).iter().enumerate() {
                        assert!(f64::from(z[j] - z[y]) <= m + 1e-5, "row {r}, class {j}");
                    }
                }
            }
        });
    }

    #[test]
    fn the_ball_grows_and_other_norms_are_refused() {
        let registry = crate::training_registry();
        let l2 = method(0.1).with("norm", "l2");
        assert!(registry.rules.build(&l2, &registry).is_err());
        let (batch, _) = rows(5, 2, 3);
        let slow = method(0.2).with("warm_up_steps", 10).with("ramp_steps", 10);
        let loss = |number: u64| {
            with_step_mut(Linear::new(3).net(), 1, |step| {
                step.number = number;
                build_rule(&slow).gradient(step, &batch).unwrap().sums.loss
            })
        };
        assert!(loss(0) == loss(10) && loss(12) < loss(20) && loss(20) == loss(500));
    }
}
