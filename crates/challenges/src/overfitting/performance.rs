//! How good the network is on these data.
//! Checked against: scikit-learn on `fashion-cnn` (golden `cnn_2000`), closed forms in `netproof-stats`.

use netproof_audit::{AuditError, Check, Classified, Context, Findings, Outputs, Part, Regressed, Subject};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Evidence, Finding, Mark, Need, OptionDoc, Plot, PlotKind, Series, Table, Verdict,
};
use netproof_stats::bootstrap::{self, Method, bootstrap};
use netproof_stats::classification::{ClassReport, ConfusionMatrix};
use netproof_stats::interval::mean::wald;
use netproof_stats::probability::Probabilities;
use netproof_stats::roc::{one_versus_rest, roc_curve};
use netproof_stats::{Estimate, Interval, Level, Sum, regression::regression};
use serde::{Deserialize, Serialize};

use crate::shared::{RESAMPLED_ROWS, mean, outputs, pair, percent, resampled_positions, undefined_caveat};

pub(crate) static CARD: Card = Card {
    id: "performance",
    version: 1,
    kind: CardKind::Check,
    title: "Performance",
    challenge: Challenge::Overfitting,
    measures: "How often and how surely the network is right on the data: accuracy, balanced accuracy, F1, AUROC, log \
               loss and Brier score of classifiers; mean absolute and squared errors and R² of regression networks.",
    reference: "Wilson 1927 (intervals of proportions); DeLong, DeLong and Clarke-Pearson 1988 (AUROC); Zou and Donner \
                2008, Statistics in Medicine 27 (balanced accuracy); Brier 1950",
    needs: &[Need::Labels],
    options: &[
        OptionDoc {
            name: "resamples",
            default: "1000",
            doc: "Bootstrap resamples for the interval of macro F1, 100 to 100000.",
        },
        OptionDoc { name: "hardest", default: "20", doc: "Rows with the highest loss that are listed, 0 to 50." },
    ],
};

/// Most classes that get a curve or a cell of their own in a plot.
const PLOTTED: usize = 30;

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Performance {
    resamples: usize,
    hardest: usize,
}

impl Default for Performance {
    fn default() -> Self {
        Self { resamples: 1000, hardest: 20 }
    }
}

impl Check for Performance {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let findings = match &*outputs(subject, Part::Test, cx)? {
            Outputs::Classified(c) => self.classifier(subject, c, cx)?,
            Outputs::Regressed(r) => regressor(r, cx)?,
        };
        Ok(findings.into())
    }
}

impl Performance {
    fn classifier(&self, subject: &Subject, c: &Classified, cx: &Context<'_>) -> Result<Vec<Finding>, AuditError> {
        let matrix = ConfusionMatrix::from_pairs(c.classes, (0..c.rows()).map(|row| pair(c, row)))?;
        let reports = matrix.per_class(cx.level);
        let name = |class: usize| subject.class_name(class);
        let mut findings = Vec::new();
        if c.undefined > 0 {
            findings.push(
                cx.finding("undefined", "Rows without an answer")
                    .value("undefined_rows", "count", c.undefined as f64)
                    .n(c.rows() as u64)
                    .verdict(Verdict::Concern)
                    .explain(format!(
                        "For {} of {} rows the network's answer is not a number. Missing values in the features are the \
                         usual reason.",
                        c.undefined,
                        c.rows()
                    ))
                    .done(),
            );
        }
        if let Some(accuracy) = matrix.accuracy(cx.level) {
            findings.push(
                cx.finding("accuracy", "Accuracy")
                    .estimate("accuracy", "fraction", &accuracy)
                    .explain(format!(
                        "The network is right on {} of {} rows, {}.",
                        matrix.correct(),
                        matrix.total(),
                        percent(accuracy.value)
                    ))
                    .caveats(undefined_caveat(c.undefined))
                    .evidence(confusion(&matrix, name))
                    .done(),
            );
        }
        if let Some(e) = balanced_accuracy(&reports, cx.level) {
            findings.push(
                cx.finding("balanced-accuracy", "Balanced accuracy")
                    .estimate("balanced_accuracy", "fraction", &e)
                    .explain("Mean recall over the classes that occur: every class counts the same, however rare.")
                    .done(),
            );
        }
        findings.extend(self.macro_f1(&matrix, c, cx)?);
        findings.extend(per_class(&reports, name, cx));
        findings.extend(auroc(c, name, cx)?);
        if let Some(e) = mean(&c.log_loss, cx.level) {
            findings.push(
                cx.finding("log-loss", "Log loss")
                    .estimate("log_loss", "nats", &e)
                    .explain(format!(
                        "Mean negative logarithm of the probability of the true class; guessing evenly gives {:.4}.",
                        (c.classes as f64).ln()
                    ))
                    .caveats(undefined_caveat(c.undefined))
                    .done(),
            );
        }
        if let Some(e) = mean(&c.brier, cx.level) {
            findings.push(
                cx.finding("brier", "Brier score")
                    .estimate("brier", "squared probability", &e)
                    .explain(
                        "Mean squared distance of the probabilities from the truth, summed over classes: 0 is best, 2 \
                         is worst.",
                    )
                    .done(),
            );
        }
        findings.push(self.hardest(c, name, cx));
        Ok(findings)
    }

    fn macro_f1(
        &self,
        matrix: &ConfusionMatrix,
        c: &Classified,
        cx: &Context<'_>,
    ) -> Result<Option<Finding>, AuditError> {
        let Some(f1) = matrix.macro_f1() else { return Ok(None) };
        let k = matrix.classes();
        let rows = resampled_positions(c.rows());
        let options = bootstrap::Options {
            resamples: self.resamples.clamp(100, 100_000),
            seed: cx.seed,
            level: cx.level,
            method: Method::Percentile,
        };
        let mut counts = vec![[0u32; 3]; k];
        let b = bootstrap(rows.len(), &options, |sample| {
            counts.iter_mut().for_each(|c| *c = [0; 3]);
            for &i in sample {
                let (label, p) = pair(c, rows[i]);
                counts[label][0] += 1;
                if let Some(p) = p {
                    counts[p][1] += 1;
                    counts[p][2] += u32::from(p == label);
                }
            }
            let defined = counts.iter().filter(|c| c[0] + c[1] > 0);
            let f1s: Vec<f64> = defined.map(|c| 2.0 * f64::from(c[2]) / f64::from(c[0] + c[1])).collect();
            Sum::mean(&f1s)
        })?;
        let complete = rows.len() == c.rows();
        let interval = b.and_then(|b| {
            if complete {
                return b.estimate.interval;
            }
            let scale = (rows.len() as f64 / c.rows() as f64).sqrt();
            Some(wald(f1.value, b.estimate.standard_error? * scale, cx.level).clamp(0.0, 1.0))
        });
        let draft = cx
            .finding("macro-f1", "Macro F1")
            .value("macro_f1", "fraction", f1.value)
            .n(c.rows() as u64)
            .interval(interval)
            .explain(format!(
                "Mean over {} of {} classes of the harmonic mean of precision and recall.",
                f1.classes, f1.of
            ));
        let caveat = format!("the standard error is from {RESAMPLED_ROWS} evenly spaced rows, scaled to all rows");
        Ok(Some(draft.caveats((!complete).then_some(caveat)).done()))
    }

    fn hardest(&self, c: &Classified, name: impl Fn(usize) -> String, cx: &Context<'_>) -> Finding {
        let shown: Vec<_> = c.hardest.iter().take(self.hardest.min(50)).collect();
        let rows = shown
            .iter()
            .map(|h| {
                vec![h.row.into(), name(h.label).into(), name(h.predicted).into(), h.confidence.into(), h.loss.into()]
            })
            .collect();
        let columns = ["row", "label", "predicted", "confidence", "log loss (nats)"].map(String::from).to_vec();
        let title = "Rows with the highest loss".to_owned();
        cx.finding("hardest-rows", "Hardest rows")
            .n(c.rows() as u64)
            .explain(
                "Rows on which the network is surest of a wrong class. Look at them first: wrong labels and inputs \
                 unlike the rest gather here.",
            )
            .evidence(Evidence::Table(Table { title: title.clone(), columns, rows }))
            .evidence(Evidence::Rows { title, ids: shown.iter().map(|h| h.row).collect() })
            .done()
    }
}

/// Mean recall over classes that occur. The interval recovers the variance from the classes' Wilson intervals.
/// # Source
/// Zou and Donner 2008, Statistics in Medicine 27, 1693–1702, equation 4 for a mean.
fn balanced_accuracy(reports: &[ClassReport], level: Level) -> Option<Estimate> {
    let recalls: Vec<Estimate> = reports.iter().filter_map(|r| r.recall).collect();
    let values: Vec<f64> = recalls.iter().map(|e| e.value).collect();
    let value = Sum::mean(&values)?;
    let k = recalls.len() as f64;
    let reach = |side: fn(&Estimate, &Interval) -> f64| {
        Sum::of(recalls.iter().filter_map(|e| Some(side(e, e.interval.as_ref()?).powi(2)))).sqrt() / k
    };
    let interval = Interval {
        low: value - reach(|e, i| e.value - i.low),
        high: value + reach(|e, i| i.high - e.value),
        level: level.get(),
        method: "mover-wilson",
    };
    let n = recalls.iter().map(|e| e.n).sum();
    Some(Estimate { value, n, standard_error: None, interval: Some(interval.clamp(0.0, 1.0)) })
}

fn confusion(matrix: &ConfusionMatrix, name: impl Fn(usize) -> String) -> Evidence {
    let k = matrix.classes();
    if k <= PLOTTED
        && let Some(counts) = matrix.dense()
    {
        let names: Vec<String> = (0..k).map(&name).collect();
        return Evidence::Plot(Plot {
            title: "Confusion matrix (rows)".to_owned(),
            x: Axis::new("predicted class"),
            y: Axis::new("true class"),
            plot: PlotKind::Matrix {
                rows: names.clone(),
                columns: names,
                values: counts.iter().map(|&c| c as f64).collect(),
            },
            series: Vec::new(),
            reference: None,
        });
    }
    Evidence::Table(Table {
        title: "Most frequent confusions".to_owned(),
        columns: ["true class", "predicted class", "rows"].map(String::from).to_vec(),
        rows: matrix
            .most_confused(30)
            .into_iter()
            .map(|(t, p, n)| vec![name(t).into(), name(p).into(), n.into()])
            .collect(),
    })
}

fn per_class(reports: &[ClassReport], name: impl Fn(usize) -> String, cx: &Context<'_>) -> Option<Finding> {
    let recall = |c: &usize| reports[*c].recall.map_or(f64::INFINITY, |e| e.value);
    let worst =
        (0..reports.len()).filter(|c| reports[*c].recall.is_some()).min_by(|a, b| recall(a).total_cmp(&recall(b)))?;
    let estimate = reports[worst].recall?;
    let marks = |of: fn(&ClassReport) -> Option<Estimate>| -> Vec<Mark> {
        let mark = |(c, r): (usize, &ClassReport)| {
            let e = of(r)?;
            Some(Mark {
                x: None,
                y: e.value,
                low: e.interval.map(|i| i.low),
                high: e.interval.map(|i| i.high),
                n: Some(e.n),
                label: Some(name(c)),
            })
        };
        reports.iter().enumerate().filter_map(mark).take(PLOTTED).collect()
    };
    let plot = Plot {
        title: "Recall and precision of each class with Wilson intervals".to_owned(),
        x: Axis::unit("fraction of rows"),
        y: Axis::new("class"),
        plot: PlotKind::Forest,
        series: vec![
            Series { name: "recall".to_owned(), marks: marks(|r| r.recall) },
            Series { name: "precision".to_owned(), marks: marks(|r| r.precision) },
        ],
        reference: None,
    };
    let rows = reports.iter().enumerate().map(|(c, r)| {
        let e = |e: Option<Estimate>| e.map(|e| e.value).into();
        let side = |e: Option<Estimate>, f: fn(&Interval) -> f64| e.and_then(|e| e.interval).map(|i| f(&i)).into();
        vec![
            name(c).into(),
            r.support.into(),
            e(r.recall),
            side(r.recall, |i| i.low),
            side(r.recall, |i| i.high),
            e(r.precision),
            side(r.precision, |i| i.low),
            side(r.precision, |i| i.high),
            r.f1.into(),
        ]
    });
    let columns =
        ["class", "rows", "recall", "recall low", "recall high", "precision", "precision low", "precision high", "F1"];
    let table =
        Table { title: "Per class".to_owned(), columns: columns.map(String::from).to_vec(), rows: rows.collect() };
    Some(
        cx.finding("per-class", "Weakest class")
            .estimate("worst_class_recall", "fraction", &estimate)
            .explain(format!(
                "`{}` has the lowest recall: {} of its {} rows are recognised.",
                name(worst),
                percent(estimate.value),
                reports[worst].support
            ))
            .caveat("the interval is that of this class alone; the lowest of many classes looks worse than it is")
            .evidence(Evidence::Plot(plot))
            .evidence(Evidence::Table(table))
            .done(),
    )
}

fn auroc(c: &Classified, name: impl Fn(usize) -> String, cx: &Context<'_>) -> Result<Option<Finding>, AuditError> {
    cx.check_time()?;
    let s = &c.sample;
    let probabilities = Probabilities::from_logits(&s.logits, c.classes, &s.labels)?;
    let areas = one_versus_rest(probabilities.values(), c.classes, &s.labels, cx.level)?;
    let Some(average) = areas.macro_average else { return Ok(None) };
    let mut series = Vec::new();
    // Two classes have one curve, seen from two sides.
    let curves = if c.classes == 2 { 1..2 } else { 0..c.classes.min(PLOTTED) };
    for class in curves {
        let positive: Vec<bool> = s.labels.iter().map(|&l| l == class).collect();
        let Some(points) = roc_curve(&probabilities.column(class), &positive, 200)? else { continue };
        let marks =
            points.iter().map(|p| Mark { x: Some(p.false_positive_rate), y: p.true_positive_rate, ..Mark::default() });
        series.push(Series { name: name(class), marks: marks.collect() });
    }
    let plot = Plot {
        title: "ROC curve of each class against the rest".to_owned(),
        x: Axis::unit("false positive rate"),
        y: Axis::unit("true positive rate"),
        plot: PlotKind::Lines,
        series,
        reference: None,
    };
    let rows = areas.per_class.iter().enumerate().map(|(class, a)| {
        vec![
            name(class).into(),
            a.map(|a| a.value).into(),
            a.map(|a| a.interval.low).into(),
            a.map(|a| a.interval.high).into(),
        ]
    });
    let table = Table {
        title: "AUROC of each class against the rest".to_owned(),
        columns: ["class", "AUROC", "low", "high"].map(String::from).to_vec(),
        rows: rows.collect(),
    };
    let sampled = format!("from {} evenly spaced rows of {}", s.labels.len(), c.rows());
    Ok(Some(
        cx.finding("auroc", "Area under the ROC curve")
            .value("auroc", "fraction", average.value)
            .n(s.labels.len() as u64)
            .interval(average.interval)
            .explain(format!(
                "Mean over {} of {} classes of the chance that a row of the class scores above a row of another; 0.5 is \
                 guessing.",
                average.classes, average.of
            ))
            .caveats((!c.sample_is_complete()).then_some(sampled))
            .evidence(Evidence::Plot(plot))
            .evidence(Evidence::Table(table))
            .done(),
    ))
}

fn regressor(r: &Regressed, cx: &Context<'_>) -> Result<Vec<Finding>, AuditError> {
    let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let Some(e) = regression(&wide(&r.predicted), &wide(&r.actual), cx.level)? else {
        let draft = cx.finding("errors", "Prediction errors").verdict(Verdict::Inconclusive);
        return Ok(vec![draft.explain("No row has both a finite target and a finite prediction.").done()]);
    };
    let caveat =
        (r.undefined > 0).then(|| format!("{} rows without a finite answer or target are left out", r.undefined));
    let each = |what: &str, title: &str, metric: &str, unit: &str, estimate: &Estimate, text: &str| {
        cx.finding(what, title).estimate(metric, unit, estimate).explain(text).caveats(caveat.clone()).done()
    };
    let unit = "unit of the target";
    let mut findings = vec![
        each("mae", "Mean absolute error", "mae", unit, &e.mean_absolute_error, "Mean distance from the target."),
        each(
            "rmse",
            "Root mean squared error",
            "rmse",
            unit,
            &e.root_mean_squared_error,
            "Root of the mean squared distance from the target: large errors count more.",
        ),
        each("bias", "Mean error", "mean_error", unit, &e.bias, "Positive where predictions are too high on average."),
    ];
    match &e.r_squared {
        Some(r2) => findings.push(each(
            "r-squared",
            "R²",
            "r_squared",
            "fraction",
            r2,
            "Fraction of the target's variance that is explained; 0 is no better than its mean.",
        )),
        None => findings.push(
            cx.finding("r-squared", "R²")
                .verdict(Verdict::Inconclusive)
                .explain("The target is constant, so R² is undefined.")
                .done(),
        ),
    }
    Ok(findings)
}
