//! Rows picked out of a flat array and put back: what lets an attack go on with the rows that still stand.

/// The given rows, in the given order.
pub(crate) fn gather(all: &[f32], len: usize, rows: &[usize]) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows.len() * len);
    rows.iter().for_each(|&r| out.extend_from_slice(&all[r * len..(r + 1) * len]));
    out
}

/// Row `i`.
pub(crate) fn row(all: &[f32], len: usize, i: usize) -> &[f32] {
    &all[i * len..(i + 1) * len]
}

/// Row `i`, for writing.
pub(crate) fn row_mut(all: &mut [f32], len: usize, i: usize) -> &mut [f32] {
    &mut all[i * len..(i + 1) * len]
}
