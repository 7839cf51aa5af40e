//! KernelSHAP: Shapley values as the weighted least-squares fit of an additive model to coalitions. Lundberg and Lee, NeurIPS
//! 2017, arXiv:1705.07874, theorem 2. Checked against: golden/tiny-shapley.npz, exact Shapley values, the printed values of
//! Captum's tests.
//!
//! All coalitions are taken where they fit the budget, and the fit is then exact. Otherwise sizes are drawn by the kernel's
//! weight, in pairs of complements (Covert and Lee, AISTATS 2021, arXiv:2012.01536, sections 3 and 4.2). The sum to the
//! difference is a constraint of the fit, not a large weight; no feature is selected away, and the standard error is that of the
//! mean of fits to disjoint tenths of the draws.

use netproof_core::{Card, CardKind, Challenge, OptionDoc};
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::interpretability::coalitions::{Coalition, Game, solve};
use crate::interpretability::segments::{COUNT, SEGMENTS, partitions};
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "kernel-shap",
    version: 1,
    kind: CardKind::Explanation,
    title: "KernelSHAP",
    challenge: Challenge::Interpretability,
    measures: "Shapley values by a weighted least-squares fit to coalitions of features; exact where all coalitions fit the budget.",
    reference: "Lundberg and Lee, NeurIPS 2017, arXiv:1705.07874, theorem 2; Covert and Lee, AISTATS 2021, arXiv:2012.01536",
    needs: &[],
    options: &[
        SEGMENTS,
        COUNT,
        OptionDoc {
            name: "samples",
            default: "2048",
            doc: "Most coalitions per row, at least 20 and above twice the features.",
        },
    ],
};

/// Parts of the draws whose fits are compared for the standard error.
const TENTHS: usize = 10;

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KernelShap {
    segments: String,
    count: usize,
    samples: usize,
}

impl Default for KernelShap {
    fn default() -> Self {
        Self { segments: "slic".to_owned(), count: 49, samples: 2048 }
    }
}

impl Explainer for KernelShap {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let parts = partitions(net, q, &self.segments, self.count)?;
        let game = Game::new(net, q, &parts);
        let (nothing, everything) = game.ends()?;
        let (mut all, mut errors, mut sampled) = (Vec::new(), Vec::new(), 0);
        for (row, partition) in parts.iter().enumerate() {
            let m = partition.count;
            let whole = everything[row] - nothing[row];
            let fits = m < 40 && (1u64 << m) - 2 <= self.samples as u64;
            let (phi, error) = if m <= 1 {
                (vec![whole; m], vec![0.0; m])
            } else if fits {
                let (sets, weights) = every(m);
                let v = self.worths(&game, row, &sets, nothing[row])?;
                (fitted(m, &sets, &weights, &v, whole)?, vec![0.0; m])
            } else {
                sampled += 1;
                if self.samples < 20.max(2 * m + 2) {
                    return Err(ExplainError::option(
                        "samples",
                        self.samples,
                        "at least 20 and above twice the features",
                    ));
                }
                let sets = drawn(m, self.samples, &mut q.rng(row, "kernel-shap"));
                let v = self.worths(&game, row, &sets, nothing[row])?;
                let weights = vec![1.0; sets.len()];
                let phi = fitted(m, &sets, &weights, &v, whole)?;
                (phi, standard_error(m, &sets, &v, whole))
            };
            all.extend(partition.spread(&phi));
            errors.extend(partition.spread(&error));
        }
        let mut e = Explanation::of_input(net, q.len(), all)?;
        e.standard_error = Some(Tensor::f32(e.attributions.shape().to_vec(), errors)?);
        // The fit sums to the difference by construction.
        e.delta = Some(vec![0.0; q.len()]);
        e.difference = Some(everything.iter().zip(&nothing).map(|(a, b)| a - b).collect());
        Ok(if sampled == 0 {
            e.note("all coalitions were taken, so that the values are exact")
        } else {
            e.note(format!("{} coalitions were drawn for {sampled} rows; see standard_error", self.samples))
        })
    }
}

impl KernelShap {
    fn worths(&self, game: &Game<'_>, row: usize, sets: &[Vec<bool>], nothing: f64) -> Result<Vec<f64>, ExplainError> {
        let all: Vec<Coalition> = sets.iter().map(|s| Coalition { row, present: s.clone(), stand_in: None }).collect();
        Ok(game.values(&all)?.into_iter().map(|v| v - nothing).collect())
    }
}

/// All coalitions but the two trivial ones, with the kernel's weights (M − 1) / (C(M, s) s (M − s)).
fn every(m: usize) -> (Vec<Vec<bool>>, Vec<f64>) {
    let mut choose = vec![1.0f64; m + 1];
    for s in 1..=m {
        choose[s] = choose[s - 1] * (m - s + 1) as f64 / s as f64;
    }
    (1..(1usize << m) - 1)
        .map(|set| {
            let s = set.count_ones() as usize;
            let present = (0..m).map(|p| set >> p & 1 == 1).collect();
            (present, (m - 1) as f64 / (choose[s] * s as f64 * (m - s) as f64))
        })
        .unzip()
}

/// Coalitions by the kernel's total weight per size, each followed by its complement.
fn drawn(m: usize, samples: usize, rng: &mut Rng) -> Vec<Vec<bool>> {
    let weights: Vec<f64> = (1..m).map(|s| 1.0 / (s as f64 * (m - s) as f64)).collect();
    let total: f64 = weights.iter().sum();
    let mut sets = Vec::with_capacity(samples);
    for _ in 0..samples / 2 {
        let mut at = rng.unit() * total;
        let mut size = 1;
        while size < m - 1 && at >= weights[size - 1] {
            at -= weights[size - 1];
            size += 1;
        }
        let mut present = vec![false; m];
        rng.permutation(m).into_iter().take(size).for_each(|p| present[p] = true);
        let complement = present.iter().map(|p| !p).collect();
        sets.extend([present, complement]);
    }
    sets
}

/// Least squares under the constraint that the values sum to `whole`: the last feature is eliminated.
fn fitted(m: usize, sets: &[Vec<bool>], weights: &[f64], v: &[f64], whole: f64) -> Result<Vec<f64>, ExplainError> {
    solved(m, sets, weights, v, whole).ok_or_else(|| {
        ExplainError::not_applicable(
            "the drawn coalitions do not determine all features; raise samples, or group features",
        )
    })
}

fn solved(m: usize, sets: &[Vec<bool>], weights: &[f64], v: &[f64], whole: f64) -> Option<Vec<f64>> {
    let k = m - 1;
    let (mut a, mut b) = (vec![0.0; k * k], vec![0.0; k]);
    let mut row = vec![0.0; k];
    for ((set, &w), &v) in sets.iter().zip(weights).zip(v) {
        let last = f64::from(u8::from(set[k]));
        row.iter_mut().zip(set).for_each(|(r, &p)| *r = f64::from(u8::from(p)) - last);
        let y = v - last * whole;
        for i in (0..k).filter(|&i| row[i] != 0.0) {
            let scaled = w * row[i];
            b[i] += scaled * y;
            a[i * k..(i + 1) * k].iter_mut().zip(&row).for_each(|(a, &r)| *a += scaled * r);
        }
    }
    let mut phi = solve(&a, &b)?;
    phi.push(whole - phi.iter().sum::<f64>());
    Some(phi)
}

/// The standard error of the mean of fits to disjoint tenths; NaN where a tenth does not determine all features.
fn standard_error(m: usize, sets: &[Vec<bool>], v: &[f64], whole: f64) -> Vec<f64> {
    let size = (sets.len() / TENTHS) & !1;
    let parts = |k: usize| k * size..(k + 1) * size;
    let fits: Option<Vec<Vec<f64>>> =
        (0..TENTHS).map(|k| solved(m, &sets[parts(k)], &vec![1.0; size], &v[parts(k)], whole)).collect();
    let Some(fits) = fits else { return vec![f64::NAN; m] };
    (0..m)
        .map(|p| {
            let mean = fits.iter().map(|f| f[p]).sum::<f64>() / TENTHS as f64;
            let squares: f64 = fits.iter().map(|f| (f[p] - mean).powi(2)).sum();
            (squares / (TENTHS - 1) as f64 / TENTHS as f64).sqrt()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use netproof_tensor::Tensor;

    use super::super::exact_shapley::tests::tiny;
    use crate::interpretability::Question;
    use crate::interpretability::test_support::{answer, attributions, close, kinked, linear, net_of};

    #[test]
    fn it_gives_the_printed_values_of_captums_tests() {
        close(&attributions("kernel-shap", &kinked(), &[[20.0, 50.0, 30.0]], ""), &[76.6667, 196.6667, 116.6667], 1e-6);
        // A linear network with weights 4, x = (20, 50, 30) against (10, 20, 10).
        let model = linear(&[4.0, 4.0, 4.0], 0.0);
        let x = Tensor::f32(vec![1, 3], vec![20.0, 50.0, 30.0]).unwrap();
        let mut q = Question::new(x.clone(), vec![0]).unwrap();
        q.baseline = Tensor::f32(vec![1, 3], vec![10.0, 20.0, 10.0]).unwrap();
        close(
            answer("kernel-shap", &net_of(&model, &x), &q, "").attributions.as_f32().unwrap(),
            &[40.0, 120.0, 80.0],
            1e-6,
        );
    }

    #[test]
    fn with_all_coalitions_it_is_what_was_recorded() {
        let Some((model, q, wanted)) = tiny() else { return };
        let e = answer("kernel-shap", &net_of(&model, &q.x), &q, "");
        let found = e.attributions.as_f32().unwrap();
        let worst = found.iter().zip(&wanted).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= 1e-4, "{worst}");
    }

    #[test]
    fn drawn_coalitions_agree_within_their_standard_error() {
        // 14 features in pairs: y = Σ relu(x2k + x2k+1 − 1), additive over pairs.
        let m = 14;
        let model = crate::interpretability::test_support::network(&[m], 1, |f, x| {
            let mut w = vec![0.0; m * m / 2];
            (0..m).for_each(|i| w[i * (m / 2) + i / 2] = 1.0);
            let w = crate::interpretability::test_support::stored(f, "w", &[m, m / 2], &w);
            let b = crate::interpretability::test_support::stored(f, "b", &[m / 2], &vec![-1.0; m / 2]);
            let h = f.node("Gemm", "h", &[x, &w, &b], &[]);
            let r = f.node("Relu", "r", &[&h], &[]);
            let v = crate::interpretability::test_support::stored(f, "v", &[m / 2, 1], &vec![1.0; m / 2]);
            f.node("MatMul", "y", &[&r, &v], &[])
        });
        let row: [f32; 14] = std::array::from_fn(|i| 0.3 + 0.2 * i as f32);
        let exact = attributions("exact-shapley", &model, &[row], "");
        let e = crate::interpretability::test_support::run("kernel-shap", &model, &[row], "samples = 2000");
        let error = e.standard_error.unwrap();
        for ((a, b), s) in e.attributions.as_f32().unwrap().iter().zip(&exact).zip(error.as_f32().unwrap()) {
            assert!(*s > 0.0 && (a - b).abs() <= 5.0 * s, "{a} {b} ± {s}");
        }
    }
}
