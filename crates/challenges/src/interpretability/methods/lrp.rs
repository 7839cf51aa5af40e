//! Layer-wise relevance propagation: the score is handed back from layer to layer in proportion to what each element gave.
//! Bach et al., PLoS ONE 10(7), 2015; composites as in Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10, section 10.4, and
//! Kohlbrenner et al. 2020, arXiv:1910.09840; attention as in AttnLRP (Achtibat et al., ICML 2024, arXiv:2402.05602). Checked
//! against: the printed values of Captum's tests, equality with input × gradient for rule 0 on rectifier networks without bias,
//! conservation on all golden networks.
//!
//! Relevance starts as the score itself and is conserved but for what biases, constants and the stabiliser take: that is the
//! delta, and a note names the nodes that took most. The rules per operator: `rules/lrp.rs` of `netproof-graph`. Batch
//! normalisation is folded into the layer before it where that can be done.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_graph::{LinearRule, LrpRules, Rule};
use serde::{Deserialize, Serialize};

use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "lrp",
    version: 1,
    kind: CardKind::Explanation,
    title: "Layer-wise relevance propagation",
    challenge: Challenge::Interpretability,
    measures: "The score, handed back layer by layer to the elements it came from. Relevance is conserved but for biases.",
    reference: "Bach, Binder, Montavon, Klauschen, Müller and Samek, PLoS ONE 10(7), 2015; Montavon et al. 2019, section 10.4",
    needs: &[Need::InputGradient],
    options: &[
        OptionDoc {
            name: "composite",
            default: "\"epsilon-plus\"",
            doc: "Rules of first layer, convolutions and products: `zero`, `epsilon`, `gamma`, `z-plus` (one rule for all), \
                  `epsilon-plus` (z+ in convolutions, ε in products), `epsilon-gamma-box` (zB, γ, ε), `epsilon-plus-box` (zB, z+, ε).",
        },
        OptionDoc { name: "epsilon", default: "1e-6", doc: "ε of the rule ε, at least 0." },
        OptionDoc { name: "gamma", default: "0.25", doc: "γ of the rule γ, at least 0." },
        OptionDoc { name: "low", default: "0.0", doc: "Lowest value of an input, for zB." },
        OptionDoc { name: "high", default: "1.0", doc: "Highest value of an input, for zB; above low." },
        OptionDoc {
            name: "nodes",
            default: "[]",
            doc: "Rules of nodes by name, as \"NODE=RULE\" with RULE one of zero, epsilon, gamma, z-plus, z-box, identity; a number may follow: \"NODE=gamma 1\".",
        },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Lrp {
    composite: String,
    epsilon: f32,
    gamma: f32,
    low: f32,
    high: f32,
    nodes: Vec<String>,
}

impl Default for Lrp {
    fn default() -> Self {
        Self {
            composite: "epsilon-plus".to_owned(),
            epsilon: 1e-6,
            gamma: 0.25,
            low: 0.0,
            high: 1.0,
            nodes: Vec::new(),
        }
    }
}

impl Lrp {
    fn rules(&self) -> Result<LrpRules, ExplainError> {
        if !(self.epsilon >= 0.0 && self.epsilon.is_finite()) {
            return Err(ExplainError::option("epsilon", self.epsilon, "at least 0"));
        }
        if !(self.gamma >= 0.0 && self.gamma.is_finite()) {
            return Err(ExplainError::option("gamma", self.gamma, "at least 0"));
        }
        if self.low.partial_cmp(&self.high) != Some(std::cmp::Ordering::Less) {
            return Err(ExplainError::option("high", self.high, "above low"));
        }
        let (epsilon, gamma) = (LinearRule::Epsilon(self.epsilon), LinearRule::Gamma(self.gamma));
        let bounds = LinearRule::ZBox { low: self.low, high: self.high };
        let [first, convolution, dense] = match self.composite.as_str() {
            "zero" => [LinearRule::Zero; 3],
            "epsilon" => [epsilon; 3],
            "gamma" => [gamma; 3],
            "z-plus" => [LinearRule::ZPlus; 3],
            // A first layer is a convolution or a product as any other; its operator decides below.
            "epsilon-plus" => [LinearRule::ZPlus, LinearRule::ZPlus, epsilon],
            "epsilon-gamma-box" => [bounds, gamma, epsilon],
            "epsilon-plus-box" => [bounds, LinearRule::ZPlus, epsilon],
            other => {
                return Err(ExplainError::option(
                    "composite",
                    other,
                    "zero, epsilon, gamma, z-plus, epsilon-plus, epsilon-gamma-box or epsilon-plus-box",
                ));
            }
        };
        let nodes = self.nodes.iter().map(|text| self.node(text)).collect::<Result<_, _>>()?;
        let stabiliser = if self.composite == "zero" { 0.0 } else { self.epsilon };
        Ok(LrpRules { first, convolution, dense, nodes, epsilon: stabiliser })
    }

    fn node(&self, text: &str) -> Result<(String, LinearRule), ExplainError> {
        let refuse = || {
            ExplainError::option("nodes", text, "NODE=RULE with RULE zero, epsilon, gamma, z-plus, z-box or identity")
        };
        let (name, rule) = text.rsplit_once('=').ok_or_else(refuse)?;
        let (rule, number) = rule.split_once(' ').map_or((rule, None), |(r, n)| (r, Some(n)));
        let number = number.map(|n| n.trim().parse::<f32>().map_err(|_| refuse())).transpose()?;
        let rule = match rule {
            "zero" => LinearRule::Zero,
            "epsilon" => LinearRule::Epsilon(number.unwrap_or(self.epsilon)),
            "gamma" => LinearRule::Gamma(number.unwrap_or(self.gamma)),
            "z-plus" => LinearRule::ZPlus,
            "z-box" => LinearRule::ZBox { low: self.low, high: self.high },
            "identity" => LinearRule::Identity,
            _ => return Err(refuse()),
        };
        Ok((name.to_owned(), rule))
    }
}

impl Explainer for Lrp {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let mut rules = self.rules()?;
        if let Some((name, _)) = rules.nodes.iter().find(|(name, _)| !net.model().nodes().any(|n| n.name == *name)) {
            return Err(ExplainError::not_applicable(format!("nodes: the network has no node `{name}`")));
        }
        let first_is_dense =
            net.made().iter().find(|m| is_layer(&m.operator)).is_some_and(|m| !m.operator.starts_with("Conv"));
        if self.composite == "epsilon-plus" && first_is_dense {
            rules.first = rules.dense;
        }
        if net.made().iter().any(|m| m.operator == "BatchNormalization")
            && let Ok((folded, _)) = net.model().fold_batch_norm()
        {
            return relevance(&net.on(&folded), q, rules);
        }
        relevance(net, q, rules)
    }
}

fn is_layer(operator: &str) -> bool {
    matches!(operator, "Conv" | "ConvTranspose" | "Gemm" | "MatMul")
}

fn relevance(net: &Explained<'_>, q: &Question, rules: LrpRules) -> Result<Explanation, ExplainError> {
    let mut all = Vec::with_capacity(q.x.len());
    let mut scores = Vec::with_capacity(q.len());
    let mut kept = net.carried(q, &Rule::Lrp(rules), true, |_, score, arrived| {
        scores.push(score);
        all.extend_from_slice(arrived);
    })?;
    let e = Explanation::of_input(net, q.len(), all)?.complete(scores);
    kept.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    if kept.is_empty() {
        return Ok(e);
    }
    let most: Vec<String> = kept.iter().take(5).map(|(name, amount)| format!("{name} {amount:+.4}")).collect();
    Ok(e.note(format!(
        "relevance that biases, constants and the stabiliser took, over all rows, most first: {}",
        most.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use netproof_graph::{Attribute, Model};
    use netproof_tensor::Tensor;

    use crate::interpretability::test_support::{
        ask, attributions, close, golden_network, net_of, network, run, stored,
    };

    /// Captum's simple network: 3 → 3 with weights 2 (the first one `corner`), rectifier, 3 → 1 with weights 3.
    fn simple(corner: f32) -> Model {
        network(&[3], 1, |f, x| {
            let w = stored(f, "w", &[3, 3], &[corner, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
            let h = f.node("MatMul", "linear", &[x, &w], &[]);
            let r = f.node("Relu", "relu", &[&h], &[]);
            let v = stored(f, "v", &[3, 1], &[3.0; 3]);
            f.node("MatMul", "linear2", &[&r, &v], &[])
        })
    }

    #[test]
    fn it_gives_the_printed_values_of_captums_tests() {
        let rows = [[1.0, 2.0, 3.0], [3.0, 6.0, 9.0]];
        let e = run("lrp", &simple(2.0), &rows, "composite = \"epsilon\"");
        close(e.attributions.as_f32().unwrap(), &[18.0, 36.0, 54.0, 54.0, 108.0, 162.0], 1e-6);
        assert!(e.delta.unwrap().iter().all(|d| d.abs() < 1e-3));
        let one = [[1.0, 2.0, 3.0]];
        let gamma = "nodes = [\"linear=gamma 1\", \"linear2=gamma\"]";
        close(&attributions("lrp", &simple(-2.0), &one, gamma), &[28.0 / 3.0, 104.0 / 3.0, 52.0], 1e-6);
        close(&attributions("lrp", &simple(-2.0), &one, "composite = \"z-plus\""), &[12.0, 33.6, 50.4], 1e-6);
        let identity = "composite = \"epsilon\"\nnodes = [\"linear=identity\"]";
        close(&attributions("lrp", &simple(-2.0), &one, identity), &[24.0, 36.0, 36.0], 1e-6);
    }

    #[test]
    fn a_tanh_hands_relevance_through() {
        let model = network(&[3], 1, |f, x| {
            let w = stored(f, "w", &[3, 3], &[0.1; 9]);
            let h = f.node("MatMul", "linear", &[x, &w], &[]);
            let r = f.node("Tanh", "tanh", &[&h], &[]);
            let v = stored(f, "v", &[3, 1], &[0.1; 3]);
            f.node("MatMul", "y", &[&r, &v], &[])
        });
        let found = attributions("lrp", &model, &[[1.0, 2.0, 3.0]], "composite = \"epsilon\"");
        close(&found, &[0.0269, 0.0537, 0.0806], 1e-3);
    }

    #[test]
    fn a_residual_sum_doubles_nothing() {
        // y = 5 (x0 + x1) + x, target 1, at (2, 3).
        let model = network(&[2], 2, |f, x| {
            let w = stored(f, "w", &[2, 2], &[5.0; 4]);
            let h = f.node("MatMul", "linear", &[x, &w], &[]);
            f.node("Add", "y", &[&h, x], &[])
        });
        let x = Tensor::f32(vec![1, 2], vec![2.0, 3.0]).unwrap();
        let e = ask("lrp", &net_of(&model, &x), x, vec![1], "composite = \"epsilon\"");
        close(e.attributions.as_f32().unwrap(), &[10.0, 18.0], 1e-6);
        assert!(e.delta.unwrap()[0].abs() < 1e-4);
    }

    #[test]
    fn a_maximum_takes_it_all() {
        let model = network(&[1, 2, 2], 1, |f, x| {
            let p = f.node("MaxPool", "p", &[x], &[("kernel_shape", Attribute::Ints(vec![2, 2]))]);
            f.node("Flatten", "y", &[&p], &[])
        });
        let x = Tensor::f32(vec![1, 1, 2, 2], vec![1.0, 2.0, 5.0, 6.0]).unwrap();
        let e = ask("lrp", &net_of(&model, &x), x, vec![0], "");
        assert_eq!(e.attributions.as_f32().unwrap(), [0.0, 0.0, 0.0, 6.0]);
    }

    #[test]
    fn the_box_rule_keeps_within_its_bounds() {
        // One layer: x ⊙ w − l w⁺ − h w⁻ over its sum, by hand. x = (0.5, 0.2), w = (2, −1), l = 0, h = 1.
        let model = network(&[2], 1, |f, x| {
            let w = stored(f, "w", &[2, 1], &[2.0, -1.0]);
            f.node("MatMul", "y", &[x, &w], &[])
        });
        let found = attributions("lrp", &model, &[[0.5, 0.2]], "composite = \"epsilon-plus-box\"");
        // Contributions 1.0 and −0.2 + 1.0 = 0.8, score 0.8.
        close(&found, &[0.8 * 1.0 / 1.8, 0.8 * 0.8 / 1.8], 1e-6);
    }

    #[test]
    fn without_biases_rule_zero_is_input_x_gradient_and_conserves() {
        let model = network(&[1, 4, 4], 2, |f, x| {
            let values: Vec<f32> = (0..18).map(|i| ((i * 7 % 11) as f32 - 5.0) * 0.3).collect();
            let w = stored(f, "w", &[2, 1, 3, 3], &values);
            let h = f.node("Conv", "conv", &[x, &w], &[("pads", Attribute::Ints(vec![1, 1, 1, 1]))]);
            let r = f.node("Relu", "relu", &[&h], &[]);
            let p = f.node(
                "MaxPool",
                "pool",
                &[&r],
                &[("kernel_shape", Attribute::Ints(vec![2, 2])), ("strides", Attribute::Ints(vec![2, 2]))],
            );
            let flat = f.node("Flatten", "flat", &[&p], &[]);
            let values: Vec<f32> = (0..16).map(|i| ((i * 5 % 7) as f32 - 3.0) * 0.2).collect();
            let v = stored(f, "v", &[8, 2], &values);
            f.node("MatMul", "y", &[&flat, &v], &[])
        });
        let x = Tensor::f32(vec![2, 1, 4, 4], (0..32).map(|i| (i as f32 * 0.9).sin()).collect()).unwrap();
        let net = net_of(&model, &x);
        let e = ask("lrp", &net, x.clone(), vec![0, 1], "composite = \"zero\"");
        let g = ask("input-x-gradient", &net, x, vec![0, 1], "");
        close(e.attributions.as_f32().unwrap(), g.attributions.as_f32().unwrap(), 1e-5);
        for (d, f) in e.delta.unwrap().iter().zip(e.difference.unwrap()) {
            assert!(d.abs() <= 1e-4 * f.abs(), "{d} of {f}");
        }
    }

    #[test]
    fn what_is_missing_is_what_nodes_are_said_to_have_kept() {
        for name in ["cnn", "resnet", "vit", "mobilenet"] {
            let Some((model, x, labels)) = golden_network(name, 2) else { return };
            for composite in ["epsilon", "epsilon-plus", "epsilon-gamma-box"] {
                let e =
                    ask("lrp", &net_of(&model, &x), x.clone(), labels.clone(), &format!("composite = \"{composite}\""));
                let values = e.attributions.as_f32().unwrap();
                assert!(values.iter().all(|v| v.is_finite()), "{name} {composite}");
            }
        }
    }
}
