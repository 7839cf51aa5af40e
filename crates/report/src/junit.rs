//! JUnit XML for continuous integration: one suite per check, one test case per finding.

use netproof_core::{AuditDocument, Finding, Verdict};

use crate::badge::Badge;
use crate::escape::{shorten, xml};
use crate::number::{limit, measure};

/// Longest text of a failure; build servers cut them anyway.
const TEXT: usize = 4000;

/// The document as JUnit XML.
///
/// A concern is a `failure`, a check that could not run an `error`; what is inconclusive or does not apply is `skipped`.
/// Each broken point of the policy is a failure of its own in the suite `policy`. Control characters are removed.
pub fn to_junit(document: &AuditDocument) -> String {
    let mut checks: Vec<&str> = Vec::new();
    for f in document.all_findings() {
        if !checks.contains(&f.check.as_str()) {
            checks.push(&f.check);
        }
    }
    let mut suites = String::new();
    let mut totals = Counts::default();
    for check in checks {
        let findings: Vec<&Finding> = document.all_findings().filter(|f| f.check == check).collect();
        let cases: String = findings.iter().map(|f| case(f)).collect();
        let mut counts = Counts::default();
        findings.iter().for_each(|f| counts.add(f.verdict));
        totals.merge(&counts);
        let time = document.clock.seconds.get(check).filter(|s| s.is_finite());
        let time = time.map_or_else(String::new, |s| format!(" time=\"{s:.3}\""));
        suites.push_str(&format!(
            "  <testsuite name=\"{}\"{}{time}>\n{cases}  </testsuite>\n",
            xml(check),
            counts.attributes()
        ));
    }
    if !document.policy_violations.is_empty() {
        let n = document.policy_violations.len();
        let counts = Counts { tests: n, failures: n, ..Counts::default() };
        let cases: String = document
            .policy_violations
            .iter()
            .enumerate()
            .map(|(i, v)| {
                let v = xml(&shorten(v, TEXT));
                format!(
                    "    <testcase classname=\"policy\" name=\"violation {}\">\n      <failure type=\"policy\" \
                     message=\"{v}\"/>\n    </testcase>\n",
                    i + 1
                )
            })
            .collect();
        totals.merge(&counts);
        suites.push_str(&format!("  <testsuite name=\"policy\"{}>\n{cases}  </testsuite>\n", counts.attributes()));
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"{}\"{}>\n{suites}</testsuites>\n",
        xml(&document.tool),
        totals.attributes()
    )
}

#[derive(Default)]
struct Counts {
    tests: usize,
    failures: usize,
    errors: usize,
    skipped: usize,
}

impl Counts {
    fn add(&mut self, v: Verdict) {
        self.tests += 1;
        match v {
            Verdict::Pass => {}
            Verdict::Concern => self.failures += 1,
            Verdict::Failed => self.errors += 1,
            Verdict::Inconclusive | Verdict::NotApplicable => self.skipped += 1,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.tests += other.tests;
        self.failures += other.failures;
        self.errors += other.errors;
        self.skipped += other.skipped;
    }

    fn attributes(&self) -> String {
        let Self { tests, failures, errors, skipped } = self;
        format!(" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\"")
    }
}

/// One line with the figure, its interval and its limit.
pub(crate) fn figure(f: &Finding) -> String {
    let Some(m) = measure(f) else { return String::new() };
    let mut out = format!("{} {}", f.metric.as_deref().unwrap_or("value"), m.value);
    if let Some((low, high)) = m.interval {
        out.push_str(&format!(" [{low}, {high}]"));
    }
    if !m.unit.is_empty() {
        out.push_str(&format!(" {}", m.unit));
    }
    if let (Some(l), Some(t)) = (limit(f), &f.threshold) {
        let side = match t.comparison {
            netproof_core::Comparison::AtLeast => "at least",
            netproof_core::Comparison::AtMost => "at most",
        };
        out.push_str(&format!(", limit {side} {l}"));
    }
    out
}

fn case(f: &Finding) -> String {
    let head =
        format!("    <testcase classname=\"{}\" name=\"{}\"", xml(&f.check), xml(&format!("{}: {}", f.id, f.title)));
    let figure = figure(f);
    let message =
        xml(&shorten(&if figure.is_empty() { f.title.clone() } else { format!("{}: {figure}", f.title) }, TEXT));
    let text = xml(&shorten(&f.explanation, TEXT));
    let element = match f.verdict {
        Verdict::Pass => return format!("{head}/>\n"),
        Verdict::Concern => format!("<failure type=\"concern\" message=\"{message}\">{text}</failure>"),
        Verdict::Failed => format!("<error type=\"failed\" message=\"{message}\">{text}</error>"),
        Verdict::Inconclusive | Verdict::NotApplicable => {
            let why = xml(&shorten(&format!("{}: {}", Badge::of(f).word().to_lowercase(), f.explanation), TEXT));
            format!("<skipped message=\"{why}\"/>")
        }
    };
    format!("{head}>\n      {element}\n    </testcase>\n")
}
