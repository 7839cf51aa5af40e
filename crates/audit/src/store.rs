//! The run folder: what each check found, written as it ends and found again by the next run.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use netproof_core::{AuditDocument, Finding, Picture};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{AuditError, Findings};

/// Layout of the stored files; part of every key.
const LAYOUT: &str = "netproof-run/1";

/// Where pictures lie in the run folder.
const PICTURES: &str = "pictures";

/// Path in the run folder and SHA-256 of a picture.
pub(crate) fn picture_file(bytes: &[u8]) -> (String, String) {
    let sha256: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    (format!("{PICTURES}/{sha256}.png"), sha256)
}

/// A folder in which an audit keeps its results.
///
/// # Guarantees
/// Every file appears whole or not at all: it is written under a temporary name, synced and renamed. A run that is
/// killed loses the check in progress and nothing else. Files under a key are never changed.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

/// What a key is made of: whatever could change what a check finds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Key<'a> {
    pub(crate) check: &'a str,
    pub(crate) version: u32,
    pub(crate) options: &'a str,
    pub(crate) model: &'a str,
    pub(crate) data: &'a str,
    pub(crate) train: Option<&'a str>,
    pub(crate) seed: u64,
    pub(crate) level: f64,
    pub(crate) device: &'a str,
}

/// What one check found, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) findings: Vec<Finding>,
    pub(crate) clocked: Vec<Finding>,
    pub(crate) seconds: f64,
}

impl Stored {
    pub(crate) fn new(found: Findings, seconds: f64) -> Self {
        Self { findings: found.reproducible, clocked: found.clocked, seconds }
    }
}

impl RunFolder {
    /// Opens or makes a run folder.
    /// # Errors
    /// It cannot be made.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let findings = path.join("findings");
        fs::create_dir_all(&findings).map_err(|e| io("make", &findings, e))?;
        Ok(Self { path: path.to_path_buf() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file whole or not at all.
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf, AuditError> {
        let target = self.path.join(name);
        write_atomically(&target, content)?;
        Ok(target)
    }

    /// A folder under this one, made where it is not there.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, AuditError> {
        let folder = self.path.join(name);
        fs::create_dir_all(&folder).map_err(|e| io("make", &folder, e))?;
        Ok(folder)
    }

    fn file(&self, key: &Key<'_>) -> Result<PathBuf, AuditError> {
        let digest = Sha256::digest(format!("{LAYOUT}\n{}", serde_json::to_string(key)?));
        let short: String = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
        Ok(self.path.join("findings").join(format!("{}-{short}.json", key.check)))
    }

    /// What an earlier run found under this key. A file that cannot be read counts as not there, and so do findings
    /// with a picture that is gone or is not the one that was written.
    pub(crate) fn find(&self, key: &Key<'_>) -> Result<Option<Stored>, AuditError> {
        let path = self.file(key)?;
        let stored: Option<Stored> = fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(stored.filter(|s| {
            let mut pictures = s.findings.iter().chain(&s.clocked).flat_map(|f| &f.evidence).flat_map(|e| e.pictures());
            pictures.all(|p| self.picture(p, usize::MAX).is_some())
        }))
    }

    /// Keeps a picture under its name. Not synced: [`Self::find`] notices a picture that was cut.
    pub(crate) fn keep_picture(&self, file: &str, bytes: &[u8]) -> Result<(), AuditError> {
        let target = self.path.join(file);
        if fs::read(&target).is_ok_and(|old| old == bytes) {
            return Ok(());
        }
        let folder = self.path.join(PICTURES);
        fs::create_dir_all(&folder).map_err(|e| io("make", &folder, e))?;
        let failed = |e| io("write", &target, e);
        let mut partial = tempfile::Builder::new().prefix(".netproof-").tempfile_in(&folder).map_err(failed)?;
        partial.write_all(bytes).map_err(failed)?;
        readable(partial.as_file()).map_err(failed)?;
        partial.persist(&target).map_err(|e| failed(e.error))?;
        Ok(())
    }

    /// The bytes of a picture of at most `most` bytes; `None` where it is gone, changed or larger. The name in a
    /// document leads nowhere else: only pictures of this folder are read, and only with the content that their hash
    /// says.
    fn picture(&self, picture: &Picture, most: usize) -> Option<Vec<u8>> {
        let safe = picture.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !safe || picture.file != format!("{PICTURES}/{}.png", picture.sha256) {
            return None;
        }
        let path = self.path.join(&picture.file);
        let size = fs::metadata(&path).ok()?.len();
        if size > most as u64 {
            return None;
        }
        fs::read(path).ok().filter(|bytes| picture_file(bytes).1 == picture.sha256)
    }

    /// The pictures that a document shows, by their path, for a report: in the document's order, each with at most
    /// `most` bytes less what the ones before took. What is missing, changed or too large is left out.
    pub fn pictures(&self, document: &AuditDocument, most: usize) -> BTreeMap<String, Vec<u8>> {
        let mut left = most;
        let mut found = BTreeMap::new();
        for picture in document.all_findings().flat_map(|f| &f.evidence).flat_map(|e| e.pictures()) {
            if found.contains_key(&picture.file) {
                continue;
            }
            if let Some(bytes) = self.picture(picture, left) {
                left -= bytes.len();
                found.insert(picture.file.clone(), bytes);
            }
        }
        found
    }

    pub(crate) fn keep(&self, key: &Key<'_>, stored: &Stored) -> Result<(), AuditError> {
        write_atomically(&self.file(key)?, &serde_json::to_vec_pretty(stored)?)
    }
}

/// Writes a file whole or not at all: temporary file beside it, sync, rename, sync of the folder.
/// # Errors
/// It cannot be written.
pub fn write_atomically(target: &Path, content: &[u8]) -> Result<(), AuditError> {
    let folder = match target.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let failed = |e| io("write", target, e);
    let mut file = tempfile::Builder::new().prefix(".netproof-").tempfile_in(folder).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    readable(file.as_file()).map_err(failed)?;
    file.persist(target).map_err(|e| failed(e.error))?;
    #[cfg(unix)]
    fs::File::open(folder).and_then(|f| f.sync_all()).map_err(failed)?;
    Ok(())
}

/// Temporary files are private; results are ordinary files.
fn readable(file: &fs::File) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    let _ = file;
    Ok(())
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> AuditError {
    AuditError::Io { action, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u64) -> Key<'static> {
        Key {
            check: "c",
            version: 1,
            options: "{}",
            model: "m",
            data: "d",
            train: None,
            seed,
            level: 0.95,
            device: "cpu",
        }
    }

    #[test]
    fn what_was_kept_is_found_under_the_same_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::open(folder.path()).unwrap();
        let stored = Stored { findings: Vec::new(), clocked: Vec::new(), seconds: 0.1 + 0.2 };
        assert_eq!(run.find(&key(0)).unwrap(), None);
        run.keep(&key(0), &stored).unwrap();
        assert_eq!(run.find(&key(0)).unwrap(), Some(stored));
        assert_eq!(run.find(&key(1)).unwrap(), None);
        assert_eq!(run.find(&Key { options: "{\"a\":1}", ..key(0) }).unwrap(), None);
        assert_eq!(run.find(&Key { model: "n", ..key(0) }).unwrap(), None);
        assert_eq!(run.find(&Key { train: Some("t"), ..key(0) }).unwrap(), None);
    }

    #[test]
    fn a_damaged_file_counts_as_absent_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::open(folder.path()).unwrap();
        let stored = Stored { findings: Vec::new(), clocked: Vec::new(), seconds: 1.0 };
        run.keep(&key(0), &stored).unwrap();
        fs::write(run.file(&key(0)).unwrap(), b"{\"findings\": [").unwrap();
        assert_eq!(run.find(&key(0)).unwrap(), None);
        run.keep(&key(0), &stored).unwrap();
        assert_eq!(run.find(&key(0)).unwrap(), Some(stored));
    }
}
