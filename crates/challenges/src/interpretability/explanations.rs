//! A gallery for people: predictions that are right, wrong and most uncertain, with their explanations, and the method that the
//! evidence recommends for this network. Maps of a method that fails its sanity check carry a badge.
//! Checked against: the verdicts of `faithfulness`, `sanity` and `stability`, from which it is made. It describes; a few rows
//! are examples, not a measurement.

use std::sync::Arc;

use netproof_audit::{AuditError, Check, Classified, Context, Findings, Part, Subject, UNDEFINED};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Gallery, GalleryItem, GallerySection, Mark, Need, OptionDoc, Picture, Plot,
    PlotKind, Series, Table, Verdict,
};
use netproof_stats::Estimate;
use serde::{Deserialize, Serialize};

use super::assess::{self, cell, finite_mean, range, these_rows};
use super::faithfulness::Faithfulness;
use super::pictures::{ImageRow, panels, short};
use super::reliance::DO_NOT_RELY;
use super::sanity::SanityCheck;
use super::stability::Stability;
use super::{ExplainError, Explained, Reliance, Sanity, badge_of, explain, explanation};
use crate::shared::outputs;

pub(crate) static CARD: Card = Card {
    id: "explanations",
    version: 1,
    kind: CardKind::Check,
    title: "Explanations",
    challenge: Challenge::Interpretability,
    measures: "Which explanation method the evidence recommends for this network, and right, wrong and most uncertain \
               predictions with its explanations.",
    reference: "Hedström et al., JMLR 24, 2023, arXiv:2202.06861 (choice by evidence); Adebayo et al., NeurIPS 2018, \
                arXiv:1810.03292",
    needs: &[Need::Labels],
    options: &[
        OptionDoc {
            name: "methods",
            default: "[]",
            doc: "Ids of methods to choose from, or \"all\"; empty: the usual ones.",
        },
        OptionDoc { name: "show", default: "[]", doc: "Ids of methods to show; empty: the recommended one." },
        OptionDoc { name: "each", default: "3", doc: "Predictions of each kind that are shown, 0 to 50." },
    ],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Explanations {
    methods: Vec<String>,
    show: Vec<String>,
    each: usize,
}

impl Default for Explanations {
    fn default() -> Self {
        Self { methods: Vec::new(), show: Vec::new(), each: 3 }
    }
}

/// What the three checks say of one method.
struct Candidate {
    id: &'static str,
    title: &'static str,
    advantage: Option<Estimate>,
    kept: Option<f64>,
    reliance: Option<Reliance>,
    stable: Option<Estimate>,
    sanity: Option<Sanity>,
}

impl Candidate {
    fn is_faithful(&self) -> bool {
        self.advantage.and_then(|e| e.interval).is_some_and(|i| i.low > 0.0)
    }

    fn depends_on_weights(&self) -> bool {
        self.reliance == Some(Reliance::Depends)
    }

    fn why_not(&self) -> String {
        let mut why = Vec::new();
        match self.reliance {
            Some(Reliance::Ignores) => why.push(DO_NOT_RELY),
            Some(Reliance::Undecided) | None => why.push("sanity not decided"),
            Some(Reliance::Depends) => {}
        }
        if !self.is_faithful() {
            why.push("not shown to beat random orders");
        }
        why.join("; ")
    }
}

impl Check for Explanations {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let net = Explained::of(subject)?;
        let candidates = self.candidates(subject, &net, cx)?;
        let best = candidates
            .iter()
            .filter(|c| c.depends_on_weights() && c.is_faithful())
            .max_by(|a, b| value(a.advantage).total_cmp(&value(b.advantage)).then(b.id.cmp(a.id)));
        let mut findings = vec![recommendation(cx, &candidates, best).done()];
        cx.check_time()?;
        let shown: Vec<&str> = match (&self.show[..], best) {
            ([], Some(best)) => vec![best.id],
            ([], None) => candidates.first().map(|c| c.id).into_iter().collect(),
            (asked, _) => asked.iter().map(String::as_str).collect(),
        };
        if let ([_, _, _], outputs) = (net.row_shape(), outputs(subject, Part::Test, cx)?)
            && let Some(c) = outputs.classified()
        {
            findings.push(self.gallery(subject, &net, cx, c, &candidates, &shown)?);
        }
        Ok(findings.into())
    }
}

fn value(e: Option<Estimate>) -> f64 {
    e.map_or(f64::NEG_INFINITY, |e| e.value)
}

fn recommendation(cx: &Context<'_>, candidates: &[Candidate], best: Option<&Candidate>) -> netproof_audit::Draft {
    let rows = candidates.iter().map(|c| {
        let verdict = match best {
            Some(b) if b.id == c.id => "recommended".to_owned(),
            _ if c.why_not().is_empty() => "can be relied on".to_owned(),
            _ => c.why_not(),
        };
        vec![
            c.title.into(),
            cell(c.advantage.map(|e| e.value)),
            c.advantage.map_or_else(String::new, |e| range(&e)).into(),
            cell(c.kept),
            cell(c.stable.map(|e| e.value)),
            verdict.into(),
        ]
    });
    let columns =
        ["method", "faithfulness over random", "interval", "kept without weights", "kept under noise", "verdict"];
    let table = Table {
        title: "Methods by their evidence on this network".to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: rows.collect(),
    };
    let marks = candidates.iter().filter_map(|c| {
        let e = c.advantage?;
        Some(Mark {
            x: None,
            y: e.value,
            low: e.interval.map(|i| i.low),
            high: e.interval.map(|i| i.high),
            n: Some(e.n),
            label: Some(c.title.to_owned()),
        })
    });
    let plot = Plot {
        title: "Faithfulness: insertion less deletion, over random orders".to_owned(),
        x: Axis::new("area"),
        y: Axis::new("method"),
        plot: PlotKind::Forest,
        series: vec![Series { name: "methods".to_owned(), marks: marks.collect() }],
        reference: Some(0.0),
    };
    let title = best.map_or_else(
        || "No explanation method can be relied on".to_owned(),
        |b| format!("Explanation method for this network: {}", b.title),
    );
    let draft = cx.finding("choice", &title).evidence(table).evidence(plot);
    let Some(b) = best else {
        return draft.verdict(Verdict::Inconclusive).explain(
            "None of the methods was shown both to beat random orders and to depend on the weights. See the table for what \
             each lacks; measure more rows, or more methods with --set explanations.methods='[\"all\"]'.",
        );
    };
    let e = b.advantage.unwrap_or(Estimate { value: f64::NAN, n: 0, standard_error: None, interval: None });
    let others = candidates.iter().filter(|c| c.id != b.id && c.depends_on_weights() && c.is_faithful()).count();
    let caution = candidates.iter().filter(|c| c.reliance == Some(Reliance::Ignores)).map(|c| c.title);
    let caution: Vec<&str> = caution.collect();
    let avoid = if caution.is_empty() { String::new() } else { format!(" {DO_NOT_RELY}: {}.", caution.join(", ")) };
    draft.estimate("faithfulness_advantage", "area", &e).explain(format!(
        "Use {}: of {} methods it is the most faithful on these rows ({:+.3} over random orders, {}) among those whose maps \
         depend on the weights (it keeps {:.2} of its order without them); under noise it keeps {}. {others} others can be relied \
         on too.{avoid}",
        b.id,
        candidates.len(),
        e.value,
        range(&e),
        b.kept.unwrap_or(f64::NAN),
        b.stable.map_or_else(|| "an unknown part".to_owned(), |e| format!("{:.2}", e.value)),
    ))
}

impl Explanations {
    fn candidates(
        &self,
        subject: &Subject,
        net: &Explained<'_>,
        cx: &Context<'_>,
    ) -> Result<Vec<Candidate>, AuditError> {
        // The options are those of the checks' own defaults, so that what they measured is taken over.
        let (mut f, _) = Faithfulness::default().options(net);
        let (mut s, _) = SanityCheck::default().options(net);
        let (mut t, _) = Stability::default().options(net);
        (f.methods, s.methods, t.methods) = (self.methods.clone(), self.methods.clone(), self.methods.clone());
        let faithful = assess::faithful(subject, cx, &f)?;
        let sane = assess::sane(subject, cx, &s)?;
        let stable = assess::stable(subject, cx, &t)?;
        let mut all = Vec::new();
        for f in faithful.iter().filter(|f| f.skipped.is_none()) {
            let sanity = sane.iter().find(|s| s.id == f.id).and_then(|s| s.sanity.as_ref().ok());
            let stable = stable.iter().find(|s| s.id == f.id).and_then(|s| finite_mean(&s.kept, cx.level));
            all.push(Candidate {
                id: f.id,
                title: f.title,
                advantage: f.estimate(cx.seed, cx.level)?,
                kept: sanity.and_then(|s| s.kept).map(|e| e.value),
                reliance: sanity.map(|s| s.reliance),
                stable,
                sanity: sanity.cloned(),
            });
        }
        all.sort_by(|a, b| value(b.advantage).total_cmp(&value(a.advantage)).then(a.id.cmp(b.id)));
        Ok(all)
    }

    fn gallery(
        &self,
        subject: &Subject,
        net: &Explained<'_>,
        cx: &Context<'_>,
        c: &Classified,
        candidates: &[Candidate],
        shown: &[&str],
    ) -> Result<netproof_core::Finding, AuditError> {
        let kinds = kinds(c, self.each.min(50));
        let positions: Vec<usize> = kinds.iter().flat_map(|(_, rows)| rows.iter().copied()).collect();
        let draft = cx.finding("gallery", "Predictions and their explanations");
        if positions.is_empty() {
            return Ok(draft.verdict(Verdict::NotApplicable).explain("There are no rows to show.").done());
        }
        let rows = these_rows(subject, net, &positions, cx.seed)?;
        let q = &rows.question;
        if q.len() < positions.len() {
            let why = "Some of the rows hold numbers that are missing, so that the gallery is not drawn.";
            return Ok(draft.verdict(Verdict::Inconclusive).explain(why).done());
        }
        let mut maps = Vec::new();
        for id in shown {
            let method = explanation(id, toml::Table::new())?;
            let e = match explain(&*method.method, net, q) {
                Ok(e) => e,
                Err(ExplainError::NotApplicable { .. } | ExplainError::NotDifferentiable { .. }) => continue,
                Err(e) => return Err(e.into()),
            };
            let Some(map) = e.on_input(net.row_shape()) else { continue };
            let measured = candidates.iter().find(|c| c.id == *id);
            let warning = match measured.and_then(|c| c.sanity.as_ref()) {
                Some(sanity) => sanity.badge(),
                None => badge_of(net, id, q)?,
            };
            maps.push((method.card, Arc::new(map), warning));
        }
        let mut at = 0;
        let mut sections = Vec::new();
        for (title, positions) in &kinds {
            let mut items = Vec::new();
            for &position in positions {
                let mut pictures = Vec::new();
                let (said, label) = (c.predicted[position] as usize, c.labels[position] as usize);
                let names = [said, label].map(|k| subject.class_name(k));
                let heading = format!("row {}: {}", q.rows[at], names[0]);
                for (k, (card, map, warning)) in maps.iter().enumerate() {
                    let row = Row { at, heading: &heading, with_input: k == 0, warning: warning.as_deref() };
                    pictures.extend(draw(cx, net, q, card, map, &row)?);
                }
                let truth = if said == label { "right".to_owned() } else { format!("wrong: it is {}", names[1]) };
                items.push(GalleryItem {
                    title: heading,
                    note: format!("{truth}; confidence {:.2}", c.confidence[position]),
                    pictures,
                });
                at += 1;
            }
            sections.push(GallerySection { title: (*title).to_owned(), items });
        }
        let names: Vec<&str> = maps.iter().map(|(card, ..)| card.title).collect();
        let text = format!(
            "{} predictions with their explanations by {}: what speaks for the class that the network says (red) and against it \
             (blue), with the end of each map's scale. Examples, not a measurement.",
            q.len(),
            names.join(", ")
        );
        Ok(draft
            .n(q.len() as u64)
            .explain(text)
            .evidence(Gallery { title: "Explanations".to_owned(), sections })
            .done())
    }
}

struct Row<'a> {
    at: usize,
    heading: &'a str,
    with_input: bool,
    warning: Option<&'a str>,
}

/// Pixels of a picture's longer side, about.
const SIDE: usize = 140;

/// The map of a method, and the input before the first.
fn draw(
    cx: &Context<'_>,
    net: &Explained<'_>,
    q: &super::Question,
    card: &Card,
    map: &netproof_tensor::Tensor,
    row: &Row<'_>,
) -> Result<Vec<Picture>, AuditError> {
    let [channels, h, w] = *net.row_shape() else {
        return Err(ExplainError::not_applicable("rows are no images").into());
    };
    let width = net.row_len();
    let attributions = &map.as_f32().unwrap_or_default()[row.at * width..(row.at + 1) * width];
    let [input, map, _] = panels(
        &ImageRow { size: [channels, h, w], image: q.row(row.at), attributions, title: "", subtitle: "", badge: None },
        SIDE,
    );
    let mut pictures = Vec::new();
    let size = |canvas: &super::pictures::Canvas| [canvas.size[0], canvas.size[1], 3];
    if row.with_input {
        let alt = format!("{}: the image", row.heading);
        pictures.push(cx.picture("Input", alt, size(&input), &input.pixels)?);
    }
    let alt = format!("{}, {}: the attributions", row.heading, card.title);
    let places = h * w;
    let strength = |p: usize| (0..channels).map(|c| attributions[c * places + p]).sum::<f32>().abs();
    let largest = (0..places).map(strength).filter(|v| v.is_finite()).fold(0.0, f32::max);
    let title = format!("{}, ±{}", card.title, short(f64::from(largest)));
    let picture = cx.picture(&title, alt, size(&map), &map.pixels)?;
    pictures.push(match row.warning {
        Some(why) => picture.warn(why),
        None => picture,
    });
    Ok(pictures)
}

/// Positions of surest right, surest wrong, and least sure predictions.
fn kinds(c: &Classified, each: usize) -> Vec<(&'static str, Vec<usize>)> {
    let defined: Vec<usize> =
        (0..c.rows()).filter(|&i| c.predicted[i] != UNDEFINED && c.confidence[i].is_finite()).collect();
    let right = |i: &usize| c.predicted[*i] == c.labels[*i];
    let take = |mut rows: Vec<usize>, surest: bool| {
        rows.sort_by(|&a, &b| {
            let order = c.confidence[a].total_cmp(&c.confidence[b]);
            if surest { order.reverse() } else { order }.then(a.cmp(&b))
        });
        rows.truncate(each);
        rows
    };
    // Right predictions as they come: the surest are all alike.
    let all_right: Vec<usize> = defined.iter().copied().filter(right).collect();
    let spaced: Vec<usize> = assess::spaced(all_right.len(), each).into_iter().map(|k| all_right[k]).collect();
    let wrong = take(defined.iter().copied().filter(|i| !right(i)).collect(), true);
    let unsure = take(defined, false);
    let mut kinds = vec![
        ("Right predictions", spaced),
        ("Wrong predictions, the surest", wrong),
        ("Most uncertain predictions", unsure),
    ];
    kinds.retain(|(_, rows)| !rows.is_empty());
    kinds
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use netproof_audit::{Plan, Policy, RunFolder, Silent, run, select};
    use netproof_core::Evidence;
    use netproof_data::{Dataset, OpenOptions};
    use netproof_graph::Model;
    use netproof_stats::Level;

    use super::*;
    use crate::CHECKS;

    #[test]
    fn on_a_real_network_the_checks_agree_on_a_method_and_show_it() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/fashion");
        let options = OpenOptions { image_size: Some([1, 28, 28]), ..OpenOptions::default() };
        let data = Dataset::open(examples.join("fashion-test-2000.npz").to_str().unwrap(), &options).unwrap();
        let model = Model::load(&examples.join("fashion-cnn.onnx")).unwrap();
        let subject = Subject::new(model, "cnn", data.take(300), None).unwrap();
        let ids = ["faithfulness", "sanity", "stability", "method-agreement", "shortcut", "explanations"];
        let plan = Plan {
            checks: select("check", CHECKS, &ids.map(str::to_owned), &[], &toml::Table::new()).unwrap(),
            seed: 0,
            level: Level::P95,
            budget: None,
            may_train: false,
            policy: Policy::default(),
            tool: "test".to_owned(),
        };
        let folder = std::env::temp_dir().join(format!("netproof-explanations-{}", std::process::id()));
        let store = RunFolder::open(&folder).unwrap();
        let d = run(&subject, &plan, Some(&store), &Silent).unwrap();
        for f in &d.findings {
            assert!(!matches!(f.verdict, Verdict::Failed), "{}: {}", f.id, f.explanation);
        }
        let of = |id: &str| d.findings.iter().find(|f| f.id == id).unwrap_or_else(|| panic!("no finding {id}"));
        assert_eq!(of("faithfulness/integrated-gradients").verdict, Verdict::Pass);
        assert_eq!(of("sanity/integrated-gradients").verdict, Verdict::Pass);
        assert_eq!(of("shortcut/patch").verdict, Verdict::Pass);
        assert!(of("explanations/choice").title.starts_with("Explanation method for this network: "));
        let pictures: usize = of("explanations/gallery").evidence.iter().map(|e: &Evidence| e.pictures().len()).sum();
        assert_eq!(pictures, 18);
        assert!(store.pictures(&d, 64 << 20).len() > 9);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
