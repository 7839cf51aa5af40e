//! One file per command. Each answers whether there is nothing of concern.

pub(crate) mod audit;
pub(crate) mod completions;
pub(crate) mod conformance;
pub(crate) mod explain;
mod explain_pictures;
pub(crate) mod fix;
pub(crate) mod inspect;
pub(crate) mod methods;
pub(crate) mod predict;
pub(crate) mod train;
