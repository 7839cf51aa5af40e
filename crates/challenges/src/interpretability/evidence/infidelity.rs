//! Infidelity: the mean squared difference between what attributions say of random subsets and the fall of the score without
//! them, after the best scale for the attributions, as a fraction of the mean squared fall. 0 is perfect; 1 says nothing.
//! Yeh et al., NeurIPS 2019, arXiv:1901.09392, definition 2.1 with the square-removal perturbation and the optimal scaling of
//! its section on normalisation. Checked against: closed form on a linear model (0), a naive version.
//! Differs from the paper: divided by the mean squared fall, so that methods and networks compare. Attributions are read as
//! contributions; those of plain gradients are per unit of the input, and are measured as if every input were alike.

use netproof_core::{Card, CardKind, Challenge};

use super::faithfulness_correlation::subset_sums;
use super::{Better, Case, Measured};
use crate::interpretability::ExplainError;

pub(super) static CARD: Card = Card {
    id: "infidelity",
    version: 1,
    kind: CardKind::Evidence,
    title: "Infidelity",
    challenge: Challenge::Interpretability,
    measures: "Mean squared error of the attributions' sums over random subsets against the fall of the score without them, best scale, as a fraction of the mean squared fall.",
    reference: "Yeh, Hsieh, Suggala, Inouye and Ravikumar, NeurIPS 2019, arXiv:1901.09392, definition 2.1",
    needs: &[],
    options: &[],
};

pub(super) fn measure(case: &Case<'_, '_>) -> Result<Measured, ExplainError> {
    let count = case.bench.protocol.subsets;
    let drops = case.bench.drops()?;
    let values = (0..case.len()).map(|i| {
        let (said, fell) = (subset_sums(case, i), &drops[i * count..(i + 1) * count]);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let (size, total) = (dot(&said, &said), dot(fell, fell));
        let scale = if size > 0.0 { dot(&said, fell) / size } else { 0.0 };
        let missed: f64 = said.iter().zip(fell).map(|(s, f)| (scale * s - f).powi(2)).sum();
        if total > 0.0 { missed / total } else { f64::NAN }
    });
    Ok(Measured::plain(values.collect(), Better::Lower))
}

#[cfg(test)]
mod tests {

    use super::super::test_support::{Fixed, on};
    use crate::interpretability::test_support::linear;

    #[test]
    fn the_parts_of_a_linear_network_say_everything_and_their_scale_does_not_matter() {
        on(&linear(&[1.0, -2.0, 0.5, 4.0], 3.0), &[[1.0, 2.0, 3.0, -1.0]], |bench| {
            let value = |map: Vec<f32>| super::measure(&bench.case(&Fixed::new(map)).unwrap()).unwrap().values[0];
            assert!(value(vec![1.0, -4.0, 1.5, -4.0]) < 1e-9);
            assert!(value(vec![3.0, -12.0, 4.5, -12.0]) < 1e-9);
            assert_eq!(value(vec![0.0; 4]), 1.0);
            assert!(value(vec![1.0, 4.0, -1.5, -4.0]) > 0.1);
        });
    }
}
