//! How far the nearest wrong answer is: the distribution of the smallest change that makes the network fail, row by row.
//!
//! Each row takes the smallest change that any attack of a small portfolio found and the harness confirmed, so every
//! size is an upper bound of the distance to the boundary (Moosavi-Dezfooli, Fawzi and Frossard, CVPR 2016,
//! arXiv:1511.04599, section 3; Cinà et al., AAAI 2025, arXiv:2404.19460, section 3, for the best of several attacks).
//! Rows that are wrong without a change count as 0, rows that no attack broke as more than all others. Checked against:
//! the closed form of a linear model; Foolbox's DeepFool medians on `fashion-cnn`.

use netproof_audit::{AuditError, Check, Configured, Context, Findings, Subject, select};
use netproof_core::{
    Axis, Card, CardKind, Challenge, Evidence, Finding, Mark, Need, Norm, OptionDoc, Plot, PlotKind, Series, Table,
    Verdict,
};
use netproof_stats::descriptive::quantile_of_sorted;
use netproof_stats::interval::proportion::clopper_pearson;
use netproof_stats::regression::median;
use serde::{Deserialize, Serialize};

use super::{Target, affordable, threat};
use crate::adversarial::AttackError;
use crate::adversarial::attack::{Attack, Goal};
use crate::adversarial::attacks::ATTACKS;
use crate::adversarial::harness::{Fate, Harness};
use crate::adversarial::masking;
use crate::shared::percent;

pub(crate) static CARD: Card = Card {
    id: "minimal-perturbation",
    version: 1,
    kind: CardKind::Check,
    title: "Smallest change that makes the network fail",
    challenge: Challenge::Adversarial,
    measures: "For each row the smallest change with a wrong answer that any of several attacks finds; its median, quartiles, \
               classes, and the fraction of rows that is wrong within each size.",
    reference: "Moosavi-Dezfooli, Fawzi and Frossard, CVPR 2016, arXiv:1511.04599; Cinà et al., AAAI 2025, arXiv:2404.19460",
    needs: &[Need::Labels, Need::Classifier, Need::InputGradient],
    options: &[
        OptionDoc {
            name: "norms",
            default: "[\"linf\", \"l2\"]",
            doc: "How the size of a change is measured: linf, l2, l1 or l0, one or more.",
        },
        OptionDoc {
            name: "attacks",
            default: "[\"fmn\", \"deepfool\", \"ddn\"]",
            doc: "Attacks for the smallest change; each runs in the norms that it is made for.",
        },
        OptionDoc { name: "bounds", default: "[0.0, 1.0]", doc: "Least and largest value of a feature." },
        OptionDoc { name: "rows", default: "100", doc: "Rows that are attacked, the first ones, at least 1." },
        OptionDoc {
            name: "most_gmacs",
            default: "1000.0",
            doc: "Work in thousand million multiply-accumulates that may be spent; fewer rows are attacked where they cost \
                  more.",
        },
    ],
};

/// Passes of one attack on a row, about: 100 steps forward and back.
const PASSES: f64 = 300.0;
/// Fewest rows that a number is worth.
const FEWEST: usize = 20;
/// Marks of the curve at most.
const MARKS: usize = 80;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MinimalPerturbation {
    norms: Vec<Norm>,
    attacks: Vec<String>,
    bounds: Vec<f64>,
    rows: usize,
    most_gmacs: f64,
}

impl Default for MinimalPerturbation {
    fn default() -> Self {
        Self {
            norms: vec![Norm::Linf, Norm::L2],
            attacks: ["fmn", "deepfool", "ddn"].map(str::to_owned).to_vec(),
            bounds: vec![0.0, 1.0],
            rows: 100,
            most_gmacs: 1000.0,
        }
    }
}

/// What was found in one norm.
struct Sizes {
    norm: Norm,
    /// Label and smallest size of each row: 0 where it is wrong as it is, infinite where nothing was found.
    rows: Vec<(usize, f64)>,
    /// Rows for which each attack found the smallest.
    by: Vec<(&'static str, u64)>,
    notes: Vec<String>,
    /// Signs that no gradient attack can be trusted here.
    masked: Vec<String>,
}

impl Check for MinimalPerturbation {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let attacks = select("attack", ATTACKS, &self.attacks, &[], &toml::Table::new())?;
        self.check(&attacks)?;
        let refuse = |verdict, text: String| {
            let f = cx.finding("applicable", CARD.title).verdict(verdict);
            Ok(vec![f.explain(text).done()].into())
        };
        let wanted = self.rows.max(1).min(subject.data().len());
        let runs: usize = self.norms.iter().map(|n| of_norm(&attacks, *n).count()).sum();
        let rows = affordable(subject, wanted, PASSES * runs as f64, self.most_gmacs);
        if rows < wanted.min(FEWEST) {
            let text = format!(
                "Searching {wanted} rows takes more work than this check may spend: `most_gmacs` = {} is enough for {rows}. Raise \
                 --set {}.most_gmacs.",
                self.most_gmacs, CARD.id
            );
            return refuse(Verdict::Inconclusive, text);
        }
        let target = Target::load(subject, rows)?;
        if let Err(e) = target.victim.need_gradient() {
            return refuse(Verdict::Inconclusive, format!("These attacks need gradients: {e}."));
        }
        let bounds = threat(Norm::Linf, 0.0, &self.bounds)?.bounds;
        if !target.is_within(bounds) {
            let text = format!("The features are not within {bounds:?}. Give --set {}.bounds=[LOW,HIGH].", CARD.id);
            return refuse(Verdict::NotApplicable, text);
        }
        let few = (rows < wanted)
            .then(|| format!("only {rows} of {wanted} rows were searched, as `most_gmacs` allows no more"));
        let mut findings = Vec::new();
        for &norm in &self.norms {
            cx.check_time()?;
            let free = threat(norm, 0.0, &self.bounds)?;
            let free = free.with_epsilon(free.reach(target.victim.row_len()));
            let found = search(target.harness(free, cx)?, &attacks)?;
            cx.check_time()?;
            findings.push(found.finding(subject, few.clone(), cx));
        }
        Ok(findings.into())
    }
}

impl MinimalPerturbation {
    fn check(&self, attacks: &[Configured<dyn Attack>]) -> Result<(), AuditError> {
        let fail = |message: String| Err(AuditError::Option { id: CARD.id.to_owned(), message });
        if self.norms.is_empty() || self.attacks.is_empty() {
            return fail("`norms` and `attacks` must each name at least one".to_owned());
        }
        if let Some(a) = attacks.iter().find(|a| a.method.goal() != Goal::SmallestNorm) {
            return fail(format!("`attacks` has `{}`, which does not look for the smallest change", a.card.id));
        }
        match self.norms.iter().find(|n| of_norm(attacks, **n).next().is_none()) {
            Some(norm) => fail(format!("`norms` has {norm}, which none of the `attacks` is made for")),
            None => Ok(()),
        }
    }
}

fn of_norm(attacks: &[Configured<dyn Attack>], norm: Norm) -> impl Iterator<Item = &Configured<dyn Attack>> {
    attacks.iter().filter(move |a| a.method.norms().contains(&norm))
}

/// Runs every attack on every row that is right, and keeps the smallest change of each.
fn search(mut harness: Harness<'_, '_>, attacks: &[Configured<dyn Attack>]) -> Result<Sizes, AttackError> {
    let norm = harness.threat().norm;
    let right = harness.standing();
    let mut smallest = vec![f64::INFINITY; harness.len()];
    let mut winner: Vec<Option<&'static str>> = vec![None; harness.len()];
    for a in of_norm(attacks, norm) {
        harness.attack(a.card, a.card.id, &*a.method, &right)?;
        for (i, o) in harness.outcomes().iter().enumerate() {
            if let Some(s) = o.smallest.filter(|s| *s < smallest[i]) {
                (smallest[i], winner[i]) = (s, Some(a.card.id));
            }
        }
    }
    let size = |i: usize| match harness.outcomes()[i].fate {
        Fate::Wrong | Fate::Undefined => 0.0,
        _ => smallest[i],
    };
    let best = |id: &str| winner.iter().filter(|w| **w == Some(id)).count() as u64;
    let flags = masking::flags(&harness)?;
    Ok(Sizes {
        norm,
        rows: harness.labels().iter().enumerate().map(|(i, &l)| (l, size(i))).collect(),
        by: of_norm(attacks, norm).map(|a| (a.card.id, best(a.card.id))).collect(),
        notes: harness.notes().to_vec(),
        masked: flags.into_iter().filter(|f| f.raised && f.escalates).map(|f| f.text).collect(),
    })
}

impl Sizes {
    fn finding(&self, subject: &Subject, few: Option<String>, cx: &Context<'_>) -> Finding {
        let mut sorted: Vec<f64> = self.rows.iter().map(|r| r.1).collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let wrong = sorted.iter().filter(|s| **s == 0.0).count();
        let unbroken = sorted.iter().filter(|s| s.is_infinite()).count();
        let at = |q: f64| quantile_of_sorted(&sorted, q).unwrap_or(f64::NAN);
        let text = |v: f64| if v.is_finite() { format!("{v:.4}") } else { "more than was found".to_owned() };
        let mut draft = cx.finding(self.norm.name(), CARD.title);
        let middle = median(&sorted, cx.level).filter(|e| e.value.is_finite());
        draft = match middle.as_ref().filter(|_| self.masked.is_empty()) {
            Some(e) => draft.estimate(&format!("median_minimal_{}", self.norm), self.norm.name(), e),
            None => draft.verdict(Verdict::Inconclusive),
        };
        if !self.masked.is_empty() {
            draft = draft.caveats(self.masked.iter().map(|m| format!("gradients are not to be trusted here: {m}")));
        }
        draft
            .explain(format!(
                "Half of {n} rows are answered wrongly after a change of at most {} ({}), a quarter after {}, three quarters after {}; \
                 {wrong} are wrong without one ({}){}. Each size is that of an example which was confirmed, so the nearest \
                 wrong answer may be nearer.",
                text(at(0.5)),
                self.norm,
                text(at(0.25)),
                text(at(0.75)),
                percent(wrong as f64 / n.max(1) as f64),
                if unbroken > 0 { format!(", and {unbroken} were not broken by any attack") } else { String::new() },
            ))
            .caveats(few)
            .caveats(self.notes.clone())
            .evidence(Evidence::Plot(self.curve(&sorted, cx)))
            .evidence(Evidence::Table(self.classes(subject)))
            .evidence(Evidence::Table(Table {
                title: "Attacks that found the smallest change".to_owned(),
                columns: ["attack", "rows"].map(String::from).to_vec(),
                rows: self.by.iter().map(|(id, n)| vec![(*id).into(), (*n).into()]).collect(),
            }))
            .done()
    }

    /// The empirical distribution of sizes: fraction of rows that is wrong within each.
    fn curve(&self, sorted: &[f64], cx: &Context<'_>) -> Plot {
        let n = sorted.len();
        let every = n.div_ceil(MARKS).max(1);
        let last = sorted.iter().rposition(|s| s.is_finite());
        let mut marks: Vec<Mark> = Vec::new();
        for (i, &size) in sorted.iter().enumerate().filter(|(_, s)| s.is_finite()) {
            // Of equal sizes the last one counts all of them.
            let ends = sorted.get(i + 1).is_none_or(|next| *next > size);
            if !ends || (i % every != 0 && size > 0.0 && Some(i) != last) {
                continue;
            }
            let k = i as u64 + 1;
            let interval = clopper_pearson(k, n as u64, cx.level);
            marks.push(Mark {
                x: Some(size),
                y: k as f64 / n as f64,
                low: interval.map(|i| i.low),
                high: interval.map(|i| i.high),
                n: Some(n as u64),
                label: None,
            });
        }
        Plot {
            title: format!("Rows that are wrong within a change of this size ({})", self.norm),
            x: Axis::new(format!("size of the change ({})", self.norm)),
            y: Axis::unit("fraction of rows wrong"),
            plot: PlotKind::Lines,
            series: vec![Series { name: "smallest change found".to_owned(), marks }],
            reference: Some(0.5),
        }
    }

    fn classes(&self, subject: &Subject) -> Table {
        let classes = self.rows.iter().map(|r| r.0 + 1).max().unwrap_or(0);
        let row = |class: usize| {
            let mut own: Vec<f64> = self.rows.iter().filter(|r| r.0 == class).map(|r| r.1).collect();
            own.sort_by(f64::total_cmp);
            let wrong = own.iter().filter(|s| **s == 0.0).count();
            let mut cells = vec![subject.class_name(class).into(), own.len().into(), wrong.into()];
            cells.extend([0.25, 0.5, 0.75].map(|q| quantile_of_sorted(&own, q).into()));
            (!own.is_empty()).then_some(cells)
        };
        let columns = ["class", "rows", "wrong without a change", "quartile", "median", "upper quartile"];
        Table {
            title: format!("Smallest change by class ({})", self.norm),
            columns: columns.map(String::from).to_vec(),
            rows: (0..classes).filter_map(row).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use netproof_audit::{Policy, Silent, run as audit};
    use netproof_data::{Dataset, Labels, OpenOptions};
    use netproof_graph::Model;
    use netproof_stats::Level;
    use netproof_tensor::Tensor;

    use super::*;
    use crate::CHECKS;
    use crate::adversarial::test_support::{linear, rows, victim};

    fn findings(subject: &Subject, options: &str) -> Vec<Finding> {
        let only = [CARD.id.to_owned()];
        let plan = netproof_audit::Plan {
            checks: select("check", CHECKS, &only, &[], &options.parse().unwrap()).unwrap(),
            seed: 0,
            level: Level::P95,
            budget: None,
            may_train: false,
            policy: Policy::default(),
            tool: "test".to_owned(),
        };
        audit(subject, &plan, None, &Silent).unwrap().findings
    }

    /// On a linear model the distance to the boundary is the margin over the dual norm.
    #[test]
    fn on_a_linear_model_the_median_is_that_of_the_closed_form() {
        let w = [[0.0f32; 4], [0.5, -2.0, 1.0, 0.3]];
        let model = linear(&w, &[0.0, 0.1]);
        let (x, mut labels) = rows(&model, 4, 41, 6);
        labels[0] = 1 - labels[0];
        let z = victim(&model, &[4]).logits(&x).unwrap();
        // No box is in reach.
        let options = "[minimal-perturbation]\nbounds = [-9.0, 9.0]\nnorms = [\"linf\", \"l2\", \"l1\"]\n";
        let features = Tensor::f32(vec![41, 4], x).unwrap();
        let data =
            Dataset::from_memory(features, Labels::Classes(labels), Vec::new(), &OpenOptions::default()).unwrap();
        let found = findings(&Subject::new(model, "linear", data, None).unwrap(), options);
        for (f, (dual, slack)) in found.iter().zip([(3.8, 1.03), (5.34f64.sqrt(), 1.03), (2.0, 1.1)]) {
            let mut sizes: Vec<f64> =
                (0..41).map(|i| if i == 0 { 0.0 } else { f64::from((z[2 * i] - z[2 * i + 1]).abs()) / dual }).collect();
            sizes.sort_by(f64::total_cmp);
            let (value, want) = (f.value.unwrap(), sizes[20]);
            assert!(value >= want - 1e-6 && value < want * slack, "{}: {value}, closed form {want}", f.id);
            let interval = f.interval.as_ref().unwrap();
            assert!(interval.low <= value && value <= interval.high && interval.method == "order-statistics");
            let Evidence::Plot(plot) = &f.evidence[0] else { panic!("no plot") };
            let marks = &plot.series[0].marks;
            assert_eq!((marks[0].x, marks[0].y), (Some(0.0), 1.0 / 41.0));
            assert!(marks.windows(2).all(|m| m[0].x < m[1].x && m[0].y < m[1].y) && marks.last().unwrap().y == 1.0);
        }
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn on_a_real_network_the_portfolio_is_no_worse_than_its_parts() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/fashion");
        let options = OpenOptions { image_size: Some([1, 28, 28]), ..OpenOptions::default() };
        let data = Dataset::open(examples.join("fashion-test-2000.npz").to_str().unwrap(), &options).unwrap();
        let model = Model::load(&examples.join("fashion-cnn.onnx")).unwrap();
        let subject = Subject::new(model, "cnn", data.take(24), None).unwrap();
        let with = |attacks: &str| {
            let set = format!("[minimal-perturbation]\nnorms = [\"l2\"]\nattacks = {attacks}\n");
            findings(&subject, &set)[0].value.unwrap()
        };
        let (all, one) = (with("[\"deepfool\", \"ddn\"]"), with("[\"deepfool\"]"));
        assert!(all <= one && all > 0.0, "{all} {one}");
    }

    #[test]
    fn attacks_and_norms_that_do_not_fit_are_refused() {
        let model = linear(&[[0.0f32; 2], [1.0, 1.0]], &[0.0, -1.0]);
        let data = Tensor::f32(vec![2, 2], vec![0.1, 0.2, 0.9, 0.8]).unwrap();
        let data =
            Dataset::from_memory(data, Labels::Classes(vec![0, 1]), Vec::new(), &OpenOptions::default()).unwrap();
        let subject = Subject::new(model, "linear", data, None).unwrap();
        for bad in ["attacks = [\"pgd\"]", "norms = [\"l1\"]\nattacks = [\"deepfool\"]", "norms = []", "bounds = [0.0]"]
        {
            let f = &findings(&subject, &format!("[minimal-perturbation]\n{bad}\n"))[0];
            assert_eq!(f.verdict, Verdict::Failed, "{bad}: {}", f.explanation);
        }
    }
}
