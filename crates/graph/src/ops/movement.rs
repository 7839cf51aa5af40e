//! Shape and order of elements: what moves, cuts, joins and repeats.

mod dropout;
mod join;

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid, unsupported};
use crate::operator::{Args, Entry, Fact, Operator, Value, axes, axis, checked_shape};

use super::rearrange::{FILL, Fill, How, Rearrange, for_each_coordinate};

pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        name: "Reshape",
        build: |a| {
            a.ints("consumed_inputs")?;
            let attribute = if a.opset < 5 { Some(a.ints("shape")?.unwrap_or_default()) } else { None };
            Ok(Box::new(Reshape { attribute, allow_zero: a.flag("allowzero", false)? }))
        },
    },
    Entry { name: "Flatten", build: |a| Ok(Box::new(Flatten(a.int("axis", 1)?))) },
    Entry { name: "Transpose", build: |a| Ok(Box::new(Transpose(a.ints("perm")?))) },
    Entry { name: "Squeeze", build: |a| Ok(Box::new(Squeeze(attribute_before(a, "axes", 13)?))) },
    Entry { name: "Unsqueeze", build: |a| Ok(Box::new(Unsqueeze(attribute_before(a, "axes", 13)?))) },
    Entry { name: "Expand", build: |_| Ok(Box::new(Expand)) },
    Entry { name: "Tile", build: |a| Ok(Box::new(Tile { old: a.opset < 6 })) },
    Entry { name: "Slice", build: slice },
    Entry { name: "Pad", build: pad },
    Entry {
        name: "DepthToSpace",
        build: |a| {
            let mode = a.text("mode", "DCR")?;
            if mode != "DCR" && mode != "CRD" {
                invalid!("attribute `mode` is {mode}, must be DCR or CRD");
            }
            Ok(Box::new(DepthToSpace { block: block(a)?, depth_first: mode == "DCR" }))
        },
    },
    Entry { name: "SpaceToDepth", build: |a| Ok(Box::new(SpaceToDepth(block(a)?))) },
    Entry { name: "Trilu", build: |a| Ok(Box::new(Trilu { upper: a.flag("upper", true)? })) },
    Entry { name: "Identity", build: |_| Ok(Box::new(Identity)) },
    Entry { name: "Concat", build: join::concat },
    Entry { name: "Split", build: join::split },
    Entry { name: "Dropout", build: dropout::build },
];

/// A list that is an attribute before an opset and an input from it on: `None` where it is an input.
fn attribute_before(a: &Attributes<'_>, name: &str, opset: i64) -> OpResult<Option<Vec<i64>>> {
    Ok(if a.opset < opset { Some(a.ints(name)?.unwrap_or_default()) } else { None })
}

fn block(a: &Attributes<'_>) -> OpResult<usize> {
    match a.int("blocksize", 0)? {
        b @ 1..=65_536 => Ok(b as usize),
        b => invalid!("attribute `blocksize` is {b}, must be 1 to 65536"),
    }
}

fn signed(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&d| d as i64).collect()
}

struct Reshape {
    attribute: Option<Vec<i64>>,
    allow_zero: bool,
}

impl Rearrange for Reshape {
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        let input = inputs.need(0)?;
        let wanted = match &self.attribute {
            Some(w) => w.clone(),
            None if inputs.need(1)?.rank() != 1 => {
                invalid!("input 1 must be a list, has shape {:?}", inputs.need(1)?.shape)
            }
            None => inputs.ints(1)?,
        };
        let mut dims = wanted.clone();
        for (i, d) in dims.iter_mut().enumerate() {
            if *d == 0 && !self.allow_zero {
                match input.shape.get(i) {
                    Some(&n) => *d = n as i64,
                    None => invalid!("shape {wanted:?} copies dimension {i} of an input of shape {:?}", input.shape),
                }
            }
        }
        let open: Vec<usize> = (0..dims.len()).filter(|&i| dims[i] == -1).collect();
        if let [at] = open[..] {
            dims[at] = 1;
            let rest: usize = checked_shape(&dims)?.iter().product();
            if rest == 0 || !input.count().is_multiple_of(rest) {
                invalid!("{} elements do not fit shape {wanted:?}", input.count());
            }
            dims[at] = (input.count() / rest) as i64;
        } else if open.len() > 1 {
            invalid!("shape {wanted:?} leaves more than one dimension open");
        }
        let shape = checked_shape(&dims)?;
        if shape.iter().product::<usize>() != input.count() {
            invalid!("{:?} has {} elements, shape {wanted:?} has others", input.shape, input.count());
        }
        Ok(shape)
    }

    fn how(&self, _: Args<'_, Fact>, _: &[usize]) -> OpResult<How> {
        Ok(How::Reshape)
    }
}

struct Flatten(i64);

impl Rearrange for Flatten {
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        let input = inputs.need(0)?;
        let rank = input.rank() as i64;
        if self.0 < -rank || self.0 > rank {
            invalid!("axis {} is outside -{rank}..={rank}", self.0);
        }
        let at = if self.0 < 0 { self.0 + rank } else { self.0 } as usize;
        // A zero on one side does not bound the product on the other.
        let size = |part: &[usize]| part.iter().fold(1i64, |n, &d| n.saturating_mul(d as i64));
        checked_shape(&[size(&input.shape[..at]), size(&input.shape[at..])])
    }

    fn how(&self, _: Args<'_, Fact>, _: &[usize]) -> OpResult<How> {
        Ok(How::Reshape)
    }
}

struct Transpose(Option<Vec<i64>>);

impl Transpose {
    fn axes(&self, rank: usize) -> OpResult<Vec<usize>> {
        let Some(perm) = &self.0 else { return Ok((0..rank).rev().collect()) };
        let list = perm.iter().map(|&a| axis(a, rank)).collect::<OpResult<Vec<_>>>()?;
        if axes(perm, rank)?.len() != rank {
            invalid!("attribute `perm` is {perm:?}, the input has {rank} axes");
        }
        Ok(list)
    }
}

impl Rearrange for Transpose {
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        let input = inputs.need(0)?;
        Ok(self.axes(input.rank())?.into_iter().map(|a| input.shape[a]).collect())
    }

    fn how(&self, inputs: Args<'_, Fact>, _: &[usize]) -> OpResult<How> {
        Ok(How::Permute(self.axes(inputs.need(0)?.rank())?))
    }
}

struct Squeeze(Option<Vec<i64>>);

impl Rearrange for Squeeze {
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        let input = inputs.need(0)?;
        let list = match &self.0 {
            Some(list) => list.clone(),
            None if inputs.get(1).is_none() => Vec::new(),
            None => inputs.ints(1)?,
        };
        let absent = list.is_empty() && inputs.get(1).is_none();
        let gone = if absent {
            (0..input.rank()).filter(|&i| input.shape[i] == 1).collect()
        } else {
            axes(&list, input.rank())?
        };
        if let Some(&a) = gone.iter().find(|&&a| input.shape[a] != 1) {
            invalid!("axis {a} has size {}, only axes of size 1 can go", input.shape[a]);
        }
        Ok((0..input.rank()).filter(|i| !gone.contains(i)).map(|i| input.shape[i]).collect())
    }

    fn how(&self, _: Args<'_, Fact>, _: &[usize]) -> OpResult<How> {
        Ok(How::Reshape)
    }
}

struct Unsqueeze(Option<Vec<i64>>);

impl Rearrange for Unsqueeze {
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        let input = inputs.need(0)?;
        let list = match &self.0 {
            Some(list) => list.clone(),
            None => inputs.ints(1)?,
        };
        let rank = input.rank() + list.len();
        let new = axes(&list, rank)?;
        let mut old = input.shape.iter();
        let dims: Vec<usize> =
            (0..rank).map(|i| if new.contains(&i) { 1 } else { old.next().copied().unwrap_or(1) }).collect();
        checked_shape(&signed(&dims))
    }

    fn how(&self, _: Args<'_, Fact>, _: &[usize]) -> OpResult<How> {
        Ok(How::Reshape)
    }
}

struct Expand;

impl Rearrange for Expand {
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        let wanted = checked_shape(&inputs.ints(1)?)?;
        super::elementwise::broadcast_shape([inputs.need(0)?.shape.as_slice(), wanted.as_slice()])
    }

    fn how(&self, _: Args<'_, Fact>, _: &[usize]) -> OpResult<How> {
        Ok(How::Expand)
    }
}

struct Tile {
    /// Before opset 6: how often, along which axis.
    old: bool,
}

impl Tile {
    fn repeats(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<i64>> {
        let rank = inputs.need(0)?.rank();
        if self.old {
            let one = |i| match inputs.need(i)?.dtype.is_float() {
                true => inputs.floats(i).map(|v| v.iter().map(|&x| x as i64).collect::<Vec<_>>()),
                false => inputs.ints(i),
            };
            let (tiles, at) = (one(1)?, one(2)?);
            let ([tiles], [at]) = (&tiles[..], &at[..]) else { invalid!("tiles and axis must be one number each") };
            let mut repeats = vec![1; rank];
            repeats[axis(*at, rank)?] = *tiles;
            return Ok(repeats);
        }
        let repeats = inputs.ints(1)?;
        if repeats.len() != rank {
            invalid!("input 1 has {} repeats, the input has {rank} axes", repeats.len());
        }
        Ok(repeats)
    }
}

impl Rearrange for Tile {
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        let repeats = self.repeats(inputs)?;
        let dims = inputs.need(0)?.shape.iter().zip(&repeats).map(|(&d, &r)| (d as i64).saturating_mul(r));
        checked_shape(&dims.collect::<Vec<_>>())
    }

    fn how(&self, inputs: Args<'_, Fact>, shape: &[usize]) -> OpResult<How> {
        let from = &inputs.need(0)?.shape;
        let lists: Vec<Vec<usize>> =
            shape.iter().zip(from).map(|(&to, &d)| (0..to).map(|i| i % d.max(1)).collect()).collect();
        Ok(How::Entries(lists))
    }
}

/// Starts, ends, axes.
type Bounds = (Vec<i64>, Vec<i64>, Option<Vec<i64>>);

struct Slice {
    /// Before opset 10.
    attributes: Option<Bounds>,
}

fn slice(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
    let attributes = if a.opset < 10 {
        Some((a.ints("starts")?.unwrap_or_default(), a.ints("ends")?.unwrap_or_default(), a.ints("axes")?))
    } else {
        None
    };
    Ok(Box::new(Slice { attributes }))
}

impl Slice {
    /// For each axis: first entry, step, count.
    fn ranges(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<(usize, i64, usize)>> {
        let shape = &inputs.need(0)?.shape;
        let rank = shape.len();
        let (starts, ends, list, steps) = match &self.attributes {
            Some((s, e, a)) => (s.clone(), e.clone(), a.clone(), None),
            None => {
                let optional = |i| inputs.get(i).map(|_| inputs.ints(i)).transpose();
                (inputs.ints(1)?, inputs.ints(2)?, optional(3)?, optional(4)?)
            }
        };
        let list = list.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
        if ends.len() != starts.len() || list.len() != starts.len() || steps.len() != starts.len() {
            invalid!("{} starts, {} ends, {} axes, {} steps", starts.len(), ends.len(), list.len(), steps.len());
        }
        axes(&list, rank)?;
        let mut ranges: Vec<_> = shape.iter().map(|&d| (0, 1, d)).collect();
        for (((&start, &end), &a), &step) in starts.iter().zip(&ends).zip(&list).zip(&steps) {
            let at = axis(a, rank)?;
            let d = shape[at] as i64;
            if step == 0 {
                invalid!("the step of axis {a} is 0");
            }
            let from_end = |v: i64| if v < 0 { v.saturating_add(d) } else { v };
            let (start, end) = (from_end(start), from_end(end));
            ranges[at] = if step > 0 {
                let (start, end) = (start.clamp(0, d), end.clamp(0, d));
                let span = (end - start).max(0) as u64;
                (start as usize, step, span.div_ceil(step as u64) as usize)
            } else {
                let (start, end) = (start.clamp(-1, d - 1), end.clamp(-1, d - 1));
                let span = (start - end).max(0) as u64;
                (start.max(0) as usize, step, span.div_ceil(step.unsigned_abs()) as usize)
            };
        }
        Ok(ranges)
    }
}

impl Rearrange for Slice {
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        Ok(self.ranges(inputs)?.into_iter().map(|(_, _, count)| count).collect())
    }

    fn how(&self, inputs: Args<'_, Fact>, _: &[usize]) -> OpResult<How> {
        let ranges = self.ranges(inputs)?;
        if ranges.iter().all(|&(_, step, count)| step == 1 || count == 0) {
            return Ok(How::Cut(ranges.into_iter().map(|(start, _, count)| (start, start + count)).collect()));
        }
        let entries = |(start, step, count): (usize, i64, usize)| -> Vec<usize> {
            (0..count as i64).map(|i| (start as i64 + i * step) as usize).collect()
        };
        Ok(How::Entries(ranges.into_iter().map(entries).collect()))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

struct Pad {
    mode: Mode,
    /// Before opset 11.
    attributes: Option<(Vec<i64>, f32)>,
}

fn pad(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
    let mode = match a.text("mode", "constant")?.as_str() {
        "constant" => Mode::Constant,
        "reflect" => Mode::Reflect,
        "edge" => Mode::Edge,
        "wrap" => Mode::Wrap,
        other => unsupported!("attribute `mode` is {other}"),
    };
    let attributes = if a.opset < 11 {
        let pads = if a.opset < 2 { a.ints("paddings")? } else { a.ints("pads")? };
        Some((pads.unwrap_or_default(), a.float("value", 0.0)?))
    } else {
        None
    };
    Ok(Box::new(Pad { mode, attributes }))
}

impl Pad {
    /// What is added before and behind each axis.
    fn pads(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<(i64, i64)>> {
        let rank = inputs.need(0)?.rank();
        let (list, chosen) = match &self.attributes {
            Some((pads, _)) => (pads.clone(), None),
            None => (inputs.ints(1)?, inputs.get(3).map(|_| inputs.ints(3)).transpose()?),
        };
        let chosen = chosen.unwrap_or_else(|| (0..rank as i64).collect());
        axes(&chosen, rank)?;
        let n = chosen.len();
        if list.len() != 2 * n {
            invalid!("{} pads for {n} axes, must be twice as many", list.len());
        }
        let mut pads = vec![(0, 0); rank];
        for (i, &a) in chosen.iter().enumerate() {
            pads[axis(a, rank)?] = (list[i], list[n + i]);
        }
        Ok(pads)
    }
}

impl Rearrange for Pad {
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        let shape = &inputs.need(0)?.shape;
        let pads = self.pads(inputs)?;
        for (&d, &(before, behind)) in shape.iter().zip(&pads) {
            if self.mode != Mode::Constant && d == 0 && (before > 0 || behind > 0) {
                invalid!("an empty axis has nothing to repeat");
            }
        }
        if let Some(value) = inputs.get(2)
            && (value.dtype != inputs.need(0)?.dtype || value.count() != 1)
        {
            invalid!("input 2 must be one {}, got {} {:?}", inputs.need(0)?.dtype, value.dtype, value.shape);
        }
        let dims = shape.iter().zip(&pads).map(|(&d, &(b, e))| (d as i64).saturating_add(b).saturating_add(e));
        checked_shape(&dims.collect::<Vec<_>>())
    }

    fn how(&self, inputs: Args<'_, Fact>, shape: &[usize]) -> OpResult<How> {
        let from = &inputs.need(0)?.shape;
        let entries = |((&to, &d), (before, _)): ((&usize, &usize), (i64, i64))| -> Vec<usize> {
            let d = d as i64;
            let one = |i: i64| {
                let at = i - before;
                match self.mode {
                    _ if (0..d).contains(&at) => at as usize,
                    Mode::Constant => FILL,
                    Mode::Edge => at.clamp(0, d - 1) as usize,
                    Mode::Wrap => at.rem_euclid(d) as usize,
                    Mode::Reflect => {
                        let period = (2 * (d - 1)).max(1);
                        let at = at.rem_euclid(period);
                        at.min(period - at).min(d - 1).max(0) as usize
                    }
                }
            };
            (0..to as i64).map(one).collect()
        };
        Ok(How::Entries(shape.iter().zip(from).zip(self.pads(inputs)?).map(entries).collect()))
    }

    fn fill(&self, inputs: Args<'_, Value>) -> OpResult<Fill> {
        match (&self.attributes, inputs.get(2)) {
            (Some((_, value)), _) => Ok(Fill { float: *value, int: *value as i64, ..Fill::default() }),
            (None, Some(value)) => Ok(Fill::of(&value.to_host())),
            (None, None) => Ok(Fill::default()),
        }
    }

    fn filling(&self) -> Option<usize> {
        self.attributes.is_none().then_some(2)
    }
}

/// `[n, c, h, w]` as a checked image batch.
fn image(inputs: Args<'_, Fact>) -> OpResult<[usize; 4]> {
    match inputs.need(0)?.shape[..] {
        [n, c, h, w] => Ok([n, c, h, w]),
        ref other => invalid!("input 0 must be [n, c, h, w], has shape {other:?}"),
    }
}

struct DepthToSpace {
    block: usize,
    depth_first: bool,
}

impl Rearrange for DepthToSpace {
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        let ([n, c, h, w], b) = (image(inputs)?, self.block);
        if !c.is_multiple_of(b * b) {
            invalid!("{c} channels are no multiple of the squared block size {}", b * b);
        }
        Ok(vec![n, c / (b * b), h * b, w * b])
    }

    fn how(&self, inputs: Args<'_, Fact>, shape: &[usize]) -> OpResult<How> {
        let ([n, _, h, w], b) = (image(inputs)?, self.block);
        Ok(if self.depth_first {
            How::Blocks(vec![n, b, b, shape[1], h, w], vec![0, 3, 4, 1, 5, 2])
        } else {
            How::Blocks(vec![n, shape[1], b, b, h, w], vec![0, 1, 4, 2, 5, 3])
        })
    }
}

struct SpaceToDepth(usize);

impl Rearrange for SpaceToDepth {
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        let ([n, c, h, w], b) = (image(inputs)?, self.0);
        if !h.is_multiple_of(b) || !w.is_multiple_of(b) {
            invalid!("{h} x {w} is no multiple of the block size {b}");
        }
        checked_shape(&signed(&[n, c.saturating_mul(b * b), h / b, w / b]))
    }

    fn how(&self, inputs: Args<'_, Fact>, _: &[usize]) -> OpResult<How> {
        let ([n, c, h, w], b) = (image(inputs)?, self.0);
        Ok(How::Blocks(vec![n, c, h / b, b, w / b, b], vec![0, 3, 5, 1, 2, 4]))
    }
}

struct Trilu {
    upper: bool,
}

impl Rearrange for Trilu {
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        let shape = &inputs.need(0)?.shape;
        if shape.len() < 2 {
            invalid!("input 0 must have at least two axes, has shape {shape:?}");
        }
        Ok(shape.clone())
    }

    fn how(&self, inputs: Args<'_, Fact>, shape: &[usize]) -> OpResult<How> {
        let k = match inputs.get(1) {
            None => 0,
            Some(f) if f.count() == 1 => inputs.ints(1)?[0],
            Some(f) => invalid!("input 1 must be one number, has shape {:?}", f.shape),
        };
        let rank = shape.len();
        let mut index = Vec::with_capacity(shape.iter().product());
        for_each_coordinate(shape, |at| {
            let diagonal = at[rank - 1] as i64 - at[rank - 2] as i64;
            let kept = if self.upper { diagonal >= k } else { diagonal <= k };
            index.push(if kept { index.len() } else { FILL });
        });
        Ok(How::Index(index))
    }
}

struct Identity;

impl Rearrange for Identity {
    fn shape(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<usize>> {
        Ok(inputs.need(0)?.shape.clone())
    }

    fn how(&self, _: Args<'_, Fact>, _: &[usize]) -> OpResult<How> {
        Ok(How::Reshape)
    }
}

#[cfg(test)]
mod tests {
    use netproof_tensor::Tensor;

    use crate::ops::test_support::run;

    fn ints(v: &[i64]) -> Option<Tensor> {
        Some(Tensor::i64(vec![v.len()], v.to_vec()).unwrap())
    }

    fn sliced(starts: &[i64], ends: &[i64], steps: &[i64]) -> Vec<i64> {
        let inputs = [ints(&[0, 1, 2, 3, 4]), ints(starts), ints(ends), ints(&[0]), ints(steps)];
        run("Slice", 13, &[], &inputs).unwrap()[0].as_i64().unwrap().to_vec()
    }

    #[test]
    fn slices_are_those_of_numpy() {
        assert_eq!(sliced(&[-2], &[i64::MAX], &[1]), [3, 4]);
        assert_eq!(sliced(&[4], &[i64::MIN], &[-2]), [4, 2, 0]);
        assert_eq!(sliced(&[i64::MAX], &[1], &[-1]), [4, 3, 2]);
        assert_eq!(sliced(&[3], &[1], &[1]), [0i64; 0]);
        assert_eq!(sliced(&[1], &[5], &[3]), [1, 4]);
        assert!(run("Slice", 13, &[], &[ints(&[1]), ints(&[0]), ints(&[1]), ints(&[0]), ints(&[0])]).is_err());
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for (op, second) in
            [("Reshape", vec![-1, -1]), ("Reshape", vec![4]), ("Expand", vec![1 << 40, 1]), ("Tile", vec![1 << 40])]
        {
            assert!(run(op, 13, &[], &[ints(&[1, 2, 3]), ints(&second)]).is_err(), "{op} {second:?}");
        }
        assert!(run("Pad", 13, &[], &[ints(&[1]), ints(&[1 << 60, 1 << 60])]).is_err());
        assert!(run("Pad", 13, &[], &[ints(&[1]), ints(&[-1, -1])]).is_err());
    }
}
