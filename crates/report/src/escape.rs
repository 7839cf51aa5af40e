//! Text of users and files, made safe to show: in HTML, in XML, on a terminal.
//!
//! Names of models, columns and classes come from files that nobody has checked. They must not be able to add markup,
//! to reorder the text around them (bidirectional overrides) or to move a terminal's cursor.

use std::borrow::Cow;

/// Characters that reorder or hide the text around them; they are shown by their code point instead.
fn reorders(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{feff}')
}

/// Characters that no HTML or XML document may hold.
fn forbidden(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(c, '\u{fdd0}'..='\u{fdef}')
        || (c as u32) & 0xfffe == 0xfffe
}

fn push_safe(out: &mut String, c: char) {
    if reorders(c) {
        out.push_str(&format!("[U+{:04X}]", c as u32));
    } else if forbidden(c) {
        out.push('\u{fffd}');
    } else {
        out.push(c);
    }
}

/// Text for HTML and SVG, both as content and between quotes of an attribute.
pub(crate) fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => push_safe(&mut out, c),
        }
    }
    out
}

/// Text for XML files that machines read: control characters are removed, not replaced.
pub(crate) fn xml(text: &str) -> String {
    html(&text.chars().filter(|&c| !forbidden(c)).collect::<String>())
}

/// Text for one line of a terminal: no escape sequences, no line breaks, no reordering.
pub(crate) fn terminal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\n' | '\t') { out.push(' ') } else { push_safe(&mut out, c) }
    }
    out
}

/// At most `limit` characters; what is cut is replaced by an ellipsis.
pub(crate) fn shorten(text: &str, limit: usize) -> Cow<'_, str> {
    match text.char_indices().nth(limit) {
        None => Cow::Borrowed(text),
        Some(_) => {
            let mut short: String = text.chars().take(limit.saturating_sub(1)).collect();
            short.push('…');
            Cow::Owned(short)
        }
    }
}

/// An id for an anchor: lower-case ASCII letters, digits and hyphens, at most 80 characters.
pub(crate) fn slug(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(400) {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.ends_with('-') && !out.is_empty() {
            out.push('-');
        }
        if out.len() >= 80 {
            break;
        }
    }
    out.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_becomes_text() {
        assert_eq!(html(r#"<script>"a" & 'b'"#), "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;");
    }

    #[test]
    fn control_characters_and_overrides_cannot_act() {
        assert_eq!(html("a\u{0}b\u{1b}[31m\u{85}"), "a\u{fffd}b\u{fffd}[31m\u{fffd}");
        assert_eq!(html("evil\u{202e}gnp.exe\u{2066}"), "evil[U+202E]gnp.exe[U+2066]");
        assert_eq!(xml("a\u{0}b<\u{ffff}"), "ab&lt;");
        assert_eq!(terminal("a\u{1b}[2J\nb\u{202e}"), "a\u{fffd}[2J b[U+202E]");
    }

    #[test]
    fn other_scripts_are_kept() {
        assert_eq!(html("naïve 数据 شبكة 👩‍🔬"), "naïve 数据 شبكة 👩‍🔬");
    }

    #[test]
    fn short_texts_are_kept_and_long_ones_cut_by_characters() {
        assert_eq!(shorten("数据集", 3), "数据集");
        assert_eq!(shorten("数据集合", 3), "数据…");
        assert_eq!(shorten("abc", 0), "…");
    }

    #[test]
    fn slugs_are_safe_and_bounded() {
        assert_eq!(slug("performance/recall <b>Ankle boot</b>!"), "performance-recall-b-ankle-boot-b");
        assert_eq!(slug("数据"), "");
        assert!(slug(&"ab/".repeat(400)).len() <= 80);
    }
}
