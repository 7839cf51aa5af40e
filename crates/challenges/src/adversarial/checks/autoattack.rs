//! Robust accuracy under the field's standard protocol, for who has to report that number.
//! See `protocols/autoattack`. It takes minutes, so an audit runs it only where its `rows` are given.

use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{Card, CardKind, Challenge, Evidence, Need, Norm, OptionDoc, Table, Verdict};
use serde::{Deserialize, Serialize};

use super::gallery::gallery;
use super::{Target, threat};
use crate::adversarial::protocol::Protocol as _;
use crate::adversarial::protocols::autoattack::AutoAttack;
use crate::shared::percent;

pub(crate) static CARD: Card = Card {
    id: "autoattack",
    version: 1,
    kind: CardKind::Check,
    title: "AutoAttack",
    challenge: Challenge::Adversarial,
    measures: "Robust accuracy under the standard version of AutoAttack, as papers report it. Runs only where `rows` is set: it \
               takes about 10,000 forward passes per row.",
    reference: "Croce and Hein, ICML 2020, arXiv:2003.01690, section 5",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc { name: "norm", default: "\"linf\"", doc: "How the size of a change is measured: linf, l2 or l1." },
        OptionDoc { name: "epsilon", default: "0.03", doc: "Largest change, in units of the features." },
        OptionDoc { name: "bounds", default: "[0.0, 1.0]", doc: "Least and largest value of a feature." },
        OptionDoc {
            name: "rows",
            default: "0",
            doc: "Rows that are attacked, the first ones; 0 leaves this check out.",
        },
    ],
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AutoAttackCheck {
    norm: Norm,
    epsilon: f64,
    bounds: Vec<f64>,
    rows: usize,
}

impl Default for AutoAttackCheck {
    fn default() -> Self {
        Self { norm: Norm::Linf, epsilon: 0.03, bounds: vec![0.0, 1.0], rows: 0 }
    }
}

impl Check for AutoAttackCheck {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        if self.rows == 0 {
            let f = cx.finding("applicable", CARD.title).verdict(Verdict::NotApplicable);
            let text = "Not run, since it takes minutes: give --set autoattack.rows=N. The check `robust-accuracy` comes to about \
                        the same number sooner.";
            return Ok(vec![f.explain(text).done()].into());
        }
        let target = Target::load(subject, self.rows)?;
        let mut harness = target.harness(threat(self.norm, self.epsilon, &self.bounds)?, cx)?;
        AutoAttack::default().run(&mut harness, &[])?;
        cx.check_time()?;
        let a = harness.accuracy(cx.level);
        let n = harness.len().max(1) as f64;
        let rows = harness.stages().iter().map(|s| {
            vec![
                s.id.clone().into(),
                s.rows.into(),
                s.broken.into(),
                (s.standing as f64 / n).into(),
                s.count.forward.into(),
                s.count.backward.into(),
            ]
        });
        let columns =
            ["attack", "rows attacked", "rows broken", "robust accuracy after it", "forward passes", "backward passes"];
        let shown = gallery(&harness, subject, cx)?;
        let mut finding = cx
            .finding("standard", CARD.title)
            .estimate("autoattack_accuracy", "fraction", &a.attacked)
            .explain(format!(
                "{} of {} rows stay right under standard AutoAttack at {}; {} without a change.",
                (a.attacked.value * a.attacked.n as f64).round(),
                a.attacked.n,
                harness.threat(),
                percent(a.clean.value)
            ))
            .caveats(harness.notes().to_vec())
            .evidence(Evidence::Table(Table {
                title: "Attacks in order".to_owned(),
                columns: columns.map(String::from).to_vec(),
                rows: rows.collect(),
            }));
        if let Some(gallery) = shown {
            finding = finding.evidence(gallery);
        }
        Ok(vec![finding.done()].into())
    }
}
