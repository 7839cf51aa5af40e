//! Agreement between methods: rank correlation of their maps, and overlap of their largest units. Krishna et al. 2022,
//! arXiv:2202.01602, section 3. Checked against: closed forms. It describes: methods may agree and all be wrong.

use super::Case;
use super::ranks::{spearman, top_overlap};

/// How far two methods agree, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// Spearman's correlation of the units' attributions; NaN where a map is constant.
    pub rank_correlation: Vec<f64>,
    /// Share of the largest tenth of the units (at least one) that both have.
    pub top_overlap: Vec<f64>,
}

/// Compares two methods on the same rows. Magnitudes are compared where one of them gives no signs.
pub fn agreement(a: &Case<'_, '_>, b: &Case<'_, '_>) -> Agreement {
    let signed = |c: &Case<'_, '_>| (0..c.len()).any(|i| c.map(i).iter().any(|&v| v < 0.0));
    let both = signed(a) && signed(b);
    let units = |c: &Case<'_, '_>, i: usize| -> Vec<f64> {
        let units = c.units(i);
        if both { units } else { units.iter().map(|v| v.abs()).collect() }
    };
    let n = a.len().min(b.len());
    let mut found = Agreement { rank_correlation: Vec::with_capacity(n), top_overlap: Vec::with_capacity(n) };
    for i in 0..n {
        let (a, b) = (units(a, i), units(b, i));
        found.rank_correlation.push(spearman(&a, &b).unwrap_or(f64::NAN));
        found.top_overlap.push(top_overlap(&a, &b, a.len().div_ceil(10)).unwrap_or(f64::NAN));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{Fixed, on};
    use super::*;
    use crate::interpretability::test_support::linear;

    #[test]
    fn signs_count_where_both_have_them() {
        on(&linear(&[1.0; 4], 0.0), &[[1.0; 4]], |bench| {
            let of = |map: &[f32]| Fixed::new(map.to_vec());
            let (a, b, c) = (of(&[1.0, 2.0, 3.0, -4.0]), of(&[-1.0, -2.0, -3.0, 4.0]), of(&[1.0, 2.0, 3.0, 4.0]));
            let (a, b, c) = (bench.case(&a).unwrap(), bench.case(&b).unwrap(), bench.case(&c).unwrap());
            assert_eq!(agreement(&a, &b).rank_correlation, [-1.0]);
            assert_eq!(agreement(&a, &c).rank_correlation, [1.0]);
            assert_eq!(agreement(&a, &c).top_overlap, [1.0]);
            assert_eq!(agreement(&a, &b).top_overlap, [0.0]);
        });
    }
}
