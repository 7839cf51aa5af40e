//! Two aims at once: each treatment is an arrow from before to after, and what nothing else beats is joined.

use netproof_core::{Comparison, Mark, Plot};

use super::axis::Scale;
use super::frame::Frame;
use super::svg::{Anchor, Svg, text_width};
use super::{Drawing, Key, series_class};
use crate::number::{count, plain};

/// Outer size.
const SIZE: (f64, f64) = (430.0, 320.0);
/// More treatments than this are cut.
const SERIES: usize = 24;
/// More marks than this in one treatment are cut in the middle.
const MARKS: usize = 40;

/// Whether `a` is at least as good as `b` in both aims and better in one.
fn beats(a: (f64, f64), b: (f64, f64), aims: (Comparison, Comparison)) -> bool {
    let good = |v: f64, c: Comparison| if c == Comparison::AtLeast { v } else { -v };
    let (ax, ay, bx, by) = (good(a.0, aims.0), good(a.1, aims.1), good(b.0, aims.0), good(b.1, aims.1));
    ax >= bx && ay >= by && (ax > bx || ay > by)
}

/// Points that no other point beats, from left to right.
fn front(points: &[(f64, f64)], aims: (Comparison, Comparison)) -> Vec<(f64, f64)> {
    let mut best: Vec<_> = points.iter().copied().filter(|p| !points.iter().any(|q| beats(*q, *p, aims))).collect();
    best.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    best.dedup();
    best
}

/// A line with a head, that ends a little before `to` so that the point there stays visible.
fn arrow(svg: &mut Svg, from: (f64, f64), to: (f64, f64), class: &str) {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = dx.hypot(dy);
    if length < 12.0 {
        return;
    }
    let (ux, uy) = (dx / length, dy / length);
    let tip = (to.0 - ux * 5.0, to.1 - uy * 5.0);
    let neck = (tip.0 - ux * 8.0, tip.1 - uy * 8.0);
    svg.path(&[(from.0 + ux * 4.5, from.1 + uy * 4.5), neck], false, &format!("ln {class}"));
    let head = [tip, (neck.0 - uy * 4.0, neck.1 + ux * 4.0), (neck.0 + uy * 4.0, neck.1 - ux * 4.0)];
    svg.path(&head, true, &format!("tip {class}"));
}

/// The values with a little room on both sides for names; shares stay between 0 and 1.
fn roomy(mut values: Vec<f64>, log: bool) -> Vec<f64> {
    let ends = values.iter().copied().filter(|v| v.is_finite());
    let (low, high) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    let room = (high - low) * 0.08;
    if log || !room.is_finite() || room <= 0.0 {
        return values;
    }
    let share = low >= 0.0 && high <= 1.0;
    let within = |v: f64| if share { v.clamp(0.0, 1.0) } else { v };
    values.extend([within(low - room), within(high + room)]);
    values
}

/// Where the name of a point stands: on the side to which its arrow flies, so that the arrow does not cross it; where
/// there is no room, above or below.
fn beside(p: (f64, f64), from: Option<(f64, f64)>, width: f64, ends: (f64, f64)) -> ((f64, f64), Anchor, f64) {
    let left = from.map_or(p.0 > (ends.0 + ends.1) / 2.0, |f| f.0 > p.0);
    let below = from.is_some_and(|f| f.1 < p.1);
    let room = if left { p.0 - ends.0 - 10.0 } else { ends.1 - p.0 - 10.0 };
    if width <= room {
        let (dx, anchor) = if left { (-9.0, Anchor::End) } else { (9.0, Anchor::Start) };
        return ((p.0 + dx, p.1 + if below { 8.0 } else { 2.0 }), anchor, room);
    }
    let dy = if below { 17.0 } else { -9.0 };
    if left {
        ((p.0 - 2.0, p.1 + dy), Anchor::Start, (ends.1 - p.0).max(60.0))
    } else {
        ((p.0 + 2.0, p.1 + dy), Anchor::End, (p.0 - ends.0).max(60.0))
    }
}

/// Draws `plot`; `x` and `y` say which side of each axis is good.
pub(super) fn draw(plot: &Plot, id: &str, x: Comparison, y: Comparison) -> Drawing {
    let mut notes = Vec::new();
    if plot.series.len() > SERIES {
        notes.push(format!("Drawn: the first {SERIES} of {} series; all are in audit.json.", plot.series.len()));
    }
    let shown = |v: f64, log: bool| v.is_finite() && (!log || v > 0.0);
    let mut lost = 0;
    let mut all = Vec::new();
    let mut thinned = false;
    for series in plot.series.iter().take(SERIES) {
        let mut marks: Vec<(f64, &Mark)> = series
            .marks
            .iter()
            .filter_map(|m| m.x.map(|x| (x, m)))
            .filter(|(x, m)| shown(*x, plot.x.log) && shown(m.y, plot.y.log))
            .collect();
        lost += series.marks.len() - marks.len();
        if marks.len() > MARKS {
            let last = marks.len() - 1;
            marks = (0..MARKS).map(|i| marks[i * last / (MARKS - 1)]).collect();
            thinned = true;
        }
        all.push((series, marks));
    }
    if lost > 0 {
        notes.push(format!("{} values cannot be shown.", count(lost as u64)));
    }
    if thinned {
        notes.push("Drawn: some of the points of long ways; all are in audit.json.".into());
    }
    let marks = || all.iter().flat_map(|(_, m)| m.iter());
    let xs = Scale::fit(&plot.x, roomy(marks().map(|m| m.0).collect(), plot.x.log).into_iter(), false, 5);
    let values = marks().flat_map(|(_, m)| [Some(m.y), m.low, m.high]).flatten().collect();
    let ys = Scale::fit(&plot.y, roomy(values, plot.y.log).into_iter(), false, 5);
    let frame = Frame::new(SIZE, xs, ys, 20.0);
    let mut svg = Svg::new(SIZE.0, SIZE.1);
    frame.draw(&mut svg, &plot.x, &plot.y);

    let right = x == Comparison::AtLeast;
    let up = y == Comparison::AtLeast;
    let word = match (right, up) {
        (true, true) => "better ↗",
        (false, true) => "↖ better",
        (true, false) => "better ↘",
        (false, false) => "↙ better",
    };
    let (at, anchor) = if right { (frame.right - 4.0, Anchor::End) } else { (frame.left + 6.0, Anchor::Start) };
    svg.text((at, if up { frame.top + 12.0 } else { frame.bottom - 8.0 }), anchor, "tk", word, 90.0);

    let place = |x: f64, y: f64| frame.x.at(x).zip(frame.y.at(y));
    let last: Vec<(f64, f64)> = all.iter().filter_map(|(_, m)| m.last().map(|(x, m)| (*x, m.y))).collect();
    let best = front(&last, (x, y));
    let line: Vec<(f64, f64)> = best.iter().filter_map(|p| place(p.0, p.1)).collect();
    svg.path(&line, false, "front");

    let mut starts: Vec<(f64, f64)> = Vec::new();
    let named = all.len() <= 8;
    let mut taken: Vec<(f64, f64)> = Vec::new();
    for (i, (series, marks)) in all.iter().enumerate() {
        let class = series_class(i);
        let points: Vec<((f64, f64), &Mark, f64)> =
            marks.iter().filter_map(|(x, m)| Some((place(*x, m.y)?, *m, *x))).collect();
        for pair in points.windows(2) {
            arrow(&mut svg, pair[0].0, pair[1].0, &class);
        }
        for (k, (p, m, x)) in points.iter().enumerate() {
            let is_last = k + 1 == points.len();
            if !is_last && starts.contains(p) {
                continue;
            }
            if let Some((a, b)) = m.low.and_then(|v| frame.y.at(v)).zip(m.high.and_then(|v| frame.y.at(v))) {
                svg.line((p.0, a), (p.0, b), &format!("wh {class}"));
            }
            let name = m.label.as_deref().unwrap_or(&series.name);
            let tip = format!("{}: {name}, {} and {}", series.name, plain(*x), plain(m.y));
            svg.circle(*p, 4.0, &format!("{} {class}", if is_last { "dot" } else { "start" }), &tip);
            if !is_last {
                starts.push(*p);
            }
            // A name that would lie over another one is left to the legend.
            let text = m.label.as_deref().or((is_last && named).then_some(series.name.as_str()));
            if let Some(text) = text.filter(|t| !t.is_empty())
                && !taken.iter().any(|t| (t.0 - p.0).abs() < 90.0 && (t.1 - p.1).abs() < 13.0)
            {
                // A start has its name where its arrow does not go.
                let from = points.get(k.checked_sub(1).unwrap_or(k + 1)).map(|q| q.0);
                let (at, anchor, room) = beside(*p, from, text_width(text), (frame.left, frame.right));
                svg.text(at, anchor, "nm", text, room);
                taken.push(*p);
            }
        }
    }
    if last.is_empty() {
        svg.text(((frame.left + frame.right) / 2.0, 150.0), Anchor::Middle, "lb", "no values", 200.0);
    }
    let side = |c: Comparison| if c == Comparison::AtLeast { "higher" } else { "lower" };
    let description = format!(
        "{} against {}: {} treatments, arrows from before to after; {} is better on the horizontal axis, {} on the \
         vertical. {} of them are beaten by none.",
        plot.y.label,
        plot.x.label,
        all.len(),
        side(x),
        side(y),
        last.iter().filter(|p| best.contains(p)).count()
    );
    let mut legend: Vec<Key> = all
        .iter()
        .enumerate()
        .map(|(i, (s, _))| Key { class: series_class(i), name: s.name.clone(), line: true })
        .collect();
    if legend.len() < 2 {
        legend.clear();
    }
    Drawing { svg: svg.finish(id, &plot.title, &description), legend, notes }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Comparison = Comparison::AtLeast;
    const DOWN: Comparison = Comparison::AtMost;

    #[test]
    fn the_front_is_what_nothing_beats() {
        let points = [(1.0, 1.0), (2.0, 2.0), (3.0, 1.0), (2.0, 0.5)];
        assert_eq!(front(&points, (UP, UP)), [(2.0, 2.0), (3.0, 1.0)]);
        assert_eq!(front(&points, (DOWN, DOWN)), [(1.0, 1.0), (2.0, 0.5)]);
        assert_eq!(front(&points, (DOWN, UP)), [(1.0, 1.0), (2.0, 2.0)]);
        assert_eq!(front(&[(1.0, 1.0), (1.0, 1.0)], (UP, UP)), [(1.0, 1.0)]);
        assert!(front(&[], (UP, UP)).is_empty());
    }

    #[test]
    fn names_stand_where_the_arrow_does_not_come_from() {
        let ends = (0.0, 400.0);
        assert_eq!(beside((200.0, 50.0), Some((300.0, 50.0)), 60.0, ends), ((191.0, 52.0), Anchor::End, 190.0));
        assert_eq!(beside((200.0, 50.0), Some((100.0, 20.0)), 60.0, ends), ((209.0, 58.0), Anchor::Start, 190.0));
        assert_eq!(beside((20.0, 50.0), Some((300.0, 20.0)), 60.0, ends), ((18.0, 67.0), Anchor::Start, 380.0));
        assert_eq!(beside((390.0, 50.0), None, 60.0, ends).1, Anchor::End);
    }

    #[test]
    fn arrows_point_at_where_they_go() {
        let mut svg = Svg::new(100.0, 100.0);
        arrow(&mut svg, (0.0, 50.0), (100.0, 50.0), "s0");
        let out = svg.finish("a", "t", "d");
        assert!(out.contains("M95 50 87 54 87 46Z"), "{out}");
        let mut svg = Svg::new(100.0, 100.0);
        arrow(&mut svg, (0.0, 0.0), (0.0, 0.0), "s0");
        assert!(!svg.finish("a", "t", "d").contains("path"));
    }
}
