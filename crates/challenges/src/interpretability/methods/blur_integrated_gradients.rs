//! Blur integrated gradients: the way goes from a blurred image to the image, so that no colour means "nothing". Xu,
//! Venugopalan and Sundararajan, CVPR 2020, arXiv:2004.03383, equation 4. Checked against completeness and a closed form on a
//! linear network. The blur's variance falls in even steps, as in the authors' code; the gradient is taken in the middle of each
//! step. Weak: what is uniform over the image stays, and gets nothing.

use std::cell::RefCell;
use std::collections::VecDeque;

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use serde::{Deserialize, Serialize};

use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "blur-integrated-gradients",
    version: 1,
    kind: CardKind::Explanation,
    title: "Blur integrated gradients",
    challenge: Challenge::Interpretability,
    measures: "Integrated gradients along a way on which the image comes into focus. Attributions sum to the score minus that of \
               the blurred image.",
    reference: "Xu, Venugopalan and Sundararajan, CVPR 2020, arXiv:2004.03383, equation 4",
    needs: &[Need::InputGradient],
    options: &[
        OptionDoc { name: "steps", default: "50", doc: "Steps of the way, at least 1." },
        OptionDoc {
            name: "sigma",
            default: "0.0",
            doc: "Standard deviation of the strongest blur in pixels; 0: a sixth of the image's longer side.",
        },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BlurIntegratedGradients {
    steps: usize,
    sigma: f32,
}

impl Default for BlurIntegratedGradients {
    fn default() -> Self {
        Self { steps: 50, sigma: 0.0 }
    }
}

impl Explainer for BlurIntegratedGradients {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let [c, h, w] = *net.row_shape() else {
            return Err(ExplainError::not_applicable("the input is no image [n, channels, height, width]"));
        };
        if self.steps == 0 {
            return Err(ExplainError::option("steps", 0, "at least 1"));
        }
        if !(self.sigma >= 0.0 && self.sigma.is_finite()) {
            return Err(ExplainError::option("sigma", self.sigma, "at least 0"));
        }
        let strongest = if self.sigma > 0.0 { self.sigma } else { h.max(w) as f32 / 6.0 };
        let (n, width, steps) = (q.len(), net.row_len(), self.steps);
        // Step k goes from sigma(k) to sigma(k + 1), the last of which is 0.
        let sigma = |k: usize| strongest * ((steps - k) as f32 / steps as f32).sqrt();
        let blurred = |i: usize, k: usize| blur(q.row(i), [c, h, w], sigma(k));
        let mut before = Vec::new();
        let mut all = vec![0.0f64; n * width];
        // What moves in a step is known when its row is made, and needed when its gradient is there.
        let moves = RefCell::new(VecDeque::<Vec<f32>>::new());
        let fill = |j: usize, row: &mut [f32]| {
            let (i, k) = (j / steps, j % steps);
            if k == 0 {
                before = blurred(i, 0);
            }
            let after = blurred(i, k + 1);
            row.iter_mut().zip(before.iter().zip(&after)).for_each(|(r, (a, b))| *r = 0.5 * (a + b));
            moves.borrow_mut().push_back(after.iter().zip(&before).map(|(a, b)| a - b).collect());
            before = after;
            i
        };
        net.gradients(q, n * steps, fill, |j, _, g| {
            let i = j / steps;
            let step = moves.borrow_mut().pop_front().unwrap_or_default();
            let at = &mut all[i * width..(i + 1) * width];
            at.iter_mut().zip(g.iter().zip(&step)).for_each(|(a, (&g, &m))| *a += f64::from(g) * f64::from(m));
        })?;
        let own = net.own_scores(q)?;
        let base = net.scores(q, n, |i, row| {
            row.copy_from_slice(&blurred(i, 0));
            i
        })?;
        let difference = own.iter().zip(&base).map(|(a, b)| a - b).collect();
        let e = Explanation::of_input(net, n, all.into_iter().map(|v| v as f32).collect())?.complete(difference);
        Ok(e.note(format!("the strongest blur has a standard deviation of {strongest:.1} pixels")))
    }
}

/// Gaussian blur of every channel, edges reflected, cut off at four standard deviations.
fn blur(row: &[f32], [c, h, w]: [usize; 3], sigma: f32) -> Vec<f32> {
    if sigma < 1e-3 {
        return row.to_vec();
    }
    let reach = (4.0 * sigma).ceil() as i64;
    let kernel: Vec<f32> = (-reach..=reach).map(|d| (-(d * d) as f32 / (2.0 * sigma * sigma)).exp()).collect();
    let total: f32 = kernel.iter().sum();
    let reflected = |i: i64, n: usize| {
        let n = n as i64;
        let i = i.rem_euclid(2 * n);
        (if i < n { i } else { 2 * n - 1 - i }) as usize
    };
    let pass = |from: &[f32], along: usize, other: usize, at: &dyn Fn(usize, usize) -> usize| {
        let mut out = vec![0.0; from.len()];
        for line in 0..other {
            for p in 0..along {
                let sum: f32 = kernel
                    .iter()
                    .enumerate()
                    .map(|(k, v)| v * from[at(line, reflected(p as i64 + k as i64 - reach, along))])
                    .sum();
                out[at(line, p)] = sum / total;
            }
        }
        out
    };
    let mut all = Vec::with_capacity(row.len());
    for plane in row.chunks(h * w).take(c) {
        let across = pass(plane, w, h, &|y, x| y * w + x);
        all.extend(pass(&across, h, w, &|x, y| y * w + x));
    }
    all
}

#[cfg(test)]
mod tests {
    use netproof_tensor::Tensor;

    use super::*;
    use crate::interpretability::test_support::{ask, close, golden_network, net_of, network, stored};

    #[test]
    fn a_blur_keeps_the_sum_and_spreads_a_point_evenly() {
        let mut row = vec![0.0; 49];
        row[24] = 1.0;
        let b = blur(&row, [1, 7, 7], 1.0);
        assert!((b.iter().sum::<f32>() - 1.0).abs() < 1e-5 && b[24] > b[23] && (b[23] - b[31]).abs() < 1e-6);
        assert!((b[24] - 0.1592).abs() < 1e-3);
    }

    #[test]
    fn of_a_linear_network_it_is_weight_times_what_the_blur_takes() {
        let weights: Vec<f32> = (0..16).map(|i| (i as f32 * 0.8).cos()).collect();
        let model = network(&[1, 4, 4], 1, |f, x| {
            let flat = f.node("Flatten", "flat", &[x], &[]);
            let w = stored(f, "w", &[16, 1], &weights);
            f.node("MatMul", "y", &[&flat, &w], &[])
        });
        let row: Vec<f32> = (0..16).map(|i| (i as f32 * 1.3).sin()).collect();
        let x = Tensor::f32(vec![1, 1, 4, 4], row.clone()).unwrap();
        let e = ask("blur-integrated-gradients", &net_of(&model, &x), x, vec![0], "steps = 5\nsigma = 1.0");
        let blurred = blur(&row, [1, 4, 4], 1.0);
        let wanted: Vec<f32> = (0..16).map(|i| weights[i] * (row[i] - blurred[i])).collect();
        close(e.attributions.as_f32().unwrap(), &wanted, 1e-5);
    }

    #[test]
    fn it_is_nearly_complete_on_a_real_network() {
        let Some((model, x, labels)) = golden_network("vit", 2) else { return };
        let e = ask("blur-integrated-gradients", &net_of(&model, &x), x, labels, "");
        for (delta, difference) in e.delta.unwrap().iter().zip(e.difference.unwrap()) {
            assert!(delta.abs() <= 0.02 * difference.abs(), "{delta} of {difference}");
        }
    }
}
