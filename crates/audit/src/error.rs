use std::path::PathBuf;

use netproof_data::DataError;
use netproof_graph::GraphError;
use netproof_stats::StatsError;
use netproof_tensor::TensorError;
use netproof_train::TrainError;

/// Why an audit, or one check of it, cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The network.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A number that cannot be computed.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// A training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A tensor that cannot exist.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Network and data do not belong together.
    #[error("the network and the data do not fit: {message}")]
    Mismatch {
        /// What does not fit, and what would.
        message: String,
    },
    /// A method's own reason.
    #[error(transparent)]
    Method(Box<dyn std::error::Error + Send + Sync>),
    /// The time that was given is over.
    #[error("out of time")]
    OutOfTime,
    /// A person asked to end.
    #[error("interrupted")]
    Interrupted,
    /// An id that the registry does not have.
    #[error("there is no {kind} `{id}`; there are {}", .known.join(", "))]
    UnknownId {
        /// `check` or `remedy`.
        kind: &'static str,
        /// What was asked for.
        id: String,
        /// What there is.
        known: Vec<String>,
    },
    /// An option that a method does not take.
    #[error("options of `{id}`: {message}")]
    Option {
        /// The method.
        id: String,
        /// What is wrong with them.
        message: String,
    },
    /// A policy that cannot be read.
    #[error("policy: {message}")]
    Policy {
        /// What is wrong, and what would be right.
        message: String,
    },
    /// Pixels that are no picture.
    #[error(
        "a picture of width, height and channels {size:?} with {pixels} values: sides must be from 1 to {most}, channels 1 or \
         3, and there must be one value for each"
    )]
    Picture {
        /// Width, height, channels.
        size: [usize; 3],
        /// How many values were given.
        pixels: usize,
        /// The largest side.
        most: usize,
    },
    /// A file of the run folder.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A finding that cannot be written, such as one with a number that is not finite.
    #[error("a result cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}
