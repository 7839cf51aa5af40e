//! Nearest examples: known rows that the network sees as most alike. Features of a layer, Euclidean or cosine distance; Papernot
//! and McDaniel 2018, arXiv:1803.04765, section III. Checked: the nearest known row of a known row is that row itself.

use netproof_core::{Card, CardKind, Challenge, OptionDoc};
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Examiner, Inquiry, Insight, LAYER, feature_layer, features_of, floats, squared_distance, table};
use crate::interpretability::{ExplainError, Explained};

pub(crate) static CARD: Card = Card {
    id: "nearest-examples",
    version: 1,
    kind: CardKind::Explanation,
    title: "Nearest examples",
    challenge: Challenge::Interpretability,
    measures: "The known rows that are most alike in the network's own features, with their labels.",
    reference: "Papernot and McDaniel 2018, arXiv:1803.04765, section III",
    needs: &[],
    options: &[
        LAYER,
        OptionDoc { name: "neighbours", default: "5", doc: "Known rows per row, at least 1." },
        OptionDoc { name: "distance", default: "\"euclidean\"", doc: "`euclidean` or `cosine`." },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NearestExamples {
    layer: String,
    neighbours: usize,
    distance: String,
}

impl Default for NearestExamples {
    fn default() -> Self {
        Self { layer: String::new(), neighbours: 5, distance: "euclidean".to_owned() }
    }
}

impl Examiner for NearestExamples {
    fn examine(&self, net: &Explained<'_>, asked: &Inquiry) -> Result<Insight, ExplainError> {
        if self.neighbours == 0 {
            return Err(ExplainError::option("neighbours", 0, "at least 1"));
        }
        let cosine = match self.distance.as_str() {
            "euclidean" => false,
            "cosine" => true,
            other => return Err(ExplainError::option("distance", other, "euclidean or cosine")),
        };
        let layer = feature_layer(net, &self.layer, 0)?;
        let known = features_of(net, &asked.known_rows(0)?, &layer)?;
        let own = features_of(net, &asked.q, &layer)?;
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let far = |a: &[f64], b: &[f64]| {
            if cosine {
                1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
            } else {
                squared_distance(a, b).sqrt()
            }
        };
        let k = self.neighbours.min(known.len());
        let mut t = table(
            format!("Nearest known rows by `{layer}`"),
            &["row", "neighbour", "distance", "label of the neighbour"],
        );
        let (mut ids, mut distances) = (Vec::new(), Vec::new());
        for (i, row) in own.iter().enumerate() {
            let mut all: Vec<(f64, usize)> = known.iter().enumerate().map(|(j, other)| (far(row, other), j)).collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            for &(d, j) in &all[..k] {
                let label = asked.labels.as_ref().map_or("".into(), |l| l[j].into());
                t.rows.push(vec![asked.q.rows[i].into(), asked.rows[j].into(), d.into(), label]);
                ids.push(asked.rows[j] as i64);
                distances.push(d);
            }
        }
        let n = own.len();
        Ok(Insight {
            tables: vec![t],
            arrays: vec![
                ("neighbours".to_owned(), Tensor::i64(vec![n, k], ids)?),
                ("distances".to_owned(), floats(vec![n, k], distances)?),
            ],
            notes: vec![format!("compared by `{layer}`, among {} known rows", known.len())],
        })
    }
}
