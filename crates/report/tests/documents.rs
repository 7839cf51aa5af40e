//! Model card, annex and bill of materials: nothing of a user becomes markup, nothing is claimed that was not measured.

mod common;

use std::collections::BTreeMap;

use common::{CARDS, HOSTILE, document, finding, well_formed};
use netproof_core::{AuditDocument, Challenge, Clock, SCHEMA, Verdict};
use netproof_report::{HtmlOptions, annex, model_card, render_html, to_bom};
use serde_json::Value;

fn empty() -> AuditDocument {
    AuditDocument {
        schema: SCHEMA.into(),
        tool: "netproof 0.1.0".into(),
        model: BTreeMap::new(),
        data: BTreeMap::new(),
        seed: 0,
        policy_violations: vec![],
        findings: vec![],
        digest: String::new(),
        clock: Clock::default(),
    }
}

/// An audit with plain text, for what the documents say.
fn plain() -> AuditDocument {
    let mut d = document();
    d.policy_violations.clear();
    d.clock.findings.clear();
    let mut accuracy = finding("performance/accuracy", Verdict::Concern);
    accuracy.title = "Accuracy is below the limit".into();
    accuracy.metric = Some("accuracy".into());
    accuracy.caveats = vec!["One camera only.".into()];
    if let (Some(t), Some(i)) = (&mut accuracy.threshold, &mut accuracy.interval) {
        (t.source, i.method) = ("policy.toml".into(), "wilson".into());
    }
    let mut drift = finding("drift/psi", Verdict::Inconclusive);
    (drift.title, drift.challenge, drift.caveats) = ("Drift".into(), Challenge::DomainShift, vec![]);
    d.findings = vec![accuracy, drift];
    d.model = [
        ("name", Value::from("net.onnx")),
        ("sha256", "a".repeat(64).into()),
        ("parameters", 12.into()),
        ("inputs", vec!["x: float32 [batch, 1, 28, 28]"].into()),
        ("answers", "logits".into()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    d.data = [
        ("name", Value::from("test.npz")),
        ("rows", 2000.into()),
        ("sha256", "b".repeat(64).into()),
        ("feature_shape", vec![1, 28, 28].into()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    d
}

/// Lines of the front matter, without the marks.
fn front(card: &str) -> Vec<&str> {
    let (matter, _) = card.strip_prefix("---\n").unwrap().split_once("\n---\n").unwrap();
    matter.lines().collect()
}

#[test]
fn nothing_of_a_user_becomes_markup() {
    let card = model_card(&document(), None, false).unwrap().markdown;
    let annex = annex(&document(), None, false).unwrap();
    for text in [&card, &annex.markdown] {
        let body = text.split_once("\n---\n").map_or(text.as_str(), |(_, b)| b);
        for line in body.lines() {
            let mark = line.starts_with("<!-- netproof:") || line == "<!-- /netproof:person -->";
            assert!(mark || !line.contains('<'), "{line}");
            assert!(!line.contains(['\u{0}', '\u{1b}', '\u{202e}']), "{line}");
        }
    }
    for line in front(&card) {
        assert!(
            !line.contains(['\u{0}', '\u{1b}', '\u{202e}'])
                && line.matches('"').count() % 2 == line.matches("\\\"").count() % 2,
            "{line}"
        );
    }
    well_formed(&annex.html, &["meta"]);
    assert!(!annex.html.contains("<script") && annex.html.contains("&lt;script&gt;"));
    let bom: Value = serde_json::from_str(&to_bom(&document())).unwrap();
    let text = bom.to_string();
    assert!(!text.contains("\\u0000") && !text.contains('\u{202e}'));
}

#[test]
fn names_cannot_open_or_close_the_parts_of_people() {
    let mut d = plain();
    let evil = "<!-- /netproof:person -->\n# netproof:person x\n---";
    d.findings[0].title = evil.into();
    d.model.insert("name".into(), evil.into());
    d.data.insert("name".into(), evil.into());
    let first = model_card(&d, None, false).unwrap();
    let second = model_card(&d, Some(&first.markdown), false).unwrap();
    assert_eq!(first, second);
    assert_eq!(front(&first.markdown).iter().filter(|l| l.trim() == "---").count(), 0);
    let first = annex(&d, None, false).unwrap();
    assert_eq!(annex(&d, Some(&first.markdown), false).unwrap(), first);
}

#[test]
fn an_empty_audit_claims_nothing() {
    let card = model_card(&empty(), None, false).unwrap();
    assert!(card.markdown.contains("Nothing was measured") && !card.markdown.contains("model-index"));
    assert_eq!(card.markdown.matches("\nNot measured.\n").count(), 10, "nine challenges and the environment");
    assert_eq!(card.unfinished.len(), 6 + 1, "and the front matter");
    let annex = annex(&empty(), None, false).unwrap();
    assert_eq!(annex.not_measured.len(), 9);
    assert!(annex.markdown.contains("This audit has no findings.") && !annex.markdown.contains("measured: "));
    let bom: Value = serde_json::from_str(&to_bom(&empty())).unwrap();
    assert!(bom["metadata"]["component"]["modelCard"]["quantitativeAnalysis"].is_null());
    assert_eq!(bom["components"].as_array().unwrap().len(), 0);
    assert!(bom["metadata"]["timestamp"].is_null());
}

#[test]
fn the_card_says_what_was_found_and_only_that() {
    let card = model_card(&plain(), None, false).unwrap().markdown;
    let front = front(&card);
    for line in [
        "library_name: onnx",
        "pipeline_tag: image-classification",
        "- name: \"net.onnx\"",
        "      type: image-classification",
        "      type: \"test.npz\"",
        "    - type: \"accuracy\"",
        "      value: 0.125",
        "        finding: \"performance/accuracy\"",
        "        interval: [0.1, 0.15]",
        "        n: 2000",
    ] {
        assert!(front.contains(&line), "{line} in {front:#?}");
    }
    assert_eq!(front.iter().filter(|l| l.starts_with("    - type:")).count(), 1, "what is inconclusive is no result");
    let statement = "- **Concern**. Accuracy is below the limit: accuracy = 0.125 (95 % interval 0.100 to 0.150, wilson), \
                     n = 2,000; limit at most 0.1 (policy.toml). Finding [`performance/accuracy`](report.html#f-performance-accuracy)";
    assert!(card.contains(statement), "{card}");
    assert!(card.contains("- One camera only. Finding [`performance/accuracy`]"));
    assert!(card.contains("without a result that can be relied on:\n\n- **Inconclusive**. Drift"));
    assert!(card.contains("**Not measured:** data limits, compute cost, interpretability, adversarial attacks"));
}

#[test]
fn links_lead_to_where_the_report_has_the_finding() {
    let d = document();
    let report = render_html(&d, &CARDS, &HtmlOptions::default());
    let annex = annex(&d, None, false).unwrap();
    let links: Vec<&str> =
        annex.html.split("href=\"report.html#").skip(1).filter_map(|l| l.split('"').next()).collect();
    assert!(links.len() > d.findings.len());
    for l in links {
        assert!(report.contains(&format!(" id=\"{l}\"")), "{l}");
    }
}

#[test]
fn what_a_person_wrote_survives_another_audit() {
    let mut d = plain();
    let first = model_card(&d, None, false).unwrap();
    let mine = first
        .markdown
        .replace(
            "# To be written by a person: license, language, tags, base_model",
            "license: apache-2.0\ntags: [clothes]",
        )
        .replace(
            "> **☐ To be written by a person.** What the model is for, for whom, and in which setting.",
            "Sorting of **returned clothes**.\n\n<b>Not</b> for customs.",
        );
    d.findings[0].value = Some(0.2);
    d.digest = "e".repeat(64);
    let second = model_card(&d, Some(&mine), false).unwrap();
    assert!(second.markdown.contains("\nlicense: apache-2.0\ntags: [clothes]\n"));
    assert!(second.markdown.contains("\nSorting of **returned clothes**.\n\n<b>Not</b> for customs.\n"));
    assert!(second.markdown.contains("value: 0.2\n") && !second.markdown.contains("value: 0.125\n"));
    assert_eq!(second.unfinished.len(), first.unfinished.len() - 2);

    let annexed = annex(&d, None, false).unwrap();
    let mine = annexed
        .markdown
        .replace("> **☐ To be written by a person.** Why these metrics", "<script>x</script> Why these metrics");
    let again = annex(&d, Some(&mine), false).unwrap();
    assert_eq!(again.unfinished.len(), annexed.unfinished.len() - 1);
    assert!(again.html.contains("&lt;script&gt;x") && !again.html.contains("<script"));
    well_formed(&again.html, &["meta"]);

    let gone = "<!-- netproof:person old-part -->\nkept words\n<!-- /netproof:person -->\n";
    let with = mine.replace("## Findings and clauses", &format!("{gone}## Findings and clauses"));
    assert!(annex(&d, Some(&with), true).unwrap().markdown.contains("kept words"));
}

#[test]
fn the_annex_puts_every_finding_somewhere_and_says_what_is_missing() {
    let mut d = plain();
    d.findings = Challenge::ALL
        .into_iter()
        .map(|c| {
            let mut f = finding(&format!("unknown-{}/x", c.id()), Verdict::Pass);
            (f.challenge, f.title) = (c, format!("Something of {}", c.title()));
            f
        })
        .collect();
    let all = annex(&d, None, false).unwrap();
    for f in &d.findings {
        let stands = all.markdown.matches(&format!("Finding [`{}`]", f.id)).count();
        assert!(stands >= 2, "{} under an item and with its caveat", f.id);
    }
    assert!(all.not_measured.is_empty());
    d.findings.retain(|f| f.challenge == Challenge::Bias);
    let one = annex(&d, None, false).unwrap();
    assert!(
        one.not_measured.contains(&"Privacy") && !one.not_measured.contains(&"Examination and mitigation of biases")
    );
    assert!(one.markdown.contains("## Privacy\n\n**Asked for.**"));
    let privacy = one.markdown.split_once("## Privacy\n").unwrap().1.split("\n## ").next().unwrap();
    assert!(privacy.contains("**Not measured.** No finding of this audit answers this item."), "{privacy}");
    d.findings[0].verdict = Verdict::Inconclusive;
    let unsure = annex(&d, None, false).unwrap().markdown;
    assert!(
        unsure.contains("| Examination and mitigation of biases | looked at, without a result that can be relied on |")
    );
}

#[test]
fn the_bill_of_materials_has_hashes_metrics_and_data() {
    let d = plain();
    let text = to_bom(&d);
    assert_eq!(text, to_bom(&d));
    let bom: Value = serde_json::from_str(&text).unwrap();
    let model = &bom["metadata"]["component"];
    assert_eq!(model["hashes"][0]["content"], "a".repeat(64));
    let metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"].as_array().unwrap();
    assert_eq!(metrics.len(), 1, "what is inconclusive is no figure");
    assert_eq!(
        metrics[0],
        serde_json::json!({
            "type": "accuracy", "value": "0.125", "slice": "performance/accuracy",
            "confidenceInterval": { "lowerBound": "0.1", "upperBound": "0.15" },
        })
    );
    assert_eq!(model["modelCard"]["modelParameters"]["task"], "image-classification");
    assert_eq!(bom["components"][0]["bom-ref"], model["modelCard"]["modelParameters"]["datasets"][0]["ref"]);
    assert_eq!(bom["metadata"]["timestamp"], "2026-03-02T09:41:07Z");
    let mut other = d;
    other.digest = "f".repeat(64);
    let other: Value = serde_json::from_str(&to_bom(&other)).unwrap();
    assert_ne!(other["serialNumber"], bom["serialNumber"]);
}

#[test]
fn two_audits_side_by_side() {
    use netproof_core::{AuditDiff, Change, Changed, DIFF_SCHEMA, Difference, FindingDiff, Interval, Side};
    use netproof_report::{diff_text, render_diff};
    let d = document();
    let entry = |change, id: &str| FindingDiff {
        id: id.into(),
        title: HOSTILE.into(),
        challenge: Challenge::Bias,
        change,
        before: Some(Verdict::Pass),
        after: None,
        difference: Some(Difference {
            before: 0.9,
            after: 0.85,
            value: -0.05,
            interval: Some(Interval { low: -0.079, high: -0.021, level: 0.95, method: "newcombe".into() }),
            overlap: Some(false),
            p: Some(0.001),
            p_adjusted: Some(0.01),
            test: None,
        }),
        clocked: false,
        reason: HOSTILE.into(),
    };
    let diff = AuditDiff {
        schema: DIFF_SCHEMA.into(),
        before: Side { model: HOSTILE.into(), digest: HOSTILE.into(), ..Side::default() },
        after: Side::default(),
        changed: vec![Changed { what: HOSTILE.into(), before: HOSTILE.into(), after: String::new() }],
        caveats: vec!["Different data.".into()],
        level: 0.95,
        tests: 2,
        findings: Change::ALL
            .into_iter()
            .zip(["calibration/ece", "other/a", "a", "b", "c", "d", "e", "f"])
            .map(|(c, id)| entry(c, id))
            .collect(),
    };
    let html = render_diff(&diff, &d, &d);
    well_formed(&html, &["meta"]);
    assert!(!html.contains("<script") && !html.contains(['\u{0}', '\u{202e}']));
    assert!(html.contains("<h2 id=\"changed\">") && html.find("id=\"changed\"") < html.find("id=\"findings\""));
    assert!(html.contains("−0.050 [−0.079, −0.021]") && html.contains("not there"));
    let text = diff_text(&diff);
    assert!(text.starts_with("One finding became worse. 1 worse, 1 no longer decided"), "{text}");
    assert!(text.contains("▼ calibration/ece: 0.9 → 0.85, −0.050 [−0.079, −0.021]") && !text.contains('\u{1b}'));
    let none = AuditDiff { findings: vec![], changed: vec![], ..diff };
    assert!(diff_text(&none).starts_with("There is nothing to compare."));
    well_formed(&render_diff(&none, &empty(), &empty()), &["meta"]);
}
