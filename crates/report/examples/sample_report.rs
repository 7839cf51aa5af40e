//! Writes the report of an invented audit of a clothing classifier: `cargo run --example sample_report -- sample.html`.
//!
//! The numbers are made up, in the range of what a small network reaches on Fashion-MNIST.

use std::collections::BTreeMap;

use netproof_core::{
    AuditDocument, Axis, Card, CardKind, Challenge, Clock, Comparison, Evidence, Finding, Interval, Mark, Plot,
    PlotKind, Provenance, SCHEMA, Series, Table, Threshold, Verdict,
};
use netproof_report::{HtmlOptions, SummaryOptions, render_html, summary, to_junit, to_sarif};

const CLASSES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

const CONFUSION: [[u64; 10]; 10] = [
    [164, 0, 4, 5, 1, 0, 23, 0, 3, 0],
    [0, 194, 0, 4, 1, 0, 1, 0, 0, 0],
    [3, 0, 158, 2, 19, 0, 17, 0, 1, 0],
    [5, 2, 2, 181, 5, 0, 4, 0, 1, 0],
    [0, 0, 14, 6, 165, 0, 14, 0, 1, 0],
    [0, 0, 0, 0, 0, 191, 0, 6, 0, 3],
    [27, 0, 15, 5, 17, 0, 132, 0, 4, 0],
    [0, 0, 0, 0, 0, 4, 0, 188, 0, 8],
    [1, 0, 1, 1, 1, 1, 2, 0, 193, 0],
    [0, 0, 0, 0, 0, 2, 0, 9, 0, 189],
];

static CARDS: [Card; 6] = [
    card(
        "performance",
        CardKind::Check,
        "Performance",
        Challenge::Overfitting,
        "How often the network is right on the given data: overall, by class and by probability.",
        "Wilson, JASA 22 (1927); Hand and Till, Machine Learning 45 (2001)",
    ),
    card(
        "calibration",
        CardKind::Check,
        "Calibration",
        Challenge::Overfitting,
        "Whether a stated confidence of 80 % is right in 80 % of cases: expected calibration error over 15 bins.",
        "Guo et al., ICML 2017, arXiv:1706.04599, section 2",
    ),
    card(
        "generalisation-gap",
        CardKind::Check,
        "Generalisation gap",
        Challenge::Overfitting,
        "How much better the network is on its training data than on new data.",
        "Newcombe, Statistics in Medicine 17 (1998), method 10",
    ),
    card(
        "data-summary",
        CardKind::Check,
        "Data summary",
        Challenge::DataLimits,
        "Counts, class balance, duplicates, conflicting labels and overlap of training and test data.",
        "Barz and Denzler, Journal of Imaging 6 (2020), section 3",
    ),
    card(
        "compute-cost",
        CardKind::Check,
        "Compute cost",
        Challenge::Compute,
        "Parameters, operations, memory and latency by batch size.",
        "MLPerf Inference rules, section 3",
    ),
    card(
        "temperature-scaling",
        CardKind::Remedy,
        "Temperature scaling",
        Challenge::Overfitting,
        "Divides the logits by one number fitted on half of the data; verified on the other half.",
        "Guo et al., ICML 2017, arXiv:1706.04599, section 4.2",
    ),
];

const fn card(
    id: &'static str,
    kind: CardKind,
    title: &'static str,
    challenge: Challenge,
    measures: &'static str,
    reference: &'static str,
) -> Card {
    Card { id, version: 1, kind, title, challenge, measures, reference, needs: &[], options: &[] }
}

/// Wilson interval at 95 %.
fn wilson(k: u64, n: u64) -> (f64, f64) {
    let (k, n, z) = (k as f64, n as f64, 1.959_964);
    let p = k / n;
    let middle = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    (middle - half, middle + half)
}

fn finding(id: &str, challenge: Challenge, verdict: Verdict, title: &str, explanation: &str) -> Finding {
    Finding {
        id: id.into(),
        check: id.split('/').next().unwrap_or(id).into(),
        challenge,
        title: title.into(),
        verdict,
        metric: id.split('/').nth(1).map(str::to_owned),
        value: None,
        interval: None,
        n: None,
        unit: None,
        threshold: None,
        explanation: explanation.into(),
        caveats: vec![],
        evidence: vec![],
        remedies: vec![],
        provenance: Provenance {
            model: "5f2b9f0f6f0cfc0bb6c5d3b0a9b1b1d64ad1d3bfb8f5b1c7d1f0c8a3e2b94c11".into(),
            data: "0c1d5f0a7d9e1c3b5a79688f7e6d5c4b3a2918070f1e2d3c4b5a69788796a5b4".into(),
            options: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".into(),
            version: 1,
            seed: 7,
            device: "cpu (flex), float32".into(),
        },
    }
}

fn with(mut f: Finding, value: f64, interval: Option<(f64, f64, &str)>, n: u64, unit: &str) -> Finding {
    f.value = Some(value);
    f.interval = interval.map(|(low, high, method)| Interval { low, high, level: 0.95, method: method.into() });
    f.n = Some(n);
    f.unit = Some(unit.into());
    f
}

fn limit(mut f: Finding, value: f64, comparison: Comparison, source: &str) -> Finding {
    f.threshold = Some(Threshold { value, comparison, source: source.into() });
    f
}

fn plot(title: &str, x: Axis, y: Axis, plot: PlotKind, series: Vec<Series>) -> Plot {
    Plot { title: title.into(), x, y, plot, series, reference: None }
}

fn mark(x: f64, y: f64) -> Mark {
    Mark { x: Some(x), y, ..Mark::default() }
}

fn performance() -> Vec<Finding> {
    let n = 2000;
    let right: u64 = (0..10).map(|i| CONFUSION[i][i]).sum();
    let (low, high) = wilson(right, n);
    let names: Vec<String> = CLASSES.iter().map(|c| (*c).to_owned()).collect();
    let accuracy = finding(
        "performance/accuracy",
        Challenge::Overfitting,
        Verdict::Concern,
        "Accuracy is below the declared limit",
        "The network is right on 1,755 of 2,000 images. Even the upper end of the interval stays below the limit of 0.90, \
         so more data from the same source would not change the verdict.\n\nMost errors are shirts taken for T-shirts, \
         pullovers and coats.",
    );
    let mut accuracy = limit(
        with(accuracy, right as f64 / n as f64, Some((low, high, "wilson")), n, "fraction"),
        0.90,
        Comparison::AtLeast,
        "policy.toml, performance.accuracy",
    );
    accuracy.caveats =
        vec!["The images come from the same source as the training data; other cameras are not covered.".into()];
    let matrix = PlotKind::Matrix {
        rows: names.clone(),
        columns: names,
        values: CONFUSION.iter().flatten().map(|v| *v as f64).collect(),
    };
    accuracy.evidence = vec![Evidence::Plot(plot(
        "Confusion matrix",
        Axis::new("predicted class"),
        Axis::new("true class"),
        matrix,
        vec![],
    ))];

    let worst = finding(
        "performance/recall",
        Challenge::Overfitting,
        Verdict::Concern,
        "Shirts are recognised far less often than other classes",
        "Recall is the share of images of a class that the network finds. Shirts stand at 0.66, while every other class \
         lies above 0.79.",
    );
    let (low, high) = wilson(132, 200);
    let mut worst = limit(
        with(worst, 0.66, Some((low, high, "wilson")), 200, "fraction"),
        0.75,
        Comparison::AtLeast,
        "policy.toml, performance.recall",
    );
    let per_class = |column: bool| -> Vec<Mark> {
        (0..10)
            .map(|i| {
                let total: u64 = (0..10).map(|j| if column { CONFUSION[j][i] } else { CONFUSION[i][j] }).sum();
                let (low, high) = wilson(CONFUSION[i][i], total);
                Mark {
                    y: CONFUSION[i][i] as f64 / total as f64,
                    low: Some(low),
                    high: Some(high),
                    n: Some(total),
                    label: Some(CLASSES[i].into()),
                    x: None,
                }
            })
            .collect()
    };
    let mut recall = plot(
        "Recall by class",
        Axis::new("recall (fraction)"),
        Axis::default(),
        PlotKind::Forest,
        vec![Series { name: "recall".into(), marks: per_class(false) }],
    );
    recall.reference = Some(0.75);
    let both = plot(
        "Precision and recall by class",
        Axis::unit("fraction"),
        Axis::default(),
        PlotKind::Forest,
        vec![
            Series { name: "precision".into(), marks: per_class(true) },
            Series { name: "recall".into(), marks: per_class(false) },
        ],
    );
    let hardest = Table {
        title: "Hardest rows: largest loss first".into(),
        columns: ["Row", "True class", "Predicted class", "Probability of true class", "Loss (nats)"]
            .map(str::to_owned)
            .into(),
        rows: (0..14u64)
            .map(|i| {
                let p = 0.0004 * 1.7f64.powi(i as i32);
                vec![
                    (i * 137 + 11).into(),
                    CLASSES[6].into(),
                    CLASSES[[0, 2, 4][i as usize % 3]].into(),
                    p.into(),
                    (-p.ln()).into(),
                ]
            })
            .collect(),
    };
    worst.evidence = vec![Evidence::Plot(recall), Evidence::Plot(both), Evidence::Table(hardest)];

    let auroc = finding(
        "performance/auroc_ovr_macro",
        Challenge::Overfitting,
        Verdict::Pass,
        "Classes are well separated",
        "The area under the curve of each class against all others, averaged: 0.5 would be chance, 1 is perfect.",
    );
    let mut auroc = with(auroc, 0.990_2, Some((0.987_8, 0.992_3, "bootstrap-percentile")), n, "fraction");
    let curve = |k: f64| {
        (0..=200)
            .map(|i| {
                let x = f64::from(i) / 200.0;
                mark(x, x.powf(k))
            })
            .collect()
    };
    let roc = CLASSES.iter().enumerate().map(|(i, c)| Series {
        name: (*c).into(),
        marks: curve([0.05, 0.01, 0.07, 0.04, 0.06, 0.012, 0.14, 0.02, 0.008, 0.018][i]),
    });
    auroc.evidence = vec![
        Evidence::Plot(plot(
            "ROC by class, one versus rest",
            Axis::unit("false positive rate"),
            Axis::unit("true positive rate"),
            PlotKind::Lines,
            roc.collect(),
        )),
        Evidence::Plot(plot(
            "Loss against confidence",
            Axis::unit("confidence"),
            Axis { log: true, ..Axis::new("loss (nats)") },
            PlotKind::Points,
            vec![Series {
                name: "rows".into(),
                marks: (1..10_000)
                    .map(|i| {
                        let c = 0.3 + 0.699 * f64::from(i * 7919 % 10_007) / 10_007.0;
                        mark(c, -c.ln() * (1.0 + f64::from(i * 31 % 17) / 4.0) + 1e-4)
                    })
                    .collect(),
            }],
        )),
    ];
    vec![accuracy, worst, auroc]
}

fn calibration() -> Vec<Finding> {
    let ece = finding(
        "calibration/ece",
        Challenge::Overfitting,
        Verdict::Inconclusive,
        "Confidence and accuracy may differ",
        "The expected calibration error is the mean distance between stated confidence and accuracy. The interval holds \
         values on both sides of the limit, so 2,000 rows are too few to decide.",
    );
    let mut ece = limit(
        with(ece, 0.016_8, Some((0.011_2, 0.026_4, "bootstrap-percentile")), 2000, "fraction"),
        0.02,
        Comparison::AtMost,
        "policy.toml, calibration.ece",
    );
    ece.caveats = vec![
        "The estimate depends on the number of bins (15, equal width) and is biased upwards for small samples.".into(),
        "Six of the bins hold fewer than 40 rows.".into(),
    ];
    ece.remedies = vec!["temperature-scaling".into()];
    let bins: Vec<(f64, f64, u64)> = vec![
        (0.23, 0.31, 8),
        (0.31, 0.27, 22),
        (0.37, 0.42, 31),
        (0.43, 0.39, 49),
        (0.50, 0.53, 66),
        (0.57, 0.52, 78),
        (0.63, 0.60, 84),
        (0.70, 0.68, 97),
        (0.77, 0.74, 121),
        (0.83, 0.80, 149),
        (0.90, 0.88, 236),
        (0.98, 0.975, 1059),
    ];
    let accuracy = bins.iter().map(|(c, a, n)| {
        let (low, high) = wilson((a * *n as f64).round() as u64, *n);
        Mark { low: Some(low), high: Some(high), n: Some(*n), ..mark(*c, *a) }
    });
    let band = bins.iter().map(|(c, _, n)| {
        let half = 1.96 * (c * (1.0 - c) / *n as f64).sqrt();
        Mark { low: Some((c - half).max(0.0)), high: Some((c + half).min(1.0)), ..mark(*c, *c) }
    });
    ece.evidence = vec![
        Evidence::Plot(plot(
            "Reliability diagram",
            Axis::unit("mean confidence"),
            Axis::unit("accuracy"),
            PlotKind::Reliability,
            vec![
                Series { name: "consistency band, 95 %".into(), marks: band.collect() },
                Series { name: "accuracy by bin".into(), marks: accuracy.collect() },
            ],
        )),
        Evidence::Plot(plot(
            "Log loss by temperature",
            Axis { log: true, ..Axis::new("temperature") },
            Axis::new("log loss (nats)"),
            PlotKind::Lines,
            ["fitting half", "verifying half"]
                .iter()
                .enumerate()
                .map(|(s, name)| Series {
                    name: (*name).into(),
                    marks: (0..20)
                        .map(|i| {
                            let t = 0.4 * 1.12f64.powi(i);
                            let y = 0.335 + 0.08 * (t.ln() + 0.02).powi(2) + 0.021 * s as f64;
                            Mark { low: Some(y - 0.006), high: Some(y + 0.006), ..mark(t, y) }
                        })
                        .collect(),
                })
                .collect(),
        )),
    ];
    vec![ece]
}

fn rest() -> Vec<Finding> {
    let gap = finding(
        "generalisation-gap/accuracy_gap",
        Challenge::Overfitting,
        Verdict::Pass,
        "Training and test accuracy differ little",
        "The network is right on 0.914 of the training rows and on 0.8775 of the test rows.",
    );
    let gap = limit(
        with(gap, 0.036_5, Some((0.021_4, 0.052_3, "newcombe")), 22_000, "fraction"),
        0.08,
        Comparison::AtMost,
        "policy.toml, generalisation-gap.accuracy_gap",
    );
    let duplicates = finding(
        "data-summary/duplicates_with_conflicting_labels",
        Challenge::DataLimits,
        Verdict::Concern,
        "Some identical images carry different labels",
        "Two rows hold the same pixels under different labels; one of the two labels must be wrong.",
    );
    let mut duplicates = with(duplicates, 2.0, None, 2000, "count");
    duplicates.evidence = vec![Evidence::Rows { title: "Rows of conflicting duplicates".into(), ids: vec![412, 1893] }];
    let mut balance = finding(
        "data-summary/class_balance",
        Challenge::DataLimits,
        Verdict::Pass,
        "All classes are equally frequent",
        "Each class has 200 of the 2,000 rows.",
    );
    balance = with(balance, 1.0, None, 2000, "fraction");
    balance.evidence = vec![Evidence::Plot(plot(
        "Rows by class",
        Axis::default(),
        Axis::new("rows"),
        PlotKind::Bars,
        vec![Series {
            name: "rows".into(),
            marks: CLASSES.iter().map(|c| Mark { y: 200.0, label: Some((*c).into()), ..Mark::default() }).collect(),
        }],
    ))];
    let overlap = finding(
        "data-summary/train_test_overlap_of_a_column_whose_name_is_far_too_long_because_an_export_joined_seven_tables_and_kept_every_prefix",
        Challenge::DataLimits,
        Verdict::NotApplicable,
        "Overlap of training and test data in source__warehouse__emea__articles__images__normalised__v2__final__really_final_<b>bold</b>",
        "No training data were given, so the overlap cannot be measured. Give --train-data to measure it.",
    );
    let mut energy = finding(
        "compute-cost/energy",
        Challenge::Compute,
        Verdict::Failed,
        "Energy could not be read",
        "The machine has no readable energy counter (/sys/class/powercap: permission denied).",
    );
    energy.caveats = vec!["Run as root, or leave the check out with --skip compute-cost/energy.".into()];
    let parameters = finding(
        "compute-cost/macs",
        Challenge::Compute,
        Verdict::Pass,
        "Multiply-accumulate operations per image",
        "Counted from the shapes of the graph; most of them are in the second convolution.",
    );
    let mut parameters = limit(
        with(parameters, 1_218_560.0, None, 1, "operations"),
        5e6,
        Comparison::AtMost,
        "policy.toml, compute-cost.macs",
    );
    let shares = [("conv1", 0.093), ("conv2", 0.741), ("fc1", 0.165), ("fc2", 0.001)];
    parameters.evidence = vec![Evidence::Table(Table {
        title: "Cost by node".into(),
        columns: ["Node", "Operator", "Operations", "Share", "Activation (bytes)"].map(str::to_owned).into(),
        rows: shares
            .iter()
            .map(|(n, s)| {
                vec![
                    (*n).into(),
                    (if n.starts_with('c') { "Conv" } else { "Gemm" }).into(),
                    ((s * 1_218_560.0) as u64).into(),
                    (*s).into(),
                    ((s * 50_000.0) as u64).into(),
                ]
            })
            .collect(),
    })];
    vec![gap, balance, duplicates, overlap, parameters, energy]
}

fn clocked() -> Vec<Finding> {
    let mut latency = with(
        finding(
            "compute-cost/latency_p50",
            Challenge::Compute,
            Verdict::Pass,
            "Median latency of one image",
            "Half of 200 runs after warm-up took less time than this.",
        ),
        0.412,
        Some((0.405, 0.421, "order-statistics")),
        200,
        "ms",
    );
    latency.caveats = vec!["Other programs ran on the same machine.".into()];
    let times = [(1, 0.41, 0.63), (8, 2.2, 2.9), (32, 8.1, 9.6), (128, 31.8, 36.4)];
    let series = |name: &str, pick: fn(&(i32, f64, f64)) -> f64| Series {
        name: name.into(),
        marks: times
            .iter()
            .map(|t| {
                let y = pick(t);
                Mark {
                    y,
                    low: Some(y * 0.97),
                    high: Some(y * 1.06),
                    label: Some(format!("batch {}", t.0)),
                    n: Some(200),
                    x: None,
                }
            })
            .collect(),
    };
    latency.evidence = vec![
        Evidence::Plot(plot(
            "Latency by batch size",
            Axis::default(),
            Axis::new("latency (ms)"),
            PlotKind::Bars,
            vec![series("median", |t| t.1), series("99th percentile", |t| t.2)],
        )),
        Evidence::Plot(plot(
            "Throughput by batch size",
            Axis { log: true, ..Axis::new("batch size") },
            Axis::new("images per second"),
            PlotKind::Lines,
            vec![Series {
                name: "throughput".into(),
                marks: times.iter().map(|t| mark(f64::from(t.0), f64::from(t.0) / t.1 * 1000.0)).collect(),
            }],
        )),
    ];
    vec![latency]
}

/// The whole invented audit.
fn document() -> AuditDocument {
    let map = |pairs: &[(&str, serde_json::Value)]| -> BTreeMap<String, serde_json::Value> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect()
    };
    let mut findings = performance();
    findings.extend(calibration());
    findings.extend(rest());
    AuditDocument {
        schema: SCHEMA.into(),
        tool: "netproof 0.1.0".into(),
        model: map(&[
            ("name", "fashion-cnn.onnx".into()),
            ("sha256", "5f2b9f0f6f0cfc0bb6c5d3b0a9b1b1d64ad1d3bfb8f5b1c7d1f0c8a3e2b94c11".into()),
            ("parameters", 206_922.into()),
            ("opset", 17.into()),
            ("input", "pixels: float32 [batch, 1, 28, 28]".into()),
        ]),
        data: map(&[
            ("name", "fashion-mnist-test-2000.npz".into()),
            ("rows", 2000.into()),
            ("classes", CLASSES.to_vec().into()),
        ]),
        seed: 7,
        policy_violations: vec![
            "performance.accuracy is 0.8775, but must be at least 0.9".into(),
            "performance.recall of class Shirt is 0.66, but must be at least 0.75".into(),
        ],
        findings,
        digest: "9d2c8f4b7a6e5d3c1b0a99887766554433221100ffeeddccbbaa998877665544".into(),
        clock: Clock {
            started: "2026-03-02T09:41:07Z".into(),
            seconds: [("performance", 3.214), ("calibration", 1.02), ("data-summary", 0.384), ("compute-cost", 11.9)]
                .map(|(k, v)| (k.to_owned(), v))
                .into(),
            reused: vec!["generalisation-gap".into()],
            findings: clocked(),
        },
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "sample.html".into());
    let d = document();
    let options = HtmlOptions {
        command: Some("netproof audit examples/fashion/netproof.toml --seed 7".into()),
        ..HtmlOptions::default()
    };
    std::fs::write(&path, render_html(&d, &CARDS, &options))?;
    std::fs::write(format!("{path}.junit.xml"), to_junit(&d))?;
    std::fs::write(format!("{path}.sarif"), to_sarif(&d, &CARDS))?;
    std::fs::write(format!("{path}.json"), netproof_report::to_json(&d)?)?;
    let files = vec![path.clone()];
    std::fs::write(format!("{path}.txt"), summary(&d, &SummaryOptions { width: 90, colour: false, files }))?;
    Ok(())
}
