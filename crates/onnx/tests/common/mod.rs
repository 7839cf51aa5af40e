//! Small models for tests.
#![allow(dead_code, missing_docs)]

use netproof_onnx::proto::attribute_proto::AttributeType;
use netproof_onnx::proto::tensor_proto::DataType;
use netproof_onnx::proto::*;
use netproof_onnx::{Bytes, Limits, OnnxError, OnnxFile};
use prost::Message as _;

pub(crate) const TINY: &[u8] = include_bytes!("../fixtures/tiny-mlp.onnx");
pub(crate) const MOBILENET: &[u8] = include_bytes!("../fixtures/fashion-mobilenet.onnx");

pub(crate) fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

pub(crate) fn node(name: &str, op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let list = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
    NodeProto { name: some(name), op_type: some(op), input: list(inputs), output: list(outputs), ..Default::default() }
}

pub(crate) fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&d: &i64| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(d)),
        ..Default::default()
    };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = type_proto::Tensor { elem_type: Some(1), shape };
    let tp = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: some(name), r#type: Some(tp), ..Default::default() }
}

pub(crate) fn tensor(name: &str, data_type: DataType, dims: &[i64]) -> TensorProto {
    TensorProto { name: some(name), data_type: Some(data_type as i32), dims: dims.to_vec(), ..Default::default() }
}

pub(crate) fn floats(name: &str, values: &[f32]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorProto { raw_data: Some(Bytes::from(raw)), ..tensor(name, DataType::Float, &[values.len() as i64]) }
}

pub(crate) fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: some(name), r#type: Some(kind as i32), ..Default::default() }
}

pub(crate) fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { f: Some(f), ..attribute(name, AttributeType::Float) }
}

pub(crate) fn reference(name: &str, of: &str) -> AttributeProto {
    AttributeProto { ref_attr_name: some(of), ..attribute(name, AttributeType::Float) }
}

pub(crate) fn branch(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(Box::new(graph)), ..attribute(name, AttributeType::Graph) }
}

pub(crate) fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: some(domain), version: Some(version) }
}

pub(crate) fn graph(nodes: Vec<NodeProto>) -> GraphProto {
    GraphProto {
        name: some("g"),
        node: nodes,
        input: vec![value("x", &[1])],
        output: vec![value("y", &[1])],
        ..Default::default()
    }
}

/// A model of input `x` and output `y`.
pub(crate) fn model(nodes: Vec<NodeProto>) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset("", 17)],
        graph: Some(graph(nodes)),
        ..Default::default()
    }
}

/// `y = Relu(x)`, for tests that change one thing.
pub(crate) fn plain() -> ModelProto {
    model(vec![node("relu", "Relu", &["x"], &["y"])])
}

pub(crate) fn subgraph(nodes: Vec<NodeProto>, output: &str) -> GraphProto {
    GraphProto { name: some("branch"), node: nodes, output: vec![value(output, &[1])], ..Default::default() }
}

/// A model that uses every corner: functions, branches, sparse and external-looking parts, training, annotations.
pub(crate) fn rich() -> ModelProto {
    let mut model = plain();
    let entry = |k: &str, v: &str| StringStringEntryProto { key: some(k), value: some(v) };
    let mut call = node("call", "Twice", &["x"], &["a"]);
    call.domain = some("own");
    call.overload = some("v2");
    call.metadata_props = vec![entry("pkg", "torch")];
    call.device_configurations = vec![NodeDeviceConfigurationProto {
        configuration_id: some("two"),
        sharding_spec: vec![ShardingSpecProto { tensor_name: some("x"), device: vec![0, 1], ..Default::default() }],
        pipeline_stage: Some(1),
    }];
    let mut choose = node("choose", "If", &["flag"], &["y"]);
    let inner = vec![node("in", "Add", &["a", "w"], &["t"])];
    choose.attribute = vec![
        branch("then_branch", subgraph(inner, "t")),
        branch("else_branch", subgraph(vec![node("out", "Neg", &["a"], &["e"])], "e")),
    ];
    let body = vec![node("n", "Add", &["p", "p"], &["q"])];
    model.functions = vec![FunctionProto {
        name: some("Twice"),
        domain: some("own"),
        overload: some("v2"),
        input: vec!["p".into()],
        output: vec!["q".into()],
        node: body,
        opset_import: vec![opset("", 17)],
        attribute_proto: vec![float("alpha", 0.5)],
        value_info: vec![value("q", &[1])],
        metadata_props: vec![entry("k", "v")],
        ..Default::default()
    }];
    model.metadata_props = vec![entry("author", "somebody")];
    model.configuration = vec![DeviceConfigurationProto {
        name: some("two"),
        num_devices: Some(2),
        device: vec!["a".into(), "b".into()],
    }];
    model.training_info = vec![TrainingInfoProto {
        algorithm: Some(graph(vec![node("step", "Sub", &["w", "x"], &["y"])])),
        update_binding: vec![entry("w", "y")],
        ..Default::default()
    }];
    let graph = model.graph.as_mut().unwrap();
    graph.node = vec![call, choose];
    graph.initializer = vec![
        floats("w", &[1.0, -2.0]),
        TensorProto { int32_data: vec![1], ..tensor("flag", DataType::Bool, &[]) },
        TensorProto { string_data: vec![b"cat".to_vec()], ..tensor("names", DataType::String, &[1]) },
        TensorProto { int64_data: vec![-1, 4], ..tensor("shape", DataType::Int64, &[2]) },
    ];
    graph.sparse_initializer = vec![SparseTensorProto {
        values: Some(floats("sparse", &[1.0])),
        indices: Some(TensorProto { int64_data: vec![3], ..tensor("", DataType::Int64, &[1]) }),
        dims: vec![10],
    }];
    graph.quantization_annotation = vec![TensorAnnotation {
        tensor_name: some("w"),
        quant_parameter_tensor_names: vec![entry("SCALE_TENSOR", "s")],
    }];
    graph.metadata_props = vec![entry("g", "h")];
    graph.value_info = vec![value("a", &[1])];
    model
}

pub(crate) fn load(model: &ModelProto) -> Result<OnnxFile, OnnxError> {
    load_bytes(&model.encode_to_vec())
}

pub(crate) fn load_bytes(bytes: &[u8]) -> Result<OnnxFile, OnnxError> {
    OnnxFile::from_bytes(bytes, None, &Limits::default())
}

/// What a model is refused with.
pub(crate) fn refusal(model: &ModelProto) -> String {
    load(model).expect_err("the model should be refused").to_string()
}

/// SplitMix64 (Steele et al. 2014), for reproducible damage.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}
