//! Attention × gradient: rollout of attention weights times their gradients, where both agree, for the class that is asked for.
//! Chefer, Gur and Wolf, ICCV 2021, arXiv:2103.15679, equations 5 and 6. Checked on a transformer of reference. Weak: it ignores
//! what happens between attention layers.

use netproof_core::{Card, CardKind, Challenge, Need};
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::interpretability::attention::{layers, of_tokens, per_head, product, read_out};
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "attention-x-gradient",
    version: 1,
    kind: CardKind::Explanation,
    title: "Attention × gradient",
    challenge: Challenge::Interpretability,
    measures: "What reaches the class token through attention that raises the score: weights times gradients, rolled out.",
    reference: "Chefer, Gur and Wolf, ICCV 2021, arXiv:2103.15679, equations 5 and 6",
    needs: &[Need::InputGradient],
    options: &[],
};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AttentionXGradient {}

impl Explainer for AttentionXGradient {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let layers = layers(net)?;
        let t = layers[0].tokens;
        if layers.iter().any(|l| l.tokens != t) {
            return Err(ExplainError::not_applicable("the attention layers have different numbers of tokens"));
        }
        let names: Vec<String> = layers.iter().map(|l| l.name.clone()).collect();
        let mut relevance = Vec::with_capacity(q.len() * t);
        let mut kept: Vec<Vec<Tensor>> = vec![Vec::new(); layers.len()];
        net.probe(q, &names, |_, found| {
            let rows = found.first().map_or(0, |(w, _)| w.rows());
            for i in 0..rows {
                let mut r: Vec<f32> = (0..t * t).map(|p| if p / t == p % t { 1.0 } else { 0.0 }).collect();
                for (layer, (weights, gradient)) in layers.iter().zip(found) {
                    let Some(gradient) = gradient else { continue };
                    let width = weights.row_len();
                    let part = i * width..(i + 1) * width;
                    let (a, g) = (weights.as_f32().unwrap_or_default(), gradient.as_f32().unwrap_or_default());
                    let mut mean = vec![0.0f32; t * t];
                    for (a, g) in a[part.clone()].chunks(t * t).zip(g[part].chunks(t * t)) {
                        mean.iter_mut()
                            .zip(a.iter().zip(g))
                            .for_each(|(m, (a, g))| *m += (a * g).max(0.0) / layer.heads as f32);
                    }
                    let more = product(&mean, &r, t);
                    r.iter_mut().zip(more).for_each(|(r, m)| *r += m);
                }
                // What a token has of itself says nothing.
                (0..t).for_each(|p| r[p * t + p] -= 1.0);
                relevance.extend(read_out(&r, t));
            }
            for (kept, (weights, _)) in kept.iter_mut().zip(found) {
                kept.push(weights.clone());
            }
            Ok(())
        })?;
        let mut e = of_tokens(&names[names.len() - 1], q.len(), t, &relevance)?;
        for (layer, parts) in layers.iter().zip(&kept) {
            e.arrays.push(per_head(layer, &Tensor::concat_rows(parts)?)?);
        }
        Ok(e)
    }
}
