//! Steps that raise a linearised loss.

use netproof_core::Norm;
use netproof_stats::rng::Rng;

use super::projection::{Ball, distance};

/// Fraction of the features that one sparse step changes. Tramèr and Boneh, NeurIPS 2019, arXiv:1904.13000, appendix
/// (`SLIDE`, percentile 99).
const SPARSE: f64 = 0.01;

/// Moves `x` by `size` along the steepest ascent of the norm. l-infinity: the signs; l2: the gradient's direction; l1: the
/// signs of the largest hundredth of the gradient, in equal parts; l0: those features by their whole range.
///
/// # Edge cases
/// A gradient that is zero everywhere moves nothing. For l1 and l0, features at the edge of the box that would leave it are
/// passed over: the projection would take their part of the step away.
pub(crate) fn step(ball: &Ball, gradient: &[f32], size: f32, x: &mut [f32]) {
    match ball.norm {
        Norm::Linf => {
            for (x, g) in x.iter_mut().zip(gradient) {
                if *g != 0.0 {
                    *x += size.copysign(*g);
                }
            }
        }
        Norm::L2 => {
            let length = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            if length > 0.0 {
                let scale = (f64::from(size) / length) as f32;
                x.iter_mut().zip(gradient).for_each(|(x, g)| *x += scale * g);
            }
        }
        Norm::L1 | Norm::L0 => {
            let most = ((gradient.len() as f64 * SPARSE).ceil() as usize).max(1);
            let stays = |(g, x): (&f32, &f32)| if *g > 0.0 { *x >= ball.high } else { *x <= ball.low };
            let free: Vec<f32> = gradient.iter().zip(x.iter()).map(|p| if stays(p) { 0.0 } else { *p.0 }).collect();
            let chosen = steepest(&free, most);
            let each = if ball.norm == Norm::L1 { size / chosen.len().max(1) as f32 } else { size };
            chosen.into_iter().for_each(|i| x[i] += each.copysign(gradient[i]));
        }
        // Patches and motions are searched in ways of their own.
        Norm::Patch | Norm::Spatial => {}
    }
}

/// Features with the largest gradients that are not zero, at most `most`, steepest first.
fn steepest(gradient: &[f32], most: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..gradient.len()).filter(|&i| gradient[i] != 0.0).collect();
    let by_size = |a: &usize, b: &usize| gradient[*b].abs().total_cmp(&gradient[*a].abs()).then(a.cmp(b));
    if order.len() > most {
        order.select_nth_unstable_by(most, by_size);
        order.truncate(most);
    }
    order.sort_unstable_by(by_size);
    order
}

/// The point of ball ∩ box where a linear function is largest (l2: the point of the ball, then the box).
pub(crate) fn linear_maximum(ball: &Ball, origin: &[f32], gradient: &[f32]) -> Vec<f32> {
    let mut x = origin.to_vec();
    let room = |i: usize| {
        let o = origin[i];
        if gradient[i] > 0.0 { ball.high - o } else { o - ball.low }.max(0.0)
    };
    match ball.norm {
        Norm::Linf | Norm::L2 => {
            step(ball, gradient, ball.epsilon, &mut x);
            ball.project(origin, &mut x);
        }
        Norm::L1 => {
            let mut left = ball.epsilon;
            for i in steepest(gradient, gradient.len()) {
                if left <= 0.0 {
                    break;
                }
                let by = room(i).min(left);
                x[i] = (origin[i] + by.copysign(gradient[i])).clamp(ball.low, ball.high);
                left -= by;
            }
        }
        Norm::L0 => {
            let gain: Vec<f32> = (0..gradient.len()).map(|i| gradient[i] * room(i)).collect();
            for i in steepest(&gain, ball.epsilon.max(0.0) as usize) {
                x[i] = if gradient[i] > 0.0 { ball.high } else { ball.low };
            }
        }
        Norm::Patch | Norm::Spatial => {}
    }
    x
}

/// A random point of ball ∩ box to start from: uniform in the cube for l-infinity, of uniform length and direction for l2,
/// a random sparse point for l1 and l0.
pub(crate) fn random_point(ball: &Ball, origin: &[f32], rng: &mut Rng) -> Vec<f32> {
    let e = f64::from(ball.epsilon);
    let n = origin.len();
    let mut x: Vec<f32> = match ball.norm {
        Norm::Linf => origin.iter().map(|o| o + (e * (2.0 * rng.unit() - 1.0)) as f32).collect(),
        Norm::L2 => {
            let direction: Vec<f32> = (0..n).map(|_| rng.normal() as f32).collect();
            let length = distance(Norm::L2, &direction, &vec![0.0; n]).max(1e-12);
            let scale = (e * rng.unit() / length) as f32;
            origin.iter().zip(direction).map(|(o, d)| o + scale * d).collect()
        }
        Norm::L1 => {
            let direction: Vec<f64> =
                (0..n).map(|_| -(1.0 - rng.unit()).ln() * if rng.unit() < 0.5 { -1.0 } else { 1.0 }).collect();
            let length: f64 = direction.iter().map(|d| d.abs()).sum::<f64>().max(1e-12);
            let scale = e * rng.unit() / length;
            origin.iter().zip(direction).map(|(o, d)| o + (scale * d) as f32).collect()
        }
        Norm::L0 => {
            let mut x = origin.to_vec();
            for _ in 0..(ball.epsilon.max(0.0) as usize).min(n) {
                x[rng.below(n)] = ball.low + (ball.high - ball.low) * rng.unit() as f32;
            }
            x
        }
        Norm::Patch | Norm::Spatial => origin.to_vec(),
    };
    ball.project(origin, &mut x);
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ball(norm: Norm, epsilon: f32) -> Ball {
        Ball { norm, epsilon, low: 0.0, high: 1.0 }
    }

    #[test]
    fn the_linear_maximum_is_that_of_the_closed_form() {
        let (o, g) = ([0.5, 0.9, 0.5], [1.0, 3.0, -2.0]);
        assert_eq!(linear_maximum(&ball(Norm::Linf, 0.25), &o, &g), [0.75, 1.0, 0.25]);
        // 0.1 of room in the steepest feature, the rest of the budget in the next.
        let x = linear_maximum(&ball(Norm::L1, 0.5), &o, &g);
        assert!((x[1] - 1.0).abs() < 1e-6 && (x[2] - 0.1).abs() < 1e-6 && x[0] == 0.5, "{x:?}");
        // Gains are 0.5, 0.3 and 1: the one that gains most, not the steepest.
        assert_eq!(linear_maximum(&ball(Norm::L0, 1.0), &o, &g), [0.5, 0.9, 0.0]);
        let x = linear_maximum(&ball(Norm::L2, 0.1), &[0.5, 0.5], &[3.0, 4.0]);
        assert!((x[0] - 0.56).abs() < 1e-6 && (x[1] - 0.58).abs() < 1e-6);
    }

    #[test]
    fn steps_have_the_length_that_is_asked_for() {
        let g: Vec<f32> = (0..300).map(|i| (i as f32 - 150.5) / 7.0).collect();
        for norm in [Norm::Linf, Norm::L2, Norm::L1] {
            let wide = Ball { norm, epsilon: 1.0, low: -9.0, high: 9.0 };
            let mut x = vec![0.0; 300];
            step(&wide, &g, 0.5, &mut x);
            assert!((distance(norm, &x, &[0.0; 300]) - 0.5).abs() < 1e-6, "{norm}");
            assert!(x.iter().zip(&g).all(|(x, g)| x * g >= 0.0));
            let mut still = vec![0.25; 300];
            step(&wide, &[0.0; 300], 0.5, &mut still);
            assert!(still.iter().all(|v| *v == 0.25));
        }
    }

    #[test]
    fn sparse_steps_pass_over_features_that_cannot_move() {
        let mut x = [1.0, 0.5, 0.0];
        step(&ball(Norm::L1, 1.0), &[5.0, 1.0, -9.0], 0.25, &mut x);
        assert_eq!(x, [1.0, 0.75, 0.0]);
    }

    #[test]
    fn random_points_are_within_the_ball_and_differ() {
        let o = vec![0.5; 40];
        for norm in Norm::OF_VECTORS {
            let b = ball(norm, if norm == Norm::L0 { 5.0 } else { 0.4 });
            let mut rng = Rng::new(5);
            let (a, c) = (random_point(&b, &o, &mut rng), random_point(&b, &o, &mut rng));
            assert_ne!(a, c);
            for x in [a, c] {
                let d = distance(norm, &x, &o);
                assert!(d > 0.0 && d <= f64::from(b.epsilon) + 1e-5, "{norm} {d}");
            }
        }
    }
}
