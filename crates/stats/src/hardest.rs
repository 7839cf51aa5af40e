//! Which rows to look at first.

/// The `k` rows of largest loss, hardest first; all rows where there are fewer.
///
/// # Guarantees
/// A pure function of the losses: equal losses come in row order. A NaN loss counts as the largest of all, because the
/// network gave no answer there.
pub fn hardest(losses: &[f64], k: usize) -> Vec<usize> {
    let harder = |&a: &usize, &b: &usize| {
        let key = |i: usize| if losses[i].is_nan() { (1, 0.0) } else { (0, losses[i]) };
        let ((nan_a, loss_a), (nan_b, loss_b)) = (key(a), key(b));
        nan_b.cmp(&nan_a).then(loss_b.total_cmp(&loss_a)).then(a.cmp(&b))
    };
    let mut rows: Vec<usize> = (0..losses.len()).collect();
    if k < rows.len() {
        rows.select_nth_unstable_by(k, harder);
        rows.truncate(k);
    }
    rows.sort_unstable_by(harder);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn hardest_first_ties_by_row_and_nan_above_all() {
        let losses = [1.0, 3.0, f64::NAN, 3.0, 0.0, f64::INFINITY, -f64::NAN];
        assert_eq!(hardest(&losses, 5), [2, 6, 5, 1, 3]);
        assert_eq!(hardest(&losses, 100), [2, 6, 5, 1, 3, 0, 4]);
        assert!(hardest(&losses, 0).is_empty() && hardest(&[], 3).is_empty());
    }

    #[test]
    fn selection_agrees_with_a_stable_sort() {
        let mut rng = Rng::new(11);
        let losses: Vec<f64> = (0..500).map(|_| rng.below(20) as f64).collect();
        let mut naive: Vec<usize> = (0..500).collect();
        naive.sort_by(|&a, &b| losses[b].partial_cmp(&losses[a]).unwrap());
        for k in [1, 17, 250, 499, 500] {
            assert_eq!(hardest(&losses, k), naive[..k]);
        }
    }
}
