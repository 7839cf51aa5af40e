//! Whether a few rules, or one linear model, say what the network says: fitted to its decisions and scores on some rows, and how
//! often they agree on others. High fidelity means that the network can be read as rules or as coefficients, or replaced by them.
//! Checked against: a network that is a tree and one that is linear (the tests of the surrogates themselves). Tables only: rules
//! over pixels say nothing to a person. Weak: agreement on these rows is not agreement elsewhere.

use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{Card, CardKind, Challenge, Finding, Need, OptionDoc, Table, Verdict};
use serde::{Deserialize, Serialize};

use super::assess::{self, affordable, range};
use super::insights::{self, Fidelity, LinearFidelity, RIDGE};
use super::{Explained, Question};

pub(crate) static CARD: Card = Card {
    id: "surrogate-fidelity",
    version: 2,
    kind: CardKind::Check,
    title: "Fidelity of surrogates",
    challenge: Challenge::Interpretability,
    measures: "How often a shallow tree of rules and a linear model, fitted to what the network says, say the same on rows that \
               they were not fitted to, beside always saying the most frequent class; with rules and coefficients.",
    reference: "Craven and Shavlik, NeurIPS 1995; Breiman, Friedman, Olshen and Stone 1984 (CART); Hastie, Tibshirani and \
                Friedman 2009, section 3.4.1",
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
        let draft = cx.finding("agreement", "Fidelity of a tree of rules");
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
            .caveats(fewer.clone())
            .evidence(table);
        let tree = draft.verdict(if low > f.chance { Verdict::Pass } else { Verdict::Inconclusive }).done();
        let linear = linear(subject, cx, &net, q, &all, &f)?;
        let mut findings = vec![tree, linear];
        findings[1].caveats.extend(fewer);
        Ok(Findings::from(findings))
    }
}

/// The linear surrogate on the same halves of the rows.
fn linear(
    subject: &Subject,
    cx: &Context<'_>,
    net: &Explained<'_>,
    q: &Question,
    rows: &[&[f32]],
    tree: &Fidelity,
) -> Result<Finding, AuditError> {
    let draft = cx.finding("linear", "Fidelity of a linear model");
    let scores = insights::scores(net, q)?;
    let found = LinearFidelity::measure(rows, &scores, Some(&q.targets), RIDGE, cx.seed, cx.level);
    let Some((f, agreement, r_squared)) = found.and_then(|f| Some((f.clone(), f.agreement?, f.r_squared?))) else {
        let why = "The scores do not vary, or there are too few rows for a linear model.";
        return Ok(draft.verdict(Verdict::Inconclusive).explain(why).done());
    };
    let low = agreement.interval.map_or(agreement.value, |i| i.low);
    let beyond = match (low > f.chance, tree.agreement.interval) {
        (false, _) => {
            "Not shown to be more than always saying the most frequent class does: do not read the coefficients as reasons."
        }
        (true, Some(i)) if agreement.value > i.high => "Closer to the network than the tree of rules.",
        (true, Some(i)) if agreement.value < i.low => "Less close to the network than the tree of rules.",
        _ => "As close to the network as the tree of rules.",
    };
    let names = subject.data().feature_names().map(<[String]>::to_vec).unwrap_or_default();
    let classes: Vec<String> = match f.model.intercepts.len() {
        1 => vec![subject.class_name(1)],
        k => (0..k).map(|c| subject.class_name(c)).collect(),
    };
    // Two classes differ in the sign alone.
    let model = if classes.len() == 2 { f.model.only(1) } else { f.model };
    let shown = if classes.len() == 2 { &classes[1..] } else { &classes[..] };
    Ok(draft
        .verdict(if low > f.chance { Verdict::Pass } else { Verdict::Inconclusive })
        .estimate("surrogate_fidelity", "fraction", &agreement)
        .explain(format!(
            "A linear model of the columns decides as the network does on {:.1} % of {} unseen rows ({}) and explains {:.1} % of \
             the variance of its scores (R² {}); always the most frequent class: {:.1} %. {beyond}",
            100.0 * agreement.value,
            agreement.n,
            range(&agreement),
            100.0 * r_squared.value,
            range(&r_squared),
            100.0 * f.chance
        ))
        .evidence(model.table(&names, shown, 20))
        .done())
}

#[cfg(test)]
mod tests {
    use netproof_audit::{Check, Silent, Subject, context};
    use netproof_core::{Evidence, Finding, Verdict};
    use netproof_data::{Dataset, Labels, OpenOptions};
    use netproof_graph::FileBuilder;
    use netproof_graph::Model;
    use netproof_stats::Level;
    use netproof_stats::rng::Rng;
    use netproof_tensor::Tensor;

    use super::*;
    use crate::interpretability::test_support::stored;

    fn audit(model: Model) -> Vec<Finding> {
        let mut rng = Rng::new(8);
        let n = 600;
        let x: Vec<f32> = (0..3 * n).map(|_| rng.normal() as f32).collect();
        let labels = Labels::Classes((0..n).map(|i| i % 2).collect());
        let x = Tensor::f32(vec![n, 3], x).unwrap();
        let data = Dataset::from_memory(x, labels, Vec::new(), &OpenOptions::default()).unwrap();
        let subject = Subject::new(model, "test", data, None).unwrap();
        let cx = context(&subject, &CARD, "", 0, Level::P95, &Silent).unwrap();
        SurrogateFidelity::default().run(&subject, &cx).unwrap().reproducible
    }

    fn of(nodes: impl Fn(&mut FileBuilder, &str) -> String) -> Model {
        let mut file = FileBuilder::new("test");
        let x = file.add_batch_input("x", &[3]);
        let y = nodes(&mut file, &x);
        file.batch_output(&y, &[2]);
        Model::from_file(file.build().unwrap()).unwrap()
    }

    #[test]
    fn a_linear_network_is_read_as_coefficients_and_a_bent_one_rather_as_rules() {
        let linear = of(|f, x| {
            let w = stored(f, "w", &[3, 2], &[1.0, -1.0, -2.0, 2.0, 0.0, 0.0]);
            f.node("MatMul", "y", &[x, &w], &[])
        });
        let found = audit(linear);
        assert_eq!(
            found.iter().map(|f| f.id.as_str()).collect::<Vec<_>>(),
            ["surrogate-fidelity/agreement", "surrogate-fidelity/linear"]
        );
        assert!(found[1].value.unwrap() > 0.99 && found[1].verdict == Verdict::Pass, "{}", found[1].explanation);
        assert!(found[1].explanation.contains("Closer to the network"), "{}", found[1].explanation);
        let Evidence::Table(t) = &found[1].evidence[0] else { panic!("no table") };
        assert_eq!((t.columns.len(), t.rows.len()), (2, 3));
        // Class 1 where column 0 is far from 0.
        let bent = of(|f, x| {
            let w = stored(f, "w", &[3, 2], &[1.0, -1.0, 0.0, 0.0, 0.0, 0.0]);
            let h = f.node("MatMul", "h", &[x, &w], &[]);
            let r = f.node("Relu", "r", &[&h], &[]);
            let v = stored(f, "v", &[2, 2], &[-1.0, 1.0, -1.0, 1.0]);
            let b = stored(f, "b", &[2], &[0.7, -0.7]);
            f.node("Gemm", "y", &[&r, &v, &b], &[])
        });
        let found = audit(bent);
        assert!(found[0].value.unwrap() > 0.95, "{}", found[0].explanation);
        assert!(found[1].value.unwrap() < 0.8, "{}", found[1].explanation);
    }
}
