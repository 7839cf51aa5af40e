//! A picture in memory, with rectangles and text.

/// Glyphs of printable ASCII and of `−·×±–`, 8 × 16 pixels each, rasterised from DejaVu Sans Mono (Bitstream Vera licence).
const GLYPHS: &[u8] = include_bytes!("font.bin");
const GLYPH: [usize; 2] = [8, 16];
const BEYOND_ASCII: &str = "−·×±–";

/// Width of a character.
pub(super) const ADVANCE: usize = GLYPH[0];
/// Height of a line.
pub(super) const LINE: usize = GLYPH[1] + 2;

/// Pixels of red, green and blue, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canvas {
    /// Width and height.
    pub size: [usize; 2],
    /// `[height, width, 3]`.
    pub pixels: Vec<u8>,
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize) -> Self {
        Self { size: [width, height], pixels: vec![255; width * height * 3] }
    }

    pub(super) fn put(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        if x < self.size[0] && y < self.size[1] {
            let at = (y * self.size[0] + x) * 3;
            self.pixels[at..at + 3].copy_from_slice(&colour);
        }
    }

    pub(super) fn fill(&mut self, [x, y]: [usize; 2], [w, h]: [usize; 2], colour: [u8; 3]) {
        (y..y + h).for_each(|y| (x..x + w).for_each(|x| self.put(x, y, colour)));
    }

    pub(super) fn frame(&mut self, [x, y]: [usize; 2], [w, h]: [usize; 2], colour: [u8; 3]) {
        self.fill([x, y], [w, 1], colour);
        self.fill([x, y + h - 1], [w, 1], colour);
        self.fill([x, y], [1, h], colour);
        self.fill([x + w - 1, y], [1, h], colour);
    }

    /// Cells of a grid, each as `scale × scale` pixels.
    pub(super) fn cells(
        &mut self,
        [x, y]: [usize; 2],
        [h, w]: [usize; 2],
        scale: usize,
        colour: impl Fn(usize) -> [u8; 3],
    ) {
        for cell in 0..h * w {
            self.fill([x + cell % w * scale, y + cell / w * scale], [scale, scale], colour(cell));
        }
    }

    pub(super) fn text(&mut self, [x, y]: [usize; 2], text: &str, colour: [u8; 3]) {
        for (i, c) in text.chars().enumerate() {
            let index = match c as usize {
                code @ 32..=126 => code - 32,
                _ => match BEYOND_ASCII.chars().position(|b| b == c) {
                    Some(p) => 95 + p,
                    None => '?' as usize - 32,
                },
            };
            let glyph = &GLYPHS[index * GLYPH[0] * GLYPH[1]..][..GLYPH[0] * GLYPH[1]];
            for (p, &cover) in glyph.iter().enumerate().filter(|(_, cover)| **cover > 0) {
                let (px, py) = (x + i * ADVANCE + p % GLYPH[0], y + p / GLYPH[0]);
                if px < self.size[0] && py < self.size[1] {
                    let at = (py * self.size[0] + px) * 3;
                    let t = f32::from(cover) / 255.0;
                    (0..3).for_each(|c| self.pixels[at + c] = super::colour::mix(self.pixels[at + c], colour[c], t));
                }
            }
        }
    }

    /// Text that ends in `…` where it would be wider than `width`.
    pub(super) fn text_within(&mut self, at: [usize; 2], width: usize, text: &str, colour: [u8; 3]) {
        let room = width / ADVANCE;
        if text.chars().count() <= room {
            self.text(at, text, colour);
        } else {
            let cut: String = text.chars().take(room.saturating_sub(3)).collect();
            self.text(at, &format!("{cut}..."), colour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_drawn_and_never_beyond_the_edge() {
        let mut c = Canvas::new(40, 18);
        c.text([0, 0], "−1.5 is too long", [0, 0, 0]);
        assert!(c.pixels.iter().any(|&p| p < 100));
        assert_eq!(GLYPHS.len(), (95 + BEYOND_ASCII.chars().count()) * GLYPH[0] * GLYPH[1]);
        let mut blank = Canvas::new(40, 18);
        blank.text([0, 0], " ", [0, 0, 0]);
        assert!(blank.pixels.iter().all(|&p| p == 255));
    }
}
