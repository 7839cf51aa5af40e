//! Rows for training: all of them in memory where they fit, else read batch by batch.

use netproof_data::{Dataset, LabelKind, Labels};
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;

use crate::batch::{Batch, Targets};
use crate::error::TrainError;

/// Elements of the features that are read at once while a data set is taken into memory.
const PIECE: usize = 1 << 22;

/// A data set as the loop reads it.
pub(crate) struct Rows {
    data: Dataset,
    /// Shape of a row as the network wants it.
    shape: Vec<usize>,
    classes: usize,
    held: Option<Held>,
}

/// All rows in memory.
struct Held {
    features: Vec<f32>,
    targets: Targets,
    row_ids: Vec<u64>,
    groups: Vec<Vec<Option<usize>>>,
}

impl Rows {
    /// Takes the rows into memory where the features need no more than `memory_bytes`.
    /// # Errors
    /// The data cannot be read, a feature is missing or infinite, or there are no labels.
    pub(crate) fn new(data: Dataset, shape: Vec<usize>, classes: usize, memory_bytes: u64) -> Result<Self, TrainError> {
        if data.is_empty() {
            return Err(TrainError::Mismatch { message: "the data has no rows to train on".to_owned() });
        }
        if *data.label_kind() == LabelKind::None {
            return Err(TrainError::Mismatch { message: "the data has no labels to learn from".to_owned() });
        }
        let width = shape.iter().product::<usize>();
        let bytes = (data.len() as u64).saturating_mul(width as u64 * 4);
        let mut rows = Self { data, shape, classes, held: None };
        if bytes <= memory_bytes {
            rows.hold(width)?;
        }
        Ok(rows)
    }

    fn hold(&mut self, width: usize) -> Result<(), TrainError> {
        let n = self.data.len();
        let mut held: Option<Held> = None;
        for batch in self.data.batches((PIECE / width.max(1)).clamp(1, n)) {
            let batch = self.checked(batch?)?;
            let values = batch.features.as_f32().unwrap_or_default();
            let Some(held) = &mut held else {
                let mut features = Vec::with_capacity(n * width);
                features.extend_from_slice(values);
                held = Some(Held { features, targets: batch.targets, row_ids: batch.row_ids, groups: batch.groups });
                continue;
            };
            held.features.extend_from_slice(values);
            match (&mut held.targets, batch.targets) {
                (Targets::Classes(all), Targets::Classes(more)) => all.extend(more),
                (Targets::Numbers(all), Targets::Numbers(more)) => all.extend(more),
                _ => {}
            }
            held.row_ids.extend(batch.row_ids);
            held.groups.iter_mut().zip(batch.groups).for_each(|(all, more)| all.extend(more));
        }
        self.held = held;
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }

    /// The batches from the `skip`-th on, of the rows in order or, with a seed, in the order that belongs to the epoch.
    pub(crate) fn batches(
        &self,
        size: usize,
        shuffle: Option<(u64, u64)>,
        skip: usize,
    ) -> Result<Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_>, TrainError> {
        let n = self.len();
        let order = |(seed, epoch)| Rng::named(seed, &format!("order/{epoch}")).permutation(n);
        let order: Vec<usize> = shuffle.map_or_else(|| (0..n).collect(), order);
        let from = skip.saturating_mul(size).min(n);
        if self.held.is_some() {
            let count = n.div_ceil(size);
            return Ok(Box::new((skip..count).map(move |b| self.gather(&order[b * size..((b + 1) * size).min(n)]))));
        }
        let checked = |batch: Result<netproof_data::Batch, _>| self.checked(batch?);
        let Some((seed, epoch)) = shuffle else {
            return Ok(Box::new(self.data.batches(size).skip(skip).map(checked)));
        };
        match self.data.batches_in(&order[from..], size) {
            Ok(batches) => Ok(Box::new(batches.map(checked))),
            // Random access to a large packed file is refused; the data set then knows an order that it can read.
            Err(_) => Ok(Box::new(self.data.shuffled(size, seed, epoch)?.skip(skip).map(checked))),
        }
    }

    fn gather(&self, positions: &[usize]) -> Result<Batch, TrainError> {
        let Some(held) = &self.held else {
            return Err(TrainError::Mismatch { message: "rows are not in memory".to_owned() });
        };
        let width = self.shape.iter().product::<usize>();
        let mut features = Vec::with_capacity(positions.len() * width);
        for &p in positions {
            features.extend_from_slice(&held.features[p * width..(p + 1) * width]);
        }
        let targets = match &held.targets {
            Targets::Classes(v) => Targets::Classes(positions.iter().map(|&p| v[p]).collect()),
            Targets::Numbers(v) => Targets::Numbers(positions.iter().map(|&p| v[p]).collect()),
            soft @ Targets::Soft { .. } => soft.clone(),
        };
        let groups = held.groups.iter().map(|g| positions.iter().map(|&p| g[p]).collect()).collect();
        Ok(Batch {
            row_ids: positions.iter().map(|&p| held.row_ids[p]).collect(),
            features: Tensor::f32(self.batch_shape(positions.len()), features)?,
            targets,
            weights: None,
            groups,
            classes: self.classes,
        })
    }

    fn batch_shape(&self, rows: usize) -> Vec<usize> {
        std::iter::once(rows).chain(self.shape.iter().copied()).collect()
    }

    /// A batch as it was read, laid out for the network; refused where it holds what cannot be learnt from.
    fn checked(&self, batch: netproof_data::Batch) -> Result<Batch, TrainError> {
        let (n, width) = (batch.len(), batch.features.row_len());
        let values = batch.features.as_f32().unwrap_or_default();
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            let names = self.data.feature_names();
            let own = names.and_then(|n| n.get(at % width)).map(|n| format!("`{n}`"));
            return Err(TrainError::Feature {
                row: batch.row_ids[at / width],
                feature: own.unwrap_or_else(|| (at % width).to_string()),
                value: values[at],
            });
        }
        let targets = match batch.labels {
            Labels::Classes(v) => Targets::Classes(v),
            Labels::Targets(v) => {
                if let Some(at) = v.iter().position(|v| !v.is_finite()) {
                    let (row, feature, value) = (batch.row_ids[at], "(the label)".to_owned(), v[at]);
                    return Err(TrainError::Feature { row, feature, value });
                }
                Targets::Numbers(v)
            }
            Labels::None => {
                return Err(TrainError::Mismatch { message: "the data has no labels to learn from".to_owned() });
            }
        };
        Ok(Batch {
            row_ids: batch.row_ids,
            features: batch.features.reshape(self.batch_shape(n))?,
            targets,
            weights: None,
            groups: batch.groups,
            classes: self.classes,
        })
    }
}

#[cfg(test)]
mod tests {
    use netproof_data::OpenOptions;

    use super::*;

    fn rows(n: usize, memory: u64) -> Rows {
        let x = Tensor::f32(vec![n, 2], (0..2 * n).map(|i| i as f32).collect()).unwrap();
        let y = Labels::Classes((0..n).map(|i| i % 3).collect());
        let data = Dataset::from_memory(x, y, Vec::new(), &OpenOptions::default()).unwrap();
        Rows::new(data, vec![2, 1], 3, memory).unwrap()
    }

    #[test]
    fn in_memory_or_not_and_from_anywhere_the_batches_are_the_same() {
        let (held, read) = (rows(50, 1 << 20), rows(50, 10));
        assert!(held.held.is_some() && read.held.is_none());
        for shuffle in [None, Some((3, 0)), Some((3, 1))] {
            let all =
                |r: &Rows, skip| -> Vec<Batch> { r.batches(8, shuffle, skip).unwrap().map(Result::unwrap).collect() };
            let whole = all(&held, 0);
            assert_eq!(whole.len(), 7);
            assert_eq!(whole, all(&read, 0));
            for skip in [1, 6, 7] {
                assert_eq!(whole[skip..], all(&held, skip));
                assert_eq!(whole[skip..], all(&read, skip));
            }
            let mut seen: Vec<u64> = whole.iter().flat_map(|b| b.row_ids.clone()).collect();
            assert_eq!(seen.is_sorted(), shuffle.is_none());
            seen.sort_unstable();
            assert_eq!(seen, (0..50).collect::<Vec<_>>());
            for (row, id) in whole[2].row_ids.iter().enumerate() {
                assert_eq!(whole[2].features.as_f32().unwrap()[2 * row], 2.0 * *id as f32);
                assert_eq!(whole[2].targets.row(row), crate::Target::Class(*id as usize % 3));
            }
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let x = Tensor::f32(vec![3, 2], vec![0.0, 1.0, 2.0, f32::NAN, 4.0, 5.0]).unwrap();
        let data =
            Dataset::from_memory(x, Labels::Classes(vec![0, 1, 0]), Vec::new(), &OpenOptions::default()).unwrap();
        for memory in [1 << 20, 0] {
            let error = Rows::new(data.clone(), vec![2], 2, memory)
                .and_then(|r| r.batches(3, None, 0).and_then(|mut b| b.next().unwrap().map(|_| ())))
                .err()
                .unwrap()
                .to_string();
            assert!(error.starts_with("row 1: feature 1 is NaN"), "{error}");
        }
    }
}
