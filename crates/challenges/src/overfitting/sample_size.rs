//! Would more data help: the error over growing parts of the training rows, with a power law through it.
//! Hestness et al. 2017, arXiv:1712.00409, equation 1; Figueroa et al., BMC Medical Informatics 12, 2012 (the fit with a
//! floor). Error = floor + factor · rows^-power; least squares weighted by binomial variance, over a grid of powers.
//!
//! Weak when: the parts are small, where networks are still guessing and no power law holds; or the law is taken far
//! beyond the rows that it was fitted on. Only twice the rows are asked for.

use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Comparison, Evidence, Mark, Need, OptionDoc, Plot, PlotKind, Series, Table,
    Threshold, Verdict,
};
use netproof_data::split;
use netproof_stats::descriptive::quantile;
use netproof_stats::rng::Rng;
use netproof_train::Recipe;
use serde::{Deserialize, Serialize};

use super::augmentation;
use super::retraining::{Outcomes, train_and_measure, training_rows};
use crate::shared::percent;

pub(crate) static CARD: Card = Card {
    id: "sample-size",
    version: 1,
    kind: CardKind::Check,
    title: "Sample size",
    challenge: Challenge::Overfitting,
    measures: "Trains the network on growing parts of its training rows and fits a power law to the error: whether more data \
               would help, and how much twice as much would.",
    reference: "Hestness et al. 2017, arXiv:1712.00409, equation 1; Figueroa et al., BMC Medical Informatics and Decision \
                Making 12:8, 2012",
    needs: &[Need::Labels, Need::Classifier, Need::TrainData, Need::Training],
    options: &[
        OptionDoc { name: "parts", default: "5", doc: "Parts of the rows, each half of the next, 3 to 10." },
        OptionDoc {
            name: "tolerance",
            default: "0.02",
            doc: "Gain in accuracy from twice the rows, as a fraction, beyond which their lack is a concern.",
        },
    ],
};

/// Fewest rows of a part.
const FEWEST: usize = 20;
/// Resamples of the interval.
const RESAMPLES: usize = 500;

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SampleSize {
    parts: u32,
    tolerance: f64,
}

impl Default for SampleSize {
    fn default() -> Self {
        Self { parts: 5, tolerance: 0.02 }
    }
}

/// An error rate at a number of training rows.
#[derive(Debug, Clone, Copy)]
struct Point {
    rows: f64,
    error: f64,
    tested: f64,
}

/// `floor + factor · rows^-power`
#[derive(Debug, Clone, Copy, PartialEq)]
struct Law {
    floor: f64,
    factor: f64,
    power: f64,
}

impl Law {
    fn at(&self, rows: f64) -> f64 {
        self.floor + self.factor * rows.powf(-self.power)
    }
}

impl Check for SampleSize {
    fn retrains(&self) -> bool {
        true
    }

    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        if !(3..=10).contains(&self.parts) {
            let message = format!("`parts` is {}; allowed: 3 to 10", self.parts);
            return Err(AuditError::Option { id: CARD.id.to_owned(), message });
        }
        let training = cx.training(subject)?;
        let (all, test) = (training_rows(subject)?, subject.data());
        let labels = all.annotations()?.labels;
        let mut points = Vec::new();
        let full = training.recipe();
        for part in (0..self.parts).rev() {
            let share = 0.5f64.powi(part as i32);
            let rows = if part == 0 {
                all.clone()
            } else {
                // The parts hold one another, so that a row is added and none taken away.
                let cut = split(all.len(), &[share, 1.0 - share], cx.seed, labels.classes())?;
                all.select(&cut[0])?
            };
            if rows.len() < FEWEST {
                continue;
            }
            // As many steps for a part as for all rows, or small parts would look worse than they are.
            let epochs = ((full.epochs as f64 / share).round() as u64).min(full.epochs.saturating_mul(4));
            let recipe = Recipe { seed: cx.seed, epochs, ..full.clone() };
            let network = training.network(&recipe, subject, recipe.seed)?;
            let what = format!("on {} rows", rows.len());
            let (outcomes, _) = train_and_measure(&what, &recipe, network, [&rows, test], training, cx)?;
            points.push(Point { rows: rows.len() as f64, error: outcomes.badness(), tested: outcomes.len() as f64 });
            debug_assert!(matches!(outcomes, Outcomes::Right(_)));
        }
        let draft = cx.finding("gain", "What twice the training rows would give");
        let Some(law) = fit(&points).filter(|_| points.len() >= 3) else {
            let text = format!("{} training rows are too few to be halved {} times.", all.len(), self.parts - 1);
            return Ok(vec![draft.verdict(Verdict::Inconclusive).explain(text).done()].into());
        };
        let n = all.len() as f64;
        let gain = law.at(n) - law.at(2.0 * n);
        let ends = resampled(&points, n, cx);
        let needed = self.needed(&law, n);
        let mut draft = draft
            .value("gain_from_twice_the_rows", "fraction", gain)
            .n(test.len() as u64)
            .interval(ends.map(|[low, high]| netproof_stats::Interval {
                low,
                high,
                level: cx.level.get(),
                method: "bootstrap-percentile",
            }))
            .threshold(Threshold {
                value: self.tolerance,
                comparison: Comparison::AtMost,
                source: "option `tolerance` of this check".to_owned(),
            })
            .explain(format!(
                "The error falls as {:.4} + {:.3} · rows^-{:.2}. With {} rows it is {}; twice as many would take {} off it. \
                 {needed} {}",
                law.floor,
                law.factor,
                law.power,
                all.len(),
                percent(law.at(n)),
                percent(gain),
                training.describe()
            ))
            .caveat("the law is an extrapolation; new rows must come from where the old ones did")
            .caveat("one training per part: the interval holds the noise of the test rows, not that of seeds")
            .evidence(Evidence::Plot(plot(&points, &law)))
            .evidence(Evidence::Table(table(&points, &law)))
            .remedy(augmentation::CARD.id);
        if gain > self.tolerance && ends.is_none_or(|[low, _]| low <= 0.0) {
            draft = draft.verdict(Verdict::Inconclusive).caveat("the interval reaches 0");
        }
        Ok(vec![draft.done()].into())
    }
}

impl SampleSize {
    /// How many rows would halve what is above the floor.
    fn needed(&self, law: &Law, n: f64) -> String {
        let more = 2f64.powf(1.0 / law.power.max(1e-6));
        if law.factor <= 0.0 || !more.is_finite() || more > 1000.0 {
            return "No number of rows within reach would halve it.".to_owned();
        }
        format!("About {:.0} rows would halve what is above the floor.", n * more)
    }
}

/// Weighted least squares: for each power of a grid, floor and factor in closed form, neither below 0.
fn fit(points: &[Point]) -> Option<Law> {
    if points.len() < 2 {
        return None;
    }
    let mut best: Option<(f64, Law)> = None;
    for step in 1..=100 {
        let power = 0.02 * f64::from(step);
        let weight = |p: &Point| {
            // Add one row on both sides, so that no error rate has a variance of 0.
            let e = (p.error * p.tested + 1.0) / (p.tested + 2.0);
            p.tested / (e * (1.0 - e))
        };
        let sums = points.iter().fold([0.0; 5], |[w, x, y, xx, xy], p| {
            let (u, v, k) = (p.rows.powf(-power), p.error, weight(p));
            [w + k, x + k * u, y + k * v, xx + k * u * u, xy + k * u * v]
        });
        let [w, x, y, xx, xy] = sums;
        let determinant = w * xx - x * x;
        let candidates = [
            ((xx * y - x * xy) / determinant, (w * xy - x * y) / determinant),
            // On the edges: no floor, or nothing but a floor.
            (0.0, xy / xx),
            (y / w, 0.0),
        ];
        for (floor, factor) in candidates.into_iter().filter(|(a, b)| *a >= 0.0 && *b >= 0.0) {
            let law = Law { floor, factor, power };
            let off: f64 = points.iter().map(|p| weight(p) * (p.error - law.at(p.rows)).powi(2)).sum();
            if off.is_finite() && best.is_none_or(|(b, _)| off < b) {
                best = Some((off, law));
            }
        }
    }
    best.map(|(_, law)| law)
}

/// Ends of the interval of the gain, from error rates drawn anew around those that were measured.
fn resampled(points: &[Point], n: f64, cx: &Context<'_>) -> Option<[f64; 2]> {
    let mut gains = Vec::with_capacity(RESAMPLES);
    for i in 0..RESAMPLES {
        let mut rng = Rng::stream(cx.seed, i as u64 + 1);
        let drawn: Vec<Point> = points
            .iter()
            .map(|p| {
                let sd = (p.error * (1.0 - p.error) / p.tested.max(1.0)).sqrt();
                Point { error: (p.error + sd * rng.normal()).clamp(0.0, 1.0), ..*p }
            })
            .collect();
        gains.extend(fit(&drawn).map(|law| law.at(n) - law.at(2.0 * n)));
    }
    let tail = cx.level.tail();
    Some([quantile(&gains, tail)?, quantile(&gains, 1.0 - tail)?])
}

fn plot(points: &[Point], law: &Law) -> Plot {
    let sd = |p: &Point| (p.error * (1.0 - p.error) / p.tested.max(1.0)).sqrt();
    let measured = points.iter().map(|p| Mark {
        x: Some(p.rows),
        y: p.error,
        low: Some((p.error - 1.96 * sd(p)).max(0.0)),
        high: Some(p.error + 1.96 * sd(p)),
        n: Some(p.tested as u64),
        ..Mark::default()
    });
    let last = points.last().map_or(1.0, |p| p.rows);
    let mut at: Vec<f64> = points.iter().map(|p| p.rows).collect();
    at.push(2.0 * last);
    let fitted = at.iter().map(|&n| Mark { x: Some(n), y: law.at(n), ..Mark::default() });
    Plot {
        title: "Error over the number of training rows, and the law up to twice as many".to_owned(),
        x: Axis { label: "training rows".to_owned(), range: None, log: true },
        y: Axis::new("fraction of wrong answers"),
        plot: PlotKind::Lines,
        series: vec![
            Series { name: "measured".to_owned(), marks: measured.collect() },
            Series { name: "power law".to_owned(), marks: fitted.collect() },
        ],
        reference: None,
    }
}

fn table(points: &[Point], law: &Law) -> Table {
    Table {
        title: "Error by number of training rows".to_owned(),
        columns: ["training rows", "error", "error of the law"].map(String::from).to_vec(),
        rows: points.iter().map(|p| vec![(p.rows as u64).into(), p.error.into(), law.at(p.rows).into()]).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_law_is_found_again() {
        let truth = Law { floor: 0.03, factor: 2.0, power: 0.5 };
        let point = |rows: f64| Point { rows, error: truth.at(rows), tested: 1e4 };
        let points: Vec<Point> = [100.0, 200.0, 400.0, 800.0, 1600.0].map(point).to_vec();
        let got = fit(&points).unwrap();
        assert!((got.floor - 0.03).abs() < 1e-9 && (got.factor - 2.0).abs() < 1e-7 && got.power == 0.5, "{got:?}");
        // Without a floor, and with nothing to gain.
        let pure = Law { floor: 0.0, factor: 1.0, power: 0.3 };
        let points: Vec<Point> =
            [50.0, 100.0, 200.0].map(|rows| Point { rows, error: pure.at(rows), tested: 1e4 }).to_vec();
        assert!((fit(&points).unwrap().at(400.0) - pure.at(400.0)).abs() < 1e-6);
        let flat: Vec<Point> = [50.0, 100.0, 200.0].map(|rows| Point { rows, error: 0.2, tested: 1e4 }).to_vec();
        let law = fit(&flat).unwrap();
        assert!((law.at(200.0) - law.at(400.0)).abs() < 1e-6);
        assert_eq!(fit(&points[..1]), None);
    }

    #[test]
    fn errors_that_grow_with_the_rows_give_no_gain() {
        let points: Vec<Point> = [(50.0, 0.1), (100.0, 0.2), (200.0, 0.3)]
            .map(|(rows, error)| Point { rows, error, tested: 100.0 })
            .to_vec();
        let law = fit(&points).unwrap();
        assert!(law.factor == 0.0 && law.at(400.0) == law.at(200.0), "{law:?}");
    }
}
