//! Two audits side by side: which findings changed, and whether that is more than noise.
//!
//! A difference of two proportions with known counts is tested by Fleiss's pooled z test, with Newcombe's interval. Two
//! values with intervals of one level are compared by the method of variance estimates recovery (MOVER: Zou and Donner
//! 2008, Statistics in Medicine 27, 1693–1702): the distance from the value to the end of its interval stands for the
//! standard error on that side. Holm's step-down procedure (1979, Scandinavian Journal of Statistics 6) holds the level
//! over all tests of a comparison, since among sixty findings some differ by chance alone.
//!
//! Both tests take the two samples as independent. Where both audits use the same rows, errors mostly agree, so that a
//! true difference is larger beside its noise than these tests assume: they then miss differences rather than invent
//! them. A value without an interval has no known noise: it is reported as changed, and its verdict decides.

use std::collections::{BTreeMap, BTreeSet};

use netproof_core::{
    AuditDiff, AuditDocument, Change, Changed, Comparison, DIFF_SCHEMA, Difference, Finding, FindingDiff, Interval,
    Side, Verdict,
};
use netproof_stats::Level;
use netproof_stats::hypothesis::two_proportion_z;
use netproof_stats::interval::difference;
use netproof_stats::special::normal_cdf;

/// Words in names of metrics that say which side is good, looked up in this order.
static DIRECTIONS: &[(&str, Comparison)] = &[
    ("gap", Comparison::AtMost),
    ("difference", Comparison::AtMost),
    ("disparity", Comparison::AtMost),
    ("error", Comparison::AtMost),
    ("false_positive", Comparison::AtMost),
    ("false_negative", Comparison::AtMost),
    ("attack_success", Comparison::AtMost),
    ("advantage", Comparison::AtMost),
    ("leak", Comparison::AtMost),
    ("ece", Comparison::AtMost),
    ("loss", Comparison::AtMost),
    ("brier", Comparison::AtMost),
    ("duplicate", Comparison::AtMost),
    ("conflict", Comparison::AtMost),
    ("violation", Comparison::AtMost),
    ("infidelity", Comparison::AtMost),
    ("sensitivity_max", Comparison::AtMost),
    ("latency", Comparison::AtMost),
    ("bytes", Comparison::AtMost),
    ("macs", Comparison::AtMost),
    ("energy", Comparison::AtMost),
    ("accuracy", Comparison::AtLeast),
    ("precision", Comparison::AtLeast),
    ("recall", Comparison::AtLeast),
    ("true_positive", Comparison::AtLeast),
    ("f1", Comparison::AtLeast),
    ("auroc", Comparison::AtLeast),
    ("auprc", Comparison::AtLeast),
    ("average_precision", Comparison::AtLeast),
    ("kappa", Comparison::AtLeast),
    ("matthews", Comparison::AtLeast),
    ("r2", Comparison::AtLeast),
    ("certified", Comparison::AtLeast),
    ("robust", Comparison::AtLeast),
    ("faithfulness", Comparison::AtLeast),
    ("agreement", Comparison::AtLeast),
    ("fidelity", Comparison::AtLeast),
    ("throughput", Comparison::AtLeast),
];

/// Compares two audits at `level` over all findings together.
///
/// A finding is worse if its value moved to the bad side by more than noise, or, where nothing is known of its noise, if
/// it became a concern; a new concern counts too if its check found other things in the first audit, with the same
/// options. The good side is that of the finding's threshold, else that of the metric's name. Readings of clocks and
/// meters are shown and never count as worse.
pub fn diff(before: &AuditDocument, after: &AuditDocument, level: Level) -> AuditDiff {
    let (old, new) = (by_id(before), by_id(after));
    let mut findings = Vec::new();
    for (f, clocked) in all(after) {
        let entry = match old.get(f.id.as_str()) {
            Some(&(o, _)) => Entry { before: Some(o), after: Some(f), clocked },
            None => Entry { before: None, after: Some(f), clocked },
        };
        findings.push(entry);
    }
    let gone = all(before).filter(|(f, _)| !new.contains_key(f.id.as_str()));
    findings.extend(gone.map(|(f, clocked)| Entry { before: Some(f), after: None, clocked }));

    let mut differences: Vec<Option<Difference>> = findings.iter().map(Entry::difference).collect();
    let tests = holm(findings.iter().zip(&mut differences).filter(|(e, _)| !e.clocked).filter_map(|(_, d)| d.as_mut()));
    let common: BTreeSet<(&str, &str, u32)> = all(before).map(|(f, _)| method(f)).collect();
    let findings = findings.into_iter().zip(differences).map(|(e, d)| e.judge(d, level, &common)).collect();
    AuditDiff {
        schema: DIFF_SCHEMA.to_owned(),
        before: side(before),
        after: side(after),
        changed: changed(before, after),
        caveats: caveats(before, after),
        level: level.get(),
        tests,
        findings,
    }
}

fn all(d: &AuditDocument) -> impl Iterator<Item = (&Finding, bool)> {
    d.findings.iter().map(|f| (f, false)).chain(d.clock.findings.iter().map(|f| (f, true)))
}

/// The first finding of each id.
fn by_id(d: &AuditDocument) -> BTreeMap<&str, (&Finding, bool)> {
    let mut map = BTreeMap::new();
    for (f, clocked) in all(d) {
        map.entry(f.id.as_str()).or_insert((f, clocked));
    }
    map
}

/// What made a finding: check, options, version.
fn method(f: &Finding) -> (&str, &str, u32) {
    (&f.check, &f.provenance.options, f.provenance.version)
}

fn decided(v: Verdict) -> bool {
    matches!(v, Verdict::Pass | Verdict::Concern)
}

fn text<'a>(map: &'a BTreeMap<String, serde_json::Value>, key: &str) -> &'a str {
    map.get(key).and_then(|v| v.as_str()).unwrap_or_default()
}

fn side(d: &AuditDocument) -> Side {
    Side {
        model: text(&d.model, "name").to_owned(),
        data: text(&d.data, "name").to_owned(),
        tool: d.tool.clone(),
        digest: d.digest.clone(),
        started: d.clock.started.clone(),
        findings: d.all_findings().count() as u64,
        concerns: d.all_findings().filter(|f| f.verdict == Verdict::Concern).count() as u64,
    }
}

fn changed(before: &AuditDocument, after: &AuditDocument) -> Vec<Changed> {
    let mut out = Vec::new();
    let mut compare = |what: &str, a: String, b: String| {
        if a != b {
            out.push(Changed { what: what.to_owned(), before: a, after: b });
        }
    };
    let of = |d: &BTreeMap<String, serde_json::Value>, key: &str| text(d, key).to_owned();
    compare("model", of(&before.model, "name"), of(&after.model, "name"));
    compare("model (SHA-256)", of(&before.model, "sha256"), of(&after.model, "sha256"));
    compare("data", of(&before.data, "name"), of(&after.data, "name"));
    compare("data (SHA-256)", of(&before.data, "sha256"), of(&after.data, "sha256"));
    compare("training data (SHA-256)", of(&before.data, "train_sha256"), of(&after.data, "train_sha256"));
    compare("tool", before.tool.clone(), after.tool.clone());
    compare("seed", before.seed.to_string(), after.seed.to_string());
    let methods = |d: &AuditDocument| -> BTreeMap<String, (String, u32)> {
        let one = |f: &Finding| (f.check.clone(), (f.provenance.options.clone(), f.provenance.version));
        d.all_findings().map(one).collect()
    };
    let (a, b) = (methods(before), methods(after));
    for (check, (options, version)) in &a {
        let Some((new_options, new_version)) = b.get(check) else { continue };
        compare(&format!("options of {check} (SHA-256)"), options.clone(), new_options.clone());
        compare(&format!("version of {check}"), version.to_string(), new_version.to_string());
    }
    let missing = |x: &BTreeMap<String, _>, y: &BTreeMap<String, _>| -> String {
        let only: Vec<&str> = x.keys().filter(|k| !y.contains_key(*k)).map(String::as_str).collect();
        only.join(", ")
    };
    compare("checks that only one audit ran", missing(&a, &b), missing(&b, &a));
    out
}

fn caveats(before: &AuditDocument, after: &AuditDocument) -> Vec<String> {
    let hash = |d: &BTreeMap<String, serde_json::Value>| text(d, "sha256").to_owned();
    let mut out = Vec::new();
    if hash(&before.data) == hash(&after.data) {
        out.push(
            "Both audits use the same rows, and the tests take them as independent: they miss small differences rather than \
             invent them."
                .to_owned(),
        );
    } else {
        out.push(
            "The audits use different data, so a difference may come from the data and not from the network."
                .to_owned(),
        );
    }
    if hash(&before.model) == hash(&after.model) {
        out.push("Both audits measured the same network.".to_owned());
    }
    out
}

/// A finding of both audits, or of one.
struct Entry<'a> {
    before: Option<&'a Finding>,
    after: Option<&'a Finding>,
    clocked: bool,
}

impl Entry<'_> {
    fn difference(&self) -> Option<Difference> {
        let (a, b) = (self.before?, self.after?);
        let (va, vb) = (a.value.filter(|v| v.is_finite())?, b.value.filter(|v| v.is_finite())?);
        if a.metric != b.metric || a.unit != b.unit || !(vb - va).is_finite() {
            return None;
        }
        let mut d = Difference {
            before: va,
            after: vb,
            value: vb - va,
            interval: None,
            overlap: None,
            p: None,
            p_adjusted: None,
            test: None,
        };
        let ends =
            |f: &Finding| f.interval.clone().filter(|i| i.low.is_finite() && i.high.is_finite() && i.low <= i.high);
        let (Some(ia), Some(ib)) = (ends(a), ends(b)) else { return Some(d) };
        d.overlap = Some(ia.low <= ib.high && ib.low <= ia.high);
        let Ok(level) = Level::new(ia.level) else { return Some(d) };
        if (ia.level - ib.level).abs() > 1e-9 {
            return Some(d);
        }
        if let (Some(ca), Some(cb)) = (counts(a), counts(b)) {
            let newcombe = difference::independent(cb, ca, level).and_then(|e| e.interval);
            d.interval =
                newcombe.map(|i| Interval { low: i.low, high: i.high, level: i.level, method: i.method.to_owned() });
            // All outcomes equal: no difference that could be tested.
            d.p = Some(two_proportion_z(cb, ca).map_or(1.0, |t| t.p_value));
            d.test = Some("two-proportion z".to_owned());
            return Some(d);
        }
        let low = (vb - ib.low).max(0.0).hypot((ia.high - va).max(0.0));
        let high = (ib.high - vb).max(0.0).hypot((va - ia.low).max(0.0));
        d.interval =
            Some(Interval { low: d.value - low, high: d.value + high, level: ia.level, method: "mover".to_owned() });
        let toward_zero = if d.value > 0.0 { low } else { high };
        d.p = Some(match (d.value == 0.0, toward_zero > 0.0) {
            (true, _) => 1.0,
            (false, true) => 2.0 * (1.0 - normal_cdf(d.value.abs() / toward_zero * level.z())),
            (false, false) => 0.0,
        });
        d.test = Some("z from intervals".to_owned());
        Some(d)
    }

    fn judge(self, difference: Option<Difference>, level: Level, common: &BTreeSet<(&str, &str, u32)>) -> FindingDiff {
        let (change, mut reason) = self.change(difference.as_ref(), level, common);
        let change = if self.clocked && change == Change::Worse {
            reason += "; a clock or a meter read it, so this does not count as worse";
            Change::Changed
        } else {
            change
        };
        if let (Some(a), Some(b)) = (self.before, self.after)
            && method(a) != method(b)
        {
            reason += "; options or version of the check differ, so the two may not mean the same";
        }
        // One of the two is there: an entry is made of a finding.
        let shown = self.after.or(self.before);
        FindingDiff {
            id: shown.map(|f| f.id.clone()).unwrap_or_default(),
            title: shown.map(|f| f.title.clone()).unwrap_or_default(),
            challenge: shown.map_or(netproof_core::Challenge::DataLimits, |f| f.challenge),
            change,
            before: self.before.map(|f| f.verdict),
            after: self.after.map(|f| f.verdict),
            difference,
            clocked: self.clocked,
            reason,
        }
    }

    fn change(&self, d: Option<&Difference>, level: Level, common: &BTreeSet<(&str, &str, u32)>) -> (Change, String) {
        let (a, b) = match (self.before, self.after) {
            (Some(a), Some(b)) => (a, b),
            (None, Some(b)) if b.verdict == Verdict::Concern && common.contains(&method(b)) => {
                return (Change::Worse, "a new concern of a check that both audits ran".to_owned());
            }
            (None, _) => return (Change::Appeared, "only the second audit has it".to_owned()),
            (_, None) => return (Change::Disappeared, "only the first audit has it".to_owned()),
        };
        let verdicts = if a.verdict == b.verdict {
            String::new()
        } else {
            format!("verdict from {} to {}; ", a.verdict, b.verdict)
        };
        if decided(a.verdict) && !decided(b.verdict) {
            return (Change::Lost, format!("{verdicts}there is no verdict any more"));
        }
        if !decided(a.verdict) || !decided(b.verdict) {
            let same = a.verdict == b.verdict && d.is_none_or(|d| d.value == 0.0);
            let change = if same { Change::Same } else { Change::Changed };
            return (change, format!("{verdicts}the first audit has no verdict"));
        }
        let worse_verdict = match (a.verdict, b.verdict) {
            (Verdict::Pass, Verdict::Concern) => Some(true),
            (Verdict::Concern, Verdict::Pass) => Some(false),
            _ => None,
        };
        let by_verdict = |otherwise: Change| match worse_verdict {
            Some(true) => Change::Worse,
            Some(false) => Change::Better,
            None => otherwise,
        };
        let Some(d) = d else {
            return (by_verdict(Change::Same), format!("{verdicts}there are no two values to compare"));
        };
        let Some(p) = d.p_adjusted.or(d.p) else {
            let otherwise = if d.value == 0.0 { Change::Same } else { Change::Changed };
            let why = if d.value == 0.0 { "equal values" } else { "no common interval says how much of this is noise" };
            return (by_verdict(otherwise), format!("{verdicts}{why}"));
        };
        if p > 1.0 - level.get() {
            let change = if d.value == 0.0 && verdicts.is_empty() { Change::Same } else { Change::WithinNoise };
            return (change, format!("{verdicts}no more than chance explains (p = {})", p_text(p)));
        }
        let beyond = format!("{verdicts}beyond noise (p = {})", p_text(p));
        match good_side(b).or_else(|| good_side(a)) {
            None => (by_verdict(Change::Changed), format!("{beyond}; nothing says which side is good")),
            Some(good) if (d.value > 0.0) == (good == Comparison::AtLeast) => (Change::Better, beyond),
            Some(_) => (Change::Worse, beyond),
        }
    }
}

fn p_text(p: f64) -> String {
    if p < 0.001 { "under 0.001".to_owned() } else { format!("{p:.3}") }
}

/// Successes and size, where a finding is a proportion of counted rows.
fn counts(f: &Finding) -> Option<(u64, u64)> {
    let method = f.interval.as_ref().map(|i| i.method.as_str())?;
    let counted = ["wilson", "clopper-pearson"].iter().any(|m| method.contains(m));
    let (value, n) = (f.value?, f.n.filter(|n| (1..1 << 52).contains(n))?);
    let k = value * n as f64;
    let whole = (k - k.round()).abs() <= 1e-6 * (n as f64).max(1.0) && (0.0..=n as f64).contains(&k.round());
    (counted && whole && (0.0..=1.0).contains(&value)).then_some((k.round() as u64, n))
}

/// Which side is good: what the threshold says, else what the metric's name says.
fn good_side(f: &Finding) -> Option<Comparison> {
    let named = |metric: &str| {
        let metric = metric.to_lowercase().replace('-', "_");
        DIRECTIONS.iter().find(|(word, _)| metric.contains(word)).map(|(_, c)| *c)
    };
    f.threshold.as_ref().map(|t| t.comparison).or_else(|| named(f.metric.as_deref()?))
}

/// Sets the adjusted p-values and returns how many tests there are.
fn holm<'a>(differences: impl Iterator<Item = &'a mut Difference>) -> u64 {
    let mut tested: Vec<&mut Difference> = differences.filter(|d| d.p.is_some()).collect();
    tested.sort_by(|a, b| a.p.unwrap_or(1.0).total_cmp(&b.p.unwrap_or(1.0)));
    let m = tested.len();
    let mut largest: f64 = 0.0;
    for (i, d) in tested.into_iter().enumerate() {
        largest = largest.max((m - i) as f64 * d.p.unwrap_or(1.0)).min(1.0);
        d.p_adjusted = Some(largest);
    }
    m as u64
}

#[cfg(test)]
mod tests {
    use netproof_core::{Challenge, Clock, Provenance, SCHEMA, Threshold};

    use super::*;

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
}
