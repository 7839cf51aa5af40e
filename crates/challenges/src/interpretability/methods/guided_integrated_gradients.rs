//! Guided integrated gradients: the way from baseline to row moves those elements first whose gradient is small, so that it
//! avoids regions where the network is noisy. Kapishnikov et al., CVPR 2021, arXiv:2106.09788, algorithm 1. Checked against a
//! closed form on a linear network, completeness on real ones. No element strays from the straight way by more than `stray` of
//! its length, as in the authors' code.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use serde::{Deserialize, Serialize};

use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "guided-integrated-gradients",
    version: 1,
    kind: CardKind::Explanation,
    title: "Guided integrated gradients",
    challenge: Challenge::Interpretability,
    measures: "Integrated gradients along a way that moves elements of small gradient first. Attributions sum to about the \
               difference of the two scores.",
    reference: "Kapishnikov, Venugopalan, Avci, Wedin, Terry and Bolukbasi, CVPR 2021, arXiv:2106.09788, algorithm 1",
    needs: &[Need::InputGradient],
    options: &[
        OptionDoc { name: "steps", default: "200", doc: "Steps of the way, at least 1." },
        OptionDoc {
            name: "fraction",
            default: "0.25",
            doc: "Fraction of the elements that move in a step, above 0, at most 1.",
        },
        OptionDoc {
            name: "stray",
            default: "0.02",
            doc: "How far an element may be from the straight way, as a fraction, 0 to 1.",
        },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GuidedIntegratedGradients {
    steps: usize,
    fraction: f64,
    stray: f64,
}

impl Default for GuidedIntegratedGradients {
    fn default() -> Self {
        Self { steps: 200, fraction: 0.25, stray: 0.02 }
    }
}

impl Explainer for GuidedIntegratedGradients {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        if self.steps == 0 {
            return Err(ExplainError::option("steps", 0, "at least 1"));
        }
        if !(self.fraction > 0.0 && self.fraction <= 1.0) {
            return Err(ExplainError::option("fraction", self.fraction, "above 0 and at most 1"));
        }
        if !(0.0..=1.0).contains(&self.stray) {
            return Err(ExplainError::option("stray", self.stray, "0 to 1"));
        }
        let (n, width) = (q.len(), net.row_len());
        let mut at: Vec<f64> = (0..n).flat_map(|i| q.baseline_row(i).iter().map(|&v| f64::from(v))).collect();
        let mut all = vec![0.0f64; n * width];
        for step in 0..self.steps {
            let mut gradients = vec![0.0f32; n * width];
            let fill = |i: usize, row: &mut [f32]| {
                row.iter_mut().zip(&at[i * width..(i + 1) * width]).for_each(|(r, &v)| *r = v as f32);
                i
            };
            net.gradients(q, n, fill, |i, _, g| gradients[i * width..(i + 1) * width].copy_from_slice(g))?;
            for i in 0..n {
                let part = i * width..(i + 1) * width;
                self.advance(
                    q.row(i),
                    q.baseline_row(i),
                    step,
                    &gradients[part.clone()],
                    &mut at[part.clone()],
                    &mut all[part],
                );
            }
        }
        let own = net.own_scores(q)?;
        let difference = own.iter().zip(net.baseline_scores(q)?).map(|(a, b)| a - b).collect();
        Ok(Explanation::of_input(net, n, all.into_iter().map(|v| v as f32).collect())?.complete(difference))
    }
}

impl GuidedIntegratedGradients {
    /// One step of one row: elements of small gradient move until the distance that is left is that of the straight way.
    fn advance(&self, x: &[f32], b: &[f32], step: usize, gradient: &[f32], at: &mut [f64], all: &mut [f64]) {
        let width = x.len();
        let way = |e: usize| f64::from(x[e]) - f64::from(b[e]);
        let alpha = (step + 1) as f64 / self.steps as f64;
        let (low, high) = ((alpha - self.stray).max(0.0), (alpha + self.stray).min(1.0));
        let place = |e: usize, alpha: f64| f64::from(b[e]) + alpha * way(e);
        let mut move_to = |e: usize, to: f64, at: &mut [f64]| {
            all[e] += f64::from(gradient[e]) * (to - at[e]);
            at[e] = to;
        };
        // Those that lag too far behind are brought up.
        for e in 0..width {
            if way(e) != 0.0 && (at[e] - f64::from(b[e])) / way(e) < low {
                move_to(e, place(e, low), at);
            }
        }
        let total: f64 = (0..width).map(|e| way(e).abs()).sum();
        let goal = total * (1.0 - alpha);
        let mut order: Vec<usize> = (0..width).filter(|&e| way(e) != 0.0).collect();
        order.sort_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs()).then(a.cmp(&b)));
        let some = ((order.len() as f64 * self.fraction).ceil() as usize).max(1);
        for chunk in order.chunks(some) {
            let left: f64 = (0..width).map(|e| (f64::from(x[e]) - at[e]).abs()).sum();
            let excess = left - goal;
            if excess <= 1e-12 * total {
                break;
            }
            let room: f64 = chunk.iter().map(|&e| (place(e, high) - at[e]).abs()).sum();
            let share = if room > excess { excess / room } else { 1.0 };
            for &e in chunk {
                let to = at[e] + share * (place(e, high) - at[e]);
                move_to(e, to, at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::interpretability::test_support::{ask, attributions, close, golden_network, linear, net_of};

    #[test]
    fn of_a_linear_network_it_is_weight_times_input() {
        let found = attributions(
            "guided-integrated-gradients",
            &linear(&[2.0, -3.0, 0.0], 1.0),
            &[[1.0, 2.0, 3.0]],
            "steps = 20",
        );
        close(&found, &[2.0, -6.0, 0.0], 1e-5);
    }

    #[test]
    fn it_is_nearly_complete_on_a_real_network() {
        let Some((model, x, labels)) = golden_network("vit", 2) else { return };
        let e = ask("guided-integrated-gradients", &net_of(&model, &x), x, labels, "");
        for (delta, difference) in e.delta.unwrap().iter().zip(e.difference.unwrap()) {
            assert!(delta.abs() <= 0.05 * difference.abs(), "{delta} of {difference}");
        }
    }
}
