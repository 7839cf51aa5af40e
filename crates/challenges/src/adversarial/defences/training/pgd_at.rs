//! Adversarial training with projected gradient descent: the objective on rows where the attack found it large.
//! Madry et al., ICLR 2018, arXiv:1706.06083, equation 2.1. Presets: their MNIST and CIFAR-10 settings; Rice, Wong and
//! Kolter, ICML 2020, arXiv:2002.11569, whose advice to keep the weights that are best under attack is
//! `monitor = "robust-accuracy"`. Checked against: the closed form on a linear network, a naive version.
//! Differs from the papers: the attack runs in evaluation mode. Weak when: steps are few and start at the row.

use netproof_tensor::Tensor;
use netproof_train::{Batch, Entry, Gradient, GradientRule, Options, Step, TrainError};
use serde::Deserialize;

use super::inner::Inner;
use super::options::options;
use super::threat::{Start, pixels};
use super::{Adversarial, Both, objective_at};

pub(super) const ENTRY: Entry<dyn GradientRule> = Entry {
    id: "pgd-at",
    summary: "adversarial training with PGD (Madry et al. 2018); presets madry-mnist, madry-cifar10, rice-cifar10",
    build: |options, _| Ok(Box::new(Both(build(options)?))),
};

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Preset {
    #[default]
    MadryMnist,
    MadryCifar10,
    RiceCifar10,
}

impl Preset {
    fn inner(self) -> Inner {
        let (epsilon, steps, step_size) = match self {
            Self::MadryMnist => (0.3, 40, 0.01),
            Self::MadryCifar10 => (8.0 / 255.0, 7, 2.0 / 255.0),
            Self::RiceCifar10 => (8.0 / 255.0, 10, 2.0 / 255.0),
        };
        Inner { threat: pixels(epsilon), steps, step_size, start: Start::Uniform }
    }
}

options!(Raw, Preset {});

pub(super) fn build(options: Options<'_>) -> Result<Box<dyn Adversarial>, TrainError> {
    let own = Raw::read(options)?;
    let [inner, validation] = own.attacks(own.preset.unwrap_or_default().inner())?;
    Ok(Box::new(PgdAt { inner, validation }))
}

struct PgdAt {
    inner: Inner,
    validation: Inner,
}

impl Adversarial for PgdAt {
    fn attack(&self, step: &Step<'_>, batch: &Batch) -> Result<Tensor, TrainError> {
        self.inner.on_objective(step, batch)
    }

    fn gradient_at(&self, step: &Step<'_>, batch: &Batch, attacked: &Tensor) -> Result<Gradient, TrainError> {
        objective_at(step, batch, attacked)
    }

    fn validation(&self) -> &Inner {
        &self.validation
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{Linear, build_rule, flat, naive_cross_entropy, rows, with_step_mut};
    use netproof_train::Method;

    /// Two classes: the loss after the step is that of the row moved by epsilon along the signs.
    #[test]
    fn the_gradient_is_that_of_the_moved_rows() {
        let linear = Linear::new(2);
        let (batch, labels) = rows(6, 2, 2);
        let method = Method::new("pgd-at")
            .with("epsilon", 0.2)
            .with("bounds", vec![-9.0, 9.0])
            .with("steps", 3)
            .with("step_size", 0.2)
            .with("start", "row");
        let got = with_step_mut(linear.net(), 1, |step| build_rule(&method).gradient(step, &batch).unwrap());
        let moved: Vec<f64> = batch
            .features
            .as_f32()
            .unwrap()
            .chunks(2)
            .zip(&labels)
            .flat_map(|(x, &y)| {
                let slope = |i| f64::from(linear.weight(1 - y, i) - linear.weight(y, i)).signum();
                [f64::from(x[0]) + 0.2 * slope(0), f64::from(x[1]) + 0.2 * slope(1)]
            })
            .collect();
        let (loss, want) = naive_cross_entropy(&linear, &moved, &labels);
        assert!((got.sums.loss - loss).abs() < 1e-4);
        for (got, want) in flat(&got).iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-4, "{got} {want}");
        }
    }
}
