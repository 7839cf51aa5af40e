//! Certified training by linear bounds over intervals: CROWN-IBP, which helps where intervals alone are loose, at
//! first. Zhang, Chen, Xiao, Gowal, Stanforth, Li, Boning and Hsieh, ICLR 2020, arXiv:1906.06316, equations 9 to 12;
//! schedules as in [`ibp`](super::ibp), with the weight β of the linear bounds going from 1 to its end while the ball
//! grows. Checked against: the closed form on a linear network, the certificate `crown-ibp`, and differences. Costs a
//! pass for each class more than `ibp`. Weak when: as `ibp`; curves other than ReLU are refused.

use netproof_train::{Entry, GradientRule};
use serde::Deserialize;

use super::ibp::{Ibp, Schedule};
use super::inner::Inner;
use super::options::options;
use super::refuse;
use super::threat::{Norm, Start, pixels};

pub(super) const ENTRY: Entry<dyn GradientRule> = Entry {
    id: "crown-ibp",
    summary: "certified training by linear bounds over intervals in a growing ball (Zhang et al. 2020); preset zhang-mnist",
    build: |options, _| {
        let own = Raw::read(options)?;
        let preset = own.preset.unwrap_or_default();
        if own.norm == Some(Norm::L2) {
            return Err(refuse("norm", "l2", "linf: intervals bound every feature by itself"));
        }
        if own.steps.is_some() || own.step_size.is_some() || own.start.is_some() {
            return Err(refuse("steps", "given", "nothing: `crown-ibp` takes no steps"));
        }
        let Preset::ZhangMnist = preset;
        // Epsilon grows to 0.4 for networks that shall be certified at 0.3; batches have 256 rows, the first 10 of 200 epochs
        // are plain and the next 50 grow. At the end neither clean rows nor linear bounds count.
        let inner = Inner { threat: pixels(0.4), steps: 1, step_size: 0.4, start: Start::Row };
        let [inner, validation] = own.attacks(inner)?;
        let schedule = Schedule {
            natural_weight: own.natural_weight.unwrap_or(0.0),
            warm_up_steps: own.warm_up_steps.unwrap_or(2350),
            ramp_steps: own.ramp_steps.unwrap_or(11_750),
            linear_weight: Some(own.linear_weight.unwrap_or(0.0)),
        };
        Ok(Box::new(Ibp::new(inner.threat, validation, schedule)?))
    },
};

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Preset {
    #[default]
    ZhangMnist,
}

options!(Raw, Preset { natural_weight: f64, linear_weight: f64, warm_up_steps: u64, ramp_steps: u64 });

#[cfg(test)]
mod tests {
    use netproof_core::{Norm, Threat};
    use netproof_graph::builders::{Activation, mlp};
    use netproof_tensor::Tensor;
    use netproof_train::{Method, Net};

    use super::super::intervals::Intervals;
    use super::super::relaxation::Relaxed;
    use super::super::test_support::{Linear, build_rule, flat, rows, with_step, with_step_mut};

    fn method(epsilon: f64, linear_weight: f64) -> Method {
        Method::new("crown-ibp")
            .with("epsilon", epsilon)
            .with("bounds", vec![-9.0, 9.0])
            .with("natural_weight", 0.25)
            .with("linear_weight", linear_weight)
            .with("warm_up_steps", 0)
            .with("ramp_steps", 0)
    }

    fn net(activation: Activation) -> Net {
        Net::new(mlp(&[2], &[6, 5], 3, activation, 7).unwrap(), true).unwrap()
    }

    /// On a linear network both kinds of bounds are exact.
    #[test]
    fn on_a_linear_network_it_is_interval_training() {
        let (batch, _) = rows(6, 2, 3);
        let one =
            |m: &Method| with_step_mut(Linear::new(3).net(), 1, |step| build_rule(m).gradient(step, &batch).unwrap());
        let mut ibp = method(0.2, 0.5);
        ibp.kind = "ibp".to_owned();
        ibp.options.remove("linear_weight");
        let (a, b) = (one(&method(0.2, 1.0)), one(&ibp));
        assert!((a.sums.loss - b.sums.loss).abs() < 1e-4, "{} {}", a.sums.loss, b.sums.loss);
        assert!(flat(&a).iter().zip(flat(&b)).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn bounds_hold_for_every_row_of_the_ball_and_are_those_of_the_certificate() {
        let (batch, labels) = rows(5, 2, 3);
        with_step(net(Activation::Relu), 1, |step| {
            let intervals = Intervals::of(step.net).unwrap();
            let x = batch.features.as_f32().unwrap();
            let at = |d: f32| Tensor::f32(vec![5, 2], x.iter().map(|v| v + d).collect()).unwrap();
            let (low, high) = (at(-0.15), at(0.15));
            let bounds = intervals.forward(step, &low, &high).unwrap();
            let own = Relaxed::of(&intervals, step, &bounds, [&low, &high], &labels).unwrap().margins;
            for k in 0..40 {
                let moved = x.iter().enumerate().map(|(i, v)| v + 0.15 * ((i * 7 + k * 13) as f32).sin()).collect();
                let moved = Tensor::f32(vec![5, 2], moved).unwrap();
                let z = step.net.answers(&step.net.weights, &moved).unwrap();
                for (r, (z, &y)) in z.as_f32().unwrap().chunks(3).zip(&labels).enumerate() {
                    for j in 0..3 {
                        assert!(f64::from(z[j] - z[y]) <= own[r * 3 + j] + 1e-5, "row {r}, class {j}");
                    }
                }
            }
            let threat = Threat::new(Norm::Linf, 0.15, [-9.0, 9.0]).unwrap();
            let ladder = crate::adversarial::certificates::Ladder::of(&["crown-ibp"]).unwrap();
            let proved =
                crate::adversarial::certificates::proved(step.net.model(), &batch.features, &labels, &threat, &ladder)
                    .unwrap();
            for (r, &y) in labels.iter().enumerate() {
                let margin = (0..3).filter(|&j| j != y).map(|j| own[r * 3 + j]).fold(f64::NEG_INFINITY, f64::max);
                if margin.abs() > 1e-4 {
                    assert_eq!(proved.is_proved(r), margin < 0.0, "row {r}: {margin}");
                }
            }
        });
    }

    #[test]
    fn slopes_are_those_of_the_loss_through_hidden_layers() {
        let (batch, _) = rows(5, 2, 3);
        for weight in [1.0, 0.4] {
            let at = |change: Option<(usize, usize, f32)>| {
                let mut net = net(Activation::Relu);
                if let Some((tensor, i, d)) = change {
                    net.weights.values_mut(tensor)[i] += d;
                }
                with_step_mut(net, 1, |step| build_rule(&method(0.1, weight)).gradient(step, &batch).unwrap())
            };
            let got = at(None);
            let mut seen = 0;
            for (t, tensor) in got.tensors.iter().enumerate() {
                for (i, s) in tensor.as_ref().unwrap().as_f32().unwrap().iter().enumerate() {
                    let h = 2e-3;
                    let want = (at(Some((t, i, h))).sums.loss - at(Some((t, i, -h))).sums.loss) / (2.0 * f64::from(h));
                    // Kinks of ReLU and of absolute values make single differences coarse.
                    seen += usize::from((f64::from(*s) - want).abs() < 0.02 * (1.0 + want.abs()));
                }
            }
            let all = flat(&got).len();
            assert!(seen * 100 >= all * 96, "{weight}: {seen} of {all}");
        }
    }

    #[test]
    fn other_curves_and_norms_are_refused() {
        let registry = crate::training_registry();
        assert!(registry.rules.build(&method(0.1, 1.0).with("norm", "l2"), &registry).is_err());
        assert!(registry.rules.build(&method(0.1, 2.0), &registry).is_err());
        let (batch, _) = rows(5, 2, 3);
        let error = with_step_mut(net(Activation::Tanh), 1, |step| {
            build_rule(&method(0.1, 1.0)).gradient(step, &batch).unwrap_err().to_string()
        });
        assert!(error.contains("use `ibp`"), "{error}");
    }
}
