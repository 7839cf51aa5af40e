//! Evidence on networks whose reasons are known.

use netproof_audit::{Plan, Policy, Silent, Subject, run, select};
use netproof_data::{Dataset, Labels, OpenOptions};
use netproof_graph::Model;
use netproof_graph::builders::{CnnOptions, cnn};
use netproof_stats::Level;
use netproof_stats::rng::Rng;
use netproof_stats::roc::auroc;
use netproof_tensor::Tensor;
use netproof_train::{DataSection, Job, Method, Recipe, Registry, RunOptions, train};

use super::Failure;
use super::networks::{must, network};
use crate::CHECKS;
use crate::interpretability::evidence::{Bench, Measured, Protocol, metric, paired};
use crate::interpretability::{
    Choice, EXPLANATIONS, ExplainError, Explained, Explainer, Explanation, Question, Reliance, Sanity, explanation,
};

/// A metric of a method on a network.
pub(super) fn measure(id: &str, model: &Model, q: &Question, method: &str) -> Result<Measured, Failure> {
    let Some(metric) = metric(id) else { return Err(Failure::Absent(format!("not in this version: {id}"))) };
    let method = explanation(method, toml::Table::new())?;
    let net = of(model, q)?;
    let bench = Bench::new(&net, q, Protocol::default())?;
    Ok((metric.measure)(&bench.case(&*method.method)?)?)
}

fn of<'m>(model: &'m Model, q: &Question) -> Result<Explained<'m>, ExplainError> {
    let input = model.inputs()[0].name.clone();
    Explained::new(model, &Choice::default(), &[(input, q.x.clone())])
}

/// A map that only knows the image: its brightness edges, or noise that depends on the row alone.
struct Blind(fn(&[f32], u64) -> Vec<f32>);

impl Explainer for Blind {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let all = (0..q.len()).flat_map(|i| (self.0)(q.row(i), q.rows[i])).collect();
        Explanation::of_input(net, q.len(), all)
    }
}

fn edges(row: &[f32], _: u64) -> Vec<f32> {
    let side = (row.len() as f64).sqrt() as usize;
    (0..row.len())
        .map(|p| {
            let (y, x) = (p / side, p % side);
            let at = |y: usize, x: usize| row[y.min(side - 1) * side + x.min(side - 1)];
            (at(y, x + 1) - at(y, x.saturating_sub(1))).hypot(at(y + 1, x) - at(y.saturating_sub(1), x))
        })
        .collect()
}

fn noise(row: &[f32], number: u64) -> Vec<f32> {
    let mut rng = Rng::stream(17, number + 1);
    row.iter().map(|_| rng.normal() as f32).collect()
}

const SIDE: usize = 12;

/// Images of noise with a bright square whose corner says the class: top left or bottom right of the middle; and its mask.
fn images(n: usize, seed: u64) -> Result<(Tensor, Vec<usize>, Vec<bool>), Failure> {
    let mut rng = Rng::new(seed);
    let (mut x, mut labels, mut masks) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..n {
        let class = i % 2;
        let (top, left) = (1 + 6 * class + rng.below(3), 1 + rng.below(8));
        for p in 0..SIDE * SIDE {
            let inside = (top..top + 3).contains(&(p / SIDE)) && (left..left + 3).contains(&(p % SIDE));
            x.push((0.15 * rng.unit() + if inside { 0.8 } else { 0.0 }) as f32);
            masks.push(inside);
        }
        labels.push(class);
    }
    Ok((Tensor::f32(vec![n, 1, SIDE, SIDE], x)?, labels, masks))
}

/// A network that has learnt these images; wide, since guided backpropagation shows the image the better the more filters
/// there are (Nie, Zhang and Patel, ICML 2018, arXiv:1805.07039).
fn learnt() -> Result<Model, Failure> {
    let (x, labels, _) = images(300, 1)?;
    let data = Dataset::from_memory(x, Labels::Classes(labels), Vec::new(), &OpenOptions::default())?;
    let model =
        cnn(&CnnOptions { channels: vec![16, 32], hidden: 64, seed: 2, ..CnnOptions::new([1, SIDE, SIDE], 2) })?;
    let recipe = Recipe {
        epochs: 8,
        batch_size: 16,
        optimiser: Method::new("adam").with("learning_rate", 0.003),
        ..Recipe::new(DataSection::new("-"), Method::new("cnn"))
    };
    let job = Job::new(&recipe, model, data, None)?;
    Ok(train(&recipe, job, &Registry::default(), &RunOptions::default())?.model)
}

/// C10.
pub(super) fn planted() -> Result<String, Failure> {
    let model = learnt()?;
    let (x, labels, masks) = images(24, 9)?;
    let answers = model.predict(&x)?;
    let right =
        answers.as_f32().unwrap_or_default().chunks(2).zip(&labels).filter(|(a, l)| usize::from(a[1] > a[0]) == **l);
    let right = right.count();
    must(right >= 22, || format!("the network has learnt only {right} of 24 images"))?;
    let q = Question::new(x, labels)?;
    let net = of(&model, &q)?;
    let bench = Bench::new(&net, &q, Protocol::default())?;
    let area = |method: &dyn Explainer| -> Result<f64, Failure> {
        let case = bench.case(method)?;
        let (mut sum, mut count) = (0.0, 0.0);
        for i in 0..case.len() {
            let mask = &masks[i * SIDE * SIDE..(i + 1) * SIDE * SIDE];
            let strength: Vec<f64> = case.units(i).iter().map(|v| v.abs()).collect();
            if let Some(a) = auroc(&strength, mask, Level::P95)? {
                sum += a.value;
                count += 1.0;
            }
        }
        Ok(sum / count)
    };
    let mut text = Vec::new();
    for id in ["input-x-gradient", "integrated-gradients"] {
        let method = explanation(id, toml::Table::new())?;
        let a = area(&*method.method)?;
        must(a >= 0.95, || format!("{id}: AUROC {a:.3}"))?;
        text.push(format!("{id} {a:.3}"));
    }
    let chance = area(&Blind(noise))?;
    must((chance - 0.5).abs() < 0.1, || format!("random attributions: AUROC {chance:.3}"))?;
    Ok(format!("{}, random {chance:.3}", text.join(", ")))
}

/// C11.
pub(super) fn randomisation() -> Result<String, Failure> {
    let model = learnt()?;
    let (x, labels, _) = images(6, 9)?;
    let q = Question::new(x, labels)?;
    let net = of(&model, &q)?;
    let bench = Bench::new(&net, &q, Protocol { draws: 5, stages: 4, ..Protocol::default() })?;
    let mut text = Vec::new();
    let mut see = |name: &str, method: &dyn Explainer, wanted: Reliance| -> Result<(), Failure> {
        let s = Sanity::of(&bench.case(method)?, Level::P95)?;
        let kept = s.kept.map_or(f64::NAN, |e| e.value);
        must(s.reliance == wanted, || format!("{name} keeps {kept:.3}: {:?}, not {wanted:?}", s.reliance))?;
        text.push(format!("{name} keeps {kept:.2}"));
        Ok(())
    };
    let gradient = explanation("saliency", toml::from_str("absolute = false")?)?;
    see("gradient", &*gradient.method, Reliance::Depends)?;
    see("edges", &Blind(edges), Reliance::Ignores)?;
    see("noise fixed by the row", &Blind(noise), Reliance::Ignores)?;
    if !EXPLANATIONS.iter().any(|e| e.card.id == "guided-backpropagation") {
        return Err(Failure::Absent("not in this version: guided-backpropagation".to_owned()));
    }
    let guided = explanation("guided-backpropagation", toml::Table::new())?;
    see("guided backpropagation", &*guided.method, Reliance::Ignores)?;
    Ok(text.join(", "))
}

/// C12: the score is the sum of the first eight of 40 elements.
pub(super) fn curves() -> Result<String, Failure> {
    let weights: Vec<f32> = (0..40).map(|i| if i < 8 { 1.0 } else { 0.0 }).collect();
    let model = network(&[40], 1, |n, x| n.linear(x, [40, 1], &weights, &[0.0]))?;
    let q = Question::new(Tensor::f32(vec![12, 40], vec![1.0; 480])?, vec![0; 12])?;
    let net = of(&model, &q)?;
    let bench = Bench::new(&net, &q, Protocol { points: 40, orders: 20, ..Protocol::default() })?;
    let oracle = explanation("input-x-gradient", toml::Table::new())?;
    let advantage = |method: &dyn Explainer, id: &str| -> Result<(f64, f64, f64), Failure> {
        let Some(metric) = metric(id) else { return Err(Failure::Absent(id.to_owned())) };
        let m = (metric.measure)(&bench.case(method)?)?;
        let control = m.random.clone().unwrap_or_default();
        let e = paired(&m.advantages(&control), 0, Level::P95)?;
        let Some((value, Some(i))) = e.map(|e| (e.value, e.interval)) else {
            return Err(Failure::Wrong("no interval".to_owned()));
        };
        Ok((value, i.low, i.high))
    };
    let mut text = Vec::new();
    for id in ["deletion", "insertion", "pixel-flipping"] {
        let (value, low, _) = advantage(&*oracle.method, id)?;
        must(low > 0.0, || format!("{id}: the oracle is {value:.3} above chance, from {low:.3}"))?;
        let (chance, low, high) = advantage(&Blind(noise), id)?;
        must(low <= 0.0 && high >= 0.0, || format!("{id}: chance is {chance:.3} above chance, {low:.3} to {high:.3}"))?;
        text.push(format!("{id} {value:.2} and {chance:+.2}"));
    }
    Ok(text.join(", "))
}

/// C20: the checks of explanations, twice.
pub(super) fn bytes() -> Result<String, Failure> {
    let digest = |seed: u64| -> Result<String, Failure> {
        let (x, labels, _) = images(60, 5)?;
        let data = Dataset::from_memory(x, Labels::Classes(labels), Vec::new(), &OpenOptions::default())?;
        let model =
            cnn(&CnnOptions { channels: vec![4, 4], hidden: 8, seed: 2, ..CnnOptions::new([1, SIDE, SIDE], 2) })?;
        let subject = Subject::new(model, "selftest", data, None)?;
        let options: toml::Table =
            toml::from_str("faithfulness = { rows = 4 }\nsanity = { rows = 2, draws = 2 }\nstability = { rows = 2 }")?;
        let ids = ["faithfulness", "sanity", "stability", "shortcut"].map(str::to_owned);
        let plan = Plan {
            checks: select("check", CHECKS, &ids, &[], &options)?,
            seed,
            level: Level::P95,
            budget: None,
            may_train: false,
            policy: Policy::default(),
            tool: "selftest".to_owned(),
        };
        Ok(run(&subject, &plan, None, &Silent)?.digest)
    };
    let (a, b, other) = (digest(0)?, digest(0)?, digest(1)?);
    must(a == b, || format!("two runs give {a} and {b}"))?;
    must(a != other, || "another seed gives the same".to_owned())?;
    Ok(format!("digest {}…", &a[..12]))
}
