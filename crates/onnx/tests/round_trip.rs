//! What is loaded is what is saved.
#![allow(missing_docs)]

mod common;

use common::*;
use netproof_onnx::proto::tensor_proto::DataType;
use netproof_onnx::proto::*;
use netproof_onnx::{Limits, OnnxError, OnnxFile, SaveOptions, read_tensor_file, tensor_from_proto, tensor_to_proto};
use netproof_tensor::{DType, Elements, Tensor};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

#[test]
fn real_models_come_back_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("tiny.onnx", TINY), ("mobilenet.onnx", MOBILENET)] {
        let file = load_bytes(bytes).unwrap();
        assert!(file.to_bytes() == bytes, "{name}");
        let path = folder.path().join(name);
        file.save(&path, SaveOptions::default()).unwrap();
        file.save(&path, SaveOptions::default()).expect("an existing file is replaced");
        assert!(std::fs::read(&path).unwrap() == bytes, "{name}");
        assert_eq!(OnnxFile::load(&path, &Limits::default()).unwrap().model, file.model);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file stays");
}

#[test]
fn every_corner_of_the_messages_survives() {
    let model = rich();
    let file = load(&model).unwrap();
    assert_eq!(file.model, model);
    assert_eq!(load_bytes(&file.to_bytes()).unwrap().model, model);
    assert!(file.lost_fields().is_empty());
}

/// A field that no version of ONNX has.
fn stranger(number: u32, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut out);
    encode_varint(text.len() as u64, &mut out);
    out.extend(text.bytes());
    out
}

fn put(out: &mut Vec<u8>, number: u32, mut message: Vec<u8>, extra: &[u8]) {
    message.extend(extra);
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(message.len() as u64, out);
    out.append(&mut message);
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|w| w == part)
}

#[test]
fn fields_of_newer_versions_survive_where_a_user_would_miss_them() {
    let model = rich();
    let mut rest = model.clone();
    let mut graph = rest.graph.take().unwrap();
    let functions = std::mem::take(&mut rest.functions);
    let nodes = std::mem::take(&mut graph.node);
    let weights = std::mem::take(&mut graph.initializer);
    let mut body = Vec::new();
    for node in &nodes {
        put(&mut body, 1, node.encode_to_vec(), &stranger(900, &format!("node {}", node.name())));
    }
    for weight in &weights {
        put(&mut body, 5, weight.encode_to_vec(), &stranger(901, &format!("weight {}", weight.name())));
    }
    body.extend(graph.encode_to_vec());
    let mut bytes = rest.encode_to_vec();
    put(&mut bytes, 7, body, &stranger(902, "graph"));
    put(&mut bytes, 25, functions[0].encode_to_vec(), &stranger(903, "function"));
    bytes.extend(stranger(904, "model"));
    bytes.extend([0xe8, 0x3f, 0x07]); // Field 1021, number 7.

    let mut file = load_bytes(&bytes).unwrap();
    assert_eq!(file.model, model);
    // Nodes are found again although they moved.
    file.model.graph.as_mut().unwrap().node.reverse();
    let written = file.to_bytes();
    for part in ["node call", "node choose", "weight w", "weight flag", "graph", "function", "model"] {
        assert!(contains(&written, &stranger_tail(part)), "{part}");
    }
    assert!(contains(&written, &[0xe8, 0x3f, 0x07]));
    let mut call = nodes[0].encode_to_vec();
    call.extend(stranger(900, "node call"));
    assert!(contains(&written, &call), "the field follows its own node");
    let again = load_bytes(&written).unwrap();
    assert_eq!(again.model, file.model);
    assert_eq!(again.to_bytes(), written);
}

fn stranger_tail(text: &str) -> Vec<u8> {
    stranger(900, text)[2..].to_vec()
}

#[test]
fn fields_that_cannot_be_kept_are_listed() {
    let mut bytes = plain();
    bytes.graph.as_mut().unwrap().input.clear();
    bytes.graph.as_mut().unwrap().node[0].input.clear();
    let mut rest = bytes;
    let mut graph = rest.graph.take().unwrap();
    graph.input.clear();
    let mut body = graph.encode_to_vec();
    put(&mut body, 11, value("x", &[1]).encode_to_vec(), &stranger(77, "?"));
    let mut bytes = rest.encode_to_vec();
    put(&mut bytes, 7, body, &[]);
    assert_eq!(load_bytes(&bytes).unwrap().lost_fields(), ["ValueInfoProto field 77"]);
}

#[test]
fn a_weight_is_replaced_in_the_type_of_the_file() {
    let mut model = plain();
    let half = TensorProto {
        int32_data: vec![0x3c00, 0x4000],
        doc_string: some("kept"),
        ..tensor("h", DataType::Float16, &[2])
    };
    model.graph.as_mut().unwrap().initializer = vec![floats("w", &[1.0, 2.0]), half];
    let mut file = load(&model).unwrap();
    let new = Tensor::f32(vec![2], vec![0.5, -3.0]).unwrap();
    file.set_initializer("w", &new).unwrap();
    file.set_initializer("h", &new).unwrap();
    let again = load_bytes(&file.to_bytes()).unwrap();
    assert_eq!(tensor_from_proto(again.initializer("w").unwrap()).unwrap(), new);
    let half = again.initializer("h").unwrap();
    assert_eq!((half.data_type(), half.doc_string(), half.int32_data.len()), (DataType::Float16 as i32, "kept", 0));
    assert_eq!(tensor_from_proto(half).unwrap().as_f32().unwrap(), [0.5, -3.0]);

    assert!(matches!(file.set_initializer("none", &new), Err(OnnxError::NoInitializer { .. })));
    let wrong = Tensor::f32(vec![3], vec![0.0; 3]).unwrap();
    let text = file.set_initializer("w", &wrong).unwrap_err().to_string();
    assert_eq!(text, "initializer \"w\" is float [2], cannot be replaced by float [3]");
    assert!(file.set_initializer("w", &Tensor::i64(vec![2], vec![1, 2]).unwrap()).is_err());
}

#[test]
fn weights_share_the_memory_of_the_file() {
    let file = load_bytes(MOBILENET).unwrap();
    let weights = &file.model.graph.as_ref().unwrap().initializer;
    let largest = weights.iter().filter_map(|w| w.raw_data.as_ref()).max_by_key(|r| r.len()).unwrap();
    let others = weights.iter().filter_map(|w| w.raw_data.as_ref()).map(|r| r.as_ptr() as usize);
    assert!(others.into_iter().all(|p| p.abs_diff(largest.as_ptr() as usize) < MOBILENET.len()));
}

fn wrapped(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, number, bytes.to_vec(), &[]);
    out
}

#[test]
fn lone_tensors_are_read_and_other_values_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits::default();
    let read = |bytes: Vec<u8>| {
        let path = folder.path().join("input_0.pb");
        std::fs::write(&path, bytes).unwrap();
        read_tensor_file(&path, &limits)
    };
    let tensor_of = Tensor::new(DType::F16, vec![2], Elements::Float(vec![1.0, 2.0])).unwrap();
    let (name, back) = read(tensor_to_proto("x", &tensor_of, None).encode_to_vec()).unwrap();
    assert_eq!((name.as_str(), back), ("x", tensor_of));
    let empty = tensor("", DataType::Float, &[0]).encode_to_vec();
    assert!(read(empty).unwrap().1.is_empty());

    let unsupported = |bytes: Vec<u8>| read(bytes).unwrap_err().to_string();
    let mut sequence = stranger(1, "seq");
    sequence.extend([0x10, 1]);
    let mut nested = sequence.clone();
    put(&mut nested, 5, sequence.clone(), &[]);
    assert_eq!(unsupported(nested), "file \"input_0.pb\": unsupported: sequence or optional value");
    let packed = [wrapped(1, &[2, 3]), vec![0x10, 1], wrapped(9, &[0; 24])].concat();
    assert_eq!(read(packed).unwrap().1.shape(), [2, 3], "dimensions in one field are dimensions");
    assert!(unsupported(sequence.clone()).ends_with("unsupported: empty sequence or optional value"));
    put(&mut sequence, 3, floats("a", &[1.0]).encode_to_vec(), &[]);
    assert_eq!(unsupported(sequence), "file \"input_0.pb\": unsupported: sequence or optional value");
    assert!(unsupported(rich().graph.unwrap().sparse_initializer[0].encode_to_vec()).ends_with("sparse tensor"));
    let nibble = TensorProto { int32_data: vec![3], ..tensor("", DataType::Uint4, &[2]) };
    assert!(unsupported(nibble.encode_to_vec()).ends_with("unsupported: element type uint4"));
    assert!(matches!(read(vec![]), Err(OnnxError::Missing { .. })));
    let bytes = floats("x", &[1.0, 2.0, 3.0]).encode_to_vec();
    for end in 1..bytes.len() {
        assert!(read(bytes[..end].to_vec()).is_err() || end > bytes.len() - 4, "cut at {end}");
    }
}
