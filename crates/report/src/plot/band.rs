//! Lines with the area between the first two shaded: what is known to hold below, what has been broken above.

use netproof_core::{Mark, Plot, Series};

use super::axis::Scale;
use super::frame::Frame;
use super::lines::thin_line;
use super::svg::{Anchor, Svg};
use super::{Drawing, Key, series_class};
use crate::number::{count, plain};

/// Outer size.
const SIZE: (f64, f64) = (430.0, 300.0);
/// A line has no more marks than this.
const LINE_MARKS: usize = 400;
/// Up to this many marks of a line are shown as dots.
const DOTS: usize = 24;

fn usable<'a>(series: &'a Series, plot: &Plot) -> Vec<(f64, &'a Mark)> {
    let shown = |v: f64, log: bool| v.is_finite() && (!log || v > 0.0);
    let marks = series.marks.iter().enumerate().map(|(i, m)| (m.x.unwrap_or(i as f64), m));
    let mut all: Vec<_> = marks.filter(|(x, m)| shown(*x, plot.x.log) && shown(m.y, plot.y.log)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all
}

/// Where the lower line lies above the upper one: such numbers contradict each other.
fn crossing(lower: &[(f64, &Mark)], upper: &[(f64, &Mark)]) -> Option<f64> {
    lower.iter().find(|(x, m)| upper.iter().any(|(u, n)| u == x && m.y > n.y)).map(|(x, _)| *x)
}

/// Draws `plot`.
pub(super) fn draw(plot: &Plot, id: &str) -> Drawing {
    let mut notes = Vec::new();
    let mut all: Vec<(&Series, Vec<(f64, &Mark)>)> =
        plot.series.iter().take(12).map(|s| (s, usable(s, plot))).collect();
    let given: usize = plot.series.iter().map(|s| s.marks.len()).sum();
    let kept: usize = all.iter().map(|(_, m)| m.len()).sum();
    if kept < given {
        notes.push(format!("{} of {} values cannot be shown.", count((given - kept) as u64), count(given as u64)));
    }
    if let [(lower, a), (upper, b), ..] = all.as_slice()
        && let Some(x) = crossing(a, b)
    {
        notes.push(format!(
            "{} lies above {} at {}: these numbers contradict each other.",
            crate::escape::shorten(&lower.name, 80),
            crate::escape::shorten(&upper.name, 80),
            plain(x)
        ));
    }
    for (_, marks) in &mut all {
        if marks.len() > LINE_MARKS {
            let keep = thin_line(&marks.iter().map(|m| m.1.y).collect::<Vec<_>>(), LINE_MARKS);
            *marks = keep.iter().filter_map(|i| marks.get(*i).copied()).collect();
        }
    }
    let drawn: usize = all.iter().map(|(_, m)| m.len()).sum();
    if drawn < kept {
        notes.push(format!("Drawn: {} of {} points; all are in audit.json.", count(drawn as u64), count(kept as u64)));
    }
    let ys = all.iter().flat_map(|(_, m)| m.iter()).flat_map(|(_, m)| [Some(m.y), m.low, m.high]).flatten();
    let y = Scale::fit(&plot.y, ys.chain(plot.reference), false, 5);
    let x = Scale::fit(&plot.x, all.iter().flat_map(|(_, m)| m.iter().map(|m| m.0)), false, 6);
    let frame = Frame::new(SIZE, x, y, 14.0);
    let mut svg = Svg::new(SIZE.0, SIZE.1);
    frame.draw(&mut svg, &plot.x, &plot.y);
    let lines: Vec<Vec<(f64, f64)>> = all
        .iter()
        .map(|(_, m)| m.iter().filter_map(|(x, m)| Some((frame.x.at(*x)?, frame.y.at(m.y)?))).collect())
        .collect();
    if let [lower, upper, ..] = lines.as_slice()
        && lower.len() > 1
        && upper.len() > 1
    {
        let area: Vec<_> = lower.iter().chain(upper.iter().rev()).copied().collect();
        svg.path(&area, true, "band grey");
    }
    if let Some((r, py)) = plot.reference.and_then(|r| frame.y.at(r).map(|py| (r, py))) {
        svg.line((frame.left, py), (frame.right, py), "ref");
        svg.text((frame.right, py - 5.0), Anchor::End, "tk", &format!("reference {}", plain(r)), 200.0);
    }
    for (i, ((series, marks), line)) in all.iter().zip(&lines).enumerate() {
        let class = series_class(i);
        svg.path(line, false, &format!("ln {class}"));
        for (x, m) in marks.iter().filter(|_| marks.len() <= DOTS) {
            let Some((px, py)) = frame.x.at(*x).zip(frame.y.at(m.y)) else { continue };
            if let Some((a, b)) = m.low.and_then(|v| frame.y.at(v)).zip(m.high.and_then(|v| frame.y.at(v))) {
                svg.line((px, a), (px, b), &format!("wh {class}"));
            }
            let n = m.n.map_or_else(String::new, |n| format!(", n = {}", count(n)));
            let tip = format!("{}: {} at {}{n}", series.name, plain(m.y), plain(*x));
            svg.circle((px, py), 3.2, &format!("dot {class}"), &tip);
        }
    }
    if drawn == 0 {
        svg.text(((frame.left + frame.right) / 2.0, 140.0), Anchor::Middle, "lb", "no values", 200.0);
    }
    // In the order in which they lie on the paper: the upper line first.
    let mut legend: Vec<Key> = all
        .iter()
        .enumerate()
        .map(|(i, (s, _))| Key { class: series_class(i), name: s.name.clone(), line: true })
        .collect();
    if legend.len() > 1 {
        legend.swap(0, 1);
        legend.insert(1, Key { class: "band grey".into(), name: "not known".into(), line: false });
    }
    let names: Vec<&str> = all.iter().take(2).map(|(s, _)| s.name.as_str()).collect();
    let description = format!(
        "Lines of {} over {}, {} values; the area between {} is shaded.",
        plot.y.label,
        plot.x.label,
        count(kept as u64),
        if names.len() == 2 { names.join(" and ") } else { "the lines".into() }
    );
    Drawing { svg: svg.finish(id, &plot.title, &description), legend, notes }
}

#[cfg(test)]
mod tests {
    use netproof_core::{Axis, PlotKind};

    use super::*;

    fn plot(lower: [f64; 2], upper: [f64; 2]) -> Plot {
        let series = |name: &str, y: [f64; 2]| Series {
            name: name.into(),
            marks: y.iter().enumerate().map(|(i, y)| Mark { x: Some(i as f64), y: *y, ..Mark::default() }).collect(),
        };
        Plot {
            title: "t".into(),
            x: Axis::new("epsilon"),
            y: Axis::unit("accuracy"),
            plot: PlotKind::Band,
            series: vec![series("certified", lower), series("attacked", upper)],
            reference: None,
        }
    }

    #[test]
    fn the_area_lies_between_the_lines_and_the_upper_one_is_named_first() {
        let d = draw(&plot([0.8, 0.2], [0.8, 0.5]), "p");
        assert_eq!(d.svg.matches("band grey").count(), 1);
        let names: Vec<&str> = d.legend.iter().map(|k| k.name.as_str()).collect();
        assert_eq!(names, ["attacked", "not known", "certified"]);
        assert!(d.notes.is_empty());
    }

    #[test]
    fn lines_that_contradict_each_other_are_named() {
        let d = draw(&plot([0.8, 0.6], [0.8, 0.5]), "p");
        assert_eq!(d.notes, ["certified lies above attacked at 1: these numbers contradict each other."]);
    }
}
