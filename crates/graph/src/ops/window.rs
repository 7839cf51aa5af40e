//! How the windows of convolutions and pools lie over the spatial axes.

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid, unsupported};
use crate::operator::checked_shape;
use crate::real::{Real, Window};

/// Largest kernel size, stride, dilation or padding of an axis; products of two of them do not overflow.
const LARGEST: i64 = i32::MAX as i64;

/// How an axis is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AutoPad {
    /// As `pads` says.
    Explicit,
    /// To ceil(input / stride) outputs, the odd one at the end.
    SameUpper,
    /// To ceil(input / stride) outputs, the odd one at the beginning.
    SameLower,
    /// Not at all.
    Valid,
}

/// The window attributes of a node. Absent lists take their default when the rank is known.
#[derive(Debug, Clone)]
pub(super) struct Sliding {
    pub(super) kernel: Option<Vec<usize>>,
    strides: Option<Vec<usize>>,
    dilations: Option<Vec<usize>>,
    pads: Option<Vec<usize>>,
    pub(super) auto_pad: AutoPad,
    /// Whether a last window that is not full counts.
    ceil: bool,
}

fn list(a: &Attributes<'_>, name: &str, low: i64) -> OpResult<Option<Vec<usize>>> {
    let Some(values) = a.ints(name)? else { return Ok(None) };
    if let Some(v) = values.iter().find(|v| !(low..=LARGEST).contains(v)) {
        invalid!("attribute `{name}` must lie in {low}..={LARGEST}, got {v}");
    }
    Ok(Some(values.into_iter().map(|v| v as usize).collect()))
}

impl Sliding {
    /// Reads `kernel_shape`, `strides`, `dilations`, `pads` and `auto_pad`.
    pub(super) fn build(a: &Attributes<'_>) -> OpResult<Self> {
        let pads = list(a, "pads", 0)?;
        let text = a.text("auto_pad", "NOTSET")?;
        let auto_pad = match text.as_str() {
            "NOTSET" | "" => AutoPad::Explicit,
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            "VALID" => AutoPad::Valid,
            _ => invalid!("attribute `auto_pad` must be NOTSET, SAME_UPPER, SAME_LOWER or VALID, got {text}"),
        };
        if auto_pad != AutoPad::Explicit && pads.as_ref().is_some_and(|p| p.iter().any(|&p| p > 0)) {
            invalid!("attributes `auto_pad` = {text} and `pads` exclude each other");
        }
        Ok(Self {
            kernel: list(a, "kernel_shape", 1)?,
            strides: list(a, "strides", 1)?,
            dilations: list(a, "dilations", 1)?,
            pads,
            auto_pad,
            ceil: false,
        })
    }

    /// Reads `ceil_mode` too.
    pub(super) fn pooling(a: &Attributes<'_>) -> OpResult<Self> {
        let ceil = a.flag("ceil_mode", false)?;
        let sliding = Self { ceil, ..Self::build(a)? };
        if sliding.kernel.is_none() {
            invalid!("attribute `kernel_shape` is missing");
        }
        Ok(sliding)
    }

    /// Where the windows of a pool lie over an input of this shape.
    pub(super) fn pool(&self, input: &[usize]) -> OpResult<Geometry> {
        let Some(kernel) = &self.kernel else { invalid!("attribute `kernel_shape` is missing") };
        let geometry = self.over(input, kernel)?;
        for (i, &(begin, end)) in geometry.padding.iter().enumerate() {
            let extent = geometry.extent(i);
            if geometry.input[i] == 0 || begin.max(end) >= extent {
                invalid!(
                    "axis {}: {} elements padded by ({begin}, {end}) leave a window over {extent} elements nothing to see",
                    i + 2,
                    geometry.input[i]
                );
            }
        }
        Ok(geometry)
    }

    /// Kernel, strides and dilations; pads; rounding up.
    #[cfg(test)]
    pub(super) fn of([kernel, strides, dilations]: [Vec<usize>; 3], pads: Vec<usize>, ceil: bool) -> Self {
        Self {
            kernel: Some(kernel),
            strides: Some(strides),
            dilations: Some(dilations),
            pads: Some(pads),
            auto_pad: AutoPad::Explicit,
            ceil,
        }
    }

    fn per_axis(&self, list: Option<&Vec<usize>>, name: &str, rank: usize) -> OpResult<Vec<usize>> {
        match list {
            None => Ok(vec![1; rank]),
            Some(v) if v.len() == rank => Ok(v.clone()),
            Some(v) => invalid!("attribute `{name}` must have {rank} entries, got {}", v.len()),
        }
    }

    pub(super) fn strides(&self, rank: usize) -> OpResult<Vec<usize>> {
        self.per_axis(self.strides.as_ref(), "strides", rank)
    }

    pub(super) fn dilations(&self, rank: usize) -> OpResult<Vec<usize>> {
        self.per_axis(self.dilations.as_ref(), "dilations", rank)
    }

    pub(super) fn pads(&self, rank: usize) -> OpResult<Vec<(usize, usize)>> {
        match &self.pads {
            None => Ok(vec![(0, 0); rank]),
            Some(p) if p.len() == 2 * rank => Ok((0..rank).map(|i| (p[i], p[rank + i])).collect()),
            Some(p) => invalid!("attribute `pads` must have {} entries, got {}", 2 * rank, p.len()),
        }
    }

    /// Where windows of size `kernel` lie over an input of shape `[batch, channels, ...]`.
    pub(super) fn over(&self, input: &[usize], kernel: &[usize]) -> OpResult<Geometry> {
        let Some(spatial) = input.get(2..).filter(|s| !s.is_empty()) else {
            invalid!("input 0 must have at least 3 axes, got shape {input:?}");
        };
        let rank = spatial.len();
        if rank > 3 {
            unsupported!("{rank} spatial axes; at most 3 are supported");
        }
        if kernel.len() != rank || kernel.iter().any(|&k| k == 0 || k as i64 > LARGEST) {
            invalid!("a kernel of shape {kernel:?} does not fit {rank} spatial axes");
        }
        if let Some(&d) = spatial.iter().find(|&&d| d as i64 > LARGEST) {
            invalid!("axis of {d} elements is over the limit of {LARGEST}");
        }
        let (stride, dilation) = (self.strides(rank)?, self.dilations(rank)?);
        let mut padding = self.pads(rank)?;
        let mut output = Vec::with_capacity(rank);
        for i in 0..rank {
            let (size, step) = (spatial[i], stride[i]);
            let extent = dilation[i] * (kernel[i] - 1) + 1;
            if matches!(self.auto_pad, AutoPad::SameUpper | AutoPad::SameLower) {
                let count = size.div_ceil(step);
                let total = (count.saturating_sub(1) * step + extent).saturating_sub(size);
                let (small, large) = (total / 2, total - total / 2);
                padding[i] = if self.auto_pad == AutoPad::SameUpper { (small, large) } else { (large, small) };
                output.push(count);
                continue;
            }
            let (begin, end) = padding[i];
            let padded = size + begin + end;
            let round = if self.ceil { step - 1 } else { 0 };
            if padded + round < extent {
                invalid!("axis {}: a window over {extent} elements does not fit {padded} padded ones", i + 2);
            }
            let count = (padded + round - extent) / step + 1;
            // A window that begins in the padding at the end, or behind it, sees nothing.
            let beyond = self.ceil && (count - 1) * step >= size + begin;
            output.push(count - usize::from(beyond));
        }
        let geometry = Geometry { input: spatial.to_vec(), kernel: kernel.to_vec(), stride, dilation, padding, output };
        // A huge padding under a huge stride has few outputs, yet the padded input must exist.
        let padded = (0..rank).map(|i| geometry.padded(i) as i64);
        let lead = input[..2].iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX));
        checked_shape(&lead.chain(padded).collect::<Vec<_>>())?;
        Ok(geometry)
    }
}

/// Padding that the last window reaches, and how many elements of the input any window reaches, on each axis.
pub(super) type Exact = (Vec<(usize, usize)>, Vec<usize>);

/// Windows over given spatial axes.
#[derive(Debug, Clone)]
pub(super) struct Geometry {
    pub(super) input: Vec<usize>,
    pub(super) kernel: Vec<usize>,
    pub(super) stride: Vec<usize>,
    pub(super) dilation: Vec<usize>,
    /// Before and behind each axis.
    pub(super) padding: Vec<(usize, usize)>,
    pub(super) output: Vec<usize>,
}

impl Geometry {
    pub(super) fn rank(&self) -> usize {
        self.kernel.len()
    }

    /// Elements from the first to the last one of a window, on one axis.
    pub(super) fn extent(&self, i: usize) -> usize {
        self.dilation[i] * (self.kernel[i] - 1) + 1
    }

    /// Elements from the beginning of the padding to the end of the last window or of the padding.
    fn padded(&self, i: usize) -> usize {
        self.reach(i).max(self.input[i] + self.padding[i].0 + self.padding[i].1)
    }

    /// Elements from the beginning of the padding to the end of the last window.
    fn reach(&self, i: usize) -> usize {
        self.output[i].saturating_sub(1) * self.stride[i] + self.extent(i)
    }

    /// The same windows with every one of them full.
    pub(super) fn exact(&self) -> Exact {
        let mut padding = Vec::with_capacity(self.rank());
        let mut kept = Vec::with_capacity(self.rank());
        for i in 0..self.rank() {
            let begin = self.padding[i].0;
            let reach = self.reach(i);
            let keep = self.input[i].min(reach.saturating_sub(begin));
            padding.push((begin.min(reach), reach.saturating_sub(begin + keep)));
            kept.push(keep);
        }
        (padding, kept)
    }

    /// For the device.
    pub(super) fn window(&self, padding: Vec<(usize, usize)>, groups: usize) -> Window {
        Window { stride: self.stride.clone(), padding, dilation: self.dilation.clone(), groups }
    }

    /// For each output of an axis, the elements of the input that its window sees.
    pub(super) fn positions(&self, i: usize) -> Vec<Vec<usize>> {
        let begin = self.padding[i].0;
        (0..self.output[i])
            .map(|o| {
                (0..self.kernel[i])
                    .map(|k| o * self.stride[i] + k * self.dilation[i])
                    .filter(|&p| p >= begin && p < begin + self.input[i])
                    .map(|p| p - begin)
                    .collect()
            })
            .collect()
    }
}

/// Whether an axis is padded more on one side than on the other.
pub(super) fn lopsided(padding: &[(usize, usize)]) -> bool {
    padding.iter().any(|p| p.0 != p.1)
}

/// The first `kept` elements of each spatial axis.
pub(super) fn cut(x: &Real, kept: &[usize]) -> Real {
    kept.iter().enumerate().fold(x.clone(), |x, (i, &keep)| x.narrow(i + 2, 0, keep))
}

/// Pads the spatial axes with a value.
pub(super) fn pad(x: &Real, padding: &[(usize, usize)], value: f32) -> Real {
    if padding.iter().all(|&p| p == (0, 0)) {
        return x.clone();
    }
    x.pad(&[&[(0, 0), (0, 0)], padding].concat(), value)
}
