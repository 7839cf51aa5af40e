//! The parts that a person writes: where they begin and end, whether they are finished, and what earlier ones said.

use std::collections::BTreeMap;

use crate::ReportError;

/// Begins the line that closes a document.
pub(super) const SEAL: &str = "<!-- netproof:generated sha256=";
/// What an unfinished part says.
pub(super) const UNFINISHED: &str = "To be written by a person";

/// A part that a person writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) id: String,
    /// What to write.
    pub(crate) prompt: String,
    /// What was written; Markdown.
    pub(crate) written: Option<String>,
}

impl Person {
    /// Whether somebody has written it: there is text, and none of it is the sign that there is none.
    pub(crate) fn finished(&self) -> bool {
        self.written.as_deref().is_some_and(|w| !w.contains(UNFINISHED))
    }

    fn placeholder(&self) -> String {
        format!("> **☐ {UNFINISHED}.** {}", super::markdown::inline(&self.prompt))
    }

    pub(super) fn markdown(&self) -> String {
        let body = self.written.clone().unwrap_or_else(|| self.placeholder());
        format!("<!-- netproof:person {} -->\n{body}\n<!-- /netproof:person -->", self.id)
    }
}

/// What people wrote into an earlier version of a document.
#[derive(Debug, Default)]
pub(crate) struct Kept(BTreeMap<String, String>);

/// The id that a line opens, in Markdown or in the comment of a front matter.
fn opens(line: &str) -> Option<&str> {
    let line = line.trim();
    let inner = line.strip_prefix("<!--").and_then(|l| l.strip_suffix("-->")).or_else(|| line.strip_prefix('#'))?;
    inner.trim().strip_prefix("netproof:person ").map(str::trim)
}

fn closes(line: &str) -> bool {
    matches!(line.trim(), "<!-- /netproof:person -->" | "# /netproof:person")
}

impl Kept {
    /// Reads the parts of people out of an earlier version.
    /// # Errors
    /// A part is not closed, is opened inside another or stands there twice; or, without `overwrite`, something outside
    /// of them was changed.
    pub(crate) fn read(previous: Option<&str>, overwrite: bool) -> Result<Self, ReportError> {
        let Some(text) = previous else { return Ok(Self::default()) };
        let text = text.replace("\r\n", "\n");
        let mut kept = BTreeMap::new();
        let mut open: Option<(&str, Vec<&str>)> = None;
        for line in text.lines() {
            match (&mut open, opens(line), closes(line)) {
                (None, Some(id), _) => open = Some((id, Vec::new())),
                (Some((id, _)), Some(_), _) => return Err(marker(id, "is not closed before the next one begins")),
                (Some(_), _, true) => {
                    if let Some((id, lines)) = open.take()
                        && kept.insert(id.to_owned(), lines.join("\n")).is_some()
                    {
                        return Err(marker(id, "stands there twice"));
                    }
                }
                (None, _, true) => return Err(marker("", "is closed but was not opened")),
                (Some((_, lines)), None, false) => lines.push(line),
                (None, None, false) => {}
            }
        }
        if let Some((id, _)) = open {
            return Err(marker(id, "is not closed"));
        }
        if !overwrite {
            let sealed = text.lines().rev().find_map(|l| l.trim().strip_prefix(SEAL)?.strip_suffix(" -->"));
            let body = text.rsplit_once(&format!("\n{SEAL}")).map_or(text.as_str(), |(body, _)| body);
            if sealed != Some(super::markdown::hash(body).as_str()) {
                return Err(ReportError::Edited);
            }
        }
        Ok(Self(kept))
    }

    /// The part with what was written into it before, unless that was nothing.
    pub(crate) fn part(&mut self, id: &str, prompt: &str) -> Person {
        let mut person = Person { id: id.to_owned(), prompt: prompt.to_owned(), written: None };
        let written = self.0.remove(id).filter(|w| {
            let w = w.trim();
            // An unchanged sign of an earlier version, whatever its prompt was.
            !w.is_empty() && (w.contains('\n') || !w.starts_with("> **☐"))
        });
        person.written = written;
        person
    }

    /// The lines of the front matter that a person wrote.
    pub(crate) fn front_matter(&mut self, id: &str) -> Option<String> {
        self.0.remove(id)
    }

    /// What was written into parts that this version does not have.
    pub(crate) fn rest(self) -> impl Iterator<Item = (String, String)> {
        self.0.into_iter().filter(|(_, w)| !w.trim().is_empty() && !w.trim().starts_with("> **☐"))
    }
}

fn marker(id: &str, problem: &'static str) -> ReportError {
    ReportError::Marker { id: id.to_owned(), problem }
}

/// The text without what people wrote.
pub(super) fn skeleton(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for line in text.lines() {
        inside &= !closes(line);
        if !inside {
            out.push_str(line.trim_end());
            out.push('\n');
        }
        inside |= opens(line).is_some();
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::{Prose, markdown};
    use super::*;

    fn document(kept: &mut Kept) -> String {
        let mut prose = Prose::default();
        prose.heading(1, "A & B");
        prose.person(kept.part("use", "What is it for?"));
        prose.paragraph(["generated"]);
        markdown::seal(&markdown::text(&prose))
    }

    #[test]
    fn what_a_person_wrote_is_kept_and_the_rest_is_made_again() {
        let first = document(&mut Kept::default());
        assert!(first.contains("> **☐ To be written by a person.** What is it for?"));
        let sign = first.lines().find(|l| l.starts_with("> ")).unwrap();
        let text = "For *triage*.\n\n- not alone\n| a | b |";
        let edited = first.replace(sign, text);
        let mut kept = Kept::read(Some(&edited), false).unwrap();
        let second = document(&mut kept);
        assert_eq!(second, edited);
        let windows = edited.replace('\n', "\r\n");
        assert_eq!(document(&mut Kept::read(Some(&windows), false).unwrap()), edited);
        assert_eq!(document(&mut Kept::read(Some(&first), false).unwrap()), first, "unchanged");
        let emptied = first.replace(sign, "");
        assert_eq!(document(&mut Kept::read(Some(&emptied), false).unwrap()), first, "nothing is not finished");
    }

    #[test]
    fn changes_outside_the_marks_are_not_lost_in_silence() {
        let first = document(&mut Kept::default());
        let edited = first.replace("generated\n\n<!--", "generated, and mine\n\n<!--");
        assert_ne!(edited, first);
        assert!(matches!(Kept::read(Some(&edited), false), Err(ReportError::Edited)));
        assert!(Kept::read(Some(&edited), true).is_ok());
        assert!(matches!(Kept::read(Some("# somebody's own file"), false), Err(ReportError::Edited)));
    }

    #[test]
    fn broken_marks_are_named() {
        let open = "<!-- netproof:person a -->";
        let close = "<!-- /netproof:person -->";
        for (text, part) in [
            (format!("{open}\nx"), "`a` is not closed"),
            (format!("{open}\n{open}\n{close}"), "before the next"),
            (format!("{open}\n{close}\n{open}\n{close}"), "twice"),
            (close.to_owned(), "not opened"),
        ] {
            let error = Kept::read(Some(&text), true).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_part_that_still_says_unfinished_is_unfinished() {
        let part = |w: Option<&str>| Person { id: "a".into(), prompt: "p".into(), written: w.map(str::to_owned) };
        assert!(part(Some("done")).finished() && !part(None).finished());
        assert!(!part(Some("some text\n> **☐ To be written by a person.** p")).finished());
    }
}
