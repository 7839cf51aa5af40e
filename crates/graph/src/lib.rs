//! An ONNX network as a named graph: checked, executed, differentiated, rewritten.

mod attributes;
pub mod conformance;
mod error;
mod model;
mod operator;
mod ops;
mod plan;
mod real;
mod run;

pub use error::{GraphError, Unsupported};
pub use model::{Dim, Model, ParameterInfo, Port};
pub use run::{Gradients, Parameters, Request, Run, Wrt};
