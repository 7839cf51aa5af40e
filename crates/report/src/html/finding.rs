//! One finding: the figure large, what it means, what limits it, what to do, and what stands behind it.

use netproof_core::Finding;

use super::evidence;
use super::{LONG, Page, SHORT, limit_text};
use crate::badge::Badge;
use crate::escape::{html as esc, shorten, slug};
use crate::number::{count, measure};
use crate::plot;

/// Text as paragraphs; empty lines part them.
fn paragraphs(text: &str) -> String {
    shorten(text, LONG)
        .split("\n\n")
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .map(|p| format!("<p>{}</p>", esc(p)))
        .collect()
}

/// Renders a finding; without `full`, its evidence is only counted. `plots` numbers the drawings of the page.
pub(super) fn render(
    page: &Page<'_>,
    f: &Finding,
    anchor: &str,
    clocked: bool,
    full: bool,
    plots: &mut usize,
) -> String {
    let mut out = format!(
        "<article class=\"finding\" aria-labelledby=\"{anchor}\">\n<h3 id=\"{anchor}\"><bdi>{}</bdi> <a class=\"id\" \
         href=\"#{anchor}\">{}</a></h3>\n<div class=\"body\">\n<div class=\"figure\">{}",
        esc(&shorten(&f.title, SHORT)),
        esc(&shorten(&f.id, 120)),
        Badge::of(f).html()
    );
    figure(f, plots, &mut out);
    out.push_str("</div>\n<div class=\"text\">\n");
    if f.explanation.trim().is_empty() {
        out.push_str("<p class=\"none\">No explanation was given.</p>");
    }
    out.push_str(&paragraphs(&f.explanation));
    if clocked {
        out.push_str("<p class=\"note\">Read from a clock or a meter: a second run will give another number.</p>");
    }
    if !f.caveats.is_empty() {
        out.push_str("\n<h4>What limits this</h4>\n<ul>");
        for c in f.caveats.iter().take(30) {
            out.push_str(&format!("<li>{}</li>", esc(&shorten(c, 2000))));
        }
        out.push_str("</ul>");
    }
    if !f.remedies.is_empty() {
        out.push_str("\n<h4>What to do</h4>\n<ul>");
        for r in f.remedies.iter().take(30) {
            match page.card(r) {
                Some(card) => out.push_str(&format!(
                    "<li><a href=\"#m-{}\">{}</a>: {} <span class=\"id\">{}</span></li>",
                    slug(card.id),
                    esc(card.title),
                    esc(card.measures),
                    esc(card.id)
                )),
                None => out.push_str(&format!("<li><code>{}</code></li>", esc(&shorten(r, 120)))),
            }
        }
        out.push_str("</ul>");
    }
    out.push_str("</div>\n</div>\n");
    if full {
        out.push_str(&evidence::render(page, &f.evidence, plots));
    } else if !f.evidence.is_empty() {
        out.push_str(
            "<p class=\"note\">The evidence is left out so that this page stays small; it is in audit.json.</p>\n",
        );
    }
    out.push_str("</article>\n");
    out
}

/// The large figure with interval, limit and sample count.
fn figure(f: &Finding, plots: &mut usize, out: &mut String) {
    let Some(m) = measure(f) else {
        if let Some(n) = f.n {
            out.push_str(&format!("<p class=\"meta\">n = {}</p>", count(n)));
        }
        return;
    };
    let unit = if m.unit.is_empty() {
        String::new()
    } else {
        format!(" <span class=\"unit\">{}</span>", esc(&shorten(&m.unit, 40)))
    };
    out.push_str(&format!("<p class=\"big\"><span class=\"num\">{}</span>{unit}</p>", m.value));
    if let Some(metric) = &f.metric {
        out.push_str(&format!("<p class=\"metric\"><bdi>{}</bdi></p>", esc(&shorten(metric, 120))));
    }
    *plots += 1;
    let title = format!("{}: value, interval and limit", f.metric.as_deref().unwrap_or(&f.title));
    if let Some(svg) = plot::strip(f, &format!("p{plots}"), &title) {
        out.push_str(&svg);
    }
    out.push_str("<dl class=\"meta\">");
    if let (Some((low, high)), Some(i)) = (&m.interval, &f.interval) {
        let percent = crate::number::plain((i.level * 1e4).round() / 100.0);
        out.push_str(&format!(
            "<div><dt>{percent} % interval</dt><dd><span class=\"num\">{low} to {high}</span> <span class=\"src\">{}</span></dd></div>",
            esc(&shorten(&i.method, 80))
        ));
    }
    if let (Some(limit), Some(t)) = (limit_text(f), &f.threshold) {
        out.push_str(&format!(
            "<div><dt>Limit</dt><dd><span class=\"num\">{limit}</span> <span class=\"src\">{}</span></dd></div>",
            esc(&shorten(&t.source, 200))
        ));
    } else {
        out.push_str("<div><dt>Limit</dt><dd>none declared</dd></div>");
    }
    if let Some(n) = f.n {
        out.push_str(&format!("<div><dt>n</dt><dd class=\"num\">{}</dd></div>", count(n)));
    }
    out.push_str("</dl>");
}
