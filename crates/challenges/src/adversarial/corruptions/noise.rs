//! Noise: Gaussian, of photons, and of dead and hot pixels.

use netproof_stats::rng::Rng;

use super::Picture;

/// Gaussian noise: additive, of low light.
pub(super) fn gaussian(p: &mut Picture, severity: usize, rng: &mut Rng) {
    let scale = [0.04, 0.06, 0.08, 0.09, 0.10][severity];
    p.pixels.iter_mut().for_each(|v| *v = (f64::from(*v) + scale * rng.normal()).clamp(0.0, 1.0) as f32);
}

/// Shot noise: photons are counted.
pub(super) fn shot(p: &mut Picture, severity: usize, rng: &mut Rng) {
    let photons = [500.0, 250.0, 100.0, 75.0, 50.0][severity];
    for v in &mut p.pixels {
        *v = (poisson(f64::from(*v).max(0.0) * photons, rng) as f64 / photons).min(1.0) as f32;
    }
}

/// Impulse noise: salt and pepper in equal parts.
pub(super) fn impulse(p: &mut Picture, severity: usize, rng: &mut Rng) {
    let amount = [0.01, 0.02, 0.03, 0.05, 0.07][severity];
    for v in &mut p.pixels {
        if rng.unit() < amount {
            *v = if rng.unit() < 0.5 { 1.0 } else { 0.0 };
        }
    }
}

/// A Poisson draw, by products of uniform draws over parts of the rate that do not underflow (Knuth, The Art of Computer
/// Programming 2, section 3.4.1).
fn poisson(rate: f64, rng: &mut Rng) -> u64 {
    const PART: f64 = 500.0;
    let (mut left, mut count) = (rate, 0);
    while left > 0.0 {
        let part = left.min(PART);
        left -= part;
        let floor = (-part).exp();
        let mut product = 1.0;
        loop {
            product *= 1.0 - rng.unit();
            if product <= floor {
                break;
            }
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisson_draws_have_their_mean_and_variance() {
        let mut rng = Rng::new(1);
        for rate in [0.3, 7.0, 700.0] {
            let draws: Vec<f64> = (0..4000).map(|_| poisson(rate, &mut rng) as f64).collect();
            let mean = draws.iter().sum::<f64>() / 4000.0;
            let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 3999.0;
            assert!((mean - rate).abs() < 4.0 * (rate / 4000.0).sqrt(), "{mean} {rate}");
            assert!((variance / rate - 1.0).abs() < 0.12, "{variance} {rate}");
        }
        assert_eq!(poisson(0.0, &mut rng), 0);
    }

    #[test]
    fn noise_has_the_published_size() {
        let grey = Picture { channels: 1, height: 100, width: 100, pixels: vec![0.5; 10_000] };
        let changed = |f: fn(&mut Picture, usize, &mut Rng), severity| {
            let mut p = grey.clone();
            f(&mut p, severity, &mut Rng::new(3));
            p.pixels
        };
        let deviation = |v: &[f32]| (v.iter().map(|v| f64::from(v - 0.5).powi(2)).sum::<f64>() / 1e4).sqrt();
        assert!((deviation(&changed(gaussian, 2)) - 0.08).abs() < 0.003);
        // Counting 50 photons at half the brightness: sqrt(25) / 50.
        assert!((deviation(&changed(shot, 4)) - 0.1).abs() < 0.004);
        let hit = changed(impulse, 4).iter().filter(|v| **v != 0.5).count();
        assert!((600..800).contains(&hit), "{hit}");
    }
}
