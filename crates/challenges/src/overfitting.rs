//! How good the network is on data it has not seen, how sure it may be, and how much worse than on its training data.

pub(crate) mod calibration;
pub(crate) mod dropout;
pub(crate) mod generalisation_gap;
pub(crate) mod performance;
mod remedies;
pub(crate) mod temperature_scaling;
