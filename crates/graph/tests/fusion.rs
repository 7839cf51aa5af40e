//! Nodes that are computed together answer as they do one by one.

use netproof_graph::{Attribute, Dim, FileBuilder, GraphError, Model, Request, Wrt};
use netproof_tensor::{DType, Tensor};

fn values(shape: &[usize], seed: usize) -> Tensor {
    let n = shape.iter().product::<usize>();
    Tensor::f32(shape.to_vec(), (0..n).map(|i| ((i * 7 + seed) as f32 * 0.37).sin()).collect()).unwrap()
}

fn scalar(file: &mut FileBuilder, name: &str, value: f32) -> String {
    file.add_initializer(name, Tensor::f32(Vec::new(), vec![value]).unwrap())
}

/// Two convolutions, a residual, every activation, a transformer's feed-forward block with GELU, a classifier.
fn network() -> Model {
    let mut file = FileBuilder::new("fused");
    let x = file.add_batch_input("x", &[3, 6, 6]);
    let pads = || [("pads", Attribute::Ints(vec![1; 4]))];
    let w1 = file.add_initializer("w1", values(&[8, 3, 3, 3], 1));
    let b1 = file.add_initializer("b1", values(&[8], 2));
    let y = file.node("Conv", "conv1", &[&x, &w1, &b1], &pads());
    let first = file.node("Relu", "relu1", &[&y], &[]);
    let w2 = file.add_initializer("w2", values(&[8, 8, 3, 3], 3));
    let y = file.node("Conv", "conv2", &[&first, &w2], &pads());
    let y = file.node("Add", "residual", &[&y, &first], &[]);
    let y = file.node("Relu", "relu2", &[&y], &[]);
    let y = file.node("Conv", "conv3", &[&y, &w2], &pads());
    let (low, high) = (scalar(&mut file, "low", 0.0), scalar(&mut file, "high", 0.5));
    let y = file.node("Clip", "clip", &[&y, &low, &high], &[]);
    let y = file.node("Conv", "conv4", &[&y, &w2], &pads());
    let y = file.node("HardSwish", "swish", &[&y], &[]);
    let y = file.node("Flatten", "flat", &[&y], &[]);
    let w5 = file.add_initializer("w5", values(&[288, 16], 5));
    let b5 = file.add_initializer("b5", values(&[16], 6));
    let y = file.node("MatMul", "product", &[&y, &w5], &[]);
    let skip = file.node("Add", "bias", &[&b5, &y], &[]);
    let root = scalar(&mut file, "root", std::f32::consts::SQRT_2);
    let (one, half) = (scalar(&mut file, "one", 1.0), scalar(&mut file, "half", 0.5));
    let y = file.node("Div", "scaled", &[&skip, &root], &[]);
    let y = file.node("Erf", "erf", &[&y], &[]);
    let y = file.node("Add", "sum", &[&y, &one], &[]);
    let y = file.node("Mul", "part", &[&skip, &y], &[]);
    let y = file.node("Mul", "gelu", &[&y, &half], &[]);
    let w6 = file.add_initializer("w6", values(&[16, 16], 7));
    let y = file.node("MatMul", "second", &[&y, &w6], &[]);
    let y = file.node("Add", "second_bias", &[&y, &b5], &[]);
    let y = file.node("Add", "second_residual", &[&y, &skip], &[]);
    let w7 = file.add_initializer("w7", values(&[4, 16], 8));
    let b7 = file.add_initializer("b7", values(&[4], 9));
    let y = file.node("Gemm", "fc", &[&y, &w7, &b7], &[("transB", Attribute::Int(1))]);
    let eight = scalar(&mut file, "eight", 8.0);
    let y = file.node("Div", "scores", &[&y, &eight], &[]);
    let y = file.node("Softmax", "logits", &[&y], &[]);
    file.output(&y, DType::F32, &[Dim::Any, Dim::Fixed(4)]);
    Model::from_file(file.build().unwrap()).unwrap()
}

/// What each value in between is; asking for all of them leaves nothing to be fused.
const INTERIOR: [&str; 16] = [
    "conv1",
    "conv2",
    "residual",
    "conv3",
    "conv4",
    "product",
    "scaled",
    "erf",
    "sum",
    "part",
    "second",
    "second_bias",
    "fc",
    "clip",
    "swish",
    "scores",
];

fn taps() -> Vec<String> {
    INTERIOR.map(str::to_owned).to_vec()
}

fn close(a: &Tensor, b: &Tensor, what: &str) {
    let (a, b) = (a.as_f32().unwrap(), b.as_f32().unwrap());
    let largest = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    assert!(largest > 0.0, "{what} is all zeros, which proves nothing");
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * largest), "{what}");
}

#[test]
fn values_are_those_of_the_nodes_one_by_one() {
    let model = network();
    for batch in [1, 5] {
        let request = Request::new("x", values(&[batch, 3, 6, 6], 4));
        let fused = model.forward(&request).unwrap().output("logits").unwrap();
        let alone = model.forward(&Request { taps: taps(), ..request }).unwrap().output("logits").unwrap();
        close(&fused, &alone, "logits");
    }
}

#[test]
fn gradients_are_those_of_the_nodes_one_by_one() {
    let model = network();
    let wrt = Wrt { values: vec!["x".to_owned()], ..Wrt::trainable() };
    let request = Request { wrt, ..Request::new("x", values(&[5, 3, 6, 6], 4)) };
    let seed = values(&[5, 4], 11);
    let fused = model.forward(&request).unwrap().backward(&[("logits", &seed)]).unwrap();
    let alone = model.forward(&Request { taps: taps(), ..request }).unwrap().backward(&[("logits", &seed)]).unwrap();
    for name in ["x", "w1", "b1", "w2", "w5", "b5", "w6", "w7", "b7"] {
        close(fused.get(name).unwrap(), alone.get(name).unwrap(), name);
    }
}

#[test]
fn probes_and_overrides_of_values_in_between_still_work() {
    let model = network();
    let x = values(&[2, 3, 6, 6], 4);
    let seed = values(&[2, 4], 11);
    let wrt = Wrt::values(["residual"]);
    let run = model.forward(&Request { wrt, ..Request::new("x", x.clone()) }).unwrap();
    let gradients = run.backward(&[("logits", &seed)]).unwrap();
    assert_eq!(gradients.get("residual").unwrap().shape(), [2, 8, 6, 6]);
    let zeros = Tensor::zeros(vec![2, 8, 6, 6]).unwrap();
    let overrides = vec![("residual".to_owned(), zeros)];
    let request = Request { overrides, taps: vec!["relu2".to_owned()], ..Request::new("x", x) };
    let relu = model.forward(&request).unwrap().output("relu2").unwrap();
    assert!(relu.as_f32().unwrap().iter().all(|&v| v == 0.0));
}

#[test]
fn a_seed_on_a_value_that_was_not_made_is_refused_by_name() {
    let model = network();
    let wrt = Wrt::values(["x"]);
    let request = Request { wrt, ..Request::new("x", values(&[2, 3, 6, 6], 4)) };
    let seed = values(&[2, 8, 6, 6], 1);
    let refused = model.forward(&request).unwrap().backward(&[("residual", &seed)]);
    assert!(
        matches!(&refused, Err(GraphError::NoGradient { name, reason }) if name == "residual" && reason.contains("tap"))
    );
    let run = model.forward(&Request { taps: vec!["residual".to_owned()], ..request }).unwrap();
    assert!(run.backward(&[("residual", &seed)]).unwrap().get("x").is_some());
}
