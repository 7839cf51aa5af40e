//! The weights themselves.

use serde::Deserialize;

use super::Averaging;
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Averaging> =
    Entry { id: "off", summary: "the weights themselves", build: |options, _| Ok(Box::new(options.read::<Off>()?)) };

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Off {}

impl Averaging for Off {}
