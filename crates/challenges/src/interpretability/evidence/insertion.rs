//! Insertion: the area under the probability of the target while units are put into the baseline, the most positive first.
//! Petsiuk, Das and Saenko, BMVC 2018, arXiv:1806.07421, section 4.1. Checked against: closed form on a linear model.
//! Differs from the paper: begins with the question's baseline, not with a blurred row; see `deletion`.

use netproof_core::{Card, CardKind, Challenge};

use super::curves::{Curves, Mode, compared};
use super::{Better, Case, Measured};
use crate::interpretability::ExplainError;

pub(super) static CARD: Card = Card {
    id: "insertion",
    version: 1,
    kind: CardKind::Evidence,
    title: "Insertion",
    challenge: Challenge::Interpretability,
    measures: "Area under the probability of the target while units are put into the baseline, the most important first; beside random orders and an edge detector.",
    reference: "Petsiuk, Das and Saenko, BMVC 2018, arXiv:1806.07421, section 4.1",
    needs: &[],
    options: &[],
};

pub(super) fn measure(case: &Case<'_, '_>) -> Result<Measured, ExplainError> {
    compared(case, Mode::Insertion, Curves::areas, false, Better::Higher)
}

#[cfg(test)]
mod tests {

    use super::super::test_support::{Fixed, on};
    use crate::interpretability::test_support::linear;

    #[test]
    fn of_a_linear_network_it_is_the_area_under_a_broken_line() {
        // From 0 by the order 0, 2, 1: 1, 1.5, -0.5.
        on(&linear(&[1.0, -2.0, 0.5], 0.0), &[[1.0, 1.0, 1.0]], |bench| {
            let m = super::measure(&bench.case(&Fixed::new(vec![1.0, -2.0, 0.5])).unwrap()).unwrap();
            assert!((m.values[0] - (1.0 + 1.5 - 0.5 / 2.0) / 3.0).abs() < 1e-6, "{:?}", m.values);
            assert!(m.advantages(m.random.as_ref().unwrap())[0] > 0.0);
        });
    }
}
