//! Smooth parameter randomisation: `parameter-randomisation` from the input up, of maps that are averaged over noisy copies of
//! the row, so that shattered gradients do not pass for sensitivity to the weights. Hedström et al. 2024, arXiv:2405.02383,
//! section 4.1 (sMPRT). Checked against: a constant map (1). Differs from the paper: as many copies as the protocol has (the
//! paper: 50), rank correlation instead of structural similarity.

use netproof_core::{Card, CardKind, Challenge};

use super::bench::noisy_question;
use super::parameter_randomisation::{Cascade, elements, finite_mean, randomised};
use super::randomise::Order;
use super::ranks::likeness;
use super::{Bench, Better, Case, Curve, Measured, Protocol};
use crate::interpretability::{ExplainError, Explained, explain};

pub(super) static CARD: Card = Card {
    id: "smooth-randomisation",
    version: 1,
    kind: CardKind::Evidence,
    title: "Smooth parameter randomisation",
    challenge: Challenge::Interpretability,
    measures: "Rank correlation of maps averaged over noisy copies of a row, before and after all weights are in random order.",
    reference: "Hedström, Weber, Lapuschkin and Höhne 2024, arXiv:2405.02383, section 4.1",
    needs: &[],
    options: &[],
};

/// Noise of the copies as a fraction of each element's range: that of SmoothGrad's examples.
const NOISE: f64 = 0.1;

pub(super) fn measure(case: &Case<'_, '_>) -> Result<Measured, ExplainError> {
    let p = &case.bench.protocol;
    let bench = Bench::new(case.bench.net, case.bench.question, Protocol { radius: NOISE, ..p.clone() })?;
    let question = noisy_question(&bench)?;
    let smooth = |net: &Explained<'_>| -> Result<Vec<Vec<f64>>, ExplainError> {
        let maps = case.bench.on_input(&explain(case.method, net, &question)?)?;
        let width = net.row_len().max(1);
        Ok(maps
            .chunks(width * p.copies)
            .map(|copies| {
                let mut mean = vec![0.0; width];
                for copy in copies.chunks(width) {
                    let units = elements(copy);
                    mean.iter_mut().zip(units).for_each(|(m, v)| *m += v / p.copies as f64);
                }
                mean
            })
            .collect())
    };
    let own = smooth(case.bench.net)?;
    let mut similarity: Vec<Vec<Vec<f64>>> = Vec::new();
    let cascade = Cascade { order: Order::BottomUp, draws: p.draws, stages: p.stages };
    randomised(case, &cascade, |stage, _, _, net| {
        if stage == similarity.len() {
            similarity.push(Vec::new());
        }
        let rows = smooth(net)?;
        similarity[stage]
            .push(rows.iter().zip(&own).map(|(a, b)| likeness(a, b).unwrap_or(f64::NAN)).collect::<Vec<f64>>());
        Ok(())
    })?;
    let last = &similarity[similarity.len() - 1];
    let values = (0..case.len()).map(|i| finite_mean(&last.iter().map(|rows| rows[i]).collect::<Vec<_>>())).collect();
    let n = similarity.len();
    let means = similarity.iter().map(|s| finite_mean(&s.concat()));
    let curve = Curve {
        name: "from the input up, smoothed".to_owned(),
        x: (0..=n).map(|k| k as f64 / n as f64).collect(),
        y: std::iter::once(1.0).chain(means).collect(),
    };
    Ok(Measured { curves: vec![curve], ..Measured::plain(values, Better::Lower) })
}

#[cfg(test)]
mod tests {
    use netproof_graph::builders::{Activation, mlp};

    use super::super::test_support::{method, on};
    use super::*;
    use crate::interpretability::test_support::linear;

    #[test]
    fn of_one_layer_it_is_the_correlation_of_the_shuffled_weights() {
        // Gradients of a linear network are its weights, whatever the noise.
        let weights: Vec<f32> = (0..60).map(|i| (i as f32 * 0.9).sin()).collect();
        let rows = [std::array::from_fn::<f32, 60, _>(|i| i as f32 / 60.0)];
        on(&linear(&weights, 0.0), &rows, |bench| {
            let gradient =
                crate::interpretability::explanation("saliency", toml::from_str("absolute = false").unwrap());
            let gradient = gradient.unwrap();
            let m = measure(&bench.case(&*gradient.method).unwrap()).unwrap();
            let own: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
            let draws: Vec<f64> = (0..bench.protocol.draws)
                .map(|draw| {
                    let copy = super::super::shuffled(bench.net.model(), 0, draw as u64).unwrap();
                    let other = copy.parameter("w").unwrap().as_f32().unwrap().iter().map(|&w| f64::from(w));
                    likeness(&own, &other.collect::<Vec<_>>()).unwrap()
                })
                .collect();
            assert!((m.values[0] - finite_mean(&draws)).abs() < 1e-9, "{m:?} {draws:?}");
        });
    }

    #[test]
    fn the_gradient_of_a_network_goes() {
        let model = mlp(&[40], &[30], 3, Activation::Relu, 5).unwrap();
        let rows: Vec<[f32; 40]> = (0..4).map(|r| std::array::from_fn(|i| ((r * 40 + i) as f32 * 1.7).sin())).collect();
        on(&model, &rows, |bench| {
            let m = measure(&bench.case(&*method("input-x-gradient").method).unwrap()).unwrap();
            assert!(finite_mean(&m.values).abs() < 0.2, "{m:?}");
        });
    }
}
