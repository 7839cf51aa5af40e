//! Common corruptions: what cameras, weather and file formats do to pictures, in 15 kinds and five severities.
//! Hendrycks and Dietterich, ICLR 2019, arXiv:1903.12261, section 3 and appendix B; severities of their CIFAR-10-C.
//!
//! The pictures are made here, after the published definitions; they are not the published files, so a set made of these is
//! called "-C-like". Known differences: frost comes from a procedural texture instead of six photographs whose origin is unclear;
//! draws are per picture and from our generator; sizes that the definitions give for 32×32 follow the size of the picture.

mod blur;
mod digital;
mod noise;
pub(crate) mod picture;
mod weather;

use netproof_stats::rng::Rng;

pub(crate) use picture::Picture;

/// One kind of corruption.
pub(crate) struct Corruption {
    /// Id and name for people.
    pub(crate) id: &'static str,
    pub(crate) family: &'static str,
    /// Changes a picture of values 0 to 1 at a severity of 0 to 4.
    pub(crate) apply: fn(&mut Picture, usize, &mut Rng),
}

/// Severities.
pub(crate) const SEVERITIES: usize = 5;

/// The 15 kinds in the order of the paper.
pub(crate) static CORRUPTIONS: &[Corruption] = &[
    Corruption { id: "gaussian noise", family: "noise", apply: noise::gaussian },
    Corruption { id: "shot noise", family: "noise", apply: noise::shot },
    Corruption { id: "impulse noise", family: "noise", apply: noise::impulse },
    Corruption { id: "defocus blur", family: "blur", apply: blur::defocus },
    Corruption { id: "glass blur", family: "blur", apply: blur::glass },
    Corruption { id: "motion blur", family: "blur", apply: blur::motion },
    Corruption { id: "zoom blur", family: "blur", apply: blur::zoom },
    Corruption { id: "snow", family: "weather", apply: weather::snow },
    Corruption { id: "frost", family: "weather", apply: weather::frost },
    Corruption { id: "fog", family: "weather", apply: weather::fog },
    Corruption { id: "brightness", family: "weather", apply: weather::brightness },
    Corruption { id: "contrast", family: "digital", apply: digital::contrast },
    Corruption { id: "elastic", family: "digital", apply: digital::elastic },
    Corruption { id: "pixelate", family: "digital", apply: digital::pixelate },
    Corruption { id: "jpeg", family: "digital", apply: digital::jpeg },
];

/// The picture corrupted, as 8-bit files hold it. The draws depend on the seed, the kind and the severity alone.
pub(crate) fn corrupted(picture: &Picture, kind: &Corruption, severity: usize, seed: u64) -> Picture {
    let mut p = picture.clone();
    let mut rng = Rng::named(seed, &format!("{} {severity}", kind.id));
    (kind.apply)(&mut p, severity.min(SEVERITIES - 1), &mut rng);
    // The published files cut off, they do not round.
    p.pixels.iter_mut().for_each(|v| *v = (v.clamp(0.0, 1.0) * 255.0 + 1e-3).floor() / 255.0);
    p
}

#[cfg(test)]
mod tests {
    use super::*;

    fn photo(channels: usize, height: usize, width: usize) -> Picture {
        let at = |c: usize, y: usize, x: usize| {
            let wave = ((x as f32 / 3.0).sin() + (y as f32 / 4.0).cos()) / 4.0 + 0.5;
            (wave * (0.6 + 0.2 * c as f32)).clamp(0.0, 1.0)
        };
        let places = (0..channels).flat_map(|c| (0..height).flat_map(move |y| (0..width).map(move |x| (c, y, x))));
        Picture { channels, height, width, pixels: places.map(|(c, y, x)| at(c, y, x)).collect() }
    }

    #[test]
    fn every_kind_keeps_the_size_stays_within_0_and_1_and_changes_the_picture() {
        for p in [photo(3, 32, 32), photo(1, 28, 28), photo(3, 20, 33), photo(1, 9, 8)] {
            for kind in CORRUPTIONS {
                for severity in 0..SEVERITIES {
                    let q = corrupted(&p, kind, severity, 7);
                    assert_eq!((q.channels, q.height, q.width), (p.channels, p.height, p.width));
                    assert_eq!(q.pixels.len(), p.pixels.len(), "{}", kind.id);
                    assert!(q.pixels.iter().all(|v| (0.0..=1.0).contains(v)), "{} {severity}", kind.id);
                    assert!(q.pixels != p.pixels, "{} {severity} changes nothing", kind.id);
                }
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_picture_and_another_seed_another() {
        let p = photo(3, 16, 16);
        for kind in CORRUPTIONS {
            assert_eq!(corrupted(&p, kind, 2, 1), corrupted(&p, kind, 2, 1), "{}", kind.id);
        }
        let drawn = CORRUPTIONS.iter().filter(|k| corrupted(&p, k, 2, 1) != corrupted(&p, k, 2, 2)).count();
        // Defocus, zoom, brightness, contrast, pixelate and JPEG draw nothing.
        assert_eq!(drawn, 9);
    }

    #[test]
    fn the_last_severity_changes_more_than_the_first() {
        let p = photo(3, 32, 32);
        for kind in CORRUPTIONS.iter().filter(|k| !matches!(k.id, "elastic" | "snow")) {
            let far = |severity| -> f32 {
                let changes = (0..8).map(|seed| {
                    let q = corrupted(&p, kind, severity, seed);
                    q.pixels.iter().zip(&p.pixels).map(|(a, b)| (a - b).abs()).sum::<f32>()
                });
                changes.sum()
            };
            assert!(far(4) > far(0), "{}: {} and {}", kind.id, far(0), far(4));
        }
    }
}
