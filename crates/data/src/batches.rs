//! Reading in order and out of order.

use std::path::PathBuf;
use std::sync::Arc;

use crate::dataset::{Dataset, Inner, Memory};
use crate::source::{Array, Cursor, Kind};
use crate::{Batch, DataError};
use netproof_stats::rng::Rng;

/// A cursor that reads ascending row numbers.
pub(crate) struct Gather {
    cursor: Box<dyn Cursor>,
    at: u64,
    path: PathBuf,
    kinds: Vec<Kind>,
}

impl Gather {
    pub(crate) fn open(inner: &Inner, slots: &[usize]) -> Result<Self, DataError> {
        let fields: Vec<usize> = slots.iter().map(|&s| inner.plan.read[s]).collect();
        let kinds = fields.iter().map(|&f| inner.source.fields()[f].kind).collect();
        Ok(Self { cursor: inner.source.cursor(&fields)?, at: 0, path: inner.path.clone(), kinds })
    }

    pub(crate) fn rows(&mut self, ids: &[u64]) -> Result<Vec<Array>, DataError> {
        let mut arrays: Vec<Array> = self.kinds.iter().map(|&k| Array::empty(k)).collect();
        let mut start = 0;
        while let Some(&first) = ids.get(start) {
            let run = ids[start..].iter().enumerate().take_while(|&(i, &id)| id == first + i as u64).count();
            if first > self.at {
                self.cursor.skip(first - self.at)?;
            }
            let chunk = self.cursor.read(run)?;
            if let Some((row, reason)) = chunk.bad.into_iter().next() {
                return Err(DataError::BadRow { path: self.path.clone(), row: first + row as u64, reason });
            }
            if chunk.rows != run {
                let reason =
                    format!("the file ends after row {}; it is shorter than at opening", first + chunk.rows as u64);
                return Err(DataError::malformed(&self.path, "rows", reason));
            }
            arrays.iter_mut().zip(chunk.arrays).for_each(|(all, more)| all.append(more));
            self.at = first + run as u64;
            start += run;
        }
        Ok(arrays)
    }
}

pub(crate) enum Order {
    Range(usize, usize),
    List(Vec<usize>, usize),
    Blocks(Box<BlockOrder>),
}

/// Blocks in random order, and rows in random order within a window of blocks.
pub(crate) struct BlockOrder {
    pub(crate) blocks: std::vec::IntoIter<usize>,
    pub(crate) block: usize,
    pub(crate) rows: usize,
    pub(crate) window: usize,
    pub(crate) ready: std::vec::IntoIter<usize>,
    pub(crate) rng: Rng,
}

impl Order {
    /// The next positions, at most `n`.
    fn next(&mut self, n: usize) -> Vec<usize> {
        match self {
            Self::Range(at, end) => {
                let start = *at;
                *at = start.saturating_add(n).min(*end);
                (start..*at).collect()
            }
            Self::List(list, at) => {
                let end = at.saturating_add(n).min(list.len());
                let positions = list[*at..end].to_vec();
                *at = end;
                positions
            }
            Self::Blocks(order) => {
                let mut positions: Vec<usize> = order.ready.by_ref().take(n).collect();
                while positions.len() < n && order.fill() {
                    let missing = n - positions.len();
                    positions.extend(order.ready.by_ref().take(missing));
                }
                positions
            }
        }
    }
}

impl BlockOrder {
    fn fill(&mut self) -> bool {
        let mut rows = Vec::new();
        for block in self.blocks.by_ref().take((self.window / self.block).max(1)) {
            rows.extend(block * self.block..((block + 1) * self.block).min(self.rows));
        }
        self.rng.shuffle(&mut rows);
        let any = !rows.is_empty();
        self.ready = rows.into_iter();
        any
    }
}

pub(crate) enum Mode {
    Memory(Arc<Memory>),
    Forward(Option<Gather>),
    Window { size: usize, positions: Vec<usize>, at: usize, memory: Memory },
    Failed(Option<DataError>),
}

/// Batches of a data set; ends after the first error.
pub struct Batches {
    pub(crate) data: Dataset,
    pub(crate) order: Order,
    pub(crate) batch: usize,
    pub(crate) mode: Mode,
}

impl Batches {
    /// Turns a failure to start into an error at once.
    pub(crate) fn started(self) -> Result<Self, DataError> {
        match self.mode {
            Mode::Failed(Some(e)) => Err(e),
            _ => Ok(self),
        }
    }

    fn advance(&mut self) -> Result<Option<Batch>, DataError> {
        let inner = self.data.inner.clone();
        let widths: Vec<usize> = inner.plan.read.iter().map(|&f| inner.source.fields()[f].width()).collect();
        let positions = match &mut self.mode {
            Mode::Failed(e) => return e.take().map_or(Ok(None), Err),
            Mode::Window { size, positions, at, memory } => {
                if *at == positions.len() {
                    (*positions, *at) = (self.order.next(*size), 0);
                    let mut ids: Vec<u64> = positions.iter().map(|&p| self.data.row_id(p)).collect();
                    ids.sort_unstable();
                    ids.dedup();
                    // The old window goes before the new one comes.
                    *memory = Memory { ids: Vec::new(), arrays: Vec::new() };
                    *memory = inner.load(ids)?;
                }
                let end = (*at + self.batch).min(positions.len());
                let next = positions[*at..end].to_vec();
                *at = end;
                next
            }
            _ => self.order.next(self.batch),
        };
        if positions.is_empty() {
            return Ok(None);
        }
        let ids: Vec<u64> = positions.iter().map(|&p| self.data.row_id(p)).collect();
        let arrays = match &mut self.mode {
            Mode::Memory(memory) => memory.pick(&ids, &widths),
            Mode::Window { memory, .. } => memory.pick(&ids, &widths),
            Mode::Forward(gather) => {
                let mut open = match gather.take() {
                    Some(open) => open,
                    None => Gather::open(&inner, &(0..widths.len()).collect::<Vec<_>>())?,
                };
                let arrays = open.rows(&ids)?;
                *gather = Some(open);
                arrays
            }
            Mode::Failed(_) => return Ok(None),
        };
        inner.plan.batch(&arrays, ids, &inner.path).map(Some)
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.mode = Mode::Failed(None);
        }
        next.transpose()
    }
}
