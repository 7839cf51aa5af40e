use std::fmt;

use netproof_onnx::OnnxError;
use netproof_tensor::TensorError;

/// A node that this crate cannot run, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// Name of the node, or of its first output where it has none.
    pub node: String,
    /// Operator, with its domain where that is not the default one.
    pub operator: String,
    /// What exactly is not supported.
    pub reason: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operator {} (node `{}`): {}", self.operator, self.node, self.reason)
    }
}

/// Why a network cannot be loaded, run, differentiated or rewritten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The file is not a valid ONNX file.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// The network uses what this crate does not run; every such node is listed.
    #[error("unsupported: {}", list(.0))]
    Unsupported(Vec<Unsupported>),
    /// A node's inputs do not fit it.
    #[error("node `{node}` ({operator}): {message}")]
    Node {
        /// Name of the node.
        node: String,
        /// Its operator.
        operator: String,
        /// What does not fit.
        message: String,
    },
    /// An input of the network is missing or does not fit.
    #[error("input `{name}`: {message}")]
    Input {
        /// Name of the input.
        name: String,
        /// What does not fit, and what would.
        message: String,
    },
    /// A name that the network does not have.
    #[error("the network has no value `{name}`{}", near(.candidates))]
    UnknownValue {
        /// The name asked for.
        name: String,
        /// Names that it has.
        candidates: Vec<String>,
    },
    /// A gradient was asked for a value that has none.
    #[error("no gradient for `{name}`: {reason}")]
    NoGradient {
        /// The value.
        name: String,
        /// Why.
        reason: String,
    },
    /// A tensor that cannot exist.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Bounds were asked for that cannot be worked out.
    #[error("bounds: {message}")]
    Bounds {
        /// What does not fit, and what would.
        message: String,
    },
    /// A rewrite or a builder was asked for something impossible.
    #[error("{what}: {message}")]
    Rewrite {
        /// The rewrite or builder.
        what: &'static str,
        /// What does not fit, and what would.
        message: String,
    },
}

fn list(nodes: &[Unsupported]) -> String {
    nodes.iter().map(Unsupported::to_string).collect::<Vec<_>>().join("; ")
}

fn near(candidates: &[String]) -> String {
    if candidates.is_empty() {
        return String::new();
    }
    let shown: Vec<_> = candidates.iter().take(8).map(|c| format!("`{c}`")).collect();
    format!("; it has {}{}", shown.join(", "), if candidates.len() > 8 { ", ..." } else { "" })
}

/// Why one operator cannot be inferred or run; the executor adds the node's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OpError {
    /// The inputs do not fit.
    Invalid(String),
    /// The operator exists, but not in this form.
    Unsupported(String),
    /// An output's shape depends on a value that is known only when the network runs.
    Deferred,
}

pub(crate) type OpResult<T> = Result<T, OpError>;

impl From<TensorError> for OpError {
    fn from(e: TensorError) -> Self {
        Self::Invalid(e.to_string())
    }
}

/// Leaves an operator with [`OpError::Invalid`].
macro_rules! invalid {
    ($($t:tt)*) => { return Err($crate::error::OpError::Invalid(format!($($t)*))) };
}
/// Leaves an operator with [`OpError::Unsupported`].
macro_rules! unsupported {
    ($($t:tt)*) => { return Err($crate::error::OpError::Unsupported(format!($($t)*))) };
}
pub(crate) use {invalid, unsupported};
