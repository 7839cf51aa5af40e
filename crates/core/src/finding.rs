use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Evidence;

/// Version of the `audit.json` schema; the schema itself is `docs/audit.schema.json`.
pub const SCHEMA: &str = "netproof-audit/1";

/// The nine classic challenges of deep learning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Challenge {
    /// Too little, wrong, unbalanced or leaking data.
    DataLimits,
    /// Good on training data, worse on new data.
    Overfitting,
    /// Cost in time, memory and energy.
    Compute,
    /// Why does it decide so.
    Interpretability,
    /// Data that differ from the training data.
    DomainShift,
    /// Deliberately changed inputs.
    Adversarial,
    /// Worse for some groups of people.
    Bias,
    /// What it gives away about its training data.
    Privacy,
    /// Growth of data, model and load.
    Scale,
}

impl Challenge {
    /// All nine, in the order of reports.
    pub const ALL: [Self; 9] = [
        Self::DataLimits,
        Self::Overfitting,
        Self::Compute,
        Self::Interpretability,
        Self::DomainShift,
        Self::Adversarial,
        Self::Bias,
        Self::Privacy,
        Self::Scale,
    ];

    /// Kebab-case id, as in `audit.json`.
    pub fn id(self) -> &'static str {
        match self {
            Self::DataLimits => "data-limits",
            Self::Overfitting => "overfitting",
            Self::Compute => "compute",
            Self::Interpretability => "interpretability",
            Self::DomainShift => "domain-shift",
            Self::Adversarial => "adversarial",
            Self::Bias => "bias",
            Self::Privacy => "privacy",
            Self::Scale => "scale",
        }
    }

    /// Name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::DataLimits => "Data limits",
            Self::Overfitting => "Overfitting",
            Self::Compute => "Compute cost",
            Self::Interpretability => "Interpretability",
            Self::DomainShift => "Domain shift",
            Self::Adversarial => "Adversarial attacks",
            Self::Bias => "Bias",
            Self::Privacy => "Privacy",
            Self::Scale => "Scale",
        }
    }
}

/// What a check concludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Measured, and within the threshold (or informative, where there is none).
    Pass,
    /// Measured, and beyond the threshold.
    Concern,
    /// The measurement cannot be trusted on this input; the explanation says why.
    Inconclusive,
    /// The check does not apply to this network or these data.
    NotApplicable,
    /// The check could not run.
    Failed,
}

impl Verdict {
    /// Name for people and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Concern => "concern",
            Self::Inconclusive => "inconclusive",
            Self::NotApplicable => "not-applicable",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A confidence interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Confidence level, such as 0.95.
    pub level: f64,
    /// How it was made, such as `wilson` or `bootstrap-percentile`.
    pub method: String,
}

/// On which side of a threshold a value is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// Good at or above.
    AtLeast,
    /// Good at or below.
    AtMost,
}

/// A declared limit and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// The limit.
    pub value: f64,
    /// Which side is good.
    pub comparison: Comparison,
    /// Policy file, standard or paper that sets it.
    pub source: String,
}

impl Threshold {
    /// Whether a value keeps this threshold. NaN never does.
    pub fn holds(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::AtLeast => value >= self.value,
            Comparison::AtMost => value <= self.value,
        }
    }
}

/// What exactly was measured: enough to repeat it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// SHA-256 of the model file with its external data.
    pub model: String,
    /// SHA-256 over the content of the data.
    pub data: String,
    /// SHA-256 of the check's options.
    pub options: String,
    /// Version of the check.
    pub version: u32,
    /// Seed of every random draw.
    pub seed: u64,
    /// Device that ran the network.
    pub device: String,
}

/// One thing that was found out. Plain data; the unit of reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Unique within a run: the check's id, a slash, and what was measured (`calibration/ece`).
    pub id: String,
    /// Id of the check.
    pub check: String,
    /// Which of the nine challenges.
    pub challenge: Challenge,
    /// Names the problem or the measurement, not the cure.
    pub title: String,
    /// What is concluded.
    pub verdict: Verdict,
    /// Name of the metric, as policies name it (`accuracy`, `ece`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// Measured value; absent where undefined. Always finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Confidence interval of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// Number of samples behind the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// Unit: `fraction`, `nats`, `ms`, `bytes`, `operations`, `count`, `joule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Limit, where one is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Threshold>,
    /// What this means, for a person.
    pub explanation: String,
    /// What limits the trust in this number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caveats: Vec<String>,
    /// Tables, plots, pictures, row ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// Ids of the remedies that can answer it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remedies: Vec<String>,
    /// What was measured.
    pub provenance: Provenance,
}

/// Everything that depends on the clock or on a meter, kept apart so that the rest is reproducible byte by byte.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Clock {
    /// When the run started, RFC 3339, UTC.
    pub started: String,
    /// Wall-clock seconds by check id.
    pub seconds: BTreeMap<String, f64>,
    /// Check ids whose findings were taken from an earlier run.
    pub reused: Vec<String>,
    /// Findings whose value is a reading of a clock or a meter (latency, energy).
    pub findings: Vec<Finding>,
}

/// The whole of `audit.json`.
///
/// # Guarantees
/// Without `clock`, the bytes are the same for the same model, data, options and seed, whatever the thread count;
/// `digest` is the SHA-256 of exactly those bytes (this document without `digest` and `clock`, compact JSON).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditDocument {
    /// [`SCHEMA`].
    pub schema: String,
    /// `netproof` and its version.
    pub tool: String,
    /// What was audited: name, hash, parameters and so on, for people and policies.
    pub model: BTreeMap<String, serde_json::Value>,
    /// The data: name, hash, rows and so on.
    pub data: BTreeMap<String, serde_json::Value>,
    /// Seed of the run.
    pub seed: u64,
    /// Thresholds of the policy that are broken, as sentences.
    pub policy_violations: Vec<String>,
    /// Findings in registry order.
    pub findings: Vec<Finding>,
    /// SHA-256 of the reproducible part, lower-case hexadecimal.
    pub digest: String,
    /// The part that a second run does not repeat.
    pub clock: Clock,
}

impl AuditDocument {
    /// All findings, reproducible and clocked.
    pub fn all_findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().chain(&self.clock.findings)
    }

    /// The bytes that `digest` covers: compact JSON of this document without `digest` and `clock`.
    /// # Errors
    /// A number is not finite, which no finding may hold.
    pub fn reproducible_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut value = serde_json::to_value(self)?;
        if let Some(object) = value.as_object_mut() {
            object.remove("digest");
            object.remove("clock");
        }
        serde_json::to_vec(&value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_holds_at_its_own_value_and_never_for_nan() {
        let t = Threshold { value: 0.9, comparison: Comparison::AtLeast, source: "policy".into() };
        assert!(t.holds(0.9) && !t.holds(0.89) && !t.holds(f64::NAN));
        let t = Threshold { comparison: Comparison::AtMost, ..t };
        assert!(t.holds(0.9) && !t.holds(0.91) && !t.holds(f64::NAN));
    }

    #[test]
    fn ids_and_serde_names_agree() {
        for c in Challenge::ALL {
            assert_eq!(serde_json::to_value(c).unwrap(), c.id());
        }
        for v in [Verdict::Pass, Verdict::Concern, Verdict::Inconclusive, Verdict::NotApplicable, Verdict::Failed] {
            assert_eq!(serde_json::to_value(v).unwrap(), v.name());
        }
    }

    #[test]
    fn the_reproducible_bytes_leave_out_the_clock() {
        let mut d = AuditDocument {
            schema: SCHEMA.into(),
            tool: "netproof 0".into(),
            model: BTreeMap::new(),
            data: BTreeMap::new(),
            seed: 0,
            policy_violations: vec![],
            findings: vec![],
            digest: String::new(),
            clock: Clock::default(),
        };
        let before = d.reproducible_bytes().unwrap();
        d.clock.started = "now".into();
        d.digest = "x".into();
        assert_eq!(before, d.reproducible_bytes().unwrap());
        d.seed = 1;
        assert_ne!(before, d.reproducible_bytes().unwrap());
    }
}
