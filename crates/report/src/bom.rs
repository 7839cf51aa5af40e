//! CycloneDX 1.6 bill of materials for a network (ECMA-424): the model with its card, and its data sets.
//!
//! A metric stands there only where the finding's verdict is pass or concern; what is inconclusive or could not run is
//! listed as a property, never as a figure. `slice` of a metric is the id of the finding that says it. Values are text,
//! as the schema wants them.

use netproof_core::{AuditDocument, Finding, Verdict};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::escape::{shorten, terminal};
use crate::meta;
use crate::prose::figure;
use crate::task::task;

/// Longest piece of text.
const LONG: usize = 600;

fn clean(text: &str) -> String {
    terminal(&shorten(text, LONG))
}

/// The document as a CycloneDX 1.6 ML-BOM, indented JSON with a final line break.
///
/// # Guarantees
/// The same document gives the same bytes; the serial number is made of the audit's digest.
pub fn to_bom(document: &AuditDocument) -> String {
    let model_name = clean(&meta::name(&document.model).unwrap_or_else(|| "unnamed model".into()));
    let data: Vec<Value> = ["", "train_"].into_iter().filter_map(|prefix| data_set(document, prefix)).collect();
    let references: Vec<Value> = data.iter().map(|d| json!({ "ref": d["bom-ref"] })).collect();
    let mut parameters = Map::new();
    let task = task(document);
    if task != "other" {
        parameters.insert("task".into(), json!(task));
    }
    if !references.is_empty() {
        parameters.insert("datasets".into(), json!(references));
    }
    for key in ["inputs", "outputs"] {
        let ports: Vec<Value> = document
            .model
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .take(100)
            .map(|p| json!({ "format": clean(p) }))
            .collect();
        if !ports.is_empty() {
            parameters.insert(key.into(), json!(ports));
        }
    }
    let trusted: Vec<&Finding> =
        document.all_findings().filter(|f| matches!(f.verdict, Verdict::Pass | Verdict::Concern)).collect();
    let metrics: Vec<Value> = trusted.iter().filter_map(|f| metric(f)).collect();
    let mut card = Map::new();
    card.insert("bom-ref".into(), json!("model-card"));
    if !parameters.is_empty() {
        card.insert("modelParameters".into(), Value::Object(parameters));
    }
    if !metrics.is_empty() {
        card.insert("quantitativeAnalysis".into(), json!({ "performanceMetrics": metrics }));
    }
    let limits: Vec<String> = document
        .all_findings()
        .filter(|f| f.verdict == Verdict::Concern)
        .map(|f| {
            let figure = figure(f);
            let tail = if figure.is_empty() { String::new() } else { format!(": {figure}") };
            clean(&format!("{}{tail} [finding {}]", f.title, f.id))
        })
        .collect();
    if !limits.is_empty() {
        card.insert("considerations".into(), json!({ "technicalLimitations": limits }));
    }
    let verdicts: Vec<Value> = document
        .all_findings()
        .map(|f| json!({ "name": format!("netproof:finding:{}", clean(&f.id)), "value": f.verdict.name() }))
        .collect();
    if !verdicts.is_empty() {
        card.insert("properties".into(), json!(verdicts));
    }
    let mut model = Map::new();
    model.insert("type".into(), json!("machine-learning-model"));
    model.insert("bom-ref".into(), json!("model"));
    model.insert("name".into(), json!(model_name));
    model.insert("mime-type".into(), json!("application/octet-stream"));
    if let Some(hash) = sha256(document.model.get("sha256")) {
        model.insert("hashes".into(), json!([{ "alg": "SHA-256", "content": hash }]));
    }
    model.insert("modelCard".into(), Value::Object(card));
    if let Some(n) = document.model.get("parameters").and_then(Value::as_u64) {
        model.insert("properties".into(), json!([{ "name": "netproof:parameters", "value": n.to_string() }]));
    }
    let (tool, version) = document.tool.split_once(' ').unwrap_or((&document.tool, ""));
    let tool = json!({ "type": "application", "name": clean(tool), "version": clean(version) });
    let mut metadata = Map::new();
    if date_time(&document.clock.started) {
        metadata.insert("timestamp".into(), json!(document.clock.started));
    }
    metadata.insert("tools".into(), json!({ "components": [tool] }));
    metadata.insert("component".into(), Value::Object(model));
    metadata.insert(
        "properties".into(),
        json!([
            { "name": "netproof:audit:digest", "value": clean(&document.digest) },
            { "name": "netproof:audit:schema", "value": clean(&document.schema) },
            { "name": "netproof:audit:seed", "value": document.seed.to_string() },
        ]),
    );
    let depends: Vec<&Value> = data.iter().map(|d| &d["bom-ref"]).collect();
    let bom = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial(document),
        "version": 1,
        "metadata": metadata,
        "components": data,
        "dependencies": [{ "ref": "model", "dependsOn": depends }],
    });
    // A value that was just made of maps, lists and text.
    let mut out = serde_json::to_string_pretty(&bom).unwrap_or_default();
    out.push('\n');
    out
}

fn metric(f: &Finding) -> Option<Value> {
    let value = f.value.filter(|v| v.is_finite())?;
    let name = f.metric.as_deref().unwrap_or(&f.title);
    let unit = f.unit.as_deref().filter(|u| !matches!(*u, "fraction" | ""));
    let mut out = Map::new();
    out.insert("type".into(), json!(clean(&unit.map_or_else(|| name.to_owned(), |u| format!("{name} ({u})")))));
    out.insert("value".into(), json!(value.to_string()));
    out.insert("slice".into(), json!(clean(&f.id)));
    if let Some(i) = f.interval.as_ref().filter(|i| i.low.is_finite() && i.high.is_finite()) {
        let ends = json!({ "lowerBound": i.low.to_string(), "upperBound": i.high.to_string() });
        out.insert("confidenceInterval".into(), ends);
    }
    Some(Value::Object(out))
}

/// A data set as a component. Its hash covers the content as it was read, not the file, so it is a property.
fn data_set(document: &AuditDocument, prefix: &str) -> Option<Value> {
    let of = |key: &str| document.data.get(&format!("{prefix}{key}"));
    let name = of("name").and_then(Value::as_str)?;
    let (reference, role) = if prefix.is_empty() { ("data-test", "evaluation") } else { ("data-train", "training") };
    let mut properties = vec![json!({ "name": "netproof:role", "value": role })];
    for (key, label) in [("rows", "netproof:rows"), ("feature_shape", "netproof:feature-shape")] {
        if let Some(v) = of(key) {
            properties.push(json!({ "name": label, "value": clean(&v.to_string()) }));
        }
    }
    if let Some(hash) = sha256(of("sha256")) {
        properties.push(json!({ "name": "netproof:content-sha256", "value": hash }));
    }
    let name = clean(name);
    Some(json!({
        "type": "data",
        "bom-ref": reference,
        "name": name,
        "data": [{ "type": "dataset", "name": name }],
        "properties": properties,
    }))
}

/// A SHA-256 in lower-case hexadecimal; anything else is no hash.
fn sha256(v: Option<&Value>) -> Option<&str> {
    let hex = |s: &str| s.len() == 64 && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    v.and_then(Value::as_str).filter(|s| hex(s))
}

/// Whether this is `YYYY-MM-DDTHH:MM:SSZ`.
fn date_time(text: &str) -> bool {
    text.len() == 20
        && text
            .bytes()
            .zip(*b"0000-00-00T00:00:00Z")
            .all(|(b, form)| if form == b'0' { b.is_ascii_digit() } else { b == form })
}

/// A UUID of version 8 (RFC 9562, section 5.8) made of the digest.
fn serial(document: &AuditDocument) -> String {
    let hash = Sha256::digest(format!("netproof bom\n{}\n{}", document.digest, document.clock.started));
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&hash[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("urn:uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
