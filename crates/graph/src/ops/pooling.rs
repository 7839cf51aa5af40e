//! Pools: one number for each window.

use netproof_tensor::{DType, Elements, Tensor};

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid, unsupported};
use crate::operator::{Args, Backward, Context, Entry, Fact, Keep, Operator, Value, checked_shape, one};
use crate::real::{Real, Window};

use super::convolution::spread;
use super::window::{Exact, Geometry, Sliding, cut, pad};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { name: "AveragePool", build: AveragePool::build },
    Entry { name: "GlobalAveragePool", build: GlobalAveragePool::build },
    Entry { name: "GlobalLpPool", build: LpPool::build_global },
    Entry { name: "GlobalMaxPool", build: MaxPool::build_global },
    Entry { name: "LpPool", build: LpPool::build },
    Entry { name: "MaxPool", build: MaxPool::build },
    Entry { name: "MaxUnpool", build: MaxUnpool::build },
];

fn only(inputs: Args<'_, Fact>) -> OpResult<&Fact> {
    if inputs.len() != 1 {
        invalid!("has {} inputs, needs 1", inputs.len());
    }
    inputs.need(0)
}

fn only_float(inputs: Args<'_, Fact>) -> OpResult<&Fact> {
    only(inputs)?;
    inputs.float(0)
}

fn pooled(x: &[usize], output: &[usize]) -> OpResult<Vec<usize>> {
    let lead = x[..2].iter().chain(output);
    checked_shape(&lead.map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect::<Vec<_>>())
}

/// Windows of a pool: one that slides, or one over all spatial axes.
enum Reach {
    Sliding(Sliding),
    Global,
}

impl Reach {
    fn geometry(&self, x: &[usize]) -> OpResult<Geometry> {
        match self {
            Self::Sliding(s) => s.pool(x),
            Self::Global => {
                if x.len() < 2 || x[2..].contains(&0) {
                    invalid!("input 0 must have spatial axes that are not empty, got shape {x:?}");
                }
                let (rank, spatial) = (x.len() - 2, x[2..].to_vec());
                Ok(Geometry {
                    input: spatial.clone(),
                    kernel: spatial,
                    stride: vec![1; rank],
                    dilation: vec![1; rank],
                    padding: vec![(0, 0); rank],
                    output: vec![1; rank],
                })
            }
        }
    }
}

/// Maxima of windows. NaN wins over every number, and the first of equal maxima counts.
struct MaxPool {
    reach: Reach,
    /// Whether positions count columns first.
    by_column: bool,
    outputs: usize,
}

/// A pool over exactly three spatial axes on the host: position in the plane of each maximum.
fn maxima<T: Copy>(x: &[T], planes: usize, geometry: &Geometry, wins: impl Fn(T, T) -> bool) -> Vec<Option<usize>> {
    let mut axes: Vec<(usize, Vec<Vec<usize>>)> = vec![(1, vec![vec![0]]); 3 - geometry.rank()];
    axes.extend((0..geometry.rank()).map(|i| (geometry.input[i], geometry.positions(i))));
    let [(depth, a), (height, b), (width, c)] = &axes[..] else { return Vec::new() };
    let size = depth * height * width;
    let mut best = Vec::with_capacity(planes * a.len() * b.len() * c.len());
    for plane in 0..planes {
        let x = &x[plane * size..(plane + 1) * size];
        for layers in a {
            for rows in b {
                for columns in c {
                    let mut at: Option<usize> = None;
                    for &l in layers {
                        for &r in rows {
                            for &s in columns {
                                let p = (l * height + r) * width + s;
                                if at.is_none_or(|m| wins(x[p], x[m])) {
                                    at = Some(p);
                                }
                            }
                        }
                    }
                    best.push(at);
                }
            }
        }
    }
    best
}

fn float_wins(new: f32, old: f32) -> bool {
    new > old || (new.is_nan() && !old.is_nan())
}

/// Two axes out of one or two, so that the device's kernel fits.
fn flat(shape: &[usize]) -> Vec<usize> {
    let mut shape = shape.to_vec();
    while shape.len() < 4 {
        shape.insert(2, 1);
    }
    shape
}

/// What the device's kernel needs for a pool over at most two spatial axes.
struct OnDevice {
    kernel: [usize; 2],
    window: Window,
    /// Padding with -inf, and the part of the padded input that windows reach; none where the kernel pads itself.
    exact: Option<Exact>,
}

impl OnDevice {
    fn new(geometry: &Geometry) -> Self {
        let lift = |v: &[usize]| if v.len() == 1 { [1, v[0]] } else { [v[0], v[1]] };
        let (kernel, stride, dilation) = (lift(&geometry.kernel), lift(&geometry.stride), lift(&geometry.dilation));
        let (mut padding, mut kept) = geometry.exact();
        let mut own = geometry.padding.clone();
        if geometry.rank() == 1 {
            padding.insert(0, (0, 0));
            kept.insert(0, 1);
            own.insert(0, (0, 0));
        }
        let (input, output) = (lift(&geometry.input), lift(&geometry.output));
        // The kernel pads both sides alike and rounds down.
        let alike = (0..2).all(|i| {
            let (begin, end) = own[i];
            let extent = dilation[i] * (kernel[i] - 1) + 1;
            let padded = input[i] + begin + end;
            begin == end && padded >= extent && (padded - extent) / stride[i] + 1 == output[i]
        });
        let exact = if alike { None } else { Some((padding, kept)) };
        let padding = if alike { own } else { vec![(0, 0); 2] };
        let window = Window { stride: stride.to_vec(), padding, dilation: dilation.to_vec(), groups: 1 };
        Self { kernel, window, exact }
    }

    fn input(&self, x: &Real) -> Real {
        let x = x.reshape(&flat(x.shape()));
        match &self.exact {
            None => x,
            Some((padding, kept)) => pad(&cut(&x, kept), padding, f32::NEG_INFINITY),
        }
    }
}

impl MaxPool {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        let by_column = a.flag("storage_order", false)?;
        Ok(Box::new(Self { reach: Reach::Sliding(Sliding::pooling(a)?), by_column, outputs: a.outputs().clamp(1, 2) }))
    }

    fn build_global(_: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self { reach: Reach::Global, by_column: false, outputs: 1 }))
    }

    fn on_device(&self, geometry: &Geometry) -> bool {
        self.outputs == 1 && (1..=2).contains(&geometry.rank())
    }

    /// Numbers of the maxima in the whole tensor, as the second output has them.
    fn numbers(&self, places: &[Option<usize>], geometry: &Geometry) -> Vec<i64> {
        let size: usize = geometry.input.iter().product();
        let per_plane: usize = geometry.output.iter().product();
        places
            .iter()
            .enumerate()
            .map(|(i, place)| {
                let Some(place) = *place else { return -1 };
                let mut inner = place;
                if self.by_column {
                    let (mut rest, mut step) = (place, size);
                    inner = 0;
                    for &d in geometry.input.iter().rev() {
                        step /= d;
                        inner += rest % d * step;
                        rest /= d;
                    }
                }
                (i / per_plane * size + inner) as i64
            })
            .collect()
    }
}

impl Operator for MaxPool {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let x = only(inputs)?;
        if !(x.dtype.is_float() || x.dtype.is_int()) {
            invalid!("input 0 must be numbers, got {}", x.dtype);
        }
        let geometry = self.reach.geometry(&x.shape)?;
        if geometry.rank() > 3 {
            unsupported!("{} spatial axes; at most 3 are supported", geometry.rank());
        }
        let shape = pooled(&x.shape, &geometry.output)?;
        let mut facts = vec![Fact::new(x.dtype, shape.clone())];
        if self.outputs == 2 {
            facts.push(Fact::new(DType::I64, shape));
        }
        Ok(facts)
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let (x, fact) = (inputs.need(0)?, &outputs[0]);
        let geometry = self.reach.geometry(x.shape())?;
        if fact.dtype.is_float() && self.on_device(&geometry) {
            let device = OnDevice::new(&geometry);
            let (y, _) = device.input(&x.real(cx)?).max_pool_2d(device.kernel, &device.window, false);
            return one(y.reshape(&fact.shape));
        }
        let planes = x.shape()[0] * x.shape()[1];
        let per_plane = (geometry.output.iter().product::<usize>(), geometry.input.iter().product::<usize>());
        let host = x.to_host();
        let number = |i: usize, place: usize| i / per_plane.0 * per_plane.1 + place;
        let (y, places) = match host.elements() {
            Elements::Float(v) => {
                let places = maxima(v, planes, &geometry, float_wins);
                let y = places.iter().enumerate().map(|(i, p)| p.map_or(f32::NEG_INFINITY, |p| v[number(i, p)]));
                (Value::Real(Real::new(&fact.shape, y.collect(), &cx.device)), places)
            }
            Elements::Int(v) => {
                let places = if fact.dtype == DType::U64 {
                    maxima(v, planes, &geometry, |new, old| (new as u64) > (old as u64))
                } else {
                    maxima(v, planes, &geometry, |new, old| new > old)
                };
                let lowest = fact.dtype.int_range().map_or(0, |r| i64::try_from(r.0).unwrap_or(i64::MIN));
                let y = places.iter().enumerate().map(|(i, p)| p.map_or(lowest, |p| v[number(i, p)])).collect();
                (Value::host(Tensor::new(fact.dtype, fact.shape.clone(), Elements::Int(y))?), places)
            }
            _ => invalid!("input 0 must be numbers, got {}", host.dtype()),
        };
        let mut values = vec![y];
        if self.outputs == 2 {
            values.push(Value::host(Tensor::i64(fact.shape.clone(), self.numbers(&places, &geometry))?));
        }
        Ok(values)
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let Some(gradient) = call.gradients.first().and_then(Option::as_ref) else { return Ok(Some(vec![None])) };
        let of_x = call.when(0, || {
            let x = call.inputs.real(0, call.cx)?;
            let geometry = self.reach.geometry(x.shape())?;
            if !self.on_device(&geometry) || gradient.count() == 0 {
                let planes = x.shape()[0] * x.shape()[1];
                let places = maxima(&x.to_vec(), planes, &geometry, float_wins);
                let per_plane = (geometry.output.iter().product::<usize>(), geometry.input.iter().product::<usize>());
                let mut of_x = vec![0.0; x.count()];
                for (i, (place, g)) in places.into_iter().zip(gradient.to_vec()).enumerate() {
                    if let Some(place) = place {
                        of_x[i / per_plane.0 * per_plane.1 + place] += g;
                    }
                }
                return Ok(Real::new(x.shape(), of_x, &call.cx.device));
            }
            let device = OnDevice::new(&geometry);
            let input = device.input(&x);
            let (_, places) = input.max_pool_2d(device.kernel, &device.window, false);
            let g = gradient.reshape(&flat(gradient.shape()));
            let g = input.max_pool_2d_gradient(device.kernel, &device.window, false, &g, &places);
            let g = match &device.exact {
                None => g,
                Some((padding, kept)) => restored(&g, padding, kept, &flat(x.shape())[2..]),
            };
            Ok(g.reshape(x.shape()))
        })?;
        Ok(Some(vec![of_x]))
    }
}

/// Undoes padding and cutting of [`Geometry::exact`] for a gradient.
fn restored(g: &Real, padding: &[(usize, usize)], kept: &[usize], sizes: &[usize]) -> Real {
    let inner = kept
        .iter()
        .zip(padding)
        .enumerate()
        .fold(g.clone(), |g, (i, (&keep, &(begin, _)))| g.narrow(i + 2, begin, begin + keep));
    let missing: Vec<(usize, usize)> = sizes.iter().zip(kept).map(|(s, k)| (0, s - k)).collect();
    pad(&inner, &missing, 0.0)
}

/// Sums over windows by a convolution with ones in each channel.
struct Sums {
    ones: Real,
    window: Window,
    kept: Vec<usize>,
    sizes: Vec<usize>,
}

impl Sums {
    fn new(geometry: &Geometry, channels: usize, cx: &Context) -> Self {
        let ones = Real::full(&[&[channels, 1], &geometry.kernel[..]].concat(), 1.0, &cx.device);
        let (padding, kept) = geometry.exact();
        Self { ones, window: geometry.window(padding, channels), kept, sizes: geometry.input.clone() }
    }

    fn of(&self, x: &Real) -> Real {
        let plain = Window { padding: vec![(0, 0); self.kept.len()], ..self.window.clone() };
        pad(&cut(x, &self.kept), &self.window.padding, 0.0).conv(&self.ones, None, &plain)
    }

    fn back(&self, gradient: &Real) -> Real {
        let inner = spread(gradient, &self.ones, &self.window, &self.kept);
        let missing: Vec<(usize, usize)> = self.sizes.iter().zip(&self.kept).map(|(s, k)| (0, s - k)).collect();
        pad(&inner, &missing, 0.0)
    }
}

/// Means of windows.
struct AveragePool {
    sliding: Sliding,
    count_padding: bool,
}

impl AveragePool {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self { sliding: Sliding::pooling(a)?, count_padding: a.flag("count_include_pad", false)? }))
    }

    /// One over the number of elements of each window, of shape `[1, 1, ...]`.
    fn weights(&self, geometry: &Geometry, cx: &Context) -> Real {
        let mut weights = vec![1.0f32];
        let dilated = geometry.dilation.iter().any(|&d| d > 1);
        for i in 0..geometry.rank() {
            let counts: Vec<usize> = if self.count_padding && dilated {
                // The recorded answers of the operator count all of a dilated window, and not all of another one.
                vec![geometry.kernel[i]; geometry.output[i]]
            } else if self.count_padding {
                let padded = geometry.input[i] + geometry.padding[i].0 + geometry.padding[i].1;
                // A window that is rounded up to reaches behind the padding; what lies there never counts.
                let inside = |o: usize| {
                    let first = o * geometry.stride[i];
                    geometry.kernel[i].min(padded - first)
                };
                (0..geometry.output[i]).map(inside).collect()
            } else {
                geometry.positions(i).iter().map(Vec::len).collect()
            };
            weights = weights.iter().flat_map(|w| counts.iter().map(move |&c| w / c.max(1) as f32)).collect();
        }
        Real::new(&[&[1, 1], &geometry.output[..]].concat(), weights, &cx.device)
    }
}

impl Operator for AveragePool {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let x = only_float(inputs)?;
        let geometry = self.sliding.pool(&x.shape)?;
        Ok(vec![Fact::new(x.dtype, pooled(&x.shape, &geometry.output)?)])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.real(0, cx)?;
        let geometry = self.sliding.pool(x.shape())?;
        one(Sums::new(&geometry, x.shape()[1], cx).of(&x).mul(&self.weights(&geometry, cx)))
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let of_x = call.when(0, || {
            let x = call.inputs.need(0)?.shape();
            if call.gradient().count() == 0 {
                return Ok(Real::full(x, 0.0, &call.cx.device));
            }
            let geometry = self.sliding.pool(x)?;
            let g = call.gradient().mul(&self.weights(&geometry, call.cx));
            Ok(Sums::new(&geometry, x[1], call.cx).back(&g))
        })?;
        Ok(Some(vec![of_x]))
    }
}

/// Mean over all spatial axes.
struct GlobalAveragePool;

impl GlobalAveragePool {
    fn build(_: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self))
    }
}

impl Operator for GlobalAveragePool {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let x = only_float(inputs)?;
        let geometry = Reach::Global.geometry(&x.shape)?;
        Ok(vec![Fact::new(x.dtype, pooled(&x.shape, &geometry.output)?)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.real(0, cx)?;
        // One axis to sum over is faster than several.
        let lead = x.shape()[..2].iter().product::<usize>();
        let size = x.count() / lead.max(1);
        one(x.reshape(&[lead, size]).mean(&[1]).reshape(&outputs[0].shape))
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let of_x = call.when(0, || {
            let x = call.inputs.need(0)?.shape();
            if call.gradient().count() == 0 {
                return Ok(Real::full(x, 0.0, &call.cx.device));
            }
            let size: usize = x[2..].iter().product();
            Ok(call.gradient().mul_scalar(1.0 / size as f32).expand(x))
        })?;
        Ok(Some(vec![of_x]))
    }
}

/// p-norms of windows: y = (sum of |x|^p)^(1/p).
struct LpPool {
    reach: Reach,
    p: f32,
}

impl LpPool {
    fn order(a: &Attributes<'_>) -> OpResult<f32> {
        let p = if a.opset < 2 { a.float("p", 2.0)? } else { a.int("p", 2)? as f32 };
        if !(p >= 1.0 && p.is_finite()) {
            invalid!("attribute `p` must be at least 1, got {p}");
        }
        Ok(p)
    }

    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self { p: Self::order(a)?, reach: Reach::Sliding(Sliding::pooling(a)?) }))
    }

    fn build_global(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self { p: Self::order(a)?, reach: Reach::Global }))
    }

    /// Sums over windows.
    fn sums(&self, x: &Real, geometry: &Geometry, cx: &Context) -> Real {
        match self.reach {
            Reach::Global => x.sum(&(2..x.rank()).collect::<Vec<_>>()),
            Reach::Sliding(_) => Sums::new(geometry, x.shape()[1], cx).of(x),
        }
    }
}

impl Operator for LpPool {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let x = only_float(inputs)?;
        let geometry = self.reach.geometry(&x.shape)?;
        Ok(vec![Fact::new(x.dtype, pooled(&x.shape, &geometry.output)?)])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.real(0, cx)?;
        let geometry = self.reach.geometry(x.shape())?;
        one(if self.p == 1.0 {
            self.sums(&x.abs(), &geometry, cx)
        } else if self.p == 2.0 {
            self.sums(&x.mul(&x), &geometry, cx).sqrt()
        } else {
            self.sums(&x.abs().powf_scalar(self.p), &geometry, cx).powf_scalar(1.0 / self.p)
        })
    }

    /// dy/dx = sign(x) · (|x| / y)^(p - 1), and 0 where a window is all zeros.
    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let of_x = call.when(0, || {
            let x = call.inputs.real(0, call.cx)?;
            if call.gradient().count() == 0 {
                return Ok(Real::full(x.shape(), 0.0, &call.cx.device));
            }
            let geometry = self.reach.geometry(x.shape())?;
            let Some(Some(y)) = call.outputs.first() else { invalid!("the output was not kept") };
            let y = y.real(call.cx)?;
            // 1 where the norm is 0, so that 0 / 0 does not become NaN.
            let safe = y.add(&y.sign().neg().add_scalar(1.0));
            let (slope, scaled) = match self.p {
                1.0 => (x.sign(), call.gradient().clone()),
                2.0 => (x.clone(), call.gradient().div(&safe)),
                p => {
                    let power = |v: Real| v.powf_scalar(p - 1.0);
                    (x.sign().mul(&power(x.abs())), call.gradient().div(&power(safe)))
                }
            };
            let spread = match self.reach {
                Reach::Global => scaled.expand(x.shape()),
                Reach::Sliding(_) => Sums::new(&geometry, x.shape()[1], call.cx).back(&scaled),
            };
            Ok(slope.mul(&spread))
        })?;
        Ok(Some(vec![of_x]))
    }

    fn keep(&self) -> Keep {
        Keep::Both
    }
}

/// Puts maxima back where a max pool found them, zeros elsewhere.
struct MaxUnpool {
    sliding: Sliding,
}

impl MaxUnpool {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        let sliding = Sliding::build(a)?;
        if sliding.kernel.is_none() {
            invalid!("attribute `kernel_shape` is missing");
        }
        Ok(Box::new(Self { sliding }))
    }

    /// Shape of the input of the max pool that this undoes.
    fn pooled_from(&self, x: &[usize]) -> OpResult<Vec<usize>> {
        let Some(kernel) = self.sliding.kernel.as_ref().filter(|k| k.len() + 2 == x.len()) else {
            invalid!("attribute `kernel_shape` does not fit an input of shape {x:?}");
        };
        let (stride, padding) = (self.sliding.strides(kernel.len())?, self.sliding.pads(kernel.len())?);
        let mut dims: Vec<i64> = x[..2].iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect();
        for (i, &k) in kernel.iter().enumerate() {
            let steps = x[i + 2].saturating_sub(1).saturating_mul(stride[i]);
            let full = i64::try_from(steps.saturating_add(k)).unwrap_or(i64::MAX);
            dims.push(full.saturating_sub((padding[i].0 + padding[i].1) as i64));
        }
        checked_shape(&dims)
    }

    /// Where each element of the input goes, in an output of this shape.
    fn places(&self, x: &[usize], numbers: &[i64], output: &[usize]) -> OpResult<Vec<usize>> {
        let from = self.pooled_from(x)?;
        let count: usize = from.iter().product();
        numbers
            .iter()
            .map(|&number| {
                let Some(mut rest) = usize::try_from(number).ok().filter(|&n| n < count) else {
                    invalid!("index {number} is outside 0..{count}");
                };
                let (mut place, mut step) = (0, 1);
                for (&d, &o) in from.iter().zip(output).rev() {
                    place += rest % d * step;
                    rest /= d;
                    step *= o;
                }
                Ok(place)
            })
            .collect()
    }
}

impl Operator for MaxUnpool {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if !(2..=3).contains(&inputs.len()) {
            invalid!("has {} inputs, needs 2 or 3: x, indices, output shape", inputs.len());
        }
        let (x, numbers) = (inputs.float(0)?, inputs.need(1)?);
        if numbers.dtype != DType::I64 || numbers.shape != x.shape {
            invalid!("indices must be int64 of shape {:?}, got {} of {:?}", x.shape, numbers.dtype, numbers.shape);
        }
        let from = self.pooled_from(&x.shape)?;
        let shape = if inputs.get(2).is_some() { checked_shape(&inputs.ints(2)?)? } else { from.clone() };
        if shape.len() != from.len() || shape.iter().zip(&from).any(|(s, f)| s < f) {
            invalid!("an output of shape {shape:?} cannot hold a pool's input of shape {from:?}");
        }
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.real(0, cx)?;
        let places = self.places(x.shape(), &inputs.ints(1)?, &outputs[0].shape)?;
        let mut y = vec![0.0; outputs[0].count()];
        for (place, v) in places.into_iter().zip(x.to_vec()) {
            y[place] = v;
        }
        one(Real::new(&outputs[0].shape, y, &cx.device))
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let of_x = call.when(0, || {
            let x = call.inputs.need(0)?.shape();
            let g = call.gradient();
            let places = self.places(x, &call.inputs.ints(1)?, g.shape())?;
            let mut last = std::collections::HashMap::new();
            for (i, &place) in places.iter().enumerate() {
                last.insert(place, i);
            }
            // Of several elements for one place only the last one is seen.
            let g = g.to_vec();
            let of_x = places.iter().enumerate().map(|(i, p)| if last.get(p) == Some(&i) { g[*p] } else { 0.0 });
            Ok(Real::new(x, of_x.collect(), &call.cx.device))
        })?;
        let mut all = vec![of_x, None];
        all.resize(call.inputs.len(), None);
        Ok(Some(all))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{Attr, run, run_outputs};
    use super::*;
    use crate::real::RealDevice;

    fn tensor(shape: &[usize], seed: usize) -> Tensor {
        let n = shape.iter().product::<usize>();
        // No two values are equal, so that maxima are unique.
        let v = (0..n).map(|i| ((i * 7919 + seed * 31) % 10_007) as f32 / 1000.0 - 5.0).collect();
        Tensor::f32(shape.to_vec(), v).unwrap()
    }

    fn ints(v: &[i64]) -> Attr {
        Attr::Ints(v.to_vec())
    }

    fn cx() -> Context {
        Context { device: RealDevice::cpu(), training: false, seed: 0 }
    }

    fn gradient(op: &dyn Operator, x: &Tensor, y: &Tensor, g: &Tensor) -> Vec<f32> {
        let (cx, real) = (cx(), |t: &Tensor| Real::new(t.shape(), t.as_f32().unwrap().to_vec(), &RealDevice::cpu()));
        let inputs = [Some(Value::Real(real(x)))];
        let outputs = [Some(Value::Real(real(y)))];
        let call = Backward {
            inputs: Args(&inputs),
            outputs: &outputs,
            gradients: &[Some(real(g)), None],
            wanted: &[true],
            facts: &[],
            cx: &cx,
        };
        op.backward(&call).unwrap().unwrap().remove(0).unwrap().to_vec()
    }

    /// Every rule of windows: kernel, stride, dilation, begin, end, rounding up.
    const RULES: [(usize, usize, usize, usize, usize, bool); 12] = [
        (2, 2, 1, 0, 0, false),
        (3, 1, 1, 1, 1, false),
        (3, 2, 1, 1, 1, true),
        (3, 2, 1, 0, 1, false),
        (2, 1, 1, 1, 0, false),
        (2, 3, 1, 0, 0, true),
        (2, 3, 1, 1, 0, true),
        (3, 2, 2, 2, 2, false),
        (3, 2, 2, 1, 3, true),
        (1, 2, 1, 0, 0, false),
        (5, 5, 1, 2, 2, true),
        (4, 3, 1, 0, 3, true),
    ];

    fn sliding(
        (k, s, d, b, e, ceil): (usize, usize, usize, usize, usize, bool),
        rank: usize,
    ) -> Vec<(&'static str, Attr)> {
        let all = |v: usize| Attr::Ints(vec![v as i64; rank]);
        let mut pads = vec![b as i64; rank];
        pads.extend(vec![e as i64; rank]);
        vec![
            ("kernel_shape", all(k)),
            ("strides", all(s)),
            ("dilations", all(d)),
            ("pads", Attr::Ints(pads)),
            ("ceil_mode", Attr::Int(ceil.into())),
        ]
    }

    #[test]
    fn the_device_and_the_host_find_the_same_maxima_and_send_gradients_to_them() {
        for rule in RULES {
            for shape in [&[2, 3, 7][..], &[1, 2, 7, 6], &[3, 1, 8, 7]] {
                let (x, rank) = (tensor(shape, 1), shape.len() - 2);
                let attributes = sliding(rule, rank);
                let device = run("MaxPool", 12, &attributes, &[Some(x.clone())]).unwrap().remove(0);
                let host = run_outputs("MaxPool", 12, 2, &attributes, &[Some(x.clone())]).unwrap();
                assert_eq!(device, host[0], "{rule:?} {shape:?}");
                for (y, &i) in device.as_f32().unwrap().iter().zip(host[1].as_i64().unwrap()) {
                    assert_eq!(*y, x.as_f32().unwrap()[i as usize], "{rule:?} {shape:?}");
                }
                let g = tensor(device.shape(), 2);
                let mut want = vec![0.0; x.len()];
                for (g, &i) in g.as_f32().unwrap().iter().zip(host[1].as_i64().unwrap()) {
                    want[i as usize] += g;
                }
                let (k, s, d, b, e, ceil) = rule;
                for outputs in [1, 2] {
                    let reach = Reach::Sliding(Sliding::of(
                        [vec![k; rank], vec![s; rank], vec![d; rank]],
                        [vec![b; rank], vec![e; rank]].concat(),
                        ceil,
                    ));
                    let op = MaxPool { reach, by_column: false, outputs };
                    assert_eq!(gradient(&op, &x, &device, &g), want, "{rule:?} {shape:?} {outputs}");
                }
            }
        }
    }

    #[test]
    fn means_agree_with_the_written_out_sum_and_their_gradient_is_the_transpose() {
        for rule in RULES {
            for count_padding in [false, true] {
                let (k, s, d, b, e, ceil) = rule;
                let x = tensor(&[2, 3, 7], 3);
                let mut attributes = sliding(rule, 1);
                attributes.push(("count_include_pad", Attr::Int(count_padding.into())));
                let y = run("AveragePool", 19, &attributes, &[Some(x.clone())]).unwrap().remove(0);
                let n = y.shape()[2];
                let g = tensor(y.shape(), 4);
                let mut dx = vec![0.0f32; x.len()];
                for row in 0..6 {
                    for o in 0..n {
                        let seen: Vec<usize> = (0..k).map(|j| o * s + j * d).filter(|&p| p < 7 + b + e).collect();
                        let inside: Vec<usize> = seen.iter().copied().filter(|&p| p >= b && p < b + 7).collect();
                        let padded = if d > 1 { k } else { seen.len() };
                        let count = if count_padding { padded } else { inside.len() } as f32;
                        let at = |p: usize| row * 7 + p - b;
                        let want = inside.iter().map(|&p| x.as_f32().unwrap()[at(p)]).sum::<f32>() / count;
                        let got = y.as_f32().unwrap()[row * n + o];
                        assert!((got - want).abs() < 1e-5, "{rule:?} {count_padding}: {got} {want}");
                        for p in inside {
                            dx[at(p)] += g.as_f32().unwrap()[row * n + o] / count;
                        }
                    }
                }
                let lists = [vec![k], vec![s], vec![d]];
                let op = AveragePool { sliding: Sliding::of(lists, vec![b, e], ceil), count_padding };
                for (got, want) in gradient(&op, &x, &y, &g).iter().zip(&dx) {
                    assert!((got - want).abs() < 1e-5, "{rule:?} {count_padding}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn not_a_number_is_seen_and_padding_is_never_the_maximum() {
        let x = Tensor::f32(vec![1, 1, 2, 4], vec![-3.0, f32::NAN, -1.0, -2.0, -4.0, -5.0, -6.0, -7.0]).unwrap();
        let attributes = [("kernel_shape", ints(&[2, 2])), ("strides", ints(&[2, 2])), ("pads", ints(&[1, 0, 1, 0]))];
        for outputs in [1, 2] {
            let y = run_outputs("MaxPool", 12, outputs, &attributes, &[Some(x.clone())]).unwrap().remove(0);
            let y = y.as_f32().unwrap();
            assert!(y[0].is_nan(), "{outputs}");
            assert_eq!(y[1..], [-1.0, -4.0, -6.0], "{outputs}");
        }
        let y = run("GlobalMaxPool", 1, &[], &[Some(x)]).unwrap().remove(0);
        assert!(y.as_f32().unwrap()[0].is_nan());
    }

    #[test]
    fn the_first_of_equal_maxima_takes_the_gradient() {
        let x = Tensor::f32(vec![1, 1, 1, 4], vec![1.0; 4]).unwrap();
        let y = Tensor::f32(vec![1, 1, 1, 1], vec![1.0]).unwrap();
        for outputs in [1, 2] {
            let op = MaxPool { reach: Reach::Global, by_column: false, outputs };
            assert_eq!(gradient(&op, &x, &y, &y), [1.0, 0.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn numbers_of_maxima_count_over_the_whole_tensor_in_either_order() {
        let x = Tensor::f32(vec![1, 2, 2, 3], (0..12).map(|v| v as f32).collect()).unwrap();
        for (order, want) in [(0, [5, 11]), (1, [5, 11])] {
            let attributes = [("kernel_shape", ints(&[2, 3])), ("storage_order", Attr::Int(order))];
            let y = run_outputs("MaxPool", 12, 2, &attributes, &[Some(x.clone())]).unwrap();
            assert_eq!(y[1].as_i64().unwrap(), want);
        }
        let attributes = [("kernel_shape", ints(&[2, 2])), ("storage_order", Attr::Int(1))];
        let y = run_outputs("MaxPool", 12, 2, &attributes, &[Some(x)]).unwrap();
        assert_eq!(y[1].as_i64().unwrap(), [3, 5, 9, 11]);
    }

    #[test]
    fn bytes_are_pooled_on_the_host() {
        for (dtype, v) in [(DType::U8, vec![200, 3, 250, 7]), (DType::I8, vec![-128, -3, -100, -7])] {
            let x = Tensor::new(dtype, vec![1, 1, 4], Elements::Int(v.clone())).unwrap();
            let y = run("MaxPool", 12, &[("kernel_shape", ints(&[2])), ("pads", ints(&[1, 0]))], &[Some(x)]).unwrap();
            assert_eq!(y[0].dtype(), dtype);
            assert_eq!(y[0].as_i64().unwrap(), [v[0], v[0].max(v[1]), v[1].max(v[2]), v[2].max(v[3])]);
        }
    }

    #[test]
    fn norms_of_windows() {
        let x = Tensor::f32(vec![1, 1, 4], vec![3.0, -4.0, 0.0, 0.0]).unwrap();
        let pool = |p: i64| {
            let attributes = [("kernel_shape", ints(&[2])), ("strides", ints(&[2])), ("p", Attr::Int(p))];
            run("LpPool", 18, &attributes, &[Some(x.clone())]).unwrap().remove(0)
        };
        assert_eq!(pool(1).as_f32().unwrap(), [7.0, 0.0]);
        assert_eq!(pool(2).as_f32().unwrap(), [5.0, 0.0]);
        assert!((pool(3).as_f32().unwrap()[0] - 91f32.cbrt()).abs() < 1e-4);
        // A window of zeros has no slope rather than NaN.
        for p in [1.0, 2.0, 3.0] {
            let op = LpPool { reach: Reach::Global, p };
            let (zeros, one) = (Tensor::zeros(vec![1, 1, 3]).unwrap(), Tensor::f32(vec![1, 1, 1], vec![1.0]).unwrap());
            assert_eq!(gradient(&op, &zeros, &Tensor::zeros(vec![1, 1, 1]).unwrap(), &one), [0.0; 3]);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let x = Some(tensor(&[1, 1, 4], 1));
        let pool = |attributes: &[(&str, Attr)]| run("MaxPool", 12, attributes, std::slice::from_ref(&x));
        assert!(pool(&[]).unwrap_err().contains("kernel_shape"));
        assert!(pool(&[("kernel_shape", ints(&[5]))]).unwrap_err().contains("does not fit"));
        assert!(pool(&[("kernel_shape", ints(&[2, 2]))]).is_err());
        assert!(pool(&[("kernel_shape", ints(&[2])), ("pads", ints(&[2, 0]))]).unwrap_err().contains("nothing to see"));
        let far = [("kernel_shape", ints(&[2])), ("dilations", ints(&[i64::MAX]))];
        assert!(pool(&far).unwrap_err().contains("dilations"));
        assert!(run("MaxPool", 12, &[("kernel_shape", ints(&[1]))], &[Some(tensor(&[1, 1, 0], 1))]).is_err());
        let index = Some(Tensor::i64(vec![1, 1, 1], vec![9]).unwrap());
        let unpool = run("MaxUnpool", 11, &[("kernel_shape", ints(&[2]))], &[Some(tensor(&[1, 1, 1], 1)), index]);
        assert!(unpool.unwrap_err().contains("index 9"));
    }
}
