//! Data sets: Parquet, CSV, NPZ, NPY, IDX and image folders as one [`Dataset`] of features, labels, groups and row
//! numbers, streamed in batches with bounded memory.
//!
//! ```no_run
//! use netproof_data::{Dataset, OpenOptions};
//! let data = Dataset::open("images.gz:labels.gz", &OpenOptions::default())?;
//! for batch in data.batches(256) {
//!     let batch = batch?; // features [256, 1, 28, 28], labels, row numbers
//! }
//! # Ok::<(), netproof_data::DataError>(())
//! ```
//!
//! # Edge cases
//! Missing numbers are NaN in the features, missing categories too; a missing group is `None`. A row without a label, or
//! with one that is no class, is a bad row. Whatever is wrong with a row is reported by number and reason: opening or
//! reading stops there, or the row is skipped, counted and listed, as [`OpenOptions::on_bad_row`] says.
//!
//! Files may come from strangers: sizes, counts and names are checked before memory is taken by them ([`Limits`]), and
//! pickles are refused by content.

mod arrays;
mod batch;
mod batches;
mod csv;
mod dataset;
mod dictionary;
mod error;
mod images;
mod label;
mod npy;
mod open;
mod options;
mod parquet_pages;
mod parquet_source;
mod picture;
mod plan;
mod schema;
mod source;
mod split;
mod thrift;
mod write;
mod zip;

pub use arrays::read_npz;
pub use batch::{Annotations, Batch, ContentHasher, Labels};
pub use batches::Batches;
pub use dataset::{BadRow, Dataset};
pub use error::DataError;
pub use options::{Limits, OnBadRow, OpenOptions, Scale, Task};
pub use schema::{Column, ColumnKind, Group, LabelKind, Role};
pub use split::{grouped_k_fold, k_fold, split};
pub use write::{
    ParquetColumn, ParquetKind, ParquetValues, ParquetWriter, png_bytes, write_npz, write_parquet, write_png,
};
