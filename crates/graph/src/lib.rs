//! An ONNX network as a named graph: checked, executed, differentiated, rewritten.

mod attributes;
mod error;
mod operator;
mod ops;
mod real;

pub use error::{GraphError, Unsupported};
