//! The inner maximisation of adversarial training: projected gradient ascent on the rows, with the weights as they are.
//! Madry et al., ICLR 2018, arXiv:1706.06083, equation 2.1 and section 2.1. Checked against: the closed form on a linear
//! network, where one sign step of length epsilon is the maximum.

use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;
use netproof_train::{Batch, Step, TrainError, evaluate};

use super::threat::{Start, Threat, begin, check_rows};
use crate::adversarial::ascent::step as ascend;
use crate::adversarial::projection::Ball;

/// How the hardest rows are looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Inner {
    pub(super) threat: Threat,
    pub(super) steps: usize,
    pub(super) step_size: f64,
    pub(super) start: Start,
}

impl Inner {
    /// An attack of so many steps in all directions: 2.5 times as far as the ball reaches, as in the software of Madry's
    /// group (github.com/MadryLab/robustness).
    pub(super) fn thorough(threat: Threat, steps: usize) -> Self {
        let step_size = 2.5 * threat.epsilon / steps.max(1) as f64;
        Self { threat, steps, step_size, start: Start::Uniform }
    }

    /// The rows where a loss is large, near where they are. `slope` gives the gradient of the loss with respect to the
    /// answers.
    /// # Guarantees
    /// Within ball and bounds; draws depend on the seed of the step and the place of the row in the batch alone.
    pub(super) fn maximise(
        &self,
        step: &Step<'_>,
        batch: &Batch,
        slope: impl Fn(&Tensor) -> Result<Tensor, TrainError>,
    ) -> Result<Tensor, TrainError> {
        check_rows(&self.threat, batch)?;
        let width = batch.features.row_len().max(1);
        let rows = batch.features.as_f32().unwrap_or_default();
        let mut changed = batch.features.clone();
        let each = changed.as_f32_mut().unwrap_or_default().chunks_mut(width).zip(rows.chunks(width));
        for (number, (changed, row)) in (1..).zip(each) {
            begin(&self.threat, self.start, changed, row, &mut Rng::stream(step.seed, number));
        }
        let ball = Ball::from(&self.threat);
        for _ in 0..self.steps {
            let (_, gradient) = step.net.input_gradient(&changed, &slope)?;
            let gradient = gradient.as_f32().unwrap_or_default();
            let each = changed.as_f32_mut().unwrap_or_default().chunks_mut(width);
            for ((changed, row), gradient) in each.zip(rows.chunks(width)).zip(gradient.chunks(width)) {
                ascend(&ball, gradient, self.step_size as f32, changed);
                ball.project(row, changed);
            }
        }
        Ok(changed)
    }

    /// The same for the objective of the training.
    pub(super) fn on_objective(&self, step: &Step<'_>, batch: &Batch) -> Result<Tensor, TrainError> {
        self.maximise(step, batch, |answers| Ok(evaluate(step.objective, answers, batch)?.1))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{Linear, rows, with_step};
    use super::super::threat::{Norm, pixels};
    use super::*;
    use crate::adversarial::projection::distance;

    /// For two classes the loss of a linear network grows along the difference of the weights of the two, so its maximum
    /// in the ball is one step of length epsilon along the signs.
    #[test]
    fn the_maximum_of_a_linear_network_is_a_sign_step() {
        let linear = Linear::new(2);
        let (batch, labels) = rows(6, 2, 2);
        let threat = Threat { norm: Norm::Linf, epsilon: 0.1, bounds: [-9.0, 9.0] };
        for (steps, size) in [(1, 0.1), (5, 0.05)] {
            let inner = Inner { threat, steps, step_size: size, start: Start::Row };
            let got = with_step(linear.net(), 3, |step| inner.on_objective(step, &batch).unwrap());
            for (r, &y) in labels.iter().enumerate() {
                for i in 0..2 {
                    let slope = linear.weight(1 - y, i) - linear.weight(y, i);
                    let want = batch.features.as_f32().unwrap()[r * 2 + i] + 0.1 * slope.signum();
                    let got = got.as_f32().unwrap()[r * 2 + i];
                    assert!((got - want).abs() < 1e-6, "row {r}, feature {i}: {got}, not {want}");
                }
            }
        }
    }

    #[test]
    fn along_the_gradient_in_l2() {
        let linear = Linear::new(2);
        let (batch, labels) = rows(4, 2, 2);
        let threat = Threat { norm: Norm::L2, epsilon: 0.1, bounds: [-9.0, 9.0] };
        let inner = Inner { threat, steps: 3, step_size: 0.1, start: Start::Row };
        let got = with_step(linear.net(), 3, |step| inner.on_objective(step, &batch).unwrap());
        for (r, &y) in labels.iter().enumerate() {
            let slope: Vec<f32> = (0..2).map(|i| linear.weight(1 - y, i) - linear.weight(y, i)).collect();
            let norm = slope.iter().map(|s| s * s).sum::<f32>().sqrt();
            for i in 0..2 {
                let want = batch.features.as_f32().unwrap()[r * 2 + i] + 0.1 * slope[i] / norm;
                assert!((got.as_f32().unwrap()[r * 2 + i] - want).abs() < 1e-6);
            }
        }
    }

    /// Steps that lead far out must come back to the ball, and to the bounds where those are nearer.
    #[test]
    fn changed_rows_stay_in_ball_and_bounds() {
        let linear = Linear::new(3);
        let (mut batch, _) = rows(16, 2, 3);
        batch.features.as_f32_mut().unwrap().iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0));
        for norm in [Norm::Linf, Norm::L2] {
            let threat = Threat { norm, epsilon: 0.3, bounds: [-1.0, 1.0] };
            for start in [Start::Row, Start::Uniform, Start::Gaussian, Start::Ball] {
                let inner = Inner { threat, steps: 4, step_size: 0.25, start };
                let got = with_step(linear.net(), 9, |step| inner.on_objective(step, &batch).unwrap());
                let pairs = got.as_f32().unwrap().chunks(2).zip(batch.features.as_f32().unwrap().chunks(2));
                let mut touched = false;
                for (changed, row) in pairs {
                    let size = distance(norm, changed, row);
                    assert!(size <= 0.3 + 1e-6, "{norm:?}, {start:?}: {size}");
                    assert!(changed.iter().all(|c| (-1.0..=1.0).contains(c)), "{changed:?}");
                    touched |= size > 0.29;
                }
                assert!(touched);
            }
        }
    }

    #[test]
    fn rows_outside_the_bounds_are_refused() {
        let (batch, _) = rows(4, 2, 2);
        let inner = Inner::thorough(Threat { bounds: [0.0, 0.5], ..pixels(0.1) }, 3);
        let error = with_step(Linear::new(2).net(), 0, |step| inner.on_objective(step, &batch).unwrap_err());
        assert!(error.to_string().contains("give `bounds`"), "{error}");
    }

    #[test]
    fn the_seed_decides_the_start() {
        let (batch, _) = rows(4, 2, 2);
        let threat = Threat { bounds: [-9.0, 9.0], ..pixels(0.3) };
        let inner = Inner { threat, steps: 0, step_size: 0.1, start: Start::Uniform };
        let one = |seed| with_step(Linear::new(2).net(), seed, |step| inner.on_objective(step, &batch).unwrap());
        assert_eq!(one(1), one(1));
        assert_ne!(one(1), one(2));
    }
}
