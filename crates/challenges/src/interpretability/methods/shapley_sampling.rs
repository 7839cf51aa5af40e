//! Shapley values from random orders: each feature's mean contribution where it appears. Castro, Gómez and Tejada, Computers &
//! Operations Research 36(5), 2009; Štrumbelj and Kononenko, JMLR 11, 2010, algorithm 1. Checked against: golden/tiny-shapley.npz.
//!
//! Orders come in pairs, one the reverse of the other, and typical rows in turn, which is unbiased and less noisy (Mitchell et
//! al., JMLR 23, 2022, section 4.1). The standard error is that between pairs. Contributions of one order sum to the difference
//! of its ends exactly, so the sum misses only as far as typical rows were drawn unevenly.

use netproof_core::{Card, CardKind, Challenge, OptionDoc};
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::interpretability::coalitions::{Coalition, Game};
use crate::interpretability::segments::{COUNT, SEGMENTS, partitions};
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "shapley-sampling",
    version: 1,
    kind: CardKind::Explanation,
    title: "Sampled Shapley values",
    challenge: Challenge::Interpretability,
    measures: "Each feature's mean contribution over random orders in which features appear, with standard errors.",
    reference: "Castro, Gómez and Tejada, Computers & Operations Research 36(5), 2009; Štrumbelj and Kononenko, JMLR 11, 2010",
    needs: &[],
    options: &[
        SEGMENTS,
        COUNT,
        OptionDoc { name: "permutations", default: "200", doc: "Orders per row, an even number, at least 4." },
    ],
};

/// Pairs of orders that are evaluated together.
const TOGETHER: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ShapleySampling {
    segments: String,
    count: usize,
    permutations: usize,
}

impl Default for ShapleySampling {
    fn default() -> Self {
        Self { segments: "slic".to_owned(), count: 49, permutations: 200 }
    }
}

impl Explainer for ShapleySampling {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        if self.permutations < 4 || self.permutations % 2 == 1 {
            return Err(ExplainError::option("permutations", self.permutations, "an even number, at least 4"));
        }
        let parts = partitions(net, q, &self.segments, self.count)?;
        let game = Game::new(net, q, &parts);
        let (nothing, everything) = game.ends()?;
        let (stand_ins, pairs) = (game.stand_ins(), self.permutations / 2);
        let (mut all, mut errors, mut delta) = (Vec::new(), Vec::new(), Vec::new());
        for (row, partition) in parts.iter().enumerate() {
            let m = partition.count;
            let mut rng = q.rng(row, "shapley-sampling");
            let turns = rng.permutation(stand_ins);
            let (mut mean, mut squares) = (vec![0.0; m], vec![0.0; m]);
            let mut done = 0;
            while done < pairs {
                let orders: Vec<(Vec<usize>, usize)> =
                    (done..(done + TOGETHER).min(pairs)).map(|k| (rng.permutation(m), turns[k % stand_ins])).collect();
                let mut coalitions = Vec::with_capacity(orders.len() * 2 * (m + 1));
                for (order, stand_in) in &orders {
                    let mut along = |order: &mut dyn Iterator<Item = &usize>| {
                        let mut present = vec![false; m];
                        coalitions.push(Coalition { row, present: present.clone(), stand_in: Some(*stand_in) });
                        for &p in order {
                            present[p] = true;
                            coalitions.push(Coalition { row, present: present.clone(), stand_in: Some(*stand_in) });
                        }
                    };
                    along(&mut order.iter());
                    along(&mut order.iter().rev());
                }
                let values = game.values(&coalitions)?;
                for ((order, _), v) in orders.iter().zip(values.chunks(2 * (m + 1))) {
                    done += 1;
                    let (there, back) = v.split_at(m + 1);
                    for (step, &p) in order.iter().enumerate() {
                        let reverse = m - 1 - step;
                        let gain = 0.5 * (there[step + 1] - there[step] + back[reverse + 1] - back[reverse]);
                        let d = gain - mean[p];
                        mean[p] += d / done as f64;
                        squares[p] += d * (gain - mean[p]);
                    }
                }
            }
            delta.push(mean.iter().sum::<f64>() - (everything[row] - nothing[row]));
            all.extend(partition.spread(&mean));
            let error: Vec<f64> = squares.iter().map(|s| (s / (pairs - 1) as f64 / pairs as f64).sqrt()).collect();
            errors.extend(partition.spread(&error));
        }
        let mut e = Explanation::of_input(net, q.len(), all)?;
        e.standard_error = Some(Tensor::f32(e.attributions.shape().to_vec(), errors)?);
        e.delta = Some(delta);
        e.difference = Some(everything.iter().zip(&nothing).map(|(a, b)| a - b).collect());
        Ok(e)
    }
}

#[cfg(test)]
mod tests {
    use super::super::exact_shapley::tests::tiny;
    use crate::interpretability::Question;
    use crate::interpretability::test_support::{answer, attributions, close, golden_network, kinked, linear, net_of};

    #[test]
    fn of_a_linear_network_every_order_is_right() {
        let found =
            attributions("shapley-sampling", &linear(&[2.0, -3.0, 1.0], 1.0), &[[1.0, 2.0, 3.0]], "permutations = 4");
        close(&found, &[2.0, -6.0, 3.0], 1e-5);
    }

    #[test]
    fn it_tends_to_the_printed_values_of_captums_tests() {
        let found = attributions("shapley-sampling", &kinked(), &[[20.0, 50.0, 30.0]], "permutations = 2000");
        close(&found, &[76.6667, 196.6667, 116.6667], 5e-3);
    }

    #[test]
    fn it_tends_to_what_was_recorded_within_its_standard_error() {
        let Some((model, q, wanted)) = tiny() else { return };
        let e = answer("shapley-sampling", &net_of(&model, &q.x), &q, "permutations = 10000");
        let (found, error) = (e.attributions.as_f32().unwrap(), e.standard_error.unwrap());
        let mut worst = 0f32;
        for ((a, b), s) in found.iter().zip(&wanted).zip(error.as_f32().unwrap()) {
            worst = worst.max((a - b).abs());
            assert!((a - b).abs() <= 5.0 * s + 1e-6, "{a} {b} ± {s}");
        }
        assert!(worst <= 1e-2, "{worst}");
    }

    /// Efficiency, for this method and for KernelSHAP: over superpixels the values sum to what the network says of the row less
    /// what it says of the baseline.
    #[test]
    fn values_sum_to_the_difference_on_every_golden_network() {
        for name in ["cnn", "resnet", "vit", "mobilenet"] {
            let Some((model, x, labels)) = golden_network(name, 1) else { return };
            let net = net_of(&model, &x);
            let q = Question::new(x, labels).unwrap();
            let wanted = net.own_scores(&q).unwrap()[0] - net.baseline_scores(&q).unwrap()[0];
            for (id, options) in [("shapley-sampling", "permutations = 4"), ("kernel-shap", "samples = 400")] {
                let e = answer(id, &net, &q, options);
                let miss = e.delta.unwrap()[0].abs() / wanted.abs().max(1.0);
                assert!(miss <= 1e-4, "{id} {name}: misses {miss}");
                assert!((e.difference.unwrap()[0] - wanted).abs() <= 1e-4 * wanted.abs().max(1.0), "{id} {name}");
            }
        }
    }
}
