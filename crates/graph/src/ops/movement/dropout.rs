//! Dropout. Srivastava et al., JMLR 15, 2014, in the inverted form: what is kept is scaled by 1 / (1 - ratio).

use netproof_stats::rng::Rng;
use netproof_tensor::{DType, Elements, Tensor};

use crate::attributes::Attributes;
use crate::error::{OpError, OpResult, invalid, unsupported};
use crate::operator::{Args, Backward, Context, Fact, Operator, Value};
use crate::real::Real;
use crate::rows::RowsOf;

struct Dropout {
    ratio: f32,
    /// Ratio and training mode are inputs.
    inputs: bool,
    /// Before opset 7: dropout at inference too, unless `is_test`.
    trains: bool,
    float_mask: bool,
    /// Outputs that the node names: the mask is made only where it is one of them.
    outputs: usize,
}

pub(super) fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
    a.int("seed", 0)?;
    a.ints("consumed_inputs")?;
    let trains = a.opset < 7 && !a.flag("is_test", false)?;
    let inputs = a.opset >= 12;
    let ratio = if inputs { 0.5 } else { a.float("ratio", 0.5)? };
    Ok(Box::new(Dropout { ratio, inputs, trains, float_mask: a.opset < 10, outputs: a.outputs() }))
}

fn checked(ratio: f32) -> OpResult<f32> {
    if !(0.0..1.0).contains(&ratio) {
        invalid!("the ratio is {ratio}, must be at least 0 and below 1");
    }
    Ok(ratio)
}

impl Dropout {
    fn ratio(&self, inputs: Args<'_, Value>) -> OpResult<f32> {
        checked(if self.inputs { inputs.scalar(1, 0.5)? } else { self.ratio })
    }

    /// What each element is multiplied by: drawn from the seed of the call, so that forward and backward pass agree.
    fn mask(&self, ratio: f32, n: usize, seed: u64) -> Vec<f32> {
        let scale = 1.0 / (1.0 - ratio);
        let mut rng = Rng::new(seed);
        (0..n).map(|_| if rng.unit() >= f64::from(ratio) { scale } else { 0.0 }).collect()
    }

    fn scales(&self, inputs: Args<'_, Value>, cx: &Context) -> OpResult<Option<Vec<f32>>> {
        let ratio = self.ratio(inputs)?;
        if !cx.training || ratio == 0.0 {
            return Ok(None);
        }
        Ok(Some(self.mask(ratio, inputs.need(0)?.shape().iter().product(), cx.seed)))
    }
}

impl Operator for Dropout {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let x = inputs.float(0)?;
        let ratio = match inputs.get(1) {
            Some(f) if self.inputs && f.count() != 1 => invalid!("input 1 must be one number, has shape {:?}", f.shape),
            Some(f) if self.inputs => f.value.as_ref().and_then(|v| v.as_f32().map(|v| v[0])),
            _ => Some(self.ratio),
        };
        ratio.map(checked).transpose()?;
        let random = match inputs.get(2).filter(|_| self.inputs) {
            Some(f) if f.dtype != DType::Bool || f.count() != 1 => invalid!("input 2 must be one truth value"),
            Some(f) => f.value.as_ref().ok_or(OpError::Deferred)?.as_bool().is_some_and(|v| v[0]),
            None => self.trains,
        };
        if random && ratio.ok_or(OpError::Deferred)? > 0.0 {
            unsupported!("draws at random in evaluation too (training mode is set in the file); set it to false");
        }
        let mask = if self.float_mask { x.dtype } else { DType::Bool };
        let facts = vec![Fact::new(x.dtype, x.shape.clone()), Fact::new(mask, x.shape.clone())];
        Ok(facts.into_iter().take(self.outputs).collect())
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.real(0, cx)?;
        let scales = self.scales(inputs, cx)?;
        let mut values = Vec::new();
        if let Some(mask) = outputs.get(1) {
            let kept: Vec<bool> = match &scales {
                None => vec![true; x.count()],
                Some(s) => s.iter().map(|&v| v > 0.0).collect(),
            };
            values.push(if mask.dtype.is_float() {
                let ones = kept.iter().map(|&k| f32::from(u8::from(k))).collect();
                Value::Real(Real::new(x.shape(), ones, &cx.device))
            } else {
                Value::host(Tensor::new(DType::Bool, x.shape().to_vec(), Elements::Bool(kept))?)
            });
        }
        let y = match scales {
            None => x,
            Some(s) => x.mul(&Real::new(x.shape(), s, &cx.device)),
        };
        values.insert(0, Value::Real(y));
        Ok(values)
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let mut gradients = vec![None; call.inputs.len()];
        let Some(g) = &call.gradients[0] else { return Ok(Some(gradients)) };
        gradients[0] = call.when(0, || {
            Ok(match self.scales(call.inputs, call.cx)? {
                None => g.clone(),
                Some(s) => g.mul(&Real::new(g.shape(), s, &call.cx.device)),
            })
        })?;
        Ok(Some(gradients))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.only(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_drop_their_share_and_keep_the_mean() {
        let d = Dropout { ratio: 0.3, inputs: false, trains: false, float_mask: false, outputs: 1 };
        let mask = d.mask(0.3, 100_000, 7);
        let dropped = mask.iter().filter(|&&v| v == 0.0).count() as f64 / 1e5;
        assert!((dropped - 0.3).abs() < 0.01, "{dropped}");
        assert!((mask.iter().sum::<f32>() / 1e5 - 1.0).abs() < 0.01);
        assert_ne!(mask, d.mask(0.3, 100_000, 8));
        assert_eq!(mask, d.mask(0.3, 100_000, 7));
    }
}
