//! SARIF 2.1.0 (OASIS standard, 2020): the problems only, for code scanning services.

use std::collections::BTreeMap;

use netproof_core::{AuditDocument, Card, Finding, Verdict};
use serde_json::{Value, json};

use crate::junit::figure;
use crate::meta;

/// The document as SARIF: one rule per check, one result per finding that is not a pass.
///
/// Levels: `error` for a concern with a declared limit and for each broken point of the policy, `warning` for a concern
/// without one and for a check that could not run, `note` for what is inconclusive. Checks without a card get a rule
/// with their id only.
pub fn to_sarif(document: &AuditDocument, cards: &[Card]) -> String {
    let mut rules: Vec<Value> = Vec::new();
    let mut index: BTreeMap<String, usize> = BTreeMap::new();
    let mut results = Vec::new();
    let uri = uri(&meta::name(&document.model).unwrap_or_else(|| "model.onnx".into()));
    let location = json!([{ "physicalLocation": { "artifactLocation": { "uri": uri } } }]);
    let mut rule = |id: &str| -> usize {
        *index.entry(id.to_owned()).or_insert_with(|| {
            rules.push(describe(id, cards.iter().find(|c| c.id == id)));
            rules.len() - 1
        })
    };
    for f in document.all_findings() {
        let Some(level) = level(f) else { continue };
        results.push(json!({
            "ruleId": f.check,
            "ruleIndex": rule(&f.check),
            "level": level,
            "message": { "text": message(f) },
            "locations": location,
            "partialFingerprints": { "netproofFinding/v1": f.id },
            "properties": { "challenge": f.challenge.id(), "verdict": f.verdict.name() },
        }));
    }
    for (i, violation) in document.policy_violations.iter().enumerate() {
        results.push(json!({
            "ruleId": "policy",
            "ruleIndex": rule("policy"),
            "level": "error",
            "message": { "text": violation },
            "locations": location,
            "partialFingerprints": { "netproofFinding/v1": format!("policy/{i}") },
        }));
    }
    let (name, version) = document.tool.split_once(' ').unwrap_or((&document.tool, "0"));
    let ran = !document.all_findings().any(|f| f.verdict == Verdict::Failed);
    let log = json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": name, "version": version, "rules": rules } },
            "invocations": [{ "executionSuccessful": ran }],
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    format!("{log:#}\n")
}

fn level(f: &Finding) -> Option<&'static str> {
    match f.verdict {
        Verdict::Concern if f.threshold.is_some() => Some("error"),
        Verdict::Concern | Verdict::Failed => Some("warning"),
        Verdict::Inconclusive => Some("note"),
        Verdict::Pass | Verdict::NotApplicable => None,
    }
}

fn message(f: &Finding) -> String {
    let figure = figure(f);
    let gap = if figure.is_empty() { "" } else { ": " };
    format!("{}{gap}{figure}. {}", f.title, f.explanation)
}

fn describe(id: &str, card: Option<&Card>) -> Value {
    match card {
        Some(c) => json!({
            "id": id,
            "name": c.title,
            "shortDescription": { "text": c.title },
            "fullDescription": { "text": c.measures },
            "help": { "text": format!("{} Reference: {}", c.measures, c.reference) },
            "properties": { "tags": [c.challenge.id()] },
        }),
        None if id == "policy" => json!({
            "id": id,
            "shortDescription": { "text": "A threshold of the policy file is broken" },
        }),
        None => json!({ "id": id, "shortDescription": { "text": id } }),
    }
}

/// A relative URI of a file name: every byte that is not unreserved is percent-encoded (RFC 3986, section 2.3).
fn uri(name: &str) -> String {
    let mut out = String::new();
    for b in name.bytes().take(400) {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_become_uris() {
        assert_eq!(super::uri("models/my net:1.onnx"), "models/my%20net%3A1.onnx");
    }
}
