use serde::{Deserialize, Serialize};

use crate::{Challenge, Interval, Verdict};

/// Version of what `netproof diff --json` writes.
pub const DIFF_SCHEMA: &str = "netproof-diff/1";

/// Two audits side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditDiff {
    /// [`DIFF_SCHEMA`].
    pub schema: String,
    /// The first audit.
    pub before: Side,
    /// The second one.
    pub after: Side,
    /// What differs between the audits besides their findings: model, data, seed, tool, options and versions of checks.
    pub changed: Vec<Changed>,
    /// What limits the comparison as a whole.
    pub caveats: Vec<String>,
    /// Confidence level of all tests together.
    pub level: f64,
    /// Number of tests among which the level is held.
    pub tests: u64,
    /// Findings of both audits, in the order of the second; then those that it no longer has.
    pub findings: Vec<FindingDiff>,
}

impl AuditDiff {
    /// How many findings changed in this way.
    pub fn count(&self, change: Change) -> usize {
        self.findings.iter().filter(|f| f.change == change).count()
    }
}

/// One audit of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Name of the model.
    pub model: String,
    /// Name of the data.
    pub data: String,
    /// Program and version.
    pub tool: String,
    /// Digest of the audit.
    pub digest: String,
    /// When it started.
    pub started: String,
    /// Number of findings.
    pub findings: u64,
    /// Number of concerns among them.
    pub concerns: u64,
}

/// Something that differs between two audits and may explain a difference of findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// What differs, such as `model (SHA-256)`.
    pub what: String,
    /// In the first audit.
    pub before: String,
    /// In the second one.
    pub after: String,
}

/// How a finding changed, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Worse beyond noise, or a new concern where nothing says how large it is.
    Worse,
    /// Decided before, and no longer: inconclusive, failed or not applicable.
    Lost,
    /// Only in the first audit.
    Disappeared,
    /// Different, and nothing says which way is good or whether it is noise.
    Changed,
    /// Only in the second audit.
    Appeared,
    /// Better beyond noise, or a concern that is gone.
    Better,
    /// Different, and no more than chance explains.
    WithinNoise,
    /// The same.
    Same,
}

impl Change {
    /// All, worst first.
    pub const ALL: [Self; 8] = [
        Self::Worse,
        Self::Lost,
        Self::Disappeared,
        Self::Changed,
        Self::Appeared,
        Self::Better,
        Self::WithinNoise,
        Self::Same,
    ];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Worse => "worse",
            Self::Lost => "no longer decided",
            Self::Disappeared => "disappeared",
            Self::Changed => "changed",
            Self::Appeared => "appeared",
            Self::Better => "better",
            Self::WithinNoise => "within noise",
            Self::Same => "the same",
        }
    }
}

/// One finding in two audits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindingDiff {
    /// Id of the finding.
    pub id: String,
    /// Its title in the later audit that has it.
    pub title: String,
    /// Its challenge.
    pub challenge: Challenge,
    /// How it changed.
    pub change: Change,
    /// Verdict in the first audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Verdict>,
    /// Verdict in the second audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Verdict>,
    /// Second value minus first, and whether that is more than noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
    /// Whether it is read from a clock or a meter; such a finding never counts as worse.
    #[serde(default)]
    pub clocked: bool,
    /// Why it is judged so.
    pub reason: String,
}

/// A difference of two values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Value of the first audit.
    pub before: f64,
    /// Value of the second audit.
    pub after: f64,
    /// Second minus first.
    pub value: f64,
    /// Interval of the difference, at the level of the findings' own intervals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// Whether the two values' own intervals touch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<bool>,
    /// p-value of no difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// The same, adjusted for the number of tests (Holm 1979).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_adjusted: Option<f64>,
    /// Name of the test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
}
