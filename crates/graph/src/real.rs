//! The only file that names Burn: float tensors on a device, of any rank, with numpy broadcasting.
//!
//! Burn panics on shapes that do not fit, so every caller has checked them before (`Operator::infer`).
//! A rank-0 tensor lives on the device as `[1]`; [`Real`] keeps the logical shape.

mod attention;
mod batch_norm;
mod convolution;
mod host;
mod product;

use std::borrow::Cow;
use std::sync::Arc;

use burn::backend::ops::{
    ActivationOps, BoolTensorOps, ConvOptions, ConvTransposeOptions, FloatTensorOps, IntTensorOps, ModuleOps, PadMode,
};
use burn::backend::{
    AutodiffBackend, BackendTensor, Dispatch, DispatchDevice, DispatchTensor, DispatchTensorKind, TensorMetadata,
};
use burn::tensor::{BoolDType, FloatDType, IndexingUpdateOp, IntDType, Shape, Slice, TensorData};
use netproof_tensor::{DType, Elements, Tensor};
use smallvec::SmallVec;

use crate::buffer::Buffer;
use crate::kernels::epilogue::Activation;
use crate::kernels::{layout, math, softmax};

pub(crate) use attention::Attend;
pub(crate) use batch_norm::Statistics;
pub(crate) use convolution::Finish;

/// Where a network runs.
#[derive(Debug, Clone)]
pub(crate) struct RealDevice(DispatchDevice);

impl RealDevice {
    pub(crate) fn cpu() -> Self {
        Self(DispatchDevice::Flex(Default::default()))
    }

    pub(crate) fn is_cpu(&self) -> bool {
        matches!(self.0, DispatchDevice::Flex(_))
    }
}

/// A float tensor on a device.
#[derive(Debug, Clone)]
pub(crate) struct Real {
    store: Store,
    shape: SmallVec<[usize; 6]>,
}

/// Where the elements are.
#[derive(Debug, Clone)]
enum Store {
    /// In this process's memory, row-major without gaps: what our own kernels read and write.
    Host(Buffer),
    /// Wherever Burn keeps them.
    Burn(DispatchTensor),
}

fn physical(shape: &[usize]) -> Shape {
    if shape.is_empty() { Shape::from(vec![1]) } else { Shape::from(shape.to_vec()) }
}

/// Shape of numpy broadcasting, or `None` where the shapes do not fit.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let dim = |s: &[usize], i: usize| if i + s.len() < rank { 1 } else { s[i + s.len() - rank] };
    (0..rank)
        .map(|i| match (dim(a, i), dim(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

impl Real {
    fn wrap(tensor: DispatchTensor, shape: impl AsRef<[usize]>) -> Self {
        Self { store: Store::Burn(tensor), shape: SmallVec::from_slice(shape.as_ref()) }
    }

    fn hosted(buffer: Buffer, shape: &[usize]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), buffer.len());
        Self { store: Store::Host(buffer), shape: SmallVec::from_slice(shape) }
    }

    /// Copies host values to the device.
    pub(crate) fn new(shape: &[usize], values: Vec<f32>, device: &RealDevice) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        if matches!(device.0, DispatchDevice::Flex(_)) {
            return Self::hosted(values.into(), shape);
        }
        let data = TensorData::new(values, physical(shape));
        Self::wrap(Dispatch::float_from_data(data, &device.0), shape)
    }

    /// A tensor in memory, which `fill` writes: all of it, since what is there before is of any value.
    pub(crate) fn build(shape: &[usize], fill: impl FnOnce(&mut [f32])) -> Self {
        let mut buffer = Buffer::any(shape.iter().product());
        fill(buffer.get_mut().expect("nobody else has a new buffer"));
        Self::hosted(buffer, shape)
    }

    /// A float tensor of the host on the device, `None` for another kind. In memory its elements are shared.
    pub(crate) fn of(tensor: &Tensor, device: &RealDevice) -> Option<Self> {
        match device.0 {
            DispatchDevice::Flex(_) => Some(Self::hosted(Buffer::of(tensor.share())?, tensor.shape())),
            _ => Some(Self::new(tensor.shape(), tensor.as_f32()?.to_vec(), device)),
        }
    }

    /// The tensor on the host.
    pub(crate) fn to_tensor(&self) -> Tensor {
        let elements = match &self.store {
            Store::Host(buffer) => buffer.share(),
            Store::Burn(_) => Arc::new(Elements::Float(self.to_vec())),
        };
        let shape = self.shape.to_vec();
        Tensor::shared(DType::F32, shape, elements).expect("a device tensor has as many values as its shape")
    }

    /// The elements, row-major, where they are in this process's memory and not on the tape.
    pub(crate) fn slice(&self) -> Option<Cow<'_, [f32]>> {
        let tensor = match &self.store {
            Store::Host(buffer) => return Some(Cow::Borrowed(buffer)),
            Store::Burn(tensor) => tensor,
        };
        let DispatchTensorKind::Flex(BackendTensor::Float(flex)) = &tensor.kind else { return None };
        if self.on_tape() {
            return None;
        }
        // A view that is cut off behind or turned is copied.
        match flex.as_slice::<f32>() {
            Some(values) => Some(Cow::Borrowed(&values[..self.count()])),
            None => Some(Cow::Owned(self.to_vec())),
        }
    }

    /// The elements for change in place, where nobody else has them.
    pub(crate) fn slice_mut(&mut self) -> Option<&mut [f32]> {
        match &mut self.store {
            Store::Host(buffer) => buffer.get_mut(),
            Store::Burn(_) => None,
        }
    }

    /// The tensor as Burn has it; a copy where it is in our own memory.
    fn tensor(&self) -> DispatchTensor {
        match &self.store {
            Store::Host(buffer) => {
                let data = TensorData::new(buffer.to_vec(), physical(&self.shape));
                Dispatch::float_from_data(data, &RealDevice::cpu().0)
            }
            Store::Burn(tensor) => tensor.clone(),
        }
    }

    fn device(&self) -> DispatchDevice {
        match &self.store {
            Store::Host(_) => RealDevice::cpu().0,
            Store::Burn(tensor) => tensor.device(),
        }
    }

    pub(crate) fn full(shape: &[usize], value: f32, device: &RealDevice) -> Self {
        Self::new(shape, vec![value; shape.iter().product()], device)
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn rank(&self) -> usize {
        self.shape.len()
    }

    pub(crate) fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Copies the values to the host, row-major.
    pub(crate) fn to_vec(&self) -> Vec<f32> {
        let tensor = match &self.store {
            Store::Host(buffer) => return buffer.to_vec(),
            Store::Burn(tensor) if Dispatch::is_tracked(tensor) || self.on_tape() => Dispatch::inner(tensor.clone()),
            Store::Burn(tensor) => tensor.clone(),
        };
        let data = burn::backend::read_sync(Dispatch::float_into_data(tensor)).expect("a host device reads back");
        data.try_into_vec::<f32>().expect("all device tensors are f32")
    }

    fn on_tape(&self) -> bool {
        matches!(&self.store, Store::Burn(tensor) if tensor.autodiff != Default::default())
    }

    // The tape: used to differentiate one operator at a time.

    pub(crate) fn to_tape(&self, leaf: bool) -> Self {
        let tensor = Dispatch::from_inner(self.tensor());
        Self::wrap(Dispatch::float_set_require_grad(tensor, leaf), self.shape.clone())
    }

    /// Gradients of `sum(outputs · cotangents)` with respect to leaves on the tape.
    pub(crate) fn tape_gradients(outputs: &[(Self, Self)], leaves: &[&Self]) -> Vec<Option<Self>> {
        let mut total: Option<Self> = None;
        for (output, cotangent) in outputs {
            let term = output.mul(&cotangent.to_tape(false)).sum_all();
            total = Some(match total {
                Some(t) => t.add(&term),
                None => term,
            });
        }
        let Some(total) = total else { return vec![None; leaves.len()] };
        if !Dispatch::is_tracked(&total.tensor()) {
            return vec![None; leaves.len()];
        }
        let gradients = Dispatch::backward(total.tensor());
        leaves
            .iter()
            .map(|leaf| Dispatch::grad(&leaf.tensor(), &gradients).map(|g| Self::wrap(g, leaf.shape.clone())))
            .collect()
    }

    // Shape.

    pub(crate) fn reshape(&self, shape: &[usize]) -> Self {
        if shape == self.shape() {
            return self.clone();
        }
        match &self.store {
            Store::Host(_) => Self { store: self.store.clone(), shape: SmallVec::from_slice(shape) },
            Store::Burn(tensor) => Self::wrap(Dispatch::float_reshape(tensor.clone(), physical(shape)), shape),
        }
    }

    pub(crate) fn permute(&self, axes: &[usize]) -> Self {
        if self.shape.is_empty() || axes.iter().enumerate().all(|(i, &a)| i == a) {
            return self.clone();
        }
        let shape: Vec<usize> = axes.iter().map(|&a| self.shape[a]).collect();
        let all = layout::steps(&self.shape);
        let steps: Vec<usize> = axes.iter().map(|&a| all[a]).collect();
        if let Some(y) = self.strided(0, &shape, &steps) {
            return y;
        }
        Self::wrap(Dispatch::float_permute(self.tensor(), axes), shape)
    }

    pub(crate) fn transpose_last(&self) -> Self {
        let r = self.rank();
        let mut axes: Vec<usize> = (0..r).collect();
        axes.swap(r - 1, r - 2);
        self.permute(&axes)
    }

    pub(crate) fn expand(&self, shape: &[usize]) -> Self {
        if shape == self.shape() {
            return self.clone();
        }
        let mut padded = vec![1; shape.len() - self.rank()];
        padded.extend_from_slice(&self.shape);
        let steps: Vec<usize> =
            layout::steps(&padded).into_iter().zip(&padded).map(|(step, &d)| if d == 1 { 0 } else { step }).collect();
        if let Some(y) = self.strided(0, shape, &steps) {
            return y;
        }
        let t = self.reshape(&padded);
        Self::wrap(Dispatch::float_expand(t.tensor(), physical(shape)), shape)
    }

    /// `start..end` along one axis.
    pub(crate) fn narrow(&self, axis: usize, start: usize, end: usize) -> Self {
        if start == 0 && end == self.shape[axis] {
            return self.clone();
        }
        let steps = layout::steps(&self.shape);
        let mut kept = self.shape.to_vec();
        kept[axis] = end - start;
        if let Some(y) = self.strided(start * steps[axis], &kept, &steps) {
            return y;
        }
        let slices: Vec<Slice> = self
            .shape
            .iter()
            .enumerate()
            .map(|(i, &d)| if i == axis { (start..end).into() } else { (0..d).into() })
            .collect();
        let mut shape = self.shape.clone();
        shape[axis] = end - start;
        Self::wrap(Dispatch::float_slice(self.tensor(), &slices), shape)
    }

    pub(crate) fn concat(parts: &[Self], axis: usize) -> Self {
        let mut shape = parts[0].shape.clone();
        shape[axis] = parts.iter().map(|p| p.shape[axis]).sum();
        if let Some(y) = Self::joined(parts, axis, &shape) {
            return y;
        }
        let kept: Vec<_> = parts.iter().filter(|p| p.shape[axis] > 0).map(|p| p.tensor()).collect();
        if kept.len() == 1 {
            return Self::wrap(kept.into_iter().next().expect("length was checked"), shape);
        }
        Self::wrap(Dispatch::float_cat(kept, axis), shape)
    }

    /// Picks entries along `axis` by number.
    pub(crate) fn select(&self, axis: usize, indices: &[usize]) -> Self {
        let device = self.device();
        let index = int_tensor(indices, &device);
        let mut shape = self.shape.clone();
        shape[axis] = indices.len();
        Self::wrap(Dispatch::float_select(self.tensor(), axis, index), shape)
    }

    /// Adds the entries of `values` along `axis` at the given numbers; repeated numbers add up.
    pub(crate) fn add_at(&self, axis: usize, indices: &[usize], values: &Self) -> Self {
        let device = self.device();
        let index = int_tensor(indices, &device);
        let t = Dispatch::float_select_assign(self.tensor(), axis, index, values.tensor(), IndexingUpdateOp::Add);
        Self::wrap(t, self.shape.clone())
    }

    /// Pads every axis with a value, before and behind.
    pub(crate) fn pad(&self, padding: &[(usize, usize)], value: f32) -> Self {
        let shape: Vec<usize> = self.shape.iter().zip(padding).map(|(d, p)| d + p.0 + p.1).collect();
        Self::wrap(Dispatch::float_pad(self.tensor(), padding, PadMode::Constant(value)), shape)
    }

    /// For each axis `(start, count, step)`: `count` entries from `start`, `step` apart.
    pub(crate) fn stepped(&self, ranges: &[(usize, usize, usize)]) -> Self {
        let whole = |(&(start, count, step), &d): (&(usize, usize, usize), &usize)| (start, count, step) == (0, d, 1);
        if ranges.iter().zip(&self.shape).all(whole) {
            return self.clone();
        }
        let steps = layout::steps(&self.shape);
        let start = steps.iter().zip(ranges).map(|(step, r)| step * r.0).sum();
        let (sizes, wide): (Vec<usize>, Vec<usize>) =
            ranges.iter().zip(&steps).map(|(r, step)| (r.1, r.2 * step)).unzip();
        if let Some(y) = self.strided(start, &sizes, &wide) {
            return y;
        }
        let slices: Vec<Slice> = ranges
            .iter()
            .map(|&(start, count, step)| {
                let end = start + count.saturating_sub(1) * step + usize::from(count > 0);
                Slice::new(start as isize, Some(end as isize), step as isize)
            })
            .collect();
        let shape: Vec<usize> = ranges.iter().map(|r| r.1).collect();
        Self::wrap(Dispatch::float_slice(self.tensor(), &slices), shape)
    }

    // Elementwise.

    fn unary(&self, f: impl Fn(DispatchTensor) -> DispatchTensor) -> Self {
        Self::wrap(f(self.tensor()), self.shape.clone())
    }

    fn binary(&self, other: &Self, f: impl Fn(DispatchTensor, DispatchTensor) -> DispatchTensor) -> Self {
        let shape = broadcast(&self.shape, &other.shape).expect("shapes were checked by infer");
        let pad = |t: &Self| {
            let mut s = vec![1; shape.len() - t.rank()];
            s.extend_from_slice(&t.shape);
            t.reshape(&s).tensor()
        };
        Self::wrap(f(pad(self), pad(other)), shape.clone())
    }

    pub(crate) fn add(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a + b).unwrap_or_else(|| self.binary(other, Dispatch::float_add))
    }
    pub(crate) fn sub(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a - b).unwrap_or_else(|| self.binary(other, Dispatch::float_sub))
    }
    pub(crate) fn mul(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a * b).unwrap_or_else(|| self.binary(other, Dispatch::float_mul))
    }
    pub(crate) fn div(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a / b).unwrap_or_else(|| self.binary(other, Dispatch::float_div))
    }
    pub(crate) fn powf(&self, other: &Self) -> Self {
        self.binary(other, Dispatch::float_powf)
    }
    pub(crate) fn add_scalar(&self, s: f32) -> Self {
        self.map(|x| x + s).unwrap_or_else(|| self.unary(|t| Dispatch::float_add_scalar(t, s.into())))
    }
    pub(crate) fn mul_scalar(&self, s: f32) -> Self {
        self.map(|x| x * s).unwrap_or_else(|| self.unary(|t| Dispatch::float_mul_scalar(t, s.into())))
    }
    pub(crate) fn powf_scalar(&self, s: f32) -> Self {
        self.unary(|t| Dispatch::float_powf_scalar(t, s.into()))
    }
    pub(crate) fn neg(&self) -> Self {
        self.map(|x| -x).unwrap_or_else(|| self.unary(Dispatch::float_neg))
    }
    pub(crate) fn abs(&self) -> Self {
        self.map(f32::abs).unwrap_or_else(|| self.unary(Dispatch::float_abs))
    }
    pub(crate) fn sign(&self) -> Self {
        self.unary(Dispatch::float_sign)
    }
    pub(crate) fn exp(&self) -> Self {
        self.compute(math::Exp).unwrap_or_else(|| self.unary(Dispatch::float_exp))
    }
    pub(crate) fn log(&self) -> Self {
        self.unary(Dispatch::float_log)
    }
    pub(crate) fn log1p(&self) -> Self {
        self.unary(Dispatch::float_log1p)
    }
    pub(crate) fn sqrt(&self) -> Self {
        self.map(f32::sqrt).unwrap_or_else(|| self.unary(Dispatch::float_sqrt))
    }
    pub(crate) fn recip(&self) -> Self {
        self.map(|x| 1.0 / x).unwrap_or_else(|| self.unary(Dispatch::float_recip))
    }
    pub(crate) fn sin(&self) -> Self {
        self.unary(Dispatch::float_sin)
    }
    pub(crate) fn cos(&self) -> Self {
        self.unary(Dispatch::float_cos)
    }
    pub(crate) fn tanh(&self) -> Self {
        self.compute(math::Tanh).unwrap_or_else(|| self.unary(Dispatch::float_tanh))
    }
    pub(crate) fn erf(&self) -> Self {
        self.compute(math::Erf).unwrap_or_else(|| self.unary(Dispatch::float_erf))
    }
    pub(crate) fn floor(&self) -> Self {
        self.unary(Dispatch::float_floor)
    }
    pub(crate) fn ceil(&self) -> Self {
        self.unary(Dispatch::float_ceil)
    }
    /// Rounds half to even.
    pub(crate) fn round(&self) -> Self {
        self.unary(Dispatch::float_round)
    }
    pub(crate) fn sigmoid(&self) -> Self {
        self.compute(math::Sigmoid).unwrap_or_else(|| self.unary(Dispatch::sigmoid))
    }
    pub(crate) fn relu(&self) -> Self {
        self.map(|x| if x < 0.0 { 0.0 } else { x }).unwrap_or_else(|| self.unary(Dispatch::relu))
    }
    pub(crate) fn gelu(&self) -> Self {
        self.compute(math::Gelu).unwrap_or_else(|| self.unary(Dispatch::gelu))
    }
    pub(crate) fn clamp(&self, low: Option<f32>, high: Option<f32>) -> Self {
        let (below, above) = (low.unwrap_or(f32::NEG_INFINITY), high.unwrap_or(f32::INFINITY));
        let clamped = move |x: f32| {
            let x = if x < below { below } else { x };
            if x > above { above } else { x }
        };
        if let Some(y) = self.map(clamped) {
            return y;
        }
        let mut t = self.tensor();
        if let Some(low) = low {
            t = Dispatch::float_clamp_min(t, low.into());
        }
        if let Some(high) = high {
            t = Dispatch::float_clamp_max(t, high.into());
        }
        Self::wrap(t, self.shape.clone())
    }
    pub(crate) fn activated(&self, activation: Activation) -> Self {
        match activation {
            Activation::Identity => self.clone(),
            Activation::Clamp(low, high) => {
                self.clamp(Some(low).filter(|l| l.is_finite()), Some(high).filter(|h| h.is_finite()))
            }
            Activation::HardSwish => {
                if let Some(y) = self.compute(Activation::HardSwish) {
                    return y;
                }
                let part = self.mul_scalar(1.0 / 6.0).add_scalar(0.5).clamp(Some(0.0), Some(1.0));
                self.clamp(Some(-3.0), None).mul(&part)
            }
        }
    }
    /// `gradient` where the ReLU's output is positive, else 0.
    pub(crate) fn relu_backward(&self, gradient: &Self) -> Self {
        if let Some(g) = self.zip(gradient, |y, g| if y > 0.0 { g } else { 0.0 }) {
            return g;
        }
        Self::wrap(Dispatch::relu_backward(self.tensor(), gradient.tensor()), self.shape.clone())
    }
    /// Gradient through [`Real::activated`] with [`Activation::HardSwish`]; `self` is the input.
    pub(crate) fn hard_swish_backward(&self, gradient: &Self) -> Option<Self> {
        self.zip(gradient, |x, g| {
            let inner = if x < 3.0 { g * (x * (1.0 / 3.0) + 0.5) } else { g };
            if x > -3.0 { inner } else { 0.0 }
        })
    }
    /// `gradient` where the element is within the bounds, else 0.
    pub(crate) fn clamp_backward(&self, low: f32, high: f32, gradient: &Self) -> Option<Self> {
        self.zip(gradient, move |x, g| if x < low || x > high { 0.0 } else { g })
    }
    pub(crate) fn gelu_backward(&self, gradient: &Self) -> Self {
        if let Some(g) = self.compute2(gradient, math::GeluGradient) {
            return g;
        }
        Self::wrap(Dispatch::gelu_backward(self.tensor(), gradient.tensor()), self.shape.clone())
    }
    pub(crate) fn sigmoid_backward(&self, gradient: &Self) -> Self {
        if let Some(g) = self.zip(gradient, |y, g| g * y * (1.0 - y)) {
            return g;
        }
        Self::wrap(Dispatch::sigmoid_backward(self.tensor(), gradient.tensor()), self.shape.clone())
    }
    pub(crate) fn softmax(&self, axis: usize) -> Self {
        if let Some(y) = self.rows(axis, |n, x, y| softmax::softmax(n, 1.0, x, y)) {
            return y;
        }
        self.unary(|t| Dispatch::softmax(t, axis))
    }
    pub(crate) fn log_softmax(&self, axis: usize) -> Self {
        if let Some(y) = self.rows(axis, softmax::log_softmax) {
            return y;
        }
        self.unary(|t| Dispatch::log_softmax(t, axis))
    }

    // Reductions. Axes are kept with size 1.

    pub(crate) fn sum(&self, axes: &[usize]) -> Self {
        if let Some(y) = self.summed(axes) {
            return y;
        }
        let mut shape = self.shape.clone();
        let mut t = self.tensor();
        for &a in axes {
            if shape[a] != 1 {
                t = Dispatch::float_sum_dim(t, a);
                shape[a] = 1;
            }
        }
        Self::wrap(t, shape)
    }

    pub(crate) fn mean(&self, axes: &[usize]) -> Self {
        let n: usize = axes.iter().map(|&a| self.shape[a]).product();
        self.sum(axes).mul_scalar(1.0 / n as f32)
    }

    pub(crate) fn prod(&self, axis: usize) -> Self {
        let mut shape = self.shape.clone();
        shape[axis] = 1;
        Self::wrap(Dispatch::float_prod_dim(self.tensor(), axis), shape)
    }

    pub(crate) fn max(&self, axes: &[usize]) -> Self {
        let mut shape = self.shape.clone();
        let mut t = self.tensor();
        for &a in axes {
            t = Dispatch::float_max_dim(t, a);
            shape[a] = 1;
        }
        Self::wrap(t, shape)
    }

    pub(crate) fn cumsum(&self, axis: usize) -> Self {
        self.unary(|t| Dispatch::float_cumsum(t, axis))
    }

    /// Sum of all elements, shape `[]`.
    pub(crate) fn sum_all(&self) -> Self {
        Self::wrap(Dispatch::float_sum(self.tensor()), Vec::new())
    }

    /// Undoes broadcasting: sums to the given shape.
    pub(crate) fn sum_to(&self, shape: &[usize]) -> Self {
        if shape == self.shape() {
            return self.clone();
        }
        let lead = self.rank() - shape.len();
        let axes: Vec<usize> =
            (0..self.rank()).filter(|&i| i < lead || (shape[i - lead] == 1 && self.shape[i] != 1)).collect();
        self.sum(&axes).reshape(shape)
    }

    // Windows.

    /// Convolution with 1, 2 or 3 spatial axes; padding as (begin, end) pairs.
    pub(crate) fn conv(&self, weight: &Self, bias: Option<&Self>, o: &Window) -> Self {
        let (x, w, b) = (self.tensor(), weight.tensor(), bias.map(|b| b.tensor()));
        let t = match self.rank() {
            3 => Dispatch::conv1d(x, w, b, o.conv::<1>()),
            4 => Dispatch::conv2d(x, w, b, o.conv::<2>()),
            _ => Dispatch::conv3d(x, w, b, o.conv::<3>()),
        };
        let shape = t.shape().to_vec();
        Self::wrap(t, shape)
    }

    /// Transposed convolution; `o.padding` symmetric, `extra` added at the end of each spatial axis.
    pub(crate) fn conv_transpose(&self, weight: &Self, bias: Option<&Self>, o: &Window, extra: &[usize]) -> Self {
        let (x, w, b) = (self.tensor(), weight.tensor(), bias.map(|b| b.tensor()));
        let t = match self.rank() {
            3 => Dispatch::conv_transpose1d(x, w, b, o.transposed::<1>(extra)),
            4 => Dispatch::conv_transpose2d(x, w, b, o.transposed::<2>(extra)),
            _ => Dispatch::conv_transpose3d(x, w, b, o.transposed::<3>(extra)),
        };
        let shape = t.shape().to_vec();
        Self::wrap(t, shape)
    }

    /// Maximum over windows of an image batch `[n, c, h, w]` with the flat position of each maximum in its plane.
    pub(crate) fn max_pool_2d(&self, kernel: [usize; 2], o: &Window, ceil: bool) -> (Self, Self) {
        let p = MaxPool2d::new(kernel, o, ceil);
        let r = Dispatch::max_pool2d_with_indices(
            self.tensor(),
            p.kernel,
            p.stride,
            p.padding,
            p.dilation,
            ceil,
            IntDType::I64,
        );
        let shape = r.output.shape().to_vec();
        (Self::wrap(r.output, shape.clone()), Self::wrap(r.indices, shape))
    }

    /// Gradient of [`Real::max_pool_2d`], given the positions that it returned.
    pub(crate) fn max_pool_2d_gradient(
        &self,
        kernel: [usize; 2],
        o: &Window,
        ceil: bool,
        gradient: &Self,
        positions: &Self,
    ) -> Self {
        let p = MaxPool2d::new(kernel, o, ceil);
        let r = Dispatch::max_pool2d_with_indices_backward(
            self.tensor(),
            p.kernel,
            p.stride,
            p.padding,
            p.dilation,
            ceil,
            gradient.tensor(),
            positions.tensor(),
        );
        Self::wrap(r.x_grad, self.shape.clone())
    }
}

/// Truth values on a device: what decides between two tensors, element by element.
#[derive(Debug, Clone)]
pub(crate) struct Mask {
    tensor: DispatchTensor,
    shape: Vec<usize>,
}

impl Mask {
    pub(crate) fn new(shape: &[usize], values: Vec<bool>, device: &RealDevice) -> Self {
        let data = TensorData::new(values, physical(shape));
        Self { tensor: Dispatch::bool_from_data(data, &device.0), shape: shape.to_vec() }
    }

    /// `yes` where true, else `no`; all three broadcast.
    pub(crate) fn pick(&self, yes: &Real, no: &Real) -> Real {
        let shape = broadcast(&self.shape, &yes.shape).and_then(|s| broadcast(&s, &no.shape));
        let shape = shape.expect("shapes were checked by infer");
        let mut padded = vec![1; shape.len() - self.shape.len()];
        padded.extend_from_slice(&self.shape);
        let mut mask = Dispatch::bool_reshape(self.tensor.clone(), physical(&padded));
        if padded != shape {
            mask = Dispatch::bool_expand(mask, physical(&shape));
        }
        let (yes, no) = (yes.expand(&shape).tensor(), no.expand(&shape).tensor());
        Real::wrap(Dispatch::float_mask_where(no, mask, yes), shape)
    }

    /// `value` where true, else 0.
    pub(crate) fn keep(&self, value: &Real) -> Real {
        self.pick(value, &value.same(0.0))
    }

    /// `value` where false, else 0.
    pub(crate) fn drop(&self, value: &Real) -> Real {
        self.pick(&value.same(0.0), value)
    }

    /// 1 where true, else 0.
    pub(crate) fn to_real(&self) -> Real {
        Real::wrap(Dispatch::bool_into_float(self.tensor.clone(), FloatDType::F32), self.shape.clone())
    }
}

impl Real {
    /// One number on the same device, shape `[]`.
    pub(crate) fn same(&self, value: f32) -> Self {
        let data = TensorData::new(vec![value], [1]);
        Self::wrap(Dispatch::float_from_data(data, &self.device()), Vec::new())
    }

    fn compare(&self, other: &Self, f: impl Fn(DispatchTensor, DispatchTensor, BoolDType) -> DispatchTensor) -> Mask {
        let shape = broadcast(&self.shape, &other.shape).expect("shapes were checked by infer");
        let (a, b) = (self.expand(&shape).tensor(), other.expand(&shape).tensor());
        Mask { tensor: f(a, b, BoolDType::Native), shape }
    }

    pub(crate) fn greater(&self, other: &Self) -> Mask {
        self.compare(other, Dispatch::float_greater)
    }
    pub(crate) fn less(&self, other: &Self) -> Mask {
        self.compare(other, Dispatch::float_lower)
    }
    pub(crate) fn equal(&self, other: &Self) -> Mask {
        self.compare(other, Dispatch::float_equal)
    }
    pub(crate) fn is_nan(&self) -> Mask {
        Mask { tensor: Dispatch::float_is_nan(self.tensor(), BoolDType::Native), shape: self.shape.to_vec() }
    }
}

struct MaxPool2d {
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
}

impl MaxPool2d {
    fn new(kernel: [usize; 2], o: &Window, _ceil: bool) -> Self {
        let a = |v: &[usize]| [v[0], v[1]];
        Self { kernel, stride: a(&o.stride), padding: [o.padding[0].0, o.padding[1].0], dilation: a(&o.dilation) }
    }
}

fn int_tensor(indices: &[usize], device: &DispatchDevice) -> DispatchTensor {
    let values: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
    Dispatch::int_from_data(TensorData::new(values, [indices.len()]), device)
}

/// How a window moves over the spatial axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) stride: Vec<usize>,
    pub(crate) padding: Vec<(usize, usize)>,
    pub(crate) dilation: Vec<usize>,
    pub(crate) groups: usize,
}

impl Window {
    fn conv<const N: usize>(&self) -> ConvOptions<N> {
        ConvOptions::new_with_padding(
            std::array::from_fn(|i| self.stride[i]),
            std::array::from_fn(|i| self.padding[i]),
            std::array::from_fn(|i| self.dilation[i]),
            self.groups,
        )
    }

    fn transposed<const N: usize>(&self, extra: &[usize]) -> ConvTransposeOptions<N> {
        ConvTransposeOptions::new(
            std::array::from_fn(|i| self.stride[i]),
            std::array::from_fn(|i| self.padding[i].0),
            std::array::from_fn(|i| extra[i]),
            std::array::from_fn(|i| self.dilation[i]),
            self.groups,
        )
    }
}
