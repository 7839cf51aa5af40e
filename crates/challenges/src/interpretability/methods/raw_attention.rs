//! Raw attention: the weights of the last layer, averaged over heads, as seen from the class token. Bahdanau, Cho and Bengio,
//! ICLR 2015, arXiv:1409.0473; Vaswani et al. 2017. Checked on a transformer of known weights. Weak: it says what is mixed in the
//! last layer, not what decides (Jain and Wallace, NAACL 2019, arXiv:1902.10186); heads and layers are in `attention:LAYER`.

use netproof_core::{Card, CardKind, Challenge};
use serde::{Deserialize, Serialize};

use crate::interpretability::attention::{layers, of_tokens, per_head, read_out, weights};
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "raw-attention",
    version: 1,
    kind: CardKind::Explanation,
    title: "Raw attention",
    challenge: Challenge::Interpretability,
    measures: "What the last attention layer looks at, averaged over heads; all layers and heads beside it.",
    reference: "Bahdanau, Cho and Bengio, ICLR 2015, arXiv:1409.0473; Vaswani et al., NeurIPS 2017, arXiv:1706.03762",
    needs: &[],
    options: &[],
};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawAttention {}

impl Explainer for RawAttention {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let layers = layers(net)?;
        let all = weights(net, q, &layers)?;
        let (Some(last), Some(values)) = (layers.last(), all.last()) else {
            return Err(ExplainError::not_applicable("no attention"));
        };
        let (t, per_row) = (last.tokens, values.row_len().max(1));
        let mut relevance = Vec::with_capacity(q.len() * t);
        for row in values.as_f32().unwrap_or_default().chunks(per_row) {
            let mut mean = vec![0.0; t];
            for head in row.chunks(t * t) {
                mean.iter_mut().zip(read_out(head, t)).for_each(|(m, v)| *m += v / last.heads as f32);
            }
            relevance.extend(mean);
        }
        let mut e = of_tokens(&last.name, q.len(), t, &relevance)?;
        e.arrays = layers.iter().zip(&all).map(|(l, w)| per_head(l, w)).collect::<Result<_, _>>()?;
        let names: Vec<String> = layers.iter().map(|l| format!("`{}` ({} heads)", l.name, l.heads)).collect();
        Ok(e.note(format!("attention layers: {}", names.join(", "))))
    }
}
