//! Dense tensors in host memory: what files, data sets and networks exchange.
//!
//! A [`Tensor`] is row-major and owns its elements. All floating-point types are held as `f32`, all integers as `i64`;
//! [`DType`] keeps the type that the file or the network declares, so that it can be checked and written back.

mod dtype;
pub mod pool;
mod tensor;

pub use dtype::DType;
pub use tensor::{Elements, Tensor};

/// Largest rank that any tensor may have.
pub const MAX_RANK: usize = 32;

/// A tensor that cannot exist or cannot be used as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The product of the dimensions does not fit the machine.
    #[error("shape {shape:?} has more elements than this machine can address")]
    ShapeOverflow {
        /// The offending shape.
        shape: Vec<usize>,
    },
    /// Shape and element count disagree.
    #[error("shape {shape:?} needs {expected} elements, got {actual}")]
    ElementCount {
        /// The declared shape.
        shape: Vec<usize>,
        /// Elements that the shape needs.
        expected: usize,
        /// Elements that were given.
        actual: usize,
    },
    /// More dimensions than allowed.
    #[error("rank {rank} is over the limit of {MAX_RANK}")]
    Rank {
        /// The offending rank.
        rank: usize,
    },
    /// The elements are of another kind than the type says.
    #[error("type {dtype} cannot hold {elements} elements")]
    Kind {
        /// The declared type.
        dtype: DType,
        /// What was given: `float`, `int`, `bool` or `text`.
        elements: &'static str,
    },
    /// Two shapes that should agree do not.
    #[error("shapes {left:?} and {right:?} do not agree")]
    Mismatch {
        /// First shape.
        left: Vec<usize>,
        /// Second shape.
        right: Vec<usize>,
    },
    /// A row number beyond the tensor.
    #[error("rows {start}..{end} are outside a tensor of {rows} rows")]
    Rows {
        /// First row asked for.
        start: usize,
        /// One past the last row asked for.
        end: usize,
        /// Rows that there are.
        rows: usize,
    },
}

/// Number of elements of a shape, or `None` where it overflows or passes `isize::MAX` bytes of `f32`.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    // A zero dimension makes the product zero, but the other dimensions must still be sane for stride arithmetic.
    let nonzero = shape.iter().filter(|&&d| d != 0).try_fold(1usize, |n, &d| n.checked_mul(d))?;
    (nonzero <= isize::MAX as usize / 8).then_some(count)
}
