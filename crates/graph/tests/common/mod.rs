//! Networks of one node, for tests of single operators.
#![allow(dead_code, reason = "no test uses all of it")]

use netproof_graph::{Model, Request};
use netproof_onnx::proto::attribute_proto::AttributeType;
use netproof_onnx::proto::type_proto::{Tensor as TensorType, Value};
use netproof_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TypeProto, ValueInfoProto,
};
use netproof_onnx::{OnnxFile, data_type_code};
use netproof_tensor::{DType, Tensor};

/// The value of an attribute.
pub(crate) enum Attr {
    Int(i64),
    Ints(&'static [i64]),
    Float(f32),
    Floats(&'static [f32]),
    Text(&'static str),
    Texts(&'static [&'static str]),
}

fn attribute((name, value): &(&str, Attr)) -> AttributeProto {
    let mut a = AttributeProto { name: Some((*name).to_owned()), ..Default::default() };
    let kind = match value {
        Attr::Int(v) => {
            a.i = Some(*v);
            AttributeType::Int
        }
        Attr::Ints(v) => {
            a.ints = v.to_vec();
            AttributeType::Ints
        }
        Attr::Float(v) => {
            a.f = Some(*v);
            AttributeType::Float
        }
        Attr::Floats(v) => {
            a.floats = v.to_vec();
            AttributeType::Floats
        }
        Attr::Text(v) => {
            a.s = Some(v.as_bytes().to_vec());
            AttributeType::String
        }
        Attr::Texts(v) => {
            a.strings = v.iter().map(|s| s.as_bytes().to_vec()).collect();
            AttributeType::Strings
        }
    };
    a.r#type = Some(kind as i32);
    a
}

fn port(name: &str, dtype: DType) -> ValueInfoProto {
    let tensor = TensorType { elem_type: Some(data_type_code(dtype)), ..Default::default() };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(Value::TensorType(tensor)), ..Default::default() }),
        ..Default::default()
    }
}

/// Present inputs by name: `x0`, `x1` and so on by their places in the node.
pub(crate) fn named(inputs: &[Option<Tensor>]) -> Vec<(String, Tensor)> {
    inputs.iter().enumerate().filter_map(|(i, t)| t.clone().map(|t| (format!("x{i}"), t))).collect()
}

/// A network of one node, with the inputs of [`named`] and the given outputs.
pub(crate) fn one_node(
    operator: &str,
    opset: i64,
    attributes: &[(&str, Attr)],
    inputs: &[Option<Tensor>],
    outputs: &[(String, DType)],
) -> Model {
    let input = |(i, t): (usize, &Option<Tensor>)| if t.is_some() { format!("x{i}") } else { String::new() };
    let node = NodeProto {
        op_type: Some(operator.to_owned()),
        input: inputs.iter().enumerate().map(input).collect(),
        output: outputs.iter().map(|(name, _)| name.clone()).collect(),
        attribute: attributes.iter().map(attribute).collect(),
        ..Default::default()
    };
    let graph = GraphProto {
        name: Some("one".to_owned()),
        node: vec![node],
        input: named(inputs).iter().map(|(name, t)| port(name, t.dtype())).collect(),
        output: outputs.iter().map(|(name, dtype)| port(name, *dtype)).collect(),
        ..Default::default()
    };
    let proto = ModelProto {
        ir_version: Some(10),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(opset) }],
        graph: Some(graph),
        ..Default::default()
    };
    Model::from_file(OnnxFile::from(proto)).unwrap_or_else(|e| panic!("{operator}-{opset}: {e}"))
}

/// Sum of outputs times seeds.
pub(crate) fn weighted_outputs(model: &Model, request: &Request, seeds: &[(String, Tensor)]) -> f64 {
    let run = model.forward(request).unwrap();
    let product = |(name, seed): &(String, Tensor)| -> f64 {
        let y = run.output(name).unwrap();
        let terms = y.as_f32().unwrap().iter().zip(seed.as_f32().unwrap());
        terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    seeds.iter().map(product).sum()
}
