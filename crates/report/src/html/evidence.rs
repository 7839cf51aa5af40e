//! What stands behind a finding: plots, tables, pictures, row ids.

use netproof_core::{Cell, Evidence, Plot, PlotKind, Table};

use super::{Page, SHORT, gallery};
use crate::escape::{html as esc, shorten};
use crate::number::{MISSING, column_decimals, count, fixed, plain};
use crate::plot;

/// Plots with more values than this do not repeat them as a table.
const LISTED: usize = 40;
/// Most pieces of evidence of one finding.
const PIECES: usize = 60;
/// Most columns of one table.
const COLUMNS: usize = 40;

/// All evidence of a finding; plots first share a grid, tables take the whole width.
pub(super) fn render(page: &Page<'_>, evidence: &[Evidence], plots: &mut usize) -> String {
    if evidence.is_empty() {
        return String::new();
    }
    let mut out = format!(
        "<div class=\"evidence{}\">\n",
        if matches!(evidence, [e] if !matches!(e, Evidence::Gallery(_))) { " single" } else { "" }
    );
    for e in evidence.iter().take(PIECES) {
        match e {
            Evidence::Plot(p) => figure(p, plots, &mut out),
            Evidence::Table(t) => table(page, t, &mut out),
            Evidence::Rows { title, ids } => rows(page, title, ids, &mut out),
            Evidence::Image(picture) => gallery::image(page, picture, &mut out),
            Evidence::Gallery(g) => gallery::render(page, g, &mut out),
            _ => out.push_str(
                "<p class=\"note\">Evidence of a kind that this page cannot show; it is in audit.json.</p>\n",
            ),
        }
    }
    if evidence.len() > PIECES {
        out.push_str(&format!(
            "<p class=\"note\">Shown: {PIECES} of {} pieces of evidence; all are in audit.json.</p>\n",
            count(evidence.len() as u64)
        ));
    }
    out.push_str("</div>\n");
    out
}

fn figure(p: &Plot, plots: &mut usize, out: &mut String) {
    *plots += 1;
    let drawing = plot::draw(p, &format!("p{plots}"));
    let wide = match &p.plot {
        PlotKind::Matrix { columns, .. } if columns.len() > 8 => " full",
        _ => "",
    };
    out.push_str(&format!(
        "<figure class=\"chart{wide}\">\n<figcaption>{}</figcaption>\n<div class=\"canvas\" tabindex=\"0\" role=\"region\" \
         aria-label=\"Plot: {}\">{}</div>\n",
        esc(&shorten(&p.title, SHORT)),
        esc(&shorten(&p.title, 120)),
        drawing.svg
    ));
    if !drawing.legend.is_empty() {
        out.push_str("<ul class=\"legend\">");
        for k in drawing.legend.iter().take(40) {
            let shape = if k.line {
                format!("<line class=\"ln {}\" x1=\"0\" y1=\"6\" x2=\"20\" y2=\"6\"/>", k.class)
            } else {
                format!("<rect class=\"bar {}\" x=\"4\" y=\"0\" width=\"12\" height=\"12\"/>", k.class)
            };
            out.push_str(&format!(
                "<li><svg class=\"swatch\" aria-hidden=\"true\" viewBox=\"0 0 20 12\" width=\"20\" height=\"12\">{shape}</svg><bdi>{}</bdi></li>",
                esc(&shorten(&k.name, 120))
            ));
        }
        out.push_str("</ul>\n");
    }
    for n in &drawing.notes {
        out.push_str(&format!("<p class=\"note\">{}</p>\n", esc(n)));
    }
    data(p, out);
    out.push_str("</figure>\n");
}

/// The numbers of a small plot, for those who cannot see it and for those who want to check it.
fn data(p: &Plot, out: &mut String) {
    let total: usize = p.series.iter().map(|s| s.marks.len()).sum();
    if total == 0 || total > LISTED {
        return;
    }
    let marks = || p.series.iter().flat_map(|s| s.marks.iter().map(move |m| (s, m)));
    let has = (
        p.series.len() > 1,
        marks().any(|(_, m)| m.label.is_some()),
        marks().any(|(_, m)| m.x.is_some()),
        marks().any(|(_, m)| m.low.is_some() || m.high.is_some()),
        marks().any(|(_, m)| m.n.is_some()),
    );
    let value_name = match (p.plot == PlotKind::Forest, p.x.label.is_empty(), p.y.label.is_empty()) {
        (true, false, _) => &p.x.label,
        (false, _, false) => &p.y.label,
        _ => "value",
    };
    let x_name = if p.x.label.is_empty() { "x" } else { &p.x.label };
    let head = [
        (has.0, "Series", ""),
        (has.1, "Name", ""),
        (has.2, x_name, " class=\"r\""),
        (true, value_name, " class=\"r\""),
        (has.3, "Low", " class=\"r\""),
        (has.3, "High", " class=\"r\""),
        (has.4, "n", " class=\"r\""),
    ];
    out.push_str("<details><summary>Numbers</summary>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Numbers of the plot\"><table class=\"small\">\n<thead><tr>");
    for (_, name, class) in head.iter().filter(|h| h.0) {
        out.push_str(&format!("<th scope=\"col\"{class}>{}</th>", esc(&shorten(name, 120))));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    let number = |v: Option<f64>| format!("<td class=\"r\">{}</td>", v.map_or_else(|| MISSING.into(), plain));
    for (s, m) in marks() {
        out.push_str("<tr>");
        if has.0 {
            out.push_str(&format!("<td>{}</td>", esc(&shorten(&s.name, 120))));
        }
        if has.1 {
            out.push_str(&format!("<td>{}</td>", esc(&shorten(m.label.as_deref().unwrap_or(MISSING), 120))));
        }
        if has.2 {
            out.push_str(&number(m.x));
        }
        out.push_str(&number(Some(m.y)));
        if has.3 {
            out.push_str(&number(m.low));
            out.push_str(&number(m.high));
        }
        if has.4 {
            out.push_str(&format!("<td class=\"r\">{}</td>", m.n.map_or_else(|| MISSING.into(), count)));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div></details>\n");
}

fn table(page: &Page<'_>, t: &Table, out: &mut String) {
    let shown = t.rows.len().min(page.options.max_table_rows);
    let width = t.columns.len().min(COLUMNS);
    let numeric: Vec<bool> = (0..width)
        .map(|c| {
            let mut cells = t.rows.iter().filter_map(|r| r.get(c)).filter(|v| !matches!(v, Cell::Missing)).peekable();
            cells.peek().is_some() && cells.all(|v| !matches!(v, Cell::Text(_)))
        })
        .collect();
    let digits: Vec<Option<usize>> = (0..width)
        .map(|c| {
            let values: Vec<f64> = t
                .rows
                .iter()
                .take(shown)
                .filter_map(|r| match r.get(c) {
                    Some(Cell::Number(v)) => Some(*v),
                    _ => None,
                })
                .collect();
            column_decimals(&values)
        })
        .collect();
    let title = esc(&shorten(&t.title, SHORT));
    let size = if width > 3 || t.rows.len() > 30 { " full" } else { "" };
    out.push_str(&format!(
        "<div class=\"scroll tablebox{size}\" tabindex=\"0\" role=\"region\" aria-label=\"Table: {title}\"><table>\n<caption>{title}</caption>\n<thead><tr>"
    ));
    for (c, name) in t.columns.iter().take(width).enumerate() {
        let class = if numeric.get(c) == Some(&true) { " class=\"r\"" } else { "" };
        out.push_str(&format!("<th scope=\"col\"{class}>{}</th>", esc(&shorten(name, 120))));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in t.rows.iter().take(shown) {
        out.push_str("<tr>");
        for (c, cell) in row.iter().take(width).enumerate() {
            let right = numeric.get(c) == Some(&true);
            let text = match cell {
                Cell::Count(n) if t.columns.get(c).is_some_and(|name| names_rows(name)) => n.to_string(),
                Cell::Count(n) => count(*n),
                Cell::Number(v) => match digits.get(c).copied().flatten() {
                    Some(d) if v.is_finite() => fixed(*v, d),
                    _ => plain(*v),
                },
                Cell::Text(s) => esc(&shorten(s, SHORT)),
                Cell::Missing => MISSING.into(),
            };
            match (c, right) {
                (0, false) => out.push_str(&format!("<th scope=\"row\">{text}</th>")),
                (_, true) => out.push_str(&format!("<td class=\"r\">{text}</td>")),
                (_, false) => out.push_str(&format!("<td>{text}</td>")),
            }
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>");
    if t.rows.is_empty() {
        out.push_str("<p class=\"note\">No rows.</p>");
    }
    if shown < t.rows.len() || width < t.columns.len() {
        let columns = if width < t.columns.len() {
            format!(" and {width} of {} columns", count(t.columns.len() as u64))
        } else {
            String::new()
        };
        out.push_str(&format!(
            "<p class=\"note\">Shown: {} of {} rows{columns}; all are in audit.json.</p>",
            count(shown as u64),
            count(t.rows.len() as u64)
        ));
    }
    out.push_str("</div>\n");
}

/// Whether a column holds ids, which are names and not amounts.
fn names_rows(column: &str) -> bool {
    let name = column.to_lowercase();
    matches!(name.as_str(), "row" | "id") || name.ends_with(" id") || name.ends_with(" row")
}

fn rows(page: &Page<'_>, title: &str, ids: &[u64], out: &mut String) {
    let shown = page.options.max_table_rows.max(20);
    let list: Vec<String> = ids.iter().take(shown).map(u64::to_string).collect();
    out.push_str(&format!(
        "<div class=\"rows\"><p class=\"caption\">{}</p><p class=\"num\">{}</p>",
        esc(&shorten(title, SHORT)),
        if list.is_empty() { "none".into() } else { list.join(", ") }
    ));
    if ids.len() > shown {
        out.push_str(&format!(
            "<p class=\"note\">Shown: {} of {} rows; all are in audit.json.</p>",
            count(shown as u64),
            count(ids.len() as u64)
        ));
    }
    out.push_str("</div>\n");
}
