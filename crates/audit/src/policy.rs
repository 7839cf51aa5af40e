//! What must hold: thresholds per metric and required checks, from a TOML file.

use std::collections::BTreeMap;

use netproof_core::{Comparison, Finding, Threshold, Verdict};
use serde::Deserialize;

use crate::AuditError;

/// A policy.
///
/// ```toml
/// required = ["performance", "calibration"]
///
/// [thresholds]
/// accuracy = { at_least = 0.85, source = "model risk policy 4.2" }
/// "calibration/ece" = { at_most = 0.05, source = "model risk policy 4.3" }
/// ```
///
/// A key is a metric or the id of a finding. The measured value decides, not the end of its interval.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Checks that must have come to a conclusion.
    pub required: Vec<String>,
    /// Limits by metric or finding id.
    pub thresholds: BTreeMap<String, Limit>,
}

/// One limit of a policy.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Good at or above.
    pub at_least: Option<f64>,
    /// Good at or below.
    pub at_most: Option<f64>,
    /// Who says so.
    pub source: Option<String>,
}

impl Policy {
    /// Reads a policy; `checks` are the ids that may be required.
    /// # Errors
    /// It is not TOML, has unknown keys, requires an unknown check, or a limit has not exactly one side.
    pub fn parse(text: &str, checks: &[&str]) -> Result<Self, AuditError> {
        let fail = |message: String| AuditError::Policy { message };
        let policy: Self = toml::from_str(text).map_err(|e| fail(e.to_string().trim().replace('\n', " ")))?;
        if let Some(id) = policy.required.iter().find(|id| !checks.contains(&id.as_str())) {
            return Err(fail(format!("required check `{id}` does not exist; there are {}", checks.join(", "))));
        }
        for (key, limit) in &policy.thresholds {
            let sides = [limit.at_least, limit.at_most];
            if sides.iter().flatten().count() != 1 || sides.iter().flatten().any(|v| !v.is_finite()) {
                return Err(fail(format!("threshold `{key}` needs either at_least or at_most, a finite number")));
            }
        }
        Ok(policy)
    }

    /// Puts the limits into the findings they are for and lists what is broken, as sentences.
    pub fn apply<'f>(&self, findings: impl Iterator<Item = &'f mut Finding>) -> Vec<String> {
        let mut broken = Vec::new();
        let mut findings: Vec<&mut Finding> = findings.collect();
        for id in &self.required {
            let own = || findings.iter().filter(|f| &f.check == id);
            let concluded = own().any(|f| matches!(f.verdict, Verdict::Pass | Verdict::Concern));
            if !concluded {
                let why = own().map(|f| f.verdict.name()).next().unwrap_or("not run");
                broken.push(format!("the policy requires `{id}`, which came to no conclusion ({why})"));
            }
        }
        for (key, limit) in &self.thresholds {
            let threshold = limit.threshold();
            let mut judged = false;
            for f in findings.iter_mut().filter(|f| f.metric.as_ref() == Some(key) || &f.id == key) {
                f.threshold = Some(threshold.clone());
                let Some(value) = f.value else { continue };
                judged = true;
                if threshold.holds(value) {
                    if let Some(i) = &f.interval
                        && !(threshold.holds(i.low) && threshold.holds(i.high))
                    {
                        f.caveats.push("the interval reaches beyond the threshold".to_owned());
                    }
                } else {
                    f.verdict = Verdict::Concern;
                    broken.push(format!("`{}` is {value:.6}, the policy asks for {}", f.id, limit.words()));
                }
            }
            if !judged {
                broken.push(format!("the policy asks for `{key}` {}, which was not measured", limit.words()));
            }
        }
        broken
    }
}

impl Limit {
    fn threshold(&self) -> Threshold {
        let (value, comparison) = match (self.at_least, self.at_most) {
            (Some(v), _) => (v, Comparison::AtLeast),
            (None, v) => (v.unwrap_or(f64::INFINITY), Comparison::AtMost),
        };
        Threshold { value, comparison, source: self.source.clone().unwrap_or_else(|| "policy".to_owned()) }
    }

    fn words(&self) -> String {
        match (self.at_least, self.at_most) {
            (Some(v), _) => format!("at least {v}"),
            (None, v) => format!("at most {}", v.unwrap_or(f64::INFINITY)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(id: &str, metric: &str, value: f64) -> Finding {
        let challenge = netproof_core::Challenge::DataLimits;
        let (check, what) = id.split_once('/').unwrap();
        crate::Draft::new(check, what, challenge, "title", Default::default()).value(metric, "fraction", value).done()
    }

    #[test]
    fn limits_judge_values_by_metric_and_by_id() {
        let text = "[thresholds]\naccuracy = {at_least = 0.9}\n'calibration/ece' = {at_most = 0.05, source = 'x'}";
        let policy = Policy::parse(text, &[]).unwrap();
        let mut findings = [finding("performance/accuracy", "accuracy", 0.89), finding("calibration/ece", "ece", 0.05)];
        let broken = policy.apply(findings.iter_mut());
        assert_eq!(broken, ["`performance/accuracy` is 0.890000, the policy asks for at least 0.9"]);
        assert_eq!(findings.map(|f| f.verdict), [Verdict::Concern, Verdict::Pass]);
    }

    #[test]
    fn what_was_not_measured_is_broken_too() {
        let policy = Policy::parse("required = ['a']\n[thresholds]\nauroc = {at_least = 0.9}", &["a"]).unwrap();
        assert_eq!(policy.apply([].iter_mut()).len(), 2);
        let mut inconclusive = finding("a/x", "y", 0.0);
        inconclusive.verdict = Verdict::Inconclusive;
        assert_eq!(policy.apply([inconclusive].iter_mut()).len(), 2);
    }

    #[test]
    fn broken_policies_are_refused_with_the_reason() {
        for (text, part) in [
            ("thresholds = 3", "invalid type"),
            ("treshold = 3", "unknown field"),
            ("required = ['b']", "there are a"),
            ("[thresholds]\nx = {}", "either at_least or at_most"),
            ("[thresholds]\nx = {at_least = 1, at_most = 2}", "either at_least or at_most"),
            ("[thresholds]\nx = {at_least = nan}", "finite"),
        ] {
            let e = Policy::parse(text, &["a"]).unwrap_err().to_string();
            assert!(e.contains(part), "{e}");
        }
    }
}
