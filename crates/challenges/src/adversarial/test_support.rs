//! Small networks and runs for tests.

use netproof_audit::Head;
use netproof_core::Threat;
use netproof_graph::builders::{Activation, mlp};
use netproof_graph::{FileBuilder, Model};
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;

use super::attack::{Attack, Batch};
use super::oracle::Oracle;
use super::victim::Victim;

/// Logits `W x + b`.
pub(crate) fn linear<const N: usize>(w: &[[f32; N]], b: &[f32]) -> Model {
    linear_on(&[N], w, b)
}

/// Logits `W x + b` of rows of a shape.
pub(crate) fn linear_on<const N: usize>(row: &[usize], w: &[[f32; N]], b: &[f32]) -> Model {
    let mut f = FileBuilder::new("linear");
    let mut x = f.add_batch_input("x", row);
    if row.len() > 1 {
        x = f.node("Flatten", "flat", &[&x], &[]);
    }
    let k = w.len();
    let transposed: Vec<f32> = (0..N).flat_map(|i| w.iter().map(move |row| row[i])).collect();
    let w = f.add_initializer("w", Tensor::f32(vec![N, k], transposed).unwrap());
    let b = f.add_initializer("b", Tensor::f32(vec![k], b.to_vec()).unwrap());
    let y = f.node("Gemm", "y", &[&x, &w, &b], &[]);
    f.batch_output(&y, &[k]);
    Model::from_file(f.build().unwrap()).unwrap()
}

/// A small network with one hidden layer that is anything but linear.
pub(crate) fn small(inputs: usize, classes: usize, seed: u64) -> Model {
    mlp(&[inputs], &[16], classes, Activation::Relu, seed).unwrap()
}

/// Rows within 0 and 1 and the class that the network gives each.
pub(crate) fn rows(model: &Model, inputs: usize, n: usize, seed: u64) -> (Vec<f32>, Vec<usize>) {
    let mut rng = Rng::new(seed);
    let x: Vec<f32> = (0..n * inputs).map(|_| rng.unit() as f32).collect();
    let v = victim(model, &[inputs]);
    let labels = v.logits(&x).unwrap().chunks(v.classes()).map(super::loss::argmax).collect();
    (x, labels)
}

pub(crate) fn victim<'m>(model: &'m Model, row: &[usize]) -> Victim<'m> {
    Victim::new(model, Head::Logits, row, &Tensor::zeros([&[1], row].concat()).unwrap()).unwrap()
}

/// The raw proposals and the logits of these.
pub(crate) fn run(
    attack: &dyn Attack,
    model: &Model,
    row: &[usize],
    x: &[f32],
    labels: &[usize],
    threat: &Threat,
    seed: u64,
) -> (Vec<f32>, Vec<f32>) {
    let v = victim(model, row);
    let seeds: Vec<u64> = (0..labels.len()).map(|i| Rng::stream(seed, i as u64 + 1).next_u64()).collect();
    propose(attack, &v, x, labels, &seeds, threat)
}

/// As [`run`], with the seed of each row.
pub(crate) fn propose(
    attack: &dyn Attack,
    v: &Victim<'_>,
    x: &[f32],
    labels: &[usize],
    seeds: &[u64],
    threat: &Threat,
) -> (Vec<f32>, Vec<f32>) {
    let logits = v.logits(x).unwrap();
    let oracle = Oracle::new(v, labels.len(), None);
    let y = attack.propose(&oracle, &Batch { x, logits: &logits, labels, seeds }, threat).unwrap();
    let answers = v.logits(&y).unwrap();
    (y, answers)
}
