//! The audit: a [`Subject`] (network and data), [`Check`]s that measure it, [`Remedy`]s that propose better networks, a
//! runner with a run folder that survives being killed, a loop that repairs and proves ([`repair`]), and [`Policy`] files.
//!
//! This crate knows no method. Methods live in `netproof-challenges` and are handed in as registries.

mod check;
mod diff;
mod draft;
mod error;
pub mod meter;
mod outputs;
mod policy;
mod progress;
mod remedy;
pub mod repair;
mod runner;
mod scan;
mod store;
mod subject;
mod training;
mod workshop;

pub use check::{
    Check, Checks, Configured, Context, Entry, Findings, PICTURE_SIDE, Remedies, check, parse, remedy, select,
};
pub use diff::diff;
pub use draft::Draft;
pub use error::AuditError;
pub use outputs::{Classified, HardRow, Head, Outputs, Regressed, Sample, UNDEFINED};
pub use policy::{Limit, Policy};
pub use progress::{Progress, Silent};
pub use remedy::{Aim, Candidate, Case, Change, Direct, Goal, Making, Remedy, Retraining, Rewrite, Treat, changed};
pub use runner::{Plan, context, has_concern, run, verdict_counts};
pub use scan::Scan;
pub use store::{RunFolder, write_atomically};
pub use subject::{Part, Subject};
pub use training::Training;
