use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use netproof_stats::rng::Rng;
use netproof_tensor::{DType, Elements, Tensor};

use crate::batch::{Annotations, Batch, ContentHasher, Labels};
use crate::batches::{Batches, BlockOrder, Gather, Mode, Order};
use crate::plan::Plan;
use crate::schema::{Column, Group, LabelKind};
use crate::source::{Array, Field, Layout, MemorySource, Source, Values};
use crate::{DataError, OnBadRow, OpenOptions, open};

/// Bad rows that are kept with their reason; all are counted.
const LISTED: usize = 1000;
/// Rows of a chunk during the scan at opening.
const SCAN_ROWS: u64 = 8192;
/// Forward passes over a packed file that a reading out of order may take.
const MAX_PASSES: usize = 4;

/// A row that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Row number in the source, from 0.
    pub row: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// Features, labels and groups of a file or folder, read in batches.
///
/// # Guarantees
/// Rows keep the order and the numbers of the source. Batches are the same at any thread count. Reading forward holds one
/// batch and the open pages or files; reading out of order holds at most [`crate::Limits::memory_bytes`] more. Cloning is
/// cheap.
#[derive(Clone)]
pub struct Dataset {
    pub(crate) inner: Arc<Inner>,
    view: View,
    /// Rows of this view in memory, where the whole source does not fit.
    own: Arc<OnceLock<Arc<Memory>>>,
    hash: Arc<OnceLock<String>>,
}

pub(crate) struct Inner {
    pub(crate) path: PathBuf,
    pub(crate) source: Box<dyn Source>,
    pub(crate) plan: Plan,
    options: OpenOptions,
    /// Row numbers left out, ascending.
    bad: Vec<u64>,
    listed: Vec<BadRow>,
    whole: OnceLock<Arc<Memory>>,
}

#[derive(Clone)]
enum View {
    /// The first rows of the source that are not bad.
    First(usize),
    /// Row numbers, and whether they ascend strictly.
    Rows(Arc<Vec<u64>>, bool),
}

/// Rows as stored, found by their number.
pub(crate) struct Memory {
    pub(crate) ids: Vec<u64>,
    pub(crate) arrays: Vec<Array>,
}

impl std::fmt::Debug for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataset")
            .field("path", &self.inner.path)
            .field("rows", &self.len())
            .field("feature_shape", &self.feature_shape())
            .field("labels", self.label_kind())
            .finish_non_exhaustive()
    }
}

impl Dataset {
    /// Opens a data set.
    ///
    /// `spec` is a `.parquet`, `.csv`, `.csv.gz`, `.npz` or `.npy` file, a pair `images:labels` of IDX or NPY files (also
    /// gzip), or a folder of images. The content decides what a file is, not its name.
    ///
    /// Labels, groups and categories are read once to learn their values; CSV files are read once more before, to learn
    /// their columns.
    /// # Errors
    /// The file is none of these, damaged or over a limit; a column is missing; or a row is bad and not to be skipped.
    pub fn open(spec: &str, options: &OpenOptions) -> Result<Self, DataError> {
        let (path, source) = open::source(spec, options)?;
        Self::from_source(path, source, options)
    }

    /// A data set from values in memory.
    ///
    /// # Shapes
    /// `features` is `[rows, …]`; labels and groups have one entry per row. Options apply as for an archive with the
    /// arrays `x` and `y` and one array per group; all groups are used.
    /// # Errors
    /// The numbers of rows differ, or the features are text.
    pub fn from_memory(
        features: Tensor,
        labels: Labels,
        groups: Vec<(String, Vec<String>)>,
        options: &OpenOptions,
    ) -> Result<Self, DataError> {
        let path = PathBuf::from("<memory>");
        let rows = features.rows();
        let (dtype, shape, elements) = features.into_parts();
        let values = match elements {
            Elements::Float(v) => Values::Float(v),
            Elements::Int(v) if dtype == DType::U8 => Values::U8(v.into_iter().map(|x| x as u8).collect()),
            Elements::Int(v) => Values::Int(v),
            Elements::Bool(v) => Values::Bool(v),
            Elements::Text(_) => return Err(DataError::unsupported(&path, "x", "features are text")),
        };
        let mut named = vec![("x".to_string(), shape.get(1..).unwrap_or_default().to_vec(), values)];
        match labels {
            Labels::Classes(v) => named.push((
                "y".into(),
                Vec::new(),
                Values::Int(v.into_iter().map(|c| i64::try_from(c).unwrap_or(-1)).collect()),
            )),
            Labels::Targets(v) => named.push(("y".into(), Vec::new(), Values::Float(v))),
            Labels::None => {}
        }
        let mut options = options.clone();
        for (name, values) in groups {
            options.groups.push(name.clone());
            named.push((name, Vec::new(), Values::Text(values)));
        }
        let (mut fields, mut arrays) = (Vec::new(), Vec::new());
        for (name, shape, values) in named {
            let array = Array::new(values);
            let width: usize = shape.iter().product();
            if array.len() != rows * width {
                return Err(DataError::RowCount {
                    path,
                    name,
                    rows: array.len() as u64,
                    reference: "x".into(),
                    expected: rows as u64,
                });
            }
            fields.push(Field { name, kind: array.kind(), shape });
            arrays.push(array);
        }
        let source = MemorySource { layout: Layout::Arrays, fields, arrays: Arc::new(arrays), rows };
        Self::from_source(path, Box::new(source), &options)
    }

    fn from_source(path: PathBuf, source: Box<dyn Source>, options: &OpenOptions) -> Result<Self, DataError> {
        let mut plan = Plan::new(&*source, options, &path)?;
        let (mut bad, mut listed) = (Vec::new(), Vec::new());
        let skip = options.on_bad_row == OnBadRow::Skip;
        let slots = plan.scan_slots(skip && source.may_have_bad_rows());
        if !slots.is_empty() {
            let fields: Vec<usize> = slots.iter().map(|&s| plan.read[s]).collect();
            let row_bytes: u64 = fields.iter().map(|&f| source.fields()[f].row_bytes()).sum();
            let step = ((8 << 20) / row_bytes.max(1)).clamp(1, SCAN_ROWS) as usize;
            let mut cursor = source.cursor(&fields)?;
            let mut start = 0u64;
            loop {
                let chunk = cursor.read(step)?;
                if chunk.rows == 0 {
                    break;
                }
                let mut found = plan.note(&chunk, &slots, options, &path)?;
                found.extend(chunk.bad);
                found.sort();
                found.dedup_by_key(|b| b.0);
                for (row, reason) in found {
                    let row = start + row as u64;
                    if !skip {
                        return Err(DataError::BadRow { path, row, reason });
                    }
                    if bad.len() >= options.limits.bad_rows {
                        let BadRow { row, reason } = listed.swap_remove(0);
                        return Err(DataError::TooManyBadRows { path, limit: options.limits.bad_rows, row, reason });
                    }
                    bad.push(row);
                    if listed.len() < LISTED {
                        listed.push(BadRow { row, reason });
                    }
                }
                start += chunk.rows as u64;
            }
            if start != source.rows() {
                let reason = format!("{start} rows can be read, {} are claimed", source.rows());
                return Err(DataError::malformed(&path, "rows", reason));
            }
        }
        if let Some(first) = listed.first()
            && bad.len() as u64 == source.rows()
        {
            let reason = format!("none of the {} rows can be read; row {}: {}", bad.len(), first.row, first.reason);
            return Err(DataError::malformed(&path, "rows", reason));
        }
        plan.finish(options, &path)?;
        let rows = usize::try_from(source.rows()).unwrap_or(usize::MAX) - bad.len();
        let options = options.clone();
        let inner = Inner { path, source, plan, options, bad, listed, whole: OnceLock::new() };
        Ok(Self::with_view(Arc::new(inner), View::First(rows)))
    }

    fn with_view(inner: Arc<Inner>, view: View) -> Self {
        Self { inner, view, own: Arc::default(), hash: Arc::default() }
    }

    /// Where the data came from; the first file of a pair.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match &self.view {
            View::First(n) => *n,
            View::Rows(ids, _) => ids.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape of one row of features: `[channels, height, width]`, or `[columns]`.
    pub fn feature_shape(&self) -> &[usize] {
        &self.inner.plan.feature_shape
    }

    /// Names of the elements of a row: columns of a table, `column=value` for one-hot, or the archive's `feature_names`.
    pub fn feature_names(&self) -> Option<&[String]> {
        self.inner.plan.feature_names.as_deref()
    }

    /// What the labels are.
    pub fn label_kind(&self) -> &LabelKind {
        &self.inner.plan.label_kind
    }

    /// The group columns with their values, in the order of the options.
    pub fn groups(&self) -> &[Group] {
        &self.inner.plan.groups
    }

    /// All columns of the table, or arrays of the archive that have one entry per row.
    pub fn columns(&self) -> &[Column] {
        &self.inner.plan.columns
    }

    /// The rows that were left out, with reasons; the first thousand.
    pub fn bad_rows(&self) -> &[BadRow] {
        &self.inner.listed
    }

    /// How many rows were left out.
    pub fn bad_row_count(&self) -> usize {
        self.inner.bad.len()
    }

    /// The first `limit` rows.
    #[must_use]
    pub fn take(&self, limit: usize) -> Self {
        let view = match &self.view {
            View::First(n) => View::First(limit.min(*n)),
            View::Rows(ids, _) if limit >= ids.len() => self.view.clone(),
            View::Rows(ids, ascending) => View::Rows(Arc::new(ids[..limit].to_vec()), *ascending),
        };
        Self::with_view(self.inner.clone(), view)
    }

    /// The given rows (positions in this data set, not row numbers of the source), in the given order.
    /// # Errors
    /// A position is beyond the end.
    pub fn select(&self, rows: &[usize]) -> Result<Self, DataError> {
        self.check_positions(rows)?;
        let ids: Vec<u64> = rows.iter().map(|&p| self.row_id(p)).collect();
        let ascending = ids.is_sorted_by(|a, b| a < b);
        Ok(Self::with_view(self.inner.clone(), View::Rows(Arc::new(ids), ascending)))
    }

    /// The rows in order, `batch_size` at a time (at least 1); the last batch may be smaller.
    ///
    /// The iterator ends after its first error.
    pub fn batches(&self, batch_size: usize) -> Batches {
        let order = Order::Range(0, self.len());
        let mode = match (&self.view, self.inner.whole.get()) {
            (_, Some(memory)) => Mode::Memory(memory.clone()),
            (View::First(_) | View::Rows(_, true), None) => Mode::Forward(None),
            _ => match self.random_access(self.len(), batch_size) {
                Ok(mode) => mode,
                Err(e) => Mode::Failed(Some(e)),
            },
        };
        Batches { data: self.clone(), order, batch: batch_size.max(1), mode }
    }

    /// The given rows (positions in this data set) in the given order; a row may come more than once.
    /// # Errors
    /// A position is beyond the end; or the order needs random access to a packed file that is too large to hold.
    pub fn batches_in(&self, order: &[usize], batch_size: usize) -> Result<Batches, DataError> {
        self.select(order)?.sharing(self).batches(batch_size).started()
    }

    /// All rows in an order that depends on `seed`, `epoch` and the limits only.
    ///
    /// Data that fits [`crate::Limits::memory_bytes`], and images, are shuffled uniformly. A larger table is shuffled in
    /// two levels: blocks of rows at random, then rows at random within as many blocks as fit the limit.
    /// # Errors
    /// See [`Dataset::batches_in`].
    pub fn shuffled(&self, batch_size: usize, seed: u64, epoch: u64) -> Result<Batches, DataError> {
        let mut rng = Rng::named(seed, &format!("shuffle/{epoch}"));
        let batch = batch_size.max(1);
        let mode = self.random_access(self.len(), batch)?;
        let blocks = match &mode {
            Mode::Window { size, .. } => self.inner.source.block_rows().min(size / 16).max(1),
            _ => 1,
        };
        let order = if blocks == 1 {
            Order::List(rng.permutation(self.len()), 0)
        } else {
            let Mode::Window { size, .. } = mode else { unreachable!("only windows have blocks") };
            let permuted = rng.permutation(self.len().div_ceil(blocks));
            Order::Blocks(Box::new(BlockOrder {
                blocks: permuted.into_iter(),
                block: blocks,
                rows: self.len(),
                window: size,
                ready: Vec::new().into_iter(),
                rng,
            }))
        };
        Ok(Batches { data: self.clone(), order, batch, mode })
    }

    /// All rows as one batch.
    /// # Errors
    /// The features take more than [`crate::Limits::memory_bytes`].
    pub fn load(&self) -> Result<Batch, DataError> {
        let bytes = (self.len() as u64).saturating_mul(self.inner.plan.width() as u64 * 4);
        let limit = self.inner.options.limits.memory_bytes;
        if bytes > limit {
            return Err(DataError::limit(self.path(), "all features, bytes", bytes, limit, "memory_bytes"));
        }
        match self.batches(self.len().max(1)).next() {
            Some(batch) => batch,
            None => {
                let arrays = self.empty_arrays();
                self.inner.plan.batch(&arrays, Vec::new(), &self.inner.path)
            }
        }
    }

    /// Labels of all rows and, for each group column, the index of each row's value. Features are not read.
    /// # Errors
    /// The source cannot be read.
    pub fn annotations(&self) -> Result<Annotations, DataError> {
        let slots = self.inner.plan.annotation_slots();
        let ids: Vec<u64> = (0..self.len()).map(|p| self.row_id(p)).collect();
        let mut arrays = self.empty_arrays();
        if !slots.is_empty() {
            let mut sorted = ids.clone();
            sorted.sort_unstable();
            sorted.dedup();
            let loaded = Gather::open(&self.inner, &slots)?.rows(&sorted)?;
            let found: Vec<usize> = ids.iter().map(|id| sorted.binary_search(id).unwrap_or(0)).collect();
            for (&slot, array) in slots.iter().zip(loaded) {
                arrays[slot] = array.pick(&found, 1);
            }
        }
        self.inner.plan.annotate(&arrays, &ids, &self.inner.path)
    }

    /// SHA-256 over shape, class and group names, features, labels and groups of all rows in order, as 64 hexadecimal
    /// digits. The format the data was stored in makes no difference. Computed once, in one pass.
    /// # Errors
    /// The source cannot be read.
    pub fn content_hash(&self) -> Result<String, DataError> {
        if let Some(hash) = self.hash.get() {
            return Ok(hash.clone());
        }
        let mut hasher = self.hasher();
        let width = self.inner.plan.width().max(1);
        for batch in self.batches(((1 << 20) / width).clamp(1, 4096)) {
            hasher.update(&batch?);
        }
        Ok(self.hash.get_or_init(|| hasher.finish()).clone())
    }

    /// A hasher that, fed with all batches in order, gives [`Dataset::content_hash`] without another pass.
    pub fn hasher(&self) -> ContentHasher {
        let header = (self.feature_shape(), self.label_kind(), self.groups());
        ContentHasher::new(&format!("netproof-data 1 {header:?}"))
    }

    /// Row number in the source.
    pub(crate) fn row_id(&self, position: usize) -> u64 {
        match &self.view {
            View::Rows(ids, _) => ids[position],
            View::First(_) => {
                // Before the row come as many bad ones as have a rank-adjusted number up to the position.
                let before = partition_index(&self.inner.bad, position as u64);
                position as u64 + before as u64
            }
        }
    }

    fn check_positions(&self, rows: &[usize]) -> Result<(), DataError> {
        match rows.iter().find(|&&r| r >= self.len()) {
            Some(&row) => Err(DataError::Row { row, rows: self.len() }),
            None => Ok(()),
        }
    }

    fn empty_arrays(&self) -> Vec<Array> {
        let fields = self.inner.source.fields();
        self.inner.plan.read.iter().map(|&f| Array::empty(fields[f].kind)).collect()
    }

    /// Keeps what a data set over the same source has already loaded.
    fn sharing(self, other: &Self) -> Self {
        match other.own.get() {
            Some(memory) if self.own.set(memory.clone()).is_ok() => self,
            _ => self,
        }
    }

    /// How rows are read out of order.
    fn random_access(&self, rows: usize, batch: usize) -> Result<Mode, DataError> {
        if let Some(memory) = self.inner.whole.get().or(self.own.get()) {
            return Ok(Mode::Memory(memory.clone()));
        }
        let source = &self.inner.source;
        let limit = self.inner.options.limits.memory_bytes;
        let row_bytes = self.inner.plan.row_bytes(source.fields()).max(1);
        let good = source.rows() - self.inner.bad.len() as u64;
        if good.saturating_mul(row_bytes) <= limit {
            let everything = Self::with_view(self.inner.clone(), View::First(good as usize));
            let ids = (0..good as usize).map(|p| everything.row_id(p)).collect();
            let memory = Arc::new(self.inner.load(ids)?);
            return Ok(Mode::Memory(self.inner.whole.get_or_init(|| memory).clone()));
        }
        if (rows as u64).saturating_mul(row_bytes) <= limit {
            let mut ids: Vec<u64> = (0..self.len()).map(|p| self.row_id(p)).collect();
            ids.sort_unstable();
            ids.dedup();
            let memory = Arc::new(self.inner.load(ids)?);
            return Ok(Mode::Memory(self.own.get_or_init(|| memory).clone()));
        }
        let batch = batch.max(1);
        let window = usize::try_from(limit / row_bytes).unwrap_or(usize::MAX);
        let window = (window / batch).max(1).saturating_mul(batch);
        if !source.skips_cheaply() && rows.div_ceil(window) > MAX_PASSES {
            let bytes = (rows as u64).saturating_mul(row_bytes);
            return Err(DataError::Order { path: self.inner.path.clone(), rows: rows as u64, bytes, limit });
        }
        let empty = Memory { ids: Vec::new(), arrays: Vec::new() };
        Ok(Mode::Window { size: window, positions: Vec::new(), at: 0, memory: empty })
    }
}

/// For ascending `bad`, how many of them come before the good row with this position.
fn partition_index(bad: &[u64], position: u64) -> usize {
    let (mut low, mut high) = (0, bad.len());
    while low < high {
        let middle = (low + high) / 2;
        if bad[middle] - middle as u64 <= position { low = middle + 1 } else { high = middle }
    }
    low
}

impl Inner {
    pub(crate) fn load(&self, ids: Vec<u64>) -> Result<Memory, DataError> {
        let slots: Vec<usize> = (0..self.plan.read.len()).collect();
        let mut gather = Gather::open(self, &slots)?;
        let mut arrays = Vec::new();
        for field in self.plan.read.iter().map(|&f| &self.source.fields()[f]) {
            let mut array = Array::empty(field.kind);
            array.reserve(ids.len() * field.width());
            arrays.push(array);
        }
        // Text is larger than its estimate where values are long, so what is held is measured on the way.
        let limit = self.options.limits.memory_bytes.saturating_mul(2);
        for part in ids.chunks(SCAN_ROWS as usize) {
            let more = gather.rows(part)?;
            arrays.iter_mut().zip(more).for_each(|(all, more)| all.append(more));
            let held: u64 = arrays.iter().map(Array::bytes).sum();
            if held > limit {
                return Err(DataError::limit(&self.path, "rows held at once, bytes", held, limit, "memory_bytes"));
            }
        }
        Ok(Memory { ids, arrays })
    }
}

impl Memory {
    pub(crate) fn pick(&self, ids: &[u64], widths: &[usize]) -> Vec<Array> {
        // Where no row is missing, the place of a row is its number.
        let dense = self.ids.last().is_some_and(|&last| last + 1 == self.ids.len() as u64);
        let place = |id: &u64| if dense { *id as usize } else { self.ids.binary_search(id).unwrap_or(0) };
        let rows: Vec<usize> = ids.iter().map(place).collect();
        self.arrays.iter().zip(widths).map(|(array, &width)| array.pick(&rows, width)).collect()
    }
}
