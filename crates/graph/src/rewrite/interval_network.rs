//! A network beside its own interval bounds, as one network: what certified training descends on.
//!
//! Gowal et al. 2019, arXiv:1810.12715, section 3: low and high ends of every value; a weight moves centres, its absolute
//! value radii. The weights are those of the network, so that a gradient of the bounds is a gradient of the network's own
//! parameters, and training the result trains the network. The last linear layer is joined with the margins.

use std::collections::HashMap;

use netproof_onnx::proto::{AttributeProto, NodeProto};
use netproof_onnx::topological_order;
use netproof_tensor::{DType, Tensor};

use super::Edit;
use crate::error::GraphError;
use crate::file_builder::{Attribute, NewNode, value_info};
use crate::model::{Dim, Model};

/// First operator set whose `Gemm` needs no third input.
const OPSET: i64 = 11;

/// A network with its interval bounds; see [`Model::interval_network`].
#[derive(Debug)]
pub struct IntervalNetwork {
    /// The network. Its inputs are those of the old one and the three below, its outputs those of the old one and
    /// `margins`.
    pub model: Model,
    /// Name of the input with the lower ends of the box `[n, ...]`.
    pub low: String,
    /// Name of the input with the upper ends.
    pub high: String,
    /// Name of the input with linear functions of the output `[n, functions, classes]`.
    pub functions: String,
    /// Name of the output with the lower bounds of the functions `[n, functions]`.
    pub margins: String,
}

impl IntervalNetwork {
    /// The functions `z_y − z_j` for all classes j, for rows of these labels. The negative of their bounds are the logits
    /// of the worst case, whose cross-entropy with the label is the loss of certified training.
    /// # Shapes
    /// labels `[n]` → `[n, classes, classes]`
    /// # Errors
    /// A label is not below the number of classes.
    pub fn margin_functions(labels: &[usize], classes: usize) -> Result<Tensor, GraphError> {
        let mut values = vec![0.0f32; labels.len() * classes * classes];
        for (row, &label) in labels.iter().enumerate() {
            if label >= classes {
                let message = format!("row {row} has label {label}, the network has {classes} classes");
                return Err(GraphError::Rewrite { what: "interval_network", message });
            }
            for j in 0..classes {
                let at = (row * classes + j) * classes;
                values[at + label] += 1.0;
                values[at + j] -= 1.0;
            }
        }
        Ok(Tensor::f32(vec![labels.len(), classes, classes], values)?)
    }
}

impl Model {
    /// The network beside its own interval bounds over a box of inputs.
    ///
    /// Dropout does not act on the bounds; batch normalisation has to be folded before. Parameters keep their names and
    /// whether they train, so that trained values go back by [`Model::set_parameter`].
    /// # Errors
    /// The network has not one input and one output `[n, classes]`, or a node has no rule here: it is named.
    /// # Source
    /// Gowal et al. 2019, arXiv:1810.12715, equations 6 to 10
    pub fn interval_network(&self) -> Result<IntervalNetwork, GraphError> {
        let mut edit = Edit::new(self, "interval_network")?;
        if edit.opset() < OPSET {
            let opset = edit.opset();
            return Err(edit.refuse(format!("the file has opset {opset}, needed is {OPSET}")));
        }
        let ([input], Some(output)) = (self.inputs(), self.outputs().first()) else {
            return Err(edit.refuse("the network must have one input and an output".to_owned()));
        };
        let (Some(dims), Some(classes)) = (input.shape.clone(), self.classes(&output.name)) else {
            return Err(edit.refuse("the shapes of input and output must be known, the output [n, classes]".to_owned()));
        };
        let low = edit.fresh_value(&format!("{}/low", input.name));
        let high = edit.fresh_value(&format!("{}/high", input.name));
        let functions = edit.fresh_value("functions");
        let margins = edit.fresh_value(&format!("{}/margins", output.name));
        let batch = dims.first().cloned().unwrap_or(Dim::Any);
        for name in [&low, &high] {
            edit.graph.input.push(value_info(name, DType::F32, &dims));
        }
        let shape = [batch.clone(), Dim::Any, Dim::Fixed(classes)];
        edit.graph.input.push(value_info(&functions, DType::F32, &shape));
        edit.graph.output.push(value_info(&margins, DType::F32, &[batch, Dim::Any]));
        let half = edit.constant("half", DType::F32, Vec::new(), vec![0.5])?;
        let mut writer = Writer { edit, half, ends: HashMap::new(), nodes: Vec::new(), absolutes: HashMap::new() };
        writer.ends.insert(input.name.clone(), Ends::of(low.clone(), high.clone()));
        let order = topological_order(&writer.edit.graph)?;
        let nodes: Vec<NodeProto> = order.into_iter().filter_map(|i| writer.edit.graph.node.get(i).cloned()).collect();
        let last = writer.last_layer(&nodes, &output.name);
        for (i, node) in nodes.iter().enumerate() {
            if last.as_ref().is_some_and(|l| l.nodes.contains(&i)) {
                continue;
            }
            writer.node(node)?;
        }
        match last {
            Some(last) => writer.joined(&last, &functions, &margins)?,
            None => writer.separate(&output.name, &functions, &margins)?,
        }
        let Writer { mut edit, nodes, .. } = writer;
        for (node, attributes) in nodes {
            let at = edit.graph.node.len();
            edit.insert(at, node);
            if let Some(inserted) = edit.graph.node.last_mut() {
                inserted.attribute.extend(attributes);
            }
        }
        Ok(IntervalNetwork { model: edit.finish()?, low, high, functions, margins })
    }

    fn classes(&self, output: &str) -> Option<usize> {
        let plan = self.plan(&self.example_shapes(2).ok()?).ok()?;
        match plan.facts[self.id(output).ok()?].as_ref()?.shape[..] {
            [_, classes] => Some(classes),
            _ => None,
        }
    }
}

/// Names of the ends of a value's interval, and of centre and radius where they are there.
#[derive(Debug, Clone)]
struct Ends {
    low: String,
    high: String,
    middle: Option<(String, String)>,
}

impl Ends {
    fn of(low: String, high: String) -> Self {
        Self { low, high, middle: None }
    }
}

/// The linear layer that makes the output.
struct Last {
    /// Numbers of its nodes in order.
    nodes: Vec<usize>,
    input: String,
    weight: String,
    /// Whether the weight is `[classes, inputs]`.
    turned: bool,
    bias: Option<String>,
}

struct Writer<'m> {
    edit: Edit<'m>,
    /// Name of the constant 1/2.
    half: String,
    ends: HashMap<String, Ends>,
    /// Nodes to add, with attributes as messages have them.
    nodes: Vec<(NewNode, Vec<AttributeProto>)>,
    absolutes: HashMap<String, String>,
}

impl Writer<'_> {
    fn refuse(&self, node: &NodeProto, why: &str) -> GraphError {
        let first = node.output.first().map_or("", String::as_str);
        let name = if node.name().is_empty() { first } else { node.name() };
        self.edit.refuse(format!("node `{name}` ({}) has no interval rule{why}", node.op_type()))
    }

    /// Adds a node with one output of a free name.
    fn add(&mut self, operator: &str, inputs: &[&str], wanted: &str) -> String {
        let name = self.edit.fresh_value(wanted);
        self.push(NewNode::new(operator, inputs, &[&name]));
        name
    }

    fn push(&mut self, node: NewNode) {
        self.nodes.push((node, Vec::new()));
    }

    /// Adds a copy of a node with other inputs.
    fn copy(&mut self, node: &NodeProto, inputs: &[String], wanted: &str) -> String {
        let name = self.edit.fresh_value(wanted);
        let mut copy = NewNode::new(node.op_type(), &[], &[&name]);
        copy.inputs = inputs.to_vec();
        self.nodes.push((copy, node.attribute.clone()));
        name
    }

    fn ends(&self, value: &str) -> Option<Ends> {
        self.ends.get(value).cloned()
    }

    /// Centre and radius of a value.
    fn middle(&mut self, value: &str) -> Result<(String, String), GraphError> {
        let ends = self.ends(value).ok_or_else(|| self.edit.refuse(format!("`{value}` has no interval")))?;
        if let Some(middle) = ends.middle {
            return Ok(middle);
        }
        let half = self.half.clone();
        let sum = self.add("Add", &[&ends.high, &ends.low], &format!("{value}/sum"));
        let centre = self.add("Mul", &[&sum, &half], &format!("{value}/centre"));
        let width = self.add("Sub", &[&ends.high, &ends.low], &format!("{value}/width"));
        let radius = self.add("Mul", &[&width, &half], &format!("{value}/radius"));
        let middle = (centre, radius);
        self.ends.insert(value.to_owned(), Ends { middle: Some(middle.clone()), ..ends });
        Ok(middle)
    }

    fn absolute(&mut self, weight: &str) -> String {
        if let Some(name) = self.absolutes.get(weight) {
            return name.clone();
        }
        let name = self.add("Abs", &[weight], &format!("{weight}/absolute"));
        self.absolutes.insert(weight.to_owned(), name.clone());
        name
    }

    fn around(&mut self, value: &str, centre: String, radius: String) {
        let low = self.add("Sub", &[&centre, &radius], &format!("{value}/low"));
        let high = self.add("Add", &[&centre, &radius], &format!("{value}/high"));
        self.ends.insert(value.to_owned(), Ends { low, high, middle: Some((centre, radius)) });
    }

    /// Bounds of what a node makes.
    fn node(&mut self, node: &NodeProto) -> Result<(), GraphError> {
        let varies: Vec<bool> = node.input.iter().map(|i| self.ends.contains_key(i)).collect();
        // What is known of a shape does not depend on the values.
        if !varies.contains(&true) || node.op_type() == "Shape" {
            return Ok(());
        }
        let only = |i: usize| varies.iter().enumerate().all(|(j, &v)| v == (i == j));
        let (Some(first), Some(y)) = (node.input.first(), node.output.first()) else {
            return Err(self.refuse(node, ""));
        };
        let (first, y) = (first.clone(), y.clone());
        let attribute = |name: &str, default: f32| {
            node.attribute.iter().find(|a| a.name() == name).map_or(default, |a| a.f.unwrap_or_default())
        };
        match node.op_type() {
            "Identity" | "Dropout" => {
                if let Some(ends) = self.ends(&first) {
                    self.ends.insert(y, ends);
                }
            }
            "Conv" | "ConvTranspose" | "Gemm" | "MatMul" if only(0) => {
                if node.op_type() == "Gemm" && attribute("alpha", 1.0) <= 0.0 {
                    return Err(self.refuse(node, " with a factor that is not positive"));
                }
                let (centre, radius) = self.middle(&first)?;
                let Some(weight) = node.input.get(1).cloned() else { return Err(self.refuse(node, "")) };
                let absolute = self.absolute(&weight);
                let mut inputs = node.input.clone();
                inputs[0] = centre;
                let centre = self.copy(node, &inputs, &format!("{y}/centre"));
                let radius = self.copy(node, &[radius, absolute], &format!("{y}/radius"));
                self.around(&y, centre, radius);
            }
            "Mul" | "Div" if only(0) || (only(1) && node.op_type() == "Mul") => {
                let at = usize::from(only(1));
                let value = node.input[at].clone();
                let (centre, radius) = self.middle(&value)?;
                let absolute = self.absolute(&node.input[1 - at].clone());
                let mut inputs = node.input.clone();
                inputs[at] = centre;
                let centre = self.copy(node, &inputs, &format!("{y}/centre"));
                let inputs = if at == 0 { [radius, absolute] } else { [absolute, radius] };
                let radius = self.copy(node, &inputs, &format!("{y}/radius"));
                self.around(&y, centre, radius);
            }
            "Sub" => {
                // The low end of the first meets the high end of the second.
                let side = |writer: &Self, high: bool| -> Vec<String> {
                    let each = node.input.iter().enumerate().map(|(i, name)| match writer.ends(name) {
                        Some(ends) if high == (i == 0) => ends.high,
                        Some(ends) => ends.low,
                        None => name.clone(),
                    });
                    each.collect()
                };
                let (low, high) = (side(self, false), side(self, true));
                self.sides(node, &y, &low, &high);
            }
            "Neg" => {
                if let Some(ends) = self.ends(&first) {
                    self.sides(node, &y, &[ends.high], &[ends.low]);
                }
            }
            "Relu" | "Sigmoid" | "Tanh" | "Clip" | "Softplus" | "Softsign" | "Exp" | "MaxPool" | "GlobalMaxPool"
            | "AveragePool" | "GlobalAveragePool" | "ReduceMean" | "ReduceSum" | "Flatten" | "Reshape" | "Squeeze"
            | "Unsqueeze" | "Transpose" | "Slice" | "Pad"
                if only(0) && node.output.len() == 1 =>
            {
                self.both(node, &y);
            }
            "LeakyRelu" if attribute("alpha", 0.01) >= 0.0 => self.both(node, &y),
            "Elu" if attribute("alpha", 1.0) >= 0.0 => self.both(node, &y),
            "HardSigmoid" if attribute("alpha", 0.2) >= 0.0 => self.both(node, &y),
            "Add" | "Sum" | "Concat" => self.both(node, &y),
            "BatchNormalization" => return Err(self.refuse(node, "; fold it into the layer before it first")),
            _ => return Err(self.refuse(node, "")),
        }
        Ok(())
    }

    fn sides(&mut self, node: &NodeProto, y: &str, low: &[String], high: &[String]) {
        let low = self.copy(node, low, &format!("{y}/low"));
        let high = self.copy(node, high, &format!("{y}/high"));
        self.ends.insert(y.to_owned(), Ends::of(low, high));
    }

    /// The node on the low ends, and on the high ends.
    fn both(&mut self, node: &NodeProto, y: &str) {
        let side = |writer: &Self, high: bool| -> Vec<String> {
            let each = node.input.iter().map(|name| match writer.ends(name) {
                Some(ends) => {
                    if high {
                        ends.high
                    } else {
                        ends.low
                    }
                }
                None => name.clone(),
            });
            each.collect()
        };
        let (low, high) = (side(self, false), side(self, true));
        self.sides(node, y, &low, &high);
    }

    /// The linear layer at the end, if there is one that stands alone.
    fn last_layer(&self, nodes: &[NodeProto], output: &str) -> Option<Last> {
        let stored = |name: &str| self.edit.graph.initializer.iter().any(|t| t.name() == name);
        let maker = |value: &str| nodes.iter().position(|n| n.output.iter().any(|o| o == value));
        let at = maker(output)?;
        let node = &nodes[at];
        match node.op_type() {
            "Gemm" => {
                let plain = node.attribute.iter().all(|a| match a.name() {
                    "alpha" | "beta" => a.f == Some(1.0),
                    "transA" => a.i.unwrap_or_default() == 0,
                    _ => true,
                });
                let turned = node.attribute.iter().any(|a| a.name() == "transB" && a.i == Some(1));
                let (input, weight) = (node.input.first()?.clone(), node.input.get(1)?.clone());
                (plain && stored(&weight)).then(|| Last {
                    nodes: vec![at],
                    input,
                    weight,
                    turned,
                    bias: node.input.get(2).filter(|b| !b.is_empty()).cloned(),
                })
            }
            "MatMul" => {
                let (input, weight) = (node.input.first()?.clone(), node.input.get(1)?.clone());
                stored(&weight).then(|| Last { nodes: vec![at], input, weight, turned: false, bias: None })
            }
            "Add" => {
                let (a, b) = (node.input.first()?, node.input.get(1)?);
                let (value, bias) = if stored(b) { (a, b) } else { (b, a) };
                let before = maker(value)?;
                let used = nodes.iter().flat_map(|n| &n.input).filter(|i| *i == value).count();
                let product = &nodes[before];
                let weight = product.input.get(1)?.clone();
                let fits = product.op_type() == "MatMul" && stored(&weight) && stored(bias) && used == 1;
                fits.then(|| Last {
                    nodes: vec![before, at],
                    input: product.input[0].clone(),
                    weight,
                    turned: false,
                    bias: Some(bias.clone()),
                })
            }
            _ => None,
        }
    }

    /// A value with an axis of one element at its end.
    fn column(&mut self, value: &str, wanted: &str, rows: &[i64]) -> Result<String, GraphError> {
        let name = self.edit.fresh_value(wanted);
        let shape = self.edit.fresh_value(&format!("{name}/shape"));
        let sizes = Tensor::i64(vec![rows.len()], rows.to_vec())?;
        self.push(NewNode::new("Reshape", &[value, &shape], &[&name]).with_tensor(&shape, sizes));
        Ok(name)
    }

    /// Functions of the last layer's output, the layer joined with them.
    fn joined(&mut self, last: &Last, functions: &str, margins: &str) -> Result<(), GraphError> {
        let (centre, radius) = self.middle(&last.input)?;
        let weight = if last.turned {
            last.weight.clone()
        } else {
            let name = self.edit.fresh_value(&format!("{}/turned", last.weight));
            let turn = NewNode::new("Transpose", &[&last.weight], &[&name]);
            self.push(turn.with("perm", Attribute::Ints(vec![1, 0])));
            name
        };
        let product = self.add("MatMul", &[functions, &weight], "functions/weight");
        let sizes = self.add("Abs", &[&product], "functions/weight/absolute");
        let centre = self.column(&centre, "last/centre", &[0, -1, 1])?;
        let radius = self.column(&radius, "last/radius", &[0, -1, 1])?;
        let middle = self.add("MatMul", &[&product, &centre], "functions/middle");
        let reach = self.add("MatMul", &[&sizes, &radius], "functions/reach");
        let mut least = self.add("Sub", &[&middle, &reach], "functions/least");
        if let Some(bias) = &last.bias {
            let bias = self.column(bias, "last/bias", &[-1, 1])?;
            let added = self.add("MatMul", &[functions, &bias], "functions/added");
            least = self.add("Add", &[&least, &added], "functions/sum");
        }
        self.flat(&least, margins)
    }

    /// Functions of an output that something else than a linear layer makes.
    fn separate(&mut self, output: &str, functions: &str, margins: &str) -> Result<(), GraphError> {
        let (centre, radius) = self.middle(output)?;
        let centre = self.column(&centre, "last/centre", &[0, -1, 1])?;
        let radius = self.column(&radius, "last/radius", &[0, -1, 1])?;
        let sizes = self.add("Abs", &[functions], "functions/absolute");
        let middle = self.add("MatMul", &[functions, &centre], "functions/middle");
        let reach = self.add("MatMul", &[&sizes, &radius], "functions/reach");
        let least = self.add("Sub", &[&middle, &reach], "functions/least");
        self.flat(&least, margins)
    }

    fn flat(&mut self, least: &str, margins: &str) -> Result<(), GraphError> {
        let shape = self.edit.fresh_value(&format!("{margins}/shape"));
        let sizes = Tensor::i64(vec![2], vec![0, -1])?;
        self.push(NewNode::new("Reshape", &[least, &shape], &[margins]).with_tensor(&shape, sizes));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use netproof_stats::rng::Rng;

    use super::*;
    use crate::builders::{self, Activation};
    use crate::run::{Request, Wrt};
    use crate::{BoundMethod, BoundsRequest, FileBuilder, Region, Rounding, Specification};

    fn rows(shape: &[usize], seed: u64) -> Tensor {
        let mut rng = Rng::new(seed);
        let count = shape.iter().product();
        Tensor::f32(shape.to_vec(), (0..count).map(|_| rng.unit() as f32).collect()).unwrap()
    }

    fn request(network: &IntervalNetwork, model: &Model, x: &Tensor, epsilon: f32, labels: &[usize]) -> Request {
        let moved =
            |by: f32| Tensor::f32(x.shape().to_vec(), x.as_f32().unwrap().iter().map(|v| v + by).collect()).unwrap();
        let functions = IntervalNetwork::margin_functions(labels, 4).unwrap();
        Request {
            inputs: vec![
                (model.inputs()[0].name.clone(), x.clone()),
                (network.low.clone(), moved(-epsilon)),
                (network.high.clone(), moved(epsilon)),
                (network.functions.clone(), functions),
            ],
            ..Request::default()
        }
    }

    fn check(model: &Model, row: &[usize]) {
        let network = model.interval_network().unwrap();
        let x = rows(&[&[3], row].concat(), 7);
        let labels = [0, 3, 2];
        let run = network.model.forward(&request(&network, model, &x, 0.02, &labels)).unwrap();
        let output = &model.outputs()[0].name;
        let (clean, again) = (model.predict(&x).unwrap(), run.output(output).unwrap());
        assert_eq!(clean, again, "the network itself answers as before");
        let got = run.output(&network.margins).unwrap().into_f32().unwrap();
        let region = Region::around(&x, crate::Norm::Linf, &[0.02], None).unwrap();
        let mut asked = BoundsRequest::new(region, Specification::Margins(labels.to_vec()), BoundMethod::Ibp);
        asked.rounding = Rounding::Nearest;
        let want = model.bounds(&asked).unwrap().lower.into_f32().unwrap();
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            let w = if w.is_finite() { *w } else { 0.0 };
            assert!((g - w).abs() < 1e-4 * (1.0 + w.abs()), "{i}: {g} and {w}");
        }
    }

    #[test]
    fn margins_are_those_of_the_bounds() {
        check(&builders::mlp(&[6], &[9, 7], 4, Activation::Relu, 1).unwrap(), &[6]);
        let mut b = FileBuilder::new("convolutions");
        let ints = |v: &[i64]| Attribute::Ints(v.to_vec());
        let x = b.add_batch_input("x", &[2, 6, 6]);
        let signed = |shape: &[usize], seed| {
            let t = rows(shape, seed);
            Tensor::f32(shape.to_vec(), t.as_f32().unwrap().iter().map(|v| v - 0.5).collect()).unwrap()
        };
        let w = b.add_initializer("w", signed(&[3, 2, 3, 3], 2));
        let c = b.add_initializer("c", signed(&[3], 3));
        let y = b.node("Conv", "conv", &[&x, &w, &c], &[("pads", ints(&[1, 1, 1, 1]))]);
        let y = b.node("Relu", "relu", &[&y], &[]);
        let scale = b.add_initializer("scale", signed(&[3, 1, 1], 4));
        let z = b.node("Mul", "scaled", &[&y, &scale], &[]);
        let y = b.node("Sub", "rest", &[&y, &z], &[]);
        let y = b.node("MaxPool", "pool", &[&y], &[("kernel_shape", ints(&[2, 2])), ("strides", ints(&[2, 2]))]);
        let y = b.node("Flatten", "flat", &[&y], &[]);
        let w = b.add_initializer("v", signed(&[27, 4], 5));
        let y = b.node("MatMul", "product", &[&y, &w], &[]);
        let c = b.add_initializer("d", signed(&[4], 6));
        let y = b.node("Add", "y", &[&y, &c], &[]);
        b.batch_output(&y, &[4]);
        let mut model = Model::from_file(b.build().unwrap()).unwrap();
        check(&model, &[2, 6, 6]);
        model.set_trainable("c", false).unwrap();
        let network = model.interval_network().unwrap();
        let trains = |m: &Model| -> Vec<_> { m.parameters().filter(|p| p.trainable).map(|p| p.name).collect() };
        assert_eq!(trains(&model), trains(&network.model));
    }

    #[test]
    fn gradients_of_the_margins_are_differences() {
        let model = builders::mlp(&[5], &[6], 4, Activation::Relu, 3).unwrap();
        let network = model.interval_network().unwrap();
        let x = rows(&[2, 5], 1);
        let sum = |m: &Model| -> f64 {
            let run = m.forward(&request(&network, &model, &x, 0.05, &[1, 2])).unwrap();
            run.output(&network.margins).unwrap().as_f32().unwrap().iter().map(|&v| f64::from(v)).sum()
        };
        let mut asked = request(&network, &model, &x, 0.05, &[1, 2]);
        asked.wrt = Wrt::trainable();
        let run = network.model.forward(&asked).unwrap();
        let ones = Tensor::f32(vec![2, 4], vec![1.0; 8]).unwrap();
        let gradients = run.backward(&[(&network.margins, &ones)]).unwrap();
        let names: Vec<String> = model.parameters().filter(|p| p.trainable).map(|p| p.name).collect();
        for name in names {
            let g = gradients.get(&name).unwrap_or_else(|| panic!("no gradient for {name}"));
            let old = model.parameter(&name).unwrap().clone();
            let h = 1e-3;
            for at in [0, old.len() - 1] {
                let moved = |by: f32| {
                    let mut m = model.interval_network().unwrap().model;
                    let mut values = old.as_f32().unwrap().to_vec();
                    values[at] += by;
                    m.set_parameter(&name, Tensor::f32(old.shape().to_vec(), values).unwrap()).unwrap();
                    sum(&m)
                };
                let want = (moved(h) - moved(-h)) / (2.0 * f64::from(h));
                let got = f64::from(g.as_f32().unwrap()[at]);
                assert!((got - want).abs() < 2e-2 * (1.0 + want.abs()), "{name}[{at}]: {got}, {want}");
            }
        }
    }

    #[test]
    fn what_has_no_rule_is_named() {
        let mut b = FileBuilder::new("turning");
        let x = b.add_batch_input("x", &[4]);
        let y = b.node("Cos", "turn", &[&x], &[]);
        b.batch_output(&y, &[4]);
        let error = Model::from_file(b.build().unwrap()).unwrap().interval_network().unwrap_err().to_string();
        assert!(error.contains("`turn` (Cos)"), "{error}");
        assert!(IntervalNetwork::margin_functions(&[4], 4).is_err());
    }
}
