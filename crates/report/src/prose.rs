//! Documents made of blocks, written as Markdown and as HTML; all escaping of text happens in the two writers.
//!
//! A part that a person writes lies between two lines that mark it. It stays visibly unfinished until somebody has written
//! it, and what was written is kept when the document is made again.

mod html;
mod markdown;
mod person;

use netproof_core::{AuditDocument, Finding};

use crate::badge::Badge;
use crate::html::anchors;
use crate::number::{count, measure, plain};

pub(crate) use html::page;
pub(crate) use markdown::{seal, text, yaml};
pub(crate) use person::{Kept, Person};

/// A piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Span {
    Text(String),
    Strong(String),
    Code(String),
    Link { code: String, href: String },
}

impl From<&str> for Span {
    fn from(s: &str) -> Self {
        Self::Text(s.into())
    }
}
impl From<String> for Span {
    fn from(s: String) -> Self {
        Self::Text(s)
    }
}

/// A line of running text.
pub(crate) type Line = Vec<Span>;

/// A part of a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Block {
    /// Level 1 is the document's title.
    Heading(usize, String),
    Paragraph(Line),
    List(Vec<Line>),
    Table(Vec<String>, Vec<Vec<Line>>),
    Command(String),
    Person(Person),
}

/// A document in the making.
#[derive(Debug, Default)]
pub(crate) struct Prose {
    pub(crate) blocks: Vec<Block>,
}

impl Prose {
    pub(crate) fn heading(&mut self, level: usize, text: impl Into<String>) {
        self.blocks.push(Block::Heading(level, text.into()));
    }

    pub(crate) fn paragraph(&mut self, line: impl IntoIterator<Item = impl Into<Span>>) {
        self.blocks.push(Block::Paragraph(line.into_iter().map(Into::into).collect()));
    }

    pub(crate) fn list(&mut self, lines: Vec<Line>) {
        if !lines.is_empty() {
            self.blocks.push(Block::List(lines));
        }
    }

    pub(crate) fn table(&mut self, head: &[&str], rows: Vec<Vec<Line>>) {
        self.blocks.push(Block::Table(head.iter().map(|h| (*h).to_owned()).collect(), rows));
    }

    pub(crate) fn person(&mut self, person: Person) {
        self.blocks.push(Block::Person(person));
    }

    /// Titles of the parts that no person has written yet.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let people = self.blocks.iter().filter_map(|b| match b {
            Block::Person(p) => Some(p),
            _ => None,
        });
        people.filter(|p| !p.finished()).map(|p| p.id.clone()).collect()
    }
}

/// Findings of a document with where they stand in `report.html`.
pub(crate) fn references(document: &AuditDocument) -> Vec<(&Finding, Span)> {
    let link = |(f, anchor): (_, String)| -> (&Finding, Span) {
        let f: &Finding = f;
        (f, Span::Link { code: f.id.clone(), href: format!("report.html#{anchor}") })
    };
    anchors(document).into_iter().map(link).collect()
}

/// The figure of a finding with interval, n and limit as one phrase; empty where nothing was measured.
pub(crate) fn figure(f: &Finding) -> String {
    let Some(m) = measure(f) else { return f.n.map_or_else(String::new, |n| format!("n = {}", count(n))) };
    let unit = if m.unit.is_empty() { String::new() } else { format!(" {}", m.unit) };
    let mut out = format!("{} = {}{unit}", f.metric.as_deref().unwrap_or("value"), m.value);
    if let (Some((low, high)), Some(i)) = (m.interval, &f.interval) {
        out += &format!(" ({} % interval {low} to {high}, {})", plain((i.level * 1e4).round() / 100.0), i.method);
    }
    if let Some(n) = f.n {
        out += &format!(", n = {}", count(n));
    }
    if let (Some(limit), Some(t)) = (crate::number::limit(f), &f.threshold) {
        let side = match t.comparison {
            netproof_core::Comparison::AtLeast => "at least",
            netproof_core::Comparison::AtMost => "at most",
        };
        out += &format!("; limit {side} {limit} ({})", t.source);
    }
    out
}

/// What a finding says in one line, with its verdict first and the finding that says it last.
pub(crate) fn statement(f: &Finding, reference: &Span) -> Line {
    let figure = figure(f);
    let tail = if figure.is_empty() { String::new() } else { format!(": {figure}") };
    let dot = if tail.is_empty() && f.title.ends_with('.') { "" } else { "." };
    vec![
        Span::Strong(Badge::of(f).word().into()),
        format!(". {}{tail}{dot} Finding ", f.title).into(),
        reference.clone(),
    ]
}

/// Facts about the model or the data as rows of a table.
pub(crate) fn facts(map: &std::collections::BTreeMap<String, serde_json::Value>) -> Vec<Vec<Line>> {
    let row = |(k, v): (&String, &serde_json::Value)| {
        let text = crate::meta::value(v);
        let value = if text.len() == 64 { Span::Code(text) } else { Span::Text(text) };
        vec![vec![crate::meta::key(k).into()], vec![value]]
    };
    map.iter().take(60).map(row).collect()
}
