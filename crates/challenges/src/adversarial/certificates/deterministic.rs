//! What the certificates by bounds share: margins from bounds, and the search for the largest epsilon.

use netproof_core::{Card, Norm, Threat};
use netproof_graph::{BoundMethod, BoundsRequest, Norm as Distance, Region, Specification};
use serde::{Deserialize, Serialize};

use super::Rows;
use crate::adversarial::AttackError;
use crate::adversarial::error::need_norm;
use crate::adversarial::projection::CONVEX;

/// How a radius is searched for by halving an interval of epsilons.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Search {
    /// Halvings: the radius is exact to `epsilon / 2^halvings`, and never above what is proved.
    pub halvings: usize,
}

impl Default for Search {
    fn default() -> Self {
        Self { halvings: 10 }
    }
}

/// Rows whose least margin is above 0 over their own epsilon.
fn margins(
    card: &'static Card,
    rows: &Rows<'_>,
    picked: &[usize],
    epsilon: &[f64],
    threat: &Threat,
    method: BoundMethod,
) -> Result<Vec<bool>, AttackError> {
    need_norm(card, CONVEX, threat.norm)?;
    if picked.is_empty() {
        return Ok(Vec::new());
    }
    let norm = match threat.norm {
        Norm::L2 => Distance::L2,
        Norm::L1 => Distance::L1,
        _ => Distance::Linf,
    };
    let x = rows.x.select_rows(picked)?;
    let labels: Vec<usize> = picked.iter().map(|&r| rows.labels[r]).collect();
    let [low, high] = threat.bounds.map(|b| b as f32);
    let region = Region::around(&x, norm, epsilon, Some((low, high)))?;
    let bounds = rows.model.bounds(&BoundsRequest::new(region, Specification::Margins(labels), method))?;
    let width = bounds.lower.row_len().max(1);
    let lower = bounds.lower.as_f32().unwrap_or_default();
    Ok(lower.chunks(width).map(|row| row.iter().all(|&m| m > 0.0)).collect())
}

pub(super) fn certify(
    card: &'static Card,
    rows: &Rows<'_>,
    threat: &Threat,
    method: BoundMethod,
) -> Result<Vec<bool>, AttackError> {
    rows.check_time()?;
    let all: Vec<usize> = (0..rows.len()).collect();
    margins(card, rows, &all, &[threat.epsilon], threat, method)
}

/// Halves the interval between the largest epsilon that is proved and the smallest that is not, for all rows at once. What is
/// answered was proved itself.
pub(super) fn radii(
    card: &'static Card,
    rows: &Rows<'_>,
    threat: &Threat,
    method: BoundMethod,
    search: Search,
) -> Result<Vec<Option<f64>>, AttackError> {
    let n = rows.len();
    let mut proved: Vec<Option<f64>> = vec![None; n];
    let mut open = vec![threat.epsilon; n];
    let all: Vec<usize> = (0..n).collect();
    for (r, yes) in margins(card, rows, &all, &[0.0], threat, method)?.into_iter().enumerate() {
        proved[r] = yes.then_some(0.0);
    }
    // The whole threat first: rows that it holds for need no search.
    let mut left: Vec<usize> = (0..n).filter(|&r| proved[r].is_some()).collect();
    for halving in 0..=search.halvings {
        rows.check_time()?;
        let at = |r: usize| {
            let known = proved[r].unwrap_or_default();
            if halving == 0 { open[r] } else { 0.5 * (known + open[r]) }
        };
        let epsilon: Vec<f64> = left.iter().map(|&r| at(r)).collect();
        let yes = margins(card, rows, &left, &epsilon, threat, method)?;
        let mut next = Vec::with_capacity(left.len());
        for ((&r, &epsilon), yes) in left.iter().zip(&epsilon).zip(yes) {
            match (yes, halving) {
                (true, 0) => proved[r] = Some(epsilon),
                (true, _) => {
                    proved[r] = Some(epsilon);
                    next.push(r);
                }
                (false, _) => {
                    open[r] = epsilon;
                    next.push(r);
                }
            }
        }
        left = next;
    }
    Ok(proved)
}

/// A certificate by bounds: its card, its options and how it bounds.
macro_rules! by_bounds {
    ($name:ident, $method:expr) => {
        impl super::Certificate for $name {
            fn norms(&self) -> &'static [netproof_core::Norm] {
                crate::adversarial::projection::CONVEX
            }

            fn certify(
                &self,
                rows: &super::Rows<'_>,
                threat: &netproof_core::Threat,
            ) -> Result<Vec<bool>, crate::adversarial::AttackError> {
                let method: fn(&Self) -> netproof_graph::BoundMethod = $method;
                super::deterministic::certify(&CARD, rows, threat, method(self))
            }

            fn radii(
                &self,
                rows: &super::Rows<'_>,
                threat: &netproof_core::Threat,
            ) -> Result<Vec<Option<f64>>, crate::adversarial::AttackError> {
                let method: fn(&Self) -> netproof_graph::BoundMethod = $method;
                let search = super::deterministic::Search { halvings: self.halvings };
                super::deterministic::radii(&CARD, rows, threat, method(self), search)
            }
        }
    };
}
pub(super) use by_bounds;

pub(super) const HALVINGS: netproof_core::OptionDoc = netproof_core::OptionDoc {
    name: "halvings",
    default: "10",
    doc: "Halvings of the interval in which a row's radius is searched, 0 to 40.",
};
