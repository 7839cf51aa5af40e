//! The proof: the network as it was given and the chosen one, audited on rows that neither training nor choice has seen.

use netproof_core::{
    AuditDocument, Axis, Cell, Comparison, Evidence, Finding, Mark, Plot, PlotKind, Series, Table, Threshold, Verdict,
};
use netproof_graph::Model;
use netproof_train::{Recipe, Record};

use super::compare::{Change, Judgement, compare};
use super::{Bench, Prepared, REPAIR, State, Tried, shown};
use crate::runner::run;
use crate::{AuditError, Context, Draft};

/// How a repair ended.
#[derive(Debug)]
pub struct Outcome {
    /// All candidates, in the order in which they were tried.
    pub tried: Vec<Tried>,
    /// Which of them was put to the proof.
    pub chosen: Option<usize>,
    /// The repaired network; `None` where nothing was proved better.
    pub model: Option<Model>,
    /// Recipe and record of each training behind it; empty where nothing was trained.
    pub trainings: Vec<(Recipe, Record)>,
    /// The network as it was given, on the rows of the proof.
    pub before: AuditDocument,
    /// The chosen network on the same rows.
    pub after: Option<AuditDocument>,
    /// The comparison.
    pub changes: Vec<Change>,
    /// What there is to say: for a report, before the findings of `after`.
    pub findings: Vec<Finding>,
}

impl Outcome {
    /// What a report is made of: the findings of the repair, then those of the network that is recommended.
    pub fn document(&self) -> AuditDocument {
        let base = if self.model.is_some() { self.after.as_ref().unwrap_or(&self.before) } else { &self.before };
        let mut document = base.clone();
        document.findings.splice(0..0, self.findings.iter().cloned());
        document
    }
}

pub(super) fn prove(
    prepared: &Prepared<'_>,
    mut tried: Vec<Tried>,
    best: Option<usize>,
    bench: &Bench<'_>,
) -> Result<Outcome, AuditError> {
    let s = prepared.settings;
    let before = run(&prepared.verify, s.audit, Some(bench.folder), bench.progress)?;
    let cx = prepared.context(&REPAIR, "", None, bench.progress, None)?;
    let made = best.and_then(|b| tried[b].made.take());
    let mut outcome = Outcome {
        tried,
        chosen: best,
        model: None,
        trainings: Vec::new(),
        before,
        after: None,
        changes: Vec::new(),
        findings: Vec::new(),
    };
    let Some(made) = made else {
        let why = nothing_chosen(&outcome.tried, s.budget.is_some());
        let draft = cx.finding("outcome", "Nothing helps beyond noise").verdict(Verdict::Inconclusive).explain(why);
        let draft = candidates(draft, prepared, &outcome);
        outcome.findings.push(draft.done());
        return Ok(outcome);
    };
    let own = prepared.verify.with_model(Model::from_file(made.model.to_file()?)?)?;
    let after = run(&own, s.audit, Some(bench.folder), bench.progress)?;
    let subjects = [&prepared.verify, &own];
    outcome.changes = compare(&outcome.before, &after, subjects, &cx)?;
    let goals: Vec<Option<Change>> =
        prepared.aims().map(|a| a.and_then(|a| prepared.change(a, subjects, [&outcome.before, &after]))).collect();
    let (aims, guards) = goals.split_at(s.goals.len().min(goals.len()));
    let better = aims.iter().flatten().any(|c| c.judgement == Judgement::Better);
    let worse = aims.iter().flatten().any(|c| c.judgement == Judgement::Worse);
    let costs = guards.iter().flatten().any(|g| g.judgement == Judgement::Worse && -g.gain() > s.tolerance * g.scale());
    let proved = better && !worse && !costs;
    for (goal, change) in s.goals.iter().zip(aims) {
        let Some(change) = change else { continue };
        outcome.findings.push(of_goal(goal.id, goal.title, change, proved, &outcome.tried, best, &cx));
    }
    let mut evidence = candidates(cx.finding("candidates", ""), prepared, &outcome).done().evidence;
    evidence.extend(made.trainings.first().and_then(|(_, record)| curves(record)).map(Evidence::Plot));
    if let Some(first) = outcome.findings.first_mut() {
        first.evidence.extend(evidence);
    }
    let rows = prepared.verify.data().len() as u64;
    outcome.findings.push(side_effects(&outcome.changes, proved, rows, &cx));
    outcome.after = Some(after);
    outcome.trainings = made.trainings;
    outcome.model = proved.then_some(made.model);
    Ok(outcome)
}

fn nothing_chosen(tried: &[Tried], budget: bool) -> String {
    let count = |f: fn(&State) -> bool| tried.iter().filter(|t| f(&t.state)).count();
    let measured = count(|s| matches!(s, State::Measured { .. }));
    let late = count(|s| matches!(s, State::OutOfTime));
    let mut text = match measured {
        0 => "No candidate could be measured".to_owned(),
        n => format!("None of {n} candidates was better than the network as it was given on the rows to choose on"),
    };
    text += "; nothing is changed.";
    if late > 0 && budget {
        text += &format!(" {late} did not fit the budget; a second run with more goes on from where this one ended.");
    }
    text
}

fn of_goal(
    id: &str,
    title: &str,
    change: &Change,
    proved: bool,
    tried: &[Tried],
    best: Option<usize>,
    cx: &Context<'_>,
) -> Finding {
    let name = best.map_or("", |b| tried[b].proposal.candidate.name.as_str());
    let verdict = match change.judgement {
        Judgement::Better if proved => Verdict::Pass,
        Judgement::Worse => Verdict::Concern,
        _ => Verdict::Inconclusive,
    };
    let ending = match (proved, change.judgement) {
        (true, Judgement::Better) => "The repaired network is better beyond noise.",
        (true, _) => "This goal is neither better nor worse beyond noise; the repair is kept for another goal.",
        (false, Judgement::Better) => "It is better here, but another goal or a guard is worse: nothing is changed.",
        (false, _) => "The change is not better beyond noise: nothing is changed.",
    };
    let mut draft = cx
        .finding(id, title)
        .estimate(&format!("{}_change", change.metric), change.unit.as_deref().unwrap_or("unit"), &change.change)
        .verdict(verdict)
        .explain(format!(
            "{} is {:.4} before and {:.4} after `{name}`, on {} rows that took no part in training or choice. {ending}",
            change.metric, change.before.0, change.after.0, change.change.n
        ))
        .evidence(Evidence::Table(one_row(change)));
    if change.better.is_some() {
        let comparison = change.better.unwrap_or(Comparison::AtLeast);
        let source = "no change at all; the interval decides, not the value".to_owned();
        let keep = draft.clone().done().verdict;
        draft = draft.threshold(Threshold { value: 0.0, comparison, source }).verdict(keep);
    }
    draft.done()
}

fn one_row(change: &Change) -> Table {
    let ends = |i: Option<[f64; 2]>| -> [Cell; 2] { [i.map(|i| i[0]).into(), i.map(|i| i[1]).into()] };
    let mut rows = Vec::new();
    for (name, (value, interval)) in [("before", change.before), ("after", change.after)] {
        let [low, high] = ends(interval);
        rows.push(vec![name.into(), value.into(), low, high]);
    }
    let [value, low, high] = shown(&change.change);
    rows.push(vec!["change".into(), value.into(), low.into(), high.into()]);
    let columns = ["", change.metric.as_str(), "low", "high"].map(String::from).to_vec();
    Table { title: "Rows of the proof".to_owned(), columns, rows }
}

/// Every metric of every check, before and after.
fn side_effects(changes: &[Change], proved: bool, n: u64, cx: &Context<'_>) -> Finding {
    let worse: Vec<&str> = changes.iter().filter(|c| c.judgement == Judgement::Worse).map(|c| c.id.as_str()).collect();
    let judged = changes.iter().filter(|c| c.judgement != Judgement::Unjudged).count();
    let text = match (worse.len(), proved) {
        (0, _) => format!("Of {judged} metrics with a good side none is worse beyond noise."),
        (n, true) => {
            format!("{n} of {judged} metrics are worse beyond noise: {}. They are the price.", worse.join(", "))
        }
        (n, false) => format!("{n} of {judged} metrics would be worse beyond noise: {}.", worse.join(", ")),
    };
    let columns =
        ["metric", "before", "low", "high", "after", "low", "high", "change", "low", "high", "verdict", "compared by"];
    // What only the data decide is the same on both sides, and no change at all.
    let shown_changes = changes.iter().filter(|c| c.judgement != Judgement::Unjudged || c.change.value != 0.0);
    let rows = shown_changes.map(|c| {
        let mut row: Vec<Cell> = vec![c.id.clone().into()];
        for (value, interval) in [c.before, c.after] {
            row.extend([Cell::from(value), interval.map(|i| i[0]).into(), interval.map(|i| i[1]).into()]);
        }
        row.extend(shown(&c.change).map(Cell::from));
        row.push(c.judgement.name().into());
        row.push(c.change.interval.map_or("", |i| i.method).into());
        row
    });
    let table = Table {
        title: "Every metric of every check, before and after, on the rows of the proof".to_owned(),
        columns: columns.map(String::from).to_vec(),
        rows: rows.collect(),
    };
    cx.finding("side-effects", "Metrics that the repair makes worse")
        .value("worse_metrics", "count", worse.len() as f64)
        .n(n)
        .threshold(Threshold {
            value: 0.0,
            comparison: Comparison::AtMost,
            source: "a repair should break nothing; beyond noise at the level of the intervals".to_owned(),
        })
        .explain(text)
        .caveats((judged > 20).then(|| {
            format!("of {judged} comparisons at 95 %, about {} reach beyond noise by chance", judged.div_ceil(20))
        }))
        .evidence(Evidence::Table(table))
        .done()
}

/// The table and the picture of what was tried.
fn candidates(draft: Draft, prepared: &Prepared<'_>, outcome: &Outcome) -> Draft {
    let goals = &prepared.settings.goals;
    let mut columns = vec!["candidate".to_owned(), "what".to_owned()];
    let aims: Vec<_> = prepared.aims().collect();
    for aim in aims.iter().take(goals.len()).flatten() {
        columns.extend([aim.metric.to_owned(), "low".to_owned(), "high".to_owned()]);
    }
    columns.extend(["parameters".to_owned(), "outcome".to_owned()]);
    let mut rows = Vec::new();
    let mut series: Vec<(f64, Series)> = Vec::new();
    let mut given = None;
    let sizes = prepared.subject.model().parameters().map(|p| p.shape.iter().product::<usize>() as u64);
    let before = sizes.sum::<u64>();
    for (i, t) in outcome.tried.iter().enumerate() {
        let p = &t.proposal;
        let mut row: Vec<Cell> = vec![p.candidate.name.clone().into(), p.candidate.what.clone().into()];
        let (measured, size, ending) = match &t.state {
            State::Measured { aims, parameters } => {
                let ending = match t.score {
                    _ if outcome.chosen == Some(i) => "chosen",
                    Some(s) if s > 0.0 => "better",
                    Some(_) => "not better",
                    None => "not eligible: a goal is worse beyond noise, or too dear",
                };
                (aims.as_slice(), Cell::from(*parameters), ending.to_owned())
            }
            State::Nothing => (&[][..], Cell::Missing, "nothing to do".to_owned()),
            State::Failed(why) => (&[][..], Cell::Missing, why.clone()),
            State::OutOfTime => (&[][..], Cell::Missing, "out of time".to_owned()),
        };
        for (k, _) in aims.iter().take(goals.len()).enumerate().filter(|(_, a)| a.is_some()) {
            let change = measured.get(k).and_then(Option::as_ref);
            let after = change.map(|c| c.after);
            row.push(after.map(|a| a.0).into());
            row.extend([0, 1].map(|e| Cell::from(after.and_then(|a| a.1).map(|i| i[e]))));
        }
        if let (State::Measured { parameters, .. }, Some(Some(c))) = (&t.state, measured.first()) {
            given.get_or_insert_with(|| c.metric.clone());
            let mark = |x: u64, (y, interval): (f64, Option<[f64; 2]>)| Mark {
                x: Some(x as f64),
                y,
                low: interval.map(|i| i[0]),
                high: interval.map(|i| i[1]),
                ..Mark::default()
            };
            let name = p.candidate.name.clone();
            series.push((
                t.score.unwrap_or(f64::NEG_INFINITY),
                Series { name, marks: vec![mark(before, c.before), mark(*parameters, c.after)] },
            ));
        }
        row.extend([size, ending.into()]);
        rows.push(row);
    }
    let n = prepared.choose.data().len();
    let title = format!("Candidates, measured on the {n} rows to choose on");
    let draft = draft.evidence(Evidence::Table(Table { title, columns, rows }));
    let (Some(metric), Some(Some(aim))) = (given, aims.first()) else { return draft };
    // The best first; more than a few arrows cannot be told apart.
    series.sort_by(|a, b| b.0.total_cmp(&a.0));
    series.truncate(DRAWN);
    draft.evidence(Evidence::Plot(Plot {
        title: format!("{metric} against size: from the network as it was given to the best candidates"),
        x: Axis { label: "parameters".to_owned(), range: None, log: true },
        y: Axis::new(metric),
        plot: PlotKind::Pareto { x: Comparison::AtMost, y: aim.better },
        series: series.into_iter().map(|(_, s)| s).collect(),
        reference: None,
    }))
}

/// Candidates in the picture.
const DRAWN: usize = 8;

/// Losses by epoch.
pub(crate) fn curves(record: &Record) -> Option<Plot> {
    let line = |name: &str, of: &dyn Fn(&netproof_train::EpochRecord) -> Option<f64>| Series {
        name: name.to_owned(),
        marks: record
            .epochs
            .iter()
            .filter_map(|e| {
                Some(Mark { x: Some(e.epoch as f64), y: of(e).filter(|v| v.is_finite())?, ..Mark::default() })
            })
            .collect(),
    };
    let series: Vec<Series> =
        [line("training", &|e| Some(e.train.loss)), line("validation", &|e| e.validation.as_ref().map(|v| v.loss))]
            .into_iter()
            .filter(|s| s.marks.len() > 1)
            .collect();
    (!series.is_empty()).then(|| Plot {
        title: "Loss by epoch".to_owned(),
        x: Axis::new("epoch"),
        y: Axis::new("loss"),
        plot: PlotKind::Lines,
        series,
        reference: None,
    })
}
