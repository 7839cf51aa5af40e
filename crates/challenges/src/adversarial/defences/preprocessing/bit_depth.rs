//! Fewer shades: every feature is rounded to one of 2^bits values.
//! Xu, Evans and Qi, NDSS 2018, arXiv:1704.01155, section II-A. Checked against: closed form.
//! Weak always: an attacker who takes the rounding for the identity on the way back loses nothing (Athalye, Carlini and
//! Wagner, ICML 2018, arXiv:1802.00420; He et al., WOOT 2017, arXiv:1706.04701).

use netproof_audit::{AuditError, Candidate, Case, Context, Remedy};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_graph::Model;
use serde::{Deserialize, Serialize};

use super::{candidate, in_front, option};

pub(crate) static CARD: Card = Card {
    id: "bit-depth",
    version: 1,
    kind: CardKind::Remedy,
    title: "Bit depth reduction",
    challenge: Challenge::Adversarial,
    measures: "Rounds every feature between 0 and 1 to few values in front of the network. Offered because it is asked for; \
               under an attack that knows it, it hides gradients and does little else.",
    reference: "Xu, Evans and Qi, NDSS 2018, arXiv:1704.01155, section II-A",
    needs: &[Need::Classifier],
    options: &[OptionDoc { name: "bits", default: "[3, 1]", doc: "Bits per feature, each a candidate, 1 to 8." }],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BitDepth {
    bits: Vec<u32>,
}

impl Default for BitDepth {
    /// What the paper takes for ImageNet-like pictures is 4 or 5, for MNIST 1.
    fn default() -> Self {
        Self { bits: vec![3, 1] }
    }
}

impl Remedy for BitDepth {
    fn goals(&self) -> &'static [&'static str] {
        &["robust"]
    }

    fn propose(&self, _: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        let one = |&bits: &u32| {
            if !(1..=8).contains(&bits) {
                return Err(option(&CARD, "bits", bits, "1 to 8"));
            }
            let what = format!("Rounds every feature to {} values.", 1u32 << bits);
            Ok(candidate(format!("{bits}-bit"), what, move |model| round_features(model, bits)))
        };
        self.bits.iter().map(one).collect()
    }
}

/// `round(x (2^bits − 1)) / (2^bits − 1)` in front of the network.
/// # Errors
/// The network cannot be rewritten.
pub(crate) fn round_features(model: &Model, bits: u32) -> Result<Model, AuditError> {
    let steps = ((1u32 << bits) - 1) as f32;
    in_front(model, CARD.id, |c| {
        c.with_scalar("Mul", steps)?;
        c.then("Round", &[], &[]);
        c.with_scalar("Div", steps)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mirror, picture};
    use super::*;

    #[test]
    fn features_are_rounded() {
        let x = picture([1, 3, 4]);
        let y = round_features(&mirror([1, 3, 4]), 2).unwrap().predict(&x).unwrap();
        for (y, x) in y.as_f32().unwrap().iter().zip(x.as_f32().unwrap()) {
            assert!((y - (x * 3.0).round() / 3.0).abs() < 1e-6, "{x} {y}");
        }
    }
}
