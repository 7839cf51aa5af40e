//! Vision transformers. Dosovitskiy et al., ICLR 2021, arXiv:2010.11929.

use netproof_tensor::Tensor;

use super::{DEEPEST, Net, check_image, check_range, check_sizes, int, ints, refuse};
use crate::draw::Init;
use crate::error::GraphError;
use crate::file_builder::Attribute;
use crate::model::Model;

/// Sizes of a vision transformer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VitOptions {
    /// Channels, height, width.
    pub image: [usize; 3],
    /// Height and width of a patch; divides those of the image.
    pub patch: usize,
    /// Number of classes.
    pub classes: usize,
    /// Length of a token.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads per block; divides `width`.
    pub heads: usize,
    /// Hidden units of each block's perceptron.
    pub mlp: usize,
    /// Of the initial weights.
    pub seed: u64,
}

impl VitOptions {
    /// ViT-B/16 of table 1 of the paper, for 224×224 images and 1,000 classes: 86,567,656 parameters.
    pub fn base_16() -> Self {
        Self { image: [3, 224, 224], patch: 16, classes: 1000, width: 768, depth: 12, heads: 12, mlp: 3072, seed: 0 }
    }
}

/// A vision transformer: linear patch embedding, class token, learnt positions, blocks of pre-normalised attention and
/// GELU perceptrons, and a linear layer on the class token.
///
/// Weights, positions and the class token start normal with standard deviation 0.02, truncated at two of them, biases at
/// 0 (Touvron et al., ICML 2021, arXiv:2012.12877, section 6). Attention weights of block i are the value
/// `blocks.<i>.attention.probabilities`, `[batch, heads, tokens, tokens]`; token 0 is the class token. GELU is written with
/// Erf, since the operator Gelu came only with opset 20.
/// # Shapes
/// `[batch, channels, height, width]` → `[batch, classes]`
/// # Errors
/// A size is 0 or too large; the patch does not divide the image, or the heads the width.
/// # Source
/// Dosovitskiy et al. 2021, equations 1 to 4.
pub fn vit(options: &VitOptions) -> Result<Model, GraphError> {
    network(options)?.build(options.seed)
}

const WEIGHT: Init = Init::TruncatedNormal(0.02);
const ZERO: Init = Init::Constant(0.0);

fn network(o: &VitOptions) -> Result<Net, GraphError> {
    check_image("vit", o.image, o.classes)?;
    check_sizes("vit", &[("patch", o.patch), ("width", o.width), ("heads", o.heads), ("mlp", o.mlp)])?;
    check_range("vit", &[("depth", o.depth)], DEEPEST)?;
    let [channels, height, width] = o.image;
    if height % o.patch != 0 || width % o.patch != 0 {
        let message = format!("`patch` is {}, it must divide the image's {height}×{width}", o.patch);
        return Err(refuse("vit", message));
    }
    if !o.width.is_multiple_of(o.heads) {
        return Err(refuse("vit", format!("`heads` is {}, it must divide the width of {}", o.heads, o.width)));
    }
    let tokens = (height / o.patch).saturating_mul(width / o.patch).saturating_add(1);
    let (mut net, input) = Net::new("vit", &o.image);
    let mut x = embed(&mut net, &input, o, channels, tokens)?;
    let scale = net.file.add_scalar("attention.scale", 1.0 / ((o.width / o.heads) as f32).sqrt());
    for i in 0..o.depth {
        x = block(&mut net, &format!("blocks.{i}"), &x, o, &scale);
    }
    x = layer_norm(&mut net, "norm", &x, o.width);
    let first = net.file.add_initializer("class_index", Tensor::i64(Vec::new(), vec![0])?);
    x = net.file.node("Gather", "features", &[&x, &first], &[("axis", Attribute::Int(1))]);
    net.classifier("head", &x, [o.width, o.classes], Some((WEIGHT, ZERO)));
    Ok(net)
}

/// Equation 1: patches times a matrix, the class token in front, positions added.
fn embed(net: &mut Net, input: &str, o: &VitOptions, channels: usize, tokens: usize) -> Result<String, GraphError> {
    let weight = net.file.add_parameter("patches.weight", &[o.width, channels, o.patch, o.patch], WEIGHT);
    let bias = net.file.add_parameter("patches.bias", &[o.width], ZERO);
    let sizes = [("kernel_shape", ints(&[o.patch; 2])), ("strides", ints(&[o.patch; 2]))];
    let patches = net.file.node("Conv", "patches", &[input, &weight, &bias], &sizes);
    let flat = net.file.add_ints("patches.shape", &[0, int(o.width), -1]);
    let x = net.op("Reshape", "patches.flat", &[&patches, &flat]);
    let x = net.file.node("Transpose", "patches.tokens", &[&x], &[("perm", ints(&[0, 2, 1]))]);

    let token = net.file.add_parameter("class_token", &[1, 1, o.width], WEIGHT);
    let shape = net.op("Shape", "input.shape", &[input]);
    let first = net.file.add_ints("class_token.batch_index", &[0]);
    let batch = net.file.node("Gather", "class_token.batch", &[&shape, &first], &[("axis", Attribute::Int(0))]);
    let rest = net.file.add_ints("class_token.rest", &[1, int(o.width)]);
    let shape = net.file.node("Concat", "class_token.shape", &[&batch, &rest], &[("axis", Attribute::Int(0))]);
    let token = net.op("Expand", "class_token.expanded", &[&token, &shape]);

    let x = net.file.node("Concat", "tokens", &[&token, &x], &[("axis", Attribute::Int(1))]);
    let positions = net.file.add_parameter("positions", &[1, tokens, o.width], WEIGHT);
    Ok(net.op("Add", "embedded", &[&x, &positions]))
}

/// Equations 2 and 3.
fn block(net: &mut Net, name: &str, x: &str, o: &VitOptions, scale: &str) -> String {
    let y = layer_norm(net, &format!("{name}.norm1"), x, o.width);
    let y = attention(net, &format!("{name}.attention"), &y, o, scale);
    let x = net.op("Add", &format!("{name}.add1"), &[x, &y]);
    let y = layer_norm(net, &format!("{name}.norm2"), &x, o.width);
    let y = dense(net, &format!("{name}.mlp.fc1"), &y, [o.width, o.mlp]);
    let y = net.gelu(&format!("{name}.mlp.gelu"), &y);
    let y = dense(net, &format!("{name}.mlp.fc2"), &y, [o.mlp, o.width]);
    net.op("Add", &format!("{name}.add2"), &[&x, &y])
}

/// Appendix A: softmax(q kᵀ / √d) v in each head, then a linear layer over the heads side by side.
fn attention(net: &mut Net, name: &str, x: &str, o: &VitOptions, scale: &str) -> String {
    let split = net.file.add_ints("attention.heads", &[0, 0, int(o.heads), int(o.width / o.heads)]);
    let mut head = |part: &str, order: [usize; 4]| {
        let y = dense(net, &format!("{name}.{part}"), x, [o.width, o.width]);
        let y = net.op("Reshape", &format!("{name}.{part}.split"), &[&y, &split]);
        net.file.node("Transpose", &format!("{name}.{part}.heads"), &[&y], &[("perm", ints(&order))])
    };
    let query = head("query", [0, 2, 1, 3]);
    let key = head("key", [0, 2, 3, 1]);
    let value = head("value", [0, 2, 1, 3]);
    let scores = net.op("MatMul", &format!("{name}.products"), &[&query, &key]);
    let scores = net.op("Mul", &format!("{name}.scores"), &[&scores, scale]);
    let last = [("axis", Attribute::Int(-1))];
    let weights = net.file.node("Softmax", &format!("{name}.probabilities"), &[&scores], &last);
    let y = net.op("MatMul", &format!("{name}.mixed"), &[&weights, &value]);
    let y = net.file.node("Transpose", &format!("{name}.mixed.tokens"), &[&y], &[("perm", ints(&[0, 2, 1, 3]))]);
    let joined = net.file.add_ints("attention.joined", &[0, 0, int(o.width)]);
    let y = net.op("Reshape", &format!("{name}.mixed.joined"), &[&y, &joined]);
    dense(net, &format!("{name}.out"), &y, [o.width, o.width])
}

/// `x · weight + bias` on the last axis of tokens.
fn dense(net: &mut Net, name: &str, x: &str, [from, to]: [usize; 2]) -> String {
    let weight = net.file.add_parameter(&format!("{name}.weight"), &[from, to], WEIGHT);
    let bias = net.file.add_parameter(&format!("{name}.bias"), &[to], ZERO);
    let y = net.op("MatMul", &format!("{name}.product"), &[x, &weight]);
    net.op("Add", name, &[&y, &bias])
}

fn layer_norm(net: &mut Net, name: &str, x: &str, width: usize) -> String {
    let scale = net.file.add_parameter(&format!("{name}.weight"), &[width], Init::Constant(1.0));
    let shift = net.file.add_parameter(&format!("{name}.bias"), &[width], ZERO);
    let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(1e-6))];
    net.file.node("LayerNormalization", name, &[x, &scale, &shift], &attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_the_published_numbers() {
        // torchvision.models.vit_b_16; the paper's table 1 gives 86 million.
        assert_eq!(network(&VitOptions::base_16()).unwrap().file.trainable_count(), 86_567_656);
        // torchvision.models.vit_l_32.
        let large = VitOptions { patch: 32, width: 1024, depth: 24, heads: 16, mlp: 4096, ..VitOptions::base_16() };
        assert_eq!(network(&large).unwrap().file.trainable_count(), 306_535_400);
    }

    #[test]
    fn sizes_that_do_not_divide_are_refused() {
        let small = VitOptions { image: [1, 28, 28], patch: 7, ..VitOptions::base_16() };
        let refused = |o: VitOptions| network(&o).err().unwrap().to_string();
        let error = refused(VitOptions { patch: 8, ..small.clone() });
        assert_eq!(error, "vit: `patch` is 8, it must divide the image's 28×28");
        assert_eq!(
            refused(VitOptions { heads: 5, ..small.clone() }),
            "vit: `heads` is 5, it must divide the width of 768"
        );
        assert!(refused(VitOptions { depth: 0, ..small.clone() }).contains("`depth` is 0"));
        assert!(refused(VitOptions { patch: 0, ..small }).contains("`patch` is 0"));
    }
}
