//! The free-form maps that describe model and data, as text for people.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::number::{count, plain};

type Map = BTreeMap<String, Value>;

/// Name of the model or the data.
pub(crate) fn name(map: &Map) -> Option<String> {
    text(map, &["name", "file", "path", "source"])
}

/// Number of rows of the data.
pub(crate) fn rows(map: &Map) -> Option<String> {
    ["rows", "n", "samples"].iter().find_map(|k| map.get(*k).and_then(Value::as_u64)).map(count)
}

fn text(map: &Map, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|k| map.get(*k).and_then(Value::as_str)).map(str::to_owned)
}

/// A value for people: numbers with separators, lists with commas.
pub(crate) fn value(v: &Value) -> String {
    match v {
        Value::Null => "–".into(),
        Value::Bool(b) => if *b { "yes" } else { "no" }.into(),
        Value::Number(n) => n.as_u64().map_or_else(|| n.as_f64().map_or_else(|| n.to_string(), plain), count),
        Value::String(s) => s.clone(),
        Value::Array(a) => a.iter().take(100).map(value).collect::<Vec<_>>().join(", "),
        Value::Object(o) => {
            o.iter().take(100).map(|(k, v)| format!("{k}: {}", value(v))).collect::<Vec<_>>().join("; ")
        }
    }
}

/// A key for people.
pub(crate) fn key(k: &str) -> String {
    k.replace('_', " ")
}
