use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use netproof_graph::conformance::{Outcome, run_case};
use netproof_onnx::{Limits, backend_cases};
use rayon::prelude::*;
use serde_json::json;

use crate::output::write_json;

/// Run the test cases of a standard.
#[derive(Args)]
#[command(after_help = "Examples:
  netproof conformance onnx onnx/backend/test/data/node
  netproof conformance onnx onnx/backend/test/data --json result.json")]
pub(crate) struct Conformance {
    #[command(subcommand)]
    standard: Standard,
}

#[derive(Subcommand)]
enum Standard {
    /// ONNX backend test cases: folders with model.onnx and recorded tensors.
    Onnx(Onnx),
}

#[derive(Args)]
struct Onnx {
    /// Folder with the cases.
    folder: PathBuf,
    /// Write the lists of passed, failed and unsupported cases here; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Conformance {
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        let Standard::Onnx(onnx) = self.standard;
        let cases = backend_cases(&onnx.folder).with_context(|| format!("listing {}", onnx.folder.display()))?;
        ensure!(!cases.is_empty(), "{} holds no folder with a model.onnx", onnx.folder.display());
        let limits = Limits::default();
        let attempt = || Outcome::Failed("internal error".to_owned());
        let outcomes: Vec<Outcome> = cases
            .par_iter()
            .map(|c| std::panic::catch_unwind(|| run_case(c, &limits)).unwrap_or_else(|_| attempt()))
            .collect();
        let (mut passed, mut failed, mut unsupported) = (Vec::new(), Vec::new(), Vec::new());
        for (case, outcome) in cases.iter().zip(outcomes) {
            match outcome {
                Outcome::Passed => passed.push(case.name.clone()),
                Outcome::Failed(why) => failed.push(json!({ "case": case.name, "why": why })),
                Outcome::Unsupported(why) => unsupported.push(json!({ "case": case.name, "why": why })),
            }
        }
        for f in &failed {
            eprintln!("failed {}: {}", f["case"].as_str().unwrap_or_default(), f["why"].as_str().unwrap_or_default());
        }
        eprintln!("{} passed, {} failed, {} unsupported", passed.len(), failed.len(), unsupported.len());
        let fine = failed.is_empty();
        if let Some(path) = onnx.json {
            write_json(&path, &json!({ "passed": passed, "failed": failed, "unsupported": unsupported }))?;
        }
        Ok(fine)
    }
}
