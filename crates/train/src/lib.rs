//! One trainer for every network: recipe, loop, objectives, optimisers, schedules, checkpoints.
//!
//! A [`Recipe`] names methods of the [`Registry`]; a [`Job`] is a network and rows that fit each other; [`train`] makes of
//! both a new network, with the best weights, and a [`Record`].

mod augment;
mod averaging;
mod batch;
mod checkpoint;
mod cross_validation;
mod dropout;
mod ensemble;
mod error;
mod head;
mod job;
mod layers;
pub mod logs;
mod method;
mod net;
mod network;
mod objective;
mod optimiser;
mod penalty;
mod preview;
mod recipe;
mod record;
mod rows;
mod rule;
mod schedule;
mod stochastic_depth;
mod stopping;
#[cfg(test)]
mod test_support;
mod trainer;
mod weights;

pub use augment::{AUGMENTATIONS, Augmentation, each_image};
pub use averaging::{AVERAGING, Averaging};
pub use batch::{Batch, Target, Targets};
pub use cross_validation::{CrossValidation, Fold, Folds, cross_validate};
pub use dropout::Dropout;
pub use ensemble::average;
pub use error::TrainError;
pub use job::Job;
pub use layers::Layer;
pub use method::{Entry, Family, Method, Options, Registry};
pub use net::Net;
pub use network::{ARCHITECTURES, Architecture, Purpose, prepare, shallower};
pub use objective::{OBJECTIVES, Objective, RowLoss, Sums, evaluate};
pub use optimiser::{OPTIMISERS, Optimiser, Update};
pub use penalty::{Penalised, Regularisation};
pub use preview::{Sheet, preview};
pub use recipe::{DataSection, EXAMPLE, Monitor, Precision, Recipe, ScaleName, TaskName};
pub use record::{Ended, EpochRecord, Metrics, Record, SCHEMA, Silent, StepReport, Watch};
pub use rule::{Gradient, GradientRule, RULES, Step};
pub use schedule::{Observation, Position, SCHEDULES, Schedule, Setting};
pub use stochastic_depth::StochasticDepth;
pub use stopping::{STOPPING_RULES, StoppingRule};
pub use trainer::{Answers, RunOptions, Trained, identity, measure, train};
pub use weights::{Weights, combine, scale, squared_norm};
