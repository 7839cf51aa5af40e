//! Data randomisation: rank correlation of a map with that of the same architecture trained on shuffled labels. A map that
//! stays does not explain what was learnt. Adebayo et al., NeurIPS 2018, arXiv:1810.03292, section 4. Checked against: the
//! network itself (1). The second network must be trained, so this is no metric of the registry: `sanity` does it on request.

use netproof_graph::Model;

use super::parameter_randomisation::elements;
use super::ranks::likeness;
use super::{Better, Case, Measured};
use crate::interpretability::{ExplainError, explain};

/// Similarity of a method's maps of a network and of one that was trained on shuffled labels.
/// # Errors
/// The other network does not fit the rows, or the method does not apply to it.
pub fn data_randomisation(case: &Case<'_, '_>, other: &Model) -> Result<Measured, ExplainError> {
    let (net, q) = (case.bench.net, case.bench.question);
    let other = net.on(other);
    let maps = case.bench.on_input(&explain(case.method, &other, q)?)?;
    let rows = maps.chunks(net.row_len().max(1)).enumerate();
    let values = rows.map(|(i, m)| likeness(&elements(m), &elements(case.map(i))).unwrap_or(f64::NAN));
    Ok(Measured::plain(values.collect(), Better::Lower))
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{method, on};
    use super::*;
    use crate::interpretability::test_support::linear;

    #[test]
    fn the_network_itself_is_fully_alike_and_its_opposite_is_not() {
        let model = linear(&[1.0, -2.0, 3.0], 0.0);
        on(&model, &[[1.0, 1.0, 1.0]], |bench| {
            let product = method("input-x-gradient");
            let case = bench.case(&*product.method).unwrap();
            assert_eq!(data_randomisation(&case, &model).unwrap().values, [1.0]);
            let opposite = linear(&[-1.0, 2.0, -3.0], 0.0);
            assert_eq!(data_randomisation(&case, &opposite).unwrap().values, [-1.0]);
        });
    }
}
