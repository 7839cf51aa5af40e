//! What stands for a node that is not linear: bounds of its output that are linear in its input, for each row.

use super::curve::Curve;
use super::interval::{Interval, elements};
use super::network::{Network, Step};
use super::rule::{Rule, Windows};

/// Linear bounds of a node, `[rows, outputs of the node]` one after the other.
#[derive(Debug)]
pub(super) enum Relaxation {
    /// `lower_slope · x + lower_shift ≤ y ≤ upper_slope · x + upper_shift`, element by element.
    Lines(Lines),
    /// `x[lower] ≤ y ≤ slope · x[upper] + shift`, with places in the row of the input.
    Picks(Picks),
    /// `y` of two inputs a and b: `a_slope · a + b_slope · b + shift` on each side.
    Planes(Box<[Plane; 2]>),
    /// No more than the interval of the output.
    Constant,
}

#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) lower_slope: Vec<f32>,
    pub(super) lower_shift: Vec<f32>,
    pub(super) upper_slope: Vec<f32>,
    pub(super) upper_shift: Vec<f32>,
    /// Which side can have any slope between two limits, both lines through the kink at 0; for hinges that are not stable.
    pub(super) free: Option<Free>,
}

/// Slopes that may be chosen: see α-CROWN.
#[derive(Debug)]
pub(super) struct Free {
    /// Of the upper line instead of the lower one.
    pub(super) upper: bool,
    pub(super) limits: (f32, f32),
    /// One truth value per element: whether it crosses the kink.
    pub(super) crosses: Vec<bool>,
}

#[derive(Debug)]
pub(super) struct Picks {
    pub(super) lower: Vec<u32>,
    pub(super) upper: Vec<u32>,
    pub(super) slope: Vec<f32>,
    pub(super) shift: Vec<f32>,
}

#[derive(Debug, Default)]
pub(super) struct Plane {
    pub(super) a: Vec<f32>,
    pub(super) b: Vec<f32>,
    pub(super) shift: Vec<f32>,
}

impl Network<'_> {
    /// The relaxation of a node that is not linear, over the bounds of its inputs.
    pub(super) fn relax(&self, step: &Step, values: &[Option<Interval>]) -> Relaxation {
        let node = self.node(step);
        let input = |i: usize| node.inputs.get(i).copied().flatten().and_then(|id| values[id].as_ref());
        match (&step.rule, input(0), input(1)) {
            (Rule::Curve(curve), Some(x), _) => Relaxation::Lines(lines(*curve, x)),
            (Rule::Maximum(windows), Some(x), _) => Relaxation::Picks(picks(windows, x)),
            (Rule::Product, Some(a), Some(b)) if a.low.shape() == b.low.shape() => {
                Relaxation::Planes(Box::new(planes(a, b)))
            }
            _ => Relaxation::Constant,
        }
    }
}

fn lines(curve: Curve, x: &Interval) -> Lines {
    let (l, u) = (elements(&x.low), elements(&x.high));
    let mut all = vec![super::curve::Lines { lower: (0.0, 0.0), upper: (0.0, 0.0) }; l.len()];
    super::each(&mut all, |i, lines| *lines = curve.lines(l[i], u[i]));
    let free = match curve {
        Curve::Hinge { left, right } => Some(Free {
            upper: left > right,
            limits: (left.min(right) as f32, left.max(right) as f32),
            crosses: l.iter().zip(&u).map(|(&l, &u)| l < 0.0 && u > 0.0).collect(),
        }),
        _ => None,
    };
    Lines {
        lower_slope: all.iter().map(|l| l.lower.0).collect(),
        lower_shift: all.iter().map(|l| l.lower.1).collect(),
        upper_slope: all.iter().map(|l| l.upper.0).collect(),
        upper_shift: all.iter().map(|l| l.upper.1).collect(),
        free,
    }
}

/// Below: the element with the highest lower bound. Above: max(x_j, c) where j has the highest upper bound and c is the
/// next highest one, itself bounded by its chord. This is never above the constant max of the upper bounds.
fn picks(windows: &Windows, x: &Interval) -> Picks {
    let (l, u) = (elements(&x.low), elements(&x.high));
    let row = windows.planes * windows.plane;
    let count = l.len().checked_div(row).unwrap_or(0) * windows.planes * windows.windows.len();
    let mut all = vec![(0u32, 0u32, 0.0f32, 0.0f32); count];
    let per_row = windows.planes * windows.windows.len();
    super::each(&mut all, |i, pick| {
        let (r, place) = (i / per_row, i % per_row);
        let plane = (place / windows.windows.len() * windows.plane) as u32;
        let window = &windows.windows[place % windows.windows.len()];
        let (l, u) = (&l[r * row..(r + 1) * row], &u[r * row..(r + 1) * row]);
        let at = |k: &u32| (plane + k) as usize;
        let Some(first) = window.first() else { return };
        let (mut low, mut high, mut next) = (at(first), at(first), f32::NEG_INFINITY);
        for k in &window[1..] {
            let k = at(k);
            if l[k] > l[low] {
                low = k;
            }
            if u[k] > u[high] {
                next = u[high];
                high = k;
            } else {
                next = next.max(u[k]);
            }
        }
        // max(x, c) with c = next, by the chord over [l, u] of the highest element.
        let hinge = Curve::Clamp { slope: 1.0, shift: 0.0, low: f64::from(next), high: f64::INFINITY };
        let (slope, shift) = hinge.lines(l[high], u[high]).upper;
        *pick = (low as u32, high as u32, slope, shift);
    });
    Picks {
        lower: all.iter().map(|p| p.0).collect(),
        upper: all.iter().map(|p| p.1).collect(),
        slope: all.iter().map(|p| p.2).collect(),
        shift: all.iter().map(|p| p.3).collect(),
    }
}

/// McCormick 1976, Mathematical Programming 10: of the two planes on each side the one that is nearer in the middle.
fn planes(a: &Interval, b: &Interval) -> [Plane; 2] {
    let ends = [elements(&a.low), elements(&a.high), elements(&b.low), elements(&b.high)];
    let n = ends[0].len();
    let mut both = [Plane::default(), Plane::default()];
    for plane in &mut both {
        (plane.a, plane.b, plane.shift) = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
    }
    for i in 0..n {
        let [al, au, bl, bu] = [0, 1, 2, 3].map(|k| f64::from(ends[k][i]));
        let (ma, mb) = (0.5 * (al + au), 0.5 * (bl + bu));
        // (slope of a, slope of b): a b ≥ s a + t b − s t for (bl, al) and (bu, au), ≤ for (bu, al) and (bl, au).
        let middle = |(s, t): (f64, f64)| s * ma + t * mb - s * t;
        let below = if middle((bl, al)) >= middle((bu, au)) { (bl, al) } else { (bu, au) };
        let above = if middle((bu, al)) <= middle((bl, au)) { (bu, al) } else { (bl, au) };
        for (plane, (s, t), upper) in [(0, below, false), (1, above, true)] {
            both[plane].a.push(s as f32);
            both[plane].b.push(t as f32);
            both[plane].shift.push(if upper { super::curve::up(-s * t) } else { super::curve::down(-s * t) });
        }
    }
    both
}
