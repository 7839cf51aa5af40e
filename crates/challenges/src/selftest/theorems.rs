//! What follows from the definitions, on networks with random weights.

use netproof_graph::Model;
use netproof_graph::builders::{Activation, CnnOptions, VitOptions, cnn, mlp, vit};
use netproof_tensor::Tensor;

use super::Failure;
use super::networks::{Compared, Nodes, about, ask, attributions, linear as linear_net, must, network, tensor};
use crate::interpretability::{Choice, EXPLANATIONS, ExplainError, Explained, Question, explain, explanation};

/// Networks of the usual kinds, with the shape of a row.
pub(super) fn networks() -> Result<Vec<(&'static str, Model, Vec<usize>)>, Failure> {
    let image = [2, 8, 8];
    let small = CnnOptions { channels: vec![4, 4], hidden: 8, seed: 3, ..CnnOptions::new(image, 3) };
    let transformer = VitOptions { image, patch: 4, classes: 3, width: 8, depth: 2, heads: 2, mlp: 8, seed: 1 };
    Ok(vec![
        ("MLP", mlp(&[5], &[8, 8], 3, Activation::Gelu, 1)?, vec![5]),
        ("CNN", cnn(&small)?, image.to_vec()),
        ("transformer", vit(&transformer)?, image.to_vec()),
    ])
}

pub(super) fn rows(n: usize, row: &[usize]) -> Result<Question, Failure> {
    let shape = [&[n], row].concat();
    let count = shape.iter().product::<usize>();
    let x = Tensor::f32(shape, (0..count).map(|i| (i as f32 * 0.7).sin() * 0.5 + 0.5).collect())?;
    Ok(Question::new(x, (0..n).map(|i| i % 3).collect())?)
}

/// C2.
pub(super) fn completeness() -> Result<String, Failure> {
    let mut worst = 0f64;
    for (name, net, row) in networks()? {
        let e = ask("integrated-gradients", &net, &rows(3, &row)?, "")?;
        let (delta, difference) = (e.delta.unwrap_or_default(), e.difference.unwrap_or_default());
        must(delta.len() == 3, || format!("{name}: no delta"))?;
        for (d, f) in delta.iter().zip(&difference) {
            let relative = d.abs() / f.abs().max(1e-6);
            must(relative <= 1.1e-3, || format!("{name}: misses {d} of {f}"))?;
            worst = worst.max(relative);
        }
    }
    Ok(format!("misses at most {:.3} % of the difference", 100.0 * worst))
}

/// C3.
pub(super) fn linear() -> Result<String, Failure> {
    let mut c = Compared::default();
    let weights = [2.0, -3.0, 0.5, 1.5];
    let net = linear_net(&weights, 1.0)?;
    let x = [1.0, 2.0, -4.0, 0.5];
    let wanted: Vec<f32> = weights.iter().zip(&x).map(|(w, x)| w * x).collect();
    let q = about(tensor(&[1, 4], &x)?)?;
    for (id, options) in [
        ("input-x-gradient", ""),
        ("integrated-gradients", ""),
        ("exact-shapley", ""),
        ("kernel-shap", ""),
        ("shapley-sampling", ""),
        ("deep-lift", ""),
        ("feature-ablation", ""),
        ("lrp", "composite = \"zero\""),
    ] {
        // What relevance propagation gives to the bias is not the input's.
        let net = if id == "lrp" { &linear_net(&weights, 0.0)? } else { &net };
        c.close(id, &attributions(id, net, &q, options)?, &wanted, 1e-4)?;
    }
    Ok(c.text())
}

/// C4.
pub(super) fn axioms() -> Result<String, Failure> {
    let mut c = Compared::default();
    // Inputs 0 and 1 are exchangeable, input 2 does nothing.
    let symmetric = network(&[3], 1, |n, x| {
        let h = n.linear(x, [3, 2], &[1.0, 0.5, 1.0, 0.5, 0.0, 0.0], &[-0.5, 0.2]);
        let t = n.op("Tanh", &[&h]);
        n.linear(&t, [2, 1], &[1.0, -2.0], &[0.0])
    })?;
    let q = about(tensor(&[1, 3], &[0.7, 0.7, 5.0])?)?;
    for id in ["integrated-gradients", "exact-shapley", "kernel-shap", "deep-lift", "feature-ablation"] {
        let found = attributions(id, &symmetric, &q, "")?;
        c.close(&format!("{id}: symmetry"), &found[..1], &found[1..2], 1e-4)?;
        must(found[2].abs() < 1e-5, || format!("{id}: a dummy gets {}", found[2]))?;
    }
    // One rectifier used twice, or two.
    let twice = |reused: bool| {
        network(&[4], 2, |n: &mut Nodes, x| {
            let weights: Vec<f32> = (0..16).map(|i| (i as f32 * 0.9).sin()).collect();
            let h = n.linear(x, [4, 4], &weights, &[0.1; 4]);
            let a = n.op("Relu", &[&h]);
            let b = if reused { a.clone() } else { n.op("Relu", &[&h]) };
            let sum = n.op("Add", &[&a, &b]);
            n.linear(&sum, [4, 2], &[1.0, -1.0, 0.5, 2.0, -0.3, 0.2, 0.8, 0.1], &[0.0, 0.1])
        })
    };
    // Batch normalisation folded or not, and nodes that do nothing.
    let normalised = network(&[2, 6, 6], 2, |n, x| {
        let weights: Vec<f32> = (0..54).map(|i| (i as f32 * 1.1).sin() * 0.4).collect();
        let w = n.stored(&[3, 2, 3, 3], &weights);
        let h = n.op("Conv", &[x, &w]);
        let parts = [[1.5, 0.5, 2.0], [0.1, -0.2, 0.0], [0.3, 0.0, -0.1], [1.0, 0.5, 2.0]];
        let [s, b, m, v] = parts.map(|p| n.stored(&[3], &p));
        let h = n.op("BatchNormalization", &[&h, &s, &b, &m, &v]);
        let r = n.op("Relu", &[&h]);
        let flat = n.op("Flatten", &[&r]);
        let weights: Vec<f32> = (0..96).map(|i| (i as f32 * 0.6).cos() * 0.3).collect();
        n.linear(&flat, [48, 2], &weights, &[0.0, 0.0])
    })?;
    let (folded, count) = normalised.fold_batch_norm()?;
    must(count == 1, || format!("{count} normalisations folded"))?;
    let plain = |extra: bool| {
        network(&[4], 2, |n: &mut Nodes, x| {
            let x = if extra { n.op("Identity", &[x]) } else { x.to_owned() };
            let weights: Vec<f32> = (0..20).map(|i| (i as f32 * 0.4).cos()).collect();
            let h = n.linear(&x, [4, 5], &weights, &[0.1; 5]);
            let r = n.op("Relu", &[&h]);
            let r = if extra { n.op("Identity", &[&r]) } else { r };
            n.linear(&r, [5, 2], &weights[..10], &[0.0, 0.1])
        })
    };
    let table = rows(2, &[4])?;
    let mut table = table;
    table.targets = vec![0, 1];
    let mut image = rows(2, &[2, 6, 6])?;
    image.targets = vec![0, 1];
    let pairs = [
        ("rectifier reused or doubled", twice(true)?, twice(false)?, &table),
        ("batch normalisation folded or not", normalised, folded, &image),
        ("with and without nodes that do nothing", plain(false)?, plain(true)?, &table),
    ];
    for (what, a, b, q) in &pairs {
        for id in ["saliency", "input-x-gradient", "integrated-gradients", "deep-lift", "guided-backpropagation"] {
            let (x, y) = (attributions(id, a, q, "")?, attributions(id, b, q, "")?);
            c.close(&format!("{id}: {what}"), &x, &y, 1e-4)?;
        }
    }
    Ok(c.text())
}

/// C7.
pub(super) fn conservation() -> Result<String, Failure> {
    let mut worst = 0f64;
    let weights = |n: usize, f: f32| (0..n).map(|i| (i as f32 * f).sin()).collect::<Vec<f32>>();
    let residual = network(&[4], 2, |n, x| {
        let h = n.linear(x, [4, 4], &weights(16, 0.9), &[0.0; 4]);
        let r = n.op("Relu", &[&h]);
        let inner = n.linear(&r, [4, 4], &weights(16, 1.7), &[0.0; 4]);
        let inner = n.op("Relu", &[&inner]);
        let sum = n.op("Add", &[&inner, &r]);
        let r = n.op("Relu", &[&sum]);
        n.linear(&r, [4, 2], &weights(8, 0.3), &[0.0; 2])
    })?;
    let mut q = rows(3, &[4])?;
    q.targets = vec![0, 1, 0];
    for composite in ["zero", "epsilon", "z-plus"] {
        let e = ask("lrp", &residual, &q, &format!("composite = \"{composite}\""))?;
        let input = model_scores(&residual, &q)?;
        let width = e.attributions.row_len();
        let all = e.attributions.as_f32().unwrap_or_default();
        for (row, score) in all.chunks(width).zip(&input) {
            let sum: f64 = row.iter().map(|&v| f64::from(v)).sum();
            let miss = (sum - score).abs() / score.abs().max(1e-6);
            must(miss <= 1e-3, || format!("{composite}: relevance {sum}, score {score}"))?;
            worst = worst.max(miss);
        }
    }
    // With biases, what they take is the delta.
    let biased = linear_net(&[1.0, 2.0], 3.0)?;
    let e = ask("lrp", &biased, &about(tensor(&[1, 2], &[1.0, 1.0])?)?, "composite = \"zero\"")?;
    let delta = e.delta.and_then(|d| d.first().copied()).unwrap_or(f64::NAN);
    must((delta.abs() - 3.0).abs() < 1e-3, || format!("a bias of 3 takes {delta}"))?;
    Ok(format!("relevance misses the score by at most {worst:.1e} of it; a bias of 3 takes {:.3}", delta.abs()))
}

fn model_scores(model: &Model, q: &Question) -> Result<Vec<f64>, Failure> {
    let input = model.inputs()[0].name.clone();
    let net = Explained::new(model, &Choice::default(), &[(input, q.x.clone())])?;
    Ok(net.own_scores(q)?)
}

/// C8.
pub(super) fn batches() -> Result<String, Failure> {
    let mut c = Compared::default();
    let networks = networks()?;
    let mut methods = 0;
    for entry in EXPLANATIONS {
        let method = explanation(entry.card.id, toml::Table::new())?;
        let mut applied = false;
        for (name, model, row) in &networks {
            let mut q = rows(3, row)?;
            q.background = Some(rows(4, row)?.x);
            let input = model.inputs()[0].name.clone();
            let net = Explained::new(model, &Choice::default(), &[(input, q.x.clone())])?;
            let all = match explain(&*method.method, &net, &q) {
                Ok(e) => e,
                Err(ExplainError::NotApplicable { .. }) => continue,
                Err(e) => return Err(Failure::Wrong(format!("{} on the {name}: {e}", entry.card.id))),
            };
            let one = explain(&*method.method, &net, &q.select(&[1])?)?;
            let width = all.attributions.row_len();
            let (a, b) = (all.attributions.as_f32().unwrap_or_default(), one.attributions.as_f32().unwrap_or_default());
            c.close(&format!("{} on the {name}", entry.card.id), &a[width..2 * width], b, 1e-3)?;
            applied = true;
        }
        methods += usize::from(applied);
    }
    Ok(format!("{methods} methods, {}", c.text()))
}
