//! What each head of an attention layer looks at.

use super::canvas::{ADVANCE, Canvas, LINE};
use super::colour::sequential;
use super::short;

/// Maps of all heads of one row and layer, side by side, on one scale from 0 to the largest entry.
/// # Shapes
/// `maps`: one per head, `[height, width]` each
pub fn heads(title: &str, maps: &[Vec<f32>], [h, w]: [usize; 2]) -> Canvas {
    const MARGIN: usize = 12;
    let scale = (140 / h.max(w).max(1)).max(1);
    let largest = maps.iter().flatten().filter(|v| v.is_finite()).fold(0f32, |m, &v| m.max(v));
    let step = (w * scale).max(8 * ADVANCE) + MARGIN;
    let width = (MARGIN + maps.len() * step).max(MARGIN * 2 + 40 * ADVANCE);
    let top = MARGIN / 2 + 2 * LINE;
    let bottom = top + h * scale;
    let mut canvas = Canvas::new(width, bottom + LINE + 22);
    canvas.text_within([MARGIN, MARGIN / 2], width - 2 * MARGIN, title, [30, 30, 30]);
    for (i, map) in maps.iter().enumerate() {
        let x = MARGIN + i * step;
        canvas.text([x, MARGIN / 2 + LINE], &format!("head {i}"), [110, 110, 110]);
        canvas.cells([x, top], [h, w], scale, |p| sequential(if largest > 0.0 { map[p] / largest } else { 0.0 }));
    }
    let bar = (20 * ADVANCE).min(width - 2 * MARGIN);
    for i in 0..bar {
        canvas.fill([MARGIN + i, bottom + 8], [1, 10], sequential(i as f32 / (bar - 1) as f32));
    }
    canvas.text([MARGIN, bottom + 20], "0", [30, 30, 30]);
    let end = short(f64::from(largest));
    canvas.text([MARGIN + bar - end.chars().count() * ADVANCE, bottom + 20], &end, [30, 30, 30]);
    canvas
}
