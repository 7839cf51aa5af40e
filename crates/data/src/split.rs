//! Splits and folds: pure functions of the row count, the labels and the seed.

use std::collections::BTreeMap;

use crate::DataError;
use netproof_stats::rng::Rng;

/// Cuts `n` rows at random into parts of the given fractions, each part in ascending order.
///
/// # Shapes
/// `fractions` has one entry per part, `stratify` one class per row. The parts are disjoint. Where the fractions sum to
/// one, all rows are used.
/// # Guarantees
/// Every part differs from its share by less than one row; with `stratify` this holds for each class, and the rows that
/// rounding leaves over are dealt so that the parts' sizes stay within one row of their share per class.
/// # Errors
/// A fraction is negative or not finite, their sum is over one, or `stratify` has another length than `n`.
pub fn split(n: usize, fractions: &[f64], seed: u64, stratify: Option<&[usize]>) -> Result<Vec<Vec<usize>>, DataError> {
    let sum: f64 = fractions.iter().sum();
    if fractions.iter().any(|f| !f.is_finite() || *f < 0.0) || sum > 1.0 + 1e-9 || fractions.is_empty() {
        return Err(DataError::Option {
            name: "fractions",
            value: format!("{fractions:?}"),
            allowed: "at least one, each from 0 to 1, with a sum of at most 1",
        });
    }
    let mut parts = vec![Vec::new(); fractions.len()];
    let mut rng = Rng::named(seed, "split");
    for rows in strata(n, stratify)? {
        let rows = shuffled(rows, &mut rng);
        // Cutting at rounded cumulative shares keeps every part within one row of its own share.
        let (mut start, mut share) = (0, 0.0);
        for (part, fraction) in parts.iter_mut().zip(fractions) {
            share += fraction;
            let end = ((share * rows.len() as f64).round() as usize).min(rows.len()).max(start);
            part.extend_from_slice(&rows[start..end]);
            start = end;
        }
    }
    parts.iter_mut().for_each(|p| p.sort_unstable());
    Ok(parts)
}

/// `k` disjoint folds of about equal size that together hold all `n` rows, each in ascending order.
///
/// With `stratify`, every class is spread evenly: fold sizes per class differ by at most one.
/// # Errors
/// `k` is below 2 or above `n`, or `stratify` has another length than `n`.
pub fn k_fold(n: usize, k: usize, seed: u64, stratify: Option<&[usize]>) -> Result<Vec<Vec<usize>>, DataError> {
    check_folds(k, n)?;
    let mut folds = vec![Vec::new(); k];
    let mut rng = Rng::named(seed, "k-fold");
    // The deal continues where the last class ended, so that sizes over all classes stay within one row too.
    let mut next = 0;
    for rows in strata(n, stratify)? {
        for row in shuffled(rows, &mut rng) {
            folds[next % k].push(row);
            next += 1;
        }
    }
    folds.iter_mut().for_each(|f| f.sort_unstable());
    Ok(folds)
}

/// `k` folds in which no group (patient, author, site) is in two folds; `groups` has one entry per row.
///
/// Groups go, largest first and equal ones in random order, to the fold that is smallest so far.
/// # Errors
/// `k` is below 2 or above the number of groups.
pub fn grouped_k_fold(groups: &[usize], k: usize, seed: u64) -> Result<Vec<Vec<usize>>, DataError> {
    let mut members = strata(groups.len(), Some(groups))?;
    check_folds(k, members.len())?;
    Rng::named(seed, "grouped-k-fold").shuffle(&mut members);
    members.sort_by_key(|rows| std::cmp::Reverse(rows.len()));
    let mut folds: Vec<Vec<usize>> = vec![Vec::new(); k];
    for rows in members {
        if let Some(smallest) = folds.iter_mut().min_by_key(|f| f.len()) {
            smallest.extend(rows);
        }
    }
    folds.iter_mut().for_each(|f| f.sort_unstable());
    Ok(folds)
}

fn check_folds(k: usize, available: usize) -> Result<(), DataError> {
    if k < 2 || k > available {
        return Err(DataError::Option {
            name: "folds",
            value: format!("{k} for {available} rows or groups"),
            allowed: "2 to the number of rows (or groups)",
        });
    }
    Ok(())
}

/// Rows by class, classes ascending; one stratum where there are no classes.
fn strata(n: usize, classes: Option<&[usize]>) -> Result<Vec<Vec<usize>>, DataError> {
    let Some(classes) = classes else { return Ok(vec![(0..n).collect()]) };
    if classes.len() != n {
        return Err(DataError::Option {
            name: "stratify",
            value: format!("{} classes for {n} rows", classes.len()),
            allowed: "one class per row",
        });
    }
    let mut by_class: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row, &class) in classes.iter().enumerate() {
        by_class.entry(class).or_default().push(row);
    }
    Ok(by_class.into_values().collect())
}

fn shuffled(mut rows: Vec<usize>, rng: &mut Rng) -> Vec<usize> {
    rng.shuffle(&mut rows);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(parts: &[Vec<usize>]) -> Vec<usize> {
        let mut rows: Vec<usize> = parts.concat();
        rows.sort_unstable();
        rows
    }

    #[test]
    fn parts_are_disjoint_complete_and_of_the_right_size() {
        let parts = split(101, &[0.6, 0.2, 0.2], 1, None).unwrap();
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [61, 20, 20]);
        assert_eq!(all(&parts), (0..101).collect::<Vec<_>>());
        assert_eq!(parts, split(101, &[0.6, 0.2, 0.2], 1, None).unwrap());
        assert_ne!(parts, split(101, &[0.6, 0.2, 0.2], 2, None).unwrap());
        let some = split(10, &[0.3], 1, None).unwrap();
        assert_eq!(some[0].len(), 3);
    }

    #[test]
    fn stratified_parts_keep_the_class_balance() {
        let classes: Vec<usize> = (0..100).map(|i| usize::from(i % 10 == 0)).collect();
        for seed in 0..20 {
            let parts = split(100, &[0.5, 0.5], seed, Some(&classes)).unwrap();
            assert!(parts.iter().all(|p| p.iter().filter(|&&r| classes[r] == 1).count() == 5));
            let folds = k_fold(100, 5, seed, Some(&classes)).unwrap();
            assert!(folds.iter().all(|f| f.len() == 20 && f.iter().filter(|&&r| classes[r] == 1).count() == 2));
            assert_eq!(all(&folds), (0..100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_group_is_never_in_two_folds() {
        let groups: Vec<usize> = (0..90).map(|i| i * i % 17).collect();
        let folds = grouped_k_fold(&groups, 4, 3).unwrap();
        assert_eq!(all(&folds), (0..90).collect::<Vec<_>>());
        for (i, a) in folds.iter().enumerate() {
            for b in &folds[i + 1..] {
                assert!(a.iter().all(|&x| b.iter().all(|&y| groups[x] != groups[y])));
            }
        }
        let sizes: Vec<usize> = folds.iter().map(Vec::len).collect();
        assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 12, "{sizes:?}");
    }

    #[test]
    fn senseless_requests_are_errors() {
        for fractions in [&[0.9, 0.2][..], &[-0.1], &[f64::NAN], &[f64::INFINITY], &[]] {
            assert!(split(10, fractions, 0, None).is_err());
        }
        assert!(split(10, &[0.5], 0, Some(&[0; 9])).is_err());
        assert!(k_fold(10, 1, 0, None).is_err() && k_fold(10, 11, 0, None).is_err());
        assert!(grouped_k_fold(&[1, 1, 1], 2, 0).is_err());
        assert_eq!(split(0, &[0.5, 0.5], 0, None).unwrap(), vec![Vec::<usize>::new(); 2]);
    }
}
