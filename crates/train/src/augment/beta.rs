//! Draws from the Beta distribution, for augmentations that mix rows.

use netproof_stats::rng::Rng;

/// A draw from Beta(alpha, alpha), alpha > 0.
pub(super) fn beta(alpha: f64, rng: &mut Rng) -> f64 {
    let (a, b) = (gamma(alpha, rng), gamma(alpha, rng));
    // Both may be too small for a double where alpha is tiny: then one of the ends is as likely as the other.
    if a + b > 0.0 { a / (a + b) } else { f64::from(u8::from(rng.unit() < 0.5)) }
}

/// A draw from Gamma(shape, 1).
/// # Source
/// Marsaglia and Tsang, ACM TOMS 26(3), 2000; shapes below 1 by their section 6.
fn gamma(shape: f64, rng: &mut Rng) -> f64 {
    if shape < 1.0 {
        return gamma(shape + 1.0, rng) * (1.0 - rng.unit()).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = rng.normal();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - rng.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_variance_are_those_of_the_distribution() {
        for alpha in [0.2, 1.0, 3.0] {
            let mut rng = Rng::new(1);
            let draws: Vec<f64> = (0..40_000).map(|_| beta(alpha, &mut rng)).collect();
            let mean = draws.iter().sum::<f64>() / 4e4;
            let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 4e4;
            let want = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!(
                (mean - 0.5).abs() < 0.01 && (variance - want).abs() < 0.03 * want + 0.002,
                "{alpha}: {mean} {variance}"
            );
        }
    }
}
