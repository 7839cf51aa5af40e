//! The Kullback–Leibler divergence of two softmax answers, with both gradients.

use netproof_tensor::Tensor;
use netproof_train::TrainError;

/// Logarithms of softmax, in double precision.
pub(in crate::adversarial::defences) fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&v| f64::from(v - max).exp()).sum();
    let log = sum.ln() + f64::from(max);
    logits.iter().map(|&v| f64::from(v) - log).collect()
}

/// `KL(p ‖ q) = Σ p (log p − log q)`, from logarithms.
pub(super) fn kl(log_p: &[f64], log_q: &[f64]) -> f64 {
    // A class that p rules out counts nothing, whatever q says.
    log_p.iter().zip(log_q).map(|(p, q)| if p.exp() == 0.0 { 0.0 } else { p.exp() * (p - q) }).sum()
}

/// Gradient of [`kl`] with respect to the logits of `p`: `p_i (log p_i − log q_i − KL)`.
pub(super) fn slope_of_p(log_p: &[f64], log_q: &[f64], kl: f64) -> impl Iterator<Item = f64> {
    log_p.iter().zip(log_q).map(move |(p, q)| if p.exp() == 0.0 { 0.0 } else { p.exp() * (p - q - kl) })
}

/// Gradient of [`kl`] with respect to the logits of `q`: `q_i − p_i`.
pub(super) fn slope_of_q(log_p: &[f64], log_q: &[f64]) -> impl Iterator<Item = f64> {
    log_p.iter().zip(log_q).map(|(p, q)| q.exp() - p.exp())
}

/// The rows of answers that are logits of two or more classes.
pub(in crate::adversarial::defences) fn logits<'a>(
    what: &str,
    answers: &'a Tensor,
) -> Result<(usize, &'a [f32]), TrainError> {
    let width = answers.row_len();
    match answers.as_f32() {
        Some(values) if width >= 2 => Ok((width, values)),
        _ => {
            let message = format!(
                "`{what}` compares probabilities of two or more classes, the network answers with {width} numbers per row"
            );
            Err(TrainError::Mismatch { message })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_and_slopes_match_the_definition() {
        let (a, b) = ([0.3f32, -1.2, 2.0], [1.0f32, 0.5, -0.7]);
        let value = |a: &[f32], b: &[f32]| {
            let soft = |z: &[f32]| {
                let e: Vec<f64> = z.iter().map(|&v| f64::from(v).exp()).collect();
                let s: f64 = e.iter().sum();
                e.iter().map(|v| v / s).collect::<Vec<f64>>()
            };
            soft(a).iter().zip(soft(b)).map(|(p, q)| p * (p / q).ln()).sum::<f64>()
        };
        let (p, q) = (log_softmax(&a), log_softmax(&b));
        let got = kl(&p, &q);
        assert!((got - value(&a, &b)).abs() < 1e-6);
        let of_p: Vec<f64> = slope_of_p(&p, &q, got).collect();
        let of_q: Vec<f64> = slope_of_q(&p, &q).collect();
        for i in 0..3 {
            let moved = |z: &[f32; 3], d: f32| {
                let mut z = *z;
                z[i] += d;
                z
            };
            let h = 1e-2;
            let slope = (value(&moved(&a, h), &b) - value(&moved(&a, -h), &b)) / (2.0 * f64::from(h));
            assert!((of_p[i] - slope).abs() < 1e-4, "{} {slope}", of_p[i]);
            let slope = (value(&a, &moved(&b, h)) - value(&a, &moved(&b, -h))) / (2.0 * f64::from(h));
            assert!((of_q[i] - slope).abs() < 1e-4, "{} {slope}", of_q[i]);
        }
        assert_eq!(kl(&p, &p), 0.0);
    }

    #[test]
    fn extreme_logits_stay_finite() {
        let (p, q) = (log_softmax(&[2000.0, -2000.0]), log_softmax(&[-2000.0, 2000.0]));
        assert!((kl(&p, &q) - 4000.0).abs() < 1e-6);
        assert!(slope_of_p(&p, &q, kl(&p, &q)).all(f64::is_finite));
    }
}
