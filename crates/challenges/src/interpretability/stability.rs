//! Whether explanations of nearly the same row are nearly the same.
//! Checked against: closed forms of the sensitivities; the gradient of a linear network, which does not move.
//! Weak: a map that never changes is perfectly stable and says nothing; see `sanity`.

use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{
    Card, CardKind, Challenge, Comparison, Evidence, Finding, Need, OptionDoc, Table, Threshold, Verdict,
};
use serde::{Deserialize, Serialize};

use super::Explained;
use super::assess::{self, FaithfulOptions, Stable, affordable, cell, finite_mean, range};
use super::evidence::Protocol;

pub(crate) static CARD: Card = Card {
    id: "stability",
    version: 1,
    kind: CardKind::Check,
    title: "Stability of explanations",
    challenge: Challenge::Interpretability,
    measures: "For each explanation method, how much of a map's rank order is kept under noise that nobody would notice, with \
               the average and largest relative change.",
    reference: "Yeh et al., NeurIPS 2019, arXiv:1901.09392, definition 3.1; Bhatt et al., IJCAI 2020, arXiv:2005.00631",
    needs: &[Need::Labels],
    options: &[
        OptionDoc {
            name: "methods",
            default: "[]",
            doc: "Ids of explanation methods, or \"all\"; empty: the usual ones.",
        },
        OptionDoc { name: "rows", default: "12", doc: "Rows, evenly spaced, at least 2." },
        OptionDoc { name: "copies", default: "4", doc: "Noisy copies per row." },
        OptionDoc { name: "radius", default: "0.02", doc: "Largest noise as a fraction of the range, above 0." },
        OptionDoc { name: "least", default: "0.5", doc: "Least mean rank correlation without concern, 0 to 1." },
    ],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Stability {
    methods: Vec<String>,
    rows: usize,
    copies: usize,
    radius: f64,
    least: f64,
}

impl Default for Stability {
    fn default() -> Self {
        Self { methods: Vec::new(), rows: 12, copies: 4, radius: 0.02, least: 0.5 }
    }
}

impl Stability {
    pub(crate) fn options(&self, net: &Explained<'_>) -> (FaithfulOptions, Option<String>) {
        let (rows, caveat) = affordable(net, self.rows.max(2), self.copies * 400);
        let protocol = Protocol { copies: self.copies, radius: self.radius, ..Protocol::default() };
        (FaithfulOptions { methods: self.methods.clone(), rows, protocol }, caveat)
    }
}

impl Check for Stability {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let net = Explained::of(subject)?;
        let (options, fewer) = self.options(&net);
        let all = assess::stable(subject, cx, &options)?;
        let caveats: Vec<String> = fewer.into_iter().collect();
        Ok(all.iter().map(|m| self.finding(m, cx, &caveats)).collect::<Vec<_>>().into())
    }
}

impl Stability {
    fn finding(&self, m: &Stable, cx: &Context<'_>, caveats: &[String]) -> Finding {
        let draft = cx
            .finding(m.id, &format!("Stability: {}", m.title))
            .caveats(caveats.iter().cloned().chain(assess::quick_caveat(m.id)));
        if let Some(why) = &m.skipped {
            return draft.verdict(Verdict::NotApplicable).explain(format!("Not measured: {why}.")).done();
        }
        let Some(mut e) = finite_mean(&m.kept, cx.level) else {
            return draft.verdict(Verdict::Inconclusive).explain("Every map is constant.").done();
        };
        e.interval = e.interval.map(|i| i.clamp(-1.0, 1.0));
        let (low, high) = e.interval.map_or((e.value, e.value), |i| (i.low, i.high));
        let verdict = if low >= self.least {
            Verdict::Pass
        } else if high < self.least {
            Verdict::Concern
        } else {
            Verdict::Inconclusive
        };
        let what = match verdict {
            Verdict::Pass => "Rows that look alike are explained alike.",
            Verdict::Concern => "Rows that look alike are explained differently: a single map says little.",
            _ => "These rows do not decide it; raise rows.",
        };
        let table = Table {
            title: format!("{}: means over rows", m.title),
            columns: ["metric", "mean"].map(str::to_owned).to_vec(),
            rows: vec![
                vec!["rank order kept".into(), cell(Some(e.value))],
                vec!["average relative change".into(), cell(m.average)],
                vec!["largest relative change".into(), cell(m.largest)],
            ],
        };
        let draft = draft
            .verdict(verdict)
            .estimate("map_kept_under_noise", "rank correlation", &e)
            .explain(format!(
                "Under noise of at most {} of the range, maps keep {:.3} of their rank order ({}). {what}",
                self.radius,
                e.value,
                range(&e)
            ))
            .evidence(Evidence::Table(table));
        if verdict == Verdict::Inconclusive {
            return draft.done();
        }
        let source = "option `least`; half of the order is a convention, no standard sets one";
        draft
            .threshold(Threshold { value: self.least, comparison: Comparison::AtLeast, source: source.to_owned() })
            .done()
    }
}
