//! Summaries of numbers: streaming moments, quantiles, histograms, entropy.

use crate::{StatsError, Sum};

/// Count, mean, variance, extremes and NaN count of a stream of numbers, in one pass and constant memory.
///
/// Parts can be summarised apart and merged; merge them in a fixed order, since the last bits depend on it.
///
/// # Source
/// Welford 1962, Technometrics 4(3); merging: Chan, Golub and LeVeque 1979, Stanford STAN-CS-79-773, equation 2.1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moments {
    count: u64,
    nan: u64,
    mean: f64,
    squares: f64,
    extremes: Option<(f64, f64)>,
}

impl Moments {
    /// Moments of a slice.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut moments = Self::default();
        values.into_iter().for_each(|v| moments.add(v));
        moments
    }

    /// Adds one number; a NaN is counted and otherwise left out.
    pub fn add(&mut self, value: f64) {
        if value.is_nan() {
            self.nan += 1;
            return;
        }
        self.count += 1;
        let delta = value - self.mean;
        self.mean += delta / self.count as f64;
        self.squares += delta * (value - self.mean);
        self.extremes = Some(self.extremes.map_or((value, value), |(low, high)| (low.min(value), high.max(value))));
    }

    /// Adds everything that another summary has seen.
    pub fn merge(&mut self, other: &Self) {
        self.nan += other.nan;
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = Self { nan: self.nan, ..*other };
            return;
        }
        let (n, m) = (self.count as f64, other.count as f64);
        let delta = other.mean - self.mean;
        self.mean += delta * (m / (n + m));
        self.squares += other.squares + delta * delta * (n * m / (n + m));
        self.count += other.count;
        self.extremes = match (self.extremes, other.extremes) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, two) => one.or(two),
        };
    }

    /// Numbers seen, without NaN.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// NaN seen.
    pub fn nan_count(&self) -> u64 {
        self.nan
    }

    /// Mean; `None` where there are no numbers. NaN or infinite where an infinity was among them.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// Unbiased variance (divided by n - 1); `None` for fewer than two numbers.
    pub fn variance(&self) -> Option<f64> {
        (self.count > 1).then(|| self.squares / (self.count - 1) as f64)
    }

    /// Square root of [`Moments::variance`].
    pub fn standard_deviation(&self) -> Option<f64> {
        self.variance().map(f64::sqrt)
    }

    /// Smallest number.
    pub fn min(&self) -> Option<f64> {
        self.extremes.map(|e| e.0)
    }

    /// Largest number.
    pub fn max(&self) -> Option<f64> {
        self.extremes.map(|e| e.1)
    }
}

/// Quantile of a slice, interpolated linearly between order statistics (type 7, as R and NumPy by default).
///
/// # Edge cases
/// Empty, a NaN among the values, or `q` outside `[0, 1]`: `None`.
///
/// # Source
/// Hyndman and Fan 1996, The American Statistician 50(4), definition 7.
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    quantile_of_sorted(&sorted, q)
}

/// [`quantile`] of a slice that is sorted by `f64::total_cmp` already.
pub fn quantile_of_sorted(sorted: &[f64], q: f64) -> Option<f64> {
    // The total order puts NaN at the ends.
    let (first, last) = (sorted.first()?, sorted.last()?);
    if first.is_nan() || last.is_nan() || !(0.0..=1.0).contains(&q) {
        return None;
    }
    let position = q * (sorted.len() - 1) as f64;
    let index = position as usize;
    let (low, high) = (sorted[index], sorted[(index + 1).min(sorted.len() - 1)]);
    let fraction = position - index as f64;
    // Equal neighbours, which may both be infinite, need no interpolation.
    Some(if fraction == 0.0 || low == high { low } else { low + fraction * (high - low) })
}

/// Counts of numbers in bins of equal width.
///
/// A bin is closed below and open above; the last one is closed on both sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    low: f64,
    high: f64,
    /// Numbers per bin.
    pub counts: Vec<u64>,
    /// Numbers below the first bin.
    pub below: u64,
    /// Numbers above the last bin.
    pub above: u64,
    /// NaN.
    pub nan: u64,
}

impl Histogram {
    /// Empty bins over `[low, high]`.
    /// # Errors
    /// No bins or more than a million, or limits that are not finite and in ascending order.
    pub fn new(low: f64, high: f64, bins: usize) -> Result<Self, StatsError> {
        StatsError::check_bins(bins)?;
        // The width itself must be finite too, or bins could not be computed.
        if !(low < high && (high - low).is_finite()) {
            let allowed = "a finite number above the lower limit";
            return Err(StatsError::Parameter { name: "upper limit of the histogram", value: high, allowed });
        }
        Ok(Self { low, high, counts: vec![0; bins], below: 0, above: 0, nan: 0 })
    }

    /// Adds one number.
    pub fn add(&mut self, value: f64) {
        if value.is_nan() {
            self.nan += 1;
        } else if value < self.low {
            self.below += 1;
        } else if value > self.high {
            self.above += 1;
        } else {
            let bins = self.counts.len();
            let position = (value - self.low) / (self.high - self.low) * bins as f64;
            let mut bin = (position as usize).min(bins - 1);
            // Rounding may put a number that equals an edge on its wrong side.
            if value < self.edge(bin) {
                bin -= 1;
            } else if bin + 1 < bins && value >= self.edge(bin + 1) {
                bin += 1;
            }
            self.counts[bin] += 1;
        }
    }

    /// Lower edge of bin `index`; the upper limit for the number of bins.
    pub fn edge(&self, index: usize) -> f64 {
        let fraction = index as f64 / self.counts.len() as f64;
        if index >= self.counts.len() { self.high } else { self.low + fraction * (self.high - self.low) }
    }

    /// Adds the counts of a histogram over the same bins.
    /// # Errors
    /// The bins differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), StatsError> {
        StatsError::check_length("histogram", self.counts.len(), other.counts.len())?;
        if self.low != other.low || self.high != other.high {
            let allowed = "the upper and lower limit of the other histogram";
            return Err(StatsError::Parameter { name: "upper limit of the histogram", value: other.high, allowed });
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        self.below += other.below;
        self.above += other.above;
        self.nan += other.nan;
        Ok(())
    }
}

/// Shannon entropy of counts, in nats; `None` where all are 0.
///
/// # Source
/// Shannon 1948, section 6, with natural logarithms.
pub fn entropy(counts: &[u64]) -> Option<f64> {
    let total = Sum::of(counts.iter().map(|&c| c as f64));
    (total > 0.0).then(|| {
        Sum::of(counts.iter().filter(|&&c| c > 0).map(|&c| {
            let p = c as f64 / total;
            -p * p.ln()
        }))
    })
}

/// Entropy of counts divided by that of equal counts: 1 for balanced classes, 0 where one class holds all.
///
/// # Edge cases
/// All counts 0, or fewer than two classes: `None`.
pub fn balance(counts: &[u64]) -> Option<f64> {
    if counts.len() < 2 { None } else { entropy(counts).map(|e| e / (counts.len() as f64).ln()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn moments_agree_with_two_passes_also_far_from_zero() {
        let mut rng = Rng::new(5);
        let x: Vec<f64> = (0..1000).map(|_| 1e9 + rng.normal()).collect();
        let mean = x.iter().sum::<f64>() / 1000.0;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 999.0;
        let got = Moments::of(x.iter().copied());
        assert!((got.mean().unwrap() - mean).abs() < 1e-5);
        assert!((got.variance().unwrap() / variance - 1.0).abs() < 1e-6);
        assert_eq!(got.min(), x.iter().copied().reduce(f64::min));
        assert_eq!(got.max(), x.iter().copied().reduce(f64::max));
    }

    #[test]
    fn merging_parts_gives_the_whole() {
        let x: Vec<f64> = (0..100).map(|i| f64::from(i * i % 37)).chain([f64::NAN]).collect();
        let whole = Moments::of(x.iter().copied());
        for cut in [0, 1, 50, 100, 101] {
            let mut parts = Moments::of(x[..cut].iter().copied());
            parts.merge(&Moments::of(x[cut..].iter().copied()));
            assert_eq!((parts.count(), parts.nan_count()), (100, 1));
            assert_eq!((parts.min(), parts.max()), (whole.min(), whole.max()));
            assert!((parts.mean().unwrap() - whole.mean().unwrap()).abs() < 1e-12);
            assert!((parts.variance().unwrap() / whole.variance().unwrap() - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn undefined_moments() {
        let none = Moments::of([f64::NAN]);
        assert_eq!((none.mean(), none.variance(), none.min(), none.max()), (None, None, None, None));
        assert_eq!(none.nan_count(), 1);
        let one = Moments::of([3.0]);
        assert_eq!((one.mean(), one.variance(), one.standard_deviation()), (Some(3.0), None, None));
    }

    #[test]
    fn quantiles_are_those_of_type_7() {
        // NumPy 2.4.6: numpy.quantile([3, 1, 4, 1, 5, 9, 2, 6], [0, .1, .25, .5, .9, 1]).
        let x = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0];
        for (q, expected) in [(0.0, 1.0), (0.1, 1.0), (0.25, 1.75), (0.5, 3.5), (0.9, 6.9), (1.0, 9.0)] {
            assert!((quantile(&x, q).unwrap() - expected).abs() < 1e-14, "{q}");
        }
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[1.0, f64::NAN], 0.5), None);
        assert_eq!(quantile(&[1.0, -f64::NAN], 0.5), None);
        assert_eq!(quantile(&x, 1.1), None);
        assert_eq!(quantile(&[f64::INFINITY; 3], 0.3), Some(f64::INFINITY));
    }

    #[test]
    fn histograms_count_everything_once() {
        let mut h = Histogram::new(0.0, 1.0, 10).unwrap();
        for v in [-0.1, 0.0, 0.1, 0.3, 0.7, 0.999, 1.0, 1.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            h.add(v);
        }
        assert_eq!(h.counts, [1, 1, 0, 1, 0, 0, 0, 1, 0, 2]);
        assert_eq!((h.below, h.above, h.nan), (2, 2, 1));
        let other = h.clone();
        h.merge(&other).unwrap();
        assert_eq!((h.counts[9], h.nan), (4, 2));
        assert!(h.merge(&Histogram::new(0.0, 2.0, 10).unwrap()).is_err());
        assert!(h.merge(&Histogram::new(0.0, 1.0, 9).unwrap()).is_err());
    }

    #[test]
    fn every_edge_belongs_to_the_bin_above_it() {
        for bins in [3, 7, 10, 100, 255] {
            let mut h = Histogram::new(-0.3, 1.7, bins).unwrap();
            (0..=bins).for_each(|i| h.add(h.clone().edge(i)));
            assert!(h.counts[..bins - 1].iter().all(|&c| c == 1) && h.counts[bins - 1] == 2, "{bins}: {:?}", h.counts);
            let mut below = Histogram::new(-0.3, 1.7, bins).unwrap();
            (1..=bins).for_each(|i| below.add(h.edge(i).next_down()));
            assert!(below.counts.iter().all(|&c| c == 1), "below, {bins}: {:?}", below.counts);
        }
    }

    #[test]
    fn histograms_without_bins_or_width_are_refused() {
        assert!(Histogram::new(0.0, 1.0, 0).is_err() && Histogram::new(0.0, 1.0, usize::MAX).is_err());
        for (low, high) in [(1.0, 1.0), (1.0, 0.0), (f64::NAN, 1.0), (f64::MIN, f64::MAX), (0.0, f64::INFINITY)] {
            assert!(Histogram::new(low, high, 3).is_err(), "{low} {high}");
        }
    }

    #[test]
    fn entropy_of_equal_and_lonely_classes() {
        assert!((entropy(&[5, 5, 5, 5]).unwrap() - 4f64.ln()).abs() < 1e-15);
        assert_eq!(entropy(&[7, 0, 0]), Some(0.0));
        assert_eq!((entropy(&[]), entropy(&[0, 0]), balance(&[3]), balance(&[0, 0])), (None, None, None, None));
        assert!((balance(&[2, 2]).unwrap() - 1.0).abs() < 1e-15);
        assert!((balance(&[1, 3]).unwrap() - 0.8112781244591328).abs() < 1e-14);
    }
}
