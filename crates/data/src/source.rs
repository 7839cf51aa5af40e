//! What every format becomes: named fields, rows in file order, read forward by a cursor.

use std::sync::Arc;

use crate::DataError;

/// What the elements of a field are, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    U8,
    Float,
    Int,
    Bool,
    Text,
}

impl Kind {
    /// Bytes that one element takes in memory; a guess for text.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::U8 | Self::Bool => 1,
            Self::Float => 4,
            Self::Int => 8,
            Self::Text => 48,
        }
    }
}

/// A column of a table or an array of rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Shape of one row; empty for a scalar.
    pub(crate) shape: Vec<usize>,
}

impl Field {
    pub(crate) fn width(&self) -> usize {
        self.shape.iter().product()
    }

    pub(crate) fn row_bytes(&self) -> u64 {
        self.width() as u64 * self.kind.bytes()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    U8(Vec<u8>),
    Float(Vec<f32>),
    Int(Vec<i64>),
    Bool(Vec<bool>),
    Text(Vec<String>),
}

/// Some rows of a field. A missing float is NaN; of other kinds, `missing` is empty or has one entry per element.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) values: Values,
    pub(crate) missing: Vec<bool>,
}

impl Array {
    pub(crate) fn new(values: Values) -> Self {
        Self { values, missing: Vec::new() }
    }

    pub(crate) fn empty(kind: Kind) -> Self {
        Self::new(match kind {
            Kind::U8 => Values::U8(Vec::new()),
            Kind::Float => Values::Float(Vec::new()),
            Kind::Int => Values::Int(Vec::new()),
            Kind::Bool => Values::Bool(Vec::new()),
            Kind::Text => Values::Text(Vec::new()),
        })
    }

    /// Makes room for this many elements, so that growing takes no copy.
    pub(crate) fn reserve(&mut self, elements: usize) {
        match &mut self.values {
            Values::U8(v) => v.reserve_exact(elements),
            Values::Float(v) => v.reserve_exact(elements),
            Values::Int(v) => v.reserve_exact(elements),
            Values::Bool(v) => v.reserve_exact(elements),
            Values::Text(v) => v.reserve_exact(elements),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.values {
            Values::U8(_) => Kind::U8,
            Values::Float(_) => Kind::Float,
            Values::Int(_) => Kind::Int,
            Values::Bool(_) => Kind::Bool,
            Values::Text(_) => Kind::Text,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.values {
            Values::U8(v) => v.len(),
            Values::Float(v) => v.len(),
            Values::Int(v) => v.len(),
            Values::Bool(v) => v.len(),
            Values::Text(v) => v.len(),
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        let text = match &self.values {
            Values::Text(v) => v.iter().map(|s| s.capacity() as u64).sum(),
            _ => 0,
        };
        let element = if matches!(self.values, Values::Text(_)) { 24 } else { self.kind().bytes() };
        self.len() as u64 * element + text + self.missing.len() as u64
    }

    pub(crate) fn is_missing(&self, element: usize) -> bool {
        match &self.values {
            Values::Float(v) => v.get(element).is_none_or(|x| x.is_nan()),
            _ => self.missing.get(element).copied().unwrap_or(false),
        }
    }

    /// Puts the rows of `other`, which is of the same kind, after these.
    pub(crate) fn append(&mut self, other: Self) {
        let before = self.len();
        match (&mut self.values, other.values) {
            (Values::U8(a), Values::U8(b)) => join(a, b),
            (Values::Float(a), Values::Float(b)) => join(a, b),
            (Values::Int(a), Values::Int(b)) => join(a, b),
            (Values::Bool(a), Values::Bool(b)) => join(a, b),
            (Values::Text(a), Values::Text(b)) => join(a, b),
            _ => unreachable!("a cursor keeps the kind of its fields"),
        }
        if !self.missing.is_empty() || !other.missing.is_empty() {
            self.missing.resize(before, false);
            self.missing.extend(other.missing);
            self.missing.resize(self.len(), false);
        }
    }

    /// The given rows of `width` elements each, in the given order.
    pub(crate) fn pick(&self, rows: &[usize], width: usize) -> Self {
        let missing = if self.missing.is_empty() { Vec::new() } else { pick(&self.missing, rows, width) };
        let values = match &self.values {
            Values::U8(v) => Values::U8(pick(v, rows, width)),
            Values::Float(v) => Values::Float(pick(v, rows, width)),
            Values::Int(v) => Values::Int(pick(v, rows, width)),
            Values::Bool(v) => Values::Bool(pick(v, rows, width)),
            Values::Text(v) => Values::Text(pick(v, rows, width)),
        };
        Self { values, missing }
    }
}

fn join<T>(a: &mut Vec<T>, b: Vec<T>) {
    if a.capacity() == 0 {
        *a = b;
    } else {
        a.extend(b);
    }
}

fn pick<T: Clone>(v: &[T], rows: &[usize], width: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(rows.len() * width);
    for &row in rows {
        out.extend_from_slice(&v[row * width..(row + 1) * width]);
    }
    out
}

/// Consecutive rows of some fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chunk {
    pub(crate) rows: usize,
    /// One per field of the cursor, each with `rows × width` elements.
    pub(crate) arrays: Vec<Array>,
    /// Rows of this chunk that could not be read, ascending, with the reason. Their elements are fillers.
    pub(crate) bad: Vec<(usize, String)>,
}

/// What a source calls label and features unless it is told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Columns; the last one is the label, the others are features.
    Table,
    /// Arrays `x` and `y`.
    Arrays,
}

/// An opened file or folder whose rows can be read forward, as often as wanted.
pub(crate) trait Source: Send + Sync {
    fn layout(&self) -> Layout;
    fn fields(&self) -> &[Field];
    fn rows(&self) -> u64;
    /// Whether skipping forward costs much less than reading.
    fn skips_cheaply(&self) -> bool;
    /// Rows that are read together at little more cost than one of them.
    fn block_rows(&self) -> usize {
        1
    }
    /// Whether single rows can turn out bad although the source as a whole is sound.
    fn may_have_bad_rows(&self) -> bool;
    /// Names of the elements of the feature array, where the source knows them.
    fn feature_names(&self) -> Option<Vec<String>> {
        None
    }
    /// Columns that are there but cannot become numbers, with the reason.
    fn unusable(&self) -> &[(String, String)] {
        &[]
    }
    /// A cursor before row 0 that reads the given fields.
    fn cursor(&self, fields: &[usize]) -> Result<Box<dyn Cursor>, DataError>;
}

pub(crate) trait Cursor: Send {
    /// Moves over `rows` rows, or to the end where there are fewer.
    fn skip(&mut self, rows: u64) -> Result<(), DataError>;
    /// Reads up to `rows` rows; fewer only at the end of the source.
    fn read(&mut self, rows: usize) -> Result<Chunk, DataError>;
}

/// Rows held in memory.
pub(crate) struct MemorySource {
    pub(crate) layout: Layout,
    pub(crate) fields: Vec<Field>,
    pub(crate) arrays: Arc<Vec<Array>>,
    pub(crate) rows: usize,
}

impl Source for MemorySource {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn rows(&self) -> u64 {
        self.rows as u64
    }

    fn skips_cheaply(&self) -> bool {
        true
    }

    fn may_have_bad_rows(&self) -> bool {
        false
    }

    fn cursor(&self, fields: &[usize]) -> Result<Box<dyn Cursor>, DataError> {
        let fields = fields.iter().map(|&f| (f, self.fields[f].width())).collect();
        Ok(Box::new(MemoryCursor { arrays: self.arrays.clone(), fields, at: 0, rows: self.rows }))
    }
}

struct MemoryCursor {
    arrays: Arc<Vec<Array>>,
    fields: Vec<(usize, usize)>,
    at: usize,
    rows: usize,
}

impl Cursor for MemoryCursor {
    fn skip(&mut self, rows: u64) -> Result<(), DataError> {
        self.at = usize::try_from(rows).map_or(self.rows, |r| self.at.saturating_add(r).min(self.rows));
        Ok(())
    }

    fn read(&mut self, rows: usize) -> Result<Chunk, DataError> {
        let picked: Vec<usize> = (self.at..self.at.saturating_add(rows).min(self.rows)).collect();
        self.at += picked.len();
        let arrays = self.fields.iter().map(|&(field, width)| self.arrays[field].pick(&picked, width)).collect();
        Ok(Chunk { rows: picked.len(), arrays, bad: Vec::new() })
    }
}
