//! Visits every dense tensor of a model, with a name for it, and names nodes.

use crate::OnnxError;
use crate::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};

/// `node "conv1" (Conv)`; a node without a name is named by its first output.
pub(crate) fn node_place(node: &NodeProto) -> String {
    let outputs = node.output.iter().find(|o| !o.is_empty()).map_or("", String::as_str);
    let name = if node.name().is_empty() { outputs } else { node.name() };
    format!("node {:?} ({})", crate::error_name(name), crate::error_name(node.op_type()))
}

/// `tensor "fc.weight"`.
pub(crate) fn tensor_place(tensor: &TensorProto) -> String {
    format!("tensor {:?}", crate::error_name(tensor.name()))
}

type Visit<'v> = dyn FnMut(&mut TensorProto, &str) -> Result<(), OnnxError> + 'v;

/// Calls `visit` with every dense tensor: initializers, parts of sparse ones, attributes, in all graphs and functions.
pub(crate) fn tensors_mut(model: &mut ModelProto, visit: &mut Visit<'_>) -> Result<(), OnnxError> {
    if let Some(graph) = &mut model.graph {
        graph_tensors(graph, visit)?;
    }
    for training in &mut model.training_info {
        for graph in [&mut training.initialization, &mut training.algorithm].into_iter().flatten() {
            graph_tensors(graph, visit)?;
        }
    }
    for function in &mut model.functions {
        let at = format!("function {:?}", function.name());
        for attribute in &mut function.attribute_proto {
            attribute_tensors(attribute, &at, visit)?;
        }
        for node in &mut function.node {
            node_tensors(node, visit)?;
        }
    }
    Ok(())
}

fn graph_tensors(graph: &mut GraphProto, visit: &mut Visit<'_>) -> Result<(), OnnxError> {
    for tensor in &mut graph.initializer {
        let at = tensor_place(tensor);
        visit(tensor, &at)?;
    }
    for sparse in &mut graph.sparse_initializer {
        sparse_tensors(sparse, "sparse initializer", visit)?;
    }
    graph.node.iter_mut().try_for_each(|node| node_tensors(node, visit))
}

fn node_tensors(node: &mut NodeProto, visit: &mut Visit<'_>) -> Result<(), OnnxError> {
    if node.attribute.is_empty() {
        return Ok(());
    }
    let at = node_place(node);
    node.attribute.iter_mut().try_for_each(|attribute| attribute_tensors(attribute, &at, visit))
}

fn attribute_tensors(attribute: &mut AttributeProto, at: &str, visit: &mut Visit<'_>) -> Result<(), OnnxError> {
    let name = attribute.name().to_owned();
    for tensor in attribute.t.as_deref_mut().into_iter().chain(&mut attribute.tensors) {
        visit(tensor, &format!("{at}, attribute {name:?}"))?;
    }
    for sparse in attribute.sparse_tensor.as_deref_mut().into_iter().chain(&mut attribute.sparse_tensors) {
        sparse_tensors(sparse, at, visit)?;
    }
    for graph in attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs) {
        graph_tensors(graph, visit)?;
    }
    Ok(())
}

fn sparse_tensors(sparse: &mut SparseTensorProto, at: &str, visit: &mut Visit<'_>) -> Result<(), OnnxError> {
    for tensor in [&mut sparse.values, &mut sparse.indices].into_iter().flatten() {
        let place = format!("{at}, {}", tensor_place(tensor));
        visit(tensor, &place)?;
    }
    Ok(())
}
