//! One pass over the data without the network: what is there, and what is wrong with it.

use std::collections::HashMap;

use netproof_data::{Batch, ContentHasher, Dataset};
use netproof_stats::descriptive::Moments;

/// What one pass over a data set saw. Memory: 24 bytes per row and 48 per feature.
#[derive(Debug, Clone)]
pub struct Scan {
    /// Number of rows.
    pub rows: usize,
    /// SHA-256 of the content.
    pub content: String,
    /// Count, mean, extremes and missing values of each feature of a row, in row-major order; one entry for all pixels
    /// where rows are images.
    pub features: Vec<Moments>,
    /// Elements that are infinite.
    pub infinite: u64,
    /// Elements that are missing (NaN).
    pub missing: u64,
    /// Rows by class; empty where labels are not classes.
    pub class_counts: Vec<u64>,
    /// Mean, spread and extremes of targets; empty where labels are not targets.
    pub targets: Moments,
    /// Hash of each row's features, in row order.
    pub hashes: Vec<[u8; 16]>,
    /// Class of each row, `u32::MAX` where there is none.
    pub labels: Vec<u32>,
    /// Row numbers where they are not simply counted from 0.
    pub row_ids: Option<Vec<u64>>,
}

impl Scan {
    pub(crate) fn new(data: &Dataset) -> (Self, ContentHasher) {
        let per_row = if data.feature_shape().len() == 1 { data.feature_shape()[0] } else { 1 };
        let scan = Self {
            rows: 0,
            content: String::new(),
            features: vec![Moments::default(); per_row],
            infinite: 0,
            missing: 0,
            class_counts: Vec::new(),
            targets: Moments::default(),
            hashes: Vec::with_capacity(data.len()),
            labels: Vec::with_capacity(data.len()),
            row_ids: None,
        };
        (scan, data.hasher())
    }

    pub(crate) fn add(&mut self, batch: &Batch, hasher: &mut ContentHasher) {
        hasher.update(batch);
        self.hashes.extend(batch.row_hashes());
        let per_row = self.features.len();
        for row in batch.rows() {
            for (i, &v) in row.iter().enumerate() {
                self.missing += u64::from(v.is_nan());
                self.infinite += u64::from(v.is_infinite());
                if let Some(m) = self.features.get_mut(if per_row == 1 { 0 } else { i })
                    && !v.is_infinite()
                {
                    m.add(f64::from(v));
                }
            }
        }
        for (i, &id) in batch.row_ids.iter().enumerate() {
            let position = (self.rows + i) as u64;
            if self.row_ids.is_none() && id != position {
                self.row_ids = Some((0..position).collect());
            }
            if let Some(ids) = &mut self.row_ids {
                ids.push(id);
            }
        }
        match batch.labels.classes() {
            Some(classes) => {
                for &c in classes {
                    if self.class_counts.len() <= c {
                        self.class_counts.resize(c + 1, 0);
                    }
                    self.class_counts[c] += 1;
                    self.labels.push(u32::try_from(c).unwrap_or(u32::MAX));
                }
            }
            None => self.labels.resize(self.rows + batch.len(), u32::MAX),
        }
        for &t in batch.labels.targets().unwrap_or_default() {
            self.targets.add(f64::from(t));
        }
        self.rows += batch.len();
    }

    /// Row number in the source of the row at this position.
    pub fn row_id(&self, position: usize) -> u64 {
        self.row_ids.as_ref().and_then(|ids| ids.get(position).copied()).unwrap_or(position as u64)
    }

    /// Positions of rows with equal features, in groups of two or more, in the order of their first rows.
    pub fn duplicates(&self) -> Vec<Vec<usize>> {
        let mut order: Vec<u32> = (0..self.rows.min(u32::MAX as usize) as u32).collect();
        order.sort_unstable_by_key(|&i| (self.hashes[i as usize], i));
        let mut groups: Vec<Vec<usize>> = order
            .chunk_by(|&a, &b| self.hashes[a as usize] == self.hashes[b as usize])
            .filter(|g| g.len() > 1)
            .map(|g| g.iter().map(|&i| i as usize).collect())
            .collect();
        groups.sort_unstable_by_key(|g| g[0]);
        groups
    }

    /// Pairs (position here, position there) of rows whose features are equal; each row here at most once.
    pub fn overlap(&self, other: &Self) -> Vec<(usize, usize)> {
        let mut there: HashMap<[u8; 16], usize> = HashMap::with_capacity(self.rows);
        // The smaller side would do as well; this one keeps the order of rows here.
        for (i, &h) in self.hashes.iter().enumerate() {
            there.entry(h).or_insert(i);
        }
        let mut found: HashMap<[u8; 16], usize> = HashMap::new();
        for (j, h) in other.hashes.iter().enumerate() {
            if there.contains_key(h) {
                found.entry(*h).or_insert(j);
            }
        }
        self.hashes.iter().enumerate().filter_map(|(i, h)| found.get(h).map(|&j| (i, j))).collect()
    }
}
