//! What a changed row of a table must keep to be a row that can be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a changed row must keep beyond norm and bounds, declared by the names of its features.
///
/// A name is that of a feature, or of a column whose features are called `column=value`; it may end in `*`, or be the
/// number of a feature, or a range of them such as `3..7`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Constraints {
    /// Features that do not change.
    pub immutable: Vec<String>,
    /// Features that may only grow.
    pub increase: Vec<String>,
    /// Features that may only fall.
    pub decrease: Vec<String>,
    /// Features that change by whole numbers.
    pub integer: Vec<String>,
    /// Groups of features of which exactly one is 1 and all others are 0; each named by its columns.
    pub one_hot: Vec<Vec<String>>,
    /// Features that change by multiples of a step, such as `{ age = 0.0137 }` where the column was scaled.
    pub steps: BTreeMap<String, f64>,
    /// Largest change of a feature, whatever the norm allows.
    pub budgets: BTreeMap<String, f64>,
    /// Least and largest value of a feature, within the bounds of the threat.
    pub bounds: BTreeMap<String, [f64; 2]>,
}

impl Constraints {
    /// Whether nothing is declared.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
