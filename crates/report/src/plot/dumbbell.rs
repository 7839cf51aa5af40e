//! Two values of one finding on one line, each with its interval, and the limit.

use netproof_core::{Axis, Comparison, Finding};

use super::axis::Scale;
use super::svg::Svg;

/// Draws the values of two findings; `None` unless both have one and their units agree.
pub(crate) fn dumbbell(a: Option<&Finding>, b: Option<&Finding>, id: &str, title: &str) -> Option<String> {
    let (a, b) = (a?, b?);
    let (va, vb) = (a.value.filter(|v| v.is_finite())?, b.value.filter(|v| v.is_finite())?);
    if a.unit != b.unit || a.metric != b.metric {
        return None;
    }
    let ends =
        |f: &Finding| f.interval.as_ref().map(|i| (i.low, i.high)).filter(|(l, h)| l.is_finite() && h.is_finite());
    let threshold = b.threshold.as_ref().or(a.threshold.as_ref()).filter(|t| t.value.is_finite());
    let mut all = vec![va, vb];
    all.extend([ends(a), ends(b)].into_iter().flatten().flat_map(|(l, h)| [l, h]));
    all.extend(threshold.map(|t| t.value));
    let (lo, hi) = all.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let room = if hi > lo { (hi - lo) * 0.15 } else { lo.abs().max(1.0) * 0.1 };
    let range = Some((lo - room, hi + room)).filter(|(l, h)| l.is_finite() && h.is_finite())?;
    let (width, first, second) = (200.0, 10.0, 24.0);
    let scale = Scale::fit(&Axis { range: Some(range), ..Axis::default() }, std::iter::empty(), false, 4);
    let scale = scale.between(4.0, width - 4.0);
    let mut svg = Svg::new(width, 34.0);
    if let Some((t, x)) = threshold.and_then(|t| scale.at(t.value).map(|x| (t, x))) {
        let (from, to) = if t.comparison == Comparison::AtLeast { (x, width - 2.0) } else { (2.0, x) };
        svg.rect((from, 2.0), (to - from, 30.0), "good", "", "");
        svg.line((x, 0.0), (x, 34.0), "limit");
    }
    for (y, f) in [(first, a), (second, b)] {
        svg.line((2.0, y), (width - 2.0, y), "rail");
        if let Some((l, h)) = ends(f).and_then(|(l, h)| Some((scale.at(l)?, scale.at(h)?))) {
            svg.line((l, y), (h, y), "whisker");
            svg.line((l, y - 3.5), (l, y + 3.5), "cap");
            svg.line((h, y - 3.5), (h, y + 3.5), "cap");
        }
    }
    svg.circle((scale.at(va)?, first), 4.5, "old", "");
    svg.circle((scale.at(vb)?, second), 5.0, "value", "");
    Some(svg.finish(id, title, "Above the first audit, below the second; whiskers are intervals."))
}
