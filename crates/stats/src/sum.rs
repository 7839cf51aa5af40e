/// A running sum that loses no more than the last bit or two, however many terms.
///
/// # Source
/// Neumaier 1974, ZAMM 54, 39–51 (improved Kahan–Babuška summation).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sum {
    sum: f64,
    compensation: f64,
}

impl Sum {
    /// Adds one term.
    pub fn add(&mut self, value: f64) {
        let total = self.sum + value;
        // The smaller of the two operands is the one whose low bits are lost.
        self.compensation +=
            if self.sum.abs() >= value.abs() { (self.sum - total) + value } else { (value - total) + self.sum };
        self.sum = total;
    }

    /// The sum so far; 0 for no terms.
    pub fn total(self) -> f64 {
        // Once the sum is infinite the compensation is NaN and would hide it.
        if self.sum.is_finite() { self.sum + self.compensation } else { self.sum }
    }

    /// Sum of all terms of an iterator.
    pub fn of(values: impl IntoIterator<Item = f64>) -> f64 {
        let mut sum = Self::default();
        values.into_iter().for_each(|v| sum.add(v));
        sum.total()
    }

    /// Mean of a slice; `None` where it is empty.
    pub fn mean(values: &[f64]) -> Option<f64> {
        (!values.is_empty()).then(|| Self::of(values.iter().copied()) / values.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_terms_survive_large_ones() {
        assert_eq!(Sum::of([1.0, 1e100, 1.0, -1e100]), 2.0);
        assert_eq!(Sum::of((0..10_000_000).map(|_| 0.1)), 1_000_000.0);
        assert_eq!(Sum::of([]), 0.0);
    }

    #[test]
    fn an_infinite_sum_stays_infinite_and_nan_stays_nan() {
        assert_eq!(Sum::of([f64::MAX, f64::MAX, 1.0]), f64::INFINITY);
        assert!(Sum::of([1.0, f64::NAN]).is_nan());
        assert_eq!(Sum::mean(&[]), None);
    }
}
