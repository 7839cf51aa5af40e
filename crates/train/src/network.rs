//! Networks to start from: a file to fine-tune, or a new one of [`netproof_graph::builders`].

use std::path::PathBuf;

use netproof_graph::builders::{
    Activation, CnnOptions, Shortcut, StridedCnnOptions, VitOptions, cnn, mlp, mobilenet_v2, resnet_cifar, resnet18,
    strided_cnn, vit,
};
use netproof_graph::{GraphError, Model};
use serde::Deserialize;

use crate::error::{TrainError, refuse};
use crate::head::replace_head;
use crate::method::{Entry, Method, Options};

/// What a network is to be made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purpose {
    /// Shape of a row of features.
    pub row: Vec<usize>,
    /// Numbers per row that it shall answer with: one per class, or one.
    pub outputs: usize,
    /// Of the initial weights.
    pub seed: u64,
}

/// Makes a network for some data.
pub trait Architecture: Send + Sync {
    /// The network.
    /// # Errors
    /// It cannot be for this data; the file cannot be read.
    fn network(&self, purpose: &Purpose) -> Result<Model, TrainError>;
}

/// A network that is there already.
const FILE: &str = "file";

/// Every network of this crate.
pub static ARCHITECTURES: &[Entry<dyn Architecture>] = &[
    Entry {
        id: FILE,
        summary: "an ONNX file to fine-tune, or its graph to train anew (`path`, `replace_head`, `fresh`, `keep`)",
        build: |options, _| Ok(Box::new(File::read(options)?)),
    },
    Entry {
        id: "mlp",
        summary: "fully connected layers (`hidden`, `activation`)",
        build: |options, _| Ok(Box::new(options.read::<Mlp>()?)),
    },
    Entry {
        id: "cnn",
        summary: "3×3 convolutions with pooling, in the manner of LeNet (`channels`, `hidden`)",
        build: |options, _| Ok(Box::new(options.read::<Cnn>()?)),
    },
    Entry {
        id: "strided-cnn",
        summary: "4×4 convolutions with stride 2, the small network of the literature on robustness (`channels`, `hidden`)",
        build: |options, _| Ok(Box::new(options.read::<StridedCnn>()?)),
    },
    Entry {
        id: "resnet-cifar",
        summary: "residual network for small images (`depth`, `projection`)",
        build: |options, _| Ok(Box::new(options.read::<ResnetCifar>()?)),
    },
    Entry {
        id: "resnet18",
        summary: "ResNet-18 for images of the size of ImageNet's",
        build: |options, _| Ok(Box::new(options.read::<Resnet18>()?)),
    },
    Entry {
        id: "mobilenet-v2",
        summary: "MobileNetV2 (`width`)",
        build: |options, _| Ok(Box::new(options.read::<Mobilenet>()?)),
    },
    Entry {
        id: "vit",
        summary: "vision transformer (`patch`, `width`, `depth`, `heads`, `mlp`)",
        build: |options, _| Ok(Box::new(options.read::<Vit>()?)),
    },
];

fn image(what: &'static str, row: &[usize]) -> Result<[usize; 3], TrainError> {
    <[usize; 3]>::try_from(row).map_err(|_| {
        let message = format!("needs rows [channels, height, width], the data has {row:?}; give `image_size`");
        GraphError::Rewrite { what, message }.into()
    })
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    path: PathBuf,
    /// Draw the last layer anew, for the classes of the data.
    #[serde(default)]
    replace_head: bool,
    /// Draw all weights anew.
    #[serde(default)]
    fresh: bool,
    /// Part of the units of every inner layer that stays, those with the largest weights.
    #[serde(default = "all")]
    keep: f64,
}

fn all() -> f64 {
    1.0
}

impl File {
    fn read(options: Options<'_>) -> Result<Self, TrainError> {
        let own: Self = options.read()?;
        if !(own.keep > 0.0 && own.keep <= 1.0) {
            return Err(refuse("keep", own.keep, "over 0, and at most 1"));
        }
        Ok(own)
    }

    fn prepare(&self, model: Model, p: &Purpose) -> Result<Model, TrainError> {
        let mut model = if self.keep < 1.0 { model.narrowed(self.keep)? } else { model };
        if self.replace_head {
            model = replace_head(&model, p.outputs, p.seed)?;
        }
        if self.fresh {
            model.reinitialise(p.seed)?;
        }
        Ok(model)
    }
}

impl Architecture for File {
    fn network(&self, p: &Purpose) -> Result<Model, TrainError> {
        self.prepare(Model::load(&self.path)?, p)
    }
}

/// What a network of the kind `file` would be, had it been read from its file.
/// # Errors
/// The options are not those of a file, or cannot be met.
pub fn prepare(network: &Method, model: &Model, purpose: &Purpose) -> Result<Model, TrainError> {
    if network.kind != FILE {
        let message = format!("the recipe builds a `{}`, not the network that was given", network.kind);
        return Err(TrainError::Mismatch { message });
    }
    File::read((&network.options).into())?.prepare(Model::from_file(model.to_file()?)?, purpose)
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mlp {
    hidden: Vec<usize>,
    activation: Name,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Name {
    #[default]
    Relu,
    Gelu,
    Tanh,
    Sigmoid,
}

impl Default for Mlp {
    fn default() -> Self {
        Self { hidden: vec![128, 64], activation: Name::Relu }
    }
}

impl Architecture for Mlp {
    fn network(&self, p: &Purpose) -> Result<Model, TrainError> {
        let activation = match self.activation {
            Name::Relu => Activation::Relu,
            Name::Gelu => Activation::Gelu,
            Name::Tanh => Activation::Tanh,
            Name::Sigmoid => Activation::Sigmoid,
        };
        Ok(mlp(&p.row, &self.hidden, p.outputs, activation, p.seed)?)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Cnn {
    channels: Vec<usize>,
    hidden: usize,
}

impl Default for Cnn {
    fn default() -> Self {
        let CnnOptions { channels, hidden, .. } = CnnOptions::new([1, 28, 28], 10);
        Self { channels, hidden }
    }
}

impl Architecture for Cnn {
    fn network(&self, p: &Purpose) -> Result<Model, TrainError> {
        let Self { channels, hidden } = self.clone();
        Ok(cnn(&CnnOptions { channels, hidden, image: image("cnn", &p.row)?, classes: p.outputs, seed: p.seed })?)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StridedCnn {
    channels: Vec<usize>,
    hidden: usize,
}

impl Default for StridedCnn {
    fn default() -> Self {
        let StridedCnnOptions { channels, hidden, .. } = StridedCnnOptions::new([1, 28, 28], 10);
        Self { channels, hidden }
    }
}

impl Architecture for StridedCnn {
    fn network(&self, p: &Purpose) -> Result<Model, TrainError> {
        let Self { channels, hidden } = self.clone();
        let image = image("strided-cnn", &p.row)?;
        Ok(strided_cnn(&StridedCnnOptions { channels, hidden, image, classes: p.outputs, seed: p.seed })?)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ResnetCifar {
    depth: usize,
    /// Shortcuts by convolution (option B of the paper) instead of zeros.
    projection: bool,
}

impl Default for ResnetCifar {
    fn default() -> Self {
        Self { depth: 20, projection: false }
    }
}

impl Architecture for ResnetCifar {
    fn network(&self, p: &Purpose) -> Result<Model, TrainError> {
        let shortcut = if self.projection { Shortcut::Projection } else { Shortcut::ZeroPadding };
        Ok(resnet_cifar(self.depth, shortcut, image("resnet-cifar", &p.row)?, p.outputs, p.seed)?)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Resnet18 {}

impl Architecture for Resnet18 {
    fn network(&self, p: &Purpose) -> Result<Model, TrainError> {
        Ok(resnet18(image("resnet18", &p.row)?, p.outputs, p.seed)?)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mobilenet {
    width: f64,
}

impl Default for Mobilenet {
    fn default() -> Self {
        Self { width: 1.0 }
    }
}

impl Architecture for Mobilenet {
    fn network(&self, p: &Purpose) -> Result<Model, TrainError> {
        Ok(mobilenet_v2(image("mobilenet-v2", &p.row)?, p.outputs, self.width, p.seed)?)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Vit {
    patch: usize,
    width: usize,
    depth: usize,
    heads: usize,
    mlp: usize,
}

impl Default for Vit {
    /// A small one for small images, of a third the width and half the depth of ViT-Tiny (Touvron et al. 2021).
    fn default() -> Self {
        Self { patch: 4, width: 64, depth: 6, heads: 4, mlp: 128 }
    }
}

impl Architecture for Vit {
    fn network(&self, p: &Purpose) -> Result<Model, TrainError> {
        let Self { patch, width, depth, heads, mlp } = *self;
        let image = image("vit", &p.row)?;
        Ok(vit(&VitOptions { image, patch, classes: p.outputs, width, depth, heads, mlp, seed: p.seed })?)
    }
}

/// The same kind of network with fewer layers; `None` where it has no fewer, or is a file.
///
/// Fully connected and convolutional networks lose their last hidden layer, residual ones a block per stage, transformers
/// half of their blocks.
pub fn shallower(network: &Method) -> Option<Method> {
    let mut less = network.clone();
    let list = match network.kind.as_str() {
        "mlp" => Some(("hidden", Mlp::default().hidden)),
        "cnn" => Some(("channels", Cnn::default().channels)),
        _ => None,
    };
    if let Some((name, default)) = list {
        let default =
            || toml::Value::Array(default.iter().filter_map(|&n| Some(i64::try_from(n).ok()?.into())).collect());
        let list = less.options.entry(name).or_insert_with(default).as_array_mut()?;
        let fewest = usize::from(name == "channels");
        return list.len().gt(&fewest).then(|| list.pop()).flatten().map(|_| less);
    }
    let (default, next): (i64, fn(i64) -> i64) = match network.kind.as_str() {
        "resnet-cifar" => (20, |depth| depth - 6),
        "vit" => (6, |depth| depth / 2),
        _ => return None,
    };
    let depth = next(network.options.get("depth").map_or(Some(default), toml::Value::as_integer)?);
    let fewest = if network.kind == "vit" { 1 } else { 8 };
    (depth >= fewest).then(|| less.with("depth", depth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_go_one_by_one() {
        let count = |start: Method| std::iter::successors(Some(start), shallower).count() - 1;
        assert_eq!(count(Method::new("mlp")), 2);
        assert_eq!(count(Method::new("cnn")), 1);
        assert_eq!(count(Method::new("resnet-cifar")), 2);
        assert_eq!(count(Method::new("vit").with("depth", 4)), 2);
        assert_eq!(count(Method::new("file").with("path", "a.onnx")), 0);
        let less = shallower(&Method::new("cnn")).unwrap();
        assert_eq!(less.options["channels"].as_array().unwrap().len(), Cnn::default().channels.len() - 1);
    }
}
