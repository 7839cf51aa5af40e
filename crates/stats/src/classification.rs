//! Predicted classes against true ones: confusion matrix and what follows from it.

use std::collections::BTreeMap;

use crate::interval::proportion::proportion;
use crate::probability::check_rows;
use crate::{Estimate, Level, StatsError, Sum};

/// Class of the largest value of each row; the first of equal ones.
///
/// A row with a NaN has no class: it is `None`, never silently class 0.
///
/// # Shapes
/// values (logits or probabilities): `[rows, classes]` → `[rows]`
///
/// # Errors
/// The values are not whole rows.
pub fn argmax<T: Copy + Into<f64>>(values: &[T], classes: usize) -> Result<Vec<Option<usize>>, StatsError> {
    StatsError::check_positive("classes", classes)?;
    StatsError::check_length("logits", values.len() / classes * classes, values.len())?;
    Ok(values.chunks_exact(classes).map(|row| argmax_row(row)).collect())
}

/// Class of a single score per row (a probability or a logit of class 1): 1 above the threshold, otherwise 0; `None` for
/// NaN.
pub fn threshold<T: Copy + Into<f64>>(scores: &[T], threshold: f64) -> Vec<Option<usize>> {
    let class = |&score: &T| {
        let score: f64 = score.into();
        (!score.is_nan()).then_some(usize::from(score > threshold))
    };
    scores.iter().map(class).collect()
}

/// How often the true class is among the `k` largest values, with its Wilson interval.
///
/// # Edge cases
/// Among equal values the lower class comes first, so that `k` = 1 is the accuracy of [`argmax`]. A row with a NaN is a
/// miss. No rows: `Ok(None)`.
///
/// # Errors
/// Lengths that do not fit, or a label beyond the classes.
pub fn top_k_accuracy<T: Copy + Into<f64>>(
    values: &[T],
    classes: usize,
    labels: &[usize],
    k: usize,
    level: Level,
) -> Result<Option<Estimate>, StatsError> {
    check_rows("logits", values.len(), classes, labels)?;
    let hit = |(row, &label): (&[T], &usize)| {
        let own: f64 = row[label].into();
        let ahead = row.iter().enumerate().filter(|&(class, &v)| {
            let v: f64 = v.into();
            v > own || v == own && class < label
        });
        !row.iter().any(|&v| v.into().is_nan()) && ahead.count() < k
    };
    let hits = values.chunks_exact(classes).zip(labels).filter(|&pair| hit(pair)).count();
    Ok(proportion(hits as u64, labels.len() as u64, level))
}

/// Most classes of a confusion matrix; keeps a wrong number from asking for all memory.
const MAX_CLASSES: usize = 1 << 24;

/// A mean over classes, and over how many.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassMean {
    /// The mean.
    pub value: f64,
    /// Classes in the mean: those where the measure is defined.
    pub classes: usize,
    /// All classes.
    pub of: usize,
}

impl ClassMean {
    /// Mean of what is defined; `None` where nothing is.
    pub fn of(values: &[Option<f64>]) -> Option<Self> {
        let defined: Vec<f64> = values.iter().copied().flatten().collect();
        Some(Self { value: Sum::mean(&defined)?, classes: defined.len(), of: values.len() })
    }
}

/// Counts of one class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassReport {
    /// Rows of this class.
    pub support: u64,
    /// Rows predicted as this class.
    pub predicted: u64,
    /// Rows of this class predicted as such.
    pub correct: u64,
    /// `correct / predicted` with its Wilson interval; `None` where the class is never predicted.
    pub precision: Option<Estimate>,
    /// `correct / support` with its Wilson interval; `None` where the class never occurs.
    pub recall: Option<Estimate>,
    /// `2 correct / (support + predicted)`; `None` where the class neither occurs nor is predicted.
    pub f1: Option<f64>,
}

/// True classes (rows) against predicted ones (columns).
///
/// Only cells that occur are kept, so tens of thousands of classes need no more memory than there are rows. Rows without
/// a prediction (NaN) are counted beside the matrix, as errors of their true class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix {
    cells: BTreeMap<(usize, usize), u64>,
    /// Rows by true class, those without a prediction included.
    truths: Vec<u64>,
    /// Rows by predicted class.
    predictions: Vec<u64>,
    unpredicted: Vec<u64>,
}

impl ConfusionMatrix {
    /// Counts predictions against labels.
    ///
    /// # Errors
    /// Lengths that differ, or a label or prediction beyond the classes.
    pub fn new(classes: usize, labels: &[usize], predicted: &[Option<usize>]) -> Result<Self, StatsError> {
        StatsError::check_length("predictions", labels.len(), predicted.len())?;
        Self::from_pairs(classes, labels.iter().copied().zip(predicted.iter().copied()))
    }

    /// Counts pairs of label and prediction, which need not be in memory at once.
    ///
    /// # Errors
    /// A label or prediction beyond the classes.
    pub fn from_pairs(
        classes: usize,
        pairs: impl IntoIterator<Item = (usize, Option<usize>)>,
    ) -> Result<Self, StatsError> {
        if !(1..=MAX_CLASSES).contains(&classes) {
            let allowed = "1 to 16777216";
            return Err(StatsError::Parameter { name: "classes", value: classes as f64, allowed });
        }
        let mut matrix = Self {
            cells: BTreeMap::new(),
            truths: vec![0; classes],
            predictions: vec![0; classes],
            unpredicted: vec![0; classes],
        };
        for (row, (label, prediction)) in pairs.into_iter().enumerate() {
            if let Some(label) = [Some(label), prediction].into_iter().flatten().find(|&c| c >= classes) {
                return Err(StatsError::Label { row, label, classes });
            }
            matrix.truths[label] += 1;
            match prediction {
                Some(class) => {
                    matrix.predictions[class] += 1;
                    *matrix.cells.entry((label, class)).or_default() += 1;
                }
                None => matrix.unpredicted[label] += 1,
            }
        }
        Ok(matrix)
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.truths.len()
    }

    /// Cells that occur, `(truth, predicted, count)`, in order of truth, then prediction.
    pub fn cells(&self) -> impl Iterator<Item = (usize, usize, u64)> {
        self.cells.iter().map(|(&(truth, predicted), &count)| (truth, predicted, count))
    }

    /// All counts, a row per true class, for a plot; `None` for more than 1,000 classes.
    ///
    /// # Shapes
    /// `[classes, classes]`
    pub fn dense(&self) -> Option<Vec<u64>> {
        let classes = self.classes();
        (classes <= 1000).then(|| {
            let mut counts = vec![0; classes * classes];
            self.cells().for_each(|(truth, predicted, count)| counts[truth * classes + predicted] = count);
            counts
        })
    }

    /// The `k` most frequent mistakes, `(truth, predicted, count)`; equal ones in order of truth, then prediction.
    pub fn most_confused(&self, k: usize) -> Vec<(usize, usize, u64)> {
        let mut mistakes: Vec<_> = self.cells().filter(|(truth, predicted, _)| truth != predicted).collect();
        // A stable sort keeps the order of equal ones.
        mistakes.sort_by_key(|mistake| std::cmp::Reverse(mistake.2));
        mistakes.truncate(k);
        mistakes
    }

    /// Rows of a true class predicted as a class; 0 for classes that do not exist.
    pub fn count(&self, truth: usize, predicted: usize) -> u64 {
        self.cells.get(&(truth, predicted)).copied().unwrap_or(0)
    }

    /// Rows without a prediction, by true class.
    pub fn unpredicted(&self) -> &[u64] {
        &self.unpredicted
    }

    /// Number of rows, those without a prediction included.
    pub fn total(&self) -> u64 {
        self.truths.iter().sum()
    }

    /// Rows predicted rightly.
    pub fn correct(&self) -> u64 {
        self.cells().filter(|(truth, predicted, _)| truth == predicted).map(|(_, _, count)| count).sum()
    }

    /// Fraction of rows predicted rightly, with its Wilson interval; `None` without rows.
    pub fn accuracy(&self, level: Level) -> Option<Estimate> {
        proportion(self.correct(), self.total(), level)
    }

    /// Counts, precision, recall and F1 of each class.
    pub fn per_class(&self, level: Level) -> Vec<ClassReport> {
        let report = |class: usize| {
            let (support, predicted, correct) = (self.truths[class], self.predictions[class], self.count(class, class));
            let either = support + predicted;
            ClassReport {
                support,
                predicted,
                correct,
                precision: proportion(correct, predicted, level),
                recall: proportion(correct, support, level),
                f1: (either > 0).then(|| 2.0 * correct as f64 / either as f64),
            }
        };
        (0..self.classes()).map(report).collect()
    }

    /// Mean recall over the classes that occur.
    pub fn balanced_accuracy(&self) -> Option<ClassMean> {
        self.macro_of(|r| r.recall.map(|e| e.value))
    }

    /// Mean precision over the classes that are predicted. Classes never predicted are left out, not counted as 0
    /// (scikit-learn counts them as 0), so read [`ClassMean::classes`] with it.
    pub fn macro_precision(&self) -> Option<ClassMean> {
        self.macro_of(|r| r.precision.map(|e| e.value))
    }

    /// Mean F1 over the classes that occur or are predicted.
    pub fn macro_f1(&self) -> Option<ClassMean> {
        self.macro_of(|r| r.f1)
    }

    /// Mean F1 weighted by how often classes occur; `None` without rows.
    pub fn weighted_f1(&self) -> Option<f64> {
        let total = self.total() as f64;
        let weighted = |r: &ClassReport| r.f1.map_or(0.0, |f1| f1 * r.support as f64);
        (total > 0.0).then(|| Sum::of(self.per_class(Level::P95).iter().map(weighted)) / total)
    }

    /// F1 of all classes counted together: the accuracy, unless rows lack a prediction, which count as misses but not as
    /// false alarms.
    pub fn micro_f1(&self) -> Option<f64> {
        let predicted: u64 = self.predictions.iter().sum();
        let either = self.total() + predicted;
        (either > 0).then(|| 2.0 * self.correct() as f64 / either as f64)
    }

    /// Matthews correlation coefficient for any number of classes; -1 to 1, 0 for chance.
    ///
    /// # Edge cases
    /// All rows of one class, or all predictions the same: undefined, `None`. Rows without a prediction count as
    /// predictions of one further class.
    ///
    /// # Source
    /// Gorodkin 2004, Computational Biology and Chemistry 28, 367–374.
    pub fn matthews_correlation(&self) -> Option<f64> {
        let (correct, total) = (self.correct() as f64, self.total() as f64);
        let without: u64 = self.unpredicted.iter().sum();
        let squares = |margin: &[u64]| Sum::of(margin.iter().map(|&c| (c as f64 / total).powi(2)));
        // Everything as a fraction of the rows, so that squares of counts stay in range.
        let expected = self.expected_agreement();
        let predicted_squares = squares(&self.predictions) + (without as f64 / total).powi(2);
        let spread = ((1.0 - predicted_squares) * (1.0 - squares(&self.truths))).sqrt();
        let constant = |margin: &[u64]| margin.iter().any(|&c| c == self.total());
        let undefined =
            total == 0.0 || constant(&self.truths) || constant(&self.predictions) || without == self.total();
        (!undefined).then(|| (correct / total - expected) / spread)
    }

    /// Cohen's kappa: agreement beyond what the margins give by chance; at most 1, 0 for chance.
    ///
    /// # Edge cases
    /// No rows, or all rows of one class and predicted as that class: undefined, `None`. Rows without a prediction count
    /// as disagreement.
    ///
    /// # Source
    /// Cohen 1960, Educational and Psychological Measurement 20(1).
    pub fn cohen_kappa(&self) -> Option<f64> {
        let total = self.total();
        if total == 0 || self.cells().any(|(truth, predicted, count)| truth == predicted && count == total) {
            return None;
        }
        let expected = self.expected_agreement();
        Some((self.correct() as f64 / total as f64 - expected) / (1.0 - expected))
    }

    fn macro_of(&self, measure: impl Fn(&ClassReport) -> Option<f64>) -> Option<ClassMean> {
        ClassMean::of(&self.per_class(Level::P95).iter().map(measure).collect::<Vec<_>>())
    }

    /// Agreement by chance: sum over classes of the product of both margins' fractions.
    fn expected_agreement(&self) -> f64 {
        let total = self.total() as f64;
        Sum::of(self.truths.iter().zip(&self.predictions).map(|(&t, &p)| (t as f64 / total) * (p as f64 / total)))
    }
}

fn argmax_row<T: Copy + Into<f64>>(row: &[T]) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (class, &value) in row.iter().enumerate() {
        let value: f64 = value.into();
        if value.is_nan() {
            return None;
        }
        if best.is_none_or(|(_, b)| value > b) {
            best = Some((class, value));
        }
    }
    best.map(|(class, _)| class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(predicted: &[usize]) -> Vec<Option<usize>> {
        predicted.iter().copied().map(Some).collect()
    }

    #[test]
    fn ties_go_to_the_first_class_and_nan_to_none() {
        let nan = f32::NAN;
        let values = [1.0, 1.0, 0.0, nan, 0.0, 1.0, 2.0, nan, 1.0, -1.0, -2.0, f32::INFINITY];
        assert_eq!(argmax(&values, 3).unwrap(), [Some(0), None, None, Some(2)]);
        assert_eq!(argmax(&[-0.0, 0.0], 2).unwrap(), [Some(0)]);
        assert!(argmax(&[1.0, 2.0, 3.0], 2).is_err() && argmax::<f32>(&[], 0).is_err());
        assert_eq!(threshold(&[0.5, 0.6, f64::NAN], 0.5), [Some(0), Some(1), None]);
    }

    #[test]
    fn metrics_of_a_small_matrix_by_hand_and_by_scikit_learn() {
        let labels = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2];
        let m = ConfusionMatrix::new(4, &labels, &some(&[0, 0, 0, 1, 1, 1, 0, 2, 1, 1])).unwrap();
        assert_eq!((m.correct(), m.total(), m.count(2, 1), m.count(9, 9)), (6, 10, 2, 0));
        assert_eq!(m.dense().unwrap(), [3, 1, 0, 0, 1, 2, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0]);
        assert_eq!(m.most_confused(2), [(2, 1, 2), (0, 1, 1)]);
        let a = m.accuracy(Level::P95).unwrap();
        assert_eq!((a.value, a.n), (0.6, 10));
        let classes = m.per_class(Level::P95);
        let values = |f: fn(&ClassReport) -> Option<f64>| classes.iter().map(f).collect::<Vec<_>>();
        assert_eq!(values(|r| r.precision.map(|e| e.value)), [Some(0.75), Some(0.4), Some(1.0), None]);
        assert_eq!(values(|r| r.recall.map(|e| e.value)), [Some(0.75), Some(2.0 / 3.0), Some(1.0 / 3.0), None]);
        assert_eq!(values(|r| r.f1), [Some(0.75), Some(0.5), Some(0.5), None]);
        assert_eq!((classes[1].support, classes[1].predicted, classes[1].correct), (3, 5, 2));
        let close = |got: Option<f64>, expected: f64| assert!((got.unwrap() - expected).abs() < 1e-12, "{got:?}");
        // scikit-learn 1.9.1 on the same rows.
        close(m.balanced_accuracy().map(|c| c.value), 0.5833333333333334);
        close(m.macro_f1().map(|c| c.value), 0.5833333333333334);
        close(m.weighted_f1(), 0.6);
        close(m.micro_f1(), 0.6);
        close(m.matthews_correlation(), 0.42023031949290335);
        close(m.cohen_kappa(), 0.39393939393939403);
        let c = m.macro_f1().unwrap();
        assert_eq!((c.classes, c.of), (3, 4));
        close(m.macro_precision().map(|c| c.value), 2.15 / 3.0);
    }

    #[test]
    fn rows_without_prediction_are_errors() {
        let m = ConfusionMatrix::new(2, &[0, 0, 1, 1], &[Some(0), None, Some(1), Some(1)]).unwrap();
        assert_eq!((m.accuracy(Level::P95).unwrap().value, m.unpredicted()), (0.75, &[1, 0][..]));
        let r = m.per_class(Level::P95)[0];
        assert_eq!((r.support, r.predicted, r.recall.unwrap().value, r.precision.unwrap().value), (2, 1, 0.5, 1.0));
        assert!((m.micro_f1().unwrap() - 6.0 / 7.0).abs() < 1e-15);
        // The same as a third class that is predicted once and never true.
        let three = ConfusionMatrix::new(3, &[0, 0, 1, 1], &some(&[0, 2, 1, 1])).unwrap();
        assert!((m.matthews_correlation().unwrap() - three.matthews_correlation().unwrap()).abs() < 1e-15);
        assert!((m.cohen_kappa().unwrap() - three.cohen_kappa().unwrap()).abs() < 1e-15);
    }

    #[test]
    fn what_is_undefined_is_none() {
        let empty = ConfusionMatrix::new(2, &[], &[]).unwrap();
        assert_eq!(empty.accuracy(Level::P95), None);
        assert_eq!(empty.balanced_accuracy(), None);
        assert_eq!((empty.weighted_f1(), empty.micro_f1()), (None, None));
        assert_eq!((empty.matthews_correlation(), empty.cohen_kappa()), (None, None));
        let constant = ConfusionMatrix::new(2, &[0, 1, 1], &some(&[1, 1, 1])).unwrap();
        assert_eq!(constant.matthews_correlation(), None);
        assert!(constant.cohen_kappa().unwrap().abs() < 1e-15);
        let single = ConfusionMatrix::new(2, &[1, 1], &some(&[1, 1])).unwrap();
        assert_eq!((single.matthews_correlation(), single.cohen_kappa()), (None, None));
        assert_eq!(single.balanced_accuracy(), Some(ClassMean { value: 1.0, classes: 1, of: 2 }));
    }

    #[test]
    fn wrong_labels_are_refused_by_row() {
        assert!(matches!(
            ConfusionMatrix::new(2, &[0, 5], &some(&[0, 0])),
            Err(StatsError::Label { row: 1, label: 5, classes: 2 })
        ));
        assert!(matches!(ConfusionMatrix::new(2, &[0, 1], &some(&[0, 2])), Err(StatsError::Label { row: 1, .. })));
        assert!(ConfusionMatrix::new(2, &[0], &[]).is_err());
        assert!(ConfusionMatrix::new(usize::MAX, &[], &[]).is_err() && ConfusionMatrix::new(0, &[], &[]).is_err());
        let many = ConfusionMatrix::new(100_000, &[99_999], &some(&[5])).unwrap();
        assert_eq!((many.dense(), many.count(99_999, 5)), (None, 1));
    }

    #[test]
    fn two_classes_give_the_textbook_correlation() {
        // True and false positives and negatives 6, 3, 1, 2.
        let labels = [[1; 6].to_vec(), [0; 3].to_vec(), [0; 1].to_vec(), [1; 2].to_vec()].concat();
        let predicted = [[1; 6].to_vec(), [1; 3].to_vec(), [0; 1].to_vec(), [0; 2].to_vec()].concat();
        let m = ConfusionMatrix::new(2, &labels, &some(&predicted)).unwrap();
        let (tp, fp, tn, fneg) = (6.0f64, 3.0, 1.0, 2.0);
        let mcc = (tp * tn - fp * fneg) / ((tp + fp) * (tp + fneg) * (tn + fp) * (tn + fneg)).sqrt();
        assert!((m.matthews_correlation().unwrap() - mcc).abs() < 1e-15);
    }

    #[test]
    fn top_k_counts_ties_in_class_order() {
        let values = [0.5, 0.5, 0.0, 0.1, 0.2, 0.7, f64::NAN, 1.0, 0.0];
        let top = |k| top_k_accuracy(&values, 3, &[1, 0, 1], k, Level::P95).unwrap().unwrap().value;
        assert_eq!((top(0), top(1), top(2), top(3)), (0.0, 0.0, 1.0 / 3.0, 2.0 / 3.0));
        assert_eq!(top_k_accuracy(&[0.5, 0.5], 2, &[0], 1, Level::P95).unwrap().unwrap().value, 1.0);
        assert_eq!(top_k_accuracy::<f64>(&[], 3, &[], 1, Level::P95).unwrap(), None);
        assert!(top_k_accuracy(&values, 3, &[1, 0], 1, Level::P95).is_err());
    }
}
