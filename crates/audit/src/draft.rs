//! A finding in the making.

use netproof_core::{Challenge, Evidence, Finding, Interval, Provenance, Threshold, Verdict};
use netproof_stats::Estimate;

/// A finding that is being filled in; starts as a pass without a value.
#[derive(Debug, Clone)]
#[must_use]
pub struct Draft(Finding);

impl Draft {
    pub(crate) fn new(check: &str, what: &str, challenge: Challenge, title: &str, provenance: Provenance) -> Self {
        Self(Finding {
            id: format!("{check}/{what}"),
            check: check.to_owned(),
            challenge,
            title: title.to_owned(),
            verdict: Verdict::Pass,
            metric: None,
            value: None,
            interval: None,
            n: None,
            unit: None,
            threshold: None,
            explanation: String::new(),
            caveats: Vec::new(),
            evidence: Vec::new(),
            remedies: Vec::new(),
            provenance,
        })
    }

    /// The metric's name and its unit, with its value. A value that is not finite is left out, and a caveat says so.
    pub fn value(mut self, metric: &str, unit: &str, value: f64) -> Self {
        self.0.metric = Some(metric.to_owned());
        self.0.unit = Some(unit.to_owned());
        if value.is_finite() {
            self.0.value = Some(value);
            return self;
        }
        self.caveat("the value is not a finite number")
    }

    /// The metric with its interval and sample count.
    pub fn estimate(self, metric: &str, unit: &str, e: &Estimate) -> Self {
        self.value(metric, unit, e.value).n(e.n).interval(e.interval)
    }

    /// Number of samples behind the value.
    pub fn n(mut self, n: u64) -> Self {
        self.0.n = Some(n);
        self
    }

    /// Interval of the value.
    pub fn interval(mut self, interval: Option<netproof_stats::Interval>) -> Self {
        self.0.interval = interval.filter(|i| i.low.is_finite() && i.high.is_finite()).map(|i| Interval {
            low: i.low,
            high: i.high,
            level: i.level,
            method: i.method.to_owned(),
        });
        self
    }

    /// The conclusion.
    pub fn verdict(mut self, verdict: Verdict) -> Self {
        self.0.verdict = verdict;
        self
    }

    /// A limit; the verdict becomes a concern where the value does not keep it.
    pub fn threshold(mut self, threshold: Threshold) -> Self {
        if self.0.value.is_some_and(|v| !threshold.holds(v)) {
            self.0.verdict = Verdict::Concern;
        }
        self.0.threshold = Some(threshold);
        self
    }

    /// What this means, for a person.
    pub fn explain(mut self, text: impl Into<String>) -> Self {
        self.0.explanation = text.into();
        self
    }

    /// One more thing that limits the trust in this number.
    pub fn caveat(mut self, text: impl Into<String>) -> Self {
        self.0.caveats.push(text.into());
        self
    }

    /// One more caveat, if there is one.
    pub fn caveats(mut self, texts: impl IntoIterator<Item = String>) -> Self {
        self.0.caveats.extend(texts);
        self
    }

    /// One more piece of evidence.
    pub fn evidence(mut self, evidence: impl Into<Evidence>) -> Self {
        self.0.evidence.push(evidence.into());
        self
    }

    /// A remedy that can answer it.
    pub fn remedy(mut self, id: &str) -> Self {
        self.0.remedies.push(id.to_owned());
        self
    }

    /// The finding.
    pub fn done(self) -> Finding {
        self.0
    }
}
