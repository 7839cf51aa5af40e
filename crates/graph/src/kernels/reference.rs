//! What the tests of kernels share.

/// Numbers between -1 and 1 without a pattern.
pub(super) fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i + seed) * 2_654_435_761 % 1000) as f32 / 500.0 - 1.0).collect()
}

/// Checks `‖got − want‖ ≤ most · ‖want‖`.
pub(super) fn close(got: &[f32], want: &[f64], most: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let distance = got.iter().zip(want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>().sqrt();
    let size = want.iter().map(|b| b * b).sum::<f64>().sqrt();
    assert!(distance <= most * size, "{what}: {distance} of {size}");
}

/// Checks that pools of 1, 2 and 5 threads, and the caller's own thread, give the same bits.
pub(super) fn in_pools(what: &str, work: impl Fn() -> Vec<f32> + Sync) {
    let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let own = bits(work());
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(bits(pool.install(&work)) == own, "{what} with {threads} threads");
    }
}
