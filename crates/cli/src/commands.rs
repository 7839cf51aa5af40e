//! One file per command. Each answers whether there is nothing of concern.

pub(crate) mod attack;
pub(crate) mod audit;
pub(crate) mod card;
pub(crate) mod completions;
pub(crate) mod conformance;
pub(crate) mod diff;
pub(crate) mod explain;
mod explain_evidence;
mod explain_pictures;
pub(crate) mod fix;
pub(crate) mod inspect;
pub(crate) mod methods;
pub(crate) mod predict;
pub(crate) mod selftest;
pub(crate) mod train;
pub(crate) mod verify;
