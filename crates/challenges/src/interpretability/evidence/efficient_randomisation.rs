//! Efficient parameter randomisation: by which fraction the entropy of a map's histogram rises when all weights are put in
//! random order. Above 0 where the map held something that the weights put there. Hedström et al. 2024, arXiv:2405.02383,
//! section 4.2 (eMPRT). Checked against: closed forms of the entropy, a constant map (0).
//! Weak on an untrained network, whose map is as random before as after. One randomisation per draw, whatever the depth.

use netproof_core::{Card, CardKind, Challenge};

use super::parameter_randomisation::{Cascade, finite_mean, maps_of, randomised};
use super::randomise::Order;
use super::{Better, Case, Measured};
use crate::interpretability::ExplainError;

pub(super) static CARD: Card = Card {
    id: "efficient-randomisation",
    version: 1,
    kind: CardKind::Evidence,
    title: "Efficient parameter randomisation",
    challenge: Challenge::Interpretability,
    measures: "By which fraction the entropy of the map's histogram rises when all weights are in random order.",
    reference: "Hedström, Weber, Lapuschkin and Höhne 2024, arXiv:2405.02383, section 4.2",
    needs: &[],
    options: &[],
};

/// Bins of the histogram.
const BINS: usize = 100;

pub(super) fn measure(case: &Case<'_, '_>) -> Result<Measured, ExplainError> {
    let own: Vec<f64> = (0..case.len()).map(|i| histogram_entropy(&case.units(i))).collect();
    let mut rises = vec![Vec::new(); case.len()];
    let cascade = Cascade { order: Order::TopDown, draws: case.bench.protocol.draws, stages: 1 };
    randomised(case, &cascade, |_, _, _, net| {
        let Some(maps) = maps_of(case, net, case.bench.question)? else { return Ok(()) };
        for (i, map) in maps.chunks(net.row_len().max(1)).enumerate() {
            let rise = (histogram_entropy(&case.bench.units.sums(map)) - own[i]) / own[i];
            rises[i].push(rise);
        }
        Ok(())
    })?;
    Ok(Measured::plain(rises.iter().map(|r| finite_mean(r)).collect(), Better::Higher))
}

/// Entropy in nats of the values' histogram over their range; NaN where they are constant or one is not a number.
fn histogram_entropy(values: &[f64]) -> f64 {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !(high > low && (high - low).is_finite()) || values.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let mut counts = [0u64; BINS];
    for v in values {
        counts[(((v - low) / (high - low) * BINS as f64) as usize).min(BINS - 1)] += 1;
    }
    netproof_stats::descriptive::entropy(&counts).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use netproof_graph::builders::{Activation, mlp};

    use super::super::test_support::{Fixed, on};
    use super::*;

    #[test]
    fn entropy_of_histograms() {
        assert!((histogram_entropy(&[0.0, 1.0, 0.0, 1.0]) - 2f64.ln()).abs() < 1e-12);
        let even: Vec<f64> = (0..1000).map(f64::from).collect();
        assert!((histogram_entropy(&even) - 100f64.ln()).abs() < 1e-3);
        assert!(histogram_entropy(&[1.0; 4]).is_nan() && histogram_entropy(&[1.0, f64::NAN]).is_nan());
    }

    #[test]
    fn a_map_that_ignores_the_weights_does_not_rise() {
        let model = mlp(&[4], &[5], 2, Activation::Relu, 5).unwrap();
        on(&model, &[[0.5f32, 1.0, -1.0, 2.0]], |bench| {
            let m = measure(&bench.case(&Fixed::new(vec![1.0, 2.0, 3.0, 5.0])).unwrap()).unwrap();
            assert_eq!(m.values, [0.0]);
        });
    }
}
