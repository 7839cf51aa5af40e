//! The inverse of a max pool.

use netproof_tensor::DType;

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid};
use crate::operator::{Args, Backward, Context, Fact, Operator, Value, checked_shape, one};
use crate::real::Real;

use super::super::window::Sliding;

/// Puts maxima back where a max pool found them, zeros elsewhere.
pub(super) struct MaxUnpool {
    sliding: Sliding,
}

impl MaxUnpool {
    pub(super) fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
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
