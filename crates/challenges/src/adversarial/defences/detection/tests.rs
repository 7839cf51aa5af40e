use netproof_audit::{Silent, context};
use netproof_data::{Dataset, Labels, OpenOptions};
use netproof_graph::builders::{Activation, mlp};
use netproof_stats::Level;

use super::*;
use crate::adversarial::loss::argmax;

fn network() -> Model {
    mlp(&[6], &[12], 3, Activation::Tanh, 4).unwrap()
}

fn points(n: usize) -> Vec<f32> {
    let mut rng = Rng::new(8);
    (0..n * 6).map(|_| rng.unit() as f32).collect()
}

fn detectors(model: &Model, probe: &Probe<'_>) -> Vec<(&'static str, Box<dyn Detector>)> {
    let seen = probe.look(&points(80)).unwrap();
    let features = seen.features.as_f32().unwrap();
    let labels: Vec<usize> = seen.logits.as_f32().unwrap().chunks(3).map(argmax).collect();
    let clean = Clean { features, width: 12, labels: &labels };
    vec![
        ("energy", Box::new(energy::Energy)),
        ("mahalanobis", Box::new(mahalanobis::Mahalanobis::fit(&clean))),
        ("neighbours", Box::new(nearest_neighbours::NearestNeighbours::fit(&clean))),
        ("squeezing", Box::new(feature_squeezing::FeatureSqueezing::new(model).unwrap())),
    ]
}

/// Slopes against differences of the score, row by row. Squeezing rounds, so there the slope is that of the identity, which
/// no difference shows; it is left out.
#[test]
fn slopes_are_those_of_the_scores() {
    let model = network();
    let probe = Probe::new(&model, &[6]).unwrap();
    let x = points(3);
    for (name, detector) in detectors(&model, &probe).iter().take(3) {
        let slope = detector.slope(&probe, &x).unwrap();
        let mut near = 0;
        for i in 0..x.len() {
            let h = 2e-3;
            let at = |d: f32| {
                let mut moved = x.clone();
                moved[i] += d;
                detector.score(&probe, &moved).unwrap()[i / 6]
            };
            let want = (at(h) - at(-h)) / (2.0 * f64::from(h));
            near += usize::from((f64::from(slope[i]) - want).abs() < 0.02 * (1.0 + want.abs()));
        }
        // Where another row becomes the neighbour that counts, the distance has a kink.
        let kinks = if *name == "neighbours" { 3 } else { 0 };
        assert!(near + kinks >= x.len(), "{name}: {near} of {}", x.len());
    }
}

#[test]
fn squeezing_measures_how_far_probabilities_move() {
    let model = network();
    let probe = Probe::new(&model, &[6]).unwrap();
    let x = points(4);
    let rounded: Vec<f32> = x.iter().map(|v| (v * 15.0).round() / 15.0).collect();
    let soft = |x: &[f32]| {
        let seen = probe.look(x).unwrap();
        let z = seen.logits.as_f32().unwrap().to_vec();
        z.chunks(3)
            .map(|z| {
                let e: Vec<f64> = z.iter().map(|z| f64::from(*z).exp()).collect();
                let s: f64 = e.iter().sum();
                e.iter().map(|e| e / s).collect::<Vec<f64>>()
            })
            .collect::<Vec<_>>()
    };
    let detector = feature_squeezing::FeatureSqueezing::new(&model).unwrap();
    for ((got, p), q) in detector.score(&probe, &x).unwrap().iter().zip(soft(&x)).zip(soft(&rounded)) {
        let want: f64 = p.iter().zip(&q).map(|(a, b)| (a - b).abs()).sum();
        assert!((got - want).abs() < 1e-5, "{got} {want}");
    }
}

#[test]
fn thresholds_let_through_what_they_promise() {
    let mut scores: Vec<f64> = (0..100).map(f64::from).rev().collect();
    let t = upper_quantile(&mut scores, 0.05);
    assert_eq!(scores.iter().filter(|s| **s > t).count(), 5);
    assert_eq!(upper_quantile(&mut [1.0, 2.0], 0.05), 2.0);
}

/// An attacker who knows the detector evades it at least as often as one who does not: he has more ways.
#[test]
fn the_check_says_what_detectors_are_worth() {
    let model = network();
    let n = 200;
    let x = points(n);
    let labels: Vec<usize> = {
        let probe = Probe::new(&model, &[6]).unwrap();
        probe.look(&x).unwrap().logits.as_f32().unwrap().chunks(3).map(argmax).collect()
    };
    let data = Dataset::from_memory(
        Tensor::f32(vec![n, 6], x).unwrap(),
        Labels::Classes(labels),
        Vec::new(),
        &OpenOptions::default(),
    )
    .unwrap();
    let subject = Subject::new(model, "m", data, None).unwrap();
    let own = Detection { epsilon: 0.2, rows: 40, fit_rows: 100, steps: 20, ..Detection::default() };
    let cx = context(&subject, &CARD, "{}", 1, Level::P95, &Silent).unwrap();
    let found = own.run(&subject, &cx).unwrap().reproducible;
    let value = found[0].value.unwrap();
    assert!((0.0..=1.0).contains(&value), "{found:?}");
    let Evidence::Table(table) = &found[0].evidence[0] else { panic!("no table") };
    assert_eq!(table.rows.len(), 4);
    let again = own.run(&subject, &cx).unwrap().reproducible;
    assert_eq!(found, again);
}
