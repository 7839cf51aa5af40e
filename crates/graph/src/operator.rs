//! What an operator is: checked shapes first, then values, then gradients.

use std::sync::Arc;

use netproof_tensor::{DType, Elements, Tensor};

use crate::attributes::Attributes;
use crate::bounds::{Curve, Windows};
use crate::error::{OpError, OpResult, invalid};
use crate::kernels::epilogue::Activation;
use crate::real::{Finish, Real, RealDevice};
use crate::rows::RowsOf;

/// What is known about a value before it is computed.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// The value itself, where it is known: shape arithmetic, small constants.
    pub(crate) value: Option<Arc<Tensor>>,
}

impl Fact {
    pub(crate) fn new(dtype: DType, shape: Vec<usize>) -> Self {
        Self { dtype, shape, value: None }
    }

    pub(crate) fn known(value: Tensor) -> Self {
        Self { dtype: value.dtype(), shape: value.shape().to_vec(), value: Some(Arc::new(value)) }
    }

    pub(crate) fn rank(&self) -> usize {
        self.shape.len()
    }

    pub(crate) fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A value while a network runs: floats on the device, everything else on the host.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "device tensors are the common case")]
pub(crate) enum Value {
    Real(Real),
    Host(Arc<Tensor>),
}

impl Value {
    pub(crate) fn host(tensor: Tensor) -> Self {
        Self::Host(Arc::new(tensor))
    }

    pub(crate) fn shape(&self) -> &[usize] {
        match self {
            Self::Real(r) => r.shape(),
            Self::Host(t) => t.shape(),
        }
    }

    /// The float tensor on the device; a float on the host is copied there.
    pub(crate) fn real(&self, cx: &Context) -> OpResult<Real> {
        match self {
            Self::Real(r) => Ok(r.clone()),
            Self::Host(t) => match Real::of(t, &cx.device) {
                Some(r) => Ok(r),
                None => Err(OpError::Invalid(format!("needs a float tensor, got {}", t.dtype()))),
            },
        }
    }

    /// The tensor on the host.
    pub(crate) fn to_host(&self) -> Arc<Tensor> {
        match self {
            Self::Real(r) => Arc::new(r.to_tensor()),
            Self::Host(t) => t.clone(),
        }
    }
}

/// Inputs of a node; absent optional inputs are `None`.
#[derive(Debug)]
pub(crate) struct Args<'a, T>(pub(crate) &'a [Option<T>]);

impl<T> Clone for Args<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Args<'_, T> {}

impl<'a, T> Args<'a, T> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, i: usize) -> Option<&'a T> {
        self.0.get(i).and_then(Option::as_ref)
    }

    pub(crate) fn need(&self, i: usize) -> OpResult<&'a T> {
        self.get(i).ok_or_else(|| OpError::Invalid(format!("input {i} is missing")))
    }

    pub(crate) fn present(&self) -> impl Iterator<Item = &'a T> {
        self.0.iter().flatten()
    }
}

impl<'a> Args<'a, Fact> {
    /// The input as integers, where its value is needed before execution.
    pub(crate) fn ints(&self, i: usize) -> OpResult<Vec<i64>> {
        let fact = self.need(i)?;
        let value = fact.value.as_ref().ok_or(OpError::Deferred)?;
        match value.as_i64() {
            Some(v) => Ok(v.to_vec()),
            None => Err(OpError::Invalid(format!("input {i} must be integers, got {}", fact.dtype))),
        }
    }

    /// The input as floats, where its value is needed before execution.
    pub(crate) fn floats(&self, i: usize) -> OpResult<Vec<f32>> {
        let fact = self.need(i)?;
        let value = fact.value.as_ref().ok_or(OpError::Deferred)?;
        match value.as_f32() {
            Some(v) => Ok(v.to_vec()),
            None => Err(OpError::Invalid(format!("input {i} must be floats, got {}", fact.dtype))),
        }
    }

    /// The input, which must be a float tensor.
    pub(crate) fn float(&self, i: usize) -> OpResult<&'a Fact> {
        let fact = self.need(i)?;
        if !fact.dtype.is_float() {
            invalid!("input {i} must be a float tensor, got {}", fact.dtype);
        }
        Ok(fact)
    }
}

impl<'a> Args<'a, Value> {
    pub(crate) fn real(&self, i: usize, cx: &Context) -> OpResult<Real> {
        self.need(i)?.real(cx)
    }

    pub(crate) fn optional_real(&self, i: usize, cx: &Context) -> OpResult<Option<Real>> {
        self.get(i).map(|v| v.real(cx)).transpose()
    }

    /// The input on the host as integers.
    pub(crate) fn ints(&self, i: usize) -> OpResult<Vec<i64>> {
        let t = self.need(i)?.to_host();
        match t.as_i64() {
            Some(v) => Ok(v.to_vec()),
            None => Err(OpError::Invalid(format!("input {i} must be integers, got {}", t.dtype()))),
        }
    }

    /// The one float of a scalar input, or `default` where the input is absent.
    pub(crate) fn scalar(&self, i: usize, default: f32) -> OpResult<f32> {
        let Some(v) = self.get(i) else { return Ok(default) };
        let t = v.to_host();
        match t.elements() {
            Elements::Float(v) if v.len() == 1 => Ok(v[0]),
            Elements::Int(v) if v.len() == 1 => Ok(v[0] as f32),
            _ => Err(OpError::Invalid(format!("input {i} must be one number, got shape {:?}", t.shape()))),
        }
    }
}

/// What an operator may know about the run.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) device: RealDevice,
    /// Batch normalisation uses batch statistics, dropout drops.
    pub(crate) training: bool,
    /// Seed of this node's random draws in this run.
    pub(crate) seed: u64,
}

/// One call of an operator, seen from its outputs.
pub(crate) struct Backward<'a> {
    pub(crate) inputs: Args<'a, Value>,
    pub(crate) outputs: &'a [Option<Value>],
    /// Gradient of each output; `None` where nothing flows.
    pub(crate) gradients: &'a [Option<Real>],
    /// Which inputs need a gradient.
    pub(crate) wanted: &'a [bool],
    /// What [`Operator::infer`] said of the outputs.
    pub(crate) facts: &'a [Fact],
    pub(crate) cx: &'a Context,
}

impl Backward<'_> {
    /// Gradient of the only output; the executor never calls without one.
    pub(crate) fn gradient(&self) -> &Real {
        self.gradients.iter().flatten().next().expect("an operator is differentiated only where a gradient flows")
    }

    pub(crate) fn wants(&self, i: usize) -> bool {
        self.wanted.get(i).copied().unwrap_or(false)
    }

    /// `f()` for input `i` if its gradient is wanted.
    pub(crate) fn when(&self, i: usize, f: impl FnOnce() -> OpResult<Real>) -> OpResult<Option<Real>> {
        if self.wants(i) { f().map(Some) } else { Ok(None) }
    }
}

/// Which values of a call the gradient needs; the rest may be dropped after the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Inputs only. What the tape needs.
    Inputs,
    /// Outputs only.
    Outputs,
    /// Inputs and outputs.
    Both,
}

/// Outputs of a call in training mode, and new values of inputs by number.
pub(crate) type Trained = (Vec<Value>, Vec<(usize, Real)>);

/// An operator with its attributes, as one node of a network has it.
pub(crate) trait Operator: Send + Sync {
    /// Types and shapes of the outputs. All checks of the inputs are here: whatever passes must run.
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>>;

    /// The outputs. `outputs` is what [`Operator::infer`] answered for these inputs.
    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>>;

    /// Gradients of the inputs, one per input, by hand; `None` lets the executor repeat `eval` on a tape.
    fn backward(&self, _call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        Ok(None)
    }

    /// The only output with more applied to it in the same pass; `None` where the operator cannot do that here.
    fn eval_finished(
        &self,
        _inputs: Args<'_, Value>,
        _output: &Fact,
        _finish: Finish<'_>,
        _cx: &Context,
    ) -> OpResult<Option<Real>> {
        Ok(None)
    }

    /// The only output for an input times a number, in the same pass; `None` where the operator cannot do that here.
    fn eval_scaled(&self, _inputs: Args<'_, Value>, _factor: f32, _cx: &Context) -> OpResult<Option<Real>> {
        Ok(None)
    }

    /// The activation that this operator is, where others can apply it; input 0 is not given.
    fn activation(&self, _inputs: Args<'_, Value>) -> OpResult<Option<Activation>> {
        Ok(None)
    }

    /// The axis that this operator takes a softmax over, where it is one and `rank` is the rank of its input.
    fn softmax_axis(&self, _rank: usize) -> Option<usize> {
        None
    }

    /// The axis of every output along which rows of the batch lie, where each depends on the same row of the inputs alone;
    /// `None` where rows meet, or where nobody has thought about it.
    fn rows(&self, _call: &RowsOf<'_>) -> Option<usize> {
        None
    }

    /// The function of one number that this operator applies to each element of input 0, for bounds on it; input 0 is not
    /// given.
    fn curve(&self, _inputs: Args<'_, Value>) -> OpResult<Option<Curve>> {
        Ok(None)
    }

    /// Where the windows lie whose maxima the operator takes, over an input of this shape.
    fn maximum(&self, _x: &[usize]) -> OpResult<Option<Windows>> {
        Ok(None)
    }

    /// What the gradient needs of the forward pass.
    fn keep(&self) -> Keep {
        Keep::Inputs
    }

    /// [`Operator::eval`] in training mode, with new values of parameters that keep running statistics, by input number.
    fn eval_training(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Trained> {
        Ok((self.eval(inputs, outputs, cx)?, Vec::new()))
    }

    /// Multiply-accumulate operations of one call.
    fn macs(&self, _inputs: Args<'_, Fact>, _outputs: &[Fact]) -> u64 {
        0
    }
}

/// How a registry entry makes an operator from a node's attributes.
pub(crate) type Build = fn(&Attributes<'_>) -> OpResult<Box<dyn Operator>>;

/// One line of the operator registry.
pub(crate) struct Entry {
    /// Operator name in the default domain (`ai.onnx`).
    pub(crate) name: &'static str,
    /// Reads the attributes.
    pub(crate) build: Build,
}

/// The float output of an operator, where it is the only one.
pub(crate) fn one(r: Real) -> OpResult<Vec<Value>> {
    Ok(vec![Value::Real(r)])
}

/// An axis as written in a file: negative counts from the end.
pub(crate) fn axis(axis: i64, rank: usize) -> OpResult<usize> {
    let r = rank as i64;
    if axis < -r || axis >= r {
        invalid!("axis {axis} is outside -{rank}..{rank}");
    }
    Ok(if axis < 0 { axis + r } else { axis } as usize)
}

/// Axes as written in a file, sorted; duplicates are refused.
pub(crate) fn axes(list: &[i64], rank: usize) -> OpResult<Vec<usize>> {
    let mut out = list.iter().map(|&a| axis(a, rank)).collect::<OpResult<Vec<_>>>()?;
    out.sort_unstable();
    if out.windows(2).any(|w| w[0] == w[1]) {
        invalid!("axes {list:?} name an axis twice");
    }
    Ok(out)
}

/// Checks that a shape can exist before anything of that size is made.
pub(crate) fn checked_shape(dims: &[i64]) -> OpResult<Vec<usize>> {
    /// Largest tensor that a node may make: 2^31 elements, 8 GiB of float32.
    const LIMIT: usize = 1 << 31;
    if let Some(&d) = dims.iter().find(|&&d| d < 0) {
        invalid!("dimension {d} is negative");
    }
    let shape: Vec<usize> = dims.iter().map(|&d| d as usize).collect();
    match netproof_tensor::element_count(&shape) {
        Some(n) if n <= LIMIT && shape.len() <= netproof_tensor::MAX_RANK => Ok(shape),
        _ => invalid!("output shape {shape:?} is over the limit of {LIMIT} elements"),
    }
}
