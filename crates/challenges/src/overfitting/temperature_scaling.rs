//! Temperature scaling: one number that divides the logits. Fitted on one half of the rows, proved on the other by
//! running the treated network. Guo, Pleiss, Sun and Weinberger, ICML 2017, arXiv:1706.04599, section 4.2.

use netproof_audit::{AuditError, Context, Part, Remedy, Subject, Treatment};
use netproof_core::{Card, CardKind, Challenge, Evidence, Need, OptionDoc, Table, Verdict};
use netproof_stats::calibration::{Binning, Confidences, Reliability, Status, fit_temperature};
use netproof_stats::interval::mean::mean;
use netproof_stats::probability::log_losses_of_logits;
use netproof_stats::rng::Rng;
use serde::{Deserialize, Serialize};

use crate::shared::{correct, outputs};

pub(crate) static CARD: Card = Card {
    id: "temperature-scaling",
    version: 1,
    kind: CardKind::Remedy,
    title: "Temperature scaling",
    challenge: Challenge::Overfitting,
    measures: "Divides the logits by one number, inside the network, so that confidences become true. It is fitted on one \
               half of the rows and kept only where the log loss of the other half falls beyond doubt.",
    reference: "Guo, Pleiss, Sun and Weinberger, ICML 2017, arXiv:1706.04599, section 4.2",
    needs: &[Need::Labels, Need::Classifier],
    options: &[OptionDoc {
        name: "fraction",
        default: "0.5",
        doc: "Fraction of the rows that the temperature is fitted on, above 0 and below 1.",
    }],
};

/// Fewest rows on either side.
const FEWEST: usize = 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TemperatureScaling {
    fraction: f64,
}

impl Default for TemperatureScaling {
    fn default() -> Self {
        Self { fraction: 0.5 }
    }
}

/// What was measured on the rows that the temperature has not seen.
struct Measured {
    losses: Vec<f64>,
    ece: Option<f64>,
    accuracy: f64,
}

impl Remedy for TemperatureScaling {
    fn treat(&self, subject: &Subject, cx: &Context<'_>) -> Result<Treatment, AuditError> {
        if !(self.fraction > 0.0 && self.fraction < 1.0) {
            let message = format!("fraction is {}, it must be above 0 and below 1", self.fraction);
            return Err(AuditError::Option { id: CARD.id.to_owned(), message });
        }
        let clean = outputs(subject, Part::Test, cx)?;
        let draft = cx.finding("log-loss", "Log loss after temperature scaling");
        let refuse = |draft: netproof_audit::Draft, why: String| {
            let findings = vec![draft.verdict(Verdict::Inconclusive).explain(why).done()];
            Ok(Treatment { model: None, findings })
        };
        let Some(c) = clean.classified() else { return refuse(draft, "The network is no classifier.".to_owned()) };
        let (k, sample) = (c.classes, &c.sample);
        if sample.logits.iter().any(|v| !v.is_finite()) {
            return refuse(draft, "Some logits are infinite, so that no temperature can be fitted.".to_owned());
        }
        let mut order: Vec<usize> = (0..sample.rows.len()).collect();
        Rng::new(cx.seed).shuffle(&mut order);
        let (fitted, held) = order.split_at((self.fraction * order.len() as f64) as usize);
        if fitted.len() < FEWEST || held.len() < FEWEST {
            let why = format!("{} rows are too few to fit and to prove; {} are needed.", order.len(), 2 * FEWEST);
            return refuse(draft, why);
        }
        let rows = |of: &[usize]| -> (Vec<f32>, Vec<usize>) {
            let logits = of.iter().flat_map(|&i| sample.logits[i * k..(i + 1) * k].iter().copied()).collect();
            (logits, of.iter().map(|&i| sample.labels[i]).collect())
        };
        let (logits, labels) = rows(fitted);
        let Some(t) = fit_temperature(&logits, k, &labels)?.filter(|t| t.status == Status::Converged) else {
            return refuse(draft, "No finite temperature is best on the fitting half.".to_owned());
        };
        let model = subject.model().scale_logits(t.temperature as f32)?;

        // The proof runs the treated network itself on the rows that were held out.
        let mut positions: Vec<usize> = held.iter().map(|&i| sample.rows[i]).collect();
        positions.sort_unstable();
        let data = subject.data().select(&positions)?;
        let before = measure(&Subject::new(copy(subject)?, "before", data.clone(), None)?, cx)?;
        let treated = Subject::new(model, "after", data, None)?;
        let after = measure(&treated, cx)?;
        let differences: Vec<f64> = after.losses.iter().zip(&before.losses).map(|(a, b)| a - b).collect();
        let Some(change) = mean(&differences, cx.level) else {
            return refuse(draft, "The held-out rows have no answer.".to_owned());
        };
        let better = change.interval.is_some_and(|i| i.high < 0.0) && after.accuracy >= before.accuracy;
        let average = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let table = Table {
            title: "Held-out rows, before and after".to_owned(),
            columns: ["", "before", "after"].map(String::from).to_vec(),
            rows: vec![
                vec!["log loss (nats)".into(), average(&before.losses).into(), average(&after.losses).into()],
                vec!["calibration error (15 bins)".into(), before.ece.into(), after.ece.into()],
                vec!["accuracy".into(), before.accuracy.into(), after.accuracy.into()],
            ],
        };
        let outcome = if better {
            "The loss falls beyond doubt, so that the treated network is worth keeping."
        } else {
            "The interval of the change reaches 0, so that the treated network is not kept."
        };
        let finding = draft
            .estimate("log_loss_change", "nats", &change)
            .verdict(if better { Verdict::Pass } else { Verdict::Inconclusive })
            .explain(format!(
                "Dividing the logits by {:.4}, fitted on {} rows, changes the log loss of {} other rows by {:+.6} nats. \
                 {outcome}",
                t.temperature,
                fitted.len(),
                held.len(),
                change.value
            ))
            .evidence(Evidence::Table(table))
            .done();
        let temperature = cx
            .finding("temperature", "Fitted temperature")
            .value("temperature", "ratio", t.temperature)
            .n(t.n)
            .interval(t.interval(cx.level))
            .explain("What the logits are divided by.")
            .done();
        let model = if better { Some(subject.model().scale_logits(t.temperature as f32)?) } else { None };
        Ok(Treatment { model, findings: vec![finding, temperature] })
    }
}

fn copy(subject: &Subject) -> Result<netproof_graph::Model, AuditError> {
    Ok(netproof_graph::Model::from_file(subject.model().to_file()?)?)
}

fn measure(subject: &Subject, cx: &Context<'_>) -> Result<Measured, AuditError> {
    let outputs = outputs(subject, Part::Test, cx)?;
    let Some(c) = outputs.classified() else {
        return Err(AuditError::Mismatch { message: "the treated network is no classifier".to_owned() });
    };
    let losses = log_losses_of_logits(&c.sample.logits, c.classes, &c.sample.labels)?;
    let rows = (0..c.rows()).filter(|&i| !c.confidence[i].is_nan());
    let (confidence, right) =
        rows.map(|i| (f64::from(c.confidence[i]).min(1.0), c.labels[i] == c.predicted[i])).unzip();
    let reliability = Reliability::new(&Confidences::new(confidence, right)?, Binning::GUO, cx.level)?;
    let (right, n) = correct(c);
    Ok(Measured { losses, ece: reliability.expected_error(), accuracy: right as f64 / n.max(1) as f64 })
}
