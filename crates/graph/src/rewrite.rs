//! Rewrites: a network in, another network out. They work on the file, and the model is read from it again.
//!
//! Names keep their meaning: a value that still has its name holds what it held before, or what the rewrite is there to
//! change; what was renamed loses its description in `value_info`. Model-local functions are inlined first.

mod ensemble;
mod fold_batch_norm;
mod insert;
mod interval_network;
mod narrow;
mod normalization;
mod reinitialise;
mod scale_logits;

pub use ensemble::Mean;
pub use interval_network::IntervalNetwork;

use std::collections::HashSet;
use std::sync::Arc;

use netproof_onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, type_proto};
use netproof_onnx::{OnnxFile, dtype_of_code, inline_functions, tensor_from_proto, topological_order};
use netproof_tensor::{DType, Elements, Tensor};

use crate::error::GraphError;
use crate::file_builder::{Attribute, NewNode, fresh, value_info};
use crate::model::{Dim, Model};
use crate::plan::Plan;

/// First operator set whose arithmetic broadcasts as NumPy does, which inserted nodes rely on.
const OLDEST_OPSET: i64 = 7;

/// First version of the messages where an initializer need not be an input too.
const SEPARATE_INITIALIZERS: i64 = 4;

/// A rewrite in progress: the graph taken out of its file.
struct Edit<'m> {
    what: &'static str,
    model: &'m Model,
    file: OnnxFile,
    graph: GraphProto,
    values: HashSet<String>,
    node_names: HashSet<String>,
    /// Values whose type and shape may no longer be the declared ones.
    behind: HashSet<String>,
}

impl<'m> Edit<'m> {
    fn new(model: &'m Model, what: &'static str) -> Result<Self, GraphError> {
        let mut file = model.to_file()?;
        inline_functions(&mut file.model)?;
        let graph = file.model.graph.take().unwrap_or_default();
        let (mut values, mut node_names) = (HashSet::new(), HashSet::new());
        collect_names(&graph, &mut values, &mut node_names);
        Ok(Self { what, model, file, graph, values, node_names, behind: HashSet::new() })
    }

    fn refuse(&self, message: String) -> GraphError {
        GraphError::Rewrite { what: self.what, message }
    }

    /// Version of the default operator set.
    fn opset(&self) -> i64 {
        opset_of(&self.file.model)
    }

    fn need_broadcasting(&self) -> Result<(), GraphError> {
        let opset = self.opset();
        if opset < OLDEST_OPSET {
            let message =
                format!("the file has opset {opset}, needed is {OLDEST_OPSET}; convert it with onnx.version_converter");
            return Err(self.refuse(message));
        }
        Ok(())
    }

    fn fresh_value(&mut self, wanted: &str) -> String {
        fresh(&mut self.values, wanted)
    }

    fn producer(&self, value: &str) -> Option<usize> {
        self.graph.node.iter().position(|n| !value.is_empty() && n.output.iter().any(|o| o == value))
    }

    fn is_output(&self, value: &str) -> bool {
        self.graph.output.iter().any(|o| o.name() == value)
    }

    /// Refuses a value that is handed out although no node makes it: nothing can be put before the output then.
    fn need_producer(&self, value: &str) -> Result<(), GraphError> {
        if self.is_output(value) && self.producer(value).is_none() {
            return Err(self.refuse(format!("`{value}` is an output of the network that no node makes")));
        }
        Ok(())
    }

    /// How often nodes take a value, inner graphs included.
    fn uses(&self, value: &str) -> usize {
        self.graph.node.iter().map(|n| uses_in(n, value)).sum()
    }

    /// Element type of a value: as inferred, else as declared.
    fn dtype(&self, value: &str) -> Option<DType> {
        let shapes = self.model.example_shapes(2).ok();
        let plan = shapes.and_then(|s| self.model.plan(&s).ok());
        let inferred = plan.zip(self.model.id(value).ok()).and_then(|(p, id)| Some(p.facts.get(id)?.as_ref()?.dtype));
        let declared = || {
            let g = &self.graph;
            let info = g.input.iter().chain(&g.output).chain(&g.value_info).find(|v| v.name() == value)?;
            declared_dtype(info)
        };
        inferred.or_else(declared)
    }

    /// The element type of a value that is to be multiplied, added and so on.
    fn float_dtype(&self, value: &str) -> Result<DType, GraphError> {
        let dtype = self.dtype(value).unwrap_or(DType::F32);
        if dtype.is_float() {
            Ok(dtype)
        } else {
            Err(self.refuse(format!("`{value}` holds {dtype} values, floats are needed")))
        }
    }

    /// A node that gives a constant. Not an initializer: training must not change what a rewrite put in.
    fn constant(
        &mut self,
        name: &str,
        dtype: DType,
        shape: Vec<usize>,
        values: Vec<f32>,
    ) -> Result<String, GraphError> {
        let value = self.fresh_value(name);
        let tensor = Tensor::new(dtype, shape, Elements::Float(values))?;
        let node = NewNode::new("Constant", &[], &[&value]).named(&value).with("value", Attribute::Tensor(tensor));
        self.insert(0, node);
        Ok(value)
    }

    /// Puts a node at a place of the list, under a name that no other node has.
    fn insert(&mut self, at: usize, node: NewNode) {
        let (mut node, tensors) = node.into_proto();
        let wanted = match (node.name(), node.output.first()) {
            ("", Some(first)) => first.clone(),
            (name, _) => name.to_owned(),
        };
        node.name = Some(fresh(&mut self.node_names, &wanted));
        self.values.extend(node.output.iter().cloned());
        if self.file.model.ir_version() < SEPARATE_INITIALIZERS {
            for t in &tensors {
                let dims: Vec<Dim> = t.dims.iter().map(|&d| usize::try_from(d).map_or(Dim::Any, Dim::Fixed)).collect();
                let dtype = dtype_of_code(t.data_type()).unwrap_or(DType::F32);
                self.graph.input.push(value_info(t.name(), dtype, &dims));
            }
        }
        self.graph.initializer.extend(tensors);
        self.graph.node.insert(at.min(self.graph.node.len()), node);
    }

    /// Puts a node behind a value, for the users that `sees` picks. The node takes `value` and makes one output.
    ///
    /// Where the value is an output of the network, the node's output gets its name and the value becomes
    /// `<value>/before`; otherwise, or where the value is an input, the node's own output name is used. Gives the name of
    /// the new value.
    fn splice(
        &mut self,
        value: &str,
        mut node: NewNode,
        sees: impl Fn(&NodeProto) -> bool,
    ) -> Result<String, GraphError> {
        let at = self.producer(value).map_or(0, |i| i + 1);
        let producer = self.producer(value).filter(|_| self.is_output(value));
        let (old, new) = if let Some(producer) = producer {
            let old = self.fresh_value(&format!("{value}/before"));
            if let Some(node) = self.graph.node.get_mut(producer) {
                replace_all(&mut node.output, value, &old);
            }
            for annotation in self.graph.quantization_annotation.iter_mut().filter(|a| a.tensor_name() == value) {
                annotation.tensor_name = Some(old.clone());
            }
            (old, value.to_owned())
        } else {
            let wanted = node.outputs.first().filter(|o| !o.is_empty()).cloned();
            let wanted = wanted.unwrap_or_else(|| format!("{value}/{}", node.operator.to_lowercase()));
            (value.to_owned(), self.fresh_value(&wanted))
        };
        for user in &mut self.graph.node {
            let name = if sees(user) { &new } else { &old };
            rename_uses(user, value, name);
        }
        replace_all(&mut node.inputs, value, &old);
        node.outputs = vec![new.clone()];
        self.insert(at, node);
        Ok(new)
    }

    /// Removes initializers, constants and their descriptions that nothing uses any more.
    fn prune(&mut self, candidates: &[String]) {
        for name in candidates.iter().filter(|n| !n.is_empty()) {
            if self.uses(name) > 0 || self.is_output(name) {
                continue;
            }
            self.graph.initializer.retain(|t| t.name() != name);
            self.graph.input.retain(|i| i.name() != name || !self.model.is_parameter(name));
            self.graph.node.retain(|n| n.op_type() != "Constant" || n.output.iter().all(|o| o != name));
            self.forget(name);
        }
    }

    /// Removes what the file says about a value that is no longer there.
    fn forget(&mut self, value: &str) {
        self.graph.value_info.retain(|v| v.name() != value);
        self.graph.quantization_annotation.retain(|a| a.tensor_name() != value);
    }

    /// Removes the declared types and shapes of everything behind these values, since they may have changed. Those of
    /// outputs are written anew by [`Edit::finish`].
    fn forget_behind(&mut self, values: &[String]) {
        let mut behind: HashSet<String> = values.iter().cloned().collect();
        let order = topological_order(&self.graph).unwrap_or_else(|_| (0..self.graph.node.len()).collect());
        for i in order {
            if let Some(node) = self.graph.node.get(i)
                && node.input.iter().any(|x| behind.contains(x))
            {
                behind.extend(node.output.iter().cloned());
            }
        }
        self.graph.value_info.retain(|v| !behind.contains(v.name()));
        self.behind.extend(behind);
    }

    /// A stored tensor or the output of a `Constant`, with its type in the file.
    fn stored(&self, name: &str) -> Option<(Tensor, i32)> {
        let read = |t: &TensorProto| Some((tensor_from_proto(t).ok()?, t.data_type()));
        if let Some(t) = self.graph.initializer.iter().find(|t| t.name() == name) {
            return read(t);
        }
        let node = self.graph.node.get(self.producer(name)?)?;
        let value = node.attribute.iter().find(|a| a.name() == "value")?;
        if node.op_type() == "Constant" { read(value.t.as_deref()?) } else { None }
    }

    /// The rewritten network, checked. Which parameters train is kept by name.
    fn finish(mut self) -> Result<Model, GraphError> {
        let order = topological_order(&self.graph)?;
        let mut nodes: Vec<Option<NodeProto>> = std::mem::take(&mut self.graph.node).into_iter().map(Some).collect();
        self.graph.node = order.into_iter().filter_map(|i| nodes.get_mut(i)?.take()).collect();
        self.file.model.graph = Some(self.graph);
        self.file.validate()?;
        let mut model = Model::from_file(self.file)?;
        if let Some(file) = redeclared(&model, &self.behind)? {
            model = Model::from_file(file)?;
        }
        model.device = self.model.device.clone();
        let trainable: Vec<_> = self.model.parameters().map(|p| (p.name, p.trainable)).collect();
        let now: HashSet<_> = model.parameters().filter(|p| p.dtype.is_float()).map(|p| p.name).collect();
        for (name, trains) in trainable.into_iter().filter(|(name, _)| now.contains(name)) {
            model.set_trainable(&name, trains)?;
        }
        Ok(model)
    }
}

/// The file with the inferred types and shapes of these outputs, or `None` where it declares them so already.
///
/// Which axes are open is seen by planning with two sizes of the open axes of the inputs.
fn redeclared(model: &Model, outputs: &HashSet<String>) -> Result<Option<OnnxFile>, GraphError> {
    const SIZES: [usize; 2] = [2, 3];
    if !model.outputs().iter().any(|o| outputs.contains(&o.name)) {
        return Ok(None);
    }
    let mut plans = Vec::new();
    for size in SIZES {
        plans.push(model.plan(&model.example_shapes(size)?).ok());
    }
    let fact = |plan: &Option<Arc<Plan>>, name: &str| plan.as_ref()?.facts.get(model.id(name).ok()?)?.clone();
    let batch = model.inputs().first().and_then(|i| match i.shape.as_ref()?.first()? {
        Dim::Named(name) => Some(name.clone()),
        _ => None,
    });
    let mut file = model.to_file()?;
    let mut changed = false;
    let graph = file.model.graph.iter_mut();
    for info in graph.flat_map(|g| &mut g.output).filter(|o| outputs.contains(o.name())) {
        let Some(port) = model.outputs().iter().find(|o| o.name == info.name()) else { continue };
        let (dtype, dims) = match [0, 1].map(|i| plans.get(i).and_then(|p| fact(p, &port.name))) {
            [Some(two), Some(three)] => {
                let declared = port.shape.as_ref().filter(|s| s.len() == two.shape.len());
                let open = |axis: usize| match declared.and_then(|s| s.get(axis)) {
                    Some(open @ (Dim::Named(_) | Dim::Any)) => open.clone(),
                    _ if axis == 0 => batch.clone().map_or(Dim::Any, Dim::Named),
                    _ => Dim::Any,
                };
                let sizes = two.shape.iter().zip(&three.shape).enumerate();
                (two.dtype, sizes.map(|(axis, (a, b))| if a == b { Dim::Fixed(*a) } else { open(axis) }).collect())
            }
            // The shape depends on values; the number of axes is all that may still be so.
            _ => (port.dtype, vec![Dim::Any; port.shape.as_ref().map_or(0, Vec::len)]),
        };
        if dtype != port.dtype || port.shape.as_ref().is_some_and(|s| *s != dims) {
            changed = true;
            info.r#type = value_info(info.name(), dtype, &dims).r#type;
        }
    }
    Ok(changed.then_some(file))
}

impl Model {
    /// Version of the default operator set that the file is written in.
    pub fn opset(&self) -> i64 {
        opset_of(&self.file().model)
    }

    fn is_parameter(&self, name: &str) -> bool {
        self.parameter(name).is_some()
    }
}

fn opset_of(model: &ModelProto) -> i64 {
    let default = |d: &str| d.is_empty() || d == "ai.onnx";
    model.opset_import.iter().find(|o| default(o.domain())).map_or(1, |o| o.version())
}

fn collect_names(graph: &GraphProto, values: &mut HashSet<String>, nodes: &mut HashSet<String>) {
    let infos = graph.input.iter().chain(&graph.output).chain(&graph.value_info).map(|v| v.name());
    values.extend(infos.chain(graph.initializer.iter().map(|t| t.name())).map(str::to_owned));
    for node in &graph.node {
        nodes.insert(node.name().to_owned());
        values.extend(node.input.iter().chain(&node.output).cloned());
        for a in &node.attribute {
            a.g.as_deref().into_iter().chain(&a.graphs).for_each(|g| collect_names(g, values, nodes));
        }
    }
}

fn declared_dtype(info: &ValueInfoProto) -> Option<DType> {
    match &info.r#type {
        Some(TypeProto { value: Some(type_proto::Value::TensorType(t)), .. }) => dtype_of_code(t.elem_type()),
        _ => None,
    }
}

fn replace_all(names: &mut [String], from: &str, to: &str) {
    names.iter_mut().filter(|n| *n == from).for_each(|n| to.clone_into(n));
}

/// Renames a value where a node takes it, also in graphs inside the node.
fn rename_uses(node: &mut NodeProto, from: &str, to: &str) {
    replace_all(&mut node.input, from, to);
    for a in &mut node.attribute {
        for graph in a.g.as_deref_mut().into_iter().chain(&mut a.graphs) {
            graph.node.iter_mut().for_each(|n| rename_uses(n, from, to));
            // An inner graph may hand out a value of the graph around it.
            let own = graph.node.iter().any(|n| n.output.iter().any(|o| o == from));
            let outputs = graph.output.iter_mut().filter(|o| !own && o.name() == from);
            outputs.for_each(|o| o.name = Some(to.to_owned()));
        }
    }
}

fn uses_in(node: &NodeProto, value: &str) -> usize {
    let graphs = node.attribute.iter().flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs));
    let inner = graphs.map(|g| {
        let handed_out = g.output.iter().filter(|o| o.name() == value).count();
        handed_out + g.node.iter().map(|n| uses_in(n, value)).sum::<usize>()
    });
    node.input.iter().filter(|i| *i == value).count() + inner.sum::<usize>()
}

/// Whether a node is an operator of the default domain.
fn is(node: &NodeProto, operators: &[&str]) -> bool {
    matches!(node.domain(), "" | "ai.onnx") && operators.contains(&node.op_type())
}

fn int_attribute(node: &NodeProto, name: &str, default: i64) -> i64 {
    node.attribute.iter().find(|a| a.name() == name).map_or(default, |a| a.i())
}

fn float_attribute(node: &NodeProto, name: &str, default: f32) -> f32 {
    node.attribute.iter().find(|a| a.name() == name).map_or(default, |a| a.f())
}
