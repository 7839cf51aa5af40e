//! Evidence for explanations: whether maps can be relied on, measured row by row. One file per metric, one line each.
//!
//! A [`Bench`] holds what all methods share for some rows: what the network answers to random deletions, to the deletions of
//! an edge detector, to random subsets. A [`Case`] adds one method. So the second method costs its own passes only.

mod agreement;
mod average_sensitivity;
mod bench;
mod completeness;
mod complexity;
mod curves;
mod data_randomisation;
mod deletion;
mod efficient_randomisation;
mod faithfulness_correlation;
mod infidelity;
mod insertion;
mod max_sensitivity;
mod parameter_randomisation;
mod pixel_flipping;
mod pointing_game;
mod randomise;
mod ranks;
mod relevance_mass;
mod relevance_rank;
mod smooth_randomisation;
mod sparseness;

#[cfg(test)]
mod conformance;
#[cfg(test)]
pub(crate) mod test_support;

pub use agreement::{Agreement, agreement};
pub use bench::{Bench, Case, Protocol};
pub use data_randomisation::data_randomisation;
pub use parameter_randomisation::{Cascade, Randomised, randomised_similarity};
pub use randomise::{Layer, Order, layers, shuffled};
pub use ranks::{gini, likeness, spearman, top_overlap};

use netproof_core::Card;
use netproof_stats::bootstrap::{Method, Options, bootstrap};
use netproof_stats::interval::mean::mean;
use netproof_stats::{Estimate, Level};

use super::ExplainError;

/// Which way a metric is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Neither: it describes.
    Neither,
}

/// A curve over the fraction of a row that was changed, averaged over rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Whose order it follows.
    pub name: String,
    /// Fraction changed, 0 to 1.
    pub x: Vec<f64>,
    /// Mean answer.
    pub y: Vec<f64>,
}

/// What a metric found.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// One value per row; NaN where it is undefined.
    pub values: Vec<f64>,
    /// The same for random attributions, where the metric compares.
    pub random: Option<Vec<f64>>,
    /// The same for an edge detector, where rows are images.
    pub edges: Option<Vec<f64>>,
    /// Which way is good.
    pub better: Better,
    /// What stands behind it.
    pub curves: Vec<Curve>,
    /// What a reader must know.
    pub notes: Vec<String>,
}

impl Measured {
    /// Values without anything to compare with.
    pub(crate) fn plain(values: Vec<f64>, better: Better) -> Self {
        Self { values, random: None, edges: None, better, curves: Vec::new(), notes: Vec::new() }
    }

    /// The mean over rows with its interval; `None` where no row has a value.
    pub fn mean(&self, level: Level) -> Option<Estimate> {
        mean(&self.values.iter().copied().filter(|v| v.is_finite()).collect::<Vec<_>>(), level)
    }

    /// How much better than a control, row by row: positive is better.
    pub fn advantages(&self, control: &[f64]) -> Vec<f64> {
        let sign = if self.better == Better::Lower { -1.0 } else { 1.0 };
        self.values.iter().zip(control).map(|(v, c)| sign * (v - c)).collect()
    }
}

/// Mean of paired differences with a BCa bootstrap interval over rows (Student's where all rows agree); rows without a value
/// are left out.
pub fn paired(differences: &[f64], seed: u64, level: Level) -> Result<Option<Estimate>, ExplainError> {
    let d: Vec<f64> = differences.iter().copied().filter(|v| v.is_finite()).collect();
    let options = Options { resamples: 1000, seed, level, method: Method::Bca };
    let found = bootstrap(d.len(), &options, |rows| {
        (!rows.is_empty()).then(|| rows.iter().map(|&r| d[r]).sum::<f64>() / rows.len() as f64)
    })?;
    Ok(found.map(|b| match b.estimate.interval {
        Some(_) => b.estimate,
        None => mean(&d, level).unwrap_or(b.estimate),
    }))
}

/// One line of the registry.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// What it measures and where it is from.
    pub card: &'static Card,
    /// Measures a method on rows.
    pub measure: fn(&Case<'_, '_>) -> Result<Measured, ExplainError>,
}

/// All metrics. Those that need more than the case has (masks, a promise of completeness) answer that they do not apply.
pub static EVIDENCE: &[Metric] = &[
    Metric { card: &completeness::CARD, measure: completeness::measure },
    Metric { card: &deletion::CARD, measure: deletion::measure },
    Metric { card: &insertion::CARD, measure: insertion::measure },
    Metric { card: &pixel_flipping::CARD, measure: pixel_flipping::measure },
    Metric { card: &faithfulness_correlation::CARD, measure: faithfulness_correlation::measure },
    Metric { card: &infidelity::CARD, measure: infidelity::measure },
    Metric { card: &max_sensitivity::CARD, measure: max_sensitivity::measure },
    Metric { card: &average_sensitivity::CARD, measure: average_sensitivity::measure },
    Metric { card: &complexity::CARD, measure: complexity::measure },
    Metric { card: &sparseness::CARD, measure: sparseness::measure },
    Metric { card: &parameter_randomisation::CARD, measure: parameter_randomisation::measure },
    Metric { card: &efficient_randomisation::CARD, measure: efficient_randomisation::measure },
    Metric { card: &smooth_randomisation::CARD, measure: smooth_randomisation::measure },
    Metric { card: &pointing_game::CARD, measure: pointing_game::measure },
    Metric { card: &relevance_mass::CARD, measure: relevance_mass::measure },
    Metric { card: &relevance_rank::CARD, measure: relevance_rank::measure },
];

/// A metric by its id.
pub fn metric(id: &str) -> Option<&'static Metric> {
    EVIDENCE.iter().find(|m| m.card.id == id)
}
