//! Permutation importance: how much worse the network gets where one feature is shuffled among rows. Breiman, Machine Learning
//! 45, 2001, section 10; Fisher, Rudin and Dominici, JMLR 20, 2019, equation 3. Checked against a closed form: a feature that is
//! ignored has importance 0. Weak where features depend on one another: shuffled rows may be ones that cannot be.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_stats::probability::log_losses_of_logits;
use serde::{Deserialize, Serialize};

use super::{Examiner, Inquiry, Insight, floats, table};
use crate::interpretability::segments::grid;
use crate::interpretability::{Answer, ExplainError, Explained, Features};

pub(crate) static CARD: Card = Card {
    id: "permutation-importance",
    version: 1,
    kind: CardKind::Explanation,
    title: "Permutation importance",
    challenge: Challenge::Interpretability,
    measures: "By how much the log loss rises where a feature's values are shuffled among rows.",
    reference: "Breiman, Machine Learning 45, 2001, section 10; Fisher, Rudin and Dominici, JMLR 20, 2019, equation 3",
    needs: &[Need::Labels],
    options: &[
        OptionDoc { name: "repeats", default: "5", doc: "Shuffles per feature, at least 2." },
        OptionDoc { name: "count", default: "49", doc: "About how many cells an image is cut into, at least 1." },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PermutationImportance {
    repeats: usize,
    count: usize,
}

impl Default for PermutationImportance {
    fn default() -> Self {
        Self { repeats: 5, count: 49 }
    }
}

impl Examiner for PermutationImportance {
    fn examine(&self, net: &Explained<'_>, asked: &Inquiry) -> Result<Insight, ExplainError> {
        if self.repeats < 2 {
            return Err(ExplainError::option("repeats", self.repeats, "at least 2"));
        }
        let (n, width) = (asked.len(), net.row_len());
        let Some(labels) = &asked.labels else {
            return Err(ExplainError::not_applicable(
                "permutation importance compares with labels, and the data have none",
            ));
        };
        if net.answer() == Answer::Value {
            return Err(ExplainError::not_applicable("the network is no classifier"));
        }
        let features = match (&asked.q.features, net.row_shape()) {
            (None, &[c, h, w]) => {
                let cells = grid([c, h, w], self.count.max(1));
                let names = (0..cells.count).map(|k| format!("cell {k}")).collect();
                Features { of: cells.of, names }
            }
            _ => asked.features(width),
        };
        let q = asked.known_rows(0)?;
        let loss = |answers: &[f32]| -> Result<f64, ExplainError> {
            let k = answers.len() / n.max(1);
            let two: Vec<f32>;
            let (answers, k) = if net.answer() == Answer::Binary {
                two = answers.iter().flat_map(|&z| [0.0, z]).collect();
                (&two[..], 2)
            } else {
                (answers, k)
            };
            let losses = log_losses_of_logits(answers, k, labels)?;
            Ok(losses.iter().sum::<f64>() / n as f64)
        };
        let clean = loss(&net.answers(&q, n, |i, row| {
            row.copy_from_slice(asked.known(i));
            i
        })?)?;
        let mut rows = Vec::new();
        for feature in 0..features.names.len() {
            let mut rises = Vec::with_capacity(self.repeats);
            for repeat in 0..self.repeats {
                let mut rng = netproof_stats::rng::Rng::stream(
                    q.shared_rng("permutation-importance").next_u64(),
                    (feature * self.repeats + repeat) as u64,
                );
                let order = rng.permutation(n);
                let answers = net.answers(&q, n, |i, row| {
                    row.copy_from_slice(asked.known(i));
                    let from = asked.known(order[i]);
                    for (k, &of) in features.of.iter().enumerate() {
                        if of == feature {
                            row[k] = from[k];
                        }
                    }
                    i
                })?;
                rises.push(loss(&answers)? - clean);
            }
            let mean = rises.iter().sum::<f64>() / self.repeats as f64;
            let spread: f64 = rises.iter().map(|r| (r - mean).powi(2)).sum();
            rows.push((mean, (spread / (self.repeats - 1) as f64 / self.repeats as f64).sqrt()));
        }
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|&a, &b| rows[b].0.total_cmp(&rows[a].0));
        let mut t = table(
            format!("Rise of the log loss ({clean:.4} nats) where a feature is shuffled"),
            &["feature", "rise (nats)", "standard error"],
        );
        t.rows =
            order.iter().map(|&i| vec![features.names[i].clone().into(), rows[i].0.into(), rows[i].1.into()]).collect();
        Ok(Insight {
            tables: vec![t],
            arrays: vec![
                ("importance".to_owned(), floats(vec![rows.len()], rows.iter().map(|r| r.0))?),
                ("standard_error".to_owned(), floats(vec![rows.len()], rows.iter().map(|r| r.1))?),
            ],
            notes: vec![format!("{n} rows, {} shuffles each", self.repeats)],
        })
    }
}
