//! What JPEG does to a picture, in front of the network: blocks of 8×8 in frequencies, rounded to multiples.
//! ITU-T T.81, annexes A.3.3 (transform) and K.1 (tables), scaled by quality as libjpeg does; as a defence Dziugaite,
//! Ghahramani and Roy 2016, arXiv:1608.00853, and Guo et al., ICLR 2018, arXiv:1711.00117. Checked against: a naive
//! transform. Differs from a file: chroma has all pixels, and nothing is rounded to bytes.
//! Weak: an attack that takes the rounding for the identity goes through it (Shin and Song 2017; Athalye et al. 2018).

use netproof_audit::{AuditError, Candidate, Case, Context, Remedy};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_graph::{GraphError, Model};
use serde::{Deserialize, Serialize};

use super::{Chain, Image, candidate, in_front, not_for, option};

pub(crate) static CARD: Card = Card {
    id: "jpeg",
    version: 1,
    kind: CardKind::Remedy,
    title: "JPEG compression",
    challenge: Challenge::Adversarial,
    measures: "Rounds the frequencies of blocks of 8×8 pixels in front of the network, as JPEG does. Offered because it is \
               asked for; under an attack that knows it, it hides gradients and does little else.",
    reference: "Dziugaite, Ghahramani and Roy 2016, arXiv:1608.00853; Guo et al., ICLR 2018, arXiv:1711.00117; ITU-T T.81",
    needs: &[Need::Classifier],
    options: &[OptionDoc { name: "quality", default: "[75]", doc: "Qualities, each a candidate, 1 to 100." }],
};

pub(crate) const N: usize = 8;

/// Table K.1, luminance.
pub(crate) const LUMINANCE: [u8; N * N] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
];

/// Table K.2, chrominance.
pub(crate) const CHROMINANCE: [u8; N * N] = [
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99,
];

/// From red, green and blue to luminance and two of chrominance (ITU-T T.871), and back.
pub(crate) const TO_YCC: [[f32; 3]; 3] =
    [[0.299, 0.587, 0.114], [-0.168_735_9, -0.331_264_1, 0.5], [0.5, -0.418_687_6, -0.081_312_4]];
pub(crate) const FROM_YCC: [[f32; 3]; 3] = [[1.0, 0.0, 1.402], [1.0, -0.344_136_3, -0.714_136_3], [1.0, 1.772, 0.0]];

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Jpeg {
    quality: Vec<u32>,
}

impl Default for Jpeg {
    /// Of both papers.
    fn default() -> Self {
        Self { quality: vec![75] }
    }
}

impl Remedy for Jpeg {
    fn goals(&self) -> &'static [&'static str] {
        &["robust"]
    }

    fn propose(&self, case: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        if Image::of(case.subject.model()).is_err() {
            return Ok(Vec::new());
        }
        let one = |&quality: &u32| {
            if !(1..=100).contains(&quality) {
                return Err(option(&CARD, "quality", quality, "1 to 100"));
            }
            let what = format!("Rounds frequencies as JPEG of quality {quality} does.");
            Ok(candidate(format!("jpeg-{quality}"), what, move |model| compress(model, quality)))
        };
        self.quality.iter().map(one).collect()
    }
}

/// The rounding of frequencies in front of the network, for pixels between 0 and 1.
/// # Errors
/// The network takes no images, or cannot be rewritten.
pub(crate) fn compress(model: &Model, quality: u32) -> Result<Model, AuditError> {
    let image = Image::of(model).map_err(|e| not_for(&CARD, e))?;
    let colours = image.channels == 3;
    let [missing_rows, missing_columns] = [image.height, image.width].map(|n| n.next_multiple_of(N) - n);
    in_front(model, CARD.id, |c| {
        if colours {
            mix(c, &TO_YCC.map(|row| row.map(|v| 255.0 * v)), [-128.0, 0.0, 0.0])?;
        } else {
            c.with_scalar("Mul", 255.0)?;
            c.with_scalar("Sub", 128.0)?;
        }
        c.pad([0, missing_rows, 0, missing_columns])?;
        let basis = basis();
        c.each_channel("Conv", image.channels, &basis, N, N)?;
        let table = |channel: usize| table(if colours && channel > 0 { &CHROMINANCE } else { &LUMINANCE }, quality);
        let steps = (0..image.channels).flat_map(table).collect();
        let steps = c.constant("table", vec![1, image.channels * N * N, 1, 1], steps)?;
        c.then("Div", &[&steps], &[]);
        c.then("Round", &[], &[]);
        c.then("Mul", &[&steps], &[]);
        // The basis is orthonormal: its transpose leads back.
        c.each_channel("ConvTranspose", image.channels, &basis, N, N)?;
        if missing_rows + missing_columns > 0 {
            c.crop(image.height, image.width)?;
        }
        if colours {
            // Back to pixels: the offset of luminance comes back in every colour.
            mix(c, &FROM_YCC.map(|row| row.map(|v| v / 255.0)), [128.0 / 255.0; 3])?;
        } else {
            c.with_scalar("Add", 128.0)?;
            c.with_scalar("Div", 255.0)?;
        }
        let (low, high) = (c.scalar("low", 0.0)?, c.scalar("high", 1.0)?);
        c.then("Clip", &[&low, &high], &[]);
        Ok(())
    })
}

/// Mixes three channels.
fn mix(c: &mut Chain, matrix: &[[f32; 3]; 3], offset: [f32; 3]) -> Result<(), GraphError> {
    let weights = c.constant("colours", vec![3, 3, 1, 1], matrix.concat())?;
    let offset = c.constant("offset", vec![3], offset.to_vec())?;
    c.then("Conv", &[&weights, &offset], &[]);
    Ok(())
}

/// One filter of 8×8 per frequency.
pub(crate) fn basis() -> Vec<Vec<f32>> {
    let scale = |k: usize| if k == 0 { (1.0 / N as f64).sqrt() } else { (2.0 / N as f64).sqrt() };
    let wave =
        |k: usize, i: usize| scale(k) * ((2 * i + 1) as f64 * k as f64 * std::f64::consts::PI / (2 * N) as f64).cos();
    let places = || (0..N).flat_map(|a| (0..N).map(move |b| (a, b)));
    places().map(|(u, v)| places().map(|(i, j)| (wave(u, i) * wave(v, j)) as f32).collect()).collect()
}

/// The steps of a quality, as libjpeg makes them.
pub(crate) fn table(of: &[u8; N * N], quality: u32) -> Vec<f32> {
    let scale = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    of.iter().map(|&q| ((u32::from(q) * scale + 50) / 100).clamp(1, 255) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mirror, picture};
    use super::*;

    /// Blocks of one channel, transformed by the definition in double precision.
    fn naive(x: &[f64], [h, w]: [usize; 2], quality: u32) -> Vec<f64> {
        let table = table(&LUMINANCE, quality);
        let at = |i: usize, j: usize| 255.0 * x[i.min(h - 1) * w + j.min(w - 1)] - 128.0;
        let c = |k: usize| if k == 0 { (0.5f64).sqrt() } else { 1.0 };
        let cos = |i: usize, k: usize| ((2 * i + 1) as f64 * k as f64 * std::f64::consts::PI / 16.0).cos();
        let mut y = vec![0.0; h * w];
        for top in (0..h).step_by(8) {
            for left in (0..w).step_by(8) {
                let mut f = [[0.0; 8]; 8];
                for (u, f) in f.iter_mut().enumerate() {
                    for (v, f) in f.iter_mut().enumerate() {
                        let mut sum = 0.0;
                        for i in 0..8 {
                            for j in 0..8 {
                                sum += at(top + i, left + j) * cos(i, u) * cos(j, v);
                            }
                        }
                        let step = f64::from(table[8 * u + v]);
                        *f = (0.25 * c(u) * c(v) * sum / step).round() * step;
                    }
                }
                for i in 0..8.min(h - top) {
                    for j in 0..8.min(w - left) {
                        let mut sum = 0.0;
                        for (u, f) in f.iter().enumerate() {
                            for (v, f) in f.iter().enumerate() {
                                sum += 0.25 * c(u) * c(v) * f * cos(i, u) * cos(j, v);
                            }
                        }
                        y[(top + i) * w + left + j] = ((sum + 128.0) / 255.0).clamp(0.0, 1.0);
                    }
                }
            }
        }
        y
    }

    #[test]
    fn blocks_are_rounded_as_by_the_definition() {
        let [h, w] = [11, 16];
        let x = picture([1, h, w]);
        let y = compress(&mirror([1, h, w]), 60).unwrap().predict(&x).unwrap();
        assert_eq!(y.shape(), x.shape());
        let mut far = 0;
        for (x, y) in x.as_f32().unwrap().chunks(h * w).zip(y.as_f32().unwrap().chunks(h * w)) {
            let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
            far += y.iter().zip(naive(&x, [h, w], 60)).filter(|(y, want)| (f64::from(**y) - want).abs() > 1e-4).count();
        }
        assert_eq!(far, 0);
    }

    #[test]
    fn colours_come_back() {
        let x = picture([3, 8, 8]);
        let y = compress(&mirror([3, 8, 8]), 100).unwrap().predict(&x).unwrap();
        // At the highest quality frequencies are rounded to whole numbers, which moves no pixel by more than a few shades.
        for (y, x) in y.as_f32().unwrap().iter().zip(x.as_f32().unwrap()) {
            assert!((y - x).abs() < 0.03, "{x} {y}");
        }
    }

    #[test]
    fn tables_are_those_of_libjpeg() {
        assert_eq!(table(&LUMINANCE, 50)[0], 16.0);
        assert_eq!(table(&LUMINANCE, 75)[..4], [8.0, 6.0, 5.0, 8.0]);
        assert_eq!(table(&LUMINANCE, 1)[0], 255.0);
        assert!(table(&CHROMINANCE, 100).iter().all(|&q| q == 1.0));
    }
}
