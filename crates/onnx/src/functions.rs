//! Model-local functions, replaced by their bodies.
//!
//! Semantics: ONNX IR specification, "Functions". A call binds inputs and outputs by position; an attribute of the body
//! that refers to an attribute of the function takes the call's value, else the function's default, else is left out,
//! so that the operator's own default applies.

use std::collections::{HashMap, HashSet};

use prost::Message as _;

use crate::proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, schema};
use crate::validate::{FunctionKey, call_key, domain, function_cycle, function_key};
use crate::walk::{self, node_place};
use crate::{Limits, OnnxError, wire};

/// Replaces every call of a model-local function, in the main graph, its subgraphs and training graphs, and removes the
/// functions.
///
/// Values and nodes of a body get new names, `<call>/<name>`, which nothing else in the model has. The result may hold
/// at most [`Limits::default`]'s number of nodes.
/// # Errors
/// A function calls itself, a call does not fit its function, a function needs another operator set version than the
/// model, or the result is too large. The model is then unchanged.
pub fn inline_functions(model: &mut ModelProto) -> Result<(), OnnxError> {
    if model.functions.is_empty() {
        return Ok(());
    }
    function_cycle(&model.functions)?;
    let mut inline = Inline {
        functions: model.functions.iter().map(|f| (function_key(f), f)).collect(),
        domains: model.functions.iter().map(|f| domain(f.domain())).collect(),
        imports: model.opset_import.clone(),
        names: Names::of(model),
        costs: HashMap::new(),
        steps: 0,
        spent: 0,
        limits: Limits::default(),
    };
    let mut graph = model.graph.clone();
    let mut training = model.training_info.clone();
    if let Some(graph) = &mut graph {
        inline.graph(graph, 0)?;
    }
    for info in &mut training {
        for graph in [&mut info.initialization, &mut info.algorithm].into_iter().flatten() {
            inline.graph(graph, 0)?;
        }
    }
    let imports = inline.imports;
    (model.graph, model.training_info, model.opset_import) = (graph, training, imports);
    model.functions.clear();
    Ok(())
}

struct Inline<'a> {
    functions: HashMap<FunctionKey<'a>, &'a FunctionProto>,
    domains: HashSet<&'a str>,
    imports: Vec<OperatorSetIdProto>,
    names: Names,
    /// Nodes looked at, those of bodies included: bounds bodies that double at each level, even empty ones.
    steps: u64,
    /// Memory of one copy of a function's body, roughly, by function.
    costs: HashMap<FunctionKey<'a>, u64>,
    /// Memory of all copies.
    spent: u64,
    limits: Limits,
}

impl<'a> Inline<'a> {
    fn graph(&mut self, graph: &mut GraphProto, depth: usize) -> Result<(), OnnxError> {
        let (value, limit) = (depth as u64, self.limits.subgraph_depth as u64);
        if value > limit {
            let at = format!("graph {:?}, with functions inlined", crate::error_name(graph.name()));
            return Err(OnnxError::TooLarge { at, what: "depth of subgraphs", value, limit });
        }
        // A stack instead of recursion: functions may call each other in a chain as long as the file likes.
        let mut pending: Vec<NodeProto> = std::mem::take(&mut graph.node);
        pending.reverse();
        let mut done = Vec::with_capacity(pending.len());
        while let Some(mut node) = pending.pop() {
            self.steps += 1;
            let (value, limit) = (self.steps, self.limits.nodes);
            if value > limit {
                let at = format!("{}, with functions inlined", node_place(&node));
                return Err(OnnxError::TooLarge { at, what: "number of nodes", value, limit });
            }
            if let Some(&function) = self.functions.get(&call_key(&node)) {
                let body = self.expand(&node, function)?;
                pending.extend(body.into_iter().rev());
                continue;
            }
            for attribute in &mut node.attribute {
                for graph in attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs) {
                    self.graph(graph, depth + 1)?;
                }
            }
            done.push(node);
        }
        graph.node = done;
        Ok(())
    }

    /// The body of a function, bound to one call.
    fn expand(&mut self, call: &NodeProto, function: &'a FunctionProto) -> Result<Vec<NodeProto>, OnnxError> {
        self.opsets(call, function)?;
        let cost = match self.costs.get(&function_key(function)) {
            Some(cost) => *cost,
            None => *self.costs.entry(function_key(function)).or_insert(cost_of(function, &self.limits)?),
        };
        self.spend(cost, &node_place(call))?;
        for (what, given, formal) in
            [("inputs", call.input.len(), function.input.len()), ("outputs", call.output.len(), function.output.len())]
        {
            if given > formal {
                return Err(refuse(call, function, format!("has {formal} {what}, the call gives {given}")));
            }
        }
        let first_output = call.output.iter().find(|o| !o.is_empty()).map_or(call.op_type(), String::as_str);
        let label = if call.name().is_empty() { first_output } else { call.name() }.to_owned();
        let mut values: HashMap<String, String> = HashMap::new();
        for (i, formal) in function.input.iter().enumerate() {
            // An input that the call leaves out is left out in the body too.
            values.insert(formal.clone(), call.input.get(i).cloned().unwrap_or_default());
        }
        let mut copies = Vec::new();
        for (formal, actual) in function.output.iter().zip(&call.output).filter(|(_, actual)| !actual.is_empty()) {
            match values.get(formal) {
                // A body that passes an input through, or gives one value twice, has no node to name the output.
                Some(source) if source.is_empty() => {
                    return Err(refuse(
                        call,
                        function,
                        format!("returns its input \"{formal}\", which the call leaves out"),
                    ));
                }
                Some(source) => copies.push((source.clone(), actual.clone())),
                None => {
                    values.insert(formal.clone(), actual.clone());
                }
            }
        }
        for output in function.node.iter().flat_map(|n| &n.output).filter(|o| !o.is_empty()) {
            if !values.contains_key(output) {
                values.insert(output.clone(), self.names.fresh(&label, output));
            }
        }
        let attributes = Bound { call, function };
        let mut body = Vec::with_capacity(function.node.len() + copies.len());
        for node in &function.node {
            let mut node = node.clone();
            self.bind(&mut node, &values, &attributes, &label, 0)?;
            body.push(node);
        }
        for (source, actual) in copies {
            let name = self.names.fresh(&label, "Identity");
            let (op_type, input, output) = (Some("Identity".to_owned()), vec![source], vec![actual]);
            body.push(NodeProto { name: Some(name), op_type, input, output, ..NodeProto::default() });
        }
        Ok(body)
    }

    fn spend(&mut self, cost: u64, at: &str) -> Result<(), OnnxError> {
        self.spent = self.spent.saturating_add(cost);
        let (value, limit) = (self.spent, self.limits.decode_overhead_bytes);
        if value > limit {
            let at = format!("{at}, with functions inlined");
            return Err(OnnxError::TooLarge { at, what: "memory for copies of functions, in bytes,", value, limit });
        }
        Ok(())
    }

    /// The body must mean the same under the model's operator sets.
    fn opsets(&mut self, call: &NodeProto, function: &FunctionProto) -> Result<(), OnnxError> {
        for wanted in &function.opset_import {
            let name = domain(wanted.domain());
            let found = self.imports.iter().find(|i| domain(i.domain()) == name);
            match found {
                None => self.imports.push(wanted.clone()),
                // A version of a domain that has only functions selects nothing.
                Some(found) if found.version != wanted.version && !self.domains.contains(name) => {
                    let (wanted, found) = (wanted.version(), found.version());
                    let reason = format!("needs opset {wanted} of domain \"{name}\", the model has {found}");
                    return Err(refuse(call, function, reason));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Renames what a node of a body uses and gives, and fills in the function's attributes.
    fn bind(
        &mut self,
        node: &mut NodeProto,
        values: &HashMap<String, String>,
        attributes: &Bound<'_>,
        label: &str,
        depth: usize,
    ) -> Result<(), OnnxError> {
        let place = node_place(node);
        let rename = |name: &mut String| {
            if name.is_empty() {
                return Ok(());
            }
            let undefined = || OnnxError::UndefinedValue { at: place.clone(), name: name.clone() };
            let new = values.get(name.as_str()).ok_or_else(undefined)?;
            name.clone_from(new);
            Ok(())
        };
        node.input.iter_mut().try_for_each(rename)?;
        node.output.iter_mut().try_for_each(rename)?;
        let own = if node.name().is_empty() { node.op_type() } else { node.name() };
        node.name = Some(self.names.fresh(label, own));
        for attribute in std::mem::take(&mut node.attribute) {
            let Some((mut attribute, from_call)) = attributes.value(attribute) else { continue };
            if from_call {
                // Graphs given by the caller speak of the caller's values, so they stay as they are.
                self.spend(attribute.encoded_len() as u64, &place)?;
            } else {
                for graph in attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs) {
                    self.bind_graph(graph, values, attributes, label, depth + 1)?;
                }
            }
            node.attribute.push(attribute);
        }
        Ok(())
    }

    fn bind_graph(
        &mut self,
        graph: &mut GraphProto,
        outer: &HashMap<String, String>,
        attributes: &Bound<'_>,
        label: &str,
        depth: usize,
    ) -> Result<(), OnnxError> {
        let (value, limit) = (depth as u64, self.limits.subgraph_depth as u64);
        if value > limit {
            let at = format!("graph {:?}", crate::error_name(graph.name()));
            return Err(OnnxError::TooLarge { at, what: "depth of subgraphs", value, limit });
        }
        let mut values = outer.clone();
        let own: HashSet<String> = definitions(graph).map(str::to_owned).collect();
        for name in own {
            let new = self.names.fresh(label, &name);
            values.insert(name, new);
        }
        let place = format!("graph {:?}", crate::error_name(graph.name()));
        let rename = |name: &mut Option<String>| {
            let Some(name) = name.as_mut().filter(|n| !n.is_empty()) else { return Ok(()) };
            let undefined = || OnnxError::UndefinedValue { at: place.clone(), name: name.clone() };
            let new = values.get(name.as_str()).ok_or_else(undefined)?;
            name.clone_from(new);
            Ok(())
        };
        let infos = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
        infos.map(|i| &mut i.name).try_for_each(rename)?;
        let sparse = graph.sparse_initializer.iter_mut().filter_map(|s| s.values.as_mut());
        graph.initializer.iter_mut().chain(sparse).map(|t| &mut t.name).try_for_each(rename)?;
        graph.quantization_annotation.iter_mut().map(|a| &mut a.tensor_name).try_for_each(rename)?;
        for node in &mut graph.node {
            self.bind(node, &values, attributes, label, depth)?;
        }
        Ok(())
    }
}

fn refuse(call: &NodeProto, function: &FunctionProto, reason: String) -> OnnxError {
    let name = format!("{}:{}", function.domain(), function.name());
    OnnxError::Function { at: node_place(call), function: crate::error_name(&name).to_owned(), reason }
}

/// Memory of one copy of a body. Raw data are shared between copies and cost nothing.
fn cost_of(function: &FunctionProto, limits: &Limits) -> Result<u64, OnnxError> {
    let mut light = ModelProto { functions: vec![function.clone()], ..ModelProto::default() };
    walk::tensors_mut(&mut light, &mut |tensor, _| {
        tensor.raw_data = None;
        Ok(())
    })?;
    let bytes = light.encode_to_vec();
    Ok(wire::survey(&schema::MODEL_PROTO, &bytes, limits)?.overhead_bytes + bytes.len() as u64)
}

/// The attributes of one call.
struct Bound<'a> {
    call: &'a NodeProto,
    function: &'a FunctionProto,
}

impl Bound<'_> {
    /// The attribute with its value, and whether the caller gave it; `None` where neither caller nor function has one.
    fn value(&self, attribute: AttributeProto) -> Option<(AttributeProto, bool)> {
        let wanted = attribute.ref_attr_name();
        if wanted.is_empty() {
            return Some((attribute, false));
        }
        let given = self.call.attribute.iter().find(|a| a.name() == wanted);
        let from_call = given.is_some();
        let found = given.or_else(|| self.function.attribute_proto.iter().find(|a| a.name() == wanted))?;
        Some((AttributeProto { name: attribute.name, ..found.clone() }, from_call))
    }
}

/// Names in use, of values and nodes alike, with the suffix to try next.
struct Names {
    used: HashMap<String, u32>,
}

/// Longest part of a new name that comes from the call, so that names do not grow with each level of calls.
const LABEL_CHARS: usize = 120;

impl Names {
    fn of(model: &ModelProto) -> Self {
        fn visit(graph: &GraphProto, used: &mut HashMap<String, u32>) {
            used.extend(definitions(graph).map(|name| (name.to_owned(), 1)));
            for node in &graph.node {
                used.insert(node.name().to_owned(), 1);
                node.attribute
                    .iter()
                    .flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs))
                    .for_each(|g| visit(g, used));
            }
        }
        let mut used = HashMap::new();
        let training = model.training_info.iter().flat_map(|t| t.initialization.iter().chain(&t.algorithm));
        model.graph.iter().chain(training).for_each(|graph| visit(graph, &mut used));
        Self { used }
    }

    fn fresh(&mut self, label: &str, name: &str) -> String {
        let label = label.char_indices().nth(LABEL_CHARS).and_then(|(end, _)| label.get(..end)).unwrap_or(label);
        let wanted = format!("{label}/{name}");
        if !self.used.contains_key(&wanted) {
            self.used.insert(wanted.clone(), 1);
            return wanted;
        }
        loop {
            let suffix = self.used.entry(wanted.clone()).or_insert(1);
            let candidate = format!("{wanted}_{suffix}");
            *suffix += 1;
            if !self.used.contains_key(&candidate) {
                self.used.insert(candidate.clone(), 1);
                return candidate;
            }
        }
    }
}

/// Names that a graph introduces.
fn definitions(graph: &GraphProto) -> impl Iterator<Item = &str> {
    (graph.input.iter().map(|i| i.name()))
        .chain(graph.initializer.iter().map(|i| i.name()))
        .chain(graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref()).map(|v| v.name()))
        .chain(graph.node.iter().flat_map(|n| n.output.iter().map(String::as_str)))
        .filter(|name| !name.is_empty())
}
