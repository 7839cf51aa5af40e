//! Convolutions of quantised values.

use netproof_tensor::DType;

use super::{Requantise, eight_bits, integers, optional_ints, scale, zero_point};
use crate::attributes::Attributes;
use crate::error::{OpResult, invalid, unsupported};
use crate::operator::{Args, Context, Fact, Operator, Value, checked_shape};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pad {
    Given,
    None,
    Upper,
    Lower,
}

/// Attributes of a convolution.
struct Convolution {
    pad: Pad,
    dilations: Option<Vec<i64>>,
    groups: usize,
    kernel: Option<Vec<i64>>,
    pads: Option<Vec<i64>>,
    strides: Option<Vec<i64>>,
}

/// A convolution of known shapes, with three spatial axes; missing ones have size 1.
struct Sizes {
    groups: usize,
    batch: usize,
    channels: usize,
    filters: usize,
    input: [usize; 3],
    kernel: [usize; 3],
    output: [usize; 3],
    stride: [usize; 3],
    dilation: [usize; 3],
    before: [usize; 3],
    shape: Vec<usize>,
}

impl Convolution {
    fn new(a: &Attributes<'_>) -> OpResult<Self> {
        let pad = match a.text("auto_pad", "NOTSET")?.as_str() {
            "NOTSET" | "" => Pad::Given,
            "VALID" => Pad::None,
            "SAME_UPPER" => Pad::Upper,
            "SAME_LOWER" => Pad::Lower,
            other => invalid!("attribute `auto_pad` must be NOTSET, VALID, SAME_UPPER or SAME_LOWER, got {other}"),
        };
        let groups = a.int("group", 1)?;
        let Some(groups) = usize::try_from(groups).ok().filter(|&g| g > 0) else {
            invalid!("attribute `group` must be at least 1, got {groups}");
        };
        Ok(Self {
            pad,
            dilations: a.ints("dilations")?,
            groups,
            kernel: a.ints("kernel_shape")?,
            pads: a.ints("pads")?,
            strides: a.ints("strides")?,
        })
    }

    /// An attribute with one entry per spatial axis.
    fn entries(list: Option<&Vec<i64>>, count: usize, name: &str, default: i64, least: i64) -> OpResult<Vec<i64>> {
        /// Keeps all products of sizes and steps within 64 bits.
        const MOST: i64 = 1 << 31;
        let list = match list {
            Some(list) if !list.is_empty() => list.clone(),
            _ => vec![default; count],
        };
        if list.len() != count || list.iter().any(|v| !(least..MOST).contains(v)) {
            invalid!("attribute `{name}` must be {count} numbers in {least}..{MOST}, got {list:?}");
        }
        Ok(list)
    }

    fn sizes(&self, x: &[usize], w: &[usize]) -> OpResult<Sizes> {
        let rank = x.len();
        if !(3..=5).contains(&rank) {
            unsupported!("a convolution of x with shape {x:?}; 1 to 3 spatial axes are known");
        }
        if w.len() != rank || x[1] != w[1].saturating_mul(self.groups) || !w[0].is_multiple_of(self.groups) {
            invalid!("weights of shape {w:?} in {} groups do not fit x of shape {x:?}", self.groups);
        }
        let spatial = rank - 2;
        let kernel: Vec<i64> = w[2..].iter().map(|&d| d as i64).collect();
        if self.kernel.as_ref().is_some_and(|k| *k != kernel) {
            invalid!("attribute `kernel_shape` is {:?}, the weights have shape {w:?}", self.kernel);
        }
        if kernel.contains(&0) {
            invalid!("the kernel is empty: weights have shape {w:?}");
        }
        let strides = Self::entries(self.strides.as_ref(), spatial, "strides", 1, 1)?;
        let dilations = Self::entries(self.dilations.as_ref(), spatial, "dilations", 1, 1)?;
        let pads = match self.pad {
            Pad::Given => Self::entries(self.pads.as_ref(), 2 * spatial, "pads", 0, 0)?,
            _ => vec![0; 2 * spatial],
        };
        let lead = 3 - spatial;
        let mut s = Sizes {
            groups: self.groups,
            batch: x[0],
            channels: w[1],
            filters: w[0],
            input: [1; 3],
            kernel: [1; 3],
            output: [1; 3],
            stride: [1; 3],
            dilation: [1; 3],
            before: [0; 3],
            shape: Vec::new(),
        };
        let mut shape = vec![x[0] as i64, w[0] as i64];
        for i in 0..spatial {
            let (size, stride) = (x[i + 2] as i64, strides[i]);
            let span = (kernel[i] - 1).saturating_mul(dilations[i]).saturating_add(1);
            let (out, before) = match self.pad {
                Pad::Given | Pad::None => {
                    let free = size + pads[i] + pads[i + spatial] - span;
                    (if free < 0 { 0 } else { free / stride + 1 }, pads[i])
                }
                Pad::Upper | Pad::Lower => {
                    let out = (size + stride - 1) / stride;
                    let total = ((out - 1) * stride).saturating_add(span).saturating_sub(size).max(0);
                    (out, if self.pad == Pad::Upper { total / 2 } else { total - total / 2 })
                }
            };
            if out <= 0 {
                invalid!("the kernel of span {span} is larger than the padded axis {} of x with shape {x:?}", i + 2);
            }
            shape.push(out);
            s.input[lead + i] = x[i + 2];
            s.kernel[lead + i] = w[i + 2];
            s.output[lead + i] = out as usize;
            s.stride[lead + i] = stride as usize;
            s.dilation[lead + i] = dilations[i] as usize;
            s.before[lead + i] = before as usize;
        }
        s.shape = checked_shape(&shape)?;
        Ok(s)
    }
}

impl Sizes {
    /// Output positions whose tap `k` along axis `i` is inside the input.
    fn inside(&self, i: usize, k: usize) -> std::ops::Range<usize> {
        let (offset, before, stride) = (k * self.dilation[i], self.before[i], self.stride[i]);
        let start = before.saturating_sub(offset).div_ceil(stride);
        let end = (self.input[i] + before).saturating_sub(offset).div_ceil(stride);
        start.min(self.output[i])..end.min(self.output[i])
    }

    /// Sums of products for every output; `x` and `w` have their zero points subtracted, so padding counts as 0.
    fn run(&self, x: &[i64], w: &[i64]) -> Vec<i64> {
        let (plane_in, plane_out) = (self.input.iter().product::<usize>(), self.output.iter().product::<usize>());
        let taps: usize = self.kernel.iter().product();
        let per_group = self.filters / self.groups;
        let mut out = vec![0i64; self.batch * self.filters * plane_out];
        let [_, height, width] = self.input;
        let [_, out_height, out_width] = self.output;
        let from = |i: usize, o: usize, k: usize| o * self.stride[i] + k * self.dilation[i] - self.before[i];
        for (number, sums) in out.chunks_exact_mut(plane_out.max(1)).enumerate() {
            let (n, f) = (number / self.filters, number % self.filters);
            for c in 0..self.channels {
                let channel = n * self.channels * self.groups + f / per_group * self.channels + c;
                let image = &x[channel * plane_in..(channel + 1) * plane_in];
                let kernel = &w[(f * self.channels + c) * taps..(f * self.channels + c + 1) * taps];
                for (tap, &weight) in kernel.iter().enumerate().filter(|(_, w)| **w != 0) {
                    let k = [
                        tap / (self.kernel[1] * self.kernel[2]),
                        tap / self.kernel[2] % self.kernel[1],
                        tap % self.kernel[2],
                    ];
                    for d in self.inside(0, k[0]) {
                        for h in self.inside(1, k[1]) {
                            let line = (from(0, d, k[0]) * height + from(1, h, k[1])) * width;
                            let target = (d * out_height + h) * out_width;
                            for o in self.inside(2, k[2]) {
                                let s = &mut sums[target + o];
                                *s = s.wrapping_add(weight * image[line + from(2, o, k[2])]);
                            }
                        }
                    }
                }
            }
        }
        out
    }

    fn macs(&self) -> u64 {
        let taps = self.kernel.iter().fold(self.channels as u64, |t, &k| t.saturating_mul(k as u64));
        self.shape.iter().fold(taps, |t, &d| t.saturating_mul(d as u64))
    }
}

/// Codes with the zero points of the weights subtracted: one number, or one per filter.
fn centred_weights(values: &[i64], zeros: &[i64], filters: usize) -> Vec<i64> {
    let size = (values.len() / filters.max(1)).max(1);
    values.iter().enumerate().map(|(i, v)| v - zeros[i / size % zeros.len()]).collect()
}

fn centred(values: &[i64], zeros: &[i64]) -> Vec<i64> {
    values.iter().map(|v| v - zeros[0]).collect()
}

/// Convolution of integers in int32.
pub(super) struct ConvInteger(Convolution);

impl ConvInteger {
    pub(super) fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self(Convolution::new(a)?)))
    }
}

impl Operator for ConvInteger {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if !(2..=4).contains(&inputs.len()) {
            invalid!("has {} inputs, needs x, w and optionally their zero points", inputs.len());
        }
        let (x, w) = (eight_bits(inputs, 0)?, eight_bits(inputs, 1)?);
        let s = self.0.sizes(&x.shape, &w.shape)?;
        if inputs.get(2).is_some() {
            zero_point(inputs, 2, x.dtype, &[])?;
        }
        if inputs.get(3).is_some() {
            zero_point(inputs, 3, w.dtype, &[&[s.filters]])?;
        }
        Ok(vec![Fact::new(DType::I32, s.shape)])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], _cx: &Context) -> OpResult<Vec<Value>> {
        let s = self.0.sizes(inputs.need(0)?.shape(), inputs.need(1)?.shape())?;
        let x = centred(&inputs.ints(0)?, &optional_ints(inputs, 2)?);
        let w = centred_weights(&inputs.ints(1)?, &optional_ints(inputs, 3)?, s.filters);
        let out = s.run(&x, &w).into_iter().map(|v| DType::I32.wrap(v)).collect();
        Ok(vec![integers(DType::I32, &s.shape, out)?])
    }

    fn macs(&self, inputs: Args<'_, Fact>, _outputs: &[Fact]) -> u64 {
        convolution_macs(&self.0, inputs, 0, 1)
    }
}

fn convolution_macs(c: &Convolution, inputs: Args<'_, Fact>, x: usize, w: usize) -> u64 {
    match (inputs.get(x), inputs.get(w)) {
        (Some(x), Some(w)) => c.sizes(&x.shape, &w.shape).map_or(0, |s| s.macs()),
        _ => 0,
    }
}

/// A convolution of quantised values, quantised again. Inputs: x, scale, zero point, w, scale, zero point, y's scale and
/// zero point, and an int32 bias whose scale is x's times w's.
pub(super) struct QLinearConv(Convolution);

impl QLinearConv {
    pub(super) fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self(Convolution::new(a)?)))
    }
}

impl Operator for QLinearConv {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if !(8..=9).contains(&inputs.len()) {
            invalid!("has {} inputs, needs 8 and optionally a bias", inputs.len());
        }
        let (x, w) = (eight_bits(inputs, 0)?, eight_bits(inputs, 3)?);
        let s = self.0.sizes(&x.shape, &w.shape)?;
        scale(inputs, 1, &[])?;
        zero_point(inputs, 2, x.dtype, &[])?;
        scale(inputs, 4, &[&[s.filters]])?;
        zero_point(inputs, 5, w.dtype, &[&[s.filters]])?;
        scale(inputs, 6, &[])?;
        let y = eight_bits(inputs, 7)?;
        zero_point(inputs, 7, y.dtype, &[])?;
        if let Some(bias) = inputs.get(8)
            && (bias.dtype != DType::I32 || bias.shape != [s.filters])
        {
            invalid!("the bias is {} of shape {:?}, must be int32 of shape [{}]", bias.dtype, bias.shape, s.filters);
        }
        Ok(vec![Fact::new(y.dtype, s.shape)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], _cx: &Context) -> OpResult<Vec<Value>> {
        let Some(out) = outputs.first() else { return Ok(Vec::new()) };
        let s = self.0.sizes(inputs.need(0)?.shape(), inputs.need(3)?.shape())?;
        let code = Requantise::new(inputs, [1, 4, 6, 7], out.dtype)?;
        let bias = optional_ints(inputs, 8)?;
        let x = centred(&inputs.ints(0)?, &inputs.ints(2)?);
        let w = centred_weights(&inputs.ints(3)?, &inputs.ints(5)?, s.filters);
        let plane: usize = s.output.iter().product();
        let values = s
            .run(&x, &w)
            .into_iter()
            .enumerate()
            .map(|(i, sum)| {
                let filter = i / plane % s.filters;
                code.code(sum.wrapping_add(bias[filter % bias.len()]), 0, filter, 0)
            })
            .collect();
        Ok(vec![integers(out.dtype, &out.shape, values)?])
    }

    fn macs(&self, inputs: Args<'_, Fact>, _outputs: &[Fact]) -> u64 {
        convolution_macs(&self.0, inputs, 0, 3)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::codes;
    use super::*;
    use crate::ops::test_support::{Attr, run};

    /// The definition, one output at a time, for two spatial axes.
    fn by_definition(x: &[i64], w: &[i64], zeros: (i64, i64)) -> Vec<i64> {
        // x [1, 4, 5, 4], w [6, 2, 3, 2], 2 groups, strides 2 and 1, dilations 1 and 2, pads 1, 0, 2, 1.
        let (height, width, out_height, out_width) = (5, 4, 3, 3);
        let mut out = Vec::new();
        for f in 0..6 {
            for i in 0..out_height {
                for j in 0..out_width {
                    let mut sum = 0;
                    for c in 0..2 {
                        for p in 0..3 {
                            for q in 0..2 {
                                let (row, column) = (i * 2 + p - 1, j + q * 2);
                                if (0..height).contains(&row) && (0..width).contains(&column) {
                                    let at = ((f / 3 * 2 + c) * height + row) * width + column;
                                    let tap = ((f * 2 + c) * 3 + p) * 2 + q;
                                    sum += (x[at as usize] - zeros.0) * (w[tap as usize] - zeros.1);
                                }
                            }
                        }
                    }
                    out.push(sum);
                }
            }
        }
        out
    }

    #[test]
    fn groups_strides_dilations_and_padding_follow_the_definition() {
        let x: Vec<i64> = (0..80).map(|i| i * 37 % 251).collect();
        let w: Vec<i64> = (0..72).map(|i| i * 53 % 201 - 100).collect();
        let attributes = [
            ("group", Attr::Int(2)),
            ("strides", Attr::Ints(vec![2, 1])),
            ("dilations", Attr::Ints(vec![1, 2])),
            ("pads", Attr::Ints(vec![1, 0, 2, 1])),
        ];
        let inputs = [
            Some(codes(DType::U8, &[1, 4, 5, 4], x.clone())),
            Some(codes(DType::I8, &[6, 2, 3, 2], w.clone())),
            Some(codes(DType::U8, &[], vec![120])),
            Some(codes(DType::I8, &[], vec![-3])),
        ];
        let y = run("ConvInteger", 10, &attributes, &inputs).unwrap();
        assert_eq!(y[0].shape(), [1, 6, 3, 3]);
        assert_eq!(y[0].as_i64().unwrap(), by_definition(&x, &w, (120, -3)));
    }

    #[test]
    fn padding_of_the_same_size_goes_to_the_named_end() {
        let inputs =
            [Some(codes(DType::U8, &[1, 1, 3], vec![1, 2, 3])), Some(codes(DType::U8, &[1, 1, 2], vec![1, 10]))];
        for (pad, want) in [("SAME_UPPER", [21, 32, 3]), ("SAME_LOWER", [10, 21, 32])] {
            let y = run("ConvInteger", 10, &[("auto_pad", Attr::Text(pad))], &inputs).unwrap();
            assert_eq!(y[0].as_i64().unwrap(), want, "{pad}");
        }
        let y = run("ConvInteger", 10, &[("auto_pad", Attr::Text("VALID"))], &inputs).unwrap();
        assert_eq!(y[0].as_i64().unwrap(), [21, 32]);
    }

    #[test]
    fn filters_have_scales_zero_points_and_biases_of_their_own() {
        let float = |v: &[f32]| {
            Some(netproof_tensor::Tensor::f32(if v.len() == 1 { vec![] } else { vec![v.len()] }, v.to_vec()).unwrap())
        };
        let inputs = [
            Some(codes(DType::U8, &[1, 1, 1, 2], vec![10, 20])),
            float(&[0.5]),
            Some(codes(DType::U8, &[], vec![4])),
            Some(codes(DType::I8, &[2, 1, 1, 1], vec![3, 5])),
            float(&[1.0, 2.0]),
            Some(codes(DType::I8, &[2], vec![1, -1])),
            float(&[4.0]),
            Some(codes(DType::U8, &[], vec![7])),
            Some(codes(DType::I32, &[2], vec![8, -6])),
        ];
        // Sums 20 and 40, 30 and 90, times 1/8 and 1/4, half to even, plus 7.
        let y = run("QLinearConv", 10, &[], &inputs).unwrap();
        assert_eq!(y[0].as_i64().unwrap(), [7 + 2, 7 + 5, 7 + 8, 7 + 22]);
    }

    #[test]
    fn hostile_attributes_are_refused() {
        let inputs =
            || [Some(codes(DType::U8, &[1, 1, 3], vec![1, 2, 3])), Some(codes(DType::U8, &[1, 1, 2], vec![1, 10]))];
        let refused = |name: &'static str, value: Attr| {
            run("ConvInteger", 10, &[(name, value)], &inputs()).expect_err(name);
        };
        refused("pads", Attr::Ints(vec![i64::MAX, i64::MAX]));
        refused("pads", Attr::Ints(vec![(1 << 31) - 1, (1 << 31) - 1]));
        refused("pads", Attr::Ints(vec![-1, 0]));
        refused("strides", Attr::Ints(vec![0]));
        refused("dilations", Attr::Ints(vec![1 << 30]));
        refused("dilations", Attr::Ints(vec![1, 1]));
        refused("group", Attr::Int(0));
        refused("group", Attr::Int(i64::MAX));
        refused("kernel_shape", Attr::Ints(vec![3]));
    }
}
