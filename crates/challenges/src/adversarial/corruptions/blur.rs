//! Blur: out of focus, through frosted glass, by motion, by zooming.

use netproof_stats::rng::Rng;

use super::Picture;
use super::picture::Edge;

/// Out of focus: a disk, its edge softened.
pub(super) fn defocus(p: &mut Picture, severity: usize, _: &mut Rng) {
    let (radius, alias) = [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)][severity];
    *p = p.filtered(&disk(radius, alias), Edge::Mirror);
}

/// Taps of a disk, smoothed by a Gaussian of 3×3.
fn disk(radius: f64, alias: f64) -> Vec<(isize, isize, f32)> {
    const REACH: isize = 3;
    let inside = |y: isize, x: isize| if ((y * y + x * x) as f64) <= radius * radius { 1.0 } else { 0.0 };
    let grid = || (-REACH..=REACH).flat_map(|y| (-REACH..=REACH).map(move |x| (y, x)));
    let sum: f64 = grid().map(|(y, x)| inside(y, x)).sum();
    let soft = [(-0.5 / (alias * alias)).exp(), 1.0, (-0.5 / (alias * alias)).exp()];
    let of: f64 = soft.iter().sum();
    let weight = |i: isize| soft[(i + 1) as usize] / of;
    grid()
        .map(|(y, x)| {
            let around = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dy, dx)));
            let w: f64 = around.map(|(dy, dx)| weight(dy) * weight(dx) * inside(y + dy, x + dx) / sum).sum();
            (y, x, w as f32)
        })
        .filter(|t| t.2 != 0.0)
        .collect()
}

/// Through frosted glass: pixels change places with neighbours.
pub(super) fn glass(p: &mut Picture, severity: usize, rng: &mut Rng) {
    let (sigma, reach, rounds) = [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)][severity];
    let mut q = p.smoothed(sigma, 4.0, Edge::Nearest);
    let (h, w) = (q.height, q.width);
    for _ in 0..rounds {
        for y in (reach + 1..=h.saturating_sub(reach)).rev() {
            for x in (reach + 1..=w.saturating_sub(reach)).rev() {
                // From -reach to reach - 1, as published.
                let [dy, dx] = [(); 2].map(|()| rng.below(2 * reach));
                let (y, x) = (y.min(h - 1), x.min(w - 1));
                let (there_y, there_x) = (y + dy - reach, x + dx - reach);
                for c in 0..q.channels {
                    q.pixels.swap((c * h + y) * w + x, (c * h + there_y) * w + there_x);
                }
            }
        }
    }
    *p = q.smoothed(sigma, 4.0, Edge::Nearest);
}

/// The camera moves.
pub(super) fn motion(p: &mut Picture, severity: usize, rng: &mut Rng) {
    let (radius, sigma) = [(6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)][severity];
    *p = p.dragged(radius, sigma, -45.0 + 90.0 * rng.unit());
}

/// The camera zooms in.
pub(super) fn zoom(p: &mut Picture, severity: usize, _: &mut Rng) {
    let steps = [6, 11, 16, 21, 26][severity];
    let mut sum = p.clone();
    for i in 0..steps {
        let q = p.zoomed(1.0 + 0.01 * f64::from(i));
        sum.pixels.iter_mut().zip(&q.pixels).for_each(|(s, v)| *s += v);
    }
    let share = 1.0 / (steps as f32 + 1.0);
    sum.pixels.iter_mut().for_each(|v| *v *= share);
    *p = sum;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_sum_to_one_and_grow() {
        let sizes: Vec<usize> = [(0.3, 0.4), (1.0, 0.2), (1.5, 0.1)].map(|(r, a)| disk(r, a).len()).to_vec();
        for (r, a) in [(0.3, 0.4), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)] {
            let sum: f32 = disk(r, a).iter().map(|t| t.2).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        }
        assert!(sizes[0] < sizes[2], "{sizes:?}");
        // A point alone, softened: exp(-1 / (2 · 0.4²)) beside 1.
        let taps = disk(0.3, 0.4);
        let of = |y, x| taps.iter().find(|t| (t.0, t.1) == (y, x)).unwrap().2;
        assert!((of(0, 1) / of(0, 0) - (-3.125f32).exp()).abs() < 1e-5);
    }

    #[test]
    fn glass_moves_pixels_and_makes_none() {
        let n = 24;
        let pixels: Vec<f32> = (0..n * n).map(|i| i as f32 / (n * n) as f32).collect();
        let mut p = Picture { channels: 1, height: n, width: n, pixels: pixels.clone() };
        // At the first severity the smoothing is too narrow to mix neighbours.
        glass(&mut p, 0, &mut Rng::new(2));
        let mut sorted = p.pixels.clone();
        sorted.sort_by(f32::total_cmp);
        assert!(sorted.iter().zip(&pixels).all(|(a, b)| (a - b).abs() < 1e-6) && p.pixels != pixels);
    }
}
