//! Checkpoints: everything that a training needs to go on as if it had never stopped, in one file.
//!
//! Layout: 8 bytes of magic, length of the header (u64, little-endian), header (JSON), float32 tensors in the order of
//! the header, SHA-256 of all that. Random streams are functions of seed and position, so the position is all of them.
//!
//! # Guarantees
//! A checkpoint appears whole or not at all: temporary file, sync, rename, sync of the folder. A damaged one is refused.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::TrainError;

const MAGIC: &[u8; 8] = b"NPTRAIN1";
const DIGEST: usize = 32;

/// A header of any kind, and tensors by name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Checkpoint<H> {
    pub(crate) header: H,
    pub(crate) tensors: Vec<(String, Vec<f32>)>,
}

/// A header and tensors to be written, borrowed.
pub(crate) struct Draft<'a, H> {
    pub(crate) header: &'a H,
    pub(crate) tensors: Vec<(String, &'a [f32])>,
}

#[derive(Serialize, Deserialize)]
struct Whole<H> {
    header: H,
    tensors: Vec<(String, u64)>,
}

impl<H: Serialize> Draft<'_, H> {
    /// Writes the checkpoint, whole or not at all.
    /// # Errors
    /// It cannot be written; an older checkpoint is as it was.
    pub(crate) fn save(&self, path: &Path) -> Result<(), TrainError> {
        let sizes = self.tensors.iter().map(|(name, t)| (name.clone(), t.len() as u64)).collect();
        let header = serde_json::to_vec(&Whole { header: self.header, tensors: sizes })
            .map_err(|e| TrainError::Checkpoint { path: path.to_path_buf(), message: e.to_string() })?;
        let floats: usize = self.tensors.iter().map(|(_, t)| t.len()).sum();
        let mut bytes = Vec::with_capacity(MAGIC.len() + 8 + header.len() + 4 * floats + DIGEST);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(header.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&header);
        for (_, tensor) in &self.tensors {
            tensor.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
        }
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        write_atomically(path, &bytes)
    }
}

/// Reads a checkpoint.
/// # Errors
/// There is none, it cannot be read, or it is damaged.
pub(crate) fn load<H: for<'d> Deserialize<'d>>(path: &Path) -> Result<Checkpoint<H>, TrainError> {
    let bytes = fs::read(path).map_err(|source| io("read", path, source))?;
    read(&bytes).map_err(|message| TrainError::Checkpoint {
        path: path.to_path_buf(),
        message: format!("{message}; delete it to start again"),
    })
}

fn read<H: for<'d> Deserialize<'d>>(bytes: &[u8]) -> Result<Checkpoint<H>, String> {
    let damaged = || "is damaged or cut off".to_owned();
    if !bytes.starts_with(MAGIC) {
        return Err("is no checkpoint of this version".to_owned());
    }
    let (content, digest) = bytes.split_last_chunk::<DIGEST>().ok_or_else(damaged)?;
    if Sha256::digest(content).as_slice() != digest {
        return Err(damaged());
    }
    let rest = content.get(MAGIC.len()..).ok_or_else(damaged)?;
    let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| damaged())?;
    let (header, mut rest) = rest.split_at_checked(length).ok_or_else(damaged)?;
    let whole: Whole<H> = serde_json::from_slice(header).map_err(|e| format!("cannot be understood: {e}"))?;
    let mut tensors = Vec::with_capacity(whole.tensors.len().min(1 << 16));
    for (name, len) in whole.tensors {
        let size = usize::try_from(len).ok().and_then(|n| n.checked_mul(4)).ok_or_else(damaged)?;
        let (own, later) = rest.split_at_checked(size).ok_or_else(damaged)?;
        let values = own.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        tensors.push((name, values));
        rest = later;
    }
    if rest.is_empty() { Ok(Checkpoint { header: whole.header, tensors }) } else { Err(damaged()) }
}

fn write_atomically(target: &Path, content: &[u8]) -> Result<(), TrainError> {
    let folder = match target.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let failed = |e| io("write", target, e);
    let mut file = tempfile::Builder::new().prefix(".netproof-").tempfile_in(folder).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(target).map_err(|e| failed(e.error))?;
    #[cfg(unix)]
    fs::File::open(folder).and_then(|f| f.sync_all()).map_err(failed)?;
    Ok(())
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> TrainError {
    TrainError::Io { action, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("c");
        let a = [1.0, f32::MIN_POSITIVE / 2.0, -0.0];
        Draft { header: &vec![0.1 + 0.2], tensors: vec![("a".into(), &a[..]), ("b".into(), &[])] }.save(&path).unwrap();
        path
    }

    #[test]
    fn what_was_saved_comes_back_bit_by_bit() {
        let folder = tempfile::tempdir().unwrap();
        let got: Checkpoint<Vec<f64>> = load(&saved(folder.path())).unwrap();
        assert_eq!(got.header, [0.1 + 0.2]);
        let bits: Vec<u32> = got.tensors[0].1.iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits, [1.0, f32::MIN_POSITIVE / 2.0, -0.0].map(f32::to_bits));
        assert_eq!(got.tensors[1], ("b".to_owned(), Vec::new()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn whatever_is_damaged_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = saved(folder.path());
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            assert!(read::<Vec<f64>>(&whole[..end]).is_err(), "{end}");
        }
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] ^= 1;
            assert!(read::<Vec<f64>>(&bent).is_err(), "{at}");
        }
        fs::write(&path, &whole[..20]).unwrap();
        let error = load::<Vec<f64>>(&path).unwrap_err().to_string();
        assert!(error.ends_with("is damaged or cut off; delete it to start again"), "{error}");
        assert!(load::<Vec<f64>>(&folder.path().join("none")).is_err());
        // A header that asks for more than there is, with a digest that fits.
        let header = br#"{"header":[],"tensors":[["a",4611686018427387904]]}"#;
        let mut bytes = [MAGIC.as_slice(), &(header.len() as u64).to_le_bytes(), header].concat();
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        assert!(read::<Vec<f64>>(&bytes).is_err());
    }
}
