//! Matrices turned, and axes exchanged.

/// Rows and columns of a block: what its rows and columns bring into the cache is used before it leaves.
const BLOCK: usize = 16;

/// `to[c · to_step + r] = from[r · from_step + c]` for all rows and columns.
#[inline(always)]
pub(crate) fn transpose(rows: usize, columns: usize, from: &[f32], from_step: usize, to: &mut [f32], to_step: usize) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!((rows - 1) * from_step + columns <= from.len() && (columns - 1) * to_step + rows <= to.len());
    for r0 in (0..rows).step_by(BLOCK) {
        let r1 = (r0 + BLOCK).min(rows);
        for c0 in (0..columns).step_by(BLOCK) {
            let c1 = (c0 + BLOCK).min(columns);
            let (r4, c4) = (r0 + (r1 - r0) / 4 * 4, c0 + (c1 - c0) / 4 * 4);
            for r in (r0..r4).step_by(4) {
                for c in (c0..c4).step_by(4) {
                    turn4(&from[r * from_step + c..], from_step, &mut to[c * to_step + r..], to_step);
                }
                for c in c4..c1 {
                    for r in r..r + 4 {
                        to[c * to_step + r] = from[r * from_step + c];
                    }
                }
            }
            for r in r4..r1 {
                for c in c0..c1 {
                    to[c * to_step + r] = from[r * from_step + c];
                }
            }
        }
    }
}

/// Turns four rows of four.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn turn4(from: &[f32], from_step: usize, to: &mut [f32], to_step: usize) {
    use std::arch::x86_64::{
        _mm_loadu_ps, _mm_movehl_ps, _mm_movelh_ps, _mm_storeu_ps, _mm_unpackhi_ps, _mm_unpacklo_ps,
    };
    assert!(from.len() >= 3 * from_step + 4 && to.len() >= 3 * to_step + 4);
    // SAFETY: four elements from each of `0, step, 2 step, 3 step` are within both slices; SSE is part of x86-64.
    unsafe {
        let row = |i: usize| _mm_loadu_ps(from.as_ptr().add(i * from_step));
        let (a, b, c, d) = (row(0), row(1), row(2), row(3));
        let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
        let (ab_high, cd_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
        let to = to.as_mut_ptr();
        _mm_storeu_ps(to, _mm_movelh_ps(ab, cd));
        _mm_storeu_ps(to.add(to_step), _mm_movehl_ps(cd, ab));
        _mm_storeu_ps(to.add(2 * to_step), _mm_movelh_ps(ab_high, cd_high));
        _mm_storeu_ps(to.add(3 * to_step), _mm_movehl_ps(cd_high, ab_high));
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn turn4(from: &[f32], from_step: usize, to: &mut [f32], to_step: usize) {
    for r in 0..4 {
        for c in 0..4 {
            to[c * to_step + r] = from[r * from_step + c];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_changes_sides() {
        for (rows, columns) in [(1, 1), (3, 5), (4, 4), (16, 16), (17, 33), (50, 1), (1, 50), (64, 49), (0, 3)] {
            let (from_step, to_step) = (columns + 3, rows + 2);
            let from: Vec<f32> = (0..rows * from_step).map(|i| i as f32).collect();
            let mut to = vec![-1.0; columns * to_step];
            transpose(rows, columns, &from, from_step, &mut to, to_step);
            for (i, &v) in to.iter().enumerate() {
                let (c, r) = (i / to_step, i % to_step);
                let want = if r < rows && c < columns { from[r * from_step + c] } else { -1.0 };
                assert_eq!(v, want, "{rows} {columns} at {r} {c}");
            }
        }
    }
}
