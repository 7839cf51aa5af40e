//! What an audit found, written for people and for machines: HTML, JSON, JUnit XML, SARIF, a terminal summary, a model
//! card, an annex for technical documentation and a bill of materials.
//!
//! Sees findings and cards only: no model, no data, no clock, no file. Everything that comes from a user's file is
//! escaped before it is written.

mod annex;
mod badge;
mod bom;
mod card;
mod csp;
mod diff;
mod error;
mod escape;
mod html;
mod json;
mod junit;
mod meta;
mod number;
mod plot;
mod prose;
mod sarif;
mod summary;
mod task;

pub use annex::{Annex, annex};
pub use bom::to_bom;
pub use card::{ModelCard, model_card};
pub use diff::{diff_text, render_diff};
pub use error::ReportError;
pub use html::{HtmlOptions, PICTURE_BYTES, render_html};
pub use json::to_json;
pub use junit::to_junit;
pub use sarif::to_sarif;
pub use summary::{SummaryOptions, summary};
