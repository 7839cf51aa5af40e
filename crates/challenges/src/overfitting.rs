//! How good the network is on data it has not seen, how sure it may be, and how much worse than on its training data.

pub(crate) mod augmentation;
pub(crate) mod calibration;
pub(crate) mod capacity;
pub(crate) mod dropout;
pub(crate) mod early_stopping;
pub(crate) mod ensemble;
pub(crate) mod generalisation_gap;
pub(crate) mod l1;
pub(crate) mod label_smoothing;
pub(crate) mod learning_curves;
pub(crate) mod memorisation;
pub(crate) mod performance;
mod remedies;
mod retraining;
pub(crate) mod sample_size;
pub(crate) mod seed_variance;
pub(crate) mod smaller_model;
pub(crate) mod temperature_scaling;
pub(crate) mod weight_decay;
