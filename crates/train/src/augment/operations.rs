//! The operations among which RandAugment and TrivialAugment choose.
//!
//! Of the fourteen of the papers: identity, rotate, shear and translate along each axis, brightness, contrast, posterize and
//! solarize. Left out: color and sharpness, autocontrast and equalize. Images are in [0, 1].

use netproof_stats::rng::Rng;

use super::affine::{STAY, turn, warp};
use super::colour_jitter::{brighten, stretch};

/// Strengths of both papers: 31 of them, from nothing to the most.
pub(super) const BINS: usize = 31;

/// How far the strongest operations go.
pub(super) struct Space {
    pub(super) shear: f64,
    /// Pixels for an image of this size.
    pub(super) translate: fn(usize) -> f64,
    pub(super) degrees: f64,
    pub(super) brightness: f64,
    /// Bits that the strongest posterize takes away.
    pub(super) bits: f64,
}

/// How many there are.
pub(super) const COUNT: usize = 10;

/// Operation `number` at strength `bin`, with a random sign where it has one.
pub(super) fn apply(
    space: &Space,
    number: usize,
    bin: usize,
    image: &mut [f32],
    size: [usize; 3],
    fill: f32,
    rng: &mut Rng,
) {
    let strength = bin as f64 / (BINS - 1) as f64;
    let signed = strength * if rng.unit() < 0.5 { -1.0 } else { 1.0 };
    let [_, height, width] = size;
    match number {
        0 => {}
        1 => warp(image, size, turn(signed * space.degrees), [0.0; 2], fill),
        2 => warp(image, size, [[1.0, 0.0], [signed * space.shear, 1.0]], [0.0; 2], fill),
        3 => warp(image, size, [[1.0, signed * space.shear], [0.0, 1.0]], [0.0; 2], fill),
        4 => warp(image, size, STAY, [0.0, (signed * (space.translate)(width)).trunc()], fill),
        5 => warp(image, size, STAY, [(signed * (space.translate)(height)).trunc(), 0.0], fill),
        6 => brighten(image, (1.0 + signed * space.brightness) as f32),
        7 => stretch(image, size, (1.0 + signed * space.brightness) as f32),
        8 => posterize(image, 8 - (strength * space.bits).round() as u32),
        _ => solarize(image, (1.0 - strength) as f32),
    }
}

/// Only the first `bits` of 8 count.
fn posterize(image: &mut [f32], bits: u32) {
    let mask = !0u8 << (8 - bits.clamp(1, 8));
    image.iter_mut().for_each(|v| *v = f32::from((*v * 255.0).round().clamp(0.0, 255.0) as u8 & mask) / 255.0);
}

/// What is at least the threshold is inverted.
fn solarize(image: &mut [f32], threshold: f32) {
    image.iter_mut().filter(|v| **v >= threshold).for_each(|v| *v = 1.0 - *v);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_thresholds() {
        let mut image = vec![0.0, 0.5, 200.0 / 255.0, 1.0];
        posterize(&mut image, 1);
        assert_eq!(image, [0.0, 128.0 / 255.0, 128.0 / 255.0, 128.0 / 255.0]);
        let mut image = vec![0.25, 0.5, 1.0];
        solarize(&mut image, 0.5);
        assert_eq!(image, [0.25, 0.5, 0.0]);
    }
}
