//! A linear surrogate: one linear model of the scores fitted to the network, with its fidelity on rows that it was not fitted to.
//! For classes the scores are the logits less their mean, so that the model is a logistic one of what the network says. Hastie,
//! Tibshirani and Friedman, The Elements of Statistical Learning, 2009, section 3.4.1 (ridge regression). For tables. Checked: a
//! linear network is found again, weight by weight; a naive least-squares fit. Weak: coefficients describe the network only as far
//! as the fidelity says, and of columns that go together only their sum means something.

use netproof_core::{Card, CardKind, Challenge, OptionDoc, Table};
use netproof_stats::bootstrap::{Method, Options, bootstrap};
use netproof_stats::interval::proportion::proportion;
use netproof_stats::{Estimate, Level};
use serde::{Deserialize, Serialize};

use super::{Examiner, Inquiry, Insight, floats, table};
use crate::interpretability::coalitions::solve;
use crate::interpretability::{Answer, ExplainError, Explained, Question};

pub(crate) static CARD: Card = Card {
    id: "linear-surrogate",
    version: 1,
    kind: CardKind::Explanation,
    title: "Linear surrogate",
    challenge: Challenge::Interpretability,
    measures: "One linear model that imitates the network's scores: a coefficient per column, and how much of the scores and of the \
               decisions it gets right on unseen rows.",
    reference: "Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2009, section 3.4.1",
    needs: &[],
    options: &[OptionDoc {
        name: "ridge",
        default: "0.001",
        doc: "Penalty on the squares of the coefficients, as a fraction of the number of rows, above 0; columns that are sums of \
              others need some.",
    }],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LinearSurrogate {
    ridge: f64,
}

impl Default for LinearSurrogate {
    fn default() -> Self {
        Self { ridge: RIDGE }
    }
}

/// Penalty where none is asked for.
pub(crate) const RIDGE: f64 = 1e-3;

/// Most columns: the fit takes their square in memory.
const MOST_COLUMNS: usize = 2000;

/// A linear model of standardised columns.
#[derive(Debug, Clone)]
pub struct Linear {
    /// Mean and standard deviation of each column on the rows fitted.
    pub columns: Vec<(f64, f64)>,
    /// For each score its coefficient per column: by how much the score rises with one standard deviation of the column.
    pub coefficients: Vec<Vec<f64>>,
    /// For each score what it is at the mean of all columns.
    pub intercepts: Vec<f64>,
}

/// How well a linear model says what the network says.
#[derive(Debug, Clone)]
pub struct LinearFidelity {
    /// The model.
    pub model: Linear,
    /// Fraction of the variance of the scores on unseen rows that it explains, with its interval.
    pub r_squared: Option<Estimate>,
    /// Fraction of unseen rows on which both decide the same, where the network decides.
    pub agreement: Option<Estimate>,
    /// Fraction that would agree if always the network's most frequent answer were said.
    pub chance: f64,
}

impl Linear {
    /// Ridge regression of scores on standardised columns; the intercept is not penalised. `None` without rows, or where the
    /// penalty is too small to tell columns apart.
    /// # Shapes
    /// `rows`: one slice per row, all of one length; `scores`: one list per row, all of one length
    pub fn fit(rows: &[&[f32]], scores: &[&[f64]], ridge: f64) -> Option<Self> {
        let (n, width) = (rows.len(), rows.first()?.len());
        let count = n as f64;
        let columns: Vec<(f64, f64)> = (0..width)
            .map(|k| {
                let mean = rows.iter().map(|r| f64::from(r[k])).sum::<f64>() / count;
                let variance = rows.iter().map(|r| (f64::from(r[k]) - mean).powi(2)).sum::<f64>() / count;
                (mean, variance.sqrt())
            })
            .collect();
        // A column that never varies says nothing.
        let used: Vec<usize> = (0..width).filter(|&k| columns[k].1 > 1e-9 * columns[k].0.abs().max(1e-30)).collect();
        let m = used.len();
        let outputs = scores.first()?.len();
        let intercepts: Vec<f64> = (0..outputs).map(|o| scores.iter().map(|s| s[o]).sum::<f64>() / count).collect();
        let (mut a, mut b) = (vec![0.0; m * m], vec![vec![0.0; m]; outputs]);
        let mut z = vec![0.0; m];
        for (row, score) in rows.iter().zip(scores) {
            for (z, &k) in z.iter_mut().zip(&used) {
                *z = (f64::from(row[k]) - columns[k].0) / columns[k].1;
            }
            for i in 0..m {
                let own = z[i];
                a[i * m..=i * m + i].iter_mut().zip(&z).for_each(|(a, z)| *a += own * z);
            }
            for (o, b) in b.iter_mut().enumerate() {
                let y = score[o] - intercepts[o];
                b.iter_mut().zip(&z).for_each(|(b, z)| *b += z * y);
            }
        }
        for i in 0..m {
            a[i * m + i] += ridge * count;
            for j in 0..i {
                a[j * m + i] = a[i * m + j];
            }
        }
        let mut coefficients = vec![vec![0.0; width]; outputs];
        for (found, b) in coefficients.iter_mut().zip(&b) {
            let solved = if m == 0 { Vec::new() } else { solve(&a, b)? };
            used.iter().zip(solved).for_each(|(&k, c)| found[k] = c);
        }
        Some(Self { columns, coefficients, intercepts })
    }

    /// The scores of a row.
    pub fn predict(&self, row: &[f32]) -> Vec<f64> {
        let one = |(c, &intercept): (&Vec<f64>, &f64)| {
            let terms = c.iter().zip(row).zip(&self.columns).filter(|((c, _), _)| **c != 0.0);
            intercept + terms.map(|((c, &x), (mean, sd))| c * (f64::from(x) - mean) / sd).sum::<f64>()
        };
        self.coefficients.iter().zip(&self.intercepts).map(one).collect()
    }

    /// The model of one of the scores.
    pub fn only(&self, score: usize) -> Self {
        Self {
            columns: self.columns.clone(),
            coefficients: self.coefficients.get(score).cloned().into_iter().collect(),
            intercepts: self.intercepts.get(score).copied().into_iter().collect(),
        }
    }

    /// Columns by the size of their largest coefficient, at most `most`, with the coefficients of each score.
    pub fn table(&self, columns: &[String], scores: &[String], most: usize) -> Table {
        let largest = |k: usize| self.coefficients.iter().map(|c| c[k].abs()).fold(0.0, f64::max);
        let mut order: Vec<usize> = (0..self.columns.len()).collect();
        order.sort_by(|&i, &j| largest(j).total_cmp(&largest(i)).then(i.cmp(&j)));
        order.truncate(most);
        let mut t = table("Coefficients: rise of the score with one standard deviation of the column", &["column"]);
        t.columns.extend(scores.iter().cloned());
        t.rows = order
            .iter()
            .map(|&k| {
                let name = columns.get(k).cloned().unwrap_or_else(|| format!("element {k}"));
                let mut cells = vec![name.into()];
                cells.extend(self.coefficients.iter().map(|c| c[k].into()));
                cells
            })
            .collect();
        t
    }
}

impl LinearFidelity {
    /// Fits to one half of the rows and measures on the other; the halves are those of the tree.
    /// # Shapes
    /// `scores`: one list per row; `said`: one class per row, where the network decides
    pub fn measure(
        rows: &[&[f32]],
        scores: &[Vec<f64>],
        said: Option<&[usize]>,
        ridge: f64,
        seed: u64,
        level: Level,
    ) -> Option<Self> {
        let order = netproof_stats::rng::Rng::named(seed, "surrogate").permutation(rows.len());
        let (fitted, held) = order.split_at(rows.len() / 2);
        let own: Vec<&[f32]> = fitted.iter().map(|&i| rows[i]).collect();
        let own_scores: Vec<&[f64]> = fitted.iter().map(|&i| &scores[i][..]).collect();
        let model = Linear::fit(&own, &own_scores, ridge)?;
        let predicted: Vec<Vec<f64>> = held.iter().map(|&i| model.predict(rows[i])).collect();
        let outputs = model.intercepts.len();
        let explained = |of: &[usize]| {
            let (mut rest, mut all) = (0.0, 0.0);
            for o in 0..outputs {
                let mean = of.iter().map(|&k| scores[held[k]][o]).sum::<f64>() / of.len() as f64;
                for &k in of {
                    let y = scores[held[k]][o];
                    rest += (y - predicted[k][o]).powi(2);
                    all += (y - mean).powi(2);
                }
            }
            (all > 0.0).then(|| 1.0 - rest / all)
        };
        let options = Options { resamples: 500, seed, level, method: Method::Percentile };
        let r_squared = bootstrap(held.len(), &options, explained).ok()?.map(|b| b.estimate);
        let decides = |s: &[f64]| match s {
            [one] => usize::from(*one > 0.0),
            all => all.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(c, _)| c),
        };
        let (mut agreement, mut chance) = (None, 0.0);
        if let Some(said) = said {
            let agree = held.iter().zip(&predicted).filter(|(i, p)| decides(p) == said[**i]).count();
            agreement = proportion(agree as u64, held.len() as u64, level);
            chance = frequent(fitted, held, said);
        }
        Some(Self { model, r_squared, agreement, chance })
    }
}

/// On which fraction of unseen rows the network says what it says most often of the fitted ones.
pub(super) fn frequent(fitted: &[usize], held: &[usize], said: &[usize]) -> f64 {
    let mut counts = std::collections::BTreeMap::<usize, usize>::new();
    fitted.iter().for_each(|&i| *counts.entry(said[i]).or_default() += 1);
    let most = counts.iter().rev().max_by_key(|(_, n)| **n).map(|(c, _)| *c);
    held.iter().filter(|&&i| Some(said[i]) == most).count() as f64 / held.len().max(1) as f64
}

/// The scores that a linear model imitates, for each row of a question: one where there is one, else the logits less their
/// mean, since only differences of them matter.
/// # Errors
/// The network refuses the rows.
pub(crate) fn scores(net: &Explained<'_>, q: &Question) -> Result<Vec<Vec<f64>>, ExplainError> {
    let answers = net.answers(q, q.len(), |i, row| {
        row.copy_from_slice(q.row(i));
        i
    })?;
    let width = answers.len().checked_div(q.len()).unwrap_or(1).max(1);
    let centred = |row: &[f32]| {
        let mean = if width == 1 { 0.0 } else { row.iter().map(|&v| f64::from(v)).sum::<f64>() / width as f64 };
        row.iter().map(|&v| f64::from(v) - mean).collect()
    };
    Ok(answers.chunks(width).map(centred).collect())
}

impl Examiner for LinearSurrogate {
    fn examine(&self, net: &Explained<'_>, asked: &Inquiry) -> Result<Insight, ExplainError> {
        if !(self.ridge > 0.0 && self.ridge.is_finite()) {
            return Err(ExplainError::option("ridge", self.ridge, "above 0"));
        }
        if net.row_shape().len() != 1 || net.row_len() > MOST_COLUMNS {
            let what = format!("a linear surrogate is for tables [n, columns] with at most {MOST_COLUMNS} columns");
            return Err(ExplainError::not_applicable(what));
        }
        let all = scores(net, &asked.known_rows(0)?)?;
        let kept: Vec<usize> = (0..asked.len()).filter(|&i| all[i].iter().all(|v| v.is_finite())).collect();
        let rows: Vec<&[f32]> = kept.iter().map(|&i| asked.known(i)).collect();
        let scores: Vec<Vec<f64>> = kept.iter().map(|&i| all[i].clone()).collect();
        let floats32: Vec<Vec<f32>> = scores.iter().map(|s| s.iter().map(|&v| v as f32).collect()).collect();
        let said: Option<Vec<usize>> = match net.answer() {
            Answer::Value => None,
            _ => floats32.iter().map(|s| net.predicted(s)).collect(),
        };
        let found = LinearFidelity::measure(&rows, &scores, said.as_deref(), self.ridge, asked.q.seed, Level::P95);
        let Some(f) = found else {
            return Err(ExplainError::not_applicable("too few rows to fit a surrogate and to prove it"));
        };
        let columns: Vec<String> = (0..net.row_len()).map(|k| asked.column(k)).collect();
        let names: Vec<String> = match f.model.intercepts.len() {
            1 => vec!["score".to_owned()],
            k => (0..k).map(|c| format!("target {c}")).collect(),
        };
        let shown = |e: &Estimate| {
            let interval = e.interval.map_or(String::new(), |i| format!(" ({:.3} to {:.3})", i.low, i.high));
            format!("{:.3}{interval}", e.value)
        };
        let mut notes = Vec::new();
        if let Some(r) = &f.r_squared {
            notes.push(format!(
                "the linear model explains {} of the variance of the scores on {} unseen rows",
                shown(r),
                r.n
            ));
        }
        if let Some(a) = &f.agreement {
            notes.push(format!(
                "it decides as the network does on {} of them; always the most frequent answer: {:.3}",
                shown(a),
                f.chance
            ));
        }
        let value = |e: &Option<Estimate>| e.map_or(f64::NAN, |e| e.value);
        let model = &f.model;
        let shape = vec![model.intercepts.len(), net.row_len()];
        Ok(Insight {
            tables: vec![model.table(&columns, &names, 30)],
            arrays: vec![
                ("coefficients".to_owned(), floats(shape, model.coefficients.iter().flatten().copied())?),
                ("intercepts".to_owned(), floats(vec![model.intercepts.len()], model.intercepts.iter().copied())?),
                ("fidelity".to_owned(), floats(vec![3], [value(&f.r_squared), value(&f.agreement), f.chance])?),
            ],
            notes,
        })
    }
}

#[cfg(test)]
mod tests {
    use netproof_stats::rng::Rng;

    use super::*;

    fn rows(n: usize, width: usize) -> Vec<Vec<f32>> {
        let mut rng = Rng::new(3);
        (0..n).map(|_| (0..width).map(|k| (rng.normal() * (k + 1) as f64 + k as f64) as f32).collect()).collect()
    }

    #[test]
    fn a_linear_network_is_found_again() {
        let rows = rows(300, 3);
        let rows: Vec<&[f32]> = rows.iter().map(|r| &r[..]).collect();
        let score = |r: &&[f32]| vec![2.0 * f64::from(r[0]) - f64::from(r[1]) + 0.5, 0.25 * f64::from(r[2])];
        let scores: Vec<Vec<f64>> = rows.iter().map(score).collect();
        let said: Vec<usize> = scores.iter().map(|s| usize::from(s[1] > s[0])).collect();
        let f = LinearFidelity::measure(&rows, &scores, Some(&said), 1e-9, 0, Level::P95).unwrap();
        assert!((f.r_squared.unwrap().value - 1.0).abs() < 1e-6, "{:?}", f.r_squared);
        assert!((f.agreement.unwrap().value - 1.0).abs() < 1e-9);
        for (k, wanted) in [(0, 2.0), (1, -1.0), (2, 0.0)] {
            let per_unit = f.model.coefficients[0][k] / f.model.columns[k].1;
            assert!((per_unit - wanted).abs() < 1e-6, "{k}: {per_unit}");
        }
        let columns = ["a", "b", "c"].map(str::to_owned);
        let t = f.model.table(&columns, &["first".to_owned(), "second".to_owned()], 1);
        assert_eq!((t.rows.len(), t.columns.len()), (1, 3));
    }

    #[test]
    fn what_is_not_linear_is_said_to_be_badly_imitated() {
        // The product of two columns around zero has no linear part.
        let rows = rows(400, 2);
        let rows: Vec<&[f32]> = rows.iter().map(|r| &r[..]).collect();
        let scores: Vec<Vec<f64>> = rows.iter().map(|r| vec![f64::from(r[0]) * (f64::from(r[1]) - 1.0)]).collect();
        let said: Vec<usize> = scores.iter().map(|s| usize::from(s[0] > 0.0)).collect();
        let f = LinearFidelity::measure(&rows, &scores, Some(&said), RIDGE, 0, Level::P95).unwrap();
        assert!(f.r_squared.unwrap().value < 0.2, "{:?}", f.r_squared);
        assert!(f.agreement.unwrap().value < 0.65, "{:?}", f.agreement);
    }

    /// One-hot columns that sum to 1, a column that never varies, a naive fit by gradient descent.
    #[test]
    fn columns_that_go_together_and_constant_ones_are_fitted_as_by_a_naive_fit() {
        let rows: Vec<[f32; 4]> = (0..90)
            .map(|i| {
                [f32::from(u8::from(i % 3 == 0)), f32::from(u8::from(i % 3 == 1)), f32::from(u8::from(i % 3 == 2)), 7.0]
            })
            .collect();
        let rows: Vec<&[f32]> = rows.iter().map(|r| &r[..]).collect();
        let scores: Vec<Vec<f64>> = rows.iter().map(|r| vec![f64::from(r[0]) * 3.0 - f64::from(r[2])]).collect();
        let scores: Vec<&[f64]> = scores.iter().map(|s| &s[..]).collect();
        let found = Linear::fit(&rows, &scores, 0.1).unwrap();
        assert_eq!(found.coefficients[0][3], 0.0);
        let z = |r: &[f32], k: usize| (f64::from(r[k]) - found.columns[k].0) / found.columns[k].1;
        let mut w = [0.0; 3];
        for _ in 0..4000 {
            let mut g = [0.0; 3];
            for (r, s) in rows.iter().zip(&scores) {
                let miss = (0..3).map(|k| w[k] * z(r, k)).sum::<f64>() + found.intercepts[0] - s[0];
                (0..3).for_each(|k| g[k] += miss * z(r, k) / 90.0);
            }
            (0..3).for_each(|k| w[k] -= 0.3 * (g[k] + 0.1 * w[k]));
        }
        for k in 0..3 {
            assert!((w[k] - found.coefficients[0][k]).abs() < 1e-6, "{k}: {} {}", w[k], found.coefficients[0][k]);
        }
        assert!(Linear::fit(&[], &[], 0.1).is_none());
    }
}
