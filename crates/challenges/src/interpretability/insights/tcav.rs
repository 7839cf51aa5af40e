//! TCAV: how often a concept, given by examples, raises the score of a class. Kim et al., ICML 2018, arXiv:1711.11279, sections 3.2
//! to 3.5. Checked on a network whose class is a concept. The direction is the normal of a ridge regression between examples of
//! the concept and random rows, fitted anew to several random halves; the same with two random sets gives what chance does, and
//! Welch's t-test compares the two. Weak: a concept that a linear direction does not separate (see the accuracy) says nothing.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_stats::special::student_t_cdf;
use serde::{Deserialize, Serialize};

use super::{Examiner, Inquiry, Insight, feature_layer, features_of, floats, table};
use crate::interpretability::coalitions::solve;
use crate::interpretability::{ExplainError, Explained, Question};

pub(crate) static CARD: Card = Card {
    id: "tcav",
    version: 1,
    kind: CardKind::Explanation,
    title: "TCAV",
    challenge: Challenge::Interpretability,
    measures: "On which fraction of rows a concept, given by example rows, raises the score of the target, against random concepts.",
    reference: "Kim, Wattenberg, Gilmer, Cai, Wexler, Viégas and Sayres, ICML 2018, arXiv:1711.11279, sections 3.2 to 3.5",
    needs: &[Need::InputGradient],
    options: &[
        OptionDoc {
            name: "layer",
            default: "\"\"",
            doc: "Name of the value in which concepts are directions; empty: what goes into the last product but one, since behind \
                  the last one the score is linear and every row answers alike.",
        },
        OptionDoc { name: "runs", default: "20", doc: "Random sets that the concept is compared with, at least 3." },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tcav {
    layer: String,
    runs: usize,
}

impl Default for Tcav {
    fn default() -> Self {
        Self { layer: String::new(), runs: 20 }
    }
}

impl Examiner for Tcav {
    fn examine(&self, net: &Explained<'_>, asked: &Inquiry) -> Result<Insight, ExplainError> {
        if self.runs < 3 {
            return Err(ExplainError::option("runs", self.runs, "at least 3"));
        }
        let Some(concept) = &asked.concept else {
            return Err(ExplainError::not_applicable(
                "TCAV needs rows that show the concept (--concept FILE.npz with `concept`)",
            ));
        };
        if concept.shape().get(1..) != Some(net.row_shape()) || concept.rows() < 10 {
            return Err(ExplainError::Shape {
                what: "concept".to_owned(),
                shape: concept.shape().to_vec(),
                wanted: format!("at least 10 rows of {:?}", net.row_shape()),
            });
        }
        let layer = feature_layer(net, &self.layer, 1)?;
        let shown = features_of(net, &Question::new(concept.clone(), vec![0; concept.rows()])?, &layer)?;
        let known = features_of(net, &asked.known_rows(0)?, &layer)?;
        let size = shown.len().min(known.len() / 2);
        if size < 10 {
            return Err(ExplainError::not_applicable("TCAV needs at least 20 known rows to draw random sets from"));
        }
        let mut gradients: Vec<Vec<f64>> = Vec::new();
        net.probe(&asked.q, std::slice::from_ref(&layer), |_, found| {
            let Some((_, Some(g))) = found.first() else { return Err(net.cut_off()) };
            let width = g.row_len().max(1);
            gradients.extend(
                g.as_f32().unwrap_or_default().chunks(width).map(|r| r.iter().map(|&v| f64::from(v)).collect()),
            );
            Ok(())
        })?;
        let score = |direction: &[f64]| {
            let up =
                gradients.iter().filter(|g| g.iter().zip(direction).map(|(a, b)| a * b).sum::<f64>() > 0.0).count();
            up as f64 / gradients.len().max(1) as f64
        };
        let (mut concepts, mut chance, mut accuracy) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..self.runs {
            let mut rng = netproof_stats::rng::Rng::stream(asked.q.shared_rng("tcav").next_u64(), run as u64);
            let order = rng.permutation(known.len());
            let (first, second) = (&order[..size], &order[size..2 * size]);
            let of = |list: &[usize]| list.iter().map(|&i| &known[i]).collect::<Vec<_>>();
            let own: Vec<&Vec<f64>> = rng.permutation(shown.len()).into_iter().take(size).map(|i| &shown[i]).collect();
            let Some(cav) = direction(&own, &of(first)) else { continue };
            accuracy.push(cav.1);
            concepts.push(score(&cav.0));
            if let Some(random) = direction(&of(first), &of(second)) {
                chance.push(score(&random.0));
            }
        }
        let p = welch(&concepts, &chance);
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
        let mut t =
            table(format!("TCAV at `{layer}`"), &["", "mean fraction of rows that the direction raises", "runs"]);
        t.rows = vec![
            vec!["the concept".into(), mean(&concepts).into(), concepts.len().into()],
            vec!["random against random".into(), mean(&chance).into(), chance.len().into()],
        ];
        let significant = p.is_some_and(|p| p < 0.05);
        let notes = vec![
            format!(
                "p = {}; the concept {}",
                p.map_or("undefined".to_owned(), |p| format!("{p:.2e}")),
                if significant {
                    "matters beyond chance for these rows and targets"
                } else {
                    "is not told from chance"
                }
            ),
            format!(
                "directions tell the concept from random rows that were held out with accuracy {:.3} on average",
                mean(&accuracy)
            ),
        ];
        Ok(Insight {
            tables: vec![t],
            arrays: vec![
                ("tcav".to_owned(), floats(vec![concepts.len()], concepts)?),
                ("tcav_random".to_owned(), floats(vec![chance.len()], chance)?),
                ("p_value".to_owned(), floats(vec![1], [p.unwrap_or(f64::NAN)])?),
            ],
            notes,
        })
    }
}

/// The direction from the second set to the first, and the accuracy on the third of both that was held out. Ridge regression in
/// its dual form: a system of as many unknowns as rows.
fn direction(yes: &[&Vec<f64>], no: &[&Vec<f64>]) -> Option<(Vec<f64>, f64)> {
    let cut = |n: usize| n - n / 3;
    let (ny, nn) = (cut(yes.len()), cut(no.len()));
    let fitted: Vec<(&Vec<f64>, f64)> =
        yes[..ny].iter().map(|&r| (r, 1.0)).chain(no[..nn].iter().map(|&r| (r, -1.0))).collect();
    let width = fitted.first()?.0.len();
    let n = fitted.len();
    let mut mean = vec![0.0; width];
    fitted.iter().for_each(|(r, _)| mean.iter_mut().zip(r.iter()).for_each(|(m, v)| *m += v / n as f64));
    let centred: Vec<Vec<f64>> =
        fitted.iter().map(|(r, _)| r.iter().zip(&mean).map(|(v, m)| v - m).collect()).collect();
    let balance = fitted.iter().map(|(_, y)| y).sum::<f64>() / n as f64;
    let mut gram = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = centred[i].iter().zip(&centred[j]).map(|(a, b)| a * b).sum();
            (gram[i * n + j], gram[j * n + i]) = (dot, dot);
        }
    }
    let ridge = 0.01 * (0..n).map(|i| gram[i * n + i]).sum::<f64>() / n as f64;
    (0..n).for_each(|i| gram[i * n + i] += ridge.max(1e-12));
    let y: Vec<f64> = fitted.iter().map(|(_, y)| y - balance).collect();
    let alpha = solve(&gram, &y)?;
    let mut w = vec![0.0; width];
    for (a, r) in alpha.iter().zip(&centred) {
        w.iter_mut().zip(r).for_each(|(w, v)| *w += a * v);
    }
    let says = |r: &Vec<f64>| r.iter().zip(&mean).zip(&w).map(|((v, m), w)| (v - m) * w).sum::<f64>() + balance > 0.0;
    let right = yes[ny..].iter().filter(|r| says(r)).count() + no[nn..].iter().filter(|r| !says(r)).count();
    let held = (yes.len() - ny + no.len() - nn).max(1);
    Some((w, right as f64 / held as f64))
}

/// Two-sided p of Welch's t-test; `None` where a side has fewer than two values or nothing varies.
fn welch(a: &[f64], b: &[f64]) -> Option<f64> {
    let moments = |v: &[f64]| {
        let n = v.len() as f64;
        let mean = v.iter().sum::<f64>() / n;
        (mean, v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) / n)
    };
    if a.len() < 2 || b.len() < 2 {
        return None;
    }
    let ((ma, va), (mb, vb)) = (moments(a), moments(b));
    let spread = va + vb;
    if spread <= 0.0 {
        return (ma != mb).then_some(0.0);
    }
    let df = spread * spread / (va * va / (a.len() - 1) as f64 + vb * vb / (b.len() - 1) as f64);
    Some(2.0 * student_t_cdf(-((ma - mb) / spread.sqrt()).abs(), df))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_points_from_one_set_to_the_other() {
        let yes: Vec<Vec<f64>> = (0..12).map(|i| vec![3.0 + f64::from(i % 3) * 0.1, f64::from(i % 4)]).collect();
        let no: Vec<Vec<f64>> = (0..12).map(|i| vec![-1.0 - f64::from(i % 3) * 0.1, f64::from((i + 2) % 4)]).collect();
        let (w, accuracy) = direction(&yes.iter().collect::<Vec<_>>(), &no.iter().collect::<Vec<_>>()).unwrap();
        assert!(w[0] > 0.0 && w[1].abs() < 0.2 * w[0] && accuracy == 1.0, "{w:?} {accuracy}");
    }

    #[test]
    fn the_t_test_is_welchs() {
        // scipy.stats.ttest_ind([1, 2, 3, 4], [3, 4, 5, 7, 9], equal_var=False): p = 0.04618
        let p = welch(&[1.0, 2.0, 3.0, 4.0], &[3.0, 4.0, 5.0, 7.0, 9.0]).unwrap();
        assert!((p - 0.04618).abs() < 5e-4, "{p}");
        assert!(welch(&[1.0], &[1.0, 2.0]).is_none() && welch(&[1.0; 3], &[1.0; 3]).is_none());
    }
}
