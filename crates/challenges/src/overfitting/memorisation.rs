//! Which training rows the network knows by heart: it answers them as they are labelled, and networks that never saw them
//! do not. Feldman and Zhang, NeurIPS 2020, arXiv:2008.03703, equation 1, with one network on the side that saw the row
//! and one per repeat on the side that did not. Which labels look wrong: Northcutt, Jiang and Chuang, JAIR 70, 2021,
//! arXiv:1911.00068, section 3 (the confident joint, without pruning).
//!
//! Checked against: 1,000 MNIST images with 20 % wrong labels (`cargo xtask bars --only wrong-labels`).
//! Weak when: the recipe gives worse networks than the one under audit, which then looks as if it memorised.

use netproof_audit::{AuditError, Check, Classified, Context, Findings, Part, Subject};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Comparison, Evidence, Finding, Mark, Need, OptionDoc, Plot, PlotKind, Series,
    Table, Threshold, Verdict,
};
use netproof_stats::interval::proportion::proportion;
use netproof_stats::probability::softmax;
use netproof_train::{CrossValidation, Folds};
use serde::{Deserialize, Serialize};

use super::remedies;
use crate::shared::{outputs, percent};

pub(crate) static CARD: Card = Card {
    id: "memorisation",
    version: 1,
    kind: CardKind::Check,
    title: "Memorised rows",
    challenge: Challenge::Overfitting,
    measures: "Training rows that the network answers as they are labelled while networks that were trained without them do \
               not, by cross-validation; and labels that these networks find wrong.",
    reference: "Feldman and Zhang, NeurIPS 2020, arXiv:2008.03703, equation 1; Northcutt, Jiang and Chuang, JAIR 70, 2021, \
                arXiv:1911.00068, section 3",
    needs: &[Need::Labels, Need::Classifier, Need::TrainData, Need::Training],
    options: &[
        OptionDoc { name: "folds", default: "5", doc: "Parts of the cross-validation, 2 or more." },
        OptionDoc { name: "repeats", default: "1", doc: "How often it is done with rows dealt anew, 1 or more." },
        OptionDoc {
            name: "tolerance",
            default: "0.05",
            doc: "Largest part of memorised rows, as a fraction, that is no concern.",
        },
    ],
};

/// Rows that are listed.
const LISTED: usize = 1000;
/// Rows in the table.
const SHOWN: usize = 30;
/// Bins of the histogram, over margins from -1 to 1.
const BINS: usize = 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Memorisation {
    folds: usize,
    repeats: usize,
    tolerance: f64,
}

impl Default for Memorisation {
    fn default() -> Self {
        Self { folds: 5, repeats: 1, tolerance: 0.05 }
    }
}

/// One training row, from both sides.
#[derive(Debug, Clone, Copy)]
struct Row {
    position: usize,
    label: usize,
    /// Probability of the label minus that of the best other class, by the network under audit and by those that never
    /// saw the row.
    seen: f64,
    unseen: f64,
    /// What the networks that never saw it say.
    says: usize,
    memorised: bool,
    suspect: bool,
}

impl Check for Memorisation {
    fn retrains(&self) -> bool {
        true
    }

    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let folds = Folds { count: self.folds, repeats: self.repeats, grouped_by: None };
        let validated = cx.cross_validate(subject, &folds)?;
        let answers = outputs(subject, Part::Train, cx)?;
        let Some(c) = answers.classified() else { return Ok(Findings::default()) };
        let unseen = out_of_fold(&validated, c)?;
        let rows = judge(c, &unseen);
        let draft = cx.finding("rows", "Memorised training rows");
        if rows.is_empty() {
            return Ok(
                vec![draft.verdict(Verdict::Inconclusive).explain("No training row has an answer.").done()].into()
            );
        }
        let scan = subject.scan(Part::Train, cx)?;
        let id = |position: usize| scan.as_ref().map_or(position as u64, |s| s.row_id(position));
        Ok(vec![self.memorised(&rows, &id, subject, cx)?, self.suspects(&rows, &id, subject, cx)?].into())
    }
}

/// Probabilities `[rows, classes]` of the networks that never saw a row, averaged over repeats.
fn out_of_fold(validated: &CrossValidation, c: &Classified) -> Result<Vec<f64>, AuditError> {
    let (k, width) = (c.classes, validated.width);
    let mut sum = vec![0.0; c.rows() * k];
    for answers in &validated.out_of_fold {
        let wide: Vec<f32> =
            if width == 1 { answers.iter().flat_map(|&z| [0.0, z]).collect() } else { answers.clone() };
        let classes = width.max(2);
        let p = softmax(&wide, classes)?;
        for (own, more) in sum.chunks_mut(k).zip(p.chunks(classes)) {
            own.iter_mut().zip(more).for_each(|(a, b)| *a += b);
        }
    }
    let repeats = validated.out_of_fold.len().max(1) as f64;
    sum.iter_mut().for_each(|v| *v /= repeats);
    Ok(sum)
}

/// Every row of the sample that is defined, judged.
fn judge(c: &Classified, unseen: &[f64]) -> Vec<Row> {
    let k = c.classes;
    let Ok(seen) = softmax(&c.sample.logits, k) else { return Vec::new() };
    // Northcutt et al., equation 1: the mean of what is given to a class by the rows that bear its label.
    let mut means = vec![(0.0, 0u64); k];
    for (&position, &label) in c.sample.rows.iter().zip(&c.sample.labels) {
        let p = unseen[position * k + label];
        if p.is_finite() {
            means[label] = (means[label].0 + p, means[label].1 + 1);
        }
    }
    let thresholds: Vec<f64> = means.iter().map(|(s, n)| if *n > 0 { s / *n as f64 } else { f64::INFINITY }).collect();
    let mut rows = Vec::new();
    for (i, (&position, &label)) in c.sample.rows.iter().zip(&c.sample.labels).enumerate() {
        let (own, out) = (&seen[i * k..(i + 1) * k], &unseen[position * k..(position + 1) * k]);
        if out.iter().chain(own).any(|p| !p.is_finite()) {
            continue;
        }
        let says = best(out, |_| true).unwrap_or(label);
        let confident = best(out, |class| out[class] >= thresholds[class]);
        rows.push(Row {
            position,
            label,
            seen: margin(own, label),
            unseen: margin(out, label),
            says,
            memorised: best(own, |_| true) == Some(label) && says != label,
            suspect: confident.is_some_and(|class| class != label),
        });
    }
    rows
}

/// The first of the largest among those that count.
fn best(p: &[f64], counts: impl Fn(usize) -> bool) -> Option<usize> {
    let mut found: Option<usize> = None;
    for class in (0..p.len()).filter(|&c| counts(c)) {
        if found.is_none_or(|b| p[class] > p[b]) {
            found = Some(class);
        }
    }
    found
}

fn margin(p: &[f64], label: usize) -> f64 {
    let other = p.iter().enumerate().filter(|(c, _)| *c != label).map(|(_, v)| *v).fold(0.0, f64::max);
    p[label] - other
}

impl Memorisation {
    fn memorised(
        &self,
        rows: &[Row],
        id: &dyn Fn(usize) -> u64,
        subject: &Subject,
        cx: &Context<'_>,
    ) -> Result<Finding, AuditError> {
        let mut flagged: Vec<&Row> = rows.iter().filter(|r| r.memorised).collect();
        // Most memorised first: the difference of the margins.
        flagged.sort_by(|a, b| (b.seen - b.unseen).total_cmp(&(a.seen - a.unseen)).then(a.position.cmp(&b.position)));
        let Some(share) = proportion(flagged.len() as u64, rows.len() as u64, cx.level) else {
            return Err(AuditError::Mismatch { message: "no training row has an answer".to_owned() });
        };
        let right = rows.iter().filter(|r| r.seen > 0.0).count();
        let mut draft = cx
            .finding("rows", "Memorised training rows")
            .estimate("memorised_fraction", "fraction", &share)
            .threshold(Threshold {
                value: self.tolerance,
                comparison: Comparison::AtMost,
                source: "option `tolerance` of this check".to_owned(),
            })
            .explain(format!(
                "Of {} training rows, {right} are answered as labelled; {} of these are answered otherwise by networks that \
                 were trained without them. {}",
                rows.len(),
                flagged.len(),
                cx.training(subject)?.describe()
            ))
            .caveats((rows.len() < subject.part(Part::Train).map_or(0, netproof_data::Dataset::len)).then(|| {
                format!("from {} evenly spaced rows or those that have an answer", rows.len())
            }))
            .evidence(Evidence::Plot(margins(rows)))
            .evidence(Evidence::Table(listed(&flagged, id, subject)))
            .evidence(Evidence::Rows {
                title: "Memorised rows, the clearest first".to_owned(),
                ids: flagged.iter().take(LISTED).map(|r| id(r.position)).collect(),
            });
        let certain = share.interval.is_some_and(|i| i.low > self.tolerance);
        if share.value > self.tolerance && !certain {
            draft = draft.verdict(Verdict::Inconclusive).caveat("too few rows: the interval reaches the tolerance");
        }
        for remedy in remedies::IDS {
            draft = draft.remedy(remedy);
        }
        Ok(draft.done())
    }

    fn suspects(
        &self,
        rows: &[Row],
        id: &dyn Fn(usize) -> u64,
        subject: &Subject,
        cx: &Context<'_>,
    ) -> Result<Finding, AuditError> {
        let mut suspects: Vec<&Row> = rows.iter().filter(|r| r.suspect).collect();
        suspects.sort_by(|a, b| a.unseen.total_cmp(&b.unseen).then(a.position.cmp(&b.position)));
        let share = proportion(suspects.len() as u64, rows.len() as u64, cx.level);
        let draft = cx.finding("labels", "Training labels that look wrong");
        let Some(share) = share else { return Ok(draft.verdict(Verdict::Inconclusive).done()) };
        let both = suspects.iter().filter(|r| r.memorised).count();
        Ok(draft
            .estimate("suspect_label_fraction", "fraction", &share)
            .threshold(Threshold {
                value: self.tolerance,
                comparison: Comparison::AtMost,
                source: "option `tolerance` of this check".to_owned(),
            })
            .explain(format!(
                "{} labels ({}) are contradicted by networks that were trained without their rows and are as sure of another \
                 class as they are of rows of that class; {both} of them are memorised.",
                suspects.len(),
                percent(share.value)
            ))
            .caveat("hard rows with right labels are among them; a person should look at the first ones")
            .evidence(Evidence::Table(listed(&suspects, id, subject)))
            .evidence(Evidence::Rows {
                title: "Rows with labels that look wrong, the clearest first".to_owned(),
                ids: suspects.iter().take(LISTED).map(|r| id(r.position)).collect(),
            })
            .done())
    }
}

fn listed(rows: &[&Row], id: &dyn Fn(usize) -> u64, subject: &Subject) -> Table {
    let cells = rows.iter().take(SHOWN).map(|r| {
        vec![
            id(r.position).into(),
            subject.class_name(r.label).into(),
            subject.class_name(r.says).into(),
            r.seen.into(),
            r.unseen.into(),
        ]
    });
    let columns = ["row", "label", "others say", "margin where seen", "margin where unseen"];
    Table {
        title: format!("The clearest {} of {}", rows.len().min(SHOWN), rows.len()),
        columns: columns.map(String::from).to_vec(),
        rows: cells.collect(),
    }
}

/// How margins are spread, by the network under audit and by those that never saw the rows.
fn margins(rows: &[Row]) -> Plot {
    let count = |of: fn(&Row) -> f64| {
        let mut bins = [0u64; BINS];
        for r in rows {
            let at = ((of(r) + 1.0) * 0.5 * BINS as f64) as usize;
            bins[at.min(BINS - 1)] += 1;
        }
        let mark = |(i, n): (usize, &u64)| Mark {
            x: Some((i as f64 + 0.5) / BINS as f64 * 2.0 - 1.0),
            y: *n as f64 / rows.len().max(1) as f64,
            n: Some(*n),
            ..Mark::default()
        };
        bins.iter().enumerate().map(mark).collect()
    };
    Plot {
        title: "Margins of the labels: how much surer of the label than of any other class".to_owned(),
        x: Axis { label: "margin".to_owned(), range: Some((-1.0, 1.0)), log: false },
        y: Axis::new("fraction of rows"),
        plot: PlotKind::Lines,
        series: vec![
            Series { name: "network under audit, which saw the rows".to_owned(), marks: count(|r| r.seen) },
            Series { name: "networks that did not".to_owned(), marks: count(|r| r.unseen) },
        ],
        reference: None,
    }
}
