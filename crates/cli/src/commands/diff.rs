use std::path::PathBuf;

use clap::Args;
use netproof_audit::diff;
use netproof_core::Change;
use netproof_report::{diff_text, render_diff};
use netproof_stats::Level;

use crate::documents::read_audit;
use crate::output::{write_json, write_text};

/// Compare two audits: what differs between them, and which findings changed beyond noise.
#[derive(Args)]
#[command(after_help = "Examples:
  netproof diff audit-before audit-after
  netproof diff main/audit.json branch/audit.json --html diff.html --json diff.json

A change counts if chance explains it in fewer than 5 % of comparisons, all findings together. Readings of clocks are shown
and never count. Exit code 0: nothing became worse; 1: something did (with --strict, or is no longer measured);
2: could not run.")]
pub(crate) struct Diff {
    /// The first audit: a run folder, or its audit.json.
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The second audit.
    #[arg(value_name = "B")]
    after: PathBuf,
    /// Also fail where something was decided in the first audit and is not in the second.
    #[arg(long)]
    strict: bool,
    /// Write a page with both audits side by side.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the comparison here; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Diff {
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        let (before, _) = read_audit(&self.before)?;
        let (after, _) = read_audit(&self.after)?;
        let diff = diff(&before, &after, Level::P95);
        eprint!("{}", diff_text(&diff));
        if let Some(path) = &self.html {
            write_text(path, &render_diff(&diff, &before, &after))?;
        }
        if let Some(path) = &self.json {
            write_json(path, &diff)?;
        }
        let lost = diff.count(Change::Lost) + diff.count(Change::Disappeared);
        Ok(diff.count(Change::Worse) == 0 && !(self.strict && lost > 0))
    }
}
