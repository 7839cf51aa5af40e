//! A model card in the format of the Hugging Face hub: Markdown with a YAML front matter, filled from the findings.
//! Mitchell et al. 2019, FAT*, arXiv:1810.03993; the hub's model card specification (`model-index`, `modelcard.md`).
//!
//! `model-index` holds only findings that have a value and whose verdict is pass or concern. What was not measured is said
//! to be not measured; what only people know is theirs to write.

use netproof_core::{AuditDocument, Challenge, Finding, Verdict};
use serde_json::Value;

use crate::ReportError;
use crate::badge::{Badge, sentence};
use crate::html::date;
use crate::meta;
use crate::number::{count, limit, measure};
use crate::prose::{Kept, Line, Prose, Span, facts, references, seal, statement, text, yaml};
use crate::task::task;

/// Id of the part of the front matter that people write.
const FRONT: &str = "front-matter";
/// What stands there until somebody has.
const FRONT_UNFINISHED: &str = "# To be written by a person: license, language, tags, base_model";

/// A model card and what it lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCard {
    /// The card; hand it in as `previous` to make it again.
    pub markdown: String,
    /// Parts that no person has written yet.
    pub unfinished: Vec<String>,
}

/// A model card filled from the findings. Parts that people wrote into `previous` are kept.
///
/// # Guarantees
/// The same document and the same previous version give the same bytes.
/// # Errors
/// The marks in `previous` are broken; or, without `overwrite`, something outside them was changed.
pub fn model_card(document: &AuditDocument, previous: Option<&str>, overwrite: bool) -> Result<ModelCard, ReportError> {
    let mut kept = Kept::read(previous, overwrite)?;
    let own = kept.front_matter(FRONT).filter(|w| !w.trim().is_empty());
    let mut front = own.clone().unwrap_or_else(|| FRONT_UNFINISHED.into());
    if front.lines().any(|l| l.trim() == "---") {
        front = front.lines().filter(|l| l.trim() != "---").collect::<Vec<_>>().join("\n");
    }
    let all = references(document);
    let mut out = Prose::default();
    let model = meta::name(&document.model).unwrap_or_else(|| "unnamed model".into());
    out.heading(1, format!("Model card: {model}"));
    out.paragraph([sentence(document)]);
    out.paragraph([
        "Every figure below is a finding of an audit and names it; the report explains each. What was not measured is not \
         claimed. The parts that only people can write are marked as such.",
    ]);

    out.heading(2, "Model details");
    out.person(
        kept.part("owner", "Who developed and who provides this model, contact, version, date, license, papers."),
    );
    out.table(&["Fact", "Value"], facts(&document.model));

    out.heading(2, "Uses");
    out.heading(3, "Intended use");
    out.person(kept.part("intended-use", "What the model is for, for whom, and in which setting."));
    out.heading(3, "Out-of-scope use");
    out.person(kept.part("out-of-scope", "What it must not be used for; foreseeable misuse."));
    out.heading(3, "Human oversight");
    out.person(
        kept.part("oversight", "Who oversees its use, with which means, and when it must be stopped or overruled."),
    );

    out.heading(2, "Bias, risks and limitations");
    let concerns: Vec<Line> =
        all.iter().filter(|(f, _)| f.verdict == Verdict::Concern).take(200).map(|(f, r)| statement(f, r)).collect();
    if concerns.is_empty() {
        out.paragraph([if all.is_empty() { "Nothing was measured." } else { "No finding is a concern." }]);
    } else {
        out.paragraph(["The audit found these problems:"]);
        out.list(concerns);
    }
    let open: Vec<Line> = all
        .iter()
        .filter(|(f, _)| matches!(f.verdict, Verdict::Inconclusive | Verdict::Failed))
        .take(100)
        .map(|(f, r)| statement(f, r))
        .collect();
    if !open.is_empty() {
        out.paragraph(["These were looked at without a result that can be relied on:"]);
        out.list(open);
    }
    let missing: Vec<&str> = Challenge::ALL
        .into_iter()
        .filter(|c| Badge::of_challenge(*c, document.all_findings()) == Badge::NotMeasured)
        .map(Challenge::title)
        .collect();
    if !missing.is_empty() {
        out.paragraph([
            Span::Strong("Not measured:".into()),
            format!(" {}.", missing.join(", ").to_lowercase()).into(),
        ]);
    }
    let caveats = all
        .iter()
        .flat_map(|(f, r)| f.caveats.iter().map(move |c| -> Line { vec![format!("{c} Finding ").into(), r.clone()] }));
    let caveats: Vec<Line> = caveats.take(60).collect();
    if !caveats.is_empty() {
        out.heading(3, "What limits the figures");
        out.list(caveats);
    }
    out.heading(3, "Risks that remain, and what to do");
    out.person(kept.part("risks", "Risks that remain, for whom, and what users should do about them."));

    out.heading(2, "How to get started");
    let file = meta::name(&document.model).unwrap_or_else(|| "model.onnx".into());
    out.paragraph(["The model is an ONNX file; any ONNX runtime runs it. To get its answers on data:"]);
    out.blocks.push(crate::prose::Block::Command(format!("netproof predict {} --data DATA", shell(&file))));

    out.heading(2, "Training");
    let split = |train: bool| {
        document
            .data
            .iter()
            .filter(|(k, _)| k.starts_with("train_") == train)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    let train: std::collections::BTreeMap<String, Value> = split(true);
    if train.is_empty() {
        out.paragraph(["The audit was given no training data, so nothing about them was measured."]);
    } else {
        out.table(&["Fact", "Value"], facts(&train));
    }
    out.person(
        kept.part("training", "Training data and their origin, preprocessing, procedure, hyper-parameters, resources."),
    );

    out.heading(2, "Evaluation");
    out.table(&["Fact", "Value"], facts(&split(false)));
    for c in Challenge::ALL {
        let found: Vec<&(&Finding, Span)> = all.iter().filter(|(f, _)| f.challenge == c).collect();
        out.heading(3, c.title());
        if found.is_empty() {
            out.paragraph(["Not measured."]);
            continue;
        }
        let rows = found.iter().take(200).map(|(f, r)| row(f, r)).collect();
        out.table(&["Verdict", "What", "Value", "Interval", "n", "Limit", "Finding"], rows);
        if found.len() > 200 {
            out.paragraph([format!("Listed: 200 of {} findings; all are in audit.json.", found.len())]);
        }
    }

    out.heading(2, "Environmental impact");
    let energy = |f: &Finding| {
        let text = format!("{} {}", f.id, f.metric.as_deref().unwrap_or_default()).to_lowercase();
        f.value.is_some() && ["energy", "carbon", "co2", "joule"].iter().any(|w| text.contains(w))
    };
    let lines: Vec<Line> = all.iter().filter(|(f, _)| energy(f)).map(|(f, r)| statement(f, r)).collect();
    if lines.is_empty() {
        out.paragraph(["Not measured."]);
    }
    out.list(lines);

    leftover(kept, &mut out);
    out.heading(2, "How this card was made");
    let mut made = vec![format!("Made by {} from an audit with seed {}", document.tool, document.seed)];
    if !document.clock.started.is_empty() {
        made.push(format!(" of {}", date(&document.clock.started)));
    }
    out.paragraph([
        Span::Text(format!("{}; digest of the audit (SHA-256): ", made.concat())),
        Span::Code(document.digest.clone()),
        ". Made again, it keeps what people wrote between the marks.".into(),
    ]);

    let mut unfinished = out.unfinished();
    if own.is_none_or(|o| o.contains("To be written by a person")) {
        unfinished.insert(0, FRONT.into());
    }
    let matter = front_matter(document, &front, &model);
    Ok(ModelCard { markdown: seal(&format!("{matter}\n{}", text(&out))), unfinished })
}

/// What people wrote into parts that no longer exist, so that nothing is lost.
pub(crate) fn leftover(kept: Kept, out: &mut Prose) {
    let rest: Vec<(String, String)> = kept.rest().collect();
    if rest.is_empty() {
        return;
    }
    out.heading(2, "Other parts that people wrote");
    for (id, written) in rest {
        out.person(crate::prose::Person { id, prompt: String::new(), written: Some(written) });
    }
}

/// A file name for a shell: harmless signs only.
fn shell(name: &str) -> String {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    if name.chars().all(fine) && !name.starts_with('-') { name.to_owned() } else { "MODEL".into() }
}

fn row(f: &Finding, reference: &Span) -> Vec<Line> {
    let m = measure(f);
    let dash = || String::from("–");
    let (value, interval) = m.map_or_else(
        || (dash(), dash()),
        |m| {
            let unit = if m.unit.is_empty() { String::new() } else { format!(" {}", m.unit) };
            (format!("{}{unit}", m.value), m.interval.map_or_else(dash, |(a, b)| format!("{a} to {b}")))
        },
    );
    let side = |c| if c == netproof_core::Comparison::AtLeast { "≥" } else { "≤" };
    let limit = limit(f).zip(f.threshold.as_ref());
    let cells = [
        Badge::of(f).word().to_owned(),
        f.title.clone(),
        value,
        interval,
        f.n.map_or_else(dash, count),
        limit.map_or_else(dash, |(l, t)| format!("{} {l} ({})", side(t.comparison), t.source)),
    ];
    cells.into_iter().map(|c| vec![c.into()]).chain([vec![reference.clone()]]).collect()
}

/// The front matter, with `model-index` as the hub's specification has it.
fn front_matter(document: &AuditDocument, front: &str, model: &str) -> String {
    let task = task(document);
    let data = meta::name(&document.data).unwrap_or_else(|| "unnamed data".into());
    let mut out = format!(
        "---\n# netproof:person {FRONT}\n{front}\n# /netproof:person\nlibrary_name: onnx\npipeline_tag: {}\n",
        if task == "other" { "other" } else { task }
    );
    let metrics: Vec<&Finding> = document
        .findings
        .iter()
        .filter(|f| matches!(f.verdict, Verdict::Pass | Verdict::Concern) && f.value.is_some_and(f64::is_finite))
        .collect();
    if metrics.is_empty() {
        return out + "---\n";
    }
    out += &format!("model-index:\n- name: {}\n  results:\n  - task:\n      type: {task}\n", yaml(model));
    out += &format!("    dataset:\n      name: {0}\n      type: {0}\n      split: test\n", yaml(&data));
    if let Some(hash) = document.data.get("sha256").and_then(Value::as_str) {
        out += &format!("      revision: {}\n", yaml(hash));
    }
    out += "    metrics:\n";
    for f in metrics {
        let value = f.value.unwrap_or_default();
        out += &format!(
            "    - type: {}\n      value: {}\n      name: {}\n      verified: false\n      args:\n        finding: {}\n        verdict: {}\n",
            yaml(f.metric.as_deref().unwrap_or(&f.id)),
            number(value),
            yaml(&f.title),
            yaml(&f.id),
            f.verdict.name()
        );
        if let Some(i) = f.interval.as_ref().filter(|i| i.low.is_finite() && i.high.is_finite()) {
            out += &format!(
                "        interval: [{}, {}]\n        level: {}\n",
                number(i.low),
                number(i.high),
                number(i.level)
            );
        }
        if let Some(n) = f.n {
            out += &format!("        n: {n}\n");
        }
    }
    out + "---\n"
}

/// A number that every YAML version reads as one.
fn number(v: f64) -> String {
    let text = format!("{v:?}");
    // YAML 1.1 reads `1e-7` as text: a float needs a point, and its exponent a sign.
    match text.split_once('e') {
        Some((m, e)) => {
            let m = if m.contains('.') { m.to_owned() } else { format!("{m}.0") };
            if e.starts_with('-') { format!("{m}e{e}") } else { format!("{m}e+{e}") }
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_numbers_in_every_yaml() {
        assert_eq!([number(0.5), number(3.0), number(1e-7), number(1.5e300)], ["0.5", "3.0", "1.0e-7", "1.5e+300"]);
    }

    #[test]
    fn commands_hold_harmless_names_only() {
        assert_eq!(
            (shell("a/b-1.onnx"), shell("a b"), shell("-x"), shell("$(x)")),
            ("a/b-1.onnx".into(), "MODEL".into(), "MODEL".into(), "MODEL".into())
        );
    }
}
