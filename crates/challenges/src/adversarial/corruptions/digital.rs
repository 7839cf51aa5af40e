//! What files and screens do: contrast, elastic deformation, pixels too large, JPEG.

use netproof_stats::rng::Rng;

use super::Picture;
use super::picture::Edge;
use crate::adversarial::defences::preprocessing::jpeg::{CHROMINANCE, FROM_YCC, LUMINANCE, N, TO_YCC, basis, table};

/// Less contrast: each channel moves towards its mean.
pub(super) fn contrast(p: &mut Picture, severity: usize, _: &mut Rng) {
    let keep = [0.75, 0.5, 0.4, 0.3, 0.15][severity];
    for plane in p.pixels.chunks_exact_mut(p.height * p.width) {
        let mean = plane.iter().sum::<f32>() / plane.len() as f32;
        plane.iter_mut().for_each(|v| *v = (mean + (*v - mean) * keep).clamp(0.0, 1.0));
    }
}

/// Elastic deformation: a random affine map, then small random moves.
pub(super) fn elastic(p: &mut Picture, severity: usize, rng: &mut Rng) {
    let size = p.height.min(p.width) as f64;
    let (moves, sigma, corners) =
        [(0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)][severity];
    let (moves, sigma, corners) = (moves * size, sigma * size, corners * size);
    let (cy, cx, third) = ((p.height / 2) as f64, (p.width / 2) as f64, (p.height.min(p.width) / 3) as f64);
    let from = [[cx + third, cy + third], [cx + third, cy - third], [cx - third, cy - third]];
    let to = from.map(|point| point.map(|v| v + corners * (2.0 * rng.unit() - 1.0)));
    // Where each pixel of the result comes from.
    let map = affine(&to, &from);
    let warped = p.remade(|c, y, x| {
        let (y, x) = (y as f64, x as f64);
        let at = |m: [f64; 3]| m[0] * x + m[1] * y + m[2];
        p.between(c, at(map[1]), at(map[0]), Edge::Mirror)
    });
    let mut field = || {
        let noise = p.plane(|_| (2.0 * rng.unit() - 1.0) as f32);
        let smooth = if sigma > 0.0 { noise.smoothed(sigma, 3.0, Edge::Reflect) } else { noise };
        smooth.pixels.iter().map(|v| f64::from(*v) * moves).collect::<Vec<_>>()
    };
    let (dx, dy) = (field(), field());
    let width = p.width;
    *p = warped.remade(|c, y, x| {
        let i = y * width + x;
        warped.between(c, y as f64 + dy[i], x as f64 + dx[i], Edge::Reflect).clamp(0.0, 1.0)
    });
}

/// The affine map that takes three points `(x, y)` to three others: rows `x' = a x + b y + c` and `y' = …`.
fn affine(from: &[[f64; 2]; 3], to: &[[f64; 2]; 3]) -> [[f64; 3]; 2] {
    let [a, b, c] = *from;
    let determinant = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1]);
    if determinant.abs() < 1e-9 {
        return [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
    }
    [0, 1].map(|axis| {
        let [u, v, w] = [to[0][axis], to[1][axis], to[2][axis]];
        let along_x = ((v - u) * (c[1] - a[1]) - (w - u) * (b[1] - a[1])) / determinant;
        let along_y = ((w - u) * (b[0] - a[0]) - (v - u) * (c[0] - a[0])) / determinant;
        [along_x, along_y, u - along_x * a[0] - along_y * a[1]]
    })
}

/// Pixels too large: shrunk and enlarged by means over boxes.
pub(super) fn pixelate(p: &mut Picture, severity: usize, _: &mut Rng) {
    let keep = [0.95, 0.9, 0.85, 0.75, 0.65][severity];
    let shrunk = |n: usize| ((n as f64 * keep) as usize).max(1);
    let (h, w) = (p.height, p.width);
    *p = resized(&resized(p, shrunk(h), shrunk(w)), h, w);
}

/// Means over boxes, as Pillow's filter `BOX`.
fn resized(p: &Picture, height: usize, width: usize) -> Picture {
    let taps = |from: usize, to: usize| -> Vec<Vec<(usize, f32)>> {
        let scale = from as f64 / to as f64;
        let wide = scale.max(1.0);
        (0..to)
            .map(|i| {
                let centre = (i as f64 + 0.5) * scale;
                let inside = |j: usize| {
                    let far = (j as f64 + 0.5 - centre) / wide;
                    far > -0.5 && far <= 0.5
                };
                let chosen: Vec<usize> = (0..from).filter(|&j| inside(j)).collect();
                let share = 1.0 / chosen.len().max(1) as f32;
                chosen.into_iter().map(|j| (j, share)).collect()
            })
            .collect()
    };
    let (rows, columns) = (taps(p.height, height), taps(p.width, width));
    let empty = Picture { channels: p.channels, height, width, pixels: vec![0.0; p.channels * height * width] };
    empty.remade(|c, y, x| {
        let row =
            |j: usize| -> f32 { columns[x].iter().map(|&(i, w)| w * p.pixels[(c * p.height + j) * p.width + i]).sum() };
        rows[y].iter().map(|&(j, w)| w * row(j)).sum()
    })
}

/// JPEG: blocks of frequencies, rounded, colours at half the resolution (ITU-T T.81).
pub(super) fn jpeg(p: &mut Picture, severity: usize, _: &mut Rng) {
    let quality = [80, 65, 58, 50, 40][severity];
    let basis = basis();
    let n = p.height * p.width;
    if p.channels != 3 {
        let (h, w) = (p.height, p.width);
        let tables = table(&LUMINANCE, quality);
        for plane in p.pixels.chunks_exact_mut(n) {
            let coded = blocks(&plane.iter().map(|v| v * 255.0).collect::<Vec<_>>(), h, w, &tables, &basis);
            plane.iter_mut().zip(coded).for_each(|(v, c)| *v = (c / 255.0).clamp(0.0, 1.0));
        }
        return;
    }
    let ycc: Vec<Vec<f32>> = TO_YCC
        .iter()
        .enumerate()
        .map(|(k, row)| {
            let offset = if k == 0 { 0.0 } else { 128.0 };
            (0..n).map(|i| (0..3).map(|c| row[c] * p.pixels[c * n + i] * 255.0).sum::<f32>() + offset).collect()
        })
        .collect();
    let (h, w) = (p.height, p.width);
    let light = blocks(&ycc[0], h, w, &table(&LUMINANCE, quality), &basis);
    let (half_h, half_w) = (h.div_ceil(2), w.div_ceil(2));
    let colour = |plane: &[f32]| -> Vec<f32> {
        let mean = |y: usize, x: usize| -> f32 {
            let at = |dy: usize, dx: usize| plane[(2 * y + dy).min(h - 1) * w + (2 * x + dx).min(w - 1)];
            (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0
        };
        let halved: Vec<f32> = (0..half_h * half_w).map(|i| mean(i / half_w, i % half_w)).collect();
        let coded = blocks(&halved, half_h, half_w, &table(&CHROMINANCE, quality), &basis);
        let small = Picture { channels: 1, height: half_h, width: half_w, pixels: coded };
        // Between the middles of the larger pixels, as decoders smooth it.
        let at = |i: usize| (i as f64 + 0.5) / 2.0 - 0.5;
        (0..n).map(|i| small.between(0, at(i / w), at(i % w), Edge::Nearest)).collect()
    };
    let (blue, red) = (colour(&ycc[1]), colour(&ycc[2]));
    for i in 0..n {
        let own = [light[i], blue[i] - 128.0, red[i] - 128.0];
        for (c, row) in FROM_YCC.iter().enumerate() {
            let v: f32 = (0..3).map(|k| row[k] * own[k]).sum();
            p.pixels[c * n + i] = (v / 255.0).clamp(0.0, 1.0);
        }
    }
}

/// A plane of 0 to 255, each block of 8×8 transformed, divided, rounded and back. Blocks at the edge repeat the last pixels.
fn blocks(plane: &[f32], height: usize, width: usize, steps: &[f32], basis: &[Vec<f32>]) -> Vec<f32> {
    let mut out = plane.to_vec();
    for top in (0..height).step_by(N) {
        for left in (0..width).step_by(N) {
            let at = |k: usize| (top + k / N).min(height - 1) * width + (left + k % N).min(width - 1);
            let block: Vec<f32> = (0..N * N).map(|k| plane[at(k)].round() - 128.0).collect();
            let coded: Vec<f32> = basis
                .iter()
                .zip(steps)
                .map(|(b, step)| {
                    let f: f32 = b.iter().zip(&block).map(|(b, v)| b * v).sum();
                    (f / step).round() * step
                })
                .collect();
            for k in 0..N * N {
                if top + k / N < height && left + k % N < width {
                    let v: f32 = basis.iter().zip(&coded).map(|(b, f)| b[k] * f).sum();
                    out[at(k)] = (v + 128.0).round().clamp(0.0, 255.0);
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contrast_keeps_the_mean_and_shrinks_the_rest() {
        let mut p = Picture { channels: 1, height: 1, width: 2, pixels: vec![0.2, 0.6] };
        contrast(&mut p, 1, &mut Rng::new(0));
        assert!((p.pixels[0] - 0.3).abs() < 1e-6 && (p.pixels[1] - 0.5).abs() < 1e-6);
    }

    #[test]
    fn affine_maps_take_points_to_points() {
        let from = [[1.0, 2.0], [5.0, 2.5], [3.0, 9.0]];
        let to = [[0.0, 1.0], [4.0, 1.0], [2.0, 7.0]];
        let m = affine(&from, &to);
        for (f, t) in from.iter().zip(&to) {
            for axis in 0..2 {
                let got = m[axis][0] * f[0] + m[axis][1] * f[1] + m[axis][2];
                assert!((got - t[axis]).abs() < 1e-9);
            }
        }
        assert_eq!(affine(&[[1.0, 1.0]; 3], &to), [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
    }

    #[test]
    fn boxes_are_means() {
        let p = Picture { channels: 1, height: 1, width: 4, pixels: vec![0.0, 0.2, 0.4, 1.0] };
        assert_eq!(resized(&p, 1, 2).pixels, [0.1, 0.7]);
        assert_eq!(resized(&p, 1, 4), p);
        assert_eq!(resized(&resized(&p, 1, 2), 1, 4).pixels, [0.1, 0.1, 0.7, 0.7]);
    }

    #[test]
    fn a_flat_picture_survives_jpeg_to_a_level_or_two() {
        for channels in [1, 3] {
            let flat = Picture { channels, height: 11, width: 18, pixels: vec![0.5; channels * 198] };
            let mut p = flat.clone();
            jpeg(&mut p, 4, &mut Rng::new(0));
            assert!(p.pixels.iter().zip(&flat.pixels).all(|(a, b)| (a - b).abs() < 0.02));
        }
    }
}
