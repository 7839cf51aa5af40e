//! An ONNX network as a named graph: checked, executed, differentiated, rewritten.

mod attributes;
pub mod conformance;
mod cost;
mod error;
mod loss;
mod model;
mod operator;
mod ops;
mod plan;
mod real;
mod run;

pub use cost::{Cost, NodeCost, NodeInfo};
pub use error::{GraphError, Unsupported};
pub use loss::cross_entropy;
pub use model::{Dim, Model, ParameterInfo, Port};
pub use run::{Gradients, Parameters, Request, Run, Wrt};
