//! Tables of methods for people, from `netproof methods --json -`.

use std::fmt::Write as _;

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// A method's card, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Method {
    id: String,
    kind: String,
    title: String,
    challenge: String,
    measures: String,
    reference: String,
    needs: Vec<String>,
    options: Vec<MethodOption>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct MethodOption {
    name: String,
    default: String,
    doc: String,
}

/// Reads a list of cards, or an object whose field `methods` is one.
/// # Errors
/// A field is missing or is no text.
pub(crate) fn parse(value: &Value) -> anyhow::Result<Vec<Method>> {
    let cards =
        value.get("methods").unwrap_or(value).as_array().context("neither a list nor an object with `methods`")?;
    ensure!(!cards.is_empty(), "the list of methods is empty");
    cards.iter().map(method).collect()
}

fn method(card: &Value) -> anyhow::Result<Method> {
    let id = text(card, "id")?;
    let read = || -> anyhow::Result<Method> {
        let options = card["options"].as_array().context("no list `options`")?.iter().map(|option| {
            Ok(MethodOption {
                name: text(option, "name")?,
                default: text(option, "default")?,
                doc: text(option, "doc")?,
            })
        });
        let needs = card["needs"].as_array().context("no list `needs`")?.iter();
        Ok(Method {
            id: id.clone(),
            kind: text(card, "kind")?,
            title: text(card, "title")?,
            challenge: text(card, "challenge")?,
            measures: text(card, "measures")?,
            reference: text(card, "reference")?,
            needs: needs.filter_map(Value::as_str).map(|need| need.replace(['-', '_'], " ")).collect(),
            options: options.collect::<anyhow::Result<_>>()?,
        })
    };
    read().with_context(|| format!("method `{id}`"))
}

fn text(value: &Value, field: &str) -> anyhow::Result<String> {
    Ok(value[field].as_str().with_context(|| format!("no text `{field}`"))?.to_owned())
}

/// One row per challenge and kind, with the ids of its methods.
pub(crate) fn summary(methods: &[Method]) -> String {
    let mut rows: Vec<([&str; 2], Vec<String>)> = Vec::new();
    for method in methods {
        let key = [method.challenge.as_str(), method.kind.as_str()];
        let id = format!("`{}`", method.id);
        match rows.iter_mut().find(|(k, _)| *k == key) {
            Some((_, ids)) => ids.push(id),
            None => rows.push((key, vec![id])),
        }
    }
    // The challenges in the order in which they first occur, all kinds of one together.
    let order: Vec<&str> = rows.iter().map(|(k, _)| k[0]).collect();
    rows.sort_by_key(|(k, _)| order.iter().position(|c| *c == k[0]));
    let mut out = String::from("| challenge | kind | methods |\n|---|---|---|\n");
    for ([challenge, kind], ids) in rows {
        let _ = writeln!(out, "| {} | {kind} | {} |", challenge.replace(['-', '_'], " "), ids.join(", "));
    }
    out
}

/// One section per method, with its source, needs and options.
pub(crate) fn reference(methods: &[Method]) -> String {
    let mut out = String::new();
    for method in methods {
        let challenge = method.challenge.replace(['-', '_'], " ");
        let _ = writeln!(out, "## `{}`: {}\n", method.id, method.title);
        let _ = writeln!(out, "{}\n", method.measures);
        let _ = writeln!(out, "- kind: {}, of the challenge *{challenge}*", method.kind);
        if !method.needs.is_empty() {
            let _ = writeln!(out, "- needs: {}", method.needs.join(", "));
        }
        let _ = writeln!(out, "- source: {}\n", method.reference);
        if !method.options.is_empty() {
            out.push_str("| option | default | meaning |\n|---|---|---|\n");
            for option in &method.options {
                let _ = writeln!(
                    out,
                    "| `{}.{}` | `{}` | {} |",
                    method.id,
                    option.name,
                    cell(&option.default),
                    cell(&option.doc)
                );
            }
            out.push('\n');
        }
    }
    out
}

/// Text that stays in one cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn card() -> Value {
        json!({
            "id": "calibration", "version": 1, "kind": "check", "title": "Calibration | ECE", "challenge": "domain_shift",
            "measures": "Whether confidence is earned.", "reference": "Guo et al., ICML 2017", "needs": ["labels", "train-data"],
            "options": [{ "name": "bins", "default": "15", "doc": "Bins,\nof equal width." }],
        })
    }

    #[test]
    fn makes_a_row_and_a_section_of_a_card() {
        let methods = parse(&json!([card()])).unwrap();
        assert_eq!(parse(&json!({ "methods": [card()] })).unwrap(), methods);
        assert_eq!(
            summary(&methods),
            "| challenge | kind | methods |\n|---|---|---|\n| domain shift | check | `calibration` |\n"
        );
        let reference = reference(&methods);
        assert!(
            reference.starts_with("## `calibration`: Calibration | ECE\n\nWhether confidence is earned.\n"),
            "{reference}"
        );
        assert!(reference.contains("- needs: labels, train data\n"), "{reference}");
        assert!(reference.contains("- source: Guo et al., ICML 2017\n"), "{reference}");
        assert!(reference.contains("| `calibration.bins` | `15` | Bins, of equal width. |\n"), "{reference}");
    }

    #[test]
    fn a_card_without_a_field_is_an_error_that_names_both() {
        for field in ["kind", "title", "challenge", "measures", "reference", "needs", "options"] {
            let mut card = card();
            card.as_object_mut().unwrap().remove(field);
            let error = format!("{:#}", parse(&json!([card])).unwrap_err());
            assert!(error.contains("calibration") && error.contains(field), "{error}");
        }
        assert!(parse(&json!([])).is_err());
        assert!(parse(&json!("x")).is_err());
    }
}
