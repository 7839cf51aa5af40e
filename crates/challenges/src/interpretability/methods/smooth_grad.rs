//! SmoothGrad: the mean gradient about the row. Smilkov et al. 2017, arXiv:1706.03825, section 3.
//! Checked against: closed forms on linear and quadratic networks, a naive version. Noise is normal with a standard deviation
//! of a fraction of the row's range, as in the paper. Weak where the noise leaves the data: it then smooths over what the
//! network never sees.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "smooth-grad",
    version: 1,
    kind: CardKind::Explanation,
    title: "SmoothGrad",
    challenge: Challenge::Interpretability,
    measures: "The gradient averaged over noisy copies of the row, so that what flickers from pixel to pixel cancels.",
    reference: "Smilkov, Thorat, Kim, Viégas and Wattenberg 2017, arXiv:1706.03825, section 3",
    needs: &[Need::InputGradient],
    options: &[
        SAMPLES,
        NOISE,
        OptionDoc { name: "absolute", default: "false", doc: "Whether each gradient loses its sign before the mean." },
    ],
};

pub(super) const SAMPLES: OptionDoc =
    OptionDoc { name: "samples", default: "50", doc: "Noisy copies per row, at least 2." };
pub(super) const NOISE: OptionDoc = OptionDoc {
    name: "noise",
    default: "0.15",
    doc: "Standard deviation of the noise as a fraction of the row's range, above 0.",
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SmoothGrad {
    samples: usize,
    noise: f64,
    absolute: bool,
}

impl Default for SmoothGrad {
    fn default() -> Self {
        Self { samples: 50, noise: 0.15, absolute: false }
    }
}

impl Explainer for SmoothGrad {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let moments = noisy_gradients(net, q, self.samples, self.noise, self.absolute)?;
        let mut e = Explanation::of_input(net, q.len(), moments.mean.iter().map(|&v| v as f32).collect())?;
        let error = moments.variance.iter().map(|v| (v / (self.samples - 1) as f64).sqrt() as f32).collect();
        e.standard_error = Some(Tensor::f32(e.attributions.shape().to_vec(), error)?);
        Ok(e)
    }
}

/// Mean and population variance of the gradients at noisy copies, `[n, elements]` each.
pub(super) struct Moments {
    pub(super) mean: Vec<f64>,
    pub(super) variance: Vec<f64>,
}

pub(super) fn noisy_gradients(
    net: &Explained<'_>,
    q: &Question,
    samples: usize,
    noise: f64,
    absolute: bool,
) -> Result<Moments, ExplainError> {
    if samples < 2 {
        return Err(ExplainError::option("samples", samples, "at least 2"));
    }
    if !(noise > 0.0 && noise.is_finite()) {
        return Err(ExplainError::option("noise", noise, "above 0"));
    }
    let width = net.row_len();
    let mut rng = q.shared_rng("noise");
    let mut deviation = 0.0;
    let fill = |i: usize, row: &mut [f32]| {
        let of = i / samples;
        let x = q.row(of);
        if i.is_multiple_of(samples) {
            rng = q.rng(of, "noise");
            let (low, high) = x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
            // A row of equal elements has no range; its size is the next best scale.
            let range = if high > low { high - low } else { x.iter().fold(0f32, |m, v| m.max(v.abs())).max(1.0) };
            deviation = noise * f64::from(range);
        }
        row.iter_mut().zip(x).for_each(|(r, &x)| *r = x + (deviation * rng.normal()) as f32);
        of
    };
    let (mut mean, mut squares) = (vec![0.0; q.len() * width], vec![0.0; q.len() * width]);
    net.gradients(q, q.len() * samples, fill, |i, _, g| {
        let (of, k) = (i / samples, (i % samples + 1) as f64);
        let at = of * width..(of + 1) * width;
        for ((m, s), &g) in mean[at.clone()].iter_mut().zip(&mut squares[at]).zip(g) {
            // Welford's update.
            let g = f64::from(if absolute { g.abs() } else { g });
            let d = g - *m;
            *m += d / k;
            *s += d * (g - *m);
        }
    })?;
    squares.iter_mut().for_each(|s| *s /= samples as f64);
    Ok(Moments { mean, variance: squares })
}

#[cfg(test)]
mod tests {
    use crate::interpretability::test_support::{attributions, close, ints, linear, network, run};

    #[test]
    fn noise_does_not_move_a_constant_gradient() {
        let e = run("smooth-grad", &linear(&[2.0, -3.0], 1.0), &[[1.0, 2.0]], "samples = 5");
        close(e.attributions.as_f32().unwrap(), &[2.0, -3.0], 1e-6);
        assert!(e.standard_error.unwrap().as_f32().unwrap().iter().all(|&v| v < 1e-6));
    }

    #[test]
    fn the_mean_gradient_of_a_square_is_that_of_the_row_and_its_variance_that_of_the_noise() {
        // y = Σ x²; the gradient at x + noise is 2 (x + noise), and the range is 2.
        let model = network(&[2], 1, |f, x| {
            let square = f.node("Mul", "square", &[x, x], &[]);
            let axes = ints(f, "axes", &[1]);
            f.node("ReduceSum", "y", &[&square, &axes], &[])
        });
        let rows = [[1.0, 3.0]];
        let mean = attributions("smooth-grad", &model, &rows, "samples = 4000\nnoise = 0.1");
        close(&mean, &[2.0, 6.0], 0.01);
        let variance = attributions("var-grad", &model, &rows, "samples = 4000\nnoise = 0.1");
        close(&variance, &[0.16, 0.16], 0.1);
    }
}
