//! Attention rollout: what reaches the class token through all layers, if each layer mixes half of its attention with half of
//! what was there. Abnar and Zuidema, ACL 2020, arXiv:2005.00928, equation 1. Checked against a naive version. Weak: it ignores
//! values, the network's head and the class that is asked for.

use netproof_core::{Card, CardKind, Challenge};
use serde::{Deserialize, Serialize};

use crate::interpretability::attention::{layers, of_tokens, per_head, product, read_out, weights};
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "attention-rollout",
    version: 1,
    kind: CardKind::Explanation,
    title: "Attention rollout",
    challenge: Challenge::Interpretability,
    measures: "What reaches the class token through all attention layers and the residual connections beside them. The same \
               for every target.",
    reference: "Abnar and Zuidema, ACL 2020, arXiv:2005.00928, equation 1",
    needs: &[],
    options: &[],
};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AttentionRollout {}

impl Explainer for AttentionRollout {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let layers = layers(net)?;
        let t = layers[0].tokens;
        if layers.iter().any(|l| l.tokens != t) {
            return Err(ExplainError::not_applicable("the attention layers have different numbers of tokens"));
        }
        let all = weights(net, q, &layers)?;
        let mut relevance = Vec::with_capacity(q.len() * t);
        for i in 0..q.len() {
            let mut rollout: Vec<f32> = (0..t * t).map(|p| if p / t == p % t { 1.0 } else { 0.0 }).collect();
            for (layer, values) in layers.iter().zip(&all) {
                let width = values.row_len();
                let row = &values.as_f32().unwrap_or_default()[i * width..(i + 1) * width];
                rollout = product(&mixed(row, layer.heads, t), &rollout, t);
            }
            relevance.extend(read_out(&rollout, t));
        }
        let mut e = of_tokens(&layers[layers.len() - 1].name, q.len(), t, &relevance)?;
        e.arrays = layers.iter().zip(&all).map(|(l, w)| per_head(l, w)).collect::<Result<_, _>>()?;
        Ok(e.note(format!("{} attention layers were rolled out", layers.len())))
    }
}

/// Half the mean over heads, half the identity.
fn mixed(row: &[f32], heads: usize, t: usize) -> Vec<f32> {
    let mut mean: Vec<f32> = (0..t * t).map(|p| if p / t == p % t { 0.5 } else { 0.0 }).collect();
    for head in row.chunks(t * t) {
        mean.iter_mut().zip(head).for_each(|(m, &v)| *m += 0.5 * v / heads as f32);
    }
    mean
}

#[cfg(test)]
mod tests {
    use crate::interpretability::test_support::{ask, golden_network, net_of};

    #[test]
    fn on_a_real_transformer_both_layers_and_all_heads_are_found() {
        let Some((model, x, labels)) = golden_network("vit", 2) else { return };
        let net = net_of(&model, &x);
        let e = ask("attention-rollout", &net, x.clone(), labels.clone(), "");
        assert_eq!(e.attributions.shape(), [2, 1, 7, 7]);
        assert_eq!(e.arrays.len(), 2);
        assert_eq!(e.arrays[0].1.shape(), [2, 4, 7, 7]);
        assert!(e.arrays[0].0.contains("/at.0/Softmax_output_0") && e.arrays[1].0.contains("/at.1/"), "{:?}", e.notes);
        // What reaches the class token sums to 1 with what comes from itself.
        for row in e.attributions.as_f32().unwrap().chunks(49) {
            let sum: f32 = row.iter().sum();
            assert!(sum > 0.1 && sum < 1.0 && row.iter().all(|&v| v >= 0.0), "{sum}");
        }
        // Rolled out by hand: A1' A0' with A' = (mean + I) / 2, first row.
        let q = crate::interpretability::Question::new(x.clone(), labels).unwrap();
        let layers = crate::interpretability::attention::layers(&net).unwrap();
        let all = crate::interpretability::attention::weights(&net, &q, &layers).unwrap();
        let at = |l: usize, r: usize, c: usize| {
            let mean = (0..4).map(|h| all[l].as_f32().unwrap()[h * 2500 + r * 50 + c]).sum::<f32>() / 4.0;
            0.5 * mean + if r == c { 0.5 } else { 0.0 }
        };
        for k in [1, 17, 49] {
            let wanted: f32 = (0..50).map(|m| at(1, 0, m) * at(0, m, k)).sum();
            let found = e.attributions.as_f32().unwrap()[k - 1];
            assert!((wanted - found).abs() < 1e-6, "{wanted} {found}");
        }
        let other = ask("attention-x-gradient", &net, x, vec![0, 1], "");
        assert!(other.attributions.as_f32().unwrap().iter().any(|&v| v > 0.0));
    }
}
