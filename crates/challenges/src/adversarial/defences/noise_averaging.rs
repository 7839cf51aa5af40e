//! The mean answer over noisy copies of a row: training with Gaussian noise, and a network that looks at several copies.
//! Cohen, Rosenfeld and Kolter, ICML 2019, arXiv:1902.02918, sections 3 and 3.3 (training with noise); as a plain defence
//! Liu et al., ECCV 2018, arXiv:1712.00673. Checked against: a naive mean over the same copies.
//! Differs from the papers: the noise is drawn once and stored, so that the network is an ordinary one that answers the same
//! every time; probabilities are averaged, not votes. What is proved about the smoothed classifier itself is the check
//! `certified-accuracy`'s; this network is only near it. Weak when: an attacker takes gradients through all copies, as every
//! attack here does; what is gained is what training with noise gains.

use netproof_audit::{AuditError, Candidate, Case, Change, Context, Making, Remedy, Retraining, Rewrite};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_graph::{Attribute, Dim, Model, NewNode};
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

pub(crate) static CARD: Card = Card {
    id: "noise-averaging",
    version: 1,
    kind: CardKind::Remedy,
    title: "Training with noise and averaging over noisy copies",
    challenge: Challenge::Adversarial,
    measures: "Trains the network anew with Gaussian noise, and lets it answer with the mean over several noisy copies of a \
               row.",
    reference: "Cohen, Rosenfeld and Kolter, ICML 2019, arXiv:1902.02918; Liu et al., ECCV 2018, arXiv:1712.00673",
    needs: &[Need::Training, Need::Classifier],
    options: &[
        OptionDoc {
            name: "sigma",
            default: "[0.25]",
            doc: "Standard deviations of the noise in units of the features, each a candidate, over 0.",
        },
        OptionDoc { name: "copies", default: "8", doc: "Noisy copies of a row, 1 to 64; the cost grows with them." },
    ],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NoiseAveraging {
    sigma: Vec<f64>,
    copies: usize,
}

impl Default for NoiseAveraging {
    fn default() -> Self {
        Self { sigma: vec![0.25], copies: 8 }
    }
}

impl Remedy for NoiseAveraging {
    fn goals(&self) -> &'static [&'static str] {
        &["robust"]
    }

    fn propose(&self, case: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        let wrong = |message: String| AuditError::Option { id: CARD.id.to_owned(), message };
        let copies = self.copies;
        if !(1..=64).contains(&copies) {
            return Err(wrong(format!("`copies` is {copies}; allowed: 1 to 64")));
        }
        if row_of(case.subject.model()).is_err() {
            return Ok(Vec::new());
        }
        let one = |&sigma: &f64| {
            if !(sigma > 0.0 && sigma.is_finite()) {
                return Err(wrong(format!("`sigma` has {sigma}; allowed: numbers over 0")));
            }
            let mut noise = toml::Table::new();
            noise.insert("kind".to_owned(), "noise".into());
            noise.insert("standard_deviation".to_owned(), sigma.into());
            let text = format!("answers with the mean over {copies} copies with noise of {sigma}");
            let after = Rewrite::new(text, move |model, seed| average(model, sigma, copies, seed));
            Ok(Candidate {
                name: format!("noise-{sigma}"),
                what: format!("Trains with noise of {sigma} and averages over {copies} noisy copies."),
                making: Making::Train(Retraining {
                    after: Some(after),
                    ..Retraining::new([Change::push("augmentation", noise)])
                }),
            })
        };
        self.sigma.iter().map(one).collect()
    }
}

/// Shape of a row, and number of classes.
fn row_of(model: &Model) -> Result<(Vec<usize>, usize), String> {
    let (input, output) = match (model.inputs(), model.outputs().first()) {
        ([input], Some(output)) => (input, output),
        _ => return Err("the network needs one input and an output".to_owned()),
    };
    let fixed = |dims: &[Dim]| -> Option<Vec<usize>> {
        dims.iter().map(|d| if let Dim::Fixed(n) = d { Some(*n) } else { None }).collect()
    };
    let shape = |s: &Option<Vec<Dim>>| s.as_deref().and_then(|d| d.get(1..)).and_then(fixed);
    match (shape(&input.shape), shape(&output.shape).as_deref()) {
        (Some(row), Some(&[classes])) if model.fixed_batch().is_none() && !row.is_empty() => Ok((row, classes)),
        _ => Err("the file must declare the shape of rows and answers, and leave the batch open".to_owned()),
    }
}

/// Version of the operator set of the file.
fn opset(model: &Model) -> Result<i64, AuditError> {
    let file = model.to_file()?;
    Ok(file.model.opset_import.iter().find(|o| o.domain().is_empty()).map_or(1, |o| o.version()))
}

/// The network that answers with the logarithm of the mean probability over noisy copies of a row.
/// # Errors
/// The file does not declare its shapes, or the network cannot be rewritten.
pub(crate) fn average(model: &Model, sigma: f64, copies: usize, seed: u64) -> Result<Model, AuditError> {
    let (row, classes) = row_of(model).map_err(|message| AuditError::Mismatch { message })?;
    let (input, output) = (model.inputs()[0].name.clone(), model.outputs()[0].name.clone());
    let softmax = model.producer(&output) == Some("Softmax");
    let len: usize = row.iter().product();
    let mut rng = Rng::named(seed, CARD.id);
    let noise: Vec<f32> = (0..copies * len).map(|_| (sigma * rng.normal()) as f32).collect();
    let noise = Tensor::f32([&[1, copies], &row[..]].concat(), noise)?;
    let as_i64 = |dims: &[usize]| dims.iter().map(|&n| n as i64).collect::<Vec<i64>>();
    // Rows become copies in front of the network, and one again behind it.
    let single = [&[-1, 1], &as_i64(&row)[..]].concat();
    let many = [&[-1], &as_i64(&row)[..]].concat();
    let grouped = vec![-1, copies as i64, classes as i64];
    let name = |part: &str| format!("netproof.defence.{}.{part}", CARD.id);
    let constant = |part: &str, tensor: Tensor| {
        NewNode::new("Constant", &[], &[&name(part)]).named(&name(part)).with("value", Attribute::Tensor(tensor))
    };
    let shape = |part: &str, dims: Vec<i64>| Ok::<_, AuditError>(constant(part, Tensor::i64(vec![dims.len()], dims)?));
    let hold = |model: &Model, value: &str, part: &str| -> Result<(Model, String, String, String), AuditError> {
        let node = NewNode::new("Identity", &[value], &[&name(part)]).named(&name(part));
        let held = model.insert_after(value, node)?;
        let place = held.nodes().find(|n| n.name == name(part));
        let parts = place.and_then(|n| Some((n.name.clone(), n.inputs.first()?.clone(), n.outputs.first()?.clone())));
        let (node, from, to) = parts.ok_or(AuditError::Mismatch { message: format!("nothing uses `{value}`") })?;
        Ok((held, node, from, to))
    };
    let (held, node, from, to) = hold(model, &input, "copies")?;
    let noisy = held.replace_node(
        &node,
        vec![
            shape("single", single)?,
            NewNode::new("Reshape", &[&from, &name("single")], &[&name("apart")]),
            constant("noise", noise),
            NewNode::new("Add", &[&name("apart"), &name("noise")], &[&name("noisy")]),
            shape("many", many)?,
            NewNode::new("Reshape", &[&name("noisy"), &name("many")], &[&to]),
        ],
    )?;
    let (held, node, from, to) = hold(&noisy, &output, "mean")?;
    let mut nodes =
        vec![shape("grouped", grouped)?, NewNode::new("Reshape", &[&from, &name("grouped")], &[&name("answers")])];
    // Since operator set 18 the axes of a sum are an input.
    let by_input = opset(model)? >= 18;
    if by_input {
        nodes.push(shape("axes", vec![1])?);
    }
    let over_copies = |operator: &str, from: &str, to: &str| {
        let axes = name("axes");
        let inputs = if by_input { vec![from, axes.as_str()] } else { vec![from] };
        let node = NewNode::new(operator, &inputs, &[to]).with("keepdims", Attribute::Int(0));
        if by_input { node } else { node.with("axes", Attribute::Ints(vec![1])) }
    };
    if softmax {
        nodes.push(over_copies("ReduceMean", &name("answers"), &to));
    } else {
        // log Σ softmax, without leaving logarithms: nothing underflows.
        nodes.push(NewNode::new("LogSoftmax", &[&name("answers")], &[&name("logs")]).with("axis", Attribute::Int(-1)));
        nodes.push(over_copies("ReduceLogSumExp", &name("logs"), &name("sum")));
        nodes.push(constant("count", Tensor::f32(vec![], vec![(copies as f32).ln()])?));
        nodes.push(NewNode::new("Sub", &[&name("sum"), &name("count")], &[&to]));
    }
    Ok(held.replace_node(&node, nodes)?)
}

#[cfg(test)]
mod tests {
    use netproof_graph::builders::{StridedCnnOptions, strided_cnn};

    use super::*;

    #[test]
    fn the_answer_is_the_mean_over_the_same_copies() {
        let options = StridedCnnOptions { channels: vec![3], hidden: 5, ..StridedCnnOptions::new([1, 4, 4], 3) };
        let model = strided_cnn(&options).unwrap();
        let averaged = average(&model, 0.3, 4, 9).unwrap();
        let x = Tensor::f32(vec![2, 1, 4, 4], (0..32).map(|i| 0.5 + 0.5 * (i as f32).sin()).collect()).unwrap();
        let got = averaged.predict(&x).unwrap();
        let mut rng = Rng::named(9, CARD.id);
        let noise: Vec<f32> = (0..64).map(|_| (0.3 * rng.normal()) as f32).collect();
        let mut want = [[0.0f64; 3]; 2];
        for copy in noise.chunks(16) {
            let noisy = x.as_f32().unwrap().iter().enumerate().map(|(i, v)| v + copy[i % 16]).collect();
            let z = model.predict(&Tensor::f32(vec![2, 1, 4, 4], noisy).unwrap()).unwrap();
            for (z, want) in z.as_f32().unwrap().chunks(3).zip(&mut want) {
                let sum: f64 = z.iter().map(|z| f64::from(*z).exp()).sum();
                z.iter().zip(want).for_each(|(z, w)| *w += f64::from(*z).exp() / sum / 4.0);
            }
        }
        for (got, want) in got.as_f32().unwrap().iter().zip(want.concat()) {
            assert!((f64::from(*got).exp() - want).abs() < 1e-5, "{} {want}", got.exp());
        }
    }
}
