//! Whether explanations depend on what the network has learnt: weights are put in random order, layer after layer, and the maps
//! must go with them. A method whose maps stay is marked "do not rely on this".
//! Checked against: guided backpropagation (stays), gradients and Grad-CAM (go), as published; a map of the input's edges.
//! Weak: a map that changes may still be wrong; see `faithfulness`.

use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Comparison, Evidence, Finding, Mark, Need, OptionDoc, Plot, PlotKind, Series,
    Table, Threshold, Verdict,
};
use serde::{Deserialize, Serialize};

use super::assess::{self, Sane, SaneOptions, affordable, cell, range};
use super::evidence::{Protocol, layers};
use super::reliance::{DO_NOT_RELY, MOST_KEPT};
use super::{Explained, Reliance};

pub(crate) static CARD: Card = Card {
    id: "sanity",
    version: 1,
    kind: CardKind::Check,
    title: "Sanity of explanations",
    challenge: Challenge::Interpretability,
    measures: "For each explanation method, how much of its maps is left when the weights are put in random order from the output \
               down. A method whose maps stay shows the input, not the network's reasons.",
    reference: "Adebayo et al., NeurIPS 2018, arXiv:1810.03292, section 3; Hedström et al. 2024, arXiv:2405.02383",
    needs: &[Need::Labels],
    options: &[
        OptionDoc {
            name: "methods",
            default: "[]",
            doc: "Ids of explanation methods, or \"all\"; empty: the usual ones.",
        },
        OptionDoc { name: "rows", default: "6", doc: "Rows, evenly spaced, at least 1." },
        OptionDoc {
            name: "draws",
            default: "4",
            doc: "Independent random orders of the weights, at least 2; four times as many for tables.",
        },
        OptionDoc { name: "stages", default: "4", doc: "Most steps from the output down, at least 2." },
        OptionDoc {
            name: "smooth",
            default: "false",
            doc: "Whether maps averaged over noisy copies are measured too.",
        },
        OptionDoc {
            name: "shuffled_label_epochs",
            default: "0",
            doc: "Epochs of training on shuffled labels, whose maps are compared too; 0: none, since it takes long.",
        },
    ],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SanityCheck {
    methods: Vec<String>,
    rows: usize,
    draws: usize,
    stages: usize,
    smooth: bool,
    shuffled_label_epochs: u64,
}

impl Default for SanityCheck {
    fn default() -> Self {
        Self { methods: Vec::new(), rows: 6, draws: 4, stages: 4, smooth: false, shuffled_label_epochs: 0 }
    }
}

impl SanityCheck {
    pub(crate) fn options(&self, net: &Explained<'_>) -> (SaneOptions, Option<String>) {
        // The few columns of a table correlate by chance, and cost little.
        let draws = self.draws.max(2) * if net.row_shape().len() > 1 { 1 } else { 4 };
        let passes = draws * (self.stages + 1) * 100 * 4;
        let (rows, caveat) = affordable(net, self.rows.max(1), passes);
        let protocol = Protocol { draws, stages: self.stages.max(2), ..Protocol::default() };
        let (smooth, shuffled_label_epochs) = (self.smooth, self.shuffled_label_epochs);
        (SaneOptions { methods: self.methods.clone(), rows, protocol, smooth, shuffled_label_epochs }, caveat)
    }
}

impl Check for SanityCheck {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let net = Explained::of(subject)?;
        let mut caveats = Vec::new();
        match layers(net.model()).len() {
            0 => {
                let f = cx.finding("weights", CARD.title).verdict(Verdict::NotApplicable);
                return Ok(vec![f.explain("The network has no weights to randomise.").done()].into());
            }
            1 => caveats.push("the network has one layer: all of it is randomised at once".to_owned()),
            _ => {}
        }
        let (options, fewer) = self.options(&net);
        caveats.extend(fewer);
        let all = assess::sane(subject, cx, &options)?;
        Ok(all.iter().map(|m| finding(m, cx, &caveats)).collect::<Vec<_>>().into())
    }
}

fn finding(m: &Sane, cx: &Context<'_>, caveats: &[String]) -> Finding {
    let draft = cx
        .finding(m.id, &format!("Sanity: {}", m.title))
        .caveats(caveats.iter().cloned().chain(assess::quick_caveat(m.id)));
    let s = match &m.sanity {
        Ok(s) => s,
        Err(why) => return draft.verdict(Verdict::NotApplicable).explain(format!("Not measured: {why}.")).done(),
    };
    let Some(kept) = s.kept else {
        return draft.verdict(Verdict::Inconclusive).explain("Every map is constant, before or after.").done();
    };
    let (verdict, what) = match s.reliance {
        Reliance::Depends => (Verdict::Pass, "The maps go with the weights, as they must.".to_owned()),
        Reliance::Ignores => (
            Verdict::Concern,
            format!("{DO_NOT_RELY}: the maps stay when what the network has learnt is gone, so they show the input."),
        ),
        Reliance::Undecided => {
            (Verdict::Inconclusive, "These rows and draws do not decide it; raise draws or rows.".to_owned())
        }
    };
    let last = s.cascade.stages.len() - 1;
    let mut marks = vec![Mark { x: Some(0.0), y: 1.0, ..Mark::default() }];
    let mut rows = Vec::new();
    for (stage, name) in s.cascade.stages.iter().enumerate() {
        let means: Vec<f64> = s.cascade.by_draw(stage).into_iter().filter(|v| v.is_finite()).collect();
        let Some(e) = netproof_stats::interval::mean::mean(&means, cx.level) else { continue };
        let interval = e.interval.map(|i| i.clamp(-1.0, 1.0));
        marks.push(Mark {
            x: Some((stage + 1) as f64),
            y: e.value,
            low: interval.map(|i| i.low),
            high: interval.map(|i| i.high),
            n: None,
            label: None,
        });
        rows.push(vec![(stage + 1).into(), name.clone().into(), cell(Some(e.value)), range(&e).into()]);
    }
    let further = match (m.rise, m.smooth) {
        (Some(rise), Some(smooth)) => {
            format!(" The maps' entropy changes by {:+.1} %; of smoothed maps {smooth:.3} is kept.", 100.0 * rise)
        }
        (Some(rise), None) => format!(" The maps' entropy changes by {:+.1} %.", 100.0 * rise),
        _ => String::new(),
    };
    let shuffled = m.shuffled_labels.map_or(String::new(), |e| {
        format!(" Of a network trained on shuffled labels the maps agree to {:.3} ({}).", e.value, range(&e))
    });
    let draft = draft
        .verdict(verdict)
        .value("map_kept_without_weights", "rank correlation", kept.value)
        .n(s.cascade.similarity[last].first().map_or(0, Vec::len) as u64)
        .interval(kept.interval.map(|i| i.clamp(-1.0, 1.0)))
        .explain(format!(
            "With the weights of {} in random order, the maps keep {:.3} of their rank order ({}). {what}{further}{shuffled}",
            s.random_part(),
            kept.value,
            range(&kept)
        ))
        .evidence(Evidence::Plot(Plot {
            title: format!("{}: rank correlation with the map before, by stage from the output down", m.title),
            x: Axis::new("stages in random order"),
            y: Axis { range: Some((-0.5, 1.0)), ..Axis::new("rank correlation") },
            plot: PlotKind::Lines,
            series: vec![Series { name: m.title.to_owned(), marks }],
            reference: Some(MOST_KEPT),
        }))
        .evidence(Evidence::Table(Table {
            title: "Layers in random order, from the output down".to_owned(),
            columns: ["stage", "layers that become random", "kept", "interval over draws"].map(str::to_owned).to_vec(),
            rows,
        }));
    let source =
        "halfway between no relation and nothing lost; cascading randomisation, Adebayo et al. 2018, section 3";
    if verdict == Verdict::Inconclusive {
        return draft.done();
    }
    draft.threshold(Threshold { value: MOST_KEPT, comparison: Comparison::AtMost, source: source.to_owned() }).done()
}
