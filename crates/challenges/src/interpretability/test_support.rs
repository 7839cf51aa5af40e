//! Small networks and recorded values that the tests of all methods use.

use std::path::{Path, PathBuf};

use netproof_data::{Limits, read_npz};
use netproof_graph::{FileBuilder, Model};
use netproof_tensor::Tensor;

use super::{Choice, Explained, Explanation, Question, explain, explanation};

/// `y = weights · x + bias`.
pub(crate) fn linear(weights: &[f32], bias: f32) -> Model {
    let mut file = FileBuilder::new("linear");
    let x = file.add_batch_input("x", &[weights.len()]);
    let w = file.add_initializer("w", Tensor::f32(vec![weights.len(), 1], weights.to_vec()).unwrap());
    let b = file.add_initializer("b", Tensor::f32(vec![1], vec![bias]).unwrap());
    let y = file.node("Gemm", "y", &[&x, &w, &b], &[]);
    file.batch_output(&y, &[1]);
    Model::from_file(file.build().unwrap()).unwrap()
}

/// Captum's network with published values: `h = ones(4, 3) x + (-10, 1, 1, 1)`, `y = ones(2, 4) relu(h) + (-1, 1)`.
pub(crate) fn kinked() -> Model {
    let mut file = FileBuilder::new("kinked");
    let x = file.add_batch_input("x", &[3]);
    let w = file.add_initializer("w1", Tensor::f32(vec![3, 4], vec![1.0; 12]).unwrap());
    let b = file.add_initializer("b1", Tensor::f32(vec![4], vec![-10.0, 1.0, 1.0, 1.0]).unwrap());
    let h = file.node("Gemm", "h", &[&x, &w, &b], &[]);
    let r = file.node("Relu", "r", &[&h], &[]);
    let w = file.add_initializer("w2", Tensor::f32(vec![4, 2], vec![1.0; 8]).unwrap());
    let b = file.add_initializer("b2", Tensor::f32(vec![2], vec![-1.0, 1.0]).unwrap());
    let y = file.node("Gemm", "y", &[&r, &w, &b], &[]);
    file.batch_output(&y, &[2]);
    Model::from_file(file.build().unwrap()).unwrap()
}

/// A network of nodes that `nodes` puts between the input `x [n, row...]` and the output `y [n, outputs]`.
pub(crate) fn network(row: &[usize], outputs: usize, nodes: impl Fn(&mut FileBuilder, &str) -> String) -> Model {
    let mut file = FileBuilder::new("test");
    let x = file.add_batch_input("x", row);
    let y = nodes(&mut file, &x);
    file.batch_output(&y, &[outputs]);
    Model::from_file(file.build().unwrap()).unwrap()
}

/// A stored tensor for [`network`].
pub(crate) fn stored(file: &mut FileBuilder, name: &str, shape: &[usize], values: &[f32]) -> String {
    file.add_initializer(name, Tensor::f32(shape.to_vec(), values.to_vec()).unwrap())
}

/// Integers for [`network`].
pub(crate) fn ints(file: &mut FileBuilder, name: &str, values: &[i64]) -> String {
    file.add_initializer(name, Tensor::i64(vec![values.len()], values.to_vec()).unwrap())
}

pub(crate) fn net_of<'m>(model: &'m Model, x: &Tensor) -> Explained<'m> {
    Explained::new(model, &Choice::default(), &[(model.inputs()[0].name.clone(), x.clone())]).unwrap()
}

pub(crate) fn ask(id: &str, net: &Explained<'_>, x: Tensor, targets: Vec<usize>, options: &str) -> Explanation {
    let q = Question::new(x, targets).unwrap();
    answer(id, net, &q, options)
}

pub(crate) fn answer(id: &str, net: &Explained<'_>, q: &Question, options: &str) -> Explanation {
    let method = explanation(id, toml::from_str(options).unwrap()).unwrap();
    explain(&*method.method, net, q).unwrap_or_else(|e| panic!("{id}: {e}"))
}

/// Explains target 0 of rows.
pub(crate) fn run<const N: usize>(id: &str, model: &Model, rows: &[[f32; N]], options: &str) -> Explanation {
    let x = Tensor::f32(vec![rows.len(), N], rows.concat()).unwrap();
    ask(id, &net_of(model, &x), x, vec![0; rows.len()], options)
}

/// The attributions of target 0.
pub(crate) fn attributions<const N: usize>(id: &str, model: &Model, rows: &[[f32; N]], options: &str) -> Vec<f32> {
    run(id, model, rows, options).attributions.into_f32().unwrap()
}

/// Asserts that numbers agree within `tolerance` of the largest.
#[track_caller]
pub(crate) fn close(found: &[f32], wanted: &[f32], tolerance: f32) {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().fold(0f32, |m, v| m.max(v.abs()));
    for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
        assert!((f - w).abs() <= tolerance * largest + 1e-12, "entry {i}: {f}, not {w} (largest {largest})");
    }
}

pub(crate) fn golden_folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
    folder.join("fashion-golden.npz").exists().then_some(folder)
}

/// Recorded arrays; `None` where the folder of reference values is absent.
pub(crate) fn recorded(file: &str, names: &[&str]) -> Option<Vec<Tensor>> {
    Some(read_npz(&golden_folder()?.join(file), names, Limits::default()).unwrap())
}

/// A network of the reference values with the first rows of the test images and their labels.
pub(crate) fn golden_network(name: &str, rows: usize) -> Option<(Model, Tensor, Vec<usize>)> {
    let model = Model::load(&golden_folder()?.join(format!("fashion-{name}.onnx"))).unwrap();
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/fashion/fashion-test-2000.npz");
    let data = netproof_data::Dataset::open(images.to_str().unwrap(), &netproof_data::OpenOptions::default()).unwrap();
    let batch = data.take(rows).load().unwrap();
    let x = batch.features.reshape(vec![rows, 1, 28, 28]).unwrap();
    Some((model, x, batch.labels.classes().unwrap().to_vec()))
}

/// Compares a method on real networks with what Captum gave: every entry within 1e-4 of the largest entry.
pub(crate) fn golden(id: &str, options: &str, array: &str, networks: &[&str]) {
    for name in networks {
        let Some((model, x, labels)) = golden_network(name, 8) else { return };
        let wanted = recorded("fashion-golden.npz", &[&format!("{name}/{array}")]).unwrap();
        let found = ask(id, &net_of(&model, &x), x, labels, options);
        let (found, wanted) = (found.attributions.as_f32().unwrap(), wanted[0].as_f32().unwrap());
        assert_eq!(found.len(), wanted.len(), "{name}");
        let largest = wanted.iter().fold(0f32, |m, v| m.max(v.abs()));
        let worst = found.iter().zip(wanted).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= 1e-4 * largest, "{id} {name}: off by {worst}, largest {largest}");
    }
}
