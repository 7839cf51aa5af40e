//! What one answer costs: operations and memory from the shapes, time and energy from the machine.

use std::time::{Duration, Instant};

use netproof_audit::meter::{EnergyMeter, processor};
use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Evidence, Finding, Mark, OptionDoc, Plot, PlotKind, Series, Table, Verdict,
};
use netproof_stats::descriptive::quantile;
use netproof_stats::regression::median;
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

pub(crate) static CARD: Card = Card {
    id: "compute-cost",
    version: 1,
    kind: CardKind::Check,
    title: "Compute cost",
    challenge: Challenge::Compute,
    measures: "Parameters, multiply-accumulate operations, bytes and peak activation memory from the shapes; latency, \
               throughput and energy measured on this machine.",
    reference: "Sze, Chen, Yang and Emer, Proc. IEEE 105(12), 2017, section II (operations and storage); Khan et al., ACM \
                TOMPECS 3(2), 2018 (RAPL energy counters)",
    needs: &[],
    options: &[
        OptionDoc { name: "batches", default: "[1, 8, 32, 128]", doc: "Batch sizes that are timed, each 1 to 65536." },
        OptionDoc { name: "repeats", default: "100", doc: "Most passes per batch size, at least 5." },
        OptionDoc {
            name: "seconds",
            default: "1.5",
            doc: "Most seconds per batch size (five passes are always made).",
        },
        OptionDoc {
            name: "watts",
            default: "65.0",
            doc: "Power in watts assumed for an estimate of energy where the machine has no counter that may be read.",
        },
    ],
};

/// Passes before the clock starts.
const WARM_UP: usize = 2;
/// Fewest timed passes.
const FEWEST: usize = 5;

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ComputeCost {
    batches: Vec<usize>,
    repeats: usize,
    seconds: f64,
    watts: f64,
}

impl Default for ComputeCost {
    fn default() -> Self {
        Self { batches: vec![1, 8, 32, 128], repeats: 100, seconds: 1.5, watts: 65.0 }
    }
}

/// Timed passes of one batch size.
struct Timing {
    batch: usize,
    milliseconds: Vec<f64>,
    joules: Option<f64>,
}

impl Check for ComputeCost {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        for &batch in &self.batches {
            if !(1..=65_536).contains(&batch) {
                let message = format!("batches holds {batch}; each must be 1 to 65536");
                return Err(AuditError::Option { id: CARD.id.to_owned(), message });
            }
        }
        let reproducible = shapes(subject, cx)?;
        let mut timings = Vec::new();
        for &batch in &self.batches {
            // A network with a fixed batch size is timed at that size only.
            if subject.model().fixed_batch().is_some_and(|b| b != batch) {
                continue;
            }
            cx.check_time()?;
            timings.push(self.time(subject, batch)?);
        }
        if let Some(fixed) = subject.model().fixed_batch().filter(|_| timings.is_empty()) {
            timings.push(self.time(subject, fixed)?);
        }
        Ok(Findings { reproducible, clocked: self.clocked(&timings, cx) })
    }
}

impl ComputeCost {
    fn time(&self, subject: &Subject, batch: usize) -> Result<Timing, AuditError> {
        let features = rows(subject, batch)?;
        for _ in 0..WARM_UP {
            subject.answers(&features)?;
        }
        let meter = EnergyMeter::open();
        let before = meter.as_ref().and_then(EnergyMeter::read);
        let end = Instant::now() + Duration::from_secs_f64(self.seconds.clamp(0.0, 3600.0));
        let mut milliseconds = Vec::new();
        while milliseconds.len() < FEWEST || (milliseconds.len() < self.repeats && Instant::now() < end) {
            let start = Instant::now();
            subject.answers(&features)?;
            milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let joules = meter.and_then(|m| Some(m.joules(&before?, &m.read()?)));
        Ok(Timing { batch, milliseconds, joules })
    }

    fn clocked(&self, timings: &[Timing], cx: &Context<'_>) -> Vec<Finding> {
        let Some(first) = timings.first() else { return Vec::new() };
        let at = |t: &Timing, q| quantile(&t.milliseconds, q).unwrap_or(f64::NAN);
        let throughput = |t: &Timing| t.batch as f64 / at(t, 0.5) * 1e3;
        let rows = timings.iter().map(|t| {
            vec![
                t.batch.into(),
                t.milliseconds.len().into(),
                at(t, 0.5).into(),
                at(t, 0.99).into(),
                throughput(t).into(),
            ]
        });
        let table = Table {
            title: format!("Time by batch size on {}", processor()),
            columns: ["batch", "passes", "latency p50 (ms)", "latency p99 (ms)", "rows per second"]
                .map(String::from)
                .to_vec(),
            rows: rows.collect(),
        };
        let bars = |f: &dyn Fn(&Timing) -> f64| -> Vec<Mark> {
            let mark = |t: &Timing| Mark { y: f(t), label: Some(format!("batch {}", t.batch)), ..Mark::default() };
            timings.iter().map(mark).collect()
        };
        let plot = Plot {
            title: "Throughput by batch size".to_owned(),
            x: Axis::new("batch size"),
            y: Axis::new("rows per second"),
            plot: PlotKind::Bars,
            series: vec![Series { name: "rows per second".to_owned(), marks: bars(&throughput) }],
            reference: None,
        };
        let few = "the 99th percentile of fewer than 100 passes is close to the slowest of them";
        let mut findings = Vec::new();
        let draft = cx
            .finding("latency", "Latency")
            .explain(format!("Median time of one pass with a batch of {}, input conversion included.", first.batch))
            .caveats((first.milliseconds.len() < 100).then(|| few.to_owned()))
            .caveat("other work on this machine makes it slower")
            .evidence(Evidence::Table(table))
            .evidence(Evidence::Plot(plot));
        findings.push(match median(&first.milliseconds, cx.level) {
            Some(e) => draft.estimate("latency_p50_ms", "ms", &e).done(),
            None => draft.verdict(Verdict::Inconclusive).done(),
        });
        findings.push(
            cx.finding("latency-p99", "Latency, 99th percentile")
                .value("latency_p99_ms", "ms", at(first, 0.99))
                .n(first.milliseconds.len() as u64)
                .explain(format!("One pass in a hundred with a batch of {} takes longer.", first.batch))
                .caveats((first.milliseconds.len() < 100).then(|| few.to_owned()))
                .done(),
        );
        let best = timings.iter().max_by(|a, b| throughput(a).total_cmp(&throughput(b))).unwrap_or(first);
        findings.push(
            cx.finding("throughput", "Throughput")
                .value("rows_per_second", "rows per second", throughput(best))
                .n(best.milliseconds.len() as u64)
                .explain(format!("Highest of the batch sizes that were timed, at a batch of {}.", best.batch))
                .done(),
        );
        findings.push(self.energy(best, cx));
        findings
    }

    fn energy(&self, t: &Timing, cx: &Context<'_>) -> Finding {
        let rows = (t.batch * t.milliseconds.len()) as f64;
        if let Some(joules) = t.joules.filter(|&j| j > 0.0) {
            return cx
                .finding("energy", "Energy")
                .value("energy_per_row", "joule", joules / rows)
                .n(rows as u64)
                .explain("Energy of the processor packages per row, from their own counters (RAPL).")
                .caveat("the counters see everything that runs on the machine, and neither memory nor power supply")
                .done();
        }
        let seconds = t.milliseconds.iter().sum::<f64>() * 1e-3;
        cx.finding("energy-estimate", "Energy (estimate)")
            .value("energy_per_row_estimate", "joule", self.watts * seconds / rows)
            .n(rows as u64)
            .explain(format!(
                "An estimate and not a measurement: time per row multiplied by an assumed {} watts, since this machine has \
                 no energy counter that may be read.",
                self.watts
            ))
            .caveat("set `watts` to the power of your machine under load")
            .done()
    }
}

/// The first rows of the data, repeated where there are too few.
fn rows(subject: &Subject, batch: usize) -> Result<Tensor, AuditError> {
    let some = subject.data().take(batch).load()?.features;
    if some.rows() == batch {
        return Ok(some);
    }
    let available = some.rows().max(1);
    let order: Vec<usize> = (0..batch).map(|i| i % available).collect();
    Ok(some.select_rows(&order)?)
}

fn shapes(subject: &Subject, cx: &Context<'_>) -> Result<Vec<Finding>, AuditError> {
    let model = subject.model();
    let mut one = model.batch_shapes(1);
    // Dimensions that the file leaves open are those of the data.
    if let Some((_, shape)) = one.first_mut() {
        let data = subject.data().feature_shape();
        let open = model
            .inputs()
            .first()
            .and_then(|p| p.shape.as_ref())
            .is_none_or(|dims| dims.iter().skip(1).any(|d| !matches!(d, netproof_graph::Dim::Fixed(_))));
        if open {
            *shape = [&[1], data].concat();
        }
    }
    let cost = model.cost(&one)?;
    let mut findings = vec![
        cx.finding("parameters", "Parameters")
            .value("parameters", "count", cost.parameters as f64)
            .explain(format!("{} stored numbers, of which {} are trainable.", cost.parameters, cost.trainable))
            .done(),
        cx.finding("model-bytes", "Size of the network")
            .value("model_bytes", "bytes", cost.parameter_bytes as f64)
            .explain("Bytes of the stored tensors in their own types.")
            .done(),
    ];
    let batch = cost.batch.max(1) as u64;
    let mut heavy: Vec<_> = cost.nodes.iter().filter(|n| n.macs.is_some_and(|m| m > 0)).collect();
    heavy.sort_by_key(|n| std::cmp::Reverse(n.macs));
    let rows = heavy.iter().take(20).map(|n| {
        vec![
            n.node.name.clone().into(),
            n.node.operator.clone().into(),
            format!("{:?}", n.shapes.first().map_or(&[][..], Vec::as_slice)).into(),
            (n.macs.unwrap_or(0) / batch).into(),
            n.parameters.into(),
        ]
    });
    let table = Table {
        title: "Nodes with the most operations".to_owned(),
        columns: ["node", "operator", "output shape", "MACs per row", "parameters"].map(String::from).to_vec(),
        rows: rows.collect(),
    };
    let draft = cx.finding("macs", "Operations");
    findings.push(match cost.macs {
        Some(macs) => draft
            .value("macs", "operations", (macs / batch) as f64)
            .explain("Multiply-accumulate operations of one row: products, convolutions and recurrences.")
            .evidence(Evidence::Table(table))
            .done(),
        None => draft
            .verdict(Verdict::Inconclusive)
            .explain("The shapes inside the network depend on the values of its input.")
            .done(),
    });
    findings.push(
        cx.finding("peak-activation", "Peak activation memory")
            .value("peak_activation_bytes", "bytes", (cost.peak_activation_bytes / batch) as f64)
            .explain("Most bytes of activations of one row that are alive at one time, each freed after its last use.")
            .caveat("what kernels need for themselves is not counted")
            .done(),
    );
    Ok(findings)
}
