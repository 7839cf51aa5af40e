//! What is in the data, and what is wrong with them before any network has seen them.

use netproof_audit::{AuditError, Check, Context, Findings, Part, Scan, Subject};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Comparison, Evidence, Finding, Mark, OptionDoc, Plot, PlotKind, Series, Table,
    Threshold, Verdict,
};
use netproof_stats::descriptive::balance;
use netproof_stats::interval::proportion::proportion;
use serde::{Deserialize, Serialize};

pub(crate) static CARD: Card = Card {
    id: "data-summary",
    version: 1,
    kind: CardKind::Check,
    title: "Data summary",
    challenge: Challenge::DataLimits,
    measures: "Rows, class balance, missing, infinite, constant and out-of-range values, exact duplicates, duplicates with \
               conflicting labels, and rows that are also in the training data.",
    reference: "Northcutt, Athalye and Mueller, NeurIPS 2021 Datasets and Benchmarks, arXiv:2103.14749 (label errors in \
                test sets); Barz and Denzler, J. Imaging 2020, arXiv:1902.00423 (duplicates of training images in CIFAR)",
    needs: &[],
    options: &[
        OptionDoc {
            name: "tolerance",
            default: "0.01",
            doc: "Largest fraction of conflicting or leaked rows that is no concern, 0 to 1.",
        },
        OptionDoc { name: "listed", default: "50", doc: "Rows listed per finding, 0 to 10000." },
    ],
};

/// Most classes that get a bar of their own.
const PLOTTED: usize = 40;

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DataSummary {
    tolerance: f64,
    listed: usize,
}

impl Default for DataSummary {
    fn default() -> Self {
        Self { tolerance: 0.01, listed: 50 }
    }
}

impl Check for DataSummary {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let absent = || AuditError::Mismatch { message: "there are no data".to_owned() };
        let scan = subject.scan(Part::Test, cx)?.ok_or_else(absent)?;
        let train = subject.scan(Part::Train, cx)?;
        let mut findings = vec![rows(subject, &scan, train.as_deref(), cx)];
        findings.extend(class_balance(subject, &scan, cx));
        findings.push(missing(subject, &scan, cx));
        findings.push(constant(subject, &scan, cx));
        findings.push(out_of_range(subject, &scan, train.as_deref(), cx));
        cx.check_time()?;
        findings.extend(self.duplicates(&scan, cx));
        if let Some(train) = train {
            findings.extend(self.overlap(&scan, &train, cx));
        }
        Ok(findings.into())
    }
}

impl DataSummary {
    fn limit(&self) -> Threshold {
        Threshold {
            value: self.tolerance,
            comparison: Comparison::AtMost,
            source: "option `tolerance` of this check".to_owned(),
        }
    }

    fn listed(&self, title: &str, ids: impl Iterator<Item = u64>) -> Evidence {
        Evidence::Rows { title: title.to_owned(), ids: ids.take(self.listed.min(10_000)).collect() }
    }

    fn duplicates(&self, scan: &Scan, cx: &Context<'_>) -> Vec<Finding> {
        let groups = scan.duplicates();
        let n = scan.rows as u64;
        let surplus: u64 = groups.iter().map(|g| g.len() as u64 - 1).sum();
        let conflicting: Vec<&Vec<usize>> =
            groups.iter().filter(|g| g.iter().any(|&i| scan.labels[i] != scan.labels[g[0]])).collect();
        let in_conflict: u64 = conflicting.iter().map(|g| g.len() as u64).sum();
        let mut findings = Vec::new();
        if let Some(e) = proportion(surplus, n, cx.level) {
            let ids = groups.iter().flatten().map(|&i| scan.row_id(i));
            findings.push(
                cx.finding("duplicates", "Exact duplicates")
                    .estimate("duplicate_fraction", "fraction", &e)
                    .explain(format!(
                        "{surplus} of {n} rows repeat the features of an earlier row, in {} groups.",
                        groups.len()
                    ))
                    .evidence(self.listed("Rows that have a duplicate", ids))
                    .done(),
            );
        }
        if let Some(e) = proportion(in_conflict, n, cx.level) {
            let ids = conflicting.iter().flat_map(|g| g.iter()).map(|&i| scan.row_id(i));
            findings.push(
                cx.finding("conflicts", "Duplicates with conflicting labels")
                    .estimate("conflict_fraction", "fraction", &e)
                    .threshold(self.limit())
                    .explain(format!(
                        "{in_conflict} of {n} rows share their features with a row of another label, in {} groups. At most \
                         one label of each group can be right, or the features do not decide it.",
                        conflicting.len()
                    ))
                    .evidence(self.listed("Rows in conflict", ids))
                    .done(),
            );
        }
        findings
    }

    fn overlap(&self, scan: &Scan, train: &Scan, cx: &Context<'_>) -> Option<Finding> {
        let pairs = scan.overlap(train);
        let e = proportion(pairs.len() as u64, scan.rows as u64, cx.level)?;
        let ids = pairs.iter().map(|&(here, _)| scan.row_id(here));
        Some(
            cx.finding("overlap", "Rows that are also in the training data")
                .estimate("overlap_fraction", "fraction", &e)
                .threshold(self.limit())
                .explain(format!(
                    "{} of {} rows have exactly the features of a training row. What the network does on them says nothing \
                     about new data.",
                    pairs.len(),
                    scan.rows
                ))
                .caveat("rows that were changed slightly, such as recompressed pictures, are not found")
                .evidence(self.listed("Rows under audit that were trained on", ids))
                .done(),
        )
    }
}

fn rows(subject: &Subject, scan: &Scan, train: Option<&Scan>, cx: &Context<'_>) -> Finding {
    let data = subject.data();
    let mut text = format!("{} rows of shape {:?}.", scan.rows, data.feature_shape());
    if let Some(train) = train {
        text += &format!(" The training data have {} rows.", train.rows);
    }
    let draft = cx.finding("rows", "Amount of data").value("rows", "count", scan.rows as f64).n(scan.rows as u64);
    let bad = data.bad_row_count();
    if bad == 0 {
        return draft.explain(text).done();
    }
    let table = Table {
        title: "Rows that could not be read".to_owned(),
        columns: ["row", "reason"].map(String::from).to_vec(),
        rows: data.bad_rows().iter().take(100).map(|b| vec![b.row.into(), b.reason.clone().into()]).collect(),
    };
    draft
        .verdict(Verdict::Concern)
        .explain(format!("{text} {bad} more could not be read and were skipped."))
        .evidence(Evidence::Table(table))
        .done()
}

fn class_balance(subject: &Subject, scan: &Scan, cx: &Context<'_>) -> Option<Finding> {
    let netproof_data::LabelKind::Classes { count, .. } = subject.data().label_kind() else { return None };
    let mut counts = scan.class_counts.clone();
    counts.resize((*count).max(counts.len()), 0);
    let empty: Vec<String> = (0..counts.len()).filter(|&c| counts[c] == 0).map(|c| subject.class_name(c)).collect();
    let largest = counts.iter().max().copied().unwrap_or(0);
    let smallest = counts.iter().filter(|&&c| c > 0).min().copied().unwrap_or(0);
    let marks = counts.iter().enumerate().take(PLOTTED).map(|(c, &n)| Mark {
        y: n as f64,
        label: Some(subject.class_name(c)),
        ..Mark::default()
    });
    let plot = Plot {
        title: "Rows of each class".to_owned(),
        x: Axis::new("class"),
        y: Axis::new("rows"),
        plot: PlotKind::Bars,
        series: vec![Series { name: "rows".to_owned(), marks: marks.collect() }],
        reference: None,
    };
    let mut text = format!(
        "The largest class has {largest} rows, the smallest {smallest}; evenness (entropy over its maximum) is {:.4}.",
        balance(&counts).unwrap_or(0.0)
    );
    if !empty.is_empty() {
        let shown: Vec<_> = empty.iter().take(10).cloned().collect();
        text += &format!(" {} classes have no row: {}.", empty.len(), shown.join(", "));
    }
    let ratio = largest as f64 / smallest.max(1) as f64;
    let draft = cx
        .finding("class-balance", "Class balance")
        .value("imbalance_ratio", "ratio", ratio)
        .n(scan.rows as u64)
        .explain(text)
        .evidence(Evidence::Plot(plot));
    Some(if empty.is_empty() { draft } else { draft.verdict(Verdict::Concern) }.done())
}

fn missing(subject: &Subject, scan: &Scan, cx: &Context<'_>) -> Finding {
    let elements = scan.rows as u64 * subject.data().feature_shape().iter().product::<usize>() as u64;
    let wrong = scan.missing + scan.infinite;
    let draft = cx
        .finding("missing", "Missing values")
        .value("missing_fraction", "fraction", scan.missing as f64 / elements.max(1) as f64)
        .n(elements)
        .explain(format!("{} of {elements} feature values are missing, {} are infinite.", scan.missing, scan.infinite));
    if wrong == 0 {
        return draft.done();
    }
    let named = named_features(subject, scan, |m| m.nan_count() > 0);
    draft
        .verdict(Verdict::Concern)
        .caveat("a missing value goes into the network as not-a-number; most networks then have no answer")
        .evidence(Evidence::Table(Table {
            title: "Features with missing values".to_owned(),
            columns: ["feature", "missing"].map(String::from).to_vec(),
            rows: named.into_iter().map(|(name, m)| vec![name.into(), m.nan_count().into()]).collect(),
        }))
        .done()
}

type Named = Vec<(String, netproof_stats::descriptive::Moments)>;

fn named_features(
    subject: &Subject,
    scan: &Scan,
    keep: impl Fn(&netproof_stats::descriptive::Moments) -> bool,
) -> Named {
    let names = subject.data().feature_names().filter(|n| n.len() == scan.features.len());
    let name = |i: usize| names.map_or_else(|| format!("feature {i}"), |n| n[i].clone());
    scan.features.iter().enumerate().filter(|(_, m)| keep(m)).take(200).map(|(i, m)| (name(i), *m)).collect()
}

fn constant(subject: &Subject, scan: &Scan, cx: &Context<'_>) -> Finding {
    let is_constant = |m: &netproof_stats::descriptive::Moments| m.min() == m.max();
    let count = scan.features.iter().filter(|m| is_constant(m)).count();
    let draft = cx
        .finding("constant", "Constant features")
        .value("constant_features", "count", count as f64)
        .n(scan.features.len() as u64);
    if scan.rows < 2 || subject.data().feature_shape().len() != 1 {
        return draft.explain("Counted for tables; pixels of pictures are judged together.").done();
    }
    let names: Vec<_> = named_features(subject, scan, is_constant).into_iter().map(|(n, _)| n).collect();
    let text = match count {
        0 => format!("All {} features vary.", scan.features.len()),
        _ => format!("{count} of {} features have one value in all rows: {}.", scan.features.len(), names.join(", ")),
    };
    draft.explain(text).done()
}

/// Against the range of the training data, where they are given; pictures against 0 to 1.
fn out_of_range(subject: &Subject, scan: &Scan, train: Option<&Scan>, cx: &Context<'_>) -> Finding {
    let draft = cx.finding("range", "Values out of range");
    if let Some(train) = train.filter(|t| t.features.len() == scan.features.len()) {
        let beyond = |i: usize| {
            let (here, there) = (&scan.features[i], &train.features[i]);
            here.min() < there.min() || here.max() > there.max()
        };
        let names = subject.data().feature_names();
        let wrong: Vec<usize> = (0..scan.features.len()).filter(|&i| beyond(i)).collect();
        let rows = wrong.iter().take(200).map(|&i| {
            let (here, there) = (&scan.features[i], &train.features[i]);
            let name = names.and_then(|n| n.get(i).cloned()).unwrap_or_else(|| format!("feature {i}"));
            vec![name.into(), here.min().into(), here.max().into(), there.min().into(), there.max().into()]
        });
        let columns = ["feature", "lowest", "highest", "lowest in training", "highest in training"];
        let table = Table {
            title: "Features beyond their range in the training data".to_owned(),
            columns: columns.map(String::from).to_vec(),
            rows: rows.collect(),
        };
        let (count, of) = (wrong.len(), scan.features.len());
        return draft
            .value("out_of_range_features", "count", count as f64)
            .n(of as u64)
            .explain(format!("{count} of {of} features go beyond their range in the training data."))
            .evidence(Evidence::Table(table))
            .done();
    }
    let (low, high) = match scan.features.first().map(|m| (m.min(), m.max())) {
        Some((Some(low), Some(high))) if subject.data().feature_shape().len() == 3 => (low, high),
        _ => {
            let why = "The range of a table's columns is known only from training data (--train-data).";
            return draft.verdict(Verdict::NotApplicable).explain(why).done();
        }
    };
    let outside = low < 0.0 || high > 1.0;
    draft
        .value("largest_pixel", "pixel value", high)
        .n(scan.rows as u64)
        .verdict(if outside { Verdict::Concern } else { Verdict::Pass })
        .explain(format!(
            "Pixels lie between {low} and {high}; 0 to 1 is expected.{}",
            if outside { " See --scale." } else { "" }
        ))
        .done()
}
