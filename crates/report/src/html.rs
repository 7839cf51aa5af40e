//! The page: one file that needs no network and no script, made to be read, printed and cited.

mod evidence;
mod finding;
mod gallery;

use std::collections::{BTreeMap, BTreeSet};

use netproof_core::{AuditDocument, Card, Challenge, Comparison, Finding};

use crate::badge::{Badge, sentence, tally};
use crate::escape::{html as esc, shorten, slug};
use crate::number::{count, limit, measure, seconds};
use crate::{csp, meta};

pub(crate) const STYLE: &str = include_str!("style.css");

/// Longest explanation, caveat or violation that is shown whole, in characters.
pub(crate) const LONG: usize = 8000;
/// Longest name in a heading or a cell.
pub(crate) const SHORT: usize = 300;
/// Smallest bound of the page: everything but the findings fits into it, however long the user's texts are.
const LEAST: usize = 3 << 20;

/// Most bytes of pictures to hand to a page of the usual size; embedded they take a third more.
pub const PICTURE_BYTES: usize = 2_400_000;

/// What the page needs beyond the document.
#[derive(Debug, Clone)]
pub struct HtmlOptions {
    /// The command that repeats the audit, as typed.
    pub command: Option<String>,
    /// Bytes of the pictures that findings name, by their path; PNG and JPEG are embedded, others only named.
    pub images: BTreeMap<String, Vec<u8>>,
    /// Most rows of one table; the rest is in `audit.json`, and the page says so.
    pub max_table_rows: usize,
    /// Most bytes of the page. What does not fit is left out with a sentence; at least 3 MiB.
    pub max_bytes: usize,
}

impl Default for HtmlOptions {
    fn default() -> Self {
        Self { command: None, images: BTreeMap::new(), max_table_rows: 100, max_bytes: 5_000_000 }
    }
}

/// Findings with their anchors, and everything else that the parts of the page share.
pub(crate) struct Page<'a> {
    pub(crate) document: &'a AuditDocument,
    pub(crate) cards: &'a [Card],
    pub(crate) options: &'a HtmlOptions,
    /// Findings in document order with their anchors; clocked ones last.
    findings: Vec<(&'a Finding, String)>,
    /// How many of `findings` are reproducible.
    reproducible: usize,
}

/// The report as one HTML file.
///
/// # Guarantees
/// No script, nothing loaded from elsewhere, at most `max_bytes`; all text of users is escaped.
/// The same document gives the same bytes.
pub fn render_html(document: &AuditDocument, cards: &[Card], options: &HtmlOptions) -> String {
    let page = Page::new(document, cards, options);
    let budget = options.max_bytes.max(LEAST);
    let model = meta::name(&document.model).unwrap_or_else(|| "unnamed model".into());
    let mut out = String::with_capacity(200_000);
    out.push_str(&format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"{}\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta \
         name=\"color-scheme\" content=\"light dark\">\n<title>Audit of {}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#findings\">Skip to the findings</a>\n{}\n",
        csp::policy(STYLE),
        esc(&shorten(&model, 120)),
        Badge::symbols()
    ));
    page.header(&mut out, &model);
    out.push_str("<main>\n");
    page.tiles(&mut out);
    page.violations(&mut out);
    page.table(&mut out, budget / 4);
    // What follows the findings is written first, so that the findings get exactly the room that is left.
    let mut tail = String::new();
    page.glossary(&mut tail);
    page.reproduce(&mut tail);
    page.clock(&mut tail);
    tail.push_str(&format!(
        "</main>\n<footer><p>Made by {}. This page is complete in itself: it loads nothing and runs no script.</p></footer>\n\
         </body>\n</html>\n",
        esc(&shorten(&document.tool, SHORT))
    ));
    page.challenges(&mut out, budget.saturating_sub(tail.len() + 16_384));
    out.push_str(&tail);
    out
}

/// Findings in document order, clocked ones last, with their anchors on the page.
pub(crate) fn anchors(document: &AuditDocument) -> Vec<(&Finding, String)> {
    let mut used = BTreeSet::new();
    let anchor = |(i, f): (usize, _)| {
        let f: &Finding = f;
        let mut anchor = format!("f-{}", slug(&f.id));
        if !used.insert(anchor.clone()) {
            anchor = format!("{anchor}--{}", i + 1);
            used.insert(anchor.clone());
        }
        (f, anchor)
    };
    document.all_findings().enumerate().map(anchor).collect()
}

impl<'a> Page<'a> {
    fn new(document: &'a AuditDocument, cards: &'a [Card], options: &'a HtmlOptions) -> Self {
        let findings = anchors(document);
        Self { document, cards, options, findings, reproducible: document.findings.len() }
    }

    pub(crate) fn card(&self, id: &str) -> Option<&'a Card> {
        self.cards.iter().find(|c| c.id == id)
    }

    fn header(&self, out: &mut String, model: &str) {
        let d = self.document;
        out.push_str(&format!(
            "<header>\n<p class=\"kicker\">Network audit</p>\n<h1><bdi>{}</bdi></h1>\n<p class=\"verdict\">{}</p>\n<dl class=\"facts\">",
            esc(&shorten(model, SHORT)),
            esc(&sentence(d))
        ));
        let mut fact = |name: &str, value: Option<String>, class: &str| {
            if let Some(v) = value.filter(|v| !v.is_empty()) {
                out.push_str(&format!(
                    "<div class=\"{class}\"><dt>{name}</dt><dd><bdi>{}</bdi></dd></div>",
                    esc(&shorten(&v, SHORT))
                ));
            }
        };
        fact("Data", meta::name(&d.data), "");
        fact("Rows", meta::rows(&d.data), "");
        fact("Date", Some(date(&d.clock.started)), "");
        fact("Tool", Some(d.tool.clone()), "");
        fact("Seed", Some(d.seed.to_string()), "");
        fact("Digest of this audit (SHA-256)", Some(d.digest.clone()), "hash");
        out.push_str("</dl>\n</header>\n");
    }

    fn tiles(&self, out: &mut String) {
        out.push_str(
            "<section aria-labelledby=\"overview\">\n<h2 id=\"overview\">Nine challenges</h2>\n<ul class=\"tiles\">\n",
        );
        for c in Challenge::ALL {
            let findings: Vec<&(&Finding, String)> = self.findings.iter().filter(|(f, _)| f.challenge == c).collect();
            let badge = Badge::of_challenge(c, findings.iter().map(|f| f.0));
            let title = if findings.is_empty() {
                c.title().to_owned()
            } else {
                format!("<a href=\"#c-{}\">{}</a>", c.id(), c.title())
            };
            out.push_str(&format!("<li class=\"tile t-{}\"><h3>{title}</h3>{}", badge.class(), badge.html()));
            // The first finding of the challenge's own verdict speaks for it, if it has a figure.
            let lead = findings.iter().find(|f| measure(f.0).is_some() && Badge::of(f.0) == badge);
            if let Some((f, m)) = lead.and_then(|f| measure(f.0).map(|m| (f.0, m))) {
                let unit = if m.unit.is_empty() { String::new() } else { format!(" {}", esc(&shorten(&m.unit, 40))) };
                out.push_str(&format!(
                    "<p class=\"lead\"><span class=\"num\">{}{unit}</span> <bdi>{}</bdi></p>",
                    m.value,
                    esc(&shorten(f.metric.as_deref().unwrap_or(&f.title), 60))
                ));
            }
            let counts: Vec<String> = tally(findings.iter().map(|f| f.0))
                .into_iter()
                .map(|(b, n)| {
                    let plural = if b == Badge::Concern && n > 1 { "s" } else { "" };
                    format!("{} {}{plural}", count(n as u64), b.word().to_lowercase())
                })
                .collect();
            if findings.len() > 1 {
                out.push_str(&format!("<p class=\"tally\">{}</p>", counts.join(", ")));
            }
            out.push_str("</li>\n");
        }
        out.push_str("</ul>\n<dl class=\"key\">");
        for b in Badge::ALL {
            out.push_str(&format!("<div><dt>{}</dt><dd>{}</dd></div>", b.html(), b.meaning()));
        }
        out.push_str("</dl>\n</section>\n");
    }

    fn violations(&self, out: &mut String) {
        let all = &self.document.policy_violations;
        if all.is_empty() {
            return;
        }
        out.push_str("<section class=\"violations\" aria-labelledby=\"policy\">\n<h2 id=\"policy\">The policy is broken</h2>\n<ul>\n");
        for v in all.iter().take(50) {
            out.push_str(&format!("<li>{}</li>\n", esc(&shorten(v, 600))));
        }
        out.push_str("</ul>\n");
        if all.len() > 50 {
            out.push_str(&format!(
                "<p class=\"note\">Shown: 50 of {}; all are in audit.json.</p>\n",
                count(all.len() as u64)
            ));
        }
        out.push_str("</section>\n");
    }

    fn table(&self, out: &mut String, budget: usize) {
        out.push_str("<section aria-labelledby=\"findings\">\n<h2 id=\"findings\" tabindex=\"-1\">Findings</h2>\n");
        if self.findings.is_empty() {
            out.push_str("<p>There are no findings.</p>\n</section>\n");
            return;
        }
        out.push_str(
            "<p class=\"note\">Worst first. Intervals stand below their values.</p>\n<table class=\"findings\" role=\"table\">\n\
             <caption class=\"hidden\">All findings, worst first</caption>\n<thead role=\"rowgroup\"><tr role=\"row\">\
             <th scope=\"col\" role=\"columnheader\">Verdict</th><th scope=\"col\" role=\"columnheader\">Finding</th>\
             <th scope=\"col\" role=\"columnheader\" class=\"r\">Value</th><th scope=\"col\" role=\"columnheader\">Limit</th>\
             <th scope=\"col\" role=\"columnheader\" class=\"r\">n</th></tr></thead>\n<tbody role=\"rowgroup\">\n",
        );
        let mut order: Vec<&(&Finding, String)> = self.findings.iter().collect();
        order.sort_by_key(|f| Badge::of(f.0));
        let end = out.len() + budget;
        let mut shown = 0;
        for (f, anchor) in &order {
            let row = row(f, anchor);
            if out.len() + row.len() > end {
                break;
            }
            out.push_str(&row);
            shown += 1;
        }
        out.push_str("</tbody>\n</table>\n");
        if shown < order.len() {
            out.push_str(&format!(
                "<p class=\"note\">Shown: the worst {} of {} findings; all are in audit.json.</p>\n",
                count(shown as u64),
                count(order.len() as u64)
            ));
        }
        out.push_str("</section>\n");
    }

    fn challenges(&self, out: &mut String, end: usize) {
        let mut plots = 0;
        for c in Challenge::ALL {
            let findings: Vec<(usize, &(&Finding, String))> =
                self.findings.iter().enumerate().filter(|(_, (f, _))| f.challenge == c).collect();
            if findings.is_empty() {
                continue;
            }
            let badge = Badge::of_challenge(c, findings.iter().map(|f| f.1.0));
            out.push_str(&format!(
                "<section class=\"challenge\" aria-labelledby=\"c-{0}\">\n<div class=\"head\"><h2 id=\"c-{0}\">{1}</h2>{2}</div>\n",
                c.id(),
                c.title(),
                badge.html()
            ));
            let mut left_out = 0u64;
            for (i, (f, anchor)) in findings {
                let clocked = i >= self.reproducible;
                let full = finding::render(self, f, anchor, clocked, true, &mut plots);
                if out.len() + full.len() <= end {
                    out.push_str(&full);
                    continue;
                }
                let short = finding::render(self, f, anchor, clocked, false, &mut plots);
                if out.len() + short.len() <= end {
                    out.push_str(&short);
                } else {
                    left_out += 1;
                }
            }
            if left_out > 0 {
                out.push_str(&format!(
                    "<p class=\"note\">{} more findings are left out so that this page stays small; they are in audit.json.</p>\n",
                    count(left_out)
                ));
            }
            out.push_str("</section>\n");
        }
    }

    fn glossary(&self, out: &mut String) {
        let used: BTreeSet<&str> = self
            .findings
            .iter()
            .flat_map(|(f, _)| std::iter::once(f.check.as_str()).chain(f.remedies.iter().map(String::as_str)))
            .collect();
        let cards: Vec<&Card> = self.cards.iter().filter(|c| used.contains(c.id)).take(300).collect();
        if cards.is_empty() {
            return;
        }
        out.push_str(
            "<section aria-labelledby=\"glossary\">\n<h2 id=\"glossary\">Methods</h2>\n<dl class=\"glossary\">\n",
        );
        for c in cards {
            out.push_str(&format!(
                "<div id=\"m-{}\"><dt>{} <span class=\"id\">{} {}</span></dt><dd>{}</dd><dd class=\"ref\">{}</dd></div>\n",
                slug(c.id),
                esc(c.title),
                c.kind.name(),
                esc(c.id),
                esc(c.measures),
                esc(c.reference)
            ));
        }
        out.push_str("</dl>\n</section>\n");
    }

    fn reproduce(&self, out: &mut String) {
        let d = self.document;
        out.push_str("<section aria-labelledby=\"reproduce\">\n<h2 id=\"reproduce\">How to reproduce</h2>\n");
        if let Some(command) = &self.options.command {
            out.push_str(&format!("<pre tabindex=\"0\"><code>{}</code></pre>\n", esc(&shorten(command, 4000))));
        }
        out.push_str(
            "<p>The same model, data, options and seed give the same <code>audit.json</code>, byte for byte, apart from its \
             <code>clock</code> section. The digest is the SHA-256 of that file without <code>digest</code> and \
             <code>clock</code>, as compact JSON.</p>\n<dl class=\"facts wide\">",
        );
        let mut fact = |name: &str, value: &str, class: &str| {
            out.push_str(&format!(
                "<div class=\"{class}\"><dt>{name}</dt><dd><bdi>{}</bdi></dd></div>",
                esc(&shorten(value, SHORT))
            ));
        };
        fact("Digest (SHA-256)", if d.digest.is_empty() { "none" } else { &d.digest }, "hash");
        fact("Schema", &d.schema, "");
        fact("Tool", &d.tool, "");
        fact("Seed", &d.seed.to_string(), "");
        let every = |pick: fn(&Finding) -> &str| -> Vec<&str> {
            let all: BTreeSet<&str> = self.findings.iter().map(|f| pick(f.0)).filter(|s| !s.is_empty()).collect();
            all.into_iter().take(8).collect()
        };
        for v in every(|f| &f.provenance.device) {
            fact("Device", v, "");
        }
        for v in every(|f| &f.provenance.model) {
            fact("Model measured (SHA-256)", v, "hash");
        }
        for v in every(|f| &f.provenance.data) {
            fact("Data measured (SHA-256)", v, "hash");
        }
        out.push_str("</dl>\n");
        for (title, map) in [("Model", &d.model), ("Data", &d.data)] {
            if map.is_empty() {
                continue;
            }
            out.push_str(&format!("<h3>{title}</h3>\n<dl class=\"facts wide\">"));
            for (k, v) in map.iter().take(60) {
                let text = meta::value(v);
                let class = if text.chars().count() > 40 { "hash" } else { "" };
                let class = if k.len() > 60 { "hash" } else { class };
                out.push_str(&format!(
                    "<div class=\"{class}\"><dt><bdi>{}</bdi></dt><dd><bdi>{}</bdi></dd></div>",
                    esc(&shorten(&meta::key(k), 120)),
                    esc(&shorten(&text, 600))
                ));
            }
            out.push_str("</dl>\n");
        }
        self.versions(out);
        out.push_str("</section>\n");
    }

    /// Version and options of each check.
    fn versions(&self, out: &mut String) {
        let all: BTreeSet<(&str, u32, &str, u64)> = self
            .findings
            .iter()
            .map(|(f, _)| (f.check.as_str(), f.provenance.version, f.provenance.options.as_str(), f.provenance.seed))
            .collect();
        if all.is_empty() {
            return;
        }
        out.push_str(
            "<h3>Checks</h3>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Versions of the checks\"><table>\n\
             <thead><tr><th scope=\"col\">Check</th><th scope=\"col\" class=\"r\">Version</th><th scope=\"col\" \
             class=\"r\">Seed</th><th scope=\"col\">Options (SHA-256)</th></tr></thead>\n<tbody>\n",
        );
        for (check, version, options, seed) in all.iter().take(200) {
            out.push_str(&format!(
                "<tr><th scope=\"row\">{}</th><td class=\"r\">{version}</td><td class=\"r\">{seed}</td><td class=\"mono\">{}</td></tr>\n",
                esc(&shorten(check, 120)),
                esc(&shorten(options, 80))
            ));
        }
        out.push_str("</tbody>\n</table></div>\n");
    }

    fn clock(&self, out: &mut String) {
        let c = &self.document.clock;
        if c.started.is_empty() && c.seconds.is_empty() && c.reused.is_empty() && c.findings.is_empty() {
            return;
        }
        out.push_str(
            "<section aria-labelledby=\"clock\">\n<h2 id=\"clock\">Clock and meters</h2>\n<p>Nothing in this section is part of \
             the digest: a second run will give other numbers.</p>\n",
        );
        if !c.started.is_empty() {
            out.push_str(&format!("<p>Started {}.</p>\n", esc(&shorten(&date(&c.started), 80))));
        }
        if !c.findings.is_empty() {
            out.push_str("<p>Findings read from a clock or a meter: ");
            let shown = self.findings.iter().skip(self.reproducible).take(50);
            let links: Vec<String> = shown
                .map(|(f, a)| format!("<a href=\"#{a}\"><bdi>{}</bdi></a>", esc(&shorten(&f.title, 120))))
                .collect();
            out.push_str(&format!("{}.</p>\n", links.join(", ")));
        }
        if !c.seconds.is_empty() {
            out.push_str(
                "<table class=\"narrow\">\n<caption>Time by check</caption>\n<thead><tr><th scope=\"col\">Check</th><th \
                 scope=\"col\" class=\"r\">Time</th></tr></thead>\n<tbody>\n",
            );
            for (check, s) in c.seconds.iter().take(200) {
                let reused = if c.reused.contains(check) { " (from an earlier run)" } else { "" };
                out.push_str(&format!(
                    "<tr><th scope=\"row\">{}{reused}</th><td class=\"r\">{}</td></tr>\n",
                    esc(&shorten(check, 120)),
                    seconds(*s)
                ));
            }
            out.push_str("</tbody>\n</table>\n");
        }
        let only_reused: Vec<String> = c
            .reused
            .iter()
            .filter(|r| !c.seconds.contains_key(*r))
            .take(200)
            .map(|r| format!("<code>{}</code>", esc(&shorten(r, 120))))
            .collect();
        if !only_reused.is_empty() {
            out.push_str(&format!("<p>Taken from an earlier run: {}.</p>\n", only_reused.join(", ")));
        }
        out.push_str("</section>\n");
    }
}

/// A limit with its side, as `≥ 0.9`.
pub(crate) fn limit_text(f: &Finding) -> Option<String> {
    let side = match f.threshold.as_ref()?.comparison {
        Comparison::AtLeast => "≥",
        Comparison::AtMost => "≤",
    };
    limit(f).map(|l| format!("{side} {}", esc(&shorten(&l, 60))))
}

fn row(f: &Finding, anchor: &str) -> String {
    let value = measure(f).map_or_else(
        || "<span class=\"none\">–</span>".into(),
        |m| {
            let unit = if m.unit.is_empty() { String::new() } else { format!(" {}", esc(&shorten(&m.unit, 40))) };
            let interval =
                m.interval.map_or_else(String::new, |(a, b)| format!("<span class=\"ci\">{a} to {b}</span>"));
            format!("<span class=\"num\">{}{unit}</span>{interval}", m.value)
        },
    );
    let limit = limit_text(f).map_or_else(
        || "<span class=\"none\">none</span>".into(),
        |l| {
            let source = f.threshold.as_ref().map_or("", |t| t.source.as_str());
            format!("<span class=\"num\">{l}</span><span class=\"src\">{}</span>", esc(&shorten(source, 120)))
        },
    );
    format!(
        "<tr role=\"row\"><td role=\"cell\" class=\"c-v\">{}</td><td role=\"cell\" class=\"c-f\"><a href=\"#{anchor}\"><bdi>{}</bdi></a>\
         <span class=\"id\">{}</span></td><td role=\"cell\" class=\"r c-x\">{value}</td><td role=\"cell\" class=\"c-l\">{limit}</td>\
         <td role=\"cell\" class=\"r c-n\">{}</td></tr>\n",
        Badge::of(f).html(),
        esc(&shorten(&f.title, SHORT)),
        esc(&shorten(&f.id, 120)),
        f.n.map_or_else(|| "<span class=\"none\">–</span>".into(), count)
    )
}

/// An RFC 3339 time as people write it; anything else stays as it is.
pub(crate) fn date(started: &str) -> String {
    match (started.get(..10), started.get(10..11), started.get(11..16)) {
        (Some(day), Some("T"), Some(time)) if started.ends_with('Z') => format!("{day} {time} UTC"),
        _ => started.to_owned(),
    }
}
