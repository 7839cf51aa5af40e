//! An ONNX network as a named graph: checked, executed, differentiated, rewritten.

mod attributes;
mod bounds;
mod buffer;
pub mod builders;
pub mod conformance;
mod cost;
mod draw;
mod error;
mod file_builder;
mod fusion;
mod kernels;
mod loss;
mod model;
mod operator;
mod ops;
mod plan;
mod real;
mod rewrite;
mod rows;
mod rules;
mod run;
mod threads;

pub use bounds::{Ascent, BoundMethod, Bounds, BoundsRequest, Norm, Region, Rounding, Specification};
pub use cost::{Cost, NodeCost, NodeInfo};
pub use error::{GraphError, Unsupported};
pub use file_builder::{Attribute, FileBuilder, NewNode};
pub use kernels::vectorised;
pub use loss::cross_entropy;
pub use model::{Dim, Model, ParameterInfo, Port};
pub use rewrite::{IntervalNetwork, Mean};
pub use rules::{LinearRule, LrpRules, Rule};
pub use run::{Gradients, Parameters, Propagated, Request, Run, Wrt};
pub use threads::start_threads;
