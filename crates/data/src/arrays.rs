//! Named arrays whose first dimension counts rows: NPZ members, NPY files and IDX files, all streamed.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

use flate2::bufread::{DeflateDecoder, MultiGzDecoder};

use netproof_tensor::{Elements, Tensor};

use crate::npy::{Code, Element, Header};
use crate::source::{Array, Chunk, Cursor, Field, Kind, Layout, Source, Values};
use crate::{DataError, Limits, zip};

/// One array and where its bytes are.
#[derive(Debug, Clone)]
struct Stored {
    name: String,
    header: Header,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    /// A file of its own, header first; its size is checked against the header.
    File { path: PathBuf, packed: bool },
    /// A member of an archive.
    Member { path: PathBuf, member: zip::Member },
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Self::File { path, .. } | Self::Member { path, .. } => path,
        }
    }

    fn seekable(&self) -> bool {
        match self {
            Self::File { packed, .. } => !packed,
            Self::Member { member, .. } => !member.deflated,
        }
    }
}

/// The arrays of an NPZ archive; at least one.
fn stored_in_npz(path: &Path, limits: &Limits) -> Result<Vec<Stored>, DataError> {
    let mut file = File::open(path).map_err(DataError::read(path))?;
    let mut stored = Vec::new();
    let mut others = Vec::new();
    for member in zip::members(&mut file, path, limits)? {
        let Some(name) = member.name.strip_suffix(".npy").map(str::to_string) else {
            refuse_pickle_member(path, &member.name)?;
            others.push(member.name);
            continue;
        };
        let unpacked = member.unpacked;
        let place = Place::Member { path: path.into(), member };
        let header = Header::read(&mut Stream::open(&place)?, Some(unpacked), path, &name)?;
        stored.push(Stored { name, header, place });
    }
    if stored.is_empty() {
        let found = match others.first() {
            Some(first) => format!("a ZIP archive without NPY arrays ({first:?} and others); unpack it first"),
            None => "an empty ZIP archive".into(),
        };
        return Err(DataError::Format { path: path.into(), found });
    }
    Ok(stored)
}

/// The named arrays of an NPZ archive, whole, of any rank, in their own element types.
/// # Errors
/// The file is no NPZ archive, is damaged or has none of these names; element types other than numbers, truth values and
/// text. Sizes are checked before memory is taken, as [`Limits`] says.
pub fn read_npz(path: &Path, names: &[&str], limits: Limits) -> Result<Vec<Tensor>, DataError> {
    let stored = stored_in_npz(path, &limits)?;
    let read = |name: &&str| {
        let Some(found) = stored.iter().find(|s| s.name == **name) else {
            let available = stored.iter().map(|s| format!("{} {:?}", s.name, s.header.shape)).collect();
            return Err(DataError::Missing { path: path.into(), name: (*name).into(), available });
        };
        let (mut reader, shape) = (ArrayReader::open(found, &limits)?, found.header.shape.clone());
        let rows = shape.first().copied().unwrap_or(1);
        let array = reader.read(rows)?;
        reader.finish()?;
        let elements = match array.values {
            Values::U8(v) => Elements::Int(v.into_iter().map(i64::from).collect()),
            Values::Float(v) => Elements::Float(v),
            Values::Int(v) => Elements::Int(v),
            Values::Bool(v) => Elements::Bool(v),
            Values::Text(v) => Elements::Text(v),
        };
        let dtype = found.header.element.dtype();
        Tensor::new(dtype, shape, elements).map_err(|e| DataError::malformed(path, *name, e.to_string()))
    };
    names.iter().map(read).collect()
}

/// The arrays that have as many rows as the features.
pub(crate) struct ArraysSource {
    stored: Vec<Stored>,
    fields: Vec<Field>,
    rows: u64,
    feature_names: Option<Vec<String>>,
    limits: Limits,
}

impl ArraysSource {
    /// Opens an NPZ archive. `main` is the array that gives the number of rows.
    pub(crate) fn npz(path: &Path, main: &str, limits: Limits) -> Result<Self, DataError> {
        Self::new(path, stored_in_npz(path, &limits)?, main, limits)
    }

    /// Opens NPY or IDX files side by side, the first as `x`, the second as `y`.
    pub(crate) fn files(paths: &[&Path], limits: Limits) -> Result<Self, DataError> {
        let mut stored = Vec::new();
        for (path, name) in paths.iter().zip(["x", "y"]) {
            let packed = starts_with(path, &[0x1f, 0x8b])?;
            let place = Place::File { path: (*path).into(), packed };
            let size = match packed {
                true => None,
                false => Some(std::fs::metadata(path).map_err(DataError::read(path))?.len()),
            };
            let mut stream = Stream::open(&place)?;
            let mut magic = [0; 4];
            stream.read_exact(&mut magic).map_err(|_| DataError::malformed(path, "header", "ends too early"))?;
            let header = if magic[..2] == [0, 0] {
                idx_header(&mut stream, magic, size, path)?
            } else {
                Header::read(&mut (&magic[..]).chain(&mut stream), size, path, name)?
            };
            stored.push(Stored { name: name.into(), header, place });
        }
        let path = paths.first().copied().unwrap_or(Path::new(""));
        Self::new(path, stored, "x", limits)
    }

    fn new(path: &Path, stored: Vec<Stored>, main: &str, limits: Limits) -> Result<Self, DataError> {
        let Some(rows) = stored.iter().find(|s| s.name == main).map(|s| s.header.rows()) else {
            let available = stored.iter().map(|s| format!("{} {:?}", s.name, s.header.shape)).collect();
            return Err(DataError::Missing { path: path.into(), name: main.into(), available });
        };
        let feature_names = read_feature_names(&stored, main)?;
        let per_row = |s: &Stored| !s.header.shape.is_empty() && s.header.rows() == rows;
        // A label of another length is a mistake to be named, not an array to be passed over.
        if let Some(y) = stored.iter().find(|s| s.name == "y" && !per_row(s)) {
            return Err(DataError::RowCount {
                path: path.into(),
                name: "y".into(),
                rows: y.header.rows(),
                reference: main.into(),
                expected: rows,
            });
        }
        let stored: Vec<Stored> = stored.into_iter().filter(per_row).collect();
        let mut fields = Vec::new();
        for s in &stored {
            let shape = s.header.shape[1..].to_vec();
            let field = Field { name: s.name.clone(), kind: s.header.element.kind(), shape };
            let bytes = field.row_bytes().max((field.width() * s.header.element.bytes()) as u64);
            if bytes > limits.row_bytes {
                let part = format!("one row of {:?}, bytes", s.name);
                return Err(DataError::limit(path, part, bytes, limits.row_bytes, "row_bytes"));
            }
            fields.push(field);
        }
        Ok(Self { stored, fields, rows, feature_names, limits })
    }
}

impl Source for ArraysSource {
    fn layout(&self) -> Layout {
        Layout::Arrays
    }

    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn skips_cheaply(&self) -> bool {
        self.stored.iter().all(|s| s.place.seekable())
    }

    fn may_have_bad_rows(&self) -> bool {
        false
    }

    fn feature_names(&self) -> Option<Vec<String>> {
        self.feature_names.clone()
    }

    fn cursor(&self, fields: &[usize]) -> Result<Box<dyn Cursor>, DataError> {
        let mut readers = Vec::new();
        for &f in fields {
            readers.push(ArrayReader::open(&self.stored[f], &self.limits)?);
        }
        Ok(Box::new(ArraysCursor { readers, left: self.rows }))
    }
}

struct ArraysCursor {
    readers: Vec<ArrayReader>,
    left: u64,
}

impl Cursor for ArraysCursor {
    fn skip(&mut self, rows: u64) -> Result<(), DataError> {
        let rows = rows.min(self.left);
        self.left -= rows;
        self.readers.iter_mut().try_for_each(|r| r.skip(rows))?;
        self.finish()
    }

    fn read(&mut self, rows: usize) -> Result<Chunk, DataError> {
        let rows = usize::try_from(self.left).map_or(rows, |left| rows.min(left));
        self.left -= rows as u64;
        let arrays = self.readers.iter_mut().map(|r| r.read(rows)).collect::<Result<_, _>>()?;
        self.finish()?;
        Ok(Chunk { rows, arrays, bad: Vec::new() })
    }
}

impl ArraysCursor {
    fn finish(&mut self) -> Result<(), DataError> {
        if self.left == 0 { self.readers.iter_mut().try_for_each(ArrayReader::finish) } else { Ok(()) }
    }
}

struct ArrayReader {
    name: String,
    path: PathBuf,
    element: Element,
    width: usize,
    stream: Stream,
    finished: bool,
}

impl ArrayReader {
    fn open(stored: &Stored, limits: &Limits) -> Result<Self, DataError> {
        let path = stored.place.path();
        let mut stream = Stream::open(&stored.place)?;
        let cut = |_| DataError::malformed(path, &stored.name, "ends inside its header");
        std::io::copy(&mut (&mut stream).take(stored.header.bytes as u64), &mut std::io::sink()).map_err(cut)?;
        let shape = &stored.header.shape;
        if stored.header.fortran && shape.len() > 1 {
            stream = transpose(stream, stored, limits)?;
        }
        let (name, path) = (stored.name.clone(), path.into());
        let width = shape.iter().skip(1).product();
        Ok(Self { name, path, element: stored.header.element, width, stream, finished: false })
    }

    fn skip(&mut self, rows: u64) -> Result<(), DataError> {
        let bytes = rows * (self.width * self.element.bytes()) as u64;
        self.stream.skip(bytes).map_err(|e| self.damaged(&e))
    }

    fn read(&mut self, rows: usize) -> Result<Array, DataError> {
        let bytes = rows * self.width * self.element.bytes();
        // Grown as data arrives, so that a claimed size alone allocates nothing.
        let mut buffer = Vec::with_capacity(bytes.min(1 << 20));
        let got = (&mut self.stream).take(bytes as u64).read_to_end(&mut buffer).map_err(|e| self.damaged(&e))?;
        if got != bytes {
            return Err(DataError::malformed(&self.path, &self.name, "has less data than its header says"));
        }
        self.element.decode(&buffer).map_err(|reason| DataError::malformed(&self.path, &self.name, reason))
    }

    fn finish(&mut self) -> Result<(), DataError> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        let mut more = [0];
        match self.stream.read(&mut more) {
            Ok(0) => self.stream.check().map_err(|reason| DataError::malformed(&self.path, &self.name, reason)),
            Ok(_) => Err(DataError::malformed(&self.path, &self.name, "has more data than its header says")),
            Err(e) => Err(self.damaged(&e)),
        }
    }

    fn damaged(&self, e: &std::io::Error) -> DataError {
        DataError::malformed(&self.path, &self.name, format!("the data cannot be unpacked: {e}"))
    }
}

/// The unpacked bytes of an array, header included.
enum Stream {
    Plain(Take<BufReader<File>>),
    Deflated {
        inner: Take<DeflateDecoder<Take<BufReader<File>>>>,
        sum: flate2::Crc,
        expected: u32,
    },
    /// A stored member, summed as long as nothing is skipped.
    Stored {
        inner: Take<BufReader<File>>,
        sum: Option<flate2::Crc>,
        expected: u32,
    },
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
    Memory(std::io::Cursor<Vec<u8>>),
}

impl Stream {
    fn open(place: &Place) -> Result<Self, DataError> {
        let path = place.path();
        let file = File::open(path).map_err(DataError::read(path))?;
        let mut input = BufReader::with_capacity(64 << 10, file);
        Ok(match place {
            Place::File { packed: true, .. } => Self::Gzip(Box::new(MultiGzDecoder::new(input))),
            Place::File { .. } => Self::Plain(input.take(u64::MAX)),
            Place::Member { member, .. } => {
                input.seek(SeekFrom::Start(member.start)).map_err(DataError::read(path))?;
                let packed = input.take(member.packed);
                if member.deflated {
                    // One byte more than declared may come out, so that a member that says too little is noticed.
                    let inner = DeflateDecoder::new(packed).take(member.unpacked + 1);
                    Self::Deflated { inner, sum: flate2::Crc::new(), expected: member.crc }
                } else {
                    Self::Stored { inner: packed, sum: Some(flate2::Crc::new()), expected: member.crc }
                }
            }
        })
    }

    fn skip(&mut self, bytes: u64) -> std::io::Result<()> {
        let seek = |inner: &mut Take<BufReader<File>>| {
            let step = i64::try_from(bytes).map_err(|_| std::io::ErrorKind::InvalidInput)?;
            inner.get_mut().seek_relative(step)?;
            inner.set_limit(inner.limit().saturating_sub(bytes));
            Ok(())
        };
        match self {
            Self::Plain(inner) => seek(inner),
            Self::Stored { inner, sum, .. } if bytes > 0 => {
                *sum = None;
                seek(inner)
            }
            other => {
                let skipped = std::io::copy(&mut other.take(bytes), &mut std::io::sink())?;
                if skipped == bytes { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
            }
        }
    }

    /// At the end: whether the checksum was right.
    fn check(&self) -> Result<(), String> {
        let (sum, expected) = match self {
            Self::Deflated { sum, expected, .. } => (sum.sum(), *expected),
            Self::Stored { sum: Some(sum), expected, .. } => (sum.sum(), *expected),
            _ => return Ok(()),
        };
        if sum == expected {
            Ok(())
        } else {
            Err(format!("the checksum is {sum:08x}, the archive says {expected:08x}: the file is damaged"))
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(inner) => inner.read(buf),
            Self::Gzip(inner) => inner.read(buf),
            Self::Memory(inner) => inner.read(buf),
            Self::Deflated { inner, sum, .. } => {
                let n = inner.read(buf)?;
                sum.update(&buf[..n]);
                Ok(n)
            }
            Self::Stored { inner, sum, .. } => {
                let n = inner.read(buf)?;
                if let Some(sum) = sum {
                    sum.update(&buf[..n]);
                }
                Ok(n)
            }
        }
    }
}

/// Reads a column-major array whole and brings it into row-major order.
fn transpose(mut stream: Stream, stored: &Stored, limits: &Limits) -> Result<Stream, DataError> {
    let (path, shape) = (stored.place.path(), &stored.header.shape);
    let size = stored.header.element.bytes();
    let count: usize = shape.iter().product();
    let bytes = count * size;
    if bytes as u64 > limits.memory_bytes {
        let part = format!("{:?} is in Fortran order and must be held whole; its size in bytes", stored.name);
        return Err(DataError::limit(path, part, bytes, limits.memory_bytes, "memory_bytes"));
    }
    let mut data = Vec::new();
    let damaged = |e: std::io::Error| DataError::malformed(path, &stored.name, format!("cannot be unpacked: {e}"));
    (&mut stream).take(bytes as u64 + 1).read_to_end(&mut data).map_err(damaged)?;
    if data.len() != bytes {
        return Err(DataError::malformed(path, &stored.name, "has another size than its header says"));
    }
    stream.check().map_err(|reason| DataError::malformed(path, &stored.name, reason))?;
    let mut strides = vec![1; shape.len()];
    for d in 1..shape.len() {
        strides[d] = strides[d - 1] * shape[d - 1];
    }
    let mut out = Vec::with_capacity(bytes);
    let mut index = vec![0; shape.len()];
    for _ in 0..count {
        let at: usize = index.iter().zip(&strides).map(|(i, s)| i * s).sum();
        out.extend_from_slice(&data[at * size..(at + 1) * size]);
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
    Ok(Stream::Memory(std::io::Cursor::new(out)))
}

/// The rest of an IDX header after its four magic bytes.
fn idx_header(input: &mut Stream, magic: [u8; 4], size: Option<u64>, path: &Path) -> Result<Header, DataError> {
    let bad = |reason: String| DataError::malformed(path, "IDX header", reason);
    let code = match magic[2] {
        0x08 => Code::Uint(1),
        0x09 => Code::Int(1),
        0x0b => Code::Int(2),
        0x0c => Code::Int(4),
        0x0d => Code::Float(4),
        0x0e => Code::Float(8),
        t => return Err(bad(format!("element type {t:#04x} is unknown"))),
    };
    let rank = usize::from(magic[3]);
    if rank == 0 || rank > netproof_tensor::MAX_RANK {
        return Err(bad(format!("rank {rank} is not between 1 and {}", netproof_tensor::MAX_RANK)));
    }
    let mut shape = Vec::new();
    for _ in 0..rank {
        let mut dim = [0; 4];
        input.read_exact(&mut dim).map_err(|_| bad("ends too early".into()))?;
        shape.push(u32::from_be_bytes(dim) as usize);
    }
    let element = Element { code, big_endian: true };
    let data = netproof_tensor::element_count(&shape).and_then(|n| n.checked_mul(element.bytes()));
    let data = data.ok_or_else(|| bad(format!("shape {shape:?} is more than this machine can address")))? as u64;
    let bytes = 4 + 4 * rank;
    if let Some(size) = size
        && size.checked_sub(bytes as u64) != Some(data)
    {
        let there = size.saturating_sub(bytes as u64);
        return Err(bad(format!("shape {shape:?} needs {data} bytes, but there are {there}")));
    }
    Ok(Header { element, fortran: false, shape, bytes })
}

/// Names of the feature columns, where the archive has a text array `feature_names` of the right length.
fn read_feature_names(stored: &[Stored], main: &str) -> Result<Option<Vec<String>>, DataError> {
    let width: Option<usize> = stored.iter().find(|s| s.name == main).map(|s| s.header.shape.iter().skip(1).product());
    let names = stored.iter().find(|s| s.name == "feature_names" && s.header.element.kind() == Kind::Text);
    let Some(names) = names.filter(|n| n.header.shape.len() == 1 && n.header.rows() <= 65_536) else {
        return Ok(None);
    };
    if width != Some(names.header.shape[0]) || names.header.element.bytes() > 4096 {
        return Ok(None);
    }
    let mut reader = ArrayReader::open(names, &Limits::default())?;
    let array = reader.read(names.header.shape[0])?;
    Ok(if let Values::Text(names) = array.values { Some(names) } else { None })
}

/// PyTorch checkpoints are ZIP archives with a pickle inside.
fn refuse_pickle_member(path: &Path, name: &str) -> Result<(), DataError> {
    if name.ends_with(".pkl") || name.ends_with(".pickle") {
        return Err(DataError::Pickle { path: path.into(), found: format!("archive member {name:?}") });
    }
    Ok(())
}

pub(crate) fn starts_with(path: &Path, magic: &[u8]) -> Result<bool, DataError> {
    let mut first = Vec::new();
    let file = File::open(path).map_err(DataError::read(path))?;
    file.take(magic.len() as u64).read_to_end(&mut first).map_err(DataError::read(path))?;
    Ok(first == magic)
}
