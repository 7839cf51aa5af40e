//! Networks built from nothing: ordinary graphs, which save as ordinary ONNX files.
//!
//! Inputs are `input`, `[batch, ...]`; outputs are `logits`, `[batch, classes]`. A node and the value that it makes share
//! a name, so that layers can be tapped by name. Weights are drawn from the seed alone.
//!
//! Unless a builder says otherwise, convolutions start normal with variance 2 / fan-out (He et al., ICCV 2015,
//! arXiv:1502.01852, equation 14), batch normalisation with scale 1, shift 0, mean 0 and variance 1, and the last linear
//! layer uniform between ±1/√fan-in, weights and biases (LeCun et al., Efficient BackProp, 1998).

mod cnn;
mod mlp;
mod mobilenet;
mod resnet;
mod strided_cnn;
mod vit;

pub use cnn::{CnnOptions, cnn};
pub use mlp::{Activation, mlp};
pub use mobilenet::mobilenet_v2;
pub use resnet::{Shortcut, resnet_cifar, resnet18};
pub use strided_cnn::{StridedCnnOptions, strided_cnn};
pub use vit::{VitOptions, vit};

use crate::draw::Init;
use crate::error::GraphError;
use crate::file_builder::{Attribute, FileBuilder};
use crate::model::Model;

/// Largest size of anything that a builder is given: beyond it is a slip of the pen.
const LARGEST: usize = 1 << 24;
/// Most layers.
const DEEPEST: usize = 10_000;

/// A network in the making.
struct Net {
    what: &'static str,
    file: FileBuilder,
    gelu: Option<[String; 3]>,
    relu6: Option<[String; 2]>,
}

/// One convolution with "same" padding.
#[derive(Clone, Copy)]
struct Conv {
    from: usize,
    to: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
    bias: bool,
}

impl Conv {
    fn new(from: usize, to: usize, kernel: usize) -> Self {
        Self { from, to, kernel, stride: 1, groups: 1, bias: false }
    }
}

fn refuse(what: &'static str, message: String) -> GraphError {
    GraphError::Rewrite { what, message }
}

fn check_sizes(what: &'static str, sizes: &[(&str, usize)]) -> Result<(), GraphError> {
    check_range(what, sizes, LARGEST)
}

fn check_range(what: &'static str, sizes: &[(&str, usize)], most: usize) -> Result<(), GraphError> {
    match sizes.iter().find(|(_, n)| !(1..=most).contains(n)) {
        Some((name, n)) => Err(refuse(what, format!("`{name}` is {n}, it must be between 1 and {most}"))),
        None => Ok(()),
    }
}

fn check_image(what: &'static str, image: [usize; 3], classes: usize) -> Result<(), GraphError> {
    let [channels, height, width] = image;
    check_sizes(
        what,
        &[("image channels", channels), ("image height", height), ("image width", width), ("classes", classes)],
    )
}

fn int(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn ints(values: &[usize]) -> Attribute {
    Attribute::Ints(values.iter().map(|&n| int(n)).collect())
}

impl Net {
    /// A network with one input of rows of this shape; gives the input's name.
    fn new(what: &'static str, row: &[usize]) -> (Self, String) {
        let mut file = FileBuilder::new(what);
        let input = file.add_batch_input("input", row);
        (Self { what, file, gelu: None, relu6: None }, input)
    }

    fn op(&mut self, operator: &str, name: &str, inputs: &[&str]) -> String {
        self.file.node(operator, name, inputs, &[])
    }

    fn conv(&mut self, name: &str, x: &str, c: Conv) -> String {
        // Connections from one input position: each of the outputs of its group, at each place of the kernel.
        let fan_out = (c.to / c.groups).saturating_mul(c.kernel * c.kernel);
        let init = Init::Normal((2.0 / fan_out as f64).sqrt());
        let shape = [c.to, c.from / c.groups, c.kernel, c.kernel];
        let weight = self.file.add_parameter(&format!("{name}.weight"), &shape, init);
        let mut inputs = vec![x.to_owned(), weight];
        if c.bias {
            inputs.push(self.file.add_parameter(&format!("{name}.bias"), &[c.to], Init::Constant(0.0)));
        }
        let attributes = [
            ("group", Attribute::Int(int(c.groups))),
            ("kernel_shape", ints(&[c.kernel; 2])),
            ("pads", ints(&[c.kernel / 2; 4])),
            ("strides", ints(&[c.stride; 2])),
        ];
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.file.node("Conv", name, &inputs, &attributes)
    }

    fn batch_norm(&mut self, name: &str, x: &str, channels: usize) -> String {
        let start = [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)];
        let [scale, shift, mean, variance] = start.map(|(part, value)| {
            self.file.add_parameter(&format!("{name}.{part}"), &[channels], Init::Constant(value))
        });
        let attributes = [("epsilon", Attribute::Float(1e-5)), ("momentum", Attribute::Float(0.9))];
        self.file.node("BatchNormalization", name, &[x, &scale, &shift, &mean, &variance], &attributes)
    }

    fn max_pool(&mut self, name: &str, x: &str, kernel: usize, stride: usize, pad: usize) -> String {
        let attributes =
            [("kernel_shape", ints(&[kernel; 2])), ("pads", ints(&[pad; 4])), ("strides", ints(&[stride; 2]))];
        self.file.node("MaxPool", name, &[x], &attributes)
    }

    fn flatten(&mut self, name: &str, x: &str) -> String {
        self.file.node("Flatten", name, &[x], &[("axis", Attribute::Int(1))])
    }

    /// `x · weightᵀ + bias`, of rows `[batch, from]`.
    fn linear(&mut self, name: &str, x: &str, [from, to]: [usize; 2], weight: Init, bias: Init) -> String {
        let weight = self.file.add_parameter(&format!("{name}.weight"), &[to, from], weight);
        let bias = self.file.add_parameter(&format!("{name}.bias"), &[to], bias);
        self.file.node("Gemm", name, &[x, &weight, &bias], &[("transB", Attribute::Int(1))])
    }

    /// Clip to [0, 6].
    fn relu6(&mut self, name: &str, x: &str) -> String {
        let [low, high] = match self.relu6.take() {
            Some(limits) => limits,
            None => [self.file.add_scalar("relu6.min", 0.0), self.file.add_scalar("relu6.max", 6.0)],
        };
        let y = self.op("Clip", name, &[x, &low, &high]);
        self.relu6 = Some([low, high]);
        y
    }

    /// `x · Φ(x)` with the error function (Hendrycks and Gimpel 2016, arXiv:1606.08415), in operators of opset 17.
    fn gelu(&mut self, name: &str, x: &str) -> String {
        let [root, one, half] = match self.gelu.take() {
            Some(constants) => constants,
            None => [
                self.file.add_scalar("gelu.sqrt_two", std::f32::consts::SQRT_2),
                self.file.add_scalar("gelu.one", 1.0),
                self.file.add_scalar("gelu.half", 0.5),
            ],
        };
        let y = self.op("Div", &format!("{name}.scaled"), &[x, &root]);
        let y = self.op("Erf", &format!("{name}.erf"), &[&y]);
        let y = self.op("Add", &format!("{name}.shifted"), &[&y, &one]);
        let y = self.op("Mul", &format!("{name}.gated"), &[x, &y]);
        let y = self.op("Mul", name, &[&y, &half]);
        self.gelu = Some([root, one, half]);
        y
    }

    /// The last linear layer: node `name`, value `logits`.
    fn classifier(
        &mut self,
        name: &str,
        features: &str,
        [from, classes]: [usize; 2],
        init: Option<(Init, Init)>,
    ) -> String {
        let uniform = Init::Uniform(1.0 / (from as f64).sqrt());
        let (weight, bias) = init.unwrap_or((uniform, uniform));
        let weight = self.file.add_parameter(&format!("{name}.weight"), &[classes, from], weight);
        let bias = self.file.add_parameter(&format!("{name}.bias"), &[classes], bias);
        let node = crate::file_builder::NewNode::new("Gemm", &[features, &weight, &bias], &["logits"]);
        self.file.push(node.named(name).with("transB", Attribute::Int(1)));
        self.file.batch_output("logits", &[classes]);
        "logits".to_owned()
    }

    fn build(self, seed: u64) -> Result<Model, GraphError> {
        Model::from_file(self.file.build_seeded(self.what, seed)?)
    }
}
