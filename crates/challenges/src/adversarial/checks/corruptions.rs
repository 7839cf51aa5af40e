//! Accuracy on pictures that cameras, weather and file formats have spoilt, over 15 kinds and five severities.
//! Hendrycks and Dietterich, ICLR 2019, arXiv:1903.12261, section 4; the pictures are made here, see `corruptions`.
//! Differs from the paper: the mean corruption error is that of this network alone, not divided by AlexNet's.

use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{
    Axis, Card, CardKind, Cell, Challenge, Evidence, Mark, Need, OptionDoc, Plot, PlotKind, Series, Table, Verdict,
};
use netproof_stats::interval::mean::mean;
use netproof_stats::interval::proportion::wilson;
use netproof_stats::rng::Rng;
use serde::{Deserialize, Serialize};

use super::{Target, affordable};
use crate::adversarial::AttackError;
use crate::adversarial::corruptions::{CORRUPTIONS, Picture, SEVERITIES, corrupted};
use crate::adversarial::loss::is_right;
use crate::shared::percent;

pub(crate) static CARD: Card = Card {
    id: "corruptions",
    version: 1,
    kind: CardKind::Check,
    title: "Common corruptions",
    challenge: Challenge::Adversarial,
    measures: "How many pictures stay right under noise, blur, weather and compression: 15 kinds in five severities, made here \
               after the published definitions (\"-C-like\": not the published files).",
    reference: "Hendrycks and Dietterich, ICLR 2019, arXiv:1903.12261, sections 3 and 4",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc { name: "rows", default: "200", doc: "Pictures that are corrupted, the first ones, at least 1." },
        OptionDoc {
            name: "most_gmacs",
            default: "2000.0",
            doc: "Work in thousand million multiply-accumulates that may be spent; fewer pictures are taken where they cost more.",
        },
    ],
};

/// Fewest pictures that a number is worth.
const FEWEST: usize = 20;
/// Least side of a picture that the kinds make sense for.
const SMALLEST: usize = 8;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CorruptionsCheck {
    rows: usize,
    most_gmacs: f64,
}

impl Default for CorruptionsCheck {
    fn default() -> Self {
        Self { rows: 200, most_gmacs: 2000.0 }
    }
}

/// Right answers by kind, severity and picture.
struct Counts {
    /// `[kinds][severities]`
    right: Vec<[u64; SEVERITIES]>,
    /// Fraction of its corruptions under which a picture is right.
    share: Vec<f64>,
    clean: u64,
    n: u64,
}

impl Check for CorruptionsCheck {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let wanted = self.rows.max(1).min(subject.data().len());
        let passes = (CORRUPTIONS.len() * SEVERITIES + 1) as f64;
        let rows = affordable(subject, wanted, passes, self.most_gmacs);
        let refuse = |verdict, why: String| {
            let f = cx.finding("applicable", CARD.title).verdict(verdict);
            Ok(vec![f.explain(why).done()].into())
        };
        if rows < wanted.min(FEWEST) {
            let why = format!(
                "Running this network {passes} times on {wanted} pictures takes more work than `most_gmacs` = {} allows, which is \
                 enough for {rows}. Raise --set corruptions.most_gmacs.",
                self.most_gmacs
            );
            return refuse(Verdict::Inconclusive, why);
        }
        let target = Target::load(subject, rows)?;
        let &[channels @ (1 | 3), height, width] = target.victim.row() else {
            return refuse(Verdict::NotApplicable, "The rows are no pictures of one or three channels.".to_owned());
        };
        if height < SMALLEST || width < SMALLEST {
            let why = format!("Pictures of {height}×{width} are too small; a side must be at least {SMALLEST}.");
            return refuse(Verdict::NotApplicable, why);
        }
        if !target.is_within([0.0, 1.0]) {
            let why =
                "The pixels are not within 0 and 1; put the normalisation into the network with --mean and --std.";
            return refuse(Verdict::NotApplicable, why.to_owned());
        }
        let counts = count(&target, [channels, height, width], cx)?;
        Ok(self.findings(&counts, (rows, wanted), cx).into())
    }
}

fn count(target: &Target<'_>, [channels, height, width]: [usize; 3], cx: &Context<'_>) -> Result<Counts, AuditError> {
    let pixels = target.x.as_f32().unwrap_or_default();
    let len = channels * height * width;
    let pictures: Vec<Picture> =
        pixels.chunks_exact(len).map(|p| Picture { channels, height, width, pixels: p.to_vec() }).collect();
    let k = target.victim.classes();
    let right = |x: &[f32]| -> Result<Vec<bool>, AttackError> {
        let z = target.victim.logits(x)?;
        Ok(z.chunks_exact(k).zip(&target.labels).map(|(z, &l)| l < k && is_right(z, l)).collect())
    };
    let clean = right(pixels)?.iter().filter(|r| **r).count() as u64;
    let mut counts = Counts { right: Vec::new(), share: vec![0.0; pictures.len()], clean, n: pictures.len() as u64 };
    let of = 1.0 / (CORRUPTIONS.len() * SEVERITIES) as f64;
    cx.progress.start("corrupting pictures", (CORRUPTIONS.len() * SEVERITIES) as u64);
    for kind in CORRUPTIONS {
        let mut by_severity = [0; SEVERITIES];
        for (severity, sum) in by_severity.iter_mut().enumerate() {
            cx.check_time()?;
            let mut x = Vec::with_capacity(pixels.len());
            for (p, id) in pictures.iter().zip(&target.row_ids) {
                let seed = Rng::stream(cx.seed, id + 1).next_u64();
                x.extend_from_slice(&corrupted(p, kind, severity, seed).pixels);
            }
            for (share, right) in counts.share.iter_mut().zip(right(&x)?) {
                *sum += u64::from(right);
                *share += if right { of } else { 0.0 };
            }
            cx.progress.advance(1);
        }
        counts.right.push(by_severity);
    }
    cx.progress.finish();
    Ok(counts)
}

impl CorruptionsCheck {
    fn findings(&self, c: &Counts, (rows, wanted): (usize, usize), cx: &Context<'_>) -> Vec<netproof_core::Finding> {
        let few = (rows < wanted)
            .then(|| format!("only {rows} of {wanted} pictures were taken, as `most_gmacs` allows no more"));
        let n = c.n as f64;
        let clean = c.clean as f64 / n;
        let kind_rate = |i: usize| c.right[i].iter().sum::<u64>() as f64 / (n * SEVERITIES as f64);
        let worst = (0..CORRUPTIONS.len()).min_by(|&a, &b| kind_rate(a).total_cmp(&kind_rate(b))).unwrap_or(0);
        let mut draft = cx.finding("accuracy", "Accuracy on corrupted pictures");
        // Corruptions of one picture go together, so that pictures are what is counted.
        draft = match mean(&c.share, cx.level) {
            Some(e) => draft.estimate("corrupted_accuracy", "fraction", &e),
            None => draft.verdict(Verdict::Inconclusive),
        };
        let average = c.share.iter().sum::<f64>() / n;
        let finding = draft
            .explain(format!(
                "{} of {} pictures are right as they are, and {} of them on average over {} kinds of corruption and {SEVERITIES} \
                 severities (mean corruption error {}). Worst is {}: {}.",
                c.clean,
                c.n,
                percent(average),
                CORRUPTIONS.len(),
                percent(1.0 - average),
                CORRUPTIONS[worst].id,
                percent(kind_rate(worst))
            ))
            .caveats(few)
            .caveat("the corruptions are made by Netproof after the published definitions, so the number is not comparable with \
                     those on the published files to the last point")
            .evidence(Evidence::Plot(curves(c)))
            .evidence(Evidence::Table(table(c, clean)))
            .done();
        let interval = wilson(c.right[worst][SEVERITIES - 1], c.n, cx.level);
        let hardest = cx
            .finding("worst", "Worst corruption")
            .value("worst_corruption_accuracy", "fraction", c.right[worst][SEVERITIES - 1] as f64 / n)
            .n(c.n)
            .interval(interval)
            .explain(format!(
                "Under {} at the highest severity {} of {} pictures are right, {} without it.",
                CORRUPTIONS[worst].id,
                c.right[worst][SEVERITIES - 1],
                c.n,
                c.clean
            ))
            .done();
        vec![finding, hardest]
    }
}

/// Accuracy over severity, a line per family.
fn curves(c: &Counts) -> Plot {
    let mut families: Vec<&str> = CORRUPTIONS.iter().map(|k| k.family).collect();
    families.dedup();
    let n = c.n as f64;
    let line = |family: &&str| {
        let own: Vec<usize> = (0..CORRUPTIONS.len()).filter(|&i| CORRUPTIONS[i].family == *family).collect();
        let at = |s: usize| own.iter().map(|&i| c.right[i][s]).sum::<u64>() as f64 / (n * own.len() as f64);
        let mut marks = vec![Mark { x: Some(0.0), y: c.clean as f64 / n, ..Mark::default() }];
        marks.extend((0..SEVERITIES).map(|s| Mark { x: Some(s as f64 + 1.0), y: at(s), ..Mark::default() }));
        Series { name: (*family).to_owned(), marks }
    };
    Plot {
        title: "Accuracy by severity".to_owned(),
        x: Axis::new("severity (0: as it is)"),
        y: Axis::unit("fraction of pictures right"),
        plot: PlotKind::Lines,
        series: families.iter().map(line).collect(),
        reference: None,
    }
}

fn table(c: &Counts, clean: f64) -> Table {
    let n = c.n as f64;
    let mut columns = vec!["corruption".to_owned()];
    columns.extend((1..=SEVERITIES).map(|s| format!("severity {s}")));
    columns.extend(["mean".to_owned(), "lost against clean".to_owned()]);
    let row = |(kind, right): (&crate::adversarial::corruptions::Corruption, &[u64; SEVERITIES])| -> Vec<Cell> {
        let rates = right.map(|r| r as f64 / n);
        let mean = rates.iter().sum::<f64>() / SEVERITIES as f64;
        let mut cells = vec![Cell::from(kind.id)];
        cells.extend(rates.map(Cell::from));
        cells.extend([Cell::from(mean), Cell::from(clean - mean)]);
        cells
    };
    Table {
        title: "Fraction of pictures right".to_owned(),
        columns,
        rows: CORRUPTIONS.iter().zip(&c.right).map(row).collect(),
    }
}
