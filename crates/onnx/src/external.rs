//! Data of tensors in files beside the model.
//!
//! A location is a relative path that stays below the model's folder. It is opened by descriptor, one component after
//! the other, without following links, and what was opened is what is checked: no path is resolved twice.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use prost::bytes::Bytes;

use crate::proto::{ModelProto, TensorProto};
use crate::{Limits, OnnxError, tensor, walk};

/// Brings all external data of a model into `raw_data`. Tensors that share a range share the bytes.
///
/// Keys: `location`, `offset`, `length` are used; `checksum` and keys that runtimes add are ignored; `basepath` would
/// move the folder and is refused, as is a key given twice.
pub(crate) fn resolve(model: &mut ModelProto, folder: Option<&Path>, limits: &Limits) -> Result<(), OnnxError> {
    let mut source = Source { folder, limits, total: 0, open: None, ranges: HashMap::new() };
    walk::tensors_mut(model, &mut |tensor, at| {
        if !tensor::is_external(tensor) {
            return Ok(());
        }
        let raw = source.read(tensor, at)?;
        tensor.raw_data = Some(raw);
        tensor.external_data.clear();
        tensor.data_location = None;
        Ok(())
    })
}

struct Source<'a> {
    folder: Option<&'a Path>,
    limits: &'a Limits,
    total: u64,
    /// The file opened last; most models have one.
    open: Option<(String, File, u64)>,
    ranges: HashMap<(String, u64, u64), Bytes>,
}

impl Source<'_> {
    fn read(&mut self, tensor: &TensorProto, at: &str) -> Result<Bytes, OnnxError> {
        let declared = tensor::check(tensor, at, self.limits)?;
        let entries = Entries::parse(tensor, at)?;
        let refuse =
            |reason: String| OnnxError::External { at: at.to_owned(), location: entries.location.clone(), reason };
        let Some(expected) = declared.bytes else {
            return Err(refuse("text cannot be external".into()));
        };
        let parts = components(&entries.location).map_err(|reason| refuse(reason.to_owned()))?;
        let Some(folder) = self.folder else {
            return Err(refuse("there is no folder to look in; load the model from its file".into()));
        };
        if self.open.as_ref().is_none_or(|(location, ..)| *location != entries.location) {
            let (file, size) = open_below(folder, &parts).map_err(refuse)?;
            self.open = Some((entries.location.clone(), file, size));
        }
        let Some((_, file, size)) = &mut self.open else {
            return Err(refuse("is not open".into()));
        };
        let size = *size;
        let outside = |length| OnnxError::ExternalRange {
            at: at.to_owned(),
            location: entries.location.clone(),
            offset: entries.offset,
            length,
            size,
        };
        let length = match entries.length {
            Some(length) => length,
            None => size.checked_sub(entries.offset).ok_or_else(|| outside(expected))?,
        };
        if length != expected {
            return Err(OnnxError::DataSize {
                at: at.to_owned(),
                dtype: tensor::data_type_name(declared.data_type as i32),
                dims: tensor.dims.clone(),
                field: "external_data",
                unit: "bytes",
                expected,
                actual: length,
            });
        }
        if entries.offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(outside(length));
        }
        let key = (entries.location.clone(), entries.offset, length);
        if let Some(bytes) = self.ranges.get(&key) {
            return Ok(bytes.clone());
        }
        self.total = self.total.saturating_add(length);
        if self.total > self.limits.external_bytes {
            let (value, limit) = (self.total, self.limits.external_bytes);
            return Err(OnnxError::TooLarge { at: at.to_owned(), what: "size of external data", value, limit });
        }
        let length = usize::try_from(length).map_err(|_| outside(length))?;
        let read = |file: &mut File| {
            file.seek(SeekFrom::Start(entries.offset))?;
            let mut bytes = vec![0; length];
            file.read_exact(&mut bytes)?;
            Ok::<_, std::io::Error>(Bytes::from(bytes))
        };
        let bytes = read(file).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        self.ranges.insert(key, bytes.clone());
        Ok(bytes)
    }
}

/// The entries of `external_data`, parsed.
struct Entries {
    location: String,
    offset: u64,
    length: Option<u64>,
}

impl Entries {
    fn parse(tensor: &TensorProto, at: &str) -> Result<Self, OnnxError> {
        let (mut location, mut offset, mut length) = (None, None, None);
        let shown = tensor.external_data.iter().find(|e| e.key() == "location").map_or("", |e| e.value());
        let refuse = |reason: String| OnnxError::External {
            at: at.to_owned(),
            location: crate::error_name(shown).to_owned(),
            reason,
        };
        let bytes = |key: &str, value: &str| {
            let value = crate::error_name(value);
            number(value).ok_or_else(|| refuse(format!("{key} {value:?} is not a number of bytes")))
        };
        for entry in &tensor.external_data {
            let (key, value) = (entry.key(), entry.value());
            let twice = match key {
                "location" => location.replace(value.to_owned()).is_some(),
                "offset" => offset.replace(bytes(key, value)?).is_some(),
                "length" => length.replace(bytes(key, value)?).is_some(),
                "basepath" if !value.is_empty() => {
                    return Err(refuse("a base path is not allowed; data must be beside the model".into()));
                }
                _ => false,
            };
            if twice {
                return Err(refuse(format!("key {key:?} appears twice")));
            }
        }
        let location =
            location.ok_or_else(|| OnnxError::Missing { at: at.to_owned(), what: "location of external data" })?;
        Ok(Self { location, offset: offset.unwrap_or(0), length })
    }
}

/// Digits only: no sign, no space.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Parts of a location that stays below its folder; what is wrong with it otherwise.
///
/// Windows forms are refused on every system, so that a model is sound everywhere or nowhere.
pub(crate) fn components(location: &str) -> Result<Vec<&str>, &'static str> {
    if location.is_empty() {
        return Err("the path is empty");
    }
    if location.contains('\0') {
        return Err("the path contains a zero byte");
    }
    if location.contains('\\') {
        return Err("the path contains a backslash; use /");
    }
    if location.starts_with('/') || location.contains(':') {
        return Err("the path must be relative, without a drive or stream");
    }
    let mut parts = Vec::new();
    for part in location.split('/') {
        match part {
            "" => return Err("the path has an empty component"),
            "." => {}
            ".." => return Err("the path must not contain .."),
            part => parts.push(part),
        }
    }
    if parts.is_empty() || parts.len() > 64 { Err("the path names no file") } else { Ok(parts) }
}

const LINK: &str = "is or passes through a symbolic link; put the file itself beside the model";
const NOT_REGULAR: &str = "is not a regular file";

#[cfg(unix)]
fn open_below(folder: &Path, parts: &[&str]) -> Result<(File, u64), String> {
    use rustix::fs::{Mode, OFlags, open, openat};
    use rustix::io::Errno;
    use std::os::unix::fs::MetadataExt as _;

    let explain = |error: Errno| match error {
        // The kernel says ELOOP for a link where a file is wanted, ENOTDIR for a link where a folder is wanted.
        Errno::LOOP | Errno::NOTDIR => LINK.to_owned(),
        error => format!("cannot be opened: {error}"),
    };
    let base = OFlags::RDONLY | OFlags::CLOEXEC;
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut folder = open(folder, base | OFlags::DIRECTORY, Mode::empty()).map_err(|e| format!("folder: {e}"))?;
    let Some((last, folders)) = parts.split_last() else { return Err("names no file".into()) };
    for part in folders {
        folder = openat(&folder, *part, base | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).map_err(explain)?;
    }
    // A pipe would block until somebody writes; a terminal must not become ours.
    let flags = base | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(openat(&folder, *last, flags, Mode::empty()).map_err(explain)?);
    let data = file.metadata().map_err(|e| e.to_string())?;
    if !data.is_file() {
        return Err(NOT_REGULAR.into());
    }
    if data.nlink() != 1 {
        return Err("has more than one hard link; copy it".into());
    }
    Ok((file, data.len()))
}

#[cfg(not(unix))]
fn open_below(folder: &Path, parts: &[&str]) -> Result<(File, u64), String> {
    let mut path = folder.to_path_buf();
    for part in parts {
        path.push(part);
        let data = std::fs::symlink_metadata(&path).map_err(|e| e.to_string())?;
        if data.file_type().is_symlink() {
            return Err(LINK.into());
        }
    }
    let file = File::open(&path).map_err(|e| e.to_string())?;
    let data = file.metadata().map_err(|e| e.to_string())?;
    if data.is_file() { Ok((file, data.len())) } else { Err(NOT_REGULAR.into()) }
}
