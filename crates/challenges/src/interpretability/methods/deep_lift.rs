//! DeepLIFT: the difference from a baseline handed back from layer to layer, by quotients of changes instead of gradients.
//! Shrikumar, Greenside and Kundaje, ICML 2017, arXiv:1704.02685; Rescale, section 3.5.2, and RevealCancel, section 3.5.3. Checked
//! against: Captum 0.9.0, which has Rescale only (golden/fashion-golden.npz and the printed values of its tests); the authors'
//! values for RevealCancel (their test of a dense layer, and the minimum of two inputs, section 3.5.3); the summation-to-delta
//! theorem on all golden networks.
//!
//! Where two inputs cancel, Rescale may give all to one of them and nothing to the other, although neither works alone;
//! RevealCancel divides. It says nothing more than Rescale where a maximum lies between a layer and its rectifier.
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
    title: "DeepLIFT",
    challenge: Challenge::Interpretability,
    measures: "What each element adds to the score compared with the baseline, by multipliers of changes from layer to layer. \
               Attributions sum to the difference of the two scores.",
    reference: "Shrikumar, Greenside and Kundaje, ICML 2017, arXiv:1704.02685, sections 3.5.2 and 3.5.3",
    needs: &[Need::InputGradient],
    options: &[
        OptionDoc {
            name: "rule",
            default: "\"rescale\"",
            doc: "How a change goes back through a curve: `rescale`, as a whole, or `reveal-cancel`, what raises a unit apart from \
                  what lowers it.",
        },
        OptionDoc {
            name: "maximum",
            default: "\"change\"",
            doc: "What a maximum hands back: `change`, its change to the element that makes it, or `gradient`, which does not sum \
                  to the difference and is what Captum 0.9.0 computes.",
        },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DeepLift {
    rule: String,
    maximum: String,
}

impl Default for DeepLift {
    fn default() -> Self {
        Self { rule: "rescale".to_owned(), maximum: "change".to_owned() }
    }
}

impl Explainer for DeepLift {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let gradient_of_maxima = match self.maximum.as_str() {
            "change" => false,
            "gradient" => true,
            other => return Err(ExplainError::option("maximum", other, "change or gradient")),
        };
        let reveal_cancel = match self.rule.as_str() {
            "rescale" => false,
            "reveal-cancel" => true,
            other => return Err(ExplainError::option("rule", other, "rescale or reveal-cancel")),
        };
        let mut all = Vec::with_capacity(q.x.len());
        let mut scores = Vec::with_capacity(q.len());
        net.carried(q, &Rule::DeepLift { reveal_cancel, gradient_of_maxima }, false, |i, score, multipliers| {
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

    /// The paper's example, section 3.5.3: the minimum of two inputs as `a − relu(a − b)`, from 0.
    #[test]
    fn of_a_minimum_rescale_sees_one_input_and_reveal_cancel_both() {
        let model = network(&[2], 1, |f, x| {
            let w = stored(f, "w", &[2, 1], &[1.0, -1.0]);
            let h = f.node("MatMul", "h", &[x, &w], &[]);
            let r = f.node("Relu", "r", &[&h], &[]);
            let v = stored(f, "v", &[2, 1], &[1.0, 0.0]);
            let a = f.node("MatMul", "a", &[x, &v], &[]);
            f.node("Sub", "y", &[&a, &r], &[])
        });
        for [a, b] in [[3.0, 1.0], [1.0, 3.0], [2.0, 2.0]] {
            let less = f32::min(a, b);
            let found = attributions("deep-lift", &model, &[[a, b]], "rule = \"reveal-cancel\"");
            close(&found, &[0.5 * less, 0.5 * less], 1e-6);
            let found = attributions("deep-lift", &model, &[[a, b]], "");
            close(&found, &if a > b { [0.0, b] } else { [a, 0.0] }, 1e-6);
        }
    }

    /// The authors' test of a dense layer (`test_revealcancel_dense.py` of their repository): from a bias of 1 the unit rises by 6
    /// and falls by 4.
    #[test]
    fn reveal_cancel_gives_the_authors_values() {
        let w = [1.0, -2.0, -3.0, 4.0];
        let wanted = [2.5 / 4.0, 4.5 / 6.0 * 2.0, 2.5 / 4.0 * 3.0, 4.5 / 6.0 * 4.0];
        let signs = [-1.0, 1.0, -1.0, 1.0];
        let wanted: Vec<f32> = wanted.iter().zip(signs).map(|(v, s)| v * s).collect();
        // The same unit with its bias in the product, in a sum of its own, and behind a scale.
        for form in 0..3 {
            let model = network(&[4], 1, |f, x| {
                let scaled: Vec<f32> = w.iter().map(|v| if form == 2 { -0.5 * v } else { *v }).collect();
                let w = stored(f, "w", &[4, 1], &scaled);
                let b = stored(f, "b", &[1], &[1.0]);
                let h = match form {
                    0 => f.node("Gemm", "h", &[x, &w, &b], &[]),
                    1 => {
                        let p = f.node("MatMul", "p", &[x, &w], &[]);
                        f.node("Add", "h", &[&p, &b], &[])
                    }
                    _ => {
                        let s = stored(f, "s", &[1], &[-2.0]);
                        let p = f.node("MatMul", "p", &[x, &w], &[]);
                        let p = f.node("Mul", "m", &[&p, &s], &[]);
                        f.node("Add", "h", &[&p, &b], &[])
                    }
                };
                f.node("Relu", "y", &[&h], &[])
            });
            let found = attributions("deep-lift", &model, &[[-1.0, -1.0, 1.0, 1.0]], "rule = \"reveal-cancel\"");
            close(&found, &wanted, 1e-6);
        }
    }

    /// The rules of sections 3.5.1 and 3.5.3 written out, with both parts of every unit's change and both multipliers.
    #[test]
    fn reveal_cancel_is_the_naive_one() {
        let sizes = [5, 6, 4, 1];
        let weights: Vec<Vec<f32>> =
            (0..3).map(|l| (0..sizes[l] * sizes[l + 1]).map(|i| ((i + 7 * l) as f32 * 1.7).sin()).collect()).collect();
        let biases: Vec<Vec<f32>> =
            (0..3).map(|l| (0..sizes[l + 1]).map(|i| ((i + l) as f32 * 0.9).cos() * 0.3).collect()).collect();
        let curves: [fn(f64) -> f64; 3] = [|v| v.max(0.0), f64::tanh, |v| v];
        let model = network(&[5], 1, |f, x| {
            let mut h = x.to_owned();
            for l in 0..3 {
                let w = stored(f, &format!("w{l}"), &[sizes[l], sizes[l + 1]], &weights[l]);
                let b = stored(f, &format!("b{l}"), &[sizes[l + 1]], &biases[l]);
                h = f.node("Gemm", &format!("h{l}"), &[&h, &w, &b], &[]);
                if l < 2 {
                    h = f.node(["Relu", "Tanh"][l], &format!("r{l}"), &[&h], &[]);
                }
            }
            h
        });
        let (x, base) = ([0.7f32, -1.2, 0.4, 2.0, -0.3], [0.1f32, 0.2, -0.3, 0.0, 0.5]);
        // Forward: reference, change, and the parts of what goes into each curve.
        let layer = |l: usize, v: &[f64]| -> Vec<f64> {
            let column =
                |o: usize| (0..sizes[l]).map(|i| v[i] * f64::from(weights[l][i * sizes[l + 1] + o])).sum::<f64>();
            (0..sizes[l + 1]).map(|o| column(o) + f64::from(biases[l][o])).collect()
        };
        let mut at = [x.map(f64::from).to_vec(), base.map(f64::from).to_vec()];
        let (mut changes, mut shares) = (Vec::new(), Vec::new());
        for l in 0..3 {
            let change: Vec<f64> = at[0].iter().zip(&at[1]).map(|(a, b)| a - b).collect();
            let into = [layer(l, &at[0]), layer(l, &at[1])];
            let f = curves[l];
            let share: Vec<[f64; 2]> = (0..sizes[l + 1])
                .map(|o| {
                    let (mut up, mut down) = (0.0, 0.0);
                    for i in 0..sizes[l] {
                        let c = change[i] * f64::from(weights[l][i * sizes[l + 1] + o]);
                        if c > 0.0 { up += c } else { down += c }
                    }
                    let b = into[1][o];
                    let rise = 0.5 * (f(b + up) - f(b)) + 0.5 * (f(b + up + down) - f(b + down));
                    let fall = 0.5 * (f(b + down) - f(b)) + 0.5 * (f(b + up + down) - f(b + up));
                    [if up == 0.0 { 0.0 } else { rise / up }, if down == 0.0 { 0.0 } else { fall / down }]
                })
                .collect();
            changes.push(change);
            shares.push(share);
            at = into.map(|v| v.into_iter().map(f).collect());
        }
        // Back: the multiplier of an element is that of the part that it adds to.
        let mut m = vec![1.0];
        for l in (0..3).rev() {
            let one = |i: usize| {
                (0..sizes[l + 1])
                    .map(|o| {
                        let w = f64::from(weights[l][i * sizes[l + 1] + o]);
                        w * m[o] * shares[l][o][usize::from(w * changes[l][i] <= 0.0)]
                    })
                    .sum()
            };
            m = (0..sizes[l]).map(one).collect();
        }
        let wanted: Vec<f32> = m.iter().zip(&changes[0]).map(|(m, d)| (m * d) as f32).collect();
        let t = Tensor::f32(vec![1, 5], x.to_vec()).unwrap();
        let mut q = Question::new(t.clone(), vec![0]).unwrap();
        q.baseline = Tensor::f32(vec![1, 5], base.to_vec()).unwrap();
        let e = answer("deep-lift", &net_of(&model, &t), &q, "rule = \"reveal-cancel\"");
        close(e.attributions.as_f32().unwrap(), &wanted, 1e-5);
        // It is not the other rule in disguise.
        let other = answer("deep-lift", &net_of(&model, &t), &q, "");
        let far = other.attributions.as_f32().unwrap().iter().zip(&wanted).map(|(a, b)| (a - b).abs());
        assert!(far.fold(0.0, f32::max) > 0.05);
    }

    #[test]
    fn it_is_complete_on_every_golden_network() {
        for rule in ["rescale", "reveal-cancel"] {
            for name in ["cnn", "resnet", "vit", "mobilenet"] {
                let Some((model, x, labels)) = golden_network(name, 4) else { return };
                let e = ask("deep-lift", &net_of(&model, &x), x, labels, &format!("rule = \"{rule}\""));
                for (delta, difference) in e.delta.unwrap().iter().zip(e.difference.unwrap()) {
                    assert!(delta.abs() <= 1e-4 * difference.abs().max(1.0), "{rule} {name}: {delta} of {difference}");
                }
            }
        }
    }

    #[test]
    fn an_unknown_rule_is_refused() {
        let model = linear(&[1.0], 0.0);
        let x = Tensor::f32(vec![1, 1], vec![1.0]).unwrap();
        let method = super::DeepLift { rule: "reveal".to_owned(), ..super::DeepLift::default() };
        let q = Question::new(x.clone(), vec![0]).unwrap();
        let e = crate::interpretability::Explainer::explain(&method, &net_of(&model, &x), &q).unwrap_err();
        assert!(e.to_string().contains("rescale or reveal-cancel"), "{e}");
    }
}
