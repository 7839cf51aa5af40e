//! ONNX files: messages, load, save, external data, limits.
//!
//! [`OnnxFile::load`] reads files that nobody vouches for. It counts what is inside before it decodes, checks the
//! structure, and brings in external data only from regular files in the model's own folder; each [`OnnxError`] names
//! the node or tensor. What operators mean is not this crate's business.
//!
//! [`tensor_from_proto`] and [`tensor_to_proto`] translate between ONNX tensors and [`netproof_tensor::Tensor`];
//! [`inline_functions`] replaces calls of model-local functions by their bodies.

mod backend;
mod encode;
mod error;
mod external;
mod file;
mod functions;
mod limits;
mod save;
mod tensor;
mod validate;
mod walk;
mod wire;

/// The messages of an ONNX file, as protobuf declares them: IR version 14, proto2 presence.
///
/// Two things differ from what prost would do by itself: `TensorProto::raw_data` is a [`Bytes`], which shares the
/// file's buffer, and the rare members of `AttributeProto` (`t`, `g`, `tp`, `sparse_tensor`) are boxed.
#[allow(missing_docs, unused_qualifications, clippy::all)]
pub mod proto {
    include!("generated.rs");
}

pub use backend::{BackendCase, BackendData, backend_cases};
pub use error::OnnxError;
pub use file::OnnxFile;
pub use functions::inline_functions;
pub use limits::Limits;
pub use prost::bytes::Bytes;
pub use save::SaveOptions;
pub use tensor::{data_type_code, data_type_name, dtype_of_code, read_tensor_file, tensor_from_proto, tensor_to_proto};
pub use validate::{OPSETS, topological_order};

/// A name short enough for a message.
fn error_name(name: &str) -> &str {
    match name.char_indices().nth(120) {
        Some((end, _)) => name.get(..end).unwrap_or(name),
        None => name,
    }
}
