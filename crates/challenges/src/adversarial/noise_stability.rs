//! How often random noise turns an answer: the mildest of all disturbances, and no attack.
//! Gaussian noise of several sizes on each row; accuracy under noise, and the share of draws that keep the clean answer.
//! Hendrycks and Dietterich 2019, arXiv:1903.12261, for noise as a corruption; Cohen, Rosenfeld and Kolter 2019,
//! arXiv:1902.02918, for the share of votes as a measure of robustness. Checked against: the closed form of a linear model.
//! Weak: a network that is stable under noise may fall to any attack; one that is not is fragile for sure.

use netproof_audit::{AuditError, Check, Context, Findings, Head, Part, Subject};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Evidence, Mark, Need, OptionDoc, Plot, PlotKind, Series, Table, Verdict,
};
use netproof_stats::interval::mean::mean;
use netproof_stats::rng::Rng;
use netproof_stats::{Estimate, Sum};
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::certified_accuracy::sample;

pub(crate) static CARD: Card = Card {
    id: "noise-stability",
    version: 1,
    kind: CardKind::Check,
    title: "Noise stability",
    challenge: Challenge::Adversarial,
    measures: "How often Gaussian noise of several sizes changes the network's answer, and the accuracy under it.",
    reference: "Hendrycks and Dietterich, ICLR 2019, arXiv:1903.12261; Cohen, Rosenfeld and Kolter, ICML 2019, \
                arXiv:1902.02918",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc { name: "rows", default: "500", doc: "Rows, evenly spaced; 2 to 100000." },
        OptionDoc { name: "draws", default: "8", doc: "Draws of noise for each row and size, 1 to 10000." },
        OptionDoc {
            name: "sigmas",
            default: "[0.02, 0.05, 0.1, 0.2]",
            doc: "Standard deviations of the noise: of images as a fraction of the features' range, of tables of each \
                  column's own standard deviation.",
        },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NoiseStability {
    rows: usize,
    draws: usize,
    sigmas: Vec<f64>,
}

impl Default for NoiseStability {
    fn default() -> Self {
        Self { rows: 500, draws: 8, sigmas: vec![0.02, 0.05, 0.1, 0.2] }
    }
}

/// What noise of one size does.
struct Level {
    sigma: f64,
    accuracy: Estimate,
    kept: Estimate,
}

impl Check for NoiseStability {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        if subject.head() == Head::Value {
            let text = "The network predicts numbers; this check is about classes.";
            let draft = cx.finding("accuracy", "Accuracy under noise").verdict(Verdict::NotApplicable);
            return Ok(vec![draft.explain(text).done()].into());
        }
        if let Some(bad) = self.sigmas.iter().find(|s| !(s.is_finite() && **s >= 0.0)) {
            let message = format!("`sigmas` holds {bad}; each must be at least 0 and finite");
            return Err(AuditError::Option { id: CARD.id.to_owned(), message });
        }
        let (x, labels, ids) = sample(subject, self.rows.clamp(2, 100_000))?;
        let scale = scales(subject, cx, x.row_len())?;
        let clean = classes(subject, &x)?;
        let mut levels = Vec::new();
        cx.progress.start("adding noise", self.sigmas.len() as u64);
        for &sigma in &self.sigmas {
            let level = self.level(subject, cx, &x, &labels, &ids, &clean, &scale, sigma);
            match level {
                Ok(Some(level)) => levels.push(level),
                Ok(None) => {}
                Err(e) => {
                    cx.progress.finish();
                    return Err(e);
                }
            }
            cx.progress.advance(1);
        }
        cx.progress.finish();
        let right = clean.iter().zip(&labels).filter(|(c, l)| **c == Some(**l)).count();
        Ok(findings(&levels, right, labels.len(), self.draws, cx).into())
    }
}

impl NoiseStability {
    #[allow(clippy::too_many_arguments, reason = "one call, all of it data")]
    fn level(
        &self,
        subject: &Subject,
        cx: &Context<'_>,
        x: &Tensor,
        labels: &[usize],
        ids: &[u64],
        clean: &[Option<usize>],
        scale: &[f32],
        sigma: f64,
    ) -> Result<Option<Level>, AuditError> {
        let (len, values) = (x.row_len().max(1), x.as_f32().unwrap_or_default());
        let draws = self.draws.clamp(1, 10_000);
        let (mut accuracy, mut kept) = (vec![0.0; labels.len()], vec![0.0; labels.len()]);
        let at_once = (subject.batch_rows() / draws).max(1);
        let mut noise = vec![0.0f32; len];
        for (part, rows) in values.chunks(at_once * len).enumerate() {
            cx.check_time()?;
            let count = rows.len() / len;
            let mut noisy = Vec::with_capacity(rows.len() * draws);
            for (i, row) in rows.chunks(len).enumerate() {
                let id = ids[part * at_once + i];
                for draw in 0..draws {
                    // The same draws at every size, so that sizes can be compared.
                    let seed = Rng::stream(cx.seed, id.wrapping_add(1)).next_u64();
                    Rng::stream(seed, draw as u64 + 1).fill_normal(&mut noise);
                    let moved = row.iter().zip(&noise).zip(scale.iter().cycle());
                    noisy.extend(moved.map(|((x, e), s)| x + sigma as f32 * s * e));
                }
            }
            let shape = [&[count * draws], &x.shape()[1..]].concat();
            let answers = classes(subject, &Tensor::f32(shape, noisy)?)?;
            for (i, answers) in answers.chunks(draws).enumerate() {
                let row = part * at_once + i;
                let share =
                    |f: &dyn Fn(&Option<usize>) -> bool| answers.iter().filter(|a| f(a)).count() as f64 / draws as f64;
                accuracy[row] = share(&|a| *a == Some(labels[row]));
                kept[row] = share(&|a| a.is_some() && *a == clean[row]);
            }
        }
        let clamp = |mut e: Estimate| {
            e.interval = e.interval.map(|i| i.clamp(0.0, 1.0));
            e
        };
        // Draws of one row belong together: the spread over rows is what counts.
        let (Some(accuracy), Some(kept)) = (mean(&accuracy, cx.level), mean(&kept, cx.level)) else { return Ok(None) };
        Ok(Some(Level { sigma, accuracy: clamp(accuracy), kept: clamp(kept) }))
    }
}

/// What one unit of noise is for each element: the range of images, the standard deviation of a table's columns.
fn scales(subject: &Subject, cx: &Context<'_>, len: usize) -> Result<Vec<f32>, AuditError> {
    let Some(scan) = subject.scan(Part::Test, cx)? else { return Ok(vec![1.0]) };
    if scan.features.len() == len {
        return Ok(scan.features.iter().map(|m| m.standard_deviation().unwrap_or_default() as f32).collect());
    }
    let width = scan.features.first().and_then(|m| Some(m.max()? - m.min()?)).filter(|w| *w > 0.0);
    Ok(vec![width.unwrap_or(1.0) as f32])
}

fn classes(subject: &Subject, x: &Tensor) -> Result<Vec<Option<usize>>, AuditError> {
    let mut all = Vec::with_capacity(x.rows());
    let step = subject.batch_rows();
    for start in (0..x.rows()).step_by(step) {
        let answers = subject.answers(&x.slice_rows(start, (start + step).min(x.rows()))?)?;
        let width = answers.row_len().max(1);
        let half = if subject.head() == Head::BinaryProbability { 0.5 } else { 0.0 };
        all.extend(answers.as_f32().unwrap_or_default().chunks(width).map(|z| match z {
            z if z.iter().any(|v| v.is_nan()) => None,
            [z] => Some(usize::from(*z > half)),
            z => Some(super::loss::argmax(z)),
        }));
    }
    Ok(all)
}

fn findings(levels: &[Level], right: usize, n: usize, draws: usize, cx: &Context<'_>) -> Vec<netproof_core::Finding> {
    let draft = cx.finding("accuracy", "Accuracy under noise");
    let Some(worst) = levels.iter().max_by(|a, b| a.sigma.total_cmp(&b.sigma)) else {
        return vec![
            draft.verdict(Verdict::Inconclusive).explain("There are too few rows or no sizes of noise.").done(),
        ];
    };
    let mark = |sigma: f64, e: &Estimate| Mark {
        x: Some(sigma),
        y: e.value,
        low: e.interval.map(|i| i.low),
        high: e.interval.map(|i| i.high),
        n: Some(e.n),
        label: None,
    };
    let series = |name: &str, of: fn(&Level) -> &Estimate| Series {
        name: name.to_owned(),
        marks: levels.iter().map(|l| mark(l.sigma, of(l))).collect(),
    };
    let plot = Plot {
        title: "Under Gaussian noise".to_owned(),
        x: Axis::new("standard deviation of the noise (of the features' range or deviation)"),
        y: Axis::unit("fraction of draws"),
        plot: PlotKind::Lines,
        series: vec![series("right", |l| &l.accuracy), series("as without noise", |l| &l.kept)],
        reference: None,
    };
    let rows = levels.iter().map(|l| {
        let end = |e: &Estimate, f: fn(&netproof_stats::Interval) -> f64| e.interval.map(|i| f(&i)).into();
        vec![
            l.sigma.into(),
            l.accuracy.value.into(),
            end(&l.accuracy, |i| i.low),
            end(&l.accuracy, |i| i.high),
            l.kept.value.into(),
            end(&l.kept, |i| i.low),
            end(&l.kept, |i| i.high),
        ]
    });
    let columns = ["sigma", "accuracy", "accuracy low", "accuracy high", "kept", "kept low", "kept high"];
    let table =
        Table { title: "Sizes of noise".to_owned(), columns: columns.map(String::from).to_vec(), rows: rows.collect() };
    let average = Sum::mean(&levels.iter().map(|l| l.kept.value).collect::<Vec<_>>()).unwrap_or(f64::NAN);
    vec![
        draft
            .estimate("accuracy_under_noise", "fraction", &worst.accuracy)
            .explain(format!(
                "Of {n} rows {right} are right without noise. Under the largest noise, sigma {}, {:.2} % of draws are right and \
                 {:.2} % keep the answer; over all sizes {:.2} % keep it ({draws} draws per row and size).",
                worst.sigma,
                100.0 * worst.accuracy.value,
                100.0 * worst.kept.value,
                100.0 * average
            ))
            .caveat("noise is no attack: stability under it says nothing about deliberate changes")
            .evidence(Evidence::Plot(plot))
            .evidence(Evidence::Table(table))
            .done(),
    ]
}
