//! Intervals hold what they promise.

use netproof_stats::Level;
use netproof_stats::bootstrap::{Method, Options, bootstrap};
use netproof_stats::interval::difference::independent;
use netproof_stats::interval::mean::mean;
use netproof_stats::interval::proportion::{clopper_pearson, wilson};
use netproof_stats::rng::Rng;

use super::Failure;
use super::networks::must;

/// C15: how often intervals at 95 % hold the true value, over draws from known distributions.
pub(super) fn coverage() -> Result<String, Failure> {
    const DRAWS: usize = 2000;
    let mut text = Vec::new();
    let mut see = |what: &str, low: f64, high: f64, mut covers: Box<dyn FnMut(&mut Rng) -> Option<bool>>| {
        let mut rng = Rng::named(15, what);
        let held: Vec<bool> = (0..DRAWS).filter_map(|_| covers(&mut rng)).collect();
        must(held.len() == DRAWS, || format!("{what}: {} of {DRAWS} draws have no interval", DRAWS - held.len()))?;
        let share = held.iter().filter(|h| **h).count() as f64 / DRAWS as f64;
        must((low..=high).contains(&share), || format!("{what} holds the true value in {:.1} %", 100.0 * share))?;
        text.push(format!("{what} {:.1} %", 100.0 * share));
        Ok::<(), Failure>(())
    };
    let count = |rng: &mut Rng, n: u64, p: f64| (0..n).filter(|_| rng.unit() < p).count() as u64;
    let level = Level::P95;
    see("Wilson", 0.93, 0.97, Box::new(move |r| Some(wilson(count(r, 200, 0.3), 200, level)?.contains(0.3))))?;
    // Exact intervals hold at least what they promise.
    let exact = move |r: &mut Rng| Some(clopper_pearson(count(r, 40, 0.1), 40, level)?.contains(0.1));
    see("Clopper–Pearson", 0.95, 1.0, Box::new(exact))?;
    let newcombe = move |r: &mut Rng| {
        let (a, b) = (count(r, 120, 0.7), count(r, 90, 0.5));
        Some(independent((a, 120), (b, 90), level)?.interval?.contains(0.2))
    };
    see("Newcombe", 0.93, 0.97, Box::new(newcombe))?;
    let sample = |r: &mut Rng| (0..40).map(|_| r.normal()).collect::<Vec<f64>>();
    see("Student's t", 0.93, 0.97, Box::new(move |r| Some(mean(&sample(r), level)?.interval?.contains(0.0))))?;
    let resampled = move |r: &mut Rng| {
        let values: Vec<f64> = (0..60).map(|_| r.normal()).collect();
        let options = Options { resamples: 300, seed: r.next_u64(), level, method: Method::Bca };
        let of = |rows: &[usize]| Some(rows.iter().map(|&i| values[i]).sum::<f64>() / rows.len() as f64);
        Some(bootstrap(values.len(), &options, of).ok()??.estimate.interval?.contains(0.0))
    };
    see("bootstrap (BCa)", 0.93, 0.97, Box::new(resampled))?;
    Ok(format!("{} of {DRAWS} draws each", text.join(", ")))
}
