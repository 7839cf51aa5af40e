use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use netproof_audit::{Plan, Policy, RunFolder, has_concern, run, select};
use netproof_challenges::{CHECKS, cards};
use netproof_core::{AuditDocument, Need};
use netproof_report::{HtmlOptions, PICTURE_BYTES, SummaryOptions, render_html, summary, to_json, to_junit, to_sarif};
use netproof_stats::Level;

use crate::args::{RUN_PROJECT, SubjectArgs, duration};
use crate::output::{colour, width, write_text};
use crate::progress::Terminal;

/// Measure a network on data and write a report.
#[derive(Args)]
#[command(after_help = "Examples:
  netproof audit examples/fashion/netproof.toml
  netproof audit model.onnx --data test.parquet --label default --train-data train.parquet
  netproof audit model.onnx --data images.gz:labels.gz --policy policy.toml --budget 10m --out audit
  netproof audit model.onnx --data faces/ --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
  netproof audit model.onnx --data test.npz --train-data train.npz --retrain --budget 20m
  netproof audit model.onnx --data test.npz --recipe recipe.toml --only memorisation

Writes report.html, audit.json, junit.xml and results.sarif into the folder --out. A second run takes from it what has
not changed. Exit code 0: nothing of concern; 1: a concern or a broken policy; 2: could not run.")]
pub(crate) struct Audit {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Run only these checks; `netproof methods` lists them.
    #[arg(long, value_delimiter = ',', value_name = "CHECK,…")]
    only: Vec<String>,
    /// Leave these checks out.
    #[arg(long, value_delimiter = ',', value_name = "CHECK,…")]
    skip: Vec<String>,
    /// Time for all checks, such as 90s, 10m or 2h; what does not fit is inconclusive.
    #[arg(long, value_parser = duration)]
    budget: Option<Duration>,
    /// Also run the checks that train networks, which may take minutes; --budget limits them, what is trained is kept.
    #[arg(long)]
    retrain: bool,
    /// Thresholds and required checks (TOML).
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Run folder [default: netproof-audit].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Also write audit.json here; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Audit {
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        let loaded = self.subject.load()?;
        let settings = &loaded.project.audit;
        let or = |flags: Vec<String>, file: &Vec<String>| if flags.is_empty() { file.clone() } else { flags };
        let (only, skip) = (or(self.only, &settings.only), or(self.skip, &settings.skip));
        let checks = select("check", CHECKS, &only, &skip, &loaded.options)?;
        // Who names a check that trains wants it to.
        let named = |e: &&netproof_audit::Entry<_>| only.iter().any(|id| id == e.card.id);
        let may_train = self.retrain
            || settings.retrain
            || CHECKS.iter().filter(named).any(|e| e.card.needs.contains(&Need::Training));
        let policy = match self.policy.or_else(|| settings.policy.clone()) {
            None => Policy::default(),
            Some(path) => {
                let text =
                    std::fs::read_to_string(&path).with_context(|| format!("reading the policy {}", path.display()))?;
                let ids: Vec<&str> = CHECKS.iter().map(|e| e.card.id).collect();
                Policy::parse(&text, &ids).with_context(|| format!("in {}", path.display()))?
            }
        };
        let budget = match (self.budget, &settings.budget) {
            (Some(b), _) => Some(b),
            (None, Some(text)) => Some(duration(text).map_err(anyhow::Error::msg)?),
            (None, None) => None,
        };
        let plan =
            Plan { checks, seed: loaded.seed, level: Level::P95, budget, may_train, policy, tool: TOOL.to_owned() };
        let out = self.out.or_else(|| settings.out.clone()).unwrap_or_else(|| PathBuf::from("netproof-audit"));
        let folder = RunFolder::open(&out)?;
        let document = run(&loaded.subject, &plan, Some(&folder), &Terminal::listening()?)?;
        let json = to_json(&document)?;
        let mut resolved = loaded.resolved;
        (resolved.audit.only, resolved.audit.skip, resolved.audit.retrain) = (only, skip, may_train);
        folder.write(RUN_PROJECT, toml::to_string(&resolved)?.as_bytes())?;
        let files = write_reports(&folder, &document)?;
        eprintln!("{}", summary(&document, &SummaryOptions { width: width(), colour: colour(), files }));
        if let Some(path) = self.json {
            write_text(&path, &json)?;
        }
        Ok(!has_concern(&document))
    }
}

/// Who made a document.
pub(crate) const TOOL: &str = concat!("netproof ", env!("CARGO_PKG_VERSION"));

/// Writes a document in all formats; gives the files that a person opens.
pub(crate) fn write_reports(folder: &RunFolder, document: &AuditDocument) -> anyhow::Result<Vec<String>> {
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    let images = folder.pictures(document, PICTURE_BYTES);
    let options = HtmlOptions { command: Some(command), images, ..HtmlOptions::default() };
    let html = render_html(document, &cards(), &options);
    folder.write("junit.xml", to_junit(document).as_bytes())?;
    folder.write("results.sarif", to_sarif(document, &cards()).as_bytes())?;
    Ok(vec![
        folder.write("report.html", html.as_bytes())?.display().to_string(),
        folder.write("audit.json", to_json(document)?.as_bytes())?.display().to_string(),
    ])
}
