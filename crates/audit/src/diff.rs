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
