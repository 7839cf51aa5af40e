//! What a data set says about itself.

/// What the labels of a data set are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LabelKind {
    /// Class indices `0..count`.
    Classes {
        /// Number of classes: one more than the largest index, or the number of names.
        count: usize,
        /// Names by index, where the data or the options have them.
        names: Option<Vec<String>>,
    },
    /// Numbers to be predicted.
    Target,
    /// There are none.
    None,
}

/// What a column of a table, or an array, holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnKind {
    /// Numbers; whether all of them are whole.
    Numeric {
        /// Stored as integers.
        whole: bool,
    },
    /// Truth values.
    Boolean,
    /// One of a few values, sorted; a feature holds the index. Columns that are not used have no values here.
    Categorical {
        /// Value by index.
        values: Vec<String>,
    },
}

/// What a column is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Part of the features.
    Feature,
    /// The label.
    Label,
    /// A group, and not a feature.
    Group,
    /// Not used.
    Unused,
}

/// A column of a table, or an array of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
    /// What it is used for. A group that is also a feature counts as a feature.
    pub role: Role,
    /// Shape of one row; empty for a scalar.
    pub shape: Vec<usize>,
    /// Where it starts in a row of the features, and how many elements it has there.
    pub features: Option<(usize, usize)>,
}

/// A column by which results are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Name of the column.
    pub name: String,
    /// Its values, sorted (numbers by size); [`crate::Batch::groups`] holds indices into them.
    pub values: Vec<String>,
}
