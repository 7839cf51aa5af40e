//! Feature ablation: by how much the score falls where one feature is replaced by the baseline. Features are columns of a
//! table with their one-hot parts, or segments of an image. As in Captum; the idea is as old as sensitivity analysis (Robnik-
//! Šikonja and Kononenko, IEEE TKDE 20(5), 2008, section 2). Checked against: the printed values of Captum's tests.
//! Weak where features stand for each other: taking one away changes nothing.

use netproof_core::{Card, CardKind, Challenge};
use serde::{Deserialize, Serialize};

use crate::interpretability::coalitions::{Coalition, Game};
use crate::interpretability::segments::{COUNT, SEGMENTS, partitions};
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "feature-ablation",
    version: 1,
    kind: CardKind::Explanation,
    title: "Feature ablation",
    challenge: Challenge::Interpretability,
    measures: "By how much the score falls where one feature (a column, a segment) is replaced by the baseline.",
    reference: "Robnik-Šikonja and Kononenko, IEEE Transactions on Knowledge and Data Engineering 20(5), 2008, section 2",
    needs: &[],
    options: &[SEGMENTS, COUNT],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FeatureAblation {
    segments: String,
    count: usize,
}

impl Default for FeatureAblation {
    fn default() -> Self {
        Self { segments: "slic".to_owned(), count: 49 }
    }
}

impl Explainer for FeatureAblation {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let parts = partitions(net, q, &self.segments, self.count)?;
        // The baseline stands in, not the typical rows: one absence, not a mean over many.
        let plain = Question { background: None, ..q.clone() };
        let game = Game::new(net, &plain, &parts);
        let mut coalitions = Vec::new();
        for row in 0..q.len() {
            for part in 0..game.parts(row) {
                let present = (0..game.parts(row)).map(|p| p != part).collect();
                coalitions.push(Coalition { row, present, stand_in: None });
            }
        }
        let values = game.values(&coalitions)?;
        let own = net.own_scores(q)?;
        let mut all = Vec::with_capacity(q.x.len());
        let mut at = 0;
        for (row, partition) in parts.iter().enumerate() {
            let falls: Vec<f64> = values[at..at + partition.count].iter().map(|v| own[row] - v).collect();
            at += partition.count;
            all.extend(partition.spread(&falls));
        }
        Explanation::of_input(net, q.len(), all)
    }
}

#[cfg(test)]
mod tests {
    use netproof_tensor::Tensor;

    use crate::interpretability::test_support::{answer, attributions, close, kinked, net_of};
    use crate::interpretability::{Features, Question};

    #[test]
    fn it_gives_the_printed_values_of_captums_tests() {
        let x = [[20.0, 50.0, 30.0]];
        close(&attributions("feature-ablation", &kinked(), &x, ""), &[80.0, 200.0, 120.0], 1e-6);
        let x = Tensor::f32(vec![1, 3], x.concat()).unwrap();
        let mut q = Question::new(x.clone(), vec![0]).unwrap();
        q.features = Some(Features { of: vec![0, 0, 1], names: vec!["a".into(), "b".into()] });
        let model = kinked();
        let e = answer("feature-ablation", &net_of(&model, &x), &q, "");
        close(e.attributions.as_f32().unwrap(), &[280.0, 280.0, 120.0], 1e-6);
    }
}
