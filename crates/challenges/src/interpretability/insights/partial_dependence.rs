//! Partial dependence and individual conditional expectation: the score as one feature takes each of its values, on average and
//! row by row. Friedman, Annals of Statistics 29(5), 2001, equation 52; Goldstein et al., JCGS 24(1), 2015, arXiv:1309.6392.
//! Checked against a closed form on a linear network. Weak where features depend on one another; curves that cross tell of
//! interactions that the average hides.

use netproof_core::{Card, CardKind, Challenge, OptionDoc};
use netproof_stats::descriptive::quantile;
use serde::{Deserialize, Serialize};

use super::{Examiner, Inquiry, Insight, floats, table};
use crate::interpretability::{ExplainError, Explained};

pub(crate) static CARD: Card = Card {
    id: "partial-dependence",
    version: 1,
    kind: CardKind::Explanation,
    title: "Partial dependence and ICE",
    challenge: Challenge::Interpretability,
    measures: "The score of the target as one feature of a table takes each of its values, on average and row by row.",
    reference: "Friedman, Annals of Statistics 29(5), 2001, equation 52; Goldstein, Kapelner, Bleich and Pitkin, JCGS 24(1), 2015",
    needs: &[],
    options: &[
        OptionDoc { name: "features", default: "[]", doc: "Names of features; empty: all." },
        OptionDoc { name: "grid", default: "20", doc: "Values per feature, at its quantiles, at least 2." },
        OptionDoc { name: "rows", default: "100", doc: "Rows that get a curve, at least 1." },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PartialDependence {
    features: Vec<String>,
    grid: usize,
    rows: usize,
}

impl Default for PartialDependence {
    fn default() -> Self {
        Self { features: Vec::new(), grid: 20, rows: 100 }
    }
}

impl Examiner for PartialDependence {
    fn examine(&self, net: &Explained<'_>, asked: &Inquiry) -> Result<Insight, ExplainError> {
        if self.grid < 2 {
            return Err(ExplainError::option("grid", self.grid, "at least 2"));
        }
        if self.rows == 0 {
            return Err(ExplainError::option("rows", 0, "at least 1"));
        }
        if net.row_shape().len() != 1 {
            return Err(ExplainError::not_applicable("partial dependence is for tables [n, columns]"));
        }
        let features = asked.features(net.row_len());
        let chosen: Vec<usize> = if self.features.is_empty() {
            (0..features.names.len()).collect()
        } else {
            let find = |name: &String| features.names.iter().position(|n| n == name);
            let unknown = |name: &String| {
                ExplainError::not_applicable(format!(
                    "there is no feature `{name}`; there are {}",
                    features.names.join(", ")
                ))
            };
            self.features.iter().map(|n| find(n).ok_or_else(|| unknown(n))).collect::<Result<_, _>>()?
        };
        let target = asked.q.targets.first().copied().unwrap_or(0);
        let q = asked.known_rows(target)?;
        let step = asked.len().div_ceil(self.rows).max(1);
        let rows: Vec<usize> = (0..asked.len()).step_by(step).collect();
        let mut insight = Insight::default();
        let mut t = table(
            format!("Score of target {target}: range of the average curve over each feature's values"),
            &["feature", "lowest", "highest", "range", "largest range of one row"],
        );
        for &f in &chosen {
            let parts: Vec<usize> = (0..net.row_len()).filter(|&k| features.of[k] == f).collect();
            // A number takes its quantiles; a category each of its values, one-hot.
            let values: Vec<Vec<f32>> = match parts[..] {
                [one] => {
                    let own: Vec<f64> = (0..asked.len()).map(|i| f64::from(asked.known(i)[one])).collect();
                    let at = |k: usize| quantile(&own, k as f64 / (self.grid - 1) as f64);
                    let mut all: Vec<f32> = (0..self.grid).filter_map(at).map(|v| v as f32).collect();
                    all.dedup();
                    all.into_iter().map(|v| vec![v]).collect()
                }
                _ => {
                    (0..parts.len()).map(|p| (0..parts.len()).map(|k| f32::from(u8::from(k == p))).collect()).collect()
                }
            };
            let g = values.len();
            let scores = net.scores(&q, rows.len() * g, |i, row| {
                let of = rows[i / g];
                row.copy_from_slice(asked.known(of));
                parts.iter().zip(&values[i % g]).for_each(|(&k, &v)| row[k] = v);
                of
            })?;
            let mean: Vec<f64> =
                (0..g).map(|k| scores.iter().skip(k).step_by(g).sum::<f64>() / rows.len().max(1) as f64).collect();
            let range = |v: &[f64]| {
                let (low, high) = v.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
                (low, high)
            };
            let (low, high) = range(&mean);
            let widest = scores.chunks(g.max(1)).map(range).map(|(l, h)| h - l).fold(0.0, f64::max);
            let name = &features.names[f];
            t.rows.push(vec![name.clone().into(), low.into(), high.into(), (high - low).into(), widest.into()]);
            let grid = values.iter().enumerate().map(|(k, v)| if v.len() == 1 { f64::from(v[0]) } else { k as f64 });
            insight.arrays.push((format!("grid:{name}"), floats(vec![g], grid)?));
            insight.arrays.push((format!("partial_dependence:{name}"), floats(vec![g], mean.iter().copied())?));
            insight.arrays.push((format!("ice:{name}"), floats(vec![rows.len(), g], scores)?));
        }
        t.rows.sort_by(|a, b| number(&b[3]).total_cmp(&number(&a[3])));
        insight.tables.push(t);
        insight.notes.push(format!("{} rows of {}; one target for all: {target}", rows.len(), asked.len()));
        Ok(insight)
    }
}

fn number(cell: &netproof_core::Cell) -> f64 {
    if let netproof_core::Cell::Number(v) = cell { *v } else { f64::NEG_INFINITY }
}
