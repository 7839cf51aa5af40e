//! `netproof explain --evidence`: whether the maps that were just written can be relied on.

use std::path::Path;

use anyhow::{Context as _, ensure};
use netproof_challenges::interpretability::evidence::{Bench, Better, EVIDENCE, Protocol};
use netproof_challenges::interpretability::{ExplainError, Explained, Explainer, Question};
use netproof_data::{Limits, read_npz};
use netproof_stats::Level;
use netproof_stats::interval::mean::mean;
use serde_json::{Value, json};

/// Most rows that are measured: the randomised networks explain each many times.
const MOST: usize = 16;

/// Masks of the object, one truth value per element of each explained row.
/// # Errors
/// The archive has no `masks`, or they are not one per row and element (channels may be left out).
pub(crate) fn masks(file: &Path, net: &Explained<'_>, rows: usize) -> anyhow::Result<Vec<bool>> {
    let array = read_npz(file, &["masks"], Limits::default()).context("reading the masks")?.remove(0);
    let on: Vec<bool> = match (array.as_bool(), array.as_f32(), array.as_i64()) {
        (Some(v), ..) => v.to_vec(),
        (_, Some(v), _) => v.iter().map(|v| *v > 0.0).collect(),
        (.., Some(v)) => v.iter().map(|v| *v > 0).collect(),
        _ => anyhow::bail!("--masks: `masks` must be numbers or truth values, it is {}", array.dtype()),
    };
    let (width, channels) = (net.row_len(), *net.row_shape().first().unwrap_or(&1));
    let places = width / channels.max(1);
    if on.len() == rows * places && net.row_shape().len() == 3 {
        return Ok(on.chunks(places).flat_map(|row| std::iter::repeat_n(row, channels).flatten().copied()).collect());
    }
    ensure!(
        on.len() == rows * width,
        "--masks: `masks` has shape {:?}, {rows} rows of {:?} are explained",
        array.shape(),
        net.row_shape()
    );
    Ok(on)
}

/// Measures a method on the explained rows with all metrics that apply; prints a table to standard error and answers the
/// same for a summary.
/// # Errors
/// The network refuses the rows.
pub(crate) fn measure(
    net: &Explained<'_>,
    method: &dyn Explainer,
    q: &Question,
    masks: Option<&[bool]>,
) -> anyhow::Result<Value> {
    let finite: Vec<usize> = (0..q.len()).filter(|&i| q.row(i).iter().all(|v| v.is_finite())).take(MOST).collect();
    ensure!(!finite.is_empty(), "--evidence: no explained row is without missing numbers");
    let few = q.select(&finite)?;
    let width = net.row_len();
    let own: Option<Vec<bool>> =
        masks.map(|m| finite.iter().flat_map(|&i| &m[i * width..(i + 1) * width]).copied().collect());
    let mut bench = Bench::new(net, &few, Protocol::default())?;
    if let Some(own) = &own {
        bench = bench.with_masks(own)?;
    }
    let case = match bench.case(method) {
        Ok(case) => case,
        Err(ExplainError::NotApplicable { what }) => {
            eprintln!("note: no evidence: {what}");
            return Ok(json!({ "rows": finite.len(), "not_applicable": what }));
        }
        Err(e) => return Err(e.into()),
    };
    eprintln!("\nevidence on {} rows, means with 95 % intervals", finite.len());
    eprintln!("{:<26} {:>8}  {:<19} {:>8} {:>8}  better", "metric", "mean", "interval", "random", "edges");
    let mut all = Vec::new();
    for metric in EVIDENCE {
        let m = match (metric.measure)(&case) {
            Ok(m) => m,
            Err(ExplainError::NotApplicable { what }) => {
                eprintln!("{:<26} {:>8}  {what}", metric.card.id, "–");
                all.push(json!({ "metric": metric.card.id, "not_applicable": what }));
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        let found = m.mean(Level::P95);
        let control = |v: &Option<Vec<f64>>| -> Option<f64> {
            let v: Vec<f64> = v.as_ref()?.iter().copied().filter(|v| v.is_finite()).collect();
            Some(mean(&v, Level::P95)?.value)
        };
        let (random, edges) = (control(&m.random), control(&m.edges));
        let better = match m.better {
            Better::Higher => "higher",
            Better::Lower => "lower",
            Better::Neither => "",
        };
        let shown = |v: Option<f64>| v.map_or_else(|| "–".to_owned(), |v| format!("{v:.3}"));
        let interval = found.and_then(|e| e.interval);
        let range = interval.map_or_else(String::new, |i| format!("{:.3} to {:.3}", i.low, i.high));
        eprintln!(
            "{:<26} {:>8}  {range:<19} {:>8} {:>8}  {better}",
            metric.card.id,
            shown(found.map(|e| e.value)),
            shown(random),
            shown(edges)
        );
        all.push(json!({
            "metric": metric.card.id,
            "mean": found.map(|e| e.value),
            "low": interval.map(|i| i.low),
            "high": interval.map(|i| i.high),
            "random": random,
            "edges": edges,
            "better": better,
            "notes": m.notes,
        }));
    }
    Ok(json!({ "rows": finite.len(), "metrics": all }))
}
