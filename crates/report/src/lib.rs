//! What an audit found, written for people and for machines: HTML, JSON, JUnit XML, SARIF and a terminal summary.
//!
//! Sees findings and cards only: no model, no data, no clock, no file. Everything that comes from a user's file is
//! escaped before it is written.

mod badge;
mod csp;
mod error;
mod escape;
mod html;
mod json;
mod junit;
mod meta;
mod number;
mod plot;
mod sarif;
mod summary;

pub use error::ReportError;
pub use html::{HtmlOptions, PICTURE_BYTES, render_html};
pub use json::to_json;
pub use junit::to_junit;
pub use sarif::to_sarif;
pub use summary::{SummaryOptions, summary};
