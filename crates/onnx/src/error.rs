use std::path::PathBuf;

use netproof_tensor::TensorError;

/// An ONNX file that cannot be read, is not a sound network, or cannot be written.
///
/// `at` says where: `node "conv1" (Conv)`, `tensor "fc.weight"`, or the way through the messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// Reading or writing failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// `open`, `read`, `write` and so on.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A folder, device or pipe where a file is needed.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
    },
    /// A count or size over its limit.
    #[error("{at}: {what} is {value}, over the limit of {limit}")]
    TooLarge {
        /// Where.
        at: String,
        /// What was counted.
        what: &'static str,
        /// The value found; counting may have stopped there.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// Bytes that are not protobuf, or not the ONNX messages.
    #[error("{at}: {reason} at byte {offset}; the file is damaged or is not an ONNX model")]
    Malformed {
        /// The way through the messages.
        at: String,
        /// Offset in the file.
        offset: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// Bytes that the decoder refuses although their structure is sound.
    #[error("cannot decode the messages")]
    Decode {
        /// The cause.
        #[source]
        source: prost::DecodeError,
    },
    /// A message lacks what it must have.
    #[error("{at}: {what} is missing")]
    Missing {
        /// Where.
        at: String,
        /// What is missing.
        what: &'static str,
    },
    /// A version outside the supported range.
    #[error(
        "{what} {version} is not supported (supported: {min} to {max}); convert the model with onnx.version_converter"
    )]
    Version {
        /// `IR version`, or `opset` with its domain and place.
        what: String,
        /// The version found.
        version: i64,
        /// Oldest supported.
        min: i64,
        /// Newest supported.
        max: i64,
    },
    /// Nodes of a domain whose operator set is not imported.
    #[error("{at}: no operator set is imported for domain \"{domain}\"")]
    OpsetMissing {
        /// The first such node.
        at: String,
        /// The domain; empty for the default one.
        domain: String,
    },
    /// Two things of one name.
    #[error("{at}: {kind} \"{name}\" appears twice")]
    Duplicate {
        /// Where.
        at: String,
        /// `value`, `attribute`, `function`, `operator set`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A value that nothing produces.
    #[error("{at}: value \"{name}\" is used but nothing produces it")]
    UndefinedValue {
        /// The user of the value.
        at: String,
        /// The value.
        name: String,
    },
    /// Nodes that wait for each other.
    #[error("{at}: cycle through {}", nodes.join(" → "))]
    Cycle {
        /// Where.
        at: String,
        /// The nodes (or functions) of one cycle, in order.
        nodes: Vec<String>,
    },
    /// An attribute that contradicts itself or its place.
    #[error("{at}: attribute \"{attribute}\" {reason}")]
    Attribute {
        /// The node or function.
        at: String,
        /// Name of the attribute.
        attribute: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Dimensions that no tensor can have.
    #[error("{at}: dimensions {dims:?} {reason}")]
    Dims {
        /// The tensor or value.
        at: String,
        /// The dimensions.
        dims: Vec<i64>,
        /// What is wrong.
        reason: &'static str,
    },
    /// An element type that does not exist.
    #[error("{at}: element type {code} does not exist")]
    DataType {
        /// The tensor or value.
        at: String,
        /// The code found.
        code: i32,
    },
    /// Data that do not fit the declared shape and type.
    #[error("{at}: {dtype} of dimensions {dims:?} needs {expected} {unit} in {field}, found {actual}")]
    DataSize {
        /// The tensor.
        at: String,
        /// Name of the element type.
        dtype: String,
        /// The dimensions.
        dims: Vec<i64>,
        /// The field that holds the data.
        field: &'static str,
        /// `bytes` or `entries`.
        unit: &'static str,
        /// What the shape needs.
        expected: u64,
        /// What there is.
        actual: u64,
    },
    /// Data in a field that is not the type's, or in two fields.
    #[error("{at}: {dtype} data in {fields}; the type allows one of {allowed}")]
    DataField {
        /// The tensor.
        at: String,
        /// Name of the element type.
        dtype: String,
        /// The fields that are filled.
        fields: String,
        /// The fields that the type may use.
        allowed: &'static str,
    },
    /// An element outside the range of its type.
    #[error("{at}: element {index} is {value}, outside the range of {dtype}")]
    Element {
        /// The tensor.
        at: String,
        /// Position in row-major order.
        index: usize,
        /// The element.
        value: String,
        /// Name of the element type.
        dtype: String,
    },
    /// Something that ONNX has and Netproof has not.
    #[error("{at}: unsupported: {what}")]
    Unsupported {
        /// Where.
        at: String,
        /// What, by its ONNX name.
        what: String,
    },
    /// External data that are refused.
    #[error("{at}: external data \"{location}\": {reason}")]
    External {
        /// The tensor.
        at: String,
        /// The location as the file gives it.
        location: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A range outside the external file.
    #[error("{at}: external data \"{location}\": {length} bytes from {offset} are outside a file of {size} bytes")]
    ExternalRange {
        /// The tensor.
        at: String,
        /// The location as the file gives it.
        location: String,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
        /// Size of the file.
        size: u64,
    },
    /// A call that does not fit its model-local function.
    #[error("{at}: function \"{function}\" {reason}")]
    Function {
        /// The calling node.
        at: String,
        /// The function, with its domain.
        function: String,
        /// What is wrong.
        reason: String,
    },
    /// No initializer of that name.
    #[error("there is no initializer \"{name}\"")]
    NoInitializer {
        /// The name asked for.
        name: String,
    },
    /// A tensor that does not fit the initializer it should replace.
    #[error("initializer \"{name}\" is {expected}, cannot be replaced by {actual}")]
    Replacement {
        /// The initializer.
        name: String,
        /// Its type and shape.
        expected: String,
        /// Type and shape that were given.
        actual: String,
    },
    /// A host tensor that cannot exist.
    #[error("{at}")]
    Tensor {
        /// The tensor.
        at: String,
        /// The cause.
        #[source]
        source: TensorError,
    },
}

impl OnnxError {
    /// Whether the file asks for something that Netproof lacks, as opposed to a damaged or contradictory file.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. } | Self::Version { .. })
    }
}
