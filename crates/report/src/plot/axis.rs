//! Scales and ticks: where a value lies on the paper, and which values are written beside the axis.

use netproof_core::Axis;

use crate::number::{decimals, fixed, plain};

/// Values beyond this are clamped, so that no sum or difference of two of them overflows.
const HUGE: f64 = 1e300;

/// Ticks at multiples of 1, 2 or 5 times a power of ten that lie within `[lo, hi]`.
pub(crate) fn linear_ticks(lo: f64, hi: f64, target: usize) -> Vec<f64> {
    let step = nice_step(lo, hi, target);
    let first = (lo / step - 1e-9).ceil();
    let last = (hi / step + 1e-9).floor();
    let n = ((last - first).max(0.0) as usize).min(50);
    (0..=n).map(|i| (first + i as f64) * step).map(|v| if v == 0.0 { 0.0 } else { v }).collect()
}

/// A step of 1, 2 or 5 times a power of ten that divides the span into about `target` parts.
fn nice_step(lo: f64, hi: f64, target: usize) -> f64 {
    let raw = (hi - lo) / target.max(1) as f64;
    if !(raw > 0.0 && raw.is_finite()) {
        return 1.0;
    }
    let power = 10f64.powi(raw.log10().floor() as i32).max(f64::MIN_POSITIVE);
    let m = raw / power;
    power
        * if m < 1.5 {
            1.0
        } else if m < 3.5 {
            2.0
        } else if m < 7.5 {
            5.0
        } else {
            10.0
        }
}

/// Ticks of a logarithmic axis: powers of ten, thinned when there are many, with 2 and 5 when there are few.
pub(crate) fn log_ticks(lo: f64, hi: f64, target: usize) -> Vec<f64> {
    let (a, b) = (lo.log10(), hi.log10());
    let decades = (b - a).max(1e-9);
    let every = (decades / target.max(1) as f64).ceil().max(1.0) as i32;
    let factors: &[f64] = if decades < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let mut ticks = Vec::new();
    let mut k = a.floor() as i32;
    while f64::from(k) <= b + 1e-9 && ticks.len() < 60 {
        if k.rem_euclid(every) == 0 {
            let power = 10f64.powi(k);
            ticks.extend(
                factors.iter().map(|f| f * power).filter(|v| *v >= lo * (1.0 - 1e-9) && *v <= hi * (1.0 + 1e-9)),
            );
        }
        k += 1;
    }
    if ticks.len() < 2 { linear_ticks(lo, hi, target).into_iter().filter(|v| *v > 0.0).collect() } else { ticks }
}

/// Maps values of one axis to coordinates.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    lo: f64,
    hi: f64,
    log: bool,
    from: f64,
    to: f64,
    /// Values that are written beside the axis.
    pub(crate) ticks: Vec<f64>,
}

impl Scale {
    /// A scale that shows all `values`, the axis's own range, and zero where `zero` asks for it.
    ///
    /// # Edge cases
    /// No finite value: the range, or 0 to 1. One value: room on both sides. A range that is empty, reversed or not
    /// finite is ignored; so is a logarithmic axis without a positive value.
    pub(crate) fn fit(axis: &Axis, values: impl Iterator<Item = f64>, zero: bool, target: usize) -> Self {
        let range = axis.range.filter(|(a, b)| a.is_finite() && b.is_finite() && a < b);
        let all: Vec<f64> =
            values.chain(range.map(|r| r.1)).filter(|v| v.is_finite()).map(|v| v.clamp(-HUGE, HUGE)).collect();
        let log = axis.log && all.iter().any(|v| *v > 0.0);
        let low_end = range.map(|r| r.0);
        let zero = zero.then_some(0.0);
        let used = all.into_iter().chain(low_end).chain(zero).filter(|v| !log || *v > 1e-300);
        let (lo, hi) = used.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        let (lo, hi) = if lo > hi { (0.0, 1.0) } else { (lo, hi) };
        let (mut lo, mut hi) = match (lo == hi, log) {
            (true, true) => (lo / 2.0, hi * 2.0),
            (true, false) if lo == 0.0 => (0.0, 1.0),
            (true, false) => (lo - lo.abs() / 2.0, hi + hi.abs() / 2.0),
            _ => (lo, hi),
        };
        let fixed_range = range.is_some_and(|r| r.0.clamp(-HUGE, HUGE) == lo && r.1.clamp(-HUGE, HUGE) == hi);
        if !log && !fixed_range {
            let step = nice_step(lo, hi, target);
            lo = (lo / step + 1e-9).floor() * step;
            hi = (hi / step - 1e-9).ceil() * step;
        } else if log && !fixed_range {
            lo /= 1.1;
            hi *= 1.1;
        }
        let ticks = if log { log_ticks(lo, hi, target) } else { linear_ticks(lo, hi, target) };
        Self { lo, hi, log, from: 0.0, to: 1.0, ticks }
    }

    /// The same scale between two coordinates.
    pub(crate) fn between(mut self, from: f64, to: f64) -> Self {
        (self.from, self.to) = (from, to);
        self
    }

    /// Coordinate of a value, held within the axis; `None` for what the axis cannot show.
    pub(crate) fn at(&self, v: f64) -> Option<f64> {
        if !v.is_finite() || (self.log && v <= 0.0) {
            return None;
        }
        let v = v.clamp(self.lo, self.hi);
        let t = if self.log {
            (v.ln() - self.lo.ln()) / (self.hi.ln() - self.lo.ln())
        } else {
            (v - self.lo) / (self.hi - self.lo)
        };
        let x = self.from + t.clamp(0.0, 1.0) * (self.to - self.from);
        x.is_finite().then_some(x)
    }

    /// Where bars start: zero, or the low end where zero is not on the axis.
    pub(crate) fn base(&self) -> f64 {
        if self.log { self.lo } else { 0.0_f64.clamp(self.lo, self.hi) }
    }

    /// Names of the ticks, all with the same decimals.
    pub(crate) fn labels(&self) -> Vec<String> {
        let largest = self.ticks.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        let step = match self.ticks.as_slice() {
            [a, b, ..] => b - a,
            _ => largest,
        };
        if self.log || largest >= 1e7 || step.abs() < 1e-5 {
            return self.ticks.iter().map(|v| plain(*v)).collect();
        }
        // Steps are 1, 2 or 5 times a power of ten, so their first digit is their last one.
        let d = decimals(step * (1.0 + 1e-9), 1);
        self.ticks.iter().map(|v| fixed(*v, d)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &[f64], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() <= 1e-9 * y.abs().max(1.0))
    }

    #[test]
    fn ticks_are_one_two_or_five() {
        assert!(close(&linear_ticks(0.0, 1.0, 5), &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]));
        assert!(close(&linear_ticks(0.0, 10.0, 10), &(0..=10).map(f64::from).collect::<Vec<_>>()));
        assert!(close(&linear_ticks(-3.0, 27.0, 6), &[0.0, 5.0, 10.0, 15.0, 20.0, 25.0]));
        assert!(close(&linear_ticks(0.80, 0.93, 5), &[0.80, 0.82, 0.84, 0.86, 0.88, 0.90, 0.92]));
    }

    #[test]
    fn logarithmic_ticks_are_powers_of_ten() {
        assert!(close(&log_ticks(1e-3, 1e3, 8), &[1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3]));
        assert!(close(&log_ticks(1.0, 100.0, 8), &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]));
        assert!(log_ticks(1e-200, 1e200, 6).len() <= 8);
    }

    #[test]
    fn a_scale_maps_its_ends_and_its_middle() {
        let s = Scale::fit(&Axis::unit("p"), [0.5].into_iter(), false, 5).between(10.0, 110.0);
        assert_eq!((s.at(0.0), s.at(0.5), s.at(1.0)), (Some(10.0), Some(60.0), Some(110.0)));
        let log = Axis { log: true, range: Some((1.0, 100.0)), ..Axis::default() };
        let s = Scale::fit(&log, [10.0].into_iter(), false, 5).between(0.0, 100.0);
        assert!((s.at(10.0).unwrap() - 50.0).abs() < 1e-9);
        assert_eq!(s.at(0.0), None);
    }

    #[test]
    fn data_beyond_the_range_widen_it() {
        let s = Scale::fit(&Axis::unit("p"), [0.5, 1.4].into_iter(), false, 5).between(0.0, 1.0);
        assert!(s.at(1.4).unwrap() > s.at(1.0).unwrap());
    }

    #[test]
    fn hostile_values_give_finite_coordinates() {
        let sets: [&[f64]; 7] = [
            &[],
            &[f64::NAN],
            &[f64::MAX, f64::MIN],
            &[0.0],
            &[5e-324],
            &[f64::INFINITY, 1.0],
            &[1e300, 1e300 * (1.0 + 1e-15)],
        ];
        for values in sets {
            for log in [false, true] {
                let axis = Axis { log, ..Axis::default() };
                let s = Scale::fit(&axis, values.iter().copied(), false, 5).between(0.0, 100.0);
                for v in values.iter().copied().chain([0.0, 1.0, -1.0]) {
                    assert!(s.at(v).is_none_or(|x| (0.0..=100.0).contains(&x)), "{values:?} {v}");
                }
                assert!(s.labels().iter().all(|l| !l.contains("NaN") && !l.contains("inf")));
            }
        }
        let bad = Axis { range: Some((f64::NAN, 1.0)), ..Axis::default() };
        assert!(Scale::fit(&bad, [2.0].into_iter(), false, 5).at(2.0).is_some());
    }

    #[test]
    fn tick_labels_share_their_decimals() {
        let s = Scale::fit(&Axis::unit("p"), [].into_iter(), false, 5);
        assert_eq!(s.labels(), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        let s = Scale::fit(&Axis { range: Some((0.0, 5000.0)), ..Axis::default() }, [].into_iter(), false, 5);
        assert_eq!(s.labels(), ["0", "1,000", "2,000", "3,000", "4,000", "5,000"]);
    }
}
