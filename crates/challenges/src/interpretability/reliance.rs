//! Whether a map may be relied on: does it depend on what the network has learnt? The verdict of `sanity`, and the badge that
//! `netproof explain` puts into pictures.
//!
//! The upper half of the layers, from the output down, get their weights in random order, so that nothing is left of how the
//! network decides; a map that keeps over half of its rank order then shows the input rather than the reasons. Adebayo et al.,
//! NeurIPS 2018, arXiv:1810.03292, cascading randomisation. The limit is a convention, halfway between no relation and nothing
//! lost. On `fashion-cnn`, untrained and shuffled copies of it: gradients, integrated gradients and Grad-CAM keep at most 0.1
//! on average, guided backpropagation 0.6 to 0.8. With the lowest layers random too, its map changes because the filters do.
//! Where rows are no images, all layers are randomised: there the lowest layer says which inputs matter, and is learnt.

use netproof_audit::AuditError;
use netproof_stats::interval::mean::mean;
use netproof_stats::{Estimate, Level};

use super::evidence::{Bench, Cascade, Case, Order, Protocol, Randomised, randomised_similarity};
use super::{ExplainError, Explained, Explainer, Question, assess};

/// What a map that fails is marked with.
pub const DO_NOT_RELY: &str = "do not rely on this";

/// Most of the rank order that a map may keep.
pub const MOST_KEPT: f64 = 0.5;

/// Whether a method depends on the weights of this network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reliance {
    /// The map goes with the weights.
    Depends,
    /// The map stays without them: do not rely on it.
    Ignores,
    /// The rows and draws do not say.
    Undecided,
}

/// What the randomisation of the weights does to a method's maps.
#[derive(Debug, Clone)]
pub struct Sanity {
    /// Rank correlation with the map before, mean over rows, interval over draws; `None` where every map is constant.
    pub kept: Option<Estimate>,
    /// The same with every layer in random order.
    pub kept_of_all: Option<Estimate>,
    /// What follows.
    pub reliance: Reliance,
    /// Whether rows are images, where the upper half of the layers decides; else all layers do.
    pub spatial: bool,
    /// From the output down.
    pub cascade: Randomised,
}

impl Sanity {
    /// Randomises the weights of a case's network and looks what is left of the maps.
    /// # Errors
    /// The network has no weights, or the method does not apply to the randomised network.
    pub fn of(case: &Case<'_, '_>, level: Level) -> Result<Self, ExplainError> {
        let p = &case.bench.protocol;
        let down = Cascade { order: Order::TopDown, draws: p.draws, stages: p.stages };
        let cascade = randomised_similarity(case, &down)?;
        let last = cascade.stages.len() - 1;
        let over_draws = |stage: usize| {
            let means: Vec<f64> = cascade.by_draw(stage).into_iter().filter(|v| v.is_finite()).collect();
            mean(&means, level)
        };
        let spatial = case.bench.net.row_shape().len() > 1;
        let kept = over_draws(if spatial { upper_half(cascade.stages.len()) } else { last });
        let reliance = match kept.map(|e| e.interval.map_or((e.value, e.value), |i| (i.low, i.high))) {
            Some((low, _)) if low > MOST_KEPT => Reliance::Ignores,
            Some((_, high)) if high < MOST_KEPT => Reliance::Depends,
            _ => Reliance::Undecided,
        };
        Ok(Self { kept, kept_of_all: over_draws(last), reliance, spatial, cascade })
    }

    /// What is random where it is decided.
    pub fn random_part(&self) -> &'static str {
        if self.spatial { "the upper half of the layers" } else { "all layers" }
    }

    /// What to write on a picture; `None` where nothing speaks against it.
    pub fn badge(&self) -> Option<String> {
        let kept = self.kept.map_or(1.0, |e| e.value);
        (self.reliance == Reliance::Ignores)
            .then(|| format!("{DO_NOT_RELY}: {:.0} % of the map's order stays without the weights", 100.0 * kept))
    }
}

/// The stage after which the upper half of the layers is random.
fn upper_half(stages: usize) -> usize {
    stages.div_ceil(2).saturating_sub(1)
}

/// Rows and draws of a badge: enough to tell a map that stays from one that goes.
const BADGE_ROWS: usize = 4;
const BADGE_DRAWS: usize = 4;
const BADGE_STAGES: usize = 4;

/// What to write on pictures of a method on this network; `None` where nothing speaks against it, where the method gives no map
/// of the input, or where the network has no weights to test with.
/// # Errors
/// The network refuses the rows.
pub fn badge(net: &Explained<'_>, method: &dyn Explainer, q: &Question) -> Result<Option<String>, ExplainError> {
    let finite = |&i: &usize| q.row(i).iter().all(|v| v.is_finite());
    let rows: Vec<usize> = (0..q.len()).filter(finite).take(BADGE_ROWS).collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let few = q.select(&rows)?;
    // The few columns of a table correlate by chance, and cost little.
    let draws = BADGE_DRAWS * if net.row_shape().len() > 1 { 1 } else { 4 };
    let protocol = Protocol { draws, stages: BADGE_STAGES, ..Protocol::default() };
    let bench = Bench::new(net, &few, protocol)?;
    let found = bench.case(method).and_then(|case| Sanity::of(&case, Level::P95));
    match found {
        Ok(sanity) => Ok(sanity.badge()),
        Err(ExplainError::NotApplicable { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// [`badge`] of a method by its id, with few steps or samples where it has many.
/// # Errors
/// There is no such method, or the network refuses the rows.
pub fn badge_of(net: &Explained<'_>, id: &str, q: &Question) -> Result<Option<String>, AuditError> {
    Ok(badge(net, &*assess::method(id, true)?.method, q)?)
}

#[cfg(test)]
mod tests {
    use netproof_graph::builders::{Activation, mlp};

    use super::super::evidence::test_support::{Fixed, method, on};
    use super::*;

    #[test]
    fn maps_that_stay_get_a_badge_and_maps_that_go_do_not() {
        let model = mlp(&[40], &[30, 30], 3, Activation::Relu, 5).unwrap();
        let rows: Vec<[f32; 40]> = (0..6).map(|r| std::array::from_fn(|i| ((r * 40 + i) as f32 * 1.7).sin())).collect();
        on(&model, &rows, |bench| {
            let (net, q) = (bench.net, bench.question);
            let fixed = Fixed::new((0..240).map(|i| (i as f32 * 0.3).cos()).collect());
            let badge_of = |m: &dyn Explainer| badge(net, m, q).unwrap();
            assert!(badge_of(&fixed).unwrap().starts_with("do not rely on this: 100 %"));
            assert_eq!(badge_of(&*method("input-x-gradient").method), None);
            let constant = Fixed::new(vec![1.0; 240]);
            let case = bench.case(&constant).unwrap();
            let sanity = Sanity::of(&case, Level::P95).unwrap();
            assert_eq!((sanity.reliance, sanity.kept), (Reliance::Undecided, None));
        });
    }
}
