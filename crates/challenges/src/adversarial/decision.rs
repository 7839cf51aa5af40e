//! What attacks that see the class alone share: a starting point, and the way back towards the clean row.

use netproof_core::Norm;
use netproof_stats::rng::Rng;

use super::AttackError;
use super::attack::Batch;
use super::loss::is_right;
use super::oracle::Oracle;
use super::projection::Ball;
use super::rows::row;
use super::smallest::{Smallest, joined};

/// Random points that are tried for a start.
const STARTS: usize = 100;
/// Halvings on the way to the boundary.
const HALVINGS: usize = 30;

/// A row under attack.
pub(crate) struct Walker {
    pub(crate) owner: usize,
    pub(crate) rng: Rng,
    /// A point with a wrong answer.
    pub(crate) x: Vec<f32>,
}

/// Whether the answers at these points, one or more per owner, are wrong; what is wrong is kept where it is the smallest.
pub(crate) fn wrong(
    oracle: &Oracle<'_, '_>,
    batch: &Batch<'_>,
    owners: &[usize],
    x: &[f32],
    best: &mut Smallest<'_>,
) -> Result<Vec<bool>, AttackError> {
    let (len, k) = (batch.row_len(), batch.classes());
    let logits = oracle.logits(owners, x)?;
    Ok(owners
        .iter()
        .enumerate()
        .map(|(i, &o)| {
            let z = row(&logits, k, i);
            best.see(o, row(x, len, i), z);
            !is_right(z, batch.labels[o])
        })
        .collect())
}

/// Rows for which a random point of the box has a wrong answer, each moved to the boundary. Brendel, Rauber and Bethge 2018,
/// section 2.1; Chen, Jordan and Wainwright 2020, algorithm 2.
pub(crate) fn start(
    oracle: &Oracle<'_, '_>,
    batch: &Batch<'_>,
    ball: &Ball,
    purpose: &str,
    best: &mut Smallest<'_>,
) -> Result<Vec<Walker>, AttackError> {
    let len = batch.row_len();
    let mut walkers: Vec<Walker> = Vec::new();
    let mut waiting: Vec<Walker> = batch
        .right()
        .into_iter()
        .map(|owner| Walker { owner, rng: batch.rng(owner, purpose), x: vec![0.0; len] })
        .collect();
    for _ in 0..STARTS {
        if waiting.is_empty() {
            break;
        }
        for w in &mut waiting {
            let Walker { rng, x, .. } = w;
            x.iter_mut().for_each(|x| *x = ball.low + (ball.high - ball.low) * rng.unit() as f32);
        }
        let owners: Vec<usize> = waiting.iter().map(|w| w.owner).collect();
        let found = wrong(oracle, batch, &owners, &joined(waiting.iter().map(|w| w.x.as_slice())), best)?;
        let mut marks = found.into_iter();
        let (now, later): (Vec<Walker>, Vec<Walker>) =
            waiting.into_iter().partition(|_| marks.next().unwrap_or_default());
        walkers.extend(now);
        waiting = later;
    }
    walkers.sort_by_key(|w| w.owner);
    to_boundary(oracle, batch, ball.norm, &mut walkers, best)?;
    Ok(walkers)
}

/// Moves each point towards its clean row until just in front of the boundary, by halving: along the line for l2, by
/// clipping to a smaller box for l-infinity.
pub(crate) fn to_boundary(
    oracle: &Oracle<'_, '_>,
    batch: &Batch<'_>,
    norm: Norm,
    walkers: &mut [Walker],
    best: &mut Smallest<'_>,
) -> Result<(), AttackError> {
    if walkers.is_empty() {
        return Ok(());
    }
    let owners: Vec<usize> = walkers.iter().map(|w| w.owner).collect();
    let far: Vec<Vec<f32>> = walkers.iter().map(|w| w.x.clone()).collect();
    let mut low = vec![0.0f32; walkers.len()];
    let mut high: Vec<f32> = walkers
        .iter()
        .map(|w| match norm {
            Norm::Linf => w.x.iter().zip(batch.row(w.owner)).fold(0.0f32, |m, (x, o)| m.max((x - o).abs())),
            _ => 1.0,
        })
        .collect();
    let least: Vec<f32> = high.iter().map(|h| h * 1e-4).collect();
    for _ in 0..HALVINGS {
        if (0..walkers.len()).all(|i| high[i] - low[i] <= least[i]) {
            break;
        }
        let tried: Vec<Vec<f32>> = (0..walkers.len())
            .map(|i| between(norm, batch.row(owners[i]), &far[i], 0.5 * (low[i] + high[i])))
            .collect();
        let found = wrong(oracle, batch, &owners, &joined(tried.iter().map(Vec::as_slice)), best)?;
        for (i, found) in found.into_iter().enumerate() {
            let middle = 0.5 * (low[i] + high[i]);
            if found {
                high[i] = middle;
                walkers[i].x.copy_from_slice(&tried[i]);
            } else {
                low[i] = middle;
            }
        }
    }
    Ok(())
}

fn between(norm: Norm, origin: &[f32], far: &[f32], at: f32) -> Vec<f32> {
    let pairs = origin.iter().zip(far);
    match norm {
        Norm::Linf => pairs.map(|(o, x)| x.clamp(o - at, o + at)).collect(),
        _ => pairs.map(|(o, x)| o + (x - o) * at).collect(),
    }
}
