//! Sharpness-aware minimisation: the gradient where the loss is worst nearby.
//! Foret et al., ICLR 2021, arXiv:2010.01412, equations 2 and 3, p = 2. Checked against: a naive version.
//! Loss, right answers and running statistics are those of the weights themselves, not of the worst ones.

use serde::Deserialize;

use super::{Gradient, GradientRule, Step};
use crate::batch::Batch;
use crate::error::{TrainError, refuse};
use crate::method::Entry;
use crate::weights::{combine, squared_norm};

pub(super) const ENTRY: Entry<dyn GradientRule> = Entry {
    id: "sam",
    summary: "sharpness-aware minimisation (Foret et al. 2021); takes twice the time",
    build: |options, _| {
        let own: Sam = options.read()?;
        if !(own.rho > 0.0 && own.rho.is_finite()) {
            return Err(refuse("rho", own.rho, "a number over 0"));
        }
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sam {
    /// How far nearby is, as l2 norm over all weights.
    rho: f64,
}

impl Default for Sam {
    /// The paper's choice for CIFAR-10 (section 3.1).
    fn default() -> Self {
        Self { rho: 0.05 }
    }
}

impl GradientRule for Sam {
    fn gradient(&mut self, step: &mut Step<'_>, batch: &Batch) -> Result<Gradient, TrainError> {
        let first = step.gradient(batch)?;
        let square: f64 = first.tensors.iter().flatten().map(|t| squared_norm(t.as_f32().unwrap_or_default())).sum();
        if square == 0.0 || !square.is_finite() {
            return Ok(first);
        }
        // The direction is that of the mean as well as of the sum.
        let factor = (self.rho / square.sqrt()) as f32;
        let kept = step.net.weights.clone();
        for (i, g) in first.tensors.iter().enumerate() {
            if let Some(g) = g {
                combine(step.net.weights.values_mut(i), g.as_f32().unwrap_or_default(), |w, g| w + factor * g);
            }
        }
        let worst = step.gradient(batch);
        step.net.weights = kept;
        Ok(Gradient { tensors: worst?.tensors, ..first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::{Method, Registry};
    use crate::test_support::{linear_batch, linear_net};

    /// Squared error of a linear network has the gradient 2/n · xᵀ(x w + b − t), at the moved weights.
    #[test]
    fn a_linear_network_matches_a_naive_version() {
        let registry = Registry::default();
        let objective = registry.objectives.build(&Method::new("mean-squared"), &registry).unwrap();
        let mut net = linear_net();
        let before: Vec<Vec<f32>> = net.weights.tensors().iter().map(|t| t.as_f32().unwrap().to_vec()).collect();
        let (batch, rows) = linear_batch();
        let active = net.weights.names().to_vec();
        let mut step = Step { net: &mut net, objective: &*objective, number: 0, seed: 0, active: &active };
        let mut sam = Sam { rho: 0.5 };
        let mut got = sam.gradient(&mut step, &batch).unwrap();
        sam.finish(&mut step, &mut got).unwrap();
        let slope = |w: &[f64; 3]| {
            let mut g = [0.0; 3];
            for (x, t) in &rows {
                let e = w[0] * x[0] + w[1] * x[1] + w[2] - t;
                g[0] += 2.0 * e * x[0] / rows.len() as f64;
                g[1] += 2.0 * e * x[1] / rows.len() as f64;
                g[2] += 2.0 * e / rows.len() as f64;
            }
            g
        };
        let w = [f64::from(before[0][0]), f64::from(before[0][1]), f64::from(before[1][0])];
        let g = slope(&w);
        let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
        let want = slope(&std::array::from_fn(|i| w[i] + 0.5 * g[i] / norm));
        let flat: Vec<f32> = got.tensors.iter().flat_map(|t| t.as_ref().unwrap().as_f32().unwrap().to_vec()).collect();
        for (got, want) in flat.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-5, "{flat:?} {want}");
        }
        let after: Vec<Vec<f32>> = net.weights.tensors().iter().map(|t| t.as_f32().unwrap().to_vec()).collect();
        assert_eq!(before, after);
    }
}
