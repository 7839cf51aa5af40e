//! Blocks as Markdown (CommonMark with tables) and text as YAML scalars.
//!
//! Text of users cannot become markup: HTML is escaped, what Markdown gives a meaning is escaped, and addresses are
//! broken such that no viewer makes links of them.

use sha2::{Digest as _, Sha256};

use super::{Block, Line, Prose, Span};
use crate::escape::{self, shorten};

/// Longest piece of text.
const LONG: usize = 4000;

/// Text within a line.
pub(crate) fn inline(text: &str) -> String {
    let clean = escape::terminal(&shorten(text, LONG));
    let mut out = String::with_capacity(clean.len() + 16);
    for c in clean.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '@' => out.push_str("&#64;"),
            '$' => out.push_str("&#36;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '{' | '}' | '|' | '~' | '#' | '!' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    // What begins an address anywhere.
    let out = out.replace("://", "&#58;//");
    let lower = out.to_ascii_lowercase();
    let mut safe = String::with_capacity(out.len());
    let mut from = 0;
    for (at, _) in lower.match_indices("www.") {
        safe.push_str(&out[from..at + 3]);
        safe.push_str("&#46;");
        from = at + 4;
    }
    safe.push_str(&out[from..]);
    safe
}

/// Text at the beginning of a line, where a few more signs have a meaning.
fn start(text: &str) -> String {
    let trimmed = text.trim_start();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let rest = &trimmed[digits..];
    if digits > 0 && rest.starts_with(['.', ')']) {
        return format!("{}\\{rest}", &trimmed[..digits]);
    }
    if trimmed.starts_with(['-', '+', '=', ':']) { format!("\\{trimmed}") } else { trimmed.to_owned() }
}

/// A name as code, where it is made of harmless signs; else as text.
fn code(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "/._-:=, +()".contains(c);
    if !text.is_empty() && text.chars().all(harmless) && text == text.trim() {
        format!("`{}`", shorten(text, 300))
    } else {
        inline(text)
    }
}

fn spans(line: &Line) -> String {
    let one = |s: &Span| match s {
        Span::Text(t) => inline(t),
        Span::Strong(t) => format!("**{}**", inline(t).trim()),
        Span::Code(t) => code(t),
        Span::Link { code: t, href } => format!("[{}]({href})", code(t)),
    };
    line.iter().map(one).collect()
}

/// The whole document.
pub(crate) fn text(prose: &Prose) -> String {
    let mut out = String::new();
    for block in &prose.blocks {
        match block {
            Block::Heading(level, t) => out += &format!("{} {}\n\n", "#".repeat((*level).clamp(1, 6)), inline(t)),
            Block::Paragraph(line) => out += &format!("{}\n\n", start(&spans(line))),
            Block::List(lines) => {
                lines.iter().for_each(|l| out += &format!("- {}\n", start(&spans(l))));
                out.push('\n');
            }
            Block::Table(head, rows) => {
                let cells = |row: Vec<String>| format!("| {} |\n", row.join(" | "));
                out += &cells(head.iter().map(|h| inline(h)).collect());
                out += &cells(head.iter().map(|_| "---".into()).collect());
                rows.iter().for_each(|r| out += &cells(r.iter().map(spans).collect()));
                out.push('\n');
            }
            Block::Command(c) => {
                // A command in a block of its own could end that block; indentation cannot be left.
                out += &format!("    {}\n\n", escape::terminal(&shorten(c, LONG)));
            }
            Block::Person(p) => out += &format!("{}\n\n", p.markdown()),
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// Text as a double-quoted YAML scalar on one line (YAML 1.2, section 5.7).
pub(crate) fn yaml(text: &str) -> String {
    let mut out = String::from('"');
    for c in shorten(text, 300).chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            c if (c as u32) < 0x100 => out += &format!("\\x{:02X}", c as u32),
            c if c.is_alphanumeric() => out.push(c),
            c if (c as u32) < 0x1_0000 => out += &format!("\\u{:04X}", c as u32),
            c => out += &format!("\\U{:08X}", c as u32),
        }
    }
    out.push('"');
    out
}

/// Closes a document with the hash of everything that no person wrote, so that a change of it is noticed later.
pub(crate) fn seal(text: &str) -> String {
    format!("{text}\n{}{} -->\n", super::person::SEAL, hash(text))
}

/// Hash over everything outside the parts of people.
pub(super) fn hash(text: &str) -> String {
    let skeleton = super::person::skeleton(text);
    Sha256::digest(skeleton).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_user_becomes_markup() {
        let evil =
            "<img src=x onerror=alert(1)> [a](javascript:alert(1)) `x` | # *b* https://evil.example WWW.evil $x$ @all";
        let out = inline(evil);
        for raw in ["<", "://", "[a]", " | ", "www.", "WWW.", "@", "$", " *b"] {
            assert!(!out.contains(raw), "{raw} in {out}");
        }
        assert_eq!(inline("a\n# b\u{202e}\u{0}"), "a \\# b\\[U+202E\\]\u{fffd}");
        assert_eq!(code("performance/accuracy"), "`performance/accuracy`");
        assert_eq!(code("a`b"), "a\\`b");
        assert!(!code("<!-- netproof:person x -->").contains("<!--"));
    }

    #[test]
    fn lines_do_not_begin_with_a_sign() {
        assert_eq!(start("- a"), "\\- a");
        assert_eq!(start("12. a"), "12\\. a");
        assert_eq!(start("=== a"), "\\=== a");
        assert_eq!(start("0.5 a"), "0\\.5 a");
        assert_eq!(start("plain"), "plain");
    }

    #[test]
    fn yaml_scalars_stay_on_one_line_and_close() {
        assert_eq!(yaml("a\"b\\c\nd\u{85}\u{202e}数\u{1f600}"), "\"a\\\"b\\\\c\\x0Ad\\x85\\u202E数\\U0001F600\"");
        assert_eq!(yaml(": - # !!python/object"), "\": - # !!python/object\"");
    }
}
