//! The NPY header and element types: what NumPy's `save` writes, without pickled objects.
//!
//! # Source
//! NumPy enhancement proposal 1 and `numpy.lib.format`, versions 1.0 to 3.0.

use std::path::Path;

use netproof_tensor::{DType, Elements, Tensor, element_count};

use crate::DataError;
use crate::source::{Array, Kind, Values};

pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy refuses longer headers too; ordinary ones take 118 bytes.
const MAX_HEADER: usize = 64 << 10;

/// How one element is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) code: Code,
    pub(crate) big_endian: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Bool,
    Int(usize),
    Uint(usize),
    Float(usize),
    /// UTF-32 code points.
    Unicode(usize),
    Bytes(usize),
}

impl Element {
    pub(crate) fn bytes(self) -> usize {
        match self.code {
            Code::Bool => 1,
            Code::Int(n) | Code::Uint(n) | Code::Float(n) | Code::Bytes(n) => n,
            Code::Unicode(n) => n.saturating_mul(4),
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self.code {
            Code::Bool => Kind::Bool,
            Code::Uint(1) => Kind::U8,
            Code::Int(_) | Code::Uint(_) => Kind::Int,
            Code::Float(_) => Kind::Float,
            Code::Unicode(_) | Code::Bytes(_) => Kind::Text,
        }
    }

    /// The element type as tensors have it.
    pub(crate) fn dtype(self) -> DType {
        match self.code {
            Code::Bool => DType::Bool,
            Code::Int(1) => DType::I8,
            Code::Int(2) => DType::I16,
            Code::Int(4) => DType::I32,
            Code::Int(_) => DType::I64,
            Code::Uint(1) => DType::U8,
            Code::Uint(2) => DType::U16,
            Code::Uint(4) => DType::U32,
            Code::Uint(_) => DType::U64,
            Code::Float(2) => DType::F16,
            Code::Float(4) => DType::F32,
            Code::Float(_) => DType::F64,
            Code::Unicode(_) | Code::Bytes(_) => DType::Text,
        }
    }

    /// Elements from their bytes, whose length is a multiple of [`Element::bytes`], or what is wrong with them.
    pub(crate) fn decode(self, bytes: &[u8]) -> Result<Array, String> {
        let size = self.bytes();
        if size == 0 {
            return Err("elements of no bytes".into());
        }
        let chunks = bytes.chunks_exact(size);
        let word = |c: &[u8]| {
            let step = |n: u64, &b: &u8| n << 8 | u64::from(b);
            if self.big_endian { c.iter().fold(0, step) } else { c.iter().rev().fold(0, step) }
        };
        Ok(Array::new(match self.code {
            Code::Bool => Values::Bool(bytes.iter().map(|&b| b != 0).collect()),
            Code::Uint(1) => Values::U8(bytes.to_vec()),
            Code::Int(n) => {
                let shift = 64 - 8 * n as u32;
                Values::Int(chunks.map(|c| ((word(c) << shift) as i64) >> shift).collect())
            }
            Code::Uint(_) => Values::Int(
                chunks
                    .map(|c| i64::try_from(word(c)).map_err(|_| format!("value {} is over 2^63 - 1", word(c))))
                    .collect::<Result<_, _>>()?,
            ),
            Code::Float(2) => Values::Float(chunks.map(|c| half::f16::from_bits(word(c) as u16).to_f32()).collect()),
            Code::Float(4) if !self.big_endian => {
                Values::Float(bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect())
            }
            Code::Float(4) => Values::Float(chunks.map(|c| f32::from_bits(word(c) as u32)).collect()),
            Code::Float(_) => Values::Float(chunks.map(|c| f64::from_bits(word(c)) as f32).collect()),
            Code::Unicode(_) => Values::Text(
                chunks
                    .map(|c| {
                        let points: Vec<u32> = c.chunks_exact(4).map(|p| word(p) as u32).collect();
                        let end = points.iter().rposition(|&p| p != 0).map_or(0, |i| i + 1);
                        points[..end]
                            .iter()
                            .map(|&p| char::from_u32(p).ok_or_else(|| format!("{p:#x} is no character")))
                            .collect()
                    })
                    .collect::<Result<_, _>>()?,
            ),
            Code::Bytes(_) => Values::Text(
                chunks
                    .map(|c| {
                        let end = c.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
                        String::from_utf8(c[..end].to_vec()).map_err(|_| "text is not UTF-8".to_string())
                    })
                    .collect::<Result<_, _>>()?,
            ),
        }))
    }
}

/// What an NPY header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) element: Element,
    pub(crate) fortran: bool,
    pub(crate) shape: Vec<usize>,
    /// Bytes before the data.
    pub(crate) bytes: usize,
}

impl Header {
    /// Reads a header and checks that it fits a member of `size` bytes, where the size is known.
    pub(crate) fn read(
        input: &mut impl std::io::Read,
        size: Option<u64>,
        path: &Path,
        part: &str,
    ) -> Result<Self, DataError> {
        let bad = |reason: &str| DataError::malformed(path, part, reason);
        let mut fixed = [0; 8];
        input.read_exact(&mut fixed).map_err(|_| bad("ends inside the NPY header"))?;
        if !fixed.starts_with(MAGIC) {
            return Err(bad("is not an NPY array"));
        }
        let length_bytes = match fixed[6] {
            1 => 2,
            2 | 3 => 4,
            v => return Err(bad(&format!("NPY version {v} is unknown; 1 to 3 can be read"))),
        };
        let mut length = [0; 4];
        input.read_exact(&mut length[..length_bytes]).map_err(|_| bad("ends inside the NPY header"))?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_HEADER {
            return Err(bad(&format!("the NPY header claims {length} bytes; at most {MAX_HEADER} are allowed")));
        }
        let mut text = vec![0; length];
        input.read_exact(&mut text).map_err(|_| bad("ends inside the NPY header"))?;
        let text = std::str::from_utf8(&text).map_err(|_| bad("the NPY header is not text"))?;
        let (descr, fortran, shape) = parse_dict(text).ok_or_else(|| bad("the NPY header cannot be understood"))?;
        let element = parse_descr(&descr).map_err(|reason| match reason {
            Descr::Object => DataError::Pickle { path: path.into(), found: format!("array {part} of Python objects") },
            Descr::Unknown(what) => DataError::unsupported(path, part, what),
        })?;
        if shape.len() > netproof_tensor::MAX_RANK {
            return Err(bad(&format!("rank {} is over {}", shape.len(), netproof_tensor::MAX_RANK)));
        }
        let bytes = 8 + length_bytes + length;
        let data = element_count(&shape).and_then(|n| n.checked_mul(element.bytes()));
        let data = data.ok_or_else(|| bad(&format!("shape {shape:?} is more than this machine can address")))?;
        if let Some(size) = size
            && size.checked_sub(bytes as u64) != Some(data as u64)
        {
            return Err(bad(&format!(
                "shape {shape:?} of type {descr} needs {data} bytes, but there are {}",
                size.saturating_sub(bytes as u64)
            )));
        }
        Ok(Self { element, fortran, shape, bytes })
    }

    pub(crate) fn rows(&self) -> u64 {
        self.shape.first().map_or(0, |&n| n as u64)
    }
}

enum Descr {
    Object,
    Unknown(String),
}

fn parse_descr(descr: &str) -> Result<Element, Descr> {
    let unknown = |what: &str| {
        Descr::Unknown(format!("element type {descr}: {what}; store numbers, truth values or text as a plain array"))
    };
    if descr.starts_with('[') {
        return Err(if descr.contains("|O") { Descr::Object } else { unknown("records of named fields") });
    }
    let mut chars = descr.chars();
    let (order, letter) = (chars.next(), chars.next());
    if letter == Some('O') || descr.starts_with('O') {
        return Err(Descr::Object);
    }
    let big_endian = match order {
        Some('<' | '|' | '=') => false,
        Some('>') => true,
        _ => return Err(unknown("no byte order")),
    };
    let size: usize = chars.as_str().parse().map_err(|_| unknown("no size"))?;
    let code = match (letter, size) {
        (Some('b'), 1) => Code::Bool,
        (Some('i'), 1 | 2 | 4 | 8) => Code::Int(size),
        (Some('u'), 1 | 2 | 4 | 8) => Code::Uint(size),
        (Some('f'), 2 | 4 | 8) => Code::Float(size),
        // A text type of no characters is what NumPy gives arrays of empty strings.
        (Some('U'), 1..=1_000_000) => Code::Unicode(size),
        (Some('S'), 1..=4_000_000) => Code::Bytes(size),
        _ => return Err(unknown("not one that can be read")),
    };
    Ok(Element { code, big_endian })
}

/// The three entries of the header's Python dictionary, in any order; `None` for anything else.
fn parse_dict(text: &str) -> Option<(String, bool, Vec<usize>)> {
    let mut rest = text.trim().strip_prefix('{')?.trim_end().strip_suffix('}')?.trim();
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, after) = quoted(rest)?;
        rest = after.trim_start().strip_prefix(':')?.trim_start();
        match key {
            "descr" if descr.is_none() => {
                if rest.starts_with('[') {
                    // A record type: kept as text, so that the error can name it.
                    let end = rest.rfind(']')? + 1;
                    let list_end = rest.find("], '").map_or(end, |i| i + 1);
                    descr = Some(rest[..list_end].to_string());
                    rest = &rest[list_end..];
                } else {
                    let (value, after) = quoted(rest)?;
                    descr = Some(value.to_string());
                    rest = after;
                }
            }
            "fortran_order" if fortran.is_none() => {
                let (value, after) = if let Some(after) = rest.strip_prefix("True") {
                    (true, after)
                } else {
                    (false, rest.strip_prefix("False")?)
                };
                fortran = Some(value);
                rest = after;
            }
            "shape" if shape.is_none() => {
                let (inside, after) = rest.strip_prefix('(')?.split_once(')')?;
                let parts = inside.split(',').map(str::trim).filter(|d| !d.is_empty());
                shape = Some(parts.map(|d| d.trim_end_matches('L').parse().ok()).collect::<Option<Vec<usize>>>()?);
                rest = after;
            }
            _ => return None,
        }
        rest = rest.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some((descr?, fortran?, shape?))
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

/// Header bytes of version 1 or 2 for a little-endian, row-major array.
pub(crate) fn header_bytes(descr: &str, shape: &[usize]) -> Vec<u8> {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    let tuple = if let [one] = dims.as_slice() { format!("({one},)") } else { format!("({})", dims.join(", ")) };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple}, }}");
    // NumPy pads so that the data starts at a multiple of 64. A rank of at most 32 keeps this below version 1's 64 KiB.
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.into_bytes());
    out
}

/// The type under which a tensor is written, and the bytes of one element.
pub(crate) fn descr_of(tensor: &Tensor) -> (String, usize) {
    let plain = |s: &str, n| (s.to_string(), n);
    match tensor.dtype() {
        DType::F64 => plain("<f8", 8),
        DType::F16 => plain("<f2", 2),
        DType::I8 => plain("|i1", 1),
        DType::I16 => plain("<i2", 2),
        DType::I32 => plain("<i4", 4),
        DType::I64 => plain("<i8", 8),
        DType::U8 => plain("|u1", 1),
        DType::U16 => plain("<u2", 2),
        DType::U32 => plain("<u4", 4),
        DType::U64 => plain("<u8", 8),
        DType::Bool => plain("|b1", 1),
        DType::Text => {
            let longest = tensor.as_text().into_iter().flatten().map(|s| s.chars().count()).max().unwrap_or(0).max(1);
            (format!("<U{longest}"), longest * 4)
        }
        // NumPy has no bfloat16; single precision holds all its values.
        _ => plain("<f4", 4),
    }
}

/// Writes the elements `start..end` little endian, as [`descr_of`] says.
pub(crate) fn encode(tensor: &Tensor, start: usize, end: usize, out: &mut Vec<u8>) {
    let (_, size) = descr_of(tensor);
    match tensor.elements() {
        Elements::Float(v) => {
            for &x in &v[start..end] {
                match size {
                    8 => out.extend(f64::from(x).to_le_bytes()),
                    2 => out.extend(half::f16::from_f32(x).to_le_bytes()),
                    _ => out.extend(x.to_le_bytes()),
                }
            }
        }
        Elements::Int(v) => v[start..end].iter().for_each(|x| out.extend(&x.to_le_bytes()[..size])),
        Elements::Bool(v) => out.extend(v[start..end].iter().map(|&b| u8::from(b))),
        Elements::Text(v) => {
            for text in &v[start..end] {
                let before = out.len();
                text.chars().for_each(|c| out.extend((c as u32).to_le_bytes()));
                out.resize(before + size, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Result<Header, DataError> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        Header::read(&mut &bytes[..], None, Path::new("a.npy"), "a")
    }

    #[test]
    fn headers_as_numpy_writes_them() {
        let h = header("{'descr': '>f8', 'fortran_order': True, 'shape': (3, 4), }   \n").unwrap();
        assert_eq!(h.element, Element { code: Code::Float(8), big_endian: true });
        assert!(h.fortran && h.shape == [3, 4]);
        assert_eq!(header("{'shape': (5,), 'descr': '<U6', 'fortran_order': False}").unwrap().shape, [5]);
        assert_eq!(header("{'descr': '|b1', 'fortran_order': False, 'shape': (), }").unwrap().shape, [0usize; 0]);
    }

    #[test]
    fn hostile_headers_are_errors() {
        let object = header("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }");
        assert!(matches!(object, Err(DataError::Pickle { .. })), "{object:?}");
        let hidden = header("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (3,), }");
        assert!(matches!(hidden, Err(DataError::Pickle { .. })), "{hidden:?}");
        let record = header("{'descr': [('a', '<f4'), ('b', '<i4')], 'fortran_order': False, 'shape': (3,), }");
        assert!(matches!(record, Err(DataError::Unsupported { .. })), "{record:?}");
        for text in [
            "",
            "{",
            "{}",
            "[]",
            "{'descr': '<f4'}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
            "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551615, 2)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 18446744073709551615, 2)}",
            "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
            "{'descr': '', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<U99999999999', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': 'é', 'fortran_order': False, 'shape': (1,)}",
        ] {
            assert!(header(text).is_err(), "{text}");
        }
        // A length field of almost 4 GiB (libnpy issue 44) is refused before anything is allocated.
        let huge = b"\x93NUMPY\x02\x00\xf0\xff\xff\xff{";
        let error = Header::read(&mut &huge[..], None, Path::new("a.npy"), "a").unwrap_err().to_string();
        assert!(error.contains("4294967280"), "{error}");
        // More data claimed than the member has.
        let mut lie = header_bytes("<f4", &[1 << 30]);
        let size = lie.len() as u64 + 2048;
        lie.resize(size as usize, 0);
        assert!(Header::read(&mut &lie[..], Some(size), Path::new("a.npy"), "a").is_err());
    }

    #[test]
    fn elements_of_every_type() {
        let decode = |code, big_endian, bytes: &[u8]| Element { code, big_endian }.decode(bytes).map(|a| a.values);
        assert_eq!(decode(Code::Int(2), true, &[0xff, 0xfe, 0, 1]).unwrap(), Values::Int(vec![-2, 1]));
        assert_eq!(decode(Code::Int(8), false, &(-3i64).to_le_bytes()).unwrap(), Values::Int(vec![-3]));
        assert_eq!(decode(Code::Int(1), false, &[0x80]).unwrap(), Values::Int(vec![-128]));
        assert_eq!(decode(Code::Uint(4), false, &[1, 0, 0, 0x80]).unwrap(), Values::Int(vec![0x8000_0001]));
        assert!(decode(Code::Uint(8), false, &[0xff; 8]).is_err());
        assert_eq!(decode(Code::Float(2), true, &[0x3c, 0]).unwrap(), Values::Float(vec![1.0]));
        assert_eq!(decode(Code::Float(4), true, &1.5f32.to_be_bytes()).unwrap(), Values::Float(vec![1.5]));
        assert_eq!(decode(Code::Float(8), false, &0.25f64.to_le_bytes()).unwrap(), Values::Float(vec![0.25]));
        assert_eq!(decode(Code::Bool, false, &[0, 1, 2]).unwrap(), Values::Bool(vec![false, true, true]));
        let text = [b'h', 0, 0, 0, 0xe9, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(decode(Code::Unicode(3), false, &text).unwrap(), Values::Text(vec!["hé".into()]));
        assert!(decode(Code::Unicode(1), false, &[0, 0xd8, 0, 0]).is_err());
        assert_eq!(decode(Code::Bytes(3), false, b"ab\0c\0\0").unwrap(), Values::Text(vec!["ab".into(), "c".into()]));
        assert!(decode(Code::Bytes(1), false, &[0xff]).is_err());
    }
}
