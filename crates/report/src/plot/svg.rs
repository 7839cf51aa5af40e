//! A drawing under construction. Coordinates are written with one decimal and are always finite.

use crate::escape;

/// Height of the text in plots, in the drawing's units; `style.css` sets the same.
pub(crate) const TEXT: f64 = 12.0;

/// A drawing of fixed size.
pub(crate) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

/// A coordinate as text. What is not finite becomes 0: no file may hold `NaN`.
fn n(v: f64) -> String {
    let v = if v.is_finite() { v.clamp(-1e5, 1e5) } else { 0.0 };
    let text = format!("{v:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), |whole| if whole == "-0" { "0".into() } else { whole.into() })
}

/// Where a text lies relative to its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub(crate) fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let (x1, y1, x2, y2) = (n(from.0), n(from.1), n(to.0), n(to.1));
        self.body.push_str(&format!("<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>"));
    }

    /// A rectangle; `tip` is shown on hover and read aloud.
    pub(crate) fn rect(&mut self, at: (f64, f64), size: (f64, f64), class: &str, extra: &str, tip: &str) {
        let (x, y, w, h) = (n(at.0), n(at.1), n(size.0.max(0.0)), n(size.1.max(0.0)));
        self.body.push_str(&format!("<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\"{extra}"));
        self.close("rect", tip);
    }

    pub(crate) fn circle(&mut self, at: (f64, f64), r: f64, class: &str, tip: &str) {
        self.body.push_str(&format!("<circle class=\"{class}\" cx=\"{}\" cy=\"{}\" r=\"{}\"", n(at.0), n(at.1), n(r)));
        self.close("circle", tip);
    }

    fn close(&mut self, tag: &str, tip: &str) {
        if tip.is_empty() {
            self.body.push_str("/>");
        } else {
            self.body.push_str(&format!("><title>{}</title></{tag}>", escape::html(tip)));
        }
    }

    /// A line through all points, or an area if `closed`.
    pub(crate) fn path(&mut self, points: &[(f64, f64)], closed: bool, class: &str) {
        if points.len() < 2 {
            return;
        }
        self.body.push_str(&format!("<path class=\"{class}\" d=\"M"));
        for (i, (x, y)) in points.iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            self.body.push_str(&format!("{gap}{} {}", n(*x), n(*y)));
        }
        self.body.push_str(if closed { "Z\"/>" } else { "\"/>" });
    }

    /// A text, shortened to `room` units; the whole text is then shown on hover.
    pub(crate) fn text(&mut self, at: (f64, f64), anchor: Anchor, class: &str, text: &str, room: f64) {
        let a = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let (short, cut) = fit(text, room);
        let tip =
            if cut { format!("<title>{}</title>", escape::html(&escape::shorten(text, 400))) } else { String::new() };
        self.body.push_str(&format!(
            "<text class=\"{class}\" x=\"{}\" y=\"{}\"{a}>{}{tip}</text>",
            n(at.0),
            n(at.1),
            escape::html(&short)
        ));
    }

    /// A text that rises to the right from its position: names of narrow columns.
    pub(crate) fn turned_text(&mut self, at: (f64, f64), class: &str, text: &str, room: f64) {
        self.body.push_str(&format!("<g transform=\"translate({} {}) rotate(-45)\">", n(at.0), n(at.1)));
        self.text((0.0, 0.0), Anchor::Start, class, text, room);
        self.body.push_str("</g>");
    }

    /// An empty rectangle around something.
    pub(crate) fn frame(&mut self, at: (f64, f64), size: (f64, f64)) {
        self.rect(at, size, "frame", "", "");
    }

    /// The whole drawing, with a title and a description for those who cannot see it.
    pub(crate) fn finish(self, id: &str, title: &str, description: &str) -> String {
        let (w, h) = (n(self.width), n(self.height));
        format!(
            "<svg class=\"plot\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" \
             height=\"{h}\"><title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>{}</svg>",
            escape::html(&escape::shorten(title, 400)),
            escape::html(&escape::shorten(description, 2000)),
            self.body
        )
    }
}

/// About how wide a text is at the plots' size. System fonts differ, so this errs on the wide side.
pub(crate) fn text_width(text: &str) -> f64 {
    text.chars().map(char_width).sum::<f64>() * TEXT
}

fn char_width(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' | '(' | ')' | '[' | ']' => 0.34,
        'm' | 'w' | 'M' | 'W' | '…' | '@' | '%' => 0.92,
        'A'..='Z' => 0.7,
        c if (c as u32) < 0x1100 => 0.59,
        // East Asian scripts, pictographs; an override is shown by its code point.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => 5.0,
        '–' | '−' | '×' => 0.65,
        _ => 1.05,
    }
}

/// The text, cut at its end to `room` units, and whether anything was cut.
fn fit(text: &str, room: f64) -> (String, bool) {
    let mut used = 0.0;
    let mut out = String::new();
    for c in text.chars() {
        used += char_width(c) * TEXT;
        if used > room {
            // Room for the ellipsis.
            while text_width(&out) > (room - TEXT).max(0.0) && out.pop().is_some() {}
            out.push('…');
            return (out, true);
        }
        out.push(c);
    }
    (out, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_short_and_finite() {
        assert_eq!((n(1.0), n(1.26), n(-0.01), n(f64::NAN)), ("1".into(), "1.3".into(), "0".into(), "0".into()));
        assert_eq!(n(f64::INFINITY), "0");
    }

    #[test]
    fn long_names_are_cut_and_kept_on_hover() {
        let mut s = Svg::new(10.0, 10.0);
        s.text((0.0, 0.0), Anchor::Start, "t", &"x<".repeat(500), 60.0);
        let out = s.finish("a", "title", "desc");
        assert!(out.contains("…<title>") && !out.contains("x<x"));
        assert!(text_width(&fit(&"m".repeat(99), 60.0).0) <= 60.0);
        assert_eq!(fit("ab", 60.0), ("ab".into(), false));
    }

    #[test]
    fn a_drawing_says_what_it_is() {
        let out = Svg::new(10.0, 10.0).finish("p1", "a <b>", "d");
        assert!(out.contains("role=\"img\"") && out.contains("aria-labelledby=\"p1-t p1-d\""));
        assert!(out.contains("<title id=\"p1-t\">a &lt;b&gt;</title><desc id=\"p1-d\">d</desc>"));
    }
}
