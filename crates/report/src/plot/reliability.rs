//! Reliability diagrams: accuracy over confidence against the diagonal, and the number of samples per bin below.
//!
//! A series whose name holds `band` or `consistency` is drawn as a band: where a calibrated network of the same size
//! would lie. Bröcker and Smith 2007, Weather and Forecasting 22(3), section 3.

use netproof_core::{Axis, Plot, Series};

use super::axis::Scale;
use super::frame::Frame;
use super::svg::{Anchor, Svg};
use super::{Drawing, Key, series_class};
use crate::number::{count, plain};

/// Outer size of the square diagram with its labels.
const SIZE: (f64, f64) = (390.0, 390.0);
/// Height of the counts below.
const COUNTS: f64 = 56.0;

fn is_band(s: &Series) -> bool {
    let name = s.name.to_lowercase();
    name.contains("band") || name.contains("consistency")
}

/// Draws `plot`.
pub(super) fn draw(plot: &Plot, id: &str) -> Drawing {
    let unit = |a: &Axis, fallback: &str| Axis {
        label: if a.label.is_empty() { fallback.into() } else { a.label.clone() },
        range: Some((0.0, 1.0)),
        log: false,
    };
    let (x, y) = (unit(&plot.x, "mean confidence"), unit(&plot.y, "accuracy"));
    let none = || std::iter::empty();
    let mut frame = Frame::new(SIZE, Scale::fit(&x, none(), false, 5), Scale::fit(&y, none(), false, 5), 14.0);
    // A square, so that the diagonal is one.
    let side = (frame.right - frame.left).min(frame.bottom - frame.top);
    frame.right = frame.left + side;
    frame.x = frame.x.between(frame.left, frame.right);

    let counted: Vec<(f64, u64)> = plot
        .series
        .iter()
        .find(|s| !is_band(s) && s.marks.iter().any(|m| m.n.is_some()))
        .map(|s| s.marks.iter().filter_map(|m| Some((m.x.filter(|x| x.is_finite())?, m.n?))).collect())
        .unwrap_or_default();
    let extra = if counted.is_empty() { 0.0 } else { COUNTS + 26.0 };
    let mut svg = Svg::new(SIZE.0, SIZE.1 + extra);
    frame.draw(&mut svg, &x, &y);
    svg.line((frame.left, frame.bottom), (frame.right, frame.top), "ref");

    let mut legend = Vec::new();
    let mut dropped = 0;
    let mut drawn = 0;
    for series in &plot.series {
        let class = series_class(drawn);
        let points: Vec<_> =
            series.marks.iter().filter_map(|m| Some((frame.x.at(m.x?)?, frame.y.at(m.y)?, m))).collect();
        dropped += series.marks.iter().filter(|m| m.n != Some(0)).count().saturating_sub(points.len());
        let ends: Vec<_> =
            points.iter().filter_map(|(px, _, m)| Some((*px, frame.y.at(m.low?)?, frame.y.at(m.high?)?))).collect();
        if is_band(series) {
            let area: Vec<_> = ends.iter().map(|e| (e.0, e.2)).chain(ends.iter().rev().map(|e| (e.0, e.1))).collect();
            svg.path(&area, true, "band grey");
            legend.push(Key { class: "grey".into(), name: series.name.clone(), line: false });
            continue;
        }
        drawn += 1;
        for (px, low, high) in ends {
            svg.line((px, low), (px, high), &format!("wh {class}"));
        }
        let line: Vec<_> = points.iter().map(|p| (p.0, p.1)).collect();
        svg.path(&line, false, &format!("ln {class}"));
        for (px, py, m) in points {
            let n = m.n.map_or_else(String::new, |n| format!(", n = {}", count(n)));
            let tip = format!("confidence {}, accuracy {}{n}", plain(m.x.unwrap_or(0.0)), plain(m.y));
            svg.circle((px, py), 3.4, &format!("dot {class}"), &tip);
        }
        legend.push(Key { class, name: series.name.clone(), line: true });
    }
    if !counted.is_empty() {
        let most = counted.iter().map(|c| c.1).max().unwrap_or(1).max(1);
        let base = SIZE.1 + COUNTS + 22.0;
        svg.text((0.0, SIZE.1 + 14.0), Anchor::Start, "lb", "samples per bin", 160.0);
        svg.line((frame.left, base), (frame.right, base), "ax");
        let width = (side / counted.len().max(10) as f64 * 0.7).min(18.0);
        for (x, n) in &counted {
            if let Some(px) = frame.x.at(*x) {
                let h = (*n as f64 / most as f64) * (COUNTS - 4.0);
                let tip = format!("{} samples at confidence {}", count(*n), plain(*x));
                svg.rect((px - width / 2.0, base - h), (width, h), "bar grey", "", &tip);
            }
        }
        svg.text((frame.right, SIZE.1 + 14.0), Anchor::End, "tk", &format!("largest {}", count(most)), 160.0);
    }
    let bins: usize = plot.series.iter().filter(|s| !is_band(s)).map(|s| s.marks.len()).sum();
    let notes = if dropped > 0 { vec![format!("{dropped} bins without values are left out.")] } else { Vec::new() };
    let description = format!(
        "Reliability diagram: {} over {} in {bins} bins. On the dashed diagonal, confidence equals accuracy; below it \
         the network is overconfident.",
        y.label, x.label
    );
    if legend.len() < 2 {
        legend.clear();
    }
    Drawing { svg: svg.finish(id, &plot.title, &description), legend, notes }
}
