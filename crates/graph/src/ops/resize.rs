//! Resize and Upsample: one axis after the other, each output entry a weighted sum of a few input entries.

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid, unsupported};
use crate::operator::{Args, Context, Entry, Fact, Operator, Value, axis, checked_shape};
use crate::real::{Mask, Real};

use super::rearrange::{FILL, Fill, How, moved};

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
                    // In f32, so that ten entries scaled by 0.7 are seven.
                    let to = (shape[at] as f32 * scale * (region[n + i] - region[i])).floor();
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

    /// Input entries that output entry `i` is a sum of, with their weights.
    fn taps(&self, a: &Along, i: usize) -> Vec<(usize, f32)> {
        let x = self.source(a, i);
        // Antialiasing stretches the filter where the axis shrinks; a filter wider than the axis covers all of it.
        let stretch = if self.antialias { a.scale.clamp(0.5 / a.from as f64, 1.0) } else { 1.0 };
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
            .filter(|&(j, w)| w != 0.0 && (!self.exclude_outside || (0..=last).contains(&j)))
            .collect();
        let normalise = self.exclude_outside || self.antialias;
        let total: f64 = if normalise { taps.iter().map(|t| t.1).sum() } else { 1.0 };
        let mut merged: Vec<(usize, f32)> = Vec::new();
        for (j, w) in taps {
            // Beyond the ends, the end repeats.
            let (j, w) = (j.clamp(0, last) as usize, (w / total) as f32);
            match merged.last_mut() {
                Some(last) if last.0 == j => last.1 += w,
                _ => merged.push((j, w)),
            }
        }
        merged
    }

    /// One axis resized: for every rank among the taps one selection, weighted.
    fn apply(&self, x: &Real, a: &Along, cx: &Context) -> Real {
        let taps: Vec<_> = (0..a.to).map(|i| self.taps(a, i)).collect();
        let most = taps.iter().map(Vec::len).max().unwrap_or(0);
        let mut column = vec![1; x.rank()];
        column[a.axis] = a.to;
        let term = |k: usize| {
            // Where there are fewer taps, the first one stands in with weight 0.
            let one = |t: &Vec<(usize, f32)>| t.get(k).copied().or(t.first().map(|t| (t.0, 0.0))).unwrap_or((0, 0.0));
            let (entries, weights): (Vec<usize>, Vec<f32>) = taps.iter().map(one).unzip();
            x.select(a.axis, &entries).mul(&Real::new(&column, weights, &cx.device))
        };
        (1..most).fold(term(0), |sum, k| sum.add(&term(k)))
    }
}

impl Operator for Resize {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let input = inputs.need(0)?;
        let along = self.along(inputs)?;
        if self.mode != Mode::Nearest && !input.dtype.is_float() {
            unsupported!("mode {:?} for {} values", self.mode, input.dtype);
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
                let fill = |i| if self.outside(a, i) { FILL } else { self.nearest(a, i) };
                lists[a.axis] = (0..a.to).map(fill).collect();
            }
            let fill = Fill { float: self.extrapolation, int: self.extrapolation as i64, ..Fill::default() };
            return Ok(vec![moved(input, &How::Entries(lists), &outputs[0].shape, &fill)?]);
        }
        let mut x = input.real(cx)?;
        for a in
            along.iter().filter(|a| a.from != a.to || a.scale != 1.0 || self.coordinates == Coordinates::CropAndResize)
        {
            x = self.apply(&x, a, cx);
        }
        if along.iter().any(|a| (0..a.to).any(|i| self.outside(a, i))) {
            let mut inside = vec![true];
            for (axis, &d) in outputs[0].shape.iter().enumerate() {
                let own = along.iter().find(|a| a.axis == axis);
                let keep: Vec<bool> = (0..d).map(|i| !own.is_some_and(|a| self.outside(a, i))).collect();
                inside = inside.iter().flat_map(|&v| keep.iter().map(move |&k| v && k)).collect();
            }
            let shape = &outputs[0].shape;
            // Picking and not multiplying: infinities outside must not become NaN.
            x = Mask::new(shape, inside, &cx.device).pick(&x, &Real::full(shape, self.extrapolation, &cx.device));
        }
        Ok(vec![Value::Real(x)])
    }
}

#[cfg(test)]
mod tests {
    use netproof_tensor::Tensor;

    use crate::ops::test_support::{Attr, run};

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

    #[test]
    fn ten_entries_scaled_by_seven_tenths_are_seven() {
        let x = Some(Tensor::f32(vec![10], (0..10).map(|v| v as f32).collect()).unwrap());
        let scale = Some(Tensor::f32(vec![1], vec![0.7]).unwrap());
        let y = run("Resize", 13, &[("mode", Attr::Text("linear"))], &[x, None, scale]).unwrap();
        let got = y[0].as_f32().unwrap();
        // (i + 0.5) / 0.7 - 0.5
        let want = [0.2142857, 1.6428571, 3.0714286, 4.5, 5.928571, 7.357143, 8.785714];
        assert_eq!(got.len(), want.len());
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?}");
    }

    #[test]
    fn a_filter_that_is_stretched_without_limit_covers_the_axis() {
        let x = Some(Tensor::f32(vec![3], vec![1.0, 2.0, 3.0]).unwrap());
        let one = |v: &[f32]| Some(Tensor::f32(vec![v.len()], v.to_vec()).unwrap());
        let attributes = [
            ("mode", Attr::Text("linear")),
            ("antialias", Attr::Int(1)),
            ("coordinate_transformation_mode", Attr::Text("tf_crop_and_resize")),
        ];
        let y = run("Resize", 19, &attributes, &[x, one(&[0.0, 1e30]), one(&[1e-30])]).unwrap();
        assert_eq!(y[0].shape(), [3]);
    }
}
