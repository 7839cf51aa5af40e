use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;
use netproof_challenges::adversarial::verify::{Claims, verify};
use netproof_graph::Model;
use serde_json::json;

use super::attack::read_examples;
use crate::args::Threads;
use crate::output::write_json;

/// Check every claim of an attack's run: replay its examples in one forward pass.
#[derive(Args)]
#[command(after_help = "Examples:
  netproof attack model.onnx --data test.npz --norm linf --eps 0.1 --dir run
  netproof verify run

Confirms for each example that it is within norm and bounds, finite, and that the network is wrong on it; for each row that is
said to be robust or wrong, that the network answers so on the clean row; and that the network is the one of the run. Exit code
0: every claim holds; 1: one does not; 2: could not run.")]
pub(crate) struct Verify {
    /// Folder that `netproof attack --dir` wrote.
    dir: PathBuf,
    /// The network, where it is no longer where it was.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    #[command(flatten)]
    threads: Threads,
    /// Write the result here; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Verify {
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        self.threads.start()?;
        let (record, arrays) = read_examples(&self.dir)?;
        let path = self.model.as_ref().unwrap_or(&record.model);
        let mut model = Model::load(path).with_context(|| format!("loading the network {}", path.display()))?;
        if let (Some(mean), Some(std)) = (&record.mean, &record.std) {
            model = model.prepend_normalization(mean, std)?;
        }
        let digest = model.sha256()?;
        ensure!(
            digest == record.model_sha256,
            "{} is not the network of this run: its hash is {digest}, the record says {}",
            path.display(),
            record.model_sha256
        );
        let [clean, adversarial, robust, _, label, row, motions @ ..] = &arrays[..] else {
            anyhow::bail!("the examples lack an array")
        };
        let claims = Claims {
            clean,
            adversarial,
            robust: robust.as_bool().context("`robust` holds no truth values")?,
            labels: label.as_i64().context("`label` holds no integers")?,
            rows: row.as_i64().context("`row` holds no integers")?,
            motions: motions.first(),
            report: &record.report,
        };
        let found = verify(&model, &claims)?;
        eprintln!(
            "{} of {} examples confirmed: within {}, within {:?}, finite, and answered wrongly; {} clean rows confirmed",
            found.confirmed, found.examples, record.report.threat, record.report.threat.bounds, found.clean_confirmed
        );
        for f in found.failures.iter().take(20) {
            eprintln!("row {}: {}", f.row, f.reason);
        }
        if let Some(path) = self.json {
            write_json(&path, &json!(found))?;
        }
        Ok(found.failures.is_empty())
    }
}
