use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use netproof_report::{annex, model_card, to_bom};

use crate::documents::read_audit;
use crate::output::write_text;

/// Write a model card, an annex for technical documentation and a bill of materials from an audit.
#[derive(Args)]
#[command(after_help = "Examples:
  netproof card netproof-audit
  netproof card netproof-audit/audit.json --out docs

Writes model-card.md (Hugging Face format), technical-documentation.md and .html (EU AI Act Annex IV, Articles 10, 13, 15;
NIST AI RMF; ISO/IEC 42001) and bom.cdx.json (CycloneDX 1.6). What people wrote between the marks is kept when the files are
made again. Exit code 0: written; 2: could not run.")]
pub(crate) struct Card {
    /// The run folder of an audit, or its audit.json.
    #[arg(value_name = "DIR|audit.json")]
    audit: PathBuf,
    /// Where the files go [default: beside audit.json].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the files anew even if text outside the parts of people was changed; that text is lost.
    #[arg(long)]
    force: bool,
}

impl Card {
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        let (document, path) = read_audit(&self.audit)?;
        let out = self.out.unwrap_or_else(|| path.parent().map(Path::to_path_buf).unwrap_or_default());
        if !out.as_os_str().is_empty() {
            std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
        }
        let (card_path, annex_path) = (out.join("model-card.md"), out.join("technical-documentation.md"));
        let made = |path: &Path| format!("making {} again; --force writes it anew", path.display());
        // All are made before the first is written.
        let card =
            model_card(&document, previous(&card_path)?.as_deref(), self.force).with_context(|| made(&card_path))?;
        let annex =
            annex(&document, previous(&annex_path)?.as_deref(), self.force).with_context(|| made(&annex_path))?;
        let files = [
            (card_path, card.markdown),
            (annex_path, annex.markdown),
            (out.join("technical-documentation.html"), annex.html),
            (out.join("bom.cdx.json"), to_bom(&document)),
        ];
        for (path, text) in &files {
            write_text(path, text)?;
            eprintln!("{}", path.display());
        }
        for (what, parts) in [("model card", &card.unfinished), ("annex", &annex.unfinished)] {
            if !parts.is_empty() {
                eprintln!("{what}: {} parts are for people to write: {}", parts.len(), parts.join(", "));
            }
        }
        if !annex.not_measured.is_empty() {
            eprintln!("not measured: {}", annex.not_measured.join("; "));
        }
        Ok(true)
    }
}

/// The file as it is, if there is one.
fn previous(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).with_context(|| format!("reading {}", path.display())),
    }
}
