//! Functions of one number, bounded by lines over an interval.
//!
//! A line of slope s above f on [l, u] is lowest at the height max (f(x) − s x); that maximum lies at an end, at a kink,
//! or where f' = s. So a curve needs its value and those places, and every slope gives a sound line. The slope that is
//! chosen by default makes the area between line and curve least, which for ReLU is the adaptive choice of CROWN
//! (Zhang et al. 2018, arXiv:1811.00866, section 3.3 and table 2).

use smallvec::SmallVec;

/// Places where `f(x) − s x` can be extreme.
type Places = SmallVec<[f64; 4]>;

/// A function of one number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Curve {
    /// Slope `left` below 0 and `right` above: ReLU, leaky ReLU, absolute value.
    Hinge {
        left: f64,
        right: f64,
    },
    /// `min(max(slope · x + shift, low), high)`: clipping, hard sigmoid.
    Clamp {
        slope: f64,
        shift: f64,
        low: f64,
        high: f64,
    },
    /// `x · min(max(x / 6 + 1/2, 0), 1)`.
    HardSwish,
    Sigmoid,
    Tanh,
    Exp,
    Softplus,
    Softsign,
    /// `scale · x` above 0, `scale · alpha · (exp(x / width) − 1)` below: ELU, CELU, SELU.
    Elu {
        alpha: f64,
        scale: f64,
        width: f64,
    },
    Square,
    Sqrt,
    Log,
    /// The branch on one side of 0.
    Reciprocal,
    Erf,
    /// With the error function.
    Gelu,
    /// With the hyperbolic tangent.
    GeluTanh,
    /// `x · sigmoid(alpha · x)`.
    Swish {
        alpha: f64,
    },
    /// `x · tanh(softplus(x))`.
    Mish,
}

/// Four numbers that bound a curve: `lower.0 · x + lower.1 ≤ f(x) ≤ upper.0 · x + upper.1`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lines {
    pub(crate) lower: (f32, f32),
    pub(crate) upper: (f32, f32),
}

/// How a curve bends over an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bend {
    Straight,
    /// Chords lie above.
    Convex,
    /// Chords lie below.
    Concave,
    Mixed,
}

/// Cells into which an interval is cut where stationary places have no closed form.
const CELLS: usize = 64;
/// Steps of the search for the best slope; each leaves 0.618 of the range.
const SEARCH: usize = 40;
/// What the float32 kernels of exp, tanh, erf and the like may be off, relative to the value (tests in `kernels/math.rs`),
/// and what the float64 values here may.
const KERNEL_ERROR: f64 = 1e-6;
/// Largest interval on which the lines are tilted; beyond this, products of float32 lose everything.
const WIDEST: f64 = 1e15;

impl Curve {
    pub(crate) fn value(self, x: f64) -> f64 {
        match self {
            Self::Hinge { left, right } => x * if x < 0.0 { left } else { right },
            Self::Clamp { slope, shift, low, high } => (slope * x + shift).max(low).min(high),
            Self::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::Exp => x.exp(),
            Self::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            Self::Softsign => x / (1.0 + x.abs()),
            Self::Elu { alpha, scale, width } => scale * if x > 0.0 { x } else { alpha * (x / width).exp_m1() },
            Self::Square => x * x,
            Self::Sqrt => x.max(0.0).sqrt(),
            Self::Log => x.ln(),
            Self::Reciprocal => 1.0 / x,
            Self::Erf => erf(x),
            Self::Gelu => x * netproof_stats::special::normal_cdf(x),
            Self::GeluTanh => {
                let t = (0.797_884_560_802_865_4 * (x + 0.044_715 * x * x * x)).tanh();
                0.5 * x * (1.0 + t)
            }
            Self::Swish { alpha } => x * sigmoid(alpha * x),
            Self::Mish => x * Self::Softplus.value(x).tanh(),
        }
    }

    /// Whether the float32 operator gives exactly what is meant, so that nothing is added for its error.
    pub(crate) fn is_exact(self) -> bool {
        matches!(self, Self::Hinge { .. } | Self::Clamp { .. })
    }

    /// Smallest and largest slope anywhere, as far as they are finite.
    fn slopes(self, l: f64, u: f64) -> (f64, f64) {
        match self {
            Self::Hinge { left, right } => (left.min(right), left.max(right)),
            Self::Clamp { slope, .. } => (slope.min(0.0), slope.max(0.0)),
            Self::HardSwish => (-0.5, 1.5),
            Self::Sigmoid => (0.0, 0.25),
            Self::Tanh | Self::Softplus | Self::Softsign => (0.0, 1.0),
            Self::Elu { alpha, scale, width } => (0.0, scale * (alpha / width).max(1.0)),
            Self::Erf => (0.0, std::f64::consts::FRAC_2_SQRT_PI),
            Self::Gelu | Self::GeluTanh => (-0.13, 1.13),
            Self::Swish { .. } => (-0.11, 1.11),
            Self::Mish => (-0.12, 1.1),
            Self::Exp => (l.exp(), u.exp()),
            Self::Square => (2.0 * l, 2.0 * u),
            Self::Sqrt => (0.5 / u.max(f64::MIN_POSITIVE).sqrt(), 0.5 / l.max(1e-12).sqrt()),
            Self::Log => (1.0 / u, 1.0 / l),
            Self::Reciprocal => {
                let (a, b) = (-1.0 / (l * l), -1.0 / (u * u));
                (a.min(b), a.max(b))
            }
        }
    }

    /// Whether the curve is defined all over an interval.
    pub(crate) fn defined(self, l: f64, u: f64) -> bool {
        match self {
            Self::Log => l > 0.0,
            Self::Sqrt => l >= 0.0,
            Self::Reciprocal => l > 0.0 || u < 0.0,
            _ => true,
        }
    }

    fn bend(self, l: f64, u: f64) -> Bend {
        // Curves that are convex below 0 and concave above.
        let sigmoidal = || {
            if u <= 0.0 {
                Bend::Convex
            } else if l >= 0.0 {
                Bend::Concave
            } else {
                Bend::Mixed
            }
        };
        match self {
            Self::Hinge { left, right } => {
                if u <= 0.0 || l >= 0.0 || left == right {
                    Bend::Straight
                } else if left < right {
                    Bend::Convex
                } else {
                    Bend::Concave
                }
            }
            Self::Clamp { slope, shift, low, high } => {
                if slope == 0.0 || low >= high {
                    return Bend::Straight;
                }
                let (a, b) = (slope * l + shift, slope * u + shift);
                let (a, b) = (a.min(b), a.max(b));
                match (a < low && b > low, a < high && b > high) {
                    (false, false) => Bend::Straight,
                    (true, false) => Bend::Convex,
                    (false, true) => Bend::Concave,
                    (true, true) => Bend::Mixed,
                }
            }
            Self::HardSwish => {
                if u <= -3.0 || l >= 3.0 {
                    Bend::Straight
                } else if l >= -3.0 && u <= 3.0 {
                    Bend::Convex
                } else {
                    Bend::Mixed
                }
            }
            Self::Sigmoid | Self::Tanh | Self::Softsign | Self::Erf => sigmoidal(),
            Self::Exp | Self::Softplus | Self::Square => Bend::Convex,
            Self::Elu { alpha, scale, width } => {
                // The slope on the left of 0 is scale · alpha / width; above 0 it is `scale`.
                if scale > 0.0 && alpha >= 0.0 && (alpha <= width || u <= 0.0) {
                    if l >= 0.0 { Bend::Straight } else { Bend::Convex }
                } else {
                    Bend::Mixed
                }
            }
            Self::Sqrt | Self::Log => Bend::Concave,
            Self::Reciprocal => {
                if l > 0.0 {
                    Bend::Convex
                } else {
                    Bend::Concave
                }
            }
            Self::Gelu | Self::GeluTanh | Self::Swish { .. } | Self::Mish => Bend::Mixed,
        }
    }

    /// Whether the curve is a line over an interval, so that tighter bounds of the input gain nothing.
    pub(crate) fn is_straight(self, l: f32, u: f32) -> bool {
        self.bend(f64::from(l), f64::from(u)) == Bend::Straight
    }

    /// Kinks, and places where the slope is `s`.
    fn places(self, s: f64) -> Places {
        let logit = |p: f64| (p / (1.0 - p)).ln();
        let mut at = Places::new();
        match self {
            Self::Hinge { .. } => at.push(0.0),
            Self::Clamp { slope, shift, low, high } => {
                if slope != 0.0 {
                    at.push((low - shift) / slope);
                    at.push((high - shift) / slope);
                }
            }
            Self::HardSwish => at.extend([-3.0, 3.0, 3.0 * s - 1.5]),
            Self::Sigmoid => {
                if s > 0.0 && s < 0.25 {
                    // p (1 − p) = s; the smaller root is written such that nothing cancels.
                    let root = (1.0 - 4.0 * s).sqrt();
                    let small = 2.0 * s / (1.0 + root);
                    at.extend([logit(small), -logit(small)]);
                }
            }
            Self::Tanh => {
                if s > 0.0 && s < 1.0 {
                    let t = (1.0 - s).sqrt();
                    at.extend([t.atanh(), -t.atanh()]);
                }
            }
            Self::Exp => {
                if s > 0.0 {
                    at.push(s.ln())
                }
            }
            Self::Softplus => {
                if s > 0.0 && s < 1.0 {
                    at.push(logit(s))
                }
            }
            Self::Softsign => {
                if s > 0.0 && s < 1.0 {
                    let x = 1.0 / s.sqrt() - 1.0;
                    at.extend([x, -x]);
                }
            }
            Self::Elu { alpha, scale, width } => {
                at.push(0.0);
                let ratio = s * width / (scale * alpha);
                if ratio > 0.0 {
                    at.push(width * ratio.ln());
                }
            }
            Self::Square => at.push(s / 2.0),
            Self::Sqrt => {
                if s > 0.0 {
                    at.push(0.25 / (s * s))
                }
            }
            Self::Log => {
                if s > 0.0 {
                    at.push(1.0 / s)
                }
            }
            Self::Reciprocal => {
                if s < 0.0 {
                    let x = (-1.0 / s).sqrt();
                    at.extend([x, -x]);
                }
            }
            Self::Erf => {
                let ratio = s / std::f64::consts::FRAC_2_SQRT_PI;
                if ratio > 0.0 && ratio < 1.0 {
                    let x = (-ratio.ln()).sqrt();
                    at.extend([x, -x]);
                }
            }
            Self::Gelu | Self::GeluTanh | Self::Swish { .. } | Self::Mish => {}
        }
        at
    }

    /// Largest second derivative anywhere, for curves whose places are not known.
    fn curvature(self) -> Option<f64> {
        match self {
            // 2 φ(0) = 0.7979; the others by a fine scan (test), rounded up.
            Self::Gelu => Some(0.80),
            Self::GeluTanh => Some(0.81),
            Self::Swish { alpha } => Some(0.5 * alpha.abs() + 1e-9),
            Self::Mish => Some(0.65),
            _ => None,
        }
    }

    /// Smallest and largest `f(x) − s x` on `[l, u]`, and where they lie.
    pub(crate) fn extremes(self, s: f64, l: f64, u: f64) -> [(f64, f64); 2] {
        let at = |x: f64| (self.value(x) - s * x, x);
        let (a, b) = (at(l), at(u));
        let (mut low, mut high) = if a.0 <= b.0 { (a, b) } else { (b, a) };
        let mut see = |p: (f64, f64)| {
            if p.0 < low.0 {
                low = p;
            }
            if p.0 > high.0 {
                high = p;
            }
        };
        match self.curvature() {
            None => self.places(s).into_iter().filter(|&x| x > l && x < u).for_each(|x| see(at(x))),
            Some(c) => {
                // Beyond this the curve is a line to the last digit: only the ends and the middle part matter.
                let (from, to) = (l.max(-40.0), u.min(40.0));
                if from < to {
                    let h = (to - from) / CELLS as f64;
                    (0..=CELLS).for_each(|i| see(at((from + h * i as f64).clamp(l, u))));
                    let slack = c * h * h / 8.0 + 1e-12;
                    low.0 -= slack;
                    high.0 += slack;
                }
            }
        }
        [low, high]
    }

    /// Smallest and largest value on `[l, u]`, rounded outward.
    pub(crate) fn range(self, l: f32, u: f32) -> (f32, f32) {
        // Bounds that are not numbers bound nothing.
        if !(l <= u) {
            return (f32::NEG_INFINITY, f32::INFINITY);
        }
        let (l, u) = (f64::from(l), f64::from(u));
        let [low, high] = self.extremes(0.0, l, u);
        (down(low.0 - self.slack(low.0)), up(high.0 + self.slack(high.0)))
    }

    fn slack(self, value: f64) -> f64 {
        if self.is_exact() { 0.0 } else { KERNEL_ERROR * value.abs() + 1e-12 }
    }

    /// The lower line of slope `s`: its height at 0, and the place where it touches.
    pub(crate) fn below(self, s: f32, l: f32, u: f32) -> (f32, f64) {
        let (l, u) = (f64::from(l), f64::from(u));
        let (height, x) = self.extremes(f64::from(s), l, u)[0];
        (down(height - self.slack(self.value(l)).max(self.slack(self.value(u)))), x)
    }

    /// Likewise the upper line.
    pub(crate) fn above(self, s: f32, l: f32, u: f32) -> (f32, f64) {
        let (l, u) = (f64::from(l), f64::from(u));
        let (height, x) = self.extremes(f64::from(s), l, u)[1];
        (up(height + self.slack(self.value(l)).max(self.slack(self.value(u)))), x)
    }

    /// The lines of least area over `[l, u]`.
    pub(crate) fn lines(self, l: f32, u: f32) -> Lines {
        let (a, b) = (f64::from(l), f64::from(u));
        if !(b - a < WIDEST) {
            let (low, high) = self.range(l, u);
            return Lines { lower: (0.0, low), upper: (0.0, high) };
        }
        let mid = 0.5 * (a + b);
        let chord = if b > a { (self.value(b) - self.value(a)) / (b - a) } else { self.tangent(mid) };
        let chord = if chord.is_finite() { chord } else { 0.0 };
        let (lower, upper) = match self.bend(a, b) {
            Bend::Straight => (chord, chord),
            // The best line on the other side touches in the middle.
            Bend::Convex => (self.tangent(mid), chord),
            Bend::Concave => (chord, self.tangent(mid)),
            Bend::Mixed => (self.search(a, b, false), self.search(a, b, true)),
        };
        let (lower, upper) = (lower as f32, upper as f32);
        Lines { lower: (lower, self.below(lower, l, u).0), upper: (upper, self.above(upper, l, u).0) }
    }

    fn tangent(self, x: f64) -> f64 {
        let slope = match self {
            Self::Hinge { left, right } => {
                if x > 0.0 {
                    right
                } else {
                    left
                }
            }
            Self::Clamp { slope, shift, low, high } => {
                let y = slope * x + shift;
                if y > low && y < high { slope } else { 0.0 }
            }
            Self::HardSwish => {
                if x <= -3.0 {
                    0.0
                } else if x >= 3.0 {
                    1.0
                } else {
                    x / 3.0 + 0.5
                }
            }
            Self::Sigmoid => sigmoid(x) * sigmoid(-x),
            Self::Tanh => 1.0 - x.tanh() * x.tanh(),
            Self::Exp => x.exp(),
            Self::Softplus => sigmoid(x),
            Self::Softsign => 1.0 / ((1.0 + x.abs()) * (1.0 + x.abs())),
            Self::Elu { alpha, scale, width } => scale * if x > 0.0 { 1.0 } else { alpha / width * (x / width).exp() },
            Self::Square => 2.0 * x,
            Self::Sqrt => 0.5 / x.max(1e-12).sqrt(),
            Self::Log => 1.0 / x,
            Self::Reciprocal => -1.0 / (x * x),
            Self::Erf => std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp(),
            Self::Gelu | Self::GeluTanh | Self::Swish { .. } | Self::Mish => {
                let h = 1e-4;
                (self.value(x + h) - self.value(x - h)) / (2.0 * h)
            }
        };
        if slope.is_finite() { slope } else { 0.0 }
    }

    /// The slope whose line has the least height over the middle: a convex function of the slope.
    fn search(self, l: f64, u: f64, above: bool) -> f64 {
        let mid = 0.5 * (l + u);
        let area = |s: f64| {
            let [low, high] = self.extremes(s, l, u);
            if above { high.0 + s * mid } else { -(low.0 + s * mid) }
        };
        const RATIO: f64 = 0.618_033_988_749_894_9;
        let (mut from, mut to) = self.slopes(l, u);
        if !(from.is_finite() && to.is_finite()) {
            return 0.0;
        }
        let (mut x, mut y) = (to - RATIO * (to - from), from + RATIO * (to - from));
        let (mut at_x, mut at_y) = (area(x), area(y));
        for _ in 0..SEARCH {
            if at_x <= at_y {
                (to, y, at_y) = (y, x, at_x);
                x = to - RATIO * (to - from);
                at_x = area(x);
            } else {
                (from, x, at_x) = (x, y, at_y);
                y = from + RATIO * (to - from);
                at_y = area(y);
            }
        }
        0.5 * (from + to)
    }
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

fn erf(x: f64) -> f64 {
    2.0 * netproof_stats::special::normal_cdf(x * std::f64::consts::SQRT_2) - 1.0
}

/// The largest float32 that is not above.
pub(crate) fn down(x: f64) -> f32 {
    let y = x as f32;
    if f64::from(y) > x { y.next_down() } else { y }
}

/// The smallest float32 that is not below.
pub(crate) fn up(x: f64) -> f32 {
    let y = x as f32;
    if f64::from(y) < x { y.next_up() } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURVES: [Curve; 21] = [
        Curve::Hinge { left: 0.0, right: 1.0 },
        Curve::Hinge { left: 0.1, right: 1.0 },
        Curve::Hinge { left: 1.5, right: 1.0 },
        Curve::Hinge { left: -1.0, right: 1.0 },
        Curve::Clamp { slope: 1.0, shift: 0.0, low: 0.0, high: 6.0 },
        Curve::Clamp { slope: 0.2, shift: 0.5, low: 0.0, high: 1.0 },
        Curve::HardSwish,
        Curve::Sigmoid,
        Curve::Tanh,
        Curve::Exp,
        Curve::Softplus,
        Curve::Softsign,
        Curve::Elu { alpha: 1.0, scale: 1.0, width: 1.0 },
        Curve::Elu { alpha: 1.673, scale: 1.05, width: 1.0 },
        Curve::Square,
        Curve::Erf,
        Curve::Gelu,
        Curve::GeluTanh,
        Curve::Swish { alpha: 1.0 },
        Curve::Swish { alpha: 2.0 },
        Curve::Mish,
    ];

    const INTERVALS: [(f32, f32); 9] = [
        (-2.0, 3.0),
        (-0.5, 0.1),
        (0.2, 0.9),
        (-7.0, -0.25),
        (-3.5, 8.0),
        (0.0, 0.0),
        (1.0, 1.000_001),
        (-20.0, 9.0),
        (-1e-7, 1e-7),
    ];

    fn check(curve: Curve, (l, u): (f32, f32)) -> f64 {
        let lines = curve.lines(l, u);
        let (low, high) = curve.range(l, u);
        let mut tightest = f64::INFINITY;
        for i in 0..=2000 {
            let x = f64::from(l) + (f64::from(u) - f64::from(l)) * f64::from(i) / 2000.0;
            let y = curve.value(x);
            let line = |(s, t): (f32, f32)| f64::from(s) * x + f64::from(t);
            let what = format!("{curve:?} on [{l}, {u}] at {x}: {lines:?}");
            assert!(line(lines.lower) <= y && y <= line(lines.upper), "{what}");
            assert!(f64::from(low) <= y && y <= f64::from(high), "{what}: [{low}, {high}]");
            tightest = tightest.min(y - line(lines.lower)).min(line(lines.upper) - y);
        }
        tightest
    }

    #[test]
    fn lines_and_ranges_hold_and_touch() {
        for curve in CURVES {
            for interval in INTERVALS {
                let gap = check(curve, interval);
                let size = curve.value(f64::from(interval.0)).abs().max(curve.value(f64::from(interval.1)).abs());
                let width = f64::from(interval.1) - f64::from(interval.0);
                // The curves without closed form give away up to c h² / 8 on each side.
                let slack = curve.curvature().map_or(0.0, |c| c * (width / 64.0).powi(2) / 8.0);
                assert!(gap <= 3e-6 * (1.0 + size) + slack, "{curve:?} on {interval:?}: nearest {gap}");
            }
        }
        for curve in [Curve::Sqrt, Curve::Log, Curve::Reciprocal] {
            for interval in [(0.1, 3.0), (0.5, 0.6), (2.0, 40.0)] {
                check(curve, interval);
            }
        }
        check(Curve::Reciprocal, (-3.0, -0.5));
        assert!(!Curve::Reciprocal.defined(-1.0, 1.0) && !Curve::Log.defined(0.0, 1.0));
    }

    #[test]
    fn relu_has_the_lines_of_crown() {
        let relu = Curve::Hinge { left: 0.0, right: 1.0 };
        assert_eq!(relu.lines(-1.0, 3.0), Lines { lower: (1.0, 0.0), upper: (0.75, 0.75) });
        assert_eq!(relu.lines(-3.0, 1.0), Lines { lower: (0.0, 0.0), upper: (0.25, 0.75) });
        assert_eq!(relu.lines(0.5, 1.0), Lines { lower: (1.0, 0.0), upper: (1.0, 0.0) });
        assert_eq!(relu.lines(-2.0, -1.0), Lines { lower: (0.0, 0.0), upper: (0.0, 0.0) });
    }

    #[test]
    fn the_searched_slope_has_the_least_area() {
        for curve in [Curve::Sigmoid, Curve::Tanh, Curve::HardSwish, Curve::Gelu] {
            let (l, u) = (-2.0f32, 3.5f32);
            let lines = curve.lines(l, u);
            let mid = 0.75;
            let area = |(s, t): (f32, f32)| f64::from(s) * mid + f64::from(t);
            for i in -20..=40 {
                let s = i as f32 * 0.05;
                assert!(area((s, curve.below(s, l, u).0)) <= area(lines.lower) + 1e-4, "{curve:?} {s}");
                assert!(area((s, curve.above(s, l, u).0)) >= area(lines.upper) - 1e-4, "{curve:?} {s}");
            }
        }
    }

    #[test]
    fn second_derivatives_stay_below_their_bounds_and_slopes_within_theirs() {
        let smooth =
            [Curve::Gelu, Curve::GeluTanh, Curve::Swish { alpha: 1.0 }, Curve::Swish { alpha: 2.0 }, Curve::Mish];
        for curve in smooth {
            let bound = curve.curvature().unwrap();
            let (least, most) = curve.slopes(-10.0, 10.0);
            for i in -10_000..=10_000 {
                let (x, h) = (f64::from(i) * 1e-3, 1e-4);
                let second = (curve.value(x + h) - 2.0 * curve.value(x) + curve.value(x - h)) / (h * h);
                assert!(second.abs() <= bound + 1e-6, "{curve:?} at {x}: {second}");
                let first = (curve.value(x + h) - curve.value(x - h)) / (2.0 * h);
                assert!(first >= least && first <= most, "{curve:?} at {x}: {first}");
            }
        }
    }
}
