//! Temperature inside the network. Guo et al., ICML 2017, arXiv:1706.04599, section 4.2.

use netproof_onnx::proto::NodeProto;
use netproof_onnx::tensor_to_proto;
use netproof_tensor::{Elements, Tensor};

use super::{Edit, int_attribute, is};
use crate::error::GraphError;
use crate::file_builder::NewNode;
use crate::model::Model;

/// What turns logits into probabilities.
const LINKS: [&str; 3] = ["Softmax", "LogSoftmax", "Sigmoid"];
/// What may stand between them and the output, since it changes no class's rank.
const TRANSPARENT: [&str; 10] =
    ["Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Dropout", "Log", "Clip"];
/// By this name of the node, a second scaling finds the first.
const NODE: &str = "netproof.temperature";

impl Model {
    /// The network whose logits are divided by a temperature. The output keeps its name.
    ///
    /// Logits are the first output, or what a Softmax, LogSoftmax or Sigmoid at its end takes. A softmax that is written
    /// out in single operators is not recognised. Applied twice, the temperatures multiply.
    /// # Edge cases
    /// Where the logits have other users: every Softmax, LogSoftmax and Sigmoid and every output of the network that takes
    /// them gets the scaled ones, so that scores and probabilities still agree; all else sees what it saw.
    /// # Errors
    /// The temperature is not finite and above 0; the first output holds no floats or is an input; its softmax is over the
    /// batch.
    pub fn scale_logits(&self, temperature: f32) -> Result<Self, GraphError> {
        let mut edit = Edit::new(self, "scale_logits")?;
        edit.need_broadcasting()?;
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(edit.refuse(format!("`temperature` is {temperature}, it must be finite and above 0")));
        }
        let Some(output) = self.outputs().first() else {
            return Err(edit.refuse("the network has no output".into()));
        };
        if !edit.dtype(&output.name).unwrap_or(output.dtype).is_float() {
            let message = format!("the first output, `{}`, holds {} values, not scores", output.name, output.dtype);
            return Err(edit.refuse(message));
        }
        let logits = edit.logits(&output.name)?;
        edit.need_producer(&logits)?;
        if edit.rescale(&logits, temperature)? {
            return edit.finish();
        }
        let dtype = edit.float_dtype(&logits)?;
        if !usable(dtype.round(temperature)) {
            return Err(edit.refuse(format!("`temperature` is {temperature}, which {dtype} cannot hold")));
        }
        let by = edit.constant(&format!("{logits}/temperature"), dtype, Vec::new(), vec![temperature])?;
        let divide = NewNode::new("Div", &[&logits, &by], &[&format!("{logits}/scaled")]).named(NODE);
        edit.splice(&logits, divide, |user| is(user, &LINKS))?;
        edit.finish()
    }
}

fn usable(temperature: f32) -> bool {
    temperature.is_finite() && temperature > 0.0
}

impl Edit<'_> {
    /// The value that holds the logits of an output.
    fn logits(&self, output: &str) -> Result<String, GraphError> {
        let mut value = output;
        // A sound graph has no cycles, so the walk ends.
        while let Some(node) = self.producer(value).and_then(|i| self.graph.node.get(i)) {
            let Some(input) = node.input.first() else { break };
            if is(node, &LINKS) {
                if self.over_the_batch(node) {
                    let message = format!("the {} at the end is over the batch, not over classes", node.op_type());
                    return Err(self.refuse(message));
                }
                return Ok(input.clone());
            }
            if !is(node, &TRANSPARENT) {
                break;
            }
            value = input;
        }
        Ok(output.to_owned())
    }

    fn over_the_batch(&self, node: &NodeProto) -> bool {
        if is(node, &["Sigmoid"]) {
            return false;
        }
        let axis = int_attribute(node, "axis", if self.opset() < 13 { 1 } else { -1 });
        let output = self.model.outputs().first().and_then(|o| o.shape.as_ref());
        axis == 0 || (axis < -1 && output.is_some_and(|s| axis == -(s.len() as i64)))
    }

    /// Changes the temperature of a scaling that is there already; says whether there is one.
    fn rescale(&mut self, logits: &str, temperature: f32) -> Result<bool, GraphError> {
        let Some(scaling) = self.producer(logits).and_then(|i| self.graph.node.get(i)) else { return Ok(false) };
        if !(is(scaling, &["Div"]) && scaling.name().starts_with(NODE)) {
            return Ok(false);
        }
        let Some(by) = scaling.input.get(1).cloned().filter(|by| self.uses(by) == 1) else { return Ok(false) };
        let Some((tensor, code)) = self.stored(&by) else { return Ok(false) };
        let Some(&[old]) = tensor.as_f32() else { return Ok(false) };
        let new = old * temperature;
        if !usable(tensor.dtype().round(new)) {
            let message =
                format!("`temperature` is {temperature}, on top of {old}; {} cannot hold that", tensor.dtype());
            return Err(self.refuse(message));
        }
        let tensor = Tensor::new(tensor.dtype(), Vec::new(), Elements::Float(vec![new]))?;
        let Some(node) = self.producer(&by).and_then(|i| self.graph.node.get_mut(i)) else { return Ok(false) };
        let value = node.attribute.iter_mut().find(|a| a.name() == "value").and_then(|a| a.t.as_mut());
        let Some(value) = value else { return Ok(false) };
        **value = tensor_to_proto(value.name(), &tensor, Some(code));
        Ok(true)
    }
}
