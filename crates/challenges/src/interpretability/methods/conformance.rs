//! What every explanation owes, over the whole registry: shapes, batch and seed invariance, hostile input.

use netproof_graph::Model;
use netproof_graph::builders::{Activation, CnnOptions, VitOptions, cnn, mlp, vit};
use netproof_tensor::Tensor;

use super::EXPLANATIONS;
use crate::interpretability::test_support::net_of;
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question, explain};

fn networks() -> Vec<(&'static str, Model, Vec<usize>)> {
    let image = [2, 8, 8];
    let mut small = CnnOptions::new(image, 3);
    small.channels = vec![4, 4];
    let transformer = VitOptions { image, patch: 4, classes: 3, width: 8, depth: 2, heads: 2, mlp: 8, seed: 1 };
    vec![
        ("mlp", mlp(&[5], &[8], 3, Activation::Relu, 1).unwrap(), vec![5]),
        ("cnn", cnn(&small).unwrap(), image.to_vec()),
        ("vit", vit(&transformer).unwrap(), image.to_vec()),
    ]
}

fn rows(n: usize, row: &[usize]) -> Tensor {
    let shape = [&[n], row].concat();
    let count = shape.iter().product::<usize>();
    Tensor::f32(shape, (0..count).map(|i| (i as f32 * 0.7).sin() * 0.5 + 0.5).collect()).unwrap()
}

fn question(n: usize, row: &[usize]) -> Question {
    let mut q = Question::new(rows(n, row), (0..n).map(|i| i % 3).collect()).unwrap();
    q.background = Some(rows(4, row));
    q
}

/// Calls `see` with every method on every network that it applies to.
fn each(mut see: impl FnMut(&str, &dyn Explainer, &Explained<'_>, &[usize])) {
    let networks = networks();
    for entry in EXPLANATIONS {
        let method = (entry.build)(entry.card, toml::Table::new()).unwrap().method;
        let mut applied = 0;
        for (name, model, row) in &networks {
            let net = net_of(model, &rows(1, row));
            match explain(&*method, &net, &question(2, row)) {
                Err(ExplainError::NotApplicable { .. }) => continue,
                Err(e) => panic!("{} on {name}: {e}", entry.card.id),
                Ok(_) => applied += 1,
            }
            see(&format!("{} on {name}", entry.card.id), &*method, &net, row);
        }
        assert!(applied > 0, "{} applies to no network", entry.card.id);
    }
}

fn values(e: &Explanation) -> &[f32] {
    e.attributions.as_f32().unwrap()
}

#[test]
fn attributions_are_finite_and_have_a_row_per_row() {
    each(|what, method, net, row| {
        let e = explain(method, net, &question(3, row)).unwrap();
        assert_eq!(e.attributions.rows(), 3, "{what}");
        assert!(values(&e).iter().all(|v| v.is_finite()), "{what}");
        assert!(values(&e).iter().any(|&v| v != 0.0), "{what}: nothing but zeros");
        if e.value == net.input() {
            assert_eq!(&e.attributions.shape()[1..], row, "{what}");
        }
        if let Some(t) = e.on_input(row) {
            assert_eq!(t.shape(), [&[3], row].concat(), "{what}");
        }
        for list in [&e.delta, &e.difference].into_iter().flatten() {
            assert!(list.len() == 3 && list.iter().all(|v| v.is_finite()), "{what}");
        }
    });
}

#[test]
fn a_row_does_not_depend_on_the_rows_beside_it_nor_on_portions() {
    each(|what, method, net, row| {
        let q = question(4, row);
        let all = explain(method, net, &q).unwrap();
        let one = explain(method, net, &q.select(&[2]).unwrap()).unwrap();
        let width = all.attributions.row_len();
        let (a, b) = (&values(&all)[2 * width..3 * width], values(&one));
        let largest = a.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= 1e-4 * largest + 1e-7, "{what}: {a} in company, {b} alone");
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    each(|what, method, net, row| {
        let bits = |e: &Explanation| values(e).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let q = question(2, row);
        let (a, b) = (explain(method, net, &q).unwrap(), explain(method, net, &q).unwrap());
        assert!(bits(&a) == bits(&b), "{what}");
    });
}

#[test]
fn no_rows_are_an_empty_answer() {
    each(|what, method, net, row| {
        let e = explain(method, net, &question(0, row)).unwrap();
        assert_eq!(e.attributions.rows(), 0, "{what}");
    });
}

#[test]
fn a_row_that_is_not_a_number_spoils_no_other() {
    each(|what, method, net, row| {
        let clean = question(3, row);
        let width = net.row_len();
        let mut bad = clean.clone();
        let mut values_in = clean.x.as_f32().unwrap().to_vec();
        values_in[width + 1] = f32::NAN;
        bad.x = Tensor::f32(clean.x.shape().to_vec(), values_in).unwrap();
        let e = explain(method, net, &bad).unwrap();
        let rest = explain(method, net, &clean.select(&[0, 2]).unwrap()).unwrap();
        let k = e.attributions.row_len();
        assert!(values(&e)[k..2 * k].iter().all(|v| v.is_nan()), "{what}");
        assert!(values(&e)[..k] == values(&rest)[..k] && values(&e)[2 * k..] == values(&rest)[k..], "{what}");
        assert!(e.notes.iter().any(|n| n.contains("1 of 3 rows")), "{what}: {:?}", e.notes);
        let mut all = bad.select(&[1]).unwrap();
        all.rows = vec![0];
        let e = explain(method, net, &all).unwrap();
        assert!(values(&e).iter().all(|v| v.is_nan()), "{what}");
    });
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    each(|what, method, net, row| {
        let mut q = question(2, row);
        q.targets[1] = 3;
        let e = explain(method, net, &q).unwrap_err().to_string();
        assert!(e.contains("target 3") && e.contains("0 to 2"), "{what}: {e}");
        let mut q = question(2, row);
        q.baseline = rows(1, &[7]);
        let e = explain(method, net, &q).unwrap_err().to_string();
        assert!(e.contains("baseline") && e.contains("[1, 7]"), "{what}: {e}");
        let mut q = question(2, row);
        q.baseline = rows(3, row);
        assert!(explain(method, net, &q).is_err(), "{what}");
    });
}
