//! What a training leaves behind beside the network: plain data for JSON.

use serde::{Deserialize, Serialize};

use crate::objective::Sums;

/// Layout of [`Record`].
pub const SCHEMA: &str = "netproof-train/1";

/// Metrics over some rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Mean of the objective.
    pub loss: f64,
    /// Fraction of right answers, where answers are right or wrong.
    pub accuracy: Option<f64>,
    /// Rows.
    pub rows: u64,
}

impl From<&Sums> for Metrics {
    fn from(sums: &Sums) -> Self {
        Self { loss: sums.mean_loss(), accuracy: sums.accuracy(), rows: sums.rows }
    }
}

/// One epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Number, from 1.
    pub epoch: u64,
    /// Steps of the optimiser since the beginning.
    pub steps: u64,
    /// Learning rate of the last step, before factors of layers.
    pub learning_rate: f64,
    /// Over the training rows as they were trained on: changed by augmentation and dropout, while weights moved.
    pub train: Metrics,
    /// Over the validation rows, with the averaged weights where there is an average.
    pub validation: Option<Metrics>,
    /// Over the validation rows where the gradient rule finds them hardest, where that is monitored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub robust: Option<Metrics>,
    /// Penalties at the end of the epoch; part of what was minimised, not of the losses here.
    pub penalty: f64,
    /// Mean l2 norm of the gradients, before clipping.
    pub gradient_norm: f64,
    /// Whether its weights are the best so far.
    pub is_best: bool,
    /// Wall-clock seconds, validation included.
    pub seconds: f64,
}

/// How a training ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum Ended {
    /// All epochs are done.
    Completed,
    /// The stopping rule ended it.
    Stopped {
        /// What the rule says.
        reason: String,
    },
    /// It was asked to stop; the checkpoint, where there is one, goes on from here.
    Interrupted,
    /// Losses, gradients or weights were no longer finite or grew without bound; the last good weights were restored.
    Diverged {
        /// Steps that were done.
        step: u64,
        /// What was seen, and what to do.
        reason: String,
    },
}

/// A whole training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: String,
    /// The recipe as TOML, every field written out.
    pub recipe: String,
    /// SHA-256 of the network before the training.
    pub initial_sha256: String,
    /// SHA-256 of the network that was given back.
    pub result_sha256: String,
    /// SHA-256 of the training rows.
    pub train_sha256: String,
    /// SHA-256 of the validation rows.
    pub validation_sha256: Option<String>,
    /// The network as it was given, over the validation rows.
    pub start: Option<Metrics>,
    /// The same, where the gradient rule finds those rows hardest, where that is monitored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_robust: Option<Metrics>,
    /// All epochs that were completed.
    pub epochs: Vec<EpochRecord>,
    /// Epoch whose weights were given back; 0: as they were before the training.
    pub best_epoch: u64,
    /// How it ended.
    pub ended: Ended,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Wall-clock seconds of all epochs, those before a resumption included.
    pub seconds: f64,
}

/// One step of the optimiser, as it is reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Number of the epoch, from 1.
    pub epoch: u64,
    /// Steps that are done, this one included.
    pub step: u64,
    /// Steps of the whole training, if nothing ends it early.
    pub total: u64,
    /// Mean of the objective over the rows of the step.
    pub loss: f64,
    /// Rows of the step.
    pub rows: u64,
    /// Base rate times schedule.
    pub learning_rate: f64,
    /// l2 norm of the gradient, before clipping.
    pub gradient_norm: f64,
}

/// Where a training says how far it is.
pub trait Watch: Sync {
    /// A step is done.
    fn step(&self, _step: &StepReport) {}
    /// An epoch is done.
    fn epoch(&self, _epoch: &EpochRecord) {}
    /// Something a person should know now.
    fn note(&self, _text: &str) {}
    /// What went wrong with watching, if anything did; a training goes on without.
    fn failure(&self) -> Option<String> {
        None
    }
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Watch for Silent {}
