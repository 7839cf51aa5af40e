//! How far the answer moves when the row is squeezed: rounded to few values, or smoothed by a median.
//! Xu, Evans and Qi, NDSS 2018, arXiv:1704.01155, section V: the largest l1 distance of probabilities over the squeezers.
//! Checked against: a naive distance, differences. On the way back roundings are taken for the identity.

use netproof_audit::AuditError;
use netproof_graph::Model;

use super::super::backward_twin::backward_twin;
use super::super::preprocessing::{bit_depth, median_smoothing};
use super::{Detector, Probe};

/// Bits of the first squeezer, as in the paper for pictures of grey values.
const BITS: u32 = 4;

pub(super) struct FeatureSqueezing {
    /// The network behind each squeezer, and the one that gradients are taken through.
    squeezed: Vec<(Model, Option<Model>)>,
}

impl FeatureSqueezing {
    pub(super) fn new(model: &Model) -> Result<Self, AuditError> {
        let mut all = vec![bit_depth::round_features(model, BITS)?];
        // What takes no images is only rounded.
        all.extend(median_smoothing::median(model, 3).ok());
        let with_twin = |m: Model| -> Result<_, AuditError> {
            let twin = backward_twin(&m)?.map(|t| t.0);
            Ok((m, twin))
        };
        Ok(Self { squeezed: all.into_iter().map(with_twin).collect::<Result<_, _>>()? })
    }

    /// For each row the largest distance, and which squeezer has it.
    fn largest(&self, probe: &Probe<'_>, x: &[f32]) -> Result<Vec<(f64, usize)>, AuditError> {
        let own = probabilities(probe, x)?;
        let mut largest = vec![(f64::NEG_INFINITY, 0); own.len()];
        for (s, (model, _)) in self.squeezed.iter().enumerate() {
            let there = Probe {
                model,
                row: probe.row.clone(),
                input: probe.input.clone(),
                logits: probe.logits.clone(),
                features: probe.features.clone(),
            };
            for (l, (p, q)) in largest.iter_mut().zip(own.iter().zip(probabilities(&there, x)?)) {
                let distance: f64 = p.iter().zip(&q).map(|(a, b)| (a - b).abs()).sum();
                if distance > l.0 {
                    *l = (distance, s);
                }
            }
        }
        Ok(largest)
    }
}

fn softmax(z: &[f32]) -> Vec<f64> {
    let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f64> = z.iter().map(|&z| f64::from(z - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

fn probabilities(probe: &Probe<'_>, x: &[f32]) -> Result<Vec<Vec<f64>>, AuditError> {
    let seen = probe.look(x)?;
    Ok(seen.logits.as_f32().unwrap_or_default().chunks(seen.logits.row_len().max(1)).map(softmax).collect())
}

/// Slope of `Σ s·p` with respect to logits, where `s` are slopes with respect to probabilities.
fn through_softmax(p: &[f64], s: &[f64]) -> Vec<f32> {
    let mean: f64 = p.iter().zip(s).map(|(p, s)| p * s).sum();
    p.iter().zip(s).map(|(p, s)| (p * (s - mean)) as f32).collect()
}

impl Detector for FeatureSqueezing {
    fn score(&self, probe: &Probe<'_>, x: &[f32]) -> Result<Vec<f64>, AuditError> {
        Ok(self.largest(probe, x)?.into_iter().map(|l| l.0).collect())
    }

    fn slope(&self, probe: &Probe<'_>, x: &[f32]) -> Result<Vec<f32>, AuditError> {
        let largest = self.largest(probe, x)?;
        let own = probe.look(x)?;
        let k = own.logits.row_len().max(1);
        let p: Vec<Vec<f64>> = own.logits.as_f32().unwrap_or_default().chunks(k).map(softmax).collect();
        let mut to_own = vec![0.0f32; own.logits.len()];
        let mut total = vec![0.0f32; x.len()];
        for (s, (model, twin)) in self.squeezed.iter().enumerate() {
            let of = |model| Probe {
                model,
                row: probe.row.clone(),
                input: probe.input.clone(),
                logits: probe.logits.clone(),
                features: probe.features.clone(),
            };
            let there = of(model);
            let q: Vec<Vec<f64>> = probabilities(&there, x)?;
            let mut to_there = vec![0.0f32; to_own.len()];
            for (i, (p, q)) in p.iter().zip(&q).enumerate().filter(|(i, _)| largest[*i].1 == s) {
                let sign: Vec<f64> = p
                    .iter()
                    .zip(q)
                    .map(|(p, q)| {
                        if p > q {
                            1.0
                        } else if p < q {
                            -1.0
                        } else {
                            0.0
                        }
                    })
                    .collect();
                let back: Vec<f64> = sign.iter().map(|s| -s).collect();
                to_own[i * k..(i + 1) * k].copy_from_slice(&through_softmax(p, &sign));
                to_there[i * k..(i + 1) * k].copy_from_slice(&through_softmax(q, &back));
            }
            let behind = of(twin.as_ref().unwrap_or(model));
            let slope = behind.slope(&behind.look(x)?, to_there, None)?;
            total.iter_mut().zip(slope).for_each(|(t, s)| *t += s);
        }
        let slope = probe.slope(&own, to_own, None)?;
        total.iter_mut().zip(slope).for_each(|(t, s)| *t += s);
        Ok(total)
    }
}
