//! Netproof beside PyTorch and onnxruntime: the same work in turns, two threads each, ratio = our time ÷ theirs.
//! `cargo bench -p netproof-graph --bench table [-- part of a row's name]`
//!
//! A Python with `torch`, `onnx` and `onnxruntime` is looked for in `$NETPROOF_PYTHON`, `.bars/venv` and the path; without
//! one only our times are printed. The table is also written to `target/kernels.json`. Threads are started as the command line
//! does it.
#![allow(clippy::print_stdout, reason = "the table is what it is run for")]

mod jobs;
mod reference;

use std::time::{Duration, Instant};

use jobs::{Bar, Job};
use reference::Reference;
use serde_json::{Value, json};

/// Turns of each side; the median counts.
const TURNS: usize = 5;

/// Between turns.
const REST: Duration = Duration::from_millis(250);

struct Row {
    name: String,
    bar: Bar,
    ours: f64,
    /// Their time, and the median of the ratios of the turns.
    theirs: Option<(f64, f64)>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if let [kind, path, what, batch] = &arguments[..]
        && kind == "peak"
    {
        return println!("{}", jobs::peak(path, what, batch.parse().expect("the bench wrote a number")));
    }
    let filter = arguments.first().cloned().unwrap_or_default();
    netproof_graph::start_threads(Some(2)).expect("the pool is started once");
    let mut reference = Reference::start();
    if reference.is_none() {
        println!("no Python with torch was found: only our own times");
    }
    println!("{:44} {:>10} {:>10} {:>7}  bar", "work", "Netproof", "reference", "ratio");
    let mut rows = Vec::new();
    for job in jobs::all().into_iter().filter(|j| j.name.contains(&filter)) {
        let row = measure(job, reference.as_mut());
        print(&row);
        rows.push(row);
    }
    let means = [
        summary("golden networks against PyTorch, geometric mean", Bar::Torch, 0.7, &rows),
        summary("golden networks against onnxruntime, geometric mean", Bar::OnnxRuntime, 1.5, &rows),
    ];
    if filter.is_empty() {
        jobs::peaks(reference.as_mut());
    }
    let all: Vec<Value> = rows
        .iter()
        .map(|r| json!({"work": r.name, "ms": r.ours, "reference_ms": r.theirs.map(|t| t.0), "ratio": r.theirs.map(|t| t.1)}))
        .collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/kernels.json");
    if std::fs::write(path, serde_json::to_string_pretty(&all).unwrap_or_default()).is_err() {
        println!("{path} could not be written");
    }
    let bars: Vec<bool> = rows.iter().filter_map(met).chain(means.into_iter().flatten()).collect();
    println!("bars met: {} of {}", bars.iter().filter(|met| **met).count(), bars.len());
}

/// Whether a row keeps to its limit; `None` where it has none, or nothing to be compared with.
fn met(row: &Row) -> Option<bool> {
    Some(row.theirs?.1 <= row.bar.limit()?)
}

/// One turn each, again and again, so that what else the machine does meets both.
fn measure(mut job: Job, reference: Option<&mut Reference>) -> Row {
    let mut own = || {
        let start = Instant::now();
        (job.run)();
        start.elapsed().as_secs_f64() * 1e3
    };
    own();
    // About as long for each row, so that a turn is more than its cold start.
    let runs = (60.0 / own()).clamp(3.0, 50.0) as usize;
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut reference = reference;
    if let (Some(r), Some(want)) = (&mut reference, &job.answer) {
        check(&job.name, want, r.ask(&job.reference, 1));
    }
    for _ in 0..TURNS {
        // Threads spin for a while after the last job; nobody should have to share the cores with that.
        std::thread::sleep(REST);
        let turn = median((0..runs).map(|_| own()).collect());
        ours.push(turn);
        if let Some(r) = &mut reference {
            std::thread::sleep(REST);
            match r.run(&job.reference, runs) {
                Ok(times) => {
                    let other = median(times);
                    theirs.push(other);
                    ratios.push(turn / other);
                }
                Err(why) => {
                    println!("{}: {why}", job.name);
                    break;
                }
            }
        }
    }
    let theirs = (theirs.len() == TURNS).then(|| (median(theirs), median(ratios)));
    Row { name: job.name, bar: job.bar, ours: median(ours), theirs }
}

/// Both sides must compute the same.
fn check(name: &str, want: &[f32], reply: Result<Value, String>) {
    let Ok(reply) = reply else { return };
    let got: Vec<f64> = reply["output"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    let off = got.iter().zip(want).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
    assert!(got.len() == want.len() && off <= 1e-3, "{name}: the other side answers differently, by {off}");
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn print(row: &Row) {
    let text = match row.bar {
        Bar::Ratio(limit) => format!("{limit:.1}"),
        Bar::Torch => "1.1, mean 0.7".to_owned(),
        Bar::OnnxRuntime => "mean 1.5".to_owned(),
    };
    match row.theirs {
        None => println!("{:44} {:>7.3} ms", row.name, row.ours),
        Some((theirs, ratio)) => {
            let over = if met(row) == Some(false) { "  over" } else { "" };
            println!("{:44} {:>7.3} ms {:>7.3} ms {:>7.2}  {text}{over}", row.name, row.ours, theirs, ratio);
        }
    }
}

/// The mean of the ratios of one kind, and whether it keeps to its limit.
fn summary(name: &str, bar: Bar, limit: f64, rows: &[Row]) -> Option<bool> {
    let ratios: Vec<f64> = rows.iter().filter(|r| r.bar == bar).filter_map(|r| r.theirs.map(|t| t.1.ln())).collect();
    if ratios.is_empty() {
        return None;
    }
    let mean = (ratios.iter().sum::<f64>() / ratios.len() as f64).exp();
    println!("{name} of {}: {mean:.2} (bar {limit})", ratios.len());
    Some(mean <= limit)
}
