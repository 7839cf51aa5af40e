//! Average sensitivity: the mean relative change of the map, in the l2 norm, under small noise on the row. Bhatt, Weller and
//! Moura, IJCAI 2020, arXiv:2005.00631, definition 2. Checked against: `max-sensitivity`, which it cannot exceed.

use netproof_core::{Card, CardKind, Challenge};

use super::{Better, Case, Measured};
use crate::interpretability::ExplainError;

pub(super) static CARD: Card = Card {
    id: "average-sensitivity",
    version: 1,
    kind: CardKind::Evidence,
    title: "Average sensitivity",
    challenge: Challenge::Interpretability,
    measures: "Mean relative change of the map over noisy copies of the row.",
    reference: "Bhatt, Weller and Moura, IJCAI 2020, arXiv:2005.00631, definition 2",
    needs: &[],
    options: &[],
};

pub(super) fn measure(case: &Case<'_, '_>) -> Result<Measured, ExplainError> {
    let values = case.changes()?.into_iter().map(|c| c.iter().sum::<f64>() / c.len() as f64);
    Ok(Measured::plain(values.collect(), Better::Lower))
}

#[cfg(test)]
mod tests {

    use super::super::max_sensitivity;
    use super::super::test_support::{method, on};
    use crate::interpretability::test_support::kinked;

    #[test]
    fn it_is_above_nothing_and_below_the_largest() {
        on(&kinked(), &[[20.0, 50.0, 30.0], [2.0, 1.0, 3.0]], |bench| {
            let product = method("input-x-gradient");
            let case = bench.case(&*product.method).unwrap();
            let (mean, largest) = (super::measure(&case).unwrap(), max_sensitivity::measure(&case).unwrap());
            for (a, b) in mean.values.iter().zip(&largest.values) {
                assert!(*a > 0.0 && a < b, "{a} {b}");
            }
        });
    }
}
