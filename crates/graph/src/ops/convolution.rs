//! Convolutions and their transposes over one to three spatial axes.

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid, unsupported};
use crate::operator::{Args, Backward, Context, Entry, Fact, Operator, Value, checked_shape, one};
use crate::real::{Finish, Real, Window};
use crate::rows::RowsOf;

use super::window::{AutoPad, Geometry, Sliding, cut, lopsided, pad};

pub(super) const ENTRIES: &[Entry] =
    &[Entry { name: "Conv", build: Conv::build }, Entry { name: "ConvTranspose", build: ConvTranspose::build }];

/// Cross-correlation of x, padded with zeros, with a weight `[out, in / groups, ...]`.
fn correlate(x: &Real, weight: &Real, bias: Option<&Real>, window: &Window) -> Real {
    if let Some(y) = x.correlate(weight, window, Finish { bias, ..Finish::default() }) {
        return y;
    }
    if !lopsided(&window.padding) {
        return x.conv(weight, bias, window);
    }
    let plain = Window { padding: vec![(0, 0); window.padding.len()], ..window.clone() };
    pad(x, &window.padding, 0.0).conv(weight, bias, &plain)
}

/// The transpose of [`correlate`]: the gradient of an input whose spatial axes have `sizes` elements.
pub(super) fn spread(gradient: &Real, weight: &Real, window: &Window, sizes: &[usize]) -> Real {
    if let Some(x) = gradient.correlate_input(weight, window, sizes) {
        return x;
    }
    let rank = sizes.len();
    // One channel per group at stride 1: the turned kernel slides back over the gradient, several times as fast.
    let reach = |i: usize| window.dilation[i] * (weight.shape()[i + 2] - 1);
    let depthwise = weight.shape()[1] == 1 && weight.shape()[0] == window.groups;
    let within = (0..rank).all(|i| window.stride[i] == 1 && window.padding[i].0.max(window.padding[i].1) <= reach(i));
    if depthwise && within {
        let padding = (0..rank).map(|i| (reach(i) - window.padding[i].0, reach(i) - window.padding[i].1)).collect();
        let turned = (0..rank).fold(weight.clone(), |w, i| {
            let back: Vec<usize> = (0..w.shape()[i + 2]).rev().collect();
            w.select(i + 2, &back)
        });
        return correlate(gradient, &turned, None, &Window { padding, ..window.clone() });
    }
    // What no window reaches behind its last element.
    let rest: Vec<usize> = (0..rank)
        .map(|i| {
            let extent = window.dilation[i] * (weight.shape()[i + 2] - 1) + 1;
            let reach = (gradient.shape()[i + 2] - 1) * window.stride[i] + extent;
            sizes[i] + window.padding[i].0 + window.padding[i].1 - reach
        })
        .collect();
    if !lopsided(&window.padding) {
        return gradient.conv_transpose(weight, None, window, &rest);
    }
    let plain = Window { padding: vec![(0, 0); rank], ..window.clone() };
    let padded = gradient.conv_transpose(weight, None, &plain, &rest);
    (0..rank).fold(padded, |x, i| x.narrow(i + 2, window.padding[i].0, window.padding[i].0 + sizes[i]))
}

/// The gradient of the weight of [`correlate`], of shape `weight`.
///
/// One product per element of the kernel: that element meets a strided part of the padded input.
fn weight_gradient(x: &Real, weight: &[usize], gradient: &Real, window: &Window) -> Real {
    if let Some(w) = x.correlate_weight(weight, gradient, window) {
        return w;
    }
    let rank = weight.len() - 2;
    let (batch, groups) = (x.shape()[0], window.groups);
    let (out, inside) = (weight[0] / groups, weight[1]);
    let sizes = &gradient.shape()[2..];
    let count: usize = sizes.iter().product();
    let x = pad(x, &window.padding, 0.0);
    let gradient = gradient.reshape(&[batch, groups, out, count]);
    let elements: usize = weight[2..].iter().product();
    let mut parts = Vec::with_capacity(elements);
    for element in 0..elements {
        let mut ranges = vec![(0, batch, 1), (0, groups * inside, 1)];
        let mut rest = element;
        for i in (0..rank).rev() {
            let offset = rest % weight[i + 2] * window.dilation[i];
            rest /= weight[i + 2];
            ranges.insert(2, (offset, sizes[i], window.stride[i]));
        }
        let seen = x.stepped(&ranges).reshape(&[batch, groups, inside, count]);
        let part = if inside == 1 {
            gradient.mul(&seen).sum(&[3]).sum(&[0])
        } else {
            gradient.matmul(&seen.transpose_last()).sum(&[0])
        };
        parts.push(part.reshape(&[groups * out, inside, 1]));
    }
    Real::concat(&parts, 2).reshape(weight)
}

fn bias_gradient(gradient: &Real) -> Real {
    let axes: Vec<usize> = (0..gradient.rank()).filter(|&a| a != 1).rev().collect();
    let channels = gradient.shape()[1];
    gradient.sum(&axes).reshape(&[channels])
}

/// Zeros, or the bias in every place.
fn only_bias(shape: &[usize], bias: Option<&Real>, cx: &Context) -> Real {
    let zeros = Real::full(shape, 0.0, &cx.device);
    match bias {
        None => zeros,
        Some(b) => zeros.add(&lined(b, shape.len())),
    }
}

/// One number per channel, such that it broadcasts.
fn lined(bias: &Real, rank: usize) -> Real {
    let mut shape = vec![1; rank];
    shape[1] = bias.count();
    bias.reshape(&shape)
}

/// Checks what both operators share; `channels` is the number of output channels that the weight has.
fn check<'a>(
    inputs: Args<'a, Fact>,
    sliding: &Sliding,
    groups: usize,
    channels: impl Fn(&[usize]) -> usize,
) -> OpResult<(&'a Fact, &'a Fact)> {
    if !(2..=3).contains(&inputs.len()) {
        invalid!("has {} inputs, needs 2 or 3: x, weight, bias", inputs.len());
    }
    let (x, w) = (inputs.float(0)?, inputs.float(1)?);
    if x.rank() < 3 || w.rank() != x.rank() {
        invalid!("x and weight must have the same number of axes, at least 3, got shapes {:?}, {:?}", x.shape, w.shape);
    }
    if x.rank() > 5 {
        unsupported!("{} spatial axes; at most 3 are supported", x.rank() - 2);
    }
    if let Some(kernel) = &sliding.kernel
        && kernel[..] != w.shape[2..]
    {
        invalid!("attribute `kernel_shape` = {kernel:?} does not fit the weight's shape {:?}", w.shape);
    }
    if w.dtype != x.dtype {
        invalid!("weight must be {}, got {}", x.dtype, w.dtype);
    }
    if !w.shape[0].is_multiple_of(groups) {
        invalid!("weight of shape {:?} does not split into {groups} groups", w.shape);
    }
    if inputs.get(2).is_some() {
        let b = inputs.float(2)?;
        let n = channels(&w.shape);
        if b.shape != [n] || b.dtype != x.dtype {
            invalid!("bias must be {} of shape [{n}], got {} of shape {:?}", x.dtype, b.dtype, b.shape);
        }
    }
    Ok((x, w))
}

fn groups(a: &Attributes<'_>) -> OpResult<usize> {
    let groups = a.int("group", 1)?;
    match usize::try_from(groups) {
        Ok(g) if g > 0 => Ok(g),
        _ => invalid!("attribute `group` must be at least 1, got {groups}"),
    }
}

fn shaped(lead: [usize; 2], spatial: &[usize]) -> OpResult<Vec<usize>> {
    checked_shape(&lead.iter().chain(spatial).map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect::<Vec<_>>())
}

struct Conv {
    sliding: Sliding,
    groups: usize,
}

impl Conv {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self { sliding: Sliding::build(a)?, groups: groups(a)? }))
    }

    fn geometry(&self, x: &[usize], w: &[usize]) -> OpResult<Geometry> {
        self.sliding.over(x, &w[2..])
    }
}

impl Operator for Conv {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let (x, w) = check(inputs, &self.sliding, self.groups, |w| w[0])?;
        if w.shape[1].checked_mul(self.groups) != Some(x.shape[1]) {
            invalid!(
                "x has {} channels, the weight of shape {:?} in {} groups needs {}",
                x.shape[1],
                w.shape,
                self.groups,
                w.shape[1].saturating_mul(self.groups)
            );
        }
        let geometry = self.geometry(&x.shape, &w.shape)?;
        Ok(vec![Fact::new(x.dtype, shaped([x.shape[0], w.shape[0]], &geometry.output)?)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let (x, w) = (inputs.real(0, cx)?, inputs.real(1, cx)?);
        let bias = inputs.optional_real(2, cx)?;
        if x.count() == 0 || w.count() == 0 {
            return one(only_bias(&outputs[0].shape, bias.as_ref(), cx));
        }
        let geometry = self.geometry(x.shape(), w.shape())?;
        let window = geometry.window(geometry.padding.clone(), self.groups);
        one(correlate(&x, &w, bias.as_ref(), &window))
    }

    fn eval_finished(
        &self,
        inputs: Args<'_, Value>,
        _output: &Fact,
        finish: Finish<'_>,
        cx: &Context,
    ) -> OpResult<Option<Real>> {
        let (x, w) = (inputs.real(0, cx)?, inputs.real(1, cx)?);
        let bias = inputs.optional_real(2, cx)?;
        if x.count() == 0 || w.count() == 0 || finish.bias.is_some() {
            return Ok(None);
        }
        let geometry = self.geometry(x.shape(), w.shape())?;
        let window = geometry.window(geometry.padding.clone(), self.groups);
        Ok(x.correlate(&w, &window, Finish { bias: bias.as_ref(), ..finish }))
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let (x, w) = (call.inputs.real(0, call.cx)?, call.inputs.real(1, call.cx)?);
        let gradient = call.gradient();
        let empty = x.count() == 0 || w.count() == 0 || gradient.count() == 0;
        let zeros = |x: &Real| Ok(Real::full(x.shape(), 0.0, &call.cx.device));
        let geometry = self.geometry(x.shape(), w.shape())?;
        let window = geometry.window(geometry.padding.clone(), self.groups);
        let of_x =
            call.when(0, || if empty { zeros(&x) } else { Ok(spread(gradient, &w, &window, &x.shape()[2..])) })?;
        let of_w =
            call.when(1, || if empty { zeros(&w) } else { Ok(weight_gradient(&x, w.shape(), gradient, &window)) })?;
        let mut all = vec![of_x, of_w];
        if call.inputs.len() > 2 {
            all.push(call.when(2, || {
                if gradient.count() == 0 {
                    return Ok(Real::full(&[w.shape()[0]], 0.0, &call.cx.device));
                }
                Ok(bias_gradient(gradient))
            })?);
        }
        Ok(Some(all))
    }

    fn macs(&self, inputs: Args<'_, Fact>, outputs: &[Fact]) -> u64 {
        let per_output = inputs.get(1).map_or(0, |w| w.shape.iter().skip(1).product::<usize>());
        outputs.first().map_or(0, |o| o.count() as u64).saturating_mul(per_output as u64)
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.only(0).filter(|&axis| axis == 0)
    }
}

/// The transpose of a convolution: every element of the input spreads a kernel over the output. The weight is
/// `[in, out / groups, ...]`.
struct ConvTranspose {
    sliding: Sliding,
    groups: usize,
    output_padding: Option<Vec<i64>>,
    output_shape: Option<Vec<i64>>,
}

/// Where the spread kernels lie.
struct Spread {
    window: Window,
    output: Vec<usize>,
    /// Elements from the first to the last one that a kernel reaches, padding included.
    full: Vec<usize>,
}

impl Spread {
    /// Elements of the output, with its padding, behind the reach of any kernel.
    fn extra(&self) -> Vec<usize> {
        let size = |i: usize| self.output[i] + self.window.padding[i].0 + self.window.padding[i].1;
        (0..self.full.len()).map(|i| size(i).saturating_sub(self.full[i])).collect()
    }
}

impl ConvTranspose {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self {
            sliding: Sliding::build(a)?,
            groups: groups(a)?,
            output_padding: a.ints("output_padding")?,
            output_shape: a.ints("output_shape")?,
        }))
    }

    fn spread(&self, x: &[usize], w: &[usize]) -> OpResult<Spread> {
        let rank = x.len() - 2;
        let list = |list: &Option<Vec<i64>>, name: &str, low: i64| -> OpResult<Option<Vec<usize>>> {
            let Some(v) = list else { return Ok(None) };
            if v.len() != rank || v.iter().any(|&v| v < low || v > i64::from(i32::MAX)) {
                invalid!("attribute `{name}` must have {rank} entries of at least {low}, got {v:?}");
            }
            Ok(Some(v.iter().map(|&v| v as usize).collect()))
        };
        let behind = list(&self.output_padding, "output_padding", 0)?.unwrap_or_else(|| vec![0; rank]);
        let given = list(&self.output_shape, "output_shape", 1)?;
        let (stride, dilation) = (self.sliding.strides(rank)?, self.sliding.dilations(rank)?);
        let mut padding = self.sliding.pads(rank)?;
        let same = matches!(self.sliding.auto_pad, AutoPad::SameUpper | AutoPad::SameLower);
        let (mut output, mut full) = (Vec::new(), Vec::new());
        for i in 0..rank {
            let (size, kernel) = (x[i + 2], w[i + 2]);
            if size == 0 || kernel == 0 || size.max(kernel) > i32::MAX as usize {
                invalid!("axis {}: {size} elements and a kernel of {kernel} cannot be spread", i + 2);
            }
            full.push((size - 1) * stride[i] + dilation[i] * (kernel - 1) + 1);
            let wanted = match &given {
                Some(shape) => Some(shape[i]),
                None if same => Some(size * stride[i]),
                None => None,
            };
            let unpadded = full[i] + behind[i];
            if let Some(wanted) = wanted {
                // Nothing is cut from an output that must be larger than what the kernels reach.
                let total = unpadded.saturating_sub(wanted);
                let (small, large) = (total / 2, total - total / 2);
                let upper = self.sliding.auto_pad == AutoPad::SameUpper;
                padding[i] = if upper { (small, large) } else { (large, small) };
                output.push(wanted);
            } else if padding[i].0 + padding[i].1 < unpadded {
                output.push(unpadded - padding[i].0 - padding[i].1);
            } else {
                invalid!("axis {}: a padding of {:?} leaves nothing of {unpadded} elements", i + 2, padding[i]);
            }
        }
        Ok(Spread { window: Window { stride, padding, dilation, groups: self.groups }, output, full })
    }

    /// The part of the output that a kernel reaches, seen as the input of the convolution that leads back.
    fn back(spread: &Spread, gradient: &Real) -> Option<(Real, Window)> {
        let extra = spread.extra();
        let mut window = spread.window.clone();
        let mut kept = Vec::new();
        for (i, extra) in extra.into_iter().enumerate() {
            let end = window.padding[i].1;
            kept.push(spread.output[i].checked_sub(extra.saturating_sub(end)).filter(|&k| k > 0)?);
            window.padding[i].1 = end.saturating_sub(extra);
        }
        Some((cut(gradient, &kept), window))
    }
}

impl Operator for ConvTranspose {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let (x, w) = check(inputs, &self.sliding, self.groups, |w| w[1].saturating_mul(self.groups))?;
        if w.shape[0] != x.shape[1] {
            invalid!("x has {} channels, the weight of shape {:?} needs {}", x.shape[1], w.shape, w.shape[0]);
        }
        let spread = self.spread(&x.shape, &w.shape)?;
        let lead = [x.shape[0], w.shape[1].saturating_mul(self.groups)];
        let whole: Vec<usize> = spread.full.iter().zip(spread.extra()).map(|(f, e)| f + e).collect();
        shaped(lead, &whole)?;
        Ok(vec![Fact::new(x.dtype, shaped(lead, &spread.output)?)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let (x, w) = (inputs.real(0, cx)?, inputs.real(1, cx)?);
        let bias = inputs.optional_real(2, cx)?;
        if x.count() == 0 || w.count() == 0 {
            return one(only_bias(&outputs[0].shape, bias.as_ref(), cx));
        }
        let spread = self.spread(x.shape(), w.shape())?;
        if let Some(y) = x.correlate_input(&w, &spread.window, &spread.output) {
            return one(bias.map_or_else(|| y.clone(), |b| y.add(&lined(&b, y.rank()))));
        }
        let extra = spread.extra();
        if !lopsided(&spread.window.padding) {
            return one(x.conv_transpose(&w, bias.as_ref(), &spread.window, &extra));
        }
        let plain = Window { padding: vec![(0, 0); extra.len()], ..spread.window.clone() };
        let whole = x.conv_transpose(&w, bias.as_ref(), &plain, &extra);
        let begin = |i: usize| spread.window.padding[i].0;
        one((0..extra.len()).fold(whole, |y, i| y.narrow(i + 2, begin(i), begin(i) + spread.output[i])))
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let (x, w) = (call.inputs.real(0, call.cx)?, call.inputs.real(1, call.cx)?);
        let gradient = call.gradient();
        let zeros = |x: &Real| Ok(Real::full(x.shape(), 0.0, &call.cx.device));
        let empty = x.count() == 0 || w.count() == 0 || gradient.count() == 0;
        let spread = self.spread(x.shape(), w.shape())?;
        let back = if empty { None } else { Self::back(&spread, gradient) };
        let of_x = call.when(0, || match &back {
            None => zeros(&x),
            Some((g, window)) => Ok(correlate(g, &w, None, window)),
        })?;
        let of_w = call.when(1, || match &back {
            None => zeros(&w),
            Some((g, window)) => Ok(weight_gradient(g, w.shape(), &x, window)),
        })?;
        let mut all = vec![of_x, of_w];
        if call.inputs.len() > 2 {
            all.push(call.when(2, || {
                if gradient.count() == 0 {
                    return Ok(Real::full(&[gradient.shape()[1]], 0.0, &call.cx.device));
                }
                Ok(bias_gradient(gradient))
            })?);
        }
        Ok(Some(all))
    }

    fn macs(&self, inputs: Args<'_, Fact>, _outputs: &[Fact]) -> u64 {
        let per_input = inputs.get(1).map_or(0, |w| w.shape.iter().skip(1).product::<usize>());
        inputs.get(0).map_or(0, |x| x.count() as u64).saturating_mul(per_input as u64)
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.only(0).filter(|&axis| axis == 0)
    }
}

#[cfg(test)]
mod tests {
    use netproof_tensor::Tensor;

    use super::super::test_support::{Attr, run};
    use super::*;
    use crate::real::RealDevice;

    fn values(shape: &[usize], seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        (0..shape.iter().product())
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as f32 / 64.0 - 2.0
            })
            .collect()
    }

    /// Calls `f(y, x, w)` with the flat numbers of every output, input and weight that meet.
    fn meet(x: &[usize], w: &[usize], y: &[usize], o: &Window, mut f: impl FnMut(usize, usize, usize)) {
        let rank = x.len() - 2;
        let (per_group, inside) = (w[0] / o.groups, w[1]);
        let split = |mut i: usize, sizes: &[usize]| {
            let mut at = vec![0; sizes.len()];
            for (a, &s) in at.iter_mut().zip(sizes).rev() {
                (*a, i) = (i % s, i / s);
            }
            at
        };
        for number in 0..y.iter().product() {
            let at = split(number, y);
            for element in 0..w[1..].iter().product() {
                let k = split(element, &w[1..]);
                let mut source = at[0] * x[1] + at[1] / per_group * inside + k[0];
                let mut inner = true;
                for i in 0..rank {
                    let p = (at[i + 2] * o.stride[i] + k[i + 1] * o.dilation[i]) as i64 - o.padding[i].0 as i64;
                    inner &= p >= 0 && p < x[i + 2] as i64;
                    source = source * x[i + 2] + p.max(0) as usize;
                }
                if inner {
                    f(number, source, at[1] * w[1..].iter().product::<usize>() + element);
                }
            }
        }
    }

    fn close(got: &Real, want: &[f32], what: &str) {
        let scale = want.iter().fold(1.0f32, |m, v| m.max(v.abs()));
        let got = got.to_vec();
        assert_eq!(got.len(), want.len(), "{what}");
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            assert!((g - w).abs() <= 1e-5 * scale, "{what}: element {i} is {g}, must be {w}");
        }
    }

    /// One case of the grid: forward and both gradients against the sums written out.
    fn case(x: &[usize], w: &[usize], o: &Window) -> bool {
        let cx = RealDevice::cpu();
        let rank = x.len() - 2;
        let mut y = vec![x[0], w[0]];
        for i in 0..rank {
            let extent = o.dilation[i] * (w[i + 2] - 1) + 1;
            let padded = x[i + 2] + o.padding[i].0 + o.padding[i].1;
            if extent > padded {
                return false;
            }
            y.push((padded - extent) / o.stride[i] + 1);
        }
        let (xv, wv, gv) = (values(x, 1), values(w, 2), values(&y, 3));
        let (mut yv, mut dx, mut dw) = (vec![0.0; gv.len()], vec![0.0; xv.len()], vec![0.0; wv.len()]);
        meet(x, w, &y, o, |n, s, e| {
            yv[n] += xv[s] * wv[e];
            dx[s] += gv[n] * wv[e];
            dw[e] += gv[n] * xv[s];
        });
        let (xr, wr, gr) = (Real::new(x, xv, &cx), Real::new(w, wv, &cx), Real::new(&y, gv, &cx));
        let what = format!("x {x:?}, w {w:?}, {o:?}");
        close(&correlate(&xr, &wr, None, o), &yv, &format!("forward of {what}"));
        close(&spread(&gr, &wr, o, &x[2..]), &dx, &format!("input gradient of {what}"));
        close(&weight_gradient(&xr, w, &gr, o), &dw, &format!("weight gradient of {what}"));
        true
    }

    #[test]
    fn convolutions_and_their_gradients_agree_with_the_written_out_sum() {
        let mut count = 0;
        // Batch, input channels, output channels, groups.
        for (n, cin, cout, groups) in
            [(1, 1, 1, 1), (3, 2, 4, 1), (3, 4, 2, 2), (1, 3, 3, 3), (3, 2, 4, 2), (1, 5, 7, 1), (1, 20, 18, 2)]
        {
            for (kernel, stride, dilation, padding) in [
                (1, 1, 1, (0, 0)),
                (1, 1, 1, (0, 1)),
                (1, 2, 1, (0, 0)),
                (1, 3, 1, (2, 2)),
                (2, 1, 1, (0, 1)),
                (2, 2, 1, (1, 0)),
                (2, 3, 2, (1, 1)),
                (3, 1, 1, (1, 1)),
                (3, 2, 1, (1, 1)),
                (3, 2, 2, (0, 3)),
                (3, 3, 1, (4, 4)),
                (5, 1, 1, (2, 2)),
                (5, 4, 1, (3, 2)),
            ] {
                for size in [5, 8] {
                    let o = |r: usize| Window {
                        stride: vec![stride; r],
                        padding: vec![padding; r],
                        dilation: vec![dilation; r],
                        groups,
                    };
                    let inside = cin / groups;
                    count += usize::from(case(&[n, cin, size], &[cout, inside, kernel], &o(1)));
                    let mut two = o(2);
                    count += usize::from(case(&[n, cin, size, 6], &[cout, inside, kernel, kernel], &two));
                    // Another rule on each axis.
                    (two.stride[1], two.padding[1], two.dilation[1]) = (1, (1, 1), 1);
                    count += usize::from(case(&[n, cin, size, 4], &[cout, inside, kernel, 2], &two));
                    if size == 5 && cin < 5 {
                        let mut three = o(3);
                        three.stride[2] = 2;
                        count += usize::from(case(&[n, cin, size, 4, 5], &[cout, inside, kernel, 2, kernel], &three));
                    }
                }
            }
        }
        assert!(count > 450, "{count} cases");
    }

    /// The transpose is where the gradient of the convolution's input leads.
    #[test]
    fn transposed_convolution_agrees_with_the_written_out_sum() {
        for (groups, stride, dilation, padding, behind) in [
            (1, 1, 1, [0, 0, 0, 0], [0, 0]),
            (1, 2, 1, [1, 1, 1, 1], [1, 0]),
            (2, 2, 1, [1, 0, 0, 1], [0, 1]),
            (2, 3, 2, [2, 1, 0, 3], [2, 2]),
            (1, 1, 1, [2, 2, 2, 2], [2, 3]),
            (4, 2, 1, [0, 0, 0, 0], [4, 4]),
        ] {
            let (x, w) = ([3, 4, 5, 3], [4, 8 / groups, 3, 2]);
            let full = |i: usize| (x[i + 2] - 1) * stride + dilation * (w[i + 2] - 1) + 1;
            let size = |i: usize| full(i) + behind[i] - padding[i] - padding[i + 2];
            let y = [3, 8, size(0), size(1)];
            let (xv, wv, bv) = (values(&x, 4), values(&w, 5), values(&[8], 6));
            let plane = y[2] * y[3];
            let mut want: Vec<f32> = (0..y.iter().product()).map(|i: usize| bv[i / plane % 8]).collect();
            let o = Window {
                stride: vec![stride; 2],
                padding: vec![(padding[0], padding[2]), (padding[1], padding[3])],
                dilation: vec![dilation; 2],
                groups,
            };
            meet(&y, &w, &x, &o, |n, s, e| want[s] += xv[n] * wv[e]);
            let tensor = |s: &[usize], v: &[f32]| Some(Tensor::f32(s.to_vec(), v.to_vec()).unwrap());
            let attributes = [
                ("strides", Attr::Ints(vec![stride as i64; 2])),
                ("dilations", Attr::Ints(vec![dilation as i64; 2])),
                ("group", Attr::Int(groups as i64)),
                ("pads", Attr::Ints(padding.iter().map(|&p| p as i64).collect())),
                ("output_padding", Attr::Ints(behind.iter().map(|&p| p as i64).collect())),
            ];
            let inputs = [tensor(&x, &xv), tensor(&w, &wv), tensor(&[8], &bv)];
            let got = run("ConvTranspose", 11, &attributes, &inputs).unwrap().remove(0);
            assert_eq!(got.shape(), y);
            let got = Real::new(&y, got.as_f32().unwrap().to_vec(), &RealDevice::cpu());
            close(&got, &want, &format!("groups {groups}, stride {stride}, {padding:?}, {behind:?}"));
        }
    }

    #[test]
    fn the_odd_padding_lies_at_the_end_or_at_the_beginning() {
        let t = |v: &[f32]| Some(Tensor::f32(vec![1, 1, v.len()], v.to_vec()).unwrap());
        let line = |operator: &str, attributes: &[(&str, Attr)], x: &[f32], w: &[f32]| {
            run(operator, 11, attributes, &[t(x), t(w)]).unwrap()[0].as_f32().unwrap().to_vec()
        };
        let x = [1.0, 2.0, 3.0, 4.0];
        let upper = || ("auto_pad", Attr::Text("SAME_UPPER"));
        let lower = || ("auto_pad", Attr::Text("SAME_LOWER"));
        assert_eq!(line("Conv", &[upper()], &x, &[1.0, 10.0]), [21.0, 32.0, 43.0, 4.0]);
        assert_eq!(line("Conv", &[lower()], &x, &[1.0, 10.0]), [10.0, 21.0, 32.0, 43.0]);
        assert_eq!(line("Conv", &[("auto_pad", Attr::Text("VALID"))], &x, &[1.0, 10.0]), [21.0, 32.0, 43.0]);
        // Spread in full: 1, 10, 102, 20, 200.
        let stride = || ("strides", Attr::Ints(vec![2]));
        let (x, w) = ([1.0, 2.0], [1.0, 10.0, 100.0]);
        assert_eq!(line("ConvTranspose", &[upper(), stride()], &x, &w), [1.0, 10.0, 102.0, 20.0]);
        assert_eq!(line("ConvTranspose", &[lower(), stride()], &x, &w), [10.0, 102.0, 20.0, 200.0]);
        let shape = |n| ("output_shape", Attr::Ints(vec![n]));
        assert_eq!(line("ConvTranspose", &[shape(4), stride()], &x, &w), [10.0, 102.0, 20.0, 200.0]);
        assert_eq!(line("ConvTranspose", &[shape(7), stride()], &x, &w), [1.0, 10.0, 102.0, 20.0, 200.0, 0.0, 0.0]);
    }

    #[test]
    fn products_are_counted_once_for_each_group() {
        let fact = |s: &[usize]| Fact::new(netproof_tensor::DType::F32, s.to_vec());
        let sliding = || Sliding::of([vec![3, 3], vec![1; 2], vec![1; 2]], vec![0; 4], false);
        let inputs = [Some(fact(&[2, 4, 5, 5])), Some(fact(&[6, 2, 3, 3]))];
        let conv = Conv { sliding: sliding(), groups: 2 };
        let outputs = conv.infer(Args(&inputs)).unwrap();
        assert_eq!(conv.macs(Args(&inputs), &outputs), 2 * 6 * 3 * 3 * 2 * 9);
        let inputs = [Some(fact(&[2, 6, 3, 3])), Some(fact(&[6, 2, 3, 3]))];
        let back = ConvTranspose { sliding: sliding(), groups: 2, output_padding: None, output_shape: None };
        let outputs = back.infer(Args(&inputs)).unwrap();
        assert_eq!(outputs[0].shape, [2, 4, 5, 5]);
        assert_eq!(back.macs(Args(&inputs), &outputs), 2 * 6 * 3 * 3 * 2 * 9);
    }

    #[test]
    fn what_does_not_fit_is_refused_before_it_runs() {
        let t = |s: &[usize]| Some(Tensor::f32(s.to_vec(), values(s, 7)).unwrap());
        let conv = |attributes: &[(&str, Attr)], x: &[usize], w: &[usize]| {
            run("Conv", 11, attributes, &[t(x), t(w)]).map(|y| y[0].shape().to_vec())
        };
        assert_eq!(conv(&[], &[1, 2, 5], &[3, 2, 5]).unwrap(), [1, 3, 1]);
        assert!(conv(&[], &[1, 2, 5], &[3, 2, 6]).unwrap_err().contains("does not fit"));
        assert!(conv(&[], &[1, 2, 5], &[3, 1, 3]).unwrap_err().contains("channels"));
        assert!(conv(&[("group", Attr::Int(2))], &[1, 2, 5], &[3, 1, 3]).unwrap_err().contains("groups"));
        assert!(conv(&[("group", Attr::Int(0))], &[1, 2, 5], &[3, 1, 3]).is_err());
        assert!(conv(&[("strides", Attr::Ints(vec![0]))], &[1, 2, 5], &[3, 2, 3]).is_err());
        assert!(conv(&[("pads", Attr::Ints(vec![-1, 0]))], &[1, 2, 5], &[3, 2, 3]).is_err());
        assert!(conv(&[("kernel_shape", Attr::Ints(vec![2]))], &[1, 2, 5], &[3, 2, 3]).is_err());
        let far = [("pads", Attr::Ints(vec![0, 2_000_000_000])), ("strides", Attr::Ints(vec![2_000_000_000]))];
        assert!(conv(&far, &[1, 2, 5], &[3, 2, 3]).unwrap_err().contains("limit"));
        let bomb = [("strides", Attr::Ints(vec![2_000_000_000]))];
        assert!(run("ConvTranspose", 11, &bomb, &[t(&[1, 2, 5]), t(&[2, 2, 3])]).unwrap_err().contains("limit"));
        // No input channels: the bias alone.
        let bias = Some(Tensor::f32(vec![2], vec![1.0, -1.0]).unwrap());
        let y = run("Conv", 11, &[], &[t(&[1, 0, 3]), t(&[2, 0, 2]), bias]).unwrap();
        assert_eq!(y[0].as_f32().unwrap(), [1.0, 1.0, -1.0, -1.0]);
    }
}
