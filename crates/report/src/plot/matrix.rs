//! Matrices of counts as heat maps. The number stands in each cell, so that the shade is an aid and not the message.

use netproof_core::Plot;

use super::Drawing;
use super::svg::{Anchor, Svg, TEXT, text_width};
use crate::number::{column_decimals, count, fixed, plain};

/// More rows or columns than this are cut, with a note.
const SIDE: usize = 40;
/// Up to this many columns, cells hold their numbers.
const NUMBERED: usize = 14;

/// Shades with another text colour. `style.css` gives all three at least 4.5:1 in both themes; a test computes it.
const SHADE_LIMITS: (f64, f64) = (0.62, 0.75);

/// Class of the text in a cell of this shade.
fn shade_class(shade: f64) -> &'static str {
    if shade <= SHADE_LIMITS.0 {
        "lo"
    } else if shade <= SHADE_LIMITS.1 {
        "mid"
    } else {
        "hi"
    }
}

/// Which rows and columns are shown where not all can be: those with the most outside the diagonal.
fn chosen(rows: &[String], columns: &[String], at: &impl Fn(usize, usize) -> f64) -> (Vec<usize>, Vec<usize>) {
    if rows.len() <= SIDE && columns.len() <= SIDE {
        return ((0..rows.len()).collect(), (0..columns.len()).collect());
    }
    if rows != columns {
        return ((0..rows.len().min(SIDE)).collect(), (0..columns.len().min(SIDE)).collect());
    }
    let mut order: Vec<(f64, usize)> = (0..rows.len())
        .map(|r| {
            let off = |v: f64| if v.is_finite() { v.abs() } else { 0.0 };
            ((0..columns.len()).filter(|c| *c != r).map(|c| off(at(r, c)) + off(at(c, r))).sum(), r)
        })
        .collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut keep: Vec<usize> = order.into_iter().take(SIDE).map(|(_, r)| r).collect();
    keep.sort_unstable();
    (keep.clone(), keep)
}

/// Draws `plot`, whose values lie row by row.
pub(super) fn draw(plot: &Plot, id: &str, rows: &[String], columns: &[String], values: &[f64]) -> Drawing {
    let at = |r: usize, c: usize| values.get(r * columns.len() + c).copied().unwrap_or(f64::NAN);
    let (rs, cs) = chosen(rows, columns, &at);
    let mut notes = Vec::new();
    if rs.len() < rows.len() || cs.len() < columns.len() {
        let which = if rows == columns { "those confused most often" } else { "the first ones" };
        notes.push(format!(
            "Drawn: {} of {} rows and {} of {} columns, {which}; all are in audit.json.",
            rs.len(),
            count(rows.len() as u64),
            cs.len(),
            count(columns.len() as u64)
        ));
    }
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let counts = finite.iter().all(|v| *v >= 0.0 && v.fract() == 0.0);
    let largest = finite.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    let row_sum = |r: usize| (0..columns.len()).map(|c| at(r, c)).filter(|v| v.is_finite()).sum::<f64>();
    let d = column_decimals(&finite).map(|d| d.min(2));

    let numbered = cs.len() <= NUMBERED;
    let names = rs.iter().filter_map(|r| rows.get(*r)).map(|n| text_width(n)).fold(0.0, f64::max);
    let left = names.clamp(20.0, 110.0) + 8.0;
    let cell = if numbered {
        ((450.0 - left) / cs.len().max(1) as f64).clamp(32.0, 60.0)
    } else {
        ((560.0 - left) / cs.len().max(1) as f64).clamp(10.0, 30.0)
    };
    let height = if numbered { cell.min(38.0) } else { cell };
    let column_names = cs.iter().filter_map(|c| columns.get(*c)).map(|n| text_width(n)).fold(0.0, f64::max);
    let turned = column_names > cell - 4.0;
    let head = if turned { column_names.min(100.0) * 0.71 + 16.0 } else { 18.0 };
    let top = 22.0 + head;
    let spare = if turned { column_names.min(100.0) * 0.71 } else { 4.0 };
    let (width, bottom) = (left + cell * cs.len() as f64, top + height * rs.len() as f64);
    let mut svg = Svg::new(width + spare, bottom + 8.0);
    let axis = |label: &str, fallback: &str| if label.is_empty() { fallback.to_owned() } else { label.to_owned() };
    let heading = format!("{} ↓   {} →", axis(&plot.y.label, "truth"), axis(&plot.x.label, "prediction"));
    svg.text((0.0, TEXT), Anchor::Start, "lb", &heading, width);
    for (j, c) in cs.iter().enumerate() {
        let name = columns.get(*c).map_or("", String::as_str);
        let x = left + cell * (j as f64 + 0.5);
        if turned {
            svg.turned_text((x, top - 6.0), "nm", name, 100.0);
        } else {
            svg.text((x, top - 6.0), Anchor::Middle, "nm", name, cell);
        }
    }
    for (i, r) in rs.iter().enumerate() {
        let y = top + height * i as f64;
        let row_name = rows.get(*r).map_or("", String::as_str);
        svg.text((left - 8.0, y + height / 2.0 + TEXT / 3.0), Anchor::End, "nm", row_name, left - 8.0);
        let sum = row_sum(*r);
        for (j, c) in cs.iter().enumerate() {
            let v = at(*r, *c);
            let x = left + cell * j as f64;
            let base = if counts { sum } else { largest };
            let part = if v.is_finite() && base > 0.0 { (v.abs() / base).clamp(0.0, 1.0) } else { 0.0 };
            let shade = if counts { part.sqrt() } else { part };
            let tip = if cs.len() <= 25 {
                let name = columns.get(*c).map_or("", String::as_str);
                let share = if counts { format!(" ({} % of the row)", fixed(part * 100.0, 1)) } else { String::new() };
                format!("{row_name} → {name}: {}{share}", plain(v))
            } else {
                String::new()
            };
            let sign = if v < 0.0 { "heat neg" } else { "heat" };
            let extra = format!(" fill-opacity=\"{shade:.3}\"");
            if shade > 0.0005 || numbered {
                svg.rect((x + 0.5, y + 0.5), (cell - 1.0, height - 1.0), sign, &extra, &tip);
            }
            if numbered {
                let text = if v.is_finite() { d.map_or_else(|| plain(v), |d| fixed(v, d)) } else { "–".into() };
                let class = format!("ce {}{}", shade_class(shade), if v == 0.0 { " zero" } else { "" });
                svg.text((x + cell / 2.0, y + height / 2.0 + TEXT / 3.0), Anchor::Middle, &class, &text, cell);
            }
        }
    }
    svg.frame((left, top), (width - left, bottom - top));
    if counts && !finite.is_empty() {
        notes.push("Shade: share of the row, on a square-root scale so that rare errors show.".into());
    }
    let right: f64 =
        if rows == columns { (0..rows.len()).map(|i| at(i, i)).filter(|v| v.is_finite()).sum() } else { 0.0 };
    let total: f64 = finite.iter().sum();
    let description = if counts && rows == columns {
        format!(
            "Matrix of {} by {}: {} of {} lie on the diagonal.",
            rows.len(),
            columns.len(),
            plain(right),
            plain(total)
        )
    } else {
        format!("Matrix of {} by {} values.", rows.len(), columns.len())
    };
    Drawing { svg: svg.finish(id, &plot.title, &description), legend: Vec::new(), notes }
}
