//! Beeswarms: how much each feature moves the output over many samples, coloured by the feature's own value.
//! Lundberg and Lee 2017, NeurIPS, as drawn by their library: one row per feature, one dot per sample.

use netproof_core::{Mark, Plot};

use super::axis::Scale;
use super::svg::{Anchor, Svg, TEXT, text_width};
use super::{Drawing, Key};
use crate::number::{count, plain};

/// Outer width.
const WIDTH: f64 = 430.0;
/// More rows than this are cut.
const ROWS: usize = 30;
/// More dots than this in one row are thinned evenly.
const DOTS: usize = 250;
/// Height of a row.
const PITCH: f64 = 30.0;
/// Radius of a dot.
const RADIUS: f64 = 2.1;
/// Colours from the lowest to the highest value.
const SHADES: usize = 7;

/// Vertical offsets of dots at these horizontal places: those that would touch stand above and below each other.
fn offsets(places: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|a, b| places[*a].total_cmp(&places[*b]).then(a.cmp(b)));
    let mut out = vec![0.0; places.len()];
    let mut column: Vec<usize> = Vec::new();
    let flush = |column: &mut Vec<usize>, out: &mut Vec<f64>| {
        let room = PITCH / 2.0 - RADIUS - 1.0;
        let step = (room / column.len().div_ceil(2).max(1) as f64).min(RADIUS * 1.9);
        for (k, i) in column.drain(..).enumerate() {
            let level = k.div_ceil(2) as f64;
            out[i] = if k % 2 == 0 { level * step } else { -level * step };
        }
    };
    for i in order {
        if column.first().is_some_and(|first| places[i] - places[*first] > RADIUS * 1.8) {
            flush(&mut column, &mut out);
        }
        column.push(i);
    }
    flush(&mut column, &mut out);
    out
}

/// Class of a dot by where its value lies between the lowest and the highest of its row.
fn shade(value: f64, low: f64, high: f64) -> String {
    if high <= low || ![value, low, high].iter().all(|v| v.is_finite()) {
        return "grey".into();
    }
    let t = ((value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)).clamp(0.0, 1.0);
    format!("q{}", ((t * SHADES as f64) as usize).min(SHADES - 1))
}

/// Draws `plot`.
pub(super) fn draw(plot: &Plot, id: &str) -> Drawing {
    let mut notes = Vec::new();
    if plot.series.len() > ROWS {
        notes.push(format!(
            "Drawn: the first {ROWS} of {} rows; all are in audit.json.",
            count(plot.series.len() as u64)
        ));
    }
    let rows: Vec<_> = plot.series.iter().take(ROWS).collect();
    let usable = |m: &&Mark| m.x.is_some_and(f64::is_finite);
    let all = || rows.iter().flat_map(|s| s.marks.iter().filter(usable));
    let scale = Scale::fit(&plot.x, all().filter_map(|m| m.x).chain(plot.reference), true, 4);
    let left = rows.iter().map(|s| text_width(&s.name)).fold(0.0, f64::max).clamp(30.0, 150.0) + 12.0;
    let right = WIDTH - 12.0;
    let scale = scale.between(left, right);
    let top = 4.0;
    let bottom = top + PITCH * rows.len().max(1) as f64;
    let mut svg = Svg::new(WIDTH, bottom + 42.0);
    let mut free_from = f64::NEG_INFINITY;
    for (v, label) in scale.ticks.iter().zip(scale.labels()) {
        if let Some(px) = scale.at(*v) {
            svg.line((px, bottom), (px, bottom + 4.0), "ax");
            let half = text_width(&label) / 2.0;
            if px - half > free_from {
                svg.text((px, bottom + 17.0), Anchor::Middle, "tk", &label, 90.0);
                free_from = px + half + 4.0;
            }
        }
    }
    svg.line((left, bottom), (right, bottom), "ax");
    svg.text(((left + right) / 2.0, bottom + 35.0), Anchor::Middle, "lb", &plot.x.label, right - left);
    if let Some(px) = scale.at(plot.reference.filter(|r| r.is_finite()).unwrap_or(0.0)) {
        svg.line((px, top), (px, bottom), "ref");
    }
    let (mut drawn, mut total, mut coloured) = (0, 0, false);
    for (r, series) in rows.iter().enumerate() {
        let middle = top + PITCH * (r as f64 + 0.5);
        svg.line((left, middle), (right, middle), "gr");
        svg.text((left - 12.0, middle + TEXT / 3.0), Anchor::End, "nm", &series.name, left - 12.0);
        let marks: Vec<&Mark> = series.marks.iter().filter(usable).collect();
        total += marks.len();
        let values = marks.iter().map(|m| m.y).filter(|y| y.is_finite());
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), y| (a.min(y), b.max(y)));
        coloured |= high > low;
        let step = marks.len().div_ceil(DOTS).max(1);
        let shown: Vec<(&Mark, f64)> = marks.iter().step_by(step).filter_map(|m| Some((*m, scale.at(m.x?)?))).collect();
        drawn += shown.len();
        let places: Vec<f64> = shown.iter().map(|s| s.1).collect();
        for ((m, px), dy) in shown.iter().zip(offsets(&places)) {
            svg.circle((*px, middle + dy), RADIUS, &format!("bee {}", shade(m.y, low, high)), "");
        }
    }
    if drawn < total {
        notes.push(format!("Drawn: {} of {} points; all are in audit.json.", count(drawn as u64), count(total as u64)));
    }
    let given: usize = rows.iter().map(|s| s.marks.len()).sum();
    if total < given {
        notes.push(format!("{} of {} values cannot be shown.", count((given - total) as u64), count(given as u64)));
    }
    if rows.is_empty() {
        svg.text((WIDTH / 2.0, top + 16.0), Anchor::Middle, "lb", "no values", 200.0);
    }
    let largest = all().filter_map(|m| m.x).fold(0.0_f64, |a, x| a.max(x.abs()));
    let description = format!(
        "Beeswarm: {} of {} rows over {} values; the largest contribution is {}. Colour runs from each row's lowest to \
         its highest value.",
        plot.x.label,
        plot.series.len(),
        count(total as u64),
        plain(largest)
    );
    let legend = if coloured {
        vec![
            Key { class: "q0".into(), name: "lowest value of the row".into(), line: false },
            Key { class: "q3".into(), name: "middle".into(), line: false },
            Key { class: "q6".into(), name: "highest".into(), line: false },
        ]
    } else {
        Vec::new()
    };
    Drawing { svg: svg.finish(id, &plot.title, &description), legend, notes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_that_would_touch_are_moved_apart_and_stay_in_their_row() {
        let y = offsets(&[10.0, 10.0, 10.0, 80.0]);
        assert_eq!(y[3], 0.0);
        let mut apart = y[..3].to_vec();
        apart.sort_by(f64::total_cmp);
        assert!(apart[1] - apart[0] > RADIUS && apart[2] - apart[1] > RADIUS, "{y:?}");
        assert!(offsets(&[1.0; 500]).iter().all(|v| v.abs() <= PITCH / 2.0 - RADIUS));
        assert!(offsets(&[]).is_empty());
    }

    #[test]
    fn colours_run_from_the_lowest_to_the_highest() {
        let of = |v| shade(v, 2.0, 4.0);
        assert_eq!([of(2.0), of(3.0), of(4.0)], ["q0", "q3", "q6"]);
        assert_eq!(shade(1.0, 1.0, 1.0), "grey");
        assert_eq!(shade(f64::MAX, f64::MIN, f64::MAX), "q6");
        assert_eq!(shade(f64::NAN, 0.0, 1.0), "grey");
    }
}
