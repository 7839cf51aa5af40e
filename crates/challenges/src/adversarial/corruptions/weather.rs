//! Weather: snow, frost, fog, bright light.

use netproof_stats::rng::Rng;

use super::Picture;

/// Snow: flakes that fall, and a picture that pales.
pub(super) fn snow(p: &mut Picture, severity: usize, rng: &mut Rng) {
    let (mean, scale, zoom, least, radius, sigma, keep) = [
        (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
        (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
    ][severity];
    let flakes = p.plane(|_| (mean + scale * rng.normal()) as f32).zoomed(zoom);
    let flakes = flakes.plane(|i| if flakes.pixels[i] < least { 0.0 } else { flakes.pixels[i].min(1.0) });
    let flakes = flakes.dragged(radius, sigma, -135.0 + 90.0 * rng.unit());
    let grey = p.grey();
    let n = p.height * p.width;
    for (i, v) in p.pixels.iter_mut().enumerate() {
        let i = i % n;
        let pale = keep * *v + (1.0 - keep) * v.max(grey.pixels[i] * 1.5 + 0.5);
        *v = (pale + flakes.pixels[i] + flakes.pixels[n - 1 - i]).clamp(0.0, 1.0);
    }
}

/// Frost: crystals on the lens.
pub(super) fn frost(p: &mut Picture, severity: usize, rng: &mut Rng) {
    let (keep, of) = [(1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)][severity];
    let crystals = crystals(p, rng);
    let n = p.height * p.width;
    for (i, v) in p.pixels.iter_mut().enumerate() {
        *v = (keep * *v + of * crystals[i % n]).clamp(0.0, 1.0);
    }
}

/// Bright ridges along the zeros of two fields of noise, over a pale ground.
fn crystals(p: &Picture, rng: &mut Rng) -> Vec<f32> {
    let [first, second] = [(); 2].map(|()| fractal(p.height.max(p.width), 2.0, rng));
    let ridge = |field: &[f32], i: usize| {
        let side = (field.len() as f64).sqrt() as usize;
        let at = field[i / p.width * side + i % p.width];
        (1.0 - 4.0 * (at - 0.5).abs()).max(0.0)
    };
    (0..p.height * p.width).map(|i| (0.25 + 0.75 * ridge(&first, i).max(ridge(&second, i))).min(1.0)).collect()
}

/// Fog: a cloud before the picture.
pub(super) fn fog(p: &mut Picture, severity: usize, rng: &mut Rng) {
    let (amount, decay) = [(0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)][severity];
    let cloud = fractal(p.height.max(p.width), decay, rng);
    let side = (cloud.len() as f64).sqrt() as usize;
    let brightest = p.pixels.iter().copied().fold(0.0, f32::max);
    let scale = brightest / (brightest + amount);
    let (n, width) = (p.height * p.width, p.width);
    for (i, v) in p.pixels.iter_mut().enumerate() {
        let i = i % n;
        *v = ((*v + amount * cloud[i / width * side + i % width]) * scale).clamp(0.0, 1.0);
    }
}

/// Bright light: the value of hue, saturation and value is raised.
pub(super) fn brightness(p: &mut Picture, severity: usize, _: &mut Rng) {
    let by = [0.05, 0.1, 0.15, 0.2, 0.3][severity];
    let n = p.height * p.width;
    for i in 0..n {
        let value = (0..p.channels).map(|c| p.pixels[c * n + i]).fold(0.0, f32::max);
        let raised = (value + by).min(1.0);
        for c in 0..p.channels {
            let v = &mut p.pixels[c * n + i];
            // Hue and saturation stay: every channel grows in proportion. Black has neither.
            *v = if value > 0.0 { *v * raised / value } else { raised };
        }
    }
}

/// A height map by the diamond-square algorithm, values 0 to 1, on a square whose side is the next power of two.
/// Fournier, Fussell and Carpenter, CACM 1982. The published corruption draws from the square of its amplitude; so does this.
fn fractal(size: usize, decay: f64, rng: &mut Rng) -> Vec<f32> {
    let n = size.next_power_of_two().max(2);
    let mut map = vec![0.0f64; n * n];
    let (mut step, mut wibble) = (n, 100.0f64);
    let at = |y: usize, x: usize| (y % n) * n + x % n;
    while step >= 2 {
        let half = step / 2;
        let mut place = |map: &mut Vec<f64>, y: usize, x: usize, corners: [usize; 4]| {
            let mean = corners.iter().map(|&c| map[c]).sum::<f64>() / 4.0;
            map[at(y, x)] = mean + wibble * wibble * (2.0 * rng.unit() - 1.0);
        };
        for y in (0..n).step_by(step) {
            for x in (0..n).step_by(step) {
                let corners = [at(y, x), at(y + step, x), at(y, x + step), at(y + step, x + step)];
                place(&mut map, y + half, x + half, corners);
            }
        }
        for y in (0..n).step_by(step) {
            for x in (0..n).step_by(step) {
                let around =
                    |y: usize, x: usize| [at(y + n - half, x), at(y + half, x), at(y, x + n - half), at(y, x + half)];
                place(&mut map, y, x + half, around(y, x + half));
                place(&mut map, y + half, x, around(y + half, x));
            }
        }
        step = half;
        wibble /= decay;
    }
    let low = map.iter().copied().fold(f64::INFINITY, f64::min);
    let high = map.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let width = (high - low).max(f64::MIN_POSITIVE);
    map.iter().map(|v| ((v - low) / width) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brightness_is_the_published_step_and_keeps_the_hue() {
        let mut p = Picture { channels: 3, height: 1, width: 2, pixels: vec![0.4, 0.0, 0.2, 0.0, 0.1, 0.0] };
        brightness(&mut p, 4, &mut Rng::new(0));
        let want = [0.7, 0.3, 0.35, 0.3, 0.175, 0.3];
        assert!(p.pixels.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", p.pixels);
        let mut grey = Picture { channels: 1, height: 1, width: 1, pixels: vec![0.9] };
        brightness(&mut grey, 4, &mut Rng::new(0));
        assert_eq!(grey.pixels, [1.0]);
    }

    #[test]
    fn clouds_fill_their_range_and_are_smooth_where_they_decay_fast() {
        let rough = |decay: f64| -> f32 {
            let f = fractal(32, decay, &mut Rng::new(4));
            assert!(f.iter().all(|v| (0.0..=1.0).contains(v)) && f.len() == 1024);
            (0..32).flat_map(|y| (0..31).map(move |x| y * 32 + x)).map(|i| (f[i] - f[i + 1]).abs()).sum()
        };
        assert!(rough(3.0) < rough(1.2));
    }

    #[test]
    fn fog_keeps_the_brightest_value_in_range() {
        let mut p = Picture { channels: 1, height: 8, width: 8, pixels: vec![0.5; 64] };
        fog(&mut p, 2, &mut Rng::new(1));
        // (0.5 + 0.75 c) · 0.5 / 1.25 for a cloud c from 0 to 1.
        let (low, high) = p.pixels.iter().fold((1.0f32, 0.0f32), |(l, h), v| (l.min(*v), h.max(*v)));
        assert!((low - 0.2).abs() < 0.05 && high <= 0.5 + 1e-6, "{low} {high}");
    }
}
