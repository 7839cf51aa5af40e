//! How a batch becomes a gradient: one file per rule and one line in [`RULES`].
//!
//! The loop knows only [`GradientRule`]; adversarial training (other rows), private training (clipped rows and noise),
//! worst-group training (other row weights) and the like are implementations.

mod mean;
mod sam;

use netproof_graph::{Parameters, Run};
use netproof_tensor::Tensor;
use serde_json::Value;

use crate::batch::Batch;
use crate::error::TrainError;
use crate::method::Entry;
use crate::net::Net;
use crate::objective::{Objective, Sums, evaluate};
use crate::weights::{combine, scale};

/// What a rule works with: the network, the objective, and where in the training it is.
pub struct Step<'a> {
    /// The network. A rule that changes its weights puts them back.
    pub net: &'a mut Net,
    /// What is minimised.
    pub objective: &'a dyn Objective,
    /// Number of the batch in the training, from 0.
    pub number: u64,
    /// Seed of this batch alone: of dropout, and of whatever a rule draws.
    pub seed: u64,
    /// Names of the weights that are not frozen.
    pub active: &'a [String],
}

/// The gradient of one or more batches.
#[derive(Debug, Clone, Default)]
pub struct Gradient {
    /// In the order of the trainable weights: gradient of the *sum* of losses until [`GradientRule::finish`] makes the mean
    /// of it; `None` where it is zero or frozen.
    pub tensors: Vec<Option<Tensor>>,
    /// Losses and right answers.
    pub sums: Sums,
    /// New running statistics of batch normalisation, by name.
    pub statistics: Vec<(String, Tensor)>,
}

impl Gradient {
    /// Adds another batch.
    pub fn add(&mut self, other: Self) {
        self.sums.add(&other.sums);
        self.statistics = other.statistics;
        if self.tensors.is_empty() {
            self.tensors = other.tensors;
            return;
        }
        for (own, more) in self.tensors.iter_mut().zip(other.tensors) {
            match (own.as_mut(), more) {
                (Some(own), Some(more)) => {
                    combine(own.as_f32_mut().unwrap_or_default(), more.as_f32().unwrap_or_default(), |a, b| a + b);
                }
                (None, more) => *own = more,
                (_, None) => {}
            }
        }
    }

    /// From the sum to the mean.
    pub fn divide(&mut self) {
        // Rows that count nothing have no mean, and move nothing.
        let factor = if self.sums.weight > 0.0 { (1.0 / self.sums.weight) as f32 } else { 0.0 };
        for tensor in self.tensors.iter_mut().flatten() {
            scale(tensor.as_f32_mut().unwrap_or_default(), factor);
        }
    }
}

impl Step<'_> {
    /// The gradient of the sum of the losses of a batch, with the weights as they are.
    /// # Errors
    /// The batch does not fit the network.
    pub fn gradient(&self, batch: &Batch) -> Result<Gradient, TrainError> {
        let run = self.forward(&batch.features, self.seed)?;
        let outputs = run.output(self.net.output())?;
        let (sums, seed) = evaluate(self.objective, &outputs, batch)?;
        Ok(Gradient { tensors: self.backward(&run, &seed)?, sums, statistics: run.updates()? })
    }

    /// A forward pass in training mode with the weights as they are, for [`Step::backward`].
    /// # Errors
    /// The rows do not fit the network.
    pub fn forward(&self, features: &Tensor, seed: u64) -> Result<Run<'_>, TrainError> {
        self.net.forward(features, seed, Parameters::Named(self.active.to_vec()))
    }

    /// The same, for [`Step::backward_with_input`].
    /// # Errors
    /// The rows do not fit the network.
    pub fn forward_with_input(&self, features: &Tensor, seed: u64) -> Result<Run<'_>, TrainError> {
        self.net.forward_with_input(features, seed, Parameters::Named(self.active.to_vec()))
    }

    /// The gradient of `Σ answers · seed` in the order of the trainable weights; `None` where it is zero or frozen.
    /// # Errors
    /// The seed has not the shape of the answers.
    pub fn backward(&self, run: &Run<'_>, seed: &Tensor) -> Result<Vec<Option<Tensor>>, TrainError> {
        Ok(self.net.in_order(run.backward(&[(self.net.output(), seed)])?))
    }

    /// The same, and the gradient with respect to the rows.
    /// # Errors
    /// The seed has not the shape of the answers.
    pub fn backward_with_input(
        &self,
        run: &Run<'_>,
        seed: &Tensor,
    ) -> Result<(Vec<Option<Tensor>>, Option<Tensor>), TrainError> {
        let mut gradients = run.backward(&[(self.net.output(), seed)])?;
        let input = gradients.take(self.net.input());
        Ok((self.net.in_order(gradients), input))
    }
}

/// Makes a gradient of batches.
pub trait GradientRule: Send {
    /// The gradient of the sum of the losses of one batch.
    /// # Errors
    /// The batch does not fit the network.
    fn gradient(&mut self, step: &mut Step<'_>, batch: &Batch) -> Result<Gradient, TrainError>;

    /// Makes the gradient of a step from the sum over its batches. The mean, unless a rule adds to it.
    /// # Errors
    /// What the rule says.
    fn finish(&mut self, _step: &mut Step<'_>, total: &mut Gradient) -> Result<(), TrainError> {
        total.divide();
        Ok(())
    }

    /// How often each batch is taken in turn, a step each time. The rows are augmented once.
    fn repeats(&self) -> u64 {
        1
    }

    /// The rows of a batch where the rule finds them hardest, near where they are: what `monitor = "robust-accuracy"`
    /// measures on. `None` for rules that know no such rows.
    /// # Errors
    /// The batch does not fit the network.
    fn hardest(&self, _step: &mut Step<'_>, _batch: &Batch) -> Result<Option<Tensor>, TrainError> {
        Ok(None)
    }

    /// Sees the end of an epoch, before its weights are judged. A reason ends the training, and the weights of this epoch
    /// are not taken. `first` reads the first batch of the epoch again, without augmentation.
    /// # Errors
    /// What the rule says.
    fn end_epoch(
        &mut self,
        _step: &mut Step<'_>,
        _first: &dyn Fn() -> Result<Batch, TrainError>,
    ) -> Result<Option<String>, TrainError> {
        Ok(None)
    }

    /// Whether the weights of the epoch that has just ended may be given back.
    fn counts(&self) -> bool {
        true
    }

    /// What it remembers, for a checkpoint.
    fn state(&self) -> Value {
        Value::Null
    }

    /// Takes up a state of [`GradientRule::state`].
    /// # Errors
    /// It is none.
    fn restore(&mut self, _state: &Value) -> Result<(), String> {
        Ok(())
    }
}

/// Every gradient rule of this crate.
pub static RULES: &[Entry<dyn GradientRule>] = &[mean::ENTRY, sam::ENTRY];
