//! Explanations of rows of a table: a waterfall for one, a beeswarm for many. SVG text that stands alone.

use std::fmt::Write as _;

use super::colour::{diverging, hex, sequential};
use super::short;

const ROW: f64 = 26.0;
const LEFT: f64 = 230.0;
const WIDTH: f64 = 860.0;
const RIGHT: f64 = 90.0;
const STYLE: &str = "<style>text{font:13px system-ui,sans-serif;fill:#222}.faint{fill:#6a6a6a}.small{font-size:12px}\
                     .end{text-anchor:end}.mid{text-anchor:middle}</style>";

/// A feature with what it adds to the score.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Name of the feature.
    pub name: String,
    /// Its value in the row, as people read it.
    pub value: String,
    /// Its attribution.
    pub attribution: f64,
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room { text.to_owned() } else { text.chars().take(room - 1).chain(['…']).collect() }
}

fn begin(height: f64, title: &str, subtitle: &str) -> String {
    let (title, subtitle) = (escaped(title), escaped(subtitle));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\"><title>{title}</title>{STYLE}<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\
         <text x=\"16\" y=\"26\" font-weight=\"600\">{title}</text><text x=\"16\" y=\"46\" class=\"faint small\">{subtitle}</text>"
    )
}

/// A round number as people write it.
fn tick(v: f64) -> String {
    let text = format!("{v:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" || text.is_empty() || v == 0.0 { "0".to_owned() } else { text.replace('-', "−") }
}

/// Round numbers over a range, about six.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let raw = (high - low) / 6.0;
    if !(raw > 0.0 && raw.is_finite()) {
        return vec![low];
    }
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw).unwrap_or(raw);
    let first = (low / step).ceil() as i64;
    (first..=(high / step).floor() as i64).map(|i| i as f64 * step).collect()
}

/// A picture of this file with a warning beside its title, where it hides no number.
pub fn marked(svg: &str, badge: &str) -> String {
    let wide = (badge.chars().count() as f64 * 7.2 + 24.0).min(WIDTH - 260.0);
    let left = WIDTH - 16.0 - wide;
    let banner = format!(
        "<rect x=\"{left:.1}\" y=\"6\" width=\"{wide:.1}\" height=\"28\" fill=\"#fff\" stroke=\"#b2182b\"/><text x=\"{:.1}\" y=\"25\" \
         class=\"mid\" style=\"fill:#b2182b;font-weight:600\">{}</text></svg>",
        left + wide / 2.0,
        escaped(&cut(badge, 82))
    );
    match svg.rfind("</svg>") {
        Some(end) => format!("{}{banner}\n", &svg[..end]),
        None => svg.to_owned(),
    }
}

/// From the baseline's score to the row's, feature by feature, largest first; those beyond `most` are one bar.
pub fn waterfall(title: &str, subtitle: &str, base: f64, columns: &[Column], most: usize) -> String {
    let mut all: Vec<Column> = columns.iter().filter(|c| c.attribution.is_finite()).cloned().collect();
    all.sort_by(|a, b| b.attribution.abs().total_cmp(&a.attribution.abs()).then_with(|| a.name.cmp(&b.name)));
    if all.len() > most {
        let rest = all.split_off(most.saturating_sub(1));
        let sum = rest.iter().map(|c| c.attribution).sum();
        all.push(Column { name: format!("{} other features", rest.len()), value: String::new(), attribution: sum });
    }
    let mut at = base;
    let mut steps = vec![base];
    for c in &all {
        at += c.attribution;
        steps.push(at);
    }
    let low = steps.iter().copied().fold(f64::INFINITY, f64::min);
    let high = steps.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let pad = ((high - low) * 0.08).max(1e-9);
    let (low, high) = (low - pad, high + pad);
    let x = |v: f64| LEFT + (v - low) / (high - low) * (WIDTH - LEFT - RIGHT);
    let top = 66.0;
    let bottom = top + ROW * (all.len() as f64 + 2.0);
    let mut svg = begin(bottom + 40.0, title, subtitle);
    for t in ticks(low, high) {
        let (x, t) = (x(t), tick(t));
        let _ = write!(
            svg,
            "<path d=\"M{x:.1} {top}V{bottom:.1}\" stroke=\"#e4e4e4\"/><text x=\"{x:.1}\" y=\"{:.1}\" class=\"mid small faint\">{t}</text>",
            bottom + 18.0
        );
    }
    let end = |svg: &mut String, i: usize, name: &str, v: f64| {
        let y = top + ROW * i as f64;
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"end\" font-weight=\"600\">{name}</text><path d=\"M{:.1} {:.1}v{:.1}\" stroke=\"#222\" \
             stroke-width=\"2\"/><text x=\"{:.1}\" y=\"{:.1}\" class=\"small\">{}</text>",
            LEFT - 12.0,
            y + 17.0,
            x(v),
            y + 3.0,
            ROW - 6.0,
            x(v) + 6.0,
            y + 17.0,
            short(v)
        );
    };
    end(&mut svg, 0, "baseline", base);
    for (i, c) in all.iter().enumerate() {
        let (from, to) = (steps[i], steps[i + 1]);
        let y = top + ROW * (i as f64 + 1.0);
        let colour = hex(diverging(if c.attribution < 0.0 { -0.7 } else { 0.7 }));
        let label = if c.value.is_empty() { c.name.clone() } else { format!("{} = {}", c.name, c.value) };
        let (left, wide) = (x(from.min(to)), (x(to) - x(from)).abs().max(1.0));
        let sign = if c.attribution > 0.0 { "+" } else { "" };
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"end\">{}</text><rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{wide:.1}\" height=\"{:.1}\" \
             fill=\"{colour}\"/><path d=\"M{:.1} {:.1}v{ROW}\" stroke=\"#999\" stroke-dasharray=\"2 2\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             class=\"small\">{sign}{}</text>",
            LEFT - 12.0,
            y + 17.0,
            escaped(&cut(&label, 32)),
            y + 4.0,
            ROW - 8.0,
            x(to),
            y + ROW - 4.0,
            left + wide + 5.0,
            y + 17.0,
            short(c.attribution)
        );
    }
    end(&mut svg, all.len() + 1, "score", at);
    svg.push_str("</svg>\n");
    svg
}

/// One line per feature, the most important first; one dot per row at its attribution, coloured by its value.
/// # Shapes
/// `attributions` and `values`: one vector per feature, with an entry per row
pub fn beeswarm(
    title: &str,
    subtitle: &str,
    names: &[String],
    attributions: &[Vec<f64>],
    values: &[Vec<f64>],
    most: usize,
) -> String {
    let size = |v: &[f64]| v.iter().filter(|v| v.is_finite()).map(|v| v.abs()).sum::<f64>() / v.len().max(1) as f64;
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by(|&a, &b| size(&attributions[b]).total_cmp(&size(&attributions[a])).then(a.cmp(&b)));
    order.truncate(most);
    let largest =
        order.iter().flat_map(|&i| &attributions[i]).filter(|v| v.is_finite()).fold(0f64, |m, v| m.max(v.abs()));
    let reach = if largest > 0.0 { largest * 1.05 } else { 1.0 };
    let x = |v: f64| LEFT + (v + reach) / (2.0 * reach) * (WIDTH - LEFT - RIGHT);
    let line = 30.0;
    let top = 66.0;
    let bottom = top + line * order.len() as f64;
    let mut svg = begin(bottom + 66.0, title, subtitle);
    for t in ticks(-reach, reach) {
        let stroke = if t == 0.0 { "#777" } else { "#e4e4e4" };
        let (x, t) = (x(t), tick(t));
        let _ = write!(
            svg,
            "<path d=\"M{x:.1} {top}V{bottom:.1}\" stroke=\"{stroke}\"/><text x=\"{x:.1}\" y=\"{:.1}\" class=\"mid small faint\">{t}</text>",
            bottom + 18.0
        );
    }
    for (k, &i) in order.iter().enumerate() {
        let middle = top + line * (k as f64 + 0.5);
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"end\">{}</text>",
            LEFT - 12.0,
            middle + 4.0,
            escaped(&cut(&names[i], 32))
        );
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"small faint\">{}</text>",
            WIDTH - RIGHT + 10.0,
            middle + 4.0,
            short(size(&attributions[i]))
        );
        let finite = values[i].iter().filter(|v| v.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        // Dots of one place stack away from the line, alternately up and down.
        let mut taken = std::collections::HashMap::<i64, i64>::new();
        for (&a, &v) in attributions[i].iter().zip(&values[i]).filter(|(a, _)| a.is_finite()) {
            let at = x(a);
            let stack = taken.entry((at / 4.0).round() as i64).or_insert(0);
            let offset = if *stack % 2 == 0 { (*stack + 1) / 2 } else { -(*stack + 1) / 2 };
            *stack += 1;
            let y = middle + (offset as f64 * 3.0).clamp(-line * 0.36, line * 0.36);
            let colour = if high > low && v.is_finite() {
                sequential(((v - low) / (high - low)) as f32)
            } else {
                [120, 120, 120]
            };
            let _ = write!(
                svg,
                "<circle cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{}\" fill-opacity=\"0.85\"/>",
                hex(colour)
            );
        }
    }
    let (bar, y) = (160.0, bottom + 34.0);
    for i in 0..40 {
        let _ = write!(
            svg,
            "<rect x=\"{:.1}\" y=\"{y}\" width=\"4.2\" height=\"10\" fill=\"{}\"/>",
            LEFT + f64::from(i) * 4.0,
            hex(sequential(i as f32 / 39.0))
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" class=\"end small faint\">low value</text><text x=\"{:.1}\" y=\"{:.1}\" class=\"small faint\">high value; grey: a \
         category; right: mean size of the attribution</text></svg>",
        LEFT - 8.0,
        y + 10.0,
        LEFT + bar + 8.0,
        y + 10.0
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, attribution: f64) -> Column {
        Column { name: name.to_owned(), value: "1".to_owned(), attribution }
    }

    #[test]
    fn a_waterfall_ends_at_the_score_and_sums_up_the_rest() {
        let columns = [column("a", 1.0), column("b<", -3.0), column("c", 0.25), column("d", 0.5)];
        let svg = waterfall("t", "s", 2.0, &columns, 3);
        assert!(svg.contains("b&lt; = 1") && svg.contains("2 other features") && svg.contains(">0.750<"), "{svg}");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    }

    #[test]
    fn a_beeswarm_has_a_dot_per_row_and_puts_the_largest_first() {
        let names = ["small".to_owned(), "large".to_owned()];
        let svg =
            beeswarm("t", "s", &names, &[vec![0.1, -0.1], vec![2.0, f64::NAN]], &[vec![0.0, 1.0], vec![3.0, 3.0]], 10);
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.find(">large<").unwrap() < svg.find(">small<").unwrap() && !svg.contains("NaN"));
        assert!(beeswarm("t", "s", &[], &[], &[], 10).contains("</svg>"));
    }

    #[test]
    fn a_warning_stands_in_the_picture() {
        let svg = marked(&beeswarm("t", "s", &[], &[], &[], 10), "do not rely on this: 90 % < all");
        assert!(svg.contains(">do not rely on this: 90 % &lt; all</text></svg>"), "{svg}");
        assert_eq!(svg.matches("</svg>").count(), 1);
    }

    #[test]
    fn ticks_are_round() {
        let near = |found: Vec<f64>, want: &[f64]| {
            found.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-9) && found.len() == want.len()
        };
        assert!(near(ticks(-1.0, 1.0), &[-1.0, -0.5, 0.0, 0.5, 1.0]));
        assert!(near(ticks(3.0, 3.0), &[3.0]));
    }
}
