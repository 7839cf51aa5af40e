//! Normalisation as part of the network.

use super::Edit;
use crate::error::GraphError;
use crate::file_builder::NewNode;
use crate::model::{Dim, Model};

impl Model {
    /// The network that takes raw inputs and computes `(x - mean) / std` per channel itself, with what is stored as
    /// constants that training does not change. Where there are several inputs, the first is meant.
    /// # Shapes
    /// mean, std: one per channel, or one for all. Channels are axis 1; the last axis where the input has fewer than three.
    /// # Edge cases
    /// Where the input is handed out as an output too, that stays raw. Applied twice, the second comes first.
    /// # Errors
    /// The lengths do not fit, a number is not finite, a deviation is not above 0, or the input is not of floats.
    pub fn prepend_normalization(&self, mean: &[f32], std: &[f32]) -> Result<Self, GraphError> {
        let mut edit = Edit::new(self, "prepend_normalization")?;
        edit.need_broadcasting()?;
        let Some(input) = self.inputs().first() else { return Err(edit.refuse("the network has no input".into())) };
        let Some(dims) = input.shape.as_ref().filter(|s| !s.is_empty()) else {
            return Err(edit.refuse(format!("input `{}` declares no shape, so its channels are unknown", input.name)));
        };
        let axis = if dims.len() > 2 { 1 } else { dims.len() - 1 };
        let n = mean.len();
        let fits = match dims.get(axis) {
            Some(Dim::Fixed(channels)) => n == *channels || n == 1,
            _ => n > 0,
        };
        if n != std.len() || !fits {
            let channels = match dims.get(axis) {
                Some(Dim::Fixed(c)) => format!("{c} channels"),
                _ => "an open number of channels".to_owned(),
            };
            let message =
                format!("{n} means and {} deviations for {channels}; give one per channel or one for all", std.len());
            return Err(edit.refuse(message));
        }
        if let Some(bad) = mean.iter().find(|m| !m.is_finite()) {
            return Err(edit.refuse(format!("a mean is {bad}, it must be finite")));
        }
        if let Some(bad) = std.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return Err(edit.refuse(format!("a deviation is {bad}, it must be finite and above 0")));
        }
        if !input.dtype.is_float() {
            let message = format!("input `{}` holds {} values, floats are needed", input.name, input.dtype);
            return Err(edit.refuse(message));
        }
        if let Some(bad) = std.iter().find(|s| input.dtype.round(**s) == 0.0) {
            return Err(edit.refuse(format!("a deviation is {bad}, which is 0 in the input's {}", input.dtype)));
        }
        let mut shape = vec![1; dims.len()];
        if let Some(size) = shape.get_mut(axis) {
            *size = n;
        }
        let name = &input.name;
        // The users move to the second node first, so that only the nodes put in between take the raw input.
        let std = edit.constant(&format!("{name}/std"), input.dtype, shape.clone(), std.to_vec())?;
        let scale = NewNode::new("Div", &[name, &std], &[&format!("{name}/normalized")]);
        edit.splice(name, scale, |_| true)?;
        let mean = edit.constant(&format!("{name}/mean"), input.dtype, shape, mean.to_vec())?;
        edit.splice(name, NewNode::new("Sub", &[name, &mean], &[&format!("{name}/centred")]), |_| true)?;
        edit.finish()
    }
}
