use std::sync::Arc;

use crate::pool::any_floats;
use crate::{DType, MAX_RANK, TensorError, element_count, pool};

/// The elements of a tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    /// All floating-point types.
    Float(Vec<f32>),
    /// All integer types, within the range of the declared type (`U64`: same bits).
    Int(Vec<i64>),
    /// Truth values.
    Bool(Vec<bool>),
    /// UTF-8 text.
    Text(Vec<String>),
}

impl Elements {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Float(v) => v.len(),
            Self::Int(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::Text(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Float(_) => "float",
            Self::Int(_) => "int",
            Self::Bool(_) => "bool",
            Self::Text(_) => "text",
        }
    }

    fn fits(&self, dtype: DType) -> bool {
        match self {
            Self::Float(_) => dtype.is_float(),
            Self::Int(_) => dtype.is_int(),
            Self::Bool(_) => dtype == DType::Bool,
            Self::Text(_) => dtype == DType::Text,
        }
    }
}

/// A dense row-major tensor in host memory. A clone shares the elements until one of the two is written.
///
/// # Guarantees
/// The element count equals the product of the shape, the rank is at most [`MAX_RANK`], and the kind of the elements
/// fits the type.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    elements: Arc<Elements>,
}

impl Drop for Tensor {
    fn drop(&mut self) {
        pool::give_back(&mut self.elements);
    }
}

/// What a tensor holds whose elements were taken.
fn nothing() -> Arc<Elements> {
    Arc::new(Elements::Bool(Vec::new()))
}

impl Tensor {
    /// Builds a tensor of any type.
    /// # Errors
    /// Rank, element count or kind do not fit.
    pub fn new(dtype: DType, shape: Vec<usize>, elements: Elements) -> Result<Self, TensorError> {
        Self::shared(dtype, shape, Arc::new(elements))
    }

    /// A float32 tensor.
    /// # Errors
    /// See [`Tensor::new`].
    pub fn f32(shape: Vec<usize>, values: Vec<f32>) -> Result<Self, TensorError> {
        Self::new(DType::F32, shape, Elements::Float(values))
    }

    /// An int64 tensor.
    /// # Errors
    /// See [`Tensor::new`].
    pub fn i64(shape: Vec<usize>, values: Vec<i64>) -> Result<Self, TensorError> {
        Self::new(DType::I64, shape, Elements::Int(values))
    }

    /// A bool tensor.
    /// # Errors
    /// See [`Tensor::new`].
    pub fn bool(shape: Vec<usize>, values: Vec<bool>) -> Result<Self, TensorError> {
        Self::new(DType::Bool, shape, Elements::Bool(values))
    }

    /// A float32 tensor of zeros.
    /// # Errors
    /// See [`Tensor::new`].
    pub fn zeros(shape: Vec<usize>) -> Result<Self, TensorError> {
        let n = element_count(&shape).ok_or_else(|| TensorError::ShapeOverflow { shape: shape.clone() })?;
        Self::f32(shape, vec![0.0; n])
    }

    /// Declared element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The elements.
    pub fn elements(&self) -> &Elements {
        &self.elements
    }

    /// A tensor of elements that others hold too; nothing is copied.
    /// # Errors
    /// See [`Tensor::new`].
    pub fn shared(dtype: DType, shape: Vec<usize>, elements: Arc<Elements>) -> Result<Self, TensorError> {
        if shape.len() > MAX_RANK {
            return Err(TensorError::Rank { rank: shape.len() });
        }
        let expected = element_count(&shape).ok_or_else(|| TensorError::ShapeOverflow { shape: shape.clone() })?;
        if expected != elements.len() {
            return Err(TensorError::ElementCount { shape, expected, actual: elements.len() });
        }
        if !elements.fits(dtype) {
            return Err(TensorError::Kind { dtype, elements: elements.kind() });
        }
        Ok(Self { dtype, shape, elements })
    }

    /// The elements for someone else to hold too.
    pub fn share(&self) -> Arc<Elements> {
        self.elements.clone()
    }

    /// Type, shape and elements, taken apart.
    pub fn into_parts(self) -> (DType, Vec<usize>, Elements) {
        let mut whole = self;
        let elements = std::mem::replace(&mut whole.elements, nothing());
        (whole.dtype, std::mem::take(&mut whole.shape), Arc::unwrap_or_clone(elements))
    }

    /// Float elements, or `None` for another kind.
    pub fn as_f32(&self) -> Option<&[f32]> {
        if let Elements::Float(v) = &*self.elements { Some(v) } else { None }
    }

    /// Float elements for writing, or `None` for another kind.
    pub fn as_f32_mut(&mut self) -> Option<&mut [f32]> {
        if let Elements::Float(v) = Arc::make_mut(&mut self.elements) { Some(v) } else { None }
    }

    /// Float elements, taken, or `None` for another kind.
    pub fn into_f32(self) -> Option<Vec<f32>> {
        if let Elements::Float(v) = self.into_parts().2 { Some(v) } else { None }
    }

    /// Integer elements, or `None` for another kind.
    pub fn as_i64(&self) -> Option<&[i64]> {
        if let Elements::Int(v) = &*self.elements { Some(v) } else { None }
    }

    /// Truth values, or `None` for another kind.
    pub fn as_bool(&self) -> Option<&[bool]> {
        if let Elements::Bool(v) = &*self.elements { Some(v) } else { None }
    }

    /// Texts, or `None` for another kind.
    pub fn as_text(&self) -> Option<&[String]> {
        if let Elements::Text(v) = &*self.elements { Some(v) } else { None }
    }

    /// The same elements in another shape.
    /// # Errors
    /// The element counts differ.
    pub fn reshape(self, shape: Vec<usize>) -> Result<Self, TensorError> {
        Self::shared(self.dtype, shape, self.share())
    }

    /// Size of the first dimension; 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Elements of one row: the product of all dimensions but the first.
    pub fn row_len(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Rows `start..end` along the first dimension, copied.
    /// # Errors
    /// The range is outside the tensor, or the tensor is a scalar.
    pub fn slice_rows(&self, start: usize, end: usize) -> Result<Self, TensorError> {
        if self.shape.is_empty() || start > end || end > self.shape[0] {
            return Err(TensorError::Rows { start, end, rows: self.rows() });
        }
        let (a, b) = (start * self.row_len(), end * self.row_len());
        let elements = match &*self.elements {
            Elements::Float(v) => Elements::Float(copied(b - a, [&v[a..b]])),
            Elements::Int(v) => Elements::Int(v[a..b].to_vec()),
            Elements::Bool(v) => Elements::Bool(v[a..b].to_vec()),
            Elements::Text(v) => Elements::Text(v[a..b].to_vec()),
        };
        let mut shape = self.shape.clone();
        shape[0] = end - start;
        Self::new(self.dtype, shape, elements)
    }

    /// The given rows along the first dimension, in the given order, copied.
    /// # Errors
    /// A row number is outside the tensor, or the tensor is a scalar.
    pub fn select_rows(&self, rows: &[usize]) -> Result<Self, TensorError> {
        let count = self.rows();
        if let Some(&bad) = rows.iter().find(|&&r| self.shape.is_empty() || r >= count) {
            return Err(TensorError::Rows { start: bad, end: bad + 1, rows: count });
        }
        let n = self.row_len();
        fn pick<T: Clone>(v: &[T], rows: &[usize], n: usize) -> Vec<T> {
            rows.iter().flat_map(|&r| v[r * n..(r + 1) * n].iter().cloned()).collect()
        }
        let elements = match &*self.elements {
            Elements::Float(v) => Elements::Float(copied(rows.len() * n, rows.iter().map(|&r| &v[r * n..(r + 1) * n]))),
            Elements::Int(v) => Elements::Int(pick(v, rows, n)),
            Elements::Bool(v) => Elements::Bool(pick(v, rows, n)),
            Elements::Text(v) => Elements::Text(pick(v, rows, n)),
        };
        let mut shape = self.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = rows.len();
        }
        Self::new(self.dtype, shape, elements)
    }

    /// Tensors joined along the first dimension.
    /// # Errors
    /// Types or trailing dimensions differ, or `parts` is empty.
    pub fn concat_rows(parts: &[Self]) -> Result<Self, TensorError> {
        let Some(first) = parts.first() else {
            return Err(TensorError::Rows { start: 0, end: 1, rows: 0 });
        };
        let mut shape = first.shape.clone();
        if shape.is_empty() {
            return Err(TensorError::Rank { rank: 0 });
        }
        shape[0] = 0;
        let mut elements = match &*first.elements {
            Elements::Float(_) => {
                let mut room = any_floats(parts.iter().map(Self::len).sum());
                room.clear();
                Elements::Float(room)
            }
            Elements::Int(_) => Elements::Int(Vec::new()),
            Elements::Bool(_) => Elements::Bool(Vec::new()),
            Elements::Text(_) => Elements::Text(Vec::new()),
        };
        for part in parts {
            if part.shape.get(1..) != first.shape.get(1..) {
                return Err(TensorError::Mismatch { left: first.shape.clone(), right: part.shape.clone() });
            }
            shape[0] += part.shape[0];
            match (&mut elements, &*part.elements) {
                (Elements::Float(a), Elements::Float(b)) => a.extend_from_slice(b),
                (Elements::Int(a), Elements::Int(b)) => a.extend_from_slice(b),
                (Elements::Bool(a), Elements::Bool(b)) => a.extend_from_slice(b),
                (Elements::Text(a), Elements::Text(b)) => a.extend_from_slice(b),
                (_, other) => return Err(TensorError::Kind { dtype: first.dtype, elements: other.kind() }),
            }
        }
        Self::new(first.dtype, shape, elements)
    }
}

/// `len` floats in all, one piece after the other, in memory that is used again.
fn copied<'a>(len: usize, pieces: impl IntoIterator<Item = &'a [f32]>) -> Vec<f32> {
    let mut out = any_floats(len);
    out.clear();
    pieces.into_iter().for_each(|piece| out.extend_from_slice(piece));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_that_cannot_exist_is_refused() {
        assert!(matches!(Tensor::f32(vec![2, 3], vec![0.0; 5]), Err(TensorError::ElementCount { expected: 6, .. })));
        assert!(matches!(Tensor::zeros(vec![usize::MAX, 2]), Err(TensorError::ShapeOverflow { .. })));
        assert!(matches!(Tensor::zeros(vec![0, usize::MAX, 2]), Err(TensorError::ShapeOverflow { .. })));
        assert!(matches!(Tensor::f32(vec![1; 33], vec![0.0]), Err(TensorError::Rank { rank: 33 })));
        assert!(matches!(
            Tensor::new(DType::I8, vec![1], Elements::Float(vec![0.0])),
            Err(TensorError::Kind { elements: "float", .. })
        ));
    }

    #[test]
    fn rows_are_cut_picked_and_joined() {
        let t = Tensor::i64(vec![3, 2], vec![0, 1, 2, 3, 4, 5]).unwrap();
        let middle = t.slice_rows(1, 2).unwrap();
        assert_eq!(middle.as_i64().unwrap(), [2, 3]);
        let picked = t.select_rows(&[2, 0]).unwrap();
        assert_eq!((picked.shape(), picked.as_i64().unwrap()), (&[2, 2][..], &[4, 5, 0, 1][..]));
        let joined = Tensor::concat_rows(&[middle, picked]).unwrap();
        assert_eq!((joined.shape(), joined.as_i64().unwrap()), (&[3, 2][..], &[2, 3, 4, 5, 0, 1][..]));
        assert!(t.slice_rows(2, 4).is_err() && t.select_rows(&[3]).is_err());
    }
}
