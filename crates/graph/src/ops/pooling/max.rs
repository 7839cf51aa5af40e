//! Maxima of windows.

use netproof_tensor::{DType, Elements, Tensor};

use crate::attributes::Attributes;
use crate::bounds::Windows;
use crate::error::{OpResult, invalid, unsupported};
use crate::kernels::pool::Pool;
use crate::operator::{Args, Backward, Context, Fact, Operator, Value, one};
use crate::real::{Real, Window};
use crate::rows::RowsOf;

use super::super::window::{Exact, Geometry, Sliding, cut, pad};
use super::{Reach, only, pooled};

/// Maxima of windows. NaN wins over every number, and the first of equal maxima counts.
pub(super) struct MaxPool {
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

/// What our own kernel needs for a pool over at most two spatial axes.
fn in_memory(x: &[usize], geometry: &Geometry) -> Pool {
    let lift = |v: &[usize], filler: usize| if v.len() == 1 { [filler, v[0]] } else { [v[0], v[1]] };
    let begin: Vec<usize> = geometry.padding.iter().map(|p| p.0).collect();
    Pool {
        planes: x[0] * x[1],
        input: lift(&geometry.input, 1),
        output: lift(&geometry.output, 1),
        kernel: lift(&geometry.kernel, 1),
        stride: lift(&geometry.stride, 1),
        dilation: lift(&geometry.dilation, 1),
        padding: lift(&begin, 0),
    }
}

impl MaxPool {
    pub(super) fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        let by_column = a.flag("storage_order", false)?;
        Ok(Box::new(Self { reach: Reach::Sliding(Sliding::pooling(a)?), by_column, outputs: a.outputs().clamp(1, 2) }))
    }

    pub(super) fn build_global(_: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
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
            if let Some(y) = x.real(cx)?.max_pool(in_memory(x.shape(), &geometry), &fact.shape) {
                return one(y);
            }
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

    fn maximum(&self, x: &[usize]) -> OpResult<Option<Windows>> {
        if self.outputs > 1 {
            return Ok(None);
        }
        let geometry = self.reach.geometry(x)?;
        let mut windows: Vec<Vec<u32>> = vec![vec![0]];
        for axis in 0..geometry.rank() {
            let size = geometry.input[axis];
            let along = geometry.positions(axis);
            let longer = windows.iter().flat_map(|window| {
                along.iter().map(move |places| {
                    let each = |&at: &u32| places.iter().map(move |&p| at * size as u32 + p as u32);
                    window.iter().flat_map(each).collect()
                })
            });
            windows = longer.collect();
        }
        let planes = x[1];
        Ok(Some(Windows { planes, plane: geometry.input.iter().product(), windows }))
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
            if let Some(g) = x.max_pool_backward(in_memory(x.shape(), &geometry), gradient) {
                return Ok(g);
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

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        // The second output numbers places through the whole batch.
        call.only(0).filter(|&axis| axis == 0 && call.outputs == 1)
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

#[cfg(test)]
mod tests {
    use super::super::checks::{RULES, gradient, ints, sliding, tensor};
    use super::*;
    use crate::ops::test_support::{Attr, run, run_outputs};

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
}
