//! Expected gradients (GradientSHAP): integrated gradients averaged over typical rows as baselines, with one random place on
//! each way. Erion et al., Nature Machine Intelligence 3, 2021, arXiv:1906.10670, equation 3; Lundberg and Lee 2017.
//! Checked against: closed form on a linear network, integrated gradients where there is one baseline.
//!
//! Differs from Captum (5 draws) and SHAP: places are drawn in strata and baselines in turn, which is still unbiased and less
//! noisy; the standard error is that of independent draws, so it is an upper estimate. The sum is right on average only; delta
//! says by how much it misses.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "expected-gradients",
    version: 1,
    kind: CardKind::Explanation,
    title: "Expected gradients",
    challenge: Challenge::Interpretability,
    measures: "What each element adds to the score compared with typical rows: integrated gradients over many baselines. On \
               average attributions sum to the score minus the mean score of the typical rows.",
    reference: "Erion, Janizek, Sturmfels, Lundberg and Lee, Nature Machine Intelligence 3, 2021, arXiv:1906.10670, equation 3",
    needs: &[Need::InputGradient],
    options: &[OptionDoc {
        name: "samples",
        default: "200",
        doc: "Draws of a baseline and a place per row, at least 2.",
    }],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExpectedGradients {
    samples: usize,
}

impl Default for ExpectedGradients {
    fn default() -> Self {
        Self { samples: 200 }
    }
}

impl Explainer for ExpectedGradients {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let k = self.samples;
        if k < 2 {
            return Err(ExplainError::option("samples", k, "at least 2"));
        }
        let (n, width) = (q.len(), net.row_len());
        // Draws of every row: which baseline, and where on the way.
        let mut draws: Vec<(usize, f64)> = Vec::with_capacity(n * k);
        let m = q.background.as_ref().map_or(1, Tensor::rows);
        for i in 0..n {
            let mut rng = q.rng(i, "expected-gradients");
            let (order, strata) = (rng.permutation(m), rng.permutation(k));
            draws.extend(
                strata.into_iter().enumerate().map(|(j, s)| (order[j % m], (s as f64 + rng.unit()) / k as f64)),
            );
        }
        let baseline = |of: usize, b: usize| match &q.background {
            Some(t) => &t.as_f32().unwrap_or_default()[b * width..(b + 1) * width],
            None => q.baseline_row(of),
        };
        let fill = |i: usize, row: &mut [f32]| {
            let (of, (b, alpha)) = (i / k, draws[i]);
            for ((r, &x), &b) in row.iter_mut().zip(q.row(of)).zip(baseline(of, b)) {
                *r = b + alpha as f32 * (x - b);
            }
            of
        };
        let (mut mean, mut squares) = (vec![0.0; n * width], vec![0.0; n * width]);
        // The sum of each draw, minus the change of score that it should be on average over draws.
        let mut sums = vec![0.0; n * k];
        net.gradients(q, n * k, fill, |i, _, g| {
            let of = i / k;
            let at = of * width..(of + 1) * width;
            let ways = q.row(of).iter().zip(baseline(of, draws[i].0));
            for (((m, s), &g), (&x, &b)) in mean[at.clone()].iter_mut().zip(&mut squares[at]).zip(g).zip(ways) {
                let a = f64::from(g) * (f64::from(x) - f64::from(b));
                *m += a / k as f64;
                *s += a * a / k as f64;
                sums[i] += a;
            }
        })?;
        let own = net.own_scores(q)?;
        let base = net.scores(q, n * m, |i, row| {
            row.copy_from_slice(baseline(i / m, i % m));
            i / m
        })?;
        let base = base.chunks(m).map(|c| c.iter().sum::<f64>() / m as f64);
        let difference = own.iter().zip(base).map(|(a, b)| a - b).collect();
        let error =
            mean.iter().zip(&squares).map(|(m, s)| ((s - m * m).max(0.0) / (k - 1) as f64).sqrt() as f32).collect();
        let mut e = Explanation::of_input(net, n, mean.iter().map(|&v| v as f32).collect())?.complete(difference);
        e.standard_error = Some(Tensor::f32(e.attributions.shape().to_vec(), error)?);
        let spread = sums.chunks(k).map(|s| {
            let mean = s.iter().sum::<f64>() / k as f64;
            (s.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (k - 1) as f64 / k as f64).sqrt() as f32
        });
        e.arrays.push(("delta_standard_error".to_owned(), Tensor::f32(vec![n], spread.collect())?));
        Ok(match m {
            1 => e.note("one row serves as the only baseline; give typical rows (--background) to average over them"),
            _ => e,
        })
    }
}

#[cfg(test)]
mod tests {
    use netproof_tensor::Tensor;

    use crate::interpretability::Question;
    use crate::interpretability::test_support::{answer, close, golden_network, kinked, linear, net_of};

    #[test]
    fn of_a_linear_network_it_is_weight_times_distance_from_the_mean() {
        let model = linear(&[2.0, -3.0], 1.0);
        let x = Tensor::f32(vec![1, 2], vec![1.0, 2.0]).unwrap();
        let mut q = Question::new(x.clone(), vec![0]).unwrap();
        q.background = Some(Tensor::f32(vec![2, 2], vec![0.0, 1.0, 4.0, 3.0]).unwrap());
        let e = answer("expected-gradients", &net_of(&model, &x), &q, "");
        close(e.attributions.as_f32().unwrap(), &[-2.0, 0.0], 1e-5);
        assert!(e.delta.unwrap()[0].abs() < 1e-4 && (e.difference.unwrap()[0] + 2.0).abs() < 1e-5);
    }

    #[test]
    fn with_one_baseline_it_tends_to_integrated_gradients() {
        let x = Tensor::f32(vec![1, 3], vec![20.0, 50.0, 30.0]).unwrap();
        let model = kinked();
        let e =
            answer("expected-gradients", &net_of(&model, &x), &Question::new(x, vec![0]).unwrap(), "samples = 2000");
        close(e.attributions.as_f32().unwrap(), &[78.0, 195.0, 117.0], 1e-3);
    }

    #[test]
    fn the_sum_is_right_within_its_error_on_golden_networks() {
        for name in ["cnn", "resnet", "vit", "mobilenet"] {
            let Some((model, x, labels)) = golden_network(name, 12) else { return };
            let mut q = Question::new(x.slice_rows(0, 2).unwrap(), labels[..2].to_vec()).unwrap();
            q.background = Some(x.slice_rows(2, 12).unwrap());
            let e = answer("expected-gradients", &net_of(&model, &x), &q, "samples = 300");
            let error = e.arrays[0].1.as_f32().unwrap();
            for ((delta, difference), error) in e.delta.unwrap().iter().zip(e.difference.unwrap()).zip(error) {
                assert!(delta.abs() <= 4.0 * f64::from(*error), "{name}: {delta} of {difference} ± {error}");
            }
        }
    }
}
