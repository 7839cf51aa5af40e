//! Whether explanation methods say the same of the same rows. Krishna et al. 2022, arXiv:2202.01602, section 3.
//! Checked against: closed forms of rank correlation and overlap. It describes; methods may agree and all be wrong.

use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{Axis, Card, CardKind, Challenge, Evidence, Need, OptionDoc, Plot, PlotKind, Table, Verdict};
use serde::{Deserialize, Serialize};

use super::assess::{self, affordable, cell, finite_mean, range};
use super::evidence::{Bench, Protocol, agreement};
use super::{ExplainError, Explained};

pub(crate) static CARD: Card = Card {
    id: "method-agreement",
    version: 1,
    kind: CardKind::Check,
    title: "Agreement between explanation methods",
    challenge: Challenge::Interpretability,
    measures: "Rank correlation and overlap of the most important tenth between the maps of each two methods on the same rows.",
    reference: "Krishna et al. 2022, The Disagreement Problem in Explainable Machine Learning, arXiv:2202.01602, section 3",
    needs: &[Need::Labels],
    options: &[
        OptionDoc {
            name: "methods",
            default: "[]",
            doc: "Ids of explanation methods, or \"all\"; empty: the usual ones.",
        },
        OptionDoc { name: "rows", default: "24", doc: "Rows, evenly spaced, at least 2." },
    ],
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MethodAgreement {
    methods: Vec<String>,
    rows: usize,
}

impl Default for MethodAgreement {
    fn default() -> Self {
        Self { methods: Vec::new(), rows: 24 }
    }
}

impl Check for MethodAgreement {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let net = Explained::of(subject)?;
        let (count, fewer) = affordable(&net, self.rows.max(2), 400);
        let rows = assess::rows(subject, &net, count, cx.seed)?;
        let bench = Bench::new(&net, &rows.question, Protocol::default())?;
        let methods = assess::methods(&self.methods, false)?;
        let (mut cases, mut names) = (Vec::new(), Vec::new());
        for m in &methods {
            cx.check_time()?;
            match bench.case(&*m.method) {
                Ok(case) => {
                    cases.push(case);
                    names.push(m.card.title.to_owned());
                }
                Err(ExplainError::NotApplicable { .. } | ExplainError::NotDifferentiable { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let draft = cx.finding("rank", CARD.title).caveats(fewer);
        if cases.len() < 2 {
            let why = format!("{} of the methods apply to this network; two are needed.", cases.len());
            return Ok(vec![draft.verdict(Verdict::NotApplicable).explain(why).done()].into());
        }
        let k = cases.len();
        let mut matrix = vec![1.0; k * k];
        let mut by_row = vec![Vec::new(); rows.question.len()];
        let mut pairs = Vec::new();
        for a in 0..k {
            for b in a + 1..k {
                let found = agreement(&cases[a], &cases[b]);
                for (all, r) in by_row.iter_mut().zip(&found.rank_correlation) {
                    all.push(*r);
                }
                let ranks = finite_mean(&found.rank_correlation, cx.level);
                let value = ranks.map_or(0.0, |e| e.value);
                (matrix[a * k + b], matrix[b * k + a]) = (value, value);
                let top = finite_mean(&found.top_overlap, cx.level).map(|e| e.value);
                pairs.push((
                    value,
                    vec![
                        names[a].clone().into(),
                        names[b].clone().into(),
                        cell(ranks.map(|e| e.value)),
                        ranks.map_or_else(String::new, |e| range(&e)).into(),
                        cell(top),
                    ],
                ));
            }
        }
        let means: Vec<f64> = by_row
            .iter()
            .map(|all| {
                let finite: Vec<f64> = all.iter().copied().filter(|v| v.is_finite()).collect();
                finite.iter().sum::<f64>() / finite.len() as f64
            })
            .collect();
        let Some(e) = finite_mean(&means, cx.level) else {
            return Ok(vec![draft.verdict(Verdict::Inconclusive).explain("Every map is constant.").done()].into());
        };
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let worst = &pairs[0];
        let text =
            |c: &netproof_core::Cell| if let netproof_core::Cell::Text(t) = c { t.clone() } else { String::new() };
        let explanation = format!(
            "On average over {} pairs of methods, maps of the same row agree to {:.3} (rank correlation, {}). Least alike are {} \
             and {} ({:.3}). Where methods disagree, `faithfulness` and `sanity` say which to follow.",
            pairs.len(),
            e.value,
            range(&e),
            text(&worst.1[0]),
            text(&worst.1[1]),
            worst.0
        );
        let table = Table {
            title: "Pairs of methods, least alike first".to_owned(),
            columns: ["method", "and", "rank correlation", "interval", "overlap of the most important tenth"]
                .map(str::to_owned)
                .to_vec(),
            rows: pairs.into_iter().map(|(_, row)| row).collect(),
        };
        let plot = Plot {
            title: "Rank correlation between maps, mean over rows".to_owned(),
            x: Axis::new("method"),
            y: Axis::new("method"),
            plot: PlotKind::Matrix {
                rows: names.clone(),
                columns: names,
                values: matrix.iter().map(|v| (v * 100.0).round() / 100.0).collect(),
            },
            series: Vec::new(),
            reference: None,
        };
        let finding = draft
            .estimate("method_agreement", "rank correlation", &e)
            .explain(explanation)
            .evidence(Evidence::Plot(plot))
            .evidence(Evidence::Table(table));
        Ok(vec![finding.done()].into())
    }
}
