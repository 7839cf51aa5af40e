//! Whether confidences are true: of the rows on which the network is 80 % sure, 80 % should be right.
//! Checked against: `fashion-cnn` (golden `cnn_2000`), PyTorch; consistency against simulation in `netproof-stats`.

use netproof_audit::{AuditError, Check, Classified, Context, Findings, Part, Subject};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Comparison, Evidence, Finding, Mark, Need, OptionDoc, Plot, PlotKind, Series,
    Threshold, Verdict,
};
use netproof_stats::bootstrap::{self, Method};
use netproof_stats::calibration::{
    Binning, Confidences, Reliability, Status, bootstrap_error, consistency, fit_temperature,
};
use netproof_stats::interval::mean::wald;
use serde::{Deserialize, Serialize};

use super::temperature_scaling;
use crate::shared::{RESAMPLED_ROWS, outputs, resampled_positions, undefined_caveat};

pub(crate) static CARD: Card = Card {
    id: "calibration",
    version: 1,
    kind: CardKind::Check,
    title: "Calibration",
    challenge: Challenge::Overfitting,
    measures: "How far the network's confidence is from how often it is right: expected calibration error with a \
               reliability diagram, whether it is more than the noise of a calibrated network, and the temperature that \
               would be best.",
    reference: "Guo, Pleiss, Sun and Weinberger, ICML 2017, arXiv:1706.04599, equation 3 and section 4.2; Bröcker and \
                Smith 2007, Weather and Forecasting 22(3)",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc { name: "bins", default: "15", doc: "Bins of equal width, 1 to 1000." },
        OptionDoc { name: "resamples", default: "1000", doc: "Resamples for interval and noise level, 100 to 100000." },
        OptionDoc {
            name: "tolerance",
            default: "0.02",
            doc: "Errors up to this are no concern even where they are more than noise, 0 to 1.",
        },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Calibration {
    bins: usize,
    resamples: usize,
    tolerance: f64,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { bins: 15, resamples: 1000, tolerance: 0.02 }
    }
}

impl Check for Calibration {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let outputs = outputs(subject, Part::Test, cx)?;
        let Some(c) = outputs.classified() else { return Ok(Findings::default()) };
        let mut findings = vec![self.error(c, cx)?];
        cx.check_time()?;
        findings.push(temperature(c, cx)?);
        Ok(findings.into())
    }
}

impl Calibration {
    fn error(&self, c: &Classified, cx: &Context<'_>) -> Result<Finding, AuditError> {
        let rows: Vec<usize> = (0..c.rows()).filter(|&i| !c.confidence[i].is_nan()).collect();
        let confidences = |rows: &[usize]| {
            let confidence = rows.iter().map(|&i| f64::from(c.confidence[i]).min(1.0)).collect();
            Confidences::new(confidence, rows.iter().map(|&i| c.labels[i] == c.predicted[i]).collect())
        };
        let all = confidences(&rows)?;
        let binning = Binning::EqualWidth(self.bins);
        let reliability = Reliability::new(&all, binning, cx.level)?;
        let draft = cx.finding("ece", "Calibration error");
        let Some(error) = reliability.expected_error() else {
            return Ok(draft.verdict(Verdict::Inconclusive).explain("No row has an answer.").done());
        };
        let kept: Vec<usize> = resampled_positions(rows.len()).into_iter().map(|i| rows[i]).collect();
        let sample = confidences(&kept)?;
        let resamples = self.resamples.clamp(100, 100_000);
        let noise = consistency(&sample, binning, resamples, cx.seed, cx.level)?;
        cx.check_time()?;
        // The error is biased upwards; the basic interval turns that round.
        let options = bootstrap::Options { resamples, seed: cx.seed, level: cx.level, method: Method::Basic };
        let boot = bootstrap_error(&sample, binning, &options)?;
        let complete = kept.len() == rows.len();
        let interval = boot.and_then(|b| {
            if complete {
                return b.estimate.interval;
            }
            let scale = (kept.len() as f64 / rows.len() as f64).sqrt();
            Some(wald(error, b.estimate.standard_error? * scale, cx.level).clamp(0.0, 1.0))
        });
        let Some(noise) = noise else {
            return Ok(draft.verdict(Verdict::Inconclusive).explain("No row has an answer.").done());
        };
        let limit = noise.limit.max(self.tolerance);
        let direction = match all.overconfidence() {
            Some(o) if o > 0.0 => format!("On average it is overconfident by {:.4}.", o),
            Some(o) => format!("On average it is underconfident by {:.4}.", -o),
            None => String::new(),
        };
        let sampled = format!("interval and noise level are from {RESAMPLED_ROWS} evenly spaced rows");
        Ok(draft
            .value("ece", "fraction", error)
            .n(reliability.n)
            .interval(interval)
            .threshold(Threshold {
                value: limit,
                comparison: Comparison::AtMost,
                source: format!(
                    "consistency resampling, Bröcker and Smith 2007: {:.4} is the {} quantile for a calibrated network; at \
                     least the tolerance {}",
                    noise.limit,
                    cx.level.get(),
                    self.tolerance
                ),
            })
            .explain(format!(
                "Confidence and accuracy differ by {error:.4} on average over {} bins. A perfectly calibrated network with \
                 these confidences would show {:.4} by chance alone (p = {:.3}). {direction}",
                self.bins, noise.expected, noise.p_value
            ))
            .caveats(undefined_caveat(c.undefined))
            .caveats((!complete).then_some(sampled))
            .evidence(diagram(&reliability))
            .remedy(temperature_scaling::CARD.id)
            .done())
    }
}

fn diagram(reliability: &Reliability) -> Evidence {
    let marks = reliability.bins.iter().filter_map(|b| {
        Some(Mark {
            x: Some(b.mean_confidence()?),
            y: b.accuracy()?,
            low: b.interval.map(|i| i.low),
            high: b.interval.map(|i| i.high),
            n: Some(b.count),
            label: None,
        })
    });
    Evidence::Plot(Plot {
        title: "Reliability diagram: accuracy by confidence, with Wilson intervals".to_owned(),
        x: Axis::unit("mean confidence in the bin"),
        y: Axis::unit("fraction right"),
        plot: PlotKind::Reliability,
        series: vec![Series { name: "network".to_owned(), marks: marks.collect() }],
        reference: None,
    })
}

fn temperature(c: &Classified, cx: &Context<'_>) -> Result<Finding, AuditError> {
    let draft = cx.finding("temperature", "Optimal temperature");
    if c.sample.logits.iter().any(|v| !v.is_finite()) {
        let why = "Some logits are infinite, so that no temperature can be fitted.";
        return Ok(draft.verdict(Verdict::Inconclusive).explain(why).done());
    }
    let Some(t) = fit_temperature(&c.sample.logits, c.classes, &c.sample.labels)? else {
        return Ok(draft.verdict(Verdict::Inconclusive).explain("No row has an answer.").done());
    };
    let draft = draft.n(t.n);
    let why = match t.status {
        Status::Converged => {
            return Ok(draft
                .value("temperature", "ratio", t.temperature)
                .interval(t.interval(cx.level))
                .explain(format!(
                    "Dividing the logits by {:.4} would be best on these rows: the log loss would go from {:.6} to {:.6} \
                     nats. Above 1 means overconfident, below 1 underconfident.",
                    t.temperature, t.log_loss_before, t.log_loss_after
                ))
                .remedy(temperature_scaling::CARD.id)
                .done());
        }
        Status::AtLowest => "every row is right, so that sharper is always better",
        Status::AtHighest => "the logits carry no information on the labels",
        Status::Flat => "all logits of every row are equal",
        Status::OutOfIterations => "the search did not end",
    };
    Ok(draft.verdict(Verdict::Inconclusive).explain(format!("There is no best temperature: {why}.")).done())
}
