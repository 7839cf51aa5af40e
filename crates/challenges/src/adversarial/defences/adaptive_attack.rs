//! Robust accuracy under attacks that know the defence.
//!
//! The same rows are attacked three times, each attack on what the last one left: through the network's own gradient;
//! through a twin whose gradients are not hidden (BPDA, see `backward_twin`); and along gradients of the loss at many random
//! points around the row (EOT for what is jagged: Athalye, Carlini and Wagner, ICML 2018, arXiv:1802.00420, sections 4.1 and
//! 4.2; Tramèr et al., NeurIPS 2020, arXiv:2002.08347). What the later ones break that the first did not, the defence only
//! hid. Checked against: networks with a rounding in front, which must be caught, and plain ones, which must not.
//! Weak when: the defence is none of these; `autoattack` and `gradient-masking` look from other sides.

use std::sync::Arc;

use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{Card, CardKind, Challenge, Evidence, Need, Norm, OptionDoc, Table, Threat, Verdict};
use netproof_stats::Estimate;
use netproof_stats::interval::proportion::clopper_pearson;
use netproof_stats::rng::Rng;
use serde::{Deserialize, Serialize};

use super::backward_twin::backward_twin;
use crate::adversarial::AttackError;
use crate::adversarial::attacks::ATTACKS;
use crate::adversarial::attacks::pgd::Pgd;
use crate::adversarial::harness::{Fate, Harness};
use crate::adversarial::possible::Possible;
use crate::adversarial::victim::{Transformation, Victim};
use crate::shared::percent;

pub(crate) static CARD: Card = Card {
    id: "adaptive-attack",
    version: 1,
    kind: CardKind::Check,
    title: "Attacks that know the defence",
    challenge: Challenge::Adversarial,
    measures: "How many rows stay right under gradient attacks that look behind roundings and jagged slopes, and how much of \
               the robustness against a plain attack was only hiding.",
    reference: "Athalye, Carlini and Wagner, ICML 2018, arXiv:1802.00420, section 4; Tramèr, Carlini, Brendel and Madry, \
                NeurIPS 2020, arXiv:2002.08347",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc { name: "norm", default: "\"linf\"", doc: "How the size of a change is measured: linf or l2." },
        OptionDoc { name: "epsilon", default: "0.1", doc: "Size of the change, in units of the features." },
        OptionDoc { name: "bounds", default: "[0.0, 1.0]", doc: "Least and largest value of a feature." },
        OptionDoc { name: "rows", default: "200", doc: "Rows that are attacked, the first ones, at least 1." },
        OptionDoc { name: "steps", default: "40", doc: "Steps of each attack, at least 1." },
        OptionDoc { name: "draws", default: "4", doc: "Points around the row that a jagged slope is averaged over." },
    ],
};

/// What an attack must break beyond the plain one to be called masking: this part of the rows, and more than one row.
const MASKED: f64 = 0.02;
/// How far around a row slopes are averaged, in units of epsilon.
const AROUND: f64 = 0.25;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AdaptiveAttack {
    norm: Norm,
    epsilon: f64,
    bounds: [f64; 2],
    rows: usize,
    steps: usize,
    draws: usize,
}

impl Default for AdaptiveAttack {
    fn default() -> Self {
        Self { norm: Norm::Linf, epsilon: 0.1, bounds: [0.0, 1.0], rows: 200, steps: 40, draws: 4 }
    }
}

/// Uniform noise; the slope at the noisy point stands for that of the row.
struct Around {
    reach: f64,
}

impl Transformation for Around {
    fn apply(&self, row: &[f32], rng: &mut Rng) -> Vec<f32> {
        row.iter().map(|v| v + (self.reach * (2.0 * rng.unit() - 1.0)) as f32).collect()
    }
}

/// Rows that are right at first, and after each attack.
struct Measured {
    rows: usize,
    clean: usize,
    /// Name of the attack, and how many rows it left.
    left: Vec<(&'static str, usize)>,
    twin_nodes: usize,
}

impl Check for AdaptiveAttack {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let threat = Threat::new(self.norm, self.epsilon, self.bounds).map_err(AttackError::from)?;
        if self.steps == 0 || self.rows == 0 || self.draws == 0 {
            let message = "`steps`, `rows` and `draws` must be 1 or more".to_owned();
            return Err(AuditError::Option { id: CARD.id.to_owned(), message });
        }
        let batch = subject.data().take(self.rows).load()?;
        let [low, high] = self.bounds.map(|b| b as f32);
        let draft = cx.finding("robust-accuracy", CARD.title);
        if batch.features.as_f32().is_some_and(|v| v.iter().any(|v| *v < low || *v > high)) {
            let why = format!(
                "The features are not within {:?}, so it is not known what an attacker may do. Give --set \
                 adaptive-attack.bounds=[LOW,HIGH] and an epsilon in the same units.",
                self.bounds
            );
            return Ok(vec![draft.verdict(Verdict::NotApplicable).explain(why).done()].into());
        }
        let m = self.measure(subject, &batch, threat, cx)?;
        let n = m.rows as u64;
        let (plain, least) = (m.left.first().map_or(m.clean, |l| l.1), m.left.last().map_or(m.clean, |l| l.1));
        let estimate = |k: usize| Estimate {
            value: k as f64 / m.rows.max(1) as f64,
            n,
            standard_error: None,
            interval: clopper_pearson(k as u64, n, cx.level),
        };
        let hidden = plain - least;
        let masks = hidden > 1 && hidden as f64 > MASKED * m.rows as f64;
        let (at, end) = (format!("{} {}", self.norm, self.epsilon), estimate(least));
        let text = if masks {
            format!(
                "The network hides gradients: a plain attack leaves {} of the rows right at {at}, attacks that look behind the \
                 hiding leave {}.",
                percent(estimate(plain).value),
                percent(end.value)
            )
        } else {
            format!(
                "{} of the rows stay right at {at} under attacks that look behind hidden gradients.",
                percent(end.value)
            )
        };
        let table = Table {
            title: format!("Rows that stay right at {at}"),
            columns: ["attack", "rows right", "fraction"].map(String::from).to_vec(),
            rows: std::iter::once(&("none", m.clean))
                .chain(&m.left)
                .map(|(name, k)| vec![(*name).into(), (*k as u64).into(), estimate(*k).value.into()])
                .collect(),
        };
        let finding =
            draft
                .estimate("adaptive_robust_accuracy", "fraction", &end)
                .explain(format!("{text} This is an upper bound: a stronger attack may find more."))
                .caveats((m.twin_nodes > 0).then(|| {
                    format!("gradients were taken through {} nodes that have none, as if they had", m.twin_nodes)
                }))
                .evidence(Evidence::Table(table))
                .done();
        let masking = cx
            .finding("masked", "Robustness that is only hidden gradients")
            .value("masked_accuracy", "fraction", hidden as f64 / m.rows.max(1) as f64)
            .n(n)
            .verdict(if masks { Verdict::Concern } else { Verdict::Pass })
            .explain(format!(
                "{hidden} of {n} rows that a plain gradient attack does not break fall to attacks that know the defence."
            ))
            .done();
        Ok(vec![finding, masking].into())
    }
}

impl AdaptiveAttack {
    fn measure(
        &self,
        subject: &Subject,
        batch: &netproof_data::Batch,
        threat: Threat,
        cx: &Context<'_>,
    ) -> Result<Measured, AuditError> {
        let labels = batch.labels.classes().unwrap_or_default();
        let own = Victim::of(subject)?;
        let twin = backward_twin(subject.model())?;
        let through = twin.as_ref().map(|(model, _)| own.clone().with_backward(model)).transpose()?;
        let around = Around { reach: AROUND * threat.epsilon };
        let smooth = through.as_ref().unwrap_or(&own).clone().with_transformation(Arc::new(around), self.draws);
        let mut victims = vec![("gradient", own.clone())];
        victims.extend(through.map(|v| ("gradient behind roundings", v)));
        victims.push(("gradient around the row", smooth));
        let card = ATTACKS.iter().find(|e| e.card.id == "pgd").map(|e| e.card);
        let card = card.ok_or_else(|| AuditError::Mismatch { message: "there is no attack `pgd`".to_owned() })?;
        let pgd = Pgd { steps: self.steps, ..Pgd::default() };
        let (mut standing, mut clean): (Option<Vec<usize>>, usize) = (None, 0);
        let mut left = Vec::new();
        for (name, victim) in &victims {
            cx.check_time()?;
            let mut harness =
                Harness::new(victim, threat, &batch.features, labels, &batch.row_ids, cx.seed, cx.progress)?
                    .keeping(Possible::of_subject(subject, own.row_len())?)
                    .until(cx.deadline);
            let rows = match &standing {
                None => {
                    let rows = harness.standing();
                    clean = rows.len();
                    rows
                }
                Some(rows) => rows.clone(),
            };
            // An attack along random slopes proposes; whether it holds is asked of the network itself.
            if victim.need_gradient().is_ok() && !rows.is_empty() {
                harness.attack(card, name, &pgd, &rows)?;
            }
            let broken = |i: &usize| matches!(harness.outcomes()[*i].fate, Fate::Broken(_));
            let proposals = harness.adversarial();
            let len = own.row_len();
            let mut still = Vec::new();
            for &i in &rows {
                let holds = broken(&i) && {
                    let z = own.logits(&proposals[i * len..(i + 1) * len])?;
                    !crate::adversarial::loss::is_right(&z, labels[i])
                };
                if !holds {
                    still.push(i);
                }
            }
            left.push((*name, still.len()));
            standing = Some(still);
        }
        cx.check_time()?;
        Ok(Measured { rows: labels.len(), clean, left, twin_nodes: twin.as_ref().map_or(0, |t| t.1) })
    }
}

#[cfg(test)]
mod tests {
    use netproof_audit::{Silent, context};
    use netproof_core::Finding;
    use netproof_data::{Dataset, Labels, OpenOptions};
    use netproof_graph::Model;
    use netproof_stats::Level;
    use netproof_tensor::Tensor;

    use super::super::preprocessing::bit_depth;
    use super::*;
    use crate::adversarial::test_support::{linear, rows};

    fn findings(model: Model, inner: &Model, epsilon: f64) -> Vec<Finding> {
        let (x, labels) = rows(inner, 4, 80, 3);
        let x = Tensor::f32(vec![80, 4], x).unwrap();
        let data = Dataset::from_memory(x, Labels::Classes(labels), Vec::new(), &OpenOptions::default()).unwrap();
        let subject = Subject::new(model, "m", data, None).unwrap();
        let own = AdaptiveAttack { epsilon, rows: 80, ..AdaptiveAttack::default() };
        let cx = context(&subject, &CARD, "{}", 1, Level::P95, &Silent).unwrap();
        own.run(&subject, &cx).unwrap().reproducible
    }

    fn value(f: &[Finding], metric: &str) -> f64 {
        let of = |f: &&Finding| f.metric.as_deref() == Some(metric);
        f.iter().find(of).and_then(|f| f.value).unwrap()
    }

    /// Four values, fine steps: rounding hides the gradient of a linear network entirely, and helps it by half a step.
    #[test]
    fn a_rounding_in_front_is_caught_and_a_plain_network_is_not() {
        let plain = || linear(&[[3.0, -2.0, 1.5, 0.5], [-1.0, 2.0, 0.5, 1.0]], &[0.3, -0.2]);
        let inner = plain();
        let honest = findings(plain(), &inner, 0.1);
        assert_eq!(value(&honest, "masked_accuracy"), 0.0);
        assert_eq!(honest[1].verdict, Verdict::Pass);
        // The exact robust accuracy of a linear network: the margin against epsilon times the l1 norm of the weights.
        let (x, labels) = rows(&inner, 4, 80, 3);
        let w = [4.0f32, -4.0, 1.0, -0.5];
        let margin = |x: &[f32]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f32>() + 0.5;
        let right = x.chunks(4).zip(&labels).filter(|(x, y)| {
            let worst: Vec<f32> = x
                .iter()
                .zip(w)
                .map(|(x, w)| {
                    let towards = if **y == 0 { -w.signum() } else { w.signum() };
                    (x + 0.1 * towards).clamp(0.0, 1.0)
                })
                .collect();
            if **y == 0 { margin(&worst) > 0.0 } else { margin(&worst) < 0.0 }
        });
        assert!((value(&honest, "adaptive_robust_accuracy") - right.count() as f64 / 80.0).abs() < 0.02);
        let hiding = findings(bit_depth::round_features(&plain(), 5).unwrap(), &inner, 0.1);
        assert!(value(&hiding, "masked_accuracy") > 0.1, "{hiding:?}");
        assert_eq!(hiding[1].verdict, Verdict::Concern);
    }
}
