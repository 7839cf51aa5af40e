//! A check of one's own: its card, its options, and the audit that runs it.
//! `cargo run -p netproof-audit --example own_check`
#![allow(clippy::print_stdout)]

use netproof_audit::{
    AuditError, Check, Context, Entry, Findings, Part, Plan, Policy, Silent, Subject, check, run, select,
};
use netproof_core::{Card, CardKind, Challenge, Comparison, Threshold, Verdict};
use netproof_data::{Dataset, Labels, OpenOptions};
use netproof_graph::builders::{Activation, mlp};
use netproof_stats::Level;
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

static CARD: Card = Card {
    id: "enough-rows",
    version: 1,
    kind: CardKind::Check,
    title: "Enough rows",
    challenge: Challenge::DataLimits,
    measures: "Whether there are as many rows as somebody asked for.",
    reference: "none",
    needs: &[],
    options: &[],
};

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EnoughRows {
    rows: usize,
}

impl Default for EnoughRows {
    fn default() -> Self {
        Self { rows: 100 }
    }
}

impl Check for EnoughRows {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let rows = subject.part(Part::Test).map_or(0, Dataset::len);
        let threshold = Threshold {
            value: self.rows as f64,
            comparison: Comparison::AtLeast,
            source: "option `rows` of this check".to_owned(),
        };
        let verdict = if rows >= self.rows { Verdict::Pass } else { Verdict::Concern };
        let draft = cx.finding("rows", "Rows").value("rows", "rows", rows as f64).threshold(threshold);
        Ok(vec![draft.verdict(verdict).explain(format!("There are {rows} rows.")).done()].into())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let features = Tensor::zeros(vec![40, 4])?;
    let data = Dataset::from_memory(features, Labels::Classes(vec![0; 40]), Vec::new(), &OpenOptions::default())?;
    let subject = Subject::new(mlp(&[4], &[8], 3, Activation::Relu, 0)?, "mlp", data, None)?;
    static CHECKS: &[Entry<dyn Check>] = &[Entry { card: &CARD, build: check::<EnoughRows> }];
    let plan = Plan {
        checks: select("check", CHECKS, &[], &[], &toml::Table::new())?,
        seed: 0,
        level: Level::P95,
        budget: None,
        may_train: false,
        policy: Policy::default(),
        tool: "example".to_owned(),
    };
    for finding in run(&subject, &plan, None, &Silent)?.all_findings() {
        println!("{}: {:?}, {:?}", finding.title, finding.value, finding.verdict);
    }
    Ok(())
}
