//! Integrated gradients: gradients on the straight way from the baseline to the row, averaged, times the way.
//! Sundararajan, Taly and Yan, ICML 2017, arXiv:1703.01365, equation 1. Checked against: Captum 0.9.0
//! (golden/fashion-golden.npz, and the closed values of its tests), the completeness theorem.
//!
//! Differs from the references: by default the integral is taken as exactly as needed. Completeness holds on any part of the
//! way: the attributions of a part must sum to the change of the score along it. So those parts that miss it most are halved
//! until the whole is within the tolerance, and what bends is resolved where it bends. A number of steps that was asked for is
//! taken as it is, by Gauss–Legendre over the whole way.
//! With 50 steps 28 of the 32 recorded rows are met within 1e-6 or so of the largest entry. In four a rectifier lies on its kink
//! at one step, and rounding decides: row 1 of `cnn` (2.1e-4) and row 5 of `resnet` (7.3e-4), where Captum in double precision is
//! where we are, and row 6 of `resnet` (1.9e-4) and of `mobilenet` (1.3e-3), where we are on the other side.
//! Weak where the baseline means something to the network, and where the way leaves the data.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use serde::{Deserialize, Serialize};

use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};
use netproof_stats::quadrature::gauss_legendre;

pub(crate) static CARD: Card = Card {
    id: "integrated-gradients",
    version: 1,
    kind: CardKind::Explanation,
    title: "Integrated gradients",
    challenge: Challenge::Interpretability,
    measures: "What each element adds to the score on the straight way from the baseline to the row. Attributions sum to the \
               difference of the two scores.",
    reference: "Sundararajan, Taly and Yan, ICML 2017, arXiv:1703.01365, equation 1",
    needs: &[Need::InputGradient],
    options: &[
        OptionDoc {
            name: "steps",
            default: "0",
            doc: "Points of the Gauss–Legendre rule; 0 begins with 50 and refines until the tolerance is met.",
        },
        OptionDoc {
            name: "tolerance",
            default: "0.001",
            doc: "Largest error of completeness as a fraction of the difference of scores, above 0; only where steps is 0.",
        },
        OptionDoc {
            name: "most_steps",
            default: "4000",
            doc: "Most gradients per row where steps is 0; a row that needs more is said to.",
        },
    ],
};

/// Points over the whole way before anything is refined.
const FIRST: usize = 50;
/// Parts that a way is cut into where it needs refining, and points in each.
const PARTS: usize = 16;
const POINTS: usize = 5;

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct IntegratedGradients {
    steps: usize,
    tolerance: f64,
    most_steps: usize,
}

impl Default for IntegratedGradients {
    fn default() -> Self {
        Self { steps: 0, tolerance: 1e-3, most_steps: 4000 }
    }
}

/// A part of the way of one row, with its share of the integral.
struct Part {
    row: usize,
    from: f64,
    to: f64,
    /// Mean gradient of the part times its length.
    integral: Vec<f64>,
    /// By how much it misses completeness.
    miss: f64,
}

impl Explainer for IntegratedGradients {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        if !(self.tolerance > 0.0 && self.tolerance.is_finite()) {
            return Err(ExplainError::option("tolerance", self.tolerance, "above 0"));
        }
        let (n, width) = (q.len(), net.row_len());
        let (scores, base) = (net.own_scores(q)?, net.baseline_scores(q)?);
        let difference: Vec<f64> = scores.iter().zip(&base).map(|(a, b)| a - b).collect();
        let steps = if self.steps == 0 { FIRST.min(self.most_steps.max(1)) } else { self.steps };
        let mut all = over_the_whole_way(net, q, steps)?;
        let mut notes = Vec::new();
        if self.steps == 0 {
            let goal: Vec<f64> = difference.iter().map(|d| self.tolerance * d.abs().max(1e-6)).collect();
            let missing = |row: usize| {
                (all[row * width..(row + 1) * width].iter().sum::<f64>() - difference[row]).abs() > goal[row]
            };
            let rest: Vec<usize> = (0..n).filter(|&i| missing(i)).collect();
            if !rest.is_empty() {
                let unfinished = self.refine(net, q, &rest, &goal, &mut all)?;
                if unfinished > 0 {
                    notes.push(format!(
                        "{unfinished} of {n} rows miss completeness by more than {} after {} gradients; see delta",
                        self.tolerance, self.most_steps
                    ));
                }
            }
        }
        let values = all.into_iter().map(|v| v as f32).collect();
        let mut e = Explanation::of_input(net, n, values)?.complete(difference);
        e.notes = notes;
        Ok(e)
    }
}

/// Gauss–Legendre from the baseline to each row: row times mean gradient, `[n, elements]`.
fn over_the_whole_way(net: &Explained<'_>, q: &Question, steps: usize) -> Result<Vec<f64>, ExplainError> {
    let (n, width) = (q.len(), net.row_len());
    let (nodes, weights) = gauss_legendre(steps);
    let mut all = vec![0.0; n * width];
    // A row's steps follow one another, so that a part of the batch sums into one row.
    let fill = |i: usize, row: &mut [f32]| {
        between(q, i / steps, nodes[i % steps], row);
        i / steps
    };
    net.gradients(q, n * steps, fill, |i, _, g| {
        let (row, w) = (i / steps, weights[i % steps]);
        all[row * width..(row + 1) * width].iter_mut().zip(g).for_each(|(a, &g)| *a += w * f64::from(g));
    })?;
    scale(q, &mut all, width);
    Ok(all)
}

fn scale(q: &Question, all: &mut [f64], width: usize) {
    for (i, row) in all.chunks_mut(width.max(1)).enumerate() {
        for ((a, &x), &b) in row.iter_mut().zip(q.row(i)).zip(q.baseline_row(i)) {
            *a *= f64::from(x) - f64::from(b);
        }
    }
}

/// The place `alpha` on the way from the baseline (0) to the row (1).
pub(super) fn between(q: &Question, i: usize, alpha: f64, row: &mut [f32]) {
    let alpha = alpha as f32;
    for ((r, &x), &b) in row.iter_mut().zip(q.row(i)).zip(q.baseline_row(i)) {
        *r = b + alpha * (x - b);
    }
}

impl IntegratedGradients {
    /// Halves parts of the ways of `rows` until the misses are within `goal`; answers how many rows never get there.
    fn refine(
        &self,
        net: &Explained<'_>,
        q: &Question,
        rows: &[usize],
        goal: &[f64],
        all: &mut [f64],
    ) -> Result<usize, ExplainError> {
        let width = net.row_len();
        let mut spent = vec![FIRST; q.len()];
        let mut done: Vec<Vec<Part>> = (0..q.len()).map(|_| Vec::new()).collect();
        let cuts = |row: usize| (0..PARTS).map(move |k| (row, k as f64 / PARTS as f64, (k + 1) as f64 / PARTS as f64));
        let mut pending: Vec<(usize, f64, f64)> = rows.iter().flat_map(|&row| cuts(row)).collect();
        let mut best = vec![f64::INFINITY; q.len()];
        while !pending.is_empty() {
            for part in parts(net, q, &pending)? {
                spent[part.row] += POINTS + 2;
                done[part.row].push(part);
            }
            pending.clear();
            for &row in rows {
                let parts = &mut done[row];
                best[row] = parts.iter().map(|p| p.miss).sum::<f64>().abs();
                if best[row] <= goal[row] || spent[row] >= self.most_steps {
                    continue;
                }
                // The parts that miss most, half of them at a time.
                parts.sort_by(|a, b| b.miss.abs().total_cmp(&a.miss.abs()).then(a.from.total_cmp(&b.from)));
                for part in parts.drain(..parts.len().div_ceil(2)) {
                    let middle = 0.5 * (part.from + part.to);
                    pending.extend([(row, part.from, middle), (row, middle, part.to)]);
                }
            }
        }
        let mut unfinished = 0;
        for &row in rows {
            let a = &mut all[row * width..(row + 1) * width];
            a.fill(0.0);
            // In the order of the way, so that the sum does not depend on the order of refinement.
            done[row].sort_by(|p, q| p.from.total_cmp(&q.from));
            done[row].iter().for_each(|p| a.iter_mut().zip(&p.integral).for_each(|(a, v)| *a += v));
            unfinished += usize::from(best[row] > goal[row]);
        }
        Ok(unfinished)
    }
}

/// The integrals over some parts of ways, with what they miss.
fn parts(net: &Explained<'_>, q: &Question, pieces: &[(usize, f64, f64)]) -> Result<Vec<Part>, ExplainError> {
    let width = net.row_len();
    let (nodes, weights) = gauss_legendre(POINTS);
    let ends = net.scores(q, 2 * pieces.len(), |i, row| {
        let (of, from, to) = pieces[i / 2];
        between(q, of, if i % 2 == 0 { from } else { to }, row);
        of
    })?;
    let mut found: Vec<Part> =
        pieces.iter().map(|&(row, from, to)| Part { row, from, to, integral: vec![0.0; width], miss: 0.0 }).collect();
    let fill = |i: usize, row: &mut [f32]| {
        let (of, from, to) = pieces[i / POINTS];
        between(q, of, from + (to - from) * nodes[i % POINTS], row);
        of
    };
    net.gradients(q, pieces.len() * POINTS, fill, |i, _, g| {
        let part = &mut found[i / POINTS];
        let w = weights[i % POINTS] * (part.to - part.from);
        let (x, b) = (q.row(part.row), q.baseline_row(part.row));
        for (((a, &g), &x), &b) in part.integral.iter_mut().zip(g).zip(x).zip(b) {
            *a += w * f64::from(g) * (f64::from(x) - f64::from(b));
        }
    })?;
    for (part, ends) in found.iter_mut().zip(ends.chunks(2)) {
        part.miss = part.integral.iter().sum::<f64>() - (ends[1] - ends[0]);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpretability::test_support::{ask, close, golden_network, kinked, linear, net_of, recorded, run};

    #[test]
    fn of_a_linear_network_it_is_weight_times_input() {
        let e = run("integrated-gradients", &linear(&[2.0, -3.0, 0.5], 1.0), &[[1.0, 2.0, -4.0]], "");
        close(e.attributions.as_f32().unwrap(), &[2.0, -6.0, -2.0], 1e-6);
        assert!(e.delta.unwrap()[0].abs() < 1e-5);
    }

    #[test]
    fn a_kink_on_the_way_is_resolved() {
        // Captum's test network: x = (20, 50, 30) crosses a kink at a tenth of the way; the integral is 3.9 x.
        let e = run("integrated-gradients", &kinked(), &[[20.0, 50.0, 30.0]], "");
        close(e.attributions.as_f32().unwrap(), &[78.0, 195.0, 117.0], 1e-3);
        assert!(e.delta.unwrap()[0].abs() <= 1e-3 * 390.0 && e.notes.is_empty());
        // With as few steps as are asked for it misses, and says by how much.
        let e = run("integrated-gradients", &kinked(), &[[20.0, 50.0, 30.0]], "steps = 5");
        let sum: f32 = e.attributions.as_f32().unwrap().iter().sum();
        assert!((f64::from(sum) - 390.0 - e.delta.unwrap()[0]).abs() < 1e-3);
    }

    /// Four rows lie on a kink, see above. There Captum's values are ours for a row that is darker or brighter by at most 1e-5 of
    /// itself, which moves no other value by more than the tolerance.
    #[test]
    fn it_is_captums_with_as_many_steps() {
        let name = "integrated_gradients_50_gausslegendre_zero_baseline";
        for network in ["cnn", "resnet", "vit", "mobilenet"] {
            let Some((model, x, labels)) = golden_network(network, 8) else { return };
            let wanted = recorded("fashion-golden.npz", &[&format!("{network}/{name}")]).unwrap();
            let wanted = wanted[0].as_f32().unwrap();
            let largest = wanted.iter().fold(0f32, |m, v| m.max(v.abs()));
            let misses = |scale: f32, rows: &[usize]| -> Vec<f32> {
                let values = rows.iter().flat_map(|&r| &x.as_f32().unwrap()[r * 784..(r + 1) * 784]);
                let values = values.map(|v| v * scale).collect();
                let moved = netproof_tensor::Tensor::f32(vec![rows.len(), 1, 28, 28], values).unwrap();
                let own = rows.iter().map(|&r| labels[r]).collect();
                let found = ask("integrated-gradients", &net_of(&model, &x), moved, own, "steps = 50");
                let pairs = found.attributions.as_f32().unwrap().chunks(784).zip(rows);
                let worst = |(f, &r): (&[f32], &usize)| {
                    f.iter().zip(&wanted[r * 784..]).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
                };
                pairs.map(worst).collect()
            };
            let all: Vec<usize> = (0..8).collect();
            for (row, miss) in misses(1.0, &all).into_iter().enumerate() {
                if miss <= 1e-4 {
                    continue;
                }
                let kinks = [("cnn", 1), ("resnet", 5), ("resnet", 6), ("mobilenet", 6)];
                assert!(kinks.contains(&(network, row)) && miss <= 2e-3, "{network} row {row}: {miss}");
                let steps = [1e-7, 3e-7, 1e-6, 3e-6, 1e-5].into_iter().flat_map(|s| [1.0 - s, 1.0 + s]);
                let best = steps.map(|s| misses(s, &[row])[0]).fold(f32::INFINITY, f32::min);
                assert!(best <= 1e-4, "{network} row {row}: {best} with the row moved, {miss} without");
            }
        }
    }

    #[test]
    fn it_is_complete_on_every_golden_network() {
        for name in ["cnn", "resnet", "vit", "mobilenet"] {
            let Some((model, x, labels)) = golden_network(name, 3) else { return };
            let net = net_of(&model, &x);
            let e = ask("integrated-gradients", &net, x, labels, "");
            for (delta, difference) in e.delta.unwrap().iter().zip(e.difference.unwrap()) {
                assert!(delta.abs() <= 1.1e-3 * difference.abs(), "{name}: {delta} of {difference}");
            }
        }
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let method = IntegratedGradients { tolerance: 0.0, ..IntegratedGradients::default() };
        let model = linear(&[1.0], 0.0);
        let x = netproof_tensor::Tensor::f32(vec![1, 1], vec![1.0]).unwrap();
        let net = net_of(&model, &x);
        let e = method.explain(&net, &Question::new(x, vec![0]).unwrap()).unwrap_err();
        assert!(e.to_string().contains("tolerance is 0"), "{e}");
    }
}
