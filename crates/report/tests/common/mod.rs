//! A document in which every field is set, with hostile text wherever text can come from a user.

use std::collections::BTreeMap;

use netproof_core::{
    AuditDocument, Axis, Card, CardKind, Cell, Challenge, Clock, Comparison, Evidence, Finding, Gallery, GalleryItem,
    GallerySection, Interval, Mark, Picture, Plot, PlotKind, Provenance, SCHEMA, Series, Table, Threshold, Verdict,
};

/// Markup, quotes, a control character, an override that reorders, and a name without a break.
#[allow(dead_code)]
pub(crate) const HOSTILE: &str = "<script>alert(1)</script>\"'&\u{0}\u{1b}[31m\u{202e}]]>";

pub(crate) static CARDS: [Card; 1] = [Card {
    id: "calibration",
    version: 2,
    kind: CardKind::Check,
    title: "Calibration",
    challenge: Challenge::Overfitting,
    measures: "Whether confidence is accuracy.",
    reference: "Guo et al., ICML 2017",
    needs: &[],
    options: &[],
}];

pub(crate) fn finding(id: &str, verdict: Verdict) -> Finding {
    Finding {
        id: id.into(),
        check: id.split('/').next().unwrap_or(id).into(),
        challenge: Challenge::Overfitting,
        title: format!("title of {id} {HOSTILE}"),
        verdict,
        metric: Some(format!("ece{HOSTILE}")),
        value: Some(0.125),
        interval: Some(Interval { low: 0.1, high: 0.15, level: 0.95, method: HOSTILE.into() }),
        n: Some(2000),
        unit: Some("fraction".into()),
        threshold: Some(Threshold { value: 0.1, comparison: Comparison::AtMost, source: HOSTILE.into() }),
        explanation: format!("first {HOSTILE}\n\nsecond"),
        caveats: vec![HOSTILE.into()],
        evidence: evidence(),
        remedies: vec!["calibration".into(), HOSTILE.into()],
        provenance: Provenance {
            model: "a".repeat(64),
            data: HOSTILE.into(),
            options: "b".repeat(64),
            version: 1,
            seed: u64::MAX,
            device: HOSTILE.into(),
        },
    }
}

fn evidence() -> Vec<Evidence> {
    let mark = Mark { x: Some(0.5), y: 0.5, low: Some(0.4), high: Some(0.6), n: Some(9), label: Some(HOSTILE.into()) };
    let matrix = PlotKind::Matrix { rows: vec![HOSTILE.into()], columns: vec!["b".into()], values: vec![3.0] };
    let mut kinds = vec![PlotKind::Lines, PlotKind::Points, PlotKind::Bars, PlotKind::Forest, PlotKind::Reliability];
    kinds.extend([matrix, PlotKind::Band, PlotKind::Beeswarm, PlotKind::Waterfall { base: 0.25 }]);
    kinds.push(PlotKind::Pareto { x: Comparison::AtLeast, y: Comparison::AtMost });
    let mut all: Vec<Evidence> = kinds
        .into_iter()
        .map(|plot| {
            Evidence::Plot(Plot {
                title: HOSTILE.into(),
                x: Axis { label: HOSTILE.into(), range: Some((0.0, 1.0)), log: false },
                y: Axis::new(HOSTILE),
                plot,
                series: vec![
                    Series { name: HOSTILE.into(), marks: vec![mark.clone(), mark.clone()] },
                    Series { name: "two".into(), marks: vec![mark.clone()] },
                ],
                reference: Some(0.3),
            })
        })
        .collect();
    all.push(Evidence::Table(Table {
        title: HOSTILE.into(),
        columns: vec![HOSTILE.into(), "n".into(), "x".into(), "y".into()],
        rows: vec![vec![Cell::Text(HOSTILE.into()), Cell::Count(3), Cell::Number(0.5), Cell::Missing]],
    }));
    let picture = Picture {
        title: HOSTILE.into(),
        file: HOSTILE.into(),
        sha256: "c".repeat(64),
        width: 28,
        height: 28,
        alt: HOSTILE.into(),
        warning: Some(HOSTILE.into()),
    };
    all.push(picture.clone().into());
    let item = GalleryItem { title: HOSTILE.into(), note: HOSTILE.into(), pictures: vec![picture] };
    let section = GallerySection { title: HOSTILE.into(), items: vec![item] };
    all.push(Gallery { title: HOSTILE.into(), sections: vec![section] }.into());
    all.push(Evidence::Rows { title: HOSTILE.into(), ids: vec![1, 2] });
    all
}

pub(crate) fn document() -> AuditDocument {
    let map = || -> BTreeMap<String, serde_json::Value> {
        [("name", HOSTILE.into()), ("rows", 2000.into()), (HOSTILE, serde_json::json!({ "a": [1, HOSTILE, null] }))]
            .map(|(k, v)| (k.to_owned(), v))
            .into()
    };
    AuditDocument {
        schema: SCHEMA.into(),
        tool: "netproof 0.1.0".into(),
        model: map(),
        data: map(),
        seed: 7,
        policy_violations: vec![HOSTILE.into()],
        findings: vec![
            finding("calibration/ece", Verdict::Concern),
            finding("calibration/ECE", Verdict::Pass),
            finding("other/a", Verdict::Inconclusive),
            finding("other/b", Verdict::NotApplicable),
            finding("other/c", Verdict::Failed),
        ],
        digest: "d".repeat(64),
        clock: Clock {
            started: "2026-03-02T09:41:07Z".into(),
            seconds: [("calibration".to_owned(), 1.5), (HOSTILE.to_owned(), 70.0)].into(),
            reused: vec!["calibration".into(), HOSTILE.into()],
            findings: vec![finding("cost/latency", Verdict::Pass)],
        },
    }
}

/// Checks that tags close in order and that text holds no raw markup; returns all start tags with their attributes.
#[allow(dead_code)]
pub(crate) fn well_formed(text: &str, void: &[&str]) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    let mut tags = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let (before, after) = rest.split_at(at);
        for (i, _) in before.match_indices('&') {
            let entity = &before[i..];
            let known = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
            assert!(known.iter().any(|k| entity.starts_with(k)), "bare ampersand in {before:?}");
        }
        let end = after.find('>').unwrap_or_else(|| panic!("open tag: {after:.80}"));
        let tag = &after[1..end];
        rest = &after[end + 1..];
        if tag.starts_with('!') || tag.starts_with('?') {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            let last = open.pop();
            assert_eq!(last.as_deref(), Some(name), "before {rest:.120}");
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
        let name: String = tag.chars().take_while(|c| !c.is_whitespace() && *c != '/').collect();
        assert!(!name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "<{tag}>");
        tags.push(tag.to_owned());
        if !tag.ends_with('/') && !void.contains(&name.as_str()) {
            open.push(name.clone());
        }
        if name == "style" {
            rest = &rest[rest.find("</style>").unwrap_or(0)..];
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    tags
}
