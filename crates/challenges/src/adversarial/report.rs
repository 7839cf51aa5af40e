//! What an evaluation by attacks found, as plain data.

use netproof_core::Threat;
use netproof_stats::{Interval, Level};
use serde::{Deserialize, Serialize};

use super::AttackError;
use super::harness::{Fate, Harness};
use super::masking;
use super::possible::Possible;
use super::protocol::Method;

/// Name of the array of saved examples that says which rows stand.
pub const ROBUST: &str = "robust";

/// Version of the layout.
pub const SCHEMA: &str = "netproof-attack/1";

/// A confidence interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Confidence level.
    pub level: f64,
    /// How it was made.
    pub method: String,
}

/// Robust accuracy between what is proved and what was broken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Robust {
    /// Fraction right after all attacks: an upper bound.
    pub attacked: f64,
    /// Fraction proved right: a lower bound.
    pub certified: f64,
    /// From the lower end of what is proved to the upper end of what was not broken.
    pub interval: Option<Range>,
}

/// One attack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// The attack.
    pub id: String,
    /// Rows attacked.
    pub rows: u64,
    /// Rows broken.
    pub broken: u64,
    /// Fraction of all rows that is right after it.
    pub robust_accuracy: f64,
    /// Forward passes per row.
    pub forward_per_row: f64,
    /// Backward passes per row.
    pub backward_per_row: f64,
    /// Proposals that had to be clipped into the threat.
    pub clipped: u64,
    /// Why it did not run to its end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub skipped: Option<String>,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowReport {
    /// Number in the source.
    pub row: u64,
    /// True class.
    pub label: usize,
    /// `undefined`, `wrong`, `broken`, `certified` or `standing`.
    pub outcome: String,
    /// The attack that broke it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attack: Option<String>,
    /// Size of the change that broke it.
    pub norm: f64,
    /// Least margin of the right class within the threat, in logits; absent where undefined.
    pub margin: Option<f32>,
    /// Forward passes that attacks made for it.
    pub queries: u64,
}

/// A sign that the result may not be trusted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlagReport {
    /// Which.
    pub id: String,
    /// Whether it is seen.
    pub raised: bool,
    /// What was measured.
    pub text: String,
}

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttackReport {
    /// [`SCHEMA`].
    pub schema: String,
    /// What `--method` chose.
    pub method: String,
    /// Its options, all of them, as JSON text.
    pub options: String,
    /// What the attacker could do.
    pub threat: Threat,
    /// What a changed row had to keep.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub possible: Option<Possible>,
    /// Seed of the draws.
    pub seed: u64,
    /// Number of rows.
    pub rows: usize,
    /// Fraction right without any change.
    pub clean_accuracy: f64,
    /// Fraction right under attack.
    pub robust_accuracy: Robust,
    /// The attacks, in order.
    pub stages: Vec<StageReport>,
    /// Signs of masked gradients.
    pub flags: Vec<FlagReport>,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Wall-clock seconds of all attacks.
    pub seconds: f64,
    /// What happened to each row.
    pub outcomes: Vec<RowReport>,
}

impl AttackReport {
    /// Puts together what a harness holds after a method ran.
    /// # Errors
    /// The network refuses to be looked at for the flags.
    pub fn of(harness: &Harness<'_, '_>, method: &Method, seed: u64, level: Level) -> Result<Self, AttackError> {
        let accuracy = harness.accuracy(level);
        let n = harness.len().max(1) as f64;
        let stages = harness.stages().iter().map(|s| StageReport {
            id: s.id.clone(),
            rows: s.rows,
            broken: s.broken,
            robust_accuracy: s.standing as f64 / n,
            forward_per_row: s.count.forward as f64 / s.rows.max(1) as f64,
            backward_per_row: s.count.backward as f64 / s.rows.max(1) as f64,
            clipped: s.clipped,
            skipped: s.skipped.clone(),
            seconds: s.seconds,
        });
        let flags = masking::flags(harness)?;
        let mut notes = harness.notes().to_vec();
        let threat = *harness.threat();
        if threat.is_unbounded(harness.victim().row_len()) {
            notes.push(format!(
                "{threat} reaches every input within the bounds: no network that looks at its input is robust"
            ));
        }
        if accuracy.clean.value == 0.0 && !harness.is_empty() {
            notes.push(
                "the network is wrong on every row without any change: do labels and network belong together?"
                    .to_owned(),
            );
        }
        Ok(Self {
            schema: SCHEMA.to_owned(),
            method: method.card().id.to_owned(),
            options: method.options().to_owned(),
            threat,
            possible: harness.possible().cloned(),
            seed,
            rows: harness.len(),
            clean_accuracy: accuracy.clean.value,
            robust_accuracy: Robust {
                attacked: accuracy.attacked.value,
                certified: accuracy.certified.value,
                interval: accuracy.interval.map(Range::from),
            },
            seconds: harness.stages().iter().map(|s| s.seconds).sum(),
            stages: stages.collect(),
            flags: flags
                .into_iter()
                .map(|f| FlagReport { id: f.id.to_owned(), raised: f.raised, text: f.text })
                .collect(),
            notes,
            outcomes: rows(harness),
        })
    }
}

fn rows(harness: &Harness<'_, '_>) -> Vec<RowReport> {
    let each = harness.outcomes().iter().zip(harness.row_ids()).zip(harness.labels());
    each.map(|((o, &row), &label)| RowReport {
        row,
        label,
        outcome: o.fate.name().to_owned(),
        attack: if let Fate::Broken(s) = o.fate { harness.stages().get(s).map(|s| s.id.clone()) } else { None },
        norm: o.norm,
        margin: o.margin.is_finite().then_some(o.margin),
        queries: o.count.forward,
    })
    .collect()
}

impl From<Interval> for Range {
    fn from(i: Interval) -> Self {
        Self { low: i.low, high: i.high, level: i.level, method: i.method.to_owned() }
    }
}
