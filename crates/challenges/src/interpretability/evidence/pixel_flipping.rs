//! Pixel flipping: the mean fall of the score while units are set to the baseline, the most positive first. Large where the map
//! found what the score depends on. Bach et al., PLOS ONE 10(7), 2015, section "pixel-flipping"; the mean over steps is the
//! area over the perturbation curve of Samek et al. 2017, arXiv:1509.06321, equation 12.
//! Checked against: closed form on a linear model.
//! Differs from the papers: units are set to the question's baseline; scores, not probabilities, so that nothing saturates.

use netproof_core::{Card, CardKind, Challenge};

use super::curves::{Curves, Mode, compared};
use super::{Better, Case, Measured};
use crate::interpretability::ExplainError;

pub(super) static CARD: Card = Card {
    id: "pixel-flipping",
    version: 1,
    kind: CardKind::Evidence,
    title: "Pixel flipping",
    challenge: Challenge::Interpretability,
    measures: "Mean fall of the score while units are removed, the most important first (area over the perturbation curve); beside random orders and an edge detector.",
    reference: "Bach et al., PLOS ONE 10(7), 2015; Samek et al. 2017, arXiv:1509.06321, equation 12",
    needs: &[],
    options: &[],
};

pub(super) fn measure(case: &Case<'_, '_>) -> Result<Measured, ExplainError> {
    compared(case, Mode::Deletion, Curves::falls, true, Better::Higher)
}

#[cfg(test)]
mod tests {

    use super::super::test_support::{Fixed, on};
    use crate::interpretability::test_support::linear;

    #[test]
    fn of_a_linear_network_it_is_the_mean_of_what_was_taken() {
        // Taken: 1, then 1.5, then -0.5.
        on(&linear(&[1.0, -2.0, 0.5], 3.0), &[[1.0, 1.0, 1.0]], |bench| {
            let m = super::measure(&bench.case(&Fixed::new(vec![1.0, -2.0, 0.5])).unwrap()).unwrap();
            assert!((m.values[0] - 2.0 / 3.0).abs() < 1e-6, "{:?}", m.values);
        });
    }
}
