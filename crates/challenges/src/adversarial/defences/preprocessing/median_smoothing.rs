//! Every pixel becomes the median of a square around it.
//! Xu, Evans and Qi, NDSS 2018, arXiv:1704.01155, section II-B. Checked against: a naive median.
//! Weak: the median has a slope, that of the pixel it picks, so an attack goes through it; it helps against changes of few
//! pixels, little against small changes of all.

use netproof_audit::{AuditError, Candidate, Case, Context, Remedy};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_graph::{Attribute, Model};
use serde::{Deserialize, Serialize};

use super::{Image, candidate, in_front, not_for, option};

pub(crate) static CARD: Card = Card {
    id: "median-smoothing",
    version: 1,
    kind: CardKind::Remedy,
    title: "Median smoothing",
    challenge: Challenge::Adversarial,
    measures: "Replaces every pixel by the median of a square around it, in front of the network. Attacks that know it go \
               through.",
    reference: "Xu, Evans and Qi, NDSS 2018, arXiv:1704.01155, section II-B",
    needs: &[Need::Classifier],
    options: &[OptionDoc { name: "size", default: "[3]", doc: "Sides of the square, each a candidate: 3, 5 or 7." }],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MedianSmoothing {
    size: Vec<usize>,
}

impl Default for MedianSmoothing {
    fn default() -> Self {
        Self { size: vec![3] }
    }
}

impl Remedy for MedianSmoothing {
    fn goals(&self) -> &'static [&'static str] {
        &["robust"]
    }

    fn propose(&self, case: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        if Image::of(case.subject.model()).is_err() {
            return Ok(Vec::new());
        }
        let one = |&size: &usize| {
            if !matches!(size, 3 | 5 | 7) {
                return Err(option(&CARD, "size", size, "3, 5 or 7"));
            }
            let what = format!("Replaces every pixel by the median of a square of {size}×{size}.");
            Ok(candidate(format!("median-{size}"), what, move |model| median(model, size)))
        };
        self.size.iter().map(one).collect()
    }
}

/// A median in front of the network; the border is continued with its own values.
/// # Errors
/// The network takes no images, or cannot be rewritten.
pub(crate) fn median(model: &Model, size: usize) -> Result<Model, AuditError> {
    let image = Image::of(model).map_err(|e| not_for(&CARD, e))?;
    let area = size * size;
    // One filter per place of the square, so that the places become channels.
    let filters: Vec<Vec<f32>> = (0..area).map(|p| (0..area).map(|q| f32::from(u8::from(p == q))).collect()).collect();
    let shape = [0, image.channels, area, image.height, image.width].map(|n| n as i64);
    in_front(model, CARD.id, |c| {
        c.pad([size / 2; 4])?;
        c.each_channel("Conv", image.channels, &filters, size, 1)?;
        let shape = c.integers("shape", &shape)?;
        c.then("Reshape", &[&shape], &[]);
        // The middle one of all is the last of the larger half.
        let half = c.integers("half", &[(area as i64 + 1) / 2])?;
        c.then("TopK", &[&half], &[("axis", Attribute::Int(2))]);
        let axes = c.integers("axes", &[2])?;
        let starts = c.integers("starts", &[-1])?;
        let ends = c.integers("ends", &[i64::MAX])?;
        c.then("Slice", &[&starts, &ends, &axes], &[]);
        c.then("Squeeze", &[&axes], &[]);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mirror, picture};
    use super::*;

    #[test]
    fn a_pixel_is_the_median_of_its_neighbours() {
        let [c, h, w] = [2, 5, 4];
        let x = picture([c, h, w]);
        let y = median(&mirror([c, h, w]), 3).unwrap().predict(&x).unwrap();
        assert_eq!(y.shape(), x.shape());
        let (x, y) = (x.as_f32().unwrap(), y.as_f32().unwrap());
        for p in 0..2 * c {
            for i in 0..h as i64 {
                for j in 0..w as i64 {
                    let mut near: Vec<f32> = (-1..=1)
                        .flat_map(|a| (-1..=1).map(move |b| (a, b)))
                        .map(|(a, b): (i64, i64)| {
                            let (i, j) = ((i + a).clamp(0, h as i64 - 1), (j + b).clamp(0, w as i64 - 1));
                            x[p * h * w + i as usize * w + j as usize]
                        })
                        .collect();
                    near.sort_by(f32::total_cmp);
                    assert_eq!(y[p * h * w + i as usize * w + j as usize], near[4]);
                }
            }
        }
    }
}
