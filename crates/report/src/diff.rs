//! Two audits side by side: for a terminal, and as a page.

use netproof_core::{AuditDiff, AuditDocument, Change, Finding, FindingDiff};

use crate::badge::Badge;
use crate::csp;
use crate::escape::{html as esc, shorten, terminal};
use crate::html::{STYLE, date};
use crate::number::{count, decimals, fixed, measure, plain};
use crate::plot::dumbbell;

/// Most findings on the page and in the terminal.
const SHOWN: usize = 1000;

/// Which way the reader is told that a finding changed.
fn sign(c: Change) -> &'static str {
    match c {
        Change::Worse => "▼",
        Change::Better => "▲",
        Change::Lost => "?",
        Change::Disappeared => "−",
        Change::Appeared => "+",
        Change::Changed => "≠",
        Change::WithinNoise => "≈",
        Change::Same => "=",
    }
}

fn class(c: Change) -> &'static str {
    match c {
        Change::Worse => "concern",
        Change::Better => "pass",
        Change::Lost | Change::Disappeared => "inconclusive",
        Change::Changed | Change::Appeared => "measured",
        Change::WithinNoise | Change::Same => "na",
    }
}

/// Counts in words, worst first.
fn counts(diff: &AuditDiff) -> String {
    let some: Vec<String> = Change::ALL
        .into_iter()
        .map(|c| (c, diff.count(c)))
        .filter(|(_, n)| *n > 0)
        .map(|(c, n)| format!("{} {}", count(n as u64), c.name()))
        .collect();
    if some.is_empty() { "no findings to compare".into() } else { some.join(", ") }
}

/// The result in one sentence.
fn verdict(diff: &AuditDiff) -> String {
    match diff.count(Change::Worse) {
        0 if diff.findings.is_empty() => "There is nothing to compare.".into(),
        0 => "Nothing became worse beyond noise.".into(),
        1 => "One finding became worse.".into(),
        n => format!("{} findings became worse.", count(n as u64)),
    }
}

/// `0.9 → 0.85, −0.05 [−0.079, −0.021]`.
fn figure(f: &FindingDiff) -> String {
    let Some(d) = &f.difference else { return String::new() };
    let digits =
        |v: f64, half: f64| if half > 1e-6 && half < 1e6 { fixed(v, decimals(half, 2).min(6)) } else { plain(v) };
    let signed = |v: f64, text: String| if v > 0.0 { format!("+{text}") } else { text };
    let mut out = format!("{} → {}", plain(d.before), plain(d.after));
    if d.value == 0.0 {
        return out;
    }
    match &d.interval {
        Some(i) => {
            let half = (i.high - i.low) / 2.0;
            let write = |v: f64| signed(v, digits(v, half));
            out += &format!(", {} [{}, {}]", write(d.value), write(i.low), write(i.high));
        }
        None => out += &format!(", {}", signed(d.value, plain(d.value))),
    }
    out
}

/// The comparison for a terminal: what differs between the audits, then the findings that changed, worst first.
pub fn diff_text(diff: &AuditDiff) -> String {
    let mut out = format!("{} {}.\n", verdict(diff), capital(&counts(diff)));
    for c in &diff.changed {
        let side = |s: &str| if s.is_empty() { "none".into() } else { terminal(&shorten(s, 64)) };
        out += &format!("  {}: {} → {}\n", terminal(&c.what), side(&c.before), side(&c.after));
    }
    for c in &diff.caveats {
        out += &format!("  {}\n", terminal(c));
    }
    for change in Change::ALL {
        if change == Change::Same {
            continue;
        }
        let these: Vec<&FindingDiff> = diff.findings.iter().filter(|f| f.change == change).collect();
        if these.is_empty() {
            continue;
        }
        out += &format!("\n{}\n", capital(change.name()));
        for f in these.iter().take(SHOWN) {
            let figure = figure(f);
            let tail = if figure.is_empty() { String::new() } else { format!(": {figure}") };
            out +=
                &format!("  {} {}{tail}\n    {}\n", sign(change), terminal(&shorten(&f.id, 200)), terminal(&f.reason));
        }
    }
    out
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().collect::<String>() + chars.as_str())
}

/// The comparison as one HTML page; `before` and `after` are the audits that it compares.
///
/// # Guarantees
/// No script, nothing loaded from elsewhere, all text escaped; the same input gives the same bytes.
pub fn render_diff(diff: &AuditDiff, before: &AuditDocument, after: &AuditDocument) -> String {
    let title = format!("{} → {}", name(&diff.before.model), name(&diff.after.model));
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"{}\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta \
         name=\"color-scheme\" content=\"light dark\">\n<title>Two audits: {1}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{2}\n\
         <header>\n<p class=\"kicker\">Two audits compared</p>\n<h1><bdi>{1}</bdi></h1>\n<p class=\"verdict\">{3} {4}.</p>\n",
        csp::policy(STYLE),
        esc(&shorten(&title, 200)),
        Badge::symbols(),
        verdict(diff),
        capital(&counts(diff))
    );
    sides(diff, &mut out);
    out += "</header>\n<main>\n";
    changed(diff, &mut out);
    let (old, new) = (by_id(before), by_id(after));
    out += "<section aria-labelledby=\"findings\">\n<h2 id=\"findings\">Findings</h2>\n";
    out += &format!(
        "<p class=\"note\">A change counts as more than noise at a level of {} % over all {} tests together (Holm). Hollow: \
         first audit; filled: second.</p>\n",
        plain((diff.level * 1e4).round() / 100.0),
        count(diff.tests)
    );
    let mut number = 0;
    for change in Change::ALL {
        let these: Vec<&FindingDiff> = diff.findings.iter().filter(|f| f.change == change).collect();
        if these.is_empty() {
            continue;
        }
        let body = |out: &mut String, number: &mut usize| {
            out.push_str("<table class=\"diff\">\n<thead><tr><th scope=\"col\">Finding</th><th scope=\"col\">First audit</th><th scope=\"col\">Second audit</th><th scope=\"col\">Difference</th></tr></thead>\n<tbody>\n");
            for f in these.iter().take(SHOWN) {
                *number += 1;
                row(f, old.get(f.id.as_str()).copied(), new.get(f.id.as_str()).copied(), *number, out);
            }
            out.push_str("</tbody>\n</table>\n");
        };
        let head = format!(
            "<span class=\"badge v-{}\"><span class=\"sgn\" aria-hidden=\"true\">{}</span>{}</span> <span class=\"tally\">{}</span>",
            class(change),
            sign(change),
            capital(change.name()),
            count(these.len() as u64)
        );
        if matches!(change, Change::Same | Change::WithinNoise) {
            out += &format!("<details class=\"group\"><summary>{head}</summary>\n");
            body(&mut out, &mut number);
            out += "</details>\n";
        } else {
            out += &format!("<h3 class=\"group\">{head}</h3>\n");
            body(&mut out, &mut number);
        }
        if these.len() > SHOWN {
            out += &format!(
                "<p class=\"note\">Shown: {SHOWN} of {}; all are in the JSON file.</p>\n",
                count(these.len() as u64)
            );
        }
    }
    out += "</section>\n</main>\n<footer><p>This page is complete in itself: it loads nothing and runs no script.</p></footer>\n</body>\n</html>\n";
    out
}

fn name(model: &str) -> &str {
    if model.is_empty() { "unnamed model" } else { model }
}

fn sides(diff: &AuditDiff, out: &mut String) {
    out.push_str("<div class=\"sides\">\n");
    for (title, s) in [("First audit", &diff.before), ("Second audit", &diff.after)] {
        out.push_str(&format!("<section><h2>{title}</h2>\n<dl class=\"meta\">"));
        let facts = [
            ("Model", s.model.clone()),
            ("Data", s.data.clone()),
            ("Date", date(&s.started)),
            ("Tool", s.tool.clone()),
            ("Findings", format!("{}, {} of concern", count(s.findings), count(s.concerns))),
            ("Digest", s.digest.clone()),
        ];
        for (key, value) in facts.iter().filter(|f| !f.1.is_empty()) {
            let class = if *key == "Digest" { " class=\"mono\"" } else { "" };
            out.push_str(&format!("<div><dt>{key}</dt><dd{class}><bdi>{}</bdi></dd></div>", esc(&shorten(value, 300))));
        }
        out.push_str("</dl></section>\n");
    }
    out.push_str("</div>\n");
}

fn changed(diff: &AuditDiff, out: &mut String) {
    out.push_str("<section aria-labelledby=\"changed\">\n<h2 id=\"changed\">What differs between the audits</h2>\n");
    if diff.changed.is_empty() {
        out.push_str("<p>Model, data, seed, tool, and the options and versions of all checks are the same.</p>\n");
    } else {
        out.push_str("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"What differs\"><table class=\"small\">\n<thead><tr><th scope=\"col\">What</th><th scope=\"col\">First audit</th><th scope=\"col\">Second audit</th></tr></thead>\n<tbody>\n");
        let cell =
            |s: &str| if s.is_empty() { "<span class=\"none\">none</span>".into() } else { esc(&shorten(s, 300)) };
        for c in diff.changed.iter().take(200) {
            let mono = if c.before.len().max(c.after.len()) > 60 { " class=\"mono\"" } else { "" };
            out.push_str(&format!(
                "<tr><th scope=\"row\">{}</th><td{mono}>{}</td><td{mono}>{}</td></tr>\n",
                esc(&shorten(&c.what, 200)),
                cell(&c.before),
                cell(&c.after)
            ));
        }
        out.push_str("</tbody>\n</table></div>\n");
    }
    for c in &diff.caveats {
        out.push_str(&format!("<p class=\"note\">{}</p>\n", esc(c)));
    }
    out.push_str("</section>\n");
}

fn by_id(d: &AuditDocument) -> std::collections::BTreeMap<&str, &Finding> {
    let mut map = std::collections::BTreeMap::new();
    for f in d.all_findings() {
        map.entry(f.id.as_str()).or_insert(f);
    }
    map
}

fn row(f: &FindingDiff, a: Option<&Finding>, b: Option<&Finding>, number: usize, out: &mut String) {
    let side = |f: Option<&Finding>, label: &str| {
        let Some(f) = f else { return format!("<td data-side=\"{label}\"><span class=\"none\">not there</span></td>") };
        let figure = measure(f).map_or_else(String::new, |m| {
            let unit = if m.unit.is_empty() { String::new() } else { format!(" {}", esc(&shorten(&m.unit, 40))) };
            let interval =
                m.interval.map_or_else(String::new, |(l, h)| format!("<span class=\"ci\">{l} to {h}</span>"));
            format!("<span class=\"num\">{}{unit}</span>{interval}", m.value)
        });
        let n = f.n.map_or_else(String::new, |n| format!("<span class=\"ci\">n = {}</span>", count(n)));
        format!("<td data-side=\"{label}\">{}{figure}{n}</td>", Badge::of(f).html())
    };
    let figure = figure(f);
    let change = figure.split_once(", ").map_or("", |(_, change)| change);
    let drawing = dumbbell(a, b, &format!("d{number}"), &f.title).unwrap_or_default();
    out.push_str(&format!(
        "<tr><td><bdi>{}</bdi><span class=\"id\">{}</span><span class=\"ci\">{}</span></td>{}{}<td>{drawing}<span class=\"num\">{change}</span></td></tr>\n",
        esc(&shorten(&f.title, 300)),
        esc(&shorten(&f.id, 120)),
        esc(&shorten(&f.reason, 400)),
        side(a, "First audit"),
        side(b, "Second audit")
    ));
}
