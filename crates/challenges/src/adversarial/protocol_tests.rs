//! Protocols on small networks: what they owe whatever the network is.

use std::time::Instant;

use netproof_audit::{Head, Silent};
use netproof_core::{Constraints, Norm, Threat};
use netproof_data::{Dataset, OpenOptions};
use netproof_graph::Model;
use netproof_stats::Level;
use netproof_tensor::Tensor;

use super::AttackError;
use super::certifier::Certifier;
use super::harness::{Fate, Harness};
use super::loss::margin;
use super::possible::Possible;
use super::protocol::Method;
use super::report::AttackReport;
use super::test_support::{linear, linear_on, rows, small, victim};
use super::verify::{Claims, verify};
use super::victim::Victim;

fn harness<'v, 'm>(v: &'v Victim<'m>, t: Threat, x: &[f32], labels: &[usize]) -> Harness<'v, 'm> {
    let n = labels.len();
    let ids: Vec<u64> = (0..n as u64).map(|i| 100 + i).collect();
    let x = Tensor::f32([&[n], v.row()].concat(), x.to_vec()).unwrap();
    Harness::new(v, t, &x, labels, &ids, 0, &Silent).unwrap()
}

fn method(id: &str, options: &str) -> Method {
    Method::find(id, &options.parse().unwrap()).unwrap()
}

const FAST: &str = "[cascade]\nqueries = 200\nsteps = 30\n";

/// On a linear model the robust rows are those whose margin is above epsilon times the dual norm: both protocols must find all
/// the others.
#[test]
fn protocols_find_exactly_the_rows_that_can_be_broken_on_a_linear_model() {
    let w = [
        [0.0f32; 6],
        [0.5, -2.0, 1.0, 0.3, 0.0, -0.7],
        [0.2, 0.4, -0.3, 0.0, 0.6, 0.1],
        [-0.3, 0.2, 0.1, 0.5, -0.2, 0.0],
    ];
    let model = linear(&w, &[0.1, 0.9, 0.2, 0.3]);
    let (x, labels) = rows(&model, 6, 60, 2);
    let v = victim(&model, &[6]);
    let threat = Threat::new(Norm::Linf, 0.03, [-9.0, 9.0]).unwrap();
    for id in ["cascade", "autoattack"] {
        let mut h = harness(&v, threat, &x, &labels);
        method(id, FAST).run(&mut h, &[]).unwrap();
        let mut wrong = 0;
        for i in 0..60 {
            let z = h.row_logits(i);
            let others = (0..4).filter(|&c| c != labels[i]);
            let reach = others.map(|c| {
                let dual: f32 = w[labels[i]].iter().zip(&w[c]).map(|(a, b)| (a - b).abs()).sum();
                (z[labels[i]] - z[c]) / dual
            });
            let distance = f64::from(reach.fold(f32::INFINITY, f32::min));
            let robust = h.outcomes()[i].fate.is_robust();
            // Closer to the edge than an attack must come in its steps.
            if (distance / threat.epsilon - 1.0).abs() > 1e-3 && robust != (distance > threat.epsilon) {
                wrong += 1;
            }
        }
        assert_eq!(wrong, 0, "{id}: {:?}", h.stages());
    }
}

/// The long Square looks at the rows that are nearest after the short one, with draws of its own, and at no others.
#[test]
fn the_long_square_searches_the_nearest_rows() {
    let model = small(12, 5, 3);
    let (x, labels) = rows(&model, 12, 300, 4);
    let v = victim(&model, &[12]);
    let threat = Threat::new(Norm::Linf, 0.004, [-9.0, 9.0]).unwrap();
    let run = |options: &str| {
        let mut h = harness(&v, threat, &x, &labels);
        method("cascade", options).run(&mut h, &[]).unwrap();
        let standing = h.standing().len() as u64;
        let stages: Vec<(String, u64)> = h.stages().iter().map(|s| (s.id.clone(), s.rows)).collect();
        let queries: Vec<u64> = h.outcomes().iter().map(|o| o.count.forward).collect();
        (standing, stages, queries, h.notes().join("; "))
    };
    let common = "[cascade]\nqueries = 40\nsteps = 10\n";
    let (_, stages, without, _) = run(&format!("{common}long_queries = 0\n"));
    assert!(stages.iter().all(|s| !s.0.starts_with("square-long")), "{stages:?}");
    let (standing, stages, with, notes) = run(&format!("{common}long_queries = 150\n"));
    let long: Vec<u64> = stages.iter().filter(|s| s.0.starts_with("square-long")).map(|s| s.1).collect();
    // A fiftieth of 300 rows, and nothing that promises more.
    assert_eq!(long, [6], "{stages:?}");
    assert!(standing > 100 && notes.contains("square-long searched the 6 rows nearest"), "{standing} {notes}");
    let more: Vec<u64> = with.iter().zip(&without).map(|(a, b)| a - b).filter(|&d| d > 0).collect();
    assert_eq!(more.len(), 6, "{more:?}");
    let everywhere = run(&format!("{common}long_queries = 150\nthorough = true\n"));
    assert_eq!(everywhere.1.last().map(|s| s.1), Some(everywhere.0), "{:?}", everywhere.1);
}

#[test]
fn robust_accuracy_falls_with_epsilon_and_stages_add_up() {
    let model = small(12, 5, 3);
    let (x, labels) = rows(&model, 12, 40, 4);
    let v = victim(&model, &[12]);
    for norm in [Norm::Linf, Norm::L2, Norm::L1] {
        let mut before = 1.0;
        for scale in [0.2, 0.5, 1.0, 2.0] {
            let epsilon = scale
                * if norm == Norm::Linf {
                    0.1
                } else if norm == Norm::L2 {
                    0.3
                } else {
                    0.8
                };
            let mut h = harness(&v, Threat::new(norm, epsilon, [0.0, 1.0]).unwrap(), &x, &labels);
            method("cascade", FAST).run(&mut h, &[]).unwrap();
            let a = h.accuracy(Level::P95);
            assert!(a.attacked.value <= before + 1e-9, "{norm} {epsilon}");
            before = a.attacked.value;
            let broken: u64 = h.stages().iter().map(|s| s.broken).sum();
            assert_eq!(broken as usize, 40 - h.standing().len());
            let i = a.interval.unwrap();
            assert!(i.low <= a.certified.value && i.high >= a.attacked.value && i.method == "clopper-pearson");
        }
    }
}

#[test]
fn networks_with_two_and_three_classes_are_attacked_and_the_substitute_is_said() {
    for classes in [2, 3] {
        let model = small(8, classes, 6);
        let (x, labels) = rows(&model, 8, 20, 4);
        let v = victim(&model, &[8]);
        for id in ["autoattack", "cascade"] {
            let mut h = harness(&v, Threat::new(Norm::Linf, 0.6, [0.0, 1.0]).unwrap(), &x, &labels);
            method(id, FAST).run(&mut h, &[]).unwrap();
            assert!(h.notes().iter().any(|n| n.contains("difference of logits ratio")), "{:?}", h.notes());
            assert!(h.standing().len() <= 10, "{id} {classes}: {}", h.standing().len());
        }
    }
}

/// One logit z is the two logits 0 and z, with or without the sigmoid.
#[test]
fn a_single_logit_is_two_classes() {
    let model = linear(&[[1.0, -1.0]], &[0.2]);
    let sigmoid = model.insert_after("y", netproof_graph::NewNode::new("Sigmoid", &["y"], &["p"])).unwrap();
    let x = Tensor::f32(vec![1, 2], vec![0.5, 0.4]).unwrap();
    for (m, head) in [(&model, Head::BinaryLogit), (&sigmoid, Head::BinaryProbability)] {
        let v = Victim::new(m, head, &[2], &x).unwrap();
        assert_eq!(v.classes(), 2);
        let z = v.logits(x.as_f32().unwrap()).unwrap();
        assert!(z[0] == 0.0 && (z[1] - 0.3).abs() < 1e-6, "{z:?}");
        let look = v.look(x.as_f32().unwrap(), &mut |_, _, seed| seed[0] = 1.0).unwrap();
        assert_eq!(look.gradient, [0.0, 0.0]);
        let look = v.look(x.as_f32().unwrap(), &mut |_, _, seed| seed[1] = 2.0).unwrap();
        assert_eq!(look.gradient, [2.0, -2.0]);
        let mut h = harness(&v, Threat::new(Norm::Linf, 0.2, [0.0, 1.0]).unwrap(), x.as_f32().unwrap(), &[1]);
        method("cascade", FAST).run(&mut h, &[]).unwrap();
        assert!(h.standing().is_empty());
    }
}

struct Margin(f32);

impl Certifier for Margin {
    fn id(&self) -> &'static str {
        "margin"
    }

    fn certify(&self, v: &Victim<'_>, x: &[f32], labels: &[usize], _: &Threat) -> Result<Vec<bool>, AttackError> {
        let z = v.logits(x)?;
        Ok(z.chunks_exact(v.classes()).zip(labels).map(|(z, l)| margin(z, *l) > self.0).collect())
    }
}

#[test]
fn certified_rows_are_not_attacked_and_bound_the_answer_from_below() {
    let model = small(12, 5, 3);
    let (x, labels) = rows(&model, 12, 30, 4);
    let v = victim(&model, &[12]);
    let mut margins: Vec<f32> = v.logits(&x).unwrap().chunks(5).zip(&labels).map(|(z, l)| margin(z, *l)).collect();
    margins.sort_by(f32::total_cmp);
    let certifier = Margin(margins[19]);
    let mut h = harness(&v, Threat::new(Norm::Linf, 0.001, [0.0, 1.0]).unwrap(), &x, &labels);
    method("cascade", FAST).run(&mut h, &[&certifier]).unwrap();
    let a = h.accuracy(Level::P95);
    assert_eq!(h.outcomes().iter().filter(|o| o.fate == Fate::Certified).count(), 10);
    assert!(a.certified.value <= a.attacked.value);
    assert!(h.outcomes().iter().all(|o| o.fate != Fate::Certified || o.count.forward == 0));
}

#[test]
fn out_of_time_is_no_error_and_an_earlier_run_goes_on() {
    let model = small(12, 5, 3);
    let (x, labels) = rows(&model, 12, 30, 4);
    let v = victim(&model, &[12]);
    let threat = Threat::new(Norm::Linf, 0.1, [0.0, 1.0]).unwrap();
    let mut h = harness(&v, threat, &x, &labels).until(Some(Instant::now()));
    method("cascade", FAST).run(&mut h, &[]).unwrap();
    assert_eq!(h.standing().len(), 30);
    assert!(h.stages().iter().all(|s| s.skipped.is_some()), "{:?}", h.stages());
    let mut first = harness(&v, threat, &x, &labels);
    method("pgd", "").run(&mut first, &[]).unwrap();
    let broken = 30 - first.standing().len();
    assert!(broken > 0);
    let mut again = harness(&v, threat, &x, &labels);
    assert_eq!(again.replay("earlier run", first.adversarial(), &[]).unwrap(), broken);
    // Under a smaller threat the same examples are not within it, and count for nothing.
    let mut smaller = harness(&v, threat.with_epsilon(0.01), &x, &labels);
    assert_eq!(smaller.replay("earlier run", first.adversarial(), &[]).unwrap(), 0);
}

/// Adult income: rows that can be are fewer than those in the ball, and every example is one of them.
#[test]
fn rows_of_a_real_table_stay_possible() {
    let Some(folder) = golden() else { return };
    let model = Model::load(&folder.join("adult-mlp.onnx")).unwrap();
    let data =
        Dataset::open(folder.join("adult-test.npz").to_str().unwrap(), &OpenOptions::default()).unwrap().take(150);
    let batch = data.load().unwrap();
    let (names, labels) = (data.feature_names().unwrap().to_vec(), batch.labels.classes().unwrap().to_vec());
    let v = Victim::new(&model, Head::Logits, &[49], &batch.features).unwrap();
    let words = |list: &[&str]| list.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
    let group = |name: &str| vec![name.to_owned()];
    let mut declared = Constraints {
        immutable: words(&["race_*", "sex_*", "marital_status_*", "relationship_*", "hours_per_week"]),
        increase: words(&["age", "education_num"]),
        one_hot: ["workclass_*", "occupation_*", "race_*", "sex_*"].map(group).to_vec(),
        ..Constraints::default()
    };
    declared.steps.insert("education_num".to_owned(), 0.3862);
    declared.budgets.insert("age".to_owned(), 0.1);
    declared.budgets.insert("capital_*".to_owned(), 0.1);
    let possible = Possible::of(&declared, Some(&names), 49).unwrap();
    let threat = Threat::new(Norm::Linf, 1.0, [-9.0, 9.0]).unwrap();
    let ids: Vec<u64> = (0..150).collect();
    let run = |possible: Option<Possible>| {
        let h = Harness::new(&v, threat, &batch.features, &labels, &ids, 0, &Silent).unwrap();
        let mut h = h.keeping(possible);
        method("cascade", FAST).run(&mut h, &[]).unwrap();
        h
    };
    let (free, kept) = (run(None), run(Some(possible.clone())));
    let robust = |h: &Harness<'_, '_>| h.outcomes().iter().filter(|o| o.fate.is_robust()).count();
    assert!(robust(&kept) > robust(&free) + 5, "{} of those that can be, {} of all", robust(&kept), robust(&free));
    let (mut broken, mut moved) = (0, 0);
    for (i, o) in kept.outcomes().iter().enumerate().filter(|(_, o)| matches!(o.fate, Fate::Broken(_))) {
        let (x, y) = (&kept.clean()[49 * i..49 * (i + 1)], &kept.adversarial()[49 * i..49 * (i + 1)]);
        assert_eq!(possible.violation(x, y), None, "row {i}");
        assert!(o.norm <= 1.0 + 1e-6 && x[42..] == y[42..] && y[0] >= x[0]);
        assert_eq!(y[5..14].iter().sum::<f32>(), 1.0, "one work class");
        broken += 1;
        moved += usize::from(x[5..42] != y[5..42]);
    }
    assert!(broken > 5 && moved > 0, "{broken} broken, {moved} with another category");
}

fn golden() -> Option<std::path::PathBuf> {
    let own = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = ["../../../shared/golden", "../../../../shared/golden"].map(|p| own.join(p));
    found.into_iter().find(|p| p.is_dir())
}

/// What was turned and moved is made again from what is said of it, and a false word is found.
#[test]
fn runs_of_pictures_and_patches_are_confirmed_and_false_claims_are_found() {
    let mut weights = netproof_stats::rng::Rng::new(8);
    let w = [[0.0f32; 36]; 3].map(|row| row.map(|_| weights.normal() as f32));
    let model = linear_on(&[1, 6, 6], &w, &[0.0; 3]);
    let mut rng = netproof_stats::rng::Rng::new(4);
    let x: Vec<f32> = (0..30 * 36).map(|_| rng.unit() as f32).collect();
    let v = victim(&model, &[1, 6, 6]);
    let labels: Vec<usize> = v.logits(&x).unwrap().chunks(3).map(crate::adversarial::loss::argmax).collect();
    let tensor = |v: &[f32]| Tensor::f32(vec![30, 1, 6, 6], v.to_vec()).unwrap();
    for (id, norm, epsilon) in [("spatial", Norm::Spatial, 2.0), ("patch", Norm::Patch, 3.0)] {
        let mut h = harness(&v, Threat::new(norm, epsilon, [0.0, 1.0]).unwrap(), &x, &labels);
        let m = method(id, "");
        m.run(&mut h, &[]).unwrap();
        let report = AttackReport::of(&h, &m, 0, Level::P95).unwrap();
        let robust: Vec<bool> = h.outcomes().iter().map(|o| o.fate.is_robust()).collect();
        let ids: Vec<i64> = report.outcomes.iter().map(|o| o.row as i64).collect();
        let numbers: Vec<i64> = labels.iter().map(|&l| l as i64).collect();
        let moved: Vec<f32> = h.motions().iter().flat_map(|m| [m.degrees, m.right, m.down]).collect();
        let (clean, adversarial) = (tensor(h.clean()), tensor(h.adversarial()));
        let of = |adversarial: &Tensor, moved: &[f32], epsilon: f64| {
            let motions = Tensor::f32(vec![30, 3], moved.to_vec()).unwrap();
            let report = AttackReport { threat: report.threat.with_epsilon(epsilon), ..report.clone() };
            let claims = Claims {
                clean: &clean,
                adversarial,
                robust: &robust,
                labels: &numbers,
                rows: &ids,
                motions: Some(&motions),
                report: &report,
            };
            verify(&model, &claims).unwrap()
        };
        let found = of(&adversarial, &moved, epsilon);
        assert!(found.failures.is_empty() && found.confirmed == found.examples && found.examples > 5, "{id} {found:?}");
        assert!(of(&adversarial, &moved, 0.05).failures.len() as u64 == found.examples, "{id}");
        let broken = robust.iter().position(|r| !r).unwrap();
        let mut other = adversarial.clone();
        let row = &mut other.as_f32_mut().unwrap()[36 * broken..36 * (broken + 1)];
        row.iter_mut().for_each(|v| *v = 1.0 - *v);
        let failures = of(&other, &moved, epsilon).failures;
        let word = if norm == Norm::Spatial { "motion" } else { "away in patch" };
        assert!(failures.len() == 1 && failures[0].reason.contains(word), "{id} {failures:?}");
        // What an earlier run found counts again, from what is said of it.
        let mut again = harness(&v, *h.threat(), &x, &labels);
        let motions = if norm == Norm::Spatial { h.motions() } else { &[] };
        let replayed = again.replay("earlier run", h.adversarial(), motions).unwrap();
        assert_eq!(replayed as u64, found.examples, "{id}");
    }
}

fn report(model: &Model, epsilon: f64) -> (Tensor, Tensor, AttackReport, Vec<bool>, Vec<i64>) {
    let (x, mut labels) = rows(model, 12, 30, 4);
    labels[7] = (labels[7] + 1) % 5;
    let v = victim(model, &[12]);
    let mut h = harness(&v, Threat::new(Norm::Linf, epsilon, [0.0, 1.0]).unwrap(), &x, &labels);
    let m = method("apgd-ce", "");
    m.run(&mut h, &[]).unwrap();
    let r = AttackReport::of(&h, &m, 0, Level::P95).unwrap();
    let robust = h.outcomes().iter().map(|o| o.fate.is_robust()).collect();
    let tensor = |v: &[f32]| Tensor::f32(vec![30, 12], v.to_vec()).unwrap();
    (tensor(h.clean()), tensor(h.adversarial()), r, robust, labels.iter().map(|&l| l as i64).collect())
}

#[test]
fn a_run_is_confirmed_and_every_false_claim_is_found() {
    let model = small(12, 5, 3);
    let (clean, adversarial, report, robust, labels) = report(&model, 0.4);
    let ids: Vec<i64> = report.outcomes.iter().map(|o| o.row as i64).collect();
    let claims = Claims {
        clean: &clean,
        adversarial: &adversarial,
        robust: &robust,
        labels: &labels,
        rows: &ids,
        motions: None,
        report: &report,
    };
    let found = verify(&model, &claims).unwrap();
    assert!(found.failures.is_empty() && found.examples > 5 && found.confirmed == found.examples, "{found:?}");
    let broken = report.outcomes.iter().position(|o| o.outcome == "broken").unwrap();
    let of = |adversarial: &Tensor, robust: &[bool], labels: &[i64], report: &AttackReport| {
        let claims = Claims { clean: &clean, adversarial, robust, labels, rows: &ids, motions: None, report };
        verify(&model, &claims).unwrap().failures
    };
    let changed = |f: &dyn Fn(&mut [f32])| {
        let mut t = adversarial.clone();
        f(&mut t.as_f32_mut().unwrap()[broken * 12..(broken + 1) * 12]);
        of(&t, &robust, &labels, &report)
    };
    let x = clean.as_f32().unwrap()[broken * 12..(broken + 1) * 12].to_vec();
    for (f, word) in [
        (changed(&|r| r.copy_from_slice(&x)), "right on its example"),
        (changed(&|r| r[0] = x[0] + if x[0] < 0.5 { 0.5 } else { -0.5 }), "away in linf"),
        (changed(&|r| r[0] = f32::NAN), "away in linf"),
    ] {
        assert!(f.len() == 1 && f[0].row == ids[broken] && f[0].reason.contains(word), "{f:?}");
    }
    let mut flipped = robust.clone();
    flipped[broken] = true;
    assert_eq!(of(&adversarial, &flipped, &labels, &report).len(), 1);
    let mut other = labels.clone();
    other[7] = (other[7] + 4) % 5;
    assert!(of(&adversarial, &robust, &other, &report)[0].reason.contains("clean row"));
    let tighter = AttackReport { threat: report.threat.with_epsilon(0.01), ..report.clone() };
    assert!(of(&adversarial, &robust, &labels, &tighter).len() > 5);
}

#[test]
fn every_norm_has_a_method_of_its_own() {
    let chosen = Norm::ALL.map(Method::default_for);
    assert_eq!(chosen, ["cascade", "cascade", "cascade", "sigma-zero", "patch", "spatial"]);
}

#[test]
fn unknown_methods_and_options_are_refused() {
    let e = Method::find("nothing", &toml::Table::new()).unwrap_err().to_string();
    assert!(e.contains("cascade, autoattack") && e.contains("fgsm"), "{e}");
    let e = Method::find("cascade", &"[cascade]\ntarget = 3".parse().unwrap()).unwrap_err().to_string();
    assert!(e.contains("targets = 3"), "{e}");
    let model = small(4, 3, 1);
    let (x, labels) = rows(&model, 4, 3, 1);
    let v = victim(&model, &[4]);
    let mut h = harness(&v, Threat::new(Norm::L0, 2.0, [0.0, 1.0]).unwrap(), &x, &labels);
    for id in ["cascade", "autoattack", "pgd"] {
        assert!(matches!(method(id, "").run(&mut h, &[]), Err(AttackError::Norm { .. })), "{id}");
    }
}
