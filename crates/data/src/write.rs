//! Results: NPZ archives and Parquet files. A file appears under its name only when it is complete.

use std::fs::{File, OpenOptions as FileOptions};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use netproof_tensor::Tensor;
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType};
use parquet::data_type::{FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, Type as SchemaType};

use crate::{DataError, Dataset, LabelKind, Labels, npy, zip};

/// Writes a picture of 8 bits per channel as PNG. Replaces an existing file.
/// # Shapes
/// `size` is width, height and channels, 1 (grey) or 3 (red, green, blue); `pixels [height, width, channels]`
/// # Errors
/// The file cannot be written, what was there before is untouched; or the pixels are no such picture.
pub fn write_png(path: &Path, size: [usize; 3], pixels: &[u8]) -> Result<(), DataError> {
    let partial = Partial::create(path)?;
    encode_png(BufWriter::new(partial.file().map_err(DataError::write(path))?), size, pixels)
        .map_err(DataError::write(path))?;
    partial.complete()
}

/// The bytes of a PNG file; the same picture gives the same bytes.
/// # Shapes
/// As for [`write_png`].
/// # Errors
/// The pixels are no such picture.
pub fn png_bytes(size: [usize; 3], pixels: &[u8]) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    encode_png(&mut bytes, size, pixels).map_err(DataError::write(Path::new("a picture")))?;
    Ok(bytes)
}

fn encode_png(out: impl std::io::Write, size: [usize; 3], pixels: &[u8]) -> std::io::Result<()> {
    let [width, height, channels] = size.map(|n| u32::try_from(n).unwrap_or(0));
    let mut encoder = png::Encoder::new(out, width, height);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_color(if channels == 3 { png::ColorType::Rgb } else { png::ColorType::Grayscale });
    let mut writer = encoder.write_header().map_err(std::io::Error::other)?;
    writer.write_image_data(pixels).map_err(std::io::Error::other)?;
    writer.finish().map_err(std::io::Error::other)
}

/// Writes arrays as a compressed NPZ archive that NumPy reads without pickles. Replaces an existing file.
///
/// Types are kept, except that bfloat16 becomes single precision. The same arrays give the same bytes.
/// # Errors
/// The file cannot be written; what was there before is untouched.
pub fn write_npz(path: &Path, arrays: &[(&str, &Tensor)]) -> Result<(), DataError> {
    let partial = Partial::create(path)?;
    let out = BufWriter::with_capacity(1 << 20, partial.file().map_err(DataError::write(path))?);
    let mut archive = zip::Writer::new(out);
    for (name, tensor) in arrays {
        let (descr, _) = npy::descr_of(tensor);
        archive
            .add(&format!("{name}.npy"), |out| {
                out.write_all(&npy::header_bytes(&descr, tensor.shape()))?;
                let mut bytes = Vec::new();
                for start in (0..tensor.len()).step_by(1 << 16) {
                    bytes.clear();
                    npy::encode(tensor, start, (start + (1 << 16)).min(tensor.len()), &mut bytes);
                    out.write_all(&bytes)?;
                }
                Ok(())
            })
            .map_err(DataError::write(path))?;
    }
    archive.finish().map_err(DataError::write(path))?;
    partial.complete()
}

/// A column of a Parquet file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParquetColumn {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: ParquetKind,
}

/// What a Parquet column to be written holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParquetKind {
    /// Single-precision numbers; NaN is written as NaN.
    Float,
    /// 64-bit integers.
    Int,
    /// Truth values.
    Bool,
    /// Text; the empty text is written as null.
    Text,
    /// A float32 tensor of this shape per row, as fixed-length bytes with the shape in the metadata.
    Tensor(Vec<usize>),
}

/// Values of a column for some rows.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ParquetValues<'a> {
    /// For [`ParquetKind::Float`] and, row after row, for [`ParquetKind::Tensor`].
    Float(&'a [f32]),
    /// For [`ParquetKind::Int`].
    Int(&'a [i64]),
    /// For [`ParquetKind::Bool`].
    Bool(&'a [bool]),
    /// For [`ParquetKind::Text`].
    Text(&'a [String]),
}

/// Writes a Parquet file one row group at a time.
pub struct ParquetWriter {
    writer: SerializedFileWriter<BufWriter<File>>,
    columns: Vec<ParquetColumn>,
    partial: Partial,
}

impl ParquetWriter {
    /// Starts a file; it appears under `path` with [`ParquetWriter::finish`].
    /// # Errors
    /// The file cannot be created, or a column cannot be (a name twice, an empty shape).
    pub fn create(path: &Path, columns: Vec<ParquetColumn>) -> Result<Self, DataError> {
        let partial = Partial::create(path)?;
        let (mut fields, mut keys, mut widest) = (Vec::new(), Vec::new(), 16usize);
        for column in &columns {
            let (physical, logical, length) = match &column.kind {
                ParquetKind::Float => (Physical::FLOAT, None, 0),
                ParquetKind::Int => (Physical::INT64, None, 0),
                ParquetKind::Bool => (Physical::BOOLEAN, None, 0),
                ParquetKind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String), 0),
                ParquetKind::Tensor(shape) => {
                    let bytes = netproof_tensor::element_count(shape).and_then(|n| n.checked_mul(4));
                    let length = bytes.and_then(|b| i32::try_from(b).ok()).filter(|&b| b > 0);
                    let length = length.ok_or_else(|| DataError::Option {
                        name: "shape",
                        value: format!("{shape:?}"),
                        allowed: "1 to 2^29 elements per row",
                    })?;
                    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
                    keys.push(KeyValue::new(format!("netproof.shape.{}", column.name), dims.join(",")));
                    keys.push(KeyValue::new(format!("netproof.type.{}", column.name), "float32".to_string()));
                    (Physical::FIXED_LEN_BYTE_ARRAY, None, length)
                }
            };
            widest = widest.max(length as usize);
            let repetition = if physical == Physical::BYTE_ARRAY { Repetition::OPTIONAL } else { Repetition::REQUIRED };
            let field = SchemaType::primitive_type_builder(&column.name, physical)
                .with_repetition(repetition)
                .with_logical_type(logical)
                .with_length(length)
                .build();
            fields.push(Arc::new(field.map_err(|e| failed(path, e))?));
        }
        let schema = SchemaType::group_type_builder("rows").with_fields(fields).build();
        let mut properties = WriterProperties::builder()
            // The writer looks at the size of a page once per this many rows; rows of images must not pile up.
            .set_write_batch_size(((1 << 20) / widest).clamp(1, 1024))
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_key_value_metadata(Some(keys))
            .set_created_by("netproof".into());
        for column in columns.iter().filter(|c| matches!(c.kind, ParquetKind::Tensor(_))) {
            // Tensors hardly ever repeat.
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(column.name.clone()), false);
        }
        let properties = properties.build();
        let out = BufWriter::new(partial.file().map_err(DataError::write(path))?);
        let schema = Arc::new(schema.map_err(|e| failed(path, e))?);
        let writer = SerializedFileWriter::new(out, schema, Arc::new(properties)).map_err(|e| failed(path, e))?;
        Ok(Self { writer, columns, partial })
    }

    /// Adds rows as a row group of their own; tens of thousands at a time are best.
    /// # Errors
    /// The values do not fit the columns, or the file cannot be written.
    pub fn write(&mut self, values: &[ParquetValues<'_>]) -> Result<(), DataError> {
        let path = self.partial.path.clone();
        let mut group = self.writer.next_row_group().map_err(|e| failed(&path, e))?;
        if values.len() != self.columns.len() {
            let reason = format!("{} columns were announced, {} were given", self.columns.len(), values.len());
            return Err(failed(&path, ParquetError::General(reason)));
        }
        for (column, values) in self.columns.iter().zip(values) {
            write_column(&mut group, column, *values).map_err(|e| failed(&path, e))?;
        }
        group.close().map_err(|e| failed(&path, e))?;
        Ok(())
    }

    /// Completes the file.
    /// # Errors
    /// The file cannot be written; what was there before is untouched.
    pub fn finish(self) -> Result<(), DataError> {
        let path = self.partial.path.clone();
        self.writer.close().map_err(|e| failed(&path, e))?;
        self.partial.complete()
    }
}

fn failed(path: &Path, e: ParquetError) -> DataError {
    DataError::Write { path: path.into(), source: std::io::Error::other(e) }
}

type Group<'a> = SerializedRowGroupWriter<'a, BufWriter<File>>;

fn write_column(group: &mut Group<'_>, column: &ParquetColumn, values: ParquetValues<'_>) -> Result<(), ParquetError> {
    match (&column.kind, values) {
        (ParquetKind::Float, ParquetValues::Float(v)) => write_values::<FloatType>(group, v, None),
        (ParquetKind::Int, ParquetValues::Int(v)) => write_values::<Int64Type>(group, v, None),
        (ParquetKind::Bool, ParquetValues::Bool(v)) => write_values::<BoolType>(group, v, None),
        (ParquetKind::Text, ParquetValues::Text(v)) => {
            let levels: Vec<i16> = v.iter().map(|t| i16::from(!t.is_empty())).collect();
            let texts: Vec<ByteArray> =
                v.iter().filter(|t| !t.is_empty()).map(|t| ByteArray::from(t.as_bytes().to_vec())).collect();
            write_values::<ByteArrayType>(group, &texts, Some(&levels))
        }
        (ParquetKind::Tensor(shape), ParquetValues::Float(v)) => {
            let width = shape.iter().product::<usize>().max(1);
            if v.len() % width != 0 {
                return Err(ParquetError::General(format!("{:?} has rows of another length", column.name)));
            }
            let rows: Vec<FixedLenByteArray> = v
                .chunks_exact(width)
                .map(|row| ByteArray::from(row.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()).into())
                .collect();
            write_values::<FixedLenByteArrayType>(group, &rows, None)
        }
        _ => Err(ParquetError::General(format!("{:?} was given values of another kind", column.name))),
    }
}

fn write_values<T: DataType>(
    group: &mut Group<'_>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let mut column = group.next_column()?.ok_or_else(|| ParquetError::General("no such column".into()))?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

/// Writes a data set as Parquet: column `x` with the features, `y` with the label, one text column per group.
/// # Errors
/// The data cannot be read or the file cannot be written.
pub fn write_parquet(data: &Dataset, path: &Path) -> Result<(), DataError> {
    let column = |name: &str, kind| ParquetColumn { name: name.into(), kind };
    let mut columns = vec![column("x", ParquetKind::Tensor(data.feature_shape().to_vec()))];
    match data.label_kind() {
        LabelKind::Classes { names: Some(_), .. } => columns.push(column("y", ParquetKind::Text)),
        LabelKind::Classes { .. } => columns.push(column("y", ParquetKind::Int)),
        LabelKind::Target => columns.push(column("y", ParquetKind::Float)),
        LabelKind::None => {}
    }
    columns.extend(data.groups().iter().map(|g| column(&g.name, ParquetKind::Text)));
    let mut writer = ParquetWriter::create(path, columns)?;
    let width = data.feature_shape().iter().product::<usize>().max(1);
    for batch in data.batches(((16 << 20) / width).clamp(1, 65_536)) {
        let batch = batch?;
        let (ints, texts): (Vec<i64>, Vec<String>) = match (&batch.labels, data.label_kind()) {
            (Labels::Classes(v), LabelKind::Classes { names: Some(names), .. }) => {
                (Vec::new(), v.iter().map(|&c| names.get(c).cloned().unwrap_or_else(|| c.to_string())).collect())
            }
            (Labels::Classes(v), _) => (v.iter().map(|&c| c as i64).collect(), Vec::new()),
            _ => (Vec::new(), Vec::new()),
        };
        let groups: Vec<Vec<String>> = (batch.groups.iter().zip(data.groups()))
            .map(|(rows, group)| rows.iter().map(|i| i.map_or(String::new(), |i| group.values[i].clone())).collect())
            .collect();
        let mut values = vec![ParquetValues::Float(batch.features.as_f32().unwrap_or_default())];
        match (&batch.labels, texts.is_empty()) {
            (Labels::Classes(_), false) => values.push(ParquetValues::Text(&texts)),
            (Labels::Classes(_), true) => values.push(ParquetValues::Int(&ints)),
            (Labels::Targets(v), _) => values.push(ParquetValues::Float(v)),
            (Labels::None, _) => {}
        }
        values.extend(groups.iter().map(|g| ParquetValues::Text(g)));
        writer.write(&values)?;
    }
    writer.finish()
}

/// A file beside its destination, which it replaces when complete and which it leaves alone otherwise.
struct Partial {
    path: PathBuf,
    temporary: PathBuf,
    complete: bool,
}

impl Partial {
    fn create(path: &Path) -> Result<Self, DataError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}-{count}.partial", std::process::id()));
        FileOptions::new().write(true).create_new(true).open(&temporary).map_err(DataError::write(path))?;
        Ok(Self { path: path.into(), temporary, complete: false })
    }

    fn file(&self) -> std::io::Result<File> {
        FileOptions::new().write(true).open(&self.temporary)
    }

    /// Makes the content durable, then gives it its name.
    fn complete(mut self) -> Result<(), DataError> {
        let write = DataError::write(&self.path);
        let work = || {
            self.file()?.sync_all()?;
            std::fs::rename(&self.temporary, &self.path)?;
            let parent = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // The rename itself lives in the folder; not every system can sync one.
            File::open(parent).and_then(|folder| folder.sync_all()).or(Ok(()))
        };
        work().map_err(write)?;
        self.complete = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.complete {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}
