//! Fewer units per inner layer: whole filters and neurons are taken out, with everything that belongs to them.
//! Li, Kadav, Durdanovic, Samet and Graf, ICLR 2017, arXiv:1608.08710, section 3.1: those with the smallest l1 norm go.
//!
//! A layer is narrowed where each unit of its answer can be followed through element-wise operators, normalisation,
//! pooling, depthwise convolutions and flattening to layers that take it in. Layers whose answer is added to another one,
//! normalised over its units, split into heads or handed out keep their width: the residual streams of residual networks
//! and of transformers stay, what lies inside their blocks gets narrower.

use std::collections::{HashMap, VecDeque};

use netproof_onnx::proto::NodeProto;
use netproof_onnx::tensor_to_proto;
use netproof_tensor::Tensor;

use super::{Edit, int_attribute};
use crate::error::GraphError;
use crate::file_builder::Attribute;
use crate::model::Model;

/// What works on each number alone, or on the places of each channel alone.
const TRANSPARENT: [&str; 22] = [
    "Relu",
    "LeakyRelu",
    "Elu",
    "Selu",
    "Celu",
    "Sigmoid",
    "Tanh",
    "HardSigmoid",
    "HardSwish",
    "Clip",
    "Gelu",
    "Erf",
    "Softplus",
    "Softsign",
    "Identity",
    "Dropout",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Mish",
    "Abs",
];
const ARITHMETIC: [&str; 4] = ["Add", "Mul", "Sub", "Div"];

/// Where the units are in a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Axis 1, one index per unit.
    Channels,
    /// The last axis; so many numbers in a row per unit as divide it.
    Last,
}

/// A tensor that loses what belongs to the units that go.
#[derive(Debug, Clone, PartialEq)]
struct Slice {
    tensor: String,
    axis: usize,
}

/// The units of one layer, and all that belongs to them.
#[derive(Debug)]
struct Group {
    units: usize,
    weight: Slice,
    slices: Vec<Slice>,
    /// Depthwise convolutions, by index: their number of groups changes.
    depthwise: Vec<usize>,
}

impl Model {
    /// The network with only a part of the units of every layer that can be narrowed, at least one each.
    /// # Errors
    /// `keep` is not over 0 and at most 1; no layer can be narrowed.
    pub fn narrowed(&self, keep: f64) -> Result<Self, GraphError> {
        let mut edit = Edit::new(self, "narrowed")?;
        if !(keep > 0.0 && keep <= 1.0) {
            return Err(edit.refuse(format!("`keep` is {keep}, it must be over 0 and at most 1")));
        }
        let groups: Vec<Group> = (0..edit.graph.node.len()).filter_map(|at| edit.group(at)).collect();
        if groups.is_empty() {
            let message = "no layer can be narrowed: each answer is added to another one, handed out, or used in a way \
                           that cannot be followed";
            return Err(edit.refuse(message.to_owned()));
        }
        for group in groups {
            edit.narrow(&group, keep)?;
        }
        edit.graph.value_info.clear();
        edit.finish()
    }
}

impl Edit<'_> {
    fn initializer(&self, name: Option<&String>) -> Option<Tensor> {
        let name = name.filter(|n| !n.is_empty())?;
        self.graph.initializer.iter().find(|t| t.name() == name)?;
        self.stored(name).map(|(t, _)| t).filter(|t| t.dtype().is_float())
    }

    /// The units of the layer at a place, where all their uses can be followed.
    fn group(&self, at: usize) -> Option<Group> {
        let node = self.graph.node.get(at)?;
        let weight = self.initializer(node.input.get(1))?;
        let (axis, place) = match node.op_type() {
            "Conv" if weight.rank() > 2 && int_attribute(node, "group", 1) == 1 => (0, Place::Channels),
            "Gemm" if weight.rank() == 2 => (usize::from(int_attribute(node, "transB", 0) == 0), Place::Last),
            "MatMul" if weight.rank() == 2 => (1, Place::Last),
            _ => return None,
        };
        let units = weight.shape()[axis];
        let own = Slice { tensor: node.input[1].clone(), axis };
        let mut group = Group { units, weight: own.clone(), slices: vec![own], depthwise: Vec::new() };
        if let Some(bias) = node.input.get(2).filter(|b| !b.is_empty()) {
            let tensor = self.initializer(Some(bias))?;
            match tensor.shape().last() {
                Some(&n) if n == units => {
                    group.slices.push(Slice { tensor: bias.clone(), axis: tensor.rank() - 1 });
                }
                Some(1) | None => {}
                Some(_) => return None,
            }
        }
        let mut carried: HashMap<&str, Place> = HashMap::from([(node.output.first()?.as_str(), place)]);
        let mut waiting: VecDeque<&str> = carried.keys().copied().collect();
        let mut joins: Vec<&NodeProto> = Vec::new();
        while let Some(value) = waiting.pop_front() {
            if self.is_output(value) {
                return None;
            }
            let place = carried[value];
            for (i, user) in self.graph.node.iter().enumerate().filter(|(_, n)| n.input.iter().any(|x| x == value)) {
                let next = self.follow(i, user, value, place, &mut group)?;
                if ARITHMETIC.contains(&user.op_type()) {
                    joins.push(user);
                }
                if let (Some(place), Some(output)) = (next, user.output.first())
                    && carried.insert(output, place).is_none()
                {
                    waiting.push_back(output);
                }
            }
        }
        // Where two values are joined, both must be of these units, or one of them a constant.
        let known = |x: &String| carried.contains_key(x.as_str()) || self.stored(x).is_some();
        if !joins.iter().all(|n| n.input.iter().all(known)) {
            return None;
        }
        let used_once = |s: &Slice| self.uses(&s.tensor) == 1 && !self.is_output(&s.tensor);
        group.slices.iter().all(used_once).then_some(group)
    }

    /// What a user makes of a value: where the units are then, `Some(None)` where they end in it, `None` where they cannot
    /// be followed.
    fn follow(
        &self,
        at: usize,
        user: &NodeProto,
        value: &str,
        place: Place,
        group: &mut Group,
    ) -> Option<Option<Place>> {
        let first = user.input.first().is_some_and(|x| x == value);
        let others = user.input.iter().skip(1).any(|x| x == value);
        let weight = || self.initializer(user.input.get(1));
        match user.op_type() {
            operator if TRANSPARENT.contains(&operator) && first => Some(Some(place)),
            operator if ARITHMETIC.contains(&operator) => self.join(user, value, place, group).then_some(Some(place)),
            "BatchNormalization" if first && !others => {
                for input in user.input.iter().skip(1).take(4) {
                    self.initializer(Some(input)).filter(|t| t.shape() == [group.units])?;
                    group.slices.push(Slice { tensor: input.clone(), axis: 0 });
                }
                Some(Some(place))
            }
            "Conv" if first && !others && place == Place::Channels => {
                let (weight, groups) = (weight()?, int_attribute(user, "group", 1));
                if groups == 1 && weight.shape()[1] == group.units {
                    group.slices.push(Slice { tensor: user.input[1].clone(), axis: 1 });
                    return Some(None);
                }
                if groups != group.units as i64 || weight.shape()[0] != group.units {
                    return None;
                }
                for input in user.input.iter().skip(1).filter(|i| !i.is_empty()) {
                    self.initializer(Some(input))?;
                    group.slices.push(Slice { tensor: input.clone(), axis: 0 });
                }
                group.depthwise.push(at);
                Some(Some(place))
            }
            "Gemm" if first && !others && place == Place::Last && int_attribute(user, "transA", 0) == 0 => {
                let (weight, axis) = (weight()?, usize::from(int_attribute(user, "transB", 0) == 1));
                self.take_in(user, &weight, axis, group)
            }
            "MatMul" if first && !others && place == Place::Last => {
                let weight = weight().filter(|w| w.rank() == 2)?;
                self.take_in(user, &weight, 0, group)
            }
            "Flatten" if int_attribute(user, "axis", 1) == 1 => Some(Some(Place::Last)),
            "Reshape" if first => {
                let (shape, _) = self.stored(user.input.get(1)?)?;
                matches!(shape.as_i64()?, [_, -1]).then_some(Some(Place::Last))
            }
            "ReduceMean" if first && place == Place::Channels => {
                let attribute = user.attribute.iter().find(|a| a.name() == "axes").map(|a| a.ints.clone());
                let axes = attribute.or_else(|| Some(self.stored(user.input.get(1)?)?.0.as_i64()?.to_vec()))?;
                let places = axes.iter().all(|a| matches!(a, 2 | 3 | -1 | -2)) && axes.len() == 2;
                let kept = int_attribute(user, "keepdims", 1) == 1;
                places.then_some(Some(if kept { Place::Channels } else { Place::Last }))
            }
            _ => None,
        }
    }

    fn take_in(&self, user: &NodeProto, weight: &Tensor, axis: usize, group: &mut Group) -> Option<Option<Place>> {
        if !weight.shape()[axis].is_multiple_of(group.units) {
            return None;
        }
        group.slices.push(Slice { tensor: user.input[1].clone(), axis });
        Some(None)
    }

    /// Arithmetic with a constant: one number for all, or one per unit.
    fn join(&self, user: &NodeProto, value: &str, place: Place, group: &mut Group) -> bool {
        for other in user.input.iter().filter(|x| *x != value) {
            let Some((constant, _)) = self.stored(other) else { continue };
            if constant.len() == 1 {
                continue;
            }
            let rank = constant.rank();
            // Channels are the last axis but two of what is broadcast to images.
            let axis = match place {
                Place::Last => rank.checked_sub(1),
                Place::Channels => rank.checked_sub(3),
            };
            let fits = axis.filter(|&a| constant.shape()[a] == group.units && constant.len() == group.units);
            let Some(axis) = fits.filter(|_| self.initializer(Some(other)).is_some()) else { return false };
            let slice = Slice { tensor: other.clone(), axis };
            if !group.slices.contains(&slice) {
                group.slices.push(slice);
            }
        }
        true
    }

    fn narrow(&mut self, group: &Group, keep: f64) -> Result<(), GraphError> {
        let count = ((group.units as f64 * keep).round() as usize).clamp(1, group.units);
        let Some(weight) = self.initializer(Some(&group.weight.tensor)) else { return Ok(()) };
        let mut norms = vec![0.0f64; group.units];
        let inner: usize = weight.shape()[group.weight.axis + 1..].iter().product();
        for (i, v) in weight.as_f32().unwrap_or_default().iter().enumerate() {
            norms[i / inner % group.units] += f64::from(v.abs());
        }
        let mut order: Vec<usize> = (0..group.units).collect();
        order.sort_by(|&a, &b| norms[b].total_cmp(&norms[a]).then(a.cmp(&b)));
        let mut kept = order[..count].to_vec();
        kept.sort_unstable();
        for slice in &group.slices {
            let Some((tensor, code)) = self.stored(&slice.tensor) else { continue };
            let cut = select(&tensor, slice.axis, &kept, group.units)?;
            if let Some(own) = self.graph.initializer.iter_mut().find(|t| t.name() == slice.tensor) {
                *own = tensor_to_proto(&slice.tensor, &cut, Some(code));
            }
            // Files of old versions declare the shape of a tensor among the inputs too.
            if let Some(at) = self.graph.input.iter().position(|i| i.name() == slice.tensor) {
                let dims: Vec<_> = cut.shape().iter().map(|&n| crate::model::Dim::Fixed(n)).collect();
                self.graph.input[at] = super::value_info(&slice.tensor, cut.dtype(), &dims);
            }
        }
        for &at in &group.depthwise {
            if let Some(node) = self.graph.node.get_mut(at) {
                node.attribute.retain(|a| a.name() != "group");
                node.attribute.push(Attribute::Int(count as i64).to_proto("group"));
            }
        }
        Ok(())
    }
}

/// What belongs to the kept units, along an axis that holds as many numbers for each.
fn select(tensor: &Tensor, axis: usize, kept: &[usize], units: usize) -> Result<Tensor, GraphError> {
    let mut shape = tensor.shape().to_vec();
    let (outer, size) = (shape[..axis].iter().product::<usize>(), shape[axis]);
    let inner = shape[axis + 1..].iter().product::<usize>();
    let block = size / units * inner;
    let values = tensor.as_f32().unwrap_or_default();
    let mut cut = Vec::with_capacity(outer * kept.len() * block);
    for o in 0..outer {
        for &unit in kept {
            let from = o * size * inner + unit * block;
            cut.extend_from_slice(&values[from..from + block]);
        }
    }
    shape[axis] = size / units * kept.len();
    Ok(Tensor::f32(shape, cut)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builders::{Activation, CnnOptions, Shortcut, VitOptions, cnn, mlp, mobilenet_v2, resnet_cifar, vit};

    fn rows(shape: Vec<usize>) -> Tensor {
        let n = shape.iter().product::<usize>();
        Tensor::f32(shape, (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect()).unwrap()
    }

    fn size(m: &Model) -> usize {
        m.parameters().map(|p| p.shape.iter().product::<usize>()).sum()
    }

    /// Units that do nothing are the first to go, and then no answer changes.
    #[test]
    fn without_silent_units_the_answers_are_the_same() {
        let silence = |mut m: Model, layers: &[(&str, usize)]| {
            for (name, inner) in layers {
                for part in ["weight", "bias"] {
                    let full = format!("{name}.{part}");
                    let t = m.parameter(&full).unwrap().clone();
                    let step = if part == "bias" { 1 } else { *inner };
                    let values = t.as_f32().unwrap().iter().enumerate();
                    let values = values.map(|(i, v)| if (i / step).is_multiple_of(2) { 0.0 } else { *v }).collect();
                    m.set_parameter(&full, Tensor::f32(t.shape().to_vec(), values).unwrap()).unwrap();
                }
            }
            m
        };
        let net =
            cnn(&CnnOptions { channels: vec![4, 6], hidden: 8, seed: 3, ..CnnOptions::new([1, 8, 8], 3) }).unwrap();
        let names: Vec<(String, usize)> = net
            .parameters()
            .filter(|p| p.name.ends_with(".weight"))
            .map(|p| (p.name.trim_end_matches(".weight").to_owned(), p.shape[1..].iter().product()))
            .collect();
        let inner: Vec<(&str, usize)> = names[..names.len() - 1].iter().map(|(n, i)| (n.as_str(), *i)).collect();
        let net = silence(net, &inner);
        let x = rows(vec![3, 1, 8, 8]);
        let half = net.narrowed(0.5).unwrap();
        assert!(size(&half) < size(&net) / 2, "{} {}", size(&half), size(&net));
        let (a, b) = (net.predict(&x).unwrap(), half.predict(&x).unwrap());
        for (a, b) in a.as_f32().unwrap().iter().zip(b.as_f32().unwrap()) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
        // The units that go are those with small weights, not others.
        let quarter = net.narrowed(0.25).unwrap().predict(&x).unwrap();
        assert!(a.as_f32().unwrap().iter().zip(quarter.as_f32().unwrap()).any(|(a, b)| (a - b).abs() > 1e-3));
    }

    #[test]
    fn every_architecture_gets_narrower_and_still_answers() {
        let image = [3, 16, 16];
        let vit_options = VitOptions { image, patch: 4, classes: 5, width: 16, depth: 2, heads: 2, mlp: 32, seed: 1 };
        let nets = [
            mlp(&[3, 16, 16], &[20, 10], 5, Activation::Gelu, 1).unwrap(),
            resnet_cifar(8, Shortcut::Projection, image, 5, 1).unwrap(),
            mobilenet_v2([3, 32, 32], 5, 0.25, 1).unwrap(),
            vit(&vit_options).unwrap(),
        ];
        for net in &nets {
            let shape = net.batch_shapes(2)[0].1.clone();
            let half = net.narrowed(0.5).unwrap();
            assert!(size(&half) < size(net), "{net:?}");
            let y = half.predict(&rows(shape)).unwrap();
            assert!(y.shape() == [2, 5] && y.as_f32().unwrap().iter().all(|v| v.is_finite()));
            assert_eq!((half.inputs(), half.outputs()), (net.inputs(), net.outputs()));
            assert_eq!(size(&net.narrowed(1.0).unwrap()), size(net));
        }
    }

    #[test]
    fn what_cannot_be_narrowed_is_refused() {
        let linear = mlp(&[4], &[], 3, Activation::Relu, 1).unwrap();
        assert!(linear.narrowed(0.5).unwrap_err().to_string().contains("no layer can be narrowed"));
        let net = mlp(&[4], &[5], 3, Activation::Relu, 1).unwrap();
        for keep in [0.0, 1.5, f64::NAN] {
            assert!(net.narrowed(keep).unwrap_err().to_string().contains("`keep`"));
        }
        assert_eq!(net.narrowed(1e-9).unwrap().parameter("layers.0.bias").unwrap().len(), 1);
    }
}
