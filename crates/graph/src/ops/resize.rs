//! Resize and Upsample: one matrix of weights per axis, applied one axis after the other.

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid, unsupported};
use crate::operator::{Args, Context, Entry, Fact, Operator, Value, axis, checked_shape};
use crate::real::Real;

use super::rearrange::{Fill, How, moved, per_axis};

pub(super) const ENTRIES: &[Entry] =
    &[Entry { name: "Resize", build: resize }, Entry { name: "Upsample", build: upsample }];

#[derive(Clone, Copy, PartialEq, Debug)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    CropAndResize,
    TfHalfPixelForNearest,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Rounding {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Policy {
    Stretch,
    NotLarger,
    NotSmaller,
}

struct Resize {
    mode: Mode,
    coordinates: Coordinates,
    rounding: Rounding,
    cubic: f64,
    exclude_outside: bool,
    extrapolation: f32,
    antialias: bool,
    axes: Option<Vec<i64>>,
    policy: Policy,
    /// Scales of Upsample before opset 9.
    scales: Option<Vec<f32>>,
    /// Input numbers of region, scales and sizes.
    inputs: [Option<usize>; 3],
}

fn resize(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
    let old = a.opset < 11;
    let default_coordinates = if old { "asymmetric" } else { "half_pixel" };
    let default_rounding = if old { "floor" } else { "round_prefer_floor" };
    Ok(Box::new(Resize {
        mode: mode(a)?,
        coordinates: match a.text("coordinate_transformation_mode", default_coordinates)?.as_str() {
            "half_pixel" => Coordinates::HalfPixel,
            "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
            "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
            "align_corners" => Coordinates::AlignCorners,
            "asymmetric" => Coordinates::Asymmetric,
            "tf_crop_and_resize" => Coordinates::CropAndResize,
            "tf_half_pixel_for_nn" => Coordinates::TfHalfPixelForNearest,
            other => unsupported!("attribute `coordinate_transformation_mode` is {other}"),
        },
        rounding: match a.text("nearest_mode", default_rounding)?.as_str() {
            "round_prefer_floor" => Rounding::PreferFloor,
            "round_prefer_ceil" => Rounding::PreferCeil,
            "floor" => Rounding::Floor,
            "ceil" => Rounding::Ceil,
            other => unsupported!("attribute `nearest_mode` is {other}"),
        },
        cubic: f64::from(a.float("cubic_coeff_a", -0.75)?),
        exclude_outside: a.flag("exclude_outside", false)?,
        extrapolation: a.float("extrapolation_value", 0.0)?,
        antialias: a.flag("antialias", false)?,
        axes: a.ints("axes")?,
        policy: match a.text("keep_aspect_ratio_policy", "stretch")?.as_str() {
            "stretch" => Policy::Stretch,
            "not_larger" => Policy::NotLarger,
            "not_smaller" => Policy::NotSmaller,
            other => unsupported!("attribute `keep_aspect_ratio_policy` is {other}"),
        },
        scales: None,
        inputs: if old { [None, Some(1), None] } else { [Some(1), Some(2), Some(3)] },
    }))
}

fn upsample(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
    let scales = if a.opset < 9 { Some(a.floats("scales")?.unwrap_or_default()) } else { None };
    Ok(Box::new(Resize {
        mode: mode(a)?,
        coordinates: Coordinates::Asymmetric,
        rounding: Rounding::Floor,
        cubic: -0.75,
        exclude_outside: false,
        extrapolation: 0.0,
        antialias: false,
        axes: None,
        policy: Policy::Stretch,
        inputs: [None, scales.is_none().then_some(1), None],
        scales,
    }))
}

fn mode(a: &Attributes<'_>) -> OpResult<Mode> {
    Ok(match a.text("mode", "nearest")?.as_str() {
        "nearest" => Mode::Nearest,
        "linear" | "bilinear" | "trilinear" => Mode::Linear,
        "cubic" | "bicubic" => Mode::Cubic,
        other => unsupported!("attribute `mode` is {other}"),
    })
}

/// How one axis is resized.
struct Along {
    axis: usize,
    from: usize,
    to: usize,
    scale: f64,
    region: (f64, f64),
}

impl Resize {
    fn along(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Along>> {
        let shape = &inputs.need(0)?.shape;
        let list = match &self.axes {
            Some(list) => list.clone(),
            None => (0..shape.len() as i64).collect(),
        };
        crate::operator::axes(&list, shape.len())?;
        let chosen = list.iter().map(|&a| axis(a, shape.len())).collect::<OpResult<Vec<_>>>()?;
        let given = |slot: usize| {
            let i = self.inputs[slot]?;
            // An empty tensor stands for an absent input.
            inputs.get(i).filter(|f| f.count() > 0).map(|_| i)
        };
        let n = chosen.len();
        let region = match given(0).filter(|_| self.coordinates == Coordinates::CropAndResize) {
            Some(i) => inputs.floats(i)?,
            None if self.coordinates == Coordinates::CropAndResize => invalid!("tf_crop_and_resize needs a region"),
            None => [vec![0.0; n], vec![1.0; n]].concat(),
        };
        let scales = match (&self.scales, given(1)) {
            (Some(s), _) => Some(s.clone()),
            (None, Some(i)) => Some(inputs.floats(i)?),
            (None, None) => None,
        };
        let mut out = Vec::new();
        if region.len() != 2 * n {
            invalid!("the region has {} numbers for {n} axes", region.len());
        }
        let sizes = given(2).map(|i| inputs.ints(i)).transpose()?;
        match (&scales, &sizes) {
            (Some(s), None) if s.len() == n => {
                for (i, (&at, &scale)) in chosen.iter().zip(s).enumerate() {
                    if !(scale > 0.0 && scale.is_finite()) {
                        invalid!("scale {scale} of axis {at} must be finite and above 0");
                    }
                    let span = f64::from(region[n + i]) - f64::from(region[i]);
                    let to = (shape[at] as f64 * f64::from(scale) * span).floor();
                    let to = if to.is_finite() && to < 4e9 { to as i64 } else { i64::MAX };
                    let to = checked_shape(&[to])?[0];
                    let region = (f64::from(region[i]), f64::from(region[n + i]));
                    out.push(Along { axis: at, from: shape[at], to, scale: f64::from(scale), region });
                }
            }
            (None, Some(s)) if s.len() == n => {
                let ratio = |i: usize| s[i] as f64 / shape[chosen[i]].max(1) as f64;
                let ratios = (0..n).map(ratio);
                let common = match self.policy {
                    Policy::Stretch => None,
                    Policy::NotLarger => Some(ratios.fold(f64::INFINITY, f64::min)),
                    Policy::NotSmaller => Some(ratios.fold(0.0, f64::max)),
                };
                for (i, &at) in chosen.iter().enumerate() {
                    let wanted = match common {
                        None => s[i],
                        Some(r) => (r * shape[at] as f64 + 0.5).floor() as i64,
                    };
                    let to = checked_shape(&[wanted])?[0];
                    let region = (f64::from(region[i]), f64::from(region[n + i]));
                    out.push(Along { axis: at, from: shape[at], to, scale: common.unwrap_or(ratio(i)), region });
                }
            }
            _ => invalid!("needs either scales or sizes, one per axis ({n})"),
        }
        if out.iter().any(|a| a.from == 0 && a.to > 0) {
            invalid!("an empty axis cannot grow");
        }
        Ok(out)
    }

    fn shape(&self, shape: &[usize], along: &[Along]) -> OpResult<Vec<usize>> {
        let mut dims: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
        along.iter().for_each(|a| dims[a.axis] = a.to as i64);
        checked_shape(&dims)
    }

    /// Where an output entry lies in the input.
    fn source(&self, a: &Along, i: usize) -> f64 {
        let (x, from, to) = (i as f64, a.from as f64, a.to as f64);
        match self.coordinates {
            Coordinates::HalfPixel => (x + 0.5) / a.scale - 0.5,
            Coordinates::HalfPixelSymmetric => {
                // The output is smaller than the exact size; what is cut off is cut off evenly.
                let adjustment = to / (a.scale * from);
                let centre = from / 2.0;
                centre * (1.0 - adjustment) + (x + 0.5) / a.scale - 0.5
            }
            Coordinates::PytorchHalfPixel if a.to <= 1 => 0.0,
            Coordinates::PytorchHalfPixel => (x + 0.5) / a.scale - 0.5,
            // The exact length of the output counts, also where its entries are fewer.
            Coordinates::AlignCorners if a.scale * from == 1.0 => 0.0,
            Coordinates::AlignCorners => x * (from - 1.0) / (a.scale * from - 1.0),
            Coordinates::Asymmetric => x / a.scale,
            Coordinates::TfHalfPixelForNearest => (x + 0.5) / a.scale,
            Coordinates::CropAndResize => {
                let (start, end) = a.region;
                if a.to <= 1 {
                    0.5 * (start + end) * (from - 1.0)
                } else {
                    start * (from - 1.0) + x * (end - start) * (from - 1.0) / (to - 1.0)
                }
            }
        }
    }

    fn outside(&self, a: &Along, i: usize) -> bool {
        let x = self.source(a, i);
        self.coordinates == Coordinates::CropAndResize && (x < 0.0 || x > a.from as f64 - 1.0)
    }

    fn nearest(&self, a: &Along, i: usize) -> usize {
        let x = self.source(a, i);
        let r = match self.rounding {
            Rounding::PreferFloor => (x - 0.5).ceil(),
            Rounding::PreferCeil => (x + 0.5).floor(),
            Rounding::Floor => x.floor(),
            Rounding::Ceil => x.ceil(),
        };
        r.clamp(0.0, a.from as f64 - 1.0) as usize
    }

    /// Row `i` of the weights: every input entry's share of output entry `i`.
    fn weights(&self, a: &Along, i: usize, row: &mut [f32]) {
        let x = self.source(a, i);
        // Antialiasing stretches the filter where the axis shrinks.
        let stretch = if self.antialias { a.scale.min(1.0) } else { 1.0 };
        let reach = if self.mode == Mode::Linear { 1.0 } else { 2.0 } / stretch;
        let filter = |t: f64| {
            let t = (t * stretch).abs();
            match self.mode {
                Mode::Linear => (1.0 - t).max(0.0),
                _ if t <= 1.0 => ((self.cubic + 2.0) * t - (self.cubic + 3.0)) * t * t + 1.0,
                _ if t < 2.0 => self.cubic * (((t - 5.0) * t + 8.0) * t - 4.0),
                _ => 0.0,
            }
        };
        let (low, high) = ((x - reach).floor() as i64, (x + reach).ceil() as i64);
        let last = a.from as i64 - 1;
        let taps: Vec<(i64, f64)> = (low..=high)
            .map(|j| (j, filter(x - j as f64)))
            .filter(|&(j, _)| !self.exclude_outside || (0..=last).contains(&j))
            .collect();
        let normalise = self.exclude_outside || self.antialias;
        let total: f64 = if normalise { taps.iter().map(|t| t.1).sum() } else { 1.0 };
        for (j, w) in taps {
            if w != 0.0 {
                row[j.clamp(0, last) as usize] += (w / total) as f32;
            }
        }
    }
}

impl Operator for Resize {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let input = inputs.need(0)?;
        let along = self.along(inputs)?;
        if self.mode != Mode::Nearest {
            if !input.dtype.is_float() {
                unsupported!("mode {:?} for {} values", self.mode, input.dtype);
            }
            for a in &along {
                checked_shape(&[a.from as i64, a.to as i64])?;
            }
        }
        Ok(vec![Fact::new(input.dtype, self.shape(&input.shape, &along)?)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let known: Vec<Option<Fact>> = inputs
            .0
            .iter()
            .enumerate()
            .map(|(i, v)| {
                v.as_ref().map(|v| match v {
                    // Scales and sizes are few; the picture stays where it is.
                    Value::Real(r) if i == 0 => Fact::new(outputs[0].dtype, r.shape().to_vec()),
                    v => Fact::known((*v.to_host()).clone()),
                })
            })
            .collect();
        let along = self.along(Args(&known))?;
        let input = inputs.need(0)?;
        if self.mode == Mode::Nearest {
            let mut lists: Vec<Vec<usize>> = input.shape().iter().map(|&d| (0..d).collect()).collect();
            for a in &along {
                let fill = |i| if self.outside(a, i) { super::rearrange::FILL } else { self.nearest(a, i) };
                lists[a.axis] = (0..a.to).map(fill).collect();
            }
            let whole =
                |(list, &d): (&Vec<usize>, &usize)| list.len() == d && list.iter().enumerate().all(|(i, &j)| i == j);
            let changed: Vec<usize> =
                lists.iter().zip(input.shape()).enumerate().filter(|(_, x)| !whole(*x)).map(|(i, _)| i).collect();
            let filled = lists.iter().flatten().any(|&i| i == super::rearrange::FILL);
            let fill = Fill { float: self.extrapolation, int: self.extrapolation as i64, ..Fill::default() };
            if filled {
                let how = How::Index(per_axis(input.shape(), &lists));
                return Ok(vec![moved(input, &how, &outputs[0].shape, &fill)?]);
            }
            let mut value = input.clone();
            for axis in changed {
                let mut shape = value.shape().to_vec();
                shape[axis] = lists[axis].len();
                value = moved(&value, &How::Select(axis, lists[axis].clone()), &shape, &fill)?;
            }
            return Ok(vec![value]);
        }
        let mut x = input.real(cx)?;
        for a in
            along.iter().filter(|a| a.from != a.to || a.scale != 1.0 || self.coordinates == Coordinates::CropAndResize)
        {
            let mut weights = vec![0.0f32; a.to * a.from];
            for (i, row) in weights.chunks_exact_mut(a.from).enumerate() {
                self.weights(a, i, row);
            }
            x = apply(&x, a.axis, &Real::new(&[a.to, a.from], weights, &cx.device));
        }
        if along.iter().any(|a| (0..a.to).any(|i| self.outside(a, i))) {
            let mut inside = vec![1.0f32];
            for (axis, &d) in outputs[0].shape.iter().enumerate() {
                let own = along.iter().find(|a| a.axis == axis);
                let keep: Vec<f32> =
                    (0..d).map(|i| f32::from(u8::from(!own.is_some_and(|a| self.outside(a, i))))).collect();
                inside = inside.iter().flat_map(|&v| keep.iter().map(move |&k| v * k)).collect();
            }
            let fill: Vec<f32> = inside.iter().map(|&k| (1.0 - k) * self.extrapolation).collect();
            let shape = &outputs[0].shape;
            x = x.mul(&Real::new(shape, inside, &cx.device)).add(&Real::new(shape, fill, &cx.device));
        }
        Ok(vec![Value::Real(x)])
    }
}

/// `weights` `[to, from]` applied along one axis.
fn apply(x: &Real, axis: usize, weights: &Real) -> Real {
    let mut order: Vec<usize> = (0..x.rank()).filter(|&i| i != axis).collect();
    order.push(axis);
    let mut inverse = vec![0; x.rank()];
    order.iter().enumerate().for_each(|(i, &a)| inverse[a] = i);
    x.permute(&order).matmul(&weights.transpose_last()).permute(&inverse)
}

#[cfg(test)]
mod tests {
    use netproof_tensor::Tensor;

    use crate::ops::test_support::run;

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let x = || Some(Tensor::f32(vec![1, 1, 2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap());
        let scales = |v: [f32; 4]| Some(Tensor::f32(vec![4], v.to_vec()).unwrap());
        assert!(run("Resize", 11, &[], &[x(), None, scales([1.0, 1.0, 1e9, 1e9])]).is_err());
        assert!(run("Resize", 11, &[], &[x(), None, scales([1.0, 1.0, 0.0, 1.0])]).is_err());
        assert!(run("Resize", 11, &[], &[x(), None, scales([1.0, 1.0, f32::NAN, 1.0])]).is_err());
        let y = run("Resize", 11, &[], &[x(), None, scales([1.0, 1.0, 2.0, 1.0])]).unwrap();
        assert_eq!(y[0].shape(), [1, 1, 4, 2]);
        assert_eq!(y[0].as_f32().unwrap(), [1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0]);
    }
}
