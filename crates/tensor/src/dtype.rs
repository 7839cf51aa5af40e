use std::fmt;

/// Element type as declared by a file or a network (ONNX names).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE double precision, held as `f32`.
    F64,
    /// IEEE half precision, held as `f32`.
    F16,
    /// bfloat16, held as `f32`.
    BF16,
    /// Signed 8-bit integer.
    I8,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 8-bit integer.
    U8,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer, held as the `i64` with the same bits.
    U64,
    /// Truth value.
    Bool,
    /// UTF-8 text.
    Text,
}

impl DType {
    /// Whether elements are held as `f32`.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::BF16)
    }

    /// Whether elements are held as `i64`.
    pub fn is_int(self) -> bool {
        !self.is_float() && !matches!(self, Self::Bool | Self::Text)
    }

    /// Bytes of one element in a file; 0 for text.
    pub fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::Text => 0,
        }
    }

    /// Smallest and largest value of an integer type; `None` for other types. `U64` answers the full range.
    pub fn int_range(self) -> Option<(i128, i128)> {
        Some(match self {
            Self::I8 => (i8::MIN.into(), i8::MAX.into()),
            Self::I16 => (i16::MIN.into(), i16::MAX.into()),
            Self::I32 => (i32::MIN.into(), i32::MAX.into()),
            Self::I64 => (i64::MIN.into(), i64::MAX.into()),
            Self::U8 => (0, u8::MAX.into()),
            Self::U16 => (0, u16::MAX.into()),
            Self::U32 => (0, u32::MAX.into()),
            Self::U64 => (0, u64::MAX.into()),
            _ => return None,
        })
    }

    /// Wraps an integer to this type's width (two's complement); other types: unchanged.
    pub fn wrap(self, value: i64) -> i64 {
        match self {
            Self::I8 => value as i8 as i64,
            Self::I16 => value as i16 as i64,
            Self::I32 => value as i32 as i64,
            Self::U8 => value as u8 as i64,
            Self::U16 => value as u16 as i64,
            Self::U32 => value as u32 as i64,
            _ => value,
        }
    }

    /// Rounds a float to what this type can hold, nearest even; other types: unchanged. `F64` keeps `f32` precision.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F16 => half::f16::from_f32(value).to_f32(),
            Self::BF16 => half::bf16::from_f32(value).to_f32(),
            _ => value,
        }
    }

    /// The ONNX name: `float`, `int64`, `string` and so on.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float",
            Self::F64 => "double",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::I8 => "int8",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::U8 => "uint8",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::Bool => "bool",
            Self::Text => "string",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
