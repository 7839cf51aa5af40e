//! MobileNetV2. Sandler et al., CVPR 2018, arXiv:1801.04381.

use super::{Conv, Net, check_image, refuse};
use crate::draw::Init;
use crate::error::GraphError;
use crate::model::Model;
use netproof_tensor::Tensor;

/// Table 2 of the paper: expansion, channels, blocks, stride of the first block.
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// MobileNetV2: inverted residuals with linear bottlenecks and ReLU6. 3,504,872 trainable parameters for 3 channels,
/// 1,000 classes and width 1.
///
/// Names, rounding of channels to multiples of 8 and dropout of 0.2 before the last layer are those of torchvision, whose
/// weights fit by name. The last layer starts normal with standard deviation 0.01, biases at 0.
///
/// The first layers halve the image five times in all, which is made for images from about 96×96 upwards.
/// # Shapes
/// image: `[channels, height, width]`; `[batch, channels, height, width]` → `[batch, classes]`
/// # Errors
/// A size is 0 or too large; the width multiplier is not between 0.05 and 16.
/// # Source
/// Sandler et al. 2018, tables 1 and 2.
pub fn mobilenet_v2(image: [usize; 3], classes: usize, width: f64, seed: u64) -> Result<Model, GraphError> {
    network(image, classes, width)?.build(seed)
}

fn network(image: [usize; 3], classes: usize, width: f64) -> Result<Net, GraphError> {
    check_image("mobilenet_v2", image, classes)?;
    if !(0.05..=16.0).contains(&width) {
        return Err(refuse("mobilenet_v2", format!("`width` is {width}, it must be between 0.05 and 16")));
    }
    let (mut net, input) = Net::new("mobilenet_v2", &image);
    let mut from = multiple_of_8(32.0 * width);
    let first = Conv { stride: 2, ..Conv::new(image[0], from, 3) };
    let mut x = layer(&mut net, ["features.0.0", "features.0.1"], "features.0", &input, first);
    let mut index = 1;
    for (expansion, channels, blocks, first_stride) in STAGES {
        let to = multiple_of_8(channels as f64 * width);
        for block in 0..blocks {
            let stride = if block == 0 { first_stride } else { 1 };
            x = inverted_residual(&mut net, &format!("features.{index}"), &x, [from, to], expansion, stride);
            from = to;
            index += 1;
        }
    }
    let last = multiple_of_8(1280.0 * width.max(1.0));
    x = layer(&mut net, ["features.18.0", "features.18.1"], "features.18", &x, Conv::new(from, last, 1));
    x = net.op("GlobalAveragePool", "avgpool", &[&x]);
    x = net.flatten("features", &x);
    let ratio = net.file.add_initializer("classifier.0.ratio", Tensor::f32(Vec::new(), vec![0.2])?);
    x = net.op("Dropout", "classifier.0", &[&x, &ratio]);
    net.classifier("classifier.1", &x, [last, classes], Some((Init::Normal(0.01), Init::Constant(0.0))));
    Ok(net)
}

/// The nearest multiple of 8, at least 8, but never less than nine tenths of what was asked for.
fn multiple_of_8(channels: f64) -> usize {
    let near = (((channels + 4.0) / 8.0).floor() * 8.0).max(8.0);
    (if near < 0.9 * channels { near + 8.0 } else { near }) as usize
}

/// Convolution, batch normalisation, ReLU6.
fn layer(net: &mut Net, [conv, norm]: [&str; 2], out: &str, x: &str, c: Conv) -> String {
    let y = net.conv(conv, x, c);
    let y = net.batch_norm(norm, &y, c.to);
    net.relu6(&format!("{out}.relu6"), &y)
}

/// Table 1: expand by 1×1, filter each channel by 3×3, project by 1×1 without an activation.
fn inverted_residual(
    net: &mut Net,
    name: &str,
    x: &str,
    [from, to]: [usize; 2],
    expansion: usize,
    stride: usize,
) -> String {
    let inner = from * expansion;
    let mut y = x.to_owned();
    let mut part = 0;
    let mut names = || {
        part += 1;
        let p = part - 1;
        [format!("{name}.conv.{p}.0"), format!("{name}.conv.{p}.1"), format!("{name}.conv.{p}")]
    };
    if expansion != 1 {
        let [conv, norm, out] = names();
        y = layer(net, [&conv, &norm], &out, &y, Conv::new(from, inner, 1));
    }
    let [conv, norm, out] = names();
    y = layer(net, [&conv, &norm], &out, &y, Conv { stride, groups: inner, ..Conv::new(inner, inner, 3) });
    y = net.conv(&format!("{name}.conv.{part}"), &y, Conv::new(inner, to, 1));
    y = net.batch_norm(&format!("{name}.conv.{}", part + 1), &y, to);
    if stride == 1 && from == to { net.op("Add", &format!("{name}.add"), &[x, &y]) } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_the_published_numbers() {
        // torchvision.models.mobilenet_v2(width_mult = w); the paper's table 4 gives 3.4 and 6.9 million for 1 and 1.4.
        let count = |width| network([3, 224, 224], 1000, width).unwrap().file.trainable_count();
        assert_eq!(count(1.0), 3_504_872);
        let thousands = count(1.4) / 1000;
        assert!((6_000..6_950).contains(&thousands), "{thousands}");
    }

    #[test]
    fn channels_are_rounded_as_published() {
        assert_eq!([32.0, 24.0, 11.2, 44.8, 3.0, 12.0].map(multiple_of_8), [32, 24, 16, 48, 8, 16]);
    }

    #[test]
    fn widths_outside_the_range_are_refused() {
        for width in [0.0, -1.0, f64::NAN, f64::INFINITY, 17.0] {
            assert!(network([3, 32, 32], 10, width).err().unwrap().to_string().contains("`width`"));
        }
    }
}
