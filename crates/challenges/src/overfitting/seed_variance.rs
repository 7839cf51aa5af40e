//! The same recipe from several seeds: how far networks differ by chance alone, and whether this one differs more.
//! Bouthillier et al., MLSys 2021, arXiv:2103.03098; Picard 2021, arXiv:2109.08203.
//!
//! All are measured on the same rows, so that the spread is that of training, not of sampling. Weak when: few seeds.

use netproof_audit::{AuditError, Check, Context, Findings, Part, Subject};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Evidence, Mark, Need, OptionDoc, Plot, PlotKind, Series, Verdict,
};
use netproof_stats::Level;
use netproof_stats::interval::mean::student;
use netproof_stats::special::beta_quantile;
use netproof_train::{Recipe, measure};
use serde::{Deserialize, Serialize};

use super::retraining::{Outcomes, train_and_measure, training_rows};

pub(crate) static CARD: Card = Card {
    id: "seed-variance",
    version: 1,
    kind: CardKind::Check,
    title: "Variance between seeds",
    challenge: Challenge::Overfitting,
    measures: "Trains the network from several seeds: how much the result varies by chance, and whether the network under \
               audit lies beyond that.",
    reference: "Bouthillier et al., MLSys 2021, arXiv:2103.03098, section 2",
    needs: &[Need::Labels, Need::TrainData, Need::Training],
    options: &[OptionDoc { name: "seeds", default: "5", doc: "Trainings, 3 to 100." }],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SeedVariance {
    seeds: u64,
}

impl Default for SeedVariance {
    fn default() -> Self {
        Self { seeds: 5 }
    }
}

impl Check for SeedVariance {
    fn retrains(&self) -> bool {
        true
    }

    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        if !(3..=100).contains(&self.seeds) {
            let message = format!("`seeds` is {}; allowed: 3 to 100", self.seeds);
            return Err(AuditError::Option { id: CARD.id.to_owned(), message });
        }
        let training = cx.training(subject)?;
        let (rows, test) = (training_rows(subject)?, subject.data());
        let mut results = Vec::new();
        let mut metric = ("accuracy", "fraction");
        for i in 0..self.seeds {
            let recipe = Recipe { seed: cx.seed + i, ..training.recipe().clone() };
            let network = training.network(&recipe, subject, recipe.seed)?;
            let what = format!("seed {} of {}", i + 1, self.seeds);
            let (outcomes, _) = train_and_measure(&what, &recipe, network, [rows, test], training, cx)?;
            metric = outcomes.metric();
            results.push(value(&outcomes, cx.level));
        }
        let own = netproof_graph::Model::from_file(subject.model().to_file()?)?;
        let own = measure(training.recipe(), own, test, training.registry())?;
        let own = value(&Outcomes::new(&own, &test.annotations()?.labels), cx.level);
        let (mean, sd, k) = spread(&results);
        let marks = results.iter().enumerate().map(|(i, v)| Mark {
            x: Some((cx.seed + i as u64) as f64),
            y: *v,
            ..Mark::default()
        });
        let plot = Plot {
            title: format!("{} of the same recipe from several seeds; the line is the network under audit", metric.0),
            x: Axis::new("seed"),
            y: Axis::new(metric.0),
            plot: PlotKind::Points,
            series: vec![Series { name: "retrained".to_owned(), marks: marks.collect() }],
            reference: Some(own),
        };
        let reach = sd * cx.level.t(k - 1.0) * std::f64::consts::SQRT_2;
        let n = subject.part(Part::Test).map_or(0, netproof_data::Dataset::len);
        let spread = cx
            .finding("spread", "Spread between seeds")
            .value(&format!("{}_between_seeds", metric.0), metric.1, sd)
            .n(self.seeds)
            .interval(sd_interval(sd, k, cx.level))
            .explain(format!(
                "Standard deviation over {} trainings on the same {n} rows; their mean is {mean:.4}. Two trainings that differ \
                 by less than {reach:.4} differ by no more than seeds do. {}",
                self.seeds,
                training.describe()
            ))
            .caveats((self.seeds < 10).then(|| "few seeds: the interval is wide".to_owned()))
            .evidence(Evidence::Plot(plot))
            .done();
        // A further training lies within this of the mean, with the level's probability.
        let further = sd * (1.0 + 1.0 / k).sqrt();
        let inside = student(own - mean, further, k - 1.0, cx.level);
        let beyond = !inside.contains(0.0);
        let this = cx
            .finding("this-network", "This network among its seeds")
            .value(&format!("{}_minus_mean_of_seeds", metric.0), metric.1, own - mean)
            .n(self.seeds)
            .interval(Some(inside))
            .verdict(if beyond && !training.is_given() { Verdict::Inconclusive } else { Verdict::Pass })
            .explain(match (beyond, training.is_given()) {
                (false, _) => {
                    "The network under audit is what its recipe gives: it differs from the retrained ones by no more \
                               than a further seed would."
                        .to_owned()
                }
                (true, true) => {
                    "The network under audit differs from what its recipe gives by more than seeds do: another \
                                 recipe or other data gave it, or its seed was chosen for these rows."
                        .to_owned()
                }
                (true, false) => {
                    "The network under audit was trained in another way than by this recipe, which is Netproof's \
                                  own: give its recipe with --recipe."
                        .to_owned()
                }
            })
            .done();
        Ok(vec![spread, this].into())
    }
}

fn value(outcomes: &Outcomes, level: Level) -> f64 {
    outcomes.estimate(level).map_or(f64::NAN, |e| e.value)
}

/// Mean, standard deviation, count.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let k = values.len() as f64;
    let mean = values.iter().sum::<f64>() / k;
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (k - 1.0);
    (mean, square.sqrt(), k)
}

/// Interval of a standard deviation of normal values: `s √((k-1) / χ²)`.
fn sd_interval(sd: f64, k: f64, level: Level) -> Option<netproof_stats::Interval> {
    // With b → ∞, 2b times a beta law of (ν/2, b) becomes χ² with ν degrees of freedom; the error is about ν/b.
    const B: f64 = 1e8;
    let freedom = k - 1.0;
    let quantile = |p: f64| 2.0 * B * beta_quantile(p, 0.5 * freedom, B);
    let end = |p: f64| sd * (freedom / quantile(p)).sqrt();
    let (low, high) = (end(1.0 - level.tail()), end(level.tail()));
    (low.is_finite() && high.is_finite()).then_some(netproof_stats::Interval {
        low,
        high,
        level: level.get(),
        method: "chi-square",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_of_a_sample_has_its_interval() {
        let (mean, sd, k) = spread(&[0.90, 0.91, 0.93, 0.94, 0.92]);
        assert!((mean - 0.92).abs() < 1e-12 && (sd - 0.0158113883).abs() < 1e-9 && k == 5.0);
        // SciPy: sqrt(4 / chi2.ppf([0.975, 0.025], 4)) = 0.59912..., 2.87356...
        let i = sd_interval(1.0, 5.0, Level::P95).unwrap();
        assert!((i.low - 0.599130).abs() < 1e-4 && (i.high - 2.873559).abs() < 1e-3, "{i:?}");
    }
}
