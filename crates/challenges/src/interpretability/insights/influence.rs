//! Influence of known rows on the loss of a row: the dot product of their gradients of the last layer. TracIn with one
//! checkpoint: Pruthi et al., NeurIPS 2020, arXiv:2002.08484, equation 4 and section 4.1 (last layer). Checked: a known row's
//! influence on itself is its squared gradient. With logits z = W h + b and cross-entropy the gradient of W is (p − y) hᵀ, so that
//! the product is ((p − y)·(p' − y')) (h·h' + 1). Weak: one checkpoint stands for the whole training, and the rows must be those
//! it was trained on.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_stats::probability::softmax;
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Examiner, Inquiry, Insight, feature_layer, features_of, floats, table};
use crate::interpretability::{Answer, ExplainError, Explained, Question};

pub(crate) static CARD: Card = Card {
    id: "influence",
    version: 1,
    kind: CardKind::Explanation,
    title: "Influence of training rows",
    challenge: Challenge::Interpretability,
    measures: "Which training rows pulled the network towards its answer (proponents) and which away (opponents), by gradients of \
               the last layer.",
    reference: "Pruthi, Liu, Kale and Sundararajan, NeurIPS 2020, arXiv:2002.08484, equation 4, section 4.1",
    needs: &[Need::Labels],
    options: &[OptionDoc { name: "most", default: "5", doc: "Proponents and opponents per row, at least 1." }],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Influence {
    most: usize,
}

impl Default for Influence {
    fn default() -> Self {
        Self { most: 5 }
    }
}

impl Examiner for Influence {
    fn examine(&self, net: &Explained<'_>, asked: &Inquiry) -> Result<Insight, ExplainError> {
        if self.most == 0 {
            return Err(ExplainError::option("most", 0, "at least 1"));
        }
        let Some(labels) = &asked.labels else {
            return Err(ExplainError::not_applicable(
                "influence is that of labelled rows, and the data have no labels",
            ));
        };
        if net.answer() != Answer::Classes {
            return Err(ExplainError::not_applicable("the network is no classifier with a score per class"));
        }
        let layer = feature_layer(net, "", 0)?;
        let known = asked.known_rows(0)?;
        let (h, e) = (features_of(net, &known, &layer)?, errors(net, &known, labels)?);
        let (own_h, own_e) = (features_of(net, &asked.q, &layer)?, errors(net, &asked.q, &asked.q.targets)?);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let k = self.most.min(known.len());
        let mut t = table(
            "Training rows by influence on the loss of a row",
            &["row", "training row", "influence", "label of the training row"],
        );
        let (mut ids, mut values, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..asked.q.len() {
            let influence: Vec<f64> =
                (0..known.len()).map(|j| dot(&own_e[i], &e[j]) * (dot(&own_h[i], &h[j]) + 1.0)).collect();
            let mut order: Vec<usize> = (0..known.len()).collect();
            order.sort_by(|&a, &b| influence[b].total_cmp(&influence[a]).then(a.cmp(&b)));
            let ends = order.iter().take(k).chain(order.iter().rev().take(k));
            for &j in ends {
                t.rows.push(vec![asked.q.rows[i].into(), asked.rows[j].into(), influence[j].into(), labels[j].into()]);
                ids.push(asked.rows[j] as i64);
                values.push(influence[j]);
            }
            all.extend(influence);
        }
        let n = asked.q.len();
        Ok(Insight {
            tables: vec![t],
            arrays: vec![
                ("influence".to_owned(), floats(vec![n, known.len()], all)?),
                ("training_rows".to_owned(), Tensor::i64(vec![n, 2 * k], ids)?),
                ("training_influence".to_owned(), floats(vec![n, 2 * k], values)?),
            ],
            notes: vec![format!(
                "positive: training on that row lowered the loss of this one; last layer after `{layer}`, one checkpoint, the rows \
                 given are taken as those it was trained on"
            )],
        })
    }
}

/// p − y for each row.
fn errors(net: &Explained<'_>, q: &Question, labels: &[usize]) -> Result<Vec<Vec<f64>>, ExplainError> {
    let answers = net.answers(q, q.len(), |i, row| {
        row.copy_from_slice(q.row(i));
        i
    })?;
    let k = answers.len().checked_div(q.len()).unwrap_or(1).max(1);
    let mut p = softmax(&answers, k)?;
    for (row, &label) in p.chunks_mut(k).zip(labels) {
        if let Some(v) = row.get_mut(label) {
            *v -= 1.0;
        }
    }
    Ok(p.chunks(k).map(<[f64]>::to_vec).collect())
}
