//! Losses on the host with their gradients, to seed a backward pass.

use netproof_tensor::Tensor;

use crate::error::GraphError;

/// Cross-entropy of each row of logits, in nats, and its gradient with respect to the logits: softmax minus one-hot.
/// # Shapes
/// `logits [n, classes]`, `labels [n]` → values `[n]`, gradient of their sum `[n, classes]`
/// # Errors
/// The shapes do not fit, or a label is not below the number of classes.
/// # Source
/// Goodfellow, Bengio, Courville: Deep Learning, 2016, section 6.2.2.3
pub fn cross_entropy(logits: &Tensor, labels: &[usize]) -> Result<(Vec<f64>, Tensor), GraphError> {
    let fail = |message: String| GraphError::Rewrite { what: "cross_entropy", message };
    let (Some(values), &[n, classes]) = (logits.as_f32(), logits.shape()) else {
        return Err(fail(format!("logits are {} {:?}, must be float [n, classes]", logits.dtype(), logits.shape())));
    };
    if labels.len() != n || classes == 0 {
        return Err(fail(format!("{n} rows of {classes} logits, {} labels", labels.len())));
    }
    let mut losses = Vec::with_capacity(n);
    let mut gradient = Vec::with_capacity(values.len());
    for (row, &label) in values.chunks_exact(classes).zip(labels) {
        let Some(&own) = row.get(label) else {
            return Err(fail(format!("label {label} is not below the number of classes, {classes}")));
        };
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&v| f64::from(v - max).exp()).sum();
        losses.push(sum.ln() + f64::from(max) - f64::from(own));
        gradient.extend(row.iter().enumerate().map(|(c, &v)| {
            let p = f64::from(v - max).exp() / sum;
            (if c == label { p - 1.0 } else { p }) as f32
        }));
    }
    Ok((losses, Tensor::f32(vec![n, classes], gradient)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_and_gradient_agree_with_the_closed_form() {
        let logits = Tensor::f32(vec![2, 3], vec![1.0, 2.0, 3.0, 1000.0, 0.0, -1000.0]).unwrap();
        let (loss, gradient) = cross_entropy(&logits, &[0, 1]).unwrap();
        let z = 1f64.exp() + 2f64.exp() + 3f64.exp();
        assert!((loss[0] - (z.ln() - 1.0)).abs() < 1e-6);
        assert!((loss[1] - 1000.0).abs() < 1e-6);
        let g = gradient.as_f32().unwrap();
        assert!((f64::from(g[0]) - (1f64.exp() / z - 1.0)).abs() < 1e-6);
        assert!((f64::from(g[2]) - 3f64.exp() / z).abs() < 1e-6);
        assert_eq!(&g[3..], [1.0, -1.0, 0.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let logits = Tensor::f32(vec![1, 2], vec![0.0, 0.0]).unwrap();
        assert!(cross_entropy(&logits, &[2]).is_err());
        assert!(cross_entropy(&logits, &[0, 1]).is_err());
        assert!(cross_entropy(&Tensor::f32(vec![2], vec![0.0; 2]).unwrap(), &[0, 0]).is_err());
    }
}
