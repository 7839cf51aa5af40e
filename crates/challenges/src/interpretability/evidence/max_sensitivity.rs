//! Max-sensitivity: the largest relative change of the map, in the l2 norm, under small noise on the row. Yeh et al., NeurIPS
//! 2019, arXiv:1901.09392, definition 3.1. Checked against: closed form on a linear model.
//! Differs from the paper: the change is divided by the map's norm (as Captum does), and the noise is a fraction of each
//! element's range, so that columns of a table count alike. Undefined where the map is 0.

use netproof_core::{Card, CardKind, Challenge};

use super::{Better, Case, Measured};
use crate::interpretability::ExplainError;

pub(super) static CARD: Card = Card {
    id: "max-sensitivity",
    version: 1,
    kind: CardKind::Evidence,
    title: "Max-sensitivity",
    challenge: Challenge::Interpretability,
    measures: "Largest relative change of the map over noisy copies of the row.",
    reference: "Yeh, Hsieh, Suggala, Inouye and Ravikumar, NeurIPS 2019, arXiv:1901.09392, definition 3.1",
    needs: &[],
    options: &[],
};

pub(super) fn measure(case: &Case<'_, '_>) -> Result<Measured, ExplainError> {
    // A change that is not a number must not look like no change.
    let largest = |c: Vec<f64>| c.into_iter().fold(0.0, |m: f64, v| if v.is_nan() || v > m { v } else { m });
    let values = case.changes()?.into_iter().map(|c| if c.iter().any(|v| v.is_nan()) { f64::NAN } else { largest(c) });
    Ok(Measured::plain(values.collect(), Better::Lower))
}

#[cfg(test)]
mod tests {

    use super::super::test_support::{method, on};
    use crate::interpretability::test_support::linear;

    #[test]
    fn the_gradient_of_a_linear_network_does_not_move_and_its_product_with_the_input_does() {
        let model = linear(&[1.0, -2.0], 3.0);
        on(&model, &[[1.0, 2.0], [0.0, 0.0]], |bench| {
            let gradient = method("saliency");
            let m = super::measure(&bench.case(&*gradient.method).unwrap()).unwrap();
            assert_eq!(m.values, [0.0, 0.0]);
            let product = method("input-x-gradient");
            let case = bench.case(&*product.method).unwrap();
            let m = super::measure(&case).unwrap();
            // Ranges are 1 and 2: each part of (1, -4) moves by at most 2 %.
            assert!(m.values[0] > 0.0 && m.values[0] <= 0.02 * (1f64 + 16.0).sqrt() / 17f64.sqrt() + 1e-6, "{m:?}");
            assert!(m.values[1].is_nan(), "a map of zeros");
        });
    }
}
