//! Changes of the input in front of the network, as part of it: each a file and a remedy.
//!
//! What they give is measured through them, by attacks that know them: a network with a rounding in front has no gradient,
//! which stops an attacker who does not look behind it, and no other (Athalye, Carlini and Wagner, ICML 2018,
//! arXiv:1802.00420). The check `adaptive-attack` looks behind it, and says how much of the gain was hiding.

pub(crate) mod bit_depth;
pub(crate) mod gaussian_smoothing;
pub(crate) mod jpeg;
pub(crate) mod median_smoothing;
pub(crate) mod thermometer;
pub(crate) mod total_variation;

use netproof_audit::{AuditError, Candidate, Direct, Making};
use netproof_core::Card;
use netproof_graph::{Attribute, Dim, GraphError, Model, NewNode};
use netproof_tensor::{DType, Tensor};

/// Names of the nodes that hold a defence begin so.
const MARK: &str = "netproof.defence";

/// Rows that the network takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Image {
    channels: usize,
    height: usize,
    width: usize,
}

impl Image {
    fn of(model: &Model) -> Result<Self, String> {
        let port = model.inputs().first().ok_or("the network has no input")?;
        let dims = port.shape.as_deref().unwrap_or_default();
        match dims.get(1..) {
            Some(&[Dim::Fixed(channels), Dim::Fixed(height), Dim::Fixed(width)]) if port.dtype == DType::F32 => {
                Ok(Self { channels, height, width })
            }
            _ => Err("it works on images, [channels, height, width] of float32 that the file declares".to_owned()),
        }
    }
}

/// Nodes in the making: from the input of the network, step by step.
struct Chain {
    nodes: Vec<NewNode>,
    /// The value that the next node takes.
    at: String,
    prefix: String,
    count: usize,
}

impl Chain {
    fn name(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{}.{}.{what}", self.prefix, self.count)
    }

    /// A stored number that training does not change.
    fn constant(&mut self, what: &str, shape: Vec<usize>, values: Vec<f32>) -> Result<String, GraphError> {
        let name = self.name(what);
        let tensor = Tensor::f32(shape, values)?;
        self.nodes.push(NewNode::new("Constant", &[], &[&name]).named(&name).with("value", Attribute::Tensor(tensor)));
        Ok(name)
    }

    fn scalar(&mut self, what: &str, value: f32) -> Result<String, GraphError> {
        self.constant(what, Vec::new(), vec![value])
    }

    fn integers(&mut self, what: &str, values: &[i64]) -> Result<String, GraphError> {
        let name = self.name(what);
        let tensor = Tensor::i64(vec![values.len()], values.to_vec())?;
        self.nodes.push(NewNode::new("Constant", &[], &[&name]).named(&name).with("value", Attribute::Tensor(tensor)));
        Ok(name)
    }

    /// A node of given values; gives its value.
    fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let name = self.name(&operator.to_lowercase());
        let mut node = NewNode::new(operator, inputs, &[&name]).named(&name);
        for (key, value) in attributes {
            node = node.with(key, value.clone());
        }
        self.nodes.push(node);
        name
    }

    /// A node that takes the last value first, and gives the next one.
    fn then(&mut self, operator: &str, others: &[&str], attributes: &[(&str, Attribute)]) {
        let at = self.at.clone();
        let inputs: Vec<&str> = std::iter::once(at.as_str()).chain(others.iter().copied()).collect();
        self.at = self.node(operator, &inputs, attributes);
    }

    /// With a stored number: addition, multiplication and so on.
    fn with_scalar(&mut self, operator: &str, value: f32) -> Result<(), GraphError> {
        let c = self.scalar("constant", value)?;
        self.then(operator, &[&c], &[]);
        Ok(())
    }

    /// Adds copies of the border: before and after the height, before and after the width.
    fn pad(&mut self, [top, bottom, left, right]: [usize; 4]) -> Result<(), GraphError> {
        if [top, bottom, left, right] == [0; 4] {
            return Ok(());
        }
        let pads = [0, 0, top, left, 0, 0, bottom, right].map(|n| n as i64);
        let pads = self.integers("pads", &pads)?;
        self.then("Pad", &[&pads], &[("mode", Attribute::Text("edge".to_owned()))]);
        Ok(())
    }

    /// Keeps the first rows and columns.
    fn crop(&mut self, height: usize, width: usize) -> Result<(), GraphError> {
        let starts = self.integers("starts", &[0, 0])?;
        let ends = self.integers("ends", &[height as i64, width as i64])?;
        let axes = self.integers("axes", &[2, 3])?;
        self.then("Slice", &[&starts, &ends, &axes], &[]);
        Ok(())
    }

    /// A convolution of every channel by itself with the same filters, `[filters, k, k]`.
    fn each_channel(
        &mut self,
        operator: &str,
        channels: usize,
        filters: &[Vec<f32>],
        kernel: usize,
        stride: usize,
    ) -> Result<(), GraphError> {
        let weights = (0..channels).flat_map(|_| filters.iter().flatten().copied()).collect();
        let weights = self.constant("weights", vec![channels * filters.len(), 1, kernel, kernel], weights)?;
        let (k, s) = (kernel as i64, stride as i64);
        let attributes = [
            ("group", Attribute::Int(channels as i64)),
            ("kernel_shape", Attribute::Ints(vec![k, k])),
            ("strides", Attribute::Ints(vec![s, s])),
        ];
        self.then(operator, &[&weights], &attributes);
        Ok(())
    }
}

/// The network with nodes in front. `build` extends the chain from the input to what the network shall see.
fn in_front(
    model: &Model,
    what: &str,
    build: impl FnOnce(&mut Chain) -> Result<(), GraphError>,
) -> Result<Model, AuditError> {
    let Some(input) = model.inputs().first().map(|p| p.name.clone()) else {
        return Err(AuditError::Mismatch { message: "the network has no input".to_owned() });
    };
    let prefix = format!("{MARK}.{what}");
    // A place holder takes all users of the input; what it is replaced by may use the input more than once.
    let held = model.insert_after(&input, NewNode::new("Identity", &[&input], &[&prefix]).named(&prefix))?;
    let place = held.nodes().find(|n| n.operator == "Identity" && n.inputs == [input.clone()]);
    let Some((name, seen)) = place.and_then(|n| Some((n.name.clone(), n.outputs.first()?.clone()))) else {
        return Err(AuditError::Mismatch { message: format!("nothing uses the input `{input}`") });
    };
    let mut chain = Chain { nodes: Vec::new(), at: input, prefix: seen.clone(), count: 0 };
    build(&mut chain)?;
    let last = chain.at.clone();
    chain.nodes.push(NewNode::new("Identity", &[&last], &[&seen]).named(&format!("{seen}.end")));
    Ok(held.replace_node(&name, chain.nodes)?)
}

/// A candidate that puts something in front of the network as it is.
fn candidate(
    name: String,
    what: String,
    treat: impl Fn(&Model) -> Result<Model, AuditError> + Send + Sync + 'static,
) -> Candidate {
    let making = Making::Direct(Direct::new(move |subject, _| treat(subject.model()).map(Some)));
    Candidate { name, what, making }
}

fn option(card: &Card, name: &str, value: impl std::fmt::Display, allowed: &str) -> AuditError {
    AuditError::Option { id: card.id.to_owned(), message: format!("`{name}` is {value}; allowed: {allowed}") }
}

fn not_for(card: &Card, why: String) -> AuditError {
    AuditError::Mismatch { message: format!("`{}`: {why}", card.id) }
}

#[cfg(test)]
mod tests {
    use netproof_graph::FileBuilder;

    use super::*;

    /// A network that answers with its input, so that what stands in front of it can be seen.
    pub(super) fn mirror(shape: [usize; 3]) -> Model {
        let mut f = FileBuilder::new("mirror");
        let x = f.add_batch_input("x", &shape);
        let y = f.node("Relu", "y", &[&x], &[]);
        f.batch_output(&y, &shape);
        Model::from_file(f.build().unwrap()).unwrap()
    }

    pub(super) fn picture([c, h, w]: [usize; 3]) -> Tensor {
        let values = (0..2 * c * h * w).map(|i| 0.5 + 0.5 * ((i * i) as f32 * 0.37).sin()).collect();
        Tensor::f32(vec![2, c, h, w], values).unwrap()
    }

    #[test]
    fn the_input_may_be_used_more_than_once() {
        let model = mirror([1, 2, 2]);
        let halved = in_front(&model, "test", |c| {
            let x = c.at.clone();
            c.with_scalar("Mul", -0.5)?;
            c.then("Add", &[&x], &[]);
            Ok(())
        });
        let x = picture([1, 2, 2]);
        let y = halved.unwrap().predict(&x).unwrap();
        for (y, x) in y.as_f32().unwrap().iter().zip(x.as_f32().unwrap()) {
            assert!((y - 0.5 * x).abs() < 1e-6);
        }
    }
}
