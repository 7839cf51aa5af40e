//! Counterfactuals for tables: the smallest changes that make the network say something else. Wachter, Mittelstadt and Russell,
//! Harvard JOLT 31(2), 2018, arXiv:1711.00399; diversity and sparsity as in Mothilal, Sharma and Tan, FAT* 2020,
//! arXiv:1905.07697. Needs no gradient. Checked: every answer is run through the network again and only those that hold are
//! given; fixed features never change.
//!
//! The search begins at known rows that the network answers otherwise (so that results look like data), takes back change by
//! change what the answer does not need, then moves numbers back towards the row by bisection. Distances are changes divided by
//! the median absolute deviation of the known rows. Whole numbers stay whole, categories move as one.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_stats::descriptive::quantile;
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Examiner, Inquiry, Insight, floats, said, table};
use crate::interpretability::{Answer, ExplainError, Explained, Features};

pub(crate) static CARD: Card = Card {
    id: "counterfactual",
    version: 1,
    kind: CardKind::Explanation,
    title: "Counterfactuals",
    challenge: Challenge::Interpretability,
    measures: "The smallest changes of a row of a table that make the network say something else; several that differ.",
    reference: "Wachter, Mittelstadt and Russell, Harvard JOLT 31(2), 2018, arXiv:1711.00399; Mothilal, Sharma and Tan, FAT* 2020",
    needs: &[Need::Classifier],
    options: &[
        OptionDoc { name: "fixed", default: "[]", doc: "Names of features that must not change." },
        OptionDoc { name: "desired", default: "-1", doc: "Class that the network shall say; -1: any other." },
        OptionDoc { name: "count", default: "3", doc: "Counterfactuals per row, at least 1." },
        OptionDoc { name: "starts", default: "30", doc: "Known rows that the search begins at, at least 1." },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Counterfactual {
    fixed: Vec<String>,
    desired: i64,
    count: usize,
    starts: usize,
}

impl Default for Counterfactual {
    fn default() -> Self {
        Self { fixed: Vec::new(), desired: -1, count: 3, starts: 30 }
    }
}

/// Halvings of a change.
const HALVINGS: usize = 10;

/// What is known of the features.
struct Space {
    features: Features,
    /// Elements of each feature.
    parts: Vec<Vec<usize>>,
    fixed: Vec<bool>,
    /// Whether a feature of one element holds whole numbers only.
    whole: Vec<bool>,
    /// What a change of a feature is divided by.
    scale: Vec<f64>,
}

impl Space {
    fn new(asked: &Inquiry, width: usize, fixed: &[String]) -> Result<Self, ExplainError> {
        let features = asked.features(width);
        if let Some(name) = fixed.iter().find(|n| !features.names.contains(n)) {
            return Err(ExplainError::not_applicable(format!(
                "fixed: there is no feature `{name}`; there are {}",
                features.names.join(", ")
            )));
        }
        let count = features.names.len();
        let mut parts = vec![Vec::new(); count];
        features.of.iter().enumerate().for_each(|(k, &f)| parts[f].push(k));
        let column = |k: usize| (0..asked.len()).map(move |i| f64::from(asked.known(i)[k]));
        let (mut whole, mut scale) = (vec![false; count], vec![1.0; count]);
        for (f, own) in parts.iter().enumerate() {
            let [k] = own[..] else { continue };
            whole[f] = column(k).all(|v| v.fract() == 0.0);
            let values: Vec<f64> = column(k).collect();
            let median = quantile(&values, 0.5).unwrap_or(0.0);
            let away: Vec<f64> = values.iter().map(|v| (v - median).abs()).collect();
            let deviation = quantile(&away, 0.5).unwrap_or(0.0);
            // Where over half of the rows agree the median says nothing, and the mean must do.
            let mean = away.iter().sum::<f64>() / away.len().max(1) as f64;
            scale[f] = if deviation > 0.0 {
                deviation
            } else if mean > 0.0 {
                mean
            } else {
                1.0
            };
        }
        let fixed = features.names.iter().map(|n| fixed.contains(n)).collect();
        Ok(Self { features, parts, fixed, whole, scale })
    }

    fn differs(&self, f: usize, a: &[f32], b: &[f32]) -> bool {
        self.parts[f].iter().any(|&k| a[k] != b[k])
    }

    fn distance(&self, a: &[f32], b: &[f32]) -> f64 {
        (0..self.parts.len())
            .map(|f| match self.parts[f][..] {
                [k] => (f64::from(a[k]) - f64::from(b[k])).abs() / self.scale[f],
                _ => f64::from(u8::from(self.differs(f, a, b))),
            })
            .sum()
    }
}

impl Examiner for Counterfactual {
    fn examine(&self, net: &Explained<'_>, asked: &Inquiry) -> Result<Insight, ExplainError> {
        if self.count == 0 || self.starts == 0 {
            return Err(ExplainError::option("count", self.count.min(self.starts), "at least 1, as starts"));
        }
        if net.row_shape().len() != 1 || net.answer() == Answer::Value {
            return Err(ExplainError::not_applicable("counterfactuals are for classifiers of tables [n, columns]"));
        }
        if self.desired >= net.targets() as i64 {
            return Err(ExplainError::option("desired", self.desired, "-1 or the number of a class"));
        }
        let width = net.row_len();
        let space = Space::new(asked, width, &self.fixed)?;
        let known = said(net, asked)?;
        let mut insight = Insight::default();
        let mut t = table(
            "Changes that make the network say something else",
            &["row", "number", "says", "distance", "changes"],
        );
        let mut all = vec![f32::NAN; asked.q.len() * self.count * width];
        let (mut distances, mut missing) = (Vec::new(), 0);
        for i in 0..asked.q.len() {
            let x = asked.q.row(i);
            let says = |rows: &[Vec<f32>]| -> Result<Vec<Option<usize>>, ExplainError> {
                let answers = net.answers(&asked.q, rows.len(), |k, row| {
                    row.copy_from_slice(&rows[k]);
                    i
                })?;
                let k = answers.len().checked_div(rows.len()).unwrap_or(1).max(1);
                Ok(answers.chunks(k).map(|row| net.predicted(row)).collect())
            };
            let own = says(&[x.to_vec()])?[0];
            let wanted = |class: Option<usize>| match (class, self.desired) {
                (None, _) => false,
                (Some(c), -1) => Some(c) != own,
                (Some(c), d) => c as i64 == d,
            };
            let found = self.search(&space, asked, x, &known, &says, &wanted)?;
            let chosen = diverse(&space, x, found, self.count);
            missing += usize::from(chosen.is_empty());
            let classes = says(&chosen)?;
            for (k, (row, class)) in chosen.iter().zip(classes).enumerate() {
                let changes: Vec<String> = (0..space.parts.len())
                    .filter(|&f| space.differs(f, x, row))
                    .map(|f| change(&space, asked, f, x, row))
                    .collect();
                let distance = space.distance(x, row);
                let class = class.map_or("".into(), |c| c.into());
                t.rows.push(vec![
                    asked.q.rows[i].into(),
                    (k + 1).into(),
                    class,
                    distance.into(),
                    changes.join("; ").into(),
                ]);
                let at = (i * self.count + k) * width;
                all[at..at + width].copy_from_slice(row);
                distances.push(distance);
            }
            distances.extend(std::iter::repeat_n(f64::NAN, self.count - chosen.len()));
        }
        let n = asked.q.len();
        insight.tables.push(t);
        insight.arrays.push(("counterfactuals".to_owned(), Tensor::f32(vec![n, self.count, width], all)?));
        insight.arrays.push(("distances".to_owned(), floats(vec![n, self.count], distances)?));
        insight
            .notes
            .push(format!("every change was run through the network again; none was found for {missing} of {n} rows"));
        Ok(insight)
    }
}

type Says<'a> = &'a dyn Fn(&[Vec<f32>]) -> Result<Vec<Option<usize>>, ExplainError>;

impl Counterfactual {
    /// Rows that the network answers as wanted, near `x`.
    fn search(
        &self,
        space: &Space,
        asked: &Inquiry,
        x: &[f32],
        known: &[Option<usize>],
        says: Says<'_>,
        wanted: &dyn Fn(Option<usize>) -> bool,
    ) -> Result<Vec<Vec<f32>>, ExplainError> {
        let mut order: Vec<usize> = (0..asked.len()).filter(|&j| wanted(known[j])).collect();
        order.sort_by(|&a, &b| {
            space.distance(x, asked.known(a)).total_cmp(&space.distance(x, asked.known(b))).then(a.cmp(&b))
        });
        let mut starts: Vec<Vec<f32>> = Vec::new();
        for &j in order.iter().take(4 * self.starts) {
            let mut row = asked.known(j).to_vec();
            for f in (0..space.parts.len()).filter(|&f| space.fixed[f]) {
                space.parts[f].iter().for_each(|&k| row[k] = x[k]);
            }
            starts.push(row);
        }
        let answers = if starts.is_empty() { Vec::new() } else { says(&starts)? };
        let mut found: Vec<Vec<f32>> =
            starts.into_iter().zip(answers).filter(|(_, a)| wanted(*a)).map(|(r, _)| r).take(self.starts).collect();
        // Take back whole features, the one that saves most first, as long as the answer holds.
        loop {
            let mut trials = Vec::new();
            for (s, row) in found.iter().enumerate() {
                for f in (0..space.parts.len()).filter(|&f| space.differs(f, row, x)) {
                    let mut back = row.clone();
                    space.parts[f].iter().for_each(|&k| back[k] = x[k]);
                    trials.push((s, back));
                }
            }
            let rows: Vec<Vec<f32>> = trials.iter().map(|(_, r)| r.clone()).collect();
            let answers = if rows.is_empty() { Vec::new() } else { says(&rows)? };
            let mut best: Vec<Option<(f64, Vec<f32>)>> = vec![None; found.len()];
            for ((s, row), answer) in trials.into_iter().zip(answers) {
                let d = space.distance(x, &row);
                if wanted(answer) && d > 0.0 && best[s].as_ref().is_none_or(|(b, _)| d < *b) {
                    best[s] = Some((d, row));
                }
            }
            let mut moved = false;
            for (row, better) in found.iter_mut().zip(best) {
                if let Some((_, better)) = better {
                    *row = better;
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        // Move numbers back as far as the answer holds.
        for f in 0..space.parts.len() {
            let [k] = space.parts[f][..] else { continue };
            let mut held = vec![1.0f32; found.len()];
            let mut lost = vec![0.0f32; found.len()];
            let at = |row: &[f32], share: f32| {
                let v = x[k] + share * (row[k] - x[k]);
                if space.whole[f] { if row[k] > x[k] { v.ceil() } else { v.floor() } } else { v }
            };
            for _ in 0..HALVINGS {
                let rows: Vec<Vec<f32>> = found
                    .iter()
                    .enumerate()
                    .map(|(s, row)| {
                        let mut trial = row.clone();
                        trial[k] = at(row, 0.5 * (held[s] + lost[s]));
                        trial
                    })
                    .collect();
                let answers = if rows.is_empty() { Vec::new() } else { says(&rows)? };
                for (s, answer) in answers.into_iter().enumerate() {
                    let middle = 0.5 * (held[s] + lost[s]);
                    if wanted(answer) { held[s] = middle } else { lost[s] = middle }
                }
            }
            for (row, &share) in found.iter_mut().zip(&held) {
                row[k] = at(row, share);
            }
        }
        let answers = if found.is_empty() { Vec::new() } else { says(&found)? };
        Ok(found.into_iter().zip(answers).filter(|(_, a)| wanted(*a)).map(|(r, _)| r).collect())
    }
}

/// The nearest one, then those that are near and far from what was chosen.
fn diverse(space: &Space, x: &[f32], mut found: Vec<Vec<f32>>, count: usize) -> Vec<Vec<f32>> {
    found.sort_by(|a, b| space.distance(x, a).total_cmp(&space.distance(x, b)));
    found.dedup();
    let mut chosen: Vec<Vec<f32>> = Vec::new();
    while chosen.len() < count && !found.is_empty() {
        let worth = |row: &Vec<f32>| {
            let apart = chosen.iter().map(|c| space.distance(c, row)).fold(f64::INFINITY, f64::min);
            let near = space.distance(x, row);
            if apart.is_infinite() { -near } else { apart - near }
        };
        let best = (0..found.len()).max_by(|&a, &b| worth(&found[a]).total_cmp(&worth(&found[b])).then(b.cmp(&a)));
        let Some(best) = best else { break };
        chosen.push(found.remove(best));
    }
    chosen
}

fn change(space: &Space, asked: &Inquiry, f: usize, x: &[f32], row: &[f32]) -> String {
    let name = &space.features.names[f];
    match space.parts[f][..] {
        [k] => format!("{name} {} → {}", x[k], row[k]),
        _ => {
            // The part that is there, by the rest of its column's name.
            let part = |r: &[f32]| match space.parts[f].iter().find(|&&k| r[k] == 1.0) {
                Some(&k) => {
                    let column = asked.column(k);
                    column.strip_prefix(name.as_str()).and_then(|c| c.get(1..)).unwrap_or(&column).to_owned()
                }
                None => "none".to_owned(),
            };
            format!("{name} {} → {}", part(x), part(row))
        }
    }
}
