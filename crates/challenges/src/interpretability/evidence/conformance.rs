//! What every metric owes, over the registry: a value per row, the same in any batch, nothing from nothing, NaN where the row
//! is not a number.

use netproof_graph::Model;
use netproof_graph::builders::{Activation, CnnOptions, cnn, mlp};
use netproof_tensor::Tensor;

use super::test_support::method;
use super::{Bench, EVIDENCE, Measured, Protocol};
use crate::interpretability::test_support::net_of;
use crate::interpretability::{ExplainError, Question};

const METHODS: [&str; 2] = ["input-x-gradient", "integrated-gradients"];

fn networks() -> [(&'static str, Model, Vec<usize>); 2] {
    let mut small = CnnOptions::new([2, 8, 8], 3);
    small.channels = vec![4];
    small.hidden = 6;
    [("mlp", mlp(&[6], &[8], 3, Activation::Relu, 1).unwrap(), vec![6]), ("cnn", cnn(&small).unwrap(), vec![2, 8, 8])]
}

fn question(n: usize, row: &[usize]) -> Question {
    let shape = [&[n], row].concat();
    let count = shape.iter().product::<usize>();
    let x = Tensor::f32(shape, (0..count).map(|i| (i as f32 * 0.7).sin() * 0.5 + 0.5).collect()).unwrap();
    let mut q = Question::new(x, (0..n).map(|i| i % 3).collect()).unwrap();
    // Ranges must not depend on the batch.
    q.background =
        Some(Tensor::f32([&[2], row].concat(), [0.0, 1.0].iter().flat_map(|&v| vec![v; count / n]).collect()).unwrap());
    q
}

fn protocol() -> Protocol {
    Protocol { subsets: 10, draws: 2, stages: 2, points: 6, orders: 2, copies: 2, ..Protocol::default() }
}

fn measure(model: &Model, q: &Question, id: &str, see: impl Fn(&Bench<'_, '_>, &str, Result<Measured, ExplainError>)) {
    let net = net_of(model, &q.x);
    let masks: Vec<bool> = (0..q.x.len()).map(|i| i % 5 < 2).collect();
    let bench = Bench::new(&net, q, protocol()).unwrap().with_masks(&masks).unwrap();
    let m = method(id);
    let case = bench.case(&*m.method).unwrap();
    for metric in EVIDENCE {
        see(&bench, metric.card.id, (metric.measure)(&case));
    }
}

#[test]
fn a_value_per_row_and_the_same_in_any_company() {
    for (name, model, row) in networks() {
        for id in METHODS {
            let q = question(4, &row);
            let all = std::cell::RefCell::new(Vec::new());
            measure(&model, &q, id, |_, metric, m| {
                all.borrow_mut().push(m.map(|m| m.values).map_err(|e| e.to_string()));
                if let Ok(Ok(values)) = all.borrow().last().ok_or(()) {
                    assert_eq!(values.len(), 4, "{metric} of {id} on {name}");
                    assert!(values.iter().any(|v| v.is_finite()), "{metric} of {id} on {name}: {values:?}");
                }
            });
            let mut one = q.select(&[2]).unwrap();
            one.background = q.background.clone();
            let position = std::cell::Cell::new(0);
            let all = all.into_inner();
            // Masks repeat every five elements; row 2 begins elsewhere in them, so localisation is not compared.
            measure(&model, &one, id, |_, metric, m| {
                let wanted = &all[position.replace(position.get() + 1)];
                if metric.starts_with("relevance") || metric.starts_with("pointing") {
                    return;
                }
                match (wanted, m) {
                    (Ok(all), Ok(one)) => {
                        let (a, b) = (all[2], one.values[0]);
                        let same = (a - b).abs() <= 2e-3 * a.abs().max(0.05) || (a.is_nan() && b.is_nan());
                        assert!(same, "{metric} of {id} on {name}: {a} in company, {b} alone");
                    }
                    (Err(_), Err(_)) => {}
                    (a, b) => panic!("{metric} of {id} on {name}: {a:?}, {b:?}"),
                }
            });
        }
    }
}

#[test]
fn a_row_that_is_not_a_number_has_no_value_and_spoils_no_other() {
    for (name, model, row) in networks() {
        let mut q = question(3, &row);
        let width = q.x.row_len();
        q.x.as_f32_mut().unwrap()[width] = f32::NAN;
        measure(&model, &q, "input-x-gradient", |_, metric, m| {
            let Ok(m) = m else { return };
            assert!(m.values[1].is_nan(), "{metric} on {name}: {:?}", m.values);
            assert!(m.values[0].is_finite() || m.values[2].is_finite(), "{metric} on {name}: {:?}", m.values);
        });
    }
}

#[test]
fn no_rows_have_no_values() {
    for (name, model, row) in networks() {
        let q = question(3, &row).select(&[]).unwrap();
        measure(&model, &q, "input-x-gradient", |_, metric, m| {
            if let Ok(m) = m {
                assert!(m.values.is_empty(), "{metric} on {name}");
            }
        });
    }
}

#[test]
fn a_protocol_that_makes_no_sense_is_refused() {
    let (_, model, row) = &networks()[0];
    let q = question(2, row);
    let net = net_of(model, &q.x);
    let refused = |p: Protocol| Bench::new(&net, &q, p).map(|_| ()).unwrap_err().to_string();
    assert!(refused(Protocol { points: 0, ..protocol() }).contains("points is 0"));
    assert!(refused(Protocol { subset_fraction: 1.0, ..protocol() }).contains("subset_fraction is 1"));
    assert!(refused(Protocol { subsets: 2, ..protocol() }).contains("subsets is 2"));
    assert!(refused(Protocol { radius: f64::NAN, ..protocol() }).contains("radius"));
    assert!(Bench::new(&net, &q, protocol()).unwrap().with_masks(&[true]).is_err());
}

#[test]
fn every_card_is_of_evidence() {
    for m in EVIDENCE {
        assert_eq!(m.card.kind, netproof_core::CardKind::Evidence, "{}", m.card.id);
    }
}
