//! Shared by the integration tests; not every test file uses everything.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use netproof_data::{Batch, DataError, Dataset, OpenOptions};

pub(crate) fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    path.to_str().unwrap().to_string()
}

pub(crate) fn open(spec: &str) -> Result<Dataset, DataError> {
    Dataset::open(spec, &OpenOptions::default())
}

pub(crate) fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| s.to_string()).collect()
}

pub(crate) fn all(data: &Dataset) -> Batch {
    data.load().unwrap()
}

pub(crate) fn values(batch: &Batch) -> &[f32] {
    batch.features.as_f32().unwrap()
}

/// A folder that is removed at the end of the test.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and returns its path as text.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_string()
    }

    pub(crate) fn spec(&self) -> String {
        self.0.path().to_str().unwrap().to_string()
    }
}

/// The message of an error, with its whole chain.
pub(crate) fn message(e: &DataError) -> String {
    let mut text = e.to_string();
    let mut source = std::error::Error::source(e);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(content).unwrap();
    out.finish().unwrap()
}
