//! Initial values of parameters, drawn from a seed.
//!
//! Each parameter has a stream of its own, so that a network's first layers are the same whatever follows them.

use netproof_stats::rng::Rng;

/// Where the values of a parameter come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Init {
    /// All the same.
    Constant(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform between minus and plus this bound.
    Uniform(f64),
    /// Normal with mean 0 and this standard deviation; what lies beyond two of them is drawn again.
    TruncatedNormal(f64),
}

/// Initial values of the `stream`-th parameter under a seed.
pub(crate) fn tensor(init: Init, count: usize, seed: u64, stream: u64) -> Vec<f32> {
    let mut draws = Rng::stream(seed, stream.wrapping_add(1));
    let mut one = || match init {
        Init::Constant(value) => value,
        Init::Normal(std) => (std * draws.normal()) as f32,
        Init::Uniform(bound) => (bound * (2.0 * draws.unit() - 1.0)) as f32,
        Init::TruncatedNormal(std) => loop {
            let z = draws.normal();
            if z.abs() <= 2.0 {
                break (std * z) as f32;
            }
        },
    };
    (0..count).map(|_| one()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        (mean, (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt())
    }

    #[test]
    fn laws_have_their_moments_and_bounds() {
        // Standard errors with 100,000 draws: 0.003 of the mean, 0.002 of the deviation.
        let (mean, std) = moments(&tensor(Init::Normal(2.0), 100_000, 3, 0));
        assert!(mean.abs() < 0.025 && (std - 2.0).abs() < 0.02, "{mean} {std}");
        let uniform = tensor(Init::Uniform(0.5), 100_000, 3, 1);
        let (mean, std) = moments(&uniform);
        assert!(mean.abs() < 0.004 && (std - 0.5 / 3f64.sqrt()).abs() < 0.003, "{mean} {std}");
        assert!(uniform.iter().all(|v| v.abs() <= 0.5));
        let cut = tensor(Init::TruncatedNormal(0.02), 100_000, 3, 2);
        let (mean, std) = moments(&cut);
        // The deviation of a normal law cut at two deviations is 0.8796 of the uncut one.
        assert!(mean.abs() < 3e-4 && (std / 0.02 - 0.8796).abs() < 0.01, "{mean} {std}");
        assert!(cut.iter().all(|v| v.abs() <= 0.04));
    }

    #[test]
    fn equal_seeds_give_equal_draws_and_others_do_not() {
        let draw = |seed, stream| tensor(Init::Normal(1.0), 4, seed, stream);
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
        assert_eq!(draw(7, 1)[..2], tensor(Init::Normal(1.0), 2, 7, 1));
    }
}
