//! Numbers without tensors: intervals, metrics, calibration, tests of hypotheses.
//!
//! Pure functions on slices. Sums are carried in `f64` with compensation, in the order of the rows, so that a result
//! depends on the data and the seed only, never on threads. What is undefined (no rows, a class that never occurs, a
//! constant target) is `None` and never 0; what cannot be computed because the input is wrong (a label beyond the
//! classes, a NaN among probabilities) is a [`StatsError`] that names the row.
//!
//! Where to look: [`interval`] and [`bootstrap`] for how sure a number is; [`classification`], [`roc`],
//! [`probability`], [`calibration`] and [`regression`] for metrics; [`hypothesis`] for tests; [`descriptive`] for
//! summaries; [`hardest`] for the rows to look at; [`rng`] for the one source of random draws; [`special`] for the
//! distribution functions underneath.

pub mod bootstrap;
pub mod calibration;
pub mod classification;
pub mod descriptive;
mod error;
pub mod hardest;
pub mod hypothesis;
pub mod interval;
pub mod probability;
pub mod quadrature;
pub mod regression;
pub mod rng;
pub mod roc;
pub mod special;
mod sum;

pub use error::StatsError;
pub use interval::{Estimate, Interval, Level};
pub use sum::Sum;
