//! Nearest points of norm balls, cut with the box of allowed values.
//!
//! l-infinity: both are boxes. l2: rescaling, then the box, as Madry et al. and AutoAttack do; [`Ball::project`] repeats until
//! both hold, which the box after a rescaling always does: it moves no coordinate further from an origin within it.
//! l1: the exact projection onto ball ∩ box, by sorting the breakpoints of its dual and solving for the multiplier: Croce and
//! Hein, ICML 2021, arXiv:2103.01208, proposition 2.1; Duchi et al., ICML 2008, without the box. l0: the features with
//! the largest change that the box lets through, which is nearest, since the box acts on each feature alone.

use netproof_core::{Norm, Threat};

/// Norms with convex balls: those that most methods are made for.
pub(crate) const CONVEX: &[Norm] = &[Norm::Linf, Norm::L2, Norm::L1];

/// A ball around an origin, cut with the box, in the numbers of the network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ball {
    /// Norm.
    pub norm: Norm,
    /// Radius; for l0 a number of features.
    pub epsilon: f32,
    /// Least value of a feature.
    pub low: f32,
    /// Largest value of a feature.
    pub high: f32,
}

impl From<&Threat> for Ball {
    fn from(t: &Threat) -> Self {
        let [low, high] = t.bounds.map(|b| b as f32);
        Self { norm: t.norm, epsilon: t.epsilon as f32, low, high }
    }
}

/// How much a distance may be above epsilon by rounding alone.
///
/// A feature of size up to 1 in float32 carries 6e-8; sums of squares and of absolute values carry as much relative to
/// their size, and `sqrt(n)` or `n` of them.
pub fn tolerance(threat: &Threat, features: usize) -> f64 {
    let size = threat.bounds[0].abs().max(threat.bounds[1].abs()).max(threat.width());
    let ulp = size * f64::from(f32::EPSILON);
    match threat.norm {
        Norm::Linf => ulp,
        Norm::L2 => ulp * (features as f64).sqrt() + 1e-6 * threat.epsilon,
        Norm::L1 => ulp * features as f64 + 1e-6 * threat.epsilon,
        Norm::L0 | Norm::Patch => 0.0,
        // Angles and shifts are kept in float32.
        Norm::Spatial => 1e-6 * threat.epsilon,
    }
}

/// Size of the change from `a` to `b`. NaN where one of them holds one, and for norms that need to know more than two rows:
/// see [`size`].
pub fn distance(norm: Norm, a: &[f32], b: &[f32]) -> f64 {
    let differences = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    match norm {
        // `max` drops NaN.
        Norm::Linf => differences.fold(0.0, |m: f64, d| if d > m || d.is_nan() { d } else { m }),
        Norm::L2 => differences.map(|d| d * d).sum::<f64>().sqrt(),
        Norm::L1 => differences.sum(),
        Norm::L0 => differences.map(|d| if d.is_nan() { d } else { f64::from(u8::from(d != 0.0)) }).sum(),
        Norm::Patch | Norm::Spatial => f64::NAN,
    }
}

/// Size of the change from `a` to `b`, rows of this shape. Of a motion it is not in the pixels: see
/// [`Motion::size`](super::motion::Motion::size).
pub fn size(norm: Norm, row: &[usize], a: &[f32], b: &[f32]) -> f64 {
    if norm == Norm::Patch { super::square::side(row, a, b) } else { distance(norm, a, b) }
}

impl Ball {
    /// Moves `x` to the nearest point within the ball around `origin` and the box (l2: to a near one). What is NaN becomes the
    /// origin's value.
    ///
    /// # Edge cases
    /// Where the origin itself is outside the box, the box wins for l-infinity and l2; the harness does not attack such rows.
    pub fn project(&self, origin: &[f32], x: &mut [f32]) {
        for (x, o) in x.iter_mut().zip(origin) {
            if x.is_nan() {
                *x = *o;
            }
        }
        let (e, low, high) = (self.epsilon, self.low, self.high);
        match self.norm {
            Norm::Linf => {
                for (x, o) in x.iter_mut().zip(origin) {
                    *x = x.clamp(o - e, o + e).clamp(low, high);
                }
            }
            Norm::L2 => {
                let size = distance(Norm::L2, x, origin);
                if size > f64::from(e) {
                    let scale = (f64::from(e) / size) as f32;
                    x.iter_mut().zip(origin).for_each(|(x, o)| *x = o + (*x - o) * scale);
                }
                x.iter_mut().for_each(|x| *x = x.clamp(low, high));
            }
            Norm::L1 => project_l1(origin, x, e, low, high),
            Norm::L0 => project_l0(origin, x, e.max(0.0) as usize, low, high),
            // Where a patch may be is not known here: the box is all that holds.
            Norm::Patch | Norm::Spatial => x.iter_mut().for_each(|x| *x = x.clamp(low, high)),
        }
    }
}

/// The exact projection onto l1 ball ∩ box.
///
/// With `u = |x - o|` and `t` the room that the box leaves each feature, the solution is `clamp(u - λ, 0, t)` for the least
/// `λ >= 0` whose sum is at most epsilon. The sum falls in pieces that are linear between the breakpoints `u - t` and `u`.
fn project_l1(origin: &[f32], x: &mut [f32], epsilon: f32, low: f32, high: f32) {
    let room = |d: f32, o: f32| if d >= 0.0 { (high - o).max(0.0) } else { (o - low).max(0.0) };
    let inside: f64 = x.iter().zip(origin).map(|(x, o)| f64::from((x - o).abs().min(room(x - o, *o)))).sum();
    let lambda = if inside <= f64::from(epsilon) { 0.0 } else { multiplier(origin, x, epsilon, room) };
    for (x, o) in x.iter_mut().zip(origin) {
        let d = *x - o;
        let size = (f64::from(d.abs()) - lambda).clamp(0.0, f64::from(room(d, *o))) as f32;
        *x = (o + size.copysign(d)).clamp(low.min(*o), high.max(*o));
    }
}

fn multiplier(origin: &[f32], x: &[f32], epsilon: f32, room: impl Fn(f32, f32) -> f32) -> f64 {
    // Where the slope changes: at `u - t` a feature leaves the box's edge, at `u` it reaches zero.
    let mut points: Vec<(f64, f64)> = Vec::with_capacity(2 * x.len());
    let (mut sum, mut slope) = (0.0, 0.0);
    for (x, o) in x.iter().zip(origin) {
        let (u, t) = (f64::from((x - o).abs()), f64::from(room(x - o, *o)));
        if u == 0.0 || t == 0.0 {
            continue;
        }
        sum += u.min(t);
        if u > t {
            points.push((u - t, -1.0));
        } else {
            slope -= 1.0;
        }
        points.push((u, 1.0));
    }
    points.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut at, epsilon) = (0.0, f64::from(epsilon));
    for (point, change) in points {
        let next = sum + slope * (point - at);
        if next <= epsilon && slope < 0.0 {
            return at + (sum - epsilon) / -slope;
        }
        (sum, at) = (next, point);
        slope += change;
    }
    at
}

fn project_l0(origin: &[f32], x: &mut [f32], most: usize, low: f32, high: f32) {
    x.iter_mut().for_each(|x| *x = x.clamp(low, high));
    let changed = x.iter().zip(origin).filter(|(x, o)| x != o).count();
    if changed <= most {
        return;
    }
    let mut order: Vec<usize> = (0..x.len()).collect();
    let size = |i: usize| (x[i] - origin[i]).abs();
    order.sort_by(|&a, &b| size(b).total_cmp(&size(a)).then(a.cmp(&b)));
    order[most..].iter().for_each(|&i| x[i] = origin[i]);
}

#[cfg(test)]
mod tests {
    use netproof_stats::rng::Rng;

    use super::*;

    fn ball(norm: Norm, epsilon: f32) -> Ball {
        Ball { norm, epsilon, low: 0.0, high: 1.0 }
    }

    fn draw(rng: &mut Rng, n: usize, low: f64, high: f64) -> Vec<f32> {
        (0..n).map(|_| (low + (high - low) * rng.unit()) as f32).collect()
    }

    #[test]
    fn projections_are_within_ball_and_box_and_leave_what_is_within_alone() {
        let mut rng = Rng::new(1);
        for norm in Norm::OF_VECTORS {
            for epsilon in [0.0, 0.05, 0.7, 3.0, 50.0] {
                let b = ball(norm, epsilon);
                let threat = Threat { norm, epsilon: f64::from(epsilon), bounds: [0.0, 1.0] };
                for _ in 0..30 {
                    let o = draw(&mut rng, 20, 0.0, 1.0);
                    let mut x = draw(&mut rng, 20, -1.5, 2.5);
                    b.project(&o, &mut x);
                    let size = distance(norm, &x, &o);
                    assert!(
                        size <= threat.epsilon.floor().max(threat.epsilon) + tolerance(&threat, 20),
                        "{norm} {epsilon}: {size}"
                    );
                    assert!(x.iter().all(|v| (0.0..=1.0).contains(v)));
                    let again = {
                        let mut y = x.clone();
                        b.project(&o, &mut y);
                        y
                    };
                    assert!(x.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-6), "{norm}: not idempotent");
                }
            }
        }
    }

    /// No feasible point is nearer: moves from the projection towards random feasible points never come closer.
    #[test]
    fn the_l1_projection_is_the_nearest_point() {
        let mut rng = Rng::new(2);
        for round in 0..200 {
            let epsilon = [0.3, 1.0, 2.5][round % 3];
            let b = ball(Norm::L1, epsilon);
            let o = draw(&mut rng, 12, 0.0, 1.0);
            let target = draw(&mut rng, 12, -1.0, 2.0);
            let mut x = target.clone();
            b.project(&o, &mut x);
            for _ in 0..50 {
                let mut other = draw(&mut rng, 12, 0.0, 1.0);
                let size = distance(Norm::L1, &other, &o);
                let scale = (f64::from(epsilon) / size.max(1e-9)).min(1.0) as f32;
                other.iter_mut().zip(&o).for_each(|(v, o)| *v = o + (*v - o) * scale);
                let product: f64 = (0..12).map(|i| f64::from(target[i] - x[i]) * f64::from(other[i] - x[i])).sum();
                // The variational inequality of a projection onto a convex set.
                assert!(product <= 1e-5, "{product}");
            }
        }
    }

    #[test]
    fn the_l1_projection_uses_the_room_that_rescaling_wastes() {
        // Feature 0 cannot move, so all of epsilon goes to feature 1.
        let mut x = [3.0, 0.9];
        ball(Norm::L1, 0.3).project(&[1.0, 0.5], &mut x);
        assert!(x[0] == 1.0 && (x[1] - 0.8).abs() < 1e-6, "{x:?}");
    }

    #[test]
    fn closed_forms() {
        let mut x = [3.0, 4.0];
        Ball { norm: Norm::L2, epsilon: 1.0, low: -9.0, high: 9.0 }.project(&[0.0, 0.0], &mut x);
        assert!((x[0] - 0.6).abs() < 1e-6 && (x[1] - 0.8).abs() < 1e-6);
        let mut x = [3.0, -0.5, 1.0];
        Ball { norm: Norm::L1, epsilon: 2.0, low: -9.0, high: 9.0 }.project(&[0.0; 3], &mut x);
        assert!((x[0] - 2.0).abs() < 1e-6 && x[1] == 0.0 && x[2] == 0.0, "{x:?}");
        let mut x = [0.5, 0.9, -2.0];
        ball(Norm::L0, 1.0).project(&[0.2, 0.2, 0.1], &mut x);
        assert_eq!(x, [0.2, 0.9, 0.1]);
        let mut x = [f32::NAN, 5.0];
        ball(Norm::Linf, 0.1).project(&[0.5, 0.5], &mut x);
        assert_eq!(x, [0.5, 0.6]);
        assert!(distance(Norm::Linf, &[f32::NAN], &[0.0]).is_nan() && distance(Norm::L0, &[f32::NAN], &[0.0]).is_nan());
    }
}
