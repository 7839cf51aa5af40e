//! Networks and rows for tests.

use netproof_data::{Dataset, Labels, OpenOptions};
use netproof_graph::builders::{Activation, mlp};
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;

use crate::batch::{Batch, Targets};
use crate::job::Job;
use crate::method::Method;
use crate::net::Net;
use crate::recipe::{DataSection, Recipe};

/// `w₀ x₀ + w₁ x₁ + b`.
pub(crate) fn linear_net() -> Net {
    Net::new(mlp(&[2], &[], 1, Activation::Relu, 5).unwrap(), true).unwrap()
}

/// Rows for the network above, as a batch and as numbers.
pub(crate) fn linear_batch() -> (Batch, Vec<([f64; 2], f64)>) {
    let rows: Vec<([f64; 2], f64)> = (0..7)
        .map(|i| {
            let i = f64::from(i);
            ([i * 0.5 - 1.0, (i * 1.7).sin()], 2.0 - i)
        })
        .collect();
    let features = rows.iter().flat_map(|(x, _)| x.map(|x| x as f32)).collect();
    let batch = Batch {
        row_ids: (0..7).collect(),
        features: Tensor::f32(vec![7, 2], features).unwrap(),
        targets: Targets::Numbers(rows.iter().map(|(_, t)| *t as f32).collect()),
        weights: None,
        groups: Vec::new(),
        classes: 0,
    };
    (batch, rows)
}

/// Three classes of points around three places, somewhat mixed.
pub(crate) fn points(n: usize, seed: u64) -> Dataset {
    let mut rng = Rng::new(seed);
    let mut x = Vec::new();
    let mut y = Vec::new();
    for i in 0..n {
        let class = i % 3;
        let (a, b) = [(0.0, 1.0), (1.0, -0.5), (-1.0, -0.5)][class];
        x.extend([(a + 0.5 * rng.normal()) as f32, (b + 0.5 * rng.normal()) as f32]);
        y.push(class);
    }
    let x = Tensor::f32(vec![n, 2], x).unwrap();
    Dataset::from_memory(x, Labels::Classes(y), Vec::new(), &OpenOptions::default()).unwrap()
}

/// A short training on these points.
pub(crate) fn short() -> Recipe {
    Recipe { epochs: 3, batch_size: 16, ..Recipe::new(DataSection::new("-"), Method::new("mlp")) }
}

/// Rows and a small network for such a recipe.
pub(crate) fn job(recipe: &Recipe) -> Job {
    let model = mlp(&[2], &[8], 3, Activation::Tanh, recipe.seed).unwrap();
    Job::new(recipe, model, points(150, 1), None).unwrap()
}
