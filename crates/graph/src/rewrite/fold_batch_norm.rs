//! Batch normalisation folded into the layer before it. Jacob et al., CVPR 2018, arXiv:1712.05877, section 3.2.

use netproof_onnx::proto::NodeProto;
use netproof_onnx::tensor_to_proto;
use netproof_tensor::Tensor;

use super::{Edit, float_attribute, int_attribute, is};
use crate::error::GraphError;
use crate::model::Model;

const LAYERS: [&str; 3] = ["Conv", "ConvTranspose", "Gemm"];

impl Model {
    /// The network without the batch normalisations that follow a Conv, ConvTranspose or Gemm, whose weights and biases
    /// take over `y = γ (x - μ) / √(σ² + ε) + β`; and how many were folded.
    ///
    /// Values are the same up to rounding. The layer's output gets the name of what batch normalisation made; the name of
    /// the value between the two is gone. Left alone: layers whose output has another user, weights that are computed,
    /// batch normalisation in training mode.
    /// # Errors
    /// The rewritten network is not sound, which would be a defect of this function.
    pub fn fold_batch_norm(&self) -> Result<(Self, usize), GraphError> {
        let mut edit = Edit::new(self, "fold_batch_norm")?;
        let norms: Vec<String> = edit
            .graph
            .node
            .iter()
            .filter(|n| is(n, &["BatchNormalization"]))
            .filter_map(|n| n.output.first().cloned())
            .collect();
        let folded = norms.iter().filter(|output| edit.fold(output).is_some()).count();
        Ok((edit.finish()?, folded))
    }
}

/// `y = scale · x + shift` per channel.
struct Affine {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Edit<'_> {
    /// Folds the batch normalisation that makes a value; `None`, and nothing changed, where it cannot be folded.
    fn fold(&mut self, output: &str) -> Option<()> {
        let at = self.producer(output)?;
        let norm = self.graph.node.get(at)?.clone();
        let affine = self.affine(&norm)?;
        let between = norm.input.first()?.clone();
        if self.uses(&between) != 1 || self.is_output(&between) {
            return None;
        }
        let layer_at = self.producer(&between)?;
        let layer = self.graph.node.get(layer_at)?.clone();
        if !is(&layer, &LAYERS) || layer.output.len() != 1 {
            return None;
        }
        let weight = layer.input.get(1)?.clone();
        let (new_weight, weight_code) = self.scaled_weight(&layer, &weight, &affine)?;
        let bias = layer.input.get(2).filter(|b| !b.is_empty()).cloned();
        let (new_bias, bias_code) = self.folded_bias(&layer, bias.as_deref(), &affine, weight_code)?;

        let weight = self.store(&weight, &new_weight, weight_code, &layer);
        let bias_name = bias.unwrap_or_else(|| format!("{}.bias", layer_name(&layer)));
        let bias = self.store(&bias_name, &new_bias, bias_code, &layer);
        let node = self.graph.node.get_mut(layer_at)?;
        node.input.resize(3, String::new());
        if let [_, w, b] = &mut node.input[..] {
            (*w, *b) = (weight, bias);
        }
        node.output = vec![output.to_owned()];
        // The new bias has beta in it already.
        node.attribute.retain(|a| a.name() != "beta");
        self.graph.node.remove(at);
        self.forget(&between);
        self.prune(norm.input.get(1..)?);
        self.prune(layer.input.get(1..)?);
        Some(())
    }

    /// What a batch normalisation computes in evaluation.
    fn affine(&self, norm: &NodeProto) -> Option<Affine> {
        let more_outputs = norm.output.iter().skip(1).any(|o| !o.is_empty());
        if more_outputs || int_attribute(norm, "training_mode", 0) != 0 || int_attribute(norm, "spatial", 1) != 1 {
            return None;
        }
        let [_, scale, shift, mean, variance] = &norm.input[..] else { return None };
        let read = |name: &String| Some(self.stored(name)?.0.into_f32()?.into_iter().map(f64::from).collect());
        let (scale, shift, mean, variance): (Vec<f64>, Vec<f64>, Vec<f64>, Vec<f64>) =
            (read(scale)?, read(shift)?, read(mean)?, read(variance)?);
        let epsilon = f64::from(float_attribute(norm, "epsilon", 1e-5));
        let scale: Vec<f64> = scale.iter().zip(&variance).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
        let shift: Vec<f64> = shift.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        let same = scale.len() == shift.len() && scale.len() == variance.len();
        (same && scale.iter().chain(&shift).all(|v| v.is_finite())).then_some(Affine { scale, shift })
    }

    /// The weights with each output channel scaled, and their type in the file.
    fn scaled_weight(&self, layer: &NodeProto, name: &str, affine: &Affine) -> Option<(Tensor, i32)> {
        let (mut tensor, code) = self.stored(name)?;
        let shape = tensor.shape().to_vec();
        // Elements that follow one another in one channel; how many such runs make a whole; the groups of a transposed
        // convolution share the axis of outputs.
        let inner = |from: usize| shape.get(from..).map(|rest| rest.iter().product::<usize>());
        let (run, channels, groups) = match layer.op_type() {
            "Conv" => (inner(1)?, *shape.first()?, 1),
            "ConvTranspose" => {
                let groups = usize::try_from(int_attribute(layer, "group", 1)).ok().filter(|&g| g > 0)?;
                (inner(2)?, *shape.get(1)?, groups)
            }
            _ if int_attribute(layer, "transB", 0) != 0 => (inner(1)?, *shape.first()?, 1),
            _ => (1, *shape.get(1)?, 1),
        };
        let rows_per_group = (shape.first()? / groups).max(1);
        if affine.scale.len() != channels.checked_mul(groups)? || run == 0 || channels == 0 {
            return None;
        }
        for (i, v) in tensor.as_f32_mut()?.iter_mut().enumerate() {
            let group = if groups > 1 { i / (run * channels) / rows_per_group } else { 0 };
            let scale = affine.scale.get(group * channels + (i / run) % channels)?;
            *v = (f64::from(*v) * scale) as f32;
        }
        Some((tensor, code))
    }

    /// One bias per channel: the old one (0 where there is none) put through the batch normalisation.
    fn folded_bias(
        &self,
        layer: &NodeProto,
        name: Option<&str>,
        affine: &Affine,
        weight_code: i32,
    ) -> Option<(Tensor, i32)> {
        let n = affine.scale.len();
        let (old, code) = match name {
            None => (vec![0.0], weight_code),
            Some(name) => {
                let (tensor, code) = self.stored(name)?;
                // Gemm's third input broadcasts to [rows, channels]; one that differs between rows is no bias.
                let per_channel = match tensor.shape() {
                    [] | [1] | [1, 1] => true,
                    [c] | [1, c] => *c == n,
                    _ => false,
                };
                (tensor.into_f32().filter(|_| per_channel)?, code)
            }
        };
        let beta = if is(layer, &["Gemm"]) { f64::from(float_attribute(layer, "beta", 1.0)) } else { 1.0 };
        let channels = affine.scale.iter().zip(&affine.shift).enumerate();
        let new = channels.map(|(i, (scale, shift))| {
            let old = old.get(if old.len() == 1 { 0 } else { i })?;
            Some((f64::from(*old) * beta * scale + shift) as f32)
        });
        Some((Tensor::f32(vec![n], new.collect::<Option<Vec<_>>>()?).ok()?, code))
    }

    /// Stores a tensor under a name where only this layer uses that, else under a new one; gives the name.
    fn store(&mut self, name: &str, tensor: &Tensor, code: i32, layer: &NodeProto) -> String {
        let own = self.uses(name) == layer.input.iter().filter(|i| *i == name).count() && !self.is_output(name);
        let once = layer.input.iter().filter(|i| *i == name).count() == 1;
        if let Some(old) = self.graph.initializer.iter_mut().find(|t| t.name() == name && own && once) {
            // All that the file says of the tensor besides its data stays.
            let fresh = tensor_to_proto(name, tensor, Some(code));
            let kept = std::mem::take(old);
            *old = netproof_onnx::proto::TensorProto {
                doc_string: kept.doc_string,
                metadata_props: kept.metadata_props,
                ..fresh
            };
            return name.to_owned();
        }
        let name = self.fresh_value(name);
        self.graph.initializer.push(tensor_to_proto(&name, tensor, Some(code)));
        name
    }
}

fn layer_name(layer: &NodeProto) -> &str {
    if layer.name().is_empty() { layer.output.first().map_or("layer", String::as_str) } else { layer.name() }
}
