//! Completeness error: by how much attributions miss what they promise to sum to, as a fraction of it.
//! Sundararajan, Taly and Yan, ICML 2017, arXiv:1703.01365, axiom completeness. Checked against: closed form on a linear model.
//! Differs from Quantus 0.6: no exact comparison of floats, and attributions are not rescaled first (both make a correct method
//! fail). Only for methods that promise a sum.

use netproof_core::{Card, CardKind, Challenge};

use super::{Better, Case, Measured};
use crate::interpretability::ExplainError;

pub(super) static CARD: Card = Card {
    id: "completeness",
    version: 1,
    kind: CardKind::Evidence,
    title: "Completeness error",
    challenge: Challenge::Interpretability,
    measures: "By how much the attributions' sum misses the difference of the scores that the method promises, as a fraction of it.",
    reference: "Sundararajan, Taly and Yan, ICML 2017, arXiv:1703.01365, section 3",
    needs: &[],
    options: &[],
};

/// Differences below this count as this.
const SMALLEST: f64 = 1e-6;

pub(super) fn measure(case: &Case<'_, '_>) -> Result<Measured, ExplainError> {
    let Some(promised) = &case.explanation.difference else {
        return Err(ExplainError::not_applicable("the method does not promise what its attributions sum to"));
    };
    let width = case.explanation.attributions.row_len().max(1);
    let sums = case.explanation.attributions.as_f32().unwrap_or_default().chunks(width);
    let sums = sums.map(|row| row.iter().map(|&v| f64::from(v)).sum::<f64>());
    let values = sums.zip(promised).map(|(sum, d)| (sum - d).abs() / d.abs().max(SMALLEST)).collect();
    Ok(Measured::plain(values, Better::Lower))
}

#[cfg(test)]
mod tests {

    use super::super::test_support::{Fixed, on};
    use crate::interpretability::test_support::linear;

    #[test]
    fn what_is_missing_is_counted_as_a_fraction() {
        // The score is 2·1 - 3·2 = -4 above the baseline's; the second row's attributions sum to -3.
        let model = linear(&[2.0, -3.0], 1.0);
        let fixed = Fixed::complete(vec![2.0, -6.0, 2.0, -5.0], vec![-4.0, -4.0]);
        on(&model, &[[1.0, 2.0], [1.0, 2.0]], |bench| {
            let m = super::measure(&bench.case(&fixed).unwrap()).unwrap();
            assert_eq!(m.values, [0.0, 0.25]);
        });
    }

    #[test]
    fn a_method_that_promises_nothing_is_not_measured() {
        on(&linear(&[2.0, -3.0], 1.0), &[[1.0, 2.0]], |bench| {
            let e = super::measure(&bench.case(&Fixed::new(vec![1.0, 1.0])).unwrap()).unwrap_err();
            assert!(e.to_string().contains("does not promise"), "{e}");
        });
    }
}
