use std::path::PathBuf;

use netproof_data::DataError;
use netproof_graph::GraphError;
use netproof_tensor::TensorError;

/// Why a training cannot begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The network.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A tensor that cannot exist.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A recipe that cannot be understood.
    #[error("recipe{}: {message}", .line.map(|l| format!(", line {l}")).unwrap_or_default())]
    Recipe {
        /// Line of the recipe, from 1, where it is known.
        line: Option<usize>,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// An option with a value that makes no sense.
    #[error("`{name}` is {value}; allowed: {allowed}")]
    Option {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// An id that the registry does not have.
    #[error("there is no {family} `{id}`; there are {}", .known.join(", "))]
    UnknownId {
        /// Such as `optimiser`.
        family: &'static str,
        /// What was asked for.
        id: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Network, data and objective do not belong together.
    #[error("{message}")]
    Mismatch {
        /// What does not fit, and what would.
        message: String,
    },
    /// A feature that is missing or infinite.
    #[error("row {row}: feature {feature} is {value}; fill such cells or leave the rows out before training")]
    Feature {
        /// Row number in the source, from 0.
        row: u64,
        /// Which element of the row, from 0, or its name.
        feature: String,
        /// NaN or infinite.
        value: f32,
    },
    /// A checkpoint that cannot be used.
    #[error("checkpoint {}: {message}", .path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        message: String,
    },
    /// A checkpoint that cannot be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Refuses the value of an option.
pub(crate) fn refuse(name: &'static str, value: impl std::fmt::Display, allowed: &'static str) -> TrainError {
    TrainError::Option { name, value: value.to_string(), allowed }
}

/// `Ok` where the number is within the range, ends included.
pub(crate) fn within(
    name: &'static str,
    value: f64,
    [low, high]: [f64; 2],
    allowed: &'static str,
) -> Result<(), TrainError> {
    if value >= low && value <= high { Ok(()) } else { Err(refuse(name, value, allowed)) }
}
