//! Whether explanations are worse for a group: their faithfulness and their stability, each group against all other rows.
//! Dai et al., AIES 2022, arXiv:2205.07277, section 3; Balagopalan et al., FAccT 2022, arXiv:2205.03295.
//! Checked against: a network whose gradients say nothing for one group, and an even one; the metrics' own closed forms (tests of
//! `evidence`); run on Adult, where no group is worse off.
//! Weak with few rows per group: what is not shown is not shown to be absent.

use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{Axis, Comparison, Threshold};
use netproof_core::{
    Card, CardKind, Challenge, Evidence, Finding, Mark, Need, OptionDoc, Plot, PlotKind, Series, Verdict,
};
use netproof_stats::Level;
use netproof_stats::interval::mean::{mean, mean_difference};
use serde::{Deserialize, Serialize};

use super::assess::{affordable, range, these_rows};
use super::evidence::{Bench, Protocol, metric, spearman};
use super::{Explained, explanation};

pub(crate) static CARD: Card = Card {
    id: "explanation-fairness",
    version: 1,
    kind: CardKind::Check,
    title: "Explanations by group",
    challenge: Challenge::Interpretability,
    measures: "Whether explanations are less faithful or less stable for the rows of a group than for all others, with intervals \
               that allow for the number of groups.",
    reference: "Dai et al., AIES 2022, arXiv:2205.07277, section 3; Balagopalan et al., FAccT 2022, arXiv:2205.03295",
    needs: &[Need::Labels, Need::Groups],
    options: &[
        OptionDoc { name: "method", default: "\"integrated-gradients\"", doc: "Id of the explanation method." },
        OptionDoc { name: "rows_per_group", default: "40", doc: "Most rows of a group, evenly spaced, at least 5." },
        OptionDoc {
            name: "most_groups",
            default: "12",
            doc: "Most values of a column that are compared, the largest.",
        },
    ],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExplanationFairness {
    method: String,
    rows_per_group: usize,
    most_groups: usize,
}

impl Default for ExplanationFairness {
    fn default() -> Self {
        Self { method: "integrated-gradients".to_owned(), rows_per_group: 40, most_groups: 12 }
    }
}

/// Fewest rows of a group that is compared.
const FEWEST: usize = 5;

impl Check for ExplanationFairness {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let net = Explained::of(subject)?;
        let method = explanation(&self.method, toml::Table::new())?;
        let annotations = subject.data().annotations()?;
        let mut findings = Vec::new();
        for (column, group) in subject.data().groups().iter().enumerate() {
            cx.check_time()?;
            let of = &annotations.groups[column];
            let mut members: Vec<(usize, Vec<usize>)> =
                (0..group.values.len()).map(|v| (v, (0..of.len()).filter(|&i| of[i] == Some(v)).collect())).collect();
            members.sort_by_key(|(v, rows)| (std::cmp::Reverse(rows.len()), *v));
            members.truncate(self.most_groups.max(2));
            members.sort_by_key(|(v, _)| *v);
            let small: Vec<String> =
                members.iter().filter(|(_, r)| r.len() < FEWEST).map(|(v, _)| group.values[*v].clone()).collect();
            members.retain(|(_, r)| r.len() >= FEWEST);
            let mut caveats = Vec::new();
            if !small.is_empty() {
                caveats.push(format!("{} have fewer than {FEWEST} rows and are left out", small.join(", ")));
            }
            if members.len() < 2 {
                let f = cx.finding(&group.name, CARD.title).verdict(Verdict::Inconclusive).caveats(caveats);
                findings.push(f.explain(format!("`{}` has no two groups with enough rows.", group.name)).done());
                continue;
            }
            let (each, fewer) = affordable(&net, self.rows_per_group.max(FEWEST), members.len() * 500);
            caveats.extend(fewer);
            let mut positions = Vec::new();
            for (_, rows) in &members {
                positions.extend(super::assess::spaced(rows.len(), each).into_iter().map(|k| rows[k]));
            }
            positions.sort_unstable();
            let rows = these_rows(subject, &net, &positions, cx.seed)?;
            let protocol = Protocol { points: 16, orders: 3, copies: 2, ..Protocol::default() };
            let bench = Bench::new(&net, &rows.question, protocol)?;
            let case = bench.case(&*method.method)?;
            let faithful = advantages(&case)?;
            let mut stable = Vec::new();
            for i in 0..case.len() {
                let own = case.units(i);
                let kept: Vec<f64> = case.noisy_units(i)?.iter().filter_map(|c| spearman(&own, c)).collect();
                stable.push(kept.iter().sum::<f64>() / kept.len() as f64);
            }
            let groups: Vec<(String, Vec<usize>)> = members
                .iter()
                .map(|(v, _)| {
                    let own = (0..case.len()).filter(|&i| rows.groups[column][i] == Some(*v)).collect();
                    (group.values[*v].clone(), own)
                })
                .collect();
            for (id, what, unit, values) in [
                ("faithfulness", "Faithfulness of explanations", "area", &faithful),
                ("stability", "Stability of explanations", "rank correlation", &stable),
            ] {
                let mut f = compare(cx, &format!("{}-{id}", group.name), what, unit, &group.name, &groups, values)?;
                f.caveats.extend(caveats.iter().cloned());
                findings.push(f);
            }
        }
        Ok(findings.into())
    }
}

/// Insertion less deletion over random orders, per row.
fn advantages(case: &super::evidence::Case<'_, '_>) -> Result<Vec<f64>, AuditError> {
    let mut sum = vec![0.0; case.len()];
    for id in ["deletion", "insertion"] {
        let Some(metric) = metric(id) else { continue };
        let m = (metric.measure)(case)?;
        let control = m.random.clone().unwrap_or_default();
        sum.iter_mut().zip(m.advantages(&control)).for_each(|(s, a)| *s += a);
    }
    Ok(sum)
}

/// Each group against all other rows; the widest gap becomes the finding.
fn compare(
    cx: &Context<'_>,
    id: &str,
    what: &str,
    unit: &str,
    column: &str,
    groups: &[(String, Vec<usize>)],
    values: &[f64],
) -> Result<Finding, AuditError> {
    // Bonferroni: the widest of so many comparisons is shown.
    let level = Level::new(1.0 - (1.0 - cx.level.get()) / groups.len() as f64)?;
    let of = |rows: &mut dyn Iterator<Item = usize>| -> Vec<f64> {
        rows.map(|i| values[i]).filter(|v| v.is_finite()).collect()
    };
    let mut worst: Option<(usize, netproof_stats::Estimate)> = None;
    let mut marks = Vec::new();
    for (g, (name, own)) in groups.iter().enumerate() {
        let mine = of(&mut own.iter().copied());
        let rest =
            of(&mut groups.iter().enumerate().filter(|(o, _)| *o != g).flat_map(|(_, (_, r))| r.iter().copied()));
        let e = mean(&mine, cx.level);
        marks.extend(e.map(|e| Mark {
            x: None,
            y: e.value,
            low: e.interval.map(|i| i.low),
            high: e.interval.map(|i| i.high),
            n: Some(e.n),
            label: Some(name.clone()),
        }));
        if let Some(d) = mean_difference(&mine, &rest, level)
            && worst.as_ref().is_none_or(|(_, w)| d.value < w.value)
        {
            worst = Some((g, d));
        }
    }
    let draft = cx.finding(id, &format!("{what} by `{column}`"));
    let Some((g, d)) = worst else {
        return Ok(draft.verdict(Verdict::Inconclusive).explain("No group has maps that can be compared.").done());
    };
    let (low, high) = d.interval.map_or((d.value, d.value), |i| (i.low, i.high));
    let (verdict, text) = if high < 0.0 {
        (Verdict::Concern, "Explanations are worse for this group.")
    } else if low <= 0.0 {
        (Verdict::Pass, "No group is shown to be worse off than the others.")
    } else {
        (Verdict::Pass, "No group is worse off than the others.")
    };
    let draft = draft
        .verdict(verdict)
        .estimate("explanation_gap", unit, &d)
        .explain(format!(
            "The group furthest below all other rows is {}: {:+.3} ({}, with Bonferroni's correction for {} groups). {text}",
            groups[g].0,
            d.value,
            range(&d),
            groups.len()
        ))
        .evidence(Evidence::Plot(Plot {
            title: format!("{what}, mean by group"),
            x: Axis::new(unit.to_owned()),
            y: Axis::new(column.to_owned()),
            plot: PlotKind::Forest,
            series: vec![Series { name: column.to_owned(), marks }],
            reference: mean(&of(&mut (0..values.len())), cx.level).map(|e| e.value),
        }));
    if verdict == Verdict::Pass {
        return Ok(draft.done());
    }
    let source = "no gap: the interval of the difference must reach 0".to_owned();
    Ok(draft.threshold(Threshold { value: 0.0, comparison: Comparison::AtLeast, source }).done())
}

#[cfg(test)]
mod tests {
    use netproof_audit::{Silent, context};
    use netproof_data::{Dataset, Labels, OpenOptions};
    use netproof_graph::{FileBuilder, Model};
    use netproof_stats::rng::Rng;
    use netproof_tensor::Tensor;

    use super::*;
    use crate::interpretability::test_support::stored;

    const COLUMNS: usize = 12;

    /// Weighs columns; where the last element is 1 by `even`, else by a wave so short that its slope says nothing of its course.
    fn network(even: bool) -> Model {
        let mut file = FileBuilder::new("groups");
        let x = file.add_batch_input("x", &[COLUMNS + 1]);
        let weights: Vec<f32> = (0..COLUMNS).map(|i| (i as f32 * 1.9).sin()).collect();
        let columns: Vec<f32> = weights.iter().chain([&0.0]).copied().collect();
        let w = stored(&mut file, "w", &[COLUMNS + 1, 1], &columns);
        let smooth = file.node("MatMul", "smooth", &[&x, &w], &[]);
        let f = stored(&mut file, "f", &[1], &[60.0]);
        let fast = file.node("Mul", "fast", &[&x, &f], &[]);
        let fast = file.node("Sin", "wave", &[&fast], &[]);
        let wave = file.node("MatMul", "waves", &[&fast, &w], &[]);
        let last: Vec<f32> = (0..=COLUMNS).map(|i| if i == COLUMNS { 1.0 } else { 0.0 }).collect();
        let last = stored(&mut file, "last", &[COLUMNS + 1, 1], &last);
        let group = file.node("MatMul", "group", &[&x, &last], &[]);
        let one = stored(&mut file, "one", &[1], &[1.0]);
        let other = file.node("Sub", "other", &[&one, &group], &[]);
        let a = file.node("Mul", "a", &[&other, &smooth], &[]);
        let b = file.node("Mul", "b", &[&group, if even { &smooth } else { &wave }], &[]);
        let score = file.node("Add", "score", &[&a, &b], &[]);
        let signs = stored(&mut file, "signs", &[1, 2], &[-1.0, 1.0]);
        let y = file.node("MatMul", "y", &[&score, &signs], &[]);
        file.batch_output(&y, &[2]);
        Model::from_file(file.build().unwrap()).unwrap()
    }

    fn check(model: Model, small: bool) -> Vec<Finding> {
        let mut rng = Rng::new(11);
        let n = 80;
        let (mut x, mut names) = (Vec::new(), Vec::new());
        for i in 0..n {
            x.extend((0..COLUMNS).map(|_| rng.normal() as f32));
            let second = if small { i < 3 } else { i % 2 == 1 };
            x.push(f32::from(u8::from(second)));
            names.push(if second { "second" } else { "first" }.to_owned());
        }
        let x = Tensor::f32(vec![n, COLUMNS + 1], x).unwrap();
        let labels = Labels::Classes((0..n).map(|i| i % 2).collect());
        let groups = vec![("kind".to_owned(), names)];
        let data = Dataset::from_memory(x, labels, groups, &OpenOptions::default()).unwrap();
        let subject = Subject::new(model, "test", data, None).unwrap();
        let cx = context(&subject, &CARD, "", 0, Level::P95, &Silent).unwrap();
        let check = ExplanationFairness { method: "input-x-gradient".to_owned(), ..ExplanationFairness::default() };
        check.run(&subject, &cx).unwrap().reproducible
    }

    #[test]
    fn a_group_with_worse_explanations_is_named_and_an_even_network_passes() {
        let found = check(network(false), false);
        let ids: Vec<&str> = found.iter().map(|f| f.id.as_str()).collect();
        assert_eq!(ids, ["explanation-fairness/kind-faithfulness", "explanation-fairness/kind-stability"]);
        for f in &found {
            assert_eq!(f.verdict, Verdict::Concern, "{}", f.explanation);
            assert!(f.explanation.contains("all other rows is second:") && f.value.unwrap() < 0.0, "{}", f.explanation);
        }
        for f in check(network(true), false) {
            assert_eq!(f.verdict, Verdict::Pass, "{}", f.explanation);
        }
    }

    #[test]
    fn a_group_of_three_rows_is_not_judged() {
        let found = check(network(false), true);
        assert_eq!((found.len(), found[0].verdict), (1, Verdict::Inconclusive));
        assert!(found[0].caveats[0].starts_with("second have fewer than 5 rows"), "{:?}", found[0].caveats);
    }
}
