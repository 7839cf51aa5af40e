//! Complexity: the entropy of the magnitudes of a map's units as shares of their sum, as a fraction of the largest possible.
//! 1 is spread evenly over everything. Bhatt, Weller and Moura, IJCAI 2020, arXiv:2005.00631, definition 4.
//! Checked against: closed forms. Differs from the paper: divided by the logarithm of the number of units, so that rows of
//! different sizes compare. It describes: a simple map is not a true one.

use netproof_core::{Card, CardKind, Challenge};

use super::ranks::entropy;
use super::{Better, Case, Measured};
use crate::interpretability::ExplainError;

pub(super) static CARD: Card = Card {
    id: "complexity",
    version: 1,
    kind: CardKind::Evidence,
    title: "Complexity",
    challenge: Challenge::Interpretability,
    measures: "Entropy of the attributions' magnitudes, as a fraction of the largest possible: 1 is spread over everything.",
    reference: "Bhatt, Weller and Moura, IJCAI 2020, arXiv:2005.00631, definition 4",
    needs: &[],
    options: &[],
};

pub(super) fn measure(case: &Case<'_, '_>) -> Result<Measured, ExplainError> {
    let values = (0..case.len()).map(|i| {
        let units = case.units(i);
        let most = (units.len() as f64).ln();
        entropy(&units).filter(|_| most > 0.0).map_or(f64::NAN, |e| e / most)
    });
    Ok(Measured::plain(values.collect(), Better::Neither))
}

#[cfg(test)]
mod tests {

    use super::super::test_support::{Fixed, on};
    use crate::interpretability::test_support::linear;

    #[test]
    fn even_is_one_and_a_single_unit_is_zero() {
        let model = linear(&[1.0, 1.0, 1.0, 1.0], 0.0);
        on(&model, &[[1.0; 4], [1.0; 4], [1.0; 4]], |bench| {
            let map = vec![1.0, -1.0, 1.0, 1.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0];
            let m = super::measure(&bench.case(&Fixed::new(map)).unwrap()).unwrap();
            assert!((m.values[0] - 1.0).abs() < 1e-12 && m.values[1] == 0.0 && m.values[2].is_nan(), "{m:?}");
        });
    }
}
