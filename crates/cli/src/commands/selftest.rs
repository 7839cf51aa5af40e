use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use netproof_challenges::selftest::{CASES, Outcome};
use serde_json::json;

use crate::output::write_json;

/// Check this program against known values, theorems and methods that must fail.
#[derive(Args)]
#[command(after_help = "Examples:
  netproof selftest
  netproof selftest --only C2,C11
  netproof selftest --json selftest.json

Needs no data and no network. What this version lacks is said, and never counted as passed. Exit code 1: a case failed.")]
pub(crate) struct Selftest {
    /// Only these cases.
    #[arg(long, value_delimiter = ',', value_name = "ID,…")]
    only: Vec<String>,
    /// Write the results here; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Selftest {
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        for id in &self.only {
            let known = || CASES.iter().map(|c| c.id).collect::<Vec<_>>().join(", ");
            anyhow::ensure!(CASES.iter().any(|c| c.id == id), "there is no case `{id}`; there are {}", known());
        }
        // A case that panics is reported as failed; the message on the way says where.
        let mut results = Vec::new();
        let (mut passed, mut failed, mut absent) = (0, 0, 0);
        let to_stdout = self.json.as_ref().is_some_and(|p| p.as_os_str() == "-");
        let say = |line: String| if to_stdout { eprintln!("{line}") } else { println!("{line}") };
        say(format!("{:<4} {:<20} {}", "id", "result", "what"));
        for case in CASES.iter().filter(|c| self.only.is_empty() || self.only.iter().any(|id| id == c.id)) {
            let begun = Instant::now();
            let outcome = case.run();
            let seconds = begun.elapsed().as_secs_f64();
            let (word, text) = match &outcome {
                Outcome::Passed(text) => ("passed", text),
                Outcome::Failed(text) => ("FAILED", text),
                Outcome::Absent(text) => ("not in this version", text),
            };
            match outcome {
                Outcome::Passed(_) => passed += 1,
                Outcome::Failed(_) => failed += 1,
                Outcome::Absent(_) => absent += 1,
            }
            say(format!("{:<4} {word:<20} {}", case.id, case.what));
            if text != word {
                say(format!("{:<25} {text} ({seconds:.1} s)", ""));
            }
            results.push(json!({ "id": case.id, "what": case.what, "result": word.to_lowercase(), "detail": text }));
        }
        eprintln!("{passed} passed, {failed} failed, {absent} not in this version");
        if let Some(path) = self.json {
            write_json(&path, &json!({ "cases": results, "passed": passed, "failed": failed, "absent": absent }))?;
        }
        Ok(failed == 0)
    }
}
