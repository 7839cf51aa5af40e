//! Detectors: scores that are high for rows that were changed on purpose, or so they say.
//!
//! Each is calibrated on clean rows: its threshold is the quantile that a given part of them exceeds. It is measured twice:
//! on examples of an attacker who does not know it, and of one who does: selective descent (Bryniarski et al. 2021,
//! arXiv:2106.15023), which climbs the loss while the answer is right and lowers the score once it is wrong. What a
//! detector is worth is the second number (Carlini and Wagner, AISec 2017, arXiv:1705.07263).

mod energy;
mod feature_squeezing;
mod mahalanobis;
mod nearest_neighbours;

use netproof_audit::{AuditError, Check, Context, Findings, Part, Subject};
use netproof_core::{Card, CardKind, Challenge, Evidence, Need, Norm, OptionDoc, Table, Threat, Verdict};
use netproof_graph::{Model, Request, Run, Wrt, cross_entropy};
use netproof_stats::interval::proportion::clopper_pearson;
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::ascent::{random_point, step};
use crate::adversarial::loss::is_right;
use crate::adversarial::projection::Ball;
use crate::shared::percent;

pub(crate) static CARD: Card = Card {
    id: "adversarial-detection",
    version: 1,
    kind: CardKind::Check,
    title: "Detection of adversarial rows",
    challenge: Challenge::Adversarial,
    measures: "What detectors of changed rows are worth on this network: energy, Mahalanobis distance, nearest neighbours and \
               feature squeezing, each at the same rate of false alarms, against an attacker who does not know the detector \
               and one who does.",
    reference: "Liu et al., NeurIPS 2020, arXiv:2010.03759; Lee et al., NeurIPS 2018, arXiv:1807.03888; Sun et al., ICML \
                2022, arXiv:2204.06507; Xu, Evans and Qi, NDSS 2018, arXiv:1704.01155; Carlini and Wagner, AISec 2017, \
                arXiv:1705.07263; Bryniarski et al. 2021, arXiv:2106.15023",
    needs: &[Need::Labels, Need::Classifier, Need::InputGradient],
    options: &[
        OptionDoc { name: "norm", default: "\"linf\"", doc: "How the size of a change is measured: linf or l2." },
        OptionDoc { name: "epsilon", default: "0.1", doc: "Size of the change, in units of the features." },
        OptionDoc { name: "bounds", default: "[0.0, 1.0]", doc: "Least and largest value of a feature." },
        OptionDoc {
            name: "false_alarms",
            default: "0.05",
            doc: "Part of clean rows that may be flagged, 0.001 to 0.5.",
        },
        OptionDoc { name: "rows", default: "100", doc: "Rows that are attacked, at least 20." },
        OptionDoc { name: "fit_rows", default: "1000", doc: "Clean rows that detectors are fitted on, at least 50." },
        OptionDoc { name: "steps", default: "40", doc: "Steps of the attacks, at least 1." },
    ],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Detection {
    norm: Norm,
    epsilon: f64,
    bounds: [f64; 2],
    false_alarms: f64,
    rows: usize,
    fit_rows: usize,
    steps: usize,
}

impl Default for Detection {
    fn default() -> Self {
        let norm = Norm::Linf;
        Self { norm, epsilon: 0.1, bounds: [0.0, 1.0], false_alarms: 0.05, rows: 100, fit_rows: 1000, steps: 40 }
    }
}

/// A network whose logits and last hidden features can be looked at.
struct Probe<'m> {
    model: &'m Model,
    input: String,
    logits: String,
    features: String,
    row: Vec<usize>,
}

/// Logits and features of some rows, and the pass behind them.
struct Seen<'m> {
    run: Run<'m>,
    logits: Tensor,
    features: Tensor,
}

impl<'m> Probe<'m> {
    fn new(model: &'m Model, row: &[usize]) -> Result<Self, String> {
        let input = model.inputs().first().map(|p| p.name.clone()).ok_or("the network has no input")?;
        let mut logits = model.outputs().first().map(|o| o.name.clone()).ok_or("the network has no output")?;
        let nodes: Vec<_> = model.nodes().collect();
        let maker = |value: &str| nodes.iter().find(|n| n.outputs.iter().any(|o| o == value));
        if let Some(last) = maker(&logits).filter(|n| matches!(n.operator.as_str(), "Softmax" | "LogSoftmax"))
            && let Some(before) = last.inputs.first()
        {
            logits = before.clone();
        }
        let linear = nodes.iter().rev().find(|n| matches!(n.operator.as_str(), "Gemm" | "MatMul"));
        let features = linear.and_then(|n| n.inputs.first().cloned()).ok_or("it has no linear layer at its end")?;
        Ok(Self { model, input, logits, features, row: row.to_vec() })
    }

    fn look(&self, x: &[f32]) -> Result<Seen<'m>, AuditError> {
        let n = x.len() / self.row.iter().product::<usize>().max(1);
        let x = Tensor::f32([&[n], &self.row[..]].concat(), x.to_vec())?;
        let request = Request {
            taps: vec![self.logits.clone(), self.features.clone()],
            wrt: Wrt::values([&self.input]),
            ..Request::new(&self.input, x)
        };
        let run = self.model.forward(&request)?;
        Ok(Seen { logits: run.output(&self.logits)?, features: run.output(&self.features)?, run })
    }

    fn slope(
        &self,
        seen: &Seen<'_>,
        to_logits: Vec<f32>,
        to_features: Option<Vec<f32>>,
    ) -> Result<Vec<f32>, AuditError> {
        let to_logits = Tensor::f32(seen.logits.shape().to_vec(), to_logits)?;
        let to_features = to_features.map(|s| Tensor::f32(seen.features.shape().to_vec(), s)).transpose()?;
        let mut seeds = vec![(self.logits.as_str(), &to_logits)];
        seeds.extend(to_features.as_ref().map(|s| (self.features.as_str(), s)));
        let n = seen.logits.rows() * self.row.iter().product::<usize>();
        let slope = seen.run.backward(&seeds)?.take(&self.input).and_then(Tensor::into_f32);
        Ok(slope.unwrap_or_else(|| vec![0.0; n]))
    }
}

/// Clean rows that a detector learns from.
struct Clean<'a> {
    features: &'a [f32],
    width: usize,
    labels: &'a [usize],
}

/// Scores rows; higher means more suspicious.
trait Detector {
    /// One score per row.
    fn score(&self, probe: &Probe<'_>, x: &[f32]) -> Result<Vec<f64>, AuditError>;

    /// The gradient of the sum of the scores with respect to the rows.
    fn slope(&self, probe: &Probe<'_>, x: &[f32]) -> Result<Vec<f32>, AuditError>;
}

/// A score of the logits and features of a row alone.
trait Local {
    /// The score, and its slopes with respect to logits and features, which are 0 at first.
    fn of(&self, logits: &[f32], features: &[f32], to_logits: &mut [f32], to_features: &mut [f32]) -> f64;
}

impl<T: Local> Detector for T {
    fn score(&self, probe: &Probe<'_>, x: &[f32]) -> Result<Vec<f64>, AuditError> {
        Ok(each(self, &probe.look(x)?).0)
    }

    fn slope(&self, probe: &Probe<'_>, x: &[f32]) -> Result<Vec<f32>, AuditError> {
        let seen = probe.look(x)?;
        let (_, to_logits, to_features) = each(self, &seen);
        probe.slope(&seen, to_logits, Some(to_features))
    }
}

fn each(local: &impl Local, seen: &Seen<'_>) -> (Vec<f64>, Vec<f32>, Vec<f32>) {
    let (k, d) = (seen.logits.row_len().max(1), seen.features.row_len().max(1));
    let (logits, features) = (seen.logits.as_f32().unwrap_or_default(), seen.features.as_f32().unwrap_or_default());
    let (mut to_logits, mut to_features) = (vec![0.0; logits.len()], vec![0.0; features.len()]);
    let slopes = to_logits.chunks_mut(k).zip(to_features.chunks_mut(d));
    let scores =
        logits.chunks(k).zip(features.chunks(d)).zip(slopes).map(|((z, f), (to_z, to_f))| local.of(z, f, to_z, to_f));
    (scores.collect(), to_logits, to_features)
}

/// What a detector came to.
struct Outcome {
    name: &'static str,
    threshold: f64,
    false_alarms: (u64, u64),
    /// Of the rows that are wrong under an attack that does not know it, those that it flags.
    blind: (u64, u64),
    /// Of the rows that are right at first, those that an attack that knows it makes wrong unseen.
    evaded: (u64, u64),
}

impl Check for Detection {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        self.check()?;
        let threat = Threat::new(self.norm, self.epsilon, self.bounds).map_err(AttackError::from)?;
        let batch = subject.data().take(2 * self.rows).load()?;
        let row = batch.features.shape().get(1..).unwrap_or_default().to_vec();
        let refuse = |why: String| {
            let f = cx.finding("detectors", CARD.title).verdict(Verdict::NotApplicable).explain(why);
            Ok(vec![f.done()].into())
        };
        let probe = match Probe::new(subject.model(), &row) {
            Ok(probe) => probe,
            Err(why) => return refuse(format!("Detectors look at the last hidden features: {why}.")),
        };
        let x = batch.features.as_f32().unwrap_or_default();
        let [low, high] = self.bounds.map(|b| b as f32);
        if x.iter().any(|v| !(low..=high).contains(v)) {
            return refuse(format!(
                "The features are not within {:?}; give bounds and epsilon in their units.",
                self.bounds
            ));
        }
        let labels = batch.labels.classes().unwrap_or_default().to_vec();
        let len = row.iter().product::<usize>().max(1);
        let half = labels.len() / 2;
        let fit = subject.part(Part::Train).unwrap_or(subject.data());
        // Without training rows, those behind the attacked ones: what is measured has not been fitted on.
        let fit = if subject.part(Part::Train).is_some() {
            fit.take(self.fit_rows)
        } else {
            let end = (2 * half + self.fit_rows).min(fit.len());
            fit.select(&(2 * half..end).collect::<Vec<_>>())?
        };
        if half < 20 || fit.len() < 50 {
            return refuse(format!("{half} rows to attack and {} to fit on are too few.", fit.len()));
        }
        let fit = fit.load()?;
        let seen = probe.look(fit.features.as_f32().unwrap_or_default())?;
        if seen.logits.row_len() < 2 || seen.features.rank() != 2 {
            return refuse("Detectors need logits of two classes or more over a flat layer.".to_owned());
        }
        let fit_labels = fit.labels.classes().unwrap_or_default();
        let clean = Clean {
            features: seen.features.as_f32().unwrap_or_default(),
            width: seen.features.row_len(),
            labels: fit_labels,
        };
        let squeezing = feature_squeezing::FeatureSqueezing::new(subject.model())?;
        let detectors: [(&'static str, Box<dyn Detector + '_>); 4] = [
            ("energy", Box::new(energy::Energy)),
            ("mahalanobis", Box::new(mahalanobis::Mahalanobis::fit(&clean))),
            ("nearest neighbours", Box::new(nearest_neighbours::NearestNeighbours::fit(&clean))),
            ("feature squeezing", Box::new(squeezing)),
        ];
        let (calibration, attacked) = (&x[..half * len], &x[half * len..2 * half * len]);
        let labels = &labels[half..2 * half];
        let blind = self.attack(&probe, None, attacked, labels, threat, cx.seed)?;
        let mut results = Vec::new();
        for (name, detector) in &detectors {
            cx.check_time()?;
            results.push(self.measure(
                &probe,
                (*name, &**detector),
                calibration,
                (attacked, labels),
                &blind,
                threat,
                cx,
            )?);
        }
        Ok(findings(&results, threat, cx).into())
    }
}

/// The last row of an attack that was wrong, and for the attacker who knows the detector wrong and unseen.
struct Attacked {
    x: Vec<f32>,
    right_at_first: Vec<bool>,
    found: Vec<bool>,
}

impl Detection {
    fn check(&self) -> Result<(), AuditError> {
        let wrong = |name: &str, value: f64, allowed: &str| {
            let message = format!("`{name}` is {value}; allowed: {allowed}");
            Err(AuditError::Option { id: CARD.id.to_owned(), message })
        };
        if !(0.001..=0.5).contains(&self.false_alarms) {
            return wrong("false_alarms", self.false_alarms, "0.001 to 0.5");
        }
        for (name, value, least) in [("rows", self.rows, 20), ("fit_rows", self.fit_rows, 50), ("steps", self.steps, 1)]
        {
            if value < least {
                return wrong(name, value as f64, "more; see `netproof methods adversarial-detection`");
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "all of it is data of one measurement")]
    fn measure(
        &self,
        probe: &Probe<'_>,
        (name, detector): (&'static str, &dyn Detector),
        calibration: &[f32],
        (x, labels): (&[f32], &[usize]),
        blind: &Attacked,
        threat: Threat,
        cx: &Context<'_>,
    ) -> Result<Outcome, AuditError> {
        let mut scores = detector.score(probe, calibration)?;
        let threshold = upper_quantile(&mut scores, self.false_alarms);
        let flagged = |x: &[f32]| -> Result<Vec<bool>, AuditError> {
            Ok(detector.score(probe, x)?.iter().map(|s| s.is_nan() || *s > threshold).collect())
        };
        let alarms = flagged(x)?;
        let seen = flagged(&blind.x)?;
        let caught = blind.found.iter().zip(&seen).filter(|(f, s)| **f && **s).count() as u64;
        let adaptive = self.attack(probe, Some((detector, threshold)), x, labels, threat, cx.seed)?;
        let count = |v: &[bool]| v.iter().filter(|b| **b).count() as u64;
        Ok(Outcome {
            name,
            threshold,
            false_alarms: (count(&alarms), alarms.len() as u64),
            blind: (caught, count(&blind.found)),
            evaded: (count(&adaptive.found), count(&adaptive.right_at_first)),
        })
    }

    /// Projected gradient ascent on the cross-entropy; with a detector, descent on its score wherever the answer is wrong.
    fn attack(
        &self,
        probe: &Probe<'_>,
        detector: Option<(&dyn Detector, f64)>,
        rows: &[f32],
        labels: &[usize],
        threat: Threat,
        seed: u64,
    ) -> Result<Attacked, AuditError> {
        let len = rows.len() / labels.len().max(1);
        let ball = Ball::from(&threat);
        let k = |seen: &Seen<'_>| seen.logits.row_len().max(1);
        let wrong = |seen: &Seen<'_>| -> Vec<bool> {
            let z = seen.logits.as_f32().unwrap_or_default();
            z.chunks(k(seen)).zip(labels).map(|(z, &y)| !is_right(z, y)).collect()
        };
        let right_at_first: Vec<bool> = wrong(&probe.look(rows)?).iter().map(|w| !w).collect();
        let mut found = vec![false; labels.len()];
        let mut best = rows.to_vec();
        let mut x: Vec<f32> = Vec::with_capacity(rows.len());
        for (i, row) in rows.chunks(len.max(1)).enumerate() {
            x.extend(random_point(&ball, row, &mut Rng::stream(seed, i as u64 + 1)));
        }
        let size = (2.5 * threat.epsilon / self.steps as f64) as f32;
        for at in 0..=self.steps {
            let seen = probe.look(&x)?;
            let wrong = wrong(&seen);
            let scores = detector.map(|(d, _)| d.score(probe, &x)).transpose()?;
            for i in 0..labels.len() {
                let unseen = match (&scores, detector) {
                    (Some(s), Some((_, threshold))) => s[i] <= threshold,
                    _ => true,
                };
                if wrong[i] && unseen && right_at_first[i] && !found[i] {
                    found[i] = true;
                    best[i * len..(i + 1) * len].copy_from_slice(&x[i * len..(i + 1) * len]);
                }
            }
            if at == self.steps {
                break;
            }
            let (_, to_logits) = cross_entropy(&seen.logits, labels)?;
            let mut slope = probe.slope(&seen, to_logits.into_f32().unwrap_or_default(), None)?;
            if let Some((d, _)) = detector {
                let down = d.slope(probe, &x)?;
                for (i, _) in wrong.iter().enumerate().filter(|(_, w)| **w) {
                    let part = i * len..(i + 1) * len;
                    slope[part.clone()].iter_mut().zip(&down[part]).for_each(|(s, d)| *s = -d);
                }
            }
            for (i, x) in x.chunks_mut(len.max(1)).enumerate().filter(|(i, _)| !found[*i]) {
                let part = i * len..(i + 1) * len;
                step(&ball, &slope[part.clone()], size, x);
                ball.project(&rows[part], x);
            }
        }
        Ok(Attacked { x: best, right_at_first, found })
    }
}

/// The score that this part of the scores exceeds, at most.
fn upper_quantile(scores: &mut [f64], part: f64) -> f64 {
    scores.sort_by(f64::total_cmp);
    let above = (part * scores.len() as f64).floor() as usize;
    scores.get(scores.len().saturating_sub(above + 1)).copied().unwrap_or(f64::INFINITY)
}

fn findings(results: &[Outcome], threat: Threat, cx: &Context<'_>) -> Vec<netproof_core::Finding> {
    let rate = |(k, n): (u64, u64)| if n == 0 { None } else { Some(k as f64 / n as f64) };
    let table = Table {
        title: format!("Detectors at {threat}"),
        columns: [
            "detector",
            "threshold",
            "false alarms",
            "flags of blind attacks",
            "evaded by an attack that knows it",
        ]
        .map(String::from)
        .to_vec(),
        rows: results
            .iter()
            .map(|r| {
                vec![
                    r.name.into(),
                    r.threshold.into(),
                    rate(r.false_alarms).into(),
                    rate(r.blind).into(),
                    rate(r.evaded).into(),
                ]
            })
            .collect(),
    };
    let Some(best) =
        results.iter().min_by(|a, b| rate(a.evaded).unwrap_or(1.0).total_cmp(&rate(b.evaded).unwrap_or(1.0)))
    else {
        return Vec::new();
    };
    let (k, n) = best.evaded;
    let finding = cx
        .finding("detectors", CARD.title)
        .value("evaded_best_detector", "fraction", rate(best.evaded).unwrap_or(f64::NAN))
        .n(n)
        .interval(clopper_pearson(k, n, cx.level))
        .explain(format!(
            "The hardest detector to evade here is {}: an attacker who knows it makes {k} of {n} rows wrong without being \
             flagged, at {threat} and {} false alarms. One who does not know it is flagged in {} of his examples.",
            best.name,
            percent(rate(best.false_alarms).unwrap_or(0.0)),
            rate(best.blind).map_or("none".to_owned(), percent)
        ))
        .caveat("the detector was chosen because it did best on these rows; an attack with more steps may evade more")
        .evidence(Evidence::Table(table));
    vec![finding.done()]
}

#[cfg(test)]
mod tests;
