//! Adaptive diversity promoting: networks of an ensemble learn together to disagree about everything but the true class.
//! Pang, Xu, Du, Chen and Zhu, ICML 2019, arXiv:1901.08846, equations 4 to 7; weights 2 and 0.5 are theirs. Checked against:
//! differences of the definition. Weak always: an attack on the mean breaks it nearly as well (Tramèr, Carlini, Brendel and
//! Madry, NeurIPS 2020, arXiv:2002.08347, section 13).

use netproof_audit::{AuditError, Candidate, Case, Change, Context, Making, Remedy, Retraining, Rewrite};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_graph::{Mean, Model, Parameters, Request, Wrt};
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;
use netproof_train::{Batch, Entry, Gradient, GradientRule, Method, Step, Target, TrainError, evaluate};
use serde::{Deserialize, Serialize};

use super::training::divergence::log_softmax;

pub(crate) static CARD: Card = Card {
    id: "diverse-ensemble",
    version: 1,
    kind: CardKind::Remedy,
    title: "Diverse ensemble",
    challenge: Challenge::Adversarial,
    measures: "Trains several networks as one, so that they disagree about all classes but the true one, and answers with \
               their mean. Offered because it is asked for; an attack on the mean finds nearly as much.",
    reference: "Pang, Xu, Du, Chen and Zhu, ICML 2019, arXiv:1901.08846",
    needs: &[Need::Training, Need::Classifier],
    options: &[
        OptionDoc { name: "members", default: "3", doc: "Networks, 2 to 10, fewer than there are classes." },
        OptionDoc { name: "entropy", default: "2.0", doc: "Weight of the entropy of the mean, 0 or more." },
        OptionDoc { name: "diversity", default: "0.5", doc: "Weight of the logarithm of the diversity, 0 or more." },
    ],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DiverseEnsemble {
    members: usize,
    entropy: f64,
    diversity: f64,
}

impl Default for DiverseEnsemble {
    /// The paper's choice.
    fn default() -> Self {
        Self { members: 3, entropy: 2.0, diversity: 0.5 }
    }
}

impl Remedy for DiverseEnsemble {
    fn goals(&self) -> &'static [&'static str] {
        &["robust"]
    }

    fn propose(&self, _: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        let members = self.members;
        if !(2..=10).contains(&members) {
            let message = format!("`members` is {members}; allowed: 2 to 10");
            return Err(AuditError::Option { id: CARD.id.to_owned(), message });
        }
        let method = Method::new(RULE.id).with("entropy", self.entropy).with("diversity", self.diversity);
        let registry = crate::training_registry();
        registry.rules.build(&method, &registry)?;
        let mut gradient = method.options;
        gradient.insert("kind".to_owned(), RULE.id.into());
        let before =
            Rewrite::new(format!("is {members} networks with weights of their own, averaged"), move |m, seed| {
                ensemble(m, members, seed)
            });
        Ok(vec![Candidate {
            name: format!("diverse-{members}"),
            what: format!("Trains {members} networks to disagree about wrong classes, and answers with their mean."),
            making: Making::Train(Retraining {
                before: Some(before),
                ..Retraining::new([Change::set("gradient", gradient)])
            }),
        }])
    }
}

/// Copies of a network with fresh weights, averaged over their softmax.
/// # Errors
/// The network cannot be copied or put together.
pub(crate) fn ensemble(model: &Model, members: usize, seed: u64) -> Result<Model, AuditError> {
    let one = |i: usize| -> Result<Model, AuditError> {
        let mut copy = Model::from_file(model.to_file()?)?;
        copy.reinitialise(Rng::stream(seed, i as u64 + 1).next_u64())?;
        Ok(copy)
    };
    let all = (0..members).map(one).collect::<Result<Vec<_>, _>>()?;
    Ok(Model::ensemble(&all.iter().collect::<Vec<_>>(), Mean::Softmax)?)
}

pub(super) const RULE: Entry<dyn GradientRule> = Entry {
    id: "diversity",
    summary: "adaptive diversity promoting for ensembles in one network (Pang et al. 2019): `entropy`, `diversity`",
    build: |options, _| {
        let own: Diversity = options.read()?;
        for (name, value) in [("entropy", own.entropy), ("diversity", own.diversity)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(TrainError::Option { name, value: value.to_string(), allowed: "0 or more" });
            }
        }
        Ok(Box::new(own))
    },
};

/// Keeps the determinant above 0, as in the authors' program.
const RIDGE: f64 = 1e-6;

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Diversity {
    entropy: f64,
    diversity: f64,
}

impl Default for Diversity {
    fn default() -> Self {
        Self { entropy: 2.0, diversity: 0.5 }
    }
}

/// Logits of the members: what goes into the softmax of each term of a mean.
fn members(model: &Model) -> Option<Vec<String>> {
    let nodes: Vec<_> = model.nodes().collect();
    let mean = nodes.iter().rev().find(|n| n.operator == "Mean" && n.inputs.len() > 1)?;
    let logits = |term: &String| {
        let link = nodes.iter().find(|n| n.operator == "Softmax" && n.outputs.contains(term))?;
        link.inputs.first().cloned()
    };
    mean.inputs.iter().map(logits).collect()
}

impl GradientRule for Diversity {
    fn gradient(&mut self, step: &mut Step<'_>, batch: &Batch) -> Result<Gradient, TrainError> {
        let Some(names) = members(step.net.model()) else {
            let message =
                "`diversity` needs an ensemble: a network that answers with the mean of the softmax of several";
            return Err(TrainError::Mismatch { message: message.to_owned() });
        };
        let weights = &step.net.weights;
        let mut inputs = vec![(step.net.input().to_owned(), batch.features.clone())];
        inputs.extend(weights.names().iter().cloned().zip(weights.tensors().iter().cloned()));
        let run = step.net.model().forward(&Request {
            inputs,
            taps: names.clone(),
            training: Some(step.seed),
            wrt: Wrt { values: Vec::new(), parameters: Parameters::Named(step.active.to_vec()) },
            ..Request::default()
        })?;
        let (mut sums, _) = evaluate(step.objective, &run.output(step.net.output())?, batch)?;
        (sums.loss, sums.weight) = (0.0, 0.0);
        let answers = names.iter().map(|n| run.output(n)).collect::<Result<Vec<_>, _>>()?;
        let k = answers.first().map_or(0, Tensor::row_len);
        let mut slopes: Vec<Vec<f32>> = answers.iter().map(|a| Vec::with_capacity(a.len())).collect();
        for row in 0..batch.len() {
            let Target::Class(y) = batch.targets.row(row) else {
                let message = "`diversity` needs a class per row; leave out augmentations that mix rows".to_owned();
                return Err(TrainError::Mismatch { message });
            };
            let weight = batch.weight(row);
            let z: Vec<&[f32]> =
                answers.iter().map(|a| &a.as_f32().unwrap_or_default()[row * k..(row + 1) * k]).collect();
            let (loss, own) = self.row(&z, y);
            sums.loss += weight * loss;
            sums.weight += weight;
            for (all, own) in slopes.iter_mut().zip(own) {
                all.extend(own.iter().map(|s| (weight * s) as f32));
            }
        }
        let seeds = answers
            .iter()
            .zip(slopes)
            .map(|(a, s)| Tensor::f32(a.shape().to_vec(), s))
            .collect::<Result<Vec<_>, _>>()?;
        let pairs: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(&seeds).collect();
        let mut gradients = run.backward(&pairs)?;
        let trained = &step.net.weights.names()[..step.net.weights.trainable()];
        let tensors = trained.iter().map(|n| gradients.take(n)).collect();
        Ok(Gradient { tensors, sums, statistics: run.updates()? })
    }
}

impl Diversity {
    /// `Σ_k −log p^k_y − α H(mean p) − β log det(M̃ᵀ M̃)` of a row, and its slopes with respect to the members' logits.
    fn row(&self, logits: &[&[f32]], y: usize) -> (f64, Vec<Vec<f64>>) {
        let count = logits.len();
        let logs: Vec<Vec<f64>> = logits.iter().map(|z| log_softmax(z)).collect();
        let p: Vec<Vec<f64>> = logs.iter().map(|l| l.iter().map(|l| l.exp()).collect()).collect();
        let classes = p.first().map_or(0, Vec::len);
        let mean: Vec<f64> = (0..classes).map(|i| p.iter().map(|p| p[i]).sum::<f64>() / count as f64).collect();
        let log = |v: f64| v.max(1e-20).ln();
        let entropy: f64 = -mean.iter().map(|f| f * log(*f)).sum::<f64>();
        // Predictions without the true class, of length 1.
        let lengths: Vec<f64> = p.iter().map(|p| others(p, y).map(|v| v * v).sum::<f64>().sqrt().max(1e-20)).collect();
        let unit: Vec<Vec<f64>> = p.iter().zip(&lengths).map(|(p, l)| others(p, y).map(|v| v / l).collect()).collect();
        let gram = |a: usize, b: usize| -> f64 {
            unit[a].iter().zip(&unit[b]).map(|(x, y)| x * y).sum::<f64>() + if a == b { RIDGE } else { 0.0 }
        };
        let matrix: Vec<Vec<f64>> = (0..count).map(|a| (0..count).map(|b| gram(a, b)).collect()).collect();
        let (log_det, inverse) = log_det_and_inverse(matrix);
        let loss = -logs.iter().map(|l| l[y]).sum::<f64>() - self.entropy * entropy - self.diversity * log_det;
        let slopes = (0..count)
            .map(|a| {
                // With respect to the normalised predictions: 2 M̃ (M̃ᵀ M̃)⁻¹.
                let to_unit: Vec<f64> =
                    (0..classes).map(|i| 2.0 * (0..count).map(|b| inverse[a][b] * unit[b][i]).sum::<f64>()).collect();
                let along: f64 = to_unit.iter().zip(&unit[a]).map(|(s, u)| s * u).sum();
                let to_p: Vec<f64> = (0..classes)
                    .map(|i| {
                        let diverse = if i == y { 0.0 } else { (to_unit[i] - along * unit[a][i]) / lengths[a] };
                        self.entropy * (log(mean[i]) + 1.0) / count as f64 - self.diversity * diverse
                    })
                    .collect();
                let average: f64 = to_p.iter().zip(&p[a]).map(|(s, p)| s * p).sum();
                (0..classes).map(|i| p[a][i] * (to_p[i] - average) + p[a][i] - f64::from(u8::from(i == y))).collect()
            })
            .collect();
        (loss, slopes)
    }
}

/// The entries but for one, which counts as 0.
fn others(p: &[f64], y: usize) -> impl Iterator<Item = f64> + '_ {
    p.iter().enumerate().map(move |(i, &v)| if i == y { 0.0 } else { v })
}

/// Of a symmetric positive matrix, by elimination.
fn log_det_and_inverse(mut a: Vec<Vec<f64>>) -> (f64, Vec<Vec<f64>>) {
    let n = a.len();
    let mut inverse: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    let mut log_det = 0.0;
    for c in 0..n {
        let pivot = a[c][c].max(1e-300);
        log_det += pivot.ln();
        for j in 0..n {
            a[c][j] /= pivot;
            inverse[c][j] /= pivot;
        }
        for r in (0..n).filter(|&r| r != c) {
            let factor = a[r][c];
            for j in 0..n {
                a[r][j] -= factor * a[c][j];
                inverse[r][j] -= factor * inverse[c][j];
            }
        }
    }
    (log_det, inverse)
}

#[cfg(test)]
mod tests {
    use netproof_graph::builders::{Activation, mlp};
    use netproof_train::Net;

    use super::super::training::test_support::{build_rule, flat, rows, with_step_mut};
    use super::*;

    #[test]
    fn slopes_are_those_of_the_definition() {
        let own = Diversity { entropy: 2.0, diversity: 0.5 };
        let z = [[0.3f32, -0.2, 0.9, 0.1, -0.5], [1.0, 0.4, -0.3, 0.2, 0.0], [-0.1, 0.8, 0.3, -0.9, 0.6]];
        let at = |z: &[[f32; 5]; 3]| own.row(&z.each_ref().map(|z| z.as_slice()), 2);
        let (_, slopes) = at(&z);
        for a in 0..3 {
            for i in 0..5 {
                let moved = |d: f32| {
                    let mut z = z;
                    z[a][i] += d;
                    at(&z).0
                };
                let want = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                assert!((slopes[a][i] - want).abs() < 2e-3 * (1.0 + want.abs()), "{a} {i}: {} {want}", slopes[a][i]);
            }
        }
    }

    #[test]
    fn determinants_and_inverses_match() {
        let (log_det, inverse) = log_det_and_inverse(vec![vec![2.0, 0.5], vec![0.5, 1.0]]);
        assert!((log_det - 1.75f64.ln()).abs() < 1e-12);
        assert!((inverse[0][0] - 1.0 / 1.75).abs() < 1e-12 && (inverse[0][1] + 0.5 / 1.75).abs() < 1e-12);
    }

    #[test]
    fn gradients_reach_the_weights_of_every_member() {
        let model = mlp(&[2], &[4], 4, Activation::Tanh, 3).unwrap();
        let model = ensemble(&model, 3, 5).unwrap();
        let (batch, _) = rows(6, 2, 4);
        let net = || Net::new(Model::from_file(model.to_file().unwrap()).unwrap(), true).unwrap();
        let at = |change: Option<(usize, usize, f32)>| {
            let mut net = net();
            if let Some((t, i, d)) = change {
                net.weights.values_mut(t)[i] += d;
            }
            with_step_mut(net, 1, |step| build_rule(&Method::new("diversity")).gradient(step, &batch).unwrap())
        };
        let got = at(None);
        assert_eq!(flat(&got).len(), 3 * (2 * 4 + 4 + 4 * 4 + 4));
        for t in 0..got.tensors.len() {
            let slope = f64::from(got.tensors[t].as_ref().unwrap().as_f32().unwrap()[0]);
            let want = (at(Some((t, 0, 5e-4))).sums.loss - at(Some((t, 0, -5e-4))).sums.loss) / 1e-3;
            assert!((slope - want).abs() < 0.02 * (1.0 + want.abs()), "{t}: {slope} {want}");
        }
    }

    #[test]
    fn single_networks_are_refused() {
        let net = Net::new(mlp(&[2], &[4], 3, Activation::Tanh, 3).unwrap(), true).unwrap();
        let (batch, _) = rows(3, 2, 3);
        let error = with_step_mut(net, 1, |step| {
            build_rule(&Method::new("diversity")).gradient(step, &batch).unwrap_err().to_string()
        });
        assert!(error.contains("needs an ensemble"), "{error}");
    }
}
