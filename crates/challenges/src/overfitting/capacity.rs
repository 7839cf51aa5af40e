//! How large the network need be: the same graph with fewer units, trained anew, and where more units stop paying.
//! The rule of one standard error: Breiman, Friedman, Olshen and Stone, Classification and Regression Trees, 1984, section
//! 3.4.3. Which units go: `narrowed` in `netproof-graph`.
//!
//! Sizes are compared on training rows that are set aside, not on the rows under audit: the answer is a choice.

use netproof_audit::{AuditError, Check, Context, Findings, Subject, Training};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Evidence, Mark, Need, OptionDoc, Plot, PlotKind, Series, Table, Verdict,
};
use netproof_data::split;
use netproof_graph::Model;
use netproof_stats::Estimate;
use netproof_stats::interval::difference::{Paired, paired};
use netproof_stats::interval::mean::mean;
use netproof_train::{Recipe, shallower};
use serde::{Deserialize, Serialize};

use super::retraining::{Outcomes, train_and_measure, training_rows};
use super::smaller_model;

pub(crate) static CARD: Card = Card {
    id: "capacity",
    version: 1,
    kind: CardKind::Check,
    title: "Capacity",
    challenge: Challenge::Overfitting,
    measures: "Trains the network with fewer units and, where a recipe builds it, with fewer layers: where more capacity stops \
               paying, and the smallest size within one standard error of the best.",
    reference: "Breiman, Friedman, Olshen and Stone, Classification and Regression Trees, 1984, section 3.4.3",
    needs: &[Need::Labels, Need::TrainData, Need::Training],
    options: &[
        OptionDoc {
            name: "keep",
            default: "[0.5, 0.25, 0.125]",
            doc: "Parts of the units of the inner layers that stay, over 0 and below 1.",
        },
        OptionDoc { name: "fraction", default: "0.2", doc: "Part of the training rows that sizes are compared on." },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Capacity {
    keep: Vec<f64>,
    fraction: f64,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { keep: vec![0.5, 0.25, 0.125], fraction: 0.2 }
    }
}

/// A size that was tried.
struct Size {
    name: String,
    parameters: u64,
    outcomes: Outcomes,
    estimate: Estimate,
}

impl Check for Capacity {
    fn retrains(&self) -> bool {
        true
    }

    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let refuse = |message: String| AuditError::Option { id: CARD.id.to_owned(), message };
        if let Some(k) = self.keep.iter().find(|k| !(**k > 0.0 && **k < 1.0)) {
            return Err(refuse(format!("`keep` has {k}; allowed: over 0 and below 1")));
        }
        if !(self.fraction > 0.0 && self.fraction < 1.0) {
            return Err(refuse(format!("`fraction` is {}; allowed: over 0 and below 1", self.fraction)));
        }
        let training = cx.training(subject)?;
        let all = training_rows(subject)?;
        let cut =
            split(all.len(), &[1.0 - self.fraction, self.fraction], cx.seed, all.annotations()?.labels.classes())?;
        let rows = [all.select(&cut[0])?, all.select(&cut[1])?];
        let base = Recipe { seed: cx.seed, ..training.recipe().clone() };
        let mut sizes = Vec::new();
        let mut add = |name: String, recipe: &Recipe, network: Model| -> Result<(), AuditError> {
            let parameters = network.parameters().map(|p| p.shape.iter().product::<usize>() as u64).sum();
            let (outcomes, _) = train_and_measure(&name, recipe, network, [&rows[0], &rows[1]], training, cx)?;
            if let Some(estimate) = outcomes.estimate(cx.level) {
                sizes.push(Size { name, parameters, outcomes, estimate });
            }
            Ok(())
        };
        let full = training.network(&base, subject, base.seed)?;
        if full.narrowed(0.5).is_err() {
            let text = "No layer of this network can be made narrower, so that sizes cannot be compared.";
            let draft = cx.finding("size", CARD.title).verdict(Verdict::NotApplicable);
            return Ok(vec![draft.explain(text).done()].into());
        }
        add("as it is".to_owned(), &base, Model::from_file(full.to_file()?)?)?;
        for keep in &self.keep {
            add(format!("{keep} of the units"), &base, narrower(&full, *keep, training, base.seed)?)?;
        }
        let mut network = base.network.clone();
        while let Some(less) = shallower(&network).filter(|_| training.is_given()) {
            let recipe = Recipe { network: less.clone(), ..base.clone() };
            let made = training.network(&recipe, subject, recipe.seed)?;
            add("with fewer layers".to_owned(), &recipe, made)?;
            network = less;
        }
        Ok(vec![self.judge(&sizes, training, cx)].into())
    }
}

/// The network with fewer units; where it starts from fresh weights, these are drawn for its new size.
fn narrower(full: &Model, keep: f64, training: &Training, seed: u64) -> Result<Model, AuditError> {
    let mut model = full.narrowed(keep)?;
    if !training.is_given() {
        model.reinitialise(seed)?;
    }
    Ok(model)
}

impl Capacity {
    fn judge(&self, sizes: &[Size], training: &Training, cx: &Context<'_>) -> netproof_core::Finding {
        let draft = cx.finding("size", "Smallest network that is as good");
        let best = sizes.iter().min_by(|a, b| a.outcomes.badness().total_cmp(&b.outcomes.badness()));
        let (Some(best), Some(full)) = (best, sizes.first()) else {
            return draft.verdict(Verdict::Inconclusive).explain("No size could be measured.").done();
        };
        let limit = best.outcomes.badness() + best.estimate.standard_error.unwrap_or(0.0);
        let enough =
            sizes.iter().filter(|s| s.outcomes.badness() <= limit).min_by_key(|s| s.parameters).unwrap_or(full);
        let (metric, unit) = full.outcomes.metric();
        let change = difference(&enough.outcomes, &full.outcomes, cx);
        let mark = |s: &Size| Mark {
            x: Some(s.parameters as f64),
            y: s.estimate.value,
            low: s.estimate.interval.map(|i| i.low),
            high: s.estimate.interval.map(|i| i.high),
            n: Some(s.estimate.n),
            label: Some(s.name.clone()),
        };
        let mut marks: Vec<Mark> = sizes.iter().map(mark).collect();
        marks.sort_by(|a, b| a.x.unwrap_or(0.0).total_cmp(&b.x.unwrap_or(0.0)));
        let plot = Plot {
            title: format!("{metric} by size"),
            x: Axis { label: "parameters".to_owned(), range: None, log: true },
            y: Axis::new(metric),
            plot: PlotKind::Points,
            series: vec![Series { name: "trained anew".to_owned(), marks }],
            reference: Some(full.estimate.value),
        };
        let rows = sizes.iter().map(|s| {
            let i = s.estimate.interval;
            vec![
                s.name.clone().into(),
                s.parameters.into(),
                s.estimate.value.into(),
                i.map(|i| i.low).into(),
                i.map(|i| i.high).into(),
            ]
        });
        let table = Table {
            title: "Sizes, measured on training rows that were set aside".to_owned(),
            columns: ["size", "parameters", metric, "low", "high"].map(String::from).to_vec(),
            rows: rows.collect(),
        };
        let smaller = enough.parameters < full.parameters;
        let mut draft = draft;
        draft = match change {
            Some(change) => draft.estimate(&format!("{metric}_of_smallest_minus_full"), unit, &change),
            None => draft.value(&format!("{metric}_of_smallest_minus_full"), unit, 0.0),
        };
        let part = 100.0 * enough.parameters as f64 / full.parameters.max(1) as f64;
        draft = draft
            .explain(if smaller {
                format!(
                    "`{}` ({} parameters, {part:.1} % of {}) is within one standard error of the best size. {}",
                    enough.name,
                    enough.parameters,
                    full.parameters,
                    training.describe()
                )
            } else {
                format!(
                    "No smaller size is within one standard error of the best; more units might still pay. {}",
                    training.describe()
                )
            })
            .caveat("one training per size: the interval holds the noise of the rows, not that of seeds")
            .evidence(Evidence::Plot(plot))
            .evidence(Evidence::Table(table));
        if smaller {
            draft = draft.remedy(smaller_model::CARD.id);
        }
        // Larger than good for it: a smaller one is better, beyond noise.
        let harmful = difference(&best.outcomes, &full.outcomes, cx)
            .and_then(|d| d.interval)
            .is_some_and(|i| if matches!(full.outcomes, Outcomes::Right(_)) { i.low > 0.0 } else { i.high < 0.0 });
        if harmful {
            draft = draft.verdict(Verdict::Concern).caveat("a smaller size is better beyond noise");
        }
        draft.done()
    }
}

/// First minus second, row by row.
fn difference(first: &Outcomes, second: &Outcomes, cx: &Context<'_>) -> Option<Estimate> {
    match (first, second) {
        (Outcomes::Right(a), Outcomes::Right(b)) => {
            paired(Paired::count(a.iter().copied().zip(b.iter().copied())), cx.level)
        }
        (Outcomes::Errors(a), Outcomes::Errors(b)) => {
            mean(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>(), cx.level)
        }
        _ => None,
    }
}
