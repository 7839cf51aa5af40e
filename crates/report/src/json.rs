//! `audit.json`: the whole document, for machines.

use netproof_core::{AuditDocument, Cell, Evidence, Finding, Mark, PlotKind};

use crate::ReportError;

/// The document as indented JSON with a final line break; the schema is `docs/audit.schema.json`.
///
/// # Guarantees
/// The same document gives the same bytes: every map is sorted by key.
/// # Errors
/// [`ReportError::NotFinite`] names the finding and the field of a number that JSON cannot hold. Without this check
/// such a number would silently become `null`.
pub fn to_json(document: &AuditDocument) -> Result<String, ReportError> {
    check_finite(document)?;
    let mut out = serde_json::to_string_pretty(document)?;
    out.push('\n');
    Ok(out)
}

fn check_finite(document: &AuditDocument) -> Result<(), ReportError> {
    let fail = |place: String| Err(ReportError::NotFinite { place });
    for f in document.all_findings() {
        if let Some(field) = bad_field(f) {
            return fail(format!("finding {:?}, {field}", f.id));
        }
    }
    match document.clock.seconds.iter().find(|(_, s)| !s.is_finite()) {
        Some((check, _)) => fail(format!("clock.seconds of {check:?}")),
        None => Ok(()),
    }
}

fn bad_field(f: &Finding) -> Option<String> {
    let bad = |v: f64| !v.is_finite();
    if f.value.is_some_and(bad) {
        return Some("value".into());
    }
    if f.interval.as_ref().is_some_and(|i| [i.low, i.high, i.level].into_iter().any(bad)) {
        return Some("interval".into());
    }
    if f.threshold.as_ref().is_some_and(|t| bad(t.value)) {
        return Some("threshold".into());
    }
    f.evidence.iter().enumerate().find(|(_, e)| bad_evidence(e)).map(|(i, _)| format!("evidence {i}"))
}

fn bad_evidence(e: &Evidence) -> bool {
    let bad = |v: f64| !v.is_finite();
    let bad_mark = |m: &Mark| bad(m.y) || [m.x, m.low, m.high].into_iter().flatten().any(bad);
    match e {
        Evidence::Table(t) => t.rows.iter().flatten().any(|c| matches!(c, Cell::Number(v) if bad(*v))),
        Evidence::Plot(p) => {
            let matrix = matches!(&p.plot, PlotKind::Matrix { values, .. } if values.iter().any(|v| bad(*v)));
            let base = matches!(p.plot, PlotKind::Waterfall { base } if bad(base));
            let ranges = [p.x.range, p.y.range].into_iter().flatten().any(|(a, b)| bad(a) || bad(b));
            matrix
                || base
                || ranges
                || p.reference.is_some_and(bad)
                || p.series.iter().any(|s| s.marks.iter().any(bad_mark))
        }
        _ => false,
    }
}
