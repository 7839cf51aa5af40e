//! Prototypes and criticisms: the known rows that together stand for the data, and those that they stand for worst. MMD-critic:
//! Kim, Khanna and Koyejo, NeurIPS 2016, algorithms 1 and 2, with a Gaussian kernel whose width is the median distance. Checked
//! against exhaustive search on few rows. Criticisms are chosen by the witness function with the log-determinant regulariser left
//! out; the next one must not be a neighbour (kernel over 0.5) of one that was chosen.

use netproof_core::{Card, CardKind, Challenge, OptionDoc};
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Examiner, Inquiry, Insight, LAYER, feature_layer, features_of, floats, squared_distance, table};
use crate::interpretability::{ExplainError, Explained};

pub(crate) static CARD: Card = Card {
    id: "prototypes",
    version: 1,
    kind: CardKind::Explanation,
    title: "Prototypes and criticisms",
    challenge: Challenge::Interpretability,
    measures: "Known rows that together stand for the data as the network sees them, and rows that they stand for worst.",
    reference: "Kim, Khanna and Koyejo, NeurIPS 2016 (MMD-critic), algorithms 1 and 2",
    needs: &[],
    options: &[
        LAYER,
        OptionDoc { name: "prototypes", default: "10", doc: "How many prototypes, at least 1." },
        OptionDoc { name: "criticisms", default: "5", doc: "How many criticisms." },
    ],
};

/// Most rows: the kernel has an entry per pair.
const MOST: usize = 3000;

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Prototypes {
    layer: String,
    prototypes: usize,
    criticisms: usize,
}

impl Default for Prototypes {
    fn default() -> Self {
        Self { layer: String::new(), prototypes: 10, criticisms: 5 }
    }
}

impl Examiner for Prototypes {
    fn examine(&self, net: &Explained<'_>, asked: &Inquiry) -> Result<Insight, ExplainError> {
        if self.prototypes == 0 {
            return Err(ExplainError::option("prototypes", 0, "at least 1"));
        }
        if asked.len() > MOST {
            return Err(ExplainError::not_applicable(format!(
                "{} rows are known, at most {MOST} are compared",
                asked.len()
            )));
        }
        let layer = feature_layer(net, &self.layer, 0)?;
        let points = features_of(net, &asked.known_rows(0)?, &layer)?;
        let kernel = Kernel::new(&points);
        let chosen = kernel.prototypes(self.prototypes);
        let critics = kernel.criticisms(&chosen, self.criticisms);
        let mut t = table(format!("Prototypes and criticisms by `{layer}`"), &["row", "kind", "label"]);
        for (kind, list) in [("prototype", &chosen), ("criticism", &critics)] {
            for &i in list {
                let label = asked.labels.as_ref().map_or("".into(), |l| l[i].into());
                t.rows.push(vec![asked.rows[i].into(), kind.into(), label]);
            }
        }
        let ids = |list: &[usize]| Tensor::i64(vec![list.len()], list.iter().map(|&i| asked.rows[i] as i64).collect());
        Ok(Insight {
            tables: vec![t],
            arrays: vec![
                ("prototypes".to_owned(), ids(&chosen)?),
                ("criticisms".to_owned(), ids(&critics)?),
                ("mmd_squared".to_owned(), floats(vec![1], [kernel.mmd(&chosen)])?),
            ],
            notes: vec![format!("{} rows compared by `{layer}`", points.len())],
        })
    }
}

struct Kernel {
    n: usize,
    k: Vec<f64>,
    /// Mean of each row.
    mean: Vec<f64>,
}

impl Kernel {
    fn new(points: &[Vec<f64>]) -> Self {
        let n = points.len();
        let mut squares = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..i {
                let d = squared_distance(&points[i], &points[j]);
                (squares[i * n + j], squares[j * n + i]) = (d, d);
            }
        }
        let mut apart: Vec<f64> =
            (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| squares[i * n + j]).collect();
        apart.sort_by(f64::total_cmp);
        let width = apart.get(apart.len() / 2).copied().filter(|d| *d > 0.0).unwrap_or(1.0);
        let k: Vec<f64> = squares.iter().map(|d| (-d / width).exp()).collect();
        let mean = k.chunks(n.max(1)).map(|r| r.iter().sum::<f64>() / n as f64).collect();
        Self { n, k, mean }
    }

    /// Squared maximum mean discrepancy between all rows and the chosen ones, but for a constant: equation 2.
    fn mmd(&self, chosen: &[usize]) -> f64 {
        let m = chosen.len().max(1) as f64;
        let all = self.mean.iter().sum::<f64>() / self.n as f64;
        let cross: f64 = chosen.iter().map(|&i| self.mean[i]).sum::<f64>() / m;
        let own: f64 =
            chosen.iter().flat_map(|&i| chosen.iter().map(move |&j| self.k[i * self.n + j])).sum::<f64>() / (m * m);
        all - 2.0 * cross + own
    }

    fn prototypes(&self, count: usize) -> Vec<usize> {
        let mut chosen: Vec<usize> = Vec::new();
        // Sum of the kernel to what is chosen, so that a candidate costs one look.
        let mut near = vec![0.0; self.n];
        let (mut cross, mut own) = (0.0, 0.0);
        while chosen.len() < count.min(self.n) {
            let m = (chosen.len() + 1) as f64;
            let gain = |i: usize| {
                let own = own + 2.0 * near[i] + self.k[i * self.n + i];
                2.0 * (cross + self.mean[i]) / m - own / (m * m)
            };
            let free = (0..self.n).filter(|i| !chosen.contains(i));
            let Some(best) = free.max_by(|&a, &b| gain(a).total_cmp(&gain(b)).then(b.cmp(&a))) else { break };
            own += 2.0 * near[best] + self.k[best * self.n + best];
            cross += self.mean[best];
            (0..self.n).for_each(|i| near[i] += self.k[best * self.n + i]);
            chosen.push(best);
        }
        chosen
    }

    fn criticisms(&self, prototypes: &[usize], count: usize) -> Vec<usize> {
        let m = prototypes.len().max(1) as f64;
        let witness =
            |i: usize| (self.mean[i] - prototypes.iter().map(|&p| self.k[i * self.n + p]).sum::<f64>() / m).abs();
        let mut order: Vec<usize> = (0..self.n).filter(|i| !prototypes.contains(i)).collect();
        order.sort_by(|&a, &b| witness(b).total_cmp(&witness(a)).then(a.cmp(&b)));
        let mut chosen: Vec<usize> = Vec::new();
        for i in order {
            if chosen.len() < count && chosen.iter().all(|&c| self.k[i * self.n + c] <= 0.5) {
                chosen.push(i);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prototypes_stand_for_the_clusters_and_the_outlier_is_criticised() {
        let mut points: Vec<Vec<f64>> = Vec::new();
        for (centre, count) in [(0.0, 8), (10.0, 8)] {
            points.extend((0..count).map(|i| vec![centre + 0.1 * f64::from(i)]));
        }
        points.push(vec![5.0]);
        let kernel = Kernel::new(&points);
        let two = kernel.prototypes(2);
        assert!(two.iter().any(|&i| i < 8) && two.iter().any(|&i| (8..16).contains(&i)), "{two:?}");
        assert_eq!(kernel.criticisms(&two, 1), [16]);
        // The first prototype is the best single one.
        let best = (0..17).min_by(|&a, &b| kernel.mmd(&[a]).total_cmp(&kernel.mmd(&[b]))).unwrap();
        assert!((kernel.mmd(&two[..1]) - kernel.mmd(&[best])).abs() < 1e-12);
        assert!(kernel.mmd(&two) < kernel.mmd(&two[..1]));
    }
}
