//! Whether gradients tell the truth: signs of a defence that hides its gradient instead of being robust.
//!
//! The flags of AutoAttack and of Athalye, Carlini and Wagner (see `masking`), and three experiments of section 3.1 there: an
//! attack without a bound must reach every row; a larger bound must not break fewer rows; attacks without gradients must not
//! break what gradients do not. Checked against: a zoo of broken defences in the tests, each of which must be flagged, and
//! plain networks, which must not.

use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{Card, CardKind, Challenge, Evidence, Need, Norm, OptionDoc, Table, Verdict};
use serde::{Deserialize, Serialize};

use super::{Target, affordable, threat};
use crate::adversarial::AttackError;
use crate::adversarial::attack::Attack;
use crate::adversarial::attacks::ATTACKS;
use crate::adversarial::attacks::apgd::ApgdCe;
use crate::adversarial::attacks::pgd::{Objective, Pgd};
use crate::adversarial::attacks::square::Square;
use crate::adversarial::harness::Harness;
use crate::adversarial::masking::{Flag, flags};
use crate::adversarial::protocol::card_of;

pub(crate) static CARD: Card = Card {
    id: "gradient-masking",
    version: 1,
    kind: CardKind::Check,
    title: "Gradient masking",
    challenge: Challenge::Adversarial,
    measures: "Signs that the network hides its gradients instead of being robust, so that a robust accuracy from gradient \
               attacks is not to be trusted.",
    reference: "Athalye, Carlini and Wagner, ICML 2018, arXiv:1802.00420, section 3.1; Croce and Hein, ICML 2020, \
                arXiv:2003.01690 (flags of AutoAttack)",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc { name: "norm", default: "\"linf\"", doc: "How the size of a change is measured: linf or l2." },
        OptionDoc { name: "epsilon", default: "0.03", doc: "Size of change at which attacks are compared." },
        OptionDoc { name: "bounds", default: "[0.0, 1.0]", doc: "Least and largest value of a feature." },
        OptionDoc { name: "rows", default: "50", doc: "Rows that are attacked, the first ones, at least 1." },
        OptionDoc { name: "queries", default: "300", doc: "Queries of Square, which needs no gradient, 1 to 100000." },
        OptionDoc {
            name: "most_gmacs",
            default: "500.0",
            doc: "Work in thousand million multiply-accumulates that may be spent; fewer rows are attacked where they cost \
                  more.",
        },
    ],
};

/// Forward passes that the experiments take for a row, about, without those of Square.
const PASSES: f64 = 400.0;
/// Fewest rows that a number is worth.
const FEWEST: usize = 10;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GradientMasking {
    norm: Norm,
    epsilon: f64,
    bounds: Vec<f64>,
    rows: usize,
    queries: usize,
    most_gmacs: f64,
}

impl Default for GradientMasking {
    fn default() -> Self {
        Self { norm: Norm::Linf, epsilon: 0.03, bounds: vec![0.0, 1.0], rows: 50, queries: 300, most_gmacs: 500.0 }
    }
}

impl Check for GradientMasking {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let wanted = self.rows.max(1).min(subject.data().len());
        let rows = affordable(subject, wanted, PASSES + self.queries as f64, self.most_gmacs);
        let inconclusive = |text: String| {
            let f = cx.finding("flags", CARD.title).verdict(Verdict::Inconclusive);
            Ok(vec![f.explain(text).done()].into())
        };
        if rows < wanted.min(FEWEST) {
            return inconclusive(format!(
                "The experiments need more work than this check may spend: `most_gmacs` = {} is enough for {rows} rows. Raise \
                 --set gradient-masking.most_gmacs.",
                self.most_gmacs
            ));
        }
        let target = Target::load(subject, rows)?;
        let t = threat(self.norm, self.epsilon, &self.bounds)?;
        if !target.is_within(t.bounds) {
            let f = cx.finding("flags", CARD.title).verdict(Verdict::NotApplicable);
            let text = format!(
                "The features are not within {:?}. Give --set gradient-masking.bounds=[LOW,HIGH] and an epsilon in the same units.",
                self.bounds
            );
            return Ok(vec![f.explain(text).done()].into());
        }
        let harness = target.free_harness(t, cx)?;
        if harness.standing().is_empty() {
            return inconclusive(
                "The network is wrong on every row without a change, so nothing can be attacked.".to_owned(),
            );
        }
        let found = experiments(harness, |e| target.free_harness(t.with_epsilon(e), cx), self.queries)?;
        cx.check_time()?;
        let raised: Vec<&Flag> = found.iter().filter(|f| f.raised).collect();
        let text = if raised.is_empty() {
            "None of the signs is seen: gradient attacks on this network can be trusted as far as these experiments go."
                .to_owned()
        } else {
            let each: Vec<String> = raised.iter().map(|f| format!("{}: {}", f.id, f.text)).collect();
            format!("Robust accuracies from gradient attacks are not to be trusted here. {}.", each.join(". "))
        };
        let mut finding = cx
            .finding("flags", CARD.title)
            .value("gradient_masking_flags", "count", raised.len() as f64)
            .n(rows as u64)
            .explain(text)
            .caveats((rows < wanted).then(|| format!("only {rows} of {wanted} rows, as `most_gmacs` allows no more")))
            .evidence(Evidence::Table(Table {
                title: "Signs of masked gradients".to_owned(),
                columns: ["sign", "seen", "what was measured"].map(String::from).to_vec(),
                rows: found
                    .iter()
                    .map(|f| vec![f.id.into(), if f.raised { "yes" } else { "no" }.into(), f.text.clone().into()])
                    .collect(),
            }));
        if !raised.is_empty() {
            finding = finding.verdict(Verdict::Concern);
        }
        Ok(vec![finding.done()].into())
    }
}

/// All flags: those of attacks at the threat itself, and the experiments with larger changes.
/// # Errors
/// The network refuses, or an attack breaks its contract.
pub(crate) fn experiments<'v, 'm: 'v>(
    mut harness: Harness<'v, 'm>,
    at: impl Fn(f64) -> Result<Harness<'v, 'm>, AttackError>,
    queries: usize,
) -> Result<Vec<Flag>, AttackError> {
    let threat = *harness.threat();
    let pgd = Pgd { steps: 20, relative_step: 0.1, random_start: true, restarts: 1, loss: Objective::CrossEntropy };
    let run = |h: &mut Harness<'v, 'm>, id: &'static str, attack: &dyn Attack| {
        let rows = h.standing();
        if rows.is_empty() { Ok(0) } else { h.attack(card_of(ATTACKS, id), id, attack, &rows) }
    };
    if harness.victim().is_random() {
        harness.set_draws(8);
    }
    let standing = harness.standing().len();
    run(&mut harness, "pgd", &pgd)?;
    run(&mut harness, "apgd-ce", &ApgdCe { steps: 30, ..ApgdCe::default() })?;
    let broken = standing - harness.standing().len();
    let square = Square { queries, ..Square::default() };
    if square.norms().contains(&threat.norm) {
        run(&mut harness, "square", &square)?;
    }
    let mut found = flags(&harness)?;
    if harness.victim().need_gradient().is_err() {
        return Ok(found);
    }
    // A change that reaches everything must break everything; between it and the threat, each larger one at least as much.
    let unbounded = threat.reach(harness.victim().row_len());
    let (mut counts, mut margins) = (vec![broken], Vec::new());
    let mut epsilon = threat.epsilon;
    for e in [4.0 * threat.epsilon, unbounded] {
        epsilon = e.min(unbounded).max(epsilon);
        let mut h = at(epsilon)?;
        if harness.victim().is_random() {
            h.set_draws(8);
        }
        run(&mut h, "pgd", &pgd)?;
        if epsilon >= unbounded {
            run(&mut h, "apgd-ce", &ApgdCe { steps: 50, ..ApgdCe::default() })?;
        }
        counts.push(standing - h.standing().len());
        margins.push(epsilon);
    }
    let survivors = standing - counts.last().copied().unwrap_or(0);
    found.push(Flag {
        id: "unbounded-attack-fails",
        raised: survivors > 0,
        escalates: true,
        text: format!("{survivors} of {standing} rows stay right although the attack may change everything"),
    });
    let tolerated = 1 + standing / 50;
    let falls = counts.windows(2).any(|w| w[1] + tolerated < w[0]);
    found.push(Flag {
        id: "larger-change-breaks-less",
        raised: falls,
        escalates: true,
        text: format!("rows broken at {} and at {margins:?}: {counts:?}", threat.epsilon),
    });
    Ok(found)
}
