//! Networks that stand in for the one under attack: learnt from its answers, and climbed in its place.
//!
//! [`distil`]: Papernot, McDaniel, Goodfellow, Jha, Celik and Swami, AsiaCCS 2017, arXiv:1602.02697, algorithm 1: a
//! network of the attacker's own learns the classes that the victim answers; points along the signs of its own gradient
//! are asked next. [`climb`]: the momentum iterative method against one network or several at once, Dong et al., CVPR
//! 2018, arXiv:1710.06081, algorithms 1 and 2. It goes its whole way even if the surrogate is wrong already: what stops
//! at the surrogate's boundary seldom carries over.

use netproof_audit::{AuditError, Head};
use netproof_core::Threat;
use netproof_data::{Dataset, Labels, OpenOptions};
use netproof_graph::Model;
use netproof_graph::builders::{Activation, CnnOptions, cnn, mlp};
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;
use netproof_train::{DataSection, Job, Method, Recipe, RunOptions, train};

use super::AttackError;
use super::ascent::step;
use super::loss::{Loss, argmax};
use super::projection::Ball;
use super::rows::{row, row_mut};
use super::victim::Victim;

/// How a surrogate is learnt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Learning {
    /// Times that new points are asked.
    pub(crate) rounds: usize,
    pub(crate) epochs: u64,
    /// How far new points are from old ones, as a fraction of the bounds' width.
    pub(crate) reach: f64,
    pub(crate) bounds: [f64; 2],
    pub(crate) seed: u64,
}

/// A surrogate that was learnt.
pub(crate) struct Distilled {
    pub(crate) model: Model,
    /// Rows whose class the victim was asked for.
    pub(crate) queries: u64,
    /// Share of the last new points, before it learnt from them, on which it answers as the victim does.
    pub(crate) agreement: f64,
}

/// Fewest rows that a surrogate learns from.
const FEWEST: usize = 20;
/// Most points that are asked.
const MOST: usize = 20_000;
/// Rows of one step of the training.
const BATCH: usize = 32;

/// Learns a network that answers as the victim does, from its classes alone.
/// # Errors
/// There are fewer than 20 rows, or the victim refuses.
pub(crate) fn distil(
    victim: &Victim<'_>,
    x: &[f32],
    how: &Learning,
    over: &dyn Fn() -> bool,
) -> Result<Distilled, AttackError> {
    let len = victim.row_len();
    let [low, high] = how.bounds.map(|b| b as f32);
    let ask = |x: &[f32]| -> Result<Vec<usize>, AttackError> {
        Ok(victim.logits(x)?.chunks_exact(victim.classes()).map(argmax).collect())
    };
    let mut known: Vec<f32> =
        x.chunks_exact(len.max(1)).filter(|r| r.iter().all(|v| v.is_finite())).flatten().copied().collect();
    let mut classes = ask(&known)?;
    if classes.len() < FEWEST {
        let message = format!("a surrogate learns from {FEWEST} rows or more, there are {}", classes.len());
        return Err(AttackError::Mismatch(message));
    }
    let mut model = learn(victim, &known, &classes, how, 0)?;
    let mut agreement = f64::NAN;
    for round in 1..=how.rounds {
        if over() || 2 * classes.len() > MOST {
            break;
        }
        let own = of(&model, victim)?;
        // Along the output of the class that the victim says, as in the paper.
        let mut objective = |i: usize, _: &[f32], seed: &mut [f32]| seed[classes[i]] = 1.0;
        let slope = own.look(&known, &mut objective)?.gradient;
        let mut rng = Rng::named(how.seed, &format!("surrogate round {round}"));
        let far = (how.reach * f64::from(high - low)) as f32;
        let new: Vec<f32> = known
            .chunks_exact(len.max(1))
            .zip(slope.chunks_exact(len.max(1)))
            .flat_map(|(x, g)| {
                // Both ways, so that the points are on both sides of the boundary.
                let far = if rng.below(2) == 0 { far } else { -far };
                x.iter().zip(g).map(move |(x, g)| if *g == 0.0 { *x } else { x + far * g.signum() })
            })
            .map(|v| v.clamp(low, high))
            .collect();
        let said = ask(&new)?;
        let guessed = own.logits(&new)?;
        let same = guessed.chunks_exact(victim.classes()).zip(&said).filter(|(z, c)| argmax(z) == **c).count();
        agreement = same as f64 / said.len().max(1) as f64;
        known.extend(new);
        classes.extend(said);
        model = learn(victim, &known, &classes, how, round as u64)?;
    }
    Ok(Distilled { model, queries: classes.len() as u64, agreement })
}

/// A distilled network as an attacker sees it.
/// # Errors
/// It does not take the victim's rows.
pub(crate) fn of<'m>(model: &'m Model, victim: &Victim<'_>) -> Result<Victim<'m>, AttackError> {
    let sample = Tensor::zeros([&[1], victim.row()].concat())?;
    Victim::new(model, Head::Logits, victim.row(), &sample)
}

fn learn(victim: &Victim<'_>, x: &[f32], classes: &[usize], how: &Learning, round: u64) -> Result<Model, AttackError> {
    let (row, k) = (victim.row(), victim.classes());
    let seed = Rng::stream(how.seed, round + 1).next_u64();
    let network = match *row {
        [channels, height, width] if height >= 8 && width >= 8 => {
            let image = [channels, height, width];
            cnn(&CnnOptions { channels: vec![16, 32], hidden: 64, seed, ..CnnOptions::new(image, k) })?
        }
        _ => mlp(row, &[64], k, Activation::Relu, seed)?,
    };
    let features = Tensor::f32([&[classes.len()], row].concat(), x.to_vec())?;
    let names = (0..k).map(|c| c.to_string()).collect();
    let options = OpenOptions { class_names: Some(names), ..OpenOptions::default() };
    let data = Dataset::from_memory(features, Labels::Classes(classes.to_vec()), Vec::new(), &options)
        .map_err(AuditError::from)?;
    let recipe = Recipe {
        seed,
        epochs: how.epochs,
        batch_size: BATCH,
        optimiser: Method::new("adam").with("learning_rate", 0.002),
        ..Recipe::new(DataSection::new("-"), Method::new("mlp"))
    };
    let registry = crate::training_registry();
    let job = Job::new(&recipe, network, data, None).map_err(AuditError::from)?;
    Ok(train(&recipe, job, &registry, &RunOptions::default()).map_err(AuditError::from)?.model)
}

/// The whole way up the loss of these networks together, within the threat around the rows.
/// # Shapes   `x [n, row]`, `labels [n]` → `[n, row]`
/// # Errors
/// A network refuses, has no gradient, or has other classes than the labels.
pub(crate) fn climb(
    sources: &[&Victim<'_>],
    x: &[f32],
    labels: &[usize],
    threat: &Threat,
    (steps, decay): (usize, f64),
) -> Result<Vec<f32>, AttackError> {
    let (ball, n) = (Ball::from(threat), labels.len());
    let len = x.len() / n.max(1);
    let length = (threat.epsilon / steps.max(1) as f64) as f32;
    let (mut at, mut sums) = (x.to_vec(), vec![0.0f32; x.len()]);
    for source in sources {
        if let Some(l) = labels.iter().find(|l| **l >= source.classes()) {
            let message = format!("a surrogate has {} classes, a row has class {l}", source.classes());
            return Err(AttackError::Mismatch(message));
        }
    }
    for _ in 0..steps {
        sums.iter_mut().for_each(|s| *s *= decay as f32);
        for source in sources {
            let mut objective = |i: usize, z: &[f32], seed: &mut [f32]| {
                Loss::CrossEntropy.of(z, labels[i], 0, seed);
            };
            let look = source.look(&at, &mut objective)?;
            for i in 0..n {
                let g = row(&look.gradient, len, i);
                // By its l1 norm, so that all networks and steps count the same (equation 6).
                let size = g.iter().map(|v| f64::from(v.abs())).sum::<f64>();
                if size > 0.0 && size.is_finite() {
                    row_mut(&mut sums, len, i).iter_mut().zip(g).for_each(|(s, g)| *s += (f64::from(*g) / size) as f32);
                }
            }
        }
        for i in 0..n {
            let (point, sum) = (row_mut(&mut at, len, i), row(&sums, len, i));
            step(&ball, sum, length, point);
            ball.project(row(x, len, i), point);
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use netproof_core::Norm;

    use super::*;
    use crate::adversarial::test_support::{linear, rows, small, victim};

    #[test]
    fn on_a_linear_model_the_climb_ends_in_the_corner_and_beyond_the_boundary() {
        let model = linear(&[[0.0; 3], [0.5, -2.0, 1.0]], &[0.0, 0.0]);
        let v = victim(&model, &[3]);
        let threat = Threat::new(Norm::Linf, 0.05, [0.0, 1.0]).unwrap();
        // The second row is wrong already, and goes the same way.
        let x = [0.5, 0.2, 0.6, 0.1, 0.9, 0.1];
        let y = climb(&[&v, &v], &x, &[1, 1], &threat, (10, 1.0)).unwrap();
        for (y, want) in y.iter().zip([0.45, 0.25, 0.55, 0.05, 0.95, 0.05]) {
            assert!((y - want).abs() < 1e-6, "{y} {want}");
        }
    }

    #[test]
    fn a_surrogate_learns_to_answer_as_the_victim() {
        let model = small(6, 3, 5);
        let (x, _) = rows(&model, 6, 120, 7);
        let v = victim(&model, &[6]);
        let how = Learning { rounds: 2, epochs: 30, reach: 0.1, bounds: [0.0, 1.0], seed: 4 };
        let found = distil(&v, &x, &how, &|| false).unwrap();
        assert_eq!(found.queries, 480);
        let (own, other) = (v.logits(&x).unwrap(), of(&found.model, &v).unwrap().logits(&x).unwrap());
        let same = own.chunks(3).zip(other.chunks(3)).filter(|(a, b)| argmax(a) == argmax(b)).count();
        assert!(same > 100 && found.agreement > 0.7, "{same} of 120, {}", found.agreement);
        let again = distil(&v, &x, &how, &|| false).unwrap();
        assert_eq!(of(&again.model, &v).unwrap().logits(&x).unwrap(), other);
        assert!(matches!(distil(&v, &x[..60], &how, &|| false), Err(AttackError::Mismatch(_))));
    }
}
