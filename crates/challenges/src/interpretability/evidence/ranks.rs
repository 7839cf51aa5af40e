//! Comparing and describing maps: rank correlation, overlap of the largest, Gini index.

/// Ranks from 0, ties share their mean rank.
pub(super) fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let mut end = start + 1;
        while end < order.len() && values[order[end]] == values[order[start]] {
            end += 1;
        }
        let shared = (start + end - 1) as f64 / 2.0;
        order[start..end].iter().for_each(|&i| ranks[i] = shared);
        start = end;
    }
    ranks
}

/// Pearson's correlation; `None` where one side is constant or holds a number that is not finite.
pub(super) fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let n = a.len().min(b.len()) as f64;
    let mean = |v: &[f64]| v.iter().sum::<f64>() / n;
    let (ma, mb) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        ab += (x - ma) * (y - mb);
        aa += (x - ma) * (x - ma);
        bb += (y - mb) * (y - mb);
    }
    // What rounding leaves of a constant is no spread.
    let spread = |ss: f64, v: &[f64]| ss > 1e-20 * v.iter().fold(0.0, |m: f64, x| m.max(x * x)) * n;
    (spread(aa, a) && spread(bb, b)).then(|| (ab / (aa * bb).sqrt()).clamp(-1.0, 1.0)).filter(|r| r.is_finite())
}

/// Spearman's rank correlation; `None` where one side is constant or holds a number that is not finite.
/// # Source
/// Spearman 1904; ties share their mean rank.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.iter().chain(b).any(|v| !v.is_finite()) {
        return None;
    }
    pearson(&ranks(a), &ranks(b))
}

/// Spearman's correlation of two maps over the units where at least one of them is not 0.
///
/// Where both are exactly 0, nothing flows: a dark pixel in front of rectifiers without bias. Such units are shared by
/// construction, whatever the weights are, and would make unsigned maps look alike.
pub fn likeness(a: &[f64], b: &[f64]) -> Option<f64> {
    let (a, b): (Vec<f64>, Vec<f64>) = a.iter().zip(b).filter(|(a, b)| **a != 0.0 || **b != 0.0).unzip();
    if a.len() < 3 { None } else { spearman(&a, &b) }
}

/// Fraction of the `k` largest of one side that are among the `k` largest of the other. Of equal values the earlier counts
/// as larger.
pub fn top_overlap(a: &[f64], b: &[f64], k: usize) -> Option<f64> {
    let k = k.min(a.len()).min(b.len());
    if k == 0 || a.iter().chain(b).any(|v| !v.is_finite()) {
        return None;
    }
    let (a, b) = (largest(a), largest(b));
    let mut inside = vec![false; a.len().max(b.len())];
    a[..k].iter().for_each(|&i| inside[i] = true);
    Some(b[..k].iter().filter(|&&i| inside[i]).count() as f64 / k as f64)
}

/// Positions by value, the largest first; of equal values the earlier first.
pub(super) fn largest(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order
}

/// Gini index of magnitudes: 0 where all are equal, towards 1 where one holds everything; `None` where all are 0.
/// # Source
/// Hurley and Rickard 2009, IEEE Transactions on Information Theory 55(10), table I.
pub fn gini(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().map(|v| v.abs()).collect();
    sorted.sort_by(f64::total_cmp);
    let (n, total) = (sorted.len() as f64, sorted.iter().sum::<f64>());
    if !(total > 0.0 && total.is_finite()) {
        return None;
    }
    let weighted: f64 = sorted.iter().enumerate().map(|(k, v)| v / total * (n - k as f64 - 0.5) / n).sum();
    Some(1.0 - 2.0 * weighted)
}

/// Entropy in nats of magnitudes as shares of their sum; `None` where all are 0.
pub(super) fn entropy(values: &[f64]) -> Option<f64> {
    let total: f64 = values.iter().map(|v| v.abs()).sum();
    if !(total > 0.0 && total.is_finite()) {
        return None;
    }
    Some(values.iter().map(|v| v.abs() / total).filter(|&p| p > 0.0).map(|p| -p * p.ln()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_correlation_with_ties() {
        // scipy.stats.spearmanr([1, 2, 2, 4, 5], [2, 1, 3, 3, 9]).
        let r = spearman(&[1.0, 2.0, 2.0, 4.0, 5.0], &[2.0, 1.0, 3.0, 3.0, 9.0]).unwrap();
        assert!((r - 0.763_157_894_736_842).abs() < 1e-12, "{r}");
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), Some(-1.0));
        assert_eq!(spearman(&[1.0, 1.0], &[3.0, 2.0]), None);
        assert_eq!(spearman(&[1.0, f64::NAN], &[3.0, 2.0]), None);
    }

    #[test]
    fn units_that_are_0_in_both_do_not_count() {
        let a = [0.0, 0.0, 0.0, 1.0, 2.0, 3.0];
        let b = [0.0, 0.0, 0.0, 3.0, 2.0, 1.0];
        assert_eq!(likeness(&a, &b), Some(-1.0));
        assert!(spearman(&a, &b).unwrap() > 0.3);
        assert_eq!(likeness(&a[..4], &b[..4]), None);
    }

    #[test]
    fn overlap_of_the_largest() {
        assert_eq!(top_overlap(&[3.0, 2.0, 1.0, 0.0], &[0.0, 5.0, 4.0, 1.0], 2), Some(0.5));
        assert_eq!(top_overlap(&[3.0, 2.0], &[3.0, 2.0], 9), Some(1.0));
        assert_eq!(top_overlap(&[], &[], 2), None);
    }

    #[test]
    fn gini_and_entropy_at_their_ends() {
        assert!(gini(&[2.0, -2.0, 2.0, 2.0]).unwrap().abs() < 1e-12);
        assert!((gini(&[0.0, 0.0, 0.0, 7.0]).unwrap() - 0.75).abs() < 1e-12);
        assert_eq!(gini(&[0.0; 3]), None);
        assert!((entropy(&[1.0, -1.0, 1.0, 1.0]).unwrap() - 4f64.ln()).abs() < 1e-12);
        assert_eq!(entropy(&[0.0, 5.0]), Some(0.0));
    }
}
