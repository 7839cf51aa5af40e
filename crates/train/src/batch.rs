//! What the loop hands to augmentations and gradient rules: some rows, and what the network should say about them.

use netproof_tensor::Tensor;

/// What the network should say about some rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// A class per row.
    Classes(Vec<usize>),
    /// A distribution over the classes per row, as mixing rows makes them.
    Soft {
        /// Number of classes.
        classes: usize,
        /// `[rows, classes]`
        values: Vec<f32>,
    },
    /// A number per row.
    Numbers(Vec<f32>),
}

/// What the network should say about one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target<'a> {
    /// This class.
    Class(usize),
    /// Each class with this probability.
    Soft(&'a [f32]),
    /// This number.
    Number(f32),
}

impl Targets {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Classes(v) => v.len(),
            Self::Soft { classes, values } => values.len() / (*classes).max(1),
            Self::Numbers(v) => v.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The target of one row.
    pub fn row(&self, row: usize) -> Target<'_> {
        match self {
            Self::Classes(v) => Target::Class(v[row]),
            Self::Soft { classes, values } => Target::Soft(&values[row * classes..(row + 1) * classes]),
            Self::Numbers(v) => Target::Number(v[row]),
        }
    }

    /// Classes as distributions that are certain; distributions and numbers as they are.
    pub fn soften(&mut self, classes: usize) {
        if let Self::Classes(labels) = self {
            let mut values = vec![0.0; labels.len() * classes];
            for (row, &label) in values.chunks_exact_mut(classes.max(1)).zip(labels.iter()) {
                if let Some(own) = row.get_mut(label) {
                    *own = 1.0;
                }
            }
            *self = Self::Soft { classes, values };
        }
    }
}

/// Some rows for training.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Row numbers in the source.
    pub row_ids: Vec<u64>,
    /// `[rows, …]`
    pub features: Tensor,
    /// One per row.
    pub targets: Targets,
    /// How much each row counts; all the same where there are none.
    pub weights: Option<Vec<f32>>,
    /// For each group column of the data, the index of each row's value.
    pub groups: Vec<Vec<Option<usize>>>,
    /// Number of classes that the network tells apart; 0 where numbers are predicted.
    pub classes: usize,
}

impl Batch {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.features.rows()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How much a row counts.
    pub fn weight(&self, row: usize) -> f64 {
        self.weights.as_ref().and_then(|w| w.get(row)).map_or(1.0, |&w| f64::from(w))
    }
}
