//! What a network does, in the words of the model hub, from the facts of the audit.

use netproof_core::AuditDocument;
use serde_json::Value;

/// `image-classification`, `tabular-classification`, `tabular-regression` or `other`: from what the answers mean and from
/// the shape of a row.
///
/// # Source
/// Tasks of the Hugging Face hub, huggingface.co/tasks.
pub(crate) fn task(document: &AuditDocument) -> &'static str {
    let answers = document.model.get("answers").and_then(Value::as_str).unwrap_or_default();
    let rank = document.data.get("feature_shape").and_then(Value::as_array).map(Vec::len);
    let value = answers == "value" || answers.contains("number");
    match (answers.is_empty(), value, rank) {
        (true, _, _) | (_, _, None) => "other",
        (_, false, Some(2 | 3)) => "image-classification",
        (_, false, Some(0 | 1)) => "tabular-classification",
        (_, true, Some(0 | 1)) => "tabular-regression",
        _ => "other",
    }
}
