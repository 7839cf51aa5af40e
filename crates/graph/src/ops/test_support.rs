//! Runs one operator in a test: builds the node, infers, evaluates.

use netproof_onnx::proto::attribute_proto::AttributeType;
use netproof_onnx::proto::{AttributeProto, NodeProto};
use netproof_onnx::tensor_to_proto;
use netproof_tensor::Tensor;

use crate::attributes::Attributes;
use crate::error::OpError;
use crate::operator::{Args, Context, Fact, Value};
use crate::plan::typed;
use crate::real::RealDevice;

/// An attribute's value.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "not every family's tests need every kind")]
pub(crate) enum Attr {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Floats(Vec<f32>),
    Text(&'static str),
    Texts(Vec<&'static str>),
    Tensor(Tensor),
}

fn proto(name: &str, value: &Attr) -> AttributeProto {
    let mut a = AttributeProto { name: Some(name.to_owned()), ..Default::default() };
    let kind = match value {
        Attr::Int(v) => {
            a.i = Some(*v);
            AttributeType::Int
        }
        Attr::Ints(v) => {
            a.ints.clone_from(v);
            AttributeType::Ints
        }
        Attr::Float(v) => {
            a.f = Some(*v);
            AttributeType::Float
        }
        Attr::Floats(v) => {
            a.floats.clone_from(v);
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
        Attr::Tensor(t) => {
            a.t = Some(Box::new(tensor_to_proto("", t, None)));
            AttributeType::Tensor
        }
    };
    a.r#type = Some(kind as i32);
    a
}

/// The only output of an operator, or why it has none.
pub(crate) fn run(
    operator: &str,
    opset: i64,
    attributes: &[(&str, Attr)],
    inputs: &[Option<Tensor>],
) -> Result<Vec<Tensor>, String> {
    run_outputs(operator, opset, 1, attributes, inputs)
}

/// As many outputs of an operator as the node names, with their declared types.
pub(crate) fn run_outputs(
    operator: &str,
    opset: i64,
    outputs: usize,
    attributes: &[(&str, Attr)],
    inputs: &[Option<Tensor>],
) -> Result<Vec<Tensor>, String> {
    let text = |e: OpError| match e {
        OpError::Invalid(m) => m,
        OpError::Unsupported(m) => format!("unsupported: {m}"),
        OpError::Deferred => "deferred".to_owned(),
    };
    let node = NodeProto {
        op_type: Some(operator.to_owned()),
        input: inputs
            .iter()
            .enumerate()
            .map(|(i, t)| if t.is_some() { format!("x{i}") } else { String::new() })
            .collect(),
        output: (0..outputs).map(|i| format!("y{i}")).collect(),
        attribute: attributes.iter().map(|(n, v)| proto(n, v)).collect(),
        ..Default::default()
    };
    let entry = super::entries().find(|e| e.name == operator).ok_or_else(|| format!("no operator {operator}"))?;
    let attributes = Attributes::new(&node, opset);
    let op = (entry.build)(&attributes).map_err(text)?;
    let unread = attributes.unread();
    if !unread.is_empty() {
        return Err(format!("unread attributes {unread:?}"));
    }
    let facts: Vec<Option<Fact>> = inputs.iter().map(|t| t.clone().map(Fact::known)).collect();
    let inferred = op.infer(Args(&facts)).map_err(text)?;
    let cx = Context { device: RealDevice::cpu(), training: false, seed: 0 };
    let values: Vec<Option<Value>> = inputs
        .iter()
        .map(|t| {
            t.as_ref().map(|t| {
                let value = Value::host(t.clone());
                if t.dtype().is_float() { value.real(&cx).map(Value::Real).expect("it is a float") } else { value }
            })
        })
        .collect();
    let values = op.eval(Args(&values), &inferred, &cx).map_err(text)?;
    values
        .iter()
        .zip(&inferred)
        .take(outputs)
        .map(|(value, fact)| {
            if value.shape() != fact.shape {
                return Err(format!("shape {:?} was inferred as {:?}", value.shape(), fact.shape));
            }
            Ok(typed(value, fact).as_ref().clone())
        })
        .collect()
}
