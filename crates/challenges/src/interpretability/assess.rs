//! What the checks of explanations share: which rows, which methods, and what was measured on them. What one check computes,
//! a later one with the same options takes over.

use std::sync::Arc;

use netproof_audit::{AuditError, Configured, Context, Head, Part, Subject};
use netproof_core::Cell;
use netproof_data::{Dataset, Labels, OpenOptions};
use netproof_graph::Model;
use netproof_stats::hypothesis::{Alternative, sign_flip_test};
use netproof_stats::interval::mean::mean;
use netproof_stats::rng::Rng;
use netproof_stats::{Estimate, Level};
use netproof_tensor::Tensor;
use netproof_train::{DataSection, Job, Method, Recipe, Registry, RunOptions, train};

use super::evidence::{Bench, Case, Curve, Measured, Protocol, data_randomisation, metric, paired, shuffled, spearman};
use super::{
    EXPLANATIONS, ExplainError, Explained, Explainer, Question, Sanity, Target, explanation, one_hot, targets,
};

/// Methods that are measured where none are named: cheap, none that is known to ignore weights, and none whose map has a
/// layer's resolution, which says little on small images.
const USUAL: [&str; 7] =
    ["saliency", "input-x-gradient", "integrated-gradients", "smooth-grad", "deep-lift", "lrp", "occlusion"];

/// Options for measurements that explain every row many times. A method of few steps depends on the weights and wavers under
/// noise as that of many does; refining the integral on networks without sense would take minutes.
const QUICK: [(&str, &str); 4] = [
    ("integrated-gradients", "steps = 16"),
    ("smooth-grad", "samples = 8"),
    ("expected-gradients", "samples = 16"),
    ("rise", "masks = 500"),
];

/// Most multiply-accumulate operations that a check spends on a network before it takes fewer rows.
const OPERATIONS: u64 = 400_000_000_000;

/// A method with its own options, or with quick ones.
/// # Errors
/// There is no such method.
pub(crate) fn method(id: &str, quick: bool) -> Result<Configured<dyn Explainer>, AuditError> {
    let text = QUICK.iter().find(|(of, _)| quick && *of == id).map_or("", |(_, text)| text);
    let options = text
        .parse()
        .map_err(|e: toml::de::Error| AuditError::Option { id: id.to_owned(), message: e.message().to_owned() })?;
    explanation(id, options)
}

/// What a reader must know of a method that was measured with quick options.
pub(crate) fn quick_caveat(id: &str) -> Option<String> {
    QUICK.iter().find(|(of, _)| *of == id).map(|(_, text)| format!("measured with {text}"))
}

/// The methods that were asked for: by id, `all`, or the usual ones where none are.
/// # Errors
/// An id is unknown.
pub(crate) fn methods(asked: &[String], quick: bool) -> Result<Vec<Configured<dyn Explainer>>, AuditError> {
    let known = || EXPLANATIONS.iter().map(|e| e.card.id);
    let ids: Vec<&str> = match asked {
        [] => USUAL.into_iter().filter(|id| known().any(|k| k == *id)).collect(),
        [all] if all == "all" => known().collect(),
        named => named.iter().map(String::as_str).collect(),
    };
    ids.into_iter().map(|id| method(id, quick)).collect()
}

/// Rows of a subject that are explained.
pub(crate) struct Rows {
    /// What is asked about them: the decision, which is the class that the network says.
    pub(crate) question: Question,
    /// For each group column each row's value.
    pub(crate) groups: Vec<Vec<Option<usize>>>,
    /// Each row's label; empty where labels are no classes.
    pub(crate) labels: Vec<usize>,
}

/// Evenly spaced rows without missing numbers; their own predicted classes as targets; a background of at most 32 others.
/// The baseline is zeros for images and the background's mean for tables.
/// # Errors
/// The data cannot be read, or the network refuses them.
pub(crate) fn rows(subject: &Subject, net: &Explained<'_>, count: usize, seed: u64) -> Result<Rows, AuditError> {
    let n = subject.data().len();
    let positions: Vec<usize> = (0..count.min(n)).map(|i| i * n / count.min(n)).collect();
    these_rows(subject, net, &positions, seed)
}

/// See [`rows`]; these positions of the data.
pub(crate) fn these_rows(
    subject: &Subject,
    net: &Explained<'_>,
    positions: &[usize],
    seed: u64,
) -> Result<Rows, AuditError> {
    let n = subject.data().len();
    let batch = subject.data().select(positions)?.load()?;
    let good: Vec<usize> =
        batch.rows().enumerate().filter(|(_, row)| row.iter().all(|v| v.is_finite())).map(|(i, _)| i).collect();
    let x = subject.in_shape(&batch.features.select_rows(&good)?)?;
    let step = n.div_ceil(32).max(1);
    let others: Vec<usize> = (step / 2..n).step_by(step).collect();
    let background = subject.in_shape(&subject.data().select(&others)?.load()?.features)?;
    let width = background.row_len();
    let finite: Vec<usize> = (0..background.rows())
        .filter(|&i| background.as_f32().is_some_and(|v| v[i * width..(i + 1) * width].iter().all(|v| v.is_finite())))
        .collect();
    let background = background.select_rows(&finite)?;
    let mut question = Question::new(x, vec![0; good.len()])?;
    question.rows = good.iter().map(|&i| batch.row_ids[i]).collect();
    question.seed = seed;
    if net.row_shape().len() == 1 && background.rows() > 0 {
        question.baseline = mean_row(&background)?;
    }
    if net.row_shape().len() == 1
        && let Some(names) = subject.data().feature_names()
        && names.len() == net.row_len()
    {
        question.features = Some(one_hot(names, &background));
    }
    question.background = (background.rows() > 0).then_some(background);
    question.targets = targets(net, Target::Predicted, &question, None)?;
    let groups = batch.groups.iter().map(|g| good.iter().map(|&i| g[i]).collect()).collect();
    let labels = batch.labels.classes().map_or_else(Vec::new, |all| good.iter().map(|&i| all[i]).collect());
    Ok(Rows { question, groups, labels })
}

fn mean_row(t: &Tensor) -> Result<Tensor, ExplainError> {
    let mut mean = vec![0.0f64; t.row_len()];
    for row in t.as_f32().unwrap_or_default().chunks(t.row_len().max(1)) {
        mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / t.rows() as f64);
    }
    let shape = [&[1], t.shape().get(1..).unwrap_or_default()].concat();
    Ok(Tensor::f32(shape, mean.into_iter().map(|v| v as f32).collect())?)
}

/// As many rows as fit what a check may spend, where each needs so many passes; with a caveat where that is fewer than asked.
pub(crate) fn affordable(net: &Explained<'_>, wanted: usize, passes: usize) -> (usize, Option<String>) {
    let shapes = net.model().batch_shapes(1);
    let each = net.model().cost(&shapes).ok().and_then(|c| Some(c.macs? / c.batch.max(1) as u64)).unwrap_or(0).max(1);
    let fits = (OPERATIONS / each / passes.max(1) as u64).clamp(4, 1 << 30) as usize;
    if fits >= wanted {
        return (wanted, None);
    }
    let text = format!("{fits} rows instead of {wanted}, since a pass of this network costs {each} operations per row");
    (fits, Some(text))
}

/// What was measured of a method's faithfulness.
pub(crate) struct Faithful {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// Why it was not measured.
    pub(crate) skipped: Option<String>,
    /// By how much insertion less deletion exceeds that of random orders, per row.
    pub(crate) over_random: Vec<f64>,
    /// The same against an edge detector.
    pub(crate) over_edges: Option<Vec<f64>>,
    /// Mean of each further metric, by id.
    pub(crate) means: Vec<(&'static str, Option<f64>)>,
    /// Curves of deletion and of insertion.
    pub(crate) curves: [Vec<Curve>; 2],
}

impl Faithful {
    pub(crate) fn estimate(&self, seed: u64, level: Level) -> Result<Option<Estimate>, ExplainError> {
        paired(&self.over_random, seed, level)
    }

    /// Probability of such an advantage if signs were random.
    pub(crate) fn p_value(&self, seed: u64) -> Option<f64> {
        let d: Vec<f64> = self.over_random.iter().copied().filter(|v| v.is_finite()).collect();
        sign_flip_test(&d, 2000, seed, Alternative::Greater).ok().flatten().map(|t| t.p_value)
    }
}

/// Options of faithfulness.
#[derive(Debug, Clone)]
pub(crate) struct FaithfulOptions {
    pub(crate) methods: Vec<String>,
    pub(crate) rows: usize,
    pub(crate) protocol: Protocol,
}

const FURTHER: [&str; 6] =
    ["pixel-flipping", "faithfulness-correlation", "infidelity", "completeness", "complexity", "sparseness"];

/// Faithfulness of methods on rows of the subject.
pub(crate) fn faithful(
    subject: &Subject,
    cx: &Context<'_>,
    o: &FaithfulOptions,
) -> Result<Arc<Vec<Faithful>>, AuditError> {
    let key = format!("faithful {o:?} seed {}", cx.seed);
    subject.remember(&key, || {
        let net = Explained::of(subject)?;
        let rows = rows(subject, &net, o.rows, cx.seed)?;
        let bench = Bench::new(&net, &rows.question, o.protocol.clone())?;
        each(cx, &bench, &o.methods, false, |id, title, case| {
            let mut found = Faithful {
                id,
                title,
                skipped: None,
                over_random: Vec::new(),
                over_edges: None,
                means: Vec::new(),
                curves: [Vec::new(), Vec::new()],
            };
            let case = match case {
                Ok(case) => case,
                Err(why) => return Ok(Faithful { skipped: Some(why), ..found }),
            };
            let of = |id: &str| measured(id, &case);
            let (Some(deletion), Some(insertion)) = (of("deletion")?, of("insertion")?) else { return Ok(found) };
            let sum = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(&b).map(|(a, b)| a + b).collect::<Vec<f64>>();
            let against = |d: &Option<Vec<f64>>, i: &Option<Vec<f64>>| {
                Some(sum(deletion.advantages(d.as_ref()?), insertion.advantages(i.as_ref()?)))
            };
            found.over_random = against(&deletion.random, &insertion.random).unwrap_or_default();
            found.over_edges = against(&deletion.edges, &insertion.edges);
            for id in FURTHER {
                found.means.push((id, of(id)?.and_then(|m| m.mean(cx.level)).map(|e| e.value)));
            }
            found.curves = [deletion.curves, insertion.curves];
            Ok(found)
        })
    })
}

/// A metric of a case; `None` where it does not apply.
fn measured(id: &str, case: &Case<'_, '_>) -> Result<Option<Measured>, ExplainError> {
    let Some(metric) = metric(id) else { return Ok(None) };
    match (metric.measure)(case) {
        Ok(m) => Ok(Some(m)),
        Err(ExplainError::NotApplicable { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Calls `see` with each method's case, or with why it does not apply.
pub(crate) fn each<T>(
    cx: &Context<'_>,
    bench: &Bench<'_, '_>,
    asked: &[String],
    quick: bool,
    mut see: impl FnMut(&'static str, &'static str, Result<Case<'_, '_>, String>) -> Result<T, AuditError>,
) -> Result<Vec<T>, AuditError> {
    let mut all = Vec::new();
    let methods = methods(asked, quick)?;
    cx.progress.start("measuring explanations", methods.len() as u64);
    for m in &methods {
        cx.check_time()?;
        let case = match bench.case(&*m.method) {
            Ok(case) => Ok(case),
            Err(e @ (ExplainError::NotApplicable { .. } | ExplainError::NotDifferentiable { .. })) => {
                Err(e.to_string())
            }
            Err(e) => return Err(e.into()),
        };
        all.push(see(m.card.id, m.card.title, case)?);
        cx.progress.advance(1);
    }
    cx.progress.finish();
    Ok(all)
}

/// What was measured of a method's sanity.
pub(crate) struct Sane {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// What was found, or why it was not measured.
    pub(crate) sanity: Result<Sanity, String>,
    /// Mean rise of the histogram's entropy.
    pub(crate) rise: Option<f64>,
    /// Similarity of maps averaged over noise, with all weights in random order from the input up.
    pub(crate) smooth: Option<f64>,
    /// Similarity with the maps of the same network trained on shuffled labels.
    pub(crate) shuffled_labels: Option<Estimate>,
}

/// Options of sanity.
#[derive(Debug, Clone)]
pub(crate) struct SaneOptions {
    pub(crate) methods: Vec<String>,
    pub(crate) rows: usize,
    pub(crate) protocol: Protocol,
    /// Whether the smooth variant is measured too.
    pub(crate) smooth: bool,
    /// Epochs of training on shuffled labels; 0: none.
    pub(crate) shuffled_label_epochs: u64,
}

/// Sanity of methods on rows of the subject.
pub(crate) fn sane(subject: &Subject, cx: &Context<'_>, o: &SaneOptions) -> Result<Arc<Vec<Sane>>, AuditError> {
    let key = format!("sane {o:?} seed {} level {}", cx.seed, cx.level.get());
    subject.remember(&key, || {
        let net = Explained::of(subject)?;
        let rows = rows(subject, &net, o.rows, cx.seed)?;
        let bench = Bench::new(&net, &rows.question, o.protocol.clone())?;
        let other = match o.shuffled_label_epochs {
            0 => None,
            epochs => Some(trained_on_shuffled_labels(subject, cx, epochs)?),
        };
        each(cx, &bench, &o.methods, true, |id, title, case| {
            let mut found =
                Sane { id, title, sanity: Err(String::new()), rise: None, smooth: None, shuffled_labels: None };
            found.sanity = match &case {
                Err(why) => Err(why.clone()),
                Ok(case) => match Sanity::of(case, cx.level) {
                    Ok(s) => Ok(s),
                    Err(e @ ExplainError::NotApplicable { .. }) => Err(e.to_string()),
                    Err(e) => return Err(e.into()),
                },
            };
            if let (Ok(case), Ok(_)) = (&case, &found.sanity) {
                let value =
                    |id| Ok::<_, ExplainError>(measured(id, case)?.and_then(|m| m.mean(cx.level)).map(|e| e.value));
                found.rise = value("efficient-randomisation")?;
                found.smooth = if o.smooth { value("smooth-randomisation")? } else { None };
                if let Some(other) = &other {
                    found.shuffled_labels = data_randomisation(case, other)?.mean(cx.level);
                }
            }
            Ok(found)
        })
    })
}

/// Most rows that the training on shuffled labels sees.
const SHUFFLED_ROWS: usize = 5000;

/// The network with its weights in random order, trained on its training rows (or, without these, on the rows under audit)
/// with their labels in random order.
fn trained_on_shuffled_labels(subject: &Subject, cx: &Context<'_>, epochs: u64) -> Result<Model, AuditError> {
    let fail = |e: String| AuditError::Mismatch { message: format!("training on shuffled labels: {e}") };
    let data = subject.part(Part::Train).unwrap_or(subject.data());
    let batch = data.select(&spaced(data.len(), SHUFFLED_ROWS))?.load()?;
    let Some(classes) = batch.labels.classes() else {
        return Err(fail("the labels are no classes".to_owned()));
    };
    let mut labels = classes.to_vec();
    Rng::named(cx.seed, "shuffled-labels").shuffle(&mut labels);
    let features = subject.in_shape(&batch.features)?;
    let rows = Dataset::from_memory(features, Labels::Classes(labels), Vec::new(), &OpenOptions::default())?;
    let model = shuffled(subject.model(), cx.seed, 0)?;
    let recipe = Recipe {
        epochs,
        seed: cx.seed,
        validation_fraction: 0.0,
        ..Recipe::new(DataSection::new("-"), Method::new("file"))
    };
    let job = Job::new(&recipe, model, rows, None).map_err(|e| fail(e.to_string()))?;
    let trained = train(&recipe, job, &Registry::default(), &RunOptions::default()).map_err(|e| fail(e.to_string()))?;
    Ok(trained.model)
}

/// What was measured of a method's stability.
pub(crate) struct Stable {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// Why it was not measured.
    pub(crate) skipped: Option<String>,
    /// Mean rank correlation of a row's map with those of its noisy copies.
    pub(crate) kept: Vec<f64>,
    /// Average and largest relative change.
    pub(crate) average: Option<f64>,
    pub(crate) largest: Option<f64>,
}

/// Stability of methods on rows of the subject.
pub(crate) fn stable(subject: &Subject, cx: &Context<'_>, o: &FaithfulOptions) -> Result<Arc<Vec<Stable>>, AuditError> {
    let key = format!("stable {o:?} seed {}", cx.seed);
    subject.remember(&key, || {
        let net = Explained::of(subject)?;
        let rows = rows(subject, &net, o.rows, cx.seed)?;
        let bench = Bench::new(&net, &rows.question, o.protocol.clone())?;
        each(cx, &bench, &o.methods, true, |id, title, case| {
            let nothing = Stable { id, title, skipped: None, kept: Vec::new(), average: None, largest: None };
            let case = match case {
                Ok(case) => case,
                Err(why) => return Ok(Stable { skipped: Some(why), ..nothing }),
            };
            let mut kept = Vec::new();
            for i in 0..case.len() {
                let own = case.units(i);
                let all: Vec<f64> = case.noisy_units(i)?.iter().filter_map(|c| spearman(&own, c)).collect();
                kept.push(all.iter().sum::<f64>() / all.len() as f64);
            }
            let value =
                |id| Ok::<_, ExplainError>(measured(id, &case)?.and_then(|m| m.mean(cx.level)).map(|e| e.value));
            let (average, largest) = (value("average-sensitivity")?, value("max-sensitivity")?);
            Ok(Stable { kept, average, largest, ..nothing })
        })
    })
}

/// Mean with its interval of what is finite.
pub(crate) fn finite_mean(values: &[f64], level: Level) -> Option<Estimate> {
    mean(&values.iter().copied().filter(|v| v.is_finite()).collect::<Vec<_>>(), level)
}

/// A number for a table: three decimals are what the rows can tell.
pub(crate) fn cell(v: Option<f64>) -> Cell {
    v.map(|v| (v * 1000.0).round() / 1000.0).into()
}

/// An interval as text.
pub(crate) fn range(e: &Estimate) -> String {
    e.interval.map_or_else(|| "no interval".to_owned(), |i| format!("{:.3} to {:.3}", i.low, i.high))
}

/// What explanations need to know of the answers: probabilities that cannot be undone saturate.
pub(crate) fn saturated(subject: &Subject, net: &Explained<'_>) -> Option<String> {
    let probabilities = matches!(subject.head(), Head::Probabilities | Head::BinaryProbability);
    (probabilities && net.undone().is_none()).then(|| {
        "the network gives probabilities that no softmax makes at the end; where they saturate, gradients vanish"
            .to_owned()
    })
}

/// Positions of rows, evenly spaced.
pub(crate) fn spaced(from: usize, count: usize) -> Vec<usize> {
    let count = count.min(from);
    (0..count).map(|i| i * from / count).collect()
}
