//! The model: an ONNX file, and the graph that was read from it.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use netproof_onnx::proto::{GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto};
use netproof_onnx::{
    Limits, OnnxFile, SaveOptions, data_type_name, dtype_of_code, inline_functions, tensor_from_proto,
    topological_order,
};
use netproof_tensor::{DType, Tensor};

use crate::attributes::Attributes;
use crate::error::{GraphError, OpError, Unsupported};
use crate::fusion::{self, Fusion};
use crate::operator::Operator;
use crate::ops;
use crate::plan::Plan;
use crate::real::{Real, RealDevice};

/// Index of a value in its graph.
pub(crate) type ValueId = usize;

/// Values that are given, with their shapes.
pub(crate) type Shapes = Vec<(ValueId, Vec<usize>)>;

/// One dimension of a declared shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A fixed size.
    Fixed(usize),
    /// A size that the caller chooses; the same name means the same size.
    Named(String),
    /// A size that the caller chooses.
    Any,
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(n) => write!(f, "{n}"),
            Self::Named(name) => f.write_str(name),
            Self::Any => f.write_str("?"),
        }
    }
}

/// A declared input or output of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Declared shape; `None` where the file gives no rank.
    pub shape: Option<Vec<Dim>>,
}

/// A stored tensor of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Name in the file.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Element type in the file.
    pub dtype: DType,
    /// Whether training changes it.
    pub trainable: bool,
}

pub(crate) struct Parameter {
    pub(crate) tensor: Arc<Tensor>,
    pub(crate) trainable: bool,
    on_device: OnceLock<Real>,
}

impl Parameter {
    fn new(tensor: Tensor, trainable: bool) -> Self {
        Self { tensor: Arc::new(tensor), trainable, on_device: OnceLock::new() }
    }

    pub(crate) fn real(&self, device: &RealDevice) -> Option<Real> {
        if let Some(real) = self.on_device.get() {
            return Some(real.clone());
        }
        let real = Real::of(&self.tensor, device)?;
        Some(self.on_device.get_or_init(|| real).clone())
    }
}

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) operator: String,
    pub(crate) op: Arc<dyn Operator>,
    pub(crate) inputs: Vec<Option<ValueId>>,
    pub(crate) outputs: Vec<Option<ValueId>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name, self.operator)
    }
}

/// A network: a named graph in topological order, with its parameters, and the file that it came from.
///
/// Evaluation mode unless a [`crate::Request`] asks for training mode.
pub struct Model {
    file: OnnxFile,
    pub(crate) names: Vec<String>,
    pub(crate) ids: HashMap<String, ValueId>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) fusions: Vec<Fusion>,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    pub(crate) parameters: HashMap<ValueId, Parameter>,
    parameter_order: Vec<ValueId>,
    changed: BTreeSet<ValueId>,
    pub(crate) device: RealDevice,
    pub(crate) plans: Mutex<Vec<(Shapes, Arc<Plan>)>>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("inputs", &self.inputs).field("outputs", &self.outputs).finish_non_exhaustive()
    }
}

impl Model {
    /// Loads an ONNX file.
    /// # Errors
    /// The file is damaged or beyond the limits, or uses operators that are not supported: all of them are listed.
    pub fn load(path: &Path) -> Result<Self, GraphError> {
        Self::from_file(OnnxFile::load(path, &Limits::default())?)
    }

    /// Reads an ONNX file from memory; external data are refused.
    /// # Errors
    /// See [`Model::load`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, GraphError> {
        Self::from_file(OnnxFile::from_bytes(bytes, None, &Limits::default())?)
    }

    /// Builds the graph of a loaded file. Model-local functions are inlined in the graph, not in the file.
    /// # Errors
    /// See [`Model::load`].
    pub fn from_file(file: OnnxFile) -> Result<Self, GraphError> {
        let mut inlined: ModelProto;
        let proto = if file.model.functions.is_empty() {
            &file.model
        } else {
            inlined = file.model.clone();
            inline_functions(&mut inlined)?;
            &inlined
        };
        let empty = GraphProto::default();
        let graph = proto.graph.as_ref().unwrap_or(&empty);
        let mut b = Builder::default();
        b.read(proto, graph)?;
        if !b.unsupported.is_empty() {
            return Err(GraphError::Unsupported(b.unsupported));
        }
        let outputs: Vec<ValueId> = b.outputs.iter().filter_map(|p| b.ids.get(&p.name).copied()).collect();
        let model = Self {
            fusions: fusion::find(&b.nodes, &outputs, b.names.len()),
            names: b.names,
            ids: b.ids,
            nodes: b.nodes,
            inputs: b.inputs,
            outputs: b.outputs,
            parameters: b.parameters,
            parameter_order: b.parameter_order,
            changed: BTreeSet::new(),
            device: RealDevice::cpu(),
            plans: Mutex::new(Vec::new()),
            file,
        };
        model.check()?;
        Ok(model)
    }

    /// Inputs that a caller must give, in file order.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// Declared outputs, in file order.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Every named value: inputs, parameters and what nodes produce.
    pub fn value_names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Stored tensors in file order.
    pub fn parameters(&self) -> impl Iterator<Item = ParameterInfo> + '_ {
        self.parameter_order.iter().map(|id| {
            let p = &self.parameters[id];
            ParameterInfo {
                name: self.names[*id].clone(),
                shape: p.tensor.shape().to_vec(),
                dtype: p.tensor.dtype(),
                trainable: p.trainable,
            }
        })
    }

    /// A stored tensor by name.
    pub fn parameter(&self, name: &str) -> Option<&Tensor> {
        self.ids.get(name).and_then(|id| self.parameters.get(id)).map(|p| &*p.tensor)
    }

    /// Replaces the values of a stored tensor; saving keeps the file's own element type.
    /// # Errors
    /// There is no such parameter, or shape or kind differ.
    pub fn set_parameter(&mut self, name: &str, tensor: Tensor) -> Result<(), GraphError> {
        let id = self.parameter_id(name)?;
        let old = &self.parameters[&id];
        let same_kind = old.tensor.dtype().is_float() == tensor.dtype().is_float();
        if old.tensor.shape() != tensor.shape() || !same_kind {
            return Err(GraphError::Rewrite {
                what: "set_parameter",
                message: format!(
                    "`{name}` is {} {:?}, got {} {:?}",
                    old.tensor.dtype(),
                    old.tensor.shape(),
                    tensor.dtype(),
                    tensor.shape()
                ),
            });
        }
        let (_, shape, elements) = tensor.into_parts();
        let tensor = Tensor::new(old.tensor.dtype(), shape, elements)?;
        let trainable = old.trainable;
        self.parameters.insert(id, Parameter::new(tensor, trainable));
        self.changed.insert(id);
        self.forget_plans();
        Ok(())
    }

    /// Declares whether training changes a parameter.
    /// # Errors
    /// There is no such parameter, or it holds no floats.
    pub fn set_trainable(&mut self, name: &str, trainable: bool) -> Result<(), GraphError> {
        let id = self.parameter_id(name)?;
        if let Some(p) = self.parameters.get_mut(&id) {
            if trainable && !p.tensor.dtype().is_float() {
                return Err(GraphError::NoGradient {
                    name: name.to_owned(),
                    reason: format!("it holds {} values", p.tensor.dtype()),
                });
            }
            p.trainable = trainable;
        }
        self.forget_plans();
        Ok(())
    }

    /// All trainable parameters as one vector, in file order.
    pub fn trainable_values(&self) -> Vec<f32> {
        let mut flat = Vec::new();
        for id in self.trainable_ids() {
            flat.extend_from_slice(self.parameters[&id].tensor.as_f32().unwrap_or_default());
        }
        flat
    }

    /// Sets all trainable parameters from one vector, in the order of [`Model::trainable_values`].
    /// # Errors
    /// The length differs.
    pub fn set_trainable_values(&mut self, flat: &[f32]) -> Result<(), GraphError> {
        let ids = self.trainable_ids();
        let needed: usize = ids.iter().map(|id| self.parameters[id].tensor.len()).sum();
        if needed != flat.len() {
            return Err(GraphError::Rewrite {
                what: "set_trainable_values",
                message: format!("the network has {needed} trainable values, got {}", flat.len()),
            });
        }
        let mut rest = flat;
        for id in ids {
            let old = &self.parameters[&id].tensor;
            let (now, later) = rest.split_at(old.len());
            let tensor = Tensor::f32(old.shape().to_vec(), now.to_vec())?;
            rest = later;
            let name = self.names[id].clone();
            self.set_parameter(&name, tensor)?;
        }
        Ok(())
    }

    pub(crate) fn trainable_ids(&self) -> Vec<ValueId> {
        self.parameter_order.iter().copied().filter(|id| self.parameters[id].trainable).collect()
    }

    /// The file with all changes of parameters written into it.
    /// # Errors
    /// A value does not fit the file's element type.
    pub fn to_file(&self) -> Result<OnnxFile, GraphError> {
        let mut file = self.file.clone();
        for id in &self.changed {
            file.set_initializer(&self.names[*id], &self.parameters[id].tensor)?;
        }
        Ok(file)
    }

    /// SHA-256 of the network as ONNX bytes, external data included, as 64 hexadecimal digits. That of the file itself,
    /// where the usual writers wrote it and it has no external data.
    /// # Errors
    /// See [`Model::to_file`].
    pub fn sha256(&self) -> Result<String, GraphError> {
        use sha2::{Digest as _, Sha256};
        let digest = Sha256::digest(self.to_file()?.to_bytes());
        Ok(digest.iter().map(|b| format!("{b:02x}")).collect())
    }

    /// Saves the network as an ONNX file, atomically.
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), GraphError> {
        Ok(self.to_file()?.save(path, SaveOptions::default())?)
    }

    pub(crate) fn file(&self) -> &OnnxFile {
        &self.file
    }

    pub(crate) fn id(&self, name: &str) -> Result<ValueId, GraphError> {
        self.ids.get(name).copied().ok_or_else(|| GraphError::UnknownValue {
            name: name.to_owned(),
            candidates: self.names.iter().filter(|n| n.contains(name) || name.contains(n.as_str())).cloned().collect(),
        })
    }

    fn parameter_id(&self, name: &str) -> Result<ValueId, GraphError> {
        match self.ids.get(name) {
            Some(id) if self.parameters.contains_key(id) => Ok(*id),
            _ => Err(GraphError::UnknownValue {
                name: name.to_owned(),
                candidates: self.parameter_order.iter().map(|id| self.names[*id].clone()).collect(),
            }),
        }
    }

    fn forget_plans(&self) {
        self.plans.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    }

    /// Checks types and shapes with every open dimension set to a small size, where that is possible.
    fn check(&self) -> Result<(), GraphError> {
        let open = self.inputs.iter().any(|p| match &p.shape {
            None => true,
            Some(dims) => dims.iter().skip(1).any(|d| !matches!(d, Dim::Fixed(_))),
        });
        // With more than the batch open, no size is known to fit: the check waits for the first input.
        if !open {
            self.plan(&self.example_shapes(2)?)?;
        }
        Ok(())
    }

    /// Input shapes with every open dimension set to `size`.
    pub(crate) fn example_shapes(&self, size: usize) -> Result<Vec<(ValueId, Vec<usize>)>, GraphError> {
        self.inputs
            .iter()
            .map(|p| {
                let shape = p.shape.iter().flatten();
                let shape = shape.map(|d| if let Dim::Fixed(n) = d { *n } else { size }).collect();
                Ok((self.id(&p.name)?, shape))
            })
            .collect()
    }
}

#[derive(Default)]
struct Builder {
    names: Vec<String>,
    ids: HashMap<String, ValueId>,
    nodes: Vec<Node>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    parameters: HashMap<ValueId, Parameter>,
    parameter_order: Vec<ValueId>,
    unsupported: Vec<Unsupported>,
}

impl Builder {
    fn id(&mut self, name: &str) -> ValueId {
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        let id = self.names.len();
        self.names.push(name.to_owned());
        self.ids.insert(name.to_owned(), id);
        id
    }

    fn read(&mut self, model: &ModelProto, graph: &GraphProto) -> Result<(), GraphError> {
        let trainable = trainable_names(graph);
        for t in &graph.initializer {
            let id = self.id(t.name());
            match tensor_from_proto(t) {
                Ok(tensor) => {
                    let trains = tensor.dtype().is_float() && trainable.contains(t.name());
                    self.parameters.insert(id, Parameter::new(tensor, trains));
                    self.parameter_order.push(id);
                }
                Err(e) if e.is_unsupported() => self.refuse(t.name(), "initializer", &e.to_string()),
                Err(e) => return Err(e.into()),
            }
        }
        if let Some(s) = graph.sparse_initializer.first() {
            let name = s.values.as_ref().map_or("", |v| v.name());
            self.refuse(name, "initializer", "sparse tensors are not supported");
        }
        for input in &graph.input {
            let id = self.id(input.name());
            if !self.parameters.contains_key(&id) {
                match port(input) {
                    Ok(p) => self.inputs.push(p),
                    Err(reason) => self.refuse(input.name(), "input", &reason),
                }
            }
        }
        let opset = |domain: &str| {
            let same = |d: &str| d == domain || (is_default(d) && is_default(domain));
            model.opset_import.iter().find(|o| same(o.domain())).map_or(1, |o| o.version())
        };
        for i in topological_order(graph)? {
            let Some(node) = graph.node.get(i) else { continue };
            self.node(node, opset(node.domain()));
        }
        for output in &graph.output {
            self.id(output.name());
            match port(output) {
                Ok(p) => self.outputs.push(p),
                Err(reason) => self.refuse(output.name(), "output", &reason),
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &NodeProto, opset: i64) {
        let first_output = node.output.iter().find(|o| !o.is_empty()).map_or("", String::as_str);
        let name = if node.name().is_empty() { first_output } else { node.name() }.to_owned();
        let operator = match node.domain() {
            d if is_default(d) => node.op_type().to_owned(),
            d => format!("{d}.{}", node.op_type()),
        };
        let optional = |b: &mut Self, names: &[String]| -> Vec<Option<ValueId>> {
            names.iter().map(|n| (!n.is_empty()).then(|| b.id(n))).collect()
        };
        let inputs = optional(self, &node.input);
        let outputs = optional(self, &node.output);
        let entry = is_default(node.domain()).then(|| ops::entries().find(|e| e.name == node.op_type())).flatten();
        let Some(entry) = entry else { return self.refuse(&name, &operator, "this operator is not supported") };
        let attributes = Attributes::new(node, opset);
        match (entry.build)(&attributes) {
            Ok(op) => {
                let unread = attributes.unread();
                if !unread.is_empty() {
                    let reason = format!("attribute `{}` is not supported at opset {opset}", unread.join("`, `"));
                    return self.refuse(&name, &operator, &reason);
                }
                self.nodes.push(Node { name, operator, op: op.into(), inputs, outputs });
            }
            Err(OpError::Unsupported(reason) | OpError::Invalid(reason)) => self.refuse(&name, &operator, &reason),
            Err(OpError::Deferred) => self.refuse(&name, &operator, "its attributes cannot be read"),
        }
    }

    fn refuse(&mut self, node: &str, operator: &str, reason: &str) {
        self.unsupported.push(Unsupported {
            node: node.to_owned(),
            operator: operator.to_owned(),
            reason: reason.to_owned(),
        });
    }
}

fn is_default(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// Which initialisers training changes: what layers multiply, add or look up, but neither the running statistics of
/// batch normalisation nor what only steers an operator (shapes, limits, scales of resizing, quantisation).
fn trainable_names(graph: &GraphProto) -> BTreeSet<&str> {
    let mut steering = BTreeSet::new();
    let mut used = BTreeSet::new();
    for node in &graph.node {
        for (i, input) in node.input.iter().enumerate() {
            let trains = match node.op_type() {
                "BatchNormalization" => i == 1 || i == 2,
                "Gather" => i == 0,
                "Conv"
                | "ConvTranspose"
                | "Gemm"
                | "MatMul"
                | "Add"
                | "Mul"
                | "PRelu"
                | "LayerNormalization"
                | "InstanceNormalization"
                | "GroupNormalization"
                | "RMSNormalization"
                | "Einsum"
                | "LSTM"
                | "GRU"
                | "RNN"
                | "Concat"
                | "Expand"
                | "Transpose"
                | "Reshape"
                | "Unsqueeze"
                | "Squeeze"
                | "Identity"
                | "Sub"
                | "Div"
                | "Flatten" => true,
                _ => false,
            };
            if trains {
                used.insert(input.as_str())
            } else {
                steering.insert(input.as_str())
            };
        }
    }
    // A scalar is a constant of a formula, such as the 0.5 of GELU, not something that was learnt.
    let scalars = graph.initializer.iter().filter(|t| t.dims.is_empty()).map(|t| t.name());
    steering.extend(scalars);
    &used - &steering
}

fn port(info: &ValueInfoProto) -> Result<Port, String> {
    let name = info.name().to_owned();
    let Some(TypeProto { value, .. }) = &info.r#type else {
        return Ok(Port { name, dtype: DType::F32, shape: None });
    };
    use netproof_onnx::proto::type_proto::Value;
    match value {
        Some(Value::TensorType(t)) => {
            let Some(dtype) = dtype_of_code(t.elem_type()) else {
                return Err(format!("element type {} is not supported", data_type_name(t.elem_type())));
            };
            let shape = t.shape.as_ref().map(|s| s.dim.iter().map(dim).collect());
            Ok(Port { name, dtype, shape })
        }
        _ => Err("only tensors are supported, not sequences, maps or optional values".to_owned()),
    }
}

fn dim(d: &netproof_onnx::proto::tensor_shape_proto::Dimension) -> Dim {
    use netproof_onnx::proto::tensor_shape_proto::dimension::Value;
    match &d.value {
        Some(Value::DimValue(n)) => usize::try_from(*n).map_or(Dim::Any, Dim::Fixed),
        // Some exporters call every open dimension `?`, which does not make them equal.
        Some(Value::DimParam(name)) if !name.is_empty() && name != "?" => Dim::Named(name.clone()),
        _ => Dim::Any,
    }
}
