use netproof_tensor::Tensor;
use sha2::{Digest, Sha256};

/// Labels of some rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// Class indices.
    Classes(Vec<usize>),
    /// Numbers to be predicted.
    Targets(Vec<f32>),
    /// The data has no labels.
    None,
}

impl Labels {
    /// Number of labels; 0 where there are none.
    pub fn len(&self) -> usize {
        match self {
            Self::Classes(v) => v.len(),
            Self::Targets(v) => v.len(),
            Self::None => 0,
        }
    }

    /// Whether there are no labels.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Class indices, or `None` for another kind.
    pub fn classes(&self) -> Option<&[usize]> {
        if let Self::Classes(v) = self { Some(v) } else { None }
    }

    /// Targets, or `None` for another kind.
    pub fn targets(&self) -> Option<&[f32]> {
        if let Self::Targets(v) = self { Some(v) } else { None }
    }
}

/// What is known about rows beside their features.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotations {
    /// One per row.
    pub labels: Labels,
    /// For each group column, the index of each row's value; `None` where it is missing.
    pub groups: Vec<Vec<Option<usize>>>,
}

/// Some rows of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Row numbers in the source, from 0; header lines are not counted.
    pub row_ids: Vec<u64>,
    /// float32 `[rows, …feature shape]`; NaN where a value is missing.
    pub features: Tensor,
    /// One per row.
    pub labels: Labels,
    /// For each group column, the index of each row's value; `None` where it is missing.
    pub groups: Vec<Vec<Option<usize>>>,
    /// Elements of the features that are missing.
    pub missing: usize,
}

impl Batch {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.row_ids.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.row_ids.is_empty()
    }

    /// First half of the SHA-256 of each row's features: equal rows have equal hashes, in this and any other data set.
    ///
    /// Labels and groups do not count; −0 equals 0 and all NaN are equal. The format a row was stored in leaves no trace.
    pub fn row_hashes(&self) -> Vec<[u8; 16]> {
        let mut bytes = Vec::new();
        self.rows()
            .map(|row| {
                row_bytes(row, &mut bytes);
                let digest = Sha256::digest(&bytes);
                std::array::from_fn(|i| digest[i])
            })
            .collect()
    }

    /// The features, one slice per row.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        let (values, width) = (self.features.as_f32().unwrap_or_default(), self.features.row_len());
        (0..self.len()).map(move |row| &values[row * width..(row + 1) * width])
    }
}

/// Hashes a data set while its batches pass by; [`crate::Dataset::content_hash`] is the same in one call.
#[derive(Debug, Clone)]
pub struct ContentHasher {
    digest: Sha256,
    bytes: Vec<u8>,
}

impl ContentHasher {
    pub(crate) fn new(header: &str) -> Self {
        Self { digest: Sha256::new_with_prefix(header), bytes: Vec::new() }
    }

    /// Adds the next rows. How rows are cut into batches makes no difference.
    pub fn update(&mut self, batch: &Batch) {
        for (i, row) in batch.rows().enumerate() {
            row_bytes(row, &mut self.bytes);
            match &batch.labels {
                Labels::Classes(v) => self.bytes.extend((v[i] as u64).to_le_bytes()),
                Labels::Targets(v) => self.bytes.extend(canonical(v[i])),
                Labels::None => {}
            }
            for group in &batch.groups {
                self.bytes.extend(group[i].map_or(u64::MAX, |g| g as u64).to_le_bytes());
            }
            self.digest.update(&self.bytes);
        }
    }

    /// The hash as 64 hexadecimal digits.
    pub fn finish(self) -> String {
        self.digest.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

fn row_bytes(row: &[f32], out: &mut Vec<u8>) {
    out.clear();
    row.iter().for_each(|&v| out.extend(canonical(v)));
}

fn canonical(v: f32) -> [u8; 4] {
    let v = if v.is_nan() { f32::NAN } else { v + 0.0 };
    v.to_le_bytes()
}
