//! Answers while a row is taken away or put back, unit by unit.

use super::bench::Bench;
use super::{Curve, Measured};
use crate::interpretability::{Answer, ExplainError};

/// Which way a row is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// From the row to its baseline.
    Deletion,
    /// From the baseline to the row.
    Insertion,
}

/// Answers of many ways from a row to its baseline, or back: `[ways, points + 1]` each.
#[derive(Debug, Clone)]
pub(super) struct Curves {
    points: usize,
    /// Scores of the target.
    scores: Vec<f64>,
    /// Its probabilities; the scores themselves where the network predicts numbers.
    probabilities: Vec<f64>,
    /// Fraction of the units that was changed.
    pub(super) x: Vec<f64>,
}

/// Most answers that are kept at a time.
const ANSWERS: usize = 4 << 20;

impl Curves {
    /// `ways` ways: `of` says which row each belongs to, `order` in which order its units change.
    pub(super) fn new(
        bench: &Bench<'_, '_>,
        ways: usize,
        of: impl Fn(usize) -> usize,
        order: impl Fn(usize) -> Vec<usize>,
        mode: Mode,
    ) -> Result<Self, ExplainError> {
        let (q, net, units) = (bench.question, bench.net, bench.units.len());
        let points = bench.protocol.points.min(units).max(1);
        let changed: Vec<usize> = (0..=points).map(|k| k * units / points).collect();
        let (mut scores, mut probabilities) = (Vec::new(), Vec::new());
        let portion = (ANSWERS / ((points + 1) * net.targets().max(1))).clamp(1, 4096);
        for start in (0..ways).step_by(portion) {
            let count = portion.min(ways - start);
            let mut current = (usize::MAX, Vec::new());
            let answers = net.answers(q, count * (points + 1), |i, row| {
                let (way, k) = (start + i / (points + 1), i % (points + 1));
                if current.0 != way {
                    current = (way, order(way));
                }
                let (full, empty) = (q.row(of(way)), q.baseline_row(of(way)));
                let (from, to) = if mode == Mode::Deletion { (full, empty) } else { (empty, full) };
                row.copy_from_slice(from);
                bench.set(row, to, &current.1[..changed[k]]);
                of(way)
            })?;
            let width = answers.len() / (count * (points + 1)).max(1);
            for (i, row) in answers.chunks(width.max(1)).enumerate() {
                let target = q.targets[of(start + i / (points + 1))];
                let score = net.score(row, target);
                scores.push(score);
                probabilities.push(probability(net.answer(), bench.probabilities, row, target, score));
            }
        }
        let x = changed.iter().map(|&c| c as f64 / units.max(1) as f64).collect();
        Ok(Self { points, scores, probabilities, x })
    }

    /// Area under each way's probability over the fraction that was changed, by the trapezoid rule.
    pub(super) fn areas(&self) -> Vec<f64> {
        self.probabilities.chunks(self.points + 1).map(|y| area(&self.x, y)).collect()
    }

    /// Mean fall of each way's score from its beginning, over all points but the first.
    pub(super) fn falls(&self) -> Vec<f64> {
        let fall = |y: &[f64]| y[1..].iter().map(|v| y[0] - v).sum::<f64>() / self.points as f64;
        self.scores.chunks(self.points + 1).map(fall).collect()
    }

    /// The mean way.
    pub(super) fn mean(&self, name: &str, scores: bool) -> Curve {
        let all = if scores { &self.scores } else { &self.probabilities };
        let mut y = vec![0.0; self.points + 1];
        let mut count = 0.0;
        for way in all.chunks(self.points + 1).filter(|w| w.iter().all(|v| v.is_finite())) {
            y.iter_mut().zip(way).for_each(|(a, v)| *a += v);
            count += 1.0;
        }
        y.iter_mut().for_each(|v| *v /= count);
        Curve { name: name.to_owned(), x: self.x.clone(), y }
    }
}

fn area(x: &[f64], y: &[f64]) -> f64 {
    x.windows(2).zip(y.windows(2)).map(|(x, y)| (x[1] - x[0]) * (y[0] + y[1]) / 2.0).sum()
}

/// What the network makes of a target, between 0 and 1 where it chooses between classes.
fn probability(answer: Answer, already: bool, row: &[f32], target: usize, score: f64) -> f64 {
    match answer {
        Answer::Value => score,
        Answer::Binary => netproof_stats::probability::sigmoid(score),
        Answer::Classes if already || row.len() < 2 => score,
        Answer::Classes => {
            let top = row.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(f64::from(v)));
            let sum: f64 = row.iter().map(|&v| (f64::from(v) - top).exp()).sum();
            (f64::from(row[target]) - top).exp() / sum
        }
    }
}

/// Means of `each` values in a row.
pub(super) fn means(values: &[f64], each: usize) -> Vec<f64> {
    values.chunks(each.max(1)).map(|c| c.iter().sum::<f64>() / c.len() as f64).collect()
}

/// A metric of curves, with the same for random orders and for edges. Rows whose attributions are not finite have no value.
pub(super) fn compared(
    case: &super::Case<'_, '_>,
    mode: Mode,
    value: fn(&Curves) -> Vec<f64>,
    scores: bool,
    better: super::Better,
) -> Result<Measured, ExplainError> {
    let (bench, at) = (case.bench, usize::from(mode == Mode::Insertion));
    let own = &case.curves()?[at];
    let random = &bench.random_curves()?[at];
    let edges = bench.edge_curves()?.map(|c| &c[at]);
    let mut values = value(own);
    for (i, v) in values.iter_mut().enumerate() {
        if case.map(i).iter().any(|a| !a.is_finite()) {
            *v = f64::NAN;
        }
    }
    let mut curves = vec![own.mean("this method", scores), random.mean("random order", scores)];
    curves.extend(edges.map(|e| e.mean("edges (Sobel)", scores)));
    Ok(Measured {
        values,
        random: Some(means(&value(random), bench.protocol.orders)),
        edges: edges.map(value),
        better,
        curves,
        notes: Vec::new(),
    })
}
