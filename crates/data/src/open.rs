//! Which format a file has, by its content.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::arrays::ArraysSource;
use crate::csv::CsvSource;
use crate::images::ImageSource;
use crate::parquet_pages;
use crate::parquet_source::ParquetSource;
use crate::source::Source;
use crate::{DataError, OpenOptions, npy, zip};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Parquet,
    Zip,
    Npy,
    Idx,
    Text,
}

pub(crate) fn source(spec: &str, options: &OpenOptions) -> Result<(PathBuf, Box<dyn Source>), DataError> {
    let path = Path::new(spec);
    if !path.exists()
        && let Some((first, second)) = pair(spec)
    {
        return files(&[first, second], options);
    }
    if std::fs::metadata(path).map_err(DataError::read(path))?.is_dir() {
        return Ok((path.into(), Box::new(ImageSource::open(path, options)?)));
    }
    let source: Box<dyn Source> = match format(path)? {
        Format::Parquet => Box::new(ParquetSource::open(path, options.limits)?),
        Format::Zip => {
            let main = match options.features.as_deref() {
                Some([first, ..]) => first.as_str(),
                _ => "x",
            };
            Box::new(ArraysSource::npz(path, main, options.limits)?)
        }
        Format::Npy | Format::Idx => return files(&[path], options),
        Format::Text => Box::new(CsvSource::open(path, options)?),
    };
    Ok((path.into(), source))
}

/// Splits `images:labels` at the colon for which both files exist, so that colons in names and drives do no harm.
fn pair(spec: &str) -> Option<(&Path, &Path)> {
    spec.match_indices(':')
        .map(|(i, _)| (Path::new(&spec[..i]), Path::new(&spec[i + 1..])))
        .find(|(first, second)| first.is_file() && second.is_file())
}

fn files(paths: &[&Path], options: &OpenOptions) -> Result<(PathBuf, Box<dyn Source>), DataError> {
    for path in paths {
        let found = format(path)?;
        if !matches!(found, Format::Npy | Format::Idx) {
            let found = format!("{found:?}, which does not come in pairs of files");
            return Err(DataError::Format { path: (*path).into(), found });
        }
    }
    Ok((paths[0].into(), Box::new(ArraysSource::files(paths, options.limits)?)))
}

fn format(path: &Path) -> Result<Format, DataError> {
    let file = File::open(path).map_err(DataError::read(path))?;
    if !file.metadata().map_err(DataError::read(path))?.is_file() {
        return Err(DataError::Format { path: path.into(), found: "no regular file".into() });
    }
    let mut head = Vec::new();
    file.take(4096).read_to_end(&mut head).map_err(DataError::read(path))?;
    let packed = head.starts_with(&[0x1f, 0x8b]);
    if packed {
        let mut inner = Vec::new();
        let unpacked = MultiGzDecoder::new(&head[..]).take(4096).read_to_end(&mut inner);
        // The first 4 KiB of a longer file end in the middle, which is no fault.
        if inner.is_empty() && unpacked.is_err() {
            return Err(DataError::malformed(path, "gzip", "cannot be unpacked"));
        }
        head = inner;
    }
    let unknown = |found: &str| Err(DataError::Format { path: path.into(), found: found.into() });
    let pickle = |found: &str| Err(DataError::Pickle { path: path.into(), found: found.into() });
    match head.as_slice() {
        [] => unknown("empty"),
        [b'P', b'A', b'R', b'1', ..] if !packed => Ok(Format::Parquet),
        _ if head.starts_with(zip::MAGIC) && !packed => Ok(Format::Zip),
        _ if head.starts_with(parquet_pages::MAGIC) || head.starts_with(zip::MAGIC) => {
            unknown("a packed archive inside gzip; unpack it first")
        }
        _ if head.starts_with(npy::MAGIC) => Ok(Format::Npy),
        [0, 0, 0x08..=0x0e, 1..=32, ..] => Ok(Format::Idx),
        [0x80, 2..=5, ..] => pickle("pickle protocol 2 or later"),
        _ if [&b"(lp"[..], b"(dp", b"cnumpy", b"ccopy_reg", b"c__builtin__", b"c__main__", b"cos\n", b"cposix\n"]
            .iter()
            .any(|magic| head.starts_with(magic)) =>
        {
            pickle("pickle protocol 0")
        }
        _ if head.starts_with(b"PK\x05\x06") => unknown("an empty ZIP archive"),
        _ if head.starts_with(b"\x89HDF") => unknown("HDF5; store the arrays as NPZ"),
        _ if head.starts_with(b"ARROW1") => unknown("Arrow IPC (Feather); store the table as Parquet"),
        _ if head.starts_with(b"\x89PNG") || head.starts_with(&[0xff, 0xd8, 0xff]) => {
            unknown("a single picture; give the folder it is in")
        }
        _ if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) => unknown("packed with zstd; unpack it first"),
        _ if head.starts_with(b"SQLite format 3") => unknown("an SQLite database; store the table as Parquet or CSV"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Ok(Format::Text),
        [b'{' | b'[', ..] => unknown("JSON; store the table as Parquet or CSV"),
        _ if head.contains(&0) => unknown("binary of an unknown kind"),
        _ => Ok(Format::Text),
    }
}
