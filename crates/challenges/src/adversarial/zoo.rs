//! A zoo of broken defences, each of which must be flagged, and honest networks, which must not be.
//!
//! Built around the example network, so that the images are real.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use netproof_audit::{Head, Silent};
use netproof_core::{Norm, Threat};
use netproof_data::{Dataset, OpenOptions};
use netproof_graph::{Model, NewNode};
use netproof_stats::Level;
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;

use super::checks::gradient_masking::experiments;
use super::harness::Harness;
use super::masking::Flag;
use super::protocol::Protocol as _;
use super::protocols::autoattack::{AutoAttack, Version};
use super::protocols::cascade::Cascade;
use super::victim::{Transformation, Victim};

const ROWS: usize = 16;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/fashion")
}

fn network() -> Model {
    Model::load(&examples().join("fashion-cnn.onnx")).unwrap()
}

fn images(rows: usize) -> (Tensor, Vec<usize>) {
    let options = OpenOptions { image_size: Some([1, 28, 28]), ..OpenOptions::default() };
    let path = examples().join("fashion-test-2000.npz");
    let batch = Dataset::open(path.to_str().unwrap(), &options).unwrap().take(rows).load().unwrap();
    let labels = batch.labels.classes().unwrap().to_vec();
    (batch.features, labels)
}

fn scalar(v: f32) -> Tensor {
    Tensor::f32(vec![], vec![v]).unwrap()
}

/// `Round(value * levels) / levels` behind a value.
fn rounded(model: &Model, value: &str, levels: f32) -> Model {
    let model = model
        .insert_after(
            value,
            NewNode::new("Mul", &[value, "zoo/levels"], &["zoo/up"]).with_tensor("zoo/levels", scalar(levels)),
        )
        .unwrap();
    let model = model.insert_after("zoo/up", NewNode::new("Round", &["zoo/up"], &["zoo/round"])).unwrap();
    let down = NewNode::new("Div", &["zoo/round", "zoo/by"], &["zoo/down"]).with_tensor("zoo/by", scalar(levels));
    model.insert_after("zoo/round", down).unwrap()
}

/// Every feature gets noise, as a randomised defence adds it.
struct Noise(f64);

impl Transformation for Noise {
    fn apply(&self, row: &[f32], rng: &mut Rng) -> Vec<f32> {
        row.iter().map(|v| v + (self.0 * rng.normal()) as f32).collect()
    }
}

fn flags_of(victim: &Victim<'_>, x: &Tensor, labels: &[usize], epsilon: f64) -> Vec<Flag> {
    let ids: Vec<u64> = (0..labels.len() as u64).collect();
    let threat = Threat::new(Norm::Linf, epsilon, [0.0, 1.0]).unwrap();
    let at = |e: f64| Harness::new(victim, threat.with_epsilon(e), x, labels, &ids, 0, &Silent);
    experiments(at(epsilon).unwrap(), at, 300).unwrap()
}

fn raised(flags: &[Flag]) -> Vec<&'static str> {
    flags.iter().filter(|f| f.raised).map(|f| f.id).collect()
}

fn victim<'m>(model: &'m Model, head: Head, x: &Tensor) -> Victim<'m> {
    Victim::new(model, head, &x.shape()[1..], x).unwrap()
}

#[test]
fn an_honest_network_raises_no_flag() {
    let (x, labels) = images(ROWS);
    let model = network();
    let found = flags_of(&victim(&model, Head::Logits, &x), &x, &labels, 0.03);
    assert!(raised(&found).is_empty(), "{found:?}");
}

#[test]
fn an_adversarially_trained_network_raises_no_flag() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared =
        if shared.is_dir() { shared } else { Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared") };
    let (network, pixels) =
        (shared.join("golden/mnist-trades.onnx"), shared.join("data/mnist-t10k-images-idx3-ubyte.gz"));
    if !network.is_file() || !pixels.is_file() {
        return;
    }
    let labels = shared.join("data/mnist-t10k-labels-idx1-ubyte.gz");
    let options = OpenOptions { image_size: Some([1, 28, 28]), ..OpenOptions::default() };
    let spec = format!("{}:{}", pixels.display(), labels.display());
    let batch = Dataset::open(&spec, &options).unwrap().take(8).load().unwrap();
    let model = Model::load(&network).unwrap();
    let v = victim(&model, Head::Logits, &batch.features);
    let found = flags_of(&v, &batch.features, batch.labels.classes().unwrap(), 0.2);
    assert!(raised(&found).is_empty(), "{found:?}");
}

#[test]
fn a_quantised_input_is_flagged() {
    let (x, labels) = images(ROWS);
    let model = rounded(&network(), "image", 8.0);
    let found = raised(&flags_of(&victim(&model, Head::Logits, &x), &x, &labels, 0.1)).join(" ");
    assert!(found.contains("zero-gradients"), "{found}");
}

#[test]
fn shattered_gradients_are_flagged() {
    let (x, labels) = images(ROWS);
    let inside = network().nodes().find(|n| n.operator == "Relu").unwrap().outputs[0].clone();
    let model = rounded(&network(), &inside, 4.0);
    let found = raised(&flags_of(&victim(&model, Head::Logits, &x), &x, &labels, 0.1));
    assert!(found.contains(&"zero-gradients"), "{found:?}");
}

#[test]
fn a_saturated_softmax_is_flagged_where_it_cannot_be_undone_and_undone_where_it_can() {
    let (x, labels) = images(ROWS);
    let sharp = network().scale_logits(0.002).unwrap();
    let soft = NewNode::new("Softmax", &["logits"], &["zoo/p"]);
    let softmax = sharp.insert_after("logits", soft).unwrap();
    let undone = victim(&softmax, Head::Probabilities, &x);
    assert!(!undone.sees_probabilities() && undone.notes()[0].contains("Softmax"), "{:?}", undone.notes());
    // What attacks see is the network's own logits.
    let plain = victim(&sharp, Head::Logits, &x).logits(x.as_f32().unwrap()).unwrap();
    let seen = undone.logits(x.as_f32().unwrap()).unwrap();
    assert!(plain.iter().zip(&seen).all(|(a, b)| (a - b).abs() <= 1e-3 * a.abs().max(1.0)));
    // Something behind the softmax hides the logits.
    let hidden = softmax.insert_after("logits", NewNode::new("Neg", &["logits"], &["zoo/n"])).unwrap();
    let hidden = hidden.insert_after("logits", NewNode::new("Neg", &["logits"], &["zoo/m"])).unwrap();
    let v = victim(&hidden, Head::Probabilities, &x);
    let found = raised(&flags_of(&v, &x, &labels, 0.1));
    assert!(v.sees_probabilities() && found.contains(&"no-logits") && found.contains(&"zero-gradients"), "{found:?}");
}

#[test]
fn random_networks_are_flagged() {
    let (x, labels) = images(ROWS);
    let model = network();
    let v = victim(&model, Head::Logits, &x).with_transformation(Arc::new(Noise(0.1)), 1);
    let found = raised(&flags_of(&v, &x, &labels, 0.03));
    assert!(found.contains(&"random-network"), "{found:?}");
    let inside = model.nodes().find(|n| n.operator == "Relu").unwrap().outputs[0].clone();
    let dropout =
        NewNode::new("Dropout", &[&inside, "zoo/ratio"], &["zoo/dropped"]).with_tensor("zoo/ratio", scalar(0.3));
    let dropping = model.insert_after(&inside, dropout).unwrap();
    let v = victim(&dropping, Head::Logits, &x).with_dropout();
    let found = raised(&flags_of(&v, &x, &labels, 0.03));
    assert!(found.contains(&"random-network"), "{found:?}");
}

#[test]
fn the_cascade_sees_through_a_quantised_input_and_through_a_network_without_gradients() {
    let (x, labels) = images(10);
    let ids: Vec<u64> = (0..10).collect();
    let model = rounded(&network(), "image", 8.0);
    let v = victim(&model, Head::Logits, &x);
    let threat = Threat::new(Norm::Linf, 0.3, [0.0, 1.0]).unwrap();
    let mut h = Harness::new(&v, threat, &x, &labels, &ids, 0, &Silent).unwrap();
    Cascade::default().run(&mut h, &[]).unwrap();
    assert!(h.accuracy(Level::P95).attacked.value <= 0.1, "{:?}", h.stages());
    assert!(h.notes().iter().any(|n| n.starts_with("zero-gradients") || n.starts_with("black-box")), "{:?}", h.notes());
}

#[test]
fn averages_over_draws_and_another_backward_network_bring_gradients_back() {
    let (x, labels) = images(12);
    let ids: Vec<u64> = (0..12).collect();
    let threat = Threat::new(Norm::Linf, 0.1, [0.0, 1.0]).unwrap();
    let (honest, quantised) = (network(), rounded(&network(), "image", 8.0));
    let standing = |v: &Victim<'_>, p: &AutoAttack| {
        let mut h = Harness::new(v, threat, &x, &labels, &ids, 0, &Silent).unwrap();
        p.run(&mut h, &[]).unwrap();
        (h.standing().len(), h.notes().join(" "))
    };
    // Gradient attacks alone: nothing flows through the rounding, everything through the honest network behind it.
    let rand = AutoAttack { version: Version::Rand, draws: 4 };
    let blind = standing(&victim(&quantised, Head::Logits, &x), &rand).0;
    let bpda = standing(&victim(&quantised, Head::Logits, &x).with_backward(&honest).unwrap(), &rand).0;
    assert!(bpda <= 2 && blind > bpda + 2, "{blind} stand without BPDA, {bpda} with it");
    let noisy = victim(&honest, Head::Logits, &x).with_transformation(Arc::new(Noise(0.05)), 1);
    let (eot, _) = standing(&noisy, &rand);
    assert!(eot <= 2, "{eot}");
}
