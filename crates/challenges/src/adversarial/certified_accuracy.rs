//! How much of the accuracy is proved, over epsilon.
//! The rows' certified radii make the whole curve: for each epsilon the fraction of rows that are right and whose radius is
//! larger. l∞ and l1 by bounds of the network itself, the cheapest first (IBP, CROWN-IBP, CROWN: see those cards); l2 by
//! bounds too, or by smoothing when asked, which certifies the network under noise instead.
//! Checked against: closed form of a linear model, attacks (a certified row is never broken).
//! Weak: a network that was not trained for it has small radii here whatever attacks may find; a low curve says that little
//! can be proved, not that the network is weak.

use netproof_audit::{AuditError, Check, Context, Findings, Head, Part, Subject};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Comparison, Evidence, Finding, Mark, Need, Norm, OptionDoc, Plot, PlotKind,
    Series, Table, Threat, Threshold, Verdict,
};
use netproof_graph::GraphError;
use netproof_stats::descriptive::quantile;
use netproof_stats::interval::proportion::clopper_pearson;
use netproof_stats::rng::Rng;
use netproof_stats::{Estimate, Level};
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::AttackError;
use super::certificates::sequential_smoothing::SequentialSmoothing;
use super::certificates::{CERTIFICATES, Certificate, Guarantee, Rows, neurons_work};

pub(crate) static CARD: Card = Card {
    id: "certified-accuracy",
    version: 1,
    kind: CardKind::Check,
    title: "Certified accuracy",
    challenge: Challenge::Adversarial,
    measures: "The fraction of rows that the network provably gets right under every change up to epsilon, as a curve over \
               epsilon: by bounds of the network, or of the network under noise where smoothing is asked for.",
    reference: "Gowal et al. 2019, arXiv:1810.12715; Zhang et al. 2018, arXiv:1811.00866; Cohen, Rosenfeld and Kolter 2019, \
                arXiv:1902.02918",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc { name: "rows", default: "100", doc: "Rows that are certified, evenly spaced; 1 to 100000." },
        OptionDoc { name: "norm", default: "\"linf\"", doc: "How changes are measured: linf, l2 or l1." },
        OptionDoc {
            name: "epsilon",
            default: "0.0",
            doc: "Epsilon at which certified accuracy is judged, in units of the features; 0: only the curve is shown.",
        },
        OptionDoc {
            name: "least",
            default: "0.0",
            doc: "Certified accuracy at epsilon below which the finding is a concern, 0 to 1; 0: none.",
        },
        OptionDoc {
            name: "largest",
            default: "0.0",
            doc: "Largest epsilon of the curve; 0: a tenth of the features' range for linf, the range for l2, ten times for l1.",
        },
        OptionDoc {
            name: "bounds",
            default: "[]",
            doc: "Least and largest value of a feature, such as [0.0, 1.0]; empty: those of the data.",
        },
        OptionDoc {
            name: "methods",
            default: "[\"ibp\", \"crown-ibp\", \"crown\"]",
            doc: "Certificates by bounds, in this order; also alpha-crown.",
        },
        OptionDoc {
            name: "most_macs",
            default: "500000000000.0",
            doc: "Operations that CROWN and α-CROWN may take for all rows together; they are left out where they need more.",
        },
        OptionDoc {
            name: "smoothing",
            default: "false",
            doc: "For l2: certify the network under noise by sequential randomised smoothing instead.",
        },
        OptionDoc {
            name: "sigma",
            default: "0.25",
            doc: "Standard deviation of that noise, in units of the features.",
        },
        OptionDoc { name: "draws", default: "10000", doc: "Most draws of noise for a row." },
    ],
};

/// Points of the curve.
const POINTS: usize = 24;

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CertifiedAccuracy {
    rows: usize,
    norm: Norm,
    epsilon: f64,
    least: f64,
    largest: f64,
    bounds: Vec<f64>,
    methods: Vec<String>,
    most_macs: f64,
    smoothing: bool,
    sigma: f64,
    draws: u64,
}

impl Default for CertifiedAccuracy {
    fn default() -> Self {
        Self {
            rows: 100,
            norm: Norm::Linf,
            epsilon: 0.0,
            least: 0.0,
            largest: 0.0,
            bounds: Vec::new(),
            methods: ["ibp", "crown-ibp", "crown"].map(str::to_owned).to_vec(),
            most_macs: 5e11,
            smoothing: false,
            sigma: 0.25,
            draws: 10_000,
        }
    }
}

/// Rows that are certified, their true classes, and what was found.
struct Found {
    radii: Vec<Option<f64>>,
    by: Vec<Option<&'static str>>,
    caveats: Vec<String>,
}

impl Check for CertifiedAccuracy {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let draft = cx.finding("curve", "Certified accuracy");
        if subject.head() == Head::Value {
            let text = "The network predicts numbers; certificates are about classes.";
            return Ok(vec![draft.verdict(Verdict::NotApplicable).explain(text).done()].into());
        }
        let (x, labels, ids) = sample(subject, self.rows.clamp(1, 100_000))?;
        let bounds = self.bounds(subject, cx)?;
        let width = bounds[1] - bounds[0];
        let largest = match (self.largest > 0.0, self.norm) {
            (true, _) => self.largest.max(self.epsilon),
            (false, Norm::Linf) => (0.1 * width).max(self.epsilon),
            (false, Norm::L2) => width.max(self.epsilon),
            (false, _) => (10.0 * width).max(self.epsilon),
        };
        let threat = Threat::new(self.norm, largest, bounds).map_err(AttackError::from)?;
        let seeds: Vec<u64> = ids.iter().map(|&id| Rng::stream(cx.seed, id.wrapping_add(1)).next_u64()).collect();
        let rows = Rows { model: subject.model(), x: &x, labels: &labels, seeds: &seeds, deadline: cx.deadline };
        let found = if self.smoothing { self.smoothed(&rows, &threat, cx) } else { self.bounded(&rows, &threat, cx) };
        match found {
            Ok(found) => Ok(self.findings(&found, &threat, &ids, cx).into()),
            Err(AttackError::Graph(e @ GraphError::Unsupported(_))) => {
                let text = format!("Nothing can be proved of this network: {e}.");
                Ok(vec![draft.verdict(Verdict::NotApplicable).explain(text).done()].into())
            }
            Err(AttackError::Graph(e @ GraphError::Bounds { .. })) => {
                let text = format!("Nothing can be proved of this network: {e}.");
                Ok(vec![draft.verdict(Verdict::Inconclusive).explain(text).done()].into())
            }
            Err(e) => Err(e.into()),
        }
    }
}

impl CertifiedAccuracy {
    fn bounds(&self, subject: &Subject, cx: &Context<'_>) -> Result<[f64; 2], AuditError> {
        match self.bounds[..] {
            [low, high] => return Ok([low, high]),
            [] => {}
            _ => {
                return Err(AuditError::Option {
                    id: CARD.id.to_owned(),
                    message: format!("`bounds` has {} numbers, it must have 2 or none", self.bounds.len()),
                });
            }
        }
        let scan = subject.scan(Part::Test, cx)?;
        let features = scan.iter().flat_map(|s| &s.features);
        let ends = features.filter_map(|m| Some((m.min()?, m.max()?)));
        let [low, high] = ends.fold([f64::INFINITY, f64::NEG_INFINITY], |[l, h], (a, b)| [l.min(a), h.max(b)]);
        Ok(if low < high { [low, high] } else { [0.0, 1.0] })
    }

    /// Radii by bounds of the network: for each row the largest that a method finds.
    fn bounded(&self, rows: &Rows<'_>, threat: &Threat, cx: &Context<'_>) -> Result<Found, AttackError> {
        let n = rows.len();
        let mut found = Found { radii: vec![None; n], by: vec![None; n], caveats: Vec::new() };
        cx.progress.start("certifying", self.methods.len() as u64);
        let result = self.climb(rows, threat, cx, &mut found);
        cx.progress.finish();
        result.map(|()| found)
    }

    fn climb(&self, rows: &Rows<'_>, threat: &Threat, cx: &Context<'_>, found: &mut Found) -> Result<(), AttackError> {
        let chosen = netproof_audit::select("certificate", CERTIFICATES, &self.methods, &[], &toml::Table::new())?;
        for id in &self.methods {
            let Some(certificate) = chosen.iter().find(|c| c.card.id == id) else { continue };
            if certificate.method.guarantee() != Guarantee::Certain {
                let message = format!("`{id}` certifies the network under noise; set `smoothing` instead");
                return Err(AuditError::Option { id: CARD.id.to_owned(), message }.into());
            }
            // A search takes as many evaluations as it has halvings, and two more.
            let work = neurons_work(rows.model, rows.x) as f64 * rows.len() as f64 * 12.0;
            if matches!(certificate.card.id, "crown" | "alpha-crown") && work > self.most_macs {
                found.caveats.push(format!(
                    "{} was left out: it would take about {work:.1e} operations (option `most_macs`), so that the curve is \
                     lower than it could be",
                    certificate.card.title
                ));
                continue;
            }
            let radii = certificate.method.radii(rows, threat)?;
            for ((old, by), new) in found.radii.iter_mut().zip(&mut found.by).zip(radii) {
                if let Some(new) = new.filter(|r| old.is_none_or(|o| *r > o)) {
                    (*old, *by) = (Some(new), Some(certificate.card.id));
                }
            }
            cx.progress.advance(1);
        }
        Ok(())
    }

    fn smoothed(&self, rows: &Rows<'_>, threat: &Threat, cx: &Context<'_>) -> Result<Found, AttackError> {
        let method = SequentialSmoothing { sigma: self.sigma, draws: self.draws, ..SequentialSmoothing::default() };
        cx.progress.start("sampling noise", 1);
        let radii = method.radii(rows, threat);
        cx.progress.finish();
        let radii = radii?;
        let by = radii.iter().map(|r| r.map(|_| "sequential-smoothing")).collect();
        let caveats = vec![format!(
            "certified is the network under Gaussian noise of standard deviation {}, each row with probability {}; the \
             network itself has no such guarantee",
            self.sigma,
            1.0 - method.alpha
        )];
        Ok(Found { radii, by, caveats })
    }

    fn findings(&self, found: &Found, threat: &Threat, ids: &[u64], cx: &Context<'_>) -> Vec<Finding> {
        let n = found.radii.len() as u64;
        let radii: Vec<f64> = found.radii.iter().map(|r| r.unwrap_or(-1.0)).collect();
        let positive: Vec<f64> = found.radii.iter().flatten().copied().collect();
        let largest = positive.iter().copied().fold(0.0, f64::max);
        // The curve ends a little beyond the largest radius: all further points are 0.
        let end = if largest > 0.0 { (1.1 * largest).min(threat.epsilon) } else { threat.epsilon };
        let at = |epsilon: f64| certified(&radii, epsilon, cx.level);
        let points: Vec<(f64, Estimate)> = (0..=POINTS)
            .filter_map(|i| {
                let epsilon = end * i as f64 / POINTS as f64;
                Some((epsilon, at(epsilon)?))
            })
            .collect();
        let evidence = [curve(&points, threat), table(&points), longest(found, ids)];
        let mut counts: Vec<String> = Vec::new();
        for id in CERTIFICATES.iter().map(|e| e.card.id) {
            let by = found.by.iter().flatten().filter(|b| **b == id).count();
            if by > 0 {
                counts.push(format!("{id} {by}"));
            }
        }
        let right = positive.len();
        let judged = if self.epsilon > 0.0 { self.epsilon } else { 0.0 };
        let mut findings = Vec::new();
        if let Some(estimate) = at(judged).filter(|_| judged > 0.0) {
            let mut draft = cx
                .finding("at-epsilon", "Certified accuracy at epsilon")
                .estimate("certified_accuracy", "fraction", &estimate)
                .explain(format!(
                    "{} of {n} rows are proved right under every change of {} up to {judged}.",
                    (estimate.value * n as f64).round(),
                    threat.norm
                ))
                .caveats(found.caveats.clone());
            if self.least > 0.0 {
                draft = draft.threshold(Threshold {
                    value: self.least,
                    comparison: Comparison::AtLeast,
                    source: "option `least`".to_owned(),
                });
            }
            findings.push(draft.done());
        }
        let median = quantile(&radii.iter().map(|r| r.max(0.0)).collect::<Vec<_>>(), 0.5);
        let mut draft = cx
            .finding("curve", "Certified accuracy over epsilon")
            .n(n)
            .explain(format!(
                "Of {n} rows {right} are proved right as they are. The median row is proved up to {} {:.5}, the best one up \
                 to {largest:.5}. Largest radii by method: {}.",
                threat.norm,
                median.unwrap_or_default(),
                if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
            ))
            .caveats(found.caveats.clone())
            .caveat("a low curve means that little can be proved, which is not yet a weakness that an attack can use");
        if let Some(median) = median {
            draft = draft.value("median_certified_radius", "units of the features", median);
        }
        for e in evidence {
            draft = draft.evidence(e);
        }
        findings.push(draft.done());
        findings
    }
}

/// Rows whose radius is at least epsilon, of all, with the interval of Clopper and Pearson.
fn certified(radii: &[f64], epsilon: f64, level: Level) -> Option<Estimate> {
    let n = radii.len() as u64;
    let yes = radii.iter().filter(|&&r| r >= epsilon).count() as u64;
    let interval = clopper_pearson(yes, n, level)?;
    Some(Estimate { value: yes as f64 / n as f64, n, standard_error: None, interval: Some(interval) })
}

fn curve(points: &[(f64, Estimate)], threat: &Threat) -> Evidence {
    let mark = |(epsilon, e): &(f64, Estimate)| Mark {
        x: Some(*epsilon),
        y: e.value,
        low: e.interval.map(|i| i.low),
        high: e.interval.map(|i| i.high),
        n: Some(e.n),
        label: None,
    };
    Evidence::Plot(Plot {
        title: "Certified accuracy over epsilon, with Clopper–Pearson intervals".to_owned(),
        x: Axis::new(format!("epsilon ({})", threat.norm)),
        y: Axis::unit("fraction of rows"),
        plot: PlotKind::Lines,
        series: vec![Series { name: "certified".to_owned(), marks: points.iter().map(mark).collect() }],
        reference: None,
    })
}

fn table(points: &[(f64, Estimate)]) -> Evidence {
    let rows = points.iter().step_by(2).map(|(epsilon, e)| {
        let side = |f: fn(&netproof_stats::Interval) -> f64| e.interval.map(|i| f(&i)).into();
        vec![(*epsilon).into(), e.value.into(), side(|i| i.low), side(|i| i.high)]
    });
    Evidence::Table(Table {
        title: "Certified accuracy".to_owned(),
        columns: ["epsilon", "certified accuracy", "low", "high"].map(String::from).to_vec(),
        rows: rows.collect(),
    })
}

/// Rows that are right and have the smallest radii: where to attack first.
fn longest(found: &Found, ids: &[u64]) -> Evidence {
    let mut order: Vec<usize> = (0..ids.len()).filter(|&i| found.radii[i].is_some()).collect();
    order.sort_by(|&a, &b| {
        let of = |i: usize| found.radii[i].unwrap_or_default();
        of(a).total_cmp(&of(b)).then(a.cmp(&b))
    });
    let ids = order.iter().take(20).map(|&i| ids[i]).collect();
    Evidence::Rows { title: "Right rows with the smallest certified radius".to_owned(), ids }
}

/// Evenly spaced rows as the network takes them, with classes and row numbers.
pub(super) fn sample(subject: &Subject, most: usize) -> Result<(Tensor, Vec<usize>, Vec<u64>), AuditError> {
    let data = subject.data();
    let stride = data.len().div_ceil(most.max(1)).max(1);
    let picked: Vec<usize> = (0..data.len()).step_by(stride).collect();
    let batch = data.select(&picked)?.load()?;
    let labels = match &batch.labels {
        netproof_data::Labels::Classes(labels) => labels.clone(),
        _ => return Err(AuditError::Mismatch { message: "the labels are no classes".to_owned() }),
    };
    Ok((subject.in_shape(&batch.features)?, labels, batch.row_ids.clone()))
}
