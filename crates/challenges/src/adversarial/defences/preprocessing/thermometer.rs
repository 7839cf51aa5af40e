//! Thermometer encoding: a feature becomes a row of lamps, of which those below its value are lit, and the network is
//! trained anew behind it.
//! Buckman, Roy, Raffel and Goodfellow, ICLR 2018 ("Thermometer encoding: one hot way to resist adversarial examples").
//! Checked against: closed form. Differs from the paper: lamps are mixed back to as many channels as the network takes, by
//! weights that are learnt with it, so that any network can stand behind them; before the training it answers about as it
//! did. Weak always: Athalye et al. 2018, arXiv:1802.00420, section 5.1.1, broke it by taking
//! the lamps for smooth ones on the way back, as `adaptive-attack` does.

use netproof_audit::{AuditError, Candidate, Case, Context, Making, Remedy, Retraining, Rewrite};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_graph::{Attribute, Model, NewNode};
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Image, in_front, not_for, option};

pub(crate) static CARD: Card = Card {
    id: "thermometer",
    version: 1,
    kind: CardKind::Remedy,
    title: "Thermometer encoding",
    challenge: Challenge::Adversarial,
    measures: "Replaces every feature between 0 and 1 by lamps that are lit below its value, and trains the network anew. \
               Offered because it is asked for; under an attack that knows it, it hides gradients and does little else.",
    reference: "Buckman, Roy, Raffel and Goodfellow, ICLR 2018",
    needs: &[Need::Training, Need::Classifier],
    options: &[OptionDoc { name: "levels", default: "[16]", doc: "Lamps per feature, each a candidate, 2 to 64." }],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Thermometer {
    levels: Vec<usize>,
}

impl Default for Thermometer {
    /// Of the paper.
    fn default() -> Self {
        Self { levels: vec![16] }
    }
}

impl Remedy for Thermometer {
    fn goals(&self) -> &'static [&'static str] {
        &["robust"]
    }

    fn propose(&self, case: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        if Image::of(case.subject.model()).is_err() {
            return Ok(Vec::new());
        }
        let one = |&levels: &usize| {
            if !(2..=64).contains(&levels) {
                return Err(option(&CARD, "levels", levels, "2 to 64"));
            }
            let text = format!("takes its input through thermometers of {levels} lamps");
            let before = Rewrite::new(text, move |model, _| encode(model, levels));
            Ok(Candidate {
                name: format!("thermometer-{levels}"),
                what: format!("Replaces every feature by {levels} lamps, and trains anew."),
                making: Making::Train(Retraining { before: Some(before), ..Retraining::default() }),
            })
        };
        self.levels.iter().map(one).collect()
    }
}

/// The network behind thermometers: lamp `k` of `levels` is lit where the feature is over `(k + ½) / levels`.
/// # Errors
/// The network takes no images, or cannot be rewritten.
pub(crate) fn encode(model: &Model, levels: usize) -> Result<Model, AuditError> {
    let image = Image::of(model).map_err(|e| not_for(&CARD, e))?;
    let channels = image.channels;
    // Lamps of one channel are worth the same to it at first, those of other channels nothing.
    let share = |c: usize, lamp: usize| if lamp / levels == c { 1.0 / levels as f32 } else { 0.0 };
    let worth = (0..channels).flat_map(|c| (0..channels * levels).map(move |lamp| share(c, lamp))).collect();
    let worth = Tensor::f32(vec![channels, channels * levels, 1, 1], worth)?;
    let (height, width) = (image.height as i64, image.width as i64);
    in_front(model, CARD.id, |c| {
        let five = c.integers("five", &[0, image.channels as i64, 1, height, width])?;
        c.then("Reshape", &[&five], &[]);
        let thresholds = (0..levels).map(|k| (k as f32 + 0.5) / levels as f32).collect();
        let thresholds = c.constant("thresholds", vec![1, 1, levels, 1, 1], thresholds)?;
        c.then("Sub", &[&thresholds], &[]);
        c.then("Sign", &[], &[]);
        c.with_scalar("Mul", 0.5)?;
        c.with_scalar("Add", 0.5)?;
        let four = c.integers("four", &[0, (image.channels * levels) as i64, height, width])?;
        c.then("Reshape", &[&four], &[]);
        // What each lamp is worth is learnt: initializers of a convolution are trained.
        let name = format!("{}.worth", c.prefix);
        let made = c.name("mixed");
        let node = NewNode::new("Conv", &[&c.at, &name], &[&made]).named(&made).with_tensor(&name, worth.clone());
        c.nodes.push(node.with("kernel_shape", Attribute::Ints(vec![1, 1])));
        c.at = made;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use netproof_graph::builders::{StridedCnnOptions, strided_cnn};

    use super::super::tests::picture;
    use super::*;

    #[test]
    fn lamps_stand_for_values_before_the_training() {
        let options = StridedCnnOptions { channels: vec![3], hidden: 4, ..StridedCnnOptions::new([2, 6, 6], 3) };
        let model = strided_cnn(&options).unwrap();
        let encoded = encode(&model, 8).unwrap();
        let x = picture([2, 6, 6]);
        let steps =
            x.as_f32().unwrap().iter().map(|v| (0..8).filter(|&k| *v > (k as f32 + 0.5) / 8.0).count() as f32 / 8.0);
        let rounded = Tensor::f32(x.shape().to_vec(), steps.collect()).unwrap();
        let (got, want) = (encoded.predict(&x).unwrap(), model.predict(&rounded).unwrap());
        for (a, b) in got.as_f32().unwrap().iter().zip(want.as_f32().unwrap()) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
        let trained: Vec<String> = encoded.parameters().filter(|p| p.trainable).map(|p| p.name).collect();
        assert!(trained.iter().any(|n| n.ends_with(".worth")), "{trained:?}");
    }

    #[test]
    fn what_takes_no_images_is_refused() {
        let model = netproof_graph::builders::mlp(&[4], &[3], 2, Default::default(), 0).unwrap();
        assert!(encode(&model, 4).unwrap_err().to_string().contains("it works on images"));
    }
}
