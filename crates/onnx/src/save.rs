//! Writing models: whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message as _;

use crate::proto::tensor_proto::DataLocation;
use crate::proto::{StringStringEntryProto, TensorProto};
use crate::{Bytes, OnnxError, OnnxFile, encode, tensor};

/// Largest protobuf message that other readers accept.
const PROTOBUF_BYTES: u64 = (1 << 31) - 1;
/// Tensors below this stay in the model's file, where tools can show them.
const EXTERNAL_THRESHOLD: usize = 1024;
/// Alignment that ONNX recommends, so that data can be mapped into memory.
const PAGE: u64 = 4096;
/// Names tried for the file of weights before giving up.
const DATA_NAMES: u32 = 16;

/// How a model is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SaveOptions {
    /// Put the main graph's weights of 1 KiB and more into a second file, `<name>.onnx.data`. Needed beyond 2 GiB.
    pub external_data: bool,
}

impl OnnxFile {
    /// Writes the model, replacing a file of that name in one step: a crash leaves the old file or the new one.
    ///
    /// With external data the weights go to `<name>.onnx.data`; where that exists, to `<name>.onnx.1.data` and so on,
    /// because the old model needs its own weights until the new one is in place; then the older ones are removed.
    /// Links of these names are replaced, never followed.
    /// # Errors
    /// The folder cannot be written to, or the model is over 2 GiB and `external_data` is off.
    pub fn save(&self, path: &Path, options: SaveOptions) -> Result<(), OnnxError> {
        if !options.external_data {
            let at = format!("file {:?}", path.file_name().unwrap_or_default());
            let (value, limit) = (self.model.encoded_len() as u64, PROTOBUF_BYTES);
            if value > limit {
                return Err(OnnxError::TooLarge { at, what: "size without external data, in bytes,", value, limit });
            }
            return write_atomically(path, |out| out.write_all(&self.to_bytes()));
        }
        let (names, free) = data_names(path)?;
        let mut model = self.model.clone();
        let mut chunks: Vec<(u64, Bytes)> = Vec::new();
        let mut end = 0u64;
        for tensor in model.graph.iter_mut().flat_map(|g| &mut g.initializer) {
            end = move_out(tensor, &free, end, &mut chunks);
        }
        write_atomically(&path.with_file_name(&free), |out| {
            let mut at = 0;
            for (offset, bytes) in &chunks {
                io::copy(&mut io::Read::take(io::repeat(0), offset - at), out)?;
                out.write_all(bytes)?;
                at = offset + bytes.len() as u64;
            }
            Ok(())
        })?;
        write_atomically(path, |out| out.write_all(&encode::model(&model, &self.unknown)))?;
        for old in names.iter().filter(|name| **name != free).map(|name| path.with_file_name(name)) {
            if fs::symlink_metadata(&old).is_ok_and(|data| data.is_file()) {
                // What remains is unused; failing now would call a model broken that is saved.
                let _ = fs::remove_file(old);
            }
        }
        Ok(())
    }
}

/// All names for the file of weights, and the first that is free.
fn data_names(path: &Path) -> Result<(Vec<String>, String), OnnxError> {
    let io = |source| OnnxError::Io { action: "write", path: path.to_path_buf(), source };
    let name = path.file_name().and_then(|n| n.to_str());
    let name = name.ok_or_else(|| io(io::Error::new(io::ErrorKind::InvalidInput, "the file name must be UTF-8")))?;
    if crate::external::components(name).is_err() {
        return Err(io(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the file name cannot be a location of external data",
        )));
    }
    let mut names = vec![format!("{name}.data")];
    names.extend((1..DATA_NAMES).map(|n| format!("{name}.{n}.data")));
    let free = names.iter().find(|name| {
        let found = fs::symlink_metadata(path.with_file_name(name));
        found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    });
    let free = free.cloned().ok_or_else(|| io(io::Error::other("too many files of weights with this name")))?;
    Ok((names, free))
}

/// Takes a tensor's data out, to `offset` or the next page after it; returns where the data end.
fn move_out(tensor: &mut TensorProto, location: &str, offset: u64, chunks: &mut Vec<(u64, Bytes)>) -> u64 {
    if tensor.encoded_len() < EXTERNAL_THRESHOLD {
        return offset;
    }
    tensor::make_raw(tensor);
    let Some(raw) = tensor.raw_data.take_if(|raw| raw.len() >= EXTERNAL_THRESHOLD) else { return offset };
    let offset = offset.next_multiple_of(PAGE);
    let end = offset + raw.len() as u64;
    let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
    tensor.external_data = vec![
        entry("location", location.to_owned()),
        entry("offset", offset.to_string()),
        entry("length", raw.len().to_string()),
    ];
    tensor.data_location = Some(DataLocation::External as i32);
    chunks.push((offset, raw));
    end
}

/// Writes a temporary file in the same folder, syncs it, and renames it into place.
fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), OnnxError> {
    let io = |action| move |source| OnnxError::Io { action, path: path.to_path_buf(), source };
    let (temporary, file) = create_temporary(path).map_err(io("create a temporary file beside"))?;
    let finish = || {
        let mut out = io::BufWriter::new(&file);
        write(&mut out)?;
        out.flush()?;
        drop(out);
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(path)
    };
    finish().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        io("write")(source)
    })
}

fn create_temporary(path: &Path) -> io::Result<(std::path::PathBuf, File)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    loop {
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let temporary = path.with_file_name(hidden);
        // `create_new` neither follows a link nor opens what somebody else put there.
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes the new name durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
