//! Inputs that are changed on purpose: how small a change makes the network fail, and what is proved against it.
//!
//! An [`Attack`](attack::Attack) proposes; the [`Harness`](harness::Harness) clips, runs the network again and counts. What an
//! attack sees of a network is an [`Oracle`](oracle::Oracle) onto a [`Victim`](victim::Victim): logits and input gradients,
//! each call counted per row.

mod ascent;
pub mod attack;
pub mod attacks;
pub mod certificates;
pub(crate) mod certified_accuracy;
pub mod certifier;
pub mod checks;
#[cfg(test)]
mod conformance;
pub(crate) mod corruptions;
mod decision;
pub(crate) mod defences;
mod error;
pub mod harness;
mod hyperplane;
pub mod loss;
pub mod masking;
pub mod motion;
pub(crate) mod noise_stability;
pub mod oracle;
pub mod possible;
pub mod projection;
pub mod protocol;
#[cfg(test)]
mod protocol_tests;
pub mod protocols;
pub mod report;
mod rows;
mod smallest;
mod square;
mod surrogate;
#[cfg(test)]
pub(crate) mod test_support;
pub mod verify;
pub mod victim;

#[cfg(test)]
mod zoo;

pub use error::AttackError;
