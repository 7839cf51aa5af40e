//! Horizontal bars and forests: one row per name, so that long names stay readable and numbers line up.

use netproof_core::{Axis, Interval, Mark, Plot};

use super::axis::Scale;
use super::svg::{Anchor, Svg, TEXT, text_width};
use super::{Drawing, Key, series_class};
use crate::number::{column_decimals, count, decimals, fixed, plain};

/// Outer width.
const WIDTH: f64 = 430.0;
/// More rows than this are cut, with a note.
const ROWS: usize = 60;

/// One named row with its mark of each series.
struct Row<'a> {
    name: String,
    marks: Vec<Option<&'a Mark>>,
}

/// Rows in the order in which their names appear first.
fn rows(plot: &Plot) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    let mut known = std::collections::HashMap::new();
    for (s, series) in plot.series.iter().enumerate() {
        for (i, mark) in series.marks.iter().enumerate() {
            let name = mark.label.clone().unwrap_or_else(|| mark.x.map_or_else(|| count(i as u64 + 1), plain));
            let at = *known.entry(name.clone()).or_insert_with(|| {
                rows.push(Row { name, marks: vec![None; plot.series.len()] });
                rows.len() - 1
            });
            if let Some(slot) = rows.get_mut(at).and_then(|r| r.marks.get_mut(s)) {
                *slot = Some(mark);
            }
        }
    }
    rows
}

/// Which axis carries the values: rows are drawn downwards, so either may have been meant.
fn value_axis(plot: &Plot, forest: bool) -> &Axis {
    let (first, second) = if forest { (&plot.x, &plot.y) } else { (&plot.y, &plot.x) };
    let empty = |a: &Axis| a.label.is_empty() && a.range.is_none() && !a.log;
    let plain = |a: &Axis| a.range.is_none() && !a.log;
    if empty(first) || (plain(first) && !plain(second)) { second } else { first }
}

/// Value and interval with the digits that the interval supports.
fn numbers(m: &Mark, shared: Option<usize>, forest: bool) -> String {
    let interval = match (m.low, m.high) {
        (Some(low), Some(high)) if low.is_finite() && high.is_finite() => {
            Some(Interval { low, high, level: 0.0, method: String::new() })
        }
        _ => None,
    };
    let width = interval.as_ref().map_or(0.0, |i| (i.high - i.low).abs() / 2.0);
    let write = |v: f64| match shared {
        _ if forest && width > 1e-6 && width < 1e12 => {
            fixed(v, decimals(width, 2).min(if width < 1.0 { 3 } else { 6 }))
        }
        Some(d) => fixed(v, d),
        None => plain(v),
    };
    match interval {
        Some(i) if forest => format!("{} [{}, {}]", write(m.y), write(i.low), write(i.high)),
        _ => write(m.y),
    }
}

/// Draws bars, or a forest of values with whiskers.
pub(super) fn draw(plot: &Plot, id: &str, forest: bool) -> Drawing {
    let mut notes = Vec::new();
    let mut rows = rows(plot);
    let total = rows.len();
    if total > ROWS {
        rows.truncate(ROWS);
        notes.push(format!("Drawn: the first {ROWS} of {} rows; all are in audit.json.", count(total as u64)));
    }
    let per_row = plot.series.len().clamp(1, 8);
    let (bar, gap) = if forest {
        (16.0, 6.0)
    } else if per_row == 1 {
        (16.0, 8.0)
    } else {
        (12.0, 10.0)
    };
    let pitch = bar * per_row as f64 + gap;

    let axis = value_axis(plot, forest);
    let marks = || rows.iter().flat_map(|r| r.marks.iter().flatten().copied());
    let values = marks().flat_map(|m| [Some(m.y), m.low, m.high]).flatten().chain(plot.reference);
    let scale = Scale::fit(axis, values, !forest && !axis.log, 4);
    let shared = column_decimals(&marks().map(|m| m.y).collect::<Vec<_>>());

    let names = rows.iter().map(|r| text_width(&r.name)).fold(0.0, f64::max);
    let left = names.clamp(20.0, 130.0) + 10.0;
    let texts = marks().map(|m| text_width(&numbers(m, shared, forest))).fold(0.0, f64::max).min(150.0);
    let right = WIDTH - texts - 18.0;
    let scale = scale.between(left, right);
    let top = if plot.reference.is_some() { 22.0 } else { 8.0 };
    let bottom = top + pitch * rows.len().max(1) as f64;
    let mut svg = Svg::new(WIDTH, bottom + 42.0);

    let mut free_from = f64::NEG_INFINITY;
    for (v, label) in scale.ticks.iter().zip(scale.labels()) {
        if let Some(px) = scale.at(*v) {
            svg.line((px, top), (px, bottom), "gr");
            let half = text_width(&label) / 2.0;
            if px - half > free_from {
                svg.text((px, bottom + 16.0), Anchor::Middle, "tk", &label, 90.0);
                free_from = px + half + 4.0;
            }
        }
    }
    svg.text(((left + right) / 2.0, bottom + 34.0), Anchor::Middle, "lb", &axis.label, WIDTH - left);
    let base = scale.at(scale.base()).unwrap_or(left);
    for (r, row) in rows.iter().enumerate() {
        let y0 = top + pitch * r as f64 + gap / 2.0;
        let middle = y0 + bar * per_row as f64 / 2.0;
        svg.text((left - 10.0, middle + TEXT / 3.0), Anchor::End, "nm", &row.name, left - 10.0);
        for (s, mark) in row.marks.iter().take(per_row).enumerate() {
            let y = y0 + bar * s as f64;
            let cy = y + bar / 2.0;
            let class = series_class(s);
            let Some((m, px)) = mark.and_then(|m| scale.at(m.y).map(|px| (m, px))) else {
                if mark.is_some() || plot.series.len() == 1 {
                    svg.text((WIDTH, cy + TEXT / 3.0), Anchor::End, "tk", "–", 20.0);
                }
                continue;
            };
            let tip = m.n.map_or_else(String::new, |n| format!("{}: {}, n = {}", row.name, plain(m.y), count(n)));
            let whisker = (m.low.and_then(|v| scale.at(v)), m.high.and_then(|v| scale.at(v)));
            if !forest {
                svg.rect((px.min(base), y + 1.0), ((px - base).abs(), bar - 2.0), &format!("bar {class}"), "", &tip);
            }
            if let (Some(a), Some(b)) = whisker {
                svg.line((a, cy), (b, cy), &if forest { format!("wh {class}") } else { "wh over".into() });
            }
            if forest {
                svg.circle((px, cy), 3.6, &format!("dot {class}"), &tip);
            }
            svg.text((WIDTH, cy + TEXT / 3.0), Anchor::End, "vl", &numbers(m, shared, forest), 160.0);
        }
    }
    if !forest {
        svg.line((base, top), (base, bottom), "ax");
    }
    if let Some((r, px)) = plot.reference.and_then(|r| scale.at(r).map(|px| (r, px))) {
        svg.line((px, top - 4.0), (px, bottom), "ref");
        svg.text((px, 12.0), Anchor::Middle, "tk", &plain(r), 120.0);
    }
    if rows.is_empty() {
        svg.text((WIDTH / 2.0, top + 16.0), Anchor::Middle, "lb", "no values", 200.0);
    }
    let legend = if plot.series.len() > 1 {
        let names = plot.series.iter().take(8).enumerate();
        names.map(|(i, s)| Key { class: series_class(i), name: s.name.clone(), line: false }).collect()
    } else {
        Vec::new()
    };
    if plot.series.len() > 8 {
        notes.push(format!("Drawn: the first 8 of {} series; all are in audit.json.", plot.series.len()));
    }
    let what = if forest { "Values with intervals" } else { "Bars" };
    let description = format!("{what}: {} for {} rows, {} series.", axis.label, total, plot.series.len());
    Drawing { svg: svg.finish(id, &plot.title, &description), legend, notes }
}
