//! A Gaussian blur in front of the network.
//! Xu, Evans and Qi, NDSS 2018, arXiv:1704.01155, section II-B, as a linear filter. Checked against: a naive convolution.
//! Weak always: it is linear, so an attack goes straight through; it takes sharpness from rows as they are.

use netproof_audit::{AuditError, Candidate, Case, Context, Remedy};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_graph::Model;
use serde::{Deserialize, Serialize};

use super::{Image, candidate, in_front, not_for, option};

pub(crate) static CARD: Card = Card {
    id: "gaussian-smoothing",
    version: 1,
    kind: CardKind::Remedy,
    title: "Gaussian smoothing",
    challenge: Challenge::Adversarial,
    measures: "Blurs every channel in front of the network. Offered because it is asked for; attacks go straight through.",
    reference: "Xu, Evans and Qi, NDSS 2018, arXiv:1704.01155, section II-B",
    needs: &[Need::Classifier],
    options: &[OptionDoc {
        name: "sigma",
        default: "[0.7]",
        doc: "Standard deviations in pixels, each a candidate, over 0 and at most 5.",
    }],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GaussianSmoothing {
    sigma: Vec<f64>,
}

impl Default for GaussianSmoothing {
    fn default() -> Self {
        Self { sigma: vec![0.7] }
    }
}

impl Remedy for GaussianSmoothing {
    fn goals(&self) -> &'static [&'static str] {
        &["robust"]
    }

    fn propose(&self, case: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        if Image::of(case.subject.model()).is_err() {
            return Ok(Vec::new());
        }
        let one = |&sigma: &f64| {
            if !(sigma > 0.0 && sigma <= 5.0) {
                return Err(option(&CARD, "sigma", sigma, "over 0 and at most 5"));
            }
            let what = format!("Blurs every channel with a standard deviation of {sigma} pixels.");
            Ok(candidate(format!("blur-{sigma}"), what, move |model| blur(model, sigma)))
        };
        self.sigma.iter().map(one).collect()
    }
}

/// A blur in front of the network; the border is continued with its own values.
/// # Errors
/// The network takes no images, or cannot be rewritten.
pub(crate) fn blur(model: &Model, sigma: f64) -> Result<Model, AuditError> {
    let image = Image::of(model).map_err(|e| not_for(&CARD, e))?;
    let (radius, filter) = kernel(sigma);
    in_front(model, CARD.id, |c| {
        c.pad([radius; 4])?;
        c.each_channel("Conv", image.channels, &[filter], 2 * radius + 1, 1)
    })
}

/// Weights of a square of 2·radius + 1, which reach to three standard deviations.
fn kernel(sigma: f64) -> (usize, Vec<f32>) {
    let radius = (3.0 * sigma).ceil() as usize;
    let place = |i: usize| i as f64 - radius as f64;
    let line: Vec<f64> = (0..=2 * radius).map(|i| (-place(i).powi(2) / (2.0 * sigma * sigma)).exp()).collect();
    let sum: f64 = line.iter().sum();
    let filter = line.iter().flat_map(|a| line.iter().map(move |b| (a * b / (sum * sum)) as f32)).collect();
    (radius, filter)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mirror, picture};
    use super::*;

    #[test]
    fn a_pixel_is_the_weighted_mean_of_its_neighbours() {
        let [c, h, w] = [2, 5, 4];
        let x = picture([c, h, w]);
        let y = blur(&mirror([c, h, w]), 0.8).unwrap().predict(&x).unwrap();
        let (x, y) = (x.as_f32().unwrap(), y.as_f32().unwrap());
        let at = |p: usize, i: i64, j: i64| {
            x[p * h * w + i.clamp(0, h as i64 - 1) as usize * w + j.clamp(0, w as i64 - 1) as usize]
        };
        for p in 0..2 * c {
            for i in 0..h as i64 {
                for j in 0..w as i64 {
                    let (mut sum, mut mass) = (0.0, 0.0);
                    for a in -3i64..=3 {
                        for b in -3i64..=3 {
                            let weight = (-((a * a + b * b) as f64) / (2.0 * 0.64)).exp();
                            sum += weight * f64::from(at(p, i + a, j + b));
                            mass += weight;
                        }
                    }
                    let got = f64::from(y[p * h * w + i as usize * w + j as usize]);
                    assert!((got - sum / mass).abs() < 1e-5, "{got} {}", sum / mass);
                }
            }
        }
    }
}
