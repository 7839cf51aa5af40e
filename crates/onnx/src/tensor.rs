//! ONNX tensors to host tensors and back.

use std::path::Path;

use half::{bf16, f16};
use netproof_tensor::{DType, Elements, MAX_RANK, Tensor, element_count};
use prost::Message as _;
use prost::bytes::Bytes;

use crate::proto::tensor_proto::{DataLocation, DataType};
use crate::proto::{TensorProto, schema};
use crate::walk::tensor_place;
use crate::{Limits, OnnxError, file, wire};

/// The element type of an ONNX type code; `None` for codes that do not exist and for types that host tensors lack
/// (complex, 8-bit floats, everything below 8 bits).
pub fn dtype_of_code(code: i32) -> Option<DType> {
    Some(match DataType::try_from(code).ok()? {
        DataType::Float => DType::F32,
        DataType::Double => DType::F64,
        DataType::Float16 => DType::F16,
        DataType::Bfloat16 => DType::BF16,
        DataType::Int8 => DType::I8,
        DataType::Int16 => DType::I16,
        DataType::Int32 => DType::I32,
        DataType::Int64 => DType::I64,
        DataType::Uint8 => DType::U8,
        DataType::Uint16 => DType::U16,
        DataType::Uint32 => DType::U32,
        DataType::Uint64 => DType::U64,
        DataType::Bool => DType::Bool,
        DataType::String => DType::Text,
        _ => return None,
    })
}

/// The ONNX type code of an element type.
pub fn data_type_code(dtype: DType) -> i32 {
    let code = match dtype {
        DType::F32 => DataType::Float,
        DType::F64 => DataType::Double,
        DType::F16 => DataType::Float16,
        DType::BF16 => DataType::Bfloat16,
        DType::I8 => DataType::Int8,
        DType::I16 => DataType::Int16,
        DType::I32 => DataType::Int32,
        DType::I64 => DataType::Int64,
        DType::U8 => DataType::Uint8,
        DType::U16 => DataType::Uint16,
        DType::U32 => DataType::Uint32,
        DType::U64 => DataType::Uint64,
        DType::Bool => DataType::Bool,
        DType::Text => DataType::String,
        // The enum may grow; a type without a code must not be written as something else.
        _ => DataType::Undefined,
    };
    code as i32
}

/// The ONNX name of a type code, such as `float16` or `int4`; `type 99` for codes that do not exist.
pub fn data_type_name(code: i32) -> String {
    match DataType::try_from(code) {
        Ok(known) => known.as_str_name().to_lowercase(),
        Err(_) => format!("type {code}"),
    }
}

/// Bits of one element in `raw_data`; `None` for text.
fn bits(data_type: DataType) -> Option<u64> {
    use DataType as D;
    Some(match data_type {
        D::Complex128 => 128,
        D::Double | D::Int64 | D::Uint64 | D::Complex64 => 64,
        D::Float | D::Int32 | D::Uint32 => 32,
        D::Float16 | D::Bfloat16 | D::Int16 | D::Uint16 => 16,
        D::Int8 | D::Uint8 | D::Bool => 8,
        D::Float8e4m3fn | D::Float8e4m3fnuz | D::Float8e5m2 | D::Float8e5m2fnuz | D::Float8e8m0 => 8,
        D::Float6e2m3 | D::Float6e3m2 => 6,
        D::Uint4 | D::Int4 | D::Float4e2m1 => 4,
        D::Uint2 | D::Int2 => 2,
        D::String | D::Undefined => return None,
    })
}

/// The field for typed data of a type, and how many elements one entry holds (complex: half of one).
fn typed_field(data_type: DataType) -> (&'static str, &'static str, u64, u64) {
    use DataType as D;
    match data_type {
        D::Float => ("float_data", "float_data, raw_data", 1, 1),
        D::Complex64 => ("float_data", "float_data, raw_data", 2, 1),
        D::Double => ("double_data", "double_data, raw_data", 1, 1),
        D::Complex128 => ("double_data", "double_data, raw_data", 2, 1),
        D::Int64 => ("int64_data", "int64_data, raw_data", 1, 1),
        D::Uint32 | D::Uint64 => ("uint64_data", "uint64_data, raw_data", 1, 1),
        D::String => ("string_data", "string_data", 1, 1),
        D::Uint4 | D::Int4 | D::Float4e2m1 => ("int32_data", "int32_data, raw_data", 1, 2),
        D::Uint2 | D::Int2 => ("int32_data", "int32_data, raw_data", 1, 4),
        _ => ("int32_data", "int32_data, raw_data", 1, 1),
    }
}

/// What a tensor declares, checked.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) data_type: DataType,
    pub(crate) shape: Vec<usize>,
    pub(crate) count: u64,
    /// Bytes as raw data; `None` for text.
    pub(crate) bytes: Option<u64>,
}

/// Whether the data are declared to be in another file.
pub(crate) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32)
}

/// Checks type, dimensions and amount of data of a tensor. Allocates nothing that depends on the dimensions' product.
pub(crate) fn check(tensor: &TensorProto, at: &str, limits: &Limits) -> Result<Declared, OnnxError> {
    let code = tensor.data_type.unwrap_or(0);
    let data_type = match DataType::try_from(code) {
        Ok(DataType::Undefined) | Err(_) => return Err(OnnxError::DataType { at: at.to_owned(), code }),
        Ok(known) => known,
    };
    if tensor.segment.is_some() {
        return Err(OnnxError::Unsupported { at: at.to_owned(), what: "tensor in segments".into() });
    }
    let dims =
        |reason| OnnxError::Dims { at: at.to_owned(), dims: tensor.dims.iter().copied().take(40).collect(), reason };
    if tensor.dims.len() > MAX_RANK {
        return Err(dims("are more than 32"));
    }
    let shape = tensor
        .dims
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| dims("must not be negative or over what the machine can address")))
        .collect::<Result<Vec<_>, _>>()?;
    let count = element_count(&shape).ok_or_else(|| dims("have a product that overflows"))? as u64;
    if count > limits.tensor_elements {
        let (value, limit) = (count, limits.tensor_elements);
        return Err(OnnxError::TooLarge { at: at.to_owned(), what: "number of elements", value, limit });
    }
    let bytes = match bits(data_type) {
        None => None,
        Some(bits) => Some(count.checked_mul(bits).ok_or_else(|| dims("have a product that overflows"))?.div_ceil(8)),
    };
    let declared = Declared { data_type, shape, count, bytes };
    check_amount(tensor, at, &declared)?;
    Ok(declared)
}

fn check_amount(tensor: &TensorProto, at: &str, declared: &Declared) -> Result<(), OnnxError> {
    let raw = tensor.raw_data.as_ref().map_or(0, Bytes::len);
    let filled = [
        ("raw_data", raw),
        ("float_data", tensor.float_data.len()),
        ("int32_data", tensor.int32_data.len()),
        ("string_data", tensor.string_data.len()),
        ("int64_data", tensor.int64_data.len()),
        ("double_data", tensor.double_data.len()),
        ("uint64_data", tensor.uint64_data.len()),
    ];
    let mut filled = filled.into_iter().filter(|(_, length)| *length > 0);
    let (typed, allowed, numerator, denominator) = typed_field(declared.data_type);
    let dtype = || data_type_name(declared.data_type as i32);
    let first = filled.next();
    let rest: Vec<_> = filled.map(|(field, _)| field).collect();
    let wrong = |fields: String| OnnxError::DataField { at: at.to_owned(), dtype: dtype(), fields, allowed };
    let size = |field, unit, expected, actual| OnnxError::DataSize {
        at: at.to_owned(),
        dtype: dtype(),
        dims: tensor.dims.clone(),
        field,
        unit,
        expected,
        actual,
    };
    let Some((field, length)) = first else {
        // Nothing inside the file is right for an empty tensor and for one whose data are elsewhere.
        return if declared.count == 0 || is_external(tensor) {
            Ok(())
        } else {
            Err(size(typed, "entries", (declared.count * numerator).div_ceil(denominator), 0))
        };
    };
    if !rest.is_empty() {
        return Err(wrong(format!("{field} and {}", rest.join(" and "))));
    }
    if is_external(tensor) {
        return Err(wrong(format!("{field} and external data")));
    }
    let length = length as u64;
    match (field, declared.bytes) {
        ("raw_data", Some(expected)) if expected == length => Ok(()),
        ("raw_data", Some(expected)) => Err(size(field, "bytes", expected, length)),
        _ if field != typed => Err(wrong(field.to_owned())),
        _ => {
            let expected = declared.count.saturating_mul(numerator).div_ceil(denominator);
            if expected == length { Ok(()) } else { Err(size(field, "entries", expected, length)) }
        }
    }
}

/// Reads an ONNX tensor, whether its data are raw or in a typed field.
///
/// float16 and bfloat16 become `f32` exactly; double is rounded to `f32`; integers become `i64` (uint64: same bits).
/// # Errors
/// The tensor contradicts itself, its data are still in another file ([`crate::OnnxFile::load`] brings them in), or its
/// type is one that host tensors lack (complex, 8-bit floats, 4-bit integers and the like).
pub fn tensor_from_proto(tensor: &TensorProto) -> Result<Tensor, OnnxError> {
    convert(tensor, &tensor_place(tensor))
}

fn convert(tensor: &TensorProto, at: &str) -> Result<Tensor, OnnxError> {
    let declared = check(tensor, at, &Limits::default())?;
    if is_external(tensor) {
        let location = tensor.external_data.iter().find(|e| e.key() == "location").map_or("", |e| e.value());
        let reason = "was not loaded; load the model from its own folder".to_owned();
        return Err(OnnxError::External { at: at.to_owned(), location: location.to_owned(), reason });
    }
    let code = declared.data_type as i32;
    let Some(dtype) = dtype_of_code(code) else {
        return Err(OnnxError::Unsupported {
            at: at.to_owned(),
            what: format!("element type {}", data_type_name(code)),
        });
    };
    let elements = match &tensor.raw_data {
        Some(raw) if !raw.is_empty() => from_raw(dtype, raw),
        _ => from_fields(dtype, tensor, at)?,
    };
    Tensor::new(dtype, declared.shape, elements).map_err(|source| OnnxError::Tensor { at: at.to_owned(), source })
}

fn from_raw(dtype: DType, raw: &[u8]) -> Elements {
    fn each<const N: usize, T>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
        raw.as_chunks::<N>().0.iter().map(|&bytes| read(bytes)).collect()
    }
    match dtype {
        DType::F32 => Elements::Float(each(raw, f32::from_le_bytes)),
        DType::F64 => Elements::Float(each(raw, |b| f64::from_le_bytes(b) as f32)),
        DType::F16 => Elements::Float(each(raw, |b| f16::from_le_bytes(b).to_f32())),
        DType::BF16 => Elements::Float(each(raw, |b| bf16::from_le_bytes(b).to_f32())),
        DType::I8 => Elements::Int(each(raw, |b| i8::from_le_bytes(b).into())),
        DType::I16 => Elements::Int(each(raw, |b| i16::from_le_bytes(b).into())),
        DType::I32 => Elements::Int(each(raw, |b| i32::from_le_bytes(b).into())),
        DType::U8 => Elements::Int(each(raw, |b| u8::from_le_bytes(b).into())),
        DType::U16 => Elements::Int(each(raw, |b| u16::from_le_bytes(b).into())),
        DType::U32 => Elements::Int(each(raw, |b| u32::from_le_bytes(b).into())),
        DType::Bool => Elements::Bool(raw.iter().map(|&b| b != 0).collect()),
        _ => Elements::Int(each(raw, i64::from_le_bytes)),
    }
}

fn from_fields(dtype: DType, tensor: &TensorProto, at: &str) -> Result<Elements, OnnxError> {
    let outside =
        |index, value: String| OnnxError::Element { at: at.to_owned(), index, value, dtype: dtype.to_string() };
    let in_range = |index: usize, value: i128, (low, high): (i128, i128)| {
        if (low..=high).contains(&value) { Ok(value) } else { Err(outside(index, value.to_string())) }
    };
    // Half-precision floats stand as their bits in int32_data.
    let half_bits =
        |(index, &value): (usize, &i32)| in_range(index, value.into(), (0, u16::MAX.into())).map(|bits| bits as u16);
    let range = dtype.int_range().unwrap_or((i128::MIN, i128::MAX));
    Ok(match dtype {
        DType::F32 => Elements::Float(tensor.float_data.clone()),
        DType::F64 => Elements::Float(tensor.double_data.iter().map(|&v| v as f32).collect()),
        DType::F16 => {
            let bits = tensor.int32_data.iter().enumerate().map(half_bits);
            Elements::Float(bits.map(|b| b.map(|b| f16::from_bits(b).to_f32())).collect::<Result<_, _>>()?)
        }
        DType::BF16 => {
            let bits = tensor.int32_data.iter().enumerate().map(half_bits);
            Elements::Float(bits.map(|b| b.map(|b| bf16::from_bits(b).to_f32())).collect::<Result<_, _>>()?)
        }
        DType::Bool => Elements::Bool(tensor.int32_data.iter().map(|&v| v != 0).collect()),
        DType::I64 => Elements::Int(tensor.int64_data.clone()),
        DType::U64 | DType::U32 => {
            let values = tensor.uint64_data.iter().enumerate();
            Elements::Int(
                values
                    .map(|(i, &v)| in_range(i, v.into(), range).map(|v| v as u64 as i64))
                    .collect::<Result<_, _>>()?,
            )
        }
        DType::Text => {
            let texts = tensor.string_data.iter().enumerate().map(|(i, bytes)| {
                let text = std::str::from_utf8(bytes).map_err(|_| outside(i, "not UTF-8".into()))?;
                Ok(text.to_owned())
            });
            Elements::Text(texts.collect::<Result<_, _>>()?)
        }
        _ => {
            let values = tensor.int32_data.iter().enumerate();
            Elements::Int(
                values.map(|(i, &v)| in_range(i, v.into(), range).map(|v| v as i64)).collect::<Result<_, _>>()?,
            )
        }
    })
}

/// Writes a tensor with raw little-endian data (text: `string_data`).
///
/// `keep` is the type code that the file had, so that a network stored in half precision stays so; it is used where it
/// holds the same kind of elements, otherwise the tensor's own type is written. Floats are rounded to nearest even,
/// integers wrap.
pub fn tensor_to_proto(name: &str, tensor: &Tensor, keep: Option<i32>) -> TensorProto {
    let kept = keep.and_then(dtype_of_code).filter(|kept| same_kind(*kept, tensor.dtype()));
    let dtype = kept.unwrap_or(tensor.dtype());
    let mut out = TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(data_type_code(dtype)),
        dims: tensor.shape().iter().map(|&d| d as i64).collect(),
        ..TensorProto::default()
    };
    match tensor.elements() {
        Elements::Text(texts) => out.string_data = texts.iter().map(|t| t.clone().into_bytes()).collect(),
        elements => out.raw_data = Some(to_raw(dtype, elements).into()),
    }
    out
}

/// Whether both types hold floats, both integers, and so on.
pub(crate) fn same_kind(a: DType, b: DType) -> bool {
    a == b || (a.is_float() && b.is_float()) || (a.is_int() && b.is_int())
}

fn to_raw(dtype: DType, elements: &Elements) -> Vec<u8> {
    let floats = |v: &[f32]| match dtype {
        DType::F64 => v.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect(),
        DType::F16 => v.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        DType::BF16 => v.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        _ => v.iter().flat_map(|&x| x.to_le_bytes()).collect(),
    };
    match elements {
        Elements::Float(v) => floats(v),
        // The low bytes of the two's complement are the wrapped value in every width.
        Elements::Int(v) => v.iter().flat_map(|x| x.to_le_bytes().into_iter().take(dtype.bytes())).collect(),
        Elements::Bool(v) => v.iter().map(|&b| u8::from(b)).collect(),
        Elements::Text(_) => Vec::new(),
    }
}

/// Moves typed data into `raw_data`, bit for bit, where the type has a fixed width of whole bytes.
pub(crate) fn make_raw(tensor: &mut TensorProto) {
    let Ok(data_type) = DataType::try_from(tensor.data_type.unwrap_or(0)) else { return };
    let Some(width) = bits(data_type).filter(|b| b % 8 == 0).map(|b| (b / 8) as usize) else { return };
    if tensor.raw_data.as_ref().is_some_and(|raw| !raw.is_empty()) {
        return;
    }
    fn low<const N: usize>(width: usize, bytes: [u8; N]) -> impl Iterator<Item = u8> {
        bytes.into_iter().take(width)
    }
    let raw: Vec<u8> = match typed_field(data_type).0 {
        "float_data" => std::mem::take(&mut tensor.float_data).into_iter().flat_map(f32::to_le_bytes).collect(),
        "double_data" => std::mem::take(&mut tensor.double_data).into_iter().flat_map(f64::to_le_bytes).collect(),
        "int64_data" => std::mem::take(&mut tensor.int64_data).into_iter().flat_map(i64::to_le_bytes).collect(),
        "uint64_data" => {
            std::mem::take(&mut tensor.uint64_data).into_iter().flat_map(|v| low(width, v.to_le_bytes())).collect()
        }
        _ => std::mem::take(&mut tensor.int32_data).into_iter().flat_map(|v| low(width, v.to_le_bytes())).collect(),
    };
    tensor.raw_data = Some(raw.into());
}

/// Replaces the data of `old`, keeping its name, documentation, element type and everything else it says.
///
/// Doubles whose `f32` value did not change keep all their digits.
/// # Errors
/// Shapes or kinds of elements differ.
pub(crate) fn replace_data(old: &mut TensorProto, new: &Tensor) -> Result<(), OnnxError> {
    let before = tensor_from_proto(old)?;
    if before.shape() != new.shape() || !same_kind(before.dtype(), new.dtype()) {
        let text = |t: &Tensor| format!("{} {:?}", t.dtype(), t.shape());
        return Err(OnnxError::Replacement { name: old.name().to_owned(), expected: text(&before), actual: text(new) });
    }
    let fresh = tensor_to_proto(old.name(), new, old.data_type);
    let mut raw = fresh.raw_data;
    if let (DType::F64, Some(was), Some(is), Some(written)) = (before.dtype(), before.as_f32(), new.as_f32(), &raw) {
        make_raw(old);
        let mut bytes = written.to_vec();
        let kept = old.raw_data.as_deref().unwrap_or_default();
        for (((was, is), out), kept) in was.iter().zip(is).zip(bytes.chunks_exact_mut(8)).zip(kept.chunks_exact(8)) {
            if was.to_bits() == is.to_bits() {
                out.copy_from_slice(kept);
            }
        }
        raw = Some(bytes.into());
    }
    old.raw_data = raw;
    old.string_data = fresh.string_data;
    old.float_data.clear();
    old.int32_data.clear();
    old.int64_data.clear();
    old.uint64_data.clear();
    old.double_data.clear();
    Ok(())
}

/// Reads a file that holds one tensor, as the ONNX backend tests have for inputs and outputs (`input_0.pb`).
///
/// Returns the name (often empty) and the tensor. Such files do not say what they hold, so a sequence or an optional
/// value is recognised by its fields.
/// # Errors
/// The file cannot be read, is damaged, or holds a sequence, an optional value or an unsupported element type.
pub fn read_tensor_file(path: &Path, limits: &Limits) -> Result<(String, Tensor), OnnxError> {
    let bytes = file::read_limited(path, limits)?;
    let at = format!("file {:?}", path.file_name().unwrap_or_default());
    if bytes.is_empty() {
        return Err(OnnxError::Missing { at, what: "all content" });
    }
    let unsupported = |what: &str| OnnxError::Unsupported { at: at.clone(), what: what.to_owned() };
    // Sequences and optional values have a name in field 1, a type in field 2 and messages above. Tensors have numbers
    // in fields 1 and 2, never use field 3, and have their name and data above it. Sparse tensors have messages in 1 and 2.
    let (mut header_only, mut named) = (true, false);
    for (number, wire_type) in wire::fields_of(&bytes) {
        match (number, wire_type) {
            (2, 2) => return Err(unsupported("sparse tensor")),
            (3, 2) => return Err(unsupported("sequence or optional value")),
            _ => header_only &= number <= 2,
        }
        // A name, or dimensions packed into one field, which few writers do.
        named |= (number, wire_type) == (1, 2);
    }
    let read = || {
        wire::survey(&schema::TENSOR_PROTO, &bytes, limits)?;
        let tensor = TensorProto::decode(bytes.clone()).map_err(|source| OnnxError::Decode { source })?;
        if header_only && !tensor.dims.contains(&0) {
            return Err(unsupported("empty sequence or optional value"));
        }
        check(&tensor, &at, limits)?;
        Ok(tensor)
    };
    let mut tensor = match read() {
        Err(error) if named && !error.is_unsupported() => return Err(unsupported("sequence or optional value")),
        other => other?,
    };
    let name = tensor.name.take().unwrap_or_default();
    Ok((name, convert(&tensor, &at)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(data_type: DataType, dims: &[i64]) -> TensorProto {
        TensorProto {
            data_type: Some(data_type as i32),
            dims: dims.to_vec(),
            name: Some("t".into()),
            ..Default::default()
        }
    }

    #[test]
    fn typed_fields_and_raw_data_hold_the_same_numbers() {
        let half = TensorProto { int32_data: vec![0x3c00, 0xc000, 0x7c00], ..typed(DataType::Float16, &[3]) };
        assert_eq!(tensor_from_proto(&half).unwrap().as_f32().unwrap(), [1.0, -2.0, f32::INFINITY]);
        let brain = TensorProto { int32_data: vec![0x3f80, 0xc000], ..typed(DataType::Bfloat16, &[2]) };
        assert_eq!(tensor_from_proto(&brain).unwrap().as_f32().unwrap(), [1.0, -2.0]);
        let wide = TensorProto { uint64_data: vec![u64::MAX, 3], ..typed(DataType::Uint64, &[2]) };
        assert_eq!(tensor_from_proto(&wide).unwrap().as_i64().unwrap(), [-1, 3]);
        let small = TensorProto { int32_data: vec![-128, 127], ..typed(DataType::Int8, &[2]) };
        assert_eq!(tensor_from_proto(&small).unwrap().as_i64().unwrap(), [-128, 127]);
        let flags = TensorProto { int32_data: vec![0, 1], ..typed(DataType::Bool, &[2]) };
        assert_eq!(tensor_from_proto(&flags).unwrap().as_bool().unwrap(), [false, true]);
        let text = TensorProto { string_data: vec![b"a".to_vec(), "ß".into()], ..typed(DataType::String, &[2]) };
        assert_eq!(tensor_from_proto(&text).unwrap().as_text().unwrap(), ["a", "ß"]);
        let double = TensorProto { double_data: vec![0.1], ..typed(DataType::Double, &[]) };
        assert_eq!(tensor_from_proto(&double).unwrap().as_f32().unwrap(), [0.1f32]);
        for tensor in [half, brain, wide, small, flags, double] {
            let mut raw = tensor.clone();
            make_raw(&mut raw);
            assert!(raw.raw_data.as_ref().is_some_and(|r| !r.is_empty()) && raw.int32_data.is_empty());
            assert_eq!(tensor_from_proto(&raw).unwrap(), tensor_from_proto(&tensor).unwrap());
        }
    }

    #[test]
    fn every_type_survives_writing_and_reading() {
        let floats = [DType::F32, DType::F64, DType::F16, DType::BF16];
        let ints = [DType::I8, DType::I16, DType::I32, DType::I64, DType::U8, DType::U16, DType::U32, DType::U64];
        let mut all: Vec<Tensor> = Vec::new();
        for dtype in floats {
            all.push(
                Tensor::new(dtype, vec![2, 2], Elements::Float(vec![-0.0, 1.5, f32::NEG_INFINITY, 256.0])).unwrap(),
            );
        }
        for dtype in ints {
            let (low, high) = dtype.int_range().unwrap();
            let (low, high) = (low as i64, high as u64 as i64);
            all.push(Tensor::new(dtype, vec![3], Elements::Int(vec![low, 7, high])).unwrap());
        }
        all.push(Tensor::bool(vec![1, 2], vec![true, false]).unwrap());
        all.push(Tensor::new(DType::Text, vec![1], Elements::Text(vec!["x".into()])).unwrap());
        all.push(Tensor::f32(vec![0, 4], vec![]).unwrap());
        for tensor in all {
            let proto = tensor_to_proto("t", &tensor, None);
            assert_eq!(tensor_from_proto(&proto).unwrap(), tensor);
        }
    }

    #[test]
    fn the_type_of_the_file_is_kept_only_for_the_same_kind() {
        let t = Tensor::f32(vec![1], vec![1.0]).unwrap();
        let kept = tensor_to_proto("t", &t, Some(DataType::Float16 as i32));
        assert_eq!((kept.data_type, kept.raw_data.unwrap().as_ref()), (Some(10), &[0x00, 0x3c][..]));
        assert_eq!(tensor_to_proto("t", &t, Some(DataType::Int8 as i32)).data_type, Some(1));
    }

    #[test]
    fn elements_outside_their_type_and_missing_types_are_named() {
        let wrong = TensorProto { int32_data: vec![0, 300], ..typed(DataType::Uint8, &[2]) };
        let text = tensor_from_proto(&wrong).unwrap_err().to_string();
        assert_eq!(text, "tensor \"t\": element 1 is 300, outside the range of uint8");
        for (data_type, name) in
            [(DataType::Int4, "int4"), (DataType::Float8e5m2, "float8e5m2"), (DataType::Complex64, "complex64")]
        {
            let bytes = (bits(data_type).unwrap() * 2).div_ceil(8) as usize;
            let tensor = TensorProto { raw_data: Some(vec![0; bytes].into()), ..typed(data_type, &[2]) };
            let error = tensor_from_proto(&tensor).unwrap_err();
            assert_eq!(error.to_string(), format!("tensor \"t\": unsupported: element type {name}"));
            assert!(error.is_unsupported());
        }
        let bytes = TensorProto { string_data: vec![vec![0xff]], ..typed(DataType::String, &[1]) };
        assert!(matches!(tensor_from_proto(&bytes), Err(OnnxError::Element { index: 0, .. })));
    }

    #[test]
    fn doubles_that_did_not_change_keep_their_digits() {
        let mut old =
            TensorProto { double_data: vec![0.1, 0.2], doc_string: Some("d".into()), ..typed(DataType::Double, &[2]) };
        let new = Tensor::f32(vec![2], vec![0.1, 0.5]).unwrap();
        replace_data(&mut old, &new).unwrap();
        let raw = old.raw_data.clone().unwrap();
        assert_eq!(raw.chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect::<Vec<_>>(), [0.1, 0.5]);
        assert_eq!((old.doc_string.as_deref(), old.double_data.len()), (Some("d"), 0));
        let other = Tensor::f32(vec![1, 2], vec![0.1, 0.5]).unwrap();
        assert!(matches!(replace_data(&mut old, &other), Err(OnnxError::Replacement { .. })));
    }
}
