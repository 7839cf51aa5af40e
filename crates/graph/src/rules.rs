//! Ways back other than the gradient, chosen per node: one file per rule.
//!
//! A rule sees one node with its values, what flows into its outputs, and which inputs ask for something; it answers what
//! flows out of the inputs, or `None` for the plain gradient. [`crate::Run::propagate`] walks.

mod deep_lift;
mod guided;
mod lrp;
pub(crate) mod reveal_cancel;

use std::borrow::Cow;

use crate::error::OpResult;
use crate::model::Node;
use crate::operator::{Context, Fact, Value};
use crate::real::Real;
use crate::run::differentiate;

pub use lrp::{LinearRule, LrpRules};

/// A way back other than the gradient.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Rule {
    /// Guided backpropagation: behind a rectifier only what is positive flows back. Springenberg et al., ICLR workshop
    /// 2015, arXiv:1412.6806, section 3.4.
    GuidedBackpropagation,
    /// Deconvolution: a rectifier lets back what is positive, whatever it let through. Zeiler and Fergus, ECCV 2014,
    /// arXiv:1311.2901, section 2.1.
    Deconvolution,
    /// DeepLIFT: multipliers between a run and a reference run. Shrikumar et al., ICML 2017, arXiv:1704.02685.
    DeepLift {
        /// Whether what raises a unit and what lowers it go their own ways through curves (RevealCancel, section 3.5.3) or
        /// together (Rescale, section 3.5.2).
        reveal_cancel: bool,
        /// Whether a maximum hands its multiplier to the largest element as a gradient does, and so sums to no difference.
        gradient_of_maxima: bool,
    },
    /// Layer-wise relevance propagation.
    Lrp(LrpRules),
}

/// One node on the way back.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) node: &'a Node,
    pub(crate) inputs: &'a [Option<Value>],
    pub(crate) outputs: &'a [Option<Value>],
    /// Inputs and outputs of the same node in the reference run.
    pub(crate) reference: Option<(&'a [Option<Value>], &'a [Option<Value>])>,
    /// What flows into each output.
    pub(crate) flowing: &'a [Option<Real>],
    /// Which inputs depend on what was asked for.
    pub(crate) wanted: &'a [bool],
    pub(crate) facts: &'a [Fact],
    pub(crate) cx: &'a Context,
    /// Whether the node sees what was asked for itself, or moved around only.
    pub(crate) first: bool,
    /// Which inputs a sigmoid or softmax makes.
    pub(crate) gates: &'a [bool],
}

/// What flows out of each input; `None`: the plain gradient.
pub(crate) type Back = OpResult<Option<Vec<Option<Real>>>>;

impl Rule {
    /// Whether the rule compares with a second run.
    pub fn needs_reference(&self) -> bool {
        matches!(self, Self::DeepLift { .. })
    }

    pub(crate) fn back(&self, site: &Site<'_>) -> Back {
        match self {
            Self::GuidedBackpropagation => guided::guided(site),
            Self::Deconvolution => guided::deconvolution(site),
            Self::DeepLift { gradient_of_maxima, .. } => deep_lift::back(site, *gradient_of_maxima),
            Self::Lrp(rules) => lrp::back(rules, site),
        }
    }
}

impl Site<'_> {
    pub(crate) fn operator(&self) -> &str {
        &self.node.operator
    }

    /// Inputs that depend on what was asked for.
    pub(crate) fn data(&self) -> Vec<usize> {
        (0..self.wanted.len()).filter(|&i| self.wanted[i]).collect()
    }

    pub(crate) fn input(&self, i: usize) -> OpResult<Real> {
        real(self.inputs, i, self.cx)
    }

    pub(crate) fn output(&self) -> OpResult<Real> {
        real(self.outputs, 0, self.cx)
    }

    /// What flows into the only output.
    pub(crate) fn flow(&self) -> &Real {
        self.flowing.iter().flatten().next().expect("a rule is asked only where something flows")
    }

    /// The node's outputs for other inputs of the same shapes.
    pub(crate) fn eval(&self, inputs: &[Option<Value>]) -> OpResult<Vec<Option<Value>>> {
        let outputs = self.node.op.eval(crate::operator::Args(inputs), self.facts, self.cx)?;
        Ok(outputs.into_iter().map(Some).collect())
    }

    /// The gradient at other values, of what flows into the first output.
    pub(crate) fn gradient(
        &self,
        inputs: &[Option<Value>],
        outputs: &[Option<Value>],
        flow: &Real,
    ) -> OpResult<Vec<Option<Real>>> {
        let mut flowing = vec![None; self.node.outputs.len()];
        if let Some(first) = flowing.first_mut() {
            *first = Some(flow.clone());
        }
        differentiate(self.node, inputs, outputs, self.facts, &flowing, self.wanted, self.cx)
    }

    /// The answer where the same flows into input `i` and nothing into the others.
    pub(crate) fn only(&self, i: usize, flow: Real) -> Back {
        let mut back = vec![None; self.inputs.len()];
        back[i] = Some(flow);
        Ok(Some(back))
    }

    /// A tensor of one number per pair of two tensors of one shape.
    pub(crate) fn zip(&self, a: &Real, b: &Real, f: impl Fn(f32, f32) -> f32) -> Real {
        let (x, y) = (values(a), values(b));
        Real::new(a.shape(), x.iter().zip(y.iter()).map(|(&x, &y)| f(x, y)).collect(), &self.cx.device)
    }

    pub(crate) fn map(&self, a: &Real, f: impl Fn(f32) -> f32) -> Real {
        Real::new(a.shape(), values(a).iter().map(|&x| f(x)).collect(), &self.cx.device)
    }
}

pub(crate) fn real(list: &[Option<Value>], i: usize, cx: &Context) -> OpResult<Real> {
    crate::operator::Args(list).real(i, cx)
}

/// Inputs with one of them replaced.
pub(crate) fn with(inputs: &[Option<Value>], i: usize, value: Option<Real>) -> Vec<Option<Value>> {
    let mut inputs = inputs.to_vec();
    if let Some(slot) = inputs.get_mut(i) {
        *slot = value.map(Value::Real);
    }
    inputs
}

fn values(r: &Real) -> Cow<'_, [f32]> {
    r.slice().unwrap_or_else(|| Cow::Owned(r.to_vec()))
}

/// Operators of one input, element by element, that are not linear.
pub(crate) fn is_curve(operator: &str) -> bool {
    const CURVES: &[&str] = &[
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Elu",
        "Selu",
        "Celu",
        "Gelu",
        "HardSwish",
        "HardSigmoid",
        "Sigmoid",
        "Tanh",
        "Softplus",
        "Softsign",
        "Mish",
        "Swish",
        "ThresholdedRelu",
        "Clip",
        "Erf",
        "Exp",
        "Log",
        "Sqrt",
        "Abs",
        "Reciprocal",
        "Sin",
        "Cos",
        "Sign",
        "Ceil",
        "Floor",
        "Round",
    ];
    CURVES.contains(&operator)
}

/// Operators that only move, copy or choose elements: what flows into a copy belongs to what was copied.
pub(crate) fn is_movement(operator: &str) -> bool {
    const MOVEMENTS: &[&str] = &[
        "Reshape",
        "Flatten",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Identity",
        "Concat",
        "Slice",
        "Split",
        "Gather",
        "GatherND",
        "GatherElements",
        "Expand",
        "Tile",
        "Pad",
        "DepthToSpace",
        "SpaceToDepth",
        "Cast",
        "CastLike",
        "Dropout",
        "Where",
        "Trilu",
    ];
    MOVEMENTS.contains(&operator)
}

/// Operators whose every output is the largest or smallest of some inputs.
pub(crate) fn is_choice(operator: &str) -> bool {
    matches!(operator, "MaxPool" | "GlobalMaxPool" | "ReduceMax" | "ReduceMin" | "Max" | "Min" | "TopK")
}

/// Operators with weights.
pub(crate) fn is_layer(operator: &str) -> bool {
    matches!(operator, "Conv" | "ConvTranspose" | "Gemm" | "MatMul")
}

/// Operators that are linear in all their inputs together.
pub(crate) fn is_sum(operator: &str) -> bool {
    const SUMS: &[&str] = &[
        "Add",
        "Sub",
        "Sum",
        "Mean",
        "AveragePool",
        "GlobalAveragePool",
        "ReduceMean",
        "ReduceSum",
        "BatchNormalization",
        "Resize",
        "Upsample",
        "CumSum",
        "Neg",
    ];
    SUMS.contains(&operator)
}
