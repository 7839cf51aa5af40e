//! Ranking: area under the ROC curve with DeLong's interval, ROC points, average precision.

use crate::interval::mean::wald;
use crate::probability::check_rows;
use crate::{Interval, Level, StatsError, Sum};

/// Area under the ROC curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Auroc {
    /// Probability that a positive row scores above a negative one, ties counting half.
    pub value: f64,
    /// Positive rows.
    pub positives: u64,
    /// Negative rows.
    pub negatives: u64,
    /// DeLong's standard error; `None` where there is only one positive or negative row.
    pub standard_error: Option<f64>,
    /// `delong` (clipped to 0..1) where the standard error is positive; otherwise, as for an area of exactly 1,
    /// `newcombe-auroc`, which never has width 0.
    pub interval: Interval,
}

/// Mann–Whitney estimate of the area under the ROC curve, in O(n log n).
///
/// # Edge cases
/// Only positives or only negatives: `Ok(None)`.
///
/// # Errors
/// Lengths that differ, or a NaN score. Infinite scores rank as such.
///
/// # Source
/// DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44, 837–845; by midranks: Sun and Xu 2014, IEEE Signal Processing
/// Letters 21(11).
pub fn auroc(scores: &[f64], positive: &[bool], level: Level) -> Result<Option<Auroc>, StatsError> {
    check_scores(scores, positive)?;
    let Some(parts) = Components::new(scores, positive) else { return Ok(None) };
    let Components { value, positives, negatives, .. } = parts;
    let standard_error = (positives > 1 && negatives > 1).then(|| parts.variance().sqrt());
    let interval = match standard_error {
        Some(error) if error > 0.0 => Interval { method: "delong", ..wald(value, error, level) }.clamp(0.0, 1.0),
        _ => newcombe_auroc(value, positives, negatives, level),
    };
    Ok(Some(Auroc { value, positives, negatives, standard_error, interval }))
}

/// Areas of each class against the rest, and their mean.
#[derive(Debug, Clone, PartialEq)]
pub struct OneVersusRest {
    /// By class; `None` for a class that never or always occurs.
    pub per_class: Vec<Option<Auroc>>,
    /// Mean over the classes that have one; `None` where none has.
    pub macro_average: Option<MacroAuroc>,
}

/// Mean of the areas of all classes against the rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MacroAuroc {
    /// The mean.
    pub value: f64,
    /// Classes in the mean.
    pub classes: usize,
    /// All classes.
    pub of: usize,
    /// Standard error from the influence of each row on all areas together.
    pub standard_error: f64,
    /// `delong`, clipped to 0..1; `None` where the standard error is 0.
    pub interval: Option<Interval>,
}

/// Area under the ROC curve of each class against the rest.
///
/// The standard error of the mean adds each row's DeLong components over all classes before squaring, so it respects
/// that the areas come from the same rows; for a single class it is DeLong's.
///
/// # Shapes
/// scores (probabilities, not logits: their rows are not comparable): `[rows, classes]`; labels: `[rows]`
///
/// # Errors
/// Lengths that do not fit, a label beyond the classes, or a NaN score.
pub fn one_versus_rest(
    scores: &[f64],
    classes: usize,
    labels: &[usize],
    level: Level,
) -> Result<OneVersusRest, StatsError> {
    check_rows("scores", scores.len(), classes, labels)?;
    let mut influence = vec![0.0; labels.len()];
    let mut per_class = Vec::with_capacity(classes);
    let mut values = Vec::with_capacity(classes);
    for class in 0..classes {
        let column: Vec<f64> = scores.iter().skip(class).step_by(classes).copied().collect();
        let positive: Vec<bool> = labels.iter().map(|&l| l == class).collect();
        per_class.push(auroc(&column, &positive, level)?);
        if let Some(parts) = Components::new(&column, &positive) {
            values.push(parts.value);
            influence.iter_mut().zip(parts.influence()).for_each(|(sum, i)| *sum += i);
        }
    }
    let macro_average = Sum::mean(&values).map(|value| {
        let standard_error = Sum::of(influence.iter().map(|i| i * i)).sqrt() / values.len() as f64;
        let interval = (standard_error > 0.0)
            .then(|| Interval { method: "delong", ..wald(value, standard_error, level) }.clamp(0.0, 1.0));
        MacroAuroc { value, classes: values.len(), of: classes, standard_error, interval }
    });
    Ok(OneVersusRest { per_class, macro_average })
}

/// A point of the ROC curve: what is called positive when everything scoring `threshold` or more is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RocPoint {
    /// Fraction of negatives called positive.
    pub false_positive_rate: f64,
    /// Fraction of positives called positive.
    pub true_positive_rate: f64,
    /// Smallest score called positive; infinite at the first point, where nothing is.
    pub threshold: f64,
}

/// Points of the ROC curve from (0, 0) to (1, 1), at most `max_points` of them (at least 2).
///
/// Corners are kept and points on a straight line between them dropped; where more remain, evenly spaced ones of them
/// stay, the same for the same input.
///
/// # Edge cases
/// Only positives or only negatives: `Ok(None)`.
///
/// # Errors
/// Lengths that differ, or a NaN score.
///
/// # Source
/// Fawcett 2006, Pattern Recognition Letters 27, algorithm 1.
pub fn roc_curve(scores: &[f64], positive: &[bool], max_points: usize) -> Result<Option<Vec<RocPoint>>, StatsError> {
    check_scores(scores, positive)?;
    let steps = cumulative(scores, positive);
    let Some(&(_, positives, false_positives)) = steps.last() else { return Ok(None) };
    if positives == 0 || false_positives == 0 {
        return Ok(None);
    }
    let mut corners: Vec<(f64, u64, u64)> = vec![(f64::INFINITY, 0, 0)];
    for step in steps {
        if let [.., a, b] = corners[..] {
            let cross = |x: u64, y: u64| i128::from(x) * i128::from(y);
            // Counts are exact, so the test for a straight line is too.
            if cross(b.1 - a.1, step.2 - b.2) == cross(step.1 - b.1, b.2 - a.2) {
                corners.pop();
            }
        }
        corners.push(step);
    }
    let keep = max_points.max(2).min(corners.len());
    let point = |i: usize| {
        let (threshold, tp, fp) = corners[i * (corners.len() - 1) / (keep - 1)];
        RocPoint {
            false_positive_rate: fp as f64 / false_positives as f64,
            true_positive_rate: tp as f64 / positives as f64,
            threshold,
        }
    };
    Ok(Some((0..keep).map(point).collect()))
}

/// Average precision: precision at each distinct score, weighted by the step in recall; no interpolation.
///
/// # Edge cases
/// No positives: `Ok(None)`.
///
/// # Errors
/// Lengths that differ, or a NaN score.
///
/// # Source
/// Manning, Raghavan and Schütze 2008, section 8.4; the same as scikit-learn's `average_precision_score`.
pub fn average_precision(scores: &[f64], positive: &[bool]) -> Result<Option<f64>, StatsError> {
    check_scores(scores, positive)?;
    let steps = cumulative(scores, positive);
    let positives = steps.last().map_or(0, |s| s.1);
    let mut before = 0;
    let terms = steps.iter().map(|&(_, tp, fp)| {
        let step = tp - std::mem::replace(&mut before, tp);
        step as f64 * tp as f64 / (tp + fp) as f64
    });
    Ok((positives > 0).then(|| Sum::of(terms) / positives as f64))
}

/// Score interval of an area, with the variance that its own value would give.
///
/// # Source
/// Newcombe 2006, Statistics in Medicine 25, 559–573, method 5 (Hanley and McNeil's 1982 variance at the limit instead
/// of the estimate, group sizes replaced by their mean).
fn newcombe_auroc(value: f64, positives: u64, negatives: u64, level: Level) -> Interval {
    let (m, n, z) = (positives as f64, negatives as f64, level.z());
    let mean_less_one = 0.5 * (m + n) - 1.0;
    let deviation = |a: f64| {
        let spread = 1.0 + mean_less_one * ((1.0 - a) / (2.0 - a) + a / (1.0 + a));
        (a * (1.0 - a) * spread / (m * n)).sqrt()
    };
    // The distance in standard deviations grows from the estimate to either bound, so halving finds where it is z.
    let limit = |bound: f64| {
        let (mut inside, mut outside) = (value, bound);
        for _ in 0..100 {
            let middle = 0.5 * (inside + outside);
            if (value - middle).abs() > z * deviation(middle) { outside = middle } else { inside = middle }
        }
        inside
    };
    Interval::new(limit(0.0), limit(1.0), level, "newcombe-auroc")
}

/// What each row contributes to the area.
struct Components {
    value: f64,
    positives: u64,
    negatives: u64,
    /// For a positive row the fraction of negatives below it, for a negative row the fraction of positives above it.
    placement: Vec<f64>,
    positive: Vec<bool>,
}

impl Components {
    /// `None` where one side is empty.
    fn new(scores: &[f64], positive: &[bool]) -> Option<Self> {
        let positives = positive.iter().filter(|&&p| p).count();
        let negatives = scores.len() - positives;
        if positives == 0 || negatives == 0 {
            return None;
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_unstable_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(a.cmp(&b)));
        let mut placement = vec![0.0; scores.len()];
        let (mut positives_below, mut negatives_below) = (0usize, 0usize);
        // The two zeros compare as equal here, as they should, though the order puts one first.
        for tie in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
            let tied_positives = tie.iter().filter(|&&row| positive[row]).count();
            let tied_negatives = tie.len() - tied_positives;
            let below = negatives_below as f64 + 0.5 * tied_negatives as f64;
            let above = (positives - positives_below - tied_positives) as f64 + 0.5 * tied_positives as f64;
            for &row in tie {
                placement[row] = if positive[row] { below / negatives as f64 } else { above / positives as f64 };
            }
            positives_below += tied_positives;
            negatives_below += tied_negatives;
        }
        let of_positives = placement.iter().zip(positive).filter(|(_, p)| **p).map(|(v, _)| *v);
        let value = Sum::of(of_positives) / positives as f64;
        Some(Self {
            value,
            positives: positives as u64,
            negatives: negatives as u64,
            placement,
            positive: positive.to_vec(),
        })
    }

    /// Deviation that each row causes; their squares sum to DeLong's variance.
    fn influence(&self) -> impl Iterator<Item = f64> {
        // s² / m with s² unbiased is a sum of squares over m (m - 1); a side of one row has no variance of its own.
        let scale = |m: u64| (m as f64 * (m.max(2) - 1) as f64).sqrt();
        let (positives, negatives) = (scale(self.positives), scale(self.negatives));
        self.placement
            .iter()
            .zip(&self.positive)
            .map(move |(v, &p)| (v - self.value) / if p { positives } else { negatives })
    }

    fn variance(&self) -> f64 {
        Sum::of(self.influence().map(|i| i * i))
    }
}

/// For each distinct score, from the largest down: the score, and how many positives and negatives reach it.
fn cumulative(scores: &[f64], positive: &[bool]) -> Vec<(f64, u64, u64)> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    let (mut tp, mut fp) = (0, 0);
    let mut steps = Vec::new();
    for tie in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let positives = tie.iter().filter(|&&row| positive[row]).count() as u64;
        tp += positives;
        fp += tie.len() as u64 - positives;
        steps.extend(tie.first().map(|&row| (scores[row], tp, fp)));
    }
    steps
}

fn check_scores(scores: &[f64], positive: &[bool]) -> Result<(), StatsError> {
    StatsError::check_length("labels", scores.len(), positive.len())?;
    match scores.iter().position(|s| s.is_nan()) {
        None => Ok(()),
        Some(row) => Err(StatsError::NotFinite { what: "score", row, value: scores[row] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn sample(n: usize, seed: u64, levels: usize) -> (Vec<f64>, Vec<bool>) {
        let mut rng = Rng::new(seed);
        let positive: Vec<bool> = (0..n).map(|_| rng.below(3) == 0).collect();
        let scores = positive.iter().map(|&p| (rng.below(levels) + if p { levels / 4 } else { 0 }) as f64).collect();
        (scores, positive)
    }

    #[test]
    fn areas_and_variances_agree_with_all_pairs() {
        for (n, seed, levels) in [(40, 1, 5), (200, 2, 1000), (77, 3, 2)] {
            let (scores, positive) = sample(n, seed, levels);
            let pick = |want: bool| -> Vec<f64> {
                scores.iter().zip(&positive).filter(|(_, p)| **p == want).map(|(s, _)| *s).collect()
            };
            let (x, y) = (pick(true), pick(false));
            let psi = |a: f64, b: f64| {
                if a > b {
                    1.0
                } else if a == b {
                    0.5
                } else {
                    0.0
                }
            };
            let (m, k) = (x.len() as f64, y.len() as f64);
            let v10: Vec<f64> = x.iter().map(|&a| y.iter().map(|&b| psi(a, b)).sum::<f64>() / k).collect();
            let v01: Vec<f64> = y.iter().map(|&b| x.iter().map(|&a| psi(a, b)).sum::<f64>() / m).collect();
            let value = v10.iter().sum::<f64>() / m;
            let s = |v: &[f64]| v.iter().map(|u| (u - value).powi(2)).sum::<f64>() / (v.len() as f64 - 1.0);
            let error = (s(&v10) / m + s(&v01) / k).sqrt();
            let got = auroc(&scores, &positive, Level::P95).unwrap().unwrap();
            assert!((got.value - value).abs() < 1e-13, "{} {value}", got.value);
            assert!((got.standard_error.unwrap() - error).abs() < 1e-13, "{:?} {error}", got.standard_error);
            assert_eq!(got.interval.method, "delong");
            assert!((got.interval.low - (value - 1.959963984540054 * error)).abs() < 1e-12);
        }
    }

    #[test]
    fn orders_that_are_perfect_reversed_and_absent() {
        let positive = [false, false, true, true];
        let at = |scores: [f64; 4]| auroc(&scores, &positive, Level::P95).unwrap().unwrap();
        let perfect = at([1.0, 2.0, 3.0, 4.0]);
        assert_eq!((perfect.value, perfect.standard_error), (1.0, Some(0.0)));
        assert!(perfect.interval.method == "newcombe-auroc" && perfect.interval.high == 1.0);
        assert!(perfect.interval.low > 0.2 && perfect.interval.low < 0.8, "{:?}", perfect.interval);
        assert_eq!(at([4.0, 3.0, 2.0, 1.0]).value, 0.0);
        assert_eq!(at([7.0; 4]).value, 0.5);
        assert_eq!(at([0.0, -0.0, 0.0, -0.0]).value, 0.5);
        assert_eq!(at([f64::NEG_INFINITY, 0.0, 1.0, f64::INFINITY]).value, 1.0);
    }

    #[test]
    fn delongs_interval_ends_at_the_bounds() {
        let scores = [0.1, 0.2, 0.6, 0.5, 0.8, 0.9];
        let area = auroc(&scores, &[false, false, false, true, true, true], Level::P95).unwrap().unwrap();
        assert_eq!((area.interval.method, area.interval.high), ("delong", 1.0));
        let labels = [0, 0, 0, 1, 1, 1];
        let rows: Vec<f64> = scores.iter().flat_map(|s| [1.0 - s, *s]).collect();
        let average = one_versus_rest(&rows, 2, &labels, Level::P95).unwrap().macro_average.unwrap();
        assert_eq!(average.interval.unwrap().high, 1.0);
    }

    #[test]
    fn the_score_interval_solves_its_equation() {
        let i = newcombe_auroc(0.8, 30, 50, Level::P95);
        for end in [i.low, i.high] {
            // Hanley and McNeil's variance with both group sizes less one replaced by their mean.
            let (q1, q2) = (end / (2.0 - end), 2.0 * end * end / (1.0 + end));
            let variance = (end * (1.0 - end) + 39.0 * (q1 - end * end) + 39.0 * (q2 - end * end)) / 1500.0;
            let z = (0.8 - end).abs() / variance.sqrt();
            assert!((z - 1.959963984540054).abs() < 1e-9, "{i:?}: {z}");
        }
    }

    #[test]
    fn single_rows_on_a_side_have_no_standard_error() {
        let one = auroc(&[1.0, 2.0, 1.5], &[false, true, false], Level::P95).unwrap().unwrap();
        assert!(one.standard_error.is_none() && one.interval.method == "newcombe-auroc");
        assert_eq!(auroc(&[1.0], &[true], Level::P95).unwrap(), None);
        assert_eq!(auroc(&[], &[], Level::P95).unwrap(), None);
        assert!(auroc(&[f64::NAN, 1.0], &[true, false], Level::P95).is_err());
        assert!(auroc(&[1.0], &[], Level::P95).is_err());
    }

    #[test]
    fn two_classes_one_versus_rest_are_the_binary_area_twice() {
        let (scores, positive) = sample(100, 8, 37);
        let rows: Vec<f64> = scores.iter().flat_map(|&s| [1.0 - s / 100.0, s / 100.0]).collect();
        let labels: Vec<usize> = positive.iter().map(|&p| usize::from(p)).collect();
        let binary = auroc(&scores, &positive, Level::P95).unwrap().unwrap();
        let got = one_versus_rest(&rows, 2, &labels, Level::P95).unwrap();
        let average = got.macro_average.unwrap();
        assert!((average.value - binary.value).abs() < 1e-13);
        assert!((average.standard_error - binary.standard_error.unwrap()).abs() < 1e-13);
        assert!(got.per_class.iter().all(|c| (c.unwrap().value - binary.value).abs() < 1e-13));
    }

    #[test]
    fn classes_that_never_occur_are_left_out_of_the_mean() {
        let scores = [0.6, 0.3, 0.1, 0.2, 0.7, 0.1, 0.5, 0.4, 0.1];
        let got = one_versus_rest(&scores, 3, &[0, 1, 0], Level::P95).unwrap();
        assert!(got.per_class[2].is_none());
        let average = got.macro_average.unwrap();
        assert_eq!((average.classes, average.of, average.value), (2, 3, 1.0));
        assert_eq!(average.interval, None);
        assert_eq!(one_versus_rest(&scores[..3], 3, &[0], Level::P95).unwrap().macro_average, None);
    }

    #[test]
    fn the_standard_error_of_the_mean_is_that_of_resampling_rows() {
        let mut rng = Rng::new(4);
        let labels: Vec<usize> = (0..300).map(|_| rng.below(3)).collect();
        let scores: Vec<f64> = labels
            .iter()
            .flat_map(|&l| {
                let z: [f64; 3] = std::array::from_fn(|c| rng.normal() + if c == l { 1.0 } else { 0.0 });
                crate::probability::softmax(&z, 3).unwrap()
            })
            .collect();
        let average = one_versus_rest(&scores, 3, &labels, Level::P95).unwrap().macro_average.unwrap();
        let options = crate::bootstrap::Options {
            resamples: 400,
            method: crate::bootstrap::Method::Percentile,
            ..Default::default()
        };
        let resampled = crate::bootstrap::bootstrap(300, &options, |rows| {
            let s: Vec<f64> = rows.iter().flat_map(|&r| scores[3 * r..3 * r + 3].to_vec()).collect();
            let l: Vec<usize> = rows.iter().map(|&r| labels[r]).collect();
            one_versus_rest(&s, 3, &l, Level::P95).unwrap().macro_average.map(|a| a.value)
        });
        let ratio = average.standard_error / resampled.unwrap().unwrap().estimate.standard_error.unwrap();
        assert!((ratio - 1.0).abs() < 0.1, "{ratio}");
    }

    #[test]
    fn the_area_under_the_points_is_the_area() {
        let (scores, positive) = sample(300, 5, 60);
        let curve = roc_curve(&scores, &positive, usize::MAX).unwrap().unwrap();
        let area: f64 = curve
            .windows(2)
            .map(|w| {
                (w[1].false_positive_rate - w[0].false_positive_rate)
                    * 0.5
                    * (w[0].true_positive_rate + w[1].true_positive_rate)
            })
            .sum();
        let value = auroc(&scores, &positive, Level::P95).unwrap().unwrap().value;
        assert!((area - value).abs() < 1e-12);
        let (first, last) = (curve[0], curve[curve.len() - 1]);
        assert_eq!((first.false_positive_rate, first.true_positive_rate, first.threshold), (0.0, 0.0, f64::INFINITY));
        assert_eq!((last.false_positive_rate, last.true_positive_rate), (1.0, 1.0));
    }

    #[test]
    fn thinned_curves_keep_their_ends_and_their_limit() {
        let (scores, positive) = sample(2000, 6, 100_000);
        let full = roc_curve(&scores, &positive, usize::MAX).unwrap().unwrap();
        let thin = roc_curve(&scores, &positive, 50).unwrap().unwrap();
        assert!(full.len() > 200 && thin.len() == 50);
        assert_eq!((thin[0], thin[49]), (full[0], full[full.len() - 1]));
        assert!(thin.iter().all(|p| full.contains(p)));
        assert_eq!(roc_curve(&scores, &positive, 0).unwrap().unwrap().len(), 2);
        // A perfect order has one corner between its ends.
        let perfect = roc_curve(&[1.0, 2.0, 3.0, 4.0], &[false, false, true, true], 100).unwrap().unwrap();
        assert_eq!(perfect.len(), 3);
        assert_eq!(
            (perfect[1].false_positive_rate, perfect[1].true_positive_rate, perfect[1].threshold),
            (0.0, 1.0, 3.0)
        );
        assert_eq!(roc_curve(&[1.0], &[true], 9).unwrap(), None);
    }

    #[test]
    fn average_precision_of_known_orders() {
        // Positives at ranks 1, 3 and 4: (1 + 2/3 + 3/4) / 3.
        let got = average_precision(&[9.0, 8.0, 7.0, 6.0, 5.0], &[true, false, true, true, false]).unwrap().unwrap();
        assert!((got - (1.0 + 2.0 / 3.0 + 0.75) / 3.0).abs() < 1e-15);
        // One tie of everything: the base rate.
        assert_eq!(average_precision(&[1.0; 4], &[true, false, false, false]).unwrap(), Some(0.25));
        assert_eq!(average_precision(&[1.0], &[false]).unwrap(), None);
        assert_eq!(average_precision(&[], &[]).unwrap(), None);
    }
}
