use netproof_audit::AuditError;
use netproof_graph::GraphError;
use netproof_stats::StatsError;
use netproof_tensor::TensorError;

/// Why a network cannot be explained as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// The network.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A tensor that cannot exist.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A number that cannot be computed.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// A target that the output does not have.
    #[error("target {target} of row {row} is out of range; `{output}` has {count} answers, 0 to {}", .count.saturating_sub(1))]
    Target {
        /// What was asked for.
        target: usize,
        /// Number of the row in its source.
        row: u64,
        /// The output that is explained.
        output: String,
        /// Answers that it has.
        count: usize,
    },
    /// A tensor of another shape than the network's.
    #[error("the {what} has shape {shape:?}; it must be {wanted}")]
    Shape {
        /// Which tensor.
        what: String,
        /// Its shape.
        shape: Vec<usize>,
        /// What would fit.
        wanted: String,
    },
    /// No gradient reaches the input.
    #[error(
        "`{output}` has no gradient with respect to `{input}`: {reason}; methods that need no gradient run: {}",
        crate::interpretability::gradient_free().join(", ")
    )]
    NotDifferentiable {
        /// Where the gradient starts.
        output: String,
        /// Where it should arrive.
        input: String,
        /// What stops it.
        reason: String,
    },
    /// The method does not apply to this network or these data.
    #[error("{what}")]
    NotApplicable {
        /// Why not, and what would.
        what: String,
    },
    /// An option outside its range.
    #[error("{name} is {value}, it must be {allowed}")]
    Option {
        /// Name of the option.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

impl ExplainError {
    pub(crate) fn option(name: &'static str, value: impl ToString, allowed: &'static str) -> Self {
        Self::Option { name, value: value.to_string(), allowed }
    }

    pub(crate) fn not_applicable(what: impl Into<String>) -> Self {
        Self::NotApplicable { what: what.into() }
    }
}

impl From<ExplainError> for AuditError {
    fn from(e: ExplainError) -> Self {
        match e {
            ExplainError::Graph(e) => Self::Graph(e),
            ExplainError::Tensor(e) => Self::Tensor(e),
            ExplainError::Stats(e) => Self::Stats(e),
            other => Self::Mismatch { message: other.to_string() },
        }
    }
}
