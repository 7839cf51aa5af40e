//! Losses on logits that attacks raise, with their gradients.
//!
//! Cross-entropy; the difference of logits ratio (DLR) and its targeted form, Croce and Hein, ICML 2020, arXiv:2003.01690,
//! equations 6 and 7; the margin of Carlini and Wagner, IEEE S&P 2017, objective 6. Each is above 0, or rises, towards a wrong
//! answer. Checked against: finite differences; the published formulas in the tests.
//!
//! DLR divides by a difference of the three or four largest logits, so it needs three classes, its targeted form four.
//! [`Loss::dlr`] and [`Loss::targeted_dlr`] answer with what stands in for it below that: the margin, with or without a target,
//! which is DLR without its division; the sign of its gradient, and so each l-infinity step, is the same where DLR has one.

/// What an attack raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// `log sum exp z - z_y`
    CrossEntropy,
    /// `-(z_y - max z_i) / (z_(1) - z_(3) + 1e-12)`
    Dlr,
    /// `-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12)`
    TargetedDlr,
    /// `max z_i - z_y`
    Margin,
    /// `z_t - z_y`
    TargetedMargin,
    /// `z_t - log sum exp z`: towards the target.
    TargetedCrossEntropy,
}

impl Loss {
    /// DLR, or what stands in for it with fewer than three classes.
    pub fn dlr(classes: usize) -> Self {
        if classes >= 3 { Self::Dlr } else { Self::Margin }
    }

    /// Targeted DLR, or what stands in for it with fewer than four classes.
    pub fn targeted_dlr(classes: usize) -> Self {
        if classes >= 4 { Self::TargetedDlr } else { Self::TargetedMargin }
    }

    /// The loss of a row, in nats or units of logits. The gradient with respect to the logits is added to `seed`.
    ///
    /// `target` matters for targeted losses only.
    pub fn of(self, z: &[f32], label: usize, target: usize, seed: &mut [f32]) -> f32 {
        match self {
            Self::CrossEntropy => softmax_into(z, label, 1.0, seed),
            Self::TargetedCrossEntropy => -softmax_into(z, target, -1.0, seed),
            Self::Margin => {
                let other = best_other(z, label);
                seed[other] += 1.0;
                seed[label] -= 1.0;
                z[other] - z[label]
            }
            Self::TargetedMargin => {
                seed[target] += 1.0;
                seed[label] -= 1.0;
                z[target] - z[label]
            }
            Self::Dlr => {
                let [first, second, third, _] = largest(z);
                let scale = z[first] - z[third] + 1e-12;
                // The logit that is subtracted: the largest, or the second where the label is the largest.
                let other = if first == label { second } else { first };
                let value = (z[other] - z[label]) / scale;
                seed[other] += 1.0 / scale;
                seed[label] -= 1.0 / scale;
                seed[first] -= value / scale;
                seed[third] += value / scale;
                value
            }
            Self::TargetedDlr => {
                let [first, _, third, fourth] = largest(z);
                let scale = z[first] - 0.5 * (z[third] + z[fourth]) + 1e-12;
                let value = (z[target] - z[label]) / scale;
                seed[target] += 1.0 / scale;
                seed[label] -= 1.0 / scale;
                seed[first] -= value / scale;
                seed[third] += 0.5 * value / scale;
                seed[fourth] += 0.5 * value / scale;
                value
            }
        }
    }
}

/// Cross-entropy of a class in nats; `sign` times its gradient is added to `seed`.
fn softmax_into(z: &[f32], class: usize, sign: f32, seed: &mut [f32]) -> f32 {
    let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = z.iter().map(|v| (v - max).exp()).sum();
    for (i, (s, v)) in seed.iter_mut().zip(z).enumerate() {
        let p = (v - max).exp() / sum;
        // 1 - p of the class itself as the sum of the others: it would cancel to 0 long before they vanish.
        if i != class {
            *s += sign * p;
        }
    }
    let others: f32 = z.iter().enumerate().filter(|(i, _)| *i != class).map(|(_, v)| (v - max).exp()).sum();
    seed[class] -= sign * (others / sum);
    sum.ln() + max - z[class]
}

/// The class with the largest logit; the first of equal ones. NaN is never the largest.
pub fn argmax(z: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in z.iter().enumerate() {
        if *v > z[best] || (z[best].is_nan() && !v.is_nan()) {
            best = i;
        }
    }
    best
}

/// The class with the largest logit beside one.
pub fn best_other(z: &[f32], label: usize) -> usize {
    let mut best = usize::from(label == 0);
    for (i, v) in z.iter().enumerate() {
        if i != label && *v > z[best] {
            best = i;
        }
    }
    best
}

/// How far the right class is ahead of the best wrong one; negative where the answer is wrong.
pub fn margin(z: &[f32], label: usize) -> f32 {
    z[label] - z[best_other(z, label)]
}

/// Whether a row's answer is the label. Equal logits count as the first of them, as everywhere.
pub fn is_right(z: &[f32], label: usize) -> bool {
    argmax(z) == label && z.iter().all(|v| !v.is_nan())
}

/// The four classes with the largest logits, largest first; classes repeat where there are fewer.
pub fn largest(z: &[f32]) -> [usize; 4] {
    let mut top = [usize::MAX; 4];
    for i in 0..z.len() {
        let mut new = i;
        for slot in &mut top {
            if *slot == usize::MAX || z[new] > z[*slot] {
                std::mem::swap(slot, &mut new);
                if new == usize::MAX {
                    break;
                }
            }
        }
    }
    let last = top.iter().rev().find(|t| **t != usize::MAX).copied().unwrap_or(0);
    top.map(|t| if t == usize::MAX { last } else { t })
}

/// The classes by falling logit, the label left out: the order in which targets are tried.
pub fn targets(z: &[f32], label: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..z.len()).filter(|&c| c != label).collect();
    order.sort_by(|&a, &b| z[b].total_cmp(&z[a]).then(a.cmp(&b)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const Z: [f32; 5] = [1.0, 3.5, -2.0, 2.25, 0.5];

    #[test]
    fn values_are_those_of_the_published_formulas() {
        let of = |l: Loss, y, t| l.of(&Z, y, t, &mut [0.0; 5]);
        // Sorted: 3.5, 2.25, 1, 0.5, -2.
        assert!((of(Loss::Dlr, 1, 0) - -(3.5 - 2.25) / (3.5 - 1.0)).abs() < 1e-6);
        assert!((of(Loss::Dlr, 0, 0) - -(1.0 - 3.5) / (3.5 - 1.0)).abs() < 1e-6);
        assert!((of(Loss::TargetedDlr, 1, 4) - -(3.5 - 0.5) / (3.5 - 0.75)).abs() < 1e-6);
        assert_eq!(of(Loss::Margin, 1, 0), 2.25 - 3.5);
        let z: f32 = Z.iter().map(|v| v.exp()).sum();
        assert!((of(Loss::CrossEntropy, 3, 0) - (z.ln() - 2.25)).abs() < 1e-5);
        assert!((of(Loss::TargetedCrossEntropy, 3, 2) - (-2.0 - z.ln())).abs() < 1e-5);
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        use Loss::{CrossEntropy, Dlr, Margin, TargetedCrossEntropy, TargetedDlr, TargetedMargin};
        for loss in [CrossEntropy, Dlr, TargetedDlr, Margin, TargetedMargin, TargetedCrossEntropy] {
            for label in 0..5 {
                let target = (label + 2) % 5;
                let mut seed = [0.0; 5];
                loss.of(&Z, label, target, &mut seed);
                for i in 0..5 {
                    let at = |h: f32| {
                        let mut z = Z;
                        z[i] += h;
                        loss.of(&z, label, target, &mut [0.0; 5])
                    };
                    let numeric = (at(0.01) - at(-0.01)) / 0.02;
                    assert!((seed[i] - numeric).abs() < 2e-3, "{loss:?} {label} {i}: {} {numeric}", seed[i]);
                }
            }
        }
    }

    #[test]
    fn a_sure_answer_still_has_a_gradient() {
        // In float32 the softmax of the label is exactly 1 here.
        let mut seed = [0.0; 2];
        Loss::CrossEntropy.of(&[0.0, 40.0], 1, 0, &mut seed);
        assert!(seed[0] > 0.0 && seed[1] < 0.0, "{seed:?}");
    }

    #[test]
    fn orders_of_classes() {
        assert_eq!(largest(&Z), [1, 3, 0, 4]);
        assert_eq!(largest(&[2.0, 1.0]), [0, 1, 1, 1]);
        assert_eq!(targets(&Z, 3), [1, 0, 4, 2]);
        assert_eq!((argmax(&Z), best_other(&Z, 1), best_other(&Z, 0)), (1, 3, 1));
        assert_eq!(margin(&Z, 3), -1.25);
        assert_eq!(argmax(&[f32::NAN, 1.0]), 1);
        assert!(!is_right(&[f32::NAN, 1.0], 1));
        assert_eq!((Loss::dlr(2), Loss::targeted_dlr(3)), (Loss::Margin, Loss::TargetedMargin));
    }
}
