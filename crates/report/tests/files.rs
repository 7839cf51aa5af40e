//! The files for machines: `audit.json` against its schema, JUnit, SARIF, and the terminal summary.

mod common;

use std::collections::BTreeSet;

use common::{CARDS, HOSTILE, document, finding, well_formed};
use netproof_core::{AuditDocument, Evidence, SCHEMA, Verdict};
use netproof_report::{SummaryOptions, summary, to_json, to_junit, to_sarif};
use serde_json::{Value, json};

fn schema() -> Value {
    serde_json::from_str(include_str!("../../../docs/audit.schema.json")).unwrap()
}

/// Validates the part of JSON Schema 2020-12 that the schema uses; refuses keywords that it does not know.
/// `seen` collects each property of the schema that the value has.
fn validate(root: &Value, at: &str, value: &Value, path: &str, seen: &mut BTreeSet<String>) -> Result<(), String> {
    let schema = root.pointer(at).ok_or_else(|| format!("no schema at {at}"))?;
    let fail = |why: String| Err(format!("{path}: {why}"));
    for (key, rule) in schema.as_object().ok_or("a schema must be an object")? {
        match key.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => {}
            "$ref" => validate(root, rule.as_str().unwrap().trim_start_matches('#'), value, path, seen)?,
            "const" if rule != value => return fail(format!("is {value}, must be {rule}")),
            "enum" if !rule.as_array().unwrap().contains(value) => return fail(format!("{value} is none of {rule}")),
            "const" | "enum" => {}
            "type" => {
                let is = |t: &Value| match t.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    "number" => value.is_number(),
                    "integer" => value.is_u64() || value.is_i64(),
                    other => panic!("type {other}"),
                };
                let one = std::slice::from_ref(rule);
                if !rule.as_array().map_or(one, Vec::as_slice).iter().any(is) {
                    return fail(format!("{value} is not of type {rule}"));
                }
            }
            "minimum" if value.as_f64() < rule.as_f64() => return fail(format!("{value} is below {rule}")),
            "maximum" if value.as_f64() > rule.as_f64() => return fail(format!("{value} is above {rule}")),
            "minimum" | "maximum" => {}
            "minItems" if value.as_array().unwrap().len() < rule.as_u64().unwrap() as usize => {
                return fail(format!("fewer than {rule} items"));
            }
            "maxItems" if value.as_array().unwrap().len() > rule.as_u64().unwrap() as usize => {
                return fail(format!("more than {rule} items"));
            }
            "minItems" | "maxItems" => {}
            "pattern" => {
                let text = value.as_str().unwrap();
                let hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                let fits = match rule.as_str().unwrap() {
                    "^[0-9a-f]{64}$" => hex && text.len() == 64,
                    "^([0-9a-f]{64})?$" => hex && (text.is_empty() || text.len() == 64),
                    other => panic!("pattern {other}"),
                };
                if !fits {
                    return fail(format!("{text:?} does not match {rule}"));
                }
            }
            "required" => {
                for name in rule.as_array().unwrap() {
                    if value.get(name.as_str().unwrap()).is_none() {
                        return fail(format!("{name} is missing"));
                    }
                }
            }
            "properties" => {
                for name in rule.as_object().unwrap().keys() {
                    if let Some(inner) = value.get(name) {
                        let next = format!("{at}/properties/{name}");
                        validate(root, &next, inner, &format!("{path}/{name}"), seen)?;
                        seen.insert(next);
                    }
                }
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                for (name, inner) in value.as_object().unwrap() {
                    if known.is_some_and(|k| k.contains_key(name)) {
                        continue;
                    }
                    if rule == &json!(false) {
                        return fail(format!("unknown property {name}"));
                    }
                    validate(root, &format!("{at}/additionalProperties"), inner, &format!("{path}/{name}"), seen)?;
                }
            }
            "items" => {
                for (i, inner) in value.as_array().unwrap().iter().enumerate() {
                    validate(root, &format!("{at}/items"), inner, &format!("{path}/{i}"), seen)?;
                }
            }
            "oneOf" => {
                let mut fitting = 0;
                let mut why = Vec::new();
                for i in 0..rule.as_array().unwrap().len() {
                    let mut inner = BTreeSet::new();
                    match validate(root, &format!("{at}/oneOf/{i}"), value, path, &mut inner) {
                        Ok(()) => {
                            fitting += 1;
                            seen.extend(inner);
                        }
                        Err(e) => why.push(e),
                    }
                }
                if fitting != 1 {
                    return fail(format!("{fitting} of the alternatives fit: {why:?}"));
                }
            }
            other => panic!("the test does not know the keyword {other}"),
        }
    }
    Ok(())
}

/// All properties that the schema declares.
fn declared(value: &Value, at: &str, out: &mut BTreeSet<String>) {
    if let Some(object) = value.as_object() {
        for (k, v) in object {
            let next = format!("{at}/{k}");
            if at.ends_with("/properties") && v.is_object() {
                out.insert(next.clone());
            }
            declared(v, &next, out);
        }
    } else if let Some(array) = value.as_array() {
        for (i, v) in array.iter().enumerate() {
            declared(v, &format!("{at}/{i}"), out);
        }
    }
}

#[test]
fn a_full_document_keeps_the_schema_and_the_schema_knows_nothing_else() {
    let value: Value = serde_json::from_str(&to_json(&document()).unwrap()).unwrap();
    let mut seen = BTreeSet::new();
    validate(&schema(), "", &value, "", &mut seen).unwrap();
    let mut all = BTreeSet::new();
    declared(&schema(), "", &mut all);
    let unused: Vec<_> = all.difference(&seen).collect();
    assert!(unused.is_empty(), "the schema declares what no document has: {unused:?}");
    assert_eq!(schema()["properties"]["schema"]["const"], SCHEMA);
}

#[test]
fn the_schema_refuses_what_is_not_an_audit() {
    let good: Value = serde_json::from_str(&to_json(&document()).unwrap()).unwrap();
    let changes: [(&str, Value); 7] = [
        ("/schema", json!("netproof-audit/2")),
        ("/seed", json!(-1)),
        ("/findings/0/verdict", json!("fine")),
        ("/findings/0/value", json!(null)),
        ("/findings/0/interval", json!({ "low": 0.0, "high": 1.0, "level": 0.95 })),
        ("/findings/0/evidence/0", json!({ "kind": "poem", "title": "t" })),
        ("/digest", json!("xyz")),
    ];
    for (at, wrong) in changes {
        let mut bad = good.clone();
        *bad.pointer_mut(at).unwrap() = wrong;
        assert!(validate(&schema(), "", &bad, "", &mut BTreeSet::new()).is_err(), "{at}");
    }
    let mut bad = good;
    bad["surprise"] = json!(1);
    assert!(validate(&schema(), "", &bad, "", &mut BTreeSet::new()).is_err());
}

#[test]
fn json_comes_back_as_it_was_and_ends_with_a_line_break() {
    let d = document();
    let text = to_json(&d).unwrap();
    assert!(text.ends_with("}\n") && text.contains("\n  \"seed\": 7"));
    assert_eq!(serde_json::from_str::<AuditDocument>(&text).unwrap(), d);
    assert_eq!(text, to_json(&d).unwrap());
}

#[test]
fn numbers_that_json_cannot_hold_are_refused_by_name() {
    let mut d = document();
    d.findings[2].value = Some(f64::NAN);
    let error = to_json(&d).unwrap_err().to_string();
    assert!(error.contains("other/a") && error.contains("value"), "{error}");
    let mut d = document();
    if let Some(Evidence::Plot(p)) = d.clock.findings[0].evidence.first_mut() {
        p.series[0].marks[0].low = Some(f64::INFINITY);
    }
    let error = to_json(&d).unwrap_err().to_string();
    assert!(error.contains("cost/latency") && error.contains("evidence 0"), "{error}");
    let mut d = document();
    d.clock.seconds.insert("x".into(), f64::NEG_INFINITY);
    assert!(to_json(&d).is_err());
}

#[test]
fn junit_counts_what_it_lists() {
    let xml = to_junit(&document());
    let tags = well_formed(&xml, &[]);
    let count = |name: &str| tags.iter().filter(|t| t.split([' ', '/']).next() == Some(name)).count();
    // Five findings, one clocked, one broken point of the policy.
    assert_eq!((count("testcase"), count("failure"), count("error"), count("skipped")), (7, 2, 1, 2));
    let top = tags.iter().find(|t| t.starts_with("testsuites")).unwrap();
    assert!(top.ends_with("tests=\"7\" failures=\"2\" errors=\"1\" skipped=\"2\""), "{top}");
    assert!(xml.contains(
        "<testsuite name=\"calibration\" tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"0\" time=\"1.500\">"
    ));
    assert!(!xml.chars().any(|c| c.is_control() && c != '\n') && !xml.contains("]]>") && !xml.contains("<script"));
}

#[test]
fn sarif_has_rules_levels_and_places() {
    let log: Value = serde_json::from_str(&to_sarif(&document(), &CARDS)).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let driver = &run["tool"]["driver"];
    assert_eq!((&driver["name"], &driver["version"]), (&json!("netproof"), &json!("0.1.0")));
    let rules: Vec<&Value> = driver["rules"].as_array().unwrap().iter().map(|r| &r["id"]).collect();
    assert_eq!(rules, ["calibration", "other", "policy"]);
    assert_eq!(driver["rules"][0]["fullDescription"]["text"], "Whether confidence is accuracy.");
    let results = run["results"].as_array().unwrap();
    let levels: Vec<&Value> = results.iter().map(|r| &r["level"]).collect();
    assert_eq!(levels, ["error", "note", "warning", "error"]);
    for r in results {
        let index = r["ruleIndex"].as_u64().unwrap() as usize;
        assert_eq!(driver["rules"][index]["id"], r["ruleId"]);
        let uri = r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].as_str().unwrap();
        assert!(uri.is_ascii() && !uri.contains(['<', ' ', '"']), "{uri}");
        assert!(r["message"]["text"].is_string() && r["partialFingerprints"].is_object());
    }
    let mut d = document();
    d.findings = vec![finding("a/b", Verdict::Concern)];
    d.findings[0].threshold = None;
    let log: Value = serde_json::from_str(&to_sarif(&d, &CARDS)).unwrap();
    assert_eq!(log["runs"][0]["results"][0]["level"], "warning");
    assert_eq!(log["runs"][0]["invocations"][0]["executionSuccessful"], true);
}

#[test]
fn the_summary_keeps_its_width_and_ends_with_the_files() {
    for width in [40, 80, 120] {
        let options = SummaryOptions { width, colour: false, files: vec!["runs/1/report.html".into()] };
        let text = summary(&document(), &options);
        assert!(text.ends_with("\nruns/1/report.html\n"));
        assert!(text.lines().all(|l| l.chars().count() <= width), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{0}', '\u{202e}']));
        for word in ["concern", "could not run", "not measured", "limit at most 0.1", "Policy"] {
            let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flat.contains(word), "{word} in {text}");
        }
    }
}

#[test]
fn colours_are_closed_and_only_on_request() {
    let options = SummaryOptions { colour: true, ..SummaryOptions::default() };
    let text = summary(&document(), &options);
    assert_eq!(text.matches("\u{1b}[0m").count() * 2, text.matches("\u{1b}[").count());
    assert!(text.contains("\u{1b}[31m") && !text.contains(HOSTILE));
}
