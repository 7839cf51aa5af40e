//! Averages of weights over the training: one file per average and one line in [`AVERAGING`].
//!
//! Where there is an average, it is what is validated, kept as the best and given back.

mod exponential;
mod off;
mod stochastic;

use netproof_tensor::Tensor;

use crate::method::Entry;
use crate::weights::Weights;

/// An average of weights.
pub trait Averaging: Send {
    /// Sees the weights after a step, the first of which is 1.
    fn after_step(&mut self, _step: u64, _weights: &Weights) {}

    /// Sees the weights after an epoch, the first of which is 1.
    fn after_epoch(&mut self, _epoch: u64, _weights: &Weights) {}

    /// The average, in the order of the weights; `None` while there is none.
    fn average(&self) -> Option<&[Tensor]> {
        None
    }

    /// Whether running statistics of batch normalisation do not belong to the average and must be measured again.
    fn needs_statistics(&self) -> bool {
        false
    }

    /// How many weights it has seen, for a checkpoint; the average is stored beside it.
    fn count(&self) -> u64 {
        0
    }

    /// Takes up an average and its count.
    fn restore(&mut self, _count: u64, _average: Option<Vec<Tensor>>) {}
}

/// Every average of this crate.
pub static AVERAGING: &[Entry<dyn Averaging>] = &[off::ENTRY, exponential::ENTRY, stochastic::ENTRY];

#[cfg(test)]
mod tests {
    use crate::method::{Method, Registry};
    use crate::test_support::linear_net;

    /// Values of the first weight over the averages of weights 1, 2, 3, …, each taken up again from what was stored.
    fn follow(method: &Method, epochs: bool, n: u16) -> Vec<Option<f32>> {
        let registry = Registry::default();
        let mut own = registry.averaging.build(method, &registry).unwrap();
        let mut weights = linear_net().weights;
        let mut seen = Vec::new();
        for t in 1..=n {
            weights.values_mut(0)[0] = f32::from(t);
            let mut again = registry.averaging.build(method, &registry).unwrap();
            again.restore(own.count(), own.average().map(<[_]>::to_vec));
            own = again;
            if epochs {
                own.after_epoch(u64::from(t), &weights);
            } else {
                own.after_step(u64::from(t), &weights);
            }
            seen.push(own.average().map(|a| a[0].as_f32().unwrap()[0]));
        }
        seen
    }

    #[test]
    fn exponential_averages_have_their_closed_form() {
        let plain = Method::new("ema").with("decay", 0.75).with("warm_up", false);
        let want = [1.0, 1.25, 1.25 * 0.75 + 0.75].map(Some);
        assert_eq!(follow(&plain, false, 3), want);
        // With warm-up the decay of the second step is 2/11.
        let warm = follow(&Method::new("ema"), false, 2)[1].unwrap();
        assert!((warm - (1.0 * 2.0 / 11.0 + 2.0 * 9.0 / 11.0)).abs() < 1e-6, "{warm}");
    }

    #[test]
    fn stochastic_averages_are_means_from_their_start() {
        let method = Method::new("swa").with("start_epoch", 2);
        assert_eq!(follow(&method, true, 5), [None, Some(2.0), Some(2.5), Some(3.0), Some(3.5)]);
        assert_eq!(follow(&Method::new("off"), true, 2), [None, None]);
    }
}
