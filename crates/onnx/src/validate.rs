//! Structure of a model: names, order, versions, tensors. Operators are not looked at.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::ops::RangeInclusive;

use crate::proto::attribute_proto::AttributeType;
use crate::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto::dimension, type_proto,
};
use crate::tensor::{self, data_type_name};
use crate::walk::{node_place, tensor_place};
use crate::{Limits, OnnxError};

/// Versions of the default operator set that are accepted.
pub const OPSETS: RangeInclusive<i64> = 1..=24;
/// Operator sets came with version 3; version 14 is the newest that the messages know.
const IR_VERSIONS: RangeInclusive<i64> = 3..=14;

/// `ai.onnx` is another name of the default domain.
pub(crate) fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

/// Domain, name and overload, by which nodes call functions.
pub(crate) type FunctionKey<'a> = (&'a str, &'a str, &'a str);

pub(crate) fn function_key(function: &FunctionProto) -> FunctionKey<'_> {
    (domain(function.domain()), function.name(), function.overload())
}

pub(crate) fn call_key(node: &NodeProto) -> FunctionKey<'_> {
    (domain(node.domain()), node.op_type(), node.overload())
}

/// Checks a whole model.
pub(crate) fn model(model: &ModelProto, limits: &Limits) -> Result<(), OnnxError> {
    let version = model.ir_version.unwrap_or(0);
    if !IR_VERSIONS.contains(&version) {
        let (min, max) = (*IR_VERSIONS.start(), *IR_VERSIONS.end());
        return Err(OnnxError::Version { what: "IR version".into(), version, min, max });
    }
    let graph = model.graph.as_ref().ok_or(OnnxError::Missing { at: "model".into(), what: "graph" })?;
    let imports = opsets(&model.opset_import, "model")?;
    let mut functions = HashSet::new();
    for function in &model.functions {
        if function.name().is_empty() {
            return Err(OnnxError::Missing { at: "function".into(), what: "name" });
        }
        if !functions.insert(function_key(function)) {
            return Err(duplicate("model", "function", function.name()));
        }
    }
    let mut check = Check { limits, imports, functions, elements: 0, inside_function: false };
    if graph.node.is_empty() {
        return Err(OnnxError::Missing { at: graph_place(graph), what: "every node" });
    }
    check.graph(graph, None, 0)?;
    function_cycle(&model.functions)?;
    check.inside_function = true;
    for function in &model.functions {
        check.function(function)?;
    }
    for training in &model.training_info {
        for graph in [&training.initialization, &training.algorithm].into_iter().flatten() {
            // Training graphs use the names of the main graph, so only their tensors can be judged alone.
            graph.initializer.iter().try_for_each(|t| check.tensor(t, &tensor_place(t)))?;
        }
    }
    Ok(())
}

fn opsets<'a>(imports: &'a [OperatorSetIdProto], at: &str) -> Result<HashSet<&'a str>, OnnxError> {
    let mut domains = HashSet::new();
    for import in imports {
        let name = domain(import.domain());
        if !domains.insert(name) {
            return Err(duplicate(at, "operator set", name));
        }
        let version = import.version.unwrap_or(0);
        let (min, max) = (*OPSETS.start(), *OPSETS.end());
        if name.is_empty() && !OPSETS.contains(&version) {
            let what = if at == "model" { "opset".to_owned() } else { format!("opset of {at}") };
            return Err(OnnxError::Version { what, version, min, max });
        }
    }
    Ok(domains)
}

fn duplicate(at: &str, kind: &'static str, name: &str) -> OnnxError {
    OnnxError::Duplicate { at: at.to_owned(), kind, name: crate::error_name(name).to_owned() }
}

fn graph_place(graph: &GraphProto) -> String {
    format!("graph {:?}", crate::error_name(graph.name()))
}

struct Check<'a> {
    limits: &'a Limits,
    imports: HashSet<&'a str>,
    functions: HashSet<FunctionKey<'a>>,
    elements: u64,
    inside_function: bool,
}

/// Names that a graph can see: its own, then those of the graphs around it.
struct Scope<'s, 'a> {
    names: HashSet<&'a str>,
    outer: Option<&'s Scope<'s, 'a>>,
}

impl Scope<'_, '_> {
    fn sees(&self, name: &str) -> bool {
        self.names.contains(name) || self.outer.is_some_and(|outer| outer.sees(name))
    }
}

impl<'a> Check<'a> {
    fn graph(&mut self, graph: &'a GraphProto, outer: Option<&Scope<'_, 'a>>, depth: usize) -> Result<(), OnnxError> {
        let at = graph_place(graph);
        if depth > self.limits.subgraph_depth {
            let (value, limit) = (depth as u64, self.limits.subgraph_depth as u64);
            return Err(OnnxError::TooLarge { at, what: "depth of subgraphs", value, limit });
        }
        let mut names = HashSet::new();
        for input in &graph.input {
            define(&mut names, input.name(), &at)?;
        }
        let mut weights = HashSet::new();
        for tensor in &graph.initializer {
            self.tensor(tensor, &tensor_place(tensor))?;
            define(&mut weights, tensor.name(), &at)?;
        }
        for sparse in &graph.sparse_initializer {
            self.sparse(sparse, "sparse initializer")?;
            define(&mut weights, sparse.values.as_ref().map_or("", |v| v.name()), &at)?;
        }
        // An initializer of an input's name is the input's default.
        names.extend(weights);
        for node in &graph.node {
            node.output.iter().filter(|o| !o.is_empty()).try_for_each(|output| define(&mut names, output, &at))?;
        }
        for info in graph.input.iter().chain(&graph.output).chain(&graph.value_info) {
            value_info(info)?;
        }
        let scope = Scope { names, outer };
        for node in &graph.node {
            self.node(node, &scope, depth)?;
        }
        if graph.output.is_empty() {
            return Err(OnnxError::Missing { at, what: "every output" });
        }
        let mut outputs = HashSet::new();
        for output in &graph.output {
            if !scope.sees(output.name()) {
                return Err(OnnxError::UndefinedValue { at, name: output.name().to_owned() });
            }
            // A branch may give one value twice; the caller of a network could not tell the two apart.
            if !outputs.insert(output.name()) && outer.is_none() {
                return Err(duplicate(&at, "output", output.name()));
            }
        }
        topological_order(graph)?;
        Ok(())
    }

    fn node(&mut self, node: &'a NodeProto, scope: &Scope<'_, 'a>, depth: usize) -> Result<(), OnnxError> {
        if node.op_type().is_empty() {
            return Err(OnnxError::Missing { at: node_place(node), what: "operator type" });
        }
        if !self.functions.contains(&call_key(node)) && !self.imports.contains(domain(node.domain())) {
            return Err(OnnxError::OpsetMissing { at: node_place(node), domain: node.domain().to_owned() });
        }
        for input in node.input.iter().filter(|i| !i.is_empty()) {
            if !scope.sees(input) {
                return Err(OnnxError::UndefinedValue {
                    at: node_place(node),
                    name: crate::error_name(input).to_owned(),
                });
            }
        }
        let mut attributes = HashSet::new();
        for attribute in &node.attribute {
            if !attributes.insert(attribute.name()) {
                return Err(duplicate(&node_place(node), "attribute", attribute.name()));
            }
            self.attribute(attribute, || node_place(node))?;
            for graph in attribute.g.as_deref().into_iter().chain(&attribute.graphs) {
                self.graph(graph, Some(scope), depth + 1)?;
            }
        }
        Ok(())
    }

    fn attribute(&mut self, attribute: &AttributeProto, at: impl Fn() -> String) -> Result<(), OnnxError> {
        let wrong = |reason| OnnxError::Attribute {
            at: at(),
            attribute: crate::error_name(attribute.name()).to_owned(),
            reason,
        };
        if attribute.name().is_empty() {
            return Err(wrong("has no name"));
        }
        if !attribute.ref_attr_name().is_empty() && !self.inside_function {
            return Err(wrong("refers to a function's attribute, but is not inside a function"));
        }
        let Ok(kind) = AttributeType::try_from(attribute.r#type.unwrap_or(0)) else {
            return Err(wrong("has a type that does not exist"));
        };
        let absent = match kind {
            AttributeType::Tensor => attribute.t.is_none(),
            AttributeType::Graph => attribute.g.is_none(),
            AttributeType::SparseTensor => attribute.sparse_tensor.is_none(),
            AttributeType::TypeProto => attribute.tp.is_none(),
            _ => false,
        };
        if absent && attribute.ref_attr_name().is_empty() {
            return Err(wrong("has no value of its type"));
        }
        for tensor in attribute.t.as_deref().into_iter().chain(&attribute.tensors) {
            self.tensor(tensor, &format!("{}, attribute {:?}", at(), attribute.name()))?;
        }
        for sparse in attribute.sparse_tensor.as_deref().into_iter().chain(&attribute.sparse_tensors) {
            self.sparse(sparse, &at())?;
        }
        for tp in attribute.tp.as_deref().into_iter().chain(&attribute.type_protos) {
            type_proto(tp, &at())?;
        }
        Ok(())
    }

    fn tensor(&mut self, tensor: &TensorProto, at: &str) -> Result<(), OnnxError> {
        let declared = tensor::check(tensor, at, self.limits)?;
        self.elements = self.elements.saturating_add(declared.count);
        let (value, limit) = (self.elements, self.limits.total_elements);
        if value > limit {
            return Err(OnnxError::TooLarge {
                at: at.to_owned(),
                what: "number of elements of all tensors",
                value,
                limit,
            });
        }
        Ok(())
    }

    /// Sparse tensors are kept in the file, so their parts must be sound; nothing else here uses them.
    fn sparse(&mut self, sparse: &SparseTensorProto, at: &str) -> Result<(), OnnxError> {
        for (part, what) in
            [(&sparse.values, "values of a sparse tensor"), (&sparse.indices, "indices of a sparse tensor")]
        {
            let tensor = part.as_ref().ok_or(OnnxError::Missing { at: at.to_owned(), what })?;
            self.tensor(tensor, &format!("{at}, {}", tensor_place(tensor)))?;
        }
        dims(sparse.dims.iter().copied(), at, 0)
    }

    fn function(&mut self, function: &'a FunctionProto) -> Result<(), OnnxError> {
        let at = format!("function {:?}", crate::error_name(function.name()));
        // A body is judged by the function's own imports; functions come last, so the model's are no longer needed.
        self.imports = opsets(&function.opset_import, &at)?;
        let mut names = HashSet::new();
        for input in &function.input {
            define(&mut names, input, &at)?;
        }
        for node in &function.node {
            node.output.iter().filter(|o| !o.is_empty()).try_for_each(|output| define(&mut names, output, &at))?;
        }
        let mut attributes = HashSet::new();
        for name in
            function.attribute.iter().map(String::as_str).chain(function.attribute_proto.iter().map(|a| a.name()))
        {
            if !attributes.insert(name) {
                return Err(duplicate(&at, "attribute", name));
            }
        }
        for attribute in &function.attribute_proto {
            self.attribute(attribute, || at.clone())?;
        }
        let scope = Scope { names, outer: None };
        for node in &function.node {
            self.node(node, &scope, 0)?;
        }
        for output in &function.output {
            if !scope.sees(output) {
                return Err(OnnxError::UndefinedValue { at, name: output.clone() });
            }
        }
        order(&function.node, &at)?;
        Ok(())
    }
}

fn define<'a>(names: &mut HashSet<&'a str>, name: &'a str, at: &str) -> Result<(), OnnxError> {
    if name.is_empty() {
        return Err(OnnxError::Missing { at: at.to_owned(), what: "name of an input or initializer" });
    }
    if names.insert(name) { Ok(()) } else { Err(duplicate(at, "value", name)) }
}

fn value_info(info: &ValueInfoProto) -> Result<(), OnnxError> {
    match &info.r#type {
        Some(tp) => type_proto(tp, &format!("value {:?}", crate::error_name(info.name()))),
        None => Ok(()),
    }
}

/// Checks element types and shapes; the depth of types inside types is bounded by the depth of messages.
fn type_proto(tp: &TypeProto, at: &str) -> Result<(), OnnxError> {
    let tensor = |code: Option<i32>, shape: &Option<TensorShapeProto>| {
        let code = code.unwrap_or(0);
        // Type 0 is what exporters write for values whose type they did not work out.
        if data_type_name(code).starts_with("type ") {
            return Err(OnnxError::DataType { at: at.to_owned(), code });
        }
        let known = shape.iter().flat_map(|s| &s.dim).filter_map(|d| match d.value {
            Some(dimension::Value::DimValue(value)) => Some(value),
            _ => None,
        });
        // Some exporters write -1 for a dimension that they do not know.
        dims(known, at, -1)
    };
    match &tp.value {
        Some(type_proto::Value::TensorType(t)) => tensor(t.elem_type, &t.shape),
        Some(type_proto::Value::SparseTensorType(t)) => tensor(t.elem_type, &t.shape),
        Some(type_proto::Value::SequenceType(t)) => t.elem_type.as_deref().map_or(Ok(()), |tp| type_proto(tp, at)),
        Some(type_proto::Value::OptionalType(t)) => t.elem_type.as_deref().map_or(Ok(()), |tp| type_proto(tp, at)),
        Some(type_proto::Value::MapType(t)) => t.value_type.as_deref().map_or(Ok(()), |tp| type_proto(tp, at)),
        Some(type_proto::Value::OpaqueType(_)) | None => Ok(()),
    }
}

fn dims(values: impl Iterator<Item = i64> + Clone, at: &str, lowest: i64) -> Result<(), OnnxError> {
    let wrong = |reason| OnnxError::Dims { at: at.to_owned(), dims: values.clone().take(40).collect(), reason };
    let mut product = 1i64;
    for value in values.clone() {
        if value < lowest {
            return Err(wrong("must not be negative"));
        }
        product = product.checked_mul(value.max(1)).ok_or_else(|| wrong("have a product that overflows"))?;
    }
    // The same bound as for host tensors, which hold up to eight bytes an element.
    if product > i64::MAX / 8 { Err(wrong("have a product that overflows")) } else { Ok(()) }
}

/// Order in which the nodes of a graph can be run, as indices into `graph.node`. A graph that is already in order
/// keeps it.
///
/// What a subgraph uses of its surroundings counts as an input of its node.
/// # Errors
/// [`OnnxError::Cycle`] with the nodes of one cycle.
pub fn topological_order(graph: &GraphProto) -> Result<Vec<usize>, OnnxError> {
    order(&graph.node, &graph_place(graph))
}

fn order(nodes: &[NodeProto], at: &str) -> Result<Vec<usize>, OnnxError> {
    let mut producer = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        producer.extend(node.output.iter().filter(|o| !o.is_empty()).map(|output| (output.as_str(), index)));
    }
    let needs: Vec<BTreeSet<usize>> = nodes
        .iter()
        .map(|node| {
            let mut names = BTreeSet::new();
            used_names(node, &mut names);
            names.iter().filter_map(|name| producer.get(name).copied()).collect()
        })
        .collect();
    let order = sort(&needs);
    if order.len() == nodes.len() {
        return Ok(order);
    }
    let place = |i: &usize| nodes.get(*i).map(node_place).unwrap_or_default();
    let cycle = find_cycle(&needs, &order);
    Err(OnnxError::Cycle { at: at.to_owned(), nodes: cycle.iter().take(20).map(place).collect() })
}

/// Names that a node takes from its graph: its inputs and what its subgraphs use without defining it.
fn used_names<'a>(node: &'a NodeProto, out: &mut BTreeSet<&'a str>) {
    out.extend(node.input.iter().map(String::as_str).filter(|i| !i.is_empty()));
    for graph in node.attribute.iter().flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs)) {
        let mut inner = BTreeSet::new();
        graph.node.iter().for_each(|node| used_names(node, &mut inner));
        inner.extend(graph.output.iter().map(|o| o.name()));
        let own: HashSet<&str> = (graph.input.iter().map(|i| i.name()))
            .chain(graph.initializer.iter().map(|i| i.name()))
            .chain(graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref()).map(|v| v.name()))
            .chain(graph.node.iter().flat_map(|n| n.output.iter().map(String::as_str)))
            .collect();
        out.extend(inner.into_iter().filter(|name| !own.contains(name)));
    }
}

/// Kahn's algorithm, smallest index first; shorter than `needs` where there is a cycle.
fn sort(needs: &[BTreeSet<usize>]) -> Vec<usize> {
    let mut waiting: Vec<usize> = needs.iter().map(BTreeSet::len).collect();
    let mut users = vec![Vec::new(); needs.len()];
    for (index, needed) in needs.iter().enumerate() {
        for &n in needed {
            users[n].push(index);
        }
    }
    let mut ready: BinaryHeap<_> = (0..needs.len()).filter(|&i| waiting[i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for &user in &users[index] {
            waiting[user] -= 1;
            if waiting[user] == 0 {
                ready.push(Reverse(user));
            }
        }
    }
    order
}

/// One cycle among the nodes that `sorted` lacks, in order of execution.
fn find_cycle(needs: &[BTreeSet<usize>], sorted: &[usize]) -> Vec<usize> {
    let sorted: HashSet<_> = sorted.iter().copied().collect();
    let Some(start) = (0..needs.len()).find(|i| !sorted.contains(i)) else { return Vec::new() };
    let (mut path, mut position, mut current) = (Vec::new(), HashMap::new(), start);
    // Every node that is left needs another one that is left, so walking back must return to where it was.
    while !position.contains_key(&current) {
        position.insert(current, path.len());
        path.push(current);
        let Some(&next) = needs[current].iter().find(|n| !sorted.contains(n)) else { break };
        current = next;
    }
    let from = position.get(&current).copied().unwrap_or(0);
    let mut cycle = path.split_off(from);
    cycle.reverse();
    // Where a cycle starts is arbitrary; the first node of the file is the easiest to find.
    let first = cycle.iter().enumerate().min_by_key(|(_, index)| **index).map_or(0, |(at, _)| at);
    cycle.rotate_left(first);
    cycle
}

/// Refuses functions that call themselves, directly or through others.
pub(crate) fn function_cycle(functions: &[FunctionProto]) -> Result<(), OnnxError> {
    fn calls<'a>(nodes: &'a [NodeProto], index: &HashMap<FunctionKey<'a>, usize>, out: &mut BTreeSet<usize>) {
        for node in nodes {
            out.extend(index.get(&call_key(node)));
            for graph in node.attribute.iter().flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs)) {
                calls(&graph.node, index, out);
            }
        }
    }
    let index: HashMap<_, _> = functions.iter().enumerate().map(|(i, f)| (function_key(f), i)).collect();
    let needs: Vec<BTreeSet<usize>> = functions
        .iter()
        .map(|function| {
            let mut out = BTreeSet::new();
            calls(&function.node, &index, &mut out);
            // Default attributes may hold graphs, which may call functions too.
            for graph in function.attribute_proto.iter().flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs)) {
                calls(&graph.node, &index, &mut out);
            }
            out
        })
        .collect();
    let order = sort(&needs);
    if order.len() == functions.len() {
        return Ok(());
    }
    let cycle = find_cycle(&needs, &order);
    let nodes =
        cycle.iter().take(20).filter_map(|&i| functions.get(i)).map(|f| format!("function {:?}", f.name())).collect();
    Err(OnnxError::Cycle { at: "model".into(), nodes })
}
