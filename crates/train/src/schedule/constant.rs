//! The base learning rate throughout.

use serde::Deserialize;

use super::{Position, Schedule, Setting};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Schedule> = Entry {
    id: "constant",
    summary: "the base learning rate throughout",
    build: |options, _| Ok(Box::new(options.read::<Constant>()?)),
};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Constant {}

impl Schedule for Constant {
    fn setting(&self, _: &Position) -> Setting {
        1.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::check;
    use crate::method::Method;

    #[test]
    fn nothing_changes() {
        check(&Method::new("constant"), 4, 2, &[1.0; 4]);
    }
}
