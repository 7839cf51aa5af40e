//! What every attack of the registry owes: shapes, raw proposals within the threat, bounds, seeds, independence of the batch,
//! empty and undefined input, and what the harness makes of attacks that break all of that.

use netproof_audit::{Configured, Silent};
use netproof_core::{Card, CardKind, Norm, Threat};
use netproof_graph::Model;
use netproof_stats::Level;
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;

use super::AttackError;
use super::attack::{Attack, Batch, Goal};
use super::attacks::ATTACKS;
use super::harness::{Fate, Harness};
use super::loss::is_right;
use super::motion::Motion;
use super::oracle::Oracle;
use super::possible::Possible;
use super::projection::{distance, size, tolerance};
use super::test_support::{propose, rows, small, victim};

const INPUTS: usize = 12;
const CLASSES: usize = 4;
/// Two evaluations in batches of other sizes: sums are taken in another order, and a hundred steps carry that on.
const CLOSE: f32 = 2e-3;

fn all() -> Vec<Configured<dyn Attack>> {
    ATTACKS.iter().map(|e| (e.build)(e.card, toml::Table::new()).unwrap()).collect()
}

fn threat(norm: Norm, scale: f64) -> Threat {
    let epsilon = match norm {
        Norm::Linf => 0.1,
        Norm::L2 => 0.3,
        Norm::L1 => 0.8,
        Norm::L0 => 3.0,
        Norm::Patch => 3.0,
        Norm::Spatial => 1.0,
    };
    // A count cannot lie between 0 and 1.
    let least = if scale > 0.0 && matches!(norm, Norm::L0 | Norm::Patch) { 1.0 } else { 0.0 };
    Threat::new(norm, (epsilon * scale).max(least), [0.0, 1.0]).unwrap()
}

fn seeds(seed: u64, n: usize) -> Vec<u64> {
    (0..n).map(|i| Rng::stream(seed, i as u64 + 1).next_u64()).collect()
}

fn each(mut f: impl FnMut(&Configured<dyn Attack>, Norm)) {
    for a in all() {
        for &norm in a.method.norms() {
            f(&a, norm);
        }
    }
}

fn setup(n: usize) -> (Model, Vec<f32>, Vec<usize>) {
    let model = small(INPUTS, CLASSES, 3);
    let (x, labels) = rows(&model, INPUTS, n, 4);
    (model, x, labels)
}

#[test]
fn raw_proposals_have_the_shape_and_stay_within_threat_and_bounds() {
    let (model, mut x, mut labels) = setup(6);
    let v = victim(&model, &[INPUTS]);
    // Corners of the box, and a row that is wrong already.
    x[..INPUTS].iter_mut().for_each(|v| *v = v.round());
    labels[5] = (labels[5] + 1) % CLASSES;
    each(|a, norm| {
        for scale in [0.3, 1.0, 4.0] {
            let t = threat(norm, scale);
            let (y, _) = propose(&*a.method, &v, &x, &labels, &seeds(0, 6), &t);
            assert_eq!(y.len(), x.len(), "{}", a.card.id);
            for (i, (y, x)) in y.chunks(INPUTS).zip(x.chunks(INPUTS)).enumerate() {
                assert!(y.iter().all(|v| (0.0..=1.0).contains(v)), "{} {norm}: {y:?}", a.card.id);
                if norm == Norm::Spatial {
                    continue;
                }
                let d = size(norm, &[INPUTS], x, y);
                let free = a.method.goal() == Goal::SmallestNorm;
                assert!(
                    free || d <= t.epsilon + tolerance(&t, INPUTS),
                    "{} {norm} row {i}: {d} > {}",
                    a.card.id,
                    t.epsilon
                );
            }
            assert_eq!(y[5 * INPUTS..], x[5 * INPUTS..], "{} {norm}: a wrong row is answered with itself", a.card.id);
        }
    });
}

#[test]
fn a_motion_is_declared_and_within_the_threat_where_it_is_what_was_proposed() {
    let (model, x, labels) = setup(6);
    let v = victim(&model, &[INPUTS]);
    each(|a, norm| {
        if norm == Norm::Spatial {
            let t = threat(norm, 2.0);
            let logits = v.logits(&x).unwrap();
            let oracle = Oracle::new(&v, 6, None);
            let batch = Batch { x: &x, logits: &logits, labels: &labels, seeds: &seeds(0, 6) };
            let y = a.method.propose(&oracle, &batch, &t).unwrap();
            for (i, (y, x)) in y.chunks(INPUTS).zip(x.chunks(INPUTS)).enumerate() {
                let motion = oracle.motion(i).unwrap_or_default();
                assert!(motion.size(&[INPUTS]) <= 2.0 + 1e-6, "{}: {motion:?}", a.card.id);
                assert_eq!(motion.apply(&[INPUTS], x, 0.0), y, "{}", a.card.id);
            }
        }
    });
}

#[test]
fn a_large_threat_breaks_most_rows_and_none_at_all_breaks_none() {
    let (model, x, labels) = setup(12);
    let v = victim(&model, &[INPUTS]);
    each(|a, norm| {
        let wrong = |scale: f64| {
            let t = threat(norm, scale);
            let (_, z) = propose(&*a.method, &v, &x, &labels, &seeds(0, 12), &t);
            z.chunks(CLASSES).zip(&labels).filter(|(z, l)| !is_right(z, **l)).count()
        };
        if a.method.goal() == Goal::WithinEpsilon {
            assert_eq!(wrong(0.0), 0, "{} {norm}", a.card.id);
        }
        let most = wrong(8.0);
        assert!(most >= 6, "{} {norm}: {most} of 12", a.card.id);
        let (less, more) = (wrong(0.5), wrong(2.0));
        assert!(less <= more + 1, "{} {norm}: {less} broken at half, {more} at twice the threat", a.card.id);
    });
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let (model, x, labels) = setup(5);
    let v = victim(&model, &[INPUTS]);
    each(|a, norm| {
        let t = threat(norm, 0.5);
        let at = |seed| propose(&*a.method, &v, &x, &labels, &seeds(seed, 5), &t).0;
        assert_eq!(at(7), at(7), "{} {norm}", a.card.id);
    });
}

#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    let (model, x, labels) = setup(7);
    let v = victim(&model, &[INPUTS]);
    each(|a, norm| {
        let t = threat(norm, 0.6);
        let s = seeds(1, 7);
        let (whole, whole_z) = propose(&*a.method, &v, &x, &labels, &s, &t);
        // With other neighbours in a batch of the same size, where sums are taken in the same order: the same bits.
        for own in [1, 5] {
            let from = |j: usize| if j == own { j } else { (j + 1) % 7 };
            let other: Vec<f32> = (0..7).flat_map(|j| x[from(j) * INPUTS..][..INPUTS].to_vec()).collect();
            let others: Vec<usize> = (0..7).map(|j| labels[from(j)]).collect();
            let (among, _) = propose(&*a.method, &v, &other, &others, &s, &t);
            let row = |y: &[f32]| y[own * INPUTS..][..INPUTS].to_vec();
            assert_eq!(row(&among), row(&whole), "{} {norm} row {own}", a.card.id);
        }
        for (from, to) in [(0, 3), (3, 4), (4, 7)] {
            let (part, z) =
                propose(&*a.method, &v, &x[from * INPUTS..to * INPUTS], &labels[from..to], &s[from..to], &t);
            for i in from..to {
                let (w, p) = (&whole[i * INPUTS..(i + 1) * INPUTS], &part[(i - from) * INPUTS..][..INPUTS]);
                // A search for the smallest change stands on the boundary, where rounding decides each step: what it comes to
                // is as large, though not the same.
                if a.method.goal() == Goal::WithinEpsilon {
                    let far = distance(Norm::Linf, w, p);
                    assert!(far < f64::from(CLOSE), "{} {norm} row {i} of {from}..{to}: {far}", a.card.id);
                } else {
                    let row = &x[i * INPUTS..(i + 1) * INPUTS];
                    let [w, p] = [w, p].map(|y| distance(norm, row, y));
                    assert!((w - p).abs() <= 0.01 * w.max(p), "{} {norm} row {i}: {w} and {p}", a.card.id);
                }
                let right = |z: &[f32], i: usize, l: usize| is_right(&z[i * CLASSES..(i + 1) * CLASSES], l);
                assert_eq!(right(&whole_z, i, labels[i]), right(&z, i - from, labels[i]), "{} {norm}", a.card.id);
            }
        }
    });
}

#[test]
fn no_rows_give_no_proposals() {
    let (model, ..) = setup(1);
    let v = victim(&model, &[INPUTS]);
    each(|a, norm| {
        let oracle = Oracle::new(&v, 0, None);
        let empty = Batch { x: &[], logits: &[], labels: &[], seeds: &[] };
        let y = a.method.propose(&oracle, &empty, &threat(norm, 1.0));
        assert!(y.is_ok_and(|y| y.is_empty()), "{}", a.card.id);
    });
}

#[test]
fn an_undefined_row_neither_stops_an_attack_nor_touches_its_neighbours() {
    let (model, mut x, labels) = setup(3);
    let v = victim(&model, &[INPUTS]);
    each(|a, norm| {
        let t = threat(norm, 1.0);
        let (clean, _) = propose(&*a.method, &v, &x, &labels, &seeds(2, 3), &t);
        let kept = std::mem::replace(&mut x[INPUTS + 2], f32::NAN);
        let (y, _) = propose(&*a.method, &v, &x, &labels, &seeds(2, 3), &t);
        x[INPUTS + 2] = kept;
        for i in [0, 2] {
            let far = distance(Norm::Linf, &y[i * INPUTS..(i + 1) * INPUTS], &clean[i * INPUTS..(i + 1) * INPUTS]);
            assert!(far < f64::from(CLOSE), "{} {norm} row {i}: {far}", a.card.id);
        }
    });
}

#[test]
fn cards_are_those_of_attacks_with_a_source() {
    for a in all() {
        assert_eq!(a.card.kind, CardKind::Attack, "{}", a.card.id);
        assert!(!a.method.norms().is_empty() && a.card.reference.len() > 10);
    }
}

/// Does everything that an attack must not do.
struct Misbehaving;

static MISBEHAVING: Card = Card { id: "misbehaving", ..*ATTACKS[0].card };

impl Attack for Misbehaving {
    fn norms(&self) -> &'static [Norm] {
        &[Norm::Linf]
    }

    fn propose(&self, _: &Oracle<'_, '_>, batch: &Batch<'_>, _: &Threat) -> Result<Vec<f32>, AttackError> {
        let fill = |i: usize| match i % 4 {
            0 => vec![f32::NAN; INPUTS],
            1 => vec![f32::INFINITY; INPUTS],
            2 => vec![-5.0; INPUTS],
            _ => batch.row(i).iter().map(|v| 1.0 - v).collect(),
        };
        Ok((0..batch.len()).flat_map(fill).collect())
    }
}

/// Answers with too few values.
struct Short;

impl Attack for Short {
    fn norms(&self) -> &'static [Norm] {
        &[Norm::Linf]
    }

    fn propose(&self, _: &Oracle<'_, '_>, batch: &Batch<'_>, _: &Threat) -> Result<Vec<f32>, AttackError> {
        Ok(batch.x[1..].to_vec())
    }
}

/// Says that it turned the picture far, and proposes something else.
struct Lying;

impl Attack for Lying {
    fn norms(&self) -> &'static [Norm] {
        &[Norm::Spatial]
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, _: &Threat) -> Result<Vec<f32>, AttackError> {
        (0..batch.len()).for_each(|i| oracle.declare(i, Motion { right: 40.0, ..Motion::default() }));
        Ok(batch.x.iter().map(|v| 1.0 - v).collect())
    }
}

#[test]
fn the_harness_makes_what_was_declared_and_no_more_than_is_allowed() {
    let (model, x, labels) = setup(8);
    let v = victim(&model, &[INPUTS]);
    let mut h = harness(&v, threat(Norm::Spatial, 1.0), &x, &labels);
    let rows = h.standing();
    h.attack(&MISBEHAVING, "lying", &Lying, &rows).unwrap();
    assert_eq!(h.stages()[0].clipped, 8);
    let motion = Motion { right: 0.1 * INPUTS as f32, ..Motion::default() };
    for (i, o) in h.outcomes().iter().enumerate() {
        if matches!(o.fate, Fate::Broken(_)) {
            let made = motion.apply(&[INPUTS], &x[i * INPUTS..(i + 1) * INPUTS], 0.0);
            assert_eq!(h.adversarial()[i * INPUTS..(i + 1) * INPUTS], made);
            assert!(h.motions()[i] == motion && (o.norm - 1.0).abs() < 1e-6);
        }
    }
}

#[test]
fn the_harness_keeps_the_square_with_most_of_a_change_that_is_everywhere() {
    let (model, x, labels) = setup(8);
    let v = victim(&model, &[INPUTS]);
    let mut h = harness(&v, threat(Norm::Patch, 1.0), &x, &labels);
    struct Everywhere;
    impl Attack for Everywhere {
        fn norms(&self) -> &'static [Norm] {
            &[Norm::Patch]
        }
        fn propose(&self, _: &Oracle<'_, '_>, batch: &Batch<'_>, _: &Threat) -> Result<Vec<f32>, AttackError> {
            Ok(batch.x.iter().map(|v| 1.0 - v).collect())
        }
    }
    let rows = h.standing();
    h.attack(&MISBEHAVING, "everywhere", &Everywhere, &rows).unwrap();
    assert_eq!(h.stages()[0].clipped, 8);
    for (a, x) in h.adversarial().chunks(INPUTS).zip(x.chunks(INPUTS)) {
        assert!(size(Norm::Patch, &[INPUTS], x, a) <= 3.0);
    }
}

/// Whatever an attack asks or proposes, the network sees rows that can be, and the examples are such.
#[test]
fn examples_keep_what_rows_must_keep_for_every_attack() {
    let (model, x, labels) = setup(12);
    let v = victim(&model, &[INPUTS]);
    let mut declared = netproof_core::Constraints { immutable: vec!["0..3".to_owned()], ..Default::default() };
    declared.increase = vec!["3..6".to_owned()];
    declared.budgets.insert("6".to_owned(), 0.05);
    declared.steps.insert("7".to_owned(), 0.03);
    let possible = Possible::of(&declared, None, INPUTS).unwrap();
    let mut broken = 0;
    each(|a, norm| {
        if matches!(norm, Norm::Patch | Norm::Spatial) {
            return;
        }
        let mut h = harness(&v, threat(norm, 4.0), &x, &labels).keeping(Some(possible.clone()));
        h.run(a).unwrap();
        for (i, o) in h.outcomes().iter().enumerate() {
            if matches!(o.fate, Fate::Broken(_)) {
                broken += 1;
                let (x, y) = (&x[i * INPUTS..(i + 1) * INPUTS], &h.adversarial()[i * INPUTS..(i + 1) * INPUTS]);
                assert_eq!(possible.violation(x, y), None, "{} {norm}", a.card.id);
                assert_eq!(x[..3], y[..3]);
            }
        }
    });
    assert!(broken > 60, "{broken}");
}

fn harness<'v, 'm>(v: &'v super::victim::Victim<'m>, t: Threat, x: &[f32], labels: &[usize]) -> Harness<'v, 'm> {
    let n = labels.len();
    let ids: Vec<u64> = (0..n as u64).collect();
    let x = Tensor::f32(vec![n, INPUTS], x.to_vec()).unwrap();
    Harness::new(v, t, &x, labels, &ids, 0, &Silent).unwrap()
}

#[test]
fn the_harness_clips_what_a_misbehaving_attack_proposes() {
    let (model, x, labels) = setup(8);
    let v = victim(&model, &[INPUTS]);
    let t = threat(Norm::Linf, 0.5);
    let mut h = harness(&v, t, &x, &labels);
    let rows = h.standing();
    h.attack(&MISBEHAVING, "misbehaving", &Misbehaving, &rows).unwrap();
    assert_eq!(h.stages()[0].clipped, 8);
    for (i, (a, x)) in h.adversarial().chunks(INPUTS).zip(x.chunks(INPUTS)).enumerate() {
        assert!(distance(Norm::Linf, a, x) <= t.epsilon + tolerance(&t, INPUTS));
        let z = v.logits(a).unwrap();
        assert_eq!(matches!(h.outcomes()[i].fate, Fate::Broken(0)), !is_right(&z, labels[i]));
    }
    let e = h.attack(&MISBEHAVING, "short", &Short, &rows).unwrap_err();
    assert!(matches!(e, AttackError::Contract { .. }), "{e}");
}

#[test]
fn the_harness_keeps_accounts() {
    let (model, x, mut labels) = setup(20);
    labels[3] = (labels[3] + 1) % CLASSES;
    let v = victim(&model, &[INPUTS]);
    let mut h = harness(&v, threat(Norm::Linf, 1.0), &x, &labels);
    assert_eq!((h.standing().len(), h.outcomes()[3].fate), (19, Fate::Wrong));
    for a in all().iter().filter(|a| a.method.norms().contains(&Norm::Linf)) {
        h.run(a).unwrap();
    }
    let r = h.accuracy(Level::P95);
    assert_eq!(r.clean.value, 0.95);
    assert!(r.attacked.value <= r.clean.value && r.certified.value == 0.0);
    let robust = h.outcomes().iter().filter(|o| o.fate.is_robust()).count();
    assert_eq!(r.attacked.value, robust as f64 / 20.0);
    let broken: u64 = h.stages().iter().map(|s| s.broken).sum();
    assert_eq!(broken as usize + robust, 19);
    assert!(h.outcomes().iter().filter(|o| matches!(o.fate, Fate::Broken(_))).all(|o| o.norm > 0.0 && o.margin <= 0.0));
    // Every later attack sees the survivors only.
    for s in h.stages().windows(2) {
        assert_eq!(s[1].rows, s[0].standing);
    }
    let i = (0..20).find(|&i| matches!(h.outcomes()[i].fate, Fate::Broken(_))).unwrap();
    assert!(matches!(h.certify(&[i]), Err(AttackError::CertifiedBroken { .. })));
}

#[test]
fn a_certified_row_that_breaks_stops_the_run() {
    let (model, x, labels) = setup(8);
    let v = victim(&model, &[INPUTS]);
    let mut h = harness(&v, threat(Norm::Linf, 8.0), &x, &labels);
    let rows = h.standing();
    h.certify(&rows).unwrap();
    assert!(h.standing().is_empty() && h.accuracy(Level::P95).certified.value == 1.0);
    let e = h.attack(ATTACKS[0].card, "fgsm", &*all()[0].method, &rows).unwrap_err();
    assert!(matches!(e, AttackError::CertifiedBroken { .. }), "{e}");
}

#[test]
fn what_does_not_fit_is_refused_with_a_remedy() {
    let (model, mut x, labels) = setup(2);
    let v = victim(&model, &[INPUTS]);
    let t = threat(Norm::Linf, 1.0);
    x[3] = 1.5;
    let ids = [10, 11];
    let tensor = Tensor::f32(vec![2, INPUTS], x.clone()).unwrap();
    let e = Harness::new(&v, t, &tensor, &labels, &ids, 0, &Silent).unwrap_err().to_string();
    assert!(e.contains("row 10 holds 1.5, outside the bounds 0,1"), "{e}");
    x[3] = 0.5;
    let tensor = Tensor::f32(vec![2, INPUTS], x).unwrap();
    let e = Harness::new(&v, t, &tensor, &[0, 9], &ids, 0, &Silent).unwrap_err().to_string();
    assert!(e.contains("row 11 has class 9, the network has 4 classes"), "{e}");
}
