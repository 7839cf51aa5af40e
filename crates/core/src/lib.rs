//! What Netproof says about a network: findings, verdicts, intervals, thresholds, and the cards that describe methods.
//!
//! Plain serde types. No tensors, no files, no clock.

mod card;
mod constraints;
mod diff;
mod evidence;
mod finding;
mod threat;

pub use card::{Card, CardKind, Need, OptionDoc};
pub use constraints::Constraints;
pub use diff::{AuditDiff, Change, Changed, DIFF_SCHEMA, Difference, FindingDiff, Side};
pub use evidence::{
    Axis, Cell, Evidence, Gallery, GalleryItem, GallerySection, Mark, Picture, Plot, PlotKind, Series, Table,
};
pub use finding::{
    AuditDocument, Challenge, Clock, Comparison, Finding, Interval, Provenance, SCHEMA, Threshold, Verdict,
};
pub use threat::{Norm, Threat, ThreatError};
