//! The axes around a plot of values over values.

use netproof_core::Axis;

use super::axis::Scale;
use super::svg::{Anchor, Svg, TEXT, text_width};

/// Outer size and margins of a plot, and the scales of both axes.
pub(crate) struct Frame {
    pub(crate) left: f64,
    pub(crate) right: f64,
    pub(crate) top: f64,
    pub(crate) bottom: f64,
    pub(crate) x: Scale,
    pub(crate) y: Scale,
}

impl Frame {
    /// Lays out axes with room for their labels: `size` is the outer size, `right_room` stays free at the right.
    pub(crate) fn new(size: (f64, f64), x: Scale, y: Scale, right_room: f64) -> Self {
        let widest = y.labels().iter().map(|l| text_width(l)).fold(0.0, f64::max);
        let (left, right, top, bottom) =
            (widest.clamp(18.0, 90.0) + 10.0, size.0 - right_room.max(14.0), 30.0, size.1 - 40.0);
        Self { left, right, top, bottom, x: x.between(left, right), y: y.between(bottom, top) }
    }

    /// Draws grid, ticks and labels. The name of the vertical axis stands above it, where it is read without turning.
    pub(crate) fn draw(&self, svg: &mut Svg, x: &Axis, y: &Axis) {
        for (v, label) in self.y.ticks.iter().zip(self.y.labels()) {
            if let Some(py) = self.y.at(*v) {
                svg.line((self.left, py), (self.right, py), "gr");
                svg.text((self.left - 8.0, py + 4.0), Anchor::End, "tk", &label, 90.0);
            }
        }
        let mut free_from = f64::NEG_INFINITY;
        for (v, label) in self.x.ticks.iter().zip(self.x.labels()) {
            if let Some(px) = self.x.at(*v) {
                svg.line((px, self.bottom), (px, self.bottom + 4.0), "ax");
                let half = text_width(&label) / 2.0;
                if px - half > free_from {
                    svg.text((px, self.bottom + 17.0), Anchor::Middle, "tk", &label, 90.0);
                    free_from = px + half + 4.0;
                }
            }
        }
        svg.line((self.left, self.bottom), (self.right, self.bottom), "ax");
        let middle = (self.left + self.right) / 2.0;
        svg.text((middle, self.bottom + 35.0), Anchor::Middle, "lb", &x.label, self.right - self.left);
        svg.text((0.0, TEXT), Anchor::Start, "lb", &y.label, self.right);
    }
}
