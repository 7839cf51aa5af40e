//! Sparseness: the Gini index of the magnitudes of a map's units: 0 where all are equal, towards 1 where one holds everything.
//! Chalasani et al., ICML 2020, arXiv:1810.06583, section 5; the index: Hurley and Rickard 2009.
//! Checked against: closed forms. It describes: a sparse map is not a true one.

use netproof_core::{Card, CardKind, Challenge};

use super::ranks::gini;
use super::{Better, Case, Measured};
use crate::interpretability::ExplainError;

pub(super) static CARD: Card = Card {
    id: "sparseness",
    version: 1,
    kind: CardKind::Evidence,
    title: "Sparseness",
    challenge: Challenge::Interpretability,
    measures: "Gini index of the attributions' magnitudes: 0 is spread evenly, 1 is a single unit.",
    reference: "Chalasani et al., ICML 2020, arXiv:1810.06583, section 5",
    needs: &[],
    options: &[],
};

pub(super) fn measure(case: &Case<'_, '_>) -> Result<Measured, ExplainError> {
    let values = (0..case.len()).map(|i| gini(&case.units(i)).unwrap_or(f64::NAN));
    Ok(Measured::plain(values.collect(), Better::Neither))
}

#[cfg(test)]
mod tests {

    use super::super::test_support::{Fixed, on};
    use crate::interpretability::test_support::linear;

    #[test]
    fn even_is_zero_and_a_single_unit_is_all_but_its_share() {
        on(&linear(&[1.0; 4], 0.0), &[[1.0; 4], [1.0; 4]], |bench| {
            let m = super::measure(&bench.case(&Fixed::new(vec![1.0, -1.0, 1.0, 1.0, 0.0, 0.0, 3.0, 0.0])).unwrap());
            let m = m.unwrap();
            assert!(m.values[0].abs() < 1e-12 && (m.values[1] - 0.75).abs() < 1e-12, "{m:?}");
        });
    }
}
