//! Faithfulness correlation: Pearson's correlation between what attributions say of random subsets and by how much the score
//! falls without them. Bhatt, Weller and Moura, IJCAI 2020, arXiv:2005.00631, definition 3.
//! Checked against: closed form on a linear model (1), a naive version.
//! Differs from Quantus 0.6: subsets are a fraction of the units, not 224 elements whatever the size of a row; attributions
//! are not rescaled. Undefined (not 0) where attributions or falls do not vary.

use netproof_core::{Card, CardKind, Challenge};

use super::ranks::pearson;
use super::{Better, Case, Measured};
use crate::interpretability::ExplainError;

pub(super) static CARD: Card = Card {
    id: "faithfulness-correlation",
    version: 1,
    kind: CardKind::Evidence,
    title: "Faithfulness correlation",
    challenge: Challenge::Interpretability,
    measures: "Correlation between the attributions' sum over random subsets of a row and the fall of the score without them.",
    reference: "Bhatt, Weller and Moura, IJCAI 2020, arXiv:2005.00631, definition 3",
    needs: &[],
    options: &[],
};

pub(super) fn measure(case: &Case<'_, '_>) -> Result<Measured, ExplainError> {
    let count = case.bench.protocol.subsets;
    let drops = case.bench.drops()?;
    let values =
        (0..case.len()).map(|i| pearson(&subset_sums(case, i), &drops[i * count..(i + 1) * count]).unwrap_or(f64::NAN));
    Ok(Measured::plain(values.collect(), Better::Higher))
}

/// What a row's attributions sum to over each random subset.
pub(super) fn subset_sums(case: &Case<'_, '_>, i: usize) -> Vec<f64> {
    let units = case.units(i);
    let subsets = (0..case.bench.protocol.subsets).map(|k| case.bench.subset(i, k));
    subsets.map(|s| s.iter().map(|&u| units[u]).sum()).collect()
}

#[cfg(test)]
mod tests {

    use super::super::test_support::{Fixed, on};
    use crate::interpretability::test_support::{kinked, linear};

    #[test]
    fn the_parts_of_a_linear_network_correlate_perfectly() {
        on(&linear(&[1.0, -2.0, 0.5, 4.0], 3.0), &[[1.0, 2.0, 3.0, -1.0]], |bench| {
            let value = |map: Vec<f32>| super::measure(&bench.case(&Fixed::new(map)).unwrap()).unwrap().values[0];
            assert!((value(vec![1.0, -4.0, 1.5, -4.0]) - 1.0).abs() < 1e-6);
            assert!((value(vec![-2.0, 8.0, -3.0, 8.0]) + 1.0).abs() < 1e-6);
            assert!(value(vec![1.0; 4]).is_nan());
        });
    }

    #[test]
    fn it_is_the_naive_version() {
        on(&kinked(), &[[20.0, 50.0, 30.0]], |bench| {
            let map = [1.0, 5.0, 2.0];
            let found = super::measure(&bench.case(&Fixed::new(map.to_vec())).unwrap()).unwrap().values[0];
            let f = |x: [f32; 3]| {
                let s: f32 = x.iter().sum();
                f64::from((s - 10.0).max(0.0) + 3.0 * (s + 1.0).max(0.0) - 1.0)
            };
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for k in 0..bench.protocol.subsets {
                let s = bench.subset(0, k);
                assert_eq!(s.len(), 1, "a fifth of three units");
                let mut x = [20.0, 50.0, 30.0];
                x[s[0]] = 0.0;
                a.push(f64::from(map[s[0]]));
                b.push(f([20.0, 50.0, 30.0]) - f(x));
            }
            let n = a.len() as f64;
            let (ma, mb) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
            let ab: f64 = a.iter().zip(&b).map(|(x, y)| (x - ma) * (y - mb)).sum();
            let aa: f64 = a.iter().map(|x| (x - ma).powi(2)).sum();
            let bb: f64 = b.iter().map(|y| (y - mb).powi(2)).sum();
            assert!((found - ab / (aa * bb).sqrt()).abs() < 1e-9, "{found}");
        });
    }
}
