/// An input from which no number can be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StatsError {
    /// Two slices that belong together differ in length.
    #[error("{what} has {actual} entries where {expected} are needed; give one per row")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Entries that are needed.
        expected: usize,
        /// Entries that were given.
        actual: usize,
    },
    /// A label that names no class.
    #[error("label {label} in row {row} is outside 0..{classes}; check the label column and the number of classes")]
    Label {
        /// Row of the label.
        row: usize,
        /// The label.
        label: usize,
        /// Number of classes.
        classes: usize,
    },
    /// A number that must be finite is NaN or infinite.
    #[error("{what} in row {row} is {value}, which is not a finite number; leave such rows out and report them")]
    NotFinite {
        /// Which number.
        what: &'static str,
        /// Row of the number.
        row: usize,
        /// The number.
        value: f64,
    },
    /// A number outside its range.
    #[error("{what} in row {row} is {value}, outside {low}..={high}")]
    Range {
        /// Which number.
        what: &'static str,
        /// Row of the number.
        row: usize,
        /// The number.
        value: f64,
        /// Smallest allowed value.
        low: f64,
        /// Largest allowed value.
        high: f64,
    },
    /// Probabilities of one row that do not add up to one.
    #[error(
        "probabilities in row {row} sum to {sum}, not to 1 within {tolerance}; give probabilities, or convert logits with softmax first"
    )]
    NotNormalised {
        /// Row of the probabilities.
        row: usize,
        /// Their sum.
        sum: f64,
        /// Allowed distance from 1.
        tolerance: f64,
    },
    /// A parameter outside its range.
    #[error("{name} is {value}, allowed is {allowed}")]
    Parameter {
        /// Name of the parameter.
        name: &'static str,
        /// The value.
        value: f64,
        /// What is allowed.
        allowed: &'static str,
    },
}

impl StatsError {
    /// Checks that `actual` entries are `expected`.
    pub(crate) fn check_length(what: &'static str, expected: usize, actual: usize) -> Result<(), Self> {
        if expected == actual { Ok(()) } else { Err(Self::Length { what, expected, actual }) }
    }

    /// Checks that a parameter counts at least one.
    pub(crate) fn check_positive(name: &'static str, value: usize) -> Result<(), Self> {
        if value > 0 { Ok(()) } else { Err(Self::Parameter { name, value: 0.0, allowed: "1 or more" }) }
    }

    /// Checks a number of bins. The upper limit is far beyond any use; it keeps a slip of the hand from asking for all
    /// memory.
    pub(crate) fn check_bins(bins: usize) -> Result<(), Self> {
        if (1..=1_000_000).contains(&bins) {
            Ok(())
        } else {
            Err(Self::Parameter { name: "bins", value: bins as f64, allowed: "1 to 1000000" })
        }
    }

    /// Checks that every value is finite.
    pub(crate) fn check_finite(what: &'static str, values: &[f64]) -> Result<(), Self> {
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(row) => Err(Self::NotFinite { what, row, value: values[row] }),
        }
    }

    /// Checks that every label is below `classes`.
    pub(crate) fn check_labels(labels: &[usize], classes: usize) -> Result<(), Self> {
        match labels.iter().position(|&l| l >= classes) {
            None => Ok(()),
            Some(row) => Err(Self::Label { row, label: labels[row], classes }),
        }
    }
}
