//! The small strip under a large figure: where value, interval and limit lie.

use netproof_core::{Comparison, Finding};

use super::axis::Scale;
use super::svg::Svg;
use netproof_core::Axis;

/// Draws value, interval and limit of a finding on one line; `None` where there is nothing to compare.
pub(crate) fn strip(f: &Finding, id: &str, title: &str) -> Option<String> {
    let value = f.value.filter(|v| v.is_finite())?;
    let ends = f.interval.as_ref().map(|i| (i.low, i.high)).filter(|(a, b)| a.is_finite() && b.is_finite());
    let threshold = f.threshold.as_ref().filter(|t| t.value.is_finite());
    if ends.is_none() && threshold.is_none() {
        return None;
    }
    let (width, y) = (240.0, 14.0);
    let all = [Some(value), ends.map(|e| e.0), ends.map(|e| e.1), threshold.map(|t| t.value)];
    let (lo, hi) = all.into_iter().flatten().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    let room = if hi > lo { (hi - lo) * 0.25 } else { lo.abs().max(1.0) * 0.1 };
    let range = Some((lo - room, hi + room)).filter(|(a, b)| a.is_finite() && b.is_finite())?;
    let scale = Scale::fit(&Axis { range: Some(range), ..Axis::default() }, std::iter::empty(), false, 4);
    let scale = scale.between(2.0, width - 2.0);
    let mut svg = Svg::new(width, 28.0);
    svg.line((2.0, y), (width - 2.0, y), "rail");
    if let Some((t, x)) = threshold.and_then(|t| scale.at(t.value).map(|x| (t, x))) {
        let (from, to) = match t.comparison {
            Comparison::AtLeast => (x, width - 2.0),
            Comparison::AtMost => (2.0, x),
        };
        svg.rect((from, y - 6.0), (to - from, 12.0), "good", "", "");
        svg.line((x, 3.0), (x, 25.0), "limit");
    }
    if let Some((a, b)) = ends.and_then(|(a, b)| Some((scale.at(a)?, scale.at(b)?))) {
        svg.line((a, y), (b, y), "whisker");
        svg.line((a, y - 4.0), (a, y + 4.0), "cap");
        svg.line((b, y - 4.0), (b, y + 4.0), "cap");
    }
    svg.circle((scale.at(value)?, y), 5.0, "value", "");
    Some(svg.finish(id, title, "The shaded side of the vertical line is within the limit."))
}
