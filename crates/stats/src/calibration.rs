//! Whether confidence is accuracy: reliability bins, calibration errors, what they would be by chance, temperature.
//!
//! The plain expected calibration error is biased upward, since noise in a bin never cancels; [`consistency`] says how
//! large it would be for a calibrated network, and [`Reliability::squared_error_debiased`] takes the bias out.

mod consistency;
mod temperature;

pub use consistency::{Consistency, bootstrap_error, consistency};
pub use temperature::{Status, Temperature, fit_temperature};

use crate::classification::argmax;
use crate::descriptive::quantile_of_sorted;
use crate::interval::proportion::wilson;
use crate::probability::{Probabilities, check_events, equal_width_bin};
use crate::{Interval, Level, StatsError, Sum};

/// Stated probabilities of an event and whether it happened, checked. For a classifier the event is that the predicted
/// class is right.
#[derive(Debug, Clone, PartialEq)]
pub struct Confidences {
    confidence: Vec<f64>,
    correct: Vec<bool>,
}

impl Confidences {
    /// Confidences in `[0, 1]` and outcomes, one per row.
    /// # Errors
    /// Lengths that differ, or a confidence outside `[0, 1]` (NaN included).
    pub fn new(confidence: Vec<f64>, correct: Vec<bool>) -> Result<Self, StatsError> {
        check_events(&confidence, &correct)?;
        Ok(Self { confidence, correct })
    }

    /// The largest probability of each row, and whether its class (the first of equal ones) is the true one.
    pub fn of_predicted(probabilities: &Probabilities) -> Self {
        // Checked probabilities hold no NaN and whole rows, so every row has a class.
        let predicted = argmax(probabilities.values(), probabilities.classes()).unwrap_or_default();
        let rows = probabilities.rows().zip(predicted);
        let (confidence, correct) =
            rows.map(|((p, label), class)| (class.map_or(0.0, |c| p[c]).clamp(0.0, 1.0), class == Some(label))).unzip();
        Self { confidence, correct }
    }

    /// The probability of one class in each row, and whether it is the true one.
    pub fn of_class(probabilities: &Probabilities, class: usize) -> Self {
        let (confidence, correct) = probabilities
            .rows()
            .filter_map(|(p, label)| p.get(class).map(|v| (v.clamp(0.0, 1.0), label == class)))
            .unzip();
        Self { confidence, correct }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.confidence.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.confidence.is_empty()
    }

    /// Stated probabilities.
    pub fn confidence(&self) -> &[f64] {
        &self.confidence
    }

    /// Whether the event happened.
    pub fn correct(&self) -> &[bool] {
        &self.correct
    }

    /// Mean confidence minus accuracy: positive for overconfidence. `None` without rows.
    pub fn overconfidence(&self) -> Option<f64> {
        let right = self.correct.iter().filter(|&&c| c).count() as f64;
        Sum::mean(&self.confidence).map(|mean| mean - right / self.len() as f64)
    }
}

/// How confidences are put into bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binning {
    /// This many bins of equal width over `[0, 1]`, open below and closed above; 0 itself goes to the first.
    EqualWidth(usize),
    /// This many bins of (nearly) equal size, by rank of confidence. Equal confidences stay together, so the result does
    /// not depend on the order of rows.
    EqualMass(usize),
}

impl Binning {
    /// 15 bins of equal width, as Guo et al. 2017 and most papers since.
    pub const GUO: Self = Self::EqualWidth(15);

    fn bins(self) -> Result<usize, StatsError> {
        let (Self::EqualWidth(bins) | Self::EqualMass(bins)) = self;
        StatsError::check_bins(bins)?;
        Ok(bins)
    }

    /// Bin of each row.
    fn assign(self, confidence: &[f64]) -> Result<Vec<usize>, StatsError> {
        let bins = self.bins()?;
        if let Self::EqualWidth(_) = self {
            return Ok(confidence.iter().map(|&c| equal_width_bin(c, bins)).collect());
        }
        let n = confidence.len();
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_unstable_by(|&a, &b| confidence[a].total_cmp(&confidence[b]));
        let mut assigned = vec![0; n];
        let mut start = 0;
        for tie in order.chunk_by(|&a, &b| confidence[a] == confidence[b]) {
            // The rank in the middle of the equal ones decides for all of them.
            let middle = start + (tie.len() - 1) / 2;
            let bin = (middle as u128 * bins as u128 / n as u128) as usize;
            tie.iter().for_each(|&row| assigned[row] = bin);
            start += tie.len();
        }
        Ok(assigned)
    }
}

/// One bin of a reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// Lower edge for equal width (itself outside); smallest confidence for equal mass, 0 in an empty bin.
    pub low: f64,
    /// Upper edge for equal width; largest confidence for equal mass, 0 in an empty bin.
    pub high: f64,
    /// Rows.
    pub count: u64,
    /// Rows where the event happened.
    pub correct: u64,
    /// Sum of confidences.
    pub confidence_sum: f64,
    /// Wilson interval of the accuracy; `None` for an empty bin.
    pub interval: Option<Interval>,
}

impl Bin {
    /// Mean confidence; `None` for an empty bin.
    pub fn mean_confidence(&self) -> Option<f64> {
        (self.count > 0).then(|| self.confidence_sum / self.count as f64)
    }

    /// Fraction of rows where the event happened; `None` for an empty bin.
    pub fn accuracy(&self) -> Option<f64> {
        (self.count > 0).then(|| self.correct as f64 / self.count as f64)
    }

    /// Mean confidence minus accuracy; `None` for an empty bin.
    pub fn gap(&self) -> Option<f64> {
        (self.count > 0).then(|| (self.confidence_sum - self.correct as f64) / self.count as f64)
    }
}

/// The largest gap of a reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LargestGap {
    /// Absolute difference of mean confidence and accuracy.
    pub value: f64,
    /// Its bin.
    pub bin: usize,
    /// Rows in that bin; few rows make large gaps.
    pub count: u64,
}

/// A reliability diagram and the errors read off it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reliability {
    /// All bins from low to high confidence, empty ones included.
    pub bins: Vec<Bin>,
    /// Number of rows.
    pub n: u64,
}

impl Reliability {
    /// Bins the rows.
    ///
    /// # Errors
    /// No bins.
    ///
    /// # Source
    /// DeGroot and Fienberg 1983, The Statistician 32; Niculescu-Mizil and Caruana, ICML 2005.
    pub fn new(rows: &Confidences, binning: Binning, level: Level) -> Result<Self, StatsError> {
        let assigned = binning.assign(&rows.confidence)?;
        let count = binning.bins()?;
        let mut sums = vec![Sum::default(); count];
        let edge = |i: usize| if let Binning::EqualWidth(_) = binning { i as f64 / count as f64 } else { 0.0 };
        let empty =
            |i| Bin { low: edge(i), high: edge(i + 1), count: 0, correct: 0, confidence_sum: 0.0, interval: None };
        let mut bins: Vec<Bin> = (0..count).map(empty).collect();
        for ((&index, &confidence), &correct) in assigned.iter().zip(&rows.confidence).zip(&rows.correct) {
            let bin = &mut bins[index];
            if let Binning::EqualMass(_) = binning {
                bin.low = if bin.count == 0 { confidence } else { bin.low.min(confidence) };
                bin.high = bin.high.max(confidence);
            }
            bin.count += 1;
            bin.correct += u64::from(correct);
            sums[index].add(confidence);
        }
        for (bin, sum) in bins.iter_mut().zip(sums) {
            bin.confidence_sum = sum.total();
            bin.interval = wilson(bin.correct, bin.count, level);
        }
        Ok(Self { bins, n: rows.len() as u64 })
    }

    /// Expected calibration error: absolute gaps of all bins, weighted by their rows. With
    /// [`Binning::EqualMass`] this is the adaptive one. `None` without rows.
    ///
    /// # Source
    /// Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al., ICML 2017, equation 3. Adaptive: Nixon et al. 2019,
    /// arXiv:1904.01685, section 3.3.
    pub fn expected_error(&self) -> Option<f64> {
        (self.n > 0)
            .then(|| Sum::of(self.bins.iter().map(|b| (b.confidence_sum - b.correct as f64).abs())) / self.n as f64)
    }

    /// Maximum calibration error: the largest absolute gap, the first of equal ones. `None` without rows.
    ///
    /// # Source
    /// Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al. 2017, equation 5.
    pub fn largest_gap(&self) -> Option<LargestGap> {
        let gaps = self.bins.iter().enumerate();
        let gaps = gaps.filter_map(|(bin, b)| b.gap().map(|g| LargestGap { value: g.abs(), bin, count: b.count }));
        gaps.reduce(|best, next| if next.value > best.value { next } else { best })
    }

    /// Squared calibration error without the bias of its bins: from each squared gap the variance of its accuracy is
    /// taken. About 0, and as often negative as positive, for a calibrated network.
    ///
    /// # Edge cases
    /// A bin of one row has no estimate of its variance and is left out; `None` where no bin has two.
    ///
    /// # Source
    /// Kumar, Liang and Ma, NeurIPS 2019, arXiv:1909.10155, definition 5.1 (after Bröcker 2012; Ferro and Fricker 2012).
    pub fn squared_error_debiased(&self) -> Option<f64> {
        let mut rows = 0.0;
        let terms = self.bins.iter().filter(|b| b.count > 1).filter_map(|b| {
            let (gap, accuracy, count) = (b.gap()?, b.accuracy()?, b.count as f64);
            rows += count;
            Some(count * (gap * gap - accuracy * (1.0 - accuracy) / (count - 1.0)))
        });
        let sum = Sum::of(terms);
        (rows > 0.0).then(|| sum / rows)
    }
}

/// Calibration errors of every class against the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct ClasswiseError {
    /// Expected calibration error of each class's probability.
    pub per_class: Vec<f64>,
    /// Mean over all classes.
    pub mean: f64,
}

/// Expected calibration error of each class's probability over all rows, and its mean. `Ok(None)` without rows.
///
/// # Errors
/// No bins.
///
/// # Source
/// Kull et al., NeurIPS 2019, arXiv:1910.12656, section 2; Nixon et al. 2019, section 3.1 ("static calibration error").
pub fn classwise_error(probabilities: &Probabilities, binning: Binning) -> Result<Option<ClasswiseError>, StatsError> {
    let mut per_class = Vec::with_capacity(probabilities.classes());
    for class in 0..probabilities.classes() {
        let rows = Confidences::of_class(probabilities, class);
        per_class.extend(Reliability::new(&rows, binning, Level::P95)?.expected_error());
    }
    // Without rows no class has an error.
    Ok(Sum::mean(&per_class).map(|mean| ClasswiseError { per_class, mean }))
}

/// Quantile of unsorted replicates, for the helpers of this module.
fn quantile_of(mut values: Vec<f64>, q: f64) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    quantile_of_sorted(&values, q)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn rows(confidence: &[f64], correct: &[bool]) -> Confidences {
        Confidences::new(confidence.to_vec(), correct.to_vec()).unwrap()
    }

    fn reliability(r: &Confidences, binning: Binning) -> Reliability {
        Reliability::new(r, binning, Level::P95).unwrap()
    }

    #[test]
    fn errors_of_two_bins_by_hand() {
        // Bin (0, 0.5]: confidences 0.4, 0.5 (closed above), one right: gap -0.05. Bin (0.5, 1]: 0.9, 0.7, 1.0, none
        // wrong but one: gap 0.2.
        let r = rows(&[0.4, 0.5, 0.9, 0.7, 1.0], &[true, false, true, false, true]);
        let d = reliability(&r, Binning::EqualWidth(2));
        assert_eq!(
            d.bins.iter().map(|b| (b.low, b.high, b.count, b.correct)).collect::<Vec<_>>(),
            [(0.0, 0.5, 2, 1), (0.5, 1.0, 3, 2)]
        );
        assert!((d.bins[0].gap().unwrap() + 0.05).abs() < 1e-15 && (d.bins[1].gap().unwrap() - 0.2).abs() < 1e-15);
        assert!((d.expected_error().unwrap() - (2.0 * 0.05 + 3.0 * 0.2) / 5.0).abs() < 1e-15);
        let worst = d.largest_gap().unwrap();
        assert!((worst.value - 0.2).abs() < 1e-15 && worst.bin == 1 && worst.count == 3);
        assert_eq!(d.bins[1].interval, wilson(2, 3, Level::P95));
        assert_eq!((d.bins[0].mean_confidence(), d.bins[0].accuracy()), (Some(0.45), Some(0.5)));
        let squared = (2.0 * (0.0025 - 0.25) + 3.0 * (0.04 - 2.0 / 9.0 / 2.0)) / 5.0;
        assert!((d.squared_error_debiased().unwrap() - squared).abs() < 1e-15);
        assert!((r.overconfidence().unwrap() - 0.1).abs() < 1e-15);
    }

    #[test]
    fn edges_belong_to_the_bin_below_and_zero_to_the_first() {
        let r = rows(&[0.0, 1.0 / 15.0, 2.0 / 15.0, 3.0 / 15.0, 7.0 / 15.0, 1.0], &[false; 6]);
        let d = reliability(&r, Binning::GUO);
        let filled: Vec<(usize, u64)> =
            d.bins.iter().enumerate().filter(|(_, b)| b.count > 0).map(|(i, b)| (i, b.count)).collect();
        assert_eq!(filled, [(0, 2), (1, 1), (2, 1), (6, 1), (14, 1)]);
        assert_eq!(d.bins[3].interval, None);
        assert_eq!((d.bins[3].accuracy(), d.bins[3].gap(), d.bins[3].mean_confidence()), (None, None, None));
    }

    #[test]
    fn bins_of_equal_mass_share_the_rows_and_keep_ties_together() {
        let confidence: Vec<f64> = (1..=10).rev().map(|i| f64::from(i) / 10.0).collect();
        let d = reliability(&rows(&confidence, &[true; 10]), Binning::EqualMass(5));
        assert!(d.bins.iter().all(|b| b.count == 2));
        assert_eq!((d.bins[0].low, d.bins[0].high, d.bins[4].low), (0.1, 0.2, 0.9));
        let tied = rows(&[0.5, 0.5, 0.5, 0.5, 0.9], &[true, false, false, false, true]);
        let shuffled = rows(&[0.5, 0.9, 0.5, 0.5, 0.5], &[false, true, false, false, true]);
        let (a, b) = (reliability(&tied, Binning::EqualMass(3)), reliability(&shuffled, Binning::EqualMass(3)));
        assert_eq!(a, b);
        assert_eq!(a.bins.iter().map(|b| b.count).collect::<Vec<_>>(), [4, 0, 1]);
        // The middle of ranks 1 to 5 is 3, in the upper half of six.
        let upper = reliability(&rows(&[0.1, 0.5, 0.5, 0.5, 0.5, 0.5], &[true; 6]), Binning::EqualMass(2));
        assert_eq!(upper.bins.iter().map(|b| b.count).collect::<Vec<_>>(), [1, 5]);
    }

    #[test]
    fn a_calibrated_network_has_bias_in_the_plain_error_and_none_in_the_debiased_one() {
        let mut rng = Rng::new(31);
        let (mut plain, mut debiased) = (0.0, 0.0);
        for _ in 0..200 {
            let confidence: Vec<f64> = (0..300).map(|_| 0.5 + 0.5 * rng.unit()).collect();
            let correct: Vec<bool> = confidence.iter().map(|&c| rng.unit() < c).collect();
            let d = reliability(&rows(&confidence, &correct), Binning::GUO);
            plain += d.expected_error().unwrap() / 200.0;
            debiased += d.squared_error_debiased().unwrap() / 200.0;
        }
        assert!(plain > 0.04, "{plain}");
        assert!(debiased.abs() < 0.0005, "{debiased}");
    }

    #[test]
    fn predicted_classes_break_ties_like_argmax() {
        let p = Probabilities::new(&[0.5, 0.5, 0.2, 0.8, 0.9, 0.1], 2, &[1, 1, 0]).unwrap();
        assert_eq!(Confidences::of_predicted(&p), rows(&[0.5, 0.8, 0.9], &[false, true, true]));
        assert_eq!(Confidences::of_class(&p, 1), rows(&[0.5, 0.8, 0.1], &[true, true, false]));
        assert!(Confidences::of_class(&p, 2).is_empty());
    }

    #[test]
    fn classwise_error_of_two_classes_is_that_of_each() {
        let p = Probabilities::new(&[0.3, 0.7, 0.2, 0.8, 0.9, 0.1], 2, &[1, 0, 0]).unwrap();
        let got = classwise_error(&p, Binning::EqualWidth(1)).unwrap().unwrap();
        let expected = (1.4f64 - 2.0).abs() / 3.0;
        assert!(got.per_class.iter().all(|e| (e - expected).abs() < 1e-15) && (got.mean - expected).abs() < 1e-15);
        let none = Probabilities::new(&[], 2, &[]).unwrap();
        assert_eq!(classwise_error(&none, Binning::GUO).unwrap(), None);
    }

    #[test]
    fn no_rows_no_bins_and_wrong_confidences() {
        let none = rows(&[], &[]);
        for binning in [Binning::GUO, Binning::EqualMass(4)] {
            let d = reliability(&none, binning);
            assert_eq!((d.expected_error(), d.squared_error_debiased()), (None, None));
            assert_eq!(d.largest_gap(), None);
        }
        assert_eq!(none.overconfidence(), None);
        assert!(Reliability::new(&none, Binning::EqualWidth(0), Level::P95).is_err());
        assert!(Reliability::new(&none, Binning::EqualMass(usize::MAX), Level::P95).is_err());
        assert!(Confidences::new(vec![f64::NAN], vec![true]).is_err());
        assert!(Confidences::new(vec![1.5], vec![true]).is_err());
        assert!(Confidences::new(vec![0.5], vec![]).is_err());
    }
}
