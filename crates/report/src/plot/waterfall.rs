//! Waterfalls: how contributions add up from a base to the output, one row per step, so that each sum can be followed.

use netproof_core::Plot;

use super::axis::Scale;
use super::svg::{Anchor, Svg, TEXT, text_width};
use super::{Drawing, Key};
use crate::number::{MISSING, count, decimals, fixed, plain};

/// Outer width.
const WIDTH: f64 = 430.0;
/// More steps than this are added up in one last row.
const ROWS: usize = 30;
/// Height of a bar and the gap below it.
const BAR: f64 = 16.0;
const GAP: f64 = 7.0;

/// A row with where its bar starts and ends.
struct Step {
    name: String,
    from: f64,
    to: f64,
    ends: Option<(f64, f64)>,
    /// The first and the last row are sums, not steps.
    sum: bool,
}

/// Base, steps and output, and how many steps cannot be shown because they are not numbers.
fn steps(plot: &Plot, base: f64) -> (Vec<Step>, usize) {
    let marks: Vec<_> = plot.series.first().map(|s| s.marks.iter().collect()).unwrap_or_default();
    let given = marks.len();
    let finite: Vec<_> = marks.into_iter().filter(|m| m.y.is_finite()).collect();
    let lost = given - finite.len();
    let sum = |name: &str, v: f64| Step { name: name.into(), from: v, to: v, ends: None, sum: true };
    let mut at = base;
    let mut out = vec![sum("base", base)];
    let shown = if finite.len() > ROWS { ROWS - 1 } else { finite.len() };
    for (i, m) in finite.iter().take(shown).enumerate() {
        let name = m.label.clone().unwrap_or_else(|| count(i as u64 + 1));
        let ends = m.low.zip(m.high).map(|(low, high)| (at + low, at + high));
        out.push(Step { name, from: at, to: at + m.y, ends, sum: false });
        at += m.y;
    }
    if shown < finite.len() {
        let rest: f64 = finite.iter().skip(shown).map(|m| m.y).sum();
        let name = format!("{} others", count((finite.len() - shown) as u64));
        out.push(Step { name, from: at, to: at + rest, ends: None, sum: false });
        at += rest;
    }
    out.push(sum("output", at));
    (out, lost)
}

/// Draws `plot`.
pub(super) fn draw(plot: &Plot, id: &str, base: f64) -> Drawing {
    let base = if base.is_finite() { base } else { 0.0 };
    let (steps, lost) = steps(plot, base);
    let mut notes = Vec::new();
    if lost > 0 {
        notes.push(format!("{lost} steps without a number are left out, so the output is not complete."));
    }
    let ends = |s: &Step| [Some(s.from), Some(s.to), s.ends.map(|e| e.0), s.ends.map(|e| e.1)];
    let scale = Scale::fit(&plot.x, steps.iter().flat_map(ends).flatten().chain(plot.reference), false, 4);
    // Three digits of the largest number; sums and steps then line up.
    let largest = steps.iter().map(|s| s.to.abs().max((s.to - s.from).abs())).fold(0.0, f64::max);
    let shared = (1e-3..1e9).contains(&largest).then(|| decimals(largest, 3));
    let write = |v: f64| shared.map_or_else(|| plain(v), |d| fixed(v, d));
    let text = |s: &Step| match (s.sum, s.to - s.from) {
        (true, _) => write(s.to),
        (false, d) if !d.is_finite() => MISSING.into(),
        (false, d) if d > 0.0 => format!("+{}", write(d)),
        (false, d) => write(d),
    };
    let left = steps.iter().map(|s| text_width(&s.name)).fold(0.0, f64::max).clamp(40.0, 165.0) + 10.0;
    let right = WIDTH - steps.iter().map(|s| text_width(&text(s))).fold(0.0, f64::max).min(110.0) - 16.0;
    let scale = scale.between(left, right);
    let (top, pitch) = (6.0, BAR + GAP);
    let bottom = top + pitch * steps.len() as f64;
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
    let label = if plot.x.label.is_empty() { &plot.y.label } else { &plot.x.label };
    svg.text(((left + right) / 2.0, bottom + 34.0), Anchor::Middle, "lb", label, WIDTH - left);
    for (i, s) in steps.iter().enumerate() {
        let y = top + pitch * i as f64 + GAP / 2.0;
        let middle = y + BAR / 2.0;
        let (from, to) = (scale.at(s.from).unwrap_or(left), scale.at(s.to).unwrap_or(left));
        svg.text((left - 10.0, middle + TEXT / 3.0), Anchor::End, "nm", &s.name, left - 10.0);
        if s.sum {
            svg.line((to, y), (to, y + BAR), "limit");
            svg.circle((to, middle), 3.6, "value", "");
        } else {
            let class = if s.to >= s.from { "bar s0" } else { "bar s1" };
            let tip = format!("{}: {}, sum {}", s.name, text(s), write(s.to));
            svg.rect((from.min(to), y + 1.0), ((to - from).abs().max(0.8), BAR - 2.0), class, "", &tip);
            if let Some((a, b)) = s.ends.and_then(|(a, b)| Some((scale.at(a)?, scale.at(b)?))) {
                svg.line((a, middle), (b, middle), "wh over");
            }
        }
        if i + 1 < steps.len() {
            svg.line((to, y + BAR - 1.0), (to, y + pitch + 1.0), "ax");
        }
        svg.text((WIDTH, middle + TEXT / 3.0), Anchor::End, "vl", &text(s), 120.0);
    }
    let output = steps.last().map_or(base, |s| s.to);
    let description = format!(
        "Waterfall: {} steps from {} to {}. Bars to the right raise the output, bars to the left lower it.",
        count(plot.series.first().map_or(0, |s| s.marks.len()) as u64),
        plain(base),
        plain(output)
    );
    let legend = vec![
        Key { class: "s0".into(), name: "raises the output".into(), line: false },
        Key { class: "s1".into(), name: "lowers it".into(), line: false },
    ];
    Drawing { svg: svg.finish(id, &plot.title, &description), legend, notes }
}

#[cfg(test)]
mod tests {
    use netproof_core::{Axis, Mark, PlotKind, Series};

    use super::*;

    fn plot(values: &[f64]) -> Plot {
        let marks = values.iter().map(|y| Mark { y: *y, label: Some(format!("f{y}")), ..Mark::default() }).collect();
        Plot {
            title: "t".into(),
            x: Axis::new("output"),
            y: Axis::default(),
            plot: PlotKind::Waterfall { base: 1.0 },
            series: vec![Series { name: String::new(), marks }],
            reference: None,
        }
    }

    #[test]
    fn steps_add_up_from_base_to_output() {
        let (s, lost) = steps(&plot(&[2.0, -0.5, f64::NAN]), 1.0);
        let ends: Vec<(f64, f64)> = s.iter().map(|s| (s.from, s.to)).collect();
        assert_eq!(ends, [(1.0, 1.0), (1.0, 3.0), (3.0, 2.5), (2.5, 2.5)]);
        assert_eq!(lost, 1);
        let d = draw(&plot(&[2.0, -0.5]), "p", 1.0);
        assert!(d.svg.contains(">+2.00<") && d.svg.contains(">−0.50<") && d.svg.contains("from 1 to 2.5"), "{}", d.svg);
    }

    #[test]
    fn many_steps_keep_their_sum() {
        let (s, _) = steps(&plot(&[0.5; 100]), 1.0);
        assert_eq!(s.len(), ROWS + 2);
        assert_eq!((s[ROWS].name.as_str(), s[ROWS + 1].to), ("71 others", 51.0));
    }
}
