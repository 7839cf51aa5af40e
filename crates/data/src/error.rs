use std::path::{Path, PathBuf};

use netproof_tensor::TensorError;

/// A data set that cannot be read, or cannot be read as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file system said no.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// A result could not be written; the destination is as it was.
    #[error("cannot write {}", path.display())]
    Write {
        /// The destination.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// The content is none of the known formats.
    #[error(
        "{} is {found}; expected Parquet, CSV (also gzip), NPZ, NPY, an IDX pair images:labels (also gzip) or an image folder",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What its first bytes look like.
        found: String,
    },
    /// A pickle can run code when it is loaded, so it is never opened.
    #[error(
        "{} holds a Python pickle ({found}), which can run code when loaded and is never opened; \
         convert it where you trust it: numpy.savez_compressed(\"data.npz\", x=x, y=y) with plain number arrays",
        path.display()
    )]
    Pickle {
        /// The file.
        path: PathBuf,
        /// Where the pickle was recognised.
        found: String,
    },
    /// The file is damaged, cut off, or says things about itself that are not so.
    #[error("{}: {part}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Array, column, member or header.
        part: String,
        /// What is wrong.
        reason: String,
    },
    /// The file is sound, but uses something that cannot become numbers here.
    #[error("{}: {part} is not supported: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Array, column, member or header.
        part: String,
        /// What is not supported and what to do instead.
        reason: String,
    },
    /// Something is over a limit of [`crate::Limits`].
    #[error("{}: {part} is {value}, over the limit of {limit}; raise `{option}` if the file is trusted", path.display())]
    Limit {
        /// The file.
        path: PathBuf,
        /// What was measured, with its unit.
        part: String,
        /// What the file has or claims.
        value: u64,
        /// What is allowed.
        limit: u64,
        /// Field of [`crate::Limits`].
        option: &'static str,
    },
    /// A column or array that was asked for is not there.
    #[error("{} has no column or array {name:?}; there are: {}", path.display(), available.join(", "))]
    Missing {
        /// The data set.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// The names that there are.
        available: Vec<String>,
    },
    /// Arrays or files that belong together have different numbers of rows.
    #[error("{}: {name:?} has {rows} rows, {reference:?} has {expected}", path.display())]
    RowCount {
        /// The data set.
        path: PathBuf,
        /// The deviating array.
        name: String,
        /// Its rows.
        rows: u64,
        /// The array it is compared with.
        reference: String,
        /// Rows of that one.
        expected: u64,
    },
    /// A row that cannot be read, where bad rows are not to be skipped.
    #[error("{}: row {row}: {reason}; repair the row or choose to skip bad rows (on-bad-row = skip)", path.display())]
    BadRow {
        /// The data set.
        path: PathBuf,
        /// Row number in the source, from 0; header lines are not counted.
        row: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// So many rows are bad that the file is probably not what it was taken for.
    #[error("{}: more than {limit} rows cannot be read, the first is row {row}: {reason}", path.display())]
    TooManyBadRows {
        /// The data set.
        path: PathBuf,
        /// The limit.
        limit: usize,
        /// The first bad row.
        row: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The labels do not fit the task.
    #[error("{}: label {name:?}: {reason}", path.display())]
    Label {
        /// The data set.
        path: PathBuf,
        /// Name of the label column.
        name: String,
        /// What does not fit and what to do.
        reason: String,
    },
    /// An option has a value that makes no sense.
    #[error("{name} is {value}; allowed: {allowed}")]
    Option {
        /// Name of the option.
        name: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Rows were asked for out of order from a source that can only be read forward and is too large to hold.
    #[error(
        "{}: reading {rows} rows out of order needs {bytes} bytes of memory, over the limit of {limit}; \
         convert the data to Parquet or to an uncompressed NPZ, or raise `memory_bytes`",
        path.display()
    )]
    Order {
        /// The data set.
        path: PathBuf,
        /// Rows asked for.
        rows: u64,
        /// Bytes that holding them would need.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A row number beyond the data set.
    #[error("row {row} is outside a data set of {rows} rows")]
    Row {
        /// The row asked for.
        row: usize,
        /// Rows that there are.
        rows: usize,
    },
    /// Values do not form a tensor.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl DataError {
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Read { path: path.into(), source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Write { path: path.into(), source }
    }

    pub(crate) fn malformed(path: &Path, part: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Malformed { path: path.into(), part: part.into(), reason: reason.into() }
    }

    pub(crate) fn unsupported(path: &Path, part: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported { path: path.into(), part: part.into(), reason: reason.into() }
    }

    pub(crate) fn limit(
        path: &Path,
        part: impl Into<String>,
        value: impl TryInto<u64>,
        limit: impl TryInto<u64>,
        option: &'static str,
    ) -> Self {
        let wide = |v: Option<u64>| v.unwrap_or(u64::MAX);
        Self::Limit {
            path: path.into(),
            part: part.into(),
            value: wide(value.try_into().ok()),
            limit: wide(limit.try_into().ok()),
            option,
        }
    }
}
