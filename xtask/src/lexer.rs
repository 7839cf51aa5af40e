//! Just enough of Rust's lexis for textual rules: what a file names in code, and its string literals, without
//! comments and without what is compiled for tests only.
//!
//! A full parser would be the largest dependency of this crate; the rules ask only which paths and which
//! literals occur.

/// A piece of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// Identifier, keyword or number.
    Word(String),
    /// Content of a string literal, escapes left as they are written.
    Text(String),
    /// One character of punctuation.
    Mark(char),
}

/// A token and the line it starts on, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) token: Token,
    pub(crate) line: usize,
}

impl Placed {
    fn is(&self, mark: char) -> bool {
        self.token == Token::Mark(mark)
    }

    fn word(&self) -> Option<&str> {
        match &self.token {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }
}

/// The tokens of a file that are compiled outside tests.
pub(crate) fn tokens(source: &str) -> Vec<Placed> {
    without_tests(&lex(source))
}

/// Every path in code (`a::b::c`, at least two segments), `use` trees spelt out, with the line it is on.
pub(crate) fn paths(tokens: &[Placed]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if tokens[i].word() == Some("use") {
            let mut prefix = Vec::new();
            i = use_tree(tokens, i + 1, &mut prefix, &mut found);
        } else if tokens[i].word().is_some() {
            let (line, mut path) = (tokens[i].line, Vec::new());
            i = segments(tokens, i, &mut path);
            found.push((line, path));
        } else {
            i += 1;
        }
    }
    found.retain(|(_, path)| path.len() > 1);
    found
}

/// Reads `a::b::c` from `i`; returns where it ends. A trailing `::` (before `{`, `<` or `*`) is consumed.
fn segments(tokens: &[Placed], mut i: usize, path: &mut Vec<String>) -> usize {
    while let Some(word) = tokens.get(i).and_then(Placed::word) {
        path.push(word.to_owned());
        i += 1;
        match tokens.get(i..i + 2) {
            Some([a, b]) if a.is(':') && b.is(':') => i += 2,
            _ => break,
        }
    }
    i
}

/// Reads one `use` tree from `i`, adds its leaves to `found`, returns where it ends.
fn use_tree(tokens: &[Placed], mut i: usize, prefix: &mut Vec<String>, found: &mut Vec<(usize, Vec<String>)>) -> usize {
    let depth = prefix.len();
    while tokens.get(i).is_some_and(|token| token.is(':')) {
        i += 1;
    }
    let line = tokens.get(i).map_or(0, |token| token.line);
    i = segments(tokens, i, prefix);
    if tokens.get(i).is_some_and(|token| token.is('{')) {
        i += 1;
        while let Some(token) = tokens.get(i) {
            if token.is('}') {
                i += 1;
                break;
            }
            i = if token.is(',') { i + 1 } else { use_tree(tokens, i, prefix, found) };
        }
    } else {
        if tokens.get(i).is_some_and(|token| token.is('*')) {
            prefix.push("*".into());
            i += 1;
        }
        found.push((line, prefix.clone()));
        if tokens.get(i).and_then(Placed::word) == Some("as") {
            i += 2;
        } else if tokens.get(i).is_some_and(|token| !token.is(',') && !token.is('}')) {
            // The `;` that ends it, or a token no `use` can have: never stay in place.
            i += 1;
        }
    }
    prefix.truncate(depth);
    i
}

fn lex(source: &str) -> Vec<Placed> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let start = i;
        let token = match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
                None
            }
            '/' if at(i + 1) == '*' => {
                i = end_of_comment(&chars, i);
                None
            }
            '"' => {
                i = end_of_string(&chars, i + 1);
                Some(Token::Text(text(&chars, start + 1, i - 1)))
            }
            '\'' => {
                // A lifetime has no closing quote two characters on; its name is no path and is dropped.
                if at(i + 1) == '\\' {
                    i += 3;
                    while i < chars.len() && at(i) != '\'' {
                        i += 1;
                    }
                    i += 1;
                } else if at(i + 2) == '\'' {
                    i += 3;
                } else {
                    i += 1;
                    while is_word(at(i)) {
                        i += 1;
                    }
                }
                None
            }
            c if is_word(c) => {
                while is_word(at(i)) {
                    i += 1;
                }
                let word = text(&chars, start, i);
                let raw = matches!(word.as_str(), "r" | "br" | "cr");
                if raw && let Some((from, to, end)) = raw_string(&chars, i) {
                    i = end;
                    Some(Token::Text(text(&chars, from, to)))
                } else if raw && at(i) == '#' {
                    // A raw identifier, `r#type`.
                    i += 1;
                    while is_word(at(i)) {
                        i += 1;
                    }
                    Some(Token::Word(text(&chars, start + 2, i)))
                } else if matches!(word.as_str(), "b" | "c") && at(i) == '"' {
                    i = end_of_string(&chars, i + 1);
                    Some(Token::Text(text(&chars, start + 2, i - 1)))
                } else {
                    Some(Token::Word(word))
                }
            }
            c => {
                i += 1;
                (!c.is_whitespace()).then_some(Token::Mark(c))
            }
        };
        i = i.min(chars.len());
        if let Some(token) = token {
            tokens.push(Placed { token, line });
        }
        line += chars[start..i].iter().filter(|&&c| c == '\n').count();
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn text(chars: &[char], from: usize, to: usize) -> String {
    chars.get(from..to.min(chars.len())).unwrap_or_default().iter().collect()
}

/// Block comments nest.
fn end_of_comment(chars: &[char], mut i: usize) -> usize {
    let mut depth = 0;
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

/// One past the closing quote of a string whose content starts at `i`.
fn end_of_string(chars: &[char], mut i: usize) -> usize {
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// Start and end of the content, and the end, of `#"…"#` with any number of `#`; nothing if it is none.
fn raw_string(chars: &[char], mut i: usize) -> Option<(usize, usize, usize)> {
    let hashes = chars[i..].iter().take_while(|&&c| c == '#').count();
    i += hashes;
    if chars.get(i) != Some(&'"') {
        return None;
    }
    let from = i + 1;
    let mut to = from;
    while to < chars.len() {
        if chars[to] == '"' && chars[to + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes {
            break;
        }
        to += 1;
    }
    Some((from, to, to + 1 + hashes))
}

/// Drops every item under `#[cfg(…test…)]`, up to its `;` or the end of its braces.
fn without_tests(tokens: &[Placed]) -> Vec<Placed> {
    let mut kept = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if let Some(end) = test_attribute(tokens, i) {
            i = end_of_item(tokens, end);
        } else {
            kept.push(tokens[i].clone());
            i += 1;
        }
    }
    kept
}

/// One past `#[cfg(test)]`, `#[cfg(all(test, …))]` or the like at `i`, if there is one; not `not(test)`.
fn test_attribute(tokens: &[Placed], i: usize) -> Option<usize> {
    let [hash, open, cfg] = tokens.get(i..i + 3)? else { return None };
    if !hash.is('#') || !open.is('[') || cfg.word() != Some("cfg") {
        return None;
    }
    let end = i + tokens[i..].iter().position(|token| token.is(']'))?;
    let words: Vec<&str> = tokens[i + 3..end].iter().filter_map(Placed::word).collect();
    (words.contains(&"test") && !words.contains(&"not")).then_some(end + 1)
}

fn end_of_item(tokens: &[Placed], mut i: usize) -> usize {
    let mut depth = 0;
    while i < tokens.len() {
        match tokens[i].token {
            Token::Mark('{' | '(' | '[') => depth += 1,
            Token::Mark(close @ ('}' | ')' | ']')) => {
                depth -= 1;
                if depth == 0 && close == '}' {
                    return i + 1;
                }
            }
            Token::Mark(';') if depth == 0 => return i + 1,
            _ => {}
        }
        i += 1;
    }
    i
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(source: &str) -> Vec<String> {
        paths(&tokens(source)).into_iter().map(|(_, path)| path.join("::")).collect()
    }

    #[test]
    fn spells_out_use_trees() {
        assert_eq!(
            joined("use std::{fs::{self, File as F}, path::Path};\nuse ::burn::prelude::*;\nfn f() {}"),
            ["std::fs::self", "std::fs::File", "std::path::Path", "burn::prelude::*"]
        );
    }

    #[test]
    fn finds_paths_in_expressions_and_types() {
        assert_eq!(
            joined("fn f(a: io::Result<()>) { std::fs::read(\"a\"); fs; x.fs; if a < b::C {} }"),
            ["io::Result", "std::fs::read", "b::C"]
        );
    }

    #[test]
    fn comments_strings_and_characters_are_no_code() {
        let source = "// std::fs\n/* a /* std::fs */ b::c */ \"std::fs \\\" x::y\" r#\"q::\"r::s\"# b\"t::u\" '\"' '\\'' 'a v::w";
        assert_eq!(joined(source), ["v::w"]);
        let texts: Vec<Token> =
            tokens(source).into_iter().map(|placed| placed.token).filter(|t| matches!(t, Token::Text(_))).collect();
        assert_eq!(texts, ["std::fs \\\" x::y", "q::\"r::s", "t::u"].map(|t| Token::Text(t.into())));
    }

    #[test]
    fn what_is_compiled_for_tests_only_is_dropped() {
        let source = "
            #[cfg(test)]
            mod tests { use std::fs; fn f() { { a::b() } } }
            #[cfg(all(test, unix))] #[path = \"x\"] mod more;
            #[cfg(test)] fn g() -> [u8; 2] { c::d() }
            #[cfg(not(test))] fn h() { e::f() }
            fn i() { g::h() }";
        assert_eq!(joined(source), ["e::f", "g::h"]);
    }

    #[test]
    fn lines_count_from_one_and_survive_multi_line_literals() {
        let found = paths(&tokens("a::b\n\"x\ny\" c::d\n/* \n */ e::f"));
        assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3, 5]);
    }

    #[test]
    fn unfinished_code_ends_without_a_panic() {
        for source in
            ["\"", "r#\"", "'", "'\\", "/*", "use a::{b", "use", "use ;", "use a::{;", "#[cfg(test)]", "b\"\\", "r#"]
        {
            let _ = joined(source);
        }
    }
}
