//! Small convolutional networks.

use super::{Conv, DEEPEST, Net, check_image, check_range, check_sizes, refuse};
use crate::draw::Init;
use crate::error::GraphError;
use crate::model::Model;

/// Sizes of a small convolutional network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CnnOptions {
    /// Channels, height, width.
    pub image: [usize; 3],
    /// Channels after each convolution; each is followed by ReLU and 2×2 max pooling, which halves height and width.
    pub channels: Vec<usize>,
    /// Width of the linear layer before the last one.
    pub hidden: usize,
    /// Number of classes.
    pub classes: usize,
    /// Of the initial weights.
    pub seed: u64,
}

impl CnnOptions {
    /// 32 and 64 channels and 128 hidden units: the size of network that the MNIST examples of most libraries train.
    pub fn new(image: [usize; 3], classes: usize) -> Self {
        Self { image, channels: vec![32, 64], hidden: 128, classes, seed: 0 }
    }
}

/// A convolutional network in the manner of LeNet (LeCun et al. 1998): 3×3 convolutions with ReLU and max pooling, then
/// two linear layers.
///
/// The hidden linear layer starts normal with variance 2 / fan-in.
/// # Shapes
/// `[batch, channels, height, width]` → `[batch, classes]`
/// # Errors
/// A size is 0 or too large, or the image is too small for so many poolings.
pub fn cnn(options: &CnnOptions) -> Result<Model, GraphError> {
    network(options)?.build(options.seed)
}

fn network(o: &CnnOptions) -> Result<Net, GraphError> {
    check_image("cnn", o.image, o.classes)?;
    check_sizes("cnn", &[("hidden", o.hidden)])?;
    check_sizes("cnn", &o.channels.iter().map(|&n| ("channels", n)).collect::<Vec<_>>())?;
    check_range("cnn", &[("number of convolutions", o.channels.len())], DEEPEST)?;
    let [mut from, mut height, mut width] = o.image;
    let (mut net, mut x) = Net::new("cnn", &o.image);
    for (i, &to) in o.channels.iter().enumerate() {
        (height, width) = (height / 2, width / 2);
        if height == 0 || width == 0 {
            let [_, h, w] = o.image;
            let message = format!("an image of {h}×{w} cannot be halved {} times, give fewer channels", i + 1);
            return Err(refuse("cnn", message));
        }
        x = net.conv(&format!("conv{}", i + 1), &x, Conv { bias: true, ..Conv::new(from, to, 3) });
        x = net.op("Relu", &format!("relu{}", i + 1), &[&x]);
        x = net.max_pool(&format!("pool{}", i + 1), &x, 2, 2, 0);
        from = to;
    }
    x = net.flatten("flatten", &x);
    let features = from.saturating_mul(height).saturating_mul(width);
    let init = Init::Normal((2.0 / features as f64).sqrt());
    x = net.linear("fc1", &x, [features, o.hidden], init, Init::Constant(0.0));
    x = net.op("Relu", "features", &[&x]);
    net.classifier("fc2", &x, [o.hidden, o.classes], None);
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_follow_from_the_sizes() {
        let net = network(&CnnOptions::new([1, 28, 28], 10)).unwrap();
        let convolutions = (32 * 9 + 32) + (64 * 32 * 9 + 64);
        assert_eq!(net.file.trainable_count(), convolutions + (64 * 7 * 7 * 128 + 128) + (128 * 10 + 10));
    }

    #[test]
    fn images_that_are_too_small_are_refused() {
        let error = network(&CnnOptions::new([1, 3, 9], 10)).err().unwrap().to_string();
        assert_eq!(error, "cnn: an image of 3×9 cannot be halved 2 times, give fewer channels");
        assert!(network(&CnnOptions::new([0, 8, 8], 10)).err().unwrap().to_string().contains("image channels"));
        assert!(network(&CnnOptions { channels: vec![], ..CnnOptions::new([1, 8, 8], 10) }).is_err());
    }
}
