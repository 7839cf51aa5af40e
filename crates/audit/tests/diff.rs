//! Two audits compared: closed forms of the tests, and what counts as worse.

use netproof_audit::diff;
use netproof_core::{
    AuditDocument, Challenge, Change, Clock, Comparison, Finding, FindingDiff, Interval, Provenance, SCHEMA, Threshold,
    Verdict,
};
use netproof_stats::Level;
use netproof_stats::special::normal_cdf;

fn finding(id: &str, verdict: Verdict) -> Finding {
    Finding {
        id: id.into(),
        check: id.split('/').next().unwrap().into(),
        challenge: Challenge::Overfitting,
        title: id.into(),
        verdict,
        metric: id.split('/').nth(1).map(str::to_owned),
        value: None,
        interval: None,
        n: None,
        unit: Some("fraction".into()),
        threshold: None,
        explanation: String::new(),
        caveats: vec![],
        evidence: vec![],
        remedies: vec![],
        provenance: Provenance::default(),
    }
}

fn share(id: &str, k: u64, n: u64) -> Finding {
    let i = netproof_stats::interval::proportion::wilson(k, n, Level::P95).unwrap();
    Finding {
        value: Some(k as f64 / n as f64),
        n: Some(n),
        interval: Some(Interval { low: i.low, high: i.high, level: 0.95, method: "wilson".into() }),
        ..finding(id, Verdict::Pass)
    }
}

fn ranged(id: &str, value: f64, half: f64) -> Finding {
    Finding {
        value: Some(value),
        interval: Some(Interval { low: value - half, high: value + half, level: 0.95, method: "bootstrap".into() }),
        ..finding(id, Verdict::Pass)
    }
}

fn audit(findings: Vec<Finding>) -> AuditDocument {
    AuditDocument {
        schema: SCHEMA.into(),
        tool: "netproof 1".into(),
        model: [("sha256".to_owned(), serde_json::json!("m"))].into(),
        data: [("sha256".to_owned(), serde_json::json!("d"))].into(),
        seed: 0,
        policy_violations: vec![],
        findings,
        digest: String::new(),
        clock: Clock::default(),
    }
}

fn one(a: Finding, b: Finding) -> FindingDiff {
    diff(&audit(vec![a]), &audit(vec![b]), Level::P95).findings.remove(0)
}

#[test]
fn proportions_are_tested_by_their_counts() {
    let f = one(share("a/accuracy", 900, 1000), share("a/accuracy", 850, 1000));
    let d = f.difference.unwrap();
    // Pooled share 0.875: z = -0.05 / sqrt(0.875 · 0.125 · 2 / 1000) = -3.3806; p = 0.000723.
    assert!((d.p.unwrap() - 7.232e-4).abs() < 1e-6, "{:?}", d.p);
    let i = d.interval.unwrap();
    // Newcombe's method 10 from the Wilson intervals [0.8798, 0.9171] and [0.8266, 0.8708].
    assert!((i.low + 0.078_99).abs() < 2e-4 && (i.high + 0.021_07).abs() < 2e-4, "{i:?}");
    assert_eq!((f.change, d.overlap), (Change::Worse, Some(false)));
    let back = one(share("a/accuracy", 850, 1000), share("a/accuracy", 900, 1000));
    assert_eq!(back.change, Change::Better);
    assert_eq!(one(share("a/error", 100, 1000), share("a/error", 150, 1000)).change, Change::Worse);
    assert_eq!(one(share("a/accuracy", 900, 1000), share("a/accuracy", 899, 1000)).change, Change::WithinNoise);
    assert_eq!(one(share("a/accuracy", 900, 1000), share("a/accuracy", 900, 1000)).change, Change::Same);
    assert_eq!(one(share("a/zorp", 900, 1000), share("a/zorp", 850, 1000)).change, Change::Changed);
    assert_eq!(one(share("a/accuracy", 5, 5), share("a/accuracy", 5, 5)).change, Change::Same);
}

#[test]
fn overlapping_intervals_can_differ_and_touching_ones_decide_nothing() {
    // Halves 1 and 1: the difference has half width sqrt(2), so 1.5 is beyond it though the intervals overlap.
    let f = one(ranged("a/loss", 10.0, 1.0), ranged("a/loss", 11.5, 1.0));
    let d = f.difference.unwrap();
    assert_eq!((f.change, d.overlap), (Change::Worse, Some(true)));
    let z = 1.5 / 2.0_f64.sqrt() * 1.959_964;
    assert!((d.p.unwrap() - 2.0 * (1.0 - normal_cdf(z))).abs() < 1e-6);
    let i = d.interval.unwrap();
    assert!((i.low - (1.5 - 2.0_f64.sqrt())).abs() < 1e-12 && (i.high - (1.5 + 2.0_f64.sqrt())).abs() < 1e-12);
    assert_eq!(one(ranged("a/loss", 10.0, 1.0), ranged("a/loss", 11.4, 1.0)).change, Change::WithinNoise);
    assert_eq!(one(ranged("a/loss", 10.0, 0.0), ranged("a/loss", 11.0, 0.0)).change, Change::Worse);
}

#[test]
fn a_verdict_that_turns_within_noise_is_not_worse() {
    let limit = |f: Finding| Finding {
        threshold: Some(Threshold { value: 0.9, comparison: Comparison::AtLeast, source: "policy".into() }),
        ..f
    };
    let turned = Finding { verdict: Verdict::Concern, ..limit(share("a/accuracy", 899, 1000)) };
    let f = one(limit(share("a/accuracy", 901, 1000)), turned.clone());
    assert!(f.change == Change::WithinNoise && f.reason.contains("verdict from pass to concern"), "{f:?}");
    let without = |f: Finding| Finding { interval: None, ..f };
    assert_eq!(one(without(share("a/accuracy", 901, 1000)), without(turned)).change, Change::Worse);
    let gone = one(finding("a/x", Verdict::Concern), finding("a/x", Verdict::Pass));
    assert_eq!(gone.change, Change::Better);
    assert_eq!(one(finding("a/x", Verdict::Pass), finding("a/x", Verdict::Concern)).change, Change::Worse);
}

#[test]
fn what_is_no_longer_decided_is_lost_and_never_the_same() {
    for v in [Verdict::Inconclusive, Verdict::Failed, Verdict::NotApplicable] {
        assert_eq!(
            one(share("a/accuracy", 9, 10), Finding { verdict: v, ..share("a/accuracy", 9, 10) }).change,
            Change::Lost
        );
    }
    assert_eq!(one(finding("a/x", Verdict::Failed), finding("a/x", Verdict::Failed)).change, Change::Same);
    assert_eq!(one(finding("a/x", Verdict::Failed), finding("a/x", Verdict::Pass)).change, Change::Changed);
}

#[test]
fn findings_of_one_audit_alone() {
    let a = audit(vec![share("a/accuracy", 9, 10), finding("gone/x", Verdict::Concern)]);
    let b = audit(vec![
        share("a/accuracy", 9, 10),
        finding("a/new", Verdict::Concern),
        finding("other/new", Verdict::Concern),
    ]);
    let d = diff(&a, &b, Level::P95);
    let changes: Vec<(&str, Change)> = d.findings.iter().map(|f| (f.id.as_str(), f.change)).collect();
    assert_eq!(
        changes,
        [
            ("a/accuracy", Change::Same),
            ("a/new", Change::Worse),
            ("other/new", Change::Appeared),
            ("gone/x", Change::Disappeared)
        ]
    );
    assert_eq!(d.changed.iter().map(|c| c.what.as_str()).collect::<Vec<_>>(), ["checks that only one audit ran"]);
}

#[test]
fn many_tests_need_more_to_be_sure() {
    let many = |first: Finding| {
        let mut all = vec![first];
        all.extend((0..60).map(|i| share(&format!("b{i}/accuracy"), 500, 1000)));
        audit(all)
    };
    let alone = one(share("a/accuracy", 900, 1000), share("a/accuracy", 865, 1000));
    assert_eq!(alone.change, Change::Worse);
    let d = diff(&many(share("a/accuracy", 900, 1000)), &many(share("a/accuracy", 865, 1000)), Level::P95);
    assert_eq!((d.tests, d.findings[0].change), (61, Change::WithinNoise));
    let d = diff(&many(share("a/accuracy", 900, 1000)), &many(share("a/accuracy", 840, 1000)), Level::P95);
    assert_eq!(d.findings[0].change, Change::Worse);
    let p = d.findings[0].difference.as_ref().unwrap();
    assert!((p.p_adjusted.unwrap() - 61.0 * p.p.unwrap()).abs() < 1e-12);
}

#[test]
fn clocks_are_shown_and_never_worse() {
    let clocked = |f: Finding| {
        let mut d = audit(vec![]);
        d.clock.findings = vec![f];
        d
    };
    let d = diff(&clocked(ranged("c/latency", 1.0, 0.01)), &clocked(ranged("c/latency", 2.0, 0.01)), Level::P95);
    assert_eq!((d.findings[0].change, d.findings[0].clocked, d.tests), (Change::Changed, true, 0));
}

#[test]
fn what_explains_a_difference_is_said() {
    let mut b = audit(vec![Finding {
        provenance: Provenance { options: "o".into(), version: 2, ..Provenance::default() },
        ..share("a/accuracy", 9, 10)
    }]);
    b.model.insert("sha256".into(), serde_json::json!("n"));
    b.data.insert("sha256".into(), serde_json::json!("e"));
    b.seed = 1;
    let d = diff(&audit(vec![share("a/accuracy", 9, 10)]), &b, Level::P95);
    let what: Vec<&str> = d.changed.iter().map(|c| c.what.as_str()).collect();
    assert_eq!(what, ["model (SHA-256)", "data (SHA-256)", "seed", "options of a (SHA-256)", "version of a"]);
    assert!(d.caveats[0].contains("different data"));
    assert!(d.findings[0].reason.contains("may not mean the same"));
    let same = diff(&b, &b, Level::P95);
    assert!(same.changed.is_empty() && same.count(Change::Same) == 1);
}
