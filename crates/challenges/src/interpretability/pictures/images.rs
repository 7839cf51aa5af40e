//! A row of panels for an image: what went in, the map, the map laid over it.

use super::canvas::{ADVANCE, Canvas, LINE};
use super::colour::{diverging, mix};
use super::short;

const INK: [u8; 3] = [30, 30, 30];
const FAINT: [u8; 3] = [110, 110, 110];
const WARNING: [u8; 3] = [178, 24, 43];
const MARGIN: usize = 16;
/// Pixels that a panel's longer side gets, about.
const PANEL: usize = 252;
/// Height of the scale under the map.
const BAR: usize = 12;

/// What is drawn of one image.
#[derive(Debug, Clone)]
pub struct ImageRow<'a> {
    /// Channels, height and width.
    pub size: [usize; 3],
    /// The image, `[channels, height, width]`.
    pub image: &'a [f32],
    /// The attributions, `[channels, height, width]`; channels are summed for the picture.
    pub attributions: &'a [f32],
    /// First line: which row, target and score.
    pub title: &'a str,
    /// Second line: which method, what else must be known.
    pub subtitle: &'a str,
    /// Said in red across the map, where the map must not be relied on.
    pub badge: Option<&'a str>,
}

/// The panels, with the scale of the map in the units of the score.
pub fn image_row(row: &ImageRow<'_>) -> Canvas {
    let [channels, h, w] = row.size;
    let places = h * w;
    let scale = (PANEL / h.max(w).max(1)).max(1);
    let panel = [w * scale, h * scale];
    let map: Vec<f32> = (0..places).map(|p| (0..channels).map(|c| row.attributions[c * places + p]).sum()).collect();
    let largest = map.iter().filter(|v| v.is_finite()).fold(0f32, |m, v| m.max(v.abs()));
    let unit = |p: usize| if largest > 0.0 { map[p] / largest } else { 0.0 };
    let step = panel[0].max(ADVANCE * 18) + MARGIN;
    let width = (MARGIN + 3 * step).max(MARGIN * 2 + 60 * ADVANCE);
    let top = MARGIN / 2 + 2 * LINE + 6;
    let picture_top = top + LINE;
    let height = picture_top + panel[1] + 8 + BAR + LINE + 8;
    let mut canvas = Canvas::new(width, height);
    canvas.text_within([MARGIN, MARGIN / 2], width - 2 * MARGIN, row.title, INK);
    canvas.text_within([MARGIN, MARGIN / 2 + LINE], width - 2 * MARGIN, row.subtitle, FAINT);
    let x = |i: usize| MARGIN + i * step;
    for (i, name) in ["input", "attribution", "overlay"].into_iter().enumerate() {
        canvas.text([x(i), top], name, FAINT);
    }
    for (i, panel) in colours(row, &unit).iter().enumerate() {
        canvas.cells([x(i), picture_top], [h, w], scale, |p| panel[p]);
    }
    for i in 0..3 {
        canvas.frame([x(i), picture_top], panel, [200, 200, 200]);
    }
    bar(&mut canvas, [x(1), picture_top + panel[1] + 8], panel[0], largest);
    if let Some(badge) = row.badge {
        let lines = wrapped(badge, (panel[0].saturating_sub(12) / ADVANCE).max(8));
        let high = lines.len() * LINE + 8;
        let y = picture_top + panel[1].saturating_sub(high) / 2;
        for i in [1, 2] {
            canvas.fill([x(i), y], [panel[0], high], [255, 255, 255]);
            canvas.frame([x(i), y], [panel[0], high], WARNING);
            for (k, line) in lines.iter().enumerate() {
                canvas.text_within([x(i) + 6, y + 6 + k * LINE], panel[0] - 12, line, WARNING);
            }
        }
    }
    canvas
}

/// Text in lines of at most `room` characters, broken between words.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// An image alone, with a title.
/// # Shapes
/// `size`: channels, height, width; `image [channels, height, width]`
pub fn picture(size: [usize; 3], image: &[f32], title: &str) -> Canvas {
    let [_, h, w] = size;
    let scale = (PANEL / h.max(w).max(1)).max(1);
    let mut canvas = Canvas::new((w * scale + 2 * MARGIN).max(30 * ADVANCE), h * scale + 2 * MARGIN + LINE);
    canvas.text_within([MARGIN, MARGIN / 2], canvas.size[0] - 2 * MARGIN, title, INK);
    let row = ImageRow { size, image, attributions: &[], title, subtitle: "", badge: None };
    let base = pixels(&row);
    canvas.cells([MARGIN, MARGIN / 2 + LINE], [h, w], scale, |p| base[p]);
    canvas
}

/// The input, the map and the overlay as pictures of their own, without text, about `side` pixels wide; for galleries.
pub fn panels(row: &ImageRow<'_>, side: usize) -> [Canvas; 3] {
    let [channels, h, w] = row.size;
    let places = h * w;
    let scale = (side / h.max(w).max(1)).max(1);
    let map: Vec<f32> = (0..places).map(|p| (0..channels).map(|c| row.attributions[c * places + p]).sum()).collect();
    let largest = map.iter().filter(|v| v.is_finite()).fold(0f32, |m, v| m.max(v.abs()));
    let unit = |p: usize| if largest > 0.0 { map[p] / largest } else { 0.0 };
    colours(row, &unit).map(|panel| {
        let mut canvas = Canvas::new(w * scale, h * scale);
        canvas.cells([0, 0], [h, w], scale, |p| panel[p]);
        canvas
    })
}

/// Colours of the places of input, map and overlay; `unit` is the map between -1 and 1.
fn colours(row: &ImageRow<'_>, unit: &dyn Fn(usize) -> f32) -> [Vec<[u8; 3]>; 3] {
    let base = pixels(row);
    let map: Vec<[u8; 3]> = (0..base.len()).map(|p| diverging(unit(p))).collect();
    let over = |p: usize| {
        let grey = base[p].iter().map(|&v| u32::from(v)).sum::<u32>() / 3;
        // A light picture under the map, so that both ends of the map stay visible.
        let grey = mix(255, grey as u8, 0.55);
        let cover = unit(p).abs().min(1.0).sqrt() * 0.85;
        std::array::from_fn(|c| mix(grey, map[p][c], cover))
    };
    let overlay = (0..base.len()).map(over).collect();
    [base, map, overlay]
}

/// The colour scale with its ends and zero.
pub(super) fn bar(canvas: &mut Canvas, [x, y]: [usize; 2], width: usize, largest: f32) {
    for i in 0..width {
        let v = 2.0 * i as f32 / (width.max(2) - 1) as f32 - 1.0;
        canvas.fill([x + i, y], [1, BAR], diverging(v));
    }
    canvas.frame([x, y], [width, BAR], [200, 200, 200]);
    canvas.fill([x + width / 2, y], [1, BAR + 3], INK);
    let end = short(f64::from(largest));
    let below = y + BAR + 2;
    canvas.text([x, below], &format!("−{end}"), INK);
    canvas.text([x + width / 2 - ADVANCE / 2, below], "0", INK);
    let right = format!("+{end}");
    canvas.text([x + width.saturating_sub(right.chars().count() * ADVANCE), below], &right, INK);
}

/// The image as colours: as it is where it lies within 0 and 1, else scaled to its own range.
fn pixels(row: &ImageRow<'_>) -> Vec<[u8; 3]> {
    let [channels, h, w] = row.size;
    let finite = row.image.iter().filter(|v| v.is_finite());
    let (low, high) = finite.fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let (low, high) = if low >= 0.0 && high <= 1.0 { (0.0, 1.0) } else { (low, high) };
    let byte = |v: f32| if high > low { ((v - low) / (high - low) * 255.0).clamp(0.0, 255.0) as u8 } else { 128 };
    (0..h * w)
        .map(|p| match channels {
            3 => std::array::from_fn(|c| byte(row.image[c * h * w + p])),
            _ => {
                let mean = (0..channels).map(|c| row.image[c * h * w + p]).sum::<f32>() / channels as f32;
                [byte(mean); 3]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_centred_at_zero_and_scaled_by_its_largest_entry() {
        let image = [0.0, 0.5, 1.0, 0.25];
        let attributions = [-2.0, 0.0, 1.0, 2.0];
        let row = ImageRow {
            size: [1, 2, 2],
            image: &image,
            attributions: &attributions,
            title: "t",
            subtitle: "s",
            badge: None,
        };
        let c = image_row(&row);
        let count = |colour: [u8; 3]| c.pixels.chunks(3).filter(|p| **p == colour).count();
        // A cell is half a panel, less the frame.
        let cell = (PANEL / 2 - 2) * (PANEL / 2 - 2);
        assert!(count([5, 48, 97]) >= cell && count([103, 0, 31]) >= cell);
        assert!(count(diverging(0.5)) >= cell && count([247, 247, 247]) >= cell);
        let marked = image_row(&ImageRow { badge: Some("do not rely on this"), ..row });
        assert!(marked.pixels.chunks(3).any(|p| *p == WARNING) && marked != c);
        let badge = "do not rely on this: 77 % of the map's order stays without the weights";
        let lines = wrapped(badge, 30);
        assert_eq!(lines.join(" "), badge);
        assert!(lines.len() == 3 && lines.iter().all(|l| l.chars().count() <= 30), "{lines:?}");
    }
}
