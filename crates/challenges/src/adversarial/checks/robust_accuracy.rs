//! Robust accuracy over several sizes of change, between what is proved and what was broken.
//! The cascade's numbers; see `protocols/cascade`. Checked against: AutoAttack's recorded masks, through the cascade.

use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Evidence, Finding, Gallery, Mark, Need, Norm, OptionDoc, Plot, PlotKind, Series,
    Table, Verdict,
};
use netproof_stats::Level;
use netproof_stats::interval::proportion::wilson;
use serde::{Deserialize, Serialize};

use super::gallery::{SHOWN, gallery};
use super::{Target, affordable, threat};
use crate::adversarial::AttackError;
use crate::adversarial::harness::{Fate, Harness, RobustAccuracy};
use crate::adversarial::protocol::Protocol as _;
use crate::adversarial::protocols::cascade::Cascade;
use crate::certifiers;
use crate::shared::percent;

pub(crate) static CARD: Card = Card {
    id: "robust-accuracy",
    version: 1,
    kind: CardKind::Check,
    title: "Robust accuracy",
    challenge: Challenge::Adversarial,
    measures: "How many rows stay right when every feature may be changed a little on purpose, between what is proved and what \
               no attack of the cascade broke, over several sizes of change.",
    reference: "Croce and Hein, ICML 2020, arXiv:2003.01690; Clopper and Pearson 1934, Biometrika 26 (intervals)",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc { name: "norm", default: "\"linf\"", doc: "How the size of a change is measured: linf, l2 or l1." },
        OptionDoc {
            name: "epsilons",
            default: "[0.01, 0.03, 0.1]",
            doc: "Sizes of change, smallest first, in units of the features; 1 to 20 of them.",
        },
        OptionDoc { name: "bounds", default: "[0.0, 1.0]", doc: "Least and largest value of a feature." },
        OptionDoc { name: "rows", default: "50", doc: "Rows that are attacked, the first ones, at least 1." },
        OptionDoc {
            name: "most_gmacs",
            default: "2000.0",
            doc: "Work in thousand million multiply-accumulates that may be spent; fewer rows are attacked where they cost \
                  more.",
        },
    ],
};

/// Forward passes that the cascade takes for a row that it cannot break, about.
const PASSES: f64 = 900.0;
/// Fewest rows that a number is worth.
const FEWEST: usize = 20;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RobustAccuracyCheck {
    norm: Norm,
    epsilons: Vec<f64>,
    bounds: Vec<f64>,
    rows: usize,
    most_gmacs: f64,
}

impl Default for RobustAccuracyCheck {
    fn default() -> Self {
        Self { norm: Norm::Linf, epsilons: vec![0.01, 0.03, 0.1], bounds: vec![0.0, 1.0], rows: 50, most_gmacs: 2000.0 }
    }
}

/// The result at one epsilon.
struct Point {
    epsilon: f64,
    accuracy: RobustAccuracy,
    /// Label and fate of each row.
    fates: Vec<(usize, Fate)>,
    broken_by: Vec<(String, u64, f64)>,
    gallery: Option<Gallery>,
    notes: Vec<String>,
}

impl Check for RobustAccuracyCheck {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        if !(1..=20).contains(&self.epsilons.len()) || self.epsilons.windows(2).any(|w| w[0] >= w[1]) {
            let value = self.epsilons.len() as f64;
            return Err(AttackError::Value { name: "epsilons", value, allowed: "1 to 20 rising numbers" }.into());
        }
        let wanted = self.rows.max(1).min(subject.data().len());
        let rows = affordable(subject, wanted, PASSES * self.epsilons.len() as f64, self.most_gmacs);
        if rows < wanted.min(FEWEST) {
            let f = cx.finding("work", "Robust accuracy").verdict(Verdict::Inconclusive);
            return Ok(vec![f.explain(format!(
                "Attacking {wanted} rows of this network takes more work than this check may spend: the {} thousand million \
                 multiply-accumulates of `most_gmacs` are enough for {rows}. Raise --set robust-accuracy.most_gmacs, or run \
                 `netproof attack` by itself.",
                self.most_gmacs
            )).done()].into());
        }
        let target = Target::load(subject, rows)?;
        let first = threat(self.norm, self.epsilons[0], &self.bounds)?;
        if !target.is_within(first.bounds) {
            let f = cx.finding("bounds", "Robust accuracy").verdict(Verdict::NotApplicable);
            return Ok(vec![
                f.explain(format!(
                    "The features are not within {:?}, so it is not known what an attacker may do. Give --set \
                 robust-accuracy.bounds=[LOW,HIGH] and epsilons in the same units.",
                    self.bounds
                ))
                .done(),
            ]
            .into());
        }
        let mut points = Vec::new();
        for (at, &epsilon) in self.epsilons.iter().enumerate() {
            cx.check_time()?;
            let mut harness = target.harness(first.with_epsilon(epsilon), cx)?;
            Cascade::default().run(&mut harness, &certifiers())?;
            cx.check_time()?;
            let mut point = Point::of(&harness, epsilon, cx.level);
            // The smallest change that breaks enough rows to be shown says most.
            let is_last = at + 1 == self.epsilons.len();
            let enough = point.fates.iter().filter(|f| matches!(f.1, Fate::Broken(_))).count() >= SHOWN;
            if (enough || is_last) && points.iter().all(|p: &Point| p.gallery.is_none()) {
                point.gallery = gallery(&harness, subject, cx)?;
            }
            points.push(point);
        }
        Ok(self.findings(subject, &points, (rows, wanted), cx).into())
    }
}

impl Point {
    fn of(harness: &Harness<'_, '_>, epsilon: f64, level: Level) -> Self {
        let fates = harness.labels().iter().zip(harness.outcomes()).map(|(&l, o)| (l, o.fate)).collect();
        let n = harness.len().max(1) as f64;
        let stage = |s: &crate::adversarial::harness::Stage| (s.id.clone(), s.broken, s.standing as f64 / n);
        Self {
            epsilon,
            accuracy: harness.accuracy(level),
            fates,
            broken_by: harness.stages().iter().map(stage).collect(),
            gallery: None,
            notes: harness.notes().to_vec(),
        }
    }
}

impl RobustAccuracyCheck {
    fn findings(
        &self,
        subject: &Subject,
        points: &[Point],
        (rows, wanted): (usize, usize),
        cx: &Context<'_>,
    ) -> Vec<Finding> {
        let Some(largest) = points.last() else { return Vec::new() };
        let a = &largest.accuracy;
        let title = "Robust accuracy";
        let mut notes: Vec<String> = points.iter().flat_map(|p| p.notes.iter().cloned()).collect();
        notes.dedup();
        notes.sort();
        notes.dedup();
        let few = (rows < wanted)
            .then(|| format!("only {rows} of {wanted} rows were attacked, as `most_gmacs` allows no more"));
        let shown = points.iter().find_map(|p| p.gallery.clone());
        let mut draft =
            cx.finding("attacked", title)
                .estimate("robust_accuracy", "fraction", &a.attacked)
                .explain(format!(
                    "{} of {} rows stay right under every change of at most {} {} that was tried; {} without a change. This is \
                     an upper bound: a stronger attack may find more. {} are proved.",
                    (a.attacked.value * a.attacked.n as f64).round(),
                    a.attacked.n,
                    self.norm,
                    largest.epsilon,
                    percent(a.clean.value),
                    percent(a.certified.value)
                ))
                .caveats(few)
                .caveats(notes)
                .evidence(Evidence::Plot(self.curve(points)))
                .evidence(Evidence::Table(self.table(points)))
                .evidence(Evidence::Table(stages(largest)));
        if let Some(gallery) = shown {
            draft = draft.evidence(gallery);
        }
        let mut findings = vec![draft.done()];
        findings.extend(self.per_class(subject, largest, cx));
        findings
    }

    fn curve(&self, points: &[Point]) -> Plot {
        let mark = |epsilon: f64, e: &netproof_stats::Estimate| Mark {
            x: Some(epsilon),
            y: e.value,
            low: e.interval.map(|i| i.low),
            high: e.interval.map(|i| i.high),
            n: Some(e.n),
            label: None,
        };
        let clean = points.first().map(|p| mark(0.0, &p.accuracy.clean));
        let line = |name: &str, of: &dyn Fn(&RobustAccuracy) -> netproof_stats::Estimate| Series {
            name: name.to_owned(),
            marks: clean.iter().cloned().chain(points.iter().map(|p| mark(p.epsilon, &of(&p.accuracy)))).collect(),
        };
        let mut series = vec![line("not broken", &|a| a.attacked)];
        if points.iter().any(|p| p.accuracy.certified.value > 0.0) {
            series.push(line("proved", &|a| a.certified));
        }
        Plot {
            title: "Accuracy under attack".to_owned(),
            x: Axis::new(format!("largest change ({})", self.norm)),
            y: Axis::unit("fraction of rows right"),
            plot: PlotKind::Lines,
            series,
            reference: None,
        }
    }

    fn table(&self, points: &[Point]) -> Table {
        let columns = ["largest change", "proved", "not broken", "interval low", "interval high", "rows"];
        let row = |p: &Point| {
            let i = p.accuracy.interval;
            vec![
                p.epsilon.into(),
                p.accuracy.certified.value.into(),
                p.accuracy.attacked.value.into(),
                i.map(|i| i.low).into(),
                i.map(|i| i.high).into(),
                p.accuracy.attacked.n.into(),
            ]
        };
        Table {
            title: "Robust accuracy by size of change".to_owned(),
            columns: columns.map(String::from).to_vec(),
            rows: points.iter().map(row).collect(),
        }
    }

    /// Robust accuracy of each class at the largest epsilon.
    fn per_class(&self, subject: &Subject, point: &Point, cx: &Context<'_>) -> Option<Finding> {
        let classes = point.fates.iter().map(|f| f.0 + 1).max()?;
        let counts = |class: usize| {
            let own = point.fates.iter().filter(|f| f.0 == class);
            let right = |f: &&(usize, Fate)| !matches!(f.1, Fate::Wrong | Fate::Undefined);
            (
                own.clone().count() as u64,
                own.clone().filter(right).count() as u64,
                own.filter(|f| f.1.is_robust()).count() as u64,
            )
        };
        let all: Vec<(usize, (u64, u64, u64))> = (0..classes).map(|c| (c, counts(c))).filter(|c| c.1.0 > 0).collect();
        let rate = |c: &(usize, (u64, u64, u64))| c.1.2 as f64 / c.1.0 as f64;
        let worst = all.iter().min_by(|a, b| rate(a).total_cmp(&rate(b)))?;
        let shown = all.iter().take(30);
        let marks = shown.map(|c| {
            let i = wilson(c.1.2, c.1.0, cx.level);
            Mark {
                x: None,
                y: rate(c),
                low: i.map(|i| i.low),
                high: i.map(|i| i.high),
                n: Some(c.1.0),
                label: Some(subject.class_name(c.0)),
            }
        });
        let plot = Plot {
            title: format!("Robust accuracy by class at {} {}", self.norm, point.epsilon),
            x: Axis::new("class"),
            y: Axis::unit("fraction of rows right under attack"),
            plot: PlotKind::Bars,
            series: vec![Series { name: "not broken".to_owned(), marks: marks.collect() }],
            reference: Some(point.accuracy.attacked.value),
        };
        let interval = wilson(worst.1.2, worst.1.0, cx.level);
        Some(
            cx.finding("worst-class", "Robust accuracy of the weakest class")
                .value("worst_class_robust_accuracy", "fraction", rate(worst))
                .n(worst.1.0)
                .interval(interval)
                .explain(format!(
                    "Class {} is the easiest to attack at {} {}: {} of its {} rows stay right, {} without a change.",
                    subject.class_name(worst.0),
                    self.norm,
                    point.epsilon,
                    worst.1.2,
                    worst.1.0,
                    worst.1.1
                ))
                .caveat("the class was chosen because it is the weakest here, so on other rows it will do better on average")
                .evidence(Evidence::Plot(plot))
                .done(),
        )
    }
}

fn stages(p: &Point) -> Table {
    Table {
        title: format!("What broke the rows at {}", p.epsilon),
        columns: ["attack", "rows broken", "robust accuracy after it"].map(String::from).to_vec(),
        rows: p
            .broken_by
            .iter()
            .map(|(id, broken, after)| vec![id.clone().into(), (*broken).into(), (*after).into()])
            .collect(),
    }
}
