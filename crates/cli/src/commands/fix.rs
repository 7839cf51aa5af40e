use std::path::PathBuf;

use clap::Args;
use netproof_audit::{context, select, write_atomically};
use netproof_challenges::REMEDIES;
use netproof_core::{Finding, Verdict};
use netproof_stats::Level;
use serde_json::json;

use crate::args::SubjectArgs;
use crate::output::write_json;
use crate::progress::Terminal;

/// Treat a network, prove the treatment on rows that it has not seen, and save the result as ONNX.
#[derive(Args)]
#[command(after_help = "Examples:
  netproof fix model.onnx --data validation.npz --out fixed
  netproof fix project.toml --seed 1

A treated network is written only where the proof holds. Exit code 0: every remedy held; 1: one did not; 2: could not run.")]
pub(crate) struct Fix {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Apply only these remedies.
    #[arg(long, value_delimiter = ',', value_name = "REMEDY,…")]
    only: Vec<String>,
    /// Where treated networks and the proof go.
    #[arg(long, value_name = "DIR", default_value = "netproof-fix")]
    out: PathBuf,
    /// Also write the proof here; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Fix {
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        let loaded = self.subject.load()?;
        // Options of checks are not for remedies.
        let ids: Vec<&str> = REMEDIES.iter().map(|e| e.card.id).collect();
        let options = loaded.options.into_iter().filter(|(id, _)| ids.contains(&id.as_str())).collect();
        let remedies = select("remedy", REMEDIES, &self.only, &[], &options)?;
        let progress = Terminal::default();
        std::fs::create_dir_all(&self.out)?;
        let mut findings: Vec<Finding> = Vec::new();
        let mut models = Vec::new();
        let mut fine = true;
        for remedy in &remedies {
            let cx = context(&loaded.subject, remedy.card, &remedy.options, loaded.seed, Level::P95, &progress)?;
            let treatment = remedy.method.treat(&loaded.subject, &cx)?;
            for f in &treatment.findings {
                eprintln!("{}: {} ({}). {}", remedy.card.id, f.title, f.verdict, f.explanation);
            }
            fine &= treatment.findings.iter().all(|f| f.verdict == Verdict::Pass);
            if let Some(model) = treatment.model {
                let path = self.out.join(format!("{}-{}.onnx", loaded.stem, remedy.card.id));
                write_atomically(&path, &model.to_file()?.to_bytes())?;
                eprintln!("{}: saved {}", remedy.card.id, path.display());
                models.push(path.display().to_string());
            }
            findings.extend(treatment.findings);
        }
        let result = json!({ "models": models, "findings": findings });
        write_json(&self.out.join("fix.json"), &result)?;
        if let Some(path) = self.json {
            write_json(&path, &result)?;
        }
        Ok(fine)
    }
}
