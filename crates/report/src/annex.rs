//! The annex for technical documentation: what each finding is evidence for, clause by clause, and what has none yet.
//!
//! An item that findings answer is called measured, never fulfilled: whether a requirement is met is for people to say.

mod table;

use netproof_core::{AuditDocument, Finding, Verdict};

use self::table::{ITEMS, Item, Rules};
use crate::ReportError;
use crate::badge::{Badge, sentence};
use crate::html::date;
use crate::meta;
use crate::prose::{Kept, Line, Prose, Span, facts, page, references, seal, statement, text};

/// The annex and what it lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annex {
    /// As Markdown; hand it in as `previous` to make the annex again.
    pub markdown: String,
    /// The same as one HTML page beside `report.html`.
    pub html: String,
    /// Parts that no person has written yet.
    pub unfinished: Vec<String>,
    /// Titles of items that findings could answer and none does.
    pub not_measured: Vec<&'static str>,
}

/// How far an item is answered by measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Measured(usize),
    Untrusted,
    NotApplicable,
    NotMeasured,
    ByPeople,
}

impl State {
    fn of(item: &Item, findings: &[&(&Finding, Span)]) -> Self {
        let has = |v: &[Verdict]| findings.iter().filter(|f| v.contains(&f.0.verdict)).count();
        match has(&[Verdict::Pass, Verdict::Concern]) {
            _ if item.answers.is_empty() => Self::ByPeople,
            n if n > 0 => Self::Measured(n),
            _ if has(&[Verdict::Inconclusive, Verdict::Failed]) > 0 => Self::Untrusted,
            _ if findings.is_empty() => Self::NotMeasured,
            _ => Self::NotApplicable,
        }
    }

    fn words(self) -> String {
        match self {
            Self::Measured(1) => "measured: 1 finding".into(),
            Self::Measured(n) => format!("measured: {n} findings"),
            Self::Untrusted => "looked at, without a result that can be relied on".into(),
            Self::NotApplicable => "does not apply to this network or these data".into(),
            Self::NotMeasured => "not measured".into(),
            Self::ByPeople => "for people to write".into(),
        }
    }
}

/// The annex for technical documentation. Parts that people wrote into `previous` are kept.
///
/// # Guarantees
/// The same document and the same previous version give the same bytes. Every finding stands under at least one item
/// and is named by its id; an item without a finding says so.
/// # Errors
/// The marks in `previous` are broken; or, without `overwrite`, something outside them was changed.
pub fn annex(document: &AuditDocument, previous: Option<&str>, overwrite: bool) -> Result<Annex, ReportError> {
    let mut kept = Kept::read(previous, overwrite)?;
    let all = references(document);
    let mut out = Prose::default();
    let model = meta::name(&document.model).unwrap_or_else(|| "unnamed model".into());
    out.heading(1, format!("Technical documentation annex: {model}"));
    out.paragraph([sentence(document)]);
    out.paragraph([
        "This annex maps the findings of an audit to the evidence that the EU AI Act (Annex IV, Articles 10, 13 and 15), \
         the NIST AI Risk Management Framework, ISO/IEC 42001 and SR 26-2 ask for. Measured means that a finding speaks to \
         an item; it does not mean that a requirement is met, which is for people to judge. What was not measured is said \
         to be not measured. Requirements are told in our words; the texts themselves decide.",
    ]);
    out.heading(2, "What was measured");
    let mut rows: Vec<Vec<Line>> = facts(&document.model).into_iter().map(|r| named("Model", r)).collect();
    rows.extend(facts(&document.data).into_iter().map(|r| named("Data", r)));
    let mut run = |name: &str, span: Span| rows.push(vec![vec!["Audit".into()], vec![name.into()], vec![span]]);
    run("digest (SHA-256)", Span::Code(document.digest.clone()));
    run("tool", document.tool.clone().into());
    run("seed", document.seed.to_string().into());
    if !document.clock.started.is_empty() {
        run("started", date(&document.clock.started).into());
    }
    out.table(&["Of", "Fact", "Value"], rows);

    let answers: Vec<Vec<&(&Finding, Span)>> = ITEMS
        .iter()
        .map(|item| all.iter().filter(|(f, _)| item.answers.iter().any(|a| a.holds(f))).collect())
        .collect();
    let states: Vec<State> = ITEMS.iter().zip(&answers).map(|(i, f)| State::of(i, f)).collect();
    out.heading(2, "Coverage");
    let coverage = ITEMS.iter().zip(&states).zip(&answers).map(|((item, state), findings)| {
        let worst = findings.iter().map(|f| Badge::of(f.0)).min();
        let state = match (state, worst) {
            (State::Measured(_), Some(b)) => format!("{}; worst: {}", state.words(), b.word().to_lowercase()),
            _ => state.words(),
        };
        let mut row: Vec<Line> = vec![vec![item.title.into()], vec![state.into()]];
        row.extend(Rules::ALL.map(|r| -> Line {
            let clauses: Vec<&str> =
                item.clauses.iter().filter(|c| c.0 == r).flat_map(|c| c.1.iter().copied()).collect();
            vec![if clauses.is_empty() { "–".into() } else { clauses.join(", ").into() }]
        }));
        row
    });
    let head: Vec<&str> = ["Evidence", "State"].into_iter().chain(Rules::ALL.map(Rules::name)).collect();
    out.table(&head, coverage.collect());

    for ((item, state), findings) in ITEMS.iter().zip(&states).zip(&answers) {
        out.heading(2, item.title);
        let clauses: Vec<String> =
            item.clauses.iter().map(|(r, at)| format!("{}: {}", r.name(), at.join(", "))).collect();
        out.paragraph([Span::Strong("Asked for.".into()), format!(" {} ({})", item.asks, clauses.join("; ")).into()]);
        if *state != State::ByPeople {
            let words = state.words();
            let mut first = words.chars();
            let sentence = first.next().map(|c| c.to_uppercase().collect::<String>() + first.as_str());
            let why = if findings.is_empty() { " No finding of this audit answers this item." } else { "" };
            out.paragraph([Span::Strong(format!("{}.", sentence.unwrap_or_default())), why.into()]);
        }
        out.list(findings.iter().take(200).map(|(f, r)| statement(f, r)).collect());
        if findings.len() > 200 {
            out.paragraph([format!("Listed: 200 of {} findings; all are in audit.json.", findings.len())]);
        }
        if let Some(prompt) = item.person {
            out.person(kept.part(item.id, prompt));
        }
    }
    limits(document, &all, &mut out);
    index(&all, &mut out);
    crate::card::leftover(kept, &mut out);
    out.heading(2, "Sources of the mapping");
    out.list(
        [
            "Regulation (EU) 2024/1689 of 13 June 2024 (Artificial Intelligence Act): Articles 10, 13, 15, Annex IV.",
            "NIST AI 100-1, Artificial Intelligence Risk Management Framework 1.0, January 2023: functions GOVERN, MAP, \
             MEASURE, MANAGE.",
            "ISO/IEC 42001:2023, Annex A: numbers of controls; SR 26-2: terms.",
        ]
        .map(|s| vec![s.into()])
        .into(),
    );
    let not_measured =
        ITEMS.iter().zip(&states).filter(|(_, s)| **s == State::NotMeasured).map(|(i, _)| i.title).collect();
    Ok(Annex {
        markdown: seal(&text(&out)),
        html: page(&out, &format!("Technical documentation annex: {model}")),
        unfinished: out.unfinished(),
        not_measured,
    })
}

fn named(of: &str, mut row: Vec<Line>) -> Vec<Line> {
    row.insert(0, vec![of.into()]);
    row
}

/// What limits the trust in the figures, in the words of the findings.
fn limits(document: &AuditDocument, all: &[(&Finding, Span)], out: &mut Prose) {
    out.heading(2, "What limits these figures");
    let mut lines: Vec<Line> = document
        .policy_violations
        .iter()
        .take(100)
        .map(|v| vec![Span::Strong("Policy broken".into()), format!(". {v}").into()])
        .collect();
    for (f, r) in all {
        lines.extend(f.caveats.iter().take(10).map(|c| vec![format!("{c} Finding ").into(), r.clone()]));
    }
    if lines.is_empty() {
        out.paragraph(["No finding names a limit of its own."]);
    }
    lines.truncate(300);
    out.list(lines);
}

/// Each finding with the items and the clauses it is evidence for.
fn index(all: &[(&Finding, Span)], out: &mut Prose) {
    out.heading(2, "Findings and clauses");
    if all.is_empty() {
        out.paragraph(["This audit has no findings."]);
        return;
    }
    let rows = all.iter().take(1000).map(|(f, r)| -> Vec<Line> {
        let items: Vec<&Item> = ITEMS.iter().filter(|i| i.answers.iter().any(|a| a.holds(f))).collect();
        let clauses = |rules: Rules| -> Line {
            let mut all: Vec<&str> = items
                .iter()
                .flat_map(|i| i.clauses.iter().filter(|c| c.0 == rules).flat_map(|c| c.1.iter().copied()))
                .collect();
            let mut seen = std::collections::BTreeSet::new();
            all.retain(|c| seen.insert(*c));
            vec![if all.is_empty() { "–".into() } else { all.join(", ").into() }]
        };
        vec![
            vec![r.clone()],
            vec![Badge::of(f).word().into()],
            clauses(Rules::AiAct),
            clauses(Rules::Nist),
            clauses(Rules::Iso42001),
        ]
    });
    out.table(&["Finding", "Verdict", "EU AI Act", "NIST AI RMF", "ISO/IEC 42001"], rows.collect());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use netproof_core::Challenge;

    use super::*;

    #[test]
    fn every_challenge_is_evidence_for_something() {
        for c in Challenge::ALL {
            let answered = ITEMS.iter().flat_map(|i| i.answers).any(|a| matches!(a, table::Answer::All(x) if *x == c));
            assert!(answered, "{c:?}");
        }
    }

    #[test]
    fn items_are_told_apart_and_lead_to_rules_and_to_someone_who_answers() {
        let ids: BTreeSet<&str> = ITEMS.iter().map(|i| i.id).collect();
        assert_eq!(ids.len(), ITEMS.len());
        for i in ITEMS {
            assert!(i.person.is_some() || !i.answers.is_empty(), "{}", i.id);
            assert!(i.clauses.iter().any(|c| c.0 == Rules::AiAct && !c.1.is_empty()), "{}", i.id);
            assert!(i.clauses.is_sorted_by_key(|c| c.0), "{}", i.id);
        }
        let act: Vec<&str> = ITEMS
            .iter()
            .flat_map(|i| i.clauses)
            .filter(|c| c.0 == Rules::AiAct)
            .flat_map(|c| c.1.iter().copied())
            .collect();
        for n in 1..=9 {
            assert!(act.iter().any(|c| c.starts_with(&format!("Annex IV {n}"))), "Annex IV {n}");
        }
        for article in ["Article 10", "Article 13", "Article 15"] {
            assert!(act.iter().any(|c| c.starts_with(article)), "{article}");
        }
    }
}
