//! What every certificate of the registry owes, and the published procedure of smoothing on the same draws.

use netproof_audit::Configured;
use netproof_core::{Norm, Threat};
use netproof_graph::Model;
use netproof_stats::rng::Rng;
use netproof_stats::special::{beta_quantile, normal_quantile};
use netproof_tensor::Tensor;

use super::randomised_smoothing::RandomisedSmoothing;
use super::sequential_smoothing::{SequentialSmoothing, log_mixture, sequential_bound};
use super::smoothing::{Answer, Sampler, certify, lower_bound, predict};
use super::*;
use crate::adversarial::attacks::pgd::Pgd;
use crate::adversarial::test_support::{linear, rows, run, small, victim};

const INPUTS: usize = 12;

fn all() -> Vec<Configured<dyn Certificate>> {
    CERTIFICATES
        .iter()
        .map(|e| {
            let options = if e.card.id.ends_with("smoothing") { "draws = 500\nselection = 50" } else { "halvings = 8" };
            (e.build)(e.card, options.parse().unwrap()).unwrap()
        })
        .collect()
}

fn deterministic() -> Vec<Configured<dyn Certificate>> {
    all().into_iter().filter(|c| c.method.guarantee() == Guarantee::Certain).collect()
}

struct Data {
    model: Model,
    x: Tensor,
    labels: Vec<usize>,
    seeds: Vec<u64>,
}

impl Data {
    fn new(model: Model, n: usize) -> Self {
        let (x, labels) = rows(&model, INPUTS, n, 4);
        let x = Tensor::f32(vec![n, INPUTS], x).unwrap();
        Self { model, x, labels, seeds: (0..n as u64).collect() }
    }

    fn rows(&self) -> Rows<'_> {
        Rows { model: &self.model, x: &self.x, labels: &self.labels, seeds: &self.seeds, deadline: None }
    }
}

fn threat(norm: Norm, epsilon: f64) -> Threat {
    // Wide bounds: the closed forms below do not know of them.
    Threat { norm, epsilon, bounds: [-50.0, 50.0] }
}

#[test]
fn radii_of_a_linear_classifier_are_its_closed_form() {
    let w = [[0.5, -2.0, 1.0], [1.0, 0.3, -0.4], [-0.2, 0.1, 0.9]];
    let model = linear(&w, &[0.1, -0.2, 0.05]);
    let x = Tensor::f32(vec![2, 3], vec![0.9, 0.1, 0.8, 0.2, 0.4, 0.9]).unwrap();
    let v = victim(&model, &[3]);
    let z = v.logits(x.as_f32().unwrap()).unwrap();
    let labels: Vec<usize> = z.chunks(3).map(crate::adversarial::loss::argmax).collect();
    let rows = Rows { model: &model, x: &x, labels: &labels, seeds: &[0, 1], deadline: None };
    for (norm, dual) in [
        (Norm::Linf, (|d: &[f64]| d.iter().map(|v| v.abs()).sum()) as fn(&[f64]) -> f64),
        (Norm::L2, |d| d.iter().map(|v| v * v).sum::<f64>().sqrt()),
        (Norm::L1, |d| d.iter().fold(0.0, |m: f64, v| m.max(v.abs()))),
    ] {
        for c in deterministic() {
            let got = c.method.radii(&rows, &threat(norm, 4.0)).unwrap();
            for (r, &y) in labels.iter().enumerate() {
                let want = (0..3)
                    .filter(|&j| j != y)
                    .map(|j| {
                        let d: Vec<f64> = (0..3).map(|i| f64::from(w[y][i]) - f64::from(w[j][i])).collect();
                        (f64::from(z[r * 3 + y]) - f64::from(z[r * 3 + j])) / dual(&d)
                    })
                    .fold(f64::INFINITY, f64::min);
                let got = got[r].unwrap();
                let step = 4.0 / f64::from(1u32 << 8);
                assert!(got <= want && got >= want - step - 1e-4, "{} {norm}: {got}, exactly {want}", c.card.id);
            }
        }
    }
}

#[test]
fn certified_rows_stand_against_attacks_and_tighter_methods_certify_more() {
    let data = Data::new(small(INPUTS, 4, 3), 24);
    for norm in [Norm::Linf, Norm::L2, Norm::L1] {
        let scale = match norm {
            Norm::Linf => 0.02,
            Norm::L2 => 0.06,
            _ => 0.15,
        };
        for factor in [0.5, 1.0, 2.0, 4.0] {
            let t = Threat::new(norm, scale * factor, [0.0, 1.0]).unwrap();
            let pgd = Pgd::default();
            let (_, logits) = run(&pgd, &data.model, &[INPUTS], data.x.as_f32().unwrap(), &data.labels, &t, 1);
            let mut counts = Vec::new();
            for c in deterministic() {
                let yes = c.method.certify(&data.rows(), &t).unwrap();
                counts.push(yes.iter().filter(|&&y| y).count());
                for (i, (z, &label)) in logits.chunks(4).zip(&data.labels).enumerate() {
                    let stands = crate::adversarial::loss::is_right(z, label);
                    assert!(stands || !yes[i], "{} {t}: row {i} is certified and broken", c.card.id);
                }
            }
            assert!(counts.is_sorted(), "{t}: {counts:?}");
        }
        let smallest = Threat::new(norm, scale * 0.01, [0.0, 1.0]).unwrap();
        let yes = deterministic()[3].method.certify(&data.rows(), &smallest).unwrap();
        assert!(yes.iter().filter(|&&y| y).count() >= 20, "{norm}: little is certified at a tiny epsilon");
    }
}

#[test]
fn radii_are_certified_and_no_more_than_asked_for() {
    let data = Data::new(small(INPUTS, 4, 5), 6);
    for c in all() {
        for &norm in c.method.norms() {
            let most = threat(norm, 0.2);
            let radii = c.method.radii(&data.rows(), &most).unwrap();
            assert!(radii.iter().flatten().all(|r| (0.0..=0.2).contains(r)), "{} {norm}: {radii:?}", c.card.id);
            if c.method.guarantee() != Guarantee::Certain {
                continue;
            }
            assert!(radii.iter().all(Option::is_some), "{} {norm}: right rows have a radius", c.card.id);
            for (i, r) in radii.iter().enumerate() {
                let one = Rows {
                    x: &data.x.slice_rows(i, i + 1).unwrap(),
                    labels: &data.labels[i..=i],
                    seeds: &data.seeds[i..=i],
                    ..data.rows()
                };
                let inside = threat(norm, r.unwrap() * 0.999);
                assert!(c.method.certify(&one, &inside).unwrap()[0], "{} {norm} row {i}", c.card.id);
            }
        }
    }
}

#[test]
fn wrong_undefined_and_no_rows() {
    let mut data = Data::new(small(INPUTS, 4, 7), 4);
    data.labels[1] = (data.labels[1] + 1) % 4;
    let mut values = data.x.as_f32().unwrap().to_vec();
    values[2 * INPUTS + 3] = f32::NAN;
    data.x = Tensor::f32(vec![4, INPUTS], values).unwrap();
    for c in all() {
        for &norm in c.method.norms() {
            let t = threat(norm, 1e-6);
            let yes = c.method.certify(&data.rows(), &t).unwrap();
            assert!(!yes[1] && !yes[2], "{} {norm}: {yes:?}", c.card.id);
            let radii = c.method.radii(&data.rows(), &t).unwrap();
            assert!(radii[1].is_none() && radii[2].is_none(), "{} {norm}: {radii:?}", c.card.id);
            let x = Tensor::f32(vec![0, INPUTS], Vec::new()).unwrap();
            let none = Rows { x: &x, labels: &[], seeds: &[], ..data.rows() };
            assert!(c.method.certify(&none, &t).unwrap().is_empty());
            assert!(c.method.radii(&none, &t).unwrap().is_empty());
        }
        let wrong = Norm::ALL.into_iter().find(|n| !c.method.norms().contains(n)).unwrap();
        let e = c.method.certify(&data.rows(), &threat(wrong, 0.1)).unwrap_err();
        assert!(matches!(e, AttackError::Norm { .. }), "{e}");
    }
}

#[test]
fn the_split_into_batches_and_the_time_do_not_matter() {
    let data = Data::new(small(INPUTS, 4, 9), 5);
    for c in all() {
        for &norm in c.method.norms() {
            let t = threat(norm, 0.05);
            let together = c.method.radii(&data.rows(), &t).unwrap();
            for i in 0..5 {
                let x = data.x.slice_rows(i, i + 1).unwrap();
                let one = Rows { x: &x, labels: &data.labels[i..=i], seeds: &data.seeds[i..=i], ..data.rows() };
                let alone = c.method.radii(&one, &t).unwrap()[0];
                let off = (alone.unwrap_or(-1.0) - together[i].unwrap_or(-1.0)).abs();
                assert!(off <= 0.05 / 200.0, "{} {norm} row {i}: {alone:?} {:?}", c.card.id, together[i]);
            }
            let over = Rows { deadline: Some(Instant::now()), ..data.rows() };
            assert!(matches!(c.method.certify(&over, &t), Err(AttackError::OutOfTime)), "{}", c.card.id);
        }
    }
}

#[test]
fn the_ladder_names_the_cheapest_proof() {
    let data = Data::new(small(INPUTS, 4, 3), 16);
    let ladder = Ladder::standard().unwrap();
    let t = Threat::new(Norm::Linf, 0.03, [0.0, 1.0]).unwrap();
    let proved = proved(&data.model, &data.x, &data.labels, &t, &ladder).unwrap();
    let mut seen = vec![None; 16];
    for c in deterministic().into_iter().take(3) {
        for (i, yes) in c.method.certify(&data.rows(), &t).unwrap().into_iter().enumerate() {
            if yes && seen[i].is_none() {
                seen[i] = Some(c.card.id);
            }
        }
    }
    assert_eq!(proved.by, seen);
    assert!(proved.count() > 0 && proved.notes.is_empty());
    let late = Ladder::standard().unwrap().until(Some(Instant::now()));
    let none = super::proved(&data.model, &data.x, &data.labels, &t, &late).unwrap();
    assert!(none.count() == 0 && none.notes[0].contains("out of time"));
    let l0 = super::proved(&data.model, &data.x, &data.labels, &threat(Norm::L0, 1.0), &ladder).unwrap();
    assert!(l0.count() == 0 && l0.notes.len() == 1);
    let mut small = Ladder::standard().unwrap();
    small.most_macs = 0;
    let large = t.with_epsilon(0.3);
    let short = super::proved(&data.model, &data.x, &data.labels, &large, &small).unwrap();
    assert!(short.by.iter().all(|b| *b != Some("crown")) && short.notes[0].contains("crown"));
    assert!(Ladder::of(&["randomised-smoothing"]).is_err() && Ladder::of(&["nothing"]).is_err());
}

/// CERTIFY of the paper in a few lines, on given noise.
fn naive(model: &Model, x: &[f32], sigma: f64, seed: u64, n0: u64, n: u64, alpha: f64) -> (usize, u64, Option<f64>) {
    let mut counts = [vec![0u64; 4], vec![0u64; 4]];
    for draw in 0..n0 + n {
        let mut noise = vec![0.0f32; x.len()];
        Rng::stream(seed, draw + 1).fill_normal(&mut noise);
        let noisy: Vec<f32> = x.iter().zip(&noise).map(|(x, e)| x + sigma as f32 * e).collect();
        let z = model.predict(&Tensor::f32(vec![1, x.len()], noisy).unwrap()).unwrap().into_f32().unwrap();
        let class = (0..4).fold(0, |best, c| if z[c] > z[best] { c } else { best });
        counts[usize::from(draw >= n0)][class] += 1;
    }
    let top = (0..4).fold(0, |best, c| if counts[0][c] > counts[0][best] { c } else { best });
    let k = counts[1][top];
    let p = if k == 0 { 0.0 } else { beta_quantile(alpha, k as f64, (n - k) as f64 + 1.0) };
    (top, k, (p > 0.5).then(|| sigma * normal_quantile(p)))
}

#[test]
fn counts_and_radii_are_those_of_the_published_procedure() {
    let data = Data::new(small(INPUTS, 4, 11), 6);
    let method = RandomisedSmoothing { sigma: 0.4, selection: 40, draws: 700, alpha: 0.001 };
    let answers = method.answers(&data.rows()).unwrap();
    let mut abstained = 0;
    for (i, answer) in answers.iter().enumerate() {
        let x = &data.x.as_f32().unwrap()[i * INPUTS..(i + 1) * INPUTS];
        let (class, votes, radius) = naive(&data.model, x, 0.4, data.seeds[i], 40, 700, 0.001);
        let got = answer.unwrap();
        assert_eq!((got.class, got.votes, got.radius), (class, votes, radius), "row {i}");
        abstained += usize::from(radius.is_none());
    }
    assert!(abstained < 6);
}

/// `scipy.stats.beta.ppf(alpha, k, n - k + 1)` and `norm.ppf` of it, SciPy 1.17.
#[test]
fn lower_bounds_and_radii_are_those_of_scipy() {
    for (k, n, alpha, lower, radius) in RECORDED {
        let got = lower_bound(k, n, alpha);
        assert!((got - lower).abs() <= 1e-12 * lower, "{k} of {n}: {got}, {lower}");
        let mut selection = vec![0, 0];
        selection[1] = 1;
        let answer = certify(&selection, &[n - k, k], n, alpha, 1.0).unwrap();
        match radius {
            Some(r) => assert!((answer.radius.unwrap() - r).abs() < 1e-9, "{k} of {n}: {answer:?} {r}"),
            None => assert_eq!(answer.radius, None),
        }
    }
    assert_eq!(certify(&[0, 1], &[40, 60], 100, 0.001, 1.0).unwrap().radius, None);
    assert_eq!((lower_bound(0, 100, 0.001), certify(&[0, 0], &[1, 1], 2, 0.1, 1.0)), (0.0, None));
}

const RECORDED: [(u64, u64, f64, f64, Option<f64>); 6] = [
    (100_000, 100_000, 0.001, 0.999_930_924_833_009_4, Some(3.811_456_563_389_914_5)),
    (99_000, 100_000, 0.001, 0.988_989_340_377_474_8, Some(2.289_999_955_213_766)),
    (52_000, 100_000, 0.001, 0.515_111_611_285_272, Some(0.037_888_255_061_811_9)),
    (1000, 1000, 0.01, 0.995_405_417_351_527, Some(2.604_935_141_811_568)),
    (550, 1000, 0.001, 0.500_675_960_092_557_8, Some(0.001_694_381_491_268_537)),
    (60, 100, 0.05, 0.512_975_820_253_894_3, Some(0.032_531_294_921_923_276)),
];

#[test]
fn a_prediction_needs_a_clear_winner() {
    // scipy.stats.binomtest(k, n, 0.5).pvalue: 60 of 100 has 0.0569, 70 of 100 has 7.85e-5.
    assert_eq!(predict(&[40, 60], 0.05), None);
    assert_eq!(predict(&[40, 60], 0.06), Some(1));
    assert_eq!(predict(&[70, 30, 0], 7.8e-5), None);
    assert_eq!(predict(&[70, 30, 0], 7.9e-5), Some(0));
    assert_eq!((predict(&[50, 50], 0.4), predict(&[0, 0], 0.4)), (None, None));
}

#[test]
fn the_sequential_bound_is_the_naive_mixture_and_holds_at_all_times() {
    // The mixture as a sum over a fine grid of q > p0.
    let (k, n, p0) = (93u64, 100u64, 0.8);
    let grid = 400_000;
    let density = |q: f64| 1.0 / (q * (1.0 - q)).sqrt();
    let (mut above, mut mass) = (0.0, 0.0);
    for i in 0..grid {
        // Substituting q = p0 + (1 − p0)(1 − t²) takes the root away at 1.
        let t = (f64::from(i) + 0.5) / f64::from(grid);
        let q = p0 + (1.0 - p0) * (1.0 - t * t);
        let weight = density(q) * t;
        let ratio = (k as f64) * (q / p0).ln() + (n - k) as f64 * ((1.0 - q) / (1.0 - p0)).ln();
        above += weight * ratio.exp();
        mass += weight;
    }
    let got = log_mixture(k, n, p0);
    assert!((got - (above / mass).ln()).abs() < 1e-4, "{got} {}", (above / mass).ln());

    // It falls with p0, so that the bound is where it crosses.
    for (k, n) in [(10, 10), (60, 100), (999, 1000), (50_500, 100_000)] {
        let values: Vec<f64> =
            (1..100).map(|i| log_mixture(k, n, k as f64 / n as f64 * f64::from(i) / 100.0)).collect();
        assert!(values.windows(2).all(|w| w[0] >= w[1] - 1e-9), "{k} of {n}: {values:?}");
        let bound = sequential_bound(k, n, 0.001);
        let fixed = lower_bound(k, n, 0.001);
        assert!(bound <= fixed && bound > fixed - 0.5, "{k} of {n}: {bound} above the fixed one, {fixed}");
    }

    // How often it is ever above the truth, over 2000 sequences of 2000 draws looked at all the time.
    let alpha = 0.1;
    for p in [0.6, 0.95] {
        let mut wrong = 0;
        for trial in 0..600 {
            let mut rng = Rng::stream(99, trial);
            let (mut k, mut n) = (0, 0);
            let crossed = (0..1000).any(|_| {
                n += 1;
                k += u64::from(rng.unit() < p);
                n % 7 == 0 && log_mixture(k, n, p) >= -f64::ln(alpha)
            });
            wrong += usize::from(crossed);
        }
        assert!(wrong <= 75, "p = {p}: above the truth in {wrong} of 600 sequences at alpha {alpha}");
    }
}

#[test]
fn sequential_smoothing_agrees_with_the_fixed_procedure_and_draws_less() {
    let data = Data::new(small(INPUTS, 4, 13), 10);
    let fixed = RandomisedSmoothing { sigma: 0.3, selection: 50, draws: 4000, alpha: 0.001 };
    let sequential = SequentialSmoothing { sigma: 0.3, selection: 50, draws: 4000, alpha: 0.001, tolerance: 0.05 };
    let full = fixed.answers(&data.rows()).unwrap();
    let wanted = 0.1;
    let short = sequential.answers(&data.rows(), Some(wanted)).unwrap();
    let (mut drawn, mut lost, mut certified) = (0, 0, 0);
    for (f, s) in full.iter().zip(&short) {
        let (f, s): (Answer, Answer) = (f.unwrap(), s.unwrap());
        assert_eq!(f.class, s.class);
        let at = |a: &Answer| a.radius.is_some_and(|r| r > wanted);
        certified += usize::from(at(&f));
        lost += usize::from(at(&f) && !at(&s));
        drawn += s.draws;
    }
    assert!(certified >= 3 && lost <= 1, "{certified} certified by the fixed procedure, {lost} of them lost");
    assert!(drawn * 3 < 4000 * 10, "{drawn} draws");
    for (f, s) in full.iter().zip(sequential.answers(&data.rows(), None).unwrap()) {
        let (f, s) = (f.unwrap(), s.unwrap());
        if let (Some(f), Some(s)) = (f.radius, s.radius) {
            assert!(s <= f + 0.3 * 0.2 && s >= f - 0.3 * 0.3, "{f} {s}");
        }
    }
}

#[test]
fn draws_do_not_depend_on_how_they_are_asked_for() {
    let data = Data::new(small(INPUTS, 4, 17), 1);
    let mut once = Sampler::new(&data.model, &data.x, 0, 0.5, 3).unwrap();
    let mut twice = Sampler::new(&data.model, &data.x, 0, 0.5, 3).unwrap();
    let a = once.sample(300).unwrap();
    let (b, c) = (twice.sample(17).unwrap(), twice.sample(283).unwrap());
    assert_eq!(a, b.iter().zip(&c).map(|(b, c)| b + c).collect::<Vec<_>>());
    assert_eq!(a.iter().sum::<u64>(), 300);
    assert!(a.iter().filter(|&&v| v > 0).count() > 1, "the noise changes nothing: {a:?}");
}

#[test]
fn options_out_of_range_are_refused() {
    let data = Data::new(small(INPUTS, 4, 19), 1);
    for bad in [
        RandomisedSmoothing { sigma: 0.0, ..Default::default() },
        RandomisedSmoothing { alpha: 0.5, ..Default::default() },
        RandomisedSmoothing { draws: 0, ..Default::default() },
        RandomisedSmoothing { selection: 0, ..Default::default() },
    ] {
        assert!(matches!(bad.answers(&data.rows()), Err(AttackError::Value { .. })), "{bad:?}");
    }
    let without = Rows { seeds: &[], ..data.rows() };
    assert!(matches!(RandomisedSmoothing::default().answers(&without), Err(AttackError::Mismatch(_))));
}
