//! Residual networks of basic blocks. He et al., CVPR 2016, arXiv:1512.03385.

use super::{Conv, DEEPEST, Net, check_image, refuse};
use crate::error::GraphError;
use crate::file_builder::Attribute;
use crate::model::Model;

/// What carries a value past a block that changes its shape (He et al. 2016, section 3.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shortcut {
    /// Option A: every second row and column, and channels of zeros, half of them on each side; no parameters. The paper
    /// uses it for CIFAR-10.
    #[default]
    ZeroPadding,
    /// Option B: a 1×1 convolution with batch normalisation. The paper uses it for ImageNet.
    Projection,
}

/// ResNet-18 for images of the size of ImageNet's: 7×7 convolution with stride 2, max pooling, four stages of two basic
/// blocks with 64 to 512 channels, global average pooling. 11,689,512 trainable parameters for 3 channels and 1,000
/// classes.
///
/// Names are those of torchvision, so that its weights fit by name. Batch normalisation starts at scale 1 everywhere, as
/// in the paper; not at 0 at the end of each block, as Goyal et al. 2017 propose for large batches.
/// # Shapes
/// image: `[channels, height, width]`; `[batch, channels, height, width]` → `[batch, classes]`
/// # Errors
/// A size is 0 or too large.
/// # Source
/// He et al. 2016, table 1, shortcuts of option B.
pub fn resnet18(image: [usize; 3], classes: usize, seed: u64) -> Result<Model, GraphError> {
    network18(image, classes)?.build(seed)
}

/// The residual network for CIFAR-10: 3×3 convolution, three stages of n basic blocks with 16, 32 and 64 channels, global
/// average pooling; depth = 6n + 2. Depth 20 has 269,722 trainable parameters for 3 channels and 10 classes with
/// [`Shortcut::ZeroPadding`].
/// # Shapes
/// image: `[channels, height, width]`; `[batch, channels, height, width]` → `[batch, classes]`
/// # Errors
/// A size is 0 or too large, or the depth is not 8, 14, 20, ...
/// # Source
/// He et al. 2016, section 4.2.
pub fn resnet_cifar(
    depth: usize,
    shortcut: Shortcut,
    image: [usize; 3],
    classes: usize,
    seed: u64,
) -> Result<Model, GraphError> {
    network_cifar(depth, shortcut, image, classes)?.build(seed)
}

fn network18(image: [usize; 3], classes: usize) -> Result<Net, GraphError> {
    check_image("resnet18", image, classes)?;
    let (mut net, input) = Net::new("resnet18", &image);
    let x = net.conv("conv1", &input, Conv { stride: 2, ..Conv::new(image[0], 64, 7) });
    let x = net.batch_norm("bn1", &x, 64);
    let x = net.op("Relu", "relu", &[&x]);
    let x = net.max_pool("maxpool", &x, 3, 2, 1);
    stages(&mut net, x, &[64, 128, 256, 512], 2, Shortcut::Projection, classes);
    Ok(net)
}

fn network_cifar(depth: usize, shortcut: Shortcut, image: [usize; 3], classes: usize) -> Result<Net, GraphError> {
    check_image("resnet_cifar", image, classes)?;
    if depth < 8 || depth % 6 != 2 || depth > DEEPEST {
        let message = format!("`depth` is {depth}, it must be 6n + 2 (8, 14, 20, ...) and at most {DEEPEST}");
        return Err(refuse("resnet_cifar", message));
    }
    let (mut net, input) = Net::new("resnet_cifar", &image);
    let x = net.conv("conv1", &input, Conv::new(image[0], 16, 3));
    let x = net.batch_norm("bn1", &x, 16);
    let x = net.op("Relu", "relu", &[&x]);
    stages(&mut net, x, &[16, 32, 64], (depth - 2) / 6, shortcut, classes);
    Ok(net)
}

/// Stages of basic blocks, each after the first with half the height and width; then pooling and the last layer.
fn stages(net: &mut Net, mut x: String, channels: &[usize], blocks: usize, shortcut: Shortcut, classes: usize) {
    let mut from = channels.first().copied().unwrap_or(1);
    for (stage, &to) in channels.iter().enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            x = basic_block(net, &format!("layer{}.{block}", stage + 1), &x, [from, to], stride, shortcut);
            from = to;
        }
    }
    let x = net.op("GlobalAveragePool", "avgpool", &[&x]);
    let x = net.flatten("features", &x);
    net.classifier("fc", &x, [from, classes], None);
}

/// Figure 5, left: two 3×3 convolutions, each with batch normalisation, and the shortcut added before the last ReLU.
fn basic_block(
    net: &mut Net,
    name: &str,
    x: &str,
    [from, to]: [usize; 2],
    stride: usize,
    shortcut: Shortcut,
) -> String {
    let y = net.conv(&format!("{name}.conv1"), x, Conv { stride, ..Conv::new(from, to, 3) });
    let y = net.batch_norm(&format!("{name}.bn1"), &y, to);
    let y = net.op("Relu", &format!("{name}.relu1"), &[&y]);
    let y = net.conv(&format!("{name}.conv2"), &y, Conv::new(to, to, 3));
    let y = net.batch_norm(&format!("{name}.bn2"), &y, to);
    let past = match shortcut {
        _ if stride == 1 && from == to => x.to_owned(),
        Shortcut::Projection => {
            let p = net.conv(&format!("{name}.downsample.0"), x, Conv { stride, ..Conv::new(from, to, 1) });
            net.batch_norm(&format!("{name}.downsample.1"), &p, to)
        }
        Shortcut::ZeroPadding => zero_padding(net, name, x, to - from, stride),
    };
    let y = net.op("Add", &format!("{name}.add"), &[&y, &past]);
    net.op("Relu", &format!("{name}.relu2"), &[&y])
}

fn zero_padding(net: &mut Net, name: &str, x: &str, more: usize, stride: usize) -> String {
    let stride = super::int(stride);
    let starts = net.file.add_ints("shortcut.starts", &[0, 0]);
    let ends = net.file.add_ints("shortcut.ends", &[i64::MAX, i64::MAX]);
    let axes = net.file.add_ints("shortcut.axes", &[2, 3]);
    let steps = net.file.add_ints("shortcut.steps", &[stride, stride]);
    let y = net.op("Slice", &format!("{name}.shortcut.slice"), &[x, &starts, &ends, &axes, &steps]);
    let (before, after) = (super::int(more / 2), super::int(more - more / 2));
    let pads = net.file.add_ints(&format!("{name}.shortcut.pads"), &[0, before, 0, 0, 0, after, 0, 0]);
    let mode = [("mode", Attribute::Text("constant".to_owned()))];
    net.file.node("Pad", &format!("{name}.shortcut"), &[&y, &pads], &mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_the_published_numbers() {
        // torchvision.models.resnet18, and the table of He et al. 2016, section 4.2, in full digits.
        assert_eq!(network18([3, 224, 224], 1000).unwrap().file.trainable_count(), 11_689_512);
        let cifar = |depth, shortcut| network_cifar(depth, shortcut, [3, 32, 32], 10).unwrap().file.trainable_count();
        assert_eq!(cifar(20, Shortcut::ZeroPadding), 269_722);
        assert_eq!(cifar(110, Shortcut::ZeroPadding), 1_727_962);
        // Two projections: 16·32 and 32·64 weights, and scale and shift of their batch normalisations.
        assert_eq!(cifar(20, Shortcut::Projection), 269_722 + 16 * 32 + 64 + 32 * 64 + 128);
    }

    #[test]
    fn depths_between_are_refused() {
        for depth in [0, 2, 18, 21, 6 * 2000 + 2] {
            let error = network_cifar(depth, Shortcut::ZeroPadding, [3, 32, 32], 10).err().unwrap().to_string();
            assert!(error.contains(&format!("`depth` is {depth}")), "{error}");
        }
    }
}
