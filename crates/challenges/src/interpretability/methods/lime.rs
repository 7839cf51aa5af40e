//! LIME: a linear model of the score over which features are there, fitted about the row. Ribeiro, Singh and Guestrin, KDD
//! 2016, arXiv:1602.04938, algorithm 1. Checked against closed forms on additive networks.
//!
//! As in the authors' code for images: features are there or not with even chances, rows are weighted by
//! sqrt(exp(−d² / width²)) with d the cosine distance to "all there", and the fit is a ridge regression with penalty 1. Differs:
//! tables are treated the same way (what is absent becomes the baseline), all features are kept, and the fit's R² is said. Weak:
//! depends on the width and on the draws; look at the standard error.

use netproof_core::{Card, CardKind, Challenge, OptionDoc};
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::interpretability::coalitions::{Coalition, Game, solve};
use crate::interpretability::segments::{COUNT, SEGMENTS, partitions};
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "lime",
    version: 1,
    kind: CardKind::Explanation,
    title: "LIME",
    challenge: Challenge::Interpretability,
    measures: "Weights of a linear model that imitates the network where features of the row are left out.",
    reference: "Ribeiro, Singh and Guestrin, KDD 2016, arXiv:1602.04938, algorithm 1",
    needs: &[],
    options: &[
        SEGMENTS,
        COUNT,
        OptionDoc { name: "samples", default: "1000", doc: "Rows with features left out, at least 10." },
        OptionDoc { name: "width", default: "0.25", doc: "Width of the kernel over cosine distance, above 0." },
        OptionDoc { name: "ridge", default: "1.0", doc: "Penalty on the squared weights, at least 0." },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Lime {
    segments: String,
    count: usize,
    samples: usize,
    width: f64,
    ridge: f64,
}

impl Default for Lime {
    fn default() -> Self {
        Self { segments: "slic".to_owned(), count: 49, samples: 1000, width: 0.25, ridge: 1.0 }
    }
}

impl Explainer for Lime {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        if self.samples < 10 {
            return Err(ExplainError::option("samples", self.samples, "at least 10"));
        }
        if !(self.width > 0.0 && self.width.is_finite()) {
            return Err(ExplainError::option("width", self.width, "above 0"));
        }
        if !(self.ridge >= 0.0 && self.ridge.is_finite()) {
            return Err(ExplainError::option("ridge", self.ridge, "at least 0"));
        }
        let parts = partitions(net, q, &self.segments, self.count)?;
        let plain = Question { background: None, ..q.clone() };
        let game = Game::new(net, &plain, &parts);
        let (mut all, mut errors, mut fits) = (Vec::new(), Vec::new(), Vec::new());
        for (row, partition) in parts.iter().enumerate() {
            let m = partition.count;
            let mut rng = q.rng(row, "lime");
            let coalitions: Vec<Coalition> = (0..self.samples)
                .map(|k| Coalition {
                    row,
                    // The first one is the row itself, as in the authors' code.
                    present: (0..m).map(|_| k == 0 || rng.unit() < 0.5).collect(),
                    stand_in: None,
                })
                .collect();
            let v = game.values(&coalitions)?;
            let fit = self.fit(m, &coalitions, &v)?;
            all.extend(partition.spread(&fit.weights));
            errors.extend(partition.spread(&fit.errors));
            fits.push(fit.r_squared);
        }
        let mut e = Explanation::of_input(net, q.len(), all)?;
        e.standard_error = Some(Tensor::f32(e.attributions.shape().to_vec(), errors)?);
        let lowest = fits.iter().copied().fold(f64::INFINITY, f64::min);
        let mean = fits.iter().sum::<f64>() / fits.len().max(1) as f64;
        e.arrays
            .push(("r_squared".to_owned(), Tensor::f32(vec![fits.len()], fits.iter().map(|&v| v as f32).collect())?));
        Ok(e.note(format!("R² of the linear model: {mean:.3} on average, {lowest:.3} at lowest")))
    }
}

struct Fit {
    weights: Vec<f64>,
    errors: Vec<f64>,
    r_squared: f64,
}

impl Lime {
    /// Weighted ridge regression; the intercept is not penalised.
    fn fit(&self, m: usize, coalitions: &[Coalition], v: &[f64]) -> Result<Fit, ExplainError> {
        let weight = |c: &Coalition| {
            // Cosine distance of a vector of zeros and ones to one of ones.
            let there = c.present.iter().filter(|&&p| p).count() as f64;
            let d = 1.0 - (there / m.max(1) as f64).sqrt();
            (-d * d / (self.width * self.width)).exp().sqrt()
        };
        let w: Vec<f64> = coalitions.iter().map(weight).collect();
        let total: f64 = w.iter().sum();
        let mean_v = w.iter().zip(v).map(|(w, v)| w * v).sum::<f64>() / total;
        let mut mean = vec![0.0; m];
        for (c, w) in coalitions.iter().zip(&w) {
            mean.iter_mut().zip(&c.present).for_each(|(s, &p)| *s += w * f64::from(u8::from(p)) / total);
        }
        let (mut a, mut b) = (vec![0.0; m * m], vec![0.0; m]);
        let mut row = vec![0.0; m];
        for ((c, &w), &v) in coalitions.iter().zip(&w).zip(v) {
            row.iter_mut()
                .zip(c.present.iter().zip(&mean))
                .for_each(|(r, (&p, mean))| *r = f64::from(u8::from(p)) - mean);
            for i in 0..m {
                b[i] += w * row[i] * (v - mean_v);
                let scaled = w * row[i];
                a[i * m..(i + 1) * m].iter_mut().zip(&row).for_each(|(a, &r)| *a += scaled * r);
            }
        }
        (0..m).for_each(|i| a[i * m + i] += self.ridge.max(1e-9));
        let Some(weights) = solve(&a, &b) else {
            return Err(ExplainError::not_applicable("the linear model is not determined; raise samples or ridge"));
        };
        let (mut left, mut spread) = (0.0, 0.0);
        for ((c, &w), &v) in coalitions.iter().zip(&w).zip(v) {
            let said: f64 = (0..m).map(|p| weights[p] * (f64::from(u8::from(c.present[p])) - mean[p])).sum();
            left += w * (v - mean_v - said).powi(2);
            spread += w * (v - mean_v).powi(2);
        }
        // Var = σ² A⁻¹, with σ² from the weighted residuals; the diagonal of the inverse column by column.
        let variance = left / total * coalitions.len() as f64 / (coalitions.len().saturating_sub(m + 1)).max(1) as f64;
        let errors = (0..m)
            .map(|p| {
                let mut unit = vec![0.0; m];
                unit[p] = 1.0;
                solve(&a, &unit).map_or(f64::NAN, |x| (variance * x[p]).max(0.0).sqrt())
            })
            .collect();
        Ok(Fit { weights, errors, r_squared: if spread > 0.0 { 1.0 - left / spread } else { 1.0 } })
    }
}

#[cfg(test)]
mod tests {
    use crate::interpretability::test_support::{attributions, close, linear, run};

    #[test]
    fn of_a_linear_network_it_is_weight_times_input() {
        let model = linear(&[2.0, -3.0, 1.0], 1.0);
        let found = attributions("lime", &model, &[[1.0, 2.0, 3.0]], "ridge = 0.0");
        close(&found, &[2.0, -6.0, 3.0], 1e-4);
        let e = run("lime", &model, &[[1.0, 2.0, 3.0]], "ridge = 0.0");
        assert!(e.notes.iter().any(|n| n.contains("1.000 on average")), "{:?}", e.notes);
        // The penalty shrinks.
        let shrunk = attributions("lime", &model, &[[1.0, 2.0, 3.0]], "ridge = 50.0");
        assert!(shrunk[1].abs() < 5.0 && shrunk[1] < 0.0, "{shrunk:?}");
    }
}
