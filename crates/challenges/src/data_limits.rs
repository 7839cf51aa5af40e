//! What the data can and cannot support.

pub(crate) mod data_summary;
