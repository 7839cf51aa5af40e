//! Parquet files, read row group by row group and page by page.
//!
//! Columns may be numbers, truth values, text, or lists of numbers of one length. A column of fixed-length bytes is a
//! tensor per row where the key-value metadata `netproof.shape.NAME` says so (`1,28,28`, with `netproof.type.NAME`
//! `float32` or `uint8`), as [`crate::ParquetWriter`] writes it. `netproof.shape.NAME` also gives lists their shape.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::DataType;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescriptor;
use rayon::prelude::*;

use crate::parquet_pages::{CheckedPages, PositionedFile, check_footer, check_pages, guarded};
use crate::source::{Array, Chunk, Cursor, Field, Kind, Layout, Source, Values};
use crate::{DataError, Limits};

/// How the values of a column become elements of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Decode {
    Plain,
    Unsigned32,
    Unsigned64,
    /// Decimal number: the integer times ten to this power.
    Decimal(i32),
    /// The same, the integer as big-endian bytes.
    DecimalBytes(i32),
    Half,
    FloatBytes,
    Bytes,
}

#[derive(Debug, Clone)]
struct Column {
    leaf: usize,
    decode: Decode,
    list: bool,
}

pub(crate) struct ParquetSource {
    path: PathBuf,
    file: PositionedFile,
    metadata: Arc<ParquetMetaData>,
    fields: Vec<Field>,
    columns: Vec<Column>,
    unusable: Vec<(String, String)>,
    rows: u64,
    limits: Limits,
    checked: Arc<Mutex<Checked>>,
}

/// Bytes that the pages of a column chunk need at once, by row group and leaf, for the chunks that have been checked.
type Checked = HashMap<(usize, usize), u64>;

impl ParquetSource {
    pub(crate) fn open(path: &Path, limits: Limits) -> Result<Self, DataError> {
        let file = PositionedFile::open(path)?;
        check_footer(&file, path, &limits)?;
        let metadata = guarded(path, "footer", || ParquetMetaDataReader::new().parse_and_finish(&file))?;
        let mut rows = 0u64;
        for group in metadata.row_groups() {
            let count = u64::try_from(group.num_rows()).ok();
            rows = count
                .and_then(|c| rows.checked_add(c))
                .filter(|&r| r < 1 << 48)
                .ok_or_else(|| DataError::malformed(path, "footer", "the number of rows makes no sense"))?;
        }
        let mut source = Self {
            path: path.into(),
            file,
            metadata: Arc::new(metadata),
            fields: Vec::new(),
            columns: Vec::new(),
            unusable: Vec::new(),
            rows,
            limits,
            checked: Arc::default(),
        };
        source.find_columns()?;
        Ok(source)
    }

    fn find_columns(&mut self) -> Result<(), DataError> {
        let schema = self.metadata.file_metadata().schema_descr_ptr();
        if schema.num_columns() > self.limits.columns {
            let (value, limit) = (schema.num_columns(), self.limits.columns);
            return Err(DataError::limit(&self.path, "number of columns", value, limit, "columns"));
        }
        let mut leaves_of_root = vec![0usize; schema.num_columns()];
        for leaf in 0..schema.num_columns() {
            if let Some(n) = leaves_of_root.get_mut(schema.get_column_root_idx(leaf)) {
                *n += 1;
            }
        }
        for leaf in 0..schema.num_columns() {
            let descriptor = schema.column(leaf);
            let root = schema.get_column_root(leaf).name().to_string();
            let list = descriptor.max_rep_level() > 0;
            let name = if list { root } else { descriptor.path().string() };
            let only = leaves_of_root.get(schema.get_column_root_idx(leaf)) == Some(&1);
            let found = match list && (descriptor.max_rep_level() > 1 || !only) {
                true => Err("lists of lists and lists of records become no feature; flatten them first".to_string()),
                false => self.field_of(&descriptor, leaf, &name, list),
            };
            match found {
                Ok((field, decode)) => {
                    let bytes = field.row_bytes();
                    if bytes > self.limits.row_bytes {
                        let part = format!("one row of {name:?}, bytes");
                        return Err(DataError::limit(&self.path, part, bytes, self.limits.row_bytes, "row_bytes"));
                    }
                    self.fields.push(field);
                    self.columns.push(Column { leaf, decode, list });
                }
                Err(reason) => self.unusable.push((name, reason)),
            }
        }
        let mut names: Vec<&str> = self.fields.iter().map(|f| f.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(DataError::malformed(&self.path, "schema", format!("there are two columns {:?}", twice[0])));
        }
        Ok(())
    }

    fn field_of(&self, d: &ColumnDescriptor, leaf: usize, name: &str, list: bool) -> Result<(Field, Decode), String> {
        let decimal = match d.logical_type_ref() {
            Some(LogicalType::Decimal(_)) => true,
            _ => d.converted_type() == ConvertedType::DECIMAL,
        };
        let unsigned = match d.logical_type_ref() {
            Some(LogicalType::Integer(int)) => !int.is_signed,
            _ => matches!(
                d.converted_type(),
                ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64
            ),
        };
        let declared = self.declared_shape(name)?;
        let (kind, decode) = match d.physical_type() {
            Physical::BOOLEAN => (Kind::Bool, Decode::Plain),
            Physical::INT32 | Physical::INT64 if decimal => (Kind::Float, Decode::Decimal(-d.type_scale())),
            Physical::INT32 if unsigned => (Kind::Int, Decode::Unsigned32),
            Physical::INT64 if unsigned => (Kind::Int, Decode::Unsigned64),
            Physical::INT32 | Physical::INT64 => (Kind::Int, Decode::Plain),
            Physical::FLOAT | Physical::DOUBLE => (Kind::Float, Decode::Plain),
            Physical::BYTE_ARRAY if decimal => return Err("decimal numbers of any length; store them as double".into()),
            Physical::BYTE_ARRAY => (Kind::Text, Decode::Plain),
            Physical::FIXED_LEN_BYTE_ARRAY if d.logical_type_ref() == Some(&LogicalType::Float16) => {
                (Kind::Float, Decode::Half)
            }
            Physical::FIXED_LEN_BYTE_ARRAY if decimal && (1..=16).contains(&d.type_length()) => {
                (Kind::Float, Decode::DecimalBytes(-d.type_scale()))
            }
            Physical::FIXED_LEN_BYTE_ARRAY => {
                let Some(shape) = declared.clone().filter(|_| !list) else {
                    return Err(format!("fixed-length bytes without the metadata key netproof.shape.{name}"));
                };
                let (kind, decode) = match self.key(&format!("netproof.type.{name}")).as_deref() {
                    Some("uint8") => (Kind::U8, Decode::Bytes),
                    Some("float32") | None => (Kind::Float, Decode::FloatBytes),
                    Some(other) => return Err(format!("its element type {other:?} is neither float32 nor uint8")),
                };
                let field = Field { name: name.into(), kind, shape };
                let bytes = field.width() as u64 * kind.bytes();
                if bytes != d.type_length().max(0) as u64 {
                    return Err(format!("{} bytes per row do not fit the shape {:?}", d.type_length(), field.shape));
                }
                return Ok((field, decode));
            }
            Physical::INT96 => return Err("INT96 time stamps; write them as integers".into()),
        };
        if !list {
            return Ok((Field { name: name.into(), kind, shape: Vec::new() }, decode));
        }
        if kind == Kind::Text {
            return Err("lists of text".into());
        }
        let shape = match declared {
            Some(shape) => shape,
            None => vec![self.list_length(leaf)?],
        };
        Ok((Field { name: name.into(), kind, shape }, decode))
    }

    /// The length that all lists of a column have, from the counts in the footer.
    fn list_length(&self, leaf: usize) -> Result<usize, String> {
        let Some(group) = self.metadata.row_groups().iter().find(|g| g.num_rows() > 0) else { return Ok(1) };
        let values = u64::try_from(group.column(leaf).num_values()).unwrap_or(0);
        // Rows without a list count one value each, so a few of them round away.
        let length = values.div_ceil(group.num_rows().max(1) as u64);
        usize::try_from(length).ok().filter(|&l| l > 0).ok_or_else(|| "lists without elements".into())
    }

    fn declared_shape(&self, name: &str) -> Result<Option<Vec<usize>>, String> {
        let Some(text) = self.key(&format!("netproof.shape.{name}")) else { return Ok(None) };
        let shape: Option<Vec<usize>> = text.split(',').map(|d| d.trim().parse().ok().filter(|&n| n > 0)).collect();
        let valid = shape.filter(|s| s.len() < netproof_tensor::MAX_RANK);
        match valid.filter(|s| netproof_tensor::element_count(s).is_some()) {
            Some(shape) => Ok(Some(shape)),
            None => Err(format!("the metadata key netproof.shape.{name} is {text:?}, no list of sizes")),
        }
    }

    fn key(&self, key: &str) -> Option<String> {
        let pairs = self.metadata.file_metadata().key_value_metadata()?;
        pairs.iter().find(|kv| kv.key == key)?.value.clone()
    }
}

impl Source for ParquetSource {
    fn layout(&self) -> Layout {
        Layout::Table
    }

    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn skips_cheaply(&self) -> bool {
        true
    }

    fn block_rows(&self) -> usize {
        // A page or two of most writers.
        32_768
    }

    fn may_have_bad_rows(&self) -> bool {
        self.columns.iter().zip(&self.fields).any(|(c, f)| {
            c.list
                || f.kind == Kind::Text
                || matches!(c.decode, Decode::Unsigned64 | Decode::Bytes | Decode::FloatBytes)
        })
    }

    fn unusable(&self) -> &[(String, String)] {
        &self.unusable
    }

    fn cursor(&self, fields: &[usize]) -> Result<Box<dyn Cursor>, DataError> {
        let columns = fields.iter().map(|&f| (self.columns[f].clone(), self.fields[f].clone())).collect();
        Ok(Box::new(ParquetCursor {
            path: self.path.clone(),
            file: self.file.clone(),
            metadata: self.metadata.clone(),
            limits: self.limits,
            checked: self.checked.clone(),
            columns,
            group: 0,
            at: 0,
            open: None,
            pending: 0,
        }))
    }
}

struct ParquetCursor {
    path: PathBuf,
    file: PositionedFile,
    metadata: Arc<ParquetMetaData>,
    limits: Limits,
    checked: Arc<Mutex<Checked>>,
    columns: Vec<(Column, Field)>,
    group: usize,
    /// Rows of the current group already passed, including the pending ones.
    at: u64,
    /// One reader per column of the current group.
    open: Option<Vec<OpenColumn>>,
    /// Rows to be skipped by the readers before they read.
    pending: u64,
}

struct OpenColumn {
    reader: ColumnReader,
    /// Values that a list column may still deliver during the current read.
    budget: Arc<AtomicU64>,
}

impl ParquetCursor {
    fn group_rows(&self) -> Option<u64> {
        self.metadata.row_groups().get(self.group).map(|g| g.num_rows().max(0) as u64)
    }

    fn next_group(&mut self) {
        (self.group, self.at, self.pending, self.open) = (self.group + 1, 0, 0, None);
    }

    fn open_group(&mut self) -> Result<(), DataError> {
        if self.open.is_some() {
            return Ok(());
        }
        let group = self.metadata.row_group(self.group);
        let rows = group.num_rows().max(0) as u64;
        let mut pages = 0u64;
        let mut open = Vec::new();
        for (column, field) in &self.columns {
            let chunk = group.column(column.leaf);
            let part = format!("column {:?}, row group {}", field.name, self.group);
            let values = rows.saturating_mul(if column.list { field.width() as u64 } else { 1 });
            let key = (self.group, column.leaf);
            let known = self.checked.lock().ok().and_then(|c| c.get(&key).copied());
            let need = match known {
                Some(need) => need,
                None => check_pages(&self.file, chunk, values, column.list, &self.path, &part, &self.limits)?,
            };
            if let Ok(mut checked) = self.checked.lock() {
                checked.insert(key, need);
            }
            pages += need;
            let (file, row_count) = (Arc::new(self.file.clone()), rows as usize);
            let inner = guarded(&self.path, &part, || SerializedPageReader::new(file, chunk, row_count, None))?;
            let budget = Arc::new(AtomicU64::new(u64::MAX));
            let pages = CheckedPages {
                inner,
                budget: column.list.then(|| budget.clone()),
                levels: (chunk.column_descr().max_rep_level() > 0, chunk.column_descr().max_def_level() > 0),
                dictionary: false,
            };
            let reader = get_column_reader(chunk.column_descr_ptr(), Box::new(pages));
            open.push(OpenColumn { reader, budget });
        }
        if pages > self.limits.memory_bytes.max(self.limits.page_bytes) {
            let part = format!("row group {}: the largest pages of the columns together, bytes", self.group);
            let limit = self.limits.memory_bytes.max(self.limits.page_bytes);
            return Err(DataError::limit(&self.path, part, pages, limit, "memory_bytes"));
        }
        self.open = Some(open);
        Ok(())
    }

    /// Reads `rows` rows, all of them in the current row group.
    fn read_group(&mut self, rows: usize) -> Result<Chunk, DataError> {
        self.open_group()?;
        let (path, group, skip) = (&self.path, self.group, std::mem::take(&mut self.pending) as usize);
        let Some(open) = &mut self.open else { unreachable!("the group was just opened") };
        // Columns are independent, so the pool may decode them side by side; the result does not depend on it.
        let parts: Vec<(Array, Vec<(usize, String)>)> = open
            .par_iter_mut()
            .zip(&self.columns)
            .map(|(open, (column, field))| {
                let part = format!("column {:?}, row group {group}", field.name);
                guarded(path, &part, || {
                    if skip > 0 {
                        open.budget.store(u64::MAX, Ordering::Relaxed);
                        if skip_records(&mut open.reader, skip)? != skip {
                            return Err(ParquetError::EOF("has fewer rows than the footer says".into()));
                        }
                    }
                    // One more, because the end of a list may show only in the page after its last value.
                    open.budget.store((rows * field.width()) as u64 + 1, Ordering::Relaxed);
                    read_column(&mut open.reader, column, field, rows)
                })
            })
            .collect::<Result<_, _>>()?;
        let mut bad: Vec<(usize, String)> = Vec::new();
        let mut arrays = Vec::new();
        for (array, faults) in parts {
            arrays.push(array);
            bad.extend(faults);
        }
        bad.sort();
        bad.dedup_by_key(|b| b.0);
        Ok(Chunk { rows, arrays, bad })
    }
}

impl Cursor for ParquetCursor {
    fn skip(&mut self, mut rows: u64) -> Result<(), DataError> {
        while let Some(group_rows) = self.group_rows().filter(|_| rows > 0) {
            let step = rows.min(group_rows - self.at);
            (self.at, self.pending, rows) = (self.at + step, self.pending + step, rows - step);
            if self.at == group_rows {
                self.next_group();
            }
        }
        Ok(())
    }

    fn read(&mut self, rows: usize) -> Result<Chunk, DataError> {
        let arrays = self.columns.iter().map(|(_, f)| Array::empty(f.kind)).collect();
        let mut chunk = Chunk { rows: 0, arrays, bad: Vec::new() };
        while chunk.rows < rows
            && let Some(group_rows) = self.group_rows()
        {
            let step = ((rows - chunk.rows) as u64).min(group_rows - self.at) as usize;
            if step > 0 {
                let part = self.read_group(step)?;
                chunk.bad.extend(part.bad.into_iter().map(|(row, reason)| (row + chunk.rows, reason)));
                chunk.arrays.iter_mut().zip(part.arrays).for_each(|(all, more)| all.append(more));
                chunk.rows += step;
                self.at += step as u64;
            }
            if self.at == group_rows {
                self.next_group();
            }
        }
        Ok(chunk)
    }
}

fn skip_records(reader: &mut ColumnReader, rows: usize) -> ParquetResult<usize> {
    match reader {
        ColumnReader::BoolColumnReader(r) => r.skip_records(rows),
        ColumnReader::Int32ColumnReader(r) => r.skip_records(rows),
        ColumnReader::Int64ColumnReader(r) => r.skip_records(rows),
        ColumnReader::Int96ColumnReader(r) => r.skip_records(rows),
        ColumnReader::FloatColumnReader(r) => r.skip_records(rows),
        ColumnReader::DoubleColumnReader(r) => r.skip_records(rows),
        ColumnReader::ByteArrayColumnReader(r) => r.skip_records(rows),
        ColumnReader::FixedLenByteArrayColumnReader(r) => r.skip_records(rows),
    }
}

type Part = (Array, Vec<(usize, String)>);

fn read_column(reader: &mut ColumnReader, column: &Column, field: &Field, rows: usize) -> ParquetResult<Part> {
    let float = |v: f32| Ok(v);
    match (reader, column.decode) {
        (ColumnReader::BoolColumnReader(r), _) => read_as(r, column, field, rows, Values::Bool, false, |&v| Ok(v)),
        (ColumnReader::Int32ColumnReader(r), Decode::Decimal(power)) => {
            read_as(r, column, field, rows, Values::Float, f32::NAN, |&v| float((f64::from(v) * ten(power)) as f32))
        }
        (ColumnReader::Int64ColumnReader(r), Decode::Decimal(power)) => {
            read_as(r, column, field, rows, Values::Float, f32::NAN, |&v| float((v as f64 * ten(power)) as f32))
        }
        (ColumnReader::Int32ColumnReader(r), Decode::Unsigned32) => {
            read_as(r, column, field, rows, Values::Int, 0, |&v| Ok(i64::from(v as u32)))
        }
        (ColumnReader::Int64ColumnReader(r), Decode::Unsigned64) => {
            read_as(r, column, field, rows, Values::Int, 0, |&v| match v {
                0.. => Ok(v),
                _ => Err(format!("is {}, over 2^63 - 1", v as u64)),
            })
        }
        (ColumnReader::Int32ColumnReader(r), _) => {
            read_as(r, column, field, rows, Values::Int, 0, |&v| Ok(i64::from(v)))
        }
        (ColumnReader::Int64ColumnReader(r), _) => read_as(r, column, field, rows, Values::Int, 0, |&v| Ok(v)),
        (ColumnReader::FloatColumnReader(r), _) => {
            read_as(r, column, field, rows, Values::Float, f32::NAN, |&v| float(v))
        }
        (ColumnReader::DoubleColumnReader(r), _) => {
            read_as(r, column, field, rows, Values::Float, f32::NAN, |&v| float(v as f32))
        }
        (ColumnReader::ByteArrayColumnReader(r), _) => {
            read_as(r, column, field, rows, Values::Text, String::new(), |v| {
                std::str::from_utf8(v.data()).map(str::to_string).map_err(|_| "is not UTF-8".to_string())
            })
        }
        (ColumnReader::FixedLenByteArrayColumnReader(r), Decode::Half) => {
            read_as(r, column, field, rows, Values::Float, f32::NAN, |v| match v.data() {
                &[a, b] => float(half::f16::from_le_bytes([a, b]).to_f32()),
                _ => Err("is not two bytes".into()),
            })
        }
        (ColumnReader::FixedLenByteArrayColumnReader(r), Decode::DecimalBytes(power)) => {
            read_as(r, column, field, rows, Values::Float, f32::NAN, |v| {
                let sign = if v.data().first().is_some_and(|&b| b >= 0x80) { -1 } else { 0 };
                let integer = v.data().iter().fold(sign, |n: i128, &b| n << 8 | i128::from(b));
                float((integer as f64 * ten(power)) as f32)
            })
        }
        (ColumnReader::FixedLenByteArrayColumnReader(r), Decode::Bytes) => {
            read_bytes(r, field, rows, Values::U8, 0, |bytes, out| out.extend_from_slice(bytes))
        }
        (ColumnReader::FixedLenByteArrayColumnReader(r), _) => {
            read_bytes(r, field, rows, Values::Float, f32::NAN, |bytes, out| {
                out.extend(bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])));
            })
        }
        (ColumnReader::Int96ColumnReader(_), _) => Err(ParquetError::NYI("INT96".into())),
    }
}

fn ten(power: i32) -> f64 {
    10f64.powi(power)
}

/// Reads scalars or lists of `field.width()` elements.
fn read_as<T: DataType, V: Clone>(
    reader: &mut ColumnReaderImpl<T>,
    column: &Column,
    field: &Field,
    rows: usize,
    wrap: impl FnOnce(Vec<V>) -> Values,
    filler: V,
    convert: impl Fn(&T::T) -> Result<V, String>,
) -> ParquetResult<Part> {
    let (mut def, mut rep, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    let (records, present, levels) = reader.read_records(rows, Some(&mut def), Some(&mut rep), &mut raw)?;
    if records != rows || raw.len() != present {
        return Err(ParquetError::EOF("has fewer rows than the footer says".into()));
    }
    let width = field.width();
    let mut out = Vec::with_capacity(rows * width);
    let (mut missing, mut bad): (Vec<bool>, Vec<(usize, String)>) = (Vec::new(), Vec::new());
    let fault = |row: usize, what: String| (row, format!("{:?} {what}", field.name));
    if !column.list {
        // Definition levels are only filled for optional columns; the deepest level is a value that is there.
        let deepest = if present == rows { 0 } else { def.iter().copied().max().unwrap_or(0).max(1) };
        let mut next = raw.iter();
        for row in 0..rows {
            let there = present == rows || (present > 0 && def.get(row) == Some(&deepest));
            let value = if there { next.next() } else { None };
            if value.is_none() {
                missing.resize(row, false);
                missing.push(true);
            }
            out.push(match value.map(&convert) {
                Some(Ok(v)) => v,
                Some(Err(what)) => {
                    bad.push(fault(row, what));
                    filler.clone()
                }
                None => filler.clone(),
            });
        }
    } else {
        if rep.len() != levels || (!def.is_empty() && def.len() != levels) {
            return Err(ParquetError::General("levels do not fit each other".into()));
        }
        let deepest = def.iter().copied().max().unwrap_or(0);
        let all_there = present == levels;
        let mut next = raw.iter();
        let (mut at, mut row) = (0, 0);
        while at < levels {
            let end = rep[at + 1..].iter().position(|&r| r == 0).map_or(levels, |i| at + 1 + i);
            let before = out.len();
            let mut holes = false;
            for level in at..end {
                match (all_there || def.get(level) == Some(&deepest)).then(|| next.next()).flatten().map(&convert) {
                    Some(Ok(v)) => out.push(v),
                    _ => holes = true,
                }
            }
            let got = out.len() - before;
            if holes || got != width {
                bad.push(fault(row, format!("has {got} values, expected {width}")));
                out.truncate(before);
                out.resize(before + width, filler.clone());
            }
            (at, row) = (end, row + 1);
        }
        if row != rows {
            return Err(ParquetError::General("lists and rows do not fit each other".into()));
        }
    }
    if !missing.is_empty() {
        missing.resize(rows, false);
    }
    Ok((Array { values: wrap(out), missing }, bad))
}

/// Reads fixed-length bytes that hold a tensor each.
fn read_bytes<V: Clone>(
    reader: &mut ColumnReaderImpl<parquet::data_type::FixedLenByteArrayType>,
    field: &Field,
    rows: usize,
    wrap: impl FnOnce(Vec<V>) -> Values,
    filler: V,
    convert: impl Fn(&[u8], &mut Vec<V>),
) -> ParquetResult<Part> {
    let (mut def, mut raw) = (Vec::new(), Vec::new());
    let (records, present, _) = reader.read_records(rows, Some(&mut def), None, &mut raw)?;
    if records != rows {
        return Err(ParquetError::EOF("has fewer rows than the footer says".into()));
    }
    let deepest = def.iter().copied().max().unwrap_or(0);
    let width = field.width();
    let mut out = Vec::with_capacity(rows * width);
    let mut bad = Vec::new();
    let mut next = raw.iter();
    for row in 0..rows {
        let there = present == rows || (present > 0 && def.get(row) == Some(&deepest));
        if let Some(bytes) = there.then(|| next.next()).flatten() {
            convert(bytes.data(), &mut out);
        } else {
            bad.push((row, format!("{:?} is missing", field.name)));
        }
        out.resize((row + 1) * width, filler.clone());
    }
    Ok((Array::new(wrap(out)), bad))
}
