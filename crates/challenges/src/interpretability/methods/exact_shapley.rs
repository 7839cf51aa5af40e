//! Exact Shapley values: each feature's mean contribution over all orders, from all 2^M coalitions. Shapley 1953; for networks
//! with typical rows standing in for what is absent (interventional): Štrumbelj and Kononenko, JMLR 11, 2010; Lundberg and Lee,
//! NeurIPS 2017, arXiv:1705.07874, equation 4. Checked against: golden/tiny-shapley.npz, the printed values of Captum's tests.
//! For few features only: the work doubles with each.

use netproof_core::{Card, CardKind, Challenge, OptionDoc};
use serde::{Deserialize, Serialize};

use crate::interpretability::coalitions::{Coalition, Game};
use crate::interpretability::segments::{SEGMENTS, partitions};
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "exact-shapley",
    version: 1,
    kind: CardKind::Explanation,
    title: "Exact Shapley values",
    challenge: Challenge::Interpretability,
    measures: "Each feature's mean contribution over all orders in which features can appear, from all coalitions. They sum to \
               the score minus that of typical rows.",
    reference: "Shapley 1953; Lundberg and Lee, NeurIPS 2017, arXiv:1705.07874, equation 4",
    needs: &[],
    options: &[
        SEGMENTS,
        OptionDoc { name: "count", default: "9", doc: "About how many segments an image is cut into, 1 to 16." },
    ],
};

/// Most features: 65,536 coalitions.
const MOST: usize = 16;

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExactShapley {
    segments: String,
    count: usize,
}

impl Default for ExactShapley {
    fn default() -> Self {
        Self { segments: "slic".to_owned(), count: 9 }
    }
}

impl Explainer for ExactShapley {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let parts = partitions(net, q, &self.segments, self.count)?;
        if let Some(p) = parts.iter().find(|p| p.count > MOST) {
            return Err(ExplainError::not_applicable(format!(
                "exact Shapley values take 2^{} coalitions, at most 2^{MOST} are computed; choose sampled ones or group features",
                p.count
            )));
        }
        let game = Game::new(net, q, &parts);
        let mut all = Vec::with_capacity(q.x.len());
        let (mut delta, mut difference) = (Vec::new(), Vec::new());
        for (row, partition) in parts.iter().enumerate() {
            let m = partition.count;
            let coalitions: Vec<Coalition> = (0..1usize << m)
                .map(|s| Coalition { row, present: (0..m).map(|p| s >> p & 1 == 1).collect(), stand_in: None })
                .collect();
            let v = game.values(&coalitions)?;
            // |S|! (M − |S| − 1)! / M! for each size of a coalition without the feature.
            let mut weight = vec![1.0 / m.max(1) as f64; m];
            for s in 1..m {
                weight[s] = weight[s - 1] * s as f64 / (m - s) as f64;
            }
            let mut phi = vec![0.0; m];
            for (s, value) in v.iter().enumerate() {
                let size = s.count_ones() as usize;
                for (p, phi) in phi.iter_mut().enumerate() {
                    if s >> p & 1 == 1 {
                        *phi += weight[size - 1] * value;
                    } else {
                        *phi -= weight[size] * value;
                    }
                }
            }
            let whole = v[v.len() - 1] - v[0];
            delta.push(phi.iter().sum::<f64>() - whole);
            difference.push(whole);
            all.extend(partition.spread(&phi));
        }
        let mut e = Explanation::of_input(net, q.len(), all)?;
        (e.delta, e.difference) = (Some(delta), Some(difference));
        Ok(e)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use netproof_graph::Model;
    use netproof_tensor::Tensor;

    use crate::interpretability::test_support::{answer, attributions, close, golden_folder, kinked, net_of, recorded};
    use crate::interpretability::{Features, Question};

    #[test]
    fn it_gives_the_printed_values_of_captums_tests() {
        let x = [[20.0, 50.0, 30.0]];
        close(&attributions("exact-shapley", &kinked(), &x, ""), &[76.6667, 196.6667, 116.6667], 1e-6);
        close(&attributions("exact-shapley", &kinked(), &[[2.0, 10.0, 3.0]], ""), &[7.0, 32.5, 10.5], 1e-6);
        let x = Tensor::f32(vec![1, 3], x.concat()).unwrap();
        let mut q = Question::new(x.clone(), vec![0]).unwrap();
        q.features = Some(Features { of: vec![0, 0, 1], names: vec!["a".into(), "b".into()] });
        let model = kinked();
        let net = net_of(&model, &x);
        close(answer("exact-shapley", &net, &q, "").attributions.as_f32().unwrap(), &[275.0, 275.0, 115.0], 1e-6);
        q.baseline = Tensor::f32(vec![1, 3], vec![4.0; 3]).unwrap();
        close(answer("exact-shapley", &net, &q, "").attributions.as_f32().unwrap(), &[248.0, 248.0, 104.0], 1e-6);
    }

    /// The recorded question, and the values of class 1.
    pub(crate) fn tiny() -> Option<(Model, Question, Vec<f32>)> {
        let wanted = tiny_values()?;
        let arrays = recorded("tiny-shapley.npz", &["background", "x"])?;
        let [background, x] = <[Tensor; 2]>::try_from(arrays).ok()?;
        let model = Model::load(&golden_folder()?.join("tiny-mlp.onnx")).unwrap();
        let rows = x.rows();
        let mut q = Question::new(x, vec![1; rows]).unwrap();
        q.background = Some(background);
        Some((model, q, wanted))
    }

    fn tiny_values() -> Option<Vec<f32>> {
        let t = recorded("tiny-shapley.npz", &["shapley_class_1"])?;
        t[0].as_f32().map(<[f32]>::to_vec)
    }

    #[test]
    fn it_is_what_was_recorded() {
        let Some((model, q, wanted)) = tiny() else { return };
        let e = answer("exact-shapley", &net_of(&model, &q.x), &q, "");
        let found = e.attributions.as_f32().unwrap();
        let worst = found.iter().zip(&wanted).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= 1e-5, "{worst}");
        assert!(e.delta.unwrap().iter().all(|d| d.abs() < 1e-5));
    }
}
