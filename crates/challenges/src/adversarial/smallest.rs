//! What attacks for the smallest change share: the best point of each row so far, and the nearest boundary of a linearised
//! network.

use netproof_core::Norm;

use super::AttackError;
use super::attack::Batch;
use super::loss::is_right;
use super::oracle::Oracle;
use super::projection::distance;
use super::rows::{gather, row, row_mut};

/// The smallest change with a wrong answer found so far, per row.
pub(crate) struct Smallest<'a> {
    batch: Batch<'a>,
    norm: Norm,
    /// `[n, row]`; the row itself where nothing was found.
    pub(crate) x: Vec<f32>,
    /// Size of the change; infinite where nothing was found.
    pub(crate) size: Vec<f64>,
}

impl<'a> Smallest<'a> {
    pub(crate) fn new(batch: &Batch<'a>, norm: Norm) -> Self {
        Self { batch: *batch, norm, x: batch.x.to_vec(), size: vec![f64::INFINITY; batch.len()] }
    }

    /// Takes a point of a row if its answer is wrong and nothing smaller is known. Whether its answer is wrong.
    pub(crate) fn see(&mut self, owner: usize, x: &[f32], z: &[f32]) -> bool {
        if is_right(z, self.batch.labels[owner]) || z.iter().any(|v| v.is_nan()) {
            return false;
        }
        let size = distance(self.norm, self.batch.row(owner), x);
        if size < self.size[owner] {
            self.size[owner] = size;
            row_mut(&mut self.x, self.batch.row_len(), owner).copy_from_slice(x);
        }
        true
    }

    /// Whether a wrong answer was found for a row.
    pub(crate) fn has(&self, owner: usize) -> bool {
        self.size[owner].is_finite()
    }
}

/// The nearest boundary of the linearised network: `w · d = -gap` for the move `d` that meets it.
#[derive(Debug, Clone)]
pub(crate) struct Boundary {
    /// Gradient of the gap.
    pub(crate) w: Vec<f32>,
    /// `z_y - z_k` for the nearest class `k`.
    pub(crate) gap: f64,
}

/// For each point the boundary that is nearest in the norm, among those to the `candidates` likeliest wrong classes of the
/// clean row. One forward pass, and a gradient per candidate.
/// # Shapes
/// `owners [n]`, `x [n, row]` → `[n]`
pub(crate) fn nearest_boundaries(
    oracle: &Oracle<'_, '_>,
    batch: &Batch<'_>,
    owners: &[usize],
    x: &[f32],
    norm: Norm,
    orders: &[Vec<usize>],
    candidates: usize,
) -> Result<Vec<Boundary>, AttackError> {
    let (len, k) = (batch.row_len(), batch.classes());
    let mut all = Vec::with_capacity(owners.len());
    let most = oracle.victim().batch_rows();
    for (from, part) in owners.chunks(most).enumerate().map(|(i, part)| (i * most, part)) {
        let seen = oracle.evaluate(part, &x[from * len..(from + part.len()) * len])?;
        let mut nearest = vec![f64::INFINITY; part.len()];
        let mut found: Vec<Boundary> = vec![Boundary { w: vec![0.0; len], gap: 0.0 }; part.len()];
        for rank in 0..candidates.min(k - 1) {
            let mut seeds = vec![0.0; part.len() * k];
            for (i, &o) in part.iter().enumerate() {
                seeds[i * k + batch.labels[o]] += 1.0;
                seeds[i * k + orders[from + i][rank]] -= 1.0;
            }
            let gradients = seen.gradient(&seeds)?;
            for (i, &o) in part.iter().enumerate() {
                let z = row(seen.logits(), k, i);
                let gap = f64::from(z[batch.labels[o]]) - f64::from(z[orders[from + i][rank]]);
                let w = row(&gradients, len, i);
                let far = gap.abs() / (dual(norm, w) + 1e-8);
                if far < nearest[i] {
                    nearest[i] = far;
                    found[i].gap = gap;
                    found[i].w.copy_from_slice(w);
                }
            }
        }
        all.append(&mut found);
    }
    Ok(all)
}

/// The dual norm: how fast a linear function can change per unit of the norm.
pub(crate) fn dual(norm: Norm, w: &[f32]) -> f64 {
    let sizes = w.iter().map(|v| f64::from(v.abs()));
    match norm {
        Norm::Linf => sizes.sum(),
        Norm::L2 => sizes.map(|v| v * v).sum::<f64>().sqrt(),
        Norm::L1 | Norm::L0 | Norm::Patch | Norm::Spatial => sizes.fold(0.0, f64::max),
    }
}

/// Length of a vector in l2.
pub(crate) fn length(v: &[f32]) -> f64 {
    v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

/// The weight of the loss beside the size of the change, found by doubling and halving: Carlini and Wagner 2017, section V.A.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weight {
    pub(crate) value: f64,
    low: f64,
    high: f64,
}

impl Weight {
    pub(crate) fn new(first: f64) -> Self {
        Self { value: first, low: 0.0, high: f64::INFINITY }
    }

    /// Less where a wrong answer was found with this weight, more where not.
    pub(crate) fn adjust(&mut self, found: bool) {
        if found {
            self.high = self.value;
        } else {
            self.low = self.value;
        }
        self.value = if self.high.is_finite() { 0.5 * (self.low + self.high) } else { self.value * 10.0 };
    }
}

/// Adam's moments of one row. Kingma and Ba, ICLR 2015, arXiv:1412.6980, algorithm 1.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
    step: i32,
}

impl Moments {
    pub(crate) fn new(len: usize) -> Self {
        Self { first: vec![0.0; len], second: vec![0.0; len], step: 0 }
    }

    /// Moves `x` against the gradient.
    pub(crate) fn descend(&mut self, rate: f64, gradient: &[f32], x: &mut [f32]) {
        const BETA: [f32; 2] = [0.9, 0.999];
        self.step += 1;
        let first = (1.0 - f64::from(BETA[0]).powi(self.step)).recip() as f32;
        let second = (1.0 - f64::from(BETA[1]).powi(self.step)).recip() as f32;
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((x, g), (m, v)) in x.iter_mut().zip(gradient).zip(moments) {
            *m += (1.0 - BETA[0]) * (g - *m);
            *v += (1.0 - BETA[1]) * (g * g - *v);
            *x -= rate as f32 * (*m * first) / ((*v * second).sqrt() + 1e-8);
        }
    }
}

/// From `first` to `last` along half a cosine. `at` is 0 to 1.
pub(crate) fn cosine(first: f64, last: f64, at: f64) -> f64 {
    last + (first - last) * 0.5 * (1.0 + (std::f64::consts::PI * at).cos())
}

/// Points of several rows, one after the other, as one array.
pub(crate) fn joined<'p>(points: impl Iterator<Item = &'p [f32]>) -> Vec<f32> {
    let mut all = Vec::new();
    points.for_each(|p| all.extend_from_slice(p));
    all
}

/// Clean rows of these owners.
pub(crate) fn origins(batch: &Batch<'_>, owners: &[usize]) -> Vec<f32> {
    gather(batch.x, batch.row_len(), owners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_cosine_goes_from_first_to_last() {
        assert!((cosine(3.0, 1.0, 0.0) - 3.0).abs() < 1e-12 && (cosine(3.0, 1.0, 1.0) - 1.0).abs() < 1e-12);
        assert!((cosine(3.0, 1.0, 0.5) - 2.0).abs() < 1e-12);
    }

    #[test]
    fn weights_grow_until_one_suffices_and_then_halve_the_gap() {
        let mut w = Weight::new(0.01);
        w.adjust(false);
        assert!((w.value - 0.1).abs() < 1e-12);
        w.adjust(true);
        assert!((w.value - 0.055).abs() < 1e-12);
        w.adjust(false);
        assert!((w.value - 0.0775).abs() < 1e-12);
    }

    #[test]
    fn the_first_step_of_adam_has_the_length_of_the_rate() {
        let mut x = [1.0, 1.0];
        Moments::new(2).descend(0.1, &[3.0, -0.002], &mut x);
        assert!((x[0] - 0.9).abs() < 1e-5 && (x[1] - 1.1).abs() < 1e-5, "{x:?}");
    }

    #[test]
    fn dual_norms() {
        let w = [3.0, -4.0];
        assert_eq!((dual(Norm::Linf, &w), dual(Norm::L2, &w), dual(Norm::L1, &w)), (7.0, 5.0, 4.0));
    }

    #[test]
    fn only_wrong_and_smaller_changes_are_kept() {
        let (x, logits, labels, seeds) = ([0.5, 0.5], [1.0, 0.0], [0usize], [1u64]);
        let batch = Batch { x: &x, logits: &logits, labels: &labels, seeds: &seeds };
        let mut best = Smallest::new(&batch, Norm::Linf);
        assert!(!best.see(0, &[0.6, 0.5], &[1.0, 0.0]) && !best.see(0, &[0.6, 0.5], &[f32::NAN, 1.0]));
        assert!(best.see(0, &[0.9, 0.5], &[0.0, 1.0]) && best.see(0, &[1.0, 0.5], &[0.0, 1.0]));
        assert_eq!(best.x, [0.9, 0.5]);
        assert!(best.see(0, &[0.6, 0.5], &[0.0, 1.0]) && (best.size[0] - 0.1).abs() < 1e-6);
    }
}
