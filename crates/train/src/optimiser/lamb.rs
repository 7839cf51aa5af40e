//! LAMB: Adam whose step is as long as the tensor, for large batches.
//! You et al., ICLR 2020, arXiv:1904.00962, algorithm 2, with φ(z) = z and both moments corrected. A tensor or step of norm
//! zero takes ratio 1, as in the authors' code. Checked against: a naive version in double precision.

use serde::Deserialize;

use super::adam::check_epsilon;
use super::{Optimiser, Update, check_decay, check_fraction, check_rate, each, single};
use crate::method::Entry;
use crate::weights::squared_norm;

pub(super) const ENTRY: Entry<dyn Optimiser> = Entry {
    id: "lamb",
    summary: "LAMB: Adam with a step as long as each tensor, for large batches (You et al. 2020)",
    build: |options, _| {
        let own: Lamb = options.read()?;
        check_rate(own.learning_rate)?;
        own.betas.iter().try_for_each(|&b| check_fraction("betas", b))?;
        check_epsilon(own.epsilon)?;
        check_decay(own.weight_decay)?;
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Lamb {
    learning_rate: f64,
    betas: [f64; 2],
    epsilon: f64,
    weight_decay: f64,
}

impl Default for Lamb {
    /// Section 4 of the paper.
    fn default() -> Self {
        Self { learning_rate: 1e-3, betas: [0.9, 0.999], epsilon: 1e-6, weight_decay: 0.01 }
    }
}

impl Optimiser for Lamb {
    fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    fn slots(&self) -> usize {
        2
    }

    fn update(&self, step: &Update, weights: &mut [f32], gradient: &[f32], state: &mut [Vec<f32>]) {
        let betas = [step.momentum.unwrap_or(self.betas[0]), self.betas[1]];
        let correction = betas.map(|beta| 1.0 - beta.powf(step.number as f64));
        let [m_new, v_old, v_new] = single([1.0 - betas[0], betas[1], 1.0 - betas[1]]);
        let decay = self.weight_decay * step.weight_decay_scale;
        let [first, root, epsilon, decay] =
            single([1.0 / correction[0], 1.0 / correction[1].sqrt(), self.epsilon, decay]);
        let mut direction = weights.to_vec();
        each(&mut direction, gradient, state, |w, g, [m, v]| {
            let m = m + m_new * (g - m);
            let v = v_old * v + v_new * (g * g);
            (m * first / (v.sqrt() * root + epsilon) + decay * w, [m, v])
        });
        let [own, long] = [squared_norm(weights).sqrt(), squared_norm(&direction).sqrt()];
        let ratio = if own > 0.0 && long > 0.0 { own / long } else { 1.0 };
        let rate = (step.learning_rate * ratio) as f32;
        each(weights, &direction, &mut [], |w, d, []| (w - rate * d, []));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_match_a_naive_version() {
        let o = Lamb { weight_decay: 0.1, learning_rate: 0.01, ..Lamb::default() };
        let n = 40_000;
        let noise = |i: usize, k: usize| ((i * 31 + k * 17) % 101) as f32 / 50.0 - 1.0;
        let mut w: Vec<f32> = (0..n).map(|i| noise(i, 1)).collect();
        let mut state = vec![vec![0.0; n]; 2];
        let mut truth: Vec<f64> = w.iter().map(|&w| f64::from(w)).collect();
        let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
        for number in 1..5u64 {
            let g: Vec<f32> = (0..n).map(|i| noise(i, 3 + number as usize)).collect();
            let step = Update { number, learning_rate: 0.01, weight_decay_scale: 1.0, momentum: None };
            o.update(&step, &mut w, &g, &mut state);
            let t = number as i32;
            let mut r = vec![0.0; n];
            for i in 0..n {
                let g = f64::from(g[i]);
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let mean = m[i] / (1.0 - 0.9f64.powi(t));
                let square: f64 = v[i] / (1.0 - 0.999f64.powi(t));
                r[i] = mean / (square.sqrt() + 1e-6) + 0.1 * truth[i];
            }
            let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let ratio = norm(&truth) / norm(&r);
            truth.iter_mut().zip(&r).for_each(|(w, r)| *w -= 0.01 * ratio * r);
        }
        for (got, want) in w.iter().zip(&truth) {
            assert!((f64::from(*got) - want).abs() < 1e-5, "{got} {want}");
        }
    }

    #[test]
    fn a_tensor_of_zeros_moves() {
        let (mut w, mut state) = (vec![0.0; 3], vec![vec![0.0; 3]; 2]);
        let step = Update { number: 1, learning_rate: 0.5, weight_decay_scale: 1.0, momentum: None };
        Lamb::default().update(&step, &mut w, &[1.0, -1.0, 0.0], &mut state);
        assert!((w[0] + 0.5).abs() < 1e-4 && (w[1] - 0.5).abs() < 1e-4 && w[2] == 0.0, "{w:?}");
    }
}
