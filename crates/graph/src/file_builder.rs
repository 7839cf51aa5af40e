//! Builds ONNX files from nothing: inputs, tensors, nodes, outputs.

use std::collections::HashSet;

use netproof_onnx::proto::attribute_proto::AttributeType;
use netproof_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, tensor_shape_proto, type_proto,
};
use netproof_onnx::{OnnxFile, data_type_code, tensor_to_proto};
use netproof_tensor::{DType, Elements, Tensor};

use crate::draw::{self, Init};
use crate::error::GraphError;
use crate::model::Dim;

/// Operator set of built files. 17 is the first with LayerNormalization, and runtimes since 2022 read it.
const OPSET: i64 = 17;
/// The version of the messages that came with operator set 17.
const IR_VERSION: i64 = 8;
/// Most numbers in a built network; the largest published vision transformers have 0.6 · 10⁹.
const MOST_PARAMETERS: u64 = 1 << 30;

/// The value of a node's attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// Integers.
    Ints(Vec<i64>),
    /// A float.
    Float(f32),
    /// Floats.
    Floats(Vec<f32>),
    /// A text.
    Text(String),
    /// A tensor.
    Tensor(Tensor),
}

impl Attribute {
    pub(crate) fn to_proto(&self, name: &str) -> AttributeProto {
        let mut a = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
        let kind = match self {
            Self::Int(i) => {
                a.i = Some(*i);
                AttributeType::Int
            }
            Self::Ints(v) => {
                a.ints = v.clone();
                AttributeType::Ints
            }
            Self::Float(f) => {
                a.f = Some(*f);
                AttributeType::Float
            }
            Self::Floats(v) => {
                a.floats = v.clone();
                AttributeType::Floats
            }
            Self::Text(s) => {
                a.s = Some(s.clone().into_bytes());
                AttributeType::String
            }
            Self::Tensor(t) => {
                a.t = Some(Box::new(tensor_to_proto("", t, None)));
                AttributeType::Tensor
            }
        };
        a.r#type = Some(kind as i32);
        a
    }
}

/// A node to put into a network, with the tensors that it brings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewNode {
    /// Name of the node; a free one is chosen where it is empty.
    pub name: String,
    /// Operator of the default domain.
    pub operator: String,
    /// Names of the values that it takes; empty for an absent optional one.
    pub inputs: Vec<String>,
    /// Names of the values that it makes.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attributes: Vec<(String, Attribute)>,
    /// Tensors to store with it, by the names that `inputs` uses.
    pub tensors: Vec<(String, Tensor)>,
}

impl NewNode {
    /// A node of an operator, from these values to these.
    pub fn new(operator: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
        Self { operator: operator.to_owned(), inputs: owned(inputs), outputs: owned(outputs), ..Self::default() }
    }

    /// Gives it a name.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Gives it an attribute.
    pub fn with(mut self, name: &str, value: Attribute) -> Self {
        self.attributes.push((name.to_owned(), value));
        self
    }

    /// Stores a tensor with it.
    pub fn with_tensor(mut self, name: &str, tensor: Tensor) -> Self {
        self.tensors.push((name.to_owned(), tensor));
        self
    }

    /// The messages: the node, and the tensors as initializers of their own element types.
    pub(crate) fn into_proto(self) -> (NodeProto, Vec<TensorProto>) {
        let node = NodeProto {
            name: Some(self.name),
            op_type: Some(self.operator),
            input: self.inputs,
            output: self.outputs,
            attribute: self.attributes.iter().map(|(name, value)| value.to_proto(name)).collect(),
            ..NodeProto::default()
        };
        (node, self.tensors.iter().map(|(name, t)| tensor_to_proto(name, t, None)).collect())
    }
}

/// A name that is not taken yet: the wanted one, or the wanted one with a number.
pub(crate) fn fresh(taken: &mut HashSet<String>, wanted: &str) -> String {
    let name = if taken.contains(wanted) {
        let numbered = (1u64..).map(|i| format!("{wanted}_{i}")).find(|n| !taken.contains(n));
        numbered.unwrap_or_else(|| wanted.to_owned())
    } else {
        wanted.to_owned()
    };
    taken.insert(name.clone());
    name
}

/// The declaration of a tensor value.
pub(crate) fn value_info(name: &str, dtype: DType, dims: &[Dim]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |d: &Dim| Dimension {
        value: match d {
            Dim::Fixed(n) => i64::try_from(*n).ok().map(Value::DimValue),
            Dim::Named(name) => Some(Value::DimParam(name.clone())),
            Dim::Any => None,
        },
        ..Dimension::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: Some(data_type_code(dtype)),
        shape: Some(TensorShapeProto { dim: dims.iter().map(dim).collect() }),
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

enum Source {
    Given(Tensor),
    Drawn(Vec<usize>, Init),
}

/// Builds an ONNX file of operator set 17.
///
/// Names that are taken get a number; every method that makes a value returns the name that it got. A node and the value
/// that it makes share a name.
pub struct FileBuilder {
    name: String,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
    nodes: Vec<NodeProto>,
    tensors: Vec<(String, Source)>,
    values: HashSet<String>,
    node_names: HashSet<String>,
}

impl FileBuilder {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            nodes: Vec::new(),
            tensors: Vec::new(),
            values: HashSet::new(),
            node_names: HashSet::new(),
        }
    }

    /// Declares an input.
    pub fn add_input(&mut self, name: &str, dtype: DType, shape: &[Dim]) -> String {
        let name = fresh(&mut self.values, name);
        self.inputs.push(value_info(&name, dtype, shape));
        name
    }

    /// Declares an input of floats whose first dimension is the batch, by the name `batch`.
    pub fn add_batch_input(&mut self, name: &str, row: &[usize]) -> String {
        self.add_input(name, DType::F32, &batch_of(row))
    }

    /// Stores a tensor.
    pub fn add_initializer(&mut self, name: &str, tensor: Tensor) -> String {
        let name = fresh(&mut self.values, name);
        self.tensors.push((name.clone(), Source::Given(tensor)));
        name
    }

    /// Stores a tensor that is drawn when the file is built.
    pub(crate) fn add_parameter(&mut self, name: &str, shape: &[usize], init: Init) -> String {
        let name = fresh(&mut self.values, name);
        self.tensors.push((name.clone(), Source::Drawn(shape.to_vec(), init)));
        name
    }

    /// Stores integers that steer an operator; equal ones are stored once.
    pub(crate) fn add_ints(&mut self, name: &str, values: &[i64]) -> String {
        let same = |source: &Source| match source {
            Source::Given(t) => t.rank() == 1 && t.as_i64() == Some(values),
            Source::Drawn(..) => false,
        };
        if let Some((known, _)) = self.tensors.iter().find(|(_, source)| same(source)) {
            return known.clone();
        }
        let name = fresh(&mut self.values, name);
        // A vector's length is its element count, so this is the one shape that cannot be refused.
        if let Ok(t) = Tensor::new(DType::I64, vec![values.len()], Elements::Int(values.to_vec())) {
            self.tensors.push((name.clone(), Source::Given(t)));
        }
        name
    }

    /// Stores one number without dimensions, as the constants of a formula are.
    pub(crate) fn add_scalar(&mut self, name: &str, value: f32) -> String {
        let name = fresh(&mut self.values, name);
        if let Ok(t) = Tensor::f32(Vec::new(), vec![value]) {
            self.tensors.push((name.clone(), Source::Given(t)));
        }
        name
    }

    /// Adds a node with one output, which has the node's name.
    pub fn node(&mut self, operator: &str, name: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let value = fresh(&mut self.values, name);
        let attributes = attributes.iter().map(|(n, a)| ((*n).to_owned(), a.clone())).collect();
        let node = NewNode { attributes, ..NewNode::new(operator, inputs, &[&value]).named(&value) };
        self.push(node);
        value
    }

    /// Adds a node with any number of outputs. Its names are taken as they are.
    pub fn push(&mut self, node: NewNode) {
        self.values.extend(node.outputs.iter().filter(|n| !n.is_empty()).cloned());
        let (mut node, tensors) = node.into_proto();
        let wanted = match (node.name(), node.output.first()) {
            ("", Some(first)) => first.clone(),
            (name, _) => name.to_owned(),
        };
        node.name = Some(fresh(&mut self.node_names, &wanted));
        for t in tensors {
            if let Ok(tensor) = netproof_onnx::tensor_from_proto(&t) {
                self.values.insert(t.name().to_owned());
                self.tensors.push((t.name().to_owned(), Source::Given(tensor)));
            }
        }
        self.nodes.push(node);
    }

    /// Declares an output.
    pub fn output(&mut self, value: &str, dtype: DType, shape: &[Dim]) {
        self.outputs.push(value_info(value, dtype, shape));
    }

    /// Declares an output of floats whose first dimension is the batch.
    pub fn batch_output(&mut self, value: &str, row: &[usize]) {
        self.output(value, DType::F32, &batch_of(row));
    }

    /// How many numbers will be drawn for parameters that training changes; running statistics are not among them.
    #[cfg(test)]
    pub(crate) fn trainable_count(&self) -> u64 {
        let drawn = self.tensors.iter().filter(|(name, _)| !name.contains(".running_"));
        drawn.map(|(_, source)| if let Source::Drawn(shape, _) = source { count(shape) } else { 0 }).fold(0, add)
    }

    /// The file.
    /// # Errors
    /// The graph is not sound, or too large.
    pub fn build(self) -> Result<OnnxFile, GraphError> {
        self.build_seeded("file_builder", 0)
    }

    /// The file, with its parameters drawn from a seed; each has draws of its own, whatever comes before it.
    pub(crate) fn build_seeded(self, what: &'static str, seed: u64) -> Result<OnnxFile, GraphError> {
        let shape = |source: &Source| match source {
            Source::Given(t) => count(t.shape()),
            Source::Drawn(shape, _) => count(shape),
        };
        let total = self.tensors.iter().map(|(_, source)| shape(source)).fold(0, add);
        if total > MOST_PARAMETERS {
            let message = format!("{total} parameters, at most {MOST_PARAMETERS} are allowed; choose smaller sizes");
            return Err(GraphError::Rewrite { what, message });
        }
        let mut initializer = Vec::with_capacity(self.tensors.len());
        for (i, (name, source)) in self.tensors.into_iter().enumerate() {
            let tensor = match source {
                Source::Given(t) => t,
                Source::Drawn(shape, init) => {
                    let values = draw::tensor(init, shape.iter().product(), seed, i as u64);
                    Tensor::f32(shape, values)?
                }
            };
            initializer.push(tensor_to_proto(&name, &tensor, None));
        }
        let graph = GraphProto {
            name: Some(self.name),
            node: self.nodes,
            initializer,
            input: self.inputs,
            output: self.outputs,
            ..GraphProto::default()
        };
        let model = ModelProto {
            ir_version: Some(IR_VERSION),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
            producer_name: Some("netproof".to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            graph: Some(graph),
            ..ModelProto::default()
        };
        let file = OnnxFile::from(model);
        file.validate()?;
        Ok(file)
    }
}

fn batch_of(row: &[usize]) -> Vec<Dim> {
    let rest = row.iter().map(|&n| Dim::Fixed(n));
    std::iter::once(Dim::Named("batch".to_owned())).chain(rest).collect()
}

fn count(shape: &[usize]) -> u64 {
    shape.iter().fold(1u64, |n, &d| n.saturating_mul(d as u64))
}

fn add(a: u64, b: u64) -> u64 {
    a.saturating_add(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_file_is_sound_and_says_who_made_it() {
        let mut b = FileBuilder::new("two sums");
        let x = b.add_batch_input("x", &[3]);
        let w = b.add_initializer("w", Tensor::f32(vec![3], vec![1.0, 2.0, 3.0]).unwrap());
        let y = b.node("Add", "y", &[&x, &w], &[]);
        let z = b.node("Add", "y", &[&y, &w], &[]);
        b.batch_output(&z, &[3]);
        let file = b.build().unwrap();
        assert_eq!((y.as_str(), z.as_str()), ("y", "y_1"));
        assert_eq!(file.model.producer_name(), "netproof");
        assert_eq!((file.model.ir_version(), file.model.opset_import[0].version()), (8, 17));
        let again = OnnxFile::from_bytes(&file.to_bytes(), None, &netproof_onnx::Limits::default()).unwrap();
        assert_eq!(again.model, file.model);
    }

    #[test]
    fn what_is_undefined_twice_or_too_large_is_refused() {
        let mut b = FileBuilder::new("g");
        b.push(NewNode::new("Relu", &["nothing"], &["y"]));
        b.batch_output("y", &[3]);
        assert!(matches!(b.build(), Err(GraphError::Onnx(_))));
        let mut b = FileBuilder::new("g");
        let x = b.add_batch_input("x", &[3]);
        b.push(NewNode::new("Relu", &[&x], &["x"]));
        b.batch_output("x", &[3]);
        assert!(b.build().unwrap_err().to_string().contains("\"x\""));
        let mut b = FileBuilder::new("g");
        b.add_parameter("w", &[usize::MAX, 2], Init::Constant(0.0));
        let error = b.build_seeded("mlp", 0).unwrap_err().to_string();
        assert_eq!(error, "mlp: 18446744073709551615 parameters, at most 1073741824 are allowed; choose smaller sizes");
    }
}
