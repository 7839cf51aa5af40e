//! Whether explanations point at what the answer depends on: take away what a method calls important, put it back, and compare
//! with random orders and with an edge detector that knows no network.
//! Checked against: the metrics' own closed forms (tests of `evidence`), and an audit of a small network (test of `explanations`).
//! Weak where rows without some of their units are unlike any the network has seen; two methods of equal areas may differ.

use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Comparison, Evidence, Finding, Mark, Need, OptionDoc, Plot, PlotKind, Series,
    Table, Threshold, Verdict,
};
use serde::{Deserialize, Serialize};

use super::Explained;
use super::assess::{self, Faithful, FaithfulOptions, affordable, cell, range, saturated};
use super::evidence::{Curve, Protocol, paired};

pub(crate) static CARD: Card = Card {
    id: "faithfulness",
    version: 1,
    kind: CardKind::Check,
    title: "Faithfulness of explanations",
    challenge: Challenge::Interpretability,
    measures: "For each explanation method, whether what it calls important is: how much insertion less deletion exceeds that \
               of random orders on the same rows, with an interval; beside an edge detector.",
    reference: "Petsiuk, Das and Saenko, BMVC 2018, arXiv:1806.07421; Bhatt, Weller and Moura, IJCAI 2020, arXiv:2005.00631",
    needs: &[Need::Labels],
    options: &[
        OptionDoc {
            name: "methods",
            default: "[]",
            doc: "Ids of explanation methods, or \"all\"; empty: the usual ones.",
        },
        OptionDoc { name: "rows", default: "24", doc: "Rows, evenly spaced, at least 2." },
        OptionDoc { name: "points", default: "28", doc: "Steps of deletion and insertion." },
        OptionDoc { name: "orders", default: "5", doc: "Random orders per row." },
        OptionDoc { name: "subsets", default: "50", doc: "Random subsets per row, at least 3." },
    ],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Faithfulness {
    methods: Vec<String>,
    rows: usize,
    points: usize,
    orders: usize,
    subsets: usize,
}

impl Default for Faithfulness {
    fn default() -> Self {
        Self { methods: Vec::new(), rows: 24, points: 28, orders: 5, subsets: 50 }
    }
}

impl Faithfulness {
    /// What is measured on this network, and what a reader must know.
    pub(crate) fn options(&self, net: &Explained<'_>) -> (FaithfulOptions, Option<String>) {
        let passes = 2 * (self.points + 1) * (self.orders + 10) + self.subsets;
        let (rows, caveat) = affordable(net, self.rows.max(2), passes);
        let protocol =
            Protocol { points: self.points, orders: self.orders, subsets: self.subsets, ..Protocol::default() };
        (FaithfulOptions { methods: self.methods.clone(), rows, protocol }, caveat)
    }
}

impl Check for Faithfulness {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let net = Explained::of(subject)?;
        let (options, fewer) = self.options(&net);
        let caveats: Vec<String> = fewer.into_iter().chain(saturated(subject, &net)).collect();
        let all = assess::faithful(subject, cx, &options)?;
        let mut findings = Vec::new();
        for m in all.iter() {
            findings.push(finding(m, cx, &caveats)?);
        }
        Ok(findings.into())
    }
}

fn finding(m: &Faithful, cx: &Context<'_>, caveats: &[String]) -> Result<Finding, AuditError> {
    let draft = cx.finding(m.id, &format!("Faithfulness: {}", m.title)).caveats(caveats.iter().cloned());
    if let Some(why) = &m.skipped {
        return Ok(draft.verdict(Verdict::NotApplicable).explain(format!("Not measured: {why}.")).done());
    }
    let Some(e) = m.estimate(cx.seed, cx.level)? else {
        return Ok(draft.verdict(Verdict::Inconclusive).explain("No row has a map that is not constant.").done());
    };
    let p = m.p_value(cx.seed);
    let edges = m.over_edges.as_ref().map(|d| paired(d, cx.seed, cx.level)).transpose()?.flatten();
    let (low, high) = e.interval.map_or((f64::NEG_INFINITY, f64::INFINITY), |i| (i.low, i.high));
    let verdict = if low > 0.0 {
        Verdict::Pass
    } else if high <= 0.0 {
        Verdict::Concern
    } else {
        Verdict::Inconclusive
    };
    let what = match verdict {
        Verdict::Pass => "It finds what the answer depends on better than chance does.",
        Verdict::Concern => "It finds what the answer depends on no better than chance does: do not rely on this.",
        _ => "These rows do not show that it does better than chance; measure more rows.",
    };
    let beside = edges.map_or(String::new(), |e| {
        let how = match e.interval {
            Some(i) if i.low > 0.0 => "ahead of",
            Some(i) if i.high < 0.0 => "behind",
            _ => "not told apart from",
        };
        format!(" It is {how} an edge detector, which knows no network ({:+.3}, {}).", e.value, range(&e))
    });
    let mut rows = vec![vec!["insertion − deletion, over random".into(), cell(Some(e.value)), range(&e).into()]];
    if let Some(e) = &edges {
        rows.push(vec!["insertion − deletion, over edges".into(), cell(Some(e.value)), range(e).into()]);
    }
    rows.extend(m.means.iter().map(|(id, v)| vec![(*id).into(), cell(*v), "".into()]));
    let mut draft = draft
        .verdict(verdict)
        .estimate("faithfulness_advantage", "area", &e)
        .explain(format!(
            "Insertion less deletion is {:+.3} above random orders on the same rows (sign-flip p = {:.4}). {what}{beside}",
            e.value,
            p.unwrap_or(1.0)
        ))
        .evidence(Evidence::Table(Table {
            title: format!("{}: means over rows", m.title),
            columns: ["metric", "mean", "interval"].map(str::to_owned).to_vec(),
            rows,
        }));
    if verdict != Verdict::Inconclusive {
        draft = draft.threshold(Threshold {
            value: 0.0,
            comparison: Comparison::AtLeast,
            source: "random orders of the same rows, paired; the interval decides".to_owned(),
        });
    }
    for (curves, what) in m.curves.iter().zip(["Deletion", "Insertion"]) {
        draft = draft.evidence(Evidence::Plot(plot(what, m.title, curves)));
    }
    Ok(draft.done())
}

/// Curves of a method beside their controls.
fn plot(what: &str, title: &str, curves: &[Curve]) -> Plot {
    let series = curves.iter().enumerate().map(|(i, c)| Series {
        name: if i == 0 { title.to_owned() } else { c.name.clone() },
        marks: c.x.iter().zip(&c.y).map(|(&x, &y)| Mark { x: Some(x), y, ..Mark::default() }).collect(),
    });
    Plot {
        title: format!("{what}: probability of the decision, mean over rows"),
        x: Axis::unit(if what == "Deletion" { "fraction removed" } else { "fraction put back" }),
        y: Axis::new("probability of the decision"),
        plot: PlotKind::Lines,
        series: series.collect(),
        reference: None,
    }
}
