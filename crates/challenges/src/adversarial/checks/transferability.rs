//! How far examples carry from one network to another: made on each, tried on all.
//!
//! Papernot, McDaniel and Goodfellow 2016, arXiv:1605.07277, sections 3 and 4 (the matrix of networks); examples and
//! surrogates as in `protocols/transfer`. The networks are this one and those of `--surrogate`; without any, one that
//! is learnt from this one's answers. Each example is replayed by the harness of the network that it is tried on.
//! Checked against: the diagonal, which is the attack with the network's own gradients. Weak: a low number may mean
//! that the surrogates are poor.

use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Evidence, Finding, Need, Norm, OptionDoc, Plot, PlotKind, Table, Threat, Verdict,
};
use netproof_stats::Estimate;
use netproof_stats::interval::proportion::clopper_pearson;
use serde::{Deserialize, Serialize};

use super::{Target, affordable, threat};
use crate::adversarial::error::need_norm;
use crate::adversarial::harness::Harness;
use crate::adversarial::projection::CONVEX;
use crate::adversarial::protocols::transfer::Transfer;
use crate::adversarial::surrogate::{climb, distil, of};
use crate::adversarial::victim::Victim;
use crate::shared::percent;

pub(crate) static CARD: Card = Card {
    id: "transferability",
    version: 1,
    kind: CardKind::Check,
    title: "Transferability of adversarial examples",
    challenge: Challenge::Adversarial,
    measures: "How many rows this network gets wrong after changes that were made on another network, and the other way round.",
    reference: "Papernot, McDaniel and Goodfellow 2016, arXiv:1605.07277; Dong et al., CVPR 2018, arXiv:1710.06081",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc { name: "norm", default: "\"linf\"", doc: "How the size of a change is measured: linf, l2 or l1." },
        OptionDoc { name: "epsilon", default: "0.05", doc: "Largest change, in units of the features." },
        OptionDoc { name: "bounds", default: "[0.0, 1.0]", doc: "Least and largest value of a feature." },
        OptionDoc { name: "rows", default: "100", doc: "Rows that are attacked, the first ones, at least 20." },
        OptionDoc { name: "steps", default: "10", doc: "Steps of the attack, 1 to 10000." },
        OptionDoc { name: "rounds", default: "3", doc: "Times that a surrogate asks about new points, 0 to 10." },
        OptionDoc { name: "epochs", default: "15", doc: "Epochs of each training of a surrogate, 1 to 1000." },
        OptionDoc {
            name: "most_gmacs",
            default: "500.0",
            doc: "Work in thousand million multiply-accumulates that may be spent; fewer rows are attacked where they cost \
                  more.",
        },
    ],
};

/// Fewest rows that a surrogate learns from, and that a number is worth.
const FEWEST: usize = 20;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Transferability {
    norm: Norm,
    epsilon: f64,
    bounds: Vec<f64>,
    rows: usize,
    steps: usize,
    rounds: usize,
    epochs: u64,
    most_gmacs: f64,
}

impl Default for Transferability {
    fn default() -> Self {
        Self {
            norm: Norm::Linf,
            epsilon: 0.05,
            bounds: vec![0.0, 1.0],
            rows: 100,
            steps: 10,
            rounds: 3,
            epochs: 15,
            most_gmacs: 500.0,
        }
    }
}

/// Rows that a network got right, and how many of them it got wrong after changes made on another.
#[derive(Debug, Clone, Copy)]
struct Carried {
    broken: u64,
    right: u64,
}

impl Check for Transferability {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let refuse = |verdict, text: String| {
            let f = cx.finding("applicable", CARD.title).verdict(verdict);
            Ok(vec![f.explain(text).done()].into())
        };
        let how = Transfer { steps: self.steps, rounds: self.rounds, epochs: self.epochs, ..Transfer::default() };
        how.check()?;
        let t = threat(self.norm, self.epsilon, &self.bounds)?;
        need_norm(&CARD, CONVEX, t.norm)?;
        let wanted = self.rows.max(FEWEST).min(subject.data().len());
        // A gradient is about two passes; the queries of a surrogate come on top.
        let passes = 3.0 * self.steps as f64 + (1u64 << self.rounds) as f64;
        let rows = affordable(subject, wanted, passes, self.most_gmacs);
        if rows < FEWEST {
            let text = format!(
                "{FEWEST} rows or more are needed; the data and `most_gmacs` = {} allow {rows}. Raise --set \
                 {}.most_gmacs.",
                self.most_gmacs, CARD.id
            );
            return refuse(Verdict::Inconclusive, text);
        }
        let target = Target::load(subject, rows)?;
        if !target.is_within(t.bounds) {
            let text = format!("The features are not within {:?}. Give --set {}.bounds=[LOW,HIGH].", t.bounds, CARD.id);
            return refuse(Verdict::NotApplicable, text);
        }
        let mut notes = Vec::new();
        let learnt;
        let mut networks = vec![("this network".to_owned(), target.victim.clone())];
        networks.extend(target.surrogates(subject)?);
        if networks.len() == 1 {
            let over = || cx.deadline.is_some_and(|end| std::time::Instant::now() >= end);
            let x = target.x.as_f32().unwrap_or_default();
            learnt = distil(&target.victim, x, &how.learning(t.bounds, cx.seed), &over)?;
            cx.check_time()?;
            notes.push(format!(
                "no --surrogate was given, so one was learnt from the classes that the network answers to {} rows; on the last new \
                 ones it agreed with the network in {} before it learnt from them: a better surrogate may carry over more",
                learnt.queries,
                percent(learnt.agreement)
            ));
            networks.push(("learnt surrogate".to_owned(), of(&learnt.model, &target.victim)?));
        }
        let matrix = self.matrix(&target, &networks, t, how, cx)?;
        let names: Vec<String> = networks.into_iter().map(|n| n.0).collect();
        Ok(vec![self.finding(&names, &matrix, notes, cx)].into())
    }
}

impl Transferability {
    /// By the network that the changes are made on, then by the one that they are tried on.
    fn matrix(
        &self,
        target: &Target<'_>,
        networks: &[(String, Victim<'_>)],
        threat: Threat,
        how: Transfer,
        cx: &Context<'_>,
    ) -> Result<Vec<Vec<Option<Carried>>>, AuditError> {
        let x = target.x.as_f32().unwrap_or_default();
        let mut all = Vec::with_capacity(networks.len());
        for (_, source) in networks {
            if source.need_gradient().is_err() {
                all.push(vec![None; networks.len()]);
                continue;
            }
            let changed = climb(&[source], x, &target.labels, &threat, (self.steps, how.decay))?;
            let mut tried = Vec::with_capacity(networks.len());
            for (name, other) in networks {
                cx.check_time()?;
                let ids = &target.row_ids;
                let harness = Harness::new(other, threat, &target.x, &target.labels, ids, cx.seed, cx.progress)?;
                let mut harness = harness.keeping(target.possible.clone());
                let right = harness.standing().len() as u64;
                let broken = harness.replay(name, &changed, &[])? as u64;
                tried.push(Some(Carried { broken, right }));
            }
            all.push(tried);
        }
        Ok(all)
    }

    fn finding(
        &self,
        names: &[String],
        matrix: &[Vec<Option<Carried>>],
        notes: Vec<String>,
        cx: &Context<'_>,
    ) -> Finding {
        let rate = |c: &Carried| c.broken as f64 / c.right.max(1) as f64;
        let worst =
            (1..names.len()).filter_map(|s| Some((s, matrix[s][0]?))).max_by(|a, b| rate(&a.1).total_cmp(&rate(&b.1)));
        let draft = cx.finding("carried", "Adversarial examples of other networks carry over");
        let Some((source, carried)) = worst.filter(|w| w.1.right > 0) else {
            let text = "No other network has gradients, or this one is wrong on every row without a change.";
            return draft.verdict(Verdict::Inconclusive).explain(text).caveats(notes).done();
        };
        let estimate = Estimate {
            value: rate(&carried),
            n: carried.right,
            standard_error: None,
            interval: clopper_pearson(carried.broken, carried.right, cx.level),
        };
        let own = matrix[0][0].map_or_else(String::new, |c| {
            format!(" With its own gradients the same attack turns {} of {}.", c.broken, c.right)
        });
        // A network without gradients has no row to show.
        let values: Option<Vec<f64>> = matrix.iter().flatten().map(|c| c.as_ref().map(rate)).collect();
        let mut table = Table {
            title: format!("Rows turned by changes of at most {} {}", self.norm, self.epsilon),
            columns: [
                "made on",
                "tried on",
                "rows right before",
                "turned",
                "fraction",
                "interval low",
                "interval high",
            ]
            .map(String::from)
            .to_vec(),
            rows: Vec::new(),
        };
        for (s, tried) in matrix.iter().enumerate() {
            for (t, c) in tried.iter().enumerate() {
                let Some(c) = c else { continue };
                let i = clopper_pearson(c.broken, c.right, cx.level);
                table.rows.push(vec![
                    names[s].clone().into(),
                    names[t].clone().into(),
                    c.right.into(),
                    c.broken.into(),
                    rate(c).into(),
                    i.map(|i| i.low).into(),
                    i.map(|i| i.high).into(),
                ]);
            }
        }
        let mut draft = draft;
        if let Some(values) = values {
            draft = draft.evidence(Evidence::Plot(Plot {
                title: "Fraction of rows turned".to_owned(),
                x: Axis::new("tried on"),
                y: Axis::new("made on"),
                plot: PlotKind::Matrix { rows: names.to_vec(), columns: names.to_vec(), values },
                series: Vec::new(),
                reference: None,
            }));
        }
        draft
            .estimate("transfer_rate", "fraction", &estimate)
            .explain(format!(
                "{} of {} rows that this network gets right turn wrong after changes of at most {} {} that were made on {}: an attacker \
                 needs no look inside.{own}",
                carried.broken, carried.right, self.norm, self.epsilon, names[source]
            ))
            .caveats(notes)
            .caveats((names.len() > 2).then(|| "the other network was chosen because most carries over from it".to_owned()))
            .evidence(Evidence::Table(table))
            .done()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use netproof_audit::{Silent, context};
    use netproof_data::{Dataset, Labels, OpenOptions};
    use netproof_graph::Model;
    use netproof_stats::Level;
    use netproof_tensor::Tensor;

    use super::*;
    use crate::adversarial::test_support::{linear, rows};

    fn finding(model: Model, others: Vec<(String, Arc<Model>)>, options: Transferability) -> Finding {
        let (x, labels) = rows(&model, 3, 60, 2);
        let x = Tensor::f32(vec![60, 3], x).unwrap();
        let data = Dataset::from_memory(x, Labels::Classes(labels), Vec::new(), &OpenOptions::default()).unwrap();
        let subject = Subject::new(model, "m", data, None).unwrap().with_others(others);
        let cx = context(&subject, &CARD, "{}", 1, Level::P95, &Silent).unwrap();
        options.run(&subject, &cx).unwrap().reproducible.remove(0)
    }

    const W: [f32; 3] = [0.5, -2.0, 1.0];

    fn slope(w: [f32; 3]) -> Model {
        linear(&[[0.0; 3], w], &[0.0, 0.3])
    }

    #[test]
    fn a_twin_carries_over_all_and_its_opposite_nothing() {
        let options = Transferability { epsilon: 0.15, ..Transferability::default() };
        let twin = finding(slope(W), vec![("twin".to_owned(), Arc::new(slope(W.map(|v| 4.0 * v))))], options.clone());
        let Evidence::Plot(Plot { plot: PlotKind::Matrix { values, rows, .. }, .. }) = &twin.evidence[0] else {
            panic!("no matrix")
        };
        assert_eq!(rows, &["this network", "twin"]);
        assert!(values[0] > 0.1 && (values[0] - values[2]).abs() < 1e-9, "{values:?}");
        assert_eq!(twin.value, Some(values[2]));
        let i = twin.interval.as_ref().unwrap();
        assert!(i.method == "clopper-pearson" && i.low < values[2] && values[2] < i.high);
        let opposite = finding(slope(W), vec![("opposite".to_owned(), Arc::new(slope(W.map(|v| -v))))], options);
        assert_eq!(opposite.value, Some(0.0));
    }

    #[test]
    fn without_another_network_one_is_learnt() {
        let options = Transferability { epsilon: 0.2, rounds: 1, ..Transferability::default() };
        let found = finding(slope(W), Vec::new(), options);
        assert!(found.value.unwrap() > 0.05, "{}", found.explanation);
        assert!(found.caveats.iter().any(|c| c.contains("120 rows")), "{:?}", found.caveats);
    }
}
