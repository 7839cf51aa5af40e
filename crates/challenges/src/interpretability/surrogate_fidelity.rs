//! Whether a few rules say what the network says: a shallow tree fitted to its decisions on some rows, and how often it agrees
//! on others. High fidelity means that the network can be read as rules, or replaced by them.
//! Checked against: a network that is a tree (the tests of the surrogate itself). Tables only: rules over pixels say nothing to
//! a person. Weak: agreement on these rows is not agreement elsewhere.

use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc, Table, Verdict};
use serde::{Deserialize, Serialize};

use super::Explained;
use super::assess::{self, affordable, range};
use super::insights::Fidelity;

pub(crate) static CARD: Card = Card {
    id: "surrogate-fidelity",
    version: 1,
    kind: CardKind::Check,
    title: "Fidelity of a surrogate tree",
    challenge: Challenge::Interpretability,
    measures: "How often a shallow tree of rules, fitted to the network's decisions, says the same on rows that it was not fitted \
               to, beside always saying the most frequent class; with the rules.",
    reference: "Craven and Shavlik, NeurIPS 1995; Breiman, Friedman, Olshen and Stone 1984 (CART)",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc {
            name: "rows",
            default: "2000",
            doc: "Rows, evenly spaced: half to fit, half to measure; at least 20.",
        },
        OptionDoc { name: "depth", default: "4", doc: "Most questions on the way to a rule, 1 to 10." },
        OptionDoc { name: "leaf", default: "20", doc: "Fewest rows of a rule." },
    ],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SurrogateFidelity {
    rows: usize,
    depth: usize,
    leaf: usize,
}

impl Default for SurrogateFidelity {
    fn default() -> Self {
        Self { rows: 2000, depth: 4, leaf: 20 }
    }
}

impl Check for SurrogateFidelity {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let net = Explained::of(subject)?;
        let draft = cx.finding("agreement", CARD.title);
        let only = |d: netproof_audit::Draft| Ok(Findings::from(vec![d.done()]));
        if net.row_shape().len() != 1 {
            let why = "Rows are no table: rules over single elements would say nothing to a person.";
            return only(draft.verdict(Verdict::NotApplicable).explain(why));
        }
        let (count, fewer) = affordable(&net, self.rows.max(20), 1);
        let rows = assess::rows(subject, &net, count, cx.seed)?;
        let q = &rows.question;
        let all: Vec<&[f32]> = (0..q.len()).map(|i| q.row(i)).collect();
        let depth = self.depth.clamp(1, 10);
        let Some(f) = Fidelity::measure(&all, &q.targets, depth, self.leaf.max(1), cx.seed, cx.level) else {
            return only(draft.verdict(Verdict::Inconclusive).explain("There are too few rows for a tree."));
        };
        let names = subject.data().feature_names().map(<[String]>::to_vec).unwrap_or_default();
        let rules = f.tree.rules(&names);
        let low = f.agreement.interval.map_or(f.agreement.value, |i| i.low);
        let beyond = if low > f.chance {
            "More than always saying the most frequent class does, so that the rules say something of the network."
        } else {
            "Not shown to be more than always saying the most frequent class does: do not read the rules as reasons."
        };
        let table = Table {
            title: "Rules of the surrogate".to_owned(),
            columns: ["where", "the network mostly says", "rows fitted"].map(str::to_owned).to_vec(),
            rows: rules
                .iter()
                .map(|(rule, class, n)| {
                    let rule = if rule.is_empty() { "always".to_owned() } else { rule.clone() };
                    vec![rule.into(), subject.class_name(*class).into(), (*n).into()]
                })
                .collect(),
        };
        let draft = draft
            .estimate("surrogate_fidelity", "fraction", &f.agreement)
            .explain(format!(
                "A tree of at most {depth} questions ({} rules) says what the network says on {:.1} % of {} unseen rows ({}); \
                 always the most frequent class: {:.1} %. {beyond}",
                rules.len(),
                100.0 * f.agreement.value,
                f.agreement.n,
                range(&f.agreement),
                100.0 * f.chance
            ))
            .caveats(fewer)
            .evidence(table);
        only(draft.verdict(if low > f.chance { Verdict::Pass } else { Verdict::Inconclusive }))
    }
}
