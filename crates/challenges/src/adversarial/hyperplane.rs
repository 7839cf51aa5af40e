//! The smallest move within the box that takes a point onto a hyperplane, in l-infinity, l2 and l1.
//! Croce and Hein, ICML 2020, arXiv:1907.02044, section 3.1 and appendix A.
//!
//! Each feature can move against or along its weight as far as the box lets it. How much of the way to the plane that gives
//! is concave and piecewise linear in one multiplier, so Newton's method from below meets the root after a few sweeps, without
//! sorting; l1 takes the features by falling weight.

use netproof_core::Norm;

/// The move `d` with the least norm such that `w · (x + d) = w · x - gap` and `x + d` is within `[low, high]`. Where the box
/// does not let it get there, the move that comes nearest: every feature at its edge.
pub(crate) fn reach(norm: Norm, x: &[f32], w: &[f32], gap: f64, low: f32, high: f32) -> Vec<f32> {
    // Downwards where the gap is positive.
    let sign = if gap >= 0.0 { -1.0 } else { 1.0 };
    let need = gap.abs();
    let room = |i: usize| -> f64 {
        let up = f64::from(w[i]) * sign > 0.0;
        f64::from(if up { high - x[i] } else { x[i] - low }).max(0.0)
    };
    let weight = |i: usize| f64::from(w[i]).abs();
    let size: Box<dyn Fn(usize) -> f64> = match norm {
        Norm::L1 | Norm::L0 | Norm::Patch | Norm::Spatial => return reach_l1(x, w, need, sign, room),
        Norm::L2 => {
            let m = multiplier(x.len(), need, |i| (weight(i) * room(i), weight(i) * weight(i)));
            Box::new(move |i| if w[i] == 0.0 { 0.0 } else { (m * weight(i)).min(room(i)) })
        }
        Norm::Linf => {
            let m = multiplier(x.len(), need, |i| (weight(i) * room(i), weight(i)));
            Box::new(move |i| if w[i] == 0.0 { 0.0 } else { m.min(room(i)) })
        }
    };
    (0..x.len()).map(|i| (size(i) * sign * f64::from(w[i]).signum()) as f32).collect()
}

/// The least `m` with `sum min(m * slope, most) = need`, for pairs `(most, slope)`; infinite where the sum stays below.
fn multiplier(n: usize, need: f64, part: impl Fn(usize) -> (f64, f64)) -> f64 {
    let parts: Vec<(f64, f64)> = (0..n).map(part).filter(|p| p.1 > 0.0).collect();
    let mut m = 0.0;
    loop {
        let (mut sum, mut slope) = (0.0, 0.0);
        for &(most, s) in &parts {
            if m * s < most {
                sum += m * s;
                slope += s;
            } else {
                sum += most;
            }
        }
        if slope <= 0.0 {
            return f64::INFINITY;
        }
        let next = m + (need - sum) / slope;
        // Each sweep leaves at least one more feature at its edge, or is the last.
        if next <= m * (1.0 + 1e-12) {
            return m;
        }
        m = next;
    }
}

fn reach_l1(x: &[f32], w: &[f32], need: f64, sign: f64, room: impl Fn(usize) -> f64) -> Vec<f32> {
    let mut d = vec![0.0; x.len()];
    let mut order: Vec<usize> = (0..x.len()).filter(|&i| w[i] != 0.0).collect();
    order.sort_unstable_by(|&a, &b| w[b].abs().total_cmp(&w[a].abs()).then(a.cmp(&b)));
    let mut left = need;
    for i in order {
        let weight = f64::from(w[i]).abs();
        let by = room(i).min(left / weight);
        d[i] = (by * sign * f64::from(w[i]).signum()) as f32;
        left -= by * weight;
        if left <= 0.0 {
            break;
        }
    }
    d
}

#[cfg(test)]
mod tests {
    use netproof_stats::rng::Rng;

    use super::*;
    use crate::adversarial::projection::distance;

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    #[test]
    fn without_edges_the_move_is_that_of_the_dual_norm() {
        let (x, w) = ([0.5; 3], [1.0, -2.0, 0.5]);
        for (norm, size) in [(Norm::Linf, 0.35 / 3.5), (Norm::L2, 0.35 / 5.25f64.sqrt()), (Norm::L1, 0.35 / 2.0)] {
            for gap in [0.35, -0.35] {
                let d = reach(norm, &x, &w, gap, 0.0, 1.0);
                assert!((dot(&w, &d) + gap).abs() < 1e-6, "{norm}");
                assert!((distance(norm, &d, &[0.0; 3]) - size).abs() < 1e-6, "{norm}: {d:?}");
            }
        }
    }

    #[test]
    fn no_other_move_within_the_box_is_shorter() {
        let mut rng = Rng::new(3);
        for round in 0..300 {
            let n = 6;
            let x: Vec<f32> =
                (0..n).map(|_| if rng.unit() < 0.3 { rng.below(2) as f32 } else { rng.unit() as f32 }).collect();
            let w: Vec<f32> = (0..n).map(|_| if rng.unit() < 0.1 { 0.0 } else { rng.normal() as f32 }).collect();
            let gap = rng.normal();
            for norm in [Norm::Linf, Norm::L2, Norm::L1] {
                let d = reach(norm, &x, &w, gap, 0.0, 1.0);
                assert!(d.iter().zip(&x).all(|(d, x)| (-1e-6..=1.0 + 1e-6).contains(&(x + d))), "{norm} {d:?}");
                let reached = dot(&w, &d);
                let most: f64 = (0..n)
                    .map(|i| {
                        let up = f64::from(w[i]) * -gap.signum() > 0.0;
                        f64::from(w[i].abs()) * f64::from(if up { 1.0 - x[i] } else { x[i] })
                    })
                    .sum();
                let want = -gap.signum() * gap.abs().min(most);
                assert!((reached - want).abs() < 1e-5, "{norm} round {round}: {reached} for {want}");
                let size = distance(norm, &d, &vec![0.0; n]);
                for _ in 0..40 {
                    // A random move of the same effect: random sizes scaled up until the effect is there, cut at the box.
                    let mut e: Vec<f32> = (0..n)
                        .map(|i| {
                            let up = f64::from(w[i]) * -gap.signum() > 0.0;
                            let room = if up { 1.0 - x[i] } else { -x[i] };
                            room * rng.unit() as f32
                        })
                        .collect();
                    let effect = dot(&w, &e).abs();
                    if effect + 1e-9 < want.abs() {
                        continue;
                    }
                    let scale = (want.abs() / effect.max(1e-12)) as f32;
                    e.iter_mut().for_each(|v| *v *= scale);
                    assert!(distance(norm, &e, &vec![0.0; n]) >= size - 1e-5, "{norm}");
                }
            }
        }
    }
}
