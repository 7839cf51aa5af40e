//! Networks that are built, rewritten, saved and loaded again.

use std::path::Path;

use netproof_graph::builders::{self, Activation, CnnOptions, Shortcut, VitOptions};
use netproof_graph::{Attribute, Dim, Model, NewNode, Request};
use netproof_onnx::OnnxFile;
use netproof_onnx::proto::tensor_shape_proto::{Dimension, dimension};
use netproof_onnx::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use netproof_tensor::{DType, Tensor};

fn ramp(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::f32(shape.to_vec(), (0..n).map(|i| (i as f32 * 0.37).sin()).collect()).unwrap()
}

fn apart(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.shape(), b.shape());
    a.as_f32().unwrap().iter().zip(b.as_f32().unwrap()).fold(0.0, |m, (x, y)| f32::max(m, (x - y).abs()))
}

fn golden(path: &str) -> Model {
    Model::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

fn saved_and_loaded(model: &Model) -> Model {
    Model::from_bytes(&model.to_file().unwrap().to_bytes()).unwrap()
}

fn value(name: &str, dtype: DType, dims: &[Option<i64>]) -> ValueInfoProto {
    let dim = |d: &Option<i64>| Dimension { value: d.map(dimension::Value::DimValue), ..Dimension::default() };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = type_proto::Tensor { elem_type: Some(netproof_onnx::data_type_code(dtype)), shape };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

#[test]
fn builders_make_networks_that_run_and_save() {
    let vit = VitOptions { image: [3, 16, 16], patch: 4, classes: 5, width: 16, depth: 2, heads: 2, mlp: 32, seed: 1 };
    let networks = [
        (builders::mlp(&[7], &[9, 8], 3, Activation::Relu, 1).unwrap(), vec![7], 3),
        (builders::cnn(&CnnOptions::new([1, 28, 28], 10)).unwrap(), vec![1, 28, 28], 10),
        (builders::resnet_cifar(8, Shortcut::default(), [3, 32, 32], 10, 1).unwrap(), vec![3, 32, 32], 10),
        (builders::mobilenet_v2([3, 32, 32], 4, 0.35, 1).unwrap(), vec![3, 32, 32], 4),
        (builders::vit(&vit).unwrap(), vec![3, 16, 16], 5),
    ];
    for (model, row, classes) in networks {
        let again = saved_and_loaded(&model);
        for n in [1, 3] {
            let x = ramp(&[&[n], &row[..]].concat());
            let y = model.predict(&x).unwrap();
            assert_eq!(y.shape(), [n, classes]);
            assert!(y.as_f32().unwrap().iter().all(|v| v.is_finite()));
            assert_eq!(again.predict(&x).unwrap(), y);
        }
    }
}

#[test]
fn temperature_divides_the_logits_and_keeps_the_output() {
    let model = golden("examples/fashion/fashion-cnn.onnx");
    let x = ramp(&[2, 1, 28, 28]);
    let y = model.predict(&x).unwrap();
    let cooled = saved_and_loaded(&model.scale_logits(2.0).unwrap());
    assert_eq!(cooled.outputs()[0].name, model.outputs()[0].name);
    let halved = Tensor::f32(y.shape().to_vec(), y.as_f32().unwrap().iter().map(|v| v / 2.0).collect()).unwrap();
    assert!(apart(&cooled.predict(&x).unwrap(), &halved) < 1e-6);
    let twice = cooled.scale_logits(2.0).unwrap().predict(&x).unwrap();
    let quarter = Tensor::f32(y.shape().to_vec(), y.as_f32().unwrap().iter().map(|v| v / 4.0).collect()).unwrap();
    assert!(apart(&twice, &quarter) < 1e-6);
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(model.scale_logits(bad).is_err());
    }
}

#[test]
fn normalisation_moves_into_the_network() {
    let model = golden("examples/fashion/fashion-cnn.onnx");
    let x = ramp(&[2, 1, 28, 28]);
    let normalised = x.as_f32().unwrap().iter().map(|v| (v - 0.25) / 0.5).collect();
    let want = model.predict(&Tensor::f32(x.shape().to_vec(), normalised).unwrap()).unwrap();
    let inside = saved_and_loaded(&model.prepend_normalization(&[0.25], &[0.5]).unwrap());
    assert!(apart(&inside.predict(&x).unwrap(), &want) < 1e-5);
    assert!(model.prepend_normalization(&[0.0], &[0.0]).is_err());
    assert!(model.prepend_normalization(&[0.0, 0.0], &[1.0, 1.0]).is_err());
}

#[test]
fn batch_norm_folds_into_what_is_before_it() {
    let mut model = builders::resnet_cifar(8, Shortcut::default(), [3, 32, 32], 10, 3).unwrap();
    let names: Vec<_> = model.parameters().filter(|p| p.name.contains("running_")).collect();
    assert!(!names.is_empty());
    for p in names {
        let values = (0..p.shape[0]).map(|i| 0.5 + (i as f32 * 0.7).sin().abs()).collect();
        model.set_parameter(&p.name, Tensor::f32(p.shape.clone(), values).unwrap()).unwrap();
    }
    let x = ramp(&[2, 3, 32, 32]);
    let want = model.predict(&x).unwrap();
    let (folded, count) = model.fold_batch_norm().unwrap();
    assert!(count > 0);
    assert_eq!(folded.nodes().filter(|n| n.operator == "BatchNormalization").count(), 0);
    let scale = want.as_f32().unwrap().iter().fold(1.0f32, |m, v| m.max(v.abs()));
    assert!(apart(&saved_and_loaded(&folded).predict(&x).unwrap(), &want) < 1e-5 * scale);
}

#[test]
fn nodes_go_in_and_are_replaced() {
    let model = builders::mlp(&[4], &[5], 3, Activation::Relu, 2).unwrap();
    let x = ramp(&[2, 4]);
    let y = model.predict(&x).unwrap();
    let output = model.outputs()[0].name.clone();
    let negative = model.insert_after(&output, NewNode::new("Neg", &[&output], &["negative"])).unwrap();
    let sum: f32 = negative
        .predict(&x)
        .unwrap()
        .as_f32()
        .unwrap()
        .iter()
        .zip(y.as_f32().unwrap())
        .map(|(a, b)| (a + b).abs())
        .sum();
    assert_eq!(sum, 0.0);
    let relu = model.nodes().find(|n| n.operator == "Relu").unwrap();
    let node = NewNode::new("Identity", &[&relu.inputs[0]], &[&relu.outputs[0]]);
    let linear = model.replace_node(&relu.name, vec![node]).unwrap();
    assert!(linear.nodes().all(|n| n.operator != "Relu"));
    assert!(linear.forward(&Request::new(&linear.inputs()[0].name, x)).is_ok());
    assert!(model.replace_node("nothing", Vec::new()).is_err());
    assert!(model.insert_after("nothing", NewNode::new("Neg", &["nothing"], &["n"])).is_err());
}

#[test]
fn outputs_are_declared_as_what_a_rewrite_makes_of_them() {
    let model = builders::mlp(&[4], &[5], 3, Activation::Relu, 2).unwrap();
    let output = model.outputs()[0].name.clone();
    let batch = model.outputs()[0].shape.as_ref().unwrap()[0].clone();
    let top = NewNode::new("ArgMax", &[&output], &["top"]).with("axis", Attribute::Int(1));
    let top = saved_and_loaded(&model.insert_after(&output, top).unwrap());
    assert_eq!(top.outputs()[0].dtype, DType::I64);
    assert_eq!(top.outputs()[0].shape.as_deref(), Some(&[batch.clone(), Dim::Fixed(1)][..]));
    let swapped = NewNode::new("Transpose", &[&output], &["swapped"]);
    let swapped = saved_and_loaded(&model.insert_after(&output, swapped).unwrap());
    assert_eq!(swapped.outputs()[0].shape.as_deref(), Some(&[Dim::Fixed(3), Dim::Any][..]));
    // What depends on values has no known shape, and says so.
    let places = saved_and_loaded(&model.insert_after(&output, NewNode::new("NonZero", &[&output], &["nz"])).unwrap());
    assert_eq!(places.outputs()[0].shape.as_deref(), Some(&[Dim::Any, Dim::Any][..]));
    let y = places.predict(&ramp(&[40, 4])).unwrap();
    assert_eq!(y.shape(), [2, 120]);
    // Nothing changes where nothing has to.
    let same = model.insert_after(&output, NewNode::new("Neg", &[&output], &["negative"])).unwrap();
    assert_eq!(same.outputs(), model.outputs());
}

#[test]
fn an_input_that_is_handed_out_stays_raw() {
    let port = |name: &str| value(name, DType::F32, &[None, Some(2)]);
    let node = NodeProto {
        op_type: Some("Neg".into()),
        input: vec!["x".into()],
        output: vec!["y".into()],
        ..NodeProto::default()
    };
    let graph = GraphProto {
        node: vec![node],
        input: vec![port("x")],
        output: vec![port("y"), port("x")],
        name: Some("g".into()),
        ..GraphProto::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: None, version: Some(17) }];
    let proto = ModelProto { ir_version: Some(3), opset_import, graph: Some(graph), ..ModelProto::default() };
    let model = Model::from_file(OnnxFile::from(proto)).unwrap();
    let inside = saved_and_loaded(&model.prepend_normalization(&[1.0], &[2.0]).unwrap());
    let x = Tensor::f32(vec![1, 2], vec![3.0, 5.0]).unwrap();
    let run = inside.forward(&Request::new("x", x.clone())).unwrap();
    assert_eq!(run.output("y").unwrap().as_f32().unwrap(), [-1.0, -2.0]);
    assert_eq!(run.output("x").unwrap(), x);
    let refused = model.insert_after("x", NewNode::new("Neg", &["x"], &["n"])).unwrap_err().to_string();
    assert!(refused.contains("no node makes"), "{refused}");
    // Messages of version 3 list every tensor among the inputs.
    let mut scaled = NewNode::new("Mul", &["y", "by"], &["scaled"]);
    scaled.tensors.push(("by".into(), Tensor::f32(vec![2], vec![2.0, 3.0]).unwrap()));
    let file = model.insert_after("y", scaled).unwrap().to_file().unwrap();
    let graph = file.model.graph.as_ref().unwrap();
    assert!(graph.input.iter().any(|i| i.name() == "by"), "{:?}", graph.input);
    let y = Model::from_file(file).unwrap().predict(&x).unwrap();
    assert_eq!(y.as_f32().unwrap(), [-6.0, -15.0]);
}
