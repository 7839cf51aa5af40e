//! Deletion: the area under the probability of the target while units are set to the baseline, the most positive first. Small
//! where the map found what the answer depends on. Petsiuk, Das and Saenko, BMVC 2018, arXiv:1806.07421, section 4.1.
//! Checked against: closed form on a linear model, a naive version.
//! Differs from the paper: random orders and an edge detector stand beside it, since the area depends on network and rows; the
//! area is over at most `points` steps. Weak where rows without some units are unlike any the network has seen.

use netproof_core::{Card, CardKind, Challenge};

use super::curves::{Curves, Mode, compared};
use super::{Better, Case, Measured};
use crate::interpretability::ExplainError;

pub(super) static CARD: Card = Card {
    id: "deletion",
    version: 1,
    kind: CardKind::Evidence,
    title: "Deletion",
    challenge: Challenge::Interpretability,
    measures: "Area under the probability of the target while units are removed, the most important first; beside random orders and an edge detector.",
    reference: "Petsiuk, Das and Saenko, BMVC 2018, arXiv:1806.07421, section 4.1",
    needs: &[],
    options: &[],
};

pub(super) fn measure(case: &Case<'_, '_>) -> Result<Measured, ExplainError> {
    compared(case, Mode::Deletion, Curves::areas, false, Better::Lower)
}

#[cfg(test)]
mod tests {

    use super::super::test_support::{Fixed, on};
    use crate::interpretability::test_support::linear;

    #[test]
    fn of_a_linear_network_it_is_the_area_under_a_broken_line() {
        // Scores 0.25 · (4, -8, 2) of the row (1, 1, 1): from -0.5 by the order 0, 2, 1 to -1.5, -2, 0.
        let model = linear(&[1.0, -2.0, 0.5], 0.0);
        on(&model, &[[1.0, 1.0, 1.0]], |bench| {
            let m = super::measure(&bench.case(&Fixed::new(vec![1.0, -2.0, 0.5])).unwrap()).unwrap();
            assert!((m.values[0] - (-0.5 / 2.0 - 1.5 - 2.0) / 3.0).abs() < 1e-6, "{:?}", m.values);
            // All six orders of three units average to the straight line.
            assert!(m.random.unwrap()[0] > m.values[0]);
            assert!(m.edges.is_none() && m.curves.len() == 2);
            let worst = super::measure(&bench.case(&Fixed::new(vec![-1.0, 2.0, -0.5])).unwrap()).unwrap();
            assert!((worst.values[0] - (-0.5 / 2.0 + 1.5 + 1.0) / 3.0).abs() < 1e-6, "{:?}", worst.values);
        });
    }
}
