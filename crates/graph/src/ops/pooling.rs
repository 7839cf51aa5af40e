//! Pools: one number for each window.

mod max;
mod mean;
mod norm;
mod unpool;

use crate::error::{OpResult, invalid};
use crate::operator::{Args, Context, Entry, Fact, checked_shape};
use crate::real::{Finish, Real, Window};

use super::convolution::spread;
use super::window::{Geometry, Sliding, cut, pad};
use max::MaxPool;
use mean::{AveragePool, GlobalAveragePool};
use norm::LpPool;
use unpool::MaxUnpool;

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
        let x = cut(x, &self.kept);
        x.correlate(&self.ones, &self.window, Finish::default())
            .unwrap_or_else(|| pad(&x, &self.window.padding, 0.0).conv(&self.ones, None, &plain))
    }

    fn back(&self, gradient: &Real) -> Real {
        let inner = spread(gradient, &self.ones, &self.window, &self.kept);
        let missing: Vec<(usize, usize)> = self.sizes.iter().zip(&self.kept).map(|(s, k)| (0, s - k)).collect();
        pad(&inner, &missing, 0.0)
    }
}

#[cfg(test)]
mod checks {
    use netproof_tensor::Tensor;

    use super::super::test_support::Attr;
    use super::*;
    use crate::operator::{Backward, Operator, Value};
    use crate::real::RealDevice;

    pub(super) fn tensor(shape: &[usize], seed: usize) -> Tensor {
        let n = shape.iter().product::<usize>();
        // No two values are equal, so that maxima are unique.
        let v = (0..n).map(|i| ((i * 7919 + seed * 31) % 10_007) as f32 / 1000.0 - 5.0).collect();
        Tensor::f32(shape.to_vec(), v).unwrap()
    }

    pub(super) fn ints(v: &[i64]) -> Attr {
        Attr::Ints(v.to_vec())
    }

    fn cx() -> Context {
        Context { device: RealDevice::cpu(), training: false, seed: 0 }
    }

    pub(super) fn gradient(op: &dyn Operator, x: &Tensor, y: &Tensor, g: &Tensor) -> Vec<f32> {
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
    pub(super) const RULES: [(usize, usize, usize, usize, usize, bool); 12] = [
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

    pub(super) fn sliding(
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
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{Attr, run};
    use super::checks::{ints, tensor};
    use netproof_tensor::Tensor;

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
