//! How weights follow gradients: one file per optimiser and one line in [`OPTIMISERS`].
//!
//! Definitions are PyTorch's (`torch.optim`, 2.15) where it has them. An optimiser works on one tensor at a time; its
//! state is kept by the trainer and stored in checkpoints. Element by element, so the same bits at any number of threads;
//! a gradient of NaN makes its weight NaN.

mod adam;
mod lamb;
mod rms_prop;
mod sgd;

use netproof_graph::vectorised;
use rayon::prelude::*;

use crate::error::{TrainError, refuse, within};
use crate::method::Entry;

/// One step of one tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Number of the step of this tensor, the first of which is 1.
    pub number: u64,
    /// Learning rate: the base rate times schedule times the rate of the layer.
    pub learning_rate: f64,
    /// Weight decay of the layer, as a multiple of the optimiser's.
    pub weight_decay_scale: f64,
    /// Momentum that the schedule asks for; replaces the momentum of SGD and RMSprop, and β₁ of the Adam family.
    pub momentum: Option<f64>,
}

/// A rule that moves weights against their gradient.
pub trait Optimiser: Send + Sync {
    /// Base learning rate.
    fn learning_rate(&self) -> f64;

    /// How many numbers it keeps for each weight.
    fn slots(&self) -> usize;

    /// Moves a tensor.
    /// # Shapes
    /// all slices are equally long; `state` has [`Optimiser::slots`] of them, which start as zeros
    fn update(&self, step: &Update, weights: &mut [f32], gradient: &[f32], state: &mut [Vec<f32>]);
}

/// Every optimiser of this crate.
pub static OPTIMISERS: &[Entry<dyn Optimiser>] = &[sgd::ENTRY, adam::ADAM, adam::ADAM_W, rms_prop::ENTRY, lamb::ENTRY];

/// Elements of one task.
const BLOCK: usize = 1 << 14;

/// A block of weights, its gradient and its state.
type Block<'a, const N: usize> = (&'a mut [f32], &'a [f32], [&'a mut [f32]; N]);

/// `(w, state) ← f(w, g, state)`, element by element.
fn each<const N: usize>(
    weights: &mut [f32],
    gradient: &[f32],
    state: &mut [Vec<f32>],
    f: impl Fn(f32, f32, [f32; N]) -> (f32, [f32; N]) + Sync,
) {
    let mut slots: Vec<std::slice::ChunksMut<'_, f32>> = state.iter_mut().map(|s| s.chunks_mut(BLOCK)).collect();
    let mut tasks: Vec<Block<'_, N>> = Vec::new();
    for (w, g) in weights.chunks_mut(BLOCK).zip(gradient.chunks(BLOCK)) {
        let mut own = slots.iter_mut();
        let parts = std::array::from_fn(|_| own.next().and_then(Iterator::next).unwrap_or_default());
        tasks.push((w, g, parts));
    }
    let one = |(w, g, parts): &mut Block<'_, N>| {
        vectorised(
            #[inline(always)]
            || {
                // Equal lengths that the compiler can see make the loop vectors.
                let n = w.len();
                let g = &g[..n];
                for part in parts.iter_mut() {
                    *part = &mut std::mem::take(part)[..n];
                }
                for i in 0..n {
                    let mut old = [0.0; N];
                    for k in 0..N {
                        old[k] = parts[k][i];
                    }
                    let (new, all) = f(w[i], g[i], old);
                    w[i] = new;
                    for k in 0..N {
                        parts[k][i] = all[k];
                    }
                }
            },
        );
    };
    if tasks.len() > 3 { tasks.par_iter_mut().for_each(one) } else { tasks.iter_mut().for_each(one) }
}

/// Coefficients are computed in double precision and used in single, as PyTorch does.
fn single<const N: usize>(x: [f64; N]) -> [f32; N] {
    x.map(|x| x as f32)
}

fn check_rate(learning_rate: f64) -> Result<(), TrainError> {
    if learning_rate > 0.0 && learning_rate.is_finite() {
        Ok(())
    } else {
        Err(refuse("learning_rate", learning_rate, "a number over 0"))
    }
}

fn check_fraction(name: &'static str, value: f64) -> Result<(), TrainError> {
    if (0.0..1.0).contains(&value) { Ok(()) } else { Err(refuse(name, value, "0 up to, but not including, 1")) }
}

fn check_decay(weight_decay: f64) -> Result<(), TrainError> {
    within("weight_decay", weight_decay, [0.0, f64::MAX], "0 or more")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::{Method, Registry};

    /// Each form, with PyTorch 2.15's weights after the three steps of `recorded_steps_of_pytorch`.
    fn recorded() -> Vec<(Method, [f64; 5])> {
        let sgd = Method::new("sgd").with("learning_rate", 0.1).with("weight_decay", 0.01).with("momentum", 0.0);
        let adam = Method::new("adam").with("learning_rate", 0.01).with("weight_decay", 0.1);
        let rms = Method::new("rmsprop").with("learning_rate", 0.01);
        vec![
            (sgd.clone(), [0.5135165, -1.0513587, 2.8861041, 2.4723785, 0.8227273]),
            (sgd.clone().with("momentum", 0.9), [0.4996304, -0.9554345, 2.7955334, 3.8981609, 0.8432711]),
            (
                sgd.with("momentum", 0.9).with("nesterov", true),
                [0.5132273, -0.7864667, 2.7023096, 5.9782634, 0.9066334],
            ),
            (adam.clone(), [0.48428, -1.2211434, 2.9699538, 0.0281668, 0.7513846]),
            (Method { kind: "adamw".into(), ..adam }, [0.4904341, -1.2180759, 2.9609973, 0.0281399, 0.7634719]),
            (rms.clone().with("weight_decay", 0.1), [0.4797626, -0.9754038, 2.7651789, 0.2698338, 0.8333731]),
            (
                rms.clone().with("weight_decay", 0.1).with("momentum", 0.9),
                [0.3166185, -0.7217042, 2.5288737, 0.5218552, 0.7461722],
            ),
            (rms.clone().with("centered", true), [0.5321077, -0.966962, 2.7558541, 0.2722251, 0.940849]),
            (rms.with("centered", true).with("momentum", 0.9), [0.4006967, -0.7083657, 2.5148268, 0.525877, 1.0313023]),
        ]
    }

    fn build(method: &Method) -> Box<dyn Optimiser> {
        let registry = Registry::default();
        registry.optimisers.build(method, &registry).unwrap()
    }

    fn update(optimiser: &dyn Optimiser, number: u64) -> Update {
        Update { number, learning_rate: optimiser.learning_rate(), weight_decay_scale: 1.0, momentum: None }
    }

    fn state(optimiser: &dyn Optimiser, n: usize) -> Vec<Vec<f32>> {
        vec![vec![0.0; n]; optimiser.slots()]
    }

    #[test]
    fn recorded_steps_of_pytorch() {
        for (method, want) in recorded() {
            let optimiser = build(&method);
            let mut w = vec![0.5, -1.25, 3.0, -0.001, 0.75];
            let mut state = state(&*optimiser, 5);
            for t in 0..3u16 {
                let g = [0.1, -0.2, 0.3, -4.0, 0.0].map(|g: f32| g * f32::from(t + 1) - 0.25 * f32::from(t));
                optimiser.update(&update(&*optimiser, u64::from(t) + 1), &mut w, &g, &mut state);
            }
            for (got, want) in w.iter().zip(want) {
                assert!((f64::from(*got) - want).abs() < 1e-6 * (1.0 + want.abs()), "{method:?}: {w:?}");
            }
        }
    }

    #[test]
    fn many_blocks_are_as_one_and_nan_stays_where_it_is() {
        let n = 5 * BLOCK + 7;
        let noise = |i: usize, k: usize| ((i * 31 + k * 17) % 101) as f32 / 50.0 - 1.0;
        for (method, _) in recorded() {
            let optimiser = build(&method);
            let start: Vec<f32> = (0..n).map(|i| noise(i, 1)).collect();
            let mut gradient: Vec<f32> = (0..n).map(|i| noise(i, 2)).collect();
            gradient[20] = f32::NAN;
            let (mut w, mut all) = (start.clone(), state(&*optimiser, n));
            for t in 1..3 {
                optimiser.update(&update(&*optimiser, t), &mut w, &gradient, &mut all);
            }
            for i in (0..n).step_by(977).chain([20, n - 1]) {
                let (mut alone, mut own) = (vec![start[i]], state(&*optimiser, 1));
                for t in 1..3 {
                    optimiser.update(&update(&*optimiser, t), &mut alone, &gradient[i..=i], &mut own);
                }
                assert_eq!(alone[0].to_bits(), w[i].to_bits(), "{method:?} {i}");
            }
            assert!((0..n).all(|i| w[i].is_nan() == (i == 20)), "{method:?}");
        }
    }

    #[test]
    fn senseless_options_are_refused() {
        let registry = Registry::default();
        for entry in registry.optimisers.entries() {
            for bad in [-0.1, 0.0, f64::NAN, f64::INFINITY] {
                let method = Method::new(entry.id).with("learning_rate", bad);
                assert!(registry.optimisers.build(&method, &registry).is_err(), "{} {bad}", entry.id);
            }
            let method = Method::new(entry.id).with("learning_rat", 0.1);
            let error = registry.optimisers.build(&method, &registry).err().unwrap().to_string();
            assert!(error.contains("unknown field `learning_rat`"), "{error}");
        }
        let error = registry.optimisers.build(&Method::new("sgdd"), &registry).err().unwrap().to_string();
        assert!(error.starts_with("there is no optimiser `sgdd`; there are sgd, adam"), "{error}");
    }
}
