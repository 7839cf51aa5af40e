//! Parameter randomisation: how much of a map is left when the weights are. Spearman's correlation of the map with that of the
//! same network with its weights in random order, layer after layer from the output down (cascading), from the input up, and
//! one layer at a time. A map that stays does not explain the network. Adebayo et al., NeurIPS 2018, arXiv:1810.03292,
//! section 3. Checked against: a constant map (1), random maps (0), closed form on a linear model.
//!
//! Differs from the paper, for the reasons in Hedström et al. 2024, arXiv:2405.02383: maps are compared with their signs and
//! not rescaled; units that are 0 before and after are left out (dead pixels stay dead whatever the weights are); several draws; bottom-up beside top-down, since what lies below the random layers shines through; random maps
//! stand beside it. Weak where signs carry nothing (saliency): places that matter to any network keep some likeness.

use netproof_core::{Card, CardKind, Challenge};
use netproof_graph::Model;

use super::randomise::{Layer, Order, layers, shuffle};
use super::ranks::likeness;
use super::{Better, Case, Curve, Measured};
use crate::interpretability::{ExplainError, Explained, Question, explain};

pub(super) static CARD: Card = Card {
    id: "parameter-randomisation",
    version: 1,
    kind: CardKind::Evidence,
    title: "Parameter randomisation",
    challenge: Challenge::Interpretability,
    measures: "Rank correlation of the map with that of the same network with all its weights in random order; by depth of \
               randomisation from the output down and from the input up, and for each layer alone.",
    reference: "Adebayo et al., NeurIPS 2018, arXiv:1810.03292, section 3; Hedström et al. 2024, arXiv:2405.02383",
    needs: &[],
    options: &[],
};

/// How weights are randomised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cascade {
    /// In which order.
    pub order: Order,
    /// Independent draws.
    pub draws: usize,
    /// Most stages.
    pub stages: usize,
}

/// Similarity of maps before and after.
#[derive(Debug, Clone, PartialEq)]
pub struct Randomised {
    /// What became random in each stage: the layers' names.
    pub stages: Vec<String>,
    /// Rank correlation, `[stage][draw][row]`; NaN where a map is constant.
    pub similarity: Vec<Vec<Vec<f64>>>,
}

impl Randomised {
    /// Mean over rows that have a value, for each draw of a stage.
    pub fn by_draw(&self, stage: usize) -> Vec<f64> {
        self.similarity[stage].iter().map(|rows| finite_mean(rows)).collect()
    }
}

/// Attributions as numbers to compare.
pub(super) fn elements(map: &[f32]) -> Vec<f64> {
    map.iter().map(|&v| f64::from(v)).collect()
}

/// Mean of what is finite; NaN where nothing is.
pub(super) fn finite_mean(values: &[f64]) -> f64 {
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    finite.iter().sum::<f64>() / finite.len() as f64
}

/// Layers in at most `most` groups of neighbours.
fn groups(layers: &[Layer], most: usize) -> Vec<Vec<Layer>> {
    let count = most.min(layers.len()).max(1);
    (0..count).map(|g| layers[g * layers.len() / count..(g + 1) * layers.len() / count].to_vec()).collect()
}

/// The map of a method before and after randomisation.
/// # Errors
/// The network has no weights, or the method does not apply to the randomised network.
pub fn randomised_similarity(case: &Case<'_, '_>, cascade: &Cascade) -> Result<Randomised, ExplainError> {
    // By element and not by unit: sums of sizes over the many parts of a category are large whatever the weights are.
    let own: Vec<Vec<f64>> = (0..case.len()).map(|i| elements(case.map(i))).collect();
    let mut found = Randomised { stages: Vec::new(), similarity: Vec::new() };
    randomised(case, cascade, |stage, draw, name, net| {
        if draw == 0 {
            found.stages.push(name);
            found.similarity.push(Vec::new());
        }
        let Some(maps) = maps_of(case, net, case.bench.question)? else {
            found.similarity[stage].push(vec![f64::NAN; own.len()]);
            return Ok(());
        };
        let width = net.row_len().max(1);
        let rows = maps.chunks(width).zip(&own);
        let rows = rows.map(|(m, own)| likeness(&elements(m), own).unwrap_or(f64::NAN));
        found.similarity[stage].push(rows.collect());
        Ok(())
    })?;
    Ok(found)
}

/// Maps of a randomised network; `None` where the method does not apply to it, as where no gradient is left.
pub(super) fn maps_of(
    case: &Case<'_, '_>,
    net: &Explained<'_>,
    question: &Question,
) -> Result<Option<Vec<f32>>, ExplainError> {
    match explain(case.method, net, question).and_then(|e| case.bench.on_input(&e)) {
        Ok(maps) => Ok(Some(maps)),
        Err(ExplainError::NotApplicable { .. } | ExplainError::NotDifferentiable { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Calls `see` with stage, draw, names of the layers that became random, and the network.
pub(super) fn randomised(
    case: &Case<'_, '_>,
    cascade: &Cascade,
    mut see: impl FnMut(usize, usize, String, &Explained<'_>) -> Result<(), ExplainError>,
) -> Result<(), ExplainError> {
    let net = case.bench.net;
    let layers = layers(net.model());
    if layers.is_empty() {
        return Err(ExplainError::not_applicable("the network has no weights to randomise"));
    }
    let mut groups = groups(&layers, cascade.stages);
    if cascade.order == Order::TopDown {
        groups.reverse();
    }
    let file = net.model().to_file()?;
    for draw in 0..cascade.draws {
        let mut copy = Model::from_file(file.clone())?;
        for (stage, group) in groups.iter().enumerate() {
            if cascade.order == Order::Independent {
                copy = Model::from_file(file.clone())?;
            }
            shuffle(&mut copy, group, case.bench.question.seed, draw as u64)?;
            let name = group.iter().map(|l| l.name.as_str()).collect::<Vec<_>>().join(", ");
            see(stage, draw, name, &net.on(&copy))?;
        }
    }
    Ok(())
}

pub(super) fn measure(case: &Case<'_, '_>) -> Result<Measured, ExplainError> {
    let p = &case.bench.protocol;
    let of = |order, draws| randomised_similarity(case, &Cascade { order, draws, stages: p.stages });
    let down = of(Order::TopDown, p.draws)?;
    let (up, each) = (of(Order::BottomUp, 1)?, of(Order::Independent, 1)?);
    let last = &down.similarity[down.stages.len() - 1];
    let values = (0..case.len()).map(|i| finite_mean(&last.iter().map(|rows| rows[i]).collect::<Vec<_>>()));
    let curve = |name: &str, r: &Randomised, from_whole: bool| {
        let n = r.stages.len();
        let means = (0..n).map(|s| finite_mean(&r.by_draw(s)));
        let (skip, first) = if from_whole { (0, Some(1.0)) } else { (1, None) };
        let x = (skip..=n).map(|k| k as f64 / n as f64).collect();
        Curve { name: name.to_owned(), x, y: first.into_iter().chain(means).collect() }
    };
    // Two independent random maps: what is left when nothing is.
    let units = case.bench.units.len();
    let random = (0..case.len()).map(|i| {
        let map = |k: usize| {
            let mut rng = case.bench.question.rng(i, &format!("random-map-{k}"));
            (0..units).map(|_| rng.normal()).collect::<Vec<f64>>()
        };
        likeness(&map(0), &map(1)).unwrap_or(f64::NAN)
    });
    Ok(Measured {
        values: values.collect(),
        random: Some(random.collect()),
        edges: None,
        better: Better::Lower,
        curves: vec![
            curve("from the output down", &down, true),
            curve("from the input up", &up, true),
            curve("one layer at a time", &each, false),
        ],
        notes: vec![format!("stages from the output down: {}", down.stages.join("; "))],
    })
}

#[cfg(test)]
mod tests {
    use netproof_graph::builders::{Activation, mlp};

    use super::super::test_support::{Fixed, method, on};
    use super::*;

    #[test]
    fn a_map_that_ignores_the_weights_stays_and_the_gradient_goes() {
        let model = mlp(&[40], &[30, 30], 3, Activation::Relu, 5).unwrap();
        let rows: Vec<[f32; 40]> = (0..6).map(|r| std::array::from_fn(|i| ((r * 40 + i) as f32 * 1.7).sin())).collect();
        on(&model, &rows, |bench| {
            let fixed = Fixed::new((0..240).map(|i| (i as f32 * 0.3).cos()).collect());
            let stays = measure(&bench.case(&fixed).unwrap()).unwrap();
            assert!(stays.values.iter().all(|&v| (v - 1.0).abs() < 1e-12), "{stays:?}");
            let gradient = method("input-x-gradient");
            let goes = measure(&bench.case(&*gradient.method).unwrap()).unwrap();
            assert!(finite_mean(&goes.values).abs() < 0.2, "{goes:?}");
            assert!(finite_mean(goes.random.as_ref().unwrap()).abs() < 0.2);
            assert_eq!(goes.curves[0].y.len(), 4);
            assert_eq!(goes.curves[0].y[0], 1.0);
            assert!(goes.curves[0].y[3] < 0.3 && goes.curves[2].y.len() == 3, "{:?}", goes.curves);
        });
    }

    #[test]
    fn what_is_random_does_not_depend_on_the_method_and_stages_are_counted() {
        let model = mlp(&[4], &[5, 5, 5], 2, Activation::Relu, 5).unwrap();
        on(&model, &[[0.5f32, 1.0, -1.0, 2.0]], |bench| {
            let gradient = method("saliency");
            let case = bench.case(&*gradient.method).unwrap();
            let cascade = Cascade { order: Order::TopDown, draws: 2, stages: 2 };
            let r = randomised_similarity(&case, &cascade).unwrap();
            assert_eq!(r.stages.len(), 2);
            assert!(r.stages[0].contains("layers.2"), "from the top: {:?}", r.stages);
            assert_eq!(r, randomised_similarity(&case, &cascade).unwrap());
        });
    }
}
