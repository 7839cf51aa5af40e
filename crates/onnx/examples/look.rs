//! Opens an ONNX file as if it came from a stranger and says what is in it.
//! `cargo run -p netproof-onnx --example look -- examples/fashion/fashion-cnn.onnx`
#![allow(clippy::print_stdout)]

use std::path::Path;

use netproof_onnx::{Limits, OnnxError, OnnxFile, tensor_from_proto};

fn main() -> Result<(), OnnxError> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "examples/fashion/fashion-cnn.onnx".to_owned());
    let file = OnnxFile::load(Path::new(&path), &Limits::default())?;
    for opset in &file.model.opset_import {
        println!("operator set {} of `{}`", opset.version(), opset.domain());
    }
    let Some(graph) = &file.model.graph else { return Ok(()) };
    for node in &graph.node {
        println!("{:<24} {:?} -> {:?}", node.op_type(), node.input, node.output);
    }
    for stored in &graph.initializer {
        let tensor = tensor_from_proto(stored)?;
        println!("{:<24} {} {:?}", stored.name(), tensor.dtype(), tensor.shape());
    }
    Ok(())
}
