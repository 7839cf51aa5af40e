//! The small network of the literature on robustness.

use super::{DEEPEST, Net, check_image, check_range, check_sizes, ints, refuse};
use crate::draw::Init;
use crate::error::GraphError;
use crate::file_builder::Attribute;
use crate::model::Model;

/// Height and width of the kernels.
const KERNEL: usize = 4;

/// Sizes of a network of strided convolutions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StridedCnnOptions {
    /// Channels, height, width.
    pub image: [usize; 3],
    /// Channels after each convolution; each halves height and width and is followed by ReLU.
    pub channels: Vec<usize>,
    /// Width of the linear layer before the last one.
    pub hidden: usize,
    /// Number of classes.
    pub classes: usize,
    /// Of the initial weights.
    pub seed: u64,
}

impl StridedCnnOptions {
    /// 16 and 32 channels and 100 hidden units.
    pub fn new(image: [usize; 3], classes: usize) -> Self {
        Self { image, channels: vec![16, 32], hidden: 100, classes, seed: 0 }
    }
}

/// 4×4 convolutions with stride 2 and padding 1, then two linear layers: no pooling, so that bounds through it are tight.
///
/// All weights and biases start uniform between ±1/√fan-in.
/// # Shapes
/// `[batch, channels, height, width]` → `[batch, classes]`
/// # Errors
/// A size is 0 or too large, or the image is too small for so many convolutions.
/// # Source
/// Wong and Kolter, ICML 2018, arXiv:1711.00851, section 5.1; the MNIST network of Wong, Rice and Kolter, ICLR 2020,
/// arXiv:2001.03994.
pub fn strided_cnn(options: &StridedCnnOptions) -> Result<Model, GraphError> {
    network(options)?.build(options.seed)
}

fn network(o: &StridedCnnOptions) -> Result<Net, GraphError> {
    const WHAT: &str = "strided_cnn";
    check_image(WHAT, o.image, o.classes)?;
    check_sizes(WHAT, &[("hidden", o.hidden)])?;
    check_sizes(WHAT, &o.channels.iter().map(|&n| ("channels", n)).collect::<Vec<_>>())?;
    check_range(WHAT, &[("number of convolutions", o.channels.len())], DEEPEST)?;
    let [mut from, mut height, mut width] = o.image;
    let (mut net, mut x) = Net::new(WHAT, &o.image);
    for (i, &to) in o.channels.iter().enumerate() {
        (height, width) = (height / 2, width / 2);
        if height == 0 || width == 0 {
            let [_, h, w] = o.image;
            let message = format!("an image of {h}×{w} cannot be halved {} times, give fewer channels", i + 1);
            return Err(refuse(WHAT, message));
        }
        let name = format!("conv{}", i + 1);
        let init = uniform(from.saturating_mul(KERNEL * KERNEL));
        let weight = net.file.add_parameter(&format!("{name}.weight"), &[to, from, KERNEL, KERNEL], init);
        let bias = net.file.add_parameter(&format!("{name}.bias"), &[to], init);
        let attributes = [
            ("group", Attribute::Int(1)),
            ("kernel_shape", ints(&[KERNEL; 2])),
            ("pads", ints(&[1; 4])),
            ("strides", ints(&[2; 2])),
        ];
        x = net.file.node("Conv", &name, &[&x, &weight, &bias], &attributes);
        x = net.op("Relu", &format!("relu{}", i + 1), &[&x]);
        from = to;
    }
    x = net.flatten("flatten", &x);
    let features = from.saturating_mul(height).saturating_mul(width);
    x = net.linear("fc1", &x, [features, o.hidden], uniform(features), uniform(features));
    x = net.op("Relu", "features", &[&x]);
    net.classifier("fc2", &x, [o.hidden, o.classes], None);
    Ok(net)
}

fn uniform(fan_in: usize) -> Init {
    Init::Uniform(1.0 / (fan_in as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_follow_from_the_sizes() {
        let net = network(&StridedCnnOptions::new([1, 28, 28], 10)).unwrap();
        let convolutions = (16 * 16 + 16) + (32 * 16 * 16 + 32);
        assert_eq!(net.file.trainable_count(), convolutions + (32 * 7 * 7 * 100 + 100) + (100 * 10 + 10));
    }

    #[test]
    fn images_that_are_too_small_are_refused() {
        let error = network(&StridedCnnOptions::new([1, 3, 9], 10)).err().unwrap().to_string();
        assert_eq!(error, "strided_cnn: an image of 3×9 cannot be halved 2 times, give fewer channels");
    }
}
