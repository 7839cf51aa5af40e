//! A network under training: its graph, and its weights apart from it.

use netproof_graph::{Dim, Gradients, Model, Parameters, Request, Run, Wrt};
use netproof_tensor::Tensor;

use crate::error::TrainError;
use crate::weights::Weights;

/// A network whose weights change while its graph stays.
///
/// Weights are given to each run as inputs, so that a step reads and writes plain tensors and nothing else.
pub struct Net {
    model: Model,
    input: String,
    output: String,
    /// The weights as they are.
    pub weights: Weights,
    /// Gradient checkpointing: less memory for more time in training, with the same bits.
    pub checkpoints: bool,
}

impl Net {
    /// Reads what training needs from a network. With `before_softmax` a softmax or sigmoid at the end is left out, since
    /// objectives work on what goes into it.
    /// # Errors
    /// It has not one input, no output, or nothing to train.
    pub fn new(model: Model, before_softmax: bool) -> Result<Self, TrainError> {
        let ([input], Some(output)) = (model.inputs(), model.outputs().first()) else {
            let message = format!("the network has {} inputs, training needs one", model.inputs().len());
            return Err(TrainError::Mismatch { message });
        };
        let (input, mut output) = (input.name.clone(), output.name.clone());
        if before_softmax
            && let Some(last) = model.nodes().find(|n| n.outputs.contains(&output))
            && matches!(last.operator.as_str(), "Softmax" | "Sigmoid")
            && let Some(logits) = last.inputs.first()
        {
            output = logits.clone();
        }
        let weights = Weights::of(&model)?;
        Ok(Self { model, input, output, weights, checkpoints: false })
    }

    /// The graph; its stored weights are those from before the training.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Name of the input.
    pub fn input(&self) -> &str {
        &self.input
    }

    /// Name of the value that objectives work on.
    pub fn output(&self) -> &str {
        &self.output
    }

    /// Shape of a batch of these rows as the network wants it: rows with as many elements in another shape are laid out in
    /// the network's.
    /// # Errors
    /// The numbers of elements differ.
    pub fn row_shape(&self, row: &[usize]) -> Result<Vec<usize>, TrainError> {
        let Some(dims) = self.model.inputs().first().and_then(|p| p.shape.as_ref()) else { return Ok(row.to_vec()) };
        let dims = dims.get(1..).unwrap_or_default();
        let fits = dims.len() == row.len() && dims.iter().zip(row).all(|(d, &n)| *d == Dim::Fixed(n) || !fixed(d));
        if fits {
            return Ok(row.to_vec());
        }
        let own: Option<Vec<usize>> =
            dims.iter().map(|d| if let Dim::Fixed(n) = d { Some(*n) } else { None }).collect();
        match own {
            Some(shape) if shape.iter().product::<usize>() == row.iter().product::<usize>() => Ok(shape),
            _ => {
                let wanted: Vec<String> = dims.iter().map(Dim::to_string).collect();
                let message = format!(
                    "rows of the data have shape {row:?}, the input of the network is [{}]; choose the columns with \
                     `features` or the size of images with `image_size`",
                    wanted.join(", ")
                );
                Err(TrainError::Mismatch { message })
            }
        }
    }

    /// A forward pass with the weights as they are, in training mode with a seed.
    /// # Errors
    /// The rows do not fit the network.
    pub fn forward(&self, features: &Tensor, seed: u64, wrt: Parameters) -> Result<Run<'_>, TrainError> {
        self.run(&self.weights, features, Some(seed), Wrt { values: Vec::new(), parameters: wrt })
    }

    /// The same, able to give the gradient of the rows as well.
    /// # Errors
    /// The rows do not fit the network.
    pub fn forward_with_input(&self, features: &Tensor, seed: u64, wrt: Parameters) -> Result<Run<'_>, TrainError> {
        let wrt = Wrt { values: vec![self.input.clone()], parameters: wrt };
        self.run(&self.weights, features, Some(seed), wrt)
    }

    /// Answers with the weights as they are, in evaluation mode, and the gradient of `Σ answers · seed(answers)` with
    /// respect to the rows; gradients of weights are not computed. A fixed batch size is met by padding.
    /// # Shapes
    /// `features [n, …]` → answers `[n, …]`, gradient `[n, …]` like the features
    /// # Errors
    /// The rows do not fit the network, or the answers do not depend on them.
    pub fn input_gradient(
        &self,
        features: &Tensor,
        seed: impl FnOnce(&Tensor) -> Result<Tensor, TrainError>,
    ) -> Result<(Tensor, Tensor), TrainError> {
        let n = features.rows();
        let padded = match self.model.fixed_batch() {
            Some(fixed) if fixed > n && n > 0 => {
                let rows: Vec<usize> = (0..fixed).map(|r| r.min(n - 1)).collect();
                Some(features.select_rows(&rows)?)
            }
            _ => None,
        };
        let run = self.run(&self.weights, padded.as_ref().unwrap_or(features), None, Wrt::values([&self.input]))?;
        let mut answers = run.output(&self.output)?;
        if padded.is_some() {
            answers = answers.slice_rows(0, n)?;
        }
        let mut seed = seed(&answers)?;
        if let Some(padded) = &padded {
            let mut shape = seed.shape().to_vec();
            shape[0] = padded.rows() - n;
            seed = Tensor::concat_rows(&[seed, Tensor::zeros(shape)?])?;
        }
        let gradient = run.backward(&[(&self.output, &seed)])?.take(&self.input);
        let gradient = match gradient {
            Some(g) if padded.is_some() => g.slice_rows(0, n)?,
            Some(g) => g,
            None => Tensor::zeros(features.shape().to_vec())?,
        };
        Ok((answers, gradient))
    }

    /// Answers with given weights, in evaluation mode. A fixed batch size is met by padding with the last row.
    /// # Errors
    /// The rows do not fit the network.
    pub fn answers(&self, weights: &Weights, features: &Tensor) -> Result<Tensor, TrainError> {
        let n = features.rows();
        match self.model.fixed_batch() {
            Some(fixed) if fixed > n && n > 0 => {
                let rows: Vec<usize> = (0..fixed).map(|r| r.min(n - 1)).collect();
                let run = self.run(weights, &features.select_rows(&rows)?, None, Wrt::default())?;
                Ok(run.output(&self.output)?.slice_rows(0, n)?)
            }
            _ => Ok(self.run(weights, features, None, Wrt::default())?.output(&self.output)?),
        }
    }

    fn run(&self, weights: &Weights, features: &Tensor, seed: Option<u64>, wrt: Wrt) -> Result<Run<'_>, TrainError> {
        let mut inputs = Vec::with_capacity(1 + weights.names().len());
        inputs.push((self.input.clone(), features.clone()));
        inputs.extend(weights.names().iter().cloned().zip(weights.tensors().iter().cloned()));
        let request = Request {
            inputs,
            outputs: vec![self.output.clone()],
            training: seed,
            wrt,
            checkpoints: self.checkpoints,
            ..Request::default()
        };
        Ok(self.model.forward(&request)?)
    }

    /// Gradients in the order of the trainable weights; `None` where nothing flows.
    pub(crate) fn in_order(&self, mut gradients: Gradients) -> Vec<Option<Tensor>> {
        self.weights.names()[..self.weights.trainable()].iter().map(|name| gradients.take(name)).collect()
    }

    /// The network with given weights.
    /// # Errors
    /// The weights are of another network.
    pub fn finish(self, weights: &Weights) -> Result<Model, TrainError> {
        let mut model = self.model;
        weights.write_to(&mut model)?;
        Ok(model)
    }
}

fn fixed(dim: &Dim) -> bool {
    matches!(dim, Dim::Fixed(_))
}
