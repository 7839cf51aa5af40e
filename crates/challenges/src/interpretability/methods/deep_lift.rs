//! DeepLIFT: the difference from a baseline handed back from layer to layer, by quotients of changes instead of gradients.
//! Shrikumar, Greenside and Kundaje, ICML 2017, arXiv:1704.02685; rescale rule, section 3.5.1. Checked against: Captum 0.9.0
//! (golden/fashion-golden.npz and the printed values of its tests), the summation-to-delta theorem on all golden networks.
//!
//! Differs from Captum 0.9.0 in two-dimensional max pooling: there the recorded values are those of the plain gradient, so that
//! they do not sum to the difference (0.9 % off for row 0 of the recorded network). With `maximum = "gradient"` the values are
//! Captum's to 1e-7; the default obeys the theorem.
//!
//! Works per operator of the graph, so that shared and functional activations cannot be missed, and a softmax is treated row
//! by row. Operators that the paper does not treat: see `rules/deep_lift.rs` of `netproof-graph`.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_graph::Rule;
use serde::{Deserialize, Serialize};

use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "deep-lift",
    version: 1,
    kind: CardKind::Explanation,
    title: "DeepLIFT (rescale)",
    challenge: Challenge::Interpretability,
    measures: "What each element adds to the score compared with the baseline, by multipliers of changes from layer to layer. \
               Attributions sum to the difference of the two scores.",
    reference: "Shrikumar, Greenside and Kundaje, ICML 2017, arXiv:1704.02685, section 3.5.1",
    needs: &[Need::InputGradient],
    options: &[OptionDoc {
        name: "maximum",
        default: "\"change\"",
        doc: "What a maximum hands back: `change`, its change to the element that makes it, or `gradient`, which does not sum to \
              the difference and is what Captum 0.9.0 computes.",
    }],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DeepLift {
    maximum: String,
}

impl Default for DeepLift {
    fn default() -> Self {
        Self { maximum: "change".to_owned() }
    }
}

impl Explainer for DeepLift {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let gradient_of_maxima = match self.maximum.as_str() {
            "change" => false,
            "gradient" => true,
            other => return Err(ExplainError::option("maximum", other, "change or gradient")),
        };
        let mut all = Vec::with_capacity(q.x.len());
        let mut scores = Vec::with_capacity(q.len());
        net.carried(q, &Rule::DeepLift { gradient_of_maxima }, false, |i, score, multipliers| {
            scores.push(score);
            let ways = q.row(i).iter().zip(q.baseline_row(i));
            all.extend(multipliers.iter().zip(ways).map(|(m, (x, b))| m * (x - b)));
        })?;
        let difference = scores.iter().zip(net.baseline_scores(q)?).map(|(a, b)| a - b).collect();
        Ok(Explanation::of_input(net, q.len(), all)?.complete(difference))
    }
}

#[cfg(test)]
mod tests {
    use netproof_graph::Attribute;
    use netproof_tensor::Tensor;

    use crate::interpretability::Question;
    use crate::interpretability::test_support::{
        answer, ask, attributions, close, golden, golden_network, linear, net_of, network, stored,
    };

    #[test]
    fn of_a_linear_network_it_is_weight_times_input() {
        assert_eq!(attributions("deep-lift", &linear(&[2.0, -3.0], 1.0), &[[1.0, 2.0]], ""), [2.0, -6.0]);
    }

    #[test]
    fn it_gives_the_printed_values_of_captums_tests() {
        // 2 relu(x1) + 2 relu(x2 − 1.5) at (1, 2).
        let model = network(&[2], 1, |f, x| {
            let b = stored(f, "b", &[2], &[0.0, -1.5]);
            let h = f.node("Add", "h", &[x, &b], &[]);
            let r = f.node("Relu", "r", &[&h], &[]);
            let w = stored(f, "w", &[2, 1], &[2.0, 2.0]);
            f.node("MatMul", "y", &[&r, &w], &[])
        });
        close(&attributions("deep-lift", &model, &[[1.0, 2.0]], ""), &[2.0, 1.0], 1e-6);
        // relu(3 x1 + x2) + relu(2 x4 + 3 x5), the first off.
        let model = network(&[6], 1, |f, x| {
            let w = [3.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 3.0, 0.0, 0.0];
            let w = stored(f, "w", &[6, 2], &w);
            let h = f.node("MatMul", "h", &[x, &w], &[]);
            let r = f.node("Relu", "r", &[&h], &[]);
            let v = stored(f, "v", &[2, 1], &[1.0, 1.0]);
            f.node("MatMul", "y", &[&r, &v], &[])
        });
        let found = attributions("deep-lift", &model, &[[-10.0, 1.0, -5.0, 3.0, 3.0, 1.0]], "");
        close(&found, &[0.0, 0.0, 0.0, 6.0, 9.0, 0.0], 1e-6);
    }

    #[test]
    fn a_maximum_hands_its_change_to_the_element_that_makes_it() {
        // Captum's lin–max–lin network, whose layers are identities.
        let model = network(&[1, 4], 1, |f, x| {
            let p = f.node("MaxPool", "p", &[x], &[("kernel_shape", Attribute::Ints(vec![4]))]);
            f.node("Flatten", "y", &[&p], &[])
        });
        let x = Tensor::f32(vec![2, 1, 4], vec![1.0; 8]).unwrap();
        let mut q = Question::new(x.clone(), vec![0, 0]).unwrap();
        q.baseline = Tensor::f32(vec![2, 1, 4], vec![1.0, 2.0, 3.0, 9.0, 4.0, 8.0, 6.0, 7.0]).unwrap();
        let e = answer("deep-lift", &net_of(&model, &x), &q, "");
        close(e.attributions.as_f32().unwrap(), &[0.0, 0.0, 0.0, -8.0, 0.0, -7.0, 0.0, 0.0], 1e-5);
        assert!(e.delta.unwrap().iter().all(|d| d.abs() < 1e-5));
    }

    #[test]
    fn it_is_captums() {
        golden("deep-lift", "maximum = \"gradient\"", "deeplift_rescale_zero_baseline", &["cnn"]);
    }

    #[test]
    fn it_is_complete_on_every_golden_network() {
        for name in ["cnn", "resnet", "vit", "mobilenet"] {
            let Some((model, x, labels)) = golden_network(name, 4) else { return };
            let e = ask("deep-lift", &net_of(&model, &x), x, labels, "");
            for (delta, difference) in e.delta.unwrap().iter().zip(e.difference.unwrap()) {
                assert!(delta.abs() <= 1e-4 * difference.abs().max(1.0), "{name}: {delta} of {difference}");
            }
        }
    }
}
