//! How each operator is bounded.

use super::curve::Curve;
use super::network::{Frame, Network};
use crate::error::{GraphError, OpError, Unsupported};
use crate::model::Node;
use crate::operator::{Args, Value};
use crate::plan::node_error;

/// Windows over planes of which the maximum is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Windows {
    /// Planes per row.
    pub(crate) planes: usize,
    /// Elements of a plane of the input.
    pub(crate) plane: usize,
    /// For each place of the output its elements in the plane.
    pub(crate) windows: Vec<Vec<u32>>,
}

/// What bounds know of an operator.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Rule {
    /// Linear with weights that are nowhere negative. `adds`: not only moves.
    Positive { adds: bool },
    /// Linear, each output from one element of its only varying input.
    Diagonal,
    /// The second input is subtracted from the first, and both vary.
    Difference,
    /// Linear with a weight, and what is added where there is such an input.
    Weighted { weight: usize, added: usize },
    /// A function of one number.
    Curve(Curve),
    /// Maxima of windows.
    Maximum(Windows),
    /// The product, element by element, of two inputs that vary.
    Product,
    /// Softmax over the last axis. Bounded by intervals alone.
    Softmax,
    /// Of two straight pieces that meet at 0, not the same for all elements. Bounded by intervals alone.
    Bent,
}

impl Rule {
    pub(super) fn is_linear(&self) -> bool {
        matches!(self, Self::Positive { .. } | Self::Diagonal | Self::Difference | Self::Weighted { .. })
    }

    /// # Errors
    /// The operator has no rule, or not with these inputs varying.
    pub(super) fn of(network: &Network<'_>, frame: &Frame, node: &Node, varies: &[bool]) -> Result<Self, GraphError> {
        let refuse = |reason: &str| {
            let (node, operator) = (node.name.clone(), node.operator.clone());
            Err(GraphError::Unsupported(vec![Unsupported {
                node,
                operator,
                reason: format!("has no bounds {reason}"),
            }]))
        };
        for id in node.outputs.iter().flatten() {
            if frame.fact(*id).is_some_and(|f| !f.dtype.is_float()) {
                return refuse("since its output holds no floats");
            }
        }
        let only = |i: usize| varies.iter().enumerate().all(|(j, &v)| v == (i == j));
        let both = || varies == [true, true];
        let same = || node.inputs.len() == 2 && node.inputs[0] == node.inputs[1];
        Ok(match node.operator.as_str() {
            "Identity" | "Dropout" | "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "Split"
            | "Slice" | "Gather" | "Expand" | "Tile" | "Pad" | "DepthToSpace" | "SpaceToDepth" | "Cast"
                if only(0) =>
            {
                Self::Positive { adds: false }
            }
            "Concat" => Self::Positive { adds: false },
            "AveragePool" | "GlobalAveragePool" | "ReduceMean" | "ReduceSum" if only(0) => {
                Self::Positive { adds: true }
            }
            "Add" | "Sum" | "Mean" => Self::Positive { adds: true },
            "Neg" | "BatchNormalization" if only(0) => Self::Diagonal,
            "Sub" if both() => Self::Difference,
            "Sub" => Self::Diagonal,
            "Mul" if both() && same() => Self::Curve(Curve::Square),
            "Mul" if both() => Self::Product,
            "Mul" => Self::Diagonal,
            "Div" if only(0) => Self::Diagonal,
            "Conv" | "ConvTranspose" | "Gemm" if only(0) => Self::Weighted { weight: 1, added: 2 },
            "MatMul" if only(0) => Self::Weighted { weight: 1, added: 2 },
            "MatMul" if only(1) => Self::Weighted { weight: 0, added: 2 },
            "Softmax" if only(0) => {
                let axis = last_axis(network, frame, node)?;
                if !axis {
                    return refuse("over another axis than the last");
                }
                Self::Softmax
            }
            "PRelu" if only(0) => Self::Bent,
            _ if only(0) => {
                let mut inputs: Vec<Option<Value>> = vec![None];
                for id in node.inputs.iter().skip(1) {
                    inputs.push(id.map(|id| network.constant(frame, id)).transpose()?);
                }
                let fail = |e: OpError| node_error(node, e);
                if let Some(curve) = node.op.curve(Args(&inputs)).map_err(fail)? {
                    return Ok(Self::Curve(curve));
                }
                let shape = node.inputs.first().copied().flatten().map(|id| frame.shape(id)).unwrap_or_default();
                match node.op.maximum(shape).map_err(fail)? {
                    Some(windows) => Self::Maximum(windows),
                    None => return refuse("yet"),
                }
            }
            _ => return refuse("where several of its inputs depend on the network's input"),
        })
    }
}

/// Whether a softmax adds up over the last axis: seen from what it gives for zeros along axes of different sizes.
fn last_axis(network: &Network<'_>, frame: &Frame, node: &Node) -> Result<bool, GraphError> {
    let Some(Some(id)) = node.inputs.first() else { return Ok(false) };
    let shape = frame.shape(*id).to_vec();
    let n = shape.last().copied().unwrap_or(1);
    // One large logit in the first place: exactly the row of its last axis loses its share.
    let count: usize = shape.iter().product();
    let mut x = vec![0.0; count];
    if let Some(first) = x.first_mut() {
        *first = 50.0;
    }
    let y = network.alone(frame, node, &shape, x)?;
    let lost: Vec<usize> = (0..count).filter(|&i| i > 0 && y[i] < 1e-9).collect();
    Ok(lost == (1..n).collect::<Vec<_>>())
}
