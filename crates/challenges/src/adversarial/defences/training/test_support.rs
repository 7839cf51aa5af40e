//! A linear network and rows for it, with what follows from their formulas.

use netproof_graph::builders::{Activation, mlp};
use netproof_tensor::Tensor;
use netproof_train::{Batch, Gradient, GradientRule, Method, Net, Objective, Step, Targets};

/// `W x + b` of rows of two features.
pub(in crate::adversarial::defences) struct Linear {
    classes: usize,
    /// `W [classes, 2]`, then `b`.
    pub(in crate::adversarial::defences) values: Vec<f64>,
}

impl Linear {
    pub(in crate::adversarial::defences) fn new(classes: usize) -> Self {
        let values = (0..3 * classes).map(|i| f64::from((i as f32 * 1.7 + 0.4).sin())).collect();
        Self { classes, values }
    }

    pub(in crate::adversarial::defences) fn net(&self) -> Net {
        let mut net = Net::new(mlp(&[2], &[], self.classes, Activation::Relu, 5).unwrap(), true).unwrap();
        let (w, b) = self.values.split_at(2 * self.classes);
        for (i, own) in [w, b].into_iter().enumerate() {
            net.weights.values_mut(i).iter_mut().zip(own).for_each(|(to, &v)| *to = v as f32);
        }
        net
    }

    pub(in crate::adversarial::defences) fn weight(&self, class: usize, feature: usize) -> f32 {
        self.values[2 * class + feature] as f32
    }

    pub(in crate::adversarial::defences) fn probabilities(&self, x: &[f64]) -> Vec<f64> {
        let (w, b) = self.values.split_at(2 * self.classes);
        let z: Vec<f64> = (0..self.classes).map(|c| w[2 * c] * x[0] + w[2 * c + 1] * x[1] + b[c]).collect();
        let sum: f64 = z.iter().map(|z| z.exp()).sum();
        z.iter().map(|z| z.exp() / sum).collect()
    }
}

/// Rows of two features, and their classes.
pub(in crate::adversarial::defences) fn rows(n: usize, width: usize, classes: usize) -> (Batch, Vec<usize>) {
    let labels: Vec<usize> = (0..n).map(|r| r * 2 % classes).collect();
    let features = (0..n * width).map(|i| ((i * i) as f32 * 0.7 + 0.2).sin()).collect();
    let batch = Batch {
        row_ids: (0..n as u64).collect(),
        features: Tensor::f32(vec![n, width], features).unwrap(),
        targets: Targets::Classes(labels.clone()),
        weights: None,
        groups: Vec::new(),
        classes,
    };
    (batch, labels)
}

fn cross_entropy() -> Box<dyn Objective> {
    let registry = crate::training_registry();
    registry.objectives.build(&Method::new("cross-entropy"), &registry).unwrap()
}

pub(in crate::adversarial::defences) fn with_step_mut<T>(
    mut net: Net,
    seed: u64,
    f: impl FnOnce(&mut Step<'_>) -> T,
) -> T {
    let objective = cross_entropy();
    let active = net.weights.names()[..net.weights.trainable()].to_vec();
    f(&mut Step { net: &mut net, objective: &*objective, number: 0, seed, active: &active })
}

pub(in crate::adversarial::defences) fn with_step<T>(net: Net, seed: u64, f: impl FnOnce(&Step<'_>) -> T) -> T {
    with_step_mut(net, seed, |step| f(step))
}

pub(in crate::adversarial::defences) fn build_rule(method: &Method) -> Box<dyn GradientRule> {
    let registry = crate::training_registry();
    registry.rules.build(method, &registry).unwrap()
}

pub(in crate::adversarial::defences) fn flat(gradient: &Gradient) -> Vec<f32> {
    gradient.tensors.iter().flat_map(|t| t.as_ref().unwrap().as_f32().unwrap().to_vec()).collect()
}

/// Sum of the losses, and its gradient in the order of [`Linear::values`].
pub(in crate::adversarial::defences) fn naive_cross_entropy(
    linear: &Linear,
    rows: &[f64],
    labels: &[usize],
) -> (f64, Vec<f64>) {
    let k = linear.classes;
    let (mut loss, mut gradient) = (0.0, vec![0.0; 3 * k]);
    for (x, &y) in rows.chunks(2).zip(labels) {
        let p = linear.probabilities(x);
        loss -= p[y].ln();
        for c in 0..k {
            let e = p[c] - f64::from(u8::from(c == y));
            gradient[2 * c] += e * x[0];
            gradient[2 * c + 1] += e * x[1];
            gradient[2 * k + c] += e;
        }
    }
    (loss, gradient)
}

/// Slopes of a function of the weights.
pub(in crate::adversarial::defences) fn differences(linear: &mut Linear, f: impl Fn(&Linear) -> f64) -> Vec<f64> {
    (0..linear.values.len())
        .map(|i| {
            let (kept, h) = (linear.values[i], 1e-5);
            let mut at = |v: f64| {
                linear.values[i] = v;
                f(linear)
            };
            let slope = (at(kept + h) - at(kept - h)) / (2.0 * h);
            linear.values[i] = kept;
            slope
        })
        .collect()
}
