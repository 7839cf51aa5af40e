//! Cross-validation: every row is answered by networks that never saw it.
//!
//! Kohavi, IJCAI 1995 (stratified folds); repeated: Bouckaert and Frank 2004. Validation rows for early stopping and the
//! choice of the best weights are set aside within the training part of each fold, so that the held-out rows take no part.

use netproof_data::{Dataset, grouped_k_fold, k_fold};
use netproof_graph::Model;
use netproof_stats::rng::Rng;
use serde::{Deserialize, Serialize};

use crate::error::{TrainError, refuse};
use crate::job::Job;
use crate::method::Registry;
use crate::recipe::Recipe;
use crate::record::{Ended, Metrics, Record};
use crate::trainer::{Trained, measure};

/// How rows are dealt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Folds {
    /// Parts; each is held out once.
    pub count: usize,
    /// How often all is dealt anew.
    pub repeats: usize,
    /// Group column whose values stay together (a patient, an author); without it classes are spread evenly.
    pub grouped_by: Option<String>,
}

impl Default for Folds {
    fn default() -> Self {
        Self { count: 5, repeats: 1, grouped_by: None }
    }
}

/// One fold of one repeat.
#[derive(Debug, Clone)]
pub struct Fold {
    /// Rows that were held out: positions in the data set, ascending.
    pub held_out: Vec<usize>,
    /// The network's metrics on them.
    pub metrics: Metrics,
    /// The network's metrics on all other rows, which it learnt from or was chosen by.
    pub in_sample: Metrics,
    /// How it was trained.
    pub record: Record,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct CrossValidation {
    /// For each repeat, its folds.
    pub folds: Vec<Vec<Fold>>,
    /// For each repeat, what the network that never saw a row says about it: `[rows, width]`, logits where the network has
    /// them.
    pub out_of_fold: Vec<Vec<f32>>,
    /// Numbers per answer.
    pub width: usize,
    /// Whether it was interrupted: then folds are missing, and their rows are NaN.
    pub interrupted: bool,
}

/// Trains a network for each fold and keeps what it says about the rows that it has not seen.
///
/// `network` makes the network to start from for a seed; each fold has a seed of its own. `train` trains: [`crate::train`],
/// or something that keeps what it has trained.
/// # Errors
/// The rows cannot be dealt so, or a training fails.
pub fn cross_validate<E: From<TrainError>>(
    recipe: &Recipe,
    network: &dyn Fn(u64) -> Result<Model, E>,
    data: &Dataset,
    folds: &Folds,
    registry: &Registry,
    train: &mut dyn FnMut(&Recipe, Job) -> Result<Trained, E>,
) -> Result<CrossValidation, E> {
    if folds.repeats == 0 {
        return Err(refuse("repeats", 0, "1 or more").into());
    }
    let n = data.len();
    let known = data.annotations().map_err(TrainError::from)?;
    let groups = folds.grouped_by.as_ref().map(|name| group_of_rows(data, &known.groups, name)).transpose()?;
    let mut result = CrossValidation { folds: Vec::new(), out_of_fold: Vec::new(), width: 0, interrupted: false };
    for repeat in 0..folds.repeats {
        let seed = Rng::named(recipe.seed, &format!("folds/{repeat}")).next_u64();
        let dealt = match &groups {
            Some(groups) => grouped_k_fold(groups, folds.count, seed),
            None => k_fold(n, folds.count, seed, known.labels.classes()),
        };
        let dealt = dealt.map_err(TrainError::from)?;
        let (mut done, mut answers) = (Vec::new(), Vec::new());
        for (k, held_out) in dealt.into_iter().enumerate() {
            let own = Recipe { seed: Rng::stream(seed, k as u64 + 1).next_u64() >> 1, ..recipe.clone() };
            let mut is_out = vec![false; n];
            held_out.iter().for_each(|&row| is_out[row] = true);
            let learn: Vec<usize> = (0..n).filter(|&row| !is_out[row]).collect();
            let learn = data.select(&learn).map_err(TrainError::from)?;
            let trained = train(&own, Job::new(&own, network(own.seed)?, learn.clone(), None)?)?;
            if trained.record.ended == Ended::Interrupted {
                result.interrupted = true;
                break;
            }
            let again = Model::from_file(trained.model.to_file().map_err(TrainError::from)?);
            let in_sample = measure(&own, again.map_err(TrainError::from)?, &learn, registry)?.metrics;
            let held = data.select(&held_out).map_err(TrainError::from)?;
            let outputs = measure(&own, trained.model, &held, registry)?;
            let width = outputs.width;
            if answers.is_empty() {
                answers = vec![f32::NAN; n * width];
                result.width = width;
            }
            for (&row, own) in held_out.iter().zip(outputs.values.chunks(width.max(1))) {
                answers[row * width..(row + 1) * width].copy_from_slice(own);
            }
            done.push(Fold { held_out, metrics: outputs.metrics, in_sample, record: trained.record });
        }
        result.folds.push(done);
        result.out_of_fold.push(answers);
        if result.interrupted {
            break;
        }
    }
    Ok(result)
}

/// The group of each row; a row without one is a group of its own.
fn group_of_rows(data: &Dataset, groups: &[Vec<Option<usize>>], name: &str) -> Result<Vec<usize>, TrainError> {
    let at = data.groups().iter().position(|g| g.name == name).ok_or_else(|| TrainError::UnknownId {
        family: "group column",
        id: name.to_owned(),
        known: data.groups().iter().map(|g| g.name.clone()).collect(),
    })?;
    let mut next = data.groups()[at].values.len();
    let one = |g: &Option<usize>| {
        g.unwrap_or_else(|| {
            next += 1;
            next - 1
        })
    };
    Ok(groups[at].iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use netproof_data::{Labels, OpenOptions};
    use netproof_graph::builders::{Activation, mlp};
    use netproof_tensor::Tensor;

    use super::*;
    use crate::method::Method;
    use crate::test_support::{points, short};
    use crate::trainer::RunOptions;

    fn run(recipe: &Recipe, data: &Dataset, folds: &Folds) -> Result<CrossValidation, TrainError> {
        let registry = Registry::default();
        let mut train = |r: &Recipe, job| crate::train(r, job, &registry, &RunOptions::default());
        cross_validate(recipe, &network, data, folds, &registry, &mut train)
    }

    fn network(seed: u64) -> Result<Model, TrainError> {
        Ok(mlp(&[2], &[8], 3, Activation::Tanh, seed)?)
    }

    #[test]
    fn every_row_is_answered_by_a_network_that_never_saw_it() {
        let recipe = Recipe { optimiser: Method::new("adamw").with("learning_rate", 0.05), ..short() };
        let data = points(90, 2);
        let folds = Folds { count: 3, repeats: 2, grouped_by: None };
        let run = || run(&recipe, &data, &folds).unwrap();
        let got = run();
        assert_eq!((got.width, got.folds.len(), got.interrupted), (3, 2, false));
        for (folds, answers) in got.folds.iter().zip(&got.out_of_fold) {
            let mut rows: Vec<usize> = folds.iter().flat_map(|f| f.held_out.clone()).collect();
            rows.sort_unstable();
            assert_eq!(rows, (0..90).collect::<Vec<_>>());
            assert!(answers.len() == 270 && answers.iter().all(|v| v.is_finite()));
            for fold in folds {
                // What is kept for the rows is what the metrics were taken from.
                let right = fold.held_out.iter().filter(|&&r| {
                    let own = &answers[r * 3..r * 3 + 3];
                    own.iter().all(|v| *v <= own[r % 3])
                });
                let accuracy = right.count() as f64 / fold.held_out.len() as f64;
                assert!((fold.metrics.accuracy.unwrap() - accuracy).abs() < 1e-12 && accuracy > 0.5);
            }
        }
        assert_ne!(got.folds[0][0].held_out, got.folds[1][0].held_out);
        assert_eq!(got.out_of_fold, run().out_of_fold);
    }

    #[test]
    fn groups_stay_together() {
        let base = points(60, 2).load().unwrap();
        let names: Vec<String> = (0..60).map(|i| format!("p{}", i / 5)).collect();
        let data =
            Dataset::from_memory(base.features, base.labels, vec![("patient".into(), names)], &OpenOptions::default());
        let data = data.unwrap();
        let folds = Folds { grouped_by: Some("patient".into()), count: 4, repeats: 1 };
        let got = run(&short(), &data, &folds).unwrap();
        for fold in &got.folds[0] {
            for row in &fold.held_out {
                assert!((row / 5 * 5..row / 5 * 5 + 5).all(|r| fold.held_out.contains(&r)));
            }
        }
        let wrong = Folds { grouped_by: Some("doctor".into()), ..folds };
        let error = run(&short(), &data, &wrong).unwrap_err().to_string();
        assert_eq!(error, "there is no group column `doctor`; there are patient");
    }

    #[test]
    fn too_few_rows_are_refused() {
        let x = Tensor::zeros(vec![3, 2]).unwrap();
        let data =
            Dataset::from_memory(x, Labels::Classes(vec![0, 1, 2]), Vec::new(), &OpenOptions::default()).unwrap();
        assert!(run(&short(), &data, &Folds::default()).is_err());
    }
}
