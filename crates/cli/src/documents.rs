//! Audits as files.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use netproof_core::{AuditDocument, SCHEMA};

/// Reads an audit from a run folder or a file, and says which file it was.
pub(crate) fn read_audit(path: &Path) -> anyhow::Result<(AuditDocument, PathBuf)> {
    let file = if path.is_dir() { path.join("audit.json") } else { path.to_path_buf() };
    let text = std::fs::read(&file).with_context(|| format!("reading the audit {}", file.display()))?;
    let document: AuditDocument =
        serde_json::from_slice(&text).with_context(|| format!("{} is no audit.json", file.display()))?;
    let schema = &document.schema;
    ensure!(schema == SCHEMA, "{} has schema `{schema}`, this version reads `{SCHEMA}`", file.display());
    Ok((document, file))
}
