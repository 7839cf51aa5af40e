use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::path::Path;

use netproof_tensor::Tensor;
use prost::Message as _;
use prost::bytes::Bytes;

use crate::encode::Unknown;
use crate::proto::{ModelProto, TensorProto, schema};
use crate::{Limits, OnnxError, encode, external, tensor, validate, wire};

/// An ONNX model in memory, complete: external data are part of it.
///
/// # Guarantees
/// A model that was loaded has passed [`OnnxFile::validate`]. What is saved has everything that was loaded, including
/// fields of newer ONNX versions in the model, its graph, functions, nodes and initializers.
#[derive(Debug, Clone)]
pub struct OnnxFile {
    /// The messages. Free to be changed; [`OnnxFile::validate`] tells whether they are still sound.
    pub model: ModelProto,
    pub(crate) unknown: Unknown,
    limits: Limits,
}

impl From<ModelProto> for OnnxFile {
    /// A model that was built rather than loaded; not validated.
    fn from(model: ModelProto) -> Self {
        Self { model, unknown: Unknown::default(), limits: Limits::default() }
    }
}

impl OnnxFile {
    /// Reads and validates a model, with its external data from the folder it is in.
    /// # Errors
    /// The file cannot be read, is over a limit, is damaged, or is not a sound network.
    pub fn load(path: &Path, limits: &Limits) -> Result<Self, OnnxError> {
        Self::from_shared(read_limited(path, limits)?, path.parent(), limits)
    }

    /// Reads and validates a model from memory. External data are looked for in `folder` only; without one, a model that
    /// has any is refused.
    /// # Errors
    /// As for [`OnnxFile::load`].
    pub fn from_bytes(bytes: &[u8], folder: Option<&Path>, limits: &Limits) -> Result<Self, OnnxError> {
        check_size("model", bytes.len() as u64, limits)?;
        Self::from_shared(Bytes::copy_from_slice(bytes), folder, limits)
    }

    fn from_shared(bytes: Bytes, folder: Option<&Path>, limits: &Limits) -> Result<Self, OnnxError> {
        if bytes.is_empty() {
            return Err(OnnxError::Missing { at: "model".into(), what: "all content" });
        }
        let survey = wire::survey(&schema::MODEL_PROTO, &bytes, limits)?;
        let mut model = ModelProto::decode(bytes).map_err(|source| OnnxError::Decode { source })?;
        let unknown = Unknown::new(survey, &model);
        external::resolve(&mut model, folder, limits)?;
        let file = Self { model, unknown, limits: limits.clone() };
        file.validate()?;
        Ok(file)
    }

    /// Checks versions, names, order, types, dimensions and amounts of data, in all graphs and functions.
    ///
    /// Nodes may stand in any order. Operators and their attributes are not judged.
    /// # Errors
    /// The first thing that is wrong, with its node or tensor.
    pub fn validate(&self) -> Result<(), OnnxError> {
        validate::model(&self.model, &self.limits)
    }

    /// The model as protobuf. A model that was not changed gives the bytes of the usual ONNX writers.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::model(&self.model, &self.unknown)
    }

    /// The initializer of that name in the main graph.
    pub fn initializer(&self, name: &str) -> Option<&TensorProto> {
        self.model.graph.as_ref()?.initializer.iter().find(|t| t.name() == name)
    }

    /// Replaces the numbers of an initializer of the main graph. Its element type in the file stays, as do its shape,
    /// documentation and place.
    /// # Errors
    /// There is no such initializer, or shape or kind of elements differ.
    pub fn set_initializer(&mut self, name: &str, tensor: &Tensor) -> Result<(), OnnxError> {
        let graph = self.model.graph.as_mut();
        let found = graph.and_then(|g| g.initializer.iter_mut().find(|t| t.name() == name));
        let old = found.ok_or_else(|| OnnxError::NoInitializer { name: name.to_owned() })?;
        tensor::replace_data(old, tensor)
    }

    /// Fields of newer ONNX versions that saving cannot keep, as `AttributeProto field 99`; nearly always empty.
    pub fn lost_fields(&self) -> &[String] {
        &self.unknown.lost
    }
}

fn check_size(at: &str, value: u64, limits: &Limits) -> Result<(), OnnxError> {
    let limit = limits.file_bytes;
    if value > limit {
        return Err(OnnxError::TooLarge { at: at.to_owned(), what: "size in bytes", value, limit });
    }
    Ok(())
}

/// Reads a regular file, up to the limit.
pub(crate) fn read_limited(path: &Path, limits: &Limits) -> Result<Bytes, OnnxError> {
    let io = |action| move |source| OnnxError::Io { action, path: path.to_path_buf(), source };
    let file = open_without_waiting(path).map_err(io("open"))?;
    let data = file.metadata().map_err(io("read"))?;
    if !data.is_file() {
        return Err(OnnxError::NotAFile { path: path.to_path_buf() });
    }
    let at = format!("file {:?}", path.file_name().unwrap_or_default());
    check_size(&at, data.len(), limits)?;
    let mut bytes = Vec::with_capacity(usize::try_from(data.len()).unwrap_or(0));
    // The file may grow while it is read.
    file.take(limits.file_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(io("read"))?;
    check_size(&at, bytes.len() as u64, limits)?;
    Ok(bytes.into())
}

/// Opens a file; a pipe without a writer must not stop the program.
fn open_without_waiting(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    }
    options.open(path)
}
