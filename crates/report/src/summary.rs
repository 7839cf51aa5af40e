//! The summary that a terminal shows at the end of an audit.

use netproof_core::{AuditDocument, Challenge, Finding};

use crate::badge::{Badge, sentence};
use crate::escape::terminal;
use crate::junit::figure;
use crate::meta;

/// How the summary is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SummaryOptions {
    /// Columns of the terminal; held between 40 and 120.
    pub width: usize,
    /// ANSI colours. Symbols and words say the same without them.
    pub colour: bool,
    /// Where the files of the run lie (`report.html`, `audit.json`), named at the end.
    pub files: Vec<String>,
}

impl Default for SummaryOptions {
    fn default() -> Self {
        Self { width: 80, colour: false, files: Vec::new() }
    }
}

/// A summary for the terminal, ending with a line break. No line is longer than the width, except for paths.
pub fn summary(document: &AuditDocument, options: &SummaryOptions) -> String {
    let width = options.width.clamp(40, 120);
    let paint = |badge: Badge, text: &str| {
        let code = match badge {
            Badge::Concern | Badge::Failed => "31",
            Badge::Inconclusive => "33",
            Badge::Pass => "32",
            Badge::Measured => "36",
            Badge::NotApplicable | Badge::NotMeasured => "2",
        };
        if options.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    };
    let bold = |t: &str| if options.colour { format!("\u{1b}[1m{t}\u{1b}[0m") } else { t.to_owned() };
    let mut out = String::new();
    let model = terminal(&meta::name(&document.model).unwrap_or_else(|| "unnamed model".into()));
    let data = terminal(&meta::name(&document.data).unwrap_or_else(|| "unnamed data".into()));
    let rows = meta::rows(&document.data).map_or_else(String::new, |r| format!(" ({r} rows)"));
    for line in wrap(&format!("{model} on {data}{rows}"), width, 0) {
        out.push_str(&format!("{}\n", bold(&line)));
    }
    for line in wrap(&sentence(document), width, 0) {
        out.push_str(&format!("{line}\n"));
    }
    for challenge in Challenge::ALL {
        let findings: Vec<&Finding> = document.all_findings().filter(|f| f.challenge == challenge).collect();
        let badge = Badge::of_challenge(challenge, findings.iter().copied());
        let head = format!("{} {}", badge.symbol(), badge.word().to_lowercase());
        if findings.is_empty() {
            out.push_str(&format!("\n{}  {}", bold(&format!("{:<20}", challenge.title())), paint(badge, &head)));
            continue;
        }
        out.push_str(&format!("\n{}  {}\n", bold(&format!("{:<20}", challenge.title())), paint(badge, &head)));
        for f in findings {
            let badge = Badge::of(f);
            let figure = terminal(&figure(f));
            let tail = if figure.is_empty() { String::new() } else { format!(": {figure}") };
            let text = format!("{}{tail}", terminal(&f.title));
            for (i, line) in wrap(&text, width, 4).into_iter().enumerate() {
                let mark = if i == 0 { paint(badge, &badge.symbol().to_string()) } else { " ".into() };
                out.push_str(&format!("  {mark} {line}\n"));
            }
        }
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    if !document.policy_violations.is_empty() {
        out.push_str(&format!("\n{}\n", bold("Policy")));
        for v in &document.policy_violations {
            for (i, line) in wrap(&terminal(v), width, 4).into_iter().enumerate() {
                let mark = if i == 0 { paint(Badge::Failed, "✗") } else { " ".into() };
                out.push_str(&format!("  {mark} {line}\n"));
            }
        }
    }
    if !options.files.is_empty() {
        out.push('\n');
        for f in &options.files {
            out.push_str(&format!("{}\n", terminal(f)));
        }
    }
    out
}

/// Lines of at most `width − indent` characters; words that are longer are broken.
fn wrap(text: &str, width: usize, indent: usize) -> Vec<String> {
    let room = width.saturating_sub(indent).max(10);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        for (i, part) in letters.chunks(room).enumerate() {
            let gap = usize::from(used > 0 && i == 0);
            if used + gap + part.len() > room {
                lines.push(String::new());
                used = 0;
            }
            if let Some(line) = lines.last_mut() {
                if used > 0 && i == 0 {
                    line.push(' ');
                    used += 1;
                }
                line.extend(part);
                used += part.len();
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn lines_keep_the_width_and_all_words() {
        let text = format!("one two {} three", "x".repeat(95));
        let lines = wrap(&text, 44, 4);
        assert!(lines.iter().all(|l| l.chars().count() <= 40), "{lines:?}");
        let joined: String = lines.concat().replace(' ', "");
        assert_eq!(joined, text.replace(' ', ""));
        assert_eq!(wrap("", 40, 0), [""]);
    }
}
