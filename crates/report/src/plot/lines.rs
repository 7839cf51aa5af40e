//! Lines with bands, and points with whiskers.

use netproof_core::{Mark, Plot, Series};

use super::axis::Scale;
use super::frame::Frame;
use super::svg::{Anchor, Svg, text_width};
use super::{Drawing, Key, series_class};
use crate::number::plain;

/// Outer size.
const SIZE: (f64, f64) = (430.0, 300.0);
/// A line has no more marks than this; the paper has no more columns.
const LINE_MARKS: usize = 480;
/// A cloud has no more points than this, all series together.
const CLOUD_MARKS: usize = 1500;
/// Up to this many marks say their numbers on hover.
const TIPS: usize = 150;

/// A mark whose position is known and finite.
#[derive(Debug, Clone)]
struct Placed<'a> {
    x: f64,
    mark: &'a Mark,
}

fn placed<'a>(series: &'a Series, plot: &Plot) -> Vec<Placed<'a>> {
    let shown = |v: f64, log: bool| v.is_finite() && (!log || v > 0.0);
    series
        .marks
        .iter()
        .enumerate()
        .map(|(i, mark)| Placed { x: mark.x.unwrap_or(i as f64), mark })
        .filter(|p| shown(p.x, plot.x.log) && shown(p.mark.y, plot.y.log))
        .collect()
}

/// Indices of at most `limit` of `values` that keep the shape of the line: first, last, and the extremes of each part.
pub(crate) fn thin_line(values: &[f64], limit: usize) -> Vec<usize> {
    if values.len() <= limit || limit < 4 {
        return (0..values.len()).collect();
    }
    let parts = limit / 2 - 1;
    let inner = values.len() - 2;
    let mut keep = vec![0];
    for part in 0..parts {
        let (from, to) = (1 + part * inner / parts, 1 + (part + 1) * inner / parts);
        let by = |a: &usize, b: &usize| {
            values.get(*a).copied().unwrap_or(0.0).total_cmp(&values.get(*b).copied().unwrap_or(0.0))
        };
        let mut ends: Vec<usize> = [(from..to).min_by(by), (from..to).max_by(by)].into_iter().flatten().collect();
        ends.sort_unstable();
        ends.dedup();
        keep.extend(ends);
    }
    keep.push(values.len() - 1);
    keep
}

fn tip(series: &Series, x: f64, m: &Mark) -> String {
    let mut out = match (&m.label, series.name.is_empty()) {
        (Some(l), _) => format!("{l}: "),
        (None, false) => format!("{}: ", series.name),
        (None, true) => String::new(),
    };
    out.push_str(&format!("{} at {}", plain(m.y), plain(x)));
    if let (Some(low), Some(high)) = (m.low, m.high) {
        out.push_str(&format!(", interval {} to {}", plain(low), plain(high)));
    }
    if let Some(n) = m.n {
        out.push_str(&format!(", n = {}", crate::number::count(n)));
    }
    out
}

/// Draws `plot`; `joined` marks form lines, others stay points.
pub(super) fn draw(plot: &Plot, id: &str, joined: bool) -> Drawing {
    let mut notes = Vec::new();
    let mut all: Vec<(&Series, Vec<Placed<'_>>)> = plot.series.iter().map(|s| (s, placed(s, plot))).collect();
    let given: usize = plot.series.iter().map(|s| s.marks.len()).sum();
    let usable: usize = all.iter().map(|(_, m)| m.len()).sum();
    if usable < given {
        notes.push(format!("{} of {} values cannot be shown on these axes.", given - usable, given));
    }
    let ends = |m: &Mark| [Some(m.y), m.low, m.high].into_iter().flatten();
    let ys = all.iter().flat_map(|(_, m)| m.iter().flat_map(|p| ends(p.mark))).chain(plot.reference);
    let y = Scale::fit(&plot.y, ys, false, 5);
    let x = Scale::fit(&plot.x, all.iter().flat_map(|(_, m)| m.iter().map(|p| p.x)), false, 6);

    for (_, marks) in &mut all {
        if joined && marks.len() > LINE_MARKS {
            let values: Vec<f64> = marks.iter().map(|p| p.mark.y).collect();
            let keep = thin_line(&values, LINE_MARKS);
            *marks = keep.iter().filter_map(|i| marks.get(*i).cloned()).collect();
        } else if !joined && usable > CLOUD_MARKS {
            let step = usable.div_ceil(CLOUD_MARKS);
            *marks = marks.iter().step_by(step).cloned().collect();
        }
    }
    let drawn: usize = all.iter().map(|(_, m)| m.len()).sum();
    if drawn < usable {
        notes.push(format!(
            "Drawn: {} of {} points; all are in audit.json.",
            crate::number::count(drawn as u64),
            crate::number::count(usable as u64)
        ));
    }

    let labels = if joined { direct_labels(&all, &y) } else { None };
    let room = labels.as_ref().map_or(0.0, |l| l.iter().map(|s| text_width(s)).fold(0.0, f64::max).min(130.0) + 14.0);
    let frame = Frame::new(SIZE, x, y, room);
    let mut svg = Svg::new(SIZE.0, SIZE.1);
    frame.draw(&mut svg, &plot.x, &plot.y);
    if let Some((r, py)) = plot.reference.and_then(|r| frame.y.at(r).map(|py| (r, py))) {
        svg.line((frame.left, py), (frame.right, py), "ref");
        svg.text((frame.right, py - 5.0), Anchor::End, "tk", &format!("reference {}", plain(r)), 200.0);
    }
    for (i, (_, marks)) in all.iter().enumerate().filter(|_| joined) {
        let side = |pick: fn(&Mark) -> Option<f64>| -> Vec<(f64, f64)> {
            marks.iter().filter_map(|p| Some((frame.x.at(p.x)?, frame.y.at(pick(p.mark)?)?))).collect()
        };
        let mut band = side(|m| m.high);
        let low = side(|m| m.low);
        if band.len() > 1 && low.len() == band.len() {
            band.extend(low.into_iter().rev());
            svg.path(&band, true, &format!("band {}", series_class(i)));
        }
    }
    for (i, (series, marks)) in all.iter().enumerate() {
        let class = series_class(i);
        let points: Vec<(f64, f64)> =
            marks.iter().filter_map(|p| Some((frame.x.at(p.x)?, frame.y.at(p.mark.y)?))).collect();
        if joined {
            svg.path(&points, false, &format!("ln {class}"));
        }
        let dots = !joined || points.len() <= 24;
        for (p, at) in marks.iter().zip(&points).filter(|_| dots) {
            if !joined
                && let (Some(a), Some(b)) =
                    (p.mark.low.and_then(|v| frame.y.at(v)), p.mark.high.and_then(|v| frame.y.at(v)))
            {
                svg.line((at.0, a), (at.0, b), &format!("wh {class}"));
            }
            let text = if drawn <= TIPS { tip(series, p.x, p.mark) } else { String::new() };
            svg.circle(*at, if drawn > 300 { 2.0 } else { 3.2 }, &format!("dot {class}"), &text);
        }
        if let (Some(l), Some(at)) = (&labels, points.last())
            && let Some(name) = l.get(i)
        {
            svg.text((frame.right + 8.0, at.1 + 4.0), Anchor::Start, &format!("dl {class}"), name, 130.0);
        }
    }
    if usable == 0 {
        svg.text(((frame.left + frame.right) / 2.0, 140.0), Anchor::Middle, "lb", "no values", 200.0);
    }
    let description = format!(
        "{} of {} over {}, {} series, {} values.",
        if joined { "Lines" } else { "Points" },
        plot.y.label,
        plot.x.label,
        plot.series.len(),
        usable
    );
    let legend = if labels.is_some() || plot.series.len() < 2 {
        Vec::new()
    } else {
        plot.series
            .iter()
            .enumerate()
            .map(|(i, s)| Key { class: series_class(i), name: s.name.clone(), line: joined })
            .collect()
    };
    Drawing { svg: svg.finish(id, &plot.title, &description), legend, notes }
}

/// Names to write at the ends of the lines, if there are few and they do not touch each other.
fn direct_labels(all: &[(&Series, Vec<Placed<'_>>)], y: &Scale) -> Option<Vec<String>> {
    if !(2..=4).contains(&all.len()) {
        return None;
    }
    let y = y.clone().between(SIZE.1 - 40.0, 30.0);
    let mut ends: Vec<f64> = all.iter().filter_map(|(_, m)| m.last().and_then(|p| y.at(p.mark.y))).collect();
    ends.sort_by(f64::total_cmp);
    let apart = ends.iter().zip(ends.iter().skip(1)).all(|(a, b)| b - a >= 14.0);
    (ends.len() == all.len() && apart).then(|| all.iter().map(|(s, _)| s.name.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_ends_and_peaks() {
        let mut values: Vec<f64> = (0..10_000).map(|i| f64::from(i % 7)).collect();
        if let Some(v) = values.get_mut(5_001) {
            *v = 99.0;
        }
        let keep = thin_line(&values, 480);
        assert!(keep.len() <= 480 && keep.contains(&5_001));
        assert_eq!((keep.first(), keep.last()), (Some(&0), Some(&9_999)));
        assert!(keep.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(thin_line(&[1.0, 2.0], 480), [0, 1]);
    }
}
