//! Kernels for the CPU on plain slices: the widest vectors of the machine, chosen at run time, on every core.
//!
//! Rules that hold for all of them:
//! - The result has the same bits whatever the number of threads: work is divided by shape, never by who is idle, and
//!   sums are taken in a fixed order.
//! - Each is tested against a float64 version of its definition over odd shapes, and the operators that call them against
//!   the reference path.
//! - Scratch memory belongs to the thread and is used again; its size is bounded and stated.

pub(crate) mod attention;
pub(crate) mod batch;
pub(crate) mod batch_norm;
pub(crate) mod convolution;
mod depthwise;
mod direct;
pub(crate) mod elementwise;
pub(crate) mod epilogue;
pub(crate) mod layer_norm;
pub(crate) mod layout;
pub(crate) mod math;
pub(crate) mod pool;
pub(crate) mod product;
pub(crate) mod reduce;
#[cfg(test)]
mod reference;
pub(crate) mod softmax;
mod task;
mod transpose;
mod vectors;
mod weights;
mod winograd;

pub(crate) use task::alone;
use task::{LINE, PRODUCTS, Shared, collected, parallel, with_scratch, worth};
pub use vectors::vectorised;
